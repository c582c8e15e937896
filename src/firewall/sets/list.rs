//! Bodies: many addresses of a list in one send to the kernel, and counted.

use super::entry::new_entry;
use super::is_gone;
use super::mirror::Known;
use super::plan::{Comments, Plan};
use super::rebuild::Rebuilding;
use super::{Sets, name_of, size};
use crate::firewall::{FirewallError, ListResult, Terms};
use crate::kernel::ipset::{Batch, Element, Existing, IpsetError, Outcome};
use crate::kernel::set_key::SetKey;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::SystemTime;

/// The most addresses of a list that are counted one by one by the kernel. It keeps
/// 0.8 kB for each that is there already, so a longer list is counted by the mirror, of which the
/// number of entries is compared first: that takes the kernel 20 ns an entry of the set.
const COUNTED_MAX: usize = 5_000;

/// What is to become of the addresses of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ListOp<'a> {
    /// They are added or renewed.
    Put(&'a Terms),
    /// They are deleted.
    Delete(ListName),
}

impl ListOp<'_> {
    fn list(&self) -> ListName {
        match self {
            ListOp::Put(terms) => terms.list,
            ListOp::Delete(list) => *list,
        }
    }

    fn terms(&self) -> Option<&Terms> {
        match self {
            ListOp::Put(terms) => Some(terms),
            ListOp::Delete(_) => None,
        }
    }
}

/// The sets that a change is about, and what goes out of the list's.
struct Change<'a> {
    set: &'a SetKey,
    union: &'a SetKey,
    /// In ascending order and without doubles.
    networks: &'a [Network],
    op: ListOp<'a>,
    gone: Vec<Element<'static>>,
    comments: Comments,
}

impl Sets {
    /// Adds or deletes all addresses of a body, in ascending order and without doubles, or changes
    /// nothing, also where rfw is killed meanwhile. What is known to be there `as_rules` counts as
    /// present.
    ///
    /// # Errors
    /// A set can't be read or changed.
    pub(crate) fn apply(
        &mut self,
        union: &SetKey,
        networks: &[Network],
        op: ListOp<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let set = self.set_of(union, op.list());
        self.check_both(&set, union, networks.len(), now)?;
        let comments = op.terms().map(|terms| Comments::of(terms, now)).unwrap_or_default();
        op.terms().iter().for_each(|terms| self.note_end(&set, terms.lease, now));
        let mut change = Change { set: &set, union, networks, op, gone: Vec::new(), comments };
        let present = self.count_and_change(&mut change, as_rules, now);
        if present.is_err() {
            self.doubt_both(&set, union);
        }
        let (present, removed) = (present?, change.gone.len());
        self.remember_all(&change, present, now);
        log::debug!("{}: {} addresses, {present} were there", set.name(), networks.len());
        let absent = networks.len().saturating_sub(present);
        let removed = if op.terms().is_some() { removed } else { 0 };
        Ok(ListResult { present, absent, removed })
    }

    /// What [`Sets::apply`] would do, where there may be no set yet.
    ///
    /// # Errors
    /// A set is not rfw's or can't be read.
    pub(crate) fn would_apply(
        &mut self,
        union: &SetKey,
        networks: &[Network],
        op: ListOp<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let set = self.set_of(union, op.list());
        for one in [&set, union] {
            self.check_own(one, networks.len(), now)?;
        }
        let comments = Comments::default();
        let mut change = Change { set: &set, union, networks, op, gone: Vec::new(), comments };
        let present = if self.own_size(&set)?.is_none() {
            as_rules.len()
        } else if op.terms().is_some_and(|terms| terms.replace) {
            self.find_gone(&mut change, as_rules, now)?
        } else {
            self.count_present(&set, networks, as_rules, now)?
        };
        let absent = networks.len().saturating_sub(present);
        Ok(ListResult { present, absent, removed: change.gone.len() })
    }

    /// Makes the change. Gives the number of addresses of the body that were there.
    fn count_and_change(
        &mut self,
        change: &mut Change<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let replaces = change.op.terms().is_some_and(|terms| terms.replace);
        if change.set == change.union
            && !replaces
            && let Some(present) = self.change_counted(change, as_rules, now)?
        {
            return Ok(present);
        }
        let present = match replaces {
            true => self.find_gone(change, as_rules, now)?,
            false => match self.count_present(change.set, change.networks, as_rules, now) {
                Err(error) if is_gone(&error) && change.op.terms().is_none() => return Ok(as_rules.len()),
                present => present?,
            },
        };
        if change.op.terms().is_none() {
            change.gone = change.networks.iter().copied().map(Element::Net).collect();
        }
        self.change_all(change, now)?;
        Ok(present)
    }

