//! Addresses as rules, one for each list that has them.

use super::family_list::{FamilyList, is_in_scope};
use super::rule_cache::{CachedRule, RuleCache};
use super::{Firewall, FirewallError, ListResult, Outcome, Terms};
use crate::firewall::table::Plan;
use crate::kernel::iptables::{Change, Transaction};
use crate::kernel::program::ProgramError;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Rule, Scope, SetUse, Target};
use std::collections::HashSet;
use std::iter;

const CHAINS: [Chain; 3] = [Chain::Input, Chain::Forward, Chain::Output];

/// The most rules that are changed at a time where all at once are too long.
const PART_MAX: usize = 1024;

/// Parts of a change after which there is no less left to do, while others edit.
const ATTEMPTS: usize = 5;

impl Firewall {
    /// Whether accept comes before reject, and reject before drop; else what is put in last comes
    /// first.
    pub(super) fn by_precedence(&self) -> bool {
        self.settings.set_use != SetUse::Off
    }

    /// Inserts or renews the rule of one list.
    pub(super) fn insert_rule(
        &mut self,
        rule: &Rule,
        label: &Label,
        plan_from: Plan,
    ) -> Result<Outcome, FirewallError> {
        let (by_precedence, rules_max) = (self.by_precedence(), self.settings.rules_max);
        if by_precedence {
            let is_new = self.table(rule.family())?.cache().labels(rule, label.list).is_empty();
            self.require_numbers(rule.family(), rule.scope(), !is_new)?;
        }
        let outcome = self.change(rule.family(), plan_from, |cache, transaction| {
            plan_rule(cache, transaction, rule, label, by_precedence, rules_max)
        })??;
        self.check_order_behind(rule.family(), rule.scope())?;
        Ok(outcome)
    }

    /// Mends the order after a rule of that scope was inserted at a number, if it was.
    pub(super) fn check_order_behind(&mut self, family: Family, scope: &Scope) -> Result<(), FirewallError> {
        match self.table(family)?.cache().number_for(scope) > 1 {
            true => self.check_order(family),
            false => Ok(()),
        }
    }

    /// Makes sure that the next change of a table knows the number of a rule of that scope, and of
    /// those that it deletes.
    fn require_numbers(&mut self, family: Family, scope: &Scope, deletes: bool) -> Result<(), FirewallError> {
        let table = self.table(family)?;
        match scope.target() {
            // At the head of the chain.
            Target::Accept => {}
            Target::Reject | Target::Drop if deletes => table.invalidate(),
            Target::Reject | Target::Drop => table.require_numbers(scope),
        }
        Ok(())
    }

    /// Inserts or renews the rules of a body in their list, and deletes what else the list has where
    /// it is to be replaced, in one transaction.
    pub(super) fn insert_rules(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
    ) -> Result<ListResult, FirewallError> {
        let (family, by_precedence) = (list.set.family(), self.by_precedence());
        if by_precedence {
            self.require_numbers(family, list.set.scope(), true)?;
        }
        let result = self.change(family, Plan::FromCache, |cache, transaction| {
            plan_body(cache, transaction, list, terms, by_precedence)
        })?;
        self.check_order_behind(family, list.set.scope())?;
        if terms.replace {
            self.forget_whole(list, terms.list)?;
        }
        Ok(result)
    }

    /// Has nothing else come back of a list that is replaced.
    fn forget_whole(&mut self, list: &FamilyList, name: ListName) -> Result<(), FirewallError> {
        let scope = list.set.scope();
        self.forget_lost(list.set.family(), |rule, label| label.list == name && is_in_scope(rule, scope))?;
        Ok(())
    }

    /// Checks that a body does not exceed `rules.max` with the rules that stay.
    pub(super) fn check_rules(&mut self, list: &FamilyList, terms: &Terms) -> Result<(), FirewallError> {
        let rules_max = self.settings.rules_max;
        if list.networks.len() > rules_max {
            return Err(FirewallError::TooManyRules(rules_max));
        }
        let mut fits = false;
        // Others may have deleted rules that the cache still counts.
        for plan_from in [Plan::FromCache, Plan::FromKernel] {
            fits = fits
                || self.change(list.set.family(), plan_from, |cache, _| {
                    has_room(cache, list, terms, rules_max)
                })?;
        }
        if fits { Ok(()) } else { Err(FirewallError::TooManyRules(rules_max)) }
    }

