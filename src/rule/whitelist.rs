//! The white list: the addresses of which clients may connect to rfw, and which no rule
//! of rfw may match.
//!
//! One entry per line: an address, a network in CIDR notation, or a range
//! `first-last`; `#` begins a comment. Parsing only, no I/O.

use crate::rule::Rule;
use crate::rule::network::{Family, Network, NetworkError};
use std::net::IpAddr;

/// The networks of a white list, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WhiteList {
    /// In the order of the file.
    listed: Vec<Network>,
    /// Those that are in no other, in ascending order: no two of them overlap, so that one is found
    /// by bisection. A feed of 100,000 addresses may meet a list of 10,000 ranges.
    distinct: Vec<Network>,
}

impl WhiteList {
    /// Parses the contents of a white list file.
    ///
    /// # Errors
    /// A line that is not an entry, an entry that includes all addresses or is the
    /// unspecified address, entries that do so together, or a file without entries.
    pub(crate) fn parse(text: &str) -> Result<WhiteList, WhiteListError> {
        let mut networks = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if !entry.is_empty() {
                networks.extend(parse_entry(entry, number)?);
            }
        }
        if networks.is_empty() {
            return Err(WhiteListError::Empty);
        }
        let list = WhiteList::new(networks);
        let whole = [Family::V4, Family::V6].into_iter().find(|family| list.has_all(*family));
        whole.map_or(Ok(list), |family| Err(WhiteListError::Together(family)))
    }

    /// Whether every address of a family is listed, which two halves of it are merged to.
    fn has_all(&self, family: Family) -> bool {
        self.merged(family).iter().filter(|network| network.prefix() == 1).count() == 2
    }

    fn new(listed: Vec<Network>) -> WhiteList {
        let mut distinct = listed.clone();
        // Of networks that begin alike the widest comes first, and those in it after it.
        distinct.sort_unstable();
        distinct.dedup_by(|next, before| before.covers(next));
        WhiteList { listed, distinct }
    }

    /// Whether the address is listed.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.overlap(&Network::host(address)).is_some()
    }

    /// A listed network that shares an address with the one given: the last of them.
    pub(crate) fn overlap(&self, network: &Network) -> Option<&Network> {
        let behind = self.distinct.partition_point(|listed| listed.begins_by_end_of(network));
        self.distinct.get(behind.checked_sub(1)?).filter(|listed| listed.overlaps(network))
    }

    /// A listed network that overlaps the source or the destination of a rule,
    /// and that source or destination.
    pub(crate) fn conflict<'a>(&'a self, rule: &'a Rule) -> Option<(&'a Network, &'a Network)> {
        rule.networks().find_map(|side| self.overlap(side).map(|listed| (listed, side)))
    }

    /// All networks, in the order of the file.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.listed.iter()
    }

    /// The fewest networks that have exactly the addresses of one family, in ascending order. None
    /// of them is that of all addresses, which neither a set nor a rule with an address can be for.
    pub(crate) fn merged(&self, family: Family) -> Vec<Network> {
        let mut merged: Vec<Network> = Vec::new();
        for network in self.distinct.iter().filter(|network| network.family() == family) {
            let mut next = *network;
            while let Some(whole) = merged.last().and_then(|last| last.joined(&next)) {
                if whole.prefix() == 0 {
                    break;
                }
                merged.pop();
                next = whole;
            }
            merged.push(next);
        }
        merged
    }
}

fn parse_entry(entry: &str, line: usize) -> Result<Vec<Network>, WhiteListError> {
    let error = |why| WhiteListError::Entry(line, why);
    let networks = match entry.split_once('-') {
        Some((first, last)) => range(first, last).map_err(error)?,
        None => vec![entry.parse::<Network>().map_err(error)?],
    };
    match networks.iter().any(|network| network.prefix() == 0 || network.is_unspecified()) {
        true => Err(WhiteListError::Everything(line, entry.to_owned())),
        false => Ok(networks),
    }
}

fn range(first: &str, last: &str) -> Result<Vec<Network>, NetworkError> {
    Network::range(address(first)?, address(last)?)
}

