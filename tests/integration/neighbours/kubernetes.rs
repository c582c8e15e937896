//! Kubernetes: what kube-proxy restores, and how k3s takes it out again.

use super::{Site, foreign, with_rules_and_with_sets};
use crate::host::Host;

/// `iptablesJumpChains` as `syncProxyRules` of pkg/proxy/iptables/proxier.go in github.com/kubernetes/kubernetes
/// (1.29) has them: `EnsureChain`, and `EnsureRule` with `Prepend`.
const JUMPS: [&str; 12] = [
    "-t filter -N KUBE-EXTERNAL-SERVICES",
    "-t filter -N KUBE-NODEPORTS",
    "-t filter -N KUBE-SERVICES",
    "-t filter -N KUBE-FORWARD",
    "-t filter -N KUBE-PROXY-FIREWALL",
    "-I INPUT -m conntrack --ctstate NEW -m comment --comment 'kubernetes externally-visible service portals' -j KUBE-EXTERNAL-SERVICES",
    "-I INPUT -m comment --comment 'kubernetes health check service ports' -j KUBE-NODEPORTS",
    "-I FORWARD -m conntrack --ctstate NEW -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
    "-I FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD",
    "-I INPUT -m conntrack --ctstate NEW -m comment --comment 'kubernetes load balancer firewall' -j KUBE-PROXY-FIREWALL",
    "-I OUTPUT -m conntrack --ctstate NEW -m comment --comment 'kubernetes load balancer firewall' -j KUBE-PROXY-FIREWALL",
    "-I FORWARD -m conntrack --ctstate NEW -m comment --comment 'kubernetes load balancer firewall' -j KUBE-PROXY-FIREWALL",
];

/// What the same function restores of the table `filter`, with `--noflush --counters`.
const RESTORED: &str = "*filter
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-NODEPORTS -m comment --comment \"default/web:http health check node port\" -m tcp -p tcp --dport 30080 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

#[test]
fn kube_proxy_restores_and_k3s_is_taken_away() {
    with_rules_and_with_sets(|iptables, option| {
        let host = Host::new();
        let mut site = Site::open(&host, iptables, option);
        for jump in JUMPS {
            host.admin(iptables, jump);
        }
        let restore = format!("{iptables}-restore");
        host.feed(&restore, &["-w", "5", "--noflush", "--counters"], RESTORED.as_bytes()).ok();
        let others = foreign(&host, iptables);
        site.leaves_others_alone(&others, "kube-proxy");

        // k3s-killall.sh, as install.sh of github.com/k3s-io/k3s makes it, saves, leaves lines out and restores;
        // what is blocked in between is in no line.
        let save = format!("{iptables}-save | grep -v KUBE- | grep -v CNI- | grep -iv flannel");
        let lines = host.run("sh", &["-c", &save]).ok();
        for address in ["192.0.2.7", "192.0.2.8", "192.0.2.9"] {
            site.rfw.ok("PUT", &format!("/drop/input/any/{address}?expire=0"));
        }
        site.remember();
        host.feed(&restore, &[], lines.as_bytes()).ok();
        site.leaves_others_alone(&[], "k3s-killall.sh");
    });
}
