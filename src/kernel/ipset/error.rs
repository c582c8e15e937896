//! Why the kernel refuses something about a set.
//!
//! Numbers from 4352 on mean something else for each type of set, and
//! `IPSET_ERR_EXIST` the opposite for adding and for deleting: so a number is read
//! together with the request that it answers.

use super::message::Command;
use crate::kernel::netlink::Malformed;
use crate::kernel::socket::SocketError;
use rustix::io::Errno;
use std::fmt;
use std::io;

// linux/netfilter/ipset/ip_set.h, enum ipset_errno.
const IPSET_ERR_PROTOCOL: i32 = 4097;
const IPSET_ERR_FIND_TYPE: i32 = 4098;
const IPSET_ERR_MAX_SETS: i32 = 4099;
const IPSET_ERR_BUSY: i32 = 4100;
const IPSET_ERR_EXIST_SETNAME2: i32 = 4101;
const IPSET_ERR_TYPE_MISMATCH: i32 = 4102;
const IPSET_ERR_EXIST: i32 = 4103;
const IPSET_ERR_INVALID_CIDR: i32 = 4104;
const IPSET_ERR_INVALID_FAMILY: i32 = 4106;
const IPSET_ERR_TIMEOUT: i32 = 4107;
const IPSET_ERR_REFERENCED: i32 = 4108;
const IPSET_ERR_IPADDR_IPV4: i32 = 4109;
const IPSET_ERR_IPADDR_IPV6: i32 = 4110;
const IPSET_ERR_COUNTER: i32 = 4111;
const IPSET_ERR_COMMENT: i32 = 4112;
const IPSET_ERR_TYPE_SPECIFIC: i32 = 4352;
// linux/netfilter/ipset/ip_set_hash.h.
const IPSET_ERR_HASH_FULL: i32 = 4352;
const IPSET_ERR_HASH_ELEM: i32 = 4353;
// linux/netfilter/ipset/ip_set_list.h.
const IPSET_ERR_NAME: i32 = 4352;
const IPSET_ERR_LOOP: i32 = 4353;
const IPSET_ERR_LIST_FULL: i32 = 4356;
const IPSET_ERR_REF_EXIST: i32 = 4357;

/// Why something about a set was not done.
#[derive(Debug)]
pub(crate) enum IpsetError {
    /// There is no set of that name.
    NoSet,
    /// There is a set of that name.
    SetExists,
    /// The kernel has no such type of set, or not with what is asked of it.
    NoType,
    /// The kernel has no more room for sets: 65,534 of them, or no memory.
    NoRoom,
    /// The set is looked up by a rule, is a member of a list, or is being listed.
    Busy,
    /// Two sets of different types or families can't be swapped.
    TypeMismatch,
    /// The entry to add is there.
    Exists,
    /// The entry to delete is not there.
    Missing,
    /// The set has as many entries as it may have.
    Full,
    /// The set that is to become a member does not exist.
    NoMember,
    /// The set can't hold such an element: another family, a prefix length of 0, a
    /// list.
    BadElement,
    /// The set was made without timeouts, counters or comments, and the entry has one.
    NoExtension,
    /// The process lacks `CAP_NET_ADMIN`.
    NotPermitted,
    /// The kernel and this program do not understand each other.
    Protocol,
    /// The kernel has no sets.
    NoIpset,
    /// The set changed while it was listed.
    Interrupted,
    /// No answer before the deadline.
    TimedOut,
    /// Answers were lost: what was done is not known.
    Overrun,
    /// An answer is not what it should be.
    Malformed,
    /// An error number that nothing here expects.
    Other(i32),
    /// The socket failed.
    Io(io::Error),
}

impl IpsetError {
    /// What a negative error number means as an answer to that command; `to_list`
    /// tells whether it concerned a member of a list.
    pub(crate) fn from_code(code: i32, command: Command, to_list: bool) -> IpsetError {
        let number = code.saturating_neg();
        match (number, command) {
            (IPSET_ERR_EXIST, Command::Add) => IpsetError::Exists,
            (IPSET_ERR_EXIST | IPSET_ERR_REF_EXIST, Command::Del | Command::Test) => IpsetError::Missing,
            (IPSET_ERR_EXIST_SETNAME2, _) => IpsetError::NoSet,
            (IPSET_ERR_FIND_TYPE, _) => IpsetError::NoType,
            (IPSET_ERR_MAX_SETS, _) => IpsetError::NoRoom,
            (IPSET_ERR_BUSY | IPSET_ERR_REFERENCED, _) => IpsetError::Busy,
            (IPSET_ERR_TYPE_MISMATCH, _) => IpsetError::TypeMismatch,
            (IPSET_ERR_TIMEOUT | IPSET_ERR_COUNTER | IPSET_ERR_COMMENT, _) => IpsetError::NoExtension,
            // An address of the other family is a missing attribute to the kernel.
            (IPSET_ERR_PROTOCOL, Command::Add | Command::Del) => IpsetError::BadElement,
            (IPSET_ERR_PROTOCOL, _) => IpsetError::Protocol,
            (
                IPSET_ERR_INVALID_CIDR
                | IPSET_ERR_INVALID_FAMILY
                | IPSET_ERR_IPADDR_IPV4
                | IPSET_ERR_IPADDR_IPV6,
                _,
            ) => IpsetError::BadElement,
            (IPSET_ERR_TYPE_SPECIFIC.., _) => IpsetError::of_type(number, to_list),
            _ => IpsetError::from_errno(number, command),
        }
    }

