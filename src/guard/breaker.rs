//! The breaker: what is refused, tries new things or fails too often is stopped before a person looks.
//!
//! Decides when that is, of agents, of tasks and of tools. Refuses to know how any of them is stopped. Counts are kept in
//! memory, by each replica for itself: an agent that goes to several gets that much further. Only which tools an agent
//! has called is kept in the store, so that a restart makes nothing new. Invariant: nobody waits for it; what trips it
//! once begins anew.
//!
//! Who is watched: an agent that acts on its own, as such. An assistant that people use is watched for each person, and
//! stopped for that person alone: one turned conversation must not stop everybody else. What an assistant calls for the
//! first time is not counted, because people try things. A task is watched with all that is below it, whichever agents
//! work on it; what it may call was written down before it began, so that nothing is new to it. Tools: see [`tool`].

mod answerable;
mod ends;
mod places;
mod tool;

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use answerable::answerable;
pub use ends::End;
use ends::{Ends, share};
use places::Places;
pub use tool::Closed;
use tool::Tools;

use super::mandate::Held;
use crate::catalog::Target;
use crate::config::{AgentKind, BreakerConfig, Config};
use crate::identity::{Caller, Persona};
use crate::ids::{Action as Act, AgentId, MandateId, ServerId, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal};
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

/// What happened to one of them, or under one mandate.
#[derive(Debug, Default)]
struct Circuit {
    denials: VecDeque<Instant>,
    /// Of each of the last calls, the server as a number, and whether it was an error.
    ends: Ends,
    fresh: VecDeque<Instant>,
    /// The tools that it has called; nothing until the store was asked.
    seen: Option<HashSet<String>>,
    /// Since when it is known, microseconds since 1970.
    since_us: i64,
}

/// What happens to agents, under mandates, and with tools.
#[derive(Debug)]
pub struct Breaker {
    shelf: Arc<dyn Shelf>,
    circuits: Places<Circuit>,
    mandates: Places<Circuit>,
    tools: Tools,
    numbers: RandomState,
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

impl Breaker {
    pub(super) fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self {
            shelf,
            circuits: Places::new(limit::BREAKER_WATCHED_MAX),
            mandates: Places::new(limit::BREAKER_WATCHED_MAX),
            tools: Tools::new(),
            numbers: RandomState::new(),
        }
    }

    /// A call was refused; answers why that was once too often.
    #[must_use]
    pub fn refused(&self, who: &Watched, reason: Reason, config: &BreakerConfig) -> Option<String> {
        let number = || self.numbers.hash_one(who);
        is_denial(reason).then(|| denied(&self.circuits, number(), config.denials_per_minute)).flatten()
    }

