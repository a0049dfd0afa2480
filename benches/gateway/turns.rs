//! What somebody does to everybody else: one greedy caller, and servers that hang, flood or flap. The same quiet load is
//! driven all the time; beside it the trouble is switched on and off, in turns of a second whose order in each pair is
//! drawn. What else the machine does falls on both kinds of turns alike, and how far two such measurements are apart by
//! chance is said with each figure: what stands between the ends of the range could be found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, check, request, serial};
use crate::process::Process;
use crate::upstream::ECHO;
use crate::world::{Gateway, ILLNESSES, PEOPLE, Setup, World};

/// One turn is measured for so long,
const TURN: Duration = Duration::from_secs(1);
/// once what was switched has settled: connections are open, a first burst is over, calls of before have ended.
const SETTLE: Duration = Duration::from_millis(250);
/// Pairs of turns for each second that was asked for with `--seconds`.
const PAIRS_PER_SECOND: u128 = 12;
/// People who call without haste, each on a connection of their own.
const QUIET: usize = 16;
/// What each of them does between an answer and the next call, in the middle of an exponential distribution.
const PAUSE: Duration = Duration::from_millis(10);
/// Callers of a sick server, and connections of the greedy one.
const LOUD: usize = 4;
/// Draws of the bootstrap.
const DRAWS: usize = 1_000;

