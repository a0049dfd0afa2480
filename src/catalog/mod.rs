//! Decides which primitive a request means, and what everything is called. Refuses to know who may use it.
//!
//! Invariant: a [`Target`] names something that an upstream listed, or a URI that routes to exactly one.

pub mod target;

pub use target::{Definition, Target};
