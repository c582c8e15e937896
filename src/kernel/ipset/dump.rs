//! The entries of a set, read piece by piece as the kernel makes them.

use super::error::IpsetError;
use super::message::{
    Command, Element, IPSET_ATTR_ADT, IPSET_ATTR_BYTES, IPSET_ATTR_CIDR, IPSET_ATTR_CIDR2,
    IPSET_ATTR_COMMENT, IPSET_ATTR_DATA, IPSET_ATTR_IP, IPSET_ATTR_IP2, IPSET_ATTR_NAME, IPSET_ATTR_PACKETS,
    IPSET_ATTR_PAD, IPSET_ATTR_SETNAME, IPSET_ATTR_TIMEOUT, SetName, read_address,
};
use crate::kernel::Counters;
use crate::kernel::netlink::{Attribute, Attributes, Builder, Content, Malformed, Messages, messages};
use crate::kernel::socket::{DATAGRAM_MAX, Socket};
use crate::kernel::timeout::{TIMEOUT_MAX, Timeout};
use crate::rule::network::Network;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

/// The number of the only request of a socket.
const SEQUENCE: u32 = 1;

/// A listing of a set that goes on. Meanwhile the set can be changed, but neither
/// swapped nor destroyed; that ends when the listing is read to its end, or some
/// milliseconds after it is dropped. Entries that come or go meanwhile may be in it or
/// not.
#[derive(Debug)]
pub(crate) struct Dump {
    socket: Socket,
    buffer: Vec<u8>,
    state: State,
}

/// How far a listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is more of it.
    Running,
    /// The kernel has said that it is whole.
    Complete,
    /// It can't be gone on with.
    Failed,
}

impl Dump {
    pub(super) fn start(socket: Socket, name: &SetName, protocol: u8) -> Result<Dump, IpsetError> {
        let mut builder = Builder::new();
        Command::List.begin(&mut builder, 0, SEQUENCE, protocol);
        builder.string(IPSET_ATTR_SETNAME, name.as_str());
        builder.end();
        socket.send(&builder.finish()?)?;
        Ok(Dump { socket, buffer: vec![0; DATAGRAM_MAX], state: State::Running })
    }

    /// The next entries, some hundreds and perhaps none; nothing at the end.
    ///
    /// # Errors
    /// There is no such set, the kernel does not go on before the deadline, or what it
    /// says can't be read. Then the listing is over.
    pub(crate) fn next_piece(&mut self, deadline: Instant) -> Result<Option<Piece<'_>>, IpsetError> {
        if self.state != State::Running {
            return Ok(None);
        }
        self.state = State::Failed;
        let datagram = self.socket.receive(&mut self.buffer, deadline)?;
        self.state = if is_last(datagram)? { State::Complete } else { State::Running };
        Ok(Some(Piece::of(datagram)))
    }
}

/// Looks through a datagram for errors and for the end, before an entry is used.
pub(super) fn is_last(datagram: &[u8]) -> Result<bool, IpsetError> {
    let mut last = false;
    for message in messages(datagram) {
        let message = message?;
        if message.sequence != SEQUENCE {
            return Err(IpsetError::Malformed);
        }
        if message.is_interrupted() {
            return Err(IpsetError::Interrupted);
        }
        match message.content()? {
            Content::Data(_) => {}
            Content::Done(0) => last = true,
            Content::Done(code) | Content::Answer { code, .. } => {
                return Err(IpsetError::from_code(code, Command::List, false));
            }
        }
    }
    Ok(last)
}

/// Some entries of a listing.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    messages: Messages<'a>,
    /// Those left of the message before.
    entries: Attributes<'a>,
}

impl<'a> Piece<'a> {
    /// The entries of a datagram.
    pub(super) fn of(datagram: &'a [u8]) -> Piece<'a> {
        Piece { messages: messages(datagram), entries: Attributes::default() }
    }

    fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        loop {
            if let Some(attribute) = self.entries.next().transpose()? {
                if attribute.kind != IPSET_ATTR_DATA {
                    return Err(Malformed);
                }
                return Entry::read(attribute.nested()).map(Some);
            }
            let Some(message) = self.messages.next().transpose()? else { return Ok(None) };
            let Content::Data(attributes) = message.content()? else { continue };
            for attribute in attributes {
                let attribute = attribute?;
                if attribute.kind == IPSET_ATTR_ADT {
                    self.entries = attribute.nested();
                }
            }
        }
    }
}

