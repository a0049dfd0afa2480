//! The real gateway over real sockets: one binary, this is its table of contents.

mod support;

mod authenticate;
mod authorize;
mod bad_input;
mod legacy;
mod list;
mod modern;
mod record;
mod revoke;
mod stdio;
