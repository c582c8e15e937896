//! The white list and the guard of rfw's own port, with real packets from other
//! addresses, in both families and both variants of iptables.

mod never;
mod set;

use crate::golden::cases;
use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use std::process::Stdio;

/// Every kind of entry.
const WHITE_LIST: &str = "# who may give orders
127.0.0.1
10.1.2.3          # an address
192.168.0.0/16    # a network
172.16.5.9/24     # a network by one of its addresses
203.0.113.5-203.0.113.9
::ffff:198.51.100.7
2001:db8::5
2001:db8:1::/48
2001:db8:2::10 - 2001:db8:2::1f
";

/// Makes a white list the one in force.
#[track_caller]
fn reload(rfw: &Rfw<'_>, list: &str) {
    rfw.host.write("white.list", 0o644, list);
    rfw.reload();
}

/// A rule as rfw makes it, put in by hand.
#[track_caller]
fn put_by_hand(host: &Host, iptables: &str, rule: &str) {
    let (matches, target) = rule.split_once(" -j ").unwrap();
    host.admin(iptables, &format!("{matches} -m comment --comment 'rfw permanent' -j {target}"));
}

#[test]
fn no_rule_may_touch_the_white_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list(WHITE_LIST).start();
        let before = host.tables(iptables);
        for (at, [path]) in cases("guard-touches.txt") {
            let error = rfw.refused("PUT", &path, 400);
            assert!(error.contains("white-listed"), "{at}: {error}");
        }
        assert_eq!(host.tables(iptables), before, "{iptables}");
        let passes = cases("guard-passes.txt");
        for (at, [path]) in &passes {
            assert_eq!(rfw.ok("PUT", path)["result"], "inserted", "{at}");
        }
        assert_eq!(host.tables(iptables).concat().len(), before.concat().len() + passes.len());
    });
}

#[test]
fn a_delete_may_touch_the_white_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let before = host.tables(iptables);
        let golden = [
            ("-I FORWARD -s 127.0.0.1 -j DROP", "/drop/forward/any/127.0.0.1"),
            ("-I OUTPUT -d 127.0.0.0/9 -o eth0 -j REJECT", "/reject/output/eth0/127.0.0.0/9"),
            ("-I FORWARD -d ::1 -j ACCEPT", "/accept/forward/any/::/any/::1"),
        ];
        for (rule, path) in golden {
            let command = if rule.contains("::") { of_ipv6(iptables) } else { iptables.to_owned() };
            assert_eq!(rfw.ok("DELETE", path)["result"], "absent", "{path}");
            put_by_hand(&host, &command, rule);
            rfw.refused("PUT", path, 400);
            assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 1, "{path}");
            assert_eq!(rfw.ok("DELETE", path)["result"], "deleted", "{path}");
            assert_eq!(host.tables(iptables), before, "{iptables}: {path}");
        }
    });
}

#[test]
fn own_rules_that_touch_the_white_list_go_at_the_start_with_a_warning() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        let conflicts = [
            (iptables, "INPUT -s 10.1.2.3 -j DROP"),
            (iptables, "OUTPUT -d 203.0.113.8/30 -o eth+ -j REJECT"),
            (iptables, "FORWARD -s 8.8.8.8 -d 192.168.1.1 -j ACCEPT"),
            (&v6, "INPUT -s 2001:db8:1:2::/64 -j DROP"),
        ];
        for (command, rule) in conflicts {
            put_by_hand(&host, command, &format!("-I {rule}"));
        }
        put_by_hand(&host, iptables, "-I INPUT -s 10.1.2.4 -j DROP");
        put_by_hand(&host, &v6, "-I INPUT -s 2001:db8::4 -j DROP");
        host.admin(iptables, "-I INPUT -s 10.1.2.3 -j ACCEPT");
        let rfw = host.rfw(iptables).white_list(WHITE_LIST).configure("stay.first = off").start();
        let log = rfw.log();
        for (_, rule) in conflicts {
            let line = format!("[WARN] removed, since it touches the white list: {rule}");
            assert!(log.contains(&line), "{line}\n{log}");
        }
        assert_eq!(log.matches("[WARN]").count(), conflicts.len(), "{log}");
        let v4 = ["INPUT", "OUTPUT", "FORWARD"].map(|chain| host.rules(iptables, chain)).concat();
        let kept = "-A INPUT -s 10.1.2.4/32 -m comment --comment \"rfw permanent\" -j DROP";
        assert_eq!(v4, ["-A INPUT -s 10.1.2.3/32 -j ACCEPT", kept], "{iptables}");
        assert_eq!(host.rules(&v6, "INPUT").len(), 1, "{iptables}");
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 2);
    });
}

