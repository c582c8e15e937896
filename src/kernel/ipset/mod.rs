//! The sets of the kernel (ip_set), spoken to over netlink: subsystem
//! `NFNL_SUBSYS_IPSET`, protocol 7 (linux/netfilter/ipset/ip_set.h), or 6, which is the
//! same in all that is used here.
//!
//! Nothing above sees a number of the protocol. The kernel works in the network
//! namespace in which the socket was opened.

mod batch;
mod dump;
mod error;
mod info;
mod message;
#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/properties/sets.rs"]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

pub(crate) use batch::{Batch, Existing, Outcome, Report};
pub(crate) use dump::{Dump, Entry};
pub(crate) use error::IpsetError;
pub(crate) use info::{Header, SetInfo};
pub(crate) use message::{Comment, Definition, Element, NewEntry, SetName, SetType};

use super::netlink::{
    Attributes, Builder, Content, Malformed, NLM_F_ACK, NLM_F_EXCL, messages, rewrite_headers,
};
use super::socket::{DATAGRAM_MAX, Socket};
use batch::{Packed, Part};
use message::{
    Command, IPSET_ATTR_FAMILY, IPSET_ATTR_FLAGS, IPSET_ATTR_PROTOCOL, IPSET_ATTR_PROTOCOL_MIN,
    IPSET_ATTR_REVISION, IPSET_ATTR_REVISION_MIN, IPSET_ATTR_SETNAME, IPSET_ATTR_TYPENAME,
    IPSET_FLAG_LIST_HEADER, IPSET_FLAG_LIST_SETNAME,
};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

/// `IPSET_PROTOCOL`, the version that is preferred.
const PROTOCOL: u8 = 7;
/// `IPSET_PROTOCOL_MIN`, the version of kernels before 4.20.
const PROTOCOL_MIN: u8 = 6;

/// A connection to the kernel's sets. Each operation has a deadline for its answer,
/// after which nothing is known of it; those of a set take microseconds, unless others
/// hold the kernel's lock.
#[derive(Debug)]
pub(crate) struct Ipset {
    socket: Socket,
    protocol: u8,
    /// The number of the next message.
    sequence: u32,
    buffer: Vec<u8>,
    /// The revisions that the kernel was asked for.
    revisions: HashMap<SetType, u8>,
}

impl Ipset {
    /// Connects and agrees on the protocol.
    ///
    /// # Errors
    /// The kernel has no sets or another protocol, or the process lacks `CAP_NET_ADMIN`.
    pub(crate) fn open(deadline: Instant) -> Result<Ipset, IpsetError> {
        let mut ipset = Ipset {
            socket: Socket::open()?,
            protocol: PROTOCOL_MIN,
            sequence: 1,
            buffer: vec![0; DATAGRAM_MAX],
            revisions: HashMap::new(),
        };
        ipset.protocol = ipset.agree(deadline)?;
        Ok(ipset)
    }

    fn agree(&mut self, deadline: Instant) -> Result<u8, IpsetError> {
        let (highest, lowest) = self.ask(
            Command::Protocol,
            deadline,
            |_| (),
            |attributes| bytes(attributes, IPSET_ATTR_PROTOCOL, IPSET_ATTR_PROTOCOL_MIN),
        )?;
        // A kernel that knows one version only does not tell the lowest.
        let (highest, lowest) = (highest.ok_or(IpsetError::Malformed)?, lowest.or(highest));
        let known = [PROTOCOL, PROTOCOL_MIN].into_iter();
        let mut shared = known.filter(|version| *version <= highest && Some(*version) >= lowest);
        shared.next().ok_or(IpsetError::Protocol)
    }

