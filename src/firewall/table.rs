//! The tables of one family, `filter` and, with the option `input.table`, `raw`: a cache of the rules of rfw, and changes that are
//! planned from it and committed as one transaction.
//!
//! The cache saves reading the whole table for each change. With iptables-nft the
//! generation ID shows whether the cache is current ([`crate::kernel::generation`]).
//! iptables-legacy has none: there a change is planned from the cache only if its
//! transaction fails when the cache is stale.

use super::memory::Memory;
use super::rule_cache::{CacheReader, RuleCache};
use crate::kernel::coprocess::{Coprocess, Sentinel};
use crate::kernel::generation::Ruleset;
use crate::kernel::iptables::{Reading, Transaction};
use crate::kernel::nft_rules::NftRules;
use crate::kernel::program::ProgramError;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::layout::{InputTable, Layout, TableName};
use crate::rule::network::Family;
use crate::rule::{Rule, Scope};
use crate::stop_signal::StopSignal;
use by_handle::Deletion;
pub(crate) use commands::Rules;
use commands::{Commands, read_into};
use std::path::Path;

mod by_handle;
mod commands;
mod placement;

/// Attempts to plan and commit a change while other programs keep changing the table.
const ATTEMPTS: usize = 5;

/// Arguments of iptables-restore(8): keep the other rules, wait up to five seconds for the
/// xtables lock, and print comments of the input, which makes the sentinel appear.
const RESTORE: [&str; 3] = ["--noflush", "--wait=5", "--verbose"];

/// The same for changes in the background: wait one second, the shortest time that
/// iptables-legacy accepts. nf_tables has no such lock.
const RESTORE_BACKGROUND: [&str; 3] = ["--noflush", "--wait=1", "--verbose"];

/// A comment as sentinel: iptables-restore prints it once everything before is committed.
const COMMITTED: Sentinel = Sentinel { ask: "# rfw: committed", answer: "rfw: committed", goes_on: false };

/// What a change is planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The cache: if it is stale, the transaction fails.
    FromCache,
    /// The kernel's table, which is read unless the cache is known to be current.
    FromKernel,
    /// The cache, for changes of the sweeper: waits at most one second for the xtables lock.
    InBackground,
}

/// The tables of one family.
pub(crate) struct Table {
    family: Family,
    commands: Commands,
    /// Where rules are to stand.
    layout: Layout,
    /// Whether accept comes before reject, and reject before drop.
    by_precedence: bool,
    /// Whether all has been put where the layout says. Until then, rules of rfw are looked for also
    /// where another layout has them.
    settled: bool,
    /// Whether something can't be moved there, which the log has told.
    stuck: bool,
    /// Tells the generation, with iptables-nft.
    ruleset: Ruleset,
    /// Deletes many rules at once, with iptables-nft.
    nft_rules: NftRules,
    restore: Coprocess,
    /// Used only with iptables-legacy, and not started otherwise.
    restore_background: Coprocess,
    cache: RuleCache,
    /// What others have done to it.
    memory: Memory,
    /// Whether `cache` has ever been read.
    is_known: bool,
    /// The generation of `cache`.
    generation: Option<u32>,
    /// Whether `cache` has been read, and no transaction has failed since.
    read: bool,
    /// The generations before and after the last commit, if no other commit was between.
    own_change: Option<(u32, u32)>,
    /// The last logged reason why the output was incomplete, so that it is logged once.
    unreadable: Option<String>,
    /// Why the last reading has failed, if it has.
    failure: Option<String>,
}

impl Table {
    /// Finds the programs that belong to an iptables command, and reads the table of a family.
    ///
    /// # Errors
    /// One of the programs does not exist or fails, or the table can't be read whole.
    pub(crate) fn open(
        command: &Path,
        family: Family,
        layout: &Layout,
        by_precedence: bool,
        stop: &StopSignal,
    ) -> Result<Table, ProgramError> {
        let mut table = Table::new(family, Commands::find(command, stop)?, layout.clone(), by_precedence);
        table.read_if_changed()?;
        match table.layout.input == InputTable::Raw && table.cache.has_foreign_chain() {
            true => Err(ProgramError::ForeignChain(family)),
            false => Ok(table),
        }
    }

