//! Migration at startup: addresses move between rules and set entries after a change of
//! the option `ipset`, and unused sets are destroyed.

use super::entries::check_lease;
use super::sets::{self, Registered, Sets, is_like, is_like_ours};
use super::{Firewall, FirewallError};
use crate::firewall::table::{Plan, Table};
use crate::kernel::ipset::{IpsetError, SetInfo};
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::{self, SetKey, Side};
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Rule, SetUse, Target};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

impl Firewall {
    /// Converts rules to set entries, or set entries to rules, as the option `ipset` says;
    /// inserts missing rules of sets that have entries, destroys empty sets, and gives sets
    /// the configured maximum of entries.
    ///
    /// # Errors
    /// A table or set can't be read or changed, or the entries would exceed `rules.max`.
    pub(crate) fn migrate(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        self.put_where_it_belongs()?;
        self.tables.iter_mut().for_each(Table::settle);
        self.known.extend(self.linked_sets());
        // The kernel counts the entries of each set for it: once is enough.
        let infos = self.sets.as_mut().map_or_else(|| Ok(Vec::new()), Sets::infos)?;
        if self.sets.is_some() {
            let registered = self.sets()?.registered()?;
            self.take_on_all(&infos, &registered, now)?;
        }
        for family in self.families() {
            self.table(family)?.refresh()?;
            match self.settings.set_use {
                _ if self.sets.is_none() => {}
                SetUse::On => self.move_rules(family, |_| true, now)?,
                SetUse::Auto => self.move_many_to_sets(family, now)?,
                SetUse::Off => self.move_sets_to_rules(family, now)?,
            }
            if self.by_precedence() {
                self.put_in_order(family)?;
            }
        }
        self.destroy_unused_sets(&infos, false, &[])?;
        self.known = self.linked_sets().into_iter().collect();
        self.warn_of_forward_chain();
        Ok(())
    }

    /// Has the log tell where rules of `forward` stand, if not where they should.
    fn warn_of_forward_chain(&self) {
        for note in self.families().into_iter().filter_map(|family| self.forward_note(family)) {
            log::warn!("forward.chain: {note}");
        }
    }

    /// Finds the sets that are rfw's, gives those with entries their rules, and takes them on.
    fn take_on_all(
        &mut self,
        infos: &[SetInfo],
        registered: &Registered,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let own = self.own_sets(infos, registered);
        let (lists, unions): (Vec<SetKey>, Vec<SetKey>) =
            own.into_iter().partition(|set| set.list().is_some());
        for set in lists {
            if self.sets()?.own_size(&set)?.is_some_and(|size| size > 0) {
                self.sets()?.know_list(&set);
            }
        }
        self.check_rules_of_entries(&unions, now)?;
        unions.iter().try_for_each(|set| self.link_if_used(set))?;
        for union in self.sets()?.unions() {
            match self.link(&union) {
                Err(error @ FirewallError::ForeignSet(_)) => log::warn!("{error}"),
                linked => linked?,
            }
        }
        if self.settings.set_use == SetUse::Off {
            return Ok(());
        }
        for union in self.linked_sets() {
            for set in self.sets()?.sets_of(&union) {
                self.take_on(&set, infos, now)?;
            }
        }
        Ok(())
    }

    /// Gives a set its place in the registry, the configured room, and a mirror.
    fn take_on(&mut self, set: &SetKey, infos: &[SetInfo], now: SystemTime) -> Result<(), FirewallError> {
        let name = set.name();
        let info = match infos.iter().find(|info| info.header.name == name) {
            Some(info) => Some(info.clone()),
            None => self.sets()?.own_info(set)?,
        };
        let Some(info) = info else { return Ok(()) };
        let sets = self.sets()?;
        sets.note(set, &info);
        if !is_like(&info, set) {
            log::warn!("{}", FirewallError::ForeignSet(name));
            return Ok(());
        }
        sets.register(set)?;
        self.resize(set, &info, now)?;
        self.sets()?.mirror(set);
        Ok(())
    }

    /// The existing sets that are registered as rfw's, and that are as rfw makes them. Where there
    /// can be no registry, the names tell instead; so they do of the lists of a union that has a rule,
    /// if others have taken them out of the registry.
    fn own_sets(&self, infos: &[SetInfo], registered: &Registered) -> Vec<SetKey> {
        let (families, linked) = (self.families(), self.linked_sets());
        let list_of_linked = |name: &str| {
            SetKey::named(name).filter(|set| set.list().is_some() && linked.contains(&set.union()))
        };
        let own = infos.iter().filter_map(|info| {
            let name = info.header.name.as_str();
            let set = match registered {
                Registered::Whole(members) => match members.get(name) {
                    Some(member) => member.clone(),
                    None => list_of_linked(name),
                },
                Registered::Missing => list_of_linked(name),
                Registered::Unavailable => SetKey::named(name),
            };
            set.filter(|set| is_like(info, set) && families.contains(&set.family()))
        });
        own.collect()
    }

