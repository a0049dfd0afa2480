//! The tasks that a client of 2025-11-25 asked for, as it lists them (`tasks/list`).
//!
//! Decides which tasks are somebody's: those that this replica gave them, while it remembers. Each is asked for by itself,
//! for no server's own list says whose a task is. Refuses to know what a task does. Invariant: each is asked about as if
//! its client had named it, door to door, and what may not be asked about is not on the list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::super::Request;
use super::handle::Handle;
use super::is_wrong;
use super::leg::Bearer;
use crate::delegate::{Leg, attempt};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::PrincipalKey;
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal};
use crate::wire::{Edit, Json};

/// Which tasks were given to whom, by their sealed ids, the newest last. In memory: a task is found by its id wherever
/// it is asked for, and only the list forgets.
#[derive(Debug)]
pub struct Given {
    of: Cache<PrincipalKey, Arc<Mutex<VecDeque<String>>>>,
}

impl Default for Given {
    fn default() -> Self {
        let of = Cache::builder()
            .max_capacity(limit::TASKS_GIVEN_PRINCIPALS_MAX)
            // Whoever comes last is remembered, whatever others have filled.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(limit::TASKS_GIVEN_IDLE_MAX)
            .build();
        Self { of }
    }
}

impl Given {
    /// A principal was given a task under this id; the oldest makes room.
    pub(super) fn add(&self, principal: PrincipalKey, id: &str) {
        let own = self.of.get_with(principal, Arc::default);
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= limit::TASKS_GIVEN_MAX {
            own.pop_front();
        }
        own.push_back(id.to_owned());
    }

    /// Its server does not know it any more.
    fn remove(&self, principal: PrincipalKey, id: &str) {
        if let Some(own) = self.of.get(&principal) {
            own.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != id);
        }
    }

    /// A page of ids, the oldest first, and whether there are more; after the id that a client's cursor names.
    fn page(&self, principal: PrincipalKey, after: Option<&str>) -> Option<(Vec<String>, bool)> {
        let own = self.of.get(&principal).unwrap_or_default();
        let own = own.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match after {
            Some(after) => own.iter().position(|known| known == after)? + 1,
            None => 0,
        };
        let page: Vec<_> = own.iter().skip(first).take(limit::TASKS_LISTED_MAX).cloned().collect();
        let more = own.len() > first + page.len();
        Some((page, more))
    }
}

/// Answers `tasks/list`; what is refused is on the record.
pub async fn list(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, leg: &Leg) -> Outcome {
    listed(gateway, caller, request).await.unwrap_or_else(|refusal| {
        gateway.journal().stopped(&attempt(caller, leg, None, None), &refusal.clone().into());
        refusal.into()
    })
}

/// A limit, a cursor that is none and a caller who does not stand any more are refused.
async fn listed(gateway: &Arc<Gateway>, caller: &Caller, request: &Request) -> Result<Outcome, Refusal> {
    gateway.quotas().request(caller.principal())?;
    gateway.not_expired(caller)?;
    gateway.still_trusted(caller)?;
    let cursor = request.message.params().and_then(|params| params.get("cursor")).filter(|cursor| !cursor.is_null());
    let wrong =
        || Refusal::new(Reason::ParametersInvalid).hint("the cursor is not valid any more: list from the start");
    let after = match cursor {
        Some(cursor) => Some(cursor.as_str().ok_or_else(wrong)?),
        None => None,
    };
    let given = gateway.given_tasks();
    let (ids, more) = given.page(caller.principal(), after.as_deref()).ok_or_else(wrong)?;
    let next = ids.last().filter(|_| more).cloned();
    let asked = ids.into_iter().filter_map(|id| {
        let handle = Handle::open(gateway.sealer(), caller.principal(), &id)?;
        let bearer = Bearer::new(gateway, caller, request, handle);
        Some(async move { (id, Box::pin(bearer.ask("tasks/get")).await) })
    });
    let answered: Vec<_> = stream::iter(asked).buffered(limit::TASKS_LISTED_AT_ONCE_MAX).collect().await;
    let (mut tasks, mut failed) = (Vec::new(), None);
    for (id, outcome) in answered {
        match outcome {
            Outcome::Complete(result) => tasks.extend(result.value().as_object().map(|task| {
                let own = ["_meta", "resultType", "inputRequests", "requestState"].map(Edit::Remove);
                let edits: Vec<_> = own.into_iter().chain([Edit::Set("taskId", Json::of(&id))]).collect();
                task.edited(&edits)
            })),
            Outcome::Error(error) if is_wrong(&error) => given.remove(caller.principal(), &id),
            // A tool that was taken away, or a server that is another one now.
            Outcome::Refused(refusal) if refusal.reason == Reason::TargetUnknown => {}
            other => failed = failed.or(Some(other)),
        }
    }
    // If nobody answers, that is an error and no empty list.
    Ok(match failed.filter(|_| tasks.is_empty()) {
        Some(failed) => failed,
        None => Outcome::Complete(page(&tasks, next.as_deref())),
    })
}

fn page(tasks: &[Json], next: Option<&str>) -> Json {
    let tasks: Vec<_> = tasks.iter().map(Json::as_str).collect();
    let next = next.map(|next| format!(",\"nextCursor\":{}", Json::of(next).as_str())).unwrap_or_default();
    Json::joined(format!("{{\"tasks\":[{}]{next}}}", tasks.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(crate::ids::Digest::sha256(name.as_bytes()))
    }

    #[test]
    fn a_page_goes_on_after_the_task_that_was_seen_last_and_the_oldest_makes_room() {
        let given = Given::default();
        let [ann, bob] = [principal("ann"), principal("bob")];
        for number in 0..=limit::TASKS_GIVEN_MAX {
            given.add(ann, &number.to_string());
        }
        let (first, more) = given.page(ann, None).unwrap();
        assert_eq!((first.len(), first[0].as_str(), more), (limit::TASKS_LISTED_MAX, "1", true));
        let (mut seen, mut last) = (first.len(), first.last().cloned());
        while let Some(after) = last {
            let (page, more) = given.page(ann, Some(&after)).unwrap();
            seen += page.len();
            last = page.last().filter(|_| more).cloned();
        }
        assert_eq!(seen, limit::TASKS_GIVEN_MAX);
        assert_eq!(given.page(ann, Some("0")), None, "it made room");
        assert_eq!(given.page(bob, None), Some((Vec::new(), false)), "nothing of another");
        assert_eq!(given.page(bob, Some("1")), None);
        given.remove(ann, "1");
        assert_eq!(given.page(ann, None).unwrap().0[0], "2");
    }

    #[test]
    fn so_many_principals_are_remembered_and_the_newest_is_among_them() {
        let given = Given::default();
        let all: Vec<_> =
            (0..=limit::TASKS_GIVEN_PRINCIPALS_MAX).map(|number| principal(&number.to_string())).collect();
        for principal in &all {
            given.add(*principal, "a");
        }
        given.of.run_pending_tasks();
        assert_eq!(given.of.entry_count(), limit::TASKS_GIVEN_PRINCIPALS_MAX);
        assert_eq!(given.page(*all.last().unwrap(), None).unwrap().0, ["a"]);
    }
}
