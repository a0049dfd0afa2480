//! What a client is told about where to get a token: RFC 9728 metadata and `WWW-Authenticate` challenges.
//!
//! Decides the bytes. Refuses to know who asks: the metadata of any well-formed resource name is built
//! alike, so that it tells nobody which servers exist. Invariant: no value can leave its quotes.

use serde::Serialize;

use super::resource::{Resource, ResourceNames};
use crate::config::{Config, ScopeMode};
use crate::outcome::Reason;
use crate::outcome::reason::Channel;

/// The RFC 9728 metadata document of a resource, as JSON.
#[must_use]
pub fn metadata(config: &Config, names: &ResourceNames, resource: &Resource) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        resource: String,
        authorization_servers: Vec<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scopes_supported: Vec<&'a str>,
        bearer_methods_supported: [&'static str; 1],
        resource_name: &'static str,
    }
    let document = Document {
        resource: names.uri(resource),
        authorization_servers: config.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect(),
        scopes_supported: scopes_supported(config),
        bearer_methods_supported: ["header"],
        resource_name: "Bailiwick",
    };
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Every scope that some issuer's entries require, each once, in the order of the file.
///
/// The catalogue of scopes is the administrator's; it does not say which servers exist.
#[must_use]
pub fn scopes_supported(config: &Config) -> Vec<&str> {
    let mut scopes: Vec<&str> = Vec::new();
    for issuer in &config.issuers {
        if let ScopeMode::Required(rules) = &issuer.scopes {
            for rule in rules {
                // A client asks for a refresh token by itself; a resource never requires one.
                if rule.scope != "offline_access" && !scopes.contains(&rule.scope.as_str()) {
                    scopes.push(&rule.scope);
                }
            }
        }
    }
    scopes
}

/// The value of `WWW-Authenticate` for a refusal, where its channel has one (RFC 6750 section 3, RFC 9728 section 5.1).
///
/// `scopes` are all that the operation needs; without any the parameter is left out. A request without a
/// credential is told where to go and nothing else, as RFC 6750 section 3.1 wants.
#[must_use]
pub fn challenge(
    names: &ResourceNames,
    resource: &Resource,
    reason: Reason,
    hint: &str,
    scopes: &[&str],
) -> Option<String> {
    let error = match (reason.channel(), reason) {
        (Channel::Unauthorized, Reason::TokenMissing) => None,
        (Channel::Unauthorized, _) => Some("invalid_token"),
        (Channel::InsufficientScope, _) => Some("insufficient_scope"),
        _ => return None,
    };
    let mut value = format!("Bearer resource_metadata=\"{}\"", quotable(&names.metadata_url(resource)));
    if let Some(error) = error {
        value.push_str(&format!(", error=\"{error}\", error_description=\"{reason}: {}\"", quotable(hint)));
    }
    if !scopes.is_empty() {
        value.push_str(&format!(", scope=\"{}\"", quotable(&scopes.join(" "))));
    }
    Some(value)
}

/// RFC 6750 allows `%x20-21 / %x23-5B / %x5D-7E` in these values: no quote, no backslash, no control.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~')).collect()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::ids::ServerId;

    fn names() -> ResourceNames {
        ResourceNames::new(&Url::parse("https://gw.example").unwrap())
    }

    #[test]
    fn a_request_without_a_token_is_told_where_to_go_and_nothing_else() {
        let value = challenge(&names(), &Resource::Gateway, Reason::TokenMissing, "hint", &["tools", "read"]).unwrap();
        assert_eq!(
            value,
            "Bearer resource_metadata=\"https://gw.example/.well-known/oauth-protected-resource/mcp\", scope=\"tools read\""
        );
    }

    #[test]
    fn a_bad_token_is_named_as_one() {
        let server = Resource::Server(ServerId::new("git").unwrap());
        let value = challenge(&names(), &server, Reason::TokenExpired, Reason::TokenExpired.hint(), &[]).unwrap();
        assert!(value.contains("error=\"invalid_token\"") && value.contains("token_expired"), "{value}");
        assert!(value.contains("oauth-protected-resource/mcp/git\""), "{value}");
        let value = challenge(&names(), &server, Reason::InsufficientScope, "x", &["deploy"]).unwrap();
        assert!(value.contains("error=\"insufficient_scope\"") && value.contains("scope=\"deploy\""), "{value}");
    }

    #[test]
    fn a_refusal_that_a_token_does_not_cure_has_no_challenge() {
        assert_eq!(challenge(&names(), &Resource::Gateway, Reason::AgentUnknown, "x", &[]), None);
        assert_eq!(challenge(&names(), &Resource::Gateway, Reason::IssuerUnavailable, "x", &[]), None);
    }

    #[test]
    fn no_value_can_leave_its_quotes() {
        let value = challenge(&names(), &Resource::Gateway, Reason::TokenMalformed, "a\"b\\c\r\nX: y\u{e9}", &["s\"x"])
            .unwrap();
        assert!(value.contains("abcX: y\"") && value.contains("scope=\"sx\""), "{value}");
        assert!(http::HeaderValue::from_str(&value).is_ok());
    }

    #[test]
    fn the_metadata_names_the_resource_the_issuers_and_the_scopes() {
        let config = crate::identity::fixture::config();
        let document = metadata(&config, &ResourceNames::new(&config.gateway.public_url), &Resource::Gateway);
        let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["resource"], "https://gw.example/mcp");
        assert_eq!(document["authorization_servers"][0], "https://idp.example");
        assert_eq!(document["bearer_methods_supported"][0], "header");
        assert_eq!(document["scopes_supported"], serde_json::json!(["deploy"]));
    }
}
