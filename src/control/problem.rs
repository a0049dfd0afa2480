//! How a refusal or a failure reaches an administrator: problem details (RFC 9457) with our stable code.

use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::operations::Problem;
use crate::config::known;
use crate::outcome::reason::Channel;
use crate::outcome::{Failure, Reason, Refusal, Stop};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A stop.
pub(super) fn stopped(stop: &Stop) -> Response {
    match stop {
        Stop::Refused(refusal) => refused(refusal),
        Stop::Failed(failure) => failed(failure),
    }
}

/// A decision against it.
pub(super) fn refused(refusal: &Refusal) -> Response {
    described(refusal.reason, &refusal.hint)
}

/// Our trouble. Administrators are told what it is.
pub(super) fn failed(failure: &Failure) -> Response {
    described(failure.reason, &failure.detail)
}

fn described(reason: Reason, detail: &str) -> Response {
    problem(status(reason), reason.code(), detail)
}

/// A problem with that code.
pub(super) fn problem(status: StatusCode, reason: &str, detail: &str) -> Response {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("error").to_owned(),
        status: status.as_u16(),
        reason: reason.to_owned(),
        // Whatever an authorization server or a store has said: no secret that was read is in it.
        detail: known::without(detail).into_owned(),
    };
    let mut response = (status, axum::Json(problem)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    response
}

/// Here every refusal has a status of its own: there is no tool whose result it could be.
fn status(reason: Reason) -> StatusCode {
    match (reason.channel(), reason) {
        (_, Reason::NotAllowed | Reason::DeniedByRule | Reason::ConditionUnmet | Reason::EnvironmentRefused) => {
            StatusCode::FORBIDDEN
        }
        (_, Reason::ParametersInvalid) => StatusCode::BAD_REQUEST,
        (_, Reason::TargetUnknown | Reason::MandateUnknown) => StatusCode::NOT_FOUND,
        (_, Reason::ApprovalOver | Reason::ApprovalChanged | Reason::ApprovalVoid | Reason::ApprovalsLimited) => {
            StatusCode::CONFLICT
        }
        (Channel::Unauthorized, _) => StatusCode::UNAUTHORIZED,
        (Channel::InsufficientScope | Channel::Forbidden, _) => StatusCode::FORBIDDEN,
        (Channel::BadRequest(_), _) => StatusCode::BAD_REQUEST,
        (Channel::NotFound(_), _) => StatusCode::NOT_FOUND,
        (Channel::TooLarge, _) => StatusCode::PAYLOAD_TOO_LARGE,
        (Channel::TooManyRequests, _) => StatusCode::TOO_MANY_REQUESTS,
        (Channel::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Channel::RpcError(_) | Channel::ToolResult(_), _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_tells_no_secret_that_was_read() {
        known::remember(&secrecy::SecretString::from("posted-client-secret-9"));
        let failure = Failure::before(Reason::CredentialUnavailable, "it answered posted-client-secret-9 is wrong");
        let body = axum::body::to_bytes(failed(&failure).into_body(), 4096).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("it answered [redacted] is wrong"), "{text}");
    }
}
