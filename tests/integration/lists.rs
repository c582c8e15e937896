//! Lists of addresses as the body of a request: what is read, how it may come, and
//! that a list which is refused changes nothing; with rules and with sets, in both
//! variants of iptables.

mod body;

use crate::golden::cases;
use crate::host::{Host, Rfw, SOON, in_all_ways, of_ipv6, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The networks that rfw keeps.
fn networks(host: &Host, iptables: &str) -> BTreeSet<String> {
    let kept = host.kept(iptables);
    let words = kept.iter().map(|rule| rule.split(' ').nth(3).unwrap().to_owned());
    let networks: BTreeSet<String> = words.collect();
    assert_eq!(networks.len(), kept.len(), "{kept:#?}");
    networks
}

fn set_of(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// A list of hosts, one for each number.
fn hosts(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("11.1.{}.{}\n", number / 250, number % 250)).collect()
}

/// How long it is until an answer says that it expires.
#[track_caller]
fn left(answer: &Value) -> f64 {
    let text = answer["expires"].as_str().unwrap_or_else(|| panic!("no expiry: {answer}"));
    let moment: SystemTime = OffsetDateTime::parse(text, &Rfc3339).unwrap().into();
    moment.duration_since(SystemTime::now()).unwrap().as_secs_f64()
}

fn start<'a>(host: &'a Host, iptables: &str, option: &str) -> Rfw<'a> {
    host.rfw(iptables).configure(option).start()
}

#[test]
fn every_format_of_a_feed_is_read_and_deleted_by_the_same_list() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        for (at, [list, expected]) in cases("feeds.txt") {
            let expected = set_of(&expected);
            let answer = rfw.send_ok("PUT", "/drop/input/any", &list);
            assert_eq!(networks(&host, iptables), expected, "{at}");
            let counts = ["inserted", "refreshed", "skipped_total"].map(|key| answer[key].as_u64().unwrap());
            assert_eq!(counts, [expected.len() as u64, 0, 0], "{at}: {answer}");
            assert_eq!(answer["skipped"], json!([]));
            let answer = rfw.send_ok("DELETE", "/drop/input/any", &list);
            assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(expected.len()), &json!(0)), "{at}");
            assert_eq!(networks(&host, iptables), set_of(""), "{at}");
        }
    });
}

#[test]
fn a_list_works_at_every_place() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        let golden = [
            ("/drop/input/any", "-A INPUT -s NET -j DROP"),
            ("/accept/input/eth", "-A INPUT -s NET -i eth+ -j ACCEPT"),
            ("/reject/input/eth0", "-A INPUT -s NET -i eth0 -j REJECT --reject-with ICMP"),
            ("/drop/output/any", "-A OUTPUT -d NET -j DROP"),
            ("/accept/output/eth0", "-A OUTPUT -d NET -o eth0 -j ACCEPT"),
            ("/reject/output/any", "-A OUTPUT -d NET -j REJECT --reject-with ICMP"),
            ("/drop/forward/any", "-A FORWARD -s NET -j DROP"),
            ("/Accept/FORWARD/tun", "-A FORWARD -s NET -i tun+ -j ACCEPT"),
            ("/reject/forward/tun0?wait=true", "-A FORWARD -s NET -i tun0 -j REJECT --reject-with ICMP"),
        ];
        for (path, rule) in golden {
            let v4 = rule.replace("NET", "1.2.3.0/24").replace("ICMP", "icmp-port-unreachable");
            let v6 = rule.replace("NET", "2001:db8::1/128").replace("ICMP", "icmp6-port-unreachable");
            let list = "2001:db8::1\n1.2.3.0/24\n";
            assert_eq!(rfw.send_ok("PUT", path, list)["inserted"], 2, "{path}");
            assert_eq!(host.kept(iptables), [v4, v6], "{path}");
            // One address more or less is no matter of how it came.
            let (path, _) = path.split_once('?').unwrap_or((path, ""));
            let path = path.trim_end_matches('/');
            assert_eq!(rfw.ok("PUT", &format!("{path}/2001:db8::1"))["result"], "refreshed", "{path}");
            assert_eq!(rfw.ok("DELETE", &format!("{path}/1.2.3.0/24"))["result"], "deleted", "{path}");
            let answer = rfw.send_ok("DELETE", path, list);
            assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(1), &json!(1)), "{path}");
            assert_eq!(host.kept(iptables), Vec::<String>::new(), "{path}");
        }
    });
}