    /// The socket, for its limits.
    #[cfg(test)]
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The lowest revision of a type that has what rfw needs and that the kernel has.
    /// The kernel is asked once, and may load a module for it.
    ///
    /// # Errors
    /// [`IpsetError::NoType`] if it has none.
    pub(crate) fn revision(&mut self, set_type: SetType, deadline: Instant) -> Result<u8, IpsetError> {
        if let Some(revision) = self.revisions.get(&set_type) {
            return Ok(*revision);
        }
        let (highest, lowest) = self.ask(
            Command::Type,
            deadline,
            |builder| {
                builder.string(IPSET_ATTR_TYPENAME, set_type.name());
                builder.u8(IPSET_ATTR_FAMILY, set_type.nfproto());
            },
            |attributes| bytes(attributes, IPSET_ATTR_REVISION, IPSET_ATTR_REVISION_MIN),
        )?;
        let (highest, lowest) = (highest.ok_or(IpsetError::Malformed)?, lowest.or(highest));
        let revision = lowest.unwrap_or(0).max(set_type.lowest_revision());
        if revision > highest {
            return Err(IpsetError::NoType);
        }
        self.revisions.insert(set_type, revision);
        Ok(revision)
    }

    /// Makes a set.
    ///
    /// # Errors
    /// [`IpsetError::SetExists`], [`IpsetError::NoType`], [`IpsetError::NoRoom`].
    #[cfg(test)]
    pub(crate) fn create(
        &mut self,
        name: &SetName,
        definition: &Definition,
        deadline: Instant,
    ) -> Result<(), IpsetError> {
        let revision = self.revision(definition.set_type, deadline)?;
        let mut batch = self.batch();
        batch.create(name, definition, revision);
        self.transact_all(batch, deadline)
    }

    /// Takes a set away.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`]; [`IpsetError::Busy`] if a rule or a list refers to it, or
    /// somebody lists it.
    #[cfg(test)]
    pub(crate) fn destroy(&mut self, name: &SetName, deadline: Instant) -> Result<(), IpsetError> {
        let mut batch = self.batch();
        batch.destroy(name);
        self.transact_all(batch, deadline)
    }

    /// Gives two sets of one type and family each other's name.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`], [`IpsetError::TypeMismatch`]; [`IpsetError::Busy`] if
    /// somebody lists one of them.
    #[cfg(test)]
    pub(crate) fn swap(
        &mut self,
        name: &SetName,
        other: &SetName,
        deadline: Instant,
    ) -> Result<(), IpsetError> {
        let mut batch = self.batch();
        batch.swap(name, other);
        self.transact_all(batch, deadline)
    }

