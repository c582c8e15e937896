use super::*;
use crate::kernel::alone::{alone, program};
use crate::kernel::generation::Ruleset;
use crate::rule::{Scope, Target, rule_of};
use std::process::Command as Process;

fn label(comment: &str) -> Label {
    Label::from_comment(comment).unwrap()
}

fn doomed<'a>(number: usize, rule: &'a Rule, label: &'a Label) -> Doomed<'a> {
    Doomed { table: "filter", chain: "INPUT", number, rule, label }
}

/// `NLMSG_ERROR` for the request of that number.
fn answer(sequence: u32, code: i32) -> Vec<u8> {
    let header = [36_u32.to_ne_bytes(), [2, 0, 0, 0], sequence.to_ne_bytes(), [0; 4], code.to_ne_bytes()];
    let request = [[20, 0, 0, 0], [8, 10, 1, 0], sequence.to_ne_bytes(), [0; 4]];
    [header.concat(), request.concat()].concat()
}

#[test]
fn a_batch_says_its_generation_and_the_handles_and_asks_for_one_answer() {
    let (rule, label) = (rule_of("/drop/input/any/192.0.2.1"), label("rfw permanent"));
    let all = [doomed(1, &rule, &label), doomed(3, &rule, &label)];
    let batch = deletion(Family::V4, 0x102, all.iter().zip([4, 0x1_0000_0005]), u32::MAX).unwrap();
    let all: Vec<Message<'_>> = messages(&batch).map(Result::unwrap).collect();
    let heads: Vec<_> = all.iter().map(|message| (message.kind, message.flags, message.sequence)).collect();
    assert_eq!(heads, [(16, 1, u32::MAX), (0xa08, 1, 0), (0xa08, 5, 1), (17, 1, 2)]);
    // nfgenmsg of a batch: the subsystem in network byte order.
    assert!(all[0].holds(&[0, 0, 0, 10, 8, 0, 1, 0, 0, 0, 1, 2]) && all[3].holds(&[0, 0, 0, 10]));
    assert!(all[1].holds(&[2, 0, 0, 0, 11, 0, 1, 0]), "of IPv4");
    assert!(all[2].holds(b"filter\0\0\x0a\0\x02\0INPUT\0\0\0\x0c\0\x03\0\0\0\0\x01\0\0\0\x05"));
}

#[test]
fn a_batch_is_done_once_its_last_rule_is_answered_and_nothing_failed() {
    let all = |answers: &[(u32, i32)]| answers.iter().flat_map(|(of, code)| answer(*of, *code)).collect();
    let golden: [(Vec<u8>, &str); 7] = [
        (all(&[(7, 0)]), "Ok(true)"),
        (all(&[(6, 0)]), "Ok(false)"),
        (all(&[(7, 0), (3, -2)]), "Err(Refused(-2))"),
        (all(&[(3, -1), (7, 0)]), "Err(Refused(-1))"),
        (all(&[(1, -85)]), "Err(Changed)"),
        (answer(7, 0)[..30].to_vec(), "Err(Malformed)"),
        (Vec::new(), "Ok(false)"),
    ];
    for (datagram, expected) in golden {
        assert_eq!(format!("{:?}", read_answer(&datagram, 7)), expected, "{datagram:?}");
    }
}

#[test]
fn the_bytes_of_a_network_are_those_that_its_prefix_reaches_into() {
    let golden: [(&str, &[u8]); 5] = [
        ("192.0.2.1", &[192, 0, 2, 1]),
        ("192.0.2.0/24", &[192, 0, 2]),
        ("192.0.2.128/25", &[192, 0, 2, 128]),
        ("10.0.0.0/9", &[10, 0]),
        ("2001:db8:8000::/33", &[0x20, 0x01, 0x0d, 0xb8, 0x80]),
    ];
    for (network, expected) in golden {
        assert_eq!(octets(&network.parse().unwrap()), expected, "{network}");
    }
}

/// Appends a rule as rfw makes it, and gives what it is.
fn put(iptables: &str, network: &str, comment: &str) -> (Rule, Label) {
    let rule = Scope::input(Target::Drop, None).rule(network.parse().unwrap()).unwrap();
    let arguments = ["-A", "INPUT", "-s", network, "-m", "comment", "--comment", comment, "-j", "DROP"];
    let output = Process::new(iptables).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (rule, label(comment))
}

fn left(iptables: &str) -> Vec<String> {
    let all = program(&format!("{iptables} -S INPUT"));
    all.lines().filter(|line| line.starts_with("-A")).map(|line| line[12..].replace('"', "")).collect()
}

#[test]
fn rules_are_deleted_by_their_numbers_at_a_generation_only() {
    alone("kernel::nft_rules::tests::rules_are_deleted_by_their_numbers_at_a_generation_only", || {
        for (family, iptables, paths) in [
            (Family::V4, "iptables-nft", ["192.0.2.1", "192.0.2.0/24", "198.51.100.0/25", "192.0.2.9"]),
            (Family::V6, "ip6tables-nft", ["2001:db8::1", "2001:db8::/33", "2001:db8:1::/49", "2001:db8::9"]),
        ] {
            program(&format!("{iptables} -A INPUT -m comment --comment foreign -j RETURN"));
            let comments =
                ["rfw permanent", "rfw until 2036-11-22T10:05:00Z list a", "rfw permanent list x.y"];
            let paths = paths.into_iter().zip(comments.into_iter().cycle());
            let all: Vec<(Rule, Label)> = paths.map(|(path, comment)| put(iptables, path, comment)).collect();
            let (mut rules, mut ruleset) = (NftRules::default(), Ruleset::default());
            let of = |number: usize| doomed(number, &all[number - 2].0, &all[number - 2].1);
            let generation = ruleset.generation().unwrap();

            // Another rule is at that number, and there is none.
            let other = Doomed { number: 3, ..of(2) };
            let result = rules.delete(family, generation, &[of(4), other]);
            assert!(matches!(result, Err(DeletionError::Another(_, 3))), "{result:?}");
            let result = rules.delete(family, generation, &[Doomed { number: 6, ..of(2) }]);
            assert!(matches!(result, Err(DeletionError::Another(_, 6))), "{result:?}");
            let result = rules.delete(family, generation, &[Doomed { chain: "NONE", ..of(2) }]);
            assert!(matches!(result, Err(DeletionError::Another(_, 2))), "{result:?}");
            assert_eq!((left(iptables).len(), ruleset.generation()), (5, Some(generation)));

            program("nft add table inet other");
            let result = rules.delete(family, generation, &[of(2)]);
            assert!(matches!(result, Err(DeletionError::Changed)), "{result:?}");
            assert_eq!(left(iptables).len(), 5);

            rules.delete(family, generation + 1, &[of(5), of(2), of(3)]).unwrap();
            assert_eq!(ruleset.generation(), Some(generation + 2));
            let left = left(iptables);
            assert!(
                left[0].contains("foreign") && left[1].contains("list x.y") && left.len() == 2,
                "{left:?}"
            );
            program("nft delete table inet other");
        }
    });
}
