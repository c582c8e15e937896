//! How long an entry of a set stays, as the kernel counts it: in whole seconds from now.

use crate::rule::lease::{Interval, Lease, Moment};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The longest timeout of an entry, in seconds, that the kernel takes: 2^31 - 1 milliseconds
/// (`IPSET_MAX_TIMEOUT` of linux/netfilter/ipset/ip_set.h).
pub(crate) const TIMEOUT_MAX: u64 = 2_147_483;

/// How long an entry stays, in seconds; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Timeout(u32);

impl Timeout {
    /// A timeout that the kernel takes.
    pub(crate) fn new(seconds: u64) -> Option<Timeout> {
        u32::try_from(seconds).ok().filter(|_| seconds <= TIMEOUT_MAX).map(Timeout)
    }

    /// What is left of a lease at `now`: a whole second is begun, so that no entry ends
    /// before its lease; at most what the kernel takes.
    pub(crate) fn left(lease: Lease, now: SystemTime) -> Timeout {
        let Some(end) = lease.end() else { return Timeout(0) };
        let left = end.time().duration_since(now).unwrap_or(Duration::ZERO);
        let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
        Timeout::new(seconds.clamp(1, TIMEOUT_MAX)).unwrap_or_default()
    }

    /// Whether a lease has more left at `now` than the kernel takes.
    pub(crate) fn is_beyond(lease: Lease, now: SystemTime) -> bool {
        let most = now + Duration::from_secs(TIMEOUT_MAX);
        lease.end().is_some_and(|end| end.time() > most)
    }

    /// The last whole second in which an entry may end that is printed with this
    /// timeout at `now`: ipset leaves out what there is of a second.
    pub(crate) fn latest_end(self, now: SystemTime) -> Lease {
        Interval::of_seconds(self.seconds()).from(now)
    }

    /// The last whole second at which such an entry is sure to be there. Less than a
    /// second is printed as one.
    pub(crate) fn sure_end(self, now: SystemTime) -> Lease {
        let left = if self.seconds() == 1 { 0 } else { self.seconds() };
        match self.latest_end(now) {
            Lease::Until(_) if left == 0 => Lease::Until(Moment::at_or_after(now).second_before()),
            Lease::Until(end) if end.time() > now + Duration::from_secs(left) => {
                Lease::Until(end.second_before())
            }
            lease => lease,
        }
    }

    /// Its length in seconds, 0 for ever.
    pub(crate) fn seconds(self) -> u64 {
        u64::from(self.0)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_never_ends_before_its_lease_and_at_most_a_second_after() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let golden =
            [(10, 0, 10), (10, 1, 10), (10, 999, 10), (10, 1_000, 9), (10, 9_999, 1), (10, 12_000, 1)];
        for (end, now, left) in golden {
            let lease = Interval::of_seconds(end).from(at(0));
            assert_eq!(Timeout::left(lease, at(now)).seconds(), left, "{end} {now}");
        }
        assert_eq!(Timeout::left(Lease::Permanent, at(0)).seconds(), 0);
        for (end, now, beyond) in [
            (10, 0, false),
            (TIMEOUT_MAX, 0, false),
            (TIMEOUT_MAX + 1, 0, true),
            (TIMEOUT_MAX + 1, 1_000, false),
        ] {
            let lease = Interval::of_seconds(end).from(at(0));
            assert_eq!(Timeout::is_beyond(lease, at(now)), beyond, "{end} {now}");
            assert!(Timeout::left(lease, at(now)).seconds() <= TIMEOUT_MAX);
        }
        assert!(!Timeout::is_beyond(Lease::Permanent, at(0)));
        // Printed at 1.5 s with 8 s left, it ends at 9.5 s or later, but before 10.5 s.
        let end = |lease: Lease| lease.end().unwrap().seconds();
        assert_eq!((end(Timeout(8).sure_end(at(1_500))), end(Timeout(8).latest_end(at(1_500)))), (9, 10));
        assert_eq!((end(Timeout(8).sure_end(at(1_000))), end(Timeout(8).latest_end(at(1_000)))), (9, 9));
        assert_eq!(end(Timeout(1).sure_end(at(1_500))), 1);
        assert_eq!(Timeout(0).sure_end(at(0)), Lease::Permanent);
    }
}
