//! What the rules of rfw have counted, by chain and target. With iptables-nft it is one netlink listing for each
//! chain; iptables-legacy has to print its tables. Sets are not looked at: the rule of one counts for all of its
//! entries.

use super::table::{Rules, Table};
use super::{Firewall, FirewallError};
use crate::kernel::Counters;
use crate::kernel::guard;
use crate::kernel::iptables::{self, Owner};
use crate::kernel::nft_rules::counters::Counted;
use crate::kernel::nft_rules::{DeletionError, NftRules};
use crate::kernel::program::ProgramError;
use crate::rule::label::Label;
use crate::rule::layout::{ChainName, InputTable, KernelChain, TableName};
use crate::rule::network::Family;
use crate::rule::{Chain, Target};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

/// Listings of a chain in a row while others change the ruleset.
const ATTEMPTS: usize = 3;

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counting {
    /// Addresses of clients, as rules or in sets.
    Rules(Chain, Target),
    /// Packets to and from the port of rfw that the guard drops.
    Guard,
}

/// What the rules that are there have counted, or totals of it.
pub(crate) type Traffic = BTreeMap<Counting, Counters>;

/// What a rule has counted by now.
struct Count {
    /// A hash of what tells the rule from others.
    rule: u64,
    of: Counting,
    counters: Counters,
}

/// What was counted since the start. Each rule is compared with what it had counted at the last reading, since a sum
/// would fall with each rule that goes, and hide as much of what the others count.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// What the rules of each family had counted at the last reading, by their hashes.
    last: BTreeMap<Family, HashMap<u64, Counters>>,
    totals: Traffic,
    hashes: RandomState,
}

impl Totals {
    /// Takes what the rules of a family have counted by now.
    fn take(&mut self, family: Family, read: &[Count]) {
        let mut counted: HashMap<u64, Counters> = HashMap::with_capacity(read.len());
        let before = self.last.remove(&family).unwrap_or_default();
        for Count { rule, of, counters } in read {
            let now = counted.entry(*rule).or_default();
            let old = *now;
            // One that others have doubled counts twice.
            add(now, counters);
            let before = before.get(rule).copied().unwrap_or_default();
            let total = self.totals.entry(*of).or_default();
            let grown = |now: u64, old: u64, before: u64| now.saturating_sub(old.max(before));
            total.packets = total.packets.saturating_add(grown(now.packets, old.packets, before.packets));
            total.bytes = total.bytes.saturating_add(grown(now.bytes, old.bytes, before.bytes));
        }
        self.last.insert(family, counted);
    }
}

impl Firewall {
    /// Packets and bytes that the rules of rfw have counted since the start, or before it where they were there.
    ///
    /// # Errors
    /// A table can't be read.
    pub(crate) fn traffic(&mut self) -> Result<Traffic, FirewallError> {
        // With iptables-legacy the programs of both families run at the same time.
        let started: Vec<_> = self.tables.iter().map(Table::printed).collect();
        for (table, started) in self.tables.iter_mut().zip(started) {
            let read = match started? {
                Some(tables) => printed(tables, &self.totals.hashes)?,
                None => table.counted(&self.totals.hashes)?,
            };
            self.totals.take(table.family(), &read);
        }
        Ok(self.totals.totals.clone())
    }
}

fn printed(tables: Vec<Rules>, hashes: &RandomState) -> Result<Vec<Count>, ProgramError> {
    let mut counts = Vec::new();
    for mut rules in tables {
        while let Some(line) = rules.next_rule()? {
            if let Some(of) = counting_of(&line.owner) {
                let rule = hashes.hash_one((&line.chain, &line.owner));
                counts.push(Count { rule, of, counters: line.counters });
            }
        }
    }
    Ok(counts)
}

/// What a rule counts for, if it is rfw's. An exception in the table `raw` counts what the rule that accepts
/// counts again.
fn counting_of(owner: &Owner) -> Option<Counting> {
    match owner {
        Owner::Rfw(..) | Owner::Set(_) => {
            owner.scope().map(|scope| Counting::Rules(scope.chain(), scope.target()))
        }
        Owner::Guard(guard) => guard.is_drop().then_some(Counting::Guard),
        Owner::Return(..) | Owner::ReturnSet(_) | Owner::Jump | Owner::Other => None,
    }
}

impl Table {
    /// The rules of its tables from a program that has been started; `None` with iptables-nft, which tells them by
    /// netlink.
    fn printed(&self) -> Result<Option<Vec<Rules>>, ProgramError> {
        if self.uses_nft() { Ok(None) } else { self.rules().map(Some) }
    }

    /// What its rules have counted, by netlink.
    fn counted(&mut self, hashes: &RandomState) -> Result<Vec<Count>, FirewallError> {
        let mut counts = Vec::new();
        for (chain, of) in self.kernel_chains() {
            let family = self.family();
            let rules = counted(self.nft_rules(), family, &chain);
            for rule in rules.map_err(FirewallError::Counters)? {
                if let Some(of) = counting(&rule, of, chain.table()) {
                    // A rule keeps its handle, which is the only one of its table.
                    let id = hashes.hash_one((chain.table(), rule.handle));
                    counts.push(Count { rule: id, of, counters: rule.counters });
                }
            }
        }
        Ok(counts)
    }

