use super::super::format::HEADER_LENGTH;
use super::super::journal::Journal;
use super::*;
use crate::firewall::Terms;
use crate::golden::cases;
use crate::rule::lease::Moment;
use crate::rule::rule_of;
use crate::rule::words::Words;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

fn read(text: &str) -> (Entries, Damage) {
    read_lines(&mut text.as_bytes()).unwrap()
}

/// What entries hold, those put in first at the beginning.
fn told(entries: Entries) -> Vec<String> {
    let rules = entries.into_rules().into_iter();
    rules.map(|(rule, label)| Line::Put(rule, label).to_string()).collect()
}

#[test]
fn of_two_lines_about_the_same_the_later_counts() {
    for (at, [text, entries, damage]) in cases("state-merge.txt") {
        let (read, found) = read(&text);
        assert_eq!(told(read).join("\n"), entries, "{at}");
        assert_eq!(found.to_string(), damage, "{at}");
        assert_eq!(found.is_some(), !damage.is_empty(), "{at}");
    }
}

#[test]
fn a_line_that_is_too_long_is_passed_over() {
    let long = "x".repeat(5_000);
    let (entries, damage) = read(&format!("{long}\ndrop input any 1.2.3.4 permanent\n{long}"));
    assert_eq!(told(entries), ["drop input any 1.2.3.4 permanent"]);
    assert_eq!(damage.wrong, 2);
    assert!(damage.to_string().len() < 300, "{damage}");
    let (entries, damage) = read_lines(&mut &b"\xff\xfe\ndrop input any 1.2.3.4 permanent\n"[..]).unwrap();
    assert_eq!((told(entries).len(), damage.wrong), (1, 1));
}

#[test]
fn the_first_line_is_read_alone() {
    let line = "rfw state 1 boot=0a1b2c3d-0a1b-4c2d-8e3f-0123456789ab nonce=- written=1970-01-01T00:00:05Z";
    let header = Header::parse(line).unwrap();
    let text = format!("{header}drop input any 1.2.3.4 permanent\n");
    let mut from = text.as_bytes();
    assert_eq!(read_header(&mut from).unwrap(), Ok(header));
    assert_eq!(from.len(), text.len() - HEADER_LENGTH);
    // Without a line feed it was not written to its end.
    assert_eq!(read_header(&mut line.as_bytes()).unwrap(), Err(HeaderError::Foreign));
    assert_eq!(read_header(&mut &b""[..]).unwrap(), Err(HeaderError::Foreign));
}

