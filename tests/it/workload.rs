//! Writers and readers that keep an exact account of what they were told, through whatever happens
//! to servers and stores meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::ledger::{Story, Told};
use crate::redis_process::eventually;

const WRITERS: usize = 4;
const READERS: usize = 2;
/// Writes to one entity before the writer goes on to the next.
const WRITES_PER_ENTITY: usize = 100;
/// Between two requests of a client, so that a run is bounded: about 150 requests a second each.
const PACE: Duration = Duration::from_millis(5);

/// The servers to ask, in turn.
#[derive(Clone)]
pub struct Targets(Arc<Mutex<Vec<SocketAddr>>>);

impl Targets {
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses.into_iter().collect())))
    }

    pub fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *lock(&self.0) = addresses.into_iter().collect();
    }

    fn is_one(&self) -> bool {
        lock(&self.0).len() == 1
    }

    pub fn pick(&self, turn: usize) -> SocketAddr {
        let addresses = lock(&self.0);
        addresses[turn % addresses.len()]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panicked")
}

/// The part of a story that readers hold against what they see.
#[derive(Default)]
struct Progress {
    entity: String,
    acknowledged: AtomicU64,
    attempted: AtomicU64,
}

#[derive(Default)]
struct Account {
    stories: Mutex<BTreeMap<String, Story>>,
    now_written: Mutex<Vec<Arc<Progress>>>,
    /// Failed answers by status and code.
    seen: Mutex<BTreeMap<String, u64>>,
    /// What must never be seen.
    wrong: Mutex<Vec<String>>,
    last_failure: Mutex<Option<Instant>>,
    slowest: Mutex<Duration>,
    successes: AtomicUsize,
    failures: AtomicUsize,
    stop: AtomicBool,
}

/// Load that runs until it is finished.
pub struct Workload {
    account: Arc<Account>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a finished load knows.
pub struct Accounts {
    pub stories: BTreeMap<String, Story>,
    pub seen: BTreeMap<String, u64>,
    pub wrong: Vec<String>,
    pub slowest: Duration,
}

/// Declares what the load writes. Nothing is trimmed, so that the whole history can be checked.
pub async fn declare(client: &Client) {
    let schema = json!({"ttl": "never", "max_versions": 10_000, "features": {"n": {"type": "int64"}}});
    client.declare("product", schema).await;
}

impl Workload {
    pub fn start(client: &Client, targets: &Targets, name: &str) -> Self {
        let account = Arc::new(Account::default());
        lock(&account.now_written).extend((0..WRITERS).map(|_| Arc::new(Progress::default())));
        let writers = (0..WRITERS).map(|writer| {
            let one = Worker::new(client, targets, &account, writer);
            tokio::spawn(one.write(writer, name.to_owned()))
        });
        let readers = (0..READERS).map(|reader| {
            let one = Worker::new(client, targets, &account, WRITERS + reader);
            tokio::spawn(one.read())
        });
        let tasks = writers.chain(readers).collect();
        Self { account, tasks }
    }

    /// How many requests succeeded so far.
    pub fn successes(&self) -> usize {
        self.account.successes.load(Ordering::Relaxed)
    }

