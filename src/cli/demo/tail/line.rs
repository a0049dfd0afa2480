//! A record of the journal as one short line.
//!
//! Decides which records have one, and nothing about calls. Invariant: what came from outside is shown as text only, and
//! no line is wider than a terminal.

use serde_json::Value;

use crate::cli::output::{BAD, GOOD, QUIET, WARNING};

/// The widest line, with the time before it and what the show writes before that.
const COLUMNS: usize = 100;
/// What stands before a line: two blanks and `journal`, and the time.
const BEFORE: usize = 19;
/// Digits of a digest that tell it from others.
const DIGITS: usize = 12;

/// The line, where the record has one; an intent is told with its result.
pub(super) fn line(record: &Value, intent: Option<&Value>) -> Option<String> {
    let text = |path: &str| text(record, path).unwrap_or_default();
    let subject = || text("/subject/id").trim_start_matches("user:").to_owned();
    let object = |at: &str| format!("{}/{}", text(&format!("{at}/server")), text(&format!("{at}/name")));
    let words = |path: &str| -> Vec<&str> {
        record.pointer(path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let (style, head, rest) = match record["type"].as_str()? {
        "result" | "refusal" | "failure" => return Some(call(record, intent)),
        kind @ ("reload" | "start" | "stop") => (QUIET, kind.to_owned(), String::new()),
        "approval" => {
            let event = text("/approval/event");
            let style = match event.as_str() {
                // Whoever looks at a request is on the record, and no news.
                "viewed" => return None,
                "approved" | "consumed" | "confirmed" => GOOD,
                "requested" => WARNING,
                _ => BAD,
            };
            let gates = words("/approval/gates");
            let requester = || text("/approval/requester").trim_start_matches("user:").to_owned();
            let who = Some(subject()).filter(|subject| !subject.is_empty()).unwrap_or_else(requester);
            (style, format!("approval {event}"), format!("{who} {} gate {}", object("/approval"), gates.join(" ")))
        }
        "mandate" => {
            let (event, id, template) = (text("/mandate/event"), text("/mandate/id"), text("/mandate/template"));
            let actor = text("/mandate/actor").trim_start_matches("user:").to_owned();
            (GOOD, format!("mandate {event}"), format!("{actor} {template} {id}"))
        }
        "revocation" => {
            let lifted = record.pointer("/revocation/lifted").and_then(Value::as_bool) == Some(true);
            let what = if lifted { "lifted" } else { "revoked" };
            let (actor, target) = (text("/revocation/actor"), text("/revocation/target"));
            (BAD, what.to_owned(), format!("{target} {} by {actor}", text("/revocation/value")))
        }
        "pin" => {
            let state = text("/pin/state");
            let style = if state == "accepted" { GOOD } else { BAD };
            let flags = words("/pin/flags");
            let flags = if flags.is_empty() { String::new() } else { format!(" flags: {}", flags.join(" ")) };
            let digest: String = text("/pin/digest").chars().take(DIGITS).collect();
            (style, format!("pin {state}"), format!("{} {digest}{flags}", object("/pin")))
        }
        // What was allowed is told by what it did.
        "admin" if text("/admin/outcome") == "refused" => {
            let actor = text("/admin/actor").trim_start_matches("user:").to_owned();
            (BAD, "admin refused".to_owned(), format!("{actor} {} {}", text("/admin/object"), text("/admin/reason")))
        }
        _ => return None,
    };
    let rest: String = plain(&rest).chars().take(COLUMNS - BEFORE - 19).collect();
    Some(format!("{QUIET}{}{QUIET:#} {style}{head:<18}{style:#} {}\n", time(record), rest.trim_end()))
}

/// The end of a call.
fn call(record: &Value, intent: Option<&Value>) -> String {
    let told = intent.unwrap_or(record);
    let fact = |path: &str| text(record, path).or_else(|| text(told, path));
    let subject =
        fact("/subject/user").or_else(|| fact("/subject/id")).or_else(|| fact("/agent/id")).unwrap_or_default();
    let object = match (fact("/mcp/server"), fact("/mcp/name")) {
        (Some(server), Some(name)) => format!("{server}/{name}"),
        (_, name) => name.or_else(|| fact("/mcp/method")).unwrap_or_default(),
    };
    let cut = fact("/result/reason").is_some() && fact("/result/outcome").as_deref() == Some("unknown");
    let (style, effect) = match record["type"].as_str() {
        Some("refusal") => (BAD, "deny"),
        Some("failure") => (WARNING, "fail"),
        // It went out, and its answer was not waited for.
        _ if cut => (BAD, "cut"),
        _ if fact("/result/reason").is_some() => (WARNING, "fail"),
        _ => (GOOD, "allow"),
    };
    let reason = fact("/reason").or_else(|| fact("/decision/reason")).or_else(|| fact("/result/reason"));
    let latency = record.pointer("/result/latency_us").and_then(Value::as_u64);
    let outcome = reason.or_else(|| latency.map(|latency_us| format!("{} ms", latency_us / 1000))).unwrap_or_default();
    let rule = fact("/rule").or_else(|| fact("/decision/rule")).unwrap_or_default();
    let subject = subject.trim_start_matches("user:").to_owned();
    let outcome = outcome + seen(told).as_str();
    let line = format!("{effect:<6}{subject:<11} {object:<18} {outcome:<15} {rule}");
    let line: String = plain(line.trim_end()).chars().take(COLUMNS - BEFORE).collect();
    let (effect, rest) = line.split_at_checked(6).unwrap_or((&line, ""));
    format!("{QUIET}{}{QUIET:#} {style}{effect}{style:#}{rest}\n", time(record))
}

/// What the caller has seen with this call and had not before; that of the house itself is no news.
fn seen(intent: &Value) -> String {
    let labels = |path: &str| intent.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let is_known = |label: &Value| label == "internal" || labels("/labels/before").any(|before| before == label);
    let new = labels("/labels/after").filter(|label| !is_known(label));
    new.filter_map(Value::as_str).map(|label| format!(" +{label}")).collect()
}

fn text(record: &Value, path: &str) -> Option<String> {
    record.pointer(path).and_then(Value::as_str).map(str::to_owned)
}

fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn time(record: &Value) -> String {
    let at = record["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    at.map(|at| jiff::tz::TimeZone::system().to_datetime(at).strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(record: &Value, intent: Option<&Value>) -> Option<String> {
        line(record, intent).map(|line| anstream::adapter::strip_str(&line).to_string())
    }

    #[test]
    fn what_came_from_outside_is_text_and_has_an_end() {
        let long = "x".repeat(300);
        let name = format!("a\u{1b}[2J\n{long}");
        for record in [
            json!({ "type": "refusal", "mcp": { "server": "s", "name": name }, "reason": "not_allowed" }),
            json!({ "type": "pin", "pin": { "server": "s", "name": name, "state": "quarantined", "flags": [long] } }),
            json!({ "type": "approval", "approval": { "server": "s", "name": name, "event": "requested" } }),
            json!({ "type": "revocation", "revocation": { "target": "subject", "value": name, "actor": "host:0" } }),
        ] {
            let shown = shown(&record, None).unwrap();
            assert!(!shown.trim_end().contains(char::is_control), "{shown:?}");
            assert!(shown.trim_end().chars().count() <= COLUMNS - BEFORE + 9, "{shown}");
        }
    }

    #[test]
    fn what_was_seen_for_the_first_time_stands_at_its_call() {
        let intent = json!({ "labels": { "before": ["untrusted"], "after": ["untrusted", "internal", "private"] } });
        let result = json!({ "type": "result", "mcp": { "name": "read" } });
        let shown = shown(&result, Some(&intent)).unwrap();
        assert!(shown.contains("+private") && !shown.contains("internal") && !shown.contains("untrusted"), "{shown}");
    }

    #[test]
    fn a_call_that_was_cut_off_is_none_that_was_allowed() {
        let of = |result: Value| shown(&json!({ "type": "result", "result": result }), None).unwrap();
        let cut = of(json!({ "outcome": "unknown", "reason": "mandate_ended", "latency_us": 33_050 }));
        assert!(cut.contains("cut") && cut.contains("mandate_ended"), "{cut}");
        let failed = of(json!({ "outcome": "failed", "reason": "upstream_timeout", "latency_us": 1 }));
        assert!(failed.contains("fail") && failed.contains("upstream_timeout"), "{failed}");
        assert!(of(json!({ "outcome": "complete", "latency_us": 3_000 })).contains("allow"));
    }

    #[test]
    fn what_is_no_news_has_no_line() {
        for record in [
            json!({ "type": "list" }),
            json!({ "type": "intent" }),
            json!({ "type": "approval", "approval": { "event": "viewed" } }),
            json!({ "type": "admin", "admin": { "outcome": "begun" } }),
        ] {
            assert_eq!(shown(&record, None), None);
        }
    }
}
