//! The language of iptables-save(8) and iptables-restore(8): rules as one text
//! line each. Reading and printing only; nothing here runs a program.
//!
//! A line is ours if its comment is one that rfw writes and all the rest of it is
//! what rfw would have made. Anything more, anything else, is someone else's.

use crate::ipset::{Set, Side};
use crate::lease::Lease;
use crate::net::{Family, Network};
use crate::rule::{Chain, Interface, Place, Rule, Target};
use std::fmt::Write;

/// The comment of the rules that guard rfw's own port.
const GUARD: &str = "rfw guard";

/// The comment of the rules that look packets up in a set of rfw.
const SET: &str = "rfw set";

/// The packets and bytes that a rule has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A rule of the kernel's table, as `iptables-save -c` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name of the chain it is in.
    pub chain: String,
    /// Packets and bytes that it has matched.
    pub counters: Counters,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a line is, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A rule that rfw put in for a client.
    Rfw(Rule, Lease),
    /// A rule that looks packets up in a set of rfw.
    Set(Set),
    /// A rule that guards rfw's port, as `-A` would take it.
    Guard(String),
    /// Somebody else's.
    Other,
}

/// Reads one line of `iptables-save -c -t filter`; `None` is a line that is no rule.
pub fn parse(line: &str, family: Family) -> Option<Line> {
    let (counters, rest) = parse_counters(line)?;
    let specification = rest.strip_prefix("-A ")?;
    let words = split(specification)?;
    let chain = words.first()?.clone();
    let owner = match own(&words, family) {
        Some(owner) => owner,
        None if is_guard(&words) => Owner::Guard(specification.to_owned()),
        None => Owner::Other,
    };
    Some(Line { chain, counters, owner })
}

/// Reads `[packets:bytes] rest`; without brackets both are zero.
fn parse_counters(line: &str) -> Option<(Counters, &str)> {
    let Some(inner) = line.strip_prefix('[') else { return Some((Counters::default(), line)) };
    let (numbers, rest) = inner.split_once("] ")?;
    let (packets, bytes) = numbers.split_once(':')?;
    Some((Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? }, rest))
}

/// Splits a line into words; a word in double quotes has `\` before what it escapes.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while rest.peek().is_some() {
        let mut word = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => word.push(rest.next()?),
                    c => word.push(c),
                }
            }
        }
        while let Some(c) = rest.next_if(|c| *c != ' ') {
            word.push(c);
        }
        rest.next();
        words.push(word);
    }
    Some(words)
}

/// What a line says that rfw made for a client.
fn own(words: &[String], family: Family) -> Option<Owner> {
    let (chain, options) = words.split_first()?;
    let mut found = Options::default();
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match (option, options.next()?) {
            ("-s", value) => set(&mut found.source, value.parse::<Network>().ok()?)?,
            ("-d", value) => set(&mut found.destination, value.parse::<Network>().ok()?)?,
            ("-i", value) => set(&mut found.input, Interface::from_pattern(value)?)?,
            ("-o", value) => set(&mut found.output, Interface::from_pattern(value)?)?,
            ("-m", "comment" | "set") => {}
            ("--comment", value) => set(&mut found.comment, value)?,
            ("--match-set", value) => set(&mut found.set, (value, Side::from_direction(options.next()?)?))?,
            ("-j", value) => set(&mut found.target, Target::parse(value)?)?,
            ("--reject-with", value) => set(&mut found.reject_with, value)?,
            _ => return None,
        }
    }
    found.owner(Chain::parse(chain)?, family)
}

#[derive(Default)]
struct Options<'a> {
    source: Option<Network>,
    destination: Option<Network>,
    input: Option<Interface>,
    output: Option<Interface>,
    set: Option<(&'a str, Side)>,
    comment: Option<&'a str>,
    target: Option<Target>,
    reject_with: Option<&'a str>,
}

impl Options<'_> {
    fn owner(self, chain: Chain, family: Family) -> Option<Owner> {
        let target = self.target?;
        let reject_with = (target == Target::Reject).then_some(reject_with(family));
        let place = Place::new(target, chain, self.input, self.output).ok()?;
        match self.set {
            _ if self.reject_with != reject_with => None,
            None => {
                let rule = Rule::new(place, self.source, self.destination).ok()?;
                let lease = Lease::from_comment(self.comment?)?;
                (rule.family() == family).then_some(Owner::Rfw(rule, lease))
            }
            Some((name, side)) => {
                let set = Set::new(family, place, side);
                let ours = self.comment == Some(SET) && set.name() == name;
                (ours && self.source.is_none() && self.destination.is_none()).then_some(Owner::Set(set))
            }
        }
    }
}

