//! SCIM: whoever is deactivated takes along what they answer for, and nothing brings it back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;

use super::*;

const LINES: &str =
    "[feeds.hr]\nissuer = \"test\"\n[feeds.hr.scim]\nsecret = \"file:feed-secret\"\nsubject = \"userName\"\n";
const USERS: &str = "/feeds/hr/scim/v2/Users";

/// The assistant is somebody's who may leave.
pub(super) const AGENTS: &str = "[agents.assistant]\nowner = \"user:test/olga\"\npurpose = \"tests\"\n\
                                 kind = \"interactive\"\nenvironments = [\"development\"]\n";

async fn start() -> Fed {
    Fed::with(LINES, |setup| setup.policy_file("agents.toml", AGENTS)).await
}

fn id(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

async fn ask(fed: &Fed, method: Method, path: &str, body: &Value) -> Answered {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    fed.send(method, path, &[bearer(), ("content-type", "application/scim+json")], &body).await
}

#[tokio::test]
async fn whoever_is_deactivated_is_signed_out_and_their_agents_stop_within_a_second() {
    let fed = start().await;
    let (olga, bob) = (fed.person("olga"), fed.person("bob"));
    assert!(works(&olga).await && works(&bob).await);
    let found = ask(&fed, Method::GET, &format!("{USERS}?filter=userName%20eq%20%22olga%22"), &Value::Null).await;
    assert_eq!(found.headers["content-type"], "application/scim+json");
    let user = found.json()["Resources"][0].clone();
    assert_eq!((&user["userName"], &user["active"]), (&json!("olga"), &json!(true)));
    let path = format!("{USERS}/{}", user["id"].as_str().unwrap());
    assert!(user["meta"]["location"].as_str().unwrap().ends_with(&path));
    let patch = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{ "op": "replace", "path": "active", "value": false }],
    });
    let began = Instant::now();
    let patched = ask(&fed, Method::PATCH, &path, &patch).await;
    assert_eq!((patched.status, &patched.json()["active"]), (200, &json!(false)), "{}", patched.text);
    while works(&bob).await {
        assert!(began.elapsed() < Duration::from_secs(1), "the agent still acts");
    }
    assert!(!works(&olga).await);
    let records = fed.ordered();
    let told: Vec<_> = records
        .iter()
        .map(|record| (record["revocation"]["target"].clone(), record["revocation"]["mode"].clone()))
        .collect();
    assert_eq!(told, [(json!("subject"), json!("sign_out")), (json!("owner"), json!("block"))]);
    assert_eq!(records[1]["revocation"]["value"], "user:test/olga");

    // Active again: the answer says how it is, and a person has to lift it.
    let back = json!({ "Operations": [{ "op": "replace", "path": "active", "value": true }] });
    for (method, body) in [(Method::PATCH, back), (Method::PUT, json!({ "userName": "olga", "active": true }))] {
        let answered = ask(&fed, method, &path, &body).await;
        assert_eq!((answered.status, &answered.json()["active"]), (200, &json!(false)));
    }
    assert!(!works(&bob).await);
    let noted = fed.gateway.records("admin");
    assert_eq!(noted.iter().filter(|record| record.to_string().contains("that needs a person")).count(), 2);
    assert_eq!(fed.ordered().len(), 2);
}

#[tokio::test]
async fn whoever_leaves_takes_along_what_they_answer_for_however_their_name_has_to_be_spelled() {
    let agents = AGENTS.replace("user:test/olga", "user:test/auth0%7Colga@test");
    let fed = Fed::with(LINES, |setup| setup.policy_file("agents.toml", &agents)).await;
    let bob = fed.person("bob");
    assert!(works(&bob).await);
    let (file, other) = (fed.gateway.directory().join("policies/agents.toml"), agents.replace("%7C", "%7c"));
    std::fs::write(&file, other.replace('@', "%40")).unwrap();
    let checked = fed.gateway.command(&["check", "--config", "servers.toml"]);
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(!checked.status.success() && told.contains("write user:test/auth0%7Colga@test"), "{told}");
    std::fs::write(&file, &agents).unwrap();
    let left = ask(&fed, Method::DELETE, &format!("{USERS}/{}", id("auth0|olga@test")), &Value::Null).await;
    assert_eq!(left.status, 204, "{}", left.text);
    crate::support::eventually("her agent to stop", async || !works(&bob).await).await;
    // The same by hand, as somebody would type it who has it from another program.
    let by_hand = ["revoke", "owner", "user:test/auth0%7cpaul%40test", "--config", "servers.toml"];
    let revoked = fed.gateway.command(&by_hand);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let record = fed.gateway.records("revocation").pop().unwrap();
    assert_eq!(record["revocation"]["value"], "user:test/auth0%7Cpaul@test", "{record}");
}

