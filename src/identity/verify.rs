//! What the claims of a signed token must say (RFC 9068), and who that makes the caller.
//!
//! Decides after the signature was verified. Refuses to know keys and caches. Invariant: everything that
//! ends up in a [`Persona`] was in the signed claims or in our own configuration.

use super::agent::{Actors, AgentIndex};
use super::binding::Binding;
use super::caller::{Person, TokenFacts};
use super::groups::{good_until, groups};
use super::own::Own;
use super::persona::{Behind, ClientProof, Persona};
use super::resource::{Reach, ResourceNames};
use super::standing::Rests;
use super::token::{Claims, Header, missing};
use crate::config::spiffe::IssuerKind;
use crate::config::{DeclaredProof, IntrospectionConfig, IssuerConfig, Nameless};
use crate::ids::{Digest, Subject};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// What the claims say.
#[derive(Debug)]
pub(super) struct Findings {
    pub persona: Persona,
    pub token: TokenFacts,
    /// What the files say of the client's proof.
    pub declared_proof: DeclaredProof,
    /// What the files have to go on saying.
    pub rests: Rests,
    /// Which of our resources it is for.
    pub reach: Reach,
    /// What it has to come with.
    pub binding: Binding,
    /// When it, or an agent in it, expires: seconds since 1970, without leeway.
    pub until: i64,
}

