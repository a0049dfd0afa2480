//! Logging in where the demo's issuer cannot show it: without a browser, and at gateways and issuers that are wrong.

use std::sync::{Arc, Mutex};

use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use url::Url;

use super::flow::{RenewError, log_in, renew};
use super::kept::Kept;
use super::kept::tests::kept;
use super::{Challenge, LoginOptions};

/// A gateway and its issuer on one address, both as the test spells them.
async fn world(spell: impl Fn(&str) -> (Value, Value)) -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (protected, server) = spell(&origin);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (tokens, devices, registrations) = (Arc::clone(&asked), Arc::clone(&asked), Arc::clone(&asked));
    let token = move |headers: http::HeaderMap, body: String| async move {
        let mut seen = tokens.lock().unwrap();
        seen.push(body.clone());
        let polled = seen.iter().filter(|body| body.contains("device_code=")).count();
        if body.contains("device_code=") && polled == 1 {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": "authorization_pending" })));
        }
        if body.contains("refresh_token=used") {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
        }
        let binds = headers.contains_key("dpop") && !body.contains("refresh_token=plain");
        let kind = if binds { "DPoP" } else { "bearer" };
        (StatusCode::OK, Json(json!({ "access_token": "fresh", "token_type": kind, "expires_in": 60 })))
    };
    let device = move |body: String| async move {
        devices.lock().unwrap().push(body);
        let answer = json!({ "device_code": "dc", "user_code": "AB-CD", "verification_uri": "https://idp.example/device",
                             "expires_in": 60, "interval": 1 });
        Json(answer)
    };
    let register = move |body: String| async move {
        registrations.lock().unwrap().push(body);
        (StatusCode::CREATED, Json(json!({ "client_id": "made" })))
    };
    let router = Router::new()
        .route("/.well-known/oauth-protected-resource/mcp", get(move || async move { Json(protected) }))
        .route("/.well-known/openid-configuration", get(move || async move { Json(server) }))
        .route("/token", post(token))
        .route("/device", post(device))
        .route("/register", post(register));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Url::parse(&format!("{origin}/mcp")).unwrap(), asked)
}

fn protected(origin: &str) -> Value {
    json!({ "resource": format!("{origin}/mcp"), "authorization_servers": [origin], "scopes_supported": ["mcp:call"] })
}

fn server(origin: &str) -> Value {
    json!({
        "issuer": origin, "authorization_endpoint": format!("{origin}/authorize"),
        "token_endpoint": format!("{origin}/token"), "registration_endpoint": format!("{origin}/register"),
        "device_authorization_endpoint": format!("{origin}/device"), "scopes_supported": ["offline_access"],
        "code_challenge_methods_supported": ["S256"],
    })
}

fn quiet() -> LoginOptions {
    LoginOptions { no_browser: true, ..LoginOptions::default() }
}

async fn refused(options: LoginOptions, spell: impl Fn(&str) -> (Value, Value)) -> String {
    let (url, _) = world(spell).await;
    log_in(&url, &options, &Challenge::default()).await.unwrap_err()
}

#[tokio::test]
async fn without_a_browser_a_code_on_another_device_logs_in() {
    let (url, asked) = world(|origin| (protected(origin), server(origin))).await;
    let kept = log_in(&url, &LoginOptions { device: true, ..quiet() }, &Challenge::default()).await.unwrap();
    assert_eq!((kept.access_token.expose_secret(), kept.client.id.as_str()), ("fresh", "made"));
    assert!(kept.is_fresh() && kept.refresh_token.is_none());
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("device_code") && !asked[0].contains("redirect_uris"), "{}", asked[0]);
    assert!(asked[1].contains("scope=mcp%3Acall+offline_access") && asked[1].contains("resource=http"), "{}", asked[1]);
    assert_eq!(asked.iter().filter(|body| body.contains("device_code=dc")).count(), 2, "pending once, then granted");
}

