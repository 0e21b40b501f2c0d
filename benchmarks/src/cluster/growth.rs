//! Whether a figure grows over a run, or stays flat.

use super::figures::Samples;

/// The parts of a run. The first is its beginning, in which caches fill and threads start.
const PARTS: usize = 5;

/// Where a figure began and where it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    /// The median of the second fifth of its values.
    pub(super) from: f64,
    /// That of the last fifth.
    pub(super) to: f64,
}

impl Growth {
    /// That of values, in the order in which they were measured.
    ///
    /// # Errors
    /// Fails for less than five.
    pub(super) fn of(values: &[f64]) -> anyhow::Result<Self> {
        let fifth = values.len() / PARTS;
        let median = |part: Option<&[f64]>| Samples::new(part.unwrap_or_default().to_vec()).map(|part| part.median());
        let (second, last) = (values.get(fifth..2 * fifth), values.get(values.len() - fifth..));
        Ok(Self { from: median(second)?, to: median(last)? })
    }

    /// How many times as large it was in the end.
    pub(super) fn ratio(self) -> f64 {
        self.to / self.from
    }

    /// Whether it has grown by this share of itself at the most. What falls has not grown.
    pub(super) fn is_flat(self, tolerance: f64) -> bool {
        self.ratio() <= 1.0 + tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifth_is_compared_with_the_second() {
        let values = [1.0, 2.0, 20.0, 21.0, 98.0, 99.0, 5.0, 6.0, 42.0, 41.0];
        let growth = Growth::of(&values).unwrap();
        assert_eq!(growth, Growth { from: 21.0, to: 42.0 });
        assert_eq!(growth.ratio(), 2.0);
        assert!(Growth::of(&[1.0; 4]).is_err());
    }

    #[test]
    fn only_what_is_still_higher_in_the_end_is_not_flat() {
        type Case = (&'static str, fn(u32) -> u32, bool);
        let cases: [Case; 8] = [
            ("constant", |_| 40, true),
            ("rises in the first fifth", |sample| sample.min(10), true),
            ("goes up and down", |sample| 100 + sample % 2 * 50, true),
            ("one outlier", |sample| if sample == 45 { 900 } else { 100 }, true),
            ("falls", |sample| 200 - sample, true),
            ("one of twenty more", |sample| 20 + u32::from(sample >= 30), true),
            ("two of twenty more", |sample| 20 + 2 * u32::from(sample >= 30), false),
            ("rises steadily", |sample| 100 + sample, false),
        ];
        for (name, value, is_flat) in cases {
            let values: Vec<f64> = (0..50).map(|sample| f64::from(value(sample))).collect();
            let growth = Growth::of(&values).unwrap();
            assert_eq!(growth.is_flat(0.05), is_flat, "{name}: {growth:?}");
        }
    }
}
