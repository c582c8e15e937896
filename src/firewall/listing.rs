//! The list of rules and set entries of rfw, read row by row from the output of iptables-save and
//! the kernel's sets: memory use does not depend on the length of the list.

use super::FirewallError;
use super::sets::{SetReader, SetRules};
use crate::firewall::table::Rules;
use crate::kernel::Counters;
use crate::kernel::iptables::Owner;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::{Chain, Interface, Rule, Scope};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

/// Which rules a list includes; a field that is `None` admits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    /// Only rules of this chain.
    pub chain: Option<Chain>,
    /// Only rules with this interface; `Some(None)` admits those for any interface.
    pub interface: Option<Option<Interface>>,
    /// Only rules of which a network contains this address or the whole of this network.
    pub address: Option<Network>,
    /// Only what is in this list.
    pub list: Option<ListName>,
}

impl Filter {
    /// Whether rules of that scope are admitted. Of a FORWARD rule, either interface counts.
    pub(crate) fn admits_scope(&self, scope: &Scope) -> bool {
        let chain = self.chain.is_none_or(|chain| chain == scope.chain());
        let sides = [scope.input_interface(), scope.output_interface()];
        let interface = match &self.interface {
            None => true,
            Some(None) => sides == [None, None],
            Some(wanted) => sides.contains(&wanted.as_ref()),
        };
        chain && interface
    }

    /// Whether a rule is admitted.
    pub(crate) fn admits(&self, rule: &Rule) -> bool {
        let holds = |address| rule.networks().any(|network| network.covers(address));
        self.admits_scope(rule.scope()) && self.address.as_ref().is_none_or(holds)
    }
}

/// A rule or set entry of rfw in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The rule number in its chain, from 1, foreign rules included; for a set entry, that
    /// of the rule of the set.
    pub number: usize,
    /// Its packet and byte counters.
    pub counters: Counters,
    /// The rule.
    pub rule: Rule,
    /// When it expires, the list that it is in, and why.
    pub label: Label,
    /// The name of its set, if it is a set entry.
    pub set: Option<Arc<str>>,
}

/// The rows that a filter admits, in the order of the tables; the entries of a set take
/// the place of its rule.
pub(crate) struct Listing {
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
    name: Arc<str>,
    number: usize,
    rules: SetRules,
}

impl Listing {
    /// A listing of tables that are being printed; `sets` are those that their rules
    /// look packets up in.
    pub(crate) fn new(
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
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, FirewallError> {
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
                    let label = Label::new(lease, ListName::UNNAMED);
                    return Ok(Some(Row { number, counters, rule, label, set: None }));
                }
                Owner::Set(set) if self.filter.admits_scope(set.scope()) && !self.skipped.contains(&set) => {
                    let (name, number) = (Arc::from(set.name()), *number);
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
                let (number, set, lease) = (*number, Some(Arc::clone(name)), timeout.sure_end(self.now));
                let label = Label::new(lease, ListName::UNNAMED);
                return Ok(Some(Row { number, counters, rule, label, set }));
            }
        }
        self.set = None;
        Ok(None)
    }
}
