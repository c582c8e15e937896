//! `GET /metrics`: what is counted has happened, on packets and in the kernel, and promtool takes the text.

mod prometheus;

use crate::host::fake::Fault;
use crate::host::{Host, Rfw, SOON, in_all_ways, in_both_variants, run, until};
use std::time::{Duration, Instant};

/// The text of all metrics, once promtool has nothing to say against it.
#[track_caller]
fn metrics(rfw: &Rfw<'_>) -> String {
    let reply = rfw.request("GET", "/metrics");
    assert_eq!(reply.status, 200, "{reply:#?}\n{}", rfw.log());
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    reply.body
}

/// The value of a sample with its labels; `None` where it is not there.
fn value(text: &str, sample: &str) -> Option<f64> {
    let mut values =
        text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    values.next()
}

/// Waits until a sample has that value at least: what rules have counted is read once a second.
#[track_caller]
fn reaches(rfw: &Rfw<'_>, sample: &str, least: f64) {
    let mut last = String::new();
    until(SOON, &format!("{sample} is {least}"), || {
        last = metrics(rfw);
        value(&last, sample).is_some_and(|value| value >= least)
    });
}

fn ping(host: &Host, address: &str) {
    host.run("ping", &["-c", "2", "-i", "0.01", "-W", "0.1", address]);
}

#[test]
fn what_happens_is_counted() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let sections = "[client mine]\npassword = secret of mine\nlists = mine";
        let rfw = host.rfw(iptables).configure(&format!("{option}\n{sections}")).start();
        rfw.send_ok("PUT", "/drop/output/any?list=tor", "127.0.0.9\n127.0.1.0/24\n2001:db8::1\n");
        rfw.ok("PUT", "/reject/output/any/127.0.2.1");
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?list=tor");
        rfw.ok("DELETE", "/drop/input/any/1.2.3.4?list=tor");
        rfw.ok("DELETE", "/reject/output/any/127.0.2.1?dry=true");
        rfw.refused("PUT", "/drop/input/any/127.0.0.1", 400);
        assert_eq!(rfw.curl(&["-u", "me:wrong", "https://127.0.0.1:7393/list"]).status, 401);
        let reply = rfw.curl(&["-u", "mine:secret of mine", "https://127.0.0.1:7393/metrics"]);
        assert!(reply.status == 403 && reply.body.contains("no right to see all lists (read)"), "{reply:#?}");
        rfw.ok("GET", "/list");
        for address in ["127.0.0.9", "127.0.1.7", "127.0.2.1"] {
            ping(&host, address);
        }
        // A stranger's packets end at the guard.
        let url = "https://127.0.0.1:7393/";
        host.run("curl", &["-sk", "--max-time", "0.5", "--interface", "127.0.0.2", url]);

        reaches(&rfw, "rfw_packets_total{chain=\"OUTPUT\",target=\"DROP\"}", 4.0);
        let text = metrics(&rfw);
        host.feed("promtool", &["check", "metrics"], text.as_bytes()).ok();
        let is = |sample: &str, expected: f64| {
            assert_eq!(value(&text, sample), Some(expected), "{iptables} {option}: {sample}\n{text}");
        };
        is("rfw_packets_total{chain=\"OUTPUT\",target=\"DROP\"}", 4.0);
        is("rfw_bytes_total{chain=\"OUTPUT\",target=\"DROP\"}", 4.0 * 84.0);
        is("rfw_packets_total{chain=\"OUTPUT\",target=\"REJECT\"}", 2.0);
        assert!(value(&text, "rfw_guard_packets_total") >= Some(1.0), "{text}");
        is("rfw_counters_up", 1.0);
        is("rfw_entries{list=\"tor\",family=\"ipv4\"}", 2.0);
        is("rfw_entries{list=\"tor\",family=\"ipv6\"}", 1.0);
        is("rfw_entries{list=\"-\",family=\"ipv4\"}", 1.0);
        is("rfw_entries_complete", 1.0);
        is("rfw_changes_total{list=\"tor\",target=\"DROP\"}", 3.0);
        is("rfw_changes_total{list=\"-\",target=\"REJECT\"}", 1.0);
        is("rfw_transaction_duration_seconds_count", 4.0);
        is("rfw_requests_total{method=\"PUT\",status=\"200\"}", 3.0);
        is("rfw_requests_total{method=\"PUT\",status=\"400\"}", 1.0);
        is("rfw_requests_total{method=\"DELETE\",status=\"200\"}", 2.0);
        is("rfw_requests_total{method=\"GET\",status=\"401\"}", 1.0);
        is("rfw_requests_total{method=\"GET\",status=\"403\"}", 1.0);
        is("rfw_refused_total{cause=\"whitelisted\"}", 1.0);
        is("rfw_refused_total{cause=\"wrong_credentials\"}", 1.0);
        is("rfw_refused_total{cause=\"no_right\"}", 1.0);
        is("rfw_refused_total{cause=\"unlisted\"}", 0.0);
        is("rfw_connections", 1.0);
        is("rfw_problem{code=\"guard_missing\"}", 0.0);
        // The answer that is under way is not yet counted.
        let asked = value(&text, "rfw_requests_total{method=\"GET\",status=\"200\"}").unwrap();
        is("rfw_request_duration_seconds_count", asked + 8.0);
        for sample in [
            "rfw_start_time_seconds",
            "rfw_certificate_expiry_timestamp_seconds",
            "rfw_list_updated_timestamp_seconds{list=\"tor\"}",
        ] {
            assert!(value(&text, sample) > Some(1.7e9), "{sample}\n{text}");
        }
    });
}

