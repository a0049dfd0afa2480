//! What a strategy is asked: a credential for whom, for which server, and for how long at most.
//!
//! The interface of this room's strategies. A strategy is a file with a function that answers a [`Wanted`] and a
//! configuration of its own with an [`super::issued::Issued`]; it asks authorization servers through
//! [`super::endpoint::Endpoints`] and keeps nothing, because the cache does. Invariant: whatever a credential depends
//! on is in here or in the strategy's configuration, and so in the key ([`super::key::Inputs`]).

use std::sync::Arc;

use super::key::Inputs;
use crate::config::{CredentialConfig, ServerConfig, TokenRequest};
use crate::identity::Caller;
use crate::ids::{Digest, ServerId};

/// What bounds the use of a credential beside its own life, its caller's and the configured time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound<'a> {
    /// The mandate that it is for, with those above it, the outermost first and a `/` between two: another mandate gets
    /// another credential.
    pub mandate: Option<&'a str>,
    /// When the mandate ends, or the approval that the call has: the earlier one; seconds since 1970.
    pub ends_at: Option<i64>,
}

/// What a strategy is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// For whom; nobody, where the gateway asks for itself.
    pub caller: Option<&'a Caller>,
    /// For which server.
    pub server: &'a Arc<ServerConfig>,
    /// Its configuration, as far as credentials depend on it.
    pub revision: Digest,
    /// What else ends its use.
    pub bound: Bound<'a>,
    /// Where the cache has the answer; nowhere yet, while the key is made.
    pub key: Digest,
}

impl<'a> Wanted<'a> {
    /// The same with its key.
    pub fn keyed(self, credential: &CredentialConfig, asks: &TokenRequest) -> Self {
        let key = Inputs::new(&self, credential, asks).key();
        Self { key, ..self }
    }

    /// Whose place what is issued takes: of all clients and agents of one person together.
    pub fn holder(&self) -> Digest {
        let token = self.caller.map(Caller::token);
        let name = token.and_then(|token| token.subject.as_ref().or(token.client.as_ref()));
        let issuer = token.map(|token| token.issuer.as_str()).unwrap_or_default();
        let parts = [issuer.as_bytes(), name.map(String::as_bytes).unwrap_or_default()];
        Digest::of("bailiwick/credential-holder/v1", &parts)
    }

    /// When what it is for ends, whosever it is: with the caller's token, the mandate or the approval.
    pub fn ends_at(&self) -> Option<i64> {
        let caller = self.caller.map(|caller| caller.token().expires_at);
        caller.into_iter().chain(self.bound.ends_at).min()
    }

    /// The name of the server.
    pub fn id(&self) -> &'a ServerId {
        &self.server.id
    }
}

/// Whether a credential was issued for that mandate or one below it: a mandate is named with those above it, the
/// outermost first.
pub(super) fn is_within(path: Option<&str>, mandate: &str) -> bool {
    path.is_some_and(|path| path.split('/').any(|name| name == mandate))
}
