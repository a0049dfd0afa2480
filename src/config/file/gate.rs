//! Reads `policies/gates.toml`: which calls need a person, whose, how many, for how long.
//!
//! Decides what a gate can be. What its patterns and conditions mean is found out where rules are read, and a mistake
//! there stands at their place here.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{Declared, Text, break_glass};
use crate::config::break_glass::BreakGlassConfig;
use crate::config::gate::{Approvers, GateConfig, GateKind, Written};
use crate::config::keys::gates as keys;
use crate::config::leaf::Period;
use crate::config::load::Overrides;
use crate::config::mistake::{Name, Source};
use crate::config::reader::Table;
use crate::config::{Config, Mistake};
use crate::ids::{Environment, IssuerAlias, Subject};
use crate::limit;

/// What a gate can be about: the server itself has no arguments that somebody could look at.
const ACTIONS: [&str; 3] = ["call", "get", "read"];

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Approve,
    Confirm,
}

/// What the file says.
#[derive(Debug)]
pub struct Parsed {
    /// Its gates, in the order of their names.
    pub gates: Vec<GateConfig>,
    /// Its emergencies, in the order of theirs.
    pub break_glass: Vec<BreakGlassConfig>,
    /// What is odd about it.
    pub warnings: Vec<Mistake>,
}

/// Reads every gate in the world of a configuration, in the order of their names.
///
/// # Errors
/// Every mistake of the file.
pub fn parse(text: Text<'_>, config: &Config, overrides: &Overrides) -> Result<Parsed, Vec<Mistake>> {
    let source = Source::new(text.file, text.text);
    let top = Table::parse(&source, &keys::GATES);
    let (gates, emergencies) = top
        .map(|mut top| {
            let emergencies = break_glass::read_all(&mut top);
            (read_all(top), emergencies)
        })
        .unzip();
    let mut found = source.take();
    Declared::of(config, overrides).resolve(&source, &mut found);
    let missing = match &config.admin {
        None => Some("[admin]"),
        Some(admin) if admin.clients.iter().all(|client| !client.approves) => {
            Some("[admin.console], and no client that `approves`,")
        }
        Some(_) => None,
    };
    let warned = gates.iter().flatten().flatten().filter(|(gate, _)| gate.approvals > 0);
    for ((gate, span), missing) in warned.zip(missing.into_iter().cycle()) {
        let message = format!(
            "nobody can approve what gate `{}` stops: there is no {missing} in servers.toml, so its calls are refused",
            gate.name
        );
        found.warnings.push(Mistake::at(text.file, text.text, span.start, message));
    }
    let asking = gates.iter().flatten().flatten().find(|(gate, _)| gate.approvals > 0 && config.admin.is_some());
    if let (Some((_, span)), unclear @ [_, ..]) = (asking, unclear_owners(config).as_slice()) {
        let message = format!(
            "nobody can approve calls of {}: write `owner_person` beside `owner`, which human that is in the words of their \
             issuer's `person` claim",
            unclear.join(", ")
        );
        found.warnings.push(Mistake::at(text.file, text.text, span.start, message));
    }
    found.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    let gates: Option<Vec<_>> = gates.and_then(|gates| gates.into_iter().collect());
    let emergencies = emergencies.flatten().unwrap_or_default();
    found.warnings.extend(break_glass::warnings(&emergencies, config.admin.is_some(), text.file));
    match gates.filter(|_| found.mistakes.is_empty()) {
        Some(gates) => Ok(Parsed {
            gates: gates.into_iter().map(|(gate, _)| gate).collect(),
            break_glass: emergencies,
            warnings: found.warnings,
        }),
        None => Err(found.mistakes),
    }
}

