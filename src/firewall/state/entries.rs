//! What is blocked and accepted according to a state file: the merge of its lines. Pure.

use super::format::{Header, HeaderError, Line};
use super::journal::Item;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::note::Note;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest line in bytes, its line feed included.
const LINE_MAX: u64 = 1 << 10;

/// The most bytes of a wrong line that are quoted.
const QUOTED_MAX: usize = 100;

/// All that lists hold.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// By place and list: the key of the set that would hold them.
    sections: BTreeMap<SetKey, Section>,
    /// The number of changes until now: tells which address was put in last.
    age: u64,
}

type Section = HashMap<Addresses, Held, RandomState>;

/// Source and destination of a rule.
type Addresses = (Option<Network>, Option<Network>);

#[derive(Debug)]
struct Held {
    age: u64,
    lease: Lease,
    note: Option<Box<Note>>,
}

impl Entries {
    /// Takes down that an address is in a list.
    pub(crate) fn put(&mut self, rule: &Rule, label: Label) {
        self.age = self.age.saturating_add(1);
        let held = Held { age: self.age, lease: label.lease, note: label.note };
        let section = SetKey::of(rule).with_list(label.list);
        self.sections.entry(section).or_default().insert(addresses(rule), held);
    }

    /// Takes down that an address is in a list no more.
    pub(crate) fn remove(&mut self, rule: &Rule, list: ListName) {
        if let Some(section) = self.sections.get_mut(&SetKey::of(rule).with_list(list)) {
            section.remove(&addresses(rule));
        }
    }

    /// Takes down that a list holds nothing in one place.
    pub(crate) fn clear(&mut self, section: &SetKey) {
        self.sections.remove(section);
    }

    /// Takes a change down that is not in the file yet.
    pub(crate) fn apply(&mut self, item: &Item) {
        match item {
            Item::Put(rule, label) => self.put(rule, label.clone()),
            Item::Gone(rule, list) => self.remove(rule, *list),
            Item::PutAll { section, networks, terms } => {
                if terms.replace {
                    self.clear(section);
                }
                for network in networks {
                    if let Ok(rule) = section.scope().clone().rule(*network) {
                        self.put(&rule, terms.label(network));
                    }
                }
            }
            Item::GoneAll { section, networks } => {
                let Some(held) = self.sections.get_mut(section) else { return };
                for network in networks {
                    if let Ok(rule) = section.scope().clone().rule(*network) {
                        held.remove(&addresses(&rule));
                    }
                }
            }
            Item::Clear(section) => self.clear(section),
        }
    }

    /// Leaves only what is `wanted`.
    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&Rule, ListName, Lease) -> bool) {
        for (set, section) in &mut self.sections {
            section.retain(|addresses, held| {
                rule(set, addresses)
                    .is_some_and(|rule| wanted(&rule, set.list().unwrap_or_default(), held.lease))
            });
        }
        self.sections.retain(|_, section| !section.is_empty());
    }

    /// Whether an address is in a list.
    pub(crate) fn holds(&self, rule: &Rule, list: ListName) -> bool {
        let section = self.sections.get(&SetKey::of(rule).with_list(list));
        section.is_some_and(|section| section.contains_key(&addresses(rule)))
    }

    /// The number of addresses.
    pub(crate) fn len(&self) -> usize {
        self.sections.values().map(HashMap::len).sum()
    }

    /// The number of addresses of each place, in all lists.
    pub(crate) fn sizes(&self) -> BTreeMap<SetKey, usize> {
        let mut sizes: BTreeMap<SetKey, usize> = BTreeMap::new();
        for (set, section) in &self.sections {
            *sizes.entry(set.union()).or_default() += section.len();
        }
        sizes
    }

    /// The reasons of what a list has in one place.
    pub(crate) fn notes(&self, section: &SetKey) -> HashMap<Rule, Box<Note>> {
        let held = self.sections.get(section).into_iter().flatten();
        held.filter_map(|(addresses, held)| Some((rule(section, addresses)?, held.note.clone()?))).collect()
    }

    /// The addresses of all places, those that were put in first at the beginning.
    pub(crate) fn into_rules(self) -> Vec<(Rule, Label)> {
        let mut all: Vec<(u64, Rule, Label)> = Vec::with_capacity(self.len());
        for (set, section) in self.sections {
            all.extend(section.into_iter().filter_map(|(addresses, held)| {
                let list = set.list().unwrap_or_default();
                let label = Label { lease: held.lease, list, note: held.note };
                Some((held.age, rule(&set, &addresses)?, label))
            }));
        }
        all.sort_unstable_by_key(|(age, _, _)| *age);
        all.into_iter().map(|(_, rule, label)| (rule, label)).collect()
    }

    /// Takes the addresses of one place out, of all lists, those that were put in first at the beginning.
    pub(crate) fn take(&mut self, union: &SetKey) -> Vec<(Rule, Label)> {
        let of_union: Vec<SetKey> =
            self.sections.keys().filter(|set| set.union() == *union).cloned().collect();
        let mut taken = Entries::default();
        for set in of_union {
            taken.sections.extend(self.sections.remove_entry(&set));
        }
        taken.into_rules()
    }
}