    /// Takes networks out of a list. Gives those that were there.
    pub(super) fn delete_rules(
        &mut self,
        list: &FamilyList,
        name: ListName,
    ) -> Result<HashSet<Network>, FirewallError> {
        let mut present = self.change(list.set.family(), Plan::FromKernel, |cache, transaction| {
            let present = list.present(cache, name);
            delete_copies(&present, transaction);
            networks(&present)
        })?;
        let lost = self.forget_listed(list, name)?;
        present.extend(lost.iter().flat_map(|(rule, _)| rule.networks().copied()));
        Ok(present)
    }

    /// Moves the rules of targets that come first to the head of their chains, where others stand before
    /// them.
    pub(super) fn put_in_order(&mut self, family: Family) -> Result<(), FirewallError> {
        self.table(family)?.invalidate();
        self.change(family, Plan::FromKernel, plan_order)
    }

    /// Mends the order where others have edited the table since the last reading, be it while rfw was
    /// about to insert a rule at a number.
    ///
    /// # Errors
    /// The table can't be read or changed.
    pub(super) fn check_order(&mut self, family: Family) -> Result<(), FirewallError> {
        if !self.by_precedence() || self.table(family)?.is_current() {
            return Ok(());
        }
        self.table(family)?.refresh()?;
        self.mend_order(family)
    }

    /// Puts what others have brought out of order, as last read, in order again.
    pub(super) fn mend_order(&mut self, family: Family) -> Result<(), FirewallError> {
        let by_precedence = self.by_precedence();
        let cache = self.table(family)?.cache();
        if !by_precedence || CHAINS.into_iter().all(|chain| cache.is_in_order(chain)) {
            return Ok(());
        }
        self.put_in_order(family)?;
        log::warn!(
            "rules of {family} stood before those that come first, since others edit the table: put in order"
        );
        Ok(())
    }

    /// Has flushed rules of the addresses of a body not come back. Gives them.
    pub(super) fn forget_listed(
        &mut self,
        list: &FamilyList,
        name: ListName,
    ) -> Result<Vec<(Rule, Label)>, FirewallError> {
        let is_listed = |rule: &Rule| {
            is_in_scope(rule, list.set.scope())
                && rule.networks().any(|network| list.networks.binary_search(network).is_ok())
        };
        self.forget_lost(list.set.family(), |rule, label| label.list == name && is_listed(rule))
    }

    /// Deletes what rules a list has in the scope of a body, as in a scope that has a set after others
    /// have brought rules back.
    pub(super) fn delete_whole(&mut self, list: &FamilyList, name: ListName) -> Result<(), FirewallError> {
        self.change(list.set.family(), Plan::FromCache, |cache, transaction| {
            delete_copies(&list.whole(cache, name), transaction);
        })?;
        self.forget_whole(list, name)
    }

    /// Does what `plan` says in one transaction or, where that is too long, in as few as may be: each is
    /// the beginning of what is left to do then. Gives what `told` makes of each.
    pub(super) fn change_in_parts<T>(
        &mut self,
        family: Family,
        plan: impl Fn(&RuleCache, &mut Transaction),
        told: impl Fn(&[Change]) -> T,
    ) -> Result<Vec<T>, FirewallError> {
        let (mut done, mut most) = (Vec::new(), usize::MAX);
        let (mut before, mut attempts) = (usize::MAX, ATTEMPTS);
        loop {
            let changed = self.change(family, Plan::FromKernel, |cache, transaction| {
                plan(cache, transaction);
                let left = transaction.changes().len();
                transaction.truncate(most);
                (left, told(transaction.changes()))
            });
            match changed {
                Ok((left, part)) => {
                    done.push(part);
                    if left < most {
                        return Ok(done);
                    }
                    // Others undo what is done, or the kernel tells it otherwise.
                    attempts = attempts.saturating_sub(usize::from(left >= before));
                    if attempts == 0 {
                        return Err(ProgramError::Contended.into());
                    }
                    before = left;
                }
                Err(error) if error.is_too_long() && most > 1 => {
                    most = (most / 2).min(PART_MAX);
                }
                Err(error) => return Err(error),
            }
            // Of two that are the same, the cache has let go both.
            self.table(family)?.invalidate();
        }
    }

    /// The networks of a body by family; with `all`, also the families that it has nothing of.
    pub(super) fn by_family(
        &self,
        scope: &Scope,
        list: &[Network],
        all: bool,
    ) -> Result<Vec<FamilyList>, FirewallError> {
        let mut lists = Vec::new();
        for family in [Family::V4, Family::V6] {
            let networks: Vec<Network> = list.iter().copied().filter(|n| n.family() == family).collect();
            let is_available = self.families().contains(&family);
            if networks.is_empty() && !(all && is_available) {
                continue;
            }
            if !is_available {
                return Err(FirewallError::NoFamily(family));
            }
            lists.push(FamilyList::new(scope, family, networks));
        }
        Ok(lists)
    }
}

