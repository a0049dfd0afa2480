//! Taking a label off: one administrator asks and says why, another one does it.
//!
//! Decides whether a label goes. Refuses to know doors and pages, and whether somebody is an administrator at all.
//! Invariants: two persons stand behind it, of whom neither has a part in what was seen; what goes is what both looked at,
//! because a carrier that has seen more since is another one; nobody goes on with what they remembered of it, because the
//! change raises the epoch.

use serde::{Deserialize, Serialize};

use super::{Carrier, CarrierKind, Labels, Origin};
use crate::config::Config;
use crate::guard::approval::{Decision, Requester, Rules, Token, folded, is_trusted, stands_beside};
use crate::identity::{Caller, Groups, Revocations};
use crate::ids::{Digest, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::label::Seen;
use crate::policy::{AdminOperation, Policy};
use crate::shelf::{Action, Change, Changed, Expect, Section, Tell, Version};

/// What was asked for and waits for the second person.
pub(super) const ASKED: Section = Section { name: "label_declassify", rows_max: limit::DECLASSIFICATIONS_WAITING_MAX };

/// What somebody wants taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Of which kind of carrier.
    pub kind: CarrierKind,
    /// Its name.
    pub name: String,
    /// Which labels.
    pub labels: Seen,
    /// Why.
    pub reason: String,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declassification {
    /// Its name.
    pub id: String,
    /// Of which kind of carrier.
    pub kind: CarrierKind,
    /// The carrier.
    pub name: String,
    labels: i64,
    before: i64,
    /// What the carrier's row said when it was asked for.
    stood: Digest,
    /// Why.
    pub reason: String,
    /// Who asked.
    by: Decision,
    /// Until when the second person can do it, microseconds since 1970 by the store's clock.
    pub until_us: i64,
}

/// What was taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declassified {
    /// What was asked for.
    pub asked: Declassification,
    /// What the carrier carried.
    pub before: Seen,
    /// What it carries now.
    pub after: Seen,
    /// The epoch that includes it.
    pub epoch: Option<RevocationEpoch>,
}

impl Declassification {
    /// Which labels.
    #[must_use]
    pub const fn labels(&self) -> Seen {
        Seen::of_bits(self.labels)
    }

    /// What the carrier carried when it was asked for.
    #[must_use]
    pub const fn before(&self) -> Seen {
        Seen::of_bits(self.before)
    }

    /// Who asked, as rules spell them.
    #[must_use]
    pub fn asked_by(&self) -> &str {
        &self.by.user
    }

    /// When, microseconds since 1970 by the store's clock.
    #[must_use]
    pub const fn asked_us(&self) -> i64 {
        self.by.at_us
    }
}

