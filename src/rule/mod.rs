//! Rules of the filter table: a target for the packets of one chain that match an
//! interface and an address, or two of each in FORWARD.
//!
//! Every value is validated by its constructor. The modules of [`crate::kernel`] take
//! only these types, never strings of a request, so that a request can't inject an
//! option of iptables.

pub(crate) mod client_name;
pub(crate) mod label;
pub(crate) mod layout;
pub(crate) mod lease;
pub(crate) mod list_name;
pub(crate) mod network;
pub(crate) mod note;
pub(crate) mod rights;
pub(crate) mod special;
pub(crate) mod whitelist;
pub(crate) mod words;

use crate::rule::network::{Family, Network};
use std::fmt;
use std::str::FromStr;

/// The target of a rule: what happens to a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Accept the packet.
    Accept,
    /// Discard the packet and send an ICMP error to its source.
    Reject,
    /// Discard the packet.
    Drop,
}

impl Target {
    /// The name in iptables' spelling.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Accept => "ACCEPT",
            Target::Reject => "REJECT",
            Target::Drop => "DROP",
        }
    }

    /// The name in a URL.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Target::Accept => "accept",
            Target::Reject => "reject",
            Target::Drop => "drop",
        }
    }

    /// Parses a target; upper and lower case are equal.
    pub(crate) fn parse(text: &str) -> Option<Target> {
        let all = [Target::Accept, Target::Reject, Target::Drop];
        all.into_iter().find(|target| target.name().eq_ignore_ascii_case(text))
    }
}

/// A built-in chain of the filter table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Chain {
    /// Packets destined to this host.
    Input,
    /// Packets routed through this host.
    Forward,
    /// Packets sent by this host.
    Output,
}

impl Chain {
    /// The name in iptables' spelling.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Chain::Input => "INPUT",
            Chain::Forward => "FORWARD",
            Chain::Output => "OUTPUT",
        }
    }

    /// The name in a URL.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Chain::Input => "input",
            Chain::Forward => "forward",
            Chain::Output => "output",
        }
    }

    /// Parses a chain; upper and lower case are equal.
    pub(crate) fn parse(text: &str) -> Option<Chain> {
        let all = [Chain::Input, Chain::Forward, Chain::Output];
        all.into_iter().find(|chain| chain.name().eq_ignore_ascii_case(text))
    }
}

/// The name of a network interface, or a prefix of names: a name that does not end in
/// a digit matches every interface whose name begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Interface(String);

/// The longest interface name in bytes: `IFNAMSIZ` of linux/if.h without the NUL.
const INTERFACE_MAX: usize = 15;

impl Interface {
    /// The name in a URL, without the `+` of a prefix.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The name as iptables(8) takes it for `-i` and `-o`: `eth0`, or `eth+` for a
    /// prefix. A name of the full length has no `+`, since no longer name exists.
    pub(crate) fn pattern(&self) -> String {
        format!("{}{}", self.0, if self.is_prefix() { "+" } else { "" })
    }

    /// Whether it matches every interface that `other` matches.
    pub(crate) fn takes_in(&self, other: &Interface) -> bool {
        self == other || self.is_prefix() && other.0.starts_with(&self.0)
    }

    fn is_prefix(&self) -> bool {
        !self.0.ends_with(|c: char| c.is_ascii_digit()) && self.0.len() < INTERFACE_MAX
    }

    /// The pattern as `iptables -L -v` prints it; `*` is any interface.
    pub(crate) fn column(interface: Option<&Interface>) -> String {
        interface.map_or_else(|| "*".to_owned(), Interface::pattern)
    }

    /// Parses what [`Interface::pattern`] returns; any other pattern is `None`.
    pub(crate) fn from_pattern(pattern: &str) -> Option<Interface> {
        let name = pattern.strip_suffix('+').unwrap_or(pattern);
        name.parse::<Interface>().ok().filter(|interface| interface.pattern() == pattern)
    }
}

impl FromStr for Interface {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Interface, RuleError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_@:".contains(&b);
        let length = (1..=INTERFACE_MAX).contains(&text.len());
        // An IPv4 address is a valid name to the kernel, but here a misplaced path segment.
        let address = text.parse::<std::net::IpAddr>().is_ok();
        let reserved = text == "." || text == ".." || text.eq_ignore_ascii_case("any") || address;
        if !length || reserved || text.starts_with('-') || !text.bytes().all(allowed) {
            return Err(RuleError::Name(text.to_owned()));
        }
        Ok(Interface(text.to_owned()))
    }
}

/// The part of a rule that is not its addresses: chain, target and interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    target: Target,
    chain: Chain,
    input: Option<Interface>,
    output: Option<Interface>,
}

