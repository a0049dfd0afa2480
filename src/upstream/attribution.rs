//! Whose a question is that a legacy server asks without saying so.
//!
//! Decides it by what the calls of one session are doing. Knows nothing of what is asked. Invariant: it is never
//! guessed among calls that the server works on, and no question crosses from one session to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::answer::member;
use crate::wire::mcp::meta;
use crate::wire::{Json, Message, Value};

/// How many questions of one call wait for their answers, and whether their client has been told of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Unanswered(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    questions: AtomicUsize,
    told: AtomicBool,
}

impl Unanswered {
    pub(super) fn asked(&self) {
        self.0.questions.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn answered(&self) {
        self.0.questions.fetch_sub(1, Ordering::AcqRel);
        self.0.told.store(false, Ordering::Release);
    }

    /// Its client was told: whatever is asked now is no longer asked at once with it.
    pub(super) fn told(&self) {
        self.0.told.store(true, Ordering::Release);
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.questions.load(Ordering::Acquire) > 0
    }

    fn is_told(&self) -> bool {
        self.0.told.load(Ordering::Acquire)
    }
}

/// What tells one call of a session from the others.
#[derive(Debug)]
pub(super) struct Traits {
    pub(super) unanswered: Unanswered,
    /// The server's own id of the task that it is about.
    task: Option<String>,
    /// It shall become a task, and may be one that has not been heard of yet.
    becomes_task: bool,
}

impl Traits {
    /// Those of a request with these parameters.
    pub(super) fn of(params: &Json, unanswered: Unanswered) -> Self {
        let params = params.value().as_object();
        let task = params.and_then(|params| params.get("taskId")).and_then(Value::as_str);
        let becomes_task = params.is_some_and(|params| params.get("task").is_some());
        Self { unanswered, task: task.map(Into::into), becomes_task }
    }
}

/// Whose a question is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose<T> {
    /// This call's.
    Of(T),
    /// It may be any of several.
    Unclear,
    /// Nobody asked anything.
    Nobodys,
}

