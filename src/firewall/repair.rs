//! The look: what others have done to tables and sets. What they have flushed comes back, from what rfw
//! remembers; a rule that somebody has deleted alone does not.
//!
//! Sets come back first, as rules look packets up in them; then each table in one transaction, the guard
//! at the head.

use super::rule_cache::RuleCache;
use super::{Firewall, FirewallError};
use crate::firewall::table::{Plan, Table};
use crate::kernel::guard::Guard;
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::network::Family;
use crate::rule::{Rule, Target};
use pace::Pace;
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
    pace: Pace,
    /// When something was put back last, in a table or a set.
    last: Option<Instant>,
    /// What has come back of sets, and is not told yet.
    of_sets: Restored,
}

impl Repairs {
    /// Takes down that sets were put back.
    pub(super) fn of_sets(&mut self, what: String) {
        self.of_sets.push(what);
        self.made();
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
                Ok(of_table) => restored.extend(of_table),
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
            noted.iter().for_each(|(rule, label)| self.note_gone(rule, label.list));
        }
        Ok(())
    }

    /// Puts back what of a table others have flushed, in one transaction.
    fn restore(&mut self, family: Family, now: SystemTime) -> Result<Option<String>, FirewallError> {
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
        let by_precedence = self.by_precedence();
        let revived = self.table(family)?.surplus();
        let count = self.change(family, Plan::FromKernel, |cache, transaction| {
            let lost = rules.iter().filter(|(rule, label)| {
                let there = cache.labels(rule, label.list);
                there
                    .iter()
                    .all(|there| revived.iter().any(|(other, label)| other == rule && label == *there))
            });
            plan_restore(cache, transaction, &lost.collect::<Vec<_>>(), &sets, &guards, by_precedence)
        })?;
        for (rule, label) in &entries {
            self.insert_entry(rule, &SetKey::of(rule), label, now)?;
        }
        let table = self.table(family)?;
        table.memory_mut().put_back();
        // The numbers of the rules behind have changed.
        table.invalidate();
        if by_precedence {
            self.put_in_order(family)?;
        }
        self.repairs.made();
        Ok(count.told(family, entries.len()))
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
        let surplus = table.surplus();
        self.change(family, Plan::FromKernel, |cache, transaction| {
            let there = surplus.iter().filter(|(rule, label)| cache.has(rule, label));
            there.for_each(|(rule, label)| transaction.delete(rule, label));
        })?;
        self.table(family)?.memory_mut().tidied();
        self.table(family)?.invalidate();
        if !surplus.is_empty() {
            log::info!("brought back by others, and deleted again: {}", named(&surplus));
        }
        Ok(())
    }

    /// Tells in one line what has come back, of sets too.
    pub(super) fn tell(&mut self, restored: Restored, now: SystemTime) {
        let restored: Restored =
            std::mem::take(&mut self.repairs.of_sets).into_iter().chain(restored).collect();
        if restored.is_empty() {
            return;
        }
        match self.repairs.pace.telling(Instant::now(), now) {
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
    fn told(self, family: Family, entries: usize) -> Option<String> {
        let counted = |count: usize, one: &str, many: &str| {
            (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
        };
        let parts = [
            (self.guards > 0).then(|| "the guard".to_owned()),
            counted(self.rules.saturating_add(entries), "rule", "rules"),
            counted(self.sets, "rule of a set", "rules of sets"),
        ];
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        (!parts.is_empty()).then(|| format!("{family}: {parts}"))
    }
}

/// Plans to put rules, those of sets and the guard at the heads of their chains: what comes first there is
/// inserted last. Rules are in the order of the table.
fn plan_restore(
    cache: &RuleCache,
    transaction: &mut Transaction,
    rules: &[&(Rule, Label)],
    sets: &[SetKey],
    guards: &[Guard],
    by_precedence: bool,
) -> Count {
    // One that stood in another chain has been moved where it belongs by now.
    let sets: Vec<&SetKey> = sets.iter().filter(|set| !cache.has_set(set)).collect();
    let targets: &[Target] = &[Target::Drop, Target::Reject, Target::Accept];
    let mut insert = |wanted: &dyn Fn(Target) -> bool| {
        for set in sets.iter().filter(|set| wanted(set.scope().target())) {
            transaction.insert_set(set, 1);
        }
        for (rule, label) in rules.iter().rev().filter(|(rule, _)| wanted(rule.scope().target())) {
            transaction.insert(rule, label, 1);
        }
    };
    match by_precedence {
        true => targets.iter().for_each(|target| insert(&|of| of == *target)),
        false => insert(&|_| true),
    }
    let is_guarded = super::guard::is_guarded(cache.guards(), guards);
    super::guard::plan_guards(cache.guards(), transaction, guards, true);
    let guards = if is_guarded { 0 } else { guards.len() };
    Count { guards, rules: rules.len(), sets: sets.len() }
}
