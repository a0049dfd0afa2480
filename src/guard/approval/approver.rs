//! Who may approve: a person who has just logged in as an administrator, and has no part in the call.
//!
//! Decides that for somebody who is about to, and again for everybody who has when what they approved is used. Refuses to
//! know the store. Invariants: nobody approves their own call, however many accounts they have; where it cannot be told
//! whether two accounts are one person, they count as one.

use std::time::Duration;

use super::kept::{Decision, Kept, Requester, Token};
use crate::config::{Approvers, Config, GateConfig, GateKind, ServerConfig};
use crate::guard::Party;
use crate::identity::{Caller, Groups, Revocations};
use crate::ids::{IssuerAlias, Subject};
use crate::outcome::{Reason, Refusal};
use crate::policy::{AdminOperation, Policy};

/// What a decision is held against: the files and the rules of one moment, and what whoever decided did by them.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The files.
    pub config: &'a Config,
    /// The rules.
    pub policy: &'a Policy,
    /// What they did.
    pub operation: AdminOperation,
}

/// The decision of somebody who approves a request now, if they may. `now_s` in seconds, `at_us` in microseconds since
/// 1970.
///
/// # Errors
/// `administrator_required`, `insufficient_user_authentication`, `approver_refused`.
pub fn decision(
    approver: &Caller,
    kept: &Kept,
    gates: &[&GateConfig],
    rules: Rules<'_>,
    (now_s, at_us): (i64, i64),
) -> Result<Decision, Refusal> {
    let Rules { config, policy, .. } = rules;
    let refused = |hint: &'static str| Refusal::new(Reason::ApproverRefused).hint(hint);
    let persona = approver.persona();
    let alone = approver.token().for_administrators && persona.agent.is_none() && persona.chain.is_empty();
    let (Some(user), true) = (&persona.user, alone) else {
        return Err(Refusal::new(Reason::AdministratorRequired));
    };
    let Some(person) = approver.token().person.known() else {
        return Err(refused(
            "your issuer does not say which person you are: its `person` claim has to be configured, and in your token",
        ));
    };
    let server = super::kept::server(config, &kept.server);
    // No more of somebody's groups is kept than what a gate or a rule looks for.
    let looked_for = |group: &&Subject| {
        policy.speaks_of(group) || gates.iter().any(|gate| names(gate, server, |subject| subject == group.as_str()))
    };
    let groups = match &persona.groups {
        Groups::Known(groups) => groups.iter().filter(looked_for).map(ToString::to_string).collect(),
        Groups::Unknown(_) => return Err(Refusal::new(Reason::GroupsUnavailable)),
    };
    let Some(authenticated_at) = persona.authenticated_at else {
        return Err(Refusal::new(Reason::InsufficientUserAuthentication));
    };
    let decision = Decision {
        user: user.to_string(),
        person: person.to_owned(),
        groups,
        authenticated_at,
        acr: persona.acr.clone(),
        client_proof: persona.client_proof.as_str().to_owned(),
        token: Token::of(approver),
        at_us,
    };
    stands(&decision, kept, rules)?;
    let named: Vec<_> =
        gates.iter().filter(|gate| gate.kind == GateKind::Approve && is_named(&decision, gate, server)).collect();
    let age_s = now_s.saturating_sub(authenticated_at);
    let recent = |gate: &GateConfig| gate.auth_age_max.is_none_or(|most| age_s <= seconds(most));
    if named.is_empty() {
        return Err(refused("no gate of this call names you, or a group of yours, as an approver"));
    }
    if !named.iter().all(|gate| counts(&decision, gate, server) && recent(gate)) {
        return Err(Refusal::new(Reason::InsufficientUserAuthentication));
    }
    Ok(decision)
}

/// Whether a decision still counts under these files: its approver has no part in the call, and is still somebody who
/// could approve.
///
/// # Errors
/// `administrator_required`, `approver_refused`, `insufficient_user_authentication`.
pub fn stands(decision: &Decision, kept: &Kept, rules: Rules<'_>) -> Result<(), Refusal> {
    stands_beside(decision, &kept.requester, rules)
}

/// The same beside whoever has a part in what is decided.
///
/// # Errors
/// As [`stands`].
pub fn stands_beside(decision: &Decision, requester: &Requester, rules: Rules<'_>) -> Result<(), Refusal> {
    let Rules { config, policy, operation } = rules;
    let facts = decision.token.facts(true).ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
    let admin = config.admin.as_ref().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
    let issuer = config.issuers.iter().find(|issuer| issuer.alias == facts.issuer);
    if issuer.is_none_or(|issuer| issuer.claims.person.is_none()) {
        return Err(Refusal::new(Reason::ApproverRefused).hint("an issuer without a `person` claim cannot approve"));
    }
    if !admin.has_client(&facts.issuer, decision.token.client()) {
        return Err(Refusal::new(Reason::AdministratorRequired));
    }
    if !admin.acr.is_empty() && !decision.acr.as_ref().is_some_and(|acr| admin.acr.contains(acr)) {
        return Err(Refusal::new(Reason::InsufficientUserAuthentication));
    }
    if !policy.still_lets(&decision.decided(), operation) {
        let hint = "no rule lets whoever approved it do so any more";
        return Err(Refusal::new(Reason::ApproverRefused).hint(hint));
    }
    match part_in(decision, requester, config) {
        None => Ok(()),
        Some(part) => Err(Refusal::new(Reason::ApproverRefused).hint(part)),
    }
}