/// Sets what is to be set only once.
fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// The ICMP error that REJECT answers with unless told otherwise.
fn reject_with(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    }
}

fn is_guard(words: &[String]) -> bool {
    words.windows(2).any(|pair| matches!(pair, [option, value] if option == "--comment" && value == GUARD))
}

/// Changes of the filter table that the kernel makes all together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction(Vec<Change>);

/// The number of rules that guard a port for so many networks.
pub fn guard_len(networks: usize) -> usize {
    networks.saturating_add(1).saturating_mul(2)
}

/// One change of the filter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts a rule into its chain, as the one of that number.
    Insert(Rule, Lease, usize),
    /// Takes a rule out.
    Delete(Rule, Lease),
    /// Puts the rule of a set into its chain, as the one of that number.
    InsertSet(Set, usize),
    /// Takes the rule of a set out.
    DeleteSet(Set),
    /// Fails unless the rule of a set is there.
    CheckSet(Set),
    /// Puts a rule in front of a chain that guards rfw's port.
    InsertGuard(String),
    /// Takes a guard rule out, as the kernel printed it.
    DeleteGuard(String),
}

impl Transaction {
    /// Puts a rule into its chain, as the one of that number; 1 is in front.
    pub fn insert(&mut self, rule: &Rule, lease: Lease, number: usize) {
        self.0.push(Change::Insert(rule.clone(), lease, number));
    }

    /// Puts the rule of a set into its chain, as the one of that number.
    pub fn insert_set(&mut self, set: &Set, number: usize) {
        self.0.push(Change::InsertSet(set.clone(), number));
    }

    /// Takes the rule of a set out.
    pub fn delete_set(&mut self, set: &Set) {
        self.0.push(Change::DeleteSet(set.clone()));
    }

    /// Fails unless the rule of a set is there.
    pub fn check_set(&mut self, set: &Set) {
        self.0.push(Change::CheckSet(set.clone()));
    }

    /// Takes a rule out.
    pub fn delete(&mut self, rule: &Rule, lease: Lease) {
        self.0.push(Change::Delete(rule.clone(), lease));
    }

    /// Takes a guard rule out, as the kernel printed it.
    pub fn delete_guard(&mut self, specification: &str) {
        self.0.push(Change::DeleteGuard(specification.to_owned()));
    }

    /// Guards a TCP port: the networks may reach it and be answered, nobody else.
    pub fn insert_guard<'a>(&mut self, port: u16, networks: impl Iterator<Item = &'a Network>) {
        let mut both = |source: &str, destination: &str, target: &str| {
            let guard = format!("-m comment --comment \"{GUARD}\" -j {target}");
            let input = format!("INPUT {source}-p tcp -m tcp --dport {port} {guard}");
            let output = format!("OUTPUT {destination}-p tcp -m tcp --sport {port} {guard}");
            self.0.extend([Change::InsertGuard(input), Change::InsertGuard(output)]);
        };
        both("", "", "DROP");
        networks.for_each(|network| both(&format!("-s {network} "), &format!("-d {network} "), "ACCEPT"));
    }

    /// Its changes, in their order.
    pub fn changes(&self) -> &[Change] {
        &self.0
    }

    /// The text that iptables-restore takes.
    pub fn script(&self) -> String {
        let mut script = "*filter\n".to_owned();
        for change in &self.0 {
            // Writing to a string can't fail.
            let _ = match change {
                Change::Insert(rule, lease, number) => {
                    writeln!(script, "-I {}", numbered(&specification(rule, *lease), *number))
                }
                Change::Delete(rule, lease) => writeln!(script, "-D {}", specification(rule, *lease)),
                Change::InsertSet(set, number) => {
                    writeln!(script, "-I {}", numbered(&set_specification(set), *number))
                }
                Change::DeleteSet(set) => writeln!(script, "-D {}", set_specification(set)),
                Change::CheckSet(set) => writeln!(script, "-C {}", set_specification(set)),
                Change::InsertGuard(specification) => writeln!(script, "-I {specification}"),
                Change::DeleteGuard(specification) => writeln!(script, "-D {specification}"),
            };
        }
        script + "COMMIT\n"
    }
}

/// A rule with its lease as iptables takes it, and prints it but for the masks of hosts.
fn specification(rule: &Rule, lease: Lease) -> String {
    let networks = [("-s", rule.source()), ("-d", rule.destination())];
    let networks = networks.into_iter().filter_map(|(flag, network)| Some(format!(" {flag} {}", network?)));
    in_place(rule.place(), &networks.collect::<String>(), &lease.to_string())
}

/// The rule that looks packets up in a set.
fn set_specification(set: &Set) -> String {
    let matches = format!(" -m set --match-set {} {}", set.name(), set.side().direction());
    in_place(set.place(), &matches, SET)
}

