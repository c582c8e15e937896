//! What messages about sets are made of: commands, names, definitions and elements, as
//! linux/netfilter/ipset/ip_set.h numbers them. No I/O.

use crate::kernel::Counters;
use crate::kernel::netlink::{Attribute, Builder, Malformed, NLM_F_REQUEST, Nest};
use crate::kernel::timeout::Timeout;
use crate::rule::network::{Family, Network};
use std::fmt;
use std::net::IpAddr;

/// `NFNL_SUBSYS_IPSET` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 6 << 8;

// Attributes of a command.
pub(super) const IPSET_ATTR_PROTOCOL: u16 = 1;
pub(super) const IPSET_ATTR_SETNAME: u16 = 2;
pub(super) const IPSET_ATTR_TYPENAME: u16 = 3;
pub(super) const IPSET_ATTR_SETNAME2: u16 = 3;
pub(super) const IPSET_ATTR_REVISION: u16 = 4;
pub(super) const IPSET_ATTR_FAMILY: u16 = 5;
pub(super) const IPSET_ATTR_FLAGS: u16 = 6;
pub(super) const IPSET_ATTR_DATA: u16 = 7;
pub(super) const IPSET_ATTR_ADT: u16 = 8;
pub(super) const IPSET_ATTR_LINENO: u16 = 9;
pub(super) const IPSET_ATTR_PROTOCOL_MIN: u16 = 10;
pub(super) const IPSET_ATTR_REVISION_MIN: u16 = 10;

// Attributes of a definition and of an entry.
pub(super) const IPSET_ATTR_IP: u16 = 1;
pub(super) const IPSET_ATTR_CIDR: u16 = 3;
pub(super) const IPSET_ATTR_TIMEOUT: u16 = 6;
pub(super) const IPSET_ATTR_CADT_FLAGS: u16 = 8;

// Attributes of a definition.
pub(super) const IPSET_ATTR_INITVAL: u16 = 17;
pub(super) const IPSET_ATTR_HASHSIZE: u16 = 18;
pub(super) const IPSET_ATTR_MAXELEM: u16 = 19;
pub(super) const IPSET_ATTR_BUCKETSIZE: u16 = 21;
pub(super) const IPSET_ATTR_SIZE: u16 = 23;
pub(super) const IPSET_ATTR_ELEMENTS: u16 = 24;
pub(super) const IPSET_ATTR_REFERENCES: u16 = 25;
pub(super) const IPSET_ATTR_MEMSIZE: u16 = 26;

// Attributes of an entry.
pub(super) const IPSET_ATTR_NAME: u16 = 18;
pub(super) const IPSET_ATTR_IP2: u16 = 20;
pub(super) const IPSET_ATTR_CIDR2: u16 = 21;
pub(super) const IPSET_ATTR_BYTES: u16 = 24;
pub(super) const IPSET_ATTR_PACKETS: u16 = 25;
pub(super) const IPSET_ATTR_COMMENT: u16 = 26;
pub(super) const IPSET_ATTR_PAD: u16 = 30;

// Attributes of an address.
const IPSET_ATTR_IPADDR_IPV4: u16 = 1;
const IPSET_ATTR_IPADDR_IPV6: u16 = 2;

// Flags of a command.
pub(super) const IPSET_FLAG_LIST_SETNAME: u32 = 1 << 1;
pub(super) const IPSET_FLAG_LIST_HEADER: u32 = 1 << 2;

// Flags of a definition.
pub(super) const IPSET_FLAG_WITH_COUNTERS: u32 = 1 << 3;
pub(super) const IPSET_FLAG_WITH_COMMENT: u32 = 1 << 4;

/// `NFPROTO_UNSPEC`, the family of a list.
const NFPROTO_UNSPEC: u8 = 0;
/// `NFPROTO_IPV4`.
const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
const NFPROTO_IPV6: u8 = 10;

/// The longest name of a set in bytes: `IPSET_MAXNAMELEN` less its NUL.
const NAME_MAX: usize = 31;

/// The longest comment in bytes: `IPSET_MAX_COMMENT_SIZE`.
const COMMENT_MAX: usize = 255;

