//! What administrators ask of the running gateway, over the socket or at their listener.

mod labels;
pub(super) mod lift;
mod records;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ServerConfig, TransportConfig};
use crate::control::break_glass::Emergencies;
use crate::control::labels::Labelling;
use crate::control::operations::{
    AccessAnswer, AccessReport, AgentStatus, ApprovalView, IssuedCredential, NamedPin, PinDiffs, PinLockText, PinOrder,
    PinsChanged, PinsReport, PolicyStatus, Reach, SecretStatus, ServerStatus,
};
use crate::control::reviews::Reviews;
use crate::control::standing::Stands;
use crate::control::{Lifting, Operations, Readiness, ReadinessCheck, Revoked};
use crate::delegate::vault::{Linked, Removed};
use crate::gateway::ask::{self, WhatCanAnswer, WhoCanAnswer};
use crate::gateway::review::{Review, ReviewReport, Which};
use crate::gateway::{Gateway, ReloadOrder, ReloadReport, ShadowReport, Standing};
use crate::identity::proposed::Proposed;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationStore as _, RevocationTarget};
use crate::identity::{Caller, Presented, Resource};
use crate::ids::{AgentId, Digest, RevocationEpoch, ServerId, Subject};
use crate::link;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{AdminOperation, GrantId, Weight};
use crate::record::event::AdminNote;
use crate::record::{Who, journal};
use crate::upstream::Health;

/// One more thing that did not go as it should.
fn append(warning: &mut String, problem: &str) {
    if !warning.is_empty() {
        warning.push_str("; ");
    }
    warning.push_str(problem);
}

impl Operations for Gateway {
    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(self.store().now_s())
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<Revoked, Failure>> {
        Box::pin(async move {
            let (epoch, told) = self.revoke_now(&revocation).await?;
            let mut revoked = Revoked::at(epoch);
            match self.delegate().take_back(&revocation.target).await {
                Ok(upstreams) => revoked.upstreams = upstreams,
                Err(failure) => {
                    tracing::error!(%failure, epoch = epoch.0, "which credentials a revocation names is not known");
                    revoked.warning =
                        format!("it holds, but which credentials it names is not known: {}", failure.detail);
                }
            }
            if revocation.mode == RevocationMode::Block {
                match self.take_accounts_for(&revocation.target, &revocation.actor).await {
                    Ok(accounts) => revoked.upstreams.extend(accounts.iter().map(Removed::taken_back)),
                    Err(failure) => {
                        tracing::error!(%failure, epoch = epoch.0, "linked accounts of what was revoked are still here");
                        let problem = format!(
                            "it holds, but linked accounts may be left, and are tried again: {}",
                            failure.detail
                        );
                        append(&mut revoked.warning, &problem);
                    }
                }
            }
            let Err(failure) = told else { return Ok(revoked) };
            // It holds: to say that it failed would be wrong, and have whoever ordered it look elsewhere.
            tracing::error!(%failure, epoch = epoch.0, "a revocation is in force and not on the record");
            Self::journal(self).metrics().refused(failure.reason);
            append(&mut revoked.warning, &format!("it holds, but the record does not say so: {}", failure.detail));
            Ok(revoked)
        })
    }

    fn accounts<'a>(&'a self, owner: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Linked>, Failure>> {
        Box::pin(Self::accounts(self, owner))
    }

