//! The state file: what a reboot or a new network namespace takes from the kernel, which stays the
//! database as long as it runs. The file only follows it: the verbs note their changes in a
//! [`journal`], the sweeper appends them by its [`writer`], and writes the file anew from the kernel
//! where that is shorter, or where it is not known what has changed, as after what others have done to
//! sets. It is read when the boot or the namespace is another than the one that it was written in
//! ([`lost`], [`restore`]).

mod clock;
pub(crate) mod entries;
pub(crate) mod file;
pub(crate) mod format;
pub(crate) mod journal;
mod lost;
mod restore;
pub(crate) mod writer;

use super::{Firewall, FirewallError, counted};
use crate::config::trusted_file::FileError;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use entries::{Damage, Entries};
use format::{BootId, Header, HeaderError, Nonce};
use journal::{Item, Journal};
pub(crate) use restore::Restored;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the firewall knows of its state file.
pub(crate) struct State {
    path: PathBuf,
    boot: BootId,
    journal: Journal,
    /// Whether the file that is there can't be used as it is: the next one that is written does not take
    /// its place before it has another name.
    set_aside: bool,
    /// The first line of the file, if it was read at the start and is gone on with.
    adopted: Option<Header>,
    /// The latest time that was seen: what ended until then had ended, whatever the clock says now.
    latest: SystemTime,
    /// What came of writing it.
    writings: Writings,
}

/// How the state file fares.
#[derive(Debug, Default)]
struct Writings {
    /// When it was written last.
    saved: Option<Moment>,
    /// Why it could not be written the last time.
    failed: Option<String>,
}

impl Writings {
    /// Takes down that it was written.
    fn saved(&mut self, at: Moment) {
        *self = Writings { saved: Some(at), failed: None };
    }

    /// Takes down that it could not be written.
    fn failed(&mut self, error: &io::Error) {
        self.failed = Some(error.to_string());
    }
}

impl Firewall {
    /// Begins to keep the state file that is configured, if one is. Nothing is read or written.
    pub(crate) fn open_state(&mut self, now: SystemTime) {
        let Some(path) = self.settings.state_file.clone() else { return };
        match clock::boot_id() {
            Ok(boot) => {
                let journal = Journal::default();
                let (adopted, writings) = (None, Writings::default());
                self.state =
                    Some(State { path, boot, journal, set_aside: false, adopted, latest: now, writings });
            }
            Err(error) => log::warn!(
                "the state file {} is not used, since the kernel does not tell one boot from another \
                 (/proc/sys/kernel/random/boot_id: {error}): a reboot loses what is blocked",
                path.display()
            ),
        }
    }

    /// Notes for the state file that an address is in a list no more, by whatever hand.
    pub(crate) fn note_gone(&mut self, rule: &Rule, list: ListName) {
        self.note(|| Item::Gone(rule.clone(), list));
    }

    /// The same of all lists of its place.
    pub(super) fn note_gone_everywhere(&mut self, rule: &Rule) {
        let union = SetKey::of(rule);
        let lists = self.sets.as_ref().map_or(vec![ListName::UNNAMED], |sets| sets.lists_of(&union));
        lists.into_iter().for_each(|list| self.note_gone(rule, list));
    }

    /// Notes a change for the state file, if there is one.
    pub(super) fn note(&mut self, item: impl FnOnce() -> Item) {
        if let Some(state) = &mut self.state {
            state.journal.note(item());
        }
    }

    /// Notes that a change has failed in a way that leaves open what the kernel has: the state file is
    /// written anew.
    pub(super) fn doubt_state(&mut self) {
        if let Some(state) = &mut self.state {
            state.journal.doubt();
        }
    }

    /// The same after a change, if it has failed in such a way.
    pub(super) fn doubt_state_after<T>(&mut self, result: &Result<T, FirewallError>) {
        let is_unknown = |error: &FirewallError| {
            !matches!(
                error,
                FirewallError::Busy
                    | FirewallError::Full(_)
                    | FirewallError::TooLong(_)
                    | FirewallError::TooManyRules(_)
                    | FirewallError::TooManyLists(_)
                    | FirewallError::NoFamily(_)
            )
        };
        if result.as_ref().is_err_and(is_unknown) {
            self.doubt_state();
        }
    }

