//! Codes and refresh tokens become the provider's tokens.
//!
//! Invariants: what was sealed for one client is of no use to another; a code needs the client's own PKCE verifier, here
//! and at the provider; nobody gets scopes or a resource that no person has consented to, or what is not for this gateway;
//! the answer holds what a client needs and nothing else the provider said; which client got which token is on the record
//! before the client has it; a login from before its person was taken back gives nobody a token, also once that is lifted.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::back::Code;
use super::{Desk, Facade, Moment, Parameters, Places, Purpose, answer, client, header, same};
use crate::egress::oauth_client;
use crate::ids::{Digest, RevocationEpoch};
use crate::limit;
use crate::outcome::Reason;
use crate::record::event::AdminNote;
use crate::wire::voids::Holder;

/// A refresh token of the provider's, for one client.
#[derive(Debug, Serialize, Deserialize)]
struct Refresh {
    token: String,
    name: String,
    redirect: String,
    /// What a person consented to.
    #[serde(default)]
    scope: String,
    /// The same of the resource; a token of earlier versions does not say it, and is good for nothing.
    #[serde(default)]
    resource: String,
}

/// What is asked of the provider, and for whom.
struct Question {
    form: Vec<(&'static str, String)>,
    client: String,
    name: String,
    redirect: String,
    scope: String,
    resource: String,
    /// At which epoch what it is asked with was handed out.
    since: RevocationEpoch,
}

/// Whom an answer of the provider's is for.
enum Whose {
    /// Somebody who may come in with it.
    Known(Holder),
    /// Nobody here can say: a token that is refused here tells its bearer why, and gets no successor by us.
    Unknown,
    /// Somebody from whom access was taken since what they came with was handed out.
    TakenBack,
}

impl Facade {
    pub(super) async fn token(&self, desk: &Desk<'_>, body: &[u8], headers: &HeaderMap) -> Response<Bytes> {
        let kind = header(headers, &CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let form = Parameters::read(body).filter(|_| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        let Some(form) = form else {
            return answer::error(StatusCode::BAD_REQUEST, "invalid_request", "send a form, and nothing twice");
        };
        let question = match self.question(desk, &form) {
            Ok(question) => question,
            Err(("invalid_client", text)) => return answer::error(StatusCode::UNAUTHORIZED, "invalid_client", text),
            Err((code, text)) => return answer::error(StatusCode::BAD_REQUEST, code, text),
        };
        let away = |problem: &str| {
            tracing::warn!(issuer = %desk.config.alias, problem, "a token could not be had for a registered client");
            answer::error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "the identity provider is away")
        };
        let Some(places) = self.grounds.places(&desk.config.alias) else { return away("its metadata is not known") };
        let (status, told) = match self.redeem(desk, &places, &question).await {
            Ok(told) => told,
            Err(problem) => return away(&problem),
        };
        if status != StatusCode::OK {
            let code =
                told.get("error").and_then(Value::as_str).filter(|code| is_code(code)).unwrap_or("invalid_grant");
            // That our own client is refused is nothing that the assistant could mend.
            let code = if code == "invalid_client" { "server_error" } else { code };
            return answer::error(StatusCode::BAD_REQUEST, code, "the identity provider refused");
        }
        let token = told.get("access_token").and_then(Value::as_str).unwrap_or_default();
        if !desk.is_for_us(token, &question.resource) {
            return away("its access token is for somebody else: look at its scopes, and at audiences");
        }
        let whose = self.whose(desk, &question, token).await;
        if let Whose::TakenBack = whose {
            self.recorded(desk, &question, token, Some(Reason::Revoked)).await;
            return answer::error(StatusCode::BAD_REQUEST, "invalid_grant", "access was taken back: log in again");
        }
        let granted = self.granted(desk, &question, &told, whose);
        let Some(granted) = granted else { return away("its answer has no bearer token") };
        if !self.recorded(desk, &question, token, None).await {
            return answer::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "nothing can be recorded",
            );
        }
        answer::json(StatusCode::OK, &granted)
    }

