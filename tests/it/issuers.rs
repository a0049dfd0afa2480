//! Who vouches: several issuers at once, one that is away, and what a hostile client makes of keys, types, groups and
//! clocks. Nothing of that reaches an upstream.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::refused::came_to_nothing;
use crate::support::scripted::Scripted;

async fn call(gateway: &Gateway, token: &str) -> Answer {
    gateway.client(token).call_tool("tools__echo", json!({})).await
}

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

fn declared(alias: &str, url: &str) -> String {
    format!(
        "[issuers.{alias}]\nissuer = \"{url}\"\nalgorithms = [\"ES256\"]\ninteractive_default = \"assistant\"\n\
         [issuers.{alias}.claims]\ngroups = \"groups\"\n"
    )
}

#[tokio::test]
async fn two_issuers_with_the_same_names_are_two_and_one_that_is_down_stops_neither() {
    let (one, other, upstream) = (Issuer::start().await, Issuer::start().await, Scripted::echo().await);
    // Nobody listens there.
    let down = format!("http://{}", crate::support::free_address());
    let rules = "p, user:test/alice, *, */*, call, -, allow\np, user:other/bob, *, */*, call, -, allow\n\
                 p, agent:assistant, *, */*, call, -, allow\n";
    let mut gateway = Setup::new(&one)
        .http_server("tools", &upstream.url, "")
        .sections(&[declared("other", &other.url), declared("down", &down)].concat())
        .policy(rules)
        .start()
        .await;
    let token = |issuer: &Issuer, user: &str| issuer.token(user, &[], &gateway.resource());
    // The same `sub` and `client_id` at both: each is allowed what its own rules say.
    for (issuer, user, may) in
        [(&one, "alice", true), (&other, "alice", false), (&one, "bob", false), (&other, "bob", true)]
    {
        let answer = call(&gateway, &token(issuer, user)).await;
        let served = answer.status == 200 && answer.response().get("error").is_none();
        assert_eq!(served, may, "{user}: {}", answer.text);
    }
    let subjects: Vec<Value> = gateway.records("intent").iter().map(|intent| intent["subject"]["id"].clone()).collect();
    assert_eq!(subjects, [json!("user:test/alice"), json!("user:other/bob")]);
    // The key of the one, under the same key id, for the name of the other.
    let mut refused = Vec::new();
    for (signer, named) in [(&one, &other), (&other, &one)] {
        let mut claims = named.claims("alice", &[], &gateway.resource());
        claims["client_id"] = json!("test-assistant");
        refused.push(("signature_invalid", call(&gateway, &signer.sign(&claims)).await));
    }
    let mut claims = one.claims("alice", &[], &gateway.resource());
    claims["iss"] = json!(down);
    let answer = call(&gateway, &one.sign(&claims)).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    refused.push(("issuer_unavailable", answer));
    assert_eq!(call(&gateway, &token(&one, "alice")).await.status, 200);
    came_to_nothing(&mut gateway, (&upstream, 3), &refused).await;
}

#[tokio::test]
async fn an_issuer_that_is_away_is_believed_for_as_long_as_was_written_and_again_when_it_is_back() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let mut gateway = Setup::new(&issuer)
        .issuer_lines("jwks_stale_max = \"6s\"\n")
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let fresh = || issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(call(&gateway, &fresh()).await.status, 200);
    issuer.falls_silent(true);
    // A key that is known is good, also for a token that nobody has seen; one that is not known is nobody's.
    assert_eq!(call(&gateway, &fresh()).await.status, 200);
    let unknown = issuer.sign_with(&issuer.claims("alice", &["developers"], &gateway.resource()), |header| {
        header.kid = Some("key-9".to_owned());
    });
    let answer = call(&gateway, &unknown).await;
    let told = ["signature_invalid", "issuer_unavailable"].into_iter().find(|known| *known == reason(&answer));
    let mut refused = vec![(told.unwrap_or_else(|| panic!("{}", answer.text)), answer)];
    eventually("what is known of its keys to be too old", async || call(&gateway, &fresh()).await.status == 503).await;
    refused.push(("issuer_unavailable", call(&gateway, &fresh()).await));
    let served = upstream.calls().len();
    assert_eq!(call(&gateway, &fresh()).await.status, 503);
    assert_eq!(upstream.calls().len(), served);
    issuer.falls_silent(false);
    eventually("it to be believed again", async || call(&gateway, &fresh()).await.status == 200).await;
    let served = upstream.calls().len();
    came_to_nothing(&mut gateway, (&upstream, served), &refused).await;
}

