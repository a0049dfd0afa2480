//! What the files in `policies.next/` would decide, beside the policy in force: found out afterwards and told.
//!
//! Decides nothing: no answer waits for it or is changed by it. Invariant: without such a directory a decision costs
//! one look at a flag; with one, what does not fit the queue is counted and not evaluated.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Gateway, Snapshot, arguments_of};
use crate::catalog::Target;
use crate::identity::Caller;
use crate::ids::{ClassKey, PolicyRevision, Subject};
use crate::limit;
use crate::outcome::Refusal;
use crate::policy::{Denied, Permit, Policy, Situation};
use crate::record::metrics::Metrics;
use crate::record::redact;
use crate::wire::Json;

/// What would change, as far as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// The revision in force.
    pub live: Option<PolicyRevision>,
    /// The revision that the next files will have in the place of the ones in force; absent where there are none.
    pub next: Option<PolicyRevision>,
    /// Why the next files are not evaluated, although they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Decisions that were made under both.
    pub evaluated: u64,
    /// Decisions that found no place in the queue.
    pub not_evaluated: u64,
    /// What would change, the most frequent first.
    pub differences: Vec<ShadowDifference>,
    /// Decisions that would change as well, for which there is no row.
    pub not_kept: u64,
}

/// One thing that would change for callers about whom the rules say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowDifference {
    /// What would change.
    pub change: Change,
    /// What was done.
    pub action: String,
    /// To what: `server/name`.
    pub object: String,
    /// Why one of the two refuses.
    pub reason: String,
    /// The rule that one of the two refuses by, as `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How often.
    pub count: u64,
    /// By whom, and how often each.
    pub who: BTreeMap<String, u64>,
    /// How often by others.
    pub others: u64,
}

/// What would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Refused now, allowed then.
    NewlyAllowed,
    /// Allowed now, refused then.
    NewlyRefused,
}

impl Change {
    /// The word of metrics, logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewlyAllowed => "newly_allowed",
            Self::NewlyRefused => "newly_refused",
        }
    }
}

/// Evaluates decisions a second time.
pub(super) struct Shadow {
    /// Whether there is a policy to evaluate with: all that a decision looks at otherwise.
    on: AtomicBool,
    queue: Queue<Asked>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

/// A decision that was made.
struct Asked {
    caller: Caller,
    target: Target,
    arguments: Option<Json>,
    situation: Situation,
    following: bool,
    at: Timestamp,
    /// Why it was refused, where it was.
    refusal: Option<Refusal>,
    live: PolicyRevision,
}

/// Never waits: what has no place is counted.
struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    next: Option<Arc<Policy>>,
    problem: Option<String>,
    /// What the next files say, or why nobody knows.
    written: Option<Result<Snapshot, String>>,
    live: Option<PolicyRevision>,
    seen: Seen,
}

/// What was seen of one pair of policies.
#[derive(Default)]
struct Seen {
    evaluated: u64,
    rows: HashMap<(ClassKey, Change, String, String), ShadowDifference>,
    not_kept: u64,
}

impl<T> Queue<T> {
    fn new() -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(limit::SHADOW_QUEUE_MAX);
        (Self { sender, dropped: AtomicU64::new(0) }, receiver)
    }

    fn offer(&self, asked: T) -> bool {
        let taken = self.sender.try_send(asked).is_ok();
        if !taken {
            self.drop_one();
        }
        taken
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// What the files in `policies.next/` would decide otherwise, as far as it was seen.
    #[must_use]
    pub fn shadow(&self) -> ShadowReport {
        self.shadow.report()
    }
}

