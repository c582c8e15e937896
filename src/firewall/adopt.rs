//! What a start finds: addresses that were kept in the other way before the option
//! `ipset` was changed, and sets that nobody needs any more.

use super::entries::timeout;
use super::{Firewall, FirewallError};
use crate::ipset::{self, Set, Timeout};
use crate::iptables::Transaction;
use crate::lease::{Interval, Lease};
use crate::net::Family;
use crate::rule::{Rule, Target};
use crate::sets::Wish;
use crate::table::Trust;
use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

impl Firewall {
    /// Takes along what was kept in the other way before the option `ipset` was
    /// changed, and clears away sets that are empty or that no rule uses.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub fn adopt(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        for family in self.families() {
            self.table(family)?.refresh()?;
            match self.use_sets {
                true => self.move_rules_to_sets(family, now)?,
                false => self.move_sets_to_rules(family, now)?,
            }
        }
        self.clear_away()?;
        self.linked_sets().iter().try_for_each(|set| self.resize(set))
    }

    /// Gives a set the room that is configured now, unless it holds more already.
    fn resize(&mut self, set: &Set) -> Result<(), FirewallError> {
        let sets = self.sets()?;
        let (size, most) = sets.extent(&set.name())?;
        match most == sets.maxelem() {
            true => {}
            false if u32::try_from(size).is_ok_and(|size| size <= sets.maxelem()) => {
                sets.apply(set, &HashSet::new(), Wish::Delete, &HashSet::new())?;
            }
            false => {
                log::warn!("{} has {size} entries, more than ipset.maxelem: it keeps its room", set.name())
            }
        }
        Ok(())
    }

    /// What was kept as rules goes into sets, with what is left of its time.
    fn move_rules_to_sets(&mut self, family: Family, now: SystemTime) -> Result<(), FirewallError> {
        let mut entries: HashMap<Set, Vec<(String, Timeout)>> = HashMap::new();
        let mut moved: Vec<Rule> = Vec::new();
        let rules: Vec<(Rule, Lease)> = {
            let found = self.table(family)?.kept().find(|_, lease| !lease.is_due(now));
            found.into_iter().map(|(rule, lease)| (rule.clone(), lease)).collect()
        };
        for (rule, lease) in rules {
            let set = Set::of(&rule);
            match timeout(lease, now) {
                Ok(timeout) if self.is_for_sets(&set)? => {
                    entries.entry(set).or_default().push((ipset::element(&rule), timeout));
                    moved.push(rule);
                }
                Ok(_) => {}
                Err(_) => log::warn!("stays a rule, since a set can't hold it that long: {rule}, {lease}"),
            }
        }
        let moved: HashSet<Rule> = moved.into_iter().collect();
        for (set, entries) in &entries {
            self.link(set)?;
            self.sets()?.load(set, entries)?;
        }
        self.change(family, Trust::Kernel, |kept, transaction| {
            let (old, staying): (Vec<_>, Vec<_>) =
                kept.find(|_, _| true).into_iter().partition(|(rule, _)| moved.contains(rule));
            old.iter().for_each(|(rule, lease)| transaction.delete(rule, *lease));
            if has_exception_behind_block(&staying) {
                put_exceptions_in_front(&staying, transaction);
            }
        })?;
        if !moved.is_empty() {
            log::info!("rules of {family} that are entries of sets now: {}", moved.len());
        }
        Ok(())
    }

    /// What was kept in sets becomes rules, with what is left of its time.
    fn move_sets_to_rules(&mut self, family: Family, now: SystemTime) -> Result<(), FirewallError> {
        // Accept comes first in this order; put in last, it is in front.
        let sets: Vec<Set> =
            self.linked_sets().into_iter().filter(|set| set.family() == family).rev().collect();
        let mut moved: Vec<(Rule, Lease)> = Vec::new();
        for set in &sets {
            self.sets()?.for_each_entry(&set.name(), |entry| {
                let lease = Interval::of_seconds(entry.timeout.seconds()).from(now);
                moved.extend(set.rule(entry.element).map(|rule| (rule, lease)));
                Ok(())
            })?;
        }
        self.change(family, Trust::Kernel, |kept, transaction| {
            moved.iter().for_each(|(rule, lease)| transaction.insert(rule, *lease, 1));
            if !moved.is_empty() {
                put_exceptions_in_front(&kept.find(|_, _| true), transaction);
            }
            let moved_sets = kept.rules_of_sets().filter(|set| sets.contains(set));
            moved_sets.for_each(|set| transaction.delete_set(set));
        })?;
        if !moved.is_empty() {
            log::info!("entries of sets that are rules of {family} now: {}", moved.len());
            self.say_if_many();
        }
        Ok(())
    }

    /// Destroys the sets of rfw that are empty or that no rule uses.
    pub(super) fn clear_away(&mut self) -> Result<(), FirewallError> {
        if self.sets.is_none() {
            return Ok(());
        }
        let mut empty = Vec::new();
        for set in self.linked_sets() {
            if self.sets()?.size(&set.name())? == 0 {
                empty.push(set);
            }
        }
        for family in self.families() {
            self.change(family, Trust::Kernel, |kept, transaction| {
                let unused = kept.rules_of_sets().filter(|set| empty.contains(set));
                unused.for_each(|set| transaction.delete_set(set));
            })?;
        }
        let used: HashSet<String> = self.linked_sets().iter().map(Set::name).collect();
        let sets = self.sets()?;
        for name in sets.names()?.iter().filter(|name| ipset::is_own_name(name) && !used.contains(*name)) {
            sets.discard(name)?;
        }
        Ok(())
    }
}

/// Whether a rule lets pass what one before it, in the same chain, may have blocked.
fn has_exception_behind_block(rules: &[(&Rule, Lease)]) -> bool {
    let mut blocked = HashSet::new();
    rules.iter().any(|(rule, _)| match rule.place().target() {
        Target::Accept => blocked.contains(&rule.place().chain()),
        Target::Reject | Target::Drop => {
            blocked.insert(rule.place().chain());
            false
        }
    })
}

/// Plans that the rules which let packets pass stand in front, in the order they have.
fn put_exceptions_in_front(rules: &[(&Rule, Lease)], transaction: &mut Transaction) {
    let exceptions = rules.iter().filter(|(rule, _)| rule.place().target() == Target::Accept);
    exceptions.clone().for_each(|(rule, lease)| transaction.delete(rule, *lease));
    let mut put = HashSet::new();
    for (rule, lease) in exceptions.rev().filter(|exception| put.insert(*exception)) {
        transaction.insert(rule, *lease, 1);
    }
}
