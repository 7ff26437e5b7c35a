//! Small calls that come at the same time go together.
//!
//! A command by itself costs more in what surrounds it, here and in the server (two system calls on
//! either side, a task to wake, a timer), than in what it does. So only a few calls are under way at a
//! time. What comes meanwhile waits, and goes as one when the first of them is done: the more there is
//! to do, the less each call costs. Whoever comes while few are under way waits for nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::store::StoreError;

/// So many calls, or several calls as one, are under way at a time.
const UNDER_WAY: usize = 2;
/// A call that asks for more goes by itself.
const SMALL: usize = 8;

/// What can be asked for together.
pub(super) trait Together: Send + Sync + 'static {
    type Ask: Send;
    type Answer: Send;

    /// So much goes together at most.
    const MOST: usize;

    /// As many answers as asked for.
    fn run(&self, asks: Vec<Self::Ask>)
    -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;

    /// Whether what one asks for may fail for what another asks for.
    fn stays_alone(&self) -> bool;
}

/// The calls of all tasks.
pub(super) struct Gathered<T: Together> {
    together: T,
    /// So long a call waits for others.
    patience: Duration,
    state: Mutex<State<T>>,
}

struct State<T: Together> {
    under_way: usize,
    waiting: VecDeque<Call<T>>,
}

struct Call<T: Together> {
    asks: Vec<T::Ask>,
    answer: oneshot::Sender<Result<Vec<T::Answer>, StoreError>>,
}

impl<T: Together> Gathered<T> {
    pub fn new(together: T, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            together,
            patience,
            state: Mutex::new(State { under_way: 0, waiting: VecDeque::new() }),
        })
    }

    pub async fn call(self: &Arc<Self>, asks: Vec<T::Ask>) -> Result<Vec<T::Answer>, StoreError> {
        if asks.len() > SMALL || self.together.stays_alone() {
            return self.together.run(asks).await;
        }
        let turn = {
            let mut state = self.state();
            if state.under_way < UNDER_WAY {
                state.under_way += 1;
                Ok(asks)
            } else {
                let (answer, waits) = oneshot::channel();
                state.waiting.push_back(Call { asks, answer });
                Err(waits)
            }
        };
        match turn {
            Ok(asks) => {
                let _turn = Turn(self.clone());
                self.together.run(asks).await
            }
            Err(waits) => match tokio::time::timeout(self.patience, waits).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(StoreError::Unavailable("the server is being stopped".to_owned())),
                Err(_) => Err(StoreError::Timeout),
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Calls are put in and taken out as a whole, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes calls that wait, as many as may go together.
    fn take(&self) -> Vec<Call<T>> {
        let mut state = self.state();
        let (mut calls, mut sum) = (Vec::with_capacity(state.waiting.len()), 0);
        while let Some(call) = state.waiting.pop_front() {
            // Whoever asked may have given up.
            if call.answer.is_closed() {
                continue;
            }
            sum += call.asks.len();
            if sum > T::MOST && !calls.is_empty() {
                state.waiting.push_front(call);
                break;
            }
            calls.push(call);
        }
        calls
    }
}

/// The right to be under way. At its end, those who wait have it.
struct Turn<T: Together>(Arc<Gathered<T>>);

impl<T: Together> Drop for Turn<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        match Handle::try_current() {
            Ok(runtime) if !state.waiting.is_empty() => {
                drop(state);
                runtime.spawn(carry(Turn(self.0.clone())));
            }
            _ => {
                state.under_way -= 1;
                // If there are any, there is no runtime any more to carry them.
                state.waiting.clear();
            }
        }
    }
}

