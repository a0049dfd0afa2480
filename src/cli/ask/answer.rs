//! How the answers of the policy read on a terminal.

use std::fmt::Write as _;

use crate::cli::output::{BAD, GOOD, QUIET, STRONG, WARNING};
use crate::gateway::ask::{ToldRule, WhatCanAnswer, WhoCanAnswer};
use crate::guard::approval::escaped as safe;
use crate::policy::{Asker, Explanation, RuleExplanation, SubjectExplanation};

/// Everything is written into a string, which cannot fail.
macro_rules! line {
    ($text:expr, $($what:tt)*) => { let _infallible = writeln!($text, $($what)*); };
}

/// Whether a call would be allowed, and what decided.
pub fn explanation(explanation: &Explanation) -> String {
    let mut text = String::new();
    let (style, word) = if explanation.allowed { (GOOD, "allowed") } else { (BAD, "refused") };
    let reason = explanation.reason.map(|reason| format!("  {STRONG}{reason}{STRONG:#}")).unwrap_or_default();
    line!(text, "{style}{word}{style:#}  {}{reason}", explanation.question);
    if let Some(hint) = &explanation.hint {
        line!(text, "  {}", safe(hint));
    }
    if let Some(caller) = &explanation.caller {
        asker(&mut text, caller);
    }
    if !explanation.allowed && !explanation.visible {
        line!(
            text,
            "  {QUIET}its lists do not show it, and a call gets the answer of a name that does not exist{QUIET:#}"
        );
    }
    if !explanation.scopes_needed.is_empty() {
        line!(text, "  scopes needed: {}", explanation.scopes_needed.join(" "));
    }
    for told in &explanation.subjects {
        subject(&mut text, told);
    }
    for gate in &explanation.gates {
        line!(text, "\n{STRONG}gate{STRONG:#} {gate}");
    }
    for flow in &explanation.flows {
        line!(text, "\n{STRONG}flow{STRONG:#} {flow}");
    }
    if !explanation.near_misses.is_empty() {
        line!(text, "\n{QUIET}it is allowed to others:{QUIET:#}");
        for near in &explanation.near_misses {
            line!(text, "  {QUIET}{near}{QUIET:#}");
        }
    }
    text
}

/// Whose the token is; what it says of itself may be anything.
fn asker(text: &mut String, caller: &Asker) {
    let mut told = |what: &str, says: String| {
        line!(text, "  {QUIET}{what:<7}{QUIET:#} {}", safe(&says));
    };
    let user = caller.user.as_deref().unwrap_or("nobody");
    told("token", format!("{user}, vouched for by `{}`; behind it: {}", caller.issuer, caller.behind));
    let agents: Vec<String> = caller.agent.iter().chain(&caller.chain).map(|agent| format!("agent:{agent}")).collect();
    told("agents", if agents.is_empty() { "none".to_owned() } else { agents.join(", ") });
    told("client", format!("{} ({})", caller.client.as_deref().unwrap_or("none"), caller.client_proof));
    told("scopes", if caller.scopes.is_empty() { "none".to_owned() } else { caller.scopes.join(" ") });
    told("groups", caller.groups.as_ref().map_or_else(|| "not known".to_owned(), |groups| groups.join(" ")));
    if let Some(at) = caller.expires_at {
        told("until", at.to_string());
    }
    for needed in &caller.comes_with {
        told("with", format!("its {needed}, which its holder has to show"));
    }
}

fn subject(text: &mut String, told: &SubjectExplanation) {
    let (style, word) = if told.allowed { (GOOD, "allowed") } else { (BAD, "not allowed") };
    line!(text, "\n{STRONG}{}{STRONG:#}  {style}{word}{style:#}", told.subject);
    if told.rules.is_empty() {
        line!(text, "  no rule for it means this");
    }
    for told in &told.rules {
        rule(text, told);
    }
}