    fn question(&self, desk: &Desk<'_>, form: &Parameters) -> Result<Question, (&'static str, &'static str)> {
        let id = form.get("client_id").ok_or(("invalid_client", "it names no client"))?;
        let client =
            self.client(desk, id).ok_or(("invalid_client", "this client is not registered here, or not any more"))?;
        let short = client::short(id);
        let (mut asked, name, redirect, scope, resource, since) = match form.get("grant_type") {
            Some("authorization_code") => {
                let refused = ("invalid_grant", "the code is not one of this client's, or too old");
                let sealed = form.get("code").ok_or(("invalid_request", "it has no code"))?;
                let (code, since): (Code, _) = self.open(Purpose::Code, (desk, &short), sealed).ok_or(refused)?;
                let fits = code.until > Moment::now()
                    && form.get("redirect_uri") == Some(code.redirect.as_str())
                    && client.may_backto(&code.redirect);
                if !fits {
                    return Err(refused);
                }
                let verifier = form.get("code_verifier").unwrap_or_default();
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
                if !(43..=128).contains(&verifier.len()) || !same(&URL_SAFE_NO_PAD.encode(hash), &code.challenge) {
                    return Err(("invalid_grant", "the code_verifier is not that of the code_challenge"));
                }
                let asked = vec![
                    ("grant_type", "authorization_code".to_owned()),
                    ("code", code.code),
                    ("redirect_uri", desk.callback()),
                    ("code_verifier", verifier.to_owned()),
                ];
                (asked, code.name, code.redirect, code.scope, code.resource, since)
            }
            Some("refresh_token") => {
                let sealed = form.get("refresh_token").ok_or(("invalid_request", "it has no refresh_token"))?;
                let (refresh, since) = self
                    .open(Purpose::Refresh, (desk, &short), sealed)
                    .filter(|(refresh, _): &(Refresh, _)| !refresh.resource.is_empty())
                    .ok_or(("invalid_grant", "the refresh token is not one of this client's, or not any more"))?;
                let mut asked = vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", refresh.token)];
                if let Some(scope) = form.get("scope") {
                    let agreed = |scope| refresh.scope.split_ascii_whitespace().any(|own| own == scope);
                    if !scope.split_ascii_whitespace().all(agreed) {
                        return Err(("invalid_scope", "nobody has agreed to that: log in with these scopes"));
                    }
                    asked.push(("scope", scope.to_owned()));
                }
                (asked, refresh.name, refresh.redirect, refresh.scope, refresh.resource, since)
            }
            _ => return Err(("unsupported_grant_type", "use authorization_code or refresh_token")),
        };
        if form.get("resource").is_some_and(|asked| asked != resource) {
            return Err(("invalid_target", "nobody has agreed to that resource: log in for it"));
        }
        if desk.registration.sends_resource {
            asked.push(("resource", resource.clone()));
        }
        Ok(Question { form: asked, client: short, name, redirect, scope, resource, since })
    }

    async fn redeem(
        &self,
        desk: &Desk<'_>,
        places: &Places,
        question: &Question,
    ) -> Result<(StatusCode, Map<String, Value>), String> {
        let secret = match &desk.registration.client_secret {
            Some(reference) => Some(self.secrets.get(reference).await?),
            None => None,
        };
        let request = request(desk, places, question, secret.as_deref())?;
        let policy = places.policy.clone();
        let client =
            tokio::task::spawn_blocking(move || oauth_client(policy)).await.map_err(|error| error.to_string())?;
        let told = client.map_err(|error| error.to_string())?.send(request).await.map_err(|error| error.to_string())?;
        if told.status().is_server_error() {
            return Err(format!("it answered {}", told.status()));
        }
        let body = serde_json::from_slice(told.body()).map_err(|_| "its answer is not a JSON object".to_owned())?;
        Ok((told.status(), body))
    }

