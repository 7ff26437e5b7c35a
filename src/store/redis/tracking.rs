//! Hears from the server which entities were changed, by whomever.
//!
//! A connection of its own to every primary has client tracking on, in broadcast mode for the keys
//! of all entities. About every `vouch_every` each of them is asked whether tracking is still on
//! there. What comes on one connection comes in order: with the answer, every change that was made
//! before the question has been heard of. A connection that was made anew answers that it is off,
//! since nobody turns it on but this file, which forgets everything first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::bytes_utils::Str;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, TrackingInterface};
use fred::types::Value;
use fred::types::client::Invalidation;
use fred::types::config::Server;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;

use super::connect::{Links, RedisConfig};
use super::keys::Keys;
use super::link::{Link, command, send};
use super::reply;
use crate::store::watch::Watchers;

/// How often the servers of a cluster are asked who they are.
const TOPOLOGY_EVERY: Duration = Duration::from_secs(1);

/// The task that listens.
pub(super) struct Tracking {
    link: Option<Arc<Link>>,
    task: Option<JoinHandle<()>>,
}

impl Tracking {
    pub fn start(
        config: &RedisConfig,
        keys: Keys,
        links: Arc<Links>,
        watchers: Arc<Watchers>,
        every: Duration,
    ) -> Self {
        let link = match Links::listener(config) {
            Ok(link) => Arc::new(link),
            Err(error) => {
                // The other links have connected with the same settings.
                tracing::error!(%error, "changes cannot be listened for, and nothing is cached");
                return Self { link: None, task: None };
            }
        };
        let listener = Listener {
            invalidations: link.client().invalidation_rx(),
            link: link.clone(),
            keys,
            links,
            watchers,
            sizes: BTreeMap::new(),
            topology_at: Instant::now(),
            is_lost: true,
        };
        Self { link: Some(link), task: Some(tokio::spawn(listener.listen(every))) }
    }

    pub async fn close(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(link) = &self.link {
            link.close().await;
        }
    }
}

struct Listener {
    link: Arc<Link>,
    keys: Keys,
    links: Arc<Links>,
    watchers: Arc<Watchers>,
    invalidations: Receiver<Invalidation>,
    /// How many keys each server had.
    sizes: BTreeMap<Option<Server>, i64>,
    topology_at: Instant,
    is_lost: bool,
}

/// What a server says when it is asked.
enum Beat {
    Tracks {
        keys: i64,
    },
    /// The connection is a new one.
    Off,
}

