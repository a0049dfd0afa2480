//! Brings a store that is older than the journal up to what the journal tells.
//!
//! Decides that nothing is left out silently: every epoch between the two has to be told. Refuses to know how the
//! record is read. Invariant: the store is brought up whole, in one transaction, or not at all.

use std::collections::BTreeMap;

use super::revocation::upsert;
use super::{Sqlite, unavailable};
use crate::identity::revoked::Revocation;
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;

impl Sqlite {
    /// Takes these revocations over, each under its epoch, and is at `to` afterwards.
    pub(in crate::store) async fn catch_up(
        &self,
        told: &BTreeMap<u64, Revocation>,
        to: RevocationEpoch,
    ) -> Result<(), Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        for (epoch, revocation) in told {
            upsert(&mut transaction, revocation, epoch.cast_signed()).await?;
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
