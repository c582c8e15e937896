//! Landlock: what this thread, and what it starts, may do with files, TCP, and processes of others
//! (landlock(7)). A kernel that knows a part of it enforces that part.
//!
//! Nothing of rfw binds or connects a TCP socket once the ports are bound, and no signal of rfw is for
//! others than its programs.

use super::folders::{Folders, Place, Right};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictSelf, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::env;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The version (ABI) whose rights are asked for: Linux 6.12 and newer have all of them.
const VERSION: ABI = ABI::V6;

/// How much of it a kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landlock {
    /// All that rfw asks for.
    Full,
    /// Part of it: that of this version.
    Partial(ABI),
    /// Nothing: it is not built in, not enabled at boot (`lsm=`), or kept away by a filter of system calls.
    Absent,
}

impl Landlock {
    /// What this kernel can enforce; changes nothing.
    pub(super) fn available() -> Landlock {
        let status = RestrictSelf::default().no_new_privs(false).apply();
        status.map_or(Landlock::Absent, |status| Landlock::of(status.landlock))
    }

    fn of(status: LandlockStatus) -> Landlock {
        match ABI::from(status) {
            ABI::Unsupported => Landlock::Absent,
            version if version >= VERSION => Landlock::Full,
            version => Landlock::Partial(version),
        }
    }
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Landlock::Full => write!(f, "all of Landlock"),
            Landlock::Partial(version) => write!(f, "version {version} of Landlock, not all of it"),
            Landlock::Absent => write!(f, "no Landlock"),
        }
    }
}

/// Holds this thread to those places.
///
/// # Errors
/// The kernel has Landlock, and refuses.
pub(super) fn restrict(folders: &Folders) -> Result<Landlock, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(scopes())?
        .create()?;
    for place in folders.places() {
        // One that is gone meanwhile can't be granted.
        if let Ok(folder) = PathFd::new(&place.path) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, rights(place)))?;
        }
    }
    let status = ruleset.restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Ok(Landlock::Absent),
        _ => Ok(Landlock::of(status.landlock)),
    }
}

fn rights(place: &Place) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate;
    let rights = match place.right {
        Right::Read => read,
        Right::Execute => read | AccessFs::Execute,
        Right::Write => write | AccessFs::MakeReg | AccessFs::RemoveFile,
        Right::Device => write | AccessFs::IoctlDev,
        Right::Terminal => AccessFs::WriteFile | AccessFs::IoctlDev,
    };
    match place.is_folder {
        true => rights,
        false => rights & AccessFs::from_file(VERSION),
    }
}

/// Keeps signals and connections to abstract sockets (unix(7)) within rfw and its programs; but not the
/// latter where the service manager listens on one (sd_notify(3)).
fn scopes() -> BitFlags<Scope> {
    let notify = env::var_os("NOTIFY_SOCKET");
    match notify.is_some_and(|path| path.as_bytes().starts_with(b"@")) {
        true => Scope::Signal.into(),
        false => Scope::from_all(VERSION),
    }
}
