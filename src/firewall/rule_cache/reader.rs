//! A reading of the tables of one family, rule by rule: which rules are rfw's, whether they stand where
//! they should, and which of others stand before them.

use super::first::{Overtaken, is_open};
use super::{Astray, CachedRule, ForwardChain, Placed, RawChain, RuleCache, hash};
use crate::kernel::iptables::{Line, Owner};
use crate::rule::Target;
use crate::rule::layout::{ChainName, InputTable, KernelChain, Layout, RAW_CHAIN, TableName};
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet, VecDeque};

/// Targets after which a packet goes on to the next rule, or to none. RETURN ends the chain, and what
/// comes after that is not this rule's. Any other target, as one that hands the packet to a program, could
/// accept it (iptables-extensions(8)).
const HARMLESS: [&str; 29] = [
    "DROP",
    "REJECT",
    "RETURN",
    "LOG",
    "NFLOG",
    "ULOG",
    "MARK",
    "CONNMARK",
    "CONNSECMARK",
    "SECMARK",
    "CLASSIFY",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "ECN",
    "TCPMSS",
    "TCPOPTSTRIP",
    "SET",
    "CT",
    "NOTRACK",
    "TRACE",
    "AUDIT",
    "CHECKSUM",
    "RATEEST",
    "HMARK",
    "IDLETIMER",
    "LED",
    "TEE",
];

/// What a reading has shown so far.
#[derive(Default)]
pub(in crate::firewall) struct CacheReader {
    layout: Layout,
    placed: Vec<Placed>,
    /// The rules so far of each chain.
    numbers: HashMap<(TableName, String), usize>,
    position: i64,
    /// The targets of foreign rules in each chain, each with the number of the first such rule; an empty
    /// one stands for none.
    targets: HashMap<(TableName, String), HashMap<String, usize>>,
    chains: HashSet<(TableName, String)>,
    /// The packets that rules of rfw have counted, by their hash.
    counted: HashMap<u64, u64, FixedState>,
}

impl CacheReader {
    /// A reading of tables where rules are to stand so.
    pub(in crate::firewall) fn new(layout: Layout) -> CacheReader {
        CacheReader { layout, ..CacheReader::default() }
    }

    /// Takes the next rule of a table.
    pub(in crate::firewall) fn line(&mut self, table: TableName, line: Line) {
        let key = (table, line.chain);
        let number = self.numbers.entry(key.clone()).or_default();
        *number += 1;
        let number = *number;
        self.position += 1;
        match (line.owner, KernelChain::named(table, &key.1)) {
            (Owner::Other, _) | (_, None) => {
                let target = line.target.unwrap_or_default();
                self.targets.entry(key).or_default().entry(target).or_insert(number);
            }
            (owner, Some(chain)) => {
                let position = self.position;
                if line.counters.packets > 0 {
                    self.counted.insert(hash(&owner), line.counters.packets);
                }
                self.placed.push(Placed { chain, owner, number, position });
            }
        }
    }

    /// Takes the names of the chains of a table.
    pub(in crate::firewall) fn chains(&mut self, table: TableName, chains: &[String]) {
        self.chains.extend(chains.iter().map(|chain| (table, chain.clone())));
    }

    /// The cache, after the last rule.
    pub(in crate::firewall) fn end(mut self) -> RuleCache {
        let placed = std::mem::take(&mut self.placed);
        self.placed = placed.into_iter().filter(|placed| self.may_hold_own(&placed.chain)).collect();
        let forward = self.forward_chain();
        if forward == ForwardChain::Missing {
            self.layout.forward = ChainName::forward();
        }
        let (layout, counted) = (self.layout.clone(), std::mem::take(&mut self.counted));
        let mut cache = RuleCache { layout, forward, counted, ..RuleCache::default() };
        cache.raw = self.raw_chain();
        let chains = self.chains.iter().filter(|(table, _)| *table == TableName::Filter);
        cache.chains = chains.map(|(_, name)| name.clone()).collect();
        for chain in
            [KernelChain::Input, KernelChain::Forward(self.layout.forward.clone()), KernelChain::Prerouting]
        {
            let by_others = self.is_overtaken(&chain);
            if by_others || self.is_behind_open_guard(&chain) {
                let own = self.placed.iter().filter(|placed| placed.chain == chain).cloned().collect();
                cache.overtaken.insert(chain, Overtaken { own, by_others });
            }
        }
        let mut exceptions: HashMap<Owner, VecDeque<Placed>> = HashMap::new();
        for placed in self.placed {
            take(&mut cache, &mut exceptions, placed);
        }
        cache.astray.match_exceptions(&cache.layout, exceptions, accepts(&cache));
        cache
    }

    /// Whether rules of `forward` that look like rfw's are rfw's in a chain that no option names: not
    /// where packets of INPUT or OUTPUT get to and those of FORWARD do not, as there they would be none of
    /// `forward`.
    fn may_hold_own(&self, chain: &KernelChain) -> bool {
        let KernelChain::Forward(name) = chain else { return true };
        let leads_here = |from| self.leads_to(TableName::Filter, from, name.as_str());
        name.is_builtin()
            || *name == self.layout.forward
            || leads_here("FORWARD")
            || !(leads_here("INPUT") || leads_here("OUTPUT"))
    }

    fn forward_chain(&self) -> ForwardChain {
        let name = self.layout.forward.as_str();
        match self.layout.forward.is_builtin() {
            true => ForwardChain::InUse,
            false if !self.is_chain(TableName::Filter, name) => ForwardChain::Missing,
            false if self.leads_to(TableName::Filter, "FORWARD", name) => ForwardChain::InUse,
            false => ForwardChain::Unreached,
        }
    }

