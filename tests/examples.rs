//! Every configuration in the repository can be loaded, so that none of them teaches something that is refused.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that stumbles shall fail, and says what it does not test"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bailiwick::config::{FileSet, Mistake, Overrides};
use bailiwick::gateway::understand::{Understood, understand};

#[path = "examples/kubernetes.rs"]
mod kubernetes;
#[path = "examples/promql.rs"]
mod promql;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &std::path::Path, overrides: Overrides) -> Result<Understood, Vec<Mistake>> {
    let today = Some(jiff::civil::date(2026, 11, 30));
    understand(FileSet::read(path)?, &Overrides { today, ..overrides })
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Every `servers.toml`: the repository's and the examples'.
fn configurations() -> Vec<PathBuf> {
    let mut found = vec![root().join("servers.toml")];
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        // What it takes to run any of them is no configuration.
        if path.is_dir() && !path.ends_with("deploy") {
            let file = path.join("servers.toml");
            assert!(file.is_file(), "{} has no servers.toml", path.display());
            found.push(file);
        }
    }
    assert!(found.len() > 4, "{found:?}");
    found
}

#[test]
fn every_configuration_can_be_served_or_run_as_a_demo() {
    for path in configurations() {
        let demo = std::fs::read_to_string(&path).unwrap().contains(":demo/");
        let overrides = if demo { Overrides::for_demo().unwrap() } else { Overrides::default() };
        let understood = read(&path, overrides).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)));
        assert_eq!(lines(&understood.warnings), "", "{}", path.display());
        let report = understood.policy.run_tests();
        assert!(report.failed.is_empty(), "{}: {report:?}", path.display());
        assert!(report.passed > 1 && report.untested_servers.len() <= 1, "{}: {report:?}", path.display());
        if demo {
            // A demo's files open nothing in production: `serve` refuses them, because nobody can log in.
            let refused = lines(&read(&path, Overrides::default()).unwrap_err());
            assert!(refused.contains("issuer `demo` is not declared"), "{refused}");
        }
    }
}

/// Says what is not tested on this machine; in CI it has to be.
fn untested(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "not tested: {what}");
    eprintln!("not tested: {what}");
}

