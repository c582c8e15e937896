//! The option turned on and off, and hosts that have no ipset.

use super::{hosts, left, sorted, without_sets};
use crate::host::{Host, Rfw, in_both_variants};
use serde_json::{Value, json};

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
            rfw.ok("PUT", &format!("/drop/input/any/{address}?expire=3700d"));
        }
        rfw.ok("PUT", "/drop/input/any/1.0.0.4?expire=1d");
        rfw.stop();
        let mut rfw = rfw.configure("ipset");
        rfw.spawn();
        assert_eq!(rfw.log().matches("stays a rule, since a set can't hold it that long").count(), 3);
        assert_eq!(host.entries().len(), 1);
        let listed = times(&rfw.ok("GET", "/list"));
        assert_eq!(listed.len(), 4);
        assert_eq!(listed.iter().filter(|(_, left)| left.unwrap() > 3_600 * 86_400).count(), 3);
        // A PUT and a list renew it, and then it is in the set alone.
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=600")["result"], "refreshed");
        let answer = rfw.send_ok("PUT", "/drop/input/any?expire=600", "1.0.0.2\n1.0.0.9\n");
        assert_eq!((&answer["inserted"], &answer["refreshed"]), (&json!(1), &json!(1)), "{answer}");
        let listed = times(&rfw.ok("GET", "/list"));
        assert_eq!(listed.len(), 5, "{listed:?}");
        assert_eq!(listed.iter().filter(|(_, left)| left.unwrap() > 3_600 * 86_400).count(), 1, "{listed:?}");
        let answer = rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.3\n1.0.0.4\n1.0.0.7\n");
        assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(2), &json!(1)), "{answer}");
        assert_eq!(host.kept(iptables).len(), 3);
    });
}

#[test]
fn sets_need_no_program() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nipset.path = /nowhere/ipset");
        // The machine's own is hidden as far as a test can: an empty file over each.
        let hide = "for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
            test ! -e $folder/ipset || mount --bind /dev/null $folder/ipset; done";
        host.run("sh", &["-c", hide]).ok();
        rfw.spawn();
        assert_eq!(rfw.log().matches("ipset.path is not used any more").count(), 1, "{}", rfw.log());
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &hosts(0, 60))["inserted"], 60);
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 61);
        assert_eq!(host.rules(iptables, "INPUT").len(), 1);
        rfw.stop();
        assert!(rfw.call(&["--check"]).ok().contains("ok"));
        // Four guards a family, and the rule of the set.
        let said = rfw.call(&["--flush"]).ok();
        assert!(said.ends_with("\n9 rules and 61 addresses of sets removed\n"), "{said}");
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
