//! A child that is not to be trusted: what it tries, and that it fails. Each attempt is made once more by a server
//! without a sandbox, where it succeeds, so that none of these tests can pass for another reason.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stdio::are_gone;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::{eventually, python, untested};

mod kinds;

/// A server of the legacy era that runs whatever a test sends it, and answers what that found out.
const SERVER: &str = r#"
import json, os, sys

def attempt(code):
    found = {"os": os}
    try:
        exec(code, found)
        return {"did": found.get("result", True)}
    except BaseException as problem:
        return {"refused": type(problem).__name__, "number": getattr(problem, "errno", None), "text": str(problem)}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message.get("method"), message.get("params", {})
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "hostile", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "attempt", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        text = json.dumps(attempt(params["arguments"]["code"]))
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    print(json.dumps(answer), flush=True)
"#;

/// A gateway with a server that is confined, one like it, one with a network, and one without a sandbox.
struct Place {
    gateway: Gateway,
    token: String,
    _scripts: tempfile::TempDir,
    _issuer: Issuer,
}

impl Place {
    /// Nothing where this machine cannot confine a process.
    async fn start() -> Option<Self> {
        Self::with("").await
    }

    /// The same, with more lines for the server that is confined.
    async fn with(more: &str) -> Option<Self> {
        Self::started(more, &python(), |setup| setup).await
    }

