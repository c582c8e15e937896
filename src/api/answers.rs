//! What requests are answered, as JSON (RFC 8259).

use crate::api::HostName;
use crate::api::address_list::List;
use crate::api::format::{Format, push_csv};
use crate::firewall::{self, Deleted, Held, Inserted, ListResult, ListSummary, Outcome};
use crate::http::answer::{Answer, Content};
use crate::rule::lease::Lease;
use crate::rule::{Interface, Rule, Scope};
use serde_json::{Map, Value, json};

/// The most addresses that the answer to a DELETE of one address in all lists tells.
const ROWS_MAX: usize = 100;

/// What the answer to each change tells beside what came of it.
pub(super) struct Envelope {
    /// Who answers.
    pub host: HostName,
    /// Whether nothing was done.
    pub is_dry_run: bool,
}

/// The answer to the PUT of one address.
pub(super) fn inserted(
    inserted: &Inserted,
    rule: &Rule,
    lease: Lease,
    note: Option<String>,
    around: &Envelope,
) -> Answer {
    let mut body = changed(inserted.outcome, rule, lease);
    body.extend(note.map(|note| ("note".to_owned(), note.into())));
    body.extend(inserted.overridden_by.iter().map(|accept| ("overridden_by".to_owned(), held(accept))));
    succeeded(body, around)
}

/// The answer to the DELETE of one address.
pub(super) fn deleted(deleted: &Deleted, rule: &Rule, around: &Envelope) -> Answer {
    let mut body = changed(deleted.outcome, rule, Lease::Permanent);
    body.insert("still".to_owned(), deleted.still.iter().map(held).collect());
    succeeded(body, around)
}

/// The answer to the PUT of a list of addresses, with the number of those removed if it replaces.
pub(super) fn all_inserted(
    given: &List,
    count: ListResult,
    removed: Option<usize>,
    lease: Lease,
    note: Option<String>,
    around: &Envelope,
) -> Answer {
    let mut body = skipped(given);
    body.extend(note.map(|note| ("note".to_owned(), note.into())));
    body.insert("inserted".to_owned(), count.absent.into());
    body.insert("refreshed".to_owned(), count.present.into());
    body.extend(removed.map(|removed| ("removed".to_owned(), removed.into())));
    body.insert("expires".to_owned(), end(lease));
    succeeded(body, around)
}

/// The answer to the DELETE of a list of addresses.
pub(super) fn all_deleted(given: &List, count: ListResult, around: &Envelope) -> Answer {
    let mut body = skipped(given);
    body.insert("deleted".to_owned(), count.present.into());
    body.insert("absent".to_owned(), count.absent.into());
    succeeded(body, around)
}

/// The answer to the DELETE of all that lists hold.
pub(super) fn lists_deleted(count: usize, around: &Envelope) -> Answer {
    succeeded(members([("deleted", count.into())]), around)
}

/// The answer to the DELETE of an address in all scopes: how many rows, and the first [`ROWS_MAX`] of those
/// that the client may see.
pub(super) fn address_deleted(count: usize, seen: &[Held], around: &Envelope) -> Answer {
    let rows: Value = seen.iter().take(ROWS_MAX).map(held).collect();
    succeeded(members([("deleted", count.into()), ("rows", rows)]), around)
}

/// The columns of the lists in CSV.
const LIST_COLUMNS: [&str; 10] =
    ["list", "chain", "target", "inp", "out", "v4", "v6", "expires", "updated", "by"];

/// The answer to a GET of the lists, one a line.
pub(super) fn summaries(lists: &[ListSummary], format: Format) -> Answer {
    let rows = lists.iter().map(summarized);
    let body = if format == Format::Csv { table(rows) } else { array(rows) };
    Answer { media_type: format.media_type(), ..Answer::json(200, Content::Text(body)) }
}

fn array(rows: impl Iterator<Item = Map<String, Value>>) -> String {
    let rows: Vec<String> = rows.map(|row| Value::from(row).to_string()).collect();
    if rows.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", rows.join(",\n")) }
}

