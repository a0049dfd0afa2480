//! Software that nobody registered and that came all the same: denied and proposed to administrators, or let in as the
//! agent that is its issuer's default, and listed.
//!
//! Decides what is written down of it. Refuses to know whether it is let in, and how an administrator accepts it.
//! Invariants: it is listed only after its issuer vouched for its token; each is there once, under its issuer and its
//! name; there are not more of them than an administrator can look through, no issuer's take the place of another's, and
//! one that stays away is forgotten. Nobody waits for any of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::KnownBy;
use crate::ids::{Digest, IssuerAlias};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

/// Where those are kept that were denied.
pub const SECTION: Section = Section { name: "proposed_agent", rows_max: limit::PROPOSED_AGENTS_MAX };
/// Where those are kept that were let in: people's assistants are many, and hide nobody who was denied.
pub const LET_IN: Section = Section { name: "unregistered_agent", rows_max: limit::PROPOSED_AGENTS_MAX };

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
    /// Whether it was let in, as the agent that is its issuer's default.
    #[serde(default)]
    pub let_in: bool,
    /// When it came first, seconds since 1970 by the store's clock.
    pub first_seen: i64,
    /// When it came last, give or take an hour.
    pub last_seen: i64,
}

/// What came and was not written down yet, by issuer, claim and the digest of the name.
#[derive(Debug)]
pub(super) struct Sightings {
    seen: Mutex<BTreeMap<String, Seen>>,
    /// What was written down lately: who comes with each request is not looked up with each.
    lately: moka::sync::Cache<String, ()>,
    any: Notify,
}

impl Default for Sightings {
    fn default() -> Self {
        let lately = moka::sync::Cache::builder()
            .max_capacity(2 * u64::from(limit::PROPOSED_AGENTS_MAX))
            .time_to_live(limit::PROPOSED_AGAIN)
            .build();
        Self { seen: Mutex::default(), lately, any: Notify::new() }
    }
}

#[derive(Debug)]
struct Seen {
    issuer: IssuerAlias,
    known_by: KnownBy,
    name: String,
    for_person: bool,
    let_in: bool,
}

impl Seen {
    const fn section(&self) -> Section {
        if self.let_in { LET_IN } else { SECTION }
    }
}

impl Sightings {
    /// Takes down that such software was denied; forgets it where there are many already.
    pub fn note(&self, issuer: &IssuerAlias, client: Option<&str>, subject: &str, for_person: bool) {
        let (known_by, name) = client.map_or((KnownBy::Subject, subject), |client| (KnownBy::Client, client));
        self.took_down(issuer, (known_by, name), for_person, false);
    }

    /// Takes down that a person's assistant was let in as the issuer's default.
    pub fn note_let_in(&self, issuer: &IssuerAlias, client: &str) {
        self.took_down(issuer, (KnownBy::Client, software(client)), true, true);
    }

    fn took_down(&self, issuer: &IssuerAlias, (known_by, name): (KnownBy, &str), for_person: bool, let_in: bool) {
        let key = key(issuer.as_str(), word(known_by), name);
        if self.lately.contains_key(&key) {
            return;
        }
        let plain = name.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
        let name = plain.take(limit::PROPOSED_NAME_CHARACTERS_MAX).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < limit::PROPOSED_WAITING_MAX || seen.contains_key(&key) {
            seen.insert(key, Seen { issuer: issuer.clone(), known_by, name, for_person, let_in });
            self.any.notify_one();
        }
    }

