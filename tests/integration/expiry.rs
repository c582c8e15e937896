//! Rules over time: they expire when they are due, outlive rfw itself, and stay
//! right whatever other programs do to the tables, in both variants of iptables.

use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// When the rule of an answer or a list is due.
#[track_caller]
fn expires(answer: &Value) -> SystemTime {
    let text = answer["expires"].as_str().unwrap_or_else(|| panic!("no expiry: {answer}"));
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}

/// The comment of a rule that is due so many seconds from now.
fn until_in(seconds: u64) -> String {
    let moment = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::from_secs(seconds);
    format!("rfw until {}", moment.format(&Rfc3339).unwrap())
}

/// Watches until nothing in the chain has that text any more, and sees that it
/// went after `due`, and not later than a second after it.
#[track_caller]
fn goes_when_due(host: &Host, command: &str, chain: &str, text: &str, due: SystemTime) {
    let mut seen = SystemTime::UNIX_EPOCH;
    until(SOON, "the rule is gone", || {
        let now = SystemTime::now();
        let there = host.rules(command, chain).iter().any(|rule| rule.contains(text));
        if there {
            seen = now;
        }
        !there
    });
    assert!(SystemTime::now() >= due, "{command}: {text} went too early");
    let late = seen.duration_since(due).unwrap_or_default();
    assert!(late <= Duration::from_secs(1), "{command}: {text} was there {late:?} after it was due");
}

/// The source addresses of a list.
fn sources(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|row| row["source"].as_str().unwrap()).collect()
}

/// A list without the numbers of its rules, which shift when others put theirs in.
fn without_numbers(mut list: Value) -> Value {
    list.as_array_mut().unwrap().iter_mut().for_each(|row| row["num"] = Value::Null);
    list
}

#[test]
fn a_rule_goes_within_a_second_of_its_expiry_and_not_before() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let v6 = of_ipv6(iptables);
        let late = rfw.ok("PUT", "/drop/forward/any/1.0.0.3/any/1.0.0.4?expire=3s");
        let first = rfw.ok("PUT", "/drop/input/eth0/1.0.0.1?expire=1");
        let second = rfw.ok("PUT", "/reject/output/any/2001:db8::2?expire=2");
        rfw.ok("PUT", "/drop/input/any/1.0.0.5?expire=1h");
        rfw.ok("PUT", "/drop/input/any/1.0.0.6?expire=0");
        goes_when_due(&host, iptables, "INPUT", "1.0.0.1", expires(&first));
        goes_when_due(&host, &v6, "OUTPUT", "2001:db8::2", expires(&second));
        goes_when_due(&host, iptables, "FORWARD", "1.0.0.3", expires(&late));
        assert_eq!(sources(&rfw.ok("GET", "/list")), ["1.0.0.6", "1.0.0.5"]);
        assert_eq!(host.rules(iptables, "INPUT").len(), 2);
    });
}

#[test]
fn a_lease_is_as_long_as_the_request_or_the_configuration_says() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).reconfigure("default.expire = 1h", "default.expire = 2m").start();
        let golden = [
            ("", Some(120)),
            ("?wait=true", Some(120)),
            ("?expire=90", Some(90)),
            ("?expire=90s", Some(90)),
            ("?expire=10m", Some(600)),
            ("?expire=2h", Some(7_200)),
            ("?expire=3d", Some(259_200)),
            ("?expire=36500d", Some(3_153_600_000)),
            ("?expire=0", None),
            ("?expire=0d", None),
        ];
        for (query, seconds) in golden {
            let before = SystemTime::now();
            let answer = rfw.ok("PUT", &format!("/drop/input/any/1.2.3.4{query}"));
            let comment = match seconds {
                None => {
                    assert_eq!(answer["expires"], Value::Null, "{query}");
                    "\"rfw permanent\"".to_owned()
                }
                Some(seconds) => {
                    let lease = Duration::from_secs(seconds);
                    // A lease is never cut short, and ends on a whole second.
                    assert!(expires(&answer) >= before + lease, "{query}: {answer}");
                    assert!(
                        expires(&answer) <= SystemTime::now() + lease + Duration::from_secs(1),
                        "{query}: {answer}"
                    );
                    format!("\"rfw until {}\"", answer["expires"].as_str().unwrap())
                }
            };
            let rules = host.rules(iptables, "INPUT");
            assert!(rules.len() == 1 && rules[0].contains(&comment), "{query}: {rules:?}");
        }
    });
}

