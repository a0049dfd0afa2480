//! Names, URIs and templates; what holds is said in `checks/names.rs`.
#![no_main]

#[path = "../checks/names.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
