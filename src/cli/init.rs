//! `init`: a gateway in front of the servers that assistants already use.
//!
//! Reads what assistants have, writes files that `check` accepts, and points the assistants at the gateway where it is
//! told to. Invariant: no secret is copied into a file of ours but the one that is named for that, and nothing that is
//! there is overwritten unless somebody says so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use similar::TextDiff;
use url::Url;

use super::Ending;
use super::files::Files;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, complain, list, trouble};
use crate::config::FileSet;
use crate::gateway::understand::understand;
use crate::ids::{IssuerAlias, Subject};

mod clients;
mod draft;
mod entry;
mod plan;
mod rewrite;

use clients::{Assistant, ClientFile, Places};
use draft::{Keeping, Owner};
use plan::{Plan, Skipped};
use rewrite::{Reach, Rewritten};

const EXAMPLES: &str = "\
Examples:
  bailiwick init --dry-run             what would be written, as a diff
  bailiwick init                       ./servers.toml and ./policies, for you on this machine
  bailiwick init --directory ~/mcp --secrets-to ~/mcp/secrets.env --rewrite
                                       also: secrets into a file of mode 0600, and the
                                       assistants pointed at the gateway
  bailiwick init --issuer https://login.example.com --user alice
                                       a gateway that people log in to
  bailiwick init --from cursor --from codex

Without --issuer the files are for `bailiwick stdio --standalone`, in the assistant's own process:
`bailiwick check --standalone`. With it they are for `bailiwick serve`: `bailiwick check`.
Secrets become references. They are copied nowhere but into the file of --secrets-to.";

/// Take over the MCP servers that your assistants use
///
/// Reads the configurations of Claude Desktop, Claude Code, Cursor, VS Code and Codex, and writes servers.toml and
/// policies for them: you may go on using what you used, and nobody else anything.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArguments {
    /// Write servers.toml and policies/ into this directory, which is made if it is not there
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
    /// Read only this assistant's files; may be written several times
    #[arg(long, value_enum, value_name = "ASSISTANT")]
    from: Vec<Assistant>,
    /// The issuer whose people may log in; for you on this machine alone where there is none
    #[arg(long, value_name = "URL")]
    issuer: Option<Url>,
    /// What rules call the issuer
    #[arg(long, value_name = "NAME", default_value = "corp", value_parser = alias)]
    alias: IssuerAlias,
    /// Who you are to that issuer: the `sub` of your tokens
    #[arg(long, value_name = "SUB", requires = "issuer")]
    user: Option<String>,
    /// What the gateway calls itself
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7800", requires = "issuer")]
    public_url: Url,
    /// Write secrets into this new file of mode 0600, and references to it
    #[arg(long, value_name = "FILE")]
    secrets_to: Option<PathBuf>,
    /// Point the assistants at the gateway; what was there is kept beside each file
    #[arg(long)]
    rewrite: bool,
    /// Show what would be written as a diff, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Overwrite servers.toml, policies and the file of secrets
    #[arg(long)]
    force: bool,
}

fn alias(text: &str) -> Result<IssuerAlias, String> {
    match text {
        "local" | "anonymous" => Err("that is a name of the gateway's own".to_owned()),
        _ => IssuerAlias::new(text).map_err(|error| error.to_string()),
    }
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Done {
    dry_run: bool,
    written: Vec<PathBuf>,
    servers: Vec<String>,
    skipped: Vec<Skipped>,
    notes: Vec<(String, String)>,
    /// Variables that are to be set for the gateway.
    variables: Vec<String>,
    rewritten: Vec<Rewritten>,
    #[serde(skip)]
    diff: String,
}

/// Takes over, prints, and says how it ended.
pub async fn run(arguments: &InitArguments, output: Output) -> Ending {
    match done(arguments).await {
        Ok(done) => {
            let text = text(arguments, &done);
            output.result(&done, text);
            if done.servers.is_empty() { Ending::Refused } else { Ending::Done }
        }
        Err(Stop(ending, message)) => {
            if !message.is_empty() {
                trouble(message);
            }
            ending
        }
    }
}

/// Why nothing more was done.
struct Stop(Ending, String);

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self(Ending::Trouble, message)
    }
}