#[test]
fn without_an_expiry_a_rule_goes_after_the_default() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).reconfigure("default.expire = 1h", "default.expire = 1").start();
        let answer = rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        goes_when_due(&host, iptables, "INPUT", "1.2.3.4", expires(&answer));
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
    });
}

#[test]
fn a_refresh_moves_the_expiry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let put = |path: &str| rfw.ok("PUT", path);
        put("/drop/input/any/1.0.0.1?expire=1");
        put("/drop/input/any/1.0.0.2?expire=1");
        put("/drop/input/any/1.0.0.3?expire=0");
        put("/drop/input/any/1.0.0.4?expire=1h");
        let renewed = put("/drop/input/any/1.0.0.1?expire=3");
        assert_eq!(put("/drop/input/any/1.0.0.2?expire=0")["result"], "refreshed");
        let ended = put("/drop/input/any/1.0.0.3?expire=1");
        let shortened = put("/drop/input/any/1.0.0.4?expire=1");
        goes_when_due(&host, iptables, "INPUT", "1.0.0.3", expires(&ended));
        goes_when_due(&host, iptables, "INPUT", "1.0.0.4", expires(&shortened));
        goes_when_due(&host, iptables, "INPUT", "1.0.0.1", expires(&renewed));
        assert_eq!(sources(&rfw.ok("GET", "/list")), ["1.0.0.2"]);
    });
}

#[test]
fn a_thousand_rules_due_at_once_go_in_few_transactions_while_a_client_is_served() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let comment = until_in(4);
        let due = expires(&json!({ "expires": comment.strip_prefix("rfw until ").unwrap() }));
        let mut script = "*filter\n".to_owned();
        for number in 0..1_000 {
            let address = format!("10.20.{}.{}", number / 250, number % 250);
            script += &format!("-A INPUT -s {address} -m comment --comment \"{comment}\" -j DROP\n");
            // A plain user's buffer for netlink holds a few hundred rules at once.
            if number % 250 == 249 {
                script += "COMMIT\n*filter\n";
            }
        }
        script += "COMMIT\n";
        host.feed(&format!("{iptables}-restore"), &["--noflush", "-w"], script.as_bytes()).ok();
        let rfw = host.rfw(iptables).start();
        let count = |text: &str| host.rules(iptables, "INPUT").iter().filter(|r| r.contains(text)).count();
        assert_eq!(count("-s 10.20."), 1_000);
        until(SOON, "the rules are due", || SystemTime::now() + Duration::from_millis(900) > due);
        assert_eq!(count("-s 10.20."), 1_000);

        let (mut requests, mut longest) = (0, Duration::ZERO);
        until(SOON, "all are gone", || {
            requests += 1;
            let start = Instant::now();
            assert_eq!(rfw.ok("PUT", &format!("/drop/input/any/10.30.0.{requests}"))["result"], "inserted");
            longest = longest.max(start.elapsed());
            count("-s 10.20.") == 0
        });
        let took = SystemTime::now().duration_since(due).unwrap_or_default();
        assert!(took < Duration::from_secs(3), "{iptables}: {took:?}");
        assert!(longest < Duration::from_secs(1), "{iptables}: a client waited {longest:?}");
        assert_eq!(count("-s 10.30."), requests);

        let log = rfw.log();
        let transactions: Vec<usize> = log
            .lines()
            .filter(|line| line.contains("[DEBUG]"))
            .map(|line| match line.split_once(" rules of IPv4 are deleted by their handles") {
                Some((number, _)) => number.rsplit(' ').next().unwrap().parse().unwrap(),
                None => line.matches("-D INPUT -s 10.20.").count(),
            })
            .filter(|deletions| *deletions > 0)
            .collect();
        // Those that were too large for a plain user's netlink are logged as well.
        assert!(transactions.iter().sum::<usize>() >= 1_000, "{transactions:?}");
        assert!(transactions.len() <= 20, "{transactions:?}");
    });
}

