//! Decides how bytes reach an upstream and come back, in whichever era it speaks. Refuses to know who
//! calls: it sees a destination, a credential, and the key of a principal.
//!
//! Invariant: what leaves has either an [`Entry`](crate::record) whose intent is durable or an errand,
//! which can carry only listed methods.

pub mod exchange;

pub use exchange::{Event, Exchange};
