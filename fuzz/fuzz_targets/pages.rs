//! See `pages` in the library: what any bytes must come to.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parallel_transfer_fuzz::pages(bytes));
