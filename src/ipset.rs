//! The language of ipset(8): the sets that rfw keeps, one for each family and
//! place, and their entries as one text line each. Nothing here runs a program.

use crate::iptables::Counters;
use crate::net::{Family, Network};
use crate::rule::{Chain, Interface, Place, Rule};
use std::fmt;

/// The longest timeout of an entry, in seconds, that the kernel takes.
pub const TIMEOUT_MAX: u64 = 2_147_483;

/// The longest name of a set in bytes: `IPSET_MAXNAMELEN` less its NUL.
const NAME_MAX: usize = 31;

/// Which addresses of a packet a set is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
    /// Both, as a pair.
    Both,
}

impl Side {
    /// The direction as the match `--match-set` takes it.
    pub fn direction(self) -> &'static str {
        match self {
            Side::Source => "src",
            Side::Destination => "dst",
            Side::Both => "src,dst",
        }
    }

    /// Reads a direction.
    pub fn from_direction(text: &str) -> Option<Side> {
        [Side::Source, Side::Destination, Side::Both].into_iter().find(|side| side.direction() == text)
    }
}

/// A set that rfw keeps: all rules of one family at one place that name the same
/// sides are its entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Set {
    family: Family,
    place: Place,
    side: Side,
}

impl Set {
    /// The set at a place for addresses of a family.
    pub fn new(family: Family, place: Place, side: Side) -> Set {
        Set { family, place, side }
    }

    /// The set that holds a rule.
    pub fn of(rule: &Rule) -> Set {
        let side = match (rule.source(), rule.destination()) {
            (Some(_), Some(_)) => Side::Both,
            (_, Some(_)) => Side::Destination,
            (_, None) => Side::Source,
        };
        Set::new(rule.family(), rule.place().clone(), side)
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The place of its rules.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Which addresses it is looked up by.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Its name, the same for the same set for ever: `rfw4-` or `rfw6-`, the first
    /// letters of chain, target and side, and the interfaces, or their hash where
    /// they are too long.
    pub fn name(&self) -> String {
        let letter = |word: &str| word.chars().next().unwrap_or('-').to_ascii_lowercase();
        let family = if self.family == Family::V4 { 4 } else { 6 };
        let (chain, target) = (letter(self.place.chain().name()), letter(self.place.target().name()));
        let side = match self.side {
            Side::Source => 's',
            Side::Destination => 'd',
            Side::Both => 'b',
        };
        let interface =
            |interface: Option<&Interface>| interface.map_or_else(String::new, Interface::pattern);
        let input = interface(self.place.input_interface());
        let output = interface(self.place.output_interface());
        let interfaces = match self.place.chain() {
            Chain::Input => input,
            Chain::Output => output,
            Chain::Forward if output.is_empty() => input,
            // No interface has a comma in its name.
            Chain::Forward => format!("{input},{output}"),
        };
        let start = format!("rfw{family}-{chain}{target}{side}");
        match interfaces.len().saturating_add(start.len()) {
            _ if interfaces.is_empty() => start,
            length if length < NAME_MAX => format!("{start}-{interfaces}"),
            _ => format!("{start}-{:016x}", fnv(interfaces.as_bytes())),
        }
    }

    /// The rule that an entry of this set stands for.
    pub fn rule(&self, element: &str) -> Option<Rule> {
        let network =
            |text: &str| text.parse::<Network>().ok().filter(|network| network.family() == self.family);
        let (source, destination) = match (self.side, element.split_once(',')) {
            (Side::Source, None) => (Some(network(element)?), None),
            (Side::Destination, None) => (None, Some(network(element)?)),
            (Side::Both, Some((source, destination))) => {
                (Some(network(source)?), Some(network(destination)?))
            }
            _ => return None,
        };
        Rule::new(self.place.clone(), source, destination).ok()
    }

    /// The line that makes it under that name.
    pub fn create(&self, name: &str, maxelem: u32) -> String {
        let family = if self.family == Family::V4 { "inet" } else { "inet6" };
        let kind = if self.side == Side::Both { "hash:net,net" } else { "hash:net" };
        format!("create {name} {kind} family {family} timeout 0 counters maxelem {maxelem}")
    }
}

/// FNV-1a of 64 bits (draft-eastlake-fnv): short names for long ones.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The name of the set in which a process of rfw prepares a new state, to be swapped
/// in whole. A tool that outlives its rfw can't work in the set of the next one.
pub fn work_name(process: u32) -> String {
    format!("rfw-work-{process}")
}

/// Whether a set of that name is one of rfw's.
pub fn is_own_name(name: &str) -> bool {
    ["rfw4-", "rfw6-", "rfw-work-"].iter().any(|start| name.starts_with(start))
}

/// A rule as an element of its set.
pub fn element(rule: &Rule) -> String {
    let networks: Vec<String> = rule.networks().map(Network::to_string).collect();
    networks.join(",")
}

/// How long an entry stays, in seconds; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timeout(u32);

impl Timeout {
    /// A timeout that the kernel takes.
    pub fn new(seconds: u64) -> Option<Timeout> {
        u32::try_from(seconds).ok().filter(|_| seconds <= TIMEOUT_MAX).map(Timeout)
    }

    /// The next whole second of a time that ipset has printed, which leaves out what
    /// there is of a second.
    pub fn rounded_up(self) -> Timeout {
        match self.seconds() {
            0 => self,
            seconds => Timeout::new(seconds + 1).unwrap_or(self),
        }
    }

