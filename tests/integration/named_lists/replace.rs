//! `replace`: afterwards a list holds in its scope exactly the body, or all is as it was.

use super::column;
use super::kernel::{assert_same, assert_unions, assert_unions_after, held, listed};
use crate::host::{Entry, Host, Rfw, in_both_variants};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

fn start<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    host.rfw(iptables).configure("ipset").start()
}

/// The counts of an answer: inserted, refreshed, removed, skipped.
fn counts(answer: &Value) -> [u64; 4] {
    ["inserted", "refreshed", "removed", "skipped_total"].map(|key| answer[key].as_u64().unwrap())
}

/// What a list holds, in the order of the texts: `1.2.3.4`.
#[track_caller]
fn sources(rfw: &Rfw<'_>, list: &str) -> Vec<String> {
    column(&rfw.ok("GET", &format!("/list/input?list={list}")), &["source"])
}

#[test]
fn both_families_are_replaced_and_other_lists_stay() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let both = "1.0.0.1\n1.0.0.2\n2001:4860::1\n2001:4860::2\n";
        for list in ["a", "b"] {
            rfw.send_ok("PUT", &format!("/drop/input/any?list={list}&expire=0"), both);
        }
        rfw.send_ok("PUT", "/drop/input/any?expire=0", both);
        rfw.send_ok("PUT", "/drop/input/eth0?list=a&expire=0", both);
        let replace = |query: &str, body: &str| {
            let answer = rfw.send_ok("PUT", &format!("/drop/input/any?{query}replace=true&expire=0"), body);
            assert_unions(&host, query);
            assert_same(&listed(&rfw.ok("GET", "/list")), &held(&host, iptables), query);
            counts(&answer)
        };
        // A body of one family empties the other.
        assert_eq!(replace("list=a&", "1.0.0.2\n1.0.0.3\n"), [1, 1, 3, 0]);
        let eth0 = ["1.0.0.1", "1.0.0.2", "2001:4860::1", "2001:4860::2"];
        let any = ["1.0.0.2", "1.0.0.3"];
        let mut expected: Vec<&str> = any.iter().chain(&eth0).copied().collect();
        expected.sort_unstable();
        assert_eq!(sources(&rfw, "a"), expected);
        assert_eq!(
            (sources(&rfw, "b"), sources(&rfw, "-")),
            (eth0.map(str::to_owned).to_vec(), eth0.map(str::to_owned).to_vec())
        );
        assert_eq!(replace("list=a&", "2001:4860::9\n"), [1, 0, 2, 0]);
        // The unnamed list alone.
        assert_eq!(replace("", "1.0.0.1\n2001:4860::3\n"), [1, 1, 3, 0]);
        assert_eq!(sources(&rfw, "-"), ["1.0.0.1", "2001:4860::3"]);
        assert_eq!(sources(&rfw, "b"), eth0);
        // Of many, half of which stay.
        let many = |first: usize| {
            (first..first + 400).map(|n| format!("9.0.{}.{}\n", n / 200, n % 200)).collect::<String>()
        };
        assert_eq!(replace("list=a&", &many(0)), [400, 0, 1, 0]);
        assert_eq!(replace("list=a&", &many(200)), [200, 200, 200, 0]);
    });
}

#[test]
fn the_unnamed_list_is_replaced_where_there_are_no_others() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?expire=0", "1.0.0.1\n1.0.0.2\n2001:4860::1\n");
        rfw.ok("PUT", "/drop/input/any/1.0.0.2?expire=0&reason=old");
        let answer = rfw.send_ok("PUT", "/drop/input/any?replace=true&expire=100", "1.0.0.2\n1.0.0.3\n");
        assert_eq!(counts(&answer), [1, 1, 2, 0]);
        let entries = host.entries();
        let mut there: Vec<_> = entries.iter().map(|entry| entry.element.as_str()).collect();
        there.sort_unstable();
        assert_eq!(there, ["1.0.0.2", "1.0.0.3"]);
        assert!(entries.iter().all(|entry| (95..=100).contains(&entry.timeout) && entry.comment.is_empty()));
        assert_eq!(host.sets().iter().filter(|set| set.contains('/')).count(), 0);
    });
}

