//! What the kernel keeps of an address in a list, beside the address: its end, the list, and a reason.
//! It stands in the comment of a rule; of a set entry, the end is its timeout, the list is that of
//! the set, and the comment has what those can't tell.

use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::note::Note;
use std::fmt;

/// What an address in a list has beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    /// When it ends.
    pub lease: Lease,
    /// The list that it is in.
    pub list: ListName,
    /// Why it is there.
    pub note: Option<Box<Note>>,
}

impl Label {
    /// A label without a reason.
    pub(crate) fn new(lease: Lease, list: ListName) -> Label {
        Label { lease, list, note: None }
    }

    /// Parses the comment of a rule. `None` is a comment that rfw does not write: the rule is not
    /// rfw's.
    pub(crate) fn from_comment(comment: &str) -> Option<Label> {
        let rest = comment.strip_prefix("rfw ")?;
        let (lease, rest) = match rest.strip_prefix("until ") {
            Some(rest) => {
                let (moment, rest) = next_word(rest);
                (Lease::Until(Moment::parse(moment)?), rest)
            }
            None => (Lease::Permanent, next_word(rest).1),
        };
        let (list, rest) = match rest.and_then(|rest| rest.strip_prefix("list ")) {
            Some(rest) => {
                let (name, rest) = next_word(rest);
                (name.parse().ok()?, rest)
            }
            None => (ListName::UNNAMED, rest),
        };
        let note = rest.map(|rest| Note::from_comment(rest).ok_or(())).transpose().ok()?;
        let label = Label { lease, list, note: note.map(Box::new) };
        (label.to_string() == comment).then_some(label)
    }

    /// The comment of a set entry: its end where its timeout can't tell that, and the note.
    pub(crate) fn entry_comment(&self, is_beyond_timeout: bool) -> Option<String> {
        let end = self.lease.end().filter(|_| is_beyond_timeout).map(|end| format!("until {end}"));
        let note = self.note.as_ref().map(ToString::to_string);
        let parts: Vec<String> = end.into_iter().chain(note).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The label of a set entry, from its end as the timeout tells it, and its comment. What of a
    /// comment rfw has not written means nothing.
    pub(crate) fn of_entry(end: Lease, list: ListName, comment: Option<&str>) -> Label {
        let (until, rest) = match comment.and_then(|comment| comment.strip_prefix("until ")) {
            Some(rest) => {
                let (moment, rest) = next_word(rest);
                (Moment::parse(moment), rest)
            }
            None => (None, comment),
        };
        let lease = match (end, until) {
            (Lease::Until(end), Some(until)) => Lease::Until(end.max(until)),
            (end, _) => end,
        };
        Label { lease, list, note: rest.and_then(Note::from_comment).map(Box::new) }
    }
}

/// The first word, and what follows its blank.
fn next_word(text: &str) -> (&str, Option<&str>) {
    text.split_once(' ').map_or((text, None), |(word, rest)| (word, Some(rest)))
}

impl fmt::Display for Label {
    /// The comment of the rule in the kernel (`--comment`, iptables-extensions(8)):
    /// `rfw until 2026-11-22T10:05:00Z list tor by mietek: scanner`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.lease)?;
        if self.list.is_named() {
            write!(f, " list {}", self.list)?;
        }
        self.note.iter().try_for_each(|note| write!(f, " {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;
    use crate::rule::note::Reason;
    use proptest::prelude::*;

    #[test]
    fn only_our_own_comments_are_read() {
        for (at, [comment, expected]) in cases("label-comment.txt") {
            let read = match Label::from_comment(&comment) {
                None => "-".to_owned(),
                Some(Label { lease, list, note }) => {
                    let end = lease.end().map_or("for ever".to_owned(), |end| end.seconds().to_string());
                    let note = note.map_or(String::new(), |note| format!(" {note}"));
                    format!("{end} {}{note}", list.word())
                }
            };
            assert_eq!(read, expected, "{at}");
        }
    }

    #[test]
    fn an_entry_says_what_its_timeout_can_not() {
        let (short, long) = (moment(1_000), moment(2_000));
        let note = |text: &str| Note::from_comment(text).map(Box::new);
        let golden = [
            (Lease::Until(short), None, Lease::Until(short), None),
            (Lease::Until(short), Some("until 1970-01-01T00:33:20Z"), Lease::Until(long), None),
            (
                Lease::Until(short),
                Some("until 1970-01-01T00:33:20Z by me: why"),
                Lease::Until(long),
                note("by me: why"),
            ),
            (Lease::Until(long), Some("by me: why"), Lease::Until(long), note("by me: why")),
            (Lease::Until(long), Some("until 1970-01-01T00:16:40Z"), Lease::Until(long), None),
            (Lease::Permanent, Some("what others wrote"), Lease::Permanent, None),
            (Lease::Permanent, Some("until soon by me: why"), Lease::Permanent, note("by me: why")),
        ];
        for (end, comment, lease, note) in golden {
            let label = Label::of_entry(end, ListName::UNNAMED, comment);
            assert_eq!(label, Label { lease, list: ListName::UNNAMED, note }, "{comment:?}");
        }
        let label = Label { note: note("by me: why"), ..Label::new(Lease::Until(long), ListName::UNNAMED) };
        assert_eq!(label.entry_comment(false).as_deref(), Some("by me: why"));
        assert_eq!(label.entry_comment(true).as_deref(), Some("until 1970-01-01T00:33:20Z by me: why"));
        assert_eq!(Label::new(Lease::Permanent, ListName::UNNAMED).entry_comment(true), None);
    }

    fn moment(seconds: u64) -> Moment {
        Moment::at_or_after(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    }

    proptest! {
        #[test]
        fn a_label_printed_and_read_again_is_itself(
            end in proptest::option::of(0u64..253_402_300_800),
            list in proptest::option::of("[a-z0-9][a-z0-9._-]{0,15}"),
            note in proptest::option::of(("\\PC{0,90}", "\\PC*")),
        ) {
            let reason = |(by, reason): (String, String)| Some(Box::new(Note::new(&by, Reason::cut(&reason)?)));
            let label = Label {
                lease: end.map_or(Lease::Permanent, |seconds| Lease::Until(moment(seconds))),
                list: list.map_or(ListName::UNNAMED, |name| name.parse().unwrap()),
                note: note.and_then(reason),
            };
            let comment = label.to_string();
            prop_assert!(comment.len() <= 255);
            prop_assert_eq!(Label::from_comment(&comment), Some(label.clone()));
            prop_assert!(label.entry_comment(true).is_none_or(|comment| comment.len() <= 255));
        }

        #[test]
        fn no_text_panics(text in "(rfw )?(until |permanent)?\\PC*") {
            let _ = Label::from_comment(&text);
            let _ = Label::of_entry(Lease::Permanent, ListName::UNNAMED, Some(&text));
        }
    }
}
