//! The packet filter as rfw sees it: a handful of verbs, each idempotent, each one
//! transaction of the kernel.
//!
//! The kernel is the database. An address is a rule of its own, or with the option
//! `ipset` an entry of a set that one rule looks packets up in; both work the same
//! to a client. What rfw did not make is never touched.

mod adopt;
mod entries;

use crate::ipset::{self, Set, Side, TIMEOUT_MAX};
use crate::iptables::{self, Transaction};
use crate::lease::{Lease, Moment};
use crate::listing::{Filter, Listing};
use crate::net::{Family, Network};
use crate::rule::{Chain, Place, Rule};
use crate::sets::{Count, Entered, Sets, Wish};
use crate::table::{Commands, Kept, Table, Trust};
use crate::tool::ToolError;
use crate::whitelist::WhiteList;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::SystemTime;

/// So many rules of its own make rfw say that sets are the better choice.
const MANY_RULES: usize = 500;

/// The tables of both families, or of IPv4 alone where there is no IPv6, and the
/// sets.
pub struct Firewall {
    tables: Vec<Table>,
    sets: Option<Sets>,
    use_sets: bool,
    said_many: bool,
    /// The port that is guarded, and who may reach it.
    guarded: Option<(u16, WhiteList)>,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The rule was not there and now is.
    Inserted,
    /// The rule was there and has another lease now.
    Refreshed,
    /// The rule was there for ever and stays so.
    Unchanged,
    /// The rule was there and is gone.
    Deleted,
    /// The rule was not there.
    Absent,
}

impl Outcome {
    /// The word for it in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Inserted => "inserted",
            Outcome::Refreshed => "refreshed",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
            Outcome::Absent => "absent",
        }
    }
}

impl Firewall {
    /// The tables behind these commands, and the sets if the host has ipset;
    /// `use_sets` tells whether addresses are kept in them. Nothing is read or
    /// changed yet.
    pub fn new(v4: Commands, v6: Option<Commands>, sets: Option<Sets>, use_sets: bool) -> Firewall {
        let v4 = Table::new(Family::V4, v4);
        let v6 = v6.map(|commands| Table::new(Family::V6, commands));
        let tables = [Some(v4), v6].into_iter().flatten().collect();
        Firewall { tables, use_sets: use_sets && sets.is_some(), sets, said_many: false, guarded: None }
    }

    /// Puts a rule in front of its chain, or renews the lease of the one there.
    ///
    /// # Errors
    /// The kernel does not have it: see [`FirewallError`].
    pub fn insert(&mut self, rule: &Rule, lease: Lease, now: SystemTime) -> Result<Outcome, FirewallError> {
        let set = Set::of(rule);
        if self.is_for_sets(&set)? {
            return self.insert_entry(rule, &set, lease, now);
        }
        let by_precedence = self.use_sets;
        let trust = if lease == Lease::Permanent { Trust::Kernel } else { Trust::Memory };
        if by_precedence {
            self.table(rule.family())?.forget();
        }
        let outcome = self.change(rule.family(), trust, |kept, transaction| {
            let leases = kept.leases(rule);
            if leases == [Lease::Permanent] && lease == Lease::Permanent {
                return Outcome::Unchanged;
            }
            let number = if by_precedence { kept.number_for_rule(rule) } else { 1 };
            leases.iter().for_each(|lease| transaction.delete(rule, *lease));
            transaction.insert(rule, lease, number);
            if leases.is_empty() { Outcome::Inserted } else { Outcome::Refreshed }
        })?;
        self.say_if_many();
        Ok(outcome)
    }

    /// Takes a rule out.
    ///
    /// # Errors
    /// The kernel may still have it: see [`FirewallError`].
    pub fn delete(&mut self, rule: &Rule) -> Result<Outcome, FirewallError> {
        let as_rule = self.change(rule.family(), Trust::Kernel, |kept, transaction| {
            let leases = kept.leases(rule);
            leases.iter().for_each(|lease| transaction.delete(rule, *lease));
            if leases.is_empty() { Outcome::Absent } else { Outcome::Deleted }
        })?;
        let set = Set::of(rule);
        if !self.use_sets || !self.table(rule.family())?.has_set(&set)? {
            return Ok(as_rule);
        }
        match self.sets()?.delete(&set.name(), &ipset::element(rule))? {
            Entered::Done => Ok(Outcome::Deleted),
            Entered::Already | Entered::Full | Entered::NoSet => Ok(as_rule),
        }
    }

