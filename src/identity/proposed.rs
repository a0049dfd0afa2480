//! Software that nobody registered and that came all the same: proposed to administrators, and never let in.
//!
//! Decides what is written down of it. Refuses to know how an administrator accepts it. Invariants: it is proposed only
//! after its issuer vouched for its token; each is there once, under its issuer and its name; there are not more of them
//! than an administrator can look through, and one that stays away is forgotten. Nobody waits for any of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::KnownBy;
use crate::ids::{Digest, IssuerAlias};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

/// Where they are kept.
pub const SECTION: Section = Section { name: "proposed_agent", rows_max: limit::PROPOSED_AGENTS_MAX };

/// Software that came without being registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// The alias of the issuer that vouched for its token.
    pub issuer: String,
    /// `client_id` or `subject`: by which of the two an entry would know it.
    pub known_by: String,
    /// What the issuer calls it, cut where it is long.
    pub name: String,
    /// Whether it called for a person.
    pub for_person: bool,
    /// When it came first, seconds since 1970 by the store's clock.
    pub first_seen: i64,
    /// When it came last, give or take an hour.
    pub last_seen: i64,
}

/// What came and was not written down yet, by issuer, claim and the digest of the name.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    seen: Mutex<BTreeMap<String, Seen>>,
    any: Notify,
}

#[derive(Debug)]
struct Seen {
    issuer: IssuerAlias,
    known_by: KnownBy,
    name: String,
    for_person: bool,
}

impl Sightings {
    /// Takes down that such software came; forgets it where there are many already.
    pub fn note(&self, issuer: &IssuerAlias, client: Option<&str>, subject: &str, for_person: bool) {
        let (known_by, name) = client.map_or((KnownBy::Subject, subject), |client| (KnownBy::Client, client));
        let key = key(issuer.as_str(), word(known_by), name);
        let plain = name.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
        let name = plain.take(limit::PROPOSED_NAME_CHARACTERS_MAX).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < limit::PROPOSED_WAITING_MAX || seen.contains_key(&key) {
            seen.insert(key, Seen { issuer: issuer.clone(), known_by, name, for_person });
            self.any.notify_one();
        }
    }

    /// Writes down what came, for as long as it is polled.
    pub async fn keep(&self, shelf: &dyn Shelf) {
        loop {
            self.any.notified().await;
            let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
            for (key, seen) in seen {
                match write(shelf, &key, &seen).await {
                    Ok(Written::New) => {
                        tracing::info!(issuer = %seen.issuer, name = seen.name, "software that nobody registered was denied, and is proposed");
                    }
                    Ok(Written::Full) => {
                        tracing::warn!(issuer = %seen.issuer, "more unregistered software than can be proposed was denied");
                    }
                    Ok(Written::Known) => {}
                    Err(failure) => tracing::warn!(%failure, "unregistered software could not be proposed"),
                }
            }
        }
    }
}

/// What became of a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    New,
    Known,
    Full,
}

async fn write(shelf: &dyn Shelf, key: &str, seen: &Seen) -> Result<Written, Failure> {
    let now_us = shelf.clock_us().await?;
    let now = now_us / 1_000_000;
    let before = shelf.row(SECTION, key).await?;
    let known = before.as_ref().and_then(read);
    let again = i64::try_from(limit::PROPOSED_AGAIN.as_secs()).unwrap_or(i64::MAX);
    if known.as_ref().is_some_and(|known| now.saturating_sub(known.last_seen) < again) {
        return Ok(Written::Known);
    }
    let proposed = Proposed {
        issuer: seen.issuer.to_string(),
        known_by: word(seen.known_by).to_owned(),
        name: seen.name.clone(),
        for_person: seen.for_person,
        first_seen: known.map_or(now, |known| known.first_seen),
        last_seen: now,
    };
    let expect = before.as_ref().map_or(Expect::Absent, |row| Expect::Version(row.version));
    let life = i64::try_from(limit::PROPOSED_LIFE.as_micros()).unwrap_or(i64::MAX);
    let action = Action::Put {
        owner: proposed.issuer.clone(),
        body: serde_json::to_string(&proposed).unwrap_or_default(),
        expires_at_us: Some(now_us.saturating_add(life)),
    };
    // Where another replica was faster, it is there.
    Ok(match shelf.change(vec![Change::new(SECTION, key, expect, action)], Tell::Nobody).await? {
        Changed::Done { .. } if before.is_none() => Written::New,
        Changed::Full(_) => Written::Full,
        Changed::Done { .. } | Changed::Conflict(_) => Written::Known,
    })
}

/// All that are proposed, by issuer and name.
///
/// # Errors
/// `store_unavailable`.
pub async fn listed(shelf: &dyn Shelf) -> Result<Vec<Proposed>, Failure> {
    let mut found: Vec<Proposed> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let rows = shelf.rows(SECTION, None, after.as_deref()).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.key.clone());
        found.extend(rows.iter().filter_map(read));
        if found.len() >= limit::PROPOSED_AGENTS_MAX as usize {
            break;
        }
    }
    found.sort_by(|one, other| (&one.issuer, &one.name).cmp(&(&other.issuer, &other.name)));
    Ok(found)
}

fn read(row: &Row) -> Option<Proposed> {
    serde_json::from_str(&row.body).ok()
}

/// The name of its row: names of clients are as long as their issuers like.
fn key(issuer: &str, known_by: &str, name: &str) -> String {
    Digest::of("bailiwick/proposed/v1", &[issuer.as_bytes(), known_by.as_bytes(), name.as_bytes()]).to_string()
}

