//! A fleet: servers in network namespaces of their own, iptables-nft and iptables-legacy by turns, which
//! rfwctl asks at the same time from one machine; and what becomes of those that it can't reach.

use crate::documents::read;
use crate::host::{Host, SOON, Said, VARIANTS, until};
use crate::network;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const RFWCTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");
const RFWGEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");

/// The address that is blocked.
const SCANNER: &str = "66.66.66.66";

#[test]
fn a_block_reaches_all_servers_but_those_that_fail_and_names_these() {
    const SERVERS: usize = 20;
    const DOWN: usize = 7;
    const REFUSING: usize = 20;
    let mut fleet = Fleet::new(SERVERS);
    // This one's own white list has the address.
    fleet.host.write("white.list", 0o644, &format!("{}\n{SCANNER}\n", network::ASKING));
    fleet.start(&[REFUSING]);
    fleet.host.write("white.list", 0o644, &format!("{}\n", network::ASKING));
    let others: Vec<usize> = (1..=SERVERS).filter(|server| ![DOWN, REFUSING].contains(server)).collect();
    fleet.start(&others);

    let said = fleet.rfwctl(&["block", SCANNER, "-t", "1h", "-r", "scanner", "--retries", "0"]);
    assert_eq!(said.status, Some(1), "{said:#?}");
    for server in 1..=SERVERS {
        let name = network::name(server);
        let is_told = |text: &str| text.lines().any(|line| line.starts_with(&format!("{name}: ")));
        let fails = [DOWN, REFUSING].contains(&server);
        assert_eq!((is_told(&said.out), is_told(&said.err)), (!fails, fails), "{name}: {said:#?}");
        assert_eq!(fleet.is_blocked(server, SCANNER), !fails, "{name}");
    }
    let line_of = |server: usize| {
        let start = format!("{}: ", network::name(server));
        said.err.lines().find(|line| line.starts_with(&start)).unwrap_or_default()
    };
    assert!(line_of(DOWN).to_lowercase().contains("connect"), "{said:#?}");
    assert!(line_of(REFUSING).contains("66.66.66.66 is white-listed"), "{said:#?}");
    assert!(said.err.contains("failed on 2 of 20 servers: web7 web20"), "{said:#?}");

    // Once it is there again, asking all once more does no harm.
    fleet.start(&[DOWN]);
    let said = fleet.rfwctl(&["block", SCANNER, "-t", "1h", "-s", "web1,web7"]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""), "{said:#?}");
    assert!(fleet.is_blocked(DOWN, SCANNER));
}

#[test]
fn a_server_that_is_cut_off_stands_alone_and_the_next_list_repairs_what_it_has_missed() {
    const SERVERS: usize = 4;
    const CUT_OFF: usize = 2;
    let mut fleet = Fleet::new(SERVERS);
    fleet.start(&(1..=SERVERS).collect::<Vec<_>>());
    let list =
        |from: usize| (from..from + 150).map(|n| format!("11.22.33.{}\n", n % 250)).collect::<String>();
    fleet.replace(&list(0)).ok();
    fleet.rfwctl(&["block", SCANNER, "-t", "2"]).ok();
    let before = fleet.entries(CUT_OFF);
    assert!(before.iter().any(|entry| entry.ends_with(SCANNER)), "{before:?}");
    (1..=SERVERS).for_each(|server| assert_eq!(fleet.entries(server), before, "web{server}"));

    fleet.ip(&format!("route add unreachable {}", network::address(CUT_OFF)));
    let said = fleet.replace(&list(100));
    assert!(said.status != Some(0) && said.err.contains("web2"), "{said:#?}");
    let after = fleet.entries(1);
    assert_ne!(after, before);
    for server in (1..=SERVERS).filter(|server| *server != CUT_OFF) {
        assert_eq!(fleet.entries(server), after, "web{server}");
    }

    // It has the list of before, and what ends there ends at its time, though nobody asks for it.
    until(SOON, "the block has ended", || fleet.entries(CUT_OFF).iter().all(|e| !e.ends_with(SCANNER)));
    let rest: Vec<String> = before.into_iter().filter(|entry| !entry.ends_with(SCANNER)).collect();
    assert_eq!(fleet.entries(CUT_OFF), rest);

    fleet.ip(&format!("route del unreachable {}", network::address(CUT_OFF)));
    fleet.replace(&list(100)).ok();
    let wanted = fleet.entries(1);
    assert_eq!(wanted.iter().filter(|entry| entry.starts_with("rfw4-ids/")).count(), 150, "{wanted:?}");
    (1..=SERVERS).for_each(|server| assert_eq!(fleet.entries(server), wanted, "web{server}"));
}

