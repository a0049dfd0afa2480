//! What identity providers tell, carried out by the gateway.
//!
//! Decides nothing: every order goes the way that an administrator's does.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::operations::lift;
use crate::config::{Config, FeedConfig};
use crate::control::{Lifting, Operations};
use crate::egress::{EgressPolicy, is_loopback};
use crate::feeds::Brake;
use crate::gateway::Gateway;
use crate::identity::revoked::{Held, Revocation, RevocationTarget};
use crate::identity::statement::{Statement, StatementKind};
use crate::ids::RevocationEpoch;
use crate::outcome::{Failure, Reason, Stop};
use crate::record::event::AdminNote;

impl Brake for Gateway {
    fn config(&self) -> Arc<Config> {
        Self::config(self)
    }

    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Operations::now_s(self)
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<RevocationEpoch, Failure>> {
        Box::pin(async move {
            // A sender does not wait for authorization servers, or the next order would wait with it.
            let (epoch, _told) = self.revoke_now(&revocation).await?;
            self.take_back_soon(revocation.target);
            Ok(epoch)
        })
    }

    fn left<'a>(&'a self, target: &'a RevocationTarget, actor: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.take_accounts_for(target, actor).await.map(drop) })
    }

    fn confirmed<'a>(&'a self, owner: &'a str, actor: &'a str) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(self.confirm_owned(owner, actor))
    }

    fn is_stopped(&self, owner: &str) -> bool {
        self.snapshot().barred.owners.contains(owner)
    }

    fn revocations(&self) -> BoxFuture<'_, Result<Vec<Held>, Failure>> {
        Box::pin(async move { Ok(Operations::revocations(self).await?.1) })
    }

    fn lift_spent<'a>(&'a self, spent: &'a [Held]) -> BoxFuture<'a, Result<(), Failure>> {
        let lifting = |held: &Held| Lifting {
            since: held.since,
            actor: held.revocation.actor.clone(),
            note: "spent: everything from before it has expired".to_owned(),
        };
        let liftings: Vec<_> = spent.iter().map(lifting).collect();
        Box::pin(async move { lift::all(self, &liftings).await.map(drop) })
    }

    fn statement<'a>(
        &'a self,
        feed: &'a FeedConfig,
        kind: StatementKind,
        text: &'a str,
        may_fetch: bool,
    ) -> BoxFuture<'a, Result<Statement, Stop>> {
        Box::pin(self.identity().statement(feed, kind, text, may_fetch))
    }

    fn issuer_of(&self, feed: &FeedConfig) -> Option<String> {
        self.identity().issuer_of(feed)
    }

    fn reachable(&self, feed: &FeedConfig) -> EgressPolicy {
        let endpoint = feed.events.as_ref().and_then(|events| events.poll.as_ref()).map(|poll| &poll.endpoint);
        // The configuration has refused such an address where issuers may not be on this machine.
        let near = endpoint.is_some_and(is_loopback) && Self::config(self).gateway.listen.ip().is_loopback();
        EgressPolicy::issuer(endpoint.and_then(|endpoint| endpoint.host_str()), near)
    }

    fn knocked(&self, reason: Reason, peer: IpAddr) {
        self.refused_unauthenticated(reason, peer);
    }

    fn noted<'a>(&'a self, note: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>> {
        if let Some(reason) = note.reason {
            tracing::warn!(actor = note.actor, about = note.about, reason = reason.code(), "a feed was refused");
        }
        Box::pin(Self::journal(self).administered(note, None))
    }
}
