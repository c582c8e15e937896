//! The sets of the guard: the networks of a long white list, which may reach rfw's port. The guard
//! rules look packets up in them, so that a packet is compared with one rule, not with each network.

use super::{Sets, about, deadline, set_name};
use crate::firewall::FirewallError;
use crate::kernel::guard::{self, set_description};
use crate::kernel::ipset::{Definition, Element, IpsetError, NewEntry, SetInfo, SetName, SetType};
use crate::kernel::timeout::Timeout;
use crate::rule::network::{Family, Network};

/// The most entries: more than a white list of the largest file has.
const SIZE: u32 = 1 << 26;

/// What became of the set of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardSet {
    /// It was as wanted.
    Unchanged,
    /// It was made, or entries were added or deleted.
    Changed,
    /// The kernel has no sets of networks.
    Unavailable,
    /// There is another set of that name, which rfw has not made.
    Foreign,
}

impl Sets {
    /// Makes a set of the guard hold exactly these networks, which are in ascending order. In one
    /// send those that are missing come first, then others go: no listed client is shut out.
    ///
    /// # Errors
    /// The set can't be read or changed; the kernel may have done a part of it.
    pub(crate) fn fill_guard(
        &mut self,
        family: Family,
        networks: &[Network],
    ) -> Result<GuardSet, FirewallError> {
        let name = set_name(guard::set_name(family))?;
        let there = match self.ipset.info(&name, deadline()) {
            Ok(info) if is_guard(&info, family) => {
                self.register_as(&name, set_description(family).to_owned())?;
                self.read_guard(&name)?
            }
            Ok(_) => return Ok(GuardSet::Foreign),
            Err(IpsetError::NoSet) => match self.make_guard(&name, family, networks.len()) {
                Ok(()) => Vec::new(),
                Err(FirewallError::Set(_, IpsetError::NoType)) => return Ok(GuardSet::Unavailable),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(about(&name, error)),
        };
        let (missing, others) = difference(&there, networks);
        if missing.is_empty() && others.is_empty() {
            return Ok(GuardSet::Unchanged);
        }
        let mut batch = self.ipset.batch();
        let new =
            |network| NewEntry { timeout: Some(Timeout::default()), ..NewEntry::new(Element::Net(network)) };
        batch.add_many(&name, missing.into_iter().map(new));
        batch.del_many(&name, others.into_iter().map(Element::Net));
        let report = self.ipset.transact(batch, deadline()).map_err(|error| about(&name, error))?;
        report.into_result().map_err(|error| about(&name, error))?;
        Ok(GuardSet::Changed)
    }

    fn make_guard(&mut self, name: &SetName, family: Family, expected: usize) -> Result<(), FirewallError> {
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        let definition =
            Definition { set_type: SetType::Net(family), maxelem: SIZE, comments: true, expected };
        self.make(name, &definition, set_description(family).to_owned())
    }

    fn read_guard(&self, name: &SetName) -> Result<Vec<GuardEntry>, FirewallError> {
        let mut entries = Vec::new();
        self.each_entry(name, |entry| {
            if let Element::Net(network) = entry.element {
                let is_own = entry.timeout.unwrap_or_default() == Timeout::default() && !entry.other;
                entries.push(GuardEntry { network, is_own });
            }
            true
        })?;
        entries.sort_unstable_by_key(|entry| entry.network);
        Ok(entries)
    }

    /// Takes the set of the guard away that no rule needs any more, if it is rfw's: one that a rule
    /// of rfw has used until now (`was_used`), or that is registered. One that others use stays, with
    /// a warning.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn drop_guard(&mut self, family: Family, was_used: bool) -> Result<(), FirewallError> {
        let name = set_name(guard::set_name(family))?;
        let info = match self.ipset.info(&name, deadline()) {
            Ok(info) => info,
            Err(IpsetError::NoSet) => return Ok(()),
            Err(error) => return Err(about(&name, error)),
        };
        if !is_guard(&info, family) {
            return Ok(());
        }
        if !(was_used || self.is_registered(&name)?) {
            log::warn!(
                "the set {name} has no rule of rfw and is not in its registry: it is left alone; \
                 ipset destroy takes it away"
            );
            return Ok(());
        }
        match self.destroy(name.as_str()) {
            Ok(_) => self.destroy_empty_registry(&[]),
            Err(FirewallError::Set(_, IpsetError::Busy)) => {
                log::warn!("the set {name} stays, since a rule that is not of rfw uses it");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// An entry of a set of the guard.
#[derive(Debug, Clone, Copy)]
struct GuardEntry {
    network: Network,
    /// Whether it is as rfw makes it: it stays for ever, and is no exception (`nomatch`).
    is_own: bool,
}

/// The networks that are missing, or there in another way, and those that are not wanted. Both
/// arguments are in ascending order.
fn difference(there: &[GuardEntry], wanted: &[Network]) -> (Vec<Network>, Vec<Network>) {
    let is_there = |network: &&Network| {
        let found = there.binary_search_by_key(*network, |entry| entry.network);
        found.ok().and_then(|at| there.get(at)).is_some_and(|entry| entry.is_own)
    };
    let missing = wanted.iter().filter(|network| !is_there(network)).copied();
    let others = there.iter().map(|entry| entry.network).filter(|there| wanted.binary_search(there).is_err());
    (missing.collect(), others.collect())
}

/// Whether a set is made as rfw makes that of the guard. In either way it may have comments, which
/// no entry of it needs.
fn is_guard(info: &SetInfo, family: Family) -> bool {
    let is_net = info.header.set_type == Some(SetType::Net(family)) && info.maxelem == SIZE;
    is_net && info.timeout == Some(0) && info.counters && !info.other
}

/// Whether it is a set of the guard, by its name and as rfw makes it.
pub(super) fn is_own_guard(info: &SetInfo) -> bool {
    let families = [Family::V4, Family::V6].into_iter();
    families.into_iter().any(|family| info.header.name == guard::set_name(family) && is_guard(info, family))
}

/// Whether a member of the registry is a set of the guard.
pub(super) fn is_member(name: &str, comment: &str) -> bool {
    let families = [Family::V4, Family::V6].into_iter();
    families.into_iter().any(|family| (name, comment) == (guard::set_name(family), set_description(family)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_what_is_not_wanted_goes() {
        // A `!` marks an entry that others have put in another way.
        let golden = [
            ("", "", "", ""),
            ("", "10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3", ""),
            ("10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3", "", ""),
            ("10.0.0.0/31 10.0.0.2/31", "10.0.0.0/30", "10.0.0.0/30", "10.0.0.0/31 10.0.0.2/31"),
            ("10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.3", "10.0.0.3", "10.0.0.1"),
            ("10.0.0.1! 10.0.0.2!", "10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ];
        for (there, wanted, missing, others) in golden {
            let there: Vec<GuardEntry> = there
                .split_whitespace()
                .map(|word| GuardEntry {
                    network: word.trim_end_matches('!').parse().unwrap(),
                    is_own: !word.ends_with('!'),
                })
                .collect();
            let networks = |text: &str| -> Vec<Network> {
                text.split_whitespace().map(|word| word.parse().unwrap()).collect()
            };
            let found = difference(&there, &networks(wanted));
            assert_eq!(found, (networks(missing), networks(others)), "{wanted}");
        }
    }

    #[test]
    fn a_set_of_the_guard_is_known_by_all_that_it_is() {
        let own = SetInfo { timeout: Some(0), counters: true, maxelem: SIZE, ..SetInfo::default() };
        let named = |name: &str, set_type| {
            let mut info = own.clone();
            (info.header.name, info.header.set_type) = (name.to_owned(), set_type);
            info
        };
        let (v4, v6) = (Some(SetType::Net(Family::V4)), Some(SetType::Net(Family::V6)));
        assert!(is_own_guard(&named("rfw4-guard", v4)) && is_own_guard(&named("rfw6-guard", v6)));
        assert!(is_own_guard(&SetInfo { comments: true, ..named("rfw4-guard", v4) }));
        let others = [
            named("rfw4-guard", v6),
            named("rfw4-ids", v4),
            named("rfw4-guard", None),
            SetInfo { timeout: None, ..named("rfw4-guard", v4) },
            SetInfo { counters: false, ..named("rfw4-guard", v4) },
            SetInfo { maxelem: 65_536, ..named("rfw4-guard", v4) },
            SetInfo { other: true, ..named("rfw4-guard", v4) },
        ];
        others.iter().for_each(|info| assert!(!is_own_guard(info), "{info:?}"));
        assert!(is_member("rfw4-guard", "guard inet") && !is_member("rfw4-guard", "guard inet6"));
    }
}