/// `IPSET_DEFAULT_HASHSIZE`.
const HASHSIZE_DEFAULT: u32 = 1 << 10;

/// The most buckets that are made before there are entries: 8 MB.
const HASHSIZE_MAX: u32 = 1 << 20;

/// What is asked of the kernel: `enum ipset_cmd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Command {
    /// The versions of the protocol.
    Protocol = 1,
    /// A new set.
    Create = 2,
    /// No set any more.
    Destroy = 3,
    /// No entries any more.
    Flush = 4,
    /// Two sets with each other's names.
    Swap = 6,
    /// Sets and their entries.
    List = 7,
    /// An entry.
    Add = 9,
    /// No entry any more.
    Del = 10,
    /// Whether it matches.
    Test = 11,
    /// A set without its entries or their number.
    Header = 12,
    /// The revisions of a type of sets.
    Type = 13,
}

impl Command {
    /// The type of its netlink message.
    fn kind(self) -> u16 {
        SUBSYSTEM | self as u16
    }

    /// Begins a message: what every one has first is the version of the protocol.
    pub(super) fn begin(self, builder: &mut Builder, flags: u16, sequence: u32, protocol: u8) {
        builder.begin(self.kind(), NLM_F_REQUEST | flags, sequence, NFPROTO_UNSPEC);
        builder.u8(IPSET_ATTR_PROTOCOL, protocol);
    }
}

/// The name of a set: 1 to 31 bytes. An empty one would mean all sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetName(String);

