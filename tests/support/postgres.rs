//! A PostgreSQL of the tests' own: one server for each test binary, one database for each test.
//!
//! It runs as a user without rights, on loopback, in a temporary directory, and ends with the process that started it,
//! however that ends. Where there is no PostgreSQL, tests that need one say so and pass; in CI they fail.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};

pub const USER: &str = "bailiwick";
pub const PASSWORD: &str = "store-password-of-tests";
/// What the server shows for `localhost`; it signed itself.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/front/fixture/localhost.crt");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/front/fixture/localhost.key");

/// Ends the server when its standard input ends, which it does with this process.
const GUARD: &str = r#"place="$1"; shift; "$@" </dev/null & server=$!; read -r _; kill -INT "$server"; wait "$server"; rm -rf "$place""#;

struct Server {
    port: u16,
    /// Holds the pipe whose end the guard waits for.
    _guard: Child,
}

/// A database of one test.
pub struct Database {
    pub name: String,
    pub port: u16,
}

impl Database {
    /// A fresh one; `None`, and the reason printed, where there is no PostgreSQL.
    pub async fn fresh() -> Option<Self> {
        static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = match SERVER.get_or_init(Server::start) {
            Ok(server) => server,
            Err(reason) => {
                assert!(std::env::var_os("CI").is_none(), "PostgreSQL is needed in CI: {reason}");
                eprintln!("skipped: {reason}");
                return None;
            }
        };
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { name: "postgres".to_owned(), port: server.port }.execute(&format!("CREATE DATABASE {name}")).await;
        Some(Self { name, port: server.port })
    }

    /// Its address without the password.
    pub fn url(&self) -> String {
        self.url_by("127.0.0.1", self.port)
    }

    /// The same by another way.
    pub fn url_by(&self, host: &str, port: u16) -> String {
        format!("postgres://{USER}@{host}:{port}/{}", self.name)
    }

    pub async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().unwrap();
        PgConnection::connect_with(&options.password(PASSWORD)).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

impl Server {
    fn start() -> Result<Self, String> {
        let programs =
            programs().ok_or("there is no PostgreSQL here: no initdb in /usr/lib/postgresql/*/bin or PATH")?;
        let place = tempfile::Builder::new().prefix("bailiwick-postgres-").tempdir().unwrap().keep();
        let own = |name: &str, content: &str| {
            let path = place.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let password = own("password", PASSWORD);
        own("server.crt", &std::fs::read_to_string(CERTIFICATE).unwrap());
        own("server.key", &std::fs::read_to_string(KEY).unwrap());
        // It refuses to be root.
        let user = rustix::process::geteuid().is_root().then(|| {
            let known = |user: &&str| Command::new("id").arg(user).output().is_ok_and(|output| output.status.success());
            ["postgres", "nobody"].into_iter().find(known).unwrap_or("nobody")
        });
        if let Some(user) = user {
            let owned = Command::new("chown").args(["-R", user]).arg(&place).status();
            assert!(owned.is_ok_and(|status| status.success()), "chown {user}");
        }
        let data = place.join("data");
        let mut initdb = as_user(user, &programs.join("initdb"));
        let made = initdb
            .args(["-U", USER, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .arg("--pwfile")
            .arg(&password)
            .current_dir(&place)
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let port = free_port();
        let log = std::fs::File::create(place.join("log")).unwrap();
        let server = as_user(user, &programs.join("postgres"));
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD, "guard"])
            .arg(&place)
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(&data);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // What is lost with the machine is lost with the test.
            "fsync=off",
            "full_page_writes=off",
            "max_connections=300",
            "shared_buffers=32MB",
            "ssl=on",
            "ssl_cert_file=../server.crt",
            "ssl_key_file=../server.key",
        ] {
            guard.args(["-c", setting]);
        }
        guard.args(["-p", &port.to_string()]);
        let guard = guard
            .current_dir(&place)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let until = Instant::now() + Duration::from_secs(30);
        // The file says `ready` in its last line once it takes connections.
        while !std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| text.trim_end().ends_with("ready"))
        {
            if Instant::now() > until {
                let log = std::fs::read_to_string(place.join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL does not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::io::stderr().flush();
        Ok(Self { port, _guard: guard })
    }
}

fn as_user(user: Option<&str>, program: &Path) -> Command {
    let Some(user) = user else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), "--regid", user_group(user).as_str(), "--clear-groups"]).arg(program);
    command
}

fn user_group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where `initdb` and `postgres` are: the newest of Debian's, or whatever is in the path.
fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    places.sort();
    let in_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let all = places.into_iter().rev().map(|(_, place)| place).chain(in_path);
    all.into_iter().find(|place| place.join("initdb").exists() && place.join("postgres").exists())
}

/// Below the ports that systems give to connections, and those that the tests of the gateway take.
fn free_port() -> u16 {
    let first = std::process::id() % 900;
    let mut ports = (0..900).map(|next| 11_000 + u16::try_from((first + next) % 900).unwrap());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
