//! The proof of the fifth stage: a cleared call with the credential that its upstream gets.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::value::{RawValue, to_raw_value};

use super::{Bound, Credential, Delegate};
use crate::catalog::Target;
use crate::guard::label::LabelUse;
use crate::guard::mandate::Held;
use crate::guard::{Cleared, Used};
use crate::identity::Caller;
use crate::ids::{AuthorizationContext, CallId, LegId, PrincipalKey, ReplicaId, RevocationEpoch, ServerId};
use crate::outcome::{Refusal, Stop};
use crate::policy::condition::PRESENT;
use crate::policy::{Permit, Situation};
use crate::record::declared::Declared;
use crate::record::event::{ChargeNote, ConditionValue, CredentialNote, LabelNote, Operation};
use crate::record::hidden::{Hidden, REDACTED};
use crate::record::mandated::OwnerFacts;
use crate::record::{Attempt, Evidence, Intent, Journal};
use crate::wire::Json;
use crate::wire::mcp::Version;

/// One request of a call, as the record names it.
#[derive(Debug, Clone)]
pub struct Leg {
    /// The call.
    pub call: CallId,
    /// This request of it.
    pub leg: LegId,
    /// The method.
    pub method: String,
    /// The client's protocol version.
    pub version: Version,
    /// The replica that handed it on.
    pub via: Option<ReplicaId>,
    /// What its client says that it is for.
    pub declared: Option<Arc<Declared>>,
}

impl Leg {
    /// The first request of a call.
    #[must_use]
    pub fn new(method: &str, version: Version) -> Self {
        Self { call: CallId::new(), leg: LegId::new(), method: method.to_owned(), version, via: None, declared: None }
    }

    /// The same request, handed on by that replica.
    #[must_use]
    pub fn through(self, via: Option<ReplicaId>) -> Self {
        Self { via, ..self }
    }

    /// The same request, once it turns out to go on with an earlier call.
    #[must_use]
    pub fn of_call(self, call: CallId) -> Self {
        Self { call, ..self }
    }
}

/// Looks at a decision again: the policy or the revocations may have changed since.
pub trait Recheck: Send + Sync {
    /// Whether what was permitted and cleared still stands.
    ///
    /// # Errors
    /// The refusal that has come up since.
    fn recheck(&self, cleared: &Cleared, arguments: Option<&Json>) -> Result<(), Refusal>;

    /// Whether the mandate that it is part of was neither taken back nor is over by itself.
    ///
    /// # Errors
    /// `mandate_ended`.
    fn mandated(&self, held: &Held) -> Result<(), Refusal>;

    /// The epoch of the revocations in force.
    fn epoch(&self) -> RevocationEpoch;

    /// Whether everybody could still approve what is going to be used.
    ///
    /// # Errors
    /// `approval_void`.
    fn approved(&self, approval: &Used) -> Result<(), Refusal>;
}

/// The proof of the fifth stage: cleared, and with a credential for this upstream only.
///
/// Made only by [`super::Delegate::delegate`]. Not `Clone`: one grant is one forwarded call.
pub struct Grant(Box<Granted>);

/// What it holds. Boxed, because it passes through many hands and is large.
struct Granted {
    cleared: Box<Cleared>,
    credential: Credential,
    leg: Leg,
    arguments: Option<Json>,
    recheck: Arc<dyn Recheck>,
    /// The rules that allowed, as the record tells them.
    rules: String,
    /// What conditions read, as the record tells it.
    values: Vec<ConditionValue>,
    /// What of the arguments is left out of the record.
    hidden: Option<Box<Hidden>>,
}

