//! How each client spells a remote MCP server: its command, its file, its way to name a variable.

use serde_json::{Map, Value, json};

use super::{Client, Connection, Step};

/// Everything that a client needs, in the order in which it is done.
pub fn steps(client: Client, connection: &Connection) -> Vec<Step> {
    match client {
        Client::ClaudeCode => claude_code(connection),
        Client::ClaudeDesktop => claude_desktop(connection),
        Client::Cursor => cursor(connection),
        Client::VsCode => vscode(connection),
        Client::Codex => codex(connection),
        Client::Gemini => gemini(connection),
    }
}

fn claude_code(connection: &Connection) -> Vec<Step> {
    let Connection { name, url, token_env, .. } = connection;
    match token_env {
        None => vec![
            Step::Command { why: "add it", command: format!("claude mcp add --transport http {name} {url}") },
            Step::Note { why: format!("log in: start claude, type /mcp, choose {name}, Authenticate") },
        ],
        // The variable is expanded when the project's file is read, so the file never holds the token.
        Some(variable) => vec![
            Step::Command {
                why: "add it to this project's .mcp.json, which names the variable and not the token",
                command: format!(
                    "claude mcp add --scope project --transport http {name} {url} --header 'Authorization: Bearer ${{{variable}}}'"
                ),
            },
            Step::Note { why: format!("start claude where {variable} is set") },
        ],
    }
}

fn claude_desktop(connection: &Connection) -> Vec<Step> {
    let mut server = json!({
        "command": connection.program.display().to_string(),
        "args": ["stdio", "--url", connection.url],
    });
    if let (Some(variable), Some(server)) = (&connection.token_env, server.as_object_mut()) {
        // The bridge takes its token from the environment that the desktop gives it.
        server.insert("args".to_owned(), json!(["stdio", "--url", connection.url, "--token-env", variable]));
    }
    let content = pretty(&json!({ "mcpServers": { connection.name.as_str(): server } }));
    let last = match &connection.token_env {
        None => {
            "quit and start Claude; whenever the login has ended, the bridge opens the browser by itself".to_owned()
        }
        Some(variable) => format!("quit Claude and start it where {variable} is set"),
    };
    // The desktop does not wait for somebody who is still logging in.
    let login = connection.token_env.is_none().then(|| Step::Command {
        why: "log in, once",
        command: format!("{} login --url {}", quoted(&connection.program.display().to_string()), connection.url),
    });
    let mut steps: Vec<Step> = login.into_iter().collect();
    steps.extend([
        Step::File {
            why: "macOS: merge this into",
            path: "~/Library/Application Support/Claude/claude_desktop_config.json",
            content: content.clone(),
        },
        Step::File { why: "Linux: merge this into", path: "~/.config/Claude/claude_desktop_config.json", content },
        Step::Note { why: last },
    ]);
    steps
}

