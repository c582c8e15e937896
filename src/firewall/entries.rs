//! Addresses as set entries, with the option `ipset`.

use super::family_list::FamilyList;
use super::sets::{EntryResult, ListOp, Made, Sets};
use super::{Firewall, FirewallError, ListResult, Outcome, Terms};
use crate::firewall::table::Plan;
use crate::kernel::ipset::IpsetError;
use crate::kernel::program::ProgramError;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::label::Label;
use crate::rule::layout::KernelChain;
use crate::rule::lease::{Lease, SET_LONGEST};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::whitelist::WhiteList;
use crate::rule::{Rule, SetUse};
use std::collections::HashSet;
use std::time::{Instant, SystemTime};

/// Attempts to add an entry while another program keeps destroying the set.
const ATTEMPTS: usize = 3;

impl Firewall {
    /// Whether rules of this key are kept as entries of a set. A pair is a rule of its own
    /// if the kernel does not support sets of pairs.
    pub(super) fn is_for_sets(&mut self, set: &SetKey) -> Result<bool, FirewallError> {
        match &mut self.sets {
            Some(sets) if self.settings.set_use == SetUse::On => {
                Ok(set.side() != Side::Both || sets.supports(set)?)
            }
            Some(_) if self.settings.set_use == SetUse::Auto => {
                Ok(self.known.contains(set) || self.table(set.family())?.cache().has_set(set))
            }
            _ => Ok(false),
        }
    }

    /// Whether some addresses may be entries of sets.
    pub(super) fn may_have_sets(&self) -> bool {
        self.sets.is_some() && self.settings.set_use != SetUse::Off
    }

    /// Refuses an end that no set could hold, where some addresses may be entries.
    ///
    /// # Errors
    /// [`FirewallError::TooLong`].
    pub(super) fn check_time(&self, lease: Lease, now: SystemTime) -> Result<(), FirewallError> {
        if self.may_have_sets() { check_lease(lease, now) } else { Ok(()) }
    }

    pub(super) fn insert_entry(
        &mut self,
        rule: &Rule,
        set: &SetKey,
        label: &Label,
        now: SystemTime,
    ) -> Result<Outcome, FirewallError> {
        let start = Instant::now();
        for _ in 0..ATTEMPTS {
            self.link(set)?;
            self.open_list(set, label.list, 1, now)?;
            // It may have waited for the lock of the tables.
            let now = now + start.elapsed();
            let result = self.mending(set, now, |sets| sets.put(set, rule, label, now))?;
            let Some(outcome) = result.of_put() else {
                self.table(set.family())?.invalidate();
                continue;
            };
            // An older one that others have flushed as a rule is not to come back.
            self.forget_lost(rule.family(), |other, lost| other == rule && lost.list == label.list)?;
            return self.delete_rule_of_entry(rule, label.list, outcome);
        }
        Err(ProgramError::Contended.into())
    }

    /// Makes the set of a list where the scope needs one, beside a union that is there. What is
    /// known of the scope is whole then.
    pub(super) fn open_list(
        &mut self,
        union: &SetKey,
        list: ListName,
        expected: usize,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if !list.is_named() && !self.sets()?.has_lists(union) {
            return Ok(());
        }
        self.complete(union, now)?;
        // What others have emptied comes back first: the unnamed list is to be all of it.
        match self.mending(union, now, |sets| sets.open_list(union, list, expected, now))? {
            // One that was left over is not read yet.
            true => self.complete(union, now),
            false => Ok(()),
        }
    }

    /// Reads what is not known yet of the sets of a scope, and makes the union what its lists are.
    ///
    /// # Errors
    /// A set can't be read, or is not rfw's.
    pub(super) fn complete(&mut self, union: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        while let Some(set) = self.sets()?.unread(union) {
            self.sets()?.hurry(&set);
            self.fill_one(now)?;
            if self.sets()?.is_lost(&set) && self.sets()?.unread(union).as_ref() == Some(&set) {
                return match self.sets()?.is_foreign(&set)? {
                    true => Err(FirewallError::ForeignSet(set.name())),
                    false => Err(ProgramError::Contended.into()),
                };
            }
        }
        self.settle(union, now)
    }

