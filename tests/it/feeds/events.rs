//! Shared Signals, pushed: what is acknowledged was carried out, and only for people of the feed's own issuer.

use super::*;

const LINES: &str = "[feeds.corp]\nissuer = \"test\"\n[feeds.corp.events]\naudiences = [\"https://gateway.example\"]\n\
                     secret = \"file:feed-secret\"\n";
const SET: (&str, &str) = ("content-type", "application/secevent+jwt");
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

fn of(issuer: &str, subject: &str) -> Value {
    json!({ "format": "iss_sub", "iss": issuer, "sub": subject })
}

pub(super) fn claims(fed: &Fed, event: &str, subject: &str) -> Value {
    json!({
        "iss": fed.issuer.url, "aud": ["https://gateway.example"], "iat": jiff::Timestamp::now().as_second(),
        "jti": ulid::Ulid::generate().to_string(), "sub_id": of(&fed.issuer.url, subject), "events": { event: {} },
    })
}

pub(super) fn signed(issuer: &Issuer, claims: &Value) -> String {
    issuer.sign_with(claims, |header| header.typ = Some("secevent+jwt".to_owned()))
}

async fn push(fed: &Fed, token: &str) -> Answered {
    fed.post("/feeds/corp/events", &[SET, bearer()], token).await
}

async fn push_of(fed: &Fed, claims: &Value) -> Answered {
    push(fed, &signed(&fed.issuer, claims)).await
}

#[tokio::test]
async fn every_event_that_means_less_signs_its_person_out_within_a_second() {
    let fed = Fed::start(LINES).await;
    for (number, kind) in [
        "session-revoked",
        "credential-change",
        "token-claims-change",
        "assurance-level-change",
        "device-compliance-change",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("person-{number}");
        let (person, bob) = (fed.person(&name), fed.person("bob"));
        assert!(works(&person).await);
        let token = signed(&fed.issuer, &claims(&fed, &format!("{CAEP}{kind}"), &name));
        let began = Instant::now();
        let answered = push(&fed, &token).await;
        assert_eq!((answered.status, answered.text.as_str()), (202, ""), "{kind}");
        refused_within_a_second(began, &person).await;
        assert!(works(&bob).await, "{kind}");
        assert_eq!(fed.ordered().last().unwrap()["revocation"]["note"], kind);
    }
}

#[tokio::test]
async fn whoever_is_disabled_takes_the_agents_along_that_they_answer_for_and_enabling_lifts_nothing() {
    let fed = Fed::with(LINES, |setup| setup.policy_file("agents.toml", super::scim::AGENTS)).await;
    let (owner, bob) = (fed.person("olga"), fed.person("bob"));
    assert!(works(&bob).await && works(&owner).await);
    let began = Instant::now();
    assert_eq!(push_of(&fed, &claims(&fed, &format!("{RISC}account-disabled"), "olga")).await.status, 202);
    while works(&bob).await {
        assert!(began.elapsed() < Duration::from_secs(1), "the agent still acts");
    }
    assert!(!works(&owner).await);
    let targets: Vec<_> = fed.ordered().iter().map(|record| record["revocation"]["target"].clone()).collect();
    assert_eq!(targets, ["subject", "owner"]);
    assert_eq!(push_of(&fed, &claims(&fed, &format!("{RISC}account-enabled"), "olga")).await.status, 202);
    assert!(!works(&bob).await, "a feed gives nothing back");
    let noted = fed.gateway.records("admin");
    assert!(noted.iter().any(|record| record.to_string().contains("that needs a person")), "{noted:?}");
    assert_eq!(fed.ordered().len(), 2);
}

#[tokio::test]
async fn what_means_no_less_is_taken_and_has_no_effect() {
    let fed = Fed::start(LINES).await;
    let alice = fed.person("alice");
    let stream = json!({ "format": "opaque", "id": "stream-1" });
    for (event, content) in [
        (format!("{SSF}verification"), json!({ "state": "x" })),
        (format!("{SSF}stream-updated"), json!({ "status": "paused" })),
        (format!("{CAEP}assurance-level-change"), json!({ "change_direction": "increase" })),
        (format!("{CAEP}device-compliance-change"), json!({ "current_status": "compliant" })),
        ("https://vendor.example/event".to_owned(), json!({})),
    ] {
        let mut claims = claims(&fed, &event, "alice");
        claims["events"][&event] = content;
        if event.starts_with(SSF) {
            claims["sub_id"] = stream.clone();
        }
        assert_eq!(push_of(&fed, &claims).await.status, 202, "{event}");
    }
    assert!(works(&alice).await && fed.ordered().is_empty());
    assert_eq!(fed.gateway.records("admin").len(), 5, "each of them is told");
}

