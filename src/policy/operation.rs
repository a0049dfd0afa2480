//! The gateway's own operations: the objects `bailiwick/NAME` that rules may speak about, action `admin`.
//!
//! Decides which there are and how much each weighs: a name that a file spells wrongly is a mistake, because a rule
//! that never matches loses a deny. Refuses to know how they are carried out. Invariant: no wildcard over servers
//! means one of these; only a rule that spells `bailiwick/` does.

use super::object::{self, ObjectPattern, PatternKind};
use super::world::GATEWAY_SERVER;
use crate::ids::TemplateName;

/// How much an operation weighs: braking is easy, loosening is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It shows something.
    Look,
    /// It takes something back.
    Brake,
    /// It gives something back: a person has to stand behind it who has just logged in.
    Loosen,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $spelled:literal, $weight:ident;)*) => {
        /// An operation of the gateway's own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AdminOperation { $($(#[$doc])* $name,)* }

        impl AdminOperation {
            /// Every operation, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as in `bailiwick/NAME`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $spelled,)* }
            }

            /// The object of its rules.
            #[must_use]
            pub const fn object(self) -> &'static str {
                match self { $(Self::$name => concat!("bailiwick/", $spelled),)* }
            }

            /// How much it weighs where nothing of what is ordered makes it heavier.
            #[must_use]
            pub const fn weight(self) -> Weight {
                match self { $(Self::$name => Weight::$weight,)* }
            }
        }
    };
}

operations! {
    /// The version, the revisions in force, and what is in the way of serving.
    Status = "status", Look;
    /// The servers, and why one is down.
    Servers = "servers", Look;
    /// The agents of the files, and whether they may act.
    Agents = "agents", Look;
    /// The policy in force: its revision, its seal, and what the last reload changed.
    Policy = "policy", Look;
    /// The metrics.
    Metrics = "metrics", Look;
    /// What the next policies would change.
    Shadow = "shadow", Look;
    /// The record, as it is written.
    Logs = "logs", Look;
    /// Who may do what, and why; evaluates and never calls.
    Explain = "explain", Look;
    /// What has been taken back.
    Revocations = "revocations", Look;
    /// Which credentials were issued for whom, and until when.
    Credentials = "credentials", Look;
    /// Where the secrets for upstreams are, and how old.
    Secrets = "secrets", Look;
    /// Takes access back.
    Revoke = "revoke", Brake;
    /// Gives access back that was taken.
    Lift = "lift", Loosen;
    /// Which definitions were accepted, which wait for somebody, and what changes with them.
    Pins = "pins", Look;
    /// Accepts definitions as they are listed now.
    PinsAccept = "pins-accept", Loosen;
    /// Rejects definitions, accepted or not.
    PinsReject = "pins-reject", Brake;
    /// Which accounts people have linked.
    Vault = "vault", Look;
    /// Takes a linked account back.
    Unlink = "unlink", Brake;
    /// Mandates: who has which, and what is left of them.
    Mandates = "mandates", Look;
    /// Opens, completes and takes back mandates; opening is loosening, and is decided for its template as well.
    Mandate = "mandate", Brake;
    /// Suspends, retires and resumes agents, and attests that they and servers are still needed; resuming and attesting
    /// are loosening.
    Agent = "agent", Brake;
    /// Suspends, retires and resumes servers, for everybody; resuming is loosening.
    Server = "server", Brake;
    /// Who carries which labels, since when and from which call, and what is to be taken off.
    Labels = "labels", Look;
    /// Takes labels off: one administrator asks, another one confirms.
    Declassify = "declassify", Loosen;
    /// Calls that wait for a person, and what became of them.
    Approvals = "approvals", Look;
    /// Lets one of them happen; its gates say who may.
    Approve = "approve", Loosen;
    /// Refuses one of them.
    Deny = "deny", Brake;
    /// Proposes and gives standing approvals; the gates say who may.
    Standing = "standing", Loosen;
    /// Takes a standing approval back.
    StandingRevoke = "standing-revoke", Brake;
    /// Asks for emergency access for oneself; the files say who may.
    BreakGlass = "break-glass", Loosen;
    /// Agrees to somebody's emergency access; the files say who may.
    BreakGlassApprove = "break-glass-approve", Loosen;
    /// Ends emergency access.
    BreakGlassEnd = "break-glass-end", Brake;
    /// Says that somebody has looked at what was done with it.
    BreakGlassReview = "break-glass-review", Loosen;
    /// What reviews ask, and what was answered.
    Reviews = "reviews", Look;
    /// Opens and closes reviews, and ends grants.
    Review = "review", Brake;
    /// Says that a grant is still needed, also one that has ended.
    Attest = "attest", Loosen;
    /// Reads the files again; loading a set that widens is loosening.
    Reload = "reload", Brake;
}

impl AdminOperation {
    /// The operation of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// All names, for people.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.iter().map(|operation| operation.name()).collect::<Vec<_>>().join(", ")
    }
}

/// What stands before the name of a template where rules say who may open it.
const MANDATE_PREFIX: &str = "mandate:";

/// The operation of opening a mandate of a template, as in `bailiwick/NAME`.
#[must_use]
pub fn mandate_operation(template: &TemplateName) -> String {
    format!("{MANDATE_PREFIX}{template}")
}

fn mandate_object(template: &str) -> String {
    format!("{GATEWAY_SERVER}/{MANDATE_PREFIX}{template}")
}

/// Whether that is the operation of opening a mandate of a template that there is.
pub(super) fn opens_mandate(operation: &str, templates: &[TemplateName]) -> bool {
    let template = operation.strip_prefix(MANDATE_PREFIX);
    template.is_some_and(|template| templates.iter().any(|known| known.as_str() == template))
}

/// Whether a pattern of the gateway's own objects means an operation that exists; a set is looked at where names are
/// put into it.
pub(super) fn check(pattern: &ObjectPattern, templates: &[TemplateName]) -> Result<(), String> {
    if let Some(template) = pattern.name().strip_prefix(MANDATE_PREFIX) {
        let mandate = |name: &TemplateName| object::matches(&mandate_object(name.as_str()), &pattern.text, false);
        let meant = templates.iter().any(mandate);
        let refuse = || format!("there is no template `{template}`; write one of policies/mandates.toml");
        return if meant || pattern.kind == PatternKind::Glob { Ok(()) } else { Err(refuse()) };
    }
    let meant = match pattern.kind {
        PatternKind::Set => true,
        PatternKind::Exact => AdminOperation::named(pattern.name()).is_some(),
        PatternKind::Glob => {
            AdminOperation::ALL.iter().any(|operation| object::matches(operation.object(), &pattern.text, false))
        }
    };
    let known = AdminOperation::names();
    let refuse = || format!("there is no operation `{}`; write {GATEWAY_SERVER}/ and one of {known}", pattern.text);
    if meant { Ok(()) } else { Err(refuse()) }
}
