//! Writing the state file. A change waits some seconds for more, and then the sweeper appends them; no
//! request waits for the disk. To write the file anew it reads the kernel's sets in pieces, and holds the
//! lock of the firewall for a piece only.

use super::entries::Entries;
use super::file::StateFile;
use super::format::{Header, Put};
use super::journal::Item;
use super::{State, clock};
use crate::firewall::expiry::{Chore, SharedFirewall};
use crate::firewall::sets::{SetReader, Sets, Step};
use crate::firewall::{Firewall, FirewallError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Moment;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Time from a failure to the next attempt.
const RETRY: Duration = Duration::from_secs(10);

/// Time between two warnings that the file can't be written.
const WARN_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time between two files that are written anew, as after changes that fail one after the other, or
/// while the disk is full.
const REWRITE_INTERVAL: Duration = Duration::from_secs(60);

/// Time allowed at the end of rfw for writing the file anew.
const END_TIME: Duration = Duration::from_millis(900);

/// The most rows of a set between two looks at the lock.
const ROWS: usize = 1_024;

/// Keeps the state file.
pub(crate) struct StateWriter {
    shared: Arc<SharedFirewall>,
    file: Mutex<Writing>,
    /// Whether rfw ends: a file that is being written anew is given up.
    is_ending: AtomicBool,
}

/// The file, and what the log has said of it.
struct Writing {
    file: StateFile,
    /// When it was written anew, or the disk did not take that.
    rewritten: Option<Instant>,
    /// When the log has said that it can't be written.
    warned: Option<Instant>,
}

/// All that goes into a file that is written anew.
struct Whole {
    /// The rules, that which was put in first at the beginning.
    rules: Vec<(Rule, Label)>,
    /// The sets of lists, and what reads them.
    sets: Vec<SetKey>,
    reader: Option<SetReader>,
}

/// What there is to write.
struct Work {
    items: Arc<Vec<Item>>,
    rewrite: bool,
    set_aside: bool,
    header: Header,
}

impl StateWriter {
    /// Keeps the state file of a firewall from now on; `None` if it has none.
    pub(crate) fn new(shared: &Arc<SharedFirewall>) -> Option<StateWriter> {
        let (path, adopted) = {
            let mut firewall = shared.lock();
            let state = firewall.state.as_mut()?;
            let adopted = state.adopted.take();
            adopted.iter().for_each(|header| state.writings.saved(header.written));
            (state.path.clone(), adopted)
        };
        let mut file = StateFile::new(path);
        if let Some(Err(error)) = adopted.map(|header| file.go_on(header)) {
            log::debug!("the state file is written anew, since it can't be gone on with: {error}");
        }
        Some(StateWriter {
            shared: Arc::clone(shared),
            file: Mutex::new(Writing { file, rewritten: None, warned: None }),
            is_ending: AtomicBool::new(false),
        })
    }

    /// Writes what has not been written yet. To be called when nothing changes any more, and without the
    /// lock of the firewall.
    pub(crate) fn finish(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        self.write(&mut self.lock(), Some(Instant::now() + END_TIME));
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what there is to write. A file that is written anew is given up at `limit`, or without one
    /// when rfw ends. Gives whether all is written.
    fn write(&self, writing: &mut Writing, limit: Option<Instant>) -> bool {
        let Some(work) = self.shared.lock().state_work(SystemTime::now()) else { return true };
        let is_time = writing.rewritten.is_none_or(|at| limit.is_some() || at.elapsed() >= REWRITE_INTERVAL);
        let rewrite = (work.rewrite || writing.file.is_worn()) && is_time;
        if !rewrite && work.items.is_empty() {
            return true;
        }
        let result = match rewrite {
            true => self.rewrite(writing, &work, limit),
            false => append(writing, &work).map_err(WriteError::Disk),
        };
        if rewrite && matches!(result, Ok(()) | Err(WriteError::Disk(_))) {
            writing.rewritten = Some(Instant::now());
        }
        match result {
            Ok(()) => {
                self.shared.lock().state_written(rewrite, SystemTime::now());
                writing.tell_success();
                return true;
            }
            Err(WriteError::Disk(error)) => {
                writing.tell_failure(&error);
                self.shared.lock().state_not_writable(&error);
            }
            Err(error) => {
                log::debug!("the state file is not written anew yet: {error}");
                // What has changed goes to the one that is there.
                if append(writing, &work).is_ok() {
                    self.shared.lock().state_written(false, SystemTime::now());
                    return false;
                }
            }
        }
        self.shared.lock().state_failed();
        false
    }

    fn rewrite(&self, writing: &mut Writing, work: &Work, limit: Option<Instant>) -> Result<(), WriteError> {
        let ended = ended_entries(writing.file.path(), work, SystemTime::now());
        let whole = self.shared.lock().whole_state();
        writing.file.rewrite(&work.header, work.set_aside, |file| {
            for (rule, label) in ended.into_iter().flat_map(Entries::into_rules).chain(whole.rules) {
                writeln!(file, "{}", Put(&rule, &label))?;
            }
            let reader = whole.reader.as_ref();
            for (set, reader) in whole.sets.iter().filter_map(|set| Some((set, reader?))) {
                self.write_set(file, set, reader, limit)?;
            }
            // What waited to be written is in the kernel by now.
            Ok(())
        })
    }

    /// Writes what a set of a list holds.
    fn write_set(
        &self,
        file: &mut dyn Write,
        set: &SetKey,
        reader: &SetReader,
        limit: Option<Instant>,
    ) -> Result<(), WriteError> {
        let (mut rules, mut rows, mut count) = (reader.read_set(set)?, Vec::new(), 0_usize);
        loop {
            let step = rules.next_rule(reader, SystemTime::now())?;
            let is_end = matches!(step, Step::End);
            if let Step::Next((rule, label, _)) = step {
                rows.push((rule, label));
            }
            if is_end || rows.len() >= ROWS {
                self.shared.lock().correct_ends(set, &mut rows, SystemTime::now());
                for (rule, label) in &rows {
                    writeln!(file, "{}", Put(rule, label))?;
                }
                count = count.saturating_add(rows.len());
                rows.clear();
                if limit.map_or(self.is_ending(), |limit| Instant::now() >= limit) {
                    return Err(WriteError::Ending);
                }
            }
            if is_end {
                break;
            }
        }
        // Others may have emptied it, which is put back soon.
        match self.shared.lock().is_state_of_set(set, count, SystemTime::now()) {
            true => Ok(()),
            false => Err(WriteError::Set(FirewallError::Busy)),
        }
    }
}

impl Chore for StateWriter {
    /// Writes what has waited long enough.
    fn step(&self) {
        if self.next().is_none_or(|next| next > Instant::now()) {
            return;
        }
        let mut file = self.lock();
        if self.is_ending() {
            return;
        }
        self.write(&mut file, None);
        self.shared.lock().put_off_writing(Instant::now() + RETRY);
    }

    /// When there is something to write; `None` if there is nothing.
    fn next(&self) -> Option<Instant> {
        self.shared.lock().next_writing()
    }
}

impl Writing {
    fn tell_success(&mut self) {
        if self.warned.take().is_some() {
            log::info!("the state file {} is written again", self.file.path().display());
        }
    }

    fn tell_failure(&mut self, error: &io::Error) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            log::warn!(
                "the state file {} can't be written, so that a reboot would lose changes: {error}",
                self.file.path().display()
            );
        }
    }
}

