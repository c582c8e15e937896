//! Records as lines of the log and as rows.

use super::*;
use crate::rule::Target;
use crate::rule::rule_of;

/// The record of an address that a client has put in.
pub(crate) fn of_one(path: &str, list: Option<&str>) -> Record {
    Record {
        time: Moment::parse("2026-11-27T10:00:00Z").unwrap(),
        client: "honeypot".into(),
        from: [10, 0, 0, 5].into(),
        op: Op::Insert,
        list: Some(list.map_or(ListName::UNNAMED, |list| list.parse().unwrap())),
        subject: Subject::Rule(rule_of(path)),
        until: Some(Lease::Until(Moment::parse("2026-11-28T10:00:00Z").unwrap())),
        reason: Reason::parse("port scan").unwrap(),
        effect: Effect::One(Outcome::Inserted),
    }
}

/// The record of lists that are gone: one of them, or all.
pub(crate) fn of_lists(list: Option<&str>, deleted: u32) -> Record {
    Record {
        op: Op::Delete,
        list: list.map(|list| list.parse().unwrap()),
        subject: Subject::Everywhere(deleted),
        until: None,
        reason: None,
        effect: Effect::Taken { deleted, absent: None, skipped: 0 },
        ..of_one("/drop/input/any/1.2.3.4", None)
    }
}

#[test]
fn a_line_of_the_log_has_what_there_is() {
    let start = "client=honeypot from=10.0.0.5 op=insert";
    let end = "until=2026-11-28T10:00:00Z reason=\"port scan\" outcome=inserted";
    let golden = [
        (
            "/drop/input/any/1.2.3.4",
            Some("tor"),
            "list=tor target=drop chain=input interface=any address=1.2.3.4",
        ),
        (
            "/reject/output/eth/2001:db8::/48",
            None,
            "list=- target=reject chain=output interface=eth address=2001:db8::/48",
        ),
        (
            "/drop/forward/eth0/1.2.3.4",
            None,
            "list=- target=drop chain=forward interface=eth0 address=1.2.3.4",
        ),
        (
            "/accept/forward/any/1.2.3.0/24/eth1/5.6.7.8",
            None,
            "list=- target=accept chain=forward interface=any out=eth1 address=1.2.3.0/24 destination=5.6.7.8",
        ),
        (
            "/drop/forward/any/::/eth1/2001:db8::1",
            None,
            "list=- target=drop chain=forward interface=any out=eth1 address=::/0 destination=2001:db8::1",
        ),
    ];
    for (path, list, middle) in golden {
        assert_eq!(of_one(path, list).line().to_string(), format!("{start} {middle} {end}"));
    }
    let scope = Scope::input(Target::Drop, None);
    let effect = Effect::Put { inserted: 120, refreshed: 3, removed: Some(4), skipped: 2 };
    let subject = Subject::Scope(scope, 123);
    let many = Record {
        op: Op::Replace,
        subject,
        until: Some(Lease::Permanent),
        reason: None,
        effect,
        ..of_lists(Some("tor"), 0)
    };
    assert_eq!(
        many.line().to_string(),
        "client=honeypot from=10.0.0.5 op=replace list=tor target=drop chain=input interface=any count=123 \
         until=never outcome=\"120 inserted, 3 refreshed, 4 removed, 2 skipped\""
    );
    assert_eq!(
        of_lists(None, 7).line().to_string(),
        "client=honeypot from=10.0.0.5 op=delete list=* count=7 outcome=\"7 deleted\""
    );
    let absent = Effect::One(Outcome::Absent);
    let nowhere =
        Record { subject: Subject::Nowhere("1.2.3.4".parse().unwrap()), effect: absent, ..of_lists(None, 0) };
    assert_eq!(
        nowhere.line().to_string(),
        "client=honeypot from=10.0.0.5 op=delete list=* address=1.2.3.4 outcome=absent"
    );
}

#[test]
fn a_row_has_every_key() {
    assert_eq!(
        of_one("/drop/input/eth/1.2.3.4", Some("tor")).row(false).to_string(),
        "{\"address\":\"1.2.3.4\",\"chain\":\"INPUT\",\"client\":\"honeypot\",\"count\":1,\"destination\":null,\
         \"from\":\"10.0.0.5\",\"inp\":\"eth+\",\"list\":\"tor\",\"op\":\"insert\",\"out\":\"*\",\"outcome\":\"inserted\",\
         \"reason\":\"port scan\",\"target\":\"DROP\",\"time\":\"2026-11-27T10:00:00Z\",\"until\":\"2026-11-28T10:00:00Z\"}"
    );
    let row = |sees_all| {
        let row = of_lists(None, 7).row(sees_all);
        [&row["list"], &row["target"], &row["count"], &row["outcome"]].map(Value::to_string)
    };
    assert_eq!(row(true), ["null", "null", "7", "\"7 deleted\""]);
    assert_eq!(row(false), ["null", "null", "null", "\"deleted\""]);
    assert_eq!(of_lists(Some("tor"), 7).row(false)["count"], 7);
}

#[test]
fn a_summary_says_what_has_an_effect() {
    let one = of_one("/drop/input/any/1.2.3.4", Some("tor"));
    assert_eq!((one.summary().as_str(), one.has_effect()), ("1 inserted in tor", true));
    let unchanged = Record { effect: Effect::One(Outcome::Unchanged), ..one };
    assert!(!unchanged.has_effect());
    let all = of_lists(None, 7);
    assert_eq!((all.summary().as_str(), all.has_effect()), ("7 deleted in all lists", true));
    assert!(!of_lists(None, 0).has_effect());
}
