//! What a call uses up of the budgets of its mandates and its agents.
//!
//! Decides which counts a call adds to. Refuses to know how they are kept: they are changes among its reservations, made
//! together with all others when the call is sent. Invariants: what a mandate uses up counts for every mandate above it
//! too; of two calls that would both be the last one, one is refused. Minutes and days are those of the clock, in UTC, so
//! that replicas agree about them; around the turn of one, twice as many calls fit.

use std::time::Duration;

use super::consume::Reservations;
use super::mandate::{Held, Mandate};
use super::{Charge, Wanted};
use crate::config::{AgentBudget, AgentConfig, Budget, Config};
use crate::ids::{Action, AgentId, Digest, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::Permit;
use crate::record::event::ChargeNote;
use crate::shelf::{self, Change, Expect, Section, Shelf, Tell};

/// The rows of counts.
const COUNTS: Section = Section { name: "count", rows_max: limit::COUNTS_MAX };

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 86_400_000_000;

/// What is left of a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Left {
    /// Calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<i64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

/// Reserves what a call uses up.
pub(super) fn reserve(reservations: &mut Reservations, permit: &Permit, wanted: &Wanted<'_>) {
    // Whoever follows a task, or answers what its call was asked, goes on with a call that was counted.
    if permit.is_following() {
        return;
    }
    match wanted.charge {
        Charge::Now => {}
        Charge::Before => return,
        Charge::Answer { round, until } => return once(reservations, permit, wanted, round, until),
    }
    let now_us = wanted.now_us;
    let bytes = wanted.arguments.map_or(0, |arguments| arguments.as_bytes().len());
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    for mandate in wanted.mandate.into_iter().flat_map(Held::all) {
        of_mandate(reservations, mandate, budget_of(mandate, wanted.config), bytes, now_us);
    }
    if let Some((budget, key)) = of_tool(permit) {
        in_turns(reservations, &budget, &key, now_us);
    }
    let persona = permit.caller().persona();
    let mut counted: Vec<&AgentId> = Vec::new();
    for agent in persona.agent.iter().chain(&persona.chain) {
        if let Some(config) = wanted.config.agents.get(&agent.id).filter(|_| !counted.contains(&&agent.id)) {
            of_agent(reservations, config, now_us);
            counted.push(&agent.id);
        }
    }
}

/// Answers to what a server asked are good for one request, where requests are counted: a state that could be played
/// again would be as many calls as fit into its time.
fn once(reservations: &mut Reservations, permit: &Permit, wanted: &Wanted<'_>, round: u32, until: Duration) {
    let persona = permit.caller().persona();
    let of_agent = |agent: &crate::identity::AgentFacts| {
        wanted.config.agents.get(&agent.id).is_some_and(|config| config.budget != AgentBudget::default())
    };
    let is_counted = of_tool(permit).is_some()
        || wanted.mandate.into_iter().flat_map(Held::all).any(|mandate| !budget_of(mandate, wanted.config).is_open())
        || persona.agent.iter().chain(&persona.chain).any(of_agent);
    if is_counted {
        let gone = until.saturating_add(limit::COUNT_KEPT);
        let gone_us = i64::try_from(gone.as_micros()).unwrap_or(i64::MAX);
        let change = counted(format!("call/{}/{round}", wanted.call), 1, 1, gone_us);
        reservations.reserve(change, Reason::InputStateInvalid);
    }
}

/// What a mandate may use up: what it was opened with, and no more than its template gives now.
fn budget_of(mandate: &Mandate, config: &Config) -> Budget {
    let template = mandate.template.as_ref().and_then(|name| config.templates.get(name));
    template.map_or(mandate.budget, |template| mandate.budget.within(template.budget))
}

fn of_mandate(reservations: &mut Reservations, mandate: &Mandate, budget: Budget, bytes: i64, now_us: i64) {
    let gone_us = gone_us(mandate);
    if let Some(calls) = budget.calls {
        let change = counted(calls_of(mandate.id.as_str()), 1, i64::from(calls), gone_us);
        reservations.reserve(change, Reason::BudgetExhausted);
    }
    if let Some(rate) = budget.calls_per_minute {
        reservations.reserve(in_turn(&format!("mandate/{}", mandate.id), MINUTE_US, rate, now_us), Reason::RateLimited);
    }
    if let Some(most) = budget.bytes {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        // Results are counted when they come. At least one, so that what has used up everything may call no more.
        let change = counted(bytes_of(mandate.id.as_str()), bytes.max(1), most, gone_us);
        reservations.reserve(change, Reason::BudgetExhausted);
    }
}

fn of_agent(reservations: &mut Reservations, agent: &AgentConfig, now_us: i64) {
    in_turns(reservations, &agent.budget, &format!("agent/{}", agent.id), now_us);
}

/// What all callers together may use of the tool that is called, and how that is counted.
fn of_tool(permit: &Permit) -> Option<(AgentBudget, String)> {
    let target = permit.target();
    let budget = target.server().tool_budgets.get(target.name()).filter(|_| *target.action() == Action::Call)?;
    Some((*budget, format!("tool/{}/{}", target.server_id(), target.name())))
}

fn in_turns(reservations: &mut Reservations, budget: &AgentBudget, key: &str, now_us: i64) {
    if let Some(rate) = budget.calls_per_minute {
        reservations.reserve(in_turn(key, MINUTE_US, rate, now_us), Reason::RateLimited);
    }
    if let Some(most) = budget.calls_per_day {
        reservations.reserve(in_turn(key, DAY_US, most, now_us), Reason::BudgetExhausted);
    }
}

/// One more in the minute or day that it is.
fn in_turn(key: &str, length_us: i64, most: u32, now_us: i64) -> Change {
    let (key, gone_us) = turn(key, length_us, now_us);
    counted(key, 1, i64::from(most), gone_us)
}

/// The name of a count in the minute or day that it is, and when it is forgotten.
fn turn(key: &str, length_us: i64, now_us: i64) -> (String, i64) {
    let turn = now_us.div_euclid(length_us);
    let kept = i64::try_from(limit::COUNT_KEPT.as_micros()).unwrap_or(i64::MAX);
    let gone_us = turn.saturating_add(1).saturating_mul(length_us).saturating_add(kept);
    let name = if length_us == MINUTE_US { "minute" } else { "day" };
    (format!("{key}/{name}/{turn}"), gone_us)
}

/// One more mandate that somebody opens, in the day that it is; no more than so many fit into it.
pub(super) fn opening(opener: Digest, now_us: i64) -> Change {
    in_turn(&format!("opener/{opener}"), DAY_US, limit::MANDATES_OPENED_PER_DAY_MAX, now_us)
}

fn counted(key: String, by: i64, at_most: i64, gone_us: i64) -> Change {
    Change::new(COUNTS, key, Expect::Anything, shelf::Action::Count { by, at_most, expires_at_us: Some(gone_us) })
}

/// What a change has used up of a budget, as the record tells it; nothing for one that counts something else.
pub(super) fn charged(change: &Change, number: i64) -> Option<ChargeNote> {
    let shelf::Action::Count { by, at_most, .. } = &change.action else { return None };
    let (of, rest) = change.key.split_once('/').filter(|_| change.section == COUNTS)?;
    let (of, id, what, turn) = match of {
        "mandate" | "agent" => {
            let (id, what) = rest.split_once('/')?;
            let (what, turn) = what.split_once('/').map_or((what, None), |(what, turn)| (what, Some(turn)));
            (if of == "agent" { "agent" } else { "mandate" }, id, what, turn.filter(|_| is_turn(what)))
        }
        // The names of tools may have anything in them.
        "tool" => {
            let (rest, turn) = rest.rsplit_once('/')?;
            let (id, what) = rest.rsplit_once('/')?;
            ("tool", id, what, Some(turn))
        }
        _ => return None,
    };
    let (id, what) = (id.to_owned(), what.to_owned());
    let turn = turn.and_then(|turn| turn.parse().ok());
    Some(ChargeNote { of, id, what, charged: *by, left: at_most.saturating_sub(number), used: number, turn })
}

fn is_turn(what: &str) -> bool {
    matches!(what, "minute" | "day")
}

/// What the record tells that was used up then.
#[derive(Debug, Clone, Copy)]
pub struct UsedUp<'a> {
    /// `mandate` or `agent`.
    pub of: &'a str,
    /// Which.
    pub id: &'a str,
    /// `calls`, `bytes` or `day`.
    pub what: &'a str,
    /// So much.
    pub used: i64,
    /// When, microseconds since 1970.
    pub at_us: i64,
}

