//! What one warm `tools/call` costs this process beyond the exchange with its server.
//!
//! The real gateway answers requests in this process, with a token, a rule and a condition: nobody is connected to it.
//! Behind it is a server of its own process; what asking that server by itself costs, with the gateway's own client, is
//! taken off. What is left is parsing, authenticating, deciding, both lines of the record, rewriting both ways, and
//! handing the lines to the thread that writes them into memory. CPU time of all threads, not time that passes.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bailiwick::config::Overrides;
use bailiwick::demo::{DemoIssuer, DemoOptions, DemoUser, MintRequest};
use bailiwick::egress::{EgressPolicy, UpstreamClient, upstream_client};
use bailiwick::front::Front;
use bailiwick::ids::{AgentId, ReplicaId};
use bailiwick::serve::{Options, start};
use bailiwick::wire::handle::Sealer;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Result;

#[path = "../gateway/upstream.rs"]
mod upstream;

/// Calls in one turn; the turns of the two change places, and each figure is the median of its turns.
const CALLS: u32 = 1_600;
/// Calls that are under way at once. One at a time each of them has a thread that goes to sleep and wakes up for every step
/// of it, which is no work of ours; with more of them threads find something to do.
const AT_ONCE: [u32; 2] = [1, 16];
const TURNS: usize = 9;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const RULES: &str = "\
g, group:demo/developers, role:developer, *
p, role:developer, *, s0/echo, call, small, allow
p, agent:assistant, *, s0/*, call, -, allow
";
const CONDITIONS: &str = "[small]\nonly = [\"count\", \"text\"]\nargument = \"count\"\nat_most = 1000000\n";
const AGENTS: &str = "\
[agents.assistant]
owner = \"user:demo/alice\"
purpose = \"the benchmark\"
kind = \"interactive\"
environments = [\"development\"]
";

/// Runs the server behind the gateway, where the words of the command line ask for it.
pub fn is_upstream() -> Result<bool> {
    let asked = std::env::args().nth(1).is_some_and(|word| word == "upstream");
    if asked {
        upstream::serve()?;
    }
    Ok(asked)
}

/// Measures, and prints.
pub fn print() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [one, several] = runtime.block_on(tokio::task::LocalSet::new().run_until(measure()))?;
    let [first, second] = AT_ONCE.map(|at_once| format!("{at_once} at once"));
    println!("\n{:<66}  {first:>12}  {second:>12}", "µs of CPU for each call, median of turns");
    let row = |label: &str, [one, several]: [f64; 2]| println!("{label:<66}  {one:>12.2}  {several:>12.2}");
    row("a warm tools/call in this process, with its server's exchange", [one.through, several.through]);
    row("that exchange by itself, with the same client", [one.alone, several.alone]);
    row("our own work: the difference", [one.through - one.alone, several.through - several.alone]);
    Ok(())
}

/// What one call costs, µs of CPU.
struct Cost {
    through: f64,
    alone: f64,
}

/// The server, which ends with us.
struct Upstream(Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        // It is gone already, or it goes now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure() -> Result<[Cost; 2]> {
    let mut child = Command::new(std::env::current_exe()?);
    let mut child = child.arg("upstream").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
    let _upstream = Upstream(child);
    let upstream = format!("http://{}/mcp/10", line.trim());

    let listen = TcpListener::bind((HERE, 0))?.local_addr()?;
    let resource = format!("http://{listen}/mcp");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let issuer = DemoIssuer::start(issuer(&resource)?, &tasks, stop.clone()).await?;
    // What is written into memory waits for no disk.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?;
    write_files(directory.path(), &upstream, listen)?;
    let overrides = Overrides {
        issuers: vec![issuer.issuer_config()?],
        state: Some(directory.path().join("state")),
        ..Overrides::for_demo().map_err(|mistakes| format!("{mistakes:?}"))?
    };
    let served = start(Options { file: directory.path().join("servers.toml"), overrides }).await?;
    let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]])?);
    let front = Front::new(Arc::clone(&served.gateway), sealer, ReplicaId::new());
    let token = issuer.mint(&MintRequest { user: "alice".to_owned(), ..MintRequest::default() })?;
    let caller = Caller { front, host: listen.to_string(), token: format!("Bearer {}", token.expose_secret()) };
    let client = upstream_client(EgressPolicy::server(true), Duration::from_secs(5))?;
    let (caller, client, upstream) = (Rc::new(caller), Rc::new(client), Rc::<str>::from(upstream));

    caller.until_listed().await?;
    let mut costs = Vec::new();
    for at_once in AT_ONCE {
        let (mut through, mut alone) = (Vec::new(), Vec::new());
        for turn in 0..=TURNS {
            let before = cpu()?;
            let own = Rc::clone(&caller);
            let call = move |number| {
                let caller = Rc::clone(&own);
                async move { caller.call(number).await }
            };
            all(at_once, call).await?;
            let between = cpu()?;
            let own = (Rc::clone(&client), Rc::clone(&upstream));
            let asked = move |number| {
                let (client, upstream) = own.clone();
                async move { exchange(&client, &upstream, number).await }
            };
            all(at_once, asked).await?;
            // The first turn only warms up.
            if turn > 0 {
                through.push(between.saturating_sub(before) / CALLS);
                alone.push(cpu()?.saturating_sub(between) / CALLS);
            }
        }
        let [through, alone] = [through, alone].map(|times| super::median(times.into_iter()));
        costs.push(Cost { through, alone });
    }
    served.stop("the benchmark is over").await;
    stop.cancel();
    costs.try_into().map_err(|_| "a row is missing".into())
}

/// One turn: so many calls, so many of them at once. No two have the same number.
async fn all<F: Future<Output = Result<()>> + 'static>(
    at_once: u32,
    call: impl Fn(u64) -> F + Clone + 'static,
) -> Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut under_way = JoinSet::new();
    for _ in 0..at_once {
        let call = call.clone();
        under_way.spawn_local(async move {
            for _ in 0..CALLS / at_once {
                call(NUMBER.fetch_add(1, Ordering::Relaxed)).await?;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

fn issuer(resource: &str) -> Result<DemoOptions> {
    let alice = DemoUser { name: "alice".into(), title: "measures".into(), groups: vec!["developers".into()] };
    Ok(DemoOptions {
        listen: SocketAddr::from((HERE, 0)),
        users: vec![alice],
        clients: Vec::new(),
        pages: Vec::new(),
        resource: resource.to_owned(),
        scopes: Vec::new(),
        interactive_default: Some(AgentId::new("assistant")?),
        default_roles: Vec::new(),
        door_file: None,
    })
}

fn write_files(directory: &Path, upstream: &str, listen: SocketAddr) -> Result<()> {
    let policies = directory.join("policies");
    std::fs::create_dir(&policies)?;
    let limits = "[limits]\nrequests_per_second = 1000000\nrequests_burst = 1000000\n";
    let server = format!(
        "[servers.s0]\nowner = \"user:demo/alice\"\nenvironment = \"development\"\nurl = \"{upstream}\"\n\
         allow_private = true\npins = \"off\"\n"
    );
    let gateway = format!("[gateway]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\ndurability = \"os\"\n");
    std::fs::write(directory.join("servers.toml"), format!("{gateway}{limits}{server}"))?;
    let model = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/model.conf"))?;
    for (name, content) in [
        ("model.conf", model.as_slice()),
        ("policy.csv", RULES.as_bytes()),
        ("conditions.toml", CONDITIONS.as_bytes()),
        ("agents.toml", AGENTS.as_bytes()),
    ] {
        std::fs::write(policies.join(name), content)?;
    }
    Ok(())
}

/// Somebody who calls without a connection.
struct Caller {
    front: Arc<Front>,
    host: String,
    token: String,
}

impl Caller {
    /// One call, with arguments of its own.
    async fn call(&self, number: u64) -> Result<()> {
        let request = request("/mcp", "s0__echo")
            .header("host", &self.host)
            .header("authorization", &self.token)
            .body(Full::new(body(number, "s0__echo")))?;
        let answer = self.front.answer(request, HERE).await;
        let text = answer.into_body().collect().await?.to_bytes();
        answered(&text, number)
    }

    /// Waits for the server's list.
    async fn until_listed(&self) -> Result<()> {
        let mut last = None;
        for _ in 0..500 {
            match self.call(0).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(last.unwrap_or_else(|| "no call was made".into()))
    }
}

/// One exchange with the server, as the gateway has it.
async fn exchange(client: &UpstreamClient, url: &str, number: u64) -> Result<()> {
    let request = request(url, "echo").body(Full::new(body(number, "echo")))?;
    let text = client.request(request).await?.into_body().collect().await?.to_bytes();
    answered(&text, number)
}

fn request(url: &str, tool: &str) -> http::request::Builder {
    Request::post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
}

fn body(number: u64, tool: &str) -> Bytes {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    let arguments = format!(r#"{{"count":{number},"text":"the quick brown fox jumps over the lazy dog"}}"#);
    let params = format!(r#"{{"name":"{tool}","arguments":{arguments},"_meta":{meta}}}"#);
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{params}}}"#))
}

fn answered(text: &[u8], number: u64) -> Result<()> {
    let text = std::str::from_utf8(text)?;
    if text.contains("\"result\"") && text.contains(&format!("\"count\":{number},")) {
        return Ok(());
    }
    Err(format!("not the answer of call {number}: {text}").into())
}

/// The CPU time of all threads so far, as the scheduler counts it.
fn cpu() -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let counted = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += counted.split_whitespace().next().ok_or("no figures in schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