    /// Reads what is not known yet of a list that is to go or to be replaced: what others have added goes
    /// too.
    ///
    /// # Errors
    /// As for [`Firewall::complete`].
    pub(super) fn read_list(
        &mut self,
        union: &SetKey,
        list: ListName,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let set = self.sets()?.set_of(union, list);
        self.mending(union, now, |sets| sets.verify(&set, now))?;
        self.complete(union, now)
    }

    /// Makes unions what their lists are, of which all is read.
    pub(super) fn settle_all(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let unions = self.sets()?.to_settle();
        unions.iter().try_for_each(|union| self.settle(union, now))
    }

    fn settle(&mut self, union: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        let sets = self.sets()?;
        if sets.to_settle().contains(union) {
            let changed = sets.settle(union, now)?;
            if changed > 0 {
                log::info!(
                    "{}: mended, entries that were not as its lists have them: {changed}",
                    union.name()
                );
            }
        }
        Ok(())
    }

    /// Deletes the rule of an address that is now an entry of that list. Such a rule exists if it
    /// ended too late for a set when the option `ipset` was turned on.
    pub(super) fn delete_rule_of_entry(
        &mut self,
        rule: &Rule,
        list: ListName,
        outcome: Outcome,
    ) -> Result<Outcome, FirewallError> {
        if self.table(rule.family())?.cache().labels(rule, list).is_empty() {
            return Ok(outcome);
        }
        self.change(rule.family(), Plan::FromCache, |cache, transaction| {
            cache.labels(rule, list).iter().for_each(|label| transaction.delete(rule, label));
        })?;
        Ok(Outcome::Refreshed)
    }

    /// Creates a set and the rule that looks packets up in it, unless they exist. A set
    /// without its rule, as after `iptables -F`, keeps its entries.
    pub(super) fn link(&mut self, set: &SetKey) -> Result<(), FirewallError> {
        self.link_expecting(set, 0)
    }

    /// The same for a set that a repair has just made again, which tells of it.
    pub(super) fn link_anew(&mut self, set: &SetKey) -> Result<(), FirewallError> {
        self.make_link(set, 0).map(drop)
    }

    /// The same for a set that is to hold so many entries, if it has to be made.
    fn link_expecting(&mut self, set: &SetKey, expected: usize) -> Result<(), FirewallError> {
        if let Some(size) = self.make_link(set, expected)? {
            let level = match self.is_more_to_repair(set.family()) {
                true => log::Level::Info,
                false => log::Level::Warn,
            };
            log::log!(level, "the set {} has {size} entries and had lost its rule: put back", set.name());
        }
        Ok(())
    }

    /// Whether others have flushed more of a table, which the repair to come tells.
    fn is_more_to_repair(&self, family: Family) -> bool {
        let Some(table) = self.tables.iter().find(|table| table.family() == family) else { return false };
        let (memory, cache) = (table.memory(), table.cache());
        let has_port = self.guarded.as_ref().is_some_and(|(port, _)| port.is_some());
        let lacks_guard = |chain| has_port && cache.guards_of(&chain).next().is_none();
        let lacks_rule = |set: &SetKey| set.family() == family && !cache.has_set(set);
        memory.is_flushed()
            && (!memory.lost().is_empty()
                || [KernelChain::Input, KernelChain::Output].into_iter().any(lacks_guard)
                || self.known.iter().any(lacks_rule))
    }

    /// Makes the rule of a set, and the set, where they are missing. Gives the number of entries of one
    /// that had some and no rule.
    fn make_link(&mut self, set: &SetKey, expected: usize) -> Result<Option<usize>, FirewallError> {
        let mut relinked = None;
        let table = self.table(set.family())?;
        if !table.has_set(set)? {
            table.invalidate();
            let size = match self.sets()?.create(set, expected)? {
                Made::New => 0,
                Made::Present(size) => size,
                Made::Foreign => return Err(FirewallError::ForeignSet(set.name())),
            };
            if size > 0 {
                self.remove_conflicts_of(set)?;
            }
            self.change(set.family(), Plan::FromKernel, |cache, transaction| {
                // It may have stood where the layout does not have it.
                if !cache.has_set(set) {
                    transaction.insert_set(set, cache.number_for(set.scope()));
                }
            })?;
            self.check_order_behind(set.family(), set.scope())?;
            // The insertion has changed the numbers of the rules behind it.
            self.table(set.family())?.invalidate();
            relinked = (size > 0).then_some(size);
        }
        if !self.known.contains(set) {
            self.known.insert(set.clone());
        }
        Ok(relinked)
    }