#[test]
fn a_hangup_reads_the_white_list_again_and_refuses_a_bad_one() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        let mut rfw = host.rfw(iptables).start();
        for path in ["/drop/input/any/10.1.2.3", "/drop/input/any/10.1.2.4", "/drop/forward/any/fd00::7"] {
            rfw.ok("PUT", path);
        }
        let before = host.tables(iptables);
        let bad = [
            ("127.0.0.1\nlaptop\n", "white.list:2: \"laptop\" is not an IPv4 or IPv6 address"),
            ("# nobody\n", "no entry"),
            ("127.0.0.1\n0.0.0.0/0\n", "white.list:2: \"0.0.0.0/0\" means any address"),
        ];
        for (count, (text, why)) in (1..).zip(bad) {
            rfw = rfw.white_list(text);
            rfw.signal("HUP");
            until(SOON, "the list is refused", || {
                rfw.log().matches("the old configuration stays").count() == count
            });
            assert!(rfw.log().contains(why), "{why}\n{}", rfw.log());
            assert_eq!(host.tables(iptables), before, "{iptables}: {text}");
            rfw.refused("PUT", "/drop/input/any/127.0.0.1", 400);
        }

        rfw = rfw.white_list("127.0.0.1\n10.1.2.0-10.1.2.3\nfd00::/64\n");
        rfw.signal("HUP");
        until(SOON, "the list is taken", || rfw.log().contains("the configuration has been read again"));
        assert!(rfw.log().contains("touches the white list: INPUT -s 10.1.2.3 -j DROP"), "{}", rfw.log());
        assert!(rfw.log().contains("touches the white list: FORWARD -s fd00::7 -j DROP"), "{}", rfw.log());
        let rules = [host.rules(iptables, "INPUT"), host.rules(&v6, "FORWARD")].concat();
        assert!(rules.len() == 1 && rules[0].contains("10.1.2.4"), "{iptables}: {rules:?}");
        rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/::1")["result"], "inserted");
        assert_eq!(guard_of(&host, iptables), guard_for(&["10.1.2.0/30", "127.0.0.1/32"]));
        assert_eq!(guard_of(&host, &v6), guard_for(&["fd00::/64"]));
    });
}

/// The guard rules without their comment: per chain those that accept in any order,
/// then the one that drops.
fn guard_of(host: &Host, command: &str) -> Vec<String> {
    let rules = host.guards(command);
    let mut bare: Vec<String> =
        rules.iter().map(|rule| rule.replace(" -m comment --comment \"rfw guard\"", "")).collect();
    for chain in ["-A INPUT", "-A OUTPUT"] {
        let of_chain: Vec<_> = bare.iter().filter(|rule| rule.starts_with(chain)).collect();
        let drops = of_chain.iter().position(|rule| rule.ends_with("-j DROP"));
        assert_eq!(drops, of_chain.len().checked_sub(1), "{rules:#?}");
    }
    bare.sort();
    bare
}

/// The guard rules for these networks, as `iptables -S` prints them.
fn guard_for(networks: &[&str]) -> Vec<String> {
    let port = "-p tcp -m tcp";
    let accepts = networks.iter().flat_map(|network| {
        [
            format!("-A INPUT -s {network} {port} --dport 7393 -j ACCEPT"),
            format!("-A OUTPUT -d {network} {port} --sport 7393 -j ACCEPT"),
        ]
    });
    let mut all: Vec<String> = accepts.collect();
    all.push(format!("-A INPUT {port} --dport 7393 -j DROP"));
    all.push(format!("-A OUTPUT {port} --sport 7393 -j DROP"));
    all.sort();
    all
}

#[test]
fn the_guard_lets_each_entry_of_the_white_list_pass_and_nobody_else() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        let rfw = host.rfw(iptables).white_list(WHITE_LIST).start();
        let v4_list = [
            "10.1.2.3/32",
            "127.0.0.1/32",
            "172.16.5.0/24",
            "192.168.0.0/16",
            "198.51.100.7/32",
            "203.0.113.5/32",
            "203.0.113.6/31",
            "203.0.113.8/31",
        ];
        let v6_list = ["2001:db8::5/128", "2001:db8:1::/48", "2001:db8:2::10/124"];
        assert_eq!(guard_of(&host, iptables), guard_for(&v4_list));
        assert_eq!(guard_of(&host, &v6), guard_for(&v6_list));
        drop(rfw);

        let rfw = host.rfw(iptables).configure("outward.server.port = 8443").start();
        assert!(host.guards(iptables).iter().all(|rule| rule.contains("port 8443")), "the port of before");
        assert_eq!(host.guards(iptables).len(), 4);
        drop(rfw);
    });
}