/// Whether nothing was taken back from whoever decided.
#[must_use]
pub fn is_trusted(decision: &Decision, revocations: &Revocations) -> bool {
    decision.token.facts(true).is_some_and(|facts| revocations.check(&facts).is_ok())
}

/// Whether a decision counts at a gate: it names whoever decided, who had logged in as it wants.
#[must_use]
pub fn counts(decision: &Decision, gate: &GateConfig, server: Option<&ServerConfig>) -> bool {
    let acr = gate.acr.is_empty() || decision.acr.as_ref().is_some_and(|acr| gate.acr.contains(acr));
    acr && is_named(decision, gate, server)
}

/// Whether a gate names whoever decided.
fn is_named(decision: &Decision, gate: &GateConfig, server: Option<&ServerConfig>) -> bool {
    names(gate, server, |subject| decision.user == subject || decision.groups.iter().any(|group| group == subject))
}

/// Whether one of the subjects that a gate names is meant.
fn names(gate: &GateConfig, server: Option<&ServerConfig>, is: impl Fn(&str) -> bool) -> bool {
    gate.approvers.iter().any(|approvers| match approvers {
        Approvers::Owner => server.is_some_and(|server| is(&server.owner)),
        Approvers::Subject(subject) => is(subject),
    })
}

/// One spelling of what a `person` claim says: two that differ in case alone are one person.
#[must_use]
pub fn folded(person: &str) -> String {
    person.trim().to_lowercase()
}

/// Which part the approver has in the call, if any.
fn part_in(decision: &Decision, requester: &Requester, config: &Config) -> Option<&'static str> {
    let person = folded(&decision.person);
    match is_party(&requester.party, decision, &person) {
        Same::Yes => return Some("this is your own call: somebody else has to approve it"),
        Same::Unknown => {
            return Some(
                "nobody can tell whether this is your own call: the caller's token does not say which person it is",
            );
        }
        Same::No => {}
    }
    let opened = |opener: &Party| !matches!(is_party(opener, decision, &person), Same::No);
    if requester.openers.iter().any(opened) {
        return Some("whoever opened the mandate of this call cannot approve it");
    }
    let mut parties = std::iter::once(&requester.party).chain(&requester.openers);
    parties.find_map(|party| answers_for(party, decision, &person, config))
}

/// Whether the approver answers for the software that a party acts with.
fn answers_for(party: &Party, decision: &Decision, person: &str, config: &Config) -> Option<&'static str> {
    let mut owners = Vec::new();
    for id in &party.agents {
        let Some((_, agent)) = config.agents.iter().find(|(known, _)| known.as_str() == id) else {
            return Some("an agent of this call is not registered any more");
        };
        owners.push((agent.owner.as_str(), agent.owner_person.as_deref()));
    }
    if let Some(name) = &party.key {
        let keys = config.agents.values().flat_map(|agent| &agent.keys);
        let Some(key) = keys.into_iter().find(|key| key.id == *name) else {
            return Some("the API key of this call is not registered any more");
        };
        owners.push((key.owner.as_str(), key.owner_person.as_deref()));
    }
    owners.into_iter().find_map(|owner| match is_account_of(owner, &decision.user, person, config) {
        Same::No => None,
        Same::Yes => Some("you answer for an agent or a key of this call: somebody else has to approve it"),
        Same::Unknown => Some(
            "nobody can tell whether you answer for an agent or a key of this call: \
             write `owner_person` beside its `owner` in policies/agents.toml",
        ),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    Unknown,
}

/// Whether whoever has a part in the call is the approver.
fn is_party(party: &Party, decision: &Decision, person: &str) -> Same {
    match &party.person {
        _ if party.user == decision.user => Same::Yes,
        Some(known) if folded(known) == person => Same::Yes,
        // Of an account whose human nobody names, nobody knows whose it is.
        None if party.human => Same::Unknown,
        _ => Same::No,
    }
}

/// Whether an account that a file names, and the person whose it is said to be, is the approver's.
fn is_account_of((subject, said): (&str, Option<&str>), user: &str, person: &str, config: &Config) -> Same {
    if subject == user {
        return Same::Yes;
    }
    if let Some(said) = said {
        return if folded(said) == person { Same::Yes } else { Same::No };
    }
    let named = subject.strip_prefix("user:").and_then(|rest| rest.split_once('/'));
    let Some((alias, name)) = named else { return Same::Unknown };
    let Ok(alias) = IssuerAlias::new(alias) else { return Same::Unknown };
    // A file may spell an owner by what the claim says.
    if folded(name) == person || folded(subject) == folded(Subject::user(&alias, person).as_str()) {
        return Same::Yes;
    }
    let issuer = config.issuers.iter().find(|known| known.alias == alias);
    // Where the claim is the subject itself, the account says which person it is.
    if issuer.and_then(|issuer| issuer.claims.person.as_deref()) == Some("sub") { Same::No } else { Same::Unknown }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
