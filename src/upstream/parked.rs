//! Calls that wait in the middle for what their legacy server asked: the exchange stays open meanwhile.
//!
//! Decides how many may wait, for whom and how long. Knows nothing of what is asked. Invariant: only the
//! principal whose call it is goes on with it, once; one that nobody goes on with is cancelled upstream.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Access;
use super::drive::Pause;
use super::exchange::{Event, Exchange, Opened, Stream};
use super::link::Link;
use crate::ids::{ParkId, PrincipalKey, ProcessId};
use crate::limit;
use crate::outcome::{Failure, Origin, Outcome, Reason, Refusal, Resume};
use crate::wire::mcp::meta;
use crate::wire::{Askable, Edit, InputKind, Json, Message, Value};

/// What a legacy server asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The id that the server gave it.
    id: Json,
    kind: InputKind,
    params: Option<Json>,
}

impl Question {
    /// The question that a request of a server is, if it is one that may be asked here.
    pub(super) fn of(request: &Message, askable: Askable) -> Option<Self> {
        let kind = InputKind::of(&request.method(), request.params()).filter(|kind| askable.has(*kind))?;
        Some(Self { id: request.id()?, kind, params: request.body() })
    }

    /// Its name where it is the only one of its kind in a result.
    const fn word(&self) -> &'static str {
        match self.kind {
            InputKind::Form | InputKind::Url => "elicitation",
            InputKind::Sampling | InputKind::SamplingWithTools => "sampling",
            InputKind::Roots => "roots",
        }
    }

    /// How far its client is with the answer, under the token that the server gave for that: numbers, and none of the words
    /// beside them, which no rule has seen and no record has.
    fn report(&self, said: &Json) -> Option<Message> {
        let params = self.params.as_ref()?;
        let own = params.value().as_object()?.get("_meta")?.as_object()?;
        let token = own.get(meta::PROGRESS_TOKEN).filter(|token| !token.is_null())?;
        let said = said.value().as_object()?;
        let number = |name: &str| {
            let number = said.get(name).filter(|number| number.is_number())?.raw();
            Some(number).filter(|number| number.len() <= limit::PROGRESS_NUMBER_BYTES_MAX)
        };
        let mut told = format!(r#"{{"{}":{},"progress":{}"#, meta::PROGRESS_TOKEN, token.raw(), number("progress")?);
        if let Some(total) = number("total") {
            let _ = write!(told, r#","total":{total}"#);
        }
        told.push('}');
        Some(Message::notification("notifications/progress", Some(&Json::joined(told))))
    }

    /// The answer as a legacy server expects it, if there is one under that name.
    fn answer(&self, key: &str, answers: &Json) -> Option<Message> {
        let answer = answers.value().as_object()?.get(key)?.as_object()?;
        // A legacy client may refuse with an error, which only a legacy server understands.
        if let Some(error) = answer.get(meta::ANSWER_ERROR).filter(|error| error.as_object().is_some()) {
            return Some(Message::error(Some(&self.id), &error.to_json()));
        }
        let mut edits = vec![Edit::Remove("resultType")];
        if let Some(own) = answer.get("_meta").and_then(Value::as_object) {
            edits.push(Edit::Set("_meta", own.edited(&[Edit::RemovePrefix(meta::OWN_PREFIX)])));
        }
        Some(Message::result(&self.id, &answer.edited(&edits)))
    }
}

/// What a server asked at once, each question under a name of ours: its own id says nothing to a client.
#[derive(Debug)]
pub(super) struct Questions(Vec<(String, Question)>);

impl Questions {
    fn of(questions: Vec<Question>) -> Self {
        let mut named: Vec<(String, Question)> = Vec::with_capacity(questions.len());
        for question in questions {
            let before = named.iter().filter(|(_, other)| other.word() == question.word()).count();
            let key = match before {
                0 => question.word().to_owned(),
                before => format!("{}-{}", question.word(), before + 1),
            };
            named.push((key, question));
        }
        Self(named)
    }

    /// The questions as a modern server would ask them.
    fn result(&self) -> Json {
        let mut text = String::from(r#"{"resultType":"input_required","inputRequests":{"#);
        for (number, (key, question)) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            let _ = write!(text, r#"{separator}"{key}":{{"method":"{}""#, question.kind.method());
            if let Some(params) = &question.params {
                let _ = write!(text, r#","params":{}"#, params.as_str());
            }
            text.push('}');
        }
        text.push_str("}}");
        Json::joined(text)
    }

    /// The answers that are there, and what has to be asked again.
    fn answered(self, answers: &Json) -> (Vec<Message>, Self) {
        let (mut said, mut left) = (Vec::new(), Vec::new());
        for (key, question) in self.0 {
            match question.answer(&key, answers) {
                Some(answer) => said.push(answer),
                None => left.push((key, question)),
            }
        }
        (said, Self(left))
    }
}

/// The way back to a server that asks.
pub(super) trait Replies: Send + Sync + 'static {
    /// Says it with what was granted for saying it, and goes on with that; answers whether it was taken.
    fn reply<'a>(&'a self, message: &'a Message, access: &'a Access) -> BoxFuture<'a, bool>;

    /// Says something that has no answer, with what the call has; that it is not taken is no failure of the call.
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, bool>;
}

/// What is needed to ask within one exchange.
pub(super) struct Asker {
    pub(super) askable: Askable,
    pub(super) pause: Arc<Pause>,
    principal: PrincipalKey,
    /// The server's own id of the task whose result is waited for, and the process that has it.
    task: Option<(String, Option<ProcessId>)>,
    link: Arc<Link>,
    replies: Box<dyn Replies>,
}

impl Asker {
    pub(super) fn new(
        askable: Askable,
        principal: PrincipalKey,
        link: &Arc<Link>,
        replies: impl Replies,
        pause: Pause,
        task: Option<(String, Option<ProcessId>)>,
    ) -> Arc<Self> {
        let link = Arc::clone(link);
        Arc::new(Self { askable, principal, task, link, replies: Box::new(replies), pause: Arc::new(pause) })
    }
}

impl Asker {
    /// Lets an exchange wait; the end of its leg.
    pub(super) fn park(self: Arc<Self>, stream: Stream, questions: Vec<Question>) -> Outcome {
        let lot = Arc::clone(&self.link.lot);
        lot.park(stream, &self, Questions::of(questions))
    }

    /// Tells the server something about what it asked.
    pub(super) async fn tell(&self, message: &Message) {
        self.replies.tell(message).await;
    }
}

/// A task that may ask: the server's own id of it, and the process that has it.
pub(super) type Asked<'a> = (&'a str, Option<ProcessId>);

