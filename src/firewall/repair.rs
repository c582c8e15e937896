//! The look: what others have done to tables and sets. What they have flushed comes back, from what rfw
//! remembers; a rule that somebody has deleted alone does not.
//!
//! Sets come back first, as rules look packets up in them; then each table in one transaction, the guard
//! at the head.

use super::guard::{is_guarded, plan_guards};
use super::lists::deletion;
use super::rule_cache::RuleCache;
use super::{Firewall, FirewallError, counted};
use crate::firewall::table::{Plan, Table};
use crate::kernel::guard::Guard;
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Family;
use crate::rule::{Rule, Target};
use pace::Pace;
use std::collections::HashSet;
use std::time::{Instant, SystemTime};

mod pace;

/// The most rules that one line of the log names.
const NAMED_MAX: usize = 3;

/// Rules with their labels.
type Labelled = Vec<(Rule, Label)>;

/// What has come back, as the log tells it: one text a table or set.
pub(super) type Restored = Vec<String>;

/// When repairs are made, and told.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Of tables.
    pace: Pace,
    /// Of sets, which are put back at once.
    pace_of_sets: Pace,
    /// When something was put back last, in a table or a set.
    last: Option<Instant>,
    /// What has come back of sets, and is not told yet.
    of_sets: Restored,
}

impl Repairs {
    /// Takes down that sets were put back.
    pub(super) fn of_sets(&mut self, what: String) {
        self.of_sets.push(what);
        let now = Instant::now();
        self.pace_of_sets.repaired(now);
        self.last = Some(now);
    }

    fn made(&mut self) {
        let now = Instant::now();
        self.pace.repaired(now);
        self.last = Some(now);
    }
}