#[tokio::test]
async fn a_gateway_or_an_issuer_that_calls_itself_something_else_is_not_logged_in_to() {
    let problem = refused(quiet(), |origin| {
        let mut wrong = protected(origin);
        wrong["resource"] = json!("https://other.example/mcp");
        (wrong, server(origin))
    });
    assert!(problem.await.contains("https://other.example/mcp"));
    let problem = refused(quiet(), |origin| {
        let mut wrong = server(origin);
        wrong["issuer"] = json!("https://other.example");
        (protected(origin), wrong)
    });
    assert!(problem.await.contains("https://other.example"));
    let elsewhere = LoginOptions { issuer: Some("https://third.example".to_owned()), ..quiet() };
    let problem = refused(elsewhere, |origin| (protected(origin), server(origin))).await;
    assert!(problem.contains("does not accept tokens of https://third.example"), "{problem}");
}

#[tokio::test]
async fn what_an_issuer_does_not_offer_is_said_with_the_way_around_it() {
    let without = |member: &'static str| {
        move |origin: &str| {
            let mut less = server(origin);
            less.as_object_mut().unwrap().remove(member);
            (protected(origin), less)
        }
    };
    for (options, member, way) in [
        (quiet(), "registration_endpoint", "--client-id"),
        (quiet(), "code_challenge_methods_supported", "--client-id"),
        (quiet(), "authorization_endpoint", "--device"),
        (LoginOptions { device: true, ..quiet() }, "device_authorization_endpoint", "leave --device out"),
    ] {
        let problem = refused(options, without(member)).await;
        assert!(problem.contains(way), "{member}: {problem}");
    }
    let plain = refused(LoginOptions { client_id: Some("own".to_owned()), ..quiet() }, |origin| {
        let mut plain = server(origin);
        plain["code_challenge_methods_supported"] = json!(["plain"]);
        (protected(origin), plain)
    });
    assert!(plain.await.contains("S256"));
}

#[tokio::test]
async fn a_renewed_token_keeps_what_the_answer_leaves_out() {
    let (url, asked) = world(|origin| (protected(origin), server(origin))).await;
    let mut before = kept(Some(0));
    (before.gateway, before.resource) = (url.to_string(), url.to_string());
    before.issuer = url.origin().ascii_serialization();
    before.token_endpoint = url.join("/token").unwrap();
    let after = renew(&before).await.unwrap();
    assert_eq!(after.access_token.expose_secret(), "fresh");
    assert_eq!(after.refresh_token.as_ref().unwrap().expose_secret(), "rt-secret");
    assert!(after.is_fresh());
    let body = asked.lock().unwrap()[0].clone();
    assert!(body.contains("grant_type=refresh_token") && body.contains("client_id=c") && body.contains("resource="));
    before.refresh_token = Some("used".to_owned().into());
    assert!(matches!(renew(&before).await, Err(RenewError::Over(_))));
    before.token_endpoint = Url::parse("http://127.0.0.1:1/token").unwrap();
    assert!(matches!(renew(&before).await, Err(RenewError::Unknown(_))));
}

#[tokio::test]
async fn a_token_is_bound_to_a_key_where_both_know_how_and_renewed_with_the_same() {
    let signs = |mut document: Value| {
        document["dpop_signing_alg_values_supported"] = json!(["ES256"]);
        document
    };
    for (gateway, issuer) in [(true, true), (true, false), (false, true)] {
        let spell = |origin: &str| {
            let (protected, server) = (protected(origin), server(origin));
            (if gateway { signs(protected) } else { protected }, if issuer { signs(server) } else { server })
        };
        let (url, _) = world(spell).await;
        let kept = log_in(&url, &LoginOptions { device: true, ..quiet() }, &Challenge::default()).await.unwrap();
        assert_eq!(kept.key.is_some(), gateway && issuer, "{gateway} {issuer}");
        let Some(key) = &kept.key else { continue };
        let written = serde_json::to_string(&kept).unwrap();
        assert!(written.contains("\"key\"") && !format!("{kept:?}").contains(&serde_json::to_string(key).unwrap()));
        let renewable = |refresh: &str| Kept { refresh_token: Some(refresh.to_owned().into()), ..kept.clone() };
        let after = renew(&renewable("good")).await.unwrap();
        assert_eq!(serde_json::to_string(&after.key).unwrap(), serde_json::to_string(&kept.key).unwrap());
        // One that is bound to nothing is not taken in the place of one that was.
        let Err(RenewError::Over(problem)) = renew(&renewable("plain")).await else { panic!("it was taken") };
        assert!(problem.contains("not bound to the key"), "{problem}");
    }
}
