//! Reads `[issuers.ALIAS]`: whose tokens are believed, and how their claims are read.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::account;
use super::address::{http_url, is_loopback};
use super::introspection::{self, Prefixes};
use super::registration;
use crate::config::keys;
use crate::config::leaf::Period;
use crate::config::load::{ANONYMOUS_ALIAS, KEYS_ALIAS, LOCAL_ALIAS};
use crate::config::mistake::{Name, did_you_mean};
use crate::config::reader::Table;
use crate::config::spiffe::{IssuerKind, SpiffeConfig};
use crate::config::{Algorithm, ClaimNames, IssuerConfig, OwnSign, ScopeMode, ScopeRule, SenderConstraint};
use crate::ids::{Action, AgentId, IssuerAlias};

/// What RFC 9068 requires and a provider may be known to leave out.
const OPTIONAL_CLAIMS: [&str; 3] = ["iat", "jti", "client_id"];

/// How an alias is spelled.
pub fn alias(text: &str) -> Result<IssuerAlias, String> {
    if [LOCAL_ALIAS, ANONYMOUS_ALIAS, KEYS_ALIAS].contains(&text) {
        return Err(format!("the alias `{text}` is the gateway's own: use another one"));
    }
    IssuerAlias::new(text).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scopes {
    Ignored,
    Required,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Constraint {
    None,
    Dpop,
    Mtls,
    Any,
}

/// What no two issuers may have alike.
#[derive(Debug, Default)]
pub struct Seen {
    issuers: HashSet<String>,
    prefixes: Prefixes,
    /// Bundle endpoints that are known by their SVIDs.
    pub endpoints: Vec<super::spiffe::Endpoint>,
}

/// Reads one issuer; `seen` knows those before it.
pub fn read(
    mut table: Table<'_, '_>,
    alias: IssuerAlias,
    (base, loopback_allowed): (&Path, bool),
    seen: &mut Seen,
) -> Option<IssuerConfig> {
    let kind = super::spiffe::read(&mut table, base, loopback_allowed);
    let issuer = match &kind {
        Some(IssuerKind::Spiffe(spiffe)) => {
            seen.endpoints.push((table.place("endpoint_id"), spiffe.trust_domain.clone()));
            read_trust_domain(&mut table, spiffe, &mut seen.issuers)
        }
        _ => read_issuer(&mut table, loopback_allowed, &mut seen.issuers),
    };
    let audiences = table.get::<Vec<String>>("audiences");
    let admin_audiences = table.at::<Vec<String>>("admin_audiences");
    if let (Some(own), Some(admin)) = (&audiences, &admin_audiences)
        && let Some(both) = admin.get_ref().iter().find(|name| own.contains(name))
    {
        let message = format!("`{both}` is in audiences, too: a token for MCP would administer the gateway");
        table.mistake(&admin.span(), message);
    }
    let algorithms = read_algorithms(&mut table);
    let token_types = table.get::<Vec<String>>("token_types");
    let token_life_max = table.get::<Period>("token_life_max");
    let leeway = table.at::<Period>("leeway");
    let claims = table.table_or_empty("claims", &keys::CLAIMS).and_then(read_claims);
    let optional_claims = read_optional_claims(&mut table);
    let own_tokens = read_own_tokens(&mut table);
    let default_roles = read_roles(&mut table);
    let scopes = read_scopes(&mut table);
    let interactive_default = table.at::<AgentId>("interactive_default");
    if let Some(agent) = &interactive_default {
        table.source.refers(agent.span(), Name::Agent(agent.get_ref().clone()));
    }
    let link = account::read_link_client(&mut table, base);
    let jwks_stale_max = table.get::<Period>("jwks_stale_max");
    let sender_constraint = table.get::<Constraint>("sender_constraint");
    let (mut claims, mut optional_claims, mut own_tokens) = (claims, optional_claims, own_tokens);
    if matches!(kind, Some(IssuerKind::Spiffe(_))) {
        // An SVID says who it is, for whom and until when, and may say nothing else.
        claims = Some(ClaimNames { client: vec!["sub".to_owned()], ..ClaimNames::none() });
        optional_claims = Some(OPTIONAL_CLAIMS.map(str::to_owned).to_vec());
        own_tokens = Some(vec![OwnSign::Subject]);
    }
    let introspects = table.has("introspection");
    let introspection = table
        .table("introspection", &keys::INTROSPECTION)
        .and_then(|own| introspection::read(own, &alias, base, loopback_allowed, &mut seen.prefixes).map(Arc::new));
    let registration = registration::of(&mut table, base);
    let leeway = leeway?;
    if leeway.get_ref().0 > crate::limit::LEEWAY_MAX {
        table.mistake(&leeway.span(), "a leeway above 60s keeps expired tokens alive: correct the clocks instead");
    }
    Some(IssuerConfig {
        alias,
        kind: kind?,
        issuer: issuer?,
        audiences: audiences?,
        admin_audiences: admin_audiences?.into_inner(),
        algorithms: algorithms?,
        token_types: token_types?.iter().map(|text| text.to_ascii_lowercase()).collect(),
        token_life_max: token_life_max?.0,
        leeway: leeway.into_inner().0,
        claims: claims?,
        optional_claims: optional_claims?,
        own_tokens: own_tokens?,
        default_roles: default_roles?,
        scopes: scopes?,
        interactive_default: interactive_default.map(Spanned::into_inner),
        jwks_stale_max: jwks_stale_max?.0,
        sender_constraint: match sender_constraint? {
            Constraint::None => SenderConstraint::None,
            Constraint::Dpop => SenderConstraint::Dpop,
            Constraint::Mtls => SenderConstraint::Mtls,
            Constraint::Any => SenderConstraint::Any,
        },
        introspection: if introspects { Some(introspection?) } else { None },
        registration: registration?,
        link,
    })
}

fn read_trust_domain(table: &mut Table<'_, '_>, spiffe: &SpiffeConfig, seen: &mut HashSet<String>) -> Option<String> {
    let name = format!("spiffe://{}", spiffe.trust_domain);
    if !seen.insert(name.clone()) {
        table.mistake(&table.place("trust_domain"), "another alias has the same trust domain: each has one alias");
        return None;
    }
    Some(name)
}

fn read_issuer(table: &mut Table<'_, '_>, loopback_allowed: bool, seen: &mut HashSet<String>) -> Option<String> {
    let text = table.at::<String>("issuer")?;
    let refuse = |message: String| {
        table.mistake(&text.span(), message);
        None
    };
    let url = match http_url(text.get_ref()) {
        Ok(url) if url.query().is_none() => url,
        Ok(_) => return refuse("an issuer has no query: copy `issuer` from its discovery document".to_owned()),
        Err(message) => return refuse(message),
    };
    if (url.scheme() == "http" || is_loopback(&url)) && !loopback_allowed {
        return refuse(
            "an issuer on this machine or over plain HTTP can be impersonated: write https:// and a public name; for \
             development set allow_loopback_issuers = true and listen on 127.0.0.1"
                .to_owned(),
        );
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return refuse("an issuer over plain HTTP can be impersonated: write https://".to_owned());
    }
    if !seen.insert(text.get_ref().clone()) {
        return refuse("another alias has the same issuer: each issuer has one alias".to_owned());
    }
    Some(text.into_inner())
}

fn read_algorithms(table: &mut Table<'_, '_>) -> Option<Vec<Algorithm>> {
    const KNOWN: [(&str, Algorithm); 5] = [
        ("RS256", Algorithm::Rs256),
        ("PS256", Algorithm::Ps256),
        ("ES256", Algorithm::Es256),
        ("ES384", Algorithm::Es384),
        ("EdDSA", Algorithm::EdDsa),
    ];
    let written = table.at::<Vec<Spanned<String>>>("algorithms")?;
    if written.get_ref().is_empty() {
        table.mistake(&written.span(), "no algorithm is left: leave `algorithms` out, or name one");
    }
    let mut algorithms = Vec::new();
    for text in written.into_inner() {
        if let Some((_, algorithm)) = KNOWN.iter().find(|(name, _)| name == text.get_ref()) {
            algorithms.push(*algorithm);
            continue;
        }
        let message = if text.get_ref().starts_with("HS") || text.get_ref() == "none" {
            format!("`{text}` would let everyone who knows the issuer mint tokens: use asymmetric algorithms only")
        } else {
            let near = did_you_mean(text.get_ref(), KNOWN.iter().map(|(name, _)| *name));
            format!("`{text}` is not an accepted algorithm: use RS256, PS256, ES256, ES384 or EdDSA{near}")
        };
        table.mistake(&text.span(), message);
    }
    Some(algorithms)
}

fn read_claims(mut table: Table<'_, '_>) -> Option<ClaimNames> {
    let client = table.get::<Vec<String>>("client");
    let groups = table.get::<String>("groups");
    let scope = table.get::<Vec<String>>("scope");
    let person = table.get::<String>("person");
    let groups_age_max = table.at::<Period>("groups_age_max");
    if let Some(written) = groups_age_max.as_ref().filter(|_| groups.is_none()) {
        table.mistake(&written.span(), "no groups are taken from tokens here: write `groups` as well, or remove this");
    }
    let groups_age_max = groups_age_max.map(|written| written.into_inner().0);
    Some(ClaimNames { client: client?, groups, groups_age_max, scope: scope?, person })
}

fn read_optional_claims(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("optional_claims")?;
    for claim in &written {
        if OPTIONAL_CLAIMS.contains(&claim.get_ref().as_str()) {
            continue;
        }
        let message = match claim.get_ref().as_str() {
            "aud" | "iss" | "exp" | "sub" => {
                format!("`{claim}` can never be left out: without it a token for somebody else would be accepted here")
            }
            _ => format!("`{claim}` is not a claim that can be left out: use {}", OPTIONAL_CLAIMS.join(", ")),
        };
        table.mistake(&claim.span(), message);
    }
    Some(written.into_iter().map(Spanned::into_inner).collect())
}

fn read_own_tokens(table: &mut Table<'_, '_>) -> Option<Vec<OwnSign>> {
    let written = table.get::<Vec<Spanned<String>>>("own_tokens")?;
    let mut signs = Vec::new();
    for text in &written {
        match OwnSign::ALL.iter().find(|sign| sign.as_str() == text.get_ref()) {
            Some(sign) => signs.push(*sign),
            None => {
                let known = OwnSign::ALL.iter().map(|sign| sign.as_str());
                let near = did_you_mean(text.get_ref(), known.clone());
                let known: Vec<&str> = known.collect();
                let message =
                    format!("`{text}` is no sign of a token that software got: use {}{near}", known.join(", "));
                table.mistake(&text.span(), message);
            }
        }
    }
    Some(signs)
}

fn read_roles(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("default_roles")?;
    for role in &written {
        let spelled = role.get_ref().strip_prefix("role:").is_some_and(|name| !name.is_empty());
        if !spelled {
            table.mistake(&role.span(), format!("`{role}` is not a role: write \"role:NAME\", as in policy.csv"));
        }
    }
    Some(written.into_iter().map(Spanned::into_inner).collect())
}

fn read_scopes(table: &mut Table<'_, '_>) -> Option<ScopeMode> {
    let (mode_place, rules_place) = (table.place("scopes"), table.place("scope_rules"));
    let mode = table.get::<Scopes>("scopes");
    let rules: Vec<_> = table.tables("scope_rules", &keys::SCOPE_RULE).into_iter().map(read_scope_rule).collect();
    match mode? {
        Scopes::Ignored if rules.is_empty() => Some(ScopeMode::Ignored),
        Scopes::Ignored => {
            table.mistake(
                &rules_place,
                "scope_rules have no effect while scopes are ignored: write scopes = \"required\"",
            );
            None
        }
        Scopes::Required if rules.is_empty() => {
            table.mistake(&mode_place, "scopes = \"required\" needs scope_rules: name a scope, an object and actions");
            None
        }
        Scopes::Required => rules.into_iter().collect::<Option<_>>().map(ScopeMode::Required),
    }
}

fn read_scope_rule(mut table: Table<'_, '_>) -> Option<ScopeRule> {
    let scope = table.at::<String>("scope");
    let object = table.at::<String>("object");
    let actions = table.get::<Vec<Spanned<String>>>("actions");
    if let Some(scope) = scope.as_ref().filter(|scope| !is_scope_token(scope.get_ref())) {
        table.mistake(&scope.span(), format!("`{scope}` is not a scope: write one, without spaces or quotation marks"));
    }
    if let Some(object) = object.as_ref().filter(|object| !object.get_ref().contains('/')) {
        table.mistake(&object.span(), format!("`{object}` is not an object: write server/name, such as notes/*"));
    }
    let mut names = Vec::new();
    for action in actions? {
        if Action::parse(action.get_ref()).is_none() {
            let known = ["call", "read", "get", "complete", "subscribe", "elicit", "sample", "roots", "admin"];
            let near = did_you_mean(action.get_ref(), known);
            table.mistake(&action.span(), format!("`{action}` is not an action: use {}{near}", known.join(", ")));
        }
        names.push(action.into_inner());
    }
    Some(ScopeRule { scope: scope?.into_inner(), object: object?.into_inner(), actions: names })
}

/// `scope-token` of RFC 6749, section 3.3.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}
