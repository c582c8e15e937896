//! The option `ipset`: addresses in sets of the kernel, with packets, in both
//! variants of iptables; and the resident processes that all changes go through.

use crate::host::{Host, Rfw, SOON, in_all_ways, in_both_variants, of_ipv6, run, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest that a set can hold an address.
const LONGEST: u64 = 2_147_483;

fn start<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    host.rfw(iptables).configure("ipset").start()
}

/// The networks of a list, whichever side they are on.
fn networks(list: &Value) -> Vec<&str> {
    let side = |row: &'_ Value| {
        if row["source"].as_str().unwrap().ends_with("/0") { "destination" } else { "source" }
    };
    list.as_array().unwrap().iter().map(|row| row[side(row)].as_str().unwrap()).collect()
}

/// How many seconds are left of a row.
fn left(row: &Value) -> Option<u64> {
    let moment: SystemTime = OffsetDateTime::parse(row["expires"].as_str()?, &Rfc3339).unwrap().into();
    Some(moment.duration_since(SystemTime::now()).unwrap_or_default().as_secs())
}

/// What is kept, without regard to its order.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// The elements of a set.
fn elements(host: &Host, set: &str) -> BTreeSet<String> {
    host.entries().into_iter().filter(|entry| entry.set == set).map(|entry| entry.element).collect()
}

#[test]
fn one_set_and_one_rule_hold_all_addresses_of_a_place() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let golden = [
            ("/drop/input/any/1.0.0.1", "rfw4-ids"),
            ("/drop/input/any/1.0.0.0/24", "rfw4-ids"),
            ("/accept/input/any/1.0.0.1", "rfw4-ias"),
            ("/reject/input/any/1.0.0.1", "rfw4-irs"),
            ("/drop/input/eth0/1.0.0.1", "rfw4-ids-eth0"),
            ("/drop/input/eth0/1.0.0.2", "rfw4-ids-eth0"),
            ("/drop/input/eth/1.0.0.2", "rfw4-ids-eth+"),
            ("/drop/output/any/1.0.0.1", "rfw4-odd"),
            ("/drop/forward/any/1.0.0.1", "rfw4-fds"),
            ("/drop/forward/any/0.0.0.0/any/1.0.0.1", "rfw4-fdd"),
            ("/drop/forward/ppp/1.0.0.1/eth0", "rfw4-fds-ppp+,eth0"),
            ("/drop/input/any/2001:db8::1", "rfw6-ids"),
            ("/drop/input/any/2001:db8::/32", "rfw6-ids"),
            ("/drop/output/eth0/2001:db8::1", "rfw6-odd-eth0"),
        ];
        for (path, _) in golden {
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{path}");
        }
        let names: BTreeSet<&str> = golden.into_iter().map(|(_, set)| set).collect();
        assert_eq!(host.sets(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let tables = host.tables(iptables).concat();
        for name in names {
            let uses = |line: &&String| line.contains(&format!("--match-set {name} "));
            assert_eq!(tables.iter().filter(uses).count(), 1, "{name}: {tables:#?}");
            let count = golden.iter().filter(|(_, set)| *set == name).count();
            assert_eq!(elements(&host, name).len(), count, "{name}");
        }
        assert_eq!(host.kept(iptables).len(), golden.len());
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), golden.len());
        let created = host.run("ipset", &["save"]).ok();
        for line in created.lines().filter(|line| line.starts_with("create")) {
            assert!(line.contains("hash:net") && line.contains("counters"), "{line}");
            assert!(line.contains("timeout 0") && line.contains("maxelem 1048576"), "{line}");
        }
    });
}

#[test]
fn names_that_are_long_fit_and_are_found_again() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let paths = [
            "/drop/forward/abcdefghijklmno/1.2.3.4/abcdefghijklmn1/0.0.0.0",
            "/drop/forward/abcdefghijklmn1/1.2.3.4/abcdefghijklmno/0.0.0.0",
            "/drop/forward/abcdefghijklmno/1.2.3.4/abcdefghijklmn/0.0.0.0",
            "/drop/forward/abcdefghijklmno/0.0.0.0/abcdefghijklmn1/1.2.3.4",
        ];
        for path in paths {
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{path}");
        }
        let sets = host.sets();
        assert!(
            sets.len() == 4 && sets.iter().all(|set| set.starts_with("rfw4-f") && set.len() <= 31),
            "{sets:?}"
        );
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        for path in paths {
            assert_eq!(rfw.ok("PUT", path)["result"], "refreshed", "{path}");
            assert_eq!(rfw.ok("DELETE", path)["result"], "deleted", "{path}");
        }
    });
}

/// Whether the neighbour gets an answer from that address of its own.
fn pings(host: &Host, from: &str, to: &str) -> bool {
    let command = ["netns", "exec", "peer", "ping", "-c1", "-W0.5", "-I", from, to];
    host.run("ip", &command).status == Some(0)
}

#[test]
fn an_accepted_host_gets_through_the_block_around_it_whichever_came_first() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour(
            "peer",
            &["10.0.0.1/24", "fd00::1/64"],
            &["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64"],
        );
        let rfw = start(&host, iptables);
        let reaches = || {
            ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"]
                .map(|from| pings(&host, from, if from.contains(':') { "fd00::1" } else { "10.0.0.1" }))
        };
        until(SOON, "the wire carries", || reaches() == [true; 4]);
        let golden: [&[&str]; 4] = [
            &[
                "drop any 10.0.0.0/24",
                "drop any fd00::2",
                "drop any fd00::3",
                "accept any 10.0.0.2",
                "accept any fd00::2",
            ],
            &[
                "accept wire 10.0.0.2",
                "accept wire0 fd00::2",
                "reject any 10.0.0.0/24",
                "reject wire fd00::2/127",
            ],
            &[
                "reject wire0 10.0.0.0/24",
                "accept wire0 fd00::2",
                "drop any fd00::2/127",
                "accept any 10.0.0.2",
            ],
            &[
                "accept any 10.0.0.2",
                "drop any 10.0.0.0/24",
                "reject any 10.0.0.0/24",
                "accept wire 10.0.0.2",
                "accept any fd00::2",
                "drop wire0 fd00::2/127",
            ],
        ];
        for puts in golden {
            let path = |text: &str| {
                let words: Vec<&str> = text.split(' ').collect();
                format!("/{}/input/{}/{}", words[0], words[1], words[2])
            };
            for text in puts {
                assert_eq!(rfw.ok("PUT", &path(text))["result"], "inserted", "{text}");
            }
            assert_eq!(
                reaches(),
                [true, false, true, false],
                "{iptables}: {puts:?}\n{:#?}",
                host.tables(iptables)
            );
            for text in puts {
                assert_eq!(rfw.ok("DELETE", &path(text))["result"], "deleted", "{text}");
            }
        }
        assert_eq!(reaches(), [true; 4]);
    });
}

