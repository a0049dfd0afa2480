//! What an assistant says of a server, as a server of ours.
//!
//! Decides what can be taken over and gives the reason where something cannot. Invariant: a value that may be a secret
//! leaves only as a [`Secret`]; everything else in a [`Server`] may be shown.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use super::clients::Places;
use crate::config::file::{looks_like_a_secret, names_a_secret};

/// A server that can be taken over.
#[derive(Debug)]
pub struct Server {
    /// How it is reached.
    pub transport: Transport,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// How it is reached.
#[derive(Debug)]
pub enum Transport {
    /// Over HTTP, with at most one header that carries a secret.
    Http {
        /// Where.
        url: String,
        /// The header's name in lower case, what stands before the secret, the secret.
        header: Option<(String, String, Secret)>,
    },
    /// As a process.
    Stdio {
        /// Program and arguments.
        command: Vec<String>,
        /// Its environment.
        variables: Vec<(String, Variable)>,
        /// Where it starts.
        directory: Option<PathBuf>,
        /// Paths among its arguments.
        paths: Vec<PathBuf>,
    },
}

/// A value of its environment.
#[derive(Debug)]
pub enum Variable {
    /// Plainly no secret.
    Plain(String),
    /// Perhaps a secret.
    Secret(Secret),
}

/// A value that may be a secret: where it should come from, and what it is.
#[derive(Debug)]
pub struct Secret {
    /// The variable that is to hold it.
    pub variable: String,
    /// What the assistant's file has; nothing where that names a variable itself.
    pub value: Option<SecretString>,
}

/// Where an address may stand; the first that there is counts.
pub const ADDRESSES: [&str; 3] = ["url", "serverUrl", "httpUrl"];
/// Values that are settings, whatever they are called.
const SETTINGS: [&str; 16] = [
    "true",
    "false",
    "0",
    "1",
    "yes",
    "no",
    "on",
    "off",
    "trace",
    "debug",
    "info",
    "warn",
    "error",
    "production",
    "development",
    "C.UTF-8",
];
/// A part of a path that is longer, and mixes letters and digits, was not chosen by a person.
const RANDOM_LENGTH_MIN: usize = 32;
/// What is longer is not shown as a name.
const NAME_LENGTH_MAX: usize = 40;

/// Understands one entry.
///
/// # Errors
/// A lower-case fragment that says why it is not taken over; nothing of a value is in it.
pub fn understand(entry: &Value, places: &Places) -> Result<Server, String> {
    let entry = entry.as_object().ok_or("it is not an object")?;
    if entry.get("disabled") == Some(&Value::Bool(true)) || entry.get("enabled") == Some(&Value::Bool(false)) {
        return Err("it is disabled there".to_owned());
    }
    let mut notes = Vec::new();
    for (key, what) in [
        ("envFile", "its envFile is not read: set what is in there for the gateway"),
        ("enabled_tools", "its list of enabled tools is not taken over: write rules into policies/policy.csv"),
        ("disabled_tools", "its list of disabled tools is not taken over: write rules into policies/policy.csv"),
        ("autoApprove", "what is approved without asking there is the assistant's business"),
        ("alwaysAllow", "what is approved without asking there is the assistant's business"),
    ] {
        if entry.contains_key(key) {
            notes.push(what.to_owned());
        }
    }
    let url = ADDRESSES.into_iter().find_map(|key| text(entry, key));
    let transport = match (url, words(entry)?) {
        (Some(url), _) => http(&url, headers(entry, "headers", "http_headers"), entry)?,
        (None, Some(command)) if is_our_own(&command) => return Err("it is a Bailiwick already".to_owned()),
        (None, Some(command)) => match remote(&command, &mut notes)? {
            Some((url, headers)) => {
                notes.push("mcp-remote is not needed: the gateway connects by itself".to_owned());
                http(&url, headers, &Map::new())?
            }
            None => stdio(entry, &command, places)?,
        },
        (None, None) => return Err("it has neither a command nor a URL".to_owned()),
    };
    Ok(Server { transport, notes })
}

fn text(entry: &Map<String, Value>, key: &str) -> Option<String> {
    entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn words(entry: &Map<String, Value>) -> Result<Option<Vec<String>>, String> {
    let mut words: Vec<String> = match entry.get("command") {
        None => return Ok(None),
        Some(Value::String(program)) => vec![program.clone()],
        Some(Value::Array(words)) => strings(words)?,
        Some(_) => return Err("its command is not text".to_owned()),
    };
    if let Some(arguments) = entry.get("args") {
        words.extend(strings(arguments.as_array().ok_or("its args are not a list")?)?);
    }
    Ok(Some(words))
}

fn strings(values: &[Value]) -> Result<Vec<String>, String> {
    values
        .iter()
        .map(|value| value.as_str().map(str::to_owned).ok_or("a word of its command is not text".to_owned()))
        .collect()
}

fn base(program: &str) -> &str {
    program.rsplit(['/', '\\']).next().unwrap_or(program)
}

fn is_our_own(command: &[String]) -> bool {
    command.first().is_some_and(|program| base(program) == "bailiwick") && command.iter().any(|word| word == "stdio")
}

type Headers = Vec<(String, String)>;

/// Whether a word of a command is the bridge to a server over HTTP.
pub fn is_mcp_remote(word: &str) -> bool {
    word == "mcp-remote" || word.starts_with("mcp-remote@") || base(word) == "mcp-remote"
}

/// `npx mcp-remote URL`: the address behind the bridge, and its headers.
fn remote(command: &[String], notes: &mut Vec<String>) -> Result<Option<(String, Headers)>, String> {
    let Some(position) = command.iter().position(|word| is_mcp_remote(word)) else { return Ok(None) };
    if let Some(name) = command.get(..position).and_then(secret_argument) {
        return Err(in_command_line(&name));
    }
    let mut rest = command.iter().skip(position + 1);
    let url = rest.next().ok_or("its mcp-remote has no address")?.clone();
    let mut headers = Vec::new();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--header" => {
                let header = rest.next().and_then(|header| header.split_once(':'));
                let (name, value) = header.ok_or("a header of its mcp-remote is not NAME: VALUE")?;
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "--ignore-tool" => {
                let _its_value = rest.next();
                let note = "its list of ignored tools is not taken over: write rules into policies/policy.csv";
                if !notes.iter().any(|own| own == note) {
                    notes.push(note.to_owned());
                }
            }
            // How it connects and logs, and the port that it waits at for a login.
            "--transport" | "--host" | "--auth-timeout" => {
                let _its_value = rest.next();
            }
            "--allow-http" | "--debug" | "--silent" | "--enable-proxy" => {}
            port if port.parse::<u16>().is_ok() => {}
            // It may hold a secret, or change what the server is: neither gets lost on the way.
            other => {
                let name = other.split('=').next().filter(|name| name.starts_with("--") && is_spelled(name));
                let what = name.map_or_else(|| "a word".to_owned(), |name| format!("the option {name}"));
                return Err(format!("its mcp-remote has {what} that is not taken over: write the server by hand"));
            }
        }
    }
    Ok(Some((url, headers)))
}