/// What only the room's own tests showed: keys that are named in every way, that are many, tokens of other kinds, groups
/// that were cut off, clocks that are off.
#[tokio::test]
async fn games_with_keys_types_groups_and_clocks_get_nobody_anywhere() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    issuer.crowds(100);
    let mut gateway = Setup::new(&issuer)
        .issuer_lines("token_types = [\"at+jwt\", \"JWT\"]\naudiences = [\"test-assistant\"]\n")
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let good = issuer.claims("alice", &["developers"], &gateway.resource());
    let with = |changes: Value| {
        let mut claims = good.clone();
        claims["jti"] = json!(ulid::Ulid::generate().to_string());
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    };
    let named = |kid: &str| issuer.sign_with(&with(json!({})), |header| header.kid = Some(kid.to_owned()));
    // A header that no library writes, over a signature that is good for another one.
    let spelled = |header: Value| {
        let signed = issuer.sign(&good);
        let rest = signed.split_once('.').unwrap().1;
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let plain = |claims: &Value| issuer.sign_with(claims, |header| header.typ = Some("JWT".to_owned()));
    let id_token = |telling: Value| {
        let mut claims = with(json!({ "aud": "test-assistant", "azp": "test-assistant", "client_id": null }));
        claims.as_object_mut().unwrap().extend(telling.as_object().unwrap().clone());
        plain(&claims)
    };
    let now = jiff::Timestamp::now().as_second();
    let cases = [
        ("signature_invalid", named("../../../../etc/passwd")),
        ("signature_invalid", named("/dev/null")),
        ("signature_invalid", named("https://evil.example/key")),
        ("signature_invalid", named("key-1' OR '1'='1")),
        ("signature_invalid", named("KEY-1")),
        ("signature_invalid", named("")),
        ("signature_invalid", named(&"k".repeat(8 * 1024))),
        // Of the hundred it is the wrong one.
        ("signature_invalid", named("crowd-42")),
        ("token_malformed", spelled(json!({ "alg": "ES256", "typ": "at+jwt", "kid": 1 }))),
        ("token_malformed", spelled(json!({ "alg": "ES256", "typ": "at+jwt", "kid": ["key-1"] }))),
        ("signature_invalid", spelled(json!({ "alg": "ES256", "typ": "at+jwt", "kid": "key-1", "jku": "https://evil.example" }))),
        ("token_type_refused", id_token(json!({ "nonce": "n" }))),
        ("token_type_refused", id_token(json!({ "at_hash": "h" }))),
        ("token_type_refused", id_token(json!({ "token_use": "id" }))),
        ("token_type_refused", issuer.sign_with(&with(json!({})), |header| header.typ = Some("logout+jwt".to_owned()))),
        ("groups_unavailable", issuer.sign(&with(json!({ "groups": null })))),
        ("groups_unavailable", issuer.sign(&with(json!({ "hasgroups": true })))),
        ("groups_unavailable", issuer.sign(&with(json!({ "groups": ["developers", 7] })))),
        (
            "groups_unavailable",
            issuer.sign(&with(json!({
                "groups": null, "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": "https://x" } },
            }))),
        ),
        ("token_not_yet_valid", issuer.sign(&with(json!({ "iat": now + 120, "nbf": now + 120 })))),
        ("token_not_yet_valid", issuer.sign(&with(json!({ "iat": i64::MAX - 300, "exp": i64::MAX })))),
        ("token_expired", issuer.sign(&with(json!({ "iat": now - 600, "exp": now - 120 })))),
    ];
    let mut refused = Vec::new();
    for (expected, token) in cases {
        let answer = call(&gateway, &token).await;
        assert_eq!(reason(&answer), expected, "{}", answer.text);
        assert_eq!(answer.status, if expected == "groups_unavailable" { 403 } else { 401 }, "{}", answer.text);
        refused.push((expected, answer));
    }
    // Among a hundred the right one counts, and a clock that is a little off is forgiven.
    for claims in [
        with(json!({})),
        with(json!({ "iat": now + 15, "nbf": now + 15 })),
        with(json!({ "iat": now - 300, "exp": now - 10 })),
    ] {
        let answer = call(&gateway, &issuer.sign(&claims)).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    came_to_nothing(&mut gateway, (&upstream, 3), &refused).await;
}
