//! How a change of many addresses of a list becomes one of its set and of the union. Pure: planned from
//! mirrors.

use super::mirror::Mirror;
use super::union::{end_in_union, latest};
use crate::firewall::Terms;
use crate::kernel::ipset::Element;
use crate::kernel::timeout::Timeout;
use crate::rule::lease::Lease;
use crate::rule::network::Network;
use std::collections::HashMap;
use std::time::SystemTime;

/// An entry to put into a set: what it is about, its end, its comment.
pub(super) type Put<'a> = (Element<'static>, Lease, Option<&'a str>);

/// The comments of the entries of a body.
#[derive(Debug, Default)]
pub(super) struct Comments {
    common: Option<String>,
    own: HashMap<Network, String>,
}

impl Comments {
    /// The comments for these terms at `now`.
    pub(super) fn of(terms: &Terms, now: SystemTime) -> Comments {
        let beyond = Timeout::is_beyond(terms.lease, now);
        let own = terms.notes.keys().map(|network| (*network, terms.label(network).entry_comment(beyond)));
        Comments {
            common: terms.common().entry_comment(beyond),
            own: own.filter_map(|(network, comment)| Some((network, comment?))).collect(),
        }
    }

    fn get(&self, network: &Network) -> Option<&str> {
        self.own.get(network).or(self.common.as_ref()).map(String::as_str)
    }
}

/// A change of a list.
pub(super) struct Plan<'a> {
    /// Addresses that go in, or are renewed, until when, and with which comments.
    pub puts: Option<(&'a [Network], Lease, &'a Comments)>,
    /// What goes out.
    pub gone: &'a [Element<'static>],
    /// The other lists of the scope.
    pub others: Vec<&'a Mirror>,
    /// What is known of the union.
    pub union: Option<&'a Mirror>,
    /// The time.
    pub now: SystemTime,
}

