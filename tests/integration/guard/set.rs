//! The guard of a long white list, whose networks are kept in a set.

use super::{DROPPED, dropped_by_guard, guard_for, guard_of, reload, visit};
use crate::host::fake::Fault;
use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The time within which rfw looks at what others have done.
const A_MINUTE: Duration = Duration::from_secs(70);

/// The host's own addresses, of which rfw would warn.
const OWN: &str = "never 10.0.0.1\nnever fd00::1\n";

/// So many networks of each family, of which no two can be merged, and the lines of `more`.
fn list(count: usize, more: &str) -> String {
    let networks = (0..count).map(|number| format!("198.18.{number}.0/25\n2001:db8:{number:x}::1\n"));
    networks.chain([more.to_owned(), OWN.to_owned()]).collect()
}

/// The guard rules of a family that look packets up in its set.
fn guard_with_set(family: u8) -> Vec<String> {
    let mut rules = guard_for(&[]);
    for (chain, option, flag) in [("INPUT", "--dport", "src"), ("OUTPUT", "--sport", "dst")] {
        rules.push(format!(
            "-A {chain} -p tcp -m tcp {option} 7393 -m set --match-set rfw{family}-guard {flag} -j ACCEPT"
        ));
    }
    rules.sort();
    rules
}

/// The entries of a set of the guard.
fn entries(host: &Host, family: u8) -> Vec<String> {
    let set = format!("rfw{family}-guard");
    let entries = host.entries().into_iter().filter(|entry| entry.set == set);
    let mut elements: Vec<String> = entries.map(|entry| entry.element).collect();
    elements.sort();
    elements
}

/// Wires the host to a neighbour with a client and a stranger.
fn with_neighbour() -> Host {
    let host = Host::new();
    host.neighbour(
        "peer",
        &["10.0.0.1/24", "fd00::1/64"],
        &["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64"],
    );
    host
}

/// The client of [`with_neighbour`] and the host itself.
const CLIENTS: &str = "127.0.0.1\n10.0.0.2\nfd00::2\n::1\n";

/// The families: command, address of the server, the client, the stranger.
fn families(iptables: &str) -> [(String, &'static str, &'static str, &'static str); 2] {
    [
        (iptables.to_owned(), "10.0.0.1", "10.0.0.2", "10.0.0.3"),
        (of_ipv6(iptables), "[fd00::1]", "fd00::2", "fd00::3"),
    ]
}

#[track_caller]
fn lets_in_clients_alone(host: &Host, iptables: &str) {
    for (command, server, client, stranger) in families(iptables) {
        assert_eq!(visit(host, client, server), (0, "200".to_owned()), "{command}");
        assert_eq!(visit(host, stranger, server).0, DROPPED, "{command}");
    }
}

#[test]
fn more_than_sixteen_networks_are_a_set() {
    in_both_variants(|iptables| {
        let host = with_neighbour();
        let v6 = of_ipv6(iptables);
        // With the two of the list below, sixteen of a family.
        let rfw = host.rfw(iptables).configure("rules.max = 1").white_list(&list(14, CLIENTS)).start();
        assert_eq!([iptables, &v6].map(|command| host.guards(command).len()), [34, 34]);
        assert_eq!((host.sets(), host.registry()), (vec![], None), "{iptables}");
        lets_in_clients_alone(&host, iptables);

        reload(&rfw, &list(15, CLIENTS));
        assert_eq!(guard_of(&host, iptables), guard_with_set(4));
        assert_eq!(guard_of(&host, &v6), guard_with_set(6));
        assert_eq!([4, 6].map(|family| entries(&host, family).len()), [17, 17]);
        assert!(host.entries().iter().all(|entry| entry.timeout == 0));
        let members = [
            "rfw-nonce- comment \"nonce\"",
            "rfw4-guard comment \"guard inet\"",
            "rfw6-guard comment \"guard inet6\"",
        ];
        assert_eq!(host.registry().unwrap(), members);
        lets_in_clients_alone(&host, iptables);

        // What can be merged counts as one.
        let halves = "198.18.0.128/25\n198.18.1.128/25\n198.18.1.7\n2001:db8::\n";
        reload(&rfw, &list(16, &format!("{halves}{CLIENTS}")));
        assert!(entries(&host, 4).contains(&"198.18.0.0/23".to_owned()), "{:?}", entries(&host, 4));
        assert!(entries(&host, 6).contains(&"2001:db8::/127".to_owned()), "{:?}", entries(&host, 6));
        assert_eq!([4, 6].map(|family| entries(&host, family).len()), [17, 18]);
        // What a client is told is what the file says.
        let error = rfw.refused("PUT", "/drop/input/any/198.18.0.3", 400);
        assert!(error.contains("198.18.0.0/25"), "{error}");
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 0);
    });
}

