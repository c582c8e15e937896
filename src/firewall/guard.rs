//! The white list in force: the rules that guard rfw's port, rules and entries that it
//! forbids, and what is put back when others have removed it.

use super::entries::ConflictingEntry;
use super::sets::GuardSet;
use super::{Firewall, FirewallError};
use crate::firewall::rule_cache::RuleCache;
use crate::firewall::table::{Plan, Table};
use crate::kernel::guard::{self, Guard, Port};
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::network::{Family, Network};
use crate::rule::whitelist::WhiteList;
use std::collections::{HashSet, VecDeque};
use std::time::SystemTime;

/// The most networks of a family that have guard rules of their own. More are kept in a set, where
/// the kernel has some: every packet of the host is compared with each rule.
const NETWORKS_MAX: usize = 16;

/// The guard rules of a family that are wanted.
pub(super) struct Wanted {
    /// In the order of insertion.
    pub(super) rules: Vec<Guard>,
    /// Whether the set that they look packets up in has been changed for them.
    set_changed: bool,
}

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
        port: Option<Port>,
        list: &WhiteList,
        now: SystemTime,
    ) -> Result<Vec<Rule>, FirewallError> {
        // All is read before anything is changed.
        if let Err(error) = self.look(true, now) {
            log::warn!("what others have taken away can't be put back: {error}");
        }
        self.link_all()?;
        let entries = self.conflicting_entries(list, now)?;
        let used_sets = self.used_guard_sets();
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
        for (rule, label, _) in conflicts.iter().flat_map(|(_, rules)| rules) {
            self.note_gone(rule, label.list);
        }
        entries.iter().for_each(|entry| self.note_gone(&entry.rule, entry.label.list));
        if let Err(error) = self.drop_guard_sets(&used_sets) {
            log::warn!("a set that the guard does not need any more can't be taken away: {error}");
        }
        if log::log_enabled!(log::Level::Debug) {
            self.compare_mirrors(now);
        }
        // Others may have put entries in the place of as many: those are in no mirror.
        for union in self.linked_sets() {
            let sets = self.sets()?;
            sets.sets_of(&union).iter().for_each(|set| sets.look_again(set));
        }
        if port.is_some_and(|port| port.open) {
            self.let_blocks_come_first();
        }
        let rules = conflicts.into_iter().flat_map(|(_, rules)| rules).map(|(rule, _, _)| rule);
        Ok(rules.chain(entries.into_iter().map(|entry| entry.rule)).collect())
    }

    /// Moves a guard that is open for all behind what is blocked, see `stay.first`; where that fails, the background
    /// thread does it.
    fn let_blocks_come_first(&mut self) {
        // Where rules stand is known of a reading alone.
        self.tables.iter_mut().for_each(Table::invalidate);
        if let Err(error) = self.refresh() {
            log::debug!("the guard stays before what is blocked: {error}");
        }
        self.stay_first_after_change();
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
        port: Option<Port>,
        list: &WhiteList,
    ) -> Result<(), FirewallError> {
        // At a start the guard comes to the head of its chains again, and where it is not open for all any more.
        let is_open = |port: Option<Port>| port.is_some_and(|port| port.open);
        let anew = self.guarded.as_ref().is_none_or(|(before, _)| is_open(*before) != is_open(port));
        let wanted = self.wanted_guards(family, port, list)?.rules;
        self.change(family, Plan::FromKernel, |cache, transaction| {
            plan_guards(cache.guards(), transaction, &wanted, anew);
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
            if let Err(error) = self.put_guards_back(family, port, &list) {
                log::error!("the old white list can't be put back for {family} yet: {error}");
            }
        }
        if let Err(error) = self.drop_guard_sets(&[]) {
            log::error!("a set of the refused white list can't be taken away: {error}");
        }
    }

    fn put_guards_back(
        &mut self,
        family: Family,
        port: Option<Port>,
        list: &WhiteList,
    ) -> Result<(), FirewallError> {
        let before = self.wanted_guards(family, port, list)?.rules;
        self.table(family)?.invalidate();
        self.change(family, Plan::FromKernel, |cache, transaction| {
            plan_guards(cache.guards(), transaction, &before, false);
        })
    }

    /// The guard rules of a family for a white list, which are remembered. What they look up in a set is put into
    /// that, so that it is there before they are.
    pub(super) fn wanted_guards(
        &mut self,
        family: Family,
        port: Option<Port>,
        list: &WhiteList,
    ) -> Result<Wanted, FirewallError> {
        let wanted = self.make_guards(family, port, list)?;
        self.guards.insert(family, wanted.rules.clone());
        Ok(wanted)
    }

    fn make_guards(
        &mut self,
        family: Family,
        port: Option<Port>,
        list: &WhiteList,
    ) -> Result<Wanted, FirewallError> {
        let Some(port) = port else { return Ok(Wanted { rules: Vec::new(), set_changed: false }) };
        if port.open {
            return Ok(Wanted { rules: Guard::open(port.number), set_changed: false });
        }
        let (port, networks) = (port.number, list.merged(family));
        if networks.len() > NETWORKS_MAX {
            let filled = match &mut self.sets {
                Some(sets) => sets.fill_guard(family, &networks)?,
                None => GuardSet::Unavailable,
            };
            match filled {
                GuardSet::Unchanged | GuardSet::Changed => {
                    let set_changed = filled == GuardSet::Changed;
                    return Ok(Wanted { rules: Guard::with_set(port, family), set_changed });
                }
                GuardSet::Unavailable => self.warn_of_long_guard(family, &networks, "the kernel has no sets"),
                GuardSet::Foreign => {
                    let why = format!("there is a set {} that rfw has not made", guard::set_name(family));
                    self.warn_of_long_guard(family, &networks, &why);
                }
            }
        }
        Ok(Wanted { rules: Guard::all(port, networks.iter()), set_changed: false })
    }

    fn warn_of_long_guard(&mut self, family: Family, networks: &[Network], why: &str) {
        if !self.warned_guard {
            self.warned_guard = true;
            let count = networks.len();
            log::warn!(
                "the white list has {count} networks of {family}, each of which is a rule that every packet \
                 is compared with, since {why}"
            );
        }
    }

    /// The families whose guard looks packets up in a set, as last read.
    pub(super) fn used_guard_sets(&self) -> Vec<Family> {
        let uses_set = |cache: &RuleCache| cache.guards().iter().any(Guard::has_set);
        self.tables.iter().filter(|table| uses_set(table.cache())).map(Table::family).collect()
    }

    /// Takes the sets of the guard away that it does not use any more; those that are in
    /// `used_before` are rfw's, whatever the registry says.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) fn drop_guard_sets(&mut self, used_before: &[Family]) -> Result<(), FirewallError> {
        let used = self.used_guard_sets();
        let Some(sets) = &mut self.sets else { return Ok(()) };
        let unused = [Family::V4, Family::V6].into_iter().filter(|family| !used.contains(family));
        unused.into_iter().try_for_each(|family| sets.drop_guard(family, used_before.contains(&family)))
    }

    /// Looks at what others have done to sets, and puts back what is gone.
    pub(super) fn check_sets(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let looked = self.look_at_sets(now);
        self.release_empty_sets(now)?;
        let renewed = self.sets()?.renew(now)?;
        if renewed > 0 {
            log::debug!("{renewed} entries that end later than the kernel can count are renewed");
        }
        looked
    }

    /// Puts the guard of a family back where others have changed its rules or its set.
    fn check_guard(
        &mut self,
        family: Family,
        port: Option<Port>,
        list: &WhiteList,
    ) -> Result<(), FirewallError> {
        // The set comes first: where the table can't be read, its rules are likely to be there.
        let wanted = self.wanted_guards(family, port, list)?;
        self.table(family)?.refresh()?;
        let port = port.map(|port| port.number).unwrap_or_default();
        let is_guarded = is_guarded(self.table(family)?.cache().guards(), &wanted.rules);
        if wanted.set_changed && is_guarded {
            self.meter.note_repair();
            log::warn!("the set that guards port {port} on {family} is not as it was: put back");
        }
        if !is_guarded {
            log::warn!("the rules that guard port {port} on {family} are not as they were: put back");
            self.change(family, Plan::FromKernel, |cache, transaction| {
                plan_guards(cache.guards(), transaction, &wanted.rules, false);
            })?;
            self.meter.note_repair();
        }
        Ok(())
    }

    /// Mends what of a table is wrong without others having flushed it.
    pub(super) fn check_table(&mut self, family: Family) -> Result<(), FirewallError> {
        match self.guarded.take() {
            Some((port, list)) => {
                let checked = self.check_guard(family, port, &list);
                self.guarded = Some((port, list));
                checked?;
            }
            None => self.table(family)?.refresh()?,
        }
        // Moves what does not stand where the options say.
        self.change(family, Plan::InBackground, |_, _| ())?;
        let known: Vec<SetKey> = self.known.iter().filter(|set| set.family() == family).cloned().collect();
        known.iter().try_for_each(|set| self.link_if_used(set))?;
        self.mend_order(family)
    }
}

