//! What a message from an upstream means to the request that waits for it.
//!
//! Decides which answer is ours and whose progress a notification reports. Knows no transport.
//! Invariant: an answer to another request, a second answer and another's progress reach nobody.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::elsewhere::InFlight;
use super::hub::Hub;
use super::shape::Believed;
use super::{logging, shape};
use crate::ids::LegId;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, code, meta};
use crate::wire::{Edit, Json, Kind, LastWords, Message, Object, Outgoing, Value, notification_without_own_keys};

/// One request that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The id that we gave it; its progress token is the same number.
    pub(super) id: i64,
    pub(super) era: Era,
    /// Which endings a result may name.
    pub(super) believed: Believed,
    /// The client's progress token.
    pub(super) theirs: Option<Json>,
    /// The leg that our progress token is, where it outlives the request: progress of a task goes on after its answer.
    pub(super) outliving: Option<LegId>,
    /// It is a `subscriptions/listen`: changes are what it waits for.
    pub(super) listening: bool,
    pub(super) hub: Arc<Hub>,
    /// Where updates of resources and tasks go that a legacy session hears of.
    pub(super) updates: Option<broadcast::Sender<Message>>,
    /// The parameters of the request: what it wants to hear of.
    pub(super) asked: Json,
    /// It waits for the result of a task (`tasks/result`).
    pub(super) awaits_task: bool,
    /// On a session's own stream: the calls that log messages may belong to.
    pub(super) beside: Option<Arc<InFlight>>,
    /// What its client says when it cancels.
    pub(super) last_words: Option<LastWords>,
}

/// What a message means to a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// It is the end.
    Done(Outcome),
    /// It belongs to the request and goes to the client.
    Notification(Message),
    /// A legacy server asks something.
    Asked(Message),
    /// Nothing.
    Nothing,
}

impl Waiting {
    /// For a legacy stream that answers no request: none of ours has this id.
    pub(super) fn for_nothing(hub: &Arc<Hub>) -> Self {
        let asked = Json::of(&serde_json::Map::new());
        Self {
            id: 0,
            era: Era::Legacy,
            believed: Believed::Nothing,
            theirs: None,
            outliving: None,
            listening: false,
            hub: Arc::clone(hub),
            updates: None,
            asked,
            awaits_task: false,
            beside: None,
            last_words: None,
        }
    }

    /// Our progress token, where the client wants progress.
    pub(super) fn token(&self) -> Option<Json> {
        let token = || self.outliving.map_or_else(|| Json::of(&self.id), |leg| Json::of(&leg));
        self.theirs.as_ref().map(|_| token())
    }

    /// Whether a notification names our progress token.
    pub(super) fn is_its_token(&self, token: Value<'_>) -> bool {
        match self.outliving {
            Some(leg) => token.as_str().is_some_and(|token| token.parse::<LegId>() == Ok(leg)),
            None => token.as_i64() == Some(self.id),
        }
    }

    /// What a message means that arrived where only this request is answered.
    pub(super) fn hear(&self, message: Message) -> Heard {
        match message.kind() {
            Kind::Result | Kind::Error => self.answer(&message),
            Kind::Notification => self.notification(message),
            Kind::Request if self.era == Era::Legacy => Heard::Asked(message),
            Kind::Request => self.stray(),
        }
    }

    fn answer(&self, message: &Message) -> Heard {
        let ours = match message.id_value() {
            Some(id) => id.as_i64() == Some(self.id),
            // An error whose sender could not read our id; there is only one request that it can answer.
            None => true,
        };
        if !ours {
            return self.stray();
        }
        let body = message.body().unwrap_or_else(|| Json::of(&serde_json::Map::new()));
        Heard::Done(if message.kind() == Kind::Result {
            shape::outcome(body, self.believed)
        } else if error_code(&body).is_some() {
            Outcome::Error(body)
        } else {
            garbage("the error has no code")
        })
    }

