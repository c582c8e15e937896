//! Access to the kernel's packet filter: the formats of iptables(8) and ipset(8), the
//! execution of these programs, and netlink(7).

#[cfg(test)]
mod alone;
pub(crate) mod coprocess;
pub(crate) mod cpu_time;
pub(crate) mod generation;
pub(crate) mod guard;
pub(crate) mod ipset;
pub(crate) mod iptables;
#[allow(dead_code, reason = "attributes of all widths")]
pub(crate) mod netlink;
pub(crate) mod nft_rules;
pub(crate) mod notifications;
pub(crate) mod proc_net;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod save_reader;
pub(crate) mod set_key;
pub(crate) mod socket;
pub(crate) mod timeout;

/// The packet and byte counters of a rule or of a set entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Number of packets matched.
    pub packets: u64,
    /// Number of bytes in these packets.
    pub bytes: u64,
}
