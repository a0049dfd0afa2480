//! Emergency access: one person asks for a role that was written down beforehand, another agrees, and it is over soon.
//!
//! Decides who may ask, who may agree, how long it lasts, and who looks at it afterwards. Refuses to know what the role
//! allows: rules say that, and a denial or a revocation wins over it like over every other. Invariants: nobody gets it
//! alone; a call with it goes out only while the store still has it; each of them is told; every one waits to be
//! reviewed by somebody who did not ask for it.

use serde::{Deserialize, Serialize};

use super::kept::{Decision, Kept, Requester, Token};
use super::request::random;
use super::{Approvals, Rules, approver, noted};
use crate::config::break_glass::BreakGlassConfig;
use crate::config::{Approvers, Config, GateConfig, GateKind};
use crate::guard::Party;
use crate::identity::{Caller, Elevation, Groups, Revocations};
use crate::ids::{Digest, PolicyRevision};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outbox;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::{AdminOperation, Policy};
use crate::record::Who;
use crate::shelf::{Action, Change, Changed, Expect, Section, Tell, Version};

/// All of them, also those that are over: they wait to be reviewed.
pub const BREAK_GLASS: Section = Section { name: "break_glass", rows_max: limit::BREAK_GLASS_KEPT_MAX };
/// Those that are open, for as long as they are.
pub const OPEN: Section = Section { name: "break_glass_open", rows_max: limit::BREAK_GLASS_KEPT_MAX };

const SHOWN: &str = "bailiwick/break-glass/v1";

/// One emergency access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Who asked and who agreed, as a request.
    pub of: Kept,
    /// Which kind: `[break_glass.NAME]`.
    pub name: String,
    /// The role that it gives.
    pub role: String,
    /// Why it is needed.
    pub reason: String,
    /// How long it lasts; microseconds.
    pub for_us: i64,
    /// When it is over; set when the last one has agreed. Microseconds since 1970 by the store's clock, as all moments here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
    /// Who ended it before that, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Remark>,
    /// Who has looked at what was done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<Remark>,
}

/// What somebody did with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Who.
    pub by: String,
    /// When.
    pub at_us: i64,
    /// What they say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl BreakGlass {
    /// `asked`, `expired` where nobody agreed in time, `open`, `to_review`, or `reviewed`.
    #[must_use]
    pub fn state(&self, now_us: i64) -> &'static str {
        match (self.until_us, &self.ended, &self.reviewed) {
            (_, _, Some(_)) => "reviewed",
            (Some(_), Some(_), None) => "to_review",
            (Some(until_us), None, None) if now_us < until_us => "open",
            (Some(_), None, None) => "to_review",
            (None, None, None) if now_us < self.of.pending_until_us => "asked",
            (None, _, None) => "expired",
        }
    }

    /// Whether it may be used under these files and revocations: its kind is still there, gives the same role, nothing
    /// was taken from whoever asked, and whoever agreed could still do so.
    pub(super) fn stands(&self, (config, policy): (&Config, &Policy), revocations: &Revocations) -> bool {
        let Some(kind) = kind(config, &self.name) else { return false };
        let gate = gate(kind);
        let rules = Rules { config, policy, operation: AdminOperation::BreakGlassApprove };
        let counts = |decision: &&Decision| {
            approver::stands(decision, &self.of, rules).is_ok()
                && approver::is_trusted(decision, revocations)
                && approver::counts(decision, &gate, None)
        };
        let agreed = self.of.decisions.iter().filter(counts).count();
        kind.role == self.role
            && self.is_heard(revocations)
            && agreed >= usize::try_from(gate.approvals).unwrap_or(usize::MAX)
    }

    /// Whether nothing was taken from whoever asked, as they were signed in then.
    fn is_heard(&self, revocations: &Revocations) -> bool {
        let facts = self.of.requester.token.as_ref().and_then(|token| token.facts(true));
        facts.is_some_and(|facts| revocations.check(&facts).is_ok())
    }

    /// Whether a caller may use it at this moment.
    #[must_use]
    pub fn is_usable(
        &self,
        caller: &Caller,
        (config, policy): (&Config, &Policy),
        revocations: &Revocations,
        now_us: i64,
    ) -> bool {
        let in_time = inversion::is_off(Control::BreakGlass) || self.until_us.is_some_and(|until_us| now_us < until_us);
        in_time && self.is_of(caller, config) && self.stands((config, policy), revocations)
    }

    /// Whether it is this caller's: the person who asked, without software that acts on its own.
    fn is_of(&self, caller: &Caller, config: &Config) -> bool {
        let persona = caller.persona();
        let same = persona.user.as_ref().is_some_and(|user| user.as_str() == self.of.requester.party.user);
        let software =
            persona.agent.iter().chain(&persona.chain).any(|agent| agent.autonomous) || caller.token().is_key();
        same && !software && kind(config, &self.name).is_some_and(|kind| may_ask(kind, caller))
    }
}

