//! `ipset = auto`: addresses begin as rules, become a set where there are many, and rules again once it is
//! empty.

use super::kernel::{Client, assert_same, assert_unions, held, kill_and_spawn, listed, look};
use super::{column, commented};
use crate::host::{Host, Rfw, SOON, in_both_variants, until};
use serde_json::json;

fn start<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    host.rfw(iptables).configure("ipset = auto").start()
}

/// So many addresses from that one on.
fn hosts(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("1.1.{}.{}\n", number / 200, number % 200)).collect()
}

/// Entries of several lists in one scope, with all kinds of times and with reasons: 20 of them.
fn put_some(client: &mut Client, scope: &str) {
    for n in 0..5 {
        client.ok("PUT", &format!("{scope}/2.0.0.{n}?list=a&expire=0&reason=why%20{n}"), "");
        client.ok("PUT", &format!("{scope}/2.0.0.{n}?list=b&expire={}", 1000 * (n + 1)), "");
        client.ok("PUT", &format!("{scope}/2.0.0.{n}?expire=100d&reason=long"), "");
        client.ok("PUT", &format!("{scope}/2.0.{n}.0/24?list=c&expire=50d"), "");
    }
}

/// The rows with their reasons.
fn rows(rfw: &Rfw<'_>) -> Vec<String> {
    column(&rfw.ok("GET", "/list"), &["list", "target", "inp", "source", "by", "reason"])
}

#[test]
fn a_hundred_are_rules_and_one_more_is_a_set_with_all_that_they_had() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let mut client = Client::new(&host);
        put_some(&mut client, "/drop/input/any");
        let rules = commented(&host, iptables, "INPUT");
        assert!(rules.iter().any(|rule| rule.ends_with(" list a by local: why 3")), "{rules:?}");
        assert_eq!(
            client.ok("PUT", "/drop/input/any?list=d&expire=0&special=true", &hosts(0, 80))["inserted"],
            80
        );
        // One that is there, in the list that it is in, is none more.
        client.ok("PUT", "/drop/input/any/1.1.0.1?list=d&expire=0", "");
        assert_eq!((host.rules(iptables, "INPUT").len(), host.sets().len()), (100, 0));
        let (before, before_rows) = (held(&host, iptables), rows(&rfw));
        assert_same(&listed(&rfw.ok("GET", "/list")), &before, "as rules");

        // The same address in one list more is one more.
        client.ok("PUT", "/drop/input/any/1.1.0.1?expire=0", "");
        let check = |rfw: &Rfw<'_>, what: &str| {
            let mut now = held(&host, iptables);
            assert_same(&listed(&rfw.ok("GET", "/list")), &now, what);
            assert_eq!(now.remove(" DROP INPUT * * 1.1.0.1 any"), Some(None), "{what}");
            assert_same(&now, &before, what);
            let now = rows(rfw).into_iter().filter(|row| row != " DROP * 1.1.0.1 null null");
            assert_eq!(now.collect::<Vec<_>>(), before_rows, "{what}");
            assert_unions(&host, what);
            assert_eq!(host.rules(iptables, "INPUT").len(), 1, "{what}");
            assert_eq!(host.sets().len(), 6, "{what}: {:?}", host.sets());
        };
        check(&rfw, "as a set");
        kill_and_spawn(&mut rfw);
        check(&rfw, "after kill -9");
        rfw.stop();
        rfw.spawn();
        check(&rfw, "after a restart");
        // It stays one while it has entries, and is none once it has none.
        rfw.ok("DELETE", "/list?list=d");
        rfw.ok("DELETE", "/list?list=c");
        look(&rfw);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/3.0.0.1?list=e")["result"], "inserted");
        assert_eq!(host.rules(iptables, "INPUT").len(), 1);
        rfw.ok("DELETE", "/list?list=*");
        look(&rfw);
        assert_eq!((host.rules(iptables, "INPUT").len(), host.sets()), (0, Vec::new()));
        rfw.ok("PUT", "/drop/input/any/3.0.0.1?list=e&expire=0");
        assert_eq!(commented(&host, iptables, "INPUT"), ["3.0.0.1/32 permanent list e"]);
    });
}

