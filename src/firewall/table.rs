//! The filter table of one family: what rfw keeps in it, and changes planned on
//! that, made as one transaction of the kernel.
//!
//! What was read last is remembered, so that a change need not read the whole
//! table. With iptables-nft the kernel tells whether anything has changed since
//! ([`crate::kernel::generation`]). With iptables-legacy nothing does: there a plan is made
//! on memory only where the transaction itself fails if memory is wrong.

use crate::kernel::coprocess::{Coprocess, Sentinel};
use crate::kernel::generation;
use crate::kernel::guard::Guard;
use crate::kernel::iptables::{Change, Line, Owner, Transaction};
use crate::kernel::program::{Lines, Program, ProgramError};
use crate::kernel::save_reader::{End, SaveReader};
use crate::kernel::set_key::SetKey;
use crate::rule::lease::Lease;
use crate::rule::network::Family;
use crate::rule::{Chain, Rule, Scope, Target};
use crate::stop_signal::StopSignal;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter;
use std::path::Path;

/// How often a change is planned anew when the kernel's table keeps changing.
const ATTEMPTS: usize = 5;

/// Without touching the other rules, after at most five seconds of waiting for the
/// lock of the tables, and with comments repeated on standard output.
const RESTORE: [&str; 3] = ["--noflush", "--wait=5", "--verbose"];

/// The same for what is not urgent, with the shortest waiting that iptables-legacy
/// knows. nftables has no such lock.
const RESTORE_LATER: [&str; 3] = ["--noflush", "--wait=1", "--verbose"];

/// A comment, which iptables-restore repeats when all before it is committed.
const COMMITTED: Sentinel = Sentinel { ask: "# rfw: committed", answer: "rfw: committed", goes_on: false };

/// The commands of one family: `iptables-save` and `iptables-restore`, or those of
/// a variant such as `iptables-legacy`.
#[derive(Debug, Clone)]
pub struct Commands {
    save: Program,
    restore: Program,
    nft: bool,
}

impl Commands {
    /// Finds the companions of an iptables command by its name, and sees that they
    /// read the whole table.
    ///
    /// # Errors
    /// One of the three is not there, or fails, or the table can't be read whole.
    pub fn find(command: &Path, family: Family, stop: &StopSignal) -> Result<Commands, ProgramError> {
        Program::find(command, stop)?;
        let companion = |suffix: &str| {
            let mut name = command.as_os_str().to_owned();
            name.push(suffix);
            Program::find(Path::new(&name), stop)
        };
        let (save, restore) = (companion("-save")?, companion("-restore")?);
        let nft = restore.run(&["--version"])?.iter().any(|line| line.contains("nf_tables"));
        let commands = Commands { save, restore, nft };
        let mut rules = commands.read(family)?;
        while rules.next_rule()?.is_some() {}
        Ok(commands)
    }

    /// The rules of the filter table as `iptables-save` prints them, with counters.
    ///
    /// # Errors
    /// It can't be started.
    pub fn read(&self, family: Family) -> Result<Rules, ProgramError> {
        let lines = self.save.lines(&["-c", "-t", "filter"])?;
        Ok(Rules { lines, reading: SaveReader::new(family), family, nft: self.nft })
    }
}

/// The rules of a table that is being printed.
pub struct Rules {
    lines: Lines,
    reading: SaveReader,
    family: Family,
    nft: bool,
}

impl Rules {
    /// The next rule; `None` after the last, if all of the table has come.
    ///
    /// # Errors
    /// The tool failed, or it did not print the whole table.
    pub fn next_rule(&mut self) -> Result<Option<Line>, ProgramError> {
        loop {
            let read = match self.lines.next_line() {
                Ok(Some(line)) => self.reading.line(&line),
                Ok(None) => match self.reading.end() {
                    Ok(End::Whole) => return Ok(None),
                    Ok(End::Empty) if self.is_absent() => return Ok(None),
                    Ok(End::Empty) => Err("it printed nothing".to_owned()),
                    Err(why) => Err(why),
                },
                // What it said is why it did not go on with a table that it had begun.
                Err(ProgramError::Failed(_, status, words)) if self.reading.has_begun() => {
                    let status = status.map(|status| format!("{status}: ")).unwrap_or_default();
                    Err(format!("{status}{words}"))
                }
                Err(error) => return Err(error),
            };
            match read {
                Ok(None) => {}
                Ok(rule) => return Ok(rule),
                Err(why) => return Err(self.unreadable(why)),
            }
        }
    }

