//! What rfw reads decides what it does: a table that can't be read whole is an error
//! and never an empty table, and what rfw did not make is never touched.

use crate::host::fake::Fault;
use crate::host::{Host, Rfw, SOON, in_all_ways, in_both_variants, of_ipv6, until};
use std::time::Duration;

/// Native rules that iptables-nft can't print, each by another of its ways to fail.
const FOREIGN: [&str; 9] = [
    "add rule @ filter INPUT meta mark set ct mark",
    "add rule @ filter INPUT ct state new counter accept",
    "add rule @ filter INPUT log prefix \"x\"",
    "add rule @ filter INPUT iifname \"none0\" reject",
    "add rule @ filter INPUT fib saddr type local accept",
    "add rule @ filter INPUT quota over 10 mbytes drop",
    "add rule @ filter INPUT socket transparent 1 accept",
    "add rule @ filter INPUT meta skuid 0 accept",
    "add rule @ filter OUTPUT meta mark set ct mark",
];

fn list(host: &Host) -> Vec<String> {
    let mut entries: Vec<String> =
        host.entries().into_iter().map(|entry| format!("{} {}", entry.set, entry.element)).collect();
    entries.sort();
    entries
}

/// The ruleset of nft without what passes by itself, and the entries of the sets.
fn everything(host: &Host) -> (String, Vec<String>) {
    let ruleset = host.run("nft", &["-s", "list", "ruleset"]).ok();
    (ruleset, list(host))
}

#[test]
fn a_table_that_cannot_be_printed_is_no_empty_table() {
    std::thread::scope(|scope| {
        for option in ["", "ipset"] {
            for family in ["ip", "ip6"] {
                scope.spawn(move || unreadable(option, family));
            }
        }
    });
}

fn unreadable(option: &str, family: &str) {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-nft").configure(option).start();
    let (path, other, addresses) = match family {
        "ip" => ("/drop/input/any", "/drop/output/any/2001:db8::9", ["1.0.0.1", "1.0.0.2", "1.0.0.3"]),
        _ => ("/drop/input/any", "/drop/output/any/1.0.0.9", ["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
    };
    rfw.send_ok("PUT", path, &addresses[..2].join("\n"));
    for foreign in FOREIGN {
        let foreign = foreign.replace('@', family);
        host.run("sh", &["-c", &format!("nft '{foreign}'")]).ok();
        let before = everything(&host);
        let why = |said: &str| {
            assert!(
                said.contains("can't be read whole, so nothing was changed")
                    && said.contains(&format!("nft list table {family} filter"))
                    && (said.contains("incompatible") || said.contains("Parsing nftables rule failed")),
                "{foreign}: {said}"
            );
        };
        // An entry of a set whose rule is known to be there needs no reading.
        let single = format!("{path}/{}", addresses[2]);
        if option.is_empty() {
            why(&rfw.refused("PUT", &single, 500));
        } else {
            assert_eq!(rfw.ok("PUT", &single)["result"], "inserted", "{foreign}");
            assert!(list(&host).iter().any(|entry| entry.ends_with(addresses[2])), "{foreign}");
            host.run("ipset", &["del", before.1[0].split(' ').next().unwrap(), addresses[2]]).ok();
        }
        why(&rfw.refused("PUT", &single.replace("drop", "accept"), 500));
        why(&rfw.refused("DELETE", &format!("{path}/{}", addresses[0]), 500));
        why(&rfw.refused("GET", "/list", 500));
        let reply = rfw.send("PUT", "/reject/input/any", &addresses.join("\n"));
        assert_eq!(reply.status, 500, "{foreign}: {reply:?}");
        assert_eq!(everything(&host), before, "{foreign}");
        // The other family goes on.
        rfw.ok("PUT", other);
        rfw.ok("DELETE", other);
        let told = rfw.log().matches("] the table of").count();
        assert_eq!(told, 1, "{foreign}\n{}", rfw.log());
        why(&rfw.call(&["--check"]).err);
        // A start is refused, not for a mistake in the file, and so tried again.
        rfw.stop();
        let before = everything(&host);
        assert_eq!(rfw.try_spawn().unwrap_err().code(), Some(1), "{foreign}: {}", rfw.log());
        why(&rfw.log());
        why(&rfw.call(&["--flush"]).fails_with(1));
        assert_eq!(everything(&host), before, "{foreign}");
        forget(&host, family, &foreign);
        rfw.spawn();
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 2, "{foreign}");
    }
    // What is due is removed as soon as the table can be read again, and not told of twice.
    rfw.ok("PUT", &format!("{path}/{}?expire=1", addresses[2]));
    let foreign = FOREIGN[0].replace('@', family);
    host.run("sh", &["-c", &format!("nft '{foreign}'")]).ok();
    if option.is_empty() {
        until(SOON, "it is told", || rfw.log().contains("can't be read whole"));
        forget(&host, family, &foreign);
        until(SOON, "it is gone", || rfw.log().contains("is read whole again"));
        until(SOON, "it has expired", || rfw.log().contains("expired: "));
        assert_eq!(rfw.log().matches("can't be read whole").count(), 1, "{}", rfw.log());
    }
}

/// Deletes the rule of nft that was added last.
fn forget(host: &Host, family: &str, added: &str) {
    let chain = added.split(' ').nth(4).unwrap();
    let rules = host.run("nft", &["-a", "list", "chain", family, "filter", chain]).ok();
    let last = rules.lines().rfind(|line| line.contains("# handle") && !line.contains("chain"));
    let handle = last.unwrap().rsplit(' ').next().unwrap();
    host.run("nft", &["delete", "rule", family, "filter", chain, "handle", handle]).ok();
}

#[test]
fn another_base_chain_takes_nothing_away() {
    for option in ["", "ipset"] {
        let host = Host::new();
        let rfw = host.rfw("iptables-nft").configure(option).start();
        rfw.send_ok("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n2001:db8::1\n");
        for family in ["ip", "ip6"] {
            let chain = "{ type filter hook input priority 10; }";
            host.run("nft", &["add", "chain", family, "filter", "other", chain]).ok();
        }
        // Some versions of iptables read such a table, others do not.
        let reply = rfw.request("PUT", "/drop/input/any/1.0.0.3");
        assert!([200, 500].contains(&reply.status), "{reply:?}");
        for family in ["ip", "ip6"] {
            host.run("nft", &["delete", "chain", family, "filter", "other"]).ok();
        }
        let kept = host.kept("iptables-nft");
        assert_eq!(kept.len(), if reply.status == 200 { 4 } else { 3 }, "{kept:?}");
    }
}

#[test]
fn a_table_that_is_printed_as_nothing_is_absent_only_if_the_kernel_says_so() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let (path, lines) = host.fake_programs(iptables);
        let mut rfw = host.rfw(&path).configure(&lines).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        // Another program has changed the table since it was read.
        host.admin(iptables, "-A FORWARD -j ACCEPT");
        host.fail_at(Fault::Nothing, 1);
        let error = rfw.refused("DELETE", "/drop/input/any/1.0.0.2", 500);
        assert!(error.contains("it printed nothing"), "{error}");
        rfw.stop();
        host.fail_at(Fault::Nothing, 2);
        assert_eq!(rfw.try_spawn().unwrap_err().code(), Some(1), "{}", rfw.log());
        host.heal();
        if iptables.contains("nft") {
            host.run("nft", &["flush", "ruleset"]).ok();
            host.fail_at(Fault::Nothing, 2);
            rfw.spawn();
            assert_eq!(host.heal().min(2), 2);
            rfw.ok("PUT", "/drop/input/any/1.0.0.1");
            assert_eq!(host.kept(iptables).len(), 1);
        }
    });
}