    /// What the state file is and holds; the log tells why it could not be used or written. It is not
    /// changed.
    pub(crate) fn check_state(&self) -> String {
        let path = match (&self.settings.state_file, &self.state) {
            (None, _) => return "off: a reboot loses what is blocked".to_owned(),
            (Some(path), None) => return format!("{}: not used", path.display()),
            (Some(path), Some(_)) => path,
        };
        let held = check_file(path);
        if let Err(error) = file::check_folder(path) {
            log::warn!("the state file {} could not be written: {error}", path.display());
        }
        format!("{}: {held}", path.display())
    }

    /// Takes the state file away, after all that rfw made has been removed from the kernel.
    ///
    /// # Errors
    /// It is still there.
    pub(crate) fn remove_state(&self) -> io::Result<()> {
        self.settings.state_file.as_ref().map_or(Ok(()), |path| file::remove(path))
    }

    /// Takes down the time: what has ended by then counts as ended when the clock is set back.
    pub(super) fn note_time(&mut self, now: SystemTime) {
        if let Some(state) = &mut self.state {
            state.latest = state.latest.max(now);
        }
    }

    /// The first line of a file that is written now.
    fn state_header(&self, now: SystemTime) -> Option<Header> {
        let boot = self.state.as_ref()?.boot.clone();
        let nonce = self.sets.as_ref().and_then(|sets| sets.known_nonce()).and_then(Nonce::parse);
        Some(Header { boot, nonce, written: Moment::at_or_after(now) })
    }
}

/// What a state file holds, in words; warns of what is wrong with it.
fn check_file(path: &Path) -> String {
    let read = match State::read(path) {
        Ok(read) => read,
        Err(error) => {
            log::warn!("the state file {} would not be used: {error}", path.display());
            return "would not be used".to_owned();
        }
    };
    let held = counted(read.entries.len(), "address", "addresses");
    if read.damage.is_some() {
        let (path, damage) = (path.display(), read.damage);
        log::warn!("the state file {path} is damaged, and what is whole would be used: {damage}");
        return format!("damaged, {held} of it could be used");
    }
    if path.exists() { held } else { "not there yet".to_owned() }
}

impl State {
    /// When the file was written last.
    pub(super) fn saved(&self) -> Option<Moment> {
        self.writings.saved
    }

    /// Where it could not be written the last time, and why.
    pub(super) fn failure(&self) -> Option<(&Path, &str)> {
        self.writings.failed.as_deref().map(|why| (self.path.as_path(), why))
    }

    /// What the state file holds, with the changes that are not in it yet; what had ended when it was
    /// written may be in it too.
    pub(super) fn entries(&self) -> Option<Entries> {
        match State::read(&self.path) {
            Ok(mut read) => {
                self.journal.unwritten().for_each(|item| read.entries.apply(item));
                Some(read.entries)
            }
            Err(error) => {
                log::debug!("the state file {} can't be read: {error}", self.path.display());
                None
            }
        }
    }
}

/// What was read of a state file.
#[derive(Debug, Default)]
struct Read {
    entries: Entries,
    damage: Damage,
}

impl State {
    /// Reads the file; nothing where there is none.
    fn read(path: &Path) -> Result<Read, StateError> {
        let Some(mut file) = file::open(path)? else { return Ok(Read::default()) };
        entries::read_header(&mut file).map_err(FileError::Io)??;
        let (entries, damage) = entries::read_lines(&mut file).map_err(FileError::Io)?;
        Ok(Read { entries, damage })
    }

    /// The first line of the file; nothing where there is none.
    fn read_header(&self) -> Result<Option<Header>, StateError> {
        let Some(mut file) = file::open(&self.path)? else { return Ok(None) };
        Ok(Some(entries::read_header(&mut file).map_err(FileError::Io)??))
    }
}

/// Why a state file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It can't be read, or others may write it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is another program's, or another version's.
    #[error(transparent)]
    Header(#[from] HeaderError),
}
