//! What a client is told about where to get a token: RFC 9728 metadata, and challenges (RFC 6750).
//!
//! `public_url` is the only source of names, never `Host`. Refuses to know which servers exist: any
//! well-formed name is answered alike. Invariant: no value can leave its quotes.

use std::sync::Arc;

use serde::Serialize;

use crate::call::Endpoint;
use crate::config::spiffe::IssuerKind;
use crate::config::{Config, IssuerConfig, ScopeMode, SenderConstraint};
use crate::facade;
use crate::identity::PROOF_ALGORITHMS;
use crate::ids::ServerId;
use crate::outcome::reply::Challenge;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What clients are to find, and where: for whoever looks from outside whether they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// The endpoint that the document is about.
    pub resource: String,
    /// Where RFC 9728 has clients look: the well-known part between host and path.
    pub place: String,
    /// Where clients look that know nothing but the host.
    pub root: String,
    /// The document.
    pub document: serde_json::Value,
}

/// What this configuration has the gateway tell of `/mcp`.
#[must_use]
pub fn advertised(config: &Config) -> Advertised {
    let names = Names::new(config);
    let resource = format!("{}/mcp", names.base);
    Advertised {
        place: format!("{}{WELL_KNOWN}{resource}", names.origin),
        root: format!("{}{WELL_KNOWN}", names.origin),
        document: serde_json::from_slice(&names.document(&Endpoint::Merged)).unwrap_or_default(),
        resource: format!("{}{resource}", names.origin),
    }
}

/// A resource of ours, as RFC 9728 describes one.
#[derive(Debug, Clone, Copy)]
pub struct Protected<'a> {
    /// What tokens are for.
    pub resource: &'a str,
    /// Who issues them.
    pub issuers: &'a [String],
    /// Scopes that some operation needs.
    pub scopes: &'a [String],
    /// What people call it.
    pub name: &'static str,
    /// How tokens may be bound to whoever they were issued to; nothing where that is not looked at.
    pub bound: Option<Bound>,
}

/// How tokens may be bound to whoever they were issued to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// No token is taken without a DPoP proof (RFC 9449).
    pub by_key_always: bool,
    /// Client certificates are seen here (RFC 8705).
    pub by_certificate: bool,
}

impl Bound {
    /// What a configuration has of it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let gateway = &config.gateway;
        let must = |issuer: &Arc<IssuerConfig>| issuer.sender_constraint == SenderConstraint::Dpop;
        Self {
            by_key_always: !config.issuers.is_empty() && config.issuers.iter().all(must),
            by_certificate: gateway.client_ca.is_some()
                || gateway.client_certificate_header.is_some()
                || gateway.tls.is_some() && config.issuers.iter().any(|issuer| issuer.kind != IssuerKind::Oidc),
        }
    }
}

impl Protected<'_> {
    /// The document.
    #[must_use]
    pub fn document(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            resource: &'a str,
            authorization_servers: &'a [String],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            scopes_supported: &'a [String],
            bearer_methods_supported: [&'static str; 1],
            resource_name: &'static str,
            #[serde(skip_serializing_if = "<[&'static str]>::is_empty")]
            dpop_signing_alg_values_supported: &'a [&'static str],
            #[serde(skip_serializing_if = "is_false")]
            dpop_bound_access_tokens_required: bool,
            #[serde(skip_serializing_if = "is_false")]
            tls_client_certificate_bound_access_tokens: bool,
        }
        let document = Document {
            resource: self.resource,
            authorization_servers: self.issuers,
            scopes_supported: self.scopes,
            bearer_methods_supported: ["header"],
            resource_name: self.name,
            dpop_signing_alg_values_supported: self.bound.map_or(&[][..], |_| &PROOF_ALGORITHMS),
            dpop_bound_access_tokens_required: self.bound.is_some_and(|bound| bound.by_key_always),
            tls_client_certificate_bound_access_tokens: self.bound.is_some_and(|bound| bound.by_certificate),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// The names of our resources, and the scopes that some operation needs.
#[derive(Debug)]
pub(super) struct Names {
    /// Scheme and authority of the public URL.
    origin: String,
    /// Its path, empty or with a leading slash.
    base: String,
    issuers: Vec<String>,
    scopes: Vec<String>,
    bound: Bound,
}

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let url = &config.gateway.public_url;
        let mut scopes: Vec<String> = Vec::new();
        for issuer in &config.issuers {
            let ScopeMode::Required(rules) = &issuer.scopes else { continue };
            for rule in rules {
                // A client asks for refresh tokens by itself; no operation of ours needs one.
                if rule.scope != "offline_access" && !scopes.contains(&rule.scope) {
                    scopes.push(rule.scope.clone());
                }
            }
        }
        Self {
            origin: url.origin().ascii_serialization(),
            base: url.path().trim_end_matches('/').to_owned(),
            issuers: authorization_servers(config),
            scopes,
            bound: Bound::of(config),
        }
    }

    /// A path without the public URL's own, for a proxy in front that does not take that away.
    pub(super) fn relative<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.base.as_str()).filter(|rest| rest.starts_with('/')).unwrap_or(path)
    }

    /// Which resource a well-known path is about; `None` if it is not ours.
    pub(super) fn resource(&self, path: &str) -> Option<Endpoint> {
        let rest = path.strip_prefix(WELL_KNOWN)?;
        match rest {
            "" | "/" => Some(Endpoint::Merged),
            _ => endpoint(self.relative(rest)),
        }
    }

    /// The RFC 9728 document of a resource.
    pub(super) fn document(&self, endpoint: &Endpoint) -> Vec<u8> {
        let resource = format!("{}{}{}", self.origin, self.base, path(endpoint));
        let bound = Some(self.bound);
        Protected { resource: &resource, issuers: &self.issuers, scopes: &self.scopes, name: "Bailiwick", bound }
            .document()
    }

    /// The value of `WWW-Authenticate`.
    pub(super) fn challenge(&self, endpoint: &Endpoint, challenge: &Challenge) -> String {
        let mut value = format!(
            "Bearer resource_metadata=\"{}\"",
            quotable(&format!("{}{WELL_KNOWN}{}{}", self.origin, self.base, path(endpoint)))
        );
        let scopes = match challenge {
            Challenge::Token { presented } => {
                if *presented {
                    value.push_str(", error=\"invalid_token\"");
                }
                &self.scopes
            }
            Challenge::Scope(scopes) => {
                value.push_str(", error=\"insufficient_scope\"");
                scopes
            }
        };
        if !scopes.is_empty() {
            value.push_str(&format!(", scope=\"{}\"", quotable(&scopes.join(" "))));
        }
        value
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Those that clients can ask for tokens: a trust domain gives its workloads theirs in another way.
#[must_use]
pub fn authorization_servers(config: &Config) -> Vec<String> {
    let issuers = config.issuers.iter().filter(|issuer| issuer.kind == IssuerKind::Oidc);
    issuers.map(|issuer| authorization_server(config, issuer)).collect()
}

/// Where assistants get tokens of an issuer: there, or here where it registers nobody.
fn authorization_server(config: &Config, issuer: &IssuerConfig) -> String {
    match issuer.registration {
        Some(_) => facade::issuer_url(&config.gateway.public_url, &issuer.alias),
        None => issuer.issuer.clone(),
    }
}

/// `/mcp` and `/mcp/{server}`, without a query.
pub(super) fn endpoint(path: &str) -> Option<Endpoint> {
    match path.strip_prefix("/mcp")? {
        "" | "/" => Some(Endpoint::Merged),
        rest => ServerId::new(rest.strip_prefix('/')?).ok().map(Endpoint::Server),
    }
}

fn path(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Merged => "/mcp".to_owned(),
        Endpoint::Server(server) => format!("/mcp/{server}"),
    }
}

