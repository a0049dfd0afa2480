//! The names that the rooms exchange: newtypes that cannot be mistaken for one another.
//!
//! Decides how an identifier is spelled and which spellings are refused. Knows nothing of the rooms
//! that use them. Invariant: a value of one of these types was checked when it was made, so nobody
//! checks it again.

mod action;
mod network;

pub use action::{Action, PinKind};
pub use network::network;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Whose the gateway's own operations and tools are; no server is called that.
pub const GATEWAY_SERVER: &str = "bailiwick";

/// Why a spelling was refused: a lower-case fragment that names the thing and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` is not allowed: {rule}")]
pub struct SpellingError {
    what: &'static str,
    value: String,
    rule: Cow<'static, str>,
}

/// Declares a checked, cheaply cloned text identifier.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the spelling.
            ///
            /// # Errors
            /// [`SpellingError`] says which spelling is allowed.
            pub fn new(value: &str) -> Result<Self, SpellingError> {
                let check: fn(&str) -> bool = $check;
                if check(value) {
                    Ok(Self(Arc::from(value)))
                } else {
                    Err(SpellingError { what: $what, value: value.chars().take(80).collect(), rule: $rule.into() })
                }
            }

            /// The text as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = SpellingError;

            fn from_str(text: &str) -> Result<Self, SpellingError> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_slug(value: &str, length_max: usize) -> bool {
    !value.is_empty()
        && value.len() <= length_max
        && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

name!(
    /// An upstream MCP server as `servers.toml` names it.
    ServerId, "server id", "use 1 to 16 characters of a-z, 0-9 and -", |value| is_slug(value, 16)
);
name!(
    /// The short name that `servers.toml` gives an OIDC issuer; subjects are spelled with it.
    IssuerAlias, "issuer alias", "use 1 to 32 characters of a-z, 0-9 and -", |value| is_slug(value, 32)
);
name!(
    /// Where a server's effects land: `development`, `staging`, `production` or whatever the files declare.
    Environment, "environment", "use 1 to 32 characters of a-z, 0-9 and -", |value| is_slug(value, 32)
);
name!(
    /// A registered agent as `policies/agents.toml` names it.
    AgentId, "agent id", "use 1 to 64 characters of a-z, 0-9 and -", |value| is_slug(value, 64)
);
name!(
    /// A template of `policies/mandates.toml`.
    TemplateName, "template name", "use 1 to 64 characters of a-z, 0-9 and -", |value| is_slug(value, 64)
);
name!(
    /// A named condition of `policies/conditions.toml`.
    ConditionName, "condition name", "use 1 to 64 characters of a-z, 0-9 and -", |value| is_slug(value, 64)
);

name!(
    /// A mandate: a task that somebody has given to a caller; a ULID, so that names sort by age and nobody guesses one.
    MandateId, "mandate id", "use the 26 characters that opening it gave", |value| ulid::Ulid::from_string(value)
        .is_ok_and(|ulid| ulid.to_string() == value)
);

impl MandateId {
    /// A fresh one.
    #[must_use]
    pub fn fresh() -> Self {
        Self(ulid::Ulid::generate().to_string().into())
    }
}

/// Claims are percent-encoded except for these, so that no `sub` can spell another kind of subject.
const CLAIM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// Someone or something that rules can name: `user:ISSUER/SUB`, `group:ISSUER/NAME`, `agent:ID`, `anyone`.
///
/// Only the gateway builds subjects, from verified claims; characters that mean something in a policy
/// file are percent-encoded, so a `sub` of `role:admin`, `*` or `a,b` stays a name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct Subject(Arc<str>);

impl Subject {
    /// A person or service account, by the issuer's `sub`.
    #[must_use]
    pub fn user(issuer: &IssuerAlias, subject: &str) -> Self {
        Self(format!("user:{issuer}/{}", utf8_percent_encode(subject, CLAIM)).into())
    }

    /// A group, as the issuer's groups claim names it.
    #[must_use]
    pub fn group(issuer: &IssuerAlias, name: &str) -> Self {
        Self(format!("group:{issuer}/{}", utf8_percent_encode(name, CLAIM)).into())
    }

    /// A registered agent.
    #[must_use]
    pub fn agent(agent: &AgentId) -> Self {
        Self(format!("agent:{agent}").into())
    }

    /// Everyone who could be authenticated at all.
    #[must_use]
    pub fn anyone() -> Self {
        Self(Arc::from("anyone"))
    }

    /// Reads a subject as an administrator writes it in a file or a rule.
    ///
    /// # Errors
    /// When it is none of the four kinds, or its name is not encoded as the gateway does it: in another spelling it would
    /// be nobody's, and what is denied to it or taken back from it as well.
    pub fn parse(text: &str) -> Result<Self, SpellingError> {
        let subject = Self::canonical(text)?;
        if subject.as_str() == text {
            return Ok(subject);
        }
        let rule = format!("the gateway spells this subject differently; write {subject}").into();
        Err(SpellingError { what: "subject", value: text.chars().take(80).collect(), rule })
    }

    /// Reads a subject in any spelling, for what must not miss whom it means: as the gateway spells it.
    ///
    /// # Errors
    /// When it is none of the four kinds, or its name is not encoded.
    pub fn canonical(text: &str) -> Result<Self, SpellingError> {
        let refuse = || SpellingError {
            what: "subject",
            value: text.chars().take(80).collect(),
            rule: "write user:ISSUER/SUB, group:ISSUER/NAME, agent:ID or anyone, other characters percent-encoded"
                .into(),
        };
        if text == "anyone" {
            return Ok(Self::anyone());
        }
        if let Some(agent) = text.strip_prefix("agent:") {
            return AgentId::new(agent).map(|agent| Self::agent(&agent)).map_err(|_| refuse());
        }
        let rest = text.strip_prefix("user:").or_else(|| text.strip_prefix("group:")).ok_or_else(refuse)?;
        let (issuer, name) = rest.split_once('/').ok_or_else(refuse)?;
        let encoded = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@%".contains(&byte);
        let issuer = IssuerAlias::new(issuer).map_err(|_| refuse())?;
        if name.is_empty() || !name.bytes().all(encoded) {
            return Err(refuse());
        }
        let claim = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        Ok(if text.starts_with("user:") { Self::user(&issuer, &claim) } else { Self::group(&issuer, &claim) })
    }

    /// The issuer and the `sub` of a user; nothing for others.
    #[must_use]
    pub fn claims(&self) -> Option<(IssuerAlias, String)> {
        let (issuer, name) = self.0.strip_prefix("user:")?.split_once('/')?;
        let claim = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
        Some((IssuerAlias::new(issuer).ok()?, claim))
    }

    /// The spelling that rules use.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A SHA-256 digest; its text form is lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests parts under a domain; each part is length-prefixed, so that no two lists of parts collide.
    #[must_use]
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self::from_digest(&context.finish())
    }

    /// The plain SHA-256 of some bytes.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_digest(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    /// The plain SHA-256 of several parts, one after the other.
    #[must_use]
    pub fn sha256_of(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        Self::from_digest(&context.finish())
    }

    /// The plain SHA-256 of everything that can be read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sha256_read(mut bytes: impl std::io::Read) -> std::io::Result<Self> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut piece = vec![0_u8; 64 * 1024];
        loop {
            match bytes.read(&mut piece)? {
                0 => return Ok(Self::from_digest(&context.finish())),
                length => context.update(piece.get(..length).unwrap_or_default()),
            }
        }
    }

    fn from_digest(digest: &aws_lc_rs::digest::Digest) -> Self {
        let mut bytes = [0_u8; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }

    /// Lends the 64 hexadecimal digits; every line of the record has several digests, so nothing is allocated.
    fn with_hex<T>(&self, lend: impl FnOnce(&str) -> T) -> T {
        let mut digits = [0_u8; 64];
        data_encoding::HEXLOWER.encode_mut(&self.0, &mut digits);
        lend(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|digits| formatter.write_str(digits))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({})", self.short())
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_hex(|digits| serializer.serialize_str(digits))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

/// Declares a digest with a meaning.
macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

digest!(
    /// The digest of every policy file as one set: two gateways with the same revision decide alike.
    PolicyRevision
);
digest!(
    /// Everything about a caller that a decision may read. Callers of one class get the same answers.
    ClassKey
);
digest!(
    /// Issuer, subject, client, agent and chain of a caller: who sessions, handles and quotas belong to.
    PrincipalKey
);
digest!(
    /// One primitive's definition: of its server, its kind and all that it says, in whatever order and spelling.
    DefinitionDigest
);
digest!(
    /// The slices that a view is composed of; equal revisions mean equal bytes for equal classes.
    ViewRevision
);

/// Whose credential a catalog slice, a session or a connection was made with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuthorizationContext {
    /// The gateway's own, or none: the same for every caller.
    Gateway,
    /// One caller's: never shared with another.
    Principal(PrincipalKey),
}

/// Where a request came in, which is also what its token must be for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/mcp`: every server, names prefixed.
    Merged,
    /// `/mcp/{server}`: one server, names verbatim.
    Server(ServerId),
}

