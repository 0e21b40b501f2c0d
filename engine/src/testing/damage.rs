//! Bytes with some of them changed, for tests of whatever reads them.

/// The bytes with others at some places, `(place, byte)`, and half of the time cut off; `length` says where.
///
/// Places and length are taken modulo what there is, so that a fuzzer can draw them from all numbers.
pub fn damaged(whole: &[u8], edits: &[(u16, u8)], length: u16) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (place, byte) in edits {
        let place = usize::from(*place) % whole.len().max(1);
        if let Some(there) = bytes.get_mut(place) {
            *there = *byte;
        }
    }
    if length.is_multiple_of(2) {
        bytes.truncate(usize::from(length / 2) % (whole.len() + 1));
    }
    bytes
}
