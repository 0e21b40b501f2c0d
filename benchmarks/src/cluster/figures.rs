//! Measured values and their percentiles.

/// Measured values, in rising order; at least one.
#[derive(Debug, Clone)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// # Errors
    /// Fails if there is none.
    pub(super) fn new(mut values: Vec<f64>) -> anyhow::Result<Self> {
        anyhow::ensure!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Ok(Self(values))
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that so many percent are not above, 100 for the largest.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    pub(super) fn median(&self) -> f64 {
        self.percentile(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert!(Samples::new(Vec::new()).is_err());
        let samples = Samples::new(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!([0, 50, 95, 100].map(|percent| samples.percentile(percent)), [1.0, 2.0, 3.0, 3.0]);
        assert_eq!(samples.median(), 2.0);
    }
}