    /// Deletes the entries of a set that the white list forbids, before a rule looks it
    /// up: nobody has looked at them while it had none.
    pub(super) fn remove_conflicts_of(&mut self, set: &SetKey) -> Result<(), FirewallError> {
        let Some((_, list)) = self.guarded.clone() else { return Ok(()) };
        let now = SystemTime::now();
        for (rule, _) in self.sets()?.rules(set, now, |rule| list.conflict(rule).is_some())? {
            self.sets()?.take_everywhere(set, &rule)?;
            self.note_gone_everywhere(&rule);
            log::warn!("removed, since it touches the white list: {rule}");
        }
        Ok(())
    }

    /// Puts the rule of a set back that has entries, or lists with entries.
    pub(super) fn link_if_used(&mut self, union: &SetKey) -> Result<(), FirewallError> {
        if self.table(union.family())?.cache().sets().any(|linked| linked == union) {
            return Ok(());
        }
        for set in self.sets()?.sets_of(union) {
            if self.sets()?.own_size(&set)?.is_some_and(|size| size > 0) {
                return self.link(union);
            }
        }
        Ok(())
    }

    /// Whether the set exists and was created by rfw, with or without a rule, or others have destroyed it
    /// and what it held is to come back.
    pub(super) fn has_own_set(&mut self, set: &SetKey) -> Result<bool, FirewallError> {
        let linked = self.table(set.family())?.cache().sets().any(|linked| linked == set);
        let sets = self.sets()?;
        Ok(linked || sets.is_remembered(set) && !sets.is_foreign(set)? || sets.own_size(set)?.is_some())
    }

    /// Whether there is a set that has what a list holds in a scope.
    pub(super) fn has_set_of(&mut self, union: &SetKey, list: ListName) -> Result<bool, FirewallError> {
        let set = self.sets()?.set_of(union, list);
        Ok(self.has_own_set(union)? && (set == *union || self.sets()?.has_list(&set)))
    }

    /// Checks that a body fits into the set of its list, and into the union.
    pub(super) fn check_room(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let mut all = vec![list.set.clone(), self.sets()?.set_of(&list.set, terms.list)];
        all.dedup();
        for set in all {
            // What comes back takes room, too.
            self.mending(&list.set, now, |sets| sets.check_own(&set, list.networks.len(), now))?;
            let sets = self.sets()?;
            let (size, room) = (sets.size_with(&set, &list.networks)?, sets.room(&set));
            let fits = |size: usize| u32::try_from(size).is_ok_and(|size| size <= room);
            let fits_after = || terms.replace && fits(sets.size_after(&set, &list.networks, terms, size));
            if !(fits(size) || fits_after()) {
                return Err(FirewallError::Full(room));
            }
        }
        Ok(())
    }

    /// Adds a list to its set and deletes the rules of the same addresses, see
    /// [`Firewall::delete_rule_of_entry`].
    pub(super) fn insert_entries(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
        now: SystemTime,
        start: Instant,
    ) -> Result<ListResult, FirewallError> {
        for _ in 0..ATTEMPTS {
            match self.try_insert_entries(list, terms, now, start) {
                // Another program has destroyed the set since it was linked.
                Err(FirewallError::Set(_, IpsetError::NoSet)) => {
                    self.table(list.set.family())?.invalidate();
                }
                result => return result,
            }
        }
        Err(ProgramError::Contended.into())
    }

    fn try_insert_entries(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
        now: SystemTime,
        start: Instant,
    ) -> Result<ListResult, FirewallError> {
        self.link_expecting(&list.set, list.networks.len())?;
        self.open_list(&list.set, terms.list, list.networks.len(), now)?;
        if terms.replace {
            self.complete(&list.set, now)?;
        }
        let as_rules = self.change(list.set.family(), Plan::FromCache, |cache, _| {
            let present = list.present(cache, terms.list);
            present.iter().flat_map(|(rule, _)| rule.networks().copied()).collect::<HashSet<Network>>()
        })?;
        let count = self.change_entries(list, ListOp::Put(terms), &as_rules, now + start.elapsed())?;
        if terms.replace {
            self.delete_whole(list, terms.list)?;
        } else if as_rules.is_empty() {
            self.forget_listed(list, terms.list)?;
        } else {
            self.delete_rules(list, terms.list)?;
        }
        Ok(count)
    }

