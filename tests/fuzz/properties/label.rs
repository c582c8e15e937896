use super::Input;
use crate::kernel::ipset::Comment;
use crate::rule::label::Label;
use crate::rule::lease::{Interval, Lease};
use crate::rule::list_name::ListName;
use crate::rule::note::{Note, Reason};
use std::time::{Duration, UNIX_EPOCH};

/// Input: a comment; or the parts of a label, behind a byte with its upper bit.
pub(super) fn holds(data: &[u8]) {
    let mut input = Input::new(data);
    if data.first().is_some_and(|byte| byte & 0x80 != 0) {
        return check(&label(&mut input));
    }
    let Ok(comment) = str::from_utf8(data) else { return };
    if let Some(label) = Label::from_comment(comment) {
        assert_eq!(label.to_string(), comment);
        check(&label);
    }
    // Of an entry, any comment is one.
    let end = Lease::Until(crate::rule::lease::Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(1_000)));
    for lease in [Lease::Permanent, end] {
        let label = Label::of_entry(lease, ListName::UNNAMED, Some(comment));
        assert!(label.lease >= lease && label.lease.end().is_some() == lease.end().is_some());
        check(&label);
    }
}

/// A label of whatever a client may say.
fn label(input: &mut Input<'_>) -> Label {
    let kind = input.byte();
    let now = UNIX_EPOCH + Duration::from_secs(input.u32().into());
    let lease = Interval::of_seconds(if kind & 1 == 0 { 0 } else { input.u32().into() }).from(now);
    let length = input.byte() % 24;
    let list = input.text(length.into()).parse().unwrap_or(ListName::UNNAMED);
    let length = input.byte();
    let by = input.text(length.into());
    let reason = Reason::cut(&input.text(1_000));
    Label { lease, list, note: reason.map(|reason| Box::new(Note::new(&by, reason))) }
}

/// It fits into the kernel, and comes out of it as itself.
fn check(label: &Label) {
    let comment = label.to_string();
    assert!(comment.len() <= 255, "{comment}");
    assert_eq!(Label::from_comment(&comment).as_ref(), Some(label), "{comment}");
    for is_beyond_timeout in [false, true] {
        let of_entry = label.entry_comment(is_beyond_timeout);
        if let Some(text) = &of_entry {
            assert!(Comment::new(text).is_some(), "{text:?}");
        }
        let end = match label.lease.end() {
            Some(end) if is_beyond_timeout => Lease::Until(end.second_before()),
            _ => label.lease,
        };
        assert_eq!(Label::of_entry(end, label.list, of_entry.as_deref()), *label);
    }
    if let Some(note) = &label.note {
        assert_eq!(
            Reason::parse(note.reason()).ok().flatten().as_ref().map(Reason::as_str),
            Some(note.reason())
        );
    }
}