const fn word(known_by: KnownBy) -> &'static str {
    match known_by {
        KnownBy::Client => "client_id",
        KnownBy::Subject => "subject",
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::StoreConfig;
    use crate::store::{StateDirectory, Store};

    async fn store(place: &tempfile::TempDir) -> Store {
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        Store::open(&state, &StoreConfig::Sqlite).await.unwrap()
    }

    fn alias(name: &str) -> IssuerAlias {
        IssuerAlias::new(name).unwrap()
    }

    /// Writes down what came, and comes back when there is nothing more.
    async fn settle(sightings: &Sightings, store: &Store) {
        let keep = sightings.keep(store);
        tokio::pin!(keep);
        while !sightings.seen.lock().unwrap().is_empty() || (&mut keep).now_or_never().is_some() {
            let _more = tokio::time::timeout(std::time::Duration::from_millis(20), &mut keep).await;
        }
        let _last = tokio::time::timeout(std::time::Duration::from_millis(200), &mut keep).await;
    }

    #[tokio::test]
    async fn each_is_proposed_once_whoever_comes_how_often() {
        let place = tempfile::tempdir().unwrap();
        let (store, sightings) = (store(&place).await, Sightings::default());
        for _ in 0..20 {
            sightings.note(&alias("corp"), Some("robot"), "robot", false);
            sightings.note(&alias("other"), Some("robot"), "ann", true);
            sightings.note(&alias("corp"), None, "robot", false);
        }
        settle(&sightings, &store).await;
        sightings.note(&alias("corp"), Some("robot"), "robot", false);
        settle(&sightings, &store).await;
        let found = listed(&store).await.unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.issuer.as_str(), one.known_by.as_str(), one.name.as_str(), one.for_person))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.contains(&("corp", "client_id", "robot", false))
                && told.contains(&("corp", "subject", "robot", false))
        );
        assert_eq!(told[2], ("other", "client_id", "robot", true));
    }

    #[tokio::test]
    async fn a_name_is_cut_and_two_long_ones_stay_two() {
        let place = tempfile::tempdir().unwrap();
        let (store, sightings) = (store(&place).await, Sightings::default());
        let long = |end: &str| format!("{}{end}", "x".repeat(limit::PROPOSED_NAME_CHARACTERS_MAX));
        sightings.note(&alias("corp"), Some(&long("a")), "s", true);
        sightings.note(&alias("corp"), Some(&long("b\u{1b}[2J")), "s", true);
        settle(&sightings, &store).await;
        let found = listed(&store).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.name.len() == limit::PROPOSED_NAME_CHARACTERS_MAX));
    }

    #[test]
    fn nobody_can_make_us_remember_more_than_so_many() {
        let sightings = Sightings::default();
        for number in 0..limit::PROPOSED_WAITING_MAX + 5 {
            sightings.note(&alias("corp"), Some(&format!("c{number}")), "s", false);
        }
        assert_eq!(sightings.seen.lock().unwrap().len(), limit::PROPOSED_WAITING_MAX);
    }

    #[tokio::test]
    async fn there_are_so_many_and_the_next_one_is_denied_without_being_listed() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place).await;
        let seen = |name: String| Seen { issuer: alias("corp"), known_by: KnownBy::Client, name, for_person: false };
        let mut rows = (0..limit::PROPOSED_AGENTS_MAX).map(|number| {
            let action = Action::Put { owner: "corp".to_owned(), body: "{}".to_owned(), expires_at_us: None };
            Change::new(SECTION, format!("row-{number}"), Expect::Absent, action)
        });
        loop {
            let some: Vec<Change> = rows.by_ref().take(limit::SHELF_CHANGES_MAX).collect();
            if some.is_empty() {
                break;
            }
            assert!(store.change(some, Tell::Nobody).await.unwrap().is_done());
        }
        assert_eq!(write(&store, "new", &seen("n".to_owned())).await.unwrap(), Written::Full);
        // What is not understood is not listed, and in nobody's way.
        assert_eq!(listed(&store).await.unwrap(), Vec::new());
    }

    #[tokio::test]
    async fn one_that_comes_again_is_written_down_again_after_a_while_and_kept_for_a_month() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place).await;
        let seen = Seen { issuer: alias("corp"), known_by: KnownBy::Client, name: "n".to_owned(), for_person: false };
        assert_eq!(write(&store, "k", &seen).await.unwrap(), Written::New);
        assert_eq!(write(&store, "k", &seen).await.unwrap(), Written::Known);
        let row = store.row(SECTION, "k").await.unwrap().unwrap();
        let now = store.clock_us().await.unwrap();
        let left = row.expires_at_us.unwrap() - now;
        let life = i64::try_from(limit::PROPOSED_LIFE.as_micros()).unwrap();
        assert!((life - 60_000_000..=life).contains(&left), "{left}");
        // As if it had come a while ago.
        let mut before = read(&row).unwrap();
        before.last_seen -= i64::try_from(limit::PROPOSED_AGAIN.as_secs()).unwrap();
        before.first_seen = before.last_seen;
        let action =
            Action::Put { owner: String::new(), body: serde_json::to_string(&before).unwrap(), expires_at_us: None };
        assert!(
            store
                .change(vec![Change::new(SECTION, "k", Expect::Anything, action)], Tell::Nobody)
                .await
                .unwrap()
                .is_done()
        );
        assert_eq!(write(&store, "k", &seen).await.unwrap(), Written::Known);
        let again = listed(&store).await.unwrap().remove(0);
        assert_eq!(again.first_seen, before.first_seen);
        assert!(again.last_seen > before.last_seen);
    }
}
