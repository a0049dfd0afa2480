//! What administrators ask of the running gateway about mandates, agents and the rules.

use futures_util::future::BoxFuture;

use crate::control::break_glass::{BreakGlassOrder, BreakGlassView, Emergencies};
use crate::control::governs::{AccessWish, Attested, Governs, OpenedMandate, Question};
use crate::control::records::Records;
use crate::control::standing::{StandingView, Stands, Wish as Asked};
use crate::gateway::Gateway;
use crate::gateway::lifecycle::{Step, agent_key, server_key};
use crate::gateway::mandates::{MandateStatus, Opener, Wish};
use crate::identity::{Bearer, Caller, Groups};
use crate::ids::{AgentId, Digest, MandateId, ServerId, Subject};
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{Explanation, Weight};
use crate::record::Who;

impl Governs for Gateway {
    fn may_change(&self, weight: Weight) -> Result<(), Failure> {
        self.standing().may_change(weight)
    }

    fn records(&self) -> Result<&dyn Records, Stop> {
        Ok(self)
    }

    fn explain<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Explanation, Stop>> {
        Box::pin(async move {
            let now = self.snapshot();
            let bearer = question.bearer(self.identity(), &now.config).await?;
            let lifecycle = self.lifecycle();
            let usable = |bearer: Bearer| lifecycle.may_use(&bearer.persona).map(|()| bearer);
            let bearer = bearer.map(|looked| looked.and_then(usable));
            let question = question.clone();
            // Going through all of a large policy takes long; nobody's request waits for it.
            let answered = tokio::task::spawn_blocking(move || {
                question.answer((&now.config, &now.policy), bearer.as_ref(), jiff::Timestamp::now())
            });
            let answered = answered.await.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
            Ok(answered.map_err(|problem| Refusal::new(Reason::ParametersInvalid).hint(problem))?)
        })
    }

    fn mandates(&self) -> BoxFuture<'_, Result<Vec<MandateStatus>, Failure>> {
        Box::pin(Self::mandates(self, None))
    }

    fn mandate<'a>(&'a self, id: &'a MandateId) -> BoxFuture<'a, Result<MandateStatus, Stop>> {
        Box::pin(self.mandate_status(id))
    }

    fn open_mandate<'a>(&'a self, by: &'a Caller, wish: &'a Wish) -> BoxFuture<'a, Result<OpenedMandate, Stop>> {
        Box::pin(async move {
            let opened = Self::open_mandate(self, by, Opener::Person, wish, None).await?;
            Ok(OpenedMandate { handle: opened.handle, mandate: opened.mandate })
        })
    }

    fn complete_mandate<'a>(&'a self, id: &'a MandateId, by: &'a str) -> BoxFuture<'a, Result<MandateStatus, Stop>> {
        Box::pin(Self::complete_mandate(self, id, by))
    }

    fn step<'a>(
        &'a self,
        agent: &'a AgentId,
        subject: Option<&'a Subject>,
        step: Step,
        by: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(Self::step(self, agent, subject, step, by, note))
    }

    fn wish<'a>(&'a self, by: &'a Caller, wish: AccessWish<'a>) -> BoxFuture<'a, Result<String, Stop>> {
        Box::pin(async move { Self::wish(self, by, &wish).await })
    }

    fn step_server<'a>(
        &'a self,
        server: &'a ServerId,
        step: Step,
        by: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(Self::step_server(self, server, step, by, note))
    }

    fn attest<'a>(&'a self, by: &'a Caller, kind: Attested, id: &'a str) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(async move {
            let now = self.snapshot();
            let unknown = || Refusal::new(Reason::TargetUnknown).hint(format!("there is no `{id:.80}`"));
            let (key, owner, sponsors) = match kind {
                Attested::Agent => {
                    let id = AgentId::new(id).map_err(|_| unknown())?;
                    let agent = now.written.agents.get(&id).ok_or_else(unknown)?;
                    (agent_key(&id), agent.owner.clone(), agent.sponsor_group.clone())
                }
                Attested::Server => {
                    let id = ServerId::new(id).map_err(|_| unknown())?;
                    let server = now.written.server(&id).ok_or_else(unknown)?;
                    (server_key(&id), server.owner.clone(), None)
                }
            };
            let user = by.persona().user.as_ref().map(Subject::as_str);
            let answers = |name: &str| match &by.persona().groups {
                _ if user == Some(name) => true,
                Groups::Known(groups) => groups.iter().any(|group| group.as_str() == name),
                Groups::Unknown(_) => false,
            };
            if !answers(&owner) && !sponsors.as_deref().is_some_and(answers) {
                let hint = format!("only {owner} attests this, who answers for it");
                return Err(Refusal::new(Reason::NotAllowed).hint(hint).into());
            }
            Self::attest_owned(self, &key, &owner, user.unwrap_or_default()).await
        })
    }
}

impl Stands for Gateway {
    fn all(&self) -> BoxFuture<'_, Result<Vec<StandingView>, Stop>> {
        Box::pin(self.standing_approvals())
    }

    fn one<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<StandingView, Stop>> {
        Box::pin(self.standing_approval(id))
    }

    fn propose<'a>(&'a self, wish: &'a Asked, by: &'a Caller) -> BoxFuture<'a, Result<StandingView, Stop>> {
        Box::pin(self.propose_standing(wish, by))
    }

    fn give<'a>(&'a self, id: &'a str, shown: Digest, by: &'a Caller) -> BoxFuture<'a, Result<StandingView, Stop>> {
        Box::pin(self.give_standing(id, shown, by))
    }

    fn take_back<'a>(
        &'a self,
        id: &'a str,
        by: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<StandingView, Stop>> {
        Box::pin(self.take_back_standing(id, by, note, who))
    }
}

impl Emergencies for Gateway {
    fn all(&self) -> BoxFuture<'_, Result<Vec<BreakGlassView>, Stop>> {
        Box::pin(Self::emergencies(self))
    }

    fn ask<'a>(&'a self, order: &'a BreakGlassOrder, by: &'a Caller) -> BoxFuture<'a, Result<BreakGlassView, Stop>> {
        Box::pin(self.ask_emergency(order, by))
    }

    fn agree<'a>(&'a self, id: &'a str, shown: Digest, by: &'a Caller) -> BoxFuture<'a, Result<BreakGlassView, Stop>> {
        Box::pin(self.agree_emergency(id, shown, by))
    }

    fn end<'a>(
        &'a self,
        id: &'a str,
        by: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<BreakGlassView, Stop>> {
        Box::pin(self.end_emergency(id, by, note, who))
    }

    fn review<'a>(&'a self, id: &'a str, by: &'a Caller, note: &'a str) -> BoxFuture<'a, Result<BreakGlassView, Stop>> {
        Box::pin(self.review_emergency(id, by, note))
    }
}
