//! Brings a store that is older than a journal up to what the journal tells: whole, or not at all.

use std::collections::BTreeMap;

use super::revocation::upsert;
use super::{Postgres, durable, tell, within};
use crate::identity::revoked::Revocation;
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;

impl Postgres {
    /// Takes these revocations over, each under its epoch, and is at `to` afterwards.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, Revocation>,
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
            for (epoch, revocation) in told {
                upsert(&mut transaction, revocation, epoch.cast_signed()).await?;
            }
            tell(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }
}