/// The rules of rfw in a chain as the words that tell them apart, in their order.
fn order(host: &Host, iptables: &str, chain: &str) -> Vec<String> {
    let rules = host.rules(iptables, chain).into_iter();
    let words = rules.map(|rule| {
        let target = rule.split(" -j ").nth(1).unwrap().split(' ').next().unwrap().to_lowercase();
        let kind = match () {
            () if rule.contains("--match-set") => "set",
            () if rule.contains("\"rfw ") => "pair",
            () => "other",
        };
        format!("{target} {kind}")
    });
    words.collect()
}

#[test]
fn every_exception_stands_before_every_block() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        host.admin(iptables, "-A FORWARD -p udp -j DROP");
        let puts = [
            "/drop/forward/any/1.2.3.0/24",
            "/drop/forward/any/1.2.3.4/any/5.6.7.8",
            "/accept/forward/any/1.2.3.4/any/5.6.7.9",
            "/reject/forward/any/0.0.0.0/any/5.6.7.0/24",
            "/accept/forward/eth0/1.2.3.4",
            "/reject/forward/any/1.2.3.0/24/any/5.6.0.0/16",
            "/accept/forward/any/1.2.3.9/any/5.6.7.9",
            "/drop/forward/eth0/1.2.0.0/16",
            "/accept/forward/any/0.0.0.0/any/9.9.9.9",
        ];
        let well_ordered = || {
            let order = order(&host, iptables, "FORWARD");
            let last_accept = order.iter().rposition(|rule| rule.starts_with("accept")).unwrap_or(0);
            let blocks = order.iter().position(|rule| !rule.starts_with("accept")).unwrap_or(order.len());
            assert!(
                last_accept < blocks
                    || blocks == order.len()
                    || !order.iter().any(|rule| rule.starts_with("accept")),
                "{iptables}: {order:?}"
            );
            assert_eq!(order.last().unwrap(), "drop other", "{order:?}");
            order.len()
        };
        for (count, path) in puts.iter().enumerate() {
            rfw.ok("PUT", path);
            assert_eq!(well_ordered(), count + 2, "{path}");
        }
        // Another lease changes no order.
        for path in puts {
            assert_eq!(rfw.ok("PUT", &format!("{path}?expire=2h"))["result"], "refreshed", "{path}");
            assert_eq!(well_ordered(), puts.len() + 1, "{path}");
        }
        for path in puts {
            assert_eq!(rfw.ok("DELETE", path)["result"], "deleted", "{path}");
            well_ordered();
        }
    });
}

#[test]
fn pairs_of_addresses_obey_with_packets_too() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24"]);
        host.run("sh", &["-c", "ip netns exec peer ip route add default via 10.0.0.1; ip addr add 10.9.0.1/24 dev lo; \
            ip netns add far; ip link add wire1 type veth peer name eth0 netns far; ip addr add 10.8.0.1/24 dev wire1; \
            ip link set wire1 up; ip -n far addr add 10.8.0.2/24 dev eth0; ip -n far addr add 10.8.0.3/24 dev eth0; \
            ip -n far link set eth0 up; ip -n far route add default via 10.8.0.1; echo 1 >/proc/sys/net/ipv4/ip_forward"]).ok();
        let rfw = start(&host, iptables);
        let reaches = || {
            [("10.0.0.2", "10.8.0.2"), ("10.0.0.2", "10.8.0.3"), ("10.0.0.3", "10.8.0.2")]
                .map(|(from, to)| pings(&host, from, to))
        };
        until(SOON, "the wires carry", || reaches() == [true; 3]);
        let orders = [["accept", "drop"], ["drop", "accept"], ["reject", "accept"]];
        for targets in orders {
            let path = |target: &str| match target {
                "accept" => "/accept/forward/any/10.0.0.2/any/10.8.0.2".to_owned(),
                _ => format!("/{target}/forward/wire0/10.0.0.0/24"),
            };
            for target in targets {
                rfw.ok("PUT", &path(target));
            }
            assert_eq!(reaches(), [true, false, false], "{iptables}: {targets:?}");
            for target in targets {
                rfw.ok("DELETE", &path(target));
            }
        }
        rfw.ok("PUT", "/drop/forward/any/10.0.0.0/24/any/10.8.0.2");
        assert_eq!(reaches(), [false, true, false]);
        rfw.ok("PUT", "/accept/forward/any/10.0.0.3");
        assert_eq!(reaches(), [false, true, true]);
    });
}

#[test]
fn an_entry_has_its_time_and_the_kernel_ends_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        for (query, seconds) in [
            ("?expire=10m", 600),
            ("", 3600),
            ("?expire=0", 0),
            ("?expire=2147483", LONGEST),
            ("?expire=30", 30),
        ] {
            let answer = rfw.ok("PUT", &format!("/drop/input/any/1.2.3.4{query}"));
            let entries = host.entries();
            assert!(entries.len() == 1 && entries[0].timeout.abs_diff(seconds) <= 2, "{query}: {entries:?}");
            assert_eq!(answer["expires"].is_null(), seconds == 0, "{query}: {answer}");
            let list = rfw.ok("GET", "/list");
            let listed = left(&list[0]).unwrap_or(0);
            assert!(listed.abs_diff(seconds) <= 2, "{query}: {list}");
        }
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=2");
        rfw.ok("PUT", "/reject/output/any/2001:db8::/32?expire=2");
        rfw.ok("PUT", "/drop/input/any/1.2.3.5?expire=0");
        let start = Instant::now();
        rfw.signal("KILL");
        rfw.end();
        // Nobody but the kernel is there to end it.
        until(SOON, "they are gone", || host.entries().len() == 1);
        assert!((0.9..4.5).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        rfw.spawn();
        assert_eq!(networks(&rfw.ok("GET", "/list")), ["1.2.3.5"]);
    });
}

#[test]
fn what_a_set_can_not_hold_is_refused_and_not_cut_short() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=600");
        let before = host.everything(iptables);
        for path in ["/drop/input/any/1.2.3.4", "/drop/input/any/1.2.3.5", "/accept/output/eth0/2001:db8::1"]
        {
            for time in ["2147484", "25d", "36500d"] {
                let error = rfw.refused("PUT", &format!("{path}?expire={time}"), 400);
                assert!(error.contains("at most 2147483 seconds, or for ever with expire=0"), "{error}");
            }
        }
        let reply = rfw.send("PUT", "/drop/input/any?expire=25d", "1.2.3.4\n1.2.3.5\n");
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("at most 2147483 seconds"), "{}", reply.body);
        assert_eq!(host.everything(iptables), before);
        assert!(host.entries()[0].timeout <= 600);
    });
}