    /// Writes down what came, for as long as it is polled.
    pub async fn keep(&self, shelf: &dyn Shelf) {
        loop {
            self.any.notified().await;
            let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
            for (key, seen) in seen {
                let written = write(shelf, &key, &seen).await;
                if written.is_ok() {
                    self.lately.insert(key, ());
                }
                match written {
                    Ok(Written::New) if seen.let_in => {
                        tracing::info!(issuer = %seen.issuer, name = seen.name, "software that nobody registered was let in as the issuer's default agent");
                    }
                    Ok(Written::New) => {
                        tracing::info!(issuer = %seen.issuer, name = seen.name, "software that nobody registered was denied, and is proposed");
                    }
                    Ok(Written::Full) => {
                        tracing::warn!(issuer = %seen.issuer, "more unregistered software came than can be listed");
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
    let section = seen.section();
    let before = shelf.row(section, key).await?;
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
        let_in: seen.let_in,
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
    let change = Change::new(section, key, expect, action);
    let mut done = shelf.change(vec![change.clone()], Tell::Nobody).await?;
    if matches!(done, Changed::Full(_))
        && let Some(gives_way) = who_gives_way(&all(shelf, section).await?, &proposed.issuer)
    {
        let gone = Change::new(section, gives_way, Expect::Anything, Action::Remove);
        done = shelf.change(vec![gone, change], Tell::Nobody).await?;
    }
    // Where another replica was faster, it is there.
    Ok(match done {
        Changed::Done { .. } if before.is_none() => Written::New,
        Changed::Full(_) => Written::Full,
        Changed::Done { .. } | Changed::Conflict(_) => Written::Known,
    })
}

/// Whose row makes room for one of that issuer: of the issuer that has the most, the one seen longest ago. Nobody's
/// where that is its own issuer, or has no more than that.
fn who_gives_way(rows: &[(String, Proposed)], issuer: &str) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, row) in rows {
        *counts.entry(row.issuer.as_str()).or_default() += 1;
    }
    let own = counts.get(issuer).copied().unwrap_or_default();
    let (greatest, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    if greatest == issuer || count <= own.saturating_add(1) {
        return None;
    }
    let theirs = rows.iter().filter(|(_, row)| row.issuer == greatest);
    theirs.min_by_key(|(_, row)| row.last_seen).map(|(key, _)| key.clone())
}

/// The software that a client is: each installation of it may add something to the address of its metadata document.
fn software(client: &str) -> &str {
    let is_document = client.starts_with("https://");
    let end = client.find(['?', '#']).filter(|_| is_document).unwrap_or(client.len());
    client.get(..end).unwrap_or(client)
}

/// All that came without being registered, by issuer and name.
///
/// # Errors
/// `store_unavailable`.
pub async fn listed(shelf: &dyn Shelf) -> Result<Vec<Proposed>, Failure> {
    let (denied, let_in) = (all(shelf, SECTION).await?, all(shelf, LET_IN).await?);
    let mut found: Vec<Proposed> = denied.into_iter().chain(let_in).map(|(_, row)| row).collect();
    found.sort_by(|one, other| (&one.issuer, &one.name).cmp(&(&other.issuer, &other.name)));
    Ok(found)
}

/// The rows of a section that are understood, each with its name.
async fn all(shelf: &dyn Shelf, section: Section) -> Result<Vec<(String, Proposed)>, Failure> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let rows = shelf.rows(section, None, after.as_deref()).await?;
        let Some(last) = rows.last() else { return Ok(found) };
        after = Some(last.key.clone());
        found.extend(rows.iter().filter_map(|row| Some((row.key.clone(), read(row)?))));
        if found.len() >= section.rows_max as usize {
            return Ok(found);
        }
    }
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

    fn seen_of(issuer: &str, name: &str) -> Seen {
        let (issuer, name) = (alias(issuer), name.to_owned());
        Seen { issuer, known_by: KnownBy::Client, name, for_person: false, let_in: false }
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
        let seen = |name: String| seen_of("corp", &name);
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
    async fn one_issuers_software_leaves_room_for_anothers() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place).await;
        let row = |number: u32| Proposed {
            issuer: "corp".to_owned(),
            known_by: "client_id".to_owned(),
            name: format!("c{number}"),
            for_person: false,
            let_in: false,
            first_seen: 0,
            last_seen: i64::from(number),
        };
        let mut rows = (0..limit::PROPOSED_AGENTS_MAX).map(|number| {
            let body = serde_json::to_string(&row(number)).unwrap();
            let action = Action::Put { owner: "corp".to_owned(), body, expires_at_us: None };
            Change::new(SECTION, format!("row-{number}"), Expect::Absent, action)
        });
        loop {
            let some: Vec<Change> = rows.by_ref().take(limit::SHELF_CHANGES_MAX).collect();
            if some.is_empty() {
                break;
            }
            assert!(store.change(some, Tell::Nobody).await.unwrap().is_done());
        }
        assert_eq!(write(&store, "one", &seen_of("corp", "one")).await.unwrap(), Written::Full, "it has its share");
        assert_eq!(write(&store, "two", &seen_of("other", "two")).await.unwrap(), Written::New);
        let found = listed(&store).await.unwrap();
        assert_eq!(found.len(), limit::PROPOSED_AGENTS_MAX as usize);
        assert!(found.iter().any(|one| one.issuer == "other"));
        assert!(found.iter().all(|one| one.name != "c0"), "the one that was seen longest ago");
    }

    #[tokio::test]
    async fn an_assistant_that_was_let_in_is_listed_once_for_all_that_its_document_is_asked_with() {
        let place = tempfile::tempdir().unwrap();
        let (store, sightings) = (store(&place).await, Sightings::default());
        for client in ["https://app.example/client", "https://app.example/client?install=1", "dynamic?7"] {
            sightings.note_let_in(&alias("corp"), client);
        }
        sightings.note(&alias("corp"), Some("robot"), "robot", false);
        settle(&sightings, &store).await;
        let found = listed(&store).await.unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.let_in)).collect();
        assert_eq!(told, [("dynamic?7", true), ("https://app.example/client", true), ("robot", false)]);
    }

    #[tokio::test]
    async fn one_that_comes_again_is_written_down_again_after_a_while_and_kept_for_a_month() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place).await;
        let seen = seen_of("corp", "n");
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
