//! What a change would do, for a request with `dry=true`: planned as the change itself would be, from tables
//! and sets as the kernel has them now, and then left. No rule, set or entry is made or taken away, and
//! nothing is noted for the state file. What others have just flushed may come back, as with any look.

use super::auto::{Place, may_move};
use super::family_list::{FamilyList, is_in_scope};
use super::rule_cache::RuleCache;
use super::rules::{has_room, plan_body, plan_rule};
use super::sets::ListOp;
use super::{Deleted, Firewall, FirewallError, Held, Inserted, ListResult, Outcome, Terms, WhichLists};
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Rule, Scope};
use std::collections::{BTreeSet, HashSet};
use std::iter;
use std::time::SystemTime;

impl Firewall {
    /// What [`Firewall::insert`] would do.
    ///
    /// # Errors
    /// Those of the change, as far as they can be told before.
    pub(crate) fn would_insert(
        &mut self,
        rule: &Rule,
        label: &Label,
        seen: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Inserted, FirewallError> {
        self.would_admit_list(label.list, now)?;
        let set = SetKey::of(rule);
        self.check_time(label.lease, now)?;
        let outcome = match self.place_of(&set, iter::once(rule), label.list, now)? {
            Place::Rules { fewer } => self.would_insert_rule(rule, label, fewer)?,
            Place::NewSet => would_become_entry(self.table(rule.family())?.cache(), rule, label, now),
            Place::Set => self.would_insert_entry(rule, &set, label, now)?,
        };
        Ok(Inserted { outcome, overridden_by: self.overriding(rule, seen, now) })
    }

    /// The same of an address that would be a rule, where so many others become entries first.
    fn would_insert_rule(
        &mut self,
        rule: &Rule,
        label: &Label,
        fewer: usize,
    ) -> Result<Outcome, FirewallError> {
        let rules_max = self.settings.rules_max.saturating_add(fewer);
        self.planned(rule.family(), |cache, transaction| {
            plan_rule(cache, transaction, rule, label, false, rules_max).map_err(|error| match error {
                FirewallError::TooManyRules(most) => FirewallError::TooManyRules(most.saturating_sub(fewer)),
                error => error,
            })
        })?
    }

    fn would_insert_entry(
        &mut self,
        rule: &Rule,
        set: &SetKey,
        label: &Label,
        now: SystemTime,
    ) -> Result<Outcome, FirewallError> {
        let result = self.mending(set, now, |sets| sets.would_put(set, rule, label, now))?;
        let outcome = result.of_put().unwrap_or(Outcome::Inserted);
        // A rule of the address would become this entry.
        let is_rule = !self.table(rule.family())?.cache().labels(rule, label.list).is_empty();
        Ok(if is_rule { Outcome::Refreshed } else { outcome })
    }

    /// What [`Firewall::delete`] would do.
    ///
    /// # Errors
    /// As for [`Firewall::would_insert`].
    pub(crate) fn would_delete(
        &mut self,
        rule: &Rule,
        list: ListName,
        seen: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Deleted, FirewallError> {
        let is_rule = self.planned(rule.family(), |cache, _| !cache.labels(rule, list).is_empty())?;
        let is_it = |held: &Held| held.rule == *rule && held.list == list;
        let is_there = is_rule || self.lost().any(|held| is_it(&held)) || self.has_entry(rule, list, now)?;
        let outcome = if is_there { Outcome::Deleted } else { Outcome::Absent };
        let still = self.still(rule, |held| seen(held.list) && !is_it(held), now);
        Ok(Deleted { outcome, still })
    }

    /// Whether a list has the address of a rule in a set.
    fn has_entry(&mut self, rule: &Rule, list: ListName, now: SystemTime) -> Result<bool, FirewallError> {
        let set = SetKey::of(rule);
        if !self.may_have_sets() || !self.has_own_set(&set)? {
            return Ok(false);
        }
        self.mending(&set, now, |sets| sets.would_take(&set, rule, list, now))
    }

    /// What [`Firewall::insert_all`] would do.
    ///
    /// # Errors
    /// As for [`Firewall::would_insert`].
    pub(crate) fn would_insert_all(
        &mut self,
        scope: &Scope,
        networks: &[Network],
        terms: &Terms,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        self.would_admit_list(terms.list, now)?;
        self.check_time(terms.lease, now)?;
        let (lists, mut places) = (self.by_family(scope, networks, terms.replace)?, Vec::new());
        for list in &lists {
            places.push(self.place_of(&list.set, list.rules(), terms.list, now)?);
        }
        for (list, place) in lists.iter().zip(&places) {
            self.would_have_room(list, terms, place, now)?;
        }
        let mut total = ListResult::default();
        for (list, place) in lists.iter().zip(&places) {
            total.add(match place {
                Place::Rules { .. } => self.planned(list.set.family(), |cache, transaction| {
                    plan_body(cache, transaction, list, terms, false)
                })?,
                Place::NewSet => {
                    would_become_entries(self.table(list.set.family())?.cache(), list, terms, now)
                }
                Place::Set => self.would_insert_entries(list, terms, now)?,
            });
        }
        Ok(total)
    }

    /// Checks that a body would have room.
    fn would_have_room(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
        place: &Place,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        match place {
            Place::Set => {
                if terms.replace && self.has_set_of(&list.set, terms.list)? {
                    self.read_list(&list.set, terms.list, now)?;
                }
                self.check_room(list, terms, now)
            }
            Place::NewSet => {
                let size = entries_after(self.table(list.set.family())?.cache(), list, terms, now);
                let room = self.sets()?.maxelem();
                let fits = u32::try_from(size).is_ok_and(|size| size <= room);
                if fits { Ok(()) } else { Err(FirewallError::Full(room)) }
            }
            Place::Rules { fewer } => {
                let (most, rules_max) =
                    (self.settings.rules_max.saturating_add(*fewer), self.settings.rules_max);
                let fits = list.networks.len() <= rules_max
                    && self.planned(list.set.family(), |cache, _| has_room(cache, list, terms, most))?;
                if fits { Ok(()) } else { Err(FirewallError::TooManyRules(rules_max)) }
            }
        }
    }

    fn would_insert_entries(
        &mut self,
        list: &FamilyList,
        terms: &Terms,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let as_rules = networks_of(list, self.table(list.set.family())?.cache(), terms.list);
        let op = ListOp::Put(terms);
        self.mending(&list.set, now, |sets| sets.would_apply(&list.set, &list.networks, op, &as_rules, now))
    }

    /// What [`Firewall::delete_all`] would do.
    ///
    /// # Errors
    /// As for [`Firewall::would_insert`].
    pub(crate) fn would_delete_all(
        &mut self,
        scope: &Scope,
        networks: &[Network],
        name: ListName,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let mut total = ListResult::default();
        for list in self.by_family(scope, networks, false)? {
            let mut as_rules = self.planned(list.set.family(), |cache, _| networks_of(&list, cache, name))?;
            let is_lost = |held: &Held| held.list == name && is_in_scope(&held.rule, scope);
            let lost: Vec<Held> = self.lost().filter(is_lost).collect();
            let lost = lost.iter().flat_map(|held| held.rule.networks().copied());
            as_rules.extend(lost.filter(|network| list.networks.binary_search(network).is_ok()));
            let in_set = self.may_have_sets() && self.has_own_set(&list.set)?;
            let op = ListOp::Delete(name);
            total.add(match in_set {
                true => self.mending(&list.set, now, |sets| {
                    sets.would_apply(&list.set, &list.networks, op, &as_rules, now)
                })?,
                false => list.count(as_rules.len()),
            });
        }
        Ok(total)
    }

    /// What [`Firewall::delete_lists`] would do.
    ///
    /// # Errors
    /// As for [`Firewall::would_insert`].
    pub(crate) fn would_delete_lists(
        &mut self,
        which: WhichLists,
        scope: Option<&Scope>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let is_wanted =
            |rule: &Rule, list| which.admits(list) && scope.is_none_or(|scope| is_in_scope(rule, scope));
        let mut count = self.rules_or_lost(is_wanted)?.len();
        for union in self.unions()? {
            if scope.is_some_and(|scope| FamilyList::key(scope, union.family()) != union) {
                continue;
            }
            for list in self.sets()?.lists_of(&union).into_iter().filter(|list| which.admits(*list)) {
                self.read_list(&union, list, now)?;
                count = count.saturating_add(self.sets()?.would_clear(&union, list, now));
            }
        }
        Ok(count)
    }

    /// What [`Firewall::delete_address`] would do.
    ///
    /// # Errors
    /// As for [`Firewall::would_insert`].
    pub(crate) fn would_delete_address(
        &mut self,
        address: &Network,
        wanted: impl Fn(&Rule, ListName) -> bool,
        now: SystemTime,
    ) -> Result<Vec<Held>, FirewallError> {
        let is_wanted =
            |rule: &Rule, list| wanted(rule, list) && rule.networks().any(|network| network == address);
        let mut deleted = self.rules_or_lost(is_wanted)?;
        for union in self.unions()?.into_iter().filter(|union| union.family() == address.family()) {
            self.complete(&union, now)?;
            for (rule, label) in self.sets()?.exactly(&union, address, now) {
                if wanted(&rule, label.list) && self.has_entry(&rule, label.list, now)? {
                    deleted.push(Held { rule, lease: label.lease, list: label.list });
                }
            }
        }
        Ok(deleted)
    }

    /// The rules that are wanted, and those that others have flushed and that come back in a moment.
    fn rules_or_lost(
        &mut self,
        wanted: impl Fn(&Rule, ListName) -> bool,
    ) -> Result<Vec<Held>, FirewallError> {
        let mut found = Vec::new();
        for family in self.families() {
            self.planned(family, |_, _| ())?;
        }
        found.extend(self.held_by_rules().into_iter().chain(self.lost()));
        found.retain(|held| wanted(&held.rule, held.list));
        Ok(found)
    }

    /// What a plan says, from the table as it is now.
    fn planned<T>(
        &mut self,
        family: Family,
        plan: impl Fn(&RuleCache, &mut Transaction) -> T,
    ) -> Result<T, FirewallError> {
        Ok(self.table(family)?.plan(plan)?)
    }

    /// Refuses a list more than there may be, where those that are empty are gone.
    fn would_admit_list(&mut self, list: ListName, now: SystemTime) -> Result<(), FirewallError> {
        if !list.is_named() || self.has_room_for_list(list) {
            return Ok(());
        }
        let in_sets = self.sets.as_mut().map_or_else(|| Ok(BTreeSet::new()), |sets| sets.used_lists(now))?;
        let in_rules = self.tables.iter().flat_map(|table| table.cache().lists());
        let names: HashSet<ListName> = in_rules.chain(in_sets).filter(|name| name.is_named()).collect();
        match names.contains(&list) || names.len() < self.settings.lists_max {
            true => Ok(()),
            false => Err(FirewallError::TooManyLists(self.settings.lists_max)),
        }
    }
}

/// The networks of a body that a list has as rules.
fn networks_of(list: &FamilyList, cache: &RuleCache, name: ListName) -> HashSet<Network> {
    list.present(cache, name).iter().flat_map(|(rule, _)| rule.networks().copied()).collect()
}

/// What comes of an address whose scope becomes a set with it.
fn would_become_entry(cache: &RuleCache, rule: &Rule, label: &Label, now: SystemTime) -> Outcome {
    let labels = cache.labels(rule, label.list);
    let is_moved = |label: &&&Label| may_move(label, now);
    match labels.iter().filter(is_moved).map(|label| label.lease).max() {
        _ if labels.is_empty() => Outcome::Inserted,
        Some(Lease::Permanent) if label.lease == Lease::Permanent => Outcome::Unchanged,
        _ => Outcome::Refreshed,
    }
}

/// The same of a body.
fn would_become_entries(cache: &RuleCache, list: &FamilyList, terms: &Terms, now: SystemTime) -> ListResult {
    let present = networks_of(list, cache, terms.list).len();
    let moved = list.whole(cache, terms.list).into_iter().filter(|(_, copy)| may_move(copy.label(), now));
    let moved: HashSet<&Network> = moved.flat_map(|(rule, _)| rule.networks()).collect();
    let gone = moved.iter().filter(|network| list.networks.binary_search(network).is_err()).count();
    ListResult { removed: if terms.replace { gone } else { 0 }, ..list.count(present) }
}

/// The number of entries of a scope that becomes a set with a body.
fn entries_after(cache: &RuleCache, list: &FamilyList, terms: &Terms, now: SystemTime) -> usize {
    let stays = |rule: &Rule, label: &Label| {
        SetKey::of(rule) == list.set && may_move(label, now) && !(terms.replace && label.list == terms.list)
    };
    let staying = cache.find(stays).into_iter().flat_map(|(rule, _)| rule.networks());
    staying.chain(&list.networks).collect::<HashSet<&Network>>().len()
}
