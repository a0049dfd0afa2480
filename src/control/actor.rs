//! Who operates, and what they may: the rules decide at the listener, the kernel at the socket.
//!
//! Decides whether an order may be carried out, and whether it may give something back. Invariant: an [`Actor`] is
//! made from what the kernel says or from a verified token, never from what stands in an order.

use std::time::Duration;

use super::operations::Operations;
use crate::config::AdminConfig;
use crate::identity::Caller;
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::policy::AdminOperation;
use crate::record::Who;

/// Who operates.
#[derive(Debug, Clone)]
pub(super) struct Actor(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// A user of this machine, at the socket.
    Host(u32),
    /// A process that the gateway started, at the socket.
    Child(u32),
    /// Somebody with a token, at the listener.
    Caller(Caller),
}

impl Actor {
    /// A user of this machine.
    pub(super) const fn host(user: u32) -> Self {
        Self(Kind::Host(user))
    }

    /// A process that the gateway started, which has the gateway's user.
    pub(super) const fn child(user: u32) -> Self {
        Self(Kind::Child(user))
    }

    /// Somebody whose token was verified for the administrators' listener.
    pub(super) const fn caller(caller: Caller) -> Self {
        Self(Kind::Caller(caller))
    }

    /// As the record names it.
    pub(super) fn name(&self) -> String {
        match &self.0 {
            Kind::Host(user) | Kind::Child(user) => format!("host:{user}"),
            Kind::Caller(caller) => {
                let persona = caller.persona();
                persona.user.as_ref().map_or_else(|| "anyone".to_owned(), ToString::to_string)
            }
        }
    }

    /// `host`, `user`, or `agent` where software stands between a person and us, or nobody behind it.
    pub(super) fn kind(&self) -> &'static str {
        match &self.0 {
            Kind::Host(_) | Kind::Child(_) => "host",
            Kind::Caller(caller) if caller.persona().agent.is_none() => "user",
            Kind::Caller(_) => "agent",
        }
    }

    /// The client id of its token.
    pub(super) fn client(&self) -> Option<&str> {
        match &self.0 {
            Kind::Host(_) | Kind::Child(_) => None,
            Kind::Caller(caller) => caller.persona().client.as_deref(),
        }
    }

    /// What the record tells of its token.
    pub(super) fn who(&self) -> Option<&Who> {
        match &self.0 {
            Kind::Host(_) | Kind::Child(_) => None,
            Kind::Caller(caller) => Some(caller.who()),
        }
    }

    /// Whose token it is; nobody's at the socket.
    pub(super) const fn of_token(&self) -> Option<&Caller> {
        match &self.0 {
            Kind::Host(_) | Kind::Child(_) => None,
            Kind::Caller(caller) => Some(caller),
        }
    }

    /// Whether the operation may be done at all; answers the rule that allows it, where one did.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may(
        &self,
        operations: &dyn Operations,
        operation: AdminOperation,
    ) -> Result<Option<String>, Refusal> {
        match &self.0 {
            Kind::Host(_) => Ok(None),
            Kind::Child(_) => {
                Err(Refusal::new(Reason::NotAllowed).hint("a process that the gateway started does not operate it"))
            }
            Kind::Caller(caller) => {
                let rules = operations.authorize(caller, operation)?;
                Ok(rules.first().map(ToString::to_string))
            }
        }
    }

    /// Whether it may give something back: a person with an administrators' client who has just logged in. `now` in
    /// seconds since 1970.
    ///
    /// # Errors
    /// `administrator_required`, or `insufficient_user_authentication` where another login would do.
    pub(super) fn may_loosen(
        &self,
        admin: Option<&AdminConfig>,
        operation: AdminOperation,
        now: i64,
    ) -> Result<(), Refusal> {
        let required = || Refusal::new(Reason::AdministratorRequired);
        let (caller, admin) = match (&self.0, admin) {
            // Where there is no listener nobody else could, and whoever writes the files can start the gateway anew.
            (Kind::Host(_), None) if operation == AdminOperation::Reload => return Ok(()),
            (Kind::Caller(caller), Some(admin)) => (caller, admin),
            _ => return Err(required()),
        };
        let persona = caller.persona();
        let alone = caller.token().for_administrators && persona.agent.is_none() && persona.chain.is_empty();
        if !alone || !admin.has_client(&persona.issuer, persona.client.as_deref()) {
            return Err(required());
        }
        let enough = is_enough(admin, persona.authenticated_at, persona.acr.as_deref(), now);
        if enough { Ok(()) } else { Err(Refusal::new(Reason::InsufficientUserAuthentication)) }
    }
}

impl Actor {
    /// Who says yes to something, with a token that no program of theirs keeps.
    ///
    /// # Errors
    /// `administrator_required`.
    pub(super) fn approver(&self, operations: &dyn Operations) -> Result<Caller, Refusal> {
        let required = || Refusal::new(Reason::AdministratorRequired);
        let caller = self.of_token().ok_or_else(required)?;
        let config = operations.config();
        let admin = config.as_ref().and_then(|config| config.admin.as_ref()).ok_or_else(required)?;
        let persona = caller.persona();
        if admin.approves_with(&persona.issuer, persona.client.as_deref()) {
            return Ok(caller.clone());
        }
        let hint = "a yes takes a person in front of the console, or another client of which [[admin.clients]] says \
                    approves = true: what a program keeps of a login approves nothing";
        Err(required().hint(hint))
    }
}

/// Whether a login at that moment and of that kind is recent and strong enough to give something back.
fn is_enough(admin: &AdminConfig, authenticated_at: Option<i64>, acr: Option<&str>, now: i64) -> bool {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let ahead = now.saturating_add(seconds(limit::ADMIN_CLOCK_AHEAD_MAX));
    let recent =
        authenticated_at.is_some_and(|at| now.saturating_sub(at) <= seconds(admin.auth_age_max) && at <= ahead);
    recent && (admin.acr.is_empty() || acr.is_some_and(|acr| admin.acr.iter().any(|wanted| wanted == acr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_enough_to_the_second_and_of_the_named_kind_alone() {
        let admin = |acr: &[&str]| AdminConfig {
            listen: "127.0.0.1:9443".parse().unwrap(),
            public_url: url::Url::parse("https://admin.example").unwrap(),
            allowed_hosts: Vec::new(),
            tls: None,
            clients: Vec::new(),
            acr: acr.iter().map(ToString::to_string).collect(),
            auth_age_max: Duration::from_secs(300),
            console: None,
        };
        let (now, strict) = (1_000_000, admin(&["mfa", "hwk"]));
        let ahead = i64::try_from(limit::ADMIN_CLOCK_AHEAD_MAX.as_secs()).unwrap();
        for (at, acr, expected) in [
            (Some(now), Some("mfa"), true),
            (Some(now - 300), Some("hwk"), true),
            (Some(now - 301), Some("mfa"), false),
            (Some(now + ahead), Some("mfa"), true),
            (Some(now + ahead + 1), Some("mfa"), false),
            (Some(i64::MIN), Some("mfa"), false),
            (None, Some("mfa"), false),
            (Some(now), Some("mfa "), false),
            (Some(now), Some("mfa hwk"), false),
            (Some(now), None, false),
        ] {
            assert_eq!(is_enough(&strict, at, acr, now), expected, "{at:?} {acr:?}");
        }
        assert!(is_enough(&admin(&[]), Some(now), None, now));
        assert!(!is_enough(&admin(&[]), Some(now - 301), None, now), "recent it must be in any case");
    }
}
