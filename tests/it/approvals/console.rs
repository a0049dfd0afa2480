//! The console's pages: a second person sees exactly what is going to happen, and says yes or no.

use super::*;
use crate::console::Browser;
use crate::support::door::Person;

async fn signed_in(running: &Running, user: &str, groups: &[&str], start: &str) -> Browser {
    running.issuer.seat(vec![Person::new(user, groups)]);
    let mut browser = Browser::of(&running.gateway);
    let back = browser.come_back(start).await;
    assert_eq!(browser.get(&back).await.status, 303);
    browser
}

#[tokio::test]
async fn a_second_person_approves_in_the_console_after_a_login_of_a_moment_ago() {
    let running = start(GATES).await;
    let arguments = json!({ "to": "main\u{202e}", "script": "<script>alert(1)</script>" });
    let id = running.asks("alice", arguments.clone()).await;
    let page = format!("/admin/approvals/{id}");
    let mut bob = signed_in(&running, "bob", &["approvers"], "/admin/login/start").await;
    let list = bob.get("/admin/approvals").await;
    assert!(list.text.contains(&id) && list.text.contains("user:test/alice"), "{}", list.text);
    let stale = bob.get(&page).await;
    assert!(stale.text.contains("Log in again") && !stale.text.contains("Approve this call"), "{}", stale.text);
    assert!(stale.text.contains("U+202E") && !stale.text.contains('\u{202e}'), "{}", stale.text);
    assert!(stale.text.contains("&lt;script&gt;") && !stale.text.contains("<script>alert"), "{}", stale.text);
    let view = running.view(&id, &running.bob()).await;
    let shown = view["shown"].as_str().unwrap().to_owned();
    let csrf = stale.csrf();
    let early = bob.post(&format!("{page}/approve"), &[("csrf", &csrf), ("shown", &shown)]).await;
    assert_eq!(early.status, 401, "{}", early.text);
    let mut bob =
        signed_in(&running, "bob", &["approvers"], &format!("/admin/login/start?fresh=1&to=/approvals/{id}")).await;
    let fresh = bob.get(&page).await;
    assert!(fresh.text.contains("Approve this call"), "{}", fresh.text);
    let csrf = fresh.csrf();
    let forged = bob.post(&format!("{page}/approve"), &[("csrf", "x"), ("shown", &shown)]).await;
    assert_eq!(forged.status, 403);
    let other = "0".repeat(64);
    let changed = bob.post(&format!("{page}/approve"), &[("csrf", &csrf), ("shown", &other)]).await;
    assert_eq!(changed.status, 409, "what was shown is what is approved: {}", changed.text);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "pending");
    let approved = bob.post(&format!("{page}/approve"), &[("csrf", &csrf), ("shown", &shown)]).await;
    assert_eq!(approved.status, 303, "{}", approved.text);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "approved");
    let answer = running.call("alice", arguments).await;
    assert!(answer.tool_text().contains("script") && running.calls() == 1, "{}", answer.text);
    assert!(bob.get("/admin/approvals?state=all").await.text.contains("consumed"));
}

