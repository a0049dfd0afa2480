//! Reads `[issuers.ALIAS.registration]`: the client that assistants log in with where the provider registers none.

use std::path::Path;

use toml::Spanned;

use super::credential::reference;
use crate::config::reader::Table;
use crate::config::{RegistrationConfig, keys};

/// Schemes that a browser would run or read instead of handing them to an assistant, and those that have rules of their
/// own.
const NEVER: [&str; 12] = [
    "javascript",
    "data",
    "file",
    "blob",
    "about",
    "vbscript",
    "view-source",
    "filesystem",
    "ws",
    "wss",
    "http",
    "https",
];

/// The table of an issuer; `None` where it was reported, `Some(None)` where there is none.
pub fn of(issuer: &mut Table<'_, '_>, base: &Path) -> Option<Option<RegistrationConfig>> {
    if !issuer.has("registration") {
        return Some(None);
    }
    issuer.table("registration", &keys::REGISTRATION).and_then(|table| read(table, base)).map(Some)
}

fn read(mut table: Table<'_, '_>, base: &Path) -> Option<RegistrationConfig> {
    let client_id = table.get::<String>("client_id");
    let secret = match table.at::<String>("client_secret") {
        None => Some(None),
        Some(text) => match reference(text.get_ref(), base) {
            Ok(reference) => Some(Some(reference)),
            Err(message) => {
                table.mistake(&text.span(), message);
                None
            }
        },
    };
    let scopes = table.get::<Vec<String>>("scopes");
    let sends_resource = table.get::<bool>("send_resource");
    let schemes = table.get::<Vec<Spanned<String>>>("redirect_schemes");
    for scheme in schemes.iter().flatten() {
        let text = scheme.get_ref();
        let spelled = text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
        if !spelled || NEVER.contains(&text.as_str()) {
            let message =
                format!("`{text}` is not a scheme of an assistant: write one such as \"cursor\", without `:`");
            table.mistake(&scheme.span(), message);
        }
    }
    Some(RegistrationConfig {
        client_id: client_id?,
        client_secret: secret?,
        scopes: scopes?,
        sends_resource: sends_resource?,
        schemes: schemes?.into_iter().map(Spanned::into_inner).collect(),
    })
}
