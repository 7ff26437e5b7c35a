//! A connection's bytes on their way, which tell its [`Activity`].

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::{Activity, Patience};
use crate::http::fresh_id;

/// What an HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Why there is nobody to speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    Gone,
    TooLong,
}

/// A stream that is watched.
pub struct Socket<S> {
    stream: S,
    activity: Arc<Activity>,
    protocol: Protocol,
    /// What was read to find out about the protocol, and is to be read again.
    ahead: Bytes,
    /// Whether the client has said that it sends no more.
    is_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Waits for the first bytes, which tell the protocol.
    pub async fn open(mut stream: S, activity: Arc<Activity>, patience: Patience) -> Result<Self, Silence> {
        let mut ahead = BytesMut::with_capacity(PREFACE.len());
        let mut deadline = Instant::now() + patience.idle;
        loop {
            let read = tokio::time::timeout_at(deadline, stream.read_buf(&mut ahead));
            match read.await {
                Err(_) => return Err(Silence::TooLong),
                Ok(Err(_) | Ok(0)) => return Err(Silence::Gone),
                Ok(Ok(_)) => {}
            }
            if ahead.len() >= PREFACE.len() || !PREFACE.starts_with(&ahead) {
                let protocol = if ahead.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
                let mut socket = Self { stream, activity, protocol, ahead: ahead.freeze(), is_over: false };
                socket.heard();
                return Ok(socket);
            }
            deadline = deadline.min(Instant::now() + patience.head);
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Only of HTTP/1 can be said which bytes are a head.
    fn heard(&mut self) {
        if self.protocol == Protocol::Http1 {
            self.activity.heard();
        }
    }

    /// Takes what still comes, and drops it, until the client has ended its side. A kernel that closes
    /// with something unread tells the other side that the connection broke, and whoever is told so while
    /// sending may never look at its answer. How long this may take is for `Watch` to say.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.protocol == Protocol::Http2 || self.is_over || self.activity.is_left() {
            return Poll::Ready(());
        }
        self.activity.linger();
        let mut dropped = [const { MaybeUninit::uninit() }; 16 << 10];
        let mut into = ReadBuf::uninit(&mut dropped);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut into));
        if read.is_err() || into.filled().is_empty() {
            return Poll::Ready(());
        }
        // A client that is never done sending must not keep `Watch` from looking.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells a client whose head never ended. It may not listen: nothing waits for that.
    fn answer_late_head(&mut self, context: &mut Context<'_>) {
        if self.protocol == Protocol::Http1 {
            let answer = late_head(&String::from_utf8_lossy(&fresh_id()));
            let _ = Pin::new(&mut self.stream).poll_write(context, answer.as_bytes());
            let _ = Pin::new(&mut self.stream).poll_flush(context);
        }
    }
}

/// The whole answer, written by hand: there is no request that the routes could answer.
fn late_head(id: &str) -> String {
    let body = format!(
        r#"{{"type":"urn:feature-store:problem:timeout","title":"Request Timeout","status":408,"detail":"the head of the request did not come in time","code":"timeout","request_id":"{id}"}}"#
    );
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_cut() {
            this.answer_late_head(context);
            this.is_over = true;
            return Poll::Ready(Ok(()));
        }
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(into.remaining());
            into.put_slice(&this.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        if into.filled().len() > before {
            this.heard();
        } else if polled.is_ready() {
            this.is_over = true;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.activity.sent(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.activity.sent(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        this.activity.sent(polled.is_ready());
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(context);
        this.activity.sent(polled.is_ready());
        ready!(polled)?;
        this.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_millis(50),
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(60),
    };

    /// Opens a socket, sends it the pieces, and gives its protocol and what can be read from it.
    async fn opened(pieces: &[&[u8]]) -> Result<(Protocol, Vec<u8>), Silence> {
        let (mut client, server) = tokio::io::duplex(64);
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        };
        // Whoever has begun to speak stays.
        let (socket, client) = tokio::join!(Socket::open(server, Arc::default(), PATIENCE), async {
            let client = send.await;
            (!pieces.is_empty()).then_some(client)
        });
        drop(client);
        let mut socket = socket?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await.unwrap();
        Ok((socket.protocol(), bytes))
    }

    #[tokio::test]
    async fn the_protocol_is_known_by_its_first_bytes_which_are_read_again() {
        for (pieces, protocol) in [
            (&[PREFACE] as &[&[u8]], Protocol::Http2),
            (&[&PREFACE[..3], &PREFACE[3..], b"more"], Protocol::Http2),
            (&[b"PRI", b"VATE"], Protocol::Http1),
            (&[b"GET / HTTP/1.1", b"\r\n\r\n"], Protocol::Http1),
        ] {
            let (found, bytes) = opened(pieces).await.unwrap();
            assert_eq!(found, protocol, "{pieces:?}");
            assert_eq!(bytes, pieces.concat());
        }
        assert_eq!(opened(&[]).await, Err(Silence::Gone));
        assert_eq!(opened(&[b"PRI "]).await, Err(Silence::TooLong));
    }
}
