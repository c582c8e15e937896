//! The sets that rfw keeps in the kernel: which are its own, how lists of addresses go
//! into them, and how they are read.
//!
//! A change of a set is one send to the kernel, which is done whole even if rfw is
//! killed in the middle. Only where a process may have no send buffer of that size (in
//! a user namespace), or where the room of a set changes, is a set built beside and
//! swapped in.

mod reader;

use super::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{
    Batch, Definition, Element, Entry, Existing, Ipset, IpsetError, NewEntry, SetInfo, SetName, SetType,
};
use crate::kernel::set_key::{SetKey, Side};
use crate::kernel::timeout::Timeout;
use crate::rule::Rule;
use crate::rule::lease::Lease;
use crate::rule::network::{Family, Network};
use reader::dump;
pub(crate) use reader::{SetReader, SetRules};
use std::collections::HashSet;
use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Time allowed for the kernel's answer, which takes microseconds unless another
/// process holds the lock of the sets.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Time allowed for the kernel to let go of a set: it does so some moments after the
/// last rule that looked it up, or the last listing of it, is gone.
const LET_GO_TIME: Duration = Duration::from_millis(500);

/// The most addresses of a list that are counted one by one by the kernel. It keeps
/// 0.8 kB for each that is there already, so a longer list is counted by reading the set.
const COUNTED_MAX: usize = 5_000;

/// Outcome of adding or deleting an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryResult {
    /// It was done.
    Done,
    /// An entry to add was there, one to delete was not.
    Already,
    /// There is no such set.
    NoSet,
}

/// Outcome of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ListResult {
    /// Addresses that were there.
    pub present: usize,
    /// Addresses that were not.
    pub absent: usize,
}

impl ListResult {
    /// Adds another result to this one.
    pub(crate) fn add(&mut self, other: ListResult) {
        self.present += other.present;
        self.absent += other.absent;
    }
}

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

/// What is to become of the addresses of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListOp {
    /// They are added or renewed.
    Add(Lease),
    /// They are deleted.
    Delete,
}

/// The sets of this network namespace.
pub(crate) struct Sets {
    ipset: Ipset,
    maxelem: u32,
    /// The set that is built beside another.
    work: SetName,
}

impl Sets {
    /// Sets of at most `maxelem` entries each.
    ///
    /// # Errors
    /// The kernel has no sets, or the process lacks `CAP_NET_ADMIN`.
    pub(crate) fn open(maxelem: u32) -> Result<Sets, FirewallError> {
        let mut ipset = Ipset::open(deadline())?;
        ipset.names(deadline())?;
        let work = set_name(&crate::kernel::set_key::work_name(process::id()))?;
        Ok(Sets { ipset, maxelem, work })
    }