    /// The same of a gateway that is started otherwise, with this interpreter.
    async fn started(more: &str, python: &str, otherwise: impl FnOnce(Setup) -> Setup) -> Option<Self> {
        let (issuer, scripts) = (Issuer::start().await, tempfile::tempdir().unwrap());
        let script = scripts.path().join("server.py");
        std::fs::write(&script, SERVER).unwrap();
        // Whoever the gateway runs as reads it.
        std::fs::set_permissions(scripts.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = script.display().to_string();
        let command = [python, "-I", script.as_str()];
        let gateway = otherwise(Setup::new(&issuer))
            .stdio_server("hostile", &command, more)
            .stdio_server("sibling", &command, "variables = { GREETING = \"for the sibling alone\" }")
            .stdio_server("online", &command, "network = true")
            .stdio_server("free", &command, "sandbox = \"none\"")
            .start()
            .await;
        let token = issuer.token("alice", &["developers"], &gateway.resource());
        let place = Self { gateway, token, _scripts: scripts, _issuer: issuer };
        eventually("the host is probed", async || place.gateway.log().contains("landlock=")).await;
        if place.landlock() < 3 {
            untested("this machine cannot confine a process, which needs Landlock version 3 (Linux 6.2)");
            return None;
        }
        let client = place.gateway.client(&place.token);
        // Four interpreters start at once, and a list has what is there by then.
        eventually("all four are up", async || {
            let listed = client.modern("tools/list", json!({})).await;
            listed.result()["tools"].as_array().is_some_and(|tools| tools.len() == 4)
        })
        .await;
        Some(place)
    }

    /// What came of an attempt.
    async fn attempt(&self, server: &str, code: &str) -> Value {
        let client = self.gateway.client(&self.token);
        let answer = client.call_tool(&format!("{server}__attempt"), json!({ "code": code })).await;
        serde_json::from_str(answer.tool_text()).unwrap_or_else(|_| panic!("{}", answer.text))
    }

    /// What an attempt found, where it has to succeed.
    async fn found(&self, server: &str, code: &str) -> Value {
        let came = self.attempt(server, code).await;
        assert!(came.get("did").is_some(), "{server} cannot do this: {code}\n{came}");
        came["did"].clone()
    }

    /// The attempt fails for the child that is confined, for want of permission, and succeeds without a sandbox.
    async fn only_without_a_sandbox(&self, code: &str) {
        self.is_refused("hostile", code).await;
        self.found("free", code).await;
    }

    async fn is_refused(&self, server: &str, code: &str) {
        const NOT_PERMITTED: [i64; 2] = [1, 13];
        let came = self.attempt(server, code).await;
        let number = came["number"].as_i64();
        assert!(number.is_some_and(|number| NOT_PERMITTED.contains(&number)), "{server} could do this: {code}\n{came}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.gateway.state().parent().unwrap().join(name)
    }

    /// Which version of Landlock the gateway found.
    fn landlock(&self) -> u32 {
        let log = self.gateway.log();
        let (_, rest) = log.split_once("landlock=").unwrap_or_else(|| panic!("not in the log:\n{log}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }
}

/// What the test runs as; root is held by less.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_child_cannot_read_keys_journal_store_or_configuration() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let keys: Vec<PathBuf> =
        std::fs::read_dir(place.gateway.state().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut journal =
        std::fs::read_dir(place.gateway.state().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.find(|path| path.extension().is_some_and(|kind| kind == "jsonl")).unwrap();
    assert!(!keys.is_empty());
    let files =
        [journal, place.path("state/store.sqlite"), place.path("servers.toml"), place.path("policies/policy.csv")];
    for file in keys.iter().chain(&files) {
        place.only_without_a_sandbox(&format!("open({:?}, 'rb').read()", file.display().to_string())).await;
    }
    for directory in ["state", "state/keys", "state/children", "policies", "."] {
        let directory = place.path(directory).display().to_string();
        place.only_without_a_sandbox(&format!("os.listdir({directory:?})")).await;
    }
}

#[tokio::test]
async fn a_child_cannot_change_state_or_configuration() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let policy = place.path("policies/policy.csv");
    let before = std::fs::read_to_string(&policy).unwrap();
    place.is_refused("hostile", &format!("os.truncate({:?}, 0)", policy.display().to_string())).await;
    place.is_refused("hostile", &format!("os.rename({0:?}, {0:?} + '.old')", policy.display().to_string())).await;
    place.only_without_a_sandbox(&format!("open({:?}, 'a').close()", policy.display().to_string())).await;
    let planted = place.path("state/planted").display().to_string();
    place.only_without_a_sandbox(&format!("open({planted:?}, 'w').close()")).await;
    assert_eq!(std::fs::read_to_string(&policy).unwrap(), before);
}

#[tokio::test]
async fn a_child_works_in_a_private_directory_that_goes_with_it() {
    crate::needs_python!();
    let Some(mut place) = Place::start().await else { return };
    let code = "result = [os.getcwd(), os.environ['HOME'], os.environ['TMPDIR'], oct(os.stat('.').st_mode)[-3:]]\n\
                open('made', 'w').write('x')\nresult.append(oct(os.stat('made').st_mode)[-3:])\n\
                result.append(open('made').read())";
    let found = place.found("hostile", code).await;
    let directory = PathBuf::from(found[0].as_str().unwrap());
    assert!(directory.starts_with(place.gateway.state().canonicalize().unwrap().join("children")), "{found}");
    assert_eq!((&found[1], &found[2]), (&found[0], &found[0]));
    assert_eq!((found[3].as_str(), found[4].as_str(), found[5].as_str()), (Some("700"), Some("600"), Some("x")));
    let outside = std::env::temp_dir().join(format!("planted-{}", std::process::id())).display().to_string();
    place.only_without_a_sandbox(&format!("open({outside:?}, 'w').close(); os.remove({outside:?})")).await;
    assert!(place.gateway.stop().await.success());
    assert!(!directory.exists(), "it outlived its process");
}

#[tokio::test]
async fn a_child_cannot_look_into_another_child() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let told = "open('kept', 'w').write('for the sibling alone'); result = [os.getpid(), os.getcwd(), os.getppid()]";
    let sibling = place.found("sibling", told).await;
    let (process, directory) = (sibling[0].as_u64().unwrap(), sibling[1].as_str().unwrap());
    for code in [
        format!("result = open('/proc/{process}/environ').read()"),
        format!("result = os.listdir('/proc/{process}/cwd/')"),
        format!("open('/proc/{process}/mem', 'rb').close()"),
        format!("result = open('{directory}/kept').read()"),
        format!("result = os.listdir('{directory}')"),
    ] {
        place.only_without_a_sandbox(&code).await;
    }
    // It does not outlive its own supervisor either, however that ends; and there is another one afterwards.
    let supervisor = i32::try_from(sibling[2].as_i64().unwrap()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    are_gone(&[process], Duration::from_secs(10)).await;
    let asks = json!({ "code": "result = os.getpid()" });
    eventually("another sibling", async || {
        let client = place.gateway.client(&place.token);
        client.call_tool("sibling__attempt", asks.clone()).await.text.contains("did")
    })
    .await;
}

/// Ways to look into the gateway, and into the supervisor.
fn looks_into(gateway: u32) -> [String; 6] {
    [
        format!("open('/proc/{gateway}/environ').read()"),
        format!("open('/proc/{gateway}/mem', 'rb').close()"),
        format!("open('/proc/{gateway}/maps').read()"),
        format!("os.readlink('/proc/{gateway}/fd/0')"),
        format!("os.listdir('/proc/{gateway}/root/')"),
        "open('/proc/%d/environ' % os.getppid()).read()".to_owned(),
    ]
}

#[tokio::test]
async fn a_child_cannot_look_into_the_gateway() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    for code in looks_into(place.gateway.process_id()) {
        place.is_refused("hostile", &code).await;
        if is_root() {
            // The only one whom a process that is not dumpable does not keep out.
            place.found("free", &code).await;
        } else {
            place.is_refused("free", &code).await;
        }
    }
}

#[tokio::test]
async fn a_child_cannot_end_or_starve_its_supervisor_or_the_gateway() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let gateway = place.gateway.process_id();
    // Of resource limits and priorities nothing separates the processes of one user but the filter.
    for code in [
        format!(
            "import resource\nresource.prlimit({gateway}, resource.RLIMIT_NOFILE, resource.prlimit({gateway}, resource.RLIMIT_NOFILE))"
        ),
        format!("os.setpriority(os.PRIO_PROCESS, {gateway}, os.getpriority(os.PRIO_PROCESS, {gateway}))"),
        format!("os.sched_setaffinity({gateway}, os.sched_getaffinity({gateway}))"),
    ] {
        place.only_without_a_sandbox(&code).await;
    }
    // Nobody in particular is named here, so everybody of the user or the group is.
    let ioprio = |whom: u8| {
        let number = if cfg!(target_arch = "x86_64") { 251 } else { 30 };
        format!(
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
             if libc.syscall({number}, {whom}, 0, 2 << 13 | 4): raise OSError(ctypes.get_errno(), 'ioprio_set')"
        )
    };
    let nice = |whom: &str| format!("os.setpriority(os.{whom}, 0, os.getpriority(os.{whom}, 0))");
    for (of_group, of_user) in [(nice("PRIO_PGRP"), nice("PRIO_USER")), (ioprio(2), ioprio(3))] {
        place.only_without_a_sandbox(&of_group).await;
        place.is_refused("hostile", &of_user).await;
    }
    place.found("hostile", &nice("PRIO_PROCESS")).await;
    place.found("hostile", &ioprio(1)).await;
    if place.landlock() < 6 {
        untested("signals, which need Landlock version 6 (Linux 6.12)");
        return;
    }
    place.only_without_a_sandbox(&format!("os.kill({gateway}, 0)")).await;
    place.only_without_a_sandbox("os.kill(os.getppid(), 0)").await;
    place.is_refused("hostile", "os.kill(os.getppid(), 9)").await;
    place.found("hostile", "child = os.fork()\nif not child: os._exit(0)\nos.waitpid(child, 0)").await;
}

#[tokio::test]
async fn a_child_without_network_reaches_no_listener_of_this_machine_and_no_resolver() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let resolver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver_port = resolver.local_addr().unwrap().port();
    let tcp = format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).close()");
    let query = format!(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('127.0.0.1', {resolver_port}))"
    );
    let listening = "import socket\nsocket.create_server(('127.0.0.1', 0)).close()";
    for code in [&tcp, &query, listening] {
        place.only_without_a_sandbox(code).await;
        place.found("online", code).await;
    }
    place.is_refused("hostile", "import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_STREAM)").await;
    place.is_refused("hostile", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)").await;
    place.found("hostile", "import socket\nsocket.socketpair()").await;
}

