//! The identity of an IP set of rfw: family, scope, side, and which list it holds, or the union of
//! all lists. The name of the set in the kernel follows from it alone, so that a restarted rfw
//! finds its sets again.

use crate::rule::list_name::ListName;
use crate::rule::network::Family;
use crate::rule::{Chain, Interface, Rule, Scope, Target};

/// The longest name of a set in bytes: `IPSET_MAXNAMELEN` of
/// linux/netfilter/ipset/ip_set.h without the NUL.
const NAME_MAX: usize = 31;

/// The addresses of a packet that are looked up in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// Source and destination address, as a pair.
    Both,
}

impl Side {
    /// The flags of `--match-set` (iptables-extensions(8)).
    pub(crate) fn direction(self) -> &'static str {
        match self {
            Side::Source => "src",
            Side::Destination => "dst",
            Side::Both => "src,dst",
        }
    }

    /// Parses the flags of `--match-set`.
    pub(crate) fn from_direction(text: &str) -> Option<Side> {
        [Side::Source, Side::Destination, Side::Both].into_iter().find(|side| side.direction() == text)
    }
}

/// The key of a set: all rules of one family and scope that have the same sides are entries of one
/// set, the union, which a rule looks packets up in. Where there are named lists, each list has a set
/// beside it, which no rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetKey {
    family: Family,
    scope: Scope,
    side: Side,
    /// The list that it holds; `None` is the union.
    list: Option<ListName>,
}

impl SetKey {
    /// The key of the union of a family, scope and side.
    pub(crate) fn new(family: Family, scope: Scope, side: Side) -> SetKey {
        SetKey { family, scope, side, list: None }
    }

    /// The key of the set of a list beside this union.
    pub(crate) fn with_list(&self, list: ListName) -> SetKey {
        SetKey { list: Some(list), ..self.clone() }
    }

    /// The key of the union that this list is a part of.
    pub(crate) fn union(&self) -> SetKey {
        SetKey { list: None, ..self.clone() }
    }

    /// The list that it holds; `None` is the union of all.
    pub(crate) fn list(&self) -> Option<ListName> {
        self.list
    }

    /// The key of the union that holds a rule as an entry.
    pub(crate) fn of(rule: &Rule) -> SetKey {
        let side = match (rule.source(), rule.destination()) {
            (Some(_), Some(_)) => Side::Both,
            (_, Some(_)) => Side::Destination,
            (_, None) => Side::Source,
        };
        SetKey::new(rule.family(), rule.scope().clone(), side)
    }

    /// The family of its addresses.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The scope of its rules.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The addresses of a packet that are looked up in it.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The name of the set: `rfw4-` or `rfw6-`, the initials of chain, target and side
    /// (source, destination, both), `-` with the interfaces, and `/` with the list (`-` for the
    /// unnamed one). Where that exceeds 31 bytes, a hash stands for what follows the initials. A set
    /// outlives rfw, so this format is stable.
    pub(crate) fn name(&self) -> String {
        let letter = |word: &str| word.chars().next().unwrap_or('-').to_ascii_lowercase();
        let family = if self.family == Family::V4 { 4 } else { 6 };
        let (chain, target) = (letter(self.scope.chain().name()), letter(self.scope.target().name()));
        let side = match self.side {
            Side::Source => 's',
            Side::Destination => 'd',
            Side::Both => 'b',
        };
        let interface =
            |interface: Option<&Interface>| interface.map_or_else(String::new, Interface::pattern);
        let input = interface(self.scope.input_interface());
        let output = interface(self.scope.output_interface());
        let interfaces = match self.scope.chain() {
            Chain::Input => input,
            Chain::Output => output,
            Chain::Forward if output.is_empty() => input,
            // `Interface` does not allow a comma, so that the two can be told apart.
            Chain::Forward => format!("{input},{output}"),
        };
        let start = format!("rfw{family}-{chain}{target}{side}");
        // Neither an interface nor a list has a slash in its name.
        let list = self.list.map_or_else(String::new, |list| format!("/{}", list.word()));
        let dash = if interfaces.is_empty() { "" } else { "-" };
        let name = format!("{start}{dash}{interfaces}{list}");
        match name.len() <= NAME_MAX {
            true => name,
            false => format!("{start}-{:016x}", fnv(format!("{interfaces}{list}").as_bytes())),
        }
    }

    /// The key of the set of that name; `None` if it is not a name that rfw uses, or has a
    /// hash in place of interfaces and list.
    pub(crate) fn named(name: &str) -> Option<SetKey> {
        let (union, list) = name.split_once('/').map_or((name, None), |(union, list)| (union, Some(list)));
        let list = match list {
            Some(word) => Some(ListName::from_word(word)?),
            None => None,
        };
        let set = SetKey { list, ..SetKey::union_named(union)? };
        (set.name() == name).then_some(set)
    }

