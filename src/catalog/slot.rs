//! Where one slice lives while it is fetched, goes stale, fails and comes back.
//!
//! Decides when a refresh is due and what state a slice is in; does not fetch. Invariant: at most one
//! refresh of a slot runs, and a slice is replaced whole or not at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pins::Pins;
use super::slice::Slice;
use crate::config::{PinMode, ServerConfig};
use crate::ids::{AuthorizationContext, Digest};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::wire::mcp::Kind;

/// How current a slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceState {
    /// Never listed yet; the first attempt is under way.
    Pending,
    /// Listed, and nothing says otherwise.
    Fresh,
    /// Listed; a newer list is due or under way.
    Stale,
    /// The last attempt to reach the server failed.
    Down {
        /// Since when.
        since: Instant,
        /// Why.
        reason: Reason,
    },
}

/// How fast things go: the named limits, and less in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) first_wait: Duration,
    pub(super) renewed_wait: Duration,
    pub(super) refresh_timeout: Duration,
    pub(super) changed_pause: Duration,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) doubt_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_wait: limit::CATALOG_FIRST_WAIT,
            renewed_wait: limit::CATALOG_RENEWED_WAIT,
            refresh_timeout: limit::CATALOG_REFRESH_TIMEOUT,
            changed_pause: limit::CATALOG_CHANGED_PAUSE,
            retry_min: limit::CATALOG_RETRY_MIN,
            retry_max: limit::CATALOG_RETRY_MAX,
            doubt_max: limit::CATALOG_DOUBT_MAX,
        }
    }
}

impl Pace {
    /// How long to wait after so many failures in a row.
    fn backoff(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        self.retry_min.saturating_mul(factor).min(self.retry_max)
    }
}

/// What all slots of one configured server share.
pub(super) struct Shared {
    pub(super) config: ArcSwap<ServerConfig>,
    /// Digest of what makes it the same server: where it is and with whose credential it is listed.
    pub(super) fingerprint: Digest,
    pub(super) pace: Pace,
    /// What may be offered.
    pub(super) pins: Arc<Pins>,
    /// Counts what each kind was said to have changed.
    changes: [AtomicU64; 4],
    doubt: Mutex<Doubt>,
    /// An announcement to the callers' own slices is under way.
    announcing: AtomicBool,
    announced_at: Mutex<Option<Instant>>,
    /// The server is gone from the configuration, or is another one now.
    pub(super) retired: CancellationToken,
}

/// When a list is next fetched because an upstream did not know something.
#[derive(Default)]
struct Doubt {
    not_before: Option<Instant>,
    /// How long after that one the next may be.
    pause: Option<Duration>,
}

/// One slice's place.
pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    pub(super) context: AuthorizationContext,
    state: Mutex<State>,
    /// Counts attempts that ended, one way or the other.
    attempts: watch::Sender<u64>,
    /// Cuts a wait before a retry short.
    pub(super) wake: Notify,
}

#[derive(Default)]
struct State {
    /// What the server lists.
    slice: Option<Arc<Slice>>,
    /// What is offered of it, where something is pinned.
    offered: Option<Offered>,
    down: Option<(Instant, Reason)>,
    failures: u32,
    begun_at: Option<Instant>,
    ended_at: Option<Instant>,
    running: bool,
    /// When the refresh that runs began.
    running_since: Option<Instant>,
    /// What was offered when somebody was last told of it.
    announced: Option<Digest>,
    /// Which changes the slice has seen.
    seen: [u64; 4],
}

/// What is offered of a slice, and as long as what it was made from.
struct Offered {
    of: Arc<Slice>,
    version: u64,
    slice: Arc<Slice>,
}

/// What a view may know of a slot at one moment.
pub(super) struct Seen {
    pub(super) slice: Option<Arc<Slice>>,
    pub(super) state: SliceState,
    /// Whether its items are offered.
    pub(super) listed: bool,
    /// When this stops being true without anybody saying so.
    pub(super) until: Option<Instant>,
    /// Whether a refresh should be started.
    pub(super) due: bool,
    /// Whether a list is on its way that somebody may yet be made to wait for, see [`Slot::renewed`].
    pub(super) renewing: bool,
    /// An attempt that is still worth waiting for, and how long: the first one, or one that looks at a pinned list at last.
    pub(super) wait_until: Option<Instant>,
    /// How many attempts have ended.
    pub(super) attempts: u64,
}

/// What a refresh has to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Facts and all lists.
    Everything,
    /// These kinds, in the order of [`Kind::ALL`].
    Kinds([bool; 4]),
}

