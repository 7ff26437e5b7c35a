//! A backup: any file is refused, or restored to a store that opens; rows that no store wrote are
//! refused, though their hash be right.
#![no_main]

use feature_store::store::embedded::{restore, verify};
use libfuzzer_sys::fuzz_target;

fn attempt(bytes: &[u8]) -> bool {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let file = directory.path().join("backup");
    std::fs::write(&file, bytes).unwrap();
    let verified = verify(&file);
    let restored = restore(&file, &directory.path().join("data"));
    match (&verified, &restored) {
        (Ok(rows), Ok(again)) => assert_eq!(rows, again),
        (Err(_), Ok(_)) => panic!("restored what is no backup"),
        _ => {}
    }
    verified.is_ok()
}

fuzz_target!(
    init: {
        // The engine's panics over rows that it did not write are caught.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: (&[u8], Vec<(u8, &[u8], &[u8])>)| {
        attempt(input.0);
        let mut whole = b"feature-store backup 1\n".to_vec();
        let mut rows = 0_u64;
        for (table, key, value) in input.1 {
            whole.push(table % 11 + 1);
            for part in [key, value] {
                whole.extend_from_slice(&(part.len() as u32).to_le_bytes());
                whole.extend_from_slice(part);
            }
            rows += 1;
        }
        whole.push(0);
        whole.extend_from_slice(&rows.to_le_bytes());
        let hash = blake3::hash(&whole);
        whole.extend_from_slice(hash.as_bytes());
        assert!(attempt(&whole), "a whole backup is not known as one");
    }
);