    fn union_named(name: &str) -> Option<SetKey> {
        let mut letters = name.strip_prefix("rfw")?.chars();
        let family = match letters.next()? {
            '4' => Family::V4,
            '6' => Family::V6,
            _ => return None,
        };
        letters.next().filter(|dash| *dash == '-')?;
        let chain = match letters.next()? {
            'i' => Chain::Input,
            'f' => Chain::Forward,
            'o' => Chain::Output,
            _ => return None,
        };
        let target = match letters.next()? {
            'a' => Target::Accept,
            'r' => Target::Reject,
            'd' => Target::Drop,
            _ => return None,
        };
        let side = match letters.next()? {
            's' if chain != Chain::Output => Side::Source,
            'd' if chain != Chain::Input => Side::Destination,
            'b' if chain == Chain::Forward => Side::Both,
            _ => return None,
        };
        let interfaces = letters.as_str().strip_prefix('-').unwrap_or_default();
        let (first, second) = interfaces.split_once(',').unwrap_or((interfaces, ""));
        let interface = |pattern: &str| match pattern {
            "" => Some(None),
            _ => Interface::from_pattern(pattern).map(Some),
        };
        let (first, second) = (interface(first)?, interface(second)?);
        let scope = match chain {
            Chain::Input | Chain::Forward => Scope::new(target, chain, first, second),
            Chain::Output => Scope::new(target, chain, second, first),
        };
        let set = SetKey::new(family, scope.ok()?, side);
        (set.name() == name).then_some(set)
    }
}

/// Descriptions, which the registry has as comments: they tell also what a hash in the name hides.
impl SetKey {
    /// Family (as ipset(8) names it), target, chain, input and output interface, the flags of
    /// `--match-set`, and of a list `list` and its name: `inet drop forward ppp+ eth0 src,dst list tor`.
    pub(crate) fn description(&self) -> String {
        let family = if self.family == Family::V4 { "inet" } else { "inet6" };
        let interface =
            |interface: Option<&Interface>| interface.map_or_else(|| "any".to_owned(), Interface::pattern);
        let list = self.list.map_or_else(String::new, |list| format!(" list {}", list.word()));
        format!(
            "{family} {} {} {} {} {}{list}",
            self.scope.target().name().to_ascii_lowercase(),
            self.scope.chain().name().to_ascii_lowercase(),
            interface(self.scope.input_interface()),
            interface(self.scope.output_interface()),
            self.side.direction()
        )
    }

    /// Parses exactly what [`SetKey::description`] gives.
    pub(crate) fn described(text: &str) -> Option<SetKey> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let family = match next()? {
            "inet" => Family::V4,
            "inet6" => Family::V6,
            _ => return None,
        };
        let (target, chain) = (Target::parse(next()?)?, Chain::parse(next()?)?);
        let interface = |pattern: &str| match pattern {
            "any" => Some(None),
            _ => Interface::from_pattern(pattern).map(Some),
        };
        let (input, output) = (interface(next()?)?, interface(next()?)?);
        let side = Side::from_direction(next()?)?;
        let list = match next() {
            Some("list") => Some(ListName::from_word(next()?)?),
            Some(_) => return None,
            None => None,
        };
        let set = SetKey::new(family, Scope::new(target, chain, input, output).ok()?, side);
        let set = SetKey { list, ..set };
        let name = set.name();
        let is_possible = is_hashed_name(&name) || SetKey::named(&name).as_ref() == Some(&set);
        (is_possible && set.description() == text).then_some(set)
    }
}

/// The name of a set in which a process of rfw prepares a new state, to be swapped in whole; the
/// index tells several apart. A tool that outlives its rfw can't work in the set of the next one.
pub(crate) fn work_name(process: u32, index: usize) -> String {
    match index {
        0 => format!("rfw-work-{process}"),
        index => format!("rfw-work-{process}-{index}"),
    }
}

/// Whether it is the name of a set in which some process of rfw prepares, or prepared,
/// a new state.
pub(crate) fn is_work_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("rfw-work-") else { return false };
    let (process, index) = rest.split_once('-').unwrap_or((rest, "0"));
    match (process.parse(), index.parse()) {
        (Ok(process), Ok(index)) => work_name(process, index) == name,
        _ => false,
    }
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a name has the form of one with a hash in place of interfaces and list.
pub(crate) fn is_hashed_name(name: &str) -> bool {
    let Some((start, hash)) = name.split_at_checked("rfw4-ids-".len()) else { return false };
    let Some(start) = start.strip_suffix('-') else { return false };
    SetKey::named(start).is_some() && hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
