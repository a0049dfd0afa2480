//! The rows of a set, and which of them come and go from one set to the next.
//!
//! Decides what a row is: a line of a rule file, a key of a TOML file. Rules themselves are left out: policy tells
//! them as sentences. Invariant: a value that may be a secret is compared and never shown.

use std::collections::BTreeMap;

use super::secret::SecretReference;
use super::set::{FileSet, SERVERS_FILE};

/// What changes between two sets, apart from the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedRows {
    /// Rows that are new, or have a new value, as `file: row`.
    pub added: Vec<String>,
    /// Rows that are gone, or had another value.
    pub removed: Vec<String>,
    /// A row with a command that fetches a secret is new or changed: its arguments count, although they are not shown.
    pub runs_something_else: bool,
}

/// A row's name in its file, and its value: as it is, to be compared.
type Rows = BTreeMap<(String, String), String>;

impl FileSet {
    /// What changes from this set to another one.
    #[must_use]
    pub fn changed_rows(&self, next: &Self) -> ChangedRows {
        let (old, new) = (self.rows(), next.rows());
        let missing = |from: &Rows, other: &Rows| -> Vec<String> {
            let changed = from.iter().filter(|(row, value)| other.get(*row) != Some(*value));
            changed.map(|((file, name), value)| shown(file, name, value)).collect()
        };
        let runs = |((_, name), value): (&(String, String), &String)| runs_something(name, value);
        let runs_something_else = new.iter().filter(|(row, value)| old.get(*row) != Some(*value)).any(runs);
        ChangedRows { added: missing(&new, &old), removed: missing(&old, &new), runs_something_else }
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::new();
        for (name, bytes) in self.files() {
            let text = String::from_utf8_lossy(bytes);
            // Tests decide nothing.
            if name == "tests.toml" {
                continue;
            }
            let file = if name == SERVERS_FILE { name.to_owned() } else { format!("policies/{name}") };
            match text.parse::<toml::Table>() {
                Ok(table) if name.ends_with(".toml") => flatten(&file, "", &toml::Value::Table(table), &mut rows),
                _ => {
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                    let lines = lines.filter(|line| !(name.ends_with(".csv") && is_rule(line)));
                    rows.extend(lines.map(|line| ((file.clone(), line.to_owned()), String::new())));
                }
            }
        }
        rows
    }
}

/// Cells may stand in quotes.
fn is_rule(line: &str) -> bool {
    line.split(',').next().is_some_and(|cell| cell.trim().trim_matches('"').trim() == "p")
}

/// Every leaf with the whole path to it. The depth is that of the TOML reader, which is bounded.
fn flatten(file: &str, path: &str, value: &toml::Value, rows: &mut Rows) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(file, &path, value, rows);
            }
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            for (index, value) in array.iter().enumerate() {
                flatten(file, &format!("{path}[{index}]"), value, rows);
            }
        }
        leaf => drop(rows.insert((file.to_owned(), path.to_owned()), leaf.to_string())),
    }
}

fn runs_something(name: &str, value: &str) -> bool {
    value.contains("exec:") && !name.ends_with(".title")
}

fn shown(file: &str, name: &str, value: &str) -> String {
    let hidden = || {
        let text = value.parse::<toml::Value>().ok().and_then(|value| value.as_str().map(str::to_owned));
        match text.as_deref().map(SecretReference::parse) {
            // Names the program, and not its arguments.
            Some(Ok(reference)) => reference.to_string(),
            _ => "(not shown)".to_owned(),
        }
    };
    match value {
        "" => format!("{file}: {name}"),
        _ if name.contains(".variables.") || value.contains("exec:") => format!("{file}: {name} = {}", hidden()),
        _ => format!("{file}: {name} = {value}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn set(servers: &str, policy: &str, agents: &str) -> FileSet {
        let place = tempfile::tempdir().unwrap();
        let policies = place.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&place.path().join("servers.toml"), servers);
        write(&policies.join("policy.csv"), policy);
        write(&policies.join("agents.toml"), agents);
        FileSet::read(&place.path().join("servers.toml")).unwrap()
    }

    #[test]
    fn rows_of_every_file_come_and_go_by_name_and_value() {
        let old = set(
            "[servers.a]\nurl = \"https://a\"\n",
            "g, user:x/y, role:z, *\np, a\n# no\n",
            "[agents.b]\nowner = \"o\"\n",
        );
        let new = set(
            "[servers.a]\nurl = \"https://b\"\n",
            "p, b\n",
            "[agents.b]\nowner = \"o\"\n[[agents.b.clients]]\nid = \"c\"\n",
        );
        let changed = old.changed_rows(&new);
        assert_eq!(
            changed.added,
            ["policies/agents.toml: agents.b.clients[0].id = \"c\"", "servers.toml: servers.a.url = \"https://b\""]
        );
        assert_eq!(
            changed.removed,
            ["policies/policy.csv: g, user:x/y, role:z, *", "servers.toml: servers.a.url = \"https://a\""]
        );
        assert!(!changed.runs_something_else);
        assert_eq!(new.changed_rows(&new), ChangedRows::default());
    }

    #[test]
    fn what_may_be_a_secret_is_compared_and_not_shown() {
        let servers = |value: &str, word: &str| {
            format!(
                "[servers.a]\ncommand = [\"x\"]\nvariables = {{ NOTE = \"{value}\" }}\n[servers.a.credential]\n\
                 secret = 'exec:[\"/bin/pass\", \"{word}\"]'\n"
            )
        };
        let old = set(&servers("hunter1", "one"), "", "");
        let changed = old.changed_rows(&set(&servers("hunter2", "two"), "", ""));
        let text = format!("{changed:?}");
        assert_eq!(changed.added.len(), 2, "{text}");
        assert!(changed.runs_something_else && text.contains("exec:/bin/pass"), "{text}");
        assert!(!["hunter", "one", "two"].iter().any(|secret| text.contains(secret)), "{text}");
    }
}
