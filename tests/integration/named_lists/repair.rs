//! Lists and their unions after kill -9, and after others have been at them: the union is the latest end
//! of its lists again.

use super::column;
use super::kernel::{
    Client, assert_same, assert_unions, held, kill_and_spawn, listed, look, request, unions_not_as_lists,
};
use crate::host::{Host, Rfw, SOON, in_both_variants, until};
use serde_json::json;
use std::thread;
use std::time::Duration;

fn start<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    host.rfw(iptables).configure("ipset").start()
}

/// Waits until the unions are as their lists.
#[track_caller]
fn until_mended(host: &Host) {
    let mut wrong = Vec::new();
    for _ in 0..150 {
        wrong = unions_not_as_lists(host);
        if wrong.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("not within 15 s as their lists: {wrong:#?}");
}

/// Requests of all kinds about few addresses, the same for the same number.
fn stream(number: usize) -> String {
    let one = |n: usize| {
        let (list, address, time) = (["a", "b", "c"][n % 3], n * 7 % 5, [0, 100, 900][n * 5 / 3 % 3]);
        let scope = "/drop/input/any";
        let body: String = (0..20).map(|k| format!("1.0.{}.{address}\n", (n + k) % 40)).collect();
        match n * 11 % 7 {
            0 | 1 => request("PUT", &format!("{scope}/1.0.1.{address}?list={list}&expire={time}"), ""),
            2 => request("PUT", &format!("{scope}/1.0.1.{address}?expire={time}"), ""),
            3 => request("DELETE", &format!("{scope}/1.0.1.{address}?list={list}"), ""),
            4 => request("PUT", &format!("{scope}?list={list}&replace=true&expire={time}"), &body),
            5 => request("PUT", &format!("{scope}?list={list}&expire={time}"), &body),
            _ => request("DELETE", &format!("{scope}?list={list}"), ""),
        }
    };
    (number..number + 150).map(one).collect()
}

#[test]
fn kill_9_at_any_moment_leaves_the_union_as_its_lists() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        for round in 0..12 {
            let mut talk = host.connect(7390);
            talk.say(stream(round * 31).as_bytes());
            // Until some are done, and others under way.
            let answers = round * 8;
            until(SOON, "some are answered", || talk.heard().matches("HTTP/1.1 ").count() > answers);
            rfw.signal("KILL");
            rfw.end();
            assert!(talk.heard().matches("HTTP/1.1 200").count() > 0, "{}", talk.heard());
            // Both change in one send: no start is needed for that.
            assert_unions(&host, "killed");
            let before = held(&host, iptables);
            rfw.spawn();
            assert_same(&held(&host, iptables), &before, "started again");
            assert_same(&listed(&rfw.ok("GET", "/list")), &before, "listed");
            assert_unions(&host, "started again");
        }
    });
}

#[test]
fn a_union_that_others_have_changed_is_mended_at_a_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", "1.0.0.1\n1.0.0.2\n1.0.0.3\n");
        rfw.send_ok("PUT", "/drop/input/any?list=b&expire=500", "1.0.0.2\n1.0.0.4\n2001:4860::1\n");
        for signal in ["TERM", "KILL"] {
            rfw.signal(signal);
            rfw.end();
            let before = held(&host, iptables);
            let ipset = |line: &str| drop(host.run("ipset", &line.split(' ').collect::<Vec<_>>()).ok());
            ipset("del rfw4-ids 1.0.0.1");
            ipset("add rfw4-ids 9.9.9.9");
            ipset("-exist add rfw4-ids 1.0.0.2 timeout 100");
            ipset("-exist add rfw4-ids 1.0.0.4 timeout 0");
            ipset("flush rfw6-ids");
            assert_eq!(unions_not_as_lists(&host).len(), 5);
            rfw.spawn();
            until_mended(&host);
            assert_same(&held(&host, iptables), &before, signal);
            assert!(rfw.log().contains("rfw4-ids: mended"), "{}", rfw.log());
        }
        // What others put into a list is in the list.
        rfw.stop();
        host.run("ipset", &["add", "rfw4-ids/a", "7.7.7.7", "timeout", "300"]).ok();
        host.run("ipset", &["del", "rfw4-ids/a", "1.0.0.3"]).ok();
        rfw.spawn();
        until_mended(&host);
        assert_eq!(column(&rfw.ok("GET", "/list?list=a"), &["source"]), ["1.0.0.1", "1.0.0.2", "7.7.7.7"]);
        assert!(host.entries().iter().any(|entry| entry.set == "rfw4-ids" && entry.element == "7.7.7.7"));
    });
}