/// Counts revocations; a decision made under an older epoch is made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevocationEpoch(pub u64);

/// Declares a time-ordered, unguessable identifier (ULID).
macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// A fresh one.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default that differs every time surprises")]
            pub fn new() -> Self {
                Self(ulid::Ulid::generate())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text = [0_u8; ulid::ULID_LEN];
                serializer.serialize_str(self.0.array_to_str(&mut text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = SpellingError;

            fn from_str(text: &str) -> Result<Self, SpellingError> {
                ulid::Ulid::from_string(text).map(Self).map_err(|_| SpellingError {
                    what: "id",
                    value: text.chars().take(80).collect(),
                    rule: "use the 26 characters that the log shows".into(),
                })
            }
        }
    };
}

ulid_id!(
    /// A call that waits in the middle for what its server asked.
    ParkId
);
ulid_id!(
    /// One life of a child process: the next one that is started for the same calls has another.
    ProcessId
);
ulid_id!(
    /// One call as a person thinks of it; it spans the legs of a multi-round-trip request.
    CallId
);
ulid_id!(
    /// One request of a call: a retry with input is a new leg.
    LegId
);
ulid_id!(
    /// One running gateway process; handles and records name it.
    ReplicaId
);

impl ReplicaId {
    /// When it was made, microseconds since 1970 by the clock of its machine.
    #[must_use]
    pub fn made_us(self) -> i64 {
        i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX).saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_cannot_spell_another_kind_of_subject() {
        let issuer = IssuerAlias::new("corp").unwrap();
        for hostile in ["role:admin", "*", "a,b", "../agent:x", "a/b", "é", "a b", "a\nb", "%2A"] {
            let subject = Subject::user(&issuer, hostile);
            assert!(subject.as_str().starts_with("user:corp/"), "{subject}");
            assert_eq!(subject.as_str().matches('/').count(), 1, "{subject}");
            assert!(subject.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'*'), "{subject}");
            assert_eq!(Subject::parse(subject.as_str()).unwrap(), subject);
        }
    }

    #[test]
    fn a_subject_is_written_as_the_gateway_spells_it_and_a_brake_finds_it_in_any_spelling() {
        for (written, own) in [
            ("user:corp/auth0%7c1", "user:corp/auth0%7C1"),
            ("user:corp/anna%40corp.example", "user:corp/anna@corp.example"),
            ("group:corp/%64evs", "group:corp/devs"),
            ("user:corp/100%", "user:corp/100%25"),
        ] {
            let refused = Subject::parse(written).unwrap_err().to_string();
            assert!(refused.ends_with(&format!("write {own}")), "{refused}");
            assert_eq!(Subject::canonical(written).unwrap(), Subject::parse(own).unwrap());
        }
        for none in ["user:corp/", "user:CORP/a", "role:admin", "user:corp/a b", "agent:NO"] {
            assert!(Subject::canonical(none).is_err() && Subject::parse(none).is_err(), "{none}");
        }
    }

    #[test]
    fn two_different_subs_never_become_the_same_subject() {
        let issuer = IssuerAlias::new("corp").unwrap();
        assert_ne!(Subject::user(&issuer, "*"), Subject::user(&issuer, "%2A"));
    }

    #[test]
    fn server_ids_are_short_slugs() {
        assert!(ServerId::new("git-2").is_ok());
        for bad in ["", "Git", "a_b", "a/b", "abcdefghijklmnopq", "é"] {
            assert!(ServerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_of_different_part_lists_differ() {
        assert_ne!(Digest::of("d", &[b"ab", b"c"]), Digest::of("d", &[b"a", b"bc"]));
        assert_ne!(Digest::of("d", &[b"a"]), Digest::of("e", &[b"a"]));
    }
}