    /// What a number means that each type of sets uses in its own way.
    fn of_type(number: i32, to_list: bool) -> IpsetError {
        match (number, to_list) {
            (IPSET_ERR_HASH_FULL, false) | (IPSET_ERR_LIST_FULL, true) => IpsetError::Full,
            (IPSET_ERR_HASH_ELEM, false) | (IPSET_ERR_LOOP, true) => IpsetError::BadElement,
            (IPSET_ERR_NAME, true) => IpsetError::NoMember,
            _ => IpsetError::Other(number),
        }
    }

    fn from_errno(number: i32, command: Command) -> IpsetError {
        // Error numbers of the kernel itself end at MAX_ERRNO (linux/err.h).
        let errno = Some(number).filter(|number| (1..=4095).contains(number)).map(Errno::from_raw_os_error);
        match (errno, command) {
            (Some(Errno::NOENT), _) => IpsetError::NoSet,
            (Some(Errno::EXIST), _) => IpsetError::SetExists,
            (Some(Errno::BUSY), _) => IpsetError::Busy,
            (Some(Errno::NOMEM), _) => IpsetError::NoRoom,
            (Some(Errno::PERM), _) => IpsetError::NotPermitted,
            // nfnetlink answers so for a subsystem that it does not have.
            (Some(Errno::INVAL | Errno::OPNOTSUPP), Command::Protocol) => IpsetError::NoIpset,
            _ => IpsetError::Other(number),
        }
    }
}

impl fmt::Display for IpsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IpsetError::NoSet => "the set does not exist",
            IpsetError::SetExists => "a set of that name exists",
            IpsetError::NoType => "the kernel has no such type of set",
            IpsetError::NoRoom => "the kernel has no room for another set",
            IpsetError::Busy => "the set is in use or being listed",
            IpsetError::TypeMismatch => "the sets are of different types",
            IpsetError::Exists => "the entry is in the set",
            IpsetError::Missing => "the entry is not in the set",
            IpsetError::Full => "the set is full",
            IpsetError::NoMember => "the set that is to become a member does not exist",
            IpsetError::BadElement => "the set can't hold such an element",
            IpsetError::NoExtension => "the set has no timeouts, counters or comments",
            IpsetError::NotPermitted => "sets need the capability CAP_NET_ADMIN",
            IpsetError::Protocol => "the kernel speaks another version of the ipset protocol",
            IpsetError::NoIpset => "the kernel has no sets: is the module ip_set missing?",
            IpsetError::Interrupted => "the set changed while it was listed",
            IpsetError::TimedOut => "the kernel did not answer in time",
            IpsetError::Overrun => "answers of the kernel were lost",
            IpsetError::Malformed => "the kernel's answer about a set can't be read",
            IpsetError::Other(number) => return write!(f, "the kernel answers with error {number}"),
            IpsetError::Io(error) => return write!(f, "netlink: {error}"),
        })
    }
}

impl std::error::Error for IpsetError {}

impl From<Malformed> for IpsetError {
    fn from(_: Malformed) -> IpsetError {
        IpsetError::Malformed
    }
}

impl From<SocketError> for IpsetError {
    fn from(error: SocketError) -> IpsetError {
        match error {
            SocketError::TimedOut => IpsetError::TimedOut,
            SocketError::Overrun => IpsetError::Overrun,
            SocketError::TooLong => IpsetError::Malformed,
            SocketError::Io(error) => match Errno::from_io_error(&error) {
                Some(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => IpsetError::NoIpset,
                Some(Errno::PERM | Errno::ACCESS) => IpsetError::NotPermitted,
                _ => IpsetError::Io(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_with_the_command_that_it_answers() {
        let golden = [
            (-4103, Command::Add, false, "the entry is in the set"),
            (-4103, Command::Del, false, "the entry is not in the set"),
            (-4103, Command::Test, false, "the entry is not in the set"),
            (-4352, Command::Add, false, "the set is full"),
            (-4352, Command::Add, true, "the set that is to become a member does not exist"),
            (-4356, Command::Add, true, "the set is full"),
            (-4104, Command::Add, false, "the set can't hold such an element"),
            (-4100, Command::Destroy, false, "the set is in use or being listed"),
            (-16, Command::Swap, false, "the set is in use or being listed"),
            (-4101, Command::Swap, false, "the set does not exist"),
            (-17, Command::Create, false, "a set of that name exists"),
            (-2, Command::Header, false, "the set does not exist"),
            (-4098, Command::Create, false, "the kernel has no such type of set"),
            (-1, Command::Protocol, false, "sets need the capability CAP_NET_ADMIN"),
            (-22, Command::Protocol, false, "the kernel has no sets: is the module ip_set missing?"),
            (-22, Command::Add, false, "the kernel answers with error 22"),
            (-4200, Command::Add, false, "the kernel answers with error 4200"),
            (22, Command::Add, false, "the kernel answers with error -22"),
            (i32::MIN, Command::Add, false, "the kernel answers with error 2147483647"),
        ];
        for (code, command, to_list, words) in golden {
            assert_eq!(
                IpsetError::from_code(code, command, to_list).to_string(),
                words,
                "{code} {command:?}"
            );
        }
    }
}
