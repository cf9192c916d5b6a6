#![no_main]
//! Drives `fuzz_bodies::template`, which the property tests of `models` drive too.

use sotto_fuzz_bodies::models as fuzz_bodies;

libfuzzer_sys::fuzz_target!(|source: &str| {
    fuzz_bodies::template(source);
});
