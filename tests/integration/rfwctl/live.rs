//! rfwctl beside an rfw that changes: its state, at any moment.

use super::{HERE, SHELLS, ctl, timeless};
use crate::host::Host;

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