/// The calls that wait.
#[derive(Default)]
pub(super) struct Lot {
    parked: Mutex<HashMap<ParkId, Parked>>,
    /// Whenever one more waits.
    more: watch::Sender<()>,
}

struct Parked {
    stream: Stream,
    asker: Arc<Asker>,
    questions: Questions,
    /// Fires when it waits no more.
    gone: CancellationToken,
    _fires: DropGuard,
}

impl Parked {
    fn is_of(&self, principal: PrincipalKey, link: &Arc<Link>) -> bool {
        self.asker.principal == principal && Arc::ptr_eq(&self.asker.link, link)
    }
}

impl std::fmt::Debug for Lot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Lot({} calls)", self.lock().len())
    }
}

impl Lot {
    /// Lets an exchange wait; the end of this leg.
    fn park(self: &Arc<Self>, stream: Stream, asker: &Arc<Asker>, questions: Questions) -> Outcome {
        let within = asker.link.config.health.input_timeout;
        let id = ParkId::new();
        let mut parked = self.lock();
        let own = parked.values().filter(|other| other.asker.principal == asker.principal).count();
        if own >= limit::PARKED_PER_PRINCIPAL_MAX || parked.len() >= limit::PARKED_MAX {
            drop(parked);
            // Dropping the stream cancels the call.
            return Outcome::Failed(Failure::after(Reason::InputLimited, "too many calls wait for input"));
        }
        let result = questions.result();
        // Waiting is no work: another call may take the place.
        asker.pause.release();
        asker.pause.told();
        let gone = CancellationToken::new();
        let fires = gone.clone().drop_guard();
        parked.insert(id, Parked { stream, asker: Arc::clone(asker), questions, gone: gone.clone(), _fires: fires });
        drop(parked);
        self.more.send_replace(());
        tokio::spawn(expire(Arc::downgrade(self), id, within, gone));
        Outcome::InputRequired { origin: Origin::Upstream, result, resume: Resume { parked: Some(id), within } }
    }

