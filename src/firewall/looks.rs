//! When the sweeper looks at what others have done to tables and sets. Pure.
//!
//! With iptables-nft the kernel tells that rules have changed. With iptables-legacy, and of sets, nobody
//! tells; so a look is made every ten seconds, or less often where it takes long.

use std::time::{Duration, Instant};

/// Time between two looks that nobody has asked for.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time between two looks, as a multiple of the processor time that the last one took.
const COST: u32 = 1_000;

/// The longest time between two looks, whatever they take.
const LONGEST: Duration = Duration::from_secs(120);

/// Time between two looks at the tables when the kernel tells of changes.
const HINTED: Duration = Duration::from_secs(2);

/// The same as a multiple of the processor time that the last look took.
const HINTED_COST: u32 = 50;

/// When tables and sets are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looks {
    tables: Instant,
    sets: Instant,
    /// When a look may be made that the kernel asks for.
    hinted: Instant,
    /// When a look may be made after a sweep.
    swept: Instant,
}

impl Looks {
    /// Looks that begin one interval after a start.
    pub(super) fn new(now: Instant) -> Looks {
        Looks { tables: now + INTERVAL, sets: now + INTERVAL, hinted: now + HINTED, swept: now }
    }

    /// Takes down that the kernel has told of a change of tables.
    pub(super) fn hint(&mut self, now: Instant) {
        self.no_later_than(self.hinted.max(now));
    }

    /// Takes down that rules have been swept: others may have made copies of them.
    pub(super) fn swept(&mut self, now: Instant) {
        self.no_later_than(self.swept.max(now));
    }

    /// Has the tables looked at by then.
    pub(super) fn no_later_than(&mut self, at: Instant) {
        self.tables = self.tables.min(at);
    }

    /// Whether something is to be looked at now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next() <= now
    }

    /// Whether the sets are to be looked at now.
    pub(super) fn is_due_for_sets(&self, now: Instant) -> bool {
        self.sets <= now
    }

    /// When the next look is.
    pub(super) fn next(&self) -> Instant {
        self.tables.min(self.sets)
    }

    /// Takes down a look, at the sets too or not, and the processor time that it took.
    pub(super) fn looked(&mut self, ended: Instant, took: Duration, sets: bool) {
        let interval = took.saturating_mul(COST).clamp(INTERVAL, LONGEST);
        self.tables = ended + interval;
        self.swept = ended + took.saturating_mul(HINTED_COST).min(LONGEST);
        self.hinted = self.swept.max(ended + HINTED);
        if sets {
            self.sets = ended + interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_as_frequent_as_they_are_cheap() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let millis = Duration::from_millis;
        let mut looks = Looks::new(start);
        assert!(!looks.is_due(after(9)) && looks.is_due(after(10)));
        looks.looked(after(10), millis(5), true);
        assert_eq!(looks.next(), after(20));
        looks.looked(after(20), millis(20), false);
        // The sets have not been looked at.
        assert!(looks.is_due_for_sets(after(20)) && looks.tables == after(40));
        looks.looked(after(21), millis(20), true);
        assert_eq!(looks.next(), after(41));
    }

    #[test]
    fn what_the_kernel_tells_is_looked_at_within_two_seconds() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let millis = Duration::from_millis;
        let mut looks = Looks::new(start);
        for (told, expected) in [(1, 2), (1, 2), (7, 2)] {
            looks.hint(after(told));
            assert_eq!(looks.next(), after(expected), "{told}");
        }
        looks.looked(after(3), millis(1), false);
        looks.hint(after(4));
        assert_eq!(looks.next(), after(5));
        looks.looked(after(5), millis(1), false);
        looks.hint(after(9));
        assert_eq!(looks.next(), after(9));
        assert!(!looks.is_due_for_sets(after(9)) && looks.is_due_for_sets(after(10)));
        looks.looked(after(9), millis(0), false);
        looks.swept(after(9));
        assert_eq!(looks.next(), after(9));
        // A look that takes long is made less often.
        looks.looked(after(12), millis(1_000), true);
        looks.hint(after(13));
        assert_eq!(looks.next(), after(62));
    }
}
