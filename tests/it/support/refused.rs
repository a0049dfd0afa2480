//! What every refusal has in common: nothing went upstream, the answer says what to do, the record says why.

use serde_json::Value;

use super::client::Answer;
use super::gateway::Gateway;
use super::scripted::Scripted;

/// Stops the gateway, and fails unless each of these answers is a refusal for that reason which says what to do, stands
/// on the record as often as it was given, and left the upstream with no more than so many calls.
pub async fn came_to_nothing(gateway: &mut Gateway, (upstream, calls): (&Scripted, usize), refused: &[(&str, Answer)]) {
    for (reason, answer) in refused {
        let hint = said(answer, reason);
        let words = hint.split(' ').count();
        // One that is more exact than the page is nobody else's.
        let own = hint == documented(reason) || (words > 3 && !PAGE.contains(&format!("| {hint} |")));
        assert!(own, "{reason} says `{hint}`: {}", answer.text);
    }
    assert_eq!(upstream.calls().len(), calls, "what is refused goes nowhere");
    gateway.stop().await;
    let journal = gateway.journal();
    for (reason, _) in refused {
        let given = refused.iter().filter(|(other, _)| other == reason).count();
        assert!(recorded(&journal, reason) >= given, "{reason} is on the record less than {given} times: {journal:?}");
    }
}

const PAGE: &str = include_str!("../../../docs/reasons.md");

/// What docs/reasons.md says is to be done.
fn documented(reason: &str) -> &'static str {
    let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{reason}` |")));
    row.and_then(|row| row.split('|').nth(3)).unwrap_or_else(|| panic!("{reason} has no row")).trim()
}

/// What the answer says is to be done, as a JSON-RPC error or as a tool's.
fn said(answer: &Answer, reason: &str) -> String {
    let error = &answer.response()["error"];
    let text = if let Some(message) = error["message"].as_str() {
        assert_eq!(error["data"]["reason"], reason, "{}", answer.text);
        message
    } else {
        assert_eq!(answer.result()["_meta"]["dev.bailiwick/reason"], reason, "{}", answer.text);
        answer.tool_text()
    };
    text.strip_prefix(&format!("{reason}: ")).unwrap_or_else(|| panic!("no hint in {text}")).to_owned()
}

/// How often the record has it: one by one where somebody was known, counted together otherwise.
fn recorded(journal: &[Value], reason: &str) -> usize {
    let counted = journal.iter().filter(|line| line["noise"]["reason"] == reason);
    let counted: u64 = counted.map(|line| line["noise"]["count"].as_u64().unwrap()).sum();
    let single = journal.iter().filter(|line| line["decision"]["reason"] == reason).count();
    usize::try_from(counted).unwrap() + single
}