/// A request to the local server up to its body.
fn head(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

#[test]
fn a_line_that_is_no_address_refuses_the_whole_list_and_nothing_changes() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        for path in
            ["/drop/input/any/11.1.0.5?expire=0", "/drop/input/any/9.9.9.9", "/drop/input/any/2001:db8::1"]
        {
            rfw.ok("PUT", path);
        }
        let before = host.everything(iptables);
        let many = hosts(0..1000);
        let html = "<!DOCTYPE html>\n<html><body>503 Service Unavailable</body></html>\n";
        let long = "7".repeat(5000);
        let generated = [
            (html.to_owned(), "line 1: \"<!DOCTYPE html>\" is not an address or network"),
            (format!("{many}{html}"), "line 1001: \"<!DOCTYPE html>\" is not an address or network"),
            (format!("{many}{html}{many}"), "line 1001: \"<!DOCTYPE html>\""),
            (format!("{many}1.2.3"), "line 1001: \"1.2.3\" is not an address or network"),
            (format!("{many}\n\n# x\n1.2.3.4.5\n"), "line 1004: \"1.2.3.4.5\""),
            (format!("1.2.3.4\n{long}\n"), "line 2: \"7777777777"),
            (format!("1.2.3.4\n1.2.3.4 {long}\n"), "line 2: "),
        ];
        let is_refused = |method: &str, list: &str, part: &str, at: &str| {
            let reply = rfw.send(method, "/drop/input/any", list);
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert_eq!(reply.status, 400, "{at}: {error}");
            assert!(error.contains(part) && error.ends_with("; nothing was changed"), "{at}: {error}");
            assert!(error.len() < 400, "{at}: {error}");
            assert_eq!(host.everything(iptables), before, "{at}");
        };
        for (list, part) in &generated {
            ["PUT", "POST", "DELETE"].iter().for_each(|method| is_refused(method, list, part, part));
        }
        for (at, [list, part]) in cases("feed-refused.txt") {
            is_refused("PUT", &list, &part, &at);
        }
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", "1.2.3.4\n9.9.9.9\n")["inserted"], 1);
    });
}

#[test]
fn an_empty_list_is_an_error_and_a_delete_without_a_body_deletes_nothing() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.send_ok("PUT", "/drop/input/any", "1.2.3.4\n2001:db8::1\n");
        let before = host.everything(iptables);
        for method in ["PUT", "POST", "DELETE"] {
            assert!(rfw.refused(method, "/drop/input/any", 400).starts_with("no address"));
            for list in ["", "\n", "# nothing today\n", "\r\n;\r\n \t\r\n"] {
                let reply = rfw.send(method, "/drop/input/any", list);
                assert_eq!(reply.status, 400, "{method} {list:?}");
                assert!(reply.body.contains("no address"), "{method} {list:?}: {}", reply.body);
            }
            let mut talk = host.connect(7390);
            talk.say(&head(method, "/drop/input/any", "Transfer-Encoding: chunked\r\n"));
            talk.say(b"0\r\n\r\n");
            assert_eq!(talk.reply().status, 400, "{method}");
        }
        assert_eq!(host.everything(iptables), before);
    });
}

