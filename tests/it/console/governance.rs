//! The pages of mandates and reviews: what they show, that they end something with a click, and that giving asks for
//! another login.

use serde_json::json;

use super::{Browser, Running, setup, start};
use crate::support::client::Client;
use crate::support::gateway::DEVELOPERS_MAY;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works at night\"
kind = \"autonomous\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
";

const TEMPLATES: &str = "\
[templates.nightly]
title = \"echoes at night\"
tools = [\"tools/echo\"]
environments = [\"development\"]
agents = [\"bot\"]
wall_time = \"10m\"
budget = { calls = 7 }
";

const BOT_MAY: &str = "\
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, tools/*, call, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
";

async fn called(bot: &Client, handle: &str) -> String {
    let params = json!({ "name": "tools__echo", "arguments": {}, "_meta": { "dev.bailiwick/mandate": handle } });
    bot.modern("tools/call", params).await.tool_text().to_owned()
}

#[tokio::test]
async fn a_task_is_seen_with_what_is_left_of_it_and_ended_with_a_click() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream)
        .policy(&format!("{DEVELOPERS_MAY}{}{BOT_MAY}", super::RULES))
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .start()
        .await;
    let running = Running { issuer, gateway, upstream };
    let mut ann = running.signed_in("ann", &["admins"]).await;
    assert!(ann.get("/admin/mandates").await.text.contains("No agent has a task"));
    let mut claims = running.issuer.claims("bot", &[], &running.gateway.resource());
    claims["client_id"] = json!("bot");
    let bot = running.gateway.client(&running.issuer.sign(&claims));
    let wish = json!({ "template": "nightly", "purpose": "backups <b>of</b> everything" });
    let opened = bot.call_tool("bailiwick__mandate_open", wish).await;
    let of = |name: &str| opened.result()["structuredContent"][name].as_str().unwrap().to_owned();
    let (id, handle) = (of("id"), of("handle"));
    assert_eq!(called(&bot, &handle).await, "{}");

    let page = ann.get("/admin/mandates").await;
    for shown in [&*id, "nightly", "backups &lt;b&gt;of", "user:test/bot", "End it"] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    let one = ann.get(&format!("/admin/mandates/{id}")).await;
    assert!(one.text.contains("Calls left</dt><dd>6<") && one.text.contains("backups &lt;b&gt;of"), "{}", one.text);
    assert_eq!(ann.get("/admin/mandates/01M8F7J6XXY43ZKDJFA2FDY0FT").await.status, 404);
    let end = format!("/admin/mandates/{id}/complete");
    assert_eq!(ann.post(&end, &[("csrf", "forged")]).await.status, 403);
    assert_eq!(called(&bot, &handle).await, "{}", "nothing has ended");
    let done = ann.post(&end, &[("csrf", &page.csrf())]).await;
    assert_eq!((done.status, done.header("location")), (303, "/admin/mandates?done=ended"), "{}", done.text);
    assert!(called(&bot, &handle).await.starts_with("mandate_ended"));
    let over = ann.get("/admin/mandates").await;
    assert!(over.text.contains("completed") && !over.text.contains("End it"), "{}", over.text);

    let mut otto = running.signed_in("otto", &["operators"]).await;
    let refused = otto.get("/admin/mandates").await;
    assert!(refused.status == 403 && refused.text.contains("bailiwick/mandates"), "{}", refused.text);
    assert!(!otto.get("/admin/servers").await.text.contains("/admin/mandates"));
}

/// The field of the row that lets this subject call.
fn field(page: &super::Page, subject: &str) -> String {
    let row = page.text.split("<tr>").find(|row| row.contains(subject) && row.contains(">call<"));
    let row = row.unwrap_or_else(|| panic!("no row of {subject}: {}", page.text));
    let name = row.split("name=\"").nth(1).unwrap_or_else(|| panic!("nothing to choose: {row}"));
    name.split('"').next().unwrap().to_owned()
}

async fn answered(browser: &mut Browser, place: &str, csrf: &str, answer: &str, grant: &str) -> super::Page {
    let fields = [("csrf", csrf), ("answer", answer), (grant, "on")];
    browser.post(&format!("{place}/answer"), &fields).await
}

#[tokio::test]
async fn a_review_is_opened_answered_and_closed_on_its_page() {
    let running = start().await;
    let token = running.issuer.token("dora", &["developers"], &running.gateway.resource());
    let dora = running.gateway.client(&token);
    let may = async || dora.call_tool("tools__echo", json!({})).await.text.contains("isError\":false");
    assert_eq!(dora.call_tool("tools__echo", json!({})).await.status, 200);
    let allowed = may().await;

    let mut ann = running.signed_in("ann", &["admins"]).await;
    let none = ann.get("/admin/reviews").await;
    assert!(none.text.contains("Nobody has asked yet"), "{}", none.text);
    let csrf = none.csrf();
    let wrong = ann.post("/admin/reviews", &[("csrf", &csrf), ("since", "x"), ("deadline", "14")]).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    let opened = ann.post("/admin/reviews", &[("csrf", &csrf), ("since", "90"), ("deadline", "14")]).await;
    assert_eq!(opened.status, 303, "{}", opened.text);
    let place = opened.header("location").split('?').next().unwrap().to_owned();
    let page = ann.get(&place).await;
    assert!(page.text.contains("nobody has answered for") && page.text.contains("Log in again"), "{}", page.text);
    let grant = field(&page, "role:developer");

    // To say that something is needed is to give it anew: the desk wants another login.
    let refused = answered(&mut ann, &place, &csrf, "attest", &grant).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert!(refused.text.contains("insufficient_user_authentication"), "{}", refused.text);
    assert_eq!(answered(&mut ann, &place, &csrf, "attest", "nothing").await.status, 400);
    assert_eq!(answered(&mut ann, &place, "forged", "end", &grant).await.status, 403);
    let to = place.trim_start_matches("/admin").replace('/', "%2F");
    let again = ann.come_back(&format!("/admin/login/start?fresh=1&to={to}")).await;
    ann.get(&again).await;
    let fresh = ann.get(&place).await;
    assert!(fresh.text.contains("Still needed"), "{}", fresh.text);
    let done = answered(&mut ann, &place, &fresh.csrf(), "attest", &grant).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert_eq!(may().await, allowed, "what is needed stays");

    // What nobody answers for ends with the review: the assistant's own grant, and with it what dora does through it.
    let open = ann.get(&place).await;
    let done = ann.post(&format!("{place}/close"), &[("csrf", &open.csrf())]).await;
    assert_eq!((done.status, done.header("location")), (303, &*format!("{place}?done=closed")), "{}", done.text);
    let closed = ann.get(&place).await;
    assert!(closed.text.contains(">needed<") && closed.text.contains(">ended<"), "{}", closed.text);
    assert!(!closed.text.contains("type=\"checkbox\""), "{}", closed.text);
    assert!(ann.get("/admin/reviews").await.text.contains("closed"));
    let after = dora.call_tool("tools__echo", json!({})).await;
    assert!(after.text.contains("-32602") || after.text.contains("isError\":true"), "{}", after.text);

    let mut otto = running.signed_in("otto", &["operators"]).await;
    assert_eq!(otto.get(&place).await.status, 403);
}

#[tokio::test]
async fn whoever_answers_for_an_agent_sees_that_the_breaker_has_stopped_it_and_for_whom() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream)
        .policy(&format!("{DEVELOPERS_MAY}{}", super::RULES))
        .policy_file("agents.toml", AGENTS)
        .start()
        .await;
    let running = Running { issuer, gateway, upstream };
    let bob = running.gateway.client(&running.issuer.token("bob", &["developers"], &running.gateway.resource()));
    for _ in 0..20 {
        let _refused = bob.call_tool("tools__nothing", json!({})).await;
    }
    crate::support::eventually("the assistant to be stopped", async || {
        !running.gateway.records("lifecycle").is_empty()
    })
    .await;
    let mut owner = running.signed_in("owner", &[]).await;
    let page = owner.get("/admin/access").await.text;
    for told in ["Agents of yours that were stopped", "user:test/bob", "breaker", "20 calls were refused"] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let mut other = running.signed_in("carol", &[]).await;
    assert!(!other.get("/admin/access").await.text.contains("were stopped"), "nobody else's business");
}
