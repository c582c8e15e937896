//! Sets that others empty, destroy or restore: what went as a whole comes back with the time that was
//! left, what somebody has deleted stays deleted, and nothing that is over comes back to life.

use super::start;
use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use crate::named_lists::kernel::{Held, assert_same, assert_unions, held, kill_and_spawn, listed, look};
use std::thread;
use std::time::Duration;

/// What [`fill`] puts into three sets, of which one holds a single address.
fn fill(rfw: &Rfw<'_>) {
    rfw.send_ok("PUT", "/drop/input/any?expire=1h", "1.0.0.1\n1.0.0.2\n1.0.0.3\n1.0.0.0/28\n2001:4860::1\n");
    rfw.send_ok("PUT", "/drop/input/any?expire=3650d", "1.0.1.1\n1.0.1.2\n");
    rfw.ok("PUT", "/drop/input/any/1.0.2.1?expire=0");
    rfw.ok("PUT", "/accept/output/eth0/1.2.3.4?expire=0");
}

#[track_caller]
fn sh(host: &Host, script: &str) {
    host.run("sh", &["-c", &format!("set -e; {script}")]).ok();
}

/// Takes a set out of the registry, and away, as soon as the kernel lets go of it. A look may put it into the
/// registry again before that.
#[track_caller]
fn destroy(host: &Host, set: &str) {
    let script = format!("ipset -exist del rfw {set}; ipset destroy {set}");
    until(SOON, "it is destroyed", || host.run("sh", &["-c", &script]).status == Some(0));
}

#[track_caller]
fn until_same(host: &Host, iptables: &str, expected: &Held, what: &str) {
    let keys = |held: &Held| held.keys().cloned().collect::<Vec<_>>();
    let mut there = held(host, iptables);
    for _ in 0..200 {
        if keys(&there) == keys(expected) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        there = held(host, iptables);
    }
    assert_same(&there, expected, what);
}

#[test]
fn what_others_empty_or_destroy_comes_back_with_the_time_that_was_left() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        fill(&rfw);
        let (before, registry) = (held(&host, iptables), host.registry());
        assert_eq!(before.len(), 9, "{before:?}");
        let scripts = [
            "ipset flush rfw4-ids",
            // At once, before a look sees some of it as deleted one by one.
            "printf 'del rfw4-ids 1.0.%s\\n' 0.1 0.2 0.3 1.1 2.1 | ipset restore",
            "ipset flush rfw4-ids; ipset add rfw4-ids 1.0.2.1",
            "IPV4 -w -F; ipset flush rfw; ipset flush rfw4-ids; ipset destroy rfw4-ids",
            "IPV4 -w -F; IPV6 -w -F; ipset flush rfw; ipset flush; ipset destroy",
        ];
        for script in scripts {
            let what = format!("{iptables}: {script}");
            let script = script.replace("IPV6", &of_ipv6(iptables)).replace("IPV4", iptables);
            let log = rfw.log().len();
            until(SOON, &what, || host.run("sh", &["-c", &format!("set -e; {script}")]).status == Some(0));
            look(&rfw);
            until_same(&host, iptables, &before, &what);
            assert_eq!(host.registry(), registry, "{what}");
            assert_same(&listed(&rfw.ok("GET", "/list")), &before, &what);
            let told = &rfw.log()[log..];
            // The fourth in a row is told in a sum, those behind it at debug level.
            assert!(told.contains("put back") && !told.contains("is not whole"), "{what}: {told}");
            assert!(told.contains(": sets: rfw4-") && told.contains("rfw4-ids ("), "{what}: {told}");
            assert!(!told.contains("[WARN] the "), "told beside the one warning of a repair: {what}: {told}");
        }
        kill_and_spawn(&mut rfw);
        assert_same(&held(&host, iptables), &before, "started again");
    });
}

