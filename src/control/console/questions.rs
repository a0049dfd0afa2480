//! Who can do what, what somebody can do, and why: questions to the policy in force, which sends nothing anywhere.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::super::routes::Verb;
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::text::shown;
use super::visit::{Posted, Visit};
use crate::gateway::ask::{Question, WhatCanAnswer, WhoCanAnswer};
use crate::limit;
use crate::policy::{AdminOperation, Explanation};

const OBJECT: &str = "bailiwick/explain";

/// What was asked and answered, by form.
#[derive(Default)]
struct Answers {
    who: Option<Markup>,
    what: Option<Markup>,
    explained: Option<Markup>,
}

/// `GET /ask`.
pub(super) async fn page(visit: Visit) -> Response {
    let mut answers = Answers::default();
    if let Some(object) = visit.asked("object") {
        let action = visit.asked("action").unwrap_or_else(|| "call".to_owned());
        let query = format!("object={}&action={}", encoded(&object), encoded(&action));
        answers.who = Some(match visit.look::<WhoCanAnswer>("/who-can", &query).await {
            Ok(answer) => who(&answer),
            Err(refused) => visit.refusal(OBJECT, &refused),
        });
    }
    if let Some(subject) = visit.asked("subject") {
        let query = format!("subject={}", encoded(&subject));
        answers.what = Some(match visit.look::<WhatCanAnswer>("/what-can", &query).await {
            Ok(answer) => what(&answer),
            Err(refused) => visit.refusal(OBJECT, &refused),
        });
    }
    let asked = |name: &str| visit.asked(name).unwrap_or_default();
    show(&visit, &answers, &asked, &asked)
}

