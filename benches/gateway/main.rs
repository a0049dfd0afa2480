//! What the gateway costs: calls, lists, memory, start, neighbours, sick servers, revocations, governance; and what a kill costs, when `crash` is
//! named. `docs/performance.md` says how it is measured.
//!
//!     cargo bench --bench gateway
//!     cargo bench --bench gateway -- calls list --seconds 10
//!     cargo bench --bench gateway -- crash --kills 1000
//!
//! This process is the client and the issuer; the upstream and the gateway are child processes, so that the
//! CPU time of each is its own.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a benchmark prints its results, and stops where something is not as it should be"
)]

mod client;
mod crash;
mod governed;
mod issuer;
mod load;
mod parts;
mod process;
mod replicas;
mod revoke;
mod turns;
mod upstream;
mod world;

use std::process::ExitCode;
use std::time::Duration;

/// Trouble ends the benchmark: a figure beside an error is worse than none.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What was asked for.
struct Options {
    /// Parts to run, all when empty.
    parts: Vec<String>,
    /// How long each row is driven.
    duration: Duration,
    /// How often `crash` kills.
    kills: usize,
    /// Leave the generated files.
    keep: bool,
}

const PARTS: [&str; 12] = [
    "direct",
    "calls",
    "list",
    "memory",
    "start",
    "noisy",
    "sick",
    "revoke",
    GOVERNED,
    CRASH,
    REPLICAS,
    REVOKE_REPLICAS,
];

/// Only where it is named, as the next: it starts a PostgreSQL.
const GOVERNED: &str = "governed";
/// The same.
const REPLICAS: &str = "replicas";
/// The same.
const REVOKE_REPLICAS: &str = "revoke-replicas";
/// Takes minutes, so it runs only when it is named.
const CRASH: &str = "crash";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("upstream") => upstream::serve(),
        _ => options(&arguments).and_then(|options| runtime()?.block_on(run(&options))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let wanted = |part: &str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let world = world::World::new(options.keep).await?;
    println!("{}", world.machine()?);
    if wanted("direct") {
        parts::direct(&world, options.duration).await?;
    }
    if wanted("calls") {
        parts::calls(&world, options.duration).await?;
    }
    if wanted("list") {
        parts::list(&world, options.duration).await?;
    }
    if wanted("memory") {
        parts::memory(&world).await?;
    }
    if wanted("start") {
        parts::start(&world).await?;
    }
    if wanted("noisy") {
        turns::noisy(&world, options.duration).await?;
    }
    if wanted("sick") {
        turns::sick(&world, options.duration).await?;
    }
    if wanted("revoke") {
        revoke::revoke(&world).await?;
    }
    if options.parts.iter().any(|part| part == GOVERNED) {
        governed::governed(&world, options.duration).await?;
    }
    if options.parts.iter().any(|part| part == REPLICAS) {
        replicas::replicas(&world, options.duration).await?;
    }
    if options.parts.iter().any(|part| part == REVOKE_REPLICAS) {
        revoke::replicas(&world).await?;
    }
    if options.parts.iter().any(|part| part == CRASH) {
        crash::crash(&world, options.kills).await?;
    }
    Ok(())
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { parts: Vec::new(), duration: Duration::from_secs(5), kills: 100, keep: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            // What cargo adds by itself.
            "--bench" => {}
            "--keep" => options.keep = true,
            "--seconds" => {
                let seconds: f64 = words.next().ok_or("--seconds needs a number")?.parse()?;
                options.duration = Duration::try_from_secs_f64(seconds)?;
            }
            "--kills" => options.kills = words.next().ok_or("--kills needs a number")?.parse()?,
            part if PARTS.contains(&part) => options.parts.push(part.to_owned()),
            other => {
                return Err(format!(
                    "there is no part `{other}`: {}, --seconds N, --kills N, --keep",
                    PARTS.join(", ")
                )
                .into());
            }
        }
    }
    Ok(options)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
