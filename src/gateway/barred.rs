//! What revocations leave of a configuration, and attestations that are overdue: agents that may not act, servers that are
//! not there.
//!
//! Decides nothing else: the rooms see a configuration and need not know why something is missing from it. Refuses to
//! know tokens, which `identity` looks at on every call. Invariant: with nothing taken back it is the configuration as
//! the files say it.

use std::sync::{Arc, PoisonError};

use super::{Gateway, Snapshot};
use crate::config::{AgentConfig, AgentState, Config};
use crate::identity::revoked::Barred;
use crate::ids::ServerId;
use crate::inversion::{self, Control};

impl Snapshot {
    /// The same with what revocations leave of its configuration.
    #[must_use]
    pub fn without(self, barred: &Arc<Barred>) -> Self {
        Self { config: without(&self.written, barred), barred: Arc::clone(barred), ..self }
    }
}

impl Gateway {
    /// Puts a snapshot in force, or takes from the one in force what was taken back since. Rooms that hold connections
    /// learn of it first, so that no decision is made for a server that nobody can reach yet; the catalog learns of it
    /// last, because it fetches under what is in force.
    ///
    /// Nothing waits in between, and yet a call may fall into it. It does no harm: `upstream` sends nothing that
    /// was made for a server of another address or credential, a caller who was verified under other settings
    /// is compared with the configuration that decides, and an intent is rechecked under what is in force then.
    pub(super) fn put(&self, read: Option<Snapshot>) {
        let _one_at_a_time = self.putting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.snapshot();
        // Compared under the lock: somebody may be putting in force what holds no more, and takes it for the latest.
        let barred = self.live.revocations.barred();
        if read.is_none() && now.barred == barred {
            return;
        }
        // Most who leave a company answer for nothing here: nothing is verified or listed again for that.
        if read.is_none() && named(&now.written, &now.barred) == named(&now.written, &barred) {
            return self.live.snapshot.store(Arc::new(Snapshot { barred, ..Snapshot::clone(&now) }));
        }
        let mut next = read.unwrap_or_else(|| Snapshot::clone(&now)).without(&barred);
        let config = Arc::clone(&next.config);
        self.upstreams.reconfigure(&config);
        next.identity_revision = self.identity.reload(&config);
        self.live.snapshot.store(Arc::new(next));
        self.catalog.apply(&config);
    }

    /// Whether a server was taken back: nothing goes there any more, and what is on its way is stopped.
    #[must_use]
    pub fn is_barred(&self, server: &ServerId) -> bool {
        let now = self.live.snapshot.load();
        now.config.server(server).is_none() && now.written.server(server).is_some()
    }
}

/// What of that a configuration has a name for.
fn named(written: &Config, barred: &Barred) -> Barred {
    let keys = written.agents.values().flat_map(|agent| agent.keys.iter().map(|key| &key.owner));
    let agents = written.agents.values().map(|agent| &agent.owner);
    let owners = written.servers.iter().map(|server| &server.owner).chain(agents).chain(keys);
    let servers = written.servers.iter().map(|server| &server.id);
    Barred {
        agents: written.agents.keys().filter(|agent| barred.agents.contains(*agent)).cloned().collect(),
        owners: owners.filter(|owner| barred.owners.contains(*owner)).cloned().collect(),
        servers: servers.filter(|server| barred.servers.contains(*server)).cloned().collect(),
        stopped: barred.stopped.clone(),
    }
}

