//! Reads what is asked of an authorization server: where it is, as whom, and for what.
//!
//! Invariants: whatever is asked for is good at one upstream and is named; who proves who we are by a signature says
//! to which issuer; nothing secret travels in the clear.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::address::{http_url, is_loopback};
use super::credential::{looks_like_a_secret, names_a_secret, reference, secret};
use crate::config::leaf::Period;
use crate::config::reader::Table;
use crate::config::{
    ActorToken, ClientAuthentication, CredentialConfig, ExchangeConfig, IdJagConfig, PrivateKey, SigningAlgorithm,
    TokenRequest, keys,
};

/// What a strategy sets itself: nothing of it is configured as `extra`.
const OWN_PARAMETERS: [&str; 17] = [
    "grant_type",
    "audience",
    "resource",
    "scope",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "code",
    "refresh_token",
    "password",
];

#[derive(Deserialize)]
enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Method {
    None,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
}

/// Reads an exchange of the caller's token.
pub fn read_exchange(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let audience = table.get::<String>("audience");
    let actor = table.at::<String>("actor_token");
    let kind = table.get::<String>("actor_token_type");
    let asks = read(&mut table, "an exchange", base, audience);
    let signs = matches!(asks, Some(TokenRequest { client: ClientAuthentication::PrivateKey(_), .. }) | None);
    let actor = match actor {
        // Whoever can say who acts does, unless it is written otherwise.
        None => signs.then_some(ActorToken::Agent),
        Some(text) => match text.get_ref().as_str() {
            "none" => None,
            "agent" | "gateway" if !signs => {
                table.mistake(&text.span(), "who acts is said with a signature: write the client's private_key");
                return None;
            }
            "agent" => Some(ActorToken::Agent),
            "gateway" => Some(ActorToken::Gateway),
            place => match reference(place, base) {
                Ok(token) => Some(ActorToken::Kept { token, kind: kind? }),
                Err(_) => {
                    let message = "an actor token is \"agent\" or \"gateway\", which are signed with private_key, is \
                                   kept somewhere (env:NAME, file:PATH), or is \"none\"";
                    table.mistake(&text.span(), message);
                    return None;
                }
            },
        },
    };
    let asks = asks?;
    named(&table, &asks)?;
    Some(CredentialConfig::Exchange(Arc::new(ExchangeConfig { asks, actor })))
}

/// Reads a token of the gateway's own.
pub fn read_client_credentials(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let audience = table.get::<String>("audience");
    let written = table.has("assertion");
    let assertion = secret(&mut table, "assertion", base);
    let asks = TokenRequest { assertion, ..read(&mut table, "client credentials", base, audience)? };
    if written && asks.assertion.is_none() {
        return None;
    }
    let mut complete = issuing(&table, &asks);
    if asks.client == ClientAuthentication::None && asks.assertion.is_none() {
        let message = "client credentials prove nothing without a proof: write client_secret, private_key or assertion";
        table.mistake(&table.span, message);
        complete = false;
    }
    named(&table, &asks)?;
    complete.then(|| CredentialConfig::ClientCredentials(Arc::new(asks)))
}

/// Reads both legs of an ID-JAG.
pub fn read_id_jag(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    if !table.has("identity_provider") {
        let message = "an id_jag has no `identity_provider`: write our client there, [....identity_provider]";
        table.mistake(&table.span, message);
    }
    let provider =
        table.table("identity_provider", &keys::IDENTITY_PROVIDER).and_then(|table| read_provider(table, base));
    let asks = read(&mut table, "an id_jag", base, None)?;
    let mut complete = true;
    if asks.issuer.is_none() {
        let message = "an id_jag has no `issuer`: write that of the authorization server of this upstream, which the \
                       identity provider vouches to";
        table.mistake(&table.span, message);
        complete = false;
    }
    if asks.resource.is_none() {
        let message = "an id_jag has no `resource`: write the resource of this server (RFC 9728)";
        table.mistake(&table.span, message);
        complete = false;
    }
    let (provider, subject_token_type) = provider?;
    complete.then(|| CredentialConfig::IdJag(Arc::new(IdJagConfig { provider, subject_token_type, asks })))
}

