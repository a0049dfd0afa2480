//! The changes of lists that are fetched with the caller's own credential, for as long as their stream is open.
//!
//! Decides which servers are listened to for one caller. Refuses to know how. Invariant: what is presented is the
//! caller's own, fetched anew for every listen, and nobody else's stream is kept open by it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Watch;
use crate::config::{ListAs, ServerConfig};
use crate::delegate::{Bound, Delegate, Tie};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::ServerId;
use crate::limit;
use crate::upstream::{Access, Heard};

/// What is listened to, by server.
pub(super) type Listening = HashMap<ServerId, (Arc<ServerConfig>, AbortHandle)>;

impl Watch {
    /// Listens to the servers of the caller's view that list for each caller, and to no others any more.
    pub(super) fn listen_for_lists(&mut self) {
        if !(self.interest.tools || self.interest.prompts || self.interest.resources) {
            return;
        }
        let view = self.gateway.view_now(&self.caller, &self.endpoint);
        let servers: HashMap<_, _> = view
            .iter()
            .flat_map(|view| view.members())
            .filter(|member| member.server.list_as == ListAs::Caller)
            .map(|member| (member.server.id.clone(), Arc::clone(&member.server)))
            .collect();
        self.listening.retain(|id, (server, task)| {
            let kept = servers.get(id).is_some_and(|now| Arc::ptr_eq(now, server)) && !task.is_finished();
            if !kept {
                task.abort();
            }
            kept
        });
        while self.following.try_join_next().is_some() {}
        for (id, server) in servers {
            if !self.listening.contains_key(&id) {
                let listening = keep_listening(Arc::clone(&self.gateway), self.caller.clone(), Arc::clone(&server));
                self.listening.insert(id, (server, self.following.spawn(listening)));
            }
        }
    }
}

/// Listens in the caller's name; after a gap every list counts as changed.
async fn keep_listening(gateway: Arc<Gateway>, caller: Caller, server: Arc<ServerConfig>) {
    let (mut pause, mut decisions) = (limit::RETRY_PAUSE_MIN, gateway.decisions());
    while gateway.still_trusted(&caller).is_ok() {
        let began = tokio::time::Instant::now();
        if let Ok(credential) = gateway.delegate().credential_for(&caller, &server, None, Bound::default()).await {
            let tie = credential.tie();
            let access = Access {
                context: Delegate::context(&caller, &server, None),
                principal: Some(caller.principal()),
                credential: credential.header,
            };
            let heard = gateway.upstreams().listen_for(&server, &access);
            let heard = tokio::select! {
                heard = heard => heard,
                // Dropped, it ends; what is presented next is asked for anew.
                () = taken_back(&gateway, &mut decisions, tie) => Ok(Heard::UntilItsEnd),
            };
            match heard {
                Ok(Heard::UntilItsEnd) => gateway.catalog().changed(&server.id, None),
                // It says nothing of its lists, as far as is known.
                Ok(Heard::Nothing) => tokio::time::sleep(limit::CHANGE_STREAM_IDLE).await,
                Err(_) => {}
            }
        }
        if began.elapsed() > limit::RETRY_PAUSE_MAX {
            pause = limit::RETRY_PAUSE_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(limit::RETRY_PAUSE_MAX);
    }
}

/// Ends when the credential of a listen was taken back.
async fn taken_back(gateway: &Gateway, decisions: &mut watch::Receiver<u64>, tie: Option<Tie>) {
    let Some(tie) = tie else { return std::future::pending().await };
    while decisions.changed().await.is_ok() {
        if gateway.delegate().still_stands(&tie).await.is_err() {
            return;
        }
    }
}
