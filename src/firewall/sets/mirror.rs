//! What rfw remembers of the entries of a set, since the kernel can't be asked for the time of a
//! single one: address and end. The kernel stays the database: the mirror is changed only after
//! the kernel's acknowledgement, and read anew from the kernel whenever it may be wrong.
//!
//! Pure: a mirror is filled from the pieces of a listing (`IPSET_CMD_LIST`) while changes go on.
//! What changed meanwhile wins over what the listing says.

mod ended;

use crate::kernel::ipset::Element;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::lease::{Lease, Moment};
use crate::rule::network::{Family, Network};
use ended::Ended;
use foldhash::fast::RandomState;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far an end may be from the one that the kernel keeps: it is told in whole seconds, rounded
/// down, of a timeout that was rounded up.
pub(super) const TOLERANCE: Duration = Duration::from_secs(2);

/// Number of entries below which those that have ended are not looked for.
const PURGE_MIN: usize = 1_024;

/// The entries of one set: 12 bytes each for IPv4, 24 for IPv6, and half of that or as much again for
/// the free room of the table.
pub(super) struct Mirror(Box<dyn Entries + Send>);

/// An end as it is remembered: seconds since the epoch, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End(u32);

/// The operations of a [`Table`], whatever its key is.
trait Entries {
    fn get(&self, element: &Element<'_>) -> Option<End>;
    fn reserve(&mut self, more: usize);
    fn put(&mut self, element: &Element<'_>, end: End);
    fn is_to_purge(&self) -> bool;
    /// Forgets entries that have ended, and tells of each.
    fn purge(&mut self, now: SystemTime, ended: &mut dyn FnMut(Element<'static>, End));
    fn has_changed(&self, element: &Element<'_>) -> bool;
    fn remove(&mut self, element: &Element<'_>);
    fn read(&mut self, element: &Element<'_>, end: End);
    fn complete(&mut self);
    #[cfg(test)]
    fn is_complete(&self) -> bool;
    fn len(&self) -> usize;
    /// The number of entries that have not ended.
    fn unended(&self, now: SystemTime) -> usize;
    /// The number of entries that must be there, and of those that end about now.
    fn sizes(&self, now: SystemTime) -> (usize, usize);
    fn each(&self, work: &mut dyn FnMut(Element<'static>, End));
    /// Of each that is listed only the end is told.
    fn each_but(&self, listed: &[Network], work: &mut dyn FnMut(Option<Element<'static>>, End));
}

/// What the mirror says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is there and ends so.
    There(Lease),
    /// It ends about now: the kernel may have it or not.
    Ending,
    /// It is not there.
    Absent,
}

impl Mirror {
    /// The mirror of a set that has just been made: complete, and empty.
    pub(super) fn of_new(set: &SetKey) -> Mirror {
        Mirror::new(set, true)
    }

    /// The mirror of a set that is about to be listed.
    pub(super) fn to_fill(set: &SetKey) -> Mirror {
        Mirror::new(set, false)
    }

    fn new(set: &SetKey, is_complete: bool) -> Mirror {
        Mirror(match (set.side(), set.family()) {
            (Side::Both, _) => Box::new(Table::<(Network, Network)>::new(is_complete)),
            (_, Family::V4) => Box::new(Table::<PackedV4>::new(is_complete)),
            (_, Family::V6) => Box::new(Table::<Network>::new(is_complete)),
        })
    }

    /// Whether it has been filled.
    #[cfg(test)]
    pub(super) fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    /// What it says of an entry. [`Known::Absent`] means nothing until it is complete.
    pub(super) fn get(&self, element: &Element<'_>, now: SystemTime) -> Known {
        match self.0.get(element) {
            None => Known::Absent,
            Some(end) if end.is_over(now, TOLERANCE) => Known::Absent,
            Some(end) if end.is_over(now + TOLERANCE, Duration::ZERO) => Known::Ending,
            Some(end) => Known::There(end.lease()),
        }
    }

    /// When an entry ends that has not ended yet.
    pub(super) fn end(&self, element: &Element<'_>, now: SystemTime) -> Option<Lease> {
        self.0.get(element).filter(|end| !end.is_over(now, Duration::ZERO)).map(End::lease)
    }

    /// Makes room for a list that is all new.
    pub(super) fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// When an entry ends or has ended, if it is remembered.
    pub(super) fn lease(&self, element: &Element<'_>) -> Option<Lease> {
        self.0.get(element).map(End::lease)
    }

    /// Takes down that the kernel has added or renewed an entry.
    pub(super) fn put(&mut self, element: &Element<'_>, lease: Lease, now: SystemTime) {
        self.put_and_purge(element, lease, now, |_, _| ());
    }

    /// The same, and tells which entries are forgotten since they have ended.
    pub(super) fn put_and_purge(
        &mut self,
        element: &Element<'_>,
        lease: Lease,
        now: SystemTime,
        mut ended: impl FnMut(&Element<'_>, Lease),
    ) {
        if self.0.is_to_purge() {
            self.0.purge(now, &mut |element, end| ended(&element, end.lease()));
        }
        self.0.put(element, End::of(lease));
    }

    /// Whether an entry has changed since the listing began that fills the mirror.
    pub(super) fn has_changed(&self, element: &Element<'_>) -> bool {
        self.0.has_changed(element)
    }

    /// Takes down that the kernel has deleted an entry, or that it was not there.
    pub(super) fn remove(&mut self, element: &Element<'_>) {
        self.0.remove(element);
    }

    /// Takes an entry of a listing, unless it has changed since the listing began.
    pub(super) fn read(&mut self, element: &Element<'_>, lease: Lease) {
        self.0.read(element, End::of(lease));
    }

    /// Ends the filling.
    pub(super) fn complete(&mut self) {
        self.0.complete();
    }

    /// The number of entries, at most: some may have ended.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of entries that have not ended. That costs a look at each only where one has ended since
    /// it was asked last.
    pub(super) fn unended(&self, now: SystemTime) -> usize {
        self.0.unended(now)
    }

    /// Whether the kernel may have that number of live entries, as far as the mirror knows.
    pub(super) fn admits_size(&self, size: usize, now: SystemTime) -> bool {
        let (alive, ending) = self.0.sizes(now);
        (alive..=alive.saturating_add(ending)).contains(&size)
    }

    /// The number of entries that the kernel must have.
    pub(super) fn alive(&self, now: SystemTime) -> usize {
        self.0.sizes(now).0
    }

    /// Has `work` look at each entry, also those that have ended.
    pub(super) fn each_known(&self, mut work: impl FnMut(Element<'static>, Lease)) {
        self.0.each(&mut |element, end| work(element, end.lease()));
    }

    /// Has `work` look at each entry that the kernel may have.
    pub(super) fn each(&self, now: SystemTime, mut work: impl FnMut(Element<'static>, Lease)) {
        self.0.each(&mut |element, end| {
            if !end.is_over(now, TOLERANCE) {
                work(element, end.lease());
            }
        });
    }

    /// The entries that the kernel may have and that are not listed, and how many are listed.
    pub(super) fn beside(&self, listed: &[Network], now: SystemTime) -> (Vec<Element<'static>>, usize) {
        let (mut beside, mut present) = (Vec::new(), 0_usize);
        self.0.each_but(listed, &mut |element, end| match element {
            _ if end.is_over(now, TOLERANCE) => {}
            None => present = present.saturating_add(1),
            Some(element) => beside.push(element),
        });
        (beside, present)
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mirror({} entries)", self.len())
    }
}

impl End {
    fn of(lease: Lease) -> End {
        // Seconds above 32 bits, those of 2106, are told as the last of them.
        End(lease.end().map_or(0, |end| u32::try_from(end.seconds()).unwrap_or(u32::MAX).max(1)))
    }

    fn lease(self) -> Lease {
        match self.0 {
            0 => Lease::Permanent,
            seconds => {
                Lease::Until(Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(u64::from(seconds))))
            }
        }
    }

    /// Whether it is that long ago, or longer.
    fn is_over(self, now: SystemTime, ago: Duration) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0 != 0 && Duration::from_secs(u64::from(self.0)).saturating_add(ago) <= now
    }
}

/// What an entry is about, packed.
trait Key: Copy + Eq + Hash + Send {
    fn of(element: &Element<'_>) -> Option<Self>;
    fn element(self) -> Option<Element<'static>>;
}

/// An IPv4 network in 5 bytes: as a [`Network`] it would take 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PackedV4 {
    addr: [u8; 4],
    prefix: u8,
}

impl Hash for PackedV4 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(u32::from_be_bytes(self.addr)) << 8 | u64::from(self.prefix));
    }
}

impl Key for PackedV4 {
    #[inline(always)]
    fn of(element: &Element<'_>) -> Option<PackedV4> {
        match element {
            Element::Net(network) => match network.addr() {
                IpAddr::V4(addr) => Some(PackedV4 { addr: addr.octets(), prefix: network.prefix() }),
                IpAddr::V6(_) => None,
            },
            _ => None,
        }
    }

    fn element(self) -> Option<Element<'static>> {
        Network::new(Ipv4Addr::from(self.addr).into(), self.prefix).ok().map(Element::Net)
    }
}

impl Key for Network {
    fn of(element: &Element<'_>) -> Option<Network> {
        match element {
            Element::Net(network) => Some(*network),
            _ => None,
        }
    }

    fn element(self) -> Option<Element<'static>> {
        Some(Element::Net(self))
    }
}

impl Key for (Network, Network) {
    fn of(element: &Element<'_>) -> Option<(Network, Network)> {
        match element {
            Element::NetNet(source, destination) => Some((*source, *destination)),
            _ => None,
        }
    }

    fn element(self) -> Option<Element<'static>> {
        Some(Element::NetNet(self.0, self.1))
    }
}

/// The entries of a set by their key.
struct Table<K> {
    ends: HashMap<K, End, RandomState>,
    /// What has changed since the listing began that fills it; `None` if it is complete.
    changed: Option<HashSet<K, RandomState>>,
    /// The number of entries at which those that have ended are looked for.
    purge_at: usize,
    /// How many have ended, if they were counted.
    ended: Cell<Option<Ended>>,
}

impl<K: Key> Table<K> {
    fn new(is_complete: bool) -> Table<K> {
        let changed = (!is_complete).then(HashSet::default);
        Table { ends: HashMap::default(), changed, purge_at: PURGE_MIN, ended: Cell::new(None) }
    }

    /// Keeps the count of those that have ended, once an entry has got another end, has come or is gone.
    fn recount(&self, old: Option<End>, new: Option<End>) {
        self.ended.set(self.ended.get().map(|ended| ended.after(old, new)));
    }
}

impl<K: Key> Entries for Table<K> {
    fn get(&self, element: &Element<'_>) -> Option<End> {
        self.ends.get(&K::of(element)?).copied()
    }

    fn reserve(&mut self, more: usize) {
        // Beside many entries the table grows by itself, by half as much on the average.
        if more > self.ends.len() {
            self.ends.reserve(more);
        }
    }

    fn is_to_purge(&self) -> bool {
        self.ends.len() >= self.purge_at
    }

    /// Each entry is looked at as often as the table doubles.
    fn purge(&mut self, now: SystemTime, ended: &mut dyn FnMut(Element<'static>, End)) {
        self.ended.set(None);
        self.ends.retain(|key, end| {
            let is_over = end.is_over(now, TOLERANCE);
            if is_over && let Some(element) = key.element() {
                ended(element, *end);
            }
            !is_over
        });
        self.purge_at = self.ends.len().saturating_mul(2).max(PURGE_MIN);
        if self.ends.capacity() > self.purge_at.saturating_mul(4) {
            self.ends.shrink_to(self.purge_at);
        }
    }

    fn has_changed(&self, element: &Element<'_>) -> bool {
        K::of(element).is_some_and(|key| self.changed.as_ref().is_some_and(|it| it.contains(&key)))
    }

    fn put(&mut self, element: &Element<'_>, end: End) {
        let Some(key) = K::of(element) else { return };
        let old = self.ends.insert(key, end);
        self.recount(old, Some(end));
        self.changed.iter_mut().for_each(|changed| changed.extend([key]));
    }

    fn remove(&mut self, element: &Element<'_>) {
        let Some(key) = K::of(element) else { return };
        let old = self.ends.remove(&key);
        self.recount(old, None);
        self.changed.iter_mut().for_each(|changed| changed.extend([key]));
    }

    fn read(&mut self, element: &Element<'_>, end: End) {
        let key = K::of(element).filter(|key| self.changed.as_ref().is_some_and(|it| !it.contains(key)));
        let Some(key) = key else { return };
        let old = self.ends.insert(key, end);
        self.recount(old, Some(end));
    }

    fn complete(&mut self) {
        self.changed = None;
        self.purge_at = self.ends.len().saturating_mul(2).max(PURGE_MIN);
    }

    #[cfg(test)]
    fn is_complete(&self) -> bool {
        self.changed.is_none()
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn unended(&self, now: SystemTime) -> usize {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let known = self.ended.get().and_then(|ended| ended.known_at(now));
        let ended = known.unwrap_or_else(|| {
            let counted = Ended::count(self.ends.values().copied(), now);
            self.ended.set(Some(counted));
            counted.known_at(now).unwrap_or_default()
        });
        self.ends.len().saturating_sub(ended)
    }

    fn sizes(&self, now: SystemTime) -> (usize, usize) {
        let (mut alive, mut ending) = (0_usize, 0_usize);
        for end in self.ends.values() {
            if !end.is_over(now + TOLERANCE, Duration::ZERO) {
                alive = alive.saturating_add(1);
            } else if !end.is_over(now, TOLERANCE) {
                ending = ending.saturating_add(1);
            }
        }
        (alive, ending)
    }

    fn each(&self, work: &mut dyn FnMut(Element<'static>, End)) {
        self.ends.iter().filter_map(|(key, end)| Some((key.element()?, *end))).for_each(|(k, e)| work(k, e));
    }

    fn each_but(&self, listed: &[Network], work: &mut dyn FnMut(Option<Element<'static>>, End)) {
        let listed = listed.iter().filter_map(|network| K::of(&Element::Net(*network)));
        let listed: HashSet<K, RandomState> = listed.collect();
        for (key, end) in &self.ends {
            match listed.contains(key) {
                true => work(None, *end),
                false => key.element().into_iter().for_each(|element| work(Some(element), *end)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
