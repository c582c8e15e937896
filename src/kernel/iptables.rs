//! The format of iptables-save(8) and iptables-restore(8): one rule per line. Parsing and
//! formatting only, no I/O.
//!
//! A rule is rfw's if its comment is one that rfw writes and every other option is one
//! that rfw would write with it. A rule with any other option, or one more, is foreign and
//! is never changed.

use crate::kernel::Counters;
use crate::kernel::guard::Guard;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::label::Label;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Interface, Rule, Scope, Target};
use std::fmt::Write;

/// The comment of the rules that look packets up in a set of rfw.
const SET: &str = "rfw set";

/// A rule of the kernel's table, as `iptables-save -c` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The name of its chain.
    pub chain: String,
    /// Its packet and byte counters.
    pub counters: Counters,
    /// Whether it is rfw's, and what it stands for.
    pub owner: Owner,
}

/// The owner of a rule, with its meaning if that is rfw.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A rule that a request has inserted.
    Rfw(Rule, Label),
    /// A rule that looks packets up in a set of rfw.
    Set(SetKey),
    /// A guard rule of rfw's port.
    Guard(Guard),
    /// A foreign rule.
    Other,
}

/// Parses one line of `iptables-save -c -t filter`; `None` if it is not a rule.
pub(crate) fn parse(line: &str, family: Family) -> Option<Line> {
    let (counters, rest) = parse_counters(line)?;
    let specification = rest.strip_prefix("-A ")?;
    let words = split(specification)?;
    let chain = words.first()?.clone();
    let owner = parse_own(&words, family).or_else(|| Guard::parse(&words, family).map(Owner::Guard));
    let owner = owner.unwrap_or(Owner::Other);
    Some(Line { chain, counters, owner })
}

/// Parses `[packets:bytes] rest`; without brackets both are zero.
fn parse_counters(line: &str) -> Option<(Counters, &str)> {
    let Some(inner) = line.strip_prefix('[') else { return Some((Counters::default(), line)) };
    let (numbers, rest) = inner.split_once("] ")?;
    let (packets, bytes) = numbers.split_once(':')?;
    Some((Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? }, rest))
}

/// Splits a line into words; a word that begins with a double quote has `\` before what
/// it escapes. Nothing if such a quote is not closed: iptables-save prints line breaks of
/// a comment as they are.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
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

/// Parses a rule that a request has inserted, or the rule of a set.
fn parse_own(words: &[String], family: Family) -> Option<Owner> {
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
        let scope = Scope::new(target, chain, self.input, self.output).ok()?;
        match self.set {
            _ if self.reject_with != reject_with => None,
            None => {
                let rule = Rule::new(scope, self.source, self.destination).ok()?;
                let label = Label::from_comment(self.comment?)?;
                (rule.family() == family).then_some(Owner::Rfw(rule, label))
            }
            Some((name, side)) => {
                let set = SetKey::new(family, scope, side);
                let ours = self.comment == Some(SET) && set.name() == name;
                (ours && self.source.is_none() && self.destination.is_none()).then_some(Owner::Set(set))
            }
        }
    }
}

/// Stores the value of an option; `None` if the option is repeated.
fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// The default of `--reject-with`, which iptables-save prints (iptables-extensions(8)).
fn reject_with(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    }
}

/// Changes of the filter table that the kernel commits atomically.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transaction(Vec<Change>);

/// One change of the filter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Inserts a rule into its chain at that rule number, from 1.
    Insert(Rule, Label, usize),
    /// Deletes a rule.
    Delete(Rule, Label),
    /// Inserts the rule of a set into its chain at that rule number, from 1.
    InsertSet(SetKey, usize),
    /// Deletes the rule of a set.
    DeleteSet(SetKey),
    /// Fails if the rule of a set does not exist.
    CheckSet(SetKey),
    /// Inserts a guard rule at the head of its chain.
    InsertGuard(Guard),
    /// Deletes a guard rule.
    DeleteGuard(Guard),
}

impl Transaction {
    /// Inserts a rule into its chain at that rule number; 1 is the head of the chain.
    pub(crate) fn insert(&mut self, rule: &Rule, label: &Label, number: usize) {
        self.0.push(Change::Insert(rule.clone(), label.clone(), number));
    }

    /// Inserts the rule of a set into its chain at that rule number.
    pub(crate) fn insert_set(&mut self, set: &SetKey, number: usize) {
        self.0.push(Change::InsertSet(set.clone(), number));
    }

    /// Deletes the rule of a set.
    pub(crate) fn delete_set(&mut self, set: &SetKey) {
        self.0.push(Change::DeleteSet(set.clone()));
    }

    /// Makes the transaction fail if the rule of a set does not exist (`-C`).
    pub(crate) fn check_set(&mut self, set: &SetKey) {
        self.0.push(Change::CheckSet(set.clone()));
    }