fn in_command_line(name: &str) -> String {
    format!("a secret stands in its command line ({name}), where every process can read it: hand it over in a variable")
}

/// Whether it looks like a name, which may be shown.
fn is_spelled(name: &str) -> bool {
    name.len() <= NAME_LENGTH_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn headers(entry: &Map<String, Value>, one: &str, other: &str) -> Headers {
    let written = entry.get(one).or_else(|| entry.get(other)).and_then(Value::as_object);
    let pair = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    written.into_iter().flatten().filter_map(pair).collect()
}

fn http(url: &str, headers: Headers, entry: &Map<String, Value>) -> Result<Transport, String> {
    let parsed = Url::parse(url).map_err(|_| "its address is not a URL, or has variables in it".to_owned())?;
    if !matches!(parsed.scheme(), "http" | "https") || url.contains("${") {
        return Err("its address is not a plain http URL".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.fragment().is_some() {
        return Err("its address has a user name, a password or a fragment in it".to_owned());
    }
    if parsed
        .query_pairs()
        .any(|(name, value)| names_a_secret(&name) || is_random(&value) || looks_like_a_secret(&value))
    {
        return Err(
            "its address has a secret in its query, which would be in every log: ask for another way in".to_owned()
        );
    }
    if parsed.path_segments().is_some_and(|mut parts| parts.any(|part| is_random(part) || looks_like_a_secret(part))) {
        return Err("its address seems to be a secret itself (a long random path): ask for another way in".to_owned());
    }
    let mut secrets: Vec<(String, String, Secret)> = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        // Every client sends these, and so do we.
        if matches!(name.as_str(), "accept" | "content-type" | "user-agent" | "mcp-protocol-version") {
            continue;
        }
        let (prefix, rest) = match value.split_once(' ') {
            Some((scheme, rest)) if name == "authorization" => (format!("{scheme} "), rest.trim()),
            _ => (String::new(), value.as_str()),
        };
        let secret = secret(&name.replace('-', "_"), rest);
        secrets.push((name, prefix, secret));
    }
    if let Some(variable) = text(entry, "bearer_token_env_var") {
        secrets.push(("authorization".to_owned(), "Bearer ".to_owned(), Secret { variable, value: None }));
    }
    for (name, variable) in headers_from_variables(entry) {
        secrets.push((name.to_ascii_lowercase(), String::new(), Secret { variable, value: None }));
    }
    if secrets.len() > 1 {
        let names: Vec<&str> = secrets.iter().map(|(name, ..)| name.as_str()).collect();
        return Err(format!("it needs {} headers ({}), and a credential is one", names.len(), names.join(", ")));
    }
    Ok(Transport::Http { url: url.to_owned(), header: secrets.pop() })
}

fn headers_from_variables(entry: &Map<String, Value>) -> Headers {
    headers(entry, "env_http_headers", "env_http_headers")
}

fn stdio(entry: &Map<String, Value>, command: &[String], places: &Places) -> Result<Transport, String> {
    let command: Vec<String> = command.iter().map(|word| known(word, places)).collect();
    if command.iter().any(|word| word.contains("${")) {
        return Err("its command has variables in it, which nothing here puts in: write it by hand".to_owned());
    }
    if command
        .first()
        .is_some_and(|program| matches!(base(program), "sh" | "bash" | "zsh" | "cmd" | "cmd.exe" | "powershell"))
    {
        return Err("its command is a shell's: write the program and its words by hand".to_owned());
    }
    if let Some(name) = secret_argument(&command) {
        return Err(in_command_line(&name));
    }
    let mut variables: Vec<(String, Variable)> = Vec::new();
    for (name, value) in entry.get("env").and_then(Value::as_object).into_iter().flatten() {
        let value = match value {
            Value::String(value) => value.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("its variable {name} is not text")),
        };
        let setting = SETTINGS.contains(&value.as_str()) || value.is_empty();
        let variable = if setting && !names_a_secret(name) {
            Variable::Plain(value)
        } else {
            Variable::Secret(secret(name, &value))
        };
        variables.push((name.clone(), variable));
    }
    for name in entry.get("env_vars").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        variables.push((name.to_owned(), Variable::Secret(Secret { variable: name.to_owned(), value: None })));
    }
    let spelled =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some((name, _)) = variables.iter().find(|(name, _)| !spelled(name)) {
        return Err(format!("`{}` is not a variable's name", name.escape_default()));
    }
    // A program is found in the PATH of its process, which has nothing that is not written down.
    if !variables.iter().any(|(name, _)| name == "PATH") {
        let path = Secret { variable: "PATH".to_owned(), value: None };
        variables.push(("PATH".to_owned(), Variable::Secret(path)));
    }
    let directory = text(entry, "cwd").map(|path| places.project.join(known(&path, places)));
    let is_path = |word: &&String| word.starts_with('/') && Path::new(word.as_str()).exists();
    let paths = command.iter().skip(1).filter(is_path).map(PathBuf::from).collect();
    Ok(Transport::Stdio { command, variables, directory, paths })
}

