//! How often repairs are made and told, so that two programs that fight do not spin and do not fill the log.

use crate::rule::lease::Moment;
use std::time::{Duration, Instant, SystemTime};

/// The time from one repair to the next, at first and at most.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The time without a repair after which the next one is like the first.
const CALM: Duration = Duration::from_secs(600);

/// Repairs in a row that are told one by one; then one in [`CALM`].
const TOLD_MAX: u32 = 3;

/// When repairs were made.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// Repairs without a calm between.
    in_row: u32,
    /// When the row began.
    since: Option<Moment>,
    told: Option<Instant>,
}

/// How a repair is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Telling {
    /// As it is.
    Each,
    /// With the number of repairs since the first.
    Sum {
        /// Repairs since then.
        count: u32,
        /// When the first was.
        since: Moment,
    },
    /// Not at all.
    Nothing,
}

impl Pace {
    /// Whether a repair may be made now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.not_before().is_none_or(|not_before| not_before <= now)
    }

    /// When the next repair may be made.
    pub(super) fn not_before(&self) -> Option<Instant> {
        let doubled = INTERVAL.0.saturating_mul(1 << self.in_row.saturating_sub(1).min(10));
        self.last.map(|last| last + doubled.min(INTERVAL.1))
    }

    /// Takes down that something was put back.
    pub(super) fn repaired(&mut self, now: Instant) {
        // The tables of both families are one repair.
        if self.last.is_some_and(|last| now < last + INTERVAL.0) {
            return;
        }
        if self.last.is_none_or(|last| last + CALM <= now) {
            (self.in_row, self.since, self.told) = (0, None, None);
        }
        self.in_row = self.in_row.saturating_add(1);
        self.last = Some(now);
    }

    /// How the repair just made is told.
    pub(super) fn telling(&mut self, now: Instant, time: SystemTime) -> Telling {
        let since = *self.since.get_or_insert_with(|| Moment::at_or_after(time));
        if self.in_row > TOLD_MAX && self.told.is_some_and(|told| now < told + CALM) {
            return Telling::Nothing;
        }
        self.told = Some(now);
        match self.in_row {
            count if count > TOLD_MAX => Telling::Sum { count, since },
            _ => Telling::Each,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn repairs_in_a_row_are_made_and_told_ever_less_often() {
        let (start, mut pace, mut at, mut told) =
            (Instant::now(), Pace::default(), Duration::ZERO, Vec::new());
        for _ in 0..20 {
            let now = start + at;
            assert!(pace.admits(now), "{at:?}");
            pace.repaired(now);
            let telling = pace.telling(now, UNIX_EPOCH + at);
            told.extend((telling != Telling::Nothing).then_some((at.as_secs(), telling)));
            let next = pace.not_before().unwrap();
            assert!(!pace.admits(next - Duration::from_millis(1)));
            at = next - start;
        }
        let since = Moment::at_or_after(UNIX_EPOCH);
        let sum = |count| Telling::Sum { count, since };
        let each = Telling::Each;
        assert_eq!(
            told,
            [(0, each.clone()), (1, each.clone()), (3, each.clone()), (603, sum(16))],
            "one in ten minutes"
        );
        assert_eq!(pace.not_before().unwrap() - pace.last.unwrap(), INTERVAL.1);
        pace.repaired(start + at + CALM);
        assert_eq!(pace.telling(start + at + CALM, UNIX_EPOCH), each);
    }
}
