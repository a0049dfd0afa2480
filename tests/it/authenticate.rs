//! Who gets in: each token that is refused, with its reason, and nothing that reaches an upstream.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::refused::came_to_nothing;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

async fn call_with(gateway: &Gateway, token: &str) -> Answer {
    gateway.client(token).call_tool("tools__echo", json!({})).await
}

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_good_token_gets_in() {
    let (issuer, upstream, gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let answer = call_with(&gateway, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.tool_text(), "{}");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn who_is_anonymous_comes_from_this_machine_and_through_no_proxy() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections("[anonymous]\nenabled = true\n")
        .policy("p, anyone, *, */*, call, -, allow\n")
        .start()
        .await;
    let call = async |further: &[(&'static str, String)]| {
        crate::support::holder::call_as(&gateway.resource(), "", further).await
    };
    let answer = call(&[]).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    for header in ["x-forwarded-for", "forwarded", "via"] {
        let answer = call(&[(header, "for=203.0.113.7".to_owned())]).await;
        assert_eq!((answer.status, reason(&answer)), (401, "token_missing"), "{header}: {}", answer.text);
    }
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn each_bad_token_is_refused_with_its_own_reason() {
    let (issuer, upstream, mut gateway) = start().await;
    let good = issuer.claims("alice", &["developers"], &gateway.resource());
    let now = jiff::Timestamp::now().as_second();
    let with = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        issuer.sign(&claims)
    };
    let stranger = Issuer::start().await;
    let cases = [
        ("token_expired", with(json!({ "exp": now - 120, "iat": now - 600 }))),
        ("token_not_yet_valid", with(json!({ "nbf": now + 600 }))),
        ("token_lifetime_exceeded", with(json!({ "exp": now + 86_400 }))),
        ("audience_mismatch", with(json!({ "aud": "https://elsewhere.example/mcp" }))),
        ("audience_mismatch", with(json!({ "aud": format!("{}/", gateway.resource()) }))),
        ("issuer_unknown", with(json!({ "iss": "https://elsewhere.example" }))),
        ("issuer_unknown", with(json!({ "iss": format!("{}/", issuer.url) }))),
        ("signature_invalid", {
            let mut foreign = good.clone();
            foreign["jti"] = json!("foreign");
            stranger.sign(&foreign)
        }),
        ("claim_missing", with(json!({ "sub": null }))),
        ("claim_missing", with(json!({ "exp": null }))),
        ("token_bound", with(json!({ "cnf": { "jkt": "abc" } }))),
        ("token_type_refused", issuer.sign_with(&good, |header| header.typ = Some("JWT".to_owned()))),
        ("token_malformed", "not-a-token".to_owned()),
        ("token_malformed", format!("{}x", "a".repeat(20_000))),
    ];
    let mut refused = Vec::new();
    for (expected, token) in cases {
        let answer = call_with(&gateway, &token).await;
        assert_eq!(answer.status, 401, "{expected}: {}", answer.text);
        assert_eq!(reason(&answer), expected, "{}", answer.text);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains("resource_metadata=") && challenge.contains("invalid_token"), "{challenge}");
        refused.push((expected, answer));
    }
    came_to_nothing(&mut gateway, (&upstream, 0), &refused).await;
}

#[tokio::test]
async fn an_unsigned_token_and_a_foreign_algorithm_are_refused() {
    use base64::Engine as _;
    let (issuer, upstream, mut gateway) = start().await;
    let encode = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = issuer.claims("alice", &["developers"], &gateway.resource());
    let mut refused = Vec::new();
    for (algorithm, signature) in [("none", ""), ("HS256", "AAAA"), ("ES512", "AAAA")] {
        let header = json!({ "alg": algorithm, "typ": "at+jwt", "kid": "key-1" });
        let token = format!("{}.{}.{signature}", encode(&header), encode(&claims));
        let answer = call_with(&gateway, &token).await;
        assert_eq!(answer.status, 401, "{algorithm}");
        let expected =
            ["algorithm_refused", "token_malformed"].into_iter().find(|expected| *expected == reason(&answer));
        refused.push((expected.unwrap_or_else(|| panic!("{algorithm}: {}", answer.text)), answer));
    }
    came_to_nothing(&mut gateway, (&upstream, 0), &refused).await;
}

#[tokio::test]
async fn a_request_without_a_token_is_challenged_on_post_and_on_get() {
    let (_issuer, _upstream, gateway) = start().await;
    let client = Client::new(&gateway.resource(), None);
    let post = client.modern("tools/list", json!({})).await;
    let get = client.bare(reqwest::Method::GET, &[("accept", "text/event-stream".to_owned())]).await;
    for answer in [post, get] {
        assert_eq!(answer.status, 401);
        let challenge = answer.header("www-authenticate");
        let metadata = format!("resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"", gateway.url);
        assert!(challenge.starts_with("Bearer ") && challenge.contains(&metadata), "{challenge}");
        assert!(!challenge.contains("error="), "RFC 6750: no error code without a token: {challenge}");
    }
}

#[tokio::test]
async fn metadata_stands_at_both_well_known_forms_and_for_any_name_alike() {
    let (issuer, _upstream, gateway) = start().await;
    let get =
        async |path: &str| Client::new(&format!("{}{path}", gateway.url), None).bare(reqwest::Method::GET, &[]).await;
    for (path, resource) in [
        ("/.well-known/oauth-protected-resource", "/mcp"),
        ("/.well-known/oauth-protected-resource/mcp", "/mcp"),
        ("/.well-known/oauth-protected-resource/mcp/tools", "/mcp/tools"),
        ("/.well-known/oauth-protected-resource/mcp/nobody", "/mcp/nobody"),
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.response()["resource"], format!("{}{resource}", gateway.url));
        assert_eq!(answer.response()["authorization_servers"], json!([issuer.url]));
    }
    assert_eq!(get("/.well-known/oauth-protected-resource/mcp/NOT%2Fa%20name").await.status, 404);
}

#[tokio::test]
async fn a_token_for_one_server_works_only_there() {
    let (issuer, upstream, gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &format!("{}/tools", gateway.resource()));
    assert_eq!(call_with(&gateway, &token).await.status, 401);
    let answer = gateway.server_client("tools", &token).call_tool("echo", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn an_agent_that_acts_on_its_own_needs_more_than_a_public_client_id() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let agent = |name: &str, kind: &str, clients: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"{kind}\"\n\
             environments = [\"development\"]\nclients = [{clients}]\nmandates = \"optional\"\n"
        )
    };
    let agents = [
        agent("assistant", "interactive", ""),
        agent("nightly", "autonomous", "{ issuer = \"test\", client_id = \"nightly\" }"),
        agent("keyed", "autonomous", "{ issuer = \"test\", client_id = \"keyed\", proof = \"private_key\" }"),
    ];
    let rules = "p, anyone, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("agents.toml", &agents.concat())
        .start()
        .await;
    let token = |subject: &str, client: &str| {
        let mut claims = issuer.claims(subject, &["developers"], &gateway.resource());
        claims["client_id"] = json!(client);
        issuer.sign(&claims)
    };
    let for_alice = token("alice", "nightly");
    let refused = call_with(&gateway, &for_alice).await;
    assert_eq!((refused.status, reason(&refused)), (403, "client_proof_insufficient"), "{}", refused.text);
    let list = gateway.client(&for_alice).modern("tools/list", json!({})).await;
    assert_eq!((list.status, reason(&list)), (403, "client_proof_insufficient"), "{}", list.text);
    assert!(upstream.calls().is_empty());
    for (subject, client) in [("alice", "keyed"), ("nightly", "nightly"), ("alice", "some-assistant")] {
        let answer = call_with(&gateway, &token(subject, client)).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{subject} {client}: {}", answer.text);
    }
    let proofs: Vec<Value> = gateway.records("intent").iter().map(|intent| intent["agent"]["proof"].clone()).collect();
    assert_eq!(proofs, ["private_key", "secret", "public"].map(|proof| json!(proof)));
}

#[tokio::test]
async fn a_withdrawn_key_stops_working_and_a_new_one_works_at_once() {
    let (issuer, _upstream, gateway) = start().await;
    let old = issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(call_with(&gateway, &old).await.status, 200);
    issuer.rotate("key-2");
    let new = issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(call_with(&gateway, &new).await.status, 200, "an unknown key id asks the issuer again");
    let answer = call_with(&gateway, &old).await;
    assert_eq!((answer.status, reason(&answer)), (401, "signature_invalid"), "{}", answer.text);
}

#[tokio::test]
async fn the_inbound_token_never_reaches_an_upstream() {
    let (issuer, upstream, gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    call_with(&gateway, &token).await;
    let arrived = upstream.everything();
    assert!(!arrived.is_empty());
    for request in arrived {
        assert!(!request.text.contains(&token));
        assert!(request.headers.values().all(|value| !value.contains(&token)), "{:?}", request.headers);
    }
}
