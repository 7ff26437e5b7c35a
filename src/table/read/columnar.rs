//! Parquet and Arrow streams.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};

use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

use super::{BATCH_BYTES, Batches, MAX_MESSAGE_BYTES, ReadError, Source, check_columns};

pub fn parquet(source: Source, max_rows: usize) -> Result<Batches, ReadError> {
    match source {
        Source::Bytes(bytes) => parquet_of(bytes, max_rows),
        Source::File(file) => parquet_of(file, max_rows),
        Source::Stream(_) => {
            let error = io::Error::new(io::ErrorKind::Unsupported, "Parquet is read from a whole file");
            Err(ReadError::Source(error))
        }
    }
}

fn parquet_of<R: ChunkReader + 'static>(reader: R, max_rows: usize) -> Result<Batches, ReadError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(reader).map_err(of_parquet)?;
    let schema = builder.schema().clone();
    let bytes: i64 = builder.metadata().row_groups().iter().map(|group| group.total_byte_size()).sum();
    let rows = builder.metadata().file_metadata().num_rows();
    let max_rows = rows_in(BATCH_BYTES, usize::try_from(bytes).unwrap_or(0), rows.max(1) as usize, max_rows);
    let batches = builder.with_batch_size(max_rows).build().map_err(of_parquet)?;
    let inner = batches.map(|batch| batch.map_err(of_arrow));
    Ok(Batches { inner: Some(Box::new(inner)), schema: Some(schema) })
}

pub fn parquet_rows(file: File) -> Result<u64, ReadError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(of_parquet)?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// So many rows of the average size fit into `wanted` bytes; at least one, at most `max_rows`.
fn rows_in(wanted: usize, bytes: usize, rows: usize, max_rows: usize) -> usize {
    let a_row = (bytes / rows.max(1)).max(1);
    (wanted / a_row).clamp(1, max_rows)
}

/// The bytes of the rows themselves: arrays of a stream share buffers, which do not count for each.
fn size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

pub fn arrow(stream: Box<dyn Read + Send>, max_rows: usize) -> Result<Batches, ReadError> {
    let mut inner = ArrowStream {
        stream,
        decoder: StreamDecoder::new(),
        buffer: Buffer::from_vec(Vec::<u8>::new()),
        since_batch: 0,
        begun: false,
        ended: false,
        ready: VecDeque::new(),
        max_rows,
    };
    let schema = inner.read_schema()?;
    Ok(Batches { inner: Some(Box::new(inner)), schema: Some(schema) })
}

/// Batches as a writer chose them, cut where they are large and put together where they are small.
struct ArrowStream {
    stream: Box<dyn Read + Send>,
    decoder: StreamDecoder,
    buffer: Buffer,
    /// Bytes since the last batch: a message says how long it is, but need not say the truth.
    since_batch: usize,
    begun: bool,
    ended: bool,
    ready: VecDeque<RecordBatch>,
    max_rows: usize,
}

/// What is asked of the source at a time.
const CHUNK: usize = 64 << 10;
/// An Arrow file, as opposed to a stream, begins with this.
const FILE_MAGIC: &[u8] = b"ARROW1";

impl ArrowStream {
    fn read_schema(&mut self) -> Result<SchemaRef, ReadError> {
        while !self.ended {
            if let Some(schema) = self.decoder.schema() {
                check_columns(&schema)?;
                return Ok(schema);
            }
            if let Some(batch) = self.decode()? {
                self.ready.push_back(batch);
            }
        }
        self.decoder.schema().ok_or_else(|| ReadError::malformed("the Arrow stream has no schema"))
    }

    /// One step: more bytes, or a batch out of those that are here.
    fn decode(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        if self.buffer.is_empty() {
            let mut chunk = vec![0; CHUNK];
            let read = read_some(&mut self.stream, &mut chunk).map_err(ReadError::Source)?;
            if read == 0 {
                self.ended = true;
                return self.decoder.finish().map(|()| None).map_err(of_arrow);
            }
            chunk.truncate(read);
            if !self.begun && chunk.starts_with(FILE_MAGIC) {
                let text = "this is an Arrow file (Feather); what is read is an Arrow IPC stream";
                return Err(ReadError::malformed(text));
            }
            self.begun = true;
            self.since_batch += read;
            if self.since_batch > MAX_MESSAGE_BYTES {
                let most = MAX_MESSAGE_BYTES >> 20;
                let text =
                    format!("a batch of the Arrow stream is larger than {most} MiB; write smaller ones");
                return Err(ReadError::Malformed(text));
            }
            self.buffer = Buffer::from_vec(chunk);
        }
        let batch = self.decoder.decode(&mut self.buffer).map_err(of_arrow)?;
        if batch.is_some() {
            self.since_batch = self.buffer.len();
        }
        Ok(batch)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let (mut rows, mut bytes) = (self.ready.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
        while !self.ended && rows < self.max_rows && bytes < BATCH_BYTES {
            if let Some(batch) = self.decode()? {
                rows += batch.num_rows();
                bytes += size(&batch);
                self.ready.push_back(batch);
            }
        }
        let Some(first) = self.ready.pop_front() else { return Ok(None) };
        let most = rows_in(BATCH_BYTES, size(&first), first.num_rows(), self.max_rows);
        if first.num_rows() > most {
            let rest = first.slice(most, first.num_rows() - most);
            self.ready.push_front(rest);
            return Ok(Some(first.slice(0, most)));
        }
        let mut together = vec![first];
        let mut rows = together[0].num_rows();
        while let Some(next) = self.ready.pop_front_if(|next| rows + next.num_rows() <= most) {
            rows += next.num_rows();
            together.push(next);
        }
        match together.as_slice() {
            [only] => Ok(Some(only.clone())),
            several => concat_batches(&several[0].schema(), several).map(Some).map_err(of_arrow),
        }
    }
}

impl Iterator for ArrowStream {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

fn read_some(stream: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn of_parquet(error: ParquetError) -> ReadError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => ReadError::Source(*io),
            Err(other) => ReadError::malformed(format_args!("the Parquet file is not readable: {other}")),
        },
        other => ReadError::malformed(format_args!("the Parquet file is not readable: {other}")),
    }
}

fn of_arrow(error: ArrowError) -> ReadError {
    match error {
        ArrowError::IoError(_, io) => ReadError::Source(io),
        other => ReadError::malformed(format_args!("the data is not readable: {other}")),
    }
}
