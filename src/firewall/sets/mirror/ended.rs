//! How many entries of a mirror have ended, counted once and kept while entries come and go: the number of
//! those that have not is known then without a look at each, until the next one ends.

use super::End;

/// The entries that had ended at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// The moment in seconds since the epoch.
    at: u32,
    /// How many had ended by then.
    count: usize,
    /// No other ends before that.
    next: u32,
}

impl Ended {
    /// Counts them.
    pub(super) fn count(ends: impl Iterator<Item = End>, at: u32) -> Ended {
        let start = Ended { at, count: 0, next: u32::MAX };
        ends.fold(start, |ended, end| ended.after(None, Some(end)))
    }

    /// How many have ended at a moment, if that is known.
    pub(super) fn known_at(self, now: u32) -> Option<usize> {
        (self.at..self.next).contains(&now).then_some(self.count)
    }

    /// The same after an entry has got another end, has come or is gone.
    pub(super) fn after(self, old: Option<End>, new: Option<End>) -> Ended {
        let had_ended = |end: &End| end.0 != 0 && end.0 <= self.at;
        let gone = usize::from(old.is_some_and(|end| had_ended(&end)));
        let come = usize::from(new.is_some_and(|end| had_ended(&end)));
        let next = new.filter(|end| end.0 > self.at).map_or(self.next, |end| self.next.min(end.0));
        Ended { count: self.count.saturating_sub(gone).saturating_add(come), next, ..self }
    }
}