impl<'a> Iterator for Piece<'a> {
    type Item = Result<Entry<'a>, IpsetError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_entry();
        if entry.is_err() {
            // What follows something malformed means nothing.
            (self.messages, self.entries) = (messages(&[]), Attributes::default());
        }
        entry.map_err(IpsetError::from).transpose()
    }
}

/// An entry of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// What it is about.
    pub element: Element<'a>,
    /// What is left of its time, without the part of a second, where the set has
    /// timeouts; 0 is for ever. More than rfw may give an entry is told as that.
    pub timeout: Option<Timeout>,
    /// What it has matched, where the set has counters.
    pub counters: Option<Counters>,
    /// Its comment, if it has one.
    pub comment: Option<Cow<'a, str>>,
    /// Whether it has anything that rfw's own do not have, such as `nomatch`, or an
    /// IPv4-mapped address among IPv6 ones.
    pub other: bool,
}

/// The attributes of an entry, as far as they are read.
#[derive(Default)]
struct Fields<'a> {
    first: Option<IpAddr>,
    first_prefix: Option<u8>,
    second: Option<IpAddr>,
    second_prefix: Option<u8>,
    member: Option<&'a str>,
    timeout: Option<Timeout>,
    packets: Option<u64>,
    bytes: Option<u64>,
    comment: Option<Cow<'a, str>>,
    other: bool,
}

