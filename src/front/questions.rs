//! Questions to legacy clients in the middle of their calls: requests of ours on the stream of the call,
//! answered by POSTs of their own.
//!
//! Decides which answer belongs to which question, and what the retry with the answers is. Refuses to know what
//! may be asked. Invariants: an answer reaches the question of its own session that waits for it, once, at whatever
//! replica that was asked; what is done with the answers is decided for whoever gave the last one, as they are
//! then; a call that nobody goes on with is given up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::count::Count;
use super::mailbox::Mailboxes;
use super::pipeline::Pipeline;
use super::session::SessionKey;
use crate::call::Request;
use crate::ids::{ParkId, PrincipalKey, ReplicaId};
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal, Resume};
use crate::wire::mcp::{Method, meta};
use crate::wire::{Edit, Json, Kind, Message, Value};

/// The questions that wait for their answers, of all sessions.
pub(super) struct Questions<P: Pipeline> {
    replica: ReplicaId,
    numbers: Count,
    open: Mutex<Open<P>>,
    /// How many rounds each principal is asked at this moment.
    rounds: Mutex<HashMap<PrincipalKey, usize>>,
}

/// An answer, and who gave it.
type Answer<P> = (Message, <P as Pipeline>::Caller);
/// Who waits for one, by session and by the id of the question.
type Open<P> = HashMap<(SessionKey, u64), Asked<P>>;
/// The call that a question is of, and the name of the question there.
type Place = (ParkId, String);

/// Who waits for one answer.
struct Asked<P: Pipeline> {
    waiting: oneshot::Sender<Answer<P>>,
    /// Where it is told how far the client is with it, if that is wanted.
    reported: Option<Place>,
}

/// A seat among the rounds of one principal; free again when it is dropped.
struct Seat<P: Pipeline>(Arc<Questions<P>>, PrincipalKey);

impl<P: Pipeline> Drop for Seat<P> {
    fn drop(&mut self) {
        let mut rounds = self.0.rounds();
        if let Some(own) = rounds.get_mut(&self.1) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                rounds.remove(&self.1);
            }
        }
    }
}

impl<P: Pipeline> Questions<P> {
    /// Those that this replica asks.
    pub(super) fn new(replica: ReplicaId) -> Self {
        Self { replica, numbers: Count::default(), open: Mutex::default(), rounds: Mutex::default() }
    }

    /// A request with an id of ours, and what waits for its answer. Its id is also the token under which its client
    /// tells how far it is, where its server wants to hear that. In a session of another replica, to which the answer
    /// will come, it names us.
    fn ask(
        self: &Arc<Self>,
        (session, is_own): (SessionKey, bool),
        (method, params): (&str, &Json),
        place: Option<Place>,
    ) -> (Message, Waiting<P>) {
        let number = self.numbers.next();
        let id = if is_own { Json::of(&number) } else { Json::of(&format!("{}/{number}", self.replica)) };
        let (sender, answer) = oneshot::channel();
        let (params, reported) = match reporting(params, &id) {
            Some(params) => (params, place),
            None => (params.clone(), None),
        };
        // Bounded by the calls of a session and the questions of one round.
        self.lock().insert((session, number), Asked { waiting: sender, reported });
        let waiting = Waiting { questions: Arc::clone(self), place: (session, number), answer };
        (Message::request(&id, method, &params), waiting)
    }

    /// The number of the question of ours that an id or a token names.
    fn number(&self, named: Value<'_>) -> Option<u64> {
        match named.as_str() {
            Some(text) => spelled(&text).filter(|(replica, _)| *replica == self.replica).map(|(_, number)| number),
            None => named.as_i64().and_then(|number| number.try_into().ok()),
        }
    }

    /// A seat for one more round: each keeps its request and all that was asked, for as long as nobody answers.
    fn enter(self: &Arc<Self>, principal: PrincipalKey) -> Option<Seat<P>> {
        let mut rounds = self.rounds();
        let own = rounds.entry(principal).or_default();
        if *own >= limit::PARKED_PER_PRINCIPAL_MAX {
            return None;
        }
        *own += 1;
        drop(rounds);
        Some(Seat(Arc::clone(self), principal))
    }

