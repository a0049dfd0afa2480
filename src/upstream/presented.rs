//! What is presented while something lasts that was begun with one credential and goes on with another: a
//! conversation in a session, or a feed.
//!
//! Decides nothing: whoever was granted a credential last says so here. Invariant: what goes on by itself presents
//! nothing whose use has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Access;
use crate::outcome::{Failure, Reason};

/// What is presented, in common for everyone who has this.
#[derive(Debug, Clone)]
pub(super) struct Presented(Arc<Mutex<Access>>);

impl Presented {
    pub(super) fn new(access: Access) -> Self {
        Self(Arc::new(Mutex::new(access)))
    }

    /// What was granted last.
    pub(super) fn now(&self) -> Access {
        self.lock().clone()
    }

    /// What was granted last, if it may still be used.
    pub(super) fn in_use(&self) -> Result<Access, Failure> {
        let access = self.lock();
        if access.credential.as_ref().is_some_and(crate::delegate::CredentialHeader::is_used_up) {
            let detail = "the use of the credential that it was begun with has ended";
            return Err(Failure::after(Reason::UpstreamClosed, detail));
        }
        Ok(access.clone())
    }

    /// Waits until what is presented now is taken back.
    pub(super) async fn taken_away(&self) {
        match self.now().credential {
            Some(credential) => credential.taken_away().await,
            None => std::future::pending().await,
        }
    }

    /// Another one was granted.
    pub(super) fn replace(&self, access: Access) {
        *self.lock() = access;
    }

    fn lock(&self) -> MutexGuard<'_, Access> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegate::CredentialHeader;

    #[test]
    fn what_goes_on_by_itself_presents_nothing_whose_use_has_ended() {
        let until = |used_until: Option<i64>| {
            let header = CredentialHeader::new(http::header::AUTHORIZATION, "Bearer x".to_owned().into());
            Access { credential: Some(header.until(used_until)), ..Access::bare() }
        };
        let now = jiff::Timestamp::now().as_second();
        let presented = Presented::new(until(Some(now + 60)));
        let shared = presented.clone();
        assert!(shared.in_use().is_ok());
        presented.replace(until(Some(now - 1)));
        assert!(shared.in_use().is_err() && shared.now().credential.is_some());
        presented.replace(until(None));
        assert!(shared.in_use().is_ok(), "a secret of the gateway's has no such end");
        presented.replace(Access::bare());
        assert!(shared.in_use().is_ok());
    }
}
