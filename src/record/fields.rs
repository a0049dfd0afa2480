//! The fields of each kind of line, as they are serialised.
//!
//! Decides the spelling of the format and how a call's facts become it. Refuses to hold anything: each
//! is a borrowed view for the moment of writing. Invariant: fields are added, never renamed, while the
//! version is 1.

use serde::Serialize;

use super::declared::Declared;
use super::event::{
    AdminNote, Attempt, ChargeNote, ConditionValue, CredentialNote, ExecutableNote, Intent, LabelNote, Listing,
    Operation, PinNote, RelayNote, RevocationNote, StartNote,
};
use super::keys::{JournalKey, KeyedDigest};
use super::mandated::{MandateFacts, OwnerFacts};
use super::redact;
use crate::ids::{CallId, Digest, LegId, PolicyRevision, ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Origin, Outcome, Reason, Stop, says_error};
use crate::wire::{InputKind, Json, Value};

/// The fields of a kind; who it is about ([`super::who`]) stands before them.
#[derive(Serialize)]
pub(super) struct CallFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<ReplicaId>,
    mcp: &'a Operation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mandate: Option<MandateFacts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<&'a Declared>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<OwnerFacts<'a>>,
    decision: DecisionFields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a CredentialNote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<ArgumentFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a LabelNote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<&'a Listing>,
}

#[derive(Serialize)]
struct DecisionFields<'a> {
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_words_option")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<PolicyRevision>,
    epoch: RevocationEpoch,
}

#[derive(Serialize)]
struct ArgumentFields<'a> {
    hmac: KeyedDigest,
    key: &'a str,
    bytes: usize,
    #[serde(skip_serializing_if = "Values::is_empty")]
    values: Values<'a>,
}

struct Values<'a>(&'a [ConditionValue]);

impl Values<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        for ConditionValue { name, value } in self.0.iter().take(limit::RECORD_VALUES_MAX) {
            let json = value.get();
            // A value that looks like a secret, or is large, is replaced as a whole: half a JSON text is none.
            if json.len() > limit::RECORD_TEXT_BYTES_MAX {
                map.serialize_entry(&redact::text(name), &format_args!("[{} bytes]", json.len()))?;
            } else if matches!(redact::secrets(json), std::borrow::Cow::Owned(_)) {
                map.serialize_entry(&redact::text(name), "[redacted]")?;
            } else {
                map.serialize_entry(&redact::text(name), value)?;
            }
        }
        map.end()
    }
}

impl<'a> CallFields<'a> {
    fn new(attempt: &'a Attempt<'a>, decision: DecisionFields<'a>) -> Self {
        let owners = Some(attempt.owners).filter(|owners| owners.agent.is_some() || owners.server.is_some());
        Self {
            via: attempt.via,
            mcp: &attempt.mcp,
            mandate: attempt.mandate,
            declared: attempt.declared,
            owners,
            decision,
            credential: None,
            arguments: None,
            approval: None,
            labels: None,
            list: None,
        }
    }

    pub(super) fn intent(intent: &'a Intent<'a>, key: &'a JournalKey) -> Self {
        let attempt = &intent.attempt;
        let arguments = intent.arguments.map(|bytes| ArgumentFields {
            hmac: key.digest(bytes),
            key: key.id(),
            bytes: bytes.len(),
            values: Values(intent.values),
        });
        let decision = DecisionFields::of(attempt, "allow", None, intent.rule, None);
        let labels = intent.labels.as_ref();
        Self {
            credential: Some(&intent.credential),
            arguments,
            approval: intent.approval,
            labels,
            ..Self::new(attempt, decision)
        }
    }

    pub(super) fn stopped(attempt: &'a Attempt<'a>, stop: &'a Stop) -> Self {
        let decision = match stop {
            Stop::Refused(refusal) => {
                DecisionFields::of(attempt, "deny", Some(refusal.reason), refusal.rule.as_deref(), Some(&refusal.hint))
            }
            Stop::Failed(failure) => {
                DecisionFields::of(attempt, "fail", Some(failure.reason), None, Some(&failure.detail))
            }
        };
        Self::new(attempt, decision)
    }

    pub(super) fn list(attempt: &'a Attempt<'a>, listing: &'a Listing) -> Self {
        let decision = DecisionFields::of(attempt, "allow", None, None, None);
        Self { list: Some(listing), ..Self::new(attempt, decision) }
    }
}

