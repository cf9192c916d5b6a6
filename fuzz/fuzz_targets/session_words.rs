#![no_main]
//! Drives `fuzz_bodies::session_words`, which the property tests of `fhe-layers` drive too.

use sotto_fuzz_bodies::fhe as fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::session_words(bytes));
