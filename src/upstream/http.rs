//! Streamable HTTP in both eras: one POST for each request, JSON or events back.
//!
//! Decides what an HTTP answer means before anyone looks for an MCP message in it. Knows nothing of who
//! calls. Invariant: no redirect is followed, no body is read beyond its limit, and a header that names
//! a caller's own credential is never passed on.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};

use super::answer::{Heard, Waiting, error_code, garbage, outliving};
use super::drive::{self, Patience};
use super::events::Events;
use super::exchange::Opened;
use super::gate::Permit;
use super::legacy::Session;
use super::link::Link;
use super::losses::Losses;
use super::oldest::Stream;
use super::pool::Pool;
use super::server::{Parcel, Trouble};
use super::shape::Believed;
use super::{Access, shape, told};
use crate::delegate::CredentialHeader;
use crate::egress::UpstreamClient;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{self, Era, Version, code};
use crate::wire::{Json, Message, Source};

/// One upstream that is reached over HTTP.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) link: Arc<Link>,
    pub(super) sessions: Pool<Session>,
    /// Sessions of HTTP+SSE.
    pub(super) streams: Pool<Stream>,
    /// Sessions of either kind that were lost with what they had carried.
    pub(super) losses: Losses,
    client: UpstreamClient,
    uri: Uri,
}

/// What an HTTP answer is.
#[derive(Debug)]
pub(super) enum Reply {
    /// One message.
    Message(Message),
    /// A stream of events.
    Events(Incoming),
    /// Accepted, nothing to say (202).
    Empty,
    /// Refused; the JSON-RPC error that came along, if one did.
    Refused(StatusCode, Option<Message>),
}

/// As which request the record knows what is sent.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers of one request, and the credential among them.
#[derive(Debug, Clone)]
pub(super) struct Outfit {
    headers: HeaderMap,
    credential: Option<CredentialHeader>,
}

impl Deref for Outfit {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.headers
    }
}

impl DerefMut for Outfit {
    fn deref_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }
}

/// A credential as a header carries it.
fn presentable(secret: &SecretString) -> Result<HeaderValue, Failure> {
    let unsendable =
        |_| Failure::before(Reason::CredentialUnavailable, "the credential cannot travel in an HTTP header");
    let mut value = HeaderValue::from_str(secret.expose_secret()).map_err(unsendable)?;
    value.set_sensitive(true);
    Ok(value)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const MODERN_VERSION: HeaderValue = HeaderValue::from_static(Version::V2026_07_28.as_str());

/// Headers that are ours to set, or that would carry what the caller presented to us.
fn is_reserved(name: &HeaderName) -> bool {
    const RESERVED: [HeaderName; 13] = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::UPGRADE,
        header::TE,
    ];
    RESERVED.contains(name) || name.as_str().starts_with("mcp-") || ["last-event-id", "dpop"].contains(&name.as_str())
}

impl Http {
    pub(super) fn new(link: Arc<Link>, client: UpstreamClient, uri: Uri) -> Self {
        let (sessions, streams) =
            (Pool::new(limit::SESSIONS_PER_SERVER_MAX), Pool::new(limit::SESSIONS_PER_SERVER_MAX));
        Self { link, client, uri, sessions, streams, losses: Losses::default() }
    }

