//! One address at a time: put into a list and taken out of it. Where a scope has several lists, the
//! list's own set and the union change in one send.

use super::entry::{comment_of, new_entry};
use super::mirror::{Known, Mirror};
use super::union::{end_in_union, latest};
use super::{Sets, deadline, element, name_of, of};
use crate::firewall::{FirewallError, Outcome};
use crate::kernel::ipset::{Element, Existing, IpsetError, SetName};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use std::time::SystemTime;

/// Outcome of adding or deleting an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryResult {
    /// It was done: an entry to add was not there, one to delete was.
    Done,
    /// An entry to add was there, and is renewed; one to delete was not.
    Already,
    /// An entry to add was there, and is without an end before and after.
    Unchanged,
    /// There is no such set.
    NoSet,
}

impl EntryResult {
    /// The outcome of putting an entry in; `None` where there is no set for it.
    pub(crate) fn of_put(self) -> Option<Outcome> {
        match self {
            EntryResult::Done => Some(Outcome::Inserted),
            EntryResult::Already => Some(Outcome::Refreshed),
            EntryResult::Unchanged => Some(Outcome::Unchanged),
            EntryResult::NoSet => None,
        }
    }
}

impl Sets {
    /// Puts the address of a rule into a list, or renews it there.
    ///
    /// # Errors
    /// The kernel does not have it, for a reason that [`EntryResult`] does not know.
    pub(crate) fn put(
        &mut self,
        union: &SetKey,
        rule: &Rule,
        label: &Label,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        self.note_end(&self.set_of(union, label.list), label.lease, now);
        match self.set_of(union, label.list) {
            set if set == *union => self.put_alone(union, rule, label, now),
            set => self.put_in_both(&set, union, rule, label, now),
        }
    }

    /// Puts an entry into the only set of a scope.
    fn put_alone(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        label: &Label,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        self.check_own(set, 1, now)?;
        let mut result = self.enter(set, rule, label, now, Existing::Refuse)?;
        self.compare(set, rule, result == EntryResult::Already, now)?;
        if result == EntryResult::Already {
            let same = label.lease == Lease::Permanent && self.is_permanent(set, rule, now)?;
            result = match self.enter(set, rule, label, now, Existing::Accept)? {
                EntryResult::NoSet => return Ok(EntryResult::NoSet),
                _ if same => EntryResult::Unchanged,
                _ => EntryResult::Already,
            };
        }
        if result != EntryResult::NoSet {
            self.remember(set, rule, label.lease, now);
        }
        Ok(result)
    }

    fn enter(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        label: &Label,
        now: SystemTime,
        existing: Existing,
    ) -> Result<EntryResult, FirewallError> {
        let comment = comment_of(label, now);
        let entry = new_entry(element(rule), label.lease, comment.as_deref(), now);
        match self.ipset.add(&name_of(set)?, &entry, existing, deadline()) {
            Ok(()) => Ok(EntryResult::Done),
            Err(IpsetError::Exists) => Ok(EntryResult::Already),
            Err(IpsetError::NoSet) => Ok(EntryResult::NoSet),
            // Nothing has changed.
            Err(error @ IpsetError::Full) => Err(self.full_or(set, error)),
            Err(error) => {
                self.doubt(set);
                Err(of(set, error))
            }
        }
    }

    /// Puts an entry into the set of a list, and into the union with the latest end of all lists.
    fn put_in_both(
        &mut self,
        set: &SetKey,
        union: &SetKey,
        rule: &Rule,
        label: &Label,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        self.check_both(set, union, 1, now)?;
        let element = element(rule);
        self.check_one(set, &element, now)?;
        self.check_one(union, &element, now)?;
        let before = self.mirrors.whole(set).and_then(|mirror| mirror.end(&element, now));
        let latest = end_in_union(label.lease, self.mirrors_of_others(set), &element, now);
        let comment = comment_of(label, now);
        let entry = new_entry(element, label.lease, comment.as_deref(), now);
        let (name, union_name, mut batch) = (name_of(set)?, name_of(union)?, self.ipset.batch());
        batch.add_each(&name, [entry], Existing::Refuse);
        batch.add_each(&name, [entry], Existing::Accept);
        batch.add_each(&union_name, [new_entry(element, latest, None, now)], Existing::Accept);
        let was_there = match self.transact(set, batch) {
            Ok(outcomes) => outcomes.first().is_some_and(|outcome| outcome.already > 0),
            Err(FirewallError::Set(_, IpsetError::NoSet)) => {
                self.doubt_both(set, union);
                return Ok(EntryResult::NoSet);
            }
            Err(error) => {
                self.take_back(&name, element, before, now);
                self.doubt_both(set, union);
                return Err(error);
            }
        };
        self.compare(set, rule, was_there, now)?;
        self.remember(set, rule, label.lease, now);
        self.remember(union, rule, latest, now);
        let same = before == Some(Lease::Permanent) && label.lease == Lease::Permanent;
        Ok(match was_there {
            false => EntryResult::Done,
            true if same => EntryResult::Unchanged,
            true => EntryResult::Already,
        })
    }

    /// Gives a list back what it had before a change that failed; the union follows once it is read.
    fn take_back(&mut self, name: &SetName, element: Element<'_>, before: Option<Lease>, now: SystemTime) {
        let taken_back = match before {
            Some(lease) => {
                self.ipset.add(name, &new_entry(element, lease, None, now), Existing::Accept, deadline())
            }
            None => self.ipset.del(name, element, Existing::Accept, deadline()),
        };
        if let Err(error) = taken_back {
            log::debug!("{}: can't be taken back: {error}", name.as_str());
        }
    }

