//! A token from standard input: whether it would be accepted, and what to change where it would not.
//!
//! The decision is `identity`'s, taken as `serve` takes it. Invariant: the token is never printed, in whole or in
//! part; what is shown of it are its claims that name issuer, audience, client and times.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::finding::Finding;
use super::running::Running;
use crate::cli::check::counted;
use crate::config::{API_KEY_PREFIX, Config};
use crate::gateway::understand::Understood;
use crate::identity::revoked::{Held, Revocation, RevocationMode};
use crate::identity::survey::TokenSays;
use crate::identity::{Caller, Groups, Identity, Presented, Resource, Revocations};
use crate::ids::ServerId;
use crate::outcome::{Reason, Stop};

impl Examined {
    /// The same, where a gateway that runs does not let whoever that is use their agents.
    pub fn held_against(mut self, running: Option<&Running>) -> Self {
        let asked = self.caller.as_ref().zip(running);
        if let Some(Err(refusal)) = asked.map(|(caller, running)| running.lets(caller.persona())) {
            let found = format!("{}: {}", refusal.reason, refusal.hint);
            let fix = "bailiwick agents list says why; bailiwick agents resume AGENT --for USER gives it back";
            self.findings.push(Finding::bad("agent", found, fix));
            self.caller = None;
        }
        self
    }
}

/// What a gateway that runs has taken back and stopped, for the same decision.
pub fn revocations(running: Option<&Running>) -> Arc<Revocations> {
    let revocations = Arc::new(Revocations::default());
    if let Some(held) = running.and_then(|running| running.revocations.as_ref().ok()) {
        let known = held.revocations.iter().filter_map(|held| {
            let words =
                crate::identity::described::Described { kind: &held.target, issuer: &held.issuer, value: &held.value };
            let mode = match held.issued_before {
                Some(issued_before) => RevocationMode::SignOut { issued_before },
                None => RevocationMode::Block,
            };
            let (actor, note) = (held.actor.clone(), held.note.clone());
            let revocation = Revocation { target: words.try_into().ok()?, mode, actor, note, at: held.at };
            Some(Held { since: held.since, revocation })
        });
        let stopped = running.map(Running::stopped).unwrap_or_default();
        revocations.replace_with(held.epoch, known.collect(), stopped);
    }
    revocations
}

/// What was decided about the token.
#[derive(Clone)]
pub struct Examined {
    /// What is said of it.
    pub findings: Vec<Finding>,
    /// Whose it is, where it is accepted.
    pub caller: Option<Caller>,
}

/// Decides as the gateway would.
pub async fn examine(understood: &Understood, identity: &Identity, token: &SecretString) -> Examined {
    let config = understood.config();
    let says = match TokenSays::read(token.expose_secret()) {
        Ok(says) => says,
        Err(problem) if token.expose_secret().starts_with(API_KEY_PREFIX) || takes_opaque(config) => {
            return without_words(understood, identity, token, &problem).await;
        }
        Err(problem) => {
            let fix = "have the issuer mint JWT access tokens (RFC 9068), or write [issuers.ALIAS.introspection] to ask it \
                       about opaque ones (RFC 7662). A client that sends its ID token or its refresh token has to send its \
                       access token";
            return Examined { findings: vec![Finding::bad("token", problem, fix)], caller: None };
        }
    };
    let mut findings = vec![shown(&says)];
    let presented = Presented::Bearer(token.expose_secret());
    let mut decided = (Resource::Gateway, identity.authenticate(presented, &Resource::Gateway).await);
    let of_one = one_server(config, &says).filter(|_| is_mismatch(&decided.1));
    if let Some(server) = of_one {
        let resource = Resource::Server(server);
        let again = identity.authenticate(presented, &resource).await;
        decided = (resource, again);
    }
    match decided {
        (resource, Ok(caller)) => {
            findings.extend(accepted(understood, &resource, &caller, &says));
            Examined { findings, caller: Some(caller) }
        }
        (_, Err(stop)) => {
            findings.push(refused(config, &stop, &says));
            Examined { findings, caller: None }
        }
    }
}

fn takes_opaque(config: &Config) -> bool {
    config.issuers.iter().any(|issuer| issuer.introspection.is_some())
}

