//! Exceptions win over blocks: the order of rules and sets, with packets.

use super::{pings, start};
use crate::host::{Host, SOON, in_both_variants, until};

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