#[tokio::test]
async fn a_feed_that_names_another_issuers_people_is_refused_and_that_is_told_at_once() {
    let fed = Fed::start(LINES).await;
    let alice = fed.person("alice");
    for identifier in [
        of("https://other.example", "alice"),
        of(&format!("{}/", fed.issuer.url), "alice"),
        json!({ "format": "complex", "user": of("https://other.example", "alice") }),
    ] {
        let mut claims = claims(&fed, &format!("{CAEP}session-revoked"), "alice");
        claims["sub_id"] = identifier.clone();
        let answered = push_of(&fed, &claims).await;
        assert_eq!((answered.status, &answered.json()["err"]), (400, &json!("access_denied")), "{identifier}");
    }
    assert!(works(&alice).await && fed.ordered().is_empty());
    let told = fed.gateway.records("admin");
    assert_eq!(told.iter().filter(|record| record.to_string().contains("feed_subject_foreign")).count(), 3);
    assert!(fed.gateway.log().contains("feed_subject_foreign"));
}

#[tokio::test]
async fn what_fails_one_check_takes_nothing_back_and_the_error_has_its_code() {
    let fed = Fed::start(LINES).await;
    let other = Issuer::start().await;
    let alice = fed.person("alice");
    let now = jiff::Timestamp::now().as_second();
    let event = format!("{CAEP}session-revoked");
    let good = claims(&fed, &event, "alice");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(&fed.issuer, &claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(&fed.issuer, &claims)
    };
    let typed = |typ: Option<&str>| fed.issuer.sign_with(&good, |header| header.typ = typ.map(str::to_owned));
    let two = json!({ "format": "complex", "device": { "format": "opaque", "id": "d" } });
    for (what, token, code) in [
        ("no token", "x".to_owned(), "invalid_request"),
        ("no iss", without("iss"), "invalid_request"),
        ("another iss", with("iss", json!("https://other.example")), "invalid_issuer"),
        ("another aud", with("aud", json!("https://elsewhere.example")), "invalid_audience"),
        ("no aud", without("aud"), "invalid_request"),
        ("no iat", without("iat"), "invalid_request"),
        ("an iat that lies ahead", with("iat", json!(now + 3_600)), "invalid_request"),
        ("an iat of weeks ago", with("iat", json!(now - 30 * 86_400)), "invalid_request"),
        ("an exp", with("exp", json!(now + 60)), "invalid_request"),
        ("a sub", with("sub", json!("alice")), "invalid_request"),
        ("no jti", without("jti"), "invalid_request"),
        ("no events", without("events"), "invalid_request"),
        ("empty events", with("events", json!({})), "invalid_request"),
        (
            "too many events",
            {
                let many: serde_json::Map<String, Value> =
                    (0..=bailiwick::limit::FEED_EVENTS_MAX).map(|n| (format!("{event}{n}"), json!({}))).collect();
                with("events", Value::Object(many))
            },
            "invalid_request",
        ),
        ("nobody", without("sub_id"), "invalid_request"),
        (
            "an address, which was not written",
            with("sub_id", json!({"format": "email", "email": "alice"})),
            "invalid_request",
        ),
        ("a device alone", with("sub_id", two), "invalid_request"),
        ("the type of a logout token", typed(Some("logout+jwt")), "invalid_request"),
        ("JWT", typed(Some("JWT")), "invalid_request"),
        ("no type", typed(None), "invalid_request"),
        ("a key of somebody else", signed(&other, &good), "invalid_key"),
    ] {
        let answered = push(&fed, &token).await;
        assert_eq!((answered.status, &answered.json()["err"]), (400, &json!(code)), "{what}: {}", answered.text);
    }
    let token = signed(&fed.issuer, &good);
    for headers in [vec![bearer()], vec![bearer(), ("content-type", "application/jwt")]] {
        assert_eq!(fed.post("/feeds/corp/events", &headers, &token).await.status, 400, "{headers:?}");
    }
    for wrong in [vec![SET], vec![SET, ("authorization", "Bearer guessed")], vec![SET, ("authorization", "Basic x")]] {
        let answered = fed.post("/feeds/corp/events", &wrong, &token).await;
        assert_eq!(answered.status, 401, "{wrong:?}");
        assert!(answered.headers.contains_key("www-authenticate"));
    }
    assert!(works(&alice).await && fed.ordered().is_empty());
    crate::support::eventually("the knocking on the record", async || {
        fed.gateway.records("noise").iter().any(|record| record.to_string().contains("feed_refused"))
    })
    .await;
    assert_eq!(push(&fed, &token).await.status, 202);
    assert!(!works(&alice).await);
}

