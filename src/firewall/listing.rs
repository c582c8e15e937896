//! The list of rules and set entries of rfw, read row by row from the output of iptables-save and
//! the kernel's sets: memory use does not depend on the length of the list.

use super::sets::Sets;
use super::sets::{ScopeRules, SetReader, Step};
use super::{Firewall, FirewallError};
use crate::firewall::table::Rules;
use crate::kernel::Counters;
use crate::kernel::iptables::Owner;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::rights::Lists;
use crate::rule::{Chain, Interface, Rule, Scope, Target};
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
    /// Only rules with this target.
    pub target: Option<Target>,
    /// Only rules of which a network contains this address or the whole of this network.
    pub address: Option<Network>,
    /// Only what is in this list.
    pub list: Option<ListName>,
    /// Only what is in these lists, which a client may see.
    pub visible: Option<Lists>,
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
        chain && interface && self.target.is_none_or(|target| target == scope.target())
    }

    /// Whether a rule is admitted.
    pub(crate) fn admits(&self, rule: &Rule) -> bool {
        let holds = |address| rule.networks().any(|network| network.covers(address));
        self.admits_scope(rule.scope()) && self.address.as_ref().is_none_or(holds)
    }

    /// Whether what is in that list is admitted.
    pub(crate) fn admits_list(&self, list: ListName) -> bool {
        let is_seen = self.visible.as_ref().is_none_or(|visible| visible.admits(list));
        is_seen && self.list.is_none_or(|wanted| wanted == list)
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
    rules: ScopeRules,
}

impl Firewall {
    /// The rules and set entries of rfw that the filter admits, in the order of the tables,
    /// to be read row by row.
    ///
    /// # Errors
    /// A table can't be read.
    pub(crate) fn list(&mut self, filter: &Filter, now: SystemTime) -> Result<Listing, FirewallError> {
        // A rule that iptables-restore has brought back enters the cache, so that it expires at the
        // end that the list shows.
        self.refresh()?;
        let skipped = self.sets_without(filter, now)?;
        let mut tables = VecDeque::new();
        for table in &self.tables {
            let cache = table.cache();
            let may_hold = |set: &SetKey| filter.admits_scope(set.scope()) && !skipped.contains(set);
            let mut rules = cache.labelled();
            // Where nothing can be found, no table has to be printed.
            if filter.address.is_none() && filter.list.is_none()
                || cache.is_astray()
                || cache.sets().any(may_hold)
                || rules.any(|(rule, label)| filter.admits(rule) && filter.admits_list(label.list))
            {
                tables.extend(table.rules()?);
            }
        }
        Ok(Listing::new(filter.clone(), tables, self.sets.as_ref().map(Sets::reader), skipped, now))
    }

    /// The sets that hold nothing of the address that a filter asks for.
    fn sets_without(&mut self, filter: &Filter, now: SystemTime) -> Result<HashSet<SetKey>, FirewallError> {
        let mut without = HashSet::new();
        if let Some(address) = filter.address {
            for union in self.linked_sets() {
                let sets = self.sets()?;
                if !sets.may_hold(&union, &address)? {
                    without.insert(union);
                    continue;
                }
                let lists = sets.list_sets(&union).into_iter().filter(|set| *set != union);
                without.extend(lists.filter(|set| !sets.may_list(set, &address, now)));
            }
        }
        Ok(without)
    }
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

    /// The next row; the kernel is asked at most once for it.
    ///
    /// # Errors
    /// A tool failed.
    pub(crate) fn next_row(&mut self) -> Result<Step<Row>, FirewallError> {
        loop {
            match self.next_entry()? {
                Step::End => self.set = None,
                step => return Ok(step),
            }
            let Some(rules) = self.tables.front_mut() else { return Ok(Step::End) };
            let Some(line) = rules.next_rule()? else {
                self.tables.pop_front();
                self.numbers.clear();
                continue;
            };
            let number = self.numbers.entry(line.chain).or_default();
            *number += 1;
            match line.owner {
                Owner::Rfw(rule, label)
                    if self.filter.admits(&rule) && self.filter.admits_list(label.list) =>
                {
                    let (number, counters) = (*number, line.counters);
                    return Ok(Step::Next(Row { number, counters, rule, label, set: None }));
                }
                Owner::Set(set) if self.filter.admits_scope(set.scope()) && !self.skipped.contains(&set) => {
                    let (name, number) = (Arc::from(set.name()), *number);
                    let wanted = |set: &SetKey| {
                        let list = set.list().unwrap_or_default();
                        !self.skipped.contains(set) && self.filter.admits_list(list)
                    };
                    let rules = self.sets.as_ref().map(|sets| sets.read(&set, wanted)).transpose()?;
                    self.set = rules.map(|rules| OpenSet { name, number, rules });
                }
                // An exception is a part of the rule that accepts.
                Owner::Return(..) | Owner::ReturnSet(_) | Owner::Jump => {}
                Owner::Rfw(..) | Owner::Set(_) | Owner::Guard(_) | Owner::Other => {}
            }
        }
    }

    /// The next entry of the set that is open.
    fn next_entry(&mut self) -> Result<Step<Row>, FirewallError> {
        let (Some(OpenSet { name, number, rules }), Some(sets)) = (&mut self.set, &self.sets) else {
            return Ok(Step::End);
        };
        loop {
            return Ok(match rules.next_rule(sets, self.now)? {
                Step::Next((rule, _, _)) if !self.filter.admits(&rule) => continue,
                Step::Next((rule, label, counters)) => {
                    let (number, set) = (*number, Some(Arc::clone(name)));
                    Step::Next(Row { number, counters, rule, label, set })
                }
                Step::Piece => Step::Piece,
                Step::End => Step::End,
            });
        }
    }
}
