//! A call that meets gates: what the stage needs to know of it, and how its client is told that it waits.
//!
//! Decides which way of telling is the best that this client has. Refuses to know who may approve. Invariants: a client
//! is asked only what it declared that it can be asked; one that can be asked nothing is refused, and never waved
//! through; what is asked is made of the call itself, and no server has written any of it.

use std::sync::Arc;

use super::asked::Asked;
use super::bound;
use super::retry::{self, About, Retry};
use super::{Request, Trail, waiting};
use crate::catalog::Target;
use crate::config::Config;
use crate::delegate::Leg;
use crate::gateway::Gateway;
use crate::guard::{Gated, Said, approval};
use crate::identity::Caller;
use crate::ids::CallId;
use crate::limit;
use crate::outcome::{Origin, Outcome, Pending, PendingKind, Resume, Stop};
use crate::policy::Permit;
use crate::wire::{Askable, InputKind, Json, Value};

/// The question whether whoever calls means it.
const CONFIRM: &str = "confirm";
/// The question to look at a page.
const PAGE: &str = "approval";

/// The configuration that a call's gates are held against, where it meets any.
pub fn config(gateway: &Gateway, permit: &Permit) -> Option<Arc<Config>> {
    (!permit.gates().is_empty() || gateway.snapshot().policy.has_asking_flows()).then(|| gateway.config())
}

/// What the stage needs of a call that meets gates.
pub fn gated<'a>(
    config: Option<&'a Arc<Config>>,
    leg: &Leg,
    arguments: Option<&'a Json>,
    retry: Option<&'a Retry>,
    answers: Option<&Json>,
) -> Option<Gated<'a>> {
    let answers = answers.map_or(Said::Nothing, said);
    let own = retry.and_then(Retry::approval);
    Some(Gated {
        config: config?,
        call: leg.call,
        leg: leg.leg,
        arguments,
        mandate: None,
        template: None,
        irreversible: true,
        round: retry.map_or(0, Retry::round),
        goes_on: retry.and_then(Retry::used),
        answers: own,
        said: if own.is_some() { answers } else { Said::Nothing },
        now_us: 0,
        unseen: false,
    })
}

/// Tells whoever wants to hear of it that something was done in an emergency, whichever gates it met.
pub async fn alarm(gateway: &Gateway, caller: &Caller, target: &Target, call: CallId) {
    if caller.elevation().is_some() {
        let place = approval::Place::of(target);
        gateway.guard().approvals().alarm(caller, &place, &gateway.config(), call).await;
    }
}

/// What the client is asked in the place of a call that waits; nothing where it can be asked nothing of the kind.
pub async fn asked(
    gateway: &Gateway,
    caller: &Caller,
    request: &Request,
    trail: &Trail,
    stop: &Stop,
) -> Option<Outcome> {
    let Stop::Refused(refusal) = stop else { return None };
    let (pending, target) = (refusal.pending.as_deref()?, trail.target.as_ref()?);
    if pending.kind == PendingKind::Approve
        && let Some(task) = waiting::created(gateway, caller, request, trail, pending).await
    {
        return Some(task);
    }
    let asked = Asked::read(request).ok()?;
    let retry = Retry::read(asked.params(), gateway.sealer(), caller.principal()).ok().flatten();
    let round = retry.as_ref().map_or(0, Retry::round);
    let declared = Askable::declared(&request.client.capabilities);
    // Whoever was sent to the page once has seen it: what is told now is that it still waits.
    let was_sent = retry.as_ref().is_some_and(|retry| retry.was_asked(PAGE));
    let (key, question) = match pending.kind {
        PendingKind::Confirm if declared.has(InputKind::Form) => {
            let arguments = asked.arguments.map(|arguments| request.message.cut(arguments));
            let shown = approval::shown(target, arguments.as_ref()).ok()?;
            (CONFIRM, form(target.server_id().as_str(), target.name(), target.environment().as_str(), &shown))
        }
        PendingKind::Approve if declared.has(InputKind::Url) && !was_sent => (PAGE, page(pending)?),
        PendingKind::Confirm | PendingKind::Approve => return None,
    };
    if round >= limit::INPUT_ROUNDS_MAX {
        return None;
    }
    let arguments = asked.arguments.map(|arguments| request.message.cut(arguments));
    let within = target.server().health.input_timeout;
    let about = About {
        call: trail.leg.call,
        method: &trail.leg.method,
        target,
        arguments: arguments.as_ref(),
        round: round + 1,
        home: bound::here(gateway, target.server(), false),
        mandate: trail.mandate.as_ref().map(|held| &held.mandate().id),
        used: None,
    };
    let holder = caller.holder_at(&gateway.config(), target.server());
    let state = retry::seal_approval(gateway.sealer(), &holder, &about, key, &pending.approval, within)?;
    let result = serde_json::json!({
        "resultType": "input_required",
        "inputRequests": { key: { "method": "elicitation/create", "params": question } },
        "requestState": state,
    });
    Some(Outcome::InputRequired {
        origin: Origin::Gateway,
        result: Json::of(&result),
        resume: Resume { parked: None, within },
    })
}

