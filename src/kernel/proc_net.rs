//! What files in /proc/net say of this host: its default gateways and its addresses (proc_net(5), and
//! net/ipv4/fib_trie.c, net/ipv6/route.c and net/ipv6/addrconf.c of the kernel). Parsing only, no I/O.
//!
//! A line that is not as the kernel writes it says nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_GATEWAY` of linux/route.h: the next hop is a gateway.
const RTF_GATEWAY: u32 = 0x2;
/// `RTF_REJECT`: packets are refused.
const RTF_REJECT: u32 = 0x200;

/// `IFA_F_TEMPORARY` of linux/if_addr.h: a privacy address (RFC 8981), which is another one tomorrow.
const IFA_F_TEMPORARY: u32 = 0x1;

/// The gateways of default routes in /proc/net/route: interface, destination, gateway, flags, counters, mask.
pub(crate) fn gateways_v4(route: &str) -> Vec<IpAddr> {
    route.lines().filter_map(gateway_v4).collect()
}

fn gateway_v4(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "00000000", gateway, flags, _, _, _, "00000000", ..] = words.as_slice() else { return None };
    let gateway = hex(gateway, 8)?;
    // The kernel prints what is in network byte order as a number of its own order.
    let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
    (leads_to_gateway(hex(flags, 4)?) && !gateway.is_unspecified()).then_some(IpAddr::V4(gateway))
}

/// The gateways of default routes in /proc/net/ipv6_route: destination, its prefix length, source, its prefix
/// length, next hop, metric, two counters, flags, interface.
pub(crate) fn gateways_v6(route: &str) -> Vec<IpAddr> {
    route.lines().filter_map(gateway_v6).collect()
}

fn gateway_v6(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, "00", _, _, gateway, _, _, _, flags, _] = words.as_slice() else { return None };
    let (destination, gateway) = (address_v6(destination)?, address_v6(gateway)?);
    let is_default = destination.is_unspecified() && leads_to_gateway(hex(flags, 8)?);
    (is_default && !gateway.is_unspecified()).then_some(IpAddr::V6(gateway))
}

fn leads_to_gateway(flags: u32) -> bool {
    flags & RTF_GATEWAY != 0 && flags & RTF_REJECT == 0
}

/// The addresses of this host in /proc/net/fib_trie: below each leaf its routes, those to an address of this
/// host as `/32 host LOCAL`. Others can't reach those of loopback and of a link.
pub(crate) fn own_v4(trie: &str) -> Vec<IpAddr> {
    let mut leaf = None;
    let mut own = Vec::new();
    for line in trie.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["|--", address] => leaf = address.parse::<Ipv4Addr>().ok(),
            ["/32", "host", "LOCAL", ..] => {
                let reachable = leaf.filter(|address| !address.is_loopback() && !address.is_link_local());
                own.extend(reachable.map(IpAddr::V4));
            }
            _ => {}
        }
    }
    own
}

/// The addresses of this host in /proc/net/if_inet6: address, index of the interface, prefix length, scope,
/// flags, interface. Others can't reach those of loopback and of a link, and temporary ones do not last.
pub(crate) fn own_v6(addresses: &str) -> Vec<IpAddr> {
    addresses.lines().filter_map(address_of_own_v6).collect()
}

fn address_of_own_v6(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, _, _, _, flags, _] = words.as_slice() else { return None };
    let address = address_v6(address)?;
    let is_told = !address.is_loopback() && !address.is_unicast_link_local();
    // Flags that are many have more than two digits.
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (is_told && flags & IFA_F_TEMPORARY == 0).then_some(IpAddr::V6(address))
}

/// A number of exactly so many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    u32::from_str_radix(text, 16).ok().filter(|_| text.len() == digits)
}

fn address_v6(text: &str) -> Option<Ipv6Addr> {
    let bits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(Ipv6Addr::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;
    use proptest::prelude::*;

    /// The numbers of the table are those of a little-endian kernel, as all are that rfw is built for.
    #[test]
    fn files_of_the_kernel_tell_gateways_and_own_addresses() {
        for (at, [file, text, expected]) in cases("proc-net.txt") {
            let parse = match file.as_str() {
                "route" => gateways_v4,
                "ipv6_route" => gateways_v6,
                "fib_trie" => own_v4,
                "if_inet6" => own_v6,
                _ => panic!("{at}: no file {file}"),
            };
            let found: Vec<String> = parse(&text).iter().map(IpAddr::to_string).collect();
            assert_eq!(found.join(" "), expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", words in "([0-9A-F]{1,33} ?){1,12}", leaf in "\\|-- [0-9.]*\n/32 host LOCAL") {
            for parse in [gateways_v4, gateways_v6, own_v4, own_v6] {
                let _ = (parse(&text), parse(&words), parse(&leaf));
            }
        }
    }
}