/// The lists in CSV; what is null is an empty field.
fn table(rows: impl Iterator<Item = Map<String, Value>>) -> String {
    let mut text = LIST_COLUMNS.join(",") + "\n";
    for row in rows {
        for (number, column) in LIST_COLUMNS.iter().enumerate() {
            text.push_str(if number > 0 { "," } else { "" });
            push_csv(&mut text, row.get(*column).and_then(Value::as_str).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

fn summarized(summary: &ListSummary) -> Map<String, Value> {
    let ListSummary { list, scope, v4, v6, expires, updated } = summary;
    let mut row = scope_columns(scope);
    let (updated, by) = updated.as_ref().map(|(moment, by)| (moment.to_string(), by.as_str())).unzip();
    row.insert("list".to_owned(), list.as_str().into());
    row.insert("v4".to_owned(), v4.to_string().into());
    row.insert("v6".to_owned(), v6.to_string().into());
    row.insert("expires".to_owned(), end(*expires));
    row.insert("updated".to_owned(), updated.into());
    row.insert("by".to_owned(), by.into());
    row
}

fn changed(outcome: Outcome, rule: &Rule, lease: Lease) -> Map<String, Value> {
    members([("result", outcome.name().into()), ("rule", described(rule).into()), ("expires", end(lease))])
}

/// The skipped lines of a list of addresses.
fn skipped(given: &List) -> Map<String, Value> {
    let lines = given.skipped.iter().map(|skipped| {
        json!({ "line": skipped.line, "address": skipped.address.to_string(), "reason": skipped.reason })
    });
    members([("skipped", lines.collect()), ("skipped_total", given.skipped_total.into())])
}

/// An address in a list: its rule, its list and its end.
fn held(held: &Held) -> Value {
    let mut row = described(&held.rule);
    row.insert("list".to_owned(), held.list.as_str().into());
    row.insert("expires".to_owned(), end(held.lease));
    row.into()
}

/// A rule as a JSON object with the names that iptables uses.
fn described(rule: &Rule) -> Map<String, Value> {
    let mut columns = scope_columns(rule.scope());
    let printed = |network| firewall::printed(network, rule.family()).into();
    columns.insert("source".to_owned(), printed(rule.source()));
    columns.insert("destination".to_owned(), printed(rule.destination()));
    columns
}

fn scope_columns(scope: &Scope) -> Map<String, Value> {
    let columns = [
        ("chain", scope.chain().name().to_owned()),
        ("target", scope.target().name().to_owned()),
        ("inp", Interface::column(scope.input_interface())),
        ("out", Interface::column(scope.output_interface())),
    ];
    members(columns.map(|(key, value)| (key, value.into())))
}

/// A JSON object.
pub(super) fn members<const COUNT: usize>(members: [(&str, Value); COUNT]) -> Map<String, Value> {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The end in UTC; null for ever.
fn end(lease: Lease) -> Value {
    lease.end().map(|end| end.to_string()).into()
}

fn succeeded(mut body: Map<String, Value>, around: &Envelope) -> Answer {
    body.insert("host".to_owned(), around.host.as_str().into());
    if around.is_dry_run {
        body.insert("dry".to_owned(), true.into());
    }
    Answer::json(200, Content::Text(format!("{}\n", Value::from(body))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::lease::Moment;
    use crate::rule::list_name::ListName;
    use crate::rule::rule_of;
    use std::time::{Duration, UNIX_EPOCH};

    const RULE: &str = r#"{"chain":"INPUT","destination":"0.0.0.0/0","inp":"eth+","out":"*","source":"1.2.3.4","target":"DROP"}"#;
    const HELD: &str = r#"{"chain":"INPUT","destination":"0.0.0.0/0","expires":null,"inp":"eth+","list":"tor","out":"*","source":"1.2.3.4","target":"DROP"}"#;

    const HOST: &str = r#""host":"web1""#;

    fn web1() -> Envelope {
        Envelope { host: HostName::new("web1"), is_dry_run: false }
    }

    fn text(answer: Answer) -> String {
        match answer.body {
            Content::Text(text) => text,
            Content::Parts(_) => panic!("a listing"),
        }
    }

    fn tor() -> ListName {
        "tor".parse().unwrap()
    }

    fn moment(seconds: u64) -> Moment {
        Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn one() -> Held {
        Held { rule: rule_of("/drop/input/eth/1.2.3.4"), lease: Lease::Permanent, list: tor() }
    }

    #[test]
    fn a_change_of_one_address_tells_what_else_holds_it() {
        let rule = rule_of("/drop/input/eth/1.2.3.4");
        let put = |overridden_by| {
            let outcome = Inserted { outcome: Outcome::Inserted, overridden_by };
            text(inserted(&outcome, &rule, Lease::Until(moment(60)), None, &web1()))
        };
        let expires = r#""expires":"1970-01-01T00:01:00Z""#;
        assert_eq!(put(None), format!("{{{expires},{HOST},\"result\":\"inserted\",\"rule\":{RULE}}}\n"));
        assert_eq!(
            put(Some(one())),
            format!(
                "{{{expires},{HOST},\"overridden_by\":{HELD},\"result\":\"inserted\",\"rule\":{RULE}}}\n"
            )
        );
        let delete = |still| text(deleted(&Deleted { outcome: Outcome::Deleted, still }, &rule, &web1()));
        let start = format!("{{\"expires\":null,{HOST},\"result\":\"deleted\",\"rule\":{RULE},\"still\":");
        assert_eq!(delete(Vec::new()), format!("{start}[]}}\n"));
        assert_eq!(delete(vec![one(), one()]), format!("{start}[{HELD},{HELD}]}}\n"));
    }

    #[test]
    fn a_change_of_many_tells_how_many() {
        let (given, lease) = (List::default(), Lease::Permanent);
        let count = ListResult { present: 1, absent: 2, removed: 3 };
        assert_eq!(
            text(all_inserted(&given, count, None, lease, None, &web1())),
            "{\"expires\":null,\"host\":\"web1\",\"inserted\":2,\"refreshed\":1,\"skipped\":[],\"skipped_total\":0}\n"
        );
        assert_eq!(
            text(all_inserted(&given, count, Some(3), lease, Some("why".to_owned()), &web1())),
            "{\"expires\":null,\"host\":\"web1\",\"inserted\":2,\"note\":\"why\",\"refreshed\":1,\"removed\":3,\"skipped\":[],\"skipped_total\":0}\n"
        );
        assert_eq!(
            text(all_deleted(&given, count, &web1())),
            "{\"absent\":2,\"deleted\":1,\"host\":\"web1\",\"skipped\":[],\"skipped_total\":0}\n"
        );
        let dry = Envelope { is_dry_run: true, ..web1() };
        assert_eq!(text(lists_deleted(7, &dry)), "{\"deleted\":7,\"dry\":true,\"host\":\"web1\"}\n");
        assert_eq!(text(lists_deleted(7, &web1())), "{\"deleted\":7,\"host\":\"web1\"}\n");
        assert_eq!(
            text(address_deleted(1, &[one()], &web1())),
            format!("{{\"deleted\":1,{HOST},\"rows\":[{HELD}]}}\n")
        );
        let many: Value =
            serde_json::from_str(&text(address_deleted(101, &vec![one(); 101], &web1()))).unwrap();
        assert_eq!((&many["deleted"], many["rows"].as_array().unwrap().len()), (&101.into(), 100));
    }

    #[test]
    fn lists_are_told_one_a_line() {
        let summary = ListSummary {
            list: tor(),
            scope: Scope::forward(crate::rule::Target::Reject, None, "eth0".parse().ok()),
            v4: 3,
            v6: 0,
            expires: Lease::Until(moment(60)),
            updated: Some((moment(0), "a\"b".to_owned())),
        };
        let unnamed = ListSummary {
            list: ListName::UNNAMED,
            expires: Lease::Permanent,
            updated: None,
            ..summary.clone()
        };
        assert_eq!(
            text(summaries(std::slice::from_ref(&summary), Format::Csv)),
            "list,chain,target,inp,out,v4,v6,expires,updated,by\n\
             tor,FORWARD,REJECT,*,eth0,3,0,1970-01-01T00:01:00Z,1970-01-01T00:00:00Z,\"a\"\"b\"\n"
        );
        assert_eq!(
            text(summaries(&[summary, unnamed], Format::Json)),
            "[\n{\"by\":\"a\\\"b\",\"chain\":\"FORWARD\",\"expires\":\"1970-01-01T00:01:00Z\",\"inp\":\"*\",\"list\":\"tor\",\"out\":\"eth0\",\"target\":\"REJECT\",\"updated\":\"1970-01-01T00:00:00Z\",\"v4\":\"3\",\"v6\":\"0\"},\n\
             {\"by\":null,\"chain\":\"FORWARD\",\"expires\":null,\"inp\":\"*\",\"list\":\"\",\"out\":\"eth0\",\"target\":\"REJECT\",\"updated\":null,\"v4\":\"3\",\"v6\":\"0\"}\n]\n"
        );
        assert_eq!(text(summaries(&[], Format::Json)), "[]\n");
        assert_eq!(text(summaries(&[], Format::Csv)).lines().count(), 1);
    }
}
