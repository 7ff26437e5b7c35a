//! Loads: one pipeline, however many entities.

use bytes::Bytes;
use fred::interfaces::{ClientLike, HashesInterface, SortedSetsInterface};
use fred::types::{Key, Value as Reply};

use super::RedisStore;
use super::errors::{corrupt, of_key, unexpected};
use super::keys::{EntityKeys, HEAD};
use super::link::{command, send};
use super::reply;
use super::rows::Rows;
use crate::domain::envelope::{decode_current, decode_superseded};
use crate::domain::name::FeatureName;
use crate::domain::record::{Current, EntityRecords, FeatureRecords, Head, Record};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;
use crate::store::{Load, StoreError, parse_head};

type Replies = std::vec::IntoIter<Result<Reply, fred::error::Error>>;

/// The fields to ask for, which the entities of a batch mostly share.
struct Fields<'a> {
    of: &'a [(FeatureName, FeatureType)],
    /// The head, then every feature.
    main: Vec<Key>,
    /// Those that may be in the large hash.
    large: Vec<Key>,
}

impl<'a> Fields<'a> {
    fn new(of: &'a [(FeatureName, FeatureType)]) -> Self {
        let mut main = Vec::with_capacity(of.len() + 1);
        main.push(Key::from_static_str(HEAD));
        let mut large = Vec::new();
        for (name, feature_type) in of {
            let key = Key::from(Bytes::copy_from_slice(name.as_str().as_bytes()));
            if may_be_large(*feature_type) {
                large.push(key.clone());
            }
            main.push(key);
        }
        Self { of, main, large }
    }

    fn is_of(&self, features: &[(FeatureName, FeatureType)]) -> bool {
        std::ptr::eq(self.of, features)
    }
}

fn may_be_large(feature_type: FeatureType) -> bool {
    match feature_type {
        FeatureType::String | FeatureType::Json | FeatureType::Embedding { .. } => true,
        FeatureType::Int64 | FeatureType::Float64 | FeatureType::Boolean | FeatureType::Timestamp => false,
    }
}

/// A command of a load.
enum Ask {
    Fields(Bytes, Vec<Key>),
    Rows(Bytes, u16),
    History(Bytes),
}

impl Ask {
    fn into_words(self) -> (&'static str, Vec<Reply>) {
        match self {
            Self::Fields(key, fields) => {
                let fields = fields.into_iter().map(|field| Reply::Bytes(field.inner().clone()));
                ("HMGET", std::iter::once(Reply::Bytes(key)).chain(fields).collect())
            }
            Self::Rows(key, _) => ("LRANGE", vec![Reply::Bytes(key), Reply::Integer(0), Reply::Integer(-1)]),
            Self::History(key) => {
                let all = [Reply::Integer(0), Reply::Integer(-1), Reply::from_static_str("WITHSCORES")];
                ("ZREVRANGE", std::iter::once(Reply::Bytes(key)).chain(all).collect())
            }
        }
    }
}

impl RedisStore {
    pub(super) async fn load_all(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        if loads.is_empty() {
            return Ok(Vec::new());
        }
        let mut fields: Option<Fields<'_>> = None;
        let mut keys = Vec::with_capacity(loads.len());
        let mut asks = Vec::with_capacity(loads.len());
        for load in loads {
            let of_entity = self.keys.entity(load.entity);
            let fields = match &mut fields {
                Some(fields) if fields.is_of(load.features) => fields,
                other => other.insert(Fields::new(load.features)),
            };
            asks.push(Ask::Fields(of_entity.main.clone(), fields.main.clone()));
            if !fields.large.is_empty() {
                asks.push(Ask::Fields(of_entity.large.clone(), fields.large.clone()));
            }
            if load.history {
                // Before the sorted sets, into which rows may be spilled meanwhile.
                asks.push(Ask::Rows(of_entity.rows(), of_entity.slot));
                asks.extend(load.features.iter().map(|(name, _)| Ask::History(of_entity.history(name))));
            }
            keys.push(of_entity);
        }
        let link = self.links.get()?;
        let count = asks.len();
        let last = asks.pop().zip(keys.last().map(|keys| keys.slot));
        if count == 1
            && let Some((ask, slot)) = last
        {
            // One entity, asked one thing: a pipeline would only be a way round.
            let (name, args) = ask.into_words();
            let mut replies = vec![link.command(name, slot, args).await].into_iter();
            return loads.iter().zip(&keys).map(|(load, keys)| entity(load, keys, &mut replies)).collect();
        }
        let pipeline = link.pipeline();
        // In a pipeline these only queue the commands.
        for ask in asks {
            let _: Result<Reply, _> = match ask {
                Ask::Fields(key, fields) => pipeline.hmget(key, fields).await,
                ask @ Ask::Rows(_, slot) => {
                    let (name, args) = ask.into_words();
                    pipeline.custom(command(name, slot), args).await
                }
                Ask::History(key) => pipeline.zrevrange(key, 0, -1, true).await,
            };
        }
        if let Some((ask, slot)) = last {
            let (name, args) = ask.into_words();
            let _: Result<Reply, _> = pipeline.custom(command(name, slot), args).await;
        }
        let mut replies = send(&pipeline, count).await.into_iter();
        loads.iter().zip(&keys).map(|(load, keys)| entity(load, keys, &mut replies)).collect()
    }
}

