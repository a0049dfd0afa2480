//! Access that somebody asks for: it ends on the record, and with whoever wants to hear of it.
//!
//! Decides what may be asked for: what somebody may know of and is not allowed, once a day. Gives nothing: rules are
//! changed by whoever keeps the files. Invariants: whoever may not know of something is answered as if it did not exist; of
//! one person so much is told in a day, so that nobody drowns what others have to be told; nobody is told of what the record
//! does not have.

use serde_json::json;

use super::Gateway;
use crate::identity::Caller;
use crate::ids::{AgentId, Digest, Subject};
use crate::limit;
use crate::outbox::{self, Event};
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::event::AdminNote;
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf as _, Tell};

/// What was asked for lately.
pub const WISHES: Section = Section { name: "access_wish", rows_max: limit::ACCESS_WISHES_MAX };

/// What somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct AccessWish<'a> {
    /// `SERVER/NAME`.
    pub object: &'a str,
    /// What they would do with it.
    pub action: &'a str,
    /// With which assistant, where it is not the usual one.
    pub agent: Option<&'a AgentId>,
    /// What for.
    pub note: &'a str,
}

impl Gateway {
    /// Asks for access on somebody's behalf; on the record before anybody is told of it. Answers who decides.
    ///
    /// # Errors
    /// `target_unknown` where they may not know of it, `parameters_invalid` where they are allowed or have asked already,
    /// `store_unavailable`, `record_unavailable`.
    pub async fn wish(&self, caller: &Caller, wish: &AccessWish<'_>) -> Result<String, Stop> {
        let asked = self.ask_for(caller, wish).await;
        let outcome = match &asked {
            Ok(_) => "done",
            Err(Stop::Refused(_)) => "refused",
            Err(Stop::Failed(_)) => "failed",
        };
        // That it was begun is there.
        if let Err(failure) = self.tell_wish(caller, wish, outcome, asked.as_ref().err()).await {
            tracing::error!(%failure, outcome, "what became of a wish for access is not on the record");
        }
        asked
    }

    async fn ask_for(&self, caller: &Caller, wish: &AccessWish<'_>) -> Result<String, Stop> {
        let invalid = |hint: &'static str| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
        let AccessWish { object, action, agent, .. } = *wish;
        let Some(person) = person(caller) else {
            return Err(Refusal::new(Reason::NotAllowed).hint("a person asks for access").into());
        };
        let Some(answer) = self.access_to(caller, agent, object, action) else {
            return Err(Refusal::new(Reason::TargetUnknown).hint("there is no such thing that you may know of").into());
        };
        if answer.explanation.allowed {
            return Err(invalid("it is allowed already"));
        }
        // What a store acknowledges that went back is not kept.
        self.standing.believed()?;
        let (so_much, already) = (
            "you have asked for so much today: ask tomorrow, or in person",
            "you have asked for it already; whoever decides was told",
        );
        let now_us = self.store.clock_us().await?;
        if self.store.rows(WISHES, Some(person), None).await?.len() >= limit::ACCESS_WISHES_OF_ONE_MAX {
            return Err(invalid(so_much));
        }
        let key = Digest::of("access-wish", &[person.as_bytes(), object.as_bytes(), action.as_bytes()]).to_string();
        if self.store.row(WISHES, &key).await?.is_some() {
            return Err(invalid(already));
        }
        self.tell_wish(caller, wish, "begun", None).await?;
        let expires_at_us = Some(now_us.saturating_add(limit::ACCESS_WISH_KEPT_FOR_US));
        let put = Action::Put { owner: person.to_owned(), body: String::new(), expires_at_us };
        // Of those who ask for several things at once nobody sees what the others are about to do.
        let at_most = i64::try_from(limit::ACCESS_WISHES_OF_ONE_MAX).unwrap_or(i64::MAX);
        let day = now_us.div_euclid(limit::ACCESS_WISH_KEPT_FOR_US);
        let counted = format!("day/{day}/{}", Digest::of("access-wish", &[person.as_bytes()]));
        let own = vec![
            Change::new(WISHES, key, Expect::Absent, put),
            Change::new(WISHES, counted, Expect::Anything, Action::Count { by: 1, at_most, expires_at_us }),
        ];
        let about = json!({
            "person": person, "agent": agent.map(AgentId::as_str), "object": object, "action": action,
            "owner": answer.owner, "reason": answer.explanation.reason.map(Reason::code),
        });
        let mut changes = own.clone();
        changes.extend(outbox::told(&self.config().webhooks, Event::AccessRequested, &about, now_us));
        let mut changed = self.store.change(changes, Tell::Nobody).await?;
        if matches!(changed, Changed::Full(index) if index >= own.len()) {
            // Where messages have not been taken for days, the record has it all the same.
            changed = self.store.change(own, Tell::Nobody).await?;
        }
        match changed {
            Changed::Done { .. } => Ok(answer.owner),
            Changed::Conflict(0) => Err(invalid(already)),
            Changed::Conflict(_) => Err(invalid(so_much)),
            Changed::Full(_) => Err(Failure::before(Reason::StoreUnavailable, "no more wishes fit").into()),
        }
    }

    async fn tell_wish(
        &self,
        caller: &Caller,
        wish: &AccessWish<'_>,
        outcome: &'static str,
        stop: Option<&Stop>,
    ) -> Result<(), Failure> {
        let AccessWish { object, action, agent, note } = *wish;
        let about = match agent {
            Some(agent) => format!("{action} {object} with {agent}"),
            None => format!("{action} {object}"),
        };
        let note = AdminNote {
            operation: "access-wish",
            object: "bailiwick/access",
            actor: person(caller).unwrap_or_default(),
            actor_kind: "user",
            brakes: false,
            client: None,
            outcome,
            reason: stop.map(Stop::reason),
            rule: None,
            about: &about,
            detail: match stop {
                None => note,
                Some(Stop::Refused(refusal)) => &refusal.hint,
                Some(Stop::Failed(failure)) => &failure.detail,
            },
        };
        self.journal.administered(&note, Some(caller.who())).await
    }
}

fn person(caller: &Caller) -> Option<&str> {
    caller.persona().user.as_ref().map(Subject::as_str)
}
