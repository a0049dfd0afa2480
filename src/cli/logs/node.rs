//! Lines under lines, drawn as a tree.
//!
//! Decides how a branch looks. Invariant: nothing of a text reaches a terminal as anything but text.

use std::io::{self, Write};

use anstyle::Style;

use super::super::output::QUIET;
use super::line::safe;

/// A line and what it led to.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) word: &'static str,
    pub(super) style: Style,
    pub(super) text: String,
    pub(super) children: Vec<Self>,
}

impl Node {
    pub(super) fn new(word: &'static str, style: Style, text: impl Into<String>) -> Self {
        Self { word, style, text: text.into(), children: Vec::new() }
    }

    pub(super) fn plain(word: &'static str, text: impl Into<String>) -> Self {
        Self::new(word, QUIET, text)
    }

    /// Prints it, with what is under it.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.line(out, "")?;
        self.under(out, "")
    }

    fn line(&self, out: &mut impl Write, lead: &str) -> io::Result<()> {
        let Self { word, style, text, .. } = self;
        writeln!(out, "{QUIET}{lead}{QUIET:#}{style}{word:<10}{style:#} {}", safe(text, usize::MAX))
    }

    fn under(&self, out: &mut impl Write, lead: &str) -> io::Result<()> {
        let last = self.children.len().saturating_sub(1);
        for (place, child) in self.children.iter().enumerate() {
            let (here, below) = if place == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.line(out, &format!("{lead}{here}"))?;
            child.under(out, &format!("{lead}{below}"))?;
        }
        Ok(())
    }
}
