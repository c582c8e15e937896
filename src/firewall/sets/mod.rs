//! The sets that rfw keeps in the kernel: which are its own, how lists of addresses go
//! into them, and how they are read.
//!
//! A change of a set is one send to the kernel, which is done whole even if rfw is
//! killed in the middle. Only where a process may have no send buffer of that size (in
//! a user namespace), or where the room of a set changes, is a set built beside and
//! swapped in.

mod difference;
mod dry_run;
mod element;
mod entry;
mod fill;
mod gone;
mod guard;
mod list;
mod lists;
mod mirror;
mod mirrors;
mod plan;
mod reader;
mod rebuild;
mod registry;
mod renewal;
mod repair;
mod single;
mod union;

use super::FirewallError;
use crate::kernel::ipset::{Batch, Definition, Entry, Ipset, IpsetError, Outcome, SetInfo, SetName, SetType};
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use element::{element, label, owned, rule, rule_of};
pub(crate) use guard::GuardSet;
pub(crate) use list::ListOp;
use mirrors::{Follower, Mirrors};
use reader::{Listings, dump};
pub(crate) use reader::{ScopeRules, SetReader, Step};
use registry::Registry;
pub(crate) use registry::{NONCE, Registered};
pub(crate) use repair::{Repair, SetsLook};
pub(crate) use single::EntryResult;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Time allowed for the kernel's answer, which takes microseconds unless another
/// process holds the lock of the sets.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Time allowed for the kernel to let go of a set: it does so some moments after the
/// last rule that looked it up, or the last listing of it, is gone.
const LET_GO_TIME: Duration = Duration::from_millis(500);

/// The most entries of a set that is looked at before each change of it.
const ASKED_MAX: usize = 1_000;

/// Outcome of making a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is new.
    New,
    /// It was there, with so many entries.
    Present(usize),
    /// There is another set of that name, which rfw has not made.
    Foreign,
}

/// The sets of this network namespace.
pub(crate) struct Sets {
    ipset: Ipset,
    maxelem: u32,
    mirrors: Mirrors,
    listings: Listings,
    registry: Registry,
    /// The room of sets, as last read; those that are not in it have `maxelem`.
    rooms: BTreeMap<SetKey, u32>,
    /// Sets in the place of which others have put another.
    foreign: BTreeSet<SetKey>,
    /// Sets that others had destroyed and that are made again, without what they held yet.
    remade: BTreeSet<SetKey>,
    /// What others were found to have done, until it is told.
    found: SetsLook,
    /// Whether what a list holds has changed in a way that no request tells.
    changed: bool,
    /// The lists that have sets of their own beside a union.
    lists: BTreeMap<SetKey, BTreeSet<ListName>>,
    /// Unions that may not hold what their lists hold.
    unsettled: BTreeSet<SetKey>,
    /// Sets with entries that end later than the kernel can count, and when rfw has last told it the
    /// longest time for them.
    long: BTreeMap<SetKey, Option<Instant>>,
}

impl Sets {
    /// Sets of at most `maxelem` entries each.
    ///
    /// # Errors
    /// The kernel has no sets, or the process lacks `CAP_NET_ADMIN`.
    pub(crate) fn open(maxelem: u32) -> Result<Sets, FirewallError> {
        let mut ipset = Ipset::open(deadline())?;
        ipset.names(deadline())?;
        Ok(Sets {
            ipset,
            maxelem,
            mirrors: Mirrors::default(),
            listings: Listings::default(),
            registry: Registry::default(),
            rooms: BTreeMap::new(),
            foreign: BTreeSet::new(),
            remade: BTreeSet::new(),
            found: SetsLook::default(),
            changed: false,
            lists: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            long: BTreeMap::new(),
        })
    }

    /// The most entries of a set, as configured.
    pub(crate) fn maxelem(&self) -> u32 {
        self.maxelem
    }

