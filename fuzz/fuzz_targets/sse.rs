//! Reading server-sent events; what holds is said in `checks/sse.rs`.
#![no_main]

#[path = "../checks/sse.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
