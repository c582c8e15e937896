//! Lists of addresses: each is one send to the kernel, and is counted.

use super::mirror::Known;
use super::{Sets, name_of, size};
use crate::firewall::{FirewallError, ListResult};
use crate::kernel::ipset::{Batch, Element, Existing, IpsetError, NewEntry, Outcome};
use crate::kernel::set_key::SetKey;
use crate::kernel::timeout::Timeout;
use crate::rule::lease::Lease;
use crate::rule::network::Network;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::SystemTime;

/// The most addresses of a list that are counted one by one by the kernel. It keeps
/// 0.8 kB for each that is there already, so a longer list is counted by the mirror, of which the
/// number of entries is compared first: that takes the kernel 20 ns an entry of the set.
const COUNTED_MAX: usize = 5_000;

/// What is to become of the addresses of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListOp {
    /// They are added or renewed.
    Add(Lease),
    /// They are deleted.
    Delete,
}

impl Sets {
    /// Adds or deletes a whole list, in ascending order and without doubles, or changes nothing, also
    /// where rfw is killed meanwhile. What is known to be there `as_rules` counts as present.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub(crate) fn apply(
        &mut self,
        set: &SetKey,
        list: &[Network],
        op: ListOp,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        self.check_own(set, list.len())?;
        let applied = match op {
            ListOp::Add(lease) => self.add_list(set, list, as_rules, lease, now),
            ListOp::Delete => self.delete_list(set, list, as_rules, now),
        };
        if applied.is_err() {
            self.mirrors.doubt(set);
        }
        let present = applied?;
        if let Some(mirror) = self.mirrors.of(set) {
            mirror.reserve(if present == 0 { list.len() } else { 0 });
            for network in list {
                match op {
                    ListOp::Add(lease) => mirror.put(&Element::Net(*network), lease, now),
                    ListOp::Delete => mirror.remove(&Element::Net(*network)),
                }
            }
        }
        log::debug!("{}: {} addresses, {present} were there", set.name(), list.len());
        Ok(ListResult { present, absent: list.len().saturating_sub(present), removed: 0 })
    }

    /// Adds a list and gives the number of those that were there.
    fn add_list(
        &mut self,
        set: &SetKey,
        list: &[Network],
        as_rules: &HashSet<Network>,
        lease: Lease,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let (name, timeout) = (name_of(set)?, Timeout::left(lease, now));
        let entry =
            |network: &Network| NewEntry { timeout: Some(timeout), ..NewEntry::new(Element::Net(*network)) };
        let mut counting = self.ipset.batch();
        if list.len() <= COUNTED_MAX {
            let others = list.iter().filter(|network| !as_rules.contains(network));
            counting.add_each(&name, others.map(entry), Existing::Refuse);
            // Those that were there are renewed, the others once more.
            counting.add_many(&name, list.iter().map(entry));
            if self.ipset.is_one_send(&counting) {
                return self.count_and_send(set, counting, list, as_rules, now, |outcome| outcome.already);
            }
        }
        let mut batch = self.ipset.batch();
        batch.add_many(&name, list.iter().map(entry));
        let present = self.count_present(set, list, as_rules, now)?;
        if self.ipset.is_one_send(&batch) {
            self.transact(set, batch)?;
        } else {
            let room = self.own_info(set)?.map_or(self.maxelem, |info| info.maxelem);
            self.rebuild(set, room, now, |batch, work| batch.add_many(work, list.iter().map(entry)))?;
        }
        Ok(present)
    }

    /// Deletes a list and gives the number of those that were there. Where a process may have no
    /// buffer of that size, it may be several sends: a kill can then leave a part of them.
    fn delete_list(
        &mut self,
        set: &SetKey,
        list: &[Network],
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let (name, element) = (name_of(set)?, |network: &Network| Element::Net(*network));
        let mut counting = self.ipset.batch();
        if list.len() <= COUNTED_MAX {
            let others = list.iter().filter(|network| !as_rules.contains(network));
            counting.del_each(&name, others.map(element), Existing::Refuse);
            // Those that are rules too may also be entries: they go without being counted.
            counting.del_many(&name, list.iter().filter(|network| as_rules.contains(network)).map(element));
        }
        let deleted = if !counting.is_empty() && self.ipset.is_one_send(&counting) {
            self.count_and_send(set, counting, list, as_rules, now, |outcome| outcome.done)
        } else {
            let mut batch = self.ipset.batch();
            batch.del_many(&name, list.iter().map(element));
            let present = self.count_present(set, list, as_rules, now)?;
            self.transact(set, batch).map(|_| present)
        };
        match deleted {
            // There is nothing to delete from.
            Err(FirewallError::Set(_, IpsetError::NoSet)) => Ok(as_rules.len()),
            deleted => deleted,
        }
    }

    /// Has the kernel make the changes for a list, and count. Gives the number of its addresses that
    /// were there: `present` tells it of the first operation.
    fn count_and_send(
        &mut self,
        set: &SetKey,
        batch: Batch,
        list: &[Network],
        as_rules: &HashSet<Network>,
        now: SystemTime,
        present: impl Fn(&Outcome) -> usize,
    ) -> Result<usize, FirewallError> {
        let known = self.count_known(set, list, as_rules, now);
        let present = self.transact(set, batch)?.first().map_or(0, present);
        if known.is_some_and(|known| !known.contains(&present)) {
            log::debug!("{}: somebody else has changed the set, it is read anew", set.name());
            self.mirrors.doubt(set);
            self.own_info(set)?;
        }
        Ok(as_rules.len().saturating_add(present))
    }

    /// How many addresses of a list are there, as rules or entries: as the mirror knows it, if its
    /// size is that of the set, else by reading the set.
    fn count_present(
        &mut self,
        set: &SetKey,
        list: &[Network],
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        self.verify(set, now)?;
        let entries = match self.count_known(set, list, as_rules, now) {
            Some(known) => *known.end(),
            None => match self.count(set, list, |network| !as_rules.contains(network)) {
                Err(FirewallError::Set(_, IpsetError::NoSet)) => 0,
                counted => counted?,
            },
        };
        Ok(as_rules.len().saturating_add(entries))
    }

    /// How many of a list are entries, at least and at most, without those that are rules, if the
    /// mirror knows it.
    fn count_known(
        &self,
        set: &SetKey,
        list: &[Network],
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Option<RangeInclusive<usize>> {
        let mirror = self.mirrors.whole(set)?;
        let (mut there, mut ending) = (0_usize, 0_usize);
        for network in list.iter().filter(|network| !as_rules.contains(network)) {
            match mirror.get(&Element::Net(*network), now) {
                Known::There(_) => there = there.saturating_add(1),
                Known::Ending => ending = ending.saturating_add(1),
                Known::Absent => {}
            }
        }
        Some(there..=there.saturating_add(ending))
    }

    /// The number of entries that are in a list and wanted.
    fn count(
        &mut self,
        set: &SetKey,
        list: &[Network],
        wanted: impl Fn(&Network) -> bool,
    ) -> Result<usize, FirewallError> {
        let mut count = 0;
        self.each_entry(&name_of(set)?, |entry| {
            let listed = |network: &Network| list.binary_search(network).is_ok() && wanted(network);
            count += usize::from(matches!(&entry.element, Element::Net(network) if listed(network)));
            true
        })?;
        Ok(count)
    }

    /// The number of entries that a set has together with a list, at most: counted
    /// one by one only where it matters.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn size_with(&mut self, set: &SetKey, list: &[Network]) -> Result<usize, FirewallError> {
        let fits = |size: usize, room: u32| u32::try_from(size).is_ok_and(|size| size <= room);
        let known = self.mirrors.whole(set).map(|mirror| mirror.len().saturating_add(list.len()));
        let room = self.room(set);
        // Others may have added entries too: a list that is found too long in the middle is not
        // taken back.
        let ample = |sum: usize| fits(sum.saturating_add(sum / 3), room) && !self.is_cheap(set, list.len());
        if let Some(sum) = known.filter(|sum| ample(*sum) && !self.foreign.contains(set)) {
            return Ok(sum);
        }
        let Some(info) = self.own_info(set)? else {
            return match self.foreign.contains(set) {
                true => Err(FirewallError::ForeignSet(set.name())),
                false => Ok(list.len()),
            };
        };
        let sum = size(&info).saturating_add(list.len());
        if fits(sum, self.room(set)) {
            return Ok(sum);
        }
        Ok(sum.saturating_sub(self.count(set, list, |_| true)?))
    }
}
