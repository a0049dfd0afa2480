//! Decides when lines go to the disk: at once where somebody waits, together with the next ones where
//! nobody does.
//!
//! Refuses to know who produced them. Invariant: the order of the queue is the order of the file, and
//! an intent whose caller was told that it is safe is on the disk. After any error intents are refused
//! until a write has succeeded again; everything else is kept as long as the queue has room.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::appender::{Appender, Lines, Mark};
use super::batch::{Batch, Settled, lock};
use super::direct::Direct;
use super::fields::{RepairFacts, RepairFields};
use super::line::{self, Header};
use super::metrics::Metrics;
use crate::config::Durability;
use crate::ids::ReplicaId;
use crate::limit;

/// What producers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    dropped: AtomicU64,
    pub(super) metrics: Arc<Metrics>,
    /// The files, where whoever waits for an intent writes it ([`super::direct`]).
    direct: Option<Direct>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Lines,
    batch: Arc<Batch>,
    /// Somebody waits for a line of the batch.
    urgent: bool,
    /// The last write failed.
    broken: bool,
    /// There is room for the last words only: no intents.
    spare: bool,
    /// Nothing more is taken; the writer ends when the queue is empty.
    closed: bool,
    sleep: Sleep,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Sleep {
    /// It works, and looks at the queue afterwards.
    #[default]
    Awake,
    /// It looks at the queue soon by itself; only what is urgent wakes it.
    Light,
    /// It waits until it is called.
    Deep,
}

impl Shared {
    pub(super) fn new(metrics: Arc<Metrics>, direct: Option<Direct>) -> Self {
        Self { direct, queue: Mutex::default(), work: Condvar::new(), dropped: AtomicU64::new(0), metrics }
    }

    /// Queues a line that nobody waits for.
    pub(super) fn push(&self, body: &[u8], mark: Mark) {
        let mut queue = lock(&self.queue);
        if queue.closed || queue.lines.bytes.len() + body.len() > limit::JOURNAL_QUEUE_BYTES_MAX {
            drop(queue);
            return self.lost_one();
        }
        queue.lines.push(body, mark);
        if queue.sleep == Sleep::Deep {
            queue.sleep = Sleep::Awake;
            self.work.notify_one();
        }
    }

    /// Queues a line that somebody waits for; `None` where it cannot be taken now. Where whoever waits writes, that
    /// is still to be done: [`Shared::write_here`].
    pub(super) fn push_urgent(&self, body: &[u8], mark: Mark) -> Option<Settled> {
        let mut queue = lock(&self.queue);
        let room = queue.lines.bytes.len() + body.len() <= limit::JOURNAL_QUEUE_INTENT_BYTES_MAX;
        // What is no call waits for the next try: the brake works on a disk that is full at this moment.
        let taken = !matches!(mark, Mark::Opens(_)) || !(queue.broken || queue.spare);
        if queue.closed || !room || !taken {
            return None;
        }
        queue.lines.push(body, mark);
        queue.urgent = true;
        let batch = Arc::clone(&queue.batch);
        if self.direct.is_none() && queue.sleep != Sleep::Awake {
            queue.sleep = Sleep::Awake;
            self.work.notify_one();
        }
        Some(Settled::of(batch))
    }

    /// Writes what is waited for where that is not the thread's to do. Before, whatever else is ready on this lane
    /// has its turn, so that its intents go along: a write costs as much as five of them.
    pub(super) async fn write_here(&self) {
        if let Some(direct) = &self.direct {
            tokio::task::yield_now().await;
            direct.write(self);
        }
    }

    /// The same for a thread that has nothing else to do.
    pub(super) fn write_at_once(&self) {
        if let Some(direct) = &self.direct {
            direct.write(self);
        }
    }

    /// Whether somebody waits for a line of the queue.
    pub(super) fn is_urgent(&self) -> bool {
        lock(&self.queue).urgent
    }

    /// Takes what somebody waits for, if anybody does.
    pub(super) fn take_urgent(&self, lines: &mut Lines) -> Option<Work> {
        let mut queue = lock(&self.queue);
        queue.urgent.then(|| self.swap(&mut queue, lines))
    }

