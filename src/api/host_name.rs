//! The name by which answers tell of which host they are.

use std::rc::Rc;

/// The name of this host, as `uname -n` prints it; shared by all that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostName(Rc<str>);

impl HostName {
    /// A host of that name.
    pub(crate) fn new(name: &str) -> HostName {
        HostName(Rc::from(name))
    }

    /// The name that the kernel has for this host, its node name (uname(2)).
    pub(crate) fn of_kernel() -> HostName {
        HostName::new(&rustix::system::uname().nodename().to_string_lossy())
    }

    /// Takes the name that the kernel has now: a host may get its own while it boots.
    pub(crate) fn renew(&mut self) {
        if rustix::system::uname().nodename().to_bytes() != self.0.as_bytes() {
            *self = HostName::of_kernel();
        }
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
