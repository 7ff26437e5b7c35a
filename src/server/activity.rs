//! What a connection is at, told by what happens on it, and how long that may go on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// How long clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the TLS handshake, and for the head of a request from its first byte on.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Without taking anything of an answer that is there.
    pub stall: Duration,
}

impl Patience {
    /// How often to look: a limit is overstepped by a quarter at most.
    pub fn tick(&self) -> Duration {
        (self.head.min(self.idle).min(self.stall) / 4).max(Duration::from_millis(5))
    }
}

/// What happens on one connection. Requests only count here, and ask no clock: it is for
/// [`Watch`] to notice what has not changed for too long.
#[derive(Debug, Default)]
pub struct Activity {
    /// Requests that are not answered to the end of the answer's body.
    open: AtomicU32,
    /// Those of them that wait for the server, and not for the client to take what is there.
    working: AtomicU32,
    /// Changes whenever something moved on that is more than a byte of a head.
    progress: AtomicU32,
    /// Whether some of a head has come, and no request yet.
    in_head: AtomicBool,
    /// Whether the socket takes no more.
    blocked: AtomicBool,
    /// Whether nothing more is to be read.
    cut: AtomicBool,
    /// Whether it was the server's wish that the connection ends, between two requests.
    left: AtomicBool,
    /// Whether all was said, and the client is left to finish what it is sending.
    lingering: AtomicBool,
}

impl Activity {
    fn moved(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes came; they belong to a head, if no request is open.
    pub fn heard(&self) {
        if self.open.load(Ordering::Relaxed) == 0 {
            self.in_head.store(true, Ordering::Relaxed);
        }
    }

    /// The socket took something, or would not.
    pub fn sent(&self, taken: bool) {
        if !taken {
            self.blocked.store(true, Ordering::Relaxed);
        } else if self.blocked.load(Ordering::Relaxed) {
            self.blocked.store(false, Ordering::Relaxed);
            self.moved();
        }
    }

    /// Has the connection end as if its client had closed it.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The connection ends by the server's wish, with nothing left to be read.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// The last answer is out, and its client may still be sending what nobody will read.
    pub fn linger(&self) {
        self.lingering.store(true, Ordering::Relaxed);
    }

    fn phase(&self) -> Phase {
        if self.lingering.load(Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            Phase::Delivering
        } else if self.working.load(Ordering::Relaxed) > 0 {
            Phase::Working
        } else if self.open.load(Ordering::Relaxed) > 0 {
            Phase::Delivering
        } else if self.in_head.load(Ordering::Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        }
    }
}

/// One request, from its head to the end of its answer.
pub struct Turn {
    activity: Arc<Activity>,
    is_working: bool,
}

impl Turn {
    pub fn begin(activity: Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.working.fetch_add(1, Ordering::Relaxed);
        activity.in_head.store(false, Ordering::Relaxed);
        activity.moved();
        Self { activity, is_working: true }
    }

    /// The request was answered; what is left is for its client to take.
    pub fn answer(mut self, response: Response) -> http::Response<Delivery> {
        self.works(false);
        response.map(|body| Delivery { body, turn: self })
    }

    fn works(&mut self, works: bool) {
        match (self.is_working, works) {
            (true, false) => self.activity.working.fetch_sub(1, Ordering::Relaxed),
            (false, true) => self.activity.working.fetch_add(1, Ordering::Relaxed),
            (true, true) | (false, false) => return,
        };
        self.is_working = works;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.works(false);
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
        self.activity.moved();
    }
}

/// The body of an answer. It is asked for more only when its client has room for more.
pub struct Delivery {
    body: Body,
    turn: Turn,
}

impl http_body::Body for Delivery {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.turn.works(frame.is_pending());
        self.turn.activity.moved();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A head comes in.
    Head,
    /// The client waits for the server, which has limits of its own.
    Working,
    /// The server waits for the client to take an answer.
    Delivering,
}

/// What to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    /// Nobody has asked anything for long: leave.
    Idle,
    /// The head of a request took too long.
    HeadIsLate,
    /// The client takes nothing.
    Stalled,
}