    /// Whether a call of that principal waits at that server, as it is configured now.
    fn has(&self, id: ParkId, principal: PrincipalKey, link: &Arc<Link>) -> bool {
        self.lock().get(&id).is_some_and(|found| found.is_of(principal, link))
    }

    /// Takes it.
    fn take(&self, id: ParkId, principal: PrincipalKey, link: &Arc<Link>) -> Option<Parked> {
        let mut parked = self.lock();
        let fits = parked.get(&id).is_some_and(|found| found.is_of(principal, link));
        if fits { parked.remove(&id) } else { None }
    }

    /// What a task asks of that principal, and what waits for the answer.
    pub(super) fn of_task(&self, principal: PrincipalKey, link: &Arc<Link>, task: Asked<'_>) -> Option<(ParkId, Json)> {
        let parked = self.lock();
        let mut fitting = parked.iter().filter(|(_, found)| {
            let own = found.asker.task.as_ref().map(|(task, process)| (task.as_str(), *process));
            found.is_of(principal, link) && own == Some(task)
        });
        fitting.next().map(|(id, found)| (*id, found.questions.result()))
    }

    /// Waits until a task asks something of that principal.
    pub(super) async fn until_asked(
        &self,
        principal: PrincipalKey,
        link: &Arc<Link>,
        task: Asked<'_>,
    ) -> (ParkId, Json) {
        let mut more = self.more.subscribe();
        loop {
            more.borrow_and_update();
            if let Some(asked) = self.of_task(principal, link, task) {
                return asked;
            }
            if more.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What a server is to be told of how far its client is with the answer to the question of that name, while it waits.
    pub(super) fn reported(
        &self,
        principal: PrincipalKey,
        (id, key): (ParkId, &str),
        said: &Json,
    ) -> Option<(Arc<Asker>, Message)> {
        let parked = self.lock();
        let found = parked.get(&id).filter(|found| found.asker.principal == principal)?;
        let (_, question) = found.questions.0.iter().find(|(name, _)| name == key)?;
        Some((Arc::clone(&found.asker), question.report(said)?))
    }

    /// Gives a waiting call up, which cancels it upstream.
    pub(super) fn abandon(&self, id: ParkId) {
        let abandoned = self.lock().remove(&id);
        drop(abandoned);
    }

    /// Fires when that call waits no more; `None` if it does not wait.
    pub(super) fn until_gone(&self, id: ParkId) -> Option<CancellationToken> {
        self.lock().get(&id).map(|found| found.gone.clone())
    }

    /// Gives up every call that waits at a server which is given up.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let mut forgotten = Vec::new();
        let mut parked = self.lock();
        let ids: Vec<_> =
            parked.iter().filter(|(_, found)| Arc::ptr_eq(&found.asker.link, link)).map(|(id, _)| *id).collect();
        forgotten.extend(ids.iter().filter_map(|id| parked.remove(id)));
        drop(parked);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ParkId, Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn expire(lot: Weak<Lot>, id: ParkId, within: std::time::Duration, gone: CancellationToken) {
    // One that was answered must leave nothing behind that waits for its end.
    if tokio::time::timeout(within, gone.cancelled()).await.is_ok() {
        return;
    }
    if let Some(lot) = lot.upgrade() {
        lot.abandon(id);
    }
}

/// Goes on with a call that waits: the answer is said to the server, and what it says goes on.
pub(super) async fn resume(
    server: &super::server::Server,
    id: ParkId,
    access: &Access,
    answers: &Json,
    progress_token: Option<Json>,
) -> Opened {
    match answered(server, id, access, answers).await {
        Ok(stream) => Opened::Streaming(stream.reporting_as(progress_token)),
        Err(outcome) => Opened::Done(outcome),
    }
}

/// Answers what a task asks, for a client that does not wait for the task's end with it. What waits for that goes on
/// for a moment: cancelled at once, it might be gone before the server has looked at the answer, and it may ask again.
pub(super) async fn answer(server: &super::server::Server, id: ParkId, access: &Access, answers: &Json) -> Opened {
    let taken = Outcome::Complete(Json::of(&serde_json::Map::new()));
    match answered(server, id, access, answers).await {
        Ok(stream) => {
            let mut rest = Exchange::opening(Box::pin(std::future::ready(Opened::Streaming(stream))));
            tokio::spawn(tokio::time::timeout(limit::TASK_QUESTION_WAIT, async move {
                while !matches!(rest.next().await, Event::Done(_)) {}
            }));
            Opened::Done(taken)
        }
        // There may be answers to something else among them, which is no failure.
        Err(Outcome::InputRequired { .. }) => Opened::Done(taken),
        Err(outcome) => Opened::Done(outcome),
    }
}

/// Says the answer; the stream that goes on, or the end.
async fn answered(
    server: &super::server::Server,
    id: ParkId,
    access: &Access,
    answers: &Json,
) -> Result<Stream, Outcome> {
    let link = &server.link;
    let expired = || Outcome::Refused(Refusal::new(Reason::InputExpired));
    let principal = access.principal.filter(|principal| link.lot.has(id, *principal, link)).ok_or_else(expired)?;
    // While it still waits: whoever finds no place now can come back with the same answers. The call itself is under
    // way at the server all the time.
    let place = server.place().await;
    let place = place.map_err(|failure| Outcome::Failed(Failure { may_have_acted: true, ..failure }))?;
    let Parked { stream, asker, questions, .. } = link.lot.take(id, principal, link).ok_or_else(expired)?;
    let (said, left) = questions.answered(answers);
    if left.0.is_empty() {
        asker.pause.restore(place);
    }
    for answer in said {
        // Before it hears the answer, because it may ask again at once.
        asker.pause.answered();
        if !asker.replies.reply(&answer, access).await {
            let failure = Failure::after(Reason::UpstreamClosed, "it did not take the answer to what it asked");
            return Err(Outcome::Failed(failure));
        }
    }
    // What was not answered is asked again.
    if left.0.is_empty() { Ok(stream) } else { Err(link.lot.park(stream, &asker, left)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn of_progress_on_an_answer_two_numbers_are_told_and_no_words() {
        let json = |text: &str| Json::parse(text, Source::Client).unwrap();
        let asked = |params: &str| Question { id: json("1"), kind: InputKind::Form, params: Some(json(params)) };
        let told = |question: &Question, said: &str| {
            let told = question.report(&json(said))?;
            Some(told.body().unwrap().as_str().to_owned())
        };
        let wants = asked(r#"{"_meta":{"progressToken":"far\u0031"}}"#);
        let cases = [
            (
                r#"{"x":["secret"],"progressToken":7,"progress":0.10,"total":1e400,"message":"secret","_meta":{"k":1}}"#.to_owned(),
                Some(r#"{"progressToken":"far\u0031","progress":0.10,"total":1e400}"#),
            ),
            (r#"{"progress":2,"total":"secret"}"#.to_owned(), Some(r#"{"progressToken":"far\u0031","progress":2}"#)),
            (r#"{"progress":"secret"}"#.to_owned(), None),
            (r#"{"message":"secret"}"#.to_owned(), None),
            (format!(r#"{{"progress":{}}}"#, "7".repeat(limit::PROGRESS_NUMBER_BYTES_MAX + 1)), None),
        ];
        for (said, expected) in cases {
            assert_eq!(told(&wants, &said).as_deref(), expected, "{said}");
        }
        assert!(told(&wants, &format!(r#"{{"progress":{}}}"#, "7".repeat(limit::PROGRESS_NUMBER_BYTES_MAX))).is_some());
        for none in ["{}", r#"{"_meta":{"progressToken":null}}"#] {
            assert_eq!(told(&asked(none), r#"{"progress":2}"#), None, "{none}");
        }
    }
}
