//! Reads the entries of a set piece by piece, while rfw goes on changing it.

use super::is_gone;
use super::{about, deadline, name_of, of, rule};
use crate::firewall::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{Dump, Dumper, IpsetError, SetName};
use crate::kernel::set_key::SetKey;
use crate::kernel::socket::Socket;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// A listing that goes on, until it is closed.
type OpenDump = Mutex<Option<Dump>>;

/// The listings of a set that go on, for who has to close them.
type OpenDumps = Vec<(SetKey, Weak<OpenDump>)>;

/// The listings of sets that go on. One keeps its set from being swapped and destroyed.
#[derive(Debug, Clone, Default)]
pub(super) struct Listings {
    open: Arc<Mutex<OpenDumps>>,
    /// How often a union has got lists beside it: who took it for the unnamed list has to begin anew.
    splits: Arc<AtomicUsize>,
}

impl Listings {
    fn add(&self, set: SetKey, dump: Dump) -> Arc<OpenDump> {
        let dump = Arc::new(Mutex::new(Some(dump)));
        let mut all = lock(&self.open);
        all.retain(|(_, dump)| dump.strong_count() > 0);
        all.push((set, Arc::downgrade(&dump)));
        dump
    }

    /// Ends the listings of a set: who reads one is told that it was interrupted.
    pub(super) fn close(&self, name: &str) {
        let all = lock(&self.open);
        let listings = all.iter().filter(|(set, _)| set.name() == name);
        listings.filter_map(|(_, dump)| dump.upgrade()).for_each(|dump| *lock(&dump) = None);
    }
}

