//! Lines `never` of the white list: addresses that no rule may touch and that are no clients.

use super::{DROPPED, guard_for, guard_of, put_by_hand, reload, visit};
use crate::host::{Host, SOON, in_all_ways, in_both_variants, of_ipv6, until};
use serde_json::json;

/// Clients, and what is never to be blocked: outside of their networks and within.
const WHITE_LIST: &str = "127.0.0.1
10.0.0.0/24          # the office
never 10.0.0.3       # its router
never 9.9.9.0 - 9.9.9.9
fd00::/126
never fd00::3
never 2001:db8:1::/48
";

#[test]
fn no_request_blocks_or_allows_an_address_behind_never() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list(WHITE_LIST).configure(option).start();
        let before = host.everything(iptables);
        let refused = [
            ("drop/input/any/10.0.0.3", "10.0.0.3 is never to be blocked or allowed (white list)"),
            ("accept/input/eth0/10.0.0.3", "10.0.0.3 is never"),
            ("drop/output/any/9.9.9.9", "9.9.9.9 has addresses of 9.9.9.8/31, which is never to be blocked"),
            ("drop/input/any/::ffff:9.9.9.9", "9.9.9.9 has addresses of 9.9.9.8/31"),
            ("reject/input/any/9.0.0.0/9", "9.0.0.0/9 has addresses of 9.9.9."),
            ("drop/forward/any/1.2.3.4/any/9.9.9.1", "9.9.9.1 has addresses of"),
            (
                "drop/forward/any/2001:db8:1:2::3",
                "2001:db8:1:2::3 has addresses of 2001:db8:1::/48, which is never",
            ),
            ("drop/input/any/10.0.0.4", "10.0.0.4 has addresses of 10.0.0.0/24, which is white-listed"),
        ];
        for (path, error) in refused {
            let said = rfw.refused("PUT", &format!("/{path}"), 400);
            assert!(said.starts_with(error), "{path}: {said}");
        }
        assert_eq!(host.everything(iptables), before, "{iptables} {option}");

        let answer = rfw.send_ok("PUT", "/drop/input/any", "9.9.9.10\n9.9.9.9\n2001:db8:1::7\n10.0.0.2\n");
        assert_eq!((&answer["inserted"], &answer["skipped_total"]), (&json!(1), &json!(3)), "{answer:#}");
        assert_eq!(
            answer["skipped"][0],
            json!({
                "line": 2, "address": "9.9.9.9",
                "reason": "9.9.9.9 has addresses of 9.9.9.8/31, which is never to be blocked or allowed (white list)",
            })
        );
        let kept = host.kept(iptables);
        assert!(kept.len() == 1 && kept[0].contains("-s 9.9.9.10/32"), "{kept:?}");
        // A delete may touch it.
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/9.9.9.9")["result"], "absent");
    });
}

#[test]
fn the_guard_lets_nobody_in_who_is_behind_never() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour(
            "peer",
            &["10.0.0.1/24", "fd00::1/64"],
            &["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64"],
        );
        let list = "127.0.0.1\n10.0.0.0/29\nnever 10.0.0.3\nfd00::/64\nnever fd00::3\n";
        let rfw = host.rfw(iptables).white_list(list).configure("stay.first = off").start();
        let v6 = of_ipv6(iptables);
        let admitted = ["10.0.0.0/31", "10.0.0.2/32", "10.0.0.4/30", "127.0.0.1/32"];
        assert_eq!(guard_of(&host, iptables), guard_for(&admitted));
        // A network of clients without one address is many, here those of 64 prefixes: a set.
        assert_eq!(guard_of(&host, &v6).iter().filter(|rule| rule.contains(" rfw6-guard ")).count(), 2);
        assert_eq!(host.entries().len(), 64);
        let families = [
            (iptables.to_owned(), "10.0.0.1", "10.0.0.2", "10.0.0.3"),
            (v6, "[fd00::1]", "fd00::2", "fd00::3"),
        ];
        for (command, server, client, never) in &families {
            assert_eq!(visit(&host, client, server), (0, "200".to_owned()), "{command}");
            assert_eq!(visit(&host, never, server).0, DROPPED, "{command}");
        }
        // Without any guard he is turned away before the handshake.
        for (command, server, _, never) in &families {
            until(SOON, "he is turned away", || {
                host.admin(command, "-F");
                ![0, DROPPED].contains(&visit(&host, never, server).0)
            });
        }
        // One such line is in the log a minute.
        let told = "10.0.0.3: not in the white list as a client, turned away";
        assert!(rfw.log().contains(told), "{}", rfw.log());
    });
}

