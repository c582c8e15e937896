use super::*;
use crate::rule::rule_of;

#[test]
fn a_set_has_a_name_that_tells_its_place() {
    let golden = [
        ("/drop/input/any/1.2.3.4", "rfw4-ids"),
        ("/accept/input/eth/1.2.3.0/24", "rfw4-ias-eth+"),
        ("/reject/output/eth0/2001:db8::/48", "rfw6-ord-eth0"),
        ("/drop/forward/any/0.0.0.0/eth1/5.6.7.8", "rfw4-fdd-,eth1"),
        ("/drop/forward/ppp/1.2.3.4/eth0/5.6.7.0/24", "rfw4-fdb-ppp+,eth0"),
        ("/drop/forward/abcdefghijk1/1.2.3.4/abcdefghi/5.6.7.8", "rfw4-fdb-1e6e6e91b418b4c2"),
        ("/drop/input/any/1.2.3.4 tor", "rfw4-ids/tor"),
        ("/drop/input/any/1.2.3.4 -", "rfw4-ids/-"),
        ("/drop/input/eth0/1.2.3.4 fail2ban.sshd", "rfw4-ids-eth0/fail2ban.sshd"),
        ("/drop/input/abcdefghijkl/1.2.3.4 fail2ban.sshd", "rfw4-ids-1c9ba01921dfefac"),
    ];
    for (path, name) in golden {
        let (path, list) = path.split_once(' ').map_or((path, None), |(path, list)| (path, Some(list)));
        let union = SetKey::of(&rule_of(path));
        let set = list.map_or(union.clone(), |list| union.with_list(ListName::from_word(list).unwrap()));
        assert_eq!(set.union(), union);
        assert_eq!(set.name(), name, "{path}");
        assert_eq!(SetKey::named(name), Some(set.clone()).filter(|_| !is_hashed_name(name)), "{path}");
        assert_eq!(SetKey::described(&set.description()), Some(set), "{path}");
    }
}

#[test]
fn names_that_rfw_gives_to_no_set_are_not_its_own() {
    let others = [
        "rfw4-mine",
        "rfw6-x",
        "rfw4",
        "rfw5-ids",
        "rfw4-idd",
        "rfw4-ods",
        "rfw4-idb",
        "rfw4-ids-",
        "rfw4-ids-eth",
        "rfw4-ids-eth0,eth1",
        "rfw4-ids-any",
        "rfw4-fds-eth0,",
        "rfw4-ids0",
        "rfw-work-1",
        "rfw4-ids-0123456789abcdef",
        "rfw4-ids/",
        "rfw4-ids/Tor",
        "rfw4-ids/a/b",
        "rfw4-ids-/tor",
    ];
    for name in others {
        assert_eq!(SetKey::named(name), None, "{name}");
    }
    assert!(!is_hashed_name("rfw4-mine-0123456789abcdef") && !is_hashed_name("rfw4-ids-eth0"));
}

#[test]
fn a_description_tells_what_a_set_is_for() {
    let golden = [
        ("/drop/input/any/1.2.3.4", "inet drop input any any src"),
        ("/reject/output/eth/2001:db8::/48", "inet6 reject output any eth+ dst"),
        ("/accept/forward/ppp/1.2.3.4/eth0/5.6.7.0/24", "inet accept forward ppp+ eth0 src,dst"),
    ];
    for (path, description) in golden {
        assert_eq!(SetKey::of(&rule_of(path)).description(), description, "{path}");
    }
    for text in [
        "",
        "inet",
        "inet drop input any any src ",
        "inet DROP input any any src",
        "inet drop input any eth0 src",
        "inet drop input any any dst",
        "inet drop input any any src tor",
        "inet drop input any any src list",
        "inet drop input any any src list Tor",
        "inet drop input any any src list tor ",
    ] {
        assert_eq!(SetKey::described(text), None, "{text}");
    }
}

#[test]
fn names_fit_and_differ() {
    let interfaces = ["a", "abcdefghijklmno", "abcdefghijklmn1", "eth0", "eth"];
    let mut names = std::collections::HashSet::new();
    for input in interfaces {
        for output in interfaces {
            for target in [Target::Accept, Target::Drop] {
                let scope = Scope::forward(target, input.parse().ok(), output.parse().ok());
                for side in [Side::Source, Side::Destination, Side::Both] {
                    let name = SetKey::new(Family::V6, scope.clone(), side).name();
                    assert!(name.len() <= NAME_MAX && names.insert(name.clone()), "{name}");
                }
            }
        }
    }
}

#[test]
fn a_set_of_work_has_the_number_of_a_process() {
    for (name, expected) in [
        ("rfw-work-1", true),
        ("rfw-work-1-1", true),
        ("rfw-work-1-0", false),
        ("rfw-work-1-01", false),
        ("rfw-work-01", false),
        ("rfw-work-foo", false),
        ("rfw-work-", false),
    ] {
        assert_eq!(is_work_name(name), expected, "{name}");
    }
}
