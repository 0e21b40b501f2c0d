//! The record: a line of JSON that can be checked, and that knows the one before it.
//!
//! ```text
//! 8f14a2c0 {"format":"millstream","version":1,…}
//! 17c9be03 {"intent":{…}}
//! ```
//!
//! The eight digits are the CRC-32 of the digits before (zeroes for the first record) and of the JSON behind. So a
//! record that was changed, lost, or brought in from another log does not fit. The checksum stands in the file itself:
//! one in a file beside it can be newer or older than what it speaks about.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The checksum before the first record.
pub(crate) const FIRST: Chain = Chain(0);

/// The checksum of a record, which the next one includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Chain(pub(crate) u32);

impl Chain {
    fn next(self, json: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(format!("{:08x}", self.0).as_bytes());
        hasher.update(json);
        Self(hasher.finalize())
    }
}

/// The line of a record behind `before`, and its own checksum.
///
/// # Errors
/// Fails only for values that JSON cannot say.
pub(crate) fn write_record(before: Chain, value: &impl Serialize) -> Result<(Vec<u8>, Chain)> {
    let json = serde_json::to_vec(value).map_err(|error| Error::internal(format!("a record is no JSON: {error}")))?;
    let chain = before.next(&json);
    let mut line = format!("{:08x} ", chain.0).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok((line, chain))
}

/// The JSON of a line without its end, if it fits behind `before`.
pub(crate) fn check_line(before: Chain, line: &[u8]) -> Option<(&[u8], Chain)> {
    let (digits, json) = (line.get(..8)?, line.get(9..)?);
    let chain = before.next(json);
    // Compared as text: reading a number would take a digit of another case for the same.
    (line.get(8) == Some(&b' ') && format!("{:08x}", chain.0).as_bytes() == digits).then_some((json, chain))
}

/// A file of one record.
///
/// # Errors
/// Fails only for values that JSON cannot say.
pub(crate) fn write_single(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(write_record(FIRST, value)?.0)
}

/// The record of a file of one.
///
/// # Errors
/// Names the file if it does not hold one good record.
pub(crate) fn read_single<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let Some((json, _)) = check_line(FIRST, line) else { return Err(corrupt(place, 0, "its checksum does not fit")) };
    serde_json::from_slice(json).map_err(|error| corrupt(place, 9, &error.to_string()))
}

/// What is in the state directory is not what was written.
pub(crate) fn corrupt(place: &str, offset: u64, reason: &str) -> Error {
    Error::State {
        message: format!("{place} is damaged at byte {offset}: {reason}"),
        hint: Some(
            "restore the state directory from a copy, or start again with a new one; `millstream state verify` \
             checks all of it"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_fits_only_behind_its_own_one() {
        let (first, chain) = write_record(FIRST, &1).unwrap();
        let (second, _) = write_record(chain, &2).unwrap();
        let line = |record: &[u8]| record.strip_suffix(b"\n").unwrap().to_vec();
        assert_eq!(check_line(FIRST, &line(&first)).unwrap().0, b"1");
        assert!(check_line(chain, &line(&second)).is_some());
        assert!(check_line(FIRST, &line(&second)).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let record = write_single(&serde_json::json!({"epoch": 12, "rows": [1, 2]})).unwrap();
        for bit in 0..(record.len() - 1) * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read_single::<serde_json::Value>("f", &changed).is_err(), "bit {bit}");
        }
    }
}
