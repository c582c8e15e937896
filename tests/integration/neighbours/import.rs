//! What csf, ufw and iptables block by address alone, taken over by `rfwctl import`.

use super::overlay::lay_over;
use crate::feed::{SHELLS, rfwctl, started, under_each_shell};
use crate::host::{Host, Rfw};

/// A `csf.deny` as csf and lfd write it.
const CSF_DENY: &str = "\
###############################################################################
# Copyright 2006-2018, Way to the Web Limited
###############################################################################
# The following IP addresses will be blocked in iptables
44.33.22.11 # lfd: (sshd) Failed SSH login from 44.33.22.11 (CN/China/-): 5 in the last 3600 secs - Tue Nov 24 10:12:01 2026
44.33.21.0/24 # do not delete
2001:470:1::/48

tcp|in|d=22|s=44.33.22.12 # ssh alone
Include /etc/csf/more.deny
example.org
";

/// Target, interface, address and reason of what a list has, in order.
fn rows(rfw: &Rfw<'_>, list: &str) -> Vec<String> {
    let rows = rfw.ok("GET", &format!("/list?list={list}"));
    let mut rows: Vec<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let far = if text("chain") == "OUTPUT" { text("destination") } else { text("source") };
            let interface = if text("chain") == "OUTPUT" { text("out") } else { text("inp") };
            assert!(row["expires"].is_null(), "{row}");
            format!("{} {} {interface} {far} {}", text("target"), text("chain"), text("reason"))
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn csf_deny_and_csf_allow_come_with_their_comments() {
    under_each_shell(|shell| {
        let host = Host::new();
        let rfw = started(&host, "iptables", "");
        let said = rfwctl(&host, shell, "import csf.deny - -n", CSF_DENY).ok();
        let lines: Vec<&str> = said.lines().collect();
        let dry = "one: csf-deny (drop input any), dry run: 3 inserted, 0 refreshed, for ever";
        assert_eq!(
            lines[1..],
            ["drop input any 44.33.21.0/24  # do not delete", "drop input any 2001:470:1::/48", dry]
        );
        assert_eq!(rows(&rfw, "csf-deny"), Vec::<String>::new());
        let said = rfwctl(&host, shell, "import csf.deny -", CSF_DENY);
        assert!(
            said.err.contains("line 9: \"tcp|in|d=22|s=44.33.22.12 # ssh alone\" is for a port"),
            "{said:#?}"
        );
        assert!(said.err.contains("line 10: \"Include /etc/csf/more.deny\" names another file"), "{said:#?}");
        assert!(said.err.contains("line 11: \"example.org\" is not an address: left out\n"), "{said:#?}");
        assert_eq!(said.ok(), "one: csf-deny (drop input any): 3 inserted, 0 refreshed, for ever\n");
        let why = "lfd: (sshd) Failed SSH login from 44.33.22.11 (CN/China/-): 5 in the last 3600 secs - Tue Nov 24 10:12:01 2026";
        let expected = [
            "DROP INPUT * 2001:470:1::/48 ".to_owned(),
            "DROP INPUT * 44.33.21.0/24 do not delete".to_owned(),
            format!("DROP INPUT * 44.33.22.11 {why}"),
        ];
        assert_eq!(rows(&rfw, "csf-deny"), expected);
        // A second time nothing changes.
        let said = rfwctl(&host, shell, "import csf.deny -", CSF_DENY).ok();
        assert_eq!(said, "one: csf-deny (drop input any): 0 inserted, 3 refreshed, for ever\n");
        rfwctl(&host, shell, "import csf.allow - -l friends", "44.33.20.1 # office\n").ok();
        assert_eq!(rows(&rfw, "friends"), ["ACCEPT INPUT * 44.33.20.1 office"]);
        let said = rfwctl(&host, shell, "import csf.deny", "").fails_with(3);
        assert!(said.contains("/etc/csf/csf.deny: name another file behind csf.deny, or -"), "{said}");
        let said = rfwctl(&host, shell, "import csf.deny -", "# nothing\n").fails_with(3);
        assert_eq!(said, "rfwctl: standard input: no rule that rfw can take over: nothing sent\n");
        for line in ["import", "import csf -", "import csf.deny - -a accept"] {
            rfwctl(&host, shell, line, "").fails_with(2);
        }
    });
}

#[test]
fn rules_of_the_real_ufw_are_taken_over() {
    let host = Host::new();
    lay_over(&host, "iptables-nft", "ufw");
    super::ufw::prepare(&host);
    for words in [
        "allow 22/tcp",
        "deny from 44.33.22.11",
        "deny from 44.33.21.0/24 comment caf\u{e9}",
        "reject log from 44.33.22.12",
        "deny from 2001:470:1::/48",
        "deny in on eth0 from 44.33.22.13",
        "deny out to 44.33.22.14",
        "deny proto tcp from 44.33.22.15 to any port 80",
        "deny from 44.33.22.16 to 192.0.2.1",
        "route deny from 44.33.22.17",
        "deny 23",
    ] {
        host.run("ufw", &words.split(' ').collect::<Vec<_>>()).ok();
    }
    let rfw = started(&host, "iptables-nft", "");
    for shell in SHELLS {
        let said = rfwctl(&host, shell, &format!("import ufw -l {}", shell[0]), "");
        assert_eq!(said.err.matches(": left out\n").count(), 4, "{said:#?}");
        assert!(said.err.contains("44.33.22.15 in\" is for a port or a protocol"), "{said:#?}");
        assert!(said.err.contains("44.33.22.16 in\" is for one address of this host"), "{said:#?}");
        assert_eq!(said.ok().lines().count(), 5);
        let expected = [
            "DROP FORWARD * 44.33.22.17 ",
            "DROP INPUT * 2001:470:1::/48 ",
            "DROP INPUT * 44.33.21.0/24 caf\u{e9}",
            "DROP INPUT * 44.33.22.11 ",
            "DROP INPUT eth0 44.33.22.13 ",
            "DROP OUTPUT * 44.33.22.14 ",
            "REJECT INPUT * 44.33.22.12 ",
        ];
        assert_eq!(rows(&rfw, shell[0]), expected);
    }
}

#[test]
fn rules_of_iptables_are_taken_over_from_what_it_saves() {
    under_each_shell(|shell| {
        let host = Host::new();
        for rule in [
            "-A INPUT -s 44.33.22.11 -j DROP",
            "-A INPUT -s 44.33.22.12 -m comment --comment 'he said \"no\"; #1' -j REJECT",
            "-A INPUT -s 44.33.21.0/24 -i eth+ -j DROP",
            "-A OUTPUT -d 44.33.22.14 -j DROP",
            "-A FORWARD -s 44.33.22.15 -i eth1 -j DROP",
            "-A INPUT -s 44.33.22.16 -p tcp --dport 22 -j DROP",
            "-A INPUT ! -s 44.33.22.17 -i eth9 -j DROP",
            "-A INPUT -s 44.33.22.18 -i br-lan -j DROP",
            "-A INPUT -s 44.33.22.19 -j ACCEPT",
            "-A INPUT -i eth9 -j DROP",
        ] {
            host.admin("iptables", rule);
        }
        host.admin("iptables", "-N mine");
        host.admin("iptables", "-A mine -s 44.33.22.20 -j DROP");
        host.admin("ip6tables", "-A INPUT -s 2001:470:1::/48 -j DROP");
        let saved = host.run("sh", &["-c", "iptables-save -c; ip6tables-save"]).ok();
        let rfw = started(&host, "iptables", "");
        let said = rfwctl(&host, shell, "import iptables", &saved);
        assert_eq!(said.err.matches(": left out\n").count(), 5, "{said:#?}");
        for why in [
            " has -p: rfw ",
            " has !: ",
            "br-lan -j DROP\" has an interface ",
            " is for every address",
            "a chain of its own",
        ] {
            assert!(said.err.contains(why), "{why}: {said:#?}");
        }
        assert_eq!(said.ok().lines().count(), 5);
        let expected = [
            "DROP FORWARD eth1 44.33.22.15 ",
            "DROP INPUT * 2001:470:1::/48 ",
            "DROP INPUT * 44.33.22.11 ",
            "DROP INPUT eth+ 44.33.21.0/24 ",
            "DROP OUTPUT * 44.33.22.14 ",
            "REJECT INPUT * 44.33.22.12 he said 'no'; #1",
        ];
        assert_eq!(rows(&rfw, "iptables"), expected);
    });
}

#[test]
fn the_entries_of_a_set_are_a_feed() {
    let host = Host::new();
    let script =
        "ipset create blocked hash:net && ipset add blocked 44.33.21.0/24 && ipset add blocked 44.33.22.11
        ipset save blocked | awk '/^add/ { print $3 }'";
    let entries = host.run("sh", &["-ec", script]).ok();
    let rfw = started(&host, "iptables", "");
    rfwctl(&host, SHELLS[0], "feed blocked - --replace -t 0", &entries).ok();
    assert_eq!(rows(&rfw, "blocked"), ["DROP INPUT * 44.33.21.0/24 ", "DROP INPUT * 44.33.22.11 "]);
}

/// A comment that looks like a target, one wrong address among many, and interfaces that rfw would take
/// for others.
#[test]
fn what_is_no_rule_of_iptables_is_left_out_and_the_others_are_taken() {
    let rule = |address: &str, rest: &str| format!("-A INPUT -s {address} {rest}\n");
    let saved = [
        "*filter\n".to_owned(),
        rule("44.33.22.11/32", "-m comment --comment \"was -j DROP once\" -j ACCEPT"),
        rule("44.33.22.12/32", "-i + -j DROP"),
        rule("44.33.22.13/32", "-i any -j DROP"),
        rule("44.33.22.14/32", "-i a?b=c0 -j DROP"),
        "-A INPUT -j DROP -s\n".to_owned(),
        rule("444.33.22.15", "-j DROP"),
        rule("44.33.22.16/33", "-j DROP"),
        rule("0.0.0.0/0", "-j DROP"),
        rule("::::", "-j DROP"),
        rule("2001:470:1::7/128", "-j REJECT"),
    ]
    .concat();
    under_each_shell(|shell| {
        let host = Host::new();
        let rfw = started(&host, "iptables", "");
        let said = rfwctl(&host, shell, "import iptables -", &saved);
        assert_eq!(said.err.matches(": left out\n").count(), 7, "{said:#?}");
        assert!(said.err.contains(" -s 0.0.0.0/0 -j DROP\" is for every address"), "{said:#?}");
        said.ok();
        assert_eq!(rows(&rfw, "iptables"), ["DROP INPUT * 44.33.22.12 ", "REJECT INPUT * 2001:470:1::7 "]);
    });
}