/// The change that counts what a store has forgotten: nothing where it knows of as much, or nobody asks any more.
///
/// # Errors
/// `store_unavailable`.
pub async fn replayed(shelf: &dyn Shelf, told: &UsedUp<'_>, now_us: i64) -> Result<Option<Change>, Failure> {
    let (key, gone_us) = match (told.of, told.what) {
        ("mandate", "calls" | "bytes") => {
            let Some(row) = shelf.row(super::mandate::MANDATES, told.id).await? else { return Ok(None) };
            let Ok(mandate) = serde_json::from_str::<Mandate>(&row.body) else { return Ok(None) };
            (if told.what == "calls" { calls_of(told.id) } else { bytes_of(told.id) }, gone_us(&mandate))
        }
        ("agent" | "tool", "day") if told.at_us.div_euclid(DAY_US) == now_us.div_euclid(DAY_US) => {
            turn(&format!("{}/{}", told.of, told.id), DAY_US, now_us)
        }
        _ => return Ok(None),
    };
    let missing = told.used.saturating_sub(used(shelf, &key).await?);
    Ok((missing > 0).then(|| counted(key, missing, i64::MAX, gone_us)))
}

fn calls_of(id: &str) -> String {
    format!("mandate/{id}/calls")
}

fn bytes_of(id: &str) -> String {
    format!("mandate/{id}/bytes")
}

