//! What the pages look like, and what a browser may do with them, which is next to nothing.
//!
//! Decides no more than how something is said. Invariant: no page runs, shows, frames or sends to anything; text of
//! somebody else is text.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}\
    a.button{display:inline-block;padding:.6rem 1rem;border:2px solid;border-radius:.4rem;text-decoration:none}\
    dt{font-weight:600}dd{margin:0 0 .6rem}.problem{border-left:.3rem solid #b00020;padding-left:.8rem}\
    :root{color-scheme:light dark}";

const FIXED: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
];

/// An answer to a browser.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    title: &'static str,
    body: Markup,
    location: Option<String>,
    cookie: Option<HeaderValue>,
}

impl Page {
    /// A page that says something.
    pub(super) const fn new(status: StatusCode, title: &'static str, body: Markup) -> Self {
        Self { status, title, body, location: None, cookie: None }
    }

    /// A page that says what is wrong.
    pub(super) fn problem(status: StatusCode, problem: &str) -> Self {
        let body = html! {
            p.problem role="alert" { (problem) }
            p { "Nothing was stored. You can close this page; make the call again to get a new link." }
        };
        Self::new(status, "That did not work", body)
    }

    /// Sends the browser on.
    pub(super) fn on_to(location: impl Into<String>) -> Self {
        let empty = PreEscaped(String::new());
        Self { location: Some(location.into()), ..Self::new(StatusCode::SEE_OTHER, "On the way", empty) }
    }

    /// The same, and the browser keeps this.
    pub(super) fn keeping(self, cookie: Option<HeaderValue>) -> Self {
        Self { cookie, ..self }
    }

    pub(super) fn response(self, secure: bool) -> Response<String> {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) " – Bailiwick" }
                    link rel="icon" href="data:,";
                    style { (PreEscaped(STYLE)) }
                }
                body { main { h1 { (self.title) } (self.body) } }
            }
        };
        let mut response = Response::new(page.into_string());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; form-action 'none'; frame-ancestors 'none'; \
             base-uri 'none'"
        );
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(HeaderName::from_static("content-security-policy"), policy);
        }
        add_fixed(headers);
        if secure {
            let year = HeaderValue::from_static("max-age=31536000");
            headers.insert(HeaderName::from_static("strict-transport-security"), year);
        }
        if let Some(cookie) = self.cookie {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(location) = self.location {
            match HeaderValue::from_str(&location) {
                Ok(location) => drop(headers.insert(LOCATION, location)),
                Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
        response
    }
}

/// A short text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    add_fixed(response.headers_mut());
    response
}

fn add_fixed(headers: &mut http::HeaderMap) {
    for (name, value) in FIXED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // The address of a page is a link that is good for a while.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
