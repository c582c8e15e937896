//! What --check, a start and a reload warn of: other programs on this host.

use crate::documents::read;
use crate::host::{Host, Rfw, SOON, VARIANTS, WITHOUT_RFW, in_both_variants, of_ipv6, until};

/// A host with an /etc of its own over that of the machine.
fn host_with_own_etc() -> Host {
    let host = Host::new();
    let layers = "lowerdir=/etc,upperdir=/run/own/etc,workdir=/run/own/work";
    let script = format!(
        "mkdir -p /run/own/etc /run/own/work && mount -t overlay overlay -o {layers} /etc && \
         rm -f /etc/resolv.conf && : >/etc/resolv.conf"
    );
    host.run("sh", &["-c", &script]).ok();
    host
}

/// The warnings of --check, each as the words of an expected one that it has.
#[track_caller]
fn check(rfw: &Rfw<'_>, state: &str, expected: &[&str]) {
    let said = rfw.call(&["--check"]);
    assert_eq!(said.status, Some(0), "{state}: {said:#?}");
    let lines: Vec<&str> = said.err.lines().filter(|line| line.contains("[WARN]")).collect();
    assert_eq!(lines.len(), expected.len(), "{state}: {lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(words.split(" ... ").all(|words| line.contains(words)), "{state}: {line} has no {words}");
    }
}

/// A state of a host: its name, files, a command, and the words of each warning.
type State = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);

const V4: &str = "/etc/iptables/rules.v4";
const ONE: &str = "-A INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n";
const TWO: &str = "*filter\n-A INPUT -m set --match-set rfw6-ids src -j DROP\n\
                   -A OUTPUT -m set --match-set rfw6-ods dst -j DROP\nCOMMIT\n";
const NFT: &str = "table ip filter {\n\tchain INPUT {\n\t\txt match \"set\" counter drop\n";

const ZONE: &str = "/etc/firewalld/zones/public.xml";
const SSH: &str = "<zone><service name=\"ssh\"/></zone>";
const OPENED: &str = "<zone><port port=\"7390-7399\" protocol=\"tcp\"/></zone>";
const OPENED_BY_NAME: &str = "<zone><service name=\"rfw\"/></zone>";
const SERVICE: &str = "<service><port protocol=\"tcp\" port=\"7393\"/></service>";
const FIREWALLD: &str = "nft add table inet firewalld";
const CLOSED: &str = "firewalld runs here, and no zone of it opens the port 7393";

const STATES: [State; 11] = [
    ("nothing", &[], "true", &[]),
    ("a rule of a set", &[(V4, ONE)], "true", &["rules.v4:1: names the set rfw4-ids of rfw, which"]),
    (
        "RPM's place",
        &[("/etc/sysconfig/ip6tables", TWO)],
        "true",
        &["/etc/sysconfig/ip6tables:2: names the set rfw6-ids of rfw (and 1 more), which"],
    ),
    ("sets come before", &[(V4, ONE), ("/etc/iptables/ipsets", "create rfw4-ids hash:net\n")], "true", &[]),
    (
        "others may write",
        &[(V4, ONE)],
        "chmod 666 /etc/iptables/rules.v4; mkfifo /etc/iptables/rules.v6",
        &[],
    ),
    ("nft", &[("/etc/sysconfig/nftables.conf", NFT)], "true", &["nftables.conf:3: has a rule of iptables"]),
    ("firewalld", &[(ZONE, SSH)], FIREWALLD, &[CLOSED]),
    ("firewalld is not running", &[(ZONE, SSH)], "true", &[]),
    ("firewalld, opened", &[(ZONE, OPENED)], FIREWALLD, &[]),
    (
        "firewalld, opened by name",
        &[(ZONE, OPENED_BY_NAME), ("/etc/firewalld/services/rfw.xml", SERVICE)],
        FIREWALLD,
        &[],
    ),
    (
        "all together",
        &[(V4, ONE), (ZONE, SSH)],
        "nft add table inet firewalld; iptables-nft -N DOCKER",
        &["rules.v4:1: names", "Docker has its chains here", CLOSED],
    ),
];

