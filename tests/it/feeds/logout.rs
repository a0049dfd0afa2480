//! OpenID Connect back-channel logout: every named check of the specification fails closed.

use super::*;

const LINES: &str = "[feeds.corp]\nissuer = \"test\"\n[feeds.corp.logout]\naudiences = [\"test-assistant\"]\n";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn claims(fed: &Fed) -> Value {
    let now = jiff::Timestamp::now().as_second();
    json!({
        "iss": fed.issuer.url, "aud": "test-assistant", "iat": now, "exp": now + 120,
        "jti": ulid::Ulid::generate().to_string(), "sub": "alice",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    })
}

fn signed(fed: &Fed, claims: &Value) -> String {
    fed.issuer.sign_with(claims, |header| header.typ = Some("logout+jwt".to_owned()))
}

async fn deliver(fed: &Fed, token: &str) -> Answered {
    fed.post("/feeds/corp/logout", &[FORM], &format!("logout_token={token}")).await
}

#[tokio::test]
async fn a_logout_signs_a_person_out_and_nobody_else_and_a_new_login_is_not_refused() {
    let fed = Fed::with(LINES, |setup| setup.issuer_lines("leeway = \"60s\"\n")).await;
    let (alice, bob) = (fed.person("alice"), fed.person("bob"));
    assert!(works(&alice).await && works(&bob).await);
    let token = signed(&fed, &claims(&fed));
    let began = Instant::now();
    let answered = deliver(&fed, &token).await;
    assert_eq!((answered.status, answered.text.as_str()), (200, ""));
    assert_eq!(answered.headers["cache-control"], "no-store");
    refused_within_a_second(began, &alice).await;
    assert!(works(&bob).await);
    let record = &fed.ordered()[0]["revocation"];
    assert_eq!(
        (&record["actor"], &record["target"], &record["mode"]),
        (&json!("feed:corp"), &json!("subject"), &json!("sign_out"))
    );
    // The gateway's clock is ours: a token of after the sign-out comes from one that runs ahead, as far as is tolerated.
    let issued_before = record["issued_before"].as_i64().unwrap();
    let mut fresh = fed.issuer.claims("alice", &["developers"], &fed.gateway.resource());
    assert!(issued_before >= fresh["iat"].as_i64().unwrap());
    fresh["iat"] = json!(issued_before + 1);
    let fresh = fed.gateway.client(&fed.issuer.sign(&fresh));
    crate::support::eventually_within(Duration::from_secs(10), "the new token to be accepted", async || {
        works(&fresh).await
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_open_is_cut_by_a_logout() {
    let fed = Fed::start(LINES).await;
    let alice = fed.person("alice");
    let (_, session) = alice.initialize("2025-06-18").await;
    let headers = [("mcp-session-id", session), ("accept", "text/event-stream".to_owned())];
    let mut stream = alice.stream(&headers, None).await;
    assert_eq!(deliver(&fed, &signed(&fed, &claims(&fed))).await.status, 200);
    tokio::time::timeout(Duration::from_secs(1), stream.end()).await.expect("the stream outlived the logout");
}

#[tokio::test]
async fn a_session_alone_ends_that_session_of_that_issuer() {
    let fed = Fed::start(&LINES.replace("issuer = \"test\"\n", "issuer = \"test\"\nends = \"session\"\n")).await;
    let (laptop, phone) = (fed.in_session("alice", "laptop"), fed.in_session("alice", "phone"));
    let mut claims = claims(&fed);
    claims["sid"] = json!("laptop");
    assert_eq!(deliver(&fed, &signed(&fed, &claims)).await.status, 200);
    assert!(!works(&laptop).await && works(&phone).await);
    let record = &fed.ordered()[0]["revocation"];
    assert_eq!(
        (&record["target"], &record["issuer"], &record["value"]),
        (&json!("session"), &json!("test"), &json!("laptop"))
    );
}

#[tokio::test]
async fn a_session_without_a_person_ends_that_session_by_default_as_well() {
    let fed = Fed::start(LINES).await;
    let (laptop, phone) = (fed.in_session("alice", "laptop"), fed.in_session("alice", "phone"));
    let mut claims = claims(&fed);
    claims["sid"] = json!("laptop");
    claims.as_object_mut().unwrap().remove("sub");
    assert_eq!(deliver(&fed, &signed(&fed, &claims)).await.status, 200);
    assert!(!works(&laptop).await && works(&phone).await);
}

#[tokio::test]
async fn what_fails_one_check_takes_nothing_back() {
    let fed = Fed::start(LINES).await;
    let other = Issuer::start().await;
    let alice = fed.person("alice");
    let now = jiff::Timestamp::now().as_second();
    let with = |name: &str, value: Value| {
        let mut claims = claims(&fed);
        claims[name] = value;
        signed(&fed, &claims)
    };
    let without = |name: &str| {
        let mut claims = claims(&fed);
        claims.as_object_mut().unwrap().remove(name);
        signed(&fed, &claims)
    };
    let typed = |typ: Option<&str>| fed.issuer.sign_with(&claims(&fed), |header| header.typ = typ.map(str::to_owned));
    let mut foreign = claims(&fed);
    foreign["iss"] = json!(other.url);
    let good = signed(&fed, &claims(&fed));
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let bad = [
        ("no token", String::new()),
        ("no JWT", "x.y.z".to_owned()),
        ("an ID token's nonce", with("nonce", json!("n"))),
        ("another audience", with("aud", json!("other-client"))),
        ("our own resource as the audience", with("aud", json!(fed.gateway.resource()))),
        ("no audience", without("aud")),
        ("no iat", without("iat")),
        ("an iat of long ago", with("iat", json!(now - 3_600))),
        ("an iat that lies ahead", with("iat", json!(now + 3_600))),
        ("no exp", without("exp")),
        ("an exp that has passed", with("exp", json!(now - 120))),
        ("no jti", without("jti")),
        ("a jti without an end", with("jti", json!("x".repeat(bailiwick::limit::FEED_ID_BYTES_MAX + 1)))),
        ("no events", without("events")),
        ("empty events", with("events", json!({}))),
        ("events that are a list", with("events", json!([event]))),
        ("another event", with("events", json!({ "https://evil.example/logout": {} }))),
        ("one event more", with("events", json!({ event: {}, "https://evil.example/logout": {} }))),
        ("an event that is no object", with("events", json!({ event: true }))),
        ("nobody", without("sub")),
        ("a sub that is a number", with("sub", json!(7))),
        ("no iss", without("iss")),
        ("the type of an access token", typed(Some("at+jwt"))),
        ("the type of an event", typed(Some("secevent+jwt"))),
        ("no type where that was not written", typed(None)),
        ("JWT where that was not written", typed(Some("JWT"))),
        (
            "an issuer that is not the feed's",
            other.sign_with(&foreign, |header| header.typ = Some("logout+jwt".into())),
        ),
        (
            "a key that is not the issuer's",
            other.sign_with(&claims(&fed), |header| header.typ = Some("logout+jwt".into())),
        ),
        ("a signature that was cut", good.get(..good.len() - 4).unwrap().to_owned()),
        ("an access token", fed.issuer.token("alice", &[], &fed.gateway.resource())),
    ];
    for (what, token) in &bad {
        let answered = deliver(&fed, token).await;
        assert_eq!(answered.status, 400, "{what}: {}", answered.text);
        assert_eq!(answered.headers["cache-control"], "no-store", "{what}");
    }
    for (headers, body) in [
        (vec![], format!("logout_token={good}")),
        (vec![("content-type", "application/json")], format!("{{\"logout_token\":\"{good}\"}}")),
        (vec![FORM], format!("token={good}")),
        (vec![FORM], format!("logout_token={good}&logout_token={good}")),
        (vec![FORM], String::new()),
    ] {
        assert_eq!(fed.post("/feeds/corp/logout", &headers, &body).await.status, 400, "{headers:?} {body:.30}");
    }
    assert!(works(&alice).await);
    assert!(fed.ordered().is_empty());
    // They are counted with whoever else knocks.
    crate::support::eventually("the knocking on the record", async || {
        fed.gateway.records("noise").iter().any(|record| record.to_string().contains("signature_invalid"))
    })
    .await;
    assert_eq!(deliver(&fed, &good).await.status, 200, "the one that was right was not spent by any of that");
}

#[tokio::test]
async fn older_types_are_accepted_where_that_is_written() {
    let fed = Fed::start(&format!("{LINES}types = [\"logout+jwt\", \"JWT\", \"\"]\n")).await;
    for typ in [Some("logout+jwt"), Some("application/logout+jwt"), Some("JWT"), None] {
        let token = fed.issuer.sign_with(&claims(&fed), |header| header.typ = typ.map(str::to_owned));
        assert_eq!(deliver(&fed, &token).await.status, 200, "{typ:?}");
    }
}

#[tokio::test]
async fn a_token_that_comes_again_does_nothing() {
    let fed = Fed::start(LINES).await;
    let token = signed(&fed, &claims(&fed));
    assert_eq!(deliver(&fed, &token).await.status, 200);
    for _again in 0..3 {
        let again = deliver(&fed, &token).await;
        assert_eq!(again.status, 400, "{}", again.text);
        assert!(again.text.contains("feed_replayed"), "{}", again.text);
    }
    assert_eq!(fed.ordered().len(), 1);
    assert!(fed.gateway.records("admin").iter().any(|record| record.to_string().contains("feed_replayed")));
}

#[tokio::test]
async fn a_feed_that_is_not_written_does_not_exist() {
    let fed = Fed::start(LINES).await;
    for path in [
        "/feeds/other/logout",
        "/feeds/corp/events",
        "/feeds/corp/scim/v2/Users",
        "/feeds/corp/logout/x",
        "/feeds/corp/",
        "/feeds/corp",
        "/feeds//logout",
    ] {
        assert_eq!(fed.post(path, &[FORM, bearer()], "logout_token=x").await.status, 404, "{path}");
    }
    let asked = fed.send(reqwest::Method::GET, "/feeds/corp/logout", &[], "").await;
    assert_eq!((asked.status, asked.headers["allow"].to_str().unwrap()), (405, "POST"));
}

#[tokio::test]
async fn whoever_guesses_is_not_heard_any_more_and_a_large_body_is_refused() {
    let fed = Fed::start(LINES).await;
    let large = "x".repeat(bailiwick::limit::FEED_BODY_BYTES_MAX + 1);
    assert_eq!(fed.post("/feeds/corp/logout", &[FORM], &large).await.status, 413);
    for _ in 0..bailiwick::limit::FEED_KNOCKS_PER_MINUTE_MAX {
        assert_eq!(deliver(&fed, "x.y.z").await.status, 400);
    }
    let slow = deliver(&fed, "x.y.z").await;
    assert_eq!(slow.status, 429);
    assert!(slow.headers.contains_key("retry-after"));
    assert!(works(&fed.person("alice")).await, "calls are none of that");
    // What the provider says from the same address is heard all the same.
    assert_eq!(deliver(&fed, &signed(&fed, &claims(&fed))).await.status, 200);
}

#[tokio::test]
async fn a_feed_takes_so_many_messages_in_a_minute() {
    let fed = Fed::start(&LINES.replace("issuer = \"test\"\n", "issuer = \"test\"\nrequests_per_minute = 2\n")).await;
    for expected in [200, 200, 429] {
        assert_eq!(deliver(&fed, &signed(&fed, &claims(&fed))).await.status, expected);
    }
}