    /// Nothing is written ever again: nothing is taken, and whoever waits is told.
    pub(super) fn give_up(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let batch = std::mem::take(&mut queue.batch);
        drop(queue);
        batch.settle(false);
    }

    /// Nothing can be written any more: intents are refused, and the thread tries until it can be.
    pub(super) fn break_down(&self, error: &io::Error) {
        tracing::error!(%error, "the journal cannot be written; calls are refused until it can");
        self.metrics.journal_well.set(0);
        let mut queue = lock(&self.queue);
        queue.broken = true;
        queue.sleep = Sleep::Awake;
        self.work.notify_one();
    }

    /// Takes nothing more; what is queued is still written.
    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.work.notify_one();
    }

    /// Whether intents are taken.
    pub(super) fn is_well(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.broken && !queue.closed && !queue.spare
    }

    /// Whether the last write failed.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.queue).broken
    }

    /// Keeps what room there is for everything but intents, or ends that.
    pub(super) fn spare(&self, spare: bool) {
        lock(&self.queue).spare = spare;
        self.metrics.journal_well.set(i64::from(self.is_well()));
    }

    /// Whether a line that only says that there is no room would take up what is left of it; it is counted instead.
    pub(super) fn spares(&self) -> bool {
        let spares = lock(&self.queue).spare;
        if spares {
            self.lost_one();
        }
        spares
    }

    /// A line found no place.
    fn lost_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.journal_dropped.inc();
    }

    /// Lines that found no place since the last time.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Waits until there may be something to write; `false` when all is done.
    fn wait_for_work(&self, idle: bool, retry: bool) -> bool {
        let mut queue = lock(&self.queue);
        if retry && !queue.closed {
            queue = self.wait(queue, Some(limit::JOURNAL_RETRY_INTERVAL));
        }
        // What somebody else failed to write is this thread's to try again.
        while !retry && !queue.urgent && !queue.closed && !queue.broken {
            if queue.lines.marks.is_empty() && idle {
                queue.sleep = Sleep::Deep;
                queue = self.wait(queue, None);
                if queue.lines.marks.is_empty() && !queue.closed && !queue.broken {
                    continue;
                }
                break;
            }
            queue.sleep = Sleep::Light;
            queue = self.wait(queue, Some(limit::JOURNAL_FLUSH_INTERVAL));
            break;
        }
        queue.sleep = Sleep::Awake;
        !(queue.closed && queue.lines.marks.is_empty())
    }

    /// Takes everything there is.
    fn take(&self, lines: &mut Lines) -> Work {
        self.swap(&mut lock(&self.queue), lines)
    }

    fn swap(&self, queue: &mut Queue, lines: &mut Lines) -> Work {
        std::mem::swap(&mut queue.lines, lines);
        let batch = std::mem::take(&mut queue.batch);
        Work { batch, urgent: std::mem::take(&mut queue.urgent), closed: queue.closed }
    }

    fn wait<'a>(
        &self,
        queue: std::sync::MutexGuard<'a, Queue>,
        timeout: Option<std::time::Duration>,
    ) -> std::sync::MutexGuard<'a, Queue> {
        match timeout {
            Some(timeout) => self.work.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

pub(super) struct Work {
    batch: Arc<Batch>,
    urgent: bool,
    closed: bool,
}

impl Work {
    pub(super) fn settle(&self, safe: bool) {
        self.batch.settle(safe);
    }
}

/// Whatever happens to the writer, nobody waits for ever.
impl Drop for Work {
    fn drop(&mut self) {
        self.settle(false);
    }
}

/// Takes nothing more once the writer is gone, for whatever reason.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// The thread that owns the files.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// Shared only where there is a [`Direct`].
    pub(super) appender: Arc<Mutex<Appender>>,
    pub(super) durability: Durability,
    pub(super) replica: ReplicaId,
}