/// The sweeper, which looks at the tables after a change of others, has the firewall until its program is killed.
#[test]
fn who_asks_waits_for_no_program_that_hangs() {
    let host = Host::new();
    let (path, lines) = host.fake_programs("iptables-nft");
    let rfw = host.rfw(&path).configure(&lines).start();
    rfw.ok("PUT", "/drop/output/any/127.0.0.9");
    let last = metrics(&rfw);
    host.fail_at(Fault::Hangs, 1);
    host.admin("iptables-nft", "-A INPUT -p udp --dport 54 -j ACCEPT");
    until(SOON, "it hangs", || host.hanging().is_some());
    host.heal();
    for _ in 0..2 {
        let start = Instant::now();
        let text = metrics(&rfw);
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(3) && !rfw.log().contains("no answer in"),
            "{took:?}\n{}",
            rfw.log()
        );
        let entries = "rfw_entries{list=\"-\",family=\"ipv4\"}";
        assert_eq!((value(&text, entries), value(&last, entries)), (Some(1.0), Some(1.0)), "{text}");
    }
    run("kill", &["-s", "KILL", &host.hanging().unwrap().to_string()]);
    until(SOON, "counters are read", || value(&metrics(&rfw), "rfw_counters_up") == Some(1.0));
}

/// A flush of another program takes the counters of rules with it, which come back at zero.
#[test]
fn what_others_flush_is_a_repair_and_no_total_falls() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/output/any/127.0.0.9");
        ping(&host, "127.0.0.9");
        let packets = "rfw_packets_total{chain=\"OUTPUT\",target=\"DROP\"}";
        reaches(&rfw, packets, 2.0);
        host.admin(iptables, "-F");
        // A look of rfw comes with a reload.
        rfw.reload();
        reaches(&rfw, "rfw_repairs_total", 1.0);
        let mut last = 2.0;
        until(SOON, "it counts on", || {
            ping(&host, "127.0.0.9");
            let total = value(&metrics(&rfw), packets).unwrap();
            assert!(total >= last, "{total} after {last}");
            last = total;
            total > 2.0
        });
        rfw.ok("PUT", "/drop/output/any/127.0.0.10?expire=1");
        reaches(&rfw, "rfw_expired_total", 1.0);
        assert!(value(&metrics(&rfw), packets) >= Some(last));
    });
}

/// A rule that goes takes its counters with it, and none of what others count meanwhile.
#[test]
fn what_rules_count_while_others_go_is_not_lost() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let packets = "rfw_packets_total{chain=\"OUTPUT\",target=\"DROP\"}";
        for address in ["127.0.0.9", "127.0.0.10"] {
            rfw.ok("PUT", &format!("/drop/output/any/{address}"));
            ping(&host, address);
        }
        reaches(&rfw, packets, 4.0);
        rfw.ok("DELETE", "/drop/output/any/127.0.0.9");
        ping(&host, "127.0.0.10");
        reaches(&rfw, packets, 6.0);
        // So does one that is renewed, which is another rule for the kernel.
        rfw.ok("PUT", "/drop/output/any/127.0.0.10?expire=2h");
        ping(&host, "127.0.0.10");
        reaches(&rfw, packets, 8.0);
        assert_eq!(value(&metrics(&rfw), packets), Some(8.0));
    });
}

#[test]
fn counters_that_can_not_be_read_are_left_out() {
    let host = Host::new();
    let (path, lines) = host.fake_programs("iptables-legacy");
    let rfw = host.rfw(&path).configure(&lines).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    host.fail_at(Fault::Fails, 1);
    let text = metrics(&rfw);
    assert_eq!(value(&text, "rfw_counters_up"), Some(0.0), "{text}");
    assert_eq!(value(&text, "rfw_entries{list=\"-\",family=\"ipv4\"}"), Some(1.0), "{text}");
    assert!(!text.contains("rfw_packets_total"), "{text}");
    host.heal();
    reaches(&rfw, "rfw_counters_up", 1.0);
}