/// The agents and API keys of whose owner nobody knows which human they are.
fn unclear_owners(config: &Config) -> Vec<String> {
    let is_told = |owner: &str, person: Option<&String>| {
        let alias = owner.strip_prefix("user:").and_then(|rest| rest.split_once('/')).map(|(alias, _)| alias);
        let issuer = config.issuers.iter().find(|issuer| Some(issuer.alias.as_str()) == alias);
        person.is_some() || issuer.and_then(|issuer| issuer.claims.person.as_deref()) == Some("sub")
    };
    let mut unclear = Vec::new();
    for (id, agent) in &config.agents {
        if !is_told(&agent.owner, agent.owner_person.as_ref()) {
            unclear.push(format!("the agent `{id}`"));
        }
        let keys = agent.keys.iter().filter(|key| !is_told(&key.owner, key.owner_person.as_ref()));
        unclear.extend(keys.map(|key| format!("the API key `{}`", key.id)));
    }
    unclear
}

type Placed = (GateConfig, Range<usize>);

fn read_all(mut top: Table<'_, '_>) -> Vec<Option<Placed>> {
    let place = top.place("gates");
    let tables = top.named_tables("gates", &keys::GATE, name);
    if tables.len() > limit::GATES_MAX {
        top.mistake(&place, format!("{} gates are too many: at most {}", tables.len(), limit::GATES_MAX));
    }
    let mut gates: Vec<_> = tables.into_iter().map(|(name, table)| read(table, name)).collect();
    gates.sort_by(|one, other| {
        let name = |gate: &Option<Placed>| gate.as_ref().map(|(gate, _)| gate.name.clone());
        name(one).cmp(&name(other))
    });
    gates
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let well = !text.is_empty() && text.len() <= limit::GATE_NAME_BYTES_MAX && text.bytes().all(plain);
    let spelled = || format!("`{text}` is no name of a gate: a-z, 0-9 and -, at most {}", limit::GATE_NAME_BYTES_MAX);
    if well { Ok(text.to_owned()) } else { Err(spelled()) }
}

