//! Reads `labels.toml`: every key is known, every value has its type, every mistake its place.
//!
//! Invariant: a file that is not there means that labels are not kept; one that is there says what follows, and what it
//! leaves out is the careful choice.

use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::condition::{Condition, Table};
use super::super::load::{Environments, set_exists};
use super::super::object::{ObjectPattern, PatternKind};
use super::super::source::{Mistake, position};
use super::{Entry, Flow, Impact, Labels, Mode, Reads, Seen, Sends, Then, Unlabelled};
use crate::config::leaf::Period;
use crate::config::{GateConfig, GateKind};
use crate::ids::Action;
use crate::limit;

const FILE: &str = "labels.toml";

type Refused = (usize, String);
type Place<'t, 'i> = &'t Spanned<DeValue<'i>>;
type Sets = std::collections::HashMap<Arc<str>, Vec<Arc<str>>>;

/// What an entry may refer to.
pub(in crate::policy) struct Known<'a> {
    pub(in crate::policy) environments: &'a Environments,
    pub(in crate::policy) conditions: &'a [Condition],
    pub(in crate::policy) sets: &'a Sets,
    pub(in crate::policy) gates: &'a [Arc<GateConfig>],
}

/// Reads the file.
pub(in crate::policy) fn labels(
    text: &str,
    known: &Known<'_>,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) -> Option<Labels> {
    let mut silent = Vec::new();
    let mut refuse = |(offset, message): Refused| {
        let (line, column) = position(text, offset);
        mistakes.push(Mistake::at(FILE, line, column, message));
    };
    let document = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(error) => {
            refuse((error.span().map_or(0, |span| span.start), error.message().to_owned()));
            return None;
        }
    };
    let mut labels = Labels {
        mode: Mode::Enforce,
        unlabelled: Unlabelled::Worst,
        memory: limit::LABEL_MEMORY_DEFAULT,
        entries: Vec::new(),
        flows: Vec::new(),
    };
    let mut flows = None;
    for (key, value) in &document {
        let read = match key.get_ref().as_ref() {
            "mode" => one_of(value, "mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)])
                .map(|mode| labels.mode = mode),
            "unlabelled" => {
                let words = [("worst", Unlabelled::Worst), ("harmless", Unlabelled::Harmless)];
                one_of(value, "unlabelled", &words).map(|unlabelled| labels.unlabelled = unlabelled)
            }
            "label_memory" => memory(value).map(|memory| labels.memory = memory),
            "label" => each(value, "label", |table| {
                let start = table.span.start;
                let (entry, is_silent) = entry(table, known)?;
                labels.entries.push(entry);
                if is_silent {
                    silent.push(start);
                }
                Ok(())
            }),
            "flow" => each(value, "flow", |table| {
                let line = position(text, table.span.start).0;
                flows.get_or_insert_with(Vec::new).push(flow(table, line, known)?);
                Ok(())
            }),
            other => Err((key.span().start, format!("`{other}` does not belong here; write [[label]] or [[flow]]"))),
        };
        if let Err(refused) = read {
            refuse(refused);
        }
    }
    if labels.entries.len() > limit::LABEL_ENTRIES_MAX {
        let message = format!("there are more than {} entries; write patterns", limit::LABEL_ENTRIES_MAX);
        mistakes.push(Mistake::file(FILE, message));
    }
    if labels.unlabelled == Unlabelled::Worst {
        for start in silent {
            let (line, column) = position(text, start);
            let message = "what it means is taken for something that reads nothing, brings no foreign words and sends \
                           nowhere, unless another entry says so; write `reads`, `content` or `sends`";
            warnings.push(Mistake::at(FILE, line, column, message));
        }
    }
    labels.flows = flows.unwrap_or_else(careful);
    Some(labels)
}

/// What may not follow what, where the file says nothing of it.
fn careful() -> Vec<Flow> {
    let flow = |from| Flow { place: Arc::from(FILE), from, to: Sends::External, unless: None, then: Then::Deny };
    vec![flow(Seen::REGULATED), flow(Seen::PRIVATE.with(Seen::UNTRUSTED))]
}