    /// The chains that may hold rules of rfw, and what each is for.
    fn kernel_chains(&self) -> Vec<(KernelChain, Chain)> {
        let layout = self.cache().layout();
        let mut chains = vec![
            (KernelChain::Input, Chain::Input),
            (KernelChain::Output, Chain::Output),
            (KernelChain::Forward(ChainName::forward()), Chain::Forward),
        ];
        if !layout.forward.is_builtin() {
            chains.push((KernelChain::Forward(layout.forward.clone()), Chain::Forward));
        }
        if layout.input == InputTable::Raw || self.cache().uses_raw() {
            chains.push((KernelChain::Raw, Chain::Input));
        }
        chains
    }
}

fn counted(rules: &mut NftRules, family: Family, chain: &KernelChain) -> Result<Vec<Counted>, DeletionError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match rules.counted(family, chain.table().name(), chain.name()) {
            Err(DeletionError::Changed) if attempts < ATTEMPTS => {}
            counted => return counted,
        }
    }
}

/// What a rule counts for, if its comment is one of rfw.
fn counting(rule: &Counted, chain: Chain, table: TableName) -> Option<Counting> {
    let target = rule.target.filter(|target| table == TableName::Filter || *target == Target::Drop)?;
    match rule.comment.as_str() {
        guard::COMMENT => (target == Target::Drop).then_some(Counting::Guard),
        comment => {
            let is_own = comment == iptables::SET || Label::from_comment(comment).is_some();
            is_own.then_some(Counting::Rules(chain, target))
        }
    }
}

fn add(sum: &mut Counters, counters: &Counters) {
    sum.packets = sum.packets.saturating_add(counters.packets);
    sum.bytes = sum.bytes.saturating_add(counters.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_never_fall_and_miss_nothing_of_rules_that_stay() {
        let of = Counting::Rules(Chain::Input, Target::Drop);
        let counters = |packets| Counters { packets, bytes: packets * 100 };
        let mut totals = Totals::default();
        let mut take = |family, rules: &[(u64, u64)]| {
            let counts =
                rules.iter().map(|(rule, packets)| Count { rule: *rule, of, counters: counters(*packets) });
            totals.take(family, &counts.collect::<Vec<_>>());
            let Counters { packets, bytes } = totals.totals.get(&of).copied().unwrap_or_default();
            assert_eq!(bytes, packets * 100);
            packets
        };
        assert_eq!(take(Family::V4, &[]), 0);
        assert_eq!(take(Family::V4, &[(1, 8), (2, 2)]), 10);
        assert_eq!(take(Family::V6, &[(1, 5)]), 15);
        assert_eq!(take(Family::V4, &[(1, 9), (2, 3)]), 17);
        // A rule is gone, and the others count on.
        assert_eq!(take(Family::V4, &[(2, 5)]), 19);
        assert_eq!(take(Family::V4, &[(2, 6), (3, 1)]), 21);
        // Counters are set to zero, and one is there twice.
        assert_eq!(take(Family::V4, &[(2, 0), (3, 3), (3, 1)]), 24);
        assert_eq!(take(Family::V4, &[(2, 1), (3, 3), (3, 2)]), 26);
        // All are gone, and come again.
        assert_eq!(take(Family::V4, &[]), 26);
        assert_eq!(take(Family::V4, &[(2, 3)]), 29);
        assert_eq!(take(Family::V6, &[(1, 5)]), 29);
    }

    #[test]
    fn only_what_is_of_rfw_is_counted() {
        let rule = |comment: &str, target| Counted {
            handle: 1,
            comment: comment.to_owned(),
            target,
            counters: Counters::default(),
        };
        let (drop, accept) = (Some(Target::Drop), Some(Target::Accept));
        let of = |chain, target| Some(Counting::Rules(chain, target));
        let golden = [
            ("rfw permanent", drop, TableName::Filter, of(Chain::Input, Target::Drop)),
            ("rfw set", accept, TableName::Filter, of(Chain::Input, Target::Accept)),
            ("rfw permanent list tor by me: why", drop, TableName::Raw, of(Chain::Input, Target::Drop)),
            ("rfw guard", drop, TableName::Filter, Some(Counting::Guard)),
            ("rfw guard", accept, TableName::Filter, None),
            ("rfw set", accept, TableName::Raw, None),
            ("rfw", drop, TableName::Raw, None),
            ("rfw permanent", None, TableName::Filter, None),
            ("of others", drop, TableName::Filter, None),
        ];
        for (comment, target, table, expected) in golden {
            assert_eq!(counting(&rule(comment, target), Chain::Input, table), expected, "{comment}");
        }
    }
}