    /// Waits for so many more successful requests.
    pub async fn progress(&self, requests: usize) {
        let wanted = self.account.successes.load(Ordering::Relaxed) + requests;
        eventually("the load to go on", || async {
            (self.account.successes.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Waits until clients see that something is wrong.
    pub async fn trouble(&self) {
        let before = self.account.failures.load(Ordering::Relaxed);
        eventually("clients to see trouble", || async {
            (self.account.failures.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    /// Waits until clients see no more trouble; tells how long after `lifted` they last did.
    pub async fn recovery(&self, lifted: Instant) -> Duration {
        const QUIET: Duration = Duration::from_millis(1200);
        eventually("clients to see no more trouble", || async {
            let last = lock(&self.account.last_failure).map_or(lifted, |last| last.max(lifted));
            (last.elapsed() > QUIET).then_some(())
        })
        .await;
        self.progress(50).await;
        let last = *lock(&self.account.last_failure);
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(lifted))
    }

    /// Stops the load. What was under way comes to its end.
    pub async fn finish(self) -> Accounts {
        self.account.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("clients do not panic");
        }
        let account = &self.account;
        Accounts {
            stories: std::mem::take(&mut *lock(&account.stories)),
            seen: std::mem::take(&mut *lock(&account.seen)),
            wrong: std::mem::take(&mut *lock(&account.wrong)),
            slowest: *lock(&account.slowest),
        }
    }
}

impl Accounts {
    pub fn acknowledged(&self) -> usize {
        self.stories.values().map(Story::acknowledged).sum()
    }

    /// Every contradiction between what writers were told and the whole history of what they wrote.
    pub async fn contradictions(&self, client: &Client) -> Vec<String> {
        let mut found = Vec::new();
        for (entity, story) in &self.stories {
            let history = history(client, entity).await;
            found.extend(story.check(&history).iter().map(|wrong| format!("{entity}: {wrong}")));
        }
        found
    }
}

/// Every version of an entity's feature, with its value.
async fn history(client: &Client, entity: &str) -> BTreeMap<u64, u64> {
    // The last outage may not be over for this server yet.
    let path = format!("/v1/entities/product/{entity}/features/n/lineage");
    let answer = crate::redis_process::eventually("the store to answer", || async {
        Some(client.get(&path).await).filter(|answer| answer.status < 500)
    })
    .await;
    if answer.status == 404 {
        return BTreeMap::new();
    }
    let lineage = answer.ok();
    let past = lineage["history"].as_array().expect("a history").iter();
    let all = past.chain([&lineage["current"]].into_iter().filter(|current| !current.is_null()));
    let number = |record: &Value, member: &str| record[member].as_u64().expect("a number");
    all.map(|record| (number(record, "version"), number(record, "value"))).collect()
}

/// One client.
struct Worker {
    client: Client,
    targets: Targets,
    account: Arc<Account>,
    turn: usize,
}

impl Worker {
    fn new(client: &Client, targets: &Targets, account: &Arc<Account>, turn: usize) -> Self {
        Self { client: client.clone(), targets: targets.clone(), account: account.clone(), turn }
    }

    fn is_over(&self) -> bool {
        self.account.stop.load(Ordering::Relaxed)
    }

    /// Sends a request to the next server. Notes what everybody may see, and what nobody may.
    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        self.turn += 1;
        let client = self.client.at(self.targets.pick(self.turn));
        let mut request = client.request(method, path);
        if !self.targets.is_one() {
            // Another server's cache may be a moment behind.
            request = request.header("cache-control", "no-cache");
        }
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let started = Instant::now();
        let answer = client.try_send(request).await;
        {
            let mut slowest = lock(&self.account.slowest);
            *slowest = (*slowest).max(started.elapsed());
        }
        let failed = match &answer {
            Ok(answer) if [200, 404].contains(&answer.status) => None,
            Ok(answer) if [503, 504].contains(&answer.status) => {
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                if !["store_unavailable", "timeout"].contains(&code.as_str()) {
                    self.wrong(format!("{path}: {} {}", answer.status, answer.text()));
                }
                if answer.status == 503 && answer.header("retry-after").is_empty() {
                    self.wrong(format!("{path}: 503 without Retry-After"));
                }
                Some(format!("{} {code}", answer.status))
            }
            Ok(answer) => {
                self.wrong(format!("{path}: {} {}", answer.status, answer.text()));
                Some(answer.status.to_string())
            }
            Err(_) => Some("no answer".to_owned()),
        };
        match failed {
            None => {
                self.account.successes.fetch_add(1, Ordering::Relaxed);
            }
            Some(kind) => {
                self.account.failures.fetch_add(1, Ordering::Relaxed);
                *lock(&self.account.seen).entry(kind).or_default() += 1;
                *lock(&self.account.last_failure) = Some(Instant::now());
            }
        }
        tokio::time::sleep(PACE).await;
        answer.ok()
    }

    fn wrong(&self, what: String) {
        lock(&self.account.wrong).push(what);
    }

    async fn write(mut self, writer: usize, name: String) {
        for number in 0.. {
            let entity = format!("{name}-{writer}-{number}");
            let path = format!("/v1/entities/product/{entity}/features");
            let progress = Arc::new(Progress { entity: entity.clone(), ..Progress::default() });
            lock(&self.account.now_written)[writer] = progress.clone();
            let mut story = Story::default();
            for value in 1..=WRITES_PER_ENTITY as u64 {
                if self.is_over() {
                    break;
                }
                progress.attempted.store(value, Ordering::SeqCst);
                let answer = self.ask(Method::POST, &path, Some(json!({"features": {"n": value}}))).await;
                let told = told(answer.as_ref());
                if matches!(told, Told::Acknowledged(_)) {
                    progress.acknowledged.store(value, Ordering::SeqCst);
                }
                story.told.push(told);
            }
            lock(&self.account.stories).insert(entity, story);
            if self.is_over() {
                return;
            }
        }
    }

    /// Reads what is being written: never older than what was acknowledged before the read began,
    /// never something that nobody has tried to write by its end.
    async fn read(mut self) {
        while !self.is_over() {
            let progress = lock(&self.account.now_written)[self.turn % WRITERS].clone();
            if progress.entity.is_empty() {
                tokio::time::sleep(PACE).await;
                self.turn += 1;
                continue;
            }
            let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
            let path = format!("/v1/entities/product/{}/features?names=n", progress.entity);
            let Some(answer) = self.ask(Method::GET, &path, None).await else { continue };
            let attempted = progress.attempted.load(Ordering::SeqCst);
            let value = match answer.status {
                200 => answer.json()["features"]["n"].as_u64().unwrap_or(0),
                404 => 0,
                _ => continue,
            };
            if !(acknowledged..=attempted).contains(&value) {
                self.wrong(format!("{path} gave {value}, not from {acknowledged} to {attempted}"));
            }
        }
    }
}

fn told(answer: Option<&Answer>) -> Told {
    match answer {
        Some(answer) if answer.status == 200 => {
            Told::Acknowledged(answer.json()["version"].as_u64().expect("a version"))
        }
        Some(answer) if answer.status == 503 && !answer.text().contains("may have been stored") => {
            Told::Refused
        }
        _ => Told::Unknown,
    }
}