#[test]
fn other_lists_do_not_eat_the_time_of_an_entry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let start = Instant::now();
        rfw.ok("PUT", "/drop/input/any/9.9.9.9?expire=600");
        for number in 0..15 {
            rfw.send_ok("PUT", "/drop/input/any", &format!("1.2.3.{number}\n1.2.4.{number}\n"));
            rfw.send_ok("DELETE", "/drop/input/any", &format!("1.2.3.{number}\n"));
        }
        let entry = host.entries().into_iter().find(|entry| entry.element == "9.9.9.9").unwrap();
        let passed = start.elapsed().as_secs();
        assert!(600 - entry.timeout <= passed + 2, "{iptables}: {} s left after {passed} s", entry.timeout);
    });
}

/// A list of so many addresses, from that one on.
fn hosts(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("10.1.{}.{}\n", number / 250, number % 250)).collect()
}

#[test]
fn a_full_set_is_507_and_nothing_changes() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 10").start();
        let room = "no room: a set has at most 10 entries (ipset.maxelem in rfw.conf)";
        assert_eq!(rfw.send("PUT", "/drop/input/any", &hosts(0, 11)).status, 507);
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any?expire=600", &hosts(0, 10))["inserted"], 10);
        let before = host.everything(iptables);
        assert_eq!(rfw.refused("PUT", "/drop/input/any/9.9.9.9", 507), room);
        for list in
            [hosts(9, 2), hosts(10, 1), hosts(0, 11), hosts(0, 1000), format!("2001:db8::1\n{}", hosts(9, 2))]
        {
            let reply = rfw.send("PUT", "/drop/input/any", &list);
            assert_eq!((reply.status, &reply.json()["error"]), (507, &json!(room)), "{list}");
            assert_eq!(host.everything(iptables), before, "{list}");
        }
        // What is there may be renewed, and other sets have room.
        assert_eq!(rfw.ok("PUT", "/drop/input/any/10.1.0.3?expire=0")["result"], "refreshed");
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &hosts(0, 10))["refreshed"], 10);
        assert_eq!(rfw.send_ok("PUT", "/drop/input/eth0", &hosts(0, 10))["inserted"], 10);
        rfw.ok("DELETE", "/drop/input/any/10.1.0.3");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.9.9.9")["result"], "inserted");
        // A larger bound holds from the next start on, for the sets that are there too.
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset.maxelem = 10", "ipset.maxelem = 20");
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.9.9.8")["result"], "inserted");
        assert_eq!(rfw.send_ok("PUT", "/drop/input/eth0", &hosts(10, 3))["inserted"], 3);
        assert_eq!(host.entries().len(), 11 + 13);
        // What is there may stay, and go, where it is more than may be there now.
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset.maxelem = 20", "ipset.maxelem = 5");
        rfw.spawn();
        assert_eq!(rfw.send("PUT", "/drop/input/eth0", "9.9.9.9\n").status, 507);
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/eth0", &hosts(0, 2))["deleted"], 2);
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/eth0", &hosts(0, 60))["deleted"], 11);
        assert_eq!(rfw.send_ok("PUT", "/drop/input/eth0", &hosts(0, 5))["inserted"], 5);
    });
}

#[test]
fn counters_in_a_list_are_those_of_the_set() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24"]);
        let mut rfw = start(&host, iptables);
        for path in [
            "/drop/input/any/10.0.0.2",
            "/accept/input/wire0/10.0.0.3?expire=0",
            "/reject/input/any/9.9.9.0/24",
        ] {
            rfw.ok("PUT", path);
        }
        host.run(
            "ip",
            &["netns", "exec", "peer", "ping", "-c3", "-i0.2", "-W0.5", "-I", "10.0.0.2", "10.0.0.1"],
        )
        .fails_with(1);
        assert!(pings(&host, "10.0.0.3", "10.0.0.1"));
        let compare = |rfw: &Rfw<'_>| {
            let list = rfw.ok("GET", "/list");
            let mut listed: Vec<[String; 4]> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    let text = |key: &str| row[key].as_str().unwrap().to_owned();
                    let set = text("extra").split(' ').nth(1).unwrap().to_owned();
                    [set, text("source"), text("pkts"), text("bytes")]
                })
                .collect();
            let mut there: Vec<[String; 4]> = host
                .entries()
                .into_iter()
                .map(|entry| [entry.set, entry.element, entry.packets.to_string(), entry.bytes.to_string()])
                .collect();
            listed.sort();
            there.sort();
            assert_eq!(listed, there);
            let count = |address: &str| listed.iter().find(|row| row[1] == address).unwrap()[2].clone();
            assert_eq!([count("10.0.0.2"), count("10.0.0.3"), count("9.9.9.0/24")], ["3", "1", "0"]);
        };
        compare(&rfw);
        // A list that leaves them alone leaves their counters, though the set is made anew.
        rfw.send_ok("PUT", "/drop/input/any", &hosts(0, 20));
        rfw.send_ok("DELETE", "/drop/input/any", &hosts(0, 20));
        rfw.send_ok("PUT", "/accept/input/wire0", &hosts(0, 20));
        rfw.send_ok("DELETE", "/accept/input/wire0", &hosts(0, 20));
        compare(&rfw);
        rfw.stop();
        rfw.spawn();
        compare(&rfw);
        let row = &rfw.ok("GET", "/list?address=10.0.0.2")[0];
        let golden = [
            ("chain", "INPUT"),
            ("target", "DROP"),
            ("prot", "all"),
            ("opt", "--"),
            ("inp", "*"),
            ("out", "*"),
            ("source", "10.0.0.2"),
            ("destination", "0.0.0.0/0"),
            ("extra", "match-set rfw4-ids"),
            ("pkts", "3"),
            ("bytes", "252"),
        ];
        for (key, value) in golden {
            assert_eq!(row[key], value, "{key}: {row}");
        }
        let number: usize = row["num"].as_str().unwrap().parse().unwrap();
        let rules = host.run(iptables, &["-w", "-S", "INPUT", &number.to_string()]).ok();
        assert!(rules.contains("--match-set rfw4-ids src"), "{row}: {rules}");
    });
}

#[test]
fn neither_a_restart_nor_kill_9_loses_an_entry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        rfw.send_ok("PUT", "/drop/input/any?expire=600", &format!("{}2001:db8::1\n", hosts(0, 200)));
        for path in
            ["/accept/forward/any/1.2.3.4/any/5.6.7.8?expire=600", "/accept/input/eth0/1.2.3.4?expire=0"]
        {
            rfw.ok("PUT", path);
        }
        let everything = || {
            let (tables, sets, elements) = host.everything(iptables);
            (sorted(tables), sets, elements)
        };
        let before = everything();
        for signal in ["KILL", "TERM", "INT"] {
            rfw.signal(signal);
            rfw.end();
            assert_eq!(everything(), before, "{signal}");
            rfw.spawn();
            assert_eq!(everything(), before, "{signal}");
            assert!(host.entries().iter().all(|entry| entry.timeout == 0 || entry.timeout > 500));
            assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 203, "{signal}");
        }
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &hosts(0, 201))["refreshed"], 200);
        assert_eq!(rfw.ok("PUT", "/accept/input/eth0/1.2.3.4?expire=0")["result"], "unchanged");
    });
}