#[test]
fn comments_of_others_may_have_line_breaks() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        let comment =
            "a\nCOMMIT\n-A INPUT -s 1.0.0.1/32 -m comment --comment \\\"rfw permanent\\\" -j DROP\nb";
        host.admin(iptables, &format!("-A INPUT -m comment --comment \"{comment}\" -j ACCEPT"));
        rfw.ok("PUT", "/drop/input/any/1.0.0.2");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "absent");
        host.admin(iptables, "-I INPUT -p udp -j ACCEPT");
        let list = rfw.ok("GET", "/list");
        assert_eq!((list.as_array().unwrap().len(), &list[0]["num"]), (1, &"2".into()), "{list}");
        rfw.ok("DELETE", "/drop/input/any/1.0.0.2");
        let saved = host.run(&format!("{iptables}-save"), &[]).ok();
        assert!(saved.contains("\nb\" -j ACCEPT"), "{saved}");
    });
}

#[test]
fn a_set_that_has_lost_its_rule_gets_it_back_and_keeps_its_entries() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        let feed: String = (0..250).map(|n| format!("1.0.0.{n}\n")).collect();
        rfw.send_ok("PUT", "/drop/input/any?expire=1h", &feed);
        let flush = |host: &Host| {
            host.admin(iptables, "-F INPUT");
        };
        let back = |rfw: &Rfw<'_>, count: usize| {
            assert_eq!(host.kept(iptables).len(), count);
            let lines = rfw.log().matches("entries and had lost its rule: put back").count();
            assert!(lines <= 1, "{}", rfw.log());
        };
        // The next request, whether it is of one address or of many.
        flush(&host);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.7")["result"], "refreshed");
        back(&rfw, 250);
        // The repair of the guard warns.
        assert!(!rfw.log().contains("[WARN] the set"), "{}", rfw.log());
        rfw.stop();
        rfw.spawn();
        flush(&host);
        let answer = rfw.send_ok("PUT", "/drop/input/any", "1.0.0.7\n1.0.1.7\n");
        assert_eq!((&answer["inserted"], &answer["refreshed"]), (&1.into(), &1.into()));
        back(&rfw, 251);
        // What is taken away meanwhile does not come back.
        flush(&host);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.2\n1.0.9.9\n")["deleted"], 1);
        // A start.
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        back(&rfw, 249);
        // Nobody asks for anything.
        flush(&host);
        until(Duration::from_secs(70), "its rule is back", || host.kept(iptables).len() == 249);
    });
}

