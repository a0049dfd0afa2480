//! Reads what is written of accounts that callers link: a server's credential, and an issuer's client for it.
//!
//! Invariant: an authorization server that is written is one that nobody can impersonate.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

use super::address::{http_url, is_loopback};
use super::credential::secret;
use crate::config::leaf::Period;
use crate::config::reader::Table;
use crate::config::{CredentialConfig, LinkClient, OauthConfig};

/// Which keys mean something for an account.
pub const OAUTH_KEYS: &[&str] = &["issuer", "client_id", "client_secret", "resource", "scope", "use_max"];

/// Reads a credential of the kind `oauth`.
pub fn read_oauth(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let issuer = table.at::<String>("issuer");
    let client_id = table.at::<String>("client_id");
    let has_secret = table.has("client_secret").then(|| table.place("client_secret"));
    let client_secret = secret(&mut table, "client_secret", base);
    let resource = table.at::<String>("resource");
    let scope = table.get::<String>("scope");
    let use_max = table.get::<Period>("use_max");
    if let Some(text) = &issuer {
        let message = match http_url(text.get_ref()) {
            Ok(url) if url.scheme() == "http" && !is_loopback(&url) => {
                Some("tokens would travel in the clear: write https://".to_owned())
            }
            Ok(url) if url.query().is_some() => {
                Some("an issuer has no query: copy `issuer` from its discovery document".to_owned())
            }
            Ok(_) => None,
            Err(message) => Some(message),
        };
        if let Some(message) = message {
            table.mistake(&text.span(), message);
        }
    }
    if let (Some(place), None) = (has_secret, &client_id) {
        table.mistake(&place, "a secret without a client: write the `client_id` that it belongs to");
    }
    if let (Some(client), None) = (&client_id, &issuer) {
        let message = "a client is registered at one authorization server: write which as `issuer`, so \
                       that no other is ever told of it";
        table.mistake(&client.span(), message);
    }
    if let Some(resource) = resource.as_ref() {
        let absolute = url::Url::parse(resource.get_ref()).is_ok_and(|url| url.fragment().is_none());
        if !absolute {
            table.mistake(
                &resource.span(),
                "a resource is an absolute URI without a fragment (RFC 8707): write https://...",
            );
        }
    }
    Some(CredentialConfig::Oauth(Arc::new(OauthConfig {
        issuer: issuer.map(Spanned::into_inner),
        client_id: client_id.map(Spanned::into_inner),
        client_secret,
        resource: resource.map(Spanned::into_inner),
        scope,
        use_max: use_max?.0,
    })))
}

/// Reads an issuer's client for people who link an account.
pub fn read_link_client(table: &mut Table<'_, '_>, base: &Path) -> Option<LinkClient> {
    let place = table.place("link_client_secret");
    let has_secret = table.has("link_client_secret");
    let client_id = table.get::<String>("link_client_id");
    let client_secret = secret(table, "link_client_secret", base);
    if has_secret && client_id.is_none() {
        table.mistake(&place, "a secret without a client: write the `link_client_id` that it belongs to");
    }
    client_id.map(|client_id| LinkClient { client_id, client_secret })
}