/// Puts in what an editor knows and a gateway can know as well.
fn known(word: &str, places: &Places) -> String {
    let (home, project) = (places.home.display().to_string(), places.project.display().to_string());
    let word = word.replace("${workspaceFolder}", &project).replace("${userHome}", &home).replace("${HOME}", &home);
    match word.strip_prefix("~/") {
        Some(rest) => format!("{home}/{rest}"),
        None => word,
    }
}

/// The name of an argument whose value may be a secret.
fn secret_argument(command: &[String]) -> Option<String> {
    let mut words = command.iter().enumerate().skip(1).peekable();
    while let Some((index, word)) = words.next() {
        let next = words.peek().map(|(_, next)| next.as_str()).unwrap_or_default();
        let shown = |name: &str| if is_spelled(name) { name.to_owned() } else { format!("word {}", index + 1) };
        if let Some(name) = assigned(word) {
            return Some(shown(name));
        }
        let follows = !next.is_empty() && !next.starts_with('-');
        if follows && !word.contains('=') && word.starts_with('-') && says_a_secret(word) {
            return Some(shown(word));
        }
        // A header on a command line is there because it lets somebody in.
        let is_header = next.split_once(':').is_some_and(|(_, value)| !value.starts_with("//"));
        if matches!(word.as_str(), "--header" | "--headers") && follows || word == "-H" && is_header {
            return Some(shown(word));
        }
        let value = word.split_once('=').map_or("", |(_, value)| value);
        if word.starts_with("--header=")
            || word.starts_with("--headers=")
            || holds_a_secret(word)
            || holds_a_secret(value)
        {
            return Some(format!("word {}", index + 1));
        }
    }
    None
}

