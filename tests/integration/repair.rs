//! What others flush comes back, what somebody has deleted alone does not, and what a client took away
//! stays away.

use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use std::time::Duration;

/// Longer than the time between two looks, also on a machine that has much else to do.
const REPAIRED: Duration = Duration::from_secs(40);

/// rfw's own rules in the order of the tables, those of both families.
fn own(host: &Host, iptables: &str) -> Vec<String> {
    let lines = host.tables(iptables).concat();
    lines.into_iter().filter(|line| line.contains("--comment \"rfw ")).collect()
}

/// Blocks some addresses in rules of all kinds, and gives rfw's own rules then.
fn block(rfw: &Rfw<'_>, iptables: &str) -> Vec<String> {
    for path in [
        "/drop/input/any/192.0.2.1?expire=1h&reason=scanner",
        "/drop/input/eth0/192.0.2.2?expire=0&list=tor",
        "/reject/input/any/192.0.2.3",
        "/accept/input/any/192.0.2.4",
        "/drop/forward/any/192.0.2.5/eth1/192.0.2.6",
        "/drop/output/any/192.0.2.7",
        "/drop/input/any/2001:db8::1",
        "/drop/input/any/2001:db8::2",
    ] {
        rfw.ok("PUT", path);
    }
    own(rfw.host, iptables)
}

/// Rules chain by chain, the guard first.
fn in_order(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (line.contains("2001:"), words[1].to_owned(), !line.contains("rfw guard"))
    });
    lines
}

fn flush(host: &Host, iptables: &str) {
    host.admin(iptables, "-F");
    host.admin(&of_ipv6(iptables), "-F");
}

#[test]
fn rules_that_others_flush_come_back_in_their_order() {
    in_both_variants(|iptables| {
        for option in ["ipset = off", "ipset = auto"] {
            let host = Host::new();
            let rfw = host.rfw(iptables).configure(option).start();
            let before = block(&rfw, iptables);
            host.admin(iptables, "-I INPUT -s 198.51.100.9 -j ACCEPT");
            flush(&host, iptables);
            host.admin(iptables, "-A INPUT -s 198.51.100.8 -j ACCEPT");
            let all = before.len();
            until(REPAIRED, "the rules are back", || own(&host, iptables).len() == all);
            assert_eq!(in_order(own(&host, iptables)), in_order(before), "{iptables}, {option}");
            let guarded = host.tables(iptables)[0].iter().position(|line| line.contains("rfw guard"));
            assert_eq!(guarded, Some(0), "{iptables}, {option}");
            let input = host.rules(iptables, "INPUT");
            assert_eq!(input.last().map(String::as_str), Some("-A INPUT -s 198.51.100.8/32 -j ACCEPT"));
            let told = rfw.log().matches("others have taken away what rfw keeps").count();
            assert_eq!(told, 1, "{}", rfw.log());
        }
    });
}

#[test]
fn a_rule_that_somebody_deletes_stays_away_and_is_noted() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/192.0.2.1?expire=0");
        rfw.ok("PUT", "/drop/forward/any/192.0.2.2?expire=0");
        for rule in ["INPUT -s 192.0.2.1", "FORWARD -s 192.0.2.2"] {
            host.admin(iptables, &format!("-D {rule} -m comment --comment 'rfw permanent' -j DROP"));
            let noted = format!("[INFO] deleted by others, and not put back: {rule} -j DROP");
            // A white list that is read anew is a look, too.
            rfw.signal("HUP");
            until(SOON, "it is noted", || rfw.log().contains(&noted));
        }
        // A flush brings back what was there, and no more.
        rfw.ok("PUT", "/drop/input/any/192.0.2.3?expire=0");
        let before = own(&host, iptables);
        flush(&host, iptables);
        rfw.signal("HUP");
        until(SOON, "the rest is back", || sorted(own(&host, iptables)) == sorted(before.clone()));
    });
}

#[test]
fn what_a_client_takes_away_between_a_flush_and_the_repair_stays_away() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        block(&rfw, iptables);
        rfw.send_ok("PUT", "/drop/input/any?list=feed", "203.0.113.1\n203.0.113.2\n");
        flush(&host, iptables);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/192.0.2.1")["result"], "deleted");
        assert_eq!(rfw.ok("DELETE", "/list?list=tor")["deleted"], 1);
        rfw.send_ok("PUT", "/drop/input/any?list=feed&replace=true", "203.0.113.2\n");
        rfw.signal("HUP");
        until(SOON, "the rest is back", || {
            own(&host, iptables).iter().any(|line| line.contains("192.0.2.5"))
        });
        let after = own(&host, iptables).join("\n");
        for (address, there) in [
            ("192.0.2.1/", 0),
            ("192.0.2.2/", 0),
            ("203.0.113.1/", 0),
            ("203.0.113.2/", 1),
            ("192.0.2.4/", 1),
        ] {
            assert_eq!(after.matches(address).count(), there, "{iptables}: {address}\n{after}");
        }
    });
}

#[test]
fn a_saved_table_that_is_restored_brings_nothing_back_to_life_and_loses_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for path in ["192.0.2.1?expire=0", "192.0.2.2?expire=1s", "192.0.2.3?expire=0", "192.0.2.4?expire=1h"]
        {
            rfw.ok("PUT", &format!("/drop/input/any/{path}"));
        }
        let saved = host.run(&format!("{iptables}-save"), &[]).ok();
        rfw.ok("DELETE", "/drop/input/any/192.0.2.1");
        rfw.ok("PUT", "/drop/input/any/192.0.2.4?expire=2h");
        rfw.ok("PUT", "/drop/input/any/192.0.2.5?expire=0");
        until(SOON, "one has expired", || !own(&host, iptables).concat().contains("192.0.2.2/"));
        let wanted = sorted(own(&host, iptables));
        host.feed(&format!("{iptables}-restore"), &[], saved.as_bytes()).ok();
        rfw.signal("HUP");
        until(REPAIRED, "only what is wanted is there", || sorted(own(&host, iptables)) == wanted);
        // The same into the table, so that all is there twice.
        host.feed(&format!("{iptables}-restore"), &["--noflush"], saved.as_bytes()).ok();
        rfw.signal("HUP");
        until(REPAIRED, "nothing is there twice", || sorted(own(&host, iptables)) == wanted);
    });
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn a_program_that_keeps_flushing_does_not_keep_rfw_busy() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let before = block(&rfw, iptables);
        for _ in 0..100 {
            flush(&host, iptables);
            rfw.ok("PUT", "/drop/input/any/192.0.2.3?expire=0");
        }
        until(REPAIRED, "all is back", || own(&host, iptables).len() > before.len());
        let told = rfw.log().matches("others have taken away what rfw keeps").count();
        assert!((1..=3).contains(&told), "{told}: {}", rfw.log());
    });
}
