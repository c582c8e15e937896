//! Other programs at the same tables: the real ones where there are packages of them, laid over a host,
//! and else their own commands one by one. Whatever they do, what rfw blocks is blocked again soon, and
//! what they have made is as they made it. `etc/doc/neighbours.md` tells the same to administrators.

mod crowdsec;
mod docker;
mod fail2ban;
mod files;
mod firewalld;
mod import;
mod inserted;
mod kubernetes;
mod overlay;
mod persistent;
mod ufw;

use crate::host::{Host, Rfw, in_both_variants, of_ipv6, until};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Within this time what others have flushed is back. It is some ten seconds where nobody tells rfw, and
/// longer where a look takes long, as it does on a busy machine.
const REPAIR: Duration = Duration::from_secs(60);

/// Addresses of the peer that the white list names.
const FREE: [&str; 2] = ["10.0.0.8", "fd00::8"];

/// Those that [`Site::open`] blocks, each another way.
const BLOCKED: [&str; 8] =
    ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::2", "fd00::3", "fd00::4"];

/// A host on which rfw blocks some addresses of a peer behind the interface `wire0`.
struct Site<'a> {
    host: &'a Host,
    iptables: &'a str,
    rfw: Rfw<'a>,
    /// What the kernel has of it.
    kept: Kept,
}

/// All that rfw has in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// Table and rule of both families, in order of their texts.
    rules: Vec<String>,
    /// Set, element and comment of entries, and when they end.
    entries: BTreeMap<String, End>,
    registry: Option<Vec<String>>,
}

/// When an entry ends, in seconds since the host was made; the same within a few seconds.
#[derive(Debug, Clone, Copy)]
struct End(Option<u64>);

impl PartialEq for End {
    fn eq(&self, other: &End) -> bool {
        match (self.0, other.0) {
            (Some(one), Some(other)) => one.abs_diff(other) <= 5,
            (one, other) => one == other,
        }
    }
}

impl Eq for End {}

