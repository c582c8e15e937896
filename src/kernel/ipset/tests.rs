//! Sets of the real kernel, compared with what ipset(8) says of them. Each test runs
//! itself once more in a network namespace of its own.

use super::*;
use crate::kernel::Counters;
use crate::kernel::alone::{self, OUTSIDE, namespace};
use crate::kernel::timeout::Timeout;
use crate::rule::network::{Family, Network};
use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command as Process;
use std::thread;
use std::time::Duration;

mod batches;

/// Runs `body` in a network namespace of its own.
fn alone(test: &str, body: impl FnOnce(&mut Ipset)) {
    alone::alone(&format!("kernel::ipset::tests::{test}"), || body(&mut Ipset::open(soon()).unwrap()));
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// What ipset(8) prints.
fn program(arguments: &str) -> String {
    alone::program(&format!("ipset {arguments}"))
}

/// The lines of `ipset save` for the entries, in order.
fn saved(name: &str) -> Vec<String> {
    let text = program(&format!("save {name}"));
    let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with("add ")).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn name(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn net(text: &str) -> Element<'_> {
    Element::Net(text.parse().unwrap())
}

fn definition(set_type: SetType, maxelem: u32, comments: bool) -> Definition {
    Definition { set_type, maxelem, comments, expected: 0 }
}

/// A set of IPv4 networks by the name `x`.
fn make(ipset: &mut Ipset, text: &str, maxelem: u32) -> SetName {
    let name = name(text);
    ipset.create(&name, &definition(SetType::Net(Family::V4), maxelem, false), soon()).unwrap();
    name
}

/// That many addresses, each another.
fn addresses(count: u32) -> impl Iterator<Item = Element<'static>> {
    (0..count).map(|i| Element::Net(Network::host(Ipv4Addr::from_bits(0x0a00_0000 + i).into())))
}

fn entries(count: u32) -> impl Iterator<Item = NewEntry<'static>> {
    addresses(count).map(|element| NewEntry { timeout: Timeout::new(600), ..NewEntry::new(element) })
}

fn size(ipset: &mut Ipset, name: &SetName) -> u32 {
    ipset.info(name, soon()).unwrap().elements
}

