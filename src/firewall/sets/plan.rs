//! How a change of many addresses of a list becomes one of its set and of the union. Pure: planned from
//! mirrors.

use super::mirror::Mirror;
use super::union::latest;
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

    /// What is put into the union: with its new end, or, of what goes out, that of another list.
    pub(super) fn union_puts(&self) -> impl Iterator<Item = (Element<'static>, Lease)> {
        let new = self.puts.iter().flat_map(|(networks, lease, _)| {
            networks.iter().map(|network| {
                let element = Element::Net(*network);
                (element, self.latest(&element).map_or(*lease, |other| other.max(*lease)))
            })
        });
        let kept = self.gone.iter().filter_map(|element| Some((*element, self.latest(element)?)));
        new.chain(kept).filter(|(element, lease)| !self.is_known(element, *lease))
    }

    /// What is taken out of the union.
    pub(super) fn union_dels(&self) -> impl Iterator<Item = Element<'static>> {
        self.gone.iter().filter(|element| self.latest(element).is_none()).copied()
    }

    fn latest(&self, element: &Element<'_>) -> Option<Lease> {
        latest(self.others.iter().copied(), element, self.now)
    }

    /// Whether the union has an entry with that very end.
    fn is_known(&self, element: &Element<'_>, lease: Lease) -> bool {
        self.union.and_then(|union| union.end(element, self.now)) == Some(lease)
    }
}
