//! One child process that speaks MCP on its standard streams, and the requests that it works on.
//!
//! Decides which line belongs to which request. Knows nothing of why the process was started.
//! Invariant: one message is one line, both ways; when the process ends, every request that waits gets
//! its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Heard, Waiting, ambiguous, reply_to_server};
use super::drive::Answers;
use super::exchange::{Event, Signal};
use super::gate::Permit;
use super::legacy::cancelled;
use super::lines::{Line, Lines};
use super::link::Link;
use super::parked::{Question, Replies};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, meta};
use crate::wire::{Askable, InputKind, Kind, Message, Source, Value};

/// One child process.
#[derive(Debug)]
pub(super) struct Process {
    link: Arc<Link>,
    requests: Mutex<Requests>,
    writes: mpsc::Sender<Bytes>,
    /// It shall end.
    stop: CancellationToken,
    /// It was we who wanted that, not something that it did.
    dismissed: AtomicBool,
    /// It has ended, and so has everything that it started.
    pub(super) over: CancellationToken,
    /// Updates of resources, which name no request.
    pub(super) updates: broadcast::Sender<Message>,
}

#[derive(Debug, Default)]
struct Requests {
    open: HashMap<i64, Open>,
    /// Why there can be no more.
    closed: Option<Failure>,
    noise_lines: usize,
}

#[derive(Debug)]
struct Open {
    waiting: Waiting,
    events: mpsc::Sender<Signal>,
    /// What may be asked within it; `None` for what is no call.
    askable: Option<Askable>,
    asked: usize,
}

/// The answers to one request. Dropping it tells the process that nobody waits.
pub(super) struct ProcessAnswers<P: Holder> {
    process: P,
    events: mpsc::Receiver<Signal>,
    id: i64,
    done: bool,
    _permit: Option<Permit>,
}

/// Whatever keeps a process while a request is open.
pub(super) trait Holder: Send + 'static {
    fn process(&self) -> &Process;
}

impl Holder for Arc<Process> {
    fn process(&self) -> &Process {
        self
    }
}

