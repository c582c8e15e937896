//! The generation of the nf_tables ruleset: a number that the kernel raises by one
//! with each committed transaction of any table. While it stays, so does what was read.
//! The kernel also tells whether a table exists, which an empty reading does not.
//!
//! Messages are those of `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nf_tables.h).
//! iptables-legacy has nothing like it.

use crate::kernel::netlink::{Builder, Content, NLM_F_REQUEST, messages};
use crate::kernel::socket::Socket;
use crate::rule::layout::TableName;
use crate::rule::network::Family;
use std::time::Instant;

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message type.
pub(super) const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_GETTABLE`.
const GETTABLE: u16 = NFTABLES | 1;
/// `NFT_MSG_GETGEN`.
const GETGEN: u16 = NFTABLES | 16;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFTA_GEN_ID`: the attribute that holds the number.
const GEN_ID: u16 = 1;
/// `AF_INET` and `AF_INET6`.
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// `NFPROTO_INET`: tables of both.
const INET: u8 = 1;
/// `ENOENT` as an error message has it.
const NO_ENTRY: i32 = -2;
/// Buffers of the socket in bytes: an answer has less than a hundred.
const BUFFER: usize = 8 << 10;

/// A connection to nf_tables. It stays open: close(2) of such a socket waits up to 15 ms for
/// work that the kernel has put off.
#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    socket: Option<Socket>,
    sequence: u32,
}

impl Ruleset {
    /// The generation now, or nothing where the kernel does not tell.
    pub(crate) fn generation(&mut self) -> Option<u32> {
        let mut buffer = [0; BUFFER];
        let sequence = self.ask(GETGEN, 0, |_| ())?;
        read_generation(self.answer(&mut buffer)?, sequence)
    }

    /// Whether there is a table of that name and family; nothing where the kernel does not tell.
    pub(crate) fn has_table(&mut self, family: Family, table: TableName) -> Option<bool> {
        let mut buffer = [0; BUFFER];
        let sequence =
            self.ask(GETTABLE, family_number(family), |builder| builder.string(TABLE_NAME, table.name()))?;
        read_table(self.answer(&mut buffer)?, sequence)
    }

    /// Whether there is a table of that name for both families together, which iptables does not know;
    /// nothing where the kernel does not tell.
    pub(crate) fn has_inet_table(&mut self, name: &str) -> Option<bool> {
        let mut buffer = [0; BUFFER];
        let sequence = self.ask(GETTABLE, INET, |builder| builder.string(TABLE_NAME, name))?;
        read_table(self.answer(&mut buffer)?, sequence)
    }

    /// Sends a request and gives its number.
    fn ask(&mut self, kind: u16, family: u8, attributes: impl FnOnce(&mut Builder)) -> Option<u32> {
        if self.socket.is_none() {
            self.socket = Socket::with_buffers(BUFFER).ok();
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut builder = Builder::new();
        builder.begin(kind, NLM_F_REQUEST, self.sequence, family);
        attributes(&mut builder);
        builder.end();
        let socket = self.socket.as_ref()?;
        socket.drain();
        socket.send(&builder.finish().ok()?).ok()?;
        Some(self.sequence)
    }

    /// The answer, which the kernel has queued before the send returns.
    fn answer<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        self.socket.as_ref()?.receive(buffer, Instant::now()).ok()
    }
}

/// The number of an address family.
pub(super) fn family_number(family: Family) -> u8 {
    if family == Family::V4 { AF_INET } else { AF_INET6 }
}

/// The number in the answer to the request `sequence`.
fn read_generation(datagram: &[u8], sequence: u32) -> Option<u32> {
    let message = messages(datagram).next()?.ok().filter(|message| message.sequence == sequence)?;
    let Content::Data(attributes) = message.content().ok()? else { return None };
    let mut ids = attributes.filter_map(Result::ok).filter(|attribute| attribute.kind == GEN_ID);
    ids.next()?.u32_be().ok()
}

/// Whether the answer to the request `sequence` is a table, or that there is none.
fn read_table(datagram: &[u8], sequence: u32) -> Option<bool> {
    let message = messages(datagram).next()?.ok().filter(|message| message.sequence == sequence)?;
    match message.content().ok()? {
        Content::Data(_) => Some(true),
        Content::Answer { code: NO_ENTRY, .. } => Some(false),
        Content::Answer { .. } | Content::Done(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NFT_MSG_NEWGEN` with a process before the number, as the kernel sends it.
    fn generation() -> Vec<u8> {
        let mut builder = Builder::new();
        builder.begin(NFTABLES | 15, 0, 7, 0);
        builder.attribute(2, &[0, 0, 0, 9]);
        builder.attribute(GEN_ID, &[0, 0, 1, 2]);
        builder.end();
        builder.finish().unwrap()
    }

    /// `NLMSG_ERROR` with that number.
    fn error(number: i32) -> Vec<u8> {
        let mut message = vec![36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        message.extend(number.to_ne_bytes());
        message.extend([20, 0, 0, 0, 1, 10, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        message
    }

    #[test]
    fn the_generation_is_read_from_the_answer_to_its_request() {
        let answer = generation();
        assert_eq!(read_generation(&answer, 7), Some(0x102));
        assert_eq!(read_generation(&answer, 6), None);
        assert_eq!(read_generation(&error(-1), 7), None);
        for length in 0..answer.len() {
            assert_eq!(read_generation(&answer[..length], 7), None, "{length}");
        }
    }

    #[test]
    fn only_the_kernel_says_that_there_is_no_table() {
        let golden = [
            (error(-2), Some(false)),
            (error(-1), None),
            (error(0), None),
            (generation(), Some(true)),
            (error(-2)[..10].to_vec(), None),
            (Vec::new(), None),
        ];
        for (answer, expected) in golden {
            assert_eq!(read_table(&answer, 7), expected, "{answer:?}");
        }
        assert_eq!(read_table(&error(-2), 8), None);
    }
}
