//! What becomes of calls whose credential is refused, late, garbled, too long or somebody else's: nothing reaches the
//! upstream, the answer says what to do, the record says why. And who is named as acting where one is had.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::input::reason;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::refused::came_to_nothing;
use crate::support::scripted::Scripted;
use crate::support::sts::{Revocation, Sts, claims};

fn exchange(sts: &Sts, more: &str) -> String {
    format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", \
         audience = \"https://tools.example\", scope = \"read\"{more} }}",
        sts.url
    )
}

/// The same for the tool alone: what it has is listed without.
fn for_the_tool(credential: &str) -> String {
    format!("tool_credentials = {{ echo = {} }}", credential.trim_start_matches("credential = "))
}

/// A fresh key of the gateway's, in a file beside its configuration.
fn with_key(setup: Setup) -> Setup {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()));
    std::fs::write(setup.directory().join("key.pem"), pem).unwrap();
    setup
}

fn client(gateway: &Gateway, server: &str, token: &str) -> Client {
    gateway.server_client(server, token)
}

#[tokio::test]
async fn each_way_in_which_no_credential_is_had_ends_the_call_and_is_told_apart() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (sts, slow) = (Sts::start(Revocation::Has).await, Sts::start(Revocation::Has).await);
    slow.hold(true);
    let stale = "credential = { kind = \"static\", header = \"x-api-key\", secret = \"file:old-secret\", \
                 max_age = \"1h\", on_stale = \"refuse\" }";
    let setup = with_key(Setup::new(&issuer))
        .http_server("tools", &upstream.url, &for_the_tool(&exchange(&sts, "")))
        .http_server("slow", &upstream.url, &for_the_tool(&exchange(&slow, "")))
        .http_server("short", &upstream.url, &for_the_tool(&exchange(&sts, ", token_life_max = \"60s\"")))
        .http_server("named", &upstream.url, &for_the_tool(&exchange(&sts, ", private_key = \"file:key.pem\"")))
        .http_server("aged", &upstream.url, &for_the_tool(stale));
    let aged = setup.directory().join("old-secret");
    std::fs::write(&aged, "secret").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7_200);
    std::fs::File::options().write(true).open(&aged).unwrap().set_modified(long_ago).unwrap();
    let mut gateway = setup.start().await;
    let token = |user: &str| issuer.token(user, &["developers"], &gateway.resource());
    // It is waited for while the others are asked.
    let late = client(&gateway, "slow", &token("alice"));
    let late = tokio::spawn(async move { late.call_tool("echo", json!({})).await });

    let mut refused = Vec::new();
    let oauth = |code: &str| json!({ "error": code, "error_description": "as it pleases" }).to_string();
    let answer = |token: &str, life: Value| {
        let kind = "urn:ietf:params:oauth:token-type:access_token";
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": life, "issued_token_type": kind })
            .to_string()
    };
    let unnamed = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln";
    // {"sub":"alice","act":{"sub":"somebody"}}
    let other = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImFjdCI6eyJzdWIiOiJzb21lYm9keSJ9fQ.c2ln";
    for (server, status, body, expected, said) in [
        ("tools", 400, oauth("invalid_target"), "exchange_refused", "invalid_target"),
        ("tools", 400, oauth("invalid_scope"), "exchange_refused", "invalid_scope"),
        ("tools", 400, oauth("invalid_grant"), "exchange_refused", "invalid_grant"),
        ("tools", 401, oauth("invalid_client"), "credential_unavailable", ""),
        ("tools", 500, oauth("server_error"), "credential_unavailable", ""),
        ("tools", 503, "down".to_owned(), "credential_unavailable", ""),
        ("tools", 200, "{\"access_token\": [".to_owned(), "credential_unavailable", ""),
        ("tools", 200, "\u{0}\u{1}garbage".to_owned(), "credential_unavailable", ""),
        ("tools", 200, answer("a\r\nx: b", json!(600)), "credential_unavailable", ""),
        ("tools", 200, answer("t", json!(-1)), "credential_unavailable", ""),
        ("short", 200, answer("t", json!(600)), "credential_life_exceeded", ""),
        ("named", 200, answer(unnamed, json!(600)), "credential_unavailable", ""),
        ("named", 200, answer(other, json!(600)), "credential_unavailable", ""),
        ("aged", 200, String::new(), "credential_stale", ""),
    ] {
        sts.answers(status, &body);
        // Another login each time, so that nothing is remembered of the one before.
        let answer = client(&gateway, server, &token("alice")).call_tool("echo", json!({})).await;
        assert_eq!(reason(&answer), expected, "{server} {status} {body}: {}", answer.text);
        assert!(answer.text.contains(said), "{said}: {}", answer.text);
        assert!(!answer.text.contains("as it pleases"), "what it writes reaches nobody: {}", answer.text);
        refused.push((expected, answer));
    }
    // It says itself who may act for her, and that is not us: nobody is asked.
    sts.behaves();
    let asked = sts.asked().len();
    let mut hers = issuer.claims("alice", &["developers"], &gateway.resource());
    hers["may_act"] = json!({ "sub": "somebody" });
    let answer = client(&gateway, "tools", &issuer.sign(&hers)).call_tool("echo", json!({})).await;
    assert_eq!(reason(&answer), "may_act_refused", "{}", answer.text);
    refused.push(("may_act_refused", answer));
    assert_eq!(sts.asked().len(), asked);
    let answer = late.await.unwrap();
    assert_eq!(reason(&answer), "credential_unavailable", "{}", answer.text);
    refused.push(("credential_unavailable", answer));
    came_to_nothing(&mut gateway, (&upstream, 0), &refused).await;
}

#[tokio::test]
async fn where_the_gateway_signs_the_agent_is_named_as_acting_without_being_told_to() {
    let (issuer, upstream, sts) = (Issuer::start().await, Scripted::echo().await, Sts::start(Revocation::Has).await);
    let key = ", private_key = \"file:key.pem\"";
    let gateway = with_key(Setup::new(&issuer))
        .http_server("named", &upstream.url, &exchange(&sts, key))
        .http_server("unnamed", &upstream.url, &exchange(&sts, &format!("{key}, actor_token = \"none\"")))
        .start()
        .await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    for server in ["named", "unnamed"] {
        let answer = client(&gateway, server, &token).call_tool("echo", json!({})).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{server}: {}", answer.text);
    }
    let asked = sts.asked();
    let acting = claims(&asked[0]["actor_token"]);
    assert_eq!(
        (&acting["sub"], &acting["iss"], &acting["aud"]),
        (&json!("assistant"), &json!("gateway"), &json!(sts.url))
    );
    assert!(!asked[1].contains_key("actor_token"), "somebody wrote that");
    let presented: Vec<Value> = upstream.calls().iter().map(|call| claims(&call.headers["authorization"])).collect();
    assert_eq!((&presented[0]["sub"], &presented[0]["act"]["sub"]), (&json!("alice"), &json!("assistant")));
}
