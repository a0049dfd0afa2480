//! What an issuer says of itself and what a token says of itself, for people who look for a mistake.
//!
//! Decides nothing: no [`super::Caller`] is made here, and nothing that is read here lets anybody in. Invariant: a
//! token leaves this file as facts about it, never as text that could be presented.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::chain::Fresh;
use super::discovery;
use super::introspect::Introspector;
use super::issuer::Issuer;
use super::keys::{Jwks, KeySet};
use super::token::Jwt;
use crate::config::{Algorithm, IntrospectionConfig, IssuerConfig};
use crate::egress::{OauthClient, oauth_client};
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Stop;

/// What an issuer says of itself.
#[derive(Debug)]
pub struct Survey {
    /// Its metadata, or why there is none.
    pub metadata: Result<Metadata, String>,
    /// Whether clients that ask `/.well-known/oauth-authorization-server` (RFC 8414) find the same issuer; the
    /// problem otherwise.
    pub oauth_document: Result<(), String>,
    /// Its keys, or why there are none.
    pub keys: Result<KeyFacts, String>,
    /// How far its clock is ahead of ours, where it said what time it is.
    pub clock: Option<ClockFacts>,
    /// What becomes of our question about a token that nobody has, where it is asked about tokens at all.
    pub introspection: Option<Result<(), String>>,
}

/// What its metadata says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `issuer`, as it stands there.
    pub issuer: String,
    /// `code_challenge_methods_supported`; `None` where it is not said.
    pub challenge_methods: Option<Vec<String>>,
    /// Whether clients can register themselves (RFC 7591).
    pub registration: bool,
    /// Whether clients can name themselves by a URL (Client ID Metadata Documents).
    pub client_documents: bool,
    /// Whether there is a place to log in.
    pub authorization: bool,
    /// Whether there is a place to get tokens from.
    pub token: bool,
    /// Whether it says that it knows `resource` (RFC 8707), which few do.
    pub resource: Option<bool>,
    /// Where it can be asked about opaque tokens (RFC 7662).
    pub introspection: Option<String>,
    /// `claims_supported`; `None` where it is not said.
    pub claims: Option<Vec<String>>,
}

/// What its key set says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// Keys in it.
    pub count: usize,
    /// Those that can verify a token.
    pub usable: usize,
    /// How many can verify each algorithm, of all that exist here.
    pub by_algorithm: Vec<(Algorithm, usize)>,
}

/// What time it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockFacts {
    /// How far it is ahead of our clock; negative where it is behind.
    pub ahead_s: i64,
    /// How wrong that may be: `Date` has whole seconds, and the answer was under way.
    pub uncertain: Duration,
}

/// Every algorithm that can be accepted.
pub const ALGORITHMS: [(Algorithm, &str); 5] = [
    (Algorithm::Rs256, "RS256"),
    (Algorithm::Ps256, "PS256"),
    (Algorithm::Es256, "ES256"),
    (Algorithm::Es384, "ES384"),
    (Algorithm::EdDsa, "EdDSA"),
];

/// Asks an issuer for everything that it publishes, over the client that a gateway with this listener would use.
pub async fn survey(config: &IssuerConfig, listens_on_loopback: bool) -> Survey {
    let policy = Issuer::new(config, listens_on_loopback, CancellationToken::new()).policy().clone();
    let failed = |problem: String| Survey {
        metadata: Err(problem.clone()),
        oauth_document: Err(problem.clone()),
        keys: Err(problem),
        clock: None,
        introspection: None,
    };
    // Reading the system's roots takes milliseconds; not on a worker that waits for others.
    let client = match tokio::task::spawn_blocking(move || oauth_client(policy)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(error) => return failed(error.to_string()),
    };
    let openid = discovery::openid_place(&config.issuer);
    let (found, oauth) = tokio::join!(ask(&client, &openid), oauth_document(&client, config));
    let oauth_document = oauth.as_ref().map(|_| ()).map_err(String::clone);
    // As for the gateway, either of the two is enough.
    let (document, clock) = match found.or_else(|problem| oauth.map_err(|_| problem)) {
        Ok(found) => found,
        Err(problem) => return Survey { oauth_document, ..failed(problem) },
    };
    let keys = match document.get("jwks_uri").and_then(Value::as_str) {
        None => Err("its metadata names no jwks_uri".to_owned()),
        Some(uri) => keys(&client, uri).await,
    };
    let metadata = Metadata::of(&document);
    let introspection = introspects(config, listens_on_loopback, metadata.introspection.as_deref()).await;
    Survey { metadata: Ok(metadata), oauth_document, keys, clock, introspection }
}