    /// One modern request.
    pub(super) async fn modern(
        self: &Arc<Self>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Trouble> {
        told::none_of_2025(parcel)?;
        let (waiting, message) = self.prepare(parcel, Era::Modern);
        let mut headers = self.headers(parcel, Era::Modern)?;
        headers.insert(mcp::header::PROTOCOL_VERSION, MODERN_VERSION);
        let response = self.post(&message, headers, patience).await?;
        match self.reply(response, patience).await? {
            Reply::Events(body) => {
                let events = Events::modern(body, waiting, permit.take());
                Ok(Box::pin(drive::drive(events, patience, patience.next_event(), None)).await)
            }
            Reply::Refused(status, message) => {
                let error = message.as_ref().and_then(Message::body);
                match error.as_ref().and_then(error_code) {
                    Some(number) if number == i64::from(code::UNSUPPORTED_VERSION) => {
                        Err(Trouble::WrongEra(refused(status, error.as_ref())))
                    }
                    // A server that does not know the modern era refuses before it does anything.
                    Some(number) if !is_modern_error(status, number) => {
                        self.link.forget_era();
                        Ok(Opened::Done(refusal(status, message, &waiting)))
                    }
                    None if matches!(status.as_u16(), 400 | 404 | 405 | 406 | 415) => {
                        self.link.forget_era();
                        Ok(Opened::Done(Outcome::Failed(refused(status, None))))
                    }
                    _ => Ok(Opened::Done(refusal(status, message, &waiting))),
                }
            }
            Reply::Message(message) => Ok(Opened::Done(single(message, &waiting))),
            Reply::Empty => Ok(Opened::Done(garbage("the answer to a request is empty"))),
        }
    }

    /// A request of ours, and what waits for its answer.
    pub(super) fn prepare(&self, parcel: &Parcel, era: Era) -> (Waiting, Message) {
        let waiting = Waiting {
            id: self.link.next_id(),
            era,
            believed: Believed::of(era, || parcel.askable(&self.link)),
            theirs: parcel.outgoing.progress_token.clone(),
            outliving: outliving(&parcel.outgoing, parcel.leg, era),
            listening: parcel.listening,
            hub: Arc::clone(&self.link.hub),
            updates: None,
            asked: parcel.outgoing.params.clone(),
            awaits_task: parcel.outgoing.method == "tasks/result",
            beside: None,
            last_words: parcel.outgoing.last_words.clone(),
        };
        let parameters = shape::parameters(&parcel.outgoing, era, waiting.token().as_ref());
        let message = Message::request(&Json::of(&waiting.id), &parcel.outgoing.method, &parameters);
        (waiting, message)
    }

    /// The headers of a request: passed on, mirrored, and the credential.
    pub(super) fn headers(&self, parcel: &Parcel, era: Era) -> Result<Outfit, Failure> {
        let outgoing = &parcel.outgoing;
        let mut headers = self.bare_headers(&parcel.access)?;
        for (name, value) in &outgoing.headers {
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            if is_reserved(&name) || headers.contains_key(&name) {
                continue;
            }
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        }
        // What the server writes into its own log leads to ours; where its entry lets the client's pass, that is the one.
        if let Some(leg) = parcel.leg.filter(|_| !headers.contains_key(&REQUEST_ID))
            && let Ok(value) = HeaderValue::try_from(leg.to_string())
        {
            headers.insert(REQUEST_ID, value);
        }
        if era == Era::Modern {
            let unsendable = |what: &str| {
                Failure::before(Reason::ParametersInvalid, format!("the {what} cannot travel in an HTTP header"))
            };
            let method = HeaderValue::from_str(&outgoing.method).map_err(|_| unsendable("method"))?;
            headers.insert(mcp::header::METHOD, method);
            if let Some(name) = &outgoing.name {
                headers.insert(mcp::header::NAME, shape::header_value(name).ok_or_else(|| unsendable("name"))?);
            }
            for (name, value) in &outgoing.header_parameters {
                let name = HeaderName::try_from(name.as_str()).map_err(|_| unsendable("parameter's name"))?;
                if !name.as_str().starts_with(mcp::header::PARAMETER_PREFIX) {
                    return Err(unsendable("parameter's name"));
                }
                headers.insert(name, shape::header_value(value).ok_or_else(|| unsendable("parameter"))?);
            }
        }
        Ok(headers)
    }

    /// What every request has: the content types and the credential.
    pub(super) fn bare_headers(&self, access: &Access) -> Result<Outfit, Failure> {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, JSON_OR_EVENTS);
        if let Some(CredentialHeader { name, value, .. }) = &access.credential {
            headers.insert(name.clone(), presentable(value)?);
        }
        Ok(Outfit { headers, credential: access.credential.clone() })
    }

    /// Sends one message; answers when the head of the answer is there.
    pub(super) async fn post(
        &self,
        message: &Message,
        headers: Outfit,
        patience: Patience,
    ) -> Result<Response<Incoming>, Failure> {
        self.request(http::Method::POST, message.as_bytes().clone(), headers, patience).await
    }

    /// Sends one HTTP request to the MCP endpoint.
    pub(super) async fn request(
        &self,
        method: http::Method,
        body: Bytes,
        headers: Outfit,
        patience: Patience,
    ) -> Result<Response<Incoming>, Failure> {
        self.request_at(self.uri.clone(), method, body, headers, patience).await
    }

