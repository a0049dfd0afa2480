//! `policies/pins.lock`: definitions that were reviewed like code, and how a server's definitions are pinned.
//!
//! Decides which digests a file accepts. Refuses to know what they are digests of. Invariant: a lock that was not
//! understood to its last digest accepts nothing, because there is no configuration then.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, did_you_mean};
use super::{PinMode, ServerConfig};
use crate::ids::{Digest, PinKind, ServerId};
use crate::limit;

/// The file's name in the set.
pub const FILE: &str = "pins.lock";

/// The version that the file names.
const VERSION: i64 = 1;

/// Definitions that the files accept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinLock {
    /// What each digest is of.
    pub pins: BTreeMap<Digest, LockedPin>,
}

/// What a digest of the file is said to be of; for people, the digest alone decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPin {
    /// The server.
    pub server: ServerId,
    /// Of what kind.
    pub kind: PinKind,
    /// Its name; empty for instructions.
    pub name: String,
}

impl PinLock {
    /// Whether it accepts something that the other one does not.
    #[must_use]
    pub fn accepts_more_than(&self, other: &Self) -> bool {
        self.pins.keys().any(|digest| !other.pins.contains_key(digest))
    }

    /// Whether it accepts anything of a server.
    #[must_use]
    pub fn names(&self, server: &ServerId) -> bool {
        self.pins.values().any(|pin| pin.server == *server)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut reading = Reading { file, text, mistakes: Vec::new(), lock: Self::default() };
        match DeTable::parse(text) {
            Ok(top) => reading.top(top.get_ref()),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                reading.mistake(start, format!("this is not TOML: {}", error.message()));
            }
        }
        if reading.mistakes.is_empty() { Ok(reading.lock) } else { Err(reading.mistakes) }
    }

    /// The text of a file that accepts this, in one order.
    #[must_use]
    pub fn write(&self) -> String {
        let mut servers: BTreeMap<&ServerId, BTreeMap<PinKind, BTreeMap<&str, Vec<String>>>> = BTreeMap::new();
        for (digest, pin) in &self.pins {
            let kinds = servers.entry(&pin.server).or_default();
            kinds.entry(pin.kind).or_default().entry(&pin.name).or_default().push(format!("\"{digest}\""));
        }
        let mut text = format!(
            "# Definitions that were reviewed: SHA-256 digests by server, kind and name. `bailiwick pins export` writes it.\n\
             version = {VERSION}\n"
        );
        for (server, kinds) in servers {
            for (kind, names) in kinds {
                if kind == PinKind::Instructions {
                    let digests: Vec<String> = names.into_values().flatten().collect();
                    text.push_str(&format!("\n[{server}]\n{} = [{}]\n", kind.section(), digests.join(", ")));
                    continue;
                }
                text.push_str(&format!("\n[{server}.{}]\n", kind.section()));
                for (name, digests) in names {
                    text.push_str(&format!("{} = [{}]\n", quoted(name), digests.join(", ")));
                }
            }
        }
        text
    }

    /// What should be looked at although it can be served: names of no server, and production servers of which
    /// nothing is accepted here.
    pub(super) fn warnings(
        &self,
        lock: &str,
        (file, text): (&str, &str),
        servers: &[std::sync::Arc<ServerConfig>],
    ) -> Vec<Mistake> {
        let mut warnings = Vec::new();
        let mut unknown: Vec<&ServerId> = self.pins.values().map(|pin| &pin.server).collect();
        unknown.dedup();
        unknown.retain(|named| !servers.iter().any(|server| server.id == **named));
        unknown.sort_unstable();
        unknown.dedup();
        for server in unknown {
            warnings.push(Mistake::whole(
                lock,
                format!("there is no server `{server}`: what is accepted of it has no effect"),
            ));
        }
        for server in servers.iter().filter(|server| server.pins == PinMode::Strict && !self.names(&server.id)) {
            let offset = text.find(&format!("[servers.{}]", server.id)).unwrap_or_default();
            let id = &server.id;
            warnings.push(Mistake::at(
                file,
                text,
                offset,
                format!(
                    "server `{id}` has pins = \"strict\" and pins.lock accepts nothing of it: nothing of it is shown until \
                     somebody accepts it (`bailiwick pins list --server {id}`, then `bailiwick pins accept --all {id}`)"
                ),
            ));
        }
        warnings
    }
}

struct Reading<'a> {
    file: &'a str,
    text: &'a str,
    mistakes: Vec<Mistake>,
    lock: PinLock,
}

