//! The gateway's own secrets: read when the configuration is, and again when they change.
//!
//! Decides when a secret is read again. Invariants: no call waits for a file or a program; a secret that
//! cannot be read any more is used on as it was, because rotation replaces files in more than one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use secrecy::SecretString;

use crate::config::SecretReference;
use crate::limit;

/// The secrets that the configuration refers to.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    slots: ArcSwap<Vec<Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    reference: SecretReference,
    value: ArcSwapOption<SecretString>,
    state: ArcSwap<SlotState>,
    /// When it was presented last, seconds since 1970; 0 for not yet.
    used_at: AtomicI64,
}

/// What is known of one secret.
#[derive(Debug)]
pub(super) struct Known {
    /// The secret, or why it could not be read.
    pub value: Result<Arc<SecretString>, String>,
    /// When its file was changed last, seconds since 1970.
    pub changed_at: Option<i64>,
    /// When it was presented last.
    pub used_at: Option<i64>,
}

#[derive(Debug)]
struct SlotState {
    read_at: Instant,
    /// When the file was changed last.
    changed_at: Option<SystemTime>,
    problem: Option<String>,
    /// How often it could not be read since it last could.
    failures: u32,
}

impl Secrets {
    /// Reads these, all at once, and forgets others.
    pub async fn replace(&self, mut references: Vec<SecretReference>) {
        let mut distinct: Vec<SecretReference> = Vec::new();
        references.retain(|reference| {
            let new = !distinct.contains(reference);
            if new {
                distinct.push(reference.clone());
            }
            new
        });
        // One that was here stays as it was, should it be unreadable just now: files are replaced in more than one step.
        let slots = distinct.into_iter().map(|reference| async move {
            match self.find(&reference) {
                Some(slot) => {
                    slot.read_again().await;
                    slot
                }
                None => Arc::new(Slot::read(reference).await),
            }
        });
        let slots = futures_util::future::join_all(slots).await;
        self.slots.store(Arc::new(slots));
    }

    /// The secret. Waits only for one that the configuration in force does not refer to (any more).
    pub async fn get(&self, reference: &SecretReference) -> Result<Arc<SecretString>, String> {
        self.known(reference).await.value
    }

    /// The secret, with what is known of it.
    pub async fn known(&self, reference: &SecretReference) -> Known {
        let slot = match self.find(reference) {
            Some(slot) => slot,
            None => Arc::new(Slot::read(reference.clone()).await),
        };
        let state = slot.state.load_full();
        let unread = || state.problem.clone().unwrap_or_else(|| "the secret was not read".to_owned());
        let since = state.changed_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Known {
            value: slot.value.load_full().ok_or_else(unread),
            changed_at: since.and_then(|since| i64::try_from(since.as_secs()).ok()),
            used_at: Some(slot.used_at.load(Ordering::Relaxed)).filter(|at| *at > 0),
        }
    }

    /// Reads one again at once, because it was refused; answers what stands there now.
    pub async fn read_again(&self, reference: &SecretReference) -> Option<Arc<SecretString>> {
        let slot = self.find(reference)?;
        if slot.may_have_changed().await {
            slot.read_again().await;
        }
        slot.value.load_full()
    }

    /// Remembers that one was presented.
    pub fn used(&self, reference: &SecretReference, now: i64) {
        if let Some(slot) = self.find(reference) {
            slot.used_at.store(now, Ordering::Relaxed);
        }
    }

    fn find(&self, reference: &SecretReference) -> Option<Arc<Slot>> {
        self.slots.load().iter().find(|slot| slot.reference == *reference).cloned()
    }

    /// What could not be read.
    pub fn problems(&self) -> Vec<String> {
        self.slots.load().iter().filter_map(|slot| slot.state.load().problem.clone()).collect()
    }

    /// Reads again what changed, until it is dropped.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(limit::SECRET_LOOK_INTERVAL).await;
            for slot in self.slots.load_full().iter() {
                if slot.may_have_changed().await {
                    slot.read_again().await;
                }
            }
        }
    }
}