#[test]
fn entries_that_touch_the_white_list_go_at_the_start_and_at_a_hangup() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let list = "10.1.2.3\n10.1.0.0/16\n10.2.0.1\n2001:db8:1::7\n2001:db8:2::7\n";
        rfw.send_ok("PUT", "/drop/input/any", list);
        rfw.send_ok("PUT", "/accept/output/eth0", list);
        rfw.ok("PUT", "/drop/forward/any/10.2.0.1/any/10.1.2.3");
        rfw.stop();
        let mut rfw = rfw.white_list("127.0.0.1\n10.1.2.0/24\n");
        rfw.spawn();
        let removed = |log: &str| log.matches("[WARN] removed, since it touches the white list: ").count();
        assert_eq!(removed(&rfw.log()), 5, "{}", rfw.log());
        assert!(rfw.log().contains("white list: INPUT -s 10.1.0.0/16 -j DROP"), "{}", rfw.log());
        let kept = || -> BTreeSet<String> {
            host.kept(iptables).iter().map(|rule| rule.split(' ').nth(3).unwrap().to_owned()).collect()
        };
        let expected = ["10.2.0.1/32", "2001:db8:1::7/128", "2001:db8:2::7/128"].map(str::to_owned);
        assert_eq!(kept(), BTreeSet::from(expected), "{iptables}");
        rfw = rfw.white_list("127.0.0.1\n2001:db8:1::/48\n");
        rfw.signal("HUP");
        until(SOON, "the list is taken", || rfw.log().contains("the white list has been read again"));
        assert_eq!(removed(&rfw.log()), 7, "{}", rfw.log());
        let expected = ["10.2.0.1/32", "2001:db8:2::7/128"].map(str::to_owned);
        assert_eq!(kept(), BTreeSet::from(expected), "{iptables}");
        rfw.refused("PUT", "/drop/input/any/2001:db8:1::7", 400);
    });
}

#[test]
fn a_flush_removes_what_rfw_made_and_nothing_else() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.admin(iptables, "-A INPUT -p icmp -j ACCEPT");
        for (name, rule) in [
            ("rfwx", "-A INPUT -m set --match-set rfwx src -j DROP"),
            ("mine", "-A FORWARD -m set --match-set mine dst -j ACCEPT"),
        ] {
            host.run("ipset", &["create", name, "hash:net", "timeout", "0"]).ok();
            host.run("ipset", &["add", name, "1.2.3.4"]).ok();
            host.admin(iptables, rule);
        }
        host.run("ipset", &["create", "rfw", "hash:ip"]).ok();
        let before = host.everything(iptables);
        for with_server in [false, true] {
            let mut rfw = start(&host, iptables);
            rfw.send_ok("PUT", "/drop/input/any", &format!("{}2001:db8::1\n", hosts(0, 20)));
            rfw.send_ok("PUT", "/accept/output/eth", &hosts(0, 20));
            rfw.ok("PUT", "/accept/forward/any/1.2.3.4/any/5.6.7.8");
            assert_ne!(host.everything(iptables), before);
            // What came twice goes twice.
            if with_server {
                host.run(
                    "sh",
                    &[
                        "-c",
                        &format!("{iptables}-save -t filter >saved; {iptables}-restore --noflush <saved"),
                    ],
                )
                .ok();
                host.admin(iptables, "-D INPUT -p icmp -j ACCEPT");
                host.admin(iptables, "-D INPUT -m set --match-set rfwx src -j DROP");
                host.admin(iptables, "-D FORWARD -m set --match-set mine dst -j ACCEPT");
            }
            rfw.stop();
            rfw.call(&["--flush"]).ok();
            let (mut after, mut expected) = (host.everything(iptables), before.clone());
            after.0.sort();
            expected.0.sort();
            assert_eq!(after, expected, "{iptables}: {with_server}");
        }
        // Without the option it knows its sets all the same.
        let mut rfw = start(&host, iptables);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.stop();
        let rfw = rfw.reconfigure("\nipset\n", "\n");
        rfw.call(&["--flush"]).ok();
        let mut after = host.everything(iptables);
        after.0.sort();
        let mut expected = before.clone();
        expected.0.sort();
        assert_eq!(after, expected);
    });
}

#[test]
fn a_rule_of_an_admin_that_uses_a_set_of_rfw_stops_neither_a_start_nor_a_flush() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        host.admin(iptables, "-A FORWARD -m set --match-set rfw4-ids src -j DROP");
        rfw.ok("DELETE", "/drop/input/any/1.2.3.4");
        rfw.stop();
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        assert_eq!(networks(&rfw.ok("GET", "/list")), ["1.2.3.4"]);
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.kept(iptables), Vec::<String>::new());
        assert_eq!(host.entries(), []);
        assert_eq!(host.rules(iptables, "FORWARD").len(), 1);
    });
}

#[test]
fn after_a_flush_by_an_admin_answers_are_true() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let list = "1.0.0.1\n1.0.0.2\n2001:db8::1\n";
        for round in 0..3 {
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", list)["inserted"], 3, "{round}");
            assert_eq!(rfw.ok("PUT", "/accept/output/eth0/1.0.0.1")["result"], "inserted", "{round}");
            for command in [iptables, &of_ipv6(iptables)] {
                host.admin(command, "-F");
            }
            match round {
                0 => assert_eq!(rfw.ok("GET", "/list"), json!([])),
                1 => {
                    assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "absent");
                    assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", list)["absent"], 3);
                }
                _ => {}
            }
        }
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.2")["result"], "inserted");
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.2/32 -j DROP"]);
        assert_eq!(networks(&rfw.ok("GET", "/list")), ["1.0.0.2"]);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "absent");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.2")["result"], "deleted");
    });
}