#[tokio::test]
async fn whoever_called_sees_how_their_own_call_stands_and_decides_nothing() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let fresh = "/admin/login/start?fresh=1";
    let mut alice = signed_in(&running, "alice", &["developers"], fresh).await;
    let own = alice.get(&format!("/admin/approvals/{id}")).await;
    assert!(
        own.status == 200 && own.text.contains("pending") && !own.text.contains("Approve this call"),
        "{}",
        own.text
    );
    assert_eq!(alice.get("/admin/approvals").await.status, 403);
    let mut dora = signed_in(&running, "dora", &["developers"], fresh).await;
    let theirs = dora.get(&format!("/admin/approvals/{id}")).await;
    assert!(theirs.status == 404 && !theirs.text.contains("alice"), "{}", theirs.text);
    // Alice as an approver is still alice.
    let mut alice = signed_in(&running, "alice", &["approvers"], fresh).await;
    let page = alice.get(&format!("/admin/approvals/{id}")).await;
    let shown = running.view(&id, &running.bob()).await["shown"].as_str().unwrap().to_owned();
    let path = format!("/admin/approvals/{id}/approve");
    let refused = alice.post(&path, &[("csrf", &page.csrf()), ("shown", &shown)]).await;
    assert!(refused.status == 403 && refused.text.contains("approver_refused"), "{}", refused.text);
    let denied =
        alice.post(&format!("/admin/approvals/{id}/deny"), &[("csrf", &page.csrf()), ("note", "never mind")]).await;
    assert_eq!(denied.status, 303, "they may take it back: {}", denied.text);
    assert!(running.call("alice", json!({ "n": 1 })).await.tool_text().contains("never mind"));
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn two_persons_approve_calls_beforehand_in_the_console_and_one_takes_it_back() {
    let running = super::standing::begin(GATES, "").await;
    let like = running.asks("alice", json!({ "to": "staging", "n": 0 })).await;
    let fresh = |page: &str| format!("/admin/login/start?fresh=1&to={page}");
    let mut bob = signed_in(&running, "bob", &["approvers"], &fresh(&format!("/approvals/{like}"))).await;
    let page = bob.get(&format!("/admin/approvals/{like}")).await;
    assert!(page.text.contains("Approve calls like it beforehand"), "{}", page.text);
    let csrf = page.csrf();
    let wish = |condition: &'static str| {
        [("csrf", csrf.as_str()), ("like", &like), ("condition", condition), ("uses", "2"), ("days", "1")]
    };
    let open = bob.post("/admin/standing", &wish("open")).await;
    assert!(open.status == 400 && open.text.contains("leaves other arguments open"), "{}", open.text);
    let proposed = bob.post("/admin/standing", &wish("small")).await;
    assert_eq!(proposed.status, 303, "{}", proposed.text);
    let all = running.at("/standing", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let id = all.response()[0]["id"].as_str().unwrap().to_owned();
    let own = bob.get(&format!("/admin/standing/{id}")).await;
    assert!(own.text.contains("Approve these calls") && own.text.contains("`to` is `staging`"), "{}", own.text);
    let shown = all.response()[0]["shown"].as_str().unwrap().to_owned();
    let yes = [("csrf", csrf.as_str()), ("shown", shown.as_str())];
    let twice = bob.post(&format!("/admin/standing/{id}/approve"), &yes).await;
    assert!(twice.status == 403 && twice.text.contains("approver_refused"), "{}", twice.text);
    let mut carol = signed_in(&running, "carol", &["approvers"], &fresh(&format!("/standing/{id}"))).await;
    let page = carol.get(&format!("/admin/standing/{id}")).await;
    let csrf = page.csrf();
    let yes = [("csrf", csrf.as_str()), ("shown", shown.as_str())];
    let given = carol.post(&format!("/admin/standing/{id}/approve"), &yes).await;
    assert_eq!(given.status, 303, "{}", given.text);
    running.passes("alice", json!({ "to": "staging", "n": 1 })).await;
    let list = carol.get("/admin/standing").await;
    assert!(list.text.contains("active") && list.text.contains("1 of 2"), "{}", list.text);
    let back = carol.post(&format!("/admin/standing/{id}/revoke"), &[("csrf", &csrf), ("note", "done")]).await;
    assert_eq!(back.status, 303, "{}", back.text);
    running.asks("alice", json!({ "to": "staging", "n": 2 })).await;
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn an_emergency_is_asked_for_agreed_to_ended_and_reviewed_in_the_console() {
    let running = super::break_glass::begin("1h").await;
    let fresh = "/admin/login/start?fresh=1&to=/break-glass";
    let mut olga = signed_in(&running, "olga", &["oncall"], fresh).await;
    let page = olga.get("/admin/break-glass").await;
    assert!(page.text.contains("Ask for emergency access"), "{}", page.text);
    let csrf = page.csrf();
    let forged = olga.post("/admin/break-glass", &[("csrf", "x"), ("name", "outage"), ("reason", "it burns")]).await;
    assert_eq!(forged.status, 403);
    let words = [("csrf", csrf.as_str()), ("name", "outage"), ("reason", "it burns <b>")];
    assert_eq!(olga.post("/admin/break-glass", &words).await.status, 303);
    let mut bob = signed_in(&running, "bob", &["approvers"], fresh).await;
    let page = bob.get("/admin/break-glass").await;
    assert!(page.text.contains("it burns &lt;b&gt;") && page.text.contains("Agree to it"), "{}", page.text);
    let all = running.at("/break-glass", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let (id, shown) = (&all.response()[0]["id"], all.response()[0]["shown"].as_str().unwrap());
    let path = |what: &str| format!("/admin/break-glass/{}/{what}", id.as_str().unwrap());
    let csrf = page.csrf();
    assert_eq!(bob.post(&path("approve"), &[("csrf", &csrf), ("shown", shown)]).await.status, 303);
    assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
    let words = [("csrf", csrf.as_str()), ("note", "put out")];
    assert_eq!(bob.post(&path("end"), &words).await.status, 303);
    assert_eq!(bob.post(&path("review"), &words).await.status, 303);
    let page = bob.get("/admin/break-glass").await;
    assert!(page.text.contains("reviewed") && page.text.contains("put out"), "{}", page.text);
    assert_eq!(running.calls(), 1);
}