fn until(seconds: u64) -> Lease {
    Lease::Until(Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// A change of an address or of a list, in the one of two places and lists.
#[derive(Debug, Clone)]
enum Op {
    Put(u8, bool, u64, bool),
    Gone(u8, bool),
    PutAll(Vec<u8>, bool, u64, bool),
    GoneAll(Vec<u8>, bool),
    Clear(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0u8..8, any::<bool>(), 1u64..9, any::<bool>()).prop_map(|(a, b, c, d)| Op::Put(a, b, c, d)),
        (0u8..8, any::<bool>()).prop_map(|(a, b)| Op::Gone(a, b)),
        (proptest::collection::vec(0u8..8, 0..6), any::<bool>(), 1u64..9, any::<bool>())
            .prop_map(|(a, b, c, d)| Op::PutAll(a, b, c, d)),
        (proptest::collection::vec(0u8..8, 0..6), any::<bool>()).prop_map(|(a, b)| Op::GoneAll(a, b)),
        any::<bool>().prop_map(Op::Clear),
    ]
}

fn rule(host: u8) -> Rule {
    rule_of(&format!("/drop/input/any/1.2.3.{host}"))
}

fn list(is_named: bool) -> ListName {
    if is_named { "tor".parse().unwrap() } else { ListName::UNNAMED }
}

fn item(op: &Op) -> Item {
    let networks = |hosts: &[u8]| hosts.iter().map(|host| format!("1.2.3.{host}").parse().unwrap()).collect();
    let section = |named: bool| SetKey::of(&rule(1)).with_list(list(named));
    let note = |there: bool| Note::from_comment("by me: why").filter(|_| there).map(Box::new);
    match op {
        Op::Put(host, named, end, noted) => {
            Item::Put(rule(*host), Label { note: note(*noted), ..Label::new(until(*end), list(*named)) })
        }
        Op::Gone(host, named) => Item::Gone(rule(*host), list(*named)),
        Op::PutAll(hosts, named, end, replace) => Item::PutAll {
            section: section(*named),
            networks: networks(hosts),
            terms: Terms {
                list: list(*named),
                lease: until(*end),
                note: note(*replace),
                notes: Arc::default(),
                replace: *replace,
            },
        },
        Op::GoneAll(hosts, named) => Item::GoneAll { section: section(*named), networks: networks(hosts) },
        Op::Clear(named) => Item::Clear(section(*named)),
    }
}

/// The same as it should come out: by list and host.
fn model(ops: &[Op]) -> BTreeMap<(bool, u8), (u64, bool)> {
    let mut model = BTreeMap::new();
    for op in ops {
        match op {
            Op::Put(host, named, end, noted) => {
                model.insert((*named, *host), (*end, *noted));
            }
            Op::Gone(host, named) => {
                model.remove(&(*named, *host));
            }
            Op::PutAll(hosts, named, end, replace) => {
                model.retain(|(of, _), _| of != named || !replace);
                model.extend(hosts.iter().map(|host| ((*named, *host), (*end, *replace))));
            }
            Op::GoneAll(hosts, named) => model.retain(|(of, host), _| of != named || !hosts.contains(host)),
            Op::Clear(named) => model.retain(|(of, _), _| of != named),
        }
    }
    model
}

fn as_model(entries: Entries) -> BTreeMap<(bool, u8), (u64, bool)> {
    let rules = entries.into_rules().into_iter();
    let all = rules.map(|(rule, label)| {
        let host = rule.source().unwrap().to_string().rsplit('.').next().unwrap().parse().unwrap();
        ((label.list.is_named(), host), (label.lease.end().unwrap().seconds(), label.note.is_some()))
    });
    all.collect()
}

proptest! {
    /// Whatever is done to lists, the file that the journal makes of it says it, in whichever portions it
    /// is written; and so do the changes that are not written yet.
    #[test]
    fn a_file_says_what_was_done(
        ops in proptest::collection::vec(op(), 0..30),
        written in 0usize..30,
        failed in any::<bool>(),
    ) {
        let (mut journal, mut text) = (Journal::default(), Vec::new());
        let (first, second) = ops.split_at(written.min(ops.len()));
        first.iter().for_each(|op| journal.note(item(op)));
        let (items, rewrite) = journal.take();
        prop_assert!(!rewrite);
        // What was not confirmed is written once more.
        items.iter().for_each(|item| item.print(&mut text).unwrap());
        drop(items);
        if failed { journal.failed() } else { journal.written(false) }
        second.iter().for_each(|op| journal.note(item(op)));
        let (mut entries, damage) = read(str::from_utf8(&text).unwrap());
        prop_assert!(!damage.is_some(), "{}", damage);
        journal.unwritten().for_each(|item| entries.apply(item));
        prop_assert_eq!(as_model(entries), model(&ops));
        let (items, _) = journal.take();
        items.iter().for_each(|item| item.print(&mut text).unwrap());
        let (entries, damage) = read(str::from_utf8(&text).unwrap());
        prop_assert!(!damage.is_some(), "{}", damage);
        prop_assert_eq!(as_model(entries), model(&ops));
    }

    /// Wherever a file is cut off, what is before is used, and the lines of a list count only together.
    #[test]
    fn a_file_that_is_cut_off_says_what_was_done_before(
        ops in proptest::collection::vec(op(), 1..12),
        cut in 0.0f64..1.0,
    ) {
        let mut text = Vec::new();
        let mut ends = vec![0];
        for op in &ops {
            item(op).print(&mut text).unwrap();
            ends.push(text.len());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let cut = (text.len() as f64 * cut) as usize;
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let (entries, damage) = read(str::from_utf8(text.get(..cut).unwrap()).unwrap());
        let (found, before) = (as_model(entries), model(&ops[..whole]));
        if ops.get(whole).is_none_or(|op| matches!(op, Op::Put(..) | Op::Gone(..) | Op::Clear(_) | Op::PutAll(.., true))) {
            prop_assert_eq!(found, before);
        }
        prop_assert!(damage.is_some() || text.get(..cut).unwrap().ends_with(b"\n") || cut == 0);
    }

    #[test]
    fn no_text_panics(text in "((drop input any |begin inet |end|- )?\\PC*\n){0,5}\\PC*") {
        let _ = read(&text);
    }
}

#[test]
fn what_a_place_holds_is_taken_out_in_the_order_it_came() {
    let (mut entries, _) = read(
        "drop input any 1.2.3.4 permanent\ndrop input eth0 1.2.3.4 permanent\n\
         drop input any 1.2.3.5 permanent list tor by me: why\ndrop input any 1.2.3.4 permanent\n",
    );
    let union = SetKey::of(&rule(4));
    assert_eq!(entries.sizes().get(&union), Some(&2));
    assert!(entries.holds(&rule(5), list(true)) && !entries.holds(&rule(5), list(false)));
    let notes = entries.notes(&union.with_list(list(true)));
    assert_eq!(notes.get(&rule(5)).map(|note| note.reason().to_owned()).as_deref(), Some("why"));
    assert!(entries.notes(&union.with_list(list(false))).is_empty());
    let taken: Vec<String> = entries.take(&union).iter().map(|(rule, _)| Words(rule).to_string()).collect();
    assert_eq!(taken, ["drop input any 1.2.3.5", "drop input any 1.2.3.4"]);
    assert_eq!(entries.len(), 1);
}