    /// Whether it is certain that there is no table yet. iptables-legacy makes it when
    /// it is read.
    fn is_absent(&self) -> bool {
        self.nft && generation::has_filter_table(self.family) == Some(false)
    }

    fn unreadable(&self, why: String) -> ProgramError {
        let remedy = match (self.nft, self.family) {
            (false, _) => "run it by hand to see what is wrong".to_owned(),
            (true, family) => {
                let family = if family == Family::V4 { "ip" } else { "ip6" };
                format!(
                    "see \"nft list table {family} filter\" for what iptables does not know, \
                     and move that to a table of its own"
                )
            }
        };
        ProgramError::Unreadable(self.lines.command_line(), why, remedy)
    }
}

/// What a change may be planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The cache: where it is wrong, the transaction fails.
    FromCache,
    /// A fresh reading, unless the cache is known to be what the kernel holds.
    FromKernel,
    /// The cache, and nobody waits for the change: the lock of the tables, where
    /// another program holds it, is not waited for.
    InBackground,
}

/// The filter table of one family.
pub struct Table {
    family: Family,
    commands: Commands,
    restore: Coprocess,
    /// Only used, and so only started, with iptables-legacy.
    restore_later: Coprocess,
    cache: RuleCache,
    /// The generation that `kept` is of.
    generation: Option<u32>,
    /// Whether `kept` has been read, and no transaction has failed since.
    read: bool,
    /// The generations before and after rfw's own last commit.
    own_change: Option<(u32, u32)>,
    /// Why the table could not be read whole the last time, as the log has it.
    unreadable: Option<String>,
}