impl<'a> Site<'a> {
    /// Wires the peer, starts rfw with these lines of configuration and has it block single addresses and
    /// lists of both families, for ever and for a time, with a reason and without, in lists with a name
    /// and without, and one address in two of them.
    #[track_caller]
    fn open(host: &'a Host, iptables: &'a str, configuration: &str) -> Site<'a> {
        wire(host);
        let white_list = format!("127.0.0.1\n::1\n{}\n", FREE.join("\n"));
        let rfw = host.rfw(iptables).white_list(&white_list).configure(configuration).start();
        for path in [
            "/drop/input/any/10.0.0.2?expire=0",
            "/drop/input/wire0/10.0.0.3?expire=1h&reason=scanner",
            "/drop/input/any/fd00::2?expire=0&reason=scanner",
            "/drop/forward/any/10.0.0.2?expire=0",
            "/drop/forward/any/10.0.0.3?expire=1h",
            "/drop/output/any/192.0.2.1?expire=0",
        ] {
            rfw.ok("PUT", path);
        }
        for (path, list) in [
            ("/drop/input/any?expire=2h", "10.0.0.4\n9.9.9.0/24\nfd00::3\n"),
            ("/drop/input/any?list=feed&expire=2h", "10.0.0.4\n10.0.0.5\n8.8.8.0/24\nfd00::4\n"),
            ("/drop/input/any?list=other&expire=0", "10.0.0.5\n10.0.0.6\n"),
        ] {
            rfw.send_ok("PUT", path, list);
        }
        let kept = kept(host, iptables);
        let site = Site { host, iptables, rfw, kept };
        site.holds("rfw has just blocked them");
        site
    }

    /// Takes what rfw has now as what is to hold from here on.
    #[track_caller]
    fn remember(&mut self) {
        self.kept = kept(self.host, self.iptables);
    }

    /// Takes the ends that entries have now, where somebody has changed them.
    #[track_caller]
    fn remember_ends(&mut self) {
        let now = kept(self.host, self.iptables).entries;
        for (entry, end) in &mut self.kept.entries {
            *end = now.get(entry).copied().unwrap_or(*end);
        }
    }

    /// Waits until all that rfw had is in the kernel again, no more and no less, in front of what others
    /// accept; then no packet of a blocked address passes, and those of others do.
    #[track_caller]
    fn holds(&self, what: &str) {
        self.is_kept(what);
        // On a busy machine an answer may be late, but none comes to who is blocked.
        until(REPAIR, what, || {
            let passing = passing(self.host);
            let blocked = passing.iter().find(|address| BLOCKED.contains(&address.as_str()));
            assert_eq!(blocked, None, "{what}\n{}", self.rfw.log());
            passing == FREE
        });
    }

    /// The same without packets.
    #[track_caller]
    fn is_kept(&self, what: &str) {
        self.is_kept_within(REPAIR, what);
    }

    #[track_caller]
    fn is_kept_within(&self, limit: Duration, what: &str) {
        let start = Instant::now();
        loop {
            let now = kept(self.host, self.iptables);
            let late = self.behind();
            if now == self.kept && late.is_empty() {
                return;
            }
            if start.elapsed() > limit {
                let difference = difference(&self.kept, &now);
                panic!("{what}: {difference}\nbehind what others accept: {late:#?}\n{}", self.rfw.log());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sees that what others have made is as it was, now and after what rfw has repaired.
    #[track_caller]
    fn leaves_others_alone(&self, others: &[String], what: &str) {
        self.holds(what);
        assert_eq!(foreign(self.host, self.iptables), others, "{what}\n{}", self.rfw.log());
    }

    /// The rules of rfw in INPUT and FORWARD that stand behind a foreign one which could accept.
    fn behind(&self) -> Vec<String> {
        let mut late = Vec::new();
        for command in commands(self.iptables) {
            let table = self.host.run(&command, &["-w", "-S"]).ok();
            let table: Vec<&str> = table.lines().collect();
            for chain in ["-A INPUT ", "-A FORWARD "] {
                let rules = table.iter().filter(|rule| rule.starts_with(chain));
                let behind = rules.skip_while(|rule| is_ours(rule) || !could_accept(&table, rule));
                late.extend(behind.filter(|rule| is_ours(rule)).map(|rule| format!("{command} {rule}")));
            }
        }
        late
    }
}

/// A peer with all addresses behind `wire0`. It knows the host's hardware address: what asks for that by IPv6
/// comes from an address that may be blocked.
#[track_caller]
fn wire(host: &Host) {
    let addresses = BLOCKED.iter().chain(&FREE).chain(&["10.0.0.7"]);
    let length = |address: &str| if address.contains(':') { 64 } else { 24 };
    let theirs: Vec<String> = addresses.map(|address| format!("{address}/{}", length(address))).collect();
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    host.neighbour("peer", &["10.0.0.1/24", "fd00::1/64"], &theirs);
    let script = "ip link set wire0 address 02:00:00:00:00:01
        for address in 10.0.0.1 fd00::1; do
            ip -n peer neigh replace $address lladdr 02:00:00:00:00:01 dev eth0 nud permanent
        done";
    host.run("sh", &["-ec", script]).ok();
    // A link that has just come up carries nothing for up to a second.
    until(REPAIR, "the link is up", || passing(host).len() == BLOCKED.len() + FREE.len());
}

/// Whether a client at the peer that the white list names reaches rfw.
#[track_caller]
fn reaches_rfw(host: &Host) -> bool {
    let curl = ["curl", "-sk", "--connect-timeout", "0.6", "--interface", FREE[0], "https://10.0.0.1:7393/"];
    host.run("ip", &[&["netns", "exec", "peer"], &curl[..]].concat()).status == Some(0)
}

/// The addresses of the peer from which a ping is answered, all asked at the same time.
#[track_caller]
fn passing(host: &Host) -> Vec<String> {
    let each = "ping -q -c1 -W0.5 -I $address $host >/dev/null 2>&1 && echo $address";
    let of = |addresses: &str, host: &str| {
        format!("host={host}; for address in {addresses}; do {{ {each}; }} & done; ")
    };
    let all: Vec<&str> = BLOCKED.iter().chain(&FREE).copied().collect();
    let (ipv6, ipv4): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|address| address.contains(':'));
    let script = of(&ipv4.join(" "), "10.0.0.1") + &of(&ipv6.join(" "), "fd00::1") + "wait";
    let mut passing: Vec<String> = host
        .run("ip", &["netns", "exec", "peer", "sh", "-c", &script])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    passing.sort();
    passing
}

/// The commands of both families.
fn commands(iptables: &str) -> [String; 2] {
    [iptables.to_owned(), of_ipv6(iptables)]
}

/// The lines of what both families save, with their tables in front, and without what passes by itself.
#[track_caller]
fn saved(host: &Host, iptables: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for command in commands(iptables) {
        let text = host.run(&format!("{command}-save"), &[]).ok();
        let mut table = "";
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("*", name)) => table = name,
                Some((":", _)) => {
                    let chain = line.split(" [").next().unwrap();
                    lines.push(format!("{command} {table} {chain}"));
                }
                Some(("-", _)) => lines.push(format!("{command} {table} {line}")),
                _ => {}
            }
        }
    }
    lines
}

