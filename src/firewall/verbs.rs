//! What the verbs of [`super::Firewall`] take and tell.

use crate::rule::label::Label;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::note::Note;
use crate::rule::{Rule, Scope};
use std::collections::HashMap;
use std::sync::Arc;

/// The reasons of rules.
pub(crate) type Notes = HashMap<Rule, Box<Note>>;

/// The outcome of inserting or deleting a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The rule did not exist and was inserted.
    Inserted,
    /// The rule existed and has a new lease.
    Refreshed,
    /// The rule existed without an end, as requested; nothing was changed but perhaps its reason.
    Unchanged,
    /// The rule existed and was deleted.
    Deleted,
    /// The rule to delete did not exist.
    Absent,
}

impl Outcome {
    /// The name in the answer of the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Inserted => "inserted",
            Outcome::Refreshed => "refreshed",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
            Outcome::Absent => "absent",
        }
    }
}

/// An address in a list, as an answer to another request tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The rule that it is blocked or accepted by.
    pub rule: Rule,
    /// When it ends.
    pub lease: Lease,
    /// The list that it is in.
    pub list: ListName,
}

/// What came of inserting one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// What was done.
    pub outcome: Outcome,
    /// An accept that comes before a block and holds all of its packets.
    pub overridden_by: Option<Held>,
}

/// What came of deleting one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// What was done.
    pub outcome: Outcome,
    /// What holds the address all the same, [`STILL_MAX`] at most.
    pub still: Vec<Held>,
}

/// The most rows of [`Deleted::still`].
pub(crate) const STILL_MAX: usize = 10;

/// How addresses go into a list.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The list.
    pub list: ListName,
    /// When they end.
    pub lease: Lease,
    /// Why they are there: those that have no reason of their own.
    pub note: Option<Box<Note>>,
    /// Reasons of single addresses.
    pub notes: Arc<HashMap<Network, Box<Note>>>,
    /// Whether the list is to hold nothing else in that scope.
    pub replace: bool,
}

impl Terms {
    /// What an address without a reason of its own has beside it.
    pub(crate) fn common(&self) -> Label {
        Label { note: self.note.clone(), ..Label::new(self.lease, self.list) }
    }

    /// What an address has beside it.
    pub(crate) fn label(&self, network: &Network) -> Label {
        let note = self.notes.get(network).or(self.note.as_ref()).cloned();
        Label { note, ..Label::new(self.lease, self.list) }
    }
}

/// Outcome of changing many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ListResult {
    /// Addresses that were there.
    pub present: usize,
    /// Addresses that were not.
    pub absent: usize,
    /// Addresses that the list held and that were not wanted any more.
    pub removed: usize,
}

impl ListResult {
    /// Adds another result to this one.
    pub(crate) fn add(&mut self, other: ListResult) {
        self.present = self.present.saturating_add(other.present);
        self.absent = self.absent.saturating_add(other.absent);
        self.removed = self.removed.saturating_add(other.removed);
    }
}

/// One list, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhichLists {
    /// That one.
    One(ListName),
    /// All of them, the unnamed one too.
    All,
}

impl WhichLists {
    /// The list, if it is one.
    pub(crate) fn one(self) -> Option<ListName> {
        match self {
            WhichLists::One(one) => Some(one),
            WhichLists::All => None,
        }
    }

    /// Whether it is one of them.
    pub(crate) fn admits(self, list: ListName) -> bool {
        match self {
            WhichLists::One(one) => one == list,
            WhichLists::All => true,
        }
    }
}

/// What a list holds in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListSummary {
    /// The list.
    pub list: ListName,
    /// Target, chain and interfaces.
    pub scope: Scope,
    /// The number of IPv4 addresses and networks.
    pub v4: usize,
    /// The number of IPv6 addresses and networks.
    pub v6: usize,
    /// The latest end of them.
    pub expires: Lease,
    /// When a client has last changed it since rfw started, and who.
    pub updated: Option<(Moment, String)>,
}
