//! A set that is built beside another and swapped in: where the room of a set changes, and where
//! a process may have no send buffer for the whole of a list (in a user namespace).

use super::mirror::Known;
use super::registry::building;
use super::{Sets, deadline, is_like_ours, name_of, of, owned};
use crate::firewall::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{Batch, Element, IpsetError, NewEntry, SetName};
use crate::kernel::set_key::SetKey;
use crate::kernel::timeout::Timeout;
use std::time::SystemTime;

impl Sets {
    /// Builds a set anew, of that room, with its entries and what `more` adds, and swaps
    /// it in.
    pub(super) fn rebuild(
        &mut self,
        set: &SetKey,
        maxelem: u32,
        now: SystemTime,
        more: impl FnOnce(&mut Batch, &SetName),
    ) -> Result<(), FirewallError> {
        self.drop_work()?;
        let work = self.work.clone();
        let mut entries: Vec<(Element<'static>, Timeout, Option<Counters>)> = Vec::new();
        let mut foreign = false;
        self.each_entry(&name_of(set)?, |entry| {
            let element = owned(&entry.element);
            foreign |= entry.other || element.is_none();
            entries
                .extend(element.map(|element| (element, entry.timeout.unwrap_or_default(), entry.counters)));
            !foreign
        })?;
        if foreign {
            return Err(FirewallError::ForeignSet(set.name()));
        }
        let definition = self.definition(set, maxelem, entries.len());
        self.make(&work, &definition, building(set))?;
        let mut batch = self.ipset.batch();
        let mirror = self.mirrors.whole(set);
        let kept = entries.into_iter().map(|(element, timeout, counters)| NewEntry {
            timeout: Some(match mirror.map(|mirror| mirror.get(&element, now)) {
                Some(Known::There(lease)) => Timeout::left(lease, now),
                // The kernel tells whole seconds and leaves out a part of one.
                _ => timeout.rounded_up(),
            }),
            counters,
            ..NewEntry::new(element)
        });
        batch.add_many(&work, kept);
        more(&mut batch, &work);
        let swapped = self.fill_and_swap(set, batch);
        if swapped.is_ok() {
            self.rooms.insert(set.clone(), maxelem);
        }
        // Whatever came of it, what is left over is not needed.
        let dropped = self.drop_work();
        swapped.and(dropped)
    }

    fn fill_and_swap(&mut self, set: &SetKey, batch: Batch) -> Result<(), FirewallError> {
        let (name, work) = (name_of(set)?, self.work.clone());
        self.transact(set, batch)?;
        // A listing of our own would keep the set from being swapped.
        self.mirrors.forget(set);
        self.listings.close(name.as_str());
        self.mirrors.want(set);
        self.while_busy(|ipset| ipset.swap(&work, &name, deadline())).map_err(|error| of(set, error))
    }

    /// Gives a set another room, in which its entries fit.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub(crate) fn resize(&mut self, set: &SetKey, now: SystemTime) -> Result<(), FirewallError> {
        self.rebuild(set, self.maxelem, now, |_, _| ())
    }

    /// Takes the set away that was built beside another.
    fn drop_work(&mut self) -> Result<(), FirewallError> {
        match self.ipset.info(&self.work, deadline()) {
            Ok(info) if is_like_ours(&info) => self.destroy(self.work.clone().as_str()).map(drop),
            Ok(_) => Err(FirewallError::ForeignSet(self.work.as_str().to_owned())),
            Err(IpsetError::NoSet) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
