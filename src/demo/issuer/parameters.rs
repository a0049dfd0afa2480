//! Parameters of a query or a form, and the errors of RFC 6749 section 5.2.
//!
//! Decides what is well-formed. Invariant: no parameter stands there twice, none is longer than the limit.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;

use crate::limit;

/// Parameters, each once.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// An error as RFC 6749 spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OauthError {
    pub code: &'static str,
    pub description: String,
}

impl Parameters {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &[u8]) -> Result<Self, OauthError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if parameters.len() >= limit::DEMO_PARAMETERS_MAX || value.len() > limit::DEMO_PARAMETER_BYTES_MAX {
                return Err(error("invalid_request", "too many parameters, or one is too long"));
            }
            if parameters.iter().any(|(own, _)| *own == name) {
                // RFC 8707 lets `resource` stand there several times; one token is for one resource here.
                let code = if name == "resource" { "invalid_target" } else { "invalid_request" };
                return Err(error(code, "a parameter stands there twice"));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    /// A parameter; empty counts as absent (RFC 6749 section 3.1).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    pub fn need(&self, name: &str) -> Result<&str, OauthError> {
        self.get(name).ok_or_else(|| error("invalid_request", format!("the parameter `{name}` is missing")))
    }
}

/// An error with that code.
pub(super) fn error(code: &'static str, description: impl Into<String>) -> OauthError {
    OauthError { code, description: description.into() }
}

impl From<String> for OauthError {
    fn from(description: String) -> Self {
        error("server_error", description)
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = Json(serde_json::json!({ "error": self.code, "error_description": self.description }));
        match self.code {
            "invalid_client" => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic")], body).into_response(),
            "server_error" => (StatusCode::INTERNAL_SERVER_ERROR, body).into_response(),
            _ => (StatusCode::BAD_REQUEST, body).into_response(),
        }
    }
}

/// The resource of a request (RFC 8707), or the default.
pub(super) fn resource(named: Option<&str>, default: &str) -> Result<String, OauthError> {
    let Some(named) = named else { return Ok(default.to_owned()) };
    let refuse = || error("invalid_target", "the resource is not an absolute URI without a fragment");
    let url = url::Url::parse(named).map_err(|_| refuse())?;
    if url.fragment().is_some() || named.contains('#') || named.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(refuse());
    }
    Ok(named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bounded_in_number_and_length() {
        let many = |count: usize| {
            let all: Vec<String> = (0..count).map(|number| format!("p{number}=x")).collect();
            Parameters::parse(all.join("&").as_bytes())
        };
        assert!(many(limit::DEMO_PARAMETERS_MAX).is_ok());
        assert_eq!(many(limit::DEMO_PARAMETERS_MAX + 1).unwrap_err().code, "invalid_request");
        let long = |length: usize| Parameters::parse(format!("p={}", "x".repeat(length)).as_bytes());
        assert!(long(limit::DEMO_PARAMETER_BYTES_MAX).is_ok());
        assert_eq!(long(limit::DEMO_PARAMETER_BYTES_MAX + 1).unwrap_err().code, "invalid_request");
    }
}