#[track_caller]
fn bring_about(host: &Host, (_, files, command, _): &State) {
    for (file, text) in *files {
        host.feed("sh", &["-ec", &format!("mkdir -p $(dirname {file}); cat >{file}")], text.as_bytes()).ok();
    }
    host.run("sh", &["-ec", command]).ok();
}

#[test]
fn a_check_warns_of_what_other_programs_make_of_rfw() {
    let host = host_with_own_etc();
    let rfw = host.rfw("iptables-nft");
    for state in &STATES {
        bring_about(&host, state);
        check(&rfw, state.0, state.3);
        let undo = "rm -rf /etc/iptables /etc/sysconfig /etc/firewalld; nft flush ruleset";
        host.run("sh", &["-ec", undo]).ok();
    }
    // A file has the warnings and the rest, like a terminal.
    let [.., all] = &STATES;
    bring_about(&host, all);
    let check_into_file = format!("{} -f rfw.conf --check >said 2>&1; cat said", super::RFW);
    let said = host.run("sh", &["-c", &check_into_file]).ok();
    assert_eq!(said.matches("[WARN]").count(), 3, "{said}");
    let remedy = format!("(sed -i -E '{WITHOUT_RFW}' /etc/iptables/rules.v4); rfw puts its own back");
    assert!(said.contains(&remedy), "{said}");
    let first = "\nrfw.conf: ok, 2 networks in the white list, 2 clients, 3 warnings\nlisten ";
    assert!(said.contains(first), "{said}");
    let told = "\nneighbours  saved rules, Docker, firewalld: see the warnings\n";
    assert!(said.contains(told), "{said}");

    // Without the HTTPS server nobody has to get to it, and without the state nothing comes back.
    let rfw = rfw.reconfigure("outward.server\n", "").configure("state.file =");
    check(&rfw, "no server", &["rules.v4:1: names", "Docker has its chains here"]);
    assert!(!rfw.call(&["--check"]).err.contains("puts its own back"));
}

#[test]
fn saved_rules_without_those_of_rfw_load_and_are_those_of_others() {
    in_both_variants(|iptables| {
        let host = host_with_own_etc();
        let mut white_list = String::from("127.0.0.0/8\n");
        white_list.extend((1..20).map(|n| format!("11.0.{n}.1\n2001:db8:{n}::1\n")));
        let rfw =
            host.rfw(iptables).configure("ipset = auto\ninput.table = raw").white_list(&white_list).start();
        let feed: String = (0..150).map(|n| format!("1.0.0.{n}\n2001:db8:f::{n:x}\n")).collect();
        rfw.send_ok("PUT", "/drop/input/any?reason=a%20feed", &feed);
        for path in ["drop/input/eth0/1.0.1.1", "accept/input/any/1.0.1.2", "reject/output/any/1.0.1.3"] {
            rfw.ok("PUT", &format!("/{path}?list=tor&reason=scans"));
        }
        rfw.ok("PUT", "/drop/input/eth0/2001:db8:f:f::1");
        let boot = Host::new();
        for (command, file) in [(iptables.to_owned(), V4), (of_ipv6(iptables), "/etc/iptables/rules.v6")] {
            for rule in [
                "-A INPUT -p tcp --dport 22 -m comment --comment rfw -j ACCEPT",
                "-A INPUT -p udp --dport 7393 -m comment --comment rfw-backup -j ACCEPT",
                "-A FORWARD -m comment --comment \"not of rfw: --comment \\\"rfw permanent\\\"\" -j DROP",
                "-t raw -A PREROUTING -p udp --dport 9 -m comment --comment \"behind rfw -j RFW\" -j DROP",
            ] {
                host.admin(&command, rule);
            }
            let save = format!("mkdir -p /etc/iptables; {command}-save >{file}");
            host.run("sh", &["-ec", &save]).ok();
            // It does not load without the sets, until what is told is done.
            let said = rfw.call(&["--check"]).err;
            let told = said.lines().find(|line| line.contains(file)).unwrap_or_else(|| panic!("{said}"));
            let (_, remedy) = told.split_once("after each save (").unwrap();
            let (remedy, _) = remedy.rsplit_once("); rfw puts").unwrap();
            let restore = format!("{command}-restore");
            let load = |text: &str| boot.feed(&restore, &[], text.as_bytes());
            assert_ne!(load(&host.run("cat", &[file]).ok()).status, Some(0));
            host.run("sh", &["-ec", remedy]).ok();
            assert!(!rfw.call(&["--check"]).err.contains(file));
            load(&host.run("cat", &[file]).ok()).ok();
            let rules = |host: &Host| -> Vec<String> {
                let saved = host.run(&format!("{command}-save"), &[]).ok();
                let mut rules: Vec<String> =
                    saved.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect();
                rules.sort();
                rules
            };
            let of_others = |rule: &String| {
                [" --dport 22 ", " rfw-backup ", "not of rfw", "behind rfw"]
                    .iter()
                    .any(|own| rule.contains(own))
            };
            let expected: Vec<String> = rules(&host).into_iter().filter(of_others).collect();
            assert_eq!((expected.len(), rules(&boot)), (4, expected), "{command}");
        }
    });
}

