//! The files of a new gateway: what stands in them.
//!
//! Decides the first rules: whoever imports may go on using what they used, through their assistant, and nobody else
//! anything. Invariant: no value that may be a secret is in any text that is made here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::entry::{Secret, Transport, Variable};
use super::plan::{Plan, Planned};

/// The model that every gateway has.
const MODEL: &str = include_str!("../../../policies/model.conf");

/// For whom the gateway is.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The subject that answers for the servers and may use them.
    pub subject: String,
    /// The issuer: its alias and its URL; nothing where the gateway runs for the local user alone.
    pub issuer: Option<(String, String)>,
    /// What the gateway calls itself.
    pub public_url: String,
}

/// Where secrets are kept.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// In variables of the gateway.
    Variables,
    /// In this file, a line each.
    File(PathBuf),
}

/// What else a person should know, found while writing.
pub type Notes = Vec<(String, String)>;

/// Every file: its path below the directory, and its text.
pub fn files(plan: &Plan, owner: &Owner, keeping: &Keeping, directory: &Path) -> (Vec<(&'static str, String)>, Notes) {
    let mut notes = Notes::new();
    let files = vec![
        ("servers.toml", servers(plan, owner, keeping, directory, &mut notes)),
        ("policies/model.conf", MODEL.to_owned()),
        ("policies/policy.csv", policy(plan, owner)),
        ("policies/agents.toml", agents(owner)),
        ("policies/tests.toml", tests(plan, owner)),
    ];
    (files, notes)
}

fn servers(plan: &Plan, owner: &Owner, keeping: &Keeping, directory: &Path, notes: &mut Notes) -> String {
    let mut text =
        String::from("# Made by `bailiwick init` from what assistants had. docs/configuration.md has every key.\n\n");
    // Writing to a string cannot fail.
    let _infallible = writeln!(text, "[gateway]\npublic_url = {}", quoted(&owner.public_url));
    if let Some((alias, url)) = &owner.issuer {
        let _infallible = writeln!(
            text,
            "\n[issuers.{alias}]\nissuer = {}\n# Every assistant that people log in with is this agent, unless policies/agents.toml names its client.\n\
             interactive_default = \"assistant\"",
            quoted(url)
        );
    }
    for server in &plan.servers {
        text.push('\n');
        one(&mut text, server, owner, keeping, directory, notes);
    }
    text
}

fn one(text: &mut String, server: &Planned, owner: &Owner, keeping: &Keeping, directory: &Path, notes: &mut Notes) {
    let _infallible = writeln!(
        text,
        "[servers.{}]\ntitle = {}\nowner = {}\nenvironment = \"development\"",
        server.id,
        quoted(&server.name),
        quoted(&owner.subject)
    );
    match &server.server.transport {
        Transport::Http { url, header } => {
            let _infallible = writeln!(text, "url = {}", quoted(url));
            if is_private(url) {
                let _infallible = writeln!(text, "allow_private = true");
            }
            if is_plain(url) {
                let _infallible = writeln!(text, "allow_plain_http = true");
            }
            if let Some((name, prefix, secret)) = header {
                let _infallible = writeln!(
                    text,
                    "credential = {{ kind = \"static\", header = {}, prefix = {}, secret = {} }}",
                    quoted(name),
                    quoted(prefix),
                    quoted(&reference(secret, keeping))
                );
            }
        }
        Transport::Stdio { command, variables, directory: place, paths } => {
            let _infallible = writeln!(text, "command = {}", list(command));
            let value = |variable: &Variable| match variable {
                Variable::Plain(value) => quoted(value),
                Variable::Secret(secret) => quoted(&reference(secret, keeping)),
            };
            let pairs: Vec<String> =
                variables.iter().map(|(name, variable)| format!("{name} = {}", value(variable))).collect();
            let _infallible = writeln!(text, "variables = {{ {} }}", pairs.join(", "));
            held(text, server, (place.as_deref(), paths), directory, notes);
        }
    }
    notes.extend(server.server.notes.iter().map(|note| (server.id.clone(), note.clone())));
}

/// What its process may reach: what stood in its command, and the network, which it had.
fn held(text: &mut String, server: &Planned, reach: (Option<&Path>, &[PathBuf]), directory: &Path, notes: &mut Notes) {
    let (place, paths) = reach;
    // What holds our own files is never given to a process.
    let (kept, given): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| {
        directory.starts_with(path)
            || path.starts_with(directory.join("policies"))
            || path.starts_with(directory.join("state"))
    });
    for path in kept {
        let note =
            format!("it is not given {}, which holds the gateway's own files: name something narrower", path.display());
        notes.push((server.id.clone(), note));
    }
    match place {
        Some(place) if directory.starts_with(place) => {
            notes.push((
                server.id.clone(),
                "it starts in a directory of its own: its cwd holds the gateway's files".to_owned(),
            ));
        }
        Some(place) => {
            let _infallible = writeln!(text, "directory = {}", quoted(&place.display().to_string()));
        }
        None => {}
    }
    if !cfg!(target_os = "linux") {
        let _infallible = writeln!(text, "# Only Linux can confine a process.\nsandbox = \"none\"");
        return;
    }
    if !given.is_empty() {
        let given: Vec<String> = given.iter().map(|path| path.display().to_string()).collect();
        let _infallible = writeln!(
            text,
            "# Paths of its command. `read` instead of `write` where it only reads.\nwrite = {}",
            list(&given)
        );
    }
    let _infallible =
        writeln!(text, "# It could reach the network before; remove this where it need not.\nnetwork = true");
    let _infallible = writeln!(text, "health = {{ connect_timeout = \"60s\" }}");
}