impl SetName {
    /// A name that the kernel takes.
    pub(crate) fn new(name: &str) -> Option<SetName> {
        let fits = (1..=NAME_MAX).contains(&name.len()) && !name.contains('\0');
        fits.then(|| SetName(name.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The comment of an entry: at most 255 bytes, no control characters, and no quotation
/// mark, which ipset(8) prints and then can't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comment<'a>(&'a str);

impl<'a> Comment<'a> {
    /// A comment that the kernel and ipset(8) take.
    pub(crate) fn new(text: &'a str) -> Option<Comment<'a>> {
        let plain = !text.contains(|c: char| c.is_control() || c == '"');
        Some(Comment(text)).filter(|_| plain && text.len() <= COMMENT_MAX)
    }

    /// The text.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

/// The types of sets that rfw makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SetType {
    /// `hash:net`: networks of a family.
    Net(Family),
    /// `hash:net,net`: pairs of networks of a family.
    NetNet(Family),
    /// `list:set`: sets.
    List,
}

impl SetType {
    /// What ipset(8) and the kernel call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SetType::Net(_) => "hash:net",
            SetType::NetNet(_) => "hash:net,net",
            SetType::List => "list:set",
        }
    }

    /// The lowest revision that has counters and comments (`…_TYPE_REV_…` in
    /// ip_set_hash_net.c, ip_set_hash_netnet.c, ip_set_list_set.c).
    pub(super) fn lowest_revision(self) -> u8 {
        match self {
            SetType::Net(_) => 4,
            SetType::NetNet(_) => 0,
            SetType::List => 2,
        }
    }

    pub(super) fn nfproto(self) -> u8 {
        match self {
            SetType::Net(family) | SetType::NetNet(family) => nfproto(family),
            SetType::List => NFPROTO_UNSPEC,
        }
    }

    /// The type of that name and family, if it is one of these.
    pub(super) fn from_kernel(name: &[u8], nfproto: u8) -> Option<SetType> {
        use Family::{V4, V6};
        use SetType::{List, Net, NetNet};
        let all = [Net(V4), Net(V6), NetNet(V4), NetNet(V6), List];
        all.into_iter().find(|kind| kind.name().as_bytes() == name && kind.nfproto() == nfproto)
    }
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

/// A set to be made. Those of networks have timeouts, 0 by default, and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Its type and family.
    pub set_type: SetType,
    /// The most entries.
    pub maxelem: u32,
    /// Whether entries may have comments, which takes eight bytes an entry.
    pub comments: bool,
    /// About how many entries come soon, 0 if that is not known. A table that is large
    /// enough from the start takes entries in a third of the time.
    pub expected: u32,
}

impl Definition {
    /// `IPSET_ATTR_HASHSIZE`: the number of buckets, where two entries a bucket need no
    /// more room later.
    fn hashsize(&self) -> u32 {
        let entries = self.expected.min(self.maxelem);
        entries.div_ceil(2).next_power_of_two().clamp(HASHSIZE_DEFAULT, HASHSIZE_MAX)
    }

    /// Writes the attributes of `IPSET_CMD_CREATE` behind the name.
    pub(super) fn write(&self, builder: &mut Builder, revision: u8) {
        builder.string(IPSET_ATTR_TYPENAME, self.set_type.name());
        builder.u8(IPSET_ATTR_REVISION, revision);
        builder.u8(IPSET_ATTR_FAMILY, self.set_type.nfproto());
        let data = builder.nest(IPSET_ATTR_DATA);
        let mut flags = if self.comments { IPSET_FLAG_WITH_COMMENT } else { 0 };
        if self.set_type == SetType::List {
            builder.u32_be(IPSET_ATTR_SIZE, self.maxelem);
        } else {
            flags |= IPSET_FLAG_WITH_COUNTERS;
            builder.u32_be(IPSET_ATTR_HASHSIZE, self.hashsize());
            builder.u32_be(IPSET_ATTR_MAXELEM, self.maxelem);
            builder.u32_be(IPSET_ATTR_TIMEOUT, 0);
        }
        builder.u32_be(IPSET_ATTR_CADT_FLAGS, flags);
        builder.end_nest(data);
    }
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element<'a> {
    /// A network, in a `hash:net`.
    Net(Network),
    /// A pair of networks, in a `hash:net,net`.
    NetNet(Network, Network),
    /// The name of a set, in a `list:set`: of a [`SetName`], or as the kernel tells it.
    Set(&'a str),
}

impl<'a> From<&'a SetName> for Element<'a> {
    fn from(name: &'a SetName) -> Element<'a> {
        Element::Set(name.as_str())
    }
}

impl Element<'_> {
    /// Whether it is a member of a list.
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Element::Set(_))
    }

    fn write(&self, builder: &mut Builder) {
        match self {
            Element::Net(network) => write_network(builder, IPSET_ATTR_IP, IPSET_ATTR_CIDR, network),
            Element::NetNet(first, second) => {
                write_network(builder, IPSET_ATTR_IP, IPSET_ATTR_CIDR, first);
                write_network(builder, IPSET_ATTR_IP2, IPSET_ATTR_CIDR2, second);
            }
            Element::Set(name) => builder.string(IPSET_ATTR_NAME, name),
        }
    }
}

fn write_network(builder: &mut Builder, ip: u16, cidr: u16, network: &Network) {
    let nest = builder.nest(ip);
    match network.addr() {
        IpAddr::V4(addr) => builder.bytes_be(IPSET_ATTR_IPADDR_IPV4, &addr.octets()),
        IpAddr::V6(addr) => builder.bytes_be(IPSET_ATTR_IPADDR_IPV6, &addr.octets()),
    }
    builder.end_nest(nest);
    // Without a prefix length it is a host; a list of hosts is a fifth shorter so.
    if !network.is_host() {
        builder.u8(cidr, network.prefix());
    }
}

/// An address of a nested `IPSET_ATTR_IP`.
pub(super) fn read_address(attribute: &Attribute<'_>) -> Result<IpAddr, Malformed> {
    let inner = attribute.nested().next().ok_or(Malformed)??;
    match inner.kind {
        IPSET_ATTR_IPADDR_IPV4 => inner.array::<4>().map(IpAddr::from),
        IPSET_ATTR_IPADDR_IPV6 => inner.array::<16>().map(IpAddr::from),
        _ => Err(Malformed),
    }
}

/// An entry to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewEntry<'a> {
    /// What it is about.
    pub element: Element<'a>,
    /// How long it stays. `None` is for sets without timeouts; in others it is for ever.
    pub timeout: Option<Timeout>,
    /// What it begins to count from. `None` is 0, or what an entry that is there has.
    pub counters: Option<Counters>,
    /// Its comment. Without one, an entry that is there loses its own.
    pub comment: Option<Comment<'a>>,
}

