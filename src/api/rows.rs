//! The rows of a listing, kept in some 15 to 30 bytes each, and their text: a JSON array
//! (RFC 8259), one row a line, generated while it is sent. The columns are those of
//! `iptables -nvxL`, under the keys of the original rfw, in alphabetical order.

use crate::firewall::listing::Row;
use crate::kernel::Counters;
use crate::rule::label::Label;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::note::Note;
use crate::rule::{Interface, Scope, Target};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Generated text in bytes, at least, before it is handed on: with the last row it stays
/// within one record of TLS.
const PART: usize = 15 << 10;

/// Bytes of rows in one piece of memory, which is given back once they are text.
const CHUNK: usize = 32 << 10;

/// More than one row takes: two networks of 17 bytes, six numbers of at most ten, and a note of 189.
const ROW_MAX: usize = 300;

/// Rows in their order, kept small.
#[derive(Debug, Default)]
pub(super) struct Rows {
    groups: Vec<Group>,
    numbers: HashMap<Group, usize>,
    chunks: VecDeque<Vec<u8>>,
    count: usize,
}

/// What many rows have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    scope: Scope,
    family: Family,
    set: Option<Arc<str>>,
    list: ListName,
}

/// What a row has of its own.
#[derive(Debug, PartialEq, Eq)]
struct Packed {
    group: usize,
    number: usize,
    source: Option<Network>,
    destination: Option<Network>,
    counters: Counters,
    lease: Lease,
    note: Option<Box<Note>>,
}

impl Rows {
    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: &Row) {
        let packed = Packed {
            group: self.group(row),
            number: row.number,
            source: row.rule.source().copied(),
            destination: row.rule.destination().copied(),
            counters: row.counters,
            lease: row.label.lease,
            note: row.label.note.clone(),
        };
        if self.chunks.back().is_none_or(|chunk| chunk.len() + ROW_MAX > CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            packed.write(chunk);
            self.count += 1;
        }
    }

    /// The number of the group of a row; those of a set come together.
    fn group(&mut self, row: &Row) -> usize {
        let is_of = |group: &Group| {
            group.scope == *row.rule.scope()
                && group.family == row.rule.family()
                && group.set == row.set
                && group.list == row.label.list
        };
        if self.groups.last().is_some_and(is_of) {
            return self.groups.len() - 1;
        }
        let group = Group {
            scope: row.rule.scope().clone(),
            family: row.rule.family(),
            set: row.set.clone(),
            list: row.label.list,
        };
        let groups = &mut self.groups;
        *self.numbers.entry(group).or_insert_with_key(|group| {
            groups.push(group.clone());
            groups.len() - 1
        })
    }

    /// The text of the rows.
    pub(super) fn into_text(self) -> RowText {
        RowText {
            groups: self.groups.iter().map(GroupText::new).collect(),
            chunks: self.chunks,
            at: 0,
            writer: RowWriter::default(),
            stage: Stage::Begin,
        }
    }
}

/// Bits of the first byte of a row: what follows.
const SOURCE: u8 = 1;
const DESTINATION: u8 = 2;
const IPV6: u8 = 4;
const NOTE: u8 = 8;

impl Packed {
    fn write(&self, bytes: &mut Vec<u8>) {
        let networks = || self.source.iter().chain(&self.destination);
        let bit = |bit: u8, set: bool| if set { bit } else { 0 };
        bytes.push(
            bit(SOURCE, self.source.is_some())
                | bit(DESTINATION, self.destination.is_some())
                | bit(IPV6, networks().any(|network| network.family() == Family::V6))
                | bit(NOTE, self.note.is_some()),
        );
        for network in networks() {
            match network.addr() {
                IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
            }
            bytes.push(network.prefix());
        }
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let end = self.lease.end().map_or(0, |end| end.seconds().saturating_add(1));
        let Counters { packets, bytes: octets } = self.counters;
        let numbers = [wide(self.group), wide(self.number), packets, octets, end];
        numbers.into_iter().for_each(|number| write_number(bytes, number));
        if let Some(note) = &self.note {
            let note = note.to_string();
            write_number(bytes, wide(note.len()));
            bytes.extend_from_slice(note.as_bytes());
        }
    }

