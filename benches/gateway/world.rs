//! What the gateway runs in: an upstream, an issuer, 200 people, and configurations written for each row.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Connection;
use crate::issuer::Issuer;
use crate::load::{Ask, check, request};
use crate::process::Process;
use crate::upstream::ECHO;

/// People with a token each.
pub const PEOPLE: usize = 200;
/// Upstream servers in each configuration; all are the one fast upstream.
pub const SERVERS: usize = 10;
/// What the servers after the first suffer from, where they do.
pub const ILLNESSES: [&str; 3] = ["hangs", "floods", "flaps"];
/// Rules in each policy.
pub const RULES: usize = 1_000;
/// What a modern client sends with each request.
pub const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

/// What all rows share.
pub struct World {
    /// The fast upstream.
    pub upstream: Process,
    /// Where it listens.
    pub upstream_address: SocketAddr,
    issuer: Issuer,
    directory: PathBuf,
    keep: bool,
    configurations: AtomicUsize,
}

/// How one gateway differs from another.
pub struct Setup {
    /// `fsync` or `os`.
    pub durability: &'static str,
    /// Tools of the first server: 10, 100 or 1,000.
    pub tools: usize,
    /// The file's default limits for each person, instead of none to speak of.
    pub limited: bool,
    /// Upstreams that accept connections and never answer.
    pub mute: Option<SocketAddr>,
    /// Another upstream for server 0.
    pub first: Option<SocketAddr>,
    /// Where servers 1, 2 and 3 hang, flood and flap.
    pub sick: Option<SocketAddr>,
    /// Mandates, gates, pins, labels and flows, all of them in force, none of them about what the loads call.
    pub governed: bool,
    /// The address of a store that several have in common, and its password.
    pub store: Option<(String, &'static str)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            durability: "fsync",
            tools: 10,
            limited: false,
            mute: None,
            first: None,
            sick: None,
            governed: false,
            store: None,
        }
    }
}

/// A gateway that runs.
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// A token for each person.
    pub tokens: Arc<Vec<String>>,
    /// The token of an agent on its own, which needs a mandate where there is governance.
    pub worker: String,
    /// When it was started.
    pub started: Instant,
    policy: PathBuf,
    servers: PathBuf,
}

/// Longer than a gateway waits for whoever may still be writing its files.
const SETTLED: Duration = Duration::from_millis(150);

fn serve(servers: &Path) -> Result<Process> {
    serve_with(servers, &Setup::default(), &[])
}

fn serve_with(servers: &Path, setup: &Setup, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    if let Some((store, password)) = &setup.store {
        command.env("BENCH_STORE", store).env("BENCH_STORE_PASSWORD", password).env("BENCH_KEY", "5a".repeat(32));
    }
    command.args(["serve"]).args(more);
    // Only what goes wrong is logged; a line for each call would be measured too.
    Process::start(command.args(["--log", "warn", "--config"]).arg(servers))
}

impl Gateway {
    /// Another one with the same files, people and store.
    fn beside(&self, setup: &Setup, number: usize) -> Result<Self> {
        let address = free_address()?;
        let (listen, state) = (address.to_string(), self.servers.with_file_name(format!("state-{number}")));
        let more = ["--listen", &listen, "--state", state.to_str().unwrap_or_default()];
        let started = Instant::now();
        let process = serve_with(&self.servers, setup, &more)?;
        let (tokens, worker) = (Arc::clone(&self.tokens), self.worker.clone());
        let (policy, servers) = (self.policy.clone(), self.servers.clone());
        Ok(Self { process, address, tokens, worker, started, policy, servers })
    }

    /// Where its state is.
    pub fn state(&self) -> PathBuf {
        self.servers.with_file_name("state")
    }

