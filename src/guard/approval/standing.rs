//! Standing approvals: what several persons have said yes to beforehand, for calls like one that they have seen.
//!
//! Decides who may give one, for what, and until when. Refuses to know which calls it lets through ([`super::uses`]).
//! Invariants: it is made of a request that somebody made, and says no more than that one beside its arguments; those
//! are bound by a named condition that leaves none open; at least two persons give it, each of whom could approve the
//! call; nobody gives one for what cannot be undone.

use serde::{Deserialize, Serialize};

use super::kept::{Decision, Kept, Token};
use super::request::random;
use super::{Approvals, Rules, approver, gates_of, noted};
use crate::config::{Config, GateConfig, GateKind};
use crate::identity::{Caller, Revocations};
use crate::ids::{Digest, MandateId};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::condition::Condition;
use crate::policy::{AdminOperation, Policy};
use crate::record::Who;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Tell, Version};
use crate::wire::Json;

/// Standing approvals, looked up by what they are for.
pub const STANDING: Section = Section { name: "standing", rows_max: limit::STANDING_MAX };

const SCOPE: &str = "bailiwick/standing/v1";
const SHOWN: &str = "bailiwick/standing-shown/v1";

/// One standing approval, or a proposal for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is for, as a request: its name, its scope as what it is bound to, who gave it.
    pub of: Kept,
    /// The request that it was made of.
    pub like: String,
    /// The named condition on the arguments.
    pub condition: String,
    /// What that said when it was proposed.
    pub says: String,
    /// How many calls it lets through.
    pub uses: u32,
    /// For how long, from when the last person has said yes; microseconds.
    pub for_us: i64,
    /// Until when others can say yes; microseconds since 1970 by the store's clock, as all moments here.
    pub proposed_until_us: i64,
    /// Until when it is good; set when the last one has said yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What somebody wants to stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The request whose calls are meant.
    pub like: String,
    /// The named condition on the arguments.
    pub condition: String,
    /// How many calls.
    pub uses: u32,
    /// For how long: seconds.
    pub seconds: u32,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Standing {
    /// Whether somebody has still to say yes.
    #[must_use]
    pub const fn is_proposed(&self) -> bool {
        self.until_us.is_none()
    }

    /// When it is over in the state that it is in.
    #[must_use]
    pub fn ends_us(&self) -> i64 {
        self.until_us.unwrap_or(self.proposed_until_us)
    }

    /// How many more persons have to say yes at the gate that misses the most.
    #[must_use]
    pub fn missing(&self, config: &Config) -> u32 {
        let server = super::server(config, &self.of.server);
        let gates = gates_of(&self.of, config).unwrap_or_default();
        let missing = gates.iter().map(|gate| {
            let of = self.of.decisions.iter().filter(|decision| approver::counts(decision, gate, server));
            let mut persons: Vec<String> = of.map(|decision| approver::folded(&decision.person)).collect();
            persons.sort_unstable();
            persons.dedup();
            let persons = u32::try_from(persons.len()).unwrap_or(u32::MAX);
            gate.approvals.max(limit::STANDING_PERSONS_MIN).saturating_sub(persons)
        });
        missing.max().unwrap_or(limit::STANDING_PERSONS_MIN)
    }

    /// Why it lets nothing through under these files, whoever calls.
    ///
    /// # Errors
    /// `approval_void`, `standing_refused`, and why a person who gave it could not any more.
    pub fn stands(&self, config: &Config, policy: &Policy) -> Result<(), Refusal> {
        let void = |hint: &'static str| Refusal::new(Reason::ApprovalVoid).hint(hint);
        gates(&self.of, config)?;
        let condition = condition(policy, &self.condition).ok_or_else(|| void("its condition is gone"))?;
        if condition.to_string() != self.says {
            return Err(void("its condition says something else than when it was given"));
        }
        let rules = Rules { config, policy, operation: AdminOperation::Standing };
        self.of.decisions.iter().try_for_each(|decision| approver::stands(decision, &self.of, rules))?;
        if self.until_us.is_some() && self.missing(config) > 0 {
            return Err(void("its gates ask for other persons, or for more"));
        }
        Ok(())
    }
}

