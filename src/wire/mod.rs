//! Messages are bytes, made safe once.
//!
//! Decides what one JSON-RPC message is and refuses everything else; knows method names and where their
//! routing fields stand, and nothing of identity, policy or transport. Invariant: one [`Message`] is
//! exactly one line and exactly one SSE event; unknown fields, key order and number spelling survive.

mod canonical;
mod edit;
pub mod handle;
mod input;
mod last_words;
pub mod mcp;
mod message;
mod outgoing;
mod own;
mod scan;
pub mod sse;
mod value;
pub mod voids;

pub use canonical::canonical;
pub use edit::Edit;
pub use input::{Askable, InputKind};
pub use last_words::{LastWords, cancelled};
pub use message::{Kind, Message};
pub use outgoing::Outgoing;
pub use own::{notification_without_own_keys, server_info, without_own_keys};
pub use scan::{Source, WireError};
pub use value::{Json, Object, Value};
