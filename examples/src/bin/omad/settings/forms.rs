//! How ages and sizes are written in settings.

/// `7d`
pub(super) mod age {
    use std::time::Duration;

    use oma_examples::age::{age, exact};
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        age(&String::deserialize(from)?).map_err(de::Error::custom)
    }

    pub(in super::super) fn serialize<S: Serializer>(age: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&exact(*age))
    }
}

/// The same where there may be none.
pub(super) mod optional_age {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::age;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        age::deserialize(from).map(Some)
    }

    pub(in super::super) fn serialize<S: Serializer>(
        age: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match age {
            Some(age) => age::serialize(age, to),
            None => to.serialize_none(),
        }
    }
}

/// `256MiB`
pub(super) mod size {
    use oma_core::ByteSize;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }

    pub(in super::super) fn serialize<S: Serializer>(size: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&size.exact())
    }
}
