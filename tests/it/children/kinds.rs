//! The same child under a gateway that is nobody in particular, and where nobody gets namespaces: whatever of a sandbox a
//! host has, what the child tries fails.

use super::*;
use crate::stdio::marked;

impl Place {
    /// Everything that a child of this gateway tries: keys, record, configuration, another child's environment, the
    /// network, and to outlive the gateway. Ends the gateway.
    async fn withstands(mut self) {
        let keys = std::fs::read_dir(self.gateway.state().join("keys")).unwrap();
        let mut files: Vec<PathBuf> = keys.map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        let mut journal = std::fs::read_dir(self.gateway.state().join("journal")).unwrap();
        files.push(journal.find_map(|entry| Some(entry.unwrap().path()).filter(|path| path.is_file())).unwrap());
        files.extend(["state/store.sqlite", "servers.toml", "policies/policy.csv"].map(|name| self.path(name)));
        for file in files {
            self.only_without_a_sandbox(&format!("open({:?}, 'rb').read()", file.display().to_string())).await;
        }
        let sibling = self.found("sibling", "result = os.getpid()").await;
        self.only_without_a_sandbox(&format!("result = open('/proc/{sibling}/environ').read()")).await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connects = format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).close()");
        self.only_without_a_sandbox(&connects).await;
        self.found("online", &connects).await;
        let gateway = self.gateway.process_id();
        for code in looks_into(gateway) {
            self.is_refused("hostile", &code).await;
        }
        if self.landlock() >= 6 {
            self.only_without_a_sandbox(&format!("os.kill({gateway}, 0)")).await;
        } else {
            untested("signals, which need Landlock version 6 (Linux 6.12)");
        }
        let mark = format!("mark={}", self.gateway.state().display());
        let daemon =
            "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nif os.fork(): os._exit(0)\\ntime.sleep(60)";
        let bred = format!(
            "import subprocess, sys\nnull = subprocess.DEVNULL\n\
             subprocess.Popen([sys.executable, '-c', '{daemon}', {mark:?}], stdin=null, stdout=null, stderr=null).wait()"
        );
        for server in ["hostile", "free"] {
            self.found(server, &bred).await;
        }
        eventually("both have left one behind", async || marked(&mark).len() == 2).await;
        self.gateway.signal("KILL");
        assert!(!self.gateway.wait().await.success());
        eventually("neither outlives the gateway", async || marked(&mark).is_empty()).await;
    }
}

#[tokio::test]
async fn a_child_of_a_gateway_that_is_an_ordinary_user_reaches_as_little_and_starts_only_so_many_processes() {
    // One that everybody may run.
    const PYTHON: &str = "/usr/bin/python3";
    if !std::path::Path::new(PYTHON).exists() {
        return untested("a child of an ordinary user, which needs /usr/bin/python3");
    }
    let Some(place) = Place::started("process = { processes_max = 20 }", PYTHON, Setup::of_nobody).await else {
        return;
    };
    // A process that is not dumpable keeps everybody out but root.
    for code in looks_into(place.gateway.process_id()) {
        place.is_refused("hostile", &code).await;
        place.is_refused("free", &code).await;
    }
    if place.gateway.log().contains("namespaces=true") {
        let code = "import time\nmade = []\ntry:\n    for _ in range(40):\n        made.append(os.fork())\n        if not made[-1]:\n\
                    \x20           time.sleep(60)\n            os._exit(0)\nfinally:\n    for child in made:\n\
                    \x20       os.kill(child, 9)\n        os.waitpid(child, 0)";
        let came = place.attempt("hostile", code).await;
        assert_eq!(came["number"].as_i64(), Some(11), "{came}");
        place.found("sibling", code).await;
    } else {
        untested("processes are counted apart in a namespace of users, and this host gives none");
    }
    place.withstands().await;
}

#[tokio::test]
async fn a_child_where_nobody_gets_namespaces_reaches_as_little() {
    crate::needs_python!();
    let made = std::process::Command::new("unshare").args(["-Ur", "true"]).status();
    if !made.is_ok_and(|status| status.success()) {
        return untested("a host without namespaces, which is made with one of users");
    }
    let Some(place) = Place::started("", &python(), Setup::without_namespaces).await else { return };
    assert!(place.gateway.log().contains("namespaces=false"), "{}", place.gateway.log());
    place.withstands().await;
}
