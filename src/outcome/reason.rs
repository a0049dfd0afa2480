//! The stable reason codes: one list, from which the code, the documentation and the tests are checked.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a reason reaches the client; the table in [`super::reply`] has the exact bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// HTTP 401 with a challenge.
    Unauthorized,
    /// HTTP 403 with a scope challenge.
    InsufficientScope,
    /// HTTP 403 without a challenge.
    Forbidden,
    /// HTTP 400 with a JSON-RPC error of this code.
    BadRequest(i32),
    /// HTTP 404 with a JSON-RPC error of this code (modern), 200 (legacy).
    NotFound(i32),
    /// HTTP 413.
    TooLarge,
    /// HTTP 429 with `Retry-After`.
    TooManyRequests,
    /// HTTP 503.
    Unavailable,
    /// A JSON-RPC error of this code; HTTP 200.
    RpcError(i32),
    /// An `isError` result for `tools/call`, a JSON-RPC error of this code elsewhere; HTTP 200.
    ToolResult(i32),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $channel:expr, $hint:literal;)*) => {
        /// A stable reason code: what a client, a log filter and an alert may rely on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as records and clients spell it.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How it reaches the client.
            #[must_use]
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => $channel,)* }
            }

            /// What the caller can do about it.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

reasons! {
    // === who asks ===
    /// No credential came with the request.
    TokenMissing = "token_missing", Channel::Unauthorized, "send an access token of one of the configured issuers";
    /// The credential is not a token that we can read.
    TokenMalformed = "token_malformed", Channel::Unauthorized, "send an unmodified JWT access token";
    /// `exp` has passed.
    TokenExpired = "token_expired", Channel::Unauthorized, "get a new access token";
    /// `nbf` or `iat` lies ahead.
    TokenNotYetValid = "token_not_yet_valid", Channel::Unauthorized, "check the clocks of the issuer and the gateway";
    /// Valid for longer than `token_life_max`.
    TokenLifetimeExceeded = "token_lifetime_exceeded", Channel::Unauthorized, "have the issuer mint access tokens that live shorter";
    /// `iss` is not a configured issuer.
    IssuerUnknown = "issuer_unknown", Channel::Unauthorized, "use a token of one of the configured issuers";
    /// `aud` does not name this resource.
    AudienceMismatch = "audience_mismatch", Channel::Unauthorized, "request the token for this resource (RFC 8707 resource parameter)";
    /// The signature does not verify.
    SignatureInvalid = "signature_invalid", Channel::Unauthorized, "send an unmodified token of the issuer that it names";
    /// `alg` is not on the issuer's list.
    AlgorithmRefused = "algorithm_refused", Channel::Unauthorized, "have the issuer sign with an allowed algorithm";
    /// `typ` is not an access token's.
    TokenTypeRefused = "token_type_refused", Channel::Unauthorized, "send an access token, not an ID token";
    /// A claim that RFC 9068 requires is missing.
    ClaimMissing = "claim_missing", Channel::Unauthorized, "have the issuer follow RFC 9068, or list the claim under optional_claims";
    /// The token is bound to a key and came as a plain bearer.
    TokenBound = "token_bound", Channel::Unauthorized, "present the token with its proof of possession";
    /// The token is bound to nothing, and its issuer's tokens have to be, or it came as DPoP.
    TokenUnbound = "token_unbound", Channel::Unauthorized, "get a token that is bound to a key of the client (DPoP) or to its certificate (mutual TLS)";
    /// There is no DPoP proof, or it was not made for this request, this token and its key.
    DpopProofInvalid = "dpop_proof_invalid", Channel::Unauthorized, "send a fresh DPoP proof for this request, signed with the key that the token is bound to";
    /// The DPoP proof came before.
    DpopProofReplayed = "dpop_proof_replayed", Channel::Unauthorized, "make a new DPoP proof for each request";
    /// The DPoP proof has no nonce of this gateway, or an old one.
    DpopNonceRequired = "dpop_nonce_required", Channel::Unauthorized, "make the DPoP proof with the nonce of the DPoP-Nonce header";
    /// More DPoP proofs than can be told apart.
    DpopProofsLimited = "dpop_proofs_limited", Channel::TooManyRequests, "slow down";
    /// The token is bound to another client certificate, or came without one.
    CertificateMismatch = "certificate_mismatch", Channel::Unauthorized, "connect with the client certificate that the token is bound to";
    /// The client certificate cannot be read, or is no identity that is known here.
    CertificateRefused = "certificate_refused", Channel::Unauthorized, "connect with a certificate of a declared trust domain, or send a token";
    /// The client certificate and the token name different agents.
    IdentityMismatch = "identity_mismatch", Channel::Unauthorized, "send the token of the agent that the client certificate names";
    /// The issuer's keys cannot be had.
    IssuerUnavailable = "issuer_unavailable", Channel::Unavailable, "try again shortly";
    /// The issuer says that the opaque token is not active.
    TokenInactive = "token_inactive", Channel::Unauthorized, "get a new access token; the issuer does not know this one, or not any more";
    /// No agent has this API key.
    KeyUnknown = "key_unknown", Channel::Unauthorized, "use an API key that stands in the agent's entry in policies/agents.toml";
    /// Token, session, subject, client, agent, its owner or everything has been revoked.
    Revoked = "revoked", Channel::Unauthorized, "access was taken back; ask an administrator";
    /// Groups are configured but the token does not have all of them.
    GroupsUnavailable = "groups_unavailable", Channel::Forbidden, "have the issuer put all groups into the access token";
    /// The client is not a registered agent.
    AgentUnknown = "agent_unknown", Channel::Forbidden, "ask an administrator to register this client";
    /// The agent is suspended, retired or expired.
    AgentInactive = "agent_inactive", Channel::Forbidden, "ask the agent's owner";
    /// An agent that acts on its own came with no more proof than a public client id.
    ClientProofInsufficient = "client_proof_insufficient", Channel::Forbidden, "an agent that acts on its own needs a client that proves itself to its issuer, and says how in policies/agents.toml";
    /// The delegation chain is too deep, loops or names somebody unknown.
    ChainRefused = "chain_refused", Channel::Unauthorized, "shorten the delegation chain and register each actor";
    /// Giving something back needs a person with an administrators' client, at the administrators' listener.
    AdministratorRequired = "administrator_required", Channel::Forbidden, "this gives something back: a person has to do it at the administrators' listener, with an administrators' client";
    /// The login is too old, or not of the kind that giving something back needs (RFC 9470).
    InsufficientUserAuthentication = "insufficient_user_authentication", Channel::Unauthorized, "log in again: this needs a login of a moment ago, of the kind that acr_values names";
    /// Whoever sent news of an identity provider has not proven that it may.
    FeedRefused = "feed_refused", Channel::Unauthorized, "present the secret of the feed as a bearer token";
    /// News of an identity provider are not what the specification of the feed defines.
    FeedMessageInvalid = "feed_message_invalid", Channel::BadRequest(-32600), "send what the specification of the feed defines";
    /// News that were taken already.
    FeedReplayed = "feed_replayed", Channel::BadRequest(-32600), "every message is taken once: send a new one";
    /// News of an identity provider name somebody of another issuer.
    FeedSubjectForeign = "feed_subject_foreign", Channel::Forbidden, "a feed may only name people of its own issuer";
    // === what is asked ===
    /// The body is not one JSON-RPC message within the limits.
    MessageMalformed = "message_malformed", Channel::BadRequest(-32700), "send one JSON-RPC 2.0 message";
    /// The message is JSON but not a request that can be served.
    RequestInvalid = "request_invalid", Channel::BadRequest(-32600), "send one JSON-RPC 2.0 request";
    /// Parameters are missing or of the wrong type.
    ParametersInvalid = "parameters_invalid", Channel::RpcError(-32602), "send the parameters that the method defines";
    /// A required `_meta` key is missing or malformed.
    MetaInvalid = "meta_invalid", Channel::BadRequest(-32602), "send protocolVersion and clientCapabilities in _meta";
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", Channel::TooLarge, "send a smaller request";
    /// A header and the body disagree.
    HeaderMismatch = "header_mismatch", Channel::BadRequest(-32020), "send headers that equal the body";
    /// The protocol version is not supported.
    VersionUnsupported = "version_unsupported", Channel::BadRequest(-32022), "use one of the supported versions";
    /// The client did not declare a capability that this needs.
    CapabilityMissing = "capability_missing", Channel::BadRequest(-32021), "declare the capability, or use a client that has it";
    /// The method does not exist here.
    MethodUnknown = "method_unknown", Channel::NotFound(-32601), "use a method of the protocol version";
    /// The legacy session is gone, was never there, or is another's.
    SessionUnknown = "session_unknown", Channel::NotFound(-32600), "initialize a new session";
    /// The `Origin` is not allowed.
    OriginRefused = "origin_refused", Channel::Forbidden, "add the origin to allowed_origins";
    /// The `Host` is not ours.
    HostRefused = "host_refused", Channel::Forbidden, "use the gateway's public_url";
    /// Hidden, or it does not exist.
    TargetUnknown = "target_unknown", Channel::RpcError(-32602), "list again";
    /// The URI is spelled in a way that could confuse the matcher.
    UriRefused = "uri_refused", Channel::RpcError(-32602), "send a plain URI without dot segments, encoded separators or userinfo";
    /// It is listed, and nobody has accepted its definition as it is now; told like what does not exist.
    DefinitionQuarantined = "definition_quarantined", Channel::RpcError(-32602), "an administrator looks at it: bailiwick pins list";
    // === whether it may ===
    /// A deny rule matches.
    DeniedByRule = "denied_by_rule", Channel::ToolResult(-32602), "this is not allowed here; ask the server's owner";
    /// No allow rule matches.
    NotAllowed = "not_allowed", Channel::ToolResult(-32602), "nothing allows this; ask the server's owner";
    /// An allow rule's condition does not hold for these arguments.
    ConditionUnmet = "condition_unmet", Channel::ToolResult(-32602), "these arguments are outside of what is allowed";
    /// The agent may not act in the server's environment.
    EnvironmentRefused = "environment_refused", Channel::ToolResult(-32602), "this agent may not act in that environment";
    /// The token lacks scopes that this operation needs.
    InsufficientScope = "insufficient_scope", Channel::InsufficientScope, "authorize again with the scopes that are named";
    /// The policy could not decide; that refuses.
    PolicyUnavailable = "policy_unavailable", Channel::ToolResult(-32603), "tell an administrator";
    /// The agent acts on its own, and the call names no mandate.
    MandateRequired = "mandate_required", Channel::ToolResult(-32602), "open a mandate for this task, and send its handle with each call";
    /// The handle is not ours, another caller's, or of a mandate that is not there any more.
    MandateUnknown = "mandate_unknown", Channel::ToolResult(-32602), "send the handle that opening the mandate gave to this caller";
    /// The mandate is not for this tool, environment or these arguments.
    MandateScope = "mandate_scope", Channel::ToolResult(-32602), "this lies outside of the mandate; open one that it is part of";
    /// The mandate was completed, has expired or was taken back.
    MandateEnded = "mandate_ended", Channel::ToolResult(-32602), "the mandate is over; open another one if the task goes on";
    /// The mandate that is asked for is wider than whoever asks may open.
    MandateRefused = "mandate_refused", Channel::ToolResult(-32602), "ask for what a template and the mandate above it leave";
    /// The tool asks what each call is for, and the call does not say.
    IntentRequired = "intent_required", Channel::ToolResult(-32602), "say what the call is for: send `dev.bailiwick/intent` with a `purpose` in `_meta`";
    /// The mandate's or the agent's budget is used up.
    BudgetExhausted = "budget_exhausted", Channel::ToolResult(-32602), "the budget is used up; ask whoever gave it";
    /// Too many of the tool's last calls have failed, whoever made them: it is closed for a while.
    ToolSuspended = "tool_suspended", Channel::ToolResult(-32603), "too many of its calls have failed, whoever made them; try again later";
    /// What its caller has seen may not go where it goes.
    FlowRefused = "flow_refused", Channel::ToolResult(-32602), "what was seen before may not go there; finish without it, or have two administrators take the label off (bailiwick labels declassify)";
    /// Too many requests a second, or in this minute more calls than a mandate or an agent may make.
    RateLimited = "rate_limited", Channel::TooManyRequests, "slow down";
    /// Too many refusals of whoever came from there; nothing was looked at.
    StrangersLimited = "strangers_limited", Channel::TooManyRequests, "too much that was refused came from your address: wait, and come with a good token";
    /// Too many calls in flight, or too many bytes in bodies and unread answers.
    ConcurrencyLimited = "concurrency_limited", Channel::TooManyRequests, "wait for earlier calls to finish";
    /// Too many open streams.
    StreamsLimited = "streams_limited", Channel::TooManyRequests, "close a stream first";
    /// The server asked for something that rules or its list of hosts do not let it ask.
    InputRefused = "input_refused", Channel::ToolResult(-32602), "the server asked for input that it may not ask for here; ask its owner";
    /// The `requestState` is not ours, another caller's, or another call's; or it was used, where calls are counted.
    InputStateInvalid = "input_state_invalid", Channel::RpcError(-32602), "retry with the requestState and the arguments of the call, unchanged, or start over";
    /// The call that asked waited too long, was ended, or was answered already.
    InputExpired = "input_expired", Channel::ToolResult(-32602), "the call that asked for this input is over; start it again";
    /// The client answered a question of the server with an error.
    InputDeclined = "input_declined", Channel::ToolResult(-32602), "the client did not give the input that the server asked for";
    /// Too many calls wait for input.
    InputLimited = "input_limited", Channel::ToolResult(-32603), "answer or cancel earlier calls that wait for input first";
    // === what people say ===
    /// A gate wants somebody else's approval of this very call.
    ApprovalRequired = "approval_required", Channel::ToolResult(-32602), "a person has to approve this call: wait, then repeat the identical call";
    /// A gate wants whoever calls to confirm this very call.
    ConfirmationRequired = "confirmation_required", Channel::ToolResult(-32602), "this call has to be confirmed by its user, whom this client cannot ask: use a client that declares elicitation";
    /// Whoever calls has said no.
    ConfirmationDeclined = "confirmation_declined", Channel::ToolResult(-32602), "the user did not confirm this call";
    /// Somebody who may has said no.
    ApprovalDenied = "approval_denied", Channel::ToolResult(-32602), "somebody who may has denied this call";
    /// What was approved has been used, or was at this moment.
    ApprovalConsumed = "approval_consumed", Channel::ToolResult(-32602), "what was approved has been used once: call again to ask for another approval";
    /// Gates or approvers have changed since it was approved.
    ApprovalVoid = "approval_void", Channel::ToolResult(-32602), "what this call needs has changed since it was approved: call again";
    /// A gate wants somebody else's approval, and nobody can tell who else that is: the caller's token does not say which
    /// person they are.
    PersonUnknown = "person_unknown", Channel::ToolResult(-32602), "nobody can approve this call, because your token does not say which person you are: have the issuer put its `person` claim into tokens for MCP";
    /// Too many requests of one caller wait for somebody.
    ApprovalsLimited = "approvals_limited", Channel::ToolResult(-32603), "wait until earlier calls were approved, denied or have expired";
    /// Arguments that nobody can approve: too much to look at, or numbers that two readers could read differently.
    ArgumentsUnfit = "arguments_unfit", Channel::ToolResult(-32602), "these arguments cannot be shown to whoever approves";
    /// Somebody cannot approve this call: they have a part in it, no gate names them, or nobody knows which person they are.
    ApproverRefused = "approver_refused", Channel::Forbidden, "somebody else has to approve this";
    /// A standing approval is asked for where there is none: for what cannot be undone, what its caller has to confirm,
    /// or what belongs to one task alone.
    StandingRefused = "standing_refused", Channel::Forbidden, "these calls are approved one by one";
    /// The emergency access that a call was begun with is over.
    BreakGlassOver = "break_glass_over", Channel::ToolResult(-32602), "the emergency access is over; ask for it again if the emergency is not";
    /// A request that was used, denied or has expired.
    ApprovalOver = "approval_over", Channel::RpcError(-32602), "there is nothing left to decide";
    /// A request that changed while somebody looked at it.
    ApprovalChanged = "approval_changed", Channel::RpcError(-32602), "look at the request again";
    // === what went wrong ===
    /// The credential for the upstream could not be had.
    CredentialUnavailable = "credential_unavailable", Channel::ToolResult(-32603), "tell an administrator";
    /// The authorization server refused the exchange.
    ExchangeRefused = "exchange_refused", Channel::ToolResult(-32603), "the authorization server refused a token for this upstream; ask an administrator";
    /// The caller has no account at the server that could be used, and has to link one.
    AccountLinkRequired = "account_link_required", Channel::ToolResult(-32603), "this server is called with your own account there: link it first, and then call again";
    /// The caller's token says who may act for its subject (`may_act`), and that is not us.
    MayActRefused = "may_act_refused", Channel::ToolResult(-32603), "your token does not let this gateway act for you; ask whoever issues it";
    /// A token for the upstream would live longer than `token_life_max` of its credential.
    CredentialLifeExceeded = "credential_life_exceeded", Channel::ToolResult(-32603), "tell an administrator: the authorization server issues tokens that live too long";
    /// The secret for the upstream is older than its `max_age`, and is to be refused then.
    CredentialStale = "credential_stale", Channel::ToolResult(-32603), "tell an administrator: the secret for this server has to be replaced";
    /// The intent could not be recorded; that refuses.
    RecordUnavailable = "record_unavailable", Channel::Unavailable, "try again shortly";
    /// The store cannot be read; that refuses.
    StoreUnavailable = "store_unavailable", Channel::Unavailable, "try again shortly";
    /// What was asked for is bound to another replica, which does not answer; nothing was sent.
    ReplicaUnreachable = "replica_unreachable", Channel::Unavailable, "try again shortly";
    /// The replica that what was asked for is bound to went away in the middle.
    ReplicaLost = "replica_lost", Channel::ToolResult(-32603), "the replica that had this went away; it may have acted";
    /// No connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable", Channel::ToolResult(-32603), "the server behind this tool is down; try again later";
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout", Channel::ToolResult(-32603), "the server behind this tool did not answer in time; it may still act";
    /// The server was revoked while the call was under way; it may have acted.
    ServerRevoked = "server_revoked", Channel::ToolResult(-32603), "the server behind this tool was taken back while it worked; ask its owner";
    /// The upstream closed the connection or died mid-call.
    UpstreamClosed = "upstream_closed", Channel::ToolResult(-32603), "the server behind this tool went away; it may have acted";
    /// The upstream answered something that is not MCP.
    UpstreamGarbage = "upstream_garbage", Channel::ToolResult(-32603), "the server behind this tool answered something unreadable; it may have acted";
    /// The upstream refused our credential or answered with an HTTP error.
    UpstreamStatus = "upstream_status", Channel::ToolResult(-32603), "the server behind this tool refused the request";
    /// The upstream has too much to do already.
    UpstreamBusy = "upstream_busy", Channel::ToolResult(-32603), "the server behind this tool is busy; try again shortly";
    /// The upstream session with its state is gone.
    UpstreamSessionLost = "upstream_session_lost", Channel::ToolResult(-32603), "the server behind this tool lost its session; start over";
    /// All upstreams failed, so there is no list to show.
    CatalogUnavailable = "catalog_unavailable", Channel::RpcError(-32603), "no server behind the gateway answers; try again later";
    /// The client went away.
    Cancelled = "cancelled", Channel::RpcError(-32603), "the request was cancelled";
    /// The gateway is stopping.
    ShuttingDown = "shutting_down", Channel::Unavailable, "try again shortly";
    /// A defect of ours; it refuses.
    Internal = "internal", Channel::RpcError(-32603), "tell an administrator";
}

impl Reason {
    /// The reason with that code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::from_code(&code).ok_or_else(|| D::Error::custom(format!("there is no reason `{code}`")))
    }
}
