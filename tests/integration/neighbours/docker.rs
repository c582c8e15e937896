//! Docker, by the commands that two of its versions run, with a container whose port is published: packets
//! to it pass FORWARD, and their destination is translated before.

use super::{REPAIR, Site, commands, foreign};
use crate::host::{Host, in_both_variants, until};

/// What both versions do alike: `NewChain`, `ProgramRule`, `EnsureJumpRule` and what may fail of
/// libnetwork/iptables/iptables.go.
const FUNCTIONS: &str = "
    ipt() { $iptables --wait \"$@\"; }
    try() { ipt \"$@\" 2>/dev/null || true; }
    chain() { ipt -t $1 -n -L $2 >/dev/null 2>&1 || ipt -t $1 -N $2; }
    rule() { table=$1; how=$2; chain=$3; shift 3
        ipt -t $table -C $chain \"$@\" 2>/dev/null || ipt -t $table $how $chain \"$@\"; }
    jump() { try -D $1 -j $2; ipt -I $1 -j $2; }
    remove() { try -t $1 -F $2; try -t $1 -X $2; }
    try -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    try -t nat -D OUTPUT -m addrtype --dst-type LOCAL ! --dst $loopback -j DOCKER
    try -t nat -D OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
    remove nat DOCKER
";

/// The start of 20.10: `removeIPChains`, `setupIPChains`, `setupIPTablesInternal`, `ProgramChain`,
/// `setupIsolation` and `arrangeUserFilterRule` of libnetwork, as vendored by github.com/moby/moby 20.10; then
/// `Forward` for a port that is published.
const DOCKER_20_10: &str = "
    for name in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do remove filter $name; done
    chain nat DOCKER
    for name in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do chain filter $name; done
    rule filter -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    rule filter -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    rule nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    rule nat -I DOCKER -i docker0 -j RETURN
    try -D FORWARD -i docker0 -o docker0 -j DROP
    rule filter -I FORWARD -i docker0 -o docker0 -j ACCEPT
    rule filter -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
    rule nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    rule nat -A OUTPUT -m addrtype --dst-type LOCAL ! --dst $loopback -j DOCKER
    rule filter -I FORWARD -o docker0 -j DOCKER
    rule filter -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    jump FORWARD DOCKER-ISOLATION-STAGE-1
    rule filter -I DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    rule filter -I DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    chain filter DOCKER-USER
    rule filter -A DOCKER-USER -j RETURN
    jump FORWARD DOCKER-USER
    ipt -P FORWARD DROP
    rule nat -A DOCKER -p tcp -d 0/0 --dport 8080 -j DNAT --to-destination 172.17.0.2:80 ! -i docker0
    rule filter -A DOCKER ! -i docker0 -o docker0 -p tcp -d 172.17.0.2 --dport 80 -j ACCEPT
    rule nat -A POSTROUTING -p tcp -s 172.17.0.2 -d 172.17.0.2 --dport 80 -j MASQUERADE
";

/// The start of 28: `setupIPChains` of libnetwork/drivers/bridge/internal/iptabler/iptabler.go in
/// github.com/moby/moby at 0ca611a, network.go, endpoint.go and port.go beside it, and the tables in
/// integration/network/bridge/iptablesdoc/generated that they come to.
const DOCKER_28: &str = "
    chains='DOCKER DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2'
    for name in $chains; do remove filter $name; done
    chain nat DOCKER
    for name in $chains; do chain filter $name; done
    rule nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    rule nat -A OUTPUT -m addrtype --dst-type LOCAL ! --dst $loopback -j DOCKER
    jump FORWARD DOCKER-FORWARD
    jump DOCKER-FORWARD DOCKER-BRIDGE
    jump DOCKER-FORWARD DOCKER-ISOLATION-STAGE-1
    jump DOCKER-FORWARD DOCKER-CT
    chain filter DOCKER-USER
    jump FORWARD DOCKER-USER
    ipt -P FORWARD DROP
    [ $loopback = 127.0.0.0/8 ] || exit 0
    rule nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    rule filter -A DOCKER-FORWARD -i docker0 -o docker0 -j ACCEPT
    rule filter -A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT
    rule filter -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    rule filter -A DOCKER-BRIDGE -o docker0 -j DOCKER
    rule filter -I DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    rule filter -I DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    rule filter -A DOCKER ! -i docker0 -o docker0 -j DROP
    rule raw -A PREROUTING -d 172.17.0.2 ! -i docker0 -j DROP
    rule nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    rule filter -I DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
    jump FORWARD DOCKER-USER
";

/// Starts Docker, also where it has been running: 20.10 for IPv4, 28 for both families.
#[track_caller]
fn start(host: &Host, iptables: &str, version: &str) {
    let families = if version == DOCKER_28 { 2 } else { 1 };
    for (command, loopback) in commands(iptables).iter().zip(["127.0.0.0/8", "::1/128"]).take(families) {
        let script = format!("iptables={command}\nloopback={loopback}\n{FUNCTIONS}{version}");
        host.run("sh", &["-ec", &script]).ok();
    }
}

/// A container without a process: its kernel refuses connections, which says that packets pass both ways.
#[track_caller]
fn container(host: &Host) {
    let script = "ip link add docker0 type bridge
        ip addr add 172.17.0.1/16 dev docker0
        ip netns add container
        ip link add veth1 type veth peer name eth0 netns container
        ip link set veth1 master docker0 up
        ip link set docker0 up
        ip -n container addr add 172.17.0.2/16 dev eth0
        ip -n container link set eth0 up
        ip -n container route add default via 172.17.0.1
        echo 1 > /proc/sys/net/ipv4/ip_forward";
    host.run("sh", &["-ec", script]).ok();
}

/// Whether the published port answers to an address of the peer.
#[track_caller]
fn reaches_the_container(host: &Host, address: &str) -> bool {
    let curl = ["curl", "-s", "--connect-timeout", "0.6", "--interface", address, "http://10.0.0.1:8080/"];
    let said = host.run("ip", &[&["netns", "exec", "peer"], &curl[..]].concat());
    match said.status {
        Some(7) => true,
        Some(28) => false,
        _ => panic!("{said:#?}"),
    }
}

/// Who reaches the container.
#[track_caller]
fn assert_reached(site: &Site<'_>, blocked: &[&str], what: &str) {
    assert!(reaches_the_container(site.host, "10.0.0.8"), "{what}: nobody reaches it");
    for address in blocked {
        let why = || format!("{what}: {address}\n{:#?}\n{}", site.host.tables(site.iptables), site.rfw.log());
        assert!(!reaches_the_container(site.host, address), "{}", why());
    }
}

/// The rules of rfw in FORWARD and in DOCKER-USER, IPv4.
#[track_caller]
fn forwarded(site: &Site<'_>) -> [usize; 2] {
    let [rules, _] = site.host.tables(site.iptables);
    let ours =
        |chain: &str| rules.iter().filter(|rule| rule.starts_with(chain) && super::is_ours(rule)).count();
    ["-A FORWARD ", "-A DOCKER-USER "].map(ours)
}

/// With `forward.chain = DOCKER-USER` rules stand where Docker lets others in, and wait in FORWARD for it.
#[test]
fn docker_with_the_chain_that_it_leaves_to_others() {
    in_both_variants(|iptables| {
        let (version, option) =
            if iptables == "iptables-nft" { (DOCKER_28, "ipset") } else { (DOCKER_20_10, "ipset = off") };
        let host = Host::new();
        container(&host);
        let mut site = Site::open(&host, iptables, &format!("forward.chain = DOCKER-USER\n{option}"));
        let [count, _] = forwarded(&site);
        assert!(count > 0);
        let move_in = |what: &str| until(REPAIR, what, || forwarded(&site) == [0, count]);
        start(&host, iptables, version);
        move_in("the rules have moved to the chain of Docker");
        assert_reached(&site, &["10.0.0.2", "10.0.0.3"], "Docker has started");
        let others = foreign(&host, iptables);
        site.remember();
        start(&host, iptables, version);
        site.leaves_others_alone(&others, "Docker has started again");
        assert_reached(&site, &["10.0.0.2", "10.0.0.3"], "Docker has started again");

        // Somebody has taken the chain away with all that was in it, and Docker makes it anew.
        for line in ["-D FORWARD -j DOCKER-USER", "-F DOCKER-USER", "-X DOCKER-USER"] {
            host.admin(iptables, line);
        }
        start(&host, iptables, version);
        site.leaves_others_alone(&others, "the chain is made anew");
        assert_reached(&site, &["10.0.0.2", "10.0.0.3"], "the chain is made anew");
    });
}

/// As both come: Docker goes to the head of FORWARD each time that it starts, and rfw before it.
#[test]
fn docker_without_a_chain_for_others() {
    in_both_variants(|iptables| {
        let (version, option) =
            if iptables == "iptables-nft" { (DOCKER_20_10, "ipset = off") } else { (DOCKER_28, "ipset") };
        let host = Host::new();
        container(&host);
        let site = Site::open(&host, iptables, option);
        start(&host, iptables, version);
        start(&host, iptables, version);
        let others = foreign(&host, iptables);
        site.leaves_others_alone(&others, "Docker has started twice");
        assert_reached(&site, &["10.0.0.2", "10.0.0.3"], "Docker has started twice");
    });
}

/// With `input.table = raw` what drops packets to the host also keeps them from what it publishes, whatever
/// Docker does meanwhile.
#[test]
fn docker_behind_the_table_raw() {
    in_both_variants(|iptables| {
        let (version, option) =
            if iptables == "iptables-nft" { (DOCKER_28, "ipset = off") } else { (DOCKER_20_10, "ipset") };
        let host = Host::new();
        container(&host);
        let site = Site::open(&host, iptables, &format!("input.table = raw\n{option}"));
        let blocked = ["10.0.0.3", "10.0.0.4", "10.0.0.6"];
        for what in ["Docker has started", "Docker has started again"] {
            start(&host, iptables, version);
            assert_reached(&site, &blocked, what);
        }
        let others = foreign(&host, iptables);
        // Not even a flush of what iptables takes for all lets one packet through.
        host.admin(iptables, "-P FORWARD ACCEPT");
        host.admin(iptables, "-F FORWARD");
        for address in blocked {
            assert!(!reaches_the_container(&host, address), "after iptables -F FORWARD");
        }
        host.admin(iptables, "-P FORWARD DROP");
        start(&host, iptables, version);
        site.leaves_others_alone(&others, "Docker has started after a flush");
        assert_reached(&site, &blocked, "Docker has started after a flush");
    });
}
