//! A mistake in a file: where it stands, what is wrong, what to write instead.
//!
//! Decides how mistakes are worded and placed, not what counts as one. Invariant: reading goes on after a
//! mistake, so that an administrator sees all of them at once.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::ids::{AgentId, Environment, IssuerAlias};

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, as the administrator would name it.
    pub file: String,
    /// Its line, from 1; 0 where the file as a whole is wrong.
    pub line: usize,
    /// Its column in characters, from 1; 0 where the line as a whole is wrong.
    pub column: usize,
    /// What is wrong, and what to write instead: a lower-case fragment.
    pub message: String,
}

impl Mistake {
    /// A mistake about a whole file or directory.
    #[must_use]
    pub fn whole(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, message: message.into() }
    }

    /// A mistake at a byte of a text.
    #[must_use]
    pub fn at(file: impl Into<String>, text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { file: file.into(), line, column, message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(formatter, "{}: {}", self.file, self.message),
            (line, 0) => write!(formatter, "{}:{line}: {}", self.file, self.message),
            (line, column) => write!(formatter, "{}:{line}:{column}: {}", self.file, self.message),
        }
    }
}

/// A name that must be declared somewhere; resolved when every file has been read.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// `[issuers.ALIAS]`.
    Issuer(IssuerAlias),
    /// `[agents.ID]`.
    Agent(AgentId),
    /// The environment of a server, or one of `environments`.
    Environment(Environment),
}

/// One file while it is read: its text, and what has been found so far.
#[derive(Debug)]
pub(super) struct Source<'i> {
    /// The file, as the administrator would name it.
    pub file: String,
    /// Its text.
    pub text: &'i str,
    found: RefCell<Found>,
}

/// What reading a file brought up, apart from its meaning.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What keeps the configuration from being served.
    pub mistakes: Vec<Mistake>,
    /// What does not.
    pub warnings: Vec<Mistake>,
    /// Names that must be declared: place, name.
    pub references: Vec<(Range<usize>, Name)>,
}

impl<'i> Source<'i> {
    /// A file about to be read.
    pub fn new(file: impl Into<String>, text: &'i str) -> Self {
        Self { file: file.into(), text, found: RefCell::default() }
    }

    /// Notes a mistake.
    pub fn mistake(&self, span: &Range<usize>, message: impl Into<String>) {
        let mistake = Mistake::at(&self.file, self.text, span.start, message);
        self.found.borrow_mut().mistakes.push(mistake);
    }

    /// Notes something that is served all the same.
    pub fn warning(&self, span: &Range<usize>, message: impl Into<String>) {
        let warning = Mistake::at(&self.file, self.text, span.start, message);
        self.found.borrow_mut().warnings.push(warning);
    }

    /// Notes a name that must be declared.
    pub fn refers(&self, span: Range<usize>, name: Name) {
        self.found.borrow_mut().references.push((span, name));
    }

    /// Whether a mistake was found so far.
    pub fn has_mistakes(&self) -> bool {
        !self.found.borrow().mistakes.is_empty()
    }

    /// What has been found; the source starts again with nothing.
    pub fn take(&self) -> Found {
        self.found.take()
    }
}

/// Says which of the known names was probably meant, as the end of a sentence; empty where none is near.
#[must_use]
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, known).map_or_else(String::new, |name| format!(", did you mean `{name}`?"))
}

/// The known name that is nearest to what was written, if one is near at all.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ: more than that is another word.
    let distance_max = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_counts_lines_and_characters_from_one() {
        let text = "a = 1\nüb = 2\n";
        let mistake = Mistake::at("servers.toml", text, text.find("= 2").unwrap(), "wrong");
        assert_eq!(mistake.to_string(), "servers.toml:2:4: wrong");
        assert_eq!(Mistake::whole("policies", "missing").to_string(), "policies: missing");
        assert_eq!(Mistake::at("f", text, 10_000, "end").line, 3, "an offset past the end is the end");
    }

    #[test]
    fn a_suggestion_is_a_near_spelling_and_never_another_word() {
        assert_eq!(nearest("enviroment", ["environment", "environments"]), Some("environment"));
        assert_eq!(nearest("ulr", ["url", "uris"]), Some("url"));
        assert_eq!(nearest("colour", ["owner", "review"]), None);
    }
}