impl<'a> Entry<'a> {
    fn read(attributes: Attributes<'a>) -> Result<Entry<'a>, Malformed> {
        let mut fields = Fields::default();
        for attribute in attributes {
            fields.take(&attribute?)?;
        }
        fields.entry()
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), Malformed> {
        match attribute.kind {
            IPSET_ATTR_IP => self.first = Some(read_address(attribute)?),
            IPSET_ATTR_CIDR => self.first_prefix = Some(attribute.u8()?),
            IPSET_ATTR_IP2 => self.second = Some(read_address(attribute)?),
            IPSET_ATTR_CIDR2 => self.second_prefix = Some(attribute.u8()?),
            IPSET_ATTR_NAME => {
                self.member = Some(std::str::from_utf8(attribute.string()?).map_err(|_| Malformed)?);
            }
            IPSET_ATTR_TIMEOUT => {
                let seconds = u64::from(attribute.u32_be()?).min(TIMEOUT_MAX);
                self.timeout = Timeout::new(seconds);
            }
            IPSET_ATTR_PACKETS => self.packets = Some(attribute.u64_be()?),
            IPSET_ATTR_BYTES => self.bytes = Some(attribute.u64_be()?),
            IPSET_ATTR_COMMENT => self.comment = Some(String::from_utf8_lossy(attribute.string()?)),
            IPSET_ATTR_PAD => {}
            _ => self.other = true,
        }
        Ok(())
    }

    fn entry(self) -> Result<Entry<'a>, Malformed> {
        let mut other = self.other;
        let mut network = |addr: IpAddr, prefix: Option<u8>| {
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            let network = Network::new(addr, prefix.unwrap_or(bits)).map_err(|_| Malformed)?;
            other |= network.addr().is_ipv4() != addr.is_ipv4();
            Ok(network)
        };
        let element = match (self.first, self.second, self.member) {
            (Some(first), None, None) => Element::Net(network(first, self.first_prefix)?),
            (Some(first), Some(second), None) => {
                Element::NetNet(network(first, self.first_prefix)?, network(second, self.second_prefix)?)
            }
            (None, None, Some(name)) => Element::Set(name),
            _ => return Err(Malformed),
        };
        let counters = self.packets.zip(self.bytes).map(|(packets, bytes)| Counters { packets, bytes });
        Ok(Entry { element, timeout: self.timeout, counters, comment: self.comment, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipset::message::{Comment, IPSET_ATTR_CADT_FLAGS, NewEntry};
    use crate::kernel::netlink::NLMSG_DONE;
    use proptest::prelude::*;

    /// A piece of a listing with these entries, as the kernel sends it.
    fn piece(entries: &[NewEntry<'_>], flags: u32) -> Vec<u8> {
        let mut builder = Builder::new();
        Command::List.begin(&mut builder, 2, SEQUENCE, 7);
        let adt = builder.nest(IPSET_ATTR_ADT);
        for entry in entries {
            entry.write_data(&mut builder, None);
        }
        if flags != 0 {
            let data = builder.nest(IPSET_ATTR_DATA);
            builder.string(IPSET_ATTR_NAME, "x");
            builder.u32_be(IPSET_ATTR_CADT_FLAGS, flags);
            builder.end_nest(data);
        }
        builder.end_nest(adt);
        builder.end();
        builder.begin(NLMSG_DONE, 2, SEQUENCE, 0);
        builder.end();
        builder.finish().unwrap()
    }

    fn read(datagram: &[u8]) -> Result<Vec<Entry<'_>>, IpsetError> {
        Piece::of(datagram).collect()
    }

    #[test]
    fn entries_written_and_read_again_are_themselves() {
        let net = |text: &str| text.parse::<Network>().unwrap();
        let elements = [
            Element::Net(net("10.0.0.0/8")),
            Element::Net(net("2001:db8::1")),
            Element::NetNet(net("1.2.3.4"), net("5.6.0.0/16")),
            Element::NetNet(net("2001:db8::/32"), net("::/1")),
            Element::Set("rfw4"),
        ];
        let entries = elements.map(|element| NewEntry {
            element,
            timeout: Timeout::new(9),
            counters: Some(Counters { packets: 1, bytes: u64::MAX }),
            comment: Comment::new("käse"),
        });
        let datagram = piece(&entries, 0);
        assert!(is_last(&datagram).unwrap());
        let read = read(&datagram).unwrap();
        assert_eq!(read.len(), entries.len());
        for (entry, new) in read.iter().zip(&entries) {
            assert_eq!(
                (entry.element, entry.timeout, entry.counters),
                (new.element, new.timeout, new.counters)
            );
            assert_eq!(entry.comment.as_deref(), Some("käse"));
            assert!(!entry.other);
        }
    }

    #[test]
    fn flags_and_mapped_addresses_are_told() {
        assert!(read(&piece(&[], 4)).unwrap()[0].other);
        let mut builder = Builder::new();
        Command::List.begin(&mut builder, 0, SEQUENCE, 7);
        let nests =
            [builder.nest(IPSET_ATTR_ADT), builder.nest(IPSET_ATTR_DATA), builder.nest(IPSET_ATTR_IP)];
        builder.bytes_be(2, &"::ffff:1.2.3.4".parse::<std::net::Ipv6Addr>().unwrap().octets());
        nests.into_iter().rev().for_each(|nest| builder.end_nest(nest));
        builder.end();
        let datagram = builder.finish().unwrap();
        let entries = read(&datagram).unwrap();
        assert_eq!(entries[0].element, Element::Net("1.2.3.4".parse().unwrap()));
        assert!(entries[0].other);
    }

    #[test]
    fn a_listing_that_fails_is_not_read() {
        let mut builder = Builder::new();
        builder.begin(NLMSG_DONE, 0x10, SEQUENCE, 0);
        builder.end();
        assert!(matches!(is_last(&builder.finish().unwrap()), Err(IpsetError::Interrupted)));
        let mut builder = Builder::new();
        builder.begin(NLMSG_DONE, 2, SEQUENCE + 1, 0);
        builder.end();
        assert!(matches!(is_last(&builder.finish().unwrap()), Err(IpsetError::Malformed)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..120, byte: u8) {
            let mut datagram = piece(&[NewEntry::new(Element::Set("rfw4")); 2], 4);
            let at = at % datagram.len();
            datagram[at] = byte;
            let _ = is_last(&datagram);
            let _ = read(&datagram);
        }
    }
}
