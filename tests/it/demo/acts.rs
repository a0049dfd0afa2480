//! What the demo shows of governed calls: each act with the answer and with the line that proves it, and no word that the
//! answers do not bear out.

use std::net::TcpListener;
use std::path::Path;

use super::{files, out, ran};
use crate::support::free_address;

const APPROVAL: &str = "a second person: rolling search back in production";
const MANDATE: &str = "an agent on its own: a task that somebody ends while it runs";
const DEFINITION: &str = "a tool that changed its words: deploy/list_services";
const FLOW: &str = "what was read stays in the house: a note, and the public status page";

fn shown(directory: &Path) -> String {
    let output = ran(directory, &["demo", "--once", "--listen", &free_address().to_string()]);
    let shown = out(&output);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    shown
}

/// The rows of one act, with single blanks.
fn act(shown: &str, heading: &str) -> Vec<String> {
    let mut lines = shown.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no act {heading:?}: {shown}");
    let rows = lines.take_while(|line| !line.is_empty());
    rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// That these rows stand there in this order, whatever stands between them: how each begins, and what is in it.
fn in_order(rows: &[String], wanted: &[(&str, &[&str])]) {
    let mut left = rows.iter();
    for (begins, parts) in wanted {
        let is = |row: &String| row.starts_with(begins) && parts.iter().all(|part| row.contains(part));
        assert!(left.any(is), "no {begins} with {parts:?} in {rows:#?}");
    }
}

fn edit(directory: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = directory.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
}

#[test]
fn a_denial_an_approval_a_revocation_a_changed_tool_and_a_flow_are_seen_with_the_lines_that_prove_them() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let shown = shown(directory.path());
    assert!(!shown.contains("decide otherwise"), "{shown}");

    in_order(
        &act(&shown, "another service: the same for checkout"),
        &[("answer", &["denied_by_rule"]), ("journal", &["deny demo/alice deploy/rollout denied_by_rule"])],
    );

    let approval = act(&shown, APPROVAL);
    in_order(
        &approval,
        &[
            ("alice", &["deploy__rollback"]),
            ("answer", &["approval_required"]),
            ("journal", &["approval requested demo/alice deploy/rollback gate rollback"]),
            ("console", &["http://127.0.0.1:", "/admin/approvals/"]),
            ("answer", &["403", "not_allowed"]),
            ("journal", &["admin refused demo/alice bailiwick/approve not_allowed"]),
            ("answer", &["approved, by user:demo/carol"]),
            ("journal", &["approval approved demo/carol deploy/rollback"]),
            ("alice", &["deploy__rollback"]),
            ("answer", &[r#""release":74"#]),
            ("journal", &["approval consumed demo/alice deploy/rollback"]),
            ("journal", &["allow demo/alice deploy/rollback"]),
        ],
    );
    assert_eq!(approval.iter().filter(|row| row.contains(r#""release":74"#)).count(), 1, "{approval:#?}");

    let mandate = act(&shown, MANDATE);
    in_order(
        &mandate,
        &[
            ("answer", &["mandate_required"]),
            ("journal", &["deny demo/release-bot deploy/status mandate_required"]),
            ("bot", &["bailiwick__mandate_open"]),
            ("answer", &["a handle to call with"]),
            ("journal", &["mandate opened demo/release-bot release 01"]),
            ("answer", &[r#""release":301"#]),
            ("journal", &["allow demo/release-bot deploy/status"]),
            ("bot", &["deploy__rollout"]),
            ("you", &["bailiwick revoke mandate 01"]),
            ("answer", &["revoked"]),
            ("journal", &["revoked mandate 01"]),
            ("answer", &["mandate_ended"]),
            ("because", &["it gave the rollout up half way"]),
            ("journal", &["cut demo/release-bot deploy/rollout mandate_ended"]),
            ("answer", &["mandate_ended"]),
            ("journal", &["deny demo/release-bot", "mandate_ended"]),
        ],
    );
    let opened = mandate.iter().find(|row| row.contains("mandate opened")).unwrap().split(' ').next_back().unwrap();
    assert!(mandate.iter().any(|row| row.contains(&format!("revoked mandate {opened} by"))), "{mandate:#?}");

    in_order(
        &act(&shown, DEFINITION),
        &[
            ("journal", &["pin quarantined deploy/list_services", "flags: instructions"]),
            ("answer", &["deploy__list_services is not among them"]),
            ("alice", &["deploy__list_services {}"]),
            ("answer", &["Unknown tool"]),
            ("journal", &["deny demo/alice deploy/list_services definition_quarantined"]),
            ("answer", &["changed tool deploy/list_services"]),
        ],
    );

    in_order(
        &act(&shown, FLOW),
        &[
            ("answer", &["announcements on the status page: 1"]),
            ("journal", &["allow demo/alice deploy/announce"]),
            ("alice", &["notes__read_note"]),
            ("journal", &["allow demo/alice notes/read_note", "+untrusted +private"]),
            ("alice", &["deploy__announce"]),
            ("answer", &["flow_refused"]),
            ("because", &["announcements that the page has: 1"]),
            ("journal", &["deny demo/alice deploy/announce flow_refused labels.toml:"]),
        ],
    );
}

#[test]
fn where_the_files_decide_otherwise_the_acts_say_so_and_claim_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    for file in ["gates.toml", "labels.toml", "mandates.toml", "tests.toml"] {
        std::fs::remove_file(place.join("policies").join(file)).unwrap();
    }
    let without = |text: String, part: &str| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains(part)).collect();
        kept.join("\n") + "\n"
    };
    edit(place, "policies/policy.csv", |text| without(text, "bailiwick/mandate:"));
    edit(place, "servers.toml", |text| text.replace("pins = \"first_use\"", "pins = \"off\""));
    let shown = shown(place);
    for (heading, otherwise) in [(APPROVAL, 1), (MANDATE, 1), (DEFINITION, 2), (FLOW, 1)] {
        let rows = act(&shown, heading);
        let said = rows.iter().filter(|row| row.contains("decide otherwise")).count();
        assert_eq!(said, otherwise, "{rows:#?}");
    }
    for claim in ["second person; the", "carol signs", "half way", "no model reads", "go nowhere public", "quarantined"]
    {
        assert!(!shown.contains(claim), "{claim:?} in {shown}");
    }
    // What happened all the same is told with its line.
    in_order(&act(&shown, APPROVAL), &[("journal", &["allow demo/alice deploy/rollback"])]);
    in_order(&act(&shown, FLOW), &[("answer", &["announcements on the status page: 2"])]);
}

#[test]
fn whoever_may_approve_here_is_what_the_files_say() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    edit(place, "policies/gates.toml", |text| text.replace("group:demo/release-managers", "group:demo/auditors"));
    let rows = act(&shown(place), APPROVAL);
    in_order(&rows, &[("carol", &[]), ("answer", &["approver_refused"]), ("because", &["decide otherwise"])]);
    assert!(
        !rows.iter().any(|row| row.contains("approval approved") || row.contains("approval consumed")),
        "{rows:#?}"
    );
}

#[test]
fn a_console_whose_address_is_taken_is_somewhere_else_and_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    edit(place, "servers.toml", |text| text.replace("127.0.0.1:7820", &address));
    let shown = shown(place);
    assert!(shown.contains(&format!("because of {address}: ")) && shown.contains("under [admin]"), "{shown}");
    in_order(&act(&shown, APPROVAL), &[("answer", &["approved, by user:demo/carol"])]);
}

#[test]
fn without_a_console_the_show_goes_on_and_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    edit(place, "servers.toml", |text| {
        let (before, rest) = text.split_once("[admin]").unwrap();
        format!("{before}{}", &rest[rest.find("# Whose access tokens").unwrap()..])
    });
    let shown = shown(place);
    in_order(&act(&shown, APPROVAL), &[("journal", &["approval requested demo/alice"])]);
    assert!(shown.contains("Approving needs [admin]") && !shown.contains("approve it in the browser"), "{shown}");
    in_order(&act(&shown, FLOW), &[("answer", &["flow_refused"])]);
}