/// What curl says in the neighbour's namespace: its exit status and the HTTP status.
fn visit(host: &Host, from: &str, to: &str) -> (i32, String) {
    let connect = format!("127.0.0.1:7393:{to}:7393");
    let mut line = vec!["netns", "exec", "peer", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    line.extend(["--connect-timeout", "1", "--max-time", "10", "--cacert", "ca.crt", "-u", "me:secret"]);
    line.extend(["--interface", from, "--connect-to", &connect, "https://127.0.0.1:7393/list"]);
    let said = host.run("ip", &line);
    (said.status.unwrap(), said.out)
}

/// What curl says when nothing comes back.
const DROPPED: i32 = 28;

/// How many packets the guard has dropped in a chain.
fn dropped_by_guard(host: &Host, command: &str, chain: &str) -> u64 {
    let saved = host.run(&format!("{command}-save"), &["-c", "-t", "filter"]).ok();
    let wanted = |line: &&str| {
        line.contains(&format!("-A {chain} ")) && line.contains("rfw guard") && line.ends_with("-j DROP")
    };
    let line = saved.lines().find(wanted).unwrap_or_else(|| panic!("no guard in {chain}: {saved}"));
    line[1..].split(':').next().unwrap().parse().unwrap()
}

#[test]
fn white_listed_peers_reach_the_port_and_packets_of_others_are_dropped() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour(
            "peer",
            &["10.0.0.1/24", "fd00::1/64"],
            &["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64"],
        );
        let rfw = host
            .rfw(iptables)
            .white_list("127.0.0.1\n10.0.0.2\nfd00::2\n")
            .configure("stay.first = off")
            .start();
        let families = [
            (iptables.to_owned(), "10.0.0.1", "10.0.0.2", "10.0.0.3"),
            (of_ipv6(iptables), "[fd00::1]", "fd00::2", "fd00::3"),
        ];
        for (command, server, friend, stranger) in &families {
            let reached = (0, "200".to_owned());
            assert_eq!(visit(&host, friend, server), reached, "{command}");
            assert_eq!(dropped_by_guard(&host, command, "INPUT"), 0, "{command}");
            assert_eq!(visit(&host, stranger, server).0, DROPPED, "{command}");
            assert!(dropped_by_guard(&host, command, "INPUT") > 0, "{command}");

            // Should a stranger's packets come in by another rule, he gets no answer.
            assert_eq!(dropped_by_guard(&host, command, "OUTPUT"), 0, "{command}");
            let opening = format!("INPUT -s {stranger} -p tcp --dport 7393 -j ACCEPT");
            host.admin(command, &format!("-I {opening}"));
            assert_eq!(visit(&host, stranger, server).0, DROPPED, "{command}");
            assert!(dropped_by_guard(&host, command, "OUTPUT") > 0, "{command}");
            host.admin(command, &format!("-D {opening}"));
            assert_eq!(visit(&host, friend, server), reached, "{command}");
        }
        assert!(!rfw.log().contains("turned away"), "{}", rfw.log());

        // Without any guard he is turned away before the handshake.
        for (command, server, friend, stranger) in &families {
            // The guard may be back before he has come.
            until(SOON, "he is turned away", || {
                host.admin(command, "-F");
                ![0, DROPPED].contains(&visit(&host, stranger, server).0)
            });
            assert_eq!(visit(&host, friend, server).0, 0, "{command}");
        }
        assert!(
            rfw.log().contains("10.0.0.3: not in the white list as a client, turned away"),
            "{}",
            rfw.log()
        );
    });
}

#[test]
fn another_address_of_this_host_is_a_stranger_too() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let curl = |source: &str| {
            let line = "-sS -o /dev/null --connect-timeout 1 --cacert ca.crt -u me:secret --interface";
            let mut words: Vec<&str> = line.split(' ').collect();
            words.extend([source, "https://127.0.0.1:7393/"]);
            host.run("curl", &words).status
        };
        assert_eq!(curl("127.0.0.1"), Some(0));
        assert_eq!(curl("127.0.0.2"), Some(DROPPED));
        drop(rfw);
    });
}

