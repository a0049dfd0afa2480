//! The files that pages load: one style sheet, one script of ours, htmx.
//!
//! Decides how they are called: by their own digest, so that a browser may keep them for good. `assets/htmx.min.js` is
//! htmx 2.0.11 as the npm package `htmx.org` has it, its licence beside it.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::visit::Settings;
use crate::ids::Digest;

/// How pages look.
pub(super) const STYLE: &str = "console.css";
/// The live log.
pub(super) const SCRIPT: &str = "console.js";
/// Parts of pages without loading all of it.
pub(super) const HTMX: &str = "htmx.min.js";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: &[(&str, &str, &str)] = &[
    (STYLE, "text/css; charset=utf-8", include_str!("assets/console.css")),
    (SCRIPT, JAVASCRIPT, include_str!("assets/console.js")),
    (HTMX, JAVASCRIPT, include_str!("assets/htmx.min.js")),
];

static DIGEST: LazyLock<String> = LazyLock::new(|| {
    let parts: Vec<&[u8]> = FILES.iter().map(|(_, _, content)| content.as_bytes()).collect();
    Digest::of("bailiwick console assets", &parts).short()
});

/// Where a file is, as browsers see it.
pub(super) fn path(settings: &Settings, name: &str) -> String {
    settings.path(&format!("/assets/{}/{name}", *DIGEST))
}

/// `GET /assets/{digest}/{name}`: the same for everybody.
pub(super) async fn file(Path((digest, name)): Path<(String, String)>) -> Response {
    let found = FILES.iter().find(|(own, ..)| *own == name).filter(|_| digest == *DIGEST);
    match found {
        Some((_, kind, content)) => {
            ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")], *content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
