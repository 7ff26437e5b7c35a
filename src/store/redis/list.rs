//! Walking over entities.

use fred::bytes_utils::Str;
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::types::Value;
use fred::types::config::Server;
use serde::{Deserialize, Serialize};

use super::RedisStore;
use super::errors::{store_error, unexpected};
use super::link::{Link, command, send};
use super::reply;
use crate::domain::name::{EntityId, EntityType};
use crate::store::{Page, StoreError};

/// So many keys are looked at for one page, as a multiple of its size: a page is one or a few of
/// these, and most keys of an entity are not its main hash.
const LOOKED_AT_MOST: usize = 1000;
/// So many `SCAN`s make one page at most, should few keys match.
const SCANS_PER_PAGE: usize = 16;

/// Where a walk stands. `SCAN` promises that what is there all the time is seen, but only to those
/// who follow the cursors of one server process: after a restart, a failover or a move of slots
/// the walk begins again, which the contract of a listing allows (at least once).
#[derive(Serialize, Deserialize, Default)]
struct Cursor {
    /// A digest of which node has which slots.
    #[serde(rename = "t", default, skip_serializing_if = "String::is_empty")]
    topology: String,
    /// The place of the node among the primaries.
    #[serde(rename = "n", default)]
    node: usize,
    /// The server process that gave the cursor; empty before the first `SCAN` of a node.
    #[serde(rename = "r", default, skip_serializing_if = "String::is_empty")]
    run: String,
    #[serde(rename = "c")]
    scan: String,
    /// `SCAN` gives what it finds, a page has a limit: what was too much for the last page. It is
    /// kept here because asking again with the same cursor need not give the same keys.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    left: Vec<EntityId>,
}

impl Cursor {
    fn start(topology: String) -> Self {
        Self { topology, scan: "0".to_owned(), ..Self::default() }
    }

