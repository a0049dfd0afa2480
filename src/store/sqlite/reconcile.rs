//! Brings a store that is older than the journal up to what the journal tells.
//!
//! Decides that nothing is left out silently: every epoch between the two has to be told. Refuses to know how the
//! record is read. Invariant: the store is brought up whole, in one transaction, or not at all.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::changed::note;
use super::revocation::{remove, upsert};
use super::shelf::{apply, now_us};
use super::voided::forget;
use super::{Sqlite, unavailable};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::shelf::Version;
use crate::store::changed::Noted;
use crate::store::voided::{has_gaps, reaches_by_files};
use crate::store::{Told, ToldChange};

impl Sqlite {
    /// Takes these changes over in their order, each under its epoch, and is at `to` afterwards.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, Told>,
        to: RevocationEpoch,
    ) -> Result<(), Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let row = sqlx::query("UPDATE meta SET shelf_version = shelf_version + 1 RETURNING shelf_version, epoch")
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let (version, now) = (Version(row.try_get(0).map_err(unavailable)?), now_us());
        if has_gaps(told, row.try_get(1).map_err(unavailable)?, to) {
            forget(&mut transaction, to.0.cast_signed()).await?;
        }
        for (epoch, told) in told {
            let epoch = epoch.cast_signed();
            let noted = match &told.change {
                ToldChange::Revoked(revocation) => {
                    upsert(&mut transaction, revocation, epoch).await?;
                    Noted::revocation(revocation, false)?
                }
                ToldChange::Lifted(revocation) => {
                    remove(&mut transaction, &revocation.target, revocation.mode, epoch).await?;
                    if reaches_by_files(&revocation.target) {
                        forget(&mut transaction, epoch).await?;
                    }
                    Noted::revocation(revocation, true)?
                }
                ToldChange::Rows(rows, changes) => {
                    for change in changes {
                        if let Err(halt) = apply(&mut transaction, &self.rooms, change, version, now).await? {
                            return Err(unavailable(format!("{} {}: {halt:?}", change.section.name, change.key)));
                        }
                    }
                    Noted::told(rows, now.div_euclid(1_000_000))?
                }
            };
            note(&mut transaction, epoch, &noted.under(told.nonce)).await?;
        }
        // Never back: whoever compares epochs would take old answers for new ones.
        sqlx::query("UPDATE meta SET epoch = max(epoch, ?)")
            .bind(to.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }
}