/// Plans to insert or renew the rule of one list.
pub(super) fn plan_rule(
    cache: &RuleCache,
    transaction: &mut Transaction,
    rule: &Rule,
    label: &Label,
    by_precedence: bool,
    rules_max: usize,
) -> Result<Outcome, FirewallError> {
    let copies = cache.copies_of(iter::once(rule.clone()), label.list);
    if label.lease == Lease::Permanent && matches!(copies.as_slice(), [(_, copy)] if copy.label() == label) {
        return Ok(Outcome::Unchanged);
    }
    if copies.is_empty() && cache.len() >= rules_max {
        return Err(FirewallError::TooManyRules(rules_max));
    }
    let number = if by_precedence { cache.number_without(rule.scope(), &copies) } else { 1 };
    delete_copies(&copies, transaction);
    transaction.insert(rule, label, number);
    Ok(match copies.as_slice() {
        [] => Outcome::Inserted,
        // But for the reason.
        [(_, copy)] if [copy.label().lease, label.lease] == [Lease::Permanent; 2] => Outcome::Unchanged,
        _ => Outcome::Refreshed,
    })
}

/// Plans to insert or renew the rules of a body, and to delete what else the list has if it is to be
/// replaced.
pub(super) fn plan_body(
    cache: &RuleCache,
    transaction: &mut Transaction,
    list: &FamilyList,
    terms: &Terms,
    by_precedence: bool,
) -> ListResult {
    let old = old_rules(cache, list, terms);
    let number = if by_precedence { cache.number_without(list.set.scope(), &old) } else { 1 };
    delete_copies(&old, transaction);
    for network in &list.networks {
        if let Some(rule) = list.rule(network) {
            transaction.insert(&rule, &terms.label(network), number);
        }
    }
    let (present, removed) = split(list, &old);
    ListResult { removed, ..list.count(present) }
}

/// Plans to move what comes before drop to the head of its chain, where the order is wrong: that can't
/// go wrong, whatever others do meanwhile, as with a rule number.
fn plan_order(cache: &RuleCache, transaction: &mut Transaction) {
    for chain in CHAINS.into_iter().filter(|chain| !cache.is_in_order(*chain)) {
        let moved = |target| move |scope: &Scope| (scope.chain(), scope.target()) == (chain, target);
        for is_moved in [Target::Reject, Target::Accept].map(moved) {
            let rules = cache.find_copies(|rule, _| is_moved(rule.scope()));
            let sets: Vec<_> = cache.rules_of_sets().filter(|set| is_moved(set.scope())).collect();
            delete_copies(&rules, transaction);
            sets.iter().for_each(|set| transaction.delete_set(set));
            // Each is put at the head, so the last one comes first.
            sets.iter().for_each(|set| transaction.insert_set(set, 1));
            rules.iter().rev().for_each(|(rule, copy)| transaction.insert(rule, copy.label(), 1));
        }
    }
}

/// Whether a body is within `rules.max` together with the rules that stay, or makes them no more.
pub(super) fn has_room(cache: &RuleCache, list: &FamilyList, terms: &Terms, rules_max: usize) -> bool {
    let (present, removed) = split(list, &old_rules(cache, list, terms));
    let stays = cache.len().saturating_sub(present.saturating_add(removed));
    let after = stays.saturating_add(list.networks.len());
    after <= rules_max || after <= cache.len()
}

/// The rules that are not to be there any more once a body is.
fn old_rules<'a>(cache: &'a RuleCache, list: &FamilyList, terms: &Terms) -> Vec<(&'a Rule, &'a CachedRule)> {
    if terms.replace { list.whole(cache, terms.list) } else { list.present(cache, terms.list) }
}

/// How many addresses of these rules are in a body, and how many are not.
fn split(list: &FamilyList, rules: &[(&Rule, &CachedRule)]) -> (usize, usize) {
    let all = networks(rules);
    let present = all.iter().filter(|network| list.networks.binary_search(network).is_ok()).count();
    (present, all.len().saturating_sub(present))
}

fn networks(rules: &[(&Rule, &CachedRule)]) -> HashSet<Network> {
    rules.iter().flat_map(|(rule, _)| rule.networks().copied()).collect()
}

/// Plans to delete these instances.
pub(super) fn delete_copies(copies: &[(&Rule, &CachedRule)], transaction: &mut Transaction) {
    copies.iter().for_each(|(rule, copy)| transaction.delete(rule, copy.label()));
}

#[cfg(test)]
mod tests;
