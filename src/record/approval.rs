//! How the record tells what happened to a request for approval.
//!
//! Decides the spelling. Invariant: digests over arguments are keyed, because few arguments are hard to guess.

use serde::Serialize;

use super::appender::Mark;
use super::event::{ApprovalNote, ApproverNote};
use super::journal::Journal;
use super::keys::{JournalKey, KeyedDigest};
use super::redact;
use super::who::Who;
use crate::ids::{CallId, LegId, PolicyRevision};

#[derive(Serialize)]
struct Fields<'a> {
    approval: Approval<'a>,
}

#[derive(Serialize)]
struct Approval<'a> {
    event: &'static str,
    id: &'a str,
    binding: KeyedDigest,
    key: &'a str,
    gates: &'a [String],
    server: &'a str,
    #[serde(serialize_with = "redact::serialize")]
    name: &'a str,
    environment: &'a str,
    #[serde(serialize_with = "redact::serialize")]
    requester: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    approvers: &'a [ApproverNote<'a>],
    revision: PolicyRevision,
    shown: KeyedDigest,
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    detail: &'a str,
}

impl<'a> Fields<'a> {
    fn of(note: &ApprovalNote<'a>, key: &'a JournalKey) -> Self {
        let ApprovalNote { event, id, binding, gates, server, name, environment, .. } = *note;
        let ApprovalNote { requester, approvers, revision, shown, detail, .. } = *note;
        let (binding, shown) = (key.digest(binding.as_bytes()), key.digest(shown.as_bytes()));
        let key = key.id();
        let approval = Approval {
            event,
            id,
            binding,
            key,
            gates,
            server,
            name,
            environment,
            requester,
            approvers,
            revision,
            shown,
            detail,
        };
        Self { approval }
    }
}

impl Journal {
    /// Records what happened to a request for approval, with whoever did it. Never waits: what a person does is on the
    /// record as an operation before it is done, and what a call uses with its intent.
    pub fn approval(&self, note: &ApprovalNote<'_>, of: Option<(CallId, LegId)>, who: Option<&Who>) {
        self.metrics().approval(note.event);
        let key = self.key().now();
        self.tell("approval", of, who, &Fields::of(note, &key), Mark::Plain);
    }
}
