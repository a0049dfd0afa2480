//! A secret of the gateway's own, in one place or in two while it is changed.
//!
//! Decides which of two places is presented, and what becomes of a secret that is too old. Refuses to know who calls.
//! Invariants: a call does not fail because a secret was changed in the right order; one that may be refused for its
//! age is not presented.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::handed::Handed;
use super::secrets::{Known, Secrets};
use super::spare::Spare;
use super::{Ends, prefixed, seconds, unavailable};
use crate::config::{Config, CredentialConfig, OnStale, SecretReference, StaticConfig};
use crate::identity::now_s;
use crate::ids::ServerId;
use crate::inversion::{self, Control};
use crate::limit;
use crate::oauth::dpop::{PROOF, Prover};
use crate::outcome::{Failure, Reason, Stop};

/// What is presented in a header, and what may be presented instead.
#[derive(Clone)]
pub struct CredentialHeader {
    /// The header.
    pub name: HeaderName,
    /// Its whole value.
    pub value: SecretString,
    /// What is tried once when the upstream answers 401 to that.
    pub spare: Option<Spare>,
    /// Makes the proofs that go with it, where it is a token that is bound to a key of ours.
    pub prover: Option<Arc<Prover>>,
    /// Not from this second since 1970 on; absent where there is no such end.
    pub used_until: Option<i64>,
    /// What a process gets instead, where it is for one.
    pub handed: Option<Arc<Handed>>,
    /// Fires when it is taken back; absent where nobody can do that by itself.
    pub taken_back: Option<CancellationToken>,
}

/// The other place of a secret.
#[derive(Clone)]
pub struct SecretSpare {
    fixed: Arc<Fixed>,
    config: Arc<StaticConfig>,
    /// Which of the places was presented, and what stood there.
    presented: usize,
    value: Arc<SecretString>,
}

/// The static secrets: which of their places is presented.
#[derive(Debug)]
pub(super) struct Fixed {
    secrets: Arc<Secrets>,
    /// By the places: the one that was accepted last.
    chosen: Mutex<HashMap<String, usize>>,
}

/// One place of one static secret, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// The server.
    pub server: String,
    /// The tool that it is for; nothing, where it is for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Where it is.
    pub place: String,
    /// Whether it is the one that is presented.
    pub presented: bool,
    /// Since when it is as it is, seconds since 1970; nobody knows where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<i64>,
    /// How old it may become, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Whether it is older.
    pub stale: bool,
    /// When it was presented last, seconds since 1970; not since this process began, where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<i64>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

impl CredentialHeader {
    /// A header that nothing else is presented instead of.
    #[must_use]
    pub const fn new(name: HeaderName, value: SecretString) -> Self {
        Self { name, value, spare: None, prover: None, used_until: None, handed: None, taken_back: None }
    }

    /// The same, to be used until then.
    #[must_use]
    pub const fn until(self, used_until: Option<i64>) -> Self {
        let mut header = self;
        header.used_until = used_until;
        header
    }

    /// The secret without what is written before it in a header; nothing, where it is none of the gateway's.
    pub(super) fn bare(&self) -> Option<SecretString> {
        match &self.spare {
            Some(Spare::Secret(spare)) => Some(SecretString::clone(&spare.value)),
            _ => None,
        }
    }

