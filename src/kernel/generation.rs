//! The generation ID of the nf_tables ruleset: a counter that the kernel increments with
//! each committed transaction on any table. While it is unchanged, a copy of the table
//! read at that generation is current. iptables-legacy has no such counter.
//!
//! The module also queries whether a table exists, which empty output of iptables-save
//! does not prove.
//!
//! Both are one netlink(7) request and one reply: `NFT_MSG_GETGEN` and
//! `NFT_MSG_GETTABLE` of linux/netfilter/nf_tables.h.

use crate::rule::network::Family;
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GETGEN: u16 = 10 << 8 | 16;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`.
const NEWGEN: u16 = 10 << 8 | 15;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NFTA_GEN_ID`: the attribute of the generation ID, a `u32` in network byte order.
const GEN_ID: u16 = 1;
/// The length of `nlmsghdr` and `nfgenmsg` together, in bytes.
const HEADERS: usize = 20;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`.
const GETTABLE: u16 = 10 << 8 | 1;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE`.
const NEWTABLE: u16 = 10 << 8;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `-ENOENT`, the form of an error number in `nlmsgerr`.
const ENOENT: i32 = -2;
/// The attribute `NFTA_TABLE_NAME` with the value `filter`, a NUL and one byte of padding;
/// the length, 11, does not include the padding.
const FILTER: [u8; 12] = {
    let [low, high] = 11_u16.to_ne_bytes();
    let [kind, rest] = 1_u16.to_ne_bytes();
    [low, high, kind, rest, b'f', b'i', b'l', b't', b'e', b'r', 0, 0]
};

/// The current generation ID; `None` if the kernel does not report one.
pub fn current() -> Option<u32> {
    let socket = open()?;
    parse_generation(query(&socket, &request(GETGEN, 0, &[]), &mut [0; 512])?)
}

/// Whether nf_tables has a table `filter` of that family; `None` if the query fails.
pub fn has_filter_table(family: Family) -> Option<bool> {
    // AF_INET and AF_INET6.
    let family = if family == Family::V4 { 2 } else { 10 };
    let socket = open()?;
    parse_table(query(&socket, &request(GETTABLE, family, &FILTER), &mut [0; 512])?)
}

fn open() -> Option<OwnedFd> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER)).ok()
}

fn query<'a>(socket: &OwnedFd, request: &[u8], reply: &'a mut [u8]) -> Option<&'a [u8]> {
    send(socket, request, SendFlags::empty()).ok()?;
    // The kernel queues the reply before send(2) returns, so that recv(2) need not block.
    let (length, _) = recv(socket, &mut *reply, RecvFlags::DONTWAIT).ok()?;
    reply.get(..length)
}

/// A request: `nlmsghdr` in host byte order, `nfgenmsg`, attributes.
fn request(kind: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS.saturating_add(attributes.len())).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // nlmsg_seq and nlmsg_pid: zero, as the socket carries a single request.
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Whether a reply to `NFT_MSG_GETTABLE` is a table or the error `ENOENT`; `None` is any
/// other.
fn parse_table(reply: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let error = || Some(i32::from_ne_bytes(reply.get(16..20)?.try_into().ok()?));
    match kind {
        NEWTABLE => Some(true),
        ERROR if error()? == ENOENT => Some(false),
        _ => None,
    }
}

/// The generation ID in a reply to `NFT_MSG_GETGEN`.
fn parse_generation(reply: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let mut attributes = reply.get(HEADERS..).filter(|_| kind == NEWGEN)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == GEN_ID {
            return Some(u32::from_be_bytes(attributes.get(4..length)?.try_into().ok()?));
        }
        // Attributes are aligned to four bytes (NLA_ALIGNTO).
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_the_kernel_is_read() {
        let header = [0x2c, 0, 0, 0].into_iter().chain(NEWGEN.to_ne_bytes()).chain([0; 14]);
        let id = [8, 0, 1, 0, 0, 0, 1, 2];
        let pid = [8, 0, 2, 0, 0, 0, 0, 9];
        let reply: Vec<u8> = header.clone().chain(pid).chain(id).collect();
        assert_eq!(parse_generation(&reply), Some(0x102));
        assert_eq!(parse_generation(&header.clone().chain(pid).collect::<Vec<u8>>()), None);
        for length in 0..reply.len() {
            assert_eq!(parse_generation(&reply[..length]), None, "{length}");
        }
    }

    #[test]
    fn an_error_is_no_generation() {
        assert_eq!(
            parse_generation(&[
                36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 8, 0, 1, 0, 0, 0, 0, 1
            ]),
            None
        );
        assert_eq!(request(GETGEN, 0, &[]), [20, 0, 0, 0, 16, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            request(GETTABLE, 10, &FILTER),
            [
                32, 0, 0, 0, 1, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 11, 0, 1, 0, 102, 105, 108,
                116, 101, 114, 0, 0
            ]
        );
    }

    #[test]
    fn only_the_kernel_says_that_there_is_no_table() {
        let error = |number: i32| {
            let mut reply = vec![36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            reply.extend(number.to_ne_bytes());
            reply
        };
        let golden = [
            (error(-2), Some(false)),
            (error(-1), None),
            (error(0), None),
            (vec![0, 0, 0, 0, 0, 10, 0, 0], Some(true)),
            (vec![36, 0, 0, 0, 2, 0], None),
            (Vec::new(), None),
        ];
        for (reply, expected) in golden {
            assert_eq!(parse_table(&reply), expected, "{reply:?}");
        }
    }
}