#[test]
fn what_is_no_replacement_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let big: String = (0..3_000).map(|n| format!("9.0.{}.{}\n", n / 250, n % 250)).collect();
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", &format!("{big}2001:4860::1\n"));
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=0");
        let before = host.everything(iptables);
        let path = "/drop/input/any?list=a&replace=true";
        for body in ["", "\n\n", "# nothing\n", "10.0.0.1\nfe80::1\n", "127.0.0.1\n"] {
            let reply = rfw.send_as_is("PUT", path, body);
            assert_eq!(
                (reply.status, host.everything(iptables)),
                (400, before.clone()),
                "{body:?}: {reply:?}"
            );
        }
        for (method, path) in [
            ("PUT", "/drop/input/any/1.0.0.1?list=a&replace=true"),
            ("DELETE", "/drop/input/any?list=a&replace=true"),
            ("DELETE", "/drop/input/any/1.0.0.1?list=a&replace=true"),
            ("PUT", "/drop/input/any/1.0.0.1?list=a&list=a"),
            ("PUT", "/drop/input/any/1.0.0.1?list=A"),
            ("PUT", "/drop/input/any/1.0.0.1?list=-"),
            ("PUT", "/drop/input/any/1.0.0.1?list=*"),
            ("DELETE", "/drop/input/any"),
            ("DELETE", "/list"),
        ] {
            rfw.refused(method, path, 400);
        }
        // An upload that ends before its end, once by itself and once with rfw.
        for ends in ["client", "rfw"] {
            let mut talk = host.connect(7390);
            let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n");
            talk.say(head.as_bytes());
            talk.say(big.replace("9.0", "8.0").as_bytes());
            thread::sleep(Duration::from_millis(200));
            assert_eq!(host.everything(iptables), before);
            if ends == "rfw" {
                rfw.signal("KILL");
                rfw.end();
            }
            drop(talk);
        }
        assert_eq!(host.everything(iptables), before);
        rfw.spawn();
        let talk = host.connect(7390);
        drop(talk);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.2?list=a")["result"], "absent");
        let now = host.everything(iptables);
        assert_eq!((now.1, now.2), (before.1, before.2));
        // Lists that nobody has are empty.
        assert_eq!(rfw.ok("GET", "/list?list=none"), json!([]));
        assert_eq!(rfw.ok("DELETE", "/drop/input/any?list=none")["deleted"], 0);
        assert_eq!(rfw.ok("DELETE", "/list?list=none")["deleted"], 0);
    });
}

/// So many addresses from that one on.
fn hosts(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("1.1.0.{number}\n")).collect()
}

