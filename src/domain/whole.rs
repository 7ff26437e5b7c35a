//! Whole numbers in documents, as JSON Schema sees them: `3.0` is one.

use serde::{Deserialize, Deserializer, de};

/// For `#[serde(deserialize_with)]` on a member that may be left out or null.
pub fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_u64().or_else(|| {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it a float no longer says which integer it was
        let float = number.as_f64()?;
        (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
    });
    match whole.and_then(|whole| T::try_from(whole).ok()) {
        Some(whole) => Ok(Some(whole)),
        None => Err(de::Error::custom(format!("{number} is not a whole number in the range of this member"))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_float_without_a_fraction_is_whole() {
        let read = |json: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            super::optional::<_, u32>(&mut deserializer).ok()
        };
        for (json, whole) in
            [("null", None), ("3", Some(3)), ("3.0", Some(3)), ("3e2", Some(300)), ("0", Some(0))]
        {
            assert_eq!(read(json), Some(whole), "{json}");
        }
        for json in ["3.5", "-1", "4294967296", "1e300", "\"3\"", "true"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