/// What a standing approval is for: everything of a request but its arguments, and the one task that it was part of.
#[must_use]
pub fn scope(kept: &Kept) -> Digest {
    let list = |texts: &[String]| Json::of(&texts).as_str().to_owned();
    let party = &kept.requester.party;
    let task = match (&kept.mandate, &kept.template) {
        (None, _) => "none".to_owned(),
        (Some(_), None) => "free".to_owned(),
        (Some(_), Some(template)) => format!("template:{template}"),
    };
    let parts = [
        kept.requester.principal.clone(),
        party.user.clone(),
        list(&party.agents),
        party.key.clone().unwrap_or_default(),
        task,
        kept.server.clone(),
        kept.action.clone(),
        kept.name.clone(),
        kept.definition.clone().unwrap_or_default(),
        kept.environment.clone(),
        list(&kept.gates),
    ];
    Digest::of(SCOPE, &parts.each_ref().map(|part| part.as_bytes()))
}

/// The condition of that name.
pub(super) fn condition<'p>(policy: &'p Policy, name: &str) -> Option<&'p Condition> {
    policy.conditions().iter().find(|condition| condition.name().as_str() == name)
}

/// The gates of a request, where they are such that somebody can approve its calls beforehand.
fn gates<'c>(kept: &Kept, config: &'c Config) -> Result<Vec<&'c GateConfig>, Refusal> {
    let refused = |hint: &'static str| Refusal::new(Reason::StandingRefused).hint(hint);
    let gates = gates_of(kept, config);
    let gates = gates.ok_or_else(|| Refusal::new(Reason::ApprovalVoid).hint("a gate of it is gone"))?;
    if gates.iter().any(|gate| gate.kind != GateKind::Approve) {
        return Err(refused("whoever calls has to confirm these calls, each of them"));
    }
    if !kept.after.is_empty() {
        return Err(refused("it waits for what was seen before it, which is another thing each time"));
    }
    if kept.irreversible || gates.iter().any(|gate| gate.irreversible) {
        return Err(refused("what cannot be undone, or of which nobody says that it can, is approved call by call"));
    }
    Ok(gates)
}

impl Approvals {
    /// Proposes a standing approval for calls like one that somebody made; whoever proposes it is the first who says
    /// yes. Seconds since 1970 is what logins are dated by.
    ///
    /// # Errors
    /// `parameters_invalid`, `standing_refused`, `approval_over`, `approvals_limited`, `target_unknown`,
    /// `store_unavailable`; and as [`approver::decision`].
    pub async fn propose(
        &self,
        wish: &Wish,
        (by, now_s): (&Caller, i64),
        (config, policy): (&Config, &Policy),
        written: &Config,
    ) -> Result<(Standing, i64), Stop> {
        let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
        if !(1..=limit::STANDING_USES_MAX).contains(&wish.uses) {
            return Err(invalid(format!("write 1 to {} uses", limit::STANDING_USES_MAX)).into());
        }
        let most = limit::STANDING_FOR_MAX.as_secs();
        if wish.seconds == 0 || u64::from(wish.seconds) > most {
            return Err(invalid(format!("it can be good for at most {most} seconds, which are thirty days")).into());
        }
        let named = condition(policy, &wish.condition);
        let named = named.ok_or_else(|| {
            invalid(format!("there is no condition `{}` in policies/conditions.toml", wish.condition))
        })?;
        if !named.closes_arguments() {
            let hint = format!(
                "`{}` leaves other arguments open: write `only = [...]` into it, with all that may be given",
                wish.condition
            );
            return Err(invalid(hint).into());
        }
        let (like, now_us) = self.named(&wish.like, written).await?;
        let gates = gates(&like, config)?;
        if like.mandate.is_some() && like.template.is_none() {
            let hint = "a mandate without a template is one task: its calls are approved one by one";
            return Err(Refusal::new(Reason::StandingRefused).hint(hint).into());
        }
        if !self.is_heard(&like) {
            let hint = "access was taken from whoever called: the call has to be made again";
            return Err(Refusal::new(Reason::ApprovalOver).hint(hint).into());
        }
        let of = Kept {
            id: random()?,
            binding: scope(&like),
            preview: String::new(),
            mandate: like.template.as_ref().and(like.mandate.clone()),
            requested_at_us: now_us,
            confirmed: false,
            decisions: Vec::new(),
            approved_until_us: None,
            denied: None,
            consumed: None,
            withdrawn: false,
            expiry_told: true,
            ..like.clone()
        };
        let rules = Rules { config, policy, operation: AdminOperation::Standing };
        let decision = approver::decision(by, &of, &gates, rules, (now_s, now_us));
        let decision =
            decision.inspect_err(|refusal| self.tell(&of, "refused", None, Some(by.who()), &refusal.hint))?;
        let rows = self.shelf.rows(STANDING, Some(&of.binding.to_string()), None).await?;
        if rows.len() >= limit::STANDING_OF_ONE_SCOPE_MAX {
            let hint = "there are as many standing approvals of calls like this as there can be: revoke one";
            return Err(Refusal::new(Reason::ApprovalsLimited).hint(hint).into());
        }
        let mut standing = Standing {
            of: Kept { decisions: vec![decision], ..of },
            like: like.id,
            condition: wish.condition.clone(),
            says: named.to_string(),
            uses: wish.uses,
            for_us: i64::from(wish.seconds).saturating_mul(1_000_000),
            proposed_until_us: now_us.saturating_add(limit::STANDING_PROPOSED_FOR_US),
            until_us: None,
            note: wish.note.chars().take(limit::STANDING_NOTE_CHARACTERS_MAX).collect(),
        };
        standing.of.shown = shown(&standing);
        self.keep(&standing, Expect::Absent).await?;
        self.given(&standing, "standing_proposed", by);
        Ok((standing, now_us))
    }

