//! Which definitions may be shown and called: those whose digest somebody has accepted, and no other.
//!
//! Decides from digests alone; a variant that nobody accepted is hidden from those who receive it and from nobody else.
//! Refuses to know who accepts, and where that is kept. Invariants: what is offered was accepted at the moment when it
//! was offered, and is served in the words that were accepted; whether it still is costs a call one look at a bit.

mod accepted;
mod diff;
mod flags;
mod names;
mod screen;
#[cfg(test)]
mod tests;
mod text;

pub(in crate::catalog) use accepted::Seal;
pub use accepted::{Accepted, Held, HeldPin, Pin, Pins};
pub use diff::{diff, pretty};
pub use flags::{Flag, flags};
#[cfg(test)]
pub(crate) use names::SKETCHED;
pub use names::{Neighbours, Sketch};
pub use screen::{Pinned, Withheld};
pub use text::visible;

use super::target::Definition;
use crate::ids::{DefinitionDigest, Digest, PinKind, ServerId};
use crate::wire::mcp::Kind;
use crate::wire::{Json, canonical};

/// What stands before the text that is digested.
const DOMAIN: &[u8] = b"bailiwick/pin/v1\0";

/// The kind of a pin; resources have none: they are data, and come and go with it.
#[must_use]
pub const fn pin_kind(kind: Kind) -> Option<PinKind> {
    match kind {
        Kind::Tool => Some(PinKind::Tool),
        Kind::Prompt => Some(PinKind::Prompt),
        Kind::ResourceTemplate => Some(PinKind::Template),
        Kind::Resource => None,
    }
}

/// The digest that pins a definition: over everything that it says, whatever the order and spelling.
#[must_use]
pub fn digest(server: &ServerId, kind: &str, definition: &Json) -> DefinitionDigest {
    // The members stand in their canonical order.
    let text =
        format!("{{\"definition\":{},\"kind\":\"{kind}\",\"server\":\"{server}\"}}", canonical(definition.value()));
    DefinitionDigest(Digest::sha256_of(&[DOMAIN, text.as_bytes()]))
}

/// What a server says of itself, as a definition.
#[must_use]
pub fn instructions(text: &str) -> Json {
    Json::of(&serde_json::json!({ "instructions": text }))
}

impl Definition {
    /// Whether it may be called now as it was offered: it is still accepted, and its server still lists it so.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.seal.as_ref().is_none_or(Seal::stands)
    }
}
