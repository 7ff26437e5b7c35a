//! Loads: one pipeline, however many entities.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use fred::error::Error;
use fred::types::{Key, Value as Reply};

use super::RedisStore;
use super::connect::Links;
use super::errors::{corrupt, of_key, unexpected};
use super::gather::Together;
use super::keys::{EntityKeys, HEAD};
use super::link::Query;
use super::reply;
use super::rows::Rows;
use super::widths::Widths;
use crate::domain::envelope::{decode_current, decode_superseded};
use crate::domain::name::{EntityType, FeatureName};
use crate::domain::record::{Current, EntityRecords, FeatureRecords, Head, Record};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;
use crate::store::{Load, StoreError, parse_head};

type Replies = std::vec::IntoIter<Result<Reply, Error>>;

/// Sends the queries of loads.
pub(super) struct Loads(pub Arc<Links>);

impl Together for Loads {
    type Ask = Query;
    type Answer = Result<Reply, Error>;
    const MOST: usize = 128;

    async fn run(&self, queries: Vec<Query>) -> Result<Vec<Self::Answer>, StoreError> {
        Ok(self.0.get()?.query(queries).await)
    }

    /// In a cluster, a node that fails would.
    fn stays_alone(&self) -> bool {
        self.0.is_cluster()
    }
}

/// The fields to ask for, which the entities of a batch mostly share.
struct Fields<'a> {
    of: &'a [(FeatureName, FeatureType)],
    entity_type: &'a EntityType,
    /// The head, then every feature.
    main: Vec<Key>,
    /// Those that may be in the large hash.
    large: Vec<Key>,
    /// Whether all of the main hash is asked for.
    all: bool,
    /// Where the features are in `of`.
    places: OnceCell<HashMap<&'a [u8], usize>>,
}

impl<'a> Fields<'a> {
    fn new(load: &Load<'a>, widths: &Widths) -> Self {
        let (of, entity_type) = (load.features, &load.entity.entity_type);
        let all = widths.is_most(entity_type, of.len());
        let mut main = Vec::new();
        if !all {
            main.reserve_exact(of.len() + 1);
            main.push(Key::from_static_str(HEAD));
            main.extend(names(of.iter().map(|(name, _)| name)));
        }
        let large = of.iter().filter(|(_, feature_type)| may_be_large(*feature_type));
        let large = names(large.map(|(name, _)| name)).collect();
        Self { of, entity_type, main, large, all, places: OnceCell::new() }
    }

    fn is_of(&self, load: &Load<'_>) -> bool {
        std::ptr::eq(self.of, load.features) && self.entity_type == &load.entity.entity_type
    }

    /// Where `name` is in `of`; most often at `guess`.
    fn place(&self, name: &[u8], guess: usize) -> Option<usize> {
        if self.of.get(guess).is_some_and(|(guessed, _)| guessed.as_str().as_bytes() == name) {
            return Some(guess);
        }
        let places = self.places.get_or_init(|| {
            let named = self.of.iter().enumerate();
            named.map(|(place, (name, _))| (name.as_str().as_bytes(), place)).collect()
        });
        places.get(name).copied()
    }
}

/// Names as keys, all of them parts of one buffer.
fn names<'a>(names: impl Iterator<Item = &'a FeatureName> + Clone) -> impl Iterator<Item = Key> {
    let text: String = names.clone().map(FeatureName::as_str).collect();
    let mut text = Bytes::from(text);
    names.map(move |name| Key::from(text.split_to(name.as_str().len())))
}

fn may_be_large(feature_type: FeatureType) -> bool {
    match feature_type {
        FeatureType::String | FeatureType::Json | FeatureType::Embedding { .. } => true,
        FeatureType::Int64 | FeatureType::Float64 | FeatureType::Boolean | FeatureType::Timestamp => false,
    }
}

impl RedisStore {
    pub(super) async fn load_all(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        if loads.is_empty() {
            return Ok(Vec::new());
        }
        let mut fields: Vec<Fields<'_>> = Vec::with_capacity(1);
        let mut entities = Vec::with_capacity(loads.len());
        let mut queries = Vec::with_capacity(loads.len());
        for load in loads {
            let keys = self.keys.entity(load.entity);
            if !fields.last().is_some_and(|fields| fields.is_of(load)) {
                fields.push(Fields::new(load, &self.widths));
            }
            if let Some(fields) = fields.last() {
                fields.ask(load, &keys, &mut queries);
            }
            entities.push((keys, fields.len() - 1));
        }
        let mut replies = self.loads.call(queries).await?.into_iter();
        let entity = |(load, (keys, at)): (&Load<'_>, &(EntityKeys, usize))| {
            entity(load, keys, &fields[*at], &self.widths, &mut replies)
        };
        loads.iter().zip(&entities).map(entity).collect()
    }
}

