//! Decides what is remembered of every call, decision and administrator's act, and that nothing leaves
//! before its intent is safe. Refuses to know how a decision was made, and every credential.
//!
//! Invariant: an [`Entry`] exists only for a durable intent, and each intent gets exactly one end.
//!
//! From proof to disk: [`entry`] seals a proof, [`journal`] makes the line ([`event`], `fields`, `line`), `writer`
//! collects lines into batches, `appender` numbers and chains them, `batch` tells who waited;
//! with `durability = "os"` whoever waits writes by itself (`direct`).
//! `ledger` follows what was written, hashes it into a `tree` that is kept as `tiles`, and signs a [`checkpoint`] that
//! `sink` sends elsewhere; `keep` compresses and removes what is closed, `room` sees to the disk.
//! [`verify`] walks the chain back, [`audit`] holds all of it against what was signed.

mod appender;
mod approval;
pub mod audit;
mod batch;
pub mod changed;
pub mod checkpoint;
pub mod declared;
mod direct;
pub mod entry;
pub mod event;
mod fields;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hidden;
pub mod join;
pub mod journal;
mod keep;
pub mod keys;
mod ledger;
mod line;
pub mod mandated;
pub mod metrics;
mod noise;
pub mod operational;
mod position;
pub mod read;
pub mod redact;
pub mod related;
mod reloaded;
mod room;
mod segment;
mod sink;
pub mod tail;
#[cfg(test)]
mod tests;
mod tiles;
mod tree;
pub mod verify;
pub mod who;
mod writer;

pub use checkpoint::CheckpointKeys;
pub use entry::{Entry, Evidence};
pub use event::{Attempt, Intent};
pub use journal::{Journal, JournalSettings, Keeping, Recovered};
pub use keep::Holds;
pub use keys::JournalKey;
pub use line::KINDS;
pub use metrics::{Metrics, ServerLabel};
pub use position::Written;
pub use segment::read_text;
pub use sink::CheckpointNote;
pub use verify::{Verdict, verify, verify_end};
pub use who::Who;