impl<'a> DecisionFields<'a> {
    fn of(
        attempt: &Attempt<'a>,
        effect: &'static str,
        reason: Option<Reason>,
        rule: Option<&'a str>,
        detail: Option<&'a str>,
    ) -> Self {
        Self { effect, reason, rule, detail, revision: attempt.revision, epoch: attempt.epoch }
    }
}

/// That a request was handed on.
#[derive(Serialize)]
pub(super) struct RelayFields<'a> {
    pub(super) relay: &'a RelayNote<'a>,
}

/// How one leg ended.
#[derive(Serialize)]
pub(super) struct ResultFields<'a> {
    pub(super) result: ResultFacts<'a>,
}

#[derive(Serialize)]
pub(super) struct ResultFacts<'a> {
    /// `complete`, `input_required`, `task`, `error`, `refused`, `failed`, `unknown`.
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_error: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    /// What was asked for: methods, never content.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_words_option")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_acted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac: Option<KeyedDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    /// What it has used up of budgets.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    budget: &'a [ChargeNote],
    /// Why its client has cancelled it, as its server may have been told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_words_option")]
    cancelled_with: Option<&'a str>,
}

impl<'a> ResultFacts<'a> {
    /// What was said of it in words.
    pub(super) const fn detail(&self) -> Option<&'a str> {
        self.detail
    }

    /// The same in other words.
    pub(super) fn saying(self, detail: &'a str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The same with what was used up.
    pub(super) fn charging(self, budget: &'a [ChargeNote]) -> Self {
        Self { budget, ..self }
    }

    /// The same with what its client said as it cancelled.
    pub(super) fn cancelled_with(self, cancelled_with: Option<&'a str>) -> Self {
        Self { cancelled_with, ..self }
    }

    fn bare(outcome: &'static str, latency_us: Option<u64>) -> Self {
        Self {
            outcome,
            is_error: false,
            origin: None,
            asked: Vec::new(),
            code: None,
            reason: None,
            detail: None,
            may_have_acted: None,
            hmac: None,
            key: None,
            bytes: None,
            latency_us,
            budget: &[],
            cancelled_with: None,
        }
    }

    /// Nobody said how it ended.
    pub(super) fn unknown(detail: &'a str, latency_us: Option<u64>) -> Self {
        Self { detail: Some(detail), may_have_acted: Some(true), ..Self::bare("unknown", latency_us) }
    }

    /// The intent was written, and then nothing was forwarded.
    pub(super) fn not_forwarded(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            detail: Some("nothing was forwarded"),
            may_have_acted: Some(false),
            ..Self::bare("failed", None)
        }
    }

    pub(super) fn of(outcome: &'a Outcome, key: &'a JournalKey, latency_us: u64) -> Self {
        let latency_us = Some(latency_us);
        let digested = |name: &'static str, json: &Json| Self {
            hmac: Some(key.digest(json.as_bytes())),
            key: Some(key.id()),
            bytes: Some(json.as_bytes().len()),
            ..Self::bare(name, latency_us)
        };
        match outcome {
            Outcome::Complete(result) => Self { is_error: says_error(result), ..digested("complete", result) },
            Outcome::InputRequired { origin, result, .. } => Self {
                asked: asked(result),
                origin: Some(match origin {
                    Origin::Upstream => "upstream",
                    Origin::Gateway => "gateway",
                }),
                ..digested("input_required", result)
            },
            Outcome::Task(result) => digested("task", result),
            Outcome::Error(error) => Self { code: error_code(error), ..digested("error", error) },
            Outcome::Refused(refusal) => {
                Self { reason: Some(refusal.reason), detail: Some(&refusal.hint), ..Self::bare("refused", latency_us) }
            }
            Outcome::Failed(failure) => Self {
                reason: Some(failure.reason),
                detail: Some(&failure.detail),
                may_have_acted: Some(failure.may_have_acted),
                ..Self::bare(if failure.may_have_acted { "unknown" } else { "failed" }, latency_us)
            },
        }
    }

    /// What a metric calls it.
    pub(super) const fn label(&self) -> &'static str {
        if self.is_error { "tool_error" } else { self.outcome }
    }
}

