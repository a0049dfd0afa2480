//! `keys`: exchanges the keys that the gateway made for itself, without losing what they are still needed for.
//!
//! Decides when a key may be exchanged: not before the running gateway has taken the last one, because it would then
//! seal with one that is already on its way out. Invariant: no key is printed, only its name; but what a place that is told
//! of something checks signatures with, and what a new API key is, is for somebody else.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::Ending;
use super::api_key::{self, ApiKeys};
use super::files::Files;
use super::offline::{self, Work};
use super::output::{GOOD, Output, trouble};
use super::state::State;
use crate::config::keyfile::{self, Missing};
use crate::control::client::{self, ClientError};
use crate::limit;
use crate::outbox;
use crate::record::checkpoint::VerifierKey;
use crate::record::{CheckpointKeys, JournalKey};
use crate::wire::handle::Sealer;

const EXAMPLES: &str = "\
Examples:
  bailiwick keys rotate seal && bailiwick reload   a new key for handles, without a restart
  bailiwick keys rotate journal && bailiwick reload  the same for digests of arguments; `audit digest` tries all keys
  bailiwick keys api new --agent nightly --owner user:corp/anna   an API key, for an agent that no issuer knows
  bailiwick keys webhook chat                      what `[webhooks.chat]` checks signatures with
  bailiwick keys show                              the names of the keys, as handles and records carry them

What was sealed with an older key of the file is accepted for a week after it was exchanged. Keys that servers.toml
names under [keys] are exchanged there: put the new reference before the old one, and reload.";

/// Show and exchange the keys that the gateway made for itself, and make API keys for agents
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct KeysArguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Put a fresh key before the others
    Rotate {
        /// What the key is for
        purpose: Purpose,
    },
    /// Name the keys of the key files, the one that writes first
    Show,
    /// Print what a place of [webhooks] checks signatures with
    Webhook {
        /// Its name in the configuration
        name: String,
    },
    /// Make an API key for an agent that no issuer knows
    #[command(subcommand)]
    Api(ApiKeys),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purpose {
    /// Handles: cursors, sessions, task ids, input that is waited for
    Seal,
    /// Digests of arguments in the record
    Journal,
    /// Linked accounts, and credentials that are still to be taken back
    Vault,
    /// Checkpoints of the record
    Checkpoint,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Journal => "journal",
            Self::Vault => "vault",
            Self::Checkpoint => "checkpoint",
        }
    }
}

#[derive(Serialize)]
struct Rotation {
    purpose: &'static str,
    key: String,
    kept: usize,
    dropped: usize,
}

#[derive(Serialize)]
struct Place {
    webhook: String,
    /// What its messages are signed with, the key that comes first at first.
    keys: Vec<String>,
    /// Their names, as `webhook-key-id` has them.
    ids: Vec<String>,
}

#[derive(Serialize)]
struct Shown {
    seal: Vec<String>,
    journal: Vec<String>,
    vault: Vec<String>,
    checkpoint: Vec<String>,
}

