//! Reads `[[agents.ID.keys]]`: API keys, the last resort of software that no issuer knows.
//!
//! Invariants: a key is its digest here and nothing else; somebody answers for it, and it ends within a year of the day
//! on which it was made.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use toml::Spanned;

use super::agent::{person, subject};
use crate::config::leaf::Day;
use crate::config::reader::Table;
use crate::config::{API_KEY_PREFIX, ApiKeyConfig, keys};
use crate::ids::{AgentId, Digest};
use crate::limit;

/// Whose a name or a digest is already.
pub type Taken = HashMap<String, AgentId>;

/// Reads the keys of one agent; `None` where one was reported.
pub fn read_all(
    table: &mut Table<'_, '_>,
    agent: &AgentId,
    today: Date,
    taken: &mut Taken,
) -> Option<Vec<ApiKeyConfig>> {
    let place = table.place("keys");
    let read: Vec<_> =
        table.tables("keys", &keys::AGENT_KEY).into_iter().map(|own| read(own, agent, today, taken)).collect();
    if taken.len() / 2 > limit::API_KEYS_MAX {
        let message = format!("more than {} API keys: have an issuer know your agents", limit::API_KEYS_MAX);
        table.mistake(&place, message);
    }
    read.into_iter().collect()
}

fn read(mut table: Table<'_, '_>, agent: &AgentId, today: Date, taken: &mut Taken) -> Option<ApiKeyConfig> {
    let id = table.at::<String>("id");
    let digest = table.at::<String>("sha256");
    let owner = subject(&mut table, "owner", &["user:"]);
    let owner_person = person(&mut table);
    let created = table.at::<String>("created");
    let expires = table.at::<Day>("expires");
    let id = id.filter(|id| {
        let spelled = AgentId::new(id.get_ref()).is_ok();
        if !spelled {
            let message = format!("`{id}` names no key: write 1 to 64 characters of a-z, 0-9 and -");
            table.mistake(&id.span(), message);
        }
        spelled
    });
    let digest = digest.and_then(|text| read_digest(&table, &text));
    let created = created.and_then(|text| read_moment(&table, &text, today));
    let (id, (digest, digest_at), created, expires) = (id?, digest?, created?, expires?);
    check_life(&table, id.get_ref(), created, &expires, today);
    for (name, span) in [(format!("id {id}"), id.span()), (format!("digest {digest}"), digest_at)] {
        if let Some(other) = taken.insert(name, agent.clone()) {
            table.mistake(
                &span,
                format!("agent `{other}` has a key of this name or digest already: make one of its own"),
            );
        }
    }
    let (id, expires) = (id.into_inner(), expires.into_inner().0);
    Some(ApiKeyConfig { id, digest, owner: owner?, owner_person, created, expires })
}

fn read_digest(table: &Table<'_, '_>, text: &Spanned<String>) -> Option<(Digest, std::ops::Range<usize>)> {
    if let Some(digest) = Digest::from_hex(text.get_ref()) {
        return Some((digest, text.span()));
    }
    // What was pasted into a file that others read is no secret any more.
    let message = if text.get_ref().starts_with(API_KEY_PREFIX) {
        "this is the key itself, and everyone who reads the file has it: make another one with `bailiwick keys api new`, \
         and write its SHA-256"
    } else {
        "this is no SHA-256: paste the row that `bailiwick keys api new` prints"
    };
    table.mistake(&text.span(), message);
    None
}

fn read_moment(table: &Table<'_, '_>, text: &Spanned<String>, today: Date) -> Option<Timestamp> {
    let Ok(moment) = text.get_ref().parse::<Timestamp>() else {
        table.mistake(&text.span(), format!("`{text}` is no moment: write one such as \"2026-11-27T10:00:00Z\""));
        return None;
    };
    // A day of grace: the file may have been written where tomorrow has begun.
    let day = jiff::tz::TimeZone::UTC.to_datetime(moment).date();
    if today.tomorrow().is_ok_and(|tomorrow| day > tomorrow) {
        table.mistake(&text.span(), "a key that was made in the future: write when it was made");
        return None;
    }
    Some(moment)
}

fn check_life(table: &Table<'_, '_>, id: &str, created: Timestamp, expires: &Spanned<Day>, today: Date) {
    let made = jiff::tz::TimeZone::UTC.to_datetime(created).date();
    let last = jiff::Span::new().try_days(limit::API_KEY_DAYS_MAX).and_then(|days| made.checked_add(days));
    if last.is_ok_and(|last| expires.get_ref().0 > last) {
        let message = format!(
            "a key is good for {} days at most: write an earlier day, and make another key before it comes",
            limit::API_KEY_DAYS_MAX
        );
        table.mistake(&expires.span(), message);
    } else if expires.get_ref().0 < today {
        table.source.warning(&expires.span(), format!("the API key `{id}` has expired: remove it"));
    }
}
