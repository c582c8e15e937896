//! Bounds that keep one client, one program or one list from stopping the rest.

use crate::host::fake::Fault;
use crate::host::{Host, Rfw, SOON, Talk, in_all_ways, in_both_variants, until};
use std::fs;
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn addresses(first: &str, count: usize) -> String {
    (0..count).map(|n| format!("{first}.{}.{}\n", n / 250, n % 250)).collect()
}

#[test]
fn more_rules_than_may_be_are_refused_before_anything_is_done() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("rules.max = 100").start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses("1.0", 99));
        let before = host.everything(iptables);
        // The list of the second family is checked before the first is put in.
        for list in [addresses("1.1", 2), format!("2001:db8::1\n{}", addresses("1.2", 101))] {
            let reply = rfw.send("PUT", "/drop/input/any", &list);
            assert_eq!(reply.status, 507, "{reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("rules.max") && error.contains("the option ipset"), "{error}");
        }
        assert_eq!(host.everything(iptables), before);
        // One that is there may be renewed; one more fits; then none.
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &addresses("1.0", 99))["refreshed"], 99);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.0.0.1")["result"], "inserted");
        assert!(rfw.refused("PUT", "/drop/input/any/9.0.0.2", 507).contains("at most 100"));
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.0.0.1?expire=0")["result"], "refreshed");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/2001:db8::1")["result"], "inserted");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", &addresses("1.0", 99))["deleted"], 99);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.0.0.2")["result"], "inserted");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.0.0.2?expire=0")["result"], "refreshed");
        rfw.stop();
    });
}

/// There iptables-nft sends a transaction only if it fits into the default buffer.
#[test]
fn in_a_container_a_list_may_be_too_long_for_iptables_but_all_that_is_there_goes() {
    in_both_variants(|iptables| {
        let host = Host::in_container();
        let mut rfw = host.rfw(iptables).configure("rules.max = 1000000").start();
        // Some kernels show it in their first network namespace only; this is what they have.
        let buffer = fs::read_to_string("/proc/sys/net/core/wmem_default");
        let buffer: usize = buffer.map_or(212_992, |buffer| buffer.trim().parse().unwrap());
        // A change takes 550 bytes, of which the comment has 256, and a renewed rule is two.
        let count = buffer / 256;
        let put_in_parts = |rfw: &Rfw<'_>, query: &str| {
            let list = addresses("1.0", count);
            for part in list.lines().collect::<Vec<_>>().chunks(count / 8) {
                rfw.send_ok("PUT", &format!("/drop/input/any{query}"), &(part.join("\n") + "\n"));
            }
        };
        put_in_parts(&rfw, "?expire=0");
        let before = host.everything(iptables);
        let reply = rfw.send("PUT", "/drop/input/any", &addresses("1.0", count));
        if iptables.contains("nft") {
            assert_eq!(reply.status, 500, "{reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("Message too long") && error.contains("shorten the list"), "{error}");
            assert_eq!(host.everything(iptables), before);
        } else {
            assert_eq!(reply.json()["refreshed"], count);
        }
        put_in_parts(&rfw, "?expire=3");
        rfw.stop();
        std::thread::sleep(Duration::from_secs(4));
        rfw.spawn();
        until(SOON, "all have ended", || host.kept(iptables).is_empty());
        put_in_parts(&rfw, "");
        rfw.stop();
        let said = rfw.call(&["--flush"]).ok();
        assert_eq!(said, format!("{} rules removed\n", count + 8), "four guards a family");
        assert!(host.tables(iptables).concat().is_empty());
    });
}

#[test]
fn a_long_list_as_rules_costs_little_before_it_is_refused() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let list: String =
        (0..250_000).map(|n| format!("{}.{}.{}.{}\n", 11 + n / 65_536, n / 256 % 256, n % 256, 1)).collect();
    let start = Instant::now();
    let reply = rfw.send("PUT", "/drop/input/any", &list);
    assert_eq!(reply.status, 507, "{reply:?}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 << 10, "{peak} kB");
}

#[test]
fn more_entries_than_may_be_rules_stay_in_their_sets() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nrules.max = 100").start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses("1.0", 90));
        rfw.send_ok("PUT", "/reject/output/any", &addresses("2.0", 20));
        rfw.stop();
        let before = host.everything(iptables);
        let mut rfw = rfw.reconfigure("ipset\n", "");
        assert_eq!(rfw.try_spawn().unwrap_err().code(), Some(78));
        assert!(
            rfw.log().contains("110 addresses of IPv4") && rfw.log().contains("rules.max"),
            "{}",
            rfw.log()
        );
        assert_eq!(host.everything(iptables), before);
        let mut rfw = rfw.reconfigure("rules.max = 100", "rules.max = 110");
        rfw.spawn();
        assert_eq!(host.kept(iptables).len(), 110);
        assert_eq!(host.sets(), Vec::<String>::new());
    });
}

fn told_end(answer: &serde_json::Value) -> SystemTime {
    OffsetDateTime::parse(answer["expires"].as_str().unwrap(), &Rfc3339).unwrap().into()
}