    /// Finds what a body that replaces a list takes out of it. Gives the number of its addresses that
    /// were there.
    fn find_gone(
        &self,
        change: &mut Change<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let Some(mirror) = self.mirrors.whole(change.set) else {
            // Others have changed the set in this moment: what is to go is not known.
            return Err(FirewallError::Set(change.set.name(), IpsetError::Interrupted));
        };
        let present;
        (change.gone, present) = mirror.beside(change.networks, now);
        let is_entry = |network: &&Network| mirror.get(&Element::Net(**network), now) != Known::Absent;
        let others = as_rules.len().saturating_sub(as_rules.iter().filter(is_entry).count());
        Ok(present.saturating_add(others))
    }

    /// Has the kernel make and count a change of a body that is short, in the only set of a scope.
    fn change_counted(
        &mut self,
        change: &Change<'_>,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<Option<usize>, FirewallError> {
        let list = change.networks;
        if list.len() > COUNTED_MAX {
            return Ok(None);
        }
        let (name, mut batch) = (name_of(change.set)?, self.ipset.batch());
        let plan = self.plan(change, now);
        match change.op {
            ListOp::Put(_) => {
                let is_rule =
                    |element: &Element<'_>| matches!(element, Element::Net(n) if as_rules.contains(n));
                let others = plan.list_puts().filter(|(element, _, _)| !is_rule(element));
                batch.add_each(
                    &name,
                    others.map(|(element, lease, comment)| new_entry(element, lease, comment, now)),
                    Existing::Refuse,
                );
                // Those that were there are renewed, the others once more.
                add_many(&mut batch, &name, plan.list_puts(), now);
            }
            ListOp::Delete(_) => {
                let (rules, others): (Vec<&Network>, Vec<&Network>) =
                    list.iter().partition(|network| as_rules.contains(network));
                batch.del_each(&name, others.into_iter().copied().map(Element::Net), Existing::Refuse);
                // Those that are rules too may also be entries: they go without being counted.
                batch.del_many(&name, rules.into_iter().copied().map(Element::Net));
            }
        }
        if batch.is_empty() || !self.ipset.is_one_send(&batch) {
            return Ok(None);
        }
        let present = |outcome: &Outcome| match change.op {
            ListOp::Put(_) => outcome.already,
            ListOp::Delete(_) => outcome.done,
        };
        match self.count_and_send(change.set, batch, list, as_rules, now, present) {
            // There is nothing to delete from.
            Err(error) if is_gone(&error) && change.op.terms().is_none() => Ok(Some(as_rules.len())),
            counted => counted.map(Some),
        }
    }

    /// Makes a change that is counted already: in one send, or, where a process may have no buffer of
    /// that size, by building the sets beside.
    fn change_all(&mut self, change: &Change<'_>, now: SystemTime) -> Result<(), FirewallError> {
        let (name, union_name, mut batch) =
            (name_of(change.set)?, name_of(change.union)?, self.ipset.batch());
        let plan = self.plan(change, now);
        // First what goes: there may be no room for both.
        batch.del_many(&name, change.gone.iter().copied());
        add_many(&mut batch, &name, plan.list_puts(), now);
        if change.set != change.union {
            let puts = plan.union_puts().map(|(element, lease)| (element, lease, None));
            batch.del_many(&union_name, plan.union_dels());
            add_many(&mut batch, &union_name, puts, now);
        }
        if batch.is_empty() || self.ipset.is_one_send(&batch) {
            return self.transact(change.set, batch).map(drop);
        }
        drop(batch);
        let rebuilding = self.rebuilding(change, now);
        self.rebuild(&rebuilding, now)
    }

