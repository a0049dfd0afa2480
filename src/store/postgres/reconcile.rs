//! Brings a store that is older than a journal up to what the journal tells: whole, or not at all.
//!
//! Each statement is bounded as always; the whole of them by [`limit::RECONCILE_WAIT_MAX`], because a journal may tell
//! a hundred thousand changes.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::revocation::{remove, upsert};
use super::shelf::{NOW, apply};
use super::voided::forget;
use super::{Postgres, durable, tell};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::Version;
use crate::store::changed::Noted;
use crate::store::voided::{has_gaps, reaches_by_files};
use crate::store::{Told, ToldChange, unavailable};

impl Postgres {
    /// Takes these changes over in their order, each under its epoch, and is at `to` afterwards. The records of other
    /// replicas are told as of any other change.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, Told>,
        to: RevocationEpoch,
    ) -> Result<(), Failure> {
        match tokio::time::timeout(limit::RECONCILE_WAIT_MAX, self.take_over(told, to)).await {
            Ok(done) => done,
            Err(_) => Err(unavailable("it does not take all of it in time")),
        }
    }

    async fn take_over(&self, told: &BTreeMap<u64, Told>, to: RevocationEpoch) -> Result<(), Failure> {
        let mut transaction = self.pool.begin().await.map_err(unavailable)?;
        durable(&mut transaction).await.map_err(unavailable)?;
        let sql = sqlx::AssertSqlSafe(format!("SELECT nextval('shelf_version'), {NOW}, epoch FROM meta FOR UPDATE"));
        let row = sqlx::query(sql).fetch_one(&mut *transaction).await.map_err(unavailable)?;
        let version = Version(row.try_get(0).map_err(unavailable)?);
        let now: i64 = row.try_get(1).map_err(unavailable)?;
        if has_gaps(told, row.try_get(2).map_err(unavailable)?, to) {
            forget(&mut transaction, to.0.cast_signed()).await.map_err(unavailable)?;
        }
        // First, so that no revocation falls in between. Never back: whoever compares epochs would take old answers
        // for new ones.
        sqlx::query("UPDATE meta SET epoch = greatest(epoch, $1), went_back = NULL")
            .bind(to.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        for (epoch, told) in told {
            let epoch = epoch.cast_signed();
            let noted = match &told.change {
                ToldChange::Revoked(revocation) => {
                    upsert(&mut transaction, revocation, epoch).await.map_err(unavailable)?;
                    Noted::revocation(revocation, false)?
                }
                ToldChange::Lifted(revocation) => {
                    remove(&mut transaction, &revocation.target, revocation.mode, epoch).await.map_err(unavailable)?;
                    if reaches_by_files(&revocation.target) {
                        forget(&mut transaction, epoch).await.map_err(unavailable)?;
                    }
                    Noted::revocation(revocation, true)?
                }
                ToldChange::Rows(rows, changes) => {
                    for (index, change) in changes.iter().enumerate() {
                        let done = apply(&mut transaction, &self.rooms, (index, change), version, now)
                            .await
                            .map_err(unavailable)?;
                        if let Err(halt) = done {
                            return Err(unavailable(format!("{} {}: {halt:?}", change.section.name, change.key)));
                        }
                    }
                    Noted::told(rows, now.div_euclid(1_000_000))?
                }
            };
            self.note(&mut transaction, epoch, &noted.under(told.nonce)).await.map_err(unavailable)?;
        }
        tell(&mut transaction).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }
}
