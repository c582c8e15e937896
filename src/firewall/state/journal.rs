//! The changes that are not in the state file yet. The verbs of the firewall note them; nothing is
//! printed for that, and nothing is written. Pure.

use super::format::{Begin, Gone, Put};
use crate::firewall::Terms;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time from a change to its writing, in which others may follow.
const WAIT: Duration = Duration::from_secs(3);

/// The most addresses that wait to be written. More are not remembered one by one: the file is written
/// anew from the kernel.
const WAITING_MAX: usize = 200_000;

/// A change.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// An address was put into a list.
    Put(Rule, Label),
    /// It was taken out.
    Gone(Rule, ListName),
    /// The addresses of a body were put into the list of that section, or replaced it.
    PutAll {
        /// The key of the list in its place.
        section: SetKey,
        /// Its addresses.
        networks: Vec<Network>,
        /// How they were put in.
        terms: Terms,
    },
    /// They were taken out.
    GoneAll {
        /// The key of the list in its place.
        section: SetKey,
        /// Its addresses.
        networks: Vec<Network>,
    },
    /// All that a list had in one place was taken out.
    Clear(SetKey),
}

impl Item {
    /// The number of addresses that it holds.
    fn size(&self) -> usize {
        match self {
            Item::Put(..) | Item::Gone(..) | Item::Clear(_) => 1,
            Item::PutAll { networks, .. } | Item::GoneAll { networks, .. } => networks.len(),
        }
    }

    /// Adds its lines to a text.
    pub(crate) fn print(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Item::Put(rule, label) => writeln!(to, "{}", Put(rule, label)),
            Item::Gone(rule, list) => writeln!(to, "{}", Gone(rule, *list)),
            Item::Clear(section) => writeln!(to, "{}\nend", Begin(section)),
            Item::PutAll { section, networks, terms } => {
                if terms.replace {
                    writeln!(to, "{}", Begin(section))?;
                }
                for (rule, network) in rules(section, networks) {
                    writeln!(to, "{}", Put(&rule, &terms.label(network)))?;
                }
                if terms.replace { writeln!(to, "end") } else { Ok(()) }
            }
            Item::GoneAll { section, networks } => rules(section, networks).try_for_each(|(rule, _)| {
                writeln!(to, "{}", Gone(&rule, section.list().unwrap_or_default()))
            }),
        }
    }
}

fn rules<'a>(section: &SetKey, networks: &'a [Network]) -> impl Iterator<Item = (Rule, &'a Network)> {
    networks.iter().filter_map(|network| Some((section.scope().clone().rule(*network).ok()?, network)))
}

/// The changes that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// In the order in which they were made; `None` is one that a later change of the same address has
    /// made needless.
    items: Vec<Option<Item>>,
    /// Where the last change of a single address is.
    singles: HashMap<(Rule, ListName), usize>,
    /// The number of addresses in `items`.
    size: usize,
    /// What is being written just now.
    taken: Arc<Vec<Item>>,
    /// Whether the file is to be written anew from the kernel.
    rewrite: bool,
    /// Whether that was so of what is being written just now. A doubt that comes up meanwhile is another.
    taken_rewrite: bool,
    /// When it is to be written next, if there is something to write.
    due: Option<Instant>,
}

impl Journal {
    /// When it is to be written; `None` if there is nothing to write.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Has what is left written at that time.
    pub(crate) fn put_off(&mut self, until: Instant) {
        self.due = self.is_pending().then_some(until);
    }

    /// Notes a change that was made.
    pub(crate) fn note(&mut self, item: Item) {
        self.due.get_or_insert_with(|| Instant::now() + WAIT);
        let single = match &item {
            Item::Put(rule, label) => Some((rule.clone(), label.list)),
            Item::Gone(rule, list) => Some((rule.clone(), *list)),
            _ => None,
        };
        match single {
            Some(single) => {
                if let Some(earlier) = self.singles.insert(single, self.items.len()) {
                    // An earlier one of the same address, with nothing of many addresses between.
                    if let Some(item) = self.items.get_mut(earlier) {
                        *item = None;
                    }
                    self.size = self.size.saturating_sub(1);
                }
            }
            None => self.singles.clear(),
        }
        self.size = self.size.saturating_add(item.size());
        self.items.push(Some(item));
        if self.size > WAITING_MAX || self.items.len() > WAITING_MAX {
            self.forget();
            self.rewrite = true;
        }
    }

    /// Notes that it is not known what has changed: the file is written anew from the kernel.
    pub(crate) fn doubt(&mut self) {
        self.rewrite = true;
        self.due.get_or_insert_with(|| Instant::now() + WAIT);
    }

    /// Whether there is something to write.
    pub(crate) fn is_pending(&self) -> bool {
        self.rewrite || self.taken_rewrite || self.size > 0 || !self.taken.is_empty()
    }

    /// Takes the changes that wait, to be written; and whether the file is to be written anew. Until
    /// [`Journal::written`] both count as not done.
    pub(crate) fn take(&mut self) -> (Arc<Vec<Item>>, bool) {
        let mut all = Arc::unwrap_or_clone(std::mem::take(&mut self.taken));
        all.extend(std::mem::take(&mut self.items).into_iter().flatten());
        self.forget();
        self.taken = Arc::new(all);
        self.taken_rewrite |= std::mem::take(&mut self.rewrite);
        (Arc::clone(&self.taken), self.taken_rewrite)
    }

    /// Takes down that what was taken is written; with `whole`, that the file was written anew.
    pub(crate) fn written(&mut self, whole: bool) {
        self.taken = Arc::default();
        self.rewrite |= std::mem::take(&mut self.taken_rewrite) && !whole;
    }

    /// Takes down that what was taken can't be written. If it is too much to be kept, the file is written
    /// anew once that works.
    pub(crate) fn failed(&mut self) {
        self.rewrite |= std::mem::take(&mut self.taken_rewrite);
        if self.taken.iter().map(Item::size).sum::<usize>() > WAITING_MAX / 2 {
            self.taken = Arc::default();
            self.rewrite = true;
        }
    }

    /// The changes that are not in the file yet, or perhaps not.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &Item> {
        self.taken.iter().chain(self.items.iter().flatten())
    }

    fn forget(&mut self) {
        self.items = Vec::new();
        self.singles = HashMap::new();
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_lasts_until_a_file_is_written_anew_that_was_begun_after_it() {
        let mut journal = Journal::default();
        journal.doubt();
        assert!(journal.take().1 && journal.is_pending());
        // It is not time for that yet.
        assert!(journal.take().1);
        journal.failed();
        assert!(journal.take().1);
        // What has changed went to the file that is there.
        journal.written(false);
        assert!(journal.take().1);
        journal.doubt();
        journal.written(true);
        assert!(journal.is_pending() && journal.take().1, "it came up while the file was written");
        journal.written(true);
        assert!(!journal.is_pending() && !journal.take().1);
    }
}
