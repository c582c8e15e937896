//! The guard rules, which let only listed networks reach rfw's own port, each a rule
//! specification of iptables(8). Formatting and parsing only, no I/O.

use crate::rule::network::{Family, Network};
use std::fmt;

/// The comment by which a guard rule is recognized.
pub(crate) const COMMENT: &str = "rfw guard";

/// The port that is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    /// The TCP port.
    pub number: u16,
    /// Whether any address may reach it, listed or not.
    pub open: bool,
}

/// A guard rule: in INPUT it accepts or drops packets to rfw's port, in OUTPUT packets
/// from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Guard {
    output: bool,
    peers: Peers,
    port: u16,
}

/// The peers that a guard rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Peers {
    /// All: their packets are dropped.
    All,
    /// All: their packets are accepted, in front of the rule that drops.
    Everyone,
    /// Those of a network: their packets are accepted.
    Network(Network),
    /// Those of the networks in the guard's set of a family: their packets are accepted.
    Set(Family),
}

impl Guard {
    /// The rules that let only these networks exchange packets with a TCP port, in the
    /// order of insertion: each is inserted at the head of its chain, so that the DROP rules,
    /// inserted first, come last.
    pub(crate) fn all<'a>(port: u16, networks: impl Iterator<Item = &'a Network>) -> Vec<Guard> {
        Guard::for_peers(port, networks.map(|network| Peers::Network(*network)))
    }

    /// The same for the networks of the guard's set.
    pub(crate) fn with_set(port: u16, family: Family) -> Vec<Guard> {
        Guard::for_peers(port, std::iter::once(Peers::Set(family)))
    }

    /// The same for all addresses.
    pub(crate) fn open(port: u16) -> Vec<Guard> {
        Guard::for_peers(port, std::iter::once(Peers::Everyone))
    }

    fn for_peers(port: u16, peers: impl Iterator<Item = Peers>) -> Vec<Guard> {
        let wanted = std::iter::once(Peers::All).chain(peers);
        wanted.flat_map(|peers| [false, true].map(|output| Guard { output, peers, port })).collect()
    }

    /// Whether it is a rule of OUTPUT, not of INPUT.
    pub(crate) fn is_output(&self) -> bool {
        self.output
    }

    /// Whether it drops packets.
    pub(crate) fn is_drop(&self) -> bool {
        self.peers == Peers::All
    }

    /// Whether it accepts packets of any address.
    pub(crate) fn is_open(&self) -> bool {
        self.peers == Peers::Everyone
    }

    /// Whether it looks packets up in the guard's set.
    pub(crate) fn has_set(&self) -> bool {
        matches!(self.peers, Peers::Set(_))
    }

    /// Parses the words of a rule specification; `None` if it is not exactly one that rfw
    /// writes.
    pub(crate) fn parse(words: &[String], family: Family) -> Option<Guard> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (output, rest) = match words.split_first()? {
            (&"INPUT", rest) => (false, rest),
            (&"OUTPUT", rest) => (true, rest),
            _ => return None,
        };
        let Options { network: network_option, port: port_option, direction } = options(output);
        let (network, rest) = match rest {
            [option, network, rest @ ..] if *option == network_option => {
                (Some(network.parse::<Network>().ok()?), rest)
            }
            _ => (None, rest),
        };
        let ["-p", "tcp", "-m", "tcp", option, port, rest @ ..] = rest else { return None };
        let (set, rest) = match rest {
            ["-m", "set", "--match-set", name, flags, rest @ ..] => (Some((*name, *flags)), rest),
            _ => (None, rest),
        };
        let ["-m", "comment", "--comment", COMMENT, "-j", target] = rest else { return None };
        let peers = match (network, set) {
            (None, None) if *target == "ACCEPT" => Peers::Everyone,
            (None, None) => Peers::All,
            (Some(network), None) => Some(Peers::Network(network)).filter(|_| network.family() == family)?,
            (None, Some(set)) => Some(Peers::Set(family)).filter(|_| set == (set_name(family), direction))?,
            (Some(_), Some(_)) => return None,
        };
        let guard = Guard { output, peers, port: port.parse().ok()? };
        (*option == port_option && *target == guard.target()).then_some(guard)
    }

    fn target(&self) -> &'static str {
        if self.is_drop() { "DROP" } else { "ACCEPT" }
    }
}

/// The name of the set that holds the networks of a family which may reach the port.
pub(crate) fn set_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "rfw4-guard",
        Family::V6 => "rfw6-guard",
    }
}

/// What that set is for, as the registry has it for a comment.
pub(crate) fn set_description(family: Family) -> &'static str {
    match family {
        Family::V4 => "guard inet",
        Family::V6 => "guard inet6",
    }
}

/// What the rules of a chain look at.
struct Options {
    network: &'static str,
    port: &'static str,
    /// The flag of `--match-set`.
    direction: &'static str,
}

/// The options of a rule of OUTPUT, or else of INPUT.
fn options(output: bool) -> Options {
    match output {
        true => Options { network: "-d", port: "--sport", direction: "dst" },
        false => Options { network: "-s", port: "--dport", direction: "src" },
    }
}

impl fmt::Display for Guard {
    /// The chain and rule specification, as iptables(8) takes them after `-I` or `-D`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { network: network_option, port: port_option, direction } = options(self.output);
        f.write_str(if self.output { "OUTPUT " } else { "INPUT " })?;
        if let Peers::Network(network) = self.peers {
            write!(f, "{network_option} {network} ")?;
        }
        write!(f, "-p tcp -m tcp {port_option} {} ", self.port)?;
        if let Peers::Set(family) = self.peers {
            write!(f, "-m set --match-set {} {direction} ", set_name(family))?;
        }
        write!(f, "-m comment --comment \"{COMMENT}\" -j {}", self.target())
    }
}
