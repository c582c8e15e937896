//! Lists in sets: each has one of its own, and the union, which alone a rule looks at, has the latest end
//! of them.

use super::column;
use super::kernel::{Client, LONGEST, assert_same, assert_unions, held, kill_and_spawn, listed, look, now};
use crate::host::{Host, Rfw, SOON, in_both_variants, until};
use serde_json::json;

fn start<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    host.rfw(iptables).configure("ipset").start()
}

/// The timeout of an entry, if it is there.
fn timeout(host: &Host, set: &str, element: &str) -> Option<u64> {
    let found = host.entries().into_iter().find(|entry| entry.set == set && entry.element == element);
    found.map(|entry| entry.timeout)
}

/// Requests, and then how long the union holds the first address: 0 for ever. `@` is a scope, `1` and
/// `2` two addresses.
const STEPS: [(&str, &str, &str, Option<u64>); 26] = [
    ("PUT", "@/1?expire=600", "", Some(600)),
    ("PUT", "@/1?list=a&expire=100", "", Some(600)),
    ("PUT", "@/1?list=b&expire=1h", "", Some(3600)),
    ("PUT", "@/1?list=b&expire=2h", "", Some(7200)),
    ("PUT", "@/1?list=b&expire=50", "", Some(600)),
    ("PUT", "@/1?expire=40", "", Some(100)),
    ("DELETE", "@/1?list=a", "", Some(50)),
    ("PUT", "@?list=a&expire=0", "1\n2\n", Some(0)),
    ("PUT", "@?list=a&expire=0&replace=true", "2\n", Some(50)),
    ("PUT", "@?list=b&expire=900&replace=true", "1\n", Some(900)),
    ("PUT", "@?list=c&expire=2000", "1\n2\n", Some(2000)),
    ("PUT", "@?list=c&expire=700", "1\n2\n", Some(900)),
    ("PUT", "@?list=c&expire=2000", "1\n", Some(2000)),
    ("DELETE", "@?list=c", "1\n", Some(900)),
    ("PUT", "@/1?list=c&expire=0", "", Some(0)),
    ("DELETE", "@?list=c", "", Some(900)),
    ("PUT", "@/1?list=c&expire=0", "", Some(0)),
    ("DELETE", "/list?list=c", "", Some(900)),
    ("PUT", "@/1?list=c&expire=0", "", Some(0)),
    ("DELETE", "/list?address=1&list=c", "", Some(900)),
    ("PUT", "@/1?expire=3000", "", Some(3000)),
    ("DELETE", "/list?list=-", "", Some(900)),
    ("PUT", "@/1?expire=3000", "", Some(3000)),
    ("DELETE", "/list?address=1", "", None),
    ("PUT", "@?list=b&expire=5000", "1\n2\n", Some(5000)),
    ("DELETE", "/list?list=*", "", None),
];

#[test]
fn the_union_has_the_latest_end_of_all_lists_after_each_step() {
    let scopes = [
        ("/drop/input/any", "rfw4-ids", "1.0.0.1", "1.0.0.2"),
        ("/reject/input/eth", "rfw6-irs-eth+", "2001:4860::1", "2001:4860::2"),
        ("/accept/output/eth0", "rfw4-oad-eth0", "1.0.0.0/24", "1.0.1.0/25"),
        ("/drop/forward/any", "rfw4-fds", "1.0.0.1", "1.0.0.0/31"),
    ];
    in_both_variants(|iptables| {
        let host = Host::new();
        let _rfw = start(&host, iptables);
        let mut client = Client::new(&host);
        for (scope, set, one, two) in scopes {
            let begun = now();
            for (method, path, body, expected) in STEPS {
                let fill = |text: &str| {
                    let text = text.replace("@/1", &format!("@/{one}")).replace("=1&", &format!("={one}&"));
                    let text = if text.ends_with("address=1") {
                        text.replace("=1", &format!("={one}"))
                    } else {
                        text
                    };
                    text.replace('@', scope)
                };
                let body = body.replace("1\n", "one\n").replace("2\n", "two\n");
                let body = body.replace("one", one).replace("two", two);
                let what = format!("{iptables}: {scope}: {method} {path}");
                client.ok(method, &fill(path), &body);
                let there = timeout(&host, set, one);
                let close = |most: u64, there: u64| {
                    there <= most + 1 && there + now() - begun + 2 > most && (there == 0) == (most == 0)
                };
                assert!(
                    there == expected || there.zip(expected).is_some_and(|(there, most)| close(most, there)),
                    "{what}: {there:?}"
                );
                assert_unions(&host, &what);
                let lists = listed(&client.ok("GET", "/list", ""));
                assert_same(&lists, &held(&host, iptables), &what);
            }
            // One rule looks packets up, in the union.
            let tables = host.tables(iptables).concat();
            let uses: Vec<_> = tables.iter().filter(|line| line.contains("--match-set")).collect();
            assert!(uses.iter().all(|line| !line.contains('/')), "{uses:?}");
            assert_eq!(uses.iter().filter(|line| line.contains(&format!("{set} "))).count(), 1, "{uses:?}");
        }
    });
}