    /// Whom the token is for that the provider gave, and whether they may have it.
    async fn whose(&self, desk: &Desk<'_>, question: &Question, token: &str) -> Whose {
        match self.grounds.holder(token).await {
            Ok(holder) if !self.sealer.holds(&holder.clone().since(question.since)) => Whose::TakenBack,
            // What is taken back while this is answered may have been too late for what was looked at.
            Ok(holder) => Whose::Known(holder.since(desk.epoch)),
            Err(stop) if stop.reason() == Reason::Revoked => Whose::TakenBack,
            Err(stop) => {
                tracing::warn!(
                    issuer = %desk.config.alias, %stop,
                    "a registered client got no refresh token, because nobody can say here whose it would be"
                );
                Whose::Unknown
            }
        }
    }

    /// What the client is told.
    fn granted(&self, desk: &Desk<'_>, question: &Question, told: &Map<String, Value>, whose: Whose) -> Option<Value> {
        let kind = told.get("token_type").and_then(Value::as_str)?;
        let token = told.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty())?;
        if !kind.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut granted = json!({ "access_token": token, "token_type": "Bearer" });
        let object = granted.as_object_mut()?;
        for name in ["expires_in", "scope"] {
            object.extend(told.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        let refresh = told.get("refresh_token").and_then(Value::as_str);
        if let (Some(refresh), Whose::Known(holder)) = (refresh, whose) {
            let refresh = Refresh {
                token: refresh.to_owned(),
                name: question.name.clone(),
                redirect: question.redirect.clone(),
                scope: question.scope.clone(),
                resource: question.resource.clone(),
            };
            let sealed = self.seal(Purpose::Refresh, (desk, &question.client), holder, &refresh)?;
            if sealed.len() <= limit::FACADE_SEALED_BYTES_MAX {
                object.insert("refresh_token".to_owned(), json!(sealed));
            }
        }
        Some(granted)
    }

    /// Which client got which token, or did not: the provider knows them all as one.
    async fn recorded(&self, desk: &Desk<'_>, question: &Question, token: &str, refused: Option<Reason>) -> bool {
        let about = format!("token {} of {}", Digest::sha256(token.as_bytes()).short(), desk.config.alias);
        let name = if question.name.is_empty() { "a client without a name" } else { &question.name };
        let done = if refused.is_none() { "issued to" } else { "not handed to" };
        let detail = format!("{done} {name} ({}) at {}", question.client, question.redirect);
        let note = AdminNote {
            operation: "registered_client",
            object: "bailiwick/registration",
            actor: "registration",
            actor_kind: "registration",
            brakes: false,
            client: Some(&question.client),
            outcome: if refused.is_none() { "done" } else { "refused" },
            reason: refused,
            rule: None,
            about: &about,
            detail: &detail,
        };
        let recorded = self.grounds.noted(&note).await;
        recorded
            .inspect_err(|failure| tracing::error!(%failure, "a token for a registered client is not on the record"))
            .is_ok()
    }
}

/// What is sent to the provider, as the administrator's client.
fn request(
    desk: &Desk<'_>,
    places: &Places,
    question: &Question,
    secret: Option<&SecretString>,
) -> Result<http::Request<Vec<u8>>, String> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(&question.form);
    let mut request = http::Request::post(places.token.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json");
    match secret {
        None => {
            form.append_pair("client_id", &desk.registration.client_id);
        }
        Some(secret) => {
            // RFC 6749 section 2.3.1: both are form-encoded first.
            let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&desk.registration.client_id), encoded(secret.expose_secret()));
            let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
                .map_err(|_| "the client's id or secret cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
    }
    request.body(form.finish().into_bytes()).map_err(|error| error.to_string())
}

/// RFC 6749 section 5.2, cut.
fn is_code(code: &str) -> bool {
    !code.is_empty() && code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
