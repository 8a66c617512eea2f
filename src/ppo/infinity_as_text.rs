//! Serde's infinities as `"inf"` and `"-inf"`, for self-describing formats: JSON would write null.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, \"inf\" or \"-inf\"")]
enum Number {
    Finite(f64),
    Infinite(Infinity),
}

#[derive(Serialize, Deserialize)]
enum Infinity {
    #[serde(rename = "inf")]
    Positive,
    #[serde(rename = "-inf")]
    Negative,
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        match x {
            f64::INFINITY => Number::Infinite(Infinity::Positive),
            f64::NEG_INFINITY => Number::Infinite(Infinity::Negative),
            x => Number::Finite(x),
        }
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> Self {
        match number {
            Number::Finite(x) => x,
            Number::Infinite(Infinity::Positive) => f64::INFINITY,
            Number::Infinite(Infinity::Negative) => f64::NEG_INFINITY,
        }
    }
}

/// For `#[serde(with)]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Number::from(*x).serialize(serializer)
}

/// For `#[serde(with)]`.
///
/// # Errors
/// A value that is neither a number nor `"inf"` nor `"-inf"`; the deserializer's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Number::deserialize(deserializer).map(f64::from)
}

pub(super) mod optional {
    use super::{Deserialize, Deserializer, Number, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(x: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        x.map(Number::from).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Number>::deserialize(deserializer)?.map(f64::from))
    }
}