/// An entry, and whether it says nothing of what comes back and where things go.
fn entry(mut table: Table<'_, '_>, known: &Known<'_>) -> Result<(Entry, bool), Refused> {
    let start = table.span.start;
    let actions: Vec<Action> = texts(&mut table, "actions")?
        .into_iter()
        .map(|(text, at)| action(text).map_err(|message| (at, message)))
        .collect::<Result<_, _>>()?;
    let objects: Vec<ObjectPattern> = texts(&mut table, "objects")?
        .into_iter()
        .map(|(text, at)| pattern(text, &actions, known).map_err(|message| (at, message)))
        .collect::<Result<_, _>>()?;
    if objects.is_empty() {
        return Err((start, "write objects = [\"SERVER/NAME\"]".to_owned()));
    }
    let when = condition(&mut table, "when", known)?;
    let reads = [
        ("nothing", Reads::Nothing),
        ("internal", Reads::Internal),
        ("private", Reads::Private),
        ("regulated", Reads::Regulated),
    ];
    let reads = table.take("reads").map(|value| one_of(value, "reads", &reads)).transpose()?;
    let content = [("trusted", false), ("untrusted", true)];
    let content = table.take("content").map(|value| one_of(value, "content", &content)).transpose()?;
    let sends = [("nowhere", Sends::Nowhere), ("internal", Sends::Internal), ("external", Sends::External)];
    let sends = table.take("sends").map(|value| one_of(value, "sends", &sends)).transpose()?;
    let impact = [
        ("read", Impact::Read),
        ("write", Impact::Write),
        ("destructive", Impact::Destructive),
        ("irreversible", Impact::Irreversible),
    ];
    let impact = table.take("effect").map(|value| one_of(value, "effect", &impact)).transpose()?;
    let store = match table.take("store") {
        None => None,
        Some(value) => Some(store(value)?),
    };
    finished(&table, "a label")?;
    let is_silent = reads.is_none() && content.is_none() && sends.is_none();
    let entry = Entry {
        objects,
        actions,
        when,
        reads: reads.unwrap_or_default(),
        untrusted: content.unwrap_or_default(),
        sends: sends.unwrap_or_default(),
        impact: impact.unwrap_or_default(),
        store,
    };
    Ok((entry, is_silent))
}

fn flow(mut table: Table<'_, '_>, line: u32, known: &Known<'_>) -> Result<Flow, Refused> {
    let start = table.span.start;
    let mut from = Seen::NOTHING;
    for (text, at) in texts(&mut table, "from")? {
        let named = Seen::named(text);
        from = from.with(named.ok_or_else(|| {
            (at, format!("`{text}` is nothing that is seen; write untrusted, internal, private or regulated"))
        })?);
    }
    if !from.is_any() {
        return Err((start, "write from = [\"private\", \"untrusted\"]: what was seen".to_owned()));
    }
    let to = match table.take("to") {
        None => Sends::External,
        Some(value) => one_of(value, "to", &[("internal", Sends::Internal), ("external", Sends::External)])?,
    };
    let then = then(&mut table, start, known)?;
    let unless = condition(&mut table, "unless", known)?;
    finished(&table, "a flow")?;
    Ok(Flow { place: Arc::from(format!("{FILE}:{line}")), from, to, unless, then })
}

/// Whether the flow refuses, or which gate of which kind it asks: both are written, so that neither file says something
/// else than it looks like.
fn then(table: &mut Table<'_, '_>, start: usize, known: &Known<'_>) -> Result<Then, Refused> {
    let kinds = [("deny", None), ("approve", Some(GateKind::Approve)), ("confirm", Some(GateKind::Confirm))];
    let kind = match table.take("then") {
        None => None,
        Some(value) => one_of(value, "then", &kinds)?,
    };
    let gate = table.take("gate");
    let (kind, gate) = match (kind, gate) {
        (None, None) => return Ok(Then::Deny),
        (None, Some(gate)) => {
            let message = "a flow that refuses asks no gate: write then = \"approve\" or \"confirm\"";
            return Err((gate.span().start, message.to_owned()));
        }
        (Some(kind), None) => {
            return Err((
                start,
                format!("write gate = \"NAME\": which gate of gates.toml asks, of kind {}", kind.as_str()),
            ));
        }
        (Some(kind), Some(gate)) => (kind, gate),
    };
    let at = gate.span().start;
    let name = gate.get_ref().as_str().ok_or_else(|| (at, "`gate` is the name of a gate".to_owned()))?;
    let found = known.gates.iter().find(|known| known.name == name);
    match found {
        None => Err((at, format!("there is no gate `{name}`; write [gates.{name}] in gates.toml"))),
        Some(found) if found.kind != kind => {
            Err((at, format!("gate `{name}` is of kind {}; write then = \"{0}\"", found.kind.as_str())))
        }
        Some(found) => Ok(Then::Ask(Arc::clone(found))),
    }
}

