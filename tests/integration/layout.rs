//! Where rules stand: the options `input.table` and `forward.chain`.

use crate::host::{Host, Rfw, in_all_ways, in_both_variants, of_ipv6};

/// The rules of a chain of the table `raw`, without `-A` and comments.
fn raw(host: &Host, iptables: &str, chain: &str) -> Vec<String> {
    let all = host.run(iptables, &["-w", "-t", "raw", "-S"]).ok();
    let start = format!("-A {chain} ");
    all.lines().filter_map(|line| line.strip_prefix(&start)).map(without_comment).collect()
}

/// All rules of the table `raw`, of both families.
fn raw_rules(host: &Host, iptables: &str) -> String {
    let of = |iptables: &str| host.run(iptables, &["-w", "-t", "raw", "-S"]).ok();
    let all = of(iptables) + &of(&of_ipv6(iptables));
    all.lines().filter(|line| !line.starts_with("-P")).collect()
}

fn filter(host: &Host, iptables: &str, chain: &str) -> Vec<String> {
    let start = format!("-A {chain} ");
    let rules = host.rules(iptables, chain);
    rules.iter().filter_map(|line| line.strip_prefix(&start)).map(without_comment).collect()
}

fn without_comment(rule: &str) -> String {
    let words = rule.split("-m comment --comment ").collect::<Vec<_>>();
    match words.as_slice() {
        [before, after] => format!("{before}-j {}", after.rsplit("-j ").next().unwrap()),
        _ => rule.to_owned(),
    }
}

/// The rows of a listing, `chain target source`, sorted.
fn rows(rfw: &Rfw<'_>) -> Vec<String> {
    let list = rfw.ok("GET", "/list");
    let row = |row: &serde_json::Value| {
        ["chain", "target", "source"].map(|column| row[column].as_str().unwrap().to_owned()).join(" ")
    };
    let mut rows: Vec<String> = list.as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

/// Whether a packet of the neighbour that comes from that address is answered.
fn answers(host: &Host, from: &str, to: &str) -> bool {
    host.run("ip", &["netns", "exec", "n", "ping", "-n", "-c", "1", "-W", "0.3", "-I", from, to]).status
        == Some(0)
}

#[test]
fn what_input_drops_is_dropped_in_the_table_raw_and_moves_with_the_option() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        host.neighbour("n", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"]);
        let mut rfw = host.rfw(iptables).configure(option).configure("input.table = filter").start();
        rfw.ok("PUT", "/drop/input/any/10.0.0.0/24");
        rfw.ok("PUT", "/accept/input/any/10.0.0.2");
        rfw.ok("PUT", "/drop/input/any/2001:db8::1");
        let before = rows(&rfw);
        rfw.stop();
        rfw = rfw.reconfigure("input.table = filter", "input.table = raw").start();
        assert_eq!(raw(&host, iptables, "PREROUTING"), ["-j RFW"]);
        let sets = option == "ipset";
        let (accept, drop) = match sets {
            true => ("-m set --match-set rfw4-ias src", "-m set --match-set rfw4-ids src"),
            false => ("-s 10.0.0.2/32", "-s 10.0.0.0/24"),
        };
        assert_eq!(raw(&host, iptables, "RFW"), [format!("{accept} -j RETURN"), format!("{drop} -j DROP")]);
        assert_eq!(filter(&host, iptables, "INPUT"), [format!("{accept} -j ACCEPT")]);
        assert_eq!(raw(&host, &of_ipv6(iptables), "RFW").len(), 1);
        assert_eq!(rows(&rfw), before);
        // It outlives a flush of the table filter, which takes an accept with it.
        assert!(answers(&host, "10.0.0.2", "10.0.0.1") && !answers(&host, "10.0.0.3", "10.0.0.1"));
        host.admin(iptables, "-F INPUT");
        assert!(!answers(&host, "10.0.0.3", "10.0.0.1"));
        // A reject stands in the table filter, behind the drop.
        rfw.ok("PUT", "/accept/input/any/10.0.0.3");
        rfw.ok("PUT", "/reject/input/any/10.0.0.4");
        assert!(filter(&host, iptables, "INPUT").iter().any(|rule| rule.contains("-j REJECT")));
        assert!(answers(&host, "10.0.0.3", "10.0.0.1") && !answers(&host, "10.0.0.4", "10.0.0.1"));
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/10.0.0.0/24")["result"], "deleted");
        rfw.ok("DELETE", "/reject/input/any/10.0.0.4");
        assert!(answers(&host, "10.0.0.4", "10.0.0.1"));
        rfw.ok("PUT", "/drop/input/any/10.0.0.4");
        rfw.stop();
        rfw = rfw.reconfigure("input.table = raw", "input.table = filter").start();
        assert_eq!(raw_rules(&host, iptables), "");
        assert!(!answers(&host, "10.0.0.4", "10.0.0.1") && answers(&host, "10.0.0.3", "10.0.0.1"));
        rfw.stop();
        rfw = rfw.reconfigure("input.table = filter", "input.table = raw").start();
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!((raw_rules(&host, iptables), filter(&host, iptables, "INPUT")), (String::new(), vec![]));
    });
}

