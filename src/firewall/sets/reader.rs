//! Reads the entries of a set piece by piece, while rfw goes on changing it.

use super::{deadline, name_of, of, rule};
use crate::firewall::FirewallError;
use crate::kernel::Counters;
use crate::kernel::ipset::{Dump, Dumper, IpsetError};
use crate::kernel::set_key::SetKey;
use crate::kernel::socket::Socket;
use crate::kernel::timeout::Timeout;
use crate::rule::Rule;

/// Reads sets while others go on changing them.
pub(crate) struct SetReader(Dumper);

impl SetReader {
    pub(super) fn new(dumper: Dumper) -> SetReader {
        SetReader(dumper)
    }

    /// Begins to read a set.
    ///
    /// # Errors
    /// The kernel has no such set.
    pub(crate) fn read(&self, set: SetKey) -> Result<SetRules, FirewallError> {
        let dump = dump(self.0, &set)?;
        Ok(SetRules { set, dump, piece: Vec::new().into_iter() })
    }
}

/// The rules that the entries of a set stand for, read piece by piece.
pub(crate) struct SetRules {
    set: SetKey,
    dump: Dump,
    piece: std::vec::IntoIter<(Rule, Timeout, Counters)>,
}

impl SetRules {
    /// The next rule, what is left of its time, and what it has matched; `None` after
    /// the last.
    ///
    /// # Errors
    /// The set can't be read to its end.
    pub(crate) fn next_rule(&mut self) -> Result<Option<(Rule, Timeout, Counters)>, FirewallError> {
        loop {
            if let Some(next) = self.piece.next() {
                return Ok(Some(next));
            }
            let error = |error| of(&self.set, error);
            let Some(piece) = self.dump.next_piece(deadline()).map_err(error)? else { return Ok(None) };
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
pub(super) fn dump(dumper: Dumper, set: &SetKey) -> Result<Dump, FirewallError> {
    let socket = Socket::open().map_err(IpsetError::from)?;
    dumper.dump(socket, &name_of(set)?).map_err(|error| of(set, error))
}
