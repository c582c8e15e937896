//! What concerns more than one list, over rules as they are read.

use super::*;
use crate::firewall::rule_cache::CacheReader;
use crate::kernel::Counters;
use crate::kernel::iptables::{Line, Owner};
use crate::rule::layout::TableName;
use crate::rule::rule_of;
use std::time::{Duration, UNIX_EPOCH};

const EARLY: &str = "rfw until 2026-11-22T10:05:00Z";

/// A cache of rules, each a path and a comment.
fn cache(rules: &[(&str, &str)]) -> RuleCache {
    let mut reader = CacheReader::default();
    for (path, comment) in rules {
        let (rule, label) = (rule_of(path), Label::from_comment(comment).unwrap());
        let chain = rule.scope().chain().name().to_owned();
        let owner = Owner::Rfw(rule, label);
        reader.line(TableName::Filter, Line { chain, counters: Counters::default(), owner, target: None });
    }
    reader.end()
}

fn texts(mut held: Vec<Held>) -> Vec<String> {
    held.sort_by(|a, b| (a.list, &a.rule).cmp(&(b.list, &b.rule)));
    held.iter().map(|held| format!("{} {} {}", held.list.word(), held.rule, held.lease)).collect()
}

fn early() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}

#[test]
fn an_address_counts_once_for_each_list_with_its_latest_end() {
    const PATH: &str = "/drop/input/any/1.2.3.4";
    let permanent = format!("{EARLY} list tor");
    let cache = cache(&[
        (PATH, "rfw permanent list tor by me: why"),
        (PATH, &permanent),
        (PATH, EARLY),
        ("/drop/input/any/2001:db8::1", "rfw permanent list tor"),
    ]);
    let held = held(cache.labelled());
    assert_eq!(
        texts(held.clone()),
        [
            format!("- INPUT -s 1.2.3.4 -j DROP {EARLY}"),
            "tor INPUT -s 1.2.3.4 -j DROP rfw permanent".to_owned(),
            "tor INPUT -s 2001:db8::1 -j DROP rfw permanent".to_owned(),
        ]
    );
    let mut summaries = Summaries::new();
    for Held { rule, lease, list } in &held {
        count(&mut summaries, *list, rule.scope(), rule.family(), (1, *lease));
    }
    let counts: Vec<_> = summaries.values().map(|s| (s.list.word(), s.v4, s.v6, s.expires.end())).collect();
    let end = Label::from_comment(EARLY).unwrap().lease;
    assert_eq!(counts, [("-", 1, 0, end.end()), ("tor", 1, 1, None)]);
}