#[test]
fn a_white_list_that_is_as_before_changes_nothing() {
    in_both_variants(|iptables| {
        for count in [2, 20] {
            let host = with_neighbour();
            let rfw = host.rfw(iptables).white_list(&list(count, CLIENTS)).start();
            lets_in_clients_alone(&host, iptables);
            let all = || {
                let saved = [iptables.to_owned(), of_ipv6(iptables)]
                    .map(|command| host.run(&format!("{command}-save"), &["-c", "-t", "filter"]).ok());
                let rules = saved.concat();
                let rules: Vec<String> =
                    rules.lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect();
                (rules, host.run("ipset", &["save"]).ok(), rfw.log().matches("rfw guard").count())
            };
            // Connections may still be closing.
            let mut before = all();
            until(SOON, "no packet comes any more", || {
                thread::sleep(Duration::from_millis(300));
                std::mem::replace(&mut before, all()) == before
            });
            assert!(before.0.iter().any(|rule| rule.contains("guard") && !rule.starts_with("[0:")));
            // In another order, with an entry twice and one within another.
            reload(&rfw, &format!("{CLIENTS}{}198.18.1.3\n", list(count, CLIENTS)));
            assert_eq!(all(), before, "{iptables} {count}");

            // An entry more is a rule more in each chain, or an entry of the set.
            reload(&rfw, &list(count, &format!("{CLIENTS}10.7.7.7\n")));
            let after = all();
            let expected = if count == 2 { (2, 2) } else { (0, 0) };
            assert_eq!((after.0.len() - before.0.len(), after.2 - before.2), expected, "{iptables}");
            let kept = |rule: &String| after.0.contains(rule);
            assert!(before.0.iter().all(kept), "{iptables}: {:#?}\n{:#?}", before.0, after.0);
        }
    });
}

/// Lists that grow and shrink, each with the client.
fn lists() -> Vec<String> {
    vec![
        list(20, CLIENTS),
        // The client's address in a network that others make up, in a wider one, and alone.
        list(30, "127.0.0.1\n10.0.0.2/31\n10.0.0.0/31\nfd00::2/127\nfd00::/127\n::1\n"),
        list(18, "127.0.0.1\n10.0.0.0/29\nfd00::/125\n::1\n"),
        list(20, CLIENTS),
        list(3, CLIENTS),
        list(25, CLIENTS),
        list(1, CLIENTS),
    ]
}

/// Has an address visit the server for as long as white lists come into force. Gives what curl said.
fn visit_meanwhile(host: &Host, rfw: &Rfw<'_>, from: &str, server: &str, lists: &[String]) -> Vec<i32> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let visits = scope.spawn(|| {
            let mut said = Vec::new();
            while !done.load(Ordering::SeqCst) {
                said.push(visit(host, from, server).0);
            }
            said
        });
        lists.iter().for_each(|list| reload(rfw, list));
        done.store(true, Ordering::SeqCst);
        visits.join().unwrap()
    })
}

#[test]
fn a_list_that_grows_and_shrinks_lets_clients_in_at_any_moment() {
    in_both_variants(|iptables| {
        let host = with_neighbour();
        let rfw = host.rfw(iptables).white_list(&list(3, CLIENTS)).start();
        for (command, server, client, _) in families(iptables) {
            let said = visit_meanwhile(&host, &rfw, client, server, &lists());
            // On a machine that is slow curl may have waited in vain, but not for a packet that was dropped.
            assert!(said.contains(&0) && said.iter().all(|status| [0, DROPPED].contains(status)), "{said:?}");
            assert_eq!(["INPUT", "OUTPUT"].map(|chain| dropped_by_guard(&host, &command, chain)), [0, 0]);
        }
        assert_eq!([iptables.to_owned(), of_ipv6(iptables)].map(|it| host.guards(&it).len()), [8, 8]);
        assert_eq!((host.sets(), host.registry()), (vec![], None), "{iptables}");
        assert!(!rfw.log().contains("[WARN]") && !rfw.log().contains("[ERROR]"), "{}", rfw.log());
    });
}

