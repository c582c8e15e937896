//! Puts back what others have taken out of sets, or sets as a whole, from what is remembered of them.
//!
//! What went as a whole comes back as a whole; a few entries that others have deleted are somebody's
//! decision. What others bring back that rfw has deleted, or that has ended, goes again.

use super::difference::{Difference, is_emptied, is_missing};
use super::entry::{comment_of, new_entry};
use super::mirror::Mirror;
use super::{Sets, label, name_of, owned, rule_of};
use crate::firewall::FirewallError;
use crate::firewall::verbs::Notes;
use crate::kernel::ipset::{Element, IpsetError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use std::mem;
use std::time::SystemTime;

/// The most entries that are put back in one send: what a million take in memory at once is too much.
const PART: usize = 32_768;

/// What putting back needs to know that sets don't tell.
pub(crate) struct Repair<'a> {
    /// Whether the white list forbids a rule: that does not come back.
    pub forbidden: &'a dyn Fn(&Rule) -> bool,
    /// The reasons of the entries of a set. Asked only where some come back.
    pub notes: &'a dyn Fn(&SetKey) -> Notes,
}

/// What others were found to have done to sets: names with numbers of entries.
#[derive(Debug, Default)]
pub(crate) struct SetsLook {
    /// What was gone as a whole and is back.
    pub restored: Vec<(String, usize)>,
    /// Unions that were made again: they have no rules yet.
    pub made: Vec<SetKey>,
    /// What was deleted, and stays so.
    pub noted: Vec<(String, usize)>,
    /// What was deleted or had ended, was back, and is taken out again.
    pub removed: Vec<(String, usize)>,
    /// What had other ends than before.
    pub moved: Vec<(String, usize)>,
    /// Members of the registry that were missing and are back.
    pub members: usize,
}

impl SetsLook {
    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        let all = [&self.restored, &self.noted, &self.removed, &self.moved];
        all.iter().all(|found| found.is_empty()) && self.made.is_empty() && self.members == 0
    }
}

impl Sets {
    /// Looks at the registry and at the number of entries of each set, and puts back what is gone. Where
    /// a number does not fit, the set is to be read anew; so it is where that was long ago.
    ///
    /// # Errors
    /// The kernel does not answer; what was done until then stays done, and [`Sets::found`] tells it.
    pub(crate) fn look(&mut self, now: SystemTime, repair: &Repair<'_>) -> Result<(), FirewallError> {
        let mut failed = self.put_back_registry().err();
        // The lists of a scope come before its union.
        for set in self.mirrors.sets() {
            if let Err(error) = self.look_at(&set, now, repair) {
                failed = failed.or(Some(error));
            }
        }
        self.note_registry_back();
        self.mirrors.refill_old();
        failed.map_or(Ok(()), Err)
    }

    fn put_back_registry(&mut self) -> Result<(), FirewallError> {
        let members = self.check_registry()?;
        self.found.members = self.found.members.saturating_add(members);
        Ok(())
    }

    /// Puts back what is gone of the sets of one scope.
    ///
    /// # Errors
    /// As for [`Sets::look`].
    pub(crate) fn mend(
        &mut self,
        union: &SetKey,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<(), FirewallError> {
        let mut sets = self.sets_of(union);
        sets.reverse();
        sets.iter().try_for_each(|set| self.look_at(set, now, repair))
    }

    /// What was found since this was asked last.
    pub(crate) fn found(&mut self) -> SetsLook {
        mem::take(&mut self.found)
    }

    /// Whether others have changed what a list holds, or it is known only now, since this was asked last.
    pub(crate) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }

    fn look_at(&mut self, set: &SetKey, now: SystemTime, repair: &Repair<'_>) -> Result<(), FirewallError> {
        let Some(size) = self.own_size(set)? else {
            if self.foreign.contains(set) {
                self.lose(set);
                return Ok(());
            }
            return self.put_back_set(set, now, repair);
        };
        let is_remade = self.remade.contains(set);
        if is_remade || self.is_emptied(set, size, now) || self.went_with_registry(set, size, now)? {
            let found = self.read_at_once(set, size, now)?;
            return self.conclude(set, found, is_remade, now, repair);
        }
        self.compare_size(set, size, now);
        Ok(())
    }

    /// Whether a set lacks entries, and others have emptied the registry too: then it was emptied with that.
    pub(super) fn went_with_registry(
        &mut self,
        set: &SetKey,
        size: usize,
        now: SystemTime,
    ) -> Result<bool, FirewallError> {
        let lacks =
            self.mirrors.known(set).is_some_and(|known| size < known.len() && size < known.alive(now));
        Ok(lacks && self.is_registry_emptied()?)
    }

