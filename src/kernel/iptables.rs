//! The format of iptables-save(8) and iptables-restore(8): one rule per line. Parsing and
//! formatting only, no I/O.
//!
//! A rule is rfw's if its comment is one that rfw writes and every other option is one
//! that rfw would write with it. A rule with any other option, or one more, is foreign and
//! is never changed.
//!
//! In the table `raw`, DROP in the chain of rfw is a drop of INPUT, and RETURN the exception that goes
//! with an accept of INPUT.

use crate::kernel::Counters;
use crate::kernel::guard::Guard;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::label::Label;
use crate::rule::layout::{ChainName, KernelChain, Layout, RAW_CHAIN, TableName};
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Interface, Rule, Scope, Target};
use std::fmt::Write;

/// The comment of the rules that look packets up in a set of rfw.
pub(crate) const SET: &str = "rfw set";

/// The comment of the rule that jumps to the chain of rfw in the table `raw`.
const JUMP: &str = "rfw";

/// What is read, and where in it rules of rfw may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The table.
    pub table: TableName,
    /// The chain beside FORWARD that may hold rules of `forward`; `None` is any.
    pub forward: Option<ChainName>,
}

impl Reading {
    /// The chain that a rule of rfw in a chain of the kernel is for.
    fn chain_of(&self, name: &str) -> Option<Chain> {
        match KernelChain::named(self.table, name)? {
            KernelChain::Input | KernelChain::Raw => Some(Chain::Input),
            KernelChain::Output => Some(Chain::Output),
            KernelChain::Forward(chain) => {
                let is_expected = self.forward.as_ref().is_none_or(|expected| *expected == chain);
                (is_expected || chain.is_builtin()).then_some(Chain::Forward)
            }
            KernelChain::Prerouting => None,
        }
    }
}

impl Default for Reading {
    /// The table `filter`, in its own chains.
    fn default() -> Reading {
        Reading { table: TableName::Filter, forward: Some(ChainName::forward()) }
    }
}

/// A rule of the kernel's table, as `iptables-save -c` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The name of its chain.
    pub chain: String,
    /// Its packet and byte counters.
    pub counters: Counters,
    /// Whether it is rfw's, and what it stands for.
    pub owner: Owner,
    /// Of a foreign rule its target, or the chain that it jumps to; `None` if it only counts.
    pub target: Option<String>,
}

/// The owner of a rule, with its meaning if that is rfw.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A rule that a request has inserted.
    Rfw(Rule, Label),
    /// A rule that looks packets up in a set of rfw.
    Set(SetKey),
    /// The exception in the table `raw` that goes with a rule that accepts.
    Return(Rule, Label),
    /// The exception that goes with the rule of a set that accepts.
    ReturnSet(SetKey),
    /// The rule that jumps to the chain of rfw in the table `raw`.
    Jump,
    /// A guard rule of rfw's port.
    Guard(Guard),
    /// A foreign rule.
    Other,
}

/// Parses one line of `iptables-save -c -t TABLE`; `None` if it is not a rule.
pub(crate) fn parse(line: &str, family: Family, reading: &Reading) -> Option<Line> {
    let (counters, rest) = parse_counters(line)?;
    let specification = rest.strip_prefix("-A ")?;
    let words = split(specification)?;
    let chain = words.first()?.clone();
    let owner = parse_own(&words, family, reading).or_else(|| match reading.table {
        TableName::Filter => Guard::parse(&words, family).map(Owner::Guard),
        TableName::Raw => is_jump(&words).then_some(Owner::Jump),
    });
    let owner = owner.unwrap_or(Owner::Other);
    let target = if owner == Owner::Other { target_of(&words) } else { None };
    Some(Line { chain, counters, owner, target })
}

/// Whether a rule is the one that jumps to the chain of rfw in the table `raw`.
fn is_jump(words: &[String]) -> bool {
    let jump = ["PREROUTING", "-m", "comment", "--comment", JUMP, "-j", RAW_CHAIN];
    words.iter().map(String::as_str).eq(jump)
}