fn next(replies: &mut Replies, key: &Bytes, command: &str) -> Result<Vec<Reply>, StoreError> {
    match replies.next() {
        Some(Ok(reply)) => reply::array(reply).ok_or_else(|| unexpected(command)),
        Some(Err(error)) => Err(of_key(error, key)),
        None => Err(unexpected(command)),
    }
}

/// Takes the replies to one load.
fn entity(load: &Load<'_>, keys: &EntityKeys, replies: &mut Replies) -> Result<EntityRecords, StoreError> {
    let mut main = next(replies, &keys.main, "HMGET")?.into_iter();
    let any_large = load.features.iter().any(|(_, feature_type)| may_be_large(*feature_type));
    let mut large = if any_large { next(replies, &keys.large, "HMGET")? } else { Vec::new() }.into_iter();
    let head = match main.next().and_then(reply::bytes) {
        Some(text) => {
            let head = parse_head(&text).ok_or_else(|| corrupt(&keys.main, HEAD, "this is not a head"))?;
            Some(head)
        }
        None => None,
    };
    let mut features = Vec::with_capacity(load.features.len());
    for (name, feature_type) in load.features {
        let in_main = main.next().ok_or_else(|| unexpected("HMGET"))?;
        let in_large = if may_be_large(*feature_type) {
            large.next().ok_or_else(|| unexpected("HMGET"))?
        } else {
            Reply::Null
        };
        // A part that outlived the head is nothing, and its times are relative to nothing.
        let current = match &head {
            Some(head) => {
                newer(current(in_main, &keys.main, head, name)?, current(in_large, &keys.large, head, name)?)
            }
            None => None,
        };
        features.push(FeatureRecords { current, history: None });
    }
    if load.history {
        let key = keys.rows();
        let mut rows = Rows::read(&key, next(replies, &key, "LRANGE")?)?;
        for ((name, _), records) in load.features.iter().zip(&mut features) {
            let key = keys.history(name);
            let members = next(replies, &key, "ZREVRANGE")?;
            records.history = Some(if head.is_some() {
                let mut history = history(members, &key, name)?;
                rows.add_to(name.as_str(), &mut history);
                history
            } else {
                Vec::new()
            });
        }
    }
    Ok(EntityRecords { head, features })
}

fn current(
    reply: Reply,
    key: &Bytes,
    head: &Head,
    name: &FeatureName,
) -> Result<Option<Current>, StoreError> {
    if reply == Reply::Null {
        return Ok(None);
    }
    let bytes = reply::bytes(reply).ok_or_else(|| unexpected("HMGET"))?;
    decode_current(&bytes, head.created_at).map(Some).map_err(|reason| corrupt(key, name.as_str(), reason))
}

/// A feature is in one of the hashes only, unless its type was changed and changed back.
fn newer(a: Option<Current>, b: Option<Current>) -> Option<Current> {
    match (a, b) {
        (Some(a), Some(b)) if b.record.version > a.record.version => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

fn history(members: Vec<Reply>, key: &Bytes, name: &FeatureName) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::with_capacity(members.len() / 2);
    let mut members = members.into_iter();
    while let Some(member) = members.next() {
        let bytes = reply::bytes(member).ok_or_else(|| unexpected("ZREVRANGE"))?;
        let score = match members.next() {
            Some(Reply::Double(score)) => score,
            Some(Reply::Integer(score)) => score as f64,
            score => {
                let text = score.and_then(reply::bytes).ok_or_else(|| unexpected("ZREVRANGE"))?;
                let text = std::str::from_utf8(&text).ok();
                text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("ZREVRANGE"))?
            }
        };
        // A float64 past 2^53 is near the time only; such a record keeps its own.
        let sort_key = (score as i64).clamp(Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros());
        let sort_key = Timestamp::from_micros(sort_key)
            .ok_or_else(|| corrupt(key, name.as_str(), "the score is no time"))?;
        let record =
            decode_superseded(sort_key, &bytes).map_err(|reason| corrupt(key, name.as_str(), reason))?;
        records.push(record);
    }
    // Equal scores may stand for times that differ, see above.
    records.sort_by_key(|record| std::cmp::Reverse(record.order()));
    Ok(records)
}
