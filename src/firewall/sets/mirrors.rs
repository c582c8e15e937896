//! What rfw remembers of all its sets: a mirror of each, which of them others may have made wrong, and
//! the one that is read anew.
//!
//! A mirror is the memory that a set comes back from which others empty or destroy. So it is kept while
//! the set is read anew: it follows what rfw changes meanwhile, and then the two are compared.

use super::difference::{Difference, is_close, is_missing};
use super::element;
use super::gone::{Gone, Of};
use super::mirror::{Known, Mirror};
use crate::kernel::ipset::{Dump, Element};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::lease::Lease;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

/// Time from finding a mirror to be wrong to filling it: who keeps changing sets by hand does not
/// keep rfw reading them.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time after which a set is read anew though nothing tells that others have changed it.
const READ_INTERVAL: Duration = Duration::from_secs(600);

/// The mirrors of all sets, and which of them are missing.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    all: BTreeMap<SetKey, Mirror>,
    /// Sets whose mirror is a memory only: others may have changed them.
    doubted: BTreeSet<SetKey>,
    /// Sets that are to be read, and when that may begin.
    wanted: BTreeMap<SetKey, Instant>,
    /// When each set was read last, or made.
    read: BTreeMap<SetKey, Instant>,
    /// Sets whose entries are to get the timeouts that their remembered ends mean now.
    untimed: BTreeSet<SetKey>,
    pub(super) running: Option<Reading>,
    /// The set whose reading is to begin next.
    first: Option<SetKey>,
    gone: Gone,
}

/// A set that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub set: SetKey,
    pub dump: Dump,
    pub mirror: Mirror,
    /// When the kernel made the piece that comes next: it does that when the one before is taken.
    pub made: SystemTime,
    /// Whether its entries get the timeouts that their remembered ends mean now.
    pub retimes: bool,
    /// The number of readings in a row, this one too.
    pub attempt: usize,
}

/// What follows the changes that rfw makes to one set: its mirror, and that which is being filled.
pub(super) struct Follower<'a> {
    known: Option<&'a mut Mirror>,
    read: Option<&'a mut Mirror>,
    /// What has gone out of the set, if that is of interest.
    gone: Option<(&'a mut Gone, Of)>,
}

impl Follower<'_> {
    /// Takes down that the kernel has added or renewed an entry.
    pub(super) fn put(&mut self, element: &Element<'_>, lease: Lease, now: SystemTime) {
        if let Some(known) = &mut self.known {
            let gone = &mut self.gone;
            known.put_and_purge(element, lease, now, |element, lease| {
                gone.iter_mut().for_each(|(gone, of)| gone.end(*of, element, lease));
            });
        }
        self.read.iter_mut().for_each(|read| read.put(element, lease, now));
    }

    /// Takes down that the kernel has deleted an entry, or that it was not there.
    pub(super) fn remove(&mut self, element: &Element<'_>) {
        self.known.iter_mut().for_each(|known| known.remove(element));
        self.read.iter_mut().for_each(|read| read.remove(element));
        self.gone.iter_mut().for_each(|(gone, of)| gone.delete(*of, element));
    }

    /// Makes room for a list that is all new.
    pub(super) fn reserve(&mut self, more: usize) {
        self.known.iter_mut().for_each(|known| known.reserve(more));
    }
}

impl Mirrors {
    /// The mirror of a set, if it can be relied on.
    pub(super) fn whole(&self, set: &SetKey) -> Option<&Mirror> {
        self.all.get(set).filter(|_| !self.doubted.contains(set))
    }

    /// What is remembered of a set, whether others have changed it since or not.
    pub(super) fn known(&self, set: &SetKey) -> Option<&Mirror> {
        self.all.get(set)
    }

    /// What was read so far of a set.
    pub(super) fn partly_read(&self, set: &SetKey) -> Option<&Mirror> {
        self.running.as_ref().filter(|reading| reading.set == *set).map(|reading| &reading.mirror)
    }

