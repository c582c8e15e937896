use super::*;
use proptest::prelude::*;

use crate::golden::cases;

fn told<'a>(networks: impl IntoIterator<Item = &'a Network>) -> String {
    networks.into_iter().map(Network::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn entries_are_read() {
    for (at, [text, clients, never, admitted]) in cases("white-list.txt") {
        let list = WhiteList::parse(&text).unwrap_or_else(|e| panic!("{at}: {e}"));
        let merged = [Family::V4, Family::V6].map(|family| list.merged(family)).concat();
        assert_eq!((told(list.networks()), told(list.never())), (clients, never), "{at}");
        assert_eq!(told(&merged), admitted, "{at}");
    }
}

#[test]
fn a_wrong_line_is_named() {
    for (at, [text, line, message]) in cases("white-list-refused.txt") {
        let error = WhiteList::parse(&text).unwrap_err();
        let number = error.line().map_or("-".to_owned(), |line| line.to_string());
        assert_eq!((number, error.to_string()), (line, message), "{at}");
    }
}

#[test]
fn both_kinds_are_counted() {
    let golden = [
        ("1.2.3.4", "1 network"),
        ("1.2.3.4\n::1", "2 networks"),
        ("1.2.3.4\nnever ::1", "1 network of clients and 1 never to be blocked"),
        ("1.2.3.4\n1.2.3.5\nnever ::1-::2", "2 networks of clients and 2 never to be blocked"),
    ];
    for (text, expected) in golden {
        assert_eq!(WhiteList::parse(text).unwrap().to_string(), expected);
    }
}

#[test]
fn conflicts_are_found_on_either_side() {
    let list =
        WhiteList::parse("10.0.0.5\n192.168.0.0/16\n2001:db8::1\nnever 10.0.1.0/24\nnever fd00::1").unwrap();
    let golden = [
        ("/drop/input/any/10.0.1.7", true),
        ("/accept/input/any/10.0.0.0/15", true),
        ("/drop/output/any/fd00::/16", true),
        ("/reject/forward/any/1.2.3.4/any/10.0.1.0", true),
        ("/drop/input/any/fd00::2", false),
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
    assert!(!list.contains("10.0.1.7".parse().unwrap()));
    let touched = |network: &str| list.overlap(&network.parse().unwrap());
    assert_eq!(touched("10.0.1.7"), Some(Listed::Never("10.0.1.0/24".parse().unwrap())));
    assert_eq!(touched("10.0.0.5"), Some(Listed::Client("10.0.0.5".parse().unwrap())));
}

proptest! {
    #[test]
    fn merged_networks_are_the_fewest_of_the_same_addresses(
        listed in proptest::collection::vec((0u8..64, 26u8..=32), 1..40),
        never in proptest::collection::vec((0u8..64, 27u8..=32), 0..8),
    ) {
        let address = |low: u8| IpAddr::from([10, 0, 0, low]);
        let networks = |bits: Vec<(u8, u8)>| -> Vec<Network> {
            bits.into_iter().map(|(low, prefix)| Network::new(address(low), prefix).unwrap()).collect()
        };
        let (listed, never) = (networks(listed), networks(never));
        let list = WhiteList::new(listed.clone(), never.clone());
        let merged = list.merged(Family::V4);
        let mut runs = Vec::new();
        for low in 0..64 {
            let host = Network::host(address(low));
            let is_in = |networks: &[Network]| networks.iter().any(|network| network.covers(&host));
            let within = is_in(&listed) && !is_in(&never);
            prop_assert_eq!(list.contains(address(low)), within);
            prop_assert_eq!(list.overlap(&host).is_some(), is_in(&listed) || is_in(&never));
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
        listed in proptest::collection::vec((0u32..64, 24u8..=32), 1..12),
        never in proptest::collection::vec((0u32..64, 24u8..=32), 0..4),
        wanted in 0u32..64,
        prefix in 24u8..=32,
    ) {
        let network = |(low, prefix): (u32, u8)| {
            Network::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 | low << 2).into(), prefix).unwrap()
        };
        let listed: Vec<Network> = listed.into_iter().map(network).collect();
        let never: Vec<Network> = never.into_iter().map(network).collect();
        let (list, wanted) = (WhiteList::new(listed.clone(), never.clone()), network((wanted, prefix)));
        let is_found = |networks: &[Network], found| wanted.overlaps(&found) && networks.contains(&found);
        let has_some = |networks: &[Network]| networks.iter().any(|one| one.overlaps(&wanted));
        let is_right = match list.overlap(&wanted) {
            Some(Listed::Never(found)) => is_found(&never, found),
            Some(Listed::Client(found)) => is_found(&listed, found) && !has_some(&never),
            None => !has_some(&listed) && !has_some(&never),
        };
        prop_assert!(is_right, "{:?}", list.overlap(&wanted));
    }

    #[test]
    fn no_text_panics(text in "\\PC*", tail in "(never )?[0-9a-f.:/#\n -]*") {
        let _ = WhiteList::parse(&text);
        let _ = WhiteList::parse(&tail);
    }
}
