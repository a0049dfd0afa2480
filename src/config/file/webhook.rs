//! Reads `[webhooks.NAME]`: who elsewhere is told that something happened.

use toml::Spanned;

use super::address::{http_url, is_private};
use crate::config::WebhookConfig;
use crate::config::reader::Table;
use crate::config::webhook::EVENTS;

/// Reads one.
pub fn read(mut table: Table<'_, '_>, name: String) -> Option<WebhookConfig> {
    let url = table.at::<String>("url");
    let events_place = table.place("events");
    let events = table.get::<Vec<Spanned<String>>>("events");
    let allow_private = table.get::<bool>("allow_private")?;
    let url = url.and_then(|text| {
        let read = http_url(text.get_ref()).and_then(|url| {
            let clear = url.scheme() == "http" && !(allow_private && is_private(&url));
            if clear { Err("a message would travel in the clear: write https://".to_owned()) } else { Ok(url) }
        });
        read.map_err(|message| table.mistake(&text.span(), message)).ok()
    });
    let events = events?;
    if events.is_empty() {
        table.mistake(&events_place, format!("it is told nothing: write some of {}", EVENTS.join(", ")));
    }
    for event in events.iter().filter(|event| !EVENTS.contains(&event.get_ref().as_str())) {
        table.mistake(
            &event.span(),
            format!("nothing tells of `{}`: write some of {}", event.get_ref(), EVENTS.join(", ")),
        );
    }
    let events = events.into_iter().map(Spanned::into_inner).collect();
    Some(WebhookConfig { name, url: url?, events, allow_private })
}
