//! How one speaks to the kernel: through iptables and ipset, whose languages stand here,
//! and by netlink.

pub mod coprocess;
pub mod generation;
pub mod ipset;
pub mod iptables;
pub mod program;
pub mod sets;
