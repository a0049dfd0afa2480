//! Methods, capabilities and fields that the gateway has never heard of.

use serde_json::json;

use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::issuer::Issuer;
use crate::support::peer::{self, Peer};
use crate::support::scripted::{Scripted, tool};

const MAY_ECHO: &str = "p, role:developer, *, one/*, method:x/echo, -, allow\n\
                        p, agent:assistant, *, one/*, method:x/echo, -, allow\n";

#[tokio::test]
async fn an_unknown_method_is_denied_unless_a_rule_names_it() {
    let issuer = Issuer::start().await;
    let (one, two) = (Scripted::echo().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .http_server("one", &one.url, "")
        .http_server("two", &two.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{MAY_ECHO}"))
        .start()
        .await;
    let alice = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&alice);
    let params = json!({ "deep": { "z": 1, "a": 2 } });

    let answer = client.modern("x/echo", params.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // Key order and unknown members survive, in both directions.
    assert!(answer.text.contains(r#""zebra":1,"asked":{"z":1,"a":2},"ant":[null]"#), "{}", answer.text);
    let arrived = |upstream: &Scripted| {
        upstream.everything().into_iter().filter(|request| request.message["method"] == "x/echo").collect::<Vec<_>>()
    };
    let seen = arrived(&one);
    assert_eq!((seen.len(), arrived(&two).len()), (1, 0));
    assert!(seen[0].text.contains(r#""deep":{"z":1,"a":2}"#), "{}", seen[0].text);
    assert_eq!(seen[0].headers.get("mcp-method").map(String::as_str), Some("x/echo"));

    let (_, session) = client.initialize("2025-11-25").await;
    let legacy = client.legacy(&session, "x/echo", params.clone()).await;
    assert_eq!(legacy.result()["zebra"], 1, "{}", legacy.text);

    // Not named, not on this server, not for this caller, not a name: all of it as if there were no such method.
    let absent = client.modern("x/other", params.clone()).await;
    assert_eq!((absent.status, absent.error_code()), (404, -32601), "{}", absent.text);
    let mallory = issuer.token("mallory", &["auditors"], &gateway.resource());
    for denied in [
        gateway.server_client("two", &alice).modern("x/echo", params.clone()).await,
        gateway.server_client("three", &alice).modern("x/echo", params.clone()).await,
        gateway.client(&mallory).modern("x/echo", params.clone()).await,
        client.modern("initialize", params.clone()).await,
        client.modern("sampling/createMessage", params.clone()).await,
    ] {
        assert_eq!((denied.status, &denied.text), (404, &absent.text));
    }
    assert_eq!((arrived(&one).len(), arrived(&two).len()), (2, 0));
}

#[tokio::test]
async fn what_a_condition_reads_of_an_unknown_methods_arguments_is_unknown_and_no_empty_object() {
    let issuer = Issuer::start().await;
    let one = Scripted::echo().await;
    // An allow of each shape that an empty object would satisfy, and a deny that it would turn off.
    let conditions = "[bare]\nonly = []\n[unforced]\nargument = \"force\"\npresent = false\n\
                      [forced]\nargument = \"force\"\nequals = true\n[people]\nhuman = true\n";
    let rows = "p, role:developer, *, one/*, method:x/bare, bare, allow\n\
                p, role:developer, *, one/*, method:x/unforced, unforced, allow\n\
                p, role:developer, *, one/*, method:x/open, -, allow\n\
                p, role:developer, *, one/*, method:x/open, forced, deny\n\
                p, role:developer, *, one/*, method:x/echo, people, allow\n";
    let agent = ["bare", "unforced", "open", "echo"]
        .map(|name| format!("p, agent:assistant, *, one/*, method:x/{name}, -, allow\n"));
    let gateway = Setup::new(&issuer)
        .http_server("one", &one.url, "")
        .policy_file("conditions.toml", conditions)
        .policy(&format!("{DEVELOPERS_MAY}{rows}{}", agent.concat()))
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for method in ["x/bare", "x/unforced", "x/open"] {
        for params in [json!({ "force": true }), json!({})] {
            let answer = client.modern(method, params).await;
            assert!(answer.response().get("error").is_some(), "{method}: {}", answer.text);
        }
        assert!(
            !one.everything().iter().any(|request| request.message["method"] == method),
            "{method} reached its server"
        );
    }
    // What is known of the caller decides as ever.
    let answer = client.modern("x/echo", json!({ "force": true })).await;
    assert_eq!(answer.result()["zebra"], 1, "{}", answer.text);
}

#[tokio::test]
async fn an_unknown_method_that_two_servers_could_mean_reaches_none() {
    let issuer = Issuer::start().await;
    let (one, two) = (Scripted::echo().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .http_server("one", &one.url, "")
        .http_server("two", &two.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{}", MAY_ECHO.replace("one/*", "*/*")))
        .start()
        .await;
    let alice = issuer.token("alice", &["developers"], &gateway.resource());
    let answer = gateway.client(&alice).modern("x/echo", json!({})).await;
    assert_eq!((answer.status, answer.error_code()), (404, -32601), "{}", answer.text);
    // On a server's own endpoint it means that server.
    let answer = gateway.server_client("two", &alice).modern("x/echo", json!({})).await;
    assert_eq!(answer.result()["zebra"], 1, "{}", answer.text);
}

#[tokio::test]
async fn a_resource_that_is_hidden_and_one_that_is_not_there_are_the_same_error_with_their_uri() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("one", &upstream.url, "uris = [\"a://b/\"]").start().await;
    let mallory = gateway.client(&issuer.token("mallory", &["auditors"], &gateway.resource()));
    let hidden = mallory.modern("resources/read", json!({ "uri": "a://b/c" })).await;
    let absent = mallory.modern("resources/read", json!({ "uri": "z://b/c" })).await;
    assert_eq!(hidden.response()["error"]["data"], json!({ "uri": "a://b/c" }));
    assert_eq!(hidden.text.replace("a://", "z://"), absent.text);
    let (_, session) = mallory.initialize("2025-11-25").await;
    let hidden = mallory.legacy(&session, "resources/read", json!({ "uri": "a://b/c" })).await;
    assert_eq!(hidden.error_code(), -32002, "{}", hidden.text);
}

#[tokio::test]
async fn a_capability_that_nobody_has_heard_of_is_announced_where_one_server_has_it() {
    let issuer = Issuer::start().await;
    let serve = |capabilities| Peer::modern(capabilities, json!([tool("t")]), |_| peer::error(-32601, "no"));
    let one = serve(json!({ "com.example/only": { "z": 1, "a": [2] }, "com.example/both": { "v": 1 } })).await;
    let two = serve(json!({ "com.example/both": { "v": 2 } })).await;
    let setup = Setup::new(&issuer).http_server("one", &one.url, "").http_server("two", &two.url, "");
    let gateway = setup.policy(&format!("{DEVELOPERS_MAY}p, role:tester, *, two/*, call, -, allow\np, agent:assistant, *, */*, call, -, allow\ng, group:test/testers, role:tester, *\n")).start().await;
    let announced = async |group: &str| {
        let client = gateway.client(&issuer.token("alice", &[group], &gateway.resource()));
        let modern = client.modern("server/discover", json!({})).await.result()["capabilities"].clone();
        let (begun, _) = client.initialize("2025-11-25").await;
        (modern, begun.result()["capabilities"].clone())
    };
    let (modern, legacy) = announced("developers").await;
    for shown in [modern, legacy] {
        assert_eq!(shown["com.example/only"], json!({ "z": 1, "a": [2] }), "{shown}");
        assert!(shown.get("com.example/both").is_none(), "whose it is cannot be said: {shown}");
    }
    // To whom the other one does not show it is clear.
    let (modern, _) = announced("testers").await;
    assert_eq!(modern["com.example/both"], json!({ "v": 2 }), "{modern}");
    assert!(modern.get("com.example/only").is_none(), "{modern}");
}
