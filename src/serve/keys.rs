//! The keys that a gateway starts with: those that the files name, or else its own.
//!
//! Decides nothing. Invariant: no key is made where the files name one that cannot be read.

use secrecy::ExposeSecret as _;

use super::{StartError, trouble};
use crate::config::{Config, keyfile};
use crate::ids::ReplicaId;
use crate::record::{CheckpointKeys, JournalKey};
use crate::store::StateDirectory;
use crate::wire::handle::Sealer;

/// The keys that the files name, or else our own.
pub(super) async fn checkpoint_keys(
    config: &Config,
    state: &StateDirectory,
    replica: ReplicaId,
) -> Result<CheckpointKeys, StartError> {
    let mut named = Vec::new();
    for reference in &config.keys.checkpoint {
        named.push(reference.read().await.map_err(trouble)?);
    }
    if named.is_empty() {
        CheckpointKeys::open(state.path(), &replica).map_err(trouble)
    } else {
        CheckpointKeys::named(state.path(), &replica, &named).map_err(trouble)
    }
}

pub(super) async fn sealer(config: &Config) -> Result<Sealer, StartError> {
    let secrets = keyfile::load(&config.keys.seal, &config.gateway.state, "seal").await.map_err(trouble)?;
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
    Sealer::new(secrets).map_err(trouble)
}

pub(super) async fn journal_key(config: &Config) -> Result<JournalKey, StartError> {
    let secrets = keyfile::load(&config.keys.journal, &config.gateway.state, "journal").await.map_err(trouble)?;
    let key = secrets.first().and_then(JournalKey::from_hex);
    key.ok_or_else(|| trouble("the journal key cannot be derived"))
}

/// Made where it is missing, whether somebody links an account or not: a server that is called with accounts may come
/// with a reload.
pub(super) async fn vault_sealer(config: &Config) -> Result<Sealer, StartError> {
    let secrets = keyfile::load(&config.keys.vault, &config.gateway.state, "vault").await.map_err(trouble)?;
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
    Sealer::new(secrets).map_err(trouble)
}
