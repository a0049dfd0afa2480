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

use super::mandated::{MandateFacts, OwnerFacts};
use super::redact;
use super::who::Who;
use crate::ids::{
    CallId, DefinitionDigest, Digest, LegId, PinKind, PolicyRevision, ReplicaId, RevocationEpoch, ViewRevision,
};
use crate::outcome::Reason;

/// Who asked for what: the part that an intent, a refusal, a failure and a list have in common.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// The call.
    pub call: CallId,
    /// The request of that call.
    pub leg: LegId,
    /// Subject, agent, further actors and token.
    pub who: &'a Who,
    /// What was asked.
    pub mcp: Operation<'a>,
    /// The replica that handed it on, where one did.
    pub via: Option<ReplicaId>,
    /// The mandate that it names.
    pub mandate: Option<MandateFacts<'a>>,
    /// Who answers for agent and server.
    pub owners: OwnerFacts<'a>,
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
    /// Its groups, as rules spell them; absent where nobody knows them, and where there are too many to be told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_list")]
    pub groups: Option<&'a [&'a str]>,
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
    /// Its scopes; absent where there are too many to be told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_list")]
    pub scopes: Option<&'a [String]>,
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
    /// The request for approval that it uses up.
    pub approval: Option<&'a str>,
    /// What it does to the labels of its caller, where they are kept.
    pub labels: Option<LabelNote<'a>>,
}

/// What a call does to the labels of its caller.
#[derive(Debug, Clone, Serialize)]
pub struct LabelNote<'a> {
    /// What the caller had seen.
    pub before: Vec<&'static str>,
    /// What the caller has seen once it came back.
    pub after: Vec<&'static str>,
    /// What the tool does, as administrators have said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool: Vec<&'static str>,
    /// The stores that it writes into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<&'a str>,
    /// The entry that speaks against it, as `file:line`, where that is only written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<&'a str>,
    /// The entries that asked persons, as `file:line`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<&'a str>,
}

/// What a call has used up of one budget, and what was left of it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChargeNote {
    /// `mandate` or `agent`.
    pub of: &'static str,
    /// Which.
    pub id: String,
    /// `calls`, `bytes`, `minute` or `day`.
    pub what: String,
    /// So much of it.
    pub charged: i64,
    /// So much more fits.
    pub left: i64,
    /// So much was used up then.
    pub used: i64,
    /// Of which minute or day, counted since 1970: the line may be written after its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<i64>,
}

/// What is kept of an upstream credential.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CredentialNote<'a> {
    /// `none`, `static`, `exchange`, `client_credentials`, `id_jag`.
    pub kind: &'a str,
    /// Its name in the ledger of issued credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue: Option<&'a str>,
    /// The audience that it is good for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub audience: Option<&'a str>,
    /// Its `jti`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub id: Option<&'a str>,
    /// When it expires by itself, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// When its use ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_until: Option<i64>,
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
    /// `token`, `session`, `key`, `subject`, `client`, `agent`, `owner`, `server`, `credential`, `mandate`, `account` or
    /// `everything`.
    pub target: &'a str,
    /// The issuer's alias, for subjects and clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    /// What was named: a `jti` or digest, a `sid`, a `sub`, a client id, an agent, an owner, a server.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub value: Option<&'a str>,
    /// `block` or `sign_out`.
    pub mode: &'a str,
    /// For a sign-out: what was issued before this moment, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// Whether it was lifted: it holds no more from this epoch on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lifted: bool,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    pub note: &'a str,
    /// The replica where it was ordered, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<ReplicaId>,
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
    /// What tells it from the same epoch of another history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u32>,
}

/// An administrator's operation as the record tells it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AdminNote<'a> {
    /// What was done, or asked for.
    pub operation: &'static str,
    /// The object of its rules.
    pub object: &'static str,
    /// Who: `host:UID`, `user:...`, or `agent:...` where nobody stands behind it.
    pub actor: &'a str,
    /// `host`, `user` or `agent`.
    #[serde(skip)]
    pub actor_kind: &'static str,
    /// It took something back, or tried to: that is told with the last room that there is.
    #[serde(skip)]
    pub brakes: bool,
    /// The client id as the token has it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub client: Option<&'a str>,
    /// `begun`, `done`, `refused` or `failed`.
    pub outcome: &'static str,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The rule that decided, as `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
    /// What it was about.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    pub about: &'a str,
    /// What came of it.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    pub detail: &'a str,
}

/// What happened to a request for approval, as the record tells it.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalNote<'a> {
    /// `requested`, `confirmed`, `viewed`, `approved`, `refused`, `denied`, `voided`, `expired` or `consumed`; of a
    /// standing approval `standing_proposed`, `standing_approved`, `standing_used`, `standing_revoked`, `standing_void`;
    /// of emergency access `break_glass_` and `asked`, `agreed`, `opened`, `used`, `ended`, `reviewed`.
    pub event: &'static str,
    /// The request.
    pub id: &'a str,
    /// What it is good for; only a keyed digest is kept.
    pub binding: Digest,
    /// The gates that asked for it.
    pub gates: &'a [String],
    /// The server.
    pub server: &'a str,
    /// The primitive, in the server's spelling.
    pub name: &'a str,
    /// Where its effects land.
    pub environment: &'a str,
    /// Who called.
    pub requester: &'a str,
    /// Who has approved.
    pub approvers: &'a [ApproverNote<'a>],
    /// The policy of the first call.
    pub revision: PolicyRevision,
    /// The digest of what approvers were shown; only a keyed digest is kept.
    pub shown: Digest,
    /// What is to be said beside that.
    pub detail: &'a str,
}

/// Who has approved.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ApproverNote<'a> {
    /// As rules spell them.
    #[serde(serialize_with = "redact::serialize")]
    pub id: &'a str,
    /// When they logged in, seconds since 1970.
    pub authenticated_at: i64,
    /// How.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub acr: Option<&'a str>,
}

/// That a request was handed to another replica, as the record of the one that did tells it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RelayNote<'a> {
    /// To which one; its record tells of the rest.
    pub to: ReplicaId,
    /// `GET`, `POST` or `DELETE`.
    pub verb: &'a str,
    /// The HTTP status of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
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

/// What a server runs, as the record tells it when it was not the same before.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ExecutableNote<'a> {
    /// The server.
    pub server: &'a str,
    /// The file, without links.
    #[serde(serialize_with = "redact::serialize")]
    pub path: &'a str,
    /// Its SHA-256.
    pub digest: Digest,
    /// What it ran before, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
}

/// That a definition is accepted, rejected or kept back from now on, as the record tells it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PinNote<'a> {
    /// The server that lists it.
    pub server: &'a str,
    /// `tool`, `prompt`, `template` or `instructions`.
    pub kind: PinKind,
    /// Its name.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize")]
    pub name: &'a str,
    /// Its digest.
    pub digest: DefinitionDigest,
    /// `accepted`, `rejected` or `quarantined`.
    pub state: &'static str,
    /// What was accepted under this name before; a definition that changed has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<DefinitionDigest>,
    /// The name that nearly the same had before.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub renamed_from: Option<&'a str>,
    /// What is odd about it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub flags: &'a [&'static str],
    /// Who accepted or rejected it: `user:...`, `host:UID`, `first_use`; nobody keeps it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<&'a str>,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    pub note: &'a str,
    /// The epoch that includes it, where an administrator decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<RevocationEpoch>,
    /// How many definitions were decided with that epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub together: Option<usize>,
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

fn prefix<S: serde::Serializer>(digest: &&Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest.short())
}