    /// Checks that converting all set entries to rules does not exceed `rules.max`.
    fn check_rules_of_entries(&mut self, unions: &[SetKey], now: SystemTime) -> Result<(), FirewallError> {
        if self.settings.set_use != SetUse::Off {
            return Ok(());
        }
        let unions: BTreeSet<SetKey> = self.linked_sets().into_iter().chain(unions.iter().cloned()).collect();
        for family in self.families() {
            let mut sets = Vec::new();
            for union in unions.iter().filter(|union| union.family() == family) {
                sets.extend(self.sets()?.list_sets(union));
            }
            let mut entries = 0_usize;
            for set in &sets {
                entries = entries.saturating_add(self.sets()?.own_size(set)?.unwrap_or_default());
            }
            let rules = self.table(family)?.cache().len();
            if entries == 0 || rules.saturating_add(entries) <= self.settings.rules_max {
                continue;
            }
            // A start that was cut short may have made rules of some of them.
            let labelled = self.table(family)?.cache().labelled();
            let mut all: HashSet<(Rule, ListName)> =
                labelled.map(|(rule, label)| (rule.clone(), label.list)).collect();
            for set in &sets {
                let rules = self.sets()?.rules(set, now, |_| true)?;
                all.extend(rules.into_iter().map(|(rule, label)| (rule, label.list)));
            }
            if all.len() > self.settings.rules_max {
                return Err(FirewallError::TooManyEntries(family, all.len(), self.settings.rules_max));
            }
        }
        Ok(())
    }

    /// Gives a set the room that is configured now, unless it holds more already.
    fn resize(&mut self, set: &SetKey, info: &SetInfo, now: SystemTime) -> Result<(), FirewallError> {
        let sets = self.sets()?;
        match info.maxelem == sets.maxelem() && info.comments {
            true => Ok(()),
            false if info.elements <= sets.maxelem() => match sets.resize(set, sets.maxelem(), now) {
                Err(FirewallError::ForeignSet(name)) => {
                    log::warn!("{name} has entries that rfw has not made: it keeps its room");
                    Ok(())
                }
                Err(FirewallError::Set(_, IpsetError::Busy)) => {
                    log::warn!("{} is being listed by another program: it keeps its room", set.name());
                    Ok(())
                }
                resized => resized,
            },
            false => {
                let size = info.elements;
                log::warn!("{} has {size} entries, more than ipset.maxelem: it keeps its room", set.name());
                if info.comments { Ok(()) } else { sets.resize(set, info.maxelem, now) }
            }
        }
    }

    /// Converts the rules that are wanted to entries of their lists, with their remaining time. A rule
    /// goes once its entry is there: no packet passes meanwhile.
    pub(super) fn move_rules(
        &mut self,
        family: Family,
        wanted: impl Fn(&Rule) -> bool,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let mut entries: HashMap<SetKey, Vec<(Rule, Label)>> = HashMap::new();
        let rules: Vec<(Rule, Label)> = {
            let found =
                self.table(family)?.cache().find(|rule, label| wanted(rule) && !label.lease.is_due(now));
            found.into_iter().map(|(rule, label)| (rule.clone(), label.clone())).collect()
        };
        for (rule, label) in rules {
            let set = SetKey::of(&rule);
            match check_lease(label.lease, now) {
                Ok(()) if self.sets()?.supports(&set)? => entries.entry(set).or_default().push((rule, label)),
                Ok(()) => {}
                Err(_) => log::warn!("stays a rule, since a set can't hold it that long: {rule}, {label}"),
            }
        }
        entries.iter().try_for_each(|(set, entries)| self.check_room_for(set, entries))?;
        for (set, entries) in &mut entries {
            // Of two that are the same in a list, the later end counts.
            entries.sort_by_cached_key(|(_, label)| label.lease);
            self.load(set, entries, now)?;
        }
        let moved: HashSet<(&Rule, &Label)> =
            entries.values().flatten().map(|(rule, label)| (rule, label)).collect();
        self.change(family, Plan::FromKernel, |cache, transaction| {
            let old = cache.find(|rule, label| moved.contains(&(rule, label)));
            old.iter().for_each(|(rule, label)| transaction.delete(rule, label));
        })?;
        if !moved.is_empty() {
            log::info!("rules of {family} that are entries of sets now: {}", moved.len());
        }
        Ok(())
    }