fn in_place(place: &Place, matches: &str, comment: &str) -> String {
    let interfaces = [("-i", place.input_interface()), ("-o", place.output_interface())];
    let interfaces = interfaces
        .into_iter()
        .filter_map(|(flag, interface)| Some(format!(" {flag} {}", interface?.pattern())));
    let interfaces: String = interfaces.collect();
    let (chain, target) = (place.chain().name(), place.target().name());
    format!("{chain}{matches}{interfaces} -m comment --comment \"{comment}\" -j {target}")
}

/// A specification with the number behind its chain that says where to insert it.
fn numbered(specification: &str, number: usize) -> String {
    match specification.split_once(' ') {
        Some((chain, rest)) if number > 1 => format!("{chain} {number} {rest}"),
        _ => specification.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str, family: Family) -> String {
        match parse(line, family) {
            None => "none".to_owned(),
            Some(Line { chain, counters, owner }) => {
                let Counters { packets, bytes } = counters;
                match owner {
                    Owner::Rfw(rule, lease) => format!("{packets}:{bytes} {rule}, {lease}"),
                    Owner::Set(set) => format!("{packets}:{bytes} set {}", set.name()),
                    Owner::Guard(text) => format!("guard {text}"),
                    Owner::Other => format!("other in {chain}"),
                }
            }
        }
    }

    #[test]
    fn lines_of_iptables_save_are_read() {
        let golden = [
            ("# Generated by iptables-save v1.8.9 on Sun Nov 22 09:18:22 2026", "none"),
            ("*filter", "none"),
            (":INPUT ACCEPT [0:0]", "none"),
            ("COMMIT", "none"),
            ("", "none"),
            (
                "[7:420] -A INPUT -s 11.22.33.44/32 -i eth0 -m comment --comment \"rfw until 2026-11-22T10:05:00Z\" -j DROP",
                "7:420 INPUT -s 11.22.33.44 -i eth0 -j DROP, rfw until 2026-11-22T10:05:00Z",
            ),
            (
                "-A OUTPUT -d 192.168.0.0/24 -m comment --comment \"rfw permanent\" -j ACCEPT",
                "0:0 OUTPUT -d 192.168.0.0/24 -j ACCEPT, rfw permanent",
            ),
            (
                "[0:0] -A FORWARD -s 1.2.3.0/24 -d 5.5.5.5/32 -i ppp+ -o eth0 -m comment --comment \"rfw permanent\" -j ACCEPT",
                "0:0 FORWARD -s 1.2.3.0/24 -d 5.5.5.5 -i ppp+ -o eth0 -j ACCEPT, rfw permanent",
            ),
            (
                "[1:2] -A INPUT -s 1.2.3.4/32 -i eth+ -m comment --comment \"rfw permanent\" -j REJECT --reject-with icmp-port-unreachable",
                "1:2 INPUT -s 1.2.3.4 -i eth+ -j REJECT, rfw permanent",
            ),
            (
                "[0:0] -A INPUT -i eth+ -m set --match-set rfw4-ids-eth+ src -m comment --comment \"rfw set\" -j DROP",
                "0:0 set rfw4-ids-eth+",
            ),
            (
                "[5:6] -A FORWARD -m set --match-set rfw4-frb src,dst -m comment --comment \"rfw set\" -j REJECT --reject-with icmp-port-unreachable",
                "5:6 set rfw4-frb",
            ),
            // Someone else's, however alike.
            (
                "[0:0] -A INPUT -m set --match-set rfw4-ads src -m comment --comment \"rfw set\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -m set --match-set rfw4-ids src -m comment --comment \"my set\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -m set ! --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP",
                "other in INPUT",
            ),
            ("[0:0] -A INPUT -s 1.2.3.4/32 -j DROP", "other in INPUT"),
            ("[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment rfw -j DROP", "other in INPUT"),
            ("[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment \"rfw is great\" -j DROP", "other in INPUT"),
            (
                "[0:0] -A INPUT ! -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -p tcp -m comment --comment \"rfw permanent\" -j DROP",
                "other in INPUT",
            ),
            ("[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j LOG", "other in INPUT"),
            ("[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment \"rfw permanent\"", "other in INPUT"),
            ("[0:0] -A INPUT -m comment --comment \"rfw permanent\" -j DROP", "other in INPUT"),
            ("[0:0] -A INPUT -s 1.0.0.0/8 -m comment --comment \"rfw permanent\" -j DROP", "other in INPUT"),
            ("[0:0] -A INPUT -d 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j DROP", "other in INPUT"),
            (
                "[0:0] -A INPUT -s 2001:db8::1/128 -m comment --comment \"rfw permanent\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A mychain -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j DROP",
                "other in mychain",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -i eth0+ -m comment --comment \"rfw permanent\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j REJECT --reject-with tcp-reset",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -m comment --comment \"say \\\"rfw permanent\\\"\" -j DROP",
                "other in INPUT",
            ),
            (
                "[0:0] -A INPUT -s 1.2.3.4/32 -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j ACCEPT",
                "guard INPUT -s 1.2.3.4/32 -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j ACCEPT",
            ),
            ("[0:0] -A INPUT -m comment --comment \"open", "none"),
            ("[0:x] -A INPUT -j DROP", "none"),
        ];
        for (line, expected) in golden {
            assert_eq!(read(line, Family::V4), expected, "{line}");
        }
        let line = "[0:0] -A INPUT -s 2001:db8::/48 -m comment --comment \"rfw permanent\" -j REJECT --reject-with icmp6-port-unreachable";
        assert_eq!(read(line, Family::V6), "0:0 INPUT -s 2001:db8::/48 -j REJECT, rfw permanent");
    }

    #[test]
    fn a_transaction_is_a_script_of_iptables_restore() {
        let rule = Place::input(Target::Drop, None).rule("11.22.33.44".parse().unwrap()).unwrap();
        let set = Set::of(&rule);
        let mut transaction = Transaction::default();
        assert!(transaction.changes().is_empty());
        transaction.delete(&rule, Lease::Permanent);
        transaction.insert(&rule, Lease::from_comment("rfw until 2026-11-22T10:05:00Z").unwrap(), 1);
        transaction.insert(&rule, Lease::Permanent, 3);
        transaction.insert_set(&set, 2);
        transaction.check_set(&set);
        transaction.delete_set(&set);
        transaction.insert_guard(7393, ["10.0.0.0/8".parse().unwrap()].iter());
        transaction.delete_guard("INPUT -p tcp -m comment --comment \"rfw guard\" -j DROP");
        assert_eq!(
            transaction.script(),
            "*filter\n\
             -D INPUT -s 11.22.33.44 -m comment --comment \"rfw permanent\" -j DROP\n\
             -I INPUT -s 11.22.33.44 -m comment --comment \"rfw until 2026-11-22T10:05:00Z\" -j DROP\n\
             -I INPUT 3 -s 11.22.33.44 -m comment --comment \"rfw permanent\" -j DROP\n\
             -I INPUT 2 -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -C INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -D INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -I INPUT -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
             -I OUTPUT -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
             -I INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
             -I OUTPUT -d 10.0.0.0/8 -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
             -D INPUT -p tcp -m comment --comment \"rfw guard\" -j DROP\n\
             COMMIT\n"
        );
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let network = |v4: bool| {
            (any::<u128>(), 9u8..=32).prop_map(move |(bits, prefix)| match v4 {
                true => Network::new(std::net::Ipv4Addr::from_bits(bits as u32).into(), prefix).unwrap(),
                false => Network::host(std::net::Ipv6Addr::from_bits(bits | 1 << 127).into()),
            })
        };
        let interface =
            || proptest::option::of("[a-zA-Z][a-zA-Z0-9._@:]{3,13}".prop_map(|text| text.parse().unwrap()));
        let target = prop_oneof![Just(Target::Accept), Just(Target::Drop), Just(Target::Reject)];
        let networks =
            any::<bool>().prop_flat_map(move |v4| (network(v4), proptest::option::of(network(v4))));
        (target, networks, interface(), interface(), 0..3).prop_filter_map(
            "unspecified address",
            |(target, (a, b), i, o, chain)| match chain {
                0 => Place::input(target, i).rule(a).ok(),
                1 => Place::output(target, o).rule(a).ok(),
                _ => Rule::new(Place::forward(target, i, o), b, Some(a)).ok(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_rule_printed_and_read_again_is_itself(rule in rules(), seconds in 0u64..4_000_000_000) {
            let lease = crate::lease::Interval::parse(&format!("{}", seconds % 1_000_000)).unwrap()
                .from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
            let mut line = format!("-A {}", specification(&rule, lease));
            if rule.place().target() == Target::Reject {
                line = format!("{line} --reject-with {}", reject_with(rule.family()));
            }
            prop_assert_eq!(parse(&line, rule.family()).map(|line| line.owner), Some(Owner::Rfw(rule, lease)));
        }

        #[test]
        fn no_line_panics(line in "\\PC*", tail in "[-a-z\" \\\\0-9./]{0,60}") {
            let _ = parse(&line, Family::V4);
            let _ = parse(&format!("[0:0] -A INPUT {tail}"), Family::V6);
        }
    }
}