#[test]
fn what_policy_forbids_is_passed_over_and_reported() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\n10.1.2.0/24\n2001:db8:1::/48\n");
        let rfw = rfw.configure(option).start();
        let list = "# a feed\n0.0.0.0/8\n1.2.3.4\n127.0.0.0/8\n10.1.2.3\n10.1.0.0/16\n10.1.3.0/24\n0.0.0.0\n::/0\n\
                    2001:db8::/15\n2001:db8:1::7\n2001:db8:2::/48\n0.0.0.0/0\n10.1.2.3\n";
        let forbidden = [
            (2, "0.0.0.0/8", "expected 9 to 32 for IPv4"),
            (4, "127.0.0.0/8", "expected 9 to 32 for IPv4"),
            (5, "10.1.2.3", "10.1.2.3 has addresses of 10.1.2.0/24, which is white-listed"),
            (6, "10.1.0.0/16", "which is white-listed"),
            (8, "0.0.0.0", "0.0.0.0 means any address"),
            (9, "::/0", "expected 16 to 128 for IPv6"),
            (10, "2000::/15", "expected 16 to 128 for IPv6"),
            (11, "2001:db8:1::7", "which is white-listed"),
            (13, "0.0.0.0/0", "expected 9 to 32 for IPv4"),
        ];
        let answer = rfw.send_ok("PUT", "/drop/input/any", list);
        assert_eq!((&answer["inserted"], &answer["skipped_total"]), (&json!(3), &json!(9)), "{answer:#}");
        let skipped = answer["skipped"].as_array().unwrap();
        assert_eq!(skipped.len(), forbidden.len(), "{answer:#}");
        for (row, (line, address, reason)) in skipped.iter().zip(forbidden) {
            assert_eq!((&row["line"], &row["address"]), (&json!(line), &json!(address)), "{row}");
            assert!(row["reason"].as_str().unwrap().contains(reason), "{row}");
        }
        let kept = set_of("1.2.3.4/32 10.1.3.0/24 2001:db8:2::/48");
        assert_eq!(networks(&host, iptables), kept);

        let many: String = (0..150).map(|number| format!("10.1.2.{number}\n")).collect();
        let before = host.everything(iptables);
        let answer = rfw.send_ok("PUT", "/reject/output/any", &many);
        assert_eq!((&answer["inserted"], &answer["refreshed"]), (&json!(0), &json!(0)), "{answer:#}");
        assert_eq!(
            (answer["skipped"].as_array().unwrap().len(), &answer["skipped_total"]),
            (100, &json!(150))
        );
        assert_eq!(
            answer["skipped"][99],
            json!({
                "line": 100, "address": "10.1.2.99",
                "reason": "10.1.2.99 has addresses of 10.1.2.0/24, which is white-listed",
            })
        );
        assert_eq!(host.everything(iptables), before);

        // A delete may touch the white list; what can't be there is passed over.
        let answer = rfw.send_ok("DELETE", "/drop/input/any", list);
        let counts = ["deleted", "absent", "skipped_total"].map(|key| answer[key].as_u64().unwrap());
        assert_eq!(counts, [3, 3, 6], "{answer:#}");
        assert_eq!(networks(&host, iptables), set_of(""));
    });
}

#[test]
fn the_counts_of_a_list_are_those_of_the_kernel() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        for (at, [method, words, counts, left]) in cases("list-counts.txt") {
            let lines = words.split(' ').map(|word| match word.split_once("..") {
                Some((first, end)) => hosts(first.parse().unwrap()..end.parse().unwrap()),
                None => format!("{word}\n"),
            });
            let answer = rfw.send_ok(&method, "/drop/forward/eth", &lines.collect::<String>());
            let keys = if method == "PUT" { ["inserted", "refreshed"] } else { ["deleted", "absent"] };
            assert_eq!(keys.map(|key| answer[key].to_string()).join(" "), counts, "{at}: {answer}");
            assert_eq!(networks(&host, iptables).len().to_string(), left, "{at}");
        }
    });
}

#[test]
fn a_list_has_the_lease_of_its_request_or_the_default() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).reconfigure("default.expire = 1h", "default.expire = 20m");
        let rfw = rfw.configure(option).start();
        let list = "1.2.3.4\n2001:db8::/32\n";
        for (query, seconds) in
            [("?expire=10m", 600_u64), ("", 1200), ("?expire=25h&wait=true", 90_000), ("?expire=0", 0)]
        {
            let answer = rfw.send_ok("PUT", &format!("/drop/output/any{query}"), list);
            let rows = rfw.ok("GET", "/list/output");
            assert_eq!(rows.as_array().unwrap().len(), 2, "{query}: {rows}");
            if seconds == 0 {
                assert_eq!(answer["expires"], Value::Null);
                assert!(rows.as_array().unwrap().iter().all(|row| row["expires"].is_null()), "{rows}");
                assert!(host.entries().iter().all(|entry| entry.timeout == 0));
                continue;
            }
            let expected = seconds as f64;
            for text in [&answer, &rows[0], &rows[1]] {
                assert!((left(text) - expected).abs() < 3.0, "{query}: {text}");
            }
            for entry in host.entries() {
                assert!(entry.timeout.abs_diff(seconds) <= 2, "{query}: {entry:?}");
            }
        }
        for query in ["?expire=x", "?expire=%20", "?expires=3", "?address=1.2.3.4"] {
            assert_eq!(rfw.send("PUT", &format!("/drop/output/any{query}"), list).status, 400, "{query}");
        }
        rfw.send_ok("PUT", "/drop/output/any?expire=1", list);
        until(SOON, "all is gone", || host.kept(iptables).is_empty());
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
    });
}

