//! What the catalog is told when upstreams change: that they may list something else, or do not answer.
//!
//! Decides of which servers something is to be looked at again. Refuses to know how that is done. Invariant: whoever
//! missed a change looks at everything.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use crate::gateway::Gateway;
use crate::ids::ServerId;
use crate::outcome::Reason;
use crate::upstream::Change;
use crate::wire::mcp::Kind;

/// Tells the catalog what the upstreams say of themselves.
pub(super) async fn follow_upstreams(gateway: Arc<Gateway>) {
    let mut changes = gateway.upstreams().changes();
    let stopping = gateway.stopping();
    loop {
        let change = tokio::select! {
            () = stopping.cancelled() => return,
            change = changes.recv() => change,
        };
        let config = gateway.config();
        let servers = config.servers.iter().map(|server| &server.id);
        let Some(doubts) = doubted(change, servers) else { return };
        for (server, doubt) in doubts {
            match doubt {
                Doubt::Changed(kind) => gateway.catalog().changed(&server, kind),
                Doubt::Unreachable => {
                    gateway.catalog().unreachable(&server, Reason::UpstreamUnreachable);
                }
            }
        }
    }
}

/// What the catalog is told of a server.
#[derive(Debug, PartialEq, Eq)]
enum Doubt {
    /// This list, or every one, may be another.
    Changed(Option<Kind>),
    /// It does not answer.
    Unreachable,
}

/// Of which of these servers something is to be looked at again; nothing where no more changes come.
fn doubted<'a>(
    change: Result<Change, RecvError>,
    servers: impl Iterator<Item = &'a ServerId>,
) -> Option<Vec<(ServerId, Doubt)>> {
    match change {
        Ok(Change::Listed(server, kind)) => Some(vec![(server, Doubt::Changed(Some(kind)))]),
        Ok(Change::Up(server)) => Some(vec![(server, Doubt::Changed(None))]),
        Ok(Change::Down(server)) => Some(vec![(server, Doubt::Unreachable)]),
        // Something was missed, so everything may have changed.
        Err(RecvError::Lagged(_)) => Some(servers.map(|server| (server.clone(), Doubt::Changed(None))).collect()),
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_missed_a_change_looks_at_every_server() {
        let servers = ["git", "notes"].map(|id| ServerId::new(id).unwrap());
        let [git, notes] = servers.clone();
        let told = |change| doubted(change, servers.iter());
        assert_eq!(
            told(Err(RecvError::Lagged(1))),
            Some(vec![(git.clone(), Doubt::Changed(None)), (notes.clone(), Doubt::Changed(None))])
        );
        let listed = Change::Listed(notes.clone(), Kind::Prompt);
        assert_eq!(told(Ok(listed)), Some(vec![(notes.clone(), Doubt::Changed(Some(Kind::Prompt)))]));
        assert_eq!(told(Ok(Change::Up(git.clone()))), Some(vec![(git, Doubt::Changed(None))]));
        assert_eq!(told(Ok(Change::Down(notes.clone()))), Some(vec![(notes, Doubt::Unreachable)]));
        assert_eq!(told(Err(RecvError::Closed)), None);
    }
}