#[test]
fn what_an_admin_does_to_sets_and_their_rules_confuses_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let path = "/drop/input/any/1.0.0.1";
        // The set emptied.
        rfw.ok("PUT", path);
        host.run("ipset", &["flush", "rfw4-ids"]).ok();
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
        // An entry deleted, another added by hand.
        host.run("ipset", &["del", "rfw4-ids", "1.0.0.1"]).ok();
        host.run("ipset", &["add", "rfw4-ids", "1.0.0.9", "timeout", "600"]).ok();
        assert_eq!(networks(&rfw.ok("GET", "/list")), ["1.0.0.9"]);
        assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.9")["result"], "deleted");
        // The rule deleted by its number.
        host.admin(iptables, "-I INPUT -p udp -j ACCEPT");
        let numbers = host.run(iptables, &["-w", "-nL", "INPUT", "--line-numbers"]).ok();
        let number =
            numbers.lines().find(|line| line.contains("rfw4-ids")).unwrap().split(' ').next().unwrap();
        host.admin(iptables, &format!("-D INPUT {number}"));
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.2")["result"], "inserted");
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.2/32 -j DROP"]);
        // Rule and set gone.
        host.admin(iptables, "-F INPUT");
        until(SOON, "the set can be destroyed", || {
            host.run("ipset", &["destroy", "rfw4-ids"]).status == Some(0)
        });
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.1\n")["absent"], 1);
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n")["inserted"], 2);
        // The same, and the next is a single PUT.
        host.admin(iptables, "-F INPUT");
        until(SOON, "the set can be destroyed", || {
            host.run("ipset", &["destroy", "rfw4-ids"]).status == Some(0)
        });
        assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.1/32 -j DROP"]);
        // A rule twice: the list tells what the kernel does, a start goes well.
        host.run(
            "sh",
            &["-c", &format!("{iptables}-save -t filter >saved; {iptables}-restore --noflush <saved")],
        )
        .ok();
        assert_eq!(rfw.ok("PUT", path)["result"], "refreshed");
        assert_eq!(rfw.ok("DELETE", path)["result"], "deleted");
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        let mut rfw = rfw;
        rfw.stop();
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
    });
}

/// Turns the option off.
fn without_sets(rfw: Rfw<'_>) -> Rfw<'_> {
    rfw.reconfigure("\nipset\n", "\n")
}

/// Each row of a list by what it holds, with its remaining time.
fn times(list: &Value) -> Vec<(String, Option<u64>)> {
    let keys = ["chain", "target", "inp", "out", "source", "destination"];
    let rows = list.as_array().unwrap().iter();
    let mut times: Vec<_> =
        rows.map(|row| (keys.map(|key| row[key].as_str().unwrap()).join(" "), left(row))).collect();
    times.sort();
    times
}

#[test]
fn switching_the_option_takes_everything_along_with_its_time() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        for path in [
            "/drop/input/any/1.2.3.0/24?expire=100",
            "/accept/input/any/1.2.3.4?expire=0",
            "/reject/input/eth0/1.2.3.4?expire=2h",
            "/drop/output/eth/5.6.7.8?expire=2147483",
            "/drop/forward/any/0.0.0.0/eth1/5.6.7.8?expire=3h",
            "/drop/forward/any/1.2.3.4/any/5.6.7.8?expire=4h",
            "/accept/forward/any/1.2.3.5/any/5.6.7.8?expire=0",
            "/drop/input/any/2001:db8::/32?expire=0",
            "/accept/input/any/2001:db8::1?expire=5h",
            "/drop/input/any/::1.2.3.4?expire=0",
        ] {
            rfw.ok("PUT", path);
        }
        host.admin(iptables, "-A INPUT -s 1.2.3.4 -j DROP");
        let kept = sorted(host.kept(iptables));
        let before = times(&rfw.ok("GET", "/list"));
        assert_eq!((kept.len(), before.len()), (10, 10));
        let compare = |rfw: &Rfw<'_>, what: &str| {
            assert_eq!(sorted(host.kept(iptables)), kept, "{iptables}: {what}");
            let now = times(&rfw.ok("GET", "/list"));
            for ((row, left), (row_before, left_before)) in now.iter().zip(&before) {
                assert_eq!(row, row_before, "{what}");
                let lost = left_before.zip(*left).map_or(0, |(before, left)| before.abs_diff(left));
                assert!(
                    left.is_some() == left_before.is_some() && lost < 10,
                    "{what}: {row}: {left:?} {left_before:?}"
                );
            }
        };
        for round in 0..2 {
            rfw.stop();
            rfw = rfw.configure("ipset");
            rfw.spawn();
            compare(&rfw, "on");
            assert_eq!(host.entries().len(), 8, "{round}");
            rfw.stop();
            rfw = without_sets(rfw);
            rfw.spawn();
            compare(&rfw, "off");
            assert_eq!(host.sets(), Vec::<String>::new(), "{round}");
        }
        assert_eq!(rfw.ok("PUT", "/accept/input/any/1.2.3.4?expire=0")["result"], "unchanged");
    });
}

#[test]
fn what_is_too_long_for_a_set_stays_a_rule_that_requests_find() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        for address in ["1.0.0.1", "1.0.0.2", "1.0.0.3"] {
            rfw.ok("PUT", &format!("/drop/input/any/{address}?expire=30d"));
        }
        rfw.ok("PUT", "/drop/input/any/1.0.0.4?expire=1d");
        rfw.stop();
        let mut rfw = rfw.configure("ipset");
        rfw.spawn();
        assert_eq!(rfw.log().matches("stays a rule, since a set can't hold it that long").count(), 3);
        assert_eq!(host.entries().len(), 1);
        let listed = times(&rfw.ok("GET", "/list"));
        assert_eq!(listed.len(), 4);
        assert_eq!(listed.iter().filter(|(_, left)| left.unwrap() > 29 * 86_400).count(), 3);
        // A PUT and a list renew it, and then it is in the set alone.
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=600")["result"], "refreshed");
        let answer = rfw.send_ok("PUT", "/drop/input/any?expire=600", "1.0.0.2\n1.0.0.9\n");
        assert_eq!((&answer["inserted"], &answer["refreshed"]), (&json!(1), &json!(1)), "{answer}");
        let listed = times(&rfw.ok("GET", "/list"));
        assert_eq!(listed.len(), 5, "{listed:?}");
        assert_eq!(listed.iter().filter(|(_, left)| left.unwrap() > 29 * 86_400).count(), 1, "{listed:?}");
        let answer = rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.3\n1.0.0.4\n1.0.0.7\n");
        assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(2), &json!(1)), "{answer}");
        assert_eq!(host.kept(iptables).len(), 3);
    });
}

#[test]
fn a_switch_puts_every_exception_before_every_block() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        // As rules the last is in front.
        let accepts = ["/accept/forward/any/1.2.3.4/any/5.6.7.8", "/accept/forward/any/1.2.3.9"];
        let blocks = [
            "/drop/forward/any/1.2.3.4/any/5.6.7.0/24",
            "/reject/forward/any/1.2.3.0/24",
            "/drop/forward/eth0/1.2.3.0/24",
        ];
        for path in accepts.iter().chain(&blocks) {
            rfw.ok("PUT", path);
        }
        let is_ordered = |what: &str| {
            let rules = host.rules(iptables, "FORWARD");
            let first_block = rules.iter().position(|rule| !rule.ends_with("-j ACCEPT")).unwrap();
            assert!(
                rules[first_block..].iter().all(|rule| !rule.ends_with("-j ACCEPT")),
                "{iptables}: {what}: {rules:#?}"
            );
        };
        rfw.stop();
        rfw = rfw.configure("ipset");
        rfw.spawn();
        is_ordered("on");
        for path in blocks.iter().chain(&accepts) {
            assert_eq!(rfw.ok("PUT", path)["result"], "refreshed", "{path}");
        }
        is_ordered("renewed");
        rfw.stop();
        rfw = without_sets(rfw);
        rfw.spawn();
        is_ordered("off");
    });
}

