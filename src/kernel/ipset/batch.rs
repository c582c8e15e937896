//! Many changes of sets in one send.
//!
//! The kernel works through a send whole, even if its sender is killed in the middle,
//! and goes on after a message that fails. It always answers failure, success only if
//! asked: so only the last message of a send asks, and its answer ends the reading.
//! What has not failed by then is done.

use super::error::IpsetError;
use super::message::{
    Command, Definition, Element, IPSET_ATTR_ADT, IPSET_ATTR_LINENO, IPSET_ATTR_SETNAME, IPSET_ATTR_SETNAME2,
    NewEntry, SetName,
};
use crate::kernel::netlink::{Builder, Malformed, Message, NLM_F_CREATE, NLM_F_EXCL};
use std::ops::Range;

/// A message takes one more entry while its entries are shorter than this, in bytes. With the
/// longest entry after that, one with a comment of 255 bytes, it stays below 65,535 bytes, which an
/// attribute can hold. Where a send takes less than twice this, half of a send counts: a send takes
/// 4.5 kB at least (`SOCK_MIN_SNDBUF`), so that such a message always fits.
const PACKED_BYTES: usize = 32 << 10;

/// What the kernel takes to queue an answer, in bytes: `struct sk_buff` and the least
/// buffer, rounded up. The request comes back in it, in a buffer of a power of two.
const ANSWER_OVERHEAD: usize = 1 << 10;

/// What becomes of an entry to add that is there, or of one to delete that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is refused, and so can be counted.
    Refuse,
    /// It is renewed, or stays away.
    Accept,
}

/// One call of the methods of [`Batch`].
#[derive(Debug)]
struct Operation {
    command: Command,
    to_list: bool,
    entries: usize,
}

/// A message and which entries of which operation are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    operation: usize,
    entries: Range<usize>,
    /// Where it ends in the buffer.
    end: usize,
}

/// Changes of sets, in the order in which they are to be made.
#[derive(Debug)]
pub(crate) struct Batch {
    builder: Builder,
    protocol: u8,
    /// So many bytes of entries begin another one in the same message.
    packed: usize,
    operations: Vec<Operation>,
    parts: Vec<Part>,
}

/// A batch as [`super::Ipset::transact`] sends it.
#[derive(Debug)]
pub(super) struct Packed {
    pub bytes: Vec<u8>,
    pub parts: Vec<Part>,
    pub report: Report,
}

impl Batch {
    /// No operation yet. `send_limit` is what one send takes, in bytes.
    pub(super) fn new(protocol: u8, send_limit: usize) -> Batch {
        let packed = PACKED_BYTES.min(send_limit / 2);
        Batch { builder: Builder::new(), protocol, packed, operations: Vec::new(), parts: Vec::new() }
    }

    /// Makes a set, of a revision that [`super::Ipset::revision`] has found.
    pub(crate) fn create(&mut self, name: &SetName, definition: &Definition, revision: u8) {
        self.set(Command::Create, NLM_F_CREATE | NLM_F_EXCL, name, |builder| {
            definition.write(builder, revision);
        });
    }

    /// Takes a set away that no rule and no list refers to.
    pub(crate) fn destroy(&mut self, name: &SetName) {
        self.set(Command::Destroy, NLM_F_EXCL, name, |_| ());
    }

    /// Takes all entries out of a set.
    pub(crate) fn flush(&mut self, name: &SetName) {
        self.set(Command::Flush, 0, name, |_| ());
    }

    /// Gives two sets of one type and family each other's name. Who refers to one of
    /// them by name refers to the other from now on.
    pub(crate) fn swap(&mut self, name: &SetName, other: &SetName) {
        self.set(Command::Swap, 0, name, |builder| {
            builder.string(IPSET_ATTR_SETNAME2, other.as_str());
        });
    }