    /// The sets that are known, the lists of a scope before its union.
    pub(super) fn sets(&self) -> Vec<SetKey> {
        let running = self.running.iter().map(|reading| &reading.set);
        let all: BTreeSet<&SetKey> = self.all.keys().chain(self.wanted.keys()).chain(running).collect();
        let (lists, unions): (Vec<&SetKey>, Vec<&SetKey>) =
            all.into_iter().partition(|set| set.list().is_some());
        lists.into_iter().chain(unions).cloned().collect()
    }

    /// Whether a set has to be read before its mirror can be relied on, and is not being read yet.
    pub(super) fn is_wanted(&self, set: &SetKey) -> bool {
        self.wanted.contains_key(set) && self.whole(set).is_none()
    }

    /// Whether nothing is known of a set, and it is not being read.
    pub(super) fn is_lost(&self, set: &SetKey) -> bool {
        !self.all.contains_key(set) && self.partly_read(set).is_none()
    }

    /// What follows the changes of a set.
    pub(super) fn follow(&mut self, set: &SetKey, notes_gone: bool) -> Follower<'_> {
        let of = self.gone.of(set);
        let read = self.running.as_mut().filter(|reading| reading.set == *set);
        Follower {
            known: self.all.get_mut(set),
            read: read.map(|reading| &mut reading.mirror),
            gone: notes_gone.then_some((&mut self.gone, of)),
        }
    }

    /// What has gone out of a set.
    pub(super) fn gone_of(&self, set: &SetKey) -> (&Gone, Of) {
        (&self.gone, self.gone.of(set))
    }

    /// Begins the mirror of a set that has just been made.
    pub(super) fn begin(&mut self, set: &SetKey) {
        self.forget(set);
        self.replace(set, Mirror::of_new(set));
    }

    /// Takes the mirror of a set that is known to be right now.
    fn replace(&mut self, set: &SetKey, mirror: Mirror) {
        self.running.take_if(|reading| reading.set == *set);
        self.doubted.remove(set);
        self.wanted.remove(set);
        self.read.insert(set.clone(), Instant::now());
        self.all.insert(set.clone(), mirror);
    }

    /// Takes what was found in a set, once `difference` is dealt with: what went as a whole is back, and
    /// what had returned is out again. What is known to the second stays so.
    pub(super) fn conclude(
        &mut self,
        set: &SetKey,
        mut found: Mirror,
        difference: &Difference,
        now: SystemTime,
    ) {
        difference.returned.iter().for_each(|element| found.remove(element));
        let Some(mut known) = self.all.remove(set) else { return self.replace(set, found) };
        if difference.missing > 0 && !difference.is_emptied {
            let mut missing = Vec::new();
            known.each_known(|element, lease| {
                missing.extend(Some(element).filter(|_| is_missing(lease, found.lease(&element), now)));
            });
            missing.iter().for_each(|element| known.remove(element));
        }
        found.each_known(|element, lease| match known.lease(&element) {
            Some(end) if difference.moved > 0 || is_close(end, lease) => {}
            _ => known.put(&element, lease, now),
        });
        self.replace(set, known);
    }

    /// Takes what is remembered of a set out, until it is given back.
    pub(super) fn lend(&mut self, set: &SetKey) -> Option<Mirror> {
        self.all.remove(set)
    }

    /// Takes it back.
    pub(super) fn give_back(&mut self, set: &SetKey, known: Mirror) {
        self.all.insert(set.clone(), known);
    }

    /// Has a set read, unless it has a mirror.
    pub(super) fn want(&mut self, set: &SetKey) {
        if self.is_lost(set) {
            self.wanted.insert(set.clone(), Instant::now());
        }
    }

    /// Has a set read anew whose mirror may be as good as any, and serves meanwhile.
    pub(super) fn refill(&mut self, set: &SetKey) {
        self.running.take_if(|reading| reading.set == *set);
        self.wanted.insert(set.clone(), Instant::now());
    }

    /// Has a set read anew whose mirror may be wrong.
    pub(super) fn doubt(&mut self, set: &SetKey) {
        // Who has one doubt after the other does not keep it from being read.
        let wanted = self.wanted.get(set).copied();
        self.running.take_if(|reading| reading.set == *set);
        self.doubted.insert(set.clone());
        self.wanted.insert(set.clone(), wanted.unwrap_or_else(|| Instant::now() + INTERVAL));
    }

    /// Ends a reading that keeps its set from being swapped; it begins anew.
    pub(super) fn interrupt(&mut self, set: &SetKey) {
        if self.running.take_if(|reading| reading.set == *set).is_some() {
            self.wanted.insert(set.clone(), Instant::now());
        }
    }

    /// Has a set read before any other.
    pub(super) fn hurry(&mut self, set: &SetKey) {
        match self.running.as_ref().map(|reading| reading.set.clone()) {
            Some(running) if running == *set => return,
            Some(running) => self.interrupt(&running),
            None => {}
        }
        self.first = Some(set.clone());
    }

    /// Has the sets read anew of which that is long ago.
    pub(super) fn refill_old(&mut self) {
        let running = self.running.as_ref().map(|reading| &reading.set);
        let is_idle = |set: &SetKey| !self.wanted.contains_key(set) && running != Some(set);
        let old = self.read.iter().filter(|(set, at)| at.elapsed() >= READ_INTERVAL && is_idle(set));
        let old: Vec<SetKey> = old.map(|(set, _)| set.clone()).collect();
        old.iter().for_each(|set| self.refill(set));
    }

    /// Has the entries of a set get the timeouts that their remembered ends mean, while it is read.
    pub(super) fn retime(&mut self, set: &SetKey) {
        self.untimed.insert(set.clone());
        self.refill(set);
    }

    /// Whether the next reading of a set is to do that.
    pub(super) fn is_untimed(&self, set: &SetKey) -> bool {
        self.untimed.contains(set)
    }

    /// Takes down that the entries of a set have their timeouts.
    pub(super) fn note_timed(&mut self, set: &SetKey) {
        self.untimed.remove(set);
    }

    /// Forgets a set that is gone for good.
    pub(super) fn forget(&mut self, set: &SetKey) {
        self.running.take_if(|reading| reading.set == *set);
        self.all.remove(set);
        self.doubted.remove(set);
        self.wanted.remove(set);
        self.read.remove(set);
        self.untimed.remove(set);
    }

    /// Forgets the set of that name.
    pub(super) fn forget_named(&mut self, name: &str) {
        let sets: Vec<SetKey> = self.sets().into_iter().filter(|set| set.name() == name).collect();
        sets.iter().for_each(|set| self.forget(set));
    }

    /// The set whose reading may begin, if there is one.
    pub(super) fn next_wanted(&mut self) -> Option<SetKey> {
        if let Some(first) = self.first.take() {
            self.wanted.remove(&first);
            return Some(first);
        }
        let now = Instant::now();
        let set = self.wanted.iter().find(|(_, not_before)| **not_before <= now)?.0.clone();
        self.wanted.remove(&set);
        Some(set)
    }

    /// When a set is to be read; `None` if all are known.
    pub(super) fn next_reading(&self) -> Option<Instant> {
        let running = self.running.is_some().then(Instant::now);
        running.or_else(|| self.wanted.values().min().copied())
    }

    /// Whether the kernel's word on an entry shows that others have changed the set.
    pub(super) fn is_wrong(&self, set: &SetKey, rule: &Rule, there: bool, now: SystemTime) -> bool {
        let known = self.whole(set).map(|mirror| mirror.get(&element(rule), now));
        let wrong = match known {
            Some(Known::There(_)) => !there,
            Some(Known::Absent) => there,
            Some(Known::Ending) | None => false,
        };
        if wrong {
            log::debug!("{}: somebody else has changed the set, it is read anew", set.name());
        }
        wrong
    }
}