/// The kind of that name.
fn kind<'c>(config: &'c Config, name: &str) -> Option<&'c BreakGlassConfig> {
    config.break_glass.iter().find(|kind| kind.name == name)
}

/// Whether a kind names somebody, or a group that they are known to be in.
fn may_ask(kind: &BreakGlassConfig, caller: &Caller) -> bool {
    let persona = caller.persona();
    let groups = match &persona.groups {
        Groups::Known(groups) => groups.as_slice(),
        Groups::Unknown(_) => &[],
    };
    kind.who.iter().any(|who| match who {
        Approvers::Owner => false,
        Approvers::Subject(subject) => persona.user.iter().chain(groups).any(|known| known.as_str() == subject),
    })
}

/// The same as a gate, so that whoever agrees is held to what approvers are held to.
fn gate(kind: &BreakGlassConfig) -> GateConfig {
    GateConfig {
        name: kind.name.clone(),
        flows: false,
        objects: Vec::new(),
        labels: Vec::new(),
        environments: Vec::new(),
        actions: Vec::new(),
        when: None,
        kind: GateKind::Approve,
        approvers: kind.approvers.clone(),
        approvals: kind.approvals,
        pending_for: std::time::Duration::ZERO,
        approved_for: kind.lasts,
        irreversible: false,
        acr: Vec::new(),
        auth_age_max: None,
    }
}

impl Approvals {
    /// Asks for emergency access for oneself.
    ///
    /// # Errors
    /// `parameters_invalid`, `approver_refused` where the files do not name them, `person_unknown`, `approvals_limited`,
    /// `store_unavailable`.
    pub async fn ask(
        &self,
        name: &str,
        reason: &str,
        by: &Caller,
        config: &Config,
        revision: PolicyRevision,
    ) -> Result<(BreakGlass, i64), Stop> {
        let invalid = |hint: &'static str| Refusal::new(Reason::ParametersInvalid).hint(hint);
        let reason: String = reason.trim().chars().take(limit::BREAK_GLASS_REASON_CHARACTERS_MAX).collect();
        if reason.is_empty() {
            return Err(invalid("say why it is needed: whoever agrees reads it, and so does whoever reviews it").into());
        }
        let kind = kind(config, name).ok_or_else(|| invalid("there is no such emergency in policies/gates.toml"))?;
        if !may_ask(kind, by) {
            let hint = "the files do not name you, or a group of yours, as somebody who may ask for it";
            return Err(Refusal::new(Reason::ApproverRefused).hint(hint).into());
        }
        let party = Party::of(by);
        if party.is_unknown_human() {
            return Err(Refusal::new(Reason::PersonUnknown).into());
        }
        let now_us = self.shelf.clock_us().await?;
        if self.asked_by(&party.user, now_us).await? >= limit::BREAK_GLASS_ASKED_PER_PERSON_MAX {
            let hint = "you have asked for as much as can wait at once: have somebody agree to one, or end one";
            return Err(Refusal::new(Reason::ApprovalsLimited).hint(hint).into());
        }
        let id = random()?;
        let for_us = super::micros(kind.lasts);
        let shown = Digest::of(
            SHOWN,
            &[id.as_str(), name, &kind.role, &party.user, &reason, &for_us.to_string()].map(str::as_bytes),
        );
        let of = Kept {
            id,
            binding: shown,
            gates: vec![name.to_owned()],
            requester: Requester {
                principal: party.user.clone(),
                party,
                token: Some(Token::of(by)),
                openers: Vec::new(),
            },
            mandate: None,
            template: None,
            irreversible: false,
            server: String::new(),
            action: "admin".to_owned(),
            name: kind.role.clone(),
            definition: None,
            environment: "*".to_owned(),
            preview: String::new(),
            shown,
            revision,
            call: String::new(),
            requested_at_us: now_us,
            pending_until_us: now_us.saturating_add(limit::BREAK_GLASS_ASKED_FOR_US),
            approved_for_us: for_us,
            asks: true,
            confirmed: false,
            decisions: Vec::new(),
            approved_until_us: None,
            denied: None,
            consumed: None,
            withdrawn: false,
            after: String::new(),
            expiry_told: true,
        };
        let (name, role) = (name.to_owned(), kind.role.clone());
        let asked = BreakGlass { of, name, role, reason, for_us, until_us: None, ended: None, reviewed: None };
        match self.shelf.change(vec![row(&asked, Expect::Absent)], Tell::Nobody).await? {
            Changed::Done { .. } => {}
            Changed::Conflict(_) => return Err(Refusal::new(Reason::ApprovalChanged).into()),
            Changed::Full(_) => return Err(Refusal::new(Reason::ApprovalsLimited).into()),
        }
        self.tell(&asked.of, "break_glass_asked", None, Some(by.who()), &asked.reason);
        Ok((asked, now_us))
    }

