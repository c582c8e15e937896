//! Sets that others have emptied or destroyed, as tables and requests meet them: they are put back, get
//! their rules, and the log tells it.

use super::sets::{Repair, Sets, SetsLook};
use super::state::State;
use super::{Firewall, FirewallError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use std::cell::OnceCell;
use std::time::SystemTime;

/// The most sets that a line of the log names.
const NAMED_MAX: usize = 10;

impl Firewall {
    /// Looks at the registry and at each set, and puts back what is gone of them, sets before their rules.
    ///
    /// # Errors
    /// A table or set can't be read or changed; what is not done is tried at the next look.
    pub(super) fn look_at_sets(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let looked = self.with_repair(|sets, repair| sets.look(now, repair));
        self.follow_repair(now).and(looked)
    }

    /// Gives the entries of all sets the timeouts that their ends mean now, piece by piece as mirrors are
    /// filled: the clock was set, which the timeouts of the kernel don't follow. What has ended goes.
    pub(crate) fn retime_sets(&mut self) {
        self.sets.iter_mut().for_each(Sets::retime);
    }

    /// Changes sets of a scope. Where that finds that others have emptied or destroyed one, all of the
    /// scope are put back first.
    pub(super) fn mending<T>(
        &mut self,
        union: &SetKey,
        now: SystemTime,
        change: impl Fn(&mut Sets) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        match change(self.sets()?) {
            Err(FirewallError::Emptied(_)) => {
                self.with_repair(|sets, repair| sets.mend(union, now, repair))?;
                let followed = self.follow_repair(now);
                self.tell(Vec::new(), now);
                followed?;
                change(self.sets()?)
            }
            result => result,
        }
    }

    /// Gives sets that were made again their rules, unions what their lists hold, and tells what was
    /// found, but for what has come back: see [`Firewall::tell`].
    pub(super) fn follow_repair(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let look = self.sets()?.found();
        tell(&look);
        if !look.restored.is_empty() {
            self.meter.note_repair();
            self.repairs.of_sets(format!("sets: {}", names(&look.restored)));
        }
        if look.members > 0 {
            self.repairs.of_sets(format!("members of the registry of sets: {}", look.members));
        }
        let linked = look.made.iter().try_for_each(|union| self.link_anew(union));
        self.settle_all(now).and(linked)
    }

    /// Has sets do what may put some of them back. What others have changed is written down.
    pub(super) fn with_repair<T>(
        &mut self,
        work: impl FnOnce(&mut Sets, &Repair<'_>) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        let list = self.guarded.as_ref().map(|(_, list)| list);
        let forbidden = |rule: &Rule| list.is_some_and(|list| list.conflict(rule).is_some());
        // The state file is read once, and only where something comes back.
        let (state, entries) = (self.state.as_ref(), OnceCell::new());
        let notes = |set: &SetKey| {
            let entries = entries.get_or_init(|| state.and_then(State::entries).unwrap_or_default());
            entries.notes(&set.with_list(set.list().unwrap_or_default()))
        };
        let sets = self.sets.as_mut().ok_or(FirewallError::NoSets)?;
        let done = work(sets, &Repair { forbidden: &forbidden, notes: &notes });
        if sets.take_changed() {
            // No request has told the state file of it, and one that was written meanwhile may lack it.
            self.doubt_state();
        }
        done
    }
}

/// Tells what others have done to sets that are not put back.
fn tell(look: &SetsLook) {
    if look.is_empty() {
        return;
    }
    let lines = [
        (log::Level::Info, "entries that others have deleted stay deleted", &look.noted),
        (
            log::Level::Info,
            "entries that were deleted or had ended and that others have brought back go again",
            &look.removed,
        ),
        (log::Level::Info, "entries to which others have given other ends get theirs again", &look.moved),
    ];
    for (level, what, sets) in lines {
        if !sets.is_empty() {
            log::log!(level, "{what}: {}", names(sets));
        }
    }
}

/// Sets with numbers of entries, in words.
fn names(sets: &[(String, usize)]) -> String {
    let named = sets.iter().take(NAMED_MAX).map(|(name, number)| format!("{name} ({number})"));
    let more = sets.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| format!("{more} more"));
    named.chain(more).collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_names_some_sets_only() {
        let sets = |number: usize| (0..number).map(|at| (format!("rfw4-ids/{at}"), at)).collect::<Vec<_>>();
        assert_eq!(names(&sets(2)), "rfw4-ids/0 (0), rfw4-ids/1 (1)");
        assert!(names(&sets(13)).ends_with("rfw4-ids/9 (9), 3 more"), "{}", names(&sets(13)));
    }
}
