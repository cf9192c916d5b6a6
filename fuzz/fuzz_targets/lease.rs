#![no_main]
//! Drives `fuzz_bodies::lease`, which the property tests of `runtime` drive too.

#[path = "../../runtime/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::lease(bytes));
