//! The filling of mirrors from the kernel, in pieces, so that requests come in between.
//!
//! A listing has a socket of its own, and keeps its set from being swapped and destroyed: before
//! those it is closed, and begun anew afterwards.

use super::mirror::{Known, Mirror};
use super::reader::dump;
use super::renewal::is_late;
use super::{Sets, deadline, element, label, name_of, of, owned, rule};
use crate::firewall::FirewallError;
use crate::kernel::ipset::{Dump, IpsetError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::lease::Lease;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// Time from finding a mirror to be wrong to filling it: who keeps changing sets by hand does not
/// keep rfw reading them.
const INTERVAL: Duration = Duration::from_secs(10);

/// The mirrors of all sets, and which of them are missing.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    all: BTreeMap<SetKey, Mirror>,
    /// Sets without a mirror, and when the filling of each may begin.
    wanted: BTreeMap<SetKey, Instant>,
    running: Option<(SetKey, Dump)>,
    /// The set whose filling is to begin next.
    first: Option<SetKey>,
}

impl Mirrors {
    /// The mirror of a set, if it is whole.
    pub(super) fn whole(&self, set: &SetKey) -> Option<&Mirror> {
        self.all.get(set).filter(|mirror| mirror.is_complete())
    }

    /// Whether a mirror is missing, and not being filled yet.
    pub(super) fn is_wanted(&self, set: &SetKey) -> bool {
        self.wanted.contains_key(set)
    }

    /// Whether a set has no mirror, not even one that is being filled.
    pub(super) fn is_lost(&self, set: &SetKey) -> bool {
        !self.all.contains_key(set)
    }

    /// The mirror of a set, whole or not.
    pub(super) fn of(&mut self, set: &SetKey) -> Option<&mut Mirror> {
        self.all.get_mut(set)
    }

    /// Begins the mirror of a set that has just been made.
    pub(super) fn begin(&mut self, set: &SetKey) {
        self.forget(set);
        self.all.insert(set.clone(), Mirror::of_new(set));
    }

    /// Has a mirror filled, unless there is one.
    pub(super) fn want(&mut self, set: &SetKey) {
        if !self.all.contains_key(set) {
            self.wanted.insert(set.clone(), Instant::now());
        }
    }

    /// Has a mirror filled anew that may be as good as any; until that begins it serves.
    pub(super) fn refill(&mut self, set: &SetKey) {
        if self.running.take_if(|(running, _)| running == set).is_some() {
            self.all.remove(set);
        }
        self.wanted.insert(set.clone(), Instant::now());
    }

    /// Has a mirror filled anew that may be wrong.
    pub(super) fn doubt(&mut self, set: &SetKey) {
        // Who has one doubt after the other does not keep it from being filled.
        let wanted = self.wanted.get(set).copied();
        self.forget(set);
        self.wanted.insert(set.clone(), wanted.unwrap_or_else(|| Instant::now() + INTERVAL));
    }

    /// Ends a filling that keeps its set from being swapped; it begins anew.
    pub(super) fn interrupt(&mut self, set: &SetKey) {
        if self.running.take_if(|(running, _)| running == set).is_some() {
            self.all.remove(set);
            self.wanted.insert(set.clone(), Instant::now());
        }
    }

    /// Has the mirror of a set filled before any other.
    pub(super) fn hurry(&mut self, set: &SetKey) {
        if self.running.as_ref().is_some_and(|(running, _)| running == set) {
            return;
        }
        if let Some((other, _)) = &self.running {
            let other = other.clone();
            self.interrupt(&other);
        }
        self.first = Some(set.clone());
    }

    /// Forgets a set that is gone.
    pub(super) fn forget(&mut self, set: &SetKey) {
        self.running.take_if(|(running, _)| running == set);
        self.all.remove(set);
        self.wanted.remove(set);
    }

    /// Forgets the set of that name.
    pub(super) fn forget_named(&mut self, name: &str) {
        let sets: Vec<SetKey> = self.all.keys().filter(|set| set.name() == name).cloned().collect();
        sets.iter().for_each(|set| self.forget(set));
    }

