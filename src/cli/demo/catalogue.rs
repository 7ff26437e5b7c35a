//! A shop that is the same every time: products and users made of [`words`](super::words), with
//! embeddings by feature hashing.

use serde_json::{Value, json};

use super::words::{ADJECTIVES, BRANDS, CATEGORIES, COLOURS, COUNTRIES, Category, EDITIONS};
use crate::domain::time::Timestamp;

pub const PRODUCTS: usize = 300;
pub const USERS: usize = 50;
const FIRST_PRODUCT: usize = 1001;
const TEXT_DIMENSION: usize = 64;
const IMAGE_DIMENSION: usize = 32;
const DAY_MILLIS: i64 = 86_400_000;

/// The rows of a batch write, one a product; ids from 1001.
pub fn products(now: Timestamp) -> Vec<Value> {
    let mut dice = Dice(1);
    (0..PRODUCTS).map(|index| product(index, now, &mut dice)).collect()
}

/// The rows of a batch write, one a user; ids from 1.
pub fn users(now: Timestamp) -> Vec<Value> {
    let mut dice = Dice(2);
    (0..USERS).map(|index| user(index, now, &mut dice)).collect()
}

fn product(index: usize, now: Timestamp, dice: &mut Dice) -> Value {
    let category = &CATEGORIES[index % CATEGORIES.len()];
    let brand = dice.pick(&BRANDS);
    let edition = dice.pick(&EDITIONS);
    let name = format!("{brand} {} {}{edition}", dice.pick(category.models), 2 + dice.below(14));
    let colour = dice.pick(&COLOURS);
    let (first, second) = (dice.pick(&ADJECTIVES), dice.pick(&ADJECTIVES));
    let strength = dice.pick(category.strengths);
    let description = match first == second {
        true => format!("A {first} {colour} {} with {strength}.", category.noun),
        false => format!("A {first}, {second} {colour} {} with {strength}.", category.noun),
    };
    let price = price(category, edition, dice);
    let text = format!("{name} {description} {}", category.name);
    // Larger catalogues have old offers too: a fifth of the stock counts are two days old.
    let days = if index % 5 == 4 { 2 } else { 0 };
    json!({
        "entity_id": (FIRST_PRODUCT + index).to_string(),
        "event_timestamp": ago(now, days * DAY_MILLIS + dice.below(6 * 3_600_000) as i64),
        "features": {
            "name": name,
            "brand": brand,
            "category": category.name,
            "price": price,
            "stock": dice.below(400),
            "description": description,
            "rating": rounded(2.5 + 2.5 * dice.unit().sqrt(), 10.0),
            "popularity_score": rounded(dice.unit() * dice.unit(), 1000.0),
            "in_sale": dice.below(6) == 0,
            "released_at": ago(now, (30 + dice.below(900) as i64) * DAY_MILLIS),
            "attributes": {"colour": colour, "warranty_years": 1 + dice.below(3)},
            "text_embedding": embedding(&text, TEXT_DIMENSION),
            "image_embedding": embedding(&format!("{} {colour} {brand}", category.name), IMAGE_DIMENSION),
        }
    })
}

/// Dearer editions cost more, and prices end as shops like them to.
fn price(category: &Category, edition: &str, dice: &mut Dice) -> f64 {
    let (least, greatest) = category.price;
    let share = match edition {
        " Lite" | " SE" => dice.unit() * 0.3,
        " Pro" | " Max" => 0.5 + dice.unit() * 0.5,
        _ => 0.15 + dice.unit() * 0.5,
    };
    let price = least + (greatest - least) * share;
    let step = if price < 100.0 { 5.0 } else { 10.0 };
    rounded((price / step).round() * step - 0.01, 100.0)
}

fn user(index: usize, now: Timestamp, dice: &mut Dice) -> Value {
    let favourite = CATEGORIES[dice.below(CATEGORIES.len())].name;
    let brands = format!("{} {}", dice.pick(&BRANDS), dice.pick(&BRANDS));
    json!({
        "entity_id": (1 + index).to_string(),
        "features": {
            "country": dice.pick(&COUNTRIES),
            "age": 18 + dice.below(60),
            "is_member": dice.below(3) == 0,
            "favourite_category": favourite,
            "average_basket": rounded(15.0 + 400.0 * dice.unit() * dice.unit(), 100.0),
            "recommendation_algorithm": if index.is_multiple_of(2) { "v1" } else { "v2" },
            "taste_embedding": embedding(&format!("{favourite} {brands}"), IMAGE_DIMENSION),
            "last_seen_at": ago(now, dice.below(14 * 86_400_000) as i64),
        }
    })
}

/// Signed feature hashing: each word adds one or takes one away at a place of its own. Texts that
/// share words are close, which is all that a demo needs.
pub fn embedding(text: &str, dimension: usize) -> Vec<Value> {
    let mut sums = vec![0.0; dimension];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = scrambled(fnv1a(&word.to_lowercase()));
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        sums[hash as usize % dimension] += sign;
    }
    let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt().max(1.0);
    sums.iter().map(|sum| json!(rounded(sum / norm, 10_000.0))).collect()
}

fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finalizer of SplitMix64.
fn scrambled(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn rounded(number: f64, parts: f64) -> f64 {
    // Adding zero turns a negative zero into a plain one.
    (number * parts).round() / parts + 0.0
}

/// In whole seconds.
fn ago(now: Timestamp, millis: i64) -> String {
    let seconds = (now.as_millis() - millis) / 1000;
    Timestamp::from_millis(seconds * 1000).unwrap_or(now).to_string()
}

/// Chance that falls the same way every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scrambled(self.0)
    }

    /// From 0 to below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_the_same_every_time_and_its_prices_are_sensible() {
        let now = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        let catalogue = products(now);
        assert_eq!(catalogue, products(now));
        assert_eq!((catalogue.len(), users(now).len()), (PRODUCTS, USERS));
        for row in &catalogue {
            let features = &row["features"];
            let category = CATEGORIES.iter().find(|category| features["category"] == category.name).unwrap();
            let price = features["price"].as_f64().unwrap();
            let (least, greatest) = category.price;
            assert!((least - 10.0..=greatest + 10.0).contains(&price), "{row}");
        }
    }

    #[test]
    fn texts_that_share_words_are_close() {
        let numbers = |text: &str| -> Vec<f64> {
            embedding(text, TEXT_DIMENSION).iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let dot = |a: &str, b: &str| -> f64 { numbers(a).iter().zip(numbers(b)).map(|(a, b)| a * b).sum() };
        assert!((dot("a light laptop", "a light laptop") - 1.0).abs() < 1e-3);
        assert!(dot("a light laptop", "a sturdy laptop") > dot("a light laptop", "loud red speakers"));
    }
}
