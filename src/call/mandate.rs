//! The mandate of a call: how a request names it, and what its end means for what is under way.
//!
//! Decides that a header and `_meta` must agree. Refuses to know what a mandate allows. Invariant: what is under way
//! under a mandate is looked at again with every decision, and is over when the mandate is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delegate::Grant;
use crate::gateway::Gateway;
use crate::guard::mandate::{Held, Use};
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal};
use crate::wire::mcp::meta;
use crate::wire::{Json, Message};

/// The handle that a request names: in `_meta`, in a header, or the same in both.
///
/// # Errors
/// `header_mismatch`; `parameters_invalid` where it is no text.
pub fn named(message: &Message, header: Option<&str>) -> Result<Option<String>, Refusal> {
    let written = message.params().and_then(|params| params.get("_meta")?.as_object()?.get(meta::MANDATE));
    let in_body =
        match written.filter(|written| !written.is_null()) {
            None => None,
            Some(written) => Some(written.as_str().ok_or_else(|| {
                Refusal::new(Reason::ParametersInvalid).hint("send the handle of the mandate as a text")
            })?),
        };
    match (in_body, header) {
        (Some(body), Some(header)) if body != header => {
            Err(Refusal::new(Reason::HeaderMismatch).hint("the Bailiwick-Mandate header differs from _meta"))
        }
        (body, header) => Ok(body.map(std::borrow::Cow::into_owned).or_else(|| header.map(str::to_owned))),
    }
}

/// The mandate of something that is under way.
pub struct Mandated {
    held: Held,
    /// As long as this is there, it is used.
    _use: Option<Use>,
    ends: Instant,
    /// Something was decided since it was looked at.
    doubted: bool,
}

impl Mandated {
    /// At that moment by the store's clock; it is no use of it.
    fn new(held: &Held, now_us: i64) -> Self {
        let left_us = u64::try_from(held.ends_us().saturating_sub(now_us)).unwrap_or_default();
        let left = Duration::from_micros(left_us);
        Self { held: held.clone(), _use: None, ends: Instant::now() + left, doubted: false }
    }

    /// It is used from now on, until this is dropped.
    pub fn used(gateway: &Arc<Gateway>, held: &Held) -> Self {
        let mut begun = gateway.guard().mandates().begin_use(held);
        if let Some(mut turn) = begun.as_mut().and_then(Use::turn) {
            let gateway = Arc::clone(gateway);
            tokio::spawn(async move {
                if let Err(failure) = gateway.guard().mandates().tell_uses(&mut turn).await {
                    tracing::debug!(%failure, "that a mandate is used is told later");
                    // The next call would fare no better: it has no turn until then.
                    tokio::time::sleep(limit::MANDATE_USE_RETRY).await;
                }
            });
        }
        Self { _use: begun, ..Self::new(held, gateway.standing().now_us()) }
    }

    pub const fn held(&self) -> &Held {
        &self.held
    }

    /// When it is over by itself.
    pub const fn ends(&self) -> Instant {
        self.ends
    }

    /// Something was decided, and it may be over.
    pub const fn doubt(&mut self) {
        self.doubted = true;
    }

    pub const fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// It was looked at.
    pub const fn looked(&mut self) {
        self.doubted = false;
    }
}

/// Waits for that moment; for ever where there is none.
pub async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Counts what a leg of a call has brought, in the background: its end waits for nobody. The call itself is counted with
/// the first leg that was sent, unless it was when the store was asked anyway; the rest of it goes on with that.
pub fn count(gateway: &Arc<Gateway>, grant: &Grant, outcome: &Outcome, is_first: bool) {
    let Some(held) = grant.mandate() else { return };
    let is_new = is_first && !grant.is_following() && !grant.is_reported();
    let bytes = match outcome {
        // How a task stands is asked again and again; what counts is what came of it.
        Outcome::Complete(json) if grant.is_following() => result_bytes(&grant.leg().method, json),
        Outcome::Complete(json) | Outcome::Task(json) | Outcome::Error(json) => json.as_bytes().len(),
        _ => 0,
    };
    if !is_new && bytes == 0 {
        return;
    }
    let (gateway, held, server) = (Arc::clone(gateway), held.clone(), grant.target().server_id().clone());
    tokio::spawn(async move {
        if let Err(failure) = gateway.guard().came(&held, &server, is_new, bytes).await {
            tracing::warn!(%failure, mandate = %held.mandate().id, "a call that is over was not counted");
        }
    });
}

/// The bytes of a task's result, where the answer to a request about it has one.
fn result_bytes(method: &str, answer: &Json) -> usize {
    let has_result = || answer.value().as_object().is_some_and(|answer| answer.get("result").is_some());
    if method == "tasks/result" || has_result() { answer.as_bytes().len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn the_state_of_a_task_is_no_result_of_it() {
        let json = |text: &str| Json::parse(text, Source::Upstream).unwrap();
        assert_eq!(result_bytes("tasks/get", &json(r#"{"status":"working"}"#)), 0);
        let done = json(r#"{"status":"completed","result":{"content":[]}}"#);
        assert_eq!(result_bytes("tasks/get", &done), done.as_bytes().len());
        let result = json(r#"{"content":[]}"#);
        assert_eq!(result_bytes("tasks/result", &result), result.as_bytes().len());
    }

    fn of(meta: &str, header: Option<&str>) -> Result<Option<String>, Reason> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{{meta}}}}}}}"#);
        named(&Message::parse(text, Source::Client).unwrap(), header).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_handle_stands_in_meta_in_the_header_or_the_same_in_both() {
        let own = r#""dev.bailiwick/mandate":"a""#;
        assert_eq!(of("", None), Ok(None));
        assert_eq!(of(r#""dev.bailiwick/mandate":null"#, None), Ok(None));
        assert_eq!(of(own, None), Ok(Some("a".into())));
        assert_eq!(of("", Some("a")), Ok(Some("a".into())));
        assert_eq!(of(own, Some("a")), Ok(Some("a".into())));
        assert_eq!(of(own, Some("b")), Err(Reason::HeaderMismatch));
        assert_eq!(of(r#""dev.bailiwick/mandate":1"#, None), Err(Reason::ParametersInvalid));
    }
}
