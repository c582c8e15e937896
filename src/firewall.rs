//! The packet filter as rfw sees it: a handful of verbs, each idempotent, each one
//! transaction of the kernel.
//!
//! The kernel is the database. A change is planned on what the kernel holds at that
//! moment; where another program changed it in between, the transaction fails as a
//! whole, the kernel is read anew and the change planned again. What rfw did not
//! make is never touched.

use crate::command::Filter;
use crate::iptables::{self, Change, Counters, Owner, Transaction};
use crate::lease::{Lease, Moment};
use crate::net::{Family, Network};
use crate::rule::Rule;
use crate::tool::{Tool, ToolError};
use crate::whitelist::WhiteList;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

/// How often a change is planned anew when the kernel's table keeps changing.
const ATTEMPTS: usize = 5;

/// Seconds to wait for another program that holds the lock of the tables.
const LOCK_WAIT: &str = "--wait=5";

/// The tables of both families, or of IPv4 alone where there is no IPv6.
pub struct Firewall {
    tables: Vec<Table>,
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

/// A rule of rfw as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number in its chain, from 1, all rules of the chain counted.
    pub number: usize,
    /// What it has matched.
    pub counters: Counters,
    /// The rule.
    pub rule: Rule,
    /// How long it stays.
    pub lease: Lease,
}

impl Firewall {
    /// The tables behind these commands; nothing is read or changed yet.
    pub fn new(v4: Commands, v6: Option<Commands>) -> Firewall {
        let v4 = Table::new(Family::V4, v4);
        let v6 = v6.map(|commands| Table::new(Family::V6, commands));
        Firewall { tables: [Some(v4), v6].into_iter().flatten().collect() }
    }

    /// Puts a rule in front of its chain, or renews the lease of the one there.
    ///
    /// # Errors
    /// The kernel does not have it: see [`FirewallError`].
    pub fn insert(&mut self, rule: &Rule, lease: Lease) -> Result<Outcome, FirewallError> {
        self.table(rule.family())?.change(|kept, transaction| {
            let leases = kept.leases(rule);
            if leases == [Lease::Permanent] && lease == Lease::Permanent {
                return Outcome::Unchanged;
            }
            leases.iter().for_each(|lease| transaction.delete(rule, *lease));
            transaction.insert(rule, lease);
            if leases.is_empty() { Outcome::Inserted } else { Outcome::Refreshed }
        })
    }

    /// Takes a rule out.
    ///
    /// # Errors
    /// The kernel may still have it: see [`FirewallError`].
    pub fn delete(&mut self, rule: &Rule) -> Result<Outcome, FirewallError> {
        self.table(rule.family())?.change(|kept, transaction| {
            let leases = kept.leases(rule);
            leases.iter().for_each(|lease| transaction.delete(rule, *lease));
            if leases.is_empty() { Outcome::Absent } else { Outcome::Deleted }
        })
    }

