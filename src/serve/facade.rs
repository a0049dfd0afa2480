//! Where providers are and whose their tokens are, for the registration of clients. Decides nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::Config;
use crate::facade::{Grounds, Places};
use crate::gateway::Gateway;
use crate::identity::revoked::RevocationTarget;
use crate::ids::{IssuerAlias, RevocationEpoch};
use crate::outcome::{Failure, Stop};
use crate::record::event::AdminNote;
use crate::wire::voids::{Holder, Mark};

impl Grounds for Gateway {
    fn config(&self) -> Arc<Config> {
        Self::config(self)
    }

    fn places(&self, alias: &IssuerAlias) -> Option<Places> {
        let (issuer, authorize, token, policy) = self.identity().endpoints(alias)?;
        Some(Places { issuer, authorize, token, policy })
    }

    fn epoch(&self) -> RevocationEpoch {
        self.revocation_epoch()
    }

    fn marks(&self, alias: &IssuerAlias, client: &str) -> Vec<Mark> {
        RevocationTarget::Client(alias.clone(), client.to_owned()).marks()
    }

    fn holder<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Holder, Stop>> {
        Box::pin(async move { self.identity().holder(token, &Self::config(self)).await })
    }

    fn noted<'a>(&'a self, note: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Self::journal(self).administered(note, None))
    }
}
