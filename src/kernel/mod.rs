//! How one speaks to the kernel: through iptables and ipset, whose languages stand here,
//! and by netlink.

pub mod coprocess;
pub mod generation;
pub mod guard;
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "the whole of the protocol, of which comments and lists are not in use")
)]
pub mod ipset;
pub mod iptables;
#[allow(dead_code, reason = "attributes of all widths")]
pub mod netlink;
pub mod program;
pub mod save_reader;
pub mod set_key;
pub mod socket;
pub mod timeout;

/// The packets and bytes that a rule, or an entry of a set, has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}
