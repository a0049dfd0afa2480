//! A client's roots have changed: told in its principal's living legacy sessions, and nowhere else.
//!
//! Decides which sessions heard that such changes are told. Knows nothing of who calls beyond the key of a principal, nor
//! of the roots. Invariant: nothing is opened or started to be told of it, and what is said is an errand without anything
//! of the client's.

use std::sync::Arc;

use super::errand::Errand;
use super::server::{Server, Wire};
use super::{Access, Upstreams};
use crate::config::ServerConfig;
use crate::ids::PrincipalKey;
use crate::wire::mcp::Era;
use crate::wire::{Askable, Message};

impl Upstreams {
    /// Tells a server that the roots of a principal's client have changed, in sessions that were told so they may.
    pub async fn roots_changed(&self, server: &Arc<ServerConfig>, principal: PrincipalKey) {
        if let Ok(server) = self.server_of(server) {
            server.roots_changed(principal).await;
        }
    }
}

impl Server {
    async fn roots_changed(&self, principal: PrincipalKey) {
        let told = Message::notification(&Errand::roots_changed().parcel(&Access::bare()).outgoing.method, None);
        match &self.wire {
            Wire::Http(http) => {
                for session in http.sessions.of(principal, Askable::roots_change) {
                    http.say_in(&session, &told).await;
                }
                for stream in http.streams.of(principal, Askable::roots_change) {
                    // One that does not read what is said to it does not hear of this either.
                    let _ = stream.duplex.say(&told);
                }
            }
            Wire::Stdio(stdio) => {
                for running in stdio.processes.of(principal, Askable::roots_change) {
                    if running.facts.era() == Era::Legacy {
                        let _ = running.process.say(&told);
                    }
                }
            }
            Wire::Unusable(_) => {}
        }
    }
}
