//! Whether a server may ask a caller something in the middle of a call: `elicit`, `sample`, `roots`.
//!
//! The object is the server itself. Nothing is asked by default, as nothing is called by default.
//! Invariant: every subject of the caller, agents included, must be allowed.

use jiff::Timestamp;

use super::condition::Arguments;
use super::{Ask, Policy};
use crate::config::ServerConfig;
use crate::identity::Caller;
use crate::ids::Action;
use crate::wire::{Askable, InputKind};

impl Policy {
    /// What of `declared` this server may ask this caller.
    #[must_use]
    pub fn askable(&self, caller: &Caller, server: &ServerConfig, declared: Askable, now: Timestamp) -> Askable {
        let groups: [(&Action, &[InputKind]); 3] = [
            (&Action::Elicit, &[InputKind::Form, InputKind::Url]),
            (&Action::Sample, &[InputKind::Sampling, InputKind::SamplingWithTools]),
            (&Action::Roots, &[InputKind::Roots]),
        ];
        let mut left = declared;
        for (action, kinds) in groups {
            if kinds.iter().any(|kind| declared.has(*kind)) && !self.may_ask(caller, server, action, now) {
                left = kinds.iter().fold(left, |left, kind| left.without(*kind));
            }
        }
        // Where nobody wrote down a host, there is none that users may be sent to.
        if server.elicit_url_hosts.is_empty() { left.without(InputKind::Url) } else { left }
    }

    fn may_ask(&self, caller: &Caller, server: &ServerConfig, action: &Action, now: Timestamp) -> bool {
        let class = self.class_of(caller);
        let ask = Ask { environment: &server.environment, server: &server.id, name: "", action };
        // There are three of these for each server, so the table can hold them.
        self.remember(&class, &ask);
        self.decide(&class, caller.persona(), &ask, Arguments::None, now).is_allowed()
    }
}
