//! Decides which primitive a request means, and what everything is called. Refuses to know who may use it.
//!
//! One immutable slice per upstream and authorization context; a view is composed of slices; a name or URI
//! is looked up in a view. Invariant: a [`Target`] names something that an upstream listed, a URI that
//! routes to exactly one, or a server itself.

mod capabilities;
#[expect(clippy::module_inception, reason = "the room is named for its one important type")]
mod catalog;
mod compose;
mod definition;
#[cfg(test)]
pub(crate) mod fake;
mod header;
mod memo;
mod naming;
pub mod pins;
mod refresh;
mod resolve;
#[cfg(test)]
mod routing_tests;
pub mod secrets;
mod slice;
mod slot;
mod source;
pub mod target;
mod tasks;
mod template;
#[cfg(test)]
mod tests;
pub mod uri;
mod view;

pub use capabilities::is_known_capability;
pub use catalog::Catalog;
pub use definition::{DropReason, Dropped};
pub use header::header_parameters;
pub use naming::{Naming, public_name};
pub use pins::Pins;
pub use resolve::Wanted;
pub use slice::{List, Slice};
pub use slot::SliceState;
pub use source::{Access, Facts, Listed, Listing, Source, Viewer};
pub use target::{Definition, HeaderParameter, Hints, Secrecy, Target, TaskSupport};
pub use tasks::TaskDialect;
pub use template::Template;
pub use uri::is_confusing;
pub use view::{Conflict, ConflictReason, Item, Member, View};
