//! Event streams toward modern clients: a call with notifications, a listen.
//!
//! Each is pulled by the connection that it is for, without a task of its own, so a slow reader slows only
//! itself. Invariant: a call's stream ends after its response; a watch's ends when it is over.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use serde_json::json;

use super::ongoing::Ongoing;
use super::pipeline::Pipeline;
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop, reply};
use crate::upstream::Event;
use crate::watch::{Interest, Watched};
use crate::wire::mcp::{Era, Method, meta};
use crate::wire::{Edit, Json, Message, sse};

/// A comment: keeps proxies from cutting the connection, and is no event.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A call whose first event was no end, but a notification or nothing for it.
pub(super) fn of_call<P: Pipeline>(first: Option<Message>, ongoing: Ongoing<P>, id: Json, method: Method) -> Body {
    struct Call<P: Pipeline> {
        first: Option<Message>,
        ongoing: Option<Ongoing<P>>,
        id: Json,
        method: Method,
    }
    let call = Call { first, ongoing: Some(ongoing), id, method };
    Body::from_stream(stream::unfold(call, |mut call| async move {
        if let Some(first) = call.first.take() {
            return Some((written(&first), call));
        }
        let ongoing = call.ongoing.as_mut()?;
        let bytes = match tokio::time::timeout(limit::STREAM_KEEP_ALIVE, ongoing.next()).await {
            // A modern client cannot come back, so its stream stays open.
            Err(_) | Ok(Some(Event::StreamClosed)) => Ok(KEEP_ALIVE),
            Ok(Some(Event::Notification(message))) => written(&message),
            Ok(Some(Event::Done(outcome))) => {
                call.ongoing = None;
                written(&reply::reply(&outcome, &call.id, call.method, Era::Modern).message)
            }
            // Cancelled by the client: there is no response (cancellation, behaviour requirements).
            Ok(None) => return None,
        };
        Some((bytes, call))
    }))
}

/// A modern listen: the acknowledgement, then tagged notifications, then the response.
pub(super) fn of_listen<P: Pipeline>(watch: P::Watch, id: Json) -> Body {
    let mut honoured = serde_json::Map::new();
    let Interest { tools, prompts, resources, updates, tasks } = P::honoured(&watch);
    for (name, wanted) in
        [("toolsListChanged", tools), ("promptsListChanged", prompts), ("resourcesListChanged", resources)]
    {
        if wanted {
            honoured.insert(name.to_owned(), true.into());
        }
    }
    if !updates.is_empty() {
        honoured.insert("resourceSubscriptions".to_owned(), updates.into());
    }
    if !tasks.is_empty() {
        honoured.insert("taskIds".to_owned(), tasks.into());
    }
    let acknowledged = Json::of(&json!({ "notifications": honoured }));
    let acknowledged = Message::notification("notifications/subscriptions/acknowledged", Some(&acknowledged));
    struct Listen<P: Pipeline> {
        first: Option<Message>,
        next: Option<Next<P>>,
        id: Json,
    }
    let listen = Listen::<P> { first: Some(acknowledged), next: Some(next_of::<P>(watch)), id };
    Body::from_stream(stream::unfold(listen, |mut listen| async move {
        if let Some(first) = listen.first.take() {
            return Some((written(&tagged(&first, &listen.id)), listen));
        }
        let next = listen.next.as_mut()?;
        let bytes = match tokio::time::timeout(limit::STREAM_KEEP_ALIVE, next).await {
            Err(_) => Ok(KEEP_ALIVE),
            Ok((watch, Watched::Notification(message))) => {
                listen.next = Some(next_of::<P>(watch));
                written(&tagged(&message, &listen.id))
            }
            Ok((_, Watched::Ended(reason))) => {
                listen.next = None;
                written(&farewell(&listen.id, reason))
            }
        };
        Some((bytes, listen))
    }))
}

/// What a watch yields next, with the watch. It is kept over keep-alives instead of being asked again: what
/// it has noticed already, and waits to tell, must not be lost.
type Next<P> = BoxFuture<'static, (<P as Pipeline>::Watch, Watched)>;

fn next_of<P: Pipeline>(mut watch: P::Watch) -> Next<P> {
    Box::pin(async move {
        let watched = P::next_watched(&mut watch).await;
        (watch, watched)
    })
}

fn written(message: &Message) -> Result<Bytes, Infallible> {
    Ok(sse::event(message, None))
}

/// The same notification, saying which listen it belongs to.
fn tagged(message: &Message, id: &Json) -> Message {
    let tag = Edit::Set(meta::SUBSCRIPTION_ID, id.clone());
    let empty = Json::of(&json!({}));
    let params = message.body().unwrap_or_else(|| empty.clone());
    let (Some(params), Some(empty)) = (params.value().as_object(), empty.value().as_object()) else {
        return message.clone();
    };
    let tags = params.get("_meta").and_then(crate::wire::Value::as_object).unwrap_or(empty).edited(&[tag]);
    Message::notification(&message.method(), Some(&params.edited(&[Edit::Set("_meta", tags)])))
}

/// The response to a listen: a result when the gateway stops, an error when the right to listen ended.
fn farewell(id: &Json, reason: Reason) -> Message {
    if reason != Reason::ShuttingDown {
        return reply::stopped(&Stop::from(Refusal::new(reason)), Some(id), Some(Method::Listen), Era::Modern).message;
    }
    let tags =
        empty_object().value().as_object().map(|tags| tags.edited(&[Edit::Set(meta::SUBSCRIPTION_ID, id.clone())]));
    let result = Json::of(&json!({ "resultType": "complete" }));
    let result = match (result.value().as_object(), tags) {
        (Some(object), Some(tags)) => object.edited(&[Edit::Set("_meta", tags)]),
        _ => result.clone(),
    };
    Message::result(id, &result)
}

fn empty_object() -> Json {
    Json::of(&json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn a_tag_keeps_the_type_of_the_id_and_the_rest_of_the_notification() {
        let parse = |text: &str| Message::parse(text, Source::Upstream).unwrap();
        let bare = parse(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
        assert_eq!(
            tagged(&bare, &Json::of(&7)).as_bytes(),
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#
        );
        let full = parse(
            r#"{"jsonrpc":"2.0","method":"m","params":{"z":1,"_meta":{"a":2,"io.modelcontextprotocol/subscriptionId":"upstream"}}}"#,
        );
        assert_eq!(
            tagged(&full, &Json::of("7")).as_bytes(),
            r#"{"jsonrpc":"2.0","method":"m","params":{"z":1,"_meta":{"a":2,"io.modelcontextprotocol/subscriptionId":"7"}}}"#
        );
    }

    #[test]
    fn a_listen_ends_with_a_result_when_the_gateway_stops_and_with_an_error_otherwise() {
        assert_eq!(
            farewell(&Json::of(&1), Reason::ShuttingDown).as_bytes(),
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#
        );
        let revoked = farewell(&Json::of(&1), Reason::Revoked);
        assert_eq!(revoked.kind(), crate::wire::Kind::Error);
    }
}
