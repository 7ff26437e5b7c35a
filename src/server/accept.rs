//! Takes connections, and lets them end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryFutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use metrics::{Gauge, counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Patience, Turn, Verdict, Watch};
use super::socket::{Protocol, Silence, Socket};
use super::tls::Tls;
use crate::http::{Entrance, Routers};

/// So many connections more than `max_connections` get an answer, one each: probes theirs, everybody
/// else that the server is overloaded.
const ROOM_TO_REFUSE: usize = 64;
/// For so long at most.
const TIME_TO_REFUSE: Duration = Duration::from_secs(5);
/// Streams of such a connection.
const STREAMS_TO_REFUSE: u32 = 4;
/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// Streams that a client opened and reset before they were looked at ("rapid reset"), and streams that
/// the server reset for what the client did: with more of them, the connection ends.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 256;
/// Before the next attempt to accept, where the process has too many files open.
const BREATH: Duration = Duration::from_millis(100);

const CUT: &str = "feature_store_connections_cut_total";
const REASONS: [&str; 5] = ["full", "handshake", "head", "idle", "stalled"];

/// How connections are bounded.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub max_connections: usize,
    /// Of the head of a request.
    pub max_header_bytes: usize,
    /// Of one HTTP/2 connection.
    pub max_streams: u32,
    pub patience: Patience,
}

/// What stands between a listener and the routes.
pub struct Front {
    routers: Routers,
    tls: Option<Arc<Tls>>,
    limits: ConnectionLimits,
    protocols: Protocols,
    brief: Protocols,
    open: AtomicUsize,
    gauge: Gauge,
}

impl Front {
    pub fn new(routers: Routers, tls: Option<Arc<Tls>>, limits: ConnectionLimits) -> Arc<Self> {
        for reason in REASONS {
            counter!(CUT, "reason" => reason).increment(0);
        }
        let (protocols, brief) = (Protocols::new(&limits), Protocols::briefly(&limits));
        let gauge = gauge!("feature_store_connections");
        Arc::new(Self { routers, tls, limits, protocols, brief, open: AtomicUsize::new(0), gauge })
    }

    /// Serves until `stop` is done, then lets what is under way finish.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        let stopping = CancellationToken::new();
        // Every connection holds the sender: when the receiver ends, all of them have.
        let (alive, mut all_ended) = mpsc::channel::<Infallible>(1);
        let mut stop = pin!(stop);
        loop {
            let stream = tokio::select! {
                stream = accept(&listener) => stream,
                () = &mut stop => break,
            };
            let place = Place::take(&self);
            let (stopping, alive) = (stopping.clone(), alive.clone());
            if place.number > self.limits.max_connections.saturating_add(ROOM_TO_REFUSE) {
                count_cut("full");
                continue;
            }
            tokio::spawn(async move {
                place.serve(stream, stopping).await;
                drop(alive);
            });
        }
        drop((listener, alive));
        stopping.cancel();
        all_ended.recv().await;
    }
}

/// How the two protocols are spoken.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new(limits: &ConnectionLimits) -> Self {
        let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(TokioExecutor::new()));
        // The time for heads is kept by `Watch`: hyper would make a timer for each, and count the time
        // between two requests as part of the second. The number of header lines stays at hyper's 100,
        // which it keeps on the stack.
        http1.header_read_timeout(None::<Duration>).max_header_size(limits.max_header_bytes);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.max_streams)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN);
        Self { http1, http2 }
    }

    /// For those who are to go again.
    fn briefly(limits: &ConnectionLimits) -> Self {
        let mut protocols = Self::new(limits);
        protocols.http1.keep_alive(false);
        protocols.http2.max_concurrent_streams(STREAMS_TO_REFUSE);
        protocols
    }
}

/// The next connection. What goes wrong with one is no reason to take no others.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers are sent at once rather than held back for more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection stays as it is");
                }
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "no connection can be taken");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn count_cut(reason: &'static str) {
    counter!(CUT, "reason" => reason).increment(1);
}

