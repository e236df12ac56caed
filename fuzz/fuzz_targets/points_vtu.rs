#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| predict::fuzz::points_vtu(bytes));
