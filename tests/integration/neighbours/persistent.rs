//! netfilter-persistent with its plug-ins iptables-persistent and ipset-persistent, the real ones (1.0.20
//! of Debian 12): `save` writes all tables and sets into files, `reload` puts the files in place of what
//! there is, and `flush` empties all.

use super::overlay::lay_over;
use super::{Site, commands, foreign};
use crate::host::{Host, WITHOUT_RFW, in_both_variants};

#[track_caller]
fn persistent(host: &Host, verb: &str) {
    host.run("netfilter-persistent", &[verb]).ok();
}

/// Leaves the plug-in for sets out.
#[track_caller]
fn without_plug_in_for_sets(host: &Host) {
    let plugins = "/usr/share/netfilter-persistent/plugins.d";
    let script =
        format!("cp -r {plugins} /run/plugins; rm /run/plugins/*-ipset; mount --bind /run/plugins {plugins}");
    host.run("sh", &["-ec", &script]).ok();
}

/// A file that names a set which is not there is refused as a whole, unless rules of rfw are left out of it.
#[track_caller]
fn at_the_next_boot(host: &Host, iptables: &str) {
    let file = host.run("cat", &["/etc/iptables/rules.v4"]).ok();
    let booted = Host::new();
    let restore = format!("{iptables}-restore");
    assert_ne!(booted.feed(&restore, &[], file.as_bytes()).status, Some(0));
    assert_eq!(booted.tables(iptables).concat(), Vec::<String>::new());
    let without = host.run("sed", &["-E", WITHOUT_RFW, "/etc/iptables/rules.v4"]).ok();
    booted.feed(&restore, &[], without.as_bytes()).ok();
    assert_eq!(
        foreign(&booted, iptables),
        ["-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"].map(|rule| format!("{iptables} filter {rule}"))
    );
}

#[test]
fn netfilter_persistent_saves_reloads_and_flushes() {
    in_both_variants(|iptables| {
        let host = Host::new();
        lay_over(&host, iptables, "persistent");
        let plug_in = iptables == "iptables-nft";
        if !plug_in {
            without_plug_in_for_sets(&host);
        }
        for command in commands(iptables) {
            host.admin(&command, "-A INPUT -p tcp --dport 22 -j ACCEPT");
        }
        let mut site = Site::open(&host, iptables, "ipset");
        let others = foreign(&host, iptables);

        persistent(&host, "save");
        let has_sets = host.run("test", &["-e", "/etc/iptables/ipsets"]).status == Some(0);
        assert_eq!(has_sets, plug_in);
        at_the_next_boot(&host, iptables);
        // Since then another scope has got its first address, whose rule no file has.
        site.rfw.ok("PUT", "/drop/input/wire0/192.0.2.9?expire=0");
        site.rfw.ok("PUT", "/accept/input/any/192.0.2.8?expire=1h");
        site.rfw.ok("PUT", "/reject/output/any/192.0.2.7?expire=1h");
        site.remember();
        persistent(&host, "reload");
        // The plug-in for sets gives entries the time again that they had when they were saved.
        site.remember_ends();
        site.leaves_others_alone(&others, "netfilter-persistent reload");

        // The plug-in destroys sets all at once or not at all: those that are in rfw's registry stay.
        let flush = host.run("netfilter-persistent", &["flush"]);
        assert_eq!(flush.status, Some(u32::from(plug_in).try_into().unwrap()), "{flush:#?}");
        site.holds("netfilter-persistent flush");
        assert_eq!(foreign(&host, iptables), Vec::<String>::new());
    });
}