    /// The most entries that a list may make of this set: less than configured, if it was made with
    /// less.
    pub(crate) fn room(&self, set: &SetKey) -> u32 {
        self.rooms.get(set).map_or(self.maxelem, |room| self.maxelem.min(*room))
    }

    /// The room that a set has, as far as it is known.
    fn room_now(&self, set: &SetKey) -> u32 {
        self.rooms.get(set).copied().unwrap_or(self.maxelem)
    }

    /// Takes down what the kernel says of a set.
    pub(crate) fn note(&mut self, set: &SetKey, info: &SetInfo) {
        match is_like(info, set) {
            true => {
                if self.foreign.remove(set) {
                    self.mirrors.refill(set);
                }
                self.rooms.insert(set.clone(), info.maxelem);
            }
            false => drop(self.foreign.insert(set.clone())),
        }
    }

    /// Refuses a set in the place of which others have put another, for as long as that is there, and
    /// one that they have emptied or destroyed, until what it held is back.
    /// The kernel counts the entries of a set that it is asked about, so it is asked only where that
    /// costs no more than a change of that many entries; else the next look finds out.
    pub(crate) fn check_own(
        &mut self,
        set: &SetKey,
        entries: usize,
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        // Where a mirror is missing, others may just have been at the set.
        if self.foreign.contains(set)
            || self.remade.contains(set)
            || self.mirrors.is_wanted(set)
            || self.is_cheap(set, entries)
        {
            let size = self.own_size(set)?;
            self.check_emptied(set, size, now)?;
        }
        match self.foreign.contains(set) {
            true => Err(FirewallError::ForeignSet(set.name())),
            false => Ok(()),
        }
    }

    /// Whether asking about a set costs no more than a change of so many entries, as far as its
    /// mirror tells.
    fn is_cheap(&self, set: &SetKey, entries: usize) -> bool {
        let cheap = entries.saturating_mul(100).saturating_add(ASKED_MAX);
        self.mirrors.whole(set).is_some_and(|mirror| mirror.len() <= cheap)
    }

