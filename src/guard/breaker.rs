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
use crate::ids::{AgentId, ServerId, Subject};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, says_error};
use crate::shelf::{Action, Change, Expect, Section, Shelf, Tell};

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
    /// Of each of the last calls, the server as a number, and whether it was an error.
    ends: VecDeque<(u64, bool)>,
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
        // Whoever calls for nobody, with an API key for example, is watched as the agent that it is.
        let subject = persona.user.clone().filter(|_| !is_alone(agent, config));
        Some(Self { agent: agent.clone(), subject })
    }

    /// Whether what it calls for the first time counts.
    #[must_use]
    pub fn tries_nothing(&self, config: &Config) -> bool {
        is_alone(&self.agent, config)
    }
}

fn is_alone(agent: &AgentId, config: &Config) -> bool {
    config.agents.get(agent).is_some_and(|agent| agent.kind == AgentKind::Autonomous)
}

/// Whoever comes last is watched, whatever others have filled.
fn circuits(watched_max: u64) -> moka::sync::Cache<Watched, Arc<Mutex<Circuit>>> {
    moka::sync::Cache::builder().eviction_policy(moka::policy::EvictionPolicy::lru()).max_capacity(watched_max).build()
}

impl Breaker {
    pub(super) fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf, circuits: circuits(limit::BREAKER_WATCHED_MAX) }
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
    /// called it; and that one server answers with errors says more about that server, as long as others do not.
    #[must_use]
    pub fn ended(&self, who: &Watched, server: &ServerId, outcome: &Outcome, config: &BreakerConfig) -> Option<String> {
        let is_error = match outcome {
            Outcome::Complete(result) => says_error(result),
            Outcome::Error(_) => true,
            Outcome::Failed(failure) if is_its_servers(failure.reason) => true,
            Outcome::InputRequired { .. } | Outcome::Task(_) | Outcome::Refused(_) | Outcome::Failed(_) => return None,
        };
        self.with(who, |circuit| {
            circuit.ends.push_back((number(server), is_error));
            let of = usize::try_from(config.errors_of).unwrap_or(usize::MAX);
            while circuit.ends.len() > of {
                circuit.ends.pop_front();
            }
            let full = circuit.ends.len() == of;
            let percent = usize::try_from(config.errors_percent).unwrap_or(usize::MAX);
            let errors = circuit.ends.iter().filter(|(_, error)| *error).count();
            (full && are_its_own(&circuit.ends, percent.saturating_mul(of).div_ceil(100)))
                .then(|| format!("{errors} of the last {of} calls were errors"))
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
        let (fresh, fits, learning) = {
            let mut circuit = lock(&known);
            let fits = circuit.seen.as_ref().is_some_and(|seen| seen.len() < limit::TOOLS_SEEN_PER_AGENT_MAX);
            // Whoever has called so many tools goes on with new ones; those are not remembered.
            let fresh = !fits || circuit.seen.as_mut().is_some_and(|seen| seen.insert(tool.to_owned()));
            let learnt = i64::try_from(config.learning.as_micros()).unwrap_or(i64::MAX);
            let now_us = jiff::Timestamp::now().as_microsecond();
            (fresh, fits, circuit.since_us.saturating_add(learnt) > now_us)
        };
        if !fresh {
            return Ok(None);
        }
        if fits {
            self.remember(&who.agent, tool).await?;
        }
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

/// A server among those that one agent calls.
fn number(server: &ServerId) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    hasher.finish()
}

/// Whether there are so many errors that they say something about whoever called: where several servers were called, at
/// most half of them count from any one. A server that answers with nothing else must not be able to stop its callers
/// everywhere.
fn are_its_own(ends: &VecDeque<(u64, bool)>, errors_min: usize) -> bool {
    let first = ends.front().map(|(server, _)| *server);
    let is_only = ends.iter().all(|(server, _)| Some(*server) == first);
    let most = if is_only { usize::MAX } else { errors_min / 2 };
    let mut counted = 0_usize;
    let mut seen: Vec<u64> = Vec::new();
    for (server, _) in ends.iter().filter(|(_, error)| *error) {
        if !seen.contains(server) {
            seen.push(*server);
            let errors = ends.iter().filter(|(of, error)| *error && of == server).count();
            counted = counted.saturating_add(errors.min(most));
        }
    }
    counted >= errors_min
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

/// Whether a failure is that of a server which had got the call: it did not answer in time, or nothing that is an answer.
const fn is_its_servers(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamTimeout | Reason::UpstreamClosed | Reason::UpstreamGarbage | Reason::UpstreamStatus
    )
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
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::shelf::{Changed, Row, Version};

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
    fn one_server_that_fails_stops_nobody_who_calls_others_and_errors_of_several_do() {
        let ends = |all: &[(u64, bool, usize)]| -> VecDeque<(u64, bool)> {
            all.iter().flat_map(|(server, error, times)| std::iter::repeat_n((*server, *error), *times)).collect()
        };
        assert!(are_its_own(&ends(&[(1, true, 10), (1, false, 10)]), 10), "nothing else was called");
        assert!(!are_its_own(&ends(&[(1, true, 9), (1, false, 11)]), 10));
        assert!(!are_its_own(&ends(&[(1, true, 19), (2, false, 1)]), 10), "one that always fails");
        assert!(!are_its_own(&ends(&[(1, true, 16), (2, true, 4)]), 10), "and a few errors elsewhere");
        assert!(are_its_own(&ends(&[(1, true, 5), (2, true, 5), (3, false, 10)]), 10), "both fail");
        assert!(are_its_own(&ends(&[(1, true, 4), (2, true, 3), (3, true, 3), (4, false, 10)]), 10));
    }

    #[test]
    fn so_many_are_watched_and_whoever_comes_when_all_places_are_taken_trips_all_the_same() {
        let agent = |number: u64| Watched { agent: AgentId::new(&format!("agent-{number}")).unwrap(), subject: None };
        let breaker = Breaker::new(Arc::new(Counting::default()));
        let config = BreakerConfig { denials_per_minute: 3, ..BreakerConfig::default() };
        for number in 0..limit::BREAKER_WATCHED_MAX + 2_000 {
            assert_eq!(breaker.refused(&agent(number), Reason::NotAllowed, &config), None);
        }
        breaker.circuits.run_pending_tasks();
        assert!(breaker.circuits.entry_count() <= limit::BREAKER_WATCHED_MAX);
        let late = agent(u64::MAX);
        let tripped: Vec<bool> =
            (0..3).map(|_| breaker.refused(&late, Reason::NotAllowed, &config).is_some()).collect();
        assert_eq!(tripped, [false, false, true]);
    }

    #[test]
    fn whoever_comes_last_is_watched_whatever_others_have_filled() {
        let agent = |number: usize| Watched { agent: AgentId::new(&format!("agent-{number}")).unwrap(), subject: None };
        let circuits = circuits(8);
        for number in 0..100 {
            // Those that are there are used often.
            for _ in 0..5 {
                circuits.get_with(agent(number % 8), Arc::default);
            }
            circuits.run_pending_tasks();
        }
        let late = circuits.get_with(agent(1_000), Arc::default);
        circuits.run_pending_tasks();
        assert!(Arc::ptr_eq(&late, &circuits.get_with(agent(1_000), Arc::default)), "and not forgotten at once");
    }

    /// A shelf that keeps nothing and counts what it was given.
    #[derive(Debug, Default)]
    struct Counting(std::sync::atomic::AtomicUsize);

    impl Shelf for Counting {
        fn row<'a>(&'a self, _: Section, _: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
            async { Ok(None) }.boxed()
        }

        fn rows<'a>(
            &'a self,
            _: Section,
            _: Option<&'a str>,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
            async { Ok(Vec::new()) }.boxed()
        }

        fn change(&self, changes: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
            self.0.fetch_add(changes.len(), std::sync::atomic::Ordering::Relaxed);
            async { Ok(Changed::Done { numbers: Vec::new(), version: Version(1), epoch: None }) }.boxed()
        }

        fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
            async { Ok(0) }.boxed()
        }
    }

    #[tokio::test]
    async fn so_many_tools_of_one_agent_are_remembered_and_further_ones_are_new_each_time() {
        let shelf = Arc::new(Counting::default());
        let breaker = Breaker::new(Arc::clone(&shelf) as Arc<dyn Shelf>);
        let who = Watched { agent: AgentId::new("bot").unwrap(), subject: None };
        let learning = BreakerConfig { new_tools: 3, ..BreakerConfig::default() };
        for number in 0..limit::TOOLS_SEEN_PER_AGENT_MAX + 100 {
            assert_eq!(breaker.called(&who, &format!("git/{number}"), &learning).await.unwrap(), None);
        }
        assert_eq!(shelf.0.load(std::sync::atomic::Ordering::Relaxed), limit::TOOLS_SEEN_PER_AGENT_MAX);
        let known = BreakerConfig { learning: Duration::ZERO, ..learning };
        assert_eq!(breaker.called(&who, "git/0", &known).await.unwrap(), None, "it was seen");
        let mut tripped = Vec::new();
        for number in 0..3 {
            tripped.push(breaker.called(&who, &format!("other/{number}"), &known).await.unwrap().is_some());
        }
        assert_eq!(tripped, [false, false, true]);
    }

    #[test]
    fn being_fast_is_no_denial_and_trying_what_one_may_not_is() {
        assert!(is_denial(Reason::DeniedByRule) && is_denial(Reason::MandateScope));
        assert!(!is_denial(Reason::RateLimited) && !is_denial(Reason::StoreUnavailable));
    }
}
