//! Entries that end later than the kernel can count: each has its true end in its comment, and gets the
//! longest timeout again each day.

use super::entry::{comment_of, new_entry};
use super::is_gone;
use super::union::end_in_union;
use super::{Sets, label, name_of, owned};
use crate::firewall::FirewallError;
use crate::kernel::ipset::Element;
use crate::kernel::set_key::SetKey;
use crate::kernel::timeout::Timeout;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use std::time::{Duration, Instant, SystemTime};

/// Time between two renewals: the kernel counts 24 days.
const INTERVAL: Duration = Duration::from_secs(86_400);

impl Sets {
    /// Takes down that a set has an entry which the kernel can't count the time of, if so.
    pub(super) fn note_end(&mut self, set: &SetKey, lease: Lease, now: SystemTime) {
        if Timeout::is_beyond(lease, now) && !self.long.contains_key(set) {
            self.long.insert(set.clone(), Some(Instant::now()));
        }
    }

    /// Renews such entries once a day, the first time soon after a start. Gives their number.
    ///
    /// # Errors
    /// A set can't be read or changed; it is tried again.
    pub(crate) fn renew(&mut self, now: SystemTime) -> Result<usize, FirewallError> {
        let is_new = |renewed: &Option<Instant>| renewed.is_some_and(|at| at.elapsed() < INTERVAL);
        let late = self.long.iter().filter(|(_, renewed)| !is_new(renewed));
        let late: Vec<SetKey> = late.map(|(set, _)| set.clone()).collect();
        let mut count = 0_usize;
        for set in late {
            match self.renew_entries(&set, now) {
                Ok(0) => drop(self.long.remove(&set)),
                Ok(renewed) => {
                    count = count.saturating_add(renewed);
                    self.long.insert(set, Some(Instant::now()));
                }
                Err(error) if is_gone(&error) => drop(self.long.remove(&set)),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn renew_entries(&mut self, set: &SetKey, now: SystemTime) -> Result<usize, FirewallError> {
        let union = set.union();
        self.check_read(&union)?;
        let entries = self.late_entries(set, now)?;
        let commented: Vec<_> = entries.iter().map(|(_, label)| comment_of(label, now)).collect();
        let mut batch = self.ipset.batch();
        batch.add_many(
            &name_of(set)?,
            entries
                .iter()
                .zip(&commented)
                .map(|((element, label), comment)| new_entry(*element, label.lease, comment.as_deref(), now)),
        );
        let others = self.mirrors_of_others(set);
        let ends: Vec<_> = entries
            .iter()
            .map(|(element, label)| {
                (*element, end_in_union(label.lease, others.iter().copied(), element, now))
            })
            .collect();
        if *set != union {
            let puts = ends.iter().map(|(element, lease)| new_entry(*element, *lease, None, now));
            batch.add_many(&name_of(&union)?, puts);
        }
        if let Err(error) = self.transact(set, batch) {
            self.doubt_both(set, &union);
            return Err(error);
        }
        if *set != union {
            let mut follower = self.follow(&union);
            ends.iter().for_each(|(element, lease)| follower.put(element, *lease, now));
        }
        Ok(entries.len())
    }

    /// The entries of a set whose end is later than their timeout tells.
    fn late_entries(
        &self,
        set: &SetKey,
        now: SystemTime,
    ) -> Result<Vec<(Element<'static>, Label)>, FirewallError> {
        let mut late = Vec::new();
        self.each_entry(&name_of(set)?, |entry| {
            let label = label(set, entry, now);
            if is_late(&label, entry.timeout.unwrap_or_default(), now) {
                late.extend(owned(&entry.element).map(|element| (element, label)));
            }
            true
        })?;
        Ok(late)
    }
}

/// Whether the end of an entry is later than its timeout tells.
pub(super) fn is_late(label: &Label, timeout: Timeout, now: SystemTime) -> bool {
    label.lease > timeout.latest_end(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::lease::Moment;
    use crate::rule::list_name::ListName;
    use std::time::UNIX_EPOCH;

    #[test]
    fn an_entry_is_late_that_ends_after_its_timeout() {
        let label = |seconds| {
            let end = Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(seconds));
            Label::new(Lease::Until(end), ListName::UNNAMED)
        };
        let timeout = |seconds| Timeout::new(seconds).unwrap();
        for (end, left, late) in
            [(1_000, 999, true), (1_000, 1_000, false), (999, 1_000, false), (1_000, 0, false)]
        {
            assert_eq!(is_late(&label(end), timeout(left), UNIX_EPOCH), late, "{end} {left}");
        }
        assert!(!is_late(&Label::new(Lease::Permanent, ListName::UNNAMED), timeout(0), UNIX_EPOCH));
    }
}
