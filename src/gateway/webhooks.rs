//! Sends what waits in the outbox, again and again until it is taken.
//!
//! Decides when a message is tried, and which replica tries it. Invariants: no place waits for another; every message is
//! signed over its name, the moment and its body; what an answer says is not read; nothing that comes back decides
//! anything.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use secrecy::SecretString;
use tokio::task::JoinHandle;

use super::Gateway;
use crate::config::WebhookConfig;
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::limit;
use crate::outbox::{self, Message, OUTBOX};
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Expect, Row, Shelf, Tell};

/// Sends until the gateway stops: to each place by itself, so that one which does not answer holds up no other.
pub async fn send_messages(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    let clients = [false, true].map(|private| oauth_client(EgressPolicy::server(private)));
    let [Ok(public), Ok(private)] = clients else {
        tracing::error!("no webhook is sent: there is no client for them");
        return;
    };
    let (public, private) = (Arc::new(public), Arc::new(private));
    let mut under_way: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            () = tokio::time::sleep(limit::WEBHOOK_LOOK_INTERVAL) => {}
        }
        under_way.retain(|_, round| !round.is_finished());
        for hook in &gateway.config().webhooks {
            if under_way.contains_key(&hook.name) {
                continue;
            }
            let client = Arc::clone(if hook.allow_private { &private } else { &public });
            let (gateway, told) = (Arc::clone(&gateway), hook.clone());
            let round = async move {
                if let Err(problem) = round(&gateway, &client, &told).await {
                    tracing::warn!(webhook = told.name, problem, "webhooks are not sent now");
                }
            };
            under_way.insert(hook.name.clone(), tokio::spawn(round));
        }
    }
    // Nobody waits for a place that does not answer; what it was told is told again.
    under_way.into_values().for_each(|round| round.abort());
}

/// Tries what is due of one place.
async fn round(gateway: &Arc<Gateway>, client: &OauthClient, hook: &WebhookConfig) -> Result<(), String> {
    let store = gateway.store();
    let now_us = store.clock_us().await.map_err(|failure| failure.to_string())?;
    let rows = newest(store, &hook.name).await.map_err(|failure| failure.to_string())?;
    let due = rows.into_iter().filter_map(|row| {
        let message: Message = serde_json::from_str(&row.body).ok()?;
        (message.not_before_us <= now_us).then_some((row, message))
    });
    let due: Vec<_> = due.take(limit::WEBHOOK_SENT_AT_ONCE_MAX).collect();
    if due.is_empty() {
        return Ok(());
    }
    // While a key is exchanged its place knows one of them.
    let keys = gateway.reloader.keys.webhook();
    let keys = keys.iter().map(|key| Signing::new(key, &hook.name).ok_or("the webhook key is no key"));
    let keys: Vec<Signing> = keys.collect::<Result<_, &str>>()?;
    let sent = due.into_iter().map(|message| one(gateway, client, hook, &keys, message, now_us));
    futures_util::future::join_all(sent).await;
    Ok(())
}

/// What waits for one place, oldest first. Of more than are kept for one the oldest are dropped: whoever has not listened
/// for so long learns more from the newest.
async fn newest(shelf: &dyn Shelf, name: &str) -> Result<Vec<Row>, Failure> {
    let mut rows = shelf.rows(OUTBOX, Some(name), None).await?;
    while let Some(last) = rows.last().filter(|_| rows.len() >= limit::WEBHOOK_MESSAGES_OF_ONE_MAX) {
        let more = shelf.rows(OUTBOX, Some(name), Some(&last.key)).await?;
        if more.is_empty() {
            break;
        }
        rows.extend(more);
        let dropped: Vec<Row> = rows.drain(..rows.len().saturating_sub(limit::WEBHOOK_MESSAGES_OF_ONE_MAX)).collect();
        let count = dropped.len();
        tracing::warn!(webhook = name, count, "a webhook takes nothing, and its oldest messages are dropped");
        for some in dropped.chunks(limit::SHELF_CHANGES_MAX) {
            let remove = |row: &Row| Change::new(OUTBOX, row.key.clone(), Expect::Anything, Action::Remove);
            shelf.change(some.iter().map(remove).collect(), Tell::Nobody).await?;
        }
    }
    Ok(rows)
}