    fn notification(&self, message: Message) -> Heard {
        let method = message.method();
        if method == "notifications/progress" {
            drop(method);
            return self.progress(message);
        }
        if method == "notifications/message"
            && let Some(calls) = &self.beside
        {
            drop(method);
            calls.log(message, &self.hub);
            return Heard::Nothing;
        }
        if method == "notifications/message" && !logging::passes(&self.asked, &message) {
            return Heard::Nothing;
        }
        if self.hub.list_changed(&method) && !self.listening {
            return Heard::Nothing;
        }
        if names_no_request(&method)
            && !self.is_about_its_task(&message)
            && let Some(updates) = &self.updates
        {
            drop(method);
            // An error only says that nobody has subscribed.
            let _ = updates.send(message);
            return Heard::Nothing;
        }
        if method == "notifications/cancelled" || (method == "notifications/resources/updated" && !self.listening) {
            self.hub.notification_dropped();
            return Heard::Nothing;
        }
        if let Some(subscription) = member(message.params(), "_meta", meta::SUBSCRIPTION_ID)
            && subscription.as_i64() != Some(self.id)
        {
            return self.stray();
        }
        drop(method);
        Heard::Notification(notification_without_own_keys(message))
    }

    fn progress(&self, message: Message) -> Heard {
        let token = message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN));
        let is_own = token.is_some_and(|token| self.is_its_token(token));
        let (Some(params), Some(theirs)) = (message.params(), self.theirs.as_ref().filter(|_| is_own)) else {
            return match &self.updates {
                Some(updates) if outlives(&message) => {
                    // An error only says that nobody waits for it any more.
                    let _ = updates.send(message);
                    Heard::Nothing
                }
                _ => self.stray(),
            };
        };
        let params = params.edited(&[Edit::Set(meta::PROGRESS_TOKEN, theirs.clone())]);
        let progress = Message::notification("notifications/progress", Some(&params));
        Heard::Notification(notification_without_own_keys(progress))
    }

    /// Whether it tells of the very task whose result is waited for here: it belongs to that stream then. What only looks at
    /// a task, or stops it, is none of its.
    pub(super) fn is_about_its_task(&self, message: &Message) -> bool {
        self.awaits_task && message.method() == meta::TASK_STATUS && {
            let own = self.asked.value().as_object().and_then(|asked| asked.get("taskId")).and_then(Value::as_str);
            own.is_some() && own == message.params().and_then(|told| told.get("taskId")).and_then(Value::as_str)
        }
    }

    fn stray(&self) -> Heard {
        self.hub.stray();
        Heard::Nothing
    }
}

/// Whether a notification belongs to whoever waits for it in a legacy session, on whichever stream it comes.
pub(super) fn names_no_request(method: &str) -> bool {
    matches!(method, "notifications/resources/updated" | "notifications/tasks" | meta::TASK_STATUS)
}

/// The leg that our progress token is in a call that is made as a task of 2025-11-25.
pub(super) fn outliving(outgoing: &Outgoing, leg: Option<LegId>, era: Era) -> Option<LegId> {
    let becomes_task = outgoing.params.value().as_object().is_some_and(|params| params.get("task").is_some());
    leg.filter(|_| becomes_task && era == Era::Legacy && outgoing.method == "tools/call")
}

/// Whether it is progress under a token of ours that outlives its request: of a task, on whichever stream it comes.
pub(super) fn outlives(message: &Message) -> bool {
    let token = message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN)).and_then(Value::as_str);
    message.method() == "notifications/progress" && token.is_some_and(|token| token.parse::<LegId>().is_ok())
}

/// What we answer to a request of a legacy server that goes to no client: whether we are alive it may always ask.
pub(super) fn reply_to_server(request: &Message) -> Option<Message> {
    let id = request.id()?;
    if request.method() == "ping" {
        return Some(Message::result(&id, &Json::of(&serde_json::Map::new())));
    }
    let error = serde_json::json!({ "code": code::METHOD_NOT_FOUND, "message": "Method not found" });
    Some(Message::error(Some(&id), &Json::of(&error)))
}

