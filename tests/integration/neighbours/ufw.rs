//! ufw, the real one (0.36.2 of Debian 12): as it comes it leaves others' rules where they are; with
//! `MANAGE_BUILTINS=yes` it flushes all chains each time.

use super::overlay::lay_over;
use super::{Site, foreign, reaches_rfw, with_sets_and_with_rules};
use crate::host::Host;
use std::time::Duration;

/// Prepares it as its package does when it is installed. The kernel's settings are not its business here.
#[track_caller]
pub fn prepare(host: &Host) {
    let script = "cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/
        chmod 640 /etc/ufw/*.rules /etc/ufw/*.init
        sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/' /etc/default/ufw";
    host.run("sh", &["-ec", script]).ok();
}

#[track_caller]
fn ufw(host: &Host, words: &str) -> String {
    host.run("ufw", &words.split(' ').collect::<Vec<_>>()).ok()
}

#[test]
fn ufw_as_it_comes_and_with_built_in_chains_of_its_own() {
    with_sets_and_with_rules(|iptables, option| {
        let host = Host::new();
        lay_over(&host, iptables, "ufw");
        prepare(&host);
        let mut site = Site::open(&host, iptables, option);

        ufw(&host, "--force enable");
        ufw(&host, "allow 22/tcp");
        ufw(&host, "reload");
        let others = foreign(&host, iptables);
        assert!(others.iter().any(|rule| rule.ends_with(" :INPUT DROP")), "{others:#?}");
        ufw(&host, "reload");
        // It touches nothing of rfw, so nothing has to come back.
        site.is_kept_within(Duration::ZERO, "ufw reload");
        site.leaves_others_alone(&others, "ufw reload");
        // The guard, in front of ufw's rules, lets clients in.
        assert!(reaches_rfw(&host));
        ufw(&host, "disable");
        site.is_kept_within(Duration::ZERO, "ufw disable");
        ufw(&host, "--force reset");
        site.is_kept_within(Duration::ZERO, "ufw reset");

        // A block of today is in no file of ufw.
        site.rfw.ok("PUT", "/drop/input/any/192.0.2.9?expire=0");
        site.remember();
        host.run("sed", &["-i", "s/^MANAGE_BUILTINS=.*/MANAGE_BUILTINS=yes/", "/etc/default/ufw"]).ok();
        ufw(&host, "--force enable");
        ufw(&host, "reload");
        let others = foreign(&host, iptables);
        site.leaves_others_alone(&others, "ufw reload with MANAGE_BUILTINS");
        ufw(&host, "disable");
        site.holds("ufw disable with MANAGE_BUILTINS");
        assert_eq!(foreign(&host, iptables), Vec::<String>::new());
    });
}
