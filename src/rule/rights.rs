//! What a client may do: which rules it may change, in which lists, for how long, how wide and how
//! many, and what it may see. Each right that is missing has a name, which is that of its option in
//! `rfw.conf`.

use crate::rule::lease::Interval;
use crate::rule::list_name::{ListName, ListNameError};
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Interface, Rule, Scope, Target};
use std::fmt;

/// The rights of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    /// What it may change; nothing where none of them holds.
    pub allow: Vec<Grant>,
    /// The lists that it may change.
    pub lists: Lists,
    /// The longest time of an address; without it an address may be permanent.
    pub expire_max: Option<Interval>,
    /// The widest networks, as prefix lengths.
    pub mask_min: Option<MaskMin>,
    /// The most entries of all its lists, both families together.
    pub entries_max: Option<usize>,
    /// What it may see.
    pub read: Read,
}

/// The shortest prefixes of networks that a client may name, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaskMin {
    /// Of IPv4.
    pub v4: u8,
    /// Of IPv6.
    pub v6: u8,
}

/// Which rows a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Those of the lists that it may change.
    Own,
    /// All.
    All,
    /// None.
    None,
}

/// Rules that may be changed: those with one of the targets in one of the chains, and with no interface
/// but those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    targets: Choice<Target>,
    chains: Choice<Chain>,
    /// `None` is the word `any` of the URL.
    interfaces: Choice<Option<Interface>>,
}

/// All of a kind, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice<T> {
    All,
    Some(Vec<T>),
}

/// Names of lists, and beginnings of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lists(Vec<ListPattern>);

/// A name of a list, or how names begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ListPattern {
    Name(ListName),
    /// What names begin with, `*` in the text. That which is empty takes in the unnamed list too.
    Prefix(String),
}

impl Rights {
    /// All rights, without limits.
    pub(crate) fn all() -> Rights {
        let everything = Grant { targets: Choice::All, chains: Choice::All, interfaces: Choice::All };
        Rights { allow: vec![everything], lists: Lists::all(), read: Read::All, ..Rights::none() }
    }

    /// Those of a client without any option: it may change nothing, and see the unnamed list.
    pub(crate) fn none() -> Rights {
        Rights {
            allow: Vec::new(),
            lists: Lists(vec![ListPattern::Name(ListName::UNNAMED)]),
            expire_max: None,
            mask_min: None,
            entries_max: None,
            read: Read::Own,
        }
    }

    /// Whether anything may be changed.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_any(&self) -> Result<(), MissingRight> {
        if self.allow.is_empty() { Err(MissingRight::Any) } else { Ok(()) }
    }

    /// Whether a scope may be changed in a list.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_scope(&self, scope: &Scope, list: ListName) -> Result<(), MissingRight> {
        if !self.allow.iter().any(|grant| grant.holds(scope)) {
            return Err(MissingRight::Allow(scope.clone()));
        }
        self.check_list(list)
    }

    /// Whether what a list has in a scope may go with the whole list. Who does not see the list is not told
    /// of the scope.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_part(&self, scope: &Scope, list: ListName) -> Result<(), MissingRight> {
        match self.check_scope(scope, list) {
            Err(MissingRight::Allow(_)) if !self.sees(list) => Err(MissingRight::Whole(list)),
            checked => checked,
        }
    }

    /// Whether a list may be changed.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_list(&self, list: ListName) -> Result<(), MissingRight> {
        if self.lists.admits(list) { Ok(()) } else { Err(MissingRight::List(list)) }
    }

    /// Whether every list may be changed.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_all_lists(&self) -> Result<(), MissingRight> {
        if self.lists.are_all() { Ok(()) } else { Err(MissingRight::AllLists) }
    }

    /// Whether a rule may be changed in a list.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_rule(&self, rule: &Rule, list: ListName) -> Result<(), MissingRight> {
        self.check_scope(rule.scope(), list)?;
        rule.networks().try_for_each(|network| self.check_width(network))
    }

    /// Whether a network is not too wide.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_width(&self, network: &Network) -> Result<(), MissingRight> {
        let Some(MaskMin { v4, v6 }) = self.mask_min else { return Ok(()) };
        let shortest = match network.family() {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        if network.prefix() < shortest { Err(MissingRight::Mask(*network, shortest)) } else { Ok(()) }
    }

    /// Whether an address may stay that long.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_time(&self, interval: Interval) -> Result<(), MissingRight> {
        match self.expire_max {
            Some(longest) if interval.seconds() == 0 => Err(MissingRight::NoEnd(longest)),
            Some(longest) if interval > longest => Err(MissingRight::Expire(interval, longest)),
            _ => Ok(()),
        }
    }

    /// Whether its lists may have that many entries.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_entries(&self, entries: usize) -> Result<(), MissingRight> {
        match self.entries_max {
            Some(most) if entries > most => Err(MissingRight::Entries(most)),
            _ => Ok(()),
        }
    }

    /// Whether it may see anything; of a list that is asked for by name, whether it may see that one.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_read(&self, list: Option<ListName>) -> Result<(), MissingRight> {
        match (self.read, list) {
            (Read::None, _) => Err(MissingRight::Read),
            (Read::Own, Some(list)) if !self.lists.admits(list) => Err(MissingRight::ReadList(list)),
            _ => Ok(()),
        }
    }

    /// Whether it may see every list.
    ///
    /// # Errors
    /// The right that is missing.
    pub(crate) fn check_read_all(&self) -> Result<(), MissingRight> {
        if self.read == Read::All { Ok(()) } else { Err(MissingRight::ReadAll) }
    }

    /// Whether it may see what is in a list.
    pub(crate) fn sees(&self, list: ListName) -> bool {
        match self.read {
            Read::All => true,
            Read::Own => self.lists.admits(list),
            Read::None => false,
        }
    }

    /// The lists that it may see, where they are not all.
    pub(crate) fn visible(&self) -> Option<Lists> {
        match self.read {
            Read::All => None,
            Read::Own => Some(self.lists.clone()),
            Read::None => Some(Lists(Vec::new())),
        }
    }

    /// Whether it may change every scope, in which case scopes need not be looked at one by one.
    pub(crate) fn are_of_every_scope(&self) -> bool {
        let all = |grant: &Grant| {
            grant.targets == Choice::All && grant.chains == Choice::All && grant.interfaces == Choice::All
        };
        self.allow.iter().any(all)
    }

    /// Whether it may change every rule in every list, in which case none needs to be looked at.
    pub(crate) fn are_of_every_rule(&self) -> bool {
        self.are_of_every_scope() && self.lists.are_all() && self.mask_min.is_none()
    }
}

