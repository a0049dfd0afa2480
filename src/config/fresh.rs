//! Secrets that are read when they are needed, and again after a while.
//!
//! Decides when a secret is read again. Invariants: a request waits for at most one reading, and none of them starts
//! a program of its own; a secret that cannot be read any more is used on as it was, because rotation replaces files in
//! more than one step.

use std::sync::Arc;
use std::time::Instant;

use secrecy::SecretString;
use tokio::sync::Mutex;

use super::SecretReference;
use crate::limit;

/// What was read, one for each reference.
#[derive(Default)]
pub struct FreshSecrets {
    /// Held while one is read: whoever comes meanwhile gets the same.
    read: Mutex<Vec<Read>>,
}

struct Read {
    reference: SecretReference,
    at: Instant,
    secret: Option<Arc<SecretString>>,
    problem: String,
}

impl FreshSecrets {
    /// The secret, at most [`limit::FRESH_SECRET_AGE_MAX`] old; the one before where it cannot be read now.
    ///
    /// # Errors
    /// Why it never could be read.
    pub async fn get(&self, reference: &SecretReference) -> Result<Arc<SecretString>, String> {
        let mut all = self.read.lock().await;
        let known = all.iter().position(|read| read.reference == *reference);
        let fresh = known.and_then(|place| all.get(place));
        if fresh.is_none_or(|read| read.at.elapsed() >= limit::FRESH_SECRET_AGE_MAX) {
            let before = known.map(|place| all.swap_remove(place)).and_then(|read| read.secret);
            let (secret, problem) = match reference.read().await {
                Ok(secret) => (Some(Arc::new(secret)), String::new()),
                Err(error) => {
                    tracing::warn!(%error, "a secret could not be read");
                    (before, error.to_string())
                }
            };
            // References that no file names any more are forgotten with the oldest.
            if all.len() >= limit::FRESH_SECRETS_MAX {
                all.remove(0);
            }
            all.push(Read { reference: reference.clone(), at: Instant::now(), secret, problem });
        }
        let read = all.iter().find(|read| read.reference == *reference);
        let secret = read.and_then(|read| read.secret.clone());
        secret.ok_or_else(|| read.map(|read| read.problem.clone()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_once_within_a_while_and_used_on_when_it_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        let (reference, secrets) = (SecretReference::File(path.clone()), FreshSecrets::default());
        assert!(secrets.get(&reference).await.unwrap_err().contains("secret"));
        std::fs::write(&path, "one").unwrap();
        assert!(secrets.get(&reference).await.is_err(), "it was looked for a moment ago");
        let expire = async || {
            for read in &mut *secrets.read.lock().await {
                read.at = Instant::now().checked_sub(limit::FRESH_SECRET_AGE_MAX).unwrap();
            }
        };
        expire().await;
        assert_eq!(secrets.get(&reference).await.unwrap().expose_secret(), "one");
        std::fs::remove_file(&path).unwrap();
        expire().await;
        assert_eq!(secrets.get(&reference).await.unwrap().expose_secret(), "one");
    }

    #[tokio::test]
    async fn so_many_references_are_remembered() {
        let secrets = FreshSecrets::default();
        for number in 0..=limit::FRESH_SECRETS_MAX {
            let reference = SecretReference::Plain(number.to_string());
            assert_eq!(secrets.get(&reference).await.unwrap().expose_secret(), number.to_string());
        }
        assert_eq!(secrets.read.lock().await.len(), limit::FRESH_SECRETS_MAX);
    }
}
