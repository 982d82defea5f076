//! The limits of key-value requests, checked alike by both ends.

use bytes::Bytes;

use crate::limits::{KV_KEY_MAX, KV_KEY_OVERHEAD, KV_KEYS_MAX, KV_PUT_MAX, KV_VALUE_MAX};
use crate::{KvListQuery, KvRequest};

/// What is wrong with a request. The text names the limit and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvViolation {
    /// Too many keys or entries.
    #[error("a maximum of {KV_KEYS_MAX} keys is allowed, the request has {0}")]
    TooManyKeys(usize),
    /// Keys and values do not pair up.
    #[error("a put needs as many values as keys, the request has {keys} keys and {values} values")]
    Unpaired {
        /// Keys given.
        keys: usize,
        /// Values given.
        values: usize,
    },
    /// A key is too long.
    #[error("{what} {place} is too long: {found} bytes, the maximum is {KV_KEY_MAX}")]
    KeyTooLong {
        /// Which kind of key: `key`, `prefix key`, `start key` or `end key`.
        what: &'static str,
        /// Its place in the request, from 0.
        place: usize,
        /// Its length in bytes.
        found: usize,
    },
    /// A value is too long.
    #[error("value {place} is too long: {found} bytes, the maximum is {KV_VALUE_MAX}")]
    ValueTooLong {
        /// Its place in the request, from 0.
        place: usize,
        /// Its length in bytes.
        found: usize,
    },
    /// The entries of a put are too large together.
    #[error(
        "the entries are too large together: {0} bytes, the maximum is {KV_PUT_MAX} (keys count {KV_KEY_OVERHEAD} bytes more each)"
    )]
    PutTooLarge(usize),
}

impl KvRequest {
    /// Whether a gateway may accept this.
    ///
    /// # Errors
    /// [`KvViolation`], the first one found.
    pub fn check(&self) -> Result<(), KvViolation> {
        match self {
            KvRequest::Get { keys } | KvRequest::Delete { keys } => check_keys(keys),
            KvRequest::List { query, .. } => match query {
                KvListQuery::All => Ok(()),
                KvListQuery::Range { start, end, .. } => {
                    check_key("start key", 0, start)?;
                    check_key("end key", 0, end)
                }
                KvListQuery::Prefix { key } => check_key("prefix key", 0, key),
            },
            KvRequest::Put { keys, values } => {
                if keys.len() != values.len() {
                    return Err(KvViolation::Unpaired { keys: keys.len(), values: values.len() });
                }
                check_keys(keys)?;
                if let Some((place, value)) = values.iter().enumerate().find(|(_, value)| value.len() > KV_VALUE_MAX) {
                    return Err(KvViolation::ValueTooLong { place, found: value.len() });
                }
                let total = keys.iter().map(|key| key.len() + KV_KEY_OVERHEAD).sum::<usize>()
                    + values.iter().map(Bytes::len).sum::<usize>();
                if total > KV_PUT_MAX { Err(KvViolation::PutTooLarge(total)) } else { Ok(()) }
            }
            KvRequest::DeleteRange { start, end } => {
                check_key("start key", 0, start)?;
                check_key("end key", 0, end)
            }
            KvRequest::Drop => Ok(()),
        }
    }
}

fn check_keys(keys: &[Bytes]) -> Result<(), KvViolation> {
    if keys.len() > KV_KEYS_MAX {
        return Err(KvViolation::TooManyKeys(keys.len()));
    }
    keys.iter().enumerate().try_for_each(|(place, key)| check_key("key", place, key))
}

fn check_key(what: &'static str, place: usize, key: &Bytes) -> Result<(), KvViolation> {
    if key.len() > KV_KEY_MAX {
        return Err(KvViolation::KeyTooLong { what, place, found: key.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keys: usize, key: usize, value: usize) -> KvRequest {
        KvRequest::Put { keys: vec![Bytes::from(vec![1; key]); keys], values: vec![Bytes::from(vec![2; value]); keys] }
    }

    #[test]
    fn every_limit_holds_to_the_byte() {
        assert_eq!(put(128, 2046, 0).check(), Ok(()));
        assert_eq!(put(129, 1, 0).check(), Err(KvViolation::TooManyKeys(129)));
        assert_eq!(put(1, 2047, 0).check(), Err(KvViolation::KeyTooLong { what: "key", place: 0, found: 2047 }));
        assert_eq!(put(1, 1, 131_072).check(), Ok(()));
        assert_eq!(put(1, 1, 131_073).check(), Err(KvViolation::ValueTooLong { place: 0, found: 131_073 }));
        // Eight entries of exactly an eighth of the whole.
        assert_eq!(put(8, 10, 124_928 - 12).check(), Ok(()));
        assert_eq!(put(8, 10, 124_928 - 11).check(), Err(KvViolation::PutTooLarge(999_432)));
        let unpaired = KvRequest::Put { keys: vec![Bytes::new()], values: vec![] };
        assert_eq!(unpaired.check(), Err(KvViolation::Unpaired { keys: 1, values: 0 }));
        let prefix = KvRequest::List {
            query: KvListQuery::Prefix { key: Bytes::from(vec![0; 2047]) },
            reverse: None,
            limit: None,
        };
        assert!(prefix.check().is_err());
    }
}
