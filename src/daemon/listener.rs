//! Sockets that clients connect to.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, listen, socket_with, sockopt,
};
use rustls::ServerConfig;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Maximum length of the queue of connections not yet accepted (listen(2)): what the kernel
/// allows by default (`net.core.somaxconn`). Who comes to a full queue waits a second for the
/// next attempt of TCP.
const BACKLOG: i32 = 4_096;

/// A socket that is bound to its address and does not listen yet.
pub(super) struct Bound {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Bound {
    /// Binds a TCP socket to an address; `::` accepts IPv4 as well (`IPV6_V6ONLY` off, ipv6(7)).
    ///
    /// # Errors
    /// The address is in use or is not an address of this host.
    pub(super) fn new(address: SocketAddr) -> Result<Bound, ServerError> {
        let bind_socket = || -> Result<OwnedFd, Errno> {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&socket, false)?;
            }
            // Those that are accepted inherit it.
            sockopt::set_tcp_nodelay(&socket, true)?;
            bind(&socket, &address)?;
            Ok(socket)
        };
        let socket = bind_socket().map_err(|error| ServerError::Bind(address, error.into()))?;
        Ok(Bound { socket, address })
    }
}

/// A listening socket, its TLS configuration (`None` is plain HTTP) and whether its clients
/// authenticate.
pub(super) struct Listener {
    listener: TcpListener,
    /// What its clients speak.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether they log in.
    pub authentication: bool,
}

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    /// listen(2) fails, as where another socket listens on the port since it was bound.
    pub(super) fn open(
        bound: Bound,
        tls: Option<Arc<ServerConfig>>,
        authentication: bool,
    ) -> Result<Listener, ServerError> {
        listen(&bound.socket, BACKLOG).map_err(|errno| ServerError::Bind(bound.address, errno.into()))?;
        Ok(Listener { listener: TcpListener::from(bound.socket), tls, authentication })
    }

    /// Accepts a connection, whose socket does not block either.
    ///
    /// # Errors
    /// Those of accept(2); `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, address) = acceptfrom_with(&self.listener, flags)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let address = address.ok_or(Errno::CONNABORTED)?;
        Ok((TcpStream::from(socket), address))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Error that ends the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// bind(2) or listen(2) fails for this address.
    #[error("can't listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// poll(2) or accept(2) fails for good.
    #[error("can't accept connections any more: {0}")]
    Listener(io::Error),
}
