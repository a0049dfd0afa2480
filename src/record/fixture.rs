//! A proof and a journal for tests, as the rooms above would make them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::event::{
    ActorFacts, ApprovalNote, ConditionValue, CredentialNote, ExecutableNote, Listing, Operation, PinNote, ReloadNote,
    RevocationNote, StartNote, SubjectFacts, TokenNote,
};
use super::journal::directory;
use super::mandated::{LifecycleNote, MandateFacts, MandateNote, OwnerFacts};
use super::*;
use crate::config::Durability;
use crate::ids::{
    CallId, DefinitionDigest, Digest, LegId, PinKind, PolicyRevision, ReplicaId, RevocationEpoch, ServerId,
    ViewRevision,
};
use crate::outcome::{Failure, Origin, Outcome, Reason, Refusal, Resume, Stop};
use crate::wire::{Json, Outgoing, Source};

/// A secret that must never be found anywhere.
pub(crate) const CANARY: &str = "ghp_c4n4ryc4n4ryc4n4ryc4n4ry";

/// A proof as the delegate room would hand it over.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) call: CallId,
    pub(crate) leg: LegId,
    pub(crate) revoked: Arc<AtomicBool>,
    /// It consumes something, and access is taken back right then.
    pub(crate) falls: AtomicBool,
    values: Vec<ConditionValue>,
    who: Who,
    server: ServerId,
}

impl Proof {
    pub(crate) fn new() -> Self {
        let value = |name: &str, json: &str| ConditionValue {
            name: name.to_owned(),
            value: RawValue::from_string(json.to_owned()).unwrap(),
        };
        Self {
            call: CallId::new(),
            leg: LegId::new(),
            revoked: Arc::default(),
            falls: AtomicBool::default(),
            who: Who::of(
                Some(SubjectFacts {
                    id: "user:corp/ann",
                    acr: Some("mfa"),
                    authenticated_at: Some(1_700_000_000),
                    groups: Some(&["group:corp/dev"]),
                }),
                Some(ActorFacts { id: Some("claude-code"), client: Some("cli"), proof: "public" }),
                &["agent:planner"],
                Some(TokenNote {
                    issuer: "corp",
                    id: Some("jti-1"),
                    digest: &Digest::sha256(b"token"),
                    expires_at: 1_700_000_600,
                    scopes: None,
                }),
            ),
            server: ServerId::new("deploy").unwrap(),
            values: vec![value("argument.replicas", "3"), value("argument.note", &format!("\"key {CANARY}\""))],
        }
    }

    /// As if conditions had read so many values.
    pub(crate) fn read_values(&mut self, count: usize) {
        let value = |number: usize| ConditionValue {
            name: format!("argument.a{number}"),
            value: RawValue::from_string(number.to_string()).unwrap(),
        };
        self.values = (0..count).map(value).collect();
    }

    pub(crate) fn attempt(&self) -> Attempt<'_> {
        Attempt {
            call: self.call,
            leg: self.leg,
            who: &self.who,
            mcp: Operation {
                method: "tools/call",
                protocol: Some("2026-07-28"),
                server: Some("deploy"),
                environment: Some("production"),
                name: Some("rollout"),
                definition: Some(DefinitionDigest(Digest::sha256(b"definition"))),
            },
            via: None,
            mandate: None,
            declared: None,
            owners: OwnerFacts::default(),
            revision: Some(PolicyRevision(Digest::sha256(b"policy"))),
            epoch: RevocationEpoch(2),
        }
    }
}

impl Evidence for Proof {
    fn recheck(&self) -> Result<(), Refusal> {
        if self.revoked.load(Ordering::SeqCst) { Err(Refusal::new(Reason::Revoked)) } else { Ok(()) }
    }

    fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        self.falls.load(Ordering::SeqCst).then(|| {
            async {
                self.revoked.store(true, Ordering::SeqCst);
                Ok(())
            }
            .boxed()
        })
    }

    fn consumed(&self, journal: &Journal) {
        if self.falls.load(Ordering::SeqCst) {
            let note = ApprovalNote {
                event: "consumed",
                id: "a1",
                binding: Digest::sha256(b"call"),
                gates: &[],
                server: "deploy",
                name: "rollout",
                environment: "production",
                requester: "user:corp/ann",
                approvers: &[],
                revision: PolicyRevision(Digest::sha256(b"policy")),
                shown: Digest::sha256(b"shown"),
                detail: "",
            };
            journal.approval(&note, Some((self.call, self.leg)), None);
        }
    }

    fn intent(&self) -> Intent<'_> {
        Intent {
            attempt: self.attempt(),
            rule: Some("policies/policy.csv:12"),
            credential: CredentialNote {
                kind: "exchange",
                audience: Some("https://deploy.example"),
                issue: Some("01KD0000000000000000000000"),
                id: Some("jti-2"),
                expires_at: Some(1_700_003_600),
                used_until: Some(1_700_000_300),
            },
            arguments: Some(br#"{"replicas":3}"#),
            values: &self.values,
            approval: None,
            labels: None,
        }
    }

    fn server(&self) -> Option<&ServerId> {
        Some(&self.server)
    }
}

pub(crate) fn outgoing() -> Outgoing {
    Outgoing {
        method: "tools/call".to_owned(),
        params: json("{}"),
        name: None,
        header_parameters: Vec::new(),
        headers: Vec::new(),
        progress_token: None,
        last_words: None,
        process: None,
    }
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text, Source::Upstream).unwrap()
}

