//! Addresses as entries of sets, where the option `ipset` is on.

use super::{Batch, Firewall, FirewallError, Outcome};
use crate::ipset::{self, Set, Side, Timeout};
use crate::lease::Lease;
use crate::net::Network;
use crate::rule::Rule;
use crate::sets::{Count, Entered, Wish};
use crate::table::Trust;
use crate::tool::ToolError;
use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a set is tried whose rule somebody else keeps removing.
const ATTEMPTS: usize = 3;

impl Firewall {
    /// Whether rules like those of `set` are kept in sets. Where the kernel has no
    /// sets of pairs, a pair is a rule of its own.
    pub(super) fn is_for_sets(&mut self, set: &Set) -> Result<bool, FirewallError> {
        match &mut self.sets {
            Some(sets) if self.use_sets => Ok(set.side() != Side::Both || sets.has_pairs(set)?),
            _ => Ok(false),
        }
    }

    pub(super) fn insert_entry(
        &mut self,
        rule: &Rule,
        set: &Set,
        lease: Lease,
        now: SystemTime,
    ) -> Result<Outcome, FirewallError> {
        let (name, element, timeout) = (set.name(), ipset::element(rule), timeout(lease, now)?);
        for _ in 0..ATTEMPTS {
            self.link(set)?;
            let sets = self.sets()?;
            let outcome = match sets.add(&name, &element, timeout)? {
                Entered::Done => Outcome::Inserted,
                Entered::Full => return Err(FirewallError::Full(sets.maxelem())),
                Entered::NoSet => {
                    self.table(set.family())?.forget();
                    continue;
                }
                Entered::Already if timeout.seconds() == 0 && sets.timeout(set, rule)? == Some(timeout) => {
                    Outcome::Unchanged
                }
                Entered::Already => match sets.renew(&name, &element, timeout)? {
                    Entered::Full => return Err(FirewallError::Full(sets.maxelem())),
                    Entered::Done | Entered::Already | Entered::NoSet => Outcome::Refreshed,
                },
            };
            return self.without_rule(rule, outcome);
        }
        Err(ToolError::Restless.into())
    }

    /// Deletes the rule of an address that is in a set now. There is one where its
    /// time was longer than a set can hold.
    pub(super) fn without_rule(&mut self, rule: &Rule, outcome: Outcome) -> Result<Outcome, FirewallError> {
        if self.table(rule.family())?.kept().leases(rule).is_empty() {
            return Ok(outcome);
        }
        self.change(rule.family(), Trust::Memory, |kept, transaction| {
            kept.leases(rule).iter().for_each(|lease| transaction.delete(rule, *lease));
        })?;
        Ok(Outcome::Refreshed)
    }

    /// Makes sure that a set is there and a rule looks packets up in it. A set that
    /// no rule used, since somebody flushed the table, begins anew.
    pub(super) fn link(&mut self, set: &Set) -> Result<(), FirewallError> {
        let table = self.table(set.family())?;
        if table.has_set(set)? {
            return Ok(());
        }
        table.forget();
        self.sets()?.create(set)?;
        self.change(set.family(), Trust::Kernel, |kept, transaction| {
            let number = kept.number_for(set.place());
            transaction.insert_set(set, number);
        })?;
        // The rule that went in has moved others.
        self.table(set.family())?.forget();
        Ok(())
    }

    pub(super) fn check_room(&mut self, batch: &Batch) -> Result<(), FirewallError> {
        let linked = self.table(batch.set.family())?.has_set(&batch.set)?;
        let sets = self.sets()?;
        let most = usize::try_from(sets.maxelem()).unwrap_or(usize::MAX);
        let size = match linked {
            true => sets.size_with(&batch.set.name(), &batch.networks)?,
            false => batch.networks.len(),
        };
        if size > most { Err(FirewallError::Full(sets.maxelem())) } else { Ok(()) }
    }

    /// Puts a batch into its set, and deletes those of it that are rules: their time
    /// was longer than a set can hold.
    pub(super) fn insert_entries(&mut self, batch: &Batch, timeout: Timeout) -> Result<Count, FirewallError> {
        self.link(&batch.set)?;
        let as_rules = self.change(batch.set.family(), Trust::Memory, |kept, _| {
            let present = batch.present(kept);
            present.iter().flat_map(|(rule, _)| rule.networks().copied()).collect::<HashSet<Network>>()
        })?;
        let count = self.change_entries(batch, Wish::Add(timeout), &as_rules)?;
        if !as_rules.is_empty() {
            self.delete_rules(batch)?;
        }
        Ok(count)
    }

    pub(super) fn change_entries(
        &mut self,
        batch: &Batch,
        wish: Wish,
        as_rules: &HashSet<Network>,
    ) -> Result<Count, FirewallError> {
        let maxelem = self.sets()?.maxelem();
        match self.sets()?.apply(&batch.set, &batch.networks, wish, as_rules) {
            Err(error) if error.says("is full") => Err(FirewallError::Full(maxelem)),
            count => Ok(count?),
        }
    }

    /// The sets that a rule looks packets up in, as last read.
    pub(super) fn linked_sets(&self) -> Vec<Set> {
        self.tables.iter().flat_map(|table| table.kept().sets()).cloned().collect()
    }

    /// Deletes the entries that stand for unwanted rules, and gives those.
    pub(super) fn remove_entries(
        &mut self,
        set: &Set,
        unwanted: impl Fn(&Rule) -> bool,
    ) -> Result<Vec<Rule>, FirewallError> {
        let name = set.name();
        let mut removed = Vec::new();
        self.sets()?.for_each_entry(&name, |entry| {
            removed.extend(set.rule(entry.element).filter(&unwanted));
            Ok(())
        })?;
        for rule in &removed {
            self.sets()?.delete(&name, &ipset::element(rule))?;
        }
        Ok(removed)
    }
}

/// What is left of a lease at `now`, as the kernel's timeout of an entry.
pub(super) fn timeout(lease: Lease, now: SystemTime) -> Result<Timeout, FirewallError> {
    let Some(end) = lease.end() else { return Ok(Timeout::default()) };
    let end = UNIX_EPOCH + Duration::from_secs(end.seconds());
    let left = end.duration_since(now).unwrap_or(Duration::ZERO).as_secs().max(1);
    Timeout::new(left).ok_or(FirewallError::TooLong(left))
}
