//! The option `ipset`: addresses in sets of the kernel, in both variants of iptables.

mod admin;
mod feed;
mod mirror;
mod order;
mod registry;
mod repair;
mod switch;
mod tools;

use crate::golden::cases;
use crate::host::{Host, Rfw, SOON, in_both_variants, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
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
        let golden = cases("set-names.txt");
        for (at, [path, _]) in &golden {
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{at}");
        }
        let names: BTreeSet<&str> = golden.iter().map(|(_, [_, set])| set.as_str()).collect();
        assert_eq!(host.sets(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let tables = host.tables(iptables).concat();
        for name in names {
            let uses = |line: &&String| line.contains(&format!("--match-set {name} "));
            assert_eq!(tables.iter().filter(uses).count(), 1, "{name}: {tables:#?}");
            let count = golden.iter().filter(|(_, [_, set])| *set == name).count();
            assert_eq!(elements(&host, name).len(), count, "{name}");
        }
        assert_eq!(host.kept(iptables).len(), golden.len());
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), golden.len());
        let created = host.run("ipset", &["save"]).ok();
        for line in
            created.lines().filter(|line| line.starts_with("create rfw4") || line.starts_with("create rfw6"))
        {
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
fn an_entry_has_its_time_and_the_kernel_ends_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        for (query, seconds) in [
            ("?expire=10m", 600),
            ("", 3600),
            ("?expire=0", 0),
            // A second less: its end is told in whole seconds, and the kernel holds no more.
            ("?expire=2147483", LONGEST - 1),
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
            for time in ["315360001", "3651d", "36500d"] {
                let error = rfw.refused("PUT", &format!("{path}?expire={time}"), 400);
                assert!(
                    error.contains("at most 315360000 seconds (3650 days), or for ever with expire=0"),
                    "{error}"
                );
            }
        }
        let reply = rfw.send("PUT", "/drop/input/any?expire=3651d", "1.2.3.4\n1.2.3.5\n");
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("at most 315360000 seconds"), "{}", reply.body);
        assert_eq!(host.everything(iptables), before);
        assert!(host.entries()[0].timeout <= 600);
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
        let expected = json!({
            "chain": "INPUT",
            "target": "DROP",
            "prot": "all",
            "opt": "--",
            "inp": "*",
            "out": "*",
            "source": "10.0.0.2",
            "destination": "0.0.0.0/0",
            "extra": "match-set rfw4-ids",
            "pkts": "3",
            "bytes": "252",
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&row[key], value, "{key}: {row}");
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

/// Turns the option off.
fn without_sets(rfw: Rfw<'_>) -> Rfw<'_> {
    rfw.reconfigure("\nipset\n", "\n")
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