    /// Puts in or renews a rule for every address of a list at one place: for each
    /// family all of them or none.
    ///
    /// # Errors
    /// See [`FirewallError`]; where a set has no room nothing has been changed.
    pub fn insert_all(
        &mut self,
        place: &Place,
        list: &[Network],
        lease: Lease,
        now: SystemTime,
    ) -> Result<Count, FirewallError> {
        let timeout = if self.use_sets { Some(entries::timeout(lease, now)?) } else { None };
        let batches = self.batches(place, list)?;
        if self.use_sets {
            batches.iter().try_for_each(|batch| self.check_room(batch))?;
        }
        let mut total = Count::default();
        for batch in &batches {
            total.add(match timeout {
                Some(timeout) => self.insert_entries(batch, timeout)?,
                None => self.insert_rules(batch, lease)?,
            });
        }
        self.say_if_many();
        Ok(total)
    }

    /// Takes out the rule of every address of a list at one place.
    ///
    /// # Errors
    /// See [`FirewallError`].
    pub fn delete_all(&mut self, place: &Place, list: &[Network]) -> Result<Count, FirewallError> {
        let mut total = Count::default();
        for batch in &self.batches(place, list)? {
            let as_rules = self.delete_rules(batch)?;
            let in_set = self.use_sets && self.table(batch.set.family())?.has_set(&batch.set)?;
            total.add(match in_set {
                true => self.change_entries(batch, Wish::Delete, &as_rules)?,
                false => batch.count(as_rules.len()),
            });
        }
        Ok(total)
    }

    /// The rules of rfw that the filter admits, in the kernel's order, to be read
    /// row by row.
    ///
    /// # Errors
    /// A table can't be read.
    pub fn list(&mut self, filter: &Filter, now: SystemTime) -> Result<Listing, FirewallError> {
        let mut tables = VecDeque::new();
        for table in &mut self.tables {
            // What is listed with an end has to have it, whoever brought it there.
            table.refresh()?;
            tables.push_back((table.family(), table.commands().read()?));
        }
        Ok(Listing::new(filter.clone(), tables, self.sets.as_ref(), now))
    }

