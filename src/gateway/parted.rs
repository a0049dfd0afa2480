//! What a store has taken back since its history and a journal's parted: it went back, and came to the same epochs again.
//!
//! Decides which of what the journal tells is left out: what would give back what was taken since. Refuses to know how
//! either of them is read. Invariant: of two histories of one thing the one holds that lets nobody do more.

use std::collections::{HashMap, HashSet};

use super::lifecycle::{self, Halted};
use super::review;
use crate::identity::described::Described;
use crate::identity::revoked::{RevocationStore as _, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::shelf::{Action, Change};
use crate::store::{Store, ToldChange, What};

/// What the store took back since then, and holds.
#[derive(Debug, Default)]
pub struct Since {
    /// With the mode, which each has of its own.
    revoked: HashSet<(RevocationTarget, &'static str)>,
    /// Rows that stop somebody, by section and name, with what they say where that is told.
    rows: HashMap<(String, String), Option<String>>,
}

impl Since {
    /// What the store has come to since that epoch, which is the first of its own; nothing where the two never parted.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn read(store: &Store, parted: Option<u64>) -> Result<Self, Failure> {
        let mut since = Self::default();
        let Some(first) = parted else { return Ok(since) };
        let mut known = RevocationEpoch(first.saturating_sub(1));
        loop {
            let changes = store.changed_since(known).await?;
            let Some(last) = changes.last().map(|change| change.epoch) else { break };
            known = last;
            changes.into_iter().for_each(|change| since.take(change.what));
        }
        // More may hold than is remembered of how it came.
        let (_, held) = store.revocations().await?;
        for held in held.into_iter().filter(|held| held.since.0 >= first) {
            since.take(What::Revoked(held.revocation));
        }
        Ok(since)
    }

    fn take(&mut self, what: What) {
        match what {
            What::Revoked(revocation) => {
                self.revoked.insert((revocation.target, revocation.mode.as_str()));
            }
            What::Lifted(revocation) => {
                self.revoked.remove(&(revocation.target, revocation.mode.as_str()));
            }
            What::Rows(rows) => {
                for row in rows.into_iter().filter(|row| stops(&row.section)) {
                    let name = (row.section, row.key);
                    if row.gone {
                        self.rows.remove(&name);
                    } else {
                        self.rows.insert(name, row.says);
                    }
                }
            }
        }
    }

    /// What is done of a change that the journal tells, and what is left out of it, in words.
    #[must_use]
    pub fn left_of(&self, change: ToldChange) -> (ToldChange, Vec<String>) {
        match change {
            ToldChange::Lifted(revocation) => {
                let held = (revocation.target.clone(), revocation.mode.as_str());
                if !self.revoked.contains(&held) {
                    return (ToldChange::Lifted(revocation), Vec::new());
                }
                let Described { kind, issuer, value } = Described::from(&revocation.target);
                let issuer = if issuer.is_empty() { String::new() } else { format!("{issuer}/") };
                let told = format!("lifts {kind} {issuer}{value}");
                // Told as an epoch all the same, so that it is no gap for whoever reconciles again.
                (ToldChange::Rows(Vec::new(), Vec::new()), vec![told])
            }
            ToldChange::Rows(mut rows, changes) => {
                let (out, changes): (Vec<Change>, Vec<Change>) =
                    changes.into_iter().partition(|change| self.would_give_back(change));
                rows.retain(|row| {
                    out.iter().all(|out| (out.section.name, &out.key) != (row.section.as_str(), &row.key))
                });
                let told = |out: &Change| format!("gives back `{}` of `{}`", out.key, out.section.name);
                (ToldChange::Rows(rows, changes), out.iter().map(told).collect())
            }
            revoked @ ToldChange::Revoked(_) => (revoked, Vec::new()),
        }
    }

    fn would_give_back(&self, change: &Change) -> bool {
        let Some(says) = self.rows.get(&(change.section.name.to_owned(), change.key.clone())) else { return false };
        match &change.action {
            Action::Remove => true,
            // Whom the store has retired since is not only suspended.
            Action::Put { body, .. } => {
                change.section.name == lifecycle::STOPPED.name && is_retired(says.as_deref()) && !is_retired(Some(body))
            }
            Action::Raise { .. } | Action::Count { .. } | Action::Check => false,
        }
    }
}

/// Whether a row of that section stops somebody for as long as it is there.
fn stops(section: &str) -> bool {
    section == lifecycle::STOPPED.name || section == review::ENDED.name
}

/// What is not told may be for good.
fn is_retired(says: Option<&str>) -> bool {
    says.and_then(|says| serde_json::from_str::<Halted>(says).ok()).is_none_or(|halted| halted.retired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::revoked::{Revocation, RevocationMode};
    use crate::shelf::{Expect, Section};
    use crate::store::RowTold;

    fn revocation(jti: &str, mode: RevocationMode) -> Revocation {
        let target = RevocationTarget::Token(jti.to_owned());
        Revocation { target, mode, actor: "host:0".to_owned(), note: String::new(), at: 0 }
    }

    fn row(section: Section, key: &str, says: Option<&str>) -> What {
        let (section, gone) = (section.name.to_owned(), says.is_none());
        What::Rows(vec![RowTold { section, key: key.to_owned(), gone, says: says.map(str::to_owned) }])
    }

    fn told(section: Section, key: &str, body: Option<&str>) -> ToldChange {
        let put = |body: &str| Action::Put { owner: String::new(), body: body.to_owned(), expires_at_us: None };
        let change = Change::new(section, key, Expect::Anything, body.map_or(Action::Remove, put));
        let What::Rows(rows) = row(section, key, body) else { panic!("rows") };
        ToldChange::Rows(rows, vec![change])
    }

    fn halted(retired: bool) -> String {
        format!(r#"{{"retired":{retired},"by":"host:0","at":0}}"#)
    }

    #[test]
    fn what_was_taken_back_since_is_lifted_by_no_older_history() {
        let mut since = Since::default();
        since.take(What::Revoked(revocation("again", RevocationMode::Block)));
        since.take(What::Revoked(revocation("over", RevocationMode::Block)));
        since.take(What::Lifted(revocation("over", RevocationMode::Block)));
        let left_out = |jti: &str, mode| since.left_of(ToldChange::Lifted(revocation(jti, mode)));
        let (done, told) = left_out("again", RevocationMode::Block);
        assert_eq!((done, told), (ToldChange::Rows(Vec::new(), Vec::new()), vec!["lifts token again".to_owned()]));
        for (jti, mode) in [
            ("over", RevocationMode::Block),
            ("older", RevocationMode::Block),
            ("again", RevocationMode::SignOut { issued_before: 5 }),
        ] {
            assert_eq!(left_out(jti, mode), (ToldChange::Lifted(revocation(jti, mode)), Vec::new()), "{jti}");
        }
        let again = ToldChange::Revoked(revocation("again", RevocationMode::Block));
        assert_eq!(since.left_of(again.clone()), (again, Vec::new()), "taking back is never left out");
    }

    #[test]
    fn what_was_stopped_since_is_resumed_and_restored_by_no_older_history() {
        let mut since = Since::default();
        since.take(row(lifecycle::STOPPED, "bot", Some(&halted(false))));
        since.take(row(lifecycle::STOPPED, "gone", Some(&halted(true))));
        since.take(row(lifecycle::STOPPED, "resumed", Some(&halted(false))));
        since.take(row(lifecycle::STOPPED, "resumed", None));
        since.take(row(review::ENDED, "grant", Some("{}")));
        let nothing = ToldChange::Rows(Vec::new(), Vec::new());
        for (section, key, body) in [
            (lifecycle::STOPPED, "bot", None),
            (review::ENDED, "grant", None),
            (lifecycle::STOPPED, "gone", Some(halted(false))),
        ] {
            let (done, out) = since.left_of(told(section, key, body.as_deref()));
            assert_eq!((&done, out.len()), (&nothing, 1), "{key}");
            assert!(out[0].contains(key), "{out:?}");
        }
        for (section, key, body) in [
            (lifecycle::STOPPED, "older", None),
            (lifecycle::STOPPED, "resumed", None),
            (lifecycle::STOPPED, "bot", Some(halted(true))),
            (lifecycle::STOPPED, "gone", Some(halted(true))),
            (lifecycle::ATTESTED, "bot", None),
        ] {
            let change = told(section, key, body.as_deref());
            assert_eq!(since.left_of(change.clone()), (change, Vec::new()), "{key}");
        }
    }
}