/// Plans the guard rules that are wanted, which are in the order of insertion, in place of those
/// there are. What may stay is left alone, unless all are to be made anew. Rules are deleted chain
/// by chain, in the order of a reading.
pub(super) fn plan_guards(
    there: &VecDeque<Guard>,
    transaction: &mut Transaction,
    wanted: &[Guard],
    anew: bool,
) {
    let kept = if anew { HashSet::new() } else { kept(there, wanted) };
    for output in [false, true] {
        let old = there.iter().filter(|guard| guard.is_output() == output && !kept.contains(*guard));
        old.for_each(|guard| transaction.delete_guard(*guard));
    }
    let new: Vec<Guard> = wanted.iter().filter(|guard| !kept.contains(*guard)).copied().collect();
    transaction.insert_guards(&new);
}

/// Whether nothing has to be changed for the guard rules that are wanted.
pub(super) fn is_guarded(there: &VecDeque<Guard>, wanted: &[Guard]) -> bool {
    let mut transaction = Transaction::default();
    plan_guards(there, &mut transaction, wanted, false);
    transaction.changes().is_empty()
}

/// The guard rules that may stay: in a chain that has those that accept, each once and in any
/// order, and then the one that drops, all that are wanted.
fn kept(there: &VecDeque<Guard>, wanted: &[Guard]) -> HashSet<Guard> {
    let (wanted, mut kept): (HashSet<Guard>, _) = (wanted.iter().copied().collect(), HashSet::new());
    for output in [false, true] {
        let chain: Vec<Guard> = there.iter().filter(|guard| guard.is_output() == output).copied().collect();
        let Some((last, accepts)) = chain.split_last() else { continue };
        let distinct: HashSet<&Guard> = accepts.iter().collect();
        let ends_well = last.is_drop() && wanted.contains(last);
        if ends_well && !accepts.iter().any(Guard::is_drop) && distinct.len() == accepts.len() {
            kept.extend(chain.into_iter().filter(|guard| wanted.contains(guard)));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::iptables::Change;

    fn accepts(networks: &str) -> Vec<Guard> {
        let networks: Vec<Network> = networks.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Guard::all(7393, networks.iter())
    }

    /// The guard rules as the table has them after they were inserted one after the other.
    fn table(inserted: &[Guard]) -> VecDeque<Guard> {
        let chain = |output| inserted.iter().rev().filter(move |guard| guard.is_output() == output).copied();
        chain(false).chain(chain(true)).collect()
    }

    /// The table after what is planned for it, and the number of changes.
    fn planned(there: &VecDeque<Guard>, wanted: &[Guard], anew: bool) -> (VecDeque<Guard>, usize) {
        let mut transaction = Transaction::default();
        plan_guards(there, &mut transaction, wanted, anew);
        let mut after = there.clone();
        for change in transaction.changes() {
            match change {
                Change::InsertGuard(guard) => after.push_front(*guard),
                Change::DeleteGuard(guard) => {
                    let at = after.iter().position(|there| there == guard).unwrap();
                    after.remove(at);
                }
                change => panic!("{change:?}"),
            }
        }
        (after, transaction.changes().len())
    }

    #[test]
    fn only_the_difference_is_planned() {
        let golden = [
            ("10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3", 0),
            ("10.0.0.1 10.0.0.3", "10.0.0.3 10.0.0.1", 0),
            ("10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3 10.0.0.5", 2),
            ("10.0.0.1 10.0.0.3", "10.0.0.3", 2),
            ("10.0.0.1 10.0.0.3", "10.0.0.5", 6),
            ("", "", 0),
        ];
        for (there, wanted, changes) in golden {
            let (there, wanted) = (table(&accepts(there)), accepts(wanted));
            let (after, count) = planned(&there, &wanted, false);
            assert_eq!(count, changes, "{wanted:?}");
            assert!(is_guarded(&after, &wanted), "{after:?}");
            assert_eq!(is_guarded(&there, &wanted), changes == 0);
            assert_eq!(planned(&there, &wanted, true).1, there.len() + wanted.len());
        }
        // From rules to a set and back, and to all addresses, the rule that drops stays.
        let (rules, set) = (accepts("10.0.0.1"), Guard::with_set(7393, Family::V4));
        let (open, none) = (Guard::open(7393), Vec::new());
        for (there, wanted) in
            [(&rules, &set), (&set, &rules), (&rules, &open), (&open, &set), (&rules, &none), (&none, &rules)]
        {
            let (after, count) = planned(&table(there), wanted, false);
            assert_eq!((after.len(), count), (wanted.len(), 4));
            assert!(is_guarded(&after, wanted), "{after:?}");
        }
    }

    #[test]
    fn guards_in_another_order_are_made_anew() {
        let wanted = accepts("10.0.0.1 10.0.0.3");
        let right = table(&wanted);
        let mut tables = vec![right.clone(); 5];
        // The rule that drops comes first, an accepting one last; one twice; none that drops; one of
        // another port.
        tables[0].swap(0, 2);
        tables[1].push_back(right[0]);
        tables[2].push_front(right[2]);
        tables[3].remove(2);
        tables[4].push_front(Guard::all(7394, [].iter())[0]);
        for there in tables {
            assert!(!is_guarded(&there, &wanted), "{there:?}");
            let (after, count) = planned(&there, &wanted, false);
            assert!(is_guarded(&after, &wanted) && after.len() == right.len(), "{there:?}");
            let of_input = there.iter().filter(|guard| !guard.is_output()).count();
            assert_eq!(count, of_input + 3, "{there:?}");
        }
    }
}