    /// The rules of rfw that the filter admits, in the kernel's order.
    ///
    /// # Errors
    /// A table can't be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, FirewallError> {
        let mut listed = Vec::new();
        for table in &self.tables {
            let text = table.commands.read()?;
            listed.extend(listed_in(&text, table.family).filter(|row| filter.admits(row.rule.place())));
        }
        Ok(listed)
    }

    /// Removes rules that are due at `now`, of each family at most `most` in one
    /// transaction, and gives them. The first `pass_over` are left alone; no others
    /// are left when it gives none.
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
        for table in &mut self.tables {
            removed.extend(table.change(|kept, transaction| {
                let due = kept.find(|_, lease| lease.is_due(now));
                let due = due.into_iter().skip(pass_over).take(most);
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
        let copies = self.tables.iter().flat_map(|table| table.kept.rules.values().flatten());
        copies.filter_map(|copy| copy.lease.end()).min()
    }

    /// Brings the tables into line with the white list: its networks alone may
    /// reach the port, rules that touch them go. Gives the rules removed.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub fn guard(&mut self, port: Option<u16>, list: &WhiteList) -> Result<Vec<Rule>, FirewallError> {
        let mut removed = Vec::new();
        for table in &mut self.tables {
            let family = table.family;
            removed.extend(table.change(|kept, transaction| {
                kept.guards.iter().for_each(|guard| transaction.delete_guard(guard));
                if let Some(port) = port {
                    let networks = list.networks().filter(|network| network.family() == family);
                    transaction.insert_guard(port, networks);
                }
                let conflicts = kept.find(|rule, _| list.conflict(rule).is_some());
                let remove = conflicts.into_iter().map(|(rule, lease)| {
                    transaction.delete(rule, lease);
                    rule.clone()
                });
                remove.collect::<Vec<Rule>>()
            })?);
        }
        Ok(removed)
    }

    /// Removes everything that rfw made and gives the number of rules.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub fn flush(&mut self) -> Result<usize, FirewallError> {
        let mut count: usize = 0;
        for table in &mut self.tables {
            let removed = table.change(|kept, transaction| {
                let rules = kept.find(|_, _| true);
                rules.iter().for_each(|(rule, lease)| transaction.delete(rule, *lease));
                kept.guards.iter().for_each(|guard| transaction.delete_guard(guard));
                rules.len().saturating_add(kept.guards.len())
            })?;
            count = count.saturating_add(removed);
        }
        Ok(count)
    }

    fn table(&mut self, family: Family) -> Result<&mut Table, FirewallError> {
        let table = self.tables.iter_mut().find(|table| table.family == family);
        table.ok_or(FirewallError::NoFamily(family))
    }
}

/// The commands of one family: `iptables-save` and `iptables-restore`, or those of
/// a variant such as `iptables-legacy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    save: Tool,
    restore: Tool,
}

impl Commands {
    /// Finds the companions of an iptables command by its name.
    ///
    /// # Errors
    /// One of the three is not there.
    pub fn find(command: &Path) -> Result<Commands, ToolError> {
        Tool::find(command)?;
        let companion = |suffix: &str| {
            let mut name = command.as_os_str().to_owned();
            name.push(suffix);
            Tool::find(Path::new(&name))
        };
        Ok(Commands { save: companion("-save")?, restore: companion("-restore")? })
    }

    /// The filter table as `iptables-save` prints it, counters included.
    ///
    /// # Errors
    /// It can't be read, for want of permission or of support in the kernel.
    pub fn read(&self) -> Result<String, ToolError> {
        self.save.run(&["-c", "-t", "filter"], "")
    }

    fn commit(&self, transaction: &Transaction) -> Result<(), ToolError> {
        let script = transaction.script();
        log::debug!("{}: {}", self.restore, script.trim_end().replace('\n', "; "));
        self.restore.run(&["--noflush", LOCK_WAIT], &script).map(drop)
    }
}

/// The filter table of one family.
struct Table {
    family: Family,
    commands: Commands,
    kept: Kept,
}

impl Table {
    fn new(family: Family, commands: Commands) -> Table {
        Table { family, commands, kept: Kept::default() }
    }

