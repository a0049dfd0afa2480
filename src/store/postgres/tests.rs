//! What replicas have in common, and what PostgreSQL alone does.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::identity::revoked::{Revocation, RevocationMode, RevocationStore as _, RevocationTarget};
use crate::ids::{Digest, PolicyRevision, RevocationEpoch};
use crate::limit;
use crate::store::tests::{Place, reached, revocation, server};
use crate::store::{Member, Store, StoreError, What};

async fn member(store: &Store, files: &str) -> Member {
    Member {
        replica: store.replica().await.unwrap(),
        advertise: Some("a.example:7900".to_owned()),
        version: "1".to_owned(),
        revision: PolicyRevision(Digest::sha256(files.as_bytes())),
    }
}

#[tokio::test]
async fn replicas_that_start_together_make_the_tables_once() {
    let Some(place) = Place::postgres().await else { return };
    let others: Vec<_> = (0..4).map(|_| place.another()).collect();
    let stores = futures_util::future::join_all(others.iter().map(Place::open)).await;
    stores[0].revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
    assert_eq!(stores[3].revocation_epoch().await.unwrap(), RevocationEpoch(1));
}

#[tokio::test]
async fn whoever_follows_the_store_is_woken_by_a_revocation_at_another_replica() {
    let Some(place) = Place::postgres().await else { return };
    let (here, there) = (place.open().await, place.another().open().await);
    let changes = there.changes().unwrap();
    // The first says that it listens.
    changes.next(Duration::from_secs(5)).await;
    let began = Instant::now();
    here.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
    // A machine under load is slow; nobody who was woken waits until the end.
    changes.next(Duration::from_secs(60)).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(there.revocation_epoch().await.unwrap(), RevocationEpoch(1));
}

#[tokio::test]
async fn what_became_of_revocations_at_one_replica_is_told_to_the_others_up_to_a_bound() {
    let Some(place) = Place::postgres().await else { return };
    let (here, there) = (place.open().await, place.another().open().await);
    let block = revocation(RevocationTarget::Token("jti".to_owned()), RevocationMode::Block);
    let since = here.revoke(&block).await.unwrap();
    let (_, lifted) = here.lift(since, &[], "user:corp/ann", "found again").await.unwrap().unwrap();
    assert_eq!(lifted, block, "what held");
    let all = there.changed_since(RevocationEpoch(0)).await.unwrap();
    assert_eq!(all[0].what, What::Revoked(block.clone()));
    let lifting = Revocation { actor: "user:corp/ann".to_owned(), note: "found again".to_owned(), ..block.clone() };
    assert_eq!(all[1].what, What::Lifted(lifting), "who lifted it, and why");
    assert_eq!(all[0].replica, here.replica().await.unwrap());
    assert_eq!(there.changed_since(RevocationEpoch(1)).await.unwrap().len(), 1);

    let more = format!(
        "INSERT INTO changes SELECT n, replica, lifted, kind, issuer, value, mode, issued_before, actor, note, at
         FROM changes, generate_series(3, {}) AS n WHERE epoch = 1; UPDATE meta SET epoch = {}",
        limit::REVOCATION_CHANGES_MAX + 2,
        limit::REVOCATION_CHANGES_MAX + 2
    );
    here.spoil(&more).await;
    here.revoke(&block).await.unwrap();
    let oldest = there.changed_since(RevocationEpoch(0)).await.unwrap();
    assert_eq!(oldest[0].epoch, RevocationEpoch(4), "the oldest are forgotten");
    assert_eq!(i64::try_from(oldest.len()).unwrap(), limit::REVOCATION_CHANGES_TAKEN_MAX);
}

#[tokio::test]
async fn a_store_that_was_seen_to_go_back_is_believed_by_nobody_until_it_is_reconciled() {
    let Some(place) = Place::postgres().await else { return };
    let (here, there) = (place.open().await, place.another().open().await);
    here.distrust("it went back from 7 to 5").await.unwrap();
    here.distrust("it went back again").await.unwrap();
    assert_eq!(there.moment().await.unwrap().went_back.as_deref(), Some("it went back from 7 to 5"));
    let error = place.another().open().await.check_not_older_than(None).await.unwrap_err();
    assert!(matches!(error, StoreError::WentBack(_)), "{error}");
    there.catch_up(&std::collections::BTreeMap::new(), RevocationEpoch(7)).await.unwrap();
    here.check_not_older_than(Some(RevocationEpoch(7))).await.unwrap();
}

