//! How this replica stands to the store that it has in common with others.
//!
//! Decides whether what is known of the store is recent enough to decide calls by, and whether this replica should get
//! traffic. Refuses to know how the store is asked. Invariant: once nothing was heard of it for
//! [`limit::STORE_AGE_MAX`], nothing is decided any more until it is heard of again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::ids::{PolicyRevision, ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::Weight;
use crate::store::{Member, Moment};

/// What is known of the store and of the other replicas.
#[derive(Debug)]
pub struct Standing {
    pub(super) own: Own,
    /// Whether anybody else has the store, too; alone nothing can be missed.
    shared: bool,
    began: Instant,
    /// When the last look at it began that it answered, in microseconds since `began`.
    seen_us: AtomicU64,
    /// How much our clock is ahead of its own, in microseconds.
    ahead_us: AtomicI64,
    /// What keeps it from being seen, where something does.
    trouble: Mutex<Option<String>>,
    /// That it went back, once that was seen.
    went_back: OnceLock<String>,
    /// Up to which epoch our own record tells what became of revocations. Held while it is told: epochs are on the
    /// record in their order, and each of them once.
    pub(super) told: tokio::sync::Mutex<RevocationEpoch>,
    files: Mutex<Files>,
    members: ArcSwap<Vec<Member>>,
}

/// What the others are told of this replica.
#[derive(Debug, Clone)]
pub struct Own {
    /// Which one it is.
    pub replica: ReplicaId,
    /// Where others reach it.
    pub advertise: Option<String>,
}

/// Which files are to be served.
#[derive(Debug, Clone, Copy, Default)]
struct Files {
    active: Option<PolicyRevision>,
    /// Others are served here: until when that is no reason to send traffic elsewhere, and when that was looked at.
    differ: Option<Differ>,
}

#[derive(Debug, Clone, Copy)]
struct Differ {
    tolerated_until: Option<Instant>,
    retried: Option<Instant>,
}

impl Standing {
    /// The standing of a replica that has just seen its store.
    #[must_use]
    pub fn new(own: Own, shared: bool, active: PolicyRevision, served: PolicyRevision) -> Arc<Self> {
        // One that starts with other files never served the right ones: it has nothing to catch up with.
        let differ = (active != served).then_some(Differ { tolerated_until: None, retried: None });
        Arc::new(Self {
            own,
            shared,
            began: Instant::now(),
            seen_us: AtomicU64::new(0),
            ahead_us: AtomicI64::new(0),
            trouble: Mutex::default(),
            went_back: OnceLock::new(),
            told: tokio::sync::Mutex::default(),
            files: Mutex::new(Files { active: Some(active).filter(|_| shared), differ }),
            members: ArcSwap::default(),
        })
    }

    /// What the others are told of this replica, while it serves these files.
    #[must_use]
    pub fn own(&self, revision: PolicyRevision) -> Member {
        Member {
            replica: self.own.replica,
            advertise: self.own.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision,
        }
    }

