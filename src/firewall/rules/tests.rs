//! Plans over a model of a table: what iptables-restore would make of them, without it.

use super::*;
use crate::firewall::rule_cache::CacheReader;
use crate::kernel::Counters;
use crate::kernel::guard::Guard;
use crate::kernel::iptables::{Line, Owner};
use crate::kernel::set_key::SetKey;
use crate::rule::layout::TableName;
use crate::rule::note::{Note, Reason};
use crate::rule::rule_of;
use proptest::prelude::*;
use std::collections::HashMap;

/// The rules of a table, those of all chains in one order.
#[derive(Default)]
struct Model(Vec<Owner>);

fn chain(owner: &Owner) -> &'static str {
    match owner {
        Owner::Rfw(rule, _) => rule.scope().chain().name(),
        Owner::Set(set) => set.scope().chain().name(),
        Owner::Guard(guard) if guard.is_output() => "OUTPUT",
        Owner::Guard(_) | Owner::Other => "INPUT",
        Owner::Return(..) | Owner::ReturnSet(_) | Owner::Jump => panic!("{owner:?} is of the table raw"),
    }
}

impl Model {
    fn insert(&mut self, owner: Owner, number: usize) {
        let of_chain = self.0.iter().enumerate().filter(|(_, other)| chain(other) == chain(&owner));
        let places: Vec<usize> = of_chain.map(|(at, _)| at).collect();
        assert!(number >= 1 && number <= places.len() + 1, "{number} of {}", places.len());
        let at = places.get(number - 1).copied().unwrap_or(self.0.len());
        self.0.insert(at, owner);
    }

    fn delete(&mut self, owner: &Owner) {
        let at = self.0.iter().position(|other| other == owner).expect("a rule to delete");
        self.0.remove(at);
    }

    fn apply(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            match change.clone() {
                Change::Insert(rule, label, number) => self.insert(Owner::Rfw(rule, label), number),
                Change::Delete(rule, label) => self.delete(&Owner::Rfw(rule, label)),
                Change::InsertSet(set, number) => self.insert(Owner::Set(set), number),
                Change::DeleteSet(set) => self.delete(&Owner::Set(set)),
                Change::InsertGuard(guard) => self.insert(Owner::Guard(guard), 1),
                Change::DeleteGuard(guard) => self.delete(&Owner::Guard(guard)),
                Change::CheckSet(_) => {}
                change => panic!("{change:?} is of the table raw"),
            }
        }
    }

    fn read(&self) -> RuleCache {
        let mut reader = CacheReader::default();
        for owner in &self.0 {
            let (chain, counters) = (chain(owner).to_owned(), Counters::default());
            reader.line(TableName::Filter, Line { chain, counters, owner: owner.clone(), target: None });
        }
        reader.end()
    }

    /// Its rules, `chain source list lease`, in order.
    fn text(&self) -> Vec<String> {
        let lines = self.0.iter().filter_map(|owner| match owner {
            Owner::Rfw(rule, label) => Some(format!("{rule} {label}")),
            _ => None,
        });
        lines.collect()
    }
}

fn label(comment: &str) -> Label {
    Label::from_comment(comment).unwrap()
}

fn list(name: &str) -> ListName {
    ListName::from_word(name).unwrap()
}

/// A table of these rules: path, then comment.
fn table(rules: &[(&str, &str)]) -> Model {
    Model(rules.iter().map(|(path, comment)| Owner::Rfw(rule_of(path), label(comment))).collect())
}

fn terms(name: &str, replace: bool) -> Terms {
    let note = Some(Box::new(Note::new("me", Reason::parse("why").unwrap().unwrap())));
    let notes = HashMap::from([(
        "1.1.1.1".parse().unwrap(),
        Box::new(Note::new("me", Reason::parse("of its own").unwrap().unwrap())),
    )]);
    Terms { list: list(name), lease: Lease::Permanent, note, notes: notes.into(), replace }
}

fn body(path: &str, networks: &[&str]) -> FamilyList {
    let rule = rule_of(path);
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    FamilyList::new(rule.scope(), rule.family(), networks)
}

