//! What every store does, whichever database keeps it: each test runs against SQLite and PostgreSQL.

use std::collections::BTreeMap;

use super::*;
use crate::config::{PostgresConfig, SecretReference};
use crate::identity::revoked::{RevocationMode, RevocationTarget};
use crate::ids::{AgentId, IssuerAlias};
use crate::shelf::{Action, Expect};

#[path = "../../tests/support/postgres.rs"]
pub(super) mod server;

/// A state directory, and where its store is.
pub(super) struct Place {
    directory: tempfile::TempDir,
    pub(super) config: StoreConfig,
    pub(super) database: Option<server::Database>,
}

impl Place {
    fn sqlite() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), config: StoreConfig::Sqlite, database: None }
    }

    /// `None`, and the reason printed, where there is no PostgreSQL.
    pub(super) async fn postgres() -> Option<Self> {
        let database = server::Database::fresh().await?;
        let config = reached(&database.url());
        Some(Self { directory: tempfile::tempdir().unwrap(), config, database: Some(database) })
    }

    /// Another replica with the same store.
    pub(super) fn another(&self) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), config: self.config.clone(), database: None }
    }

    pub(super) fn state(&self) -> StateDirectory {
        StateDirectory::open(&self.directory.path().join("state")).unwrap()
    }

    pub(super) async fn open(&self) -> Store {
        Store::open(&self.state(), &self.config).await.unwrap()
    }
}

/// A database by its address, with the password of the tests.
pub(super) fn reached(url: &str) -> StoreConfig {
    StoreConfig::Postgres(PostgresConfig {
        url: SecretReference::Plain(url.to_owned()),
        password: Some(SecretReference::Plain(server::PASSWORD.to_owned())),
    })
}

pub(super) async fn on_both(test: impl AsyncFn(Place)) {
    test(Place::sqlite()).await;
    if let Some(place) = Place::postgres().await {
        test(place).await;
    }
}

impl Store {
    /// Does something to the rows that nobody should.
    pub(super) async fn spoil(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.0 {
            Backend::Sqlite(store) => sqlx::raw_sql(sql).execute(&store.writer).await.map(drop).unwrap(),
            Backend::Postgres(store) => sqlx::raw_sql(sql).execute(&store.pool).await.map(drop).unwrap(),
        }
    }
}

pub(super) fn revocation(target: RevocationTarget, mode: RevocationMode) -> Revocation {
    Revocation { target, mode, actor: "host:1000".to_owned(), note: "lost laptop".to_owned(), at: 1_700_000_000 }
}

