//! Reads `conditions.toml`: every key is known, every value has its type, every mistake its place.
//!
//! Invariant: a condition that was read cannot fail later, is bounded in size, and mentions itself neither
//! directly nor through others.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Condition;
use super::expression::{Bound, Expression, Test};
use crate::identity::ClientProof;
use crate::ids::ConditionName;
use crate::limit::{CONDITION_DEPTH_MAX, CONDITION_PARTS_MAX};
use crate::policy::label::Seen;
use crate::policy::source::{Mistake, position};

/// Reads all conditions of a file, in its order.
pub(in crate::policy) fn conditions(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Condition> {
    let document = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(error) => {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            mistakes.push(Mistake::at(file, line, column, error.message()));
            return Vec::new();
        }
    };
    let tables: HashMap<&str, &Spanned<DeValue<'_>>> =
        document.iter().map(|(name, value)| (name.get_ref().as_ref(), value)).collect();
    let mut reader = Reader { file, text, tables, done: HashMap::new(), path: Vec::new(), parts: 0, mistakes };
    let mut found = Vec::new();
    for (key, value) in &document {
        let name = match ConditionName::new(key.get_ref()) {
            Ok(name) => name,
            Err(error) => {
                reader.mistake(key.span(), error.to_string());
                continue;
            }
        };
        reader.parts = 0;
        reader.path.clear();
        let hint =
            value.get_ref().as_table().and_then(|table| table.get("hint")).and_then(|hint| hint.get_ref().as_str());
        let hint = hint.map(str::to_owned);
        if let Some(expression) = reader.named(key.get_ref(), key.span()) {
            found.push(Condition { name, expression, hint });
        }
    }
    found
}

/// Reads one file.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    tables: HashMap<&'a str, &'a Spanned<DeValue<'a>>>,
    /// What was read, and how many parts it has.
    done: HashMap<&'a str, (Option<Arc<Expression>>, usize)>,
    /// Names being read, outermost first.
    path: Vec<&'a str>,
    parts: usize,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