/// Which methods an `input_required` result asks the client to answer, each once.
fn asked(result: &Json) -> Vec<&'static str> {
    let requests = member(result, "inputRequests").and_then(Value::as_object);
    let methods = requests.into_iter().flat_map(|requests| requests.members()).filter_map(|(_, request)| {
        let request = request.as_object()?;
        let params = request.get("params").and_then(Value::as_object);
        Some(InputKind::of(&request.get("method")?.as_str()?, params)?.method())
    });
    let mut methods: Vec<_> = methods.take(limit::INPUT_REQUESTS_MAX).collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

fn error_code(error: &Json) -> Option<i64> {
    member(error, "code").and_then(Value::as_i64)
}

fn member<'a>(json: &'a Json, name: &str) -> Option<Value<'a>> {
    json.value().as_object()?.get(name)
}

#[derive(Serialize)]
pub(super) struct RevocationFields<'a> {
    pub(super) revocation: &'a RevocationNote<'a>,
}

#[derive(Serialize)]
pub(super) struct AdminFields<'a> {
    pub(super) admin: &'a AdminNote<'a>,
}

#[derive(Serialize)]
pub(super) struct ExecutableFields<'a> {
    pub(super) executable: &'a ExecutableNote<'a>,
}

#[derive(Serialize)]
pub(super) struct PinFields<'a> {
    pub(super) pin: &'a PinNote<'a>,
}

#[derive(Serialize)]
pub(super) struct StartFields<'a> {
    pub(super) start: &'a StartNote<'a>,
}

#[derive(Serialize)]
pub(super) struct StopFields<'a> {
    pub(super) stop: StopFacts<'a>,
}

#[derive(Serialize)]
pub(super) struct StopFacts<'a> {
    #[serde(serialize_with = "redact::serialize_words")]
    pub(super) cause: &'a str,
}

#[derive(Serialize)]
pub(super) struct NoiseFields {
    pub(super) noise: NoiseFacts,
}

#[derive(Serialize)]
pub(super) struct NoiseFacts {
    pub(super) reason: Reason,
    /// An address, an IPv6 /64, or `other` where there were too many; of a caller, who stands before it, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    pub(super) count: u64,
    pub(super) since: String,
}

#[derive(Serialize)]
pub(super) struct RepairFields {
    pub(super) repair: RepairFacts,
}

/// What was put right, or could not be.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct RepairFacts {
    /// `torn_tail`, `chain_broken`, `write_failed`.
    pub(super) problem: String,
    #[serde(skip_serializing_if = "String::is_empty", serialize_with = "redact_string")]
    pub(super) detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) segment: String,
    /// Bytes that were cut off.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) bytes: u64,
    /// SHA-256 of what was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// Calls that were refused because their intent could not be written, as far as they were queued.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) refused: u64,
    /// Lines that found no place in the queue.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dropped: u64,
}

#[derive(Serialize)]
pub(super) struct RetentionFields<'a> {
    pub(super) retention: RetentionFacts<'a>,
}

/// What is removed after this is on the record.
#[derive(Debug, Serialize)]
pub(super) struct RetentionFacts<'a> {
    /// The first record that goes.
    pub(super) first: u64,
    /// The last record that goes.
    pub(super) last: u64,
    /// Segment files.
    pub(super) segments: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The root of the tree over everything up to `last`, as it was signed.
    pub(super) root: Digest,
    /// `age` or `bytes`.
    pub(super) because: &'a str,
    /// Records that an export had not read, and that went because the disk was nearly full.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) unread: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field by reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn redact_string<S: serde::Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    redact::serialize_words(value, serializer)
}

/// The first lines of a segment that is not the first: what the writer knows and a reader of this
/// segment alone would not.
#[derive(Serialize)]
pub(super) struct RotationFields {
    pub(super) rotation: RotationFacts,
}

#[derive(Serialize)]
pub(super) struct RotationFacts {
    pub(super) epoch: RevocationEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<HistoryFacts>,
    /// Goes on with what the line before has begun.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) part: u64,
    pub(super) open: Vec<OpenLeg>,
}

/// The last epoch whose own number is told.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct HistoryFacts {
    pub(super) epoch: RevocationEpoch,
    pub(super) nonce: u32,
}

/// A leg whose result has not been written yet.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct OpenLeg {
    pub(super) call: CallId,
    pub(super) leg: LegId,
}
