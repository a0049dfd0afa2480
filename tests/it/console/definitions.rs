//! The page of definitions: what waits, what changes, and that accepting asks for another login than looking.

use serde_json::{Value, json};

use super::{Running, setup, start};
use crate::pins::upstream::{Changing, tool, tools};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;
use crate::support::{eventually, eventually_within};

impl Running {
    /// What a call of the tool is answered with.
    async fn answer(&self) -> String {
        let token = self.issuer.token("dora", &["developers"], &self.gateway.resource());
        self.gateway.client(&token).call_tool("tools__echo", json!({})).await.text
    }
}

#[tokio::test]
async fn a_definition_is_rejected_with_a_click_and_accepted_with_another_login() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    eventually("the first list", async || !running.answer().await.contains("-32602")).await;
    let list = ann.get("/admin/definitions").await;
    assert!(list.text.contains("Nothing waits") && list.text.contains("first_use"), "{}", list.text);
    let pins = running.gateway.command(&["pins", "list", "--server", "tools", "--json", "--config", "servers.toml"]);
    let pins: Value = serde_json::from_slice(&pins.stdout).unwrap();
    let page = format!("/admin/definitions/{}", pins["pins"][0]["digest"].as_str().unwrap());
    assert!(list.text.contains(&page), "{}", list.text);
    let one = ann.get(&page).await;
    assert!(one.text.contains("the tool echo") && !one.text.contains("Accept it"), "{}", one.text);
    let csrf = one.csrf();
    let reject = format!("{page}/reject");
    let form = |csrf: &str, note: &str| {
        [("csrf", csrf), ("server", "tools"), ("note", note)].map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let send = |fields: &[(String, String); 3]| -> Vec<(String, String)> { fields.to_vec() };
    let post = async |browser: &mut super::Browser, path: &str, csrf: &str, note: &str| {
        let fields = send(&form(csrf, note));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        browser.post(path, &fields).await
    };
    assert_eq!(post(&mut ann, &reject, "forged", "why").await.status, 403);
    assert_eq!(post(&mut ann, &reject, &csrf, "").await.status, 400);
    assert!(!running.answer().await.contains("-32602"));
    let done = post(&mut ann, &reject, &csrf, "asks for keys").await;
    assert_eq!((done.status, done.header("location")), (303, "/admin/definitions?done=rejected"));
    assert!(running.answer().await.contains("-32602"));

    let one = ann.get(&page).await;
    assert!(one.text.contains("Log in again") && one.text.contains("asks for keys"), "{}", one.text);
    let accept = format!("{page}/accept");
    // The form is not what decides: the desk does.
    let refused = post(&mut ann, &accept, &csrf, "it is fine").await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert!(refused.text.contains("insufficient_user_authentication"));
    let to = page.trim_start_matches("/admin").replace('/', "%2F");
    let again = ann.come_back(&format!("/admin/login/start?fresh=1&to={to}")).await;
    assert_eq!(ann.get(&again).await.header("location"), page);
    let fresh = ann.get(&page).await;
    assert!(fresh.text.contains("Accept it") && !fresh.text.contains("Log in again"), "{}", fresh.text);
    let done = post(&mut ann, &accept, &fresh.csrf(), "it is fine").await;
    assert_eq!((done.status, done.header("location")), (303, "/admin/definitions?done=accepted"));
    assert!(!running.answer().await.contains("-32602"));
    assert_eq!(ann.get(&format!("/admin/definitions/{}", "0".repeat(64))).await.status, 404);

    let mut otto = running.signed_in("otto", &["operators"]).await;
    let refused = otto.get("/admin/definitions").await;
    assert!(refused.status == 403 && refused.text.contains("bailiwick/pins"), "{}", refused.text);
    assert!(!otto.get("/admin/servers").await.text.contains("/admin/definitions"));
}

#[tokio::test]
async fn a_rejected_definition_is_accepted_only_where_it_is_shown() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let git = Changing::start(tools(&[tool("log", "Shows the log"), tool("odd", "Shows\u{200b}")])).await;
    let quick = "list_refresh_min = \"1ms\"";
    let gateway = setup(&issuer, &upstream).http_server("git", &git.url, quick).start().await;
    let running = Running { issuer, gateway, upstream };
    let pins = || {
        let pins = running.gateway.command(&["pins", "list", "--server", "git", "--json", "--config", "servers.toml"]);
        let pins: Value = serde_json::from_slice(&pins.stdout).unwrap();
        pins["pins"].as_array().unwrap().clone()
    };
    let listed = async |description: &str| {
        eventually_within(std::time::Duration::from_secs(30), description, async || {
            running.answer().await;
            pins().iter().any(|pin| pin["name"] == "odd" && pin["state"] == "new" && pin["listed"] == true)
        })
        .await;
        let pins = pins();
        let found = pins.iter().find(|pin| pin["name"] == "odd" && pin["state"] == "new" && pin["listed"] == true);
        found.unwrap()["digest"].as_str().unwrap().to_owned()
    };
    let rejected = listed("the first list").await;
    let order = ["pins", "reject", "git/odd", &rejected, "--config", "servers.toml"];
    assert!(running.gateway.command(&order).status.success());
    // Another one of that name waits.
    git.says(tools(&[tool("log", "Shows the log"), tool("odd", "Says something else\u{200b}")]));
    let waiting = listed("the second list").await;
    assert_ne!(waiting, rejected);
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let page = ann.get(&format!("/admin/definitions/{rejected}")).await;
    assert!(page.text.contains("Shows\\u{200b}") && !page.text.contains("Says something else"), "{}", page.text);
    assert!(page.text.contains("Accept it"), "{}", page.text);
    let page = ann.get(&format!("/admin/definitions/{waiting}")).await;
    assert!(page.text.contains("Says something else") && page.text.contains("Accept it"), "{}", page.text);
}
