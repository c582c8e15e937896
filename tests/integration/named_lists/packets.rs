//! Packets, with lists: an address is blocked while a list holds it, without a gap, and rows count what was
//! dropped where that is decided, in the union.

use super::column;
use super::kernel::{Client, kill_and_spawn};
use crate::host::{Host, Talk, in_both_variants};
use std::thread;
use std::time::Duration;

fn pings(host: &Host, from: &str) -> bool {
    let command = ["netns", "exec", "peer", "ping", "-c1", "-W0.4", "-I", from, "10.0.0.1"];
    host.run("ip", &command).status == Some(0)
}

/// Pings hundreds of times a second until it is dropped, and tells of each answer.
fn stream(host: &Host, from: &str) -> Talk {
    host.talk("ip", &["netns", "exec", "peer", "ping", "-i0.003", "-O", "-I", from, "10.0.0.1"])
}

#[test]
fn an_address_in_two_lists_is_blocked_while_one_holds_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24"]);
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        for list in ["a", "b"] {
            rfw.send_ok("PUT", &format!("/drop/input/any?list={list}"), "10.0.0.2\n9.9.9.0/24\n");
        }
        assert!(!pings(&host, "10.0.0.2") && pings(&host, "10.0.0.3"));
        rfw.ok("DELETE", "/drop/input/any/10.0.0.2?list=a");
        assert!(!pings(&host, "10.0.0.2"));
        rfw.ok("PUT", "/drop/input/any/10.0.0.2?list=a");
        assert!(!pings(&host, "10.0.0.2"));
        // Each row of the address has what the union has counted.
        let counted = |rfw: &crate::host::Rfw<'_>| {
            column(&rfw.ok("GET", "/list?address=10.0.0.2"), &["list", "source", "pkts", "bytes"])
        };
        assert_eq!(counted(&rfw), ["a 10.0.0.2 3 252", "b 10.0.0.2 3 252"]);
        let entries = host.entries();
        let packets = |set: &str| {
            let own = entries.iter().filter(|entry| entry.set == set && entry.element == "10.0.0.2");
            own.map(|entry| entry.packets).collect::<Vec<_>>()
        };
        assert_eq!((packets("rfw4-ids"), packets("rfw4-ids/a")), (vec![3], vec![0]));
        kill_and_spawn(&mut rfw);
        assert_eq!(counted(&rfw), ["a 10.0.0.2 3 252", "b 10.0.0.2 3 252"]);
        // A replacement that keeps it keeps its counters.
        rfw.send_ok("PUT", "/drop/input/any?list=a&replace=true", "10.0.0.2\n8.8.8.8\n");
        assert_eq!(counted(&rfw)[0], "a 10.0.0.2 3 252");
        rfw.ok("DELETE", "/list?list=a");
        assert_eq!(counted(&rfw), ["b 10.0.0.2 3 252"]);
        rfw.ok("DELETE", "/list?address=10.0.0.2");
        assert!(pings(&host, "10.0.0.2"));
    });
}

#[test]
fn no_packet_passes_while_lists_come_go_and_are_replaced() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24"], &["10.0.0.2/24"]);
        let rfw = host.rfw(iptables).configure("ipset").start();
        let mut client = Client::new(&host);
        client.ok("PUT", "/drop/input/any/10.0.0.2?expire=0", "");
        let stream = stream(&host, "10.0.0.2");
        let body = |round: usize| -> String {
            let others: String = (0..300).map(|n| format!("11.{round}.{}.{}\n", n / 200, n % 200)).collect();
            others + "10.0.0.2\n"
        };
        for round in 0..20 {
            let put = |list: &str, query: &str| format!("/drop/input/any?list={list}&special=true{query}");
            client.ok("PUT", &put("a", "&replace=true"), &body(round));
            client.ok("PUT", "/drop/input/any/10.0.0.2?expire=0", "");
            client.ok("DELETE", "/list?list=-", "");
            client.ok("PUT", &put("b", ""), &body(round));
            client.ok("DELETE", "/drop/input/any?list=a", "");
            client.ok("PUT", "/drop/input/any?replace=true&special=true&expire=0", "10.0.0.2\n");
            client.ok("DELETE", "/list?list=b", "");
        }
        thread::sleep(Duration::from_millis(200));
        let heard = stream.heard();
        assert!(!heard.contains("bytes from"), "{heard}");
        assert!(heard.matches("no answer yet").count() > 50, "{heard}");
        // It would have been heard.
        rfw.ok("DELETE", "/list?list=*");
        crate::host::until(crate::host::SOON, "they pass", || stream.heard().contains("bytes from"));
    });
}
