//! The boot, and whether the clock can be relied on.

use super::format::BootId;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Where the kernel tells the number of the boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What systemd-timesyncd(8) makes once it has set the clock in this boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// The time since the boot after which the clock is taken for right, whoever sets it.
const SETTLED: Duration = Duration::from_secs(3_600);

/// The number of this boot.
///
/// # Errors
/// The kernel does not tell it, or `/proc` hides it (`ProcSubset=pid`, systemd.exec(5)).
pub(crate) fn boot_id() -> io::Result<BootId> {
    let text = fs::read_to_string(BOOT_ID)?;
    BootId::parse(text.trim_end()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the clock does not step back any more, as far as can be known.
pub(crate) fn is_settled() -> bool {
    let since_boot = u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default();
    is_settled_after(Duration::from_secs(since_boot), Path::new(SYNCHRONISED).exists())
}

fn is_settled_after(since_boot: Duration, is_synchronised: bool) -> bool {
    is_synchronised || since_boot >= SETTLED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_settled_once_it_is_set_or_an_hour_after_the_boot() {
        for (seconds, is_synchronised, expected) in
            [(5, false, false), (5, true, true), (3_599, false, false), (3_600, false, true)]
        {
            assert_eq!(
                is_settled_after(Duration::from_secs(seconds), is_synchronised),
                expected,
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_boot_has_a_number() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }
}