    /// Which replica this is.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.own.replica
    }

    /// Where the living replica of that name is reached by others.
    #[must_use]
    pub fn address_of(&self, replica: ReplicaId) -> Option<String> {
        let members = self.members.load();
        members.iter().find(|member| member.replica == replica)?.advertise.clone()
    }

    /// Whether other replicas have the store, too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Takes in what the store said to a look that began then, while these files were served.
    pub(super) fn saw(&self, began: Instant, now_us: i64, moment: &Moment, served: PolicyRevision) {
        let seen = u64::try_from(began.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        self.seen_us.fetch_max(seen, Ordering::Relaxed);
        self.ahead_us.store(now_us.saturating_sub(moment.now_us), Ordering::Relaxed);
        let mut files = lock(&self.files);
        files.active = moment.active;
        files.differ = match (moment.active, files.differ) {
            (Some(active), differ) if active != served => {
                let fresh =
                    || Differ { tolerated_until: began.checked_add(limit::REVISION_DIFFERS_MAX), retried: None };
                Some(differ.unwrap_or_else(fresh))
            }
            _ => None,
        };
    }

    /// Takes in that the store could not be seen; answers whether nobody knew.
    pub(super) fn missed(&self, trouble: String) -> bool {
        lock(&self.trouble).replace(trouble).is_none()
    }

    /// Takes in that nothing is in the way of seeing it.
    pub(super) fn well(&self) {
        *lock(&self.trouble) = None;
    }

    /// Takes in at which epoch the store is, and what it cannot be behind. One that went back is not believed any more,
    /// not even when it has come to the same number with other revocations: a start holds it against the record.
    ///
    /// # Errors
    /// As [`Standing::believed`].
    pub fn compare(&self, known: RevocationEpoch, store: RevocationEpoch) -> Result<(), Failure> {
        if self.shared && store < known {
            let told = format!("the store went back from epoch {} to {}: was it restored?", known.0, store.0);
            self.distrust(&told);
        }
        self.believed()
    }

    /// Takes in that somebody has seen it go back; the first time is what there is to tell.
    pub(super) fn distrust(&self, told: &str) {
        let _told_already = self.went_back.set(told.to_owned());
    }

    /// Whether the store has never gone back since the start.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub fn believed(&self) -> Result<(), Failure> {
        let told = self.went_back.get();
        told.map_or(Ok(()), |told| Err(Failure::before(Reason::StoreUnavailable, told.clone())))
    }

    /// Takes in up to which epoch the record tells what became of revocations.
    pub async fn recorded(&self, epoch: RevocationEpoch) {
        let mut told = self.told.lock().await;
        *told = epoch.max(*told);
    }

    /// The files that are to be served, where others are and it is time to look whether they are here by now.
    pub(super) fn wanted(&self, now: Instant) -> Option<PolicyRevision> {
        let mut files = lock(&self.files);
        let active = files.active?;
        let differ = files.differ.as_mut()?;
        let due = differ.retried.is_none_or(|last| now.saturating_duration_since(last) >= limit::REVISION_RETRY);
        due.then(|| {
            differ.retried = Some(now);
            active
        })
    }

    /// The files that all replicas are to serve, where that is known.
    #[must_use]
    pub fn active(&self) -> Option<PolicyRevision> {
        lock(&self.files).active
    }

    pub(crate) fn met(&self, members: Vec<Member>) {
        self.members.store(Arc::new(members));
    }

    /// The replicas that live, this one among them.
    #[must_use]
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.members.load_full()
    }

    /// Whether what is known of the store is recent enough to decide by.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub fn current(&self) -> Result<(), Failure> {
        if !self.shared || self.age(Instant::now()) <= limit::STORE_AGE_MAX {
            return Ok(());
        }
        let detail = "the store was not heard of for too long: somebody may have been revoked since";
        Err(Failure::before(Reason::StoreUnavailable, detail))
    }

    /// Whether an order of that weight can be carried out. What takes something back is written to a store that was only
    /// not heard of for a while, as far as it answers; nothing is given back by what may be old; and what a store
    /// acknowledges that went back is not kept.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub fn may_change(&self, weight: Weight) -> Result<(), Failure> {
        match weight {
            Weight::Look => Ok(()),
            Weight::Brake => self.believed(),
            Weight::Loosen => self.believed().and_then(|()| self.current()),
        }
    }

    /// The moment by the store's clock, as far as that is known, microseconds since 1970: mandates are opened by it, and
    /// so they end by it at every replica.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        jiff::Timestamp::now().as_microsecond().saturating_sub(self.ahead_us.load(Ordering::Relaxed))
    }

    fn age(&self, now: Instant) -> Duration {
        let seen = Duration::from_micros(self.seen_us.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(seen)
    }

    /// What keeps this replica from getting traffic: what was looked at, and what is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, Option<String>)> {
        if !self.shared {
            return Vec::new();
        }
        let trouble = || lock(&self.trouble).clone().unwrap_or_default();
        let store = self.current().err().map(|failure| format!("{} ({})", failure.detail, trouble()));
        let files = *lock(&self.files);
        let over = |differ: Differ| differ.tolerated_until.is_none_or(|until| Instant::now() >= until);
        let revision = files.differ.is_some_and(over).then(|| {
            let active = files.active.map(|active| active.0.short()).unwrap_or_default();
            format!(
                "the replicas are to serve revision {active}, and the files here are others: bring those files, or make \
                 these the active ones with `bailiwick reload` here"
            )
        });
        vec![("replication", store), ("clock", clock(self.ahead_us.load(Ordering::Relaxed))), ("revision", revision)]
    }
}

