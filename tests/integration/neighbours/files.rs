//! Files that administrators restore: without rules of rfw, with those of last week, and a file of nft
//! that begins with `flush ruleset`; and what they delete by hand one by one.

use super::{
    FREE, Site, commands, foreign, look, passing, with_rules_and_with_sets, with_sets_and_with_rules,
};
use crate::host::{Host, in_both_variants};

/// A host of which an administrator has rules of both families.
#[track_caller]
fn host_with_rules(iptables: &str) -> Host {
    let host = Host::new();
    for command in commands(iptables) {
        host.admin(&command, "-N web");
        host.admin(&command, "-A web -p tcp --dport 443 -j ACCEPT");
        host.admin(&command, "-A INPUT -i lo -j ACCEPT");
        host.admin(&command, "-A INPUT -j web");
        host.admin(&command, "-A FORWARD -i eth7 -j ACCEPT");
    }
    host
}

/// What both families save.
#[track_caller]
fn save(host: &Host, iptables: &str) -> [String; 2] {
    commands(iptables).map(|command| host.run(&format!("{command}-save"), &[]).ok())
}

#[track_caller]
fn restore(host: &Host, iptables: &str, files: &[String; 2]) {
    for (command, file) in commands(iptables).iter().zip(files) {
        host.feed(&format!("{command}-restore"), &[], file.as_bytes()).ok();
    }
}

#[test]
fn a_file_without_rules_of_rfw_is_restored() {
    with_sets_and_with_rules(|iptables, option| {
        let host = host_with_rules(iptables);
        let files = save(&host, iptables);
        let others = foreign(&host, iptables);
        let site = Site::open(&host, iptables, option);
        restore(&host, iptables, &files);
        site.leaves_others_alone(&others, "iptables-restore");
    });
}

/// The file has rules that rfw has deleted since, that have expired, and all of them twice; it lacks those
/// of today.
#[test]
fn a_file_of_last_week_is_restored() {
    in_both_variants(|iptables| {
        let host = host_with_rules(iptables);
        let mut site = Site::open(&host, iptables, "");
        let others = foreign(&host, iptables);
        site.rfw.ok("PUT", "/drop/input/any/10.0.0.7?expire=0");
        let old = save(&host, iptables).map(|file| file.lines().map(of_last_week).collect::<String>());
        site.rfw.ok("DELETE", "/drop/input/any/10.0.0.7");
        for path in ["/drop/input/any/192.0.2.8", "/drop/input/any/192.0.2.9", "/drop/input/any/2001:db8::9"]
        {
            site.rfw.ok("PUT", path);
        }
        site.remember();
        restore(&host, iptables, &old);
        site.leaves_others_alone(&others, "iptables-restore");
        // They do not come to life later either.
        site.rfw.ok("PUT", "/drop/input/any/192.0.2.10?expire=0");
        site.rfw.ok("DELETE", "/drop/input/any/192.0.2.10");
        site.holds("after another change");
    });
}

/// A line of a saved file; rules of rfw are there twice, and those that end also with an end of the past,
/// for the same address and for another.
fn of_last_week(line: &str) -> String {
    if !line.contains("--comment \"rfw ") || line.contains("rfw guard") {
        return format!("{line}\n");
    }
    let mut lines = vec![line.to_owned(), line.to_owned()];
    if let Some((before, rest)) = line.split_once("rfw until ") {
        let (_year, rest) = rest.split_at(4);
        let past = format!("{before}rfw until 2020{rest}");
        lines.push(past.replace("10.0.0.3/32", "192.0.2.77/32"));
        lines.push(past);
    }
    lines.join("\n") + "\n"
}

/// As Debian's /etc/nftables.conf begins; what is of iptables-legacy is not touched by it.
#[test]
fn a_file_of_nft_that_flushes_the_ruleset_is_loaded() {
    with_rules_and_with_sets(|iptables, option| {
        let host = Host::new();
        let site = Site::open(&host, iptables, option);
        let file = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\
            \t\ttype filter hook input priority filter; policy drop;\n\t\tiif \"lo\" accept\n\
            \t\tct state established,related accept\n\
            \t\tmeta l4proto { icmp, ipv6-icmp } accept\n\t\ttcp dport 22 accept\n\t}\n}\n";
        host.write("nftables.conf", 0o755, file);
        host.run("nft", &["-f", "nftables.conf"]).ok();
        let table = || host.run("nft", &["-s", "list", "table", "inet", "filter"]).ok();
        let loaded = table();
        site.holds("nft -f");
        assert_eq!(table(), loaded);
        host.run("nft", &["-f", "nftables.conf"]).ok();
        site.holds("nft -f once more");
        assert_eq!(table(), loaded);
    });
}

/// A single rule that somebody has deleted is a decision, the last of its chain too; a flush that comes
/// later brings neither back.
#[test]
fn a_rule_that_is_deleted_by_hand_stays_away() {
    in_both_variants(|iptables| {
        let host = host_with_rules(iptables);
        let mut site = Site::open(&host, iptables, "");
        site.rfw.ok("DELETE", "/drop/forward/any/10.0.0.3");
        let comment = "-m comment --comment 'rfw permanent' -j DROP";
        for rule in ["INPUT -s 10.0.0.2/32", "FORWARD -s 10.0.0.2/32"] {
            host.admin(iptables, &format!("-D {rule} {comment}"));
            look(&site.rfw);
        }
        site.remember();
        let others = foreign(&host, iptables);
        host.admin(iptables, "-F INPUT");
        site.is_kept("iptables -F INPUT");
        let mut passing_now = FREE.map(str::to_owned).to_vec();
        passing_now.push("10.0.0.2".to_owned());
        passing_now.sort();
        assert_eq!(passing(&host), passing_now, "{}", site.rfw.log());
        let of_input =
            |rule: &&String| !(rule.starts_with(&format!("{iptables} ")) && rule.contains("-A INPUT "));
        let left: Vec<&String> = others.iter().filter(of_input).collect();
        assert_eq!(foreign(&host, iptables).iter().collect::<Vec<_>>(), left);
    });
}
