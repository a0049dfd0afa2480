//! Brings a store that is older than the journal up to what the journal tells.
//!
//! Decides that nothing is left out silently: every epoch between the two has to be told. Refuses to know how the
//! record is read. Invariant: the store is brought up whole, in one transaction, or not at all.

use std::collections::BTreeMap;

use super::revocation::{remove, upsert};
use super::{Sqlite, unavailable};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::ToldChange;

impl Sqlite {
    /// Takes these changes over in their order, each under its epoch, and is at `to` afterwards.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, ToldChange>,
        to: RevocationEpoch,
    ) -> Result<(), Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        for (epoch, change) in told {
            match change {
                ToldChange::Revoked(revocation) => {
                    upsert(&mut transaction, revocation, epoch.cast_signed()).await?;
                }
                ToldChange::Lifted(target, mode) => remove(&mut transaction, target, *mode).await?,
            }
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