#[test]
fn a_body_of_many_is_a_set_at_once_and_one_of_few_is_not() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let few = format!("{}2001:4860::1\n", hosts(0, 100));
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", &few)["inserted"], 101);
        assert_eq!(host.sets(), Vec::<String>::new());
        // A replacement by as many, of which none is there: in between there are more.
        let answer = rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0&replace=true", &hosts(500, 100));
        assert_eq!((&answer["inserted"], &answer["removed"]), (&json!(100), &json!(101)));
        assert_same(&listed(&rfw.ok("GET", "/list")), &held(&host, iptables), "replaced");
        assert_eq!(listed(&rfw.ok("GET", "/list")).len(), 100);
        let answer = rfw.send_ok("PUT", "/reject/output/any?expire=0", &hosts(0, 101));
        assert_eq!(answer["inserted"], 101);
        assert_eq!(host.rules(iptables, "OUTPUT").len(), 1);
        assert_eq!(host.entries().iter().filter(|entry| entry.set == "rfw4-ord").count(), 101);
        // Bodies go on to work on what is partly rules.
        let answer = rfw.send_ok("DELETE", "/drop/input/any?list=a", &hosts(550, 100));
        assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(50), &json!(50)));
        assert_eq!(rfw.ok("DELETE", "/list?list=*")["deleted"], 151);
        assert!(held(&host, iptables).is_empty());
    });
}

#[test]
fn of_more_than_two_hundred_rules_the_largest_scope_becomes_a_set() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        for (scope, count) in [("reject/input/eth0", 60), ("drop/input/any", 90), ("drop/output/any", 50)] {
            rfw.send_ok("PUT", &format!("/{scope}?list=a&expire=1h"), &hosts(0, count));
        }
        // The other family counts by itself.
        rfw.ok("PUT", "/drop/input/any/2001:4860::1?list=a&expire=1h");
        assert_eq!((host.sets().len(), host.kept(iptables).len()), (0, 201));
        let before = held(&host, iptables);
        rfw.ok("PUT", "/drop/output/any/9.9.9.9?expire=1h");
        assert_eq!(host.sets(), ["rfw4-ids", "rfw4-ids/a"]);
        assert_eq!(host.rules(iptables, "INPUT").len(), 61);
        assert_eq!(host.rules(iptables, "OUTPUT").len(), 51);
        let mut now = held(&host, iptables);
        assert!(now.remove(" DROP OUTPUT * * any 9.9.9.9").is_some());
        assert_same(&now, &before, "the largest is a set");
        assert_unions(&host, "the largest is a set");
    });
}

#[test]
fn turning_the_option_over_takes_all_along() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset = off").start();
        let mut client = Client::new(&host);
        put_some(&mut client, "/drop/input/any");
        put_some(&mut client, "/reject/input/eth0");
        rfw.send_ok("PUT", "/drop/input/any?list=d&expire=1h", &format!("{}2001:4860::1\n", hosts(0, 150)));
        rfw.ok("PUT", "/accept/input/any/1.1.0.1?list=d&expire=0");
        let (before, before_rows) = (listed(&rfw.ok("GET", "/list")), rows(&rfw));
        assert_same(&held(&host, iptables), &before, "off");
        let mut option = "off";
        for next in ["auto", "on", "off", "on", "auto", "off"] {
            rfw.stop();
            rfw = rfw.reconfigure(&format!("ipset = {option}"), &format!("ipset = {next}"));
            rfw.spawn();
            let what = format!("{iptables}: {option} to {next}");
            assert_same(&listed(&rfw.ok("GET", "/list")), &before, &what);
            assert_eq!(rows(&rfw), before_rows, "{what}");
            assert_same(&held(&host, iptables), &before, &what);
            assert_unions(&host, &what);
            let rules = host.rules(iptables, "INPUT");
            match next {
                "off" => assert_eq!((rules.len(), host.sets().len()), (191, 0), "{what}"),
                "on" => assert_eq!(rules.len(), 3, "{what}: {rules:?}"),
                _ if option == "off" => assert_eq!(rules.len(), 22, "{what}: {rules:?}"),
                // What is a set stays one.
                _ => assert_eq!(rules.len(), 3, "{what}: {rules:?}"),
            }
            option = next;
        }
    });
}

