#![no_main]
//! Drives `fuzz_bodies::events`, which the property tests of `anonymizer` drive too.

#[path = "../../anonymizer/cli/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bodies::events(bytes);
});
