//! The keys of `[feeds.NAME]` and of the registration of clients; named like all others, see [`super`].

use super::{Section, defaulted, optional, required, servers};

/// `[feeds.NAME]`.
pub const FEED: Section = servers(
    "[feeds.NAME]",
    &[
        required("issuer", "issuer alias"),
        // Most providers leave `sid` out of access tokens: a logout that ended nothing would look like one.
        defaulted("ends", "`\"subject\"` or `\"session\"`", "\"subject\""),
        // A company of ten thousand logs out at five o'clock.
        defaulted("requests_per_minute", "integer", "600"),
        optional("logout", "table"),
        optional("events", "table"),
        optional("scim", "table"),
    ],
);

/// `[feeds.NAME.logout]`.
pub const FEED_LOGOUT: Section = servers(
    "[feeds.NAME.logout]",
    &[required("audiences", "list of client ids"), defaulted("types", "list of strings", "[\"logout+jwt\"]")],
);

/// `[feeds.NAME.events]`.
pub const FEED_EVENTS: Section = servers(
    "[feeds.NAME.events]",
    &[
        required("audiences", "list of strings"),
        optional("transmitter", "string"),
        optional("keys", "URL"),
        defaulted("formats", "list of `\"email\"` and `\"opaque\"`", "[]"),
        optional("secret", "secret reference"),
        optional("poll", "table"),
    ],
);

/// `[feeds.NAME.events.poll]`.
pub const FEED_POLL: Section = servers(
    "[feeds.NAME.events.poll]",
    &[required("endpoint", "URL"), required("token", "secret reference"), defaulted("interval", "duration", "\"10s\"")],
);

/// `[feeds.NAME.scim]`.
pub const FEED_SCIM: Section = servers(
    "[feeds.NAME.scim]",
    &[
        required("secret", "secret reference"),
        defaulted("subject", "`\"externalId\"` or `\"userName\"`", "\"externalId\""),
    ],
);

/// `[issuers.ALIAS.registration]`.
pub const REGISTRATION: Section = servers(
    "[issuers.ALIAS.registration]",
    &[
        required("client_id", "string"),
        optional("client_secret", "secret reference"),
        defaulted("scopes", "list of strings", "[]"),
        defaulted("send_resource", "boolean", "true"),
        defaulted("redirect_schemes", "list of strings", "[]"),
    ],
);