impl Grant {
    /// Parses three words: targets, chains and interfaces, each a comma list or `*`.
    ///
    /// # Errors
    /// Another number of words, or a word that is none.
    pub(crate) fn parse(text: &str) -> Result<Grant, RightsError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [targets, chains, interfaces] = words.as_slice() else {
            return Err(RightsError::Grant(text.to_owned()));
        };
        let interface = |word: &str| match word.eq_ignore_ascii_case("any") {
            true => Some(None),
            false => word.parse().ok().map(Some),
        };
        Ok(Grant {
            targets: choice(targets, Target::parse, "drop, accept or reject")?,
            chains: choice(chains, Chain::parse, "input, output or forward")?,
            interfaces: choice(interfaces, interface, "an interface or any")?,
        })
    }

    /// Whether a scope is one of those. In FORWARD an interface of the far side has to be one of them too,
    /// where there is one.
    fn holds(&self, scope: &Scope) -> bool {
        let (input, output) = (scope.input_interface().cloned(), scope.output_interface().cloned());
        let interfaces = match scope.chain() {
            Chain::Input => self.interfaces.has(&input),
            Chain::Output => self.interfaces.has(&output),
            Chain::Forward => {
                self.interfaces.has(&input) && (output.is_none() || self.interfaces.has(&output))
            }
        };
        self.targets.has(&scope.target()) && self.chains.has(&scope.chain()) && interfaces
    }
}

impl fmt::Display for Grant {
    /// As it stands in `rfw.conf`: `drop,reject input any`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = |interface: &Option<Interface>| {
            interface.as_ref().map_or("any".to_owned(), |interface| interface.name().to_owned())
        };
        let targets = self.targets.words(|target| target.word().to_owned());
        let chains = self.chains.words(|chain| chain.word().to_owned());
        write!(f, "{targets} {chains} {}", self.interfaces.words(interface))
    }
}

impl<T: PartialEq> Choice<T> {
    fn has(&self, one: &T) -> bool {
        match self {
            Choice::All => true,
            Choice::Some(some) => some.contains(one),
        }
    }

    fn words(&self, word: impl Fn(&T) -> String) -> String {
        match self {
            Choice::All => "*".to_owned(),
            Choice::Some(some) => some.iter().map(word).collect::<Vec<_>>().join(","),
        }
    }
}

