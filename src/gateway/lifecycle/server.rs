//! What becomes of servers while the gateway runs: suspended, retired and resumed, as agents are.
//!
//! Decides the name of the row that says so. Refuses to know who orders it. Invariant: a server that was stopped is there for
//! nobody at any replica, whatever the files say, until somebody resumes it; one that is retired stays so.

use super::{Halted, STOPPED, Step, put};
use crate::gateway::Gateway;
use crate::ids::ServerId;
use crate::outbox;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::mandated::LifecycleNote;
use crate::shelf::{Action, Change, Changed, Expect, Shelf as _, Tell};

/// What no name of an agent, or of an agent and a person, begins with.
const PREFIX: &str = "server:";

/// The server that a row stops; nothing for one of an agent.
pub(super) fn of_row(key: &str) -> Option<ServerId> {
    ServerId::new(key.strip_prefix(PREFIX)?).ok()
}

impl Gateway {
    /// Does something to a server; durable, in force and on the record when it returns.
    ///
    /// # Errors
    /// `target_unknown`, `parameters_invalid` where the server is not in a state for it, `store_unavailable`,
    /// `record_unavailable`.
    pub async fn step_server(&self, server: &ServerId, step: Step, by: &str, note: &str) -> Result<(), Stop> {
        let now = self.snapshot();
        let unknown = || Refusal::new(Reason::TargetUnknown).hint(format!("there is no server `{server}`"));
        let known = now.written.server(server).ok_or_else(unknown)?;
        let key = format!("{PREFIX}{server}");
        let invalid = |hint: String| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
        let row = self.store.row(STOPPED, &key).await?;
        let before: Option<Halted> = row.as_ref().and_then(|row| serde_json::from_str(&row.body).ok());
        let expect = row.map_or(Expect::Absent, |row| Expect::Version(row.version));
        let (action, event) = match (step, before) {
            (Step::Resume, None) => return Err(invalid(format!("the server `{server}` is not suspended here"))),
            (Step::Resume | Step::Suspend, Some(before)) if before.retired => {
                return Err(invalid(format!("the server `{server}` is retired for good; register another one")));
            }
            (Step::Suspend, Some(_)) => return Err(invalid(format!("the server `{server}` is suspended already"))),
            (Step::Resume, Some(_)) => (Action::Remove, "resumed"),
            (Step::Suspend | Step::Retire, _) => {
                let (at, retired) = (self.store.now_s().await?, step == Step::Retire);
                let halted = Halted { retired, subject: None, by: by.to_owned(), note: note.to_owned(), at };
                (put(&halted)?, if retired { "retired" } else { "suspended" })
            }
        };
        let own = Change::new(STOPPED, key, expect, action);
        let mut changes = vec![own.clone()];
        if step != Step::Resume {
            // Whoever answers for it hears of it.
            let about =
                serde_json::json!({ "server": server.as_str(), "owner": known.owner, "by": by, "state": event });
            let clock_us = self.store.clock_us().await?;
            changes.extend(outbox::told(&now.config.webhooks, outbox::Event::ServerSuspended, &about, clock_us));
        }
        let mut changed = self.store.change(changes, Tell::Everybody).await?;
        if matches!(changed, Changed::Full(index) if index > 0) {
            // Where messages have not been taken for days, it is stopped all the same.
            changed = self.store.change(vec![own], Tell::Everybody).await?;
        }
        let epoch = match changed {
            Changed::Done { epoch, .. } => epoch,
            Changed::Conflict(_) => return Err(invalid("somebody else changed it just now: look again".to_owned())),
            Changed::Full(_) => {
                return Err(Failure::before(Reason::StoreUnavailable, "no more stopped servers fit").into());
            }
        };
        self.take_revocations().await?;
        tracing::warn!(%server, owner = known.owner, by, note, "the server was {event}");
        let (id, owner) = (server.as_str(), known.owner.as_str());
        self.journal
            .lived(&LifecycleNote { event, kind: "server", id, owner, actor: by, subject: None, note, epoch })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AgentId;

    #[test]
    fn no_row_of_an_agent_is_one_of_a_server() {
        assert_eq!(of_row("server:git"), Some(ServerId::new("git").unwrap()));
        for other in ["server", "server/user:corp/anna", "git", "server:", "agent:git"] {
            assert_eq!(of_row(other), None, "{other}");
        }
        assert!(AgentId::new("server:git").is_err());
    }
}