#[test]
fn after_kill_9_rules_are_listed_and_expire_as_before() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        let timed = rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=4");
        rfw.ok("PUT", "/accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5?expire=0");
        rfw.ok("PUT", "/reject/output/eth/2001:db8::/48?expire=1h");
        host.admin(iptables, "-I INPUT -s 9.9.9.9 -j ACCEPT");
        let (tables, list) = (host.tables(iptables), rfw.ok("GET", "/list"));
        assert_eq!(list.as_array().unwrap().len(), 3);

        rfw.signal("KILL");
        assert_eq!(rfw.end(), -1);
        assert_eq!(host.tables(iptables), tables, "{iptables}: after kill -9");
        rfw.spawn();
        assert_eq!(without_numbers(rfw.ok("GET", "/list")), without_numbers(list));
        let sorted = |tables: [Vec<String>; 2]| {
            let mut all = tables.concat();
            all.sort();
            all
        };
        assert_eq!(sorted(host.tables(iptables)), sorted(tables), "{iptables}: after the start");
        goes_when_due(&host, iptables, "INPUT", "1.0.0.1", expires(&timed));
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 2);
        for (path, result) in [
            ("/accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5?expire=0", "unchanged"),
            ("/reject/output/eth/2001:db8::/48?expire=1h", "refreshed"),
            ("/drop/input/any/1.0.0.1", "inserted"),
        ] {
            assert_eq!(rfw.ok("PUT", path)["result"], result, "{path}");
        }
    });
}

#[test]
fn what_expired_while_rfw_was_down_goes_at_its_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.9?expire=0");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=1");
        let last = rfw.ok("PUT", "/drop/forward/any/2001:db8::1?expire=1");
        rfw.signal("KILL");
        assert_eq!(rfw.end(), -1);
        until(SOON, "the rules are due", || SystemTime::now() > expires(&last));
        let ours = || [host.rules(iptables, "INPUT"), host.rules(&of_ipv6(iptables), "FORWARD")].concat();
        assert_eq!(ours().len(), 3, "{iptables}: nobody removes them meanwhile");
        rfw.spawn();
        until(Duration::from_secs(2), "they are gone", || ours().len() == 1);
        assert_eq!(sources(&rfw.ok("GET", "/list")), ["1.0.0.9"]);
    });
}

#[test]
fn the_end_by_a_signal_leaves_the_rules() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=0");
        rfw.ok("PUT", "/drop/forward/any/2001:db8::1?expire=1h");
        let tables = host.tables(iptables);
        rfw.stop();
        assert_eq!(host.tables(iptables), tables, "{iptables}: SIGTERM");
        rfw.spawn();
        rfw.signal("INT");
        assert_eq!(rfw.end(), 0);
        assert_eq!(host.rules(iptables, "INPUT").len(), 1, "{iptables}: SIGINT");
        assert_eq!(host.rules(&of_ipv6(iptables), "FORWARD").len(), 1, "{iptables}: SIGINT");
    });
}

#[test]
fn after_a_flush_by_an_admin_answers_are_true_and_requests_work() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let paths = ["/drop/input/any/1.0.0.1", "/drop/input/any/1.0.0.2", "/drop/input/any/2001:db8::1"];
        for path in paths {
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{path}");
        }
        for command in [iptables, &of_ipv6(iptables)] {
            host.admin(command, "-F");
        }
        // What was flushed is to come back, so it is there to be deleted.
        assert_eq!(rfw.ok("DELETE", paths[0])["result"], "deleted");
        assert_eq!(rfw.ok("DELETE", paths[0])["result"], "absent");
        rfw.ok("PUT", paths[0]);
        // The reading of the white list anew puts all back at once.
        rfw.signal("HUP");
        until(SOON, "the port is guarded again", || !host.guards(iptables).is_empty());
        until(SOON, "in IPv6 too", || !host.guards(&of_ipv6(iptables)).is_empty());
        assert_eq!(sources(&rfw.ok("GET", "/list")).len(), 3);
    });
}