    fn unlink<'a>(&'a self, owner: &'a str, server: &'a ServerId) -> BoxFuture<'a, Result<Option<Removed>, Failure>> {
        Box::pin(self.remove_account(owner, server))
    }

    fn link(&self, caller: &Caller, server: &ServerId) -> Option<String> {
        self.account_config(server)?;
        link::address(self, caller, self.config().server(server)?)
    }

    fn lift(&self, lifting: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>> {
        Box::pin(async move { lift::all(self, &[lifting]).await })
    }

    fn credentials(&self) -> BoxFuture<'_, Result<Vec<IssuedCredential>, Failure>> {
        Box::pin(self.issued_credentials())
    }

    fn secrets(&self) -> BoxFuture<'_, Vec<SecretStatus>> {
        Box::pin(Self::secrets(self))
    }

    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
        self.store().revocations()
    }

    fn reload(&self, actor: String, order: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>> {
        Box::pin(async move { Self::reload(self, &actor, order).await })
    }

    fn servers(&self) -> Vec<ServerStatus> {
        let now = self.snapshot();
        let health = self.upstreams().health();
        let eras = self.upstreams().eras();
        let told = |server: &Arc<ServerConfig>| {
            let known = health.iter().find(|(id, _)| *id == server.id).map(|(_, health)| health);
            let (word, reason, since) = match known {
                _ if now.barred.stopped.servers.contains(&server.id) => {
                    ("revoked", "it is suspended, its owner has not attested in time, or it has expired", None)
                }
                _ if now.config.server(&server.id).is_none() => ("revoked", "access to it was taken back", None),
                Some(Health::Up) => ("up", "", None),
                Some(Health::Down { reason, since }) => ("down", reason.as_str(), Some(*since)),
                Some(Health::Connecting) | None => ("connecting", "", None),
            };
            ServerStatus {
                server: server.id.to_string(),
                title: server.title.clone().unwrap_or_default(),
                owner: server.owner.clone(),
                environment: server.environment.to_string(),
                health: word.to_owned(),
                reason: reason.to_owned(),
                since: since.and_then(|since| jiff::Timestamp::try_from(since).ok()),
                transport: match &server.transport {
                    TransportConfig::Http { .. } => "http",
                    TransportConfig::Stdio { .. } => "stdio",
                }
                .to_owned(),
                sandbox: match &server.transport {
                    TransportConfig::Http { .. } => "",
                    TransportConfig::Stdio { .. } if server.is_unconfined() => "none",
                    TransportConfig::Stdio { .. } => "required",
                }
                .to_owned(),
                era: eras.iter().find(|(id, _)| *id == server.id).map_or("", |(_, era)| era.word()).to_owned(),
            }
        };
        now.written.servers.iter().map(told).collect()
    }

    fn agents(&self) -> Vec<AgentStatus> {
        Self::agents(self)
    }

    fn proposed_agents(&self) -> BoxFuture<'_, Result<Vec<Proposed>, Failure>> {
        Box::pin(crate::identity::proposed::listed(self.store()))
    }

    fn policy(&self) -> PolicyStatus {
        self.policy_status()
    }

    fn reach(&self, target: &RevocationTarget) -> Reach {
        Self::reach(self, target)
    }

    fn access(&self, caller: &Caller, agent: Option<&AgentId>) -> AccessReport {
        Self::access(self, caller, agent)
    }

    fn access_to(&self, caller: &Caller, agent: Option<&AgentId>, object: &str, action: &str) -> Option<AccessAnswer> {
        Self::access_to(self, caller, agent, object, action)
    }

    fn config(&self) -> Option<Arc<Config>> {
        Some(Self::config(self))
    }

    fn admits(&self, bearer: Option<&str>, peer: IpAddr) -> Result<(), Refusal> {
        Self::admits(self, &bearer.map_or(Presented::Nothing, Presented::Bearer).into(), peer)
    }

    fn authenticate<'a>(&'a self, bearer: Option<&'a str>) -> BoxFuture<'a, Result<Caller, Stop>> {
        Box::pin(async move {
            let presented = bearer.map_or(Presented::Nothing, Presented::Bearer);
            let caller = self.identity().authenticate(presented, &Resource::Admin).await?;
            self.quotas().request(caller.principal())?;
            Ok(caller)
        })
    }

    fn still_trusted(&self, caller: &Caller) -> Result<(), Refusal> {
        Self::still_trusted(self, caller)?;
        // Also what was lifted again before they came back. That everything is blocked does not hold for administrators.
        if !self.sealer().holds_by_name(&caller.holder(&Self::config(self))) {
            return Err(Refusal::new(Reason::Revoked));
        }
        Ok(())
    }

    fn knocked(&self, reason: Reason, peer: IpAddr) {
        self.refused_unauthenticated(reason, peer);
    }

    fn authorize(&self, caller: &Caller, operation: AdminOperation) -> Result<Arc<[Arc<str>]>, Refusal> {
        self.still_trusted(caller)?;
        // What is wrong must be seen; the rest is not told to somebody who may have been revoked elsewhere.
        let tells_what_is_wrong =
            matches!(operation, AdminOperation::Status | AdminOperation::Servers | AdminOperation::Metrics);
        if operation.weight() == Weight::Look
            && !tells_what_is_wrong
            && let Err(failure) = self.standing().current()
        {
            return Err(Refusal::new(failure.reason));
        }
        self.snapshot().policy.authorize_operation(caller, operation, jiff::Timestamp::now())
    }

    fn who_can(&self, object: &str, action: &str) -> Result<WhoCanAnswer, String> {
        ask::who_can(&self.snapshot().policy, object, action)
    }

    fn what_can(&self, subject: &Subject) -> WhatCanAnswer {
        ask::what_can(&self.snapshot().policy, subject)
    }

    fn approvals(&self, all: bool) -> BoxFuture<'_, Result<Vec<ApprovalView>, Stop>> {
        Box::pin(Self::approvals(self, all))
    }

    fn approval<'a>(
        &'a self,
        id: &'a str,
        name: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        Box::pin(Self::approval(self, id, name, who))
    }

    fn own_approval<'a>(&'a self, caller: &'a Caller, id: &'a str) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        Box::pin(Self::own_approval(self, caller, id))
    }

    fn approve<'a>(
        &'a self,
        id: &'a str,
        approver: &'a Caller,
        shown: Digest,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        Box::pin(Self::approve(self, id, approver, shown))
    }

    fn deny<'a>(
        &'a self,
        id: &'a str,
        name: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        Box::pin(Self::deny(self, id, name, note, who))
    }

    fn journal(&self) -> Option<PathBuf> {
        Some(journal::directory(&Self::config(self).gateway.state))
    }

    fn stopping(&self) -> CancellationToken {
        Self::stopping(self)
    }

    fn emergencies(&self) -> Result<&dyn Emergencies, Stop> {
        Ok(self)
    }

    fn stands(&self) -> Result<&dyn Stands, Stop> {
        Ok(self)
    }

    fn reviews(&self) -> Result<&dyn Reviews, Stop> {
        Ok(self)
    }

    fn labelling(&self) -> Result<&dyn Labelling, Stop> {
        Ok(self)
    }

    fn administered<'a>(&'a self, note: &'a AdminNote<'a>, who: Option<&'a Who>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Self::journal(self).administered(note, who))
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
        let status = with_replicas(status, self.standing());
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
                Self::journal(self).is_well(),
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
            checks.extend(
                self.standing().problems().into_iter().map(|(name, problem)| {
                    check(name.to_owned(), problem.is_none(), false, problem.unwrap_or_default())
                }),
            );
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
            checks.extend(self.secrets().await.into_iter().filter_map(secret_check));
            let free =
                self.config().servers.iter().filter(|server| server.is_unconfined()).cloned().collect::<Vec<_>>();
            checks.extend(free.iter().map(|server| {
                let detail = "its process runs without a sandbox: it can do whatever the gateway's user can";
                check(format!("sandbox:{}", server.id), false, true, detail.to_owned())
            }));
            Readiness { checks }
        })
    }

    fn pins(&self) -> BoxFuture<'_, Result<PinsReport, Failure>> {
        Box::pin(self.pins_report())
    }

    fn pin_diffs(&self, named: NamedPin) -> BoxFuture<'_, Result<PinDiffs, Failure>> {
        Box::pin(async move { Self::pin_diffs(self, &named).await })
    }

    fn pin_lock(&self) -> PinLockText {
        Self::pin_lock(self)
    }

    fn pin(&self, order: PinOrder, accept: bool, actor: String) -> BoxFuture<'_, Result<PinsChanged, Stop>> {
        Box::pin(async move { Self::pin(self, &order, accept, &actor).await })
    }

    fn metrics(&self) -> String {
        let metrics = Self::journal(self).metrics();
        for (server, health) in self.upstreams().health() {
            metrics.upstream(&server, matches!(health, Health::Up));
        }
        for (server, processes) in self.upstreams().processes() {
            metrics.processes(&server, processes.started, processes.ended);
        }
        metrics.store_operations(self.store().operations());
        metrics.revocation_epoch.set(self.revocation_epoch().0);
        metrics.encode()
    }
}

