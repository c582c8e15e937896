//! How many entries the lists of a client have, which its right `entries.max` bounds, and what it may
//! not change of what a request would take away. Both are looked at before anything is changed.

use super::family_list::{FamilyList, is_in_scope};
use super::rule_cache::RuleCache;
use super::sets::Sets;
use super::table::Table;
use super::{Firewall, FirewallError, Held, WhichLists};
use crate::kernel::set_key::SetKey;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::rights::{Lists, MissingRight, Rights};
use crate::rule::{Rule, Scope};
use std::collections::HashSet;
use std::time::SystemTime;

impl Firewall {
    /// Refuses one more entry than a client may have.
    ///
    /// # Errors
    /// [`FirewallError::Right`], or that a table or set can't be read.
    pub(crate) fn check_one_more(
        &mut self,
        rights: &Rights,
        rule: &Rule,
        list: ListName,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let Some(most) = rights.entries_max else { return Ok(()) };
        // With tables as last read, so that it costs no more than the change: what others have taken away
        // meanwhile still counts.
        if self.entries_at_most(&rights.lists, now)? < most || self.holds(rule, list, now)? {
            return Ok(());
        }
        Ok(rights.check_entries(self.entries_now(&rights.lists, now)?.saturating_add(1))?)
    }

    /// Refuses a body with which a client would have more entries than it may; where it replaces a list,
    /// what that holds in the scope goes.
    ///
    /// # Errors
    /// As for [`Firewall::check_one_more`].
    pub(crate) fn check_more(
        &mut self,
        rights: &Rights,
        (scope, list): (&Scope, ListName),
        networks: &[Network],
        replace: bool,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let Some(most) = rights.entries_max else { return Ok(()) };
        // The body alone may be too much, and needs no look at the kernel then.
        rights.check_entries(networks.len())?;
        let room = most.saturating_sub(networks.len());
        if self.entries_at_most(&rights.lists, now)? <= room {
            return Ok(());
        }
        let held = self.entries_now(&rights.lists, now)?;
        let there = match replace {
            true => self.entries_in(scope, list, now),
            false => self.present(scope, list, networks, now)?,
        };
        Ok(rights.check_entries(held.saturating_sub(there).saturating_add(networks.len()))?)
    }

