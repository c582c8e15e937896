//! Networks that no stranger on the internet can have: the blocks that IANA's special-purpose
//! registries (RFC 6890, as of 2025-10) call not globally reachable. Published block lists have them,
//! and a host that drops its own networks is cut off.

use crate::rule::network::{Family, Network};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The blocks of IPv4, in ascending order, none in another. `192.0.0.0/29` and the like are in wider
/// ones; `192.88.99.0/24` is neither reachable nor not.
const V4: [(Ipv4Addr, u8); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 2), 32),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What is globally reachable within them: the anycast addresses of PCP and TURN.
const V4_REACHABLE: [(Ipv4Addr, u8); 2] =
    [(Ipv4Addr::new(192, 0, 0, 9), 32), (Ipv4Addr::new(192, 0, 0, 10), 32)];

/// The blocks of IPv6. IPv4-mapped addresses are IPv4 here; of 6to4, `2002::/16`, the registry does not
/// say that it is not reachable.
const V6: [(Ipv6Addr, u8); 11] = [
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// What the registry excepts from `2001::/23`: Teredo and ORCHID, of which it says neither, the anycast
/// addresses of PCP, TURN and DNS-SD, AMT, AS112-v6, ORCHIDv2 and DRIP.
const V6_REACHABLE: [(Ipv6Addr, u8); 9] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128),
    (Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0x30, 0, 0, 0, 0, 0, 0), 28),
];

/// The block with addresses of which a network has some, if there is one; the first of several.
/// A network that lies in a part of a block that is reachable has none.
pub(crate) fn block_of(network: &Network) -> Option<Network> {
    match network.family() {
        Family::V4 => overlapping(network, &V4, &V4_REACHABLE),
        Family::V6 => overlapping(network, &V6, &V6_REACHABLE),
    }
}

fn overlapping<A: Copy + Into<IpAddr>>(
    network: &Network,
    blocks: &[(A, u8)],
    reachable: &[(A, u8)],
) -> Option<Network> {
    let block = networks(blocks).find(|block| block.overlaps(network))?;
    let is_reachable = networks(reachable).any(|part| part.covers(network));
    Some(block).filter(|_| !is_reachable)
}

fn networks<A: Copy + Into<IpAddr>>(blocks: &[(A, u8)]) -> impl Iterator<Item = Network> {
    blocks.iter().filter_map(|(first, prefix)| Network::new((*first).into(), *prefix).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;

    #[test]
    fn what_is_not_reachable_is_told_by_its_block() {
        for (at, [network, expected]) in cases("special.txt") {
            let block = block_of(&network.parse().unwrap());
            assert_eq!(block.map_or("-".to_owned(), |block| block.to_string()), expected, "{at}");
        }
    }

    #[test]
    fn every_block_is_one_and_is_in_no_other() {
        for blocks in [networks(&V4).collect::<Vec<_>>(), networks(&V6).collect()] {
            assert!(blocks.is_sorted());
            for block in &blocks {
                assert_eq!(block_of(block).as_ref(), Some(block));
            }
        }
        let reachable = networks(&V4_REACHABLE).chain(networks(&V6_REACHABLE));
        assert_eq!(reachable.filter(|part| block_of(part).is_none()).count(), 11);
        assert_eq!((networks(&V4).count(), networks(&V6).count()), (V4.len(), V6.len()));
    }
}
