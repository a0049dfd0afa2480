//! The breaker: an agent that is refused, tries new things or fails too often is stopped before a person looks.
//!
//! Decides when that is. Refuses to know how an agent is stopped. Counts are kept in memory, by each replica for itself:
//! an agent that goes to several gets that much further. Only which tools an agent has called is kept in the store, so
//! that a restart makes nothing new. Invariant: nobody waits for it; what trips it once begins anew.
//!
//! Who is watched: an agent that acts on its own, as such. An assistant that people use is watched for each person, and
//! stopped for that person alone: one turned conversation must not stop everybody else. What an assistant calls for the
//! first time is not counted, because people try things.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{AgentKind, BreakerConfig, Config};
use crate::identity::Persona;
use crate::ids::{AgentId, Subject};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::shelf::{Action, Change, Expect, Section, Shelf, Tell};
use crate::wire::Value;

/// The tools that agents were seen to call.
const SEEN: Section = Section { name: "tool_seen", rows_max: limit::TOOLS_SEEN_MAX };

const MINUTE: Duration = Duration::from_secs(60);

/// Who is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The agent.
    pub agent: AgentId,
    /// For whom, where it is not watched as such.
    pub subject: Option<Subject>,
}

/// What happened to one of them.
#[derive(Debug, Default)]
struct Circuit {
    denials: VecDeque<Instant>,
    /// Whether each of the last calls was an error.
    ends: VecDeque<bool>,
    fresh: VecDeque<Instant>,
    /// The tools that it has called; nothing until the store was asked.
    seen: Option<HashSet<String>>,
    /// Since when it is known, microseconds since 1970.
    since_us: i64,
}

/// What happens to agents.
#[derive(Debug)]
pub struct Breaker {
    shelf: Arc<dyn Shelf>,
    circuits: moka::sync::Cache<Watched, Arc<Mutex<Circuit>>>,
}

impl Watched {
    /// Who is watched of a caller; nobody where no agent calls.
    #[must_use]
    pub fn of(persona: &Persona, config: &Config) -> Option<Self> {
        let agent = &persona.agent.as_ref()?.id;
        let alone = config.agents.get(agent).is_some_and(|agent| agent.kind == AgentKind::Autonomous);
        let subject = if alone { None } else { Some(persona.user.clone()?) };
        Some(Self { agent: agent.clone(), subject })
    }
}