#[tokio::test]
async fn revocations_at_many_replicas_at_once_all_have_an_epoch_of_their_own() {
    let Some(place) = Place::postgres().await else { return };
    let stores = futures_util::future::join_all((0..3).map(|_| async { place.another().open().await })).await;
    let revoking = (0..30).map(|number| {
        let store = &stores[number % 3];
        async move {
            let target = RevocationTarget::Token(number.to_string());
            store.revoke(&revocation(target, RevocationMode::Block)).await.unwrap()
        }
    });
    // Three at a time, as many as there are replicas.
    let mut epochs: Vec<_> = futures_util::stream::iter(revoking).buffer_unordered(3).collect().await;
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=30).map(RevocationEpoch).collect::<Vec<_>>());
    assert_eq!(stores[0].revocations().await.unwrap().1.len(), 30);
}

#[tokio::test]
async fn the_first_of_the_living_says_which_files_are_served_and_then_an_administrator() {
    let Some(place) = Place::postgres().await else { return };
    let (first, second) = (place.open().await, place.another().open().await);
    let (old, new) = (member(&first, "old").await, member(&second, "new").await);
    assert_eq!(first.join(&old).await.unwrap(), old.revision);
    assert_eq!(second.join(&new).await.unwrap(), old.revision, "a start changes nothing while another lives");
    assert_eq!(first.heartbeat(&old).await.unwrap().len(), 2);
    first.activate(new.revision, "host:0").await.unwrap();
    assert_eq!(second.moment().await.unwrap().active, Some(new.revision));
    assert!(first.gone().await.unwrap().is_empty());
    second.leave().await.unwrap();
    assert_eq!(first.heartbeat(&old).await.unwrap(), std::slice::from_ref(&old));
    let gone = first.gone().await.unwrap();
    let ago_us = jiff::Timestamp::now().as_microsecond() - gone[0].1;
    assert!(gone[0].0 == new.replica && gone.len() == 1 && ago_us < 60_000_000, "who is gone is still named: {gone:?}");
    assert_eq!(first.join(&old).await.unwrap(), old.revision, "nobody else lives");
}

#[tokio::test]
async fn whoever_starts_first_after_an_outage_waits_for_those_that_live_and_could_not_say_so() {
    let Some(place) = Place::postgres().await else { return };
    let (living, starting) = (place.open().await, place.another().open().await);
    let (old, new) = (member(&living, "old").await, member(&starting, "new").await);
    living.join(&old).await.unwrap();
    let silent = format!("UPDATE members SET seen_at = seen_at - interval '{} s'", limit::MEMBER_GONE_AFTER.as_secs());
    living.spoil(&silent).await;
    let beat = async {
        tokio::time::sleep(limit::HEARTBEAT_INTERVAL).await;
        living.heartbeat(&old).await.unwrap()
    };
    let (active, _) = tokio::join!(starting.join(&new), beat);
    assert_eq!(active.unwrap(), old.revision);
    living.leave().await.unwrap();
    let began = Instant::now();
    assert_eq!(starting.join(&new).await.unwrap(), new.revision);
    assert!(began.elapsed() < limit::HEARTBEAT_INTERVAL, "nobody is waited for who said that they stop");
}

#[tokio::test]
async fn a_replica_that_is_not_heard_of_is_gone_after_a_while_and_forgotten_much_later() {
    let Some(place) = Place::postgres().await else { return };
    let (first, second) = (place.open().await, place.another().open().await);
    let (own, other) = (member(&first, "f").await, member(&second, "f").await);
    second.join(&other).await.unwrap();
    let silent = |since: Duration| format!("UPDATE members SET seen_at = seen_at - interval '{} s'", since.as_secs());
    first.spoil(&silent(limit::MEMBER_GONE_AFTER - limit::HEARTBEAT_INTERVAL)).await;
    assert_eq!(first.heartbeat(&own).await.unwrap().len(), 2);
    first.spoil(&silent(2 * limit::HEARTBEAT_INTERVAL)).await;
    assert_eq!(first.heartbeat(&own).await.unwrap(), std::slice::from_ref(&own));
    first.spoil(&silent(limit::MEMBER_FORGOTTEN_AFTER)).await;
    first.join(&own).await.unwrap();
    let mut connection = place.database.as_ref().unwrap().connect().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM members").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn so_many_replicas_are_known_at_once() {
    let Some(place) = Place::postgres().await else { return };
    let store = place.open().await;
    let own = member(&store, "f").await;
    store.join(&own).await.unwrap();
    let more = "INSERT INTO members SELECT lpad(n::text, 26, '0'), advertise, version, revision, gone, seen_at
                FROM members, generate_series(1, 1100) AS n";
    store.spoil(more).await;
    assert_eq!(i64::try_from(store.heartbeat(&own).await.unwrap().len()).unwrap(), limit::MEMBERS_MAX);
}

