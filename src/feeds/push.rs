//! Shared Signals, pushed (RFC 8935): 202 with nothing once it is durable, or the error in its words.
//!
//! Decides only how outcomes are told. Invariant: an event that could not be carried out is not acknowledged.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::json;

use super::{Feeds, Message, answer};
use crate::outcome::{Reason, Refusal};

impl Feeds {
    /// Answers `POST /feeds/{name}/events`, whose sender has presented the secret.
    pub(super) async fn pushed(&self, message: &Message<'_>) -> Response<Bytes> {
        let taken = match token(message) {
            Ok(token) => self.take(message.feed, token).await.map(drop),
            Err(refusal) => Err(refusal.into()),
        };
        let Err(stop) = taken else { return answer::json(StatusCode::ACCEPTED, None) };
        let status = answer::status(&stop);
        if status != StatusCode::BAD_REQUEST {
            return answer::plain(&stop);
        }
        answer::json(status, Some(&json!({ "err": error(stop.reason()), "description": answer::described(&stop) })))
    }
}

fn token<'a>(message: &'a Message<'_>) -> Result<&'a str, Refusal> {
    let kind = message.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/secevent+jwt") {
        return Err(Refusal::new(Reason::FeedMessageInvalid).hint("send application/secevent+jwt"));
    }
    let text = std::str::from_utf8(&message.body).map(str::trim).unwrap_or_default();
    if text.is_empty() { Err(Refusal::new(Reason::FeedMessageInvalid).hint("the body is no token")) } else { Ok(text) }
}

/// The codes of RFC 8935 section 2.4.
pub(super) fn error(reason: Reason) -> &'static str {
    match reason {
        Reason::IssuerUnknown => "invalid_issuer",
        Reason::AudienceMismatch => "invalid_audience",
        Reason::SignatureInvalid | Reason::AlgorithmRefused => "invalid_key",
        Reason::FeedSubjectForeign => "access_denied",
        Reason::FeedRefused => "authentication_failed",
        _ => "invalid_request",
    }
}