async fn carry<T: Together>(turn: Turn<T>) {
    let (mut asks, mut answers) = (Vec::new(), Vec::new());
    for call in turn.0.take() {
        answers.push((call.asks.len(), call.answer));
        asks.extend(call.asks);
    }
    if asks.is_empty() {
        return;
    }
    match turn.0.together.run(asks).await {
        Ok(all) => {
            let mut all = all.into_iter();
            for (count, answer) in answers {
                let _ = answer.send(Ok(all.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, answer) in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    /// Doubles numbers, when it is let.
    struct Doubler {
        allowed: Arc<Semaphore>,
        runs: Mutex<Vec<Vec<u32>>>,
    }

    impl Together for Doubler {
        type Ask = u32;
        type Answer = u32;
        const MOST: usize = 10;

        async fn run(&self, asks: Vec<u32>) -> Result<Vec<u32>, StoreError> {
            self.allowed.acquire().await.unwrap().forget();
            self.runs.lock().unwrap().push(asks.clone());
            if asks.contains(&0) {
                Err(StoreError::Timeout)
            } else {
                Ok(asks.iter().map(|ask| ask * 2).collect())
            }
        }

        fn stays_alone(&self) -> bool {
            false
        }
    }

    const PATIENCE: Duration = Duration::from_secs(2);

    fn doubler() -> (Arc<Gathered<Doubler>>, Arc<Semaphore>) {
        let allowed = Arc::new(Semaphore::new(0));
        (Gathered::new(Doubler { allowed: allowed.clone(), runs: Mutex::default() }, PATIENCE), allowed)
    }

    fn spawn(gathered: &Arc<Gathered<Doubler>>, asks: Vec<u32>) -> JoinHandle<Result<Vec<u32>, StoreError>> {
        let gathered = gathered.clone();
        tokio::spawn(async move { gathered.call(asks).await })
    }

    async fn until(condition: impl Fn() -> bool) {
        let waits = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("in time");
    }

    #[tokio::test]
    async fn what_comes_meanwhile_goes_together_and_everybody_gets_their_own() {
        let (gathered, allowed) = doubler();
        let ask = |asks| spawn(&gathered, asks);
        let first: Vec<_> = (1..=UNDER_WAY as u32).map(|number| ask(vec![number])).collect();
        until(|| gathered.state().under_way == UNDER_WAY).await;
        let later: Vec<_> = (10..16).map(|number| ask(vec![number, number + 100])).collect();
        until(|| gathered.state().waiting.len() == 6).await;
        let given_up = ask(vec![7]);
        until(|| gathered.state().waiting.len() == 7).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        allowed.add_permits(100);
        for (number, call) in (1..).zip(first) {
            assert_eq!(call.await.unwrap(), Ok(vec![number * 2]));
        }
        for (number, call) in (10..).zip(later) {
            assert_eq!(call.await.unwrap(), Ok(vec![number * 2, number * 2 + 200]));
        }
        let runs = gathered.together.runs.lock().unwrap().clone();
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [vec![1; UNDER_WAY], vec![10, 2]].concat());
        until(|| gathered.state().under_way == 0).await;
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_went_together_and_a_turn_given_up_is_passed_on() {
        let (gathered, allowed) = doubler();
        let ask = |asks| spawn(&gathered, asks);
        let first: Vec<_> = (1..=UNDER_WAY as u32).map(|number| ask(vec![number])).collect();
        until(|| gathered.state().under_way == UNDER_WAY).await;
        let later = [ask(vec![0]), ask(vec![5])];
        until(|| gathered.state().waiting.len() == 2).await;
        first.iter().for_each(JoinHandle::abort);
        allowed.add_permits(100);
        for call in later {
            assert_eq!(call.await.unwrap(), Err(StoreError::Timeout));
        }
        until(|| gathered.state().under_way == 0).await;
        assert_eq!(gathered.call(vec![4]).await, Ok(vec![8]));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let doubler = Doubler { allowed: Arc::new(Semaphore::new(0)), runs: Mutex::default() };
        let gathered = Gathered::new(doubler, Duration::from_millis(1));
        gathered.state().under_way = UNDER_WAY;
        assert_eq!(gathered.call(vec![1]).await, Err(StoreError::Timeout));
        assert!(gathered.take().is_empty(), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn a_large_call_waits_for_nobody() {
        let (gathered, allowed) = doubler();
        allowed.add_permits(1);
        gathered.state().under_way = UNDER_WAY;
        let asks: Vec<u32> = (1..=SMALL as u32 + 1).collect();
        assert_eq!(gathered.call(asks).await.unwrap().len(), SMALL + 1);
    }
}