fn read_provider(mut table: Table<'_, '_>, base: &Path) -> Option<(TokenRequest, String)> {
    let subject_token_type = table.get::<String>("subject_token_type");
    let place = Place::read(&mut table);
    let client = read_client(&mut table, "an identity provider", base);
    let extra = read_extra(&mut table);
    let (place, (client_id, client)) = (place?, client?);
    signed_for_somebody(&table, &place, &client)?;
    let asks = TokenRequest {
        issuer: place.issuer,
        token_endpoint: place.token_endpoint,
        revocation_endpoint: None,
        client_id,
        client,
        assertion: None,
        audience: None,
        resource: None,
        scope: None,
        extra: extra?,
        // An assertion is used once and kept nowhere.
        use_max: crate::limit::ASSERTION_LIFE,
        token_life_max: None,
    };
    Some((asks, subject_token_type?))
}

/// Where an authorization server is.
struct Place {
    issuer: Option<String>,
    token_endpoint: Option<Url>,
}

impl Place {
    fn read(table: &mut Table<'_, '_>) -> Option<Self> {
        let written = table.has("issuer");
        let issuer = table.at::<String>("issuer");
        let usable = issuer.as_ref().is_none_or(|issuer| endpoint(table, issuer).is_some());
        let token_endpoint = read_endpoint(table, "token_endpoint")?;
        if (written && issuer.is_none()) || !usable {
            return None;
        }
        Some(Self { issuer: issuer.map(Spanned::into_inner), token_endpoint })
    }
}

fn read(table: &mut Table<'_, '_>, what: &str, base: &Path, audience: Option<String>) -> Option<TokenRequest> {
    let place = Place::read(table);
    let revocation_endpoint = read_endpoint(table, "revocation_endpoint");
    let client = read_client(table, what, base);
    let resource = table.at::<String>("resource");
    let scope = table.get::<String>("scope");
    let extra = read_extra(table);
    let use_max = table.get::<Period>("use_max");
    let life_written = table.has("token_life_max");
    let token_life_max = table.get::<Period>("token_life_max");
    if let Some(resource) = resource.as_ref() {
        // RFC 8707, section 2: an absolute URI without a fragment.
        let absolute = Url::parse(resource.get_ref()).is_ok_and(|url| url.fragment().is_none());
        if !absolute {
            table.mistake(
                &resource.span(),
                "a resource is an absolute URI without a fragment (RFC 8707): write https://...",
            );
        }
    }
    let (place, (client_id, client)) = (place?, client?);
    signed_for_somebody(table, &place, &client)?;
    if life_written && token_life_max.is_none() {
        return None;
    }
    Some(TokenRequest {
        issuer: place.issuer,
        token_endpoint: place.token_endpoint,
        revocation_endpoint: revocation_endpoint?,
        client_id,
        client,
        assertion: None,
        audience,
        resource: resource.map(Spanned::into_inner),
        scope,
        extra: extra?,
        use_max: use_max?.0,
        token_life_max: token_life_max.map(|life| life.0),
    })
}

/// A signature counts for one issuer: where an endpoint is written and no issuer, nobody knows which.
fn signed_for_somebody(table: &Table<'_, '_>, place: &Place, client: &ClientAuthentication) -> Option<()> {
    let signs = matches!(client, ClientAuthentication::PrivateKey(_));
    if signs && place.token_endpoint.is_some() && place.issuer.is_none() {
        let message = "what private_key signs is good for one issuer: write the `issuer` of token_endpoint";
        table.mistake(&table.span, message);
        return None;
    }
    Some(())
}

/// Whether anybody is named who could issue something to us alone.
fn issuing(table: &Table<'_, '_>, asks: &TokenRequest) -> bool {
    let named = asks.issuer.is_some() || asks.token_endpoint.is_some();
    if !named {
        let message = "nobody says which authorization server to ask: write its `issuer`, or its token_endpoint";
        table.mistake(&table.span, message);
    }
    named
}

/// Whether it is said what the token is good for.
fn named(table: &Table<'_, '_>, asks: &TokenRequest) -> Option<()> {
    if asks.audience.is_none() && asks.resource.is_none() {
        let message = "it names neither audience nor resource: the token would be good anywhere; write the `audience` \
                       or `resource` of this server";
        table.mistake(&table.span, message);
        return None;
    }
    Some(())
}

