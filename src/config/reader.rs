//! Reads one TOML table key by key, against the keys that it may have.
//!
//! A derived struct stops at its first error; an administrator with five mistakes would start the gateway
//! five times. So the table is taken apart here and serde reads the leaves. Decides what a missing, unknown
//! or mistyped key is. Invariant: a `None` from here has been reported, unless the key is optional.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::keys::{Default, Key, Section};
use super::mistake::{Source, did_you_mean};

/// A table while it is taken apart.
pub(super) struct Table<'s, 'i> {
    /// The file that it stands in.
    pub source: &'s Source<'i>,
    /// Its name in messages, such as `servers.notes`; empty at the top.
    pub path: String,
    /// Where it stands.
    pub span: Range<usize>,
    keys: &'static [Key],
    values: Vec<(Spanned<String>, Spanned<DeValue<'i>>)>,
}

impl<'s, 'i> Table<'s, 'i> {
    /// The file's top; `None` where it is not TOML.
    pub fn parse(source: &'s Source<'i>, section: &'static Section) -> Option<Self> {
        let (table, errors) = DeTable::parse_recoverable(source.text);
        for error in &errors {
            source.mistake(&error.span().unwrap_or_default(), format!("this is not TOML: {}", error.message()));
        }
        let span = 0..0;
        errors.is_empty().then(|| Self::new(source, String::new(), span, section, table.into_inner()))
    }

    fn new(
        source: &'s Source<'i>,
        path: String,
        span: Range<usize>,
        section: &'static Section,
        table: DeTable<'i>,
    ) -> Self {
        let values = table.into_iter().map(|(key, value)| {
            let span = key.span();
            (Spanned::new(span, key.into_inner().into_owned()), value)
        });
        let mut values: Vec<_> = values.collect();
        values.retain(|(name, _)| {
            let known = section.keys.iter().any(|key| key.name == name.get_ref());
            if !known {
                let place = if path.is_empty() { "the top level" } else { path.as_str() };
                let near = did_you_mean(name.get_ref(), section.keys.iter().map(|key| key.name));
                let all: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
                let hint = match (near.is_empty(), all.len()) {
                    (false, _) => near,
                    (true, ..=8) => format!(": it has {}", all.join(", ")),
                    (true, _) => ": docs/configuration.md has them all".to_owned(),
                };
                source.mistake(&name.span(), format!("`{}` is not a key of {place}{hint}", name.get_ref()));
            }
            known
        });
        Self { source, path, span, keys: section.keys, values }
    }

    /// The key as messages name it.
    pub fn named(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake.
    pub fn mistake(&self, span: &Range<usize>, message: impl Into<String>) {
        self.source.mistake(span, message);
    }

    /// Whether the file has the key.
    pub fn has(&self, key: &str) -> bool {
        self.values.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Where the key stands, or else the table.
    pub fn place(&self, key: &str) -> Range<usize> {
        let found = self.values.iter().find(|(name, _)| name.get_ref() == key);
        found.map_or_else(|| self.span.clone(), |(name, _)| name.span())
    }

    fn raw(&mut self, key: &str) -> Option<Spanned<DeValue<'i>>> {
        let position = self.values.iter().position(|(name, _)| name.get_ref() == key)?;
        Some(self.values.remove(position).1)
    }

    fn leaf<T: DeserializeOwned>(&self, key: &str, value: Spanned<DeValue<'_>>) -> Option<Spanned<T>> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                self.mistake(&error.span().unwrap_or(span), format!("{}: {}", self.named(key), error.message()));
                None
            }
        }
    }

    /// A key with its place; its default where it is absent, a mistake where it has to be written.
    pub fn at<T: DeserializeOwned>(&mut self, key: &str) -> Option<Spanned<T>> {
        if let Some(value) = self.raw(key) {
            return self.leaf(key, value);
        }
        match self.keys.iter().find(|known| known.name == key).map(|known| (known.kind, known.default)) {
            Some((_, Default::Value(text))) => match DeValue::parse(text) {
                Ok(value) => self.leaf(key, value).map(|value| Spanned::new(self.span.clone(), value.into_inner())),
                Err(error) => {
                    self.mistake(&self.span, format!("{}: the default is broken: {error}", self.named(key)));
                    None
                }
            },
            Some((kind, Default::Required)) => {
                let place = if self.path.is_empty() { "the file" } else { &self.path };
                self.mistake(
                    &self.span,
                    format!("{place} has no `{key}`: write {key} = ... ({})", kind.replace('`', "")),
                );
                None
            }
            Some((_, Default::Absent)) => None,
            None => {
                self.mistake(&self.span, format!("{} is read but not documented; please report this", self.named(key)));
                None
            }
        }
    }

