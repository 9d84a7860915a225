//! See `v2_pipe` in the library: what any bytes must come to.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parallel_transfer_fuzz::v2_pipe(bytes));