    /// Deletes a rule.
    pub(crate) fn delete(&mut self, rule: &Rule, label: &Label) {
        self.0.push(Change::Delete(rule.clone(), label.clone()));
    }

    /// Deletes a guard rule.
    pub(crate) fn delete_guard(&mut self, guard: Guard) {
        self.0.push(Change::DeleteGuard(guard));
    }

    /// Inserts guard rules at the head of their chains, one after the other: the last one
    /// given becomes the first of its chain.
    pub(crate) fn insert_guards(&mut self, guards: &[Guard]) {
        self.0.extend(guards.iter().copied().map(Change::InsertGuard));
    }

    /// Leaves out all but the first `most` changes.
    pub(crate) fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// The changes, in the order in which they are made.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.0
    }

    /// The input of iptables-restore(8).
    pub(crate) fn script(&self) -> String {
        let mut script = "*filter\n".to_owned();
        for change in &self.0 {
            // Writing to a `String` is infallible.
            let _ = match change {
                Change::Insert(rule, label, number) => {
                    writeln!(script, "-I {}", numbered(&specification(rule, label), *number))
                }
                Change::Delete(rule, label) => writeln!(script, "-D {}", specification(rule, label)),
                Change::InsertSet(set, number) => {
                    writeln!(script, "-I {}", numbered(&set_specification(set), *number))
                }
                Change::DeleteSet(set) => writeln!(script, "-D {}", set_specification(set)),
                Change::CheckSet(set) => writeln!(script, "-C {}", set_specification(set)),
                Change::InsertGuard(guard) => writeln!(script, "-I {guard}"),
                Change::DeleteGuard(guard) => writeln!(script, "-D {guard}"),
            };
        }
        script + "COMMIT\n"
    }
}

/// The specification of a rule with its label. iptables-save prints the same, but a
/// single address with its mask, REJECT with `--reject-with`, and `'` as `\'`.
fn specification(rule: &Rule, label: &Label) -> String {
    let networks = [("-s", rule.source()), ("-d", rule.destination())];
    let networks = networks.into_iter().filter_map(|(flag, network)| Some(format!(" {flag} {}", network?)));
    in_scope(rule.scope(), &networks.collect::<String>(), &escaped(&label.to_string()))
}

/// A text as iptables-restore(8) reads it within double quotes, which no comment of rfw contains.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// The specification of the rule that looks packets up in a set.
fn set_specification(set: &SetKey) -> String {
    let matches = format!(" -m set --match-set {} {}", set.name(), set.side().direction());
    in_scope(set.scope(), &matches, SET)
}

fn in_scope(scope: &Scope, matches: &str, comment: &str) -> String {
    let interfaces = [("-i", scope.input_interface()), ("-o", scope.output_interface())];
    let interfaces = interfaces
        .into_iter()
        .filter_map(|(flag, interface)| Some(format!(" {flag} {}", interface?.pattern())));
    let interfaces: String = interfaces.collect();
    let (chain, target) = (scope.chain().name(), scope.target().name());
    format!("{chain}{matches}{interfaces} -m comment --comment \"{comment}\" -j {target}")
}

