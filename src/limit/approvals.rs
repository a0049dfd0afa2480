//! Bounds of approvals: gates, what waits for a person, what they are shown.

use std::time::Duration;

/// Gates of one policy; each call of a server looks through those that may stop it.
pub const GATES_MAX: usize = 256;
/// A gate's name.
pub const GATE_NAME_BYTES_MAX: usize = 48;
/// Different persons that one gate can ask for.
pub const GATE_APPROVALS_MAX: u32 = 5;
/// A request waits for a person at most this long: whoever asked has given up, and the world has changed.
pub const GATE_PENDING_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What was approved can be used at most this long.
pub const GATE_APPROVED_MAX: Duration = Duration::from_secs(60 * 60);
/// Requests of one principal that wait for somebody; a loop must not bury those of everybody else.
pub const APPROVALS_PENDING_PER_PRINCIPAL_MAX: usize = 20;
/// Requests of one principal that are over and still shown; older ones make room for the next, so that nobody fills what
/// is there for all.
pub const APPROVALS_OVER_PER_PRINCIPAL_MAX: usize = 30;
/// Of those so many are removed with one request, which is one change of the store.
pub const APPROVALS_REMOVED_AT_ONCE_MAX: usize = 8;
/// All requests that are kept, those that are over as well.
pub const APPROVALS_KEPT_MAX: u32 = 20_000;
/// How long one that is over is shown.
pub const APPROVAL_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The same of one that only its own caller had to confirm: long enough for what its server asks afterwards.
pub const APPROVAL_CONFIRMED_KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// What is kept of one person's decision: who they are, and by which token.
pub const APPROVAL_DECISION_BYTES_MAX: usize = 2 * 1_024;
/// What an approver is shown of the arguments, as JSON; a call with more cannot be approved.
pub const APPROVAL_PREVIEW_BYTES_MAX: usize = 32 * 1024;
/// What they are shown of one text; how much is hidden is said.
pub const APPROVAL_TEXT_CHARACTERS_MAX: usize = 2_000;
/// Requests that the console and the API list at once, newest first.
pub const APPROVALS_LISTED_MAX: usize = 500;
/// What an issuer's `person` claim may say: an address, a number, a name.
pub const PERSON_BYTES_MAX: usize = 320;
/// Parts of one schema that are looked through for what is a secret; what a larger one speaks about is hidden.
pub const APPROVAL_SCHEMAS_MAX: usize = 256;
/// Values that are looked at in the arguments; more of them are more than the preview could hold.
pub const APPROVAL_VALUES_MAX: usize = 16 * 1_024;
/// How often a decision begins anew because somebody else has changed the request meanwhile.
pub const APPROVAL_TRIES_MAX: usize = 4;
/// What somebody who denies says of it; the caller reads it.
pub const APPROVAL_NOTE_CHARACTERS_MAX: usize = 500;
/// Calls of one principal that wait as tasks; whoever has more is told otherwise that they wait.
pub const APPROVAL_TASKS_PER_PRINCIPAL_MAX: usize = 40;
/// How long such a task is kept after nobody can approve it any more, so that its end can be fetched: two hours.
pub const APPROVAL_TASK_KEPT_FOR_US: i64 = 2 * 60 * 60 * 1_000_000;
/// How often whoever follows one is asked to look.
pub const APPROVAL_TASK_POLL_MS: u64 = 5_000;
/// How long whoever asks waits for the end of the call that this begins.
pub const APPROVAL_TASK_WAIT: Duration = Duration::from_secs(5);
/// A piece of how such a call ended, as one row keeps it.
pub const APPROVAL_TASK_PIECE_BYTES: usize = 60 * 1_024;
/// Pieces that are kept of one; what is larger is lost to its task, and was made all the same.
pub const APPROVAL_TASK_PIECES_MAX: usize = 60;
/// Pieces that are kept of all ends of one principal: nobody fills what is there for all.
pub const APPROVAL_TASK_PIECES_PER_PRINCIPAL_MAX: usize = 240;
/// How long other replicas believe of a call that it goes on without hearing of it, in microseconds.
pub const APPROVAL_TASK_BELIEVED_FOR_US: i64 = 60 * 1_000_000;
/// How often whoever makes it says so.
pub const APPROVAL_TASK_RENEWED_AFTER: Duration = Duration::from_secs(20);
/// Kinds of emergency access.
pub const BREAK_GLASS_KINDS_MAX: usize = 16;
/// One lasts at most this long.
pub const BREAK_GLASS_FOR_MAX: Duration = Duration::from_secs(60 * 60);
/// Whoever asks for one waits so long for others: fifteen minutes.
pub const BREAK_GLASS_ASKED_FOR_US: i64 = 15 * 60 * 1_000_000;
/// So many wait of one person: who asks again and again, asks nobody else.
pub const BREAK_GLASS_ASKED_PER_PERSON_MAX: usize = 4;
/// All that are kept: each waits to be reviewed.
pub const BREAK_GLASS_KEPT_MAX: u32 = 2_000;
/// How long one is kept after it is over: 400 days, like a review.
pub const BREAK_GLASS_KEPT_FOR_US: i64 = 400 * 24 * 60 * 60 * 1_000_000;
/// What somebody says who asks for one, and who has looked at what was done with it.
pub const BREAK_GLASS_REASON_CHARACTERS_MAX: usize = 500;
/// A standing approval is good for at most this long: thirty days.
pub const STANDING_FOR_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Calls that one lets through.
pub const STANDING_USES_MAX: u32 = 500;
/// One is given by at least so many persons.
pub const STANDING_PERSONS_MIN: u32 = 2;
/// A proposal waits so long for the next person: a day.
pub const STANDING_PROPOSED_FOR_US: i64 = 24 * 60 * 60 * 1_000_000;
/// For the same caller, tool and gates; each gated call looks through these.
pub const STANDING_OF_ONE_SCOPE_MAX: usize = 8;
/// All that there are.
pub const STANDING_MAX: u32 = 2_000;
/// Counts of their uses: one for all replicas together, and one for each that has used them.
pub const STANDING_COUNTS_MAX: u32 = 20_000;
/// Calls that they have let through and whose servers may still ask something.
pub const STANDING_CALLS_MAX: u32 = 50_000;
/// How long such a call is remembered: longer than any of its rounds of questions.
pub const STANDING_CALL_KEPT_FOR_US: i64 = 60 * 60 * 1_000_000;
/// How long a count outlives what it counts for, so that it never begins anew.
pub const STANDING_COUNT_KEPT_FOR_US: i64 = 24 * 60 * 60 * 1_000_000;
/// What somebody who proposes or revokes one says of it.
pub const STANDING_NOTE_CHARACTERS_MAX: usize = 500;
