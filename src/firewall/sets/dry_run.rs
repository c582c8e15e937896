//! What a change of entries would do, asked of the kernel and of the mirrors alone.

use super::mirror::Known;
use super::single::EntryResult;
use super::{Sets, deadline, element, name_of, of};
use crate::firewall::FirewallError;
use crate::kernel::ipset::IpsetError;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use std::collections::BTreeSet;
use std::time::SystemTime;

impl Sets {
    /// What [`Sets::put`] would do, where there may be no set yet.
    ///
    /// # Errors
    /// A set is not rfw's, has no room, or can't be read.
    pub(crate) fn would_put(
        &mut self,
        union: &SetKey,
        rule: &Rule,
        label: &Label,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        let set = self.set_of(union, label.list);
        for one in [&set, union] {
            self.check_own(one, 1, now)?;
        }
        if !self.has_entry(&set, rule, now)? {
            for one in [&set, union] {
                self.check_one(one, &element(rule), now)?;
            }
            return Ok(EntryResult::Done);
        }
        match label.lease == Lease::Permanent && self.is_permanent(&set, rule, now)? {
            true => Ok(EntryResult::Unchanged),
            false => Ok(EntryResult::Already),
        }
    }

    /// Whether [`Sets::take`] would take the address of a rule out of a list.
    ///
    /// # Errors
    /// A set is not rfw's or can't be read.
    pub(crate) fn would_take(
        &mut self,
        union: &SetKey,
        rule: &Rule,
        list: ListName,
        now: SystemTime,
    ) -> Result<bool, FirewallError> {
        let set = self.set_of(union, list);
        if set != *union && !self.has_list(&set) {
            return Ok(false);
        }
        for one in [&set, union] {
            self.check_own(one, 1, now)?;
        }
        self.has_entry(&set, rule, now)
    }

    /// The number of addresses that [`Sets::clear`] would take away, as far as the mirror is filled.
    pub(crate) fn would_clear(&self, union: &SetKey, list: ListName, now: SystemTime) -> usize {
        let set = self.set_of(union, list);
        let mut count = 0_usize;
        if let Some(mirror) = self.mirrors.whole(&set).filter(|_| set == *union || self.has_list(&set)) {
            mirror.each(now, |_, _| count = count.saturating_add(1));
        }
        count
    }

    /// The names of named lists that have a set which is not empty, or one in which something is to come
    /// back.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn used_lists(&mut self, now: SystemTime) -> Result<BTreeSet<ListName>, FirewallError> {
        let all: Vec<SetKey> = self.unions().iter().flat_map(|union| self.list_sets(union)).collect();
        let mut used = BTreeSet::new();
        for (list, set) in all.iter().filter_map(|set| Some((set.list()?, set))) {
            if !self.is_empty(set, now)? {
                used.insert(list);
            }
        }
        Ok(used)
    }

    /// Whether a set has exactly the entry of a rule now. The kernel finds a host in a network, too, and the
    /// mirror does not know the moment in which an entry ends: then the set is read.
    fn has_entry(&mut self, set: &SetKey, rule: &Rule, now: SystemTime) -> Result<bool, FirewallError> {
        let (element, name) = (element(rule), name_of(set)?);
        match self.ipset.test(&name, element, deadline()) {
            Ok(true) => {}
            Ok(false) | Err(IpsetError::NoSet) => return Ok(false),
            Err(error) => return Err(of(set, error)),
        }
        let known = self.mirrors.whole(set).map(|mirror| mirror.get(&element, now));
        if matches!(known, Some(Known::There(_))) {
            return Ok(true);
        }
        let mut is_there = false;
        self.each_entry(&name, |entry| {
            is_there = entry.element == element && !entry.other;
            !is_there
        })?;
        Ok(is_there)
    }
}