#[test]
fn rules_that_an_admin_deletes_or_puts_in_between_confuse_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("stay.first = off").start();
        let path = |number: u8| format!("/drop/input/any/1.0.0.{number}?expire=1h");
        for number in 1..=4 {
            rfw.ok("PUT", &path(number));
        }
        let numbers = || {
            let list = rfw.ok("GET", "/list");
            let rows = list.as_array().unwrap().iter();
            rows.map(|row| {
                format!("{}:{}", row["num"].as_str().unwrap(), &row["source"].as_str().unwrap()[6..])
            })
            .collect::<Vec<_>>()
            .join(" ")
        };
        assert_eq!(numbers(), "1:4 2:3 3:2 4:1");
        host.admin(iptables, "-D INPUT 2");
        assert_eq!(numbers(), "1:4 2:2 3:1");
        host.admin(iptables, "-I INPUT 2 -s 1.0.0.4 -j DROP");
        host.admin(iptables, "-I INPUT 1 -p udp -j ACCEPT");
        assert_eq!(numbers(), "2:4 4:2 5:1");
        assert_eq!(rfw.ok("DELETE", &path(3))["result"], "absent");
        assert_eq!(rfw.ok("DELETE", &path(2))["result"], "deleted");
        assert_eq!(rfw.ok("PUT", &path(4))["result"], "refreshed");
        assert_eq!(rfw.ok("PUT", &path(3))["result"], "inserted");
        assert_eq!(numbers(), "1:3 2:4 5:1");
        let others = ["-A INPUT -p udp -j ACCEPT", "-A INPUT -s 1.0.0.4/32 -j DROP"];
        let rules = host.rules(iptables, "INPUT");
        assert_eq!(rules.iter().filter(|rule| !rule.contains("rfw until")).collect::<Vec<_>>(), others);
    });
}

#[test]
fn a_delete_takes_every_copy_and_a_put_leaves_one() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for command in [iptables.to_owned(), of_ipv6(iptables)] {
            let timed = if command == iptables { "1.0.0.1" } else { "2001:db8::1" };
            let permanent = if command == iptables { "1.0.0.2" } else { "2001:db8::2" };
            let put = |address: &str, query: &str| {
                rfw.ok("PUT", &format!("/reject/input/any/{address}{query}"))["result"].clone()
            };
            put(timed, "?expire=1h");
            put(permanent, "?expire=0");
            let twice = format!("{command}-save -t filter >saved; {command}-restore --noflush <saved");
            let copies = |address: &str| {
                host.rules(&command, "INPUT").iter().filter(|rule| rule.contains(address)).count()
            };
            host.run("sh", &["-c", &twice]).ok();
            host.run("sh", &["-c", &twice]).ok();
            // Each is there four times now, unless rfw has noticed already.
            assert!(copies(timed) >= 1 && copies(permanent) >= 1, "{command}");
            let list = rfw.ok("GET", "/list/input");
            assert!(sources(&list).contains(&timed), "{list}");
            assert_eq!(put(timed, "?expire=2h"), "refreshed");
            // Nothing is changed where rfw has noticed the copies already.
            assert!(["refreshed", "unchanged"].contains(&put(permanent, "?expire=0").as_str().unwrap()));
            assert_eq!((copies(timed), copies(permanent)), (1, 1), "{command}");
            // A copy with another lease is a copy as well.
            host.admin(
                &command,
                &format!("-A INPUT -s {timed} -m comment --comment 'rfw permanent' -j REJECT"),
            );
            host.run("sh", &["-c", &twice]).ok();
            assert!(copies(timed) >= 1 && copies(permanent) >= 1, "{command}");
            for address in [timed, permanent] {
                let path = format!("/reject/input/any/{address}");
                assert_eq!(rfw.ok("DELETE", &path)["result"], "deleted");
                assert_eq!(copies(address), 0, "{command}");
                assert_eq!(rfw.ok("DELETE", &path)["result"], "absent");
            }
        }
    });
}

#[test]
fn copies_expire_together() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let answer = rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=2");
        let twice = format!("{iptables}-save -t filter >saved; {iptables}-restore --noflush <saved");
        host.run("sh", &["-c", &twice]).ok();
        goes_when_due(&host, iptables, "INPUT", "1.0.0.1", expires(&answer));
    });
}

#[test]
fn a_rule_that_another_program_brings_back_expires_once_it_has_been_listed() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let path = "/drop/input/any/1.0.0.1?expire=3";
        let answer = rfw.ok("PUT", path);
        host.run("sh", &["-c", &format!("{iptables}-save -t filter >saved")]).ok();
        // That somebody has deleted it by hand is no reason to delete it again.
        host.admin(iptables, "-D INPUT 1");
        assert_eq!(rfw.ok("GET", "/list"), json!([]));
        host.run("sh", &["-c", &format!("{iptables}-restore <saved")]).ok();
        assert_eq!(rfw.ok("GET", "/list")[0]["expires"], answer["expires"]);
        goes_when_due(&host, iptables, "INPUT", "1.0.0.1", expires(&answer));
    });
}