/// Asks about a token that nobody has, as the gateway would.
async fn introspects(
    config: &IssuerConfig,
    listens_on_loopback: bool,
    published: Option<&str>,
) -> Option<Result<(), String>> {
    let own = config.introspection.as_ref()?;
    let mut asked = config.clone();
    if own.endpoint.is_none() {
        let Some(endpoint) = published.and_then(|place| url::Url::parse(place).ok()) else {
            return Some(Err("its metadata names no introspection_endpoint".to_owned()));
        };
        asked.introspection =
            Some(Arc::new(IntrospectionConfig { endpoint: Some(endpoint), ..IntrospectionConfig::clone(own) }));
    }
    let issuer = Issuer::new(&asked, listens_on_loopback, CancellationToken::new());
    let introspector = Introspector::new(&asked, listens_on_loopback)?;
    let text = format!("{}doctor-{}", own.prefix.as_deref().unwrap_or_default(), ulid::Ulid::generate());
    let shown = Fresh { text: &text, digest: Digest::sha256(text.as_bytes()), comes: false };
    Some(match introspector.ask(&issuer, shown).await {
        Err(Stop::Refused(_)) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure.detail),
        Ok(_) => Err("it says that a token is active which nobody has".to_owned()),
    })
}

impl Metadata {
    fn of(document: &Value) -> Self {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let methods = document.get("code_challenge_methods_supported").and_then(Value::as_array);
        let is = |name: &str| document.get(name).and_then(Value::as_bool);
        Self {
            issuer: cut(text("issuer").unwrap_or_default()),
            challenge_methods: methods.map(|all| all.iter().filter_map(Value::as_str).map(cut).collect()),
            registration: text("registration_endpoint").is_some(),
            client_documents: is("client_id_metadata_document_supported").unwrap_or(false),
            authorization: text("authorization_endpoint").is_some(),
            token: text("token_endpoint").is_some(),
            introspection: text("introspection_endpoint").map(str::to_owned),
            claims: document
                .get("claims_supported")
                .and_then(Value::as_array)
                .map(|all| all.iter().filter_map(Value::as_str).map(cut).collect()),
            resource: is("resource_indicators_supported").or_else(|| is("resource_parameter_supported")),
        }
    }
}

/// What it publishes as RFC 8414 has it.
async fn oauth_document(client: &OauthClient, config: &IssuerConfig) -> Result<(Value, Option<ClockFacts>), String> {
    let place = discovery::oauth_place(&config.issuer).ok_or("it is no URL")?;
    let found = ask(client, &place).await?;
    match found.0.get("issuer").and_then(Value::as_str) {
        Some(issuer) if issuer == config.issuer => Ok(found),
        other => Err(format!("it names issuer `{}`", cut(other.unwrap_or_default()))),
    }
}

async fn keys(client: &OauthClient, uri: &str) -> Result<KeyFacts, String> {
    let (document, _) = ask(client, uri).await?;
    let count = document.get("keys").and_then(Value::as_array).map_or(0, Vec::len);
    let set: Jwks = serde_json::from_value(document).map_err(|error| format!("its key set cannot be read: {error}"))?;
    let set = KeySet::new(&set);
    if let Some(problem) = set.problem() {
        return Err(problem);
    }
    let by_algorithm = ALGORITHMS.map(|(algorithm, _)| (algorithm, set.fitting(algorithm))).to_vec();
    Ok(KeyFacts { count, usable: set.len(), by_algorithm })
}

/// The JSON at a place, and what time it is there.
async fn ask(client: &OauthClient, place: &str) -> Result<(Value, Option<ClockFacts>), String> {
    let request = Request::get(place)
        .header(header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| format!("`{}` cannot be asked: {error}", cut(place)))?;
    let began = std::time::Instant::now();
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    let clock = answer
        .headers()
        .get(header::DATE)
        .and_then(|date| clock(date.to_str().ok()?, jiff::Timestamp::now(), began.elapsed()));
    if answer.status() != StatusCode::OK {
        return Err(format!("{} answered {}", cut(place), answer.status()));
    }
    let document: Value = serde_json::from_slice(answer.body())
        .map_err(|_| format!("{} answered something that is not JSON", cut(place)))?;
    Ok((document, clock))
}

/// How far the clock that wrote `date` is ahead of ours, which said `now` when the answer had come.
fn clock(date: &str, now: jiff::Timestamp, took: Duration) -> Option<ClockFacts> {
    let there = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    // It was written at some moment in between, and the fraction of its second was cut off.
    let middle = now.checked_sub(took / 2).ok()?;
    let ahead_ms = there.as_millisecond().saturating_add(500).saturating_sub(middle.as_millisecond());
    Some(ClockFacts {
        ahead_s: (ahead_ms + 500 * ahead_ms.signum()) / 1000,
        uncertain: took / 2 + Duration::from_millis(500),
    })
}