fn pattern(text: &str, actions: &[Action], known: &Known<'_>) -> Result<ObjectPattern, String> {
    // Where no action is named, URIs are meant as well; where several are, one that the spelling is for is enough.
    let spelled = |action: &Action| ObjectPattern::parse(text, action);
    let pattern = match actions {
        [] => spelled(&Action::Read)?,
        [first, rest @ ..] => {
            spelled(first).or_else(|message| rest.iter().find_map(|action| spelled(action).ok()).ok_or(message))?
        }
    };
    if pattern.kind == PatternKind::Set && !set_exists(known.sets, &pattern) {
        return Err(format!("nothing is in `{text}`; put names into it with g2 in policy.csv"));
    }
    if pattern.names_one_server() && known.environments.of_server(pattern.server()).is_none() {
        return Err(format!("there is no server `{}`; write the id of a server", pattern.server()));
    }
    Ok(pattern)
}

/// Actions whose calls are labelled. What a server asks of its client, and what administrators do, passes other doors.
fn action(text: &str) -> Result<Action, String> {
    match Action::parse(text) {
        Some(Action::Elicit | Action::Sample | Action::Roots | Action::Admin) => Err(format!(
            "`{text}` is nothing that is labelled; write call, read, get, complete, subscribe or method:NAME"
        )),
        Some(action) => Ok(action),
        None => Err(format!("`{text}` is not an action")),
    }
}

fn condition(table: &mut Table<'_, '_>, key: &str, known: &Known<'_>) -> Result<Option<usize>, Refused> {
    let Some(value) = table.take(key) else { return Ok(None) };
    let at = value.span().start;
    let name = value.get_ref().as_str().ok_or_else(|| (at, format!("`{key}` is the name of a condition")))?;
    let found = known.conditions.iter().position(|condition| condition.name.as_str() == name);
    found.map(Some).ok_or_else(|| (at, format!("there is no condition `{name}`; write it in conditions.toml")))
}

fn store(value: Place<'_, '_>) -> Result<Arc<str>, Refused> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let text = value.get_ref().as_str().filter(|text| (1..=64).contains(&text.len()) && text.bytes().all(plain));
    text.map(Arc::from)
        .ok_or_else(|| (value.span().start, "a store is named with 1 to 64 of a-z, 0-9 and -".to_owned()))
}

fn memory(value: Place<'_, '_>) -> Result<Duration, Refused> {
    let at = value.span().start;
    let text = value.get_ref().as_str().ok_or_else(|| (at, "label_memory is a duration such as \"24h\"".to_owned()))?;
    let memory = Period::parse(text).map_err(|message| (at, message))?.0;
    if memory < limit::LABEL_MEMORY_MIN {
        return Err((at, "less than 1m forgets what an assistant still remembers; write at least 1m".to_owned()));
    }
    Ok(memory)
}

fn one_of<T: Copy>(value: Place<'_, '_>, key: &str, words: &[(&str, T)]) -> Result<T, Refused> {
    let found = value.get_ref().as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        (value.span().start, format!("`{key}` is {}", words.join(" or ")))
    })
}

fn texts<'t>(table: &mut Table<'t, '_>, key: &str) -> Result<Vec<(&'t str, usize)>, Refused> {
    let Some(value) = table.take(key) else { return Ok(Vec::new()) };
    let list = value.get_ref().as_array().and_then(|list| {
        list.iter().map(|text| Some((text.get_ref().as_str()?, text.span().start))).collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| (value.span().start, format!("`{key}` is a list of texts")))
}

fn each<'t, 'i>(
    value: Place<'t, 'i>,
    key: &str,
    mut read: impl FnMut(Table<'t, 'i>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let start = value.span().start;
    let tables = value.get_ref().as_array().ok_or_else(|| (start, format!("write [[{key}]]")))?;
    for table in tables.iter() {
        read(Table::of(table).ok_or_else(|| (table.span().start, format!("write [[{key}]]")))?)?;
    }
    Ok(())
}

fn finished(table: &Table<'_, '_>, what: &str) -> Result<(), Refused> {
    match table.rest().next() {
        None => Ok(()),
        Some((key, span)) => Err((span.start, format!("`{key}` is not part of {what}"))),
    }
}