    fn rounds(&self) -> MutexGuard<'_, HashMap<PrincipalKey, usize>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer; one that nobody waits for, or that waits in another session, reaches nobody.
    pub(super) fn answered(&self, session: SessionKey, message: Message, caller: P::Caller) {
        let Some(number) = message.id_value().and_then(|id| self.number(id)) else { return };
        let asked = self.lock().remove(&(session, number));
        if let Some(asked) = asked {
            // An error only says that the call ended meanwhile.
            let _ = asked.waiting.send((message, caller));
        }
    }

    /// Where it is told how far a client is with the answer that it names by its token; nowhere, for one that nobody
    /// waits for or that waits in another session.
    pub(super) fn reported(&self, session: SessionKey, token: Value<'_>) -> Option<Place> {
        let number = self.number(token)?;
        self.lock().get(&(session, number))?.reported.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Open<P>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question that waits; dropping it lets later answers reach nobody.
struct Waiting<P: Pipeline> {
    questions: Arc<Questions<P>>,
    place: (SessionKey, u64),
    answer: oneshot::Receiver<Answer<P>>,
}

impl<P: Pipeline> Drop for Waiting<P> {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.place);
    }
}

/// What is needed to ask the client of a call, and to go on with the call afterwards.
pub(super) struct Interview<P: Pipeline> {
    pub(super) pipeline: Arc<P>,
    /// Who began the call, or who has answered since.
    pub(super) caller: P::Caller,
    pub(super) request: Request,
    pub(super) questions: Arc<Questions<P>>,
    pub(super) mailboxes: Arc<Mailboxes<P>>,
    /// The session, and whether it was begun here.
    pub(super) session: (SessionKey, bool),
}

/// One round of questions.
pub(super) struct Round<P: Pipeline> {
    /// What the client must still be sent.
    unsent: VecDeque<Message>,
    waiting: VecDeque<(String, bool, Waiting<P>)>,
    /// `requestState`, to be sent back.
    state: Json,
    /// The answers so far: members of an object.
    answers: String,
    until: Instant,
    held: Held<P>,
    _seat: Seat<P>,
}

/// A call that waits upstream, or goes on there as a task; given up when this is dropped.
struct Held<P: Pipeline> {
    pipeline: Arc<P>,
    parked: Option<ParkId>,
    /// Who was asked, the request, and what the question said it is to come back with.
    asked: Option<Box<(P::Caller, Request, Json)>>,
}

impl<P: Pipeline> Drop for Held<P> {
    fn drop(&mut self) {
        if let Some(parked) = self.parked {
            self.pipeline.abandon(parked);
        }
        // Outside of a runtime everything ends anyway.
        if let Some(asked) = self.asked.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (caller, request, state) = *asked;
            if let Some(request) = retry(&request, &state, "") {
                runtime.spawn(Arc::clone(&self.pipeline).give_up(caller, request));
            }
        }
    }
}

impl<P: Pipeline> Interview<P> {
    /// Begins a round with what an `input_required` result asks.
    ///
    /// # Errors
    /// The end of the call where its principal is asked too much at once.
    pub(super) fn begin(&self, result: &Json, resume: Resume) -> Result<Round<P>, Outcome> {
        let seat = self.questions.enter(P::principal(&self.caller));
        let state = result.value().as_object().and_then(|object| object.get("requestState"));
        let state = state.map(|state| result.share(state));
        let asked = state.clone().filter(|_| self.request.method == Method::CallTool);
        // The request shares its bytes with the one that is kept anyway.
        let asked = asked.map(|state| Box::new((self.caller.clone(), self.request.clone(), state)));
        let held = Held { pipeline: Arc::clone(&self.pipeline), parked: resume.parked, asked };
        let seat = seat.ok_or_else(|| self.refused(Reason::InputLimited))?;
        let mut round = Round {
            unsent: VecDeque::new(),
            waiting: VecDeque::new(),
            state: state.unwrap_or_else(|| Json::of(&())),
            answers: String::new(),
            until: Instant::now() + resume.within,
            held,
            _seat: seat,
        };
        let Some(object) = result.value().as_object() else { return Ok(round) };
        let requests = object.get("inputRequests").and_then(Value::as_object);
        for (key, request) in requests.into_iter().flat_map(|requests| requests.members()) {
            let Some(request) = request.as_object() else { continue };
            let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
            let params = question(&method, request.get("params"));
            let place = resume.parked.map(|parked| (parked, key.clone().into_owned()));
            let (message, waiting) = self.questions.ask(self.session, (&*method, &params), place);
            round.unsent.push_back(message);
            round.waiting.push_back((key.into_owned(), method == "elicitation/create", waiting));
        }
        Ok(round)
    }