impl Process {
    /// Takes a started child over: its streams, its end.
    pub(super) fn adopt(link: Arc<Link>, mut child: Child) -> Result<Arc<Self>, Failure> {
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::before(Reason::Internal, "a child was started without pipes"));
        };
        let (writes, written) = mpsc::channel(limit::PROCESS_WRITES_QUEUED_MAX);
        let process = Arc::new(Self {
            link,
            requests: Mutex::default(),
            writes,
            stop: CancellationToken::new(),
            dismissed: AtomicBool::new(false),
            over: CancellationToken::new(),
            updates: broadcast::Sender::new(limit::EXCHANGE_EVENTS_MAX),
        });
        tokio::spawn(write(Arc::clone(&process), stdin, written));
        tokio::spawn(read(Arc::clone(&process), stdout));
        tokio::spawn(report(process.link.config.id.clone(), stderr));
        tokio::spawn(guard(Arc::clone(&process), child));
        Ok(process)
    }

    /// Sends a request; its answers come to whoever holds what is returned.
    pub(super) fn ask<P: Holder>(
        holder: P,
        waiting: Waiting,
        message: &Message,
        permit: Option<Permit>,
        askable: Option<Askable>,
    ) -> Result<ProcessAnswers<P>, Failure> {
        let process = holder.process();
        // One place more than notifications may take, so that the end always has one.
        let (sender, events) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX + 1);
        let id = waiting.id;
        let mut requests = process.lock();
        if let Some(failure) = &requests.closed {
            return Err(Failure { may_have_acted: false, ..failure.clone() });
        }
        process
            .say(message)
            .map_err(|()| Failure::before(Reason::UpstreamBusy, "the process does not read its input"))?;
        requests.open.insert(id, Open { waiting, events: sender, askable, asked: 0 });
        drop(requests);
        Ok(ProcessAnswers { process: holder, events, id, done: false, _permit: permit })
    }

    /// Queues one line.
    pub(super) fn say(&self, message: &Message) -> Result<(), ()> {
        let bytes = message.as_bytes();
        let mut line = BytesMut::with_capacity(bytes.len() + 1);
        line.put_slice(bytes);
        line.put_u8(b'\n');
        self.writes.try_send(line.freeze()).map_err(|_| ())
    }

    /// Why it can take no more requests.
    pub(super) fn closed(&self) -> Option<Failure> {
        self.lock().closed.clone()
    }

    /// Ends it: standard input first, then SIGTERM, then SIGKILL. Waits until it is gone.
    pub(super) async fn end(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.close(&Failure::after(Reason::UpstreamClosed, "the process is being stopped"));
        self.stop.cancel();
        self.over.cancelled().await;
    }

    /// Whether we ended it.
    pub(super) fn was_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Begins to end it, because of what it did.
    fn give_up(&self, failure: &Failure) {
        self.close(failure);
        self.stop.cancel();
    }

    /// Ends every request that waits, and takes no more.
    fn close(&self, failure: &Failure) {
        let mut requests = self.lock();
        requests.closed.get_or_insert_with(|| failure.clone());
        for (_, open) in requests.open.drain() {
            let _ = open.events.try_send(failed(failure.clone()));
        }
    }

    fn hear_line(&self, line: Vec<u8>) {
        let shown = line.trim_ascii();
        if shown.is_empty() {
            return;
        }
        if !shown.starts_with(b"{") {
            return self.hear_noise();
        }
        let id = salvaged_id(shown);
        match Message::parse(line, Source::Upstream) {
            Ok(message) => self.hear(message),
            Err(error) => {
                self.link.hub.noise();
                let failure = Failure::after(Reason::UpstreamGarbage, format!("a line is no message: {error}"));
                self.fail(id, &failure);
            }
        }
    }

    /// A banner or a stray print; common, and no reason to lose a call.
    fn hear_noise(&self) {
        self.link.hub.noise();
        let mut requests = self.lock();
        requests.noise_lines += 1;
        if requests.noise_lines == limit::PROCESS_NOISE_LINES_MAX {
            drop(requests);
            let detail = "its standard output is full of lines that are no messages";
            self.give_up(&Failure::after(Reason::UpstreamGarbage, detail));
        }
    }

    /// Ends the request that an unreadable line answers, or all if that cannot be told.
    fn fail(&self, id: Option<i64>, failure: &Failure) {
        let mut requests = self.lock();
        let failing: Vec<i64> = match id {
            Some(id) => vec![id],
            None => requests.open.keys().copied().collect(),
        };
        for open in failing.iter().filter_map(|id| requests.open.remove(id)) {
            let _ = open.events.try_send(failed(failure.clone()));
        }
    }

    fn hear(&self, message: Message) {
        let mut requests = self.lock();
        let id = match message.kind() {
            Kind::Result | Kind::Error => message.id_value().and_then(Value::as_i64),
            Kind::Request => {
                drop(requests);
                return self.answer(&message);
            }
            Kind::Notification => match addressee(&message) {
                Addressee::Request(id) => Some(id),
                Addressee::Everyone => {
                    drop(requests);
                    self.link.hub.list_changed(&message.method());
                    return;
                }
                Addressee::Subscribers => {
                    drop(requests);
                    // An error only says that nobody has subscribed.
                    let _ = self.updates.send(message);
                    return;
                }
                // It names no request, so it belongs to the only one, and is never guessed.
                Addressee::Unnamed => match requests.open.len() {
                    1 => requests.open.keys().next().copied(),
                    _ => return self.link.hub.notification_dropped(),
                },
            },
        };
        let Some((id, open)) = id.and_then(|id| requests.open.get(&id).map(|open| (id, open))) else {
            return self.link.hub.stray();
        };
        match open.waiting.hear(message) {
            Heard::Done(outcome) => {
                if let Some(open) = requests.open.remove(&id) {
                    let _ = open.events.try_send(Signal::Event(Event::Done(outcome)));
                }
            }
            Heard::Notification(message) => {
                if open.events.capacity() < 2
                    || open.events.try_send(Signal::Event(Event::Notification(message))).is_err()
                {
                    self.link.hub.notification_dropped();
                }
            }
            Heard::Asked(_) | Heard::Nothing => {}
        }
    }

    /// Does what a request of the process's own wants.
    fn answer(&self, request: &Message) {
        if self.link.era() == Some(Era::Modern) {
            return self.link.hub.stray();
        }
        let reply = match InputKind::of(&request.method(), request.params()) {
            Some(_) => self.pass_on(request),
            None => reply_to_server(request),
        };
        if let Some(reply) = reply
            && self.say(&reply).is_err()
        {
            self.link.hub.notification_dropped();
        }
    }

    /// Passes a question on to the only call in flight; what is answered where that cannot be.
    fn pass_on(&self, request: &Message) -> Option<Message> {
        let mut requests = self.lock();
        let mut calls = requests.open.values_mut().filter_map(|open| Some((open.askable?, open)));
        let (only, other) = (calls.next(), calls.next());
        let (askable, open) = only?;
        if other.is_some() {
            return ambiguous(request);
        }
        let Some(question) = Question::of(request, askable) else { return reply_to_server(request) };
        open.asked += 1;
        let room = open.events.capacity() >= 2 && open.asked <= limit::SERVER_REQUESTS_PER_CALL_MAX;
        if room && open.events.try_send(Signal::Asked(question)).is_ok() { None } else { reply_to_server(request) }
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a notification concerns.
enum Addressee {
    Request(i64),
    Everyone,
    /// Whoever subscribed to a resource of this process.
    Subscribers,
    Unnamed,
}

fn addressee(message: &Message) -> Addressee {
    let named = if message.method() == "notifications/progress" {
        message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN))
    } else {
        answer::member(message.params(), "_meta", meta::SUBSCRIPTION_ID)
    };
    match named {
        // A token that is no number of ours is nobody's.
        Some(named) => Addressee::Request(named.as_i64().unwrap_or(-1)),
        None if message.method().ends_with("/list_changed") => Addressee::Everyone,
        None if message.method() == "notifications/resources/updated" => Addressee::Subscribers,
        None => Addressee::Unnamed,
    }
}