#[test]
fn a_relay_gives_its_region_what_the_server_above_it_has() {
    const LENGTH: usize = 1_200;
    let mut fleet = Fleet::new(3);
    fleet.start(&[1, 2, 3]);
    let relay = Relay::new(&fleet);
    let list = |from: usize| -> String {
        (from..from + LENGTH).map(|n| format!("11.22.{}.{}\n", 1 + n / 250, 1 + n % 250)).collect()
    };
    for from in [0, 100] {
        fleet.host.write("list", 0o644, &list(from));
        fleet.rfwctl(&["feed", "tor", "list", "--replace", "-t", "25h", "-s", "web1"]).ok();
        relay.run().ok();
        let above = fleet.entries(1);
        assert_eq!(above.iter().filter(|entry| entry.starts_with("rfw4-ids/tor ")).count(), LENGTH);
        (2..=3).for_each(|server| assert_eq!(fleet.entries(server), above, "web{server}"));
    }

    // What comes from above is looked at: a list that is gone there is no reason to let all go here.
    let before = fleet.entries(2);
    fleet.host.write("list", 0o644, "# none\n");
    fleet.rfwctl(&["feed", "tor", "list", "--replace", "--min", "0", "-t", "1h", "-s", "web1"]).ok();
    assert_eq!(fleet.entries(1), Vec::<String>::new());
    assert_eq!(relay.run().status, Some(3));
    assert_eq!(fleet.entries(2), before);
}

/// The script of the document, which asks `web1` and feeds the others.
struct Relay<'a> {
    fleet: &'a Fleet,
}

impl Relay<'_> {
    #[track_caller]
    fn new(fleet: &Fleet) -> Relay<'_> {
        let document = read("etc/doc/fleet.md");
        let block =
            document.split("```sh\n").find(|block| block.contains("# rfw-relay: ")).expect("the script");
        let script = block.split("\n```").next().unwrap_or_default();
        let host = &fleet.host;
        let (folder, above) = (host.dir.display().to_string(), network::address(1).to_string());
        let script = script.replace("/etc/rfw-relay", &folder).replace("11.11.11.11", &above);
        assert!(script.contains(&folder) && script.contains(&above), "{script}");
        host.write("rfw-relay", 0o755, &script);
        host.write("curl.conf", 0o600, "cacert = client/ca.crt\nuser = me:secret\n");
        fs::create_dir(host.dir.join("rfw")).unwrap();
        let servers = fs::read_to_string(host.dir.join("servers")).unwrap().replace("client/", "../client/");
        let region: String = servers
            .lines()
            .filter(|line| !line.starts_with("web1 "))
            .fold(String::new(), |all, line| all + line + "\n");
        host.write("rfw/servers", 0o600, &region);
        Relay { fleet }
    }

    fn run(&self) -> Said {
        let folder = self.fleet.host.dir.display();
        let tools = RFWCTL.strip_suffix("/rfwctl").unwrap();
        let command = format!("XDG_CONFIG_HOME={folder} PATH={tools}:$PATH exec ./rfw-relay");
        self.fleet.host.run("sh", &["-c", &command])
    }
}

/// Servers in the namespaces `web1` and so on, which the host asks.
struct Fleet {
    host: Host,
    servers: Vec<Child>,
}