    /// Sends one HTTP request to another place at the same origin.
    pub(super) async fn request_at(
        &self,
        uri: Uri,
        method: http::Method,
        body: Bytes,
        headers: Outfit,
        patience: Patience,
    ) -> Result<Response<Incoming>, Failure> {
        let Outfit { mut headers, credential } = headers;
        let Some(credential) = &credential else { return self.once(uri, method, body, headers, patience).await };
        let name = &credential.name;
        let Some(spare) = &credential.spare else { return self.once(uri, method, body, headers, patience).await };
        let first = (uri.clone(), method.clone(), body.clone(), headers.clone());
        let response = Box::pin(self.proven(credential, first, patience)).await?;
        if response.status() == StatusCode::FORBIDDEN {
            return spare.short_of(response.headers()).map_or(Ok(response), Err);
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Whoever does not let us in has done nothing yet; while a secret is changed the other one may be right.
        let Some(other) = Box::pin(spare.other()).await? else { return Ok(response) };
        headers.insert(name, presentable(&other)?);
        let again = Box::pin(self.proven(credential, (uri, method, body, headers), patience)).await?;
        if again.status() != StatusCode::UNAUTHORIZED {
            spare.accepted();
        }
        Ok(again)
    }

    /// The same with a proof, where the credential needs one; a nonce that the server wants is put into another one.
    async fn proven(
        &self,
        credential: &CredentialHeader,
        (uri, method, body, headers): (Uri, http::Method, Bytes, HeaderMap),
        patience: Patience,
    ) -> Result<Response<Incoming>, Failure> {
        let proven = || credential.proven(&method, &uri, headers.clone());
        let response = self.once(uri.clone(), method.clone(), body.clone(), proven()?, patience).await?;
        if !credential.hears(response.headers()) || response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let again = self.once(uri.clone(), method.clone(), body, proven()?, patience).await?;
        let _for_the_next = credential.hears(again.headers());
        Ok(again)
    }

    async fn once(
        &self,
        uri: Uri,
        method: http::Method,
        body: Bytes,
        headers: HeaderMap,
        patience: Patience,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let asking = self.link.asking(patience.first_byte);
        match tokio::time::timeout_at(patience.first_byte, self.client.request(request)).await {
            Err(_) => Err(Failure::after(Reason::UpstreamTimeout, "no answer came in time")),
            Ok(Err(error)) if error.is_connect() => Err(self.link.unreachable(causes(&error))),
            Ok(Err(error)) => Err(Failure::after(Reason::UpstreamClosed, causes(&error))),
            Ok(Ok(response)) => {
                asking.answered();
                Ok(response)
            }
        }
    }

    /// What an HTTP answer is; reads it unless it streams.
    pub(super) async fn reply(&self, response: Response<Incoming>, patience: Patience) -> Result<Reply, Failure> {
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is = |wanted: &str| {
            content_type
                .and_then(|value| value.split(';').next())
                .is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        let unreadable = |what: String| Failure::after(Reason::UpstreamGarbage, what);
        if head.status.is_success() {
            if is("text/event-stream") {
                return Ok(Reply::Events(body));
            }
            if is("application/json") {
                let bytes = read(body, limit::RESPONSE_BYTES_MAX, patience).await?;
                let message = Message::parse(bytes, Source::Upstream);
                return message
                    .map(Reply::Message)
                    .map_err(|error| unreadable(format!("the answer is no message: {error}")));
            }
            return if matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) || content_type.is_none() {
                Ok(Reply::Empty)
            } else {
                Err(unreadable("the answer is neither JSON nor a stream of events".to_owned()))
            };
        }
        // The body of an error is only looked at for a JSON-RPC error; that it cannot be read is no news.
        let message = if is("application/json") {
            let bytes = read(body, limit::ERROR_BODY_BYTES_MAX, patience).await.ok();
            bytes.and_then(|bytes| Message::parse(bytes, Source::Upstream).ok())
        } else {
            None
        };
        Ok(Reply::Refused(head.status, message.filter(|message| message.kind() == crate::wire::Kind::Error)))
    }
}

/// The only message of a JSON answer.
pub(super) fn single(message: Message, waiting: &Waiting) -> Outcome {
    match waiting.hear(message) {
        Heard::Done(outcome) => outcome,
        _ => garbage("the answer is to another request"),
    }
}

/// What an HTTP error means to the request.
pub(super) fn refusal(status: StatusCode, message: Option<Message>, waiting: &Waiting) -> Outcome {
    // Whoever refuses our credential does not speak to the client, whatever the body says.
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Outcome::Failed(refused(status, None));
    }
    match message.filter(|_| status.is_client_error()).map(|message| waiting.hear(message)) {
        Some(Heard::Done(outcome)) => outcome,
        _ => Outcome::Failed(refused(status, None)),
    }
}

/// The failure for an HTTP error.
pub(super) fn refused(status: StatusCode, error: Option<&Json>) -> Failure {
    let detail = match error.and_then(error_code) {
        Some(code) => format!("HTTP {} with JSON-RPC error {code}", status.as_u16()),
        None if status.is_redirection() => format!("HTTP {}: redirects are not followed", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    Failure::after(Reason::UpstreamStatus, detail)
}

/// Whether an error says that its sender speaks 2026-07-28.
fn is_modern_error(status: StatusCode, number: i64) -> bool {
    let modern = [code::HEADER_MISMATCH, code::MISSING_CAPABILITY, code::UNSUPPORTED_VERSION];
    modern.iter().any(|code| i64::from(*code) == number)
        || (number == i64::from(code::METHOD_NOT_FOUND) && status == StatusCode::NOT_FOUND)
        || number == i64::from(code::INVALID_PARAMS)
        || !(status.is_client_error())
}

/// Reads a body of at most so many bytes.
pub(super) async fn read(mut body: Incoming, bytes_max: usize, patience: Patience) -> Result<Vec<u8>, Failure> {
    use hyper::body::Body as _;
    let too_large = || Failure::after(Reason::UpstreamGarbage, format!("the answer is larger than {bytes_max} bytes"));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced);
    loop {
        let frame = match tokio::time::timeout_at(patience.next_event(), body.frame()).await {
            Err(_) => return Err(Failure::after(Reason::UpstreamTimeout, "the answer did not end in time")),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(Failure::after(Reason::UpstreamClosed, causes(&error))),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// An error with what caused it; hyper says `client error (Connect)` and little more by itself.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