#[test]
fn sets_of_others_are_left_alone_whatever_their_names() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure(option);
        let others = [
            "rfw4-mine hash:ip",
            "rfw6-x hash:net family inet6",
            "rfw-work-foo hash:ip",
            "rfw-work-7 hash:ip",
            "rfw4-ids hash:ip timeout 0 counters",
            "rfw4-ods-eth0 hash:net timeout 0 counters comment",
            "rfw4-ias hash:net timeout 60 counters",
            "rfw4-ids-0123456789abcdef hash:net timeout 0 counters",
        ];
        for other in others {
            let words: Vec<&str> = ["create"].into_iter().chain(other.split(' ')).collect();
            host.run("ipset", &words).ok();
            let (name, address) = (words[1], if other.contains("inet6") { "2001:db8::9" } else { "9.9.9.9" });
            host.run("ipset", &["add", name, address]).ok();
        }
        host.admin(iptables, "-A FORWARD -m set --match-set rfw4-mine src -j DROP");
        let before = host.everything(iptables);
        for _ in 0..2 {
            rfw.spawn();
            if option == "ipset" {
                let error = rfw.refused("PUT", "/drop/input/any/1.0.0.1", 500);
                assert!(error.contains("there is a set rfw4-ids that rfw has not made"), "{error}");
                let reply = rfw.send("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n");
                assert_eq!(reply.status, 500, "{reply:?}");
                assert_eq!(rfw.ok("DELETE", "/drop/input/any/9.9.9.9")["result"], "absent");
                assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", "9.9.9.9\n")["deleted"], 0);
                let told = "the set rfw4-ids-0123456789abcdef with 1 entries has no rule";
                assert!(rfw.log().contains(told), "{}", rfw.log());
            }
            rfw.stop();
            rfw.call(&["--flush"]).ok();
            assert_eq!(host.everything(iptables), before);
        }
    });
}

#[test]
fn what_rfw_put_into_a_set_that_others_use_does_not_come_back() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.send_ok("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n");
        host.admin(iptables, "-A FORWARD -m set --match-set rfw4-ids src -j DROP");
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(list(&host), Vec::<String>::new());
        assert_eq!((host.kept(iptables), host.sets()), (Vec::new(), vec!["rfw4-ids".to_owned()]));
        // Nor when the option is turned off: they are rules then.
        rfw.spawn();
        rfw.send_ok("PUT", "/drop/input/any", "1.0.0.1\n1.0.0.2\n");
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset\n", "");
        rfw.spawn();
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
        rfw.stop();
        rfw.spawn();
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.2/32 -j DROP"]);
    });
}

#[test]
fn rules_with_the_comment_of_a_guard_are_guards_only_if_they_are_just_that() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure(option);
        let guard = "-m comment --comment 'rfw guard'";
        for rule in [
            format!("-A INPUT -p udp --dport 53 {guard} -j ACCEPT"),
            format!("-A FORWARD -p tcp --dport 7393 {guard} -j DROP"),
            format!("-A INPUT -p tcp --dport 7393 {guard} -j REJECT"),
            format!("-A OUTPUT ! -d 10.0.0.1 -p tcp --sport 7393 {guard} -j ACCEPT"),
        ] {
            host.admin(iptables, &rule);
        }
        let before = host.tables(iptables)[0].clone();
        rfw.spawn();
        let guarded = host.tables(iptables)[0].clone();
        assert_eq!(guarded.len(), before.len() + 4, "{guarded:#?}");
        assert!(before.iter().all(|rule| guarded.contains(rule)), "{guarded:#?}");
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.tables(iptables)[0], before);
    });
}

#[test]
fn a_guard_that_is_replaced_by_a_look_alike_is_put_right() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let before = host.tables(iptables);
        let guard = "-p tcp -m tcp --dport 7393 -m comment --comment 'rfw guard'";
        // As many as before: a client more, nobody kept out; and in another order.
        host.admin(iptables, &format!("-D INPUT {guard} -j DROP"));
        host.admin(iptables, &format!("-A INPUT -s 10.0.0.1 {guard} -j ACCEPT"));
        let ipv6 = of_ipv6(iptables);
        host.admin(&ipv6, &format!("-D INPUT {guard} -j DROP"));
        host.admin(&ipv6, &format!("-I INPUT {guard} -j DROP"));
        until(Duration::from_secs(70), "they are as they were", || host.tables(iptables) == before);
        assert!(rfw.log().contains("are not as they were: put back"), "{}", rfw.log());
    });
}