#[test]
fn answers_tell_what_overrides_and_what_holds_an_address_still() {
    in_both_variants(|iptables| {
        for option in ["ipset = auto", "ipset"] {
            let host = Host::new();
            let rfw = host.rfw(iptables).configure(option).start();
            rfw.ok("PUT", "/accept/input/eth/1.0.0.0/24?list=office&expire=0");
            let overridden = |path: &str| {
                let answer = rfw.ok("PUT", path);
                answer.get("overridden_by").map(|by| format!("{} {}", by["list"], by["source"]))
            };
            // Another interface may let packets in.
            assert_eq!(overridden("/drop/input/any/1.0.0.1?list=a"), None, "{option}");
            let office = Some("\"office\" \"1.0.0.0/24\"".to_owned());
            assert_eq!(overridden("/drop/input/eth0/1.0.0.1?list=a"), office, "{option}");
            assert_eq!(overridden("/reject/input/eth0/1.0.0.1?list=b"), office, "{option}");
            assert_eq!(overridden("/drop/input/eth0/1.0.0.0/23?list=a"), None, "{option}");
            assert_eq!(overridden("/drop/input/eth0/1.0.1.1?list=a"), None, "{option}");
            rfw.ok("PUT", "/drop/input/any/1.0.0.0/9?list=wide");
            let answer = rfw.ok("DELETE", "/drop/input/any/1.0.0.1?list=a");
            assert_eq!(
                column(&answer["still"], &["list", "target", "inp", "source"]),
                [
                    "a DROP eth0 1.0.0.0/23",
                    "a DROP eth0 1.0.0.1",
                    "b REJECT eth0 1.0.0.1",
                    "wide DROP * 1.0.0.0/9"
                ],
                "{option}"
            );
            for n in 0..12 {
                rfw.ok("PUT", &format!("/drop/input/any/5.5.5.5?list=l{n:02}"));
            }
            let answer = rfw.ok("DELETE", "/drop/input/any/5.5.5.5?list=l00");
            assert_eq!(answer["still"].as_array().unwrap().len(), 10, "{option}");
        }
    });
}

#[test]
fn exceptions_stand_before_rejects_and_those_before_drops() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let order = |chain: &str| -> Vec<String> {
            let rules = host.rules(iptables, chain);
            rules
                .iter()
                .map(|rule| rule.split(" -j ").nth(1).unwrap().split(' ').next().unwrap().to_lowercase())
                .collect()
        };
        let rank = |word: &String| ["accept", "reject", "drop"].iter().position(|target| target == word);
        let targets = ["drop", "accept", "reject", "drop", "reject", "accept", "accept", "drop"];
        for (n, target) in targets.into_iter().enumerate() {
            rfw.ok("PUT", &format!("/{target}/input/any/1.0.0.{n}?list=a"));
            rfw.ok("PUT", &format!("/{target}/forward/any/1.0.0.{n}/any/2.0.0.1?list=a"));
            for chain in ["INPUT", "FORWARD"] {
                assert!(order(chain).iter().map(rank).is_sorted(), "{iptables}: {:?}", order(chain));
            }
        }
        assert_eq!(order("INPUT").len(), targets.len());
        // One of them as a set.
        rfw.send_ok("PUT", "/reject/input/any?list=a", &hosts(0, 120));
        assert!(order("INPUT").iter().map(rank).is_sorted(), "{:?}", order("INPUT"));
        for target in targets {
            rfw.ok("PUT", &format!("/{target}/input/eth0/3.0.0.1?list=b"));
            assert!(order("INPUT").iter().map(rank).is_sorted(), "{iptables}: {:?}", order("INPUT"));
        }
        kill_and_spawn(&mut rfw);
        assert!(order("INPUT").iter().map(rank).is_sorted(), "{:?}", order("INPUT"));
        until(SOON, "none is lost", || listed(&rfw.ok("GET", "/list")).len() == 16 + 120 + 3);
    });
}