/// The keys of a table; every one has to be taken.
pub(in crate::policy) struct Table<'t, 'i> {
    entries: Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)>,
    pub(in crate::policy) span: Range<usize>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(in crate::policy) fn of(value: &'t Spanned<DeValue<'i>>) -> Option<Self> {
        let table = value.get_ref().as_table()?;
        Some(Self { entries: table.iter().collect(), span: value.span() })
    }

    pub(in crate::policy) fn take(&mut self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        Some(self.entries.remove(at).1)
    }

    /// What nobody took.
    pub(in crate::policy) fn rest(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        self.entries.iter().map(|(name, _)| (name.get_ref().as_ref(), name.span()))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) {
        let (line, column) = position(self.text, span.start);
        self.mistakes.push(Mistake::at(self.file, line, column, message));
    }

    /// The condition of that name; read once.
    fn named(&mut self, name: &str, span: Range<usize>) -> Option<Arc<Expression>> {
        if let Some((done, parts)) = self.done.get(name) {
            self.parts += parts;
            return done.clone();
        }
        let Some((name, value)) = self.tables.get_key_value(name).map(|(name, value)| (*name, *value)) else {
            self.mistake(span, format!("there is no condition `{name}`; write [{name}] or another name"));
            return None;
        };
        if self.path.contains(&name) {
            self.mistake(span, format!("`{name}` is built on itself; write it out"));
            return None;
        }
        self.path.push(name);
        let before = self.parts;
        let expression = self.expression(value, 0);
        self.path.pop();
        self.done.insert(name, (expression.clone(), self.parts.saturating_sub(before)));
        expression
    }

    fn expression(&mut self, value: &'a Spanned<DeValue<'a>>, depth: usize) -> Option<Arc<Expression>> {
        self.parts += 1;
        if depth + self.path.len() > CONDITION_DEPTH_MAX {
            self.mistake(value.span(), format!("conditions nest at most {CONDITION_DEPTH_MAX} deep; flatten this"));
            return None;
        }
        if self.parts > CONDITION_PARTS_MAX {
            self.mistake(value.span(), format!("a condition has at most {CONDITION_PARTS_MAX} parts; split it"));
            return None;
        }
        if let Some(name) = value.get_ref().as_str() {
            let named = self.named(name, value.span());
            if self.parts > CONDITION_PARTS_MAX {
                self.mistake(value.span(), format!("a condition has at most {CONDITION_PARTS_MAX} parts; split it"));
                return None;
            }
            return named;
        }
        let Some(mut table) = Table::of(value) else {
            self.mistake(value.span(), "a condition is a table of tests, or the name of another condition");
            return None;
        };
        let before = self.mistakes.len();
        let mut parts = Vec::new();
        if depth == 0
            && let Some(hint) = table.take("hint")
            && hint.get_ref().as_str().is_none_or(|hint| hint.is_empty() || hint.len() > 300)
        {
            self.mistake(hint.span(), "hint is a text of 1 to 300 bytes that says what to do");
        }
        self.combinations(&mut table, depth, &mut parts);
        self.argument(&mut table, &mut parts);
        self.caller(&mut table, &mut parts);
        self.situation(&mut table, &mut parts);
        if let Some(window) = table.take("time") {
            parts.extend(self.window(window).map(|window| Arc::new(Expression::Time(window))));
        }
        for (key, span) in table.rest().map(|(key, span)| (key.to_owned(), span)).collect::<Vec<_>>() {
            self.mistake(span, format!("`{key}` is not a test; see the list in the documentation of conditions"));
        }
        if self.mistakes.len() > before {
            return None;
        }
        match parts.len() {
            0 => {
                self.mistake(table.span.clone(), "the condition tests nothing; write at least one test");
                None
            }
            1 => parts.pop(),
            _ => Some(Arc::new(Expression::All(parts))),
        }
    }

    fn combinations(&mut self, table: &mut Table<'a, 'a>, depth: usize, parts: &mut Vec<Arc<Expression>>) {
        for key in ["all", "any"] {
            let Some(value) = table.take(key) else { continue };
            let Some(list) = value.get_ref().as_array().filter(|list| !list.is_empty()) else {
                self.mistake(value.span(), format!("`{key}` is a list of conditions, at least one"));
                continue;
            };
            let inner: Vec<_> = list.iter().filter_map(|part| self.expression(part, depth + 1)).collect();
            parts.push(Arc::new(if key == "all" { Expression::All(inner) } else { Expression::Any(inner) }));
        }
        if let Some(value) = table.take("not") {
            parts.extend(self.expression(value, depth + 1).map(|part| Arc::new(Expression::Not(part))));
        }
    }

    fn argument(&mut self, table: &mut Table<'a, 'a>, parts: &mut Vec<Arc<Expression>>) {
        if let Some(value) = table.take("only") {
            parts.extend(self.texts(value, true).map(|names| Arc::new(Expression::Only(names))));
        }
        let path = table.take("argument").map(|value| (self.path(value), value.span()));
        let mut tests = Vec::new();
        for (key, bound) in RANGES {
            if let Some(value) = table.take(key) {
                tests.extend(self.number(value).map(|limit| Test::Range { bound: *bound, limit }));
            }
        }
        for (key, length) in SIZES {
            if let Some(value) = table.take(key) {
                tests.extend(self.size(value).map(length));
            }
        }
        for (key, of) in TEXTS {
            if let Some(value) = table.take(key) {
                tests.extend(self.texts(value, false).map(of));
            }
        }
        if let Some(value) = table.take("path_under") {
            tests.extend(self.directories(value).map(Test::PathUnder));
        }
        if let Some(value) = table.take("url_host_in") {
            tests.extend(self.hosts(value).map(Test::UrlHostIn));
        }
        if let Some(value) = table.take("equals") {
            tests.extend(self.scalar(value).map(|scalar| Test::OneOf(vec![scalar])));
        }
        if let Some(value) = table.take("one_of") {
            match value.get_ref().as_array().filter(|list| !list.is_empty()) {
                Some(list) => tests.push(Test::OneOf(list.iter().filter_map(|value| self.scalar(value)).collect())),
                None => self.mistake(value.span(), "`one_of` is a list of values, at least one"),
            }
        }
        let present = table.take("present").and_then(|value| self.boolean(value));
        match path {
            Some((Some(path), span)) => {
                if tests.is_empty() && present.is_none() {
                    self.mistake(
                        span,
                        "the argument is not tested; write a test such as at_most or one_of, or present",
                    );
                }
                parts.extend(present.map(|expected| Arc::new(Expression::Present(path.clone(), expected))));
                parts.extend(tests.into_iter().map(|test| Arc::new(Expression::Argument(path.clone(), test))));
            }
            Some((None, _)) => {}
            None if !tests.is_empty() || present.is_some() => {
                self.mistake(
                    table.span.clone(),
                    "this tests an argument but does not name it; write argument = \"...\"",
                );
            }
            None => {}
        }
    }

    fn caller(&mut self, table: &mut Table<'a, 'a>, parts: &mut Vec<Arc<Expression>>) {
        if let Some(value) = table.take("client_proof") {
            match value.get_ref().as_str().and_then(client_proof) {
                Some(proof) => parts.push(Arc::new(Expression::ClientProof(proof))),
                None => {
                    self.mistake(value.span(), "write none, public, secret, private_key, mtls or svid");
                }
            }
        }
        if let Some(value) = table.take("authenticated_within") {
            let duration = value.get_ref().as_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
            match duration.map(|duration| duration.as_secs()).filter(|seconds| *seconds > 0) {
                Some(seconds) => parts.push(Arc::new(Expression::AuthenticatedWithin(seconds))),
                None => self.mistake(value.span(), "write a duration such as \"15m\" or \"8h\""),
            }
        }
        if let Some(value) = table.take("acr") {
            parts.extend(self.texts(value, false).map(|accepted| Arc::new(Expression::Acr(accepted))));
        }
        if let Some(value) = table.take("human") {
            parts.extend(self.boolean(value).map(|expected| Arc::new(Expression::Human(expected))));
        }
        if let Some(value) = table.take("autonomous") {
            parts.extend(self.boolean(value).map(|expected| Arc::new(Expression::Autonomous(expected))));
        }
    }
}