#[test]
fn a_union_that_others_change_meanwhile_is_mended_too() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", "1.0.0.1\n1.0.0.2\n");
        host.run("ipset", &["flush", "rfw4-ids"]).ok();
        look(&rfw);
        until_mended(&host);
        assert_eq!(listed(&rfw.ok("GET", "/list")).len(), 2);
        host.run("ipset", &["del", "rfw4-ids", "1.0.0.1"]).ok();
        host.run("ipset", &["add", "rfw4-ids", "8.8.8.8"]).ok();
        rfw.ok("PUT", "/drop/input/any/1.0.0.3?list=b&expire=0");
        until(SOON * 3, "it is looked at", || {
            look(&rfw);
            thread::sleep(Duration::from_millis(300));
            unions_not_as_lists(&host).is_empty()
        });
        assert_eq!(listed(&rfw.ok("GET", "/list")).len(), 3);
    });
}

#[test]
fn a_body_puts_all_its_addresses_into_the_union_whatever_is_known_of_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", "1.0.0.1\n1.0.0.2\n1.0.0.3\n");
        rfw.send_ok("PUT", "/drop/input/any?list=b&expire=0", "1.0.0.3\n1.0.0.4\n");
        let del = |address: &str| drop(host.run("ipset", &["del", "rfw4-ids", address]).ok());
        let is_blocked = |address: &str| {
            host.entries().iter().any(|entry| entry.set == "rfw4-ids" && entry.element == address)
        };
        for query in ["", "&replace=true"] {
            del("1.0.0.1");
            // Their number tells nothing then.
            host.run("ipset", &["-exist", "add", "rfw4-ids", "9.9.9.9"]).ok();
            let path = format!("/drop/input/any?list=a&expire=0{query}");
            let answer = rfw.send_ok("PUT", &path, "1.0.0.1\n1.0.0.2\n1.0.0.3\n");
            assert_eq!((&answer["inserted"], &answer["refreshed"]), (&0.into(), &3.into()), "{answer}");
            assert!(is_blocked("1.0.0.1"), "{iptables}: {query}");
        }
        // What another list keeps is in the union, too.
        del("1.0.0.3");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any?list=a", "1.0.0.3\n")["deleted"], 1);
        assert!(is_blocked("1.0.0.3"), "{iptables}");
    });
}

#[test]
fn a_list_that_others_flush_or_destroy_is_made_again_at_the_next_request() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let fill = || {
            for list in ["a", "b"] {
                rfw.send_ok("PUT", &format!("/drop/input/any?list={list}&expire=0"), "1.0.0.1\n1.0.0.2\n");
            }
        };
        let destroy = || {
            // At once, before a look puts it into the registry again.
            until(SOON, "the set can be destroyed", || {
                let script = "ipset flush rfw; ipset destroy rfw4-ids/a";
                host.run("sh", &["-c", script]).status == Some(0)
            });
        };
        let requests = [
            ("PUT", "/drop/input/any/1.0.0.1?list=a&expire=0", ""),
            ("PUT", "/drop/input/any?list=a&expire=0", "1.0.0.1\n1.0.0.2\n"),
            ("PUT", "/drop/input/any?list=a&expire=0&replace=true", "1.0.0.1\n"),
            ("DELETE", "/drop/input/any/1.0.0.1?list=a", ""),
            ("DELETE", "/drop/input/any?list=a", "1.0.0.1\n"),
            ("DELETE", "/drop/input/any?list=a", ""),
            ("DELETE", "/list?address=1.0.0.1", ""),
            ("DELETE", "/list?list=a", ""),
            ("GET", "/list", ""),
            ("GET", "/lists", ""),
        ];
        for destroys in [false, true] {
            for (method, path, body) in requests {
                let what = format!("{iptables}: {destroys}: {method} {path}");
                fill();
                match destroys {
                    true => destroy(),
                    false => drop(host.run("ipset", &["flush", "rfw4-ids/a"]).ok()),
                }
                let mut client = Client::new(&host);
                until(SOON * 3, &what, || client.send(method, path, body).status == 200);
                until_mended(&host);
                assert_same(&listed(&rfw.ok("GET", "/list")), &held(&host, iptables), &what);
                if method == "PUT" {
                    let rows = rfw.ok("GET", "/list?list=a");
                    assert!(column(&rows, &["source"]).contains(&"1.0.0.1".to_owned()), "{what}: {rows}");
                }
            }
        }
        look(&rfw);
        assert_eq!(rfw.ok("DELETE", "/list?list=b")["deleted"], 2);
        rfw.ok("DELETE", "/list?list=*");
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        assert_eq!(host.entries(), Vec::new());
    });
}

