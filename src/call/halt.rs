//! Why a call stopped before anything was sent, and how much of that its client is told.
//!
//! Invariant: what is hidden, and what nobody has accepted, is told like what does not exist.

use super::Request;
use crate::outcome::{Outcome, Reason, Refusal, Stop, reply};
use crate::wire::mcp::Method;

/// Why a call stopped: what the record says, and what the client is told, which may be less.
pub(super) struct Halt {
    pub(super) recorded: Stop,
    pub(super) told: Stop,
    /// What they are told instead: a question, or what no record has.
    pub(super) asks: Option<Box<Outcome>>,
}

impl Halt {
    /// A call that stops until its caller has done something.
    pub(super) fn asking(recorded: Stop, asks: Outcome) -> Self {
        Self { asks: Some(Box::new(asks)), ..Self::from(recorded) }
    }

    /// A denial of something that lists do not show is told like something that does not exist.
    pub(super) fn denied(denied: Box<crate::policy::Denied>) -> Self {
        let recorded = Stop::from(denied.refusal);
        let told = if denied.visible { recorded.clone() } else { Refusal::new(Reason::TargetUnknown).into() };
        Self { recorded, told, asks: None }
    }
}

impl<S: Into<Stop>> From<S> for Halt {
    fn from(stop: S) -> Self {
        let recorded = stop.into();
        // What nobody has accepted is told like what does not exist.
        let told = match recorded.reason() {
            Reason::DefinitionQuarantined => Refusal::new(Reason::TargetUnknown).into(),
            _ => recorded.clone(),
        };
        Self { told, recorded, asks: None }
    }
}

/// A stop as the client is told: of a resource that is not there, or not for them, also which one they asked for.
pub(super) fn told(stop: Stop, request: &Request, name: Option<&str>) -> Outcome {
    match (request.method, stop.reason(), name) {
        (Method::ReadResource, Reason::TargetUnknown, Some(uri)) => {
            Outcome::Error(reply::unknown_resource(uri, request.client.version.era()))
        }
        // Whoever may not use a method is told what everybody is told of one that does not exist.
        (Method::Extension, Reason::TargetUnknown, _) => Refusal::new(Reason::MethodUnknown).into(),
        _ => stop.into(),
    }
}
