#![no_main]
//! Drives `fuzz_bodies::config`, which the property tests of `models` drive too.

use sotto_fuzz_bodies::models as fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bodies::config(bytes);
});
