//! Names that look like other names, and definitions that are another one under a new name.
//!
//! Decides by the tables of Unicode (UTS 39) and by counting. Invariant: equal names are never look-alikes, for two
//! servers may well have a `search`; what is compared is bounded whatever is listed.

use std::collections::HashMap;

use unicode_security::{MixedScript as _, confusable_detection::skeleton};

use crate::limit;
use crate::wire::canonical;
use crate::wire::{Edit, Json};

/// The names around a definition, by what they look like.
#[derive(Debug, Default)]
pub struct Neighbours {
    names: HashMap<String, Vec<String>>,
}

impl Neighbours {
    /// Of these names, in their own spelling.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut neighbours = Self::default();
        for name in names {
            let same = neighbours.names.entry(looks(name)).or_default();
            // The second one is enough to tell that one is not alone.
            if same.len() < 2 && !same.iter().any(|known| known == name) {
                same.push(name.to_owned());
            }
        }
        neighbours
    }

    /// Whether a name looks like another one.
    pub(super) fn look_like(&self, name: &str) -> bool {
        !name.is_empty() && self.names.get(&looks(name)).is_some_and(|alike| alike.iter().any(|other| other != name))
    }
}

/// What a name looks like, in whatever case.
fn looks(name: &str) -> String {
    skeleton(name).collect::<String>().to_lowercase()
}

/// Whether a name mixes scripts, as no language does.
pub(super) fn is_mixed(name: &str) -> bool {
    !name.is_ascii() && name.split(|character: char| !character.is_alphanumeric()).any(|word| !word.is_single_script())
}

#[cfg(test)]
thread_local! {
    /// How many definitions this thread has read to compare them.
    pub(crate) static SKETCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What a definition says apart from its name, cut, as it is compared with others: pairs of neighbouring characters.
#[derive(Debug)]
pub struct Sketch {
    /// How long it is.
    bytes: usize,
    /// Next to nothing is like next to nothing.
    is_described: bool,
    /// In their order, each as often as it is there.
    pairs: Vec<(char, char)>,
}

impl Sketch {
    /// Of a definition. It takes as long as the definition is; comparing takes little.
    #[must_use]
    pub fn of(definition: &Json) -> Self {
        #[cfg(test)]
        SKETCHED.with(|count| count.set(count.get() + 1));
        let text = body(definition);
        let mut characters = text.chars().filter(|character| !character.is_whitespace());
        let mut last = characters.next();
        let mut pairs: Vec<(char, char)> = characters.filter_map(|next| Some((last.replace(next)?, next))).collect();
        pairs.sort_unstable();
        Self { bytes: text.len(), is_described: text.contains("\"description\""), pairs }
    }

    /// Whether two definitions say nearly the same, their names aside: nine of ten pairs of neighbouring characters.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let (longer, shorter) = (self.bytes.max(other.bytes), self.bytes.min(other.bytes));
        // Too different in length to be that alike.
        if shorter.saturating_mul(5) < longer.saturating_mul(4) || !self.is_described {
            return false;
        }
        let all = self.pairs.len() + other.pairs.len();
        20 * self.shared_with(other) >= 9 * all
    }

    /// How many pairs are in both.
    fn shared_with(&self, other: &Self) -> usize {
        let mut others = other.pairs.iter().peekable();
        let is_there = |pair: &&(char, char)| {
            while others.next_if(|other| other < pair).is_some() {}
            others.next_if_eq(pair).is_some()
        };
        self.pairs.iter().filter(is_there).count()
    }
}

/// What a definition says apart from its name, cut.
fn body(definition: &Json) -> String {
    let nameless = definition
        .value()
        .as_object()
        .map(|object| object.edited(&[Edit::Remove("name"), Edit::Remove("title"), Edit::Remove("uriTemplate")]));
    let mut text = canonical(nameless.as_ref().unwrap_or(definition).value());
    let mut end = limit::PIN_COMPARED_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
