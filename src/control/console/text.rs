//! How text that somebody else wrote is shown: as text, cut, with what cannot be seen made visible.
//!
//! Decides which characters could make a line say something else than it does: those that turn its direction, have no
//! width, or control a terminal. Invariant: nothing that is shown through here is markup, and none of it reaches over
//! its own end.

use maud::{Markup, html};

use crate::limit;

/// Text of somebody else, cut.
pub(super) fn shown(text: &str) -> Markup {
    cut(text, limit::CONSOLE_TEXT_CHARACTERS_MAX)
}

/// The same with another length.
pub(super) fn cut(text: &str, characters_max: usize) -> Markup {
    let end = text.char_indices().nth(characters_max).map_or(text.len(), |(end, _)| end);
    let (kept, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    html! {
        bdi {
            @for part in parts(kept) {
                @match part {
                    Part::Plain(text) => (text),
                    Part::Odd(odd) => span.odd title="a character that cannot be seen" { "U+" (format!("{:04X}", u32::from(odd))) },
                }
            }
            @if !rest.is_empty() { span.quiet title=(format!("{} more characters", rest.chars().count())) { "…" } }
        }
    }
}

/// A whole record, line by line: long, and with its own line breaks.
pub(super) fn whole(text: &str) -> Markup {
    html! {
        @for (number, line) in text.lines().enumerate() {
            @if number > 0 { "\n" }
            (cut(line, usize::MAX))
        }
    }
}

/// A moment, to the second, in UTC.
pub(super) fn moment(at: jiff::Timestamp) -> Markup {
    let text = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    html! { time datetime=(at.to_string()) title="UTC" { (text) } }
}

enum Part<'a> {
    Plain(&'a str),
    Odd(char),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        if is_odd(first) {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            return Some(Part::Odd(first));
        }
        let end = rest.find(is_odd).unwrap_or(rest.len());
        let (plain, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        Some(Part::Plain(plain))
    })
}

/// Whether a character is none that a reader sees where it stands.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_text_and_nothing_hides_in_it() {
        let html = shown("<script>\u{202e}x\u{200b}</script>\n").into_string();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
        assert!(!html.contains('\u{202e}') && html.contains("U+202E"), "{html}");
        assert!(html.contains("U+200B") && html.contains("U+000A"), "{html}");
        let tags = shown("safe\u{e0041}").into_string();
        assert!(tags.contains("U+E0041"), "{tags}");
        assert!(shown("Grüße, 世界, עברית").into_string().contains("Grüße, 世界, עברית"));
    }

    #[test]
    fn a_long_text_is_cut() {
        let most = "ü".repeat(limit::CONSOLE_TEXT_CHARACTERS_MAX);
        assert!(!shown(&most).into_string().contains('…'));
        let html = shown(&format!("{most}xyz")).into_string();
        assert!(html.contains("3 more characters") && !html.contains("xyz"));
    }
}