    /// The same change, as what is built beside.
    fn rebuilding(&self, change: &Change<'_>, now: SystemTime) -> Vec<Rebuilding> {
        let plan = self.plan(change, now);
        let puts =
            plan.list_puts().map(|(element, lease, comment)| (element, lease, comment.map(str::to_owned)));
        let mut all = vec![Rebuilding {
            set: change.set.clone(),
            room: self.room_now(change.set),
            puts: puts.collect(),
            dels: change.gone.iter().copied().collect(),
        }];
        if change.set != change.union {
            all.push(Rebuilding {
                set: change.union.clone(),
                room: self.room_now(change.union),
                puts: plan.union_puts().map(|(element, lease)| (element, lease, None)).collect(),
                dels: plan.union_dels().collect(),
            });
        }
        all
    }

    fn plan<'a>(&'a self, change: &'a Change<'_>, now: SystemTime) -> Plan<'a> {
        let puts = change.op.terms().map(|terms| (change.networks, terms.lease, &change.comments));
        Plan {
            puts,
            gone: &change.gone,
            others: self.mirrors_of_others(change.set),
            union: self.mirrors.whole(change.union),
            now,
        }
    }

    /// Takes a change down that the kernel has made.
    fn remember_all(&mut self, change: &Change<'_>, present: usize, now: SystemTime) {
        if change.set != change.union {
            let plan = self.plan(change, now);
            let (puts, dels): (Vec<_>, Vec<_>) = (plan.union_puts().collect(), plan.union_dels().collect());
            let mut union = self.follow(change.union);
            union.reserve(if present == 0 { puts.len() } else { 0 });
            puts.iter().for_each(|(element, lease)| union.put(element, *lease, now));
            dels.iter().for_each(|element| union.remove(element));
        }
        let mut mirror = self.follow(change.set);
        if let Some(terms) = change.op.terms() {
            mirror.reserve(if present == 0 { change.networks.len() } else { 0 });
            let networks = change.networks.iter();
            networks.for_each(|network| mirror.put(&Element::Net(*network), terms.lease, now));
        } else {
            change.networks.iter().for_each(|network| mirror.remove(&Element::Net(*network)));
        }
        change.gone.iter().for_each(|element| mirror.remove(element));
    }

    /// The number of entries that a set of a scope has after a replacement, where with all that the
    /// body brings it has `size`.
    pub(crate) fn size_after(&self, set: &SetKey, networks: &[Network], terms: &Terms, size: usize) -> usize {
        let union = set.union();
        let list = self.set_of(&union, terms.list);
        let (op, comments) = (ListOp::Put(terms), Comments::default());
        let mut change = Change { set: &list, union: &union, networks, op, gone: Vec::new(), comments };
        let mirror = self.mirrors.whole(&list);
        change.gone =
            mirror.map(|mirror| mirror.beside(networks, SystemTime::UNIX_EPOCH).0).unwrap_or_default();
        let gone = match *set == list {
            true => change.gone.len(),
            false => self.plan(&change, SystemTime::UNIX_EPOCH).union_dels().count(),
        };
        size.saturating_sub(gone)
    }

    /// Takes all that a list holds in a scope away. Gives the number of addresses.
    ///
    /// # Errors
    /// A set can't be read or changed.
    pub(crate) fn clear(
        &mut self,
        union: &SetKey,
        list: ListName,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let set = self.set_of(union, list);
        if set != *union && !self.has_list(&set) {
            return Ok(0);
        }
        self.check_own(&set, usize::MAX, now)?;
        self.check_read(union)?;
        let mut gone = Vec::new();
        if let Some(mirror) = self.mirrors.whole(&set) {
            mirror.each(now, |element, _| gone.push(element));
        }
        let (op, comments) = (ListOp::Delete(list), Comments::default());
        let change = Change { set: &set, union, networks: &[], op, gone, comments };
        let cleared = self.change_all(&change, now);
        if cleared.is_err() {
            self.doubt_both(&set, union);
        }
        cleared?;
        self.remember_all(&change, 0, now);
        Ok(change.gone.len())
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
            self.doubt(set);
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
        if set.list().is_none() || self.is_cheap(set, list.len()) {
            self.verify(set, now)?;
        }
        let entries = match self.count_known(set, list, as_rules, now) {
            Some(known) => *known.end(),
            None => self.count(set, list, |network| !as_rules.contains(network))?,
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

fn add_many<'p>(
    batch: &mut Batch,
    name: &crate::kernel::ipset::SetName,
    puts: impl Iterator<Item = super::plan::Put<'p>>,
    now: SystemTime,
) {
    batch.add_many(name, puts.map(|(element, lease, comment)| new_entry(element, lease, comment, now)));
}
