//! Points an assistant's own file at the gateway, and keeps the way back.
//!
//! Changes exactly what was taken over; comments, order and everything else stay. Invariant: nothing is changed before
//! what stood there lies beside it in a file of its own, which is never overwritten.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::{Map, Value, json};

use super::clients::{Assistant, ClientFile};
use super::entry::{ADDRESSES, is_mcp_remote};

/// How the gateway is reached.
#[derive(Debug, Clone)]
pub enum Reach {
    /// Its address.
    Url(String),
    /// In the assistant's own process, with this file.
    Standalone(PathBuf),
}

/// What the assistant calls the gateway.
pub const NAME: &str = "bailiwick";
/// What is shown in the place of something that may be a secret.
const KEPT_BACK: &str = "(kept back)";

/// What stands for the gateway in an assistant's file.
pub fn entry(assistant: Assistant, reach: &Reach, program: &Path) -> Value {
    let program = program.display().to_string();
    match (reach, assistant) {
        (Reach::Standalone(file), _) => {
            let arguments = json!(["stdio", "--standalone", "--config", file.display().to_string()]);
            typed(assistant, "stdio", json!({ "command": program, "args": arguments }))
        }
        // It only starts programs.
        (Reach::Url(url), Assistant::ClaudeDesktop) => json!({ "command": program, "args": ["stdio", "--url", url] }),
        (Reach::Url(url), _) => typed(assistant, "http", json!({ "url": url })),
    }
}

fn typed(assistant: Assistant, kind: &str, entry: Value) -> Value {
    if !matches!(assistant, Assistant::VsCode | Assistant::ClaudeCode) {
        return entry;
    }
    let mut typed = Map::new();
    typed.insert("type".to_owned(), Value::from(kind));
    typed.extend(entry.as_object().cloned().unwrap_or_default());
    Value::Object(typed)
}

const fn main_place(assistant: Assistant) -> &'static str {
    match assistant {
        Assistant::VsCode => "servers",
        Assistant::Codex => "mcp_servers",
        _ => "mcpServers",
    }
}

/// The file's text with those servers gone and the gateway in their place.
///
/// # Errors
/// A lower-case fragment, without anything of the content.
pub fn rewritten(file: &ClientFile, gone: &[(Vec<String>, String)], entry: &Value) -> Result<String, String> {
    if file.assistant == Assistant::Codex {
        return rewritten_toml(&file.text, gone, entry);
    }
    let root = CstRootNode::parse(&file.text, &ParseOptions::default()).map_err(|_| "it is not JSON".to_owned())?;
    let top = root.object_value_or_create().ok_or("it is not an object")?;
    for (place, name) in gone {
        let object: Option<CstObject> =
            place.iter().try_fold(top.clone(), |object, member| object.object_value(member));
        if let Some(property) = object.and_then(|object| object.get(name)) {
            property.remove();
        }
    }
    let servers = top.object_value_or_create(main_place(file.assistant)).ok_or("its servers are not an object")?;
    if let Some(own) = servers.get(NAME) {
        own.remove();
    }
    servers.append(NAME, input(entry));
    Ok(root.to_string())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

fn rewritten_toml(text: &str, gone: &[(Vec<String>, String)], entry: &Value) -> Result<String, String> {
    let mut document: toml_edit::DocumentMut = text.parse().map_err(|_| "it is not TOML".to_owned())?;
    let servers = document.entry(main_place(Assistant::Codex)).or_insert_with(toml_edit::table);
    let servers = servers.as_table_like_mut().ok_or("its mcp_servers is not a table")?;
    for (_, name) in gone {
        servers.remove(name);
    }
    let mut own = toml_edit::Table::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        let value: toml_edit::Value = match value {
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<toml_edit::Array>().into(),
            other => other.as_str().unwrap_or_default().into(),
        };
        own.insert(key, toml_edit::value(value));
    }
    servers.insert(NAME, toml_edit::Item::Table(own));
    Ok(document.to_string())
}