#[test]
fn without_ipset_on_the_machine_the_option_is_refused_with_the_name_of_the_package() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset");
        // Hidden as far as a test can: an empty file over each that there is.
        let hide = "for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
            test ! -e $folder/ipset || mount --bind /dev/null $folder/ipset; done";
        let before = host.tables(iptables);
        host.run("sh", &["-c", hide]).ok();
        for arguments in [&["--check"][..], &[]] {
            let error = rfw.call(arguments).fails_with(78);
            assert!(error.contains("ipset") && error.contains("install the package ipset"), "{error}");
        }
        assert_eq!(host.tables(iptables), before);
        // Not needed without the option.
        let mut rfw = without_sets(rfw);
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        let mut rfw = {
            rfw.stop();
            rfw.configure("ipset\nipset.path = /nowhere/ipset")
        };
        let error = rfw.call(&["--check"]).fails_with(78);
        assert!(error.contains("ipset.path") && error.contains("\"/nowhere/ipset\""), "{error}");
        rfw = rfw.reconfigure("/nowhere/ipset", "tools/ipset");
        host.run("sh", &["-c", "mkdir tools; printf '#!/bin/sh\\necho no sets in this kernel >&2\\nexit 1\\n' >tools/ipset; chmod 755 tools/ipset"]).ok();
        let error = rfw.call(&["--check"]).fails_with(78);
        assert!(error.contains("no sets in this kernel"), "{error}");
    });
}

#[test]
fn many_rules_are_spoken_of_once() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let said = || {
            rfw.log()
                .matches("with the option ipset in rfw.conf they cost as little as a single rule")
                .count()
        };
        // A plain user's netlink holds a few hundred rules at once.
        let in_parts = |method: &str, first: usize, last: usize| {
            for start in (first..last).step_by(200) {
                rfw.send_ok(method, "/drop/input/any", &hosts(start, 200.min(last - start)));
            }
        };
        in_parts("PUT", 0, 500);
        assert_eq!(said(), 0);
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        assert_eq!(said(), 1);
        in_parts("PUT", 400, 600);
        rfw.ok("DELETE", "/drop/input/any/9.9.9.9");
        in_parts("DELETE", 0, 600);
        in_parts("PUT", 0, 600);
        assert_eq!(said(), 1);
        assert_eq!(rfw.log().matches("[WARN]").count(), 1, "{}", rfw.log());
    });
}

#[test]
fn a_lookup_gives_what_holds_an_address() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        for path in [
            "/drop/input/any/1.2.3.4",
            "/drop/input/eth0/1.2.3.0/24",
            "/accept/input/any/1.2.0.0/16",
            "/reject/output/any/1.2.3.4",
            "/drop/forward/any/9.9.9.9/any/1.2.3.0/28",
            "/drop/forward/ppp/1.2.3.4/eth0/9.9.9.0/24",
            "/drop/input/any/1.2.3.5",
            "/drop/input/any/2001:db8::1",
            "/drop/input/any/2001:db8::/32",
            "/drop/output/eth0/2001:db9::/32",
        ] {
            rfw.ok("PUT", path);
        }
        let golden = [
            ("/list?address=1.2.3.4", "1.2.0.0/16 1.2.3.0/24 1.2.3.0/28 1.2.3.4 1.2.3.4 1.2.3.4"),
            ("/list?address=1.2.3.4/32", "1.2.0.0/16 1.2.3.0/24 1.2.3.0/28 1.2.3.4 1.2.3.4 1.2.3.4"),
            ("/list?address=::ffff:1.2.3.4", "1.2.0.0/16 1.2.3.0/24 1.2.3.0/28 1.2.3.4 1.2.3.4 1.2.3.4"),
            ("/list?address=%31.2.3.5", "1.2.0.0/16 1.2.3.0/24 1.2.3.0/28 1.2.3.5"),
            ("/list?address=1.2.3.0/24", "1.2.0.0/16 1.2.3.0/24"),
            ("/list?address=1.2.3.77/24", "1.2.0.0/16 1.2.3.0/24"),
            ("/list?address=1.2.0.0/15", ""),
            ("/list?address=1.3.0.1", ""),
            ("/list?address=9.9.9.9", "1.2.3.0/28 1.2.3.4"),
            ("/list/input?address=1.2.3.4", "1.2.0.0/16 1.2.3.0/24 1.2.3.4"),
            ("/list/input/any?address=1.2.3.4", "1.2.0.0/16 1.2.3.4"),
            ("/list/input/eth0?address=1.2.3.4", "1.2.3.0/24"),
            ("/list/input/eth?address=1.2.3.4", ""),
            ("/list/output?address=1.2.3.4", "1.2.3.4"),
            ("/list/forward?address=1.2.3.4", "1.2.3.0/28 1.2.3.4"),
            ("/list/forward/eth0?address=1.2.3.4", "1.2.3.4"),
            ("/list/forward/eth0?address=9.9.9.1", "1.2.3.4"),
            ("/list?address=2001:db8::1", "2001:db8::/32 2001:db8::1"),
            ("/list?address=2001:DB8:0::2", "2001:db8::/32"),
            ("/list?address=2001:db8:1::/48", "2001:db8::/32"),
            ("/list?address=2001:db9::/32", "2001:db9::/32"),
            ("/list/input?address=2001:db9::1", ""),
        ];
        for (path, expected) in golden {
            let list = rfw.ok("GET", path);
            let mut found: Vec<&str> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    let (source, destination) =
                        (row["source"].as_str().unwrap(), row["destination"].as_str().unwrap());
                    match source.ends_with("/0") || source == "9.9.9.9" {
                        true => destination,
                        false => source,
                    }
                })
                .collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), expected, "{path}: {list:#}");
        }
        for query in [
            "address=",
            "address=x",
            "address=1.2.3",
            "address=1.2.3.4/33",
            "address=1.2.3.4&address=1.2.3.4",
            "address=1.2.3.4%2F33",
            "addresses=1.2.3.4",
            "address=1.2.3.4&expire=3",
            "address",
        ] {
            rfw.refused("GET", &format!("/list?{query}"), 400);
        }
        rfw.refused("GET", "/?address=1.2.3.4", 400);
        rfw.refused("PUT", "/drop/input/any/1.2.3.4?address=1.2.3.4", 400);
    });
}