#[test]
fn a_list_that_grows_and_shrinks_lets_no_stranger_in_at_any_moment() {
    in_both_variants(|iptables| {
        let host = with_neighbour();
        let rfw = host.rfw(iptables).white_list(&list(3, CLIENTS)).start();
        for (command, server, _, stranger) in families(iptables) {
            let lists: Vec<String> =
                lists().into_iter().filter(|list| !list.contains("10.0.0.2/31")).collect();
            let lists: Vec<String> = lists
                .iter()
                .map(|list| list.replace("10.0.0.0/29", "10.0.0.4/30"))
                .map(|list| list.replace("fd00::/125", "fd00::4/126"))
                .collect();
            let said = visit_meanwhile(&host, &rfw, stranger, server, &lists);
            assert!(said.iter().all(|status| *status == DROPPED), "{command}: {said:?}");
        }
        assert!(!rfw.log().contains("turned away"), "{}", rfw.log());
    });
}

#[test]
fn what_others_do_to_the_set_is_put_right_within_a_minute() {
    let golden = [
        "ipset flush rfw4-guard; ipset flush rfw6-guard",
        "ipset add rfw4-guard 10.0.0.3; ipset add rfw6-guard fd00::3",
        "ipset del rfw4-guard 10.0.0.2; ipset del rfw6-guard fd00::2",
        "ipset add rfw4-guard 10.0.0.2 timeout 3 -exist; ipset add rfw6-guard fd00::2 timeout 500 -exist",
        "ipset add rfw4-guard 10.0.0.2 nomatch -exist; ipset add rfw6-guard fd00::2 nomatch -exist",
        "IPTABLES -F; ip6TABLES -F; for set in rfw4-guard rfw6-guard; do ipset del rfw $set; ipset destroy $set; done",
        "IPTABLES -F INPUT; ip6TABLES -F INPUT",
    ];
    in_both_variants(|iptables| {
        thread::scope(|scope| {
            for line in golden {
                scope.spawn(move || {
                    let host = with_neighbour();
                    let rfw = host.rfw(iptables).white_list(&list(17, CLIENTS)).start();
                    let all = || (guard_of(&host, iptables), guard_of(&host, &of_ipv6(iptables)));
                    let all = || (all(), entries(&host, 4), entries(&host, 6), host.registry());
                    let before = all();
                    let line = line.replace("ip6TABLES", &of_ipv6(iptables)).replace("IPTABLES", iptables);
                    host.run("sh", &["-ec", &line]).ok();
                    until(A_MINUTE, &line, || {
                        (1..=2).contains(&rfw.log().matches("put back").count())
                            && host.guards(iptables).len() == 4
                            && host.guards(&of_ipv6(iptables)).len() == 4
                    });
                    until(SOON, &line, || all() == before);
                    lets_in_clients_alone(&host, iptables);
                    // Of rules in one line, of sets in one for each family.
                    let told = rfw.log().matches("[WARN]").count();
                    assert!((1..=2).contains(&told), "{line}: {}", rfw.log());
                    // A list that is read anew finds nothing to do.
                    reload(&rfw, &list(17, CLIENTS));
                    assert_eq!(rfw.log().matches("put back").count(), told, "{line}");
                });
            }
        });
    });
}

#[test]
fn a_restart_takes_the_set_over_and_flush_takes_it_away() {
    in_both_variants(|iptables| {
        let host = with_neighbour();
        let long = list(17, CLIENTS);
        let mut rfw = host.rfw(iptables).white_list(&long).start();
        let everything = || (host.everything(iptables), host.registry());
        let before = everything();
        for signal in ["KILL", "TERM", "KILL"] {
            rfw.signal(signal);
            rfw.end();
            assert_eq!(everything(), before, "{iptables}: {signal}");
            rfw.spawn();
            assert_eq!(everything(), before, "{iptables}: {signal}");
        }
        lets_in_clients_alone(&host, iptables);

        // Another port, and another list of the same length.
        rfw.stop();
        let mut rfw = rfw.configure("outward.server.port = 8443").white_list(&list(18, "127.0.0.1\n::1\n"));
        rfw.spawn();
        assert!(host.guards(iptables).iter().all(|rule| rule.contains("port 8443")));
        assert_eq!((host.guards(iptables).len(), entries(&host, 4).len()), (4, 19));
        assert!(!entries(&host, 4).contains(&"10.0.0.2".to_owned()));

        // While nobody looked, others have emptied the registry, and the list has become short.
        rfw.stop();
        host.run("ipset", &["flush", "rfw"]).ok();
        let mut rfw = rfw.white_list(&list(2, "127.0.0.1\n::1\n"));
        rfw.spawn();
        assert_eq!((host.sets(), host.guards(iptables).len()), (vec![], 8), "{iptables}");
        assert!(!rfw.log().contains("[WARN]"), "{}", rfw.log());

        reload(&rfw, &long);
        rfw.stop();
        assert_eq!(rfw.call(&["--flush"]).ok(), "8 rules removed\n");
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "", "{iptables}");
        assert_eq!(host.tables(iptables).concat(), Vec::<String>::new());
    });
}

