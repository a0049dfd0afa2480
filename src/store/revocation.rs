//! Revocations as rows. The words for targets and modes are the ones that records and the control
//! socket use as well. Invariant: a row that is not understood refuses; it is never skipped.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row as _, SqlitePool};

use super::{Store, epoch, unavailable};
use crate::identity::described::Described;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationStore, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::{Failure, Reason};

impl RevocationStore for Store {
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<RevocationEpoch, Failure>> {
        revoke(&self.writer, revocation).boxed()
    }

    fn lift(&self, since: RevocationEpoch) -> BoxFuture<'_, Result<Option<(RevocationEpoch, Revocation)>, Failure>> {
        lift(&self.writer, since).boxed()
    }

    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
        revocations(&self.readers).boxed()
    }

    fn revocation_epoch(&self) -> BoxFuture<'_, Result<RevocationEpoch, Failure>> {
        self.epoch().boxed()
    }
}

async fn revoke(pool: &SqlitePool, revocation: &Revocation) -> Result<RevocationEpoch, Failure> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    let row = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch, (SELECT count(*) FROM revocations)")
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
    let (next, held): (i64, i64) = (row.try_get(0).map_err(unavailable)?, row.try_get(1).map_err(unavailable)?);
    // The one that covers all others always has room.
    if held >= limit::REVOCATIONS_MAX && revocation.target != RevocationTarget::Everything {
        let detail = format!("{held} revocations are held; revoke a client or subject, or everything");
        return Err(Failure::before(Reason::StoreUnavailable, detail));
    }
    upsert(&mut transaction, revocation, next).await?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(epoch(next))
}

async fn lift(pool: &SqlitePool, since: RevocationEpoch) -> Result<Option<(RevocationEpoch, Revocation)>, Failure> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    let row = sqlx::query(
        "DELETE FROM revocations WHERE epoch = ?
         RETURNING kind, issuer, value, mode, issued_before, actor, note, at, epoch",
    )
    .bind(since.0.cast_signed())
    .fetch_optional(&mut *transaction)
    .await
    .map_err(unavailable)?;
    let Some(lifted) = row.as_ref().map(read).transpose()? else { return Ok(None) };
    // Whoever compares epochs has to see that something changed.
    let row = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch")
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
    let next: i64 = row.try_get(0).map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(Some((epoch(next), lifted.revocation)))
}

