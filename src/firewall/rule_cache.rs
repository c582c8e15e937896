//! The cache: what is known of the rules of rfw in the tables of one family. It is filled by a reading,
//! and follows the changes that rfw commits. No I/O.

mod astray;
mod first;
mod reader;

use crate::kernel::guard::Guard;
use crate::kernel::iptables::{Change, Owner, Transaction};
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::layout::{KernelChain, Layout};
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use crate::rule::{Chain, Rule, Scope, Target};
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::iter;

use first::Overtaken;
pub(super) use first::plan_first;
pub(super) use reader::CacheReader;

/// The rules of rfw in the tables of one family.
#[derive(Default)]
pub(crate) struct RuleCache {
    /// The chains of the table, those of others too.
    chains: Vec<String>,
    /// What accepts, apart from what blocks: a block asks for the accepts that come before it.
    accepts: Copies,
    blocks: Copies,
    /// The number of distinct rules and lists.
    count: usize,
    /// The number of distinct rules of each list.
    lists: BTreeMap<ListName, usize>,
    /// The guard rules, in the order of the table.
    guards: VecDeque<Guard>,
    /// The sets that have a rule, with the positions of these rules: other programs may have
    /// duplicated one.
    sets: BTreeMap<SetKey, Vec<i64>>,
    /// The packets that rules have counted by the last reading, by their hash; those without are left out.
    counted: HashMap<u64, u64, FixedState>,
    /// Whether it has been changed since the last reading: then positions tell nothing of the order.
    changed: bool,
    /// The rule number and position of the last rule of rfw with that target in each chain.
    last: BTreeMap<(KernelChain, Target), (usize, i64)>,
    /// The chains of which `last` is not right any more, since a rule has been deleted.
    shifted: BTreeSet<KernelChain>,
    /// The position of the last inserted rule: positions count up from 1 for rules that were
    /// read, and down from -1 for rules inserted since.
    lowest: i64,
    /// Where rules stand, as far as the chains for it are there.
    layout: Layout,
    /// What keeps rules of `forward` from standing in the chain of `forward.chain`, or from seeing packets
    /// there.
    forward: ForwardChain,
    /// The chain of rfw in the table `raw`.
    raw: RawChain,
    /// What does not stand where it should, or lacks its exception, as last read.
    astray: Astray,
    /// The rules of rfw in each chain in which one of others that could accept stands before them, as
    /// last read.
    overtaken: BTreeMap<KernelChain, Overtaken>,
}

/// A rule of rfw in the kernel, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    chain: KernelChain,
    owner: Owner,
    /// Its number in its chain, from 1.
    number: usize,
    /// Its place in the reading, which goes through all chains.
    position: i64,
}

/// What there is of the chain that `forward.chain` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ForwardChain {
    /// It is there, and packets get to it.
    #[default]
    InUse,
    /// It is not there: rules of `forward` stand in FORWARD.
    Missing,
    /// It is there, but nothing in FORWARD leads to it.
    Unreached,
}

/// What there is in the table `raw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct RawChain {
    /// Whether the chain of that name is there.
    is_there: bool,
    /// The number of rules of rfw in it.
    rules: usize,
    /// The number of rules of rfw that jump to it.
    jumps: usize,
    /// Whether there are rules of others in it.
    has_others: bool,
    /// Whether rules of others jump to it.
    is_referenced: bool,
}

/// What a reading has found out of place.
#[derive(Debug, Default)]
struct Astray {
    /// What stands in another chain than the layout says, or is an exception of nothing.
    misplaced: Vec<Placed>,
    /// The exceptions that are missing, with the positions of the rules that accept.
    lacking: Vec<Placed>,
}

/// Each rule with its instances.
type Copies = HashMap<Rule, Vec<CachedRule>>;

/// One instance of a rule: one for each list that holds its address, and other programs may have
/// duplicated it.
#[derive(Debug)]
pub(crate) struct CachedRule {
    label: Label,
    position: i64,
    /// Its number in its chain at the last reading, or 1 if it has been put in since.
    number: usize,
}

impl CachedRule {
    /// Its end, its list and its reason.
    pub(crate) fn label(&self) -> &Label {
        &self.label
    }
}

impl RuleCache {
    /// Where rules stand.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What there is of the chain that `forward.chain` names, as last read.
    pub(crate) fn forward_chain(&self) -> ForwardChain {
        self.forward
    }