fn addresses(rule: &Rule) -> Addresses {
    (rule.source().copied(), rule.destination().copied())
}

fn rule(set: &SetKey, (source, destination): &Addresses) -> Option<Rule> {
    Rule::new(set.scope().clone(), *source, *destination).ok()
}

/// What of a file could not be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The number of lines that are not rfw's.
    wrong: usize,
    /// The first of them, and why.
    first: Option<(usize, String)>,
    /// Whether it ends within a line.
    is_cut: bool,
    /// Whether it ends before all of a list is told.
    is_open: bool,
}

impl Damage {
    /// Whether there is any.
    pub(crate) fn is_some(&self) -> bool {
        *self != Damage::default()
    }

    fn note(&mut self, number: usize, line: &[u8], why: &dyn fmt::Display) {
        self.wrong = self.wrong.saturating_add(1);
        self.first.get_or_insert_with(|| {
            let line = String::from_utf8_lossy(line.get(..QUOTED_MAX).unwrap_or(line));
            (number, format!("\"{}\": {why}", line.escape_debug()))
        });
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some((number, why)) = &self.first {
            parts.push(match self.wrong {
                1 => format!("line {number} is not used, {why}"),
                wrong => format!("{wrong} lines are not used, the first is line {number}, {why}"),
            });
        }
        if self.is_cut {
            parts.push("its last line is cut off".to_owned());
        }
        if self.is_open {
            parts.push("it ends within a list, of which what was there before is used".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// Reads the first line of a file.
///
/// # Errors
/// The file can't be read, or the line is not one of this program's.
pub(crate) fn read_header(from: &mut impl BufRead) -> io::Result<Result<Header, HeaderError>> {
    let mut line = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut line)?;
    let text = line.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
    Ok(text.ok_or(HeaderError::Foreign).and_then(Header::parse))
}

/// Reads the lines after the first. What is not rfw's is left out, and told.
///
/// # Errors
/// The file can't be read.
pub(crate) fn read_lines(from: &mut impl BufRead) -> io::Result<(Entries, Damage)> {
    let (mut entries, mut damage) = (Entries::default(), Damage::default());
    let mut block: Option<(SetKey, Vec<(Rule, Label)>)> = None;
    let (mut line, mut number) = (Vec::new(), 1_usize);
    loop {
        line.clear();
        if from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number = number.saturating_add(1);
        let Some(text) = line.strip_suffix(b"\n") else {
            if u64::try_from(line.len()).is_ok_and(|length| length < LINE_MAX) {
                damage.is_cut = true;
                break;
            }
            damage.note(number, &line, &"it is too long");
            skip_line(from)?;
            continue;
        };
        let parsed = str::from_utf8(text).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|text| Line::parse(text).map_err(|error| error.to_string()));
        match (parsed, &mut block) {
            (Err(why), _) => damage.note(number, text, &why),
            (Ok(Line::Begin(section)), None) => block = Some((section, Vec::new())),
            (Ok(Line::Put(rule, label)), None) => entries.put(&rule, label),
            (Ok(Line::Put(rule, label)), Some((section, put)))
                if SetKey::of(&rule).with_list(label.list) == *section =>
            {
                put.push((rule, label));
            }
            (Ok(Line::Gone(rule, list)), None) => entries.remove(&rule, list),
            (Ok(Line::End), Some(_)) => {
                if let Some((section, put)) = block.take() {
                    entries.clear(&section);
                    put.into_iter().for_each(|(rule, label)| entries.put(&rule, label));
                }
            }
            (Ok(Line::Begin(section)), Some(_)) => {
                damage.is_open = true;
                block = Some((section, Vec::new()));
            }
            (Ok(_), _) => damage.note(number, text, &"it does not belong there"),
        }
    }
    damage.is_open |= block.is_some();
    Ok((entries, damage))
}

/// Passes over the rest of a line that is too long.
fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
    let mut piece = Vec::new();
    while !piece.ends_with(b"\n") {
        piece.clear();
        if from.by_ref().take(LINE_MAX).read_until(b'\n', &mut piece)? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