impl Listings {
    /// Takes down that a union has got lists beside it.
    pub(super) fn note_split(&self) {
        self.splits.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads sets while others go on changing them.
pub(crate) struct SetReader {
    dumper: Dumper,
    listings: Listings,
    lists: BTreeMap<SetKey, BTreeSet<ListName>>,
    /// [`Listings::splits`] when `lists` was so.
    splits: usize,
}

impl SetReader {
    pub(super) fn new(
        dumper: Dumper,
        listings: Listings,
        lists: BTreeMap<SetKey, BTreeSet<ListName>>,
    ) -> SetReader {
        let splits = listings.splits.load(Ordering::Relaxed);
        SetReader { dumper, listings, lists, splits }
    }

    /// Begins to read what the lists of a scope hold, of those sets that are `wanted`.
    ///
    /// # Errors
    /// The kernel does not take the request.
    pub(crate) fn read(
        &self,
        union: &SetKey,
        wanted: impl Fn(&SetKey) -> bool,
    ) -> Result<ScopeRules, FirewallError> {
        let Some(lists) = self.lists.get(union) else {
            let alone = Some(union.clone()).filter(wanted);
            return Ok(ScopeRules {
                counting: None,
                counters: None,
                sets: alone.into_iter().collect(),
                open: None,
                is_alone: true,
            });
        };
        let sets: VecDeque<SetKey> = lists.iter().map(|list| union.with_list(*list)).filter(wanted).collect();
        let counting = if sets.is_empty() { None } else { Some(self.open(union)?) };
        Ok(ScopeRules { counting, counters: Some(HashMap::new()), sets, open: None, is_alone: false })
    }

    /// Begins to read one set, that of a list or a union; counters are those of its own entries.
    ///
    /// # Errors
    /// The kernel does not take the request.
    pub(crate) fn read_set(&self, set: &SetKey) -> Result<ScopeRules, FirewallError> {
        let open = Some(self.open(set)?);
        Ok(ScopeRules { counting: None, counters: None, sets: VecDeque::new(), open, is_alone: false })
    }

    /// Whether a union may have got lists since.
    fn is_outdated(&self) -> bool {
        self.listings.splits.load(Ordering::Relaxed) != self.splits
    }

    fn open(&self, set: &SetKey) -> Result<SetRules, FirewallError> {
        let dump = self.listings.add(set.clone(), dump(self.dumper, &name_of(set)?)?);
        Ok(SetRules { set: set.clone(), dump, piece: Vec::new().into_iter() })
    }
}

/// The next of what is read.
pub(crate) enum Step<T> {
    /// It.
    Next(T),
    /// Nothing yet: the kernel was asked once more.
    Piece,
    /// There is no more.
    End,
}

/// The two sides of a rule.
type Addresses = (Option<Network>, Option<Network>);

/// What the lists of a scope hold: first the counters of the union are read, then list by list.
pub(crate) struct ScopeRules {
    counting: Option<SetRules>,
    /// What was matched, without what never was; `None` if the entries count themselves.
    counters: Option<HashMap<Addresses, Counters>>,
    sets: VecDeque<SetKey>,
    open: Option<SetRules>,
    /// Whether it is a union that was the unnamed list when the listing began.
    is_alone: bool,
}

impl ScopeRules {
    /// The next rule, its label with an end at which it is sure to be there, and what it has matched.
    ///
    /// # Errors
    /// A set can't be read to its end; [`IpsetError::Interrupted`] if rfw itself has swapped or
    /// destroyed it meanwhile.
    pub(crate) fn next_rule(
        &mut self,
        reader: &SetReader,
        now: SystemTime,
    ) -> Result<Step<(Rule, Label, Counters)>, FirewallError> {
        if let Some(counting) = &mut self.counting {
            match unless_gone(counting.next_rule(now))? {
                Step::Next((rule, _, counters)) if counters != Counters::default() => {
                    self.counters.get_or_insert_default().insert(addresses(&rule), counters);
                }
                Step::Next(_) => {}
                Step::Piece => return Ok(Step::Piece),
                Step::End => self.counting = None,
            }
            return Ok(Step::Piece);
        }
        if self.open.is_none() {
            let Some(set) = self.sets.pop_front() else { return Ok(Step::End) };
            self.open = Some(reader.open(&set)?);
        }
        let Some(open) = &mut self.open else { return Ok(Step::End) };
        Ok(match unless_gone(open.next_rule(now))? {
            Step::End => {
                self.open = None;
                Step::Piece
            }
            Step::Next((rule, label, counters)) => {
                let union = self.counters.as_ref().map(|all| all.get(&addresses(&rule)).copied());
                Step::Next((rule, label, union.map_or(counters, Option::unwrap_or_default)))
            }
            // What came may be of other lists.
            Step::Piece if self.is_alone && reader.is_outdated() => {
                return Err(of(&open.set, IpsetError::Interrupted));
            }
            Step::Piece => Step::Piece,
        })
    }
}

/// The end of a set that is not there any more: it was empty, and taken away since the listing began.
fn unless_gone<T>(step: Result<Step<T>, FirewallError>) -> Result<Step<T>, FirewallError> {
    match step {
        Err(error) if is_gone(&error) => Ok(Step::End),
        step => step,
    }
}

fn addresses(rule: &Rule) -> Addresses {
    (rule.source().copied(), rule.destination().copied())
}

/// The rules that the entries of a set stand for, read piece by piece.
struct SetRules {
    set: SetKey,
    dump: Arc<OpenDump>,
    piece: std::vec::IntoIter<(Rule, Label, Counters)>,
}

impl SetRules {
    #[inline(always)]
    fn next_rule(&mut self, now: SystemTime) -> Result<Step<(Rule, Label, Counters)>, FirewallError> {
        if let Some(next) = self.piece.next() {
            return Ok(Step::Next(next));
        }
        let error = |error| of(&self.set, error);
        let mut dump = lock(&self.dump);
        let dump = dump.as_mut().ok_or(IpsetError::Interrupted).map_err(error)?;
        let Some(piece) = dump.next_piece(deadline()).map_err(error)? else { return Ok(Step::End) };
        let (mut rules, list) = (Vec::new(), self.set.list().unwrap_or_default());
        for entry in piece {
            let entry = entry.map_err(error)?;
            let end = entry.timeout.unwrap_or_default().sure_end(now);
            let label = Label::of_entry(end, list, entry.comment.as_deref());
            let counters = entry.counters.unwrap_or_default();
            rules.extend(rule(&self.set, &entry).map(|rule| (rule, label, counters)));
        }
        self.piece = rules.into_iter();
        Ok(Step::Piece)
    }
}

/// Begins to list a set over a socket of its own.
pub(super) fn dump(dumper: Dumper, name: &SetName) -> Result<Dump, FirewallError> {
    let socket = Socket::open().map_err(IpsetError::from)?;
    dumper.dump(socket, name).map_err(|error| about(name, error))
}