/// What one greedy caller does to the others, and what nobody does.
pub async fn noisy(world: &World, duration: Duration) -> Result<()> {
    let gateway = world.gateway(&Setup { limited: true, ..Setup::default() }).await?;
    println!("\n{QUIET} quiet connections beside one greedy caller");
    let answered = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    // How far the figures of nothing are from nothing is what this method can resolve.
    compare("nothing", &gateway, duration, Vec::new).await?;
    let greedy = || {
        let caller = || tokio::spawn(greedy(request_of(&gateway, 0), Arc::clone(&answered), Arc::clone(&refused)));
        (0..LOUD).map(|_| caller()).collect()
    };
    compare("one greedy caller", &gateway, duration, greedy).await?;
    println!(
        "the greedy caller: {} answered, {} refused",
        answered.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
    Ok(())
}

/// What sick servers do to those who call a healthy one.
pub async fn sick(world: &World, duration: Duration) -> Result<()> {
    let (_sick, address) = Process::ourselves("upstream")?;
    let gateway = world.gateway(&Setup { sick: Some(address.parse()?), ..Setup::default() }).await?;
    println!("\n{QUIET} quiet connections beside {LOUD} callers of a sick server");
    for (index, illness) in ILLNESSES.into_iter().enumerate() {
        let tool = format!("s{}__{ECHO}", index + 1);
        let suffering = || {
            let caller = |person| Caller { tool: tool.clone(), ..request_of(&gateway, person) };
            (0..LOUD).map(|person| tokio::spawn(suffering(caller(person)))).collect()
        };
        compare(&format!("a server that {illness}"), &gateway, duration, suffering).await?;
    }
    Ok(())
}

/// Who calls what.
struct Caller {
    address: std::net::SocketAddr,
    token: String,
    tool: String,
}

fn request_of(gateway: &Gateway, person: usize) -> Caller {
    Caller { address: gateway.address, token: gateway.tokens[person].clone(), tool: format!("s0__{ECHO}") }
}

/// As fast as it may. What goes wrong with it is seen in what was counted.
async fn greedy(caller: Caller, answered: Arc<AtomicU64>, refused: Arc<AtomicU64>) -> Result<()> {
    let mut connection = Connection::open(caller.address).await?;
    loop {
        let (headers, body) = request(&Ask::Call(caller.tool.clone()), Some(&caller.token), serial());
        let answer = connection.post("/mcp", &headers, &body).await?;
        let counted = if answer.status == 429 { &refused } else { &answered };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls for ever, whatever comes of it.
async fn suffering(caller: Caller) -> Result<()> {
    loop {
        let (headers, body) = request(&Ask::Call(caller.tool.clone()), Some(&caller.token), serial());
        let called = async { Connection::open(caller.address).await?.post("/mcp", &headers, &body).await };
        // That it ends, by an answer, a failure or a broken stream, is all that is asked of it.
        let _ = called.await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Drives the quiet load, switches the trouble on and off, and prints what changed.
async fn compare(
    label: &str,
    gateway: &Gateway,
    duration: Duration,
    trouble: impl Fn() -> Vec<JoinHandle<Result<()>>>,
) -> Result<()> {
    let pairs = usize::try_from(duration.as_millis() * PAIRS_PER_SECOND / 1_000)?.max(2);
    let turn = Arc::new(AtomicUsize::new(BETWEEN));
    let quiet: Vec<_> = (0..QUIET)
        .map(|index| {
            let caller = Caller { token: String::new(), ..request_of(gateway, 0) };
            // Person 0 is the greedy one.
            let tokens = gateway.tokens[1..PEOPLE].iter().skip(index).step_by(QUIET).cloned().collect();
            tokio::spawn(unhurried(caller, tokens, Draw(index as u64 + 1), Arc::clone(&turn), pairs * 2))
        })
        .collect();
    let mut coin = Draw(0x0b5e_55ed);
    let (mut cpu_alone, mut cpu_beside) = (Duration::ZERO, Duration::ZERO);
    for pair in 0..pairs {
        let beside_first = coin.below(2) == 0;
        for beside in [beside_first, !beside_first] {
            let callers = if beside { trouble() } else { Vec::new() };
            tokio::time::sleep(SETTLE).await;
            let before = gateway.process.cpu()?;
            // Even turns are those without, wherever in its pair each was.
            turn.store(pair * 2 + usize::from(beside), Ordering::Relaxed);
            tokio::time::sleep(TURN).await;
            turn.store(BETWEEN, Ordering::Relaxed);
            *(if beside { &mut cpu_beside } else { &mut cpu_alone }) += gateway.process.cpu()?.saturating_sub(before);
            if callers.iter().any(JoinHandle::is_finished) || quiet.iter().any(JoinHandle::is_finished) {
                return Err("somebody could not go on calling".into());
            }
            callers.iter().for_each(JoinHandle::abort);
        }
    }
    turn.store(OVER, Ordering::Relaxed);
    let mut turns = vec![Vec::new(); pairs * 2];
    for caller in quiet {
        for (all, own) in turns.iter_mut().zip(caller.await??) {
            all.extend(own);
        }
    }
    println!("{:>24}  {:>9}  {:>8}  {:>8}  {:>8}  {:>10}", "", "calls", "p50 ms", "p99 ms", "p99.9 ms", "CPU ms/s");
    print_row("alone", &turns, 0, cpu_alone, pairs);
    print_row(&format!("beside {label}"), &turns, 1, cpu_beside, pairs);
    let all: Vec<usize> = (0..pairs).collect();
    let mut drawn: Vec<f64> =
        (0..DRAWS).map(|_| change(&turns, &(0..pairs).map(|_| coin.below(pairs)).collect::<Vec<_>>())).collect();
    drawn.sort_by(f64::total_cmp);
    println!(
        "{label}: the others' p99 changed by {:+.1} % (95 of 100 draws of these {pairs} pairs: {:+.1} to {:+.1} %)",
        change(&turns, &all),
        drawn[DRAWS * 25 / 1_000],
        drawn[DRAWS * 975 / 1_000]
    );
    Ok(())
}

/// No turn: what is asked now is not counted.
const BETWEEN: usize = usize::MAX;
/// No turn will come.
const OVER: usize = usize::MAX - 1;

/// Calls with pauses until all turns are over; answers the latencies of each turn, in tenths of a microsecond.
async fn unhurried(
    caller: Caller,
    tokens: Vec<String>,
    mut draw: Draw,
    turn: Arc<AtomicUsize>,
    turns: usize,
) -> Result<Vec<Vec<u32>>> {
    let ask = Ask::Call(caller.tool.clone());
    let mut connection = Connection::open(caller.address).await?;
    let mut latencies = vec![Vec::new(); turns];
    for token in tokens.iter().cycle() {
        tokio::time::sleep(draw.exponential(PAUSE)).await;
        let now = turn.load(Ordering::Relaxed);
        if now == OVER {
            break;
        }
        let serial = serial();
        let (headers, body) = request(&ask, Some(token), serial);
        let sent = Instant::now();
        let answer = connection.post("/mcp", &headers, &body).await?;
        let took = sent.elapsed();
        check(&ask, &answer, serial)?;
        if let Some(own) = latencies.get_mut(now) {
            own.push(u32::try_from(took.as_nanos() / 100).unwrap_or(u32::MAX));
        }
    }
    Ok(latencies)
}

/// The change of the p99, in percent, over these pairs.
fn change(turns: &[Vec<u32>], pairs: &[usize]) -> f64 {
    let side = |kind: usize| {
        let mut all: Vec<u32> = pairs.iter().flat_map(|pair| turns[pair * 2 + kind].iter().copied()).collect();
        quantile(&mut all, 990)
    };
    (side(1) / side(0) - 1.0) * 100.0
}

/// The latency under which so many of a thousand stay, milliseconds.
fn quantile(all: &mut [u32], of_a_thousand: usize) -> f64 {
    if all.is_empty() {
        return f64::NAN;
    }
    let index = (all.len() * of_a_thousand / 1_000).min(all.len() - 1);
    f64::from(*all.select_nth_unstable(index).1) / 10_000.0
}

fn print_row(label: &str, turns: &[Vec<u32>], kind: usize, cpu: Duration, pairs: usize) {
    let mut all: Vec<u32> = turns.iter().skip(kind).step_by(2).flatten().copied().collect();
    println!(
        "{label:>24}  {:>9}  {:>8.3}  {:>8.3}  {:>8.3}  {:>10.1}",
        all.len(),
        quantile(&mut all, 500),
        quantile(&mut all, 990),
        quantile(&mut all, 999),
        cpu.as_secs_f64() * 1_000.0 / (TURN.as_secs_f64() * pairs as f64)
    );
}

/// SplitMix64: draws that are the same in every run, so that two runs differ by what they measure.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn exponential(&mut self, middle: Duration) -> Duration {
        // Never 0, whose logarithm would be no duration.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        middle.mul_f64(-uniform.ln())
    }
}