#[test]
fn the_documents_name_the_remedy_that_a_warning_names() {
    for (document, times) in
        [("README.md", 1), ("etc/man/rfw.8", 1), ("etc/doc/neighbours.md", 2), ("etc/doc/deployment.md", 1)]
    {
        let remedy = format!("sed -E '{WITHOUT_RFW}'");
        assert_eq!(read(document).matches(&remedy).count(), times, "{document}");
    }
}

#[test]
fn docker_is_warned_of_at_a_start_and_a_reload_unless_rules_reach_it() {
    for iptables in VARIANTS {
        let host = Host::new();
        host.run(iptables, &["-w", "-N", "DOCKER"]).ok();
        let warning = "published ports of containers never pass INPUT";
        for lever in ["input.table = raw", "forward.chain = DOCKER-USER"] {
            let rfw = host.rfw(iptables).configure(lever);
            assert!(!rfw.call(&["--check"]).err.contains(warning), "{lever}");
        }
        let mut rfw = host.rfw(iptables).start();
        assert_eq!(rfw.log().matches(warning).count(), 1, "{}", rfw.log());
        rfw.signal("HUP");
        until(SOON, "it is told again", || rfw.log().matches(warning).count() == 2);
        rfw.stop();
    }
}

/// A host with gateways, name servers and addresses of its own.
fn host_with_uncovered() -> Host {
    let host = host_with_own_etc();
    host.neighbour("peer", &["10.0.0.7/24", "fd00::7/64"], &["10.0.0.1/24", "fd00::1/64"]);
    let script = "ip route add default via 10.0.0.1 && ip -6 route add default via fd00::1 && \
                  printf 'nameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver 1.1.1.1\n' >/etc/resolv.conf";
    host.run("sh", &["-ec", script]).ok();
    host
}

const UNCOVERED: &str = "not in the white list, so that clients can block them: ";

#[test]
fn a_check_names_what_the_host_can_not_live_without_and_the_white_list_does_not_have() {
    let host = host_with_uncovered();
    let all = "the default gateways 10.0.0.1, fd00::1; the name servers 9.9.9.9, 1.1.1.1; \
               this host's own addresses 10.0.0.7, fd00::7 (a line \"never 10.0.0.1\" protects one)";
    let golden = [
        ("", Some(all)),
        (
            "never 10.0.0.1\nnever fd00::/64\n9.9.9.0/24\n",
            Some(
                "the name server 1.1.1.1; this host's own address 10.0.0.7 (a line \"never 1.1.1.1\" protects one)",
            ),
        ),
        ("10.0.0.0/24\nnever fd00::1-fd00::7\nnever 1.1.1.1\nnever 9.9.9.9\n", None),
    ];
    let mut rfw = host.rfw("iptables-nft");
    for (more, expected) in golden {
        rfw = rfw.white_list(&format!("127.0.0.1\n::1\n{more}"));
        check(&rfw, more, expected.as_slice());
        let said = rfw.call(&["--check"]).err;
        let told = said.lines().find_map(|line| Some(line.split_once(UNCOVERED)?.1));
        assert_eq!(told, expected, "{more}");
    }
    // What can't be read stops nothing: neither a folder nor a FIFO, whose other end nobody opens.
    for script in
        ["rm /etc/resolv.conf; mkfifo /etc/resolv.conf", "rm /etc/resolv.conf; ln -s /run /etc/resolv.conf"]
    {
        host.run("sh", &["-ec", script]).ok();
        let said = rfw.call(&["--check", "-v"]);
        assert!(said.err.contains("/etc/resolv.conf can't be read: not a regular file"), "{said:?}");
        assert!(!said.err.contains(UNCOVERED), "{said:?}");
        said.ok();
    }
}