/// A specification with a rule number after the chain; 1, the default of `-I`, is left out.
fn numbered(specification: &str, number: usize) -> String {
    match specification.split_once(' ') {
        Some((chain, rest)) if number > 1 => format!("{chain} {number} {rest}"),
        _ => specification.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;
    use crate::rule::lease::Interval;
    use crate::rule::list_name::ListName;
    use crate::rule::note::{Note, Reason};
    use proptest::prelude::*;

    fn read(line: &str, family: Family) -> String {
        match parse(line, family) {
            None => "none".to_owned(),
            Some(Line { chain, counters, owner }) => {
                let Counters { packets, bytes } = counters;
                match owner {
                    Owner::Rfw(rule, label) => format!("{packets}:{bytes} {rule}, {label}"),
                    Owner::Set(set) => format!("{packets}:{bytes} set {}", set.name()),
                    Owner::Guard(text) => format!("guard {text}"),
                    Owner::Other => format!("other in {chain}"),
                }
            }
        }
    }

    #[test]
    fn lines_of_iptables_save_are_read() {
        for (at, [line, expected]) in cases("iptables-save.txt") {
            assert_eq!(read(&line, Family::V4), expected, "{at}");
        }
        assert_eq!(read("", Family::V4), "none");
        let line = "[0:0] -A INPUT -s 2001:db8::/48 -m comment --comment \"rfw permanent\" -j REJECT --reject-with icmp6-port-unreachable";
        assert_eq!(read(line, Family::V6), "0:0 INPUT -s 2001:db8::/48 -j REJECT, rfw permanent");
    }

    #[test]
    fn a_transaction_is_a_script_of_iptables_restore() {
        let rule = Scope::input(Target::Drop, None).rule("11.22.33.44".parse().unwrap()).unwrap();
        let set = SetKey::of(&rule);
        let mut transaction = Transaction::default();
        assert!(transaction.changes().is_empty());
        let label = |comment: &str| Label::from_comment(comment).unwrap();
        let permanent = label("rfw permanent");
        transaction.delete(&rule, &permanent);
        transaction.insert(&rule, &label("rfw until 2026-11-22T10:05:00Z"), 1);
        transaction.insert(&rule, &label("rfw permanent list tor by me: it's \\"), 3);
        transaction.insert_set(&set, 2);
        transaction.check_set(&set);
        transaction.delete_set(&set);
        let guards = Guard::all(7393, ["10.0.0.0/8".parse().unwrap()].iter());
        transaction.insert_guards(&guards);
        transaction.delete_guard(guards[0]);
        let mut first = transaction.clone();
        first.truncate(1);
        assert_eq!(first.changes(), [Change::Delete(rule, permanent)]);
        assert_eq!(
            transaction.script(),
            "*filter\n\
             -D INPUT -s 11.22.33.44 -m comment --comment \"rfw permanent\" -j DROP\n\
             -I INPUT -s 11.22.33.44 -m comment --comment \"rfw until 2026-11-22T10:05:00Z\" -j DROP\n\
             -I INPUT 3 -s 11.22.33.44 -m comment --comment \"rfw permanent list tor by me: it's \\\\\" -j DROP\n\
             -I INPUT 2 -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -C INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -D INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
             -I INPUT -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
             -I OUTPUT -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
             -I INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
             -I OUTPUT -d 10.0.0.0/8 -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
             -D INPUT -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
             COMMIT\n"
        );
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let network = |v4: bool| {
            (any::<u128>(), 9u8..=32).prop_map(move |(bits, prefix)| match v4 {
                true => Network::new(
                    std::net::Ipv4Addr::from_bits((bits % (1 << 32)).try_into().unwrap_or(0u32)).into(),
                    prefix,
                )
                .unwrap(),
                false => Network::host(std::net::Ipv6Addr::from_bits(bits | 1 << 127).into()),
            })
        };
        let interface = || {
            let name = "[a-zA-Z][a-zA-Z0-9._@:]{3,13}";
            // Such a name may be an address, as B6:: is.
            proptest::option::of(name.prop_filter_map("a name", |text| text.parse::<Interface>().ok()))
        };
        let target = prop_oneof![Just(Target::Accept), Just(Target::Drop), Just(Target::Reject)];
        let networks =
            any::<bool>().prop_flat_map(move |v4| (network(v4), proptest::option::of(network(v4))));
        (target, networks, interface(), interface(), 0..3).prop_filter_map(
            "unspecified address",
            |(target, (a, b), i, o, chain)| match chain {
                0 => Scope::input(target, i).rule(a).ok(),
                1 => Scope::output(target, o).rule(a).ok(),
                _ => Rule::new(Scope::forward(target, i, o), b, Some(a)).ok(),
            },
        )
    }

    #[test]
    fn any_other_rule_is_not_a_guard() {
        for (at, [line, owner]) in cases("guards.txt") {
            let chain = line.split(' ').next().unwrap();
            let expected = match owner.as_str() {
                "guard" => format!("guard {line}"),
                _ => format!("other in {chain}"),
            };
            assert_eq!(read(&format!("-A {line}"), Family::V4), expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_printed_and_read_again_is_itself(
            rule in rules(),
            seconds in 0u64..4_000_000_000,
            list in proptest::option::of("[a-z0-9][a-z0-9._-]{0,15}"),
            given in proptest::option::of(("\\PC{0,90}", "[\\\\' a-z]{0,40}\\PC*")),
        ) {
            let note = |(by, reason): (String, String)| Some(Box::new(Note::new(&by, Reason::cut(&reason)?)));
            let label = Label {
                lease: Interval::parse(&format!("{}", seconds % 1_000_000)).unwrap()
                    .from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)),
                list: list.map_or(ListName::UNNAMED, |name| name.parse().unwrap()),
                note: given.and_then(note),
            };
            let mut line = format!("-A {}", specification(&rule, &label));
            if rule.scope().target() == Target::Reject {
                line = format!("{line} --reject-with {}", reject_with(rule.family()));
            }
            prop_assert_eq!(parse(&line, rule.family()).map(|line| line.owner), Some(Owner::Rfw(rule.clone(), label.clone())));
            // As iptables-save prints it.
            let line = line.replace('\'', "\\'");
            prop_assert_eq!(parse(&line, rule.family()).map(|line| line.owner), Some(Owner::Rfw(rule, label)));
        }

        #[test]
        fn no_line_panics(line in "\\PC*", tail in "[-a-z\" \\\\0-9./]{0,60}") {
            let _ = parse(&line, Family::V4);
            let _ = parse(&format!("[0:0] -A INPUT {tail}"), Family::V6);
        }
    }
}
