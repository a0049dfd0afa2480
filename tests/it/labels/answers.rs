//! What goes out beside the arguments of a call: answers to what a server asks, and names of what is subscribed to.

use serde_json::json;

use super::{LABELS, call as plain};
use crate::input::{all_capabilities, call, may_ask, reason, retry};
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::talkative::Talkative;

#[tokio::test]
async fn a_destination_stays_open_only_as_far_as_the_arguments_tell() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("send"), tool("read_customer"), tool("fetch")]), |request| {
        let params = &request["params"];
        if params["name"] != "send" || params.get("inputResponses").is_some() {
            return result(request, text("done"));
        }
        let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Copies to?",
            "requestedSchema": { "type": "object", "properties": {} } } });
        result(request, json!({ "resultType": "input_required", "inputRequests": { "cc": question } }))
    })
    .await;
    let labels = LABELS
        .split("\n\n")
        .filter(|entry| ["tools/send", "tools/read_customer", "tools/fetch"].iter().any(|name| entry.contains(name)))
        .collect::<Vec<_>>()
        .join("\n\n");
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&may_ask(&["elicit"]))
        .policy_file("labels.toml", &format!("{labels}\n[[flow]]\nfrom = [\"private\"]\nunless = \"to-us\"\n"))
        .policy_file("conditions.toml", "[to-us]\nargument = \"to\"\nends_with = \"@example.com\"\n")
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let (arguments, capabilities) = (json!({ "to": "bob@example.com" }), all_capabilities());
    let send = || call(&client, &capabilities, json!({ "name": "tools__send", "arguments": arguments }));
    let answers = || json!({ "cc": { "action": "accept", "content": { "cc": "eve@example.org" } } });
    let asked = send().await;
    let done = call(&client, &capabilities, retry("tools__send", &arguments, &asked, answers())).await;
    assert_eq!(done.tool_text(), "done", "nothing was seen yet: {}", done.text);
    assert_eq!(plain(&client, "read_customer", json!({})).await, None);
    let asked = send().await;
    let refused = call(&client, &capabilities, retry("tools__send", &arguments, &asked, answers())).await;
    assert_eq!(reason(&refused), "flow_refused", "{}", refused.text);
    let answered =
        upstream.calls().iter().filter(|call| call.message["params"].get("inputResponses").is_some()).count();
    assert_eq!(answered, 1);
}

#[tokio::test]
async fn to_subscribe_is_to_send_the_name_of_what_is_subscribed_to() {
    crate::needs_python!();
    let labels = r#"
unlabelled = "harmless"
[[label]]
objects = ["up/**"]
actions = ["subscribe"]
sends = "external"
[[label]]
objects = ["up/seen"]
actions = ["call"]
reads = "private"
content = "untrusted"
"#;
    let test = Talkative::of(("modern", "http"), &[], "", |setup| setup.policy_file("labels.toml", labels)).await;
    let listen = async || {
        let mut stream = test.listen(&test.token, json!({ "resourceSubscriptions": ["test://a"] })).await;
        stream.next().await["params"]["notifications"].clone()
    };
    assert_eq!(listen().await, json!({ "resourceSubscriptions": ["test://a"] }), "nothing was seen yet");
    test.tool("seen", json!({})).await;
    assert_eq!(listen().await.get("resourceSubscriptions"), None);
    let refused = async || {
        let refused = test.gateway.records("refusal");
        refused.iter().any(|line| line["decision"]["reason"] == "flow_refused")
    };
    crate::support::eventually("the refusal on the record", refused).await;
}

#[tokio::test]
async fn what_was_read_from_a_resource_and_a_prompt_does_not_leave_by_a_tool() {
    let (url, asked) = crate::approvals::reading::library().await;
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("send")]), |request| result(request, text("done"))).await;
    let labels = "[[label]]\nobjects = [\"lib/crm://**\"]\nactions = [\"read\"]\nreads = \"private\"\n\
                  [[label]]\nobjects = [\"lib/letter\"]\nactions = [\"get\"]\ncontent = \"untrusted\"\n\
                  [[label]]\nobjects = [\"tools/send\"]\nsends = \"external\"\neffect = \"write\"\n";
    let gateway = Setup::new(&issuer)
        .http_server("lib", &url, "pins = \"off\"")
        .http_server("tools", &upstream.url, "")
        .policy_file("labels.toml", labels)
        .start()
        .await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let (client, library) = (gateway.client(&token), gateway.server_client("lib", &token));
    assert_eq!(plain(&client, "send", json!({})).await, None, "nothing was seen yet");
    let read = library.modern("resources/read", json!({ "uri": "crm://customer/7" })).await;
    assert_eq!(read.result()["contents"][0]["text"], "read", "{}", read.text);
    assert_eq!(plain(&client, "send", json!({})).await, None, "one of them alone may be sent on");
    let got = library.modern("prompts/get", json!({ "name": "letter" })).await;
    assert_eq!(got.result()["messages"], json!([]), "{}", got.text);
    assert_eq!(plain(&client, "send", json!({})).await.as_deref(), Some("flow_refused"));
    assert_eq!((asked.lock().unwrap().len(), upstream.calls().len()), (2, 2));
}