#[test]
fn the_unnamed_list_gets_a_set_of_its_own_with_all_it_has() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        for path in [
            "1.0.0.1?expire=0&reason=for%20ever",
            "1.0.0.2?expire=100",
            "1.0.0.0/24?expire=3650d&reason=long",
            "1.0.0.3?expire=3650d",
            "1.0.0.4?expire=1h&reason=an%20hour",
        ] {
            rfw.ok("PUT", &format!("/drop/input/any/{path}"));
        }
        let keys = ["list", "source", "by", "reason"];
        let (before, columns) = (held(&host, iptables), column(&rfw.ok("GET", "/list"), &keys));
        let comments = |set: &str| {
            let own = host.entries().into_iter().filter(|entry| entry.set == set);
            let mut own: Vec<_> = own.map(|entry| (entry.element, entry.comment)).collect();
            own.sort();
            own
        };
        let commented = comments("rfw4-ids");
        assert_eq!(commented.iter().filter(|(_, comment)| comment.starts_with("until 2")).count(), 2);
        assert!(commented.contains(&("1.0.0.4".to_owned(), "by me: an hour".to_owned())), "{commented:?}");
        assert_eq!(host.sets(), ["rfw4-ids"]);

        rfw.ok("PUT", "/drop/input/any/9.9.9.9?list=tor&expire=0&reason=exit");
        assert_eq!(host.sets(), ["rfw4-ids", "rfw4-ids/-", "rfw4-ids/tor"]);
        assert_eq!(comments("rfw4-ids/-"), commented);
        assert_eq!(comments("rfw4-ids/tor"), [("9.9.9.9".to_owned(), "by me: exit".to_owned())]);
        let check = |rfw: &Rfw<'_>, what: &str| {
            let mut now = held(&host, iptables);
            assert_eq!(now.remove("tor DROP INPUT * * 9.9.9.9 any"), Some(None), "{what}");
            assert_same(&now, &before, what);
            assert_unions(&host, what);
            let rows = column(&rfw.ok("GET", "/list?list=-"), &keys);
            assert_eq!(rows, columns, "{what}");
        };
        check(&rfw, "after the first named list");
        kill_and_spawn(&mut rfw);
        check(&rfw, "after a restart");
        assert_eq!(host.rules(iptables, "INPUT").len(), 1);
        let registry = host.registry().unwrap();
        for line in [
            "rfw4-ids comment \"inet drop input any any src\"",
            "rfw4-ids/- comment \"inet drop input any any src list -\"",
            "rfw4-ids/tor comment \"inet drop input any any src list tor\"",
        ] {
            assert!(registry.iter().any(|member| member == line), "{registry:?}");
        }
        // The last PUT clears a reason, and permanent stays permanent.
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=0");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=0")["result"], "unchanged");
        assert!(comments("rfw4-ids/-").contains(&("1.0.0.1".to_owned(), String::new())));
    });
}

#[test]
fn reasons_of_a_body_stand_in_the_kernel_and_survive() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let long = "ö".repeat(100);
        let body = format!("1.0.0.1 # do not \"ask\"\n1.0.0.2\n1.0.0.3 # {long}\n2001:4860::1 # six\n");
        rfw.send_ok("PUT", "/drop/input/any?list=csf&expire=0&reasons=true&reason=common", &body);
        let expected = [
            ("rfw4-ids/csf 1.0.0.1", "by me: do not 'ask'".to_owned()),
            ("rfw4-ids/csf 1.0.0.2", "by me: common".to_owned()),
            ("rfw4-ids/csf 1.0.0.3", format!("by me: {}", "ö".repeat(60))),
            ("rfw6-ids/csf 2001:4860::1", "by me: six".to_owned()),
        ];
        let comments = || {
            let lists = host.entries().into_iter().filter(|entry| entry.set.contains('/'));
            let mut all: Vec<_> =
                lists.map(|entry| (format!("{} {}", entry.set, entry.element), entry.comment)).collect();
            all.sort();
            all
        };
        assert_eq!(comments(), expected.clone().map(|(key, comment)| (key.to_owned(), comment)));
        kill_and_spawn(&mut rfw);
        assert_eq!(comments(), expected.clone().map(|(key, comment)| (key.to_owned(), comment)));
        let rows = column(&rfw.ok("GET", "/list"), &["source", "by", "reason"]);
        assert_eq!(rows[0], "1.0.0.1 me do not 'ask'");
        assert_eq!(rows[3], "2001:4860::1 me six");
        // The next body says it anew.
        rfw.send_ok("PUT", "/drop/input/any?list=csf&expire=0&replace=true", "1.0.0.1\n1.0.0.2 # words\n");
        assert!(comments().iter().all(|(_, comment)| comment.is_empty()), "{:?}", comments());
        assert_eq!(comments().len(), 2);
    });
}