#[test]
fn an_entry_never_ends_before_what_was_told_and_at_most_two_seconds_later() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        let mut told = Vec::new();
        // At different parts of a second, so that rounding shows.
        for n in 0..5 {
            std::thread::sleep(Duration::from_millis(170));
            let path = format!("/drop/input/any/1.0.0.{n}?expire=4");
            told.push((format!("1.0.0.{n}"), told_end(&rfw.ok("PUT", &path))));
        }
        let answer = rfw.send_ok("PUT", "/drop/input/any?expire=5", "1.0.1.1\n1.0.1.2\n");
        told.push(("1.0.1.1".to_owned(), told_end(&answer)));
        let list = addresses("3.0", 60);
        let mut gone = Vec::new();
        while gone.len() < told.len() {
            // A list that is sent again and again makes the set anew each time.
            let listed = rfw.ok("GET", "/list");
            for row in listed.as_array().unwrap() {
                if let Some((_, end)) = told.iter().find(|(address, _)| row["source"] == address.as_str()) {
                    assert!(told_end(row) <= *end + Duration::from_secs(2), "{row}");
                }
            }
            rfw.send_ok("PUT", "/drop/input/any?expire=1h", &list);
            let before = SystemTime::now();
            let entries = host.entries();
            let after = SystemTime::now();
            for (address, end) in &told {
                let there = entries.iter().any(|entry| entry.element == *address && entry.timeout > 0);
                assert!(there || after >= *end, "{address} is gone before {end:?}");
                assert!(
                    !there || before <= *end + Duration::from_secs(2),
                    "{address} is there after {end:?}"
                );
                if !there && !gone.contains(address) {
                    gone.push(address.clone());
                }
            }
        }
    });
}

/// The guards and the other rules, each in their order, and the entries of sets. Guards that
/// are put in anew stand before blocks, which never concern those that they let through.
fn state(host: &Host, iptables: &str) -> (Vec<String>, Vec<String>) {
    let (tables, _, entries) = host.everything(iptables);
    let (guards, others): (Vec<String>, Vec<String>) =
        tables.into_iter().partition(|rule| rule.contains("rfw guard"));
    ([guards, others].concat(), entries)
}

#[test]
fn a_white_list_comes_into_force_for_both_families_or_for_none() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let (path, lines) = host.fake_programs(iptables);
        let rfw = host.rfw(&path).configure(&format!("{lines}\n{option}")).start();
        rfw.send_ok("PUT", "/drop/input/any?expire=0", "10.0.0.1\n10.0.0.2\n2001:db8::1\n2001:db8::2\n");
        let mut old = state(&host, iptables);
        host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.1\n2001:db8::1\n");
        let mut reloads = 0;
        for fault in [Fault::Fails, Fault::Nothing, Fault::DiesLate] {
            for number in 1.. {
                host.fail_at(fault, number);
                rfw.signal("HUP");
                reloads += 1;
                let count = || {
                    rfw.log().matches("the old configuration stays").count()
                        + rfw.log().matches("has been read again").count()
                };
                until(SOON, "the reload is done", || count() == reloads);
                let refused = rfw.log().matches("the old configuration stays").count();
                let calls = host.heal();
                if refused < reloads {
                    // It went through: more calls than were to go wrong, or one that was made good.
                    let new = state(&host, iptables);
                    assert!(
                        !new.0
                            .iter()
                            .chain(&new.1)
                            .any(|line| line.contains("10.0.0.1 ") && line.contains("DROP"))
                    );
                    host.write("white.list", 0o644, "127.0.0.1\n::1\n");
                    rfw.signal("HUP");
                    reloads += 1;
                    until(SOON, "the reload is done", || count() == reloads);
                    rfw.send_ok("PUT", "/drop/input/any?expire=0", "10.0.0.1\n2001:db8::1\n");
                    old = state(&host, iptables);
                    host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.1\n2001:db8::1\n");
                    reloads = 0;
                    fs::write(host.dir.join("rfw.log"), "").unwrap();
                } else {
                    assert_eq!(state(&host, iptables), old, "{fault:?} {number}\n{}", rfw.log());
                    rfw.refused("PUT", "/drop/input/any/127.0.0.0/24", 400);
                    rfw.ok("PUT", "/drop/input/any/10.0.0.1?expire=0");
                    reloads = 0;
                    fs::write(host.dir.join("rfw.log"), "").unwrap();
                }
                if calls < number {
                    break;
                }
            }
        }
    });
}

#[test]
fn who_is_not_root_keeps_no_rfw_from_starting() {
    let host = Host::new();
    // AF_UNIX and SOCK_STREAM are 1.
    let squat = r#"$| = 1; socket(S, 1, 1, 0) && bind(S, pack("S a*", 1, "\0rfw")) && listen(S, 1) && print "held"; <STDIN>"#;
    let squatter: Talk = host.talk("setpriv", &["--reuid", "65533", "--clear-groups", "perl", "-e", squat]);
    until(SOON, "the name is taken", || squatter.heard().contains("held") || squatter.is_over());
    if squatter.is_over() {
        // In a user namespace there is nobody else to be.
        assert_ne!(crate::host::run("id", &["-u"]).out.trim(), "0");
        return;
    }
    let mut rfw = host.rfw("iptables-nft").start();
    assert!(rfw.log().contains("is taken by a process that is not known to be one of root"), "{}", rfw.log());
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    rfw.stop();
}

#[test]
fn a_drip_of_a_list_delays_no_end() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-nft").start();
    let mut talk = host.connect(7390);
    talk.say(b"PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
    let start = Instant::now();
    let dripping = std::thread::spawn(move || {
        while !talk.is_over() && start.elapsed() < Duration::from_secs(30) {
            talk.say(b"\n");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    rfw.signal("TERM");
    assert_eq!(rfw.end(), 0);
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    dripping.join().unwrap();
    assert_eq!(host.kept("iptables-nft"), Vec::<String>::new());
}