    /// Refuses to take an address away where a client sees it in a list or scope that it may not change.
    ///
    /// # Errors
    /// As for [`Firewall::check_one_more`].
    pub(crate) fn check_rows_of(
        &mut self,
        rights: &Rights,
        address: &Network,
        which: WhichLists,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if rights.are_of_every_rule() {
            return Ok(());
        }
        self.refresh()?;
        let is_asked = |held: &Held| which.admits(held.list) && rights.sees(held.list);
        let of_rules = self.held_or_lost().into_iter().filter(is_asked);
        let mut of_rules = of_rules.filter(|held| held.rule.networks().any(|network| network == address));
        of_rules.try_for_each(|held| rights.check_rule(&held.rule, held.list))?;
        for union in self.unions()?.into_iter().filter(|union| union.family() == address.family()) {
            self.complete(&union, now)?;
            let sets = self.sets()?;
            for (rule, label) in sets.exactly(&union, address, now) {
                let is_there = which.admits(label.list) && sets.has(&union, &rule, label.list, now);
                if is_there && rights.sees(label.list) {
                    rights.check_rule(&rule, label.list)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses to take lists away of which a scope may not be changed.
    ///
    /// # Errors
    /// As for [`Firewall::check_one_more`].
    pub(crate) fn check_scopes_of(
        &mut self,
        rights: &Rights,
        which: WhichLists,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if rights.are_of_every_scope() {
            return Ok(());
        }
        self.refresh()?;
        let check = |scope: &Scope, list| {
            rights.check_part(scope, list).map_err(|right| match (right, which) {
                // The request has not named it.
                (MissingRight::Whole(_), WhichLists::All) => MissingRight::WholeOfAll,
                (right, _) => right,
            })
        };
        let mut of_rules = self.held_or_lost().into_iter().filter(|held| which.admits(held.list));
        of_rules.try_for_each(|held| check(held.rule.scope(), held.list))?;
        for (union, list) in self.whole_unions(|list| which.admits(list), now)? {
            if self.sets()?.size(&union, list, now) > 0 {
                check(union.scope(), list)?;
            }
        }
        Ok(())
    }

    /// The number of entries of lists, as tables were last read; what may have ended counts too.
    fn entries_at_most(&mut self, lists: &Lists, now: SystemTime) -> Result<usize, FirewallError> {
        let unions = self.whole_unions(|list| lists.admits(list), now)?;
        Ok(self.rules_at_most(lists).saturating_add(self.in_sets(&unions, Sets::size_at_most)))
    }

    /// The number of entries of lists.
    fn entries_now(&mut self, lists: &Lists, now: SystemTime) -> Result<usize, FirewallError> {
        self.refresh()?;
        let unions = self.whole_unions(|list| lists.admits(list), now)?;
        let of_sets = self.in_sets(&unions, |sets, union, list| sets.size(union, list, now));
        let of_rules = self.rules_at_most(lists).saturating_sub(self.ended_rules(lists, now));
        Ok(of_rules.saturating_add(of_sets))
    }

    /// The sets of lists that are `wanted`: each union with the list, whose mirrors are filled.
    pub(super) fn whole_unions(
        &mut self,
        wanted: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Vec<(SetKey, ListName)>, FirewallError> {
        let mut found = Vec::new();
        for union in self.unions()? {
            let mut lists = self.sets()?.lists_of(&union);
            lists.retain(|list| wanted(*list));
            if !lists.is_empty() {
                self.complete(&union, now)?;
                found.extend(lists.into_iter().map(|list| (union.clone(), list)));
            }
        }
        Ok(found)
    }

    /// The sum of a number of each list of a scope.
    fn in_sets(
        &self,
        lists: &[(SetKey, ListName)],
        number: impl Fn(&Sets, &SetKey, ListName) -> usize,
    ) -> usize {
        let sets = self.sets.iter();
        sets.flat_map(|sets| lists.iter().map(|(union, list)| number(sets, union, *list))).sum()
    }

    /// The number of rules of lists, those included that have ended and are not swept yet, and those that
    /// others have flushed and that come back.
    fn rules_at_most(&self, lists: &Lists) -> usize {
        let lost = self.lost().filter(|held| lists.admits(held.list)).count();
        let sizes = self.tables.iter().flat_map(|table| table.cache().sizes());
        sizes.filter(|(list, _)| lists.admits(*list)).map(|(_, size)| size).fold(lost, usize::saturating_add)
    }

    /// The number of rules of lists that have ended and are not swept yet.
    fn ended_rules(&self, lists: &Lists, now: SystemTime) -> usize {
        let has_ended = |cache: &RuleCache, rule: &Rule, list| {
            cache.labels(rule, list).iter().all(|label| label.lease.is_due(now))
        };
        let of_table = |table: &Table| {
            let due = table.cache().labelled().filter(|(_, label)| label.lease.is_due(now));
            let due: HashSet<(&Rule, ListName)> = due.map(|(rule, label)| (rule, label.list)).collect();
            let ended = due.into_iter().filter(|(_, list)| lists.admits(*list));
            ended.filter(|(rule, list)| has_ended(table.cache(), rule, *list)).count()
        };
        self.tables.iter().map(of_table).sum()
    }

    /// The rules that others have flushed and that come back in a moment.
    pub(super) fn lost(&self) -> impl Iterator<Item = Held> {
        let lost = self.tables.iter().flat_map(|table| table.memory().lost());
        lost.map(|(rule, label)| Held { rule: rule.clone(), lease: label.lease, list: label.list })
    }

    /// What rules hold, as last read, and those that come back in a moment.
    fn held_or_lost(&self) -> Vec<Held> {
        self.held_by_rules().into_iter().chain(self.lost()).collect()
    }

    /// The number of entries that a list has in a scope, where a body would replace it.
    fn entries_in(&mut self, scope: &Scope, list: ListName, now: SystemTime) -> usize {
        let of_rules =
            self.held_by_rules().into_iter().filter(|held| !held.lease.is_due(now)).chain(self.lost());
        let of_rules = of_rules.filter(|held| held.list == list && is_in_scope(&held.rule, scope)).count();
        let unions = [Family::V4, Family::V6].map(|family| (FamilyList::key(scope, family), list));
        of_rules.saturating_add(self.in_sets(&unions, |sets, union, list| sets.size(union, list, now)))
    }

    /// How many of the networks a list has in a scope.
    fn present(
        &mut self,
        scope: &Scope,
        list: ListName,
        networks: &[Network],
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let mut count = 0_usize;
        for family_list in self.by_family(scope, networks, false)? {
            for rule in family_list.rules() {
                count = count.saturating_add(usize::from(self.holds(&rule, list, now)?));
            }
        }
        Ok(count)
    }

    /// Whether a list has that rule, as last read.
    fn holds(&mut self, rule: &Rule, list: ListName, now: SystemTime) -> Result<bool, FirewallError> {
        let table = self.table(rule.family())?;
        let is_rule = table.cache().labels(rule, list).iter().any(|label| !label.lease.is_due(now))
            || table.memory().lost().iter().any(|(other, label)| other == rule && label.list == list);
        let sets = self.sets.as_ref();
        Ok(is_rule || sets.is_some_and(|sets| sets.has(&SetKey::of(rule), rule, list, now)))
    }
}
