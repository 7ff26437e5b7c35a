//! A table to import, or a spine: any bytes of any format are batches or an error, soon and without
//! more memory than the bytes are worth. Where the formats' libraries panic, that is caught and an error.
#![no_main]

use feature_store::table::Format;
use feature_store::table::read::{Source, batches, whole};
use libfuzzer_sys::fuzz_target;

const MOST_ROWS: usize = 100;

fuzz_target!(
    init: {
        // A panic of a library is no crash here; one that reaches the end of the target still is.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: &[u8]| {
        let Some((format, bytes)) = input.split_first() else { return };
        let format = Format::ALL[*format as usize % Format::ALL.len()];
        let source = |streamed: bool| match streamed && format != Format::Parquet {
            true => Source::Stream(Box::new(std::io::Cursor::new(bytes.to_vec()))),
            false => Source::Bytes(bytes.to_vec().into()),
        };
        if let Ok(batches) = batches(format, source(true), MOST_ROWS) {
            for batch in batches.take(100).map_while(Result::ok) {
                assert!(batch.num_rows() <= MOST_ROWS);
            }
        }
        if let Ok(table) = whole(format, source(false), MOST_ROWS) {
            assert!(table.num_rows() <= MOST_ROWS);
        }
    }
);