impl Delegate {
    /// Gets the credential for a cleared call.
    ///
    /// # Errors
    /// As [`Delegate::credential_for`].
    pub async fn delegate(
        &self,
        cleared: Box<Cleared>,
        leg: Leg,
        arguments: Option<Json>,
        recheck: Arc<dyn Recheck>,
    ) -> Result<Grant, Stop> {
        let target = cleared.permit().target();
        let mandate = cleared.mandate().map(|held| {
            let names: Vec<&str> = held.all().map(|mandate| mandate.id.as_str()).collect();
            (names.join("/"), held.ends_us().div_euclid(1_000_000))
        });
        let approval = cleared.approval().and_then(|used| used.kept.approved_until_us);
        let approval_ends_at = approval.map(|until_us| until_us.div_euclid(1_000_000));
        let ends = [mandate.as_ref().map(|(_, ends_at)| *ends_at), approval_ends_at];
        let bound = Bound {
            mandate: mandate.as_ref().map(|(names, _)| names.as_str()),
            ends_at: ends.into_iter().flatten().min(),
        };
        let credential =
            self.credential_for(cleared.permit().caller(), target.server(), Some(target.name()), bound).await?;
        Ok(Grant::new(cleared, credential, leg, arguments, recheck))
    }
}

impl Grant {
    fn new(
        cleared: Box<Cleared>,
        credential: Credential,
        leg: Leg,
        arguments: Option<Json>,
        recheck: Arc<dyn Recheck>,
    ) -> Self {
        let permit = cleared.permit();
        let rules = permit.rules().join(", ");
        // Several may have read the same, and one of them more of it.
        let mut read: Vec<(&String, &String)> = Vec::new();
        for (name, value) in permit.condition_values().iter().flat_map(|condition| &condition.read) {
            match read.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) if *known == PRESENT => *known = value,
                Some(_) => {}
                None => read.push((name, value)),
            }
        }
        let target = permit.target();
        let hidden = Hidden::of(&target.server().redact, target.name(), arguments.as_ref());
        let raw = |(name, value): (&String, &String)| {
            let value = if hidden.as_ref().is_some_and(|hidden| hidden.covers(name)) {
                to_raw_value(REDACTED).ok()?
            } else {
                RawValue::from_string(value.clone()).or_else(|_| to_raw_value(value)).ok()?
            };
            Some(ConditionValue { name: name.clone(), value })
        };
        let values = read.into_iter().filter_map(raw).collect();
        Self(Box::new(Granted { cleared, credential, leg, arguments, recheck, rules, values, hidden }))
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        self.0.cleared.permit().target()
    }

    /// The decision that it rests on.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        self.0.cleared.permit()
    }

    /// For whom.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.0.cleared.permit().caller()
    }

    /// The mandate that it is part of.
    #[must_use]
    pub const fn mandate(&self) -> Option<&Held> {
        self.0.cleared.mandate()
    }

    /// Whether the reports of its mandate have it already.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.0.cleared.is_reported()
    }

    /// What it uses of what persons said.
    #[must_use]
    pub fn approval(&self) -> Option<&Used> {
        self.0.cleared.approval()
    }

    /// Whether something about it hung on what its caller says, so that nothing that is said later goes on.
    #[must_use]
    pub fn hangs_on_words(&self) -> bool {
        self.0.cleared.hangs_on_words()
    }

    /// Whether it is about a task, and no call.
    #[must_use]
    pub const fn is_following(&self) -> bool {
        self.0.cleared.permit().is_following()
    }

    /// With which arguments.
    #[must_use]
    pub const fn arguments(&self) -> Option<&Json> {
        self.0.arguments.as_ref()
    }

    /// As which request of which call.
    #[must_use]
    pub const fn leg(&self) -> &Leg {
        &self.0.leg
    }

    /// What the upstream is presented with.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.0.credential
    }

    /// Whose credential that is: what sessions and connections are keyed by.
    #[must_use]
    pub const fn context(&self) -> AuthorizationContext {
        self.0.credential.context
    }

    /// What it does to the labels of its caller.
    #[must_use]
    pub fn labels(&self) -> Option<&LabelUse> {
        self.0.cleared.labels()
    }

    /// What else was known of the moment when it was decided.
    #[must_use]
    pub fn situation(&self) -> &Situation {
        self.0.cleared.permit().situation()
    }

    /// Whose sessions and processes it may use.
    #[must_use]
    pub fn principal(&self) -> PrincipalKey {
        self.0.cleared.permit().caller().principal()
    }
}

