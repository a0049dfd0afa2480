//! Stores: what is put there, whoever reads it, and in one step.

use serde_json::{Value, json};

use super::{Gateway, Setup, call, client};
use crate::support::eventually;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::sts::{Revocation, Sts};

const LABELS: &str = r#"
[[label]]
objects = ["*/read_customer"]
reads = "private"

[[label]]
objects = ["*/fetch"]
content = "untrusted"

[[label]]
objects = ["*/send"]
sends = "external"

[[label]]
objects = ["*/save"]
effect = "write"
store = "memory"

[[label]]
objects = ["*/import"]
content = "untrusted"
effect = "write"
store = "memory"

[[label]]
objects = ["*/load"]
store = "memory"

[[label]]
objects = ["*/share"]
sends = "external"
store = "memory"

[[label]]
objects = ["*/copy"]
store = "memory"

[[label]]
objects = ["*/copy"]
effect = "write"
store = "archive"

[[label]]
objects = ["*/dig"]
store = "archive"
"#;

const TOOLS: [&str; 9] = ["read_customer", "fetch", "send", "save", "import", "load", "share", "copy", "dig"];

/// Tools that what is said of `load` besides may make worse.
async fn upstream(of_load: Value) -> Scripted {
    let mut tools: Vec<Value> = TOOLS.iter().map(|name| tool(name)).collect();
    tools[5]["annotations"] = of_load;
    Scripted::start(json!(tools), |call| result(call, text("done"))).await
}

fn setup(issuer: &Issuer, upstream: &Scripted, labels: &str) -> Setup {
    let rules = "p, anyone, *, */*, call, -, allow\np, agent:assistant, *, */*, call, -, allow\n";
    Setup::new(issuer).http_server("tools", &upstream.url, "").policy(rules).policy_file("labels.toml", labels)
}

async fn start(labels: &str, of_load: Value) -> (Issuer, Scripted, Gateway) {
    let (issuer, upstream) = (Issuer::start().await, upstream(of_load).await);
    let gateway = setup(&issuer, &upstream, labels).start().await;
    (issuer, upstream, gateway)
}

fn reached(upstream: &Scripted, name: &str) -> usize {
    upstream.calls().iter().filter(|call| call.message["params"]["name"] == name).count()
}

#[tokio::test]
async fn a_tool_that_reads_a_store_and_sends_at_once_is_judged_by_what_is_there() {
    let (issuer, upstream, gateway) = start(LABELS, json!({})).await;
    let (alice, bob) = (client(&issuer, &gateway, "alice"), client(&issuer, &gateway, "bob"));
    assert_eq!(call(&bob, "share", json!({})).await, None, "nothing was put there yet");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    assert_eq!(call(&bob, "share", json!({})).await.as_deref(), Some("flow_refused"));
    assert_eq!(reached(&upstream, "share"), 1);
}

#[tokio::test]
async fn what_is_put_into_a_store_between_the_decision_and_the_call_keeps_it_back() {
    let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::HasNot).await);
    let (plain, slow) =
        (upstream(json!({})).await, Scripted::start(json!([tool("share")]), |call| result(call, text("done"))).await);
    let credential = format!(
        "[servers.slow.tool_credentials.share]\nkind = \"exchange\"\nissuer = \"{}\"\nclient_id = \"gateway\"\n\
         audience = \"up\"\n",
        sts.url
    );
    let gateway = setup(&issuer, &plain, LABELS).http_server("slow", &slow.url, &credential).start().await;
    let bob = client(&issuer, &gateway, "bob");
    eventually("both lists", async || bob.tool_names().await.contains(&"slow__share".to_owned())).await;
    let before = sts.asked().len();
    sts.hold(true);
    let sharing = tokio::spawn({
        let bob = bob.clone();
        async move { bob.call_tool("slow__share", json!({})).await }
    });
    eventually("its credential is asked for", async || sts.asked().len() > before).await;
    let alice = client(&issuer, &gateway, "alice");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    sts.hold(false);
    let answer = sharing.await.unwrap();
    assert!(answer.tool_text().starts_with("flow_refused: "), "{}", answer.text);
    assert!(slow.calls().is_empty());
}

#[tokio::test]
async fn what_the_files_say_of_a_tool_at_the_last_moment_keeps_its_call_back() {
    let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::HasNot).await);
    let (plain, slow) =
        (upstream(json!({})).await, Scripted::start(json!([tool("post")]), |call| result(call, text("done"))).await);
    let credential = format!(
        "[servers.slow.tool_credentials.post]\nkind = \"exchange\"\nissuer = \"{}\"\nclient_id = \"gateway\"\n\
         audience = \"up\"\n",
        sts.url
    );
    let says = |sends: &str| format!("{LABELS}\n[[label]]\nobjects = [\"slow/post\"]\nsends = \"{sends}\"\n");
    let setup = setup(&issuer, &plain, &says("nowhere")).http_server("slow", &slow.url, &credential);
    let gateway = setup.start().await;
    let alice = client(&issuer, &gateway, "alice");
    eventually("both lists", async || alice.tool_names().await.contains(&"slow__post".to_owned())).await;
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    let before = sts.asked().len();
    sts.hold(true);
    let posting = tokio::spawn({
        let alice = alice.clone();
        async move { alice.call_tool("slow__post", json!({})).await }
    });
    eventually("its credential is asked for", async || sts.asked().len() > before).await;
    std::fs::write(gateway.directory().join("policies/labels.toml"), says("external")).unwrap();
    let reloaded = gateway.command(&["reload", "--allow-widening", "--config", "servers.toml"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stdout));
    sts.hold(false);
    let answer = posting.await.unwrap();
    assert!(answer.tool_text().starts_with("flow_refused: "), "{}", answer.text);
    assert!(slow.calls().is_empty());
}

#[tokio::test]
async fn nothing_that_is_said_beside_it_makes_a_reader_of_a_store_anything_less() {
    let also = format!("{LABELS}\n[[label]]\nobjects = [\"tools/*\"]\neffect = \"destructive\"\n");
    for (labels, of_load) in [(LABELS, json!({ "destructiveHint": true })), (&*also, json!({}))] {
        let (issuer, _upstream, gateway) = start(labels, of_load.clone()).await;
        let (alice, bob) = (client(&issuer, &gateway, "alice"), client(&issuer, &gateway, "bob"));
        for name in ["read_customer", "fetch", "save"] {
            assert_eq!(call(&alice, name, json!({})).await, None);
        }
        assert_eq!(call(&bob, "load", json!({})).await, None);
        assert_eq!(call(&bob, "send", json!({})).await.as_deref(), Some("flow_refused"), "{of_load}");
    }
}

#[tokio::test]
async fn a_store_gets_what_its_writer_brings_along_and_what_is_copied_from_another() {
    let (issuer, _upstream, gateway) = start(LABELS, json!({})).await;
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|user| client(&issuer, &gateway, user));
    assert_eq!(call(&alice, "import", json!({})).await, None, "she has seen nothing herself");
    assert_eq!(call(&carol, "copy", json!({})).await, None);
    for (reader, name) in [(&bob, "load"), (&dave, "dig")] {
        assert_eq!(call(reader, "read_customer", json!({})).await, None);
        assert_eq!(call(reader, "send", json!({})).await, None, "one of them alone may be sent on");
        assert_eq!(call(reader, name, json!({})).await, None);
        assert_eq!(call(reader, "send", json!({})).await.as_deref(), Some("flow_refused"), "{name}");
    }
}
