//! Where the installed parts are, and how one is run.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

/// The installed parts.
pub struct Parts {
    root: PathBuf,
}

impl Parts {
    /// The parts; nothing, with a printed reason, where they are not installed.
    ///
    /// # Panics
    /// In CI, where a missing part is a failure.
    pub fn installed() -> Option<Self> {
        static SAID: std::sync::Once = std::sync::Once::new();
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop");
        if root.join("npm.stamp").exists() && root.join("python.stamp").exists() {
            return Some(Self { root });
        }
        assert!(std::env::var_os("CI").is_none(), "the interop parts are missing; run tests/interop/parts/install");
        // Not `eprintln`, which the test runner keeps to itself when a test passes.
        SAID.call_once(|| {
            let reason = b"skipped: the interop parts are missing; tests/interop/parts/install installs them\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), reason);
        });
        None
    }

    /// The Node that came with the parts; the machine's own may be too old for them.
    pub fn node(&self) -> String {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        let node = self.root.join(format!("node_modules/node-linux-{architecture}/bin/node"));
        if node.exists() { node.display().to_string() } else { "node".to_owned() }
    }

    /// Where that Node is, for what looks for one.
    pub fn node_directory(&self) -> PathBuf {
        PathBuf::from(self.node()).parent().map(PathBuf::from).unwrap_or_default()
    }

    /// A file of a Node package.
    pub fn node_file(&self, name: &str) -> String {
        self.root.join("node_modules").join(name).display().to_string()
    }

    /// What a server of these parts loads beside its script, for its table.
    pub fn readable(&self) -> String {
        format!("read = [{:?}]\n", self.root.display().to_string())
    }

    /// A command of a Node package.
    pub fn node_command(&self, name: &str) -> String {
        self.root.join("node_modules/.bin").join(name).display().to_string()
    }

    /// A command of the Python environment.
    pub fn python_command(&self, name: &str) -> String {
        self.root.join("python/bin").join(name).display().to_string()
    }

    /// A script of `tests/interop/parts`.
    pub fn script(name: &str) -> String {
        format!("{}/tests/interop/parts/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    /// Where a script must lie to find the Node packages beside it.
    pub fn node_script(&self, name: &str) -> String {
        // Each process copies it for itself: another test may be reading the last copy.
        let copy = self.root.join(format!("{}-{name}", ulid::Ulid::generate()));
        std::fs::copy(Self::script(name), &copy).unwrap();
        copy.display().to_string()
    }

    /// Runs a client to its end and returns what it printed, as JSON.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Value {
        let home = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            // Nothing of the person who runs the tests is read or written, and nobody is called at home.
            .env("HOME", home.path())
            .env("NO_PROXY", "*")
            .env("FASTMCP_CHECK_FOR_UPDATES", "off")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output())
            .await
            .unwrap_or_else(|_| panic!("{program} {arguments:?} did not end within a minute"))
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}\n{complaint}", output.status);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{program} printed no JSON: {text}\n{complaint}"))
    }
}