/// A path as a shell reads it back.
fn quoted(path: &str) -> String {
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

fn cursor(connection: &Connection) -> Vec<Step> {
    let mut server = json!({ "url": connection.url });
    with_header(&mut server, connection, |variable| format!("${{env:{variable}}}"));
    vec![
        Step::File {
            why: "merge this into (or .cursor/mcp.json, for one project)",
            path: "~/.cursor/mcp.json",
            content: pretty(&json!({ "mcpServers": { connection.name.as_str(): server } })),
        },
        Step::Note { why: login(connection, "open Cursor's settings, MCP, and press Connect") },
    ]
}

fn vscode(connection: &Connection) -> Vec<Step> {
    let mut server = json!({ "type": "http", "url": connection.url });
    with_header(&mut server, connection, |variable| format!("${{env:{variable}}}"));
    let mut named = json!({ "name": connection.name });
    if let (Some(named), Some(server)) = (named.as_object_mut(), server.as_object()) {
        named.extend(server.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    vec![
        Step::Command { why: "add it for every project", command: format!("code --add-mcp '{named}'") },
        Step::File {
            why: "or, for one project, merge this into",
            path: ".vscode/mcp.json",
            content: pretty(&json!({ "servers": { connection.name.as_str(): server } })),
        },
        Step::Note {
            why: login(connection, "start the server from the file or the MCP view; a browser opens to log in"),
        },
    ]
}

fn codex(connection: &Connection) -> Vec<Step> {
    let Connection { name, url, token_env, .. } = connection;
    let (flag, line) = match token_env {
        None => (String::new(), String::new()),
        Some(variable) => (
            format!(" --bearer-token-env-var {variable}"),
            format!("\nbearer_token_env_var = {}", Value::from(variable.as_str())),
        ),
    };
    let mut steps = vec![
        Step::Command { why: "add it", command: format!("codex mcp add {name} --url {url}{flag}") },
        Step::File {
            why: "which is the same as writing this into",
            path: "~/.codex/config.toml",
            content: format!("[mcp_servers.{name}]\nurl = {}{line}", Value::from(url.as_str())),
        },
    ];
    steps.push(match token_env {
        None => Step::Command { why: "log in", command: format!("codex mcp login {name}") },
        Some(variable) => Step::Note { why: format!("start codex where {variable} is set") },
    });
    steps
}

fn gemini(connection: &Connection) -> Vec<Step> {
    let Connection { name, url, token_env, .. } = connection;
    let mut server = json!({ "httpUrl": url });
    with_header(&mut server, connection, |variable| format!("${{{variable}}}"));
    let flag = token_env
        .as_ref()
        .map_or_else(String::new, |variable| format!(" --header 'Authorization: Bearer ${{{variable}}}'"));
    vec![
        Step::Command {
            why: "add it",
            command: format!("gemini mcp add --scope user --transport http{flag} {name} {url}"),
        },
        Step::File {
            why: "which is the same as merging this into",
            path: "~/.gemini/settings.json",
            content: pretty(&json!({ "mcpServers": { name.as_str(): server } })),
        },
        Step::Note { why: login(connection, &format!("start gemini and type /mcp auth {name}")) },
    ]
}

fn login(connection: &Connection, how: &str) -> String {
    match &connection.token_env {
        None => format!("log in: {how}"),
        Some(variable) => format!("start it where {variable} is set"),
    }
}

/// Adds the header that carries a token out of a variable, in the client's way of naming one.
fn with_header(server: &mut Value, connection: &Connection, spell: impl Fn(&str) -> String) {
    if let (Some(variable), Some(server)) = (&connection.token_env, server.as_object_mut()) {
        let mut headers = Map::new();
        headers.insert("Authorization".to_owned(), Value::from(format!("Bearer {}", spell(variable))));
        server.insert("headers".to_owned(), Value::Object(headers));
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn shown(client: Client, token_env: Option<&str>) -> String {
        let connection = Connection {
            name: "bailiwick".to_owned(),
            url: "http://127.0.0.1:7800/mcp".to_owned(),
            token_env: token_env.map(str::to_owned),
            program: "/usr/local/bin/bailiwick".into(),
        };
        anstream::adapter::strip_str(&super::super::text(&steps(client, &connection), &connection)).to_string()
    }

    #[test]
    fn each_client_gets_its_own_spelling() {
        for client in Client::value_variants() {
            let name = client.to_possible_value().unwrap().get_name().to_owned();
            insta::assert_snapshot!(name.clone(), shown(*client, None));
            insta::assert_snapshot!(format!("{name}-token"), shown(*client, Some("BAILIWICK_TOKEN")));
        }
    }

    #[test]
    fn what_goes_into_a_file_can_be_read_back() {
        for client in Client::value_variants() {
            for token_env in [None, Some("T".to_owned())] {
                let connection = Connection {
                    name: "bailiwick".to_owned(),
                    url: "https://mcp.example.com/mcp/notes".to_owned(),
                    token_env,
                    program: r#"/opt/a "b"/bailiwick"#.into(),
                };
                for step in steps(*client, &connection) {
                    let Step::File { path, content, .. } = step else { continue };
                    let readable = if path.ends_with(".toml") {
                        content.parse::<toml::Table>().is_ok()
                    } else {
                        serde_json::from_str::<Value>(&content).is_ok()
                    };
                    assert!(readable && content.contains("bailiwick"), "{path}: {content}");
                }
            }
        }
    }
}