fn address(text: &str) -> Result<IpAddr, NetworkError> {
    text.trim().parse().map_err(|_| NetworkError::Address(text.trim().to_owned()))
}

/// Why a file is not a valid white list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WhiteListError {
    /// The number of a line, from 1, and why it is not an address, network or range.
    #[error("{1}")]
    Entry(usize, NetworkError),
    /// An entry that includes every address of its family, which leaves none to block, or
    /// is the unspecified address, which no host has.
    #[error("\"{1}\" means any address: expected the addresses of clients")]
    Everything(usize, String),
    /// Entries that together include every address of a family.
    #[error("the entries together mean any address of {0}: expected the addresses of clients")]
    Together(Family),
    /// A file without entries.
    #[error("no entry: expected at least one address, network or range")]
    Empty,
}

impl WhiteListError {
    /// The number of the line at fault, if there is one.
    pub(crate) fn line(&self) -> Option<usize> {
        match self {
            WhiteListError::Entry(line, _) | WhiteListError::Everything(line, _) => Some(*line),
            WhiteListError::Together(_) | WhiteListError::Empty => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read() {
        let golden = [
            ("1.2.3.4", "1.2.3.4"),
            ("  1.2.3.4  # the laptop", "1.2.3.4"),
            ("# nothing\n\n1.2.3.4\r\n::1\n", "1.2.3.4 ::1"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("203.0.113.5-203.0.113.9", "203.0.113.5 203.0.113.6/31 203.0.113.8/31"),
            ("203.0.113.8 - 203.0.113.9", "203.0.113.8/31"),
            ("2001:db8::-2001:db8::ff", "2001:db8::/120"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
        ];
        for (text, expected) in golden {
            let list = WhiteList::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let networks: Vec<String> = list.networks().map(Network::to_string).collect();
            assert_eq!(networks.join(" "), expected, "{text}");
        }
    }

    const ANY_IPV4: &str = "the entries together mean any address of IPv4: expected the addresses of clients";

    #[test]
    fn a_wrong_line_is_named() {
        let golden = [
            ("", None, "no entry: expected at least one address, network or range"),
            ("# 1.2.3.4\n\n", None, "no entry: expected at least one address, network or range"),
            ("1.2.3.4\nlaptop\n", Some(2), "\"laptop\" is not an IPv4 or IPv6 address"),
            ("1.2.3.4 5.6.7.8", Some(1), "\"1.2.3.4 5.6.7.8\" is not an IPv4 or IPv6 address"),
            ("1.2.3.4/40", Some(1), "\"40\" is not a mask of IPv4: expected a number up to 32"),
            (
                "1.2.3.9-1.2.3.4",
                Some(1),
                "\"1.2.3.9-1.2.3.4\" is not a range: expected two addresses of one family, the lower first",
            ),
            ("1.2.3.4-", Some(1), "\"\" is not an IPv4 or IPv6 address"),
            ("0.0.0.0/0", Some(1), "\"0.0.0.0/0\" means any address: expected the addresses of clients"),
            ("0.0.0.0/1\n1.2.3.4\n128.0.0.0/1\n::1", None, ANY_IPV4),
            ("128.0.0.0/1\n0.0.0.0/2\n64.0.0.1-127.255.255.255\n64.0.0.0", None, ANY_IPV4),
            (
                "1.2.3.4\n::/1\n8000::/1",
                None,
                "the entries together mean any address of IPv6: expected the addresses of clients",
            ),
            ("::", Some(1), "\"::\" means any address: expected the addresses of clients"),
        ];
        for (text, line, message) in golden {
            let error = WhiteList::parse(text).unwrap_err();
            assert_eq!((error.line(), error.to_string().as_str()), (line, message), "{text}");
        }
    }

    #[test]
    fn conflicts_are_found_on_either_side() {
        let list = WhiteList::parse("10.0.0.5\n192.168.0.0/16\n2001:db8::1").unwrap();
        let golden = [
            ("/drop/input/any/10.0.0.5", true),
            ("/drop/input/any/10.0.0.0/24", true),
            ("/drop/input/any/10.0.0.6", false),
            ("/accept/output/any/192.168.7.0/24", true),
            ("/reject/input/any/2001:db8::/32", true),
            ("/reject/input/any/::ffff:10.0.0.5", true),
            ("/drop/forward/any/1.2.3.4/any/192.168.1.1", true),
            ("/drop/forward/any/192.168.1.1/any/1.2.3.4", true),
            ("/drop/forward/any/0.0.0.0/any/1.2.3.4", false),
        ];
        for (target, expected) in golden {
            let rule = crate::rule::rule_of(target);
            assert_eq!(list.conflict(&rule).is_some(), expected, "{target}");
        }
        assert!(list.contains("::ffff:10.0.0.5".parse().unwrap()));
        assert!(!list.contains("10.0.0.4".parse().unwrap()));
    }

    #[test]
    fn networks_are_merged_by_family() {
        let golden = [
            ("1.2.3.4", "1.2.3.4 |"),
            ("10.0.0.0/25\n10.0.0.128/25\n10.0.1.0/24", "10.0.0.0/23 |"),
            ("10.0.1.0/24\n10.0.2.0/24", "10.0.1.0/24 10.0.2.0/24 |"),
            ("10.0.0.0/8\n10.1.2.3\n10.0.0.0/8", "10.0.0.0/8 |"),
            ("::1\n10.0.0.1\n::2\n::3\n10.0.0.0", "10.0.0.0/31 | ::1 ::2/127"),
            ("0.0.0.0/2\n128.0.0.0/2\n192.0.0.0/2\n8000::/1", "0.0.0.0/2 128.0.0.0/1 | 8000::/1"),
        ];
        for (text, expected) in golden {
            let list = WhiteList::parse(text).unwrap();
            let of =
                |family| list.merged(family).iter().map(Network::to_string).collect::<Vec<_>>().join(" ");
            let merged = format!("{} | {}", of(Family::V4), of(Family::V6));
            assert_eq!(merged.trim(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn merged_networks_are_the_fewest_of_the_same_addresses(
            listed in proptest::collection::vec((0u8..64, 26u8..=32), 1..40),
        ) {
            let address = |low: u8| IpAddr::from([10, 0, 0, low]);
            let listed: Vec<Network> =
                listed.into_iter().map(|(low, prefix)| Network::new(address(low), prefix).unwrap()).collect();
            let merged = WhiteList::new(listed.clone()).merged(Family::V4);
            let mut runs = Vec::new();
            for low in 0..64 {
                let host = Network::host(address(low));
                let within = listed.iter().any(|network| network.covers(&host));
                prop_assert_eq!(merged.iter().filter(|network| network.covers(&host)).count(), usize::from(within));
                match runs.last_mut() {
                    Some((_, last)) if within && *last + 1 == low => *last = low,
                    _ if within => runs.push((low, low)),
                    _ => {}
                }
            }
            // The fewest are those of each run of addresses.
            let fewest: Vec<Network> =
                runs.iter().flat_map(|(first, last)| Network::range(address(*first), address(*last)).unwrap()).collect();
            prop_assert_eq!(merged, fewest);
        }

        #[test]
        fn a_network_is_found_by_bisection_where_one_overlaps(
            listed in proptest::collection::vec((0u32..64, 24u8..=32), 1..12), wanted in 0u32..64, prefix in 24u8..=32,
        ) {
            let network = |low: u32, prefix| {
                Network::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 | low << 2).into(), prefix).unwrap()
            };
            let listed: Vec<Network> = listed.into_iter().map(|(low, prefix)| network(low, prefix)).collect();
            let (list, wanted) = (WhiteList::new(listed.clone()), network(wanted, prefix));
            let found = list.overlap(&wanted);
            prop_assert_eq!(found.is_some(), listed.iter().any(|one| one.overlaps(&wanted)));
            prop_assert!(found.is_none_or(|found| found.overlaps(&wanted) && listed.contains(found)));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", tail in "[0-9a-f.:/#\n -]*") {
            let _ = WhiteList::parse(&text);
            let _ = WhiteList::parse(&tail);
        }
    }
}