/// Shows or exchanges keys.
pub async fn run(arguments: &KeysArguments, output: Output) -> Ending {
    let done = async {
        if let What::Api(what) = &arguments.what {
            return api_key::run(what, output);
        }
        if let What::Webhook { name } = &arguments.what {
            return webhook(arguments.state.files(), name, output).await;
        }
        let state = arguments.state.directory()?;
        match arguments.what {
            What::Api(_) | What::Webhook { .. } => {}
            What::Rotate { purpose } => {
                if arguments.state.names_keys(purpose.name()) {
                    let purpose = purpose.name();
                    return Err(format!(
                        "servers.toml names the keys: put the new one first in `[keys] {purpose}`, then reload"
                    ));
                }
                let rotation = rotate(&state, purpose).await?;
                let Rotation { purpose, key, kept, dropped } = &rotation;
                let work = Work { operation: "keys-rotate", object: "bailiwick/keys", about: purpose };
                work.done(&state, &format!("{key} writes, {kept} more read, {dropped} dropped")).await;
                let text = format!(
                    "{GOOD}new {purpose} key {key}{GOOD:#}, {kept} more read, {dropped} that nobody needs dropped: \
                     `bailiwick reload` puts it to use, and so does a start\n"
                );
                output.result(&rotation, text);
            }
            What::Show => {
                let shown = Shown {
                    seal: ids(&state, Purpose::Seal).await?,
                    journal: ids(&state, Purpose::Journal).await?,
                    // A gateway of before made none.
                    vault: ids(&state, Purpose::Vault).await.unwrap_or_default(),
                    checkpoint: ids(&state, Purpose::Checkpoint).await.unwrap_or_default(),
                };
                let Shown { seal, journal, vault, checkpoint } = &shown;
                let all = [("seal", seal), ("journal", journal), ("vault", vault), ("checkpoint", checkpoint)];
                let line = |(purpose, ids): (&str, &Vec<String>)| format!("{purpose:<10}  {}\n", ids.join(" "));
                let text: String = all.into_iter().filter(|(_, ids)| !ids.is_empty()).map(line).collect();
                output.result(&shown, text);
            }
        }
        Ok::<_, String>(())
    };
    match done.await {
        Ok(()) => Ending::Done,
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

async fn webhook(files: &Files, name: &str, output: Output) -> Result<(), String> {
    let understood = files.or_complain().ok_or("nothing is printed")?;
    let config = understood.config();
    if !config.webhooks.iter().any(|hook| hook.name == name) {
        return Err(format!("there is no [webhooks.{name}] in servers.toml"));
    }
    let keys = keyfile::load(&config.keys.webhook, &config.gateway.state, "webhook", Missing::Refuse).await;
    let keys = keys.map_err(|error| error.to_string())?;
    let keys: Vec<[u8; 32]> = keys.iter().filter_map(|key| outbox::signing_key(key, name)).collect();
    let ids = keys.iter().map(outbox::signing_key_id).collect();
    let keys: Vec<String> = keys.iter().map(|key| data_encoding::HEXLOWER.encode(key)).collect();
    let text = format!("{}\n", keys.join("\n"));
    output.result(&Place { webhook: name.to_owned(), keys, ids }, text);
    Ok(())
}

async fn rotate(state: &Path, purpose: Purpose) -> Result<Rotation, String> {
    let before = ids(state, purpose).await?;
    if purpose == Purpose::Seal {
        match client::request(state, Method::GET, "/status", None::<&()>).await {
            Ok(answer) => {
                let status: serde_json::Value = answer.read().map_err(|error| error.to_string())?;
                let used = status.pointer("/keys/seal/0").and_then(serde_json::Value::as_str);
                if used != before.first().map(String::as_str) {
                    return Err(
                        "the running gateway has not taken the last key yet: `bailiwick reload` first".to_owned()
                    );
                }
            }
            Err(ClientError::NotRunning(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let life = (purpose == Purpose::Seal).then_some(limit::SEAL_KEY_KEPT);
    let rotated = keyfile::rotate(state, purpose.name(), life, Timestamp::now()).map_err(|error| error.to_string())?;
    let key = ids(state, purpose).await?.into_iter().next().unwrap_or_default();
    Ok(Rotation { purpose: purpose.name(), key, kept: rotated.kept, dropped: rotated.dropped })
}

/// The names of the keys in a key file; asking never makes one.
async fn ids(state: &Path, purpose: Purpose) -> Result<Vec<String>, String> {
    let path = state.join("keys").join(purpose.name());
    if !path.is_file() {
        return Err(format!("there is no key file {}; has a gateway run there?", path.display()));
    }
    let keys = keyfile::read_or_make(state, purpose.name()).map_err(|error| error.to_string())?;
    match purpose {
        Purpose::Seal => {
            let sealer = Sealer::new(keys.iter().map(|key| key.expose_secret().as_bytes()));
            Ok(sealer.map_err(|error| error.to_string())?.key_ids())
        }
        Purpose::Vault => {
            let sealer = Sealer::of_what_is_kept(keys.iter().map(|key| key.expose_secret().as_bytes()));
            Ok(sealer.map_err(|error| error.to_string())?.key_ids())
        }
        Purpose::Checkpoint => {
            let replica = offline::replica(state).await?;
            let keys = CheckpointKeys::open(state, &replica).map_err(|error| error.to_string())?;
            Ok(keys.verifiers().iter().map(VerifierKey::id).collect())
        }
        Purpose::Journal => Ok(keys.iter().filter_map(JournalKey::from_hex).map(|key| key.id().to_owned()).collect()),
    }
}
