//! Many deletions at once: what is taken out is gone, what others have between stays as it is.

use crate::host::{Host, SOON, in_both_variants, until};
use std::io::Read;
use std::process::Stdio;

/// Puts that many rules of the lists `a` and `b` and of others into INPUT, by turns, and gives those
/// lines of `-S` that are not of `a`.
fn fill(host: &Host, iptables: &str, number: usize) -> Vec<String> {
    let (mut script, mut rest) = ("*filter\n".to_owned(), Vec::new());
    for i in 0..number {
        let address = format!("10.{}.{}.{}/32", i >> 16, i >> 8 & 255, i & 255);
        let line = match i % 3 {
            0 => format!("-A INPUT -s {address} -m comment --comment \"rfw permanent list a\" -j DROP"),
            1 => format!("-A INPUT -s {address} -m comment --comment \"rfw permanent list b\" -j DROP"),
            _ => format!("-A INPUT -s {address} -j DROP"),
        };
        script += &format!("{line}\n");
        // A plain user's buffer for netlink holds a few hundred rules at once.
        if i % 200 == 199 {
            script += "COMMIT\n*filter\n";
        }
        if i % 3 != 0 {
            rest.push(line);
        }
    }
    host.feed(&format!("{iptables}-restore"), &["--noflush", "-w"], (script + "COMMIT\n").as_bytes()).ok();
    rest
}

#[test]
fn many_rules_go_together_and_those_between_stay() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rest = fill(&host, iptables, 600);
        let mut rfw = host.rfw(iptables).configure("stay.first = off").start();
        // What is put in is not where the last reading has seen it.
        rfw.ok("PUT", "/drop/input/any/192.0.2.1?list=a");
        assert_eq!(rfw.ok("DELETE", "/list?list=a")["deleted"], 201, "{}", rfw.log());
        assert_eq!(host.rules(iptables, "INPUT"), rest);
        let by_handle = rfw.log().contains("201 rules of IPv4 are deleted by their handles");
        assert_eq!(by_handle, iptables.contains("nft"), "{}", rfw.log());

        // The program that stays sees the change, and that of others.
        host.admin(iptables, "-I INPUT 1 -s 203.0.113.1 -j ACCEPT");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/192.0.2.2")["result"], "inserted");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/10.0.0.1?list=b")["result"], "deleted");
        let rules = host.rules(iptables, "INPUT");
        assert_eq!(rules.len(), rest.len() + 1);
        assert!(rules[0].contains("192.0.2.2") && rules[1].contains("203.0.113.1"), "{:?}", &rules[..3]);
        assert_eq!(rules[2..], rest[1..]);

        rfw.stop();
        rfw.call(&["--flush"]).ok();
        let of_others = host.rules(iptables, "INPUT");
        assert_eq!(of_others.len(), 201);
        assert!(of_others.iter().all(|rule| !rule.contains("rfw")));
    });
}

#[test]
fn while_others_keep_changing_the_table_nothing_of_theirs_goes() {
    let (host, iptables) = (Host::new(), "iptables-nft");
    let rest = fill(&host, iptables, 600);
    let rfw = host.rfw(iptables).start();
    // Each change of the other moves all numbers by one.
    let restless = "while :; do iptables-nft -w -I INPUT -s 203.0.113.1 -j ACCEPT; echo; done";
    let mut other = host.command("sh");
    let mut other = other.args(["-c", restless]).stdout(Stdio::piped()).spawn().unwrap();
    until(SOON, "the other has begun", || host.rules(iptables, "INPUT").len() > 605);
    assert_eq!(rfw.ok("DELETE", "/list?list=a")["deleted"], 200, "{}", rfw.log());
    other.kill().unwrap();
    let mut changes = String::new();
    other.stdout.take().unwrap().read_to_string(&mut changes).unwrap();
    other.wait().unwrap();
    let rules = host.rules(iptables, "INPUT");
    assert!(rules.len() >= rest.len() + changes.len(), "{} of {}", rules.len(), changes.len());
    let others: Vec<&String> = rules.iter().filter(|rule| !rule.contains("203.0.113.1")).collect();
    assert_eq!(others, rest.iter().collect::<Vec<_>>());
}