impl Plan<'_> {
    /// What is put into the set of the list.
    pub(super) fn list_puts(&self) -> impl Iterator<Item = Put<'_>> {
        self.puts.iter().flat_map(|(networks, lease, comments)| {
            networks.iter().map(|network| (Element::Net(*network), *lease, comments.get(network)))
        })
    }

    /// What is put into the union: with its new end, or, of what goes out, that of another list. Also what
    /// the union is known to have so: others may have deleted it there, and the answer says that it is in.
    pub(super) fn union_puts(&self) -> impl Iterator<Item = (Element<'static>, Lease)> {
        let new = self.puts.iter().flat_map(|(networks, lease, _)| {
            networks.iter().map(|network| {
                let element = Element::Net(*network);
                (element, self.end_with(&element, *lease))
            })
        });
        let kept = self.gone.iter().filter_map(|element| Some((*element, self.latest(element)?)));
        new.chain(kept)
    }

    /// What is taken out of the union.
    pub(super) fn union_dels(&self) -> impl Iterator<Item = Element<'static>> {
        self.gone.iter().filter(|element| self.latest(element).is_none()).copied()
    }

    fn latest(&self, element: &Element<'_>) -> Option<Lease> {
        latest(self.others.iter().copied(), element, self.now)
    }

    /// The latest end of an address that is put into the list until `lease`. The others are asked only
    /// where one of them may have it for longer than the union is known to.
    fn end_with(&self, element: &Element<'_>, lease: Lease) -> Lease {
        let is_latest = match self.union.and_then(|union| union.end(element, self.now)) {
            None => self.union.is_some(),
            // The end of one that the kernel can't count to may be later than that of the union.
            Some(known) => known <= lease && !Timeout::is_beyond(lease, self.now),
        };
        match is_latest {
            true => lease,
            false => end_in_union(lease, self.others.iter().copied(), element, self.now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::set_key::SetKey;
    use crate::rule::lease::Moment;
    use crate::rule::list_name::ListName;
    use crate::rule::note::Note;
    use crate::rule::rule_of;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    fn until(seconds: u64) -> Lease {
        Lease::Until(Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    fn host(number: u8) -> Network {
        format!("1.0.0.{number}").parse().unwrap()
    }

    fn mirror(entries: &BTreeMap<u8, u64>) -> Mirror {
        let mut mirror = Mirror::of_new(&SetKey::of(&rule_of("/drop/input/any/1.2.3.4")));
        for (number, end) in entries {
            mirror.put(&Element::Net(host(*number)), until(*end), UNIX_EPOCH);
        }
        mirror
    }

    /// The union of lists: of each address the latest end.
    fn union_of(lists: &[&BTreeMap<u8, u64>]) -> BTreeMap<u8, u64> {
        let mut union = BTreeMap::new();
        for (number, end) in lists.iter().copied().flatten() {
            let latest = union.entry(*number).or_insert(*end);
            *latest = (*latest).max(*end);
        }
        union
    }

    #[test]
    fn a_reason_of_its_own_comes_before_that_of_all() {
        let note = |text: &str| Note::from_comment(text).map(Box::new);
        let terms = Terms {
            list: ListName::UNNAMED,
            lease: until(3_000_000_000),
            note: note("by me: all"),
            notes: HashMap::from([(host(1), note("by me: one").unwrap())]).into(),
            replace: false,
        };
        let near = Comments::of(&terms, UNIX_EPOCH + Duration::from_secs(2_999_999_000));
        assert_eq!((near.get(&host(1)), near.get(&host(2))), (Some("by me: one"), Some("by me: all")));
        let far = Comments::of(&terms, UNIX_EPOCH);
        assert_eq!(far.get(&host(2)), Some("until 2065-01-24T05:20:00Z by me: all"));
        assert_eq!(Comments::default().get(&host(1)), None);
    }

    proptest! {
        /// Whatever a body does to a list, the union is that of the lists as they are then.
        #[test]
        fn a_union_that_a_plan_changes_is_that_of_its_lists(
            list in proptest::collection::btree_map(0u8..12, 1u64..9, 0..12),
            others in proptest::collection::vec(proptest::collection::btree_map(0u8..12, 1u64..9, 0..12), 0..3),
            body in proptest::collection::btree_set(0u8..12, 0..12),
            gone in proptest::collection::btree_set(0u8..12, 0..12),
            end in proptest::option::of(1u64..9),
        ) {
            let mut after = list.clone();
            let gone: Vec<u8> = gone.into_iter().filter(|number| end.is_none() || !body.contains(number)).collect();
            after.retain(|number, _| !gone.contains(number));
            if let Some(end) = end {
                after.extend(body.iter().map(|number| (*number, end)));
            }
            let all: Vec<&BTreeMap<u8, u64>> = others.iter().chain([&list]).collect();
            let before = union_of(&all);
            let (mirrors, union) = (others.iter().map(mirror).collect::<Vec<_>>(), mirror(&before));
            let networks: Vec<Network> = body.iter().map(|number| host(*number)).collect();
            let elements: Vec<Element<'static>> = gone.iter().map(|number| Element::Net(host(*number))).collect();
            let comments = Comments::default();
            let plan = Plan {
                puts: end.map(|end| (networks.as_slice(), until(end), &comments)),
                gone: &elements,
                others: mirrors.iter().collect(),
                union: Some(&union),
                now: UNIX_EPOCH,
            };
            let mut changed = mirror(&before);
            let (puts, dels): (Vec<_>, Vec<_>) = (plan.union_puts().collect(), plan.union_dels().collect());
            // Also what others have deleted in the union.
            let is_put = |number: &u8| puts.iter().any(|(element, _)| *element == Element::Net(host(*number)));
            prop_assert!(end.is_none() || body.iter().all(is_put));
            dels.iter().for_each(|element| changed.remove(element));
            puts.iter().for_each(|(element, lease)| changed.put(element, *lease, UNIX_EPOCH));
            let all: Vec<&BTreeMap<u8, u64>> = others.iter().chain([&after]).collect();
            let wanted = mirror(&union_of(&all));
            for number in 0..12 {
                let element = Element::Net(host(number));
                prop_assert_eq!(changed.end(&element, UNIX_EPOCH), wanted.end(&element, UNIX_EPOCH), "{}", number);
            }
        }
    }
}
