//! The single-instance lock: at most one rfw changes the tables of a network namespace.
//!
//! The lock is a listening Unix socket with an abstract name (unix(7)). Abstract names,
//! like netfilter tables, belong to a network namespace, and the kernel releases the name
//! when the process ends, SIGKILL included.

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The abstract name, without its leading NUL byte.
const NAME: &str = "rfw";

/// The lock, held until it is dropped.
pub struct Instance {
    /// `None` if a process of another, unprivileged user has bound the name: an abstract
    /// name has no access permissions.
    _lock: Option<UnixListener>,
}

impl Instance {
    /// Acquires the lock; `None` if another rfw holds it.
    ///
    /// # Errors
    /// A socket call fails.
    pub fn claim() -> io::Result<Option<Instance>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Ok(lock) => Ok(Some(Instance { _lock: Some(lock) })),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
            Err(_) if is_held_by_rfw()? => Ok(None),
            Err(_) => {
                log::warn!(
                    "a program without the rights of root has taken the abstract socket @{NAME}: \
                     a second rfw would not be noticed"
                );
                Ok(Some(Instance { _lock: None }))
            }
        }
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