#[tokio::test]
async fn every_way_to_say_that_somebody_has_left_is_understood() {
    let fed = start().await;
    let listed = || fed.upstream.everything().iter().filter(|request| request.text.contains("tools/list")).count();
    assert!(works(&fed.person("zoe")).await);
    let before = listed();
    let inactive = json!({ "userName": "x", "active": false });
    let entra = json!({ "Operations": [{ "op": "Replace", "path": "active", "value": "False" }] });
    for (name, method, body, status) in [
        ("ann", Method::PUT, inactive, 200),
        ("bea", Method::DELETE, Value::Null, 204),
        ("cid", Method::PATCH, entra, 200),
    ] {
        let person = fed.person(name);
        assert!(works(&person).await);
        let answered = ask(&fed, method, &format!("{USERS}/{}", id(name)), &body).await;
        assert_eq!(answered.status, status, "{name}: {}", answered.text);
        assert!(!works(&person).await, "{name}");
        let shown = ask(&fed, Method::GET, &format!("{USERS}/{}", id(name)), &Value::Null).await;
        assert_eq!(shown.json()["active"], false, "{name}");
    }
    let made = ask(&fed, Method::POST, USERS, &json!({ "userName": "dan", "active": false })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(made.headers["location"].to_str().unwrap().ends_with(&id("dan")));
    assert!(!works(&fed.person("dan")).await);
    // They answer for nothing here: their leaving has nothing listed again.
    assert_eq!((listed(), before >= 1), (before, true));
}

#[tokio::test]
async fn what_providers_ask_first_is_answered_and_changes_nothing() {
    let fed = start().await;
    let provider = ask(&fed, Method::GET, "/feeds/hr/scim/v2/ServiceProviderConfig", &Value::Null).await;
    assert_eq!(
        (&provider.json()["patch"]["supported"], &provider.json()["bulk"]["supported"]),
        (&json!(true), &json!(false))
    );
    let types = ask(&fed, Method::GET, "/feeds/hr/scim/v2/ResourceTypes", &Value::Null).await;
    assert_eq!(types.json()["Resources"][0]["id"], "User");
    let all = ask(&fed, Method::GET, USERS, &Value::Null).await;
    assert_eq!(all.json()["totalResults"], 0);
    let by_other = ask(&fed, Method::GET, &format!("{USERS}?filter=externalId+eq+%227%22"), &Value::Null).await;
    assert_eq!(by_other.json()["totalResults"], 0, "that attribute says nothing of the sub here");
    let made = ask(&fed, Method::POST, USERS, &json!({ "userName": "eve", "active": true, "emails": [] })).await;
    assert_eq!((made.status, &made.json()["active"]), (201, &json!(true)));
    assert!(works(&fed.person("eve")).await && fed.ordered().is_empty());
}

#[tokio::test]
async fn nothing_that_is_wrong_or_comes_without_the_secret_changes_anything() {
    let fed = start().await;
    let path = format!("{USERS}/{}", id("olga"));
    let inactive = json!({ "active": false }).to_string();
    for wrong in [vec![], vec![("authorization", "Bearer guessed")], vec![bearer(), bearer()]] {
        let answered = fed.send(Method::PUT, &path, &wrong, &inactive).await;
        assert_eq!(answered.status, 401, "{wrong:?}");
    }
    let long = "x".repeat(bailiwick::limit::REVOCATION_VALUE_BYTES_MAX + 1);
    for (method, path, body, status) in [
        (Method::PUT, path.as_str(), "[]", 400),
        (Method::PUT, &path, "{\"active\":\"no\"}", 400),
        (Method::PUT, &path, "", 400),
        (Method::PATCH, &path, "{}", 400),
        (Method::PATCH, &path, "{\"Operations\":[{\"op\":\"replace\",\"path\":\"active\"}]}", 400),
        (Method::POST, &path, "{}", 405),
        (Method::DELETE, USERS, "", 405),
        (Method::DELETE, &format!("{USERS}/!"), "", 404),
        (Method::DELETE, &format!("{USERS}/{}", id(&long)), "", 404),
        (Method::POST, USERS, "{\"active\":false}", 400),
        (Method::POST, USERS, "{\"userName\":\"\",\"active\":false}", 400),
        (Method::GET, &format!("{USERS}?filter=userName+sw+%22o%22"), "", 400),
        (Method::GET, "/feeds/hr/scim/v2/Groups", "", 404),
        (Method::GET, "/feeds/hr/scim/v1/Users", "", 404),
    ] {
        let answered = fed.send(method.clone(), path, &[bearer()], body).await;
        assert_eq!(answered.status, status, "{method} {path} {body}: {}", answered.text);
        assert_eq!(answered.json()["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error", "{method} {path}");
    }
    assert!(works(&fed.person("olga")).await && fed.ordered().is_empty());
    crate::support::eventually("the knocking on the record", async || {
        fed.gateway.records("noise").iter().any(|record| record.to_string().contains("feed_refused"))
    })
    .await;
}

#[tokio::test]
async fn whoever_is_still_there_has_attested_what_they_answer_for() {
    let issuer = crate::support::issuer::Issuer::start().await;
    let Some(setup) = Setup::new(&issuer).own_clock() else { return };
    drop(setup);
    let fed = Fed::with(LINES, |setup| setup.policy_file("agents.toml", AGENTS).own_clock().unwrap()).await;
    let path = format!("{USERS}/{}", id("olga"));
    let attested = || {
        let lines = fed.gateway.records("lifecycle").into_iter().map(|line| line["lifecycle"].clone());
        lines.filter(|told| told["event"] == "attested").collect::<Vec<_>>()
    };
    assert_eq!(ask(&fed, Method::PUT, &path, &json!({ "active": true })).await.status, 200);
    assert!(attested().is_empty(), "the files have just said so");
    fed.gateway.set_clock(&format!("+{}", 2 * 86_400));
    crate::support::eventually("the attestation", async || {
        assert_eq!(ask(&fed, Method::PUT, &path, &json!({ "active": true })).await.status, 200);
        !attested().is_empty()
    })
    .await;
    let told = attested();
    assert_eq!((&told[0]["id"], &told[0]["actor"]), (&json!("assistant"), &json!("feed:hr")), "{told:?}");
}