    fn raw_chain(&self) -> RawChain {
        let of = |chain: KernelChain| self.placed.iter().filter(move |placed| placed.chain == chain).count();
        let mut others = self.targets.iter().filter(|((table, _), _)| *table == TableName::Raw);
        RawChain {
            is_there: self.is_chain(TableName::Raw, RAW_CHAIN),
            rules: of(KernelChain::Raw),
            jumps: of(KernelChain::Prerouting),
            has_others: self.targets.contains_key(&(TableName::Raw, RAW_CHAIN.to_owned())),
            is_referenced: others.any(|(_, targets)| targets.contains_key(RAW_CHAIN)),
        }
    }

    fn is_chain(&self, table: TableName, name: &str) -> bool {
        self.chains.contains(&(table, name.to_owned()))
    }

    /// Whether a foreign rule that could accept stands before the last rule of rfw in a chain.
    fn is_overtaken(&self, chain: &KernelChain) -> bool {
        let own = self.placed.iter().filter(|placed| placed.chain == *chain);
        let Some(last) = own.map(|placed| placed.number).max() else { return false };
        let others = self.targets.get(&(chain.table(), chain.name().to_owned()));
        others
            .into_iter()
            .flatten()
            .any(|(target, first)| *first < last && self.could_accept(chain.table(), target))
    }

    /// Whether a rule of rfw stands behind its guard where that is open for all: what it blocks would get to the
    /// port.
    fn is_behind_open_guard(&self, chain: &KernelChain) -> bool {
        let own = || self.placed.iter().filter(|placed| placed.chain == *chain);
        let is_guard = |placed: &&Placed| matches!(placed.owner, Owner::Guard(_));
        let open = own().find(|placed| is_open(&placed.owner)).map(|placed| placed.number);
        open.is_some_and(|open| own().any(|placed| placed.number > open && !is_guard(&placed)))
    }

    /// Whether a rule with that target could accept a packet: for a chain, whether a foreign rule in it,
    /// or in one that it jumps to, could.
    fn could_accept(&self, table: TableName, target: &str) -> bool {
        self.any_reached(table, target, |target| {
            !target.is_empty() && !HARMLESS.contains(&target) && !self.is_chain(table, target)
        })
    }

    /// Whether rules of a chain jump to another one, directly or not.
    fn leads_to(&self, table: TableName, chain: &str, other: &str) -> bool {
        self.any_reached(table, chain, |target| target == other)
    }

    /// Whether a target, or one of those that are reached from it if it is a chain, is wanted.
    fn any_reached(&self, table: TableName, target: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let (mut seen, mut left) = (HashSet::new(), vec![target]);
        while let Some(target) = left.pop() {
            if wanted(target) {
                return true;
            }
            if seen.insert(target) {
                let targets = self.targets.get(&(table, target.to_owned()));
                left.extend(targets.into_iter().flat_map(HashMap::keys).map(String::as_str));
            }
        }
        false
    }
}

/// Takes a rule of rfw to where it belongs in the cache.
fn take(cache: &mut RuleCache, exceptions: &mut HashMap<Owner, VecDeque<Placed>>, placed: Placed) {
    let (number, position) = (placed.number, placed.position);
    let is_home = placed.owner.scope().is_none_or(|scope| cache.layout.chain(scope) == placed.chain);
    match placed.owner {
        Owner::Rfw(rule, label) if is_home => {
            cache.note_last(placed.chain, rule.scope().target(), number, position);
            cache.put(rule, CachedRule { label, position, number });
        }
        Owner::Set(set) if is_home => {
            cache.note_last(placed.chain, set.scope().target(), number, position);
            cache.sets.entry(set).or_default().push(position);
        }
        Owner::Return(..) | Owner::ReturnSet(_) if cache.layout.input == InputTable::Raw => {
            cache.note_last(KernelChain::Raw, Target::Accept, number, position);
            exceptions.entry(placed.owner.clone()).or_default().push_back(placed);
        }
        Owner::Rfw(..) | Owner::Set(_) | Owner::Return(..) | Owner::ReturnSet(_) => {
            cache.astray.misplaced.push(placed);
        }
        Owner::Guard(guard) => cache.guards.push_back(guard),
        Owner::Jump | Owner::Other => {}
    }
}

/// The rules that accept, each with the position of one instance.
fn accepts(cache: &RuleCache) -> Vec<(Owner, i64)> {
    if cache.layout.input == InputTable::Filter {
        // None has an exception.
        return Vec::new();
    }
    let rules = cache.accepts.iter().flat_map(|(rule, copies)| {
        copies.iter().map(move |copy| (Owner::Rfw(rule.clone(), copy.label.clone()), copy.position))
    });
    let sets = cache.sets.iter().filter(|(set, _)| set.scope().target() == Target::Accept);
    let sets = sets.flat_map(|(set, positions)| {
        positions.iter().map(move |position| (Owner::Set(set.clone()), *position))
    });
    rules.chain(sets).collect()
}

impl Astray {
    /// Finds exceptions that are missing, and those that go with nothing.
    fn match_exceptions(
        &mut self,
        layout: &Layout,
        mut exceptions: HashMap<Owner, VecDeque<Placed>>,
        accepts: Vec<(Owner, i64)>,
    ) {
        for (owner, position) in accepts {
            if !owner.scope().is_some_and(|scope| layout.has_exception(scope)) {
                continue;
            }
            let owner = owner.in_raw();
            if exceptions.get_mut(&owner).and_then(VecDeque::pop_front).is_none() {
                self.lacking.push(Placed { chain: KernelChain::Raw, owner, number: 1, position });
            }
        }
        self.misplaced.extend(exceptions.into_values().flatten());
        self.misplaced.sort_by_cached_key(|placed| placed.position);
        self.lacking.sort_by_cached_key(|placed| placed.position);
    }
}