#[test]
fn what_a_client_asks_for_before_it_is_back_counts() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let gone = |script: &str| match script {
            "flush" => sh(&host, "ipset flush"),
            // All at once, before rfw has put back the rule.
            _ => until(SOON, "it is destroyed", || {
                let script = format!("{iptables} -w -F; ipset del rfw rfw4-ids; ipset destroy rfw4-ids");
                host.run("sh", &["-c", &script]).status == Some(0)
            }),
        };
        for script in ["flush", "destroy"] {
            let check = |deleted: &str, put: &str| {
                look(&rfw);
                let there = held(&host, iptables);
                let has = |address: &str| there.keys().any(|key| key.contains(&format!(" {address} ")));
                assert!(has("1.0.1.1") && has("1.0.2.1") && has("1.0.0.0/28"), "{script}: {there:?}");
                assert!(!has(deleted) && has(put), "{script}: {there:?}");
                assert_same(&listed(&rfw.ok("GET", "/list")), &there, script);
            };
            rfw.ok("DELETE", "/list?list=*");
            fill(&rfw);
            gone(script);
            assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
            check("1.0.0.1", "1.0.0.2");
            gone(script);
            assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.2\n9.9.9.9\n")["deleted"], 1);
            check("1.0.0.2", "1.0.0.3");
            gone(script);
            assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1")["result"], "inserted");
            check("1.0.0.2", "1.0.0.1");
            gone(script);
            assert_eq!(rfw.ok("DELETE", "/list?address=1.0.0.3")["deleted"], 1);
            check("1.0.0.3", "1.0.0.1");
            gone(script);
            let answer =
                rfw.send_ok("PUT", "/drop/input/any?replace=true&expire=0", "1.0.0.9\n2001:4860::9\n");
            assert_eq!((&answer["inserted"], &answer["removed"]), (&2.into(), &6.into()), "{answer}");
            gone(script);
            rfw.ok("DELETE", "/list?list=*");
            look(&rfw);
            assert_eq!(host.entries(), Vec::new(), "{script}");
        }
    });
}

#[test]
fn what_somebody_deletes_or_changes_by_hand_stays_so() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        fill(&rfw);
        let mut expected = held(&host, iptables);
        sh(
            &host,
            "ipset del rfw4-ids 1.0.0.2; ipset -exist add rfw4-ids 1.0.0.3 timeout 100; \
             ipset add rfw4-ids 7.7.7.7; ipset del rfw6-ids 2001:4860::1",
        );
        expected.retain(|key, _| !key.contains(" 1.0.0.2 ") && !key.contains("2001:4860::1"));
        expected.insert(" DROP INPUT * * 7.7.7.7 any".to_owned(), None);
        let there = held(&host, iptables);
        look(&rfw);
        until(SOON, "it is told", || {
            let (log, told) = (rfw.log(), "[INFO] entries that others have deleted stay deleted:");
            ["rfw4-ids (1)", "rfw6-ids (1)"].iter().all(|set| log.contains(&format!("{told} {set}")))
        });
        assert_same(&held(&host, iptables), &there, "as it was left");
        // From then on they are known as they are.
        sh(&host, "ipset flush rfw4-ids");
        look(&rfw);
        assert_same(&held(&host, iptables), &there, "and after a flush");
        assert!(there.len() == expected.len(), "{there:?}");
    });
}

#[test]
fn a_saved_file_of_before_brings_nothing_back_to_life() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        fill(&rfw);
        rfw.ok("PUT", "/drop/input/any/1.0.3.1?expire=2&reason=short");
        sh(&host, "ipset save rfw4-ids | sed 's/\\(1.0.3.1 timeout\\) [0-9]*/\\1 600/' >saved");
        rfw.ok("DELETE", "/drop/input/any/1.0.0.1");
        rfw.ok("PUT", "/drop/input/any/1.0.4.1?expire=500");
        rfw.send_ok("PUT", "/drop/input/any?expire=2h&reason=why", "1.0.0.2\n1.0.0.3\n1.0.0.0/28\n1.0.2.1\n");
        until(SOON, "it has ended", || !host.entries().iter().any(|entry| entry.element == "1.0.3.1"));
        thread::sleep(Duration::from_millis(2_100));
        let before = held(&host, iptables);
        for script in ["ipset -exist restore <saved", "ipset flush rfw4-ids; ipset -exist restore <saved"] {
            sh(&host, script);
            let changed = held(&host, iptables);
            assert!(changed.keys().any(|key| key.contains("1.0.3.1")), "{changed:?}");
            look(&rfw);
            until(SOON, "its ends are as before", || {
                let there = held(&host, iptables);
                there.keys().eq(before.keys())
                    && there.iter().all(|(key, end)| end.unwrap_or(0).abs_diff(before[key].unwrap_or(0)) <= 3)
            });
            assert_same(&held(&host, iptables), &before, script);
            assert_same(&listed(&rfw.ok("GET", "/list")), &before, script);
            let told = "[INFO] entries that were deleted or had ended and that others have brought back go again: \
                        rfw4-ids (2)";
            assert!(rfw.log().contains(told), "{}", rfw.log());
        }
        let of_entry = |element: &str| {
            host.entries().into_iter().find(|entry| entry.element == element).unwrap().comment
        };
        // The file had none for these.
        assert_eq!(of_entry("1.0.0.2"), "");
        assert!(of_entry("1.0.1.1").starts_with("until 2"), "{}", of_entry("1.0.1.1"));
    });
}

