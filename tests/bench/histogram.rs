//! A histogram of times with constant relative precision.

use serde::{Deserialize, Serialize};

/// Buckets per power of two: a value is off by less than 1 in 64.
const PRECISION_BITS: u32 = 6;
const BUCKETS_PER_POWER: usize = 1 << PRECISION_BITS;
/// Values up to 2^40 ns, about 18 minutes; longer ones count as that.
const POWERS: usize = 40;

/// Counts of times in nanoseconds. Records without allocating.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

/// What is told of a histogram, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; POWERS * BUCKETS_PER_POWER], count: 0, longest: 0 }
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        let last = self.buckets.len() - 1;
        self.buckets[bucket(nanoseconds).min(last)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanoseconds);
    }

    /// The time that this part (0 to 1) of all values does not exceed, in nanoseconds; 0 of an empty histogram.
    fn quantile(&self, part: f64) -> u64 {
        let rank = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(index).min(self.longest);
            }
        }
        self.longest
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1_000.0;
        Quantiles {
            count: self.count,
            p50: microseconds(self.quantile(0.5)),
            p99: microseconds(self.quantile(0.99)),
            p999: microseconds(self.quantile(0.999)),
            max: microseconds(self.longest),
        }
    }
}

/// Small values have a bucket each; from then on each power of two has the same number of buckets.
fn bucket(value: u64) -> usize {
    let power = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    (power as usize) * BUCKETS_PER_POWER + (value >> power) as usize
}

/// The highest value that falls into the bucket.
fn highest(index: usize) -> u64 {
    let power = (index / BUCKETS_PER_POWER).saturating_sub(1);
    let step = (index - power * BUCKETS_PER_POWER) as u64;
    ((step + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_falls_into_a_bucket_that_is_hardly_wider_than_a_64th() {
        for value in (0..5_000).chain([123_456, 9_876_543, 7_000_000_000]) {
            let top = highest(bucket(value));
            assert!(top >= value && top - value <= value / 64, "{value} is told as {top}");
            assert_eq!(bucket(top), bucket(value), "{value}");
            assert_ne!(bucket(top + 1), bucket(value), "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::new();
        for value in 1..=10_000_u64 {
            histogram.record(value * 1_000);
        }
        let quantiles = histogram.quantiles();
        for (told, right) in [(quantiles.p50, 5_000.0), (quantiles.p99, 9_900.0), (quantiles.p999, 9_990.0)] {
            assert!((told / right - 1.0).abs() < 0.02, "{told} for {right}");
        }
        assert_eq!((quantiles.count, quantiles.max), (10_000, 10_000.0));
    }

    #[test]
    fn what_is_too_long_for_the_histogram_is_counted_all_the_same() {
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantiles().count, 1);
    }
}
