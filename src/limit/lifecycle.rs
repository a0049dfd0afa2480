//! Bounds of what happens to agents while the gateway runs: states, attestations, the breaker.

use std::time::Duration;

/// Owners attest this often, where the files do not say otherwise.
pub const ATTEST_EVERY: Duration = Duration::from_secs(90 * 86_400);
/// They are reminded so long before it is too late.
pub const ATTEST_REMINDED_BEFORE: Duration = Duration::from_secs(14 * 86_400);
/// An issuer that says that an owner is still there attests what they answer for no more often than this.
pub const ATTEST_CONFIRMED_AFTER: Duration = Duration::from_secs(86_400);
/// Agents, and agents for one person, that are stopped at once.
pub const STOPPED_MAX: u32 = 20_000;
/// Attestations that are kept: of agents and of servers.
pub const ATTESTATIONS_MAX: u32 = 20_000;
/// Events that the breaker counts of one agent, task or tool at the most, whatever the files say.
pub const BREAKER_EVENTS_MAX: u32 = 1_000;
/// Agents, and agents for one person, that the breaker watches at once, and as many mandates; whoever is idle longest is forgotten.
pub const BREAKER_WATCHED_MAX: usize = 20_000;
/// Tools of which some of the last calls have failed that are watched at once; whichever is idle longest is forgotten.
pub const TOOLS_WATCHED_MAX: usize = 4_096;
/// Whoever answers for a tool that is closed again and again is told no more often than this; the record always is.
pub const TOOL_CLOSED_TOLD_EVERY: Duration = Duration::from_secs(3_600);
/// Tools that agents were seen to call, all of them together.
pub const TOOLS_SEEN_MAX: u32 = 200_000;
/// Tools that one agent was seen to call; further ones are new each time.
pub const TOOLS_SEEN_PER_AGENT_MAX: usize = 5_000;
/// What the breaker waits before it tries again to suspend an agent, while the store or the record is away.
pub const BREAKER_RETRY_PAUSES: [Duration; 8] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// What somebody writes about why.
pub const LIFECYCLE_NOTE_BYTES_MAX: usize = 1_000;
