//! The tasks that one stream hears of.
//!
//! Decides how many, and which of them the client is told that it will hear of. Refuses to know how a task is
//! listened to. Invariant: a client hears only of its own tasks, and of none that it did not declare to know.

use tokio::sync::oneshot;

use super::{Interest, Watch};
use crate::call::{ClientFacts, TaskTopic, check_tasks};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// The tasks that a client wants to hear of, taken out of its interest until servers have agreed.
///
/// # Errors
/// `capability_missing`, `parameters_invalid`.
pub(super) fn wanted(client: &ClientFacts, interest: &mut Interest) -> Result<Vec<String>, Refusal> {
    let ids = std::mem::take(&mut interest.tasks);
    if !ids.is_empty() {
        check_tasks(client)?;
    }
    if ids.len() > limit::TASKS_PER_STREAM_MAX {
        let hint = format!("name at most {} tasks in one stream", limit::TASKS_PER_STREAM_MAX);
        return Err(Refusal::new(Reason::ParametersInvalid).hint(hint));
    }
    Ok(ids)
}

/// Whether something was heard of before.
#[derive(Debug, Clone, Copy)]
enum Following {
    Newly,
    /// It was, and then not for a moment.
    Again,
}

impl Watch {
    /// Hears of those tasks whose servers agree in time, one after the other.
    pub(super) async fn hear_of(&mut self, ids: Vec<String>) {
        let until = tokio::time::Instant::now() + limit::LISTEN_ACKNOWLEDGE_WAIT;
        for id in ids {
            let topic = TaskTopic::of(&self.gateway, &self.caller, &self.endpoint, &self.client, &id);
            let (Some(topic), Ok(slot)) = (topic, self.gateway.quotas().subscription(self.caller.principal())) else {
                continue;
            };
            let (first, agreed) = oneshot::channel();
            let tell = self.tell.clone();
            let following = self.following.spawn(async move {
                let _slot = slot;
                topic.follow(tell, first).await;
            });
            match tokio::time::timeout_at(until, agreed).await {
                Ok(Ok(true)) => self.interest.tasks.push(id),
                _ => following.abort(),
            }
        }
    }

    /// Hears what its server says of a task that a legacy client follows itself, within the bounds of a stream.
    pub fn follow_task(&mut self, id: String) {
        self.follow_from(id, Following::Newly);
    }

    /// The same once more, of a task whose state may have changed meanwhile: that is asked for and told.
    pub(super) fn follow_again(&mut self, id: String) {
        self.follow_from(id, Following::Again);
    }

    fn follow_from(&mut self, id: String, from: Following) {
        self.tasks.retain(|(_, following)| !following.is_finished());
        if self.tasks.len() >= limit::TASKS_PER_STREAM_MAX || self.tasks.iter().any(|(known, _)| *known == id) {
            return;
        }
        let topic = TaskTopic::of(&self.gateway, &self.caller, &self.endpoint, &self.client, &id);
        let (Some(topic), Ok(slot)) = (topic, self.gateway.quotas().subscription(self.caller.principal())) else {
            return;
        };
        while self.following.try_join_next().is_some() {}
        // Nobody waits for the server's agreement: it need not tell of anything.
        let (first, tell) = (oneshot::channel().0, self.tell.clone());
        let following = self.following.spawn(async move {
            let _slot = slot;
            match from {
                Following::Newly => topic.follow(tell, first).await,
                Following::Again => topic.follow_again(tell, first).await,
            }
        });
        self.tasks.push((id, following));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mcp::Version;
    use crate::wire::{Json, Source};

    fn asked(number: usize, capabilities: &str) -> Result<Vec<String>, Reason> {
        let capabilities = Json::parse(capabilities, Source::Client).unwrap();
        let client = ClientFacts { version: Version::V2026_07_28, capabilities, info: None, log_level: None };
        let tasks = (0..number).map(|number| number.to_string()).collect();
        let mut interest = Interest { tasks, ..Interest::default() };
        wanted(&client, &mut interest).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_stream_names_a_bounded_number_of_tasks_and_only_of_a_client_that_knows_tasks() {
        let declared = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        assert_eq!(asked(limit::TASKS_PER_STREAM_MAX, declared).unwrap().len(), limit::TASKS_PER_STREAM_MAX);
        assert_eq!(asked(limit::TASKS_PER_STREAM_MAX + 1, declared).unwrap_err(), Reason::ParametersInvalid);
        assert_eq!(asked(1, "{}").unwrap_err(), Reason::CapabilityMissing);
        assert!(asked(0, "{}").unwrap().is_empty());
    }
}