    fn note_last(&mut self, chain: KernelChain, target: Target, number: usize, position: i64) {
        self.last.insert((chain, target), (number, position));
    }

    fn put(&mut self, rule: Rule, copy: CachedRule) {
        let list = copy.label.list;
        let copies = self.kind_mut(rule.scope().target()).entry(rule).or_default();
        let is_new = copies.iter().all(|other| other.label.list != list);
        copies.push(copy);
        if is_new {
            self.count += 1;
            *self.lists.entry(list).or_default() += 1;
        }
    }

    fn remove(&mut self, rule: &Rule, label: &Label) {
        let rules = self.kind_mut(rule.scope().target());
        let Some(copies) = rules.get_mut(rule) else { return };
        let before = copies.len();
        // As the kernel does: of instances that are the same, the first.
        let same = copies.iter().enumerate().filter(|(_, copy)| copy.label == *label);
        let first = same.min_by_key(|(_, copy)| copy.position).map(|(at, _)| at);
        first.map(|at| copies.remove(at));
        let is_gone = copies.iter().all(|copy| copy.label.list != label.list);
        let is_removed = is_gone && copies.len() < before;
        if copies.is_empty() {
            rules.remove(rule);
        }
        if is_removed {
            self.count = self.count.saturating_sub(1);
            self.forget_one(label.list);
        }
    }

