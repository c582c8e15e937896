//! How much rfw holds, told without asking the kernel: from the rule caches and the mirrors of sets.

use super::Firewall;
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
}
