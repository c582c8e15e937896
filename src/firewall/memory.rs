//! What rfw remembers of the rules of one table beside the cache: what others have flushed, so that it
//! comes back, and what rfw itself has deleted, so that it does not. No I/O.
//!
//! Nobody tells rfw what was done to its rules: each reading is compared with what the cache had.

use super::rule_cache::RuleCache;
use crate::kernel::iptables::{Change, Transaction};
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::layout::KernelChain;
use crate::rule::list_name::ListName;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

/// The most deleted rules that are remembered.
const DELETED_MAX: usize = 65_536;

/// What rfw remembers of the rules of one table.
#[derive(Default)]
pub(crate) struct Memory {
    /// Rules that others have flushed, in the order of the table.
    lost: Vec<(Rule, Label)>,
    /// Whether others have flushed something, be it rules of sets or the guard.
    flushed: bool,
    /// Whether the table has rules that rfw had deleted, or one of them twice.
    untidy: bool,
    /// Rules that others have deleted one by one and that nobody has been told of yet.
    noted: Vec<(Rule, Label)>,
    /// Rules that rfw may have deleted: a program was cut short in it.
    doubtful: HashSet<(Rule, ListName)>,
    deleted: Deleted,
    put: PutIn,
}

impl Memory {
    /// Takes down what has changed between two readings, or between a change of rfw and a reading.
    pub(super) fn compare(&mut self, before: &RuleCache, after: &RuleCache) {
        let mut difference = Difference::between(before, after, &self.deleted, &self.put);
        let doubtful = std::mem::take(&mut self.doubtful);
        difference.gone.retain(|(rule, label)| {
            let is_own = doubtful.contains(&(rule.clone(), label.list));
            if is_own {
                self.deleted.put(rule, label);
            }
            !is_own
        });
        difference.revived.iter().for_each(|(rule, label)| self.deleted.put(rule, label));
        self.untidy |= !difference.revived.is_empty() || after.has_doubles();
        // What goes while something is still to be put back goes by the same hand.
        match difference.is_flush() || self.flushed && !difference.gone.is_empty() {
            true => {
                let gone = difference.gone.into_iter();
                let new = gone.filter(|(rule, label)| !holds(&self.lost, rule, label.list));
                let new: Vec<(Rule, Label)> = new.collect();
                self.lost.extend(new);
                self.flushed = true;
            }
            false => {
                // What somebody has deleted is put in anew or never.
                difference.gone.iter().for_each(|(rule, label)| self.put.remove(rule, label.list));
                self.noted.extend(difference.gone);
            }
        }
    }

    /// Takes down a committed transaction.
    pub(super) fn apply(&mut self, transaction: &Transaction) {
        let mut inserted = HashSet::new();
        for change in transaction.changes() {
            match change {
                Change::Insert(rule, label, _) => {
                    self.deleted.remove(rule, label);
                    self.put.insert(rule, label.list);
                    if !self.lost.is_empty() || !self.noted.is_empty() {
                        inserted.insert((rule, label.list));
                    }
                }
                Change::Delete(rule, label) => {
                    self.deleted.put(rule, label);
                    self.put.remove(rule, label.list);
                }
                _ => {}
            }
        }
        if !inserted.is_empty() {
            self.lost.retain(|(rule, label)| !inserted.contains(&(rule, label.list)));
            self.noted.retain(|(rule, label)| !inserted.contains(&(rule, label.list)));
        }
    }

    /// Takes down a transaction of which it is not known whether it is committed.
    pub(super) fn doubt(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            if let Change::Delete(rule, label) = change {
                self.doubtful.insert((rule.clone(), label.list));
            }
        }
    }

    /// Forgets flushed rules that are not to come back. Gives them.
    pub(crate) fn forget(&mut self, unwanted: impl Fn(&Rule, &Label) -> bool) -> Vec<(Rule, Label)> {
        let (gone, lost) = std::mem::take(&mut self.lost).into_iter().partition(|(r, l)| unwanted(r, l));
        self.lost = lost;
        // A saved table is not to bring them back either.
        gone.iter().for_each(|(rule, label)| self.deleted.put(rule, label));
        gone
    }

    /// Whether others have flushed something that is not put back yet.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed
    }

    /// Whether there are rules to be deleted again, see [`Memory::is_revived`].
    pub(crate) fn is_untidy(&self) -> bool {
        self.untidy
    }

    /// The rules that others have flushed, in the order of the table.
    pub(crate) fn lost(&self) -> &[(Rule, Label)] {
        &self.lost
    }

    /// Takes down that a repair begins: what others flush from now on is to be put back by the next.
    pub(crate) fn begin_repair(&mut self) {
        self.flushed = false;
    }

    /// Takes down that a repair has failed.
    pub(crate) fn repair_again(&mut self) {
        self.flushed = true;
    }

    /// Takes down that some rules are put back.
    pub(crate) fn put_back(&mut self, done: impl Fn(&Rule, &Label) -> bool) {
        self.lost.retain(|(rule, label)| !done(rule, label));
    }

    /// Takes down that such rules are about to be deleted: what others bring back from now on is left for
    /// the next time.
    pub(crate) fn begin_tidying(&mut self) {
        self.untidy = false;
    }

    /// Takes down that they could not be deleted.
    pub(crate) fn tidy_again(&mut self) {
        self.untidy = true;
    }

    /// Whether rfw has deleted a rule: where it is there again, others have restored a saved table.
    pub(crate) fn is_revived(&self, rule: &Rule, label: &Label) -> bool {
        self.deleted.has(rule, label)
    }

    /// Removes and returns the rules that others have deleted one by one.
    pub(crate) fn take_noted(&mut self) -> Vec<(Rule, Label)> {
        std::mem::take(&mut self.noted)
    }
}