/// The target of a foreign rule, or the chain that it jumps or goes to.
fn target_of(words: &[String]) -> Option<String> {
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            // Its text may be anything.
            "--comment" => drop(words.next()),
            "-j" | "-g" => return words.next().map(str::to_owned),
            _ => {}
        }
    }
    None
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
fn parse_own(words: &[String], family: Family, reading: &Reading) -> Option<Owner> {
    let (chain, options) = words.split_first()?;
    let chain = reading.chain_of(chain)?;
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
            ("-j", value) => set(&mut found.target, target_in(reading.table, value)?)?,
            ("--reject-with", value) => set(&mut found.reject_with, value)?,
            _ => return None,
        }
    }
    let owner = found.owner(chain, family)?;
    Some(if reading.table == TableName::Raw { owner.in_raw() } else { owner })
}

/// What the target of a rule of rfw in that table stands for.
fn target_in(table: TableName, name: &str) -> Option<Target> {
    match (table, name) {
        (TableName::Filter, name) => Target::parse(name),
        (TableName::Raw, "DROP") => Some(Target::Drop),
        (TableName::Raw, "RETURN") => Some(Target::Accept),
        (TableName::Raw, _) => None,
    }
}

impl Owner {
    /// What stands in the table `raw` for a rule of INPUT: the exception, if that accepts.
    pub(crate) fn in_raw(self) -> Owner {
        let accepts = |scope: &Scope| scope.target() == Target::Accept;
        match self {
            Owner::Rfw(rule, label) if accepts(rule.scope()) => Owner::Return(rule, label),
            Owner::Set(set) if accepts(set.scope()) => Owner::ReturnSet(set),
            other => other,
        }
    }

    /// The scope of a rule or of the rule of a set, also of its exception.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        match self {
            Owner::Rfw(rule, _) | Owner::Return(rule, _) => Some(rule.scope()),
            Owner::Set(set) | Owner::ReturnSet(set) => Some(set.scope()),
            Owner::Jump | Owner::Guard(_) | Owner::Other => None,
        }
    }
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

/// Changes of the tables. The kernel commits those of one table atomically, and those of the other
/// before or after them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Where rules stand.
    layout: Layout,
    changes: Vec<Change>,
    /// Whether the table `filter` is changed before `raw`.
    filter_first: bool,
}

/// One change of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Inserts a rule into its chain at that rule number, from 1. An exception in the table `raw` comes
    /// to the head there.
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
    /// Puts one rule of the kernel into that chain at that number, whatever the layout says.
    Put(KernelChain, Owner, usize),
    /// Takes one rule of the kernel out of that chain.
    Take(KernelChain, Owner),
    /// Makes the chain of rfw in the table `raw`; fails if it exists.
    MakeChain,
    /// Deletes the chain of rfw in the table `raw`; fails if it has rules.
    DropChain,
}

impl Transaction {
    /// No changes yet, of tables where rules stand so.
    pub(crate) fn new(layout: Layout) -> Transaction {
        Transaction { layout, ..Transaction::default() }
    }

    /// Makes the table `filter` be changed before `raw`.
    pub(crate) fn filter_first(&mut self) {
        self.filter_first = true;
    }

    /// Inserts a rule into its chain at that rule number; 1 is the head of the chain.
    pub(crate) fn insert(&mut self, rule: &Rule, label: &Label, number: usize) {
        self.changes.push(Change::Insert(rule.clone(), label.clone(), number));
    }

    /// Inserts the rule of a set into its chain at that rule number.
    pub(crate) fn insert_set(&mut self, set: &SetKey, number: usize) {
        self.changes.push(Change::InsertSet(set.clone(), number));
    }

    /// Deletes the rule of a set.
    pub(crate) fn delete_set(&mut self, set: &SetKey) {
        self.changes.push(Change::DeleteSet(set.clone()));
    }

