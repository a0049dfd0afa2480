//! Conditions on arguments; what holds is said in `checks/condition.rs`.
#![no_main]

#[path = "../checks/condition.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