    /// Says yes to a proposal as it was shown. What everybody has said yes to is good from then on.
    ///
    /// # Errors
    /// As [`Approvals::propose`]; `approval_changed`.
    pub async fn give(
        &self,
        id: &str,
        shown: Digest,
        (by, now_s): (&Caller, i64),
        config: &Config,
        policy: &Policy,
    ) -> Result<(Standing, i64), Stop> {
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            let now_us = self.shelf.clock_us().await?;
            let (mut standing, version) = self.standing_named(id).await?;
            if !standing.is_proposed() {
                return Err(Refusal::new(Reason::ApprovalOver).hint("everybody has said yes to it already").into());
            }
            if standing.of.shown != shown {
                let hint = "that is not what was shown: look at it again";
                return Err(Refusal::new(Reason::ApprovalChanged).hint(hint).into());
            }
            let gates = gates(&standing.of, config)?;
            standing.stands(config, policy)?;
            if !self.is_heard(&standing.of) {
                let hint = "access was taken from whoever called: it has to be proposed anew";
                return Err(Refusal::new(Reason::ApprovalOver).hint(hint).into());
            }
            let rules = Rules { config, policy, operation: AdminOperation::Standing };
            let decision = approver::decision(by, &standing.of, &gates, rules, (now_s, now_us));
            let tell = |refusal: &Refusal| self.tell(&standing.of, "refused", None, Some(by.who()), &refusal.hint);
            let decision = decision.inspect_err(tell)?;
            let person = approver::folded(&decision.person);
            let is_theirs = |known: &Decision| approver::folded(&known.person) == person;
            if standing.of.decisions.iter().any(is_theirs) {
                let hint = "you have said yes to this already: somebody else has to as well";
                return Err(Refusal::new(Reason::ApproverRefused).hint(hint).into());
            }
            standing.of.decisions.push(decision);
            standing.of.decisions = self.standing(&standing.of, rules);
            if standing.missing(config) == 0 {
                standing.until_us = Some(now_us.saturating_add(standing.for_us));
            }
            match self.keep(&standing, Expect::Version(version)).await {
                Ok(()) => {
                    self.given(&standing, "standing_approved", by);
                    return Ok((standing, now_us));
                }
                Err(stop) if stop.reason() == Reason::ApprovalChanged => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// Takes one back, or a proposal. Whoever orders it has the new epoch taken up: a store that is restored must not
    /// bring it back.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn take_back(&self, id: &str, by: &str, note: &str, who: Option<&Who>) -> Result<Standing, Stop> {
        let (standing, _) = self.standing_named(id).await?;
        let gone = Change::new(STANDING, id, Expect::Anything, Action::Remove);
        self.shelf.change(vec![gone], Tell::Everybody).await?;
        let note: String = note.chars().take(limit::STANDING_NOTE_CHARACTERS_MAX).collect();
        let detail = if note.is_empty() { by.to_owned() } else { format!("{by}: {note}") };
        self.tell(&standing.of, "standing_revoked", None, who, &detail);
        Ok(standing)
    }

    /// All of them, newest first, and the store's clock.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn standing_ones(&self) -> Result<(Vec<Standing>, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = self.shelf.rows(STANDING, None, after.as_deref()).await?;
            found.extend(rows.iter().filter_map(|row| understood(row).ok()));
            match rows.last() {
                Some(last) if rows.len() >= limit::SHELF_ROWS_READ_MAX => after = Some(last.key.clone()),
                _ => break,
            }
        }
        found.sort_by_key(|standing| std::cmp::Reverse(standing.of.requested_at_us));
        Ok((found, now_us))
    }

    /// One of them, in the version in which it was read.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn standing_named(&self, id: &str) -> Result<(Standing, Version), Stop> {
        let row = self.shelf.row(STANDING, id).await?;
        let hint = "there is no such standing approval, or it is over";
        let row = row.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint(hint))?;
        Ok((understood(&row)?, row.version))
    }

    /// Takes back, before revocations are lifted, whatever was given by somebody whom they name: that access was taken
    /// from them ended it for good. The same for callers, and of servers, where these blocks among them took all access.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn take_back_of(&self, blocks: Option<&Revocations>, written: &Config) -> Result<(), Failure> {
        let (all, _) = self.standing_ones().await.map_err(|stop| match stop {
            Stop::Failed(failure) => failure,
            Stop::Refused(refusal) => Failure::before(Reason::StoreUnavailable, refusal.hint),
        })?;
        let named = |standing: &Standing| {
            let gave = |decision: &Decision| !approver::is_trusted(decision, &self.revocations);
            standing.of.decisions.iter().any(gave) || blocks.is_some_and(|blocks| is_of(&standing.of, blocks, written))
        };
        for standing in all.iter().filter(|standing| named(standing)) {
            let gone = Change::new(STANDING, standing.of.id.as_str(), Expect::Anything, Action::Remove);
            self.shelf.change(vec![gone], Tell::Everybody).await?;
            self.tell(
                &standing.of,
                "standing_revoked",
                None,
                None,
                "access was taken from somebody who has a part in it",
            );
        }
        Ok(())
    }

    /// That somebody has said yes, on the record, with what it is for.
    fn given(&self, standing: &Standing, event: &'static str, by: &Caller) {
        let last: Vec<_> = standing.of.decisions.last().map(noted).into_iter().collect();
        let state = if standing.is_proposed() { "others have to say yes as well" } else { "it is good from now on" };
        let detail = format!(
            "{} calls within {} s where {} ({}); {state}",
            standing.uses,
            standing.for_us / 1_000_000,
            standing.says,
            standing.condition
        );
        let told = super::note(&standing.of, event, &last, &detail);
        self.journal.approval(&told, None, Some(by.who()));
    }

    async fn keep(&self, standing: &Standing, expect: Expect) -> Result<(), Stop> {
        let body = serde_json::to_string(standing).unwrap_or_default();
        if body.len() > limit::SHELF_BODY_BYTES_MAX {
            return Err(Refusal::new(Reason::StandingRefused).hint("it is more than can be kept").into());
        }
        let owner = standing.of.binding.to_string();
        let put = Action::Put { owner, body, expires_at_us: Some(standing.ends_us()) };
        let change = Change::new(STANDING, standing.of.id.as_str(), expect, put);
        match self.shelf.change(vec![change], Tell::Nobody).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Conflict(_) => Err(Refusal::new(Reason::ApprovalChanged).into()),
            Changed::Full(_) => Err(Refusal::new(Reason::ApprovalsLimited).into()),
        }
    }
}