#[test]
fn a_start_without_a_list_that_others_destroyed_goes_well() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", "1.0.0.1\n1.0.0.2\n");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=b&expire=0");
        rfw.stop();
        host.run("ipset", &["del", "rfw", "rfw4-ids/a"]).ok();
        until(SOON, "the set can be destroyed", || {
            host.run("ipset", &["destroy", "rfw4-ids/a"]).status == Some(0)
        });
        rfw.spawn();
        until_mended(&host);
        assert_eq!(column(&rfw.ok("GET", "/list"), &["list", "source"]), ["b 1.0.0.1"]);
        rfw.ok("PUT", "/drop/input/any/1.0.0.9?list=a&expire=0");
        kill_and_spawn(&mut rfw);
        assert_eq!(column(&rfw.ok("GET", "/list"), &["list", "source"]), ["a 1.0.0.9", "b 1.0.0.1"]);
    });
}

#[test]
fn a_white_list_takes_addresses_out_of_all_lists_and_a_flush_takes_all() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let fill = |rfw: &Rfw<'_>| {
            for query in ["", "list=a&", "list=b&"] {
                let body = "9.0.0.1\n9.0.0.0/28\n8.0.0.1\n2001:4860::1\n";
                rfw.send_ok("PUT", &format!("/drop/input/any?{query}expire=0"), body);
            }
        };
        fill(&rfw);
        let left = ["8.0.0.1", "8.0.0.1", "8.0.0.1", "2001:4860::1", "2001:4860::1", "2001:4860::1"];
        let check = |rfw: &Rfw<'_>, what: &str| {
            let mut expected = left.to_vec();
            expected.sort_unstable();
            assert_eq!(column(&rfw.ok("GET", "/list"), &["source"]), expected, "{what}");
            assert_unions(&host, what);
            assert_eq!(host.entries().len(), 8, "{what}");
        };
        rfw = rfw.white_list("127.0.0.1\n::1\n9.0.0.1\n");
        look(&rfw);
        check(&rfw, "after a SIGHUP");
        rfw = rfw.white_list("127.0.0.1\n::1\n");
        look(&rfw);
        fill(&rfw);
        rfw.stop();
        rfw = rfw.white_list("127.0.0.1\n::1\n9.0.0.1\n");
        rfw.spawn();
        until(SOON, "they go", || host.entries().len() == 8);
        check(&rfw, "after a start");
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "");
        assert_eq!(host.tables(iptables).concat(), Vec::<String>::new());
    });
}

/// As kill -9 leaves it after the sets of a scope are made and before its rules are entries.
#[test]
fn a_list_that_was_empty_at_a_start_keeps_the_rules_that_become_its_entries() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        for list in ["a", "b"] {
            rfw.ok("PUT", &format!("/drop/input/any/1.2.3.4?list={list}&expire=0"));
        }
        rfw.signal("KILL");
        rfw.end();
        for set in ["rfw4-ids", "rfw4-ids/a", "rfw4-ids/b"] {
            host.run("ipset", &["flush", set]).ok();
        }
        let rule = |list| {
            format!("-A INPUT -s 5.6.7.8/32 -m comment --comment \"rfw permanent list {list}\" -j DROP")
        };
        let (a, b) = (rule("a"), rule("b"));
        super::restore(&host, iptables, &[&a, &b]);
        rfw.spawn();
        let rows = rfw.ok("GET", "/list");
        assert_eq!(column(&rows, &["list", "source"]), ["a 5.6.7.8", "b 5.6.7.8"]);
        assert_same(&listed(&rows), &held(&host, iptables), "listed");
        assert_unions(&host, "at last");
    });
}
