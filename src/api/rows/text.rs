//! The text of rows, one a line, generated while it is sent. Those of the JSON array (RFC 8259) have the
//! columns of `iptables -nvxL`, under the keys of the original rfw, in alphabetical order.

use super::{Group, Packed};
use crate::api::format::{Format, push_csv};
use crate::rule::label::Label;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Interface, Target};
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;

/// Generated text in bytes, at least, before it is handed on: with the last row it stays
/// within one record of TLS.
const PART: usize = 15 << 10;

/// The columns of CSV.
const COLUMNS: &str = "list,chain,target,inp,out,source,destination,expires,reason,by,packets,bytes\n";

/// The text of rows, part by part.
pub(in crate::api) struct RowText {
    format: Format,
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
    /// The text of rows of these groups.
    pub(super) fn new(format: Format, groups: &[Group], chunks: VecDeque<Vec<u8>>) -> RowText {
        let groups = groups.iter().map(GroupText::new).collect();
        RowText { format, groups, chunks, at: 0, writer: RowWriter::default(), stage: Stage::Begin }
    }

    /// Writes the next row; `false` after the last.
    fn write_row(&mut self, text: &mut String) -> bool {
        let Some(chunk) = self.chunks.front() else { return false };
        let mut bytes = chunk.get(self.at..).unwrap_or_default();
        // What is written can be read: the bytes are those of `Packed::write`.
        let Some(row) = Packed::read(&mut bytes) else { return false };
        text.push_str(self.between());
        self.stage = Stage::Rows;
        if let Some(group) = self.groups.get(row.group) {
            match self.format {
                Format::Json => self.writer.write(text, group, &row),
                Format::Csv => self.writer.write_csv(text, group, &row),
                Format::Plain => write_plain(text, &row),
            }
        }
        self.at = chunk.len() - bytes.len();
        if bytes.is_empty() {
            self.chunks.pop_front();
            self.at = 0;
        }
        true
    }

    /// What comes before a row.
    fn between(&self) -> &'static str {
        match (self.format, self.stage) {
            (Format::Json, Stage::Begin) => "[\n",
            (Format::Json, _) => ",\n",
            (Format::Csv, Stage::Begin) => COLUMNS,
            (Format::Csv | Format::Plain, _) => "",
        }
    }

    /// What comes behind the last row.
    fn end(&self) -> &'static str {
        match (self.format, self.stage) {
            (Format::Json, Stage::Begin) => "[]\n",
            (Format::Json, _) => "\n]\n",
            (Format::Csv, Stage::Begin) => COLUMNS,
            (Format::Csv | Format::Plain, _) => "",
        }
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
                text.push_str(self.end());
                self.stage = Stage::End;
                break;
            }
        }
        // A part is never empty.
        Some(text).filter(|text| !text.is_empty())
    }
}

/// What the text of all rows of a group has in common. No value has a character that JSON
/// escapes: numbers, addresses, names of chains, targets and lists, and interfaces, which consist
/// of letters, digits and `.-_@:+`.
struct GroupText {
    /// The first columns of CSV.
    csv: String,
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
        let (chain, target) = (scope.chain().name(), scope.target().name());
        let (inp, out) =
            (Interface::column(scope.input_interface()), Interface::column(scope.output_interface()));
        GroupText {
            csv: format!("{list},{chain},{target},{inp},{out},"),
            chain: format!("\",\"chain\":\"{chain}\",\"destination\":\""),
            extra: set.as_ref().map(|set| format!(",\"extra\":\"match-set {set}{reject}\"")),
            reject,
            list: *list,
            input: format!(",\"inp\":\"{inp}\",\"list\":\"{list}\",\"num\":\""),
            output: format!("\",\"opt\":\"--\",\"out\":\"{out}\",\"pkts\":\""),
            target: format!("\",\"target\":\"{target}\"}}"),
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

    fn write_csv(&mut self, text: &mut String, group: &GroupText, row: &Packed) {
        text.push_str(&group.csv);
        push_network(text, row.source.as_ref(), group.any);
        text.push(',');
        push_network(text, row.destination.as_ref(), group.any);
        text.push(',');
        text.push_str(row.lease.end().map_or("", |end| self.end_text(end)));
        let (reason, by) = row.note.as_ref().map_or(("", ""), |note| (note.reason(), note.by()));
        for value in [reason, by] {
            text.push(',');
            push_csv(text, value);
        }
        for number in [row.counters.packets, row.counters.bytes] {
            text.push(',');
            push_number(text, number);
        }
        text.push('\n');
    }

    fn end_text(&mut self, end: Moment) -> &str {
        if self.end.as_ref().is_none_or(|(last, _)| *last != end) {
            self.end = Some((end, end.to_string()));
        }
        self.end.as_ref().map_or("", |(_, text)| text)
    }
}

/// Writes the address of a row that has one; not those of one that has two.
fn write_plain(text: &mut String, row: &Packed) {
    if let (Some(network), None) | (None, Some(network)) = (&row.source, &row.destination) {
        push_network(text, Some(network), "");
        text.push('\n');
    }
}

/// Appends a text that somebody else has written, as a JSON string.
fn push_json(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

/// Appends a number, in a fraction of the time that formatting takes: a list has millions.
#[inline(always)]
pub(super) fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from_digit(u32::try_from(number % 10).unwrap_or_default(), 10).unwrap_or('0'));
}

/// Appends a network as `iptables -L -n` prints it.
#[inline(always)]
pub(super) fn push_network(text: &mut String, network: Option<&Network>, any: &str) {
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
