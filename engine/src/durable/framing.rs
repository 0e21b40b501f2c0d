//! How a body of bytes stands in a file that only grows, so that a torn end is told from damage.
//!
//! ```text
//! '[' | length of body u32 | CRC-32 of that length u32 | CRC-32 of body u32 | body | ']'
//! ```
//!
//! Integers are little endian. Only the last body of a file can be torn: it is broken off, or has a sector of zeroes.
//! The length has a checksum of its own and the brackets are no zeroes, so that a damaged body is not taken for a torn
//! one, unless its bytes fill a sector with zeroes.

use super::files::{SECTOR_BYTES, has_lost_sector};
use crate::error::{Error, Result};

/// The bytes before a body.
pub(super) const HEAD: usize = 13;
/// The bytes behind a body.
pub(super) const FOOT: usize = FOOT_BYTES.len();
pub(super) const FOOT_BYTES: &[u8] = b"]";

/// The bytes that stand for a body, which is given in parts.
///
/// # Errors
/// Fails for a body of 4 GiB and more.
pub(super) fn framed(parts: &[&[u8]]) -> Result<Vec<u8>> {
    Ok([&[head(parts)?.as_slice()], parts, &[FOOT_BYTES]].concat().concat())
}

/// What stands before a body that is given in parts; [`FOOT_BYTES`] stand behind it.
///
/// # Errors
/// Fails for a body of 4 GiB and more.
pub(super) fn head(parts: &[&[u8]]) -> Result<[u8; HEAD]> {
    let size = length(parts.iter().map(|part| part.len()).sum())?;
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    let mut head = [b'['; HEAD];
    head[1..5].copy_from_slice(&size);
    head[5..9].copy_from_slice(&crc32fast::hash(&size).to_le_bytes());
    head[9..].copy_from_slice(&hasher.finalize().to_le_bytes());
    Ok(head)
}

/// The body at `at`, if it is whole.
pub(super) fn body_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let size = size_at(bytes, at)?;
    let claimed = number_at(bytes, at + 9)?;
    let (start, end) = (at + HEAD, at.checked_add(HEAD + size)?);
    let body = bytes.get(start..end)?;
    let is_whole = bytes.get(at) == Some(&b'[') && bytes.get(end) == Some(&b']');
    (is_whole && crc32fast::hash(body) as usize == claimed).then_some(body)
}

/// The length of the body at `at`, if it fits its checksum.
fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    let size = bytes.get(at + 1..at.checked_add(5)?)?;
    (crc32fast::hash(size) as usize == number_at(bytes, at + 5)?).then(|| number_at(bytes, at + 1)).flatten()
}

/// Whether the broken body at `at` is one that a crash left half written, with nothing behind it; the file begins with
/// `magic`.
pub(super) fn is_torn(magic: &[u8], bytes: &[u8], at: usize) -> bool {
    if at == 0 {
        // The file's own first bytes: it has no body yet.
        return magic.starts_with(bytes) || bytes.len() <= magic.len() && has_lost_sector(bytes, 0);
    }
    match size_at(bytes, at) {
        Some(size) => {
            let end = at + HEAD + size + FOOT;
            end > bytes.len() || end == bytes.len() && has_lost_sector(bytes, at)
        }
        None => {
            let end = (at + HEAD).next_multiple_of(SECTOR_BYTES).min(bytes.len());
            at + HEAD > bytes.len() || has_lost_sector(bytes.get(..end).unwrap_or_default(), at)
        }
    }
}

/// The u32 at `at`.
pub(super) fn number_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
}

/// A number of bytes or things as a u32.
///
/// # Errors
/// Fails if there are too many.
pub(super) fn length(bytes: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(bytes).map_err(|_| Error::internal(format!("a frame of {bytes} bytes")))?;
    Ok(length.to_le_bytes())
}