/// The same for what says nothing itself: an API key, or a token that its issuer is asked about.
async fn without_words(understood: &Understood, identity: &Identity, token: &SecretString, problem: &str) -> Examined {
    let presented = Presented::Bearer(token.expose_secret());
    let says = TokenSays::default();
    match identity.authenticate(presented, &Resource::Gateway).await {
        Ok(caller) => {
            let by = match caller.token().is_key() {
                true => format!("it is the API key `{}`", caller.token().id.as_deref().unwrap_or_default()),
                false => format!("it is opaque, and issuer `{}` says whose it is", caller.token().issuer),
            };
            let mut findings = vec![Finding::ok("says", by)];
            findings.extend(accepted(understood, &Resource::Gateway, &caller, &says));
            Examined { findings, caller: Some(caller) }
        }
        Err(stop) => {
            let mut findings = vec![Finding::ok("says", format!("nothing itself ({problem})"))];
            findings.push(refused(understood.config(), &stop, &says));
            Examined { findings, caller: None }
        }
    }
}

fn is_mismatch(decided: &Result<Caller, Stop>) -> bool {
    decided.as_ref().is_err_and(|stop| stop.reason() == Reason::AudienceMismatch)
}

/// The server that the token is for, where it is for one alone.
fn one_server(config: &Config, says: &TokenSays) -> Option<ServerId> {
    let base = format!("{}/", config.gateway.resource(None));
    let named = says.audiences.iter().find_map(|audience| audience.strip_prefix(&base));
    named.and_then(|id| ServerId::new(id).ok()).filter(|id| config.server(id).is_some())
}

fn shown(says: &TokenSays) -> Finding {
    let now = crate::identity::now_s();
    let life = says.expires_at.map_or_else(
        || "without an end".to_owned(),
        |at| match at - now {
            left if left >= 0 => format!("ends in {left} s"),
            past => format!("ended {} s ago", past.unsigned_abs()),
        },
    );
    let none = "(none)".to_owned();
    Finding::ok(
        "says",
        format!(
            "alg {}, typ {}, iss {}, aud {}, client {}, {life}",
            says.algorithm,
            says.kind.as_ref().unwrap_or(&none),
            says.issuer.as_ref().unwrap_or(&none),
            if says.audiences.is_empty() { none.clone() } else { says.audiences.join(", ") },
            says.client.as_ref().unwrap_or(&none)
        ),
    )
}

fn accepted(understood: &Understood, resource: &Resource, caller: &Caller, says: &TokenSays) -> Vec<Finding> {
    let config = understood.config();
    let persona = caller.persona();
    let who = persona.user.as_ref().map_or("nobody", crate::ids::Subject::as_str);
    let agent = persona.agent.as_ref().map_or("(none)", |agent| agent.id.as_str());
    let place = match resource {
        Resource::Server(server) => config.gateway.resource(Some(server)),
        _ => config.gateway.resource(None),
    };
    let groups = match &persona.groups {
        Groups::Known(groups) => counted(groups.len(), "group"),
        Groups::Unknown(_) => "groups unknown".to_owned(),
    };
    let mut findings = vec![Finding::ok("token", format!("accepted at {place}: {who} with agent {agent}, {groups}"))];
    if let Some(refusal) = understood.policy.class(persona).blocked() {
        let (found, fix) = match &persona.groups {
            Groups::Unknown(why) => (format!("{}: {why}", refusal.reason), groups_fix(config, caller, says)),
            Groups::Known(_) => (refusal.reason.to_string(), refusal.hint.to_string()),
        };
        findings.push(Finding::bad("rules", format!("every call is refused: {found}"), fix));
    }
    // An audience that many gateways share lets any of them use the token at the others.
    let own = config.gateway.resource(None);
    let further = says.audiences.iter().filter(|audience| !audience.starts_with(&own)).count();
    if further > 0 && says.audiences.len() > 1 {
        findings.push(Finding::warn(
            "audience",
            format!("it is also for {further} others, who could use it here"),
            format!("have the issuer mint it for {own} alone (RFC 8707)"),
        ));
    }
    findings
}