    /// Takes all entries out of a set.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`].
    pub(crate) fn flush(&mut self, name: &SetName, deadline: Instant) -> Result<(), IpsetError> {
        let mut batch = self.batch();
        batch.flush(name);
        self.transact_all(batch, deadline)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`IpsetError::Exists`] if it is there and is to be refused then,
    /// [`IpsetError::Full`], [`IpsetError::NoSet`], [`IpsetError::BadElement`],
    /// [`IpsetError::NoExtension`].
    pub(crate) fn add(
        &mut self,
        set: &SetName,
        entry: &NewEntry<'_>,
        existing: Existing,
        deadline: Instant,
    ) -> Result<(), IpsetError> {
        let to_list = entry.element.is_set();
        self.entry(Command::Add, set, entry, existing, deadline)?
            .map_err(|code| IpsetError::from_code(code, Command::Add, to_list))
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// [`IpsetError::Missing`] if it is not there and that is to be refused, or as for
    /// [`Ipset::add`].
    pub(crate) fn del(
        &mut self,
        set: &SetName,
        element: Element<'_>,
        existing: Existing,
        deadline: Instant,
    ) -> Result<(), IpsetError> {
        let answer = self.entry(Command::Del, set, &NewEntry::new(element), existing, deadline)?;
        answer.map_err(|code| IpsetError::from_code(code, Command::Del, element.is_set()))
    }

    /// Whether a set matches an element: as an entry, or in the network of one.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`].
    pub(crate) fn test(
        &mut self,
        set: &SetName,
        element: Element<'_>,
        deadline: Instant,
    ) -> Result<bool, IpsetError> {
        let entry = NewEntry::new(element);
        let answer = self.entry(Command::Test, set, &entry, Existing::Accept, deadline)?;
        match answer.map_err(|code| IpsetError::from_code(code, Command::Test, element.is_set())) {
            Ok(()) => Ok(true),
            Err(IpsetError::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Type and revision of a set, in constant time.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`].
    pub(crate) fn header(&mut self, name: &SetName, deadline: Instant) -> Result<Header, IpsetError> {
        let write = |builder: &mut Builder| builder.string(IPSET_ATTR_SETNAME, name.as_str());
        self.ask(Command::Header, deadline, write, |attributes| Ok(info::read_info(attributes)?.header))
    }

    /// The names of all sets, lists of sets last.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn names(&mut self, deadline: Instant) -> Result<Vec<String>, IpsetError> {
        let infos = self.list(None, IPSET_FLAG_LIST_SETNAME, deadline)?;
        Ok(infos.into_iter().map(|info| info.header.name).collect())
    }

    /// All there is to say about a set but its entries. The kernel counts those, which
    /// takes 20 ns each.
    ///
    /// # Errors
    /// [`IpsetError::NoSet`].
    pub(crate) fn info(&mut self, name: &SetName, deadline: Instant) -> Result<SetInfo, IpsetError> {
        self.list(Some(name), IPSET_FLAG_LIST_HEADER, deadline)?.pop().ok_or(IpsetError::NoSet)
    }

    /// All there is to say about each set but its entries, lists of sets last.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn infos(&mut self, deadline: Instant) -> Result<Vec<SetInfo>, IpsetError> {
        self.list(None, IPSET_FLAG_LIST_HEADER, deadline)
    }

    /// What lists the entries of sets, apart from this connection.
    pub(crate) fn dumper(&self) -> Dumper {
        Dumper { protocol: self.protocol }
    }

    /// Whether a batch is one send, as far as the socket's limits allow it.
    pub(crate) fn is_one_send(&self, batch: &Batch) -> bool {
        batch.sends(self.socket.send_limit(), self.socket.receive_limit()) <= 1
    }

    /// A batch without operations, for [`Ipset::transact`].
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(self.protocol, self.socket.send_limit())
    }

    /// Sends a batch: in one send if the socket's limits allow it, which a kill does
    /// not cut short. The kernel tries each message whatever became of those before
    /// it: a `swap` is done even if an `add` before it failed.
    ///
    /// # Errors
    /// The batch could not be sent, or answers were lost or late: then it is not known
    /// what was done. What the kernel refuses is in the report.
    pub(crate) fn transact(&mut self, batch: Batch, deadline: Instant) -> Result<Report, IpsetError> {
        let Packed { mut bytes, parts, mut report } = batch.pack()?;
        let sends = batch::sends(&parts, self.socket.send_limit(), self.socket.receive_limit());
        let first = self.sequence;
        self.number(&mut bytes, &parts, &sends)?;
        for send in &sends {
            self.socket.drain();
            self.socket.send(bytes.get(batch::bytes_of(&parts, send)).ok_or(IpsetError::Malformed)?)?;
            let last = send.end.saturating_sub(1);
            self.collect(&parts, first, last, &mut report, deadline)?;
            report.sends = report.sends.saturating_add(1);
        }
        Ok(report)
    }

    /// Numbers the messages on from the last request, and has the last of each send
    /// acknowledged.
    fn number(&mut self, bytes: &mut [u8], parts: &[Part], sends: &[Range<usize>]) -> Result<(), Malformed> {
        let mut ends = sends.iter().map(|send| batch::bytes_of(parts, send).end).peekable();
        rewrite_headers(bytes, |flags, sequence, end| {
            *sequence = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            if ends.next_if_eq(&end).is_some() {
                *flags |= NLM_F_ACK;
            }
        })
    }

    /// Reads answers up to that to the part `last`.
    fn collect(
        &mut self,
        parts: &[Part],
        first: u32,
        last: usize,
        report: &mut Report,
        deadline: Instant,
    ) -> Result<(), IpsetError> {
        loop {
            for message in messages(self.socket.receive(&mut self.buffer, deadline)?) {
                let message = message?;
                let Content::Answer { code, request } = message.content()? else { continue };
                let index = usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(part) = parts.get(index) else { continue };
                report.answer(part, code, request);
                if index == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a batch of which everything has to succeed.
    fn transact_all(&mut self, batch: Batch, deadline: Instant) -> Result<(), IpsetError> {
        self.transact(batch, deadline)?.into_result().map(drop)
    }

    /// Asks about one entry, or for it; the inner error is the kernel's number.
    fn entry(
        &mut self,
        command: Command,
        set: &SetName,
        entry: &NewEntry<'_>,
        existing: Existing,
        deadline: Instant,
    ) -> Result<Result<(), i32>, IpsetError> {
        let exclusive = if existing == Existing::Refuse { NLM_F_EXCL } else { 0 };
        let sequence = self.request(command, NLM_F_ACK | exclusive, |builder| {
            builder.string(IPSET_ATTR_SETNAME, set.as_str());
            entry.write_data(builder, None);
        })?;
        loop {
            for message in messages(self.socket.receive(&mut self.buffer, deadline)?) {
                let message = message?;
                match message.content()? {
                    Content::Answer { code, .. } if message.sequence == sequence => {
                        return Ok(if code == 0 { Ok(()) } else { Err(code) });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends a request that is answered by a message, and reads that.
    fn ask<T>(
        &mut self,
        command: Command,
        deadline: Instant,
        write: impl FnOnce(&mut Builder),
        read: impl FnOnce(Attributes<'_>) -> Result<T, IpsetError>,
    ) -> Result<T, IpsetError> {
        let sequence = self.request(command, 0, write)?;
        loop {
            for message in messages(self.socket.receive(&mut self.buffer, deadline)?) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                return match message.content()? {
                    Content::Data(attributes) => read(attributes),
                    Content::Answer { code, .. } | Content::Done(code) => {
                        Err(IpsetError::from_code(code, command, false))
                    }
                };
            }
        }
    }

    /// Lists one set or all without their entries.
    fn list(
        &mut self,
        name: Option<&SetName>,
        flags: u32,
        deadline: Instant,
    ) -> Result<Vec<SetInfo>, IpsetError> {
        let sequence = self.request(Command::List, 0, |builder| {
            if let Some(name) = name {
                builder.string(IPSET_ATTR_SETNAME, name.as_str());
            }
            builder.u32_be(IPSET_ATTR_FLAGS, flags);
        })?;
        let mut infos = Vec::new();
        loop {
            for message in messages(self.socket.receive(&mut self.buffer, deadline)?) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                if message.is_interrupted() {
                    return Err(IpsetError::Interrupted);
                }
                match message.content()? {
                    Content::Data(attributes) => infos.push(info::read_info(attributes)?),
                    Content::Done(0) => return Ok(infos),
                    Content::Done(code) | Content::Answer { code, .. } => {
                        return Err(IpsetError::from_code(code, Command::List, false));
                    }
                }
            }
        }
    }

    /// Sends one message and tells its number. Answers to what was given up before are
    /// thrown away.
    fn request(
        &mut self,
        command: Command,
        flags: u16,
        write: impl FnOnce(&mut Builder),
    ) -> Result<u32, IpsetError> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let mut builder = Builder::new();
        command.begin(&mut builder, flags, sequence, self.protocol);
        write(&mut builder);
        builder.end();
        self.socket.drain();
        self.socket.send(&builder.finish()?)?;
        Ok(sequence)
    }
}

/// Lists the entries of sets, each listing over a socket of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dumper {
    protocol: u8,
}

impl Dumper {
    /// Begins to list a set. Whether there is such a set is told by the first piece.
    ///
    /// # Errors
    /// The kernel does not take the request.
    pub(crate) fn dump(self, socket: Socket, name: &SetName) -> Result<Dump, IpsetError> {
        Dump::start(socket, name, self.protocol)
    }
}

/// The attributes `first` and `second`, of a byte each, where they are.
fn bytes(
    attributes: Attributes<'_>,
    first: u16,
    second: u16,
) -> Result<(Option<u8>, Option<u8>), IpsetError> {
    let mut found = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == first {
            found.0 = Some(attribute.u8()?);
        } else if attribute.kind == second {
            found.1 = Some(attribute.u8()?);
        }
    }
    Ok(found)
}
