use super::*;
use crate::firewall::rule_cache::CacheReader;
use crate::golden::cases;
use crate::kernel::Counters;
use crate::kernel::guard::Guard;
use crate::kernel::iptables::{Line, Owner};
use crate::kernel::set_key::SetKey;
use crate::rule::layout::TableName;
use crate::rule::lease::{Lease, Moment};
use crate::rule::rule_of;
use std::time::{Duration, UNIX_EPOCH};

/// The rule that a word stands for, and the packets that it has counted.
fn owner(word: &str) -> (Owner, u64) {
    let (word, packets) = word.split_once('*').map_or((word, 0), |(word, n)| (word, n.parse().unwrap()));
    let (name, end) = word.split_once('@').map_or((word, None), |(name, end)| (name, Some(end)));
    let lease = end.map_or(Lease::Permanent, |end| {
        Lease::Until(Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(end.parse().unwrap())))
    });
    let rule = |path: &str| Owner::Rfw(rule_of(path), Label::new(lease, ListName::UNNAMED));
    let owner = match name.split_at(1) {
        ("i", number) => rule(&format!("/drop/input/any/1.2.3.{number}")),
        ("f", number) => rule(&format!("/drop/forward/any/1.2.3.{number}")),
        ("o", number) => rule(&format!("/drop/output/any/1.2.3.{number}")),
        ("S", _) => Owner::Set(SetKey::of(&rule_of("/drop/input/any/1.2.3.4"))),
        ("G", chain) => Owner::Guard(Guard::all(7393, [].iter())[usize::from(chain == "o")]),
        _ => panic!("{word}"),
    };
    (owner, packets)
}

fn word(rule: &Rule, label: &Label) -> String {
    let chain = rule.scope().chain().name().chars().next().unwrap().to_ascii_lowercase();
    let address = rule.networks().next().unwrap().to_string();
    let end = label.lease.end().map_or(String::new(), |end| format!("@{}", end.seconds()));
    format!("{chain}{}{end}", address.rsplit('.').next().unwrap())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| *word != "-")
}

fn read(text: &str) -> RuleCache {
    let mut reader = CacheReader::default();
    for (owner, packets) in words(text).map(owner) {
        let chain = match &owner {
            Owner::Rfw(rule, _) => rule.scope().chain().name(),
            Owner::Guard(guard) if guard.is_output() => "OUTPUT",
            _ => "INPUT",
        };
        let counters = Counters { packets, bytes: 0 };
        reader.line(TableName::Filter, Line { chain: chain.to_owned(), counters, owner, target: None });
    }
    reader.end()
}

/// Has rfw delete these rules.
fn delete(memory: &mut Memory, cache: &mut RuleCache, text: &str) {
    let mut transaction = Transaction::default();
    for (owner, _) in words(text).map(owner) {
        let Owner::Rfw(rule, label) = owner else { panic!("{text}") };
        transaction.delete(&rule, &label);
    }
    cache.apply(&transaction);
    memory.apply(&transaction);
}

fn told(memory: &mut Memory) -> String {
    let list = |kind: &str, rules: &[(Rule, Label)]| {
        let rules: Vec<String> = rules.iter().map(|(rule, label)| word(rule, label)).collect();
        (!rules.is_empty()).then(|| format!("{kind} {}", rules.join(" ")))
    };
    let parts = [
        list("lost", memory.lost()),
        list("noted", &memory.take_noted()),
        memory.is_flushed().then(|| "flushed".to_owned()),
        memory.is_untidy().then(|| "untidy".to_owned()),
    ];
    let told = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if told.is_empty() { "-".to_owned() } else { told }
}

#[test]
fn what_was_flushed_is_told_from_what_somebody_has_deleted() {
    for (at, [before, deleted, after, expected]) in cases("flushed.txt") {
        let (mut memory, mut cache) = (Memory::default(), read(&before));
        delete(&mut memory, &mut cache, &deleted);
        memory.compare(&cache, &read(&after));
        assert_eq!(told(&mut memory), expected, "{at}");
    }
}

#[test]
fn a_rule_that_is_flushed_twice_comes_back_once() {
    let mut memory = Memory::default();
    memory.compare(&read("i1 i2"), &read("-"));
    memory.compare(&read("-"), &read("-"));
    memory.compare(&read("i2 i3"), &read("-"));
    assert_eq!(told(&mut memory), "lost i1 i2 i3 flushed");
    memory.begin_repair();
    memory.put_back(|_, _| true);
    assert_eq!(told(&mut memory), "-");
}

#[test]
fn what_a_client_takes_away_or_puts_in_meanwhile_does_not_come_back() {
    let mut memory = Memory::default();
    memory.compare(&read("i1 i2 i3@60"), &read("-"));
    let gone = memory.forget(|rule, _| *rule == rule_of("/drop/input/any/1.2.3.1"));
    assert_eq!(gone.len(), 1);
    let mut transaction = Transaction::default();
    let end = Label::new(Lease::Permanent, ListName::UNNAMED);
    transaction.insert(&rule_of("/drop/input/any/1.2.3.3"), &end, 1);
    memory.apply(&transaction);
    assert_eq!(told(&mut memory), "lost i2 flushed");
}