    /// Makes the transaction fail if the rule of a set does not exist (`-C`).
    pub(crate) fn check_set(&mut self, set: &SetKey) {
        self.changes.push(Change::CheckSet(set.clone()));
    }

    /// Deletes a rule.
    pub(crate) fn delete(&mut self, rule: &Rule, label: &Label) {
        self.changes.push(Change::Delete(rule.clone(), label.clone()));
    }

    /// Deletes a guard rule.
    pub(crate) fn delete_guard(&mut self, guard: Guard) {
        self.changes.push(Change::DeleteGuard(guard));
    }

    /// Inserts guard rules at the head of their chains, one after the other: the last one
    /// given becomes the first of its chain.
    pub(crate) fn insert_guards(&mut self, guards: &[Guard]) {
        self.changes.extend(guards.iter().copied().map(Change::InsertGuard));
    }

    /// Puts one rule of the kernel into a chain at that number.
    pub(crate) fn put(&mut self, chain: &KernelChain, owner: Owner, number: usize) {
        self.changes.push(Change::Put(chain.clone(), owner, number));
    }

    /// Takes one rule of the kernel out of a chain.
    pub(crate) fn take(&mut self, chain: &KernelChain, owner: Owner) {
        self.changes.push(Change::Take(chain.clone(), owner));
    }

    /// Makes the chain of rfw in the table `raw` before anything else.
    pub(crate) fn make_chain(&mut self) {
        self.changes.insert(0, Change::MakeChain);
    }

    /// Deletes the chain of rfw in the table `raw`.
    pub(crate) fn drop_chain(&mut self) {
        self.changes.push(Change::DropChain);
    }

    /// Leaves out all but the first `most` changes.
    pub(crate) fn truncate(&mut self, most: usize) {
        self.changes.truncate(most);
    }

    /// The changes, in the order in which they are made in a table.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The number of rules that go into the chain of rfw in the table `raw`, and out of it.
    pub(crate) fn in_raw(&self) -> (usize, usize) {
        let count =
            |is_put: bool| self.changes.iter().filter(|change| self.is_in_raw(change, is_put)).count();
        (count(true), count(false))
    }

    fn is_in_raw(&self, change: &Change, is_put: bool) -> bool {
        match change {
            Change::Insert(rule, ..) => is_put && self.layout.is_in_raw(rule.scope()),
            Change::InsertSet(set, _) => is_put && self.layout.is_in_raw(set.scope()),
            Change::Put(chain, ..) => is_put && *chain == KernelChain::Raw,
            Change::Delete(rule, _) => !is_put && self.layout.is_in_raw(rule.scope()),
            Change::DeleteSet(set) => !is_put && self.layout.is_in_raw(set.scope()),
            Change::Take(chain, _) => !is_put && *chain == KernelChain::Raw,
            Change::CheckSet(_)
            | Change::InsertGuard(_)
            | Change::DeleteGuard(_)
            | Change::MakeChain
            | Change::DropChain => false,
        }
    }

    /// The input of iptables-restore(8).
    pub(crate) fn script(&self) -> String {
        let all = self.lines();
        let order = match self.filter_first {
            true => [TableName::Filter, TableName::Raw],
            false => [TableName::Raw, TableName::Filter],
        };
        let mut script = String::new();
        for table in order {
            let mut lines = all.iter().filter(|(of, _)| *of == table).peekable();
            if lines.peek().is_some() {
                // Writing to a `String` is infallible.
                let _ = writeln!(script, "*{}", table.name());
                lines.for_each(|(_, line)| script.extend([line, "\n"]));
                script.push_str("COMMIT\n");
            }
        }
        script
    }

