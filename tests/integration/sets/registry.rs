//! The registry: which sets are rfw's is written in the kernel, and survives what others do to it.

use super::start;
use crate::host::{Host, Rfw, in_both_variants};

/// What the registry has of the sets of [`fill`].
const MEMBERS: [&str; 4] = [
    "rfw-nonce- comment \"nonce\"",
    "rfw4-fds-1f44547005e395c5 comment \"inet drop forward abcdefghijklmn1 abcdefghijklmno src\"",
    "rfw4-ias-eth+ comment \"inet accept input eth+ any src\"",
    "rfw6-ids comment \"inet6 drop input any any src\"",
];

fn fill(rfw: &Rfw<'_>) {
    rfw.ok("PUT", "/drop/input/any/2001:db8::1");
    rfw.send_ok("PUT", "/accept/input/eth", "1.0.0.1\n1.0.0.2\n");
    rfw.ok("PUT", "/drop/forward/abcdefghijklmn1/1.2.3.4/abcdefghijklmno/0.0.0.0");
}

fn nonce(host: &Host) -> String {
    let names = host.run("ipset", &["list", "-n"]).ok();
    names.lines().find(|name| name.starts_with("rfw-nonce-")).unwrap_or_default().to_owned()
}

#[test]
fn each_set_is_registered_with_what_it_is_for() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        assert_eq!(host.registry(), None, "nothing is made before there is a set");
        fill(&rfw);
        assert_eq!(host.registry().unwrap(), MEMBERS);
        let first = nonce(&host);
        assert_eq!(first.len(), "rfw-nonce-".len() + 16, "{first}");
        // A start changes nothing, nor does what others try.
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        host.admin(iptables, "-F");
        let refused = host.run("ipset", &["destroy", "rfw4-ias-eth+"]);
        assert!(refused.err.contains("it is in use by a kernel component"), "{refused:?}");
        assert_eq!((host.registry().unwrap(), nonce(&host)), (MEMBERS.map(str::to_owned).to_vec(), first));
        // What is flushed leaves nothing behind, what is turned off neither.
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "");
        rfw.spawn();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset\n", "");
        rfw.spawn();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "");
        assert_eq!(host.kept(iptables), ["-A INPUT -s 1.0.0.1/32 -j DROP"]);
    });
}

#[test]
fn a_registry_that_others_spoil_is_made_again_from_memory() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        fill(&rfw);
        let first = nonce(&host);
        let spoil: [&[&str]; 4] = [
            &["flush", "rfw"],
            &["destroy", "rfw"],
            &["del", "rfw", "rfw4-ias-eth+"],
            &["del", "rfw", &first],
        ];
        for (round, words) in spoil.into_iter().enumerate() {
            host.run("ipset", words).ok();
            rfw.reload();
            assert_eq!(host.registry().unwrap(), MEMBERS, "{words:?}");
            assert_eq!(nonce(&host), first);
            let told = rfw.log().matches("members of the registry of sets: ").count();
            assert_eq!(told, round + 1, "{}", rfw.log());
        }
        // A set that is made meanwhile is none the worse for it.
        host.run("ipset", &["destroy", "rfw"]).ok();
        assert_eq!(rfw.ok("PUT", "/drop/output/any/1.0.0.1")["result"], "inserted");
        rfw.reload();
        assert_eq!(host.registry().unwrap().len(), MEMBERS.len() + 1);
    });
}

#[test]
fn without_a_registry_a_start_takes_what_its_rules_look_up_and_leaves_the_rest() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        fill(&rfw);
        rfw.stop();
        // As the version before left it, but for a rule.
        host.run("ipset", &["destroy", "rfw"]).ok();
        host.run("ipset", &["destroy", &nonce(&host)]).ok();
        host.admin(
            iptables,
            "-D INPUT -i eth+ -m set --match-set rfw4-ias-eth+ src -m comment --comment 'rfw set' -j ACCEPT",
        );
        let entries = || -> Vec<String> { host.everything(iptables).2 };
        let before = entries();
        // Without the number of the registry the kernel counts as another, for which the state file is read.
        let mut rfw = rfw.configure("state.file =");
        rfw.spawn();
        assert_eq!(entries(), before);
        let expected: Vec<&str> = MEMBERS.into_iter().filter(|member| !member.contains("ias")).collect();
        assert_eq!(host.registry().unwrap(), expected);
        let line = "the set rfw4-ias-eth+ with 2 entries has no rule of rfw and is not in its registry";
        assert!(rfw.log().contains(line), "{}", rfw.log());
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 2);
        // Who asks for it has it.
        assert_eq!(rfw.ok("PUT", "/accept/input/eth/1.0.0.1")["result"], "refreshed");
        assert_eq!(host.registry().unwrap(), MEMBERS);
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 4);
    });
}

#[test]
fn with_a_registry_a_start_gives_all_sets_their_rule_back_whatever_their_names() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        fill(&rfw);
        rfw.stop();
        let kept = host.kept(iptables);
        host.admin(iptables, "-F");
        assert_ne!(host.kept(iptables), kept);
        rfw.spawn();
        let sorted = |mut rules: Vec<String>| {
            rules.sort();
            rules
        };
        assert_eq!(sorted(host.kept(iptables)), sorted(kept));
    });
}