#[test]
fn a_list_leaves_rules_of_others_and_other_places_alone() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        for path in ["/accept/input/any/11.1.0.1", "/drop/input/eth0/11.1.0.1", "/drop/forward/any/11.1.0.1"]
        {
            rfw.ok("PUT", path);
        }
        host.admin(iptables, "-I INPUT -s 11.1.0.1 -j DROP");
        host.admin(&of_ipv6(iptables), "-A INPUT -p udp -j DROP");
        let before = host.tables(iptables).concat();
        let kept = host.kept(iptables);
        rfw.send_ok("PUT", "/drop/input/any", &hosts(0..20));
        assert_eq!(host.kept(iptables).len(), kept.len() + 20);
        let others = host.tables(iptables).concat();
        assert!(before.iter().all(|line| others.contains(line)), "{before:#?}\n{others:#?}");
        rfw.send_ok("DELETE", "/drop/input/any", &hosts(0..20));
        assert_eq!(host.kept(iptables), kept);
    });
}

#[test]
fn networks_that_are_not_globally_reachable_are_skipped_where_they_would_be_blocked() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        let list = "1.2.3.4\n10.1.2.3\n192.168.0.0/16\nfe80::1\n172.0.0.0/9\n2600::1\n127.0.0.1\n";
        let put = |path: &str| rfw.send_as_is("PUT", path, list).json();
        let answer = put("/drop/input/any");
        assert_eq!(networks(&host, iptables), set_of("1.2.3.4/32 2600::1/128"));
        assert_eq!((&answer["inserted"], &answer["skipped_total"]), (&json!(2), &json!(5)));
        let told =
            |at: usize| (answer["skipped"][at]["line"].clone(), answer["skipped"][at]["reason"].clone());
        let network = "which is not globally reachable (RFC 6890): special=true takes it";
        assert_eq!(told(0), (json!(2), json!(format!("10.1.2.3 is in 10.0.0.0/8, {network}"))));
        assert_eq!(
            told(3),
            (json!(5), json!(format!("172.0.0.0/9 has addresses of 172.16.0.0/12, {network}")))
        );
        assert_eq!(told(4), (json!(7), json!("127.0.0.1 is white-listed")));
        // As asked: a single one, an accept, and what the client insists on.
        assert_eq!(rfw.ok("PUT", "/drop/input/any/10.1.2.3")["result"], "inserted");
        assert_eq!(put("/reject/output/any?special=true")["inserted"], 6);
        assert_eq!(put("/accept/output/eth0")["inserted"], 6);
        let deleted = rfw.send_as_is("DELETE", "/drop/input/any", list).json();
        assert_eq!((&deleted["deleted"], &deleted["skipped_total"]), (&json!(3), &json!(0)));
    });
}

#[test]
fn a_replacement_of_which_nothing_is_left_is_refused() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let before = host.everything(iptables);
        for list in ["", "# nothing\n", "10.0.0.1\n127.0.0.1\n", "1.2.3.5\n<html>\n"] {
            let reply = rfw.send_as_is("PUT", "/drop/input/any?replace=true", list);
            assert_eq!(reply.status, 400, "{list:?}: {reply:#?}");
            assert_eq!(host.everything(iptables), before, "{list:?}");
        }
    });
}

/// A body without an address is no request for all addresses.
#[test]
fn an_empty_body_deletes_no_list() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let before = host.everything(iptables);
        let whole = |path: &str, headers: &str, body: &str| {
            let mut talk = host.connect(7390);
            talk.say(&[&head("DELETE", path, headers), body.as_bytes()].concat());
            talk.reply().status
        };
        let chunked = "Transfer-Encoding: chunked\r\n";
        for path in ["/drop/input/any", "/drop/input/any?list=tor"] {
            assert_eq!(whole(path, chunked, "0\r\n\r\n"), 400, "{path}");
            assert_eq!(whole(path, chunked, "9\r\n\n# none\n\r\n0\r\n\r\n"), 400, "{path}");
            assert_eq!(whole(path, "Content-Length: 9\r\n", "# nothing"), 400, "{path}");
        }
        for headers in ["", "Content-Length: 0\r\n"] {
            assert_eq!(whole("/drop/input/any", headers, ""), 400);
            assert_eq!(whole("/drop/input/any?list=tor", headers, ""), 200);
            assert_eq!(whole("/list?list=tor", headers, ""), 200);
        }
        assert_eq!(whole("/list?list=tor", "Content-Length: 8\r\n", "1.2.3.4\n"), 400);
        assert_eq!(whole("/list", "", ""), 400);
        assert_eq!(host.everything(iptables), before);
    });
}