    /// Its length in seconds, 0 for ever.
    pub fn seconds(self) -> u64 {
        u64::from(self.0)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry as `ipset save` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The address, network, or pair of them.
    pub element: &'a str,
    /// What is left of its time.
    pub timeout: Timeout,
    /// What it has matched.
    pub counters: Counters,
}

impl<'a> Entry<'a> {
    /// Reads `add NAME ELEMENT timeout N packets N bytes N`; other lines are none.
    pub fn parse(line: &'a str) -> Option<Entry<'a>> {
        let mut words = line.split(' ');
        let element = words.next().filter(|word| *word == "add").and_then(|_| words.nth(1))?;
        let mut entry = Entry { element, timeout: Timeout(0), counters: Counters::default() };
        while let Some(name) = words.next() {
            let number: u64 = words.next()?.parse().ok()?;
            match name {
                "timeout" => entry.timeout = Timeout::new(number)?,
                "packets" => entry.counters.packets = number,
                "bytes" => entry.counters.bytes = number,
                _ => return None,
            }
        }
        Some(entry)
    }

    /// The line that puts it, counters included, into the set `name`.
    pub fn line(&self, name: &str) -> String {
        let Entry { element, timeout, counters: Counters { packets, bytes } } = self;
        format!("add {name} {element} timeout {timeout} packets {packets} bytes {bytes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Target;
    use proptest::prelude::*;

    fn rule(path: &str) -> Rule {
        match crate::command::parse(&tiny_http::Method::Put, path, false) {
            Ok(crate::command::Command::Insert { rule, .. }) => rule,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_set_has_a_name_that_tells_its_place() {
        let golden = [
            ("/drop/input/any/1.2.3.4", "rfw4-ids", "1.2.3.4"),
            ("/accept/input/eth/1.2.3.0/24", "rfw4-ias-eth+", "1.2.3.0/24"),
            ("/reject/output/eth0/2001:db8::/48", "rfw6-ord-eth0", "2001:db8::/48"),
            ("/drop/forward/any/0.0.0.0/eth1/5.6.7.8", "rfw4-fdd-,eth1", "5.6.7.8"),
            ("/drop/forward/ppp/1.2.3.4/eth0/5.6.7.0/24", "rfw4-fdb-ppp+,eth0", "1.2.3.4,5.6.7.0/24"),
            (
                "/drop/forward/abcdefghijk1/1.2.3.4/abcdefghi/5.6.7.8",
                "rfw4-fdb-1e6e6e91b418b4c2",
                "1.2.3.4,5.6.7.8",
            ),
        ];
        for (path, name, member) in golden {
            let rule = rule(path);
            let set = Set::of(&rule);
            assert_eq!((set.name().as_str(), element(&rule).as_str()), (name, member), "{path}");
            assert_eq!(set.rule(member), Some(rule), "{path}");
        }
    }

    #[test]
    fn names_fit_and_differ() {
        let interfaces = ["a", "abcdefghijklmno", "abcdefghijklmn1", "eth0", "eth"];
        let mut names = std::collections::HashSet::new();
        for input in interfaces {
            for output in interfaces {
                for target in [Target::Accept, Target::Drop] {
                    let place = Place::forward(target, input.parse().ok(), output.parse().ok());
                    for side in [Side::Source, Side::Destination, Side::Both] {
                        let name = Set::new(Family::V6, place.clone(), side).name();
                        assert!(name.len() <= NAME_MAX && names.insert(name.clone()), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn entries_of_ipset_save_are_read() {
        let entry = |element, timeout, packets, bytes| {
            Some(Entry { element, timeout: Timeout(timeout), counters: Counters { packets, bytes } })
        };
        let golden = [
            ("add rfw4-ids 1.2.3.4 timeout 99 packets 7 bytes 420", entry("1.2.3.4", 99, 7, 420)),
            ("add rfw4-ids 1.2.3.0/24 timeout 0 packets 0 bytes 0", entry("1.2.3.0/24", 0, 0, 0)),
            ("add rfw4-fdb 1.2.3.4,5.6.7.0/24 timeout 5", entry("1.2.3.4,5.6.7.0/24", 5, 0, 0)),
            ("create rfw4-ids hash:net family inet hashsize 1024 maxelem 10 timeout 0 counters", None),
            ("add rfw4-ids 1.2.3.4 nomatch", None),
            ("add rfw4-ids 1.2.3.4 timeout", None),
            ("add rfw4-ids 1.2.3.4 timeout 2147484", None),
            ("add rfw4-ids", None),
            ("", None),
        ];
        for (line, expected) in golden {
            assert_eq!(Entry::parse(line), expected, "{line}");
        }
        let line = "add x 1.2.3.4 timeout 99 packets 7 bytes 420";
        assert_eq!(Entry::parse(line).map(|entry| entry.line("x")).as_deref(), Some(line));
    }

    #[test]
    fn what_is_no_element_of_a_set_is_no_rule() {
        let set = Set::of(&rule("/drop/input/any/1.2.3.4"));
        for text in ["::1", "1.2.3.4,5.6.7.8", "x", "", "0.0.0.0/0"] {
            assert_eq!(set.rule(text), None, "{text}");
        }
        assert!(Timeout::new(TIMEOUT_MAX).is_some() && Timeout::new(TIMEOUT_MAX + 1).is_none());
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*", tail in "[a-z0-9 .,/]*") {
            let _ = Entry::parse(&line);
            let _ = Entry::parse(&format!("add rfw4-ids {tail}"));
        }
    }
}
