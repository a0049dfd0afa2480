//! The real binary, started with files that a test writes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;

use super::client::Client;
use super::free_address;
use super::issuer::Issuer;
use super::postgres::{Database, PASSWORD};

/// Files of a gateway that does not run yet.
pub struct Setup {
    directory: tempfile::TempDir,
    address: SocketAddr,
    limits: String,
    gateway: String,
    record: String,
    disk: Option<&'static str>,
    under: Under,
    clock: Option<PathBuf>,
    servers: String,
    pub issuer: String,
    policy: String,
    admin: Option<(SocketAddr, String)>,
    admin_url: Option<String>,
    tls: String,
}

/// What the process is started under.
#[derive(Clone, Copy)]
enum Under {
    Nothing,
    /// Root without the right to write everywhere.
    NoOverride,
    /// Somebody else than root.
    Nobody,
    /// A namespace of users in which there are no more namespaces.
    NoNamespaces,
}

impl Under {
    fn command(self, binary: &str, directory: &Path) -> Command {
        let mut command = match self {
            Self::Nothing => return Command::new(binary),
            Self::NoOverride | Self::Nobody => Command::new("setpriv"),
            Self::NoNamespaces => Command::new("unshare"),
        };
        match self {
            Self::Nobody => {
                let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
                // Where it was built may be nobody's business.
                let runs = Command::new("setpriv").args(nobody).args(["test", "-x", binary]).status().unwrap();
                let copy = directory.join("bailiwick");
                if !runs.success() && !copy.exists() {
                    std::fs::copy(binary, &copy).unwrap();
                }
                let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(directory).status().unwrap();
                assert!(owned.success());
                let binary = if runs.success() { Path::new(binary) } else { &copy };
                command.args(nobody).arg(binary)
            }
            Self::NoNamespaces => {
                let none = "for kind in user net ipc pid; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"";
                command.args(["-Ur", "sh", "-ec", none, "sh", binary])
            }
            _ => command.args(["--bounding-set=-dac_override", "--inh-caps=-dac_override", binary]),
        };
        command
    }
}

/// Rules under which developers may do everything on every server, and auditors nothing.
pub const DEVELOPERS_MAY: &str = "\
g, group:test/developers, role:developer, *
p, role:developer, *, */*, call, -, allow
p, role:developer, *, */*, get, -, allow
p, role:developer, *, */**, read, -, allow
p, agent:assistant, *, */*, call, -, allow
p, agent:assistant, *, */*, get, -, allow
p, agent:assistant, *, */**, read, -, allow
";

impl Setup {
    pub fn new(issuer: &Issuer) -> Self {
        Self::with_issuer(&issuer.url)
    }

    /// The same with an issuer that is not ours, under the alias `test`.
    pub fn with_issuer(url: &str) -> Self {
        let issuer = format!(
            "[issuers.test]\nissuer = \"{url}\"\nalgorithms = [\"ES256\"]\ninteractive_default = \"assistant\"\n\
             [issuers.test.claims]\ngroups = \"groups\"\n"
        );
        Self {
            directory: tempfile::tempdir().unwrap(),
            address: free_address(),
            limits: "requests_per_second = 10000\nrequests_burst = 10000\n".to_owned(),
            gateway: String::new(),
            record: String::new(),
            disk: None,
            under: Under::Nothing,
            clock: None,
            servers: String::new(),
            issuer,
            policy: DEVELOPERS_MAY.to_owned(),
            admin: None,
            admin_url: None,
            tls: String::new(),
        }
    }

    /// What administrators call their listener, where that is not its address.
    pub fn admin_url(mut self, url: &str) -> Self {
        self.admin_url = Some(url.to_owned());
        self
    }

    /// The same with the port of their listener.
    pub fn admin_origin(self, origin: &str) -> Self {
        let port = self.admin.as_ref().unwrap().0.port();
        self.admin_url(&format!("{origin}:{port}"))
    }

    /// Adds a listener for administrators, with these further lines of `[admin]` and its tables.
    pub fn admin(mut self, lines: &str) -> Self {
        self.admin = Some((free_address(), lines.to_owned()));
        self
    }

    /// Speaks TLS with a certificate of this authority; clients may show one of the authority in that file.
    pub fn tls(mut self, authority: &super::authority::Authority, clients: &Path) -> Self {
        let (certificate, key) = authority.server();
        let client_ca =
            if clients.as_os_str().is_empty() { String::new() } else { format!("client_ca = {clients:?}\n") };
        self.tls = format!("[gateway.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{client_ca}");
        self
    }

