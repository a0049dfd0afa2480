//! The tasks that a client of 2025-11-25 asked for, as it lists them (`tasks/list`).
//!
//! Decides which tasks are somebody's: those that this replica gave them, while it remembers. Each is asked for by itself,
//! for no server's own list says whose a task is. Refuses to know what a task does. Invariant: each is asked about as if
//! its client had named it, door to door, and what may not be asked about is not on the list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::super::Request;
use super::handle::Handle;
use super::is_wrong;
use super::leg::Bearer;
use super::shape::Status;
use crate::delegate::{Leg, attempt};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::{ParkId, PrincipalKey};
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal};
use crate::wire::{Edit, Json, Object, Value};

/// Which tasks were given to whom, the newest last. In memory: a task is found by its id wherever it is asked for, and only
/// the list forgets.
#[derive(Debug)]
pub struct Given {
    of: Cache<PrincipalKey, Arc<Mutex<Own>>>,
}

/// Those of one principal.
#[derive(Debug)]
struct Own {
    /// Told from those of another process, or of one that was forgotten, by this.
    series: ParkId,
    /// How many there were.
    count: u64,
    tasks: VecDeque<Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    /// Which one it was, for cursors: they outlive the tasks that they stand for.
    number: u64,
    /// As its client spells it.
    id: String,
    /// How it was when that was last known.
    state: Option<Json>,
}

impl Default for Own {
    fn default() -> Self {
        Self { series: ParkId::new(), count: 0, tasks: VecDeque::new() }
    }
}

