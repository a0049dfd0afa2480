//! Where assistants keep the servers that they use, and which they are.
//!
//! Reads tolerantly: comments, trailing commas, fields that nobody here knows. Refuses to judge what it finds.
//! Invariant: nothing is written here.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::limit;

/// An assistant whose configuration can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assistant {
    /// Claude Desktop
    ClaudeDesktop,
    /// Claude Code: ~/.claude.json and .mcp.json
    ClaudeCode,
    /// Cursor: ~/.cursor/mcp.json and .cursor/mcp.json
    Cursor,
    /// Visual Studio Code: .vscode/mcp.json and the user's profile
    #[value(name = "vscode")]
    #[serde(rename = "vscode")]
    VsCode,
    /// Codex: ~/.codex/config.toml
    Codex,
}

/// One file of an assistant.
#[derive(Debug, Clone)]
pub struct ClientFile {
    /// Whose it is.
    pub assistant: Assistant,
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it names.
    pub found: Vec<Found>,
}

/// One server that a file names.
#[derive(Debug, Clone)]
pub struct Found {
    /// The members that lead to the object in which it stands.
    pub place: Vec<String>,
    /// Its name there.
    pub name: String,
    /// What is said about it.
    pub entry: Value,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// The user's home directory.
    pub home: PathBuf,
    /// The project that is open.
    pub project: PathBuf,
}

/// Every file that there may be, in the order in which they are read.
pub fn files(places: &Places) -> Vec<(Assistant, PathBuf)> {
    use Assistant::{ClaudeCode, ClaudeDesktop, Codex, Cursor, VsCode};
    let Places { home, project } = places;
    let mac = home.join("Library/Application Support");
    let xdg = home.join(".config");
    vec![
        (ClaudeDesktop, mac.join("Claude/claude_desktop_config.json")),
        (ClaudeDesktop, xdg.join("Claude/claude_desktop_config.json")),
        (ClaudeCode, home.join(".claude.json")),
        (ClaudeCode, project.join(".mcp.json")),
        (Cursor, home.join(".cursor/mcp.json")),
        (Cursor, project.join(".cursor/mcp.json")),
        (VsCode, mac.join("Code/User/mcp.json")),
        (VsCode, xdg.join("Code/User/mcp.json")),
        (VsCode, project.join(".vscode/mcp.json")),
        (Codex, home.join(".codex/config.toml")),
    ]
}

/// Reads one; `None` where there is none.
///
/// # Errors
/// A lower-case fragment, without anything of the content.
pub fn read(assistant: Assistant, path: &Path) -> Result<Option<ClientFile>, String> {
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if metadata.len() > limit::INIT_FILE_BYTES_MAX => {
            return Err(format!("it is larger than {} MiB", limit::INIT_FILE_BYTES_MAX >> 20));
        }
        Ok(_) => std::fs::read_to_string(path).map_err(|error| error.to_string())?,
    };
    let found = found(assistant, &text)?;
    Ok(Some(ClientFile { assistant, path: path.to_owned(), text, found }))
}

fn found(assistant: Assistant, text: &str) -> Result<Vec<Found>, String> {
    let document = document(assistant, text)?;
    let mut all = Vec::new();
    let place = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    match assistant {
        Assistant::Codex => take(&document, &place(&["mcp_servers"]), &mut all),
        Assistant::VsCode => take(&document, &place(&["servers"]), &mut all),
        _ => take(&document, &place(&["mcpServers"]), &mut all),
    }
    if assistant == Assistant::ClaudeCode {
        let projects = document.get("projects").and_then(Value::as_object);
        for project in projects.into_iter().flat_map(serde_json::Map::keys) {
            take(&document, &place(&["projects", project, "mcpServers"]), &mut all);
        }
    }
    all.truncate(limit::INIT_SERVERS_MAX);
    Ok(all)
}

fn take(document: &Value, place: &[String], all: &mut Vec<Found>) {
    let object = place.iter().try_fold(document, |value, name| value.get(name)).and_then(Value::as_object);
    all.extend(object.into_iter().flatten().map(|(name, entry)| Found {
        place: place.to_vec(),
        name: name.clone(),
        entry: entry.clone(),
    }));
}

/// The whole file as a value; what a parser says of a mistake may quote the file, so only the place is kept.
fn document(assistant: Assistant, text: &str) -> Result<Value, String> {
    if assistant == Assistant::Codex {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
            format!("it is not TOML (line {line})")
        })?;
        return serde_json::to_value(table).map_err(|_| "it has a value that is not understood".to_owned());
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let parsed = jsonc_parser::parse_to_serde_value::<Value>(text, &jsonc_parser::ParseOptions::default());
    parsed.map_err(|error| format!("it is not JSON (line {})", error.line_display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_read() {
        let text = "{ // mine\n \"servers\": { /* one */ \"a\": {\"command\": \"x\",}, }, }";
        let found = found(Assistant::VsCode, text).unwrap();
        assert_eq!((found.len(), found[0].name.as_str()), (1, "a"));
    }

    #[test]
    fn servers_of_projects_are_found_too() {
        let text = r#"{"mcpServers": {"a": {}}, "projects": {"/p": {"mcpServers": {"b": {}}, "history": []}}}"#;
        let found = found(Assistant::ClaudeCode, text).unwrap();
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found[1].place, ["projects", "/p", "mcpServers"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_quoted() {
        let secret = "sk-1234567890abcdef";
        for assistant in [Assistant::Codex, Assistant::Cursor] {
            let problem = found(assistant, &format!("{{ \"a\n {secret} = [")).unwrap_err();
            assert!(problem.contains("line") && !problem.contains("sk-"), "{problem}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let many: Vec<String> = (0..=limit::INIT_SERVERS_MAX).map(|n| format!("\"s{n}\": {{}}")).collect();
        let text = format!("{{\"mcpServers\": {{{}}}}}", many.join(","));
        assert_eq!(found(Assistant::Cursor, &text).unwrap().len(), limit::INIT_SERVERS_MAX);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mcp.json");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(limit::INIT_FILE_BYTES_MAX + 1).unwrap();
        assert!(read(Assistant::Cursor, &path).unwrap_err().contains("larger"));
    }
}