    /// The most entries of a set.
    pub(crate) fn maxelem(&self) -> u32 {
        self.maxelem
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
            Ok(info) => Ok(Some(info).filter(|info| is_like(info, set))),
            Err(IpsetError::NoSet) => Ok(None),
            Err(error) => Err(of(set, error)),
        }
    }

    /// The number of entries of a set that rfw has made; nothing if there is none.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn own_size(&mut self, set: &SetKey) -> Result<Option<usize>, FirewallError> {
        Ok(self.own_info(set)?.as_ref().map(size))
    }

    /// Whether the kernel has `hash:net,net`, which not every kernel is built with.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn has_pairs(&mut self) -> Result<bool, FirewallError> {
        match self.ipset.revision(SetType::NetNet(Family::V4), deadline()) {
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
        let definition = self.definition(set, self.maxelem, expected);
        match self.ipset.create(&name_of(set)?, &definition, deadline()) {
            Ok(()) => Ok(Made::New),
            Err(IpsetError::SetExists) => match self.ipset.info(&name_of(set)?, deadline()) {
                Ok(info) if is_like(&info, set) => Ok(Made::Present(size(&info))),
                Ok(_) => Ok(Made::Foreign),
                Err(error) => Err(of(set, error)),
            },
            Err(error) => Err(of(set, error)),
        }
    }

    fn definition(&self, set: &SetKey, maxelem: u32, expected: usize) -> Definition {
        let set_type = set_type(set);
        let expected = u32::try_from(expected).unwrap_or(u32::MAX).min(maxelem);
        Definition { set_type, maxelem, comments: false, expected }
    }

    /// Takes a set away; `false` if it was not there. The kernel keeps one that a rule
    /// looks up: [`IpsetError::Busy`].
    ///
    /// # Errors
    /// It is still in use.
    pub(crate) fn destroy(&mut self, name: &str) -> Result<bool, FirewallError> {
        let name = set_name(name)?;
        match self.while_busy(|ipset| ipset.destroy(&name, deadline())) {
            Ok(()) => Ok(true),
            Err(IpsetError::NoSet) => Ok(false),
            Err(error) => Err(FirewallError::Set(name.as_str().to_owned(), error)),
        }
    }

    /// Tries again for a moment what fails because the kernel has not let go of a set.
    fn while_busy<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Ipset) -> Result<T, IpsetError>,
    ) -> Result<T, IpsetError> {
        let start = Instant::now();
        loop {
            match attempt(&mut self.ipset) {
                Err(IpsetError::Busy) if start.elapsed() < LET_GO_TIME => {
                    thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    /// Adds an entry that is not there yet.
    ///
    /// # Errors
    /// The kernel does not have it, for a reason that [`EntryResult`] does not know.
    pub(crate) fn add(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        timeout: Timeout,
    ) -> Result<EntryResult, FirewallError> {
        self.enter(set, rule, timeout, Existing::Refuse)
    }

    /// Renews the time of an entry.
    ///
    /// # Errors
    /// As for [`Sets::add`].
    pub(crate) fn renew(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        timeout: Timeout,
    ) -> Result<EntryResult, FirewallError> {
        self.enter(set, rule, timeout, Existing::Accept)
    }

    fn enter(
        &mut self,
        set: &SetKey,
        rule: &Rule,
        timeout: Timeout,
        existing: Existing,
    ) -> Result<EntryResult, FirewallError> {
        let entry = NewEntry { timeout: Some(timeout), ..NewEntry::new(element(rule)) };
        match self.ipset.add(&name_of(set)?, &entry, existing, deadline()) {
            Ok(()) => Ok(EntryResult::Done),
            Err(IpsetError::Exists) => Ok(EntryResult::Already),
            Err(IpsetError::NoSet) => Ok(EntryResult::NoSet),
            Err(error) => Err(self.full_or(set, error)),
        }
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// The kernel may still have it.
    pub(crate) fn delete(&mut self, set: &SetKey, rule: &Rule) -> Result<EntryResult, FirewallError> {
        match self.ipset.del(&name_of(set)?, element(rule), Existing::Refuse, deadline()) {
            Ok(()) => Ok(EntryResult::Done),
            Err(IpsetError::Missing) => Ok(EntryResult::Already),
            Err(IpsetError::NoSet) => Ok(EntryResult::NoSet),
            Err(error) => Err(of(set, error)),
        }
    }

    /// Has `work` look at each entry of a set, until it says that it has seen enough.
    ///
    /// # Errors
    /// The set can't be read.
    fn each_entry(
        &mut self,
        set: &SetKey,
        mut work: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), FirewallError> {
        let mut dump = dump(self.ipset.dumper(), set)?;
        while let Some(piece) = dump.next_piece(deadline()).map_err(|error| of(set, error))? {
            for entry in piece {
                if !work(&entry.map_err(|error| of(set, error))?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rules that the entries of a set stand for, with what is left of their time.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn rules(
        &mut self,
        set: &SetKey,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Result<Vec<(Rule, Timeout)>, FirewallError> {
        let mut rules = Vec::new();
        self.each_entry(set, |entry| {
            let rule = rule(set, entry).filter(&wanted);
            rules.extend(rule.map(|rule| (rule, entry.timeout.unwrap_or_default())));
            true
        })?;
        Ok(rules)
    }

    /// What is left of the time of the entry of a rule; `None` if it is not there.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn timeout(&mut self, set: &SetKey, wanted: &Rule) -> Result<Option<Timeout>, FirewallError> {
        let mut found = None;
        self.each_entry(set, |entry| {
            if entry.element == element(wanted) && !entry.other {
                found = Some(entry.timeout.unwrap_or_default());
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Adds or deletes a whole list, or changes nothing, also where rfw is killed
    /// meanwhile. What is known to be there `as_rules` counts as present.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub(crate) fn apply(
        &mut self,
        set: &SetKey,
        list: &HashSet<Network>,
        op: ListOp,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let present = match op {
            ListOp::Add(lease) => self.add_list(set, list, as_rules, Timeout::left(lease, now))?,
            ListOp::Delete => self.delete_list(set, list, as_rules)?,
        };
        log::debug!("{}: {} addresses, {present} were there", set.name(), list.len());
        Ok(ListResult { present, absent: list.len().saturating_sub(present) })
    }

    /// Adds a list and gives the number of those that were there.
    fn add_list(
        &mut self,
        set: &SetKey,
        list: &HashSet<Network>,
        as_rules: &HashSet<Network>,
        timeout: Timeout,
    ) -> Result<usize, FirewallError> {
        let name = name_of(set)?;
        let entry =
            |network: &Network| NewEntry { timeout: Some(timeout), ..NewEntry::new(Element::Net(*network)) };
        let counted = list.len() <= COUNTED_MAX;
        let mut present = as_rules.len();
        if !counted {
            present += self.count(set, |network| list.contains(network) && !as_rules.contains(network))?;
        }
        let mut batch = self.ipset.batch();
        if counted {
            let new = list.iter().filter(|network| !as_rules.contains(network));
            batch.add_each(&name, new.map(entry), Existing::Refuse);
        }
        // Those that were there are renewed, the others once more.
        batch.add_many(&name, list.iter().map(entry));
        if batch.bytes() > self.ipset.socket().send_limit() {
            let most = self.own_info(set)?.map_or(self.maxelem, |info| info.maxelem);
            self.rebuild(set, most, |batch, work| batch.add_many(work, list.iter().map(entry)))?;
            return match counted {
                true => self.count(set, |network| list.contains(network)),
                false => Ok(present),
            };
        }
        let outcomes = self.transact(set, batch)?;
        Ok(present + outcomes.first().filter(|_| counted).map_or(0, |outcome| outcome.already))
    }

    /// Deletes a list and gives the number of those that were there.
    fn delete_list(
        &mut self,
        set: &SetKey,
        list: &HashSet<Network>,
        as_rules: &HashSet<Network>,
    ) -> Result<usize, FirewallError> {
        let name = name_of(set)?;
        let mut batch = self.ipset.batch();
        let (rules, others): (Vec<&Network>, Vec<&Network>) =
            list.iter().partition(|network| as_rules.contains(network));
        let elements = |networks: &[&Network]| -> Vec<Element<'static>> {
            networks.iter().map(|network| Element::Net(**network)).collect()
        };
        batch.del_each(&name, elements(&others), Existing::Refuse);
        batch.del_many(&name, elements(&rules));
        match self.transact(set, batch) {
            Ok(outcomes) => Ok(as_rules.len() + outcomes.first().map_or(0, |outcome| outcome.done)),
            // There is nothing to delete from.
            Err(FirewallError::Set(_, IpsetError::NoSet)) => Ok(as_rules.len()),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, set: &SetKey, wanted: impl Fn(&Network) -> bool) -> Result<usize, FirewallError> {
        let mut count = 0;
        self.each_entry(set, |entry| {
            count += usize::from(matches!(&entry.element, Element::Net(network) if wanted(network)));
            true
        })?;
        Ok(count)
    }

    /// Has the kernel make all changes of a batch, each with success.
    fn transact(
        &mut self,
        set: &SetKey,
        batch: Batch,
    ) -> Result<Vec<crate::kernel::ipset::Outcome>, FirewallError> {
        let report = self.ipset.transact(batch, deadline()).map_err(|error| of(set, error))?;
        report.into_result().map_err(|error| self.full_or(set, error))
    }

    fn full_or(&self, set: &SetKey, error: IpsetError) -> FirewallError {
        match error {
            IpsetError::Full => FirewallError::Full(self.maxelem),
            error => of(set, error),
        }
    }

    /// Builds a set anew, of that room, with its entries and what `more` adds, and swaps
    /// it in.
    fn rebuild(
        &mut self,
        set: &SetKey,
        maxelem: u32,
        more: impl FnOnce(&mut Batch, &SetName),
    ) -> Result<(), FirewallError> {
        self.drop_work()?;
        let (name, work) = (name_of(set)?, self.work.clone());
        let mut entries: Vec<(Element<'static>, Timeout, Option<Counters>)> = Vec::new();
        let mut foreign = false;
        self.each_entry(set, |entry| {
            // What is left is printed in whole seconds, a part of one left out.
            let timeout = entry.timeout.unwrap_or_default().rounded_up();
            let element = owned(&entry.element);
            foreign |= entry.other || element.is_none();
            entries.extend(element.map(|element| (element, timeout, entry.counters)));
            !foreign
        })?;
        if foreign {
            return Err(FirewallError::ForeignSet(set.name()));
        }
        let definition = self.definition(set, maxelem, entries.len());
        let revision =
            self.ipset.revision(definition.set_type, deadline()).map_err(|error| of(set, error))?;
        let mut batch = self.ipset.batch();
        batch.create(&work, &definition, revision);
        let kept = entries.into_iter().map(|(element, timeout, counters)| NewEntry {
            timeout: Some(timeout),
            counters,
            ..NewEntry::new(element)
        });
        batch.add_many(&work, kept);
        more(&mut batch, &work);
        self.transact(set, batch)?;
        self.while_busy(|ipset| ipset.swap(&work, &name, deadline())).map_err(|error| of(set, error))?;
        self.drop_work()
    }

    /// Gives a set another room, in which its entries fit.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub(crate) fn resize(&mut self, set: &SetKey) -> Result<(), FirewallError> {
        self.rebuild(set, self.maxelem, |_, _| ())
    }

    /// Takes all entries out of a set.
    ///
    /// # Errors
    /// The kernel may still have them.
    pub(crate) fn flush(&mut self, name: &str) -> Result<(), FirewallError> {
        let name = set_name(name)?;
        let flushed = self.ipset.flush(&name, deadline());
        flushed.map_err(|error| FirewallError::Set(name.as_str().to_owned(), error))
    }

    /// Takes the set away that was built beside another.
    fn drop_work(&mut self) -> Result<(), FirewallError> {
        match self.ipset.info(&self.work, deadline()) {
            Ok(info) if is_like_ours(&info) => self.destroy(self.work.clone().as_str()).map(drop),
            Ok(_) => Err(FirewallError::ForeignSet(self.work.as_str().to_owned())),
            Err(IpsetError::NoSet) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts entries into a set, each with its own timeout.
    ///
    /// # Errors
    /// The kernel may not have them all.
    pub(crate) fn load(&mut self, set: &SetKey, entries: &[(Rule, Timeout)]) -> Result<(), FirewallError> {
        let mut batch = self.ipset.batch();
        let entries = entries
            .iter()
            .map(|(rule, timeout)| NewEntry { timeout: Some(*timeout), ..NewEntry::new(element(rule)) });
        batch.add_many(&name_of(set)?, entries);
        self.transact(set, batch).map(drop)
    }

    /// The number of entries that a set has together with a list, at most: counted
    /// one by one only where it matters.
    ///
    /// # Errors
    /// The set can't be read.
    pub(crate) fn size_with(
        &mut self,
        set: &SetKey,
        list: &HashSet<Network>,
    ) -> Result<usize, FirewallError> {
        let size = match self.ipset.info(&name_of(set)?, deadline()) {
            Ok(info) if is_like(&info, set) => size(&info),
            Ok(_) => return Err(FirewallError::ForeignSet(set.name())),
            Err(IpsetError::NoSet) => return Ok(list.len()),
            Err(error) => return Err(of(set, error)),
        };
        let sum = size.saturating_add(list.len());
        if u32::try_from(sum).is_ok_and(|sum| sum <= self.maxelem) {
            return Ok(sum);
        }
        Ok(list.len().saturating_add(self.count(set, |network| !list.contains(network))?))
    }

    /// Whether a set may have an entry that holds this address or network. A host that
    /// no entry holds is known at once; for a network the set has to be read.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn may_hold(&mut self, set: &SetKey, network: &Network) -> Result<bool, FirewallError> {
        if network.family() != set.family() {
            return Ok(false);
        }
        if !network.is_host() || set.side() == Side::Both {
            return Ok(true);
        }
        self.ipset.test(&name_of(set)?, Element::Net(*network), deadline()).map_err(|error| of(set, error))
    }

    /// What reads sets while others go on changing them.
    pub(crate) fn reader(&self) -> SetReader {
        SetReader::new(self.ipset.dumper())
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

/// Whether a set is made as rfw makes its sets.
pub(crate) fn is_like_ours(info: &SetInfo) -> bool {
    let hash = matches!(info.header.set_type, Some(SetType::Net(_) | SetType::NetNet(_)));
    hash && info.timeout == Some(0) && info.counters && !info.comments && !info.other
}

/// The number of entries of a set.
pub(crate) fn size(info: &SetInfo) -> usize {
    usize::try_from(info.elements).unwrap_or(usize::MAX)
}

fn element(rule: &Rule) -> Element<'static> {
    match (rule.source(), rule.destination()) {
        (Some(source), Some(destination)) => Element::NetNet(*source, *destination),
        (Some(network), None) | (None, Some(network)) => Element::Net(*network),
        // No rule is without an address; the kernel refuses an element of none.
        (None, None) => Element::Set(""),
    }
}

fn owned(element: &Element<'_>) -> Option<Element<'static>> {
    match element {
        Element::Net(network) => Some(Element::Net(*network)),
        Element::NetNet(first, second) => Some(Element::NetNet(*first, *second)),
        Element::Set(_) => None,
    }
}

/// The rule that an entry stands for.
fn rule(set: &SetKey, entry: &Entry<'_>) -> Option<Rule> {
    let (source, destination) = match (set.side(), &entry.element) {
        (Side::Source, Element::Net(network)) => (Some(*network), None),
        (Side::Destination, Element::Net(network)) => (None, Some(*network)),
        (Side::Both, Element::NetNet(source, destination)) => (Some(*source), Some(*destination)),
        _ => return None,
    };
    let rule = Rule::new(set.scope().clone(), source, destination).ok()?;
    (rule.family() == set.family() && !entry.other).then_some(rule)
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

fn deadline() -> Instant {
    Instant::now() + ANSWER_TIME
}
