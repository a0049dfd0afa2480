//! What `[feeds.NAME]` means: who outside may tell that access is to be taken back, and of whom.
//!
//! Invariant: a feed is bound to one declared issuer, and nothing that it says reaches another one's subjects.

use std::time::Duration;

use url::Url;

use super::SecretReference;
use crate::ids::{IssuerAlias, ServerId};

/// `[feeds.NAME]`: one sender of news about an issuer's people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedConfig {
    /// Its name, in paths and in the record.
    pub name: ServerId,
    /// Whose subjects it may brake.
    pub issuer: IssuerAlias,
    /// What ends where both a session and a person are named.
    pub ends: Ends,
    /// Messages that are taken in a minute.
    pub requests_per_minute: u32,
    /// OpenID Connect back-channel logout.
    pub logout: Option<LogoutConfig>,
    /// Shared Signals.
    pub events: Option<EventsConfig>,
    /// SCIM.
    pub scim: Option<ScimConfig>,
}

/// `[feeds.NAME.logout]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutConfig {
    /// The client ids that logout tokens may be for.
    pub audiences: Vec<String>,
    /// Values of the header's `typ` accepted, lower case; empty text where it may be absent.
    pub types: Vec<String>,
}

/// What a logout ends where it names both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// Whatever the person got until then: also where access tokens do not name their session.
    Subject,
    /// Only what belongs to the session, which access tokens name as `sid`.
    Session,
}

/// `[feeds.NAME.events]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// Values of `aud` that are ours.
    pub audiences: Vec<String>,
    /// Who signs the events; absent where that is the issuer itself.
    pub transmitter: Option<TransmitterConfig>,
    /// What besides `iss_sub` may name a subject.
    pub formats: Vec<SubjectFormat>,
    /// What a push has to present; absent where nothing is pushed.
    pub secret: Option<SecretReference>,
    /// Where events are fetched.
    pub poll: Option<PollConfig>,
}

/// A transmitter that is not the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransmitterConfig {
    /// The exact `iss` of its events.
    pub issuer: String,
    /// Where its keys are; absent where its metadata says so.
    pub keys: Option<Url>,
}

/// A subject identifier (RFC 9493) whose value is the issuer's `sub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectFormat {
    /// An address: `email`.
    Email,
    /// A name by agreement: `id`.
    Opaque,
}

/// `[feeds.NAME.events.poll]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollConfig {
    /// Where events wait.
    pub endpoint: Url,
    /// What is presented there.
    pub token: SecretReference,
    /// How long is waited between two questions.
    pub interval: Duration,
}

/// `[feeds.NAME.scim]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScimConfig {
    /// What a client has to present.
    pub secret: SecretReference,
    /// Which attribute of a user is the issuer's `sub`.
    pub subject: ScimSubject,
}

/// Which attribute of a SCIM user is the issuer's `sub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum ScimSubject {
    /// `userName`.
    #[serde(rename = "userName")]
    UserName,
    /// `externalId`.
    #[serde(rename = "externalId")]
    ExternalId,
}

impl ScimSubject {
    /// As SCIM spells it.
    #[must_use]
    pub const fn attribute(self) -> &'static str {
        match self {
            Self::UserName => "userName",
            Self::ExternalId => "externalId",
        }
    }
}

impl FeedConfig {
    /// The secrets that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &SecretReference> {
        let events = self
            .events
            .iter()
            .flat_map(|events| events.secret.iter().chain(events.poll.iter().map(|poll| &poll.token)));
        events.chain(self.scim.iter().map(|scim| &scim.secret))
    }
}