fn read_client(table: &mut Table<'_, '_>, what: &str, base: &Path) -> Option<(String, ClientAuthentication)> {
    let id = table.get::<String>("client_id");
    let written = (table.has("client_secret"), table.has("private_key"));
    let client_secret = secret(table, "client_secret", base);
    let key = secret(table, "private_key", base);
    let method = table.at::<Method>("client_auth");
    let algorithm = table.get::<Algorithm>("private_key_algorithm");
    let key_id = table.get::<String>("private_key_id");
    if id.is_none() {
        table.mistake(
            &table.span,
            format!("{what} has no `client_id`: write our client id at the authorization server"),
        );
    }
    let chosen = match (method.as_ref().map(|method| *method.get_ref()), written) {
        (Some(method), _) => method,
        (None, (true, false)) => Method::ClientSecretBasic,
        (None, (false, true)) => Method::PrivateKeyJwt,
        (None, (false, false)) => Method::None,
        (None, (true, true)) => {
            table.mistake(&table.span, "a client proves itself one way: write client_secret or private_key, not both");
            return None;
        }
    };
    let fits = match chosen {
        Method::None => written == (false, false),
        Method::ClientSecretBasic | Method::ClientSecretPost => written == (true, false),
        Method::PrivateKeyJwt => written == (false, true),
    };
    if !fits {
        let place = method.map_or_else(|| table.span.clone(), |method| method.span());
        table.mistake(
            &place,
            "client_auth and what is written do not fit: client_secret_basic and client_secret_post want client_secret, \
             private_key_jwt wants private_key",
        );
        return None;
    }
    let authentication = match chosen {
        Method::None => ClientAuthentication::None,
        Method::ClientSecretBasic => ClientAuthentication::Basic(client_secret?),
        Method::ClientSecretPost => ClientAuthentication::Post(client_secret?),
        Method::PrivateKeyJwt => ClientAuthentication::PrivateKey(PrivateKey {
            key: key?,
            algorithm: match algorithm? {
                Algorithm::Es256 => SigningAlgorithm::Es256,
                Algorithm::Es384 => SigningAlgorithm::Es384,
                Algorithm::Rs256 => SigningAlgorithm::Rs256,
                Algorithm::Ps256 => SigningAlgorithm::Ps256,
                Algorithm::EdDsa => SigningAlgorithm::EdDsa,
            },
            id: key_id,
        }),
    };
    Some((id?, authentication))
}

/// An endpoint that may be absent; `None` where it is a mistake.
fn read_endpoint(table: &mut Table<'_, '_>, key: &str) -> Option<Option<Url>> {
    if !table.has(key) {
        return Some(None);
    }
    let text = table.at::<String>(key)?;
    endpoint(table, &text).map(Some)
}

fn endpoint(table: &Table<'_, '_>, text: &Spanned<String>) -> Option<Url> {
    match http_url(text.get_ref()) {
        Ok(url) if url.scheme() == "http" && !is_loopback(&url) => {
            table.mistake(&text.span(), "tokens would travel in the clear: write https://");
            None
        }
        Ok(url) => Some(url),
        Err(message) => {
            table.mistake(&text.span(), message);
            None
        }
    }
}

fn read_extra(table: &mut Table<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut extra = BTreeMap::new();
    let mut complete = true;
    for (name, value) in table.strings("extra") {
        let problem = match (name.get_ref().as_str(), value.get_ref().as_str()) {
            (own, _) if OWN_PARAMETERS.contains(&own) => Some(format!("`{own}` has its own place: remove it here")),
            (own, text) if names_a_secret(own) || looks_like_a_secret(text) => {
                Some(format!("`{own}` looks like a secret, and a secret is never written here"))
            }
            _ => None,
        };
        match problem {
            Some(problem) => {
                table.mistake(&name.span(), problem);
                complete = false;
            }
            None => drop(extra.insert(name.into_inner(), value.into_inner())),
        }
    }
    complete.then_some(extra)
}
