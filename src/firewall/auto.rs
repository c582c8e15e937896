//! `ipset = auto`: addresses begin as rules, which `iptables -L` shows. Where they become many, those of
//! a scope become entries of a set, which stays until it is empty.

use super::entries::check_lease;
use super::rule_cache::RuleCache;
use super::{Firewall, FirewallError};
use crate::firewall::table::Plan;
use crate::kernel::ipset::IpsetError;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Family;
use crate::rule::{Rule, SetUse};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The most addresses of a scope that are rules.
const SCOPE_MAX: usize = 100;

/// The most addresses of a family that are rules.
const FAMILY_MAX: usize = 200;

/// Where the addresses of a scope would be kept after a change.
pub(super) enum Place {
    /// They are rules, where so many others become entries first.
    Rules { fewer: usize },
    /// They become entries.
    NewSet,
    /// They are entries.
    Set,
}

impl Firewall {
    /// Where addresses of a scope would be kept that are about to be put into a list: what
    /// [`Firewall::make_sets`] would do, from tables as they are now.
    ///
    /// # Errors
    /// A table or set can't be read.
    pub(super) fn place_of<R: Borrow<Rule>>(
        &mut self,
        set: &SetKey,
        new: impl Iterator<Item = R>,
        list: ListName,
        now: SystemTime,
    ) -> Result<Place, FirewallError> {
        let mut fewer = 0_usize;
        self.table(set.family())?.refresh()?;
        if self.is_for_sets(set)? {
            return Ok(Place::Set);
        }
        if self.settings.set_use != SetUse::Auto || self.sets.is_none() {
            return Ok(Place::Rules { fewer });
        }
        let cache = self.table(set.family())?.cache();
        let more = count_new(cache, new, list);
        if cache.len().saturating_add(more) <= SCOPE_MAX {
            return Ok(Place::Rules { fewer });
        }
        let mut sizes = self.sizes_of_scopes(set.family(), now)?;
        if self.sets()?.can_be_made(set)? {
            *sizes.entry(set.clone()).or_default() += more;
        }
        while let Some(largest) = largest_of_too_many(&sizes) {
            if largest == *set {
                return Ok(Place::NewSet);
            }
            fewer = fewer.saturating_add(sizes.remove(&largest).unwrap_or_default());
        }
        Ok(Place::Rules { fewer })
    }

    /// Makes a set of a scope, or of others, if there would be too many rules with those that are
    /// about to be put into a list.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(super) fn make_sets<R: Borrow<Rule>>(
        &mut self,
        set: &SetKey,
        new: impl Iterator<Item = R>,
        list: ListName,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if self.settings.set_use != SetUse::Auto || self.sets.is_none() || self.is_for_sets(set)? {
            return Ok(());
        }
        let cache = self.table(set.family())?.cache();
        let more = count_new(cache, new, list);
        if cache.len().saturating_add(more) <= SCOPE_MAX {
            return Ok(());
        }
        loop {
            let mut sizes = self.sizes_of_scopes(set.family(), now)?;
            if self.sets()?.can_be_made(set)? {
                *sizes.entry(set.clone()).or_default() += more;
            }
            let Some(largest) = largest_of_too_many(&sizes) else { return Ok(()) };
            self.move_to_set(&largest, now)?;
            if largest == *set {
                return Ok(());
            }
        }
    }

    /// Makes sets of scopes that have too many rules, as after a change of the option.
    ///
    /// # Errors
    /// As for [`Firewall::make_sets`].
    pub(super) fn move_many_to_sets(&mut self, family: Family, now: SystemTime) -> Result<(), FirewallError> {
        // Rules of a scope that has a set are left over of a start that was cut short.
        for set in self.sizes_of_rules(family, now)?.into_keys() {
            if self.is_for_sets(&set)? {
                self.move_to_set(&set, now)?;
            }
        }
        while let Some(largest) = largest_of_too_many(&self.sizes_of_scopes(family, now)?) {
            self.move_to_set(&largest, now)?;
        }
        Ok(())
    }

    /// The number of rules of each scope that could be a set.
    fn sizes_of_scopes(
        &mut self,
        family: Family,
        now: SystemTime,
    ) -> Result<BTreeMap<SetKey, usize>, FirewallError> {
        let mut sizes = self.sizes_of_rules(family, now)?;
        let mut fixed = Vec::new();
        for set in sizes.keys() {
            if !self.sets.as_mut().map_or(Ok(false), |sets| sets.can_be_made(set))? {
                fixed.push(set.clone());
            }
        }
        sizes.retain(|set, _| !fixed.contains(set));
        Ok(sizes)
    }

    fn sizes_of_rules(
        &mut self,
        family: Family,
        now: SystemTime,
    ) -> Result<BTreeMap<SetKey, usize>, FirewallError> {
        Ok(sizes(self.table(family)?.cache().labelled(), now))
    }

    /// Makes entries of the rules of one scope.
    fn move_to_set(&mut self, set: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        self.move_rules(set.family(), |rule| SetKey::of(rule) == *set, now)?;
        // It may have had no rule yet.
        self.link(set)
    }

    /// Takes sets away that are empty: with few addresses, those of the scope are rules again.
    ///
    /// # Errors
    /// As for [`Firewall::make_sets`].
    pub(super) fn release_empty_sets(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        if self.settings.set_use != SetUse::Auto {
            return Ok(());
        }
        for union in self.linked_sets() {
            let sets = self.sets()?;
            let mut empty = true;
            for set in sets.sets_of(&union) {
                empty = empty && sets.is_empty(&set, now)?;
            }
            if empty {
                self.release_set(&union)?;
            }
        }
        Ok(())
    }

    fn release_set(&mut self, union: &SetKey) -> Result<(), FirewallError> {
        self.change(union.family(), Plan::FromKernel, |cache, transaction| {
            cache.rules_of_sets().filter(|set| *set == union).for_each(|set| transaction.delete_set(set));
        })?;
        self.known.remove(union);
        let sets = self.sets()?;
        // The union last: while it is there, what is in a list is blocked.
        for set in sets.sets_of(union).iter().rev() {
            match sets.destroy(&set.name()) {
                Err(FirewallError::Set(_, IpsetError::Busy)) => {
                    log::debug!("{}: it is empty and stays, since others use it", set.name());
                }
                destroyed => drop(destroyed?),
            }
        }
        log::info!("{}: empty, and taken away", union.name());
        Ok(())
    }
}

