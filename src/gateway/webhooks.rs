//! Sends what waits in the outbox, again and again until it is taken.
//!
//! Decides when a message is tried, and which replica tries it. Invariants: every message is signed over its name, the
//! moment and its body; what an answer says is not read; nothing that comes back decides anything; a place that takes
//! nothing keeps no other waiting.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use secrecy::ExposeSecret as _;
use tokio::task::JoinHandle;

use super::Gateway;
use crate::config::{WebhookConfig, keyfile};
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::limit;
use crate::outbox::{Message, OUTBOX};
use crate::shelf::{Action, Change, Expect, Row, Shelf as _, Tell};

/// Sends until the gateway stops.
pub async fn send_messages(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    let clients = [false, true].map(|private| oauth_client(EgressPolicy::server(private)));
    let [Ok(public), Ok(private)] = clients else {
        tracing::error!("no webhook is sent: there is no client for them");
        return;
    };
    let clients = Arc::new(Clients { public, private });
    let mut rounds: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(limit::WEBHOOK_LOOK_INTERVAL) => {}
        }
        rounds.retain(|_, round| !round.is_finished());
        // Where nobody is told anything, nothing waits.
        for hook in &gateway.config().webhooks {
            if rounds.contains_key(&hook.name) {
                continue;
            }
            let (gateway, clients, hook) = (Arc::clone(&gateway), Arc::clone(&clients), hook.clone());
            let name = hook.name.clone();
            let round = async move {
                if let Err(problem) = round(&gateway, &clients, &hook).await {
                    tracing::warn!(webhook = hook.name, problem, "a webhook is not sent now");
                }
            };
            rounds.insert(name, tokio::spawn(round));
        }
    }
}

/// What messages are sent with.
struct Clients {
    public: OauthClient,
    private: OauthClient,
}

/// Tries what is due for one of those who want to hear of something.
async fn round(gateway: &Arc<Gateway>, clients: &Clients, hook: &WebhookConfig) -> Result<(), String> {
    let config = gateway.config();
    let store = gateway.store();
    let now_us = store.clock_us().await.map_err(|failure| failure.to_string())?;
    let mut rows = store.rows(OUTBOX, Some(&hook.name), None).await.map_err(|failure| failure.to_string())?;
    let oldest = beyond_room(&mut rows);
    if !oldest.is_empty() {
        tracing::error!(webhook = hook.name, count = oldest.len(), "too many messages wait: the oldest are given up");
        let gone = |row: &Row| Change::new(OUTBOX, row.key.clone(), Expect::Anything, Action::Remove);
        for some in oldest.chunks(limit::SHELF_CHANGES_MAX) {
            let changes = some.iter().map(gone).collect();
            store.change(changes, Tell::Nobody).await.map_err(|failure| failure.to_string())?;
        }
    }
    let due = rows.into_iter().filter_map(|row| {
        let message: Message = serde_json::from_str(&row.body).ok()?;
        (message.not_before_us <= now_us).then_some((row, message))
    });
    let due: Vec<_> = due.take(limit::WEBHOOK_SENT_AT_ONCE_MAX).collect();
    if due.is_empty() {
        return Ok(());
    }
    let keys = keyfile::load(&config.keys.webhook, &config.gateway.state, "webhook").await;
    let keys = keys.map_err(|error| error.to_string())?;
    let key = keys.first().and_then(|key| data_encoding::HEXLOWER.decode(key.expose_secret().as_bytes()).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.ok_or("the webhook key is no key")?);
    let client = if hook.allow_private { &clients.private } else { &clients.public };
    let sent = due.into_iter().map(|due| one(gateway, client, hook, &key, due, now_us));
    futures_util::future::join_all(sent).await;
    Ok(())
}

/// Takes out the oldest messages of one place where too many wait: whoever takes nothing for long has no part in the room
/// that others need. By their names messages are in the order of their age.
fn beyond_room(rows: &mut Vec<Row>) -> Vec<Row> {
    let over = rows.len().saturating_sub(limit::WEBHOOK_WAITING_MAX);
    rows.drain(..over).collect()
}

/// Tries one message, unless another replica does.
async fn one(
    gateway: &Gateway,
    client: &OauthClient,
    hook: &WebhookConfig,
    key: &hmac::Key,
    (row, message): (Row, Message),
    now_us: i64,
) {
    let store = gateway.store();
    let pause_us =
        limit::WEBHOOK_RETRY_MIN_US.saturating_mul(1 << message.tries.min(16)).min(limit::WEBHOOK_RETRY_MAX_US);
    let next = Message {
        tries: message.tries.saturating_add(1),
        not_before_us: now_us.saturating_add(pause_us),
        ..message.clone()
    };
    let body = serde_json::to_string(&next).unwrap_or_default();
    let put = Action::Put { owner: row.owner.clone(), body, expires_at_us: row.expires_at_us };
    let claim = Change::new(OUTBOX, row.key.clone(), Expect::Version(row.version), put);
    if !matches!(store.change(vec![claim], Tell::Nobody).await, Ok(changed) if changed.is_done()) {
        return;
    }
    match post(client, hook, key, &row.key, message.body, now_us).await {
        Ok(()) => {
            let sent = Change::new(OUTBOX, row.key, Expect::Anything, Action::Remove);
            let _sent = store.change(vec![sent], Tell::Nobody).await;
        }
        Err(problem) => {
            tracing::warn!(
                webhook = hook.name,
                problem,
                tries = next.tries,
                "a webhook was not taken; it is tried again"
            );
        }
    }
}

async fn post(
    client: &OauthClient,
    hook: &WebhookConfig,
    key: &hmac::Key,
    id: &str,
    body: String,
    now_us: i64,
) -> Result<(), String> {
    let moment = now_us / 1_000_000;
    let signature = hmac::sign(key, format!("{id}.{moment}.{body}").as_bytes());
    let request = Request::post(hook.url.as_str())
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", moment)
        .header("webhook-signature", format!("v1,{}", STANDARD.encode(signature.as_ref())))
        .body(body.into_bytes())
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::Version;

    #[test]
    fn of_too_many_that_wait_for_one_place_the_oldest_are_given_up() {
        let row = |number: usize| Row {
            key: format!("msg_{number:05}"),
            version: Version(1),
            owner: "chat".to_owned(),
            body: String::new(),
            number: 0,
            expires_at_us: None,
        };
        let mut rows: Vec<Row> = (0..limit::WEBHOOK_WAITING_MAX).map(row).collect();
        assert!(beyond_room(&mut rows).is_empty());
        rows.push(row(limit::WEBHOOK_WAITING_MAX));
        assert_eq!(beyond_room(&mut rows), [row(0)]);
        assert_eq!(rows.len(), limit::WEBHOOK_WAITING_MAX);
        let places = u32::try_from(limit::WEBHOOKS_MAX * limit::WEBHOOK_WAITING_MAX).unwrap();
        assert!(places < limit::WEBHOOK_MESSAGES_MAX, "all of them together leave room");
    }
}
