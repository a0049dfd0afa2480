//! The keys of a gateway: those that the files name, or else its own, at its start and at every reload.
//!
//! Decides nothing. Refuses to know what is sealed, digested or signed with them. Invariants: no key is made where the
//! files name one, and only at a start; where one of them cannot be read or used, none is exchanged; no key is shown, only
//! its name.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use super::Gateway;
use crate::config::keyfile::{self, Missing};
use crate::config::rotated::{self, Rotation};
use crate::config::secret::SecretReference;
use crate::config::{Config, KeysConfig};
use crate::ids::ReplicaId;
use crate::outbox;
use crate::record::event::AdminNote;
use crate::record::{CheckpointKeys, JournalKey};
use crate::wire::handle::Sealer;

/// All keys, read and found to be of use.
#[derive(Debug)]
pub struct Keys {
    seal: Vec<SecretString>,
    vault: Vec<SecretString>,
    journal: JournalKey,
    checkpoint: CheckpointKeys,
    webhook: Vec<SecretString>,
    names: Vec<String>,
}

impl Keys {
    /// Reads them, all at once. A start makes those that are missing, the vault's also where nobody links an account, and
    /// the webhooks' where nobody is told anything: both may come with a reload.
    ///
    /// # Errors
    /// A lower-case sentence that names the key and the place.
    pub async fn read(config: &Config, state: &Path, replica: ReplicaId, missing: Missing) -> Result<Self, String> {
        let KeysConfig { seal, vault, journal, checkpoint, webhook } = &config.keys;
        let load = async |references: &[SecretReference], purpose: &'static str| {
            keyfile::load(references, state, purpose, missing).await.map_err(|problem| problem.to_string())
        };
        let checkpoint = async {
            let keys = match (checkpoint.is_empty(), missing) {
                (true, Missing::Make) => CheckpointKeys::open(state, &replica),
                (true, Missing::Refuse) => CheckpointKeys::there(state, &replica),
                (false, _) => CheckpointKeys::named(state, &replica, &load(checkpoint, "checkpoint").await?),
            };
            keys.map_err(|error| error.to_string())
        };
        let (seal, vault, digests, checkpoint, webhook) = tokio::join!(
            load(seal, "seal"),
            load(vault, "vault"),
            load(journal, "journal"),
            checkpoint,
            load(webhook, "webhook")
        );
        let (seal, vault, digests, checkpoint, webhook) = (seal?, vault?, digests?, checkpoint?, webhook?);
        let digests: Option<Vec<_>> = digests.iter().map(JournalKey::from_hex).collect();
        let digests = digests.ok_or("the journal key cannot be derived")?;
        let sealers = [("seal", Sealer::new(bytes(&seal))), ("vault", Sealer::of_what_is_kept(bytes(&vault)))];
        let mut names = Vec::new();
        let mut name = |purpose: &str, id: &str| names.push(format!("key, {purpose}, {id}"));
        for (purpose, sealer) in sealers {
            let ids = sealer.map_err(|error| error.to_string())?.key_ids();
            ids.iter().for_each(|id| name(purpose, id));
        }
        digests.iter().for_each(|key| name("journal", key.id()));
        checkpoint.verifiers().iter().for_each(|key| name("checkpoint", &key.id()));
        // By the names that come with each place's messages.
        for hook in &config.webhooks {
            for key in &webhook {
                let key = outbox::signing_key(key, &hook.name).ok_or("the webhook key cannot be derived")?;
                name(&format!("webhook {}", hook.name), &outbox::signing_key_id(&key));
            }
        }
        let journal = digests.into_iter().next().ok_or("there is no journal key")?;
        Ok(Self { seal, vault, journal, checkpoint, webhook, names })
    }

    /// What seals handles.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn sealer(&self) -> Result<Sealer, String> {
        Sealer::new(bytes(&self.seal)).map_err(|error| error.to_string())
    }

    /// What seals accounts and credentials that are kept.
    ///
    /// # Errors
    /// As [`Self::sealer`].
    pub fn vault_sealer(&self) -> Result<Sealer, String> {
        Sealer::of_what_is_kept(bytes(&self.vault)).map_err(|error| error.to_string())
    }

    /// What the record is kept with.
    #[must_use]
    pub fn into_record(self) -> (JournalKey, CheckpointKeys) {
        (self.journal, self.checkpoint)
    }
}

/// What of the keys in use no room has.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// The names of all of them, as a reload tells of them: purpose by purpose, the one that writes first.
    names: std::sync::Mutex<Vec<String>>,
    /// What messages to others are signed with, each place's by a key that is derived from it.
    webhook: ArcSwap<Vec<SecretString>>,
    /// Held while it is told who exchanged some.
    telling: tokio::sync::Mutex<()>,
}

impl InUse {
    /// From now on it is these; answers the names of those that were.
    pub(super) fn exchange(&self, keys: &Keys) -> Vec<String> {
        self.webhook.store(Arc::new(keys.webhook.clone()));
        std::mem::replace(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner), keys.names.clone())
    }

    /// What messages to others are signed with: the first is the new one.
    pub(super) fn webhook(&self) -> Arc<Vec<SecretString>> {
        self.webhook.load_full()
    }
}

impl Gateway {
    /// Puts other keys to use: whoever comes back with something is known by the older ones among them. Answers the names
    /// that were not there before, and those that are gone.
    pub(super) fn take_keys(&self, keys: Keys) -> Result<(Vec<String>, Vec<String>), String> {
        self.sealer.replace(bytes(&keys.seal)).map_err(|error| error.to_string())?;
        if let Some(vault) = self.delegate.vault() {
            vault.exchange_keys(bytes(&keys.vault)).map_err(|error| error.to_string())?;
        }
        let before = self.reloader.keys.exchange(&keys);
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|name| !those.contains(name)).cloned().collect()
        };
        let changed = (only(&keys.names, &before), only(&before, &keys.names));
        let (journal, checkpoint) = keys.into_record();
        self.journal.exchange_keys(journal, checkpoint);
        Ok(changed)
    }
}

impl Gateway {
    /// Puts on the record who exchanged keys while a gateway ran.
    pub async fn tell_of_rotations(&self) {
        let state = self.config().gateway.state.clone();
        if let Err(problem) = self.told_of_rotations(&state).await {
            tracing::warn!(problem, "who exchanged keys is told later");
        }
    }

    async fn told_of_rotations(&self, state: &Path) -> Result<(), String> {
        // Two at once would tell the same.
        let _one_at_a_time = self.reloader.keys.telling.lock().await;
        loop {
            let taken = at_the_notes(state, rotated::take).await?;
            if taken.is_empty() {
                return Ok(());
            }
            for Rotation { actor, purpose, detail } in &taken.notes {
                let note = AdminNote {
                    operation: "keys-rotate",
                    object: "bailiwick/keys",
                    actor,
                    actor_kind: "host",
                    brakes: false,
                    client: None,
                    outcome: "done",
                    reason: None,
                    rule: None,
                    about: purpose,
                    detail,
                };
                self.journal.administered(&note, None).await.map_err(|failure| failure.detail)?;
            }
            at_the_notes(state, move |state| rotated::forget(state, &taken)).await?;
        }
    }
}

/// Whoever leaves a note at the moment is waited for.
async fn at_the_notes<T: Send + 'static>(
    state: &Path,
    act: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let state = state.to_owned();
    let done = tokio::task::spawn_blocking(move || act(&state)).await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

fn bytes(keys: &[SecretString]) -> impl Iterator<Item = &[u8]> {
    keys.iter().map(|key| key.expose_secret().as_bytes())
}
