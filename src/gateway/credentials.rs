//! Who calls, and with which credentials: the rooms that know, and what operators see of them.
//!
//! Decides nothing: the room of credentials knows them. Invariant: none is in what is answered.

pub use crate::delegate::{IssuedCredential, SecretStatus, Taken, TakenBack};

use super::Gateway;
use crate::delegate::Delegate;
use crate::identity::Identity;
use crate::outcome::Failure;

impl Gateway {
    /// Who calls.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where credentials come from.
    #[must_use]
    pub fn delegate(&self) -> &Delegate {
        &self.delegate
    }

    /// What is in the ledger of issued credentials.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn issued_credentials(&self) -> Result<Vec<IssuedCredential>, Failure> {
        self.delegate().ledger().await
    }

    /// The secrets that are presented to upstreams, and how old they are.
    pub(crate) async fn secrets(&self) -> Vec<SecretStatus> {
        let written = std::sync::Arc::clone(&self.snapshot().written);
        self.delegate().static_secrets(&written).await
    }
}
