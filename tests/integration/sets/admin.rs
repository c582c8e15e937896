//! What an admin, a flush or another white list does to sets.

use super::{hosts, networks, sorted, start};
use crate::host::{Host, SOON, in_both_variants, of_ipv6, until};
use serde_json::json;
use std::collections::BTreeSet;

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
        until(SOON, "entries of the new white list are removed", || removed(&rfw.log()) == 5);
        assert!(rfw.log().contains("white list: INPUT -s 10.1.0.0/16 -j DROP"), "{}", rfw.log());
        let kept = || -> BTreeSet<String> {
            host.kept(iptables).iter().map(|rule| rule.split(' ').nth(3).unwrap().to_owned()).collect()
        };
        let expected = ["10.2.0.1/32", "2001:db8:1::7/128", "2001:db8:2::7/128"].map(str::to_owned);
        assert_eq!(kept(), BTreeSet::from(expected), "{iptables}");
        rfw = rfw.white_list("127.0.0.1\n2001:db8:1::/48\n");
        rfw.signal("HUP");
        until(SOON, "the list is taken", || rfw.log().contains("the configuration has been read again"));
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
fn after_a_flush_by_an_admin_answers_are_true() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let list = "1.0.0.1\n1.0.0.2\n2001:db8::1\n";
        for round in 0..3 {
            // What is in a set stays there, also while no rule looks it up.
            let inserted = [3, 0, 3][round];
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", list)["inserted"], inserted, "{round}");
            let result = if round == 0 { "inserted" } else { "refreshed" };
            assert_eq!(rfw.ok("PUT", "/accept/output/eth0/1.0.0.1")["result"], result, "{round}");
            for command in [iptables, &of_ipv6(iptables)] {
                host.admin(command, "-F");
            }
            match round {
                // Nothing, unless the rules are back already.
                0 => assert!([0, 4].contains(&rfw.ok("GET", "/list").as_array().unwrap().len())),
                1 => {
                    assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
                    assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", list)["deleted"], 2);
                }
                _ => {}
            }
        }
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.2")["result"], "refreshed");
        // With it the other set of the scope, and by and by all that was flushed.
        let all = [
            "-A INPUT -s 1.0.0.1/32 -j DROP",
            "-A INPUT -s 1.0.0.2/32 -j DROP",
            "-A INPUT -s 2001:db8::1/128 -j DROP",
            "-A OUTPUT -d 1.0.0.1/32 -o eth0 -j ACCEPT",
        ];
        rfw.signal("HUP");
        until(SOON, "all is back", || sorted(host.kept(iptables)) == all);
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 4);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
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
        let rows = rfw.ok("GET", "/list");
        assert!(rows == json!([]) || networks(&rows) == ["1.0.0.1"], "{rows}");
        assert_eq!(rfw.ok("DELETE", path)["result"], "deleted");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.2")["result"], "inserted");
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.2/32 -j DROP"]);
        // Rule and set gone: the registry keeps it, until it is taken out of that.
        host.admin(iptables, "-F INPUT");
        let kept = host.run("ipset", &["destroy", "rfw4-ids"]);
        assert!(kept.err.contains("it is in use by a kernel component"), "{kept:?}");
        // All at once, before rfw has put back the rule.
        let destroy = || {
            let script = format!("{iptables} -w -F INPUT; ipset del rfw rfw4-ids; ipset destroy rfw4-ids");
            until(SOON, "the set can be destroyed", || host.run("sh", &["-c", &script]).status == Some(0));
        };
        destroy();
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.1\n")["absent"], 1);
        // What it held comes back with the next change, if not before.
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n")["inserted"], 1);
        // The same, and the next are single addresses.
        host.admin(iptables, "-F INPUT");
        destroy();
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.2")["result"], "deleted");
        assert_eq!(rfw.ok("PUT", path)["result"], "refreshed");
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