#[test]
fn lists_come_back_as_lists_with_their_union() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        for (query, body) in [
            ("", "1.0.0.1\n1.0.0.2\n1.0.0.3\n"),
            ("list=a&", "1.0.0.2\n1.0.0.4\n2001:4860::4\n"),
            ("list=b&", "1.0.0.5\n"),
        ] {
            rfw.send_ok("PUT", &format!("/drop/input/any?{query}expire=1h"), body);
        }
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=a&expire=3650d");
        let (before, registry) = (held(&host, iptables), host.registry());
        let steps: [(&str, &dyn Fn()); 5] = [
            ("all are emptied", &|| sh(&host, "ipset flush")),
            ("a list is emptied", &|| sh(&host, "ipset flush rfw4-ids/a")),
            ("a list is destroyed", &|| destroy(&host, "rfw4-ids/b")),
            ("two lists are destroyed", &|| {
                destroy(&host, "rfw4-ids/a");
                destroy(&host, "rfw4-ids/-");
            }),
            ("all are destroyed", &|| {
                // All at once, before rfw has put back a rule.
                let script =
                    format!("{iptables} -w -F; {} -w -F; ipset flush; ipset destroy", of_ipv6(iptables));
                until(SOON, "all are destroyed", || host.run("sh", &["-c", &script]).status == Some(0));
            }),
        ];
        for (what, step) in steps {
            step();
            look(&rfw);
            until_same(&host, iptables, &before, what);
            assert_unions(&host, what);
            assert_eq!(host.registry(), registry, "{what}");
        }
        // A request that comes first finds them whole, too.
        destroy(&host, "rfw4-ids/a");
        let answer = rfw.send_ok("PUT", "/drop/input/any?list=a&replace=true&expire=1h", "1.0.0.2\n");
        assert_eq!((&answer["refreshed"], &answer["removed"]), (&1.into(), &3.into()), "{answer}");
        sh(&host, "ipset flush");
        assert_eq!(rfw.ok("DELETE", "/list?list=-")["deleted"], 3);
        look(&rfw);
        let there: Vec<String> = held(&host, iptables).into_keys().collect();
        assert_eq!(there, ["a DROP INPUT * * 1.0.0.2 any", "b DROP INPUT * * 1.0.0.5 any"]);
        assert_unions(&host, "at last");
    });
}

#[test]
fn what_others_empty_is_back_before_the_first_named_list_stands_beside_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let three = "1.0.0.1\n1.0.0.2\n1.0.0.3\n";
        let steps = [
            (three, "ipset flush"),
            (three, "ipset flush rfw4-ids"),
            (three, "printf 'del rfw4-ids 1.0.0.%s\\n' 1 2 | ipset restore"),
            (three, "IPTABLES -w -F; ipset del rfw rfw4-ids; ipset destroy rfw4-ids"),
            // One alone went with the registry.
            ("1.0.0.1\n", "ipset flush"),
        ];
        for (body, script) in steps {
            let what = format!("{iptables}: {script}");
            rfw.ok("DELETE", "/list?list=*");
            rfw.send_ok("PUT", "/drop/input/any?expire=0", body);
            let mut expected = held(&host, iptables);
            assert!(
                !host.run("ipset", &["list", "-n"]).ok().contains("rfw4-ids/"),
                "{what}: a list has a set"
            );
            let script = script.replace("IPTABLES", iptables);
            until(SOON, &what, || host.run("sh", &["-c", &format!("set -e; {script}")]).status == Some(0));
            rfw.ok("PUT", "/drop/input/any/7.7.7.7?list=b&expire=0");
            expected.insert("b DROP INPUT * * 7.7.7.7 any".to_owned(), None);
            assert_same(&held(&host, iptables), &expected, &what);
            assert_same(&listed(&rfw.ok("GET", "/list")), &expected, &what);
            assert_unions(&host, &what);
        }
    });
}