/// Takes back whatever holds of this target in this mode.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    target: &RevocationTarget,
    mode: RevocationMode,
) -> Result<(), Failure> {
    let words = Described::from(target);
    sqlx::query("DELETE FROM revocations WHERE kind = ? AND issuer = ? AND value = ? AND mode = ?")
        .bind(words.kind)
        .bind(words.issuer)
        .bind(words.value)
        .bind(mode.as_str())
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// Writes one revocation; one of the same target and mode is renewed and never takes anything back.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    revocation: &Revocation,
    epoch: i64,
) -> Result<(), Failure> {
    let words = Described::from(&revocation.target);
    sqlx::query(
        "INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             issued_before = max(issued_before, excluded.issued_before),
             actor = excluded.actor, note = excluded.note, at = excluded.at, epoch = excluded.epoch",
    )
    .bind(words.kind)
    .bind(words.issuer)
    .bind(words.value)
    .bind(revocation.mode.as_str())
    .bind(revocation.mode.issued_before())
    .bind(&revocation.actor)
    .bind(&revocation.note)
    .bind(revocation.at)
    .bind(epoch)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

async fn revocations(pool: &SqlitePool) -> Result<(RevocationEpoch, Vec<Held>), Failure> {
    // One transaction: the epoch belongs to exactly these rows.
    let mut transaction = pool.begin().await.map_err(unavailable)?;
    let row = sqlx::query("SELECT epoch FROM meta").fetch_one(&mut *transaction).await.map_err(unavailable)?;
    let current = row.try_get::<i64, _>(0).map(epoch).map_err(unavailable)?;
    let rows = sqlx::query(
        "SELECT kind, issuer, value, mode, issued_before, actor, note, at, epoch FROM revocations ORDER BY epoch",
    )
    .fetch_all(&mut *transaction)
    .await
    .map_err(unavailable)?;
    let held = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok((current, held))
}

/// A row that cannot be understood is a revocation that would be lost: that refuses.
fn read(row: &SqliteRow) -> Result<Held, Failure> {
    let text = |index: usize| row.try_get::<String, _>(index).map_err(unavailable);
    let (kind, issuer, value, mode) = (text(0)?, text(1)?, text(2)?, text(3)?);
    let issued_before: Option<i64> = row.try_get(4).map_err(unavailable)?;
    let words = Described { kind: &kind, issuer: &issuer, value: &value };
    let mode = match (mode.as_str(), issued_before) {
        ("block", None) => RevocationMode::Block,
        ("sign_out", Some(issued_before)) => RevocationMode::SignOut { issued_before },
        _ => return Err(unavailable(format!("a revocation has the mode `{mode}`"))),
    };
    let target = words.try_into().map_err(unavailable)?;
    let at = row.try_get(7).map_err(unavailable)?;
    let since = row.try_get(8).map(epoch).map_err(unavailable)?;
    Ok(Held { since, revocation: Revocation { target, mode, actor: text(5)?, note: text(6)?, at } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AgentId, IssuerAlias, ServerId};
    use crate::store::StateDirectory;

    fn revocation(target: RevocationTarget, mode: RevocationMode) -> Revocation {
        Revocation { target, mode, actor: "host:1000".to_owned(), note: "lost laptop".to_owned(), at: 1_700_000_000 }
    }

    #[tokio::test]
    async fn what_was_revoked_is_still_revoked_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        let corp = IssuerAlias::new("corp").unwrap();
        let all = [
            revocation(RevocationTarget::Token("jti-1".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Session("sid".to_owned()), RevocationMode::SignOut { issued_before: 5 }),
            revocation(RevocationTarget::Subject(corp.clone(), "a'; DROP".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Client(corp, "app".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Agent(AgentId::new("bot").unwrap()), RevocationMode::Block),
            revocation(RevocationTarget::Owner("user:corp/anna".to_owned()), RevocationMode::Block),
            revocation(RevocationTarget::Server(ServerId::new("git").unwrap()), RevocationMode::Block),
            revocation(RevocationTarget::Everything, RevocationMode::SignOut { issued_before: 7 }),
        ];
        for (index, revocation) in (1_u64..).zip(&all) {
            assert_eq!(store.revoke(revocation).await.unwrap(), RevocationEpoch(index));
        }
        store.close().await;
        let store = Store::open(&state).await.unwrap();
        let (epoch, held) = store.revocations().await.unwrap();
        assert_eq!(epoch, RevocationEpoch(8));
        let since = (1..).map(RevocationEpoch);
        let expected: Vec<Held> = since.zip(all).map(|(since, revocation)| Held { since, revocation }).collect();
        assert_eq!(held, expected);
    }

    #[tokio::test]
    async fn so_many_revocations_are_held_and_then_only_the_one_of_everything_has_room() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        let token = |name: &str| revocation(RevocationTarget::Token(name.to_owned()), RevocationMode::Block);
        store.revoke(&token("first")).await.unwrap();
        sqlx::query(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
             INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
             SELECT kind, issuer, value || n, mode, issued_before, actor, note, at, -n FROM revocations, number",
        )
        .bind(limit::REVOCATIONS_MAX - 2)
        .execute(&store.writer)
        .await
        .unwrap();
        let before = store.revoke(&token("the last")).await.unwrap();
        let error = store.revoke(&token("one too many")).await.unwrap_err();
        assert!(error.detail.contains("revoke a client or subject, or everything"), "{}", error.detail);
        assert_eq!(store.revocation_epoch().await.unwrap(), before, "what was refused changes nothing");
        store.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
    }

    #[tokio::test]
    async fn signing_out_again_never_lets_an_older_token_back_in() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        for issued_before in [9, 4] {
            let mode = RevocationMode::SignOut { issued_before };
            store.revoke(&revocation(RevocationTarget::Everything, mode)).await.unwrap();
        }
        let (epoch, held) = store.revocations().await.unwrap();
        assert_eq!(epoch, RevocationEpoch(2), "each acknowledgement has an epoch of its own");
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].revocation.mode, RevocationMode::SignOut { issued_before: 9 });
    }

    #[tokio::test]
    async fn what_was_lifted_is_gone_for_good_and_what_was_renewed_since_is_not_lifted() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        let block = revocation(RevocationTarget::Token("jti".to_owned()), RevocationMode::Block);
        let first = store.revoke(&block).await.unwrap();
        let renewed = store.revoke(&block).await.unwrap();
        assert_eq!(store.lift(first).await.unwrap(), None, "it was revoked again since");
        assert_eq!(store.lift(renewed).await.unwrap(), Some((RevocationEpoch(3), block)));
        assert_eq!(store.lift(renewed).await.unwrap(), None);
        store.close().await;
        let store = Store::open(&state).await.unwrap();
        assert_eq!(store.revocations().await.unwrap(), (RevocationEpoch(3), Vec::new()));
    }

    #[tokio::test]
    async fn a_row_that_is_not_understood_refuses_instead_of_being_skipped() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        store.revoke(&revocation(RevocationTarget::Everything, RevocationMode::Block)).await.unwrap();
        sqlx::query("UPDATE revocations SET kind = 'subject', issuer = 'NOT AN ALIAS', value = 'x'")
            .execute(&store.writer)
            .await
            .unwrap();
        assert_eq!(store.revocations().await.unwrap_err().reason, Reason::StoreUnavailable);
    }
}