#[test]
fn a_set_of_others_is_left_alone_and_the_guard_is_of_rules() {
    in_both_variants(|iptables| {
        let host = with_neighbour();
        host.run("ipset", &["create", "rfw4-guard", "hash:net"]).ok();
        host.run("ipset", &["add", "rfw4-guard", "10.0.0.3"]).ok();
        let mut rfw = host.rfw(iptables).white_list(&list(17, CLIENTS)).start();
        reload(&rfw, &list(18, CLIENTS));
        assert_eq!(entries(&host, 4), ["10.0.0.3"]);
        assert_eq!([iptables, &of_ipv6(iptables)].map(|command| host.guards(command).len()), [42, 4]);
        let warning = "has 19 networks of IPv4, each of which is a rule that every packet is compared with, \
                       since there is a set rfw4-guard that rfw has not made";
        assert!(rfw.log().contains(warning) && rfw.log().matches("[WARN]").count() == 1, "{}", rfw.log());
        lets_in_clients_alone(&host, iptables);
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "rfw4-guard\n");
    });
}

#[test]
fn a_list_that_can_not_be_put_into_force_leaves_rules_and_set_as_they_were() {
    const OTHERS: &str = "127.0.0.1\n10.0.0.4\n::1\n";
    // Of IPv4 the set alone changes; of IPv6 rules take its place.
    let of_ipv4 = list(18, OTHERS).replace("2001:db8:", "# ");
    let golden = [
        (list(17, CLIENTS), of_ipv4),
        (list(17, CLIENTS), OTHERS.to_owned()),
        (list(2, CLIENTS), list(17, OTHERS)),
    ];
    in_both_variants(|iptables| {
        for (before, after) in &golden {
            let host = Host::new();
            let (path, lines) = host.fake_programs(iptables);
            let rfw = host.rfw(&path).configure(&lines).white_list(before).start();
            let everything = || {
                let (mut rules, sets, elements) = host.everything(iptables);
                rules.sort();
                (rules, sets, elements, host.registry())
            };
            let old = everything();
            let (mut refused, mut number) = (0, 0);
            loop {
                number += 1;
                host.fail_at(Fault::Fails, number);
                host.write("white.list", 0o644, after);
                let count = |words| rfw.log().matches(words).count();
                let taken = count("has been read again");
                rfw.signal("HUP");
                until(SOON, "the reload is done", || {
                    count("has been read again") + count("the old configuration stays") > taken + refused
                });
                let calls = host.heal();
                if count("the old configuration stays") > refused {
                    refused += 1;
                    assert_eq!(everything(), old, "{iptables} {number}\n{}", rfw.log());
                } else {
                    assert_ne!(everything(), old, "{iptables} {number}");
                    reload(&rfw, before);
                    assert_eq!(everything(), old, "{iptables} {number}\n{}", rfw.log());
                }
                if calls < number {
                    break;
                }
            }
            assert!(refused > 0, "no call went wrong");
        }
    });
}

#[test]
fn thousands_of_networks_are_a_set_in_a_container_too() {
    in_both_variants(|iptables| {
        let host = Host::in_container();
        let hosts = |first: usize, last: usize| -> String {
            let hosts = (first..last).map(|number| format!("11.{}.{}.1\n", number / 256, number % 256));
            hosts.chain(["127.0.0.1\n::1\n".to_owned()]).collect()
        };
        let rfw = host.rfw(iptables).white_list(&hosts(0, 12_000)).start();
        assert_eq!((entries(&host, 4).len(), host.guards(iptables).len()), (12_001, 4));
        reload(&rfw, &hosts(6_000, 18_000));
        let there = entries(&host, 4);
        assert_eq!(there.len(), 12_001);
        assert!(there.contains(&"11.70.79.1".to_owned()) && !there.contains(&"11.0.0.1".to_owned()));
        reload(&rfw, "127.0.0.1\n::1\n");
        assert_eq!((host.sets(), host.guards(iptables).len()), (vec![], 4));
        assert!(!rfw.log().contains("[WARN]"), "{}", rfw.log());
    });
}
