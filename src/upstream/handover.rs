//! What a process was started with: when another one takes its place, and when it is over.
//!
//! Decides how a process comes to its end for the sake of its credential. Refuses to know whose that is. Invariants: a
//! process lives no longer than the use of its credential, and not a moment longer than that stands; whatever is under
//! way in it when another one takes its place may come to an end before that.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::watch;

use super::pool::Key;
use super::stdio::{Running, Stdio};
use crate::config::process::Handover;
use crate::config::{ServerConfig, TransportConfig};
use crate::delegate::Handed;
use crate::limit;
use crate::outcome::{Failure, Reason};

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Nobody used it.
    Idle,
    /// Another one needed its place.
    Evicted,
    /// Another credential is used by now, and nothing was under way.
    Replaced,
    /// The use of its credential ended; what was under way was cut off.
    UseEnded,
    /// What it hangs on was taken back.
    TakenBack,
    /// Its server was given up.
    Closed,
    /// By itself, or for what it did.
    ByItself,
}

impl End {
    const ALL: [Self; 7] =
        [Self::Idle, Self::Evicted, Self::Replaced, Self::UseEnded, Self::TakenBack, Self::Closed, Self::ByItself];

    /// The spelling in metrics and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::UseEnded => "use_ended",
            Self::TakenBack => "taken_back",
            Self::Closed => "closed",
            Self::ByItself => "by_itself",
        }
    }
}

/// How many processes of one server were started, and why they ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// That were started and have answered.
    pub started: u64,
    /// That have ended.
    pub ended: BTreeMap<&'static str, u64>,
}

/// The same while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    started: AtomicU64,
    ended: [AtomicU64; End::ALL.len()],
}

impl Counts {
    pub(super) fn started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, why: End) {
        for (end, count) in End::ALL.iter().zip(&self.ended) {
            if *end == why {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn now(&self) -> Processes {
        let ended = End::ALL.iter().zip(&self.ended);
        let ended = ended.map(|(end, count)| (end.as_str(), count.load(Ordering::Relaxed)));
        Processes { started: self.started.load(Ordering::Relaxed), ended: ended.collect() }
    }
}

/// Everyone that was started with a credential and may live.
#[derive(Debug, Default)]
pub(super) struct Started(Mutex<Vec<Weak<Running>>>);

impl Started {
    pub(super) fn enter(&self, running: &Arc<Running>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|running| running.upgrade().is_some_and(|running| !running.process.over.is_cancelled()));
        all.push(Arc::downgrade(running));
    }

    pub(super) fn living(&self) -> Vec<Arc<Running>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).filter(|running| !running.process.over.is_cancelled()).collect()
    }

    pub(super) fn handed(&self) -> Vec<Arc<Handed>> {
        self.living().iter().filter_map(|running| Some(running.hand.as_ref()?.now())).collect()
    }
}

/// What one process has of a credential.
#[derive(Debug)]
pub(super) struct Hand {
    given: watch::Sender<Arc<Handed>>,
    /// Everything that it was given, the last at the end.
    ever: Arc<Ever>,
    /// Where it reads it again.
    file: Option<PathBuf>,
}

/// What a process was given while it lives, as far as that is remembered.
#[derive(Debug, Default)]
pub(super) struct Ever(Mutex<VecDeque<Arc<Handed>>>);

impl Ever {
    fn add(&self, handed: &Arc<Handed>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= limit::HANDED_REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back(Arc::clone(handed));
    }

    pub(super) fn all(&self) -> Vec<Arc<Handed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How processes of that server get a credential.
pub(super) const fn way(server: &ServerConfig) -> Option<&Handover> {
    match &server.transport {
        TransportConfig::Stdio { process, .. } => process.handover.as_ref(),
        TransportConfig::Http { .. } => None,
    }
}

impl Hand {
    pub(super) fn new(handed: Arc<Handed>, file: Option<PathBuf>) -> Self {
        let ever = Arc::new(Ever::default());
        ever.add(&handed);
        Self { given: watch::Sender::new(handed), ever, file }
    }

