//! Batches: what only clients of 2025-03-26 may send, several messages in one POST.
//!
//! Decides who may, and how the answers come back: an array, or a stream where one of them is one. Knows nothing of
//! rights. Invariant: each message is answered as if it had come alone.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use super::answer::{self, About};
use super::memory::Held;
use super::pipeline::Pipeline;
use super::{Front, Inbound, Outside, legacy};
use crate::call::Endpoint;
use crate::ids::ReplicaId;
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::wire::mcp::{Era, Version};
use crate::wire::{Json, Message, Source};

/// Everything about a POST but its body.
pub(super) struct Posted<'a, P: Pipeline> {
    pub(super) caller: &'a P::Caller,
    pub(super) endpoint: &'a Endpoint,
    pub(super) headers: &'a HeaderMap,
    pub(super) version: Option<&'a str>,
    pub(super) peer: IpAddr,
    pub(super) via: Option<ReplicaId>,
    /// What it keeps in memory.
    pub(super) held: &'a Arc<Held>,
}

/// Answers a batch; `None` where batches are not spoken.
pub(super) async fn post<P: Pipeline>(
    front: &Arc<Front<P>>,
    outside: &Arc<Outside>,
    posted: &Posted<'_, P>,
    body: &[u8],
) -> Option<Response<Body>> {
    let (caller, endpoint) = (posted.caller, posted.endpoint);
    let session = legacy::session(front, caller, endpoint, (posted.headers, None), posted.version).await.ok()?;
    if session.version != Version::V2025_03_26 {
        return None;
    }
    let about = About { names: &outside.names, endpoint, id: None, method: None, era: Era::Legacy };
    let messages = match messages(body) {
        Ok(messages) => messages,
        Err(refusal) => return Some(about.stopped(refusal)),
    };
    let answering = messages.into_iter().map(|message| {
        let (front, outside) = (Arc::clone(front), Arc::clone(outside));
        let refused = message.as_ref().err().cloned().map(|refusal| about.stopped(refusal));
        let inbound = message.ok().map(|message| {
            Box::new(Inbound {
                caller: caller.clone(),
                endpoint: endpoint.clone(),
                peer: posted.peer,
                via: posted.via,
                headers: posted.headers.clone(),
                id: message.id(),
                message,
                held: Arc::clone(posted.held),
            })
        });
        let version = posted.version.map(str::to_owned);
        async move {
            match (inbound, refused) {
                (Some(inbound), _) => legacy::post(&front, &outside, inbound, version.as_deref()).await,
                (None, Some(refused)) => refused,
                (None, None) => answer::empty(StatusCode::ACCEPTED),
            }
        }
    });
    // In their order, which costs nothing where all are answered in one document.
    let answers: Vec<_> = stream::iter(answering).buffered(limit::BATCH_AT_ONCE_MAX).collect().await;
    Some(together(answers.into_iter().map(|answer| front.told(caller, answer)).collect()).await)
}

/// The messages of a batch, or what is wrong with each; or with all of them.
fn messages(body: &[u8]) -> Result<Vec<Result<Message, Refusal>>, Refusal> {
    let malformed = |hint: String| Refusal::new(Reason::MessageMalformed).hint(hint);
    let invalid = |hint: &'static str| Refusal::new(Reason::RequestInvalid).hint(hint);
    let array = Json::parse(body, Source::Client).map_err(|error| malformed(error.to_string()))?;
    let elements: Vec<&str> =
        array.value().as_array().ok_or_else(|| invalid("send an array"))?.map(|element| element.raw()).collect();
    if elements.is_empty() || elements.len() > limit::BATCH_MESSAGES_MAX {
        let hint = format!("send 1 to {} messages in one batch", limit::BATCH_MESSAGES_MAX);
        return Err(Refusal::new(Reason::RequestInvalid).hint(hint));
    }
    let parsed = elements.into_iter().map(|element| {
        let first = element.bytes().next();
        let message = Message::parse(element, Source::Client).map_err(|error| answer::unreadable(first, &error))?;
        // What says so of itself is judged by its headers, which a batch has none of.
        let modern = super::era::Meta::read(message.params()).version.is_some();
        if modern { Err(invalid("send messages of 2026-07-28 alone")) } else { Ok(message) }
    });
    let messages: Vec<_> = parsed.collect();
    if messages.iter().flatten().any(|message| message.method() == "initialize") {
        return Err(invalid("send initialize alone"));
    }
    Ok(messages)
}

/// One response for all answers.
async fn together(answers: Vec<Response<Body>>) -> Response<Body> {
    let (mut documents, mut streams) = (Vec::new(), Vec::new());
    for answer in answers {
        let streams_on = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"text/event-stream");
        if streams_on {
            streams.push(answer.into_body());
        } else if let Ok(document) = answer.into_body().collect().await {
            let document = document.to_bytes();
            if !document.is_empty() {
                documents.push(document);
            }
        }
    }
    if !streams.is_empty() {
        let events = documents.into_iter().map(|document| [b"data: ", document.as_ref(), b"\n\n"].concat());
        let documents = stream::iter(events.map(Bytes::from).collect::<Vec<_>>());
        let streams = stream::iter(streams.into_iter().map(bytes_of)).flatten_unordered(None);
        return answer::events(Body::from_stream(documents.chain(streams).map(Ok::<_, Infallible>)));
    }
    if documents.is_empty() {
        return answer::empty(StatusCode::ACCEPTED);
    }
    let mut array = vec![b'['];
    array.extend(documents.join(&b','));
    array.push(b']');
    answer::document(StatusCode::OK, array)
}

/// The bytes of a stream of ours, which never fails.
fn bytes_of(body: Body) -> impl futures_util::Stream<Item = Bytes> + Send + Unpin {
    Box::pin(body.into_data_stream().filter_map(|chunk| std::future::ready(chunk.ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_and_one_bad_message_is_refused_alone() {
        let one = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let read = |elements: &[&str]| messages(format!("[{}]", elements.join(",")).as_bytes());
        let mixed = read(&[one, "7", r#"{"jsonrpc":"2.0","method":"m"}"#]).unwrap();
        assert_eq!(mixed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert!(read(&[]).is_err() && read(&vec![one; limit::BATCH_MESSAGES_MAX + 1]).is_err());
        assert_eq!(read(&vec![one; limit::BATCH_MESSAGES_MAX]).unwrap().len(), limit::BATCH_MESSAGES_MAX);
        assert!(read(&[one, r#"{"jsonrpc":"2.0","id":2,"method":"initialize","params":{}}"#]).is_err());
        assert!(messages(b"[").is_err() && messages(one.as_bytes()).is_err());
    }
}