#[test]
fn requests_succeed_while_another_program_keeps_changing_the_table() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let restless = format!(
            "while :; do {iptables} -w -F INPUT; {iptables} -w -I INPUT -s 9.9.9.9 -j ACCEPT; echo; done"
        );
        let mut other = host.command("sh");
        let mut other = other.args(["-c", &restless]).stdout(Stdio::piped()).spawn().unwrap();
        let path = |number: usize| format!("/drop/input/any/1.0.0.{number}?expire=1h");
        for number in 0..40 {
            let put = rfw.ok("PUT", &path(number));
            let renewed = rfw.ok("PUT", &path(number));
            let deleted = rfw.ok("DELETE", &path(number));
            assert_eq!(put["result"], "inserted", "{number}");
            assert!(["refreshed", "inserted"].contains(&renewed["result"].as_str().unwrap()), "{renewed}");
            assert!(["deleted", "absent"].contains(&deleted["result"].as_str().unwrap()), "{deleted}");
        }
        other.kill().unwrap();
        let mut changes = String::new();
        other.stdout.take().unwrap().read_to_string(&mut changes).unwrap();
        other.wait().unwrap();
        assert!(changes.len() > 40, "{iptables}: {} changes by the other", changes.len());
        assert_eq!(sources(&rfw.ok("GET", "/list")), Vec::<&str>::new());
    });
}

/// Holds the lock of the xtables for so many seconds, or until it is killed.
fn hold_lock(host: &Host, seconds: &str) -> Child {
    let mut flock = host.command("flock");
    let holder = flock.args(["--no-fork", "/run/xtables.lock", "sleep", seconds]).spawn().unwrap();
    let lock = ["-n", "/run/xtables.lock", "true"];
    until(SOON, "the lock is held", || host.run("flock", &lock).status != Some(0));
    holder
}

fn timed_request(rfw: &Rfw<'_>, method: &str, path: &str) -> (u16, Duration) {
    let start = Instant::now();
    (rfw.request(method, path).status, start.elapsed())
}

#[test]
fn a_lock_held_by_another_program_is_waited_for_five_seconds() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=1h");
        let before = host.tables(iptables);
        let mut holder = hold_lock(&host, "30");
        let (status, took) = timed_request(&rfw, "PUT", "/drop/input/any/1.0.0.2");
        if iptables.contains("nft") {
            // It has no lock, so nobody has to wait for it.
            assert_eq!(status, 200);
        } else {
            assert_eq!(status, 503);
            assert!((4..8).contains(&took.as_secs()), "{took:?}");
            // Those behind it need not wait for the same.
            let start = Instant::now();
            let next = rfw.request("DELETE", "/drop/input/any/1.0.0.1");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            assert_eq!((next.status, next.header("Retry-After")), (503, Some("2")), "{next:?}");
            assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 1);
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        if !iptables.contains("nft") {
            assert_eq!(host.tables(iptables), before);
            until(SOON, "it is free", || rfw.request("PUT", "/drop/input/any/1.0.0.2").status == 200);
        }
        // A lock that is given back in time costs only patience.
        let mut holder = hold_lock(&host, "1");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.2")["result"], "deleted");
        holder.wait().unwrap();
        assert_eq!(host.tables(iptables), before);
    });
}

#[test]
fn an_expiry_that_waits_for_the_lock_does_not_make_a_client_wait_for_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let answer = rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=1");
        rfw.ok("PUT", "/drop/input/any/1.0.0.2?expire=1h");
        let mut holder = hold_lock(&host, "5");
        until(SOON, "it is due", || SystemTime::now() > expires(&answer) + Duration::from_millis(300));
        let (status, took) = timed_request(&rfw, "GET", "/list/input");
        assert_eq!(status, 200);
        assert!(took < Duration::from_secs(2), "{iptables}: {took:?}");
        holder.wait().unwrap();
        until(Duration::from_secs(2), "it is gone", || host.rules(iptables, "INPUT").len() == 1);
    });
}
