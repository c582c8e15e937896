//! Reads the entries of a set piece by piece, while rfw goes on changing it.

use super::{about, deadline, name_of, of, rule};
use crate::firewall::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{Dump, Dumper, IpsetError, SetName};
use crate::kernel::set_key::SetKey;
use crate::kernel::socket::Socket;
use crate::kernel::timeout::Timeout;
use crate::rule::Rule;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A listing that goes on, until it is closed.
type OpenDump = Mutex<Option<Dump>>;

/// The listings of a set that go on, for who has to close them.
type OpenDumps = Vec<(SetKey, Weak<OpenDump>)>;

/// The listings of sets that go on. One keeps its set from being swapped and destroyed.
#[derive(Debug, Clone, Default)]
pub(super) struct Listings(Arc<Mutex<OpenDumps>>);

impl Listings {
    fn add(&self, set: SetKey, dump: Dump) -> Arc<OpenDump> {
        let dump = Arc::new(Mutex::new(Some(dump)));
        let mut all = lock(&self.0);
        all.retain(|(_, dump)| dump.strong_count() > 0);
        all.push((set, Arc::downgrade(&dump)));
        dump
    }

    /// Ends the listings of a set: who reads one is told that it was interrupted.
    pub(super) fn close(&self, name: &str) {
        let all = lock(&self.0);
        let listings = all.iter().filter(|(set, _)| set.name() == name);
        listings.filter_map(|(_, dump)| dump.upgrade()).for_each(|dump| *lock(&dump) = None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads sets while others go on changing them.
pub(crate) struct SetReader {
    dumper: Dumper,
    listings: Listings,
}

impl SetReader {
    pub(super) fn new(dumper: Dumper, listings: Listings) -> SetReader {
        SetReader { dumper, listings }
    }

    /// Begins to read a set.
    ///
    /// # Errors
    /// The kernel does not take the request.
    pub(crate) fn read(&self, set: SetKey) -> Result<SetRules, FirewallError> {
        let dump = self.listings.add(set.clone(), dump(self.dumper, &name_of(&set)?)?);
        Ok(SetRules { set, dump, piece: Vec::new().into_iter() })
    }
}

/// The rules that the entries of a set stand for, read piece by piece.
pub(crate) struct SetRules {
    set: SetKey,
    dump: Arc<OpenDump>,
    piece: std::vec::IntoIter<(Rule, Timeout, Counters)>,
}

impl SetRules {
    /// The next rule, what is left of its time, and what it has matched; `None` after
    /// the last.
    ///
    /// # Errors
    /// The set can't be read to its end; [`IpsetError::Interrupted`] if rfw itself has swapped or
    /// destroyed it meanwhile.
    pub(crate) fn next_rule(&mut self) -> Result<Option<(Rule, Timeout, Counters)>, FirewallError> {
        loop {
            if let Some(next) = self.piece.next() {
                return Ok(Some(next));
            }
            let error = |error| of(&self.set, error);
            let mut dump = lock(&self.dump);
            let dump = dump.as_mut().ok_or(IpsetError::Interrupted).map_err(error)?;
            let Some(piece) = dump.next_piece(deadline()).map_err(error)? else { return Ok(None) };
            let mut rules = Vec::new();
            for entry in piece {
                let entry = entry.map_err(error)?;
                let (timeout, counters) =
                    (entry.timeout.unwrap_or_default(), entry.counters.unwrap_or_default());
                rules.extend(rule(&self.set, &entry).map(|rule| (rule, timeout, counters)));
            }
            self.piece = rules.into_iter();
        }
    }
}

/// Begins to list a set over a socket of its own.
pub(super) fn dump(dumper: Dumper, name: &SetName) -> Result<Dump, FirewallError> {
    let socket = Socket::open().map_err(IpsetError::from)?;
    dumper.dump(socket, name).map_err(|error| about(name, error))
}