    /// A key; its default where it is absent, a mistake where it has to be written.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.at(key).map(Spanned::into_inner)
    }

    /// A key that is a table.
    pub fn table(&mut self, key: &str, section: &'static Section) -> Option<Self> {
        let value = self.raw(key)?;
        let span = value.span();
        let path = self.named(key);
        if let DeValue::Table(table) = value.into_inner() {
            return Some(Self::new(self.source, path, span, section, table));
        }
        self.mistake(&span, format!("{path} is not a table: write [{path}] and its keys below"));
        None
    }

    /// A table that counts as empty when it is absent, so that the defaults apply.
    pub fn table_or_empty(&mut self, key: &str, section: &'static Section) -> Option<Self> {
        if self.has(key) {
            return self.table(key, section);
        }
        Some(Self::new(self.source, self.named(key), self.span.clone(), section, DeTable::new()))
    }

    /// A key that is a list of tables.
    pub fn tables(&mut self, key: &str, section: &'static Section) -> Vec<Self> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let (span, path) = (value.span(), self.named(key));
        let DeValue::Array(array) = value.into_inner() else {
            self.mistake(&span, format!("{path} is not a list of tables: write {key} = [{{ ... }}]"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in array {
            let span = element.span();
            match element.into_inner() {
                DeValue::Table(table) => tables.push(Self::new(self.source, path.clone(), span, section, table)),
                _ => self.mistake(&span, format!("{path} is a list of tables: write {{ ... }}")),
            }
        }
        tables
    }

    /// A key whose tables have names that the administrator chose; a name with a wrong spelling is a mistake.
    pub fn named_tables<N>(&mut self, key: &str, section: &'static Section, name: Spell<N>) -> Vec<(N, Self)> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let (span, path) = (value.span(), self.named(key));
        let DeValue::Table(table) = value.into_inner() else {
            self.mistake(&span, format!("{path} is not a table: write [{path}.NAME] and its keys below"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (written, value) in table {
            let span = written.span();
            let path = format!("{path}.{}", written.get_ref());
            let spelled = name(written.get_ref());
            match (spelled, value.into_inner()) {
                (Ok(name), DeValue::Table(table)) => {
                    tables.push((name, Self::new(self.source, path, span, section, table)));
                }
                (Err(problem), _) => self.mistake(&span, problem),
                (Ok(_), _) => self.mistake(&span, format!("{path} is not a table: write [{path}] and its keys below")),
            }
        }
        tables
    }

    /// A key whose value is a table of strings, each with its place.
    pub fn strings(&mut self, key: &str) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let (span, path) = (value.span(), self.named(key));
        let DeValue::Table(table) = value.into_inner() else {
            self.mistake(&span, format!("{path} is not a table: write {key} = {{ NAME = \"value\" }}"));
            return Vec::new();
        };
        let mut strings = Vec::new();
        for (name, value) in table {
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            if let Some(value) = self.leaf(&format!("{key}.{}", name.get_ref()), value) {
                strings.push((name, value));
            }
        }
        strings
    }
}

/// A key that is accepted and then read by nobody would be a switch that does nothing, so it is a mistake.
/// Where there are others already, they are why it was not read.
impl Drop for Table<'_, '_> {
    fn drop(&mut self) {
        for (name, _) in &self.values {
            if !self.source.has_mistakes() {
                self.mistake(&name.span(), format!("{} is not read; please report this", self.named(name.get_ref())));
            }
        }
    }
}

/// How the name of a table is spelled: the name, or what is wrong with it.
pub(super) type Spell<N> = fn(&str) -> Result<N, String>;