pub(crate) fn start_with(state: &Path, durability: Durability) -> (Journal, Recovered) {
    let key = JournalKey::from_hex(&SecretString::from("7f".repeat(32))).unwrap();
    let metrics = Metrics::new();
    Journal::start(JournalSettings { state, replica: ReplicaId::new(), durability, key, metrics, keeping: None })
        .unwrap()
}

pub(crate) fn start(state: &Path) -> (Journal, Recovered) {
    start_with(state, Durability::Fsync)
}

/// The text of all segments.
pub(crate) fn lines(state: &Path) -> String {
    let segments = segment::segments(&directory(state)).unwrap();
    segments.iter().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect()
}

/// A journal with at least one record of every type.
pub(crate) async fn write_every_type(state: &Path) {
    let (journal, _) = start(state);
    let revision = PolicyRevision(Digest::sha256(b"policy"));
    let start =
        StartNote { version: "0.1.0", revision: Some(revision), epoch: RevocationEpoch(1), durability: "fsync" };
    journal.started(&start).await.unwrap();
    let input = Outcome::InputRequired {
        origin: Origin::Gateway,
        result: json(r#"{"inputRequests":{"a":{"method":"elicitation/create","params":{"message":"secret"}}}}"#),
        resume: Resume::default(),
    };
    for outcome in [
        Outcome::Complete(json(r#"{"content":[],"isError":true}"#)),
        Outcome::Complete(json(r#"{"content":[],"text":"\"isError\":true"}"#)),
        input,
        Outcome::Task(json("{}")),
        Outcome::Error(json(r#"{"code":-32602,"message":"no"}"#)),
        Outcome::Refused(Refusal::new(Reason::ConditionUnmet)),
        Outcome::Failed(Failure::before(Reason::UpstreamUnreachable, format!("refused with {CANARY}"))),
        Outcome::Failed(Failure::after(Reason::UpstreamTimeout, "no answer")),
    ] {
        journal.open(Proof::new(), outgoing()).await.unwrap().close(&outcome);
    }
    let proof = Proof::new();
    let attempt = proof.attempt();
    journal.stopped(&attempt, &Refusal::new(Reason::DeniedByRule).rule("policies/policy.csv:9").into());
    let nobody = Attempt { who: &Who::default(), ..proof.attempt() };
    journal.stopped(&nobody, &Failure::before(Reason::CredentialUnavailable, format!("Bearer {CANARY}")).into());
    journal.listed(&attempt, &Listing { shown: 12, view: Some(ViewRevision(Digest::sha256(b"view"))) });
    journal.knocked(Reason::TokenMissing, "192.0.2.7".parse().unwrap());
    let revocation = RevocationNote {
        actor: "host:1000",
        target: "subject",
        issuer: Some("corp"),
        value: Some("ann"),
        mode: "sign_out",
        lifted: false,
        issued_before: Some(1_700_000_000),
        note: &format!("left; had {CANARY}"),
        ordered_at: None,
        epoch: RevocationEpoch(3),
        nonce: Some(7),
    };
    journal.revoked(&revocation).await.unwrap();
    let (added, removed) = (["p, a".to_owned()], ["p, b".to_owned()]);
    let reload = ReloadNote {
        actor: "host:1000",
        from: Some(revision),
        to: Some(revision),
        added: &added,
        removed: &removed,
        problem: None,
    };
    journal.reloaded(&reload).await.unwrap();
    let refused = ReloadNote { actor: "signal", problem: Some("policies/policy.csv:3:1: five columns"), ..reload };
    journal.reloaded(&ReloadNote { to: None, added: &[], removed: &[], ..refused }).await.unwrap();
    let executable = ExecutableNote {
        server: "wiki",
        path: "/opt/wiki/bin/wiki",
        digest: Digest::sha256(b"wiki 2"),
        before: Some(Digest::sha256(b"wiki 1")),
    };
    journal.executable(&executable).await.unwrap();
    let pin = PinNote {
        server: "wiki",
        kind: PinKind::Tool,
        name: "search",
        digest: DefinitionDigest(Digest::sha256(b"search 2")),
        state: "quarantined",
        before: Some(DefinitionDigest(Digest::sha256(b"search 1"))),
        renamed_from: None,
        flags: &["invisible"],
        actor: None,
        note: "",
        epoch: None,
        together: None,
    };
    journal.pinned(&pin).await.unwrap();
    let accepted = PinNote {
        state: "accepted",
        actor: Some("user:corp/anna"),
        note: "read it",
        epoch: Some(RevocationEpoch(4)),
        together: Some(1),
        ..pin
    };
    journal.pinned(&accepted).await.unwrap();
    let facts = MandateFacts {
        id: "01KNMANDATE0000000000000000",
        template: Some("nightly"),
        parent: None,
        purpose: "reads notes",
    };
    let mandate = MandateNote {
        event: "completed",
        mandate: facts,
        actor: "user:corp/anna",
        agent: Some("bot"),
        subject: None,
        ends_at: 1_800_000_000,
        calls: &[("notes".to_owned(), 3)],
        note: "",
        epoch: Some(RevocationEpoch(3)),
    };
    journal.mandated(&mandate).await.unwrap();
    let life = LifecycleNote {
        event: "suspended",
        kind: "agent",
        id: "bot",
        owner: "user:corp/anna",
        actor: "breaker",
        subject: None,
        note: "20 refusals in a minute",
        epoch: None,
    };
    journal.lived(&life).await.unwrap();
    journal.stop("terminated").await.unwrap();
}