    /// The lines of all changes, each of its table.
    pub(crate) fn lines(&self) -> Vec<(TableName, String)> {
        let mut lines = Vec::new();
        for change in &self.changes {
            match change {
                Change::Insert(rule, label, number) => {
                    self.both(&mut lines, "-I", &Owner::Rfw(rule.clone(), label.clone()), *number);
                }
                Change::Delete(rule, label) => {
                    self.both(&mut lines, "-D", &Owner::Rfw(rule.clone(), label.clone()), 1);
                }
                Change::InsertSet(set, number) => {
                    self.both(&mut lines, "-I", &Owner::Set(set.clone()), *number);
                }
                Change::DeleteSet(set) => self.both(&mut lines, "-D", &Owner::Set(set.clone()), 1),
                Change::CheckSet(set) => self.both(&mut lines, "-C", &Owner::Set(set.clone()), 1),
                Change::InsertGuard(guard) => lines.push((TableName::Filter, format!("-I {guard}"))),
                Change::DeleteGuard(guard) => lines.push((TableName::Filter, format!("-D {guard}"))),
                Change::Put(chain, owner, number) => lines.push(line("-I", chain, owner, *number)),
                Change::Take(chain, owner) => lines.push(line("-D", chain, owner, 1)),
                Change::MakeChain => lines.push((TableName::Raw, format!("-N {RAW_CHAIN}"))),
                Change::DropChain => lines.push((TableName::Raw, format!("-X {RAW_CHAIN}"))),
            }
        }
        lines
    }

    /// The lines of a rule, or of the rule of a set, where the layout has it stand.
    fn both(&self, lines: &mut Vec<(TableName, String)>, command: &str, owner: &Owner, number: usize) {
        let Some(scope) = owner.scope() else { return };
        if self.layout.has_exception(scope) {
            lines.push(line(command, &KernelChain::Raw, &owner.clone().in_raw(), 1));
        }
        lines.push(line(command, &self.layout.chain(scope), owner, number));
    }
}

/// The line of a rule in a chain, with its table.
fn line(command: &str, chain: &KernelChain, owner: &Owner, number: usize) -> (TableName, String) {
    let specification = match owner {
        Owner::Rfw(rule, label) => specification(chain, rule.scope().target().name(), rule, label),
        Owner::Return(rule, label) => specification(chain, "RETURN", rule, label),
        Owner::Set(set) => set_specification(chain, set.scope().target().name(), set),
        Owner::ReturnSet(set) => set_specification(chain, "RETURN", set),
        Owner::Jump => format!("{} -m comment --comment \"{JUMP}\" -j {RAW_CHAIN}", chain.name()),
        Owner::Guard(guard) => guard.to_string(),
        Owner::Other => String::new(),
    };
    (chain.table(), format!("{command} {}", numbered(&specification, number)))
}

/// The specification of a rule with its label. iptables-save prints the same, but a
/// single address with its mask, REJECT with `--reject-with`, and `'` as `\'`.
fn specification(chain: &KernelChain, target: &str, rule: &Rule, label: &Label) -> String {
    let networks = [("-s", rule.source()), ("-d", rule.destination())];
    let networks = networks.into_iter().filter_map(|(flag, network)| Some(format!(" {flag} {}", network?)));
    let (matches, comment) = (networks.collect::<String>(), escaped(&label.to_string()));
    in_scope(chain, target, rule.scope(), &matches, &comment)
}

/// A text as iptables-restore(8) reads it within double quotes, which no comment of rfw contains.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// The specification of the rule that looks packets up in a set.
fn set_specification(chain: &KernelChain, target: &str, set: &SetKey) -> String {
    let matches = format!(" -m set --match-set {} {}", set.name(), set.side().direction());
    in_scope(chain, target, set.scope(), &matches, SET)
}

fn in_scope(chain: &KernelChain, target: &str, scope: &Scope, matches: &str, comment: &str) -> String {
    let interfaces = [("-i", scope.input_interface()), ("-o", scope.output_interface())];
    let interfaces = interfaces
        .into_iter()
        .filter_map(|(flag, interface)| Some(format!(" {flag} {}", interface?.pattern())));
    let interfaces: String = interfaces.collect();
    let chain = chain.name();
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
mod tests;