    /// Tables with an empty cache.
    fn new(family: Family, commands: Commands, layout: Layout, by_precedence: bool) -> Table {
        let coprocess = |arguments| Coprocess::new(commands.restore.clone(), arguments, COMMITTED);
        let (restore, restore_background) = (coprocess(&RESTORE), coprocess(&RESTORE_BACKGROUND));
        Table {
            family,
            commands,
            layout,
            by_precedence,
            settled: false,
            stuck: false,
            ruleset: Ruleset::default(),
            nft_rules: NftRules::default(),
            restore,
            restore_background,
            cache: RuleCache::default(),
            memory: Memory::default(),
            is_known: false,
            generation: None,
            read: false,
            own_change: None,
            unreadable: None,
            failure: None,
        }
    }

    /// The family of its addresses.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Whether it is one of nf_tables.
    pub(crate) fn uses_nft(&self) -> bool {
        self.commands.nft
    }

    /// The iptables command with its version and variant.
    pub(super) fn program(&self) -> &str {
        &self.commands.told
    }

    /// Why the last reading has failed, if it has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The rules of rfw, as last read or changed.
    pub(crate) fn cache(&self) -> &RuleCache {
        &self.cache
    }

    /// The connection to nf_tables.
    pub(super) fn nft_rules(&mut self) -> &mut NftRules {
        &mut self.nft_rules
    }

    /// What others have done to the rules of rfw.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The same to be changed.
    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// The rules that others have brought back after rfw had deleted them, as last read.
    pub(crate) fn revived(&self) -> Vec<(Rule, Label)> {
        let revived = self.cache.find(|rule, label| self.memory.is_revived(rule, label)).into_iter();
        revived.map(|(rule, label)| (rule.clone(), label.clone())).collect()
    }

    /// The rules of the tables that hold rules of rfw, as they are now.
    ///
    /// # Errors
    /// A program can't be started.
    pub(crate) fn rules(&self) -> Result<Vec<Rules>, ProgramError> {
        let tables: &[TableName] = match self.layout.input == InputTable::Raw || self.cache.uses_raw() {
            true => &[TableName::Raw, TableName::Filter],
            false => &[TableName::Filter],
        };
        tables.iter().map(|table| self.commands.read(self.family, self.reading(*table))).collect()
    }

    fn reading(&self, table: TableName) -> Reading {
        Reading { table, forward: self.settled.then(|| self.layout.forward.clone()) }
    }

    /// Reads the table into the cache, unless the generation shows that it is current.
    ///
    /// # Errors
    /// The table can't be read.
    pub(crate) fn refresh(&mut self) -> Result<(), ProgramError> {
        let refreshed = self.read_if_changed();
        self.log_unreadable(refreshed.as_ref().err());
        self.failure = refreshed.as_ref().err().map(ToString::to_string);
        refreshed
    }

    fn read_if_changed(&mut self) -> Result<(), ProgramError> {
        let now = self.current_generation();
        if !(self.read && now.is_some() && now == self.generation) {
            self.read = false;
            let read = self.read_tables()?;
            let before = std::mem::replace(&mut self.cache, read);
            if self.is_known {
                self.memory.compare(&before, &self.cache);
            }
            self.is_known = true;
            // `now` is from before the reading: a change meanwhile has a later generation.
            (self.generation, self.read) = (now, true);
        }
        Ok(())
    }

    fn read_tables(&mut self) -> Result<RuleCache, ProgramError> {
        let mut reader = CacheReader::new(self.layout.clone());
        let read = |reader: &mut CacheReader, table| {
            let rules = self.commands.read(self.family, self.reading(table))?;
            read_into(reader, rules)
        };
        let is_needed = self.layout.input == InputTable::Raw;
        let is_looked_at = is_needed || !self.settled && self.commands.may_have_raw(self.family);
        match if is_looked_at { read(&mut reader, TableName::Raw) } else { Ok(()) } {
            Err(error) if is_needed => return Err(error),
            Err(error) => {
                log::warn!(
                    "rules of rfw that may be in the table raw of {} stay there: {error}",
                    self.family
                );
                reader = CacheReader::new(self.layout.clone());
            }
            Ok(()) => {}
        }
        read(&mut reader, TableName::Filter)?;
        Ok(reader.end())
    }

