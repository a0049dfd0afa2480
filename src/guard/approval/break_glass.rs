//! Emergency access: one person asks for a role that was written down beforehand, another agrees, and it is over soon.
//!
//! Decides who may ask, who may agree, how long it lasts, and who looks at it afterwards. Refuses to know what the role
//! allows: rules say that, and a denial or a revocation wins over it like over every other. Invariants: nobody gets it
//! alone; a call with it goes out only while the store still has it; each of them is told; every one waits to be
//! reviewed by somebody who did not ask for it.

use serde::{Deserialize, Serialize};

use super::kept::{Decision, Kept, Requester, Token};
use super::request::random;
use super::{Approvals, approver, noted};
use crate::config::break_glass::BreakGlassConfig;
use crate::config::{Approvers, Config, GateConfig, GateKind};
use crate::guard::Party;
use crate::guard::consume::Reservations;
use crate::identity::{Caller, Elevation, Groups};
use crate::ids::{CallId, Digest, LegId, PolicyRevision};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::Permit;
use crate::record::Who;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Tell, Version};

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

    /// Whether it may be used under these files and revocations: its kind is still there, gives the same role, and
    /// whoever agreed could still do so.
    fn stands(&self, approvals: &Approvals, config: &Config) -> bool {
        let Some(kind) = kind(config, &self.name) else { return false };
        let gate = gate(kind);
        let counts = |decision: &&Decision| {
            approver::stands(decision, &self.of, config).is_ok()
                && approver::is_trusted(decision, &approvals.revocations)
                && approver::counts(decision, &gate, None)
        };
        let agreed = self.of.decisions.iter().filter(counts).count();
        kind.role == self.role && agreed >= usize::try_from(gate.approvals).unwrap_or(usize::MAX)
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
        config: &Config,
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
        let facts = asked.of.requester.token.as_ref().and_then(|token| token.facts(true));
        if facts.is_none_or(|facts| self.revocations.check(&facts).is_err()) {
            return Err(over("access was taken from whoever asked").into());
        }
        let gate = gate(kind);
        let decision = approver::decision(by, &asked.of, &[&gate], config, (now_s, now_us));
        let refused = |refusal: &Refusal| self.tell(&asked.of, "refused", None, Some(by.who()), &refusal.hint);
        let decision = decision.inspect_err(refused)?;
        let person = approver::folded(&decision.person);
        if asked.of.decisions.iter().any(|known| approver::folded(&known.person) == person) {
            return Err(Refusal::new(Reason::ApproverRefused).hint("you have agreed already").into());
        }
        asked.of.decisions.push(decision);
        let opens = asked.stands(self, config);
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
    /// `target_unknown`, `approval_over`, `store_unavailable`.
    pub async fn end(&self, id: &str, by: &str, note: &str, who: Option<&Who>) -> Result<(BreakGlass, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (mut open, _) = self.emergency(id).await?;
        if !["asked", "open"].contains(&open.state(now_us)) {
            return Err(Refusal::new(Reason::ApprovalOver).into());
        }
        open.ended = Some(remark(by, now_us, note));
        let changes = vec![row(&open, Expect::Anything), Change::new(OPEN, id, Expect::Anything, Action::Remove)];
        self.shelf.change(changes, Tell::Everybody).await?;
        self.tell(&open.of, "break_glass_ended", None, who, by);
        Ok((open, now_us))
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

    /// All of them, newest first, and the store's clock.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn emergencies(&self) -> Result<(Vec<BreakGlass>, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let mut found: Vec<BreakGlass> =
            self.all_of(BREAK_GLASS).await?.iter().filter_map(|row| understood(row).ok()).collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.of.requested_at_us));
        Ok((found, now_us))
    }

    /// One of them, in the version in which it was read.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn emergency(&self, id: &str) -> Result<(BreakGlass, Version), Stop> {
        let found = self.shelf.row(BREAK_GLASS, id).await?;
        let found =
            found.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("there is no such emergency access"))?;
        Ok((understood(&found)?, found.version))
    }

    /// Those that are open, as they were read.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn open_ones(&self) -> Result<Vec<(BreakGlass, Version)>, Failure> {
        let rows = self.all_of(OPEN).await?;
        Ok(rows.iter().filter_map(|row| Some((understood(row).ok()?, row.version))).collect())
    }

    /// A caller with the role that an open one gives them, if any does.
    #[must_use]
    pub fn with_emergency(
        &self,
        open: &[(BreakGlass, Version)],
        caller: &Caller,
        config: &Config,
        now_us: i64,
    ) -> Option<Caller> {
        let is_in_time = |one: &BreakGlass| {
            inversion::is_off(Control::BreakGlass) || one.until_us.is_some_and(|until_us| now_us < until_us)
        };
        let usable = |(one, _): &&(BreakGlass, Version)| {
            is_in_time(one) && one.is_of(caller, config) && one.stands(self, config)
        };
        let (one, version) = open.iter().find(usable)?;
        let until_us = one.until_us.unwrap_or(now_us);
        Some(caller.elevated(&one.role, Elevation { id: one.of.id.clone(), version: version.0, until_us }))
    }

    /// Tells of a call that is made in an emergency: on the record, and to everybody who wants to hear of it.
    pub async fn alarm(&self, permit: &Permit, config: &Config, (call, leg): (CallId, LegId)) {
        let Some(elevation) = permit.caller().elevation() else { return };
        let Ok((one, _)) = self.emergency(&elevation.id).await else { return };
        let target = permit.target();
        let of = Kept {
            server: target.server_id().to_string(),
            name: target.name().to_owned(),
            environment: target.environment().to_string(),
            ..one.of.clone()
        };
        self.tell(&of, "break_glass_used", Some((call, leg)), Some(permit.caller().who()), &one.reason);
        let about = serde_json::json!({
            "break_glass": one.name, "id": one.of.id, "user": one.of.requester.party.user,
            "server": of.server, "action": target.action().to_string(), "environment": of.environment,
            "call": call.to_string(),
        });
        let Ok(now_us) = self.shelf.clock_us().await else { return };
        let told = outbox::told(&config.webhooks, outbox::Event::BreakGlassUsed, &about, now_us);
        if !told.is_empty() && !matches!(self.shelf.change(told, Tell::Nobody).await, Ok(changed) if changed.is_done())
        {
            tracing::warn!(break_glass = one.of.id, "nobody could be told of a call that was made in an emergency");
        }
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

    async fn all_of(&self, section: Section) -> Result<Vec<Row>, Failure> {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = self.shelf.rows(section, None, after.as_deref()).await?;
            let is_last = rows.len() < limit::SHELF_ROWS_READ_MAX;
            after = rows.last().map(|row| row.key.clone());
            found.extend(rows);
            if is_last {
                return Ok(found);
            }
        }
    }
}

/// Adds, to what a call of somebody with emergency access consumes, that the store still has it.
pub fn reserve_emergency(permit: &Permit, reservations: &mut Reservations) {
    if let Some(elevation) = permit.caller().elevation()
        && !inversion::is_off(Control::BreakGlass)
    {
        let still =
            Change::new(OPEN, elevation.id.as_str(), Expect::Version(Version(elevation.version)), Action::Check);
        reservations.reserve(still, Reason::BreakGlassOver);
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

fn understood(row: &Row) -> Result<BreakGlass, Failure> {
    let unreadable = |error| Failure::before(Reason::StoreUnavailable, format!("an emergency access: {error}"));
    serde_json::from_str(&row.body).map_err(unreadable)
}
