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
