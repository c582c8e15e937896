//! Warns of what a host can't live without and the white list does not have: its default gateways, its name
//! servers and its own addresses. A client could block them.
//!
//! The files are those of the kernel and of resolv.conf(5): one that can't be read says nothing.

use crate::kernel::proc_net;
use crate::rule::network::Network;
use crate::rule::whitelist::WhiteList;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;

/// The most bytes of a file that are looked at. A router has a long table of routes.
const LARGEST: u64 = 4 << 20;

/// The most addresses of a kind that are named.
const NAMED_MAX: usize = 3;

/// What has been warned of.
#[derive(Debug, Default)]
pub(super) struct Uncovered {
    told: Option<String>,
}

impl Uncovered {
    /// Warns of what a white list does not have, unless that was the last warning.
    pub(super) fn tell(&mut self, list: &WhiteList) {
        let warning = warning(list, &find());
        if let Some(warning) = warning.as_ref().filter(|_| warning != self.told) {
            log::warn!("{warning}");
        }
        self.told = warning;
    }
}

/// Addresses of one kind, with the words for one and for several of them.
struct Kind {
    one: &'static str,
    many: &'static str,
    addresses: Vec<IpAddr>,
}

/// What this host can't live without.
fn find() -> [Kind; 3] {
    let of = |file: &str, parse: fn(&str) -> Vec<IpAddr>| read(file).map_or(Vec::new(), |text| parse(&text));
    let gateways =
        [of("/proc/net/route", proc_net::gateways_v4), of("/proc/net/ipv6_route", proc_net::gateways_v6)];
    let own = [of("/proc/net/fib_trie", proc_net::own_v4), of("/proc/net/if_inet6", proc_net::own_v6)];
    kinds(gateways.concat(), of("/etc/resolv.conf", name_servers), own.concat())
}

fn kinds(gateways: Vec<IpAddr>, name_servers: Vec<IpAddr>, own: Vec<IpAddr>) -> [Kind; 3] {
    [
        Kind { one: "the default gateway", many: "the default gateways", addresses: gateways },
        Kind { one: "the name server", many: "the name servers", addresses: name_servers },
        Kind { one: "this host's own address", many: "this host's own addresses", addresses: own },
    ]
}

/// The name servers of a resolv.conf(5), without those on this host.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let rest = line.strip_prefix("nameserver")?.strip_prefix([' ', '\t'])?.trim_start();
        // Behind the address there may be its interface, or a comment.
        let word = rest.split([' ', '\t', ';', '#', '%']).next()?;
        word.parse().ok().filter(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified())
    };
    text.lines().filter_map(address).collect()
}

/// The warning of what a list does not have.
fn warning(list: &WhiteList, kinds: &[Kind]) -> Option<String> {
    let parts: Vec<(IpAddr, String)> = kinds.iter().filter_map(|kind| part(list, kind)).collect();
    let (example, _) = parts.first()?;
    let told: Vec<&str> = parts.iter().map(|(_, part)| part.as_str()).collect();
    Some(format!(
        "not in the white list, so that clients can block them: {} (a line \"never {example}\" protects one)",
        told.join("; ")
    ))
}

/// The addresses of a kind that a list does not have, in words, and the first of them.
fn part(list: &WhiteList, kind: &Kind) -> Option<(IpAddr, String)> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in &kind.addresses {
        if list.overlap(&Network::host(*address)).is_none() && !found.contains(address) {
            found.push(*address);
        }
    }
    let first = *found.first()?;
    let words = if found.len() == 1 { kind.one } else { kind.many };
    let named: Vec<String> = found.iter().take(NAMED_MAX).map(IpAddr::to_string).collect();
    let more = match found.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some((first, format!("{words} {}{more}", named.join(", "))))
}

/// The text of a file, which the debug log tells of where it can't be read.
fn read(file: &str) -> Option<String> {
    let text = read_regular(file);
    text.inspect_err(|error| log::debug!("{file} can't be read: {error}")).ok()
}

fn read_regular(file: &str) -> io::Result<String> {
    // open(2) of a FIFO would block (fifo(7)).
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;
    use proptest::prelude::*;

    #[test]
    fn name_servers_are_those_that_the_resolver_takes() {
        for (at, [text, expected]) in cases("resolv-conf.txt") {
            let found: Vec<String> = name_servers(&text).iter().map(IpAddr::to_string).collect();
            assert_eq!(found.join(" "), expected, "{at}");
        }
    }

    #[test]
    fn what_neither_kind_of_line_has_is_named() {
        for (at, [list, gateways, servers, own, expected]) in cases("uncovered.txt") {
            let addresses = |text: &str| text.split(' ').filter_map(|word| word.parse().ok()).collect();
            let kinds = kinds(addresses(&gateways), addresses(&servers), addresses(&own));
            let told = warning(&WhiteList::parse(&list).unwrap(), &kinds);
            let part = |told: String| {
                let told = told.strip_prefix("not in the white list, so that clients can block them: ");
                told.unwrap_or_default().to_owned()
            };
            assert_eq!(told.map_or("-".to_owned(), part), expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", tail in "[ \t;#%0-9a-f.:]*") {
            let _ = name_servers(&text);
            let _ = name_servers(&format!("nameserver{tail}"));
        }
    }
}