impl Scope {
    /// The scope in INPUT, for packets received on `input`; `None` is any interface.
    pub(crate) fn input(target: Target, input: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Input, input, output: None }
    }

    /// The scope in OUTPUT, for packets sent on `output`; `None` is any interface.
    pub(crate) fn output(target: Target, output: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Output, input: None, output }
    }

    /// The scope in FORWARD, for packets received on `input` and sent on `output`; `None`
    /// is any interface.
    pub(crate) fn forward(target: Target, input: Option<Interface>, output: Option<Interface>) -> Scope {
        Scope { target, chain: Chain::Forward, input, output }
    }

    /// A scope from its parts; as interface, `None` is any.
    ///
    /// # Errors
    /// An output interface in INPUT, or an input interface in OUTPUT.
    pub(crate) fn new(
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

    /// The target.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// The chain.
    pub(crate) fn chain(&self) -> Chain {
        self.chain
    }

    /// The interface on which the packet is received; `None` is any.
    pub(crate) fn input_interface(&self) -> Option<&Interface> {
        self.input.as_ref()
    }

    /// The interface on which the packet is sent; `None` is any.
    pub(crate) fn output_interface(&self) -> Option<&Interface> {
        self.output.as_ref()
    }

    /// Whether it is of the same chain and takes in every packet of `other`, as to interfaces.
    pub(crate) fn takes_in(&self, other: &Scope) -> bool {
        let side = |own: &Option<Interface>, other: &Option<Interface>| {
            own.as_ref().is_none_or(|own| other.as_ref().is_some_and(|other| own.takes_in(other)))
        };
        self.chain == other.chain && side(&self.input, &other.input) && side(&self.output, &other.output)
    }

    /// The rule of this scope for one network: as the source in INPUT and FORWARD, as the
    /// destination in OUTPUT.
    ///
    /// # Errors
    /// A network that [`Rule::new`] refuses.
    pub(crate) fn rule(self, network: Network) -> Result<Rule, RuleError> {
        match self.chain {
            Chain::Output => Rule::new(self, None, Some(network)),
            Chain::Input | Chain::Forward => Rule::new(self, Some(network), None),
        }
    }
}

impl fmt::Display for Scope {
    /// The scope as arguments of iptables, without `-I`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.chain.name())?;
        for (flag, interface) in [("-i", &self.input), ("-o", &self.output)] {
            interface.iter().try_for_each(|interface| write!(f, " {flag} {}", interface.pattern()))?;
        }
        write!(f, " -j {}", self.target.name())
    }
}

/// A valid rule of the filter table: a scope, and a source, a destination or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rule {
    scope: Scope,
    family: Family,
    source: Option<Network>,
    destination: Option<Network>,
}

impl Rule {
    /// A rule from its parts; `None` is any address.
    ///
    /// # Errors
    /// No address at all, addresses of two families, an address on the side that the
    /// chain does not take, an unspecified address, or a prefix length below 9 (IPv4) or
    /// 16 (IPv6).
    #[inline(always)]
    pub(crate) fn new(
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

    /// Its chain, target and interfaces.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The family of its addresses: IPv4 rules are rules of iptables, IPv6 of ip6tables.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The source network; `None` is any address.
    pub(crate) fn source(&self) -> Option<&Network> {
        self.source.as_ref()
    }

    /// The destination network; `None` is any address.
    pub(crate) fn destination(&self) -> Option<&Network> {
        self.destination.as_ref()
    }

    /// Its source and destination, one or two networks.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.source.iter().chain(&self.destination)
    }
}

impl fmt::Display for Rule {
    /// The rule as arguments of iptables, without `-I` and the comment.
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

/// The shortest prefix length of a rule, in bits, so that a mistyped one does not block
/// a large part of the internet.
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

/// Where addresses are kept in sets (`ipset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetUse {
    /// Nowhere: each is a rule.
    Off,
    /// Everywhere.
    On,
    /// Where there are many, if the kernel has sets.
    Auto,
}

/// Why the parts are not a valid rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    /// Not the name of a network interface.
    #[error(
        "\"{}\" is not an interface: expected \"any\" or 1 to 15 letters, digits or .-_@: not starting with -",
        .0.escape_debug()
    )]
    Name(String),
    /// INPUT has no output interface, and OUTPUT no input interface.
    #[error("the chain {} has one interface", .0.name())]
    Interface(Chain),
    /// INPUT takes a source only, and OUTPUT a destination only.
    #[error("the chain {} takes one address", .0.name())]
    Side(Chain),
    /// Source and destination are of different families.
    #[error("{0} is {one} and {1} is {other}: expected one family", one = .0.family(), other = .1.family())]
    Families(Network, Network),
    /// A FORWARD rule without an address.
    #[error("any address on both sides matches everything: expected an address on one side")]
    AnyToAny,
    /// `0.0.0.0` or `::` where an address is required.
    #[error("{0} means any address, which only one side of a forward rule may be, without a mask")]
    Unspecified(Network),
    /// A prefix length below the shortest allowed one.
    #[error(
        "the mask of {0} is too wide: expected {least} to {most} for {family}",
        least = shortest_mask(.0.family()), most = .0.family().bits(), family = .0.family()
    )]
    Mask(Network),
}

/// The rule of a path such as `/drop/input/eth0/1.2.3.4`, for tests of modules that do
/// not depend on the URL parser.
#[cfg(test)]
pub(crate) fn rule_of(path: &str) -> Rule {
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
