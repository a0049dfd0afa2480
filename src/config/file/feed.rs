//! Reads `[feeds.NAME]`: who outside may tell that access is to be taken back.
//!
//! Invariant: whatever it leads to has a secret, a signature or both in front of it.

use std::path::Path;

use toml::Spanned;
use url::Url;

use super::address::{http_url, is_loopback};
use super::credential::reference;
use crate::config::feed::{
    Ends, EventsConfig, FeedConfig, LogoutConfig, PollConfig, ScimConfig, ScimSubject, SubjectFormat, TransmitterConfig,
};
use crate::config::leaf::{Count, Period};
use crate::config::mistake::Name;
use crate::config::reader::Table;
use crate::config::{SecretReference, keys};
use crate::ids::{IssuerAlias, ServerId};
use crate::limit;

/// How a feed is called: a part of a path.
pub fn name(text: &str) -> Result<ServerId, String> {
    ServerId::new(text).map_err(|error| error.to_string())
}

/// Reads one `[feeds.NAME]`; `http_allowed` where issuers may be on this machine.
pub fn read(mut table: Table<'_, '_>, name: ServerId, base: &Path, http_allowed: bool) -> Option<FeedConfig> {
    let issuer = table.at::<IssuerAlias>("issuer");
    if let Some(issuer) = &issuer {
        table.source.refers(issuer.span(), Name::Issuer(issuer.get_ref().clone()));
    }
    let ends = table.get::<Ends>("ends");
    let requests_per_minute = table.get::<Count>("requests_per_minute");
    let nothing = !["logout", "events", "scim"].iter().any(|key| table.has(key));
    if nothing {
        let message = format!("{} hears nothing: write a table logout, events or scim below it", table.path);
        table.mistake(&table.span, message);
    }
    let logout = sub(&mut table, "logout", &keys::FEED_LOGOUT, logout);
    let events = sub(&mut table, "events", &keys::FEED_EVENTS, |table| events(table, base, http_allowed));
    let scim = sub(&mut table, "scim", &keys::FEED_SCIM, |table| scim(table, base));
    Some(FeedConfig {
        name,
        issuer: issuer?.into_inner(),
        ends: ends?,
        requests_per_minute: requests_per_minute?.0,
        logout: logout?,
        events: events?,
        scim: scim?,
    })
}

/// A table that may be absent; `None` where it was reported.
fn sub<'s, 'i, T>(
    table: &mut Table<'s, 'i>,
    key: &str,
    section: &'static keys::Section,
    read: impl FnOnce(Table<'s, 'i>) -> Option<T>,
) -> Option<Option<T>> {
    if !table.has(key) {
        return Some(None);
    }
    table.table(key, section).and_then(read).map(Some)
}

fn logout(mut table: Table<'_, '_>) -> Option<LogoutConfig> {
    let audiences = audiences(&mut table);
    let types = table.get::<Vec<String>>("types");
    Some(LogoutConfig { audiences: audiences?, types: types?.iter().map(|text| text.to_ascii_lowercase()).collect() })
}

fn events(mut table: Table<'_, '_>, base: &Path, http_allowed: bool) -> Option<EventsConfig> {
    let audiences = audiences(&mut table);
    let named = table.at::<String>("transmitter");
    let keys_place = table.place("keys");
    let keys_url = table.at::<String>("keys");
    let transmitter = match (named, keys_url) {
        (None, None) => Some(None),
        (None, Some(_)) => {
            table.mistake(&keys_place, "keys of whom? write transmitter, the `iss` of the events, as well");
            None
        }
        (Some(issuer), keys) => {
            let issuer = guarded(&mut table, issuer, http_allowed).map(|(text, _)| text);
            let keys = match keys {
                None => Some(None),
                Some(keys) => guarded(&mut table, keys, http_allowed).map(|(_, url)| Some(url)),
            };
            issuer.zip(keys).map(|(issuer, keys)| Some(TransmitterConfig { issuer, keys }))
        }
    };
    let formats = table.get::<Vec<SubjectFormat>>("formats");
    let place = table.place("secret");
    let secret = table.at::<String>("secret").map(|text| secret(&mut table, &text, base));
    let poll = sub(&mut table, "poll", &keys::FEED_POLL, |table| poll(table, base, http_allowed));
    if secret.is_none() && matches!(poll, Some(None)) {
        table.mistake(&place, "events neither come nor are fetched: write secret, which a push presents, or poll");
    }
    Some(EventsConfig {
        audiences: audiences?,
        transmitter: transmitter?,
        formats: formats?,
        secret: match secret {
            None => None,
            Some(read) => Some(read?),
        },
        poll: poll?,
    })
}

fn poll(mut table: Table<'_, '_>, base: &Path, http_allowed: bool) -> Option<PollConfig> {
    let endpoint = table.at::<String>("endpoint").and_then(|text| guarded(&mut table, text, http_allowed));
    let token = table.at::<String>("token").and_then(|text| secret(&mut table, &text, base));
    let interval = table.get::<Period>("interval");
    Some(PollConfig { endpoint: endpoint?.1, token: token?, interval: interval?.0.max(limit::FEED_POLL_INTERVAL_MIN) })
}

fn scim(mut table: Table<'_, '_>, base: &Path) -> Option<ScimConfig> {
    let secret = table.at::<String>("secret").and_then(|text| secret(&mut table, &text, base));
    let subject = table.get::<ScimSubject>("subject");
    Some(ScimConfig { secret: secret?, subject: subject? })
}

fn audiences(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.at::<Vec<String>>("audiences")?;
    if written.get_ref().is_empty() || written.get_ref().iter().any(String::is_empty) {
        table.mistake(&written.span(), "without an audience, what was sent to somebody else would count here: name it");
        return None;
    }
    Some(written.into_inner())
}

fn secret(table: &mut Table<'_, '_>, text: &Spanned<String>, base: &Path) -> Option<SecretReference> {
    reference(text.get_ref(), base).map_err(|message| table.mistake(&text.span(), message)).ok()
}

/// A URL whose answers are believed.
fn guarded(table: &mut Table<'_, '_>, text: Spanned<String>, http_allowed: bool) -> Option<(String, Url)> {
    let url = match http_url(text.get_ref()) {
        Ok(url) => url,
        Err(message) => {
            table.mistake(&text.span(), message);
            return None;
        }
    };
    let near = is_loopback(&url);
    if (url.scheme() == "http" || near) && !(near && http_allowed) {
        let message = "whoever answers there could be somebody else: write https:// and a public name; for development \
                       set allow_loopback_issuers = true and listen on 127.0.0.1";
        table.mistake(&text.span(), message);
        return None;
    }
    Some((text.into_inner(), url))
}
