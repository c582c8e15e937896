use super::*;
use crate::rule::rule_of;
use proptest::prelude::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn until(seconds: u64) -> Lease {
    Lease::Until(Moment::at_or_after(at(seconds)))
}

fn net(text: &str) -> Element<'static> {
    Element::Net(text.parse().unwrap())
}

fn key() -> SetKey {
    SetKey::of(&rule_of("/drop/input/any/1.2.3.4"))
}

#[test]
fn an_entry_is_there_until_it_ends_and_unsure_about_then() {
    let mut mirror = Mirror::of_new(&key());
    mirror.put(&net("1.2.3.4"), until(1_000), at(1));
    mirror.put(&net("1.2.3.0/24"), Lease::Permanent, at(1));
    let golden = [
        (997, Known::There(until(1_000))),
        (998, Known::Ending),
        (1_001, Known::Ending),
        (1_002, Known::Absent),
    ];
    for (now, known) in golden {
        assert_eq!(mirror.get(&net("1.2.3.4"), at(now)), known, "{now}");
        assert_eq!(mirror.get(&net("1.2.3.0/24"), at(now)), Known::There(Lease::Permanent));
        assert_eq!(mirror.get(&net("1.2.3.0/25"), at(now)), Known::Absent);
    }
    mirror.remove(&net("1.2.3.0/24"));
    assert_eq!(mirror.get(&net("1.2.3.0/24"), at(1)), Known::Absent);
}

#[test]
fn what_changes_wins_over_a_listing_that_began_before() {
    let mut mirror = Mirror::to_fill(&key());
    mirror.put(&net("1.0.0.1"), until(50), at(1));
    mirror.put(&net("1.0.0.2"), until(50), at(1));
    mirror.remove(&net("1.0.0.2"));
    mirror.remove(&net("1.0.0.3"));
    for host in ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"] {
        mirror.read(&net(host), until(99));
    }
    assert!(!mirror.is_complete());
    mirror.complete();
    assert!(mirror.is_complete());
    let golden = [
        ("1.0.0.1", Known::There(until(50))),
        ("1.0.0.2", Known::Absent),
        ("1.0.0.3", Known::Absent),
        ("1.0.0.4", Known::There(until(99))),
    ];
    for (host, known) in golden {
        assert_eq!(mirror.get(&net(host), at(1)), known, "{host}");
    }
    mirror.read(&net("1.0.0.2"), until(99));
    assert_eq!(mirror.get(&net("1.0.0.2"), at(1)), Known::Absent, "it is complete");
}

#[test]
fn the_number_of_entries_in_the_kernel_tells_whether_others_were_there() {
    let mut mirror = Mirror::of_new(&key());
    for (host, end) in [("1.0.0.1", until(100)), ("1.0.0.2", until(100)), ("1.0.0.3", until(200))] {
        mirror.put(&net(host), end, at(1));
    }
    for (now, sizes) in [(50, 3..=3), (99, 1..=3), (101, 1..=3), (102, 1..=1), (202, 0..=0)] {
        for size in 0..5 {
            assert_eq!(mirror.admits_size(size, at(now)), sizes.contains(&size), "{size} at {now}");
        }
    }
}

#[test]
fn entries_that_have_ended_are_forgotten() {
    let mut mirror = Mirror::of_new(&key());
    for host in 0..100_000_u32 {
        let element = Element::Net(Network::host(Ipv4Addr::from_bits(host + 1).into()));
        let now = u64::from(host / 100);
        mirror.put(&element, until(now + 10), at(now));
    }
    assert!((1_000..4_000).contains(&mirror.len()), "{}", mirror.len());
}

#[test]
fn a_network_is_itself_again_in_each_kind_of_table() {
    let pair = rule_of("/drop/forward/any/1.2.3.0/24/any/5.6.7.8");
    let (source, destination) = (*pair.source().unwrap(), *pair.destination().unwrap());
    let v6 = SetKey::of(&rule_of("/drop/input/any/2001:db8::1"));
    let golden = [
        (key(), net("1.2.0.0/16")),
        (v6, net("2001:db8::/32")),
        (SetKey::of(&pair), Element::NetNet(source, destination)),
    ];
    for (set, element) in golden {
        let mut mirror = Mirror::of_new(&set);
        mirror.put(&element, until(7), at(1));
        let mut seen = Vec::new();
        mirror.each(at(0), |element, lease| seen.push((element, lease)));
        assert_eq!(seen, [(element, until(7))]);
    }
    let mut mirror = Mirror::of_new(&key());
    mirror.put(&net("::1"), until(7), at(1));
    assert_eq!(mirror.len(), 0, "an address of another family has no place there");
}

proptest! {
    /// A listing shows an entry that is there from its begin to its end, and may show or miss
    /// one that changes meanwhile, in its old or its new state.
    #[test]
    fn a_mirror_that_is_filled_while_changes_go_on_is_the_set(
        before in proptest::collection::btree_map(0u32..20, 1u64..99, 0..20),
        steps in proptest::collection::vec((0u32..20, proptest::option::of(1u64..99), any::<bool>()), 0..60),
    ) {
        let element = |host: u32| Element::Net(Network::host(Ipv4Addr::from_bits(host + 1).into()));
        let mut kernel = before;
        let mut mirror = Mirror::to_fill(&key());
        let mut unread: Vec<u32> = (0..20).collect();
        for (host, change, read) in steps {
            if read && let Some(next) = unread.pop() {
                kernel.get(&next).into_iter().for_each(|end| mirror.read(&element(next), until(*end)));
            }
            match change {
                Some(end) => {
                    kernel.insert(host, end);
                    mirror.put(&element(host), until(end), at(0));
                }
                None => {
                    kernel.remove(&host);
                    mirror.remove(&element(host));
                }
            }
        }
        for next in unread {
            kernel.get(&next).into_iter().for_each(|end| mirror.read(&element(next), until(*end)));
        }
        mirror.complete();
        let mut seen = std::collections::BTreeMap::new();
        mirror.each(at(0), |element, lease| seen.extend([(format!("{element:?}"), lease)]));
        let expected = kernel.iter().map(|(host, end)| (format!("{:?}", element(*host)), until(*end)));
        prop_assert_eq!(seen, expected.collect());
    }
}

proptest! {
    /// The count that is kept is that of a look at each.
    #[test]
    fn those_that_have_not_ended_are_counted(
        steps in proptest::collection::vec((0..4_u8, 0..12_u8, 0..30_u64, 0..5_u64), 1..200)
    ) {
        let (mut mirror, mut now) = (Mirror::of_new(&key()), 1_000);
        for (step, host, left, passed) in steps {
            let element = net(&format!("1.2.3.{host}"));
            match step {
                0 => mirror.remove(&element),
                // The clock may be set back.
                1 => now = if passed == 4 { now - 3 } else { now + passed },
                _ if left == 0 => mirror.put(&element, Lease::Permanent, at(now)),
                _ => mirror.put(&element, until(now + left - 3), at(now)),
            }
            let mut alive = 0;
            mirror.each_known(|_, lease| alive += usize::from(!lease.is_due(at(now))));
            prop_assert_eq!(mirror.unended(at(now)), alive);
        }
    }
}
