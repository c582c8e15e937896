//! Addresses and networks in canonical form.
//!
//! Host bits are cleared, an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) is its
//! IPv4 address, and a `/32` or `/128` equals the bare address: two spellings of one
//! network are equal values, so that no spelling evades the white list.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The address family; each has a filter table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4, filtered by iptables.
    V4,
    /// IPv6, filtered by ip6tables.
    V6,
}

impl Family {
    /// The length of an address in bits: 32 or 128.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The network of all addresses, as `iptables -L` prints it: `0.0.0.0/0` or `::/0`.
    pub(crate) fn any(self) -> &'static str {
        match self {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A host address or a network in CIDR notation (RFC 4632, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Network {
    family: Family,
    /// The lowest address in network byte order, an IPv4 one in the last four bytes. As bytes a
    /// network takes 18 bytes, with a `u128` it would take 48, and a list may have a million.
    first: [u8; 16],
    prefix: u8,
}

impl Network {
    /// The network of that prefix length that contains `addr`.
    ///
    /// # Errors
    /// A prefix length over 32 (IPv4) or 128 (IPv6), or one below 96 with an IPv4-mapped
    /// address.
    #[inline(always)]
    pub(crate) fn new(addr: IpAddr, prefix: u8) -> Result<Network, NetworkError> {
        let (addr, prefix) = match (addr, addr.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) if prefix <= 128 => {
                let prefix = prefix.checked_sub(96).ok_or(NetworkError::Mapped(prefix))?;
                (IpAddr::V4(v4), prefix)
            }
            _ => (addr, prefix),
        };
        let (family, bits) = match addr {
            IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
        };
        if prefix > family.bits() {
            return Err(NetworkError::Prefix(family, prefix.to_string()));
        }
        Ok(Network::of_bits(family, bits & !host_mask(family, prefix), prefix))
    }

    /// The network of this address alone.
    pub(crate) fn host(addr: IpAddr) -> Network {
        let (family, first) = match addr.to_canonical() {
            IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
        };
        Network::of_bits(family, first, family.bits())
    }

    fn of_bits(family: Family, first: u128, prefix: u8) -> Network {
        Network { family, first: first.to_be_bytes(), prefix }
    }

    /// The fewest networks that together contain exactly the addresses from `first` to
    /// `last`, both included, in ascending order.
    ///
    /// # Errors
    /// Ends of different families, or `first` above `last`.
    pub(crate) fn range(first: IpAddr, last: IpAddr) -> Result<Vec<Network>, NetworkError> {
        let (low, high) = (Network::host(first), Network::host(last));
        if low.family != high.family || low.first() > high.first() {
            return Err(NetworkError::Range(format!("{first}-{last}")));
        }
        let mut networks = Vec::new();
        let mut next = Some(low.first());
        while let Some(start) = next.filter(|start| *start <= high.first()) {
            let network = widest_from(low.family, start, high.first());
            next = network.last().checked_add(1);
            networks.push(network);
        }
        Ok(networks)
    }

    /// The networks of an address, a network, or a range `first-last`.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Network>, NetworkError> {
        let address =
            |text: &str| text.trim().parse().map_err(|_| NetworkError::Address(text.trim().to_owned()));
        match text.split_once('-') {
            Some((first, last)) => Network::range(address(first)?, address(last)?),
            None => Ok(vec![text.parse()?]),
        }
    }

    /// The family of its addresses.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub(crate) fn addr(&self) -> IpAddr {
        match self.family {
            // No bits are lost: the upper 96 bits of an IPv4 network are zero.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(low_bits(self.first()))),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(self.first())),
        }
    }

    /// The prefix length in bits.
    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is a single address.
    pub(crate) fn is_host(&self) -> bool {
        self.prefix == self.family.bits()
    }

