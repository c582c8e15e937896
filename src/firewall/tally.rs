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
        let caches = self.tables.iter().map(|table| table.cache());
        let mut lists: BTreeSet<ListName> = caches.clone().flat_map(|cache| cache.lists()).collect();
        let (mut entries, mut is_whole) = (caches.map(|cache| cache.len()).sum::<usize>(), true);
        let unions = self.linked_sets();
        for (union, sets) in unions.iter().filter_map(|union| Some((union, self.sets.as_ref()?))) {
            for set in sets.list_sets(union) {
                let (count, is_read) = sets.alive_in(&set, now);
                is_whole &= is_read;
                entries = entries.saturating_add(count);
                lists.extend(set.list().or(Some(ListName::UNNAMED)).filter(|_| count > 0));
            }
        }
        Tally { lists: lists.len(), entries, is_whole }
    }
}
