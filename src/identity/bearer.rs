//! Whom a credential would make the caller: for questions about the rules, and for what is handed out beside it.
//!
//! Decides nothing of its own: it is examined as one is that somebody calls with. Refuses to make a [`super::Caller`], and to
//! remember what it was asked about. Invariants: whoever asks gets a description, which lets nobody in; what a token has to come with (a proof of its key,
//! a certificate) is told and not asked for, because only its holder has it.

use std::sync::Arc;

use super::cache::{Basis, Entry};
use super::chain::{self, Fresh};
use super::marks::rests_on;
use super::persona::Persona;
use super::resource::Resource;
use super::{Identity, now_s};
use crate::config::Config;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};
use crate::wire::voids::Holder;

/// Whose a credential is.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Who that is.
    pub persona: Persona,
    /// From which second since 1970 on the credential says nothing any more.
    pub expires_at: i64,
    /// It is good only with a proof of the key that it names (RFC 9449).
    pub needs_proof: bool,
    /// It is good only over a connection with the certificate that it names (RFC 8705).
    pub needs_certificate: bool,
}

impl Identity {
    /// Whose this is, at this resource: verified, and held against what was taken back.
    ///
    /// # Errors
    /// What [`Identity::authenticate`] would say to whoever comes with it, and with all that it names.
    pub async fn bearer(&self, text: &str, resource: &Resource) -> Result<Bearer, Stop> {
        let entry = self.looked_at(text).await?;
        if !entry.reach.covers(resource) {
            return Err(Refusal::new(Reason::AudienceMismatch).into());
        }
        entry.binding.suffices()?;
        let needs_certificate = entry.binding.names_certificate();
        // Whoever comes with the certificate may have proven more than a name.
        let verified = Self::bound(&entry);
        self.revocations.check(&verified.token)?;
        Ok(Bearer {
            persona: verified.persona.clone(),
            expires_at: verified.token.expires_at,
            needs_proof: entry.binding.names_key(),
            needs_certificate,
        })
    }

    /// Whom a handle rests on that goes out beside this token, wherever the token is good: verified, and held against
    /// what was taken back.
    ///
    /// # Errors
    /// What [`Identity::authenticate`] would say to whoever comes with it, but for the place.
    pub async fn holder(&self, text: &str, config: &Config) -> Result<Holder, Stop> {
        let entry = self.looked_at(text).await?;
        let verified = Self::bound(&entry);
        let epoch = self.revocations.check(&verified.token)?;
        Ok(Holder::new(verified.principal, epoch, rests_on([&verified.token], &verified.persona, config)))
    }

    async fn looked_at(&self, text: &str) -> Result<Arc<Entry>, Stop> {
        if text.len() > limit::TOKEN_BYTES_MAX {
            return Err(Refusal::new(Reason::TokenMalformed).hint("the token is larger than the limit").into());
        }
        let digest = Digest::sha256(text.as_bytes());
        let (revision, now) = (self.settings.load().revision, now_s());
        match self.cache.verified(&digest, revision, now) {
            Some(known) => Ok(known),
            None => match self.cache.refused(&digest, revision, now) {
                Some(refusal) => Err(refusal.into()),
                None => Box::pin(self.look_at(text, digest)).await,
            },
        }
    }

    /// What a token says that is only asked about: nothing of it is kept.
    async fn look_at(&self, text: &str, digest: Digest) -> Result<Arc<Entry>, Stop> {
        let settings = self.settings.load_full();
        let mut basis = Basis { issuer: None, bundle: None, revision: settings.revision };
        chain::examine(&settings, Fresh { text, digest, comes: false }, &mut basis).await
    }
}