/// What is wrong with our clock, if it is so much ahead of the store's.
fn clock(ahead_us: i64) -> Option<String> {
    let difference = Duration::from_micros(ahead_us.unsigned_abs());
    (difference > limit::CLOCK_DIFFERENCE_MAX).then(|| {
        let direction = if ahead_us > 0 { "ahead of" } else { "behind" };
        format!(
            "this clock is {:.1} s {direction} the store's: look at its time synchronisation",
            difference.as_secs_f64()
        )
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can be left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Digest, RevocationEpoch};

    #[test]
    fn the_moment_is_that_of_the_store_whatever_our_clock_says() {
        let revision = PolicyRevision(Digest::sha256(b"1"));
        let own = Own { replica: ReplicaId::new(), advertise: None };
        let standing = Standing::new(own, true, revision, revision);
        let ours = || jiff::Timestamp::now().as_microsecond();
        let hour = 3_600_000_000;
        for ahead in [hour, -hour] {
            let asked_us = ours();
            let now_us = asked_us - ahead;
            let moment = Moment { epoch: RevocationEpoch(1), active: Some(revision), now_us, went_back: None };
            standing.saw(Instant::now(), asked_us, &moment, revision);
            let off = standing.now_us() - (ours() - ahead);
            assert!(off.abs() < 60_000_000, "{off} us beside the store's clock");
        }
    }

    fn revision(name: &str) -> PolicyRevision {
        PolicyRevision(Digest::sha256(name.as_bytes()))
    }

    fn standing(shared: bool, served: &str) -> Arc<Standing> {
        let own = Own { replica: ReplicaId::new(), advertise: None };
        Standing::new(own, shared, revision("active"), revision(served))
    }

    fn moment(active: &str) -> Moment {
        Moment { epoch: RevocationEpoch(0), now_us: 0, active: Some(revision(active)), went_back: None }
    }

    fn problem(standing: &Standing, name: &str) -> Option<String> {
        standing.problems().into_iter().find(|(known, _)| *known == name).and_then(|(_, problem)| problem)
    }

    #[test]
    fn what_was_not_heard_of_for_so_long_decides_nothing() {
        let standing = standing(true, "active");
        let later = |age: Duration| standing.began + age;
        assert!(standing.age(later(limit::STORE_AGE_MAX)) <= limit::STORE_AGE_MAX);
        assert!(standing.age(later(limit::STORE_AGE_MAX + Duration::from_millis(1))) > limit::STORE_AGE_MAX);
        standing.saw(later(Duration::from_secs(5)), 0, &moment("active"), revision("active"));
        assert_eq!(standing.age(later(Duration::from_secs(7))), Duration::from_secs(2));
        // An answer to an earlier look that came later.
        standing.saw(later(Duration::from_secs(4)), 0, &moment("active"), revision("active"));
        assert_eq!(standing.age(later(Duration::from_secs(7))), Duration::from_secs(2));
    }

    #[test]
    fn a_clock_that_differs_by_so_much_is_told_and_one_that_differs_less_is_not() {
        let bound = i64::try_from(limit::CLOCK_DIFFERENCE_MAX.as_micros()).unwrap();
        assert_eq!((clock(bound), clock(-bound)), (None, None));
        assert!(clock(bound + 1).unwrap().contains("ahead of the store's"));
        assert!(clock(-bound - 1).unwrap().contains("behind the store's"));
        let standing = standing(true, "active");
        standing.saw(Instant::now(), bound + 1, &moment("active"), revision("active"));
        assert!(problem(&standing, "clock").is_some());
    }

    #[test]
    fn other_files_are_tolerated_for_so_long_after_they_were_the_right_ones_and_never_from_the_start() {
        let started_with_others = standing(true, "other");
        assert!(problem(&started_with_others, "revision").unwrap().contains("bailiwick reload"));

        let standing = standing(true, "active");
        let now = Instant::now();
        standing.saw(now, 0, &moment("next"), revision("active"));
        assert_eq!(problem(&standing, "revision"), None);
        assert_eq!(standing.wanted(now), Some(revision("next")));
        assert_eq!(standing.wanted(now), None, "it was looked at just now");
        assert_eq!(standing.wanted(now + limit::REVISION_RETRY), Some(revision("next")));
        let long_ago = now.checked_sub(limit::REVISION_DIFFERS_MAX).unwrap();
        standing.saw(now, 0, &moment("active"), revision("active"));
        standing.saw(long_ago, 0, &moment("next"), revision("active"));
        assert!(problem(&standing, "revision").is_some());
        standing.saw(now, 0, &moment("next"), revision("next"));
        assert_eq!((problem(&standing, "revision"), standing.wanted(now)), (None, None));
    }

    #[test]
    fn a_store_that_went_back_is_not_believed_again_when_it_reaches_the_same_epoch() {
        let standing = standing(true, "active");
        assert!(standing.compare(RevocationEpoch(7), RevocationEpoch(7)).is_ok());
        let failure = standing.compare(RevocationEpoch(7), RevocationEpoch(5)).unwrap_err();
        assert!(failure.detail.contains("from epoch 7 to 5"), "{}", failure.detail);
        for reached in [7, 8] {
            assert!(standing.compare(RevocationEpoch(7), RevocationEpoch(reached)).is_err());
        }
        assert!(standing.believed().is_err());
    }

    #[test]
    fn nothing_is_given_back_by_what_is_old_and_nothing_ordered_of_a_store_that_went_back() {
        let may = |standing: &Standing| {
            [Weight::Look, Weight::Brake, Weight::Loosen].map(|weight| standing.may_change(weight).is_ok())
        };
        let standing = standing(true, "active");
        assert_eq!(may(&standing), [true; 3]);
        let mut old = Arc::into_inner(standing).unwrap();
        old.began = Instant::now().checked_sub(limit::STORE_AGE_MAX + Duration::from_secs(1)).unwrap();
        assert_eq!(may(&old), [true, true, false], "a brake that the store takes holds");
        old.saw(Instant::now(), 0, &moment("active"), revision("active"));
        assert_eq!(may(&old), [true; 3]);
        old.distrust("it went back");
        assert_eq!(may(&old), [true, false, false]);
    }

    #[test]
    fn trouble_is_news_once_until_nothing_is_in_the_way_any_more() {
        let standing = standing(true, "active");
        assert!(standing.missed("no route".to_owned()));
        standing.saw(Instant::now(), 0, &moment("active"), revision("active"));
        assert!(!standing.missed("no heartbeat".to_owned()), "only half of the look succeeded");
        standing.well();
        assert!(standing.missed("no route".to_owned()));
    }

    #[test]
    fn alone_with_its_store_nothing_is_missed() {
        let standing = standing(false, "active");
        assert!(standing.current().is_ok() && standing.problems().is_empty());
        assert_eq!(standing.active(), None);
    }
}