/// What is wrong with a secret for an upstream: only calls that need it are refused, at most.
fn secret_check(secret: SecretStatus) -> Option<ReadinessCheck> {
    let detail = match (secret.problem.is_empty(), secret.stale) {
        (true, false) => return None,
        (true, true) => "it is older than its max_age: replace it".to_owned(),
        (false, _) => secret.problem,
    };
    let name = format!("secret:{} {}", secret.server, secret.place);
    Some(ReadinessCheck { name, well: false, optional: true, detail })
}

impl Reviews for Gateway {
    fn open(&self, actor: String, since: Timestamp, deadline: Timestamp) -> BoxFuture<'_, Result<Review, Stop>> {
        Box::pin(async move { self.open_review(&actor, since, deadline).await })
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<Review>, Stop>> {
        Box::pin(async move { Ok(Self::reviews(self).await?) })
    }

    fn one(&self, id: String) -> BoxFuture<'_, Result<ReviewReport, Stop>> {
        Box::pin(async move { self.review(&id).await })
    }

    fn attest(&self, id: String, which: Which, actor: String) -> BoxFuture<'_, Result<usize, Stop>> {
        Box::pin(async move { Self::attest(self, &id, &which, &actor).await })
    }

    fn end(&self, id: String, which: Which, actor: String) -> BoxFuture<'_, Result<usize, Stop>> {
        Box::pin(async move { self.end_grants(&id, &which, &actor).await })
    }

    fn close(&self, id: String, actor: String) -> BoxFuture<'_, Result<usize, Stop>> {
        Box::pin(async move { self.close_review(&id, &actor).await })
    }

    fn restore(&self, grant: GrantId) -> BoxFuture<'_, Result<bool, Stop>> {
        Box::pin(async move { self.restore_grant(&grant).await })
    }
}

/// The same with who else has the store, where somebody may.
fn with_replicas(mut status: serde_json::Value, standing: &Standing) -> serde_json::Value {
    if standing.is_shared()
        && let Some(status) = status.as_object_mut()
    {
        let members = standing.members();
        let replicas = members.iter().map(|member| {
            json!({
                "replica": member.replica,
                "advertise": member.advertise,
                "version": member.version,
                "revision": member.revision,
            })
        });
        status.insert("active".to_owned(), json!(standing.active()));
        status.insert("replicas".to_owned(), replicas.collect());
    }
    status
}