    pub(super) fn change_entries(
        &mut self,
        list: &FamilyList,
        op: ListOp<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        if self.sets()?.has_lists(&list.set) {
            // The union keeps what another list holds, so that has to be known.
            self.complete(&list.set, now)?;
        }
        self.mending(&list.set, now, |sets| sets.apply(&list.set, &list.networks, op, as_rules, now))
    }

    /// Takes the address of a rule out of a list, in sets.
    pub(super) fn delete_entry(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        list: ListName,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        if self.sets()?.has_lists(set) {
            self.complete(set, now)?;
        }
        self.mending(set, now, |sets| sets.take(set, rule, list, now))
    }

    /// The sets that have a rule, according to the cache.
    pub(super) fn linked_sets(&self) -> Vec<SetKey> {
        self.tables.iter().flat_map(|table| table.cache().sets()).cloned().collect()
    }

    /// The entries that overlap a network of the white list, of each list, as far as the mirrors are
    /// filled: the filling looks at the others.
    pub(super) fn conflicting_entries(
        &mut self,
        list: &WhiteList,
        now: SystemTime,
    ) -> Result<Vec<ConflictingEntry>, FirewallError> {
        let mut found = Vec::new();
        for union in self.linked_sets() {
            let sets = self.sets()?;
            for set in sets.list_sets(&union) {
                let rules = sets.mirrored(&set, now, |rule| list.conflict(rule).is_some());
                found.extend(rules.into_iter().map(|(rule, lease)| {
                    let label = Label::new(lease, set.list().unwrap_or_default());
                    ConflictingEntry { set: union.clone(), rule, label }
                }));
            }
        }
        Ok(found)
    }

    /// Deletes entries, or, where that fails, none of them.
    pub(super) fn remove_entries(
        &mut self,
        entries: &[ConflictingEntry],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        for (count, ConflictingEntry { set, rule, label }) in entries.iter().enumerate() {
            if let Err(error) = self.delete_entry(set, rule, label.list, now) {
                for ConflictingEntry { set, rule, label } in entries.iter().take(count) {
                    if let Err(error) = self.mending(set, now, |sets| sets.put(set, rule, label, now)) {
                        log::error!("can't be put back: {rule}: {error}");
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads on in a set whose mirror is not filled: one piece. Entries that the white list forbids
    /// are deleted.
    ///
    /// # Errors
    /// A set can't be read or changed; it is tried again later.
    pub(crate) fn fill_mirrors(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        if self.sets.is_none() {
            return Ok(());
        }
        self.fill_one(now)?;
        let followed = self.follow_repair(now);
        self.tell(Vec::new(), now);
        followed
    }

    fn fill_one(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        for rule in self.with_repair(|sets, repair| sets.fill(now, repair))? {
            self.sets()?.take_everywhere(&SetKey::of(&rule), &rule)?;
            self.note_gone_everywhere(&rule);
            log::warn!("removed, since it touches the white list: {rule}");
        }
        Ok(())
    }

    /// Whether a mirror is to be filled now.
    pub(crate) fn is_fill_due(&self) -> bool {
        self.next_fill().is_some_and(|at| at <= Instant::now())
    }

    /// When a mirror is to be filled; `None` if all are.
    pub(super) fn next_fill(&self) -> Option<Instant> {
        self.sets.as_ref().and_then(Sets::next_fill)
    }
}

/// An entry that overlaps a network of the white list.
pub(super) struct ConflictingEntry {
    /// The union of its scope.
    set: SetKey,
    pub(super) rule: Rule,
    pub(super) label: Label,
}

/// Checks that a set may hold an address that long.
///
/// # Errors
/// It is longer than 3,650 days ([`FirewallError::TooLong`]).
pub(super) fn check_lease(lease: Lease, now: SystemTime) -> Result<(), FirewallError> {
    let left = lease.end().map(|end| end.time().duration_since(now).unwrap_or_default().as_secs());
    match left {
        Some(left) if left > SET_LONGEST => Err(FirewallError::TooLong(left)),
        _ => Ok(()),
    }
}
