//! The white list: the addresses of which clients may connect to rfw, and those of others that are never to
//! be blocked. No rule of rfw may match either.
//!
//! One entry per line: an address, a network in CIDR notation, or a range
//! `first-last`, those of no client behind the word `never`; `#` begins a comment. Parsing only, no I/O.

use crate::rule::Rule;
use crate::rule::network::{Family, Network, NetworkError};
use std::fmt;
use std::net::IpAddr;

/// The word before an entry that is never to be blocked and is no client.
const NEVER: &str = "never";

/// The networks of a white list, at least one of them with an address that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WhiteList {
    /// Those of clients, in the order of the file.
    listed: Vec<Network>,
    /// Those behind `never`, in the order of the file.
    never_listed: Vec<Network>,
    clients: Distinct,
    never: Distinct,
    /// The addresses that clients may have: those of `clients` without those of `never`.
    admitted: Distinct,
}

/// Networks in ascending order, no two of which overlap, so that one is found by bisection. A feed of
/// 100,000 addresses may meet a list of 10,000 ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Distinct(Vec<Network>);

/// A network of the white list that rules may not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// One of clients.
    Client(Network),
    /// One behind `never`.
    Never(Network),
}

/// An entry of a file.
struct Entry<'a> {
    /// The number of its line, from 1.
    line: usize,
    text: &'a str,
    is_never: bool,
    networks: Vec<Network>,
}

impl WhiteList {
    /// Parses the contents of a white list file.
    ///
    /// # Errors
    /// A line that is not an entry, an entry that includes all addresses or is the
    /// unspecified address, entries that do so together, an entry of clients whose addresses are all behind
    /// `never` too, or a file without entries of clients.
    pub(crate) fn parse(text: &str) -> Result<WhiteList, WhiteListError> {
        let lines = (1..).zip(text.lines());
        let lines = lines.map(|(line, text)| (line, text.split('#').next().unwrap_or_default().trim()));
        let entries = lines.filter(|(_, text)| !text.is_empty());
        let entries = entries.map(|(line, text)| parse_entry(text, line)).collect::<Result<Vec<_>, _>>()?;
        let list = WhiteList::new(networks(&entries, false), networks(&entries, true));
        if let Some(family) = [Family::V4, Family::V6].into_iter().find(|family| list.has_all(*family)) {
            return Err(WhiteListError::Together(family));
        }
        let clients = || entries.iter().filter(|entry| !entry.is_never);
        match clients().find(|entry| !list.admits_some(entry)) {
            Some(entry) => Err(WhiteListError::NoClient(entry.line, entry.text.to_owned())),
            None if entries.is_empty() => Err(WhiteListError::Empty),
            None if list.listed.is_empty() => Err(WhiteListError::OnlyNever),
            None => Ok(list),
        }
    }

    fn new(listed: Vec<Network>, never_listed: Vec<Network>) -> WhiteList {
        let clients = Distinct::new(listed.clone());
        let never = Distinct::new(never_listed.clone());
        let admitted = clients.without(&never);
        WhiteList { listed, never_listed, clients, never, admitted }
    }

    /// Whether every address of a family is listed, which two halves of it are merged to.
    fn has_all(&self, family: Family) -> bool {
        let all = Distinct::new([self.listed.as_slice(), &self.never_listed].concat());
        all.merged(family).iter().filter(|network| network.prefix() == 1).count() == 2
    }

    /// Whether a client may have an address of an entry.
    fn admits_some(&self, entry: &Entry<'_>) -> bool {
        entry.networks.iter().any(|network| self.admitted.overlap(network).is_some())
    }

    /// Whether a client may have the address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.admitted.overlap(&Network::host(address)).is_some()
    }

    /// Whether the address is behind `never`, so that no client has it.
    pub(crate) fn is_never(&self, address: IpAddr) -> bool {
        self.never.overlap(&Network::host(address)).is_some()
    }

    /// A network, of clients or behind `never`, that shares an address with the one given.
    pub(crate) fn overlap(&self, network: &Network) -> Option<Listed> {
        let never = self.never.overlap(network).copied().map(Listed::Never);
        never.or_else(|| self.clients.overlap(network).copied().map(Listed::Client))
    }

    /// A listed network that overlaps the source or the destination of a rule,
    /// and that source or destination.
    pub(crate) fn conflict<'a>(&self, rule: &'a Rule) -> Option<(Listed, &'a Network)> {
        rule.networks().find_map(|side| self.overlap(side).map(|listed| (listed, side)))
    }

    /// The networks of clients, in the order of the file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.listed.iter()
    }

    /// The networks behind `never`, in the order of the file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn never(&self) -> impl Iterator<Item = &Network> {
        self.never_listed.iter()
    }

    /// The fewest networks that have exactly the addresses of one family that clients may have, in ascending
    /// order. None of them is that of all addresses, which neither a set nor a rule with an address can be for.
    pub(crate) fn merged(&self, family: Family) -> Vec<Network> {
        self.admitted.merged(family)
    }
}