#[test]
fn a_list_whose_lines_contradict_each_other_is_refused() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\nnever 127.0.0.0/8\n");
        let error = rfw.call(&["--check"]).fails_with(78);
        assert_eq!(
            error,
            format!(
                "rfw: {}/white.list:1: \"127.0.0.1\" can't be a client, since lines with \"never\" have all of it\n",
                host.dir.display()
            )
        );
        let rfw = rfw.white_list("127.0.0.1\nnever 9.9.9.9\n").start();
        let said = rfw.call(&["--check"]).ok();
        let first =
            "rfw.conf: ok, 1 network of clients and 1 never to be blocked in the white list, 2 clients";
        assert!(said.starts_with(first), "{said}");
        let before = host.everything(iptables);
        for bad in ["never 127.0.0.1\n", "127.0.0.1\nnever 127.0.0.1\n", "127.0.0.1\nnever ::/0\n"] {
            host.write("white.list", 0o644, bad);
            let refused = rfw.log().matches("is refused").count();
            rfw.signal("HUP");
            until(SOON, "the list is refused", || rfw.log().matches("is refused").count() > refused);
            assert_eq!(host.everything(iptables), before, "{bad:?}");
        }
        rfw.refused("PUT", "/drop/input/any/9.9.9.9", 400);
    });
}

#[test]
fn what_touches_a_line_never_goes_at_the_start_and_at_a_hangup() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let v6 = of_ipv6(iptables);
        put_by_hand(&host, iptables, "-I OUTPUT -d 10.1.2.0/30 -j REJECT");
        put_by_hand(&host, &v6, "-I INPUT -s fd00::3 -j ACCEPT");
        put_by_hand(&host, iptables, "-I INPUT -s 10.1.2.4 -j DROP");
        host.admin(iptables, "-I INPUT -s 10.1.2.3 -j DROP");
        let rfw = host.rfw(iptables).configure(option).configure("stay.first = off");
        let rfw = rfw.white_list("127.0.0.1\n::1\nnever 10.1.2.3\nnever fd00::/64\n").start();
        let removed = |what: &str| format!("[WARN] removed, since it touches the white list: {what}");
        for rule in ["OUTPUT -d 10.1.2.0/30 -j REJECT", "INPUT -s fd00::3 -j ACCEPT"] {
            until(SOON, "it is removed", || rfw.log().contains(&removed(rule)));
        }
        let kept = host.kept(iptables);
        assert!(kept.len() == 1 && kept[0].contains("10.1.2.4"), "{iptables} {option}: {kept:?}");
        let of_others = host.rules(iptables, "INPUT");
        assert!(of_others.contains(&"-A INPUT -s 10.1.2.3/32 -j DROP".to_owned()), "{of_others:?}");

        rfw.ok("PUT", "/drop/input/any/8.8.8.8?list=tor");
        reload(&rfw, "127.0.0.1\n::1\nnever 8.8.8.0/24\nnever 10.1.2.4\n");
        for rule in ["INPUT -s 10.1.2.4 -j DROP", "INPUT -s 8.8.8.8 -j DROP"] {
            until(SOON, "it is removed", || rfw.log().contains(&removed(rule)));
        }
        assert!(rfw.log().contains("read again: 2 networks of clients and 2 never to be blocked"));
        assert_eq!(host.kept(iptables), Vec::<String>::new(), "{iptables} {option}");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/10.1.2.3")["result"], "inserted");
    });
}

#[test]
fn a_client_that_is_behind_never_after_a_hangup_is_cut_off() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let line = ["s_client", "-quiet", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt"];
    let _client = host.talk("openssl", &line);
    let is_connected = || {
        let there = host.run("ss", &["-Htnp", "state", "established", "( sport = :7393 )"]).ok();
        there.contains("rfw")
    };
    until(SOON, "the client is connected", is_connected);
    reload(&rfw, "127.0.0.0/30\n::1\nnever 127.0.0.1\n");
    until(SOON, "its connection is closed", || !is_connected());
}