/// What changes in the servers of a file, without anything that may be a secret.
pub fn shown(file: &ClientFile, gone: &[(Vec<String>, String)], entry: &Value) -> String {
    let mut text = String::new();
    for found in &file.found {
        if gone.contains(&(found.place.clone(), found.name.clone())) {
            text.push_str(&prefixed('-', &found.place.join("."), &found.name, &masked(&found.entry)));
        }
    }
    text + prefixed('+', main_place(file.assistant), NAME, entry).as_str()
}

fn prefixed(mark: char, place: &str, name: &str, entry: &Value) -> String {
    let pretty = serde_json::to_string_pretty(entry).unwrap_or_default();
    format!("{place}.{name} = {pretty}").lines().map(|line| format!("{mark}{line}\n")).collect()
}

/// Only what tells a server from another is shown: how it is started, or where it is. Whatever else stands there was
/// not looked at.
fn masked(entry: &Value) -> Value {
    let address =
        ADDRESSES.into_iter().find(|key| entry.get(key).and_then(Value::as_str).is_some_and(|url| !url.is_empty()));
    let members = entry.as_object().into_iter().flatten().map(|(name, value)| {
        let told = match (name.as_str(), address) {
            ("type", _) => true,
            (key, Some(address)) => key == address,
            (key, None) => matches!(key, "command" | "args" | "cwd"),
        };
        let value = match value {
            value if told => value.clone(),
            Value::Object(inner) => {
                Value::Object(inner.keys().map(|name| (name.clone(), Value::from(KEPT_BACK))).collect())
            }
            _ => Value::from(KEPT_BACK),
        };
        (name.clone(), value)
    });
    let mut shown: Map<String, Value> = members.collect();
    // What stands behind the address of mcp-remote is headers and credentials for the most part.
    let (mut remote, mut behind) = (false, false);
    for key in ["command", "args"] {
        let words = match shown.get_mut(key) {
            Some(Value::Array(words)) => words.as_mut_slice(),
            Some(word) => std::slice::from_mut(word),
            None => continue,
        };
        for word in words {
            if behind {
                *word = Value::from(KEPT_BACK);
            }
            behind |= remote;
            remote |= word.as_str().is_some_and(is_mcp_remote);
        }
    }
    Value::Object(shown)
}

/// What was done to one file.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Rewritten {
    /// The file.
    pub file: PathBuf,
    /// What stood there before.
    pub backup: PathBuf,
    /// The command that leads back.
    pub back: String,
}

/// Keeps what stands there, then writes.
///
/// # Errors
/// A lower-case sentence; the file is as it was then.
pub fn write(file: &ClientFile, text: &str) -> Result<Rewritten, String> {
    let problem = |what: &str, error: std::io::Error| format!("{}: {what}: {error}", file.path.display());
    // A link into somebody's collection of settings stays one.
    let path = file.path.canonicalize().map_err(|error| problem("cannot be found", error))?;
    let mode = path.metadata().map_err(|error| problem("cannot be looked at", error))?.permissions().mode();
    let now = std::fs::read_to_string(&path).map_err(|error| problem("cannot be read", error))?;
    if now != file.text {
        return Err(format!(
            "{}: it was changed meanwhile: close the assistant, and run this again",
            file.path.display()
        ));
    }
    let backup = keep(&path, &file.text, mode & 0o600).map_err(|error| problem("no backup could be written", error))?;
    let fresh = path.with_file_name(format!(".{}.bailiwick-{}", file_name(&path), std::process::id()));
    let written = fresh_file(&fresh, text, mode & 0o777).and_then(|()| std::fs::rename(&fresh, &path));
    if let Err(error) = written {
        let _was_it_made = std::fs::remove_file(&fresh);
        return Err(problem("cannot be written", error));
    }
    let back = format!("cp -p {} {}", quoted(&backup), quoted(&path));
    Ok(Rewritten { file: path, backup, back })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn keep(path: &Path, text: &str, mode: u32) -> std::io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let backup = path.with_file_name(format!("{}.before-bailiwick{end}", file_name(path)));
        match fresh_file(&backup, text, mode) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1_000 => number += 1,
            kept => return kept.map(|()| backup),
        }
    }
}