impl Own {
    fn weight(&self) -> u32 {
        let of = |task: &Remembered| task.id.len() + task.state.as_ref().map_or(0, |state| state.as_bytes().len()) + 64;
        u32::try_from(128 + self.tasks.iter().map(of).sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn cursor(&self, number: u64) -> String {
        format!("{}.{number}", self.series)
    }

    /// Which one a cursor of ours stands for.
    fn number(&self, cursor: &str) -> Option<u64> {
        let (series, number) = cursor.split_once('.')?;
        let number = number.parse::<u64>().ok().filter(|number| *number <= self.count);
        number.filter(|_| series == self.series.to_string())
    }
}

impl Default for Given {
    fn default() -> Self {
        let of = Cache::builder()
            .max_capacity(limit::TASKS_GIVEN_BYTES_MAX)
            .weigher(|_, own: &Arc<Mutex<Own>>| locked(own).weight())
            // Whoever comes last is remembered, whatever others have filled.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(limit::TASKS_GIVEN_IDLE_MAX)
            .build();
        Self { of }
    }
}

fn locked(own: &Mutex<Own>) -> MutexGuard<'_, Own> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some tasks of one principal, the oldest first.
#[derive(Debug, Default)]
struct Page {
    tasks: Vec<Remembered>,
    /// Where it goes on after each of them: what stands behind the last is nothing where there are no more.
    cursors: Vec<Option<String>>,
}

impl Given {
    /// A principal was given this task under this id; the oldest makes room.
    pub(super) fn add(&self, principal: PrincipalKey, id: &str, task: Object<'_>) {
        self.change(principal, |own| {
            if own.tasks.len() >= limit::TASKS_GIVEN_MAX {
                own.tasks.pop_front();
            }
            own.count += 1;
            own.tasks.push_back(Remembered { number: own.count, id: id.to_owned(), state: state(task) });
        });
    }

    /// How a task is now.
    fn note(&self, principal: PrincipalKey, number: u64, task: Object<'_>) {
        self.change(principal, |own| {
            if let Some(known) = own.tasks.iter_mut().find(|known| known.number == number) {
                known.state = state(task);
            }
        });
    }

    /// Its server does not know it any more.
    fn remove(&self, principal: PrincipalKey, number: u64) {
        self.change(principal, |own| own.tasks.retain(|known| known.number != number));
    }

    fn change(&self, principal: PrincipalKey, change: impl FnOnce(&mut Own)) {
        let own = self.of.get_with(principal, Arc::default);
        change(&mut locked(&own));
        // Put there again, so that it weighs what it weighs now.
        self.of.insert(principal, own);
    }

    /// A page of tasks, after the one that a client's cursor stands for, whatever became of that.
    fn page(&self, principal: PrincipalKey, after: Option<&str>) -> Option<Page> {
        let Some(own) = self.of.get(&principal) else { return after.is_none().then(Page::default) };
        let own = locked(&own);
        let after = match after {
            Some(after) => own.number(after)?,
            None => 0,
        };
        let mut later = own.tasks.iter().filter(|task| task.number > after);
        let tasks: Vec<_> = later.by_ref().take(limit::TASKS_LISTED_MAX).cloned().collect();
        let has_more = later.next().is_some();
        let is_last = |place: usize| place + 1 == tasks.len() && !has_more;
        let cursor = |(place, task): (usize, &Remembered)| (!is_last(place)).then(|| own.cursor(task.number));
        let cursors = tasks.iter().enumerate().map(cursor).collect();
        Some(Page { tasks, cursors })
    }
}

/// What is kept of a task for a moment in which its server does not answer: how it stands, and nothing that it says.
fn state(task: Object<'_>) -> Option<Json> {
    Status::of(task)?;
    let kept = |name: &str, value: Value<'_>| match name {
        "status" => true,
        "createdAt" | "lastUpdatedAt" => value.as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()),
        "ttl" | "pollInterval" => value.is_null() || value.is_number(),
        _ => false,
    };
    let others: Vec<_> = task.members().filter(|(name, value)| !kept(name, *value)).map(|(name, _)| name).collect();
    let state = task.edited(&others.iter().map(|name| Edit::Remove(name)).collect::<Vec<_>>());
    Some(state).filter(|state| state.as_bytes().len() <= limit::TASK_STATE_BYTES_MAX)
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
    let Page { tasks, cursors } = given.page(caller.principal(), after.as_deref()).ok_or_else(wrong)?;
    // Each is a request of its own; the first was counted when this came. The page ends where there may be no more.
    let may_ask = |place: &usize| *place == 0 || gateway.quotas().request(caller.principal()).is_ok();
    let count = (0..tasks.len()).take_while(may_ask).count();
    let next = count.checked_sub(1).and_then(|last| cursors.into_iter().nth(last)).flatten();
    let asked = tasks.into_iter().take(count).filter_map(|task| {
        let handle = Handle::open(gateway.sealer(), caller.principal(), &task.id)?;
        let bearer = Bearer::new(gateway, caller, request, handle);
        if bearer.is_lost() {
            given.remove(caller.principal(), task.number);
            return None;
        }
        Some(async move { (task, Box::pin(bearer.ask("tasks/get")).await) })
    });
    let answered: Vec<_> = stream::iter(asked).buffered(limit::TASKS_LISTED_AT_ONCE_MAX).collect().await;
    let mut listed = Vec::new();
    for (task, outcome) in answered {
        match outcome {
            Outcome::Complete(result) => {
                if let Some(now) = result.value().as_object() {
                    given.note(caller.principal(), task.number, now);
                    let own = ["_meta", "resultType", "inputRequests", "requestState"].map(Edit::Remove);
                    let edits: Vec<_> = own.into_iter().chain([Edit::Set("taskId", Json::of(&task.id))]).collect();
                    listed.push(now.edited(&edits));
                }
            }
            Outcome::Error(error) if is_wrong(&error) => given.remove(caller.principal(), task.number),
            // It may not be asked about, or was taken away, or its server is another one now.
            Outcome::Refused(refusal) if !is_limit(refusal.reason) => {}
            // That nobody could look is no end of it: it is listed as it was when somebody could.
            other => match task.state.as_ref().and_then(|state| state.value().as_object()) {
                Some(state) => listed.push(state.edited(&[Edit::Set("taskId", Json::of(&task.id))])),
                None => return Ok(other),
            },
        }
    }
    Ok(Outcome::Complete(page(&listed, next.as_deref())))
}