/// What of the file that is there has ended and stays in it, since the clock may be set back.
fn ended_entries(path: &Path, work: &Work, now: SystemTime) -> Option<Entries> {
    if work.set_aside || clock::is_settled() {
        return None;
    }
    let mut entries = State::read(path).ok()?.entries;
    entries.retain(|_, _, lease| lease.is_due(now));
    Some(entries)
}

fn append(writing: &mut Writing, work: &Work) -> io::Result<()> {
    writing.file.append(&work.header, |to| work.items.iter().try_for_each(|item| item.print(to)))
}

impl Firewall {
    fn state_work(&mut self, now: SystemTime) -> Option<Work> {
        let header = self.state_header(now)?;
        let state = self.state.as_mut()?;
        let (items, rewrite) = state.journal.take();
        Some(Work { items, rewrite, set_aside: state.set_aside, header })
    }

    /// When the state file is to be written; `None` if there is nothing to write.
    pub(crate) fn next_writing(&self) -> Option<Instant> {
        self.state.as_ref().and_then(|state| state.journal.due())
    }

    fn put_off_writing(&mut self, until: Instant) {
        self.state.iter_mut().for_each(|state| state.journal.put_off(until));
    }

    fn state_written(&mut self, whole: bool, now: SystemTime) {
        if let Some(state) = &mut self.state {
            state.writings.saved(Moment::at_or_after(now));
            state.journal.written(whole);
            state.set_aside &= !whole;
        }
    }

    fn state_not_writable(&mut self, error: &io::Error) {
        self.state.iter_mut().for_each(|state| state.writings.failed(error));
    }

    fn state_failed(&mut self) {
        self.state.iter_mut().for_each(|state| state.journal.failed());
    }

    /// What the kernel holds, as far as it is known without asking it.
    fn whole_state(&self) -> Whole {
        let mut rules = Vec::new();
        for table in &self.tables {
            // What others have flushed comes back.
            rules.extend(table.memory().lost().iter().rev().cloned());
            let found = table.cache().find(|_, _| true).into_iter().rev();
            rules.extend(found.map(|(rule, label)| (rule.clone(), label.clone())));
        }
        let unions: BTreeSet<SetKey> =
            self.linked_sets().into_iter().chain(self.known.iter().cloned()).collect();
        let sets = self.sets.as_ref();
        Whole {
            rules,
            sets: unions
                .iter()
                .flat_map(|union| sets.map_or(Vec::new(), |sets| sets.list_sets(union)))
                .collect(),
            reader: sets.map(Sets::reader),
        }
    }

    /// Gives entries of a set the ends that are known to the second: the kernel leaves out what there is
    /// of one.
    fn correct_ends(&self, set: &SetKey, rows: &mut [(Rule, Label)], now: SystemTime) {
        let Some(sets) = &self.sets else { return };
        for (rule, label) in rows {
            label.lease = sets.known_end(set, rule, now).unwrap_or(label.lease);
        }
    }

    /// Whether a set that had that number of entries was as rfw knows it: neither emptied by others, nor
    /// with a set of theirs in its place.
    fn is_state_of_set(&mut self, set: &SetKey, count: usize, now: SystemTime) -> bool {
        let Some(sets) = &mut self.sets else { return true };
        matches!(sets.is_foreign(set), Ok(false)) && !sets.is_emptied(set, count, now)
    }
}

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The disk does not take it.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// A set can't be read.
    #[error(transparent)]
    Set(#[from] FirewallError),
    /// rfw ends.
    #[error("rfw ends")]
    Ending,
}
