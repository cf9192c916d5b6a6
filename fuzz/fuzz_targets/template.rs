#![no_main]
//! Drives `fuzz_bodies::template`, which the property tests of `models` drive too.

#[path = "../../models/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|source: &str| {
    fuzz_bodies::template(source);
});