impl Fleet {
    /// Makes the network and the files; no server runs.
    #[track_caller]
    fn new(count: usize) -> Fleet {
        let host = Host::new();
        host.feed("sh", &[], network::script(count).as_bytes()).ok();
        let addresses: Vec<String> = (1..=count).map(|server| network::address(server).to_string()).collect();
        let mut rfwgen = Command::new(RFWGEN);
        let made = rfwgen.args(addresses).current_dir(&host.dir).stdin(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let dir = host.dir.display();
        host.write("white.list", 0o644, &format!("{}\n", network::ASKING));
        for variant in VARIANTS {
            let conf = format!(
                "[config]\noutward.server\noutward.server.ip = 0.0.0.0\n\
                 outward.server.certfile = {dir}/server_10.77.0.1/server.crt\n\
                 outward.server.keyfile = {dir}/server_10.77.0.1/server.key\n\
                 auth.username = me\nauth.password = secret\nwhitelist.file = {dir}/white.list\n\
                 ipset = auto\niptables.path = {variant}\n"
            );
            host.write(&format!("{variant}.conf"), 0o600, &conf);
        }
        let login = "* cacert=client/ca.crt user=me password=secret\n";
        host.write("servers", 0o600, &(login.to_owned() + &network::servers(count)));
        Fleet { host, servers: Vec::new() }
    }

    /// Starts rfw on some servers, all at the same time, and waits until they serve.
    #[track_caller]
    fn start(&mut self, servers: &[usize]) {
        for server in servers {
            let name = network::name(*server);
            let mut command = self.host.command("ip");
            command.args(["netns", "exec", &name, "sh", "-c", network::PREPARE, env!("CARGO_BIN_EXE_rfw")]);
            command.args(["-f", &format!("{}.conf", variant(*server)), "--logfile", &format!("{name}.log")]);
            self.servers.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        }
        for server in servers {
            let file = self.host.dir.join(format!("{}.log", network::name(*server)));
            let log = || fs::read_to_string(&file).unwrap_or_default();
            until(Duration::from_secs(30), &format!("web{server} is ready"), || log().contains("is ready"));
        }
    }

    fn rfwctl(&self, arguments: &[&str]) -> Said {
        self.host.run("sh", &[&[RFWCTL, "-f", "servers"], arguments].concat())
    }

    /// Has all servers hold just that in the list `feed`.
    fn replace(&self, list: &str) -> Said {
        self.host.write("list", 0o644, list);
        self.rfwctl(&["feed", "feed", "list", "--replace", "-t", "25h", "--retries", "0"])
    }

    #[track_caller]
    fn ip(&self, line: &str) {
        self.host.run("ip", &line.split(' ').collect::<Vec<_>>()).ok();
    }

    /// Whether the kernel of a server has a rule for that address.
    #[track_caller]
    fn is_blocked(&self, server: usize, address: &str) -> bool {
        let rules = self.at(server, &[variant(server), "-w", "-S", "INPUT"]);
        let start = format!("-A INPUT -s {address}/32 ");
        rules.lines().any(|rule| rule.starts_with(&start) && rule.ends_with(" -j DROP"))
    }

    /// The entries of the sets that the kernel of a server has, without their times, in order.
    #[track_caller]
    fn entries(&self, server: usize) -> Vec<String> {
        let saved = self.at(server, &["ipset", "save"]);
        let entries = saved.lines().filter_map(|line| line.strip_prefix("add rfw4-"));
        let mut entries: Vec<String> = entries
            .map(|entry| format!("rfw4-{}", entry.split(' ').take(2).collect::<Vec<_>>().join(" ")))
            .collect();
        entries.sort();
        entries
    }

    /// What a program prints in the namespace of a server.
    #[track_caller]
    fn at(&self, server: usize, words: &[&str]) -> String {
        let name = network::name(server);
        self.host.run("ip", &[&["netns", "exec", &name], words].concat()).ok()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The variant of iptables that a server has.
fn variant(server: usize) -> &'static str {
    VARIANTS[server % 2]
}