#[tokio::test]
async fn a_child_reaches_no_unix_socket_whatever_network_it_has() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let path = place.gateway.state().canonicalize().unwrap().join("control.sock").display().to_string();
    let name = format!("hostile-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    for socket in [format!("{path:?}"), format!("'\\0{name}'")] {
        let code = format!("import socket\nsocket.socket(socket.AF_UNIX).connect({socket})");
        place.only_without_a_sandbox(&code).await;
        place.is_refused("online", &code).await;
    }
    // One end of a pair is as good as a socket where what is sent may name an address.
    let listens = place.path("a-log-of-this-machine");
    let log = std::os::unix::net::UnixDatagram::bind(&listens).unwrap();
    for kind in ["SOCK_DGRAM", "SOCK_RAW", "SOCK_DGRAM | socket.SOCK_CLOEXEC"] {
        let code = format!(
            "import socket\nsocket.socketpair(socket.AF_UNIX, socket.{kind})[0].sendto(b'forged', {:?})",
            listens.display().to_string()
        );
        place.only_without_a_sandbox(&code).await;
        place.is_refused("online", &code).await;
    }
    for kind in ["SOCK_STREAM", "SOCK_SEQPACKET"] {
        let code = format!(
            "import socket\nend, other = socket.socketpair(socket.AF_UNIX, socket.{kind})\n\
             try: end.sendto(b'forged', {:?})\nexcept OSError: pass\nother.close()",
            listens.display().to_string()
        );
        place.found("online", &code).await;
    }
    log.set_nonblocking(true).unwrap();
    let heard = std::iter::from_fn(|| log.recv(&mut [0; 16]).ok()).count();
    assert_eq!(heard, 3, "of the one without a sandbox alone");
}

