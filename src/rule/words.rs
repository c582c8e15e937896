//! The words of a rule, those of the URL with blanks in place of slashes: `drop input any 1.2.3.4`, or
//! `accept forward ppp 1.2.3.0/24 eth0 5.6.7.8`. A mask stands behind its address.

use crate::rule::network::{Family, Network, NetworkError};
use crate::rule::{Chain, Interface, Rule, RuleError, Scope, Target};
use std::fmt;

/// Prints the words of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a>(pub &'a Rule);

/// Parses the words of a rule at the beginning of a text. Gives the rule and what follows the blank
/// behind it, if there is one.
///
/// # Errors
/// A word is missing or is not what belongs in its place, or the words are no rule.
pub(crate) fn parse(text: &str) -> Result<(Rule, Option<&str>), WordsError> {
    let mut words = Reader { rest: Some(text) };
    let target = words.next("a target")?;
    let target = Target::parse(target).ok_or_else(|| WordsError::Target(target.to_owned()))?;
    let chain = words.next("a chain")?;
    let chain = Chain::parse(chain).ok_or_else(|| WordsError::Chain(chain.to_owned()))?;
    let (near, first) = (words.interface()?, words.network()?);
    let rule = match chain {
        Chain::Input => Rule::new(Scope::input(target, near), first, None),
        Chain::Output => Rule::new(Scope::output(target, near), None, first),
        Chain::Forward => {
            let (far, second) = (words.interface()?, words.network()?);
            Rule::new(Scope::forward(target, near, far), first, second)
        }
    };
    Ok((rule?, words.rest))
}

/// The words of a text, one by one.
struct Reader<'a> {
    rest: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn next(&mut self, wanted: &'static str) -> Result<&'a str, WordsError> {
        let text = self.rest.ok_or(WordsError::Missing(wanted))?;
        let (word, rest) = text.split_once(' ').map_or((text, None), |(word, rest)| (word, Some(rest)));
        self.rest = rest;
        Ok(word)
    }

    fn interface(&mut self) -> Result<Option<Interface>, WordsError> {
        match self.next("an interface")? {
            "any" => Ok(None),
            name => Ok(Some(name.parse()?)),
        }
    }

    /// An address or a network; `None` is any.
    fn network(&mut self) -> Result<Option<Network>, WordsError> {
        let network: Network = self.next("an address")?.parse()?;
        Ok(Some(network).filter(|network| !network.is_unspecified()))
    }
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words(rule) = self;
        let scope = rule.scope();
        write!(f, "{} {}", scope.target().word(), scope.chain().word())?;
        let sides =
            [(scope.input_interface(), rule.source()), (scope.output_interface(), rule.destination())];
        let is_told = |side: usize| match scope.chain() {
            Chain::Input => side == 0,
            Chain::Output => side == 1,
            Chain::Forward => true,
        };
        for (_, (interface, network)) in sides.into_iter().enumerate().filter(|(side, _)| is_told(*side)) {
            write!(f, " {}", interface.map_or("any", Interface::name))?;
            match network {
                Some(network) => write!(f, " {network}")?,
                None => f.write_str(if rule.family() == Family::V4 { " 0.0.0.0" } else { " ::" })?,
            }
        }
        Ok(())
    }
}

/// Why words are not those of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    /// There is no such word any more.
    #[error("it ends where {0} is expected")]
    Missing(&'static str),
    /// Not a target.
    #[error("\"{}\" is not a target: expected drop, accept or reject", .0.escape_debug())]
    Target(String),
    /// Not a chain.
    #[error("\"{}\" is not a chain: expected input, output or forward", .0.escape_debug())]
    Chain(String),
    /// Not an address.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Not a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;
    use proptest::prelude::*;

    #[test]
    fn words_are_those_of_the_url() {
        for (at, [words, expected]) in cases("words.txt") {
            let read = match parse(&words) {
                Ok((rule, rest)) => {
                    assert_eq!(parse(&Words(&rule).to_string()), Ok((rule.clone(), None)), "{at}");
                    format!("{rule}{}", rest.map(|rest| format!(" + {rest}")).unwrap_or_default())
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(read, expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn words_printed_and_read_again_are_the_rule(
            target in 0usize..3,
            chain in 0usize..3,
            near in proptest::option::of("[a-z][a-z0-9._-]{0,13}"),
            far in proptest::option::of("[a-z][a-z0-9._-]{0,13}"),
            source in proptest::option::of(any::<u32>()),
            destination in proptest::option::of(any::<u32>()),
            prefix in 9u8..=32,
        ) {
            let target = [Target::Accept, Target::Reject, Target::Drop][target];
            let interface = |name: Option<String>| name.and_then(|name| name.parse().ok());
            let network = |bits: Option<u32>| bits.and_then(|bits| {
                Network::new(std::net::Ipv4Addr::from_bits(bits).into(), prefix).ok()
            });
            let (near, far) = (interface(near), interface(far));
            let scope = match chain {
                0 => Scope::input(target, near),
                1 => Scope::output(target, near),
                _ => Scope::forward(target, near, far),
            };
            if let Ok(rule) = Rule::new(scope, network(source), network(destination)) {
                let line = format!("{} and more", Words(&rule));
                prop_assert_eq!(parse(&line), Ok((rule, Some("and more"))));
            }
        }

        #[test]
        fn no_text_panics(text in "((drop|accept) (input|forward) )?\\PC*") {
            let _ = parse(&text);
        }
    }
}
