//! What the kernel of a host holds, as its own tools tell it.

use super::{Host, of_ipv6};

impl Host {
    /// The rules of a chain as `iptables -S CHAIN` prints them, without those that
    /// guard rfw's port and without the policy.
    #[track_caller]
    pub fn rules(&self, iptables: &str, chain: &str) -> Vec<String> {
        let all = self.run(iptables, &["-w", "-S", chain]).ok();
        let rules = all.lines().filter(|line| line.starts_with("-A") && !line.contains("rfw guard"));
        rules.map(str::to_owned).collect()
    }

    /// Those that guard rfw's port, all chains.
    #[track_caller]
    pub fn guards(&self, iptables: &str) -> Vec<String> {
        let all = self.run(iptables, &["-w", "-S"]).ok();
        all.lines().filter(|line| line.contains("rfw guard")).map(str::to_owned).collect()
    }

    /// All rules of the filter tables as `-S` prints them, first IPv4, then IPv6.
    #[track_caller]
    pub fn tables(&self, iptables: &str) -> [Vec<String>; 2] {
        [iptables.to_owned(), of_ipv6(iptables)].map(|command| {
            let all = self.run(&command, &["-w", "-S"]).ok();
            all.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
        })
    }

    /// What rfw keeps, each address as the line of `-S` that it is, or that the entry
    /// of a set stands for, without its comment; first IPv4, then IPv6.
    #[track_caller]
    pub fn kept(&self, iptables: &str) -> Vec<String> {
        let entries = self.entries();
        let mut kept = Vec::new();
        for line in self.tables(iptables).concat() {
            let Some((place, rest)) = line.split_once(" -m comment --comment \"rfw ") else { continue };
            let (comment, target) = rest.split_once("\" -j ").unwrap();
            let Some((place, matched)) = place.split_once(" -m set --match-set ") else {
                if comment != "guard" {
                    kept.push(format!("{place} -j {target}"));
                }
                continue;
            };
            assert_eq!(comment, "set", "{line}");
            let (name, direction) = matched.split_once(' ').unwrap();
            let chain_end = place[3..].find(' ').map_or(place.len(), |at| at + 3);
            let (chain, interfaces) = place.split_at(chain_end);
            for entry in entries.iter().filter(|entry| entry.set == name) {
                let networks: String = direction
                    .split(',')
                    .zip(entry.element.split(','))
                    .map(|(side, network)| format!(" -{} {}", &side[..1], with_mask(network)))
                    .collect();
                kept.push(format!("{chain}{networks}{interfaces} -j {target}"));
            }
        }
        kept
    }

    /// The entries of all sets, as `ipset save` prints them, without those of the registry.
    #[track_caller]
    pub fn entries(&self) -> Vec<Entry> {
        let saved = self.run("ipset", &["save"]).ok();
        let added = saved.lines().filter_map(|line| line.strip_prefix("add ")).map(Entry::parse);
        added.filter(|entry| entry.set != "rfw").collect()
    }

    /// The names of all sets, in order, without the registry and its nonce.
    #[track_caller]
    pub fn sets(&self) -> Vec<String> {
        let names = self.run("ipset", &["list", "-n"]).ok();
        let mut names: Vec<String> = names
            .lines()
            .filter(|name| *name != "rfw" && !name.starts_with("rfw-nonce-"))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    /// The members of the registry with their comments, in order; the digits of the nonce are left
    /// out. `None` if there is no registry.
    #[track_caller]
    pub fn registry(&self) -> Option<Vec<String>> {
        let saved = self.run("ipset", &["save", "rfw"]);
        if saved.status != Some(0) {
            return None;
        }
        let lines = saved.ok();
        let members = lines.lines().filter_map(|line| line.strip_prefix("add rfw "));
        let mut members: Vec<String> = members
            .map(|member| match member.strip_prefix("rfw-nonce-") {
                Some(nonce) => {
                    format!("rfw-nonce-{}", nonce.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
                }
                None => member.to_owned(),
            })
            .collect();
        members.sort();
        Some(members)
    }

    /// All that rules and sets say, but for what passes by itself: counters and time.
    #[track_caller]
    pub fn everything(&self, iptables: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
        let elements = self.entries().into_iter().map(|entry| format!("{} {}", entry.set, entry.element));
        let mut elements: Vec<String> = elements.collect();
        elements.sort();
        (self.tables(iptables).concat(), self.sets(), elements)
    }

    /// Runs an iptables command with the words of a line, in the shell's quotes.
    #[track_caller]
    pub fn admin(&self, iptables: &str, line: &str) {
        self.run("sh", &["-c", &format!("{iptables} -w {line}")]).ok();
    }
}

/// An entry of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub set: String,
    pub element: String,
    /// In seconds; 0 is for ever.
    pub timeout: u64,
    pub packets: u64,
    pub bytes: u64,
    pub comment: String,
}

impl Entry {
    /// Reads what follows `add` in a line of `ipset save`.
    #[track_caller]
    fn parse(line: &str) -> Entry {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            at.map_or(0, |at| words[at + 1].parse().unwrap())
        };
        let (timeout, packets, bytes) = (number("timeout"), number("packets"), number("bytes"));
        let comment = line.split_once(" comment \"").and_then(|(_, comment)| comment.strip_suffix('"'));
        let (set, element) = (words[0].to_owned(), words[1].to_owned());
        Entry { set, element, timeout, packets, bytes, comment: comment.unwrap_or_default().to_owned() }
    }
}

/// A network as iptables prints it: with its mask, a host too.
fn with_mask(network: &str) -> String {
    match network {
        _ if network.contains('/') => network.to_owned(),
        _ if network.contains(':') => format!("{network}/128"),
        _ => format!("{network}/32"),
    }
}
