//! Where providers are, for the registration of clients. Decides nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::Config;
use crate::facade::{Grounds, Places};
use crate::gateway::Gateway;
use crate::ids::IssuerAlias;
use crate::outcome::Failure;
use crate::record::event::AdminNote;

impl Grounds for Gateway {
    fn config(&self) -> Arc<Config> {
        Self::config(self)
    }

    fn places(&self, alias: &IssuerAlias) -> Option<Places> {
        let (issuer, authorize, token, policy) = self.identity().endpoints(alias)?;
        Some(Places { issuer, authorize, token, policy })
    }

    fn noted<'a>(&'a self, note: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Self::journal(self).administered(note, None))
    }
}
