//! How a changed definition is shown to whoever accepts it.
//!
//! Decides nothing. Invariant: what is shown is the whole definition in one order, and has no character that a reader
//! does not see.

use similar::TextDiff;

use super::text::visible;
use crate::limit;
use crate::wire::{Json, canonical};

/// A definition line by line, members in their canonical order, everything odd spelled out.
#[must_use]
pub fn pretty(definition: &Json) -> String {
    visible(&indented(&canonical(definition.value())))
}

/// Canonical text over lines, digit for digit as it is. A line break within a string is spelled out and made.
fn indented(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() * 2);
    let (mut depth, mut inside, mut escaped) = (0_usize, false, false);
    let line = |lines: &mut String, depth: usize| {
        lines.push('\n');
        lines.push_str(&"  ".repeat(depth));
    };
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if inside {
            lines.push(character);
            match character {
                'n' if escaped && characters.peek() != Some(&'"') => line(&mut lines, depth + 1),
                '"' if !escaped => inside = false,
                _ => {}
            }
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '"' => {
                inside = true;
                lines.push(character);
            }
            '{' | '[' => {
                lines.push(character);
                if !matches!(characters.peek(), Some('}' | ']')) {
                    depth += 1;
                    line(&mut lines, depth);
                }
            }
            '}' | ']' => {
                if !lines.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    line(&mut lines, depth);
                }
                lines.push(character);
            }
            ',' => {
                lines.push(character);
                line(&mut lines, depth);
            }
            ':' => lines.push_str(": "),
            other => lines.push(other),
        }
    }
    lines
}

/// What changes from one definition to another, as `diff -u` writes it; all of it where there was none before.
#[must_use]
pub fn diff(before: Option<&Json>, after: &Json) -> String {
    let (old, new) = (before.map(pretty).unwrap_or_default(), pretty(after));
    if old.lines().count().max(new.lines().count()) > limit::PIN_DIFF_LINES_MAX {
        let lines = |mark: char, text: &str| text.lines().map(|line| format!("{mark}{line}\n")).collect::<String>();
        return format!("{}{}", lines('-', &old), lines('+', &new));
    }
    let (old, new) = (broken(&old), broken(&new));
    TextDiff::from_lines(&old, &new).unified_diff().context_radius(3).header("accepted", "listed now").to_string()
}

/// With a line break at its end, which every line of a diff has.
fn broken(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}