/// A connection among others.
struct Place {
    front: Arc<Front>,
    /// How many there are, with this one.
    number: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.front.open.fetch_sub(1, Ordering::Relaxed);
        self.front.gauge.decrement(1.0);
    }
}

impl Place {
    fn take(front: &Arc<Front>) -> Self {
        front.gauge.increment(1.0);
        Self { front: front.clone(), number: front.open.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    async fn serve(self, stream: TcpStream, stopping: CancellationToken) {
        let Some(tls) = &self.front.tls else { return self.talk(stream, stopping).await };
        let limit = self.front.limits.patience.head;
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(limit, tls.accept(stream)) => handshake,
            () = stopping.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => return self.talk(stream, stopping).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
        count_cut("handshake");
    }

    async fn talk<S>(&self, stream: S, stopping: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let front = &*self.front;
        let is_full = self.number > front.limits.max_connections;
        if is_full {
            count_cut("full");
            let refusal = front.converse(stream, &front.brief, &front.routers.overloaded, stopping);
            let _ = tokio::time::timeout(TIME_TO_REFUSE, refusal).await;
        } else if let Some(reason) =
            front.converse(stream, &front.protocols, &front.routers.all, stopping).await
        {
            count_cut(reason);
        }
    }
}

impl Front {
    /// Answers what comes on one connection; the answer is why it was cut, if it was.
    async fn converse<S>(
        &self,
        stream: S,
        protocols: &Protocols,
        entrance: &Entrance,
        stopping: CancellationToken,
    ) -> Option<&'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let patience = self.limits.patience;
        let activity = Arc::<Activity>::default();
        let socket = tokio::select! {
            socket = Socket::open(stream, activity.clone(), patience) => socket,
            () = stopping.cancelled() => return None,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(Silence::Gone) => return None,
            Err(Silence::TooLong) => return Some("idle"),
        };
        let service = service_fn({
            let (activity, entrance) = (activity.clone(), entrance.clone());
            move |request: Request<Incoming>| {
                let turn = Turn::begin(activity.clone());
                entrance.answer(request).map_ok(|response| turn.answer(response))
            }
        });
        match socket.protocol() {
            Protocol::Http1 => {
                let connection = protocols.http1.serve_connection(TokioIo::new(socket), service);
                drive(connection, &activity, patience, stopping).await
            }
            Protocol::Http2 => {
                let connection = protocols.http2.serve_connection(TokioIo::new(socket), service);
                drive(connection, &activity, patience, stopping).await
            }
        }
    }
}

/// Works on a connection until it ends; the answer is why it was cut, if it was.
async fn drive<C>(
    connection: C,
    activity: &Activity,
    patience: Patience,
    stopping: CancellationToken,
) -> Option<&'static str>
where
    C: GracefulConnection<Error: std::fmt::Display>,
{
    let mut connection = pin!(connection);
    let mut stopping = pin!(stopping.cancelled());
    let mut watch = Watch::new(patience, Instant::now());
    let mut look = pin!(tokio::time::sleep(patience.tick()));
    // Asked to end when there is a good moment.
    let mut is_leaving = false;
    let mut cut = None;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke");
                }
                return cut;
            }
            () = &mut stopping, if !is_leaving => {
                is_leaving = true;
                activity.leave();
                watch.hurry();
                connection.as_mut().graceful_shutdown();
            }
            () = &mut look => {
                let now = Instant::now();
                match watch.look(activity, now) {
                    Verdict::Wait => {}
                    Verdict::Idle if !is_leaving => {
                        is_leaving = true;
                        cut = Some("idle");
                        activity.leave();
                        watch.hurry();
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::HeadIsLate if cut.is_none() => {
                        cut = Some("head");
                        activity.cut();
                    }
                    Verdict::Stalled => return Some("stalled"),
                    Verdict::Idle | Verdict::HeadIsLate => return cut.or(Some("idle")),
                }
                look.as_mut().reset(now + patience.tick());
            }
        }
    }
}
