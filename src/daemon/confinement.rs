//! The rights that rfw gives up, for good, before the first byte from outside: were it taken over, it could
//! change the packet filter and little else. Programs that it starts later have no more.
//!
//! The process leaves no core dump, and no other process reads its memory (prctl(2), `PR_SET_DUMPABLE`). It
//! gains no rights by execve(2) (`no_new_privs`), keeps two [`capabilities`], and gets at the
//! [`folders`] that it needs, as far as the kernel has Landlock ([`ruleset`]).
//!
//! All but the first is of a thread, and goes over to those that it starts: it is done while there is one.

mod capabilities;
mod folders;
pub(crate) mod needed;
mod ruleset;
#[cfg(test)]
mod tests;

pub(crate) use folders::Folders;
use landlock::RulesetError;
use ruleset::Landlock;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, no_new_privs, set_no_new_privs};
use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel grants of the confinement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The capabilities that are left.
    capabilities: CapabilitySet,
    /// Whether execve(2) gives none.
    no_new_privs: bool,
    /// How far files, TCP and processes of others are out of reach.
    landlock: Landlock,
}

impl Grant {
    /// Logs it as that of a start.
    pub(crate) fn log(&self) {
        self.warn();
        log::info!("confined: {self}");
    }

    /// Warns where the kernel has no Landlock.
    pub(crate) fn warn(&self) {
        match self.landlock {
            Landlock::Absent => log::warn!(
                "this kernel has no Landlock, so that rfw could read and write any file of root if it were taken \
                 over (Linux 5.13, and \"landlock\" in /sys/kernel/security/lsm)"
            ),
            Landlock::Full | Landlock::Partial(_) => {}
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grant { capabilities, no_new_privs, landlock } = self;
        let names = capabilities::names(*capabilities);
        let privileges = if *no_new_privs { "no new privileges" } else { "new privileges by programs" };
        write!(f, "capabilities {names}, {privileges}, {landlock}")
    }
}

/// A process that has given its rights up, and what it has kept.
#[derive(Debug, Clone)]
pub(crate) struct Confinement {
    grant: Grant,
    folders: Folders,
}

impl Confinement {
    /// Confines this process, which has one thread.
    ///
    /// # Errors
    /// The kernel refuses, for another reason than that it has no Landlock.
    pub(crate) fn enter(folders: Folders) -> Result<Confinement, ConfinementError> {
        protect_memory()?;
        enter_working_directory();
        let grant = confine_thread(&folders)?;
        Ok(Confinement { grant, folders })
    }

    /// What the kernel has granted.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether a file can still be read: it is in one of the folders, or the kernel has no Landlock.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.grant.landlock == Landlock::Absent || self.folders.covers(path)
    }
}

/// What a start would be granted; changes nothing.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn available() -> Result<Grant, ConfinementError> {
    let capabilities = capabilities::usable().map_err(ConfinementError::Capabilities)?;
    Ok(Grant { capabilities, no_new_privs: true, landlock: Landlock::available() })
}

/// Enters the working directory by its path. One that was entered from another mount namespace, as by
/// nsenter(1), has a name for getcwd(3) only as long as the folders above can be read; and relative paths of
/// the configuration need the name.
fn enter_working_directory() {
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    if let Ok(path) = env::current_dir()
        && id(&path) == id(Path::new("."))
    {
        // What fails leaves it as it is.
        let _ = env::set_current_dir(path);
    }
}

fn protect_memory() -> Result<(), ConfinementError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(ConfinementError::Memory)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(ConfinementError::Memory)
}

/// Confines this thread.
fn confine_thread(folders: &Folders) -> Result<Grant, ConfinementError> {
    let capabilities = capabilities::drop_unused().map_err(ConfinementError::Capabilities)?;
    set_no_new_privs(true).map_err(ConfinementError::NoNewPrivs)?;
    let landlock = ruleset::restrict(folders)?;
    let no_new_privs = no_new_privs().map_err(ConfinementError::NoNewPrivs)?;
    Ok(Grant { capabilities, no_new_privs, landlock })
}

/// Why a process can't give its rights up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfinementError {
    /// Its memory can't be protected.
    #[error("core dumps can't be turned off: {0}")]
    Memory(Errno),
    /// A capability can't be dropped.
    #[error(
        "capabilities can't be dropped: {0}: expected that a filter of system calls lets capset(2) through"
    )]
    Capabilities(Errno),
    /// Programs could still gain rights.
    #[error("no_new_privs can't be set: {0}")]
    NoNewPrivs(Errno),
    /// Files can't be put out of reach, though the kernel has Landlock.
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
}