    /// Speaks TLS as this table says.
    pub fn secured(mut self, table: &str) -> Self {
        table.clone_into(&mut self.tls);
        self
    }

    /// Adds an upstream over HTTP; `more` are further lines of its table.
    pub fn http_server(mut self, id: &str, url: &str, more: &str) -> Self {
        let _ = write!(
            self.servers,
            "[servers.{id}]\nowner = \"user:test/owner\"\nenvironment = \"development\"\nurl = \"{url}\"\nallow_private = true\n{more}\n"
        );
        self
    }

    /// Adds an upstream that is a child process.
    pub fn stdio_server(mut self, id: &str, command: &[&str], more: &str) -> Self {
        let command = serde_json::to_string(command).unwrap();
        let _ = write!(
            self.servers,
            "[servers.{id}]\nowner = \"user:test/owner\"\nenvironment = \"development\"\ncommand = {command}\n{more}\n"
        );
        self
    }

    /// Adds lines to the issuer's table.
    pub fn issuer_lines(mut self, lines: &str) -> Self {
        self.issuer = self.issuer.replace("[issuers.test.claims]", &format!("{lines}[issuers.test.claims]"));
        self
    }

    /// Adds lines to the names of the issuer's claims.
    pub fn claims(mut self, lines: &str) -> Self {
        self.issuer.push_str(lines);
        self
    }

