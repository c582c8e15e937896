//! The generation of the nf_tables ruleset: a number that the kernel raises by one
//! with each committed change of any table. While it stays, so does what was read.
//!
//! One netlink message asks for it (`NFT_MSG_GETGEN` of linux/netfilter/nf_tables.h,
//! framed as netlink(7) says). iptables-legacy has nothing like it.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GETGEN: u16 = 10 << 8 | 16;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`.
const NEWGEN: u16 = 10 << 8 | 15;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NFTA_GEN_ID`: the attribute that holds the number, in network byte order.
const GEN_ID: u16 = 1;
/// The length of `nlmsghdr` and `nfgenmsg` together.
const HEADERS: usize = 20;

/// The generation now, or nothing where the kernel does not tell.
pub fn current() -> Option<u32> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))
            .ok()?;
    send(&socket, &request(), SendFlags::empty()).ok()?;
    let mut reply = [0; 512];
    // The kernel answers before send returns, so this need not wait.
    let (length, _) = recv(&socket, &mut reply, RecvFlags::DONTWAIT).ok()?;
    parse(reply.get(..length)?)
}

/// A request: `nlmsghdr` in the host's byte order, then an `nfgenmsg` of zeros.
fn request() -> [u8; HEADERS] {
    let mut message = [0; HEADERS];
    let length = u32::try_from(HEADERS).unwrap_or_default().to_ne_bytes();
    let fields = length.into_iter().chain(GETGEN.to_ne_bytes()).chain(REQUEST.to_ne_bytes());
    message.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    message
}

/// Finds the number in a reply.
fn parse(reply: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let mut attributes = reply.get(HEADERS..).filter(|_| kind == NEWGEN)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == GEN_ID {
            return Some(u32::from_be_bytes(attributes.get(4..length)?.try_into().ok()?));
        }
        // Attributes begin at multiples of four.
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_the_kernel_is_read() {
        let header = [0x2c, 0, 0, 0].into_iter().chain(NEWGEN.to_ne_bytes()).chain([0; 14]);
        let id = [8, 0, 1, 0, 0, 0, 1, 2];
        let pid = [8, 0, 2, 0, 0, 0, 0, 9];
        let reply: Vec<u8> = header.clone().chain(pid).chain(id).collect();
        assert_eq!(parse(&reply), Some(0x102));
        assert_eq!(parse(&header.clone().chain(pid).collect::<Vec<u8>>()), None);
        for length in 0..reply.len() {
            assert_eq!(parse(&reply[..length]), None, "{length}");
        }
    }

    #[test]
    fn an_error_is_no_generation() {
        assert_eq!(
            parse(&[
                36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 8, 0, 1, 0, 0, 0, 0, 1
            ]),
            None
        );
        assert_eq!(request(), [20, 0, 0, 0, 16, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