#[tokio::test]
async fn a_child_without_a_sandbox_does_not_operate_the_gateway_either() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let path = place.gateway.state().canonicalize().unwrap().join("control.sock").display().to_string();
    let order = r#"{"target":"everything"}"#;
    let code = format!(
        "import socket\nend = socket.socket(socket.AF_UNIX)\nend.connect({path:?})\n\
         end.sendall(b'POST /revoke HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\ncontent-type: application/json\\r\\ncontent-length: {}\\r\\n\\r\\n{order}')\n\
         result = b''.join(iter(lambda: end.recv(4096), b'')).decode()",
        order.len()
    );
    let answer = place.found("free", &code).await;
    let answer = answer.as_str().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("does not operate it"), "{answer}");
    assert!(place.gateway.command(&["revoke", "client", "test/somebody"]).status.success(), "others do");
}

#[tokio::test]
async fn a_child_gains_no_privileges_and_has_none() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let code =
        "result = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)";
    let status = place.found("hostile", code).await;
    for (name, value) in
        [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")]
    {
        assert_eq!(status[name].as_str(), Some(value), "{name}");
    }
    assert_eq!(place.found("free", code).await["NoNewPrivs"], "1", "not even without a sandbox");
    // A ring would open sockets behind the back of the filter; keyrings are shared by all processes of a user.
    let raw = |call: u32| {
        format!(
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall({call}, 0, 0, 0, 0, 0)\nresult = ctypes.get_errno()"
        )
    };
    let [ring, keys] = if cfg!(target_arch = "x86_64") { [425, 250] } else { [425, 219] };
    for call in [ring, keys] {
        assert_eq!(place.found("hostile", &raw(call)).await, 13, "system call {call}");
        assert_ne!(place.found("free", &raw(call)).await, 13, "system call {call}");
    }
    if is_root() {
        place
            .only_without_a_sandbox(
                "if not os.fork():\n    os.setgid(12345)\n    os._exit(0)\nos.setegid(0)\nos.chown('.', 1, 1)",
            )
            .await;
    } else {
        eprintln!("not tested: that root's rights are given up, because this does not run as root");
    }
}

#[tokio::test]
async fn a_child_inherits_nothing_but_its_standard_streams() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    // The fourth is the one with which the directory is read.
    let open = place.found("hostile", "result = sorted(map(int, os.listdir('/proc/self/fd')))").await;
    assert_eq!(open.as_array().unwrap().len(), 4, "{open}");
}

#[tokio::test]
async fn a_child_that_fills_memory_files_or_descriptors_comes_to_its_bound() {
    crate::needs_python!();
    let bounds = "[servers.hostile.process]\nmemory_mebibytes_max = 256\nfile_mebibytes_max = 1\nopen_files_max = 64\n";
    let Some(place) = Place::with(bounds).await else { return };
    let memory = "len(bytearray(512 * 1024 * 1024))";
    let file = "with open('large', 'wb') as large:\n    large.write(bytes(2 * 1024 * 1024))";
    let descriptors = "held = [open('/dev/null') for _ in range(100)]";
    for (code, name, number) in
        [(memory, "MemoryError", None), (file, "OSError", Some(27)), (descriptors, "OSError", Some(24))]
    {
        let came = place.attempt("hostile", code).await;
        assert_eq!((came["refused"].as_str(), came["number"].as_i64()), (Some(name), number), "{came}");
        place.found("sibling", code).await;
    }
    let core = "import resource\nresult = resource.getrlimit(resource.RLIMIT_CORE)";
    for server in ["hostile", "free"] {
        assert_eq!(place.found(server, core).await, json!([0, 0]), "{server}");
    }
}