async fn done(arguments: &InitArguments) -> Result<Done, Stop> {
    let directory = std::path::absolute(&arguments.directory).map_err(|error| error.to_string())?;
    let directory = crate::config::process::plain(&directory);
    let places = Places {
        home: std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute())
            .ok_or_else(|| "HOME is not set, so nobody knows where the assistants' files are".to_owned())?,
        project: std::env::current_dir().map_err(|error| error.to_string())?,
    };
    let owner = owner(arguments).await?;
    let (files, unread) = read(arguments, &places);
    let mut plan = plan::plan(&files, &places);
    plan.skipped.splice(0..0, unread);
    let keeping = match &arguments.secrets_to {
        None => Keeping::Variables,
        Some(path) => Keeping::File(std::path::absolute(path).map_err(|error| error.to_string())?),
    };
    let mut done = Done { dry_run: arguments.dry_run, ..Done::default() };
    done.servers = plan.servers.iter().map(|server| server.id.clone()).collect();
    done.skipped = std::mem::take(&mut plan.skipped);
    if plan.servers.is_empty() {
        return Ok(done);
    }
    let secrets = kept(&mut plan, &keeping, &mut done)?;
    if arguments.rewrite && owner.issuer.is_none() && !done.variables.is_empty() {
        return Err(Stop(
            Ending::Trouble,
            format!(
                "an assistant starts the gateway without your variables ({}): write --secrets-to FILE beside --rewrite, \
                 or set them where the assistant starts and point it there by hand: bailiwick connect",
                done.variables.join(", ")
            ),
        ));
    }
    let (texts, notes) = draft::files(&plan, &owner, &keeping, &directory);
    done.notes = notes;
    let mut wanted: Vec<(PathBuf, String)> =
        texts.into_iter().map(|(name, text)| (directory.join(name), text)).collect();
    if let (Keeping::File(path), false) = (&keeping, secrets.is_empty()) {
        wanted.push((path.clone(), secrets));
    }
    refuse_to_overwrite(&wanted, arguments.force)?;
    let changes = if arguments.rewrite { changes(arguments, &files, &plan, &owner, &directory)? } else { Vec::new() };
    if arguments.dry_run {
        done.diff = diff(&wanted, &keeping, &changes);
        return Ok(done);
    }
    for (path, text) in &wanted {
        put(path, text)?;
        done.written.push(path.clone());
    }
    checked(&directory, &owner).await?;
    for change in &changes {
        done.rewritten.push(rewrite::write(change.file, &change.text)?);
    }
    Ok(done)
}

async fn owner(arguments: &InitArguments) -> Result<Owner, String> {
    let public_url = arguments.public_url.as_str().trim_end_matches('/').to_owned();
    let Some(issuer) = &arguments.issuer else {
        let name = super::stdio::local_user().await?;
        let local = IssuerAlias::new(crate::config::load::LOCAL_ALIAS).map_err(|error| error.to_string())?;
        return Ok(Owner { subject: Subject::user(&local, &name).to_string(), issuer: None, public_url });
    };
    // An issuer is compared to the character, and a URL parser adds a slash to a bare host.
    let written = issuer.as_str();
    let written = if issuer.path() == "/" { written.trim_end_matches('/') } else { written };
    let user =
        arguments.user.as_ref().ok_or("who are you to the issuer? write --user SUB, the `sub` of your tokens")?;
    let subject = Subject::user(&arguments.alias, user).to_string();
    Ok(Owner { subject, issuer: Some((arguments.alias.to_string(), written.to_owned())), public_url })
}

