//! A histogram of durations with fixed bounds from 0.1 ms to 10 s, which any layer may count in.

use std::time::Duration;

/// The upper bounds of the buckets, in microseconds; what is longer is in none of them.
pub(crate) const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How many durations there were, and how long they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// Those of each bucket alone.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts one more.
    pub(crate) fn note(&mut self, duration: Duration) {
        let fits = |bound: &u64| duration <= Duration::from_micros(*bound);
        let at = BOUNDS.iter().position(fits);
        if let Some(bucket) = at.and_then(|at| self.buckets.get_mut(at)) {
            *bucket = bucket.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
    }

    /// Each bound with the number of durations up to it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut total = 0_u64;
        BOUNDS.iter().zip(self.buckets).map(move |(bound, count)| {
            total = total.saturating_add(count);
            (Duration::from_micros(*bound), total)
        })
    }

    /// The number of all.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// All together.
    pub(crate) fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_each_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 1_000, 9_999_999, 10_000_000, 10_000_001, 99_000_000] {
            histogram.note(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 6]);
        assert_eq!((histogram.count(), histogram.sum()), (8, Duration::from_micros(129_001_201)));
        assert!(BOUNDS.is_sorted());
    }
}
