//! What the service manager is told of rfw: how much it holds, and what a client changed last.

use crate::api::record::Record;
use crate::api::{Service, health};
use crate::firewall::counted;
use crate::firewall::tally::Tally;
use std::time::{Duration, SystemTime};

/// The longest name of a client that is told, in characters.
const NAME_MAX: usize = 64;

impl Service {
    /// A number that is another one after each change by a client.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.effective()
    }

    /// What rfw holds and what was changed last, in one line; `None` while the firewall is being changed.
    pub(crate) fn status(&mut self, now: SystemTime) -> Option<String> {
        let stalled = self.shared.sweeper_stalled();
        self.tell_stalled(stalled);
        let tally = self.shared.glance(|firewall| firewall.tally(now));
        match (tally, stalled) {
            (None, None) => None,
            (tally, stalled) => Some(line(tally, self.changes.last(), stalled)),
        }
    }

    /// Has the log tell once that the background thread hangs, and that it goes on.
    fn tell_stalled(&mut self, stalled: Option<Duration>) {
        let was_stalled = std::mem::replace(&mut self.is_stalled, stalled.is_some());
        match stalled {
            Some(time) if !was_stalled => log::warn!("{}", health::stalled(time)),
            None if was_stalled => log::info!("the background thread goes on"),
            _ => {}
        }
    }
}

fn line(tally: Option<Tally>, last: Option<&Record>, stalled: Option<Duration>) -> String {
    let mut parts = Vec::new();
    if let Some(Tally { lists, entries, is_whole }) = tally {
        let more = if is_whole { "" } else { " and what is still being read" };
        let (lists, entries) = (counted(lists, "list", "lists"), counted(entries, "entry", "entries"));
        parts.push(format!("{lists}, {entries}{more}"));
    }
    parts.push(last.map_or("no change since the start".to_owned(), told));
    if let Some(time) = stalled {
        parts.push(format!("the background thread hangs for {} minutes", time.as_secs() / 60));
    }
    parts.join("; ")
}

/// A change, in a few words.
fn told(record: &Record) -> String {
    let by: String = record.client.escape_debug().take(NAME_MAX).collect();
    format!("last change {} by {by}: {}", record.time, record.summary())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::record;

    #[test]
    fn a_status_is_one_line_whatever_clients_are_called() {
        let tally = |lists, entries, is_whole| Some(Tally { lists, entries, is_whole });
        let told = line(tally(0, 0, true), None, None);
        assert_eq!(told, "0 lists, 0 entries; no change since the start");
        let mut record = record::tests::of_one("/drop/input/any/1.2.3.4", Some("tor"));
        let told = line(tally(1, 1, true), Some(&record), None);
        assert_eq!(told, "1 list, 1 entry; last change 2026-11-27T10:00:00Z by honeypot: 1 inserted in tor");
        let told = line(tally(3, 1204, false), Some(&record), Some(Duration::from_secs(700)));
        let expected = "3 lists, 1204 entries and what is still being read; last change 2026-11-27T10:00:00Z \
                        by honeypot: 1 inserted in tor; the background thread hangs for 11 minutes";
        assert_eq!(told, expected);
        record.client = format!("a\nREADY=1\u{7f}{}", "x".repeat(500)).into();
        let told = line(None, Some(&record), None);
        assert!(
            told.contains(" by a\\nREADY=1\\u{7f}xxx") && told.ends_with("xx: 1 inserted in tor"),
            "{told}"
        );
        assert!(told.len() < 150 && !told.contains(char::is_control), "{told}");
    }
}