/// What rfw has in the kernel.
#[track_caller]
fn kept(host: &Host, iptables: &str) -> Kept {
    let mut rules: Vec<String> = saved(host, iptables).into_iter().filter(|line| is_ours(line)).collect();
    rules.sort();
    let now = uptime();
    let entries = host.entries().into_iter().filter(|entry| entry.set.starts_with("rfw")).map(|entry| {
        let end = Some(now + entry.timeout).filter(|_| entry.timeout > 0);
        (format!("{} {} {}", entry.set, entry.element, entry.comment), End(end))
    });
    Kept { rules, entries: entries.collect(), registry: host.registry() }
}

/// What others have: rules and chains of their own, and policies that are not as they are by themselves.
#[track_caller]
fn foreign(host: &Host, iptables: &str) -> Vec<String> {
    let is_by_itself =
        |line: &str| line.contains(" :") && (line.ends_with(" ACCEPT") || line.contains(" :RFW "));
    saved(host, iptables).into_iter().filter(|line| !is_ours(line) && !is_by_itself(line)).collect()
}

/// Whether it is a rule of rfw.
fn is_ours(rule: &str) -> bool {
    rule.contains("--comment \"rfw ") || rule.ends_with(" -j RFW") || rule.contains("-A RFW ")
}

/// Whether a packet may be let in by that rule of a table, or in a chain that it leads to.
fn could_accept(table: &[&str], rule: &str) -> bool {
    let Some(target) = rule.split(" -j ").nth(1).and_then(|rest| rest.split(' ').next()) else {
        return false;
    };
    if table.contains(&format!("-N {target}").as_str()) {
        let start = format!("-A {target} ");
        return table.iter().any(|rule| rule.starts_with(&start) && could_accept(table, rule));
    }
    !["DROP", "REJECT", "RETURN", "LOG"].contains(&target)
}

/// Seconds since the machine was started.
fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

/// What is missing and what is too much.
fn difference(before: &Kept, now: &Kept) -> String {
    let counts = |kept: &Kept| format!("{} rules and {} entries", kept.rules.len(), kept.entries.len());
    let lacks = |one: &Kept, other: &Kept| -> Vec<String> {
        let rules = one.rules.iter().filter(|rule| !other.rules.contains(rule)).cloned();
        let entries = one.entries.iter().filter(|(entry, end)| other.entries.get(*entry) != Some(end));
        rules.chain(entries.map(|(entry, end)| format!("{entry} {end:?}"))).collect()
    };
    format!(
        "{}, {} before\nmissing: {:#?}\ntoo much: {:#?}\nregistry: {:#?}, {:#?} before",
        counts(now),
        counts(before),
        lacks(before, now),
        lacks(now, before),
        now.registry,
        before.registry
    )
}

/// Runs a test with each variant of iptables, the first with addresses in sets and the other with rules;
/// the second of what it gets is what rfw.conf has for that.
fn with_sets_and_with_rules(test: impl Fn(&str, &str) + Sync) {
    in_both_variants(|iptables| test(iptables, if iptables == "iptables-nft" { "ipset" } else { "" }));
}

/// The other way round.
fn with_rules_and_with_sets(test: impl Fn(&str, &str) + Sync) {
    in_both_variants(|iptables| test(iptables, if iptables == "iptables-nft" { "" } else { "ipset" }));
}

/// Has rfw read its white list again, which is also a look at its rules.
#[track_caller]
fn look(rfw: &Rfw<'_>) {
    let looks = || rfw.log().matches("the configuration has been read again").count();
    let before = looks();
    rfw.signal("HUP");
    until(REPAIR, "it has looked", || looks() > before);
}