    /// Agrees to what was shown; once enough persons have, it is open. Whoever orders it has the new epoch taken up.
    ///
    /// # Errors
    /// As [`approver::decision`]; `target_unknown`, `approval_over`, `approval_changed`, `store_unavailable`.
    pub async fn agree(
        &self,
        id: &str,
        shown: Digest,
        (by, now_s): (&Caller, i64),
        (config, policy): (&Config, &Policy),
    ) -> Result<(BreakGlass, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (mut asked, version) = self.emergency(id).await?;
        let over = |hint: &'static str| Refusal::new(Reason::ApprovalOver).hint(hint);
        if asked.state(now_us) != "asked" {
            return Err(over("nobody waits for it any more").into());
        }
        if asked.of.shown != shown {
            let hint = "that is not what was shown: look at it again";
            return Err(Refusal::new(Reason::ApprovalChanged).hint(hint).into());
        }
        let kind = kind(config, &asked.name).filter(|kind| kind.role == asked.role);
        let kind = kind.ok_or_else(|| over("the files do not have it any more as it was asked for"))?;
        if !asked.is_heard(&self.revocations) {
            return Err(over("access was taken from whoever asked").into());
        }
        let gate = gate(kind);
        let rules = Rules { config, policy, operation: AdminOperation::BreakGlassApprove };
        let decision = approver::decision(by, &asked.of, &[&gate], rules, (now_s, now_us));
        let refused = |refusal: &Refusal| self.tell(&asked.of, "refused", None, Some(by.who()), &refusal.hint);
        let decision = decision.inspect_err(refused)?;
        let person = approver::folded(&decision.person);
        if asked.of.decisions.iter().any(|known| approver::folded(&known.person) == person) {
            return Err(Refusal::new(Reason::ApproverRefused).hint("you have agreed already").into());
        }
        asked.of.decisions.push(decision);
        let opens = asked.stands((config, policy), &self.revocations);
        let mut changes = Vec::new();
        if opens {
            asked.until_us = Some(now_us.saturating_add(asked.for_us));
            let body = serde_json::to_string(&asked).unwrap_or_default();
            let owner = asked.of.requester.party.user.clone();
            let put = Action::Put { owner, body, expires_at_us: asked.until_us };
            changes.push(Change::new(OPEN, id, Expect::Absent, put));
        }
        changes.insert(0, row(&asked, Expect::Version(version)));
        let count = changes.len();
        let told = if opens { self.opened(&asked, config, now_us) } else { Vec::new() };
        let tell = if opens { Tell::Everybody } else { Tell::Nobody };
        let mut changed = self.shelf.change([changes.clone(), told].concat(), tell).await?;
        if matches!(changed, Changed::Full(index) if index >= count) {
            changed = self.shelf.change(changes, tell).await?;
        }
        if !changed.is_done() {
            return Err(Refusal::new(Reason::ApprovalChanged).into());
        }
        let last: Vec<_> = asked.of.decisions.last().map(noted).into_iter().collect();
        let event = if opens { "break_glass_opened" } else { "break_glass_agreed" };
        self.journal.approval(&super::note(&asked.of, event, &last, &asked.reason), None, Some(by.who()));
        Ok((asked, now_us))
    }