    pub fn limits(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.limits);
        self
    }

    /// Adds lines to `[record]`.
    pub fn record(mut self, lines: &str) -> Self {
        self.record.push_str(lines);
        self
    }

    /// Takes the right to write everywhere away from the gateway, where we are root.
    pub fn without_override(mut self) -> Self {
        self.under = if rustix::process::geteuid().is_root() { Under::NoOverride } else { Under::Nothing };
        self
    }

    /// Runs the gateway as a user who is nobody in particular, where we are root.
    pub fn of_nobody(mut self) -> Self {
        self.under = if rustix::process::geteuid().is_root() { Under::Nobody } else { Under::Nothing };
        self
    }

    /// Runs the gateway where nobody gets namespaces, as many containers are.
    pub fn without_namespaces(mut self) -> Self {
        self.under = Under::NoNamespaces;
        self
    }

    /// Puts the state on a disk of its own that is so large; `None` with the reason printed where this machine
    /// does not let us.
    pub fn disk(mut self, size: &'static str) -> Option<Self> {
        let tried = Command::new("unshare").args(["-Urm", "sh", "-c", "mount -t tmpfs none /mnt"]).output();
        let (well, said) = match tried {
            Ok(output) => (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => (false, error.to_string()),
        };
        if !well {
            super::untested(&format!("no small disk can be made here: {said}"));
            return None;
        }
        self.disk = Some(size);
        Some(self)
    }

    /// Lets the test set the gateway's clock; `None` with the reason printed where libfaketime is not there.
    pub fn own_clock(mut self) -> Option<Self> {
        let library = ["x86_64", "aarch64"]
            .map(|machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1")));
        self.clock = library.into_iter().find(|library| library.exists());
        if self.clock.is_none() {
            super::untested("libfaketime is not there; install the package faketime");
            return None;
        }
        Some(self)
    }

    /// Replaces `policy.csv`.
    pub fn policy(mut self, rows: &str) -> Self {
        rows.clone_into(&mut self.policy);
        self
    }

    /// Writes another file of `policies/`.
    pub fn policy_file(self, name: &str, content: &str) -> Self {
        let path = self.directory.path().join("policies").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_empty() { "http" } else { "https" };
        format!("{scheme}://{}", self.address)
    }

    /// Adds lines to `[gateway]`.
    pub fn gateway(mut self, lines: &str) -> Self {
        self.gateway.push_str(lines);
        self
    }

    /// Adds sections to `servers.toml`.
    pub fn sections(mut self, text: &str) -> Self {
        self.servers.push_str(text);
        self
    }

    /// Where the files are going to be.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the files and starts the gateway; returns once it answers.
    pub async fn start(self) -> Gateway {
        let mut gateway = self.stored().await.written();
        if gateway.clock.is_some() {
            gateway.set_clock("+0");
        }
        gateway.launch().await;
        gateway
    }

    /// With its rows in PostgreSQL, where `BAILIWICK_TESTS_STORE` says so and the test has not chosen by itself.
    async fn stored(self) -> Self {
        if std::env::var_os("BAILIWICK_TESTS_STORE").is_none_or(|store| store != "postgresql")
            || self.gateway.contains("store = ")
            // Its store has a clock of its own, which nobody here can set.
            || self.clock.is_some()
            || self.servers.contains("[keys]")
        {
            return self;
        }
        match Database::fresh().await {
            Some(database) => self.shared(&database),
            None => self,
        }
    }

    /// With its rows in that database.
    pub fn shared(self, database: &Database) -> Self {
        for (name, secret) in [("store-password", PASSWORD.to_owned()), ("key", "5a".repeat(32))] {
            let path = self.directory().join(name);
            std::fs::write(&path, secret).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let store = database.url_by("127.0.0.1", database.port);
        let keys = "[keys]\nseal = [\"file:key\"]\njournal = [\"file:key\"]\ncheckpoint = [\"file:key\"]\n";
        self.gateway(&format!("store = \"{store}\"\nstore_password = \"file:store-password\"\n")).sections(keys)
    }

    /// Writes the files.
    pub fn written(self) -> Gateway {
        let policies = self.directory.path().join("policies");
        std::fs::create_dir_all(&policies).unwrap();
        let servers = format!(
            "[gateway]\nlisten = \"{}\"\npublic_url = \"{}\"\nallow_loopback_issuers = true\n{}\n{}\n[record]\n{}\n[limits]\n{}\n{}\n{}",
            self.address,
            self.url(),
            self.gateway,
            self.tls,
            self.record,
            self.limits,
            self.issuer,
            self.servers
        );
        let admin_url = self.admin.as_ref().map(|(address, _)| format!("http://{address}")).unwrap_or_default();
        let admin_url = self.admin_url.clone().unwrap_or(admin_url);
        let admin = self.admin.as_ref().map_or_else(String::new, |(address, lines)| {
            format!("\n[admin]\nlisten = \"{address}\"\npublic_url = \"{admin_url}\"\n{lines}\n")
        });
        std::fs::write(self.directory.path().join("servers.toml"), format!("{servers}{admin}")).unwrap();
        std::fs::write(policies.join("policy.csv"), &self.policy).unwrap();
        std::fs::write(policies.join("model.conf"), include_str!("../../../policies/model.conf")).unwrap();
        if !policies.join("agents.toml").exists() {
            // Tests are refused and fail as often as they like; those of the breaker write their own file.
            let agents = "[breaker]\ndenials_per_minute = 1000\nerrors_of = 1000\nerrors_percent = 100\n[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n";
            std::fs::write(policies.join("agents.toml"), agents).unwrap();
        }
        if self.disk.is_some() {
            std::fs::create_dir(self.directory.path().join("state")).unwrap();
        }
        Gateway {
            url: self.url(),
            public_url: self.url(),
            directory: Arc::new(self.directory),
            state: "state".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            admin: self.admin.as_ref().map(|_| format!("{admin_url}/admin")).unwrap_or_default(),
            admin_address: self.admin.map(|(address, _)| address.to_string()).unwrap_or_default(),
            disk: self.disk,
            under: self.under,
            clock: self.clock,
            process: None,
        }
    }
}

/// A running gateway; it is killed when the test ends.
pub struct Gateway {
    pub url: String,
    public_url: String,
    directory: Arc<tempfile::TempDir>,
    /// The name of its state directory, after which its log is called, too.
    state: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The administrators' resource; empty where there is none.
    pub admin: String,
    /// Where that is.
    pub admin_address: String,
    disk: Option<&'static str>,
    under: Under,
    clock: Option<PathBuf>,
    process: Option<Child>,
}

impl Gateway {
    /// Another gateway with the same files: what differs stands on its command line and in its environment.
    pub fn replica(&self, state: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let address = free_address();
        let listen = address.to_string();
        let arguments = ["--listen", &listen, "--state", state].into_iter().chain(arguments.iter().copied());
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            url: format!("http://{address}"),
            public_url: self.public_url.clone(),
            admin: String::new(),
            admin_address: String::new(),
            directory: Arc::clone(&self.directory),
            state: state.to_owned(),
            arguments: arguments.map(str::to_owned).collect(),
            environment: environment.iter().chain(&[("BAILIWICK_STATE", state)]).map(owned).collect(),
            disk: None,
            under: Under::Nothing,
            clock: None,
            process: None,
        }
    }

    /// Starts the process and waits until it answers.
    pub async fn launch(&mut self) {
        self.begin();
        let health = Client::new(&format!("{}/healthz", self.url), None);
        for _ in 0..500 {
            if health.is_well().await {
                return;
            }
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().unwrap()) {
                panic!("the gateway ended with {status}:\n{}", self.log());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the gateway did not answer:\n{}", self.log());
    }

    /// Starts the process.
    pub fn begin(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let binary = env!("CARGO_BIN_EXE_bailiwick");
        let mut command = match self.disk {
            None => self.under.command(binary, self.directory.path()),
            Some(size) => {
                let mount = format!("mount -t tmpfs -o size={size},mode=700 none state && exec {binary} \"$@\"");
                let mut command = Command::new("unshare");
                command.args(["-Urm", "sh", "-c", &mount, "bailiwick"]);
                command
            }
        };
        if let Some(library) = &self.clock {
            command.env("LD_PRELOAD", library).env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_TIMESTAMP_FILE", self.directory.path().join("clock"));
        }
        let process = command
            .args(["serve", "--config", "servers.toml"])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Stops, and puts the store back as it was when `state backup kept` was called; the record stays.
    pub async fn store_of_before(&mut self) {
        let place = self.state();
        assert!(self.stop().await.success());
        for name in ["store.sqlite-wal", "store.sqlite-shm"] {
            let _ = std::fs::remove_file(place.join(name));
        }
        std::fs::copy(place.with_file_name("kept").join("store.sqlite"), place.join("store.sqlite")).unwrap();
    }

    /// Where the files are.
    pub fn place(&self) -> &Path {
        self.directory.path()
    }

    /// Has the gateway's clock jump, so many seconds from the true time.
    pub fn set_clock(&self, seconds: &str) {
        // Whole or not at all: the clock is read at any moment.
        let next = self.directory.path().join("clock.next");
        std::fs::write(&next, format!("{seconds}\n")).unwrap();
        std::fs::rename(next, self.directory.path().join("clock")).unwrap();
    }

    /// The resource that tokens must be for.
    pub fn resource(&self) -> String {
        format!("{}/mcp", self.public_url)
    }

    /// A client of the merged endpoint.
    pub fn client(&self, token: &str) -> Client {
        Client::new(&format!("{}/mcp", self.url), Some(token))
    }

    /// A client of one server's endpoint.
    pub fn server_client(&self, server: &str, token: &str) -> Client {
        Client::new(&format!("{}/mcp/{server}", self.url), Some(token))
    }

    /// Where its files are.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn state(&self) -> PathBuf {
        let state = self.directory.path().join(&self.state);
        match self.disk {
            None => state,
            // The disk is mounted for that process only.
            Some(_) => PathBuf::from(format!("/proc/{}/root{}", self.process_id(), state.display())),
        }
    }

    /// Replaces `policy.csv`; it is in force after a reload.
    pub fn write_policy(&self, rows: &str) {
        std::fs::write(self.directory.path().join("policies/policy.csv"), rows).unwrap();
    }

    /// The operational log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join(self.state.replacen("state", "log", 1))
    }

    /// Every record of the journal, in order, compressed or not.
    pub fn journal(&self) -> Vec<Value> {
        let directory = self.state().join("journal");
        let segments = bailiwick::record::read::segments(&directory).unwrap();
        let read = |first| bailiwick::record::read::Reader::new(&directory, first).segment().unwrap();
        let text: String = segments.into_iter().map(read).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The records of one type.
    pub fn records(&self, kind: &str) -> Vec<Value> {
        self.journal().into_iter().filter(|record| record["type"] == kind).collect()
    }

    /// Runs another command of the binary beside the gateway.
    pub fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with something on its standard input, and more in its environment.
    pub async fn piped(&self, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever was asked wrongly ends without reading.
        let _unread = writeln!(child.stdin.take().unwrap(), "{input}");
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// SIGTERM, and the exit.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.process_id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub async fn wait(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
            if std::thread::panicking() {
                eprintln!("--- log of the gateway ---\n{}", self.log());
            }
        }
    }
}