/// What to change where groups are missing from a token.
fn groups_fix(config: &Config, caller: &Caller, says: &TokenSays) -> String {
    let alias = &caller.token().issuer;
    let issuer = config.issuers.iter().find(|issuer| issuer.alias == *alias);
    let claim = issuer.and_then(|issuer| issuer.claims.groups.as_deref()).unwrap_or("groups");
    let others: Vec<&str> = says.lists.iter().map(String::as_str).filter(|name| *name != claim).collect();
    if others.is_empty() {
        format!(
            "have `{alias}` put all groups into `{claim}` of access tokens as a list of texts; where there are too many, \
             let it put in only those that are assigned to this application"
        )
    } else {
        format!(
            "have `{alias}` put all groups into `{claim}`; or, if one of these has them: groups = \"{}\" below \
             [issuers.{alias}.claims]",
            others.join("\" or \"")
        )
    }
}

fn refused(config: &Config, stop: &Stop, says: &TokenSays) -> Finding {
    let reason = stop.reason();
    let detail = match stop {
        Stop::Refused(refusal) => refusal.hint.to_string(),
        Stop::Failed(failure) => failure.detail.clone(),
    };
    let issuer = config.issuers.iter().find(|issuer| Some(&issuer.issuer) == says.issuer.as_ref());
    let table = issuer.map_or_else(|| "[issuers.ALIAS]".to_owned(), |issuer| format!("[issuers.{}]", issuer.alias));
    let resource = config.gateway.resource(None);
    let fix = match reason {
        Reason::IssuerUnknown => {
            let known: Vec<&str> = config.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
            format!(
                "the files believe {} (to the character); if this one is meant: [issuers.ALIAS] with issuer = \"{}\"",
                known.join(", "),
                says.issuer.as_deref().unwrap_or_default()
            )
        }
        Reason::AudienceMismatch => {
            let first = says.audiences.first().map_or("...", String::as_str);
            format!(
                "have the client ask for resource={resource} (RFC 8707); where the issuer cannot: audiences = \
                 [\"{first}\"] in {table}, if no other service has that audience"
            )
        }
        Reason::AlgorithmRefused => format!("add \"{}\" to algorithms in {table}, if it is asymmetric", says.algorithm),
        Reason::TokenTypeRefused => format!(
            "send the access token and not the ID token; where the issuer writes typ {} into access tokens: token_types \
             = [\"at+jwt\", \"{}\"] in {table}",
            says.kind.as_deref().unwrap_or("(none)"),
            says.kind.as_deref().unwrap_or_default()
        ),
        Reason::TokenExpired => "get a new one; if it is new, compare the clocks below".to_owned(),
        Reason::TokenNotYetValid => format!("compare the clocks below; leeway in {table} tolerates more"),
        Reason::TokenLifetimeExceeded => format!("shorten it at the issuer, or raise token_life_max in {table}"),
        Reason::ClaimMissing => format!("add the claim at the issuer, or list it under optional_claims in {table}"),
        Reason::SignatureInvalid => format!(
            "the token was changed, or the issuer signs with a key (kid {}) that its jwks_uri does not have",
            says.key.as_deref().unwrap_or("none")
        ),
        Reason::AgentUnknown => format!(
            "add the client `{}` to an agent in policies/agents.toml, or set interactive_default in {table}",
            says.client.as_deref().unwrap_or("(none)")
        ),
        Reason::AgentInactive => {
            "bailiwick agents list says whether it was stopped while the gateway runs; where the files say so: set state = \
             \"active\" and a later expires for it in policies/agents.toml"
                .to_owned()
        },
        Reason::TokenBound => "whoever holds its key sends a proof with each request (DPoP), which cannot be tried here: \
                               bailiwick explain SERVER/TOOL --token - says who that is and what they may do. One that is \
                               bound in another way than to a key (cnf.jkt) or a certificate (cnf.x5t#S256): have the \
                               issuer bind it so, or mint plain bearer tokens"
            .to_owned(),
        Reason::GroupsUnavailable => format!("have the issuer put all groups into the token, see claims in {table}"),
        Reason::Revoked => format!(
            "it was taken back: curl -s --unix-socket {} http://localhost/revocations",
            crate::control::socket(&config.gateway.state).display()
        ),
        Reason::TokenInactive => {
            "get a new one; if it is new, the issuer that was asked is not the one that minted it: see \
                                  prefix in [issuers.ALIAS.introspection]"
                .to_owned()
        }
        Reason::KeyUnknown => {
            "put its row into policies/agents.toml, or have one made: bailiwick keys api new".to_owned()
        }
        Reason::IssuerUnavailable => "see the issuer's group above".to_owned(),
        other => other.hint().to_owned(),
    };
    Finding::bad("token", format!("refused: {reason}: {detail}"), fix)
}
