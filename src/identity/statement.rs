//! What an identity provider signed about its people: logout tokens and security events.
//!
//! Decides whether such a token may be believed at all, before anybody asks what it says. Refuses to know what
//! follows from it. Invariant: a [`Statement`] exists only for a token that the key of the one issuer or transmitter
//! of that feed has signed, that is for us, recent, and of the kind that it was sent as.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::issuer::Issuer;
use super::jwt::check_signature;
use super::keys::Verification;
use super::token::{Claims, Header, Jwt, missing};
use super::verify::plain_type;
use super::{Identity, cache::Basis, keys, now_s};
use crate::config::{FeedConfig, IssuerConfig};
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};

/// Which kind of token is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// OpenID Connect Back-Channel Logout 1.0, section 2.4.
    Logout,
    /// A security event token of a Shared Signals transmitter (RFC 8417).
    Event,
}

/// What was said, and by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    id: String,
    issued_at: i64,
    subject: Option<String>,
    session: Option<String>,
    subject_id: Option<Value>,
    events: Map<String, Value>,
}

impl Statement {
    /// `jti`: every statement is taken once.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `iat`, seconds since 1970; never ahead of our clock by more than the leeway.
    #[must_use]
    pub const fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// `sid`.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// `sub_id`.
    #[must_use]
    pub const fn subject_id(&self) -> Option<&Value> {
        self.subject_id.as_ref()
    }

    /// `events`, never empty.
    #[must_use]
    pub const fn events(&self) -> &Map<String, Value> {
        &self.events
    }
}

impl Identity {
    /// What a token that came over a feed says.
    ///
    /// # Errors
    /// Each check has its own [`Reason`]; where the keys cannot be had, that is a failure. Without `may_fetch` nobody is
    /// asked for keys, and a token that needs one that is not known is `rate_limited`.
    pub async fn statement(
        &self,
        feed: &FeedConfig,
        kind: StatementKind,
        text: &str,
        may_fetch: bool,
    ) -> Result<Statement, Stop> {
        let settings = self.settings.load_full();
        let accepted = settings.issuers.values().find(|accepted| accepted.config.alias == feed.issuer);
        let accepted = accepted.ok_or_else(|| Refusal::new(Reason::IssuerUnknown))?;
        let transmitter = match kind {
            StatementKind::Logout => None,
            StatementKind::Event => settings.transmitters.get(&feed.name),
        };
        let signer = transmitter.unwrap_or(&accepted.issuer);
        examine(&Expected { feed, kind, issuer: &accepted.config, signer, may_fetch }, text).await
    }

    /// The exact `iss` of an issuer's tokens.
    #[must_use]
    pub fn issuer_of(&self, feed: &FeedConfig) -> Option<String> {
        let settings = self.settings.load();
        let accepted = settings.issuers.values().find(|accepted| accepted.config.alias == feed.issuer)?;
        Some(accepted.config.issuer.clone())
    }
}

struct Expected<'a> {
    feed: &'a FeedConfig,
    kind: StatementKind,
    issuer: &'a IssuerConfig,
    signer: &'a Arc<Issuer>,
    may_fetch: bool,
}

async fn examine(expected: &Expected<'_>, text: &str) -> Result<Statement, Stop> {
    let jwt = Jwt::parse(text)?;
    let header = jwt.header()?;
    if header.crit.is_some() {
        return Err(Refusal::new(Reason::TokenMalformed)
            .hint("it needs extensions that are not understood here")
            .into());
    }
    let claims = jwt.claims()?;
    if claims.required("iss")? != expected.signer.url() {
        return Err(Refusal::new(Reason::IssuerUnknown).into());
    }
    let algorithm = keys::algorithm_named(&header.alg)
        .filter(|algorithm| expected.issuer.algorithms.contains(algorithm))
        .ok_or_else(|| Refusal::new(Reason::AlgorithmRefused))?;
    check_type(expected, &header)?;
    if !expected.may_fetch {
        let known = expected.signer.known();
        let verified =
            known.map(|known| known.keys.verify(header.kid.as_deref(), algorithm, jwt.signed, jwt.signature));
        if verified.is_none_or(|verified| verified == Verification::KeyUnknown) {
            return Err(Refusal::new(Reason::RateLimited).into());
        }
    }
    let mut basis = Basis { issuer: None, bundle: None, revision: 0 };
    let _key = check_signature(expected.signer, header.kid.as_deref(), algorithm, &jwt, &mut basis).await?;
    Ok(read(expected, &claims, now_s())?)
}