#[tokio::test]
async fn a_child_reads_and_writes_what_its_server_names_and_no_more() {
    crate::needs_python!();
    let shared = tempfile::tempdir().unwrap();
    let at = |name: &str| shared.path().join(name);
    for name in ["read", "write", "else"] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("file"), name).unwrap();
    }
    let (read, write) = (at("read").display().to_string(), at("write").display().to_string());
    // A secret that is its own may stand where it reads.
    let key = at("read").join("key").display().to_string();
    std::fs::write(&key, "key-of-the-server-1\n").unwrap();
    let more = format!("read = [{read:?}]\nwrite = [{write:?}]\nvariables = {{ KEY = \"file:{key}\" }}");
    let Some(place) = Place::with(&more).await else { return };
    place.found("hostile", "import sys\nprint('my key is', os.environ['KEY'], file=sys.stderr, flush=True)").await;
    eventually("it was said", async || place.gateway.log().contains("my key is")).await;
    let log = place.gateway.log();
    assert!(log.contains("my key is [credential]") && !log.contains("key-of-the-server-1"), "{log}");
    for (name, may_read, may_write) in [("read", true, false), ("write", true, true), ("else", false, false)] {
        let file = at(name).join("file").display().to_string();
        for (code, may) in
            [(format!("open({file:?}).read()"), may_read), (format!("open({file:?}, 'a').close()"), may_write)]
        {
            if may {
                place.found("hostile", &code).await;
            } else {
                place.only_without_a_sandbox(&code).await;
            }
        }
    }
    assert_eq!(std::fs::metadata(at("read")).unwrap().permissions().mode() & 0o777, 0o755 & !umask());
}

/// What new directories of this test do not get.
fn umask() -> u32 {
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(before);
    before.bits()
}

#[tokio::test]
async fn what_a_server_runs_is_on_the_record_and_a_change_of_it_is_a_warning() {
    crate::needs_python!();
    let (issuer, place) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let (program, script) = (place.path().join("server"), place.path().join("server.py"));
    std::fs::write(&script, SERVER).unwrap();
    let write = |comment: &str| {
        // A file that is being run cannot be written, so it is replaced, as package managers do.
        let new = place.path().join("new");
        std::fs::write(&new, format!("#!/bin/sh\n# {comment}\nexec {} {}\n", python(), script.display())).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    };
    write("version 1");
    let command = [program.to_str().unwrap()];
    let mut gateway = Setup::new(&issuer).stdio_server("child", &command, "sandbox = \"none\"").start().await;
    eventually("it is on the record", async || gateway.records("executable").len() == 1).await;
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    eventually("the same file is recorded at the next start", async || gateway.records("executable").len() == 2).await;
    assert!(!gateway.log().contains("has changed"), "{}", gateway.log());
    assert!(gateway.stop().await.success());
    write("version 2");
    gateway.launch().await;
    eventually("the other file is on the record", async || gateway.records("executable").len() == 3).await;
    let records = gateway.records("executable");
    let notes: Vec<&Value> = records.iter().map(|record| &record["executable"]).collect();
    assert_eq!(notes[0]["server"], "child");
    assert_eq!(notes[0]["path"].as_str(), program.canonicalize().unwrap().to_str());
    assert_eq!((&notes[0]["digest"], notes[1].get("before")), (&notes[1]["digest"], None));
    assert_eq!((&notes[2]["before"], notes[2]["digest"] == notes[1]["digest"]), (&notes[1]["digest"], false));
    assert!(gateway.log().contains("the executable of a server has changed"), "{}", gateway.log());
}

#[tokio::test]
async fn a_server_without_a_sandbox_is_named_by_check_log_and_readiness() {
    crate::needs_python!();
    let Some(place) = Place::start().await else { return };
    let checked = place.gateway.command(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.contains("server `free` runs without a sandbox"), "{said}");
    assert!(!said.contains("server `hostile`"), "{said}");
    assert!(!place.gateway.command(&["check", "--strict"]).status.success());
    eventually("the log names it", async || place.gateway.log().contains("server `free` runs without a sandbox")).await;
    let asked = std::process::Command::new("curl")
        .args([
            "-s",
            "--unix-socket",
            &place.path("state/control.sock").display().to_string(),
            "http://localhost/readyz",
        ])
        .output();
    let Ok(asked) = asked else {
        untested("readiness, because there is no curl");
        return;
    };
    let readiness: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let checks = readiness["checks"].as_array().unwrap();
    let found: Vec<_> = checks.iter().filter(|check| check["name"].as_str().unwrap().starts_with("sandbox:")).collect();
    assert_eq!(found.len(), 1, "{readiness}");
    assert_eq!((found[0]["name"].as_str(), found[0]["well"].as_bool()), (Some("sandbox:free"), Some(false)));
}
