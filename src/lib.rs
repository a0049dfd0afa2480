//! Bailiwick: one MCP server toward assistants, many behind it, and a decision in between.
//!
//! The life of a call is the source tree; `ARCHITECTURE.md` has the map, `call` the one function that
//! a reviewer reads first.

pub mod ids;
pub mod limit;
pub mod outcome;
pub mod wire;

pub mod catalog;
pub mod config;
pub mod delegate;
pub mod demo;
pub mod egress;
pub mod identity;
pub mod policy;
pub mod record;
pub mod store;
pub mod upstream;

pub mod call;
pub mod cli;
pub mod gateway;
pub mod list;
pub mod watch;