/// What a failed write left to be written later.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lines: Lines,
    problem: String,
    refused: u64,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(self) {
        let _ended = Ended(Arc::clone(&self.shared));
        let mut lines = Lines::default();
        let mut backlog: Option<Backlog> = None;
        let mut last_line = Instant::now();
        loop {
            let idle = last_line.elapsed() >= limit::JOURNAL_IDLE_AFTER;
            if idle
                && backlog.is_none()
                && let Err(error) = sync_if_needed(&mut lock(&self.appender))
            {
                backlog = Some(self.broken(&error, None));
            }
            lines.clear();
            if !self.shared.wait_for_work(idle, backlog.is_some()) {
                break;
            }
            // The files first, the lines second: the order of the queue is the order of the file.
            // Whoever panicked with them in hand left nobody knows what.
            let Ok(mut appender) = self.appender.lock() else { return };
            let work = self.shared.take(&mut lines);
            if let Some(late) = self.shared.direct.as_ref().and_then(Direct::take_backlog) {
                backlog = Some(match backlog.take() {
                    Some(own) => own.with(&late, &self.shared),
                    None => late,
                });
            }
            if !lines.marks.is_empty() {
                self.shared.metrics.journal_batch_lines.observe(count(lines.marks.len()));
                last_line = Instant::now();
            }
            backlog = match backlog.take() {
                Some(backlog) => self.recover(&mut appender, backlog, &lines, &work),
                None => self.write(&mut appender, &lines, &work),
            };
        }
        if let Err(error) = lock(&self.appender).sync() {
            tracing::error!(%error, "the end of the journal may not survive a crash of the machine");
        }
    }

    fn write(&self, appender: &mut Appender, lines: &Lines, work: &Work) -> Option<Backlog> {
        if lines.marks.is_empty() {
            return None;
        }
        let appended = appender.append(lines);
        let written = appended.is_ok();
        match appended.and_then(|()| if work.urgent { self.settle(appender) } else { Ok(()) }) {
            Ok(()) => {
                work.settle(true);
                None
            }
            Err(error) => {
                let backlog = self.broken(&error, (!written).then_some(lines));
                work.settle(false);
                Some(backlog)
            }
        }
    }

    /// Makes the batch as safe as was asked for.
    fn settle(&self, appender: &mut Appender) -> io::Result<()> {
        if self.durability == Durability::Os {
            return Ok(());
        }
        let started = Instant::now();
        let synced = appender.sync();
        self.shared.metrics.journal_sync_seconds.observe(started.elapsed().as_secs_f64());
        synced
    }

    fn broken(&self, error: &io::Error, lines: Option<&Lines>) -> Backlog {
        self.shared.break_down(error);
        Backlog::of(error, lines, &self.shared)
    }

    /// Tries to write what was left, with a note of what happened.
    fn recover(&self, appender: &mut Appender, mut backlog: Backlog, lines: &Lines, work: &Work) -> Option<Backlog> {
        backlog.keep(lines, &self.shared);
        if lines.iter().any(|(_, mark)| matches!(mark, Mark::Opens(_))) {
            // Intents are never kept, and their callers wait for the same word.
            work.settle(false);
        }
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        let repair = RepairFacts {
            problem: "write_failed".to_owned(),
            detail: backlog.problem.clone(),
            refused: backlog.refused,
            dropped,
            ..RepairFacts::default()
        };
        let mut body = Vec::new();
        let header = Header { replica: &self.replica, kind: "repair", of: None, who: None };
        let mut all = Lines::default();
        if line::body(&mut body, header, &RepairFields { repair }).is_ok() {
            all.push(&body, Mark::Plain);
        }
        backlog.lines.iter().for_each(|(body, mark)| all.push(body, mark));
        let appended = appender.append(&all);
        let written = appended.is_ok();
        match appended.and_then(|()| appender.sync()) {
            Ok(()) => {
                // Whoever took something back while nothing could be written learns that it is on the record.
                work.settle(true);
                tracing::warn!("the journal can be written again");
                lock(&self.shared.queue).broken = false;
                self.shared.metrics.journal_well.set(i64::from(self.shared.is_well()));
                None
            }
            Err(error) => {
                work.settle(false);
                self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
                if work.closed {
                    // Nobody will try again after us.
                    let lost = backlog.lines.marks.len();
                    tracing::error!(%error, lost, "the gateway stops and the journal still cannot be written");
                    return None;
                }
                if written {
                    backlog.lines.clear();
                }
                Some(backlog)
            }
        }
    }
}

impl Backlog {
    /// What a write leaves behind: what it failed with, and the lines that were not written.
    pub(super) fn of(error: &io::Error, lines: Option<&Lines>, shared: &Shared) -> Self {
        let mut backlog = Self { problem: error.to_string(), ..Self::default() };
        if let Some(lines) = lines {
            backlog.keep(lines, shared);
        }
        backlog
    }

