#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rfw_fuzz::check("certificate", data));