    /// Puts entries into the lists of a scope that are rules yet.
    pub(super) fn load(
        &mut self,
        union: &SetKey,
        entries: &[(Rule, Label)],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        self.link(union)?;
        let lists: BTreeSet<ListName> = entries.iter().map(|(_, label)| label.list).collect();
        // A named list first: from then on the unnamed one has a set of its own too.
        for list in lists.into_iter().rev() {
            self.open_list(union, list, entries.len(), now)?;
        }
        self.sets()?.load(union, entries, now)
    }

    /// Checks that a set has room for rules that are to become its entries, before anything is
    /// changed. Some may be entries already: a start may have been cut short. Pairs are left to the
    /// kernel.
    fn check_room_for(&mut self, set: &SetKey, entries: &[(Rule, Label)]) -> Result<(), FirewallError> {
        if set.side() == Side::Both {
            return Ok(());
        }
        let mut networks: Vec<Network> =
            entries.iter().filter_map(|(rule, _)| rule.networks().next()).copied().collect();
        networks.sort_unstable();
        networks.dedup();
        let sets = self.sets()?;
        let (size, room) = (sets.size_with(set, &networks)?, sets.room(set));
        match u32::try_from(size).is_ok_and(|size| size <= room) {
            true => Ok(()),
            false => Err(FirewallError::Full(room)),
        }
    }

    /// Converts set entries to rules with their remaining time, one for each list.
    fn move_sets_to_rules(&mut self, family: Family, now: SystemTime) -> Result<(), FirewallError> {
        // `SetKey` sorts ACCEPT first. Each rule is inserted at the head of its chain, so in
        // reverse order the ACCEPT rules come last and end up first.
        let unions: Vec<SetKey> =
            self.linked_sets().into_iter().filter(|set| set.family() == family).rev().collect();
        let (mut moved, mut kept) = (Vec::<(Rule, Label)>::new(), HashSet::new());
        for union in &unions {
            let lists = self.sets()?.list_sets(union);
            for set in self.sets()?.sets_of(union) {
                let Some(size) = self.sets()?.own_size(&set)? else {
                    // A set that others have swapped in is theirs, whatever its name is.
                    kept.insert(set);
                    continue;
                };
                // Beside lists, the union has nothing of its own.
                if !lists.contains(&set) {
                    continue;
                }
                let rules = self.sets()?.rules(&set, now, |_| true)?;
                if rules.len() < size {
                    kept.insert(set);
                }
                moved.extend(rules);
            }
        }
        self.change(family, Plan::FromKernel, |cache, transaction| {
            // An interrupted migration may have converted some of them already.
            let new = moved.iter().filter(|(rule, label)| cache.labels(rule, label.list).is_empty());
            new.for_each(|(rule, label)| transaction.insert(rule, label, 1));
            if !moved.is_empty() {
                move_exceptions_to_head(&cache.find(|_, _| true), transaction);
            }
            let moved_sets = cache.rules_of_sets().filter(|set| unions.contains(set));
            moved_sets.for_each(|set| transaction.delete_set(set));
        })?;
        for union in &unions {
            for set in self.sets()?.sets_of(union).iter().rev() {
                self.destroy_moved(set, kept.contains(set))?;
            }
        }
        if !moved.is_empty() {
            log::info!("entries of sets that are rules of {family} now: {}", moved.len());
            self.warn_if_many_rules();
        }
        Ok(())
    }

    /// Destroys a set whose entries are rules now.
    fn destroy_moved(&mut self, set: &SetKey, has_others: bool) -> Result<(), FirewallError> {
        let name = set.name();
        if has_others {
            if !self.sets()?.is_there(&name)? {
                return Ok(());
            }
            log::warn!("the set {name} stays, since rfw has not made all that is in it");
        } else if let Err(error) = self.sets()?.destroy(&name) {
            // What is a rule now is not to come back from there.
            let FirewallError::Set(_, IpsetError::Busy) = error else { return Err(error) };
            log::warn!("the set {name} stays and is empty, since a rule that is not of rfw uses it");
            self.sets()?.flush(&name)?;
        }
        Ok(())
    }

