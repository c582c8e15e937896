//! The reading of sets from the kernel, in pieces, so that requests come in between.
//!
//! A listing has a socket of its own, and keeps its set from being swapped and destroyed: before
//! those it is closed, and begun anew afterwards.

use super::entry::{comment_of, new_entry};
use super::is_gone;
use super::mirror::{Known, Mirror, TOLERANCE};
use super::mirrors::Reading;
use super::reader::dump;
use super::renewal::is_late;
use super::repair::Repair;
use super::{Sets, deadline, element, label, name_of, of, owned, rule, size};
use crate::firewall::FirewallError;
use crate::kernel::ipset::{Element, Entry};
use crate::kernel::set_key::SetKey;
use crate::kernel::timeout::Timeout;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use std::mem;
use std::time::{Instant, SystemTime};

/// The most readings of a set in a row, while others change it: then what the last has found counts.
const ATTEMPTS: usize = 3;

/// What is to be changed of a piece, so that its entries end as they are remembered to.
#[derive(Default)]
struct Retiming {
    puts: Vec<(Element<'static>, Lease, Option<String>)>,
    /// What has ended.
    dels: Vec<Element<'static>>,
}

impl Sets {
    /// Has the mirror of a set filled, unless there is one.
    pub(crate) fn mirror(&mut self, set: &SetKey) {
        self.mirrors.want(set);
    }

    /// Gives all entries that end the timeout that their end means now, in the readings that follow: the
    /// clock was set, which the timeouts of the kernel don't follow.
    pub(crate) fn retime(&mut self) {
        self.mirrors.sets().iter().for_each(|set| self.mirrors.retime(set));
    }

    /// Has a set read anew that is known and not being read, with a look at each entry.
    pub(crate) fn look_again(&mut self, set: &SetKey) {
        if self.mirrors.known(set).is_some() && self.mirrors.partly_read(set).is_none() {
            self.mirrors.refill(set);
        }
    }

    /// When [`Sets::fill`] has something to do; `None` if every set has its mirror.
    pub(crate) fn next_fill(&self) -> Option<Instant> {
        self.mirrors.next_reading()
    }

    /// Reads one piece, some hundreds of entries, and at the end of a set compares it with what is
    /// remembered of it. Gives the rules among them that the white list forbids.
    ///
    /// # Errors
    /// The set can't be read or put back: that is tried again later.
    pub(crate) fn fill(&mut self, now: SystemTime, repair: &Repair<'_>) -> Result<Vec<Rule>, FirewallError> {
        let reading = match self.mirrors.running.take() {
            Some(reading) => reading,
            None => match self.mirrors.next_wanted() {
                Some(set) => match self.begin_reading(&set, 1, now, repair)? {
                    Some(reading) => reading,
                    None => return Ok(Vec::new()),
                },
                None => return Ok(Vec::new()),
            },
        };
        let set = reading.set.clone();
        match self.read_on(reading, now, repair) {
            Err(error) if is_gone(&error) => self.look_for(&set, now, repair).map(|()| Vec::new()),
            Err(error) => {
                self.doubt(&set);
                Err(error)
            }
            found => found,
        }
    }

