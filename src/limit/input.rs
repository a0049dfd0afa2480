//! Bounds of what servers ask in the middle of a call, and of the calls that wait for it.

use std::time::Duration;

/// How long after one question of a legacy server another is taken to be asked together with it. A person takes longer to
/// read the first.
pub const INPUT_GATHERED_WITHIN: Duration = Duration::from_millis(50);
/// Questions of one `input_required` result; a form for each is more than a person fills in.
pub const INPUT_REQUESTS_MAX: usize = 16;
/// The name of one of them, as the server chose it.
pub const INPUT_KEY_BYTES_MAX: usize = 128;
/// A server's `requestState`: it travels twice with every round, sealed into ours.
pub const INPUT_STATE_BYTES_MAX: usize = 32 * 1024;
/// Our own `requestState`: a server's, the names of its questions and base64 around them.
pub const INPUT_HANDLE_BYTES_MAX: usize = 64 * 1024;
/// All answers of one round; a sampled picture fits.
pub const INPUT_ANSWERS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A number that says how far a client is with an answer; bytes.
pub const PROGRESS_NUMBER_BYTES_MAX: usize = 32;
/// Rounds of one call: a server that asks for more goes round in a circle.
pub const INPUT_ROUNDS_MAX: u32 = 16;
/// Calls of one principal that wait with their upstream exchange open.
pub const PARKED_PER_PRINCIPAL_MAX: usize = 16;
/// Of all principals; each keeps a connection or a process.
pub const PARKED_MAX: usize = 1_000;
/// How long the first call of a session waits for the session's own stream to open; servers ask on it.
pub const OWN_STREAM_WAIT: Duration = Duration::from_secs(2);
