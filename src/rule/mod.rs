//! What rfw can ask of a packet filter: a target for the packets of one chain
//! that match an interface and an address, or two of each when forwarded.
//!
//! Every value here is checked when it is made. The kernel side takes only these
//! types, never text of a client, so no client can smuggle in an option.

pub mod lease;
pub mod network;
pub mod whitelist;

use crate::rule::network::{Family, Network};
use std::fmt;
use std::str::FromStr;

/// What happens to a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Let it pass.
    Accept,
    /// Throw it away and answer with an ICMP error.
    Reject,
    /// Throw it away in silence.
    Drop,
}

impl Target {
    /// The name in iptables' spelling.
    pub fn name(self) -> &'static str {
        match self {
            Target::Accept => "ACCEPT",
            Target::Reject => "REJECT",
            Target::Drop => "DROP",
        }
    }

    /// Reads a target in any case.
    pub fn parse(text: &str) -> Option<Target> {
        let all = [Target::Accept, Target::Reject, Target::Drop];
        all.into_iter().find(|target| target.name().eq_ignore_ascii_case(text))
    }
}

/// A built-in chain of the filter table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Packets to this host.
    Input,
    /// Packets through this host.
    Forward,
    /// Packets from this host.
    Output,
}

impl Chain {
    /// The name in iptables' spelling.
    pub fn name(self) -> &'static str {
        match self {
            Chain::Input => "INPUT",
            Chain::Forward => "FORWARD",
            Chain::Output => "OUTPUT",
        }
    }

    /// Reads a chain in any case.
    pub fn parse(text: &str) -> Option<Chain> {
        let all = [Chain::Input, Chain::Forward, Chain::Output];
        all.into_iter().find(|chain| chain.name().eq_ignore_ascii_case(text))
    }
}

/// The name of a network interface, or of all that begin alike: a name that does
/// not end in a digit is a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface(String);

/// The longest interface name in bytes: `IFNAMSIZ` of linux/if.h less its NUL.
const INTERFACE_MAX: usize = 15;

impl Interface {
    /// The name as iptables matches it: `eth0`, or `eth+` for a prefix. A prefix
    /// of full length matches just the one interface of that name.
    pub fn pattern(&self) -> String {
        let prefix = !self.0.ends_with(|c: char| c.is_ascii_digit()) && self.0.len() < INTERFACE_MAX;
        format!("{}{}", self.0, if prefix { "+" } else { "" })
    }

    /// Reads what [`Interface::pattern`] makes; any other pattern is none of ours.
    pub fn from_pattern(pattern: &str) -> Option<Interface> {
        let name = pattern.strip_suffix('+').unwrap_or(pattern);
        name.parse::<Interface>().ok().filter(|interface| interface.pattern() == pattern)
    }
}

impl FromStr for Interface {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Interface, RuleError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_@:".contains(&b);
        let length = (1..=INTERFACE_MAX).contains(&text.len());
        // An address in the place of an interface is a slip, though it could name one.
        let address = text.parse::<std::net::IpAddr>().is_ok();
        let reserved = text == "." || text == ".." || text.eq_ignore_ascii_case("any") || address;
        if !length || reserved || text.starts_with('-') || !text.bytes().all(allowed) {
            return Err(RuleError::Name(text.to_owned()));
        }
        Ok(Interface(text.to_owned()))
    }
}

/// Where a rule looks: its chain, what it does there, and on which interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    target: Target,
    chain: Chain,
    input: Option<Interface>,
    output: Option<Interface>,
}

impl Scope {
    /// Packets that come in by `input` to this host.
    pub fn input(target: Target, input: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Input, input, output: None }
    }

    /// Packets that leave this host by `output`.
    pub fn output(target: Target, output: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Output, input: None, output }
    }

    /// Packets that come in by `input` and leave by `output`.
    pub fn forward(target: Target, input: Option<Interface>, output: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Forward, input, output }
    }

    /// A place out of its parts.
    ///
    /// # Errors
    /// INPUT has no output interface and OUTPUT no input interface.
    pub fn new(
        target: Target,
        chain: Chain,
        input: Option<Interface>,
        output: Option<Interface>,
    ) -> Result<Scope, RuleError> {
        match chain {
            Chain::Input if output.is_some() => Err(RuleError::Interface(chain)),
            Chain::Output if input.is_some() => Err(RuleError::Interface(chain)),
            _ => Ok(Scope { target, chain, input, output }),
        }
    }

    /// What happens to a packet.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The chain.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// The interface the packet came in by; `None` is any.
    pub fn input_interface(&self) -> Option<&Interface> {
        self.input.as_ref()
    }

    /// The interface the packet leaves by; `None` is any.
    pub fn output_interface(&self) -> Option<&Interface> {
        self.output.as_ref()
    }

    /// The rule that one address makes here: the source of what comes in or
    /// passes through, the destination of what goes out.
    ///
    /// # Errors
    /// A network that is no proper match, see [`Rule::new`].
    pub fn rule(self, network: Network) -> Result<Rule, RuleError> {
        match self.chain {
            Chain::Output => Rule::new(self, None, Some(network)),
            Chain::Input | Chain::Forward => Rule::new(self, Some(network), None),
        }
    }
}

