//! Switches a control off, so that somebody can see that its test fails without it.
//!
//! Exists only in a build with the feature `inversion`, which no release has: without it [`is_off`] is `false` for the
//! compiler, and what hangs on it is gone. A build with the feature serves nobody but this machine ([`serves`]).
//!
//! `docs/controls.md` has a row for each control with the tests that prove it; `.ci/run inversion` runs each of them
//! twice, and a test that passes with its control switched off fails the run.

/// A control of `docs/controls.md` that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// C1: a client that nobody registered may not call.
    RegisteredAgent,
    /// C2: what an owner answers for stops when the owner is gone.
    Owner,
    /// C3: what no rule allows is refused.
    DefaultDeny,
    /// C4: a workload is who its trust domain says it is.
    Workload,
    /// C5: a token that lives too long is refused.
    TokenLife,
    /// C6: the use of a credential ends in time.
    CredentialLife,
    /// C7: what was given for a task ends with it.
    TaskEnd,
    /// C8: a deny wins.
    DenyWins,
    /// C9: what cannot be recorded is not forwarded.
    RecordFirst,
    /// C10: a task says what it is for where its template wants to know.
    Purpose,
    /// C11: a call that nobody saw end is recorded as unknown.
    UnknownOutcome,
    /// C12: a call passes every gate that it meets.
    Gates,
    /// C13: a call has to be part of its task.
    TaskScope,
    /// C14: a call under way ends when its caller's access does.
    Continuous,
    /// C15: a grant that nobody attests ends.
    Reviews,
    /// C16: a secret that is too old is named.
    Rotation,
    /// F2: what is called is what was accepted.
    Pins,
    /// C17: what was taken back is refused.
    Revocation,
    /// C18: what became of each credential is told.
    Report,
    /// C19: every actor of a chain has to be allowed.
    Chain,
    /// C20: what was seen keeps a call back.
    Flow,
    /// C21: a store hands on what its writers had seen.
    Stores,
    /// C22: a server whose owner is gone is there for nobody.
    ServerOwner,
    /// C23: an agent that is suspended, retired or expired may not act.
    Lifecycle,
    /// C24: nobody in time is a no, and an approval does not keep.
    ApprovalExpiry,
    /// C24: what was approved beforehand is used so often and no more.
    Standing,
    /// C12: emergency access is over in time.
    BreakGlass,
    /// C25: the trace goes on at the upstream.
    Trace,
}

impl Control {
    /// Every control that can be switched off.
    pub const ALL: &'static [Self] = &[
        Self::RegisteredAgent,
        Self::Owner,
        Self::DefaultDeny,
        Self::Workload,
        Self::TokenLife,
        Self::CredentialLife,
        Self::TaskEnd,
        Self::DenyWins,
        Self::RecordFirst,
        Self::Purpose,
        Self::UnknownOutcome,
        Self::Gates,
        Self::TaskScope,
        Self::Continuous,
        Self::Reviews,
        Self::Rotation,
        Self::Pins,
        Self::Revocation,
        Self::Report,
        Self::Chain,
        Self::Flow,
        Self::Stores,
        Self::ServerOwner,
        Self::Lifecycle,
        Self::ApprovalExpiry,
        Self::Standing,
        Self::BreakGlass,
        Self::Trace,
    ];

    /// Its name in `docs/controls.md` and in the environment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RegisteredAgent => "registered-agent",
            Self::Owner => "owner",
            Self::DefaultDeny => "default-deny",
            Self::Workload => "workload",
            Self::TokenLife => "token-life",
            Self::CredentialLife => "credential-life",
            Self::TaskEnd => "task-end",
            Self::DenyWins => "deny-wins",
            Self::RecordFirst => "record-first",
            Self::Purpose => "purpose",
            Self::UnknownOutcome => "unknown-outcome",
            Self::Gates => "gates",
            Self::TaskScope => "task-scope",
            Self::Continuous => "continuous",
            Self::Reviews => "reviews",
            Self::Rotation => "rotation",
            Self::Pins => "pins",
            Self::Revocation => "revocation",
            Self::Report => "report",
            Self::Chain => "chain",
            Self::Flow => "flow",
            Self::Stores => "stores",
            Self::ServerOwner => "server-owner",
            Self::Lifecycle => "lifecycle",
            Self::ApprovalExpiry => "approval-expiry",
            Self::Standing => "standing",
            Self::BreakGlass => "break-glass",
            Self::Trace => "trace",
        }
    }
}

/// Whether a control is switched off.
#[cfg(not(feature = "inversion"))]
#[must_use]
pub const fn is_off(_: Control) -> bool {
    false
}

/// Whether a control is switched off.
#[cfg(feature = "inversion")]
#[must_use]
pub fn is_off(control: Control) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| std::env::var("BAILIWICK_SWITCHED_OFF").unwrap_or_default());
    off.split(',').any(|name| name == control.name())
}

/// Whether this build may listen there: one whose controls can be switched off only on this machine.
#[must_use]
pub const fn serves(loopback: bool) -> bool {
    loopback || !cfg!(feature = "inversion")
}
