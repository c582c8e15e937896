//! Sets that are built beside others and swapped in: where the room of a set changes, and where a
//! process may have no send buffer for the whole of a list (in a user namespace).

use super::entry::new_entry;
use super::registry::building;
use super::{Sets, deadline, is_like_ours, name_of, of, owned, set_name};
use crate::firewall::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{Element, IpsetError, NewEntry, SetName};
use crate::kernel::set_key::{SetKey, work_name};
use crate::rule::lease::Lease;
use std::collections::HashSet;
use std::process;
use std::time::{Instant, SystemTime};

/// How many sets are built at a time: a list and its union.
const WORKS: usize = 2;

/// A set that is built anew.
pub(super) struct Rebuilding {
    /// The set.
    pub set: SetKey,
    /// Its new room.
    pub room: u32,
    /// What goes in, or is renewed.
    pub puts: Vec<(Element<'static>, Lease, Option<String>)>,
    /// What goes out.
    pub dels: HashSet<Element<'static>>,
}

/// An entry that stays.
struct Kept {
    element: Element<'static>,
    lease: Lease,
    counters: Option<Counters>,
    comment: Option<String>,
}

impl Kept {
    fn entry(&self, now: SystemTime) -> NewEntry<'_> {
        NewEntry {
            counters: self.counters,
            ..new_entry(self.element, self.lease, self.comment.as_deref(), now)
        }
    }
}

impl Sets {
    /// Builds sets anew, each of its new room, with its entries and its changes, and swaps them in
    /// at once.
    pub(super) fn rebuild(&mut self, sets: &[Rebuilding], now: SystemTime) -> Result<(), FirewallError> {
        self.drop_work()?;
        let swapped = self.build_and_swap(sets, now);
        if swapped.is_ok() {
            self.rooms.extend(sets.iter().map(|rebuilding| (rebuilding.set.clone(), rebuilding.room)));
        }
        // Whatever came of it, what is left over is not needed.
        let dropped = self.drop_work();
        swapped.and(dropped)
    }

    fn build_and_swap(&mut self, sets: &[Rebuilding], now: SystemTime) -> Result<(), FirewallError> {
        // Entries have what is left when they are put in: reading the old ones takes its time.
        let start = Instant::now();
        for (index, rebuilding) in sets.iter().enumerate() {
            self.build(rebuilding, &self.work(index)?, now + start.elapsed())?;
        }
        for Rebuilding { set, .. } in sets {
            // A listing of our own would keep the set from being swapped.
            self.mirrors.interrupt(set);
            self.listings.close(name_of(set)?.as_str());
        }
        self.while_busy(|sets_of_kernel| {
            let mut batch = sets_of_kernel.ipset.batch();
            for (index, Rebuilding { set, .. }) in sets.iter().enumerate() {
                batch.swap(&sets_of_kernel.work(index)?, &name_of(set)?);
            }
            let report = sets_of_kernel.ipset.transact(batch, deadline())?;
            report.into_result().map(drop).map_err(|error| match sets.first() {
                Some(first) => of(&first.set, error),
                None => error.into(),
            })
        })
    }

    fn build(
        &mut self,
        rebuilding: &Rebuilding,
        work: &SetName,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        let (Rebuilding { set, room, puts, dels }, start) = (rebuilding, Instant::now());
        let kept = self.kept(set, dels, now)?;
        let definition = self.definition(set, *room, kept.len().saturating_add(puts.len()));
        self.make(work, &definition, building(set))?;
        // Each with what is left of its time when it goes in: what has no end takes none of that.
        let (lasting, ending): (Vec<&Kept>, Vec<&Kept>) =
            kept.iter().partition(|kept| kept.lease == Lease::Permanent);
        for kept in [lasting, ending] {
            let (now, mut batch) = (now + start.elapsed(), self.ipset.batch());
            batch.add_many(work, kept.into_iter().map(|kept| kept.entry(now)));
            self.transact(set, batch)?;
        }
        let (now, mut batch) = (now + start.elapsed(), self.ipset.batch());
        batch.add_many(
            work,
            puts.iter().map(|(element, lease, comment)| new_entry(*element, *lease, comment.as_deref(), now)),
        );
        self.transact(set, batch).map(drop)
    }

    /// The entries of a set that stay.
    fn kept(
        &mut self,
        set: &SetKey,
        dels: &HashSet<Element<'static>>,
        now: SystemTime,
    ) -> Result<Vec<Kept>, FirewallError> {
        let (mut entries, mut foreign, start) = (Vec::new(), false, Instant::now());
        self.each_entry(&name_of(set)?, |entry| {
            let element = owned(&entry.element);
            foreign |= entry.other || element.is_none();
            entries.extend(element.filter(|element| !dels.contains(element)).map(|element| Kept {
                element,
                lease: entry.timeout.unwrap_or_default().latest_end(now + start.elapsed()),
                counters: entry.counters,
                comment: entry.comment.as_deref().map(str::to_owned),
            }));
            !foreign
        })?;
        if foreign {
            return Err(FirewallError::ForeignSet(set.name()));
        }
        let (mirror, now) = (self.mirrors.whole(set), now + start.elapsed());
        for kept in &mut entries {
            // The mirror knows the end to the second.
            let known = mirror.and_then(|mirror| mirror.end(&kept.element, now));
            kept.lease = known.unwrap_or(kept.lease);
        }
        Ok(entries)
    }

    /// Makes a set that is built as `work`: it is there whole, in one send.
    pub(super) fn make_by_swap(&mut self, set: &SetKey, work: &SetName) -> Result<(), FirewallError> {
        let (name, definition) = (name_of(set)?, self.definition(set, self.maxelem, 0));
        self.while_busy(|sets| sets.make_of(&name, Some(work), &definition, set.description()))
    }

    /// Gives a set another room, in which its entries fit, and comments.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub(crate) fn resize(&mut self, set: &SetKey, room: u32, now: SystemTime) -> Result<(), FirewallError> {
        let rebuilding = Rebuilding { set: set.clone(), room, puts: Vec::new(), dels: HashSet::new() };
        self.rebuild(&[rebuilding], now)
    }

    /// The name of a set that is built beside another.
    pub(super) fn work(&self, index: usize) -> Result<SetName, FirewallError> {
        set_name(&work_name(process::id(), index))
    }

    /// Takes the sets away that were built beside others.
    pub(super) fn drop_work(&mut self) -> Result<(), FirewallError> {
        for index in 0..WORKS {
            let work = self.work(index)?;
            match self.ipset.info(&work, deadline()) {
                Ok(info) if is_like_ours(&info) => self.destroy(work.as_str()).map(drop)?,
                Ok(_) => return Err(FirewallError::ForeignSet(work.as_str().to_owned())),
                Err(IpsetError::NoSet) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