fn read(arguments: &InitArguments, places: &Places) -> (Vec<ClientFile>, Vec<Skipped>) {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    let wanted = |assistant: Assistant| arguments.from.is_empty() || arguments.from.contains(&assistant);
    for (assistant, path) in clients::files(places).into_iter().filter(|(assistant, _)| wanted(*assistant)) {
        match clients::read(assistant, &path) {
            Ok(file) => files.extend(file),
            Err(reason) => unread.push(Skipped { file: path, name: None, reason }),
        }
    }
    (files, unread)
}

/// The lines of the file of secrets, and the variables that are left to be set.
fn kept(plan: &mut Plan, keeping: &Keeping, done: &mut Done) -> Result<String, String> {
    let mut lines = String::new();
    for (variable, value) in &plan.secrets {
        match (keeping, value) {
            (Keeping::File(_), Some(value)) => {
                let value = value.expose_secret();
                if value.contains(['\n', '\r']) || value.is_empty() {
                    return Err(format!(
                        "the value of {variable} has a line break in it, which a file of lines cannot hold: leave \
                         --secrets-to out, and set the variables yourself"
                    ));
                }
                let _infallible = writeln!(lines, "{variable}={value}");
            }
            _ if variable == "PATH" => {}
            _ => done.variables.push(variable.clone()),
        }
    }
    Ok(lines)
}

fn refuse_to_overwrite(wanted: &[(PathBuf, String)], force: bool) -> Result<(), Stop> {
    let differs =
        |(path, text): &&(PathBuf, String)| path.exists() && std::fs::read_to_string(path).ok().as_ref() != Some(text);
    let there: Vec<String> = wanted.iter().filter(differs).map(|(path, _)| path.display().to_string()).collect();
    if force || there.is_empty() {
        return Ok(());
    }
    let message = format!("{} would be overwritten: write --force, or another --directory", there.join(", "));
    Err(Stop(Ending::Refused, message))
}

/// One file of an assistant as it will be.
struct Change<'a> {
    file: &'a ClientFile,
    text: String,
    shown: String,
}

fn changes<'a>(
    arguments: &InitArguments,
    files: &'a [ClientFile],
    plan: &Plan,
    owner: &Owner,
    directory: &Path,
) -> Result<Vec<Change<'a>>, String> {
    let reach = match &owner.issuer {
        Some(_) => Reach::Url(format!("{}/mcp", arguments.public_url.as_str().trim_end_matches('/'))),
        None => Reach::Standalone(directory.join("servers.toml")),
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut changes = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let from = plan.servers.iter().flat_map(|server| &server.from).filter(|(own, ..)| *own == number);
        let gone: Vec<(Vec<String>, String)> = from.map(|(_, place, name)| (place.clone(), name.clone())).collect();
        if gone.is_empty() {
            continue;
        }
        let entry = rewrite::entry(file.assistant, &reach, &program);
        let text =
            rewrite::rewritten(file, &gone, &entry).map_err(|error| format!("{}: {error}", file.path.display()))?;
        changes.push(Change { file, text, shown: rewrite::shown(file, &gone, &entry) });
    }
    Ok(changes)
}

fn diff(wanted: &[(PathBuf, String)], keeping: &Keeping, changes: &[Change<'_>]) -> String {
    let mut text = String::new();
    for (path, new) in wanted {
        let is_secret = matches!(keeping, Keeping::File(secrets) if secrets == path);
        // What is secret is counted and not shown.
        let (old, new) = if is_secret {
            let names: String = new
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, _)| format!("{name}=(kept back)\n"))
                .collect();
            (String::new(), names)
        } else {
            (std::fs::read_to_string(path).unwrap_or_default(), new.clone())
        };
        let name = path.display().to_string();
        text.push_str(&TextDiff::from_lines(&old, &new).unified_diff().header(&name, &name).to_string());
    }
    for change in changes {
        let name = change.file.path.display();
        let _infallible = write!(text, "--- {name}\n+++ {name}\n{}", change.shown);
    }
    text
}