#[test]
fn a_start_names_it_and_a_reload_only_if_it_is_new() {
    in_both_variants(|iptables| {
        let host = host_with_uncovered();
        let mut rfw = host.rfw(iptables).start();
        let told = |rfw: &Rfw<'_>| rfw.log().matches(UNCOVERED).count();
        assert_eq!(told(&rfw), 1, "{}", rfw.log());
        let reload = |rfw: &Rfw<'_>| {
            rfw.reload();
            // A connection that is accepted since then shows that the reload is over.
            rfw.ok("GET", "/lists");
        };
        reload(&rfw);
        assert_eq!(told(&rfw), 1, "{}", rfw.log());
        rfw = rfw.white_list("127.0.0.1\n::1\nnever 10.0.0.0/24\nnever fd00::/64\n");
        reload(&rfw);
        assert_eq!(told(&rfw), 2, "{}", rfw.log());
        assert!(
            rfw.log().contains(&format!("{UNCOVERED}the name servers 9.9.9.9, 1.1.1.1 (")),
            "{}",
            rfw.log()
        );
        host.run("sh", &["-c", ": >/etc/resolv.conf"]).ok();
        reload(&rfw);
        host.run("sh", &["-c", "echo nameserver 9.9.9.9 >/etc/resolv.conf"]).ok();
        reload(&rfw);
        assert_eq!(told(&rfw), 3, "{}", rfw.log());
        rfw.stop();
    });
}

/// An editor writes it anew, and then it is out of reach of a reload.
#[test]
fn a_start_and_a_check_warn_of_a_file_in_a_folder_that_holds_too_much() {
    let host = host_with_own_etc();
    let list = format!("whitelist.file = {}/white.list", host.dir.display());
    let rfw = host.rfw(VARIANTS[0]).reconfigure(&list, "whitelist.file = /etc/white.list");
    host.run("cp", &["white.list", "/etc/white.list"]).ok();
    let warning = "/etc/white.list: written anew it can't be read by a reload, but by a restart";
    check(&rfw, "in /etc", &[warning]);
    let rfw = rfw.start();
    assert!(rfw.log().contains(&format!("[WARN] {warning}")), "{}", rfw.log());
    host.run("sed", &["-i", "$ a ::2", "/etc/white.list"]).ok();
    rfw.signal("HUP");
    until(SOON, "the reload is refused", || rfw.log().contains("refused: /etc/white.list: out of reach"));
}

/// It is out of reach then, so that nothing can be said of it.
#[test]
fn a_reload_does_not_warn_of_a_firewalld_that_came_after_the_start() {
    let host = host_with_own_etc();
    host.run("rm", &["-rf", "/etc/firewalld"]).ok();
    let rfw = host.rfw(VARIANTS[0]).start();
    let script = format!("mkdir -p /etc/firewalld/zones; echo '{OPENED}' >{ZONE}; {FIREWALLD}");
    host.run("sh", &["-ec", &script]).ok();
    rfw.signal("HUP");
    until(SOON, "all is read again", || rfw.log().contains("the configuration has been read again"));
    // A connection that is accepted since then shows that the reload is over.
    rfw.ok("GET", "/lists");
    assert!(!rfw.log().contains(CLOSED), "{}", rfw.log());
}
