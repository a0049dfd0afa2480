//! That everything which is done in an emergency is told: on the record, and to everybody who wants to hear of it.
//!
//! Decides what is told. Refuses to know rows: what is said on the record stands in the proof itself, so that no store can
//! keep it from being said. Invariant: what somebody does with emergency access goes out only while the store still has it.

use super::Approvals;
use super::break_glass::OPEN;
use crate::catalog::Target;
use crate::config::Config;
use crate::guard::consume::Reservations;
use crate::identity::Caller;
use crate::ids::{CallId, LegId};
use crate::inversion::{self, Control};
use crate::outbox;
use crate::outcome::Reason;
use crate::record::Journal;
use crate::record::event::{ApprovalNote, ApproverNote};
use crate::shelf::{Action, Change, Expect, Tell, Version};

/// Where something is done.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The server.
    pub server: &'a str,
    /// The primitive, in the server's spelling.
    pub name: &'a str,
    /// Where its effects land.
    pub environment: &'a str,
    /// What is done, as rules spell it.
    pub action: String,
}

impl<'a> Place<'a> {
    /// At a primitive of a server.
    #[must_use]
    pub fn of(target: &'a Target) -> Self {
        let (server, environment) = (target.server_id().as_str(), target.environment().as_str());
        Self { server, name: target.name(), environment, action: target.action().to_string() }
    }
}

/// Says on the record that a request was made in an emergency, where its caller has emergency access.
pub fn tell_emergency(journal: &Journal, caller: &Caller, place: &Place<'_>, of: (CallId, LegId)) {
    let Some(elevation) = caller.elevation() else { return };
    let approvers: Vec<ApproverNote<'_>> = elevation
        .agreed
        .iter()
        .map(|(id, at, acr)| ApproverNote { id, authenticated_at: *at, acr: acr.as_deref() })
        .collect();
    let note = ApprovalNote {
        event: "break_glass_used",
        id: &elevation.id,
        binding: elevation.shown,
        gates: std::slice::from_ref(&elevation.kind),
        server: place.server,
        name: place.name,
        environment: place.environment,
        requester: &requester(caller),
        approvers: &approvers,
        revision: elevation.revision,
        shown: elevation.shown,
        detail: &elevation.reason,
    };
    journal.approval(&note, Some(of), Some(caller.who()));
}

/// Adds, to what a request of somebody with emergency access consumes, that the store still has it.
pub fn reserve_emergency(caller: &Caller, reservations: &mut Reservations) {
    if let Some(elevation) = caller.elevation()
        && !inversion::is_off(Control::BreakGlass)
    {
        let version = Expect::Version(Version(elevation.version));
        reservations.reserve(Change::new(OPEN, &*elevation.id, version, Action::Check), Reason::BreakGlassOver);
    }
}

impl Approvals {
    /// Tells everybody who wants to hear of it that a request was made in an emergency. The record has it by itself.
    pub async fn alarm(&self, caller: &Caller, place: &Place<'_>, config: &Config, call: CallId) {
        let Some(elevation) = caller.elevation() else { return };
        let about = serde_json::json!({
            "break_glass": elevation.kind, "id": elevation.id, "user": requester(caller),
            "server": place.server, "action": place.action, "environment": place.environment,
            "call": call.to_string(),
        });
        let Ok(now_us) = self.shelf.clock_us().await else { return };
        let told = outbox::told(&config.webhooks, outbox::Event::BreakGlassUsed, &about, now_us);
        if !told.is_empty() && !matches!(self.shelf.change(told, Tell::Nobody).await, Ok(changed) if changed.is_done())
        {
            tracing::warn!(break_glass = elevation.id, "nobody could be told of a call that was made in an emergency");
        }
    }
}

fn requester(caller: &Caller) -> String {
    caller.persona().user.as_ref().map_or_else(|| "anyone".to_owned(), ToString::to_string)
}
