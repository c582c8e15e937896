//! The white list in force: the rules that guard rfw's port, rules and entries that it
//! forbids, and what is put back when others have removed it.

use super::entries::ConflictingEntry;
use super::{Firewall, FirewallError};
use crate::firewall::rule_cache::RuleCache;
use crate::firewall::table::Plan;
use crate::kernel::guard::Guard;
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::network::Family;
use crate::rule::whitelist::WhiteList;
use std::time::SystemTime;

/// Rules of one family that a white list forbids, each with its label and its number in
/// its chain, in ascending order.
type Conflicts = (Family, Vec<(Rule, Label, usize)>);

impl Firewall {
    /// Puts a white list into force: its networks alone may reach the port, rules and
    /// entries that touch them go. Gives those removed. Where a step fails, those before
    /// it are taken back.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(crate) fn guard(
        &mut self,
        port: Option<u16>,
        list: &WhiteList,
        now: SystemTime,
    ) -> Result<Vec<Rule>, FirewallError> {
        // All is read before anything is changed.
        self.link_all()?;
        if let Some(Err(error)) = self.sets.is_some().then(|| self.check_sets(now)) {
            log::warn!("sets can't be looked after: {error}");
        }
        let entries = self.conflicting_entries(list, now)?;
        for family in self.families() {
            if let Err(error) = self.put_guards(family, port, list) {
                self.roll_back_guards();
                return Err(error);
            }
        }
        let conflicts = self.conflicts(list);
        let removed = self.remove_conflicts(&conflicts, &entries, now);
        if let Err(error) = removed {
            self.put_back(&conflicts);
            self.roll_back_guards();
            return Err(error);
        }
        self.guarded = Some((port, list.clone()));
        if log::log_enabled!(log::Level::Debug) {
            self.compare_mirrors(now);
        }
        // Others may have put entries in the place of as many: those are in no mirror.
        for union in self.linked_sets() {
            let sets = self.sets()?;
            sets.sets_of(&union).iter().for_each(|set| sets.look_again(set));
        }
        let rules = conflicts.into_iter().flat_map(|(_, rules)| rules).map(|(rule, _, _)| rule);
        Ok(rules.chain(entries.into_iter().map(|entry| entry.rule)).collect())
    }

    /// Has the debug log tell whether the mirrors are as the kernel has the sets.
    fn compare_mirrors(&mut self, now: SystemTime) {
        for union in self.linked_sets() {
            for set in self.sets.as_ref().map_or(Vec::new(), |sets| sets.sets_of(&union)) {
                if let Some(Err(error)) = self.sets.as_mut().map(|sets| sets.compare_all(&set, now)) {
                    log::debug!("the mirror can't be compared: {error}");
                }
            }
        }
    }

    /// Reads all tables, and gives sets with entries their rule back that have lost it:
    /// else what they hold would escape the white list.
    fn link_all(&mut self) -> Result<(), FirewallError> {
        self.refresh()?;
        if self.sets.is_some() {
            let known: Vec<SetKey> = self.known.iter().cloned().collect();
            known.iter().try_for_each(|set| self.link_if_used(set))?;
        }
        self.refresh()
    }

    fn put_guards(
        &mut self,
        family: Family,
        port: Option<u16>,
        list: &WhiteList,
    ) -> Result<(), FirewallError> {
        let wanted = guards(port, list, family);
        self.change(family, Plan::FromKernel, |cache, transaction| {
            replace_guards(cache, transaction, &wanted);
        })?;
        let table = self.table(family)?;
        if table.cache().rules().any(|rule| list.conflict(rule).is_some()) {
            // Numbers of rules are those of a reading.
            table.invalidate();
            table.refresh()?;
        }
        Ok(())
    }

    /// The rules that a white list forbids, as last read.
    fn conflicts(&self, list: &WhiteList) -> Vec<Conflicts> {
        let conflicts = self.tables.iter().map(|table| {
            let found = table.cache().find_numbered(|rule| list.conflict(rule).is_some());
            (table.family(), found)
        });
        conflicts.collect()
    }

    fn remove_conflicts(
        &mut self,
        conflicts: &[Conflicts],
        entries: &[ConflictingEntry],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        for (family, rules) in conflicts {
            self.change(*family, Plan::FromKernel, |cache, transaction| {
                let there = rules.iter().filter(|(rule, label, _)| cache.has(rule, label));
                there.for_each(|(rule, label, _)| transaction.delete(rule, label));
            })?;
        }
        self.remove_entries(entries, now)
    }

    /// Puts rules back at the numbers that they had.
    fn put_back(&mut self, conflicts: &[Conflicts]) {
        for (family, rules) in conflicts {
            let put_back = self.change(*family, Plan::FromKernel, |cache, transaction| {
                let missing =
                    rules.iter().filter(|(rule, label, _)| cache.labels(rule, label.list).is_empty());
                missing.for_each(|(rule, label, number)| transaction.insert(rule, label, *number));
            });
            if let Err(error) = put_back {
                log::error!("rules of {family} that a refused white list forbids can't be put back: {error}");
            }
        }
    }

    /// Puts the guards of the white list back that is in force. At the start there is
    /// none: there the new guards stay.
    fn roll_back_guards(&mut self) {
        let Some((port, list)) = self.guarded.clone() else { return };
        for family in self.families() {
            let before = guards(port, &list, family);
            let table = self.tables.iter_mut().find(|table| table.family() == family);
            table.into_iter().for_each(|table| table.invalidate());
            let taken_back = self.change(family, Plan::FromKernel, |cache, transaction| {
                if !cache.is_guarded(&before) {
                    replace_guards(cache, transaction, &before);
                }
            });
            if let Err(error) = taken_back {
                log::error!("the old white list can't be put back for {family} yet: {error}");
            }
        }
    }

    /// Reads the tables anew where others may have changed them, and puts back what
    /// they have removed: the guard, and the rules of sets that have entries.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(crate) fn check_tables(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let mut failed: Option<FirewallError> = None;
        for family in self.families() {
            if failed.as_ref().is_some_and(FirewallError::is_timeout) {
                break;
            }
            if let Err(error) = self.check_table(family) {
                failed = failed.or(Some(error));
            }
        }
        let sets = if self.sets.is_some() { self.check_sets(now) } else { Ok(()) };
        failed.or(sets.err()).map_or(Ok(()), Err)
    }

    /// Puts the registry of sets back, and finds mirrors that others have made wrong.
    fn check_sets(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let registry = self.sets()?.check_registry();
        for union in self.linked_sets() {
            for set in self.sets()?.sets_of(&union) {
                self.sets()?.verify(&set, now)?;
            }
        }
        self.release_empty_sets()?;
        let renewed = self.sets()?.renew(now)?;
        if renewed > 0 {
            log::debug!("{renewed} entries that end later than the kernel can count are renewed");
        }
        registry
    }

    fn check_table(&mut self, family: Family) -> Result<(), FirewallError> {
        self.table(family)?.refresh()?;
        if let Some((port, list)) = self.guarded.clone() {
            let wanted = guards(port, &list, family);
            if !self.table(family)?.cache().is_guarded(&wanted) {
                let port = port.unwrap_or_default();
                log::warn!("the rules that guard port {port} on {family} are not as they were: put back");
                self.change(family, Plan::FromKernel, |cache, transaction| {
                    replace_guards(cache, transaction, &wanted);
                })?;
            }
        }
        let known: Vec<SetKey> = self.known.iter().filter(|set| set.family() == family).cloned().collect();
        known.iter().try_for_each(|set| self.link_if_used(set))
    }
}

/// The rules of one family that guard a port.
fn guards(port: Option<u16>, list: &WhiteList, family: Family) -> Vec<Guard> {
    let networks = list.networks().filter(|network| network.family() == family);
    port.map_or_else(Vec::new, |port| Guard::all(port, networks))
}

/// Plans the rules that guard a port in place of those there are, chain by chain: in the
/// order of a reading.
fn replace_guards(cache: &RuleCache, transaction: &mut Transaction, wanted: &[Guard]) {
    for output in [false, true] {
        let guards = cache.guards().iter().filter(|guard| guard.is_output() == output);
        guards.for_each(|guard| transaction.delete_guard(*guard));
    }
    transaction.insert_guards(wanted);
}