impl Shared {
    pub(super) fn new(config: Arc<ServerConfig>, pace: Pace, pins: Arc<Pins>) -> Self {
        Self {
            fingerprint: fingerprint(&config),
            config: ArcSwap::new(config),
            pace,
            pins,
            changes: Default::default(),
            doubt: Mutex::default(),
            announcing: AtomicBool::new(false),
            announced_at: Mutex::default(),
            retired: CancellationToken::new(),
        }
    }

    /// Notes that a kind, or everything, is said to have changed.
    pub(super) fn change(&self, kind: Option<Kind>) {
        for (of, count) in Kind::ALL.iter().zip(&self.changes) {
            if kind.is_none_or(|kind| kind == *of) {
                count.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// When callers' own slices may next be said to have changed; nothing where that is under way.
    pub(super) fn announce(&self) -> Option<Instant> {
        if self.announcing.swap(true, Ordering::AcqRel) {
            return None;
        }
        let last = *self.announced_at.lock().unwrap_or_else(PoisonError::into_inner);
        Some(last.map_or_else(Instant::now, |last| last + self.pace.changed_pause))
    }

    /// It is said from now on.
    pub(super) fn announced(&self) {
        *self.announced_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.announcing.store(false, Ordering::Release);
    }

    /// Whether a doubt is worth looking: each that finds nothing new makes the next one wait twice as long.
    pub(super) fn doubt(&self, now: Instant) -> bool {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if doubt.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let pause = doubt.pause.unwrap_or(self.pace.changed_pause);
        doubt.not_before = Some(now + pause);
        doubt.pause = Some(pause.saturating_mul(2).min(self.pace.doubt_max));
        true
    }

    /// The list had changed, so whoever doubted it was right.
    fn was_right_to_doubt(&self) {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = Doubt::default();
    }

    fn changes(&self) -> [u64; 4] {
        self.changes.each_ref().map(|count| count.load(Ordering::Acquire))
    }
}

/// What makes a server the same one over a reload; the formatting shows references, never secrets.
pub(super) fn fingerprint(server: &ServerConfig) -> Digest {
    let ServerConfig { transport, credential, list_as, isolation, .. } = server;
    let text = format!("{transport:?} {credential:?} {list_as:?} {isolation:?}");
    Digest::of("bailiwick catalog server", &[server.id.as_str().as_bytes(), text.as_bytes()])
}

impl Slot {
    pub(super) fn new(shared: Arc<Shared>, context: AuthorizationContext) -> Self {
        Self { shared, context, state: Mutex::default(), attempts: watch::Sender::new(0), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a view may know now.
    pub(super) fn look(&self, now: Instant) -> Seen {
        let config = self.shared.config.load();
        // Before the state: an attempt that ends in between is not waited for.
        let attempts = *self.attempts.borrow();
        let mut state = self.lock();
        let offered = state.offer(&self.shared);
        let is_pinned = config.pins != PinMode::Off;
        // What a pinned server lists is compared with what was accepted, however long it calls it good.
        let at_most = if is_pinned { limit::PIN_LOOK_INTERVAL } else { Duration::MAX };
        let dirty = state.seen != self.shared.changes();
        let fresh_until = state.slice.as_ref().map(|slice| {
            slice.fetched_at() + slice.ttl().unwrap_or_default().max(config.list_refresh_min).min(at_most)
        });
        let due_at = match (state.ended_at, state.down) {
            (None, _) => now,
            (Some(ended_at), Some(_)) => ended_at + self.shared.pace.backoff(state.failures),
            (Some(_), None) if dirty => now,
            (Some(ended_at), None) => fresh_until.unwrap_or(ended_at + config.list_refresh_min.min(at_most)),
        };
        let vanishes_at = state.down.map(|(since, _)| since + config.on_down);
        let slice_state = match (&state.slice, state.down) {
            (_, Some((since, reason))) => SliceState::Down { since, reason },
            (None, None) => SliceState::Pending,
            (Some(_), None) if dirty || fresh_until.is_none_or(|until| until <= now) => SliceState::Stale,
            (Some(_), None) => SliceState::Fresh,
        };
        let later = |at: &Instant| *at > now;
        // Nobody has asked for a long time: what is called now is not what was listed then.
        let unseen = |ended_at: Instant| now >= ended_at + limit::PIN_LOOK_INTERVAL + limit::PIN_LOOK_DELAY_MAX;
        let began_at = match state.ended_at {
            None => Some(state.begun_at.unwrap_or(now)),
            Some(ended_at) if is_pinned && state.down.is_none() && unseen(ended_at) => {
                state.running_since.filter(|_| state.running)
            }
            Some(_) => None,
        };
        Seen {
            listed: state.slice.is_some() && vanishes_at.is_none_or(|at| at > now),
            slice: offered,
            state: slice_state,
            until: [Some(due_at).filter(|_| !state.running), vanishes_at].into_iter().flatten().filter(later).min(),
            due: !state.running && due_at <= now,
            renewing: state.renewing_until(&self.shared.pace).is_some_and(|until| until > now),
            wait_until: began_at.map(|began_at| began_at + self.shared.pace.first_wait).filter(later),
            attempts,
        }
    }

    /// Until when a list is waited for that is on its way and is older than both its server and `list_refresh_min` allow.
    /// Nothing where the server is down, or takes its time.
    pub(super) fn renewed(&self, kind: Kind, now: Instant) -> Option<Instant> {
        let at_least = self.shared.config.load().list_refresh_min;
        let state = self.lock();
        let list = state.slice.as_ref().filter(|_| state.down.is_none())?.list(kind);
        if list.fetched_at + list.ttl?.max(at_least) > now {
            return None;
        }
        state.renewing_until(&self.shared.pace).filter(|until| *until > now)
    }

    /// Takes the right to refresh, if nobody has it.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.lock();
        let begins = !state.running;
        if begins {
            state.running_since = Some(Instant::now());
        }
        state.running = true;
        state.begun_at.get_or_insert_with(Instant::now);
        begins
    }

    /// What has to be fetched, the changes that this will have seen, and the slice that is there.
    pub(super) fn work(&self) -> (Work, [u64; 4], Option<Arc<Slice>>) {
        let changes = self.shared.changes();
        let state = self.lock();
        let mut dirty = [false; 4];
        for ((dirty, seen), now) in dirty.iter_mut().zip(state.seen).zip(changes) {
            *dirty = seen != now;
        }
        let whole = state.slice.is_none() || state.down.is_some() || dirty == [false; 4] || dirty == [true; 4];
        (if whole { Work::Everything } else { Work::Kinds(dirty) }, changes, state.slice.clone())
    }

    /// Stores how an attempt ended; answers whether anybody could see a difference. Whoever waits for it is told by
    /// [`Slot::tell`].
    pub(super) fn settle(&self, seen: [u64; 4], result: Result<Slice, Failure>) -> bool {
        let mut state = self.lock();
        let first = state.ended_at.is_none();
        state.ended_at = Some(Instant::now());
        match result {
            Ok(slice) => {
                let was_down = state.down.take().is_some();
                if state.slice.as_ref().is_some_and(|old| old.digest() != slice.digest()) {
                    self.shared.was_right_to_doubt();
                }
                state.failures = 0;
                state.seen = seen;
                state.slice = Some(Arc::new(slice));
                // At once: whoever was about to call what it listed before learns of it here.
                let after = state.offer(&self.shared).map(|new| new.digest());
                // Not what was offered a moment ago: what is accepted with this very list is news as well.
                let before = std::mem::replace(&mut state.announced, after);
                first || was_down || before != after
            }
            Err(failure) => {
                state.failures = state.failures.saturating_add(1);
                state.go_down(failure.reason) || first
            }
        }
    }

    /// Tells whoever waits that an attempt has ended. They look again at once, so every view that was made before it has
    /// to be void by then.
    pub(super) fn tell(&self) {
        self.attempts.send_modify(|attempts| *attempts += 1);
    }

    /// Notes that the server is down, as its connection says; answers whether that is news.
    pub(super) fn go_down(&self, reason: Reason) -> bool {
        self.lock().go_down(reason)
    }

    /// Gives the right to refresh back, or keeps it because there is more to do; answers when to go on.
    ///
    /// A caller's slice is retried only when its caller asks again: we hold no credential to do it with.
    pub(super) fn end(&self) -> Option<Instant> {
        let mut state = self.lock();
        let ended_at = state.ended_at.unwrap_or_else(Instant::now);
        let next = if self.shared.retired.is_cancelled() {
            None
        } else if state.down.is_some() {
            let own = self.context == AuthorizationContext::Gateway;
            own.then(|| ended_at + self.shared.pace.backoff(state.failures))
        } else {
            (state.seen != self.shared.changes()).then(|| ended_at + self.shared.pace.changed_pause)
        };
        state.running = next.is_some();
        next
    }

    /// Gives the right back after an attempt that did not end: a panic in the source, or a retired server.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.running = false;
        state.ended_at = Some(Instant::now());
        state.failures = state.failures.saturating_add(1);
        state.go_down(Reason::Internal);
    }

    /// About how many bytes it holds.
    pub(super) fn weight(&self) -> u32 {
        self.lock().slice.as_ref().map_or(1_024, |slice| slice.weight())
    }

    /// What the server lists, offered or not.
    pub(super) fn live(&self) -> Option<Arc<Slice>> {
        self.lock().slice.clone()
    }

    /// When the last attempt ended.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.lock().ended_at
    }

    /// Waits until more attempts have ended than there were, or that moment.
    pub(super) async fn settled(&self, ended: u64, until: Instant) {
        let mut attempts = self.attempts.subscribe();
        // The sender lives as long as we do; running out of time is as good as having waited.
        let _ = tokio::time::timeout_at(until, attempts.wait_for(|attempts| *attempts > ended)).await;
    }

    /// When its items vanish if it stays down.
    pub(super) fn vanishes_at(&self) -> Option<Instant> {
        let on_down = self.shared.config.load().on_down;
        self.lock().down.map(|(since, _)| since + on_down)
    }
}

impl State {
    /// What is offered of what the server lists, under what is accepted now.
    fn offer(&mut self, shared: &Shared) -> Option<Arc<Slice>> {
        let live = self.slice.as_ref()?;
        if shared.config.load().pins == PinMode::Off {
            return Some(Arc::clone(live));
        }
        let accepted = shared.pins.now();
        let current = |offered: &&Offered| offered.version == accepted.version && Arc::ptr_eq(&offered.of, live);
        if let Some(offered) = self.offered.as_ref().filter(current) {
            return Some(Arc::clone(&offered.slice));
        }
        let before = self.offered.as_ref().map(|offered| &*offered.slice);
        let slice = Arc::new(live.screened(&accepted, before));
        self.offered = Some(Offered { of: Arc::clone(live), version: accepted.version, slice: Arc::clone(&slice) });
        Some(slice)
    }

    /// Until when a list is waited for that is on its way. Nothing of a server that is down: it is tried again and again.
    fn renewing_until(&self, pace: &Pace) -> Option<Instant> {
        let slice = self.slice.as_ref().filter(|_| self.running && self.down.is_none())?;
        let is_dated = slice.lists().iter().any(|list| list.ttl.is_some());
        self.running_since.filter(|_| is_dated).map(|since| since + pace.renewed_wait)
    }

    fn go_down(&mut self, reason: Reason) -> bool {
        let news = self.down.is_none_or(|(_, old)| old != reason);
        let since = self.down.map_or_else(Instant::now, |(since, _)| since);
        self.down = Some((since, reason));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_slower_up_to_a_bound() {
        let pace = Pace::default();
        assert_eq!(pace.backoff(0), limit::CATALOG_RETRY_MIN);
        assert_eq!(pace.backoff(1), limit::CATALOG_RETRY_MIN);
        assert_eq!(pace.backoff(3), limit::CATALOG_RETRY_MIN * 4);
        assert_eq!(pace.backoff(u32::MAX), limit::CATALOG_RETRY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_on_its_way_is_worth_a_moment_and_one_of_a_server_that_is_down_is_not() {
        let pace = Pace::default();
        let shared = Shared::new(Arc::new(super::super::fake::server("one")), pace, Arc::default());
        let slot = Slot::new(Arc::new(shared), AuthorizationContext::Gateway);
        let renewing = || slot.look(Instant::now()).renewing;
        assert!(slot.begin() && !renewing(), "the first one is waited for by another rule");
        let hour = Duration::from_secs(3_600);
        slot.settle(slot.work().1, Ok(super::super::fake::slice_for("one", &[], hour)));
        slot.end();
        assert!(!renewing() && slot.begin() && renewing());
        tokio::time::advance(pace.renewed_wait).await;
        assert!(!renewing(), "for so long");
        slot.end();
        assert!(slot.begin() && renewing());
        slot.settle(slot.work().1, Err(Failure::before(Reason::UpstreamUnreachable, "gone")));
        assert!(slot.end().is_some() && !slot.begin(), "it is tried again and again");
        assert!(!renewing());
        slot.settle(slot.work().1, Ok(super::super::fake::slice("one", &[], None)));
        assert!(slot.end().is_none() && slot.begin() && !renewing(), "its server says nothing of how long it is good");
    }

    #[test]
    fn a_doubt_waits_twice_as_long_each_time_up_to_a_bound() {
        let shared = Shared::new(Arc::new(super::super::fake::server("one")), Pace::default(), Arc::default());
        let mut now = Instant::now();
        assert!(shared.doubt(now) && !shared.doubt(now));
        let mut waited = Vec::new();
        for _ in 0..12 {
            let began = now;
            while !shared.doubt(now) {
                now += Duration::from_millis(500);
            }
            waited.push(now - began);
        }
        assert_eq!(waited[0], limit::CATALOG_CHANGED_PAUSE);
        assert_eq!(waited[3], limit::CATALOG_CHANGED_PAUSE * 8);
        assert_eq!(*waited.last().unwrap(), limit::CATALOG_DOUBT_MAX);
        shared.was_right_to_doubt();
        assert!(shared.doubt(now));
    }
}
