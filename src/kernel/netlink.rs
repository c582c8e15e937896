//! Framing of netlink messages to nfnetlink subsystems: `nlmsghdr`, `nfgenmsg` and
//! attributes (netlink(7), linux/netlink.h, linux/netfilter/nfnetlink.h).
//!
//! Headers are in host byte order, attributes in the order that their name says.
//! Nothing here knows a subsystem or does I/O. Reading never panics: what is no
//! message is [`Malformed`].

use std::fmt;

/// `NLMSG_ERROR`: an error, or with code 0 an acknowledgement.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;

/// `NLM_F_REQUEST`: what every message to the kernel carries.
pub(crate) const NLM_F_REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: answer success too, not only failure.
pub(crate) const NLM_F_ACK: u16 = 0x04;
/// `NLM_F_DUMP_INTR`: what is dumped changed in the middle.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_EXCL`: fail if it exists.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: make it if it does not exist.
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// `NLA_F_NESTED`: the value is attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// `NLA_F_NET_BYTEORDER`: the value is in network byte order.
const NLA_F_NET_BYTEORDER: u16 = 0x4000;
/// `NLA_TYPE_MASK`.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The length of `nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// The length of `nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// The length of `nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLMSG_ALIGNTO` and `NLA_ALIGNTO`.
const ALIGNMENT: usize = 4;

/// Bytes that are no netlink message, or a value of another length than its type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed netlink message")
    }
}

impl std::error::Error for Malformed {}

/// The start of an attribute that is not complete yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Nest(usize);

/// Messages one behind the other, as one send takes them.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    /// Where the last message begins.
    message: usize,
    /// An attribute was longer than its 16-bit length can say.
    overlong: bool,
}

impl Builder {
    /// No message.
    pub(crate) fn new() -> Builder {
        Builder::default()
    }

    /// Begins a message: `nlmsghdr` and an `nfgenmsg` of that address family.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family: u8) {
        self.begin_for(0, kind, flags, sequence, family);
    }

    /// The same for a resource, which of a batch is the subsystem.
    pub(crate) fn begin_for(&mut self, resource: u16, kind: u16, flags: u16, sequence: u32, family: u8) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        // The port 0 is the kernel's; nfgenmsg: family, NFNETLINK_V0, resource.
        self.bytes.extend_from_slice(&[0, 0, 0, 0, family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
    }

    /// Completes the message: its length is known now.
    pub(crate) fn end(&mut self) {
        let length = u32::try_from(self.bytes.len().saturating_sub(self.message));
        self.overlong |= length.is_err();
        self.patch(self.message, &length.unwrap_or_default().to_ne_bytes());
    }

    /// An attribute of one byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    /// An attribute of 32 bits in host byte order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// An attribute of 16 bits in network byte order, and marked so.
    pub(crate) fn u16_be(&mut self, kind: u16, value: u16) {
        self.bytes_be(kind, &value.to_be_bytes());
    }

    /// An attribute of 32 bits in network byte order, and marked so.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.bytes_be(kind, &value.to_be_bytes());
    }

    /// An attribute of 64 bits in network byte order, and marked so.
    pub(crate) fn u64_be(&mut self, kind: u16, value: u64) {
        self.bytes_be(kind, &value.to_be_bytes());
    }

    /// An attribute of bytes that are marked as being in network byte order.
    pub(crate) fn bytes_be(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind | NLA_F_NET_BYTEORDER, value);
    }

    /// An attribute that is a string, with the NUL that ends it.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let start = self.bytes.len();
        self.header(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute of bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.bytes.len();
        self.header(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// Begins an attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16) -> Nest {
        let start = self.bytes.len();
        self.header(kind | NLA_F_NESTED);
        Nest(start)
    }

    /// Completes an attribute that holds attributes.
    pub(crate) fn end_nest(&mut self, nest: Nest) {
        self.close(nest.0);
    }

    /// How long an attribute is so far, its header included.
    pub(crate) fn nest_length(&self, nest: &Nest) -> usize {
        self.bytes.len().saturating_sub(nest.0)
    }

    /// The length of all messages together.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The messages.
    ///
    /// # Errors
    /// A message or an attribute is longer than its length field can say.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Malformed> {
        if self.overlong { Err(Malformed) } else { Ok(self.bytes) }
    }

    fn header(&mut self, kind: u16) {
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    /// Writes the length of the attribute that begins at `start`, which does not count
    /// its padding, and pads it.
    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len().saturating_sub(start));
        self.overlong |= length.is_err();
        self.patch(start, &length.unwrap_or_default().to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        let places = self.bytes.iter_mut().skip(at);
        places.zip(value).for_each(|(place, byte)| *place = *byte);
    }
}