impl Breaker {
    pub(super) fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf, circuits: moka::sync::Cache::new(limit::BREAKER_WATCHED_MAX) }
    }

    /// A call was refused; answers why that was once too often.
    #[must_use]
    pub fn refused(&self, who: &Watched, reason: Reason, config: &BreakerConfig) -> Option<String> {
        if !is_denial(reason) {
            return None;
        }
        self.with(who, |circuit| {
            let count = counted(&mut circuit.denials, MINUTE, Instant::now());
            (count >= config.denials_per_minute).then(|| format!("{count} calls were refused within a minute"))
        })
    }

    /// A call is over; answers why that was one error too many. That a server could not be reached says nothing about who
    /// called it.
    #[must_use]
    pub fn ended(&self, who: &Watched, outcome: &Outcome, config: &BreakerConfig) -> Option<String> {
        let is_error = match outcome {
            Outcome::Complete(result) => result
                .value()
                .as_object()
                .is_some_and(|result| result.get("isError").and_then(Value::as_bool).unwrap_or_default()),
            Outcome::Error(_) => true,
            Outcome::InputRequired { .. } | Outcome::Task(_) | Outcome::Refused(_) | Outcome::Failed(_) => return None,
        };
        self.with(who, |circuit| {
            circuit.ends.push_back(is_error);
            let of = usize::try_from(config.errors_of).unwrap_or(usize::MAX);
            while circuit.ends.len() > of {
                circuit.ends.pop_front();
            }
            let errors = circuit.ends.iter().filter(|error| **error).count();
            let full = circuit.ends.len() == of;
            let percent = usize::try_from(config.errors_percent).unwrap_or(usize::MAX);
            (full && errors * 100 >= percent * of).then(|| format!("{errors} of the last {of} calls were errors"))
        })
    }

    /// A tool was called; answers why that was one new tool too many. Only agents that act on their own are asked about.
    ///
    /// # Errors
    /// `store_unavailable`: then nothing is counted.
    pub async fn called(&self, who: &Watched, tool: &str, config: &BreakerConfig) -> Result<Option<String>, Failure> {
        if who.subject.is_some() {
            return Ok(None);
        }
        let known = self.circuit(who);
        let is_known = lock(&known).seen.as_ref().map(|seen| seen.contains(tool));
        if is_known == Some(true) {
            return Ok(None);
        }
        if is_known.is_none() {
            let (seen, since_us) = self.remembered(&who.agent).await?;
            let mut circuit = lock(&known);
            circuit.since_us = since_us;
            circuit.seen.get_or_insert(seen);
        }
        let (fresh, learning) = {
            let mut circuit = lock(&known);
            let fresh = circuit.seen.as_mut().is_some_and(|seen| seen.insert(tool.to_owned()));
            let learnt = i64::try_from(config.learning.as_micros()).unwrap_or(i64::MAX);
            let now_us = jiff::Timestamp::now().as_microsecond();
            (fresh, circuit.since_us.saturating_add(learnt) > now_us)
        };
        if !fresh {
            return Ok(None);
        }
        self.remember(&who.agent, tool).await?;
        if learning {
            return Ok(None);
        }
        Ok(self.with(who, |circuit| {
            let count = counted(&mut circuit.fresh, config.new_tools_within, Instant::now());
            let within = config.new_tools_within.as_secs();
            (count >= config.new_tools)
                .then(|| format!("{count} tools were called for the first time within {within} seconds"))
        }))
    }

    /// The tools that an agent was seen to call, and since when it is known.
    async fn remembered(&self, agent: &AgentId) -> Result<(HashSet<String>, i64), Failure> {
        let (mut seen, mut since_us) = (HashSet::new(), jiff::Timestamp::now().as_microsecond());
        let mut after: Option<String> = None;
        let prefix = format!("{agent}/");
        loop {
            let rows = self.shelf.rows(SEEN, Some(agent.as_str()), after.as_deref()).await?;
            let full = rows.len() >= limit::SHELF_ROWS_READ_MAX;
            for row in rows {
                since_us = row.body.parse().map_or(since_us, |at: i64| at.min(since_us));
                seen.extend(row.key.strip_prefix(&prefix).map(str::to_owned));
                after = Some(row.key);
            }
            if !full {
                return Ok((seen, since_us));
            }
        }
    }

    async fn remember(&self, agent: &AgentId, tool: &str) -> Result<(), Failure> {
        let body = jiff::Timestamp::now().as_microsecond().to_string();
        let put = Action::Put { owner: agent.to_string(), body, expires_at_us: None };
        let key = format!("{agent}/{tool}");
        // Another replica may have seen it just now; where no more fit, it is new again after a restart.
        if key.len() <= limit::SHELF_KEY_BYTES_MAX {
            let _kept = self.shelf.change(vec![Change::new(SEEN, key, Expect::Absent, put)], Tell::Nobody).await?;
        }
        Ok(())
    }

    fn circuit(&self, who: &Watched) -> Arc<Mutex<Circuit>> {
        self.circuits.get_with_by_ref(who, Arc::default)
    }

    /// Counts something; whoever trips begins anew, with what was seen.
    fn with(&self, who: &Watched, count: impl FnOnce(&mut Circuit) -> Option<String>) -> Option<String> {
        let known = self.circuit(who);
        let mut circuit = lock(&known);
        let tripped = count(&mut circuit);
        if tripped.is_some() {
            circuit.denials.clear();
            circuit.ends.clear();
            circuit.fresh.clear();
        }
        tripped
    }
}

fn lock(circuit: &Mutex<Circuit>) -> std::sync::MutexGuard<'_, Circuit> {
    circuit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One more now; how many there were within that time.
fn counted(events: &mut VecDeque<Instant>, within: Duration, now: Instant) -> u32 {
    events.push_back(now);
    let most = usize::try_from(limit::BREAKER_EVENTS_MAX).unwrap_or(usize::MAX);
    while events.len() > most || events.front().is_some_and(|first| now.duration_since(*first) > within) {
        events.pop_front();
    }
    u32::try_from(events.len()).unwrap_or(u32::MAX)
}

/// Whether a refusal says that somebody tried what they may not do. Limits say only that they were fast.
const fn is_denial(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::DeniedByRule
            | Reason::NotAllowed
            | Reason::ConditionUnmet
            | Reason::EnvironmentRefused
            | Reason::TargetUnknown
            | Reason::UriRefused
            | Reason::MandateRequired
            | Reason::MandateUnknown
            | Reason::MandateScope
            | Reason::MandateEnded
            | Reason::MandateRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_within_their_time_and_no_more_than_fit_are_kept() {
        let (mut events, began) = (VecDeque::new(), Instant::now());
        for second in 0..5 {
            counted(&mut events, MINUTE, began + Duration::from_secs(second));
        }
        assert_eq!(counted(&mut events, MINUTE, began + Duration::from_secs(63)), 3, "those of 3, 4 and 63");
        for _ in 0..2 * limit::BREAKER_EVENTS_MAX {
            counted(&mut events, MINUTE, began + Duration::from_secs(64));
        }
        assert_eq!(counted(&mut events, MINUTE, began + Duration::from_secs(64)), limit::BREAKER_EVENTS_MAX);
    }

    #[test]
    fn being_fast_is_no_denial_and_trying_what_one_may_not_is() {
        assert!(is_denial(Reason::DeniedByRule) && is_denial(Reason::MandateScope));
        assert!(!is_denial(Reason::RateLimited) && !is_denial(Reason::StoreUnavailable));
    }
}