/// What is left of a configuration without that.
#[must_use]
pub fn without(written: &Arc<Config>, barred: &Barred) -> Arc<Config> {
    if *barred == Barred::default() || inversion::is_off(Control::Owner) {
        return Arc::clone(written);
    }
    let mut config = Config::clone(written);
    let of_gone = |owner: &String| barred.owners.contains(owner) && !inversion::is_off(Control::ServerOwner);
    let is_stopped =
        |server: &ServerId| barred.stopped.servers.contains(server) && !inversion::is_off(Control::ServerOwner);
    let is_barred = |server: &ServerId| barred.servers.contains(server) || is_stopped(server);
    config.servers.retain(|server| !is_barred(&server.id) && !of_gone(&server.owner));
    for (id, agent) in &mut config.agents {
        // What is decided while the gateway runs never lets an agent act that the files stop.
        if let Some(state) = barred.stopped.agents.get(id).filter(|_| agent.state == AgentState::Active) {
            *agent = Arc::new(AgentConfig { state: *state, ..AgentConfig::clone(agent) });
        }
        if barred.agents.contains(id) || barred.owners.contains(&agent.owner) {
            *agent = Arc::new(AgentConfig { state: AgentState::Revoked, ..AgentConfig::clone(agent) });
        }
        if agent.keys.iter().any(|key| barred.owners.contains(&key.owner)) {
            Arc::make_mut(agent).keys.retain(|key| !barred.owners.contains(&key.owner));
        }
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fake::server;
    use crate::front::fixture::config;
    use crate::identity::fixture;
    use crate::identity::revoked::Stopped;

    #[test]
    fn whoever_answers_for_nothing_here_changes_nothing_when_they_leave() {
        let mut written = config();
        written.agents = fixture::config().agents;
        written.servers = ["git", "notes"].map(|id| Arc::new(server(id))).to_vec();
        let (agent, git) = (written.agents.values().next().unwrap().clone(), written.servers[0].clone());
        let none = Barred::default();
        for other in [
            Barred { owners: ["user:corp/somebody".to_owned()].into(), ..none.clone() },
            Barred { servers: [ServerId::new("gone").unwrap()].into(), ..none.clone() },
            Barred { agents: [crate::ids::AgentId::new("gone").unwrap()].into(), ..none.clone() },
        ] {
            assert_eq!(named(&written, &other), none, "{other:?}");
        }
        let stopped = Stopped { agents: [(agent.id.clone(), AgentState::Retired)].into(), ..Stopped::default() };
        for known in [
            Barred { owners: [agent.owner.clone()].into(), ..none.clone() },
            Barred { owners: [git.owner.clone()].into(), ..none.clone() },
            Barred { agents: [agent.id.clone()].into(), ..none.clone() },
            Barred { servers: [git.id.clone()].into(), ..none.clone() },
            Barred { stopped, ..none },
        ] {
            assert_eq!(named(&written, &known), known, "it is as much as it was");
        }
    }

    #[test]
    fn what_is_barred_is_gone_and_the_rest_is_as_it_was_written() {
        let mut written = config();
        written.agents = fixture::config().agents;
        written.servers = ["git", "notes"].map(|id| Arc::new(server(id))).to_vec();
        let written = Arc::new(written);
        assert!(Arc::ptr_eq(&without(&written, &Barred::default()), &written));

        let git = written.servers.first().unwrap();
        let barred = Barred { servers: [git.id.clone()].into(), ..Barred::default() };
        assert!(without(&written, &barred).server(&git.id).is_none());
        assert_eq!(without(&written, &barred).servers.len(), written.servers.len() - 1);

        let stopped = Stopped { servers: [git.id.clone()].into(), ..Stopped::default() };
        assert!(
            without(&written, &Barred { stopped, ..Barred::default() }).server(&git.id).is_none(),
            "nobody attested it"
        );

        let (id, agent) = written.agents.first_key_value().unwrap();
        let barred = Barred { agents: [id.clone()].into(), ..Barred::default() };
        let revoked = |config: &Config| config.agents.values().filter(|a| a.state == AgentState::Revoked).count();
        assert_eq!(without(&written, &barred).agents[id].state, AgentState::Revoked);
        assert_eq!(revoked(&without(&written, &barred)), 1);

        let owned = written.agents.values().filter(|other| other.owner == agent.owner).count();
        let served = written.servers.iter().filter(|server| server.owner == agent.owner).count();
        let barred = Barred { owners: [agent.owner.clone()].into(), ..Barred::default() };
        assert_eq!(revoked(&without(&written, &barred)), owned);
        assert_eq!(without(&written, &barred).servers.len(), written.servers.len() - served);
        let barred = Barred { owners: [git.owner.clone()].into(), ..Barred::default() };
        assert!(without(&written, &barred).servers.iter().all(|server| server.owner != git.owner));
    }
}
