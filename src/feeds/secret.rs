//! The secrets that senders present, and those that we present where events are fetched.
//!
//! Decides when a secret is read again. Invariants: a request waits for at most one reading, and none of them starts
//! a program of its own; secrets are compared in constant time.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use crate::config::SecretReference;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// What was read, one for each reference.
#[derive(Default)]
pub(super) struct Secrets {
    /// Held while one is read: whoever comes meanwhile gets the same.
    read: Mutex<Vec<Read>>,
}

struct Read {
    reference: SecretReference,
    at: Instant,
    secret: Option<Arc<SecretString>>,
    problem: String,
}

impl Secrets {
    /// The secret, at most [`limit::FEED_SECRET_AGE_MAX`] old; the one before where it cannot be read now.
    ///
    /// # Errors
    /// `credential_unavailable` where it never could.
    pub(super) async fn get(&self, reference: &SecretReference) -> Result<Arc<SecretString>, Failure> {
        let mut all = self.read.lock().await;
        let known = all.iter().position(|read| read.reference == *reference);
        let fresh = known.and_then(|place| all.get(place)).is_some_and(|read| read.at.elapsed() < limit::FEED_SECRET_AGE_MAX);
        if !fresh {
            let before = known.map(|place| all.swap_remove(place)).and_then(|read| read.secret);
            let (secret, problem) = match reference.read().await {
                Ok(secret) => (Some(Arc::new(secret)), String::new()),
                Err(error) => {
                    tracing::warn!(%error, "the secret of a feed could not be read");
                    (before, error.to_string())
                }
            };
            // References that no file names any more are forgotten with the oldest.
            if all.len() >= limit::FEEDS_MAX * 3 {
                all.remove(0);
            }
            all.push(Read { reference: reference.clone(), at: Instant::now(), secret, problem });
        }
        let read = all.iter().find(|read| read.reference == *reference);
        let secret = read.and_then(|read| read.secret.clone());
        secret.ok_or_else(|| {
            let problem = read.map(|read| read.problem.clone()).unwrap_or_default();
            Failure::before(Reason::CredentialUnavailable, problem)
        })
    }

    /// Whether the request presents the secret as a bearer token.
    ///
    /// # Errors
    /// `feed_refused`, or a failure where there is nothing to compare it with.
    pub(super) async fn check(&self, reference: &SecretReference, headers: &HeaderMap) -> Result<(), Stop> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (value, none) = (values.next(), values.next());
        let presented = value.filter(|_| none.is_none()).and_then(|value| value.to_str().ok()).and_then(bearer);
        let presented = presented.ok_or_else(|| Refusal::new(Reason::FeedRefused))?;
        let secret = self.get(reference).await?;
        // Of one length, whatever was guessed.
        let (own, presented) =
            (Digest::sha256(secret.expose_secret().as_bytes()), Digest::sha256(presented.as_bytes()));
        verify_slices_are_equal(own.as_bytes(), presented.as_bytes())
            .map_err(|_| Refusal::new(Reason::FeedRefused).into())
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn only_the_whole_secret_once_is_the_secret() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        std::fs::write(&path, "s3cret\n").unwrap();
        let reference = SecretReference::File(path.clone());
        let secrets = Secrets::default();
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret"] {
            assert!(secrets.check(&reference, &headers(&[right])).await.is_ok(), "{right}");
        }
        let wrong: [&[&str]; 8] = [
            &[],
            &["Bearer "],
            &["Bearer s3cre"],
            &["Bearer s3cret1"],
            &["Basic s3cret"],
            &["s3cret"],
            &["Bearer x"],
            &["Bearer s3cret", "Bearer s3cret"],
        ];
        for wrong in wrong {
            let stop = secrets.check(&reference, &headers(wrong)).await.unwrap_err();
            assert_eq!(stop.reason(), Reason::FeedRefused, "{wrong:?}");
        }
        // Read a moment ago: not again before its time.
        std::fs::remove_file(&path).unwrap();
        assert!(secrets.check(&reference, &headers(&["Bearer s3cret"])).await.is_ok());
        let absent = SecretReference::File(place.path().join("absent"));
        let stop = secrets.check(&absent, &headers(&["Bearer s3cret"])).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    }
}
