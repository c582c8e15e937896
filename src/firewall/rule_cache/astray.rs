//! Rules that do not stand where the options `input.table` and `forward.chain` say, exceptions that
//! are missing, and the chain of rfw in the table `raw`: what is to be done about them. No I/O.

use super::{Astray, Placed, RawChain, RuleCache};
use crate::kernel::iptables::{Change, Owner, Transaction};
use crate::kernel::set_key::SetKey;
use crate::rule::layout::{InputTable, KernelChain};
use crate::rule::list_name::ListName;
use crate::rule::{Rule, Target};
use std::collections::{BTreeMap, HashSet};

/// What stands elsewhere than the layout says.
#[derive(Debug, Default)]
pub(in crate::firewall) struct Elsewhere<'a> {
    pub(in crate::firewall) rules: HashSet<(&'a Rule, ListName)>,
    pub(in crate::firewall) sets: HashSet<&'a SetKey>,
}

impl RuleCache {
    /// Whether something has been read that does not stand where it should.
    pub(in crate::firewall) fn is_astray(&self) -> bool {
        !self.astray.misplaced.is_empty()
            || !self.astray.lacking.is_empty()
            || self.raw.jumps != self.wanted_jumps(self.raw.rules)
    }

    /// The rules, and those of sets, that stand elsewhere than the layout says, as last read.
    pub(in crate::firewall) fn elsewhere(&self) -> Elsewhere<'_> {
        let mut elsewhere = Elsewhere::default();
        for placed in &self.astray.misplaced {
            match &placed.owner {
                Owner::Rfw(rule, label) => drop(elsewhere.rules.insert((rule, label.list))),
                Owner::Set(set) => drop(elsewhere.sets.insert(set)),
                _ => {}
            }
        }
        elsewhere
    }

    /// The number of rules that stand elsewhere than the layout says, as last read.
    pub(in crate::firewall) fn misplaced(&self) -> usize {
        let is_whole = |placed: &&Placed| matches!(placed.owner, Owner::Rfw(..) | Owner::Set(_));
        self.astray.misplaced.iter().filter(is_whole).count()
    }

    /// Whether rules of rfw are, or were at the last reading, in the table `raw`.
    pub(in crate::firewall) fn uses_raw(&self) -> bool {
        self.raw.rules > 0 || self.raw.jumps > 0
    }

    /// Whether the chain of rfw in the table `raw` is one of others: it has rules, and nothing of it is
    /// rfw's.
    pub(in crate::firewall) fn has_foreign_chain(&self) -> bool {
        self.raw.is_there && self.raw.has_others && !self.uses_raw()
    }

    /// Plans to put rules where they belong, into the new place first, then out of the old one: of many
    /// only `most`. Valid right after a reading.
    pub(in crate::firewall) fn plan_layout(
        &self,
        transaction: &mut Transaction,
        by_precedence: bool,
        most: usize,
    ) {
        if self.layout.input == InputTable::Filter {
            transaction.filter_first();
        }
        let chosen = self.astray.last(most);
        for (chain, placed) in self.destinations(&chosen) {
            match by_precedence {
                true => self.put_by_precedence(transaction, &chain, &placed),
                false => placed.iter().rev().for_each(|placed| self.put_first(transaction, &chain, placed)),
            }
        }
        for (placed, _) in chosen.iter().filter(|(_, is_lacking)| !is_lacking) {
            transaction.take(&placed.chain, placed.owner.clone());
        }
    }

    /// What is to stand in each chain and does not yet. Without precedence, exceptions that leave the
    /// table `raw` are among those of INPUT: they tell in which order accepts and drops were put in.
    fn destinations<'a>(&self, chosen: &[(&'a Placed, bool)]) -> BTreeMap<KernelChain, Vec<&'a Placed>> {
        let (mut destinations, mut seen) = (BTreeMap::<_, Vec<_>>::new(), HashSet::new());
        for (placed, is_lacking) in chosen {
            let chain = match &placed.owner {
                _ if *is_lacking => KernelChain::Raw,
                Owner::Rfw(rule, label) if !self.has(rule, label) && seen.insert(&placed.owner) => {
                    self.layout.chain(rule.scope())
                }
                Owner::Set(set) if !self.has_set(set) && seen.insert(&placed.owner) => {
                    self.layout.chain(set.scope())
                }
                Owner::Return(..) | Owner::ReturnSet(_) if self.layout.input == InputTable::Filter => {
                    KernelChain::Input
                }
                _ => continue,
            };
            destinations.entry(chain).or_default().push(*placed);
        }
        destinations
    }

    /// Plans to put rules into a chain so that accept comes before reject, and reject before drop.
    fn put_by_precedence(&self, transaction: &mut Transaction, chain: &KernelChain, placed: &[&Placed]) {
        // Those that come last are put in first, so that the numbers of the others stay.
        for target in [Target::Drop, Target::Reject, Target::Accept] {
            let number = self.last_before(chain, target).map_or(1, |(number, _)| number + 1);
            let of_target = |placed: &&&Placed| {
                let leaves_raw = placed.chain == KernelChain::Raw && *chain == KernelChain::Input;
                let is_exception = matches!(placed.owner, Owner::Return(..) | Owner::ReturnSet(_));
                let scope = placed.owner.scope();
                scope.is_some_and(|scope| scope.target() == target) && !(leaves_raw && is_exception)
            };
            for placed in placed.iter().rev().filter(of_target) {
                transaction.put(chain, placed.owner.clone(), number);
            }
        }
    }

    /// Plans to put a rule at the head of a chain. The accept of an exception that leaves the table `raw`
    /// comes to the head.
    fn put_first(&self, transaction: &mut Transaction, chain: &KernelChain, placed: &Placed) {
        let owner = match &placed.owner {
            Owner::Return(rule, label) if *chain == KernelChain::Input => match self.has(rule, label) {
                true => Owner::Rfw(rule.clone(), label.clone()),
                false => return,
            },
            Owner::ReturnSet(set) if *chain == KernelChain::Input => match self.has_set(set) {
                true => Owner::Set(set.clone()),
                false => return,
            },
            owner => return transaction.put(chain, owner.clone(), 1),
        };
        transaction.take(chain, owner.clone());
        transaction.put(chain, owner, 1);
    }

    /// Adds to a planned transaction the chain in the table `raw` and the jump to it, if they are needed
    /// and not there, or takes them away, if nothing is in the chain any more.
    pub(in crate::firewall) fn complete(&self, transaction: &mut Transaction) {
        let (added, removed) = transaction.in_raw();
        let after = (self.raw.rules + added).saturating_sub(removed);
        if added + removed == 0 && self.raw.jumps == self.wanted_jumps(after) {
            return;
        }
        if added > 0 && !self.raw.is_there {
            transaction.make_chain();
        }
        let wanted = self.wanted_jumps(after);
        (self.raw.jumps..wanted).for_each(|_| transaction.put(&KernelChain::Prerouting, Owner::Jump, 1));
        (wanted..self.raw.jumps).for_each(|_| transaction.take(&KernelChain::Prerouting, Owner::Jump));
        let is_unused = wanted == 0 && !self.raw.has_others && !self.raw.is_referenced;
        if is_unused && self.raw.is_there && after == 0 {
            transaction.drop_chain();
        }
    }

    /// How many rules are to jump to the chain in the table `raw` while so many are in it: where others
    /// have put rules into it too, the jump stays as long as the option does.
    fn wanted_jumps(&self, rules: usize) -> usize {
        let RawChain { jumps, has_others, .. } = self.raw;
        let stays = has_others && jumps > 0 && self.layout.input == InputTable::Raw;
        usize::from(rules > 0 || stays)
    }

    /// Follows what a committed transaction has done to the table `raw`.
    pub(super) fn apply_to_raw(&mut self, transaction: &Transaction) {
        let (added, removed) = transaction.in_raw();
        self.raw.rules = (self.raw.rules + added).saturating_sub(removed);
        for change in transaction.changes() {
            match change {
                Change::MakeChain => self.raw.is_there = true,
                Change::DropChain => self.raw.is_there = false,
                Change::Put(KernelChain::Prerouting, ..) => self.raw.jumps += 1,
                Change::Take(KernelChain::Prerouting, _) => self.raw.jumps = self.raw.jumps.saturating_sub(1),
                _ => {}
            }
        }
    }
}

impl Astray {
    /// The last of what is out of place or missing, in the order of the reading, each with whether it is
    /// missing. Since each is put before those that come after it, the first ones can follow later.
    fn last(&self, most: usize) -> Vec<(&Placed, bool)> {
        let misplaced = self.misplaced.iter().map(|placed| (placed, false));
        let mut all: Vec<(&Placed, bool)> =
            misplaced.chain(self.lacking.iter().map(|placed| (placed, true))).collect();
        all.sort_by_cached_key(|(placed, _)| placed.position);
        all.split_off(all.len().saturating_sub(most))
    }
}