#[test]
fn a_rule_of_one_list_leaves_those_of_others() {
    const PATH: &str = "/drop/input/any/1.2.3.4";
    let mut model = table(&[(PATH, "rfw permanent"), (PATH, "rfw until 2026-11-22T10:05:00Z list tor")]);
    let golden = [
        ("rfw permanent", Outcome::Unchanged, 2),
        ("rfw permanent list tor", Outcome::Refreshed, 2),
        ("rfw permanent list tor", Outcome::Unchanged, 2),
        ("rfw permanent list tor by me: why", Outcome::Unchanged, 2),
        ("rfw until 2026-11-22T10:05:00Z list tor by me: why", Outcome::Refreshed, 2),
        ("rfw until 2026-11-22T10:05:00Z list tor by me: why", Outcome::Refreshed, 2),
        ("rfw permanent list feed", Outcome::Inserted, 3),
    ];
    for (comment, expected, count) in golden {
        let mut transaction = Transaction::default();
        let outcome =
            plan_rule(&model.read(), &mut transaction, &rule_of(PATH), &label(comment), false, 3).unwrap();
        model.apply(&transaction);
        assert_eq!((outcome, model.0.len()), (expected, count), "{comment}");
        assert!(model.0.contains(&Owner::Rfw(rule_of(PATH), label(comment))), "{comment}");
        assert!(model.0.contains(&Owner::Rfw(rule_of(PATH), label("rfw permanent"))), "{comment}");
    }
    let refused = |comment: &str| {
        let mut transaction = Transaction::default();
        plan_rule(&model.read(), &mut transaction, &rule_of(PATH), &label(comment), false, 3)
    };
    assert!(matches!(refused("rfw permanent list more"), Err(FirewallError::TooManyRules(3))));
    assert!(matches!(refused("rfw permanent list feed by me: x"), Ok(Outcome::Unchanged)));
}

#[test]
fn a_body_takes_the_place_of_its_list_in_its_scope_alone() {
    let rules = [
        ("/drop/input/any/1.1.1.1", "rfw permanent list tor"),
        ("/drop/input/any/2.2.2.2", "rfw until 2026-11-22T10:05:00Z list tor"),
        ("/drop/input/any/2.2.2.2", "rfw permanent"),
        ("/drop/input/eth0/2.2.2.2", "rfw permanent list tor"),
        ("/drop/output/any/2.2.2.2", "rfw permanent list tor"),
        ("/reject/input/any/2.2.2.2", "rfw permanent list tor"),
        ("/drop/input/any/4.4.4.4", "rfw permanent list tor"),
        ("/drop/input/any/4.4.4.4", "rfw until 2026-11-22T10:05:00Z list tor"),
    ];
    let mut model = table(&rules);
    let body = body("/drop/input/any/1.1.1.1", &["1.1.1.1", "3.3.3.3", "3.3.3.3"]);
    let mut transaction = Transaction::default();
    let result = plan_body(&model.read(), &mut transaction, &body, &terms("tor", true), false);
    assert_eq!(result, ListResult { present: 1, absent: 1, removed: 2 });
    model.apply(&transaction);
    assert_eq!(
        model.text(),
        [
            "INPUT -s 3.3.3.3 -j DROP rfw permanent list tor by me: why",
            "INPUT -s 1.1.1.1 -j DROP rfw permanent list tor by me: of its own",
            "INPUT -s 2.2.2.2 -j DROP rfw permanent",
            "INPUT -s 2.2.2.2 -i eth0 -j DROP rfw permanent list tor",
            "OUTPUT -d 2.2.2.2 -j DROP rfw permanent list tor",
            "INPUT -s 2.2.2.2 -j REJECT rfw permanent list tor",
        ]
    );
    let mut transaction = Transaction::default();
    let result = plan_body(&model.read(), &mut transaction, &body, &terms("-", false), false);
    assert_eq!(result, ListResult { present: 0, absent: 2, removed: 0 });
    model.apply(&transaction);
    assert_eq!(model.read().len(), 8);
}

#[test]
fn of_rules_that_stand_doubled_a_deletion_takes_the_first() {
    let doubled = table(&[("/drop/input/any/1.0.0.1", "rfw permanent"); 3]);
    let (rule, label) = (rule_of("/drop/input/any/1.0.0.1"), label("rfw permanent"));
    let mut cache = doubled.read();
    for left in [2, 1, 0, 0] {
        let mut transaction = Transaction::default();
        transaction.delete(&rule, &label);
        cache.apply(&transaction);
        assert_eq!((cache.labels(&rule, ListName::UNNAMED).len(), cache.len()), (left, left.min(1)));
    }
}

