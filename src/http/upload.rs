//! Bodies that are read as they come, by a thread that waits for them, however long they are.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::problem::{Code, Problem};

/// After an early answer the rest of the body is still taken for a while: a client that finds its
/// connection closed while it sends does not read the answer.
const DRAIN: Duration = Duration::from_secs(2);

/// How uploads are bounded.
#[derive(Clone, Debug)]
pub struct UploadLimits {
    pub max_bytes: u64,
    /// How long a client may send nothing.
    pub idle: Duration,
    /// Where bodies are kept that must be whole before they are read; `None`: where the system
    /// keeps temporary files.
    pub spool_dir: Option<PathBuf>,
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// The two ends of an upload: one takes the body, the other reads it on a thread of its own.
pub fn channel() -> (Feed, Box<dyn Read + Send>) {
    let (sender, receiver) = mpsc::channel(16);
    (Feed(sender), Box::new(Pieces { receiver, left: Bytes::new(), ended: false }))
}

/// Where a body goes.
pub struct Feed(mpsc::Sender<Piece>);

impl Feed {
    /// Passes on the whole body. Waits while the reader is busy; ends early where it is gone.
    pub async fn take(self, mut body: Body, limits: &UploadLimits) -> Result<(), Problem> {
        let too_large = || {
            let detail = format!("the body is larger than max_import_bytes allows ({})", limits.max_bytes);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, detail)
        };
        if body.size_hint().lower() > limits.max_bytes {
            return Err(too_large());
        }
        let mut taken = 0_u64;
        loop {
            let frame = match tokio::time::timeout(limits.idle, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => {
                    // A reader that is gone has said why elsewhere; so below.
                    let _ = self.0.send(Piece::End).await;
                    return Ok(());
                }
                Ok(Some(Err(_))) => {
                    return Err(Problem::invalid("the body could not be read to its end"));
                }
                Err(_) => return Err(Problem::late_body()),
            };
            let Ok(bytes) = frame.into_data() else { continue };
            taken += bytes.len() as u64;
            if taken > limits.max_bytes {
                return Err(too_large());
            }
            if !bytes.is_empty() && self.0.send(Piece::Bytes(bytes)).await.is_err() {
                // An error is a client that sends for longer than that.
                let _ = tokio::time::timeout(DRAIN, async { while let Some(Ok(_)) = body.frame().await {} })
                    .await;
                return Ok(());
            }
        }
    }
}

/// A body as a thread reads it. Where the request ends before its body does, this is an error and
/// never the end: half a number must not pass for a whole one.
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    left: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.left = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the request ended")),
            }
        }
        let taken = self.left.len().min(into.len());
        into[..taken].copy_from_slice(&self.left.split_to(taken));
        Ok(taken)
    }
}

/// Keeps a body as a file that has no name and is gone when it is closed.
pub async fn spool(mut body: Box<dyn Read + Send>, dir: Option<PathBuf>) -> io::Result<File> {
    let copy = move || {
        let mut file = match dir {
            Some(dir) => tempfile::tempfile_in(dir)?,
            None => tempfile::tempfile()?,
        };
        io::copy(&mut body, &mut file)?;
        file.rewind()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(copy).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
