//! Any bytes give a record or an error; what was decoded says the same after another round.
#![no_main]

use feature_store::domain::envelope::{
    decode_current, decode_superseded, encode_current, encode_superseded,
};
use feature_store::domain::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &[u8])| {
    let (sort_key, bytes) = input;
    if let Ok(current) = decode_current(bytes) {
        let again = decode_current(&encode_current(&current));
        assert_eq!(format!("{again:?}"), format!("Ok({current:?})"));
    }
    let Some(sort_key) = Timestamp::from_micros(sort_key) else { return };
    if let Ok(record) = decode_superseded(sort_key, bytes) {
        // It is stored anew under its own time, which the envelope may have known better.
        let again = decode_superseded(record.event_timestamp, &encode_superseded(&record));
        assert_eq!(format!("{again:?}"), format!("Ok({record:?})"));
    }
});
