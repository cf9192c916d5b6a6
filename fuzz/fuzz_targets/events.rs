#![no_main]
//! Drives `fuzz_bodies::events`, which the property tests of `anonymizer` drive too.

use sotto_fuzz_bodies::anonymizer as fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bodies::events(bytes);
});
