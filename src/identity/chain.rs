//! The ways in which a credential can be recognised, in the order in which they are asked.
//!
//! Decides which way a credential belongs to. Refuses to know how any of them verifies. Invariant: the first way that
//! knows a credential as its own has the last word about it. What one way refuses, or cannot decide now, is never
//! tried with the next one, so that nobody is let in by a weaker check than the one their credential is for.

use std::sync::Arc;

use secrecy::SecretString;

use super::agent::AgentIndex;
use super::cache::{Basis, Entry};
use super::{Settings, api_key, jwt, opaque};
use crate::ids::Digest;
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// A way in which a credential can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A JWT, by its form and its `iss`.
    Jwt,
    /// One of our own API keys, by its prefix.
    Key,
    /// An opaque token, by its issuer's prefix, or because nothing else is left.
    Opaque,
}

/// Forms that nobody else can have come first; the way that takes whatever is left comes last.
const ORDER: [Way; 3] = [Way::Jwt, Way::Key, Way::Opaque];

/// Why a way did not verify a credential.
#[derive(Debug)]
pub(super) enum Declined {
    /// It is not of the kind, or not from anybody, that this way knows; what to say if no way does.
    NotMine(Refusal),
    /// It is, and this is the answer.
    Stopped(Stop),
}

impl From<Stop> for Declined {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self::Stopped(refusal.into())
    }
}

impl From<Failure> for Declined {
    fn from(failure: Failure) -> Self {
        Self::Stopped(failure.into())
    }
}

/// A credential that is looked at for the first time.
#[derive(Clone, Copy)]
pub(super) struct Fresh<'a> {
    pub text: &'a str,
    /// Its SHA-256.
    pub digest: Digest,
    /// Somebody comes with it; else it is only asked about, and leaves no trace.
    pub comes: bool,
}

impl Fresh<'_> {
    /// What of it is kept where others are shown it, or another token for it.
    pub fn raw(self, settings: &Settings) -> Option<SecretString> {
        (settings.keep_tokens && self.comes).then(|| SecretString::from(self.text))
    }

    /// Who acts; where somebody comes with it, software that nobody registered is heard of.
    pub fn agents(self, settings: &Settings) -> AgentIndex {
        if self.comes { settings.agents.clone() } else { settings.agents.quiet() }
    }
}

/// Asks one way after the other; `basis` tells afterwards what the answer rests on.
pub(super) async fn examine(settings: &Settings, shown: Fresh<'_>, basis: &mut Basis) -> Result<Arc<Entry>, Stop> {
    let mut unclaimed = None;
    for way in ORDER {
        let answer = match way {
            Way::Jwt => jwt::examine(settings, shown, basis).await,
            Way::Key => api_key::examine(settings, shown, basis),
            Way::Opaque => opaque::examine(settings, shown, basis).await,
        };
        match answer {
            Ok(entry) => return Ok(Arc::new(entry)),
            Err(Declined::Stopped(stop)) => return Err(stop),
            // The first way knows best what is wrong with what nobody knows.
            Err(Declined::NotMine(refusal)) => drop(unclaimed.get_or_insert(refusal)),
        }
    }
    Err(unclaimed.unwrap_or_else(|| Refusal::new(Reason::TokenMalformed)).into())
}