/// Finds out whose a question is: that of the task which it names, or of the only call that can have become that task;
/// where it names none, the only call's that the server works on. A call that waits for an answer is not worked on, and
/// asks more only where nothing else is: one that is still asking sooner than one whose client was told.
pub(super) fn whose<'a, T>(question: &Message, calls: impl Iterator<Item = (T, &'a Traits)>) -> Whose<T> {
    let related = member(question.params(), "_meta", meta::RELATED_TASK).and_then(Value::as_object);
    let named = related.and_then(|related| related.get("taskId")).and_then(Value::as_str);
    let (mut about_it, mut working, mut asking, mut waiting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (call, traits) in calls {
        if named.is_some() && traits.task.as_deref() == named.as_deref() {
            about_it.push(call);
        } else if named.is_some() && !traits.becomes_task {
            // It is another's.
        } else if traits.unanswered.is_any() && traits.unanswered.is_told() {
            waiting.push(call);
        } else if traits.unanswered.is_any() {
            asking.push(call);
        } else {
            working.push(call);
        }
    }
    // Several wait for one task where its client looked again while it was being answered: whichever of them hears the
    // question, it stands in that task, and the session has one principal.
    if let Some(call) = about_it.pop() {
        return Whose::Of(call);
    }
    for mut group in [working, asking, waiting] {
        match (group.pop(), group.is_empty()) {
            (Some(only), true) => return Whose::Of(only),
            (Some(_), false) => return Whose::Unclear,
            (None, _) => {}
        }
    }
    Whose::Nobodys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whose a question is, among calls about these tasks; those that wait have told their clients.
    fn of(question: &serde_json::Value, calls: &[(Option<&str>, bool)]) -> Whose<usize> {
        let question = Message::request(&Json::of("q"), "elicitation/create", &Json::of(question));
        let traits: Vec<_> = calls
            .iter()
            .map(|(task, waits)| {
                let unanswered = Unanswered::default();
                if *waits {
                    unanswered.asked();
                    unanswered.told();
                }
                Traits::of(&Json::of(&json!({ "taskId": task })), unanswered)
            })
            .collect();
        whose(&question, traits.iter().enumerate())
    }

    #[test]
    fn a_question_belongs_to_the_only_call_that_is_worked_on() {
        let (works, waits) = ((None, false), (None, true));
        assert_eq!(of(&json!({}), &[]), Whose::Nobodys);
        assert_eq!(of(&json!({}), &[works]), Whose::Of(0));
        assert_eq!(of(&json!({}), &[works, works]), Whose::Unclear);
        assert_eq!(of(&json!({}), &[waits, works, waits]), Whose::Of(1));
        assert_eq!(of(&json!({}), &[waits, works, works]), Whose::Unclear);
        assert_eq!(of(&json!({}), &[waits]), Whose::Of(0), "it asks two things at once");
        assert_eq!(of(&json!({}), &[waits, waits]), Whose::Unclear);
    }

    #[test]
    fn what_is_asked_at_once_is_one_calls_although_others_wait() {
        let question = Message::request(&Json::of("q"), "elicitation/create", &Json::of(&json!({})));
        let traits = |asked: bool, told: bool| {
            let unanswered = Unanswered::default();
            if asked {
                unanswered.asked();
            }
            if told {
                unanswered.told();
            }
            Traits::of(&Json::of(&json!({})), unanswered)
        };
        let (works, asks, waits) = (traits(false, false), traits(true, false), traits(true, true));
        let of = |calls: &[&Traits]| whose(&question, calls.iter().copied().enumerate());
        assert_eq!(of(&[&waits, &asks, &waits]), Whose::Of(1));
        assert_eq!(of(&[&asks, &works]), Whose::Of(1), "one that asks nothing yet comes first");
        assert_eq!(of(&[&asks, &asks, &waits]), Whose::Unclear);
        waits.unanswered.answered();
        assert_eq!(of(&[&waits, &asks]), Whose::Of(0), "it is worked on again");
    }

    #[test]
    fn a_question_that_names_its_task_belongs_to_whoever_waits_for_that() {
        let about = |task: &str| json!({ "_meta": { meta::RELATED_TASK: { "taskId": task } } });
        let calls = [(Some("a"), true), (Some("b"), false), (None, false)];
        assert_eq!(of(&about("a"), &calls), Whose::Of(0));
        assert_eq!(of(&about("b"), &calls), Whose::Of(1));
        assert_eq!(of(&about("c"), &calls), Whose::Nobodys, "none of them is that task");
        assert_eq!(of(&about("b"), &[(Some("b"), true), (Some("b"), false)]), Whose::Of(1), "it stands in the task");
    }

    #[test]
    fn a_question_of_a_task_that_nobody_has_heard_of_belongs_to_the_only_call_that_may_have_become_it() {
        let about = Message::request(
            &Json::of("q"),
            "elicitation/create",
            &Json::of(&json!({ "_meta": { meta::RELATED_TASK: { "taskId": "new" } } })),
        );
        let traits = |params: &serde_json::Value| Traits::of(&Json::of(params), Unanswered::default());
        let (plain, becomes) = (traits(&json!({ "name": "x" })), traits(&json!({ "name": "x", "task": {} })));
        assert_eq!(whose(&about, [&plain].into_iter().enumerate()), Whose::Nobodys);
        assert_eq!(whose(&about, [&plain, &becomes].into_iter().enumerate()), Whose::Of(1));
        assert_eq!(whose(&about, [&becomes, &becomes].into_iter().enumerate()), Whose::Unclear);
    }

    #[test]
    fn an_answer_takes_the_question_away() {
        let unanswered = Unanswered::default();
        unanswered.asked();
        unanswered.asked();
        unanswered.answered();
        assert!(unanswered.is_any());
        unanswered.answered();
        assert!(!unanswered.is_any());
    }
}
