//! Access to the kernel's packet filter: the formats of iptables(8) and ipset(8), the
//! execution of these programs, and netlink(7).

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

/// The packet and byte counters of a rule or of a set entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Number of packets matched.
    pub packets: u64,
    /// Number of bytes in these packets.
    pub bytes: u64,
}
