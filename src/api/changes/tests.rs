//! The last changes: what is kept, for whom, and from where on.

use super::*;
use crate::api::record::tests::{of_lists, of_one};
use crate::rule::list_name::ListName;
use crate::rule::rights::Read;
use serde_json::Value;
use std::time::Duration;

/// A second after the changes of [`of_one`].
fn noon(seconds: u64) -> Moment {
    let noon = Moment::parse("2026-11-27T10:00:00Z").unwrap();
    Moment::at_or_after(noon.time() + Duration::from_secs(seconds))
}

fn at(seconds: u64, address: u64) -> Record {
    let path = format!("/drop/input/any/1.1.{}.{}", address >> 8, address & 255);
    Record { time: noon(seconds), ..of_one(&path, Some("tor")) }
}

fn text(records: Vec<Rc<Record>>, sees_all: bool) -> Value {
    let rest = Some(json!({ "missed": false, "next": "0-0" }).to_string());
    let parts = Text { records: records.into_iter(), sees_all, has_rows: false, rest };
    let text: String = parts.inspect(|part| assert!(!part.is_empty())).collect();
    assert_eq!(
        text.lines().count(),
        1 + text.matches("\"op\"").count() + usize::from(text.contains("\"op\""))
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_last_thousand_are_kept_and_what_is_gone_is_told() {
    let mut changes = Changes::new(noon(0).time());
    let all = Rights::all();
    let since = |changes: &Changes, since: &str| {
        let since = if since.is_empty() { None } else { Some(since.parse().unwrap()) };
        let (rows, missed) = changes.since(since, &all);
        (rows.len(), missed)
    };
    let start = changes.next.to_string();
    assert_eq!((since(&changes, ""), since(&changes, &start)), ((0, false), (0, false)));
    (0..1_000).for_each(|number| changes.note(at(number, number)));
    assert_eq!(since(&changes, &start), (1_000, false));
    assert_eq!(since(&changes, "2026-11-27T10:00:00Z"), (1_000, false));
    // Before the start nothing was taken down.
    assert_eq!(since(&changes, "2026-11-27T09:59:59Z"), (1_000, true));
    (1_000..1_003).for_each(|number| changes.note(at(number, number)));
    assert_eq!(since(&changes, ""), (1_000, false));
    let behind = |number: u64| Cursor { number, ..changes.next }.to_string();
    let golden = [
        (0, (1_000, true)),
        (2, (1_000, true)),
        (3, (1_000, false)),
        (1_001, (2, false)),
        (1_003, (0, false)),
        (1_004, (1_000, true)),
    ];
    for (number, expected) in golden {
        assert_eq!(since(&changes, &behind(number)), expected, "{number}");
    }
    // What another rfw has told.
    assert_eq!(since(&changes, "1-1"), (1_000, true));
    for (time, expected) in
        [(2, (1_000, true)), (3, (1_000, false)), (1_001, (2, false)), (2_000, (0, false))]
    {
        assert_eq!(since(&changes, &noon(time).to_string()), expected, "{time}");
    }
    assert_eq!((changes.effective(), changes.last().unwrap().time), (1_003, noon(1_002)));
    let first = text(changes.since(None, &all).0, true)["changes"][0]["address"].clone();
    assert_eq!(first, "1.1.0.3");
}

#[test]
fn a_client_sees_changes_of_its_lists_and_that_all_are_gone() {
    let mut changes = Changes::new(noon(0).time());
    changes.note(of_one("/drop/input/any/1.2.3.4", Some("tor")));
    changes.note(of_one("/drop/input/any/1.2.3.5", Some("hidden")));
    changes.note(of_one("/drop/input/any/1.2.3.6", None));
    changes.note(of_lists(Some("hidden"), 1));
    changes.note(of_lists(None, 2));
    let seen = |rights: &Rights| {
        let rows = text(changes.since(None, rights).0, rights.visible().is_none());
        let rows = rows["changes"].as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["list"], row["count"])).collect::<Vec<_>>()
    };
    assert_eq!(seen(&Rights::all()), ["\"tor\" 1", "\"hidden\" 1", "\"\" 1", "\"hidden\" 1", "null 2"]);
    assert_eq!(seen(&Rights::none()), ["\"\" 1", "null null"]);
    let all = Rights { read: Read::All, ..Rights::none() };
    assert_eq!(seen(&all).len(), 5);
}

#[test]
fn an_answer_is_json_whatever_its_length() {
    for count in [0, 1, 2, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 100] {
        let rows = (0..count).map(|_| Rc::new(of_one("/drop/input/any/1.2.3.4", None))).collect();
        let answer = text(rows, true);
        assert_eq!(answer["changes"].as_array().unwrap().len(), count);
        assert_eq!((&answer["missed"], &answer["next"]), (&false.into(), &"0-0".into()));
    }
}

/// A record with the longest name, interfaces and reason takes what a thousandth of half a megabyte is.
#[test]
fn a_thousand_records_take_half_a_megabyte() {
    let outside = 64 + 2 * 15 + 120;
    assert!(size_of::<Record>() + 16 + outside <= 500, "{}", size_of::<Record>());
}

#[test]
fn what_changes_nothing_is_kept_and_is_not_the_last() {
    let mut changes = Changes::new(noon(0).time());
    changes.note(of_lists(None, 0));
    assert_eq!((changes.effective(), changes.last(), changes.kept.len()), (0, None, 1));
    assert_eq!(changes.kept[0].list, None::<ListName>);
}
