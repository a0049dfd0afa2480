//! Reads `[issuers.ALIAS.introspection]`: how opaque tokens are asked about, and whose each of them is.
//!
//! Invariant: at most one issuer takes opaque tokens without a prefix, and no prefix is the beginning of another
//! issuer's, so that no token is ever shown to two issuers.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::address::{http_url, is_loopback};
use super::credential::secret;
use crate::config::reader::Table;
use crate::config::{API_KEY_PREFIX as KEY_PREFIX, IntrospectionConfig, IntrospectionProof, Nameless};
use crate::ids::IssuerAlias;
use crate::limit;

/// Whose opaque tokens begin with what, of the issuers that were read so far.
#[derive(Debug, Default)]
pub struct Prefixes(Vec<(IssuerAlias, Option<String>)>);

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum WithoutSubject {
    Refused,
    Client,
}

/// Reads one; `None` was reported.
pub fn read(
    mut table: Table<'_, '_>,
    alias: &IssuerAlias,
    base: &Path,
    loopback_allowed: bool,
    prefixes: &mut Prefixes,
) -> Option<IntrospectionConfig> {
    let endpoint_written = table.has("endpoint");
    let endpoint = table.at::<String>("endpoint").and_then(|text| match http_url(text.get_ref()) {
        Ok(url) if url.scheme() == "http" && !(is_loopback(&url) && loopback_allowed) => {
            table.mistake(&text.span(), "tokens and our secret would travel in the clear: write https://");
            None
        }
        Ok(url) => Some(url),
        Err(message) => {
            table.mistake(&text.span(), message);
            None
        }
    });
    let client_id = table.at::<String>("client_id");
    if let Some(empty) = client_id.as_ref().filter(|id| id.get_ref().is_empty()) {
        table.mistake(&empty.span(), "a client id is not empty: write the one that the issuer gave the gateway");
    }
    let proof = read_proof(&mut table, base);
    let prefix_place = if table.has("prefix") { table.place("prefix") } else { table.span.clone() };
    let prefix = table.at::<String>("prefix");
    if let Some(prefix) = &prefix {
        check_prefix(&table, prefix);
    }
    let prefix = prefix.map(Spanned::into_inner);
    if let Some(message) = prefixes.clash(alias, prefix.as_deref()) {
        table.mistake(&prefix_place, message);
    }
    let nameless = match table.get::<WithoutSubject>("without_sub")? {
        WithoutSubject::Refused => Nameless::Refused,
        WithoutSubject::Client => Nameless::Client,
    };
    if endpoint_written && endpoint.is_none() {
        return None;
    }
    Some(IntrospectionConfig { endpoint, client_id: client_id?.into_inner(), proof: proof?, prefix, nameless })
}

fn read_proof(table: &mut Table<'_, '_>, base: &Path) -> Option<IntrospectionProof> {
    let place = |table: &Table<'_, '_>, key: &str| -> Range<usize> { table.place(key) };
    let (has_secret, has_key) = (table.has("client_secret"), table.has("private_key"));
    let (at_key, at_id) = (place(table, "private_key"), place(table, "key_id"));
    let client_secret = secret(table, "client_secret", base);
    let private_key = secret(table, "private_key", base);
    let id = table.get::<String>("key_id");
    match (has_secret, has_key) {
        (true, true) => {
            table.mistake(&at_key, "a client proves itself in one way: keep client_secret or private_key");
            None
        }
        (false, false) => {
            let message = "an issuer tells nobody about tokens who does not prove who asks: write client_secret = \
                           \"env:NAME\", or private_key = \"file:PATH\"";
            table.mistake(&table.span, message);
            None
        }
        (true, false) => {
            if id.is_some() {
                table.mistake(&at_id, "`key_id` means nothing for a secret: remove it");
            }
            client_secret.map(IntrospectionProof::Secret)
        }
        (false, true) => private_key.map(|key| IntrospectionProof::PrivateKey { key, id }),
    }
}

fn check_prefix(table: &Table<'_, '_>, prefix: &Spanned<String>) {
    let text = prefix.get_ref();
    let spelled = (1..=limit::TOKEN_PREFIX_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    if !spelled {
        let message = format!(
            "`{text}` begins no token: write 1 to {} letters, digits and -._~+/",
            limit::TOKEN_PREFIX_BYTES_MAX
        );
        table.mistake(&prefix.span(), message);
    } else if text.starts_with(KEY_PREFIX) || KEY_PREFIX.starts_with(text.as_str()) {
        table.mistake(&prefix.span(), format!("`{KEY_PREFIX}` begins the gateway's own API keys: use another prefix"));
    } else if "eyJ".starts_with(text.as_str()) || text.starts_with("eyJ") {
        table.mistake(&prefix.span(), "`eyJ` begins JWTs, which are verified here: use another prefix");
    }
}

impl Prefixes {
    /// Takes another issuer's prefix down; says what is wrong with it beside those before.
    fn clash(&mut self, alias: &IssuerAlias, prefix: Option<&str>) -> Option<String> {
        let same_start = |one: &str, other: &str| one.starts_with(other) || other.starts_with(one);
        let found = self.0.iter().find_map(|(other, known)| match (known.as_deref(), prefix) {
            (None, None) => Some(format!(
                "the opaque tokens of `{other}` have no prefix either, so nobody could tell whose one is: write prefix = \
                 \"...\" for one of the two"
            )),
            (Some(known), Some(prefix)) if same_start(known, prefix) => Some(format!(
                "the opaque tokens of `{other}` begin with `{known}`, so nobody could tell whose one is: neither may be \
                 the beginning of the other"
            )),
            _ => None,
        });
        self.0.push((alias.clone(), prefix.map(str::to_owned)));
        found
    }
}