#[test]
fn a_tls_session_is_resumed() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    for version in ["-tls1_2", "-tls1_3"] {
        let connect = |session: [&str; 2]| {
            let common = ["s_client", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt", "-ign_eof", version];
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic bWU6c2VjcmV0\r\nConnection: close\r\n\r\n";
            host.feed("openssl", &[&common[..], &session].concat(), request).out
        };
        let first = connect(["-sess_out", "session"]);
        assert!(first.contains("New, TLSv1") && first.contains("200 OK"), "{version}: {first}");
        let second = connect(["-sess_in", "session"]);
        assert!(second.contains("Reused, TLSv1") && second.contains("200 OK"), "{version}: {second}");
    }
    drop(rfw);
}

/// Waits until no process of these is left.
#[track_caller]
fn all_end(processes: &[(u32, String)]) {
    until(SOON, "the processes have ended", || processes.iter().all(|(pid, _)| !is_running(*pid)));
}

fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[test]
fn tools_stay_from_their_first_use_until_rfw_ends_however_it_does() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).reconfigure("outward.server\n", "").configure("ipset").start();
        let tools = |rfw: &Rfw<'_>| -> BTreeSet<String> {
            rfw.children()
                .iter()
                .map(|(_, line)| {
                    Path::new(line.split(' ').next().unwrap())
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned()
                })
                .collect()
        };
        let get = |method: &str, path: &str| {
            let reply = rfw.curl(&["-X", method, &format!("http://127.0.0.1:7390{path}")]);
            assert_eq!(reply.status, 200, "{reply:?}");
            reply
        };
        get("GET", "/list");
        assert_eq!(tools(&rfw), BTreeSet::new(), "before their first use");
        for round in 0..3 {
            get("PUT", &format!("/drop/input/any/1.0.0.{round}"));
            get("PUT", &format!("/drop/forward/any/1.0.0.{round}/any/2.0.0.1"));
        }
        let children = rfw.children();
        assert_eq!(
            tools(&rfw),
            BTreeSet::from([format!("{iptables}-restore"), "ipset".to_owned()]),
            "{children:?}"
        );
        get("PUT", "/drop/input/any/1.0.0.9");
        get("DELETE", "/drop/input/any/1.0.0.1");
        assert_eq!(rfw.children(), children, "they are the same");
        rfw.signal("KILL");
        rfw.end();
        all_end(&children);
        rfw.spawn();
        let reply = rfw.curl(&["-X", "PUT", "http://127.0.0.1:7390/drop/input/any/1.0.0.9"]);
        assert_eq!(reply.json()["result"], "refreshed");
        let children = rfw.children();
        assert!(!children.is_empty());
        rfw.stop();
        all_end(&children);
    });
}

#[test]
fn tools_that_were_killed_are_started_again() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        for (count, signal) in ["KILL", "TERM", "KILL"].into_iter().enumerate() {
            let path = |rest: &str| format!("/drop/{rest}/1.0.0.{count}");
            assert_eq!(rfw.ok("PUT", &path("input/any"))["result"], "inserted");
            assert_eq!(
                rfw.ok("PUT", "/drop/input/any/2001:db8::1?expire=0")["result"],
                ["inserted", "unchanged"][usize::from(count > 0)]
            );
            let children = rfw.children();
            assert!(!children.is_empty());
            for (pid, _) in &children {
                run("kill", &["-s", signal, &pid.to_string()]).ok();
            }
            all_end(&children);
            assert_eq!(rfw.ok("PUT", &path("input/any"))["result"], "refreshed");
            assert_eq!(rfw.ok("PUT", &path("output/eth0"))["result"], "inserted");
            assert_eq!(rfw.ok("DELETE", &path("output/eth0"))["result"], "deleted");
        }
        assert_eq!(host.kept(iptables).len(), 4);
    });
}

/// Puts scripts in place of the tools of that variant: each may do something first,
/// while a file of its name is there.
fn wrap_tools(host: &Host, iptables: &str) {
    let script = format!(
        "mkdir tools; for name in {iptables} {0} ipset; do for tool in $name $name-save $name-restore; do \
           printf '#!/bin/sh\\nif [ -e %s/%s.sh ]; then . %s/%s.sh; fi\\nexec %s \"$@\"\\n' \
             $PWD $tool $PWD $tool $tool >tools/$tool; chmod 755 tools/$tool; done; done",
        of_ipv6(iptables)
    );
    host.run("sh", &["-c", &script]).ok();
}

/// rfw on such tools.
fn wrapped<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    wrap_tools(host, iptables);
    let dir = host.dir.display();
    host.rfw(&format!("{dir}/tools/{iptables}")).configure(&format!("ipset\nipset.path = {dir}/tools/ipset"))
}

fn kill_children(rfw: &Rfw<'_>) {
    let children = rfw.children();
    for (pid, _) in &children {
        run("kill", &["-s", "KILL", &pid.to_string()]).ok();
    }
    all_end(&children);
}

#[test]
fn a_tool_that_hangs_is_answered_for_with_500_and_the_next_request_works() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = wrapped(&host, iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        for (tool, path) in [
            (format!("{iptables}-restore"), "/drop/forward/any/1.0.0.1/any/1.0.0.2"),
            ("ipset".to_owned(), "/drop/input/any/1.0.0.2"),
        ] {
            // A resident one hangs from its next start on.
            kill_children(&rfw);
            let resident = "case \"$*\" in -|*--verbose*) exec sleep 60; esac\n";
            host.write(&format!("{tool}.sh"), 0o644, resident);
            let start = Instant::now();
            let error = rfw.refused("PUT", path, 500);
            assert!(error.contains(&tool) && error.contains("no answer in 5.5"), "{tool}: {error}");
            assert!((5.0..7.5).contains(&start.elapsed().as_secs_f64()), "{tool}: {:?}", start.elapsed());
            fs::remove_file(host.dir.join(format!("{tool}.sh"))).unwrap();
            assert!(!rfw.children().iter().any(|(_, line)| line.contains("sleep")), "{:?}", rfw.children());
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{tool}");
        }
        assert_eq!(host.kept(iptables).len(), 3);
    });
}

#[test]
fn what_a_tool_complains_of_reaches_the_client() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = wrapped(&host, iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        let before = host.everything(iptables);
        let restore = format!("{iptables}-restore");
        let golden = [
            (restore.as_str(), "PUT", "/drop/forward/any/1.0.0.1/any/1.0.0.2", None),
            (restore.as_str(), "PUT", "/drop/output/any", Some("1.0.0.1\n1.0.0.2\n")),
            ("ipset", "PUT", "/drop/input/any/1.0.0.2", None),
            ("ipset", "DELETE", "/drop/input/any/1.0.0.1", None),
            ("ipset", "PUT", "/drop/input/any", Some("1.0.0.1\n1.0.0.2\n")),
            ("ipset", "GET", "/list", None),
        ];
        for (tool, method, path, list) in golden {
            let script =
                host.write(&format!("{tool}.sh"), 0o644, "echo 'the kernel is on holiday' >&2; exit 3\n");
            kill_children(&rfw);
            let reply = match list {
                Some(list) => rfw.send(method, path, list),
                None => rfw.request(method, path),
            };
            assert_eq!(reply.status, 500, "{tool} {method} {path}: {reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("the kernel is on holiday") && error.contains(tool), "{path}: {error}");
            fs::remove_file(script).unwrap();
            let now = host.everything(iptables);
            assert!(now.0 == before.0 && now.2 == before.2, "{tool} {method} {path}: {now:?}");
        }
        for (_, method, path, list) in golden {
            match list {
                Some(list) => drop(rfw.send_ok(method, path, list)),
                None => drop(rfw.ok(method, path)),
            }
        }
    });
}