    /// Has it stop, and waits for that.
    pub async fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.process.running()? {
            if Instant::now() > deadline {
                return Err("the gateway does not stop".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends the process without a word and starts another one on the same files and state.
    pub fn again(self) -> Result<Self> {
        drop(self.process);
        let started = Instant::now();
        Ok(Self { process: serve(&self.servers)?, started, ..self })
    }
}

impl World {
    /// Starts the upstream and the issuer.
    pub async fn new(keep: bool) -> Result<Self> {
        let (upstream, address) = Process::ourselves("upstream")?;
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        if keep {
            println!("configurations: {}", directory.display());
        }
        let upstream_address = address.parse()?;
        let issuer = Issuer::start().await?;
        Ok(Self { upstream, upstream_address, issuer, directory, keep, configurations: AtomicUsize::new(0) })
    }

    /// What it runs on, and how fast its disk is: the first lines of a report.
    pub fn machine(&self) -> Result<String> {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut models = processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = models.next().map_or("unknown processor", |(_, model)| model).trim().to_owned();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism()?;
        let sync = self.sync_time()?;
        Ok(format!(
            "{cores} cores of {model}, Linux {}, load {} before; an fdatasync of 300 bytes takes {:.3} ms (p50)",
            kernel.trim(),
            load.split(' ').next().unwrap_or("?"),
            sync.as_secs_f64() * 1_000.0,
        ))
    }

    fn sync_time(&self) -> Result<Duration> {
        let mut file = std::fs::File::create(self.directory.join("sync"))?;
        let mut times = Vec::new();
        for _ in 0..200 {
            file.write_all(&[b'x'; 300])?;
            let start = Instant::now();
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    /// Starts a gateway and waits until it has answered a call.
    pub async fn gateway(&self, setup: &Setup) -> Result<Gateway> {
        let mut gateway = self.spawn(setup)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let problem = match gateway.call(&format!("s0__{ECHO}"), 0).await {
                Ok(true) => return Ok(gateway),
                Ok(false) => "a call that the policy allows is refused".to_owned(),
                Err(error) => error.to_string(),
            };
            if !gateway.process.running()? {
                return Err("`bailiwick serve` ended; its messages stand above".into());
            }
            if Instant::now() > deadline {
                return Err(format!("the gateway does not answer: {problem}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a gateway and waits for nothing.
    pub fn spawn(&self, setup: &Setup) -> Result<Gateway> {
        let number = self.configurations.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(number.to_string());
        std::fs::create_dir_all(directory.join("policies"))?;
        let address = free_address()?;
        let write = |name: &str, text: &str| private(&directory.join(name), text);
        write("servers.toml", &self.servers(setup, address)?)?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        write("policies/model.conf", &std::fs::read_to_string(repository.join("policies/model.conf"))?)?;
        let mut rows = rules();
        let mut agents = AGENTS.to_owned();
        if setup.governed {
            rows.push_str(GOVERNED_RULES);
            agents.push_str(WORKER);
            write("policies/mandates.toml", TEMPLATES)?;
            write("policies/labels.toml", LABELS)?;
            write("policies/gates.toml", GATES)?;
        }
        write("policies/policy.csv", &rows)?;
        write("policies/conditions.toml", CONDITIONS)?;
        write("policies/agents.toml", &agents)?;
        let audience = format!("http://{address}/mcp");
        let tokens = (0..PEOPLE).map(|person| self.issuer.token(person, &audience)).collect::<Result<Vec<_>>>()?;
        let worker = self.issuer.token_of("worker", "bench-worker", 0, &audience)?;
        let servers = directory.join("servers.toml");
        // Files that were written a moment ago are read again later: what is measured is no such start.
        std::thread::sleep(SETTLED);
        let started = Instant::now();
        let process = serve_with(&servers, setup, &[])?;
        let policy = directory.join("policies/policy.csv");
        Ok(Gateway { process, address, tokens: Arc::new(tokens), worker, started, policy, servers })
    }

    /// Starts so many gateways with the same files and one store, and waits until each has answered a call.
    pub async fn replicas(&self, setup: &Setup, count: usize) -> Result<Vec<Gateway>> {
        let mut all: Vec<Gateway> = Vec::new();
        for number in 0..count {
            let mut next = match all.first() {
                None => self.spawn(setup)?,
                Some(first) => first.beside(setup, number)?,
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            while !next.call(&format!("s0__{ECHO}"), 0).await.unwrap_or(false) {
                if Instant::now() > deadline || !next.process.running()? {
                    return Err("a replica does not answer".into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            all.push(next);
        }
        Ok(all)
    }

    fn servers(&self, setup: &Setup, address: SocketAddr) -> Result<String> {
        let mut text = format!(
            "[gateway]\nlisten = \"{address}\"\npublic_url = \"http://{address}\"\nstate = \"state\"\n\
             allow_loopback_issuers = true\ndurability = \"{}\"\n\n\
             [issuers.bench]\nissuer = \"{}\"\nalgorithms = [\"ES256\"]\n\n[issuers.bench.claims]\ngroups = \"groups\"\n",
            setup.durability, self.issuer.url
        );
        if setup.store.is_some() {
            let store =
                "state = \"state\"\nstore = \"env:BENCH_STORE\"\nstore_password = \"env:BENCH_STORE_PASSWORD\"\n";
            text = text.replacen("state = \"state\"\n", store, 1);
            let key = |name: &str| format!("{name} = [\"env:BENCH_KEY\"]\n");
            text.push_str(&format!("\n[keys]\n{}{}{}", key("seal"), key("journal"), key("checkpoint")));
        }
        if !setup.limited {
            text.push_str(
                "\n[limits]\nrequests_per_second = 1000000\nrequests_burst = 1000000\n\
                 calls_in_flight_max = 1000\nstreams_max = 100\n",
            );
        }
        for server in 0..SERVERS {
            let tools = if server == 0 { setup.tools } else { 10 };
            let first = setup.first.filter(|_| server == 0);
            let upstream = setup.mute.or(first).unwrap_or(self.upstream_address);
            let (upstream, path) = match (setup.sick, ILLNESSES.get(server.wrapping_sub(1))) {
                (Some(sick), Some(illness)) => (sick, format!("sick/{illness}")),
                _ => (upstream, format!("mcp/{tools}")),
            };
            let pins = if setup.governed { "pins = \"first_use\"\n" } else { "" };
            let patience = if setup.sick.is_some() { ", call_timeout = \"1s\"" } else { "" };
            write!(
                text,
                "\n[servers.s{server}]\nowner = \"user:bench/person-0\"\nenvironment = \"bench\"\n\
                 url = \"http://{upstream}/{path}\"\nallow_private = true\nprefix = \"server\"\n{pins}\
                 health = {{ calls_in_flight_max = 1024{patience} }}\n"
            )?;
        }
        Ok(text)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.keep {
            // Under `target/`; what cannot be removed now is removed with it.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

impl Gateway {
    /// Whether a call of this tool is answered (true) or refused (false).
    pub async fn call(&self, tool: &str, person: usize) -> Result<bool> {
        let ask = Ask::Call(tool.to_owned());
        let serial = 900_000_000 + person as u64;
        let (headers, body) = request(&ask, self.tokens.get(person).map(String::as_str), serial);
        let answer = Connection::open(self.address).await?.post("/mcp", &headers, &body).await?;
        Ok(check(&ask, &answer, serial).is_ok())
    }

    /// A fresh policy revision: one row more, which denies everyone `s0/probe_N`. Answers when it is in force.
    pub async fn fresh_revision(&self, probe: usize) -> Result<Duration> {
        let tool = format!("s0__probe_{probe}");
        if !self.call(&tool, 1).await? {
            return Err(format!("{tool} is refused before the revision that denies it").into());
        }
        let row = format!("p, anyone, bench, s0/probe_{probe}, call, -, deny\n");
        let next = self.policy.with_extension("next");
        private(&next, &format!("{}{row}", std::fs::read_to_string(&self.policy)?))?;
        std::fs::rename(next, &self.policy)?;
        let start = Instant::now();
        self.process.reload()?;
        while self.call(&tool, 1).await? {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("the fresh policy revision is not in force after ten seconds".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(start.elapsed())
    }
}

/// An address that nobody listens on at this moment.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Writes a file that only we can write: the gateway refuses policies that others can change.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Exactly [`RULES`] rules: what everyone needs, and what fifty teams may do with tools of ten servers.
fn rules() -> String {
    let mut text = String::from("g, group:bench/staff, role:staff, *\n");
    for team in 0..50 {
        let _ = writeln!(text, "g, group:bench/team-{team}, role:team-{team}, *");
    }
    let mut count = 0;
    let mut rule = |row: String| {
        text.push_str(&row);
        text.push('\n');
        count += 1;
        count
    };
    for server in 0..SERVERS {
        // Who acts for whom: both need a row.
        rule(format!("p, agent:bench, bench, s{server}/*, call, -, allow"));
        rule(format!("p, role:staff, bench, s{server}/{ECHO}, call, small, allow"));
    }
    rule("p, role:staff, bench, s0/*, call, small, allow".to_owned());
    rule("p, anyone, bench, s0/echo, call, forced, deny".to_owned());
    let conditions = ["-", "small", "one-project", "short"];
    for number in 0.. {
        let (team, server, condition) = (number % 50, number % SERVERS, conditions[number % conditions.len()]);
        let effect = if number % 9 == 8 { "deny" } else { "allow" };
        let row = format!("p, role:team-{team}, bench, s{server}/tool_{number}, call, {condition}, {effect}");
        if rule(row) == RULES {
            break;
        }
    }
    text
}

const CONDITIONS: &str = r#"[small]
only = ["count", "text"]
argument = "count"
at_least = 1
at_most = 1000000000

[forced]
argument = "text"
starts_with = ["force"]

[one-project]
argument = "project"
one_of = ["group/one", "group/two"]

[short]
argument = "text"
length_at_most = 100
"#;

const AGENTS: &str = r#"[agents.bench]
owner = "user:bench/person-0"
purpose = "drives the benchmark"
kind = "interactive"
environments = ["bench"]
clients = [{ issuer = "bench", client_id = "bench-assistant" }]

# What a sick server answers would stop its callers, and they are measured.
[breaker]
errors_percent = 100
errors_of = 200
denials_per_minute = 1000
tool_errors_percent = 100
tool_errors_of = 1000
"#;

const WORKER: &str = r#"
[agents.worker]
owner = "user:bench/person-0"
purpose = "works by itself"
kind = "autonomous"
environments = ["bench"]
clients = [{ issuer = "bench", client_id = "bench-worker", proof = "private_key" }]
"#;

const GOVERNED_RULES: &str = "p, agent:worker, bench, s0/*, call, -, allow
p, user:bench/worker, bench, s0/*, call, small, allow
p, agent:worker, *, bailiwick/mandate:*, admin, -, allow
p, user:bench/worker, *, bailiwick/mandate:*, admin, -, allow
";

const TEMPLATES: &str = r#"[templates.counted]
title = "as many calls as the benchmark makes"
tools = ["s0/*"]
environments = ["bench"]
agents = ["worker"]
wall_time = "1h"
budget = { calls = 1000000 }
"#;

const LABELS: &str = r#"[[label]]
objects = ["s0/*"]
reads = "internal"

[[label]]
objects = ["s1/*"]
reads = "private"

[[label]]
objects = ["s2/*"]
content = "untrusted"

[[label]]
objects = ["s3/*"]
sends = "external"
effect = "write"
"#;

const GATES: &str = r#"[gates.production]
objects = ["s4/*"]
approvers = ["group:bench/team-1"]
"#;
