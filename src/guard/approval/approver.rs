//! Who may approve: a person who has just logged in as an administrator, and has no part in the call.
//!
//! Decides that for somebody who is about to, and again for everybody who has when what they approved is used. Refuses to
//! know the store. Invariants: nobody approves their own call, however many accounts they have; where it cannot be told
//! whether two accounts are one person, they count as one.

use std::time::Duration;

use super::kept::{Decision, Kept, Requester, Token};
use crate::config::{Approvers, Config, GateConfig, GateKind, ServerConfig};
use crate::identity::{Caller, Groups, Revocations};
use crate::ids::{IssuerAlias, Subject};
use crate::outcome::{Reason, Refusal};

/// The decision of somebody who approves a request now, if they may. `now_s` in seconds, `at_us` in microseconds since
/// 1970.
///
/// # Errors
/// `administrator_required`, `insufficient_user_authentication`, `approver_refused`.
pub fn decision(
    approver: &Caller,
    kept: &Kept,
    gates: &[&GateConfig],
    config: &Config,
    (now_s, at_us): (i64, i64),
) -> Result<Decision, Refusal> {
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
    let groups = match &persona.groups {
        Groups::Known(groups) => groups.iter().map(ToString::to_string).collect(),
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
        token: Token::of(approver),
        at_us,
    };
    stands(&decision, kept, config)?;
    let server = super::kept::server(config, &kept.server);
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

/// Whether a decision still counts under this configuration: its approver has no part in the call, and is still somebody
/// who could approve.
///
/// # Errors
/// `administrator_required`, `approver_refused`, `insufficient_user_authentication`.
pub fn stands(decision: &Decision, kept: &Kept, config: &Config) -> Result<(), Refusal> {
    let facts = decision.token.facts().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
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
    match part_in(decision, &facts.issuer, &kept.requester, config) {
        None => Ok(()),
        Some(part) => Err(Refusal::new(Reason::ApproverRefused).hint(part)),
    }
}

/// Whether nothing was taken back from whoever decided.
#[must_use]
pub fn is_trusted(decision: &Decision, revocations: &Revocations) -> bool {
    decision.token.facts().is_some_and(|facts| revocations.check(&facts).is_ok())
}

/// Whether a decision counts at a gate: it names whoever decided, who had logged in as it wants.
#[must_use]
pub fn counts(decision: &Decision, gate: &GateConfig, server: Option<&ServerConfig>) -> bool {
    let acr = gate.acr.is_empty() || decision.acr.as_ref().is_some_and(|acr| gate.acr.contains(acr));
    acr && is_named(decision, gate, server)
}

/// Whether a gate names whoever decided.
#[must_use]
fn is_named(decision: &Decision, gate: &GateConfig, server: Option<&ServerConfig>) -> bool {
    let is = |subject: &str| decision.user == subject || decision.groups.iter().any(|group| group == subject);
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
fn part_in(decision: &Decision, issuer: &IssuerAlias, requester: &Requester, config: &Config) -> Option<&'static str> {
    let person = folded(&decision.person);
    let own = "this is your own call: somebody else has to approve it";
    if decision.user == requester.user || requester.person.as_deref().map(folded).as_ref() == Some(&person) {
        return Some(own);
    }
    // Of an account elsewhere nobody knows whose it is.
    if requester.human && requester.person.is_none() && requester.issuer != issuer.as_str() {
        return Some(
            "nobody can tell whether this is your own call: the caller's issuer does not say which person it is",
        );
    }
    let answers = |subject: &str| is_account_of(subject, &decision.user, &person, issuer, config);
    for id in &requester.agents {
        let agent = config.agents.iter().find(|(known, _)| known.as_str() == id).map(|(_, agent)| agent);
        match agent.map(|agent| answers(&agent.owner)) {
            Some(Same::No) => {}
            Some(Same::Yes) => return Some("you answer for an agent of this call: somebody else has to approve it"),
            Some(Same::Unknown) => {
                return Some(
                    "nobody can tell whether you answer for an agent of this call: its owner is known to another issuer",
                );
            }
            None => return Some("an agent of this call is not registered any more"),
        }
    }
    match requester.opener.as_deref().map(answers) {
        None | Some(Same::No) => None,
        Some(Same::Yes | Same::Unknown) => Some("whoever opened the mandate of this call cannot approve it"),
    }
}

enum Same {
    Yes,
    No,
    Unknown,
}

/// Whether an account that a file names is the approver's.
fn is_account_of(subject: &str, user: &str, person: &str, issuer: &IssuerAlias, config: &Config) -> Same {
    if subject == user {
        return Same::Yes;
    }
    let of = |alias: &IssuerAlias| config.issuers.iter().find(|known| known.alias == *alias);
    let named = subject.strip_prefix("user:").and_then(|rest| rest.split_once('/'));
    let Some((alias, name)) = named else { return Same::Unknown };
    let Ok(alias) = IssuerAlias::new(alias) else { return Same::Unknown };
    // Where the claim is the subject itself, a file says which person it is.
    let is_subject = of(&alias).and_then(|issuer| issuer.claims.person.as_deref()) == Some("sub");
    let spelled = Subject::user(&alias, person);
    match (is_subject, alias == *issuer) {
        (true, _) if folded(subject) == folded(spelled.as_str()) || folded(name) == person => Same::Yes,
        (true, _) | (false, true) => Same::No,
        (false, false) => Same::Unknown,
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