    /// Refuses a change of a set that others have emptied or destroyed: what it held comes back first.
    pub(super) fn check_emptied(
        &self,
        set: &SetKey,
        size: Option<usize>,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let emptied = match size {
            Some(size) => self.remade.contains(set) || self.is_emptied(set, size, now),
            None => {
                !self.foreign.contains(set) && self.mirrors.known(set).is_some_and(|it| it.alive(now) > 0)
            }
        };
        if emptied { Err(FirewallError::Emptied(set.name())) } else { Ok(()) }
    }

    /// Whether a set of that many entries has been emptied: two or more, and over half of those that are
    /// remembered and have not ended, are missing.
    pub(crate) fn is_emptied(&self, set: &SetKey, size: usize, now: SystemTime) -> bool {
        let Some(known) = self.mirrors.known(set) else { return false };
        // Most of the time that tells enough, without a look at each end.
        if size.saturating_mul(2) >= known.len() {
            return false;
        }
        let alive = known.alive(now);
        is_emptied(alive, alive.saturating_sub(size))
    }

    /// Whether something is remembered of a set, which others may have destroyed.
    pub(crate) fn is_remembered(&self, set: &SetKey) -> bool {
        self.mirrors.known(set).is_some_and(|known| known.len() > 0)
    }

    /// Whether the entries that are remembered of a set have all ended, or there are none.
    pub(super) fn is_spent(&self, set: &SetKey, now: SystemTime) -> bool {
        self.mirrors.known(set).is_none_or(|known| known.alive(now) == 0)
    }

    /// What there is left of a set.
    fn read_at_once(&self, set: &SetKey, size: usize, now: SystemTime) -> Result<Mirror, FirewallError> {
        let mut found = Mirror::of_new(set);
        if size > 0 {
            self.each_entry(&name_of(set)?, |entry| {
                let lease = label(set, entry, now).lease;
                owned(&entry.element).iter().for_each(|element| found.put(element, lease, now));
                true
            })?;
        }
        Ok(found)
    }