    /// The call became a task that its client follows: while its session is heard for, that hears of the task too.
    pub(super) fn ended(&self, outcome: &Outcome) {
        let Outcome::Complete(result) = outcome else { return };
        let params = self.request.message.params();
        if self.request.method != Method::CallTool || params.is_none_or(|params| params.get("task").is_none()) {
            return;
        }
        let task = result.value().as_object().and_then(|result| result.get("task")).and_then(Value::as_object);
        let id = task.and_then(|task| task.get("taskId")).and_then(Value::as_str);
        if let Some((id, mailbox)) = id.zip(self.mailboxes.find(self.session.0)) {
            mailbox.follow_task(id.into_owned());
        }
    }

    /// The end of a call that nothing behind the front has: counted and recorded here.
    fn refused(&self, reason: Reason) -> Outcome {
        self.pipeline.refused(&self.caller, reason);
        Outcome::Refused(Refusal::new(reason))
    }
}

/// A request once more, with answers to what it was asked.
fn retry(request: &Request, state: &Json, answers: &str) -> Option<Request> {
    let message = &request.message;
    let answers = Edit::Set("inputResponses", Json::joined(format!("{{{answers}}}")));
    let params = message.params()?.edited(&[answers, Edit::Set("requestState", state.clone())]);
    let message = Message::request(&message.id()?, &message.method(), &params);
    Some(Request { message, ..request.clone() })
}

impl<P: Pipeline> Round<P> {
    /// The next message for the client.
    pub(super) fn next_unsent(&mut self) -> Option<Message> {
        self.unsent.pop_front()
    }

    /// Waits for all answers; the retry, or the end of the call. Cancel-safe.
    pub(super) async fn answered(&mut self, interview: &mut Interview<P>) -> Result<Request, Outcome> {
        while let Some((key, elicited, waiting)) = self.waiting.front_mut() {
            let Ok(answer) = tokio::time::timeout_at(self.until, &mut waiting.answer).await else {
                return Err(interview.refused(Reason::InputExpired));
            };
            let (answer, caller) = answer.map_err(|_| interview.refused(Reason::InputDeclined))?;
            interview.caller = caller;
            let result = match (answer.kind(), answer.body()) {
                (Kind::Result, Some(result)) => result,
                // A legacy server that waits gets the very error.
                (Kind::Error, Some(error)) if self.held.parked.is_some() => {
                    Json::joined(format!("{{\"{}\":{}}}", meta::ANSWER_ERROR, error.as_str()))
                }
                // Whoever cannot show a form has given no answer to it.
                _ if *elicited => Json::of(&serde_json::json!({ "action": "cancel" })),
                _ => return Err(interview.refused(Reason::InputDeclined)),
            };
            if !self.answers.is_empty() {
                self.answers.push(',');
            }
            self.answers.push_str(Json::of(key.as_str()).as_str());
            self.answers.push(':');
            self.answers.push_str(result.as_str());
            self.waiting.pop_front();
        }
        let retry = retry(&interview.request, &self.state, &self.answers);
        let retry = retry.ok_or_else(|| interview.refused(Reason::Internal))?;
        (self.held.parked, self.held.asked) = (None, None);
        Ok(retry)
    }
}

/// The replica that asked what a message answers, or tells progress on, where what that goes by says so.
pub(super) fn asked_at(message: &Message) -> Option<ReplicaId> {
    let named = match message.kind() {
        Kind::Result | Kind::Error => message.id_value(),
        _ if message.method() == "notifications/progress" => message.params()?.get(meta::PROGRESS_TOKEN),
        _ => None,
    };
    spelled(&named?.as_str()?).map(|(replica, _)| replica)
}

/// A replica, and the number of a question that it asked in a session of another one.
fn spelled(text: &str) -> Option<(ReplicaId, u64)> {
    let (replica, number) = text.split_once('/')?;
    Some((replica.parse().ok()?, number.parse().ok()?))
}

