//! A client's roots have changed: told in its principal's living legacy sessions, and nowhere else.
//!
//! Decides which sessions heard that such changes are told. Knows nothing of who calls beyond the key of a principal, nor
//! of the roots. Invariant: nothing is opened or started to be told of it, and what is said is an errand without anything
//! of the client's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Upstreams;
use super::errand::Errand;
use super::server::{Server, Wire};
use crate::config::ServerConfig;
use crate::ids::{PrincipalKey, ServerId};
use crate::wire::Askable;
use crate::wire::mcp::Era;

/// Which servers are being told of whose roots, and whether they changed again meanwhile.
#[derive(Debug, Default)]
pub(super) struct Telling(Mutex<HashMap<Of, bool>>);

/// A server, and whose roots.
type Of = (ServerId, PrincipalKey);

/// The turn to tell; nobody else has it.
struct Turn<'a> {
    telling: &'a Telling,
    of: Of,
    is_over: bool,
}

impl Telling {
    /// The turn, unless somebody has it, who tells once more then.
    fn begin(&self, of: Of) -> Option<Turn<'_>> {
        let mut telling = self.lock();
        if let Some(again) = telling.get_mut(&of) {
            *again = true;
            return None;
        }
        telling.insert(of.clone(), false);
        Some(Turn { telling: self, of, is_over: false })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Of, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether they changed again; the turn is over otherwise.
    fn goes_on(&mut self) -> bool {
        let mut telling = self.telling.lock();
        let again = telling.get_mut(&self.of).is_some_and(std::mem::take);
        if !again {
            telling.remove(&self.of);
            self.is_over = true;
        }
        again
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.telling.lock().remove(&self.of);
        }
    }
}

impl Upstreams {
    /// Tells a server that the roots of a principal's client have changed, in sessions that were told so they may. However
    /// often that is said, one at a time tells it.
    pub async fn roots_changed(&self, server: &Arc<ServerConfig>, principal: PrincipalKey) {
        let Ok(server) = self.server_of(server) else { return };
        let Some(mut turn) = self.telling.begin((server.link.config.id.clone(), principal)) else { return };
        loop {
            server.roots_changed(principal).await;
            if !turn.goes_on() {
                return;
            }
        }
    }
}

impl Server {
    async fn roots_changed(&self, principal: PrincipalKey) {
        let told = Errand::roots_changed().notification();
        match &self.wire {
            Wire::Http(http) => {
                for session in http.sessions.of(principal, Askable::roots_change) {
                    http.say_in(&session, &told).await;
                }
                for stream in http.streams.of(principal, Askable::roots_change) {
                    stream.say(&told);
                }
            }
            Wire::Stdio(stdio) => {
                for running in stdio.processes.of(principal, Askable::roots_change) {
                    if running.facts.era() == Era::Legacy {
                        // One that does not read what is said to it does not hear of this either.
                        let _ = running.process.say(&told);
                    }
                }
            }
            Wire::Unusable(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    #[test]
    fn one_tells_and_whatever_is_said_meanwhile_is_told_once_more() {
        let telling = Telling::default();
        let of = |server: &str| (ServerId::new(server).unwrap(), PrincipalKey(Digest::sha256(b"ann")));
        let mut turn = telling.begin(of("a")).unwrap();
        assert!(telling.begin(of("a")).is_none() && telling.begin(of("a")).is_none());
        assert!(telling.begin(of("b")).is_some(), "another server");
        assert!(turn.goes_on(), "it was said again");
        assert!(!turn.goes_on(), "and told");
        let again = telling.begin(of("a")).unwrap();
        drop(turn);
        assert!(telling.begin(of("a")).is_none(), "whose turn is over ends nobody else's");
        drop(again);
        assert!(telling.lock().is_empty(), "whoever stops in the middle lets others tell");
    }
}
