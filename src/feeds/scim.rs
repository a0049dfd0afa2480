//! SCIM 2.0 (RFC 7644), as much of it as tells that somebody has left.
//!
//! Decides what a request for a user means; nobody is kept here. A user's id is the issuer's `sub`, so that every user
//! that is asked for exists. Invariants: `active: false`, and a user who is deleted, take back what they hold and
//! answer for; `active: true` gives nothing back, and the answer says how it really is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::order::Order;
use super::{Feeds, Message, answer};
use crate::config::feed::ScimSubject;
use crate::ids::Subject;
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};

mod change;
mod filter;

use change::Activity;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

impl Feeds {
    /// Answers what came to `/feeds/{name}/scim/v2/...`, whose sender has presented the secret.
    pub(super) async fn scim(&self, message: &Message<'_>) -> Response<Bytes> {
        let Some(scim) = &message.feed.scim else { return answer::absent() };
        let path: Vec<&str> = message.rest.split('/').collect();
        let answered = match (path.as_slice(), &message.method) {
            (["v2", "ServiceProviderConfig"], &Method::GET) => Ok(resource(StatusCode::OK, &provider())),
            (["v2", "ResourceTypes"], &Method::GET) => Ok(resource(StatusCode::OK, &list(&[resource_type()]))),
            (["v2", "Users"], &Method::GET) => self.search(message, scim.subject),
            (["v2", "Users"], &Method::POST) => self.create(message, scim.subject).await,
            (["v2", "Users", id], method) => match subject_of(id) {
                Some(subject) => self.user(message, scim.subject, &subject, method).await,
                None => return error(StatusCode::NOT_FOUND, None, "no user has this id"),
            },
            (["v2", "ServiceProviderConfig" | "ResourceTypes" | "Users"], _) => {
                return error(StatusCode::METHOD_NOT_ALLOWED, None, "this cannot be done here");
            }
            _ => return error(StatusCode::NOT_FOUND, None, "there is no such resource"),
        };
        answered.unwrap_or_else(|stop| {
            let kind = (stop.reason() == Reason::ParametersInvalid).then_some("invalidFilter");
            let kind = kind.or_else(|| answer::status(&stop).is_client_error().then_some("invalidSyntax"));
            error(answer::status(&stop), kind, &answer::described(&stop))
        })
    }

    fn search(&self, message: &Message<'_>, attribute: ScimSubject) -> Result<Response<Bytes>, Stop> {
        let mut asked = url::form_urlencoded::parse(message.query.as_bytes());
        let filter = asked.find(|(name, _)| name.eq_ignore_ascii_case("filter"));
        let found = match filter {
            // Whoever wants all of them gets nobody: nobody is kept here.
            None => None,
            Some((_, text)) => filter::subject(&text, attribute)?,
        };
        let found: Vec<Value> = found.iter().map(|subject| self.shown(message, attribute, subject)).collect();
        Ok(resource(StatusCode::OK, &list(&found)))
    }

