//! What is to be told to others elsewhere, until they have taken it: rows of the shelf.
//!
//! Decides what a message says: that something happened, and a link. Refuses to know who sends it. Invariant: a message is
//! written in the very change that it tells of, so that what happened is told, and what did not is not; it holds no
//! argument and no secret.

use aws_lc_rs::{hkdf, hmac};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::WebhookConfig;
use crate::limit;
use crate::shelf::{Action, Change, Expect, Section};

/// Messages that wait to be taken.
pub const OUTBOX: Section = Section { name: "webhook", rows_max: limit::WEBHOOK_MESSAGES_MAX };

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A call waits for a person.
    ApprovalRequested,
    /// An agent may not act any more.
    AgentSuspended,
    /// A server is there for nobody any more.
    ServerSuspended,
    /// Definitions are not those that were accepted, and are kept back.
    PinChanged,
    /// Somebody has emergency access.
    BreakGlassOpened,
    /// A call was made with it.
    BreakGlassUsed,
    /// Somebody asks for what they may not use.
    AccessRequested,
    /// A task was ended, or a tool closed, because of what happened to its calls.
    BreakerTripped,
}

impl Event {
    /// Every event, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::ApprovalRequested,
        Self::AgentSuspended,
        Self::ServerSuspended,
        Self::PinChanged,
        Self::BreakGlassOpened,
        Self::BreakGlassUsed,
        Self::AccessRequested,
        Self::BreakerTripped,
    ];

    /// As files and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApprovalRequested => "approval.requested",
            Self::AgentSuspended => "agent.suspended",
            Self::ServerSuspended => "server.suspended",
            Self::PinChanged => "pin.changed",
            Self::BreakGlassOpened => "break_glass.opened",
            Self::BreakGlassUsed => "break_glass.used",
            Self::AccessRequested => "access.requested",
            Self::BreakerTripped => "breaker.tripped",
        }
    }
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// To whom: `[webhooks.NAME]`.
    pub to: String,
    /// What is sent, as it is sent every time.
    pub body: String,
    /// How often that was tried.
    #[serde(default)]
    pub tries: u32,
    /// Not before this, microseconds since 1970 by the store's clock.
    #[serde(default)]
    pub not_before_us: i64,
}

/// What messages to one place are signed with: whoever can check those can forge none to another.
#[must_use]
pub fn signing_key(secret: &SecretString, place: &str) -> Option<[u8; 32]> {
    let master = data_encoding::HEXLOWER_PERMISSIVE.decode(secret.expose_secret().as_bytes()).ok()?;
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bailiwick").extract(&master);
    let mut key = [0_u8; 32];
    let info: [&[u8]; 2] = [b"bailiwick/webhook/v1/", place.as_bytes()];
    derived.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(key)
}

/// The name of a key that signs: it says nothing about the key, and whoever has the key can tell that it is meant.
#[must_use]
pub fn signing_key_id(key: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    data_encoding::HEXLOWER.encode(hmac::sign(&key, b"bailiwick/webhook/key id").as_ref()).chars().take(8).collect()
}

/// The changes that tell everybody who wants to hear of it; `about` names what it is about. At most so many as there are
/// webhooks.
#[must_use]
pub fn told(hooks: &[WebhookConfig], event: Event, about: &serde_json::Value, now_us: i64) -> Vec<Change> {
    let wants = |hook: &&WebhookConfig| hook.events.iter().any(|wanted| wanted == event.as_str());
    let at = jiff::Timestamp::from_microsecond(now_us).unwrap_or_default();
    let until_us = now_us.saturating_add(limit::WEBHOOK_KEPT_FOR_US);
    hooks
        .iter()
        .filter(wants)
        .map(|hook| {
            let body = json!({ "type": event.as_str(), "timestamp": at.to_string(), "data": about }).to_string();
            let message = Message { to: hook.name.clone(), body, tries: 0, not_before_us: 0 };
            let body = serde_json::to_string(&message).unwrap_or_default();
            let put = Action::Put { owner: hook.name.clone(), body, expires_at_us: Some(until_us) };
            Change::new(OUTBOX, format!("msg_{}", ulid::Ulid::generate()), Expect::Absent, put)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_key_of_its_own() {
        let secret = |digit: &str| SecretString::from(digit.repeat(64));
        let key = signing_key(&secret("7"), "chat").unwrap();
        assert_eq!(signing_key(&secret("7"), "chat"), Some(key));
        assert_ne!(signing_key(&secret("7"), "other"), Some(key));
        assert_ne!(signing_key(&secret("8"), "chat"), Some(key));
        assert_eq!(signing_key(&secret("x"), "chat"), None);
        let id = |secret, place| signing_key_id(&signing_key(&secret, place).unwrap());
        assert_eq!((id(secret("7"), "chat"), id(secret("7"), "chat").len()), (signing_key_id(&key), 8));
        assert_ne!(id(secret("7"), "chat"), id(secret("7"), "other"));
    }

    #[test]
    fn only_who_wants_to_hear_of_it_is_told() {
        let hook = |name: &str, events: &[&str]| WebhookConfig {
            name: name.to_owned(),
            url: url::Url::parse("https://hooks.example/x").unwrap(),
            events: events.iter().map(ToString::to_string).collect(),
            allow_private: false,
        };
        let hooks =
            [hook("a", &["approval.requested"]), hook("b", &["pin.changed"]), hook("c", &["approval.requested"])];
        let told = told(&hooks, Event::ApprovalRequested, &json!({ "id": "x" }), 1_000_000);
        let owners: Vec<_> = told
            .iter()
            .map(|change| match &change.action {
                Action::Put { owner, body, .. } => (owner.as_str(), body.contains("1970-01-01T00:00:01Z")),
                _ => panic!("a message is put"),
            })
            .collect();
        assert_eq!(owners, [("a", true), ("c", true)]);
    }
}
