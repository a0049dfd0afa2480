//! What operators ask of the running gateway over the control socket.

use futures_util::future::BoxFuture;
use serde_json::json;

use crate::control::{Lifting, Operations, Readiness, ReadinessCheck};
use crate::gateway::{Gateway, ReloadOrder, ReloadReport, ShadowReport};
use crate::identity::revoked::{Held, Revocation, RevocationStore as _};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::upstream::Health;

impl Operations for Gateway {
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<RevocationEpoch, Failure>> {
        Box::pin(async move {
            let epoch = self.store().revoke(&revocation).await?;
            // In force before it is on the record: a full disk must not keep a door open.
            self.take_revocations().await?;
            self.delegate().drop_for(&revocation.target).await;
            self.journal().revoked(&revocation.noted(epoch)).await?;
            Ok(epoch)
        })
    }

    fn lift(&self, lifting: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>> {
        Box::pin(async move {
            let Some((epoch, lifted)) = self.store().lift(lifting.since).await? else { return Ok(None) };
            // On the record before it is in force, unlike a revocation: nothing is loosened that nobody can read of.
            let told = self.journal().revoked(&lifted.noted_lifted(&lifting.actor, &lifting.note, epoch)).await;
            if let Err(failure) = told {
                self.store().revoke(&lifted).await?;
                self.take_revocations().await?;
                return Err(failure);
            }
            self.take_revocations().await?;
            Ok(Some(epoch))
        })
    }

    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
        self.store().revocations()
    }

    fn reload(&self, actor: String, order: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>> {
        Box::pin(async move { Self::reload(self, &actor, order).await })
    }

    fn status(&self) -> BoxFuture<'_, serde_json::Value> {
        let now = self.snapshot();
        let revoked = now.written.servers.iter().filter(|server| now.config.server(&server.id).is_none());
        let servers: Vec<_> = self
            .upstreams()
            .health()
            .into_iter()
            .map(|(server, health)| json!({ "server": server, "health": health.to_string() }))
            .chain(revoked.map(|server| json!({ "server": server.id, "health": "revoked" })))
            .collect();
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "public_url": now.config.gateway.public_url.as_str(),
            "revision": now.policy.revision(),
            "epoch": self.revocation_epoch(),
            "keys": { "seal": self.sealer().key_ids() },
            "servers": servers,
        });
        Box::pin(std::future::ready(status))
    }

    fn shadow(&self) -> ShadowReport {
        Self::shadow(self)
    }

    fn ready(&self) -> BoxFuture<'_, Readiness> {
        Box::pin(async move {
            let check = |name: String, well: bool, optional: bool, detail: String| ReadinessCheck {
                name,
                well,
                optional,
                detail: if well { String::new() } else { detail },
            };
            let mut checks = vec![check(
                "journal".to_owned(),
                self.journal().is_well(),
                false,
                "intents cannot be written: look at the disk of the state directory".to_owned(),
            )];
            let store = self.store().revocation_epoch().await;
            checks.push(check(
                "store".to_owned(),
                store.is_ok(),
                false,
                store.err().map_or_else(String::new, |failure| failure.detail),
            ));
            let issuers = self.identity().readiness();
            let some_issuer = self.identity().is_ready();
            checks.extend(issuers.into_iter().map(|issuer| {
                // One issuer that answers is enough to serve; the others are named.
                check(
                    format!("issuer:{}", issuer.alias),
                    issuer.keys > 0,
                    some_issuer,
                    issuer.problem.unwrap_or_default(),
                )
            }));
            checks.extend(self.upstreams().health().into_iter().map(|(server, health)| {
                check(format!("server:{server}"), matches!(health, Health::Up), true, health.to_string())
            }));
            checks.extend(self.exports().problems().into_iter().map(|(name, problem)| {
                check(format!("export:{name}"), problem.is_none(), true, problem.unwrap_or_default())
            }));
            let free =
                self.config().servers.iter().filter(|server| server.is_unconfined()).cloned().collect::<Vec<_>>();
            checks.extend(free.iter().map(|server| {
                let detail = "its process runs without a sandbox: it can do whatever the gateway's user can";
                check(format!("sandbox:{}", server.id), false, true, detail.to_owned())
            }));
            Readiness { checks }
        })
    }

    fn metrics(&self) -> String {
        let metrics = self.journal().metrics();
        for (server, health) in self.upstreams().health() {
            metrics.upstream(&server, matches!(health, Health::Up));
        }
        metrics.revocation_epoch.set(self.revocation_epoch().0);
        metrics.encode()
    }
}