/// Looks at a connection now and then.
pub struct Watch {
    patience: Patience,
    seen: (Phase, u32),
    since: Instant,
}

impl Watch {
    pub fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, seen: (Phase::Idle, 0), since: now }
    }

    /// From now on, whoever has nothing to ask is to go soon.
    pub fn hurry(&mut self) {
        self.patience.idle = self.patience.idle.min(self.patience.head);
    }

    pub fn look(&mut self, activity: &Activity, now: Instant) -> Verdict {
        let seen = (activity.phase(), activity.progress.load(Ordering::Relaxed));
        if seen != self.seen {
            (self.seen, self.since) = (seen, now);
        }
        let (limit, verdict) = match seen.0 {
            Phase::Working => return Verdict::Wait,
            Phase::Idle => (self.patience.idle, Verdict::Idle),
            Phase::Head => (self.patience.head, Verdict::HeadIsLate),
            Phase::Delivering => (self.patience.stall, Verdict::Stalled),
        };
        if now.duration_since(self.since) < limit { Verdict::Wait } else { verdict }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http_body::Body as _;

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(1),
        idle: Duration::from_secs(9),
        stall: Duration::from_secs(3),
    };

    struct Case {
        activity: Arc<Activity>,
        watch: Watch,
        start: Instant,
    }

    impl Case {
        fn new() -> Self {
            let start = Instant::now();
            Self { activity: Arc::default(), watch: Watch::new(PATIENCE, start), start }
        }

        fn at(&mut self, seconds: u64) -> Verdict {
            self.watch.look(&self.activity, self.start + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn drops_of_a_head_gain_no_time() {
        let mut case = Case::new();
        case.activity.heard();
        assert_eq!(case.at(5), Verdict::Wait, "seen for the first time");
        case.activity.heard();
        assert_eq!(case.at(6), Verdict::HeadIsLate);
    }

    #[test]
    fn every_request_has_time_of_its_own_for_its_head() {
        let mut case = Case::new();
        for second in 0..20 {
            case.activity.heard();
            assert_eq!(case.at(second), Verdict::Wait);
            drop(Turn::begin(case.activity.clone()));
        }
        assert_eq!(case.at(20), Verdict::Wait);
        assert_eq!(case.at(29), Verdict::Idle);
        case.watch.hurry();
        assert_eq!(case.at(21), Verdict::Idle);
    }

    #[test]
    fn a_server_at_work_is_waited_for_and_a_client_is_not() {
        let mut case = Case::new();
        let turn = Turn::begin(case.activity.clone());
        assert_eq!(case.at(0), Verdict::Wait);
        assert_eq!(case.at(1000), Verdict::Wait);
        let mut answer = turn.answer("x".into_response()).into_body();
        assert_eq!(case.at(1001), Verdict::Wait);
        assert_eq!(case.at(1004), Verdict::Stalled);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut answer).poll_frame(&mut context).is_ready());
        assert_eq!(case.at(1004), Verdict::Wait, "it has taken something");
        assert_eq!(case.at(1007), Verdict::Stalled);
        drop(answer);
        assert_eq!(case.at(1008), Verdict::Wait);
    }

    #[test]
    fn a_client_that_sends_on_after_its_answer_gains_no_time_by_it() {
        let mut case = Case::new();
        case.activity.linger();
        assert_eq!(case.at(0), Verdict::Wait);
        case.activity.heard();
        assert_eq!(case.at(2), Verdict::Wait);
        assert_eq!(case.at(3), Verdict::Stalled);
    }

    #[test]
    fn a_socket_that_takes_nothing_is_a_client_that_takes_nothing() {
        let mut case = Case::new();
        case.activity.sent(false);
        assert_eq!(case.at(0), Verdict::Wait);
        case.activity.sent(true);
        case.activity.sent(false);
        assert_eq!(case.at(3), Verdict::Wait, "it took something in between");
        assert_eq!(case.at(6), Verdict::Stalled);
    }
}
