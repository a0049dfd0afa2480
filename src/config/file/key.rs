//! Reads `[keys]`: which keys the gateway does not make for itself.
//!
//! Invariant: a key is a reference here; what it refers to is read when it is used, and never shown.

use std::path::Path;

use toml::Spanned;

use super::credential::reference;
use crate::config::KeysConfig;
use crate::config::reader::Table;
use crate::limit;

/// What is missing where replicas have a store in common: what one of them sealed, all have to read.
pub fn needed(keys: &KeysConfig) -> Vec<String> {
    let all = [("seal", &keys.seal), ("journal", &keys.journal), ("checkpoint", &keys.checkpoint)];
    let missing = all.into_iter().filter(|(_, references)| references.is_empty());
    missing.map(|(name, _)| self::missing(name)).collect()
}

/// That a key is missing which all replicas need.
pub fn missing(name: &str) -> String {
    format!(
        "with this store all replicas need the same keys: write {name} = [\"env:NAME\"] or [\"file:PATH\"] below \
         [keys], a key of 64 hexadecimal digits (`openssl rand -hex 32`)"
    )
}

/// Reads `[keys]`.
pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<KeysConfig> {
    let mut references = |key: &str| {
        let written = table.get::<Vec<Spanned<String>>>(key)?;
        if written.len() > limit::KEYS_MAX {
            let message = format!("{} keys are too many: at most {}", written.len(), limit::KEYS_MAX);
            table.mistake(&table.place(key), message);
        }
        let mut references = Vec::new();
        for text in written {
            match reference(text.get_ref(), base) {
                Ok(reference) => references.push(reference),
                Err(message) => table.mistake(&text.span(), message),
            }
        }
        Some(references)
    };
    let (seal, journal, checkpoint) = (references("seal"), references("journal"), references("checkpoint"));
    let (vault, webhook) = (references("vault"), references("webhook"));
    Some(KeysConfig { seal: seal?, journal: journal?, checkpoint: checkpoint?, vault: vault?, webhook: webhook? })
}