impl Slot {
    async fn read(reference: SecretReference) -> Self {
        let state = SlotState { read_at: Instant::now(), changed_at: None, problem: None, failures: 0 };
        let slot = Self {
            reference,
            value: ArcSwapOption::empty(),
            state: ArcSwap::from_pointee(state),
            used_at: AtomicI64::new(0),
        };
        slot.read_again().await;
        slot
    }

    async fn read_again(&self) {
        // Asked before the secret is read: a change in between is seen the next time.
        let changed_at = self.changed_at().await;
        let problem = match self.reference.read().await {
            Ok(value) => {
                self.value.store(Some(Arc::new(value)));
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a secret could not be read");
                Some(error.to_string())
            }
        };
        let before = self.state.load().failures;
        let failures = if problem.is_some() { before.saturating_add(1) } else { 0 };
        self.state.store(Arc::new(SlotState { read_at: Instant::now(), changed_at, problem, failures }));
    }

    async fn may_have_changed(&self) -> bool {
        let state = self.state.load_full();
        match &self.reference {
            // Neither the environment nor the configuration changes while we run.
            SecretReference::Environment(_) | SecretReference::Plain(_) => false,
            SecretReference::File(_) => state.problem.is_some() || self.changed_at().await != state.changed_at,
            SecretReference::Exec(_) => state.read_at.elapsed() >= exec_pause(state.failures),
        }
    }

    async fn changed_at(&self) -> Option<SystemTime> {
        let SecretReference::File(path) = &self.reference else { return None };
        tokio::fs::metadata(path).await.ok()?.modified().ok()
    }
}

/// How long after a program was run it is run again: soon where it failed, and ever less soon where it goes on failing.
fn exec_pause(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return limit::SECRET_EXEC_INTERVAL };
    let pause = limit::SECRET_LOOK_INTERVAL.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    pause.min(limit::SECRET_EXEC_INTERVAL)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes_and_used_on_while_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "one\n").unwrap();
        let reference = SecretReference::File(path.clone());
        let secrets = Arc::new(Secrets::default());
        secrets.replace(vec![reference.clone(), reference.clone()]).await;
        assert_eq!(secrets.slots.load().len(), 1);
        let now = async || secrets.get(&reference).await.unwrap().expose_secret().to_owned();
        assert_eq!(now().await, "one");
        let slot = Arc::clone(&secrets.slots.load()[0]);
        assert!(!slot.may_have_changed().await);
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::write(&path, "two").unwrap();
        std::fs::File::open(&path).unwrap().set_modified(later).unwrap();
        assert!(slot.may_have_changed().await);
        slot.read_again().await;
        assert_eq!(now().await, "two");
        std::fs::remove_file(&path).unwrap();
        slot.read_again().await;
        assert_eq!(now().await, "two");
        assert_eq!(secrets.problems().len(), 1);
        secrets.used(&reference, 7);
        secrets.replace(vec![reference.clone()]).await;
        assert_eq!(now().await, "two", "also after the files were read anew");
        assert_eq!((secrets.problems().len(), secrets.known(&reference).await.used_at), (1, Some(7)));
        secrets.replace(Vec::new()).await;
        assert!(secrets.get(&reference).await.is_err(), "what the files do not name any more is forgotten");
    }

    #[test]
    fn a_program_that_failed_is_run_again_soon_and_ever_less_soon() {
        assert_eq!(exec_pause(0), limit::SECRET_EXEC_INTERVAL);
        assert_eq!(exec_pause(1), limit::SECRET_LOOK_INTERVAL);
        assert_eq!(exec_pause(2), limit::SECRET_LOOK_INTERVAL * 2);
        assert!((0..80).all(|failures| exec_pause(failures) <= limit::SECRET_EXEC_INTERVAL));
    }

    #[tokio::test]
    async fn a_secret_that_was_never_read_says_where_and_why() {
        let secrets = Secrets::default();
        let reference = SecretReference::Environment("BAILIWICK_TEST_NOT_SET".into());
        secrets.replace(vec![reference.clone()]).await;
        assert!(secrets.get(&reference).await.unwrap_err().contains("env:BAILIWICK_TEST_NOT_SET"));
    }
}