/// A feed of 100,000: addresses and networks of both families, in no order, with
/// comments between them.
fn feed() -> Vec<String> {
    let line = |number: u32| match number % 20 {
        0 => format!("2001:db8:{:x}::/48", number / 20 + 1),
        1 => format!("{}/24", Ipv4Addr::from(0x6400_0000 + ((number / 20) << 8))),
        2 => format!("{}/20", Ipv4Addr::from(0x7800_0000 + ((number / 20) << 12))),
        3 => format!("2001:db9::{:x}:{:x}", number / 20 + 1, number % 7 + 1),
        _ => Ipv4Addr::from(0x0b00_0000 + number.wrapping_mul(7_919) % 0x0100_0000).to_string(),
    };
    (0..100_000).map(line).collect()
}

fn of_family<'a>(feed: impl IntoIterator<Item = &'a String>, v6: bool) -> BTreeSet<String> {
    feed.into_iter().filter(|line| line.contains(':') == v6).cloned().collect()
}

/// The most memory in kB that rfw has held.
fn peak(rfw: &Rfw<'_>) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_feed_of_100_000_is_in_the_kernel_exactly_and_in_little_memory() {
    let host = Host::new();
    let rfw = start(&host, "iptables-nft");
    let feed = feed();
    let text = format!("# a feed\n{}\n; its end\n", feed.join("\r\n"));
    for counts in [[100_000, 0], [0, 100_000]] {
        let answer = rfw.send_ok("PUT", "/drop/input/any?expire=25h", &text);
        assert_eq!(["inserted", "refreshed"].map(|key| answer[key].as_u64().unwrap()), counts, "{answer}");
        let entries = host.entries();
        assert!(entries.iter().all(|entry| entry.timeout > 89_900 && entry.timeout <= 90_000));
        for (set, v6) in [("rfw4-ids", false), ("rfw6-ids", true)] {
            let there = entries.iter().filter(|entry| entry.set == set).map(|entry| entry.element.clone());
            assert!(there.collect::<BTreeSet<String>>() == of_family(&feed, v6), "{set} is not the feed");
        }
        assert_eq!(host.rules("iptables-nft", "INPUT").len(), 1);
    }
    for range in [0..20, 20..20_000] {
        let part = &feed[range];
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", &part.join("\n"))["deleted"], part.len());
    }
    let left = &feed[20_000..];
    let list = rfw.request("GET", "/list").body;
    let rows = list.strip_prefix("[\n").unwrap().strip_suffix("\n]\n").unwrap().split(",\n");
    let rows: Vec<Value> = rows.map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), left.len());
    let listed = rows.iter().map(|row| row["source"].as_str().unwrap().to_owned());
    assert!(listed.collect::<BTreeSet<String>>() == left.iter().cloned().collect(), "it is not what is left");
    let peak = peak(&rfw);
    assert!(peak < 64 << 10, "{peak} kB");
}

#[test]
fn kill_9_in_the_middle_of_a_list_leaves_all_of_it_or_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let feed: Vec<String> = feed().into_iter().filter(|line| !line.contains(':')).take(24_000).collect();
        let all = of_family(&feed, false);
        let old: BTreeSet<String> = ["1.0.0.1", "1.0.0.0/24", "1.0.0.3"].map(str::to_owned).into();
        for (children_too, first, list) in [
            (false, &old, &feed[..]),
            (true, &old, &feed[..]),
            // Long, and yet small beside the set that it goes into.
            (true, &all, &["10.9.9.9".to_owned()]),
        ] {
            let second = match list {
                [_] => (0..10_000).map(|number| Ipv4Addr::from(0x0a00_0000 + number).to_string()).collect(),
                _ => list.to_vec(),
            };
            host.run("ipset", &["flush"]).ok();
            let texts = first.iter().cloned().collect::<Vec<_>>().join("\n");
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &texts)["inserted"], first.len());
            host.write("list", 0o644, &second.join("\n"));
            let curl = [
                "-sS",
                "--cacert",
                "ca.crt",
                "-u",
                "me:secret",
                "-T",
                "list",
                "https://127.0.0.1:7393/drop/input/any",
            ];
            let mut client =
                host.command("curl").args(curl).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            let mut at_work = None;
            // Too short a moment for host::until.
            let start = Instant::now();
            while at_work.is_none() && start.elapsed() < SOON {
                at_work = rfw.children().into_iter().find(|(_, line)| line.ends_with("-exist restore"));
            }
            let (ipset, _) = at_work.expect("ipset restore runs");
            while !host.sets().iter().any(|set| set.starts_with("rfw-work")) && is_running(ipset) {}
            let children = rfw.children();
            let mut victims = vec![rfw.pid().to_string()];
            if children_too {
                victims.insert(0, ipset.to_string());
            }
            let victims: Vec<&str> = victims.iter().map(String::as_str).collect();
            run("kill", &[&["-s", "KILL"], &victims[..]].concat());
            rfw.end();
            client.wait().unwrap();
            all_end(&children);
            let both: BTreeSet<String> = first.iter().cloned().chain(second.iter().cloned()).collect();
            let there = elements(&host, "rfw4-ids");
            assert!(
                there == *first || there == both,
                "{iptables}: {} of {} to {}",
                there.len(),
                first.len(),
                both.len()
            );
            rfw.spawn();
            assert_eq!(host.sets(), ["rfw4-ids"], "{iptables}");
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &second.join("\n"))["skipped_total"], 0);
            assert!(elements(&host, "rfw4-ids") == both, "{iptables}");
        }
    });
}

#[test]
fn a_block_is_renewed_behind_an_exception_that_an_admin_moved() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let block = "/drop/forward/any/1.2.3.0/24/any/5.6.7.8";
        rfw.ok("PUT", block);
        host.admin(
            iptables,
            "-A FORWARD -s 1.2.3.4 -d 5.6.7.8 -m comment --comment 'rfw permanent' -j ACCEPT",
        );
        assert_eq!(order(&host, iptables, "FORWARD"), ["drop pair", "accept pair"]);
        assert_eq!(rfw.ok("PUT", block)["result"], "refreshed");
        assert_eq!(order(&host, iptables, "FORWARD"), ["accept pair", "drop pair"]);
    });
}
