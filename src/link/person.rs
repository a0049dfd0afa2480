//! First it is found out who sits in front of the browser, by the issuer of the caller that the link was made for.
//!
//! Decides whether that is its owner. Invariant: nobody comes further whose issuer and subject are not the caller's.

use std::sync::Arc;

use http::StatusCode;
use maud::html;

use super::Visit;
use super::pages::Page;
use super::stage::{self, Stage, Way};
use super::ticket::{Ticket, base};
use crate::gateway::Gateway;
use crate::oauth::browser::{equal, query, random};
use crate::oauth::person::{Provider, Returned};
use crate::oauth::shown;

const TOO_OLD: &str = "This link is too old, or it is none of ours.";

/// The first page: says nothing of whose link it is, and leaves going on to whoever reads it.
pub(super) fn welcome(gateway: &Arc<Gateway>, sealed: &str) -> Result<Page, Page> {
    let (ticket, _) = Ticket::read(gateway, sealed).ok_or_else(|| Page::problem(StatusCode::GONE, TOO_OLD))?;
    let issuer = ticket.owner.issuer.as_str();
    if gateway.sign_in(&ticket.owner.issuer).is_none() {
        return Err(cannot_sign_in(issuer));
    }
    let body = html! {
        p { "An assistant that works for you wants to use an account of yours at another service." }
        p { "First sign in here, so that nobody's account is linked for somebody else. On the next page you see which "
            "service it is, and you decide." }
        p { a.button href=(format!("{}{sealed}/sign-in", base(gateway))) { "Sign in with " (issuer) } }
        p { "If you did not ask for this, close the page." }
    };
    Ok(Page::new(StatusCode::OK, "Link an account", body))
}

/// To the issuer.
pub(super) async fn go(gateway: &Arc<Gateway>, sealed: &str) -> Result<Page, Page> {
    let read = Ticket::read(gateway, sealed);
    let (ticket, rests_on) = read.ok_or_else(|| Page::problem(StatusCode::GONE, TOO_OLD))?;
    let issuer = &ticket.owner.issuer;
    let sign_in = gateway.sign_in(issuer).ok_or_else(|| cannot_sign_in(issuer.as_str()))?;
    let begun = provider(gateway, &ticket).begin(&sign_in, false).await;
    let begun = begun.map_err(|problem| Page::problem(StatusCode::BAD_GATEWAY, &problem))?;
    let way = Way::SigningIn { state: begun.state, nonce: begun.nonce, verifier: begun.verifier };
    let cookie = Stage { ticket, way, rests_on }.cookie(gateway);
    Ok(Page::on_to(begun.page).keeping(cookie))
}

/// Somebody comes back from the issuer.
pub(super) async fn come_back(gateway: &Arc<Gateway>, visit: &Visit<'_>) -> Result<Page, Page> {
    let wrong = |problem: &str| Page::problem(StatusCode::BAD_REQUEST, problem).keeping(stage::forget(gateway));
    let Some(Stage { ticket, way: Way::SigningIn { state, nonce, verifier }, rests_on }) =
        Stage::of(gateway, visit.headers)
    else {
        return Err(wrong("This was begun in another browser, or too long ago."));
    };
    if !equal(&query(visit.query, "state").unwrap_or_default(), &state) {
        return Err(wrong("This is the answer to another login than the one that this browser began last."));
    }
    stage::take(gateway, &ticket, visit, &state).await?;
    if let Some(code) = query(visit.query, "error") {
        return Err(wrong(&format!("The issuer refuses: {}", shown(&code))));
    }
    let code = query(visit.query, "code").ok_or_else(|| wrong("The issuer's answer has no code."))?;
    let issuer = query(visit.query, "iss");
    let returned = Returned { code: &code, issuer: issuer.as_deref(), nonce: &nonce, verifier: &verifier };
    let sign_in = gateway.sign_in(&ticket.owner.issuer);
    let sign_in = sign_in.ok_or_else(|| cannot_sign_in(ticket.owner.issuer.as_str()))?;
    let person = provider(gateway, &ticket).finish(&sign_in, returned).await;
    let person = person.map_err(|problem| Page::problem(StatusCode::BAD_GATEWAY, &problem))?;
    if person.subject != ticket.owner.subject {
        gateway.link_opened_by_another(&ticket.owner, &ticket.server, &person.subject).await;
        let body = html! {
            p.problem role="alert" { "This link was made for somebody else. Nothing was stored." }
            p { "Whoever sent it to you could otherwise have used your account. They are told that you opened it, and it "
                "is on the record. If you meant to link an account of your own, make the call yourself." }
        };
        let page = Page::new(StatusCode::FORBIDDEN, "This link is not yours", body);
        return Err(page.keeping(stage::forget(gateway)));
    }
    Stage::may_go_on(gateway, &ticket, &rests_on)?;
    let cookie = Stage { ticket, way: Way::Known { check: random() }, rests_on }.cookie(gateway);
    Ok(Page::on_to(format!("{}account", base(gateway))).keeping(cookie))
}

fn provider(gateway: &Gateway, ticket: &Ticket) -> Arc<Provider> {
    gateway.linking().providers.get_with(ticket.owner.issuer.clone(), Arc::default)
}

fn cannot_sign_in(issuer: &str) -> Page {
    let problem = format!(
        "Nobody can sign in with {issuer} here: an administrator has to write `link_client_id` below [issuers.{issuer}]."
    );
    Page::problem(StatusCode::CONFLICT, &problem)
}