impl Evidence for Grant {
    fn recheck(&self) -> Result<(), Refusal> {
        self.0.recheck.recheck(&self.0.cleared, self.0.arguments.as_ref())?;
        self.0.cleared.mandate().map_or(Ok(()), |held| self.0.recheck.mandated(held))?;
        self.0.cleared.approval().map_or(Ok(()), |approval| self.0.recheck.approved(approval))
    }

    fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        self.0.cleared.consume(self.0.recheck.epoch())
    }

    fn consumed(&self, journal: &Journal) {
        self.0.cleared.tell(journal, (self.0.leg.call, self.0.leg.leg));
    }

    fn charged(&self) -> &[ChargeNote] {
        self.0.cleared.charged()
    }

    fn intent(&self) -> Intent<'_> {
        Intent {
            rule: Some(&self.0.rules),
            credential: CredentialNote {
                kind: self.0.credential.facts.kind.as_str(),
                audience: self.0.credential.facts.audience.as_deref(),
                id: self.0.credential.facts.id.as_deref(),
                issue: self.0.credential.facts.issue.as_deref(),
                expires_at: self.0.credential.ends.expires_at,
                used_until: self.0.credential.ends.used_until,
            },
            arguments: self.0.arguments.as_ref().map(|arguments| arguments.as_bytes().as_ref()),
            values: &self.0.values,
            approval: self.approval().map(|used| used.kept.id.as_str()),
            ..intended(&self.0.cleared, &self.0.leg)
        }
    }

    fn hidden(&self) -> Option<&Hidden> {
        self.0.hidden.as_deref()
    }

    fn server(&self) -> Option<&ServerId> {
        Some(self.target().server_id())
    }
}

/// What the record says of whatever was cleared: who asked for what, and what it does to labels. It presents nothing.
#[must_use]
pub fn intended<'a>(cleared: &'a Cleared, leg: &'a Leg) -> Intent<'a> {
    let permit = cleared.permit();
    let mut attempt = attempt(permit.caller(), leg, Some(permit.target()), None);
    attempt.revision = Some(permit.revision());
    attempt.mandate = cleared.mandate().map(Held::facts);
    attempt.owners.agent = cleared.agent_owner();
    Intent {
        attempt,
        rule: permit.rules().first().map(AsRef::as_ref),
        credential: CredentialNote { kind: "none", ..CredentialNote::default() },
        arguments: None,
        values: &[],
        approval: None,
        labels: cleared.labels().map(|labels| LabelNote {
            before: labels.before().names().collect(),
            after: labels.after().names().collect(),
            tool: labels.labelled().names().collect(),
            stores: labels.labelled().written().collect(),
            observed: labels.observed(),
            asked: labels.asked().iter().flat_map(|asked| asked.rules.iter().map(AsRef::as_ref)).collect(),
        }),
    }
}

/// Who tried what, as the record tells it: a projection of the proofs there are.
#[must_use]
pub fn attempt<'a>(caller: &'a Caller, leg: &'a Leg, target: Option<&'a Target>, name: Option<&'a str>) -> Attempt<'a> {
    Attempt {
        call: leg.call,
        leg: leg.leg,
        who: caller.who(),
        mcp: Operation {
            method: &leg.method,
            protocol: Some(leg.version.as_str()),
            server: target.map(|target| target.server_id().as_str()),
            environment: target.map(|target| target.environment().as_str()),
            name: target.map(Target::name).or(name),
            definition: target.and_then(Target::definition).map(|definition| definition.digest),
        },
        via: leg.via,
        mandate: None,
        declared: leg.declared.as_deref(),
        owners: OwnerFacts { agent: None, server: target.map(|target| target.server().owner.as_str()) },
        revision: None,
        epoch: caller.epoch(),
    }
}
