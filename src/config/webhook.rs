//! `[webhooks.NAME]`: who elsewhere is told that something happened.

use url::Url;

/// One place that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Its name here.
    pub name: String,
    /// Where messages are sent.
    pub url: Url,
    /// Of what.
    pub events: Vec<String>,
    /// Private and loopback addresses are allowed for it.
    pub allow_private: bool,
}

/// Everything that can be told.
pub const EVENTS: [&str; 7] = [
    "approval.requested",
    "agent.suspended",
    "server.suspended",
    "pin.changed",
    "break_glass.opened",
    "break_glass.used",
    "access.requested",
];