    async fn create(&self, message: &Message<'_>, attribute: ScimSubject) -> Result<Response<Bytes>, Stop> {
        let user = change::object(&message.body)?;
        let named = member(&user, attribute.attribute()).and_then(Value::as_str);
        let subject = named.filter(|name| fits(name)).ok_or_else(|| {
            let hint = format!("the user has no {}, which is the issuer's sub here", attribute.attribute());
            Refusal::new(Reason::FeedMessageInvalid).hint(hint)
        })?;
        self.follow_activity(message, subject, change::of_user(&user)?).await?;
        let shown = self.shown(message, attribute, subject);
        let mut response = resource(StatusCode::CREATED, &shown);
        let location = shown.pointer("/meta/location").and_then(Value::as_str).unwrap_or_default();
        if let Ok(location) = HeaderValue::from_str(location) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn user(
        &self,
        message: &Message<'_>,
        attribute: ScimSubject,
        subject: &str,
        method: &Method,
    ) -> Result<Response<Bytes>, Stop> {
        match *method {
            Method::GET => {}
            Method::PUT => {
                let user = change::object(&message.body)?;
                self.follow_activity(message, subject, change::of_user(&user)?).await?;
            }
            Method::PATCH => {
                let activity = change::of_patch(&change::object(&message.body)?)?;
                self.follow_activity(message, subject, activity).await?;
            }
            Method::DELETE => {
                self.follow_activity(message, subject, Activity::Ends).await?;
                return Ok(answer::json(StatusCode::NO_CONTENT, None));
            }
            _ => return Ok(error(StatusCode::METHOD_NOT_ALLOWED, None, "this cannot be done here")),
        }
        Ok(resource(StatusCode::OK, &self.shown(message, attribute, subject)))
    }

    async fn follow_activity(&self, message: &Message<'_>, subject: &str, activity: Activity) -> Result<(), Stop> {
        match activity {
            Activity::Unsaid => Ok(()),
            Activity::Ends => {
                let now = self.brake.now_s().await?;
                let order = (Order::Left(subject.to_owned()), "SCIM: the user was deactivated".to_owned());
                Ok(self.carry_out(message.feed, vec![order], now, None).await?)
            }
            Activity::Holds => {
                let owner = Subject::user(&message.feed.issuer, subject).to_string();
                if self.brake.is_stopped(&owner) {
                    let detail = "a user is active again: a feed gives nothing back, that needs a person";
                    self.note(message.feed, &owner, None, detail).await;
                    return Ok(());
                }
                self.brake.confirmed(&owner, &format!("feed:{}", message.feed.name)).await
            }
        }
    }

    /// A user as it really is here.
    fn shown(&self, message: &Message<'_>, attribute: ScimSubject, subject: &str) -> Value {
        let id = URL_SAFE_NO_PAD.encode(subject);
        let base = self.brake.config().gateway.public_url.as_str().trim_end_matches('/').to_owned();
        let location = format!("{base}/feeds/{}/scim/v2/Users/{id}", message.feed.name);
        let owner = Subject::user(&message.feed.issuer, subject).to_string();
        let mut user = json!({
            "schemas": [USER],
            "id": id,
            // A user without one is none.
            "userName": subject,
            "active": !self.brake.is_stopped(&owner),
            "meta": { "resourceType": "User", "location": location },
        });
        if let Some(user) = user.as_object_mut() {
            user.insert(attribute.attribute().to_owned(), json!(subject));
        }
        user
    }
}

/// Attribute names are alike in any case (RFC 7643 section 2.1).
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn fits(subject: &str) -> bool {
    !subject.is_empty() && subject.len() <= limit::REVOCATION_VALUE_BYTES_MAX
}

fn subject_of(id: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    String::from_utf8(bytes).ok().filter(|subject| fits(subject))
}

fn provider() -> Value {
    let no = json!({ "supported": false });
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": 1 },
        "changePassword": no, "sort": no, "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken", "name": "Bearer token", "description": "The secret of this feed",
        }],
    })
}

fn resource_type() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "id": "User", "name": "User", "endpoint": "/Users", "schema": USER,
    })
}

fn list(found: &[Value]) -> Value {
    json!({
        "schemas": [LIST], "totalResults": found.len(), "startIndex": 1, "itemsPerPage": found.len(), "Resources": found,
    })
}

fn resource(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = answer::json(status, Some(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/scim+json"));
    response
}

fn error(status: StatusCode, kind: Option<&str>, detail: &str) -> Response<Bytes> {
    let mut body = json!({ "schemas": [ERROR], "status": status.as_str(), "detail": detail });
    if let (Some(kind), Some(body)) = (kind, body.as_object_mut()) {
        body.insert("scimType".to_owned(), json!(kind));
    }
    answer::with_headers(resource(status, &body))
}
