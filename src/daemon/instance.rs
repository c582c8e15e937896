//! The mark of a running rfw: no second one may work on the same tables.
//!
//! It is a listening Unix socket with an abstract name (unix(7)), which belongs to the
//! network namespace, as the tables do, and goes with the process, however that ends.

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The abstract name, without the NUL before it.
const NAME: &str = "rfw";

/// The mark, as long as it is held; nothing where somebody without the rights of rfw
/// has taken its name, which anybody may.
pub struct Instance {
    _mark: Option<UnixListener>,
}

impl Instance {
    /// Takes the mark; nothing if another rfw has it.
    ///
    /// # Errors
    /// The system's.
    pub fn claim() -> io::Result<Option<Instance>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Ok(mark) => Ok(Some(Instance { _mark: Some(mark) })),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
            Err(_) if is_held_by_rfw()? => Ok(None),
            Err(_) => {
                log::warn!(
                    "a program without the rights of root has taken the abstract socket @{NAME}: \
                     a second rfw would not be noticed"
                );
                Ok(Some(Instance { _mark: None }))
            }
        }
    }
}

/// Whether the socket of that name is one of root, or of the user of this process.
fn is_held_by_rfw() -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new_abstract_name(NAME.as_bytes())?) {
        Ok(()) => {}
        // It does not listen, or not to streams, or is gone; or its backlog is full,
        // which those who connect to it can do.
        Err(_) => return Ok(false),
    }
    // The number of the process can't be read across namespaces of processes.
    let holder = socket_peercred(&socket).map(|holder| holder.uid);
    Ok(holder.map_or(true, |user| user.is_root() || user == geteuid()))
}