impl Labels {
    /// What waits for a second person, by name.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn declassifications(&self) -> Result<Vec<Declassification>, Failure> {
        // There are never more than one page holds.
        let rows = self.shelf.rows(ASKED, None, None).await?;
        rows.iter().map(|row| read(&row.body)).collect()
    }

    /// Asks for labels to be taken off a carrier. Nothing is taken off yet.
    ///
    /// # Errors
    /// `parameters_invalid` where it does not carry them, `approver_refused`, `administrator_required`,
    /// `insufficient_user_authentication`, `approvals_limited`, `store_unavailable`.
    pub async fn ask(
        &self,
        wish: &Wish,
        by: &Caller,
        (config, policy): (&Config, &Policy),
    ) -> Result<Declassification, Stop> {
        let rules = Rules { config, policy, operation: AdminOperation::Declassify };
        let carrier = self.looked_at(wish.kind, &wish.name).await?;
        let missing = wish.labels.beyond(carrier.seen);
        if missing.is_any() || !wish.labels.is_any() {
            let hint = format!("{} carries {}, and not {missing}", carrier.name, carrier.seen);
            return Err(Refusal::new(Reason::ParametersInvalid).hint(hint).into());
        }
        let now_us = self.shelf.clock_us().await?;
        let by = self.decision(&carrier, by, rules, now_us).await?;
        let waits_us = i64::try_from(limit::DECLASSIFICATION_WAITS_MAX.as_micros()).unwrap_or(i64::MAX);
        let asked = Declassification {
            id: random()?,
            kind: carrier.kind,
            labels: wish.labels.bits(),
            before: carrier.seen.bits(),
            stood: stood(&carrier),
            name: carrier.name,
            reason: wish.reason.clone(),
            by,
            until_us: now_us.saturating_add(waits_us),
        };
        let body = serde_json::to_string(&asked).unwrap_or_default();
        let put = Action::Put { owner: String::new(), body, expires_at_us: Some(asked.until_us) };
        match self.shelf.change(vec![Change::new(ASKED, &*asked.id, Expect::Absent, put)], Tell::Nobody).await? {
            Changed::Done { .. } => Ok(asked),
            Changed::Full(_) => {
                let hint = "so many wait for a second person: confirm or withdraw some of them first";
                Err(Refusal::new(Reason::ApprovalsLimited).hint(hint).into())
            }
            Changed::Conflict(_) => Err(Refusal::new(Reason::ApprovalChanged).into()),
        }
    }

    /// Takes off what was asked for: somebody else does it.
    ///
    /// # Errors
    /// `target_unknown`, `approver_refused`, `administrator_required`, `insufficient_user_authentication`,
    /// `approval_void` where whoever asked could not ask any more, `approval_changed` where the carrier has seen more
    /// since, `store_unavailable`.
    pub async fn confirm(
        &self,
        id: &str,
        by: &Caller,
        (config, policy): (&Config, &Policy),
        revocations: &Revocations,
    ) -> Result<Declassified, Stop> {
        let rules = Rules { config, policy, operation: AdminOperation::Declassify };
        let (asked, version) = self.asked(id).await?;
        let carrier = self.looked_at(asked.kind, &asked.name).await?;
        if stood(&carrier) != asked.stood {
            let hint = "it carries other labels than when this was asked for: look at it, and ask again";
            return Err(Refusal::new(Reason::ApprovalChanged).hint(hint).into());
        }
        let now_us = self.shelf.clock_us().await?;
        let second = self.decision(&carrier, by, rules, now_us).await?;
        if second.user == asked.by.user || folded(&second.person) == folded(&asked.by.person) {
            let hint = "you have asked for this: somebody else has to confirm it";
            return Err(Refusal::new(Reason::ApproverRefused).hint(hint).into());
        }
        let first = self.stands(&carrier, &asked.by, rules).await;
        if first.is_err() || !is_trusted(&asked.by, revocations) {
            let hint = "whoever asked for this could not ask for it any more: ask again";
            return Err(Refusal::new(Reason::ApprovalVoid).hint(hint).into());
        }
        let after = carrier.seen.beyond(asked.labels());
        let mut changes = vec![Change::new(ASKED, id, Expect::Version(version), Action::Remove)];
        changes.extend(without(&carrier, after));
        match self.shelf.change(changes, Tell::Everybody).await? {
            Changed::Done { epoch, .. } => Ok(Declassified { before: carrier.seen, after, asked, epoch }),
            Changed::Conflict(_) => {
                let hint = "somebody else has just decided this, or its carrier has seen more: look again";
                Err(Refusal::new(Reason::ApprovalChanged).hint(hint).into())
            }
            Changed::Full(_) => Err(Failure::before(Reason::StoreUnavailable, "no more rows of labels fit").into()),
        }
    }

    /// Wants it no more.
    ///
    /// # Errors
    /// `target_unknown`, `approval_changed`, `store_unavailable`.
    pub async fn withdraw(&self, id: &str) -> Result<Declassification, Stop> {
        let (asked, version) = self.asked(id).await?;
        let gone = Change::new(ASKED, id, Expect::Version(version), Action::Remove);
        match self.shelf.change(vec![gone], Tell::Nobody).await? {
            Changed::Done { .. } => Ok(asked),
            Changed::Conflict(_) | Changed::Full(_) => Err(Refusal::new(Reason::ApprovalChanged).into()),
        }
    }

    async fn asked(&self, id: &str) -> Result<(Declassification, Version), Stop> {
        let unknown = || Refusal::new(Reason::TargetUnknown).hint("nobody asks for that, or it has expired");
        let row = self.shelf.row(ASKED, id).await?.ok_or_else(unknown)?;
        Ok((read(&row.body)?, row.version))
    }

    async fn looked_at(&self, kind: CarrierKind, name: &str) -> Result<Carrier, Stop> {
        let unknown =
            || Refusal::new(Reason::TargetUnknown).hint("it carries no label: it is not known, or has forgotten");
        Ok(self.carrier(kind, name).await?.ok_or_else(unknown)?)
    }

    /// What somebody decides about a carrier now, if they may.
    async fn decision(&self, carrier: &Carrier, by: &Caller, rules: Rules<'_>, at_us: i64) -> Result<Decision, Stop> {
        let persona = by.persona();
        let refused = |hint: &'static str| Refusal::new(Reason::ApproverRefused).hint(hint);
        let Some(user) = &persona.user else { return Err(Refusal::new(Reason::AdministratorRequired).into()) };
        let Some(person) = by.token().person.known() else {
            let hint = "your issuer does not say which person you are: its `person` claim has to be configured, and in \
                        your token";
            return Err(refused(hint).into());
        };
        let authenticated_at =
            persona.authenticated_at.ok_or_else(|| Refusal::new(Reason::InsufficientUserAuthentication))?;
        // No more of somebody's groups is kept than what rules look for.
        let groups = match &persona.groups {
            Groups::Known(groups) => groups.iter().filter(|group| rules.policy.speaks_of(group)),
            Groups::Unknown(_) => return Err(Refusal::new(Reason::GroupsUnavailable).into()),
        };
        let decision = Decision {
            user: user.to_string(),
            person: person.to_owned(),
            groups: groups.map(ToString::to_string).collect(),
            authenticated_at,
            acr: persona.acr.clone(),
            client_proof: persona.client_proof.as_str().to_owned(),
            token: Token::of(by),
            at_us,
        };
        self.stands(carrier, &decision, rules).await?;
        Ok(decision)
    }

    /// Whether somebody who decides has no part in what the carrier has seen, and could decide.
    async fn stands(&self, carrier: &Carrier, decision: &Decision, rules: Rules<'_>) -> Result<(), Stop> {
        let Some(mut parties) = self.parties(carrier).await?.filter(|parties| !parties.is_empty()) else {
            let hint =
                "nobody knows who has brought what it carries, and so who could take it off: it has to be forgotten";
            return Err(Refusal::new(Reason::ApproverRefused).hint(hint).into());
        };
        let party = parties.remove(0);
        let requester = Requester { party, principal: String::new(), token: None, openers: parties };
        Ok(stands_beside(decision, &requester, rules)?)
    }
}

