//! What the store keeps of legacy sessions, so that it outlives the process: that one has ended, that it has subscribed
//! to something, and what it wants told.
//!
//! Decides for how long. Refuses to know what is said of a session. Invariants: a row goes when its session would have
//! ended by its age; that a session has ended or subscribed is a bit that nothing clears, whatever is changed at the same
//! moment; what changes in a session is counted like a request of its principal.

use super::Gateway;
use crate::identity::Caller;
use crate::limit;
use crate::outcome::{Failure, Stop};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf as _, Tell};

const SESSIONS: Section = Section { name: "session", rows_max: limit::SESSION_ROWS_MAX };
const ENDED: i64 = 1;
const SUBSCRIBED: i64 = 1 << 1;

/// What has changed in a session since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// It is over.
    pub ended: bool,
    /// It has subscribed to something, which only the process knows that heard of it.
    pub subscribed: bool,
    /// Log messages of this level and above are wanted.
    pub level: Option<String>,
}

impl Since {
    /// What is so after this has changed.
    #[must_use]
    pub fn with(&self, change: &Self) -> Self {
        Self {
            ended: self.ended || change.ended,
            subscribed: self.subscribed || change.subscribed,
            level: change.level.as_ref().or(self.level.as_ref()).cloned(),
        }
    }
}

impl Gateway {
    /// What is kept of a session.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn session(&self, session: &str) -> Result<Since, Failure> {
        let row = self.store.row(SESSIONS, session).await?;
        let since = row.map(|row| Since {
            ended: row.number & ENDED != 0,
            subscribed: row.number & SUBSCRIBED != 0,
            level: Some(row.body).filter(|level| !level.is_empty()),
        });
        Ok(since.unwrap_or_default())
    }

    /// Keeps that a session has ended, or else that it has subscribed, or else its log level, until it would be so old, in
    /// microseconds since 1970. Where too many are kept nothing is: whoever fills the store must not keep others from ending their sessions.
    ///
    /// # Errors
    /// A limit, or `store_unavailable`.
    pub async fn keep_session(&self, caller: &Caller, session: &str, since: &Since, ends_us: i64) -> Result<(), Stop> {
        self.quotas().request(caller.principal())?;
        let expires_at_us = Some(ends_us);
        let action = if since.ended || since.subscribed {
            let bits = if since.ended { ENDED } else { SUBSCRIBED };
            Action::Raise { bits, expires_at_us, note: None }
        } else {
            let body = since.level.clone().unwrap_or_default();
            Action::Put { owner: String::new(), body, expires_at_us }
        };
        let change = Change::new(SESSIONS, session, Expect::Anything, action);
        if let Changed::Full(_) = self.store.change(vec![change], Tell::Nobody).await? {
            tracing::warn!(
                max = limit::SESSION_ROWS_MAX,
                "what changed in a session is known until the next start only"
            );
        }
        Ok(())
    }
}
