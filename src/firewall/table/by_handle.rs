//! Many deletions at once on nf_tables: by the handles of rules, which no other program can move.
//!
//! iptables-nft-restore compares each rule that it is to delete with all rules before it: 2,500 of
//! 5,000 take 2 seconds. By handle they take the time of a reading, which tells their numbers.

use super::Table;
use crate::kernel::iptables::{Change, Transaction};
use crate::kernel::nft_rules::{DeletionError, Doomed};
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::layout::{KernelChain, Layout};

/// The fewest deletions that are worth a reading.
const MANY: usize = 50;

/// What came of a deletion by handle.
pub(super) enum Deletion {
    /// All is deleted.
    Done,
    /// Nothing is deleted, and the next attempt reads the table: its numbers are not known, or others
    /// have changed the ruleset.
    NotYet,
    /// The next attempt reads the table, since this one may have been done.
    Unknown,
    /// It can't be done that way, or is not worth it.
    BySpecification,
}

impl Table {
    /// Commits a transaction that does nothing but delete many rules, where that can be done by their
    /// handles, and applies it to the cache.
    pub(super) fn delete_by_handle(&mut self, transaction: &Transaction) -> Deletion {
        let (Some(generation), Some(deleted)) =
            (self.generation, deletions(transaction, self.cache.layout()))
        else {
            return Deletion::BySpecification;
        };
        if !self.commands.nft || deleted.len() < MANY {
            return Deletion::BySpecification;
        }
        let Some(numbers) = self.cache.numbers_of(&deleted) else {
            self.read = false;
            return Deletion::NotYet;
        };
        let layout = self.cache.layout();
        let chains: Vec<KernelChain> = deleted.iter().map(|(rule, _)| layout.chain(rule.scope())).collect();
        let doomed: Vec<Doomed<'_>> = deleted
            .into_iter()
            .zip(numbers)
            .zip(&chains)
            .map(|(((rule, label), number), chain)| doomed_of(chain, rule, label, number))
            .collect();
        match self.nft_rules.delete(self.family, generation, &doomed) {
            Ok(()) => {
                log::debug!("{} rules of {} are deleted by their handles", doomed.len(), self.family);
                self.note_commit(transaction, true, 1);
                Deletion::Done
            }
            Err(DeletionError::Changed) => {
                self.read = false;
                Deletion::NotYet
            }
            Err(error @ DeletionError::Unknown(_)) => {
                log::debug!("{} rules of {} may have been deleted: {error}", doomed.len(), self.family);
                self.read = false;
                Deletion::Unknown
            }
            Err(error) => {
                log::debug!("{} rules of {} are deleted one by one: {error}", doomed.len(), self.family);
                Deletion::BySpecification
            }
        }
    }
}

/// The rules that a transaction deletes, if it does nothing else, and if each is one of the kernel's.
fn deletions<'a>(transaction: &'a Transaction, layout: &Layout) -> Option<Vec<(&'a Rule, &'a Label)>> {
    let deletions = transaction.changes().iter().map(|change| match change {
        Change::Delete(rule, label) if !layout.has_exception(rule.scope()) => Some((rule, label)),
        _ => None,
    });
    deletions.collect()
}

/// A rule where it stands.
fn doomed_of<'a>(chain: &'a KernelChain, rule: &'a Rule, label: &'a Label, number: usize) -> Doomed<'a> {
    Doomed { table: chain.table().name(), chain: chain.name(), number, rule, label }
}