impl Distinct {
    fn new(mut networks: Vec<Network>) -> Distinct {
        // Of networks that begin alike the widest comes first, and those in it after it.
        networks.sort_unstable();
        networks.dedup_by(|next, before| before.covers(next));
        Distinct(networks)
    }

    /// A network that shares an address with the one given: the last of them.
    fn overlap(&self, network: &Network) -> Option<&Network> {
        let behind = self.0.partition_point(|listed| listed.begins_by_end_of(network));
        self.0.get(behind.checked_sub(1)?).filter(|listed| listed.overlaps(network))
    }

    /// The networks of the addresses that are not in the others.
    fn without(&self, others: &Distinct) -> Distinct {
        let mut rest = Vec::new();
        self.0.iter().for_each(|network| others.add_rest(*network, &mut rest));
        Distinct(rest)
    }

    /// Adds, in ascending order, what of a network is in none of these.
    fn add_rest(&self, network: Network, rest: &mut Vec<Network>) {
        match self.overlap(&network) {
            None => rest.push(network),
            Some(listed) if listed.covers(&network) => {}
            // At most 128 deep: the length of a prefix.
            Some(_) => network.halves().into_iter().flatten().for_each(|half| self.add_rest(half, rest)),
        }
    }

    fn merged(&self, family: Family) -> Vec<Network> {
        let mut merged: Vec<Network> = Vec::new();
        for network in self.0.iter().filter(|network| network.family() == family) {
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

/// Those of the entries that are behind `never`, or of the others.
fn networks(entries: &[Entry<'_>], is_never: bool) -> Vec<Network> {
    let entries = entries.iter().filter(|entry| entry.is_never == is_never);
    entries.flat_map(|entry| &entry.networks).copied().collect()
}

fn parse_entry(text: &str, line: usize) -> Result<Entry<'_>, WhiteListError> {
    let behind = text.strip_prefix(NEVER).filter(|rest| rest.starts_with(char::is_whitespace));
    let networks = Network::parse_all(behind.unwrap_or(text).trim());
    let networks = networks.map_err(|why| WhiteListError::Entry(line, why))?;
    match networks.iter().any(|network| network.prefix() == 0 || network.is_unspecified()) {
        true => Err(WhiteListError::Everything(line, text.to_owned())),
        false => Ok(Entry { line, text, is_never: behind.is_some(), networks }),
    }
}

impl fmt::Display for WhiteList {
    /// How many networks of each kind there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.listed.len();
        write!(f, "{count} {}", if count == 1 { "network" } else { "networks" })?;
        match self.never_listed.len() {
            0 => Ok(()),
            never => write!(f, " of clients and {never} never to be blocked"),
        }
    }
}

/// Why a file is not a valid white list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WhiteListError {
    /// The number of a line, from 1, and why it is not an address, network or range.
    #[error("{1}")]
    Entry(usize, NetworkError),
    /// An entry that includes every address of its family, which leaves none to block, or
    /// is the unspecified address, which no host has.
    #[error("\"{}\" means any address: expected some addresses, not all", .1.escape_debug())]
    Everything(usize, String),
    /// Entries that together include every address of a family.
    #[error("the entries together mean any address of {0}: expected some addresses, not all")]
    Together(Family),
    /// An entry of clients all of whose addresses are behind `never` too.
    #[error("\"{}\" can't be a client, since lines with \"never\" have all of it", .1.escape_debug())]
    NoClient(usize, String),
    /// A file without entries.
    #[error("no entry: expected at least one address, network or range")]
    Empty,
    /// A file without entries of clients.
    #[error("no client: expected at least one address, network or range without \"never\"")]
    OnlyNever,
}

impl WhiteListError {
    /// The number of the line at fault, if there is one.
    pub(crate) fn line(&self) -> Option<usize> {
        match self {
            WhiteListError::Entry(line, _)
            | WhiteListError::Everything(line, _)
            | WhiteListError::NoClient(line, _) => Some(*line),
            WhiteListError::Together(_) | WhiteListError::Empty | WhiteListError::OnlyNever => None,
        }
    }
}

#[cfg(test)]
mod tests;
