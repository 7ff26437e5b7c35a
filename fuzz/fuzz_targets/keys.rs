//! A document of API keys: refused with a reason, or entries that the gate can use.
#![no_main]

use feature_store::keys::{Format, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((format, document)) = input.split_first() else { return };
    let format = if *format == b't' { Format::Toml } else { Format::Yaml };
    match parse(document, format) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(entries) => {
            for entry in entries {
                let _ = entry.rate();
                let principal = entry.into_principal();
                assert!(!principal.name.is_empty() && !principal.scopes.is_empty());
            }
        }
    }
});
