//! Updates of resources: from every kind of upstream to clients of either era, and to nobody else.

use std::time::Duration;

use bailiwick::limit;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::talkative::{RULES, Talkative, UPSTREAMS};

const QUIET: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_modern_client_hears_of_a_resource_of_every_kind_of_upstream() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://a"] })).await;
        let first = stream.next().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{upstream:?}: {first}");
        assert_eq!(first["params"]["notifications"], json!({ "resourceSubscriptions": ["test://a"] }), "{upstream:?}");
        test.tool("touch", json!({ "uri": "test://b" })).await;
        test.tool("touch", json!({ "uri": "test://a" })).await;
        let told = stream.next().await;
        let params = json!({ "uri": "test://a", "extra": "kept",
            "_meta": { "io.modelcontextprotocol/subscriptionId": 1 } });
        assert_eq!(told, json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params }));
        assert_eq!(stream.next_within(QUIET).await, None::<Value>, "{upstream:?}");
    }
}

#[tokio::test]
async fn a_hidden_and_an_absent_resource_are_left_out_of_the_acknowledgement_alike() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let uris = ["test://secret", "test://a", "nowhere://x", "test://a/../b"];
    let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": uris, "toolsListChanged": true })).await;
    let honoured = json!({ "toolsListChanged": true, "resourceSubscriptions": ["test://a"] });
    assert_eq!(stream.next().await["params"]["notifications"], honoured);
    // Refusals are written without anybody waiting for them.
    let all = async || test.gateway.records("refusal").len() == 3;
    crate::support::eventually("a refusal of each of the others on the record", all).await;
}

#[tokio::test]
async fn many_clients_share_one_upstream_listen_which_ends_with_the_last_of_them() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let other = test.issuer.token("bob", &["developers"], &test.gateway.resource());
    let wanted = json!({ "resourceSubscriptions": ["test://a"] });
    let mut one = test.listen(&test.token, wanted.clone()).await;
    let mut two = test.listen(&other, wanted).await;
    one.next().await;
    two.next().await;
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(one.next().await["params"]["uri"], "test://a");
    assert_eq!(two.next().await["params"]["uri"], "test://a");
    let about_resources = async || {
        let listens = test.asked("subscriptions/listen").await;
        listens.iter().filter(|listen| listen["notifications"].get("resourceSubscriptions").is_some()).count()
    };
    assert_eq!(about_resources().await, 1);
    drop(one);
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(two.next().await["params"]["uri"], "test://a");
    drop(two);
    eventually("the upstream's listen to end", async || !test.asked("listen ended").await.is_empty()).await;
}

#[tokio::test]
async fn a_legacy_upstream_is_told_when_the_last_subscriber_has_gone() {
    crate::needs_python!();
    let test = Talkative::start(("legacy", "http")).await;
    let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://a"] })).await;
    stream.next().await;
    assert_eq!(test.asked("resources/subscribe").await.len(), 1);
    assert!(test.asked("resources/unsubscribe").await.is_empty());
    drop(stream);
    eventually("the unsubscription", async || test.asked("resources/unsubscribe").await.len() == 1).await;
}

#[tokio::test]
async fn what_an_upstream_does_not_honour_is_not_acknowledged() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::with(upstream, &["picky"], "").await;
        let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://b", "test://a"] })).await;
        let honoured = json!({ "resourceSubscriptions": ["test://a"] });
        assert_eq!(stream.next().await["params"]["notifications"], honoured, "{upstream:?}");
    }
}

#[tokio::test]
async fn a_rule_that_is_taken_away_ends_updates_and_one_that_comes_back_brings_them_back() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://a"] })).await;
    stream.next().await;
    test.gateway.write_policy(&format!("{RULES}p, anyone, *, up/test://a, subscribe, -, deny\n"));
    assert!(test.gateway.command(&["reload"]).status.success());
    eventually("the upstream's listen to end", async || !test.asked("listen ended").await.is_empty()).await;
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(stream.next_within(QUIET).await, None::<Value>);
    test.gateway.write_policy(RULES);
    assert!(test.gateway.command(&["reload", "--allow-widening"]).status.success());
    // What happened meanwhile is made up for.
    assert_eq!(stream.next().await["params"]["uri"], "test://a");
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(stream.next().await["params"]["extra"], "kept");
}

#[tokio::test]
async fn an_update_of_a_part_is_told_only_to_who_may_hear_of_the_part() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let rules = format!("{RULES}p, anyone, *, up/test://a/private, subscribe, -, deny\n");
    test.gateway.write_policy(&rules);
    assert!(test.gateway.command(&["reload"]).status.success());
    let client = test
        .gateway
        .server_client("up", &test.issuer.token("alice", &["developers"], &format!("{}/up", test.gateway.resource())));
    let (headers, body) = crate::support::client::modern_request(
        "subscriptions/listen",
        json!({ "notifications": { "resourceSubscriptions": ["test://a"] } }),
    );
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    stream.next().await;
    test.tool("touch", json!({ "uri": "test://a/private" })).await;
    test.tool("touch", json!({ "uri": "test://a/public" })).await;
    assert_eq!(stream.next().await["params"]["uri"], "test://a/public");
}