/// What a token says of itself; nothing of it was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSays {
    /// `alg` of the header.
    pub algorithm: String,
    /// `typ` of the header.
    pub kind: Option<String>,
    /// `kid` of the header.
    pub key: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`, seconds since 1970.
    pub expires_at: Option<i64>,
    /// `iat`, seconds since 1970.
    pub issued_at: Option<i64>,
    /// The client, under the names that providers have for it.
    pub client: Option<String>,
    /// Claims that are lists of texts and could name groups.
    pub lists: Vec<String>,
}

impl TokenSays {
    /// Reads it.
    ///
    /// # Errors
    /// A lower-case fragment that says why it is no token.
    pub fn read(text: &str) -> Result<Self, String> {
        let unreadable = |refusal: crate::outcome::Refusal| refusal.hint.to_string();
        let jwt = Jwt::parse(text).map_err(unreadable)?;
        let header = jwt.header().map_err(unreadable)?;
        let claims = jwt.claims().map_err(unreadable)?;
        let text = |name: &str| claims.text(name).ok().flatten().map(|text| cut(&text));
        Ok(Self {
            algorithm: cut(&header.alg),
            kind: header.typ.as_deref().map(cut),
            key: header.kid.as_deref().map(cut),
            issuer: text("iss"),
            audiences: claims
                .texts("aud")
                .ok()
                .flatten()
                .map(|all| all.iter().take(limit::TOKEN_AUDIENCES_MAX).map(|one| cut(one)).collect())
                .unwrap_or_default(),
            expires_at: claims.date("exp").ok().flatten(),
            issued_at: claims.date("iat").ok().flatten(),
            client: ["client_id", "azp", "appid", "cid"].into_iter().find_map(text),
            lists: claims
                .names()
                .filter(|name| !["aud", "amr", "scp", "scope"].contains(name))
                .filter(|name| claims.typed::<Vec<String>>(name).is_ok_and(|list| list.is_some()))
                .take(limit::TOKEN_AUDIENCES_MAX)
                .map(cut)
                .collect(),
        })
    }
}

fn cut(text: &str) -> String {
    let plain = text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
    plain.take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_right_is_not_said_to_be_wrong() {
        let date = "Fri, 27 Nov 2026 07:10:00 GMT";
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let ahead = |now: &str| clock(date, at(now), Duration::from_millis(100)).unwrap().ahead_s;
        assert_eq!(ahead("2026-11-27T07:10:00.010Z"), 1, "within what `Date` can tell");
        assert_eq!(ahead("2026-11-27T07:10:00.600Z"), 0);
        assert_eq!(ahead("2026-11-27T07:10:00.999Z"), 0);
        assert_eq!(ahead("2026-11-27T07:08:30.500Z"), 90);
        assert_eq!(ahead("2026-11-27T07:12:00.500Z"), -120);
        assert!(clock("yesterday", at("2026-11-27T07:10:00Z"), Duration::ZERO).is_none());
    }

    #[test]
    fn metadata_is_what_clients_need_and_silence_is_not_a_no() {
        let document = serde_json::json!({
            "issuer": "https://idp.example\u{7}", "code_challenge_methods_supported": ["plain", "S256"],
            "registration_endpoint": "https://idp.example/register", "token_endpoint": "x",
        });
        let said = Metadata::of(&document);
        assert_eq!(said.issuer, "https://idp.example\u{fffd}");
        assert_eq!(said.challenge_methods.as_deref(), Some(&["plain".to_owned(), "S256".to_owned()][..]));
        assert!(said.registration && said.token && !said.authorization && !said.client_documents);
        assert_eq!(said.resource, None);
        assert_eq!(Metadata::of(&serde_json::json!([])).challenge_methods, None);
    }

    #[test]
    fn a_token_says_what_it_is_for_and_nothing_of_it_can_be_presented() {
        use base64::Engine as _;
        let part = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
        let text = format!(
            "{}.{}.c2lnbmF0dXJl",
            part(r#"{"alg":"ES256","kid":"k"}"#),
            part(r#"{"iss":"https://i","aud":["a","b"],"azp":"c","exp":5,"roles":["x"],"amr":["pwd"],"n":[1]}"#)
        );
        let says = TokenSays::read(&text).unwrap();
        assert_eq!((says.audiences.len(), says.client.as_deref(), says.expires_at), (2, Some("c"), Some(5)));
        assert_eq!(says.lists, ["roles"]);
        assert!(!format!("{says:?}").contains("c2lnbmF0dXJl"));
        assert!(TokenSays::read("opaque").unwrap_err().contains("not a JWT"));
    }
}