impl fmt::Display for Scope {
    /// The part of a rule that is not its addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.chain.name())?;
        for (flag, interface) in [("-i", &self.input), ("-o", &self.output)] {
            interface.iter().try_for_each(|interface| write!(f, " {flag} {}", interface.pattern()))?;
        }
        write!(f, " -j {}", self.target.name())
    }
}

/// A rule of the filter table that rfw may keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    scope: Scope,
    family: Family,
    source: Option<Network>,
    destination: Option<Network>,
}

impl Rule {
    /// A rule out of its parts; `None` is any address.
    ///
    /// # Errors
    /// No address at all, addresses of two families, the address of the wrong
    /// side, an unspecified address, or a mask so wide that it blocks a good part
    /// of the internet.
    pub fn new(
        scope: Scope,
        source: Option<Network>,
        destination: Option<Network>,
    ) -> Result<Rule, RuleError> {
        let side_missing = match scope.chain {
            Chain::Input => source.is_none() || destination.is_some(),
            Chain::Output => destination.is_none() || source.is_some(),
            Chain::Forward => false,
        };
        if side_missing {
            return Err(RuleError::Side(scope.chain));
        }
        let family = match (source, destination) {
            (Some(a), Some(b)) if a.family() != b.family() => return Err(RuleError::Families(a, b)),
            (Some(network), _) | (None, Some(network)) => network.family(),
            (None, None) => return Err(RuleError::AnyToAny),
        };
        source.iter().chain(&destination).try_for_each(check_width)?;
        Ok(Rule { scope, family, source, destination })
    }

    /// Where it looks and what it does.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The family of its addresses, and so the tool that keeps it.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The addresses the packet comes from; `None` is any.
    pub fn source(&self) -> Option<&Network> {
        self.source.as_ref()
    }

    /// The addresses the packet goes to; `None` is any.
    pub fn destination(&self) -> Option<&Network> {
        self.destination.as_ref()
    }

    /// The networks it names, one or two.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.source.iter().chain(&self.destination)
    }
}

impl fmt::Display for Rule {
    /// The rule as a person would give it to iptables, without `-I`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scope.chain.name())?;
        for (flag, network) in [("-s", &self.source), ("-d", &self.destination)] {
            network.iter().try_for_each(|network| write!(f, " {flag} {network}"))?;
        }
        for (flag, interface) in [("-i", &self.scope.input), ("-o", &self.scope.output)] {
            interface.iter().try_for_each(|interface| write!(f, " {flag} {}", interface.pattern()))?;
        }
        write!(f, " -j {}", self.scope.target.name())
    }
}

/// The shortest masks, in bits, that a rule may have: nobody blocks half of the
/// internet by a slip.
fn shortest_mask(family: Family) -> u8 {
    match family {
        Family::V4 => 9,
        Family::V6 => 16,
    }
}

fn check_width(network: &Network) -> Result<(), RuleError> {
    if network.is_unspecified() {
        return Err(RuleError::Unspecified(*network));
    }
    match network.prefix() < shortest_mask(network.family()) {
        true => Err(RuleError::Mask(*network)),
        false => Ok(()),
    }
}

/// Why parts make no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not the name of an interface.
    #[error(
        "\"{}\" is not an interface: expected \"any\" or 1 to 15 letters, digits or .-_@: not starting with -",
        .0.escape_debug()
    )]
    Name(String),
    /// The chain has no such interface.
    #[error("the chain {} has one interface", .0.name())]
    Interface(Chain),
    /// The chain takes an address of the other side.
    #[error("the chain {} takes one address", .0.name())]
    Side(Chain),
    /// Source and destination of two families.
    #[error("{0} is {one} and {1} is {other}: expected one family", one = .0.family(), other = .1.family())]
    Families(Network, Network),
    /// A forward rule that matches everything.
    #[error("any address on both sides matches everything: expected an address on one side")]
    AnyToAny,
    /// `0.0.0.0` or `::` where an address is wanted.
    #[error("{0} means any address, which only one side of a forward rule may be, without a mask")]
    Unspecified(Network),
    /// A mask that takes in too much.
    #[error(
        "the mask of {0} is too wide: expected {least} to {most} for {family}",
        least = shortest_mask(.0.family()), most = .0.family().bits(), family = .0.family()
    )]
    Mask(Network),
}