/// The parameters of a question whose server wants to hear how far its client is, under a token of ours.
fn reporting(params: &Json, token: &Json) -> Option<Json> {
    let params = params.value().as_object()?;
    let own = params
        .get("_meta")?
        .as_object()
        .filter(|own| own.get(meta::PROGRESS_TOKEN).is_some_and(|token| !token.is_null()))?;
    let own = own.edited(&[Edit::Set(meta::PROGRESS_TOKEN, token.clone())]);
    Some(params.edited(&[Edit::Set("_meta", own)]))
}

/// The parameters as a legacy client expects them.
fn question(method: &str, params: Option<Value<'_>>) -> Json {
    let empty = Json::of(&serde_json::Map::new());
    let Some(params) = params.and_then(Value::as_object) else { return empty };
    let is_url = method == "elicitation/create" && params.get("mode").and_then(Value::as_str).as_deref() == Some("url");
    if !is_url {
        return params.edited(&[]);
    }
    // The modern era has no such id; 2025-11-25 requires one.
    params.edited(&[Edit::Default("elicitationId", Json::of(&ParkId::new()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::fixture::Scripted;
    use crate::wire::Source;

    fn answer(id: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        Message::parse(text, Source::Client).unwrap()
    }

    fn empty() -> Json {
        Json::of(&serde_json::Map::new())
    }

    fn questions() -> Arc<Questions<Scripted>> {
        Arc::new(Questions::new(ReplicaId::new()))
    }

    /// The id of a question as it stands there, and the one after it.
    fn ids(question: &Message) -> (String, String) {
        let id = question.id().unwrap();
        let next = (id.value().as_i64().unwrap() + 1).to_string();
        (id.as_str().to_owned(), next)
    }

    #[test]
    fn how_far_an_answer_is_is_told_under_the_id_of_its_question_while_that_is_open() {
        let questions = questions();
        let (mine, theirs) = (SessionKey::of_test(1), SessionKey::of_test(2));
        let place = (ParkId::new(), "sampling".to_owned());
        let wanted = r#"{"x":1.0,"_meta":{"k":1.0,"progressToken":"theirs"}}"#;
        let wanted = Json::parse(wanted, Source::Upstream).unwrap();
        let asked = ("sampling/createMessage", &wanted);
        let (message, _waiting) = questions.ask((mine, true), asked, Some(place.clone()));
        let (id, other) = ids(&message);
        let body = message.body().unwrap();
        assert_eq!(body.as_str(), format!(r#"{{"x":1.0,"_meta":{{"k":1.0,"progressToken":{id}}}}}"#));
        let reported =
            |session, token: &str| questions.reported(session, Json::parse(token, Source::Client).unwrap().value());
        assert_eq!(reported(mine, &id), Some(place.clone()));
        assert_eq!((reported(theirs, &id), reported(mine, &other)), (None, None));
        questions.answered(mine, answer(&id), "ann".to_owned());
        assert_eq!(reported(mine, &id), None, "it was answered");
        let (message, _waiting) = questions.ask((mine, true), ("roots/list", &empty()), Some(place.clone()));
        assert_eq!(reported(mine, &ids(&message).0), None, "nobody wants it");
        let (message, _waiting) = questions.ask((theirs, false), asked, Some(place.clone()));
        let token = message.params().unwrap().get("_meta").unwrap().as_object().unwrap().get("progressToken").unwrap();
        assert_eq!(token.raw(), message.id().unwrap().as_str());
        assert_eq!(reported(theirs, token.raw()), Some(place));
    }

    #[test]
    fn an_answer_reaches_its_own_question_once() {
        let questions = questions();
        let ann = || "ann".to_owned();
        let (mine, theirs) = (SessionKey::of_test(1), SessionKey::of_test(2));
        let (message, mut waiting) = questions.ask((mine, true), ("roots/list", &empty()), None);
        let (id, other) = ids(&message);
        questions.answered(theirs, answer(&id), ann());
        questions.answered(mine, answer(&other), ann());
        assert!(waiting.answer.try_recv().is_err(), "a foreign answer reached it");
        questions.answered(mine, answer(&id), ann());
        assert!(waiting.answer.try_recv().is_ok());
        questions.answered(mine, answer(&id), ann());
        assert!(questions.lock().is_empty());
        drop(waiting);
        let (_, waiting) = questions.ask((mine, true), ("roots/list", &empty()), None);
        drop(waiting);
        assert!(questions.lock().is_empty(), "a question that nobody waits for is forgotten");
    }

    #[test]
    fn a_question_in_a_session_of_another_replica_says_who_asks_and_is_answered_under_that_name_alone() {
        let (asking, other) = (questions(), questions());
        let session = SessionKey::of_test(1);
        let (message, mut waiting) = asking.ask((session, false), ("roots/list", &empty()), None);
        let id = message.id().unwrap();
        assert_eq!(asked_at(&answer(id.as_str())), Some(asking.replica));
        let number = id.value().as_str().unwrap().split_once('/').unwrap().1.to_owned();
        // The same number, asked elsewhere.
        asking.answered(session, answer(&format!("\"{}/{number}\"", other.replica)), "ann".to_owned());
        assert!(waiting.answer.try_recv().is_err());
        asking.answered(session, answer(id.as_str()), "ann".to_owned());
        assert!(waiting.answer.try_recv().is_ok());

        let message = |text: String| Message::parse(text, Source::Client).unwrap();
        let progress = |method: &str| {
            let params = format!(r#"{{"progressToken":{},"progress":1}}"#, id.as_str());
            message(format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{params}}}"#))
        };
        assert_eq!(asked_at(&progress("progress")), Some(asking.replica));
        let error = r#""error":{"code":-1,"message":"no"}"#;
        assert_eq!(
            asked_at(&message(format!(r#"{{"jsonrpc":"2.0","id":{},{error}}}"#, id.as_str()))),
            Some(asking.replica)
        );
        let call = message(format!(r#"{{"jsonrpc":"2.0","id":{},"method":"ping"}}"#, id.as_str()));
        for nobodys in [progress("other"), call, answer("7"), answer("\"7\""), answer("\"x/7\"")] {
            assert_eq!(asked_at(&nobodys), None);
        }
    }

    #[tokio::test]
    async fn what_is_kept_to_give_a_call_up_is_no_second_copy_of_its_arguments() {
        use crate::call::{ClientFacts, Endpoint};
        use crate::wire::mcp::Version;
        let text =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"long":"text"}}}"#;
        let client = ClientFacts {
            version: Version::V2025_11_25,
            capabilities: Json::of(&serde_json::json!({})),
            info: None,
            log_level: None,
        };
        let request = Request {
            message: Message::parse(text, Source::Client).unwrap(),
            method: Method::CallTool,
            endpoint: Endpoint::Merged,
            client,
            header_parameters: Vec::new(),
            headers: Vec::new(),
            peer: std::net::IpAddr::from([127, 0, 0, 1]),
            mandate: None,
            via: None,
            last_words: None,
        };
        let interview = Interview {
            pipeline: Arc::new(Scripted::new([])),
            caller: "ann".to_owned(),
            request,
            questions: questions(),
            mailboxes: Arc::default(),
            session: (SessionKey::of_test(1), true),
        };
        let asked = Json::of(&serde_json::json!({ "requestState": "s", "inputRequests": {} }));
        let resume = Resume { parked: None, within: std::time::Duration::from_secs(1) };
        let round = interview.begin(&asked, resume).unwrap_or_else(|_| panic!("it is asked"));
        let kept = round.held.asked.as_ref().unwrap().1.message.as_bytes().as_ptr();
        assert_eq!(kept, interview.request.message.as_bytes().as_ptr());
    }

    #[test]
    fn a_page_gets_the_id_that_older_clients_require() {
        let params = |text: &str| Json::parse(text, Source::Upstream).unwrap();
        let url = question("elicitation/create", Some(params(r#"{"mode":"url","url":"https://x"}"#).value()));
        assert!(url.as_str().contains("elicitationId"), "{}", url.as_str());
        let kept = r#"{"mode":"url","elicitationId":"e"}"#;
        assert_eq!(question("elicitation/create", Some(params(kept).value())).as_str(), kept);
        assert_eq!(
            question("elicitation/create", Some(params(r#"{"mode":"form"}"#).value())).as_str(),
            r#"{"mode":"form"}"#
        );
        assert_eq!(question("roots/list", None).as_str(), "{}");
    }
}
