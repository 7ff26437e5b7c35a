//! `embed(text)`, and the built-in provider: signed feature hashing.
//!
//! Evaluation never waits. A text whose embedding is not there yet is recorded, the function goes
//! on with zeros to find the further ones it needs, its result is thrown away, and the caller gets
//! the list; it fetches them and calls again.

use std::sync::Arc;

use super::fault::{ErrorKind, Fault, Stop};
use super::heap::Val;
use super::machine::Machine;
use super::native::Def;
pub use crate::domain::derive::{Embedding, EmbeddingRequest, Embeddings};

pub(super) const HELPERS: &[Def] = &[Def::new(
    "embed(text, dimension=None)",
    "The embedding of a text by the configured provider, as a list of `dimension` numbers. \
     Without a dimension: that of the embedding feature it computes, else that of the entity type's embedding features \
     where they agree.",
    ("len(embed(\"red shoe\", 8))", "8"),
    embed,
)
.passes_none()];

/// So many texts one evaluation may ask for at once.
const MAX_MISSING: usize = 64;

/// The built-in provider: always at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hashing;

impl Embeddings for Hashing {
    fn get(&self, text: &str, dimension: u32) -> Embedding {
        Embedding::Here(hashing(text, dimension))
    }
}

/// Signed feature hashing of a text's words and pairs of neighbouring words, of length 1 (all
/// zeros for a text without words). The same text gives the same numbers everywhere and for ever.
pub fn hashing(text: &str, dimension: u32) -> Arc<[f32]> {
    let mut numbers = vec![0f32; dimension as usize];
    if numbers.is_empty() {
        return numbers.into();
    }
    let lowered = text.to_lowercase();
    let words = lowered.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut add = |hash: u64, weight: f32| {
        let hash = mixed(hash);
        let slot = (hash >> 1) % u64::from(dimension);
        numbers[slot as usize] += if hash & 1 == 0 { weight } else { -weight };
    };
    let mut before: Option<u64> = None;
    for word in words {
        let hash = fnv1a(FNV_START, word);
        add(hash, 1.0);
        if let Some(before) = before {
            // Pairs say less than words do: most are unique.
            add(fnv1a(fnv1a(before, " "), word), 0.5);
        }
        before = Some(hash);
    }
    let length = numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        numbers.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    }
    numbers.into()
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of a text, or of one more piece of it.
fn fnv1a(start: u64, text: &str) -> u64 {
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes the low bits, which choose slot and sign, depend on every bit.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

fn embed(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let text = m.text(a[0], "text")?;
    let dimension = match (a[1], m.dimension) {
        (Val::Unset | Val::None, Some(dimension)) => dimension,
        (Val::Unset | Val::None, None) => {
            return Err(Fault::failed("say how many numbers: embed(text, dimension)"));
        }
        (dimension, _) => match u32::try_from(m.int(dimension, "dimension")?) {
            Ok(dimension @ 1..=crate::domain::compiled::MAX_DIMENSION) => dimension,
            _ => return Err(Fault::failed("dimension must be from 1 to 65536")),
        },
    };
    let Some(provider) = m.embeddings else {
        return Err(Fault::failed("no provider of embeddings is configured"));
    };
    m.heap.meter.work(text.len() / 4 + dimension as usize / 8)?;
    match provider.get(text, dimension) {
        Embedding::Here(numbers) if numbers.len() == dimension as usize => {
            if numbers.iter().any(|number| !number.is_finite()) {
                let message = "the provider answered a number that is not finite";
                return Err(Fault::new(ErrorKind::Provider, message));
            }
            m.heap.floats(numbers.iter().map(|number| f64::from(*number)))
        }
        Embedding::Here(numbers) => {
            let message = format!("the provider answered {} numbers, not {dimension}", numbers.len());
            Err(Fault::new(ErrorKind::Provider, message))
        }
        Embedding::Failed(reason) => Err(Fault::new(ErrorKind::Provider, reason)),
        Embedding::Refused(reason) => Err(Fault::failed(reason)),
        Embedding::Fetch => {
            let request = EmbeddingRequest { text: text.to_owned(), dimension };
            if !m.missing.contains(&request) {
                m.missing.push(request);
            }
            if m.missing.len() >= MAX_MISSING {
                return Err(Fault::failed("further embeddings are asked for with the next call"));
            }
            m.heap.floats(std::iter::repeat_n(0.0, dimension as usize))
        }
    }
}
