//! A netlink socket to the netfilter subsystems of the kernel (netlink(7)).
//!
//! The kernel works through all messages of a send before send returns, and queues
//! its answers meanwhile: so both buffers are as large as the process may have them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with,
};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// The most bytes that are asked for as send and as receive buffer: a limit, which
/// takes no memory by itself. The kernel doubles it, and queues at most about 1 kB
/// for the answer to a short message, so that 200,000 of them have room.
const BUFFER: usize = 100 << 20;

/// The longest datagram of the kernel: a dump comes in pieces of 32 kB where the
/// reader has that much room (`netlink_recvmsg`), an error with its request in 64 kB.
pub(crate) const DATAGRAM_MAX: usize = 128 << 10;

/// What the kernel keeps free of the send buffer (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;

/// Why nothing was sent or received.
#[derive(Debug)]
pub(crate) enum SocketError {
    /// No answer before the deadline.
    TimedOut,
    /// Answers were lost, because the receive buffer was full.
    Overrun,
    /// A datagram is longer than the buffer for it.
    TooLong,
    /// Anything else.
    Io(io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketError::TimedOut => f.write_str("no answer of the kernel in time"),
            SocketError::Overrun => f.write_str("answers of the kernel were lost"),
            SocketError::TooLong => f.write_str("netlink message too long"),
            SocketError::Io(error) => write!(f, "netlink: {error}"),
        }
    }
}

impl std::error::Error for SocketError {}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> SocketError {
        match errno {
            Errno::NOBUFS => SocketError::Overrun,
            Errno::MSGSIZE => SocketError::TooLong,
            errno => SocketError::Io(errno.into()),
        }
    }
}

/// A socket of protocol `NETLINK_NETFILTER`.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    send_limit: usize,
    receive_limit: usize,
}

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    /// The kernel has no netfilter over netlink, or the process no more descriptors.
    pub(crate) fn open() -> Result<Socket, SocketError> {
        Socket::with_buffers(BUFFER)
    }

    /// Opens a socket with buffers of twice that size, in bytes.
    pub(crate) fn with_buffers(size: usize) -> Result<Socket, SocketError> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        // The forced size needs CAP_NET_ADMIN in the first user namespace. The other is
        // cut to net.core.wmem_max and rmem_max; if even that fails, the default stays.
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, size)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, size));
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, size)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, size));
        let send_limit = sockopt::socket_send_buffer_size(&socket)?.saturating_sub(SEND_OVERHEAD);
        let receive_limit = sockopt::socket_recv_buffer_size(&socket)?;
        Ok(Socket { socket, send_limit, receive_limit })
    }

    /// Has the kernel send what it tells of these multicast groups: the bit n - 1 stands for
    /// the group n.
    ///
    /// # Errors
    /// There is no such group, or the process has no `CAP_NET_ADMIN`.
    pub(crate) fn join(&self, groups: u32) -> Result<(), SocketError> {
        // The kernel chooses the port.
        Ok(bind(&self.socket, &SocketAddrNetlink::new(0, groups))?)
    }

    /// The most bytes that the kernel takes in one send.
    pub(crate) fn send_limit(&self) -> usize {
        self.send_limit
    }

    /// The most bytes of answers that the kernel queues, each counted with what the
    /// kernel needs for it.
    pub(crate) fn receive_limit(&self) -> usize {
        self.receive_limit
    }

    /// Sends messages, all or none. The kernel has worked through them when this
    /// returns, in their order, each whatever became of those before it. A signal
    /// does not end that, SIGKILL included.
    ///
    /// # Errors
    /// They are more than [`Socket::send_limit`] (`EMSGSIZE`), or the kernel lacks memory
    /// (`ENOBUFS`): the kernel has seen none of them.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<(), SocketError> {
        loop {
            match send(&self.socket, messages, SendFlags::empty()) {
                Ok(sent) if sent == messages.len() => return Ok(()),
                Ok(_) => return Err(SocketError::TooLong),
                Err(Errno::INTR) => {}
                // Of a receive these numbers mean something else.
                Err(errno) => return Err(SocketError::Io(errno.into())),
            }
        }
    }

    /// Receives one datagram of the kernel into `buffer`, which should have room for
    /// [`DATAGRAM_MAX`] bytes. What others send to this socket is left out.
    ///
    /// # Errors
    /// None came before the deadline, it did not fit, or others were lost.
    pub(crate) fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        deadline: Instant,
    ) -> Result<&'b [u8], SocketError> {
        loop {
            match self.receive_now(buffer) {
                Ok(Some(length)) => return buffer.get(..length).ok_or(SocketError::TooLong),
                Ok(None) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => self.wait(deadline)?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Throws away what was not received: answers to a request that was given up.
    pub(crate) fn drain(&self) {
        let mut byte = [0];
        // ENOBUFS says that answers were lost, and is told once.
        while !matches!(self.receive_now(&mut byte), Err(errno) if errno != Errno::INTR && errno != Errno::NOBUFS)
        {
        }
    }

    /// The length of a datagram that is there, which may be more than the buffer holds, or nothing if
    /// it is not the kernel's.
    ///
    /// # Errors
    /// `EAGAIN` if there is none, `ENOBUFS` if others were lost.
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length, sender) = recvfrom(&self.socket, buffer, flags)?;
        let port =
            sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok()).map(|sender| sender.pid());
        Ok(Some(length).filter(|_| port == Some(0)))
    }

    fn wait(&self, deadline: Instant) -> Result<(), SocketError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(SocketError::TimedOut);
        }
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// To poll for input.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_asks_nothing_times_out() {
        let socket = Socket::open().unwrap();
        assert!(socket.send_limit() > 4096 && socket.receive_limit() > 4096);
        let (start, mut buffer) = (Instant::now(), [0; 16]);
        let result = socket.receive(&mut buffer, start + Duration::from_millis(20));
        assert!(matches!(result, Err(SocketError::TimedOut)), "{result:?}");
        assert!(start.elapsed() >= Duration::from_millis(20));
        socket.drain();
    }

    #[test]
    fn what_was_not_sent_is_not_told_as_an_answer_that_was_lost() {
        let socket = Socket::with_buffers(4096).unwrap();
        let error = socket.send(&vec![0; socket.send_limit() + 1]).unwrap_err();
        assert_eq!(error.to_string(), "netlink: Message too long (os error 90)");
    }
}