impl Listener {
    async fn listen(mut self, every: Duration) {
        let mut errors = self.link.client().error_rx();
        loop {
            let asked = Instant::now();
            let link = self.link.clone();
            let nodes = self.nodes().await;
            let answers = {
                let beats = futures::future::join_all(nodes.iter().map(|node| beat(&link, node.as_ref())));
                tokio::pin!(beats);
                loop {
                    tokio::select! {
                        biased;
                        _ = errors.recv() => self.lose("the connection broke"),
                        message = self.invalidations.recv() => self.hear(message),
                        answers = &mut beats => break answers,
                    }
                }
            };
            // What stood before the answers.
            while !self.invalidations.is_empty() {
                match self.invalidations.try_recv() {
                    Ok(message) => self.apply(&message),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => self.lose("too many changes"),
                }
            }
            let all_track = self.judge(nodes, answers).await;
            if all_track {
                self.vouch(asked);
            }
            let rest = tokio::time::sleep(every.saturating_sub(asked.elapsed()).max(every / 8));
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    biased;
                    _ = errors.recv() => self.lose("the connection broke"),
                    message = self.invalidations.recv() => self.hear(message),
                    () = &mut rest => break,
                }
            }
        }
    }

    /// The servers to listen to. One that other links know of and this one does not may be where a
    /// part of the keys is by now.
    async fn nodes(&mut self) -> Vec<Option<Server>> {
        let Some(mut nodes) = self.link.primaries() else { return vec![None] };
        let is_unknown = self.links.known_primaries().iter().any(|server| !nodes.contains(server));
        if is_unknown {
            self.lose("the cluster has other primaries");
        }
        if is_unknown || self.topology_at.elapsed() > TOPOLOGY_EVERY {
            self.topology_at = Instant::now();
            // Where it fails, the connections are broken, which the beats find out.
            let _ = self.link.client().sync_cluster().await;
            nodes = self.link.primaries().unwrap_or_default();
        }
        nodes.into_iter().map(Some).collect()
    }

    /// Whether every server tracks; has those do so that do not.
    async fn judge(&mut self, nodes: Vec<Option<Server>>, answers: Vec<Result<Beat, Error>>) -> bool {
        let mut all_track = !nodes.is_empty();
        for (node, beat) in nodes.into_iter().zip(answers) {
            match beat {
                Ok(Beat::Tracks { keys }) => {
                    // Of keys that are removed all at once nobody is told by name, and fred passes
                    // over the message that says so.
                    let before = self.sizes.insert(node, keys).unwrap_or(0);
                    if before > 0 && (keys == 0 || (before >= 64 && keys < before / 2)) {
                        self.lose("the keys were removed");
                        all_track = false;
                    }
                }
                Ok(Beat::Off) => {
                    self.lose("the connection is new");
                    all_track = false;
                    if let Err(error) = self.track(node.as_ref()).await {
                        tracing::debug!(%error, "redis does not track");
                    }
                }
                // Only slow: nobody is told that all is well, and that will do for now.
                Err(error) if *error.kind() == ErrorKind::Timeout => all_track = false,
                Err(error) => {
                    self.lose(error.details());
                    all_track = false;
                }
            }
        }
        all_track
    }

    async fn track(&self, node: Option<&Server>) -> Result<(), Error> {
        let mut args = words(&["TRACKING", "ON", "BCAST", "PREFIX"]);
        args.push(Value::Bytes(self.keys.entities()));
        let pipeline = self.link.pipeline_to(node);
        let _ = pipeline.custom::<Value, _>(command("CLIENT", 0), args).await;
        send(&pipeline, 1).await.into_iter().try_for_each(|result| result.map(drop))
    }

    fn hear(&mut self, message: Result<Invalidation, RecvError>) {
        match message {
            Ok(message) => self.apply(&message),
            Err(RecvError::Lagged(_)) => self.lose("too many changes"),
            // The link was closed.
            Err(RecvError::Closed) => {
                self.lose("the connection was closed");
                self.invalidations = self.link.client().invalidation_rx();
            }
        }
    }

    fn apply(&self, message: &Invalidation) {
        for (entity_type, entity_id) in message.keys.iter().filter_map(|key| self.keys.names(key.as_bytes()))
        {
            self.watchers.tell(|watcher| watcher.changed(entity_type, entity_id));
        }
    }

    fn vouch(&mut self, asked: Instant) {
        if std::mem::take(&mut self.is_lost) {
            tracing::info!("listening for changes in redis");
        }
        self.watchers.tell(|watcher| watcher.in_step(asked));
    }

    fn lose(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.is_lost, true) {
            tracing::warn!(%reason, "changes in redis may go by unnoticed, and nothing is cached");
        }
        self.watchers.tell(|watcher| watcher.lost());
    }
}

async fn beat(link: &Link, node: Option<&Server>) -> Result<Beat, Error> {
    let pipeline = link.pipeline_to(node);
    // In a pipeline these only queue the commands.
    let _ = pipeline.custom::<Value, _>(command("CLIENT", 0), words(&["TRACKINGINFO"])).await;
    let _ = pipeline.custom::<Value, _>(command("DBSIZE", 0), Vec::<Value>::new()).await;
    let mut results = send(&pipeline, 2).await.into_iter();
    let mut next = || {
        let missing = || Err(Error::new(ErrorKind::Protocol, "an answer is missing"));
        results.next().unwrap_or_else(missing)
    };
    let (info, keys) = (next()?, next()?);
    Ok(match (mentions(&info, "bcast"), keys) {
        (true, Value::Integer(keys)) => Beat::Tracks { keys },
        _ => Beat::Off,
    })
}

/// Whether a word stands anywhere in a reply.
fn mentions(reply: &Value, word: &str) -> bool {
    match reply {
        Value::Array(values) => values.iter().any(|value| mentions(value, word)),
        Value::Map(map) => map.clone().inner().values().any(|value| mentions(value, word)),
        other => reply::text(other.clone()).is_some_and(|text| &*text == word),
    }
}

fn words(words: &[&'static str]) -> Vec<Value> {
    words.iter().map(|word| Value::String(Str::from_static(word))).collect()
}