/// Where the claims come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The issuer signed them, below this header.
    Signed(&'a Header),
    /// The issuer said them when it was asked, which is configured so.
    Introspected(&'a IntrospectionConfig),
}

/// Whether the header's media type says that this is an access token of that issuer's kind.
///
/// # Errors
/// [`Reason::TokenTypeRefused`]. A header without `typ` needs `""` on the issuer's list.
pub(super) fn check_type(issuer: &IssuerConfig, header: &Header) -> Result<(), Refusal> {
    let typ = plain_type(header.typ.as_deref().unwrap_or(""));
    if issuer.token_types.iter().any(|allowed| plain_type(allowed) == typ) {
        return Ok(());
    }
    Err(Refusal::new(Reason::TokenTypeRefused))
}

/// Looks at every claim; `now` in seconds since 1970.
pub(super) fn verify(
    issuer: &IssuerConfig,
    names: &ResourceNames,
    agents: &AgentIndex,
    source: Source<'_>,
    claims: &Claims<'_>,
    digest: Digest,
    now: i64,
) -> Result<Findings, Refusal> {
    refuse_other_kinds(source, claims)?;
    refuse_others_issuer(issuer, claims)?;
    let binding = Binding::read(claims, issuer.sender_constraint)?;
    if matches!(source, Source::Introspected(_)) {
        check_introspected_type(claims, &binding)?;
    }
    let (issued_at, expires_at) = check_times(issuer, claims, now)?;
    let audiences = claims.texts("aud")?.ok_or_else(|| missing("aud"))?;
    if audiences.len() > limit::TOKEN_AUDIENCES_MAX {
        return Err(Refusal::new(Reason::TokenMalformed).hint("the token has too many audiences"));
    }
    let reach = names.reach(audiences.iter().map(String::as_str), &issuer.audiences, &issuer.admin_audiences);
    if reach.is_empty() {
        return Err(Refusal::new(Reason::AudienceMismatch));
    }
    let client = client(issuer, claims)?;
    let (subject, nameless) = subject(source, client.as_deref(), claims)?;
    let id = claims.text("jti")?;
    // An opaque token is its own id; RFC 7662 demands no other.
    if id.is_none() && matches!(source, Source::Signed(_)) && !optional(issuer, "jti") {
        return Err(missing("jti"));
    }
    // What has a token of its own and is nobody's client is its own client.
    let by_subject = agents.knows_subject(issuer, client.as_deref(), &subject)?;
    let client = match client {
        None if by_subject => Some(subject.clone()),
        client => client_or_missing(issuer, client)?,
    };
    let own = if by_subject || nameless { Own::Yes } else { Own::told(issuer, &subject, client.as_deref(), claims) };
    let human = (own == Own::No).then_some(subject.as_str());
    // A person with an administrators' client: no agent stands between them and us, and none may use their token.
    let administrators = human.filter(|_| !claims.has("act") && agents.is_administrators(issuer, client.as_deref()));
    let alone = administrators.and_then(|_| reach.for_administrators());
    let for_administrators = alone.is_some();
    let (reach, actors) = match alone {
        Some(alone) => (alone, Actors::nobody()),
        None => (reach, agents.actors(issuer, client.as_deref(), human, &subject, claims.raw("act"), now)?),
    };
    let Actors { agent, chain, hops, declared_proof, rests, until } = actors;
    let age = match source {
        Source::Signed(_) => issued_at.map(|moment| now.saturating_sub(moment)),
        // Its issuer says it now, whenever the token was made.
        Source::Introspected(_) => Some(0),
    };
    let user = Subject::user(&issuer.alias, &subject);
    let behind = match own {
        Own::Yes => Behind::Nobody,
        Own::Perhaps => Behind::Unknown,
        Own::No => Behind::told_by(Some(&user), agent.as_ref()),
    };
    let persona = Persona {
        issuer: issuer.alias.clone(),
        user: Some(user),
        groups: groups(issuer, claims, own.is_certain(), age),
        agent,
        chain,
        default_roles: issuer.default_roles.clone(),
        scopes: scopes(issuer, claims)?,
        client: client.clone(),
        client_proof: match (&client, own.is_certain()) {
            (None, _) => ClientProof::None,
            // Software gets a token for itself only after it has proven itself at the token endpoint.
            (Some(_), true) => ClientProof::Secret.max(declared_proof.into()),
            (Some(_), false) => declared_proof.into(),
        },
        authenticated_at: claims.date("auth_time")?,
        acr: claims.text("acr")?,
        behind,
    };
    let token = TokenFacts {
        digest,
        issuer: issuer.alias.clone(),
        subject: Some(subject),
        client,
        id,
        session: claims.text("sid")?,
        issued_at: issued_at.map(|moment| earliest(issuer, moment)),
        expires_at,
        for_administrators,
        person: person(issuer, claims, own.is_certain()),
        hops,
    };
    // The administrators' listener has no proof to look at: what is demanded of tokens for MCP is not demanded there.
    let binding = if for_administrators { binding.undemanded() } else { binding };
    let until = match source {
        Source::Signed(_) => until.min(good_until(issuer, &persona.groups, issued_at)),
        Source::Introspected(_) => until,
    };
    Ok(Findings { persona, token, declared_proof, rests, reach, binding, until: until.min(expires_at) })
}

/// Tokens that are signed by the same key and mean something else.
fn refuse_other_kinds(source: Source<'_>, claims: &Claims<'_>) -> Result<(), Refusal> {
    // `at+jwt` says what it is. A plain `JWT` may be an ID token, a logout token, a security event.
    let says_so = match source {
        Source::Signed(header) => plain_type(header.typ.as_deref().unwrap_or("")) == "at+jwt",
        Source::Introspected(_) => false,
    };
    let telling = ["nonce", "at_hash", "c_hash", "events"];
    if !says_so && telling.iter().any(|name| claims.has(name)) {
        return Err(Refusal::new(Reason::TokenTypeRefused));
    }
    // Keycloak writes the kind into a claim as well, and Cognito and Hydra into another.
    let other = |name: &str, kinds: &[&str]| {
        let kind = claims.raw(name).map(|kind| kind.trim_matches('"').to_ascii_lowercase());
        kind.is_some_and(|kind| kinds.contains(&kind.as_str()))
    };
    let kinds = ["id", "id_token", "refresh", "refresh_token", "offline", "logout"];
    if other("typ", &kinds) || other("token_use", &kinds) {
        return Err(Refusal::new(Reason::TokenTypeRefused));
    }
    Ok(())
}

/// RFC 7662: the type as the token endpoint said it (RFC 6749, section 5.1); RFC 9449, section 6.2: `DPoP` where it is
/// bound to a key, and only there.
fn check_introspected_type(claims: &Claims<'_>, binding: &Binding) -> Result<(), Refusal> {
    match (claims.text("token_type")?.map(|kind| kind.to_ascii_lowercase()).as_deref(), binding.names_key()) {
        (None, _) | (Some("bearer" | "access_token"), false) | (Some("dpop"), true) => Ok(()),
        (Some("dpop"), false) => Err(Refusal::new(Reason::TokenBound)
            .hint("its issuer calls the token DPoP and does not say to which key it is bound (cnf.jkt)")),
        (Some("pop" | "mac"), _) => Err(Refusal::new(Reason::TokenBound)),
        (Some(_), true) => Err(Refusal::new(Reason::TokenBound)
            .hint("its issuer says that the token is bound to a key, and calls it something else than DPoP")),
        (Some(_), false) => Err(Refusal::new(Reason::TokenTypeRefused)),
    }
}

fn check_times(issuer: &IssuerConfig, claims: &Claims<'_>, now: i64) -> Result<(Option<i64>, i64), Refusal> {
    let leeway = seconds(issuer.leeway);
    let life_max = seconds(issuer.token_life_max);
    let expires_at = claims.date("exp")?.ok_or_else(|| missing("exp"))?;
    if now >= expires_at.saturating_add(leeway) {
        return Err(Refusal::new(Reason::TokenExpired));
    }
    let issued_at = claims.date("iat")?;
    if issued_at.is_none() && !optional(issuer, "iat") {
        return Err(missing("iat"));
    }
    let ahead = |moment: Option<i64>| moment.is_some_and(|moment| moment > now.saturating_add(leeway));
    if ahead(claims.date("nbf")?) || ahead(issued_at) {
        return Err(Refusal::new(Reason::TokenNotYetValid));
    }
    // Without `iat` the life that is left must already be short enough.
    let life = expires_at.saturating_sub(issued_at.unwrap_or(now));
    if life > life_max && !inversion::is_off(Control::TokenLife) {
        return Err(Refusal::new(Reason::TokenLifetimeExceeded).hint(format!(
            "the token lives {life} s and at most {life_max} s are accepted; have the issuer mint shorter ones"
        )));
    }
    Ok((issued_at, expires_at))
}

/// By our clock a token may be older than it says by as much as its issuer's clock may be ahead. A sign-out allows for
/// [`limit::SIGN_OUT_SKEW`] of that already.
fn earliest(issuer: &IssuerConfig, issued_at: i64) -> i64 {
    issued_at.saturating_sub(seconds(issuer.leeway.saturating_sub(limit::SIGN_OUT_SKEW)))
}

fn client(issuer: &IssuerConfig, claims: &Claims<'_>) -> Result<Option<String>, Refusal> {
    for name in &issuer.claims.client {
        if let Some(client) = claims.text(name)? {
            return Ok(Some(client));
        }
    }
    Ok(None)
}

fn client_or_missing(issuer: &IssuerConfig, client: Option<String>) -> Result<Option<String>, Refusal> {
    if client.is_some() || optional(issuer, "client_id") { Ok(client) } else { Err(missing("client_id")) }
}

/// Whom the token is about, and whether that is its client because it names nobody.
fn subject(source: Source<'_>, client: Option<&str>, claims: &Claims<'_>) -> Result<(String, bool), Refusal> {
    let nameless = match source {
        Source::Signed(_) => Nameless::Refused,
        Source::Introspected(config) => config.nameless,
    };
    match (claims.text("sub")?, client, nameless) {
        (Some(subject), _, _) => Ok((subject, false)),
        // One who is named some other way is somebody else than the client.
        (None, Some(client), Nameless::Client) if !claims.has("username") => Ok((client.to_owned(), true)),
        _ => Err(missing("sub")),
    }
}

/// A JWT was found by its `iss`; an answer of an issuer may speak of a token that is another's. In a JWT-SVID it means
/// nothing: the key of the trust domain in `sub` has verified that, and SPIRE writes the URL of its discovery document.
fn refuse_others_issuer(issuer: &IssuerConfig, claims: &Claims<'_>) -> Result<(), Refusal> {
    if matches!(issuer.kind, IssuerKind::Spiffe(_)) {
        return Ok(());
    }
    match claims.text("iss")? {
        Some(named) if named != issuer.issuer => {
            Err(Refusal::new(Reason::IssuerUnknown).hint("its issuer says that the token is another issuer's"))
        }
        _ => Ok(()),
    }
}

fn scopes(issuer: &IssuerConfig, claims: &Claims<'_>) -> Result<Vec<String>, Refusal> {
    for name in &issuer.claims.scope {
        if let Some(values) = claims.texts(name)? {
            let mut scopes: Vec<String> =
                values.iter().flat_map(|value| value.split_ascii_whitespace()).map(str::to_owned).collect();
            if scopes.len() > limit::TOKEN_SCOPES_MAX {
                return Err(Refusal::new(Reason::TokenMalformed).hint("the token has too many scopes"));
            }
            scopes.sort_unstable();
            scopes.dedup();
            return Ok(scopes);
        }
    }
    Ok(Vec::new())
}

/// A claim that is missing or malformed is nobody's: then this token approves nothing.
fn person(issuer: &IssuerConfig, claims: &Claims<'_>, own: bool) -> Person {
    let said = issuer.claims.person.as_deref().and_then(|claim| claims.text(claim).ok().flatten());
    match said {
        _ if own => Person::Nobody,
        Some(person) if person.len() <= limit::PERSON_BYTES_MAX => Person::Known(person),
        _ => Person::Unknown,
    }
}

fn optional(issuer: &IssuerConfig, claim: &str) -> bool {
    issuer.optional_claims.iter().any(|name| name == claim)
}

/// RFC 9068 section 2.1: `application/` may stand before it; RFC 7515 section 4.1.9: case does not matter.
pub(super) fn plain_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
}

pub(super) fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
