//! How one speaks to the kernel: through iptables and ipset, whose languages stand here,
//! and by netlink.

pub mod coprocess;
pub mod generation;
pub mod guard;
pub mod ipset;
pub mod iptables;
pub mod program;
pub mod save_reader;
pub mod set_key;
pub mod sets;

/// The packets and bytes that a rule, or an entry of a set, has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}
