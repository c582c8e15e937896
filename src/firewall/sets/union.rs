//! The union of the lists of a scope: each address with the latest end that a list has it with.

use super::entry::new_entry;
use super::is_gone;
use super::mirror::Mirror;
use super::{Sets, name_of};
use crate::firewall::FirewallError;
use crate::kernel::ipset::{Element, IpsetError};
use crate::kernel::set_key::SetKey;
use crate::kernel::timeout::TIMEOUT_MAX;
use crate::rule::lease::{Lease, Moment};
use std::time::{Duration, SystemTime};

/// How far the end of an entry of the union may be from the latest of its lists, in seconds.
const TOLERANCE: u64 = 2;

const DAY: Duration = Duration::from_secs(86_400);

/// What a union has to be changed by, to hold what its lists hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settlement {
    puts: Vec<(Element<'static>, Lease)>,
    dels: Vec<Element<'static>>,
}

/// The latest end of an address in several lists.
pub(super) fn latest<'m>(
    mirrors: impl IntoIterator<Item = &'m Mirror>,
    element: &Element<'_>,
    now: SystemTime,
) -> Option<Lease> {
    mirrors.into_iter().filter_map(|mirror| mirror.end(element, now)).max()
}

/// The end that the union has an address with which one list holds until `lease`, beside other lists.
pub(super) fn end_in_union<'m>(
    lease: Lease,
    others: impl IntoIterator<Item = &'m Mirror>,
    element: &Element<'_>,
    now: SystemTime,
) -> Lease {
    latest(others, element, now).map_or(lease, |other| other.max(lease))
}

/// Compares a union with its lists. What is as one of them has it is not looked up in the others: had
/// one of those it for longer, that would be found there.
fn compare(union: &Mirror, lists: &[&Mirror], now: SystemTime) -> Settlement {
    let mut settlement = Settlement::default();
    for (index, list) in lists.iter().enumerate() {
        let before = lists.get(..index).unwrap_or_default();
        list.each(now, |element, lease| {
            let known = union.end(&element, now);
            if lease.is_due(now) || known.is_some_and(|known| is_close(known, lease, now)) {
                return;
            }
            // It is put by the first of the lists that have it for longest.
            let is_latest = latest(lists.iter().copied(), &element, now) == Some(lease);
            if is_latest && !before.iter().any(|other| other.end(&element, now) == Some(lease)) {
                settlement.puts.push((element, lease));
            }
        });
    }
    // What is about to end needs no help.
    let soon = now + Duration::from_secs(TOLERANCE);
    union.each(now, |element, lease| {
        if !lease.is_due(soon) && !lists.iter().any(|list| list.end(&element, now).is_some()) {
            settlement.dels.push(element);
        }
    });
    settlement
}

/// Whether two ends are nearly the same, as far as the kernel can tell: those that are later than it
/// counts are, if they were told it within the last day.
fn is_close(one: Lease, other: Lease, now: SystemTime) -> bool {
    let latest = Moment::at_or_after(now + Duration::from_secs(TIMEOUT_MAX) - DAY).seconds();
    match (one.end(), other.end()) {
        (Some(one), Some(other)) => {
            one.seconds().min(latest).abs_diff(other.seconds().min(latest)) <= TOLERANCE
        }
        (one, other) => one == other,
    }
}

impl Sets {
    /// The mirrors of the other lists of a scope.
    pub(super) fn mirrors_of_others(&self, set: &SetKey) -> Vec<&Mirror> {
        let union = set.union();
        let others = self.list_sets(&union).into_iter().filter(|other| other != set && *other != union);
        others.filter_map(|other| self.mirrors.whole(&other)).collect()
    }

    /// Refuses a change of so many entries of a list where its set or the union is not rfw's, or the
    /// union could not be told.
    pub(super) fn check_both(
        &mut self,
        set: &SetKey,
        union: &SetKey,
        entries: usize,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        self.check_own(set, entries, now)?;
        self.check_own(union, entries, now)?;
        self.check_read(union)
    }

    /// Refuses a change of a list while not all lists of its scope are read: the union could not be told.
    pub(super) fn check_read(&self, union: &SetKey) -> Result<(), FirewallError> {
        match self.unread(union).filter(|_| self.has_lists(union)) {
            Some(set) => Err(FirewallError::Set(set.name(), IpsetError::Interrupted)),
            None => Ok(()),
        }
    }

    /// A set of a scope whose mirror is not whole.
    pub(crate) fn unread(&self, union: &SetKey) -> Option<SetKey> {
        self.sets_of(union).into_iter().find(|set| self.mirrors.whole(set).is_none())
    }

