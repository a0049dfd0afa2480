//! A call that needs an account which its caller has not linked: it asks for it, and goes on once it is there.
//!
//! Decides how the caller is asked: by a question of the gateway's own (elicitation in URL mode) where their client can
//! show one, else by the refusal itself. Refuses to know how an account is linked. Invariants: the link is told to the
//! caller alone and stands in no record; while a person is waited for nothing is reserved but one of the caller's calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::asked::Asked;
use super::retry::{self, About, Retry};
use super::{Halt, Request, Trail};
use crate::catalog::Target;
use crate::delegate::Grant;
use crate::delegate::vault::Owner;
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::limit;
use crate::link;
use crate::list;
use crate::outcome::{Origin, Outcome, Reason, Refusal, Resume, Stop};
use crate::wire::{Askable, InputKind, Json, Value};

/// The name of our question among those of servers.
const KEY: &str = "bailiwick-link";

/// What a call brings along that may need an account.
pub(super) struct Seeking<'a> {
    pub target: &'a Target,
    pub arguments: Option<&'a Json>,
    pub retry: Option<&'a Retry>,
    pub answers: Option<&'a Json>,
    /// What the client can be asked.
    pub declared: Askable,
    /// An account that has too few scopes does not do.
    pub for_more: bool,
}

/// Sees to it that the caller has the account that the call is made with, where it is made with one.
pub(super) async fn sought(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    trail: &Trail,
    seeking: &Seeking<'_>,
) -> Result<(), Halt> {
    let target = seeking.target;
    let delegate = gateway.delegate();
    if !delegate.is_with_account(target.server(), Some(target.name())) {
        return Ok(());
    }
    let missing = match delegate.has_account(caller, target.server(), Some(target.name())).await {
        Ok(()) if !is_short(gateway, caller, seeking) => return Ok(()),
        Ok(()) => Refusal::new(Reason::AccountLinkRequired).into(),
        Err(stop) if stop.reason() == Reason::AccountLinkRequired => stop,
        Err(stop) => return Err(stop.into()),
    };
    let Some(owner) = Owner::of(caller) else { return Err(missing.into()) };
    let own = seeking.retry.filter(|retry| retry.is_own());
    let agreed = own.is_some() && seeking.answers.is_some_and(is_agreed);
    if agreed && Box::pin(waited(gateway, caller, seeking)).await? {
        return Ok(());
    }
    let Some(address) = link::address(gateway, caller, target.server()) else { return Err(missing.into()) };
    let mut message = format!("to go on, link your account at `{}`", target.server_id());
    if gateway.was_opened_by_another(&owner, target.server_id()).await {
        message.push_str("; somebody else opened your last link, and nothing was stored for them");
    }
    // Whoever was asked once and did not agree, or did not come to the end of it, is told and not asked again.
    let asks = own.is_none() && seeking.declared.has(InputKind::Url);
    let asked = asks.then(|| question(gateway, caller, trail, seeking, &message, &address)).flatten();
    Err(Halt::asking(missing, asked.unwrap_or_else(|| told(&message, &address))))
}

/// What is told instead of a call's end that an account has brought about: its server does not take it any more, or wants
/// it linked for more. The record has that end, and no link.
pub(super) fn instead(gateway: &Gateway, grant: &Grant, outcome: &Outcome) -> Option<Outcome> {
    let Outcome::Failed(failure) = outcome else { return None };
    if failure.reason != Reason::AccountLinkRequired {
        return None;
    }
    let address = link::address(gateway, grant.caller(), grant.target().server())?;
    let message = format!("{}; to go on, link your account at `{}`", failure.detail, grant.target().server_id());
    Some(told(&message, &address))
}

fn told(message: &str, address: &str) -> Outcome {
    let minutes = limit::LINK_AGE_MAX.as_secs() / 60;
    let hint = format!("{message}: open {address} in a browser within {minutes} minutes, and then call again");
    Outcome::from(Refusal::new(Reason::AccountLinkRequired).hint(hint))
}

/// Whether the caller's account has too few scopes for what the server wanted a moment ago, where that matters.
fn is_short(gateway: &Gateway, caller: &Caller, seeking: &Seeking<'_>) -> bool {
    let wider = || gateway.delegate().vault()?.wider(&Owner::of(caller)?, seeking.target.server());
    seeking.for_more && wider().is_some()
}