    /// Plans a change on what the kernel holds now and makes it. A plan that failed
    /// because the table was not what it had been is made again; one that would be
    /// the same again is an error.
    fn change<T>(&mut self, plan: impl Fn(&Kept, &mut Transaction) -> T) -> Result<T, FirewallError> {
        let mut failed: Option<(Transaction, ToolError)> = None;
        for _ in 0..ATTEMPTS {
            self.kept = Kept::read(&self.commands.read()?, self.family);
            let mut transaction = Transaction::default();
            let outcome = plan(&self.kept, &mut transaction);
            match failed {
                Some((before, error)) if before == transaction => return Err(error.into()),
                _ if transaction.changes().is_empty() => return Ok(outcome),
                _ => {}
            }
            match self.commands.commit(&transaction) {
                Ok(()) => {
                    self.kept.apply(&transaction);
                    return Ok(outcome);
                }
                Err(error @ ToolError::Failed(..)) => failed = Some((transaction, error)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failed.map_or(FirewallError::Restless, |(_, error)| error.into()))
    }
}

/// What rfw keeps in a table, as last read.
#[derive(Default)]
struct Kept {
    rules: HashMap<Rule, Vec<Copy>>,
    guards: Vec<String>,
    /// The position of the rule put in last; the kernel's own begin at 1.
    top: i64,
}

/// One of the copies of a rule; other programs may have made a second.
struct Copy {
    lease: Lease,
    position: i64,
}

impl Kept {
    fn read(text: &str, family: Family) -> Kept {
        let mut kept = Kept::default();
        for (position, line) in (1..).zip(text.lines().filter_map(|line| iptables::parse(line, family))) {
            match line.owner {
                Owner::Rfw(rule, lease) => kept.rules.entry(rule).or_default().push(Copy { lease, position }),
                Owner::Guard(specification) => kept.guards.push(specification),
                Owner::Other => {}
            }
        }
        kept
    }

    /// Does what the kernel has done.
    fn apply(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            match change {
                Change::Insert(rule, lease) => {
                    self.top = self.top.saturating_sub(1);
                    let copy = Copy { lease: *lease, position: self.top };
                    self.rules.entry(rule.clone()).or_default().push(copy);
                }
                Change::Delete(rule, lease) => {
                    if let Some(copies) = self.rules.get_mut(rule) {
                        copies.retain(|copy| copy.lease != *lease);
                    }
                }
                Change::InsertGuard(guard) => self.guards.push(guard.clone()),
                Change::DeleteGuard(guard) => self.guards.retain(|kept| kept != guard),
            }
        }
        self.rules.retain(|_, copies| !copies.is_empty());
    }

    fn leases(&self, rule: &Rule) -> Vec<Lease> {
        self.rules.get(rule).into_iter().flatten().map(|copy| copy.lease).collect()
    }

    /// The rules that are wanted, first in the table first: iptables looks for a
    /// rule to delete from the head, so this order keeps many deletes linear.
    fn find(&self, wanted: impl Fn(&Rule, Lease) -> bool) -> Vec<(&Rule, Lease)> {
        let all = self.rules.iter().flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy)));
        let mut found: Vec<_> = all.filter(|(rule, copy)| wanted(rule, copy.lease)).collect();
        found.sort_unstable_by_key(|(_, copy)| copy.position);
        found.into_iter().map(|(rule, copy)| (rule, copy.lease)).collect()
    }
}

/// The rules of rfw in a saved table.
fn listed_in(text: &str, family: Family) -> impl Iterator<Item = Listed> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let lines = text.lines().filter_map(move |line| iptables::parse(line, family));
    lines.filter_map(move |line| {
        let number = numbers.entry(line.chain).or_default();
        *number = number.saturating_add(1);
        match line.owner {
            Owner::Rfw(rule, lease) => Some(Listed { number: *number, counters: line.counters, rule, lease }),
            Owner::Guard(_) | Owner::Other => None,
        }
    })
}

/// Why the kernel does not hold what was asked for.
#[derive(Debug)]
pub enum FirewallError {
    /// A tool failed.
    Tool(ToolError),
    /// This host has no packet filter for that family.
    NoFamily(Family),
    /// Other programs changed the table again and again.
    Restless,
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
            FirewallError::Restless => f.write_str("other programs keep changing the table"),
        }
    }
}

impl std::error::Error for FirewallError {}

/// The networks of a rule as `iptables -L` prints them: no mask for a host.
pub fn printed(network: Option<&Network>, family: Family) -> String {
    network.map_or_else(|| family.any().to_owned(), Network::to_string)
}