#[test]
fn room_is_that_after_a_replacement_and_507_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 10").start();
        rfw.send_ok("PUT", "/drop/input/any?list=a&expire=0", &hosts(0, 10));
        let replaced = rfw.send_ok("PUT", "/drop/input/any?list=a&replace=true&expire=0", &hosts(100, 10));
        assert_eq!(counts(&replaced), [10, 0, 10, 0]);
        let refused = |method: &str, path: &str, body: &str| {
            let before = held(&host, iptables);
            let reply =
                if body.is_empty() { rfw.request(method, path) } else { rfw.send(method, path, body) };
            assert_eq!(reply.status, 507, "{method} {path}: {reply:?}");
            assert_same(&held(&host, iptables), &before, path);
            assert_unions(&host, path);
        };
        let replace = "/drop/input/any?list=a&replace=true&expire=0";
        refused("PUT", replace, &hosts(0, 11));
        refused("PUT", "/drop/input/any?list=a", &hosts(0, 1));
        // The union is full.
        refused("PUT", "/drop/input/any/2.2.2.2?list=b", "");
        refused("PUT", "/drop/input/any?list=b", &hosts(0, 1));
        refused("PUT", "/drop/input/any?list=b", &format!("2001:4860::1\n{}", hosts(0, 1)));
        refused("PUT", "/drop/input/any/2.2.2.2", "");
        // What the union has already takes no room there.
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.1.0.100?list=b&expire=0")["result"], "inserted");
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any?list=b&expire=0", &hosts(101, 3))["inserted"], 3);
        // Four of ten are held by another list too: there is room for six.
        refused("PUT", replace, &hosts(0, 7));
        assert_eq!(counts(&rfw.send_ok("PUT", replace, &hosts(0, 6))), [6, 0, 10, 0]);
        refused("PUT", replace, &hosts(10, 7));
        assert_eq!(counts(&rfw.send_ok("PUT", replace, &hosts(10, 6))), [6, 0, 6, 0]);
        assert_eq!(counts(&rfw.send_ok("PUT", replace, &hosts(97, 10))), [10, 0, 6, 0]);
        assert_unions(&host, "at the end");
    });
}

/// There a send of that size is not possible, unless net.core.wmem_max has been raised above 10 MB: sets are
/// built beside and swapped in.
#[test]
fn in_a_container_a_long_list_is_replaced_with_its_counters_kept() {
    const COUNT: usize = 60_000;
    let host = Host::in_container();
    host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24"]);
    let rfw = start(&host, "iptables-nft");
    let long = |first: usize| -> String {
        let line = |n: usize| format!("11.{}.{}.{}\n", n / 62_500, n / 250 % 250, n % 250);
        (first..first + COUNT).map(line).collect()
    };
    let reason = "x".repeat(120);
    let path = format!("/drop/input/any?list=feed&replace=true&expire=0&reason={reason}");
    rfw.send_ok("PUT", &path, &format!("{}10.0.0.2\n", long(0)));
    rfw.ok("PUT", "/drop/input/any/12.0.0.1?list=f2b&expire=100");
    rfw.ok("PUT", "/drop/input/any/12.0.0.2?expire=0");
    let ping = "netns exec peer ping -c3 -i0.2 -W0.3 10.0.0.1";
    host.run("ip", &ping.split(' ').collect::<Vec<_>>()).fails_with(1);
    let packets = || {
        let is_it = |entry: &Entry| entry.set == "rfw4-ids" && entry.element == "10.0.0.2";
        host.entries().into_iter().find(is_it).map(|entry| entry.packets)
    };
    assert_eq!(packets(), Some(3));
    let start = Instant::now();
    let answer = rfw.send_ok("PUT", &path, &format!("{}10.0.0.2\n", long(COUNT / 2)));
    let took = start.elapsed();
    let half = COUNT as u64 / 2;
    assert_eq!(counts(&answer), [half, half + 1, half, 0]);
    assert_eq!(packets(), Some(3));
    assert_unions_after(&host, took, "after the replacement");
    let entries = host.entries();
    let size = |set: &str| entries.iter().filter(|entry| entry.set == set).count();
    let sets = ["rfw4-ids", "rfw4-ids/feed", "rfw4-ids/f2b", "rfw4-ids/-"];
    assert_eq!(sets.map(size), [COUNT + 3, COUNT + 1, 1, 1]);
    let feed = entries.iter().filter(|entry| entry.set == "rfw4-ids/feed");
    assert!(feed.into_iter().all(|entry| entry.comment == format!("by me: {reason}")));
    assert_eq!(host.sets().len(), 4, "{:?}", host.sets());
    assert_eq!(rfw.ok("DELETE", "/drop/input/any?list=feed")["deleted"], COUNT + 1);
    assert_eq!(host.entries().len(), 4);
    assert_unions_after(&host, took, "at the end");
}
