//! What a call tells of itself while it is followed: where it comes from, what goes on with it, how it ended.
//!
//! Decides which `traceparent` counts: the one in `_meta`, or else the header's. Invariant: without telemetry a request is
//! passed on as it came.

use super::{Request, Trail};
use crate::identity::Caller;
use crate::inversion::{self, Control};
use crate::outcome::{Outcome, Stop, says_error};
use crate::telemetry::{Context, Ended, HEADER, Subject};
use crate::wire::{Edit, Json, Outgoing, Value};

/// Where a request comes from.
pub(super) fn context(request: &Request) -> Option<Context> {
    let meta = request.message.params().and_then(|params| params.get("_meta")?.as_object()?.get(HEADER));
    let said = meta.and_then(|value| Context::parse(&value.as_str()?));
    said.or_else(|| {
        request.headers.iter().find(|(name, _)| name == HEADER).and_then(|(_, value)| Context::parse(value))
    })
}

/// The request with what goes on with it: in `_meta`, and in the header for those who look there.
pub(super) fn carried(mut outgoing: Outgoing, traceparent: Option<&str>) -> Outgoing {
    let Some(traceparent) = traceparent.filter(|_| !inversion::is_off(Control::Trace)) else { return outgoing };
    let edited = outgoing.params.value().as_object().and_then(|params| {
        let meta = params.get("_meta")?.as_object()?.edited(&[Edit::Set(HEADER, Json::of(traceparent))]);
        Some(params.edited(&[Edit::Set("_meta", meta)]))
    });
    if let Some(params) = edited {
        outgoing.params = params;
    }
    outgoing.headers.retain(|(name, _)| name != HEADER);
    outgoing.headers.push((HEADER.to_owned(), traceparent.to_owned()));
    outgoing
}

/// What is said about it.
pub(super) fn subject(trail: &Trail, caller: &Caller) -> Subject {
    let target = trail.target.as_ref();
    Subject {
        method: trail.leg.method.clone(),
        protocol: trail.leg.version.as_str().to_owned(),
        call: trail.leg.call.to_string(),
        target: target
            .map(|target| (target.server_id().to_string(), target.environment().to_string(), target.name().to_owned())),
        agent: caller.persona().agent.as_ref().map(|agent| agent.id.to_string()),
    }
}

/// How it ended, in the words of the conventions.
pub(super) fn ended(outcome: &Outcome) -> Ended {
    match outcome {
        Outcome::Complete(result) if says_error(result) => Ended::Error("tool_error"),
        Outcome::Complete(_) | Outcome::InputRequired { .. } | Outcome::Task(_) => Ended::Well,
        Outcome::Error(error) => {
            let code = error.value().as_object().and_then(|error| error.get("code")).and_then(Value::as_i64);
            code.map_or(Ended::Error("_OTHER"), Ended::Code)
        }
        Outcome::Refused(refusal) => Ended::Error(refusal.reason.code()),
        Outcome::Failed(failure) => Ended::Error(failure.reason.code()),
    }
}

/// Why it stopped before it was forwarded.
pub(super) const fn stopped(stop: &Stop) -> Ended {
    Ended::Error(match stop {
        Stop::Refused(refusal) => refusal.reason.code(),
        Stop::Failed(failure) => failure.reason.code(),
    })
}