    /// Whether it is the unspecified address, `0.0.0.0` or `::`, as a single address.
    pub(crate) fn is_unspecified(&self) -> bool {
        self.is_host() && self.first() == 0
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(&self, other: &Network) -> bool {
        self.family == other.family && self.first() <= other.last() && other.first() <= self.last()
    }

    /// Whether every address of `other` is in this network.
    pub(crate) fn covers(&self, other: &Network) -> bool {
        self.overlaps(other) && self.prefix <= other.prefix
    }

    /// The network of exactly these two, if they are its halves.
    pub(crate) fn joined(&self, other: &Network) -> Option<Network> {
        let prefix = self.prefix.checked_sub(1)?;
        let whole = Network::of_bits(self.family, self.first() & !host_mask(self.family, prefix), prefix);
        (self.prefix == other.prefix && self != other && whole.covers(other)).then_some(whole)
    }

    /// Its two halves, in ascending order; a single address has none.
    pub(crate) fn halves(&self) -> Option<[Network; 2]> {
        let prefix = self.prefix.checked_add(1).filter(|prefix| *prefix <= self.family.bits())?;
        let half = |first| Network::of_bits(self.family, first, prefix);
        Some([half(self.first()), half(self.last() & !host_mask(self.family, prefix))])
    }

    /// Whether it is of a family before that of the other, or begins where the other ends or before.
    pub(crate) fn begins_by_end_of(&self, other: &Network) -> bool {
        (self.family, self.first()) <= (other.family, other.last())
    }

    fn first(&self) -> u128 {
        u128::from_be_bytes(self.first)
    }

    fn last(&self) -> u128 {
        self.first() | host_mask(self.family, self.prefix)
    }
}

/// The lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the upper 96 bits of an IPv4 address are zero")]
fn low_bits(bits: u128) -> u32 {
    bits as u32
}

/// The host bits of an address, those after the prefix, set to one.
fn host_mask(family: Family, prefix: u8) -> u128 {
    let host_bits = u32::from(family.bits().saturating_sub(prefix));
    u128::MAX.checked_shr(128_u32.saturating_sub(host_bits)).unwrap_or(0)
}

/// The largest network whose first address is `start` and whose last is at most `end`.
fn widest_from(family: Family, start: u128, end: u128) -> Network {
    let mut network = Network::of_bits(family, start, family.bits());
    while let Some(prefix) = network.prefix.checked_sub(1) {
        let wider = Network { prefix, ..network };
        if start & host_mask(family, prefix) != 0 || wider.last() > end {
            break;
        }
        network = wider;
    }
    network
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_host() {
            true => write!(f, "{}", self.addr()),
            false => write!(f, "{}/{}", self.addr(), self.prefix),
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Parses `address` or `address/prefix`.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        match text.split_once('/') {
            Some((addr, prefix)) => parse(addr, Some(prefix)),
            None => parse(text, None),
        }
    }
}

/// Parses an address and a separate prefix length.
///
/// # Errors
/// A string that is not an address, or not a prefix length of its family.
pub(crate) fn parse(addr: &str, prefix: Option<&str>) -> Result<Network, NetworkError> {
    let ip: IpAddr = addr.parse().map_err(|_| NetworkError::Address(addr.to_owned()))?;
    match prefix {
        None => Ok(Network::host(ip)),
        Some(text) => Network::new(ip, parse_prefix(ip, text)?),
    }
}

fn parse_prefix(ip: IpAddr, text: &str) -> Result<u8, NetworkError> {
    let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let prefix = if plain { text.parse().ok() } else { None };
    prefix.ok_or_else(|| NetworkError::Prefix(family, text.to_owned()))
}

/// Why a string or a pair of values is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    /// Not an IPv4 or IPv6 address.
    #[error("\"{}\" is not an IPv4 or IPv6 address", .0.escape_debug())]
    Address(String),
    /// Not a prefix length of that family.
    #[error("\"{text}\" is not a mask of {0}: expected a number up to {most}", text = .1.escape_debug(), most = .0.bits())]
    Prefix(Family, String),
    /// A prefix length below 96 with an address of `::ffff:0:0/96`.
    #[error("mask {0} is too wide for an IPv4-mapped address: expected 96 to 128")]
    Mapped(u8),
    /// A range whose ends are of different families or in descending order.
    #[error("\"{0}\" is not a range: expected two addresses of one family, the lower first")]
    Range(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    #[test]
    fn networks_are_read_and_made_canonical() {
        for (at, [text, canonical]) in cases("network.txt") {
            let network: Network = text.parse().unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(network.to_string(), canonical, "{at}");
        }
    }

    #[test]
    fn what_is_no_network_is_quoted() {
        for (at, [text, message]) in cases("network-refused.txt") {
            assert_eq!(text.parse::<Network>().unwrap_err().to_string(), message, "{at}");
        }
    }

    #[test]
    fn a_range_is_the_fewest_networks() {
        let golden = [
            ("203.0.113.5", "203.0.113.9", "203.0.113.5 203.0.113.6/31 203.0.113.8/31"),
            ("10.0.0.0", "10.0.0.255", "10.0.0.0/24"),
            ("1.2.3.4", "1.2.3.4", "1.2.3.4"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("255.255.255.254", "255.255.255.255", "255.255.255.254/31"),
            ("2001:db8::1", "2001:db8::4", "2001:db8::1 2001:db8::2/127 2001:db8::4"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
        ];
        for (first, last, networks) in golden {
            let range = Network::range(first.parse().unwrap(), last.parse().unwrap()).unwrap();
            let text: Vec<String> = range.iter().map(Network::to_string).collect();
            assert_eq!(text.join(" "), networks);
        }
        for (first, last) in [("1.2.3.5", "1.2.3.4"), ("1.2.3.4", "::1")] {
            assert!(Network::range(first.parse().unwrap(), last.parse().unwrap()).is_err());
        }
    }

    #[test]
    fn networks_overlap_where_they_share_an_address() {
        let golden = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("10.0.0.0/9", "10.128.0.0/9", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("1.2.3.4", "::102:304", false),
            ("::ffff:1.2.3.4", "1.2.3.0/24", true),
        ];
        for (a, b, expected) in golden {
            let (a, b): (Network, Network) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.overlaps(&b), expected, "{a} {b}");
            assert_eq!(b.overlaps(&a), expected, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn a_network_printed_and_read_again_is_itself(bits: u128, v4: bool, prefix in 0u8..=128) {
            let network = match v4 {
                true => Network::new(IpAddr::V4(Ipv4Addr::from_bits(low_bits(bits))), prefix % 33),
                false => Network::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix),
            };
            if let Ok(network) = network {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Network>();
        }

        #[test]
        fn a_range_covers_its_ends_and_nothing_outside(a: u32, b: u32) {
            let (low, high) = (a.min(b), a.max(b));
            let range = Network::range(Ipv4Addr::from_bits(low).into(), Ipv4Addr::from_bits(high).into()).unwrap();
            let size: u128 = range.iter().map(|n| n.last() - n.first() + 1).sum();
            prop_assert_eq!(size, u128::from(high) - u128::from(low) + 1);
            prop_assert_eq!(range.first().map(|n| n.first()), Some(u128::from(low)));
            prop_assert_eq!(range.last().map(|n| n.last()), Some(u128::from(high)));
        }
    }
}
