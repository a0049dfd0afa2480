//! Upstreams that are child processes: small shell scripts, well-behaved and not.

use std::path::Path;

use rustix::process::Pid;

use super::*;
use crate::config::process::{ProcessLimits, Reach, Sandbox};
use crate::config::{ProcessConfig, SecretReference};
use crate::upstream::Launcher;
use crate::upstream::sandbox::host::Host;
use crate::wire::mcp::{Kind, Version};

/// The supervisor under test is this very test, started again with a command after `--`.
const SUPERVISOR: &str = "upstream::tests::stdio::this_test_is_the_supervisor_when_it_is_started_with_a_command";

#[test]
fn this_test_is_the_supervisor_when_it_is_started_with_a_command() {
    let command: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    if std::env::args().any(|word| word == SUPERVISOR) && !command.is_empty() {
        let code = crate::upstream::supervise(&command);
        eprintln!("ended with {code:?}");
    }
}

fn supervisor_words() -> Vec<String> {
    [SUPERVISOR, "--exact", "--nocapture", "--test-threads=2", "--format=terse", "--"].map(str::to_owned).to_vec()
}

fn launcher(directory: &Path) -> Launcher {
    let mut config = config(Vec::new());
    config.gateway.state = directory.to_owned();
    let mut launcher = Launcher::of_this_executable(&config).unwrap();
    launcher.arguments = supervisor_words();
    launcher
}

struct Place {
    directory: tempfile::TempDir,
    upstreams: Arc<Upstreams>,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A shell script without a sandbox; `$PLACE` is a directory that the test sees too.
fn entry_of(script: &str, place: &Path) -> ServerConfig {
    let environment = [
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("PLACE", place.to_str().unwrap().to_owned()),
        ("GREETING", "hello".to_owned()),
    ];
    entry(TransportConfig::Stdio {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        environment: environment
            .into_iter()
            .map(|(name, value)| (name.to_owned(), SecretReference::Plain(value)))
            .collect(),
        directory: None,
        process: ProcessConfig {
            sandbox: Sandbox::None,
            limits: ProcessLimits {
                memory_mebibytes_max: 2048,
                file_mebibytes_max: 1024,
                open_files_max: 1024,
                processes_max: 256,
            },
            handover: None,
            instances_max: crate::limit::PROCESSES_PER_SERVER_MAX,
        },
    })
}

/// Serves a shell script.
fn serve(script: &str, change: impl FnOnce(&mut ServerConfig)) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let mut entry = entry_of(script, directory.path());
    change(&mut entry);
    let upstreams = Upstreams::launching(&config(vec![entry]), Ok(launcher(directory.path())));
    Place { directory, upstreams }
}

/// A script that answers each request with what stands in `cases`; `$id` is the id, `answer R` answers R.
fn script(cases: &str) -> String {
    format!(
        r#"answer() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$1"; }}
        error() {{ printf '{{"jsonrpc":"2.0","id":%s,"error":{{"code":%s,"message":"m"}}}}\n' "$id" "$1"; }}
        say() {{ printf '%s\n' "$1"; }}
        while IFS= read -r line; do
            id=${{line#*\"id\":}}; id=${{id%%,*}}
            case $line in {cases} esac
        done"#
    )
}

const LEGACY: &str = r#"
    *'"method":"server/discover"'*) error -32601;;
    *'"method":"initialize"'*) answer '{"protocolVersion":"2024-11-05","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"old"}}';;
"#;
const MODERN: &str = r#"
    *'"method":"server/discover"'*) answer '{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"instructions":"new"}';;
"#;

