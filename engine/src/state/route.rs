//! Key partitions: a hash of the group keys that never changes, and which shard owns which of them.
//!
//! Version 1: XXH3 (64 bit) over the keys in order, each as a tag byte and its canonical bytes: integers as 8 bytes
//! little endian, floats as the bits of the number with one zero and one NaN, strings and binaries as their bytes, all
//! else as text. Utf8, Utf8View and dictionaries of equal strings agree.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::arrays::take_rows;
use crate::error::Result;

/// The number of key partitions, T; it never changes in the life of a query's state.
pub const DEFAULT_KEY_PARTITIONS: u32 = 1_024;

/// The key partition of each row of `keys`, columns of equal length; no column puts all `rows` into partition 0.
///
/// # Errors
/// Fails if a key cannot be brought to its canonical form.
pub fn key_partitions_of(keys: &[ArrayRef], rows: usize, partitions: u32) -> Result<Vec<u32>> {
    let mut hashes = vec![0_u64; rows];
    if keys.is_empty() {
        return Ok(vec![0; rows]);
    }
    for key in keys {
        hash_column(key, &mut hashes)?;
    }
    let partitions = u64::from(partitions.max(1));
    Ok(hashes.into_iter().map(|hash| u32::try_from(hash % partitions).unwrap_or_default()).collect())
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    let kind = column.data_type();
    if kind.is_integer() && *kind != DataType::UInt64 || kind.is_temporal() && !is_interval(kind) {
        let wide = cast(&cast_temporal(column)?, &DataType::Int64)?;
        let values = wide.as_primitive::<Int64Type>();
        fold(column, hashes, |row, seed| xxh3_64_with_seed(&values.value(row).to_le_bytes(), seed));
    } else if kind.is_floating() {
        let wide = cast(column, &DataType::Float64)?;
        let values = wide.as_primitive::<Float64Type>();
        fold(column, hashes, |row, seed| xxh3_64_with_seed(&canonical_bits(values.value(row)).to_le_bytes(), seed));
    } else if is_string(kind) {
        let text = cast(column, &DataType::Utf8View)?;
        let values = text.as_string_view();
        fold(column, hashes, |row, seed| xxh3_64_with_seed(values.value(row).as_bytes(), seed));
    } else {
        let options = FormatOptions::default();
        let text = ArrayFormatter::try_new(column.as_ref(), &options)?;
        fold(column, hashes, |row, seed| xxh3_64_with_seed(text.value(row).to_string().as_bytes(), seed));
    }
    Ok(())
}

/// Dates and times of 32 bits do not cast to 64 in one step.
fn cast_temporal(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(column, &DataType::Int32)?,
        _ => std::sync::Arc::clone(column),
    })
}

fn is_interval(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_))
}

fn is_string(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        _ => false,
    }
}

fn canonical_bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

fn fold(column: &ArrayRef, hashes: &mut [u64], hash: impl Fn(usize, u64) -> u64) {
    const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
    for (row, seed) in hashes.iter_mut().enumerate() {
        *seed = if column.is_null(row) { seed.rotate_left(7) ^ NULL } else { hash(row, *seed) };
    }
}

/// Sends state rows to the shards that own their key partitions, contiguous ranges of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRouter {
    pub(crate) key_columns: usize,
    pub(crate) partitions: u32,
    pub(crate) shards: u32,
}

impl KeyRouter {
    /// The rows of `state` for each shard, shards ascending; shards without rows are left out.
    pub(crate) fn split(&self, state: RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        if self.shards <= 1 || self.key_columns == 0 {
            return Ok(vec![(0, state)]);
        }
        let keys: Vec<_> = state.columns().iter().take(self.key_columns).cloned().collect();
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); usize::try_from(self.shards).unwrap_or(1)];
        for (row, partition) in (0..).zip(key_partitions_of(&keys, state.num_rows(), self.partitions)?) {
            if let Some(part) = rows.get_mut(self.owner(partition)) {
                part.push(row);
            }
        }
        let mut parts = Vec::new();
        for (shard, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            parts.push((shard, take_rows(&state, &UInt32Array::from(rows))?));
        }
        Ok(parts)
    }

    fn owner(&self, partition: u32) -> usize {
        let owner = u64::from(partition) * u64::from(self.shards) / u64::from(self.partitions.max(1));
        usize::try_from(owner).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn the_hash_of_version_one_stays_as_it_is() {
        let codes: ArrayRef = Arc::new(StringArray::from(vec![Some("600519"), Some("000001"), None]));
        let users: ArrayRef = Arc::new(Int64Array::from(vec![1, -1, 7]));
        assert_eq!(key_partitions_of(&[codes, users], 3, 1024).unwrap(), KNOWN);
    }

    const KNOWN: [u32; 3] = [853, 182, 528];

    #[test]
    fn equal_strings_have_equal_partitions_whatever_their_encoding() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["IBM", "a string longer than twelve bytes"]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["IBM", "a string longer than twelve bytes"]));
        let of = |keys: ArrayRef| key_partitions_of(&[keys], 2, 1024).unwrap();
        assert_eq!(of(plain), of(view));
    }

    #[test]
    fn every_row_goes_to_exactly_one_shard() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("k", keys)]).unwrap();
        let router = KeyRouter { key_columns: 1, partitions: 64, shards: 3 };
        let parts = router.split(batch).unwrap();
        assert_eq!(parts.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1000);
        assert!(parts.iter().all(|(_, rows)| rows.num_rows() > 200), "{parts:?}");
    }
}
