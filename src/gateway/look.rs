//! The catalog as one caller sees it, before the rules filter it.
//!
//! Decides what somebody is told where nothing can be shown. Invariant: that a server exists is told only to those who
//! had something there, or whom a rule names it to.

use std::sync::Arc;

use super::{Gateway, Snapshot};
use crate::catalog::{View, Viewer};
use crate::config::ServerConfig;
use crate::identity::Caller;
use crate::ids::Endpoint;
use crate::list;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::Class;
use crate::wire::mcp::Kind;

impl Gateway {
    /// The catalog as it stands for this caller at this endpoint, before policy; waits for servers that were
    /// never listed, but not for long.
    ///
    /// # Errors
    /// `target_unknown` for a server that the caller cannot see anything of, existing or not;
    /// `catalog_unavailable` where no server has anything to show, `exchange_refused` or `credential_unavailable`
    /// where that is because this caller got no credential there.
    pub async fn view(&self, caller: &Caller, endpoint: &Endpoint) -> Result<Arc<View>, Stop> {
        let now = self.live.snapshot.load();
        let class = decidable(now.policy.class_of(caller))?;
        let included = |server: &ServerConfig| now.policy.may_see(&class, &server.id);
        let looked = self.catalog.view(&now.config, endpoint, viewer(caller), included).await;
        looked.map_err(|stop| self.told(&now, &class, caller, endpoint, stop))
    }

    /// As [`Gateway::view`], for whoever is shown a list of that kind: what is older than its server allows is fetched first.
    ///
    /// # Errors
    /// As [`Gateway::view`].
    pub async fn view_of(&self, kind: Kind, caller: &Caller, endpoint: &Endpoint) -> Result<Arc<View>, Stop> {
        let now = self.live.snapshot.load();
        let class = decidable(now.policy.class_of(caller))?;
        let included = |server: &ServerConfig| now.policy.may_see(&class, &server.id);
        let looked = self.catalog.view_of(kind, &now.config, endpoint, viewer(caller), included).await;
        looked.map_err(|stop| self.told(&now, &class, caller, endpoint, stop))
    }

    /// As [`Gateway::view`], without waiting.
    ///
    /// # Errors
    /// As [`Gateway::view`].
    pub fn view_now(&self, caller: &Caller, endpoint: &Endpoint) -> Result<Arc<View>, Stop> {
        let now = self.live.snapshot.load();
        let class = decidable(now.policy.class_of(caller))?;
        let included = |server: &ServerConfig| now.policy.may_see(&class, &server.id);
        let looked = self.catalog.view_now(&now.config, endpoint, viewer(caller), included);
        looked.map_err(|stop| self.told(&now, &class, caller, endpoint, stop))
    }

    /// That a server has nothing to show now is told only to those who had something there, or whom a rule names
    /// it to; to everybody else it is one that does not exist, as it is while it is up.
    fn told(&self, now: &Snapshot, class: &Class, caller: &Caller, endpoint: &Endpoint, stop: Stop) -> Stop {
        let Endpoint::Server(id) = endpoint else { return stop };
        let Some(server) = now.config.server(id).filter(|_| list::is_nothing_to_show(stop.reason())) else {
            return stop;
        };
        if now.policy.names(class, id) {
            return stop;
        }
        let slice = self.catalog.last_slice(server, viewer(caller));
        if slice.is_some_and(|slice| list::shows_anything(now, class, server, &slice)) {
            return stop;
        }
        Refusal::new(Reason::TargetUnknown).into()
    }
}

/// The class, or why nothing can be decided for it: told before anything is looked up, so that what exists is
/// refused like what does not.
fn decidable(class: Arc<Class>) -> Result<Arc<Class>, Stop> {
    if let Some(refusal) = class.blocked() {
        return Err(refusal.clone().into());
    }
    Ok(class)
}

fn viewer(caller: &Caller) -> Viewer<'_, Caller> {
    Viewer { principal: caller.principal(), caller }
}