/// The carrier's row with these labels alone, and where they came from.
fn without(carrier: &Carrier, after: Seen) -> Vec<Change> {
    let section = carrier.kind.section();
    let change = |expect: Expect, action: Action| Change::new(section, carrier.key.as_str(), expect, action);
    let mut changes = vec![change(Expect::Version(carrier.version), Action::Remove)];
    if after.is_any() {
        let body = Origin::left(&carrier.origins, after);
        let put = Action::Put { owner: String::new(), body, expires_at_us: carrier.until_us };
        changes.push(change(Expect::Absent, put));
        let raise = Action::Raise { bits: after.bits(), expires_at_us: carrier.until_us, note: None };
        changes.push(change(Expect::Anything, raise));
    }
    changes
}

/// What a carrier's row says: its labels, and where they came from. When it forgets is no part of it, which moves on while
/// nothing is seen that was not.
fn stood(carrier: &Carrier) -> Digest {
    Digest::of("bailiwick/declassify/v1", &[&carrier.seen.bits().to_be_bytes(), carrier.body.as_bytes()])
}

fn read(body: &str) -> Result<Declassification, Failure> {
    serde_json::from_str(body).map_err(|error| {
        Failure::before(Reason::StoreUnavailable, format!("what was asked to be declassified is unreadable: {error}"))
    })
}

/// 128 random bits.
fn random() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::before(Reason::Internal, "no random numbers"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