/// One more call for the reports of a mandate and those above it.
pub(super) fn sent(held: &Held, server: &ServerId) -> Vec<Change> {
    let one =
        |mandate: &Mandate| counted(format!("{}{server}", at(mandate.id.as_str())), 1, i64::MAX, gone_us(mandate));
    held.all().map(one).collect()
}

/// When what is counted for a mandate is forgotten.
fn gone_us(mandate: &Mandate) -> i64 {
    let kept = i64::try_from(limit::MANDATE_KEPT.as_micros()).unwrap_or(i64::MAX);
    mandate.ends_us.saturating_add(kept)
}

/// Counts a call that was sent and is not counted yet, for the report, and the bytes of a result, which is there whatever is left: the next
/// call is refused.
///
/// # Errors
/// `store_unavailable`.
pub(super) async fn came(
    shelf: &dyn Shelf,
    held: &Held,
    server: &ServerId,
    (calls, bytes): (i64, i64),
) -> Result<(), Failure> {
    let mut changes = if calls > 0 { sent(held, server) } else { Vec::new() };
    for mandate in held.all().filter(|mandate| mandate.budget.bytes.is_some() && bytes > 0) {
        changes.push(counted(bytes_of(mandate.id.as_str()), bytes, i64::MAX, gone_us(mandate)));
    }
    if changes.is_empty() {
        return Ok(());
    }
    shelf.change(changes, Tell::Nobody).await.map(drop)
}

/// How many calls were made under a mandate and those below it, by server.
///
/// # Errors
/// `store_unavailable`.
pub(super) async fn by_server(shelf: &dyn Shelf, mandate: &Mandate) -> Result<Vec<(String, i64)>, Failure> {
    let prefix = at(mandate.id.as_str());
    let rows = shelf.rows(COUNTS, None, Some(&prefix)).await?;
    let own = rows.into_iter().map_while(|row| Some((row.key.strip_prefix(&prefix)?.to_owned(), row.number)));
    Ok(own.collect())
}

fn at(id: &str) -> String {
    format!("mandate/{id}/at/")
}

/// What is left of a mandate's own budget.
///
/// # Errors
/// `store_unavailable`.
pub(super) async fn left(shelf: &dyn Shelf, mandate: &Mandate) -> Result<Left, Failure> {
    let mut left = Left::default();
    if let Some(calls) = mandate.budget.calls {
        left.calls = Some(i64::from(calls) - used(shelf, &calls_of(mandate.id.as_str())).await?);
    }
    if let Some(bytes) = mandate.budget.bytes {
        let most = i64::try_from(bytes).unwrap_or(i64::MAX);
        left.bytes = Some(most.saturating_sub(used(shelf, &bytes_of(mandate.id.as_str())).await?).max(0));
    }
    Ok(left)
}

async fn used(shelf: &dyn Shelf, key: &str) -> Result<i64, Failure> {
    Ok(shelf.row(COUNTS, key).await?.map_or(0, |row| row.number))
}