/// How many rules a list does not have. More than [`FAMILY_MAX`] are too many, however many they are.
fn count_new<R: Borrow<Rule>>(cache: &RuleCache, new: impl Iterator<Item = R>, list: ListName) -> usize {
    new.filter(|rule| cache.labels(rule.borrow(), list).is_empty()).take(FAMILY_MAX + 1).count()
}

/// The number of rules of each scope that can become entries. One that is due is about to go, and one
/// that ends too late for a set stays a rule: neither makes a scope smaller by becoming a set.
fn sizes<'a>(rules: impl Iterator<Item = (&'a Rule, &'a Label)>, now: SystemTime) -> BTreeMap<SetKey, usize> {
    let mut sizes: BTreeMap<SetKey, usize> = BTreeMap::new();
    for (rule, _) in rules.filter(|(_, label)| may_move(label, now)) {
        *sizes.entry(SetKey::of(rule)).or_default() += 1;
    }
    sizes
}

/// Whether a rule with that label can become an entry of a set.
pub(super) fn may_move(label: &Label, now: SystemTime) -> bool {
    !label.lease.is_due(now) && check_lease(label.lease, now).is_ok()
}

/// The scope that is to become a set next, if there are too many rules: that with the most.
pub(super) fn largest_of_too_many(sizes: &BTreeMap<SetKey, usize>) -> Option<SetKey> {
    let total: usize = sizes.values().sum();
    let (set, size) = sizes.iter().max_by_key(|(_, size)| **size)?;
    (*size > SCOPE_MAX || total > FAMILY_MAX).then(|| set.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::lease::{Lease, Moment, SET_LONGEST};
    use crate::rule::rule_of;
    use std::time::Duration;

    #[test]
    fn only_rules_that_can_become_entries_make_a_scope_a_set() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let rule = rule_of("/drop/input/any/1.2.3.4");
        let until = |seconds| {
            Lease::Until(Moment::at_or_after(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
        };
        for (lease, count) in [
            (Lease::Permanent, 1),
            (until(1_001), 1),
            (until(1_000 + SET_LONGEST), 1),
            (until(1_000), 0),
            (until(999), 0),
            (until(1_001 + SET_LONGEST), 0),
        ] {
            let label = Label::new(lease, ListName::UNNAMED);
            let sizes = sizes([(&rule, &label)].into_iter(), now);
            assert_eq!(sizes.values().sum::<usize>(), count, "{lease:?}");
        }
    }

    #[test]
    fn the_largest_scope_becomes_a_set_where_there_are_too_many_rules() {
        type Scopes = &'static [(&'static str, usize)];
        let golden: [(Scopes, Option<&str>); 7] = [
            (&[], None),
            (&[("any", 100)], None),
            (&[("any", 101)], Some("any")),
            (&[("any", 100), ("eth0", 100)], None),
            (&[("any", 70), ("eth0", 71), ("eth1", 60)], Some("eth0")),
            (&[("any", 90), ("eth0", 10), ("eth1", 101)], Some("eth1")),
            (&[("any", 90), ("eth0", 90)], None),
        ];
        for (scopes, expected) in golden {
            let key = |interface: &str| SetKey::of(&rule_of(&format!("/drop/input/{interface}/1.2.3.4")));
            let sizes = scopes.iter().map(|(interface, size)| (key(interface), *size)).collect();
            assert_eq!(largest_of_too_many(&sizes), expected.map(key), "{scopes:?}");
        }
    }
}