    /// Both.
    fn with(mut self, late: &Self, shared: &Shared) -> Self {
        self.keep(&late.lines, shared);
        self.refused += late.refused;
        self
    }

    /// Keeps all but the intents: their callers were refused. Bounded like the queue; what finds no place is counted as
    /// it is there.
    pub(super) fn keep(&mut self, lines: &Lines, shared: &Shared) {
        for (body, mark) in lines.iter() {
            let room = self.lines.bytes.len() + body.len() <= limit::JOURNAL_QUEUE_BYTES_MAX;
            match mark {
                Mark::Opens(_) => self.refused += 1,
                _ if room => self.lines.push(body, mark),
                _ => shared.lost_one(),
            }
        }
    }
}

fn sync_if_needed(appender: &mut Appender) -> io::Result<()> {
    if appender.is_unsynced() { appender.sync() } else { Ok(()) }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram of counts far below 2^52")]
pub(super) const fn count(lines: usize) -> f64 {
    lines as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CallId, LegId};
    use crate::record::fields::OpenLeg;

    const LINE: &[u8] = br#","type":"stop"}"#;

    fn writer(directory: &std::path::Path) -> Writer {
        let replica = ReplicaId::new();
        let (appender, _) = Appender::open(directory, replica).unwrap();
        let shared = Arc::new(Shared::new(Metrics::new(), None));
        Writer { shared, appender: Arc::new(Mutex::new(appender)), durability: Durability::Fsync, replica }
    }

    /// The first try after a failure, with whatever is queued.
    fn recovered(writer: &Writer, backlog: Backlog) -> Option<Backlog> {
        let mut lines = Lines::default();
        let work = writer.shared.take(&mut lines);
        writer.recover(&mut lock(&writer.appender), backlog, &lines, &work)
    }

    #[test]
    fn a_brake_that_came_while_nothing_could_be_written_is_told_how_it_ended() {
        let place = tempfile::tempdir().unwrap();
        let writer = writer(place.path());
        writer.shared.break_down(&io::Error::other("full"));
        let brake = writer.shared.push_urgent(LINE, Mark::Plain).unwrap();
        assert!(recovered(&writer, Backlog::default()).is_none());
        assert!(brake.wait(), "it is on the record once, and nobody has to write it again");
        assert!(writer.shared.is_well());

        // An intent that came just before is not kept, and nobody is told otherwise.
        let open = Mark::Opens(OpenLeg { call: CallId::new(), leg: LegId::new() });
        let (intent, brake) = (writer.shared.push_urgent(LINE, open), writer.shared.push_urgent(LINE, Mark::Plain));
        assert!(recovered(&writer, Backlog::default()).is_none());
        assert!(!intent.unwrap().wait() && !brake.unwrap().wait());

        // And where it still cannot be written, it is not.
        let full = std::fs::File::options().append(true).open("/dev/full").unwrap();
        lock(&writer.appender).replace_file(full);
        let brake = writer.shared.push_urgent(LINE, Mark::Plain).unwrap();
        assert!(recovered(&writer, Backlog::default()).is_some());
        assert!(!brake.wait());
    }

    #[test]
    fn lines_that_find_no_place_in_the_backlog_are_counted_and_the_record_says_how_many() {
        let place = tempfile::tempdir().unwrap();
        let writer = writer(place.path());
        let long = vec![b'x'; limit::JOURNAL_QUEUE_BYTES_MAX / 4];
        let mut lines = Lines::default();
        (0..6).for_each(|_| lines.push(&long, Mark::Plain));
        let mut backlog = Backlog::of(&io::Error::other("full"), Some(&lines), &writer.shared);
        assert_eq!(backlog.lines.marks.len(), 4);
        assert_eq!(writer.shared.metrics.journal_dropped.get(), 2);
        backlog.lines.clear();
        assert!(recovered(&writer, backlog).is_none());
        let (_, path) = crate::record::segment::segments(place.path()).unwrap().remove(0);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("\"problem\":\"write_failed\"") && text.contains("\"dropped\":2"), "{text}");
    }
}