    /// All sets of this network namespace.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn infos(&mut self) -> Result<Vec<SetInfo>, FirewallError> {
        Ok(self.ipset.infos(deadline())?)
    }

    /// A set that rfw has made; nothing if there is none of its name and kind.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn own_info(&mut self, set: &SetKey) -> Result<Option<SetInfo>, FirewallError> {
        match self.ipset.info(&name_of(set)?, deadline()) {
            Ok(info) => {
                self.note(set, &info);
                Ok(Some(info).filter(|info| is_like(info, set)))
            }
            Err(IpsetError::NoSet) => {
                self.foreign.remove(set);
                Ok(None)
            }
            Err(error) => Err(of(set, error)),
        }
    }

    /// Whether there is a set of others in the place of one.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn is_foreign(&mut self, set: &SetKey) -> Result<bool, FirewallError> {
        self.own_info(set)?;
        Ok(self.foreign.contains(set))
    }

    /// Whether there is a set of that name, whoever has made it.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn is_there(&mut self, name: &str) -> Result<bool, FirewallError> {
        match self.ipset.header(&set_name(name)?, deadline()) {
            Ok(_) => Ok(true),
            Err(IpsetError::NoSet) => Ok(false),
            Err(error) => Err(FirewallError::Set(name.to_owned(), error)),
        }
    }

    /// The number of entries of a set that rfw has made; nothing if there is none.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn own_size(&mut self, set: &SetKey) -> Result<Option<usize>, FirewallError> {
        Ok(self.own_info(set)?.as_ref().map(size))
    }

    /// Whether the kernel has the type of a set: not every kernel is built with `hash:net,net`.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn supports(&mut self, set: &SetKey) -> Result<bool, FirewallError> {
        match self.ipset.revision(set_type(set), deadline()) {
            Ok(_) => Ok(true),
            Err(IpsetError::NoType) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a set, unless it is there: what it holds then stays.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub(crate) fn create(&mut self, set: &SetKey, expected: usize) -> Result<Made, FirewallError> {
        let name = name_of(set)?;
        match self.ipset.header(&name, deadline()) {
            Ok(_) => return self.take_over(set),
            Err(IpsetError::NoSet) => {}
            Err(error) => return Err(of(set, error)),
        }
        let definition = self.definition(set, self.maxelem, expected);
        match self.make(&name, &definition, set.description()) {
            Ok(()) => {
                self.begin(set);
                Ok(Made::New)
            }
            Err(FirewallError::Set(_, IpsetError::SetExists)) => self.take_over(set),
            Err(error) => Err(error),
        }
    }

    /// Takes down that a set is new and empty. What it held before others destroyed it is to come back.
    fn begin(&mut self, set: &SetKey) {
        match self.is_remembered(set) {
            true => drop(self.remade.insert(set.clone())),
            false => self.mirrors.begin(set),
        }
        self.rooms.remove(set);
        self.foreign.remove(set);
        self.know_new_list(set);
        if set.list().is_none() {
            // A union that others had destroyed lacks what its lists have.
            self.unsettle(set);
        }
    }

    fn take_over(&mut self, set: &SetKey) -> Result<Made, FirewallError> {
        let info = self.ipset.info(&name_of(set)?, deadline()).map_err(|error| of(set, error))?;
        self.note(set, &info);
        if !is_like(&info, set) {
            return Ok(Made::Foreign);
        }
        self.register(set)?;
        // Its rule was missing: it may be another than before.
        self.mirrors.refill(set);
        self.know_list(set);
        self.unsettle(set);
        Ok(Made::Present(size(&info)))
    }

    fn definition(&self, set: &SetKey, maxelem: u32, expected: usize) -> Definition {
        let set_type = set_type(set);
        let expected = u32::try_from(expected).unwrap_or(u32::MAX).min(maxelem);
        Definition { set_type, maxelem, comments: true, expected }
    }

    /// Takes a set away; `false` if it was not there. The kernel keeps one that a rule
    /// looks up: [`IpsetError::Busy`].
    ///
    /// # Errors
    /// It is still in use.
    pub(crate) fn destroy(&mut self, name: &str) -> Result<bool, FirewallError> {
        let name = set_name(name)?;
        // A listing of our own would keep the set in use.
        self.mirrors.forget_named(name.as_str());
        self.listings.close(name.as_str());
        let start = Instant::now();
        loop {
            let mut batch = self.ipset.batch();
            self.withdraw(&mut batch, &name)?;
            batch.destroy(&name);
            let report = self.ipset.transact(batch, deadline())?;
            match report.outcomes.into_iter().next_back().and_then(|outcome| outcome.failure) {
                Some((_, IpsetError::Busy)) if start.elapsed() < LET_GO_TIME => {
                    thread::sleep(Duration::from_millis(5));
                }
                Some((_, IpsetError::NoSet)) => {
                    self.forget_set(&name);
                    return Ok(false);
                }
                Some((_, error)) => {
                    self.reinstate(&name)?;
                    return Err(about(&name, error));
                }
                None => {
                    self.forget_set(&name);
                    return Ok(true);
                }
            }
        }
    }

    fn forget_set(&mut self, name: &SetName) {
        self.forget_member(name);
        self.forget_list_named(name.as_str());
        self.remade.retain(|set| set.name() != name.as_str());
    }

    /// What follows the changes that rfw makes to a set.
    fn follow(&mut self, set: &SetKey) -> Follower<'_> {
        // What goes out of a union beside lists is of no interest: those tell what it has to hold.
        let notes_gone = !self.is_derived(set);
        self.mirrors.follow(set, notes_gone)
    }

    /// Tries again for a moment what fails because the kernel has not let go of a set.
    fn while_busy<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Sets) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        let start = Instant::now();
        loop {
            match attempt(self) {
                Err(FirewallError::Set(_, IpsetError::Busy)) if start.elapsed() < LET_GO_TIME => {
                    thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    /// Has `work` look at each entry of a set, until it says that it has seen enough.
    ///
    /// # Errors
    /// The set can't be read.
    fn each_entry(
        &self,
        name: &SetName,
        mut work: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), FirewallError> {
        let mut dump = dump(self.ipset.dumper(), name)?;
        while let Some(piece) = dump.next_piece(deadline()).map_err(|error| about(name, error))? {
            for entry in piece {
                if !work(&entry.map_err(|error| about(name, error))?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rules that the entries of a set stand for, with their labels.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn rules(
        &mut self,
        set: &SetKey,
        now: SystemTime,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Result<Vec<(Rule, Label)>, FirewallError> {
        let (mut rules, start) = (Vec::new(), Instant::now());
        self.each_entry(&name_of(set)?, |entry| {
            let rule = rule(set, entry).filter(&wanted);
            rules.extend(rule.map(|rule| (rule, label(set, entry, now + start.elapsed()))));
            true
        })?;
        Ok(rules)
    }

    /// Has the kernel make all changes of a batch, each with success.
    fn transact(&mut self, set: &SetKey, batch: Batch) -> Result<Vec<Outcome>, FirewallError> {
        let report = self.ipset.transact(batch, deadline()).map_err(|error| of(set, error))?;
        report.into_result().map_err(|error| self.full_or(set, error))
    }

    fn full_or(&mut self, set: &SetKey, error: IpsetError) -> FirewallError {
        match error {
            IpsetError::Full => {
                // Others may have made it anew, with another room.
                let info = self.own_info(set).ok().flatten();
                FirewallError::Full(info.map_or(self.maxelem, |info| info.maxelem))
            }
            error => of(set, error),
        }
    }

    /// Takes all entries out of a set.
    ///
    /// # Errors
    /// The kernel may still have them.
    pub(crate) fn flush(&mut self, name: &str) -> Result<(), FirewallError> {
        let name = set_name(name)?;
        let flushed = self.ipset.flush(&name, deadline());
        flushed.map_err(|error| about(&name, error))
    }

    /// What reads sets while others go on changing them.
    pub(crate) fn reader(&self) -> SetReader {
        SetReader::new(self.ipset.dumper(), self.listings.clone(), self.lists.clone())
    }
}

/// The kernel's type of a set.
fn set_type(set: &SetKey) -> SetType {
    match set.side() {
        Side::Both => SetType::NetNet(set.family()),
        Side::Source | Side::Destination => SetType::Net(set.family()),
    }
}

/// Whether a set is made as rfw makes that one, whatever its name is.
pub(crate) fn is_like(info: &SetInfo, set: &SetKey) -> bool {
    is_like_ours(info) && info.header.set_type == Some(set_type(set))
}

/// Whether a set is made as rfw makes its sets; up to 0.3.0 those had no comments.
pub(crate) fn is_like_ours(info: &SetInfo) -> bool {
    let hash = matches!(info.header.set_type, Some(SetType::Net(_) | SetType::NetNet(_)));
    hash && info.timeout == Some(0) && info.counters && !info.other
}

/// The number of entries of a set.
pub(crate) fn size(info: &SetInfo) -> usize {
    usize::try_from(info.elements).unwrap_or(usize::MAX)
}

fn name_of(set: &SetKey) -> Result<SetName, FirewallError> {
    set_name(&set.name())
}

fn set_name(name: &str) -> Result<SetName, FirewallError> {
    SetName::new(name).ok_or_else(|| FirewallError::Set(name.to_owned(), IpsetError::Malformed))
}

fn of(set: &SetKey, error: IpsetError) -> FirewallError {
    FirewallError::Set(set.name(), error)
}

/// The same for a set of which only the name is known.
fn about(name: &SetName, error: IpsetError) -> FirewallError {
    FirewallError::Set(name.as_str().to_owned(), error)
}

/// Whether an error says that there is no such set.
fn is_gone(error: &FirewallError) -> bool {
    matches!(error, FirewallError::Set(_, IpsetError::NoSet))
}

fn deadline() -> Instant {
    Instant::now() + ANSWER_TIME
}
