//! What is counted of requests: answers, what was refused, and changes. No label is made of what a stranger sends:
//! methods and causes are words of rfw, and names of lists are those that a client had the right to change.

use crate::api::{Collecting, Origin, Pending, Service};
use crate::histogram::Histogram;
use crate::http::answer::Answer;
use crate::rule::Target;
use crate::rule::list_name::ListName;
use std::collections::BTreeMap;
use std::time::Duration;
use tiny_http::Method;

/// The most lists and targets whose changes are counted; beyond them, those that were changed longest ago are
/// forgotten.
const CHANGES_MAX: usize = 256;

/// What a change was about: its list and its target; `None` is more than one.
pub(super) type Changed = (Option<ListName>, Option<Target>);

/// What was counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers by method and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    /// The time from a request that has come whole to its answer.
    durations: Histogram,
    /// What was refused, by cause.
    refused: BTreeMap<&'static str, u64>,
    /// Changes, each with the number of the last one of all.
    changes: BTreeMap<Changed, (u64, u64)>,
    /// The number of all changes.
    change: u64,
}

impl Counts {
    /// Counts an answer to a request of a method; `None` where that could not be read.
    fn answered(&mut self, method: Option<&Method>, answer: &Answer, took: Duration) {
        let requests = self.requests.entry((word(method), answer.status)).or_default();
        *requests = requests.saturating_add(1);
        self.durations.note(took);
        answer.code.iter().for_each(|code| self.refused(code));
    }

    /// Counts a connection or a request that is refused.
    fn refused(&mut self, cause: &'static str) {
        let refused = self.refused.entry(cause).or_default();
        *refused = refused.saturating_add(1);
    }

    /// Counts a change.
    fn changed(&mut self, of: Changed) {
        self.change = self.change.saturating_add(1);
        let (count, last) = self.changes.entry(of).or_default();
        (*count, *last) = (count.saturating_add(1), self.change);
        if self.changes.len() > CHANGES_MAX {
            let eldest = self.changes.iter().min_by_key(|(_, (_, last))| *last).map(|(of, _)| *of);
            eldest.map(|of| self.changes.remove(&of));
        }
    }

    /// Answers by method and status.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        self.requests.iter().map(|((method, status), count)| (*method, *status, *count))
    }

    /// The time from a request that has come whole to its answer.
    pub(super) fn durations(&self) -> &Histogram {
        &self.durations
    }

    /// What was refused, by cause.
    pub(super) fn causes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.refused.iter().map(|(cause, count)| (*cause, *count))
    }

    /// Changes by list and target.
    pub(super) fn changes(&self) -> impl Iterator<Item = (Changed, u64)> {
        self.changes.iter().map(|(of, (count, _))| (*of, *count))
    }
}

/// The word for a method: one of those that a client may use, or `other`.
fn word(method: Option<&Method>) -> &'static str {
    match method {
        Some(Method::Get) => "GET",
        Some(Method::Head) => "HEAD",
        Some(Method::Put) => "PUT",
        Some(Method::Post) => "POST",
        Some(Method::Delete) => "DELETE",
        _ => "other",
    }
}

impl Service {
    /// Counts an answer to a request of a method, and the time that rfw took for it.
    pub(crate) fn count_answer(&mut self, method: Option<&Method>, answer: &Answer, took: Duration) {
        self.monitor.counts.answered(method, answer, took);
    }

    /// Counts the answer to a listing that is read to its end.
    pub(crate) fn count_listing(&mut self, listing: &Collecting, answer: &Answer) {
        let Origin { method, whole, .. } = listing.origin();
        self.count_answer(Some(method), answer, whole.elapsed());
    }

    /// Counts a connection that is refused.
    pub(crate) fn count_refused(&mut self, cause: Refused) {
        self.monitor.counts.refused(cause.word());
    }

    /// Counts a change of a client.
    pub(super) fn count_change(&mut self, list: Option<ListName>, target: Option<Target>) {
        self.monitor.counts.changed((list, target));
    }
}

impl Pending {
    /// Its method.
    pub(crate) fn method(&self) -> &Method {
        &self.origin.method
    }
}

/// Why a connection is refused before a request of it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its address is not in the white list.
    Unlisted,
    /// There are too many connections.
    Crowded,
    /// TLS can't be set up, as with a certificate that is not admitted.
    Tls,
}

impl Refused {
    /// All of them.
    pub(super) const ALL: [Refused; 3] = [Refused::Unlisted, Refused::Crowded, Refused::Tls];

    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Refused::Unlisted => "unlisted",
            Refused::Crowded => "crowded",
            Refused::Tls => "tls",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answer::Content;

    impl Counts {
        /// Some of everything.
        pub(in crate::api) fn sample(list: ListName) -> Counts {
            let mut counts = Counts::default();
            let answer = |status, code| Answer { code, ..Answer::json(status, Content::Text(String::new())) };
            counts.answered(Some(&Method::Put), &answer(200, None), Duration::from_micros(240));
            counts.answered(Some(&Method::Get), &answer(403, Some("no_right")), Duration::from_secs(20));
            counts.answered(None, &answer(400, Some("malformed")), Duration::ZERO);
            counts.refused(Refused::Unlisted.word());
            counts.changed((Some(list), Some(Target::Drop)));
            counts.changed((Some(ListName::UNNAMED), None));
            counts.changed((None, None));
            counts
        }
    }

    #[test]
    fn answers_are_counted_by_method_and_status_and_refusals_by_their_code() {
        let mut counts = Counts::default();
        let answer = |status, code| Answer { code, ..Answer::json(status, Content::Text(String::new())) };
        let took = Duration::from_millis(1);
        counts.answered(Some(&Method::Put), &answer(200, None), took);
        counts.answered(Some(&Method::Put), &answer(200, None), took);
        counts.answered(Some(&"BREW".parse().unwrap()), &answer(405, Some("method")), took);
        counts.answered(None, &answer(400, Some("bad_request")), took);
        counts.answered(Some(&Method::Get), &answer(400, Some("bad_request")), took);
        counts.refused(Refused::Unlisted.word());
        let requests: Vec<_> = counts.requests().collect();
        assert_eq!(requests, [("GET", 400, 1), ("PUT", 200, 2), ("other", 400, 1), ("other", 405, 1)]);
        let causes: Vec<_> = counts.causes().collect();
        assert_eq!(causes, [("bad_request", 2), ("method", 1), ("unlisted", 1)]);
        assert_eq!((counts.durations().count(), counts.durations().sum()), (5, 5 * took));
    }

    #[test]
    fn of_many_lists_those_changed_last_are_counted() {
        let mut counts = Counts::default();
        let list = |number: usize| Some(format!("list{number}").parse().unwrap());
        counts.changed((list(0), Some(Target::Drop)));
        counts.changed((list(1), None));
        counts.changed((list(0), Some(Target::Drop)));
        (2..=CHANGES_MAX).for_each(|number| counts.changed((list(number), Some(Target::Drop))));
        assert_eq!(counts.changes().count(), CHANGES_MAX);
        let of = |of| counts.changes().find(|(changed, _)| *changed == of).map(|(_, count)| count);
        assert_eq!(of((list(0), Some(Target::Drop))), Some(2));
        assert_eq!((of((list(1), None)), of((list(2), Some(Target::Drop)))), (None, Some(1)));
    }
}
