//! The configuration: any file and any environment is refused with a reason, or a configuration that
//! says which store it means.
#![no_main]

use feature_store::config::Config;
use libfuzzer_sys::fuzz_target;

// A line that is an environment variable, then the file.
fuzz_target!(|input: &str| {
    let (variable, text) = input.split_once('\n').unwrap_or((input, ""));
    let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let file = directory.path().join("feature-store.toml");
    std::fs::write(&file, text).unwrap();
    let environment = [(format!("FEATURE_STORE_{}", key.to_ascii_uppercase()), value.to_owned())];
    match Config::load_from(Some(&file), environment.into_iter()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            let _ = (config.store(), config.keys(), config.settings());
        }
    }
});