/// The end of a call of the tool that links an account, which is the gateway's own.
pub(super) async fn tool(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    trail: &Trail,
    (asked, retry): (&Asked<'_>, Option<&Retry>),
) -> Halt {
    let ended = async {
        let Some(target) = &trail.target else { return Err(Refusal::new(Reason::TargetUnknown).into()) };
        let arguments = asked.arguments.map(|arguments| request.message.cut(arguments));
        let now = gateway.snapshot();
        if !list::may_link(&now, &now.policy.class_of(caller), target.server_id()) {
            gateway.authorize(caller, target.clone(), arguments.as_ref()).map_err(Halt::denied)?;
        }
        let answers = match retry {
            Some(retry) => {
                retry.check(&trail.leg.method, target, arguments.as_ref())?;
                Some(retry.answers(asked.params())?)
            }
            None => None,
        };
        let declared = Askable::declared(&request.client.capabilities);
        let (arguments, answers) = (arguments.as_ref(), answers.as_ref());
        sought(gateway, caller, trail, &Seeking { target, arguments, retry, answers, declared, for_more: true }).await
    };
    let recorded = || Refusal::new(Reason::AccountLinkRequired).hint("the account is linked: nothing to ask for");
    match ended.await {
        Err(halt) => halt,
        Ok(()) => Halt::asking(recorded().into(), Outcome::Complete(link::tool::done())),
    }
}

/// Waits for the person who has the page open; whether the account is there.
async fn waited(gateway: &Arc<Gateway>, caller: &Caller, seeking: &Seeking<'_>) -> Result<bool, Stop> {
    let (target, began) = (seeking.target, Instant::now());
    // It is a call of theirs for as long as it waits, however many they make.
    let _slot = gateway.quotas().call(caller.principal())?;
    while is_waited_for(began.elapsed()) {
        tokio::time::sleep(limit::LINK_LOOK_INTERVAL).await;
        gateway.still_trusted(caller)?;
        match gateway.delegate().has_account(caller, target.server(), Some(target.name())).await {
            Ok(()) if !is_short(gateway, caller, seeking) => return Ok(true),
            Ok(()) => {}
            Err(stop) if stop.reason() == Reason::AccountLinkRequired => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(false)
}

/// Whether a person who has had a page open for so long is waited for.
fn is_waited_for(since: Duration) -> bool {
    since < limit::LINK_WAIT_MAX
}

/// Our question, in the shape that servers ask in.
fn question(
    gateway: &Gateway,
    caller: &Caller,
    trail: &Trail,
    seeking: &Seeking<'_>,
    message: &str,
    address: &str,
) -> Option<Outcome> {
    let target = seeking.target;
    let within = limit::LINK_AGE_MAX;
    let about = About {
        call: trail.leg.call,
        method: &trail.leg.method,
        target,
        arguments: seeking.arguments,
        round: seeking.retry.map_or(0, Retry::round) + 1,
        home: None,
        mandate: trail.mandate.as_ref().map(|held| &held.mandate().id),
        used: None,
    };
    let holder = caller.holder_at(&gateway.config(), target.server());
    let state = retry::seal_own(gateway.sealer(), &holder, &about, KEY, within)?;
    let params = json!({ "mode": "url", "url": address, "message": format!("[bailiwick] {message}") });
    let result = Json::of(&json!({
        "resultType": "input_required",
        "inputRequests": { KEY: { "method": "elicitation/create", "params": params } },
        "requestState": state,
    }));
    Some(Outcome::InputRequired { origin: Origin::Gateway, result, resume: Resume { parked: None, within } })
}

fn is_agreed(answers: &Json) -> bool {
    let answer = answers.value().as_object().and_then(|answers| answers.get(KEY)).and_then(Value::as_object);
    answer.and_then(|answer| answer.get("action")).and_then(Value::as_str).as_deref() == Some("accept")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn a_person_is_waited_for_so_long_and_no_longer() {
        assert!(is_waited_for(limit::LINK_WAIT_MAX - Duration::from_millis(1)) && !is_waited_for(limit::LINK_WAIT_MAX));
        assert!(limit::LINK_WAIT_MAX < limit::LINK_AGE_MAX, "the link outlives the call");
    }

    #[test]
    fn only_whoever_agrees_is_waited_for() {
        let agreed = |text: &str| is_agreed(&Json::parse(text, Source::Client).unwrap());
        assert!(agreed(r#"{"bailiwick-link":{"action":"accept"}}"#));
        for other in [
            "{}",
            r#"{"bailiwick-link":{"action":"decline"}}"#,
            r#"{"bailiwick-link":{"action":"cancel"}}"#,
            r#"{"bailiwick-link":{}}"#,
            r#"{"other":{"action":"accept"}}"#,
        ] {
            assert!(!agreed(other), "{other}");
        }
    }
}