    /// The headers of one request with a proof for the token that stands in them, where it is bound to a key.
    ///
    /// # Errors
    /// [`Reason::CredentialUnavailable`] where none can be made.
    pub fn proven(&self, method: &Method, uri: &Uri, mut headers: HeaderMap) -> Result<HeaderMap, Failure> {
        let Some(prover) = &self.prover else { return Ok(headers) };
        let value = headers.get(&self.name).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.split_once(' ')).map(|(_, token)| token);
        let proof = prover.prove(method.as_str(), &uri.to_string(), token);
        let proof = proof.map_err(|problem| Failure::before(Reason::CredentialUnavailable, problem))?;
        headers.insert(PROOF, proof);
        Ok(headers)
    }

    /// Takes over what an answer wants to stand in proofs; whether that is something else than before.
    #[must_use]
    pub fn hears(&self, answer: &HeaderMap) -> bool {
        self.prover.as_ref().is_some_and(|prover| prover.hear(answer))
    }

    /// The same, which can be taken back.
    #[must_use]
    pub fn standing(self, taken_back: &CancellationToken) -> Self {
        Self { taken_back: Some(taken_back.clone()), ..self }
    }

    /// Whether its use has ended, in time or because it was taken back.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        let taken_back = self.taken_back.as_ref().is_some_and(CancellationToken::is_cancelled);
        taken_back || self.used_until.is_some_and(|until| now_s() >= until)
    }

    /// Waits for the end of its use; for ever, where there is none.
    pub async fn used_up(&self) {
        let in_time = async {
            while let Some(left) = self.used_until.map(|until| until.saturating_sub(now_s())).filter(|left| *left > 0) {
                tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or(0))).await;
            }
            if self.used_until.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! { () = in_time => {}, () = self.taken_away() => {} }
    }

    /// Waits until it is taken back; for ever, where nobody can do that by itself.
    pub async fn taken_away(&self) {
        match &self.taken_back {
            Some(taken_back) => taken_back.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Fixed {
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, chosen: Mutex::default() }
    }

    /// Forgets which places were accepted: the first one is tried first again.
    pub fn forget(&self) {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is presented now, and when it ends.
    pub async fn header(
        self: &Arc<Self>,
        config: &Arc<StaticConfig>,
        server: &ServerId,
    ) -> Result<(CredentialHeader, Ends), Stop> {
        let name = HeaderName::try_from(config.header.as_str())
            .map_err(|_| unavailable(server, &format!("`{:.80}` is not a header name", config.header)))?;
        let first = self.chosen(config);
        // One that cannot be read, or must not be used, leaves the other.
        let mut problem = None;
        for index in std::iter::once(first).chain((0..config.slots.len()).filter(|index| *index != first)) {
            match self.value(config, index, server).await {
                Ok((value, ends)) => {
                    let spare = SecretSpare {
                        fixed: Arc::clone(self),
                        config: Arc::clone(config),
                        presented: index,
                        value: Arc::clone(&value),
                    };
                    let header = CredentialHeader::new(name, prefixed(&config.prefix, &value)).until(ends.used_until);
                    return Ok((CredentialHeader { spare: Some(Spare::Secret(spare)), ..header }, ends));
                }
                Err(stop) => drop(problem.get_or_insert(stop)),
            }
        }
        Err(problem.unwrap_or_else(|| unavailable(server, "no secret is configured")))
    }

    async fn value(
        &self,
        config: &StaticConfig,
        index: usize,
        server: &ServerId,
    ) -> Result<(Arc<SecretString>, Ends), Stop> {
        let slot = config.slots.get(index).ok_or_else(|| unavailable(server, "no secret is configured"))?;
        let known = self.secrets.known(slot).await;
        if config.on_stale == OnStale::Refuse && is_stale(config, &known, now_s()) {
            let detail = format!(
                "the secret {slot} for server `{server}` is older than its max_age: replace it, or have its file changed"
            );
            return Err(Failure::before(Reason::CredentialStale, detail).into());
        }
        let ends = ends(config, &known);
        let value = known.value.map_err(|problem| unavailable(server, &problem))?;
        self.secrets.used(slot, now_s());
        Ok((value, ends))
    }

    fn chosen(&self, config: &StaticConfig) -> usize {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.get(&places(config)).copied().unwrap_or_default().min(config.slots.len().saturating_sub(1))
    }

    fn choose(&self, config: &StaticConfig, index: usize) {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if chosen.insert(places(config), index) != Some(index)
            && let Some(slot) = config.slots.get(index)
        {
            tracing::info!(%slot, "the secret in this place is accepted and presented from now on");
        }
    }

    /// Every static secret of the configuration.
    pub async fn list(&self, config: &Config) -> Vec<SecretStatus> {
        let now = now_s();
        let mut listed = Vec::new();
        for server in &config.servers {
            let tools = server.tool_credentials.iter().map(|(tool, credential)| (Some(tool.clone()), credential));
            for (tool, credential) in std::iter::once((None, &server.credential)).chain(tools) {
                let CredentialConfig::Static(fixed) = credential else { continue };
                let chosen = self.chosen(fixed);
                for (index, slot) in fixed.slots.iter().enumerate() {
                    let known = self.secrets.known(slot).await;
                    listed.push(SecretStatus {
                        server: server.id.to_string(),
                        tool: tool.clone(),
                        place: slot.to_string(),
                        presented: index == chosen,
                        rotated_at: rotated_at(fixed, &known),
                        max_age: fixed.max_age.map(seconds),
                        stale: is_stale(fixed, &known, now),
                        used_at: known.used_at,
                        problem: known.value.err().unwrap_or_default(),
                    });
                }
            }
        }
        listed
    }
}

/// Since when the secret is as it is: its file knows better than whoever wrote the configuration.
fn rotated_at(config: &StaticConfig, known: &Known) -> Option<i64> {
    known.changed_at.or(config.rotated_at)
}

/// When it ends by itself: a secret has no end but the age that it may reach, and one that is used on has none.
fn ends(config: &StaticConfig, known: &Known) -> Ends {
    let most = config.max_age.filter(|_| !inversion::is_off(Control::Rotation));
    let expires_at = most.and_then(|most| Some(rotated_at(config, known)?.saturating_add(seconds(most))));
    Ends { expires_at, used_until: expires_at.filter(|_| config.on_stale == OnStale::Refuse) }
}

fn is_stale(config: &StaticConfig, known: &Known, now: i64) -> bool {
    if inversion::is_off(Control::Rotation) {
        return false;
    }
    // How old it is nobody may know: then it is too old.
    config
        .max_age
        .is_some_and(|most| rotated_at(config, known).is_none_or(|since| now.saturating_sub(since) > seconds(most)))
}

fn places(config: &StaticConfig) -> String {
    config.slots.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl SecretSpare {
    /// Another value for the header: what is in the other place, or what has come to stand in the only one. Nothing,
    /// where that is what was refused.
    pub async fn other(&self) -> Option<SecretString> {
        let other = self.config.slots.iter().enumerate().find(|(index, _)| *index != self.presented);
        let value = match (other, self.config.slots.get(self.presented)) {
            (Some((index, _)), _) => {
                let known = self.fixed.secrets.known(self.config.slots.get(index)?).await;
                let stale = self.config.on_stale == OnStale::Refuse && is_stale(&self.config, &known, now_s());
                known.value.ok().filter(|_| !stale)?
            }
            (None, Some(slot @ SecretReference::File(_))) => {
                let again = tokio::time::timeout(limit::SECRET_REREAD_TIMEOUT, self.fixed.secrets.read_again(slot));
                again.await.ok()??
            }
            (None, _) => return None,
        };
        let same = value.expose_secret() == self.value.expose_secret();
        (!same).then(|| prefixed(&self.config.prefix, &value))
    }

    /// The other value was accepted: it is presented from now on.
    pub fn accepted(&self) {
        if let Some((index, slot)) = self.config.slots.iter().enumerate().find(|(index, _)| *index != self.presented) {
            self.fixed.choose(&self.config, index);
            self.fixed.secrets.used(slot, now_s());
        }
    }
}

impl fmt::Debug for SecretSpare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretSpare").field("slots", &self.config.slots).finish_non_exhaustive()
    }
}

impl fmt::Debug for CredentialHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CredentialHeader").field("name", &self.name).finish_non_exhaustive()
    }
}