#[test]
fn deleted_rules_are_forgotten_after_many_others() {
    let mut deleted = Deleted::default();
    let rule = |number: usize| {
        let network = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
        rule_of(&format!("/drop/input/any/{network}"))
    };
    let label = Label::new(Lease::Permanent, ListName::UNNAMED);
    (0..=DELETED_MAX).for_each(|number| deleted.put(&rule(number), &label));
    assert!(!deleted.has(&rule(0), &label) && deleted.has(&rule(1), &label));
    deleted.remove(&rule(1), &label);
    assert!(!deleted.has(&rule(1), &label) && deleted.has(&rule(DELETED_MAX), &label));
    assert_eq!(deleted.order.len(), DELETED_MAX);
}

/// Has rfw put these rules in.
fn insert(memory: &mut Memory, cache: &mut RuleCache, text: &str) {
    for (owner, _) in words(text).map(owner) {
        let Owner::Rfw(rule, label) = owner else { panic!("{text}") };
        let mut transaction = Transaction::default();
        transaction.insert(&rule, &label, 1);
        cache.apply(&transaction);
        memory.apply(&transaction);
    }
}

#[test]
fn a_table_of_before_lacks_what_was_put_in_last() {
    let golden = [
        ("i1 i2 i3", "lost i4 i5 flushed"),
        ("i1 i2 i3 i4", "noted i5"),
        ("i1 i2 i3 i5", "noted i4"),
        // Of those that were there at the start nobody knows the order.
        ("i2 i3 i4 i5", "noted i1"),
        // All that had been read is gone: that is a flush, whatever was put in since.
        ("i3 i4 i5", "lost i1 i2 flushed"),
        ("i1 i2 i4", "noted i3 i5"),
        ("i1 i2", "lost i3 i4 i5 flushed"),
    ];
    for (after, expected) in golden {
        let (mut memory, mut cache) = (Memory::default(), read("i1 i2"));
        insert(&mut memory, &mut cache, "i3 i4 i5");
        memory.compare(&cache, &read(after));
        let mut told: Vec<String> = told(&mut memory).split(' ').map(str::to_owned).collect();
        let last = if expected.ends_with("flushed") { told.len() - 1 } else { told.len() };
        told[1..last].sort();
        assert_eq!(told.join(" "), expected, "{after}");
    }
}

#[test]
fn a_rule_that_is_put_in_again_before_it_is_noted_is_not_noted() {
    let (mut memory, mut cache) = (Memory::default(), read("i1 i2"));
    memory.compare(&cache, &read("i2"));
    cache = read("i2");
    insert(&mut memory, &mut cache, "i1");
    assert_eq!(told(&mut memory), "-");
}

#[test]
fn what_is_taken_away_while_it_is_flushed_is_not_brought_back_by_an_old_file() {
    let mut memory = Memory::default();
    memory.compare(&read("i1 i2 f3"), &read("f3"));
    memory.forget(|rule, _| *rule == rule_of("/drop/input/any/1.2.3.1"));
    memory.begin_repair();
    memory.put_back(|_, _| true);
    memory.compare(&read("i2 f3"), &read("i1 i2 f3"));
    assert_eq!(told(&mut memory), "untidy");
}

#[test]
fn what_rfw_may_have_deleted_itself_was_deleted_by_nobody_else() {
    for (after, expected) in [("-", "-"), ("i1", "-"), ("i2", "noted i1")] {
        let (mut memory, mut transaction) = (Memory::default(), Transaction::default());
        let cache = read(if after == "i2" { "i1 i2" } else { "i1" });
        let rule = if after == "i2" { "/drop/input/any/1.2.3.2" } else { "/drop/input/any/1.2.3.1" };
        transaction.delete(&rule_of(rule), &Label::new(Lease::Permanent, ListName::UNNAMED));
        memory.doubt(&transaction);
        memory.compare(&cache, &read(after));
        assert_eq!(told(&mut memory), expected, "{after}");
    }
}

#[test]
fn what_is_lost_during_a_repair_is_left_to_the_next() {
    let mut memory = Memory::default();
    memory.compare(&read("i1 i2 f3 f4"), &read("f3 f4"));
    memory.begin_repair();
    memory.compare(&read("f3 f4"), &read("-"));
    memory.put_back(|rule, _| rule.scope().chain() == crate::rule::Chain::Input);
    assert_eq!(told(&mut memory), "lost f3 f4 flushed");
}

#[test]
fn what_is_put_in_between_a_flush_and_the_reading_hides_no_flush() {
    let golden = [
        ("f1 f2 f3", "f4", "f4", "lost f1 f2 f3 flushed"),
        ("f1 f2 f3", "f4", "f3 f4", "noted f1 f2"),
        ("f1 f2 f3", "-", "f4", "lost f1 f2 f3 flushed"),
        ("f1", "f4", "f4", "noted f1"),
    ];
    for (before, put, after, expected) in golden {
        let (mut memory, mut cache) = (Memory::default(), read(before));
        insert(&mut memory, &mut cache, put);
        memory.compare(&cache, &read(after));
        assert_eq!(told(&mut memory), expected, "{before}, {put}, {after}");
    }
}

#[test]
fn what_goes_while_a_repair_is_due_was_flushed_too() {
    let mut memory = Memory::default();
    memory.compare(&read("f1 f2"), &read("-"));
    memory.compare(&read("f3"), &read("-"));
    assert_eq!(told(&mut memory), "lost f1 f2 f3 flushed");
}
