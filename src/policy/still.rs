//! Somebody who has decided something as an administrator, held against the rules of a later moment.
//!
//! Decides whether rules would still let them. Refuses to know what they decided. Invariant: what is known of them is what
//! was so when they decided, also the clock; only the rules are those of now.

use jiff::Timestamp;

use super::condition::{Arguments, client_proof};
use super::persona::Described;
use super::{AdminOperation, Policy};
use crate::ids::Subject;
use crate::outcome::Reason;

/// What was kept of somebody who decided.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// `user:ISSUER/SUB`.
    pub user: &'a str,
    /// Their groups, as far as rules spoke of them.
    pub groups: &'a [String],
    /// How their client proved itself.
    pub client_proof: &'a str,
    /// When they had logged in, seconds since 1970.
    pub authenticated_at: i64,
    /// How.
    pub acr: Option<&'a str>,
    /// When they decided, microseconds since 1970.
    pub at_us: i64,
}

impl Policy {
    /// Whether a rule speaks of that user or group.
    #[must_use]
    pub fn speaks_of(&self, subject: &Subject) -> bool {
        self.graph.id(subject.as_str()).is_some()
    }

    /// Whether rules would let somebody do that, who has done it. Which scopes their token had was looked at then.
    #[must_use]
    pub fn still_lets(&self, who: &Decided<'_>, operation: AdminOperation) -> bool {
        let persona = || {
            let groups = who.groups.iter().map(|group| Subject::parse(group).ok()).collect::<Option<Vec<_>>>()?;
            let described = Described {
                user: Some(Subject::parse(who.user).ok()?),
                groups,
                client_proof: client_proof(who.client_proof)?,
                authenticated_at: Some(who.authenticated_at),
                acr: who.acr.map(str::to_owned),
                ..Described::default()
            };
            self.persona(&described).ok()
        };
        let (Some(persona), Ok(at)) = (persona(), Timestamp::from_microsecond(who.at_us)) else { return false };
        let ask = self.operation(operation.name());
        let decision = self.decide(&self.class(&persona), &persona, &ask, Arguments::None, at);
        decision.refusal.is_none_or(|refusal| refusal.reason == Reason::InsufficientScope)
    }
}
