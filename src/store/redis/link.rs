//! One connection to each server, which comes back by itself and refuses commands while it is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, Pipeline, WithOptions};
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, HashesInterface, SortedSetsInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, CustomCommand, Key, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use crate::store::StoreError;

/// How long fred believes in a broken connection before its first attempt to connect again. What
/// came in meanwhile would wait in its queue.
const BELIEVED: Duration = Duration::from_millis(200);
/// Before a link starts anew whose connection task ended over a contradiction, such as a cluster's
/// URL for a server that is no cluster.
const START_AGAIN: Duration = Duration::from_secs(2);

/// One of the store's connections.
///
/// Every command goes with fred's `fail_fast`: while there is no connection it is refused at once,
/// and if the connection breaks after the command was written it fails and is *not* written again.
/// So a command is carried out at most once, and after an error nobody knows whether it was.
pub(super) struct Link {
    client: Client,
    options: Options,
    state: Arc<State>,
    location: String,
}

#[derive(Default)]
struct State {
    /// Set from the moment a connection breaks until fred knows it too.
    broken: AtomicBool,
    closing: AtomicBool,
    generation: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl State {
    fn remember(&self, error: Option<String>) {
        // A text is never half-written, so a poisoned lock is as good as any.
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl Link {
    /// Starts connecting; goes on until [`Link::close`].
    pub fn start(client: Client, location: String) -> Self {
        let state = Arc::new(State::default());
        // See `Link::pipeline`. Not in a cluster: what was redirected is written a second time, alone.
        if !client.is_clustered() {
            client.inner().counters.incr_cmd_buffer_len();
        }
        tokio::spawn(watch(client.clone(), Arc::clone(&state), location.clone()));
        tokio::spawn(keep_connected(client.clone(), Arc::clone(&state), location.clone()));
        let options = Options { fail_fast: true, ..Options::default() };
        Self { client, options, state, location }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn is_up(&self) -> bool {
        let state = &self.state;
        let off = state.broken.load(Ordering::Relaxed) || state.closing.load(Ordering::Relaxed);
        self.client.is_connected() && !off
    }

    /// Why a command is refused now.
    pub fn down(&self) -> StoreError {
        let location = &self.location;
        let last = self.state.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        StoreError::Unavailable(match last.as_deref() {
            Some(error) => format!("not connected to {location} ({error})"),
            None => format!("not connected to {location}"),
        })
    }

    pub fn generation(&self) -> u64 {
        self.state.generation.load(Ordering::Relaxed)
    }

    /// Queries as one pipeline: as many answers.
    ///
    /// fred would write each command of a pipeline to the socket by itself, unless it sees that more
    /// wait in its queue; and a pipeline counts as one. A hundred entities would be a hundred system
    /// calls on either side. So fred is told, once a link, that there is always more to come; what
    /// [`command`] makes is written at once nevertheless, with everything before it. Only a cluster's
    /// commands go one by one, as fred sees fit.
    pub async fn query(&self, mut queries: Vec<Query>) -> Vec<Result<Value, Error>> {
        let count = queries.len();
        let Some(last) = queries.pop() else { return Vec::new() };
        let (name, slot, args) = last.into_words();
        if queries.is_empty() {
            // A pipeline would only be a way round.
            return vec![self.command(name, slot, args).await];
        }
        let pipeline = self.pipeline();
        // In a pipeline these only queue the commands.
        for query in queries {
            let _: Result<Value, _> = match query {
                Query::Fields { key, fields, .. } => pipeline.hmget(key, fields).await,
                Query::All { key, .. } => pipeline.hgetall(key).await,
                Query::History { key, .. } => pipeline.zrevrange(key, 0, -1, true).await,
                query @ Query::Rows { .. } => {
                    let (name, slot, args) = query.into_words();
                    pipeline.custom(command(name, slot), args).await
                }
            };
        }
        let _: Result<Value, _> = pipeline.custom(command(name, slot), args).await;
        send(&pipeline, count).await
    }

    /// What is put into it must end with a [`command`]: see [`Link::query`].
    pub fn pipeline(&self) -> WithOptions<Pipeline<Client>> {
        self.client.pipeline().with_options(&self.options)
    }

    /// A pipeline to one node of a cluster (or to the one server).
    pub fn pipeline_to(&self, node: Option<&Server>) -> WithOptions<Pipeline<Client>> {
        let options = Options { cluster_node: node.cloned(), ..self.options.clone() };
        self.client.pipeline().with_options(&options)
    }

    /// One command; in a cluster to the node that has `slot`.
    pub async fn command(&self, name: &'static str, slot: u16, args: Vec<Value>) -> Result<Value, Error> {
        self.client.with_options(&self.options).custom(command(name, slot), args).await
    }

    pub async fn close(&self) {
        self.state.closing.store(true, Ordering::Relaxed);
        // It fails where there is no connection to close.
        let _ = self.client.quit().await;
    }
}

/// What is asked of an entity's keys.
pub(super) enum Query {
    Fields { slot: u16, key: Bytes, fields: Vec<Key> },
    All { slot: u16, key: Bytes },
    Rows { slot: u16, key: Bytes },
    History { slot: u16, key: Bytes },
}

impl Query {
    fn into_words(self) -> (&'static str, u16, Vec<Value>) {
        match self {
            Self::Fields { slot, key, fields } => {
                let fields = fields.into_iter().map(|field| Value::Bytes(field.inner().clone()));
                ("HMGET", slot, std::iter::once(Value::Bytes(key)).chain(fields).collect())
            }
            Self::All { slot, key } => ("HGETALL", slot, vec![Value::Bytes(key)]),
            Self::Rows { slot, key } => {
                ("LRANGE", slot, vec![Value::Bytes(key), Value::Integer(0), Value::Integer(-1)])
            }
            Self::History { slot, key } => {
                let all = [Value::Integer(0), Value::Integer(-1), Value::from_static_str("WITHSCORES")];
                ("ZREVRANGE", slot, std::iter::once(Value::Bytes(key)).chain(all).collect())
            }
        }
    }
}

/// A command that is routed by `slot`, never by its arguments.
pub(super) fn command(name: &'static str, slot: u16) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Custom(slot), false)
}

/// Sends what was put into a pipeline: as many results as commands.
pub(super) async fn send(
    pipeline: &WithOptions<Pipeline<Client>>,
    count: usize,
) -> Vec<Result<Value, fred::error::Error>> {
    let results = pipeline.try_all::<Value>().await;
    match results.first() {
        // One error in place of all: the connection broke, or time ran out.
        Some(Err(error)) if results.len() != count => vec![Err(error.clone()); count],
        _ if results.len() != count => {
            let error = fred::error::Error::new(
                fred::error::ErrorKind::Protocol,
                "a pipeline got another number of answers than it has commands",
            );
            vec![Err(error); count]
        }
        _ => results,
    }
}

async fn keep_connected(client: Client, state: Arc<State>, location: String) {
    while !state.closing.load(Ordering::Relaxed) {
        let ended = client.connect().await;
        if state.closing.load(Ordering::Relaxed) {
            return;
        }
        let error = match ended {
            Ok(Ok(())) => "the connection task ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(%location, %error, "redis cannot be used as it is configured");
        state.remember(Some(error));
        tokio::time::sleep(START_AGAIN).await;
    }
}

async fn watch(client: Client, state: Arc<State>, location: String) {
    let mut errors = client.error_rx();
    let mut connections = client.reconnect_rx();
    let mut believed_until = Instant::now();
    let mut told = false;
    loop {
        let broken = state.broken.load(Ordering::Relaxed);
        tokio::select! {
            event = errors.recv() => match event {
                Ok((error, _)) => {
                    state.generation.fetch_add(1, Ordering::Relaxed);
                    state.broken.store(true, Ordering::Relaxed);
                    believed_until = Instant::now() + BELIEVED;
                    if !told {
                        tracing::warn!(%location, %error, "lost the connection to redis");
                        told = true;
                    }
                    state.remember(Some(error.to_string()));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            event = connections.recv() => match event {
                Ok(_) => {
                    state.generation.fetch_add(1, Ordering::Relaxed);
                    state.broken.store(false, Ordering::Relaxed);
                    if told {
                        tracing::info!(%location, "connected to redis again");
                        told = false;
                    }
                    state.remember(None);
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = sleep_until(believed_until), if broken => state.broken.store(false, Ordering::Relaxed),
        }
    }
}
