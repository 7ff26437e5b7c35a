//! Load for a long time while servers and their Redis are killed at random, and then a look at the
//! whole history.

use std::time::{Duration, Instant};

use crate::redis_process::{Durability, RedisServer};
use crate::server_process::{Launch, ServerProcess};
use crate::workload::{Accounts, Targets, Workload, declare};

const MIB: u64 = 1 << 20;

/// What a soak found, besides contradictions.
struct Soaked {
    redis: RedisServer,
    servers: Vec<ServerProcess>,
    accounts: Accounts,
    kills_of_redis: u32,
    kills_of_servers: u32,
    /// The most memory that a server held, in each third of the time.
    resident: [u64; 3],
}

/// From nothing to `most`, at random.
fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random())
}

/// Two servers on a Redis that syncs every write; something of it dies about every `between`.
async fn soak(length: Duration, between: Duration) -> Soaked {
    let mut redis = RedisServer::start(Durability::Always);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let mut servers = vec![launches[0].start().await, launches[1].start().await];
    declare(&servers[0].client).await;
    let addresses =
        |servers: &[ServerProcess]| servers.iter().map(|one| one.client.address).collect::<Vec<_>>();
    let targets = Targets::new(addresses(&servers));
    let load = Workload::start(&servers[0].client, &targets, "soak");
    let start = Instant::now();
    let (mut kills_of_redis, mut kills_of_servers) = (0, 0);
    let mut resident = [0; 3];
    while start.elapsed() < length {
        tokio::time::sleep(between / 2 + up_to(between)).await;
        let third = (start.elapsed().as_secs_f64() * 3.0 / length.as_secs_f64()) as usize;
        for server in &servers {
            let most = &mut resident[third.min(2)];
            *most = server.resident_bytes().max(*most);
        }
        let which = rand::random::<u32>() % 3;
        if which == 2 {
            redis.kill();
            tokio::time::sleep(up_to(Duration::from_secs(1))).await;
            redis.restart();
            kills_of_redis += 1;
        } else {
            let which = which as usize;
            servers[which].kill();
            tokio::time::sleep(up_to(Duration::from_secs(1))).await;
            servers[which] = launches[which].start().await;
            targets.set(addresses(&servers));
            kills_of_servers += 1;
        }
        // Whatever was killed: the load goes on.
        load.progress(20).await;
    }
    let accounts = load.finish().await;
    Soaked { redis, servers, accounts, kills_of_redis, kills_of_servers, resident }
}

impl Soaked {
    async fn check(&self) {
        let nothing: [String; 0] = [];
        assert_eq!(self.accounts.wrong, nothing, "what no client may see");
        let client = &self.servers[0].client;
        assert_eq!(self.accounts.contradictions(client).await, nothing, "lost or invented");
        assert!(self.accounts.acknowledged() > 100);
        let [first, .., last] = self.resident;
        assert!(last < first + first / 2 + 32 * MIB, "memory grew from {first} to {last} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_seconds_of_kills_lose_nothing() {
    let mut soaked = soak(Duration::from_secs(15), Duration::from_millis(1500)).await;
    soaked.check().await;

    // The same look finds a loss where there is one: the oldest version of an entity goes.
    let long = soaked.accounts.stories.iter().find(|(_, story)| story.acknowledged() > 2);
    let entity = long.expect("an entity with a history").0.clone();
    let key = format!("fs:{{product:{entity}}}:v:n");
    assert_eq!(soaked.redis.cli(&["ZREMRANGEBYRANK", &key, "0", "0"]), "1");
    soaked.accounts.stories.retain(|name, _| *name == entity);
    let found = soaked.accounts.contradictions(&soaked.servers[0].client).await;
    assert!(found.len() == 1 && found[0].starts_with(&entity) && found[0].ends_with("is lost"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes, or SOAK_SECONDS"]
async fn ten_minutes_of_kills_lose_nothing() {
    let seconds =
        std::env::var("SOAK_SECONDS").map_or(600, |text| text.parse().expect("SOAK_SECONDS: seconds"));
    let soaked = soak(Duration::from_secs(seconds), Duration::from_secs(4)).await;
    let accounts = &soaked.accounts;
    println!(
        "{seconds} s, killed: Redis {} times, servers {} times",
        soaked.kills_of_redis, soaked.kills_of_servers
    );
    println!("{} writes acknowledged, to {} entities", accounts.acknowledged(), accounts.stories.len());
    println!("failures that clients saw: {:?}, slowest answer {:?}", accounts.seen, accounts.slowest);
    println!(
        "most memory of a server, by thirds of the time: {:?} MiB",
        soaked.resident.map(|bytes| bytes / MIB)
    );
    soaked.check().await;
    println!("nothing acknowledged is lost, nothing is there that was not written");
}
