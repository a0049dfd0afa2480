//! Access tokens; what holds is said in `checks/tokens.rs`.
#![no_main]

#[path = "../checks/tokens.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