#[test]
fn what_holds_an_address_all_the_same_is_found() {
    let cache = cache(&[
        ("/drop/input/any/1.2.3.4", "rfw permanent list tor"),
        ("/reject/input/eth0/1.2.3.0/24", "rfw permanent"),
        ("/drop/output/any/1.2.0.0/16", EARLY),
        ("/drop/forward/any/1.2.3.4/any/9.9.9.9", "rfw permanent"),
        ("/drop/forward/any/1.2.3.5/any/9.9.9.9", "rfw permanent"),
        ("/accept/input/any/1.2.3.4", "rfw permanent"),
        ("/drop/input/any/1.2.3.4", "rfw until 1970-01-01T00:00:01Z list over"),
    ]);
    let golden: [(&str, &[&str]); 5] = [
        (
            "/drop/input/any/1.2.3.4",
            &[
                "- INPUT -s 1.2.3.0/24 -i eth0 -j REJECT rfw permanent",
                "- FORWARD -s 1.2.3.4 -d 9.9.9.9 -j DROP rfw permanent",
                "- OUTPUT -d 1.2.0.0/16 -j DROP rfw until 2026-11-22T10:05:00Z",
                "tor INPUT -s 1.2.3.4 -j DROP rfw permanent",
            ],
        ),
        ("/accept/output/any/1.2.3.4", &["- INPUT -s 1.2.3.4 -j ACCEPT rfw permanent"]),
        ("/drop/input/any/1.2.0.0/17", &["- OUTPUT -d 1.2.0.0/16 -j DROP rfw until 2026-11-22T10:05:00Z"]),
        ("/drop/input/any/1.3.0.0", &[]),
        // A pair is held by what holds both, each on its side.
        (
            "/drop/forward/any/1.2.3.4/any/9.9.9.9",
            &[
                "- INPUT -s 1.2.3.0/24 -i eth0 -j REJECT rfw permanent",
                "- FORWARD -s 1.2.3.4 -d 9.9.9.9 -j DROP rfw permanent",
                "tor INPUT -s 1.2.3.4 -j DROP rfw permanent",
            ],
        ),
    ];
    for (path, expected) in golden {
        let mut found = texts(around(&cache, &rule_of(path), early()));
        let mut expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn an_accept_overrides_a_block_all_of_which_it_takes_in() {
    let golden = [
        ("/accept/input/any/1.2.3.0/24", "/drop/input/any/1.2.3.4", true),
        ("/accept/input/any/1.2.3.0/24", "/drop/input/eth0/1.2.3.4", true),
        ("/accept/input/eth/1.2.3.4", "/reject/input/eth0/1.2.3.4", true),
        ("/accept/input/eth/1.2.3.4", "/reject/input/etho/1.2.3.4", true),
        ("/accept/input/eth0/1.2.3.4", "/reject/input/eth/1.2.3.4", false),
        ("/accept/input/eth0/1.2.3.4", "/drop/input/any/1.2.3.4", false),
        ("/accept/input/any/1.2.3.4", "/drop/input/any/1.2.3.0/24", false),
        ("/accept/output/any/1.2.3.4", "/drop/input/any/1.2.3.4", false),
        ("/accept/forward/any/1.2.3.4", "/drop/forward/any/1.2.3.4/any/9.9.9.9", true),
        ("/accept/forward/any/0.0.0.0/any/9.9.9.0/24", "/drop/forward/any/1.2.3.4/any/9.9.9.9", true),
        ("/accept/forward/any/1.2.3.4/any/9.9.9.9", "/drop/forward/any/1.2.3.4", false),
        ("/accept/forward/any/1.2.3.4/eth0", "/drop/forward/any/1.2.3.4/eth1", false),
    ];
    for (accept, block, expected) in golden {
        let found = accepting(&cache(&[(accept, "rfw permanent list office")]), &rule_of(block), early());
        assert_eq!(!found.is_empty(), expected, "{accept} {block}");
    }
    let over = cache(&[("/accept/input/any/1.2.3.4", "rfw until 1970-01-01T00:00:01Z")]);
    assert_eq!(accepting(&over, &rule_of("/drop/input/any/1.2.3.4"), early()), []);
}

#[test]
fn what_is_known_of_updates_has_a_bound() {
    let scope = |number: usize| {
        let interface = format!("eth{number}").parse().unwrap();
        Scope::input(Target::Drop, Some(interface))
    };
    let moment =
        |number: usize| Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(u64::try_from(number).unwrap()));
    let list: ListName = "tor".parse().unwrap();
    let all = || -> Updates {
        (0..UPDATES_MAX).map(|n| ((list, scope(n)), (moment(n), "me".to_owned()))).collect()
    };
    let mut updates = all();
    forget_updates(&mut updates, &HashSet::from([(list, scope(7))]));
    assert_eq!(updates.keys().collect::<Vec<_>>(), [&(list, scope(7))]);
    let mut updates = all();
    let there = updates.keys().cloned().collect();
    forget_updates(&mut updates, &there);
    assert!(updates.len() < UPDATES_MAX / 2 && updates.len() > UPDATES_MAX / 2 - 10);
    assert!(updates.contains_key(&(list, scope(UPDATES_MAX - 1))));
    assert_eq!(Lease::Permanent.max(Lease::Until(moment(1))), Lease::Permanent);
}
