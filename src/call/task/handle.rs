//! The task ids that clients get: sealed, bound to their principal, and all that routes a request about one.
//!
//! Keeps nothing: what is needed stands in the id. Refuses to know what a task does. Invariant: an id leads
//! to the server and the tool whose call became the task, for the principal who called it and nobody else,
//! and never to another server that was given the same name, nor to another process than the one that made it.

use serde::{Deserialize, Serialize};

use crate::catalog::{Target, TaskDialect};
use crate::config::TransportConfig;
use crate::delegate::server_revision;
use crate::ids::{CallId, Digest, LegId, MandateId, PrincipalKey, ProcessId, ReplicaId, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::wire::handle::Sealer;
use crate::wire::voids::Holder;
use crate::wire::{Json, Source};

const PURPOSE: &str = "task";

/// What a sealed task id says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    #[serde(rename = "s")]
    server: ServerId,
    /// Where the server is and with whose credential it is called, as it was when the task began.
    #[serde(rename = "r")]
    revision: Digest,
    /// The tool, as its server spells it.
    #[serde(rename = "n")]
    tool: String,
    #[serde(rename = "c")]
    call: String,
    #[serde(rename = "d")]
    dialect: TaskDialect,
    /// The server's own id of the task.
    #[serde(rename = "i")]
    task: String,
    /// The replica that alone can ask for it.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    /// The mandate that the call was part of.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mandate: Option<MandateId>,
    /// The process that alone has it: another one may have begun to count anew.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    /// How its progress is told, where its client wants to hear of that.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

/// Under which token a server of 2025-11-25 tells of a task's progress for as long as the task goes on, and which one its
/// client gave, in its own spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    #[serde(rename = "o")]
    ours: String,
    #[serde(rename = "t")]
    theirs: String,
}

impl Handle {
    /// The handle of a task that a call became.
    ///
    /// # Errors
    /// When the server's own id is not one that can be carried.
    pub fn new(
        target: &Target,
        call: CallId,
        dialect: TaskDialect,
        task: &str,
        home: Option<ReplicaId>,
    ) -> Result<Self, Failure> {
        if task.is_empty() || task.len() > limit::TASK_ID_BYTES_MAX {
            return Err(Failure::after(Reason::UpstreamGarbage, "its task id is missing or too long"));
        }
        Ok(Self {
            server: target.server_id().clone(),
            revision: server_revision(target.server()),
            tool: target.name().to_owned(),
            call: call.to_string(),
            dialect,
            task: task.to_owned(),
            home: home.map(|replica| replica.to_string()),
            mandate: None,
            process: None,
            progress: None,
        })
    }

    /// The same of a task that this process made.
    #[must_use]
    pub fn made_by(self, process: Option<ProcessId>) -> Self {
        Self { process: process.map(|process| process.to_string()), ..self }
    }

    /// The same of a call that was part of a mandate.
    #[must_use]
    pub fn under(self, mandate: Option<&MandateId>) -> Self {
        Self { mandate: mandate.cloned(), ..self }
    }

    /// The same of a task whose client gave this token for its progress, in a call that was sent as this leg.
    #[must_use]
    pub fn reported(self, leg: LegId, theirs: Option<Json>) -> Self {
        let theirs = theirs.filter(|theirs| theirs.as_bytes().len() <= limit::TASK_TOKEN_BYTES_MAX);
        let progress = |theirs: Json| Progress { ours: leg.to_string(), theirs: theirs.as_str().to_owned() };
        Self { progress: theirs.map(progress), ..self }
    }

    /// Under which token its server tells of its progress.
    #[must_use]
    pub fn progress_token(&self) -> Option<&str> {
        self.progress.as_ref().map(|progress| progress.ours.as_str())
    }

    /// The token that its client gave for that.
    #[must_use]
    pub fn clients_token(&self) -> Option<Json> {
        Json::parse(self.progress.as_ref()?.theirs.as_str(), Source::Client).ok()
    }

    /// The mandate that the call was part of.
    #[must_use]
    pub const fn mandate(&self) -> Option<&MandateId> {
        self.mandate.as_ref()
    }

    /// The id as its principal gets it.
    ///
    /// # Errors
    /// When it would be too long, or the cipher fails.
    pub fn seal(&self, sealer: &Sealer, holder: &Holder) -> Result<String, Failure> {
        let content = serde_json::to_vec(self).unwrap_or_default();
        let sealed = sealer.seal_for(PURPOSE, holder, &content);
        let sealed = sealed.map_err(|error| Failure::after(Reason::Internal, error.to_string()))?;
        if sealed.len() > limit::HANDLE_BYTES_MAX {
            return Err(Failure::after(Reason::UpstreamGarbage, "its task id and its tool's name are too long"));
        }
        Ok(sealed)
    }

    /// What an id says, if it was sealed for this principal.
    #[must_use]
    pub fn open(sealer: &Sealer, principal: PrincipalKey, id: &str) -> Option<Self> {
        serde_json::from_slice(&sealer.open(PURPOSE, principal, id)?).ok()
    }