    /// Adds entries, one a message: 1 µs an entry. Whatever one of them comes to, the
    /// others are tried. With [`Existing::Refuse`] those that are there are counted, and
    /// keep their time and comment; each takes 2 µs more, and the kernel 0.8 kB until
    /// all is sent.
    pub(crate) fn add_each<'e>(
        &mut self,
        set: &SetName,
        entries: impl IntoIterator<Item = NewEntry<'e>>,
        existing: Existing,
    ) {
        self.each(Command::Add, set, entries, existing);
    }

    /// Deletes entries, one a message, as [`Batch::add_each`] adds them.
    pub(crate) fn del_each<'e>(
        &mut self,
        set: &SetName,
        elements: impl IntoIterator<Item = Element<'e>>,
        existing: Existing,
    ) {
        self.each(Command::Del, set, elements.into_iter().map(NewEntry::new), existing);
    }

    /// Adds entries, many a message: 0.4 µs an entry. Those that are there are renewed.
    /// The kernel stops a message at the first entry that it refuses, and goes on with
    /// the next message.
    pub(crate) fn add_many<'e>(&mut self, set: &SetName, entries: impl IntoIterator<Item = NewEntry<'e>>) {
        self.many(Command::Add, set, entries);
    }

    /// Deletes entries, many a message, as [`Batch::add_many`] adds them. Those that
    /// are not there are fine.
    pub(crate) fn del_many<'e>(&mut self, set: &SetName, elements: impl IntoIterator<Item = Element<'e>>) {
        self.many(Command::Del, set, elements.into_iter().map(NewEntry::new));
    }

    /// The number of operations: the index that the next one has in the [`Report`].
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
    /// The number of sends that it takes with these limits.
    pub(super) fn sends(&self, send_limit: usize, receive_limit: usize) -> usize {
        sends(&self.parts, send_limit, receive_limit).len()
    }

    fn set(&mut self, command: Command, flags: u16, name: &SetName, rest: impl FnOnce(&mut Builder)) {
        self.begin(command, flags);
        self.builder.string(IPSET_ATTR_SETNAME, name.as_str());
        rest(&mut self.builder);
        self.end_part(0..1);
        self.operations.push(Operation { command, to_list: false, entries: 1 });
    }

    fn each<'e>(
        &mut self,
        command: Command,
        set: &SetName,
        entries: impl IntoIterator<Item = NewEntry<'e>>,
        existing: Existing,
    ) {
        let flags = if existing == Existing::Refuse { NLM_F_EXCL } else { 0 };
        let (mut count, mut to_list) = (0_usize, false);
        for entry in entries {
            to_list = entry.element.is_set();
            self.begin(command, flags);
            self.builder.string(IPSET_ATTR_SETNAME, set.as_str());
            entry.write_data(&mut self.builder, None);
            self.end_part(count..count.saturating_add(1));
            count = count.saturating_add(1);
        }
        self.operations.push(Operation { command, to_list, entries: count });
    }

    fn many<'e>(&mut self, command: Command, set: &SetName, entries: impl IntoIterator<Item = NewEntry<'e>>) {
        let mut entries = entries.into_iter().peekable();
        let to_list = entries.peek().is_some_and(|entry| entry.element.is_set());
        let mut count = 0_usize;
        while entries.peek().is_some() {
            self.begin(command, 0);
            self.builder.string(IPSET_ATTR_SETNAME, set.as_str());
            // The kernel writes the line that it refuses here.
            self.builder.u32(IPSET_ATTR_LINENO, 0);
            let adt = self.builder.nest(IPSET_ATTR_ADT);
            let first = count;
            while self.builder.nest_length(&adt) < self.packed
                && let Some(entry) = entries.next()
            {
                count = count.saturating_add(1);
                entry.write_data(&mut self.builder, Some(u32::try_from(count).unwrap_or(u32::MAX)));
            }
            self.builder.end_nest(adt);
            self.end_part(first..count);
        }
        self.operations.push(Operation { command, to_list, entries: count });
    }

    /// Begins a message. They are numbered from 0 until they are sent.
    fn begin(&mut self, command: Command, flags: u16) {
        let sequence = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        command.begin(&mut self.builder, flags, sequence, self.protocol);
    }

    fn end_part(&mut self, entries: Range<usize>) {
        self.builder.end();
        self.parts.push(Part { operation: self.operations.len(), entries, end: self.builder.len() });
    }

    pub(super) fn pack(self) -> Result<Packed, Malformed> {
        let outcomes = self.operations.into_iter().map(Outcome::new).collect();
        let report = Report { outcomes, sends: 0 };
        Ok(Packed { bytes: self.builder.finish()?, parts: self.parts, report })
    }
}

