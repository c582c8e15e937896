//! firewalld, the real one (1.3.3 of Debian 12), with a system bus of its own: at its start, at each
//! `--reload` and at its end it flushes the built-in chains of iptables, whichever backend it has.

use super::overlay::{Daemon, lay_over};
use super::{REPAIR, Site, foreign, reaches_rfw, with_rules_and_with_sets};
use crate::host::{Host, until};
use std::fs;

/// A bus that everybody on the host may use; the installed one changes its user, which a plain user can't.
const BUS: &str = "<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>
<allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>\n";

/// Starts firewalld with the backend that goes with that variant, and waits until it serves.
#[track_caller]
fn start(host: &Host, iptables: &str) -> (Daemon, Daemon) {
    let backend = if iptables == "iptables-nft" { "nftables" } else { "iptables" };
    let change = format!("s/^FirewallBackend=.*/FirewallBackend={backend}/");
    host.run("sed", &["-i", &change, "/etc/firewalld/firewalld.conf"]).ok();
    host.write("bus.conf", 0o644, BUS);
    host.run("mkdir", &["/run/dbus"]).ok();
    let bus =
        Daemon::start(host, "bus", "dbus-daemon", &["--config-file=bus.conf", "--nofork", "--nopidfile"]);
    until(REPAIR, "the bus is there", || {
        host.run("test", &["-S", "/run/dbus/system_bus_socket"]).status == Some(0)
    });
    let mut firewalld = Daemon::start(host, "firewalld", "firewalld", &["--nofork", "--nopid"]);
    until(REPAIR, "firewalld is ready", || {
        let said = fs::read_to_string(host.dir.join("firewalld.out")).unwrap();
        assert!(firewalld.runs(), "firewalld has ended: {said}");
        host.run("firewall-cmd", &["--state"]).status == Some(0)
    });
    (bus, firewalld)
}

/// What firewalld has, in iptables and in a table of nftables.
#[track_caller]
fn rules(host: &Host, iptables: &str) -> (Vec<String>, String) {
    let table = host.run("nft", &["-s", "list", "table", "inet", "firewalld"]);
    (foreign(host, iptables), table.out)
}

#[test]
fn firewalld_starts_reloads_and_ends() {
    with_rules_and_with_sets(|iptables, option| {
        let host = Host::new();
        lay_over(&host, iptables, "firewalld");
        let mut site = Site::open(&host, iptables, option);
        let (_bus, firewalld) = start(&host, iptables);
        let others = rules(&host, iptables);
        let count = others.0.len() + others.1.lines().count();
        assert!(count > 50, "{others:#?}");
        site.holds("firewalld has started");
        assert_eq!(rules(&host, iptables), others);

        // A table of its own lets in only what is open there too.
        let has_own_table = !others.1.is_empty();
        assert_eq!(has_own_table, iptables == "iptables-nft");
        assert_eq!(reaches_rfw(&host), !has_own_table);
        let warning = "firewalld runs here, and no zone of it opens the port 7393";
        assert_eq!(site.rfw.call(&["--check"]).err.contains(warning), has_own_table);
        host.run("firewall-cmd", &["--permanent", "--add-port=7393/tcp"]).ok();
        assert!(!site.rfw.call(&["--check"]).err.contains(warning));

        site.rfw.ok("PUT", "/drop/input/any/192.0.2.9?expire=0");
        site.remember();
        host.run("firewall-cmd", &["--reload"]).ok();
        let others = rules(&host, iptables);
        site.holds("firewall-cmd --reload");
        assert_eq!(rules(&host, iptables), others);
        assert!(reaches_rfw(&host));

        firewalld.stop();
        site.holds("firewalld has ended");
        assert_eq!(rules(&host, iptables), (Vec::new(), String::new()));
    });
}