/// Where the headers of a complete buffer of messages are, to change them in place.
///
/// `change` is given flags and sequence number of each message and where it ends.
///
/// # Errors
/// What is no message.
pub(crate) fn rewrite_headers(
    bytes: &mut [u8],
    mut change: impl FnMut(&mut u16, &mut u32, usize),
) -> Result<(), Malformed> {
    let mut rest = bytes;
    let mut end = 0_usize;
    while let Some(header) = rest.first_chunk_mut::<MESSAGE_HEADER>() {
        let [l0, l1, l2, l3, _, _, f0, f1, s0, s1, s2, s3, ..] = header;
        let length = u32::from_ne_bytes([*l0, *l1, *l2, *l3]);
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let step = length.max(MESSAGE_HEADER).next_multiple_of(ALIGNMENT);
        end = end.saturating_add(step);
        let (mut flags, mut sequence) =
            (u16::from_ne_bytes([*f0, *f1]), u32::from_ne_bytes([*s0, *s1, *s2, *s3]));
        change(&mut flags, &mut sequence, end);
        [*f0, *f1] = flags.to_ne_bytes();
        [*s0, *s1, *s2, *s3] = sequence.to_ne_bytes();
        rest = rest.get_mut(step..).ok_or(Malformed)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// A message of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Subsystem and command, or below 16 what netlink itself says.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows `nlmsghdr`.
    payload: &'a [u8],
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// The end of a dump; the code is 0, or below it an error that cut it short.
    Done(i32),
    /// The request was answered; the code is 0, or below it an error.
    Answer {
        /// The negative error number.
        code: i32,
        /// The request itself, where the kernel sends it back.
        request: Option<Message<'a>>,
    },
    /// Attributes of the subsystem.
    Data(Attributes<'a>),
}

impl<'a> Message<'a> {
    /// What it says.
    ///
    /// # Errors
    /// It is shorter than its kind has to be.
    pub(crate) fn content(&self) -> Result<Content<'a>, Malformed> {
        match self.kind {
            // Kernels before 2.6.39 give no code.
            NLMSG_DONE => {
                Ok(Content::Done(self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))))
            }
            NLMSG_ERROR => {
                let (code, request) = self.payload.split_first_chunk().ok_or(Malformed)?;
                let request = messages(request).next().and_then(Result::ok);
                Ok(Content::Answer { code: i32::from_ne_bytes(*code), request })
            }
            _ => Ok(Content::Data(self.attributes()?)),
        }
    }

    /// The attributes behind `nfgenmsg`.
    ///
    /// # Errors
    /// It is too short for an `nfgenmsg`.
    pub(crate) fn attributes(&self) -> Result<Attributes<'a>, Malformed> {
        self.payload.get(FAMILY_HEADER..).map(attributes).ok_or(Malformed)
    }

    /// The address family of its `nfgenmsg`, if it has one.
    pub(crate) fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Whether these bytes are somewhere in it.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.payload.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Whether what is dumped changed in the middle.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }
}

/// The messages of a datagram. After one that is malformed there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Messages<'a>(&'a [u8]);

/// The messages of a datagram.
pub(crate) fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages(datagram)
}

impl<'a> Messages<'a> {
    fn read(&self) -> Option<(Message<'a>, &'a [u8])> {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *self.0.first_chunk::<MESSAGE_HEADER>()?;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = self.0.get(MESSAGE_HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        };
        Some((message, after(self.0, length)))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (item, rest) =
            self.read().map_or((Err(Malformed), &[][..]), |(message, rest)| (Ok(message), rest));
        self.0 = rest;
        Some(item)
    }
}

/// What follows something of that length and its padding, which the last may lack.
#[inline(always)]
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default()
}

/// An attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    /// Its type, without the flags for nesting and byte order.
    pub kind: u16,
    value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// One byte.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// 32 bits in host byte order.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// 16 bits in network byte order.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn u16_be(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// 32 bits in network byte order.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn u32_be(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// 64 bits in network byte order.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn u64_be(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// As many bytes as are asked for.
    ///
    /// # Errors
    /// Another length.
    pub(crate) fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed)
    }

    /// A string without the NUL that ends it.
    ///
    /// # Errors
    /// No NUL at its end, or one before it.
    pub(crate) fn string(&self) -> Result<&'a [u8], Malformed> {
        match self.value.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(text),
            _ => Err(Malformed),
        }
    }

    /// Its bytes, whatever they are.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.value
    }

    /// The attributes that it holds.
    pub(crate) fn nested(&self) -> Attributes<'a> {
        attributes(self.value)
    }
}

/// Attributes one behind the other. After one that is malformed there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes<'a>(&'a [u8]);

fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Attributes<'a> {
    #[inline(always)]
    fn read(&self) -> Option<(Attribute<'a>, &'a [u8])> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        let kind = u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK;
        Some((Attribute { kind, value }, after(self.0, length)))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (item, rest) = self.read().map_or((Err(Malformed), &[][..]), |(found, rest)| (Ok(found), rest));
        self.0 = rest;
        Some(item)
    }
}

#[cfg(test)]
mod tests;