/// Runs the real command in the repository's root: exit code, standard output, standard error.
fn bailiwick(words: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(words)
        .current_dir(root())
        .env_remove("BAILIWICK_CONFIG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_ends_with_0_for_good_files_and_with_1_and_all_mistakes_for_others() {
    let (code, stdout, stderr) = bailiwick(&["check", "--demo"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("no mistakes"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "colour is for terminals");

    let (code, stdout, stderr) = bailiwick(&["check"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("servers.toml:") && stderr.contains("policies/agents.toml:"), "{stderr}");
    assert!(stderr.contains("bailiwick check --demo"), "{stderr}");

    let (code, stdout, _) = bailiwick(&["check", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, answer["ok"].as_bool()), (Some(1), Some(false)));
    let mistake = &answer["mistakes"][0];
    assert!(mistake["line"].is_u64() && mistake["message"].is_string(), "{mistake}");
}

#[test]
fn a_question_asked_wrongly_ends_with_2() {
    for words in [&["chek"][..], &["connect"], &["connect", "cursor", "--server", "nots"], &["check", "--confg", "x"]] {
        let (code, stdout, stderr) = bailiwick(words);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(!stderr.is_empty(), "{words:?}");
    }
    let (code, stdout, _) = bailiwick(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("Exit codes:"), "{stdout}");
}

#[test]
fn connect_takes_the_endpoint_from_the_files() {
    let (code, stdout, _) = bailiwick(&["connect", "claude-code", "--server", "notes"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("claude mcp add --transport http bailiwick http://127.0.0.1:7800/mcp/notes"), "{stdout}");
    let config = "examples/enterprise/servers.toml";
    let (code, stdout, _) = bailiwick(&["connect", "vscode", "--json", "-c", config]);
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, answer["url"].as_str()), (Some(0), Some("https://mcp.example.com/mcp")));
}

#[test]
fn every_rule_of_the_demo_is_decided_by_a_test() {
    let (code, stdout, stderr) = bailiwick(&["check", "--demo", "--coverage", "--strict"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let (code, _, stderr) = bailiwick(&["check", "--coverage", "-c", "examples/enterprise/servers.toml"]);
    assert_eq!(code, Some(1), "the enterprise's tests leave rules out, and coverage says so");
    assert!(stderr.contains("policy.csv:") && stderr.contains("no test decides by it"), "{stderr}");
}

#[test]
fn explain_ends_with_1_when_the_answer_is_no() {
    let alice = ["--as", "user:demo/alice", "--group", "group:demo/developers"];
    let ask = |object: &str, more: &[&str]| bailiwick(&[&["explain", object][..], &alice, more].concat());
    let (code, stdout, stderr) = ask("notes/add_note", &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let (code, stdout, _) = ask("deploy/rollout", &["--arguments", r#"{"service": "search", "replicas": 50}"#]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("condition_unmet") && stdout.contains("replicas = 50"), "{stdout}");
    let (code, _, stderr) = ask("nots/add_note", &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("no server `nots`"), "{stderr}");
}

/// The keys in the first column of the tables below a heading of docs/configuration.md.
fn documented(heading: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(key, _)| key.to_owned()).collect()
}

/// The keys that a file of the policy room reads: `take("key")`, `text("key")`, and the tables of `("key", ...)`.
fn read_by(file: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("src/policy").join(file)).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let is_key = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let mut keys = BTreeSet::new();
    for (at, _) in source.match_indices("(\"") {
        let (before, after) = (source.get(..at).unwrap(), source.get(at + 2..).unwrap());
        let (key, rest) = after.split_once('"').unwrap();
        let taken = ["take", "text", "texts"].iter().any(|name| before.ends_with(name)) && rest.starts_with(')');
        let listed = before.ends_with([' ', '[', '\n']) && rest.starts_with(", ");
        if is_key(key) && (taken || listed) {
            keys.insert(key.to_owned());
        }
    }
    keys
}

#[test]
fn the_page_has_every_key_of_conditions_and_expected_decisions_and_no_other() {
    let mut conditions = read_by("condition/parse.rs");
    conditions.extend(read_by("condition/values.rs"));
    // These two are read in a loop.
    conditions.extend(["all", "any"].map(str::to_owned));
    assert_eq!(documented("`policies/conditions.toml`"), conditions);
    assert_eq!(documented("`policies/tests.toml`"), read_by("expect.rs"));
}

/// The keys that `labels.toml` may have: those that are taken out of its tables, and the arms for its top level.
fn read_of_labels() -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("src/policy/label/parse.rs")).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let taken = ["take(\"", "(&mut table, \""].into_iter().flat_map(|before| source.split(before).skip(1));
    let mut keys: BTreeSet<String> = taken.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    let (_, arms) = source.split_once("match key.get_ref().as_ref() {").unwrap();
    let (arms, _) = arms.split_once("other =>").unwrap();
    for arm in arms.lines().filter_map(|line| line.trim_start().strip_prefix('"')?.split_once("\" =>")) {
        // Its lists of tables are written as people write them.
        let (name, rest) = arm;
        keys.insert(if rest.contains("each(") { format!("[[{name}]]") } else { name.to_owned() });
    }
    keys
}

#[test]
fn the_page_has_every_key_of_labels_and_no_other() {
    let read = read_of_labels();
    assert!(read.len() >= 16 && read.contains("[[flow]]") && read.contains("unless"), "{read:?}");
    assert_eq!(documented("`policies/labels.toml`"), read);
}

/// A file of `examples/deploy`.
fn deployed(name: &str) -> String {
    std::fs::read_to_string(root().join("examples/deploy").join(name)).unwrap()
}

/// The words of a text that a metric's or a reason's name may be.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[test]
fn alerts_and_dashboard_name_only_metrics_and_reasons_that_there_are() {
    let metrics = bailiwick::record::Metrics::new();
    metrics.refused(bailiwick::outcome::Reason::NotAllowed);
    let server = bailiwick::ids::ServerId::new("git").unwrap();
    metrics.upstream(&server, true);
    let server = bailiwick::record::ServerLabel(Some(server));
    metrics.ended(server, "tools/call", "complete", std::time::Duration::from_millis(1));
    let revoke = bailiwick::policy::AdminOperation::Revoke;
    metrics.administered(&bailiwick::record::event::AdminNote {
        operation: revoke.name(),
        object: revoke.object(),
        actor: "host:0",
        actor_kind: "host",
        brakes: true,
        client: None,
        outcome: "done",
        reason: None,
        rule: None,
        about: "",
        detail: "",
    });
    let pin = bailiwick::record::metrics::PinLabels { server: "git".to_owned(), state: "changed" };
    metrics.pins.get_or_create(&pin).inc();
    metrics.approval("break_glass_used");
    metrics.approval_waited("approved", std::time::Duration::from_secs(1));
    let known = metrics.encode();
    let reasons: BTreeSet<&str> = bailiwick::outcome::Reason::ALL.iter().map(|reason| reason.code()).collect();
    for file in ["alerts.yml", "dashboard.json"] {
        let text = deployed(file);
        let named: BTreeSet<&str> = words(&text).filter(|word| word.starts_with("bailiwick_")).collect();
        assert!(named.len() >= 5, "{file} names {named:?}");
        for metric in named {
            assert!(words(&known).any(|word| word == metric), "{file}: there is no metric {metric}");
        }
        for matched in text.split("operation=~").skip(1) {
            for operation in matched.split('"').nth(1).unwrap().split('|') {
                let known = bailiwick::policy::AdminOperation::named(operation);
                assert!(known.is_some(), "{file}: there is no operation {operation}");
            }
        }
        for matched in text.split("reason=").skip(1) {
            let list = matched.split('"').nth(1).unwrap().trim_end_matches('\\');
            for reason in list.split('|').filter(|reason| !reason.ends_with(".*")) {
                assert!(reasons.contains(reason), "{file}: there is no reason {reason}");
            }
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&deployed("dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 8);
    let exported = promql::exported(&known);
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    let drawn = expressions.len();
    collect(&serde_yaml_ng::from_str(&deployed("alerts.yml")).unwrap(), &mut expressions);
    assert!(drawn > 10 && expressions.len() > drawn + 10, "{expressions:?}");
    for expression in &expressions {
        promql::check(expression, &exported).unwrap_or_else(|problem| panic!("{expression}: {problem}"));
    }
    for wrong in [
        "increase(bailiwick_refusals_total[5m]",
        "increase(bailiwick_refusals_total)",
        "bailiwick_refusals_total[5m] > 0",
        "increase(bailiwick_refusals_total{event=\"x\"}[5m]) > 0",
        "sum by (outcome) (bailiwick_refusals_total)",
        "histogram_quantile(0.5, rate(bailiwick_refusals_total[5m]))",
        "rates(bailiwick_refusals_total[5m])",
        "bailiwick_refusals > 0",
        "increase(bailiwick_refusals_total[5x]) > 0",
        "increase(bailiwick_refusals_total[5m]) >",
    ] {
        assert!(promql::check(wrong, &exported).is_err(), "{wrong}");
    }
    // A label that no series has matches nothing, and nobody is ever told.
    let labels = |line: &str| -> BTreeSet<String> {
        let inside = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
        inside.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim_matches(is_no_name).to_owned())).collect()
    };
    let (alerts, mut matched) = (deployed("alerts.yml"), 0);
    for query in alerts.match_indices("bailiwick_").map(|(at, _)| alerts.get(at..).unwrap().lines().next().unwrap()) {
        let Some((name, _)) = query.split_once('{').filter(|(name, _)| !name.contains(is_no_name)) else { continue };
        let series = known.lines().find(|line| line.split('{').next() == Some(name)).unwrap();
        for label in labels(query) {
            matched += 1;
            assert!(labels(series).contains(&label), "{name} has no label {label}: {series}");
        }
    }
    assert!(matched > 10);
}

/// Every expression of a dashboard, or of rules.
fn collect(panel: &serde_json::Value, expressions: &mut Vec<String>) {
    match panel {
        serde_json::Value::Object(members) => {
            expressions.extend(members.get("expr").and_then(|text| text.as_str()).map(str::to_owned));
            members.values().for_each(|member| collect(member, expressions));
        }
        serde_json::Value::Array(elements) => elements.iter().for_each(|element| collect(element, expressions)),
        _ => {}
    }
}

fn is_no_name(letter: char) -> bool {
    !letter.is_ascii_alphanumeric() && letter != '_'
}

#[test]
fn what_is_worth_an_alert_has_a_rule_and_so_has_everything_that_is_done_on_the_machine() {
    let alerts = deployed("alerts.yml");
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = page.split("\n## Metrics worth an alert").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut rows = 0;
    for row in section.lines().filter(|line| line.starts_with("| `bailiwick_")) {
        let first = row.split('|').nth(1).unwrap();
        let metric = first.split('`').nth(1).unwrap();
        let metric = metric.split('{').next().unwrap();
        assert!(alerts.contains(metric), "{row}");
        // Each reason and each event that the page names is one that a rule looks for.
        for value in first.split("=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(words(&alerts).any(|word| word == value), "no rule looks for {value}: {row}");
        }
        rows += 1;
    }
    assert!(rows > 12);
    let on_the_machine = alerts.split("actor_kind=\"host\",operation=~\"").nth(1).unwrap();
    let named: Vec<&str> = on_the_machine.split('"').next().unwrap().split('|').collect();
    for operation in bailiwick::policy::AdminOperation::ALL {
        let looks = operation.weight() == bailiwick::policy::Weight::Look;
        assert_eq!(named.contains(&operation.name()), !looks, "{}", operation.name());
    }
    let Ok(checked) = std::process::Command::new("promtool")
        .args(["check", "rules"])
        .arg(root().join("examples/deploy/alerts.yml"))
        .output()
    else {
        eprintln!("not tested: that Prometheus reads the rules, because there is no promtool on this machine");
        return;
    };
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn the_systemd_unit_starts_what_there_is_and_is_one_that_systemd_reads() {
    let unit = deployed("bailiwick.service");
    for line in unit.lines().filter(|line| line.starts_with("Exec")) {
        let words: Vec<&str> = line.split_once('=').unwrap().1.split(' ').skip(1).collect();
        let (code, help, _) = bailiwick(&[words[0], "--help"]);
        assert!(code == Some(0) && help.contains(words[1]), "{line}");
    }
    let Ok(verified) = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(root().join("examples/deploy/bailiwick.service"))
        .output()
    else {
        untested("the systemd unit: there is no systemd-analyze on this machine");
        return;
    };
    let said = String::from_utf8(verified.stderr).unwrap();
    // That the program is not installed here is no mistake in the unit.
    let mistakes: Vec<&str> =
        said.lines().filter(|line| line.contains("bailiwick.service") && !line.contains("is not executable")).collect();
    assert!(mistakes.is_empty(), "{mistakes:?}");
}

/// Every file of `src`, tests of their own and what follows `#[cfg(test)]` left out.
fn compiled(directory: &std::path::Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            compiled(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let source = std::fs::read_to_string(&path).unwrap();
            found.push((path, source.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()));
        }
    }
}

#[test]
fn a_new_volume_of_the_image_belongs_to_whom_the_gateway_runs_as() {
    let dockerfile = deployed("Dockerfile");
    let said = |word: &str| dockerfile.lines().find_map(|line| line.strip_prefix(word)).unwrap().to_owned();
    let (user, volume) = (said("USER "), said("VOLUME "));
    let volume = volume.trim_matches(|letter| "[\"]".contains(letter));
    let (before, _) = dockerfile.split_once("\nVOLUME ").unwrap();
    let owned =
        |line: &str| line.starts_with("COPY ") && line.ends_with(volume) && line.contains(&format!("--chown={user} "));
    assert!(before.lines().any(owned), "{volume} is root's, and the gateway refuses such a state directory");
}

#[test]
fn what_is_compiled_in_from_elsewhere_is_copied_into_the_image() {
    let dockerfile = deployed("Dockerfile");
    let copied: Vec<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")?.split(' ').next()).collect();
    let mut sources = Vec::new();
    compiled(&root().join("src"), &mut sources);
    let mut count = 0;
    for (path, source) in &sources {
        let places = ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|macro_| source.split(macro_).skip(1));
        for name in places.map(|rest| rest.split('"').next().unwrap()) {
            let included = path.parent().unwrap().join(name).canonicalize().unwrap();
            if included.starts_with(root().join("src")) {
                continue;
            }
            count += 1;
            let is_copied = copied.iter().any(|place| included.starts_with(root().join(place)));
            assert!(is_copied, "{}: {name} is not copied by examples/deploy/Dockerfile", path.display());
        }
    }
    assert!(count > 0, "nothing leads out of src any more");
}

#[test]
fn the_completions_of_each_shell_are_ones_that_it_reads_and_name_every_command() {
    let place = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let (code, script, stderr) = bailiwick(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{shell}");
        for command in ["serve", "revoke", "store", "audit", "break-glass"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        let file = place.path().join(shell);
        std::fs::write(&file, script).unwrap();
        match std::process::Command::new(shell).args(check).arg(&file).output() {
            Ok(read) => assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}"),
            Err(_) if shell == "bash" => untested("completions: there is no bash on this machine"),
            Err(_) => eprintln!("not tested: completions of {shell}, which is not on this machine"),
        }
    }
}

#[test]
fn every_manual_page_renders_without_a_complaint() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("man1");
    let (code, stdout, stderr) = bailiwick(&["man", directory.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let pages: Vec<&str> = stdout.lines().collect();
    assert!(pages.len() > 30 && pages.iter().any(|page| page.ends_with("/bailiwick-audit-verify.1")), "{pages:?}");
    let mut groff = std::process::Command::new("groff");
    let Ok(rendered) = groff.args(["-man", "-Tutf8", "-ww", "-z"]).args(&pages).output() else {
        untested("the manual pages: there is no groff on this machine");
        return;
    };
    assert!(rendered.status.success(), "{rendered:?}");
    assert_eq!(String::from_utf8_lossy(&rendered.stderr), "");
}
