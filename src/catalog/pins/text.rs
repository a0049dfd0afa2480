//! Characters that make a text say something else to a model than a person reads.
//!
//! Decides which are invisible, which turn the direction, which control; and how they are made visible. Invariant: what
//! [`visible`] answers has none of them, line breaks and tabs aside.

use std::fmt::Write as _;

/// What is odd about a character where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Odd {
    /// It turns the direction of writing.
    Bidirectional,
    /// It has no width, or none that shows.
    Invisible,
    /// It controls a terminal.
    Control,
}

/// What is odd about a character, whatever stands around it.
pub(super) fn odd(character: char) -> Option<Odd> {
    match character {
        '\n' | '\r' | '\t' => None,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(Odd::Bidirectional)
        }
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => Some(Odd::Invisible),
        control if control.is_control() => Some(Odd::Control),
        _ => None,
    }
}

/// Whatever is odd in a text. One mark that shapes the character before it is as people write emoji and some scripts;
/// two in a row, or one after a Latin letter, say nothing to anybody who reads.
pub(super) fn oddities(text: &str) -> impl Iterator<Item = Odd> {
    let mut before: Option<char> = None;
    text.chars().filter_map(move |character| {
        let found = odd(character).filter(|_| !(shapes(character) && before.is_some_and(is_shaped)));
        before = Some(character);
        found
    })
}

/// Whether a character shapes the one before it: a choice between text and picture, a joiner.
const fn shapes(character: char) -> bool {
    matches!(character, '\u{fe0e}' | '\u{fe0f}' | '\u{200c}' | '\u{200d}')
}

/// Whether a character may be shaped: no Latin letter, nothing odd itself, but for a picture that is joined to the next.
fn is_shaped(character: char) -> bool {
    matches!(character, '0'..='9' | '#' | '*' | '\u{fe0f}') || ((character as u32) > 0x2af && odd(character).is_none())
}

/// The text with everything odd spelled out, as `\u{202e}`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if odd(character).is_some() || character == '\r' {
            // Writing to a string cannot fail.
            let _infallible = write!(shown, "\\u{{{:04x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}
