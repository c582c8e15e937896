//! The lists of a scope. While there is but the unnamed list, the union is that list. From the first
//! named list on, each list has a set of its own, which costs packets nothing, and the union holds
//! each address with the latest end of all lists.

use super::element::element;
use super::entry::{comment_of, new_entry};
use super::mirror::Mirror;
use super::registry::building;
use super::{Made, Sets, deadline, name_of, of, owned, rule_of};
use crate::firewall::FirewallError;
use crate::kernel::ipset::{Element, IpsetError};
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

impl Sets {
    /// Whether a set is rfw's or can be: the kernel has its type, and no set of others is in its place.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn can_be_made(&mut self, set: &SetKey) -> Result<bool, FirewallError> {
        if !self.supports(set)? {
            return Ok(false);
        }
        let is_foreign = self.is_foreign(set)?;
        if is_foreign {
            log::debug!("addresses stay rules: {}", FirewallError::ForeignSet(set.name()));
        }
        Ok(!is_foreign)
    }

    /// Whether the lists of a scope have sets of their own.
    pub(crate) fn has_lists(&self, union: &SetKey) -> bool {
        self.lists.contains_key(union)
    }

    /// The lists of a scope that has a union.
    pub(crate) fn lists_of(&self, union: &SetKey) -> Vec<ListName> {
        match self.lists.get(union) {
            Some(lists) => lists.iter().copied().collect(),
            None => vec![ListName::UNNAMED],
        }
    }

    /// The set that holds a list, or will hold it.
    pub(crate) fn set_of(&self, union: &SetKey, list: ListName) -> SetKey {
        match list.is_named() || self.has_lists(union) {
            true => union.with_list(list),
            false => union.clone(),
        }
    }

    /// The sets that hold the lists of a scope.
    pub(crate) fn list_sets(&self, union: &SetKey) -> Vec<SetKey> {
        self.lists_of(union).into_iter().map(|list| self.set_of(union, list)).collect()
    }

    /// All sets of a scope: the union, and those of its lists.
    pub(crate) fn sets_of(&self, union: &SetKey) -> Vec<SetKey> {
        let mut sets = vec![union.clone()];
        sets.extend(self.list_sets(union).into_iter().filter(|set| set != union));
        sets
    }

    /// The unions that have lists.
    pub(crate) fn unions(&self) -> Vec<SetKey> {
        self.lists.keys().cloned().collect()
    }

    /// The names of all lists that have sets.
    pub(crate) fn list_names(&self) -> BTreeSet<ListName> {
        self.lists.values().flatten().copied().collect()
    }

    /// Whether there is that set of a list.
    pub(crate) fn has_list(&self, set: &SetKey) -> bool {
        let lists = self.lists.get(&set.union());
        set.list().is_some_and(|list| lists.is_some_and(|lists| lists.contains(&list)))
    }

    /// Takes down that there is a set of a list, with entries that the union may not have.
    pub(crate) fn know_list(&mut self, set: &SetKey) {
        self.know_new_list(set);
        self.unsettled.extend(set.list().map(|_| set.union()));
    }

    /// Takes down that there is a set of a list that is new: it has nothing that the union has not.
    pub(super) fn know_new_list(&mut self, set: &SetKey) {
        if let Some(list) = set.list() {
            if !self.has_lists(&set.union()) {
                self.listings.note_split();
            }
            self.lists.entry(set.union()).or_default().insert(list);
        }
    }

    /// Takes down that there is no set of that name any more.
    pub(super) fn forget_list_named(&mut self, name: &str) {
        let all =
            self.lists.iter().flat_map(|(union, lists)| lists.iter().map(|list| union.with_list(*list)));
        let Some(set) = all.into_iter().find(|set| set.name() == name) else { return };
        self.forget_list(&set);
    }

    /// Takes down that a set of a list is gone.
    pub(super) fn forget_list(&mut self, set: &SetKey) {
        let (Some(list), union) = (set.list(), set.union()) else { return };
        if let Some(lists) = self.lists.get_mut(&union) {
            lists.remove(&list);
            if lists.is_empty() {
                self.lists.remove(&union);
                self.unsettled.remove(&union);
            }
        }
    }

    /// Makes the set of a list, with what the scope needs for it, unless it is known; the union is
    /// there. Gives whether that took anything.
    ///
    /// # Errors
    /// The kernel does not have it, or [`FirewallError::Emptied`].
    pub(crate) fn open_list(
        &mut self,
        union: &SetKey,
        list: ListName,
        expected: usize,
        now: SystemTime,
    ) -> Result<bool, FirewallError> {
        let set = self.set_of(union, list);
        if set == *union || self.has_list(&set) {
            return Ok(false);
        }
        if !self.has_lists(union) {
            self.check_whole(union, now)?;
            self.split(union, now)?;
        }
        if self.has_list(&set) {
            return Ok(true);
        }
        match self.create(&set, expected)? {
            Made::New | Made::Present(_) => Ok(true),
            Made::Foreign => Err(FirewallError::ForeignSet(set.name())),
        }
    }

    /// Refuses to split a union that others have emptied, or destroyed, or flushed with the registry: what
    /// it held comes back first. Single entries that they have deleted stay so, which is written down.
    fn check_whole(&mut self, union: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        let size = self.own_size(union)?;
        self.check_emptied(union, size, now)?;
        let Some(size) = size else { return Ok(()) };
        if self.went_with_registry(union, size, now)? {
            return Err(FirewallError::Emptied(union.name()));
        }
        let is_known = self.mirrors.whole(union).is_none_or(|mirror| mirror.admits_size(size, now));
        self.changed |= !is_known;
        Ok(())
    }

    /// Gives the unnamed list a set of its own, with what the union holds: built beside, and there
    /// whole in one send.
    fn split(&mut self, union: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        let list = union.with_list(ListName::UNNAMED);
        if self.own_size(union)?.is_none_or(|size| size == 0) {
            return Ok(());
        }
        match self.own_size(&list)? {
            None => {}
            // It was left over, as by a start while somebody listed it.
            Some(0) => drop(self.destroy(&list.name())?),
            Some(_) => return Err(FirewallError::ForeignSet(list.name())),
        }
        self.drop_work()?;
        let (work, start, mut entries) = (self.work(0)?, Instant::now(), Vec::new());
        self.each_entry(&name_of(union)?, |entry| {
            let label = super::label(union, entry, now + start.elapsed());
            entries.extend(owned(&entry.element).map(|element| (element, label)));
            true
        })?;
        for (element, label) in &mut entries {
            // The mirror knows the end to the second.
            let known = self.mirrors.whole(union).and_then(|mirror| mirror.end(element, now));
            label.lease = known.unwrap_or(label.lease);
        }
        let definition = self.definition(&list, self.maxelem, entries.len());
        self.make(&work, &definition, building(&list))?;
        let now = now + start.elapsed();
        let commented: Vec<_> =
            entries.iter().map(|(element, label)| (*element, label.lease, comment_of(label, now))).collect();
        let mut batch = self.ipset.batch();
        batch.add_many(
            &work,
            commented
                .iter()
                .map(|(element, lease, comment)| new_entry(*element, *lease, comment.as_deref(), now)),
        );
        let filled = self.transact(&list, batch).and_then(|_| self.make_by_swap(&list, &work));
        let dropped = self.drop_work();
        filled?;
        self.begin(&list);
        entries.iter().for_each(|(_, label)| self.note_end(&list, label.lease, now));
        let mut follower = self.follow(&list);
        entries.iter().for_each(|(element, label)| follower.put(element, label.lease, now));
        dropped
    }

    /// Adds entries of a list that no request has brought, each with its label, to the set of that
    /// list and to the union.
    ///
    /// # Errors
    /// The kernel may not have them all.
    pub(crate) fn load(
        &mut self,
        union: &SetKey,
        entries: &[(Rule, Label)],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let commented: Vec<_> =
            entries.iter().map(|(rule, label)| (rule, label, comment_of(label, now))).collect();
        let mut batch = self.ipset.batch();
        for set in self.list_sets(union) {
            let own = commented.iter().filter(|(_, label, _)| self.set_of(union, label.list) == set);
            let own = own
                .map(|(rule, label, comment)| new_entry(element(rule), label.lease, comment.as_deref(), now));
            batch.add_many(&name_of(&set)?, own);
        }
        let loaded = self.transact(union, batch);
        for (rule, label) in entries {
            let set = self.set_of(union, label.list);
            self.note_end(&set, label.lease, now);
            match loaded.is_ok() {
                true => self.follow(&set).put(&element(rule), label.lease, now),
                false => self.doubt(&set),
            }
        }
        loaded?;
        match self.has_lists(union) {
            true => self.settle(union, now).map(drop),
            false => Ok(()),
        }
    }

    /// What holds an address or the whole of a network in a scope, as far as the mirrors are filled.
    pub(crate) fn holding(&self, union: &SetKey, network: &Network, now: SystemTime) -> Vec<(Rule, Label)> {
        self.list_sets(union).iter().flat_map(|set| self.held(set, network, now)).collect()
    }

    /// The entries of exactly that address or network in the lists of a scope, with their ends as far
    /// as they are known.
    pub(crate) fn exactly(&self, union: &SetKey, network: &Network, now: SystemTime) -> Vec<(Rule, Label)> {
        let mut found = Vec::new();
        for set in self.list_sets(union) {
            let list = set.list().unwrap_or_default();
            if set.side() == Side::Both {
                let held = self.held(&set, network, now).into_iter();
                found.extend(held.filter(|(rule, _)| rule.networks().any(|side| side == network)));
            } else if let Some(rule) = rule_of(&set, &Element::Net(*network)) {
                let end =
                    self.mirrors.whole(&set).and_then(|mirror| mirror.end(&Element::Net(*network), now));
                found.push((rule, Label::new(end.unwrap_or(Lease::Permanent), list)));
            }
        }
        found
    }

    /// How many entries a list of a scope has, and the latest of their ends; nothing if it has none, as far as
    /// its mirror is filled.
    pub(crate) fn size_and_end(
        &self,
        union: &SetKey,
        list: ListName,
        now: SystemTime,
    ) -> Option<(usize, Lease)> {
        let (mut number, mut latest) = (0_usize, None);
        self.mirrors.whole(&self.set_of(union, list))?.each(now, |_, lease| {
            number = number.saturating_add(usize::from(!lease.is_due(now)));
            latest = latest.max(Some(lease));
        });
        latest.filter(|_| number > 0).map(|latest| (number, latest))
    }

    /// How many entries a list of a scope has, those included that may have ended; as far as its mirror is
    /// filled.
    pub(crate) fn size_at_most(&self, union: &SetKey, list: ListName) -> usize {
        self.mirrors.whole(&self.set_of(union, list)).map_or(0, Mirror::len)
    }

    /// How many entries of a list of a scope have not ended; as far as its mirror is filled.
    pub(crate) fn size(&self, union: &SetKey, list: ListName, now: SystemTime) -> usize {
        self.mirrors.whole(&self.set_of(union, list)).map_or(0, |mirror| mirror.unended(now))
    }

    /// Whether a list has the entry of a rule, as far as the mirrors are filled.
    pub(crate) fn has(&self, union: &SetKey, rule: &Rule, list: ListName, now: SystemTime) -> bool {
        let mirror = self.mirrors.whole(&self.set_of(union, list));
        mirror.is_some_and(|mirror| mirror.end(&element(rule), now).is_some())
    }

    /// How many entries of a set are known to be there, and whether others may have changed that.
    pub(crate) fn alive_in(&self, set: &SetKey, now: SystemTime) -> (usize, bool) {
        let count = self.mirrors.known(set).map_or(0, |mirror| mirror.alive(now));
        (count, self.mirrors.whole(set).is_some())
    }

    /// Destroys the set of a list that is empty, unless it is being listed, a rule refers to it, or
    /// others have emptied it and what it held is to come back.
    ///
    /// # Errors
    /// The kernel refuses it for another reason.
    pub(crate) fn drop_list(
        &mut self,
        union: &SetKey,
        list: ListName,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let set = self.set_of(union, list);
        if !self.has_list(&set) || !self.is_empty(&set, now)? {
            return Ok(());
        }
        match self.destroy(&set.name()) {
            Err(FirewallError::Set(_, IpsetError::Busy)) => Ok(()),
            destroyed => destroyed.map(drop),
        }
    }

    /// Whether a set is there and empty, and nothing is to come back to it.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn is_empty(&mut self, set: &SetKey, now: SystemTime) -> Result<bool, FirewallError> {
        Ok(self.own_size(set)? == Some(0) && self.is_spent(set, now))
    }

    /// Destroys the sets of named lists that are empty.
    ///
    /// # Errors
    /// As for [`Sets::drop_list`].
    pub(crate) fn drop_empty_lists(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let all: Vec<_> = self.lists.iter().map(|(union, lists)| (union.clone(), lists.clone())).collect();
        for (union, lists) in all {
            for list in lists.into_iter().filter(|list| list.is_named()) {
                self.drop_list(&union, list, now)?;
            }
        }
        Ok(())
    }

    /// Whether a set may have an entry that holds this address or network. For a host the kernel
    /// tries all prefix lengths by itself, for a network each is asked for.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn may_hold(&mut self, set: &SetKey, network: &Network) -> Result<bool, FirewallError> {
        if network.family() != set.family() {
            return Ok(false);
        }
        if set.side() == Side::Both {
            return Ok(true);
        }
        let name = name_of(set)?;
        let shortest = if network.is_host() { network.prefix() } else { 1 };
        for prefix in shortest..=network.prefix() {
            let Ok(around) = Network::new(network.addr(), prefix) else { continue };
            let tested = self.ipset.test(&name, Element::Net(around), deadline());
            if tested.map_err(|error| of(set, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the set of a list may hold an address: it does, or is not known well enough.
    pub(crate) fn may_list(&self, set: &SetKey, network: &Network, now: SystemTime) -> bool {
        self.mirrors.whole(set).is_none() || !self.held(set, network, now).is_empty()
    }

    fn held(&self, set: &SetKey, network: &Network, now: SystemTime) -> Vec<(Rule, Label)> {
        let (mut found, list) = (Vec::new(), set.list().unwrap_or_default());
        let Some(mirror) = self.mirrors.whole(set).filter(|_| set.family() == network.family()) else {
            return found;
        };
        let mut hold = |element: Element<'static>, lease: Lease| {
            found.extend(rule_of(set, &element).map(|rule| (rule, Label::new(lease, list))));
        };
        if set.side() == Side::Both {
            mirror.each(now, |element, lease| {
                if matches!(&element, Element::NetNet(a, b) if a.covers(network) || b.covers(network)) {
                    hold(element, lease);
                }
            });
            return found;
        }
        for prefix in (1..=network.prefix()).rev() {
            let Ok(around) = Network::new(network.addr(), prefix) else { continue };
            let element = Element::Net(around);
            mirror.end(&element, now).into_iter().for_each(|lease| hold(element, lease));
        }
        found
    }

    /// Marks the sets of a list and of its scope as to be read anew.
    pub(super) fn doubt_both(&mut self, set: &SetKey, union: &SetKey) {
        self.doubt(set);
        self.doubt(union);
    }

    /// Has the mirror of a set filled anew that may be wrong; a union is compared with its lists then.
    pub(super) fn doubt(&mut self, set: &SetKey) {
        self.mirrors.doubt(set);
        self.unsettle(set);
    }

    /// Has the union of a set's scope compared with its lists once all are read.
    pub(super) fn unsettle(&mut self, set: &SetKey) {
        let union = set.union();
        if self.has_lists(&union) {
            self.unsettled.insert(union);
        }
    }
}