/// Whether what was taken back names whoever asked, or what was asked for: as that is known by a token, by its agents and who
/// answers for them and for the key, by the mandate, by the server and who answers for that. Of a request that does not say
/// by which token it was made nobody knows that it is not meant.
pub(super) fn is_of(kept: &Kept, lifted: &Revocations, written: &Config) -> bool {
    let (barred, token) = (lifted.barred(), kept.requester.token.as_ref());
    let mut agents = kept.requester.party.agents.iter();
    let mandate = kept.mandate.as_deref().and_then(|id| MandateId::new(id).ok());
    let owner = super::server(written, &kept.server).map(|server| &server.owner);
    barred.servers.contains(kept.server.as_str())
        || owner.is_some_and(|owner| barred.owners.contains(owner))
        || agents.any(|agent| barred.bars(agent, token.and_then(Token::key), written))
        || mandate.is_some_and(|mandate| lifted.is_mandate_revoked(&mandate))
        || token.and_then(|token| token.facts(false)).is_none_or(|facts| lifted.check(&facts).is_err())
}

/// What a row says.
pub(super) fn understood(row: &Row) -> Result<Standing, Failure> {
    let unreadable = |error| Failure::before(Reason::StoreUnavailable, format!("a standing approval: {error}"));
    serde_json::from_str(&row.body).map_err(unreadable)
}

/// The digest of what those are shown who are asked for a yes, which goes back with it.
fn shown(standing: &Standing) -> Digest {
    let Standing { of, condition, says, uses, for_us, .. } = standing;
    let (binding, uses, for_us) = (of.binding.to_string(), uses.to_string(), for_us.to_string());
    let parts = [of.id.as_str(), &binding, condition, says, &uses, &for_us];
    Digest::of(SHOWN, &parts.map(str::as_bytes))
}