#[tokio::test]
async fn a_replica_has_so_many_connections_for_calls_and_others_for_what_waits_for_no_call() {
    let Some(place) = Place::postgres().await else { return };
    let crate::config::StoreConfig::Postgres(config) = &place.config else { panic!("not PostgreSQL") };
    let store = super::Postgres::open(&place.state(), config).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..limit::STORE_CONNECTIONS_MAX {
        held.push(store.pool.acquire().await.unwrap());
    }
    let began = Instant::now();
    assert!(store.clock_us().await.is_err(), "no call waits for longer than for the store");
    assert!(began.elapsed() >= limit::STORE_TIMEOUT - Duration::from_millis(50), "{:?}", began.elapsed());
    // However many calls wait: what is taken back is, and is heard of.
    assert_eq!(store.moment().await.unwrap().epoch, RevocationEpoch(0));
    store.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
    assert_eq!(store.changed_since(RevocationEpoch(0)).await.unwrap().len(), 1);
    assert_eq!(store.revocations().await.unwrap().1.len(), 1);
    held.pop();
    assert!(store.clock_us().await.is_ok());

    let mut own = Vec::new();
    for _ in 0..limit::STORE_OWN_CONNECTIONS_MAX {
        own.push(store.own.acquire().await.unwrap());
    }
    let one_more = tokio::time::timeout(Duration::from_millis(100), store.own.acquire()).await;
    assert!(one_more.is_err(), "and no more than so many of those");
}

#[tokio::test]
async fn a_start_waits_so_long_for_a_replica_that_upgrades_the_tables() {
    assert!(limit::STORE_UPGRADE_WAIT_MAX > 10 * limit::STORE_TIMEOUT, "an upgrade takes longer than a statement");
    let Some(place) = Place::postgres().await else { return };
    let crate::config::StoreConfig::Postgres(config) = &place.config else { panic!("not PostgreSQL") };
    drop(place.open().await);
    let mut upgrading = place.database.as_ref().unwrap().connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE _sqlx_migrations").execute(&mut upgrading).await.unwrap();
    let wait = Duration::from_millis(300);
    let error = super::Postgres::open_within(&place.state(), config, wait).await.unwrap_err().to_string();
    assert!(error.contains("being upgraded"), "{error}");
    sqlx::raw_sql("COMMIT").execute(&mut upgrading).await.unwrap();
    super::Postgres::open_within(&place.state(), config, wait).await.unwrap();
}

#[tokio::test]
async fn a_standby_is_no_recent_store() {
    let Some(place) = Place::postgres().await else { return };
    let database = place.database.as_ref().unwrap();
    let standby = format!(
        "CREATE SCHEMA standby;
         CREATE FUNCTION standby.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         ALTER DATABASE {} SET search_path = standby, pg_catalog, public",
        database.name
    );
    let store = place.open().await;
    assert!(store.moment().await.is_ok());
    store.spoil(&standby).await;
    store.close().await;
    let failure = place.another().open().await.moment().await.unwrap_err();
    assert!(failure.detail.contains("standby"), "{}", failure.detail);
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let Some(place) = Place::postgres().await else { return };
    let store = place.open().await;
    store.spoil("INSERT INTO _sqlx_migrations SELECT 1000, 'later', now(), true, '', 0").await;
    let error = Store::open(&place.another().state(), &place.config).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { version: 1000, .. }), "{error}");
}

#[tokio::test]
async fn a_connection_is_encrypted_and_its_other_end_known_where_the_address_says_so() {
    let Some(place) = Place::postgres().await else { return };
    let database = place.database.as_ref().unwrap();
    let open = async |host: &str, mode: &str, root: bool| {
        let root = if root { format!("&sslrootcert={}", server::CERTIFICATE) } else { String::new() };
        let config = reached(&format!("{}?sslmode={mode}{root}", database.url_by(host, database.port)));
        Store::open(&place.state(), &config).await
    };
    let store = open("localhost", "verify-full", true).await.unwrap();
    assert_eq!(store.revocation_epoch().await.unwrap(), RevocationEpoch(0));
    let error = open("localhost", "verify-full", false).await.unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains(server::PASSWORD), "{error}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_waited_for_so_long_and_its_password_is_not_told() {
    let Some(place) = Place::postgres().await else { return };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let database = place.database.as_ref().unwrap();
    let config = reached(&database.url_by("127.0.0.1", silent.local_addr().unwrap().port()));
    let began = Instant::now();
    let error = Store::open(&place.state(), &config).await.unwrap_err().to_string();
    // Above, only that it is not waited for without end: a machine under load is slow.
    assert!(began.elapsed() >= limit::STORE_TIMEOUT && began.elapsed() < 15 * limit::STORE_TIMEOUT, "{error}");
    assert!(!error.contains(server::PASSWORD), "{error}");

    let wrong = format!("postgres://{}:hunter2@127.0.0.1:{}/{}", server::USER, database.port, database.name);
    let config = crate::config::StoreConfig::Postgres(crate::config::PostgresConfig {
        url: crate::config::SecretReference::Plain(wrong),
        password: None,
    });
    let error = Store::open(&place.state(), &config).await.unwrap_err().to_string();
    assert!(error.contains("authentication") && !error.contains("hunter2"), "{error}");
}
