//! How much rfw holds, from the rule caches and the mirrors of sets, without asking the kernel; and at a
//! start, when no set is read yet, from the kernel's own counts of entries.

use super::{Firewall, FirewallError};
use crate::rule::list_name::ListName;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// How much rfw holds, as last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The lists that hold something; the unnamed one is one of them.
    pub lists: usize,
    /// Their addresses: one counts once for each list and scope that has it.
    pub entries: usize,
    /// Whether that is all: after a start, or where others change sets, some are yet to be read.
    pub is_whole: bool,
}

impl Firewall {
    /// Counts what is held. It takes a nanosecond or two for each entry of a set, and no program.
    pub(crate) fn tally(&self, now: SystemTime) -> Tally {
        let (by_list, is_whole) = self.entries_by_list(now);
        let lists: BTreeSet<ListName> = by_list.keys().map(|(list, _)| *list).collect();
        let entries = by_list.values().fold(0, |sum: usize, count| sum.saturating_add(*count));
        Tally { lists: lists.len(), entries, is_whole }
    }

    /// Counts what a start has found, a message to the kernel for each set. Entries whose time is over count
    /// until the kernel removes them.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn found(&mut self) -> Result<Tally, FirewallError> {
        let caches = self.tables.iter().map(|table| table.cache());
        let mut lists: BTreeSet<ListName> = caches.clone().flat_map(|cache| cache.lists()).collect();
        let mut entries = caches.map(|cache| cache.len()).sum::<usize>();
        let unions = self.linked_sets();
        let Some(sets) = &mut self.sets else {
            return Ok(Tally { lists: lists.len(), entries, is_whole: true });
        };
        for set in unions.iter().flat_map(|union| sets.list_sets(union)).collect::<Vec<_>>() {
            let count = sets.own_size(&set)?.unwrap_or_default();
            entries = entries.saturating_add(count);
            lists.extend(set.list().or(Some(ListName::UNNAMED)).filter(|_| count > 0));
        }
        Ok(Tally { lists: lists.len(), entries, is_whole: true })
    }
}