impl Firewall {
    /// Reads the tables where others may have changed them and, with `sets`, looks at the sets too. Puts
    /// back what others have flushed.
    ///
    /// # Errors
    /// A table or set can't be read or changed. What of the rest is missing is put back all the same.
    pub(crate) fn look(&mut self, sets: bool, now: SystemTime) -> Result<(), FirewallError> {
        let mut failed = self.read_tables().err();
        if failed.as_ref().is_some_and(FirewallError::is_timeout) {
            return failed.map_or(Ok(()), Err);
        }
        let (mut restored, admits) = (Restored::new(), self.repairs.pace.admits(Instant::now()));
        if self.sets.is_some() && (sets || self.is_flushed()) {
            failed = failed.or(self.check_sets(now).err());
        }
        for family in self.families() {
            self.note_deletions(family)?;
            if !admits {
                continue;
            }
            match self.mend(family, now) {
                Ok(of_table) => {
                    of_table.iter().for_each(|_| self.meter.note_repair());
                    restored.extend(of_table);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.tell(restored, now);
        failed = failed.or(self.stay_first(Instant::now()).err());
        failed.map_or(Ok(()), Err)
    }

    /// Whether the kernel tells of changes of the tables.
    pub(crate) fn uses_nft(&self) -> bool {
        self.tables.iter().any(Table::uses_nft)
    }

    /// Whether something was put back since then.
    pub(crate) fn has_repaired_since(&self, then: Instant) -> bool {
        self.repairs.last.is_some_and(|last| last >= then)
    }

    /// When a look is worth while again that was too early for a repair.
    pub(crate) fn next_repair(&self) -> Option<Instant> {
        self.is_flushed().then(|| self.repairs.pace.not_before()).flatten()
    }

    /// Whether others have flushed something that is not put back yet, as last read.
    pub(crate) fn is_flushed(&self) -> bool {
        self.tables.iter().any(|table| table.memory().is_flushed())
    }

    /// Has flushed rules that a client takes away not come back. Gives them.
    pub(super) fn forget_lost(
        &mut self,
        family: Family,
        unwanted: impl Fn(&Rule, &Label) -> bool,
    ) -> Result<Vec<(Rule, Label)>, FirewallError> {
        Ok(self.table(family)?.memory_mut().forget(unwanted))
    }

    fn read_tables(&mut self) -> Result<(), FirewallError> {
        let mut failed: Option<FirewallError> = None;
        for table in &mut self.tables {
            if failed.as_ref().is_some_and(FirewallError::is_timeout) {
                break;
            }
            if let Err(error) = table.refresh() {
                failed = failed.or(Some(error.into()));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Mends the table of a family: gives what has come back.
    fn mend(&mut self, family: Family, now: SystemTime) -> Result<Option<String>, FirewallError> {
        let restored = match self.table(family)?.memory().is_flushed() {
            true => self.restore(family, now)?,
            false => None,
        };
        self.tidy(family)?;
        self.check_table(family)?;
        Ok(restored)
    }

    /// Has the log tell of rules that others have deleted one by one: that was somebody's decision.
    fn note_deletions(&mut self, family: Family) -> Result<(), FirewallError> {
        let noted = self.table(family)?.memory_mut().take_noted();
        noted.iter().for_each(|(rule, label)| self.note_gone(rule, label.list));
        if !noted.is_empty() {
            log::info!("deleted by others, and not put back: {}", named(&noted));
        }
        Ok(())
    }

    /// Puts back what of a table others have flushed.
    fn restore(&mut self, family: Family, now: SystemTime) -> Result<Option<String>, FirewallError> {
        // An attempt that fails counts: it is not made again at once.
        self.repairs.made();
        self.table(family)?.memory_mut().begin_repair();
        let restored = self.try_restore(family, now);
        if restored.is_err() {
            self.table(family)?.memory_mut().repair_again();
        }
        restored
    }

    fn try_restore(&mut self, family: Family, now: SystemTime) -> Result<Option<String>, FirewallError> {
        let (port, list) = self.guarded.clone().unzip();
        let guards = match (port, &list) {
            (Some(port), Some(list)) => self.wanted_guards(family, port, list)?.rules,
            _ => Vec::new(),
        };
        let is_wanted = |rule: &Rule, label: &Label| {
            !label.lease.is_due(now) && list.as_ref().is_none_or(|list| list.conflict(rule).is_none())
        };
        self.table(family)?.memory_mut().forget(|rule, label| !is_wanted(rule, label));
        let (entries, rules) = self.lost_by_kind(family)?;
        let sets = self.sets_to_link(family)?;
        let missing = in_order_of_insertion(&rules, &sets, self.by_precedence());
        let count = self.put_back_rules(family, &missing, &guards)?;
        for (rule, label) in &entries {
            self.insert_entry(rule, &SetKey::of(rule), label, now)?;
        }
        // What was lost while this was done stays lost: the next look puts it back.
        let done: HashSet<(&Rule, ListName)> =
            rules.iter().chain(&entries).map(|(rule, label)| (rule, label.list)).collect();
        let table = self.table(family)?;
        table.memory_mut().put_back(|rule, label| done.contains(&(rule, label.list)));
        // The numbers of the rules behind have changed.
        table.invalidate();
        if self.by_precedence() {
            self.put_in_order(family)?;
        }
        Ok(count.told(family, entries.len()))
    }

    /// Puts rules of all kinds back in one transaction or, where that is too long, in as few as may be; in
    /// the last one the guard comes to the head.
    fn put_back_rules(
        &mut self,
        family: Family,
        missing: &[Missing<'_>],
        guards: &[Guard],
    ) -> Result<Count, FirewallError> {
        let revived: HashSet<(Rule, Label)> = self.table(family)?.revived().into_iter().collect();
        let (mut count, mut rest, mut most) = (Count::default(), missing, usize::MAX);
        loop {
            let (part, behind) = rest.split_at(most.min(rest.len()));
            let put = self.change(family, Plan::FromKernel, |cache, transaction| {
                let mut count = plan_missing(cache, transaction, part, &revived);
                if behind.is_empty() {
                    count.guards = plan_guard(cache, transaction, guards);
                }
                count
            });
            match put {
                Ok(part) => {
                    count.add(part);
                    if behind.is_empty() {
                        return Ok(count);
                    }
                    rest = behind;
                }
                Err(error) if error.is_too_long() && part.len() > 1 => {
                    most = part.len() / 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The rules that are to be put back: those that are entries of a set by now, and those that are rules.
    fn lost_by_kind(&mut self, family: Family) -> Result<(Labelled, Labelled), FirewallError> {
        let lost = self.table(family)?.memory().lost().to_vec();
        let (mut entries, mut rules) = (Vec::new(), Vec::new());
        for (rule, label) in lost {
            match self.is_for_sets(&SetKey::of(&rule))? {
                true => entries.push((rule, label)),
                false => rules.push((rule, label)),
            }
        }
        Ok((entries, rules))
    }

    /// The sets of a family that are there and have lost their rule.
    fn sets_to_link(&mut self, family: Family) -> Result<Vec<SetKey>, FirewallError> {
        let mut unlinked = Vec::new();
        let known: Vec<SetKey> = self.known.iter().filter(|set| set.family() == family).cloned().collect();
        for set in known {
            if self.table(family)?.cache().has_set(&set) {
                continue;
            }
            if let Some(size) = self.sets()?.own_size(&set)? {
                if size > 0 {
                    self.remove_conflicts_of(&set)?;
                }
                unlinked.push(set);
            }
        }
        Ok(unlinked)
    }

    /// Deletes rules again that rfw had deleted and that others have brought back with a saved table, and
    /// those that are there twice.
    fn tidy(&mut self, family: Family) -> Result<(), FirewallError> {
        let table = self.table(family)?;
        if !table.memory().is_untidy() {
            return Ok(());
        }
        table.memory_mut().begin_tidying();
        let revived: HashSet<(Rule, Label)> = table.revived().into_iter().collect();
        let tidied = self.change_in_parts(
            family,
            |cache, transaction| {
                let surplus = cache.surplus(|rule, label| revived.contains(&(rule.clone(), label.clone())));
                surplus.iter().for_each(|(rule, label)| transaction.delete(rule, label));
            },
            |changes| changes.iter().filter_map(deletion).map(|(r, l)| (r.clone(), l.clone())).collect(),
        );
        let tidied: Vec<Labelled> = match tidied {
            Ok(tidied) => tidied,
            Err(error) => {
                self.table(family)?.memory_mut().tidy_again();
                return Err(error);
            }
        };
        let tidied = tidied.concat();
        if !tidied.is_empty() {
            self.table(family)?.invalidate();
            log::info!("brought back by others, and deleted again: {}", named(&tidied));
        }
        Ok(())
    }

    /// Tells in one line what has come back, of sets too.
    pub(super) fn tell(&mut self, restored: Restored, now: SystemTime) {
        let pace = match restored.is_empty() {
            true => &mut self.repairs.pace_of_sets,
            false => &mut self.repairs.pace,
        };
        let restored: Restored =
            std::mem::take(&mut self.repairs.of_sets).into_iter().chain(restored).collect();
        if restored.is_empty() {
            return;
        }
        match pace.telling(Instant::now(), now) {
            pace::Telling::Each => {
                log::warn!("others have taken away what rfw keeps, it is put back: {}", restored.join("; "));
            }
            pace::Telling::Sum { count, since } => log::warn!(
                "others keep taking away what rfw keeps, {count} times since {since}; put back again: {}",
                restored.join("; ")
            ),
            pace::Telling::Nothing => {
                log::debug!("put back again: {}", restored.join("; "));
            }
        }
    }
}

/// The first of some rules, and how many there are more.
fn named(rules: &[(Rule, Label)]) -> String {
    let first = rules.iter().take(NAMED_MAX).map(|(rule, label)| match label.list.is_named() {
        true => format!("{rule} in {}", label.list),
        false => rule.to_string(),
    });
    let first = first.collect::<Vec<_>>().join(", ");
    match rules.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

/// How much of a table has come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    guards: usize,
    rules: usize,
    sets: usize,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.guards += other.guards;
        self.rules += other.rules;
        self.sets += other.sets;
    }

    fn told(self, family: Family, entries: usize) -> Option<String> {
        let some = |count, one, many| (count > 0).then(|| counted(count, one, many));
        let parts = [
            (self.guards > 0).then(|| "the guard".to_owned()),
            some(self.rules.saturating_add(entries), "rule", "rules"),
            some(self.sets, "rule of a set", "rules of sets"),
        ];
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        (!parts.is_empty()).then(|| format!("{family}: {parts}"))
    }
}

/// What is to be put back of a table, beside the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing<'a> {
    Rule(&'a Rule, &'a Label),
    Set(&'a SetKey),
}

/// Rules, which are in the order of the table, and those of sets in the order in which they are to be
/// inserted at the heads of their chains: what comes first there is inserted last.
fn in_order_of_insertion<'a>(
    rules: &'a [(Rule, Label)],
    sets: &'a [SetKey],
    by_precedence: bool,
) -> Vec<Missing<'a>> {
    let sets = sets.iter().map(Missing::Set);
    let rules = rules.iter().rev().map(|(rule, label)| Missing::Rule(rule, label));
    let mut missing: Vec<Missing<'a>> = sets.chain(rules).collect();
    if by_precedence {
        // Drop first, which comes last.
        missing.sort_by_cached_key(|missing| std::cmp::Reverse(missing.target()));
    }
    missing
}

impl Missing<'_> {
    fn target(self) -> Target {
        match self {
            Missing::Rule(rule, _) => rule.scope().target(),
            Missing::Set(set) => set.scope().target(),
        }
    }
}

/// Plans to insert what is not there. A rule that is to go is not there.
fn plan_missing(
    cache: &RuleCache,
    transaction: &mut Transaction,
    missing: &[Missing<'_>],
    revived: &HashSet<(Rule, Label)>,
) -> Count {
    let mut count = Count::default();
    for missing in missing {
        match missing {
            Missing::Set(set) if !cache.has_set(set) => {
                transaction.insert_set(set, 1);
                count.sets += 1;
            }
            Missing::Rule(rule, label) if is_missing(cache, rule, label.list, revived) => {
                transaction.insert(rule, label, 1);
                count.rules += 1;
            }
            Missing::Rule(..) | Missing::Set(_) => {}
        }
    }
    count
}

fn is_missing(cache: &RuleCache, rule: &Rule, list: ListName, revived: &HashSet<(Rule, Label)>) -> bool {
    let there = cache.labels(rule, list);
    there.into_iter().all(|label| revived.contains(&(rule.clone(), label.clone())))
}

/// Plans to put the guard at the heads of its chains. Gives how many of its rules were not as they should be.
fn plan_guard(cache: &RuleCache, transaction: &mut Transaction, guards: &[Guard]) -> usize {
    let is_guarded = is_guarded(cache.guards(), guards);
    plan_guards(cache.guards(), transaction, guards, true);
    if is_guarded { 0 } else { guards.len() }
}

#[cfg(test)]
mod tests;
