//! Reviews of what the rules allow: which grants were used, who says that they are still needed, and which have ended.
//!
//! Decides nothing. Invariants: nobody attests what they are not shown, because answers name single grants; to say that
//! something is needed takes a login of a moment ago, as the desk wants it. Prints as a table.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::reviews::{AnswerOrder, Answered, ReviewOrder};
use super::super::routes::Verb;
use super::inside::Refused;
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::gateway::review::{Answer, Review, ReviewReport, ReviewedGrant};
use crate::identity::now_s;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::{AdminOperation, GrantId};

const PAGE: &str = "/reviews";
const TITLE: &str = "Reviews";
const SHOW: (Verb, &str) = (Verb::Get, "/reviews/{id}");
const OPEN: (Verb, &str) = (Verb::Post, "/reviews");
const ATTEST: (Verb, &str) = (Verb::Post, "/reviews/{id}/attest");
const END: (Verb, &str) = (Verb::Post, "/reviews/{id}/end");
const CLOSE: (Verb, &str) = (Verb::Post, "/reviews/{id}/close");
/// What a form calls a grant that is meant.
const GRANT: &str = "grant-";

/// `GET /reviews`.
pub(super) async fn page(visit: Visit) -> Response {
    listed(&visit, StatusCode::OK, None).await
}

async fn listed(visit: &Visit, status: StatusCode, told: Option<Markup>) -> Response {
    let reviews = match visit.look::<Vec<Review>>("/reviews", "").await {
        Ok(reviews) => reviews,
        Err(refused) => {
            let body = visit.refusal("bailiwick/reviews", &refused);
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let body = html! {
        @if let Some(told) = &told { (told) }
        @if reviews.is_empty() { p.quiet { "Nobody has asked yet what the rules still have to allow." } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Review" } th scope="col" { "Opened by" } th scope="col" { "Use since" }
                    th scope="col" { "Answers until" }
                } }
                tbody {
                    @for review in reviews.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr {
                            th scope="row" data-label="Review" {
                                a href=(visit.settings.path(&format!("{PAGE}/{}", review.id))) { (moment(review.opened_at)) }
                                @if review.closed.is_some() { " " (pill("quiet", "closed")) }
                            }
                            td data-label="Opened by" { (shown(&review.opened_by)) }
                            td data-label="Use since" { (moment(review.since)) }
                            td data-label="Answers until" { (moment(review.deadline)) }
                        }
                    }
                }
            }
            (beyond(reviews.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
        @if visit.may(AdminOperation::Review) {
            section aria-labelledby="open" {
                h2 #open { "Ask anew" }
                p { "Every grant of the policy in force is asked about. What nobody says is needed by the deadline allows nothing "
                    "any more." }
                form.confirm method="post" action=(visit.settings.path(PAGE)) {
                    (csrf(visit))
                    label { span { "Count use of so many days" }
                        input type="number" name="since" min="1" max="3650" value="90" required; }
                    label { span { "Answers within so many days" }
                        input type="number" name="deadline" min="1" max="90" value="14" required; }
                    p.buttons { button type="submit" { "Open a review" } }
                }
            }
        }
    };
    inside(visit, status, TITLE, PAGE, &body)
}

/// `POST /reviews`.
pub(super) async fn open(posted: Posted) -> Response {
    let visit = &posted.visit;
    let days = |name: &str| posted.field(name).parse::<u16>().ok();
    let (Some(since_days), Some(deadline_days)) = (days("since"), days("deadline")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "write how many days, as a number");
    };
    match visit.send::<Review>(OPEN, None, &ReviewOrder { since_days, deadline_days }).await {
        Ok(review) => to(visit, &review.id, "opened"),
        Err(refused) => {
            let told = visit.refusal("bailiwick/review", &refused);
            listed(visit, refused.status, Some(told)).await
        }
    }
}

/// `GET /reviews/{id}`.
pub(super) async fn one(Path(id): Path<String>, visit: Visit) -> Response {
    one_page(&visit, id, StatusCode::OK, None).await
}