/// Writes a file of ours, as a whole or not at all.
fn put(path: &Path, text: &str) -> Result<(), String> {
    let problem = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    if let Some(directory) = path.parent() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(problem)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = rewrite::fresh_file(&fresh, text, 0o600).and_then(|()| std::fs::rename(&fresh, path));
    written.map_err(|error| {
        let _was_it_made = std::fs::remove_file(&fresh);
        problem(error)
    })
}

/// What was written is what `check` accepts.
async fn checked(directory: &Path, owner: &Owner) -> Result<(), Stop> {
    let files = Files { config: directory.join("servers.toml") };
    let user = owner.subject.rsplit('/').next().unwrap_or_default().to_owned();
    let understood = match &owner.issuer {
        Some(_) => files.as_served(),
        None => crate::config::Overrides::for_standalone(user, None)
            .and_then(|overrides| understand(FileSet::read(&files.config)?, &overrides)),
    };
    let failed = match understood {
        Ok(understood) => understood.policy.run_tests().failed.len(),
        Err(mistakes) => {
            complain(list(&mistakes, "", BAD));
            mistakes.len()
        }
    };
    if failed == 0 {
        return Ok(());
    }
    let message = "the files were written and have these mistakes; correct them, then: bailiwick check. No assistant's \
                   file was changed";
    Err(Stop(Ending::Refused, message.to_owned()))
}

fn text(arguments: &InitArguments, done: &Done) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for skipped in &done.skipped {
        let name = skipped.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let name = super::call::safe(&name);
        let _infallible = writeln!(
            text,
            "{WARNING}left out{WARNING:#}  {name}{} {QUIET}({}){QUIET:#}",
            skipped.reason,
            skipped.file.display()
        );
    }
    if done.servers.is_empty() {
        let _infallible = writeln!(text, "no server was found that could be taken over, so nothing was written");
        return text;
    }
    for (server, note) in &done.notes {
        let _infallible = writeln!(text, "{WARNING}note{WARNING:#}      {server}: {note}");
    }
    if done.dry_run {
        return text + done.diff.as_str();
    }
    for path in &done.written {
        let _infallible = writeln!(text, "{GOOD}written{GOOD:#}   {}", path.display());
    }
    for rewritten in &done.rewritten {
        let _infallible = writeln!(
            text,
            "{GOOD}rewritten{GOOD:#} {}\n          the way back: {}",
            rewritten.file.display(),
            rewritten.back
        );
    }
    let _infallible = writeln!(text, "\n{STRONG}{} servers{STRONG:#}: {}", done.servers.len(), done.servers.join(", "));
    next(&mut text, arguments, done);
    text
}

/// What is left to do.
fn next(text: &mut String, arguments: &InitArguments, done: &Done) {
    let config = arguments.directory.join("servers.toml");
    let config = config.display();
    let flag = if arguments.issuer.is_some() { "" } else { " --standalone" };
    let _infallible = writeln!(text, "{QUIET}next:{QUIET:#}\n  bailiwick check{flag} -c {config}");
    if !done.variables.is_empty() {
        let _infallible = writeln!(text, "  set these for the gateway: {}", done.variables.join(", "));
    }
    if arguments.issuer.is_some() {
        let _infallible = writeln!(text, "  bailiwick serve -c {config}\n  bailiwick doctor -c {config}");
    }
    if done.rewritten.is_empty() {
        let _infallible =
            writeln!(text, "  point your assistants at it: the same command with --rewrite, or bailiwick connect");
    } else if arguments.issuer.is_none() && done.rewritten.len() > 1 {
        let _infallible = writeln!(
            text,
            "  one assistant at a time: in the assistant's own process, the gateway holds its state directory alone;\n  \
             for several at once give each its own `state`, or serve it: --issuer"
        );
    }
}