fn choice<T>(
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Choice<T>, RightsError> {
    if text == "*" {
        return Ok(Choice::All);
    }
    let one = |word: &str| parse(word).ok_or_else(|| RightsError::Word(word.to_owned(), expected));
    text.split(',').map(one).collect::<Result<_, _>>().map(Choice::Some)
}

impl Lists {
    /// Every list, the unnamed one too.
    pub(crate) fn all() -> Lists {
        Lists(vec![ListPattern::Prefix(String::new())])
    }

    /// Parses a comma list of names: `-` is the unnamed list, and a `*` at the end of one stands for any
    /// further characters.
    ///
    /// # Errors
    /// A word that is no name, or no beginning of one.
    pub(crate) fn parse(text: &str) -> Result<Lists, RightsError> {
        let pattern = |word: &str| match word.strip_suffix('*') {
            Some("") => Ok(ListPattern::Prefix(String::new())),
            // What names may begin with is itself a name.
            Some(start) => start.parse().map(|name: ListName| ListPattern::Prefix(name.as_str().to_owned())),
            None if word == "-" => Ok(ListPattern::Name(ListName::UNNAMED)),
            None => word.parse().map(ListPattern::Name),
        };
        text.split(',')
            .map(|word| pattern(word.trim()).map_err(RightsError::List))
            .collect::<Result<_, _>>()
            .map(Lists)
    }

    /// Whether a list is one of them.
    pub(crate) fn admits(&self, list: ListName) -> bool {
        self.0.iter().any(|pattern| match pattern {
            ListPattern::Name(name) => *name == list,
            ListPattern::Prefix(start) if start.is_empty() => true,
            ListPattern::Prefix(start) => list.as_str().starts_with(start),
        })
    }

    /// Whether it is every list.
    fn are_all(&self) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, ListPattern::Prefix(start) if start.is_empty()))
    }
}

impl fmt::Display for Lists {
    /// As it stands in `rfw.conf`: `honeypot,feed-*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |pattern: &ListPattern| match pattern {
            ListPattern::Name(name) => name.word().to_owned(),
            ListPattern::Prefix(start) => format!("{start}*"),
        };
        f.write_str(&self.0.iter().map(word).collect::<Vec<_>>().join(","))
    }
}

impl MaskMin {
    /// Parses two prefix lengths, that of IPv4 first.
    ///
    /// # Errors
    /// Another number of words, or a number that is no prefix length.
    pub(crate) fn parse(text: &str) -> Result<MaskMin, RightsError> {
        let error = || RightsError::MaskMin(text.to_owned());
        let number = |word: &str, most: u8| {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            word.parse().ok().filter(|bits: &u8| digits && *bits <= most)
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [v4, v6] = words.as_slice() else { return Err(error()) };
        Ok(MaskMin { v4: number(v4, 32).ok_or_else(error)?, v6: number(v6, 128).ok_or_else(error)? })
    }
}

impl fmt::Display for MaskMin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.v4, self.v6)
    }
}

impl Read {
    /// Parses `own`, `all` or `none`.
    ///
    /// # Errors
    /// Another word.
    pub(crate) fn parse(text: &str) -> Result<Read, RightsError> {
        let all = [Read::Own, Read::All, Read::None];
        let found = all.into_iter().find(|read| read.word() == text);
        found.ok_or_else(|| RightsError::Word(text.to_owned(), "own, all or none"))
    }

    /// The word in `rfw.conf`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Read::Own => "own",
            Read::All => "all",
            Read::None => "none",
        }
    }
}

/// A right that a client lacks, with the option that would give it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MissingRight {
    /// To change anything.
    #[error("no right to change anything (allow)")]
    Any,
    /// To change rules of this scope.
    #[error("no right to change {0} (allow)")]
    Allow(Scope),
    /// To change all that a list has.
    #[error("no right to change all of the list {word} (allow)", word = .0.word())]
    Whole(ListName),
    /// To change all that every list has; which one has more than may be changed is not told.
    #[error("no right to change all of every list (allow)")]
    WholeOfAll,
    /// To change a list.
    #[error("no right to change the list {word} (lists)", word = .0.word())]
    List(ListName),
    /// To change all lists.
    #[error("no right to change all lists (lists)")]
    AllLists,
    /// To have an address without an end; the longest time.
    #[error("no right to change without an end: expected expire={0} or less (expire.max)")]
    NoEnd(Interval),
    /// To have an address that long; the longest time.
    #[error("no right to expire={0}: expected expire={1} or less (expire.max)")]
    Expire(Interval, Interval),
    /// To name a network that wide; the shortest prefix.
    #[error("no right to change {0}: expected /{1} or longer (mask.min)")]
    Mask(Network, u8),
    /// To have more entries than these.
    #[error("no right to more than {0} entries in all its lists (entries.max)")]
    Entries(usize),
    /// To see anything.
    #[error("no right to see lists (read)")]
    Read,
    /// To see all lists.
    #[error("no right to see all lists (read)")]
    ReadAll,
    /// To see a list.
    #[error("no right to see the list {word} (read)", word = .0.word())]
    ReadList(ListName),
}

/// Why the text of a right is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RightsError {
    /// Not three words.
    #[error("\"{}\": expected targets, chains and interfaces, each a comma list or *", .0.escape_debug())]
    Grant(String),
    /// A word that is not one of those expected.
    #[error("\"{word}\": expected {1}", word = .0.escape_debug())]
    Word(String, &'static str),
    /// Not the name of a list, nor how one begins.
    #[error(transparent)]
    List(ListNameError),
    /// Not two prefix lengths.
    #[error("\"{}\": expected two numbers of bits, as 24 48 for IPv4 and IPv6", .0.escape_debug())]
    MaskMin(String),
}

#[cfg(test)]
mod tests;