fn alive(process: i32) -> bool {
    // A zombie is dead for our purpose.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn gone(process: i32, within: Duration) -> bool {
    let began = std::time::Instant::now();
    while alive(process) {
        if began.elapsed() > within {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

async fn number_in(file: &Path) -> i32 {
    for _ in 0..500 {
        if let Some(number) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            return number;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} never had a number", file.display());
}

#[tokio::test]
async fn a_process_that_nobody_uses_is_ended_and_the_next_call_starts_another() {
    let place = serve(&script(&format!("{MODERN}*tools/call*) answer \"{{\\\"pid\\\":$$}}\";;")), |_| {});
    let process = async || {
        let result = completed(call(&place.upstreams, 1).await);
        i32::try_from(result["pid"].as_i64().unwrap()).unwrap()
    };
    let first = process().await;
    assert_eq!(process().await, first);
    tokio::time::pause();
    tokio::time::advance(crate::limit::PROCESS_IDLE + crate::limit::IDLE_SWEEP).await;
    tokio::time::resume();
    assert!(gone(first, Duration::from_secs(20)).await);
    assert_ne!(process().await, first);
}

#[tokio::test]
async fn a_process_of_either_era_answers_in_a_clean_environment_of_its_own() {
    for (era, version) in [(LEGACY, Version::V2025_03_26), (MODERN, Version::V2026_07_28)] {
        let call_case = r#"*tools/call*) vars=$(env | cut -d= -f1 | grep -v '^_$' | sort | tr '\n' ' ')
            answer "{\"vars\":\"$vars\",\"cwd\":\"$(pwd)\",\"meta\":$(case $line in *_meta*) echo 1;; *) echo 0;; esac)}";;"#;
        let place = serve(&script(&format!("{era}{call_case}")), |_| {});
        let result = completed(call(&place.upstreams, 1).await);
        assert_eq!(result["vars"], "GREETING PATH PLACE PWD ", "{result}");
        let cwd = PathBuf::from(result["cwd"].as_str().unwrap());
        assert!(cwd.starts_with(place.file("children")), "{}", cwd.display());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&cwd).unwrap());
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(result["meta"], i32::from(version == Version::V2026_07_28));
        assert_eq!(place.upstreams.facts(&id(), &Access::bare()).await.unwrap().version, version);
        place.upstreams.shutdown().await;
        assert!(!cwd.exists(), "its working directory is gone with it");
    }
}

#[tokio::test]
async fn each_principal_has_a_process_of_its_own_unless_it_is_shared() {
    let cases = format!(r#"{LEGACY} *tools/call*) answer "{{\"pid\":$$}}";;"#);
    let place = serve(&script(&cases), |_| {});
    let (one, two) = (call(&place.upstreams, 1).await, call(&place.upstreams, 2).await);
    let (one, two) = (completed(one), completed(two));
    assert_ne!(one, two);
    assert_eq!(one, completed(call(&place.upstreams, 1).await));
    place.upstreams.shutdown().await;
    let place = serve(&script(&cases), |entry| entry.isolation = Isolation::Shared);
    assert_eq!(completed(call(&place.upstreams, 1).await), completed(call(&place.upstreams, 2).await));
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn answers_come_to_whoever_asked_in_whatever_order() {
    // The first of two is answered last, with progress and another's progress in between.
    let cases = format!(
        r#"{MODERN} *'"n":1'*) first=$id;;
        *'"n":2'*) answer '{{"n":2}}'
            say "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":$first,\"progress\":1}}}}"
            say "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":\"x\",\"progress\":1}}}}"
            say 'a line that is no message'
            say "{{\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":{{}}}}"
            id=$first; answer '{{"n":1}}'; answer '{{"n":3}}';;"#
    );
    let place = serve(&script(&cases), |entry| entry.isolation = Isolation::Shared);
    let mut first = tool_call("t", json!({ "n": 1 }));
    first.progress_token = Some(Json::of("mine"));
    let first = tokio::spawn(ending(place.upstreams.send(dispatch(1, first))));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let second = outcome(place.upstreams.send(dispatch(2, tool_call("t", json!({ "n": 2 }))))).await;
    assert_eq!(completed(second)["n"], 2);
    let (notifications, first) = first.await.unwrap();
    assert_eq!(completed(first)["n"], 1);
    assert_eq!(notifications.len(), 1);
    assert_eq!(notifications[0].params().unwrap().get("progressToken").unwrap().raw(), "\"mine\"");
    place.upstreams.shutdown().await;
    assert!(place.upstreams.dropped().is_empty(), "nothing is left after a shutdown");
}