impl<'a> NewEntry<'a> {
    /// An entry of nothing but an element.
    pub(crate) fn new(element: Element<'a>) -> NewEntry<'a> {
        NewEntry { element, timeout: None, counters: None, comment: None }
    }

    fn write(&self, builder: &mut Builder) {
        self.element.write(builder);
        if let Some(timeout) = self.timeout {
            // At most 2,147,483.
            builder.u32_be(IPSET_ATTR_TIMEOUT, u32::try_from(timeout.seconds()).unwrap_or(u32::MAX));
        }
        if let Some(Counters { packets, bytes }) = self.counters {
            builder.u64_be(IPSET_ATTR_PACKETS, packets);
            builder.u64_be(IPSET_ATTR_BYTES, bytes);
        }
        if let Some(comment) = self.comment {
            builder.string(IPSET_ATTR_COMMENT, comment.as_str());
        }
    }

    /// Writes it as `IPSET_ATTR_DATA`. With a line, the kernel sends that back if it
    /// refuses the entry.
    pub(super) fn write_data(&self, builder: &mut Builder, line: Option<u32>) {
        let data: Nest = builder.nest(IPSET_ATTR_DATA);
        self.write(builder);
        if let Some(line) = line {
            builder.u32(IPSET_ATTR_LINENO, line);
        }
        builder.end_nest(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_comment_are_what_the_kernel_takes() {
        for (name, fits) in [("a", true), ("", false), ("a\0b", false), ("rfw4-ids-eth+", true)] {
            assert_eq!(SetName::new(name).is_some(), fits, "{name:?}");
        }
        assert!(SetName::new(&"x".repeat(31)).is_some() && SetName::new(&"x".repeat(32)).is_none());
        for (comment, fits) in [("", true), ("käse 'x' \\", true), ("a\"b", false), ("a\nb", false)] {
            assert_eq!(Comment::new(comment).is_some(), fits, "{comment:?}");
        }
        assert!(Comment::new(&"x".repeat(255)).is_some() && Comment::new(&"x".repeat(256)).is_none());
    }

    #[test]
    fn a_table_has_room_for_what_is_expected() {
        let golden = [
            (0, 1_024),
            (2_048, 1_024),
            (2_049, 2_048),
            (100_000, 65_536),
            (1_000_000, 524_288),
            (u32::MAX, 524_288),
        ];
        for (expected, hashsize) in golden {
            let set_type = SetType::Net(Family::V4);
            let definition = Definition { set_type, maxelem: 1_000_000, comments: false, expected };
            assert_eq!(definition.hashsize(), hashsize, "{expected}");
        }
    }

    #[test]
    fn types_are_found_by_name_and_family() {
        let golden = [
            (&b"hash:net"[..], 2, Some(SetType::Net(Family::V4))),
            (b"hash:net", 10, Some(SetType::Net(Family::V6))),
            (b"hash:net,net", 2, Some(SetType::NetNet(Family::V4))),
            (b"list:set", 0, Some(SetType::List)),
            (b"hash:ip", 2, None),
            (b"hash:net", 0, None),
        ];
        for (name, nfproto, set_type) in golden {
            assert_eq!(SetType::from_kernel(name, nfproto), set_type);
        }
    }

    #[test]
    fn an_entry_is_written_as_the_kernel_reads_it() {
        let mut builder = Builder::new();
        let entry = NewEntry {
            element: Element::Net("10.0.0.0/8".parse().unwrap()),
            timeout: Timeout::new(300),
            counters: None,
            comment: Comment::new("x"),
        };
        entry.write_data(&mut builder, Some(1));
        let mut expected = Vec::new();
        expected.extend([vec![52, 0, 7, 0x80], vec![12, 0, 1, 0x80, 8, 0, 1, 0x40, 10, 0, 0, 0]].concat());
        expected.extend([5, 0, 3, 0, 8, 0, 0, 0]);
        expected.extend([8, 0, 6, 0x40, 0, 0, 1, 44]);
        expected.extend([6, 0, 26, 0, b'x', 0, 0, 0]);
        expected.extend([8, 0, 9, 0, 1, 0, 0, 0]);
        expected[0] = u8::try_from(expected.len()).unwrap();
        assert_eq!(builder.finish().unwrap(), expected);
    }
}
