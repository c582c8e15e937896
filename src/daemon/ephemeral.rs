//! Ports that the kernel gives to connections of this host (ip-sysctl of the kernel's
//! documentation, `ip_local_port_range`).
//!
//! A port that rfw listens on is given to none. But the guard stays while rfw is stopped: then it
//! drops the packets of a connection that has got the port, and that connection keeps rfw from
//! listening again.

use std::fs;

/// Warns of a port that may be given to a connection while rfw does not listen on it. Where the
/// kernel's settings can't be read, as in a unit without /proc/sys, nothing is said.
pub(super) fn warn_if_ephemeral(port: u16) {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    if is_given(&read("ip_local_port_range"), &read("ip_local_reserved_ports"), port) {
        log::warn!(
            "the kernel may give the port {port} to a connection of this host while rfw is stopped, which \
             the guard would cut off: reserve it (sysctl net.ipv4.ip_local_reserved_ports)"
        );
    }
}

/// Whether a port is in the range, "first last", and not in the list of those that are reserved, such
/// as "80,7000-7100".
fn is_given(range: &str, reserved: &str, port: u16) -> bool {
    let mut ends = range.split_ascii_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return false };
    (first..=last).contains(&port) && !reserved.trim_ascii().split(',').any(|part| has(part, port))
}

/// Whether a port is in a part of the list of reserved ones: a number, or two with `-` between them.
fn has(part: &str, port: u16) -> bool {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    first.parse::<u16>().is_ok_and(|first| first <= port)
        && last.parse::<u16>().is_ok_and(|last| port <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_the_range_is_given_unless_it_is_reserved() {
        let golden = [
            ("32768\t60999\n", "\n", 7393, false),
            ("32768\t60999\n", "\n", 32_767, false),
            ("32768\t60999\n", "\n", 32_768, true),
            ("32768\t60999\n", "\n", 60_999, true),
            ("32768\t60999\n", "\n", 61_000, false),
            ("32768\t60999\n", "80,40000\n", 40_000, false),
            ("32768\t60999\n", "80,39000-40000,50000\n", 40_000, false),
            ("32768\t60999\n", "80,39000-39999,40001-50000\n", 40_000, true),
            ("1024\t65535\n", "", 7393, true),
            ("", "", 7393, false),
            ("x", "x", 7393, false),
        ];
        for (range, reserved, port, expected) in golden {
            assert_eq!(is_given(range, reserved, port), expected, "{range:?} {reserved:?} {port}");
        }
    }
}
