//! Methods of extensions that the gateway does not know: denied unless a rule names them.
//!
//! Decides which one server such a request means, and that a denied method is told like one that does not exist.
//! Refuses to know what the methods do. Invariant: what could mean two servers reaches none.

use super::Request;
use crate::catalog::{Target, View, Wanted};
use crate::gateway::Snapshot;
use crate::identity::Caller;
use crate::ids::{Action, Endpoint};
use crate::outcome::{Reason, Refusal};
use crate::policy::{Ask, Class};
use crate::wire::Value;

/// The server that a request of an unknown method means: the endpoint's own, the one that its `uri` belongs to, or
/// the only one on which a rule lets this caller use the method.
pub(super) fn target(now: &Snapshot, caller: &Caller, request: &Request, view: &View) -> Result<Target, Refusal> {
    let method = request.message.method();
    let action = Action::Method(method.as_ref().into());
    let unknown = || Refusal::new(Reason::MethodUnknown);
    if let Endpoint::Server(server) = view.endpoint() {
        return view.on_server(server, action).map_err(|_| unknown());
    }
    let uri = request.message.params().and_then(|params| params.get("uri")).and_then(Value::as_str);
    let class = now.policy.class_of(caller);
    // An owner that this caller could not know of decides nothing, as if there were none.
    let owner = uri.and_then(|uri| view.resolve(Wanted::Read(&uri)).ok()).filter(|owner| {
        let (environment, server) = (owner.environment(), owner.server_id());
        now.policy.visible(&class, &Ask { environment, server, name: "", action: &action })
            || now.policy.visible(&class, &Ask { environment, server, name: owner.name(), action: &Action::Read })
    });
    if let Some(owner) = owner {
        return view.on_server(owner.server_id(), action).map_err(|_| unknown());
    }
    only_server(now, &class, view, action).ok_or_else(unknown)
}

/// Whether a caller's request of this method would reach a server, whatever it says.
#[must_use]
pub fn is_routed(now: &Snapshot, class: &Class, view: &View, method: &str) -> bool {
    only_server(now, class, view, Action::Method(method.into())).is_some()
}

fn only_server(now: &Snapshot, class: &Class, view: &View, action: Action) -> Option<Target> {
    let servers: Vec<_> = view.members().iter().map(|member| &member.server).collect();
    let asks: Vec<_> = servers
        .iter()
        .map(|server| Ask { environment: &server.environment, server: &server.id, name: "", action: &action })
        .collect();
    let allowed = now.policy.list(class, &asks);
    let mut allowed = servers.into_iter().zip(allowed).filter_map(|(server, allowed)| allowed.then_some(server));
    match (allowed.next(), allowed.next()) {
        (Some(only), None) => view.on_server(&only.id, action).ok(),
        _ => None,
    }
}
