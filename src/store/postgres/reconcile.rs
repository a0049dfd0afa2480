//! Brings a store that is older than a journal up to what the journal tells: whole, or not at all.

use std::collections::BTreeMap;

use super::revocation::{remove, upsert};
use super::{Postgres, durable, tell, within};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::ToldChange;

impl Postgres {
    /// Takes these changes over in their order, each under its epoch, and is at `to` afterwards.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, ToldChange>,
        to: RevocationEpoch,
    ) -> Result<(), Failure> {
        within(async {
            let mut transaction = self.pool.begin().await?;
            durable(&mut transaction).await?;
            // First, so that no revocation falls in between. Never back: whoever compares epochs would take old
            // answers for new ones.
            sqlx::query("UPDATE meta SET epoch = greatest(epoch, $1)")
                .bind(to.0.cast_signed())
                .execute(&mut *transaction)
                .await?;
            for (epoch, change) in told {
                match change {
                    ToldChange::Revoked(revocation) => {
                        upsert(&mut transaction, revocation, epoch.cast_signed()).await?;
                    }
                    ToldChange::Lifted(target, mode) => remove(&mut transaction, target, *mode).await?,
                }
            }
            tell(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }
}