impl<'a> Reader<'a> {
    /// What is known of the moment of a call.
    fn situation(&mut self, table: &mut Table<'a, 'a>, parts: &mut Vec<Arc<Expression>>) {
        if let Some(value) = table.take("mandate") {
            parts.extend(self.boolean(value).map(|expected| Arc::new(Expression::Mandate(expected))));
        }
        if let Some(value) = table.take("mandate_template") {
            parts.extend(self.texts(value, false).map(|accepted| Arc::new(Expression::Template(accepted))));
        }
        let Some(value) = table.take("seen") else { return };
        let Some(names) = self.texts(value, false) else { return };
        let mut labels = Seen::NOTHING;
        for name in names {
            match Seen::named(&name) {
                Some(label) => labels = labels.with(label),
                None => {
                    let message =
                        format!("`{name}` is nothing that is seen; write untrusted, internal, private or regulated");
                    return self.mistake(value.span(), message);
                }
            }
        }
        parts.push(Arc::new(Expression::Seen(labels)));
    }
}

const RANGES: &[(&str, Bound)] =
    &[("at_least", Bound::AtLeast), ("at_most", Bound::AtMost), ("above", Bound::Above), ("below", Bound::Below)];

type OfSize = fn(usize) -> Test;
const SIZES: &[(&str, OfSize)] = &[
    ("length_at_least", |limit| Test::Length(Bound::AtLeast, limit)),
    ("length_at_most", |limit| Test::Length(Bound::AtMost, limit)),
    ("elements_at_least", |limit| Test::Elements(Bound::AtLeast, limit)),
    ("elements_at_most", |limit| Test::Elements(Bound::AtMost, limit)),
];

type OfTexts = fn(Vec<String>) -> Test;
const TEXTS: &[(&str, OfTexts)] = &[("starts_with", Test::StartsWith), ("ends_with", Test::EndsWith)];

const PROOFS: &[ClientProof] = &[
    ClientProof::None,
    ClientProof::Public,
    ClientProof::Secret,
    ClientProof::PrivateKey,
    ClientProof::Mtls,
    ClientProof::Svid,
];

/// A client proof as files spell it.
pub(in crate::policy) fn client_proof(text: &str) -> Option<ClientProof> {
    PROOFS.iter().copied().find(|proof| proof.as_str() == text)
}
