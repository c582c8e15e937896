//! rfwctl beside an rfw that changes: its state, and its changes as they come.

use super::{HERE, Running, SHELLS, ctl, timeless};
use crate::host::{Host, SOON, until};

#[test]
fn an_rfw_that_is_well_is_ok_and_one_that_has_ended_is_critical() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables").start();
    host.write("servers", 0o600, HERE);
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?list=tor");
    for shell in SHELLS {
        let said = ctl(&host, shell, &["status", "-f", "servers"]);
        let version = env!("CARGO_PKG_VERSION");
        let row =
            format!("web1    OK     {version}    1      1        3649 d       0 s    up since MOMENT\n");
        let out = timeless(&said.out);
        assert!(out.starts_with("RFW OK: 1 server is well\n") && out.ends_with(&row), "{said:#?}");
        assert_eq!(said.status, Some(0));
    }
    rfw.stop();
    let said = ctl(&host, SHELLS[0], &["status", "-f", "servers"]);
    assert_eq!(said.status, Some(2), "{said:#?}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    host.write("servers", 0o600, HERE);
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?list=tor");
    let before = host.rules("iptables", "INPUT");
    for shell in SHELLS {
        let ask = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            timeless(&ctl(&host, shell, &[&words[..], &["-n", "-f", "servers"]].concat()).ok())
        };
        assert_eq!(
            ask("block 9.9.9.9 -l tor"),
            "web1: 9.9.9.9 would be blocked in the list tor until MOMENT\n"
        );
        assert_eq!(ask("unblock 1.2.3.4"), "web1: 1.2.3.4 would be unblocked\n");
        assert_eq!(ask("unblock 9.9.9.9"), "web1: 9.9.9.9 is not blocked\n");
        assert_eq!(host.rules("iptables", "INPUT"), before);
    }
}

#[test]
fn a_change_is_told_when_it_comes_by_whom_and_why() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    host.write("servers", 0o600, HERE);
    for (shell, first) in SHELLS.into_iter().zip(["9.9.9.1", "9.9.9.2"]) {
        // What is there already is told where it is asked for: so it is known when the looks have begun.
        rfw.ok("PUT", &format!("/drop/input/any/{first}"));
        let since = ["--since", "2026-01-01T00:00:00Z"];
        let running = Running::start(
            &host,
            shell,
            &[&["watch", "-f", "servers", "--interval", "1"], &since[..]].concat(),
        );
        until(SOON, "it tells what was before", || running.out().contains(&format!(" -: {first} ")));
        let before = running.out().lines().count();
        rfw.ok("PUT", "/reject/output/any/1.2.3.4?list=tor&expire=0&reason=port%20scan");
        rfw.send_ok("PUT", "/drop/input/any?list=feed&replace=true&expire=1h", "45.0.0.1\n45.0.0.2\n");
        rfw.ok("DELETE", "/list?address=1.2.3.4");
        until(SOON, "the changes are told", || running.out().lines().count() >= before + 3);
        let out = timeless(&running.out());
        let lines: Vec<&str> = out.lines().skip(before).collect();
        assert_eq!(
            lines[0],
            "MOMENT  web1  tor: 1.2.3.4 inserted, reject output any for ever, by me: port scan"
        );
        let replaced = "MOMENT  web1  feed: replace of 2: 2 inserted, 0 refreshed, 0 removed, drop input any until MOMENT, by me";
        assert_eq!(lines[1], replaced);
        assert_eq!(lines[2], "MOMENT  web1  tor: 1.2.3.4 deleted, reject output any, by me");
        rfw.ok("DELETE", "/list?list=*");
    }
}
