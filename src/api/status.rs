//! What the service manager is told of rfw: how much it holds, and what a client changed last.

use crate::api::{Origin, Service};
use crate::firewall::counted;
use crate::firewall::tally::Tally;
use crate::rule::lease::Moment;
use std::fmt;
use std::time::{Duration, SystemTime};

/// The longest name of a client that is told, in characters.
const NAME_MAX: usize = 64;

/// What clients have changed since the start.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: u64,
    last: Option<Change>,
}

/// A change by a client.
#[derive(Debug)]
struct Change {
    at: Moment,
    /// The name of the client, escaped.
    by: String,
    what: String,
}

impl Changes {
    /// Takes down what a client has changed: a number and what was done, such as `1 inserted in tor`.
    fn note(&mut self, at: SystemTime, user: &str, what: String) {
        let by = user.escape_debug().take(NAME_MAX).collect();
        self.count = self.count.wrapping_add(1);
        self.last = Some(Change { at: Moment::at_or_after(at), by, what });
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(Change { at, by, what }) => write!(f, "last change {at} by {by}: {what}"),
            None => f.write_str("no change since the start"),
        }
    }
}

impl Service {
    /// Takes down what a client has changed.
    pub(super) fn note_change(&mut self, origin: &Origin, what: String) {
        self.changes.note(SystemTime::now(), &origin.client.name, what);
    }

    /// Takes down that a client has deleted so many, if any; `within` says of which lists.
    pub(super) fn note_deletion(&mut self, origin: &Origin, count: usize, within: &str) {
        if count > 0 {
            self.note_change(origin, format!("{count} deleted{within}"));
        }
    }

    /// A number that is another one after each change by a client.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.count
    }

    /// What rfw holds and what was changed last, in one line; `None` while the firewall is being changed.
    pub(crate) fn status(&mut self, now: SystemTime) -> Option<String> {
        let stalled = self.shared.sweeper_stalled();
        self.tell_stalled(stalled);
        let tally = self.shared.glance(|firewall| firewall.tally(now));
        match (tally, stalled) {
            (None, None) => None,
            (tally, stalled) => Some(line(tally, &self.changes, stalled)),
        }
    }

    /// Has the log tell once that the background thread hangs, and that it goes on.
    fn tell_stalled(&mut self, stalled: Option<Duration>) {
        let was_stalled = std::mem::replace(&mut self.is_stalled, stalled.is_some());
        match stalled {
            Some(time) if !was_stalled => log::warn!(
                "the background thread has been at one thing for {} seconds, as where a disk is stalled: \
                 what has ended, and what others flush, waits for it",
                time.as_secs()
            ),
            None if was_stalled => log::info!("the background thread goes on"),
            _ => {}
        }
    }
}

fn line(tally: Option<Tally>, changes: &Changes, stalled: Option<Duration>) -> String {
    let mut parts = Vec::new();
    if let Some(Tally { lists, entries, is_whole }) = tally {
        let more = if is_whole { "" } else { " and what is still being read" };
        let (lists, entries) = (counted(lists, "list", "lists"), counted(entries, "entry", "entries"));
        parts.push(format!("{lists}, {entries}{more}"));
    }
    parts.push(changes.to_string());
    if let Some(time) = stalled {
        parts.push(format!("the background thread hangs for {} minutes", time.as_secs() / 60));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_status_is_one_line_whatever_clients_are_called() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_795_773_600);
        let tally = |lists, entries, is_whole| Some(Tally { lists, entries, is_whole });
        let mut changes = Changes::default();
        let told = line(tally(0, 0, true), &changes, None);
        assert_eq!(told, "0 lists, 0 entries; no change since the start");
        changes.note(noon, "honeypot", "1 inserted in tor".to_owned());
        assert_eq!(changes.count, 1);
        let told = line(tally(1, 1, true), &changes, None);
        assert_eq!(told, "1 list, 1 entry; last change 2026-11-27T10:00:00Z by honeypot: 1 inserted in tor");
        let told = line(tally(3, 1204, false), &changes, Some(Duration::from_secs(700)));
        let expected = "3 lists, 1204 entries and what is still being read; last change 2026-11-27T10:00:00Z \
                        by honeypot: 1 inserted in tor; the background thread hangs for 11 minutes";
        assert_eq!(told, expected);
        changes.note(noon, &format!("a\nREADY=1\u{7f}{}", "x".repeat(500)), "2 deleted".to_owned());
        let told = line(None, &changes, None);
        assert!(told.contains(" by a\\nREADY=1\\u{7f}xxx") && told.ends_with("xx: 2 deleted"), "{told}");
        assert!(told.len() < 150 && !told.contains(char::is_control), "{told}");
    }
}
