//! The modern era (2026-07-28): stateless, everything that a request needs stands in it.
//!
//! Decides nothing about rights. Invariant: each request is judged by itself; what its headers say equals
//! what its body says; when its client goes, it is cancelled.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};

use super::answer::{self, About};
use super::era::Meta;
use super::ongoing::Ongoing;
use super::pipeline::Pipeline;
use super::{Front, Inbound, Outside, headers, is_request, stream};
use crate::call::Request;
use crate::limit;
use crate::outcome::{Reason, Refusal, reply};
use crate::upstream::Event;
use crate::watch::Interest;
use crate::wire::mcp::{Era, Method, Version};
use crate::wire::{Json, Kind, Object, Value};

/// Answers one modern message.
pub(super) async fn post<P: Pipeline>(
    front: &Front<P>,
    outside: &Outside,
    inbound: Box<Inbound<P>>,
    meta: &Meta<'_>,
    version_header: Option<&str>,
) -> Response<Body> {
    let message = &inbound.message;
    let name = message.method();
    let known = Method::parse(&name, Era::Modern).filter(|method| is_served(*method));
    let method = known.or_else(|| Method::extension(&name));
    let endpoint = inbound.endpoint.clone();
    let id = inbound.id.clone();
    let about = About { names: &outside.names, endpoint: &endpoint, id: id.as_ref(), method, era: Era::Modern };
    if matches!(message.kind(), Kind::Result | Kind::Error) {
        return about.stopped(Refusal::new(Reason::RequestInvalid).hint("send requests and notifications only"));
    }
    let version = match version(meta, version_header, is_request(message)) {
        Ok(version) => version,
        Err(VersionTrouble::Refused(refusal)) => return about.stopped(refusal),
        Err(VersionTrouble::Unsupported(requested)) => return about.version_unsupported(&requested),
    };
    if !is_request(message) {
        // No notification from a client means anything over HTTP: a request is cancelled by closing it.
        return answer::empty(StatusCode::ACCEPTED);
    }
    let client = match meta.facts(message, version) {
        Ok(client) => client,
        Err(refusal) => return about.stopped(refusal),
    };
    if let Err(refusal) = headers::check(&inbound.headers, &name, method, message.params()) {
        return about.stopped(refusal);
    }
    let (Some(method), Some(id)) = (method, inbound.id) else {
        return about.stopped(Refusal::new(Reason::MethodUnknown));
    };
    let header_parameters = match headers::parameters(&inbound.headers) {
        Ok(parameters) => parameters,
        Err(refusal) => return about.stopped(refusal),
    };
    let mandate = match headers::mandate(&inbound.headers, &inbound.message) {
        Ok(mandate) => mandate,
        Err(refusal) => return about.stopped(refusal),
    };
    let request = Box::new(Request {
        message: inbound.message,
        method,
        endpoint: inbound.endpoint,
        client,
        header_parameters,
        headers: outside.forwarded(&inbound.headers),
        peer: inbound.peer,
        mandate,
        via: inbound.via,
        last_words: None,
    });
    let discovered = match method {
        Method::CallTool
        | Method::GetPrompt
        | Method::ReadResource
        | Method::Complete
        | Method::Extension
        | Method::TaskGet
        | Method::TaskUpdate
        | Method::TaskCancel => {
            return called(Arc::clone(&front.pipeline), inbound.caller, request, about, id).await;
        }
        Method::Listen => {
            let Some(interest) = request.message.params().and_then(interest) else {
                return about.stopped(Refusal::new(Reason::ParametersInvalid).hint(
                    "send notifications, as an object, and resourceSubscriptions and taskIds in it as arrays of texts",
                ));
            };
            return match Box::pin(front.pipeline.watch(&inbound.caller, &endpoint, &request.client, interest)).await {
                Ok(watch) => answer::events(stream::of_listen::<P>(watch, id)),
                Err(stop) => about.stopped(stop),
            };
        }
        Method::List(kind) => {
            return match front.pipeline.list(&inbound.caller, &request, kind).await {
                Ok(result) => answer::listed(about, &id, &result, &inbound.held),
                Err(stop) => about.told(stop),
            };
        }
        Method::Discover => front.pipeline.discover(&inbound.caller, &request).await,
        _ => return about.stopped(Refusal::new(Reason::MethodUnknown)),
    };
    match discovered {
        Ok(result) => answer::listed(about, &id, &result, &inbound.held),
        Err(stop) => about.stopped(stop),
    }
}

