//! The live log: the record as it is written, row by row.
//!
//! Decides how the API's stream becomes rows. Invariants: what is streamed is what `GET /logs` streams to this person;
//! it ends with the session; a page holds so many rows and no more.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use maud::{Markup, html};

use super::super::routes::Verb;
use super::inside::Refused;
use super::layout::inside;
use super::login::encoded;
use super::row;
use super::session::Session;
use super::visit::{Visit, is_foreign_fetch};
use crate::front::leash;
use crate::limit;
use crate::record::join::Joiner;

const OBJECT: &str = "bailiwick/logs";
const LOGS: (Verb, &str) = (Verb::Get, "/logs");

/// What can be selected: the name in the API, what people read, an example.
const FILTERS: &[(&str, &str, &str)] = &[
    ("subject", "Person", "anna"),
    ("agent", "Agent", "coder"),
    ("server", "Server", "git"),
    ("tool", "Tool", "delete"),
    ("reason", "Reason", "not_allowed"),
    ("grep", "Text", "anywhere"),
];

/// `GET /log`.
pub(super) async fn page(visit: Visit) -> Response {
    let filters = filters(&visit);
    let still = visit.asked("still").is_some();
    let rows = if still { Some(rows(&visit, &filters).await) } else { None };
    let stream = visit.settings.path(&format!("/log/stream?{filters}"));
    let still_page = visit.settings.path(&format!("/log?still=1&{filters}"));
    let decision = visit.asked("decision").unwrap_or_default();
    let body = html! {
        form.ask method="get" action=(visit.settings.path("/log")) {
            label { span { "Decision" }
                select name="decision" {
                    @for (value, word) in [("", "any"), ("allow", "allow"), ("deny", "deny"), ("fail", "fail")] {
                        option value=(value) selected[decision == value] { (word) }
                    }
                }
            }
            @for (name, label, example) in FILTERS {
                label { span { (label) } input name=(name) placeholder=(example) value=(visit.asked(name).unwrap_or_default()) autocomplete="off" spellcheck="false"; }
            }
            button type="submit" { "Filter" }
        }
        @match &rows {
            None => {
                noscript { p.notice { "Rows come as they are written only where scripts run. "
                    a href=(still_page) { "Show the last ones" } } }
                div.livebar {
                    span #live-state role="status" { "connecting" }
                    button #live-pause type="button" aria-pressed="false" hidden { "Pause" }
                    label.check { input #live-looks type="checkbox" checked; span { "Hide what administrators look at" } }
                    a href=(still_page) { "Only the last ones" }
                }
                ol #live.rows.nolooks data-stream=(stream) data-rows=(limit::CONSOLE_LOG_ROWS_MAX) aria-label="Records, newest first" {}
            }
            Some(Ok(rows)) => {
                p { a href=(visit.settings.path(&format!("/log?{filters}"))) { "Follow" } }
                @if rows.is_empty() { p.quiet { "Nothing was recorded that is meant." } }
                ol.rows aria-label="Records, newest first" { @for row in rows.iter().rev() { (row) } }
            }
            Some(Err(refused)) => (visit.refusal(OBJECT, refused)),
        }
    };
    inside(&visit, StatusCode::OK, "Live log", "/log", &body)
}

/// The query of the API that the page's own means.
fn filters(visit: &Visit) -> String {
    let names = FILTERS.iter().map(|(name, ..)| *name).chain(["decision"]);
    let given = names.filter_map(|name| Some(format!("{name}={}", encoded(&visit.asked(name)?))));
    given.collect::<Vec<_>>().join("&")
}

async fn rows(visit: &Visit, filters: &str) -> Result<Vec<Markup>, Refused> {
    let query = format!("{filters}&follow=false&lines={}", limit::CONSOLE_LOG_ROWS_MAX);
    let response = visit.order(LOGS, None, query.trim_start_matches('&'), Body::empty()).await;
    if !response.status().is_success() {
        return Err(Refused::of(response).await);
    }
    let body = Limited::new(response.into_body(), limit::CONTROL_ANSWER_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    told(&body)
}

/// The rows of all events; a refusal where they ended before all was told.
fn told(events: &[u8]) -> Result<Vec<Markup>, Refused> {
    let rows = Rows::default().read(events).into_iter().filter_map(|event| match event {
        Event::Row(_, markup) => Some(Ok(markup)),
        Event::End(data) => Some(Err(Refused::ended(&data))),
        Event::Quiet => None,
    });
    rows.collect()
}

/// `GET /log/stream`: the rows as server-sent events.
pub(super) async fn stream(visit: Visit, headers: HeaderMap) -> Response {
    if is_foreign_fetch(&headers) {
        return visit.problem(StatusCode::FORBIDDEN, "this is for the console's own page");
    }
    let query = format!("{}&lines={}", filters(&visit), limit::CONSOLE_LOG_ROWS_MAX);
    let response = visit.order(LOGS, None, query.trim_start_matches('&'), Body::empty()).await;
    if !response.status().is_success() {
        // A stream that answers anything else is never tried again by a browser.
        let refused = Refused::of(response).await;
        let told = visit.refusal(OBJECT, &refused).into_string();
        return events(Body::from(event("refused", None, &told)));
    }
    let body = response.into_body().into_data_stream();
    let state = Following { body, rows: Rows::default() };
    let stream = stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, Infallible>(text), state))
    });
    let session: Arc<Session> = Arc::clone(&visit.session);
    leash(events(Body::from_stream(stream)), || session.over())
}

fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The API's stream while it is read.
struct Following {
    body: BodyDataStream,
    rows: Rows,
}

impl Following {
    async fn next(&mut self) -> Option<String> {
        let chunk = self.body.next().await?.ok()?;
        let told: String = self.rows.read(&chunk).iter().map(Event::text).collect();
        // Something is sent for everything that comes, so that quiet is told as well.
        Some(if told.is_empty() { ": \n\n".to_owned() } else { told })
    }
}

/// Makes rows of the API's events.
struct Rows {
    joiner: Joiner,
    rest: Vec<u8>,
}

enum Event {
    Row(u64, Markup),
    End(String),
    Quiet,
}

impl Default for Rows {
    fn default() -> Self {
        Self { joiner: Joiner::new(limit::ADMIN_LOG_OPEN_CALLS_MAX), rest: Vec::new() }
    }
}

impl Rows {
    fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut told = Vec::new();
        while let Some(end) = memchr::memmem::find(&self.rest, b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if block.starts_with("event: end") {
                told.push(Event::End(data.unwrap_or_default().to_owned()));
            } else if let Some(seen) = data.and_then(|data| self.joiner.see(data)) {
                told.extend(row::row(&seen).map(|row| Event::Row(seen.record.seq, row)));
            } else {
                told.push(Event::Quiet);
            }
        }
        if self.rest.len() > limit::CONSOLE_EVENT_BYTES_MAX {
            self.rest.clear();
        }
        told
    }
}

impl Event {
    fn text(&self) -> String {
        match self {
            Self::Row(sequence, row) => event("row", Some(*sequence), row.0.as_str()),
            Self::End(data) => event("end", None, data),
            Self::Quiet => ": \n\n".to_owned(),
        }
    }
}

fn event(name: &str, id: Option<u64>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data: String = data.split(['\n', '\r']).map(|line| format!("data: {line}\n")).collect();
    format!("event: {name}\n{id}{data}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"data: {"v":1,"seq":7,"prev":"x","replica":"r","at":"2026-11-27T08:00:00.000000Z","type":"stop","stop":{"cause":"<b>\u202e"}}"#;

    #[test]
    fn a_record_becomes_a_row_however_its_bytes_come() {
        let mut rows = Rows::default();
        let whole = format!("{LINE}\n\n");
        let (one, other) = whole.as_bytes().split_at(40);
        assert!(rows.read(one).is_empty());
        let told = rows.read(other);
        let [Event::Row(7, row)] = &told[..] else { panic!("no row") };
        let html = row.0.as_str();
        assert!(html.contains("&lt;b&gt;") && html.contains("U+202E") && !html.contains("<b>\u{202e}"), "{html}");
        let text = told[0].text();
        assert!(text.starts_with("event: row\nid: 7\ndata: <li") && text.ends_with("\n\n"), "{text}");
        assert_eq!(text.matches("\n\n").count(), 1, "line breaks inside do not end it");
    }

    #[test]
    fn a_record_that_was_not_told_to_its_end_is_not_one_without_rows() {
        assert_eq!(told(format!("{LINE}\n\n: live\n\n").as_bytes()).ok().unwrap().len(), 1);
        let end = "event: end\ndata: {\"reason\":\"token_expired\"}\n\n";
        let ended = told(format!("{LINE}\n\n{end}").as_bytes()).err().unwrap();
        assert_eq!(ended.problem.reason, "token_expired");
    }

    #[test]
    fn an_event_without_an_end_is_not_kept_for_ever() {
        let mut rows = Rows::default();
        assert!(rows.read(&vec![b'x'; limit::CONSOLE_EVENT_BYTES_MAX]).is_empty());
        assert_eq!(rows.rest.len(), limit::CONSOLE_EVENT_BYTES_MAX);
        assert!(rows.read(b"x").is_empty() && rows.rest.is_empty());
    }
}
