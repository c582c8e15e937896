//! The single-instance lock: at most one rfw changes the tables of a network namespace.
//!
//! The lock is a listening Unix socket with an abstract name (unix(7)). Abstract names,
//! like netfilter tables, belong to a network namespace, and the kernel releases the name
//! when the process ends, SIGKILL included.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The abstract name, without its leading NUL byte.
const NAME: &str = "rfw";

/// The most connections that are closed before others get their turn.
const DRAIN_MAX: usize = 64;

/// The lock, held until it is dropped.
pub(super) struct Instance {
    /// `None` if a process of another, unprivileged user has bound the name: an abstract
    /// name has no access permissions.
    lock: Option<UnixListener>,
}

impl Instance {
    /// Acquires the lock; `None` if another rfw holds it.
    ///
    /// # Errors
    /// A socket call fails.
    pub(super) fn claim() -> io::Result<Option<Instance>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Ok(lock) => {
                lock.set_nonblocking(true)?;
                Ok(Some(Instance { lock: Some(lock) }))
            }
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
            Err(_) if is_held_by_rfw()? => Ok(None),
            Err(_) => {
                log::warn!(
                    "the abstract socket @{NAME} is taken by a process that is not known to be one of root: \
                     a second rfw would not be noticed"
                );
                Ok(Some(Instance { lock: None }))
            }
        }
    }
}

impl Instance {
    /// Closes the connections of those who asked whether the lock is held, so that the
    /// backlog never fills: nobody could ask any more.
    pub(super) fn drain(&self) {
        for _ in 0..DRAIN_MAX {
            if self.lock.as_ref().is_none_or(|lock| lock.accept().is_err()) {
                return;
            }
        }
    }

    /// What is readable when somebody has asked.
    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        self.lock.as_ref().map(|lock| PollFd::new(lock, PollFlags::IN))
    }
}

/// Whether the socket of that name belongs to root or to the effective user of this process.
fn is_held_by_rfw() -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new_abstract_name(NAME.as_bytes())?) {
        Ok(()) => {}
        // Not listening, not a stream socket, closed meanwhile, or its backlog is full, which
        // any local user can bring about by connecting.
        Err(_) => return Ok(false),
    }
    // The user decides, not the process: SO_PEERCRED gives PID 0 for a process of another PID
    // namespace (pid_namespaces(7)).
    let credentials = socket_peercred(&socket).map(|credentials| credentials.uid);
    Ok(credentials.map_or(true, |user| user.is_root() || user == geteuid()))
}