fn read(mut table: Table<'_, '_>, name: String) -> Option<Placed> {
    let span = table.span.clone();
    let written = |table: &Table<'_, '_>, text: Spanned<String>| {
        let at = Mistake::at("", table.source.text, text.span().start, "");
        Written { text: text.into_inner(), line: at.line, column: at.column }
    };
    let selects = ["objects", "labels", "environments"].iter().any(|key| table.has(key));
    let flows_place = table.place("flows");
    let selected = selects || table.has("actions") || table.has("when");
    let flows = table.get::<bool>("flows");
    if flows == Some(true) && selected {
        let message = "flows say what this gate stops: remove objects, labels, environments, actions and when";
        table.mistake(&flows_place, message);
    }
    if !selects && flows == Some(false) {
        table.mistake(
            &span,
            format!(
                "gate `{name}` stops nothing: write objects = [\"SERVER/NAME\"], labels = [...] or environments = [...]"
            ),
        );
    }
    let objects = table.get::<Vec<Spanned<String>>>("objects");
    let labels = table.get::<Vec<Spanned<String>>>("labels");
    let environments = table.at::<Vec<Spanned<Environment>>>("environments");
    let actions_place = table.place("actions");
    let actions = table.get::<Vec<Spanned<String>>>("actions");
    let when = table.get::<Spanned<String>>("when");
    let kind = table.get::<Kind>("kind");
    let (has_approvers, approvers_place) = (table.has("approvers"), table.place("approvers"));
    let approvers = approvers(&mut table, "approvers");
    let approvals = table.at::<u32>("approvals");
    let pending_for = period(&mut table, "pending_for", limit::GATE_PENDING_MAX);
    let approved_for = period(&mut table, "approved_for", limit::GATE_APPROVED_MAX);
    let irreversible = table.get::<bool>("irreversible");
    let acr = table.get::<Vec<String>>("acr");
    let auth_age_max = table.at::<Period>("auth_age_max").map(|period| period.into_inner().0);
    for environment in environments.iter().flat_map(Spanned::get_ref) {
        table.source.refers(environment.span(), Name::Environment(environment.get_ref().clone()));
    }
    let actions = actions.unwrap_or_default();
    for action in actions.iter().filter(|action| !ACTIONS.contains(&action.get_ref().as_str())) {
        let message = format!("no gate can stop `{}`: write {}", action.get_ref(), ACTIONS.join(", "));
        table.mistake(&action.span(), message);
    }
    if actions.is_empty() {
        table.mistake(&actions_place, "a gate without actions stops nothing: write actions = [\"call\"]");
    }
    let kind = match kind? {
        Kind::Approve => GateKind::Approve,
        Kind::Confirm => GateKind::Confirm,
    };
    match kind {
        GateKind::Approve if !has_approvers => {
            table.mistake(
                &span,
                format!("gate `{name}` has no `approvers`: write approvers = [\"owner\"] or [\"group:ISSUER/NAME\"]"),
            );
        }
        GateKind::Confirm if has_approvers => {
            let message = "whoever calls confirms, and nobody else: remove approvers, or write kind = \"approve\"";
            table.mistake(&approvers_place, message);
        }
        _ => {}
    }
    let approvals = approvals?;
    if !(1..=limit::GATE_APPROVALS_MAX).contains(approvals.get_ref()) {
        table.mistake(&approvals.span(), format!("write 1 to {} approvals", limit::GATE_APPROVALS_MAX));
    }
    let gate = GateConfig {
        name,
        flows: flows?,
        objects: objects.unwrap_or_default().into_iter().map(|text| written(&table, text)).collect(),
        labels: labels.unwrap_or_default().into_iter().map(|text| written(&table, text)).collect(),
        environments: environments.into_iter().flat_map(Spanned::into_inner).map(Spanned::into_inner).collect(),
        actions: actions.into_iter().map(Spanned::into_inner).collect(),
        when: when.map(|text| written(&table, text)),
        kind,
        approvers: approvers?,
        approvals: if kind == GateKind::Confirm { 0 } else { approvals.into_inner() },
        pending_for: pending_for?,
        approved_for: approved_for?,
        irreversible: irreversible?,
        acr: acr?,
        auth_age_max,
    };
    Some((gate, span))
}

pub(super) fn approvers(table: &mut Table<'_, '_>, key: &str) -> Option<Vec<Approvers>> {
    let written = table.get::<Vec<Spanned<String>>>(key).unwrap_or_default();
    let mut approvers = Vec::new();
    for text in written {
        if text.get_ref() == "owner" {
            approvers.push(Approvers::Owner);
            continue;
        }
        let named = text.get_ref().strip_prefix("user:").or_else(|| text.get_ref().strip_prefix("group:"));
        let alias = named.and_then(|rest| rest.split_once('/')).and_then(|(alias, _)| IssuerAlias::new(alias).ok());
        let read = alias.zip(Subject::canonical(text.get_ref()).ok());
        match read {
            Some((_, read)) if read.as_str() != text.get_ref() => table
                .mistake(&text.span(), format!("the gateway spells `{}` differently: write {read}", text.get_ref())),
            Some((alias, _)) => table.source.refers(text.span(), Name::Issuer(alias)),
            None => table.mistake(
                &text.span(),
                format!("`{}` approves nothing: write \"owner\", user:ISSUER/SUB or group:ISSUER/NAME", text.get_ref()),
            ),
        }
        approvers.push(Approvers::Subject(text.into_inner()));
    }
    Some(approvers)
}

pub(super) fn period(table: &mut Table<'_, '_>, key: &str, most: std::time::Duration) -> Option<std::time::Duration> {
    let period = table.at::<Period>(key)?;
    let (span, period) = (period.span(), period.into_inner().0);
    if period > most {
        table.mistake(&span, format!("that is too long: write at most {}s", most.as_secs()));
    }
    Some(period)
}
