//! Programs that insert a jump at the head of INPUT and FORWARD, by the commands that they run.

use super::{FREE, REPAIR, Site, foreign, passing, with_rules_and_with_sets, with_sets_and_with_rules};
use crate::host::{Host, until};

/// Runs a line of commands each, in the shell's quotes, `$iptables` being the command of the variant.
#[track_caller]
fn run(host: &Host, iptables: &str, script: &str) {
    let script = format!("iptables={iptables}\n{script}");
    host.run("sh", &["-ec", &script]).ok();
}

/// CrowdSec's firewall bouncer: `setupChain`, `createRule` and `commit` of pkg/iptables/iptables_context.go in
/// github.com/crowdsecurity/cs-firewall-bouncer at 086c66f.
const CROWDSEC: &str = "
    $iptables -N CROWDSEC_CHAIN -t filter
    $iptables -I INPUT -j CROWDSEC_CHAIN
    $iptables -I FORWARD -j CROWDSEC_CHAIN
    ipset create crowdsec-blacklists-0 nethash timeout 300 maxelem 131072
    $iptables -I CROWDSEC_CHAIN -m set --match-set crowdsec-blacklists-0 src -j DROP
    ipset add crowdsec-blacklists-0 192.0.2.66 timeout 14400 -exist";

/// `deleteChain` and `shutDown` of the same file.
const CROWDSEC_ENDS: &str = "
    $iptables -D INPUT -j CROWDSEC_CHAIN
    $iptables -D FORWARD -j CROWDSEC_CHAIN
    $iptables -F CROWDSEC_CHAIN
    $iptables -X CROWDSEC_CHAIN
    ipset destroy crowdsec-blacklists-0";

/// tailscaled as it comes: `AddChains`, `AddBase`, `AddHooks` and `AddSNATRule` of
/// util/linuxfw/iptables_runner.go in github.com/tailscale/tailscale, 1.56 and later.
const TAILSCALE: &str = "
    $iptables -t filter -N ts-input
    $iptables -t filter -N ts-forward
    $iptables -t nat -N ts-postrouting
    $iptables -t filter -I INPUT 1 -j ts-input
    $iptables -t filter -I FORWARD 1 -j ts-forward
    $iptables -t nat -I POSTROUTING 1 -j ts-postrouting
    $iptables -t filter -A ts-input ! -i tailscale0 -s 100.115.92.0/23 -j RETURN
    $iptables -t filter -A ts-input ! -i tailscale0 -s 100.64.0.0/10 -j DROP
    $iptables -t filter -A ts-input -i tailscale0 -j ACCEPT
    $iptables -t filter -A ts-input -p udp --dport 41641 -j ACCEPT
    $iptables -t filter -A ts-forward -i tailscale0 -j MARK --set-mark 0x40000/0xff0000
    $iptables -t filter -A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
    $iptables -t filter -A ts-forward -o tailscale0 -s 100.64.0.0/10 -j DROP
    $iptables -t filter -A ts-forward -o tailscale0 -j ACCEPT
    $iptables -t nat -A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE";

/// tailscaled with `TS_DEBUG_FIREWALL_MODE=nftables`: the same functions of util/linuxfw/nftables_runner.go at
/// 0002b41, which speak netlink; `nft` makes the same expressions of this.
const TAILSCALE_NFT: &str = "
    add chain ip filter ts-input
    add chain ip filter ts-forward
    insert rule ip filter INPUT counter jump ts-input
    insert rule ip filter FORWARD counter jump ts-forward
    add rule ip filter ts-input ip saddr 100.115.92.0/23 iifname != \"tailscale0\" counter return
    add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != \"tailscale0\" counter drop
    add rule ip filter ts-input iifname \"tailscale0\" counter accept
    add rule ip filter ts-input udp dport 41641 counter accept
    add rule ip filter ts-forward iifname \"tailscale0\" counter meta mark set meta mark & 0xff00ffff ^ 0x40000
    add rule ip filter ts-forward meta mark & 0xff0000 == 0x40000 counter accept
    add rule ip filter ts-forward oifname \"tailscale0\" ip saddr 100.64.0.0/10 counter drop
    add rule ip filter ts-forward oifname \"tailscale0\" counter accept
";

#[test]
fn crowdsec_starts_and_ends() {
    with_sets_and_with_rules(|iptables, option| {
        let host = Host::new();
        let site = Site::open(&host, iptables, option);
        run(&host, iptables, CROWDSEC);
        let others = foreign(&host, iptables);
        assert_eq!(others.len(), 4, "{others:#?}");
        site.leaves_others_alone(&others, "CrowdSec has started");
        assert!(host.run("ipset", &["test", "crowdsec-blacklists-0", "192.0.2.66"]).status == Some(0));
        run(&host, iptables, CROWDSEC_ENDS);
        site.leaves_others_alone(&[], "CrowdSec has ended");
    });
}

#[test]
fn tailscale_starts() {
    with_rules_and_with_sets(|iptables, option| {
        let host = Host::new();
        let site = Site::open(&host, iptables, option);
        run(&host, iptables, TAILSCALE);
        let others = foreign(&host, iptables);
        site.leaves_others_alone(&others, "Tailscale has started");
    });
}

/// iptables-nft-save 1.8.9 can't print a rule that sets a mark as nft writes it, and then not the table. rfw
/// says so, and touches nothing: its rules stay where they are, entries come and go.
#[test]
fn tailscale_starts_in_its_nft_mode() {
    let host = Host::new();
    let iptables = "iptables-nft";
    let mut site = Site::open(&host, iptables, "ipset");
    host.feed("nft", &["-f", "-"], TAILSCALE_NFT.as_bytes()).ok();
    let ruleset = || host.run("nft", &["-s", "list", "ruleset"]).ok();
    let before = ruleset();
    assert_eq!(passing(&host), FREE, "{}", site.rfw.log());
    assert_eq!(site.rfw.ok("PUT", "/drop/input/any/192.0.2.9?expire=0")["result"], "inserted");
    let refused = site.rfw.refused("PUT", "/accept/input/any/192.0.2.9?expire=0", 500);
    assert!(refused.contains("can't be read whole, so nothing was changed"), "{refused}");
    until(REPAIR, "it is told", || site.rfw.log().contains("can't be read whole"));
    assert_eq!(ruleset(), before);

    // Without that rule everything is read again.
    let marks = "flush chain ip filter ts-forward\n";
    host.feed("nft", &["-f", "-"], marks.as_bytes()).ok();
    let others = foreign(&host, iptables);
    site.remember();
    site.leaves_others_alone(&others, "the table can be read again");
}