#[test]
fn what_others_change_in_the_table_raw_is_mended() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.admin(iptables, "-t raw -N RFW");
        host.admin(iptables, "-t raw -A RFW -p udp -j ACCEPT");
        let mut rfw = host.rfw(iptables).configure("input.table = raw");
        assert_eq!(rfw.try_spawn().unwrap_err().code(), Some(1));
        assert!(rfw.log().contains("has a chain RFW that rfw has not made"), "{}", rfw.log());
        host.admin(iptables, "-t raw -F RFW");
        rfw.spawn();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/accept/input/any/1.2.3.5");
        // The jump, and an exception.
        host.admin(iptables, "-t raw -F PREROUTING");
        host.admin(iptables, "-t raw -D RFW 1");
        rfw.ok("PUT", "/drop/input/any/1.2.3.6?expire=0");
        assert_eq!(raw(&host, iptables, "PREROUTING"), ["-j RFW"]);
        let all = ["-s 1.2.3.6/32 -j DROP", "-s 1.2.3.5/32 -j RETURN", "-s 1.2.3.4/32 -j DROP"];
        assert_eq!(raw(&host, iptables, "RFW"), all);
        for path in ["/drop/input/any/1.2.3.6", "/accept/input/any/1.2.3.5", "/drop/input/any/1.2.3.4"] {
            assert_eq!(rfw.ok("DELETE", path)["result"], "deleted");
        }
        assert_eq!(raw_rules(&host, iptables), "");
    });
}

#[test]
fn rules_of_forward_stand_in_the_chain_that_is_asked_for() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("forward.chain = DOCKER-USER").start();
        let note = "IPv4 has no chain DOCKER-USER: rules stand in FORWARD until it has";
        assert!(rfw.log().contains(note), "{}", rfw.log());
        assert_eq!(rfw.ok("PUT", "/drop/forward/any/1.2.3.4")["note"], note);
        assert_eq!(rfw.send_ok("PUT", "/drop/forward/any", "1.2.3.4\n")["note"], note);
        assert_eq!(rfw.ok("PUT", "/drop/output/any/1.2.3.4")["note"], serde_json::Value::Null);
        assert_eq!(filter(&host, iptables, "FORWARD"), ["-s 1.2.3.4/32 -j DROP"]);
        host.admin(iptables, "-N DOCKER-USER");
        host.admin(iptables, "-A DOCKER-USER -j RETURN");
        host.admin(iptables, "-I FORWARD -j DOCKER-USER");
        let put = rfw.ok("PUT", "/drop/forward/any/1.2.3.5?expire=0");
        assert_eq!(put["note"], serde_json::Value::Null);
        assert_eq!(filter(&host, iptables, "FORWARD"), ["-j DOCKER-USER"]);
        let all = ["-s 1.2.3.5/32 -j DROP", "-s 1.2.3.4/32 -j DROP", "-j RETURN"];
        assert_eq!(filter(&host, iptables, "DOCKER-USER"), all);
        let told = ["FORWARD DROP 1.2.3.4", "FORWARD DROP 1.2.3.5", "OUTPUT DROP 0.0.0.0/0"];
        assert_eq!(rows(&rfw), told);
        rfw.ok("DELETE", "/drop/forward/any/1.2.3.4");
        rfw.stop();
        let rfw = rfw.reconfigure("forward.chain = DOCKER-USER", "forward.chain = FORWARD").start();
        assert_eq!(filter(&host, iptables, "FORWARD"), ["-s 1.2.3.5/32 -j DROP", "-j DOCKER-USER"]);
        assert_eq!(filter(&host, iptables, "DOCKER-USER"), ["-j RETURN"]);
        drop(rfw);
    });
}