    fn forget_one(&mut self, list: ListName) {
        if let Some(count) = self.lists.get_mut(&list) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.lists.remove(&list);
            }
        }
    }

    /// Applies a committed transaction. The numbers of instances are not updated: they are those of
    /// the last reading.
    pub(super) fn apply(&mut self, transaction: &Transaction) {
        self.changed |= !transaction.changes().is_empty();
        for change in transaction.changes() {
            match change {
                Change::Insert(rule, label, number) => {
                    self.uncount(|| Owner::Rfw(rule.clone(), label.clone()));
                    self.lowest -= 1;
                    self.note_inserted(rule.scope(), *number);
                    let copy = CachedRule { label: label.clone(), position: self.lowest, number: 1 };
                    self.put(rule.clone(), copy);
                }
                Change::Delete(rule, label) => {
                    self.note_deleted(rule.scope());
                    self.remove(rule, label);
                }
                Change::InsertSet(set, number) => {
                    self.uncount(|| Owner::Set(set.clone()));
                    self.note_inserted(set.scope(), *number);
                    let position = self.lowest;
                    self.sets.entry(set.clone()).or_default().push(position);
                }
                Change::DeleteSet(set) => {
                    self.note_deleted(set.scope());
                    if let Some(copies) = self.sets.get_mut(set) {
                        copies.pop();
                    }
                    self.sets.retain(|_, copies| !copies.is_empty());
                }
                Change::InsertGuard(guard) => {
                    self.uncount(|| Owner::Guard(*guard));
                    self.shift(&chain_of(guard), 1);
                    self.guards.push_front(*guard);
                }
                Change::DeleteGuard(guard) => {
                    self.shifted.insert(chain_of(guard));
                    // As the kernel does: of copies the first.
                    let at = self.guards.iter().position(|cache| cache == guard);
                    at.and_then(|at| self.guards.remove(at));
                }
                // What they do to rules is read afterwards.
                Change::Put(_, owner, _) => self.uncount(|| owner.clone()),
                Change::Take(..) | Change::CheckSet(_) => {}
                Change::MakeChain | Change::DropChain => {}
            }
        }
        self.apply_to_raw(transaction);
    }

    fn note_deleted(&mut self, scope: &Scope) {
        self.shifted.insert(self.layout.chain(scope));
        if self.layout.has_exception(scope) {
            self.shifted.insert(KernelChain::Raw);
        }
    }

    fn note_inserted(&mut self, scope: &Scope, number: usize) {
        if self.layout.has_exception(scope) {
            self.note_inserted_in(KernelChain::Raw, scope.target(), 1);
        }
        self.note_inserted_in(self.layout.chain(scope), scope.target(), number);
    }

    fn note_inserted_in(&mut self, chain: KernelChain, target: Target, number: usize) {
        self.shift(&chain, number);
        let last = self.last.entry((chain, target)).or_insert((number, self.lowest));
        if last.0 < number {
            *last = (number, self.lowest);
        }
    }

    /// Takes down that the kernel counts the packets of a rule anew.
    fn uncount(&mut self, owner: impl FnOnce() -> Owner) {
        if !self.counted.is_empty() {
            self.counted.remove(&hash(&owner()));
        }
    }

    /// Whether a rule has counted fewer packets than in an earlier cache: others have made it anew.
    pub(super) fn has_counted_down(&self, before: &RuleCache) -> bool {
        let counted = |hash| self.counted.get(hash).copied().unwrap_or_default();
        let lower = before.counted.iter().filter(|(hash, packets)| counted(hash) < **packets);
        // What is gone has not counted down.
        let lower: Vec<u64> = lower.map(|(hash, _)| *hash).collect();
        !lower.is_empty() && self.owners().any(|owner| lower.contains(&hash(&owner)))
    }

    fn owners(&self) -> impl Iterator<Item = Owner> {
        let rules = self.labelled().map(|(rule, label)| Owner::Rfw(rule.clone(), label.clone()));
        let sets = self.sets().map(|set| Owner::Set(set.clone()));
        rules.chain(sets).chain(self.guards.iter().map(|guard| Owner::Guard(*guard)))
    }

    /// The instances that are unwanted, and of those that are there more than once in a list all but the one
    /// with the latest end.
    pub(super) fn surplus(&self, is_unwanted: impl Fn(&Rule, &Label) -> bool) -> Vec<(&Rule, &Label)> {
        let mut best: HashMap<(&Rule, ListName), (Lease, i64)> = HashMap::new();
        let all = self.find_copies(|_, _| true);
        let wanted = all.iter().filter(|(rule, copy)| !is_unwanted(rule, &copy.label));
        for (rule, copy) in wanted {
            let this = (copy.label.lease, copy.position);
            let best = best.entry((*rule, copy.label.list)).or_insert(this);
            *best = (*best).max(this);
        }
        let is_surplus = |rule: &Rule, copy: &CachedRule| {
            is_unwanted(rule, &copy.label)
                || best.get(&(rule, copy.label.list)) != Some(&(copy.label.lease, copy.position))
        };
        let surplus = all.into_iter().filter(|(rule, copy)| is_surplus(rule, copy));
        surplus.map(|(rule, copy)| (rule, copy.label())).collect()
    }

    /// Whether a rule is there twice with the same end, list and reason, or with two for one list.
    pub(super) fn has_doubles(&self) -> bool {
        let all = self.accepts.values().chain(self.blocks.values());
        all.filter(|copies| copies.len() > 1).any(|copies| {
            let mut lists = BTreeSet::new();
            copies.iter().any(|copy| !lists.insert(copy.label.list))
        })
    }

    /// The guard rules of a chain.
    pub(super) fn guards_of(&self, chain: &KernelChain) -> impl Iterator<Item = &Guard> {
        self.guards.iter().filter(move |guard| chain_of(guard) == *chain)
    }

    /// Whether a chain has no rule of rfw that an earlier cache had read: what rfw has put in since may be
    /// there.
    pub(super) fn is_emptied_in(&self, chain: &KernelChain, before: &RuleCache) -> bool {
        let is_here = |scope: &Scope| self.layout.chain(scope) == *chain;
        let was_read = |rule: &Rule, label: &Label| {
            before.copies(rule).iter().any(|copy| copy.label == *label && copy.position > 0)
        };
        let had_read = |set: &SetKey| {
            before.sets.get(set).is_some_and(|positions| positions.iter().any(|position| *position > 0))
        };
        let mut rules = self.labelled().filter(|(rule, _)| is_here(rule.scope()));
        let mut sets = self.sets().filter(|set| is_here(set.scope()));
        rules.all(|(rule, label)| !was_read(rule, label))
            && sets.all(|set| !had_read(set))
            && self.guards_of(chain).next().is_none()
    }

    /// Counts a rule that has been inserted into a chain at that number.
    fn shift(&mut self, chain: &KernelChain, at: usize) {
        let behind = self.last.iter_mut().filter(|((of, _), (number, _))| of == chain && *number >= at);
        behind.for_each(|(_, (number, _))| *number += 1);
    }

    fn kind(&self, target: Target) -> &Copies {
        match target {
            Target::Accept => &self.accepts,
            Target::Reject | Target::Drop => &self.blocks,
        }
    }

    fn kind_mut(&mut self, target: Target) -> &mut Copies {
        match target {
            Target::Accept => &mut self.accepts,
            Target::Reject | Target::Drop => &mut self.blocks,
        }
    }

    /// The instances of a rule, of all lists.
    fn copies(&self, rule: &Rule) -> &[CachedRule] {
        self.kind(rule.scope().target()).get(rule).map_or(&[], Vec::as_slice)
    }

    /// The labels of a rule in a list, one for each instance; empty if the list has no such rule.
    pub(crate) fn labels(&self, rule: &Rule, list: ListName) -> Vec<&Label> {
        let labels = self.copies(rule).iter().map(CachedRule::label);
        labels.filter(|label| label.list == list).collect()
    }

    /// Whether there is an instance of a rule with that label.
    pub(crate) fn has(&self, rule: &Rule, label: &Label) -> bool {
        self.copies(rule).iter().any(|copy| copy.label == *label)
    }

    /// Whether the table had a chain of that name at the last reading.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain == name)
    }

    /// All rules.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.accepts.keys().chain(self.blocks.keys())
    }

    /// All instances of all rules, with their labels.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (&Rule, &Label)> {
        labelled(&self.accepts).chain(labelled(&self.blocks))
    }

    /// Those that accept.
    pub(crate) fn accepts(&self) -> impl Iterator<Item = (&Rule, &Label)> {
        labelled(&self.accepts)
    }

    /// Those that drop or reject.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&Rule, &Label)> {
        labelled(&self.blocks)
    }

    /// All leases of all rules.
    pub(crate) fn all_leases(&self) -> impl Iterator<Item = Lease> {
        self.labelled().map(|(_, label)| label.lease)
    }

    /// The number of distinct rules and lists: a rule counts once for each list that has it. Those of
    /// sets and guard rules are not counted.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The lists that have rules.
    pub(crate) fn lists(&self) -> impl Iterator<Item = ListName> {
        self.lists.keys().copied()
    }

    /// The number of distinct rules of each list.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (ListName, usize)> {
        self.lists.iter().map(|(list, size)| (*list, *size))
    }

    /// The rules that `wanted` selects, in the order of the table: iptables searches for a
    /// rule to delete from the head of the chain, so that order keeps many deletions linear.
    pub(crate) fn find(&self, wanted: impl Fn(&Rule, &Label) -> bool) -> Vec<(&Rule, &Label)> {
        let found = self.find_copies(wanted);
        found.into_iter().map(|(rule, copy)| (rule, copy.label())).collect()
    }

    /// The same with the instances.
    pub(super) fn find_copies(&self, wanted: impl Fn(&Rule, &Label) -> bool) -> Vec<(&Rule, &CachedRule)> {
        let all = self.accepts.iter().chain(&self.blocks);
        let all = all.flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy)));
        in_order(all.filter(|(rule, copy)| wanted(rule, &copy.label)))
    }

    /// The instances of these rules in a list, in the order of the table. Other rules are not looked at.
    pub(super) fn copies_of(
        &self,
        rules: impl Iterator<Item = Rule>,
        list: ListName,
    ) -> Vec<(&Rule, &CachedRule)> {
        if self.len() == 0 {
            return Vec::new();
        }
        let there = rules.filter_map(|rule| self.kind(rule.scope().target()).get_key_value(&rule));
        let copies = there.flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy)));
        in_order(copies.filter(|(_, copy)| copy.label.list == list))
    }

    /// Whether no reading has shown a rule of a chain before one of a target that comes first.
    pub(super) fn is_in_order(&self, chain: Chain) -> bool {
        let blocks = [Target::Reject, Target::Drop];
        let is_right = |of: &KernelChain| blocks.iter().all(|target| !self.is_too_early(of, *target));
        self.changed || self.layout.chains(chain).iter().all(is_right)
    }

    /// Whether a rule of a chain and target stands before the last one of a target that comes first.
    fn is_too_early(&self, chain: &KernelChain, target: Target) -> bool {
        let Some((_, last)) = self.last_before(chain, target) else { return false };
        let is_here = |scope: &Scope| scope.target() == target && self.layout.chain(scope) == *chain;
        let rules = self.kind(target).iter().filter(|(rule, _)| is_here(rule.scope()));
        let sets = self.sets.iter().filter(|(set, _)| is_here(set.scope()));
        rules.flat_map(|(_, copies)| copies).any(|copy| copy.position < *last)
            || sets.flat_map(|(_, positions)| positions).any(|position| position < last)
    }

    /// The rule number and position of the last rule of a chain that comes before those of a target.
    fn last_before(&self, chain: &KernelChain, target: Target) -> Option<&(usize, i64)> {
        before(target).iter().filter_map(|target| self.last.get(&(chain.clone(), *target))).max()
    }

    /// The rules that are wanted with their numbers in their chains, in ascending order.
    pub(crate) fn find_numbered(&self, wanted: impl Fn(&Rule) -> bool) -> Vec<(Rule, Label, usize)> {
        let found = self.find_copies(|rule, _| wanted(rule)).into_iter();
        let mut found: Vec<(Rule, Label, usize)> =
            found.map(|(rule, copy)| (rule.clone(), copy.label.clone(), copy.number)).collect();
        found.sort_by_cached_key(|(_, _, number)| *number);
        found
    }

    /// The numbers of rules in their chains; of those that are the same, the first ones. Nothing if one
    /// is not there, or the table has been changed since the last reading.
    pub(super) fn numbers_of(&self, rules: &[(&Rule, &Label)]) -> Option<Vec<usize>> {
        if self.changed {
            return None;
        }
        let mut taken: HashMap<(&Rule, &Label), usize> = HashMap::new();
        let numbers = rules.iter().map(|(rule, label)| {
            let taken = taken.entry((rule, label)).or_default();
            let same = self.copies(rule).iter().filter(|copy| copy.label == **label);
            let number = same.map(|copy| copy.number).nth(*taken);
            *taken += 1;
            number
        });
        numbers.collect()
    }

    /// The rules that guard rfw's port, in the order of the table.
    pub(crate) fn guards(&self) -> &VecDeque<Guard> {
        &self.guards
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
        self.sets.iter().flat_map(|(set, copies)| iter::repeat_n(set, copies.len()))
    }

    /// The rule number at which a rule or the rule of a set is inserted, so that accept comes before
    /// reject, and reject before drop: ACCEPT at the head of the chain, REJECT after the last ACCEPT
    /// of rfw, DROP after the last of both. Valid while [`RuleCache::knows_numbers`].
    pub(crate) fn number_for(&self, scope: &Scope) -> usize {
        self.number_without(scope, &[])
    }

    /// Whether nothing has been deleted since the last reading from the chain that rules of a scope stand
    /// in.
    pub(crate) fn knows_numbers(&self, scope: &Scope) -> bool {
        !self.shifted.contains(&self.layout.chain(scope))
    }

    /// The same after these instances of rules of that scope have been deleted. Valid right after a
    /// reading.
    pub(super) fn number_without(&self, scope: &Scope, deleted: &[(&Rule, &CachedRule)]) -> usize {
        let last = self.last_before(&self.layout.chain(scope), scope.target());
        let Some((number, position)) = last else { return 1 };
        let before = deleted.iter().filter(|(_, copy)| copy.position < *position).count();
        number.saturating_sub(before) + 1
    }
}

/// The targets whose rules come before those of a target.
fn before(target: Target) -> &'static [Target] {
    match target {
        Target::Accept => &[],
        Target::Reject => &[Target::Accept],
        Target::Drop => &[Target::Accept, Target::Reject],
    }
}

/// The same for caches that are compared.
fn hash(owner: &Owner) -> u64 {
    FixedState::default().hash_one(owner)
}

fn chain_of(guard: &Guard) -> KernelChain {
    if guard.is_output() { KernelChain::Output } else { KernelChain::Input }
}

fn labelled(copies: &Copies) -> impl Iterator<Item = (&Rule, &Label)> {
    copies.iter().flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy.label())))
}

fn in_order<'a>(found: impl Iterator<Item = (&'a Rule, &'a CachedRule)>) -> Vec<(&'a Rule, &'a CachedRule)> {
    let mut found: Vec<(&Rule, &CachedRule)> = found.collect();
    found.sort_by_cached_key(|(_, copy)| copy.position);
    found
}

#[cfg(test)]
mod tests;