    /// Removes rules that are due at `now`, of each family at most `most` in one
    /// transaction, and gives them. The first `pass_over` are left alone; no others
    /// are left when it gives none. Entries of sets are swept by the kernel.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub fn sweep(
        &mut self,
        now: SystemTime,
        pass_over: usize,
        most: usize,
    ) -> Result<Vec<Rule>, FirewallError> {
        let mut removed = Vec::new();
        for family in self.families() {
            removed.extend(self.change(family, Trust::Sweep, |kept, transaction| {
                let due = kept.find(|_, lease| lease.is_due(now)).into_iter().skip(pass_over).take(most);
                due.map(|(rule, lease)| {
                    transaction.delete(rule, lease);
                    rule.clone()
                })
                .collect::<Vec<Rule>>()
            })?);
        }
        Ok(removed)
    }

    /// When the next rule is due, as far as rfw has read the tables.
    pub fn next_due(&self) -> Option<Moment> {
        self.tables.iter().flat_map(|table| table.kept().all_leases()).filter_map(Lease::end).min()
    }

    /// Brings the tables into line with the white list: its networks alone may
    /// reach the port, rules and entries that touch them go. Gives those removed.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub fn guard(&mut self, port: Option<u16>, list: &WhiteList) -> Result<Vec<Rule>, FirewallError> {
        let mut removed = Vec::new();
        for family in self.families() {
            removed.extend(self.change(family, Trust::Kernel, |kept, transaction| {
                replace_guard(kept, transaction, family, port, list);
                let conflicts = kept.find(|rule, _| list.conflict(rule).is_some());
                let remove = conflicts.into_iter().map(|(rule, lease)| {
                    transaction.delete(rule, lease);
                    rule.clone()
                });
                remove.collect::<Vec<Rule>>()
            })?);
        }
        self.guarded = port.map(|port| (port, list.clone()));
        for set in self.linked_sets() {
            removed.extend(self.remove_entries(&set, |rule| list.conflict(rule).is_some())?);
        }
        Ok(removed)
    }

    /// Reads the tables anew where others may have changed them, and puts the guard
    /// back that they have removed.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub fn look_after(&mut self) -> Result<(), FirewallError> {
        let guarded = self.guarded.clone();
        for family in self.families() {
            let table = self.table(family)?;
            table.refresh()?;
            let Some((port, list)) = &guarded else { continue };
            let networks = list.networks().filter(|network| network.family() == family).count();
            if table.kept().guards().len() == iptables::guard_len(networks) {
                continue;
            }
            log::warn!("the rules that guard port {port} on {family} are not as they were: put back");
            self.change(family, Trust::Kernel, |kept, transaction| {
                replace_guard(kept, transaction, family, Some(*port), list);
            })?;
        }
        Ok(())
    }

    /// Removes everything that rfw made and gives the number of rules and entries.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub fn flush(&mut self) -> Result<usize, FirewallError> {
        let mut count = 0;
        for family in self.families() {
            self.table(family)?.refresh()?;
            for set in self.linked_sets().iter().filter(|set| set.family() == family) {
                count += self.sets.as_ref().map_or(Ok(0), |sets| sets.size(&set.name()))?;
            }
            count += self.change(family, Trust::Kernel, |kept, transaction| {
                let rules = kept.find(|_, _| true);
                rules.iter().for_each(|(rule, lease)| transaction.delete(rule, *lease));
                kept.rules_of_sets().for_each(|set| transaction.delete_set(set));
                kept.guards().iter().for_each(|guard| transaction.delete_guard(guard));
                rules.len() + kept.guards().len()
            })?;
        }
        self.clear_away()?;
        Ok(count)
    }

    fn families(&self) -> Vec<Family> {
        self.tables.iter().map(Table::family).collect()
    }

    fn table(&mut self, family: Family) -> Result<&mut Table, FirewallError> {
        let table = self.tables.iter_mut().find(|table| table.family() == family);
        table.ok_or(FirewallError::NoFamily(family))
    }

    fn sets(&mut self) -> Result<&mut Sets, FirewallError> {
        self.sets.as_mut().ok_or(FirewallError::NoSets)
    }

    /// Changes the table of a family and tells the other, which is of the same
    /// ruleset where this is nftables.
    fn change<T>(
        &mut self,
        family: Family,
        trust: Trust,
        plan: impl Fn(&Kept, &mut Transaction) -> T,
    ) -> Result<T, FirewallError> {
        let table = self.table(family)?;
        let outcome = table.change(trust, plan);
        if let Some((before, after)) = table.take_own_change() {
            let others = self.tables.iter_mut().filter(|table| table.family() != family);
            others.for_each(|table| table.note_change(before, after));
        }
        Ok(outcome?)
    }

    /// Once says that sets are better for so many rules.
    fn say_if_many(&mut self) {
        let rules: usize = self.tables.iter().map(|table| table.kept().len()).sum();
        if !self.use_sets && !self.said_many && rules > MANY_RULES {
            self.said_many = true;
            log::warn!(
                "{rules} rules: each packet is compared with one after the other; \
                 with the option ipset in rfw.conf they cost as little as a single rule"
            );
        }
    }
}

/// Plans the rules that guard a port in place of those there are.
fn replace_guard(
    kept: &Kept,
    transaction: &mut Transaction,
    family: Family,
    port: Option<u16>,
    list: &WhiteList,
) {
    kept.guards().iter().for_each(|guard| transaction.delete_guard(guard));
    if let Some(port) = port {
        transaction.insert_guard(port, list.networks().filter(|network| network.family() == family));
    }
}