#[test]
fn rules_of_rfw_come_before_those_of_others_that_could_accept() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        for path in ["/drop/input/any/1.2.3.4", "/accept/input/any/1.2.3.5", "/drop/forward/any/1.2.3.4"] {
            rfw.ok("PUT", &format!("{path}?expire=0"));
        }
        let all = || ["INPUT", "FORWARD"].map(|chain| host.run(iptables, &["-w", "-S", chain]).ok());
        let before = all();
        host.admin(iptables, "-I INPUT -p udp -j LOG");
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
        assert!(all()[0].lines().nth(1).unwrap().ends_with("-j LOG"));
        // As Docker does.
        host.admin(iptables, "-N DOCKER-FORWARD");
        host.admin(iptables, "-A DOCKER-FORWARD -j ACCEPT");
        host.admin(iptables, "-I FORWARD -j DOCKER-FORWARD");
        host.admin(iptables, "-I INPUT -p udp -j ACCEPT");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0")["result"], "unchanged");
        let theirs =
            ["-A INPUT -p udp -j ACCEPT\n-A INPUT -p udp -j LOG\n", "-A FORWARD -j DOCKER-FORWARD\n"];
        if iptables == "iptables-legacy" && option == "ipset" {
            // An entry that is there needs no reading: the next look has it.
            rfw.ok("GET", "/list");
            rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
        }
        let guard_first = |chain: &String| {
            let mut lines: Vec<&str> = chain.lines().collect();
            lines.sort_by_key(|line| !line.starts_with("-P") && !line.contains("rfw guard"));
            lines.iter().map(|line| format!("{line}\n")).collect::<String>()
        };
        let expected: Vec<String> =
            before.iter().zip(theirs).map(|(own, theirs)| guard_first(own) + theirs).collect();
        assert_eq!(all().to_vec(), expected, "{}", rfw.log());
        assert_eq!(rfw.log().matches("at the head again").count(), 2, "{}", rfw.log());
        // Not again at once, and not where the option is off.
        host.admin(iptables, "-I INPUT -p udp -j ACCEPT");
        rfw.ok("PUT", "/drop/input/any/1.2.3.7?expire=0");
        rfw.ok("PUT", "/drop/input/any/1.2.3.7?expire=0");
        assert!(all()[0].lines().take(3).any(|line| line.ends_with("-p udp -j ACCEPT")), "{:?}", all());
    });
}

/// Wraps a family of iptables programs in the host's folder: there is no table `raw`.
fn without_raw(host: &Host, iptables: &str) -> String {
    for suffix in ["", "-save", "-restore"] {
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *'-t raw'*) echo 'Table does not exist (do you need to insmod?)' >&2; exit 1;; esac\n\
             exec {iptables}{suffix} \"$@\"\n"
        );
        host.write(&format!("no-raw-{iptables}{suffix}"), 0o755, &text);
    }
    format!("{}/no-raw-{iptables}", host.dir.display())
}

#[test]
fn a_kernel_without_the_table_raw_is_told_as_an_error_of_the_configuration() {
    let host = Host::new();
    let [v4, v6] = ["iptables-legacy", "ip6tables-legacy"].map(|iptables| without_raw(&host, iptables));
    for (iptables, ip6tables) in [(v4.as_str(), v6.as_str()), ("iptables-legacy", &v6)] {
        let rfw = host.rfw(iptables).configure(&format!("ip6tables.path = {ip6tables}"));
        rfw.call(&["--check"]).ok();
        let said = rfw.configure("input.table = raw").call(&["--check"]).fails_with(78);
        assert!(said.contains("rfw.conf: input.table is raw, but the kernel has no such table"), "{said}");
    }
}