    /// Destroys the empty sets of rfw and, with `all`, those that have entries but no rule.
    /// Those that were `linked` by a rule until now are rfw's too. A set that a foreign rule refers to
    /// is kept. Returns the number of entries destroyed.
    pub(super) fn destroy_unused_sets(
        &mut self,
        infos: &[SetInfo],
        all: bool,
        linked: &[SetKey],
    ) -> Result<usize, FirewallError> {
        if self.sets.is_none() {
            return Ok(0);
        }
        let is_empty = |set: &SetKey| {
            infos
                .iter()
                .any(|info| info.header.name == set.name() && is_like(info, set) && info.elements == 0)
        };
        let mut empty = Vec::new();
        for set in self.linked_sets().into_iter().filter(is_empty) {
            // Rules may have become entries since, and what others took out of a union comes back from its
            // lists.
            if !self.sets()?.has_lists(&set) && self.sets()?.own_size(&set)? == Some(0) {
                empty.push(set);
            }
        }
        for family in self.families() {
            self.change(family, Plan::FromKernel, |cache, transaction| {
                let unused = cache.rules_of_sets().filter(|set| empty.contains(set));
                unused.for_each(|set| transaction.delete_set(set));
            })?;
        }
        let linked_now = self.linked_sets();
        let sets = self.sets()?;
        // The lists of a union too, which may have been empty when `infos` were read.
        let used: HashSet<String> =
            linked_now.iter().flat_map(|union| sets.sets_of(union)).map(|set| set.name()).collect();
        let mut registered = sets.registered()?;
        let linked = linked.iter().map(|set| (set.name(), Some(set.clone())));
        match &mut registered {
            Registered::Whole(members) => members.extend(linked),
            Registered::Missing if all => registered = Registered::Whole(linked.collect()),
            Registered::Missing | Registered::Unavailable => {}
        }
        let mut count = 0;
        for info in infos.iter().filter(|info| !used.contains(&info.header.name)) {
            count += self.destroy_unused_set(info, &registered, all)?;
        }
        self.sets()?.destroy_empty_registry(infos)?;
        Ok(count)
    }

    /// Destroys a set that no rule of rfw uses, if it is one of rfw's.
    fn destroy_unused_set(
        &mut self,
        info: &SetInfo,
        registered: &Registered,
        all: bool,
    ) -> Result<usize, FirewallError> {
        let (name, size) = (info.header.name.as_str(), sets::size(info));
        let is_named = SetKey::named(name).is_some_and(|set| is_like(info, &set))
            || set_key::is_hashed_name(name) && is_like_ours(info);
        let (is_own, is_work) = match registered {
            Registered::Whole(members) => match members.get(name) {
                Some(Some(set)) => (is_like(info, set), false),
                Some(None) => (false, is_like_ours(info)),
                // What is left over when others have emptied all sets, and the registry with them.
                None => (is_named && size == 0 && all, false),
            },
            Registered::Missing => (false, set_key::is_work_name(name) && is_like_ours(info)),
            Registered::Unavailable => (is_named, set_key::is_work_name(name) && is_like_ours(info)),
        };
        if matches!(registered, Registered::Whole(members) if members.contains_key(name))
            && !is_own
            && !is_work
        {
            self.sets()?.release(name)?;
        }
        // It may be gone by now: its entries have become rules.
        if is_named && !is_own && self.sets()?.is_there(name)? {
            let next = if self.may_have_sets() {
                ", but the next request for its interfaces takes it over"
            } else {
                ""
            };
            log::warn!(
                "the set {name} with {size} entries has no rule of rfw and is not in its registry: it is left \
                 alone{next}; ipset destroy takes it away"
            );
        }
        if !is_work && !(is_own && (size == 0 || all)) {
            return Ok(0);
        }
        match self.sets()?.destroy(name) {
            Err(FirewallError::Set(_, IpsetError::Busy)) if all && is_own => {
                log::warn!("the set {name} stays and is empty, since a rule that is not of rfw uses it");
                self.sets()?.flush(name)?;
                Ok(size)
            }
            Err(FirewallError::Set(_, IpsetError::Busy)) => {
                log::warn!("the set {name} stays, since a rule that is not of rfw uses it");
                Ok(0)
            }
            Err(error) => Err(error),
            Ok(destroyed) => Ok(if destroyed && !is_work { size } else { 0 }),
        }
    }
}

/// Plans to move the ACCEPT rules to the head of their chains, with their order kept.
fn move_exceptions_to_head(rules: &[(&Rule, &Label)], transaction: &mut Transaction) {
    let exceptions = rules.iter().filter(|(rule, _)| rule.scope().target() == Target::Accept);
    exceptions.clone().for_each(|(rule, label)| transaction.delete(rule, label));
    let mut put = HashSet::new();
    for (rule, label) in exceptions.rev().filter(|exception| put.insert(*exception)) {
        transaction.insert(rule, label, 1);
    }
}