    /// What was handed over last.
    pub(super) fn now(&self) -> Arc<Handed> {
        Arc::clone(&self.given.borrow())
    }

    /// The same with what was handed over before; for whoever has to know it as it changes.
    pub(super) fn given(&self) -> Arc<Ever> {
        Arc::clone(&self.ever)
    }

    /// Whoever is about to use the process was granted this.
    ///
    /// # Errors
    /// Where it cannot be handed over.
    pub(super) fn renew(&self, handed: &Arc<Handed>) -> Result<(), Failure> {
        let mut written = Ok(());
        self.given.send_if_modified(|known| {
            if !handed.follows(known) {
                return false;
            }
            // Known before it can be read, and so before it can be said.
            self.ever.add(handed);
            if let Some(file) = &self.file {
                written = write(file, handed);
            }
            let is_there = written.is_ok();
            if is_there {
                *known = Arc::clone(handed);
            }
            is_there
        });
        written
    }
}

/// Puts a credential into a file: whoever reads it finds the whole of one.
pub(super) fn write(file: &PathBuf, handed: &Handed) -> Result<(), Failure> {
    let next = file.with_extension("next");
    let put = || {
        let mut open = std::fs::OpenOptions::new();
        let mut open = open.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        open.write_all(handed.secret().expose_secret().as_bytes())?;
        std::fs::rename(&next, file)
    };
    put().map_err(|error| {
        Failure::before(
            Reason::CredentialUnavailable,
            format!("the credential cannot be handed to its process: {error}"),
        )
    })
}

/// Waits for the end of a process for the sake of its credential, and brings it about.
pub(super) async fn look_after(stdio: Arc<Stdio>, key: Key, running: Arc<Running>) {
    let Some(hand) = &running.hand else { return };
    let mut given = hand.given.subscribe();
    let over = running.process.over.clone();
    let why = loop {
        let handed = Arc::clone(&given.borrow_and_update());
        tokio::select! {
            () = over.cancelled() => return,
            () = handed.taken_back().cancelled() => break End::TakenBack,
            _ = given.changed() => {}
            () = after(handed.begins_for()) => break retired(&stdio, &key, &running, &handed).await,
        }
    };
    stdio.processes.remove(&key, &running);
    running.end(&stdio, why).await;
}

/// Lets come to an end what is under way; nothing new is begun.
async fn retired(stdio: &Stdio, key: &Key, running: &Arc<Running>, handed: &Handed) -> End {
    let place = stdio.processes.remove(key, running);
    let idle = async {
        if let Some(place) = place {
            place.idle().await;
        }
    };
    tokio::select! {
        // Where nobody uses it, that is why.
        biased;
        () = handed.taken_back().cancelled() => End::TakenBack,
        () = running.process.over.cancelled() => End::ByItself,
        () = idle => End::Replaced,
        () = after(handed.lasts_for()) => End::UseEnded,
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_handed_over_in_a_file_is_replaced_whole_and_is_nobody_elses_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credential");
        let hand = Hand::new(Handed::of("first", b"", Some((1, 2))), Some(file.clone()));
        write(&file, &hand.now()).unwrap();
        hand.renew(&Handed::of("older", b"", Some((0, 1)))).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "first");
        hand.renew(&Handed::of("second", b"", Some((3, 4)))).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "second");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(directory.path()).unwrap();
        let refused = hand.renew(&Handed::of("third", b"", Some((5, 6)))).unwrap_err();
        assert_eq!(refused.reason, Reason::CredentialUnavailable);
        assert_eq!(hand.now().secret().expose_secret(), "second");
    }

    #[test]
    fn ends_are_counted_by_why() {
        let counts = Counts::default();
        counts.started();
        counts.ended(End::TakenBack);
        let now = counts.now();
        assert_eq!((now.started, now.ended["taken_back"], now.ended["idle"]), (1, 1, 0));
    }
}
