//! `audit`: what an auditor asks of the record.
//!
//! Works on files and asks no gateway. Decides what is printed and how it ends; the record room judges.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Ending;
use super::output::{BAD, GOOD, Output, QUIET, WARNING, trouble};
use super::state::State;
use crate::config::keyfile::{self, Missing};
use crate::limit;
use crate::record::audit::{Against, Audit, Judgement, audit};
use crate::record::checkpoint::{SignedCheckpoint, VerifierKey, published};
use crate::record::keys::KeyedDigest;
use crate::record::{JournalKey, journal, read_text};
use crate::wire::{Json, Source};

const EXAMPLES: &str = "\
Examples:
  bailiwick audit key > bailiwick.pub       the public key that checkpoints are verified with
  bailiwick audit verify                    the record of this gateway, with its own key
  bailiwick audit verify --journal /mnt/copy/journal --key bailiwick.pub
                                            a copy of a journal, with a key that was kept elsewhere
  bailiwick audit verify --key bailiwick.pub --checkpoint /var/log/bailiwick-checkpoints
                                            held against checkpoints that were sent elsewhere, too

  bailiwick audit digest arguments.json     what the record has of these arguments, under every key of digests
  bailiwick audit digest - --of 5f0c...     whether a digest of the record is of what standard input has

`digest --of` ends with 0 if it is, and with 1 if it is not, or of a key that is gone. `verify` ends with 0 if the record is what was signed, with 1 if it is not, and with 2 if nobody can say.";

/// Verify the record, offline, and tell of which arguments its digests are
///
/// Nothing here needs a running gateway, and nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArguments {
    #[command(subcommand)]
    command: AuditCommand,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Print the public keys that checkpoints are verified with, the one that signs first
    Key,
    Verify(VerifyArguments),
    Digest(DigestArguments),
}

/// Print the digest that the record has of some arguments or of a result, under each of the keys
#[derive(Debug, Args)]
struct DigestArguments {
    /// The JSON as it was sent, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The digest of a record, to be compared
    #[arg(long, value_name = "DIGEST")]
    of: Option<String>,
}

#[derive(Debug, Serialize)]
struct Digested {
    key: String,
    digest: KeyedDigest,
}

/// Say whether the record is what was signed, and name the first bad record
#[derive(Debug, Args)]
struct VerifyArguments {
    /// The directory of the segments, where it is a copy without the rest of the state
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "state")]
    journal: Option<PathBuf>,
    /// A public key as `audit key` prints it, or a file of them; the gateway's own where there is none
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// A file of checkpoints that were kept elsewhere, also a log that has them among other lines
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
}

/// Does what was asked.
pub async fn run(arguments: &AuditArguments, output: Output) -> Ending {
    let ended = match &arguments.command {
        AuditCommand::Key => key(arguments, output),
        AuditCommand::Verify(verify) => judge(arguments, verify, output),
        AuditCommand::Digest(digest) => digests(arguments, digest, output).await,
    };
    ended.unwrap_or_else(|problem| {
        trouble(problem);
        Ending::Trouble
    })
}

fn key(arguments: &AuditArguments, output: Output) -> Result<Ending, String> {
    let keys = published(&arguments.state.directory()?).map_err(|error| error.to_string())?;
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    output.result(&keys, keys.iter().map(|key| format!("{key}\n")).collect::<String>());
    Ok(Ending::Done)
}

/// What the record would have of some JSON: it names the key that it was digested with, which may be an older one.
async fn digests(arguments: &AuditArguments, asked: &DigestArguments, output: Output) -> Result<Ending, String> {
    let text = if asked.file == Path::new("-") {
        let mut text = String::new();
        let most = limit::RESPONSE_BYTES_MAX as u64;
        std::io::stdin().lock().take(most).read_to_string(&mut text).map_err(|error| error.to_string())?;
        text
    } else {
        read(&asked.file)?
    };
    let json = Json::parse(text.trim(), Source::Upstream).map_err(|error| format!("that is no JSON: {error}"))?;
    let state = &arguments.state;
    let keys = if state.names_keys("journal") {
        let understood = state.files().or_complain().ok_or("the keys cannot be read")?;
        let config = understood.config();
        keyfile::load(&config.keys.journal, &config.gateway.state, "journal", Missing::Refuse).await
    } else {
        let directory = state.directory()?;
        if !directory.join("keys/journal").is_file() {
            return Err(format!("there are no keys in {}; has a gateway run there?", directory.display()));
        }
        keyfile::load(&[], &directory, "journal", Missing::Refuse).await
    };
    let keys = keys.map_err(|error| error.to_string())?;
    let digested = |key: JournalKey| Digested { key: key.id().to_owned(), digest: key.digest(json.as_bytes()) };
    let mut all: Vec<Digested> = keys.iter().filter_map(JournalKey::from_hex).map(digested).collect();
    if let Some(of) = &asked.of {
        all.retain(|one| one.digest.to_string() == of.trim().to_ascii_lowercase());
    }
    let text: String = all.iter().map(|Digested { key, digest }| format!("{key}  {digest}\n")).collect();
    output.result(&all, if all.is_empty() { "under no key that is left\n".to_owned() } else { text });
    Ok(if all.is_empty() { Ending::Refused } else { Ending::Done })
}