impl Table {
    /// A table, not yet read.
    pub fn new(family: Family, commands: Commands) -> Table {
        let resident = |arguments| Coprocess::new(commands.restore.clone(), arguments, COMMITTED);
        let (restore, restore_later) = (resident(&RESTORE), resident(&RESTORE_LATER));
        Table {
            family,
            commands,
            restore,
            restore_later,
            cache: RuleCache::default(),
            generation: None,
            read: false,
            own_change: None,
            unreadable: None,
        }
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What rfw keeps in it, as last read or changed.
    pub fn cache(&self) -> &RuleCache {
        &self.cache
    }

    /// The commands that read it.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Reads what the kernel holds, unless that is known to be what was read last.
    ///
    /// # Errors
    /// The table can't be read.
    pub fn refresh(&mut self) -> Result<(), ProgramError> {
        let now = self.now();
        if !(self.read && now.is_some() && now == self.generation) {
            self.read = false;
            let cache = self.commands.read(self.family).and_then(RuleCache::read);
            self.say_if_unreadable(cache.as_ref().err());
            self.cache = cache?;
            // What changes while it is read has another generation.
            (self.generation, self.read) = (now, true);
        }
        Ok(())
    }

    /// Says once that the table can't be read whole, and once that it can be again.
    fn say_if_unreadable(&mut self, error: Option<&ProgramError>) {
        match (error, &self.unreadable) {
            (Some(error @ ProgramError::Unreadable(..)), said) => {
                let words = error.to_string();
                if said.as_ref() != Some(&words) {
                    log::error!("the table of {}: {words}", self.family);
                    self.unreadable = Some(words);
                }
            }
            (None, Some(_)) => {
                log::info!("the table of {} is read whole again", self.family);
                self.unreadable = None;
            }
            _ => {}
        }
    }

    /// Has the table read anew at the next refresh.
    pub fn forget(&mut self) {
        self.read = false;
    }

    /// Makes sure that the rule of a set is there; `false` is for sure that it is not.
    ///
    /// # Errors
    /// The table can't be read.
    pub fn has_set(&mut self, set: &SetKey) -> Result<bool, ProgramError> {
        let known = self.cache.sets.contains_key(set);
        if self.read && known && self.now().is_none() {
            match self.check_set(set) {
                Ok(()) => return Ok(true),
                Err(ProgramError::Failed(..)) => self.read = false,
                Err(error) => return Err(error),
            }
        }
        match self.refresh() {
            // A rule that was known to be there can be asked for without reading.
            Err(ProgramError::Unreadable(..)) if known && self.check_set(set).is_ok() => Ok(true),
            result => result.map(|()| self.cache.sets.contains_key(set)),
        }
    }

    /// Has the kernel say whether the rule of a set is there: a transaction that checks
    /// for it fails if it is not.
    fn check_set(&mut self, set: &SetKey) -> Result<(), ProgramError> {
        let mut check = Transaction::default();
        check.check_set(set);
        match self.restore.transact(&check.script()) {
            Err(error) if error.is_cut_short() => self.restore.transact(&check.script()),
            checked => checked,
        }
    }

    /// Plans a change and makes it. A plan that failed because the table was not
    /// what it had been is made again; one that would be the same again is an error.
    ///
    /// # Errors
    /// The table can't be read or changed.
    pub fn change<T>(
        &mut self,
        plan_from: Plan,
        plan: impl Fn(&RuleCache, &mut Transaction) -> T,
    ) -> Result<T, ProgramError> {
        let mut failed: Option<(Transaction, ProgramError)> = None;
        // What came of a plan that a program was cut short in: it may have been done.
        let mut cut_short: Option<T> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || plan_from == Plan::FromKernel || !self.read || self.now() != self.generation {
                self.refresh()?;
            }
            let mut transaction = Transaction::default();
            let outcome = plan(&self.cache, &mut transaction);
            match failed {
                // A tool that was cut short is tried once more, on what is there now.
                Some((before, error)) if before == transaction && (attempt > 1 || !error.is_cut_short()) => {
                    return Err(error);
                }
                _ if transaction.changes().is_empty() => return Ok(cut_short.unwrap_or(outcome)),
                _ => {}
            }
            match self.commit(&transaction, plan_from) {
                Ok(()) => return Ok(outcome),
                Err(error @ ProgramError::Failed(..)) => {
                    if error.is_cut_short() {
                        cut_short = Some(outcome);
                    }
                    failed = Some((transaction, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.map_or(ProgramError::Contended, |(_, error)| error))
    }

    /// Has the kernel make a transaction, and remembers what it did.
    fn commit(&mut self, transaction: &Transaction, plan_from: Plan) -> Result<(), ProgramError> {
        let restore = match plan_from {
            Plan::InBackground if !self.commands.nft => &mut self.restore_later,
            _ => &mut self.restore,
        };
        let committed = restore.transact(&transaction.script());
        let now = self.now();
        // One commit more than before was ours; any other number, and memory is old.
        let ours = self.generation.map(|before| before.wrapping_add(1));
        self.read = committed.is_ok() && now == ours;
        self.own_change = self.generation.zip(now).filter(|_| self.read);
        if committed.is_ok() {
            self.cache.apply(transaction);
        }
        self.generation = now;
        committed
    }

    /// Learns that another table of this ruleset was changed by rfw itself, which
    /// raised the generation from `before` to `after`.
    pub fn note_change(&mut self, before: u32, after: u32) {
        if self.generation == Some(before) {
            self.generation = Some(after);
        }
    }

    /// The generations before and after the last commit, if it was the only one.
    pub fn take_own_change(&mut self) -> Option<(u32, u32)> {
        self.own_change.take()
    }

    fn now(&self) -> Option<u32> {
        if self.commands.nft { generation::current() } else { None }
    }
}

/// What rfw keeps in a table.
#[derive(Default)]
pub struct RuleCache {
    rules: HashMap<Rule, Vec<CachedRule>>,
    /// The rules that guard rfw's port, in the order of the table.
    guards: VecDeque<Guard>,
    /// The sets that rules look packets up in, and how many do: other programs may
    /// have made a second.
    sets: BTreeMap<SetKey, usize>,
    /// The number and position of the last rule of a chain by which rfw lets packets
    /// pass.
    last_accept: BTreeMap<Chain, (usize, i64)>,
    /// The position of the rule put in last; the kernel's own begin at 1.
    top: i64,
}

/// One of the copies of a rule; other programs may have made a second.
struct CachedRule {
    lease: Lease,
    position: i64,
    /// Its number in its chain at the last reading, or 1 if it has been put in since.
    number: usize,
}

impl RuleCache {
    fn read(mut rules: Rules) -> Result<RuleCache, ProgramError> {
        let mut cache = RuleCache::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut position = 0;
        while let Some(line) = rules.next_rule()? {
            let number = numbers.entry(line.chain).or_default();
            *number += 1;
            position += 1;
            match line.owner {
                Owner::Rfw(rule, lease) => {
                    cache.note_accept(rule.scope(), *number, position);
                    cache.rules.entry(rule).or_default().push(CachedRule {
                        lease,
                        position,
                        number: *number,
                    });
                }
                Owner::Set(set) => {
                    cache.note_accept(set.scope(), *number, position);
                    *cache.sets.entry(set).or_default() += 1;
                }
                Owner::Guard(guard) => cache.guards.push_back(guard),
                Owner::Other => {}
            }
        }
        Ok(cache)
    }

    fn note_accept(&mut self, scope: &Scope, number: usize, position: i64) {
        if scope.target() == Target::Accept {
            self.last_accept.insert(scope.chain(), (number, position));
        }
    }

    /// Does what the kernel has done. The numbers of rules are those of the last
    /// reading, which is why they are only used right after one.
    fn apply(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            match change {
                Change::Insert(rule, lease, _) => {
                    self.top -= 1;
                    let copy = CachedRule { lease: *lease, position: self.top, number: 1 };
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

    /// The leases of a rule, one for each copy of it.
    pub fn leases(&self, rule: &Rule) -> Vec<Lease> {
        self.rules.get(rule).into_iter().flatten().map(|copy| copy.lease).collect()
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.keys()
    }

    /// All leases of all rules.
    pub fn all_leases(&self) -> impl Iterator<Item = Lease> {
        self.rules.values().flatten().map(|copy| copy.lease)
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rules that are wanted, first in the table first: iptables looks for a
    /// rule to delete from the head, so this order keeps many deletes linear.
    pub fn find(&self, wanted: impl Fn(&Rule, Lease) -> bool) -> Vec<(&Rule, Lease)> {
        let all = self.rules.iter().flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule, copy)));
        let mut found: Vec<_> = all.filter(|(rule, copy)| wanted(rule, copy.lease)).collect();
        found.sort_unstable_by_key(|(_, copy)| copy.position);
        found.into_iter().map(|(rule, copy)| (rule, copy.lease)).collect()
    }

    /// The rules that are wanted with their numbers in their chains, in ascending order.
    pub fn find_numbered(&self, wanted: impl Fn(&Rule) -> bool) -> Vec<(Rule, Lease, usize)> {
        let all = self.rules.iter().filter(|(rule, _)| wanted(rule));
        let mut found: Vec<(Rule, Lease, usize)> = all
            .flat_map(|(rule, copies)| copies.iter().map(move |copy| (rule.clone(), copy.lease, copy.number)))
            .collect();
        found.sort_unstable_by_key(|(_, _, number)| *number);
        found
    }

    /// The rules that guard rfw's port, in the order of the table.
    pub fn guards(&self) -> &VecDeque<Guard> {
        &self.guards
    }

    /// Whether the guards are just the wanted ones, which are given as they are put in,
    /// in each chain the last foremost.
    pub fn is_guarded(&self, wanted: &[Guard]) -> bool {
        [false, true].into_iter().all(|output| {
            let there = self.guards.iter().filter(|guard| guard.is_output() == output);
            there.eq(wanted.iter().rev().filter(|guard| guard.is_output() == output))
        })
    }

    /// The sets that have a rule.
    pub fn sets(&self) -> impl Iterator<Item = &SetKey> {
        self.sets.keys()
    }

    /// The same, each as often as it has a rule.
    pub fn rules_of_sets(&self) -> impl Iterator<Item = &SetKey> {
        self.sets.iter().flat_map(|(set, copies)| iter::repeat_n(set, *copies))
    }

    /// The number at which the rule of a set goes in where an exception wins over a
    /// block: ACCEPT in front, the others behind the last ACCEPT of rfw.
    pub fn number_for(&self, scope: &Scope) -> usize {
        self.number_behind_exceptions(scope, &[])
    }

    /// The same for a rule, once all copies of it have been deleted.
    pub fn number_for_rule(&self, rule: &Rule) -> usize {
        let copies = self.rules.get(rule).map(Vec::as_slice);
        self.number_behind_exceptions(rule.scope(), copies.unwrap_or_default())
    }

    fn number_behind_exceptions(&self, scope: &Scope, deleted: &[CachedRule]) -> usize {
        match (scope.target(), self.last_accept.get(&scope.chain())) {
            (Target::Accept, _) | (_, None) => 1,
            (Target::Reject | Target::Drop, Some((number, position))) => {
                let before = deleted.iter().filter(|copy| copy.position < *position).count();
                number.saturating_sub(before) + 1
            }
        }
    }
}
