//! Queries that need no decoding, as most do: names, numbers and times have no character that a URL
//! escapes. Whatever else there is, errors too, is left to the form's full grammar.

use serde::de::value::{Error, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The query, if it can be read so.
pub fn plain<T: DeserializeOwned>(query: &str) -> Option<T> {
    if query.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return None;
    }
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    T::deserialize(MapDeserializer::new(pairs.map(|(name, value)| (name, Text(value))))).ok()
}

/// A value, of whatever type is expected.
struct Text<'a>(&'a str);

impl<'de> IntoDeserializer<'de> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident => $visit:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.0.parse().map_err(Error::custom)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    parsed! {
        deserialize_bool => visit_bool,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
        deserialize_i8 => visit_i8,
        deserialize_i16 => visit_i16,
        deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64,
        deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64,
    }

    forward_to_deserialize_any! {
        char str string unit bytes byte_buf unit_struct tuple_struct struct identifier tuple ignored_any seq map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Query;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Other,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        names: Option<String>,
        limit: Option<u32>,
        kind: Option<Kind>,
        #[serde(default)]
        all: bool,
        share: Option<f64>,
    }

    fn both(query: &str) -> (Option<Asked>, Option<Asked>) {
        let uri = format!("http://a/b?{query}").parse().unwrap();
        (plain(query), Query::try_from_uri(&uri).ok().map(|Query(asked)| asked))
    }

    #[test]
    fn plain_queries_are_read() {
        let (plain, full) = both("names=a,b&limit=7&kind=plain&all=true&share=0.5");
        let expected = Asked {
            names: Some("a,b".into()),
            limit: Some(7),
            kind: Some(Kind::Plain),
            all: true,
            share: Some(0.5),
        };
        assert_eq!(plain.as_ref(), Some(&expected));
        assert_eq!(full.as_ref(), Some(&expected));
        assert_eq!(both("names=a%2Cb").0, None);
    }

    proptest! {
        #[test]
        fn they_are_read_as_the_full_grammar_does(
            parts in proptest::collection::vec("(names|limit|kind|all|share|x)?=?(plain|other|true|-?[0-9.]{1,3}|[a-z=]{0,3})", 0..4),
        ) {
            let (plain, full) = both(&parts.join("&"));
            prop_assert_eq!(plain, full);
        }
    }
}