/// Whether something was refused for this moment only.
const fn is_limit(reason: Reason) -> bool {
    matches!(reason, Reason::ConcurrencyLimited | Reason::RateLimited)
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

    fn add(given: &Given, principal: PrincipalKey, id: &str) {
        given.add(
            principal,
            id,
            json(r#"{"taskId":"inner","status":"working","ttl":1,"statusMessage":"m"}"#).value().as_object().unwrap(),
        );
    }

    fn json(text: &str) -> Json {
        Json::parse(text, crate::wire::Source::Upstream).unwrap()
    }

    fn ids(page: &Page) -> Vec<&str> {
        page.tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn a_page_goes_on_after_the_task_that_was_seen_last_and_the_oldest_makes_room() {
        let given = Given::default();
        let [ann, bob] = [principal("ann"), principal("bob")];
        for number in 0..=limit::TASKS_GIVEN_MAX {
            add(&given, ann, &number.to_string());
        }
        let first = given.page(ann, None).unwrap();
        assert_eq!((first.tasks.len(), ids(&first)[0]), (limit::TASKS_LISTED_MAX, "1"));
        let (mut seen, mut last) = (first.tasks.len(), first.cursors.last().cloned().flatten());
        while let Some(after) = last {
            let page = given.page(ann, Some(&after)).unwrap();
            seen += page.tasks.len();
            last = page.cursors.last().cloned().flatten();
        }
        assert_eq!(seen, limit::TASKS_GIVEN_MAX);
        let second = given.page(ann, first.cursors[0].as_deref()).unwrap();
        assert_eq!(ids(&second)[0], "2", "it can go on after each of them");
        let of_ann = first.cursors[0].clone().unwrap();
        assert!(given.page(bob, None).unwrap().tasks.is_empty(), "nothing of another");
        assert!(given.page(bob, Some(&of_ann)).is_none());
        add(&given, bob, "b");
        assert!(given.page(bob, Some(&of_ann)).is_none() && given.page(ann, Some("1")).is_none());
        let series = of_ann.split_once('.').unwrap().0;
        assert!(given.page(ann, Some(&format!("{series}.{}", limit::TASKS_GIVEN_MAX + 2))).is_none(), "none of ours");
    }

    #[test]
    fn a_cursor_is_good_when_the_task_that_it_stands_for_is_not_there_any_more() {
        let given = Given::default();
        let ann = principal("ann");
        for number in 0..=limit::TASKS_LISTED_MAX {
            add(&given, ann, &number.to_string());
        }
        let first = given.page(ann, None).unwrap();
        let (last, after) = (first.tasks.last().unwrap().number, first.cursors.last().unwrap().clone());
        given.remove(ann, last);
        let rest = given.page(ann, after.as_deref()).unwrap();
        assert_eq!(ids(&rest), [limit::TASKS_LISTED_MAX.to_string()]);
        assert_eq!(rest.cursors, [None]);
        // The oldest makes room as well, and whoever goes on misses nothing.
        for number in 0..limit::TASKS_GIVEN_MAX {
            add(&given, ann, &format!("new-{number}"));
        }
        assert_eq!(ids(&given.page(ann, after.as_deref()).unwrap())[0], "new-0");
    }

    #[test]
    fn of_a_task_its_state_is_kept_and_nothing_that_it_says() {
        let given = Given::default();
        let ann = principal("ann");
        add(&given, ann, "a");
        let kept = || given.page(ann, None).unwrap().tasks[0].state.as_ref().map(|state| state.as_str().to_owned());
        assert_eq!(kept().unwrap(), r#"{"status":"working","ttl":1}"#);
        let note = |text: &str| given.note(ann, 1, json(text).value().as_object().unwrap());
        note(r#"{"status":"failed","createdAt":"2026-11-24T10:00:00Z","lastUpdatedAt":"what I say","ttl":{"x":1}}"#);
        assert_eq!(kept().unwrap(), r#"{"status":"failed","createdAt":"2026-11-24T10:00:00Z"}"#);
        note(r#"{"status":"what I say"}"#);
        assert_eq!(kept(), None);
        note(&format!(r#"{{"status":"working","ttl":{}}}"#, "1".repeat(limit::TASK_STATE_BYTES_MAX)));
        assert_eq!(kept(), None);
    }

    #[test]
    fn so_many_bytes_are_remembered_and_the_newest_is_among_them() {
        let given = Given::default();
        let all: Vec<_> =
            (0..limit::TASKS_GIVEN_BYTES_MAX / (32 * 1_024)).map(|number| principal(&number.to_string())).collect();
        for principal in &all {
            for _ in 0..16 {
                add(&given, *principal, &"i".repeat(4 * 1_024));
            }
        }
        given.of.run_pending_tasks();
        let held = given.of.weighted_size();
        assert!(held <= limit::TASKS_GIVEN_BYTES_MAX && held > limit::TASKS_GIVEN_BYTES_MAX / 2, "{held}");
        assert_eq!(given.of.policy().time_to_idle(), Some(limit::TASKS_GIVEN_IDLE_MAX));
        assert_eq!(given.page(*all.last().unwrap(), None).unwrap().tasks.len(), 16);
        assert!(given.page(all[0], None).unwrap().tasks.is_empty());
    }
}