    /// Stops looking for rules where another layout has them, unless some are left there.
    pub(crate) fn settle(&mut self) {
        self.settled = !self.cache.is_astray();
    }

    /// Logs once that the output is incomplete, and once that it is complete again.
    fn log_unreadable(&mut self, error: Option<&ProgramError>) {
        match (error, &self.unreadable) {
            (Some(error @ ProgramError::Unreadable(..)), logged) => {
                let message = error.to_string();
                if logged.as_ref() != Some(&message) {
                    log::error!("the table of {}: {message}", self.family);
                    self.unreadable = Some(message);
                }
            }
            (None, Some(_)) => {
                log::info!("the table of {} is read whole again", self.family);
                self.unreadable = None;
            }
            _ => {}
        }
    }

    /// Whether the cache is known to be the kernel's table, without it being read.
    pub(crate) fn is_current(&mut self) -> bool {
        let now = self.current_generation();
        self.read && now.is_some() && now == self.generation
    }

    /// Makes the next [`Table::refresh`] read the table.
    pub(crate) fn invalidate(&mut self) {
        self.read = false;
    }

    /// Makes the next change read the table, unless the numbers of rules in the chain of that scope are
    /// known to be as they were.
    pub(crate) fn require_numbers(&mut self, scope: &Scope) {
        if !self.commands.nft || !self.cache.knows_numbers(scope) {
            self.invalidate();
        }
    }

    /// Whether the rule of a set exists in the kernel, not only in the cache.
    ///
    /// # Errors
    /// The table can't be read.
    pub(crate) fn has_set(&mut self, set: &SetKey) -> Result<bool, ProgramError> {
        let known = self.cache.has_set(set);
        if self.read && known && self.current_generation().is_none() {
            match self.check_set(set) {
                Ok(()) => return Ok(true),
                Err(ProgramError::Failed(..)) => self.read = false,
                Err(error) => return Err(error),
            }
        }
        match self.refresh() {
            // The table is unreadable, but the existence of a known rule can be checked.
            Err(ProgramError::Unreadable(..)) if known && self.check_set(set).is_ok() => Ok(true),
            result => result.map(|()| self.cache.has_set(set)),
        }
    }

    /// Checks that the rule of a set exists, by a transaction of `-C` alone. It changes
    /// nothing, so that an interrupted one is repeated.
    fn check_set(&mut self, set: &SetKey) -> Result<(), ProgramError> {
        let mut check = Transaction::new(self.cache.layout().clone());
        check.check_set(set);
        match self.restore.transact(&check.script()) {
            Err(error) if error.is_cut_short() => self.restore.transact(&check.script()),
            checked => checked,
        }
    }

    /// What a plan says, from the table as it is now; nothing is committed.
    ///
    /// # Errors
    /// The table can't be read, or what the plan needs can't be made.
    pub(crate) fn plan<T>(
        &mut self,
        plan: impl Fn(&RuleCache, &mut Transaction) -> T,
    ) -> Result<T, ProgramError> {
        self.refresh()?;
        let mut transaction = Transaction::new(self.cache.layout().clone());
        let outcome = plan(&self.cache, &mut transaction);
        self.finish(&mut transaction)?;
        Ok(outcome)
    }

