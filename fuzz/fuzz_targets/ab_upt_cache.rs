#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::readers::ab_upt_cache(bytes));
