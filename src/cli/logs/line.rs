//! How an event looks: one line of at most 120 columns.

use std::fmt::Write as _;

use anstyle::Style;
use jiff::tz::TimeZone;

use super::super::output::{BAD, GOOD, QUIET, STRONG, WARNING};
use crate::record::join::Seen;
use crate::record::read::ApprovalRead;

/// How events are printed.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) json: bool,
    pub(super) wide: bool,
    pub(super) color: bool,
    pub(super) zone: TimeZone,
}

/// The widest line, the terminal's colours aside.
pub(super) const COLUMNS: usize = 120;
/// What stands before the text of an event that belongs to no call: time, word and two spaces.
const LEAD: usize = 16;

impl Look {
    /// The line of an event; `None` where it has none of its own.
    pub(super) fn line(&self, seen: &Seen<'_>) -> Option<String> {
        if self.json {
            return Some(seen.raw.to_owned());
        }
        let (word, style, text) = match seen.record.kind.as_str() {
            "result" | "refusal" | "failure" | "list" | "noise" => return Some(self.finish(&self.call(seen))),
            "start" | "stop" | "reload" | "admin" | "approval" | "revocation" | "repair" | "retention"
            | "executable" | "pin" | "mandate" | "lifecycle" => describe(seen)?,
            _ => return None,
        };
        let width = if self.wide { usize::MAX } else { COLUMNS - LEAD };
        let text = safe(&text, width);
        Some(self.finish(&format!("{} {style}{word:<6}{style:#} {text}", self.time(seen))))
    }

    /// The line of an intent that has no end yet.
    pub(super) fn open(&self, seen: &Seen<'_>) -> Option<String> {
        // As JSON it was printed when it came.
        (!self.json).then(|| self.finish(&self.call(seen)))
    }

    fn finish(&self, line: &str) -> String {
        let line = line.trim_end();
        if self.color { line.to_owned() } else { anstream::adapter::strip_str(line).to_string() }
    }

    fn time(&self, seen: &Seen<'_>) -> String {
        let at = seen.record.at.to_zoned_datetime(self.zone.clone());
        let format = if self.wide { "%Y-%m-%d %H:%M:%S%.3f" } else { "%H:%M:%S" };
        format!("{QUIET}{}{QUIET:#}", at.strftime(format))
    }

    fn call(&self, seen: &Seen<'_>) -> String {
        let record = &seen.record;
        let effect = seen.effect().unwrap_or_default();
        let style = match effect {
            "deny" => BAD,
            "fail" => WARNING,
            _ => GOOD,
        };
        let noise = record.noise.as_ref();
        let subject = seen.subject().map(|subject| subject.strip_prefix("user:").unwrap_or(subject));
        let source = noise.map(|noise| noise.source.as_str()).filter(|source| !source.is_empty());
        let subject = subject.or(source).unwrap_or("-");
        let call = record.call.as_deref().unwrap_or_default();
        let took = match (noise, record.result.as_ref().and_then(|result| result.latency_us)) {
            (Some(noise), _) => format!("x{}", noise.count),
            (None, Some(latency_us)) => duration(latency_us),
            (None, None) => String::new(),
        };
        let mut line = format!("{} {style}{effect:<6}{style:#} ", self.time(seen));
        let short = |text: &str, width: usize| if self.wide { safe(text, usize::MAX) } else { safe(text, width) };
        let reason = reason(seen);
        let _ = write!(
            line,
            "{:<18} {QUIET}{:<14}{QUIET:#} {:<28} {style}{:<23}{style:#} {took:>7}",
            short(subject, 18),
            short(seen.agent().unwrap_or("-"), 14),
            short(&target(seen), 28),
            short(&reason, 23),
        );
        if !call.is_empty() {
            let id = if self.wide { safe(call, 26) } else { ending(call) };
            let _ = write!(line, " {QUIET}{id}{QUIET:#}");
        }
        if self.wide {
            self.add_detail(&mut line, seen);
        }
        line
    }

    #[expect(clippy::unused_self, reason = "part of how a wide line looks")]
    fn add_detail(&self, line: &mut String, seen: &Seen<'_>) {
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let _ = write!(line, " {QUIET}{name}={QUIET:#}{}", safe(value, usize::MAX));
            }
        };
        add("environment", seen.fact(|record| record.mcp.as_ref()?.environment.as_deref()));
        add("rule", seen.fact(|record| record.decision.as_ref()?.rule.as_deref()));
        add("via", seen.fact(|record| record.via.as_deref()));
        let record = &seen.record;
        add("detail", record.decision.as_ref().and_then(|decision| decision.detail.as_deref()));
        add("detail", record.result.as_ref().and_then(|result| result.detail.as_deref()));
        let bytes = record.result.as_ref().and_then(|result| result.bytes).map(|bytes| bytes.to_string());
        add("bytes", bytes.as_deref());
    }
}