/// Addresses in rules.
impl Firewall {
    fn insert_rules(&mut self, batch: &Batch, lease: Lease) -> Result<Count, FirewallError> {
        self.change(batch.set.family(), Trust::Memory, |kept, transaction| {
            let present = batch.delete_present(kept, transaction).len();
            batch.rules.iter().for_each(|rule| transaction.insert(rule, lease, 1));
            batch.count(present)
        })
    }

    /// Deletes those of a batch that are rules, and gives them.
    fn delete_rules(&mut self, batch: &Batch) -> Result<HashSet<Network>, FirewallError> {
        self.change(batch.set.family(), Trust::Kernel, |kept, transaction| {
            batch.delete_present(kept, transaction)
        })
    }

    fn batches(&self, place: &Place, list: &[Network]) -> Result<Vec<Batch>, FirewallError> {
        let mut batches = Vec::new();
        for family in [Family::V4, Family::V6] {
            let networks: HashSet<Network> = list.iter().copied().filter(|n| n.family() == family).collect();
            if networks.is_empty() {
                continue;
            }
            if !self.families().contains(&family) {
                return Err(FirewallError::NoFamily(family));
            }
            batches.push(Batch::new(place, family, networks, self.use_sets));
        }
        Ok(batches)
    }
}

/// The addresses of one family in a list.
struct Batch {
    set: Set,
    networks: HashSet<Network>,
    /// The rules they make, which are not needed where they are in sets.
    rules: HashSet<Rule>,
}

impl Batch {
    fn new(place: &Place, family: Family, networks: HashSet<Network>, in_sets: bool) -> Batch {
        let side = match place.chain() {
            Chain::Output => Side::Destination,
            Chain::Input | Chain::Forward => Side::Source,
        };
        let rules = match in_sets {
            true => HashSet::new(),
            false => networks.iter().filter_map(|network| place.clone().rule(*network).ok()).collect(),
        };
        Batch { set: Set::new(family, place.clone(), side), networks, rules }
    }

    /// Those that are there as rules.
    fn present<'a>(&self, kept: &'a Kept) -> Vec<(&'a Rule, Lease)> {
        kept.find(|rule, _| match self.rules.is_empty() {
            true => {
                Set::of(rule) == self.set && rule.networks().all(|network| self.networks.contains(network))
            }
            false => self.rules.contains(rule),
        })
    }

    /// Deletes those that are there, and gives them.
    fn delete_present(&self, kept: &Kept, transaction: &mut Transaction) -> HashSet<Network> {
        let present = self.present(kept);
        present.iter().for_each(|(rule, lease)| transaction.delete(rule, *lease));
        present.iter().flat_map(|(rule, _)| rule.networks().copied()).collect()
    }

    fn count(&self, present: usize) -> Count {
        Count { present, absent: self.networks.len().saturating_sub(present) }
    }
}

/// Why the kernel does not hold what was asked for.
#[derive(Debug)]
pub enum FirewallError {
    /// A tool failed.
    Tool(ToolError),
    /// This host has no packet filter for that family.
    NoFamily(Family),
    /// There are entries of sets, and no ipset to read them.
    NoSets,
    /// A set has its most entries.
    Full(u32),
    /// A time in seconds that a set can't hold.
    TooLong(u64),
}

impl From<ToolError> for FirewallError {
    fn from(error: ToolError) -> FirewallError {
        FirewallError::Tool(error)
    }
}

impl fmt::Display for FirewallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FirewallError::Tool(error) => error.fmt(f),
            FirewallError::NoFamily(family) => write!(f, "{family} is not available on this host"),
            FirewallError::NoSets => f.write_str("the tables use sets of rfw, but ipset is not installed"),
            FirewallError::Full(most) => {
                write!(f, "no room: a set has at most {most} entries (ipset.maxelem in rfw.conf)")
            }
            FirewallError::TooLong(seconds) => write!(
                f,
                "{seconds} seconds are too long: a set holds an address for at most {TIMEOUT_MAX} seconds, or for ever with expire=0"
            ),
        }
    }
}

impl std::error::Error for FirewallError {}

/// The networks of a rule as `iptables -L` prints them: no mask for a host.
pub fn printed(network: Option<&Network>, family: Family) -> String {
    network.map_or_else(|| family.any().to_owned(), Network::to_string)
}
