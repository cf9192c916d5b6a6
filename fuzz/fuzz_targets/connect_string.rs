#![no_main]
//! Drives `fuzz_bodies::connect_string`, which the property tests of `sotto` drive too.

use sotto_fuzz_bodies::runtime as fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::connect_string(bytes));
