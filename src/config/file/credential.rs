//! Reads what is presented to an upstream, and refuses secrets that are written down.
//!
//! Invariant: a secret is a reference. What looks like one and stands in the file is a mistake, because the
//! file is reviewed, copied and kept.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::address::{http_url, is_loopback};
use crate::config::leaf::Period;
use crate::config::reader::Table;
use crate::config::{CredentialConfig, ExchangeConfig, SecretReference};

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    None,
    Static,
    Exchange,
}

/// Which keys mean something for which kind.
const STATIC_KEYS: [&str; 3] = ["header", "prefix", "secret"];
const EXCHANGE_KEYS: [&str; 7] =
    ["token_endpoint", "client_id", "client_secret", "audience", "resource", "scope", "use_max"];

/// Reads one credential.
pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let kind = table.get::<Kind>("kind")?;
    let foreign: &[&[&str]] = match kind {
        Kind::None => &[&STATIC_KEYS, &EXCHANGE_KEYS],
        Kind::Static => &[&EXCHANGE_KEYS],
        Kind::Exchange => &[&STATIC_KEYS],
    };
    for key in foreign.iter().copied().flatten().filter(|key| table.has(key)) {
        table.mistake(&table.place(key), format!("`{key}` means nothing for this kind of credential: remove it"));
    }
    match kind {
        Kind::None => Some(CredentialConfig::None),
        Kind::Static => read_static(table, base),
        Kind::Exchange => read_exchange(table, base),
    }
}

fn read_static(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let header = table.at::<String>("header");
    let prefix = table.get::<String>("prefix");
    let written = table.has("secret");
    let secret = secret(&mut table, "secret", base);
    if !written {
        table.mistake(&table.span, "a static credential has no `secret`: write secret = \"env:NAME\" or \"file:PATH\"");
    }
    let header = header?;
    let name = header.get_ref().to_ascii_lowercase();
    if let Err(message) = header_name(&name).and_then(|()| free_for_a_credential(&name)) {
        table.mistake(&header.span(), message);
    }
    let usual = if name == "authorization" { "Bearer " } else { "" };
    Some(CredentialConfig::Static { prefix: prefix.unwrap_or_else(|| usual.to_owned()), header: name, secret: secret? })
}

fn read_exchange(mut table: Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    let token_endpoint = table.at::<String>("token_endpoint");
    let client_id = table.get::<String>("client_id");
    let client_secret = secret(&mut table, "client_secret", base);
    let audience = table.get::<String>("audience");
    let resource = table.at::<String>("resource");
    let scope = table.get::<String>("scope");
    let use_max = table.get::<Period>("use_max");
    if client_id.is_none() {
        table.mistake(&table.span, "an exchange has no `client_id`: write our client id at the authorization server");
    }
    if audience.is_none() && resource.is_none() {
        let message = "an exchange names neither audience nor resource: the token would be good anywhere; write the \
                       `audience` or `resource` of this server";
        table.mistake(&table.span, message);
    }
    let token_endpoint = match token_endpoint {
        None => None,
        Some(text) => match http_url(text.get_ref()) {
            Ok(url) if url.scheme() == "http" && !is_loopback(&url) => {
                table.mistake(&text.span(), "tokens would travel in the clear: write https://");
                None
            }
            Ok(url) => Some(url),
            Err(message) => {
                table.mistake(&text.span(), message);
                None
            }
        },
    };
    if let Some(resource) = resource.as_ref() {
        // RFC 8707, section 2: an absolute URI without a fragment.
        let absolute = url::Url::parse(resource.get_ref()).is_ok_and(|url| url.fragment().is_none());
        if !absolute {
            table.mistake(
                &resource.span(),
                "a resource is an absolute URI without a fragment (RFC 8707): write https://...",
            );
        }
    }
    Some(CredentialConfig::Exchange(Arc::new(ExchangeConfig {
        token_endpoint,
        client_id: client_id?,
        client_secret,
        audience,
        resource: resource.map(Spanned::into_inner),
        scope,
        use_max: use_max?.0,
    })))
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
