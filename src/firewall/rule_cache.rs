//! The cache: what is known of the rules of rfw in one table. It is filled by a reading, and follows
//! the changes that rfw commits. No I/O.

use crate::kernel::guard::Guard;
use crate::kernel::iptables::{Change, Line, Owner, Transaction};
use crate::kernel::set_key::SetKey;
use crate::rule::lease::Lease;
use crate::rule::{Chain, Rule, Scope, Target};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter;

/// The cache: the rules of rfw in one table.
#[derive(Default)]
pub(crate) struct RuleCache {
    rules: HashMap<Rule, Vec<CachedRule>>,
    /// The guard rules, in the order of the table.
    guards: VecDeque<Guard>,
    /// The sets that have a rule, with the number of these rules: other programs may have
    /// duplicated one.
    sets: BTreeMap<SetKey, usize>,
    /// The rule number and position of the last ACCEPT rule of rfw in each chain.
    last_accept: BTreeMap<Chain, (usize, i64)>,
    /// The position of the last inserted rule: positions count up from 1 for rules that were
    /// read, and down from -1 for rules inserted since.
    lowest: i64,
}

/// One instance of a rule; other programs may have duplicated it.
struct CachedRule {
    lease: Lease,
    position: i64,
    /// Its number in its chain at the last reading, or 1 if it has been put in since.
    number: usize,
}

/// A reading of a table, rule by rule.
#[derive(Default)]
pub(super) struct CacheReader {
    cache: RuleCache,
    /// The rules so far of each chain.
    numbers: HashMap<String, usize>,
    position: i64,
}

impl CacheReader {
    /// Takes the next rule of the table.
    pub(super) fn line(&mut self, line: Line) {
        let number = self.numbers.entry(line.chain).or_default();
        *number += 1;
        self.position += 1;
        let (number, position, cache) = (*number, self.position, &mut self.cache);
        match line.owner {
            Owner::Rfw(rule, lease) => {
                cache.note_accept(rule.scope(), number, position);
                cache.rules.entry(rule).or_default().push(CachedRule { lease, position, number });
            }
            Owner::Set(set) => {
                cache.note_accept(set.scope(), number, position);
                *cache.sets.entry(set).or_default() += 1;
            }
            Owner::Guard(guard) => cache.guards.push_back(guard),
            Owner::Other => {}
        }
    }

    /// The cache, after the last rule.
    pub(super) fn end(self) -> RuleCache {
        self.cache
    }
}

impl RuleCache {
    fn note_accept(&mut self, scope: &Scope, number: usize, position: i64) {
        if scope.target() == Target::Accept {
            self.last_accept.insert(scope.chain(), (number, position));
        }
    }

    /// Applies a committed transaction. Rule numbers are not updated: they are valid only
    /// right after the table has been read.
    pub(super) fn apply(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            match change {
                Change::Insert(rule, lease, _) => {
                    self.lowest -= 1;
                    let copy = CachedRule { lease: *lease, position: self.lowest, number: 1 };
                    self.rules.entry(rule.clone()).or_default().push(copy);
                }
                Change::Delete(rule, lease) => {
                    if let Some(copies) = self.rules.get_mut(rule) {
                        copies.retain(|copy| copy.lease != *lease);
                        if copies.is_empty() {
                            self.rules.remove(rule);
                        }
                    }
                }
                Change::InsertSet(set, _) => *self.sets.entry(set.clone()).or_default() += 1,
                Change::DeleteSet(set) => {
                    if let Some(copies) = self.sets.get_mut(set) {
                        *copies = copies.saturating_sub(1);
                    }
                    self.sets.retain(|_, copies| *copies > 0);
                }
                Change::InsertGuard(guard) => self.guards.push_front(*guard),
                Change::DeleteGuard(guard) => self.guards.retain(|cache| cache != guard),
                Change::CheckSet(_) => {}
            }
        }
    }

    /// The leases of a rule, one for each instance; empty if there is no such rule.
    pub(crate) fn leases(&self, rule: &Rule) -> Vec<Lease> {
        self.rules.get(rule).into_iter().flatten().map(|copy| copy.lease).collect()
    }

    /// All rules.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.keys()
    }

    /// All leases of all rules.
    pub(crate) fn all_leases(&self) -> impl Iterator<Item = Lease> {
        self.rules.values().flatten().map(|copy| copy.lease)
    }

    /// The number of distinct rules; those of sets and guard rules are not counted.
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rules that `wanted` selects, in the order of the table: iptables searches for a
    /// rule to delete from the head of the chain, so that order keeps many deletions linear.
    pub(crate) fn find(&self, wanted: impl Fn(&Rule, Lease) -> bool) -> Vec<(&Rule, Lease)> {
        let all = self.rules.iter().flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy)));
        let mut found: Vec<_> = all.filter(|(rule, copy)| wanted(rule, copy.lease)).collect();
        found.sort_unstable_by_key(|(_, copy)| copy.position);
        found.into_iter().map(|(rule, copy)| (rule, copy.lease)).collect()
    }

    /// The rules that are wanted with their numbers in their chains, in ascending order.
    pub(crate) fn find_numbered(&self, wanted: impl Fn(&Rule) -> bool) -> Vec<(Rule, Lease, usize)> {
        let all = self.rules.iter().filter(|(rule, _)| wanted(rule));
        let mut found: Vec<(Rule, Lease, usize)> = all
            .flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule.clone(), copy.lease, copy.number)))
            .collect();
        found.sort_unstable_by_key(|(_, _, number)| *number);
        found
    }

    /// The rules that guard rfw's port, in the order of the table.
    pub(crate) fn guards(&self) -> &VecDeque<Guard> {
        &self.guards
    }

    /// Whether the guard rules are exactly `wanted`, which is in the order of insertion: the
    /// last one inserted is the first of its chain.
    pub(crate) fn is_guarded(&self, wanted: &[Guard]) -> bool {
        [false, true].into_iter().all(|output| {
            let there = self.guards.iter().filter(|guard| guard.is_output() == output);
            there.eq(wanted.iter().rev().filter(|guard| guard.is_output() == output))
        })
    }

    /// The sets that have a rule.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &SetKey> {
        self.sets.keys()
    }

    /// Whether a set has a rule.
    pub(crate) fn has_set(&self, set: &SetKey) -> bool {
        self.sets.contains_key(set)
    }

    /// The sets that have a rule, each repeated for every rule.
    pub(crate) fn rules_of_sets(&self) -> impl Iterator<Item = &SetKey> {
        self.sets.iter().flat_map(|(set, copies)| iter::repeat_n(set, *copies))
    }

    /// The rule number at which the rule of a set is inserted, so that ACCEPT takes
    /// precedence: ACCEPT at the head of the chain, others after the last ACCEPT of rfw.
    pub(crate) fn number_for(&self, scope: &Scope) -> usize {
        self.number_after_exceptions(scope, &[])
    }

    /// The same for a rule, after all instances of it have been deleted.
    pub(crate) fn number_for_rule(&self, rule: &Rule) -> usize {
        let copies = self.rules.get(rule).map(Vec::as_slice);
        self.number_after_exceptions(rule.scope(), copies.unwrap_or_default())
    }

    fn number_after_exceptions(&self, scope: &Scope, deleted: &[CachedRule]) -> usize {
        match (scope.target(), self.last_accept.get(&scope.chain())) {
            (Target::Accept, _) | (_, None) => 1,
            (Target::Reject | Target::Drop, Some((number, position))) => {
                let before = deleted.iter().filter(|copy| copy.position < *position).count();
                number.saturating_sub(before) + 1
            }
        }
    }
}