    /// Ends one before its time, or withdraws what was asked for. Whoever orders it has the new epoch taken up.
    ///
    /// # Errors
    /// `target_unknown`, `approval_over`, `approval_changed`, `store_unavailable`.
    pub async fn end(&self, id: &str, by: &str, note: &str, who: Option<&Who>) -> Result<(BreakGlass, i64), Stop> {
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            let now_us = self.shelf.clock_us().await?;
            let (mut open, version) = self.emergency(id).await?;
            if !["asked", "open"].contains(&open.state(now_us)) {
                return Err(Refusal::new(Reason::ApprovalOver).into());
            }
            open.ended = Some(remark(by, now_us, note));
            // Of one to which somebody agrees in this moment, what they have said is not lost: it has to be reviewed.
            let ended = row(&open, Expect::Version(version));
            let changes = vec![ended, Change::new(OPEN, id, Expect::Anything, Action::Remove)];
            if self.shelf.change(changes, Tell::Everybody).await?.is_done() {
                self.tell(&open.of, "break_glass_ended", None, who, by);
                return Ok((open, now_us));
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// Says that somebody has looked at what was done with it. Not whoever asked for it.
    ///
    /// # Errors
    /// `target_unknown`, `approval_over`, `approver_refused`, `parameters_invalid`, `store_unavailable`.
    pub async fn reviewed(&self, id: &str, by: &Caller, note: &str) -> Result<(BreakGlass, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (mut over, version) = self.emergency(id).await?;
        if over.state(now_us) != "to_review" {
            return Err(Refusal::new(Reason::ApprovalOver).hint("there is nothing to review, or not yet").into());
        }
        let asker = &over.of.requester.party;
        let (person, user) = (by.token().person.known(), by.persona().user.as_ref());
        let (Some(person), Some(user)) = (person, user) else {
            return Err(Refusal::new(Reason::ApproverRefused)
                .hint("your token does not say which person you are")
                .into());
        };
        let own = asker.person.as_deref().is_none_or(|own| approver::folded(own) == approver::folded(person));
        if own || asker.user == user.as_str() {
            let hint = "whoever asked for it does not review it: somebody else has to";
            return Err(Refusal::new(Reason::ApproverRefused).hint(hint).into());
        }
        if note.trim().is_empty() {
            let hint = "say what was found";
            return Err(Refusal::new(Reason::ParametersInvalid).hint(hint).into());
        }
        over.reviewed = Some(remark(user.as_str(), now_us, note));
        if !self.shelf.change(vec![row(&over, Expect::Version(version))], Tell::Nobody).await?.is_done() {
            return Err(Refusal::new(Reason::ApprovalChanged).into());
        }
        self.tell(&over.of, "break_glass_reviewed", None, Some(by.who()), note);
        Ok((over, now_us))
    }

    /// A caller with the role that an open one gives them, if any does.
    #[must_use]
    pub fn with_emergency(
        &self,
        open: &[(BreakGlass, Version)],
        caller: &Caller,
        files: (&Config, &Policy),
        now_us: i64,
    ) -> Option<Caller> {
        let usable = |(one, _): &&(BreakGlass, Version)| one.is_usable(caller, files, &self.revocations, now_us);
        let (one, version) = open.iter().find(usable)?;
        let agreed = |decision: &Decision| (decision.user.clone(), decision.authenticated_at, decision.acr.clone());
        let elevation = Elevation {
            id: one.of.id.clone(),
            version: version.0,
            until_us: one.until_us.unwrap_or(now_us),
            kind: one.name.clone(),
            reason: one.reason.clone(),
            revision: one.of.revision,
            shown: one.of.shown,
            agreed: one.of.decisions.iter().map(agreed).collect(),
        };
        Some(caller.elevated(&one.role, elevation))
    }

    fn opened(&self, one: &BreakGlass, config: &Config, now_us: i64) -> Vec<Change> {
        let until = one.until_us.and_then(|until_us| jiff::Timestamp::from_microsecond(until_us).ok());
        let agreed: Vec<&str> = one.of.decisions.iter().map(|decision| decision.user.as_str()).collect();
        let about = serde_json::json!({
            "break_glass": one.name, "id": one.of.id, "role": one.role, "user": one.of.requester.party.user,
            "approvers": agreed, "until": until.map(|until| until.to_string()),
        });
        outbox::told(&config.webhooks, outbox::Event::BreakGlassOpened, &about, now_us)
    }
}

fn remark(by: &str, at_us: i64, note: &str) -> Remark {
    let note = note.trim().chars().take(limit::BREAK_GLASS_REASON_CHARACTERS_MAX).collect();
    Remark { by: by.to_owned(), at_us, note }
}

fn row(one: &BreakGlass, expect: Expect) -> Change {
    let ends_us = one.until_us.unwrap_or(one.of.pending_until_us);
    let kept_us = if one.until_us.is_some() { limit::BREAK_GLASS_KEPT_FOR_US } else { 0 };
    let body = serde_json::to_string(one).unwrap_or_default();
    let owner = one.of.requester.party.user.clone();
    let put = Action::Put { owner, body, expires_at_us: Some(ends_us.saturating_add(kept_us)) };
    Change::new(BREAK_GLASS, one.of.id.as_str(), expect, put)
}