impl Fields<'_> {
    /// Adds the queries of one load.
    fn ask(&self, load: &Load<'_>, keys: &EntityKeys, queries: &mut Vec<Query>) {
        let slot = keys.slot;
        queries.push(if self.all {
            Query::All { slot, key: keys.main.clone() }
        } else {
            Query::Fields { slot, key: keys.main.clone(), fields: self.main.clone() }
        });
        if !self.large.is_empty() {
            queries.push(Query::Fields { slot, key: keys.large.clone(), fields: self.large.clone() });
        }
        if load.history {
            // Before the sorted sets, into which rows may be spilled meanwhile.
            queries.push(Query::Rows { slot, key: keys.rows() });
            let history = |(name, _): &(FeatureName, _)| Query::History { slot, key: keys.history(name) };
            queries.extend(self.of.iter().map(history));
        }
    }

    /// The head and the features in the reply to the query of a main hash.
    fn found(
        &self,
        reply: Vec<Reply>,
        widths: &Widths,
    ) -> Result<(Option<Bytes>, Vec<Option<Bytes>>), StoreError> {
        if self.all {
            // Beside the head.
            widths.seen(self.entity_type, (reply.len() / 2).saturating_sub(1));
        }
        let mut reply = reply.into_iter();
        if !self.all {
            let head = reply.next().and_then(reply::bytes);
            let features = reply.map(|reply| match reply {
                Reply::Null => Ok(None),
                reply => reply::bytes(reply).map(Some).ok_or_else(|| unexpected("HMGET")),
            });
            return Ok((head, features.collect::<Result<_, _>>()?));
        }
        let (mut head, mut features, mut guess) = (None, vec![None; self.of.len()], 0);
        while let Some(name) = reply.next() {
            let both = reply::bytes(name).zip(reply.next().and_then(reply::bytes));
            let (name, value) = both.ok_or_else(|| unexpected("HGETALL"))?;
            if let Some(place) = self.place(&name, guess) {
                features[place] = Some(value);
                guess = place + 1;
            } else if name == HEAD.as_bytes() {
                head = Some(value);
            }
        }
        Ok((head, features))
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
fn entity(
    load: &Load<'_>,
    keys: &EntityKeys,
    fields: &Fields<'_>,
    widths: &Widths,
    replies: &mut Replies,
) -> Result<EntityRecords, StoreError> {
    let (head, main) = fields.found(next(replies, &keys.main, "a query of a hash")?, widths)?;
    let large = if fields.large.is_empty() { Vec::new() } else { next(replies, &keys.large, "HMGET")? };
    let head = match head {
        Some(text) => {
            // Behind it stands what `commit.lua` notes for itself.
            let text = text.split(|byte| *byte == b'|').next().unwrap_or_default();
            let head = parse_head(text).ok_or_else(|| corrupt(&keys.main, HEAD, "this is not a head"))?;
            Some(head)
        }
        None => None,
    };
    let (mut main, mut large) = (main.into_iter(), large.into_iter());
    let mut features = Vec::with_capacity(load.features.len());
    for (name, feature_type) in load.features {
        let in_main = main.next().ok_or_else(|| unexpected("HMGET"))?;
        let in_large = match may_be_large(*feature_type) {
            true => match large.next().ok_or_else(|| unexpected("HMGET"))? {
                Reply::Null => None,
                reply => Some(reply::bytes(reply).ok_or_else(|| unexpected("HMGET"))?),
            },
            false => None,
        };
        // A part that outlived the head is nothing, and its times are relative to nothing.
        let current = match &head {
            Some(head) => {
                let decode = |bytes: Option<Bytes>, key| {
                    bytes.map(|bytes| current(&bytes, key, head, name)).transpose()
                };
                newer(decode(in_main, &keys.main)?, decode(in_large, &keys.large)?)
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

fn current(bytes: &[u8], key: &Bytes, head: &Head, name: &FeatureName) -> Result<Current, StoreError> {
    decode_current(bytes, head.created_at).map_err(|reason| corrupt(key, name.as_str(), reason))
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
