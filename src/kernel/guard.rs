//! The rules that guard rfw's own port, one line of iptables each. Nothing here runs a
//! program.

use crate::rule::network::{Family, Network};
use std::fmt;

/// The comment of the rules that guard rfw's own port.
const GUARD: &str = "rfw guard";

/// A rule that guards rfw's port: in INPUT it decides who may reach it, in OUTPUT who
/// is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guard {
    output: bool,
    /// Lets these pass; without networks nobody.
    network: Option<Network>,
    port: u16,
}

impl Guard {
    /// The rules that let the networks alone reach a TCP port and be answered, in the
    /// order in which they are put in front of their chains.
    pub fn all<'a>(port: u16, networks: impl Iterator<Item = &'a Network>) -> Vec<Guard> {
        let wanted = std::iter::once(None).chain(networks.map(|network| Some(*network)));
        wanted.flat_map(|network| [false, true].map(|output| Guard { output, network, port })).collect()
    }

    /// Whether it is in the chain OUTPUT.
    pub fn is_output(&self) -> bool {
        self.output
    }

    /// Reads the words of a line; anything that rfw would not have made is none.
    pub fn parse(words: &[String], family: Family) -> Option<Guard> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (output, rest) = match words.split_first()? {
            (&"INPUT", rest) => (false, rest),
            (&"OUTPUT", rest) => (true, rest),
            _ => return None,
        };
        let (side, number) = sides(output);
        let (network, rest) = match rest {
            [option, network, rest @ ..] if *option == side => (Some(network.parse::<Network>().ok()?), rest),
            _ => (None, rest),
        };
        let ["-p", "tcp", "-m", "tcp", option, port, "-m", "comment", "--comment", GUARD, "-j", target] =
            rest
        else {
            return None;
        };
        let guard = Guard { output, network, port: port.parse().ok()? };
        let ours = *option == number
            && *target == guard.target()
            && network.is_none_or(|network| network.family() == family);
        ours.then_some(guard)
    }

    fn target(&self) -> &'static str {
        if self.network.is_some() { "ACCEPT" } else { "DROP" }
    }
}

/// The options of a guard in INPUT or OUTPUT for its network and its port.
fn sides(output: bool) -> (&'static str, &'static str) {
    if output { ("-d", "--sport") } else { ("-s", "--dport") }
}

impl fmt::Display for Guard {
    /// The specification as iptables takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (side, number) = sides(self.output);
        f.write_str(if self.output { "OUTPUT " } else { "INPUT " })?;
        self.network.iter().try_for_each(|network| write!(f, "{side} {network} "))?;
        let (port, target) = (self.port, self.target());
        write!(f, "-p tcp -m tcp {number} {port} -m comment --comment \"{GUARD}\" -j {target}")
    }
}
