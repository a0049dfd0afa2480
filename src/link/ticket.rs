//! The link that a caller gets: sealed, for one person and one server, good for ten minutes.
//!
//! Decides what a link says. Invariant: whoever has a link learns nothing from it and can do nothing with it but show
//! that they are its owner.

use serde::{Deserialize, Serialize};

use crate::config::ServerConfig;
use crate::delegate::vault::Owner;
use crate::gateway::Gateway;
use crate::identity::{Caller, now_s};
use crate::ids::{Digest, PrincipalKey, ServerId};
use crate::limit;
use crate::wire::voids::Holder;

const PURPOSE: &str = "link";

/// Whose account at which server is to be linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// For whom.
    #[serde(rename = "o")]
    pub owner: Owner,
    /// At which server.
    #[serde(rename = "s")]
    pub server: ServerId,
    /// When it was asked for, seconds since 1970.
    #[serde(rename = "m")]
    pub made_at: i64,
    /// Whose list of tools becomes another one.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Digest>,
    /// For which scopes, where those of the account do not do.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub wider: Option<String>,
}

/// The address of a page where this person links an account at this server.
#[must_use]
pub fn address(gateway: &Gateway, caller: &Caller, server: &ServerConfig) -> Option<String> {
    let (owner, principal) = (Owner::of(caller)?, Some(caller.principal().0));
    let wider = gateway.delegate().vault().and_then(|vault| vault.wider(&owner, server));
    let ticket = Ticket { owner, server: server.id.clone(), made_at: now_s(), principal, wider };
    let holder = caller.holder_at(&gateway.config(), server).opened_as(nobody());
    let sealed = gateway.sealer().seal_for(PURPOSE, &holder, &serde_json::to_vec(&ticket).ok()?).ok()?;
    Some(format!("{}{sealed}", base(gateway)))
}

/// Where the pages are, as browsers see it.
pub(super) fn base(gateway: &Gateway) -> String {
    let url = &gateway.config().gateway.public_url;
    format!("{}/link/", url.as_str().trim_end_matches('/'))
}

impl Ticket {
    /// What a link says, and what it rests on, while it is good.
    pub(super) fn read(gateway: &Gateway, sealed: &str) -> Option<(Self, Holder)> {
        let opened = gateway.sealer().open_resting(PURPOSE, nobody(), sealed, limit::HANDLE_BYTES_MAX);
        let (rests_on, content) = opened?;
        let ticket: Self = serde_json::from_slice(&content).ok()?;
        ticket.is_current(now_s()).then_some((ticket, rests_on))
    }

    pub(super) fn is_current(&self, now: i64) -> bool {
        let age_max = i64::try_from(limit::LINK_AGE_MAX.as_secs()).unwrap_or_default();
        let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap_or_default();
        // One that is made later than now was made before the clock went back, and would be good for longer.
        now.saturating_sub(self.made_at) <= age_max && self.made_at.saturating_sub(now) <= skew
    }
}

/// Whoever opens a link is nobody yet.
pub(super) fn nobody() -> PrincipalKey {
    PrincipalKey(Digest::sha256(PURPOSE.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IssuerAlias;

    #[test]
    fn a_link_is_good_for_ten_minutes() {
        let age_max = i64::try_from(limit::LINK_AGE_MAX.as_secs()).unwrap();
        let owner = Owner { issuer: IssuerAlias::new("corp").unwrap(), subject: "ann".to_owned() };
        let ticket =
            Ticket { owner, server: ServerId::new("notes").unwrap(), made_at: 1_000, principal: None, wider: None };
        assert!(ticket.is_current(1_000 + age_max) && !ticket.is_current(1_001 + age_max));
        assert!(ticket.is_current(990) && !ticket.is_current(900), "a clock that went back makes it no younger");
    }
}
