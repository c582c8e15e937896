//! What clients have changed since the start: the last thousand, for `GET /changes`, and how many there were.
//! Nothing of it is kept over a restart; a client sees by the cursor that there was one.

use crate::api::record::Record;
use crate::api::{Origin, Service};
use crate::http::answer::{Answer, Content};
use crate::rule::Scope;
use crate::rule::lease::Moment;
use crate::rule::rights::Rights;
use serde_json::json;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes that are kept: half a megabyte at most.
const KEPT_MAX: usize = 1_000;

/// Rows that become text at a time.
const ROWS: usize = 32;

/// From where on changes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Those at that time and later.
    Time(Moment),
    /// Those behind what an earlier answer told.
    Cursor(Cursor),
}

/// A place between two changes: the start of rfw in microseconds, and the number of changes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    start: u64,
    number: u64,
}

/// The changes by clients since the start.
#[derive(Debug)]
pub(super) struct Changes {
    /// The last [`KEPT_MAX`], the oldest first.
    kept: VecDeque<Rc<Record>>,
    /// Behind all of them.
    next: Cursor,
    /// The time of the start, or of the last that is not kept any more.
    gone: Moment,
    /// How many have changed something.
    effective: u64,
    /// The last that has changed something.
    last: Option<Rc<Record>>,
}

impl Changes {
    /// None as yet, at the start of rfw.
    pub(super) fn new(now: SystemTime) -> Changes {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(since.as_micros()).unwrap_or_default();
        Changes {
            kept: VecDeque::new(),
            next: Cursor { start, number: 0 },
            gone: Moment::at_or_after(now).second_before(),
            effective: 0,
            last: None,
        }
    }

    /// Takes down a change.
    pub(super) fn note(&mut self, record: Record) {
        let record = Rc::new(record);
        if record.has_effect() {
            self.effective = self.effective.wrapping_add(1);
            self.last = Some(Rc::clone(&record));
        }
        if self.kept.len() >= KEPT_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            self.gone = self.gone.max(oldest.time);
        }
        self.kept.push_back(record);
        self.next.number = self.next.number.wrapping_add(1);
    }

    /// A number that is another one after each that has changed something.
    pub(super) fn effective(&self) -> u64 {
        self.effective
    }

    /// The last that has changed something.
    pub(super) fn last(&self) -> Option<&Record> {
        self.last.as_deref()
    }

    /// Those from there on that a client may see, and whether others that it asks for are gone.
    fn since(&self, since: Option<Since>, rights: &Rights) -> (Vec<Rc<Record>>, bool) {
        let kept = u64::try_from(self.kept.len()).unwrap_or(u64::MAX);
        let first = self.next.number.saturating_sub(kept);
        let (skipped, from, missed) = match since {
            None => (0, None, false),
            Some(Since::Time(time)) => (0, Some(time), time <= self.gone),
            Some(Since::Cursor(Cursor { start, number })) => {
                // What rfw was before its start, or will be, it does not know.
                let is_known = start == self.next.start && (first..=self.next.number).contains(&number);
                (if is_known { number.saturating_sub(first) } else { 0 }, None, !is_known)
            }
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let rows = self.kept.iter().skip(skipped);
        let rows = rows.filter(|record| from.is_none_or(|from| record.time >= from));
        (rows.filter(|record| sees(rights, record)).map(Rc::clone).collect(), missed)
    }
}

/// Whether a client may see a change: those of lists that it may see. That all lists are gone is told to
/// everybody who sees any.
fn sees(rights: &Rights, record: &Record) -> bool {
    match record.list {
        Some(list) => rights.sees(list),
        None => record.is_of_all_lists() || rights.visible().is_none(),
    }
}

impl Service {
    /// Has the log tell of what a client has changed, counts it and takes it down; a dry run changes nothing.
    pub(super) fn tell(&mut self, origin: &Origin, record: Record) {
        if origin.is_dry_run {
            return;
        }
        log::info!("{}", record.line());
        if record.has_effect() {
            self.count_change(record.list, record.subject.scope().map(Scope::target));
        }
        self.changes.note(record);
    }

    /// The changes from there on that the client may see.
    pub(super) fn list_changes(&self, origin: &Origin, since: Option<Since>) -> Answer {
        let rights = &origin.client.rights;
        let (records, missed) = self.changes.since(since, rights);
        let next = self.changes.next.to_string();
        let rest = json!({ "host": self.host.as_str(), "missed": missed, "next": next }).to_string();
        let text = Text {
            records: records.into_iter(),
            sees_all: rights.visible().is_none(),
            has_rows: false,
            rest: Some(rest),
        };
        Answer::json(200, Content::Parts(Box::new(text)))
    }
}

/// The text of an answer, a row a line, which is made while the client takes it.
struct Text {
    records: std::vec::IntoIter<Rc<Record>>,
    sees_all: bool,
    /// Whether the first rows are text already.
    has_rows: bool,
    /// The members that follow the rows, as an object of their own; `None` at the end.
    rest: Option<String>,
}

impl Iterator for Text {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let rest = self.rest.take()?;
        let rows: Vec<String> =
            self.records.by_ref().take(ROWS).map(|record| record.row(self.sees_all).to_string()).collect();
        let mut text = if self.has_rows { "," } else { "{\"changes\":[" }.to_owned();
        for (number, row) in rows.iter().enumerate() {
            text.push_str(if number == 0 { "\n" } else { ",\n" });
            text.push_str(row);
        }
        self.has_rows |= !rows.is_empty();
        if self.records.len() > 0 {
            self.rest = Some(rest);
        } else {
            text.push_str(if self.has_rows { "\n]," } else { "]," });
            text.push_str(rest.strip_prefix('{').unwrap_or(&rest));
            text.push('\n');
        }
        Some(text)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.start, self.number)
    }
}

impl FromStr for Since {
    type Err = ();

    /// Parses a time in UTC, or what [`Cursor`] prints.
    fn from_str(text: &str) -> Result<Since, ()> {
        if let Some(time) = Moment::parse(text) {
            return Ok(Since::Time(time));
        }
        let (start, number) = text.split_once('-').ok_or(())?;
        let start = u64::from_str_radix(start, 16).map_err(drop)?;
        let cursor = Cursor { start, number: number.parse().map_err(drop)? };
        // Only one spelling of each.
        if cursor.to_string() == text { Ok(Since::Cursor(cursor)) } else { Err(()) }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Since::Time(time) => time.fmt(f),
            Since::Cursor(cursor) => cursor.fmt(f),
        }
    }
}

#[cfg(test)]
#[path = "changes/tests.rs"]
mod tests;