/// Parts the messages into as few sends as the socket's limits allow: what one send
/// takes, and what can be queued if every message is answered.
pub(super) fn sends(parts: &[Part], send_limit: usize, receive_limit: usize) -> Vec<Range<usize>> {
    let mut sends: Vec<Range<usize>> = Vec::new();
    let (mut start, mut answers) = (0_usize, 0_usize);
    let mut previous = 0_usize;
    for (index, part) in parts.iter().enumerate() {
        let length = part.end.saturating_sub(previous);
        let answer = length.saturating_mul(2).saturating_add(ANSWER_OVERHEAD);
        answers = answers.saturating_add(answer);
        match sends.last_mut() {
            Some(send) if part.end.saturating_sub(start) <= send_limit && answers <= receive_limit => {
                send.end = index.saturating_add(1);
            }
            _ => {
                sends.push(index..index.saturating_add(1));
                (start, answers) = (previous, answer);
            }
        }
        previous = part.end;
    }
    sends
}

/// Where the messages of a send are in the buffer.
pub(super) fn bytes_of(parts: &[Part], send: &Range<usize>) -> Range<usize> {
    let end = |count: usize| count.checked_sub(1).and_then(|last| parts.get(last)).map_or(0, |part| part.end);
    end(send.start)..end(send.end)
}

/// What came of one operation.
#[derive(Debug)]
pub(crate) struct Outcome {
    operation: Operation,
    /// Entries, or the set itself, for which it was done.
    pub done: usize,
    /// Entries to add that were there, or to delete that were not, where those are
    /// refused.
    pub already: usize,
    /// The first entry for which it failed otherwise, counted from 0, and why.
    pub failure: Option<(usize, IpsetError)>,
}

impl Outcome {
    fn new(operation: Operation) -> Outcome {
        Outcome { done: operation.entries, operation, already: 0, failure: None }
    }

    /// Entries that are neither done nor already so.
    #[cfg(test)]
    pub(crate) fn failed(&self) -> usize {
        self.operation.entries.saturating_sub(self.done).saturating_sub(self.already)
    }

    /// Takes down that the kernel refused some of it.
    fn refuse(&mut self, part: &Part, code: i32, line: Option<u32>) {
        let line = line.and_then(|line| usize::try_from(line).ok());
        let entry = line.and_then(|line| line.checked_sub(1)).unwrap_or(part.entries.start);
        let entry = entry.clamp(part.entries.start, part.entries.end);
        self.done = self.done.saturating_sub(part.entries.end.saturating_sub(entry));
        match IpsetError::from_code(code, self.operation.command, self.operation.to_list) {
            IpsetError::Exists | IpsetError::Missing => self.already = self.already.saturating_add(1),
            error if self.failure.is_none() => self.failure = Some((entry, error)),
            _ => {}
        }
    }
}

/// What came of a batch.
#[derive(Debug)]
pub(crate) struct Report {
    /// What came of each operation, in the order of the calls.
    pub outcomes: Vec<Outcome>,
    /// How many sends it took. More than one where the process may not have a buffer
    /// that is large enough: then a kill may leave some of them undone.
    pub sends: usize,
}

