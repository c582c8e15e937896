//! The rows of a listing, kept in some 15 to 30 bytes each until they are [`text`].

mod text;

use crate::api::format::Format;
use crate::firewall::listing::Row;
use crate::kernel::Counters;
use crate::rule::Scope;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::note::Note;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
pub(super) use text::RowText;

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
    pub(super) fn into_text(self, format: Format) -> RowText {
        RowText::new(format, &self.groups, self.chunks)
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
#[inline(always)]
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

#[inline(always)]
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

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
mod tests;