/// Tries one message, unless another replica does.
async fn one(
    gateway: &Gateway,
    client: &OauthClient,
    hook: &WebhookConfig,
    keys: &[Signing],
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
    match post(client, hook, keys, &row.key, message.body, now_us).await {
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

/// What messages to one place are signed with, and its name.
struct Signing {
    key: hmac::Key,
    id: String,
}

impl Signing {
    fn new(secret: &SecretString, place: &str) -> Option<Self> {
        let key = outbox::signing_key(secret, place)?;
        Some(Self { id: outbox::signing_key_id(&key), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }
}

async fn post(
    client: &OauthClient,
    hook: &WebhookConfig,
    keys: &[Signing],
    id: &str,
    body: String,
    now_us: i64,
) -> Result<(), String> {
    let moment = now_us / 1_000_000;
    let signed = format!("{id}.{moment}.{body}");
    let signature = |key: &Signing| format!("v1,{}", STANDARD.encode(hmac::sign(&key.key, signed.as_bytes()).as_ref()));
    let signatures: Vec<String> = keys.iter().map(signature).collect();
    let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
    let request = Request::post(hook.url.as_str())
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", moment)
        .header("webhook-signature", signatures.join(" "))
        .header("webhook-key-id", ids.join(" "))
        .body(body.into_bytes())
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::shelf::{Changed, Section, Version};

    /// Rows of one place in memory, read in pages as a store does.
    #[derive(Debug, Default)]
    struct Rows(Mutex<Vec<Row>>);

    impl Rows {
        fn of(count: usize) -> Self {
            let row = |number: usize| Row {
                key: format!("msg_{number:05}"),
                version: Version(1),
                owner: "chat".to_owned(),
                body: String::new(),
                number: 0,
                expires_at_us: None,
            };
            Self(Mutex::new((0..count).map(row).collect()))
        }
    }

    impl Shelf for Rows {
        fn row<'a>(&'a self, _: Section, _: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
            Box::pin(std::future::ready(Ok(None)))
        }

        fn rows<'a>(
            &'a self,
            _: Section,
            owner: Option<&'a str>,
            after: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
            assert_eq!(owner, Some("chat"), "the messages of others are not looked at");
            let rows = self.0.lock().unwrap();
            let page = rows.iter().filter(|row| after.is_none_or(|after| row.key.as_str() > after));
            let page = page.take(limit::SHELF_ROWS_READ_MAX).cloned().collect();
            Box::pin(std::future::ready(Ok(page)))
        }

        fn change(&self, changes: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
            assert!(changes.len() <= limit::SHELF_CHANGES_MAX);
            self.0.lock().unwrap().retain(|row| !changes.iter().any(|change| change.key == row.key));
            Box::pin(std::future::ready(Ok(Changed::Done { numbers: Vec::new(), version: Version(1), epoch: None })))
        }

        fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
            Box::pin(std::future::ready(Ok(0)))
        }
    }

    #[tokio::test]
    async fn of_more_messages_than_wait_for_one_place_the_newest_are_kept() {
        let most = limit::WEBHOOK_MESSAGES_OF_ONE_MAX;
        for (count, left) in [(3, 3), (most, most), (most + 1, most), (2 * most + 5, most)] {
            let rows = Rows::of(count);
            let found = newest(&rows, "chat").await.unwrap();
            assert_eq!((found.len(), rows.0.lock().unwrap().len()), (left, left), "of {count}");
            assert_eq!(found.last().unwrap().key, format!("msg_{:05}", count - 1), "the newest is there");
        }
    }
}