/// Far more than fits into what lies between the gateway and a client that does not read.
#[tokio::test]
async fn a_client_that_does_not_read_is_told_later_that_there_was_more_and_nobody_else_waits() {
    crate::needs_python!();
    const TIMES: usize = 6 * limit::WATCH_TOLD_MAX;
    let test = Talkative::start(("modern", "http")).await;
    let wanted = json!({ "resourceSubscriptions": ["test://a"] });
    let (mut slow, mut quick) =
        (test.listen(&test.token, wanted.clone()).await, test.listen(&test.token, wanted).await);
    slow.next().await;
    quick.next().await;
    test.tool("touch", json!({ "uri": "test://a", "times": TIMES, "length": 60_000 })).await;
    // The last one is never pushed out, and comes after all others have been told or left out.
    while quick.next().await["params"]["extra"] != "kept" {}
    let (mut told, mut gaps) = (0, 0);
    loop {
        let params = slow.next().await["params"].clone();
        match params["extra"].as_str() {
            Some("kept") => break,
            Some(_) => told += 1,
            None => gaps += 1,
        }
        assert_eq!(params["uri"], "test://a");
    }
    // What waited in the stream and in the subscription, and what the sockets held.
    assert!(told > 0 && told < TIMES, "{told} of {TIMES} were kept");
    assert!(gaps >= 1, "what was left out is told once");
}

#[tokio::test]
async fn a_lost_upstream_stream_is_taken_up_again_and_the_gap_is_told() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://a"] })).await;
    stream.next().await;
    test.tool("cut", json!({})).await;
    let gap = stream.next().await;
    assert_eq!(
        (&gap["method"], &gap["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("test://a"))
    );
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(stream.next().await["params"]["extra"], "kept");
}

#[tokio::test]
async fn a_listen_names_only_so_many_resources() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let uris: Vec<String> = (0..200).map(|number| format!("test://{number}")).collect();
    let answer = test
        .client()
        .modern("subscriptions/listen", json!({ "notifications": { "resourceSubscriptions": uris } }))
        .await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
}

#[tokio::test]
async fn subscribing_is_announced_only_where_an_upstream_has_it() {
    crate::needs_python!();
    for (options, announced) in [(&[][..], json!(true)), (&["mute"][..], Value::Null)] {
        let test = Talkative::with(("legacy", "http"), options, "").await;
        let modern = test.client().modern("server/discover", json!({})).await;
        assert_eq!(modern.result()["capabilities"]["resources"]["subscribe"], announced, "{}", modern.text);
        let (legacy, _) = test.client().initialize("2025-11-25").await;
        assert_eq!(legacy.result()["capabilities"]["resources"]["subscribe"], announced, "{}", legacy.text);
    }
}

#[tokio::test]
async fn a_legacy_client_hears_of_a_resource_of_every_kind_of_upstream_until_it_unsubscribes() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let (session, mut stream) = test.session(&test.token).await;
        let client = test.client();
        let subscribed = client.legacy(&session, "resources/subscribe", json!({ "uri": "test://a" })).await;
        assert_eq!(subscribed.result(), &json!({}), "{upstream:?}: {}", subscribed.text);
        test.tool("touch", json!({ "uri": "test://b" })).await;
        test.tool("touch", json!({ "uri": "test://a" })).await;
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated",
            "params": { "uri": "test://a", "extra": "kept" } });
        assert_eq!(stream.next().await, told, "{upstream:?}");
        let gone = client.legacy(&session, "resources/unsubscribe", json!({ "uri": "test://a" })).await;
        assert_eq!(gone.result(), &json!({}), "{}", gone.text);
        test.tool("touch", json!({ "uri": "test://a" })).await;
        assert_eq!(stream.next_within(QUIET).await, None::<Value>, "{upstream:?}");
    }
}

#[tokio::test]
async fn a_legacy_session_is_heard_for_with_the_token_that_was_presented_last() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let mut claims = test.issuer.claims("alice", &["developers"], &test.gateway.resource());
    claims["exp"] = json!(jiff::Timestamp::now().as_second() + 2);
    let (session, mut stream) = test.session(&test.issuer.sign(&claims)).await;
    // It has a newer token by the time that the older one runs out, as clients do.
    let subscribed = test.client().legacy(&session, "resources/subscribe", json!({ "uri": "test://a" })).await;
    assert_eq!(subscribed.result(), &json!({}), "{}", subscribed.text);
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    test.tool("touch", json!({ "uri": "test://a" })).await;
    let told = stream.next_within(Duration::from_secs(5)).await.expect("the update");
    assert_eq!(told["params"]["uri"], "test://a");
}

#[tokio::test]
async fn a_legacy_client_that_may_not_subscribe_is_answered_as_if_there_were_nothing() {
    crate::needs_python!();
    let test = Talkative::with(("legacy", "http"), &["picky"], "").await;
    let (session, _stream) = test.session(&test.token).await;
    let mut texts = Vec::new();
    for uri in ["test://secret", "nowhere://x"] {
        let answer = test.client().legacy(&session, "resources/subscribe", json!({ "uri": uri })).await;
        assert_eq!(answer.error_code(), -32002, "{}", answer.text);
        texts.push(answer.text);
    }
    assert_eq!(texts[0], texts[1]);
    // What the upstream itself refuses is told in its own words.
    let answer = test.client().legacy(&session, "resources/subscribe", json!({ "uri": "test://b" })).await;
    assert_eq!(answer.response()["error"]["data"], json!({ "uri": "test://b" }), "{}", answer.text);
}

#[tokio::test]
async fn subscriptions_of_a_session_are_its_own_and_end_with_it() {
    crate::needs_python!();
    let test = Talkative::start(("legacy", "http")).await;
    let (one, _one_stream) = test.session(&test.token).await;
    let (_, mut other_stream) = test.session(&test.token).await;
    let client = test.client();
    client.legacy(&one, "resources/subscribe", json!({ "uri": "test://a" })).await;
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(other_stream.next_within(QUIET).await, None::<Value>);
    client.bare(reqwest::Method::DELETE, &[("mcp-session-id", one)]).await;
    eventually("the unsubscription", async || test.asked("resources/unsubscribe").await.len() == 1).await;
}
