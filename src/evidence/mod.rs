//! What the record says about the policy: which grants were used, by whom, and how often.
//!
//! Decides nothing: people do, in reviews. Refuses to write anything. Invariant: what is told is told with its window and
//! with how sure it is; what the record does not tell counts as used, and never as unused.

mod simulate;
mod suggest;
mod usage;

pub use simulate::{Flip, Simulation, Untold, Way, simulate};
pub use suggest::Suggested;
pub use usage::{Act, Confidence, GrantUse, Usage, Used};