#[test]
fn rules_of_before_are_put_in_order() {
    let rule = |path: &str| Owner::Rfw(rule_of(path), label("rfw permanent"));
    let set = |path: &str| Owner::Set(SetKey::of(&rule_of(path)));
    let mut model = Model(vec![
        set("/drop/input/eth0/1.0.0.9"),
        rule("/drop/input/any/1.0.0.1"),
        rule("/reject/input/any/1.0.0.2"),
        Owner::Other,
        rule("/drop/output/any/1.0.0.3"),
        rule("/drop/input/any/1.0.0.4"),
        set("/accept/input/any/1.0.0.5"),
        rule("/drop/input/any/1.0.0.6"),
        rule("/reject/input/any/1.0.0.7"),
        rule("/drop/input/any/1.0.0.8"),
    ]);
    assert!(!model.read().is_in_order(Chain::Input));
    let mut transaction = Transaction::default();
    plan_order(&model.read(), &mut transaction);
    model.apply(&transaction);
    let expected = [
        set("/accept/input/any/1.0.0.5"),
        rule("/reject/input/any/1.0.0.2"),
        rule("/reject/input/any/1.0.0.7"),
        set("/drop/input/eth0/1.0.0.9"),
        rule("/drop/input/any/1.0.0.1"),
        Owner::Other,
        rule("/drop/output/any/1.0.0.3"),
        rule("/drop/input/any/1.0.0.4"),
        rule("/drop/input/any/1.0.0.6"),
        rule("/drop/input/any/1.0.0.8"),
    ];
    assert_eq!(model.0, expected);
    assert!(model.read().is_in_order(Chain::Input) && model.read().is_in_order(Chain::Output));
}

#[test]
fn in_forward_a_body_is_a_matter_of_sources() {
    let mut model = table(&[
        ("/drop/forward/any/1.1.1.1/any/9.9.9.9", "rfw permanent list tor"),
        ("/drop/forward/any/0.0.0.0/any/9.9.9.9", "rfw permanent list tor"),
        ("/drop/forward/any/2.2.2.2", "rfw permanent list tor"),
    ]);
    let body = body("/drop/forward/any/1.1.1.1", &["9.9.9.9"]);
    let mut transaction = Transaction::default();
    let result = plan_body(&model.read(), &mut transaction, &body, &terms("tor", true), false);
    model.apply(&transaction);
    assert_eq!(result, ListResult { present: 0, absent: 1, removed: 1 });
    assert_eq!(
        model.text(),
        [
            "FORWARD -s 9.9.9.9 -j DROP rfw permanent list tor by me: why",
            "FORWARD -s 1.1.1.1 -d 9.9.9.9 -j DROP rfw permanent list tor",
            "FORWARD -d 9.9.9.9 -j DROP rfw permanent list tor",
        ]
    );
}

#[test]
fn a_body_has_room_with_what_it_takes_the_place_of() {
    let model = table(&[
        ("/drop/input/any/1.1.1.1", "rfw permanent list tor"),
        ("/drop/input/any/2.2.2.2", "rfw permanent list tor"),
        ("/drop/input/any/2.2.2.2", "rfw permanent"),
    ]);
    let golden = [
        ("tor", false, &["3.3.3.3"][..], 3, false),
        ("tor", false, &["3.3.3.3"], 4, true),
        ("tor", false, &["1.1.1.1", "2.2.2.2"], 3, true),
        ("-", false, &["1.1.1.1", "2.2.2.2"], 3, false),
        ("tor", true, &["3.3.3.3", "4.4.4.4"], 3, true),
        ("tor", true, &["3.3.3.3", "4.4.4.4", "5.5.5.5"], 3, false),
        // What is too much already may become less.
        ("tor", true, &["3.3.3.3"], 1, true),
    ];
    for (name, replace, networks, rules_max, expected) in golden {
        let body = body("/drop/input/any/1.1.1.1", networks);
        let fits = has_room(&model.read(), &body, &terms(name, replace), rules_max);
        assert_eq!(fits, expected, "{name} {replace} {networks:?} {rules_max}");
    }
}

/// One change of the table.
#[derive(Debug, Clone)]
enum Step {
    Insert(Rule, Label),
    Body(Rule, Vec<Network>, bool),
    Delete(usize),
    InsertSet(SetKey),
    DeleteSet(SetKey),
    Guard(bool),
    /// Another program.
    Foreign,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rule = || {
        let target = prop_oneof![Just("accept"), Just("reject"), Just("drop")];
        (target, prop_oneof![Just("input"), Just("output")], 1..4_u8)
            .prop_map(|(target, chain, host)| rule_of(&format!("/{target}/{chain}/any/1.2.3.{host}")))
    };
    let comment = prop_oneof![
        Just("rfw permanent"),
        Just("rfw permanent list a"),
        Just("rfw until 2026-11-22T10:05:00Z list a by me: why"),
    ];
    let networks =
        proptest::collection::vec((1..6_u8).prop_map(|host| Network::host([1, 2, 3, host].into())), 1..4);
    let step = prop_oneof![
        4 => (rule(), comment).prop_map(|(rule, comment)| Step::Insert(rule, label(comment))),
        2 => (rule(), networks, any::<bool>()).prop_map(|(rule, list, replace)| Step::Body(rule, list, replace)),
        2 => (0..9_usize).prop_map(Step::Delete),
        1 => rule().prop_map(|rule| Step::InsertSet(SetKey::of(&rule))),
        1 => rule().prop_map(|rule| Step::DeleteSet(SetKey::of(&rule))),
        1 => any::<bool>().prop_map(Step::Guard),
        1 => Just(Step::Foreign),
    ];
    proptest::collection::vec(step, 1..30)
}