/// RFC 6750 section 3: no quote, no backslash, no control, ASCII only.
#[must_use]
pub fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~')).collect()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::front::fixture;

    fn names(public_url: &str) -> Names {
        let mut config = fixture::config();
        config.gateway.public_url = Url::parse(public_url).unwrap();
        Names { scopes: vec!["tools:call".into(), "a\"b\\\r\n".into()], ..Names::new(&config) }
    }

    fn server(name: &str) -> Endpoint {
        Endpoint::Server(ServerId::new(name).unwrap())
    }

    #[test]
    fn every_well_formed_name_has_metadata_and_nothing_else_has() {
        let names = names("https://gw.example/");
        let known = |path: &str| names.resource(path);
        assert_eq!(known("/.well-known/oauth-protected-resource"), Some(Endpoint::Merged));
        assert_eq!(known("/.well-known/oauth-protected-resource/mcp"), Some(Endpoint::Merged));
        assert_eq!(known("/.well-known/oauth-protected-resource/mcp/git"), Some(server("git")));
        assert_eq!(known("/.well-known/oauth-protected-resource/mcp/not-there"), Some(server("not-there")));
        for path in ["x", "/other", "/mcpx", "/mcp/A", "/mcp/a/b", "/mcp/../mcp"] {
            assert_eq!(known(&format!("/.well-known/oauth-protected-resource{path}")), None, "{path}");
        }
    }

    #[test]
    fn a_public_url_with_a_path_is_part_of_every_name() {
        let names = names("https://gw.example:8443/tools/");
        assert_eq!(names.resource("/.well-known/oauth-protected-resource/tools/mcp/git"), Some(server("git")));
        let document: serde_json::Value = serde_json::from_slice(&names.document(&server("git"))).unwrap();
        assert_eq!(document["resource"], "https://gw.example:8443/tools/mcp/git");
        let challenge = names.challenge(&server("git"), &Challenge::Token { presented: false });
        assert!(
            challenge.contains("\"https://gw.example:8443/.well-known/oauth-protected-resource/tools/mcp/git\""),
            "{challenge}"
        );
        assert_eq!(names.relative("/tools/mcp"), "/mcp");
        assert_eq!(names.relative("/toolsmcp"), "/toolsmcp");
    }

    #[test]
    fn a_challenge_names_an_error_only_when_a_token_came_and_cannot_leave_its_quotes() {
        let names = names("https://gw.example");
        let absent = names.challenge(&Endpoint::Merged, &Challenge::Token { presented: false });
        assert_eq!(
            absent,
            "Bearer resource_metadata=\"https://gw.example/.well-known/oauth-protected-resource/mcp\", scope=\"tools:call ab\""
        );
        let bad = names.challenge(&Endpoint::Merged, &Challenge::Token { presented: true });
        assert!(bad.contains("error=\"invalid_token\""), "{bad}");
        let scope = names.challenge(&Endpoint::Merged, &Challenge::Scope(vec!["x".into(), "y\"\r\nz: 1".into()]));
        assert!(scope.contains("error=\"insufficient_scope\"") && scope.ends_with("scope=\"x yz: 1\""), "{scope}");
        assert!(http::HeaderValue::from_str(&scope).is_ok());
    }
}
