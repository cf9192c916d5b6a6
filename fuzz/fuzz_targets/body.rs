#![no_main]
//! Drives `fuzz_bodies::body`, which the property tests of `fhe-layers` drive too.

#[path = "../../fhe-layers/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::body(bytes));
