//! Any bytes give a record or an error; what was decoded says the same after another round.
#![no_main]

use feature_store::domain::envelope::{decode_current, decode_superseded, encode_current, encode_superseded};
use feature_store::domain::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &[u8])| {
    let (time, bytes) = input;
    let Some(time) = Timestamp::from_micros(time) else { return };
    if let Ok(current) = decode_current(bytes, time) {
        let again = decode_current(&encode_current(&current, time), time);
        assert_eq!(format!("{again:?}"), format!("Ok({current:?})"));
    }
    if let Ok(record) = decode_superseded(time, bytes) {
        // It is stored anew under its own time, which the envelope may have known better.
        let again = decode_superseded(record.event_timestamp, &encode_superseded(&record));
        assert_eq!(format!("{again:?}"), format!("Ok({record:?})"));
    }
});
