//! Wrong passwords in a row, address by address: after ten of them each further try of an address waits
//! a second, and for its turn behind others of that address, at nobody else's cost. Only the right password of the one name that all of
//! them were for ends that: else a client could try those of others, with its own in between.
//!
//! Pure: the clock is an argument, and what is kept is bounded.

use crate::api::Peer;
use crate::config::clients::CREDENTIAL_MAX;
use crate::http::handler::Place;
use crate::log_limit;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Wrong passwords in a row that cost nothing.
const FREE: u32 = 10;

/// Time between two tries of an address from then on.
const PAUSE: Duration = Duration::from_secs(1);

/// The most tries of an address that wait.
const LINE_MAX: u32 = 8;

/// Time after which an address is forgotten that has sent no wrong password.
const MEMORY: Duration = Duration::from_secs(600);

/// The most addresses that are known; the one that has been silent longest goes for another.
const SOURCES_MAX: usize = 1_024;

/// An address, on one of the two servers. All loopback addresses are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    address: IpAddr,
    local: bool,
}

impl Source {
    /// That of a client.
    pub(super) fn of(peer: &Peer) -> Source {
        let Peer { address, local, .. } = *peer;
        let address = if address.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { address };
        Source { address, local }
    }
}

/// When a try is judged.
#[derive(Debug)]
pub(super) enum Turn {
    /// At once.
    Now,
    /// Not before that; then it is to ask again, with its place.
    Later { until: Instant, place: Place },
    /// Not at all, since so many wait; there may be room for it then.
    Full { waiting: u32, until: Instant },
}

/// The addresses with wrong passwords.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    sources: HashMap<Source, Record>,
}

/// What is known of an address.
#[derive(Debug)]
struct Record {
    /// Wrong passwords since the last right one that ended a row.
    row: u32,
    /// The name that all of the row were for; `None` where they were for several, or for one that is too long
    /// for a client.
    name: Option<Box<str>>,
    /// When the last one was judged.
    last: Instant,
    /// When the log has told of it.
    told: Option<Instant>,
    /// Each try that waits has a clone.
    line: Place,
}

impl Record {
    fn new(now: Instant) -> Record {
        Record { row: 0, name: None, last: now, told: None, line: Place::default() }
    }

    /// Counts a wrong password for a name.
    fn count(&mut self, name: &str, now: Instant) {
        match self.row {
            0 => self.name = Some(name).filter(|name| name.len() <= CREDENTIAL_MAX).map(Box::from),
            _ if self.name.as_deref() == Some(name) => {}
            _ => self.name = None,
        }
        (self.row, self.last) = (self.row.saturating_add(1), now);
    }

    fn waiting(&self) -> u32 {
        u32::try_from(Rc::strong_count(&self.line).saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= MEMORY
    }

    /// The time after so many further tries.
    fn after(&self, tries: u32) -> Instant {
        self.last + PAUSE.saturating_mul(tries)
    }

    /// The turn of a try that has just come: a second later, and behind those that wait.
    fn turn(&self, now: Instant) -> Turn {
        let waiting = self.waiting();
        if waiting >= LINE_MAX {
            return Turn::Full { waiting, until: self.after(1).max(now) };
        }
        let until = self.after(waiting.saturating_add(1)).max(now + PAUSE);
        Turn::Later { until, place: Rc::clone(&self.line) }
    }
}

impl Attempts {
    /// When a try is judged; one that has waited has a place.
    pub(super) fn turn(&self, source: Source, place: Option<Place>, now: Instant) -> Turn {
        let known = self.sources.get(&source);
        let Some(record) = known.filter(|record| record.row >= FREE && !record.is_forgotten(now)) else {
            return Turn::Now;
        };
        match place {
            None => record.turn(now),
            // Another may have come first where one before both has gone.
            Some(place) if record.after(1) > now => Turn::Later { until: record.after(1), place },
            Some(_) => Turn::Now,
        }
    }

    /// Takes down that the password of a client was right.
    pub(super) fn right(&mut self, source: Source, name: &str) {
        let record = self.sources.get_mut(&source).filter(|record| record.name.as_deref() == Some(name));
        // It stays known, so that the log does not tell of it again at once.
        record.into_iter().for_each(|record| record.row = 0);
    }

    /// Takes down that a password for a name was wrong. Gives the number of those in a row where the log is to tell
    /// of it, once a minute.
    pub(super) fn wrong(&mut self, source: Source, name: &str, now: Instant) -> Option<u32> {
        self.sources.retain(|_, record| !record.is_forgotten(now));
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, record)| record.last).map(|(oldest, _)| *oldest);
            oldest.iter().for_each(|oldest| drop(self.sources.remove(oldest)));
        }
        let record = self.sources.entry(source).or_insert_with(|| Record::new(now));
        record.count(name, now);
        let is_told = record.told.is_some_and(|told| now.duration_since(told) < log_limit::INTERVAL);
        if record.row < FREE || is_told {
            return None;
        }
        record.told = Some(now);
        Some(record.row)
    }
}

#[cfg(test)]
mod tests;