    /// Refuses an entry more where the mirror says that there is no room for it.
    pub(super) fn check_one(
        &mut self,
        set: &SetKey,
        element: &Element<'_>,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let room = self.room(set);
        let full = |len: usize| u32::try_from(len).is_ok_and(|len| len >= room);
        // One that is there is renewed, which takes no room.
        let has_no_room = |mirror: &Mirror| full(mirror.len()) && mirror.end(element, now).is_none();
        if !self.mirrors.whole(set).is_some_and(has_no_room) {
            return Ok(());
        }
        match self.own_info(set)?.is_some_and(|info| info.elements >= info.maxelem) {
            true => Err(FirewallError::Full(room)),
            false => Ok(()),
        }
    }

    /// Takes the address of a rule out of a list.
    ///
    /// # Errors
    /// The kernel may still have it.
    pub(crate) fn take(
        &mut self,
        union: &SetKey,
        rule: &Rule,
        list: ListName,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        match self.set_of(union, list) {
            set if set == *union => self.take_alone(union, rule, now),
            set if self.has_list(&set) => self.take_from_both(&set, union, rule, now),
            _ => Ok(EntryResult::NoSet),
        }
    }

    fn take_alone(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        self.check_own(set, 1, now)?;
        let result = match self.ipset.del(&name_of(set)?, element(rule), Existing::Refuse, deadline()) {
            Ok(()) => EntryResult::Done,
            Err(IpsetError::Missing) => EntryResult::Already,
            Err(IpsetError::NoSet) => return Ok(EntryResult::NoSet),
            Err(error) => {
                self.doubt(set);
                return Err(of(set, error));
            }
        };
        self.compare(set, rule, result == EntryResult::Done, now)?;
        self.forget_entry(set, &element(rule));
        Ok(result)
    }

    /// Takes an entry out of the set of a list; the union keeps it for as long as another list does.
    fn take_from_both(
        &mut self,
        set: &SetKey,
        union: &SetKey,
        rule: &Rule,
        now: SystemTime,
    ) -> Result<EntryResult, FirewallError> {
        self.check_both(set, union, 1, now)?;
        let element = element(rule);
        let latest = latest(self.mirrors_of_others(set), &element, now);
        let (name, union_name, mut batch) = (name_of(set)?, name_of(union)?, self.ipset.batch());
        batch.del_each(&name, [element], Existing::Refuse);
        match latest {
            Some(lease) => {
                batch.add_each(&union_name, [new_entry(element, lease, None, now)], Existing::Accept);
            }
            None => batch.del_each(&union_name, [element], Existing::Accept),
        }
        let deleted = match self.transact(set, batch) {
            Ok(outcomes) => outcomes.first().is_some_and(|outcome| outcome.done > 0),
            Err(error) => {
                self.doubt_both(set, union);
                return match error {
                    FirewallError::Set(_, IpsetError::NoSet) => Ok(EntryResult::NoSet),
                    error => Err(error),
                };
            }
        };
        self.compare(set, rule, deleted, now)?;
        self.forget_entry(set, &element);
        match latest {
            Some(lease) => self.remember(union, rule, lease, now),
            None => self.forget_entry(union, &element),
        }
        Ok(if deleted { EntryResult::Done } else { EntryResult::Already })
    }

    /// Takes the address of a rule out of all sets of its scope, at once.
    ///
    /// # Errors
    /// The kernel may still have it.
    pub(crate) fn take_everywhere(&mut self, union: &SetKey, rule: &Rule) -> Result<(), FirewallError> {
        let (element, mut batch) = (element(rule), self.ipset.batch());
        let sets = self.sets_of(union);
        for set in &sets {
            batch.del_each(&name_of(set)?, [element], Existing::Accept);
        }
        let taken = self.transact(union, batch);
        for set in &sets {
            match taken {
                Ok(_) => self.forget_entry(set, &element),
                Err(_) => self.doubt(set),
            }
        }
        match taken {
            Err(FirewallError::Set(_, IpsetError::NoSet)) => Ok(()),
            taken => taken.map(drop),
        }
    }

    /// Looks at a set if the kernel's word on an entry shows that others have changed it: it may be
    /// another by now.
    fn compare(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        there: bool,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if !self.mirrors.is_wrong(set, rule, there, now) {
            return Ok(());
        }
        self.doubt(set);
        self.own_info(set).map(drop)
    }

    fn remember(&mut self, set: &SetKey, rule: &Rule, lease: Lease, now: SystemTime) {
        self.follow(set).put(&element(rule), lease, now);
    }

    fn forget_entry(&mut self, set: &SetKey, element: &Element<'_>) {
        self.follow(set).remove(element);
    }

    /// Whether the entry of a rule is there without an end.
    pub(super) fn is_permanent(
        &mut self,
        set: &SetKey,
        wanted: &Rule,
        now: SystemTime,
    ) -> Result<bool, FirewallError> {
        let element = element(wanted);
        if let Some(mirror) = self.mirrors.whole(set) {
            return Ok(mirror.get(&element, now) == Known::There(Lease::Permanent));
        }
        let mut found = None;
        self.each_entry(&name_of(set)?, |entry| {
            found =
                Some(entry.timeout.unwrap_or_default()).filter(|_| entry.element == element && !entry.other);
            found.is_none()
        })?;
        Ok(found.is_some_and(|timeout| timeout.seconds() == 0))
    }
}