    /// Hexadecimal, so that it passes through any URL as it is.
    fn to_text(&self) -> Result<String, StoreError> {
        let json = serde_json::to_vec(self).map_err(|error| StoreError::Internal(error.to_string()))?;
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
        Ok(json.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    fn parse(text: &str) -> Option<Self> {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let byte = |[high, low]: &[u8; 2]| Some((nibble(*high)? << 4 | nibble(*low)?) as u8);
        let json: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let cursor: Self = serde_json::from_slice(&json?).ok()?;
        cursor.scan.parse::<u64>().ok()?;
        Some(cursor)
    }
}

impl RedisStore {
    pub(super) async fn list_page(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let limit = limit.max(1);
        let link = self.links.get()?;
        let (nodes, topology) = topology(link);
        let mut cursor = match cursor.map(Cursor::parse) {
            None => Cursor::start(topology),
            Some(None) => return Ok(None),
            Some(Some(cursor)) if cursor.topology != topology => {
                Cursor { left: cursor.left, ..Cursor::start(topology) }
            }
            Some(Some(cursor)) => cursor,
        };
        let pattern = self.keys.pattern(entity_type);
        let mut found = std::mem::take(&mut cursor.left);
        let mut ended = false;
        for _ in 0..SCANS_PER_PAGE {
            if found.len() >= limit || ended {
                break;
            }
            let Some(node) = nodes.get(cursor.node) else {
                ended = true;
                break;
            };
            let count = (limit - found.len()).min(LOOKED_AT_MOST);
            let scanned = scan(link, node.as_ref(), &pattern, &cursor.scan, count).await?;
            if !cursor.run.is_empty() && cursor.run != scanned.run {
                cursor.scan = "0".to_owned();
                cursor.run.clear();
                cursor.node = 0;
                continue;
            }
            found.extend(scanned.keys.iter().filter_map(|key| self.keys.entity_id(entity_type, key)));
            if scanned.cursor == "0" {
                cursor.node += 1;
                cursor.run.clear();
                cursor.scan = "0".to_owned();
                ended = cursor.node >= nodes.len();
            } else {
                cursor.scan = scanned.cursor;
                cursor.run = scanned.run;
            }
        }
        if found.len() > limit {
            cursor.left = found.split_off(limit);
        }
        let more = !ended || !cursor.left.is_empty();
        let next_cursor = if more { Some(cursor.to_text()?) } else { None };
        Ok(Some(Page { entity_ids: found, next_cursor }))
    }
}

/// The nodes to walk over, in a stable order, and a digest of who has which slots.
fn topology(link: &Link) -> (Vec<Option<Server>>, String) {
    let Some(primaries) = link.primaries() else {
        return (vec![None], String::new());
    };
    let mut hasher = blake3::Hasher::new();
    let routing = link.client().cached_cluster_state();
    let mut ranges: Vec<_> = routing
        .iter()
        .flat_map(|routing| routing.slots())
        .map(|range| (range.start, range.end, &range.primary))
        .collect();
    ranges.sort();
    for (start, end, primary) in ranges {
        hasher.update(format!("{start}-{end} {primary}\n").as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    (primaries.into_iter().map(Some).collect(), digest[..8].to_owned())
}

struct Scanned {
    run: String,
    cursor: String,
    keys: Vec<bytes::Bytes>,
}

async fn scan(
    link: &Link,
    node: Option<&Server>,
    pattern: &str,
    cursor: &str,
    count: usize,
) -> Result<Scanned, StoreError> {
    let pipeline = link.pipeline_to(node);
    let words = |words: &[&str]| words.iter().map(|word| Value::String(Str::from(*word))).collect::<Vec<_>>();
    // In a pipeline these only queue the commands. The server's name for its process comes along.
    let _ = pipeline.custom::<Value, _>(command("INFO", 0), words(&["server"])).await;
    let args = words(&[cursor, "MATCH", pattern, "COUNT", &count.to_string()]);
    let _ = pipeline.custom::<Value, _>(command("SCAN", 0), args).await;
    let mut results = send(&pipeline, 2).await.into_iter();
    let mut next = || results.next().ok_or_else(|| unexpected("SCAN"))?.map_err(store_error);
    let info = reply::text(next()?).ok_or_else(|| unexpected("INFO"))?;
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
    let run: String = run.trim().chars().take(12).collect();
    let mut parts = reply::array(next()?).ok_or_else(|| unexpected("SCAN"))?.into_iter();
    let cursor = parts.next().and_then(reply::text).ok_or_else(|| unexpected("SCAN"))?.to_string();
    let keys = parts.next().and_then(reply::array).ok_or_else(|| unexpected("SCAN"))?;
    Ok(Scanned { run, cursor, keys: keys.into_iter().filter_map(reply::bytes).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_and_nonsense_is_refused() {
        let cursor = Cursor {
            topology: "abcd".to_owned(),
            node: 2,
            run: "r".to_owned(),
            scan: "17".to_owned(),
            left: vec![EntityId::parse("é\"}").unwrap()],
        };
        let text = cursor.to_text().unwrap();
        assert!(text.bytes().all(|b| b.is_ascii_hexdigit()));
        let read = Cursor::parse(&text).unwrap();
        assert_eq!((read.node, read.scan.as_str(), read.left), (2, "17", cursor.left));
        for bad in ["", "0", "zz", "7b7d", "é", "12345"] {
            assert!(Cursor::parse(bad).is_none(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_cursor_or_none(text in "[0-9a-f]{0,60}|\\PC{0,20}", json in "[{}\\[\\]\":,a-z0-9]{0,40}") {
            let hexadecimal: String = json.bytes().map(|byte| format!("{byte:02x}")).collect();
            for text in [&text, &hexadecimal] {
                if let Some(cursor) = Cursor::parse(text) {
                    proptest::prop_assert!(Cursor::parse(&cursor.to_text().unwrap()).is_some());
                }
            }
        }
    }
}