/// Writes a file that is not there yet; it is on the disk afterwards.
pub fn fresh_file(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    // The mask of the process may have taken something away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A path as a shell reads it back.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(assistant: Assistant, path: &Path, text: &str) -> ClientFile {
        ClientFile { assistant, path: path.to_owned(), text: text.to_owned(), found: Vec::new() }
    }

    fn gone(place: &str, name: &str) -> Vec<(Vec<String>, String)> {
        vec![(vec![place.to_owned()], name.to_owned())]
    }

    #[test]
    fn comments_order_and_what_was_not_taken_over_stay() {
        let text = "{\n  // mine\n  \"z\": 1,\n  \"servers\": {\n    \"a\": {\"command\": \"x\"},\n    \"b\": {\"command\": \"y\"}, // kept\n  },\n  \"inputs\": [1.50]\n}\n";
        let vscode = file(Assistant::VsCode, Path::new("x"), text);
        let entry = entry(Assistant::VsCode, &Reach::Url("https://h/mcp".to_owned()), Path::new("/b"));
        let new = rewritten(&vscode, &gone("servers", "a"), &entry).unwrap();
        for kept in ["// mine", "\"z\": 1", "\"b\": {\"command\": \"y\"}", "// kept", "[1.50]"] {
            assert!(new.contains(kept), "{kept}: {new}");
        }
        let value: Value = jsonc_parser::parse_to_serde_value(&new, &ParseOptions::default()).unwrap();
        assert_eq!(value["servers"]["bailiwick"], json!({"type": "http", "url": "https://h/mcp"}));
        assert!(value["servers"].get("a").is_none());
    }

    #[test]
    fn tables_of_codex_are_rewritten_and_others_stay() {
        let text = "# mine\nmodel = \"x\"\n\n[mcp_servers.a]\ncommand = \"x\"\n\n[mcp_servers.b]\nurl = \"https://b\" # kept\n";
        let codex = file(Assistant::Codex, Path::new("x"), text);
        let entry = entry(Assistant::Codex, &Reach::Standalone("/s.toml".into()), Path::new("/b"));
        let new = rewritten(&codex, &gone("mcp_servers", "a"), &entry).unwrap();
        let table: toml::Table = new.parse().unwrap();
        assert!(new.contains("# mine") && new.contains("# kept") && table["mcp_servers"].get("a").is_none(), "{new}");
        assert_eq!(table["mcp_servers"]["bailiwick"]["args"][1].as_str(), Some("--standalone"));
    }

    #[test]
    fn a_backup_is_made_first_and_never_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mcp it's.json");
        std::fs::write(&path, "{}").unwrap();
        let first = write(&file(Assistant::Cursor, &path, "{}"), "{\"a\":1}").unwrap();
        let second = write(&file(Assistant::Cursor, &path, "{\"a\":1}"), "{\"a\":2}").unwrap();
        assert_ne!(first.backup, second.backup);
        assert_eq!(std::fs::read_to_string(&first.backup).unwrap(), "{}");
        assert_eq!(first.backup.metadata().unwrap().permissions().mode() & 0o077, 0);
        assert!(write(&file(Assistant::Cursor, &path, "{}"), "x").unwrap_err().contains("changed meanwhile"));
        assert!(first.back.starts_with("cp -p '") && first.back.contains(r"it'\''s"), "{}", first.back);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn what_is_shown_holds_no_value_that_may_be_a_secret() {
        let entry = json!({"command": "npx", "args": ["mcp-remote", "https://h", "--header", "K: hunter2", "--x=hunter2"],
            "env": {"TOKEN": "hunter2"}, "headers": {"A": "hunter2"}, "other": "hunter2"});
        let shown = masked(&entry).to_string();
        assert!(!shown.contains("hunter2") && shown.contains("TOKEN") && shown.contains("npx"), "{shown}");
        assert!(shown.contains("https://h"), "{shown}");
        for entry in [
            json!({"command": ["npx", "mcp-remote@1", "https://h"], "args": ["--secret", "hunter2"]}),
            json!({"command": "/bin/mcp-remote", "args": ["https://h", "hunter2"]}),
            // Only the first address is looked at, and no word beside it.
            json!({"url": "https://h", "httpUrl": "https://hunter2", "args": ["hunter2"], "command": "hunter2"}),
        ] {
            let shown = masked(&entry).to_string();
            assert!(!shown.contains("hunter2") && shown.contains("https://h"), "{shown}");
        }
    }
}