/// The id of a line that is JSON and yet no message for us.
fn salvaged_id(line: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        id: Option<i64>,
    }
    // Only looked at when the line is refused, and then only to find out whom to tell.
    serde_json::from_slice::<Envelope>(line).ok()?.id
}

impl<P: Holder> Answers for ProcessAnswers<P> {
    async fn draw(&mut self) -> Signal {
        let gone = || failed(Failure::after(Reason::UpstreamClosed, "the process is gone"));
        let signal = self.events.recv().await.unwrap_or_else(gone);
        self.done = matches!(signal, Signal::Event(Event::Done(_)));
        signal
    }
}

impl Replies for Arc<Process> {
    fn reply<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(self.say(message).is_ok()))
    }
}

fn failed(failure: Failure) -> Signal {
    Signal::Event(Event::Done(Outcome::Failed(failure)))
}

impl<P: Holder> Drop for ProcessAnswers<P> {
    fn drop(&mut self) {
        let process = self.process.process();
        if process.lock().open.remove(&self.id).is_some() && !self.done {
            // A process that does not read its input will not read this either.
            let _ = process.say(&cancelled(self.id));
        }
    }
}

async fn write(process: Arc<Process>, mut stdin: ChildStdin, mut lines: mpsc::Receiver<Bytes>) {
    let writing = async {
        while let Some(line) = lines.recv().await {
            stdin.write_all(&line).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        () = process.stop.cancelled() => {}
        () = process.over.cancelled() => {}
        written = writing => if let Err(error) = written {
            process.give_up(&Failure::after(Reason::UpstreamClosed, format!("its input is closed: {error}")));
        }
    }
}

async fn read(process: Arc<Process>, stdout: ChildStdout) {
    let mut lines = Lines::new(stdout, limit::PROCESS_LINE_BYTES_MAX);
    loop {
        match lines.next().await {
            Ok(Some(Line { bytes, cut: false })) => process.hear_line(bytes),
            Ok(Some(Line { cut: true, .. })) => {
                let detail = format!("a line is longer than {} bytes", limit::PROCESS_LINE_BYTES_MAX);
                process.link.hub.noise();
                return process.give_up(&Failure::after(Reason::UpstreamGarbage, detail));
            }
            Ok(None) | Err(_) => {
                // Mostly it has just ended, and how it ended says more.
                let _ = tokio::time::timeout(Duration::from_millis(500), process.over.cancelled()).await;
                let closed = Failure::after(Reason::UpstreamClosed, "the process closed its output");
                return process.give_up(&closed);
            }
        }
    }
}

/// Shows what the process says on standard error, within bounds.
async fn report(server: crate::ids::ServerId, stderr: ChildStderr) {
    let mut lines = Lines::new(stderr, limit::PROCESS_ERROR_LINE_BYTES_MAX);
    let (mut second, mut shown) = (tokio::time::Instant::now(), 0);
    while let Ok(Some(line)) = lines.next().await {
        if second.elapsed() >= Duration::from_secs(1) {
            (second, shown) = (tokio::time::Instant::now(), 0);
        }
        shown += 1;
        let text = String::from_utf8_lossy(&line.bytes);
        let text = text.trim_end();
        if shown <= limit::PROCESS_ERROR_LINES_PER_SECOND_MAX && !text.is_empty() {
            // Debug form: a child must not write control sequences to somebody's terminal.
            tracing::info!(server = %server, cut = line.cut, "stderr: {:?}", text);
        }
    }
}

/// Waits for the end of the child, or brings it about.
async fn guard(process: Arc<Process>, mut child: Child) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = process.stop.cancelled() => stop(&mut child).await,
    };
    let detail = match status {
        Ok(status) => format!("the process ended: {status}"),
        Err(error) => format!("the process is lost: {error}"),
    };
    process.close(&Failure::after(Reason::UpstreamClosed, detail));
    process.over.cancel();
}

/// Standard input is closed by the writer; then SIGTERM, which makes the supervisor end the whole tree;
/// SIGKILL only for a supervisor that does not do its duty.
async fn stop(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    if let Ok(status) = tokio::time::timeout(limit::PROCESS_STOP_GRACE, child.wait()).await {
        return status;
    }
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        let _ = kill_process(id, Signal::TERM);
    }
    let patience = limit::PROCESS_TERM_GRACE + limit::PROCESS_KILL_WAIT + Duration::from_millis(500);
    if let Ok(status) = tokio::time::timeout(patience, child.wait()).await {
        return status;
    }
    if let Some(id) = id {
        let _ = kill_process_group(id, Signal::KILL);
    }
    child.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_bad_line_is_found_where_it_can_be() {
        assert_eq!(salvaged_id(br#"{"jsonrpc":"2.0","id":7,"result":[]}"#), Some(7));
        assert_eq!(salvaged_id(br#"{"id":7,"id":8}"#), None);
        assert_eq!(salvaged_id(br#"{"id":7,"result":"#), None);
    }
}