#[tokio::test]
async fn an_event_that_comes_again_is_acknowledged_and_does_nothing() {
    let fed = Fed::start(LINES).await;
    let token = signed(&fed.issuer, &claims(&fed, &format!("{CAEP}session-revoked"), "alice"));
    for _ in 0..3 {
        assert_eq!(push(&fed, &token).await.status, 202);
    }
    assert_eq!(fed.ordered().len(), 1);
}

#[tokio::test]
async fn a_transmitter_of_its_own_is_found_by_its_metadata_and_may_name_the_issuers_people_only() {
    let transmitter = super::poll::Transmitter::start().await;
    let lines = format!("{LINES}transmitter = \"{0}\"\nformats = [\"email\", \"opaque\"]\n", transmitter.issuer.url);
    let fed = Fed::start(&lines).await;
    let event = format!("{CAEP}session-revoked");
    for (name, identifier) in [
        ("alice", of(&fed.issuer.url, "alice")),
        ("bob@corp.example", json!({ "format": "email", "email": "bob@corp.example" })),
        ("u-7", json!({ "format": "opaque", "id": "u-7" })),
    ] {
        let person = fed.person(name);
        assert!(works(&person).await);
        let mut claims = claims(&fed, &event, name);
        claims["iss"] = json!(transmitter.issuer.url);
        claims["sub_id"] = identifier;
        assert_eq!(push(&fed, &signed(&transmitter.issuer, &claims)).await.status, 202, "{name}");
        assert!(!works(&person).await, "{name}");
    }
    // Neither may the transmitter speak of its own people, nor the issuer in its place.
    let mut own = claims(&fed, &event, "carol");
    own["iss"] = json!(transmitter.issuer.url);
    own["sub_id"] = of(&transmitter.issuer.url, "carol");
    assert_eq!(push(&fed, &signed(&transmitter.issuer, &own)).await.json()["err"], "access_denied");
    let as_issuer = push_of(&fed, &claims(&fed, &event, "carol")).await;
    assert_eq!(as_issuer.json()["err"], "invalid_issuer");
    assert!(works(&fed.person("carol")).await);
}

#[tokio::test]
async fn what_was_issued_for_somebody_whose_session_is_revoked_is_taken_back() {
    let upstream = Scripted::echo().await;
    let sts = crate::support::sts::Sts::start(crate::support::sts::Revocation::Has).await;
    let credential = format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", audience = \"https://bank.example\" }}",
        sts.url
    );
    let fed = Fed::with(LINES, |setup| setup.http_server("bank", &upstream.url, &credential)).await;
    for name in ["alice", "bob"] {
        let answer = fed.person(name).call_tool("bank__echo", json!({ "mark": name })).await;
        assert_eq!((answer.status, answer.result()["isError"] == true), (200, false), "{}", answer.text);
    }
    let hers = upstream.calls()[0].headers["authorization"].replace("Bearer ", "");
    assert_eq!(push_of(&fed, &claims(&fed, &format!("{CAEP}session-revoked"), "alice")).await.status, 202);
    let all_hers = || sts.revoked().iter().all(|form| crate::support::sts::claims(&form["token"])["sub"] == "alice");
    crate::support::eventually("it to be given back", async || {
        sts.revoked().iter().any(|form| form["token"] == hers.as_str())
    })
    .await;
    assert!(all_hers(), "his is his: {:?}", sts.revoked());
}
