//! How many entries the lists of a client have, which its right `entries.max` bounds, and what it may
//! not change of what a request would take away. Both are looked at before anything is changed.

use super::family_list::{FamilyList, is_in_scope};
use super::{Firewall, FirewallError, Held, WhichLists};
use crate::kernel::set_key::SetKey;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::rights::{Lists, Rights};
use crate::rule::{Rule, Scope};
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
        let held = self.entries_of(&rights.lists, most.saturating_sub(1), now)?;
        if held < most || self.holds(rule, list, now)? {
            return Ok(());
        }
        Ok(rights.check_entries(held.saturating_add(1))?)
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
        let held = self.entries_of(&rights.lists, room, now)?;
        if held <= room {
            return Ok(());
        }
        let there = match replace {
            true => self.entries_in(scope, list, now)?,
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
        self.refresh()?;
        let is_asked = |held: &Held| which.admits(held.list) && rights.sees(held.list);
        let of_rules = self.held_by_rules().into_iter().filter(is_asked);
        let of_rules = of_rules.filter(|held| held.rule.networks().any(|network| network == address));
        of_rules.into_iter().try_for_each(|held| rights.check_rule(&held.rule, held.list))?;
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
        let lists = self.lists(now)?.into_iter().filter(|summary| which.admits(summary.list));
        Ok(lists.into_iter().try_for_each(|summary| rights.check_scope(&summary.scope, summary.list))?)
    }

    /// The number of entries of lists. What may have ended counts where that is at most `enough`.
    fn entries_of(&mut self, lists: &Lists, enough: usize, now: SystemTime) -> Result<usize, FirewallError> {
        self.refresh()?;
        let of_rules = self.held_by_rules().into_iter().filter(|held| lists.admits(held.list)).count();
        let mut unions = self.unions()?;
        unions.iter().try_for_each(|union| self.complete(union, now))?;
        unions.retain(|union| {
            self.sets.as_ref().is_some_and(|sets| sets.lists_of(union).iter().any(|list| lists.admits(*list)))
        });
        let Some(sets) = &self.sets else { return Ok(of_rules) };
        let at_most = unions.iter().flat_map(|union| sets.sizes_at_most(union));
        let at_most: usize = at_most.filter(|(list, _)| lists.admits(*list)).map(|(_, size)| size).sum();
        if of_rules.saturating_add(at_most) <= enough {
            return Ok(of_rules.saturating_add(at_most));
        }
        let sizes = unions.iter().flat_map(|union| sets.sizes(union, now));
        let alive: usize = sizes.filter(|(list, ..)| lists.admits(*list)).map(|(_, size, _)| size).sum();
        Ok(of_rules.saturating_add(alive))
    }

    /// The number of entries that a list has in a scope, where a body would replace it.
    fn entries_in(&mut self, scope: &Scope, list: ListName, now: SystemTime) -> Result<usize, FirewallError> {
        let of_rules = self.held_by_rules().into_iter();
        let mut count = of_rules.filter(|held| held.list == list && is_in_scope(&held.rule, scope)).count();
        for family in [Family::V4, Family::V6] {
            let union = FamilyList::key(scope, family);
            let sizes = self.sets.as_ref().map(|sets| sets.sizes(&union, now)).unwrap_or_default();
            let of_list = sizes.into_iter().filter(|(other, ..)| *other == list);
            count = count.saturating_add(of_list.map(|(_, size, _)| size).sum());
        }
        Ok(count)
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
        let is_rule = !self.table(rule.family())?.cache().labels(rule, list).is_empty();
        let sets = self.sets.as_ref();
        Ok(is_rule || sets.is_some_and(|sets| sets.has(&SetKey::of(rule), rule, list, now)))
    }
}
