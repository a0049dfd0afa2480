//! What a token endpoint answers: which answers are believed, and what of an error is repeated.
//!
//! Invariants: an answer that hands back what we sent is refused; nothing that an authorization server writes reaches
//! a caller beyond its error code; what we sent is never repeated in a message.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::limit;

/// What is asked for, in the words of RFC 8693.
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(super) const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// Which kind of answer is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A bearer token (RFC 6749, section 5.1).
    Bearer,
    /// The same of an exchange, which says what it issued (RFC 8693, section 2.2.1).
    Exchanged,
    /// An assertion that is no access token.
    Assertion,
}

/// A token that was answered.
#[derive(Debug)]
pub(super) struct Token {
    pub secret: SecretString,
    /// How long it lives from now on, in seconds, as the server says.
    pub life: Option<i64>,
    /// What it is good for, where that is not all that was asked for.
    pub scope: Option<String>,
    /// What it says of itself.
    pub said: SaidOfItself,
}

/// What a JWT says of itself; nothing of it is believed that would do us or anybody a favour.
#[derive(Debug, Deserialize, Default)]
pub(super) struct SaidOfItself {
    pub iss: Option<String>,
    pub jti: Option<String>,
    pub aud: Option<serde_json::Value>,
    pub exp: Option<i64>,
    pub act: Option<serde_json::Value>,
}

impl SaidOfItself {
    /// Whom it is for, one by one.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        let many = self.aud.as_ref().and_then(|aud| aud.as_array()).map(Vec::as_slice).unwrap_or_default();
        self.aud.iter().chain(many).filter_map(|aud| aud.as_str())
    }
}

/// An error of a token endpoint (RFC 6749, section 5.2), fit to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnsweredError {
    pub code: String,
    pub description: String,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    issued_token_type: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Number>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Error {
    error: String,
    error_description: Option<String>,
}

impl Token {
    /// Reads an answer; `sent` is what of our question is secret.
    pub fn read(body: &[u8], expected: Expected, sent: &[SecretString]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| "the token endpoint's answer is not a token response".to_owned())?;
        let token = answer.access_token.as_str();
        if token.is_empty()
            || token.len() > limit::TOKEN_BYTES_MAX
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("the token endpoint answered a token that cannot stand in a header".to_owned());
        }
        if sent.iter().any(|sent| sent.expose_secret() == token) {
            return Err("the token endpoint handed the caller's own token back, which never goes upstream".to_owned());
        }
        let issued = answer.issued_token_type.as_deref();
        let right = match expected {
            Expected::Bearer => matches!(issued, None | Some(ACCESS_TOKEN | JWT)),
            Expected::Exchanged => matches!(issued, Some(ACCESS_TOKEN | JWT)),
            Expected::Assertion => issued == Some(ID_JAG),
        };
        if !right {
            let what = if expected == Expected::Assertion { "an ID-JAG" } else { "an access token" };
            return Err(format!("the token endpoint did not issue {what} (issued_token_type)"));
        }
        let kind = answer.token_type.as_deref().unwrap_or("");
        let bearer = kind.eq_ignore_ascii_case("bearer");
        let not_applicable = kind.eq_ignore_ascii_case("n_a");
        match expected {
            Expected::Bearer if !bearer => {
                return Err("the token endpoint issued a token that is not a bearer token (token_type)".to_owned());
            }
            Expected::Exchanged if !bearer && !not_applicable => {
                return Err("the token endpoint issued a token that is not a bearer token (token_type)".to_owned());
            }
            // Section 2.2.1 has N_A for what is no access token; a bearer token would be one.
            Expected::Assertion if !not_applicable => {
                return Err("the token endpoint issued an assertion whose token_type is not N_A".to_owned());
            }
            _ => {}
        }
        let life = match &answer.expires_in {
            None => None,
            Some(number) => Some(
                number
                    .as_i64()
                    .filter(|life| *life > 0)
                    .ok_or("the token endpoint's expires_in is not a positive number")?,
            ),
        };
        Ok(Self {
            life,
            scope: answer.scope,
            said: claims(token).unwrap_or_default(),
            secret: SecretString::from(answer.access_token),
        })
    }
}

impl AnsweredError {
    /// Reads an error; whatever of our question it repeats is taken out.
    pub fn read(body: &[u8], sent: &[SecretString]) -> Option<Self> {
        let error: Error = serde_json::from_slice(body).ok()?;
        let plain = |text: &str| {
            let mut text = text.to_owned();
            for secret in sent.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
                text = text.replace(secret, "(secret)");
            }
            text.chars().filter(|c| matches!(c, ' '..='~')).take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect::<String>()
        };
        Some(Self { code: plain(&error.error), description: plain(error.error_description.as_deref().unwrap_or("")) })
    }

    /// Whether it is a decision about who asks and what for, rather than trouble of ours.
    pub fn is_a_decision(&self) -> bool {
        matches!(
            self.code.as_str(),
            "invalid_grant"
                | "invalid_target"
                | "invalid_scope"
                | "invalid_request"
                | "access_denied"
                | "consent_required"
                | "interaction_required"
                | "login_required"
        )
    }
}

/// The claims of a JWT, unverified.
pub(super) fn claims<T: serde::de::DeserializeOwned>(token: &str) -> Option<T> {
    part(token, 1)
}

/// The header of a JWT, unverified.
pub(super) fn header<T: serde::de::DeserializeOwned>(token: &str) -> Option<T> {
    part(token, 0)
}

fn part<T: serde::de::DeserializeOwned>(token: &str, number: usize) -> Option<T> {
    let part = token.split('.').nth(number).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())?;
    serde_json::from_slice(&part).ok()
}
