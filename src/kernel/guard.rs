//! The guard rules, which let only listed networks reach rfw's own port, each a rule
//! specification of iptables(8). Formatting and parsing only, no I/O.

use crate::rule::network::{Family, Network};
use std::fmt;

/// The comment by which a guard rule is recognized.
const GUARD: &str = "rfw guard";

/// A guard rule: in INPUT it accepts or drops packets to rfw's port, in OUTPUT packets
/// from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Guard {
    output: bool,
    /// The network whose packets are accepted; `None` drops those of any address.
    network: Option<Network>,
    port: u16,
}

impl Guard {
    /// The rules that let only these networks exchange packets with a TCP port, in the
    /// order of insertion: each is inserted at the head of its chain, so that the DROP rules,
    /// inserted first, come last.
    pub(crate) fn all<'a>(port: u16, networks: impl Iterator<Item = &'a Network>) -> Vec<Guard> {
        let wanted = std::iter::once(None).chain(networks.map(|network| Some(*network)));
        wanted.flat_map(|network| [false, true].map(|output| Guard { output, network, port })).collect()
    }

    /// Whether it is a rule of OUTPUT, not of INPUT.
    pub(crate) fn is_output(&self) -> bool {
        self.output
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
        let (network_option, port_option) = options(output);
        let (network, rest) = match rest {
            [option, network, rest @ ..] if *option == network_option => {
                (Some(network.parse::<Network>().ok()?), rest)
            }
            _ => (None, rest),
        };
        let ["-p", "tcp", "-m", "tcp", option, port, "-m", "comment", "--comment", GUARD, "-j", target] =
            rest
        else {
            return None;
        };
        let guard = Guard { output, network, port: port.parse().ok()? };
        let ours = *option == port_option
            && *target == guard.target()
            && network.is_none_or(|network| network.family() == family);
        ours.then_some(guard)
    }

    fn target(&self) -> &'static str {
        if self.network.is_some() { "ACCEPT" } else { "DROP" }
    }
}

/// The options for network and port: of a rule of OUTPUT, or else of INPUT.
fn options(output: bool) -> (&'static str, &'static str) {
    if output { ("-d", "--sport") } else { ("-s", "--dport") }
}

impl fmt::Display for Guard {
    /// The chain and rule specification, as iptables(8) takes them after `-I` or `-D`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (network_option, port_option) = options(self.output);
        f.write_str(if self.output { "OUTPUT " } else { "INPUT " })?;
        self.network.iter().try_for_each(|network| write!(f, "{network_option} {network} "))?;
        let (port, target) = (self.port, self.target());
        write!(f, "-p tcp -m tcp {port_option} {port} -m comment --comment \"{GUARD}\" -j {target}")
    }
}
