//! The record's format, version 1: what each kind of line says.
//!
//! Decides which facts are kept of a call, a refusal and an administrator's act. Refuses to know how
//! they were found: it receives plain borrowed facts from the proofs. Invariant: a line never holds a
//! credential or raw arguments, and every text in it that somebody outside chose was redacted and cut.
//!
//! Every line is `{"v":1,"seq":N,"prev":"...","replica":"...","at":"...","type":"..."}`, then
//! `call` and `leg` where it belongs to a call, then the fields of its kind.

use serde::Serialize;
use serde_json::value::RawValue;

use super::keys::{JournalKey, KeyedDigest};
use super::redact;
use crate::ids::{CallId, DefinitionDigest, Digest, LegId, PolicyRevision, RevocationEpoch, ViewRevision};
use crate::limit;
use crate::outcome::{Origin, Outcome, Reason, Stop};
use crate::wire::Json;

/// Who asked for what: the part that an intent, a refusal, a failure and a list have in common.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// The call.
    pub call: CallId,
    /// The request of that call.
    pub leg: LegId,
    /// The human or service subject.
    pub subject: Option<SubjectFacts<'a>>,
    /// The agent and its client.
    pub agent: Option<ActorFacts<'a>>,
    /// Further actors, outermost first, as rules spell them.
    pub chain: Vec<&'a str>,
    /// The token that was presented.
    pub token: Option<TokenNote<'a>>,
    /// What was asked.
    pub mcp: Operation<'a>,
    /// The policy that decided, where one did.
    pub revision: Option<PolicyRevision>,
    /// The revocation epoch that was looked at.
    pub epoch: RevocationEpoch,
}

/// The subject of a call.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SubjectFacts<'a> {
    /// As rules spell it: `user:ISSUER/SUB`.
    #[serde(serialize_with = "redact::serialize")]
    pub id: &'a str,
    /// Authentication context class.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub acr: Option<&'a str>,
    /// When the human authenticated, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authenticated_at: Option<i64>,
}

/// The software that called.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ActorFacts<'a> {
    /// The registered agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The client id as the token has it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub client: Option<&'a str>,
    /// How the client proved itself.
    pub proof: &'static str,
}

/// What is kept of a token: enough to revoke it, not enough to use it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct TokenNote<'a> {
    /// The issuer's alias.
    pub issuer: &'a str,
    /// `jti`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub id: Option<&'a str>,
    /// The first 12 digits of the token's SHA-256.
    #[serde(serialize_with = "prefix")]
    pub digest: &'a Digest,
    /// `exp`, seconds since 1970.
    pub expires_at: i64,
}

/// What was asked, in the protocol's terms.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Operation<'a> {
    /// The JSON-RPC method.
    #[serde(serialize_with = "redact::serialize")]
    pub method: &'a str,
    /// The protocol version of the request.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub protocol: Option<&'a str>,
    /// The upstream's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<&'a str>,
    /// The environment of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<&'a str>,
    /// The primitive, in the upstream's spelling where it was resolved, else as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub name: Option<&'a str>,
    /// The digest of its definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionDigest>,
}

/// What is about to be forwarded: a borrowed view of the proofs.
#[derive(Debug, Clone)]
pub struct Intent<'a> {
    /// Who asked for what.
    pub attempt: Attempt<'a>,
    /// The rule that allowed it, as `file:line`.
    pub rule: Option<&'a str>,
    /// What is presented to the upstream.
    pub credential: CredentialNote<'a>,
    /// The arguments as JSON; only a keyed digest and their length are kept.
    pub arguments: Option<&'a [u8]>,
    /// The values that conditions read.
    pub values: &'a [ConditionValue],
}

/// What is kept of an upstream credential.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CredentialNote<'a> {
    /// `none`, `static`, `exchange`.
    pub kind: &'a str,
    /// The audience that it is good for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub audience: Option<&'a str>,
    /// Its `jti`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub id: Option<&'a str>,
    /// When its use ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// One value that a condition read.
#[derive(Debug, Clone)]
pub struct ConditionValue {
    /// The fact's name, such as `argument.amount`.
    pub name: String,
    /// The value as JSON.
    pub value: Box<RawValue>,
}

/// What a filtered list showed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Listing {
    /// Items that the caller was shown, all pages.
    pub shown: usize,
    /// The view they were taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewRevision>,
}

/// A revocation as the record tells it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RevocationNote<'a> {
    /// Who did it: `user:...` or `host:UID`.
    pub actor: &'a str,
    /// `token`, `session`, `subject`, `client` or `everything`.
    pub target: &'a str,
    /// The issuer's alias, for subjects and clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    /// What was named: a `jti` or digest, a `sid`, a `sub`, a client id.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub value: Option<&'a str>,
    /// `block` or `sign_out`.
    pub mode: &'a str,
    /// For a sign-out: what was issued before this moment, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize")]
    pub note: &'a str,
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
}

