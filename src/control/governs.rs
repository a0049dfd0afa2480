//! What can be asked about mandates, agents and the rules, and what is answered: the words of its JSON.
//!
//! Decides nothing. Refuses to know who carries it out. Invariant: whoever opens a mandate is somebody with a token.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use crate::gateway::ask::Question;
pub use crate::gateway::lifecycle::Step;
pub use crate::gateway::mandates::{Mandate, MandateStatus, Wish};
pub use crate::gateway::wish::AccessWish;

use super::records::Records;
use crate::identity::Caller;
use crate::ids::{AgentId, MandateId, ServerId, Subject};
use crate::outcome::{Failure, Reason, Stop};
use crate::policy::{Explanation, Weight};

/// What the gateway does with mandates and agents for its operators; `gateway.rs` implements it.
pub trait Governs: Send + Sync + 'static {
    /// Whether an order of that weight can be carried out at all: what is known of the store is good enough for it.
    ///
    /// # Errors
    /// `store_unavailable`.
    fn may_change(&self, weight: Weight) -> Result<(), Failure> {
        let _any = weight;
        Ok(())
    }
    /// What it does with the records of all replicas.
    ///
    /// # Errors
    /// Where there are none.
    fn records(&self) -> Result<&dyn Records, Stop> {
        super::records::nowhere()
    }
    /// What the running policy says to a question; a token that it brings is verified, and nothing is called.
    fn explain<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Explanation, Stop>> {
        let _unasked = question;
        nowhere()
    }
    /// All mandates that are kept.
    fn mandates(&self) -> BoxFuture<'_, Result<Vec<MandateStatus>, Failure>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// One of them, with what is left of it and what was called under it.
    fn mandate<'a>(&'a self, id: &'a MandateId) -> BoxFuture<'a, Result<MandateStatus, Stop>> {
        let _none = id;
        nowhere()
    }
    /// Opens one for somebody else; a person has just logged in for it.
    fn open_mandate<'a>(&'a self, by: &'a Caller, wish: &'a Wish) -> BoxFuture<'a, Result<OpenedMandate, Stop>> {
        let _nobody = (by, wish);
        nowhere()
    }
    /// Ends one before its time.
    fn complete_mandate<'a>(&'a self, id: &'a MandateId, by: &'a str) -> BoxFuture<'a, Result<MandateStatus, Stop>> {
        let _nobody = (id, by);
        nowhere()
    }
    /// Suspends, retires or resumes an agent.
    fn step<'a>(
        &'a self,
        agent: &'a AgentId,
        subject: Option<&'a Subject>,
        step: Step,
        by: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        let _nobody = (agent, subject, step, by, note);
        nowhere()
    }
    /// Asks for access for somebody; answers who decides.
    fn wish<'a>(&'a self, by: &'a Caller, wish: AccessWish<'a>) -> BoxFuture<'a, Result<String, Stop>> {
        let _nobody = (by, wish);
        nowhere()
    }
    /// Suspends, retires or resumes a server.
    fn step_server<'a>(
        &'a self,
        server: &'a ServerId,
        step: Step,
        by: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        let _nobody = (server, step, by, note);
        nowhere()
    }
    /// Keeps that the owner of an agent or a server says that it is still needed. Only that owner may, or somebody of its
    /// sponsor group.
    fn attest<'a>(&'a self, by: &'a Caller, kind: Attested, id: &'a str) -> BoxFuture<'a, Result<(), Stop>> {
        let _nobody = (by, kind, id);
        nowhere()
    }
}

fn nowhere<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, Stop>> {
    Box::pin(std::future::ready(Err(Failure::before(Reason::Internal, "nobody does that here").into())))
}

/// What is attested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// An agent.
    Agent,
    /// A server.
    Server,
}

/// The answer to `POST /mandates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedMandate {
    /// What its holder sends with each call.
    pub handle: String,
    /// What it says.
    pub mandate: Mandate,
}

/// `POST /agents/{agent}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOrder {
    /// `suspend`, `retire` or `resume`.
    pub step: Step,
    /// Only its use by this person: `user:ISSUER/SUB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}
