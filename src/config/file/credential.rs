//! Reads what is presented to an upstream, and refuses secrets that are written down.
//!
//! Invariant: a secret is a reference. What looks like one and stands in the file is a mistake, because the
//! file is reviewed, copied and kept.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::{account, token_request};
use crate::config::leaf::{Day, Period};
use crate::config::reader::Table;
use crate::config::{CredentialConfig, OnStale, SecretReference, StaticConfig, keys};
use crate::limit;

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    None,
    Static,
    Exchange,
    ClientCredentials,
    IdJag,
    Oauth,
}

/// Which keys mean something for a static secret.
const STATIC_KEYS: &[&str] = &["header", "prefix", "secret", "max_age", "rotated_at", "on_stale"];
/// Which do for everything that is asked of an authorization server.
const ASKED_KEYS: &[&str] = &[
    "issuer",
    "token_endpoint",
    "revocation_endpoint",
    "client_id",
    "client_secret",
    "client_auth",
    "private_key",
    "private_key_algorithm",
    "private_key_id",
    "resource",
    "scope",
    "extra",
    "use_max",
    "token_life_max",
];

impl Kind {
    /// Which keys mean something for it, besides `kind`.
    fn keys(self) -> Vec<&'static str> {
        let (shared, own): (&[&str], &[&str]) = match self {
            Self::None => (&[], &[]),
            Self::Static => (STATIC_KEYS, &[]),
            Self::Exchange => (ASKED_KEYS, &["audience", "actor_token", "actor_token_type"]),
            Self::ClientCredentials => (ASKED_KEYS, &["assertion", "audience"]),
            Self::IdJag => (ASKED_KEYS, &["identity_provider"]),
            Self::Oauth => (account::OAUTH_KEYS, &[]),
        };
        shared.iter().chain(own).copied().collect()
    }
}

/// Reads one credential.
pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let kind = table.get::<Kind>("kind")?;
    let meant = kind.keys();
    let foreign = keys::CREDENTIAL.keys.iter().map(|key| key.name).filter(|key| *key != "kind" && !meant.contains(key));
    for key in foreign.filter(|key| table.has(key)) {
        table.mistake(&table.place(key), format!("`{key}` means nothing for this kind of credential: remove it"));
    }
    match kind {
        Kind::None => Some(CredentialConfig::None),
        Kind::Static => read_static(table, base),
        Kind::Exchange => token_request::read_exchange(table, base),
        Kind::ClientCredentials => token_request::read_client_credentials(table, base),
        Kind::IdJag => token_request::read_id_jag(table, base),
        Kind::Oauth => account::read_oauth(table, base),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnStaleText {
    Warn,
    Refuse,
}

/// One reference, or two of which the second is the one before or after.
#[derive(Deserialize)]
#[serde(untagged)]
enum Slots {
    One(String),
    Many(Vec<String>),
}

fn read_static(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let header = table.at::<String>("header");
    let prefix = table.get::<String>("prefix");
    let written = table.has("secret");
    let slots = read_slots(&mut table, base);
    let max_age = table.get::<Period>("max_age");
    let rotated_at = table.at::<Day>("rotated_at");
    let on_stale_written = table.has("on_stale").then(|| table.place("on_stale"));
    let on_stale = table.get::<OnStaleText>("on_stale");
    if !written {
        table.mistake(&table.span, "a static credential has no `secret`: write secret = \"env:NAME\" or \"file:PATH\"");
    }
    if max_age.is_none()
        && let Some(place) = &on_stale_written
    {
        table.mistake(place, "nothing is stale without a `max_age`: write one, or remove on_stale");
    }
    let header = header?;
    let name = header.get_ref().to_ascii_lowercase();
    if let Err(message) = header_name(&name).and_then(|()| free_for_a_credential(&name)) {
        table.mistake(&header.span(), message);
    }
    let slots = slots?;
    if max_age.is_some()
        && rotated_at.is_none()
        && let Some(slot) = slots.iter().find(|slot| !matches!(slot, SecretReference::File(_)))
    {
        let message = format!("nobody knows how old {slot} is: write rotated_at = 2027-03-31, or keep it in a file");
        table.mistake(&table.span, message);
    }
    let usual = if name == "authorization" { "Bearer " } else { "" };
    Some(CredentialConfig::Static(Arc::new(StaticConfig {
        prefix: prefix.unwrap_or_else(|| usual.to_owned()),
        header: name,
        slots,
        max_age: max_age.map(|age| age.0),
        rotated_at: rotated_at.and_then(|day| start_of(day.get_ref().0)),
        on_stale: match on_stale? {
            OnStaleText::Warn => OnStale::Warn,
            OnStaleText::Refuse => OnStale::Refuse,
        },
    })))
}

fn start_of(day: jiff::civil::Date) -> Option<i64> {
    Some(jiff::tz::Offset::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).ok()?.as_second())
}