    /// The same of a task: which one was refused too often, and why; the outermost, where several were. What comes too late
    /// for a part of a task says nothing against the rest of it.
    #[must_use]
    pub fn refused_under<'a>(
        &self,
        held: &'a Held,
        reason: Reason,
        config: &BreakerConfig,
    ) -> Option<(&'a MandateId, String)> {
        if !is_denial(reason) || reason == Reason::MandateEnded {
            return None;
        }
        let count =
            |id: &MandateId| denied(&self.mandates, self.numbers.hash_one(id), config.mandate_denials_per_minute);
        outermost(held, count)
    }

    /// A call is over; answers why that was one error too many. That one server answers with errors says more about that
    /// server, as long as others do not.
    #[must_use]
    pub fn ended(&self, who: &Watched, server: &ServerId, end: End, config: &BreakerConfig) -> Option<String> {
        let of = (config.errors_percent, config.errors_of);
        failed(&self.circuits, self.numbers.hash_one(who), self.numbers.hash_one(server), end, of)
    }

    /// The same of a task: which one has failed too often, and why; the outermost, where several have.
    #[must_use]
    pub fn ended_under<'a>(
        &self,
        held: &'a Held,
        server: &ServerId,
        end: End,
        config: &BreakerConfig,
    ) -> Option<(&'a MandateId, String)> {
        let (server, of) = (self.numbers.hash_one(server), (config.mandate_errors_percent, config.mandate_errors_of));
        outermost(held, |id: &MandateId| failed(&self.mandates, self.numbers.hash_one(id), server, end, of))
    }

    /// A call of a tool is over; answers where that closes it. That it was called wrongly says nothing about it.
    #[must_use]
    pub fn tool_ended(&self, target: &Target, caller: &Caller, end: End, config: &Config) -> Option<Closed> {
        if *target.action() != Act::Call || end == End::Misused {
            return None;
        }
        let caller = || self.numbers.hash_one(answerable(caller, config));
        self.tools.ended(|| self.tool(target), caller, end.is_error(), &config.breaker)
    }

    /// Whether a tool is called at all just now.
    ///
    /// # Errors
    /// `tool_suspended`.
    pub fn admits(&self, target: &Target) -> Result<(), Refusal> {
        let closed = self.tools.closed(|| self.tool(target)).filter(|_| *target.action() == Act::Call);
        closed.map_or(Ok(()), |left| {
            let seconds = left.as_secs().saturating_add(1);
            let hint = format!("too many of its calls have failed, whoever made them; try again in {seconds} seconds");
            Err(Refusal::new(Reason::ToolSuspended).hint(hint))
        })
    }

    fn tool(&self, target: &Target) -> u64 {
        self.numbers.hash_one((target.server_id(), target.name()))
    }

    /// Whether an agent is known to have called a tool. Asks nobody.
    #[must_use]
    pub fn has_called(&self, who: &Watched, tool: &str) -> bool {
        let seen = |circuit: &mut Circuit| circuit.seen.as_ref().is_some_and(|seen| seen.contains(tool));
        self.circuits.with(self.numbers.hash_one(who), seen)
    }

    /// A tool was called; answers why that was one new tool too many. Only agents that act on their own are asked about.
    ///
    /// # Errors
    /// `store_unavailable`: then nothing is counted.
    pub async fn called(&self, who: &Watched, tool: &str, config: &BreakerConfig) -> Result<Option<String>, Failure> {
        if who.subject.is_some() {
            return Ok(None);
        }
        let number = self.numbers.hash_one(who);
        let is_known = self.circuits.with(number, |circuit| circuit.seen.as_ref().map(|seen| seen.contains(tool)));
        if is_known == Some(true) {
            return Ok(None);
        }
        if is_known.is_none() {
            let (seen, since_us) = self.remembered(&who.agent).await?;
            self.circuits.with(number, |circuit| {
                circuit.since_us = since_us;
                circuit.seen.get_or_insert(seen);
            });
        }
        let (fresh, fits, learning) = self.circuits.with(number, |circuit| {
            let fits = circuit.seen.as_ref().is_some_and(|seen| seen.len() < limit::TOOLS_SEEN_PER_AGENT_MAX);
            // Whoever has called so many tools goes on with new ones; those are not remembered.
            let fresh = !fits || circuit.seen.as_mut().is_some_and(|seen| seen.insert(tool.to_owned()));
            let learnt = i64::try_from(config.learning.as_micros()).unwrap_or(i64::MAX);
            let now_us = jiff::Timestamp::now().as_microsecond();
            (fresh, fits, circuit.since_us.saturating_add(learnt) > now_us)
        });
        if !fresh {
            return Ok(None);
        }
        if fits {
            self.remember(&who.agent, tool).await?;
        }
        if learning {
            return Ok(None);
        }
        Ok(tripping(&self.circuits, number, |circuit| {
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
}

/// Counts something; what trips begins anew, with what was seen.
fn tripping(
    circuits: &Places<Circuit>,
    number: u64,
    count: impl FnOnce(&mut Circuit) -> Option<String>,
) -> Option<String> {
    circuits.with(number, |circuit| {
        let tripped = count(circuit);
        if tripped.is_some() {
            circuit.denials.clear();
            circuit.ends.clear();
            circuit.fresh.clear();
        }
        tripped
    })
}

/// One more refusal within a minute.
fn denied(circuits: &Places<Circuit>, number: u64, most: u32) -> Option<String> {
    tripping(circuits, number, |circuit| {
        let count = counted(&mut circuit.denials, MINUTE, Instant::now());
        (count >= most).then(|| format!("{count} calls were refused within a minute"))
    })
}

/// One more end, of a call to that server.
fn failed(circuits: &Places<Circuit>, number: u64, server: u64, end: End, (percent, of): (u32, u32)) -> Option<String> {
    let of = usize::try_from(of).unwrap_or(usize::MAX);
    tripping(circuits, number, |circuit| {
        circuit.ends.push(server, end.is_error(), of);
        let (errors, errors_min) = (circuit.ends.errors(), share(percent, of));
        (errors >= errors_min && circuit.ends.is_full(of) && are_its_own(&circuit.ends, errors_min))
            .then(|| format!("{errors} of the last {of} calls were errors"))
    })
}

/// Counts for every mandate that counts; the outermost of those that trip is what is told, because what is below it ends
/// with it.
fn outermost(held: &Held, count: impl Fn(&MandateId) -> Option<String>) -> Option<(&MandateId, String)> {
    let trips = held.all().filter_map(|mandate| Some((&mandate.id, count(&mandate.id)?)));
    trips.fold(None, |first, trip| first.or(Some(trip)))
}

/// Whether there are so many errors that they say something about whoever called: where several servers were called, at
/// most half of them count from any one, and it takes two of two servers. A server that answers with nothing else must
/// not be able to stop its callers everywhere.
fn are_its_own(ends: &Ends, errors_min: usize) -> bool {
    if ends.are_of_one() {
        return ends.errors() >= errors_min;
    }
    let errors_min = errors_min.max(2);
    ends.errors_of_each(errors_min.div_ceil(2)) >= errors_min
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
        let ends = |all: &[(u64, bool, usize)]| -> Ends {
            let mut ends = Ends::default();
            let each = all.iter().flat_map(|(server, error, times)| std::iter::repeat_n((*server, *error), *times));
            each.for_each(|(server, error)| ends.push(server, error, 100));
            ends
        };
        assert!(are_its_own(&ends(&[(1, true, 10), (1, false, 10)]), 10), "nothing else was called");
        assert!(!are_its_own(&ends(&[(1, true, 9), (1, false, 11)]), 10));
        assert!(!are_its_own(&ends(&[(1, true, 19), (2, false, 1)]), 10), "one that always fails");
        assert!(!are_its_own(&ends(&[(1, true, 16), (2, true, 4)]), 10), "and a few errors elsewhere");
        assert!(are_its_own(&ends(&[(1, true, 5), (2, true, 5), (3, false, 10)]), 10), "both fail");
        assert!(are_its_own(&ends(&[(1, true, 4), (2, true, 3), (3, true, 3), (4, false, 10)]), 10));
    }

    #[test]
    fn however_few_errors_it_takes_two_servers_that_fail_stop_whoever_calls_them() {
        let who = Watched { agent: AgentId::new("bot").unwrap(), subject: None };
        let [one, other, third] = ["one", "other", "third"].map(|id| ServerId::new(id).unwrap());
        let trips = |percent: u32, ends: &[(&ServerId, End)]| {
            let breaker = Breaker::new(Arc::new(Counting::default()));
            let config = BreakerConfig { errors_percent: percent, errors_of: 20, ..BreakerConfig::default() };
            let well = std::iter::repeat_n((&third, End::Well), 20);
            let ends = well.chain(ends.iter().copied());
            ends.filter(|(server, end)| breaker.ended(&who, server, *end, &config).is_some()).count() > 0
        };
        let (bad, worse) = ((&one, End::Failed), (&other, End::Failed));
        assert!(trips(5, &[bad, worse]), "one in twenty, and each has failed once");
        assert!(!trips(5, &[bad; 10]), "one server alone never does");
        assert!(trips(15, &[bad, bad, worse]), "three: two of one and one of another");
        assert!(!trips(15, &[bad, bad, bad]) && !trips(15, &[bad, worse]));
    }

    #[test]
    fn so_many_are_watched_and_whoever_comes_when_all_places_are_taken_trips_all_the_same() {
        let agent = |number: usize| Watched { agent: AgentId::new(&format!("agent-{number}")).unwrap(), subject: None };
        let breaker = Breaker::new(Arc::new(Counting::default()));
        let config = BreakerConfig { denials_per_minute: 3, ..BreakerConfig::default() };
        for number in 0..limit::BREAKER_WATCHED_MAX + 2_000 {
            assert_eq!(breaker.refused(&agent(number), Reason::NotAllowed, &config), None);
        }
        assert!(breaker.circuits.len() <= limit::BREAKER_WATCHED_MAX);
        let late = agent(usize::MAX);
        let tripped: Vec<bool> =
            (0..3).map(|_| breaker.refused(&late, Reason::NotAllowed, &config).is_some()).collect();
        assert_eq!(tripped, [false, false, true]);
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