#[tokio::test]
async fn a_store_that_is_older_than_the_journal_does_not_start() {
    on_both(async |place| {
        let store = place.open().await;
        assert!(store.check_not_older_than(None).await.is_ok());
        assert!(store.check_not_older_than(Some(RevocationEpoch(0))).await.is_ok());
        let error = store.check_not_older_than(Some(RevocationEpoch(3))).await.unwrap_err();
        assert!(matches!(error, StoreError::OlderThanJournal { store: 0, journal: 3 }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn the_name_of_a_state_directory_stays() {
    on_both(async |place| {
        let store = place.open().await;
        let replica = store.replica().await.unwrap();
        store.close().await;
        assert_eq!(place.open().await.replica().await.unwrap(), replica);
        assert_ne!(place.another().open().await.replica().await.unwrap(), replica);
        let looked = Store::look(&place.config, place.state().path()).await.unwrap();
        assert_eq!((looked.replica, looked.version), (replica.to_string(), looked.version_known));
    })
    .await;
}

#[tokio::test]
async fn what_was_revoked_is_still_revoked_after_a_restart() {
    on_both(async |place| {
        let store = place.open().await;
        assert_eq!(store.revocations().await.unwrap(), (RevocationEpoch(0), Vec::new()));
        let corp = IssuerAlias::new("corp").unwrap();
        let all = [
            revocation(RevocationTarget::Token("jti-1".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Session("sid".to_owned()), RevocationMode::SignOut { issued_before: 5 }),
            revocation(RevocationTarget::Subject(corp.clone(), "a'; DROP".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Client(corp, "app".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Agent(AgentId::new("bot").unwrap()), RevocationMode::Block),
            revocation(RevocationTarget::Owner("user:corp/anna".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Server(ServerId::new("git").unwrap()), RevocationMode::Block),
            revocation(RevocationTarget::Mandate(crate::ids::MandateId::fresh()), RevocationMode::Block),
            revocation(RevocationTarget::Key("nightly-1".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Everything, RevocationMode::SignOut { issued_before: 7 }),
        ];
        for (index, revocation) in (1_u64..).zip(&all) {
            assert_eq!(store.revoke(revocation).await.unwrap(), RevocationEpoch(index));
        }
        store.close().await;
        let store = place.open().await;
        let (epoch, held) = store.revocations().await.unwrap();
        assert_eq!(epoch, RevocationEpoch(10));
        let since = (1..).map(RevocationEpoch);
        let expected: Vec<Held> = since.zip(all).map(|(since, revocation)| Held { since, revocation }).collect();
        assert_eq!(held, expected);
    })
    .await;
}

#[tokio::test]
async fn so_many_revocations_are_held_and_then_only_the_one_of_everything_has_room() {
    on_both(async |place| {
        let store = place.open().await;
        let token = |name: &str| revocation(RevocationTarget::Token(name.to_owned()), RevocationMode::Block);
        store.revoke(&token("first")).await.unwrap();
        store
            .spoil(&format!(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {})
                 INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
                 SELECT kind, issuer, value || n, mode, issued_before, actor, note, at, -n FROM revocations, number",
                limit::REVOCATIONS_MAX - 2
            ))
            .await;
        let before = store.revoke(&token("the last")).await.unwrap();
        let error = store.revoke(&token("one too many")).await.unwrap_err();
        assert!(error.detail.contains("revoke a client or subject, or everything"), "{}", error.detail);
        assert_eq!(store.revocation_epoch().await.unwrap(), before, "what was refused changes nothing");
        store.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn however_many_have_left_a_logout_has_room() {
    on_both(async |place| {
        let store = place.open().await;
        let by_feed = |target, mode| Revocation { actor: "feed:hr".to_owned(), ..revocation(target, mode) };
        let left = |name: &str| by_feed(RevocationTarget::Owner(format!("user:corp/{name}")), RevocationMode::Block);
        store.revoke(&left("ann")).await.unwrap();
        store
            .spoil(&format!(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {})
                 INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
                 SELECT kind, issuer, value || n, mode, issued_before, actor, note, at, -n FROM revocations, number",
                limit::REVOCATIONS_LEFT_MAX - 1
            ))
            .await;
        let error = store.revoke(&left("one-too-many")).await.unwrap_err();
        assert!(error.detail.contains("the rest is for logouts"), "{}", error.detail);
        store.revoke(&left("ann")).await.unwrap();
        let target = RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "bob".to_owned());
        store.revoke(&by_feed(target, RevocationMode::SignOut { issued_before: 5 })).await.unwrap();
        let by_hand = Revocation { actor: "host:0".to_owned(), ..left("eve") };
        store.revoke(&by_hand).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn feeds_have_so_much_room_and_leave_the_rest_to_administrators() {
    on_both(async |place| {
        let store = place.open().await;
        let by = |actor: &str, name: &str| Revocation {
            actor: actor.to_owned(),
            ..revocation(RevocationTarget::Token(name.to_owned()), RevocationMode::SignOut { issued_before: 5 })
        };
        store.revoke(&by("feed:hr", "first")).await.unwrap();
        store
            .spoil(&format!(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {})
                 INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
                 SELECT kind, issuer, value || n, mode, issued_before, actor, note, at, -n FROM revocations, number",
                limit::REVOCATIONS_OF_FEEDS_MAX - 1
            ))
            .await;
        let error = store.revoke(&by("feed:hr", "one too many")).await.unwrap_err();
        assert!(error.detail.contains("the rest is for administrators"), "{}", error.detail);
        store.revoke(&by("feed:hr", "first")).await.unwrap();
        store.revoke(&by("host:0", "an administrator's")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn signing_out_again_never_lets_an_older_token_back_in() {
    on_both(async |place| {
        let store = place.open().await;
        for issued_before in [9, 4] {
            let mode = RevocationMode::SignOut { issued_before };
            store.revoke(&revocation(RevocationTarget::Everything, mode)).await.unwrap();
        }
        let (epoch, held) = store.revocations().await.unwrap();
        assert_eq!(epoch, RevocationEpoch(2), "each acknowledgement has an epoch of its own");
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].revocation.mode, RevocationMode::SignOut { issued_before: 9 });
    })
    .await;
}

#[tokio::test]
async fn what_was_lifted_is_gone_for_good_and_what_was_renewed_since_is_not_lifted() {
    on_both(async |place| {
        let store = place.open().await;
        let block = revocation(RevocationTarget::Token("jti".to_owned()), RevocationMode::Block);
        let first = store.revoke(&block).await.unwrap();
        let renewed = store.revoke(&block).await.unwrap();
        assert_eq!(store.lift(first, &[], "host:0", "").await.unwrap(), None, "it was revoked again since");
        assert_eq!(store.revocation_epoch().await.unwrap(), renewed, "nothing was changed");
        assert_eq!(store.lift(renewed, &[], "host:0", "").await.unwrap(), Some((RevocationEpoch(3), block)));
        assert_eq!(store.lift(renewed, &[], "host:0", "").await.unwrap(), None);
        store.close().await;
        assert_eq!(place.open().await.revocations().await.unwrap(), (RevocationEpoch(3), Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn what_was_lifted_is_remembered_with_since_when_it_held_and_what_is_forgotten_raises_the_floor() {
    on_both(async |place| {
        let store = place.open().await;
        let target = |name: &str| RevocationTarget::Token(name.to_owned());
        let marks = |all: &[(&str, u64)]| {
            let mark = |name: &str| target(name).marks()[0];
            let mut all: Vec<_> = all.iter().map(|(name, since)| (mark(name), RevocationEpoch(*since))).collect();
            all.sort_unstable();
            all
        };
        let voided = async |store: &Store, after: u64| {
            let mut voided = store.voided(RevocationEpoch(after)).await.unwrap();
            voided.marks.sort_unstable();
            voided
        };
        for name in ["a", "b", "c"] {
            store.revoke(&revocation(target(name), RevocationMode::Block)).await.unwrap();
        }
        assert_eq!(voided(&store, 0).await.marks, []);
        for since in [1, 2] {
            assert!(store.lift(RevocationEpoch(since), &[], "host:0", "").await.unwrap().is_some());
        }
        assert_eq!(voided(&store, 0).await.marks, marks(&[("a", 1), ("b", 2)]));
        assert_eq!(voided(&store, 4).await.marks, marks(&[("b", 2)]), "whoever has seen the first asks for the rest");
        // Once more, and later.
        let again = store.revoke(&revocation(target("a"), RevocationMode::SignOut { issued_before: 5 })).await.unwrap();
        let lifted = store.lift(again, &[], "host:0", "").await.unwrap().unwrap().0;
        assert_eq!(voided(&store, lifted.0 - 1).await.marks, marks(&[("a", again.0)]));
        // What a journal tells that another store had lifted.
        let block = revocation(target("c"), RevocationMode::Block);
        let told = Told { change: ToldChange::Lifted(block), nonce: None };
        store.catch_up(&[(lifted.0 + 1, told)].into(), RevocationEpoch(lifted.0 + 1)).await.unwrap();
        assert_eq!(voided(&store, lifted.0).await.marks, marks(&[("c", 3)]));
        store.close().await;
        let store = place.open().await;
        assert_eq!(voided(&store, 0).await.marks, marks(&[("a", again.0), ("b", 2), ("c", 3)]));

        store.catch_up(&BTreeMap::new(), RevocationEpoch(lifted.0 + 1)).await.unwrap();
        assert_eq!(voided(&store, 0).await.forgotten, RevocationEpoch(0), "nothing is missing");
        assert_eq!(store.sweep().await.unwrap(), 0);
        store.forget_voided(3).await.unwrap();
        assert_eq!(voided(&store, 0).await.forgotten, RevocationEpoch(0));
        store.forget_voided(1).await.unwrap();
        let left = voided(&store, 0).await;
        assert_eq!((left.marks, left.forgotten), (marks(&[("c", 3)]), again), "the newest stays");
        let gap = RevocationEpoch(lifted.0 + 5);
        store.catch_up(&BTreeMap::new(), gap).await.unwrap();
        assert_eq!(voided(&store, 0).await.forgotten, gap, "what nobody tells may have been anybody's");
    })
    .await;
}

#[tokio::test]
async fn what_an_owner_answered_for_is_void_with_them_and_everything_where_a_journal_does_not_say_what_that_was() {
    on_both(async |place| {
        let store = place.open().await;
        let block = revocation(RevocationTarget::Owner("user:corp/anna".to_owned()), RevocationMode::Block);
        let since = store.revoke(&block).await.unwrap();
        let own = block.target.marks();
        let also = RevocationTarget::Agent(AgentId::new("build-bot").unwrap()).marks();
        let lifted = store.lift(since, &also, "host:0", "").await.unwrap().unwrap().0;
        let mut marks = store.voided(RevocationEpoch(0)).await.unwrap().marks;
        marks.sort_unstable();
        let mut all: Vec<_> = own.into_iter().chain(also).map(|mark| (mark, since)).collect();
        all.sort_unstable();
        assert_eq!(marks, all);
        let (revoked, end) = (lifted.0 + 1, RevocationEpoch(lifted.0 + 2));
        let told = |change| Told { change, nonce: None };
        let changes = [(revoked, told(ToldChange::Revoked(block.clone()))), (end.0, told(ToldChange::Lifted(block)))];
        store.catch_up(&changes.into(), end).await.unwrap();
        assert_eq!(store.voided(RevocationEpoch(0)).await.unwrap().forgotten, end);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_not_understood_refuses_instead_of_being_skipped() {
    on_both(async |place| {
        let store = place.open().await;
        store.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
        store.spoil("UPDATE revocations SET kind = 'subject', issuer = 'NOT AN ALIAS', value = 'x'").await;
        assert_eq!(store.revocations().await.unwrap_err().reason, Reason::StoreUnavailable);
    })
    .await;
}

#[tokio::test]
async fn a_store_is_brought_up_to_what_a_journal_tells_and_never_back() {
    on_both(async |place| {
        let store = place.open().await;
        let everything = revocation(RevocationTarget::Everything, RevocationMode::Block);
        let token = revocation(RevocationTarget::Token("jti".to_owned()), RevocationMode::Block);
        let told = |change| Told { change, nonce: Some(9) };
        let thing = Section { name: "thing", rows_max: 4 };
        let put = Action::Put { owner: String::new(), body: "b".to_owned(), expires_at_us: None };
        let rows = vec![RowTold { section: "thing".to_owned(), key: "k".to_owned(), gone: false, says: None }];
        let change = Change::new(thing, "k", Expect::Anything, put);
        let told = BTreeMap::from([
            (4, told(ToldChange::Revoked(everything.clone()))),
            (5, told(ToldChange::Revoked(token.clone()))),
            (6, told(ToldChange::Lifted(token))),
            (7, told(ToldChange::Rows(rows.clone(), vec![change]))),
        ]);
        store.catch_up(&told, RevocationEpoch(7)).await.unwrap();
        let held = Held { since: RevocationEpoch(4), revocation: everything };
        assert_eq!(store.revocations().await.unwrap(), (RevocationEpoch(7), vec![held]));
        assert_eq!(store.row(thing, "k").await.unwrap().unwrap().body, "b");
        // Other replicas hear of all of it.
        let changed = store.changed_since(RevocationEpoch(3)).await.unwrap();
        assert_eq!(
            changed.iter().map(|one| (one.epoch.0, one.nonce)).collect::<Vec<_>>(),
            [4, 5, 6, 7].map(|epoch| (epoch, Some(9)))
        );
        assert_eq!(changed[3].what, What::Rows(rows));
        store.catch_up(&BTreeMap::new(), RevocationEpoch(2)).await.unwrap();
        assert_eq!(store.revocation_epoch().await.unwrap(), RevocationEpoch(7));
    })
    .await;
}

#[tokio::test]
async fn whatever_raises_the_epoch_is_told_and_another_history_of_it_is_refused() {
    on_both(async |place| {
        let store = place.open().await;
        let block = revocation(RevocationTarget::Token("jti".to_owned()), RevocationMode::Block);
        let first = store.revoke(&block).await.unwrap();
        store.lift(first, &[], "user:corp/ann", "found again").await.unwrap().unwrap();
        let stopped = Section { name: "stopped", rows_max: 4 };
        let put = Action::Put { owner: String::new(), body: "{}".to_owned(), expires_at_us: None };
        let change = Change::new(stopped, "bot", Expect::Absent, put);
        assert!(store.change(vec![change.clone()], Tell::Everybody).await.unwrap().is_done());
        assert!(!store.change(vec![change], Tell::Everybody).await.unwrap().is_done(), "what is not done is not told");
        let all = store.changed_since(RevocationEpoch(0)).await.unwrap();
        assert_eq!(all.iter().map(|change| change.epoch.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(all[0].what, What::Revoked(block.clone()));
        let lifting = Revocation { actor: "user:corp/ann".to_owned(), note: "found again".to_owned(), ..block };
        assert_eq!(all[1].what, What::Lifted(lifting), "who lifted it, and why");
        let row =
            RowTold { section: "stopped".to_owned(), key: "bot".to_owned(), gone: false, says: Some("{}".to_owned()) };
        assert_eq!(all[2].what, What::Rows(vec![row]));
        let nonce = all[2].nonce.unwrap();
        assert!(all[0].nonce != all[2].nonce, "each epoch has its own");
        store.check_same_history(None).await.unwrap();
        store.check_same_history(Some((RevocationEpoch(3), nonce))).await.unwrap();
        store.check_same_history(Some((RevocationEpoch(9), nonce))).await.unwrap();
        let other = store.check_same_history(Some((RevocationEpoch(3), nonce ^ 1))).await.unwrap_err();
        assert!(matches!(other, StoreError::OtherHistory { epoch: 3 }), "{other}");
    })
    .await;
}

#[tokio::test]
async fn what_a_server_ran_is_known_to_the_next_gateway() {
    on_both(async |place| {
        let (one, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        let server = ServerId::new("notes").unwrap();
        let store = place.open().await;
        assert_eq!(store.remember_executable(&server, one).await.unwrap(), None);
        store.close().await;
        let store = place.open().await;
        assert_eq!(store.remember_executable(&server, other).await.unwrap(), Some(one));
        assert_eq!(store.remember_executable(&server, other).await.unwrap(), Some(other));
    })
    .await;
}

#[tokio::test]
async fn its_clock_tells_the_time() {
    on_both(async |place| {
        let difference = place.open().await.now_s().await.unwrap() - crate::identity::now_s();
        assert!(difference.abs() <= 1, "{difference}");
    })
    .await;
}
