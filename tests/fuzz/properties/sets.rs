//! What the kernel tells about sets, as it is read: mounted beside its readers, whose parts nobody
//! else needs.

use super::dump::{Entry, Piece, is_last};
use super::info::{SetInfo, read_info};
use super::message::{
    Command, Comment, Definition, Element, IPSET_ATTR_ADT, IPSET_ATTR_SETNAME, NewEntry, SetName, SetType,
};
use crate::kernel::netlink::{Builder, messages};
use crate::properties::Input;
use crate::rule::network::{Family, Network};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Input: a byte whose upper bits tell that a set or its entries are to be written first, from the
/// rest; else a datagram.
pub(crate) fn holds(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice >> 6 {
        0 | 1 => datagram(data),
        2 => entries(Input::new(data)),
        _ => definition(Input::new(data)),
    }
}

fn datagram(data: &[u8]) {
    let last = is_last(data);
    let mut read = Vec::new();
    for entry in Piece::of(data) {
        assert!(read.last().is_none_or(Result::is_ok), "no entry after what is none");
        read.push(entry);
    }
    assert!(read.len() <= data.len() / 4 + 1);
    for entry in read.iter().flatten() {
        check(entry);
    }
    // What is not looked through to its end is not used.
    assert!(last.is_err() || messages(data).all(|message| message.is_ok()));
    for message in messages(data).flatten() {
        if let Ok(attributes) = message.attributes() {
            let info: Result<SetInfo, _> = read_info(attributes);
            assert!(info.is_err() || info.is_ok_and(|info| info.header.name.len() <= 3 * data.len()));
        }
    }
}

/// An entry that is written as rfw writes them is read as itself.
fn check(entry: &Entry<'_>) {
    let name = match entry.element {
        Element::Set(name) if SetName::new(name).is_none() => return,
        element => element,
    };
    let comment = entry.comment.as_deref().and_then(Comment::new);
    let new = NewEntry { element: name, timeout: entry.timeout, counters: entry.counters, comment };
    round(&[new]);
}

fn round(entries: &[NewEntry<'_>]) {
    let mut builder = Builder::new();
    Command::List.begin(&mut builder, 0, 1, 7);
    let adt = builder.nest(IPSET_ATTR_ADT);
    entries.iter().for_each(|entry| entry.write_data(&mut builder, None));
    builder.end_nest(adt);
    builder.end();
    // An attribute can be too long.
    let Ok(datagram) = builder.finish() else { return };
    assert!(matches!(is_last(&datagram), Ok(false)));
    let read: Vec<Result<Entry<'_>, _>> = Piece::of(&datagram).collect();
    assert!(read.iter().all(Result::is_ok) && read.len() == entries.len(), "{entries:?}: {read:?}");
    for (read, new) in read.iter().flatten().zip(entries) {
        assert_eq!((read.element, read.timeout, read.counters), (new.element, new.timeout, new.counters));
        assert_eq!(read.comment.as_deref(), new.comment.map(Comment::as_str));
        assert!(!read.other);
    }
}

fn entries(mut input: Input<'_>) {
    let texts: Vec<String> = (0..4).map(|_| input.text(9)).collect();
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 200 {
        let kind = input.byte();
        let text = texts.get(usize::from(kind >> 6)).map_or("", String::as_str);
        let Some(first) = network(&mut input, kind & 1 == 0) else { continue };
        let second = network(&mut input, kind & 1 == 0).unwrap_or(first);
        let element = match kind >> 1 & 3 {
            0 if SetName::new(text).is_some() => Element::Set(text),
            1 => Element::NetNet(first, second),
            _ => Element::Net(first),
        };
        let counters = crate::kernel::Counters { packets: input.u64(), bytes: input.u64() };
        let counters = (kind & 8 != 0).then_some(counters);
        let timeout = crate::kernel::timeout::Timeout::new(u64::from(input.u32() >> 11));
        entries.push(NewEntry {
            element,
            timeout,
            counters,
            comment: Comment::new(text).filter(|_| kind & 16 != 0),
        });
    }
    round(&entries);
}

fn network(input: &mut Input<'_>, v4: bool) -> Option<Network> {
    let addr: IpAddr = match v4 {
        true => Ipv4Addr::from_bits(input.u32()).into(),
        false => Ipv6Addr::from_bits(u128::from(input.u64()) << 64 | u128::from(input.u64())).into(),
    };
    // A mapped address is one of IPv4.
    Network::new(addr, input.byte() % 129).ok()
}

/// A set that is written as rfw writes it is read as itself.
fn definition(mut input: Input<'_>) {
    let choice = input.byte();
    let types = [
        SetType::Net(Family::V4),
        SetType::Net(Family::V6),
        SetType::NetNet(Family::V4),
        SetType::NetNet(Family::V6),
        SetType::List,
    ];
    let Some(set_type) = types.get(usize::from(choice) % types.len()).copied() else { return };
    let (maxelem, expected, revision) = (input.u32(), input.u32(), input.byte());
    let definition = Definition { set_type, maxelem, comments: choice & 0x80 != 0, expected };
    let Some(name) = SetName::new(&input.text(40)) else { return };
    let mut builder = Builder::new();
    Command::List.begin(&mut builder, 0, 1, 7);
    builder.string(IPSET_ATTR_SETNAME, name.as_str());
    definition.write(&mut builder, revision);
    builder.end();
    let Ok(datagram) = builder.finish() else { return };
    let info = messages(&datagram).flatten().find_map(|message| message.attributes().ok());
    let info = info.map(read_info);
    assert!(matches!(info, Some(Ok(_))), "{definition:?}: {info:?}");
    let info = info.and_then(Result::ok).unwrap_or_default();
    assert_eq!((info.header.name.as_str(), info.header.set_type), (name.as_str(), Some(set_type)));
    assert_eq!((info.header.revision, info.maxelem), (revision, maxelem));
    assert_eq!((info.comments, info.counters), (definition.comments, set_type != SetType::List));
    assert!(!info.other);
}
