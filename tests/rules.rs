//! Requests and the rules they make: every row of the grammar's table, sent with
//! curl and compared with what the kernel says, in both variants of iptables.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod host;

use host::{Host, VARIANTS};

/// The kernel's line without the comment that carries the lease.
fn without_comment(rule: &str) -> String {
    let (before, rest) = rule.split_once(" -m comment --comment \"").unwrap_or((rule, "\""));
    let (_, after) = rest.split_once('"').unwrap_or(("", ""));
    format!("{before}{after}")
}

#[test]
fn every_row_of_the_grammar_makes_its_rule_and_takes_it_away() {
    let golden = [
        ("/drop/input/eth0/11.22.33.44", "INPUT", "-A INPUT -s 11.22.33.44/32 -i eth0 -j DROP"),
        ("/accept/output/any/192.168.0.0/24", "OUTPUT", "-A OUTPUT -d 192.168.0.0/24 -j ACCEPT"),
        (
            "/accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5",
            "FORWARD",
            "-A FORWARD -s 1.2.3.0/24 -d 5.5.5.5/32 -i ppp+ -o eth0 -j ACCEPT",
        ),
        (
            "/reject/input/eth/2001:db8::/48",
            "INPUT",
            "-A INPUT -s 2001:db8::/48 -i eth+ -j REJECT --reject-with icmp6-port-unreachable",
        ),
    ];
    for iptables in VARIANTS {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for (path, chain, rule) in golden {
            let command =
                if rule.contains("2001:") { iptables.replace("ip", "ip6") } else { iptables.to_owned() };
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{path}");
            let rules: Vec<String> =
                host.rules(&command, chain).iter().map(|rule| without_comment(rule)).collect();
            assert_eq!(rules, [rule], "{iptables} {path}");
            assert_eq!(rfw.ok("DELETE", path)["result"], "deleted", "{path}");
            assert_eq!(host.rules(&command, chain), Vec::<String>::new(), "{iptables} {path}");
            assert_eq!(rfw.ok("DELETE", path)["result"], "absent", "{path}");
        }
    }
}
