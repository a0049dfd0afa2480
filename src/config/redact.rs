//! Arguments that are left out of the record: `[record] redact`.
//!
//! Decides how one is named, and which rows name nothing that there is. Refuses to know what a record is. Invariant: a
//! row that could be understood in two ways names both.

use std::sync::Arc;

use super::pins::PinLock;
use super::{Mistake, ServerConfig};
use crate::ids::ServerId;
use crate::limit;

/// One row: `SERVER/NAME:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedPath {
    /// As it was written.
    text: String,
    /// Of one server; of all where none is named.
    server: Option<ServerId>,
    /// Of one tool or prompt, as its server spells it; of all where none is named.
    name: Option<String>,
    /// The names that lead to it, with dots between.
    path: String,
}

impl RedactedPath {
    /// Reads a row; nothing where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (server, rest) = text.split_once('/')?;
        let (name, path) = rest.split_once(':')?;
        let any = |text: &str| text == "*";
        let server = if any(server) { None } else { Some(ServerId::new(server).ok()?) };
        let depth = path.split('.').count();
        let whole =
            !name.is_empty() && depth <= limit::CONDITION_DEPTH_MAX && path.split('.').all(|one| !one.is_empty());
        let name = Some(name).filter(|name| !any(name)).map(str::to_owned);
        whole.then(|| Self { text: text.to_owned(), server, name, path: path.to_owned() })
    }

    /// Whether it is about a server.
    #[must_use]
    pub fn is_at(&self, server: &ServerId) -> bool {
        self.server.as_ref().is_none_or(|own| own == server)
    }

    /// Whether it is about a tool or prompt of its server.
    #[must_use]
    pub fn is_of(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|own| own == name)
    }

    /// The names that lead to what is left out, with dots between.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Rows that leave nothing out: of servers that there are not, and of names that are not among those which the files
/// accept of their server.
pub(super) fn warnings(
    rows: &[RedactedPath],
    (file, text): (&str, &str),
    servers: &[Arc<ServerConfig>],
    lock: &PinLock,
) -> Vec<Mistake> {
    let warning = |row: &RedactedPath, message: String| {
        Mistake::at(file, text, text.find(&format!("\"{}\"", row.text)).unwrap_or_default(), message)
    };
    let unknown = |row: &RedactedPath| {
        let server = row.server.as_ref()?;
        if !servers.iter().any(|known| known.id == *server) {
            return Some(warning(row, format!("there is no server `{server}`: `{}` leaves nothing out", row.text)));
        }
        let name = row.name.as_ref()?;
        let mut known = lock.pins.values().filter(|pin| pin.server == *server && !pin.name.is_empty()).peekable();
        known.peek()?;
        let message = format!("pins.lock knows nothing of `{server}` that is called `{name}`: fix the name");
        (!known.any(|pin| pin.name == *name)).then(|| warning(row, message))
    };
    rows.iter().filter_map(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_a_server_a_tool_and_the_names_that_lead_to_an_argument() {
        let [git, mail] = ["git", "mail"].map(|id| ServerId::new(id).unwrap());
        let row = RedactedPath::parse("git/push:auth.token").unwrap();
        assert!(row.is_at(&git) && !row.is_at(&mail) && row.is_of("push") && !row.is_of("pull"));
        assert_eq!(row.path(), "auth.token");
        let any = RedactedPath::parse("*/*:password").unwrap();
        assert!(any.is_at(&git) && any.is_at(&mail) && any.is_of("x"));
        let deep = format!("git/push:{}", vec!["a"; limit::CONDITION_DEPTH_MAX + 1].join("."));
        for wrong in ["", "git", "git/push", "git/push:", "git/:a", "/push:a", "git/push:a..b", "Gi t/push:a", &deep] {
            assert_eq!(RedactedPath::parse(wrong), None, "{wrong}");
        }
    }
}
