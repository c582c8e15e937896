use super::*;
use crate::firewall::rule_cache::CacheReader;
use crate::kernel::iptables::Change;
use crate::rule::lease::Lease;
use crate::rule::rule_of;

fn labelled(path: &str) -> (Rule, Label) {
    (rule_of(path), Label::new(Lease::Permanent, ListName::UNNAMED))
}

/// What is inserted, in this order, as paths of the URL or names of sets.
fn inserted(transaction: &Transaction) -> Vec<String> {
    let inserted = transaction.changes().iter().filter_map(|change| match change {
        Change::Insert(rule, _, 1) => Some(rule.to_string()),
        Change::InsertSet(set, 1) => Some(set.name()),
        Change::InsertGuard(guard) => Some(format!("guard {guard}")),
        _ => None,
    });
    inserted.collect()
}

#[test]
fn what_comes_first_is_inserted_last() {
    let rules =
        ["/accept/input/any/1.0.0.1", "/drop/input/any/1.0.0.2", "/reject/input/any/1.0.0.3"].map(labelled);
    let sets = [SetKey::of(&rule_of("/drop/input/any/1.0.0.9"))];
    let golden: [(bool, &[&str]); 2] = [
        (
            true,
            &[
                "rfw4-ids",
                "INPUT -s 1.0.0.2 -j DROP",
                "INPUT -s 1.0.0.3 -j REJECT",
                "INPUT -s 1.0.0.1 -j ACCEPT",
            ],
        ),
        // As they stood in the table.
        (
            false,
            &[
                "rfw4-ids",
                "INPUT -s 1.0.0.3 -j REJECT",
                "INPUT -s 1.0.0.2 -j DROP",
                "INPUT -s 1.0.0.1 -j ACCEPT",
            ],
        ),
    ];
    for (by_precedence, expected) in golden {
        let (cache, mut transaction) = (CacheReader::default().end(), Transaction::default());
        let missing = in_order_of_insertion(&rules, &sets, by_precedence);
        let count = plan_missing(&cache, &mut transaction, &missing, &HashSet::new());
        assert_eq!(
            (count.rules, count.sets, inserted(&transaction).as_slice()),
            (3, 1, &*to_owned(expected))
        );
        // What is there is not put in again, but for what is to go.
        let (mut there, mut again) = (cache, Transaction::default());
        there.apply(&transaction);
        assert_eq!(plan_missing(&there, &mut again, &missing, &HashSet::new()), Count::default());
        let revived = HashSet::from([rules[0].clone()]);
        assert_eq!(plan_missing(&there, &mut again, &missing, &revived).rules, 1);
    }
}

fn to_owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_guard_comes_to_the_head_whether_it_was_gone_or_not() {
    let guards = Guard::all(7393, ["10.0.0.0/8".parse().unwrap()].iter());
    let (mut cache, mut transaction) = (CacheReader::default().end(), Transaction::default());
    assert_eq!(plan_guard(&cache, &mut transaction, &guards), guards.len());
    assert_eq!(inserted(&transaction).len(), guards.len());
    cache.apply(&transaction);
    let mut again = Transaction::default();
    assert_eq!(plan_guard(&cache, &mut again, &guards), 0);
    assert_eq!(inserted(&again).len(), guards.len());
}

#[test]
fn the_log_names_some_rules_and_counts_the_rest() {
    let rules: Vec<(Rule, Label)> =
        (1..=5).map(|number| labelled(&format!("/drop/input/any/1.0.0.{number}"))).collect();
    assert_eq!(named(&rules[..1]), "INPUT -s 1.0.0.1 -j DROP");
    assert!(named(&rules).ends_with("INPUT -s 1.0.0.3 -j DROP, and 2 more"));
    let count = |guards, rules, sets| Count { guards, rules, sets }.told(Family::V4, 0).unwrap_or_default();
    for (told, expected) in [
        (count(0, 0, 0), ""),
        (count(4, 0, 0), "IPv4: the guard"),
        (count(4, 1, 2), "IPv4: the guard, 1 rule, 2 rules of sets"),
        (count(0, 2, 1), "IPv4: 2 rules, 1 rule of a set"),
    ] {
        assert_eq!(told, expected);
    }
}