fn form(server: &str, name: &str, environment: &str, shown: &str) -> serde_json::Value {
    let message = format!(
        "[bailiwick] Confirm this call: {} at {server}, in {environment}, with {}",
        approval::escaped(name),
        approval::escaped(shown)
    );
    serde_json::json!({
        "mode": "form",
        "message": message,
        "requestedSchema": {
            "type": "object",
            "properties": {
                CONFIRM: { "type": "boolean", "title": "Yes, make exactly this call", "default": false },
            },
            "required": [CONFIRM],
        },
    })
}

fn page(pending: &Pending) -> Option<serde_json::Value> {
    let url = pending.url.as_ref()?;
    let message = format!(
        "[bailiwick] Somebody else has to approve this call (request {}, until {}). The page says how it stands.",
        pending.approval, pending.expires_at
    );
    Some(serde_json::json!({ "mode": "url", "message": message, "url": url }))
}

/// What whoever called said: a form that was closed is a no.
fn said(answers: &Json) -> Said {
    let answer = answers.value().as_object().and_then(|answers| answers.get(CONFIRM)).and_then(Value::as_object);
    let Some(answer) = answer else { return Said::Nothing };
    let accepted = answer.get("action").and_then(Value::as_str).as_deref() == Some("accept");
    let content = answer.get("content").and_then(Value::as_object);
    let yes = content.and_then(|content| content.get(CONFIRM)).and_then(Value::as_bool) == Some(true);
    if accepted && yes { Said::Yes } else { Said::No }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn only_a_form_that_was_accepted_with_yes_is_a_yes() {
        let of = |text: &str| said(&Json::parse(text, Source::Client).unwrap());
        assert_eq!(of(r#"{"confirm":{"action":"accept","content":{"confirm":true}}}"#), Said::Yes);
        for no in [
            r#"{"confirm":{"action":"accept"}}"#,
            r#"{"confirm":{"action":"accept","content":{"confirm":false}}}"#,
            r#"{"confirm":{"action":"accept","content":{"confirm":"true"}}}"#,
            r#"{"confirm":{"action":"decline","content":{"confirm":true}}}"#,
            r#"{"confirm":{"action":"cancel"}}"#,
            r#"{"confirm":{}}"#,
        ] {
            assert_eq!(of(no), Said::No, "{no}");
        }
        assert_eq!(of(r#"{"approval":{"action":"accept","content":{"confirm":true}}}"#), Said::Nothing);
        assert_eq!(of("{}"), Said::Nothing);
    }

    #[test]
    fn a_form_shows_what_cannot_be_seen() {
        let form = form("git", "push\u{202e}", "production", r#"{"to":"main\u200b"}"#);
        let message = form["message"].as_str().unwrap();
        assert!(message.contains("push<U+202E>") && message.contains("production"), "{message}");
    }
}