/// Plans a step, reading the table first where its numbers are not known, as the firewall does.
fn plan(step: &Step, model: &mut Model, cache: &mut RuleCache) -> Transaction {
    let mut transaction = Transaction::default();
    match step {
        Step::Insert(rule, label) => {
            let is_new = cache.labels(rule, label.list).is_empty();
            if !is_new || !cache.knows_numbers(rule.scope()) {
                *cache = model.read();
            }
            plan_rule(cache, &mut transaction, rule, label, true, 100).unwrap();
        }
        Step::Body(rule, networks, replace) => {
            *cache = model.read();
            let body = FamilyList::new(rule.scope(), rule.family(), networks.clone());
            plan_body(cache, &mut transaction, &body, &terms("a", *replace), true);
        }
        Step::Delete(which) => {
            let found = cache.find(|_, _| true);
            found.get(*which).iter().for_each(|(rule, label)| transaction.delete(rule, label));
        }
        Step::InsertSet(set) if !cache.has_set(set) => {
            if !cache.knows_numbers(set.scope()) {
                *cache = model.read();
            }
            transaction.insert_set(set, cache.number_for(set.scope()));
        }
        Step::DeleteSet(set) if cache.has_set(set) => transaction.delete_set(set),
        Step::InsertSet(_) | Step::DeleteSet(_) => {}
        Step::Guard(true) => transaction.insert_guards(&Guard::all(7393, [].iter())),
        Step::Guard(false) => {
            let guards: Vec<Guard> = cache.guards().iter().copied().collect();
            guards.iter().for_each(|guard| transaction.delete_guard(*guard));
        }
        Step::Foreign => {
            model.insert(Owner::Other, 1);
            *cache = model.read();
        }
    }
    transaction
}

proptest! {
    #[test]
    fn accept_stays_before_reject_and_reject_before_drop(steps in steps()) {
        let (mut model, mut cache) = (Model::default(), RuleCache::default());
        for step in &steps {
            let transaction = plan(step, &mut model, &mut cache);
            model.apply(&transaction);
            cache.apply(&transaction);
            for name in ["INPUT", "OUTPUT"] {
                let targets = model.0.iter().filter(|owner| chain(owner) == name).filter_map(|owner| match owner {
                    Owner::Rfw(rule, _) => Some(rule.scope().target()),
                    Owner::Set(set) => Some(set.scope().target()),
                    _ => None,
                });
                prop_assert!(targets.is_sorted(), "{step:?}: {:?}", model.0);
            }
            let read = model.read();
            prop_assert_eq!(cache.len(), read.len());
            prop_assert!(cache.lists().eq(read.lists()));
            let all = |cache: &RuleCache| {
                let mut all: Vec<String> =
                    cache.labelled().map(|(rule, label)| format!("{rule} {label}")).collect();
                all.sort();
                all
            };
            prop_assert_eq!(all(&cache), all(&read));
        }
    }
}

#[test]
fn rules_that_are_the_same_have_numbers_of_their_own_until_the_table_is_changed() {
    let [one, two] = ["1.0.0.1", "1.0.0.2"].map(|address| rule_of(&format!("/drop/input/any/{address}")));
    let out = rule_of("/drop/output/any/1.0.0.1");
    let [a, b] = ["rfw permanent list a", "rfw permanent list b"].map(label);
    let rule = |rule: &Rule, label: &Label| Owner::Rfw(rule.clone(), label.clone());
    let owners =
        [rule(&one, &a), Owner::Other, rule(&two, &a), rule(&out, &a), rule(&one, &b), rule(&one, &a)];
    let mut cache = Model(owners.into()).read();
    assert_eq!(cache.numbers_of(&[(&one, &a), (&two, &a), (&one, &a)]), Some(vec![1, 3, 5]));
    assert_eq!(cache.numbers_of(&[(&out, &a), (&one, &b)]), Some(vec![1, 4]));
    // There is no third.
    assert_eq!(cache.numbers_of(&[(&one, &a); 3]), None);
    assert_eq!(cache.numbers_of(&[(&two, &b)]), None);
    let mut transaction = Transaction::default();
    transaction.delete(&two, &a);
    cache.apply(&transaction);
    assert_eq!(cache.numbers_of(&[(&one, &a)]), None);
}
