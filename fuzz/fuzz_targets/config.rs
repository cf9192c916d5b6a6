#![no_main]
//! Drives `fuzz_bodies::config`, which the property tests of `models` drive too.

#[path = "../../models/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bodies::config(bytes);
});