    /// Reads what [`Packed::write`] has written, and moves on behind it.
    fn read(bytes: &mut &[u8]) -> Option<Packed> {
        let flags = u8::from_be_bytes(take(bytes)?);
        let mut network = |side: u8| match flags & side {
            0 => Some(None),
            _ => read_network(bytes, flags & IPV6 != 0).map(Some),
        };
        let (source, destination) = (network(SOURCE)?, network(DESTINATION)?);
        let mut number = || read_number(bytes);
        Some(Packed {
            source,
            destination,
            group: usize::try_from(number()?).ok()?,
            number: usize::try_from(number()?).ok()?,
            counters: Counters { packets: number()?, bytes: number()? },
            lease: match number()?.checked_sub(1) {
                None => Lease::Permanent,
                Some(end) => Lease::Until(moment(end)?),
            },
            note: match flags & NOTE {
                0 => None,
                _ => Some(read_note(bytes)?),
            },
        })
    }
}

fn moment(seconds: u64) -> Option<Moment> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Moment::at_or_after)
}

fn read_network(bytes: &mut &[u8], ipv6: bool) -> Option<Network> {
    let address: IpAddr = match ipv6 {
        true => Ipv6Addr::from(take::<16>(bytes)?).into(),
        false => Ipv4Addr::from(take::<4>(bytes)?).into(),
    };
    Network::new(address, u8::from_be_bytes(take(bytes)?)).ok()
}

fn read_note(bytes: &mut &[u8]) -> Option<Box<Note>> {
    let length = usize::try_from(read_number(bytes)?).ok()?;
    let (note, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Note::from_comment(str::from_utf8(note).ok()?).map(Box::new)
}

/// Writes a number in groups of seven bits, the lowest first; the last has no high bit.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = u8::from_be_bytes(take(bytes)?);
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<const LENGTH: usize>(bytes: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, rest) = bytes.split_first_chunk::<LENGTH>()?;
    *bytes = rest;
    Some(*taken)
}

/// The text of rows, part by part.
pub(super) struct RowText {
    groups: Vec<GroupText>,
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are text already.
    at: usize,
    writer: RowWriter,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Rows,
    End,
}

impl RowText {
    /// Writes the next row; `false` after the last.
    fn write_row(&mut self, text: &mut String) -> bool {
        let Some(chunk) = self.chunks.front() else { return false };
        let mut bytes = chunk.get(self.at..).unwrap_or_default();
        // What is written can be read; if not, the text stays an open array, which is no JSON.
        let Some(row) = Packed::read(&mut bytes) else { return false };
        text.push_str(if self.stage == Stage::Begin { "[\n" } else { ",\n" });
        self.stage = Stage::Rows;
        if let Some(group) = self.groups.get(row.group) {
            self.writer.write(text, group, &row);
        }
        self.at = chunk.len() - bytes.len();
        if bytes.is_empty() {
            self.chunks.pop_front();
            self.at = 0;
        }
        true
    }
}

impl Iterator for RowText {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.stage == Stage::End {
            return None;
        }
        let mut text = String::with_capacity(PART + (1 << 10));
        while text.len() < PART {
            if !self.write_row(&mut text) {
                text.push_str(if self.stage == Stage::Begin { "[]\n" } else { "\n]\n" });
                self.stage = Stage::End;
                break;
            }
        }
        Some(text)
    }
}

/// What the text of all rows of a group has in common. No value has a character that JSON
/// escapes: numbers, addresses, names of chains, targets and lists, and interfaces, which consist
/// of letters, digits and `.-_@:+`.
struct GroupText {
    /// Between the bytes and the destination.
    chain: String,
    /// After the end; `None` for rules, each of which has a comment of its own.
    extra: Option<String>,
    reject: &'static str,
    list: ListName,
    /// Up to the number.
    input: String,
    /// Between the number and the packets.
    output: String,
    /// After the source.
    target: String,
    any: &'static str,
}

