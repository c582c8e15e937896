//! What is granted, and what is not.

use super::*;
use crate::golden::cases;
use crate::rule::rule_of;
use proptest::prelude::*;

fn grants(text: &str) -> Vec<Grant> {
    text.split(';')
        .filter(|grant| !grant.trim().is_empty())
        .map(|grant| Grant::parse(grant).unwrap())
        .collect()
}

#[test]
fn a_rule_may_be_changed_or_the_missing_right_is_named() {
    for (at, [allow, lists, mask, path, list, expected]) in cases("rights.txt") {
        let mut rights = Rights { allow: grants(&allow), ..Rights::none() };
        if lists != "-" {
            rights.lists = Lists::parse(&lists).unwrap();
        }
        if mask != "-" {
            rights.mask_min = Some(MaskMin::parse(&mask).unwrap());
        }
        let checked = rights.check_rule(&rule_of(&path), ListName::from_word(&list).unwrap());
        assert_eq!(checked.map_or_else(|error| error.to_string(), |()| "ok".to_owned()), expected, "{at}");
    }
}

#[test]
fn texts_that_are_no_rights_are_refused_and_quoted() {
    for (at, [kind, text, expected]) in cases("rights-refused.txt") {
        let error = match kind.as_str() {
            "allow" => Grant::parse(&text).map(drop),
            "lists" => Lists::parse(&text).map(drop),
            "mask.min" => MaskMin::parse(&text).map(drop),
            _ => Read::parse(&text).map(drop),
        };
        assert_eq!(error.unwrap_err().to_string(), expected, "{at}");
    }
}

#[test]
fn rights_are_printed_as_they_are_written() {
    for text in ["drop,reject input,forward any,eth0", "* * *", "accept output ppp"] {
        assert_eq!(Grant::parse(text).unwrap().to_string(), text);
    }
    for text in ["-", "*", "tor,feed-*,-"] {
        assert_eq!(Lists::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(MaskMin::parse("24  48").unwrap().to_string(), "24 48");
}

#[test]
fn time_and_number_have_their_limits() {
    let day = Interval::parse("1d").unwrap();
    let limited = Rights { expire_max: Some(day), entries_max: Some(3), ..Rights::all() };
    let told = |checked: Result<(), MissingRight>| checked.map_err(|error| error.to_string()).err();
    assert_eq!(told(limited.check_time(day)), None);
    assert_eq!(
        told(limited.check_time(Interval::of_seconds(86_401))).as_deref(),
        Some("no right to expire=86401s: expected expire=86400s or less (expire.max)")
    );
    assert_eq!(
        told(limited.check_time(Interval::of_seconds(0))).as_deref(),
        Some("no right to change without an end: expected expire=86400s or less (expire.max)")
    );
    assert_eq!(told(Rights::all().check_time(Interval::of_seconds(0))), None);
    assert_eq!((told(limited.check_entries(3)), told(Rights::all().check_entries(usize::MAX))), (None, None));
    assert_eq!(
        told(limited.check_entries(4)).as_deref(),
        Some("no right to more than 3 entries in all its lists (entries.max)")
    );
}

#[test]
fn what_is_seen_follows_from_the_lists() {
    let rights = |read| Rights { lists: Lists::parse("tor,feed*").unwrap(), read, ..Rights::none() };
    let (tor, feed, other): (ListName, ListName, ListName) =
        ("tor".parse().unwrap(), "feed-1".parse().unwrap(), "other".parse().unwrap());
    for (read, expected) in
        [(Read::All, [true; 4]), (Read::Own, [true, true, false, false]), (Read::None, [false; 4])]
    {
        let rights = rights(read);
        let lists = [tor, feed, other, ListName::UNNAMED];
        assert_eq!(lists.map(|list| rights.sees(list)), expected, "{read:?}");
        assert_eq!(lists.map(|list| rights.visible().is_none_or(|lists| lists.admits(list))), expected);
        let asked = lists.map(|list| rights.check_read(Some(list)).is_ok());
        assert_eq!(asked, expected, "{read:?}");
        assert_eq!(rights.check_read(None).is_ok(), read != Read::None);
    }
    assert!(Rights::all().check_all_lists().is_ok() && rights(Read::All).check_all_lists().is_err());
    assert!(Rights::all().are_of_every_scope() && !Rights::none().are_of_every_scope());
    let of_lists = Rights { lists: Lists::parse("tor").unwrap(), ..Rights::all() };
    let narrow = Rights { mask_min: Some(MaskMin::parse("24 48").unwrap()), ..Rights::all() };
    let every = [Rights::all(), of_lists, narrow, Rights::none()].map(|rights| rights.are_of_every_rule());
    assert_eq!(every, [true, false, false, false]);
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_is_printed_alike(text in "[a-z0-9*,._ -]{0,24}") {
        if let Ok(grant) = Grant::parse(&text) {
            prop_assert_eq!(Grant::parse(&grant.to_string()), Ok(grant));
        }
        if let Ok(lists) = Lists::parse(&text) {
            prop_assert_eq!(Lists::parse(&lists.to_string()), Ok(lists));
        }
        let _ = MaskMin::parse(&text);
    }
}
