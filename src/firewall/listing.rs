//! What the kernel holds of rfw, row by row and straight from the tools that print
//! it: nothing is gathered, so a list of any length takes the same memory.

use super::FirewallError;
use super::sets::{SetReader, SetRules};
use crate::firewall::table::Rules;
use crate::kernel::Counters;
use crate::kernel::iptables::Owner;
use crate::kernel::set_key::SetKey;
use crate::rule::lease::Lease;
use crate::rule::network::Network;
use crate::rule::{Chain, Interface, Rule, Scope};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::SystemTime;

/// Which rules a list is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this chain only.
    pub chain: Option<Chain>,
    /// On this interface only; `Some(None)` are the rules for any interface.
    pub interface: Option<Option<Interface>>,
    /// Only those that hold this address or network, as a whole.
    pub address: Option<Network>,
}

impl Filter {
    /// Whether rules at that place are asked for. A forward rule is on both of its
    /// interfaces.
    pub fn admits_scope(&self, scope: &Scope) -> bool {
        let chain = self.chain.is_none_or(|chain| chain == scope.chain());
        let sides = [scope.input_interface(), scope.output_interface()];
        let interface = match &self.interface {
            None => true,
            Some(None) => sides == [None, None],
            Some(wanted) => sides.contains(&wanted.as_ref()),
        };
        chain && interface
    }

    /// Whether a rule is asked for.
    pub fn admits(&self, rule: &Rule) -> bool {
        let holds = |address| rule.networks().any(|network| network.covers(address));
        self.admits_scope(rule.scope()) && self.address.as_ref().is_none_or(holds)
    }
}

/// A rule of rfw as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The number in its chain, from 1, all rules of the chain counted; of an entry
    /// of a set, that of the set's rule.
    pub number: usize,
    /// What it has matched.
    pub counters: Counters,
    /// The rule.
    pub rule: Rule,
    /// How long it stays.
    pub lease: Lease,
    /// The name of the set that it is an entry of.
    pub set: Option<String>,
}

/// The rows that a filter admits, in the kernel's order.
pub struct Listing {
    filter: Filter,
    tables: VecDeque<Rules>,
    numbers: HashMap<String, usize>,
    sets: Option<SetReader>,
    /// Sets that are known to hold nothing that is asked for.
    skipped: HashSet<SetKey>,
    set: Option<OpenSet>,
    now: SystemTime,
}

/// A set whose entries are being read.
struct OpenSet {
    name: String,
    number: usize,
    rules: SetRules,
}

impl Listing {
    /// A listing of tables that are being printed; `sets` are those that their rules
    /// look packets up in.
    pub fn new(
        filter: Filter,
        tables: VecDeque<Rules>,
        sets: Option<SetReader>,
        skipped: HashSet<SetKey>,
        now: SystemTime,
    ) -> Listing {
        Listing { filter, tables, numbers: HashMap::new(), sets, skipped, set: None, now }
    }

    /// The next row; `None` after the last.
    ///
    /// # Errors
    /// A tool failed.
    pub fn next_row(&mut self) -> Result<Option<Row>, FirewallError> {
        loop {
            if let Some(row) = self.next_entry()? {
                return Ok(Some(row));
            }
            let Some(rules) = self.tables.front_mut() else { return Ok(None) };
            let Some(line) = rules.next_rule()? else {
                self.tables.pop_front();
                self.numbers.clear();
                continue;
            };
            let number = self.numbers.entry(line.chain).or_default();
            *number += 1;
            match line.owner {
                Owner::Rfw(rule, lease) if self.filter.admits(&rule) => {
                    let (number, counters) = (*number, line.counters);
                    return Ok(Some(Row { number, counters, rule, lease, set: None }));
                }
                Owner::Set(set) if self.filter.admits_scope(set.scope()) && !self.skipped.contains(&set) => {
                    let (name, number) = (set.name(), *number);
                    let rules = self.sets.as_ref().map(|sets| sets.read(set)).transpose()?;
                    self.set = rules.map(|rules| OpenSet { name, number, rules });
                }
                Owner::Rfw(..) | Owner::Set(_) | Owner::Guard(_) | Owner::Other => {}
            }
        }
    }

    /// The next entry of the set that is open.
    fn next_entry(&mut self) -> Result<Option<Row>, FirewallError> {
        let Some(OpenSet { name, number, rules }) = &mut self.set else { return Ok(None) };
        while let Some((rule, timeout, counters)) = rules.next_rule()? {
            if self.filter.admits(&rule) {
                let (number, set, lease) = (*number, Some(name.clone()), timeout.sure_end(self.now));
                return Ok(Some(Row { number, counters, rule, lease, set }));
            }
        }
        self.set = None;
        Ok(None)
    }
}
