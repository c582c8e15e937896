//! What of a set is not as rfw remembers it. Pure: compares what is remembered with what was read.

use super::mirror::{Mirror, TOLERANCE};
use crate::kernel::ipset::Element;
use crate::rule::lease::Lease;
use std::mem;
use std::time::SystemTime;

/// What others have changed in a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// The number of entries that must be there and are not.
    pub missing: usize,
    /// Whether the missing ones went as a whole: they come back. Else each is somebody's decision.
    pub is_emptied: bool,
    /// Entries that are there again, though they were deleted or have ended.
    pub returned: Vec<Element<'static>>,
    /// The number of entries with another end than is remembered; none where it is but one, which
    /// somebody has changed by hand.
    pub moved: usize,
    /// The number of others that rfw has not known, or not with that end.
    pub new: usize,
}

impl Difference {
    /// Whether others have changed nothing that matters.
    pub(super) fn is_none(&self) -> bool {
        self.missing == 0 && self.returned.is_empty() && self.moved == 0 && self.new == 0
    }
}

/// Whether so few of the entries that must be there are left that they went as a whole: two or more, and
/// over half of them.
pub(super) fn is_emptied(alive: usize, missing: usize) -> bool {
    missing >= 2 && missing > alive / 2
}

/// Whether an entry that is remembered to end so must be there and is not: `found` is its end there.
pub(super) fn is_missing(lease: Lease, found: Option<Lease>, now: SystemTime) -> bool {
    found.is_none() && !lease.is_due(now + TOLERANCE)
}

/// Compares what is remembered of a set with what was found in it. `is_gone` tells of an entry that is
/// not remembered whether it was deleted or has ended.
pub(super) fn compare(
    known: &Mirror,
    found: &Mirror,
    is_gone: impl Fn(&Element<'_>) -> bool,
    now: SystemTime,
) -> Difference {
    let mut difference = Difference::default();
    let (mut alive, mut ending) = (0_usize, 0_usize);
    known.each_known(|element, lease| {
        if lease.is_due(now + TOLERANCE) {
            return;
        }
        let there = found.lease(&element);
        alive = alive.saturating_add(1);
        ending = ending.saturating_add(usize::from(lease != Lease::Permanent));
        difference.missing = difference.missing.saturating_add(usize::from(is_missing(lease, there, now)));
        let is_moved = there.is_some_and(|there| !is_close(lease, there));
        difference.moved = difference.moved.saturating_add(usize::from(is_moved));
    });
    found.each_known(|element, lease| {
        // What was about to end when it was read has ended by now.
        let lasts = !lease.is_due(now + TOLERANCE);
        match known.lease(&element) {
            Some(end) if end.is_due(now) && lasts => difference.returned.push(element),
            None if is_gone(&element) => difference.returned.push(element),
            None if lasts => difference.new = difference.new.saturating_add(1),
            _ => {}
        }
    });
    // Where most ends are others than before, an older state was restored: what it lacks is missing as a
    // whole, too.
    let present = alive.saturating_sub(difference.missing);
    let is_restored = difference.moved >= 2 && difference.moved > present.min(ending) / 2;
    difference.is_emptied = difference.missing > 0 && is_restored || is_emptied(alive, difference.missing);
    if difference.moved < 2 {
        difference.new = difference.new.saturating_add(mem::take(&mut difference.moved));
    }
    difference
}

/// Whether two ends are the same, as far as the kernel can tell.
pub(super) fn is_close(one: Lease, other: Lease) -> bool {
    match (one.end(), other.end()) {
        (Some(one), Some(other)) => one.seconds().abs_diff(other.seconds()) <= TOLERANCE.as_secs(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::set_key::SetKey;
    use crate::rule::lease::Moment;
    use crate::rule::rule_of;
    use std::time::{Duration, UNIX_EPOCH};

    /// Entries as words: a number, then after a `@` its end.
    fn entries(text: &str) -> Vec<(Element<'static>, Lease)> {
        let entry = |word: &str| {
            let (number, end) =
                word.split_once('@').map_or((word, None), |(number, end)| (number, Some(end)));
            let end = end.map(|end| Duration::from_secs(end.parse().unwrap()));
            let lease =
                end.map_or(Lease::Permanent, |end| Lease::Until(Moment::at_or_after(UNIX_EPOCH + end)));
            (Element::Net(format!("1.0.0.{number}").parse().unwrap()), lease)
        };
        text.split_whitespace().map(entry).collect()
    }

    fn mirror(text: &str) -> Mirror {
        let mut mirror = Mirror::of_new(&SetKey::of(&rule_of("/drop/input/any/1.2.3.4")));
        entries(text).iter().for_each(|(element, lease)| mirror.put(element, *lease, UNIX_EPOCH));
        mirror
    }

    #[test]
    fn what_others_have_done_is_told_by_how_much_of_it_there_is() {
        // At 1,000, with 7, 8 and 9 deleted before: known, found; number of the missing, whether all of
        // it comes back, returned, number of the moved and of the new.
        let golden = [
            ("1 2 3@2000", "1 2 3@2000", 0, false, "", 0, 0),
            // Emptied, to less than half.
            ("1 2 3@2000", "", 3, true, "", 0, 0),
            ("1 2 3", "1", 2, true, "", 0, 0),
            ("1 2 3 4", "1 2", 2, false, "", 0, 0),
            ("1 2 3 4 5", "1 2", 3, true, "", 0, 0),
            // One is a decision, also the last.
            ("1 2 3", "1 2", 1, false, "", 0, 0),
            ("1", "", 1, false, "", 0, 0),
            // What has ended is not missing, and neither is what is about to.
            ("1@999 2@1000 3@1002 4", "4", 0, false, "", 0, 0),
            // What has ended comes back with a time of its own; what was read just before it ended has not.
            ("1@900 2", "1@1500 2", 0, false, "1", 0, 0),
            ("1@1000 2", "1@1001 2", 0, false, "", 0, 0),
            // What was deleted comes back; others are new.
            ("1", "1 7 8@3000 4 5@2000", 0, false, "7 8", 0, 2),
            ("", "9", 0, false, "9", 0, 0),
            // One end is changed by hand, two are not.
            ("1@2000 2@2000", "1@2003 2@2002", 0, false, "", 0, 1),
            ("1@2000 2@2000 3 4 5", "1@2003 2 3 4 5", 0, false, "", 2, 0),
            // An older state: what it lacks is missing as a whole.
            ("1@2000 2@2000 3 4 5 6@2000", "1@1500 2@9000 3 4 5", 1, true, "", 2, 0),
            ("1@2000 2@2000 3@2000 4@2000 5", "1@1500 2@9000 3@2000 4@2000", 1, false, "", 2, 0),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        for (known, found, missing, is_emptied, returned, moved, new) in golden {
            let is_gone = |element: &Element<'_>| entries("7 8 9").iter().any(|(gone, _)| gone == element);
            let mut difference = compare(&mirror(known), &mirror(found), is_gone, now);
            difference.returned.sort_by_key(|element| format!("{element:?}"));
            let returned: Vec<_> = entries(returned).into_iter().map(|(element, _)| element).collect();
            let expected = Difference { missing, is_emptied, returned, moved, new };
            assert_eq!(difference, expected, "{known} | {found}");
            assert_eq!(difference.is_none(), expected == Difference::default(), "{known} | {found}");
        }
    }
}