#[test]
fn restarts_pile_nothing_up_and_replace_the_guard_in_one_transaction() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        host.admin(iptables, "-A INPUT -s 9.9.9.9 -j ACCEPT");
        let mut rfw = host.rfw(iptables).white_list("127.0.0.1\n10.0.0.0/24\n::1\n").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
        let guards = [guard_of(&host, iptables), guard_of(&host, &v6)];
        assert_eq!(guards.each_ref().map(Vec::len), [6, 4]);
        let mut count = Vec::new();
        for signal in ["TERM", "KILL", "INT", "KILL"] {
            rfw.signal(signal);
            rfw.end();
            assert_eq!([guard_of(&host, iptables), guard_of(&host, &v6)], guards, "{iptables}: {signal}");
            rfw.spawn();
            assert_eq!([guard_of(&host, iptables), guard_of(&host, &v6)], guards, "{iptables}: {signal}");
            let log = rfw.log();
            let changes: Vec<&str> = log.lines().filter(|line| line.contains("rfw guard")).collect();
            let whole = |line: &&str| line.matches("-D ").count() == line.matches("-I ").count();
            assert!(changes.len() == 2 && changes.iter().all(whole), "{changes:#?}");
            count.push(host.tables(iptables).map(|table| table.len()));
        }
        assert_eq!(count, vec![[8, 4]; 4], "{iptables}");
    });
}

#[test]
fn where_a_port_is_in_use_rfw_ends_and_no_rule_is_touched() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        let rfw = host.rfw(iptables).white_list("127.0.0.1\n10.1.2.3\n");
        for command in [iptables, &v6] {
            host.admin(command, "-A INPUT -p udp -j ACCEPT");
            host.admin(command, "-A INPUT -p tcp --dport 99 -m comment --comment 'rfw guard' -j DROP");
        }
        put_by_hand(&host, iptables, "-A INPUT -s 10.1.2.3 -j DROP");
        host.admin(
            iptables,
            "-A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP",
        );
        let before = host.tables(iptables);
        for port in ["7393", "7390"] {
            let mut openssl = host.command("openssl");
            let line = ["s_server", "-quiet", "-cert", "server.crt", "-key", "server.key", "-accept", port];
            let occupant =
                openssl.args(line).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut occupant = occupant.spawn().unwrap();
            let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
            until(SOON, "the port is in use", || host.run("bash", &["-c", &connect]).status == Some(0));
            let error = rfw.call(&["--loglevel", "DEBUG"]).fails_with(1);
            assert!(error.contains(port) && error.lines().count() == 1, "{error}");
            assert_eq!(host.tables(iptables), before, "{iptables}: {port}");
            occupant.kill().unwrap();
            occupant.wait().unwrap();
        }
    });
}

#[test]
fn flush_removes_everything_of_rfw_and_nothing_else() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        for command in [iptables, &v6] {
            for line in [
                "-N OTHERS",
                "-A OTHERS -p udp -j ACCEPT",
                "-A INPUT -j OTHERS",
                "-A INPUT -p tcp --dport 7393 -j ACCEPT",
                "-A OUTPUT -p tcp --sport 7393 -m comment --comment 'guard of rfw' -j ACCEPT",
                "-P FORWARD DROP",
            ] {
                host.admin(command, line);
            }
        }
        host.admin(iptables, "-A FORWARD -s 1.2.3.4 -m comment --comment 'rfw is great' -j DROP");
        let all = || [iptables, &v6].map(|command| host.run(command, &["-w", "-S"]).ok());
        let before = all();

        let mut rfw = host.rfw(iptables).start();
        for path in [
            "/drop/input/any/1.2.3.4",
            "/reject/output/eth/1.2.3.4",
            "/drop/forward/any/1.2.3.4?expire=0",
            "/drop/input/any/2001:db8::1",
        ] {
            rfw.ok("PUT", path);
        }
        assert_ne!(all(), before);
        rfw.stop();
        assert_eq!(rfw.call(&["--flush"]).ok(), "12 rules removed\n", "four rules, four guards a family");
        assert_eq!(all(), before, "{iptables}");
        assert_eq!(rfw.call(&["--flush"]).ok(), "0 rules removed\n");
        assert_eq!(all(), before, "{iptables}");

        // A running rfw would put back what is taken from it.
        rfw.spawn();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let running = all();
        let error = rfw.call(&["--flush"]).fails_with(1);
        assert_eq!(
            error,
            "rfw: another rfw is running: stop it first (systemctl stop rfw), then call rfw --flush again\n"
        );
        assert_eq!(all(), running, "{iptables}");
    });
}