/// A reload as the record tells it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReloadNote<'a> {
    /// Who asked: `host:UID`, `signal`, `watch`, `user:...`.
    pub actor: &'a str,
    /// The revision before.
    pub from: Option<PolicyRevision>,
    /// The revision after, where it was loaded.
    pub to: Option<PolicyRevision>,
    /// Rows that are new.
    pub added: &'a [String],
    /// Rows that are gone.
    pub removed: &'a [String],
    /// Why it was not loaded.
    pub problem: Option<&'a str>,
}

/// The circumstances of a start.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StartNote<'a> {
    /// The gateway's version.
    pub version: &'a str,
    /// The policy that is served first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<PolicyRevision>,
    /// The store's epoch.
    pub epoch: RevocationEpoch,
    /// `fsync` or `os`.
    pub durability: &'a str,
}

// === lines ===

/// The fields of a kind; what [`Attempt`] holds is written first.
#[derive(Serialize)]
pub(super) struct CallFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a SubjectFacts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a ActorFacts<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    chain: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a TokenNote<'a>>,
    mcp: &'a Operation<'a>,
    decision: DecisionFields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a CredentialNote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<ArgumentFields<'a>>,
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
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
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

fn prefix<S: serde::Serializer>(digest: &&Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest.short())
}

impl<'a> CallFields<'a> {
    fn new(attempt: &'a Attempt<'a>, decision: DecisionFields<'a>) -> Self {
        Self {
            subject: attempt.subject.as_ref(),
            agent: attempt.agent.as_ref(),
            chain: &attempt.chain,
            token: attempt.token.as_ref(),
            mcp: &attempt.mcp,
            decision,
            credential: None,
            arguments: None,
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
        Self { credential: Some(&intent.credential), arguments, ..Self::new(attempt, decision) }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
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
}

impl<'a> ResultFacts<'a> {
    const fn bare(outcome: &'static str, latency_us: Option<u64>) -> Self {
        Self {
            outcome,
            is_error: false,
            origin: None,
            code: None,
            reason: None,
            detail: None,
            may_have_acted: None,
            hmac: None,
            key: None,
            bytes: None,
            latency_us,
        }
    }

    /// Nobody said how it ended.
    pub(super) const fn unknown(detail: &'a str, latency_us: Option<u64>) -> Self {
        Self { detail: Some(detail), may_have_acted: Some(true), ..Self::bare("unknown", latency_us) }
    }

    /// The intent was written, and then nothing was forwarded.
    pub(super) const fn not_forwarded(reason: Reason) -> Self {
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
            Outcome::Complete(result) => Self { is_error: is_error(result), ..digested("complete", result) },
            Outcome::InputRequired { origin, result } => Self {
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

/// Whether a tool's result says that the tool failed.
fn is_error(result: &Json) -> bool {
    // Large results that never say so are not walked.
    memchr::memmem::find(result.as_bytes(), b"\"isError\"").is_some()
        && result.value().as_object().and_then(|result| result.get("isError")?.as_bool()).unwrap_or(false)
}

fn error_code(error: &Json) -> Option<i64> {
    error.value().as_object()?.get("code")?.as_i64()
}

#[derive(Serialize)]
pub(super) struct RevocationFields<'a> {
    pub(super) revocation: &'a RevocationNote<'a>,
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
    #[serde(serialize_with = "redact::serialize")]
    pub(super) cause: &'a str,
}

#[derive(Serialize)]
pub(super) struct ReloadFields<'a> {
    reload: ReloadFacts<'a>,
}

#[derive(Serialize)]
struct ReloadFacts<'a> {
    actor: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<PolicyRevision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<PolicyRevision>,
    added: usize,
    removed: usize,
    /// Each row with a `+` or `-` before it, removed ones first: they are what widens or narrows most often.
    rows: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    problem: Option<&'a str>,
}

impl<'a> ReloadFields<'a> {
    pub(super) fn new(note: &ReloadNote<'a>) -> Self {
        let row = |sign: char, row: &str| format!("{sign} {}", redact::text(row));
        let rows = note.removed.iter().map(|text| row('-', text)).chain(note.added.iter().map(|text| row('+', text)));
        let reload = ReloadFacts {
            actor: note.actor,
            outcome: if note.problem.is_some() { "refused" } else { "loaded" },
            from: note.from,
            to: note.to,
            added: note.added.len(),
            removed: note.removed.len(),
            rows: rows.take(limit::RECORD_ROWS_MAX).collect(),
            problem: note.problem,
        };
        Self { reload }
    }
}

#[derive(Serialize)]
pub(super) struct NoiseFields {
    pub(super) noise: NoiseFacts,
}

#[derive(Serialize)]
pub(super) struct NoiseFacts {
    pub(super) reason: Reason,
    /// An address, an IPv6 /64, or `other` where there were too many.
    pub(super) source: String,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field by reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn redact_string<S: serde::Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    redact::serialize(value, serializer)
}

/// The first line of a segment that is not the first: what the writer knows and a reader of this
/// segment alone would not.
#[derive(Serialize)]
pub(super) struct RotationFields {
    pub(super) rotation: RotationFacts,
}

#[derive(Serialize)]
pub(super) struct RotationFacts {
    pub(super) epoch: RevocationEpoch,
    pub(super) open: Vec<OpenLeg>,
}

/// A leg whose result has not been written yet.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct OpenLeg {
    pub(super) call: CallId,
    pub(super) leg: LegId,
}
