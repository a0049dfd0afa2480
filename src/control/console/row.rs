//! One record as a row: when, what was decided, who, on what, why; opened, all of it.

use maud::{Markup, html};

use super::layout::pill;
use super::text::{shown, whole};
use crate::record::join::Seen;

/// What an administrator's look is called in the record; everything else is shown even where looks are hidden.
const LOOKS: [&str; 17] = [
    "pins",
    "status",
    "servers",
    "agents",
    "policy",
    "metrics",
    "shadow",
    "logs",
    "explain",
    "revocations",
    "vault",
    "credentials",
    "secrets",
    "reviews",
    "mandates",
    "approvals",
    "labels",
];

/// The row of a record; nothing for an intent, whose end makes one.
pub(super) fn row(seen: &Seen<'_>) -> Option<Markup> {
    if !seen.ends_something() {
        return None;
    }
    let record = &seen.record;
    let at = record.at.strftime("%H:%M:%S").to_string();
    let (kind, word) = match seen.effect() {
        Some("deny") => ("bad", "deny"),
        Some("fail") => ("warn", "fail"),
        Some(_) if record.admin.is_some() => ("quiet", "admin"),
        Some(word) => ("good", word),
        None => ("quiet", record.kind.as_str()),
    };
    let (who, what, why) = told(seen);
    let is_look =
        record.admin.as_ref().is_some_and(|admin| admin.outcome == "done" && LOOKS.contains(&admin.operation.as_str()));
    Some(html! {
        li data-look=[is_look.then_some("")] {
            details {
                summary {
                    time datetime=(record.at.to_string()) title=(record.at.to_string()) { (at) }
                    (pill(kind, word))
                    span.who { (shown(&who)) }
                    span.what { (shown(&what)) }
                    span.why { (shown(&why)) }
                }
                pre tabindex="0" {
                    @if let Some(intent) = &seen.intent { (whole(&pretty(&intent.raw))) "\n" }
                    (whole(&pretty(seen.raw)))
                }
            }
        }
    })
}

/// Who, what, and why or how it ended.
fn told(seen: &Seen<'_>) -> (String, String, String) {
    let record = &seen.record;
    if let Some(admin) = &record.admin {
        let what = join(&[&admin.operation, &admin.about]);
        return (
            admin.actor.clone(),
            what,
            join(&[&admin.outcome, admin.reason.as_deref().unwrap_or_default(), &admin.detail]),
        );
    }
    if let Some(revocation) = &record.revocation {
        let name = [&revocation.issuer, &revocation.value].into_iter().flatten().map(String::as_str);
        let what = format!("revocation of {} {}", revocation.target, name.collect::<Vec<_>>().join("/"));
        return (
            revocation.actor.clone(),
            what,
            join(&[&revocation.mode, &format!("epoch {}", revocation.epoch), &revocation.note]),
        );
    }
    if let Some(reload) = &record.reload {
        let rows = format!("rows +{} −{}", reload.added, reload.removed);
        return (
            reload.actor.clone(),
            "reload".to_owned(),
            join(&[&reload.outcome, reload.problem.as_deref().unwrap_or(&rows)]),
        );
    }
    let subject = seen.subject().map(|subject| subject.strip_prefix("user:").unwrap_or(subject)).unwrap_or_default();
    let who = match seen.agent() {
        Some(agent) => format!("{subject} · {agent}"),
        None => subject.to_owned(),
    };
    if let Some(noise) = &record.noise {
        let counted = format!("{} ×{}", noise.reason, noise.count);
        return match noise.source.as_str() {
            "" => (who, "no call".to_owned(), counted),
            source => (source.to_owned(), "not authenticated".to_owned(), counted),
        };
    }
    if let Some(executable) = &record.executable {
        return (
            executable.server.clone(),
            format!("runs {}", executable.path),
            executable.digest.chars().take(12).collect(),
        );
    }
    if let Some(pin) = &record.pin {
        let name = if pin.name.is_empty() { &pin.kind } else { &pin.name };
        let digest: String = pin.digest.chars().take(12).collect();
        return (
            pin.actor.clone().unwrap_or_else(|| pin.server.clone()),
            format!("{} {}/{name} {}", pin.kind, pin.server, pin.state),
            join(&[&digest, &pin.flags.join(" "), &pin.note]),
        );
    }
    if let Some(start) = &record.start {
        return (String::new(), format!("start of {}", start.version), format!("epoch {}", start.epoch));
    }
    if let Some(stop) = &record.stop {
        return (String::new(), "stop".to_owned(), stop.cause.clone());
    }
    let method = seen.fact(|record| record.mcp.as_ref()).map_or(record.kind.as_str(), |mcp| mcp.method.as_str());
    let what = match (seen.server(), seen.name()) {
        (Some(server), Some(name)) => format!("{server}/{name}"),
        (Some(server), None) => format!("{server} {method}"),
        (None, Some(name)) => name.to_owned(),
        (None, None) => method.to_owned(),
    };
    (who, what, why(seen))
}

fn why(seen: &Seen<'_>) -> String {
    let record = &seen.record;
    if let Some(list) = &record.list {
        return format!("{} shown", list.shown);
    }
    let took = |latency_us: u64| {
        if latency_us < 1_000 { format!("{latency_us} µs") } else { format!("{} ms", latency_us / 1_000) }
    };
    let Some(result) = &record.result else { return seen.reason().unwrap_or_default().to_owned() };
    let ended = match (&result.reason, result.code) {
        (Some(reason), _) => reason.clone(),
        (None, Some(code)) => format!("error {code}"),
        (None, None) if result.is_error => "tool_error".to_owned(),
        (None, None) if result.outcome == "complete" => "ok".to_owned(),
        (None, None) => result.outcome.clone(),
    };
    join(&[&ended, &result.latency_us.map(took).unwrap_or_default()])
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ")
}

fn pretty(line: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(line);
    value.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or_else(|_| line.to_owned())
}