impl Report {
    /// All that was done, or the first failure.
    ///
    /// # Errors
    /// The first operation that failed, whatever others came to.
    pub(crate) fn into_result(self) -> Result<Vec<Outcome>, IpsetError> {
        let (mut outcomes, mut failure) = (Vec::new(), None);
        for mut outcome in self.outcomes {
            failure = failure.or(outcome.failure.take());
            outcomes.push(outcome);
        }
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// Takes down an answer to a part.
    pub(super) fn answer(&mut self, part: &Part, code: i32, request: Option<Message<'_>>) {
        if code == 0 {
            return;
        }
        if let Some(outcome) = self.outcomes.get_mut(part.operation) {
            outcome.refuse(part, code, request.and_then(line));
        }
    }
}

/// The line that the kernel wrote into a request that it sends back.
fn line(request: Message<'_>) -> Option<u32> {
    let attributes = request.attributes().ok()?;
    let attribute = attributes.flatten().find(|attribute| attribute.kind == IPSET_ATTR_LINENO)?;
    attribute.u32().ok().filter(|line| *line > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::messages;
    use crate::rule::network::Network;
    use std::net::Ipv4Addr;

    fn name() -> SetName {
        SetName::new("x").unwrap()
    }

    fn entries(count: u32) -> impl Iterator<Item = NewEntry<'static>> {
        (1..=count).map(|bits| NewEntry::new(Element::Net(Network::host(Ipv4Addr::from_bits(bits).into()))))
    }

    fn part(operation: usize, entries: Range<usize>, end: usize) -> Part {
        Part { operation, entries, end }
    }

    #[test]
    fn messages_are_parted_at_the_limits() {
        let parts: Vec<Part> = (1..=5).map(|i| part(0, i - 1..i, 100 * i)).collect();
        let golden: [(usize, usize, &[usize]); 4] = [
            (1_000, 1 << 20, &[5]),
            (200, 1 << 20, &[2, 4, 5]),
            (1_000, 2 * (1024 + 200), &[2, 4, 5]),
            // What fits nowhere is sent alone, for the kernel to refuse.
            (1, 1, &[1, 2, 3, 4, 5]),
        ];
        for (send, receive, ends) in golden {
            let sends = sends(&parts, send, receive);
            assert_eq!(sends.iter().map(|send| send.end).collect::<Vec<_>>(), ends, "{send} {receive}");
            assert_eq!(sends[0].start, 0);
            assert!(sends.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
        assert_eq!(bytes_of(&parts, &(2..4)), 200..400);
        assert_eq!(bytes_of(&parts, &(0..5)), 0..500);
        assert_eq!(sends(&[], 1, 1), []);
    }

    #[test]
    fn answers_that_do_not_fit_part_a_batch_too() {
        // `net.core.rmem_max` as most distributions have it, which the kernel doubles.
        for (count, sends) in [(300, 1), (400, 2)] {
            let mut batch = Batch::new(7, 1 << 20);
            batch.add_each(&name(), entries(count), Existing::Refuse);
            assert_eq!(batch.sends(1 << 20, 2 * 212_992), sends, "{count}");
            let mut batch = Batch::new(7, 1 << 20);
            batch.add_many(&name(), entries(count));
            assert_eq!(batch.sends(1 << 20, 2 * 212_992), 1, "{count}");
        }
    }

    #[test]
    fn a_batch_knows_which_entries_are_where() {
        let mut batch = Batch::new(7, 1 << 20);
        assert!(batch.is_empty());
        batch.destroy(&name());
        batch.add_each(&name(), entries(3), Existing::Refuse);
        batch.add_many(&name(), entries(2_000));
        batch.add_many(&name(), entries(0));
        assert_eq!(batch.len(), 4);
        let packed = batch.pack().unwrap();
        let read: Vec<_> = messages(&packed.bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), packed.parts.len());
        assert!(read.iter().zip(0..).all(|(message, index)| message.sequence == index));
        let parts: Vec<_> = packed.parts.iter().map(|part| (part.operation, part.entries.clone())).collect();
        assert_eq!(parts[..4], [(0, 0..1), (1, 0..1), (1, 1..2), (1, 2..3)]);
        assert_eq!((parts[4].1.start, parts.last().unwrap().1.end), (0, 2_000));
        assert!(parts[4..].windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
        assert_eq!(packed.parts.last().unwrap().end, packed.bytes.len());
    }

    #[test]
    fn what_is_refused_is_counted() {
        let operation = Operation { command: Command::Add, to_list: false, entries: 10 };
        let mut outcome = Outcome::new(operation);
        outcome.refuse(&part(0, 3..4, 0), -4103, None);
        outcome.refuse(&part(0, 4..5, 0), -4103, None);
        assert_eq!((outcome.done, outcome.already, outcome.failed()), (8, 2, 0));
        // Of the entries 5 to 9 in a message, the kernel stopped at the third.
        outcome.refuse(&part(0, 5..10, 0), -4352, Some(8));
        assert_eq!((outcome.done, outcome.already, outcome.failed()), (5, 2, 3));
        assert!(matches!(outcome.failure, Some((7, IpsetError::Full))));
        let report = Report { outcomes: vec![outcome], sends: 1 };
        assert!(matches!(report.into_result(), Err(IpsetError::Full)));
    }
}