/// What we answer to a question that may be any of several calls': whose it is is never guessed.
pub(super) fn ambiguous(request: &Message) -> Option<Message> {
    let message = "Several calls are in flight in this session, and the question does not say which one asks";
    let error = serde_json::json!({ "code": code::INTERNAL_ERROR, "message": message });
    Some(Message::error(Some(&request.id()?), &Json::of(&error)))
}

/// The code of a JSON-RPC error object.
pub(super) fn error_code(error: &Json) -> Option<i64> {
    error.value().as_object()?.get("code")?.as_i64()
}

/// A member of a member.
pub(super) fn member<'a>(object: Option<Object<'a>>, outer: &str, inner: &str) -> Option<Value<'a>> {
    object?.get(outer)?.as_object()?.get(inner)
}

/// The upstream answered something that is not MCP.
pub(super) fn garbage(detail: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure::after(Reason::UpstreamGarbage, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::ServerId;
    use crate::upstream::hub::Change;

    fn waiting(theirs: Option<Json>) -> (Waiting, tokio::sync::broadcast::Receiver<Change>) {
        let (sender, receiver) = tokio::sync::broadcast::channel(8);
        let hub = Arc::new(Hub::new(ServerId::new("s").unwrap(), sender));
        (
            Waiting {
                id: 7,
                era: Era::Legacy,
                believed: Believed::Nothing,
                theirs,
                outliving: None,
                listening: false,
                hub,
                updates: None,
                asked: Json::of(&json!({})),
                awaits_task: false,
                beside: None,
                last_words: None,
            },
            receiver,
        )
    }

    fn message(value: &serde_json::Value) -> Message {
        Message::parse(value.to_string(), crate::wire::Source::Upstream).unwrap()
    }

    #[test]
    fn only_the_answer_to_our_id_is_ours() {
        let (waiting, _changes) = waiting(None);
        for id in [json!(8), json!("7")] {
            let foreign = message(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
            assert!(matches!(waiting.hear(foreign), Heard::Nothing));
        }
        assert_eq!(waiting.hub.dropped().strays, 2);
        let ours = message(&json!({ "jsonrpc": "2.0", "id": 7, "result": { "a": 1 } }));
        assert!(matches!(waiting.hear(ours), Heard::Done(Outcome::Complete(_))));
        let error = message(&json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "m" } }));
        assert!(matches!(waiting.hear(error), Heard::Done(Outcome::Error(_))));
        let odd = message(&json!({ "jsonrpc": "2.0", "id": 7, "error": {} }));
        assert!(matches!(waiting.hear(odd), Heard::Done(Outcome::Failed(_))));
    }

    #[test]
    fn progress_comes_back_under_the_clients_own_token() {
        let progress = |token: serde_json::Value| {
            let params = json!({ "progressToken": token, "progress": 1, "x": "kept" });
            message(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
        };
        let (waiting, _changes) = waiting(Some(Json::of("theirs")));
        let Heard::Notification(mapped) = waiting.hear(progress(json!(7))) else { panic!() };
        assert_eq!(mapped.params().unwrap().get("progressToken").unwrap().raw(), "\"theirs\"");
        assert_eq!(mapped.params().unwrap().get("x").unwrap().raw(), "\"kept\"");
        for foreign in [json!(8), json!("theirs"), json!("7")] {
            assert!(matches!(waiting.hear(progress(foreign)), Heard::Nothing));
        }
    }

    #[test]
    fn progress_of_a_task_goes_to_its_call_and_after_that_to_whoever_follows_it() {
        let told = |token: &str| {
            let params = json!({ "progressToken": token, "progress": 1 });
            message(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
        };
        let (updates, mut heard) = broadcast::channel(2);
        let (waiting, _changes) = waiting(Some(Json::of("theirs")));
        let leg = LegId::new();
        let call = Waiting { outliving: Some(leg), updates: Some(updates), ..waiting };
        assert_eq!(call.token(), Some(Json::of(&leg)));
        let Heard::Notification(mapped) = call.hear(told(&leg.to_string())) else { panic!() };
        assert_eq!(mapped.params().unwrap().get("progressToken").unwrap().raw(), "\"theirs\"");
        assert!(heard.try_recv().is_err());
        let another = Waiting { outliving: None, ..call };
        assert!(matches!(another.hear(told(&leg.to_string())), Heard::Nothing));
        assert!(outlives(&heard.try_recv().unwrap()));
        // What is no token of ours is nobody's.
        assert!(matches!(another.hear(told("theirs")), Heard::Nothing));
        assert!(heard.try_recv().is_err());
        let outgoing =
            |params: serde_json::Value| Outgoing { params: Json::of(&params), ..crate::record::fixture::outgoing() };
        let task = outgoing(json!({ "name": "t", "task": {} }));
        assert_eq!(outliving(&task, Some(leg), Era::Legacy), Some(leg));
        assert_eq!(outliving(&task, Some(leg), Era::Modern), None);
        assert_eq!(outliving(&outgoing(json!({ "name": "t" })), Some(leg), Era::Legacy), None);
    }

    #[test]
    fn the_state_of_a_task_goes_to_whoever_waits_for_its_result_and_else_to_whoever_follows_it() {
        let told = |task: &str| {
            message(
                &json!({ "jsonrpc": "2.0", "method": meta::TASK_STATUS, "params": { "taskId": task, "status": "working" } }),
            )
        };
        let (updates, mut heard) = broadcast::channel(2);
        let (waiting, _changes) = waiting(None);
        let asked = Json::of(&json!({ "taskId": "own" }));
        let waiting = Waiting { asked, awaits_task: true, updates: Some(updates), ..waiting };
        assert!(matches!(waiting.hear(told("own")), Heard::Notification(_)));
        assert!(heard.try_recv().is_err());
        assert!(matches!(waiting.hear(told("another")), Heard::Nothing));
        assert_eq!(heard.try_recv().unwrap().params().unwrap().get("taskId").unwrap().raw(), "\"another\"");
        // Who only looks at it, or stops it, keeps it from nobody who follows it.
        let looks = Waiting { awaits_task: false, ..waiting };
        assert!(matches!(looks.hear(told("own")), Heard::Nothing));
        assert_eq!(heard.try_recv().unwrap().params().unwrap().get("taskId").unwrap().raw(), "\"own\"");
    }

    #[test]
    fn a_changed_list_is_told_to_everyone_and_not_to_the_client() {
        let (waiting, mut changes) = waiting(None);
        let changed = message(&json!({ "jsonrpc": "2.0", "method": "notifications/resources/list_changed" }));
        assert!(matches!(waiting.hear(changed), Heard::Nothing));
        let server = ServerId::new("s").unwrap();
        let kinds = [crate::wire::mcp::Kind::Resource, crate::wire::mcp::Kind::ResourceTemplate];
        for kind in kinds {
            assert_eq!(changes.try_recv().unwrap(), Change::Listed(server.clone(), kind));
        }
    }

    #[test]
    fn a_server_that_asks_is_told_that_nobody_answers_and_a_ping_is_answered() {
        let ask = message(&json!({ "jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {} }));
        let reply = reply_to_server(&ask).unwrap();
        assert_eq!(error_code(&reply.body().unwrap()), Some(-32601));
        assert_eq!(reply.id().unwrap().as_str(), "\"q\"");
        let ping = message(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }));
        assert_eq!(reply_to_server(&ping).unwrap().as_bytes().as_ref(), br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }
}