    /// Whether a target is the tool whose call became the task, at the server where it did. Of processes only one has it,
    /// so an id that does not say which is nobody's.
    #[must_use]
    pub fn is_of(&self, target: &Target) -> bool {
        let is_process = matches!(target.server().transport, TransportConfig::Stdio { .. });
        *target.server_id() == self.server
            && target.name() == self.tool
            && server_revision(target.server()) == self.revision
            && (!is_process || self.process().is_some())
    }

    /// The process that alone has it.
    #[must_use]
    pub fn process(&self) -> Option<ProcessId> {
        self.process.as_deref()?.parse().ok()
    }

    /// The replica that alone can ask for it.
    #[must_use]
    pub fn home(&self) -> Option<ReplicaId> {
        self.home.as_deref()?.parse().ok()
    }

    /// Whose task it is.
    #[must_use]
    pub const fn server(&self) -> &ServerId {
        &self.server
    }

    /// Which tool's call became it, as the server spells it.
    #[must_use]
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// Which call became it.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call.parse().unwrap_or_else(|_| CallId::new())
    }

    /// In which way its server has tasks.
    #[must_use]
    pub const fn dialect(&self) -> TaskDialect {
        self.dialect
    }

    /// The server's own id of it.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::sha256(name.as_bytes()))
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::new([&[byte; 32][..]]).unwrap()
    }

    fn handle(tool: &str, task: &str) -> Handle {
        Handle {
            server: ServerId::new("s").unwrap(),
            revision: Digest::sha256(b"r"),
            tool: tool.to_owned(),
            call: CallId::new().to_string(),
            dialect: TaskDialect::Extension,
            task: task.to_owned(),
            home: None,
            mandate: None,
            process: Some(ProcessId::new().to_string()),
            progress: Some(Progress { ours: LegId::new().to_string(), theirs: "\"m\\u0069ne\"".to_owned() }),
        }
    }

    proptest! {
        #[test]
        fn a_task_id_says_the_same_to_its_principal_and_nothing_to_anyone_else(
            tool in "\\PC{1,40}", task in ".{1,60}", at in any::<prop::sample::Index>(),
        ) {
            let handle = handle(&tool, &task);
            let id = handle.seal(&sealer(1), &principal("alice").into()).unwrap();
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic()), "it travels in a header: {}", id);
            let opened = Handle::open(&sealer(1), principal("alice"), &id);
            prop_assert_eq!(opened, Some(handle));
            prop_assert!(Handle::open(&sealer(1), principal("bob"), &id).is_none());
            prop_assert!(Handle::open(&sealer(2), principal("alice"), &id).is_none());
            let mut tampered = id.into_bytes();
            let at = at.index(tampered.len());
            tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(tampered).unwrap();
            // The last character may hold bits that mean nothing; then the text is refused as it is spelled.
            prop_assert!(Handle::open(&sealer(1), principal("alice"), &tampered).is_none());
        }
    }

    #[test]
    fn a_handle_that_was_sealed_for_something_else_is_no_task() {
        let content = serde_json::to_vec(&handle("t", "1")).unwrap();
        let other = sealer(1).seal("cursor", principal("alice"), &content).unwrap();
        assert!(Handle::open(&sealer(1), principal("alice"), &other).is_none());
        let odd = sealer(1).seal(PURPOSE, principal("alice"), b"{}").unwrap();
        assert!(Handle::open(&sealer(1), principal("alice"), &odd).is_none());
    }

    #[test]
    fn the_token_of_a_client_is_kept_as_it_spells_it_where_it_is_no_longer_than_that() {
        let kept = |token: &str| {
            let token = Json::parse(token, Source::Client).unwrap();
            let handle = handle("t", "1").reported(LegId::new(), Some(token));
            handle.clients_token().map(|token| token.as_str().to_owned())
        };
        for token in ["7", "1.50", r#""m\u0069ne""#] {
            assert_eq!(kept(token).as_deref(), Some(token));
        }
        let longest = format!("\"{}\"", "x".repeat(limit::TASK_TOKEN_BYTES_MAX - 2));
        assert_eq!(kept(&longest), Some(longest.clone()));
        assert_eq!(kept(&longest.replacen('x', "xx", 1)), None);
    }

    #[test]
    fn an_id_of_before_names_no_process_and_no_token() {
        let old = r#"{"s":"s","r":"REVISION","n":"t","c":"c","d":"Extension","i":"1"}"#;
        let revision = serde_json::to_value(Digest::sha256(b"r")).unwrap();
        let old = old.replace("REVISION", revision.as_str().unwrap());
        let old = old.replace("\"Extension\"", &serde_json::to_string(&TaskDialect::Extension).unwrap());
        let old: Handle = serde_json::from_str(&old).unwrap();
        assert_eq!((old.process(), old.progress_token(), old.task()), (None, None, "1"));
    }

    #[test]
    fn an_id_that_would_not_fit_into_a_header_is_refused() {
        let long = handle("t", &"\u{1}".repeat(limit::TASK_ID_BYTES_MAX));
        assert!(long.seal(&sealer(1), &principal("alice").into()).unwrap_err().detail.contains("too long"));
        assert!(
            handle("t", &"x".repeat(limit::TASK_ID_BYTES_MAX)).seal(&sealer(1), &principal("alice").into()).is_ok()
        );
    }
}