#[test]
fn ten_years_are_kept_though_the_kernel_counts_24_days() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let near = |timeout: Option<u64>| timeout.is_some_and(|timeout| timeout + 30 > LONGEST);
        let answer = rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=a&expire=3650d&reason=why");
        let end = answer["expires"].as_str().unwrap().to_owned();
        rfw.send_ok("PUT", "/drop/input/any?list=b&expire=3650d", "1.0.0.2\n2001:4860::2\n");
        rfw.ok("PUT", "/drop/input/any/1.0.0.2?list=a&expire=100");
        let check = |rfw: &Rfw<'_>| {
            for (set, element) in [
                ("rfw4-ids", "1.0.0.1"),
                ("rfw4-ids/a", "1.0.0.1"),
                ("rfw4-ids", "1.0.0.2"),
                ("rfw4-ids/b", "1.0.0.2"),
                ("rfw6-ids", "2001:4860::2"),
            ] {
                assert!(near(timeout(&host, set, element)), "{set} {element}: {:?}", host.entries());
            }
            assert!(timeout(&host, "rfw4-ids/a", "1.0.0.2").unwrap() <= 100);
            let row = &rfw.ok("GET", "/list?list=a&address=1.0.0.1")[0];
            assert_eq!((&row["expires"], &row["reason"]), (&json!(end), &json!("why")));
            let entry = host.entries().into_iter().find(|entry| entry.set == "rfw4-ids/a").unwrap();
            if entry.element == "1.0.0.1" {
                assert_eq!(entry.comment, format!("until {end} by me: why"));
            }
        };
        check(&rfw);
        kill_and_spawn(&mut rfw);
        check(&rfw);
        // As if rfw had been away for weeks.
        rfw.stop();
        let shorten = |set: &str, element: &str, comment: &str| {
            let words = ["-exist", "add", set, element, "timeout", "90", "comment", comment];
            host.run("ipset", &words).ok();
        };
        shorten("rfw4-ids/a", "1.0.0.1", &format!("until {end} by me: why"));
        shorten("rfw4-ids", "1.0.0.1", "");
        shorten("rfw4-ids/b", "1.0.0.2", &format!("until {end}"));
        shorten("rfw4-ids", "1.0.0.2", "");
        shorten("rfw6-ids/b", "2001:4860::2", &format!("until {end}"));
        shorten("rfw6-ids", "2001:4860::2", "");
        rfw.spawn();
        until(SOON, "they are renewed", || {
            look(&rfw);
            near(timeout(&host, "rfw4-ids/a", "1.0.0.1"))
                && near(timeout(&host, "rfw6-ids/b", "2001:4860::2"))
        });
        check(&rfw);
        assert_unions(&host, "renewed");
    });
}

#[test]
fn there_are_64_named_lists_and_an_empty_one_makes_room() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let mut client = Client::new(&host);
        for number in 0..64 {
            let (target, chain) = (["drop", "accept"][number % 2], ["input", "output"][number / 2 % 2]);
            client.ok("PUT", &format!("/{target}/{chain}/any/1.0.0.{number}?list=l{number}&expire=0"), "");
        }
        let before = host.everything(iptables);
        for path in ["/drop/input/any/1.0.0.1?list=more", "/drop/forward/eth0/1.0.0.1?list=more"] {
            let error = rfw.refused("PUT", path, 400);
            assert!(error.contains("64") && error.contains("lists.max"), "{error}");
        }
        assert_eq!(rfw.send("PUT", "/drop/input/any?list=more", "1.0.0.1\n2001:4860::1\n").status, 400);
        assert_eq!(rfw.send("PUT", "/drop/input/any?list=more&replace=true", "1.0.0.1\n").status, 400);
        assert_eq!(host.everything(iptables), before);
        // The unnamed list is not counted, and one that is there may hold more.
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        rfw.ok("PUT", "/accept/input/any/9.9.9.9?list=l8");
        rfw.ok("DELETE", "/drop/input/any/1.0.0.4?list=l4");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=more&expire=1")["result"], "inserted");
        rfw.refused("PUT", "/drop/input/any/1.0.0.1?list=another", 400);
        until(SOON, "that list is empty and makes room", || {
            rfw.request("PUT", "/drop/input/any/1.0.0.1?list=another").status == 200
        });
        assert_eq!(rfw.ok("GET", "/lists").as_array().unwrap().len(), 66);
    });
}
