//! What is measured of the firewall, without the kernel being asked: what lists hold, from the rule caches and the
//! mirrors of sets, and what has happened since the start.

use super::Firewall;
use crate::histogram::Histogram;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use crate::rule::network::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// What has happened since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    /// The rules whose time has ended. Entries of sets are ended by the kernel.
    pub expired: u64,
    /// How often a table, sets or the guard were put back after others had changed them.
    pub repairs: u64,
    /// How long changes of clients took, with the programs in it.
    pub transactions: Histogram,
}

impl Meter {
    /// Counts rules whose time has ended.
    pub(super) fn note_expired(&mut self, count: usize) {
        self.expired = self.expired.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Counts a repair.
    pub(super) fn note_repair(&mut self) {
        self.repairs = self.repairs.saturating_add(1);
    }
}

/// What is measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measures {
    /// The addresses of each list that has any, as last read.
    pub entries: BTreeMap<(ListName, Family), usize>,
    /// Whether these are all: after a start, or where others change sets, some are yet to be read.
    pub is_whole: bool,
    /// When lists were changed last by a client, as far as it was since the start.
    pub updated: BTreeMap<ListName, Moment>,
    /// What has happened.
    pub meter: Meter,
}

impl Firewall {
    /// Measures. It takes a nanosecond or two for each entry of a set, and no program.
    pub(crate) fn measures(&self, now: SystemTime) -> Measures {
        let (entries, is_whole) = self.entries_by_list(now);
        let updated = self.updated(entries.keys().map(|(list, _)| *list).collect());
        Measures { entries, is_whole, updated, meter: self.meter.clone() }
    }

    /// The addresses of each list and family, and whether they are all: one counts once for each scope that has it.
    pub(super) fn entries_by_list(&self, now: SystemTime) -> (BTreeMap<(ListName, Family), usize>, bool) {
        let (mut entries, mut is_whole) = (BTreeMap::<(ListName, Family), usize>::new(), true);
        let mut add = |of, count: usize| {
            if count > 0 {
                let sum = entries.entry(of).or_default();
                *sum = sum.saturating_add(count);
            }
        };
        for table in &self.tables {
            table.cache().sizes().for_each(|(list, count)| add((list, table.family()), count));
        }
        let unions = self.linked_sets();
        for (union, sets) in unions.iter().filter_map(|union| Some((union, self.sets.as_ref()?))) {
            for set in sets.list_sets(union) {
                let (count, is_read) = sets.alive_in(&set, now);
                is_whole &= is_read;
                add((set.list().unwrap_or(ListName::UNNAMED), union.family()), count);
            }
        }
        (entries, is_whole)
    }

    /// When lists were changed last: those that are there, and as many more of those that are gone as there may be
    /// lists, so that a feed that has stopped is still told when all that it had has ended.
    fn updated(&self, there: BTreeSet<ListName>) -> BTreeMap<ListName, Moment> {
        let mut updated = BTreeMap::new();
        for ((list, _), (moment, _)) in &self.updates {
            let latest = updated.entry(*list).or_insert(*moment);
            *latest = (*latest).max(*moment);
        }
        let mut gone: Vec<(Moment, ListName)> = updated
            .iter()
            .filter(|(list, _)| !there.contains(list))
            .map(|(list, moment)| (*moment, *list))
            .collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(self.settings.lists_max);
        for (_, list) in gone.iter().take(surplus) {
            updated.remove(list);
        }
        updated
    }
}