fn holds(rules: &[(Rule, Label)], rule: &Rule, list: ListName) -> bool {
    rules.iter().any(|(other, label)| other == rule && label.list == list)
}

/// What others have changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Rules that are gone, in the order of the table. One that has the end of a rule which rfw had
    /// deleted counts as gone too.
    gone: Vec<(Rule, Label)>,
    /// Rules that are there again after rfw had deleted them, or beside the one that rfw has made.
    revived: Vec<(Rule, Label)>,
    /// Whether the rule of a set is gone.
    lost_set: bool,
    /// Whether the guard of a chain is gone.
    lost_guard: bool,
    /// Whether rules are gone with the chain of `forward.chain`.
    lost_chain: bool,
    /// Whether two or more rules of a chain are gone, and none of rfw is left in it.
    emptied: bool,
    /// Whether the table was replaced as a whole, as iptables-restore does.
    replaced: bool,
}

impl Difference {
    fn between(before: &RuleCache, after: &RuleCache, deleted: &Deleted, put: &PutIn) -> Difference {
        let mut difference = Difference::default();
        for (rule, label) in after.labelled().filter(|(rule, label)| !before.has(rule, label)) {
            // One that stands beside the rule of the same list is no other decision.
            let beside = before.labels(rule, label.list).iter().any(|known| after.has(rule, known));
            if deleted.has(rule, label) || beside {
                difference.revived.push((rule.clone(), label.clone()));
            }
        }
        let (mut seen, elsewhere) = (HashSet::new(), after.elsewhere());
        for (rule, label) in before.find(|_, _| true) {
            if elsewhere.rules.contains(&(rule, label.list)) {
                continue;
            }
            let there = after.labels(rule, label.list);
            if there.iter().all(|there| *there != label && deleted.has(rule, there))
                && seen.insert((rule, label.list))
            {
                difference.gone.push((rule.clone(), label.clone()));
            }
        }
        let layout = before.layout();
        let mut gone: BTreeMap<KernelChain, usize> = BTreeMap::new();
        for (rule, _) in &difference.gone {
            *gone.entry(layout.chain(rule.scope())).or_default() += 1;
        }
        for set in before.sets().filter(|set| !after.has_set(set) && !elsewhere.sets.contains(set)) {
            *gone.entry(layout.chain(set.scope())).or_default() += 1;
            difference.lost_set = true;
        }
        for chain in [KernelChain::Input, KernelChain::Output] {
            let lost = before.guards_of(&chain).count();
            if lost > 0 && after.guards_of(&chain).count() == 0 {
                *gone.entry(chain).or_default() += lost;
                difference.lost_guard = true;
            }
        }
        let moved = before.forward_chain() != after.forward_chain();
        let is_forward = |chain: &KernelChain| matches!(chain, KernelChain::Forward(_));
        difference.lost_chain = moved && gone.keys().any(is_forward);
        difference.emptied =
            gone.iter().any(|(chain, count)| *count >= 2 && after.is_emptied_in(chain, before));
        difference.replaced = !difference.revived.is_empty()
            || after.has_counted_down(before)
            || difference.lacks_the_newest(after, put);
        difference
    }

    /// Whether what is gone is two or more rules, and just those that rfw has put in last: so it is where a
    /// table is restored that was saved before.
    fn lacks_the_newest(&self, after: &RuleCache, put: &PutIn) -> bool {
        let oldest = self.gone.iter().map(|(rule, label)| put.number(rule, label.list)).min();
        let newest = || after.labelled().map(|(rule, label)| put.number(rule, label.list)).max();
        self.gone.len() >= 2 && newest().is_some_and(|newest| oldest > Some(newest))
    }

    /// Whether what is gone was not deleted rule by rule.
    fn is_flush(&self) -> bool {
        let replaced = self.replaced && !self.gone.is_empty();
        self.lost_set || self.lost_guard || self.lost_chain || self.emptied || replaced
    }
}

/// The order in which rfw has put rules in since it started, by their hashes.
#[derive(Default)]
struct PutIn {
    hasher: RandomState,
    numbers: HashMap<u64, u64, RandomState>,
    last: u64,
}

impl PutIn {
    fn insert(&mut self, rule: &Rule, list: ListName) {
        self.last = self.last.saturating_add(1);
        self.numbers.insert(self.hasher.hash_one((rule, list)), self.last);
    }

    fn remove(&mut self, rule: &Rule, list: ListName) {
        self.numbers.remove(&self.hasher.hash_one((rule, list)));
    }

    /// From 1; 0 is a rule that was there when rfw started.
    fn number(&self, rule: &Rule, list: ListName) -> u64 {
        self.numbers.get(&self.hasher.hash_one((rule, list))).copied().unwrap_or_default()
    }
}

/// Rules that rfw has deleted, as hashes; the oldest are forgotten.
#[derive(Default)]
struct Deleted {
    hasher: RandomState,
    hashes: HashSet<u64, RandomState>,
    /// In the order of deletion. Those that were put in again since are still in it.
    order: VecDeque<u64>,
}

impl Deleted {
    fn put(&mut self, rule: &Rule, label: &Label) {
        let hash = self.hash(rule, label);
        if !self.hashes.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > DELETED_MAX {
            self.order.pop_front().map(|oldest| self.hashes.remove(&oldest));
        }
    }

    fn remove(&mut self, rule: &Rule, label: &Label) {
        if !self.hashes.is_empty() {
            self.hashes.remove(&self.hash(rule, label));
        }
    }

    fn has(&self, rule: &Rule, label: &Label) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&self.hash(rule, label))
    }

    fn hash(&self, rule: &Rule, label: &Label) -> u64 {
        self.hasher.hash_one((rule, label))
    }
}

#[cfg(test)]
mod tests;