    /// Makes a set again that others have destroyed, with all that it held; one that held nothing is
    /// forgotten.
    fn put_back_set(
        &mut self,
        set: &SetKey,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<(), FirewallError> {
        let alive = self.mirrors.known(set).map_or(0, |known| known.alive(now));
        if alive == 0 {
            self.lose(set);
            return Ok(());
        }
        // It forgets the members that are gone, so that it can be made again without them.
        self.put_back_registry()?;
        let definition = self.definition(set, self.room_now(set).max(self.maxelem), alive);
        match self.make(&name_of(set)?, &definition, set.description()) {
            Ok(()) => {}
            Err(FirewallError::Set(_, IpsetError::SetExists)) => {
                // Somebody else has just made it: the next look tells whose it is.
                self.doubt(set);
                return Ok(());
            }
            Err(error) => {
                self.doubt(set);
                return Err(error);
            }
        }
        self.rooms.insert(set.clone(), definition.maxelem);
        self.foreign.remove(set);
        if set.list().is_none() {
            self.found.made.push(set.clone());
        }
        self.conclude(set, Mirror::of_new(set), true, now, repair)
    }

    /// Compares what was `found` in a set with what is remembered of it, makes the set what it should
    /// be, and takes that for what is remembered. Of one that was `destroyed` all comes back.
    pub(super) fn conclude(
        &mut self,
        set: &SetKey,
        found: Mirror,
        destroyed: bool,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<(), FirewallError> {
        let mut difference = self.difference(set, &found, now);
        difference.is_emptied |= destroyed && difference.missing > 0;
        if difference.missing > 0 && !difference.is_emptied {
            difference.is_emptied = self.is_registry_emptied()?;
        }
        let is_changed = !difference.is_none() || self.mirrors.known(set).is_none();
        match self.correct(set, &found, &difference, now, repair) {
            Ok(restored) if difference.is_emptied => difference.missing = restored,
            Ok(_) => {}
            Err(error) if is_for_good(&error) => {
                let (name, number) = (set.name(), difference.missing);
                log::warn!("{name}: {number} entries that others have taken out can't be put back: {error}");
                self.remade.remove(set);
                self.mirrors.forget(set);
                self.mirrors.want(set);
                self.unsettle(set);
                self.changed = true;
                return Ok(());
            }
            Err(error) => {
                self.doubt(set);
                return Err(error);
            }
        }
        self.mirrors.conclude(set, found, &difference, now);
        self.remade.remove(set);
        if difference.moved > 0 {
            self.mirrors.retime(set);
        }
        if is_changed {
            self.unsettle(set);
            self.changed |= !self.is_derived(set);
        }
        self.tell(set, &difference);
        Ok(())
    }

    /// What is different in a set. Of a union beside lists only what it lacks as a whole counts: for the
    /// rest it is compared with those.
    fn difference(&self, set: &SetKey, found: &Mirror, now: SystemTime) -> Difference {
        let is_derived = self.is_derived(set);
        let (gone, of) = self.mirrors.gone_of(set);
        let Some(known) = self.mirrors.known(set) else { return Difference::default() };
        let mut difference =
            super::difference::compare(known, found, |element| gone.has(of, element, now), now);
        if is_derived {
            let new = difference.returned.len().saturating_add(difference.moved);
            difference.new = difference.new.saturating_add(new);
            difference.returned.clear();
            difference.moved = 0;
        }
        difference
    }

    /// Whether a set is a union beside lists, which tell what it has to hold.
    pub(super) fn is_derived(&self, set: &SetKey) -> bool {
        set.list().is_none() && self.has_lists(set)
    }

    /// Takes out what others have brought back, and puts back what went as a whole. Gives the number of
    /// entries that are back.
    fn correct(
        &mut self,
        set: &SetKey,
        found: &Mirror,
        difference: &Difference,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<usize, FirewallError> {
        if !difference.returned.is_empty() {
            let mut batch = self.ipset.batch();
            batch.del_many(&name_of(set)?, difference.returned.iter().copied());
            self.transact(set, batch)?;
        }
        if !difference.is_emptied {
            return Ok(0);
        }
        let Some(mut known) = self.mirrors.lend(set) else { return Ok(0) };
        let put_back = self.put_missing(set, &mut known, found, now, repair);
        self.mirrors.give_back(set, known);
        put_back
    }

    /// Adds what is missing of what is remembered, in parts that take little memory; what the white list
    /// forbids is forgotten.
    fn put_missing(
        &mut self,
        set: &SetKey,
        known: &mut Mirror,
        found: &Mirror,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<usize, FirewallError> {
        let notes = if self.is_derived(set) { Notes::new() } else { (repair.notes)(set) };
        let list = set.list().unwrap_or_default();
        let (mut part, mut count, mut put, mut barred) = (Vec::new(), 0_usize, Ok(()), Vec::new());
        known.each_known(|element, lease| {
            if put.is_err() || !is_missing(lease, found.lease(&element), now) {
                return;
            }
            let rule = rule_of(set, &element).filter(|rule| !(repair.forbidden)(rule));
            let Some(rule) = rule else { return barred.push(element) };
            part.push((element, Label { note: notes.get(&rule).cloned(), ..Label::new(lease, list) }));
            count = count.saturating_add(1);
            if part.len() >= PART {
                put = self.add(set, &mem::take(&mut part), now);
            }
        });
        put?;
        barred.iter().for_each(|element| known.remove(element));
        self.add(set, &part, now).map(|()| count)
    }

    /// Adds entries that are missing, with their reasons and the ends that a timeout can't tell.
    fn add(
        &mut self,
        set: &SetKey,
        entries: &[(Element<'static>, Label)],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        entries.iter().for_each(|(_, label)| self.note_end(set, label.lease, now));
        let is_derived = self.is_derived(set);
        let comment = |(_, label): &(Element<'static>, Label)| comment_of(label, now).filter(|_| !is_derived);
        let comments: Vec<Option<String>> = entries.iter().map(comment).collect();
        match self.add_commented(set, entries, &comments, now) {
            // Others have made it anew without comments.
            Err(FirewallError::Set(_, IpsetError::NoExtension)) => self.add_commented(set, entries, &[], now),
            added => added,
        }
    }

    fn add_commented(
        &mut self,
        set: &SetKey,
        entries: &[(Element<'static>, Label)],
        comments: &[Option<String>],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (name, mut batch) = (name_of(set)?, self.ipset.batch());
        let comment = |at: usize| comments.get(at).and_then(Option::as_deref);
        let entries = entries.iter().enumerate();
        batch.add_many(
            &name,
            entries.map(|(at, (element, label))| new_entry(*element, label.lease, comment(at), now)),
        );
        self.transact(set, batch).map(drop)
    }

    fn tell(&mut self, set: &SetKey, difference: &Difference) {
        let (name, is_derived) = (set.name(), self.is_derived(set));
        let missing = difference.missing;
        let found = &mut self.found;
        let count = |of: &mut Vec<(String, usize)>, number: usize| {
            of.extend((number > 0).then(|| (name.clone(), number)));
        };
        match difference.is_emptied {
            true => count(&mut found.restored, missing),
            false if !is_derived => count(&mut found.noted, missing),
            false => {}
        }
        count(&mut found.removed, difference.returned.len());
        count(&mut found.moved, difference.moved);
    }
}

/// Whether a change fails that way each time.
fn is_for_good(error: &FirewallError) -> bool {
    match error {
        FirewallError::Full(_) => true,
        FirewallError::Set(_, error) => matches!(error, IpsetError::BadElement | IpsetError::NoExtension),
        _ => false,
    }
}