/// Answers a call: with its end, or with a stream as soon as there is something before it.
async fn called<P: Pipeline>(
    pipeline: Arc<P>,
    caller: P::Caller,
    request: Box<Request>,
    about: About<'_>,
    id: Json,
) -> Response<Body> {
    let method = request.method;
    let mut ongoing = Ongoing::modern(pipeline, caller, request).await;
    match ongoing.next().await {
        Some(Event::Done(outcome)) => {
            answer::reply(&reply::reply(&outcome, &id, method, Era::Modern), about.names, about.endpoint)
        }
        Some(Event::Notification(first)) => answer::events(stream::of_call(Some(first), ongoing, id, method)),
        Some(Event::StreamClosed) => answer::events(stream::of_call(None, ongoing, id, method)),
        None => about.told(Refusal::new(Reason::Cancelled)),
    }
}

/// The methods that are answered.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::Discover
            | Method::List(_)
            | Method::CallTool
            | Method::GetPrompt
            | Method::ReadResource
            | Method::Complete
            | Method::Listen
            | Method::TaskGet
            | Method::TaskUpdate
            | Method::TaskCancel
    )
}

enum VersionTrouble {
    Refused(Refusal),
    Unsupported(String),
}

/// The version of the request: `_meta` and the header must name the same one, and it must be a modern one.
fn version(meta: &Meta<'_>, header: Option<&str>, required: bool) -> Result<Version, VersionTrouble> {
    let refused = |refusal: Refusal| Err(VersionTrouble::Refused(refusal));
    let in_meta = match meta.version.map(Value::as_str) {
        Some(Some(version)) => Some(version),
        None if !required => None,
        _ => return refused(Refusal::new(Reason::MetaInvalid).hint("send protocolVersion in _meta, as a string")),
    };
    let version = match (&in_meta, header) {
        (Some(version), Some(header)) if version.as_ref() == header => header,
        (None, Some(header)) => header,
        (Some(_), Some(_)) => return refused(headers::mismatch("the MCP-Protocol-Version header differs from _meta")),
        (_, None) => return refused(headers::mismatch("the MCP-Protocol-Version header is missing")),
    };
    Version::parse(version)
        .filter(|version| version.era() == Era::Modern)
        .ok_or_else(|| VersionTrouble::Unsupported(version.chars().take(40).collect()))
}

/// Each of these texts once, in their order; one more than a listen may name is enough to refuse it.
fn distinct<'a>(texts: impl Iterator<Item = Value<'a>>) -> Option<Vec<String>> {
    let mut distinct: Vec<String> = Vec::new();
    for text in texts {
        let text = text.as_str()?;
        if distinct.len() <= limit::SUBSCRIPTIONS_PER_STREAM_MAX && !distinct.iter().any(|known| *known == *text) {
            distinct.push(text.into_owned());
        }
    }
    Some(distinct)
}

/// Which notifications a listen asks for; kinds that are not served are left out of the acknowledgement.
fn interest(params: Object<'_>) -> Option<Interest> {
    let filter = params.get("notifications")?.as_object()?;
    let wants = |key: &str| filter.get(key).and_then(Value::as_bool).unwrap_or(false);
    Some(Interest {
        tools: wants("toolsListChanged"),
        prompts: wants("promptsListChanged"),
        resources: wants("resourcesListChanged"),
        updates: match filter.get("resourceSubscriptions").filter(|uris| !uris.is_null()) {
            Some(uris) => distinct(uris.as_array()?)?,
            None => Vec::new(),
        },
        tasks: match filter.get("taskIds").filter(|ids| !ids.is_null()) {
            Some(ids) => distinct(ids.as_array()?)?,
            None => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn read(params: &str) -> Option<Interest> {
        let params = Json::parse(params, Source::Client).unwrap();
        interest(params.value().as_object().unwrap())
    }

    #[test]
    fn a_listen_names_each_resource_once_and_one_too_many_is_enough_to_see() {
        let some =
            read(r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["b","a","b"]}}"#).unwrap();
        assert_eq!(some, Interest { tools: true, updates: vec!["b".into(), "a".into()], ..Interest::default() });
        let max = limit::SUBSCRIPTIONS_PER_STREAM_MAX;
        let many: Vec<String> = (0..2 * max).map(|number| format!("\"{number}\"")).collect();
        let many = format!(r#"{{"notifications":{{"resourceSubscriptions":[{}]}}}}"#, many.join(","));
        assert_eq!(read(&many).unwrap().updates.len(), max + 1);
        for odd in
            [r#"{"notifications":{"resourceSubscriptions":"a"}}"#, r#"{"notifications":{"resourceSubscriptions":[1]}}"#]
        {
            assert!(read(odd).is_none(), "{odd}");
        }
    }
}