async fn one_page(visit: &Visit, id: String, status: StatusCode, told: Option<Markup>) -> Response {
    let report = match visit.send::<ReviewReport>(SHOW, Some(id), &()).await {
        Ok(report) => report,
        Err(refused) => {
            let body = visit.refusal("bailiwick/reviews", &refused);
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let review = &report.review;
    let is_open = review.closed.is_none();
    let count = |answer: Answer| report.grants.iter().filter(|grant| grant.answer == answer).count();
    let body = html! {
        @if let Some(told) = &told { (told) }
        @match visit.asked("done").as_deref() {
            Some("opened") => p.notice.good role="status" { "It is open. Say of each grant whether it is still needed." },
            Some("answered") => p.notice.good role="status" { "That is on the record, and in force." },
            Some("closed") => p.notice.good role="status" { "It is closed: what nobody answered for allows nothing any more." },
            _ => {}
        }
        dl.facts {
            div { dt { "Opened" } dd { (moment(review.opened_at)) " by " (shown(&review.opened_by)) } }
            div { dt { "Use counted since" } dd { (moment(review.since)) } }
            div { dt { "The record goes back to" }
                dd { @match review.oldest_record { Some(oldest) => (moment(oldest)), None => "there is none" } } }
            @if let Some(unknown) = review.unknown() { div.wide { dt { "Not known" } dd { (unknown) } } }
            div { dt { "Answers until" } dd { (moment(review.deadline)) } }
            @if let Some(closed) = &review.closed { div { dt { "Closed" } dd { (moment(closed.at)) " by " (shown(&closed.by)) } } }
            div.wide { dt { "Grants" } dd {
                (report.grants.len()) ": " (count(Answer::Attested)) " needed, " (count(Answer::Ended)) " ended, "
                (count(Answer::Open)) " nobody has answered for"
            } }
        }
        form method="post" action=(visit.settings.path(&format!("{PAGE}/{}/answer", review.id))) {
            (csrf(visit))
            table {
                thead { tr {
                    @if is_open { th scope="col" { span.unseen { "Choose" } } }
                    th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Used" } th scope="col" { "Answer" }
                } }
                tbody {
                    @for grant in report.grants.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { (row(grant, is_open)) }
                }
            }
            (beyond(report.grants.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
            @if is_open { (buttons(visit, &review.id)) }
        }
        @if is_open && visit.may(AdminOperation::Review) {
            form.confirm method="post" action=(visit.settings.path(&format!("{PAGE}/{}/close", review.id))) {
                (csrf(visit))
                p { "To close it ends at once all that nobody has answered for." }
                p.buttons { button.danger type="submit" { "Close the review" } }
            }
        }
    };
    inside(visit, status, TITLE, PAGE, &body)
}

fn row(reviewed: &ReviewedGrant, is_open: bool) -> Markup {
    let grant = &reviewed.usage.grant;
    let (kind, word) = match reviewed.answer {
        Answer::Open => ("warn", "open"),
        Answer::Attested => ("good", "needed"),
        Answer::Ended => ("bad", "ended"),
    };
    html! {
        tr {
            @if is_open {
                td data-label="Choose" {
                    @if reviewed.answer == Answer::Open {
                        label { input type="checkbox" name={ (GRANT) (grant.id) } value="on"; span.unseen { (grant.place) } }
                    }
                }
            }
            th scope="row" data-label="Who" { code { (shown(&grant.subject)) } span.detail { (shown(&grant.place)) } }
            td data-label="What" {
                div { code { (shown(&grant.object)) } " " (shown(&grant.action)) " in " (shown(&grant.environment)) }
                @if let Some(condition) = &grant.condition { span.detail { "where " (shown(condition)) } }
                @if !reviewed.owner.is_empty() { span.detail { "answers for it: " (shown(&reviewed.owner)) } }
            }
            td data-label="Used" {
                @match reviewed.usage.used {
                    Some(used) if reviewed.usage.is_elsewhere() => {
                        "at another replica" span.detail { "last " (moment(used.last)) }
                    }
                    Some(used) => { (used.count) " times" span.detail { "last " (moment(used.last)) } }
                    None => span.quiet { "never" },
                }
            }
            td data-label="Answer" {
                (pill(kind, word))
                @if let Some(said) = &reviewed.said { span.detail { (shown(&said.by)) ", " (moment(said.at)) } }
            }
        }
    }
}

fn buttons(visit: &Visit, id: &str) -> Markup {
    html! {
        p.buttons {
            @if visit.may(AdminOperation::Attest) {
                @match recent(visit, id) {
                    Ok(()) => button name="answer" value="attest" type="submit" { "Still needed" },
                    Err(why) => (why),
                }
            }
            @if visit.may(AdminOperation::Review) {
                button.danger name="answer" value="end" type="submit" { "Not needed any more" }
            }
        }
    }
}

/// `POST /reviews/{id}/answer`: about the grants that were chosen. The path is read first.
pub(super) async fn answer(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let grants: Vec<GrantId> = posted.names().filter_map(|name| name.strip_prefix(GRANT)?.parse().ok()).collect();
    if grants.is_empty() {
        let told = html! { p.problem role="alert" { "Choose the grants that you mean." } };
        return one_page(visit, id, StatusCode::BAD_REQUEST, Some(told)).await;
    }
    let (route, object) = match posted.field("answer").as_str() {
        "attest" => (ATTEST, "bailiwick/attest"),
        "end" => (END, "bailiwick/review"),
        _ => return visit.problem(StatusCode::BAD_REQUEST, "the form does not say what is meant: open the page again"),
    };
    let sent: Result<Answered, Refused> =
        visit.send(route, Some(id.clone()), &AnswerOrder { grants, all: false }).await;
    told(visit, id, sent, object, "answered").await
}

/// `POST /reviews/{id}/close`.
pub(super) async fn close(Path(id): Path<String>, posted: Posted) -> Response {
    let sent: Result<Answered, Refused> = posted.visit.send(CLOSE, Some(id.clone()), &()).await;
    told(&posted.visit, id, sent, "bailiwick/review", "closed").await
}

async fn told(visit: &Visit, id: String, sent: Result<Answered, Refused>, object: &str, done: &str) -> Response {
    match sent {
        Ok(_) => to(visit, &id, done),
        Err(refused) => {
            let told = visit.refusal(object, &refused);
            one_page(visit, id, refused.status, Some(told)).await
        }
    }
}

fn to(visit: &Visit, id: &str, done: &str) -> Response {
    Redirect::to(&visit.settings.path(&format!("{PAGE}/{}?done={done}", encoded(id)))).into_response()
}

/// Whether somebody has just logged in; else what they are told.
fn recent(visit: &Visit, id: &str) -> Result<(), Markup> {
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::Attest, now_s());
    recent.map_err(|why| match why.reason {
        Reason::InsufficientUserAuthentication => {
            let to = encoded(&format!("{PAGE}/{id}"));
            html! {
                a.button href=(visit.settings.path(&format!("/login/start?fresh=1&to={to}"))) {
                    "Log in again to say that something is needed"
                }
            }
        }
        _ => html! { span.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } } },
    })
}