fn rule(text: &mut String, told: &RuleExplanation) {
    let mark = if told.applies { "*" } else { "-" };
    line!(text, "  {mark} {}  {QUIET}{}{QUIET:#}", told.sentence, told.place);
    if let (Some(condition), Some(sentence)) = (&told.condition, &told.condition_sentence) {
        line!(text, "      {}: {sentence}: {WARNING}{}{WARNING:#}", condition.name, condition.as_allow);
        for (what, value) in &condition.read {
            line!(text, "        {what} = {value}");
        }
    }
}

/// Who may do something.
pub fn who_can(answer: &WhoCanAnswer) -> String {
    let mut text = String::new();
    let WhoCanAnswer { question: object, who: found } = answer;
    if found.is_empty() {
        line!(text, "{BAD}nobody{BAD:#} may {object}");
        return text;
    }
    line!(text, "{STRONG}{object}{STRONG:#}  {QUIET}a person and their agent must both be here{QUIET:#}");
    for who in found {
        let depends = if who.depends { format!("  {WARNING}depends on conditions{WARNING:#}") } else { String::new() };
        line!(text, "\n{GOOD}{}{GOOD:#}{depends}", who.subject);
        for rule in &who.rules {
            line!(text, "  {rule}");
        }
    }
    text
}

/// What somebody may do.
pub fn what_can(answer: &WhatCanAnswer) -> String {
    let mut text = String::new();
    let WhatCanAnswer { subject, rules } = answer;
    if rules.is_empty() {
        line!(text, "no rule speaks about {subject}: nothing is allowed");
    }
    for rule in rules {
        let ToldRule { place, effect, sentence } = rule;
        let style = if effect == "allow" { GOOD } else { BAD };
        line!(text, "{style}{effect:5}{style:#}  {sentence}  {QUIET}{place}{QUIET:#}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cli::files::{Files, Understood};
    use crate::cli::who::Who;
    use crate::gateway::ask::{self, WhatCanAnswer, subject};
    use crate::ids::Action;
    use crate::policy::Arguments;

    fn demo() -> Understood {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers.toml");
        Files { config }.as_demo().unwrap()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn an_explanation_names_the_rules_and_what_they_read() {
        let understood = demo();
        let group = subject("group:demo/developers").unwrap();
        let who = Who {
            subject: Some(subject("user:demo/alice").unwrap()),
            groups: vec![group],
            agent: None,
            scopes: Vec::new(),
            client_proof: None,
            actors: Vec::new(),
        };
        let persona = who.persona(understood.config()).unwrap();
        for (name, server, tool, arguments) in [
            ("allowed", "deploy", "rollout", r#"{"service":"search","replicas":3,"region":"eu-west"}"#),
            ("too-many", "deploy", "rollout", r#"{"service":"search","replicas":50,"region":"eu-west"}"#),
            ("frozen", "deploy", "rollout", r#"{"service":"checkout","replicas":3,"region":"eu-west"}"#),
            ("hidden", "notes", "delete_note", r#"{"id":1}"#),
        ] {
            let ask = understood.policy.ask_about(server, tool, &Action::Call).unwrap();
            let at = "2026-11-23T10:00:00Z".parse().unwrap();
            let explained = understood.policy.explain(&persona, &ask, Arguments::Json(arguments), at);
            insta::assert_snapshot!(format!("explain-{name}"), plain(&super::explanation(&explained)));
        }
    }

    #[test]
    fn who_can_and_what_can_name_the_rules() {
        let understood = demo();
        let found = ask::who_can(&understood.policy, "deploy/rollout", "call").unwrap();
        insta::assert_snapshot!("who-can", plain(&super::who_can(&found)));
        let auditors = ask::what_can(&understood.policy, &subject("group:demo/auditors").unwrap());
        insta::assert_snapshot!("what-can", plain(&super::what_can(&auditors)));
        let nobody = WhatCanAnswer { subject: "user:demo/nobody".to_owned(), rules: Vec::new() };
        assert!(super::what_can(&nobody).contains("nothing is allowed"));
    }
}
