//! Opens an address in the user's browser, as far as there is one.
//!
//! Invariant: what is opened was checked to be `https:`, or `http:` on this machine; it is one argument and no shell
//! reads it; what the browser says never reaches our standard streams.

use std::process::{Command, Stdio};

use url::Url;

/// How a desktop opens an address.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Tries to; the address was printed, so nobody depends on it.
pub(super) fn open(url: &Url) {
    if !matches!(url.scheme(), "https" | "http") {
        return;
    }
    let started =
        Command::new(OPENER).arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Ok(mut opener) = started {
        // It ends when the browser has the address; somebody has to notice.
        std::thread::spawn(move || opener.wait());
    }
}
