//! Bailiwick: one MCP server toward assistants, many behind it, and a decision in between.
//!
//! The life of a call is the source tree; `ARCHITECTURE.md` has the map, `call` the one function that
//! a reviewer reads first.

// The ground: knows nothing else of ours.
pub mod ids;
pub mod inversion;
pub mod lanes;
pub mod limit;
pub mod outbox;
pub mod outcome;
pub mod shelf;
pub mod wire;

// The rooms, which import downwards only; `ARCHITECTURE.md` has the order.
pub mod catalog;
pub mod config;
pub mod control;
pub mod delegate;
pub mod egress;
pub mod evidence;
pub mod export;
pub mod facade;
pub mod feeds;
pub mod front;
pub mod guard;
pub mod identity;
pub mod oauth;
pub mod policy;
pub mod record;
pub mod store;
pub mod telemetry;
pub mod upstream;

// What composes them.
pub mod call;
pub mod gateway;
pub mod link;
pub mod list;
pub mod watch;

// What people start.
pub mod cli;
pub mod demo;
pub mod serve;