    /// Plans a change and commits it. After a failed transaction the table is read and the
    /// change planned again, as the cache may have been stale; if the plan is the same, its
    /// error is returned.
    ///
    /// # Errors
    /// The table can't be read or changed.
    pub(crate) fn change<T>(
        &mut self,
        plan_from: Plan,
        plan: impl Fn(&RuleCache, &mut Transaction) -> T,
    ) -> Result<T, ProgramError> {
        let mut failed: Option<(Transaction, ProgramError)> = None;
        // What came of a plan that a program was cut short in: it may have been done.
        let mut cut_short: Option<T> = None;
        let mut is_repeated = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0
                || plan_from == Plan::FromKernel
                || !self.read
                || self.current_generation() != self.generation
            {
                self.refresh()?;
            }
            self.put_where_it_belongs(plan_from)?;
            let mut transaction = Transaction::new(self.cache.layout().clone());
            let outcome = plan(&self.cache, &mut transaction);
            self.finish(&mut transaction)?;
            if let Some((_, error)) = failed.take_if(|(before, _)| *before == transaction) {
                // It is unknown whether an interrupted transaction is committed: try it once more.
                if is_repeated || !error.is_cut_short() {
                    return Err(error);
                }
                is_repeated = true;
            }
            if transaction.changes().is_empty() {
                return Ok(cut_short.unwrap_or(outcome));
            }
            // The last attempt is left to iptables-restore, which others can not come between.
            if attempt + 1 < ATTEMPTS {
                match self.delete_by_handle(&transaction) {
                    Deletion::Done => return Ok(outcome),
                    Deletion::NotYet => continue,
                    Deletion::Unknown => {
                        self.memory.doubt(&transaction);
                        cut_short = Some(outcome);
                        continue;
                    }
                    Deletion::BySpecification => {}
                }
            }
            failed = match self.commit(&transaction, plan_from) {
                Ok(()) => return Ok(outcome),
                Err(error @ ProgramError::Failed(..)) => {
                    if error.is_cut_short() {
                        self.memory.doubt(&transaction);
                        cut_short = Some(outcome);
                    }
                    Some((transaction, error))
                }
                Err(error) => return Err(error),
            };
        }
        Err(failed.map_or(ProgramError::Contended, |(_, error)| error))
    }

    /// Adds to a transaction what it needs in the table `raw`.
    fn finish(&self, transaction: &mut Transaction) -> Result<(), ProgramError> {
        if transaction.in_raw().0 > 0 && self.cache.has_foreign_chain() {
            return Err(ProgramError::ForeignChain(self.family));
        }
        self.cache.complete(transaction);
        Ok(())
    }

    /// Commits a transaction and applies it to the cache.
    fn commit(&mut self, transaction: &Transaction, plan_from: Plan) -> Result<(), ProgramError> {
        let restore = match plan_from {
            Plan::InBackground if !self.commands.nft => &mut self.restore_background,
            _ => &mut self.restore,
        };
        let script = transaction.script();
        let committed = restore.transact(&script);
        // The generation rises by one for each table.
        let tables = script.lines().filter(|line| *line == "COMMIT").count();
        self.note_commit(transaction, committed.is_ok(), u32::try_from(tables).unwrap_or_default());
        committed
    }

    /// Applies a transaction to the cache if it is committed, in so many commits, and sees whether others
    /// have committed one meanwhile.
    fn note_commit(&mut self, transaction: &Transaction, is_committed: bool, commits: u32) {
        let now = self.current_generation();
        // If the generation has risen by more, another commit was between, and the cache is stale.
        let ours = self.generation.map(|before| before.wrapping_add(commits));
        self.read = is_committed && now == ours;
        self.own_change = self.generation.zip(now).filter(|_| self.read);
        if is_committed {
            self.cache.apply(transaction);
            self.memory.apply(transaction);
        }
        self.generation = now;
    }

    /// Records that a commit of rfw to the other table raised the generation from `before`
    /// to `after`. The generation is common to all tables, so this cache stays current.
    pub(crate) fn note_change(&mut self, before: u32, after: u32) {
        if self.generation == Some(before) {
            self.generation = Some(after);
        }
    }

    /// Removes and returns the generations before and after the last commit; `None` if
    /// another commit was between.
    pub(crate) fn take_own_change(&mut self) -> Option<(u32, u32)> {
        self.own_change.take()
    }

    fn current_generation(&mut self) -> Option<u32> {
        if self.commands.nft { self.ruleset.generation() } else { None }
    }
}