impl GroupText {
    fn new(Group { scope, family, set, list }: &Group) -> GroupText {
        let reject = match (scope.target(), family) {
            (Target::Reject, Family::V4) => " reject-with icmp-port-unreachable",
            (Target::Reject, Family::V6) => " reject-with icmp6-port-unreachable",
            (Target::Accept | Target::Drop, _) => "",
        };
        let pattern =
            |interface: Option<&Interface>| interface.map_or_else(|| "*".to_owned(), Interface::pattern);
        GroupText {
            chain: format!("\",\"chain\":\"{}\",\"destination\":\"", scope.chain().name()),
            extra: set.as_ref().map(|set| format!(",\"extra\":\"match-set {set}{reject}\"")),
            reject,
            list: *list,
            input: format!(
                ",\"inp\":\"{}\",\"list\":\"{list}\",\"num\":\"",
                pattern(scope.input_interface())
            ),
            output: format!(
                "\",\"opt\":\"--\",\"out\":\"{}\",\"pkts\":\"",
                pattern(scope.output_interface())
            ),
            target: format!("\",\"target\":\"{}\"}}", scope.target().name()),
            any: family.any(),
        }
    }
}

/// Writes rows.
#[derive(Default)]
struct RowWriter {
    /// The last end and its text, since the entries of a list end together.
    end: Option<(Moment, String)>,
}

impl RowWriter {
    fn write(&mut self, text: &mut String, group: &GroupText, row: &Packed) {
        text.push('{');
        if let Some(note) = &row.note {
            text.push_str("\"by\":");
            push_json(text, note.by());
            text.push(',');
        }
        text.push_str("\"bytes\":\"");
        push_number(text, row.counters.bytes);
        text.push_str(&group.chain);
        push_network(text, row.destination.as_ref(), group.any);
        text.push_str("\",\"expires\":");
        match row.lease.end() {
            Some(end) => [r#"""#, self.end_text(end), r#"""#].iter().for_each(|part| text.push_str(part)),
            None => text.push_str("null"),
        }
        match &group.extra {
            Some(extra) => text.push_str(extra),
            None => {
                let label = Label { note: row.note.clone(), ..Label::new(row.lease, group.list) };
                text.push_str(",\"extra\":");
                push_json(text, &format!("/* {label} */{}", group.reject));
            }
        }
        text.push_str(&group.input);
        push_number(text, u64::try_from(row.number).unwrap_or(u64::MAX));
        text.push_str(&group.output);
        push_number(text, row.counters.packets);
        text.push_str("\",\"prot\":\"all\",");
        if let Some(note) = &row.note {
            text.push_str("\"reason\":");
            push_json(text, note.reason());
            text.push(',');
        }
        text.push_str("\"source\":\"");
        push_network(text, row.source.as_ref(), group.any);
        text.push_str(&group.target);
    }

    fn end_text(&mut self, end: Moment) -> &str {
        if self.end.as_ref().is_none_or(|(last, _)| *last != end) {
            self.end = Some((end, end.to_string()));
        }
        self.end.as_ref().map_or("", |(_, text)| text)
    }
}

/// Appends a text that somebody else has written, as a JSON string.
fn push_json(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

/// Appends a number, in a fraction of the time that formatting takes: a list has millions.
fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from_digit(u32::try_from(number % 10).unwrap_or_default(), 10).unwrap_or('0'));
}

/// Appends a network as `iptables -L -n` prints it.
fn push_network(text: &mut String, network: Option<&Network>, any: &str) {
    let Some(network) = network else { return text.push_str(any) };
    match network.addr() {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                text.push_str(if place > 0 { "." } else { "" });
                push_number(text, octet.into());
            }
        }
        // Writing to a string can't fail.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
    if !network.is_host() {
        text.push('/');
        push_number(text, network.prefix().into());
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
mod tests;
