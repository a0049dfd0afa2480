//! A call that one person alone does not make: it waits, a second person approves it in the console, and it goes through.
//!
//! Decides nothing: the gate of the files does, and whoever clicks. Invariant: whoever approves signs in at the console
//! over HTTP and sends the form that stands on the page.

use super::{Answer, Show, aside, because, does, row};
use crate::cli::demo::browser::{Browser, Page};
use crate::cli::demo::tail::says;
use crate::cli::output::{BAD, GOOD};

/// What is rolled back: what the show has rolled out before.
const CALL: (&str, &str) = ("deploy__rollback", r#"{"service":"search"}"#);
const GATE: &str = "gates.toml wants a second person; the upstream has not heard of the call yet";

/// Shows it.
pub(super) async fn act(show: &mut Show<'_>) -> Result<(), String> {
    show.heading("a second person: rolling search back in production");
    let alice = show.stage.assistant("alice")?;
    let answer = show.call("alice", &alice, CALL, None).await?;
    let waits = answer.reason() == Some("approval_required");
    let id = answer.fact("approval_id").map(str::to_owned).filter(|_| waits);
    because(id.is_some(), GATE);
    let Some(id) = id else {
        show.call_line(CALL.0).await;
        return Ok(());
    };
    show.proof(|record| says(record, "/approval/event", "requested")).await;
    let Some(console) = show.stage.console() else {
        aside("Approving needs [admin] and [admin.console] with the issuer `demo` in servers.toml.");
        return Ok(());
    };
    let path = format!("/approvals/{id}");
    does("console", &format!("{console}{path}"));
    // Whoever asked tries first.
    let mut own = Browser::new(&console)?;
    let page = own.sign_in("alice", &path).await?;
    does("alice", "signs in there as well and sends the form that approves, herself");
    let refused = approve(&mut own, &page, &path).await?;
    let told = refused.problem();
    row("answer", if told.is_some() { BAD } else { GOOD }, &answered(&refused));
    let is = |reason: &str| told.as_deref().is_some_and(|told| told.ends_with(reason));
    let why =
        if is("not_allowed") { "no rule lets her approve anything" } else { "nobody approves what they asked for" };
    because(is("not_allowed") || is("approver_refused"), why);
    show.proof(|record| is_refused(record) || says(record, "/approval/event", "approved")).await;

    let mut other = Browser::new(&console)?;
    let page = other.sign_in("carol", &path).await?;
    does("carol", "signs in, reads the same page, and presses \"Approve this call\"");
    let approved = approve(&mut other, &page, &path).await?;
    let done = approved.problem().is_none() && approved.says("State").as_deref() == Some("approved");
    row("answer", if done { GOOD } else { BAD }, &answered(&approved));
    if !because(done, "she is a release manager, and clicked on her name at the issuer a moment ago") {
        show.proof(is_refused).await;
        return Ok(());
    }
    show.proof(|record| says(record, "/approval/event", "approved")).await;

    let answer = show.call("alice", &alice, CALL, None).await?;
    because(went_through(&answer), "it is the identical call; what was approved is good for it, and once");
    if went_through(&answer) {
        show.proof(|record| says(record, "/approval/event", "consumed")).await;
    }
    show.call_line(CALL.0).await;
    Ok(())
}

fn went_through(answer: &Answer) -> bool {
    answer.refusal.is_none()
}

/// Sends the form of that page; somebody who is offered none sends one all the same.
async fn approve(browser: &mut Browser, page: &Page, path: &str) -> Result<Page, String> {
    let csrf = page.field("csrf").unwrap_or_default();
    let shown = page.field("shown").or_else(|| page.digest()).unwrap_or_default();
    browser.send(&format!("{path}/approve"), &[("csrf", &csrf), ("shown", &shown)]).await
}

/// What the page says.
fn answered(page: &Page) -> String {
    if let Some(problem) = page.problem() {
        return format!("{} {problem}", page.status.as_u16());
    }
    let says = |heading| page.says(heading).unwrap_or_default();
    format!("{} {}: {}, by {}", page.status.as_u16(), says("Call"), says("State"), says("Approved by"))
}

fn is_refused(record: &serde_json::Value) -> bool {
    says(record, "/admin/outcome", "refused") || says(record, "/approval/event", "refused")
}