fn policy(plan: &Plan, owner: &Owner) -> String {
    let mut text = String::from(
        "# Both must be allowed: the person, and the agent that the assistant is. Whatever no row allows is refused.\n\
         # Narrow this: docs/policy.md. What it means for somebody: bailiwick what-can\n",
    );
    for subject in [owner.subject.as_str(), "agent:assistant"] {
        text.push('\n');
        for server in &plan.servers {
            for (object, action) in [("*", "call"), ("*", "get"), ("**", "read")] {
                let _infallible = writeln!(text, "p, {subject}, *, {}/{object}, {action}, -, allow", server.id);
            }
        }
    }
    text
}

fn agents(owner: &Owner) -> String {
    format!(
        "# The software that may call, and who answers for it.\n\n[agents.assistant]\nowner = {}\n\
         purpose = \"Answers questions for the person who uses it\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n",
        quoted(&owner.subject)
    )
}

fn tests(plan: &Plan, owner: &Owner) -> String {
    let mut text = String::from("# Decisions that every change must keep: bailiwick check\n");
    let stranger = match &owner.issuer {
        Some((alias, _)) => format!("user:{alias}/somebody-else"),
        None => "user:local/somebody-else".to_owned(),
    };
    for server in &plan.servers {
        for (user, expect, name) in
            [(owner.subject.as_str(), "allow", "its owner"), (stranger.as_str(), "deny", "nobody else")]
        {
            let _infallible = writeln!(
                text,
                "\n[[test]]\nname = \"{}: {name}\"\nuser = {}\nagent = \"assistant\"\nobject = \"{}/anything\"\nexpect = \"{expect}\"",
                server.id,
                quoted(user),
                server.id
            );
        }
    }
    text
}

/// Where a secret is, as our files spell it.
pub fn reference(secret: &Secret, keeping: &Keeping) -> String {
    match keeping {
        Keeping::File(path) if secret.value.is_some() => {
            let words = [
                "/usr/bin/sed".to_owned(),
                "-n".to_owned(),
                format!("s/^{}=//p", secret.variable),
                path.display().to_string(),
            ];
            format!("exec:{}", serde_json::Value::from(words.to_vec()))
        }
        _ => format!("env:{}", secret.variable),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

fn parsed(url: &str) -> Option<url::Url> {
    url::Url::parse(url).ok()
}

fn is_private(url: &str) -> bool {
    parsed(url).is_some_and(|url| crate::config::file::is_private(&url))
}

fn is_plain(url: &str) -> bool {
    parsed(url).is_some_and(|url| url.scheme() == "http" && !crate::egress::is_loopback(&url))
}