/// Server and name, or the method where there is no name.
fn target(seen: &Seen<'_>) -> String {
    let method = seen.fact(|record| record.mcp.as_ref()).map_or("-", |mcp| mcp.method.as_str());
    match (seen.server(), seen.name()) {
        (Some(server), Some(name)) => format!("{server}/{name}"),
        (Some(server), None) => format!("{server} {method}"),
        (None, Some(name)) => name.to_owned(),
        (None, None) => method.to_owned(),
    }
}

/// Why, or how it ended.
fn reason(seen: &Seen<'_>) -> String {
    let record = &seen.record;
    if let Some(list) = &record.list {
        return format!("{} shown", list.shown);
    }
    let Some(result) = &record.result else {
        return seen.reason().unwrap_or(if record.kind == "intent" { "under way" } else { "" }).to_owned();
    };
    match (result.outcome.as_str(), &result.reason, result.code) {
        ("complete", ..) if result.is_error => "tool_error".to_owned(),
        ("complete", ..) => "ok".to_owned(),
        ("unknown", Some(reason), _) => format!("{reason}?"),
        (_, Some(reason), _) => reason.clone(),
        ("error", _, Some(code)) => format!("error {code}"),
        (outcome, ..) => outcome.to_owned(),
    }
}

/// Word, style and text of what belongs to no call.
fn describe(seen: &Seen<'_>) -> Option<(&'static str, Style, String)> {
    let record = &seen.record;
    if let Some(start) = &record.start {
        let policy = start.revision.as_deref().map_or("none", |revision| revision.get(..12).unwrap_or(revision));
        let text = format!("bailiwick {}, policy {policy}, revocation epoch {}", start.version, start.epoch);
        return Some(("start", STRONG, text));
    }
    if let Some(executable) = &record.executable {
        let now = executable.digest.get(..12).unwrap_or(&executable.digest);
        let before = executable.before.as_deref().map(|before| before.get(..12).unwrap_or(before));
        let (what, style) = match before {
            Some(before) => (format!("is {now} and was {before}"), BAD),
            None => (format!("is {now}"), STRONG),
        };
        return Some(("child", style, format!("{} runs {}, which {what}", executable.server, executable.path)));
    }
    if let Some(pin) = &record.pin {
        let style = if pin.state == "quarantined" { BAD } else { STRONG };
        let now = pin.digest.get(..12).unwrap_or(&pin.digest);
        let name = if pin.name.is_empty() { &pin.kind } else { &pin.name };
        let mut text = format!("{} {}/{name} is {} as {now}", pin.kind, pin.server, pin.state);
        let before = pin.before.as_deref().map(|before| format!(", was {}", before.get(..12).unwrap_or(before)));
        let renamed = pin.renamed_from.as_deref().map(|name| format!(", was called {name}"));
        let flags = (!pin.flags.is_empty()).then(|| format!(", flags: {}", pin.flags.join(" ")));
        let actor = pin.actor.as_deref().map(|actor| format!(", by {actor}"));
        text.extend([before, renamed, flags, actor].into_iter().flatten());
        return Some(("pin", style, text));
    }
    if let Some(mandate) = record.mandate.as_ref().filter(|_| record.kind == "mandate") {
        let template = mandate.template.as_deref().unwrap_or("no template");
        let agent = mandate.agent.as_deref().unwrap_or("nobody");
        let note = if mandate.note.is_empty() { String::new() } else { format!(": {}", mandate.note) };
        let text = format!("{} {} of {template} for {agent} by {}{note}", mandate.id, mandate.event, mandate.actor);
        return Some(("task", STRONG, text));
    }
    if let Some(life) = &record.lifecycle {
        let style = if life.event == "suspended" || life.event == "retired" { BAD } else { STRONG };
        let note = if life.note.is_empty() { String::new() } else { format!(": {}", life.note) };
        let whom = life.subject.as_deref().map(|subject| format!(" for {subject}")).unwrap_or_default();
        let text =
            format!("{} {}{whom} {} by {}, owner {}{note}", life.kind, life.id, life.event, life.actor, life.owner);
        return Some(("agent", style, text));
    }
    if let Some(stop) = &record.stop {
        return Some(("stop", STRONG, stop.cause.clone()));
    }
    if let Some(reload) = &record.reload {
        let policy = reload.to.as_deref().map(|revision| revision.get(..12).unwrap_or(revision));
        let text = match (&reload.problem, policy) {
            _ if reload.part.is_some_and(|part| part > 1) => format!("more rows of it, by {}", reload.actor),
            (Some(problem), _) => format!("{} by {}: {problem}", reload.outcome, reload.actor),
            (None, policy) => format!(
                "{} by {}: policy {}, rows +{} -{}",
                reload.outcome,
                reload.actor,
                policy.unwrap_or("none"),
                reload.added,
                reload.removed
            ),
        };
        return Some(("reload", if reload.problem.is_some() { BAD } else { STRONG }, text));
    }
    if let Some(admin) = &record.admin {
        let mut text = format!("{} {} by {}", admin.operation, admin.outcome, admin.actor);
        for (what, value) in [("", &admin.about), ("reason ", admin.reason.as_ref().unwrap_or(&String::new()))] {
            if !value.is_empty() {
                let _ = write!(text, ", {what}{value}");
            }
        }
        if !admin.detail.is_empty() {
            let _ = write!(text, ": {}", admin.detail);
        }
        return Some(("admin", if admin.outcome == "refused" { BAD } else { STRONG }, text));
    }
    if let Some(approval) = &record.approval {
        let style = match approval.event.as_str() {
            "denied" | "refused" | "voided" | "standing_void" | "break_glass_opened" | "break_glass_used" => BAD,
            "requested" | "expired" => WARNING,
            _ => STRONG,
        };
        let ApprovalRead { event, id, gates, server, name, requester, approvers, detail } = approval;
        let mut text = format!("{event} {server}/{name} for {requester}, gates {}, request {id}", gates.join(" "));
        if !approvers.is_empty() {
            let approvers: Vec<&str> = approvers.iter().map(|approver| approver.id.as_str()).collect();
            let _ = write!(text, ", approved by {}", approvers.join(" "));
        }
        if !detail.is_empty() {
            let _ = write!(text, ": {detail}");
        }
        return Some(("gate", style, text));
    }
    if let Some(revocation) = &record.revocation {
        let mut text = revocation.target.clone();
        let name = [&revocation.issuer, &revocation.value].into_iter().flatten().map(String::as_str);
        let name = name.collect::<Vec<_>>().join("/");
        if !name.is_empty() {
            let _ = write!(text, " {name}");
        }
        let _ = write!(text, ", {} by {}, epoch {}", revocation.mode, revocation.actor, revocation.epoch);
        if !revocation.note.is_empty() {
            let _ = write!(text, ": {}", revocation.note);
        }
        return Some(("revoke", BAD, text));
    }
    if let Some(gone) = &record.retention {
        let text = format!(
            "records {} to {} removed, {} bytes, because of {}",
            gone.first, gone.last, gone.bytes, gone.because
        );
        return Some(("keep", STRONG, text));
    }
    let repair = record.repair.as_ref()?;
    let mut text = repair.problem.clone();
    for (count, what) in
        [(repair.bytes, "bytes cut"), (repair.refused, "calls refused"), (repair.dropped, "records dropped")]
    {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    if !repair.detail.is_empty() {
        let _ = write!(text, ": {}", repair.detail);
    }
    Some(("repair", WARNING, text))
}

/// The end of an id: its beginning is the time, which calls of one moment share.
fn ending(id: &str) -> String {
    safe(id.get(id.len().saturating_sub(8)..).unwrap_or(id), 8)
}

pub(super) fn duration(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let millis = micros as f64 / 1000.0;
    match micros {
        0..10_000 => format!("{millis:.1}ms"),
        10_000..10_000_000 => format!("{millis:.0}ms"),
        _ => format!("{:.0}s", millis / 1000.0),
    }
}

/// Text for a terminal: nothing that moves, colours or reverses, and not too wide.
pub(super) fn safe(text: &str, width: usize) -> String {
    let reverses = |character: char| matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let shown = |character: char| if character.is_control() || reverses(character) { '\u{fffd}' } else { character };
    if text.chars().count() <= width {
        return text.chars().map(shown).collect();
    }
    text.chars().take(width.saturating_sub(1)).map(shown).chain(['…']).collect()
}