fn check_type(expected: &Expected<'_>, header: &Header) -> Result<(), Refusal> {
    let typ = plain_type(header.typ.as_deref().unwrap_or(""));
    let is_known = match (expected.kind, &expected.feed.logout) {
        (StatementKind::Event, _) => typ == "secevent+jwt",
        (StatementKind::Logout, Some(logout)) => logout.types.iter().any(|allowed| plain_type(allowed) == typ),
        (StatementKind::Logout, None) => false,
    };
    if is_known {
        Ok(())
    } else {
        Err(Refusal::new(Reason::TokenTypeRefused).hint("the `typ` is not that of this feed"))
    }
}

/// What a signed token must say besides.
fn read(expected: &Expected<'_>, claims: &Claims<'_>, now: i64) -> Result<Statement, Refusal> {
    let (audiences, age_max) = match expected.kind {
        StatementKind::Logout => (expected.feed.logout.as_ref().map(|logout| &logout.audiences), limit::LOGOUT_AGE_MAX),
        StatementKind::Event => (expected.feed.events.as_ref().map(|events| &events.audiences), limit::EVENT_AGE_MAX),
    };
    let named = claims.texts("aud")?.ok_or_else(|| missing("aud"))?;
    if named.len() > limit::TOKEN_AUDIENCES_MAX
        || !audiences.is_some_and(|own| named.iter().any(|aud| own.contains(aud)))
    {
        return Err(Refusal::new(Reason::AudienceMismatch));
    }
    let leeway = i64::try_from(expected.issuer.leeway.as_secs()).unwrap_or_default();
    let issued_at = claims.date("iat")?.ok_or_else(|| missing("iat"))?;
    if issued_at > now.saturating_add(leeway) {
        return Err(Refusal::new(Reason::TokenNotYetValid));
    }
    let age_max = i64::try_from(age_max.as_secs()).unwrap_or(i64::MAX);
    if now.saturating_sub(issued_at) > age_max.saturating_add(leeway) {
        return Err(Refusal::new(Reason::TokenExpired).hint("it was issued too long ago to say anything new"));
    }
    let expires_at = claims.date("exp")?;
    match (expected.kind, expires_at) {
        (StatementKind::Logout, None) => return Err(missing("exp")),
        (StatementKind::Logout, Some(at)) if now >= at.saturating_add(leeway) => {
            return Err(Refusal::new(Reason::TokenExpired));
        }
        // An event has happened: it does not expire, and what does is another kind of token.
        (StatementKind::Event, Some(_)) => return Err(invalid("a security event has no `exp`")),
        _ => {}
    }
    let id = claims.required("jti")?;
    if id.len() > limit::FEED_ID_BYTES_MAX {
        return Err(invalid("its `jti` is too long"));
    }
    let events = claims.typed::<Map<String, Value>>("events")?.ok_or_else(|| missing("events"))?;
    if events.is_empty() || events.len() > limit::FEED_EVENTS_MAX {
        return Err(invalid("it has no event, or too many"));
    }
    if !events.values().all(Value::is_object) {
        return Err(invalid("an event is not a JSON object"));
    }
    let subject = bounded(claims.text("sub")?)?;
    let session = bounded(claims.text("sid")?)?;
    match expected.kind {
        StatementKind::Logout if claims.has("nonce") => {
            return Err(invalid("a logout token has no `nonce`: this is an ID token"));
        }
        StatementKind::Logout if subject.is_none() && session.is_none() => {
            return Err(invalid("it names neither a subject nor a session"));
        }
        StatementKind::Event if subject.is_some() => {
            return Err(invalid("a security event names its subject as `sub_id`"));
        }
        _ => {}
    }
    Ok(Statement { id, issued_at, subject, session, subject_id: claims.typed("sub_id")?, events })
}

fn bounded(text: Option<String>) -> Result<Option<String>, Refusal> {
    match text {
        Some(text) if text.len() > limit::REVOCATION_VALUE_BYTES_MAX => Err(invalid("what it names is too long")),
        text => Ok(text),
    }
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::FeedMessageInvalid).hint(hint)
}
