//! The secrets that senders present.
//!
//! Invariant: a secret is compared in constant time, whatever was guessed.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::ExposeSecret as _;

use super::Feeds;
use crate::config::SecretReference;
use crate::config::fresh::FreshSecrets;
use crate::ids::Digest;
use crate::outcome::{Failure, Reason, Refusal, Stop};

impl Feeds {
    /// Whether the request presents the secret as a bearer token.
    ///
    /// # Errors
    /// `feed_refused`, or a failure where there is nothing to compare it with.
    pub(super) async fn check_secret(&self, reference: &SecretReference, headers: &HeaderMap) -> Result<(), Stop> {
        check(&self.secrets, reference, headers).await
    }
}

async fn check(secrets: &FreshSecrets, reference: &SecretReference, headers: &HeaderMap) -> Result<(), Stop> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, none) = (values.next(), values.next());
    let presented = value.filter(|_| none.is_none()).and_then(|value| value.to_str().ok()).and_then(bearer);
    let presented = presented.ok_or_else(|| Refusal::new(Reason::FeedRefused))?;
    let secret = secrets.get(reference).await;
    let secret = secret.map_err(|problem| Failure::before(Reason::CredentialUnavailable, problem))?;
    // Of one length, whatever was guessed.
    let (own, presented) = (Digest::sha256(secret.expose_secret().as_bytes()), Digest::sha256(presented.as_bytes()));
    verify_slices_are_equal(own.as_bytes(), presented.as_bytes()).map_err(|_| Refusal::new(Reason::FeedRefused).into())
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
        let secrets = FreshSecrets::default();
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret"] {
            assert!(check(&secrets, &reference, &headers(&[right])).await.is_ok(), "{right}");
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
            let stop = check(&secrets, &reference, &headers(wrong)).await.unwrap_err();
            assert_eq!(stop.reason(), Reason::FeedRefused, "{wrong:?}");
        }
        // Read a moment ago: not again before its time.
        std::fs::remove_file(&path).unwrap();
        assert!(check(&secrets, &reference, &headers(&["Bearer s3cret"])).await.is_ok());
        let absent = SecretReference::File(place.path().join("absent"));
        let stop = check(&secrets, &absent, &headers(&["Bearer s3cret"])).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    }
}
