//! What sets do not hold any more: entries that rfw has deleted, and those that have ended. Others may
//! bring them back, who restore a file that was saved before: then they are known for what they are.
//!
//! Bounded: the oldest are forgotten. Only hashes are kept, with the end of what has ended.

use crate::kernel::ipset::Element;
use crate::kernel::set_key::SetKey;
use crate::rule::lease::{Lease, Moment};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::mem;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Number of entries after which those of before begin to be forgotten: as many as a table of 65,536
/// places holds. So many are remembered at least, and twice as many at most.
const HALF: usize = 57_344;

/// The entries that have gone out of all sets.
#[derive(Debug, Default)]
pub(super) struct Gone {
    recent: Ends,
    older: Ends,
    hasher: RandomState,
}

/// When each entry has ended, in seconds since the epoch; 0 where rfw has deleted it.
type Ends = HashMap<u64, u32, RandomState>;

/// The set of an entry that has gone, for [`Gone`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Of(u64);

impl Gone {
    /// What entries of a set are told apart from those of others by.
    pub(super) fn of(&self, set: &SetKey) -> Of {
        Of(self.hasher.hash_one(set))
    }

    /// Takes down that rfw has deleted an entry.
    pub(super) fn delete(&mut self, of: Of, element: &Element<'_>) {
        self.note(of, element, 0);
    }

    /// Takes down that an entry has ended.
    pub(super) fn end(&mut self, of: Of, element: &Element<'_>, lease: Lease) {
        let end = lease.end().map(Moment::seconds);
        end.into_iter().for_each(|end| self.note(of, element, u32::try_from(end).unwrap_or(u32::MAX)));
    }

    /// Whether an entry was deleted by rfw, or has ended by now: the clock may have been set back since.
    pub(super) fn has(&self, of: Of, element: &Element<'_>, now: SystemTime) -> bool {
        let key = self.hasher.hash_one((of.0, element));
        let end = self.recent.get(&key).or_else(|| self.older.get(&key));
        end.is_some_and(|end| UNIX_EPOCH + Duration::from_secs(u64::from(*end)) <= now)
    }

    fn note(&mut self, of: Of, element: &Element<'_>, end: u32) {
        if self.recent.len() >= HALF {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(self.hasher.hash_one((of.0, element)), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::network::Network;
    use crate::rule::rule_of;
    use std::net::Ipv4Addr;

    fn net(number: u32) -> Element<'static> {
        Element::Net(Network::host(Ipv4Addr::from_bits(number + 1).into()))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_deleted_or_has_ended_is_known_in_its_set() {
        let mut gone = Gone::default();
        let set = SetKey::of(&rule_of("/drop/input/any/1.2.3.4"));
        let (one, other) = (gone.of(&set), gone.of(&set.with_list("a".parse().unwrap())));
        gone.delete(one, &net(1));
        gone.end(one, &net(2), Lease::Until(Moment::at_or_after(at(100))));
        gone.end(one, &net(3), Lease::Permanent);
        for (of, number, now, has) in [
            (one, 1, 0, true),
            (one, 2, 100, true),
            // The clock was set back.
            (one, 2, 99, false),
            (one, 3, 100, false),
            (one, 4, 100, false),
            (other, 1, 100, false),
        ] {
            assert_eq!(gone.has(of, &net(number), at(now)), has, "{number} at {now}");
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut gone = Gone::default();
        let of = gone.of(&SetKey::of(&rule_of("/drop/input/any/1.2.3.4")));
        (0..300_000).for_each(|number| gone.delete(of, &net(number)));
        let known = (0..300_000).filter(|number| gone.has(of, &net(*number), at(0))).count();
        assert!((HALF..=2 * HALF).contains(&known), "{known}");
        assert!((300_000 - 57_000..300_000).all(|number| gone.has(of, &net(number), at(0))));
    }
}
