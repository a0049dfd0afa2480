//! Sends what waits in the outbox, again and again until it is taken.
//!
//! Decides when a message is tried, and which replica tries it. Invariants: every message is signed over its name, the
//! moment and its body; what an answer says is not read; nothing that comes back decides anything.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use secrecy::ExposeSecret as _;

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
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(limit::WEBHOOK_LOOK_INTERVAL) => {}
        }
        // Where nobody is told anything, nothing waits.
        if gateway.config().webhooks.is_empty() {
            continue;
        }
        if let Err(problem) = round(&gateway, &public, &private).await {
            tracing::warn!(problem, "webhooks are not sent now");
        }
    }
}

async fn round(gateway: &Arc<Gateway>, public: &OauthClient, private: &OauthClient) -> Result<(), String> {
    let config = gateway.config();
    let store = gateway.store();
    let now_us = store.clock_us().await.map_err(|failure| failure.to_string())?;
    let rows = store.rows(OUTBOX, None, None).await.map_err(|failure| failure.to_string())?;
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
    let sent = due.into_iter().map(|(row, message)| {
        let hook = config.webhooks.iter().find(|hook| hook.name == message.to);
        let client = if hook.is_some_and(|hook| hook.allow_private) { private } else { public };
        one(gateway, client, hook, &key, (row, message), now_us)
    });
    futures_util::future::join_all(sent).await;
    Ok(())
}

/// Tries one message, unless another replica does.
async fn one(
    gateway: &Gateway,
    client: &OauthClient,
    hook: Option<&WebhookConfig>,
    key: &hmac::Key,
    (row, message): (Row, Message),
    now_us: i64,
) {
    let store = gateway.store();
    let remove = |id: &str| vec![Change::new(OUTBOX, id, Expect::Anything, Action::Remove)];
    let Some(hook) = hook else {
        // Whoever it was for is not in the files any more.
        let _gone = store.change(remove(&row.key), Tell::Nobody).await;
        return;
    };
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
            let _sent = store.change(remove(&row.key), Tell::Nobody).await;
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