/// The rule that a path such as `/drop/input/eth0/1.2.3.4` stands for, for tests of
/// layers that know no URLs.
#[cfg(test)]
pub fn rule_of(path: &str) -> Rule {
    let mut words = path.trim_start_matches('/').split('/').peekable();
    let (target, chain) = (Target::parse(words.next().unwrap()), Chain::parse(words.next().unwrap()));
    let (target, chain) = (target.unwrap(), chain.unwrap());
    let interface = |word: Option<&str>| word.filter(|word| *word != "any").map(|word| word.parse().unwrap());
    let near = interface(words.next());
    let first = next_network(&mut words);
    if chain != Chain::Forward {
        let scope =
            if chain == Chain::Input { Scope::input(target, near) } else { Scope::output(target, near) };
        return scope.rule(first.unwrap()).unwrap();
    }
    let far = interface(words.next());
    Rule::new(Scope::forward(target, near, far), first, next_network(&mut words)).unwrap()
}

#[cfg(test)]
fn next_network(words: &mut std::iter::Peekable<std::str::Split<'_, char>>) -> Option<Network> {
    let address = words.next()?;
    let mask = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    Some(network::parse(address, mask).unwrap()).filter(|network| !network.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::golden::cases;

    #[test]
    fn interfaces_are_checked_and_made_patterns() {
        for (at, [text, pattern]) in cases("interface.txt") {
            let interface = text.parse::<Interface>().ok();
            assert_eq!(
                interface.as_ref().map_or("-".to_owned(), |interface| interface.pattern().to_string()),
                pattern,
                "{at}"
            );
            if interface.is_some() {
                assert_eq!(Interface::from_pattern(&pattern), interface, "{at}");
            }
        }
        for foreign in ["eth0+", "+", "eth", "", "!eth0", "abcdefghijklmno+"] {
            assert_eq!(Interface::from_pattern(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn networks_that_take_in_too_much_make_no_rule() {
        let golden = [
            ("1.0.0.0/9", None),
            ("0.0.0.0/9", None),
            ("1.0.0.0/8", Some("the mask of 1.0.0.0/8 is too wide: expected 9 to 32 for IPv4")),
            ("2001::/16", None),
            ("2000::/15", Some("the mask of 2000::/15 is too wide: expected 16 to 128 for IPv6")),
            ("0.0.0.0/0", Some("the mask of 0.0.0.0/0 is too wide: expected 9 to 32 for IPv4")),
            (
                "::",
                Some(":: means any address, which only one side of a forward rule may be, without a mask"),
            ),
        ];
        for (network, message) in golden {
            let rule = Scope::input(Target::Drop, None).rule(network.parse().unwrap());
            assert_eq!(rule.err().map(|e| e.to_string()).as_deref(), message, "{network}");
        }
    }

    #[test]
    fn a_rule_has_the_sides_of_its_chain() {
        let net = |text: &str| -> Option<Network> { Some(text.parse().unwrap()) };
        let eth0: Option<Interface> = Some("eth0".parse().unwrap());
        assert!(Rule::new(Scope::input(Target::Drop, None), None, net("1.2.3.4")).is_err());
        assert!(Rule::new(Scope::output(Target::Drop, None), net("1.2.3.4"), None).is_err());
        assert!(Rule::new(Scope::forward(Target::Drop, None, None), None, None).is_err());
        assert!(Rule::new(Scope::forward(Target::Drop, None, None), net("1.2.3.4"), net("::1")).is_err());
        assert!(Scope::new(Target::Drop, Chain::Input, None, eth0.clone()).is_err());
        assert!(Scope::new(Target::Drop, Chain::Output, eth0.clone(), None).is_err());
        let rule = Rule::new(Scope::forward(Target::Reject, eth0, None), None, net("1.2.3.4")).unwrap();
        assert_eq!(rule.to_string(), "FORWARD -d 1.2.3.4 -i eth0 -j REJECT");
    }
}