    /// Whether a set has no mirror, and none that is being filled.
    pub(crate) fn is_lost(&self, set: &SetKey) -> bool {
        self.mirrors.is_lost(set)
    }

    /// Has the mirror of a set filled before any other.
    pub(crate) fn hurry(&mut self, set: &SetKey) {
        self.mirrors.hurry(set);
    }

    /// The unions that may not hold what their lists hold, and of which all is read.
    pub(crate) fn to_settle(&self) -> Vec<SetKey> {
        self.unsettled.iter().filter(|union| self.unread(union).is_none()).cloned().collect()
    }

    /// Makes a union what its lists are, if all is read and rfw's own. Gives the number of entries
    /// that were not so.
    ///
    /// # Errors
    /// The union can't be changed.
    pub(crate) fn settle(&mut self, union: &SetKey, now: SystemTime) -> Result<usize, FirewallError> {
        let sets = self.list_sets(union);
        let lists: Vec<&Mirror> = sets.iter().filter_map(|set| self.mirrors.whole(set)).collect();
        let Some(mirror) = self.mirrors.whole(union).filter(|_| lists.len() == sets.len()) else {
            return Ok(0);
        };
        if !self.has_lists(union) || sets.iter().chain([union]).any(|set| self.foreign.contains(set)) {
            return Ok(0);
        }
        let Settlement { puts, dels } = compare(mirror, &lists, now);
        self.unsettled.remove(union);
        if puts.is_empty() && dels.is_empty() {
            return Ok(0);
        }
        let (name, mut batch) = (name_of(union)?, self.ipset.batch());
        batch.add_many(&name, puts.iter().map(|(element, lease)| new_entry(*element, *lease, None, now)));
        batch.del_many(&name, dels.iter().copied());
        if let Err(error) = self.transact(union, batch) {
            self.doubt(union);
            return if is_gone(&error) { Ok(0) } else { Err(error) };
        }
        let mut follower = self.follow(union);
        puts.iter().for_each(|(element, lease)| follower.put(element, *lease, now));
        dels.iter().for_each(|element| follower.remove(element));
        Ok(puts.len().saturating_add(dels.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::rule_of;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn until(seconds: u64) -> Lease {
        Lease::Until(Moment::at_or_after(at(seconds)))
    }

    fn net(host: u8) -> Element<'static> {
        Element::Net(format!("1.0.0.{host}").parse().unwrap())
    }

    fn mirror(entries: &[(u8, Lease)]) -> Mirror {
        let mut mirror = Mirror::of_new(&SetKey::of(&rule_of("/drop/input/any/1.2.3.4")));
        entries.iter().for_each(|(host, lease)| mirror.put(&net(*host), *lease, at(0)));
        mirror
    }

    #[test]
    fn a_union_becomes_the_latest_end_of_its_lists() {
        let one = mirror(&[(1, until(100)), (2, until(200)), (3, Lease::Permanent), (4, until(50))]);
        let two = mirror(&[(1, until(300)), (3, until(100)), (5, until(100)), (6, until(300))]);
        let union = mirror(&[
            (1, until(100)),       // ends too early
            (2, until(202)),       // as close as the kernel tells it
            (3, until(100)),       // ends at all
            (5, Lease::Permanent), // does not end
            (7, until(400)),       // is in no list
        ]);
        // At 60, what ends at 50 is over.
        let Settlement { mut puts, dels } = compare(&union, &[&one, &two], at(60));
        puts.sort_by_key(|(element, _)| format!("{element:?}"));
        let expected = [(1, until(300)), (3, Lease::Permanent), (5, until(100)), (6, until(300))];
        assert_eq!(puts, expected.map(|(host, lease)| (net(host), lease)));
        assert_eq!(dels, [net(7)]);
        let settled = mirror(&[
            (1, until(300)),
            (2, until(200)),
            (3, Lease::Permanent),
            (5, until(100)),
            (6, until(300)),
        ]);
        assert_eq!(compare(&settled, &[&one, &two], at(60)), Settlement::default());
    }

    #[test]
    fn what_ends_later_than_the_kernel_counts_is_close_for_a_day() {
        let far = until(TIMEOUT_MAX * 3);
        let day = DAY.as_secs();
        let golden = [(0, true), (day - 10, true), (day + 10, false), (TIMEOUT_MAX, false)];
        for (now, close) in golden {
            assert_eq!(is_close(until(TIMEOUT_MAX), far, at(now)), close, "{now}");
        }
        assert!(!is_close(Lease::Permanent, far, at(0)) && is_close(far, far, at(0)));
    }
}