/// `POST /ask/explain`: by POST, because arguments belong into no address.
pub(super) async fn explain(posted: Posted) -> Response {
    let visit = &posted.visit;
    let words = |name: &str| -> Vec<String> {
        posted
            .field(name)
            .split([',', ' ', '\n'])
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let some = |name: &str| Some(posted.field(name)).filter(|text| !text.is_empty());
    let arguments = some("arguments").map(serde_json::value::RawValue::from_string).transpose();
    let explained = match arguments {
        Err(error) => html! { p.problem role="alert" { "The arguments are no JSON: " (shown(&error.to_string())) } },
        Ok(arguments) => {
            let question = Question {
                object: posted.field("object"),
                action: some("action").unwrap_or_else(|| "call".to_owned()),
                arguments,
                at: None,
                subject: some("as"),
                groups: words("groups"),
                agent: some("agent"),
                scopes: words("scopes"),
                client_proof: None,
                actors: Vec::new(),
                mandate: None,
                seen: None,
                token: None,
            };
            match visit.send::<Explanation>((Verb::Post, "/explain"), None, &question).await {
                Ok(answer) => explained(&answer),
                Err(refused) => visit.refusal(OBJECT, &refused),
            }
        }
    };
    let answers = Answers { explained: Some(explained), ..Answers::default() };
    show(visit, &answers, &|_| String::new(), &|name| posted.field(name))
}

fn show(
    visit: &Visit,
    answers: &Answers,
    asked: &dyn Fn(&str) -> String,
    explain: &dyn Fn(&str) -> String,
) -> Response {
    let here = visit.settings.path("/ask");
    let body = html! {
        @if !visit.may(AdminOperation::Explain) { p.notice { "What you ask here is refused unless a rule lets you do " code { (OBJECT) } "." } }
        p.quiet { "Answers come from the policy in force. Nothing is sent anywhere." }
        section aria-labelledby="who" {
            h2 #who { "Who can…?" }
            form.ask method="get" action=(here) hx-get=(here) hx-target="#who-answer" hx-select="#who-answer" hx-swap="outerHTML" {
                (actions(Some(&asked("action"))))
                label.grow { span { "Object" } input name="object" required placeholder="server/tool, or bailiwick/revoke" value=(asked("object")); }
                button type="submit" { "Ask" }
            }
            div #who-answer aria-live="polite" { @if let Some(answer) = &answers.who { (answer) } }
        }
        section aria-labelledby="what" {
            h2 #what { "What can… do?" }
            form.ask method="get" action=(here) hx-get=(here) hx-target="#what-answer" hx-select="#what-answer" hx-swap="outerHTML" {
                label.grow { span { "Subject" } input name="subject" required placeholder="user:corp/anna, group:corp/team, agent:coder" value=(asked("subject")); }
                button type="submit" { "Ask" }
            }
            div #what-answer aria-live="polite" { @if let Some(answer) = &answers.what { (answer) } }
        }
        section aria-labelledby="explain" {
            h2 #explain { "Why may somebody, or may not?" }
            @let action = visit.settings.path("/ask/explain");
            form.ask method="post" action=(action) hx-post=(action) hx-target="#explain-answer" hx-select="#explain-answer" hx-swap="outerHTML" {
                (csrf(visit))
                (actions(Some(&explain("action"))))
                label.grow { span { "Object" } input name="object" required placeholder="server/tool" value=(explain("object")); }
                label { span { "Person" } input name="as" placeholder="user:corp/anna" value=(explain("as")); }
                label { span { "Groups" } input name="groups" placeholder="group:corp/team" value=(explain("groups")); }
                label { span { "Agent" } input name="agent" placeholder="the usual one" value=(explain("agent")); }
                label { span { "Scopes" } input name="scopes" placeholder="none" value=(explain("scopes")); }
                label.whole { span { "Arguments" } textarea name="arguments" rows="3" spellcheck="false" placeholder="{ \"amount\": 100 }" { (explain("arguments")) } }
                button type="submit" { "Explain" }
            }
            div #explain-answer aria-live="polite" { @if let Some(answer) = &answers.explained { (answer) } }
        }
    };
    inside(visit, StatusCode::OK, "Who can what", "/ask", &body)
}

/// What can be done.
pub(super) fn actions(chosen: Option<&str>) -> Markup {
    html! {
        label { span { "Action" }
            select name="action" {
                @for action in ["call", "read", "get", "complete", "subscribe", "elicit", "sample", "roots", "admin"] {
                    option value=(action) selected[chosen == Some(action)] { (action) }
                }
            }
        }
    }
}

fn who(answer: &WhoCanAnswer) -> Markup {
    html! {
        h3 { "Who can " (shown(&answer.question)) }
        @if answer.who.is_empty() { p { (pill("quiet", "nobody")) " No rule lets anybody." } }
        @else {
            table {
                thead { tr { th scope="col" { "Who" } th scope="col" { "How surely" } th scope="col" { "By which rules" } } }
                tbody {
                    @for who in answer.who.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr {
                            th scope="row" data-label="Who" { (shown(&who.subject)) }
                            td data-label="How surely" {
                                @if who.depends { (pill("warn", "under conditions")) } @else { (pill("good", "always")) }
                            }
                            td data-label="By which rules" { @for rule in &who.rules { span.detail { (shown(rule)) } } }
                        }
                    }
                }
            }
            (beyond(answer.who.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    }
}

fn what(answer: &WhatCanAnswer) -> Markup {
    html! {
        h3 { "What the rules say of " (shown(&answer.subject)) }
        @if answer.rules.is_empty() { p { (pill("quiet", "nothing")) " No rule speaks about them." } }
        @else {
            table {
                thead { tr { th scope="col" { "Effect" } th scope="col" { "Rule" } th scope="col" { "Where" } } }
                tbody {
                    @for rule in answer.rules.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr {
                            td data-label="Effect" { (pill(if rule.effect == "allow" { "good" } else { "bad" }, &rule.effect)) }
                            td data-label="Rule" { (shown(&rule.sentence)) }
                            td data-label="Where" { code { (shown(&rule.place)) } }
                        }
                    }
                }
            }
            (beyond(answer.rules.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    }
}

/// An explanation, rule by rule.
pub(super) fn explained(answer: &Explanation) -> Markup {
    html! {
        h3 {
            @if answer.allowed { (pill("good", "allowed")) } @else { (pill("bad", "refused")) }
            " " (shown(&answer.question))
        }
        @if let Some(reason) = answer.reason {
            p { code { (reason.code()) } @if let Some(hint) = &answer.hint { " " (shown(hint)) } }
        }
        @if !answer.scopes_needed.is_empty() { p { "Scopes that are needed: " code { (shown(&answer.scopes_needed.join(" "))) } } }
        @for subject in &answer.subjects {
            div.subject {
                p { b { (shown(&subject.subject)) } " " @if subject.allowed { (pill("good", "allowed")) } @else { (pill("bad", "not allowed")) } }
                @if subject.rules.is_empty() { p.quiet { "No rule of this subject means the object." } }
                @else {
                    ul.rules {
                        @for rule in subject.rules.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                            li {
                                @if rule.applies { (pill("good", "applies")) } @else { (pill("quiet", "does not apply")) }
                                " " (shown(&rule.sentence)) " " code.quiet { (shown(&rule.place)) }
                                @if let Some(condition) = &rule.condition_sentence { span.detail { "where " (shown(condition)) } }
                                @if let Some(record) = &rule.condition {
                                    @for (what, value) in record.read.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                                        span.detail { code { (shown(what)) " = " (shown(&value.to_string())) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        @for gate in &answer.gates { p { "Gate: " (shown(gate)) } }
        @for flow in &answer.flows { p { "Flow: " (shown(flow)) } }
        @if !answer.near_misses.is_empty() {
            p { "Rules that let somebody else:" }
            ul.rules { @for near in &answer.near_misses { li { (shown(near)) } } }
        }
    }
}
