//! Writing an intent where it is waited for, in the thread that waits.
//!
//! With `durability = "os"` an intent is safe when it is in the page cache, and putting it there costs less than
//! asking a thread to do it and being woken again. Decides who writes: one at a time, for everybody who is
//! queued. Refuses to know what is written. Invariant: nobody's line is left behind, because whoever holds the
//! files looks at the queue again after letting go of them.

use std::sync::{Arc, Mutex, TryLockError};

use super::appender::{Appender, Lines};
use super::batch::lock;
use super::writer::{Backlog, Shared, count};

/// The files, shared by everybody who waits for an intent and by the thread that writes the rest.
#[derive(Debug)]
pub(super) struct Direct {
    appender: Arc<Mutex<Appender>>,
    /// Used by whoever holds the files.
    lines: Mutex<Lines>,
    /// What a failed write left for the thread, which tries again.
    backlog: Mutex<Option<Backlog>>,
}

impl Direct {
    pub(super) fn new(appender: Arc<Mutex<Appender>>) -> Self {
        Self { appender, lines: Mutex::default(), backlog: Mutex::default() }
    }

    /// Writes everything that somebody waits for, unless somebody else is at it and will do so.
    pub(super) fn write(&self, shared: &Shared) {
        loop {
            {
                let mut appender = match self.appender.try_lock() {
                    Ok(appender) => appender,
                    // Somebody panicked with the files in hand; nobody knows what they left.
                    Err(TryLockError::Poisoned(_)) => return shared.give_up(),
                    Err(TryLockError::WouldBlock) => return,
                };
                let mut lines = lock(&self.lines);
                lines.clear();
                // With nothing to take it still looks once more below: somebody may queue a line and find the files
                // held before they are let go of.
                if let Some(work) = shared.take_urgent(&mut lines) {
                    shared.metrics.journal_batch_lines.observe(count(lines.marks.len()));
                    match appender.append(&lines) {
                        Ok(()) => work.settle(true),
                        Err(error) => {
                            let mut backlog = lock(&self.backlog);
                            backlog.get_or_insert_with(|| Backlog::of(&error, None, shared)).keep(&lines, shared);
                            drop(backlog);
                            shared.break_down(&error);
                            work.settle(false);
                            // What is queued is the thread's now, which was woken.
                            return;
                        }
                    }
                }
            }
            if !shared.is_urgent() {
                return;
            }
        }
    }

    pub(super) fn take_backlog(&self) -> Option<Backlog> {
        lock(&self.backlog).take()
    }
}