/// The name that says that what is assigned to it is a secret: `NAME=VALUE`, `--name=VALUE`, `--env=NAME=VALUE`.
fn assigned(word: &str) -> Option<&str> {
    let mut parts = word.split('=').peekable();
    while let Some(name) = parts.next() {
        if parts.peek().is_some_and(|value| !value.is_empty()) && says_a_secret(name) {
            return Some(name);
        }
    }
    None
}

/// Whether a name says so, in whichever way it is spelled: `apiKey`, `--api-key`, `-eAPI_KEY`.
fn says_a_secret(name: &str) -> bool {
    let plain = name.trim_start_matches('-');
    let mut spelled = String::with_capacity(plain.len() + 4);
    for character in plain.chars() {
        if character.is_ascii_uppercase() && spelled.ends_with(|last: char| !last.is_ascii_uppercase()) {
            spelled.push('_');
        }
        spelled.push(character);
    }
    let short = name.starts_with('-') && !name.starts_with("--");
    names_a_secret(plain) || names_a_secret(&spelled) || short && plain.get(1..).is_some_and(names_a_secret)
}

/// Whether a word is a secret or has one in it: an address, a header, JSON.
fn holds_a_secret(word: &str) -> bool {
    if looks_like_a_secret(word) || word.to_ascii_lowercase().contains("bearer ") {
        return true;
    }
    if word.contains("://")
        && let Ok(url) = Url::parse(word)
    {
        let named = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            !value.is_empty() && says_a_secret(&name) || looks_like_a_secret(&value)
        };
        let user = url.scheme().contains("http") && !url.username().is_empty();
        return user || url.password().is_some() || url.query_pairs().any(named);
    }
    if let Some((name, _)) = word.split_once(": ") {
        let name = name.to_ascii_lowercase();
        if name.ends_with("authorization") || name.ends_with("cookie") || says_a_secret(&name) {
            return true;
        }
    }
    word.starts_with(['{', '[']) && serde_json::from_str(word).is_ok_and(|value| is_told(&value))
}

fn is_told(value: &Value) -> bool {
    match value {
        Value::String(text) => holds_a_secret(text),
        Value::Array(values) => values.iter().any(is_told),
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_value = value.is_number() || value.as_str().is_some_and(|text| !text.is_empty());
            is_value && says_a_secret(name) || is_told(value)
        }),
        _ => false,
    }
}

/// A value that the assistant's file has, or the variable that it names: `${NAME}`, `${env:NAME}`, `${input:NAME}`.
fn secret(name: &str, value: &str) -> Secret {
    let inner = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let named = inner.map(|inner| inner.strip_prefix("env:").or_else(|| inner.strip_prefix("input:")).unwrap_or(inner));
    // A default behind `:-` may be a secret itself, and is not looked at.
    let named = named.map(|named| named.split(":-").next().unwrap_or(named));
    let spelled = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    match named.filter(|named| !named.is_empty() && spelled(named)) {
        Some(named) => Secret { variable: variable_name(named), value: None },
        None => Secret { variable: variable_name(name), value: Some(SecretString::from(value)) },
    }
}

/// A name that shells accept.
pub fn variable_name(text: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let name: String = text.chars().map(plain).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn is_random(part: &str) -> bool {
    let letters = part.bytes().filter(u8::is_ascii_alphabetic).count();
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let dashes = part.matches('-').count();
    // A UUID names a tenant more often than it opens a door.
    part.len() >= RANDOM_LENGTH_MIN && letters > 4 && digits > 4 && !(part.len() == 36 && dashes == 4)
}

#[cfg(test)]
mod tests;
