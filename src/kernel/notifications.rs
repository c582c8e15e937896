//! What the kernel tells of changes of the nf_tables ruleset: that rules, chains or tables of
//! IPv4 or IPv6 may have changed. It is a hint to look, no more: rfw's own changes come too,
//! and what is too much for the buffer is lost.
//!
//! Messages are those of `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) and of
//! `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nf_tables.h). iptables-legacy and sets tell
//! nothing.

use crate::kernel::generation::{AF_INET, AF_INET6, NFTABLES};
use crate::kernel::netlink::{Message, messages};
use crate::kernel::socket::{Socket, SocketError};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

/// `NFNLGRP_NFTABLES`, as the bit of an address.
const GROUP: u32 = 1 << (7 - 1);
/// `NFT_MSG_DELRULE`: the last of the messages of tables, chains and rules. Those behind it tell
/// of sets, of which other programs change elements all the time.
const DELRULE: u16 = NFTABLES | 8;
/// No rule of another family is one of iptables.
const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];
/// Buffers of the socket in bytes: of the changes of a large transaction the first are enough.
const BUFFER: usize = 32 << 10;
/// The most bytes read of a datagram: the kernel packs messages into pages.
const DATAGRAM: usize = 8 << 10;
/// The most datagrams that are read at once: more than the buffer holds.
const DATAGRAMS: usize = 256;

/// A socket that is told of changes of the ruleset of this network namespace.
#[derive(Debug)]
pub(crate) struct Notifications(Socket);

impl Notifications {
    /// Opens a socket that is told from now on.
    ///
    /// # Errors
    /// The kernel has no nf_tables over netlink, or the process no `CAP_NET_ADMIN` or no more
    /// descriptors.
    pub(crate) fn open() -> Result<Notifications, SocketError> {
        let socket = Socket::with_buffers(BUFFER)?;
        socket.join(GROUP)?;
        Ok(Notifications(socket))
    }

    /// Takes what has been told so far, without waiting. Whether rules may have changed since the
    /// last time: also where some of it was lost.
    pub(crate) fn drain(&self) -> bool {
        let (mut buffer, mut has_changed) = ([0; DATAGRAM], false);
        for _ in 0..DATAGRAMS {
            match self.0.receive_now(&mut buffer) {
                Ok(Some(length)) => {
                    has_changed = has_changed || buffer.get(..length).is_none_or(tells_of_rules);
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return has_changed,
                // ENOBUFS: some were lost.
                Err(_) => has_changed = true,
            }
        }
        true
    }
}

/// To poll for input.
impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a datagram tells of rules, chains or tables of iptables, or can't be read.
fn tells_of_rules(datagram: &[u8]) -> bool {
    messages(datagram).any(|message| message.map_or(true, |message| is_of_rules(&message)))
}

fn is_of_rules(message: &Message<'_>) -> bool {
    let is_of_family = message.family().is_none_or(|family| FAMILIES.contains(&family));
    (NFTABLES..=DELRULE).contains(&message.kind) && is_of_family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::alone::{alone, program};
    use crate::kernel::netlink::Builder;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn message(kind: u16, family: u8) -> Vec<u8> {
        let mut builder = Builder::new();
        builder.begin(NFTABLES | kind, 0, 1, family);
        builder.string(1, "filter");
        builder.end();
        builder.finish().unwrap()
    }

    #[test]
    fn rules_chains_and_tables_of_iptables_are_told_from_the_rest() {
        // NFPROTO_INET is 1, NFPROTO_BRIDGE 7.
        let golden = [
            ("NFT_MSG_NEWTABLE", 0, 2, true),
            ("NFT_MSG_DELTABLE", 2, 10, true),
            ("NFT_MSG_DELCHAIN", 5, 2, true),
            ("NFT_MSG_NEWRULE", 6, 10, true),
            ("NFT_MSG_DELRULE", 8, 2, true),
            ("a rule of inet", 6, 1, false),
            ("a rule of bridge", 8, 7, false),
            ("NFT_MSG_NEWSETELEM", 12, 2, false),
            ("NFT_MSG_NEWGEN", 15, 0, false),
        ];
        for (name, kind, family, expected) in golden {
            assert_eq!(tells_of_rules(&message(kind, family)), expected, "{name}");
            let behind = [message(15, 0), message(kind, family)].concat();
            assert_eq!(tells_of_rules(&behind), expected, "{name}");
        }
        assert!(!tells_of_rules(&[]));
    }

    #[test]
    fn what_is_cut_off_is_a_reason_to_look() {
        let whole = [message(15, 0), message(12, 2)].concat();
        assert!(!tells_of_rules(&whole));
        let end = message(15, 0).len();
        for length in (1..whole.len()).filter(|length| *length != end) {
            assert!(tells_of_rules(&whole[..length]), "{length}");
        }
    }

    fn is_readable(notifications: &Notifications) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(notifications, PollFlags::IN)], Some(&now)).unwrap() > 0
    }

    #[test]
    fn a_change_of_the_table_is_told_and_one_of_others_is_not() {
        alone("kernel::notifications::tests::a_change_of_the_table_is_told_and_one_of_others_is_not", || {
            let notifications = Notifications::open().unwrap();
            assert!(!is_readable(&notifications) && !notifications.drain());
            program("iptables-nft -A INPUT -s 192.0.2.1 -j DROP");
            assert!(is_readable(&notifications) && notifications.drain());
            assert!(!is_readable(&notifications) && !notifications.drain());
            program("iptables-nft -F INPUT");
            assert!(notifications.drain());
            program("ip6tables-nft -A INPUT -j DROP");
            assert!(notifications.drain());
            program("nft add table inet other");
            assert!(is_readable(&notifications) && !notifications.drain());
            program("nft flush ruleset");
            assert!(notifications.drain());
        });
    }

    #[test]
    fn what_is_too_much_for_the_buffer_is_a_reason_to_look() {
        alone("kernel::notifications::tests::what_is_too_much_for_the_buffer_is_a_reason_to_look", || {
            let notifications = Notifications::open().unwrap();
            program("nft add table inet other");
            // Nothing of iptables: what is lost may have been.
            for _ in 0..3 {
                let chains: String = (0..1_000).map(|i| format!(" add chain inet other c{i};")).collect();
                let output = std::process::Command::new("nft").arg(chains).output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            assert!(notifications.drain());
            assert!(!is_readable(&notifications) && !notifications.drain());
        });
    }
}