/// Reads a set to its end.
fn listed(ipset: &Ipset, name: &SetName, mut look: impl FnMut(&Entry<'_>)) -> Result<usize, IpsetError> {
    let mut dump = ipset.dumper().dump(Socket::open()?, name)?;
    let mut count = 0;
    while let Some(piece) = dump.next_piece(soon())? {
        for entry in piece {
            look(&entry?);
            count += 1;
        }
    }
    Ok(count)
}

/// Tries for a second, in which the kernel lets go of a set.
fn until_let_go(mut work: impl FnMut() -> Result<(), IpsetError>) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Err(error) = work() {
        assert!(matches!(error, IpsetError::Busy) && Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_set_is_what_the_program_says_it_is() {
    alone("a_set_is_what_the_program_says_it_is", |ipset| {
        let golden = [
            ("four", SetType::Net(Family::V4), false, "hash:net family inet", ""),
            ("six", SetType::Net(Family::V6), true, "hash:net family inet6", " comment"),
        ];
        for (text, set_type, comments, words, comment) in golden {
            ipset.create(&name(text), &definition(set_type, 5_000, comments), soon()).unwrap();
            let expected =
                format!("create {text} {words} hashsize 1024 maxelem 5000 timeout 0 counters{comment}");
            assert_eq!(program(&format!("save {text}")).trim(), expected);
            let info = ipset.info(&name(text), soon()).unwrap();
            let header = Header { name: text.to_owned(), set_type: Some(set_type), revision: 4 };
            assert_eq!(ipset.header(&name(text), soon()).unwrap(), header);
            let memory = info.memory;
            let rest = SetInfo { maxelem: 5_000, timeout: Some(0), counters: true, ..SetInfo::default() };
            assert_eq!(info, SetInfo { header, memory, comments, ..rest });
            assert!(memory > 0);
        }
        ipset.create(&name("list"), &definition(SetType::List, 64, true), soon()).unwrap();
        assert_eq!(program("save list").trim(), "create list list:set size 64 comment");
        program("create foreign hash:ip family inet timeout 9 skbinfo forceadd netmask 24");
        let infos = ipset.infos(soon()).unwrap();
        let seen: Vec<_> =
            infos.iter().map(|info| (info.header.name.as_str(), info.maxelem, info.other)).collect();
        assert_eq!(
            seen,
            [("four", 5_000, false), ("six", 5_000, false), ("foreign", 65_536, true), ("list", 64, false)]
        );
        assert_eq!((infos[2].header.set_type, infos[2].timeout), (None, Some(9)));
        assert_eq!(ipset.names(soon()).unwrap(), ["four", "six", "foreign", "list"]);
        let again = ipset.create(&name("four"), &definition(SetType::Net(Family::V4), 1, false), soon());
        assert!(matches!(again, Err(IpsetError::SetExists)), "{again:?}");
        for text in ["four", "six", "foreign", "list"] {
            ipset.destroy(&name(text), soon()).unwrap();
        }
        assert_eq!(program("list -n"), "");
        assert!(ipset.names(soon()).unwrap().is_empty());
        assert!(matches!(ipset.destroy(&name("four"), soon()), Err(IpsetError::NoSet)));
        assert!(matches!(ipset.header(&name("four"), soon()), Err(IpsetError::NoSet)));
        assert!(matches!(ipset.info(&name("four"), soon()), Err(IpsetError::NoSet)));
        assert!(matches!(ipset.flush(&name("four"), soon()), Err(IpsetError::NoSet)));
    });
}

#[test]
fn entries_are_added_tested_and_deleted() {
    alone("entries_are_added_tested_and_deleted", |ipset| {
        for (text, family, host, network, inside, outside) in [
            ("four", Family::V4, "1.2.3.4", "10.0.0.0/8", "10.1.2.3", "11.0.0.1"),
            ("six", Family::V6, "2001:db8::1", "2001:db8:1::/48", "2001:db8:1::5", "2001:db8:2::"),
        ] {
            let set = name(text);
            ipset.create(&set, &definition(SetType::Net(family), 100, true), soon()).unwrap();
            let host_entry = NewEntry {
                element: net(host),
                timeout: Timeout::new(0),
                counters: Some(Counters { packets: 3, bytes: 400 }),
                comment: Comment::new("a comment"),
            };
            ipset.add(&set, &host_entry, Existing::Refuse, soon()).unwrap();
            ipset.add(&set, &NewEntry::new(net(network)), Existing::Refuse, soon()).unwrap();
            let mut expected = [
                format!("add {text} {host} timeout 0 packets 3 bytes 400 comment \"a comment\""),
                format!("add {text} {network} timeout 0 packets 0 bytes 0"),
            ];
            expected.sort();
            assert_eq!(saved(text), expected);
            for (element, there) in [(host, true), (network, true), (inside, true), (outside, false)] {
                assert_eq!(ipset.test(&set, net(element), soon()).unwrap(), there, "{element}");
            }
            let mut seen = Vec::new();
            let count = listed(ipset, &set, |entry| {
                assert!(!entry.other);
                let Element::Net(network) = entry.element else { panic!("{entry:?}") };
                let comment = entry.comment.as_deref().unwrap_or("").to_owned();
                seen.push((
                    network.to_string(),
                    entry.timeout.unwrap().seconds(),
                    entry.counters.unwrap().packets,
                    comment,
                ));
            });
            seen.sort();
            assert_eq!(count.unwrap(), 2);
            let mut both =
                [(host.to_owned(), 0, 3, "a comment".to_owned()), (network.to_owned(), 0, 0, String::new())];
            both.sort();
            assert_eq!(seen, both);
            // What is there is renewed, or refused.
            let again = ipset.add(&set, &host_entry, Existing::Refuse, soon());
            assert!(matches!(again, Err(IpsetError::Exists)), "{again:?}");
            let renewed = NewEntry { timeout: Timeout::new(1_000), ..NewEntry::new(net(host)) };
            ipset.add(&set, &renewed, Existing::Accept, soon()).unwrap();
            let line = saved(text).into_iter().find(|line| line.contains(host)).unwrap();
            let left = line.split(' ').nth(4).and_then(|word| word.parse::<u32>().ok());
            assert!(left.is_some_and(|left| (990..=1_000).contains(&left)), "{line}");
            assert!(line.ends_with(" packets 3 bytes 400"), "{line}");
            ipset.del(&set, net(host), Existing::Refuse, soon()).unwrap();
            let again = ipset.del(&set, net(host), Existing::Refuse, soon());
            assert!(matches!(again, Err(IpsetError::Missing)), "{again:?}");
            ipset.del(&set, net(host), Existing::Accept, soon()).unwrap();
            ipset.flush(&set, soon()).unwrap();
            assert_eq!(size(ipset, &set), 0);
        }
    });
}

#[test]
fn what_a_set_cannot_hold_is_told() {
    alone("what_a_set_cannot_hold_is_told", |ipset| {
        let set = make(ipset, "x", 2);
        let golden = [
            (NewEntry::new(net("2001:db8::1")), "the set can't hold such an element"),
            (NewEntry::new(net("0.0.0.0/0")), "the set can't hold such an element"),
            (NewEntry::new(Element::Set("x")), "the set can't hold such an element"),
            (
                NewEntry { comment: Comment::new("c"), ..NewEntry::new(net("1.2.3.4")) },
                "the set has no timeouts, counters or comments",
            ),
        ];
        for (entry, words) in golden {
            let error = ipset.add(&set, &entry, Existing::Accept, soon()).unwrap_err();
            assert_eq!(error.to_string(), words, "{entry:?}");
        }
        for element in ["1.1.1.1", "1.1.1.2"] {
            ipset.add(&set, &NewEntry::new(net(element)), Existing::Refuse, soon()).unwrap();
        }
        let full = ipset.add(&set, &NewEntry::new(net("1.1.1.3")), Existing::Accept, soon());
        assert!(matches!(full, Err(IpsetError::Full)), "{full:?}");
        let nowhere = ipset.add(&name("y"), &NewEntry::new(net("1.1.1.3")), Existing::Accept, soon());
        assert!(matches!(nowhere, Err(IpsetError::NoSet)), "{nowhere:?}");
        // Not every kernel has sets of pairs.
        let pairs = ipset.create(&name("p"), &definition(SetType::NetNet(Family::V4), 9, false), soon());
        let tried = Process::new("ipset").args(["create", "q", "hash:net,net"]).output().unwrap();
        match pairs {
            Ok(()) => {
                let pair = Element::NetNet("1.2.3.4".parse().unwrap(), "10.0.0.0/8".parse().unwrap());
                ipset.add(&name("p"), &NewEntry::new(pair), Existing::Refuse, soon()).unwrap();
                assert_eq!(saved("p"), ["add p 1.2.3.4,10.0.0.0/8 timeout 0 packets 0 bytes 0"]);
                listed(ipset, &name("p"), |entry| assert_eq!(entry.element, pair)).unwrap();
            }
            Err(error) => {
                assert!(matches!(error, IpsetError::NoType), "{error}");
                assert!(!tried.status.success());
            }
        }
    });
}

#[test]
fn a_list_of_sets_keeps_its_members() {
    alone("a_list_of_sets_keeps_its_members", |ipset| {
        let (list, set, other) = (name("list"), make(ipset, "one", 9), make(ipset, "two", 9));
        ipset.create(&list, &definition(SetType::List, 4, true), soon()).unwrap();
        let entry = NewEntry { comment: Comment::new("first"), ..NewEntry::new(Element::Set("one")) };
        ipset.add(&list, &entry, Existing::Refuse, soon()).unwrap();
        ipset.add(&list, &NewEntry::new(Element::from(&other)), Existing::Refuse, soon()).unwrap();
        assert_eq!(saved("list"), ["add list one comment \"first\"", "add list two"]);
        let mut members = Vec::new();
        listed(ipset, &list, |entry| {
            let Element::Set(name) = entry.element else { panic!("{entry:?}") };
            members.push((name.to_owned(), entry.comment.as_deref().map(str::to_owned)));
        })
        .unwrap();
        assert_eq!(members, [("one".to_owned(), Some("first".to_owned())), ("two".to_owned(), None)]);
        assert!(ipset.test(&list, Element::Set("one"), soon()).unwrap());
        assert_eq!(ipset.info(&set, soon()).unwrap().references, 1);
        assert!(matches!(ipset.destroy(&set, soon()), Err(IpsetError::Busy)));
        let golden = [
            ("none", "the set that is to become a member does not exist"),
            ("one", "the entry is in the set"),
            ("list", "the set can't hold such an element"),
        ];
        for (member, words) in golden {
            let error = ipset.add(&list, &NewEntry::new(Element::Set(member)), Existing::Refuse, soon());
            assert_eq!(error.unwrap_err().to_string(), words, "{member}");
        }
        // The kernel tells the size of a list, and does not keep to it.
        for text in ["three", "four", "five"] {
            make(ipset, text, 9);
            ipset.add(&list, &NewEntry::new(Element::Set(text)), Existing::Refuse, soon()).unwrap();
            ipset.del(&list, Element::Set(text), Existing::Refuse, soon()).unwrap();
        }
        // A swap keeps the membership of the name.
        let missing = ipset.del(&list, Element::Set("five"), Existing::Refuse, soon());
        assert!(matches!(missing, Err(IpsetError::Missing)), "{missing:?}");
        ipset.swap(&set, &name("five"), soon()).unwrap();
        ipset.destroy(&name("five"), soon()).unwrap();
        ipset.del(&list, Element::Set("two"), Existing::Refuse, soon()).unwrap();
        ipset.destroy(&other, soon()).unwrap();
        assert!(saved("list").contains(&"add list one comment \"first\"".to_owned()));
    });
}

#[test]
fn sets_are_swapped_unless_they_are_being_listed() {
    alone("sets_are_swapped_unless_they_are_being_listed", |ipset| {
        let (big, small) = (make(ipset, "big", 200_000), make(ipset, "small", 9));
        let mut batch = ipset.batch();
        batch.add_many(&big, entries(100_000));
        ipset.transact(batch, soon()).unwrap().into_result().unwrap();
        let mut dump = ipset.dumper().dump(Socket::open().unwrap(), &big).unwrap();
        assert!(dump.next_piece(soon()).unwrap().unwrap().count() > 10);
        assert!(matches!(ipset.swap(&big, &small, soon()), Err(IpsetError::Busy)));
        assert!(matches!(ipset.destroy(&big, soon()), Err(IpsetError::Busy)));
        ipset.add(&big, &NewEntry::new(net("1.2.3.4")), Existing::Refuse, soon()).unwrap();
        drop(dump);
        until_let_go(|| ipset.swap(&big, &small, soon()));
        assert_eq!((size(ipset, &big), size(ipset, &small)), (0, 100_001));
        assert!(matches!(ipset.swap(&big, &name("none"), soon()), Err(IpsetError::NoSet)));
        let six = name("six");
        ipset.create(&six, &definition(SetType::Net(Family::V6), 9, false), soon()).unwrap();
        assert!(matches!(ipset.swap(&big, &six, soon()), Err(IpsetError::TypeMismatch)));
        assert!(matches!(listed(ipset, &name("none"), |_| ()), Err(IpsetError::NoSet)));
        // A listing that is read to its end lets go at once.
        let mut dump = ipset.dumper().dump(Socket::open().unwrap(), &small).unwrap();
        while dump.next_piece(soon()).unwrap().is_some() {}
        ipset.destroy(&small, soon()).unwrap();
    });
}

#[test]
fn large_sets_are_listed_whole() {
    alone("large_sets_are_listed_whole", |ipset| {
        let set = make(ipset, "x", 300_000);
        let mut batch = ipset.batch();
        batch.add_many(&set, entries(300_000));
        ipset.transact(batch, soon()).unwrap().into_result().unwrap();
        let mut bits = Vec::new();
        listed(ipset, &set, |entry| {
            let Element::Net(network) = entry.element else { panic!("{entry:?}") };
            bits.push(network.addr());
            assert!((590..=600).contains(&entry.timeout.unwrap().seconds()));
        })
        .unwrap();
        bits.sort();
        bits.dedup();
        assert_eq!(bits.len(), 300_000);
        let six = name("six");
        ipset.create(&six, &definition(SetType::Net(Family::V6), 9_000, true), soon()).unwrap();
        let comment = "c".repeat(255);
        let entries = (0..9_000).map(|i| NewEntry {
            comment: Comment::new(&comment),
            ..NewEntry::new(Element::Net(Network::host(Ipv6Addr::from_bits(1 << 120 | i).into())))
        });
        let mut batch = ipset.batch();
        batch.add_many(&six, entries);
        ipset.transact(batch, soon()).unwrap().into_result().unwrap();
        let count = listed(ipset, &six, |entry| assert_eq!(entry.comment.as_deref(), Some(comment.as_str())));
        assert_eq!(count.unwrap(), 9_000);
    });
}
