//! Several gateways with one store, each with a way of its own to PostgreSQL that a test can cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::free_address;
use super::gateway::{Gateway, Setup};
use super::postgres::{Database, PASSWORD};

/// Keys that all replicas have.
const KEYS: &str = "[keys]\nseal = [\"env:TEST_KEY\"]\njournal = [\"env:TEST_KEY\"]\ncheckpoint = [\"env:TEST_KEY\"]\n";

/// What a certificate of a replica is signed by: made by `openssl`, for this test alone.
struct Authority;

pub struct Replicas {
    pub all: Vec<Gateway>,
    pub ways: Vec<Way>,
    /// Where each listens for the others.
    pub clusters: Vec<SocketAddr>,
    pub database: Database,
    /// The files; no process of its own.
    files: Gateway,
    /// Whether they have `[cluster]`.
    hand_on: bool,
}

impl Replicas {
    /// So many replicas; `None`, and the reason printed, where there is no PostgreSQL.
    pub async fn start(setup: Setup, count: usize) -> Option<Self> {
        Authority::certify(setup.directory());
        let cluster = "[cluster]\nlisten = \"127.0.0.1:7801\"\ncertificate = \"replica.crt\"\nkey = \"replica.key\"\nca = \"ca.crt\"\n";
        Self::started(setup.sections(cluster), count, true).await
    }

    /// The same without `[cluster]`: nothing is handed on.
    pub async fn start_apart(setup: Setup, count: usize) -> Option<Self> {
        Self::started(setup, count, false).await
    }

    async fn started(setup: Setup, count: usize, hand_on: bool) -> Option<Self> {
        let database = Database::fresh().await?;
        let setup =
            setup.gateway("store = \"env:TEST_STORE\"\nstore_password = \"env:TEST_STORE_PASSWORD\"\n").sections(KEYS);
        let files = setup.written();
        let mut replicas = Self { all: Vec::new(), ways: Vec::new(), clusters: Vec::new(), database, files, hand_on };
        for _ in 0..count {
            replicas.add().await;
        }
        Some(replicas)
    }

    /// Starts one more.
    pub async fn add(&mut self) {
        let number = self.all.len();
        let way = Way::to(self.database.port);
        let store = self.database.url_by("127.0.0.1", way.address.port());
        let cluster = free_address();
        let (listen, advertise) = (cluster.to_string(), format!("localhost:{}", cluster.port()));
        let arguments = ["--cluster-listen", &listen, "--advertise", &advertise];
        let arguments = if self.hand_on { &arguments[..] } else { &[] };
        let key = "5a".repeat(32);
        let environment =
            [("TEST_STORE", store.as_str()), ("TEST_STORE_PASSWORD", PASSWORD), ("TEST_KEY", key.as_str())];
        let mut replica = self.files.replica(&format!("state-{number}"), arguments, &environment);
        replica.launch().await;
        self.all.push(replica);
        self.ways.push(way);
        self.clusters.push(cluster);
    }

    /// Where the files are: `ca.crt`, `replica.crt` and `replica.key` among them.
    pub fn place(&self) -> &std::path::Path {
        self.files.place()
    }

    /// The resource that tokens must be for.
    pub fn resource(&self) -> String {
        self.files.resource()
    }

    /// Replaces `policy.csv` of all of them.
    pub fn write_policy(&self, rows: &str) {
        self.files.write_policy(rows);
    }
}

impl Authority {
    /// Makes `ca.crt`, and `replica.crt` with its key for `localhost`.
    fn certify(place: &std::path::Path) {
        let openssl = |arguments: &[&str]| {
            let output = std::process::Command::new("openssl").args(arguments).current_dir(place).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["-subj", "/CN=replicas", "-keyout", "ca.key", "-out", "ca.crt"];
        openssl(&[&["req", "-x509"], &curve[..], &ca].concat());
        let replica = ["-subj", "/CN=replica", "-addext", "subjectAltName=DNS:localhost", "-keyout", "replica.key"];
        let signed = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-out",
            "replica.crt",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        openssl(&[&["req", "-x509"], &curve[..], &replica, &signed].concat());
    }
}

/// A way to PostgreSQL.
pub struct Way {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Way {
    fn to(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let state = open.subscribe();
        // A thread of its own: a test that waits for a command must not hold up what that command waits for.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(carry(listener, port, state));
        });
        Self { address, open }
    }

    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

/// Carries connections until the way is gone.
async fn carry(listener: std::net::TcpListener, port: u16, mut way: watch::Receiver<bool>) {
    let (listener, state) = (TcpListener::from_std(listener).unwrap(), way.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { while way.changed().await.is_ok() {} } => return,
        };
        let (Ok((mut near, _)), mut open) = (accepted, state.clone()) else { return };
        tokio::spawn(async move {
            // What is cut neither answers nor closes, as when a cable is pulled.
            let _ = open.wait_for(|open| *open).await;
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let ended = tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => true,
                _ = open.wait_for(|open| !*open) => false,
            };
            if !ended {
                let _ = open.wait_for(|open| *open).await;
            }
        });
    }
}