fn read_slots(table: &mut Table<'_, '_>, base: &Path) -> Option<Vec<SecretReference>> {
    let written = table.at::<Slots>("secret")?;
    let place = written.span();
    let texts = match written.into_inner() {
        Slots::One(text) => vec![text],
        Slots::Many(texts) => texts,
    };
    if texts.is_empty() || texts.len() > limit::SECRET_SLOTS_MAX {
        table.mistake(&place, "a secret has one place, or two while it is changed: write [\"env:NEW\", \"env:OLD\"]");
        return None;
    }
    let mut slots = Vec::with_capacity(texts.len());
    for text in &texts {
        match reference(text, base) {
            Ok(slot) if slots.contains(&slot) => table.mistake(&place, "both places of the secret are the same"),
            Ok(slot) => slots.push(slot),
            Err(message) => table.mistake(&place, message),
        }
    }
    (slots.len() == texts.len()).then_some(slots)
}

pub fn secret(table: &mut Table<'_, '_>, key: &str, base: &Path) -> Option<SecretReference> {
    let text = table.at::<String>(key)?;
    match reference(text.get_ref(), base) {
        Ok(reference) => Some(reference),
        Err(message) => {
            table.mistake(&text.span(), message);
            None
        }
    }
}

/// Reads a reference; a relative path starts from the directory of the file.
pub fn reference(text: &str, base: &Path) -> Result<SecretReference, String> {
    Ok(match SecretReference::parse(text)? {
        SecretReference::File(path) => SecretReference::File(base.join(path)),
        other => other,
    })
}

/// Reads a value of a child's environment: a reference, or plain text that is no secret.
pub fn variable(name: &str, text: &str, base: &Path) -> Result<SecretReference, String> {
    if ["env:", "file:", "exec:"].iter().any(|scheme| text.starts_with(scheme)) {
        return reference(text, base);
    }
    if names_a_secret(name) || looks_like_a_secret(text) {
        return Err(format!(
            "`{name}` looks like a secret, and a secret is never written here: use env:NAME or file:PATH"
        ));
    }
    Ok(SecretReference::Plain(text.to_owned()))
}

/// Whether a name says that its value is a secret.
pub fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIAL",
        "CREDENTIALS",
        "APIKEY",
        "KEY",
        "PAT",
        "AUTH",
        "BEARER",
    ];
    // `KEY` in `SSH_KEY_PATH` names a place, and `MONKEY` no key at all.
    let upper = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let words: Vec<&str> = upper.split('_').collect();
    let place = words.last().is_some_and(|last| ["PATH", "FILE", "DIR", "URL", "ID", "NAME", "TYPE"].contains(last));
    !place && words.iter().any(|word| WORDS.contains(word) || word.ends_with("PASSWORD"))
}

/// Whether a text has the form of a credential: a known prefix, a private key, a JWT.
pub fn looks_like_a_secret(text: &str) -> bool {
    const PREFIXES: [&str; 19] = [
        "bwk_",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "sk-",
        "sk_live_",
        "rk_live_",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "AKIA",
        "ASIA",
        "AIza",
        "npm_",
        "pypi-",
    ];
    let key = text.contains("-----BEGIN") && text.contains("PRIVATE KEY");
    let jwt = text.starts_with("eyJ") && text.matches('.').count() >= 2;
    key || jwt || (text.len() >= 16 && PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
}

/// Checks a header's name (RFC 9110, section 5.1), lower case.
pub fn header_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("`{name}` is not a header name: write one such as x-api-key"));
    }
    Ok(())
}

/// Whether a header is the transport's or the protocol's and nobody else may set it.
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "origin",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    NAMES.contains(&name) || name.starts_with("mcp-") || name.starts_with("proxy-") || name.starts_with("sec-")
}

fn free_for_a_credential(name: &str) -> Result<(), String> {
    if is_reserved(name) {
        return Err(format!(
            "`{name}` is set by the transport: a credential goes into authorization or a header of the server's own"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_plain_text_is_recognised_by_its_name_or_by_its_form() {
        let base = Path::new("/etc/bailiwick");
        for (name, value) in [
            ("GITHUB_TOKEN", "x"),
            ("db-password", "x"),
            ("PGPASSWORD", "x"),
            ("API_KEY", "x"),
            ("SETTING", "ghp_0123456789abcdefghij"),
            ("SETTING", "eyJhbGciOi.eyJzdWIi.c2ln"),
            ("SETTING", "-----BEGIN RSA PRIVATE KEY-----"),
        ] {
            assert!(variable(name, value, base).is_err(), "{name}={value}");
        }
        for (name, value) in
            [("LANG", "C.UTF-8"), ("SSH_KEY_PATH", "/run/key"), ("MONKEY", "x"), ("CLIENT_ID", "x"), ("M", "sk-x")]
        {
            assert_eq!(
                variable(name, value, base).unwrap(),
                SecretReference::Plain(value.to_owned()),
                "{name}={value}"
            );
        }
        assert_eq!(variable("API_KEY", "env:KEY", base).unwrap(), SecretReference::Environment("KEY".to_owned()));
        let file = variable("API_KEY", "file:key.txt", base).unwrap();
        assert_eq!(file, SecretReference::File("/etc/bailiwick/key.txt".into()));
    }
}