#[tokio::test]
async fn a_process_that_dies_mid_call_ends_the_call_and_the_next_one_is_served() {
    let cases = format!(r#"{LEGACY} *'"die":true'*) exit 3;; *tools/call*) answer '{{"ok":true}}';;"#);
    let place = serve(&script(&cases), |_| {});
    let died = outcome(place.upstreams.send(dispatch(1, tool_call("t", json!({ "die": true }))))).await;
    let failure = failed(died);
    assert_eq!((failure.reason, failure.may_have_acted), (Reason::UpstreamClosed, true));
    assert_eq!(completed(call(&place.upstreams, 1).await), json!({ "ok": true }));
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_line_without_end_and_a_line_that_is_no_message_are_garbage() {
    let cases = format!(
        r#"{LEGACY} *'"how":"long"'*) head -c 17000000 /dev/zero | tr '\0' x; echo;;
        *'"how":"bad"'*) say "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":[]}}";;
        *'"how":"torn"'*) say "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":";;
        *tools/call*) answer "{{\"pid\":$$}}";;"#
    );
    let place = serve(&script(&cases), |_| {});
    let ask = |how: &'static str| outcome(place.upstreams.send(dispatch(1, tool_call("t", json!({ "how": how })))));
    let before = completed(ask("fine").await);
    for how in ["bad", "torn"] {
        assert_eq!(told(ask(how).await), (Reason::UpstreamGarbage, true), "{how}");
    }
    assert_eq!(before, completed(ask("fine").await), "one bad line loses one call, not the process");
    assert_eq!(told(ask("long").await), (Reason::UpstreamGarbage, true));
    assert_ne!(before, completed(ask("fine").await), "a line without end loses the process");
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_process_that_is_silent_until_initialize_is_legacy_and_one_that_dies_of_it_too() {
    for discover in ["*server/discover*) :;;", "*server/discover*) exit 1;;"] {
        let cases = format!(r#"{discover} {LEGACY} *tools/call*) answer '{{"ok":true}}';;"#);
        let place = serve(&script(&cases), |entry| entry.health.connect_timeout = Duration::from_millis(1_500));
        assert_eq!(completed(call(&place.upstreams, 1).await), json!({ "ok": true }), "{discover}");
        place.upstreams.shutdown().await;
    }
}

#[tokio::test]
async fn a_process_that_never_speaks_or_is_not_there_is_down() {
    for script in ["exec sleep 1000", "exit 0", "exec /nowhere/at/all", "yes"] {
        let place = serve(script, |entry| entry.health.connect_timeout = Duration::from_millis(300));
        let failure = failed(call(&place.upstreams, 1).await);
        assert!(!failure.may_have_acted, "{script}: {failure}");
        until_health(&place, |health| matches!(health, crate::upstream::Health::Down { .. })).await;
        let began = std::time::Instant::now();
        assert_eq!(told(call(&place.upstreams, 2).await), (Reason::UpstreamUnreachable, false), "{script}");
        assert!(began.elapsed() < Duration::from_millis(100), "{script}");
        place.upstreams.shutdown().await;
    }
}

async fn until_health(place: &Place, is: impl Fn(&crate::upstream::Health) -> bool) {
    for _ in 0..500 {
        if is(&place.upstreams.health()[0].1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays {}", place.upstreams.health()[0].1);
}

#[tokio::test]
async fn a_process_that_does_not_start_for_one_takes_the_server_from_nobody_else() {
    let is_up = |health: &crate::upstream::Health| *health == crate::upstream::Health::Up;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "a-key-of-the-server").unwrap();
    let read = SecretReference::File(key.clone());
    let place = serve(&script(&format!(r#"{LEGACY} *tools/call*) answer '{{"ok":true}}';;"#)), |entry| {
        let TransportConfig::Stdio { environment, .. } = &mut entry.transport else { return };
        environment.insert("KEY".to_owned(), read);
    });
    until_health(&place, is_up).await;
    std::fs::remove_file(&key).unwrap();
    assert_eq!(told(call(&place.upstreams, 1).await), (Reason::CredentialUnavailable, false));
    assert!(is_up(&place.upstreams.health()[0].1), "the gateway's own process lives");
    std::fs::write(&key, "a-key-of-the-server").unwrap();
    assert_eq!(completed(call(&place.upstreams, 2).await), json!({ "ok": true }));
    assert_eq!(completed(call(&place.upstreams, 1).await), json!({ "ok": true }));
    // Whatever took it down: that its own process answers is enough for it to be up again.
    place.upstreams.server(&id()).unwrap().link.unreachable("for a moment".to_owned());
    assert_eq!(told(call(&place.upstreams, 1).await), (Reason::UpstreamUnreachable, false));
    until_health(&place, is_up).await;
    assert_eq!(completed(call(&place.upstreams, 1).await), json!({ "ok": true }));
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn dropping_an_exchange_tells_the_process() {
    let cases = format!(
        r#"{MODERN} *'"slow":true'*) slow=$id;;
        *notifications/cancelled*) cancelled=${{line#*requestId\":}}; cancelled=${{cancelled%%,*}};;
        *tools/call*) answer "{{\"slow\":$slow,\"cancelled\":$cancelled}}";;"#
    );
    let place = serve(&script(&cases), |_| {});
    let mut exchange = place.upstreams.send(dispatch(1, tool_call("t", json!({ "slow": true }))));
    assert!(tokio::time::timeout(Duration::from_millis(1_500), exchange.next()).await.is_err());
    drop(exchange);
    let result = completed(call(&place.upstreams, 1).await);
    assert!(result["slow"].is_i64(), "{result}");
    assert_eq!(result["slow"], result["cancelled"]);
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_legacy_process_may_ask_and_say_that_a_list_changed() {
    let cases = format!(
        r#"{LEGACY} *'"id":"q","error":{{"code":-32601'*) asked=1;;
        *'"id":"p","result":{{}}'*) pinged=1; id=$call; answer "{{\"asked\":$asked,\"pinged\":$pinged}}";;
        *tools/call*) call=$id; say '{{"jsonrpc":"2.0","id":"q","method":"roots/list"}}'
            say '{{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}}'
            say '{{"jsonrpc":"2.0","id":"p","method":"ping"}}';;"#
    );
    let place = serve(&script(&cases), |_| {});
    let mut changes = place.upstreams.changes();
    assert_eq!(completed(call(&place.upstreams, 1).await), json!({ "asked": 1, "pinged": 1 }));
    next_change(&mut changes, &Change::Listed(id(), Kind::Tool)).await;
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_stubborn_process_and_its_daemon_are_gone_after_a_shutdown() {
    let cases = format!(r#"{LEGACY} *tools/call*) answer "{{\"pid\":$$}}";;"#);
    let stubborn = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > $PLACE/daemon; while :; do sleep 1; done' & {}\n while :; do sleep 1; done",
        script(&cases)
    );
    let place = serve(&stubborn, |entry| entry.isolation = Isolation::Shared);
    let process = i32::try_from(completed(call(&place.upstreams, 1).await)["pid"].as_i64().unwrap()).unwrap();
    let daemon = number_in(&place.file("daemon")).await;
    assert!(alive(process) && alive(daemon));
    place.upstreams.shutdown().await;
    assert!(!alive(process) && !alive(daemon), "a shutdown waits until nothing is left");
}

#[tokio::test]
async fn nothing_lives_two_seconds_after_the_gateway_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let inner = "trap '' TERM; setsid sh -c 'trap \"\" TERM HUP; echo $$ > daemon; exec sleep 1000' & echo $$ > child; while :; do sleep 1; done";
    let mut gateway = tokio::process::Command::new("/bin/sh")
        .args(["-c", "\"$@\" & wait", "gateway"])
        .arg(std::env::current_exe().unwrap())
        .args(supervisor_words())
        .args(["/bin/sh", "-c", inner])
        .current_dir(directory.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let child = number_in(&directory.path().join("child")).await;
    let daemon = number_in(&directory.path().join("daemon")).await;
    assert!(alive(child) && alive(daemon));
    let id = Pid::from_raw(i32::try_from(gateway.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    gateway.wait().await.unwrap();
    assert!(gone(child, Duration::from_secs(2)).await, "the child lives");
    assert!(gone(daemon, Duration::from_millis(200)).await, "the daemon lives");
}

#[tokio::test]
async fn the_supervisor_ends_as_its_command_does() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("setsid sleep 1000 & exit 3", 3)] {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(supervisor_words())
            .args(["/bin/sh", "-c", script])
            .output();
        let output = tokio::time::timeout(Duration::from_secs(10), output).await.expect("it hangs").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let wanted = format!("{:?}", std::process::ExitCode::from(code));
        assert!(said.contains(&format!("ended with {wanted}")), "{script}: {said}");
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_loses_notifications_and_never_the_end() {
    let cases = format!(
        r#"{MODERN} *tools/call*) n=0; while [ $n -lt 300 ]; do n=$((n+1))
            say '{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":1}}}}'; done
            answer '{{"ok":true}}';;"#
    );
    let place = serve(&script(&cases), |_| {});
    let mut exchange = place.upstreams.send(dispatch(1, tool_call("t", json!({}))));
    assert!(matches!(exchange.next().await, Event::Notification(_)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (notifications, outcome) = ending(exchange).await;
    assert_eq!(completed(outcome), json!({ "ok": true }));
    // One channel of the process, one of the exchange, and what was read or handed over meanwhile.
    assert!(notifications.len() <= 2 * crate::limit::EXCHANGE_EVENTS_MAX + 4, "{}", notifications.len());
    assert_eq!(place.upstreams.dropped()[0].1.notifications, 299 - notifications.len() as u64);
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_process_that_ends_right_after_each_start_is_not_started_over_and_over() {
    let cases = format!(
        r#"{LEGACY} *'"n":2'*) answer '{{"ok":true}}';;
        *tools/call*) echo x >> $PLACE/calls; exit 0;;"#
    );
    let place = serve(&script(&cases), |_| {});
    let mut unreachable = 0;
    for _ in 0..10 {
        let failure = failed(call(&place.upstreams, 1).await);
        unreachable += usize::from(failure.reason == Reason::UpstreamUnreachable);
    }
    let calls = std::fs::read_to_string(place.file("calls")).unwrap().lines().count();
    assert!((1..10).contains(&calls) && unreachable == 10 - calls, "{calls} calls, {unreachable} unreachable");
    let other = outcome(place.upstreams.send(dispatch(2, tool_call("t", json!({ "n": 2 }))))).await;
    assert_eq!(completed(other), json!({ "ok": true }), "whoever ends only their own process waits alone");
    place.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_starts_nothing_and_a_credential_for_a_process_is_refused() {
    let place = serve(&script(LEGACY), |entry| {
        let TransportConfig::Stdio { environment, .. } = &mut entry.transport else { return };
        environment.insert("KEY".to_owned(), SecretReference::File("/nowhere/at/all".into()));
    });
    assert_eq!(told(call(&place.upstreams, 1).await), (Reason::CredentialUnavailable, false));
    place.upstreams.shutdown().await;
    let place = serve(&script(LEGACY), |_| {});
    let credential = Some(CredentialHeader::new(http::header::AUTHORIZATION, "Bearer x".to_owned().into()));
    let exchange = place.upstreams.send(Dispatch { credential, ..dispatch(1, tool_call("t", json!({}))) });
    assert_eq!(told(outcome(exchange).await), (Reason::CredentialUnavailable, false));
    place.upstreams.shutdown().await;
}

#[test]
fn what_a_killed_gateway_left_behind_is_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let launcher = launcher(directory.path());
    launcher.clear();
    std::fs::create_dir_all(launcher.directory.join("s-1/deep")).unwrap();
    launcher.clear();
    assert!(!launcher.directory.exists());
}

/// A launcher whose supervisor says this, whatever it is asked.
fn saying(directory: &Path, says: &str) -> Launcher {
    let mut launcher = launcher(directory);
    launcher.program = PathBuf::from("/bin/sh");
    launcher.arguments = ["-c", says].map(str::to_owned).to_vec();
    launcher
}

#[tokio::test]
async fn a_process_that_this_host_cannot_confine_is_not_started_and_the_reason_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let says = r#"touch started; echo '{"landlock":0,"filter":true,"namespaces":true}'"#;
    let mut entry = entry_of(&script(LEGACY), directory.path());
    let TransportConfig::Stdio { process, .. } = &mut entry.transport else { return };
    process.sandbox = Sandbox::Required(Reach::default());
    let upstreams = Upstreams::launching(&config(vec![entry]), Ok(saying(directory.path(), says)));
    let Outcome::Failed(failure) = call(&upstreams, 1).await else { panic!("it was started") };
    assert!(failure.detail.contains("cannot confine its process"), "{failure:?}");
    assert!(failure.detail.contains("sandbox = \"none\""), "{failure:?}");
    assert!(!directory.path().join("children").exists(), "nothing was prepared either");
}

#[tokio::test]
async fn a_probe_that_does_not_end_is_given_up_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let problem = Host::probe(&saying(directory.path(), "exec sleep 60")).await.unwrap_err();
    assert!(problem.contains("no answer") && began.elapsed() >= crate::limit::SANDBOX_PROBE_TIMEOUT, "{problem}");
    let problem = Host::probe(&saying(directory.path(), "exit 3")).await.unwrap_err();
    assert!(problem.contains("exit status: 3"), "{problem}");
}
