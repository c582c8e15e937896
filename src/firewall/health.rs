//! What of the firewall is not as it should be, told from what was read and written last: no program is run for it,
//! and the kernel is not asked.

use super::guard::is_guarded;
use super::{Firewall, FirewallError};
use crate::rule::lease::Moment;
use crate::rule::network::Family;
use std::path::PathBuf;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// A table could not be read the last time: why.
    #[error("the table of {0} can't be read: {1}")]
    TableUnreadable(Family, String),
    /// What others have done to tables or sets can't be looked after: why.
    #[error("what others do to tables and sets can't be looked after: {0}")]
    LookFailed(String),
    /// The guard rules of the port are not those that the white list needs.
    #[error("the rules that guard port {1} on {0} are not as they should be, and can't be put back yet")]
    GuardMissing(Family, u16),
    /// The state file could not be written the last time: why.
    #[error("the state file {path} can't be written, so that a reboot would lose changes: {1}", path = .0.display())]
    StateNotWritable(PathBuf, String),
}

impl Firewall {
    /// What is not as it should be, as last read and written.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let unreadable = self.tables.iter().filter_map(|table| {
            let why = table.failure()?;
            Some(Problem::TableUnreadable(table.family(), why.to_owned()))
        });
        let mut problems: Vec<Problem> = unreadable.collect();
        if problems.is_empty() {
            problems.extend(self.look_failure.clone().map(Problem::LookFailed));
        }
        let port = self.guarded.as_ref().and_then(|(port, _)| port.map(|port| port.number));
        let unguarded = self.tables.iter().filter(|table| {
            let wanted = self.guards.get(&table.family());
            wanted.is_some_and(|wanted| !is_guarded(table.cache().guards(), wanted))
        });
        problems.extend(
            unguarded.filter_map(|table| port.map(|port| Problem::GuardMissing(table.family(), port))),
        );
        let failed = self.state.iter().filter_map(|state| state.failure());
        problems.extend(failed.map(|(path, why)| Problem::StateNotWritable(path.to_owned(), why.to_owned())));
        problems
    }

    /// When the state file was written last, if there is one.
    pub(crate) fn state_saved(&self) -> Option<Moment> {
        self.state.as_ref().and_then(|state| state.saved())
    }

    /// Takes down what came of a look; a lock that another program holds for a moment is no failure.
    pub(super) fn note_look(&mut self, looked: &Result<(), FirewallError>) {
        self.look_failure = looked.as_ref().err().filter(|error| !error.is_locked()).map(ToString::to_string);
    }
}
