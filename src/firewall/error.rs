//! Why an operation on the packet filter has failed, in words that a client gets to read.

use crate::kernel::ipset::IpsetError;
use crate::kernel::nft_rules::DeletionError;
use crate::kernel::program::ProgramError;
use crate::rule::lease::SET_LONGEST;
use crate::rule::network::Family;
use crate::rule::rights::MissingRight;

/// Why an operation on the packet filter has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// The client lacks a right.
    #[error(transparent)]
    Right(#[from] MissingRight),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel refuses something about sets.
    #[error(transparent)]
    Ipset(#[from] IpsetError),
    /// The kernel has no random number yet.
    #[error("no random number from the kernel: {0}")]
    Random(std::io::Error),
    /// The kernel refuses something about the set of that name.
    #[error("the set {0}: {1}")]
    Set(String, IpsetError),
    /// This host has no packet filter for that family.
    #[error("{0} is not available on this host")]
    NoFamily(Family),
    /// There are rules of sets, and no sets to read.
    #[error("the tables use sets of rfw, but the kernel has none, or does not let rfw at them")]
    NoSets,
    /// The set has `ipset.maxelem` entries.
    #[error("no room: a set has at most {0} entries (ipset.maxelem in rfw.conf)")]
    Full(u32),
    /// An interval in seconds above the longest that a set entry may have.
    #[error(
        "{0} seconds are too long: a set holds an address for at most {SET_LONGEST} seconds (3650 days), \
         or for ever with expire=0"
    )]
    TooLong(u64),
    /// A family has `rules.max` rules.
    #[error(
        "no room: at most {0} addresses of a family are rules of their own (rules.max in rfw.conf), since \
         each packet is compared with one after the other; with the option ipset they are kept in sets, \
         which hold a million"
    )]
    TooManyRules(usize),
    /// So many addresses of a family would be rules, of which there may be so many.
    #[error(
        "without the option ipset, {1} addresses of {0} would be rules of their own, but rules.max is {2}: \
         turn the option on again, or raise rules.max"
    )]
    TooManyEntries(Family, usize, usize),
    /// There are so many named lists already.
    #[error("there may be at most {0} named lists (lists.max in rfw.conf): take one away first")]
    TooManyLists(usize),
    /// A set of that name exists, but rfw has not created it.
    #[error(
        "there is a set {0} that rfw has not made: destroy it, after its rule and its place in the registry \
         (ipset del rfw {0})"
    )]
    ForeignSet(String),
    /// Others have emptied or destroyed the set of that name, and what it held is not back yet.
    #[error("the set {0} was emptied by another program, and is being put back")]
    Emptied(String),
    /// What rules have counted can't be read.
    #[error("the counters of the rules can't be read: {0}")]
    Counters(DeletionError),
    /// Not attempted, since an earlier change has just failed: another program holds the
    /// xtables lock, or a program has exceeded its time.
    #[error(
        "not tried, since another program holds the lock of the tables, or one of rfw's own gives no answer: \
         try again in 2 seconds"
    )]
    Busy,
}

impl FirewallError {
    /// Whether a program gave no answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, FirewallError::Program(ProgramError::TimedOut(..)))
    }

    /// Whether a transaction is more than the kernel takes at once from this process.
    pub(crate) fn is_too_long(&self) -> bool {
        matches!(self, FirewallError::Program(ProgramError::TooLong(_)))
    }

    /// Whether another program holds the lock of the tables.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, FirewallError::Program(ProgramError::Locked(_)))
    }

    /// Whether its words may be about a list that the client has not named.
    pub(crate) fn may_name_lists(&self) -> bool {
        matches!(
            self,
            FirewallError::Program(_)
                | FirewallError::Ipset(_)
                | FirewallError::Set(..)
                | FirewallError::ForeignSet(_)
                | FirewallError::Emptied(_)
        )
    }

    /// Whether the same request may succeed in a moment: another program holds the lock
    /// of the tables, keeps changing them, or hangs.
    pub(crate) fn is_temporary(&self) -> bool {
        let contended = |error: &ProgramError| {
            matches!(error, ProgramError::Locked(_) | ProgramError::Contended | ProgramError::TimedOut(..))
        };
        match self {
            FirewallError::Busy | FirewallError::Emptied(_) => true,
            FirewallError::Program(error) => contended(error),
            FirewallError::Ipset(error) | FirewallError::Set(_, error) => {
                matches!(error, IpsetError::Busy | IpsetError::Interrupted | IpsetError::TimedOut)
            }
            _ => false,
        }
    }
}