fn judge(arguments: &AuditArguments, verify: &VerifyArguments, output: Output) -> Result<Ending, String> {
    let (directory, state) = match &verify.journal {
        Some(journal) => (journal.clone(), None),
        None => arguments.state.directory().map(|state| (journal::directory(&state), Some(state)))?,
    };
    let (keys, own) = match (verify.key.as_slice(), &state) {
        ([], Some(state)) => (published(state).unwrap_or_default(), true),
        (words, _) => (named_keys(words)?, false),
    };
    let mut kept = Vec::new();
    for file in &verify.checkpoint {
        let found = SignedCheckpoint::find_all(&read(file)?);
        if found.is_empty() {
            return Err(format!("there is no checkpoint in {}", file.display()));
        }
        kept.extend(found);
    }
    let mut judged = audit(&directory, Against { keys: &keys, kept: &kept })
        .map_err(|error| format!("{} cannot be read: {error}", directory.display()))?;
    if own && !keys.is_empty() {
        judged
            .notes
            .push("the key is the gateway's own; with --key and one that was kept elsewhere this says more".to_owned());
    }
    output.result(&judged, text(&judged));
    Ok(match judged.judgement {
        Judgement::Good => Ending::Done,
        Judgement::Tampered(_) => Ending::Refused,
        Judgement::Undecided { .. } => Ending::Trouble,
    })
}

/// Keys as they were typed, or in files that were named.
fn named_keys(words: &[String]) -> Result<Vec<VerifierKey>, String> {
    let mut keys = Vec::new();
    for word in words {
        match word.parse() {
            Ok(key) => keys.push(key),
            Err(problem) if word.contains('+') && !Path::new(word).exists() => return Err(problem),
            Err(_) => {
                for line in read(Path::new(word))?.lines().filter(|line| !line.trim().is_empty()) {
                    keys.push(line.parse()?);
                }
            }
        }
    }
    Ok(keys)
}

fn read(file: &Path) -> Result<String, String> {
    read_text(file, limit::AUDITOR_FILE_BYTES_MAX)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

fn text(audit: &Audit) -> String {
    let mut text = match &audit.judgement {
        Judgement::Good => format!("{GOOD}good{GOOD:#}: the record is what was signed\n"),
        Judgement::Tampered(finding) => {
            let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
            let record = finding.seq.map(|record| format!("record {record} ")).unwrap_or_default();
            format!("{BAD}tampered{BAD:#}: {}{line}: {record}{}\n", finding.file, finding.problem)
        }
        Judgement::Undecided { problem } => format!("{WARNING}cannot be judged{WARNING:#}: {problem}\n"),
    };
    let Audit { segments, records, first, last, signed, checkpoints, .. } = audit;
    let _ = writeln!(text, "{records} records ({first} to {last}) in {segments} segments");
    let _ = writeln!(text, "{checkpoints} checkpoints, the last one covers record 1 to {signed}");
    if last > signed && *signed > 0 {
        let _ = writeln!(text, "{} records after it are chained and not signed yet", last - signed);
    }
    for note in &audit.notes {
        let _ = writeln!(text, "{QUIET}note: {note}{QUIET:#}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_auditor_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("kept");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(limit::AUDITOR_FILE_BYTES_MAX).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(limit::AUDITOR_FILE_BYTES_MAX + 1).unwrap();
        assert!(read(&path).unwrap_err().contains("too large"));
    }
}