    /// The set whose filling may begin, if there is one.
    fn next_wanted(&mut self) -> Option<SetKey> {
        if let Some(first) = self.first.take() {
            self.wanted.remove(&first);
            return Some(first);
        }
        let now = Instant::now();
        let set = self.wanted.iter().find(|(_, not_before)| **not_before <= now)?.0.clone();
        self.wanted.remove(&set);
        Some(set)
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

impl Sets {
    /// Has the mirror of a set filled, unless there is one.
    pub(crate) fn mirror(&mut self, set: &SetKey) {
        self.mirrors.want(set);
    }

    /// Has a mirror that is whole filled anew, with a look at each entry.
    pub(crate) fn look_again(&mut self, set: &SetKey) {
        if self.mirrors.whole(set).is_some() {
            self.mirrors.refill(set);
            self.unsettle(set);
        }
    }

    /// When [`Sets::fill`] has something to do; `None` if every set has its mirror.
    pub(crate) fn next_fill(&self) -> Option<Instant> {
        let running = self.mirrors.running.is_some().then(Instant::now);
        running.or_else(|| self.mirrors.wanted.values().min().copied())
    }

    /// Reads one piece, some hundreds of entries, into a mirror. Gives the rules among them that
    /// are `forbidden`.
    ///
    /// # Errors
    /// The set can't be read: its mirror is tried again later.
    pub(crate) fn fill(
        &mut self,
        now: SystemTime,
        forbidden: impl Fn(&Rule) -> bool,
    ) -> Result<Vec<Rule>, FirewallError> {
        let (set, dump) = match self.mirrors.running.take() {
            Some(running) => running,
            None => match self.mirrors.next_wanted() {
                Some(set) => match self.begin_fill(&set)? {
                    Some(dump) => (set, dump),
                    None => return Ok(Vec::new()),
                },
                None => return Ok(Vec::new()),
            },
        };
        match self.fill_from(&set, dump, now, forbidden) {
            Err(FirewallError::Set(_, IpsetError::NoSet)) => {
                self.lose(&set);
                Ok(Vec::new())
            }
            Err(error) => {
                self.doubt(&set);
                Err(error)
            }
            filled => filled,
        }
    }

    /// Begins to list a set, unless it is gone or another that rfw has not made: nothing may be
    /// removed from that.
    fn begin_fill(&mut self, set: &SetKey) -> Result<Option<Dump>, FirewallError> {
        // What is listed can't be swapped any more: so it is listed before it is looked at.
        let begun =
            dump(self.ipset.dumper(), &name_of(set)?).and_then(|dump| Ok((dump, self.own_info(set)?)));
        match begun {
            Ok((dump, Some(_))) => {
                self.mirrors.all.insert(set.clone(), Mirror::to_fill(set));
                Ok(Some(dump))
            }
            Ok((_, None)) => {
                log::debug!("{}: it is gone, or another set is in its place, which is not read", set.name());
                self.lose(set);
                Ok(None)
            }
            // It is gone.
            Err(FirewallError::Set(_, IpsetError::NoSet)) => {
                self.lose(set);
                Ok(None)
            }
            Err(error) => {
                self.doubt(set);
                Err(error)
            }
        }
    }

    /// Takes down that others have destroyed a set, or put another in its place.
    fn lose(&mut self, set: &SetKey) {
        self.mirrors.forget(set);
        self.forget_list(set);
        self.unsettle(set);
    }

    fn fill_from(
        &mut self,
        set: &SetKey,
        mut dump: Dump,
        now: SystemTime,
        forbidden: impl Fn(&Rule) -> bool,
    ) -> Result<Vec<Rule>, FirewallError> {
        let Some(mirror) = self.mirrors.all.get_mut(set) else { return Ok(Vec::new()) };
        let Some(piece) = dump.next_piece(deadline()).map_err(|error| of(set, error))? else {
            mirror.complete();
            log::debug!("{}: {} entries are known", set.name(), mirror.len());
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in piece {
            let entry = entry.map_err(|error| of(set, error))?;
            let label = label(set, &entry, now);
            let lease = label.lease;
            if is_late(&label, entry.timeout.unwrap_or_default(), now) {
                self.long.entry(set.clone()).or_default();
            }
            owned(&entry.element).iter().for_each(|element| mirror.read(element, lease));
            found.extend(rule(set, &entry).filter(|rule| forbidden(rule)));
        }
        self.mirrors.running = Some((set.clone(), dump));
        Ok(found)
    }

    /// The rules of a set that are wanted, as far as its mirror is filled, with their ends.
    pub(crate) fn mirrored(
        &mut self,
        set: &SetKey,
        now: SystemTime,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Vec<(Rule, Lease)> {
        let mut found = Vec::new();
        if let Some(mirror) = self.mirrors.of(set) {
            mirror.each(now, |element, lease| {
                let rule = super::rule_of(set, &element).filter(&wanted);
                found.extend(rule.map(|rule| (rule, lease)));
            });
        }
        found
    }

    /// Compares the number of entries of a set with the mirror, which is read anew if others must
    /// have changed the set.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn verify(&mut self, set: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        let Some(size) = self.own_size(set)? else {
            self.lose(set);
            return Ok(());
        };
        if self.mirrors.whole(set).is_some_and(|mirror| !mirror.admits_size(size, now)) {
            log::debug!("{}: {size} entries, others than rfw knows: it is read anew", set.name());
            self.doubt(set);
        }
        Ok(())
    }

    /// Compares each entry of a set with the mirror, and logs the number of those that differ: for
    /// the debug log, since it takes as long as to list the set.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn compare_all(&mut self, set: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        if self.mirrors.whole(set).is_none() {
            return Ok(());
        }
        let (start, mut kernel) = (Instant::now(), Vec::new());
        self.each_entry(&name_of(set)?, |entry| {
            let lease = label(set, entry, now + start.elapsed()).lease;
            kernel.extend(owned(&entry.element).map(|element| (element, lease)));
            true
        })?;
        let Some(mirror) = self.mirrors.whole(set) else { return Ok(()) };
        let now = now + start.elapsed();
        let close = |lease: Lease, other: Lease| match (lease.end(), other.end()) {
            (Some(end), Some(other)) => end.seconds().abs_diff(other.seconds()) <= 2,
            (end, other) => end == other,
        };
        let same = |element, lease| match mirror.get(element, now) {
            Known::There(known) => close(known, lease),
            Known::Ending => true,
            Known::Absent => false,
        };
        let differ = kernel.iter().filter(|(element, lease)| !same(element, *lease)).count();
        let verdict = if mirror.admits_size(kernel.len(), now) { "as many" } else { "others" };
        log::debug!(
            "{}: {} entries in the kernel, {differ} of them not so in the mirror, which has {verdict}",
            set.name(),
            kernel.len()
        );
        Ok(())
    }
}