impl Shadow {
    /// Begins to evaluate, until it is stopped. Needs a runtime.
    pub(super) fn start(metrics: Arc<Metrics>, stopping: CancellationToken) -> Arc<Self> {
        let (queue, mut asked) = Queue::new();
        let shadow = Arc::new(Self { on: AtomicBool::new(false), queue, state: Mutex::default(), metrics });
        let evaluating = Arc::clone(&shadow);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    asked = asked.recv() => match asked {
                        Some(asked) => evaluating.evaluate(asked),
                        None => return,
                    },
                }
            }
        });
        shadow
    }

    /// Whether decisions are to be shown here.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Takes note of a decision.
    pub(super) fn decided(&self, decision: &Result<Permit, Box<Denied>>, arguments: Option<&Json>, following: bool) {
        let (caller, target, refusal, live, situation) = match decision {
            Ok(permit) => (permit.caller(), permit.target(), None, permit.revision(), permit.situation()),
            Err(denied) => {
                (&denied.caller, &denied.target, Some(denied.refusal.clone()), denied.revision, &denied.situation)
            }
        };
        // What waits is bounded in bytes as well.
        let taken = arguments.is_none_or(|arguments| arguments.as_str().len() <= limit::SHADOW_ARGUMENTS_BYTES_MAX)
            && {
                let (caller, target, arguments) = (caller.clone(), target.clone(), arguments.cloned());
                let (situation, at) = (situation.clone(), Timestamp::now());
                self.queue.offer(Asked { caller, target, arguments, situation, following, at, refusal, live })
            };
        if !taken {
            self.metrics.shadow_dropped.inc();
        }
        if arguments.is_some_and(|arguments| arguments.as_str().len() > limit::SHADOW_ARGUMENTS_BYTES_MAX) {
            self.queue.drop_one();
        }
    }

    /// Keeps what the next files say.
    pub(super) fn keep(&self, next: Result<Option<Snapshot>, String>) {
        self.state().written = next.transpose();
    }

    /// What the next files said when they were read.
    pub(super) fn kept(&self) -> Result<Option<Snapshot>, String> {
        self.state().written.clone().transpose()
    }

    /// Evaluates with this policy from now on, or with none.
    pub(super) fn put(&self, next: Result<Option<Arc<Policy>>, String>, live: PolicyRevision) {
        let mut state = self.state();
        let (next, problem) = match next {
            Ok(next) => (next, None),
            Err(problem) => (None, Some(problem)),
        };
        let base = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.base());
        if base(&next) != base(&state.next) || state.live != Some(live) {
            state.seen = Seen::default();
            self.queue.dropped.store(0, Ordering::Relaxed);
        }
        self.on.store(next.is_some(), Ordering::Relaxed);
        (state.next, state.problem, state.live) = (next, problem, Some(live));
    }

    /// What was seen so far.
    pub(super) fn report(&self) -> ShadowReport {
        let state = self.state();
        let mut differences: Vec<_> = state.seen.rows.values().cloned().collect();
        differences.sort_by(|one, other| {
            (other.count, one.change, &one.object).cmp(&(one.count, other.change, &other.object))
        });
        ShadowReport {
            live: state.live,
            next: state.next.as_ref().map(|policy| policy.revision()),
            problem: state.problem.clone(),
            evaluated: state.seen.evaluated,
            not_evaluated: self.queue.dropped.load(Ordering::Relaxed),
            differences,
            not_kept: state.seen.not_kept,
        }
    }

    fn evaluate(&self, asked: Asked) {
        let Some(next) = self.state().next.clone() else { return };
        let Asked { caller, target, arguments, situation, following, at, refusal, live } = asked;
        let class = next.class_of(&caller).key();
        let decided = if following {
            next.authorize_following(caller.clone(), target.clone())
        } else {
            let given = arguments_of(target.action(), arguments.as_ref());
            next.authorize(caller.clone(), target.clone(), given, at, situation)
        };
        let found = match (refusal, decided) {
            (Some(refusal), Ok(_)) => Some((Change::NewlyAllowed, refusal)),
            (None, Err(denied)) => Some((Change::NewlyRefused, denied.refusal)),
            _ => None,
        };
        let mut state = self.state();
        // Decided under files that are not in force any more: the pair is another one.
        if state.live != Some(live) || state.next.as_ref().map(|policy| policy.base()) != Some(next.base()) {
            return;
        }
        state.seen.evaluated += 1;
        let Some((change, refusal)) = found else { return };
        self.metrics.shadow_differed(change.as_str());
        let persona = caller.persona();
        let user = persona.user.as_ref().map_or("anyone", Subject::as_str);
        let who =
            persona.agent.as_ref().map_or_else(|| user.to_owned(), |agent| format!("{user} with agent:{}", agent.id));
        let difference = ShadowDifference {
            change,
            action: target.action().to_string(),
            object: format!("{}/{}", target.server_id(), plain(target.name())),
            reason: refusal.reason.code().to_owned(),
            rule: refusal.rule.as_deref().map(str::to_owned),
            count: 0,
            who: BTreeMap::new(),
            others: 0,
        };
        if state.seen.take(class, who, difference) {
            let (action, object) = (target.action().to_string(), plain(target.name()));
            tracing::info!(
                change = change.as_str(), action, server = %target.server_id(), object = &*object,
                reason = refusal.reason.code(), "policies.next would decide otherwise"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Counts one; whether it is the first of its kind.
    fn take(&mut self, class: ClassKey, who: String, difference: ShadowDifference) -> bool {
        let key = (class, difference.change, difference.action.clone(), difference.object.clone());
        let is_new = !self.rows.contains_key(&key);
        if is_new && self.rows.len() >= limit::SHADOW_DIFFERENCES_MAX {
            self.not_kept += 1;
            return false;
        }
        let row = self.rows.entry(key).or_insert(difference);
        row.count += 1;
        if row.who.len() < limit::SHADOW_WHO_MAX || row.who.contains_key(&who) {
            *row.who.entry(who).or_default() += 1;
        } else {
            row.others += 1;
        }
        is_new
    }
}

/// A name that an upstream or a client chose, for a terminal.
fn plain(name: &str) -> Cow<'_, str> {
    let text = redact::text(name);
    if text.chars().any(char::is_control) { text.replace(char::is_control, "\u{fffd}").into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    fn difference(object: &str) -> ShadowDifference {
        ShadowDifference {
            change: Change::NewlyRefused,
            action: "call".to_owned(),
            object: object.to_owned(),
            reason: "denied_by_rule".to_owned(),
            rule: None,
            count: 0,
            who: BTreeMap::new(),
            others: 0,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (queue, _asked) = Queue::new();
        for number in 0..limit::SHADOW_QUEUE_MAX {
            assert!(queue.offer(number));
        }
        assert!(!queue.offer(0));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_is_counted() {
        let class = ClassKey(Digest::of("test", &[b"class"]));
        let mut seen = Seen::default();
        for number in 0..=limit::SHADOW_WHO_MAX {
            let is_first = seen.take(class, format!("user:corp/{number}"), difference("tools/a"));
            assert_eq!(is_first, number == 0, "it is told once");
        }
        let row = seen.rows.values().next().unwrap();
        assert_eq!((row.who.len(), row.others), (limit::SHADOW_WHO_MAX, 1));
        assert_eq!(row.count, limit::SHADOW_WHO_MAX as u64 + 1);
        for number in 1..=limit::SHADOW_DIFFERENCES_MAX {
            seen.take(class, "user:corp/a".to_owned(), difference(&format!("tools/{number}")));
        }
        assert_eq!((seen.rows.len(), seen.not_kept), (limit::SHADOW_DIFFERENCES_MAX, 1));
    }

    #[test]
    fn names_reach_a_terminal_without_control_characters() {
        assert_eq!(plain("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(plain("file:///a"), "file:///a");
    }
}
