//! An entry as it goes into a set: what is left of its time, and its comment.

use crate::kernel::ipset::{Comment, Element, NewEntry};
use crate::kernel::timeout::Timeout;
use crate::rule::label::Label;
use crate::rule::lease::Lease;
use std::time::SystemTime;

/// An entry with what is left of its time.
pub(super) fn new_entry<'a>(
    element: Element<'a>,
    lease: Lease,
    comment: Option<&'a str>,
    now: SystemTime,
) -> NewEntry<'a> {
    NewEntry {
        timeout: Some(Timeout::left(lease, now)),
        comment: comment.and_then(Comment::new),
        ..NewEntry::new(element)
    }
}

/// The comment of an entry with that label.
pub(super) fn comment_of(label: &Label, now: SystemTime) -> Option<String> {
    label.entry_comment(Timeout::is_beyond(label.lease, now))
}