impl Reading<'_> {
    fn mistake(&mut self, offset: usize, message: impl Into<String>) {
        self.mistakes.push(Mistake::at(self.file, self.text, offset, message));
    }

    fn top(&mut self, top: &DeTable<'_>) {
        let mut versioned = false;
        for (key, value) in top {
            if key.get_ref() == "version" {
                versioned = true;
                let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
                if number != Some(VERSION) {
                    self.mistake(value.span().start, format!("this is read as version {VERSION} alone"));
                }
                continue;
            }
            let server = match ServerId::new(key.get_ref()) {
                Ok(server) => server,
                Err(error) => {
                    self.mistake(key.span().start, error.to_string());
                    continue;
                }
            };
            match value.get_ref().as_table() {
                Some(kinds) => self.server(&server, kinds),
                None => self.mistake(key.span().start, "write [SERVER.tools], and a list of digests for each name"),
            }
        }
        if !versioned {
            self.mistake(0, format!("begin with version = {VERSION}"));
        }
    }

    fn server(&mut self, server: &ServerId, kinds: &DeTable<'_>) {
        for (section, value) in kinds {
            let kind = PinKind::ALL.into_iter().find(|kind| kind.section() == section.get_ref());
            match (kind, value.get_ref().as_table()) {
                (None, _) => {
                    let near = did_you_mean(section.get_ref(), PinKind::ALL.map(PinKind::section));
                    let known = PinKind::ALL.map(PinKind::section).join(", ");
                    let hint = if near.is_empty() { format!(": write one of {known}") } else { near };
                    self.mistake(
                        section.span().start,
                        format!("`{}` is no kind of definition{hint}", section.get_ref()),
                    );
                }
                (Some(PinKind::Instructions), _) => self.digests(server, PinKind::Instructions, "", value),
                (Some(kind), Some(names)) => {
                    for (name, digests) in names {
                        self.digests(server, kind, name.get_ref(), digests);
                    }
                }
                (Some(_), None) => {
                    self.mistake(section.span().start, "here stand names, each with a list of digests");
                }
            }
        }
    }

    fn digests(&mut self, server: &ServerId, kind: PinKind, name: &str, value: &Spanned<DeValue<'_>>) {
        let Some(digests) = value.get_ref().as_array() else {
            self.mistake(value.span().start, "write a list of digests, such as [\"9f86d0…\"]");
            return;
        };
        for digest in digests.iter() {
            let Some(read) = digest.get_ref().as_str().and_then(Digest::from_hex) else {
                self.mistake(digest.span().start, "a digest is 64 lower-case hexadecimal digits in quotation marks");
                continue;
            };
            if self.lock.pins.len() >= limit::PIN_ROWS_MAX as usize {
                self.mistake(digest.span().start, format!("there are more than {} digests", limit::PIN_ROWS_MAX));
                return;
            }
            let pin = LockedPin { server: server.clone(), kind, name: name.to_owned() };
            if self.lock.pins.insert(read, pin).is_some() {
                self.mistake(digest.span().start, "this digest stands here twice");
            }
        }
    }
}

/// A name as a key of TOML, on one line whatever it holds: JSON escapes all but one character that TOML wants escaped.
fn quoted(name: &str) -> String {
    serde_json::Value::String(name.to_owned()).to_string().replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_back_whatever_the_names_are() {
        let mut lock = PinLock::default();
        let odd = "x\" = []\n[git]\u{202e}\u{7f}\u{1}";
        for (server, kind, name) in [
            ("git", PinKind::Tool, "log"),
            ("git", PinKind::Tool, odd),
            ("git", PinKind::Template, "git://{repo}/x"),
            ("git", PinKind::Instructions, ""),
            ("7", PinKind::Prompt, "greet"),
        ] {
            for variant in ["a", "b"] {
                let pin = LockedPin { server: ServerId::new(server).unwrap(), kind, name: name.to_owned() };
                lock.pins.insert(digest(&format!("{server}{kind}{name}{variant}")), pin);
            }
        }
        let text = lock.write();
        assert_eq!(PinLock::read("pins.lock", &text).unwrap(), lock, "{text}");
        assert_eq!(PinLock::read("pins.lock", &text).unwrap().write(), text);
        assert!(lock.accepts_more_than(&PinLock::default()) && !PinLock::default().accepts_more_than(&lock));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let hex = digest("x");
        let text = format!(
            "[git.tols]\nx = []\n[git.tools]\na = [\"abc\"]\nb = \"{hex}\"\nc = [\"{hex}\", \"{hex}\"]\n[Git]\n[one]\ntools = 3\n"
        );
        let mistakes = PinLock::read("pins.lock", &text).unwrap_err();
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let told = told.join("\n");
        for expected in [
            "pins.lock:1:1: begin with version = 1",
            "pins.lock:1:6: `tols` is no kind of definition",
            "pins.lock:4:6: a digest is 64",
            "pins.lock:5:5: write a list",
            "twice",
            "pins.lock:7:2:",
            "pins.lock:9:1: here stand names",
        ] {
            assert!(told.contains(expected), "{expected}\n{told}");
        }
        assert!(PinLock::read("pins.lock", "version = 2").unwrap_err()[0].message.contains("version 1 alone"));
        assert!(PinLock::read("pins.lock", "version = \n").unwrap_err()[0].message.contains("not TOML"));
    }

    #[test]
    fn so_many_digests_are_read_and_no_more() {
        let text = |count: u32| {
            let digests: Vec<String> = (0..count).map(|n| format!("\"{}\"", digest(&n.to_string()))).collect();
            format!("version = 1\n[git]\ninstructions = [{}]\n", digests.join(","))
        };
        assert_eq!(PinLock::read("l", &text(limit::PIN_ROWS_MAX)).unwrap().pins.len(), limit::PIN_ROWS_MAX as usize);
        assert!(PinLock::read("l", &text(limit::PIN_ROWS_MAX + 1)).unwrap_err()[0].message.contains("more than"));
    }
}
