//! What an element of a set stands for: a rule, and what the kernel says of its end and list.

use crate::kernel::ipset::{Element, Entry};
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::Rule;
use crate::rule::label::Label;
use std::time::SystemTime;

/// The element that stands for a rule.
pub(super) fn element(rule: &Rule) -> Element<'static> {
    match (rule.source(), rule.destination()) {
        (Some(source), Some(destination)) => Element::NetNet(*source, *destination),
        (Some(network), None) | (None, Some(network)) => Element::Net(*network),
        // No rule is without an address; the kernel refuses an element of none.
        (None, None) => Element::Set(""),
    }
}

/// The same on its own; `None` for a member of a registry.
pub(super) fn owned(element: &Element<'_>) -> Option<Element<'static>> {
    match element {
        Element::Net(network) => Some(Element::Net(*network)),
        Element::NetNet(first, second) => Some(Element::NetNet(*first, *second)),
        Element::Set(_) => None,
    }
}

/// The rule that an entry stands for.
#[inline(always)]
pub(super) fn rule(set: &SetKey, entry: &Entry<'_>) -> Option<Rule> {
    rule_of(set, &entry.element).filter(|_| !entry.other)
}

/// What an entry has beside its addresses: the latest end that its timeout allows, or its true end.
pub(super) fn label(set: &SetKey, entry: &Entry<'_>, now: SystemTime) -> Label {
    let end = entry.timeout.unwrap_or_default().latest_end(now);
    Label::of_entry(end, set.list().unwrap_or_default(), entry.comment.as_deref())
}

/// The rule that an element of a set stands for.
#[inline(always)]
pub(super) fn rule_of(set: &SetKey, element: &Element<'_>) -> Option<Rule> {
    let (source, destination) = match (set.side(), element) {
        (Side::Source, Element::Net(network)) => (Some(*network), None),
        (Side::Destination, Element::Net(network)) => (None, Some(*network)),
        (Side::Both, Element::NetNet(source, destination)) => (Some(*source), Some(*destination)),
        _ => return None,
    };
    let rule = Rule::new(set.scope().clone(), source, destination).ok()?;
    (rule.family() == set.family()).then_some(rule)
}