    /// Begins to list a set, unless it is gone or another that rfw has not made: nothing may be
    /// removed from that.
    fn begin_reading(
        &mut self,
        set: &SetKey,
        attempt: usize,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<Option<Reading>, FirewallError> {
        // What is listed can't be swapped any more: so it is listed before it is looked at.
        let begun =
            dump(self.ipset.dumper(), &name_of(set)?).and_then(|dump| Ok((dump, self.own_info(set)?)));
        match begun {
            Ok((dump, Some(info))) => {
                let (mut mirror, retimes) = (Mirror::to_fill(set), self.mirrors.is_untimed(set));
                mirror.reserve(size(&info));
                Ok(Some(Reading { set: set.clone(), dump, mirror, made: now, retimes, attempt }))
            }
            Ok((_, None)) if self.foreign.contains(set) => {
                log::debug!("{}: another set is in its place, which is not read", set.name());
                self.lose(set);
                Ok(None)
            }
            Ok((_, None)) => self.look_for(set, now, repair).map(|()| None),
            Err(error) if is_gone(&error) => self.look_for(set, now, repair).map(|()| None),
            Err(error) => {
                self.doubt(set);
                Err(error)
            }
        }
    }

    /// Looks at all sets where others have destroyed one: they may have destroyed more, and the registry.
    fn look_for(&mut self, set: &SetKey, now: SystemTime, repair: &Repair<'_>) -> Result<(), FirewallError> {
        let looked = self.look(now, repair);
        if self.mirrors.is_lost(set) {
            self.lose(set);
        }
        looked
    }

    /// Takes down that others have put another set in the place of one, or destroyed it and it held
    /// nothing.
    pub(super) fn lose(&mut self, set: &SetKey) {
        self.mirrors.forget(set);
        self.remade.remove(set);
        self.changed = true;
        self.forget_list(set);
        self.unsettle(set);
    }

    fn read_on(
        &mut self,
        mut reading: Reading,
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<Vec<Rule>, FirewallError> {
        let set = reading.set.clone();
        let Some(piece) = reading.dump.next_piece(deadline()).map_err(|error| of(&set, error))? else {
            drop(reading.dump);
            return self.end_reading(&set, reading.mirror, (reading.retimes, reading.attempt), now, repair);
        };
        let made = mem::replace(&mut reading.made, now);
        let known = self.mirrors.known(&set).filter(|_| reading.retimes);
        let (mut found, mut retiming, mut has_late) = (Vec::new(), Retiming::default(), false);
        for entry in piece {
            let entry = entry.map_err(|error| of(&set, error))?;
            let mut label = label(&set, &entry, made);
            has_late |= is_late(&label, entry.timeout.unwrap_or_default(), made);
            let Some(element) = owned(&entry.element) else { continue };
            if let Some(lease) = known.and_then(|known| known.lease(&element))
                && !reading.mirror.has_changed(&element)
            {
                label.lease = lease;
                retiming.plan(element, &entry, &label, made, now);
            }
            reading.mirror.read(&element, label.lease);
            found.extend(rule(&set, &entry).filter(|rule| (repair.forbidden)(rule)));
        }
        if has_late {
            self.long.entry(set.clone()).or_default();
        }
        self.retime_entries(&set, retiming, now)?;
        self.mirrors.running = Some(reading);
        Ok(found)
    }

    /// Gives entries their timeouts, and takes those out that have ended.
    fn retime_entries(
        &mut self,
        set: &SetKey,
        retiming: Retiming,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let Retiming { puts, dels } = retiming;
        if puts.is_empty() && dels.is_empty() {
            return Ok(());
        }
        let (name, mut batch) = (name_of(set)?, self.ipset.batch());
        batch.add_many(
            &name,
            puts.iter().map(|(element, lease, comment)| new_entry(*element, *lease, comment.as_deref(), now)),
        );
        batch.del_many(&name, dels);
        puts.iter().for_each(|(_, lease, _)| self.note_end(set, *lease, now));
        self.transact(set, batch).map(drop)
    }

    fn end_reading(
        &mut self,
        set: &SetKey,
        mut mirror: Mirror,
        (retimes, attempt): (bool, usize),
        now: SystemTime,
        repair: &Repair<'_>,
    ) -> Result<Vec<Rule>, FirewallError> {
        mirror.complete();
        log::debug!("{}: {} entries are known", set.name(), mirror.len());
        // What went while it was read is in the reading, or was the reason that it has so few.
        if self.mirrors.known(set).is_some() && attempt < ATTEMPTS {
            let size = self.own_size(set)?;
            if !size.is_some_and(|size| mirror.admits_size(size, now)) {
                let again = self.begin_reading(set, attempt.saturating_add(1), now, repair)?;
                self.mirrors.running = again;
                return Ok(Vec::new());
            }
        }
        if retimes {
            self.mirrors.note_timed(set);
        }
        self.conclude(set, mirror, false, now, repair)?;
        Ok(Vec::new())
    }

    /// The rules of a set that are wanted, as far as its mirror is filled, with their ends.
    pub(crate) fn mirrored(
        &mut self,
        set: &SetKey,
        now: SystemTime,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Vec<(Rule, Lease)> {
        let mut found = Vec::new();
        let known = self.mirrors.known(set);
        let mut take = |element: Element<'static>, lease| {
            let rule = super::rule_of(set, &element).filter(&wanted);
            found.extend(rule.map(|rule| (rule, lease)));
        };
        if let Some(known) = known {
            known.each(now, &mut take);
        }
        if let Some(read) = self.mirrors.partly_read(set) {
            let is_new = |element: &Element<'_>| known.is_none_or(|known| known.end(element, now).is_none());
            read.each(now, |element, lease| {
                if is_new(&element) {
                    take(element, lease);
                }
            });
        }
        found
    }

    /// When the entry of a rule ends, if the mirror of its set is whole and has it.
    pub(crate) fn known_end(&self, set: &SetKey, rule: &Rule, now: SystemTime) -> Option<Lease> {
        self.mirrors.whole(set).and_then(|mirror| mirror.end(&element(rule), now))
    }

    /// Whether an address is in its list and ends as it should, as far as the mirror tells. Of one that has
    /// a reason and no end it is not known whether it is that reason.
    pub(crate) fn has_so(&self, union: &SetKey, rule: &Rule, label: &Label, now: SystemTime) -> bool {
        let known = self.known_end(&self.set_of(union, label.list), rule, now);
        match (known.map(Lease::end), label.lease.end()) {
            (Some(Some(known)), Some(end)) => known.seconds().abs_diff(end.seconds()) <= 1,
            (Some(None), None) => label.note.is_none(),
            _ => false,
        }
    }

    /// Compares the number of entries of a set with the mirror, which is read anew if others must
    /// have changed the set.
    ///
    /// # Errors
    /// The kernel does not answer, or [`FirewallError::Emptied`].
    pub(crate) fn verify(&mut self, set: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        let size = self.own_size(set)?;
        self.check_emptied(set, size, now)?;
        match size {
            None => self.lose(set),
            Some(size) => self.compare_size(set, size, now),
        }
        Ok(())
    }

    /// Has a set read anew that has another number of entries than its mirror.
    pub(super) fn compare_size(&mut self, set: &SetKey, size: usize, now: SystemTime) {
        if self.mirrors.whole(set).is_some_and(|mirror| !mirror.admits_size(size, now)) {
            log::debug!("{}: {size} entries, others than rfw knows: it is read anew", set.name());
            self.doubt(set);
        }
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

impl Retiming {
    /// Plans an entry, of which the kernel told at `made`, for the end of its label.
    fn plan(
        &mut self,
        element: Element<'static>,
        entry: &Entry<'_>,
        label: &Label,
        made: SystemTime,
        now: SystemTime,
    ) {
        if label.lease.is_due(now) {
            self.dels.push(element);
            return;
        }
        let (wanted, there) = (Timeout::left(label.lease, made), entry.timeout.unwrap_or_default());
        if is_same(wanted, there) {
            return;
        }
        let comment = match entry.comment.as_deref() {
            // The end that it tells may be another by now.
            Some(text) if !text.starts_with("until ") && !Timeout::is_beyond(label.lease, now) => {
                Some(text.to_owned())
            }
            _ => comment_of(label, now),
        };
        self.puts.push((element, label.lease, comment));
    }
}

/// Whether two timeouts are the same, as far as the kernel tells them.
fn is_same(one: Timeout, other: Timeout) -> bool {
    match (one.seconds(), other.seconds()) {
        (0, end) | (end, 0) => end == 0,
        (one, other) => one.abs_diff(other) <= TOLERANCE.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::timeout::TIMEOUT_MAX;
    use crate::rule::lease::Moment;
    use crate::rule::list_name::ListName;
    use std::borrow::Cow;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn entries_get_the_timeouts_of_their_ends_and_keep_what_their_comments_say() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let until = |seconds| Lease::Until(Moment::at_or_after(at(seconds)));
        let far = 1_000 + 3 * TIMEOUT_MAX;
        let until_far = Moment::at_or_after(at(far)).to_string();
        // At 1,000: the end, the timeout and comment that are there; whether it is put, with which comment.
        let golden = [
            (until(1_500), 500, "", None),
            (until(1_500), 502, "by me: why", None),
            (until(1_500), 503, "by me: why", Some("by me: why".to_owned())),
            (until(1_500), 300, "what others wrote", Some("what others wrote".to_owned())),
            (until(1_500), 0, "", Some(String::new())),
            (Lease::Permanent, 0, "", None),
            (Lease::Permanent, 500, "by me: why", Some("by me: why".to_owned())),
            (until(far), TIMEOUT_MAX, "until 1970-03-16T00:00:00Z by me: why", None),
            (
                until(far),
                500,
                "until 1970-03-16T00:00:00Z by me: why",
                Some(format!("until {until_far} by me: why")),
            ),
            (until(1_500), 900, "until 1970-03-16T00:00:00Z by me: why", Some("by me: why".to_owned())),
        ];
        let element = Element::Net("1.2.3.4".parse().unwrap());
        for (lease, timeout, comment, expected) in golden {
            let entry = Entry {
                element,
                timeout: Timeout::new(timeout),
                counters: None,
                comment: Some(Cow::Borrowed(comment)).filter(|comment| !comment.is_empty()),
                other: false,
            };
            let read = Label::of_entry(lease, ListName::UNNAMED, entry.comment.as_deref());
            let (mut retiming, label) = (Retiming::default(), Label { lease, ..read });
            retiming.plan(element, &entry, &label, at(1_000), at(1_000));
            let puts: Vec<_> =
                retiming.puts.into_iter().map(|(_, end, text)| (end, text.unwrap_or_default())).collect();
            assert_eq!(puts, Vec::from_iter(expected.map(|text| (lease, text))), "{lease:?} {timeout}");
            assert_eq!(retiming.dels, []);
        }
        let (mut retiming, ended) = (Retiming::default(), Label::new(until(1_000), ListName::UNNAMED));
        let entry = Entry { element, timeout: Timeout::new(9), counters: None, comment: None, other: false };
        retiming.plan(element, &entry, &ended, at(1_000), at(1_000));
        assert_eq!((retiming.puts.len(), retiming.dels), (0, vec![element]));
    }
}
