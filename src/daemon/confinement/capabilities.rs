//! The capabilities that this thread keeps, see capabilities(7). Programs that it starts have no
//! others.
//!
//! A program of root has at first all of the bounding set. Where that can't be made smaller, as in a unit
//! that leaves no `CAP_SETPCAP`, `no_new_privs` holds the program to what its parent has (execve(2) then
//! takes the intersection with the permitted set).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What rfw and its programs use: the tables and sets of the kernel, and the raw socket by which
/// iptables-legacy and libxt_set talk to it.
pub(super) const USED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// The most capabilities that a kernel can have: a set has 64 bits.
const COUNT_MAX: u32 = 64;

/// Drops all others of this thread, for good, and returns those that are left.
///
/// # Errors
/// The kernel refuses to drop one.
pub(super) fn drop_unused() -> Result<CapabilitySet, Errno> {
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        unused_of_bounding_set().into_iter().try_for_each(remove_capability_from_bounding_set)?;
    }
    clear_ambient_capability_set()?;
    let used = now.permitted & USED;
    let wanted = CapabilitySets { effective: used, permitted: used, inheritable: CapabilitySet::empty() };
    // A unit may have left just these, and let no capset(2) through.
    if now != wanted {
        set_capabilities(None, wanted)?;
    }
    match capabilities(None)? == wanted {
        true => Ok(used),
        false => Err(Errno::PERM),
    }
}

/// Those that a start would keep.
///
/// # Errors
/// Those of capget(2).
pub(super) fn usable() -> Result<CapabilitySet, Errno> {
    Ok(capabilities(None)?.permitted & USED)
}

/// The names of capabilities, as capabilities(7) has them.
pub(super) fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(" and "),
    }
}

/// What the bounding set has beside. The kernel knows none above the first that it refuses to tell of.
fn unused_of_bounding_set() -> Vec<CapabilitySet> {
    (0..COUNT_MAX)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .map_while(|one| capability_is_in_bounding_set(one).ok().map(|is_in| (one, is_in)))
        .filter(|(one, is_in)| *is_in && !USED.contains(*one))
        .map(|(one, _)| one)
        .collect()
}
