//! The answer to `GET /health`: whether rfw does what it should, and else what is wrong. It is told from what was
//! read and written last, so that no program is run for it; where another thread has the firewall, from what was
//! told before, so that a disk or a program that hangs keeps nobody from hearing of it.

use crate::api::monitor::Snapshot;
use crate::api::{Origin, Service};
use crate::firewall::health::Problem;
use crate::http::answer::{Answer, Content};
use crate::rule::lease::Moment;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A problem in a word, which stays the same, and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub code: &'static str,
    pub error: String,
}

/// All words for problems.
pub(super) const CODES: [&str; 6] = [
    "table_unreadable",
    "look_failed",
    "guard_missing",
    "certificate_ended",
    "state_not_writable",
    "sweeper_stalled",
];

/// The seconds after which to ask again.
const RETRY_AFTER: u64 = 10;

impl Service {
    /// The answer to `GET /health`: 200, or 503 and what is wrong. Numbers are for who may see all.
    pub(super) fn health(&mut self, origin: &Origin, now: SystemTime) -> Answer {
        let sees_all = origin.client.rights.check_read_all().is_ok();
        let problems = self.problems(sees_all, sees_all, now);
        let snapshot = &self.monitor.snapshot;
        let tally = snapshot.tally.filter(|_| sees_all);
        let moment = |time: Option<SystemTime>| time.map(|time| Moment::at_or_after(time).to_string());
        let body = json!({
            "host": self.host.as_str(),
            "status": if problems.is_empty() { "ok" } else { "failing" },
            "problems": problems.iter().map(Told::json).collect::<Value>(),
            "version": env!("CARGO_PKG_VERSION"),
            "started": moment(Some(self.monitor.started)),
            "now": moment(Some(now)),
            "variant": self.monitor.variant,
            "lists": tally.map(|tally| tally.lists),
            "entries": tally.map(|tally| tally.entries),
            "certificate_expires": moment(self.monitor.surroundings.certificate_ends),
            "state_saved": snapshot.state_saved.map(|saved| saved.to_string()),
        });
        let body = Content::Text(format!("{body}\n"));
        match problems.is_empty() {
            true => Answer::json(200, body),
            false => {
                let headers = vec![("Retry-After", RETRY_AFTER.to_string())];
                Answer { headers, ..Answer::json(503, body) }
            }
        }
    }

    /// What is wrong now. What goes wrong in tables and sets is told in words that may name lists, which are for
    /// who may see all. What the firewall holds is counted as well where that is asked.
    pub(super) fn problems(&mut self, sees_all: bool, counts: bool, now: SystemTime) -> Vec<Told> {
        if let Some(snapshot) = self.shared.glance(|firewall| Snapshot::at(firewall, counts, now)) {
            let tally = snapshot.tally.or(self.monitor.snapshot.tally);
            self.monitor.snapshot = Snapshot { tally, ..snapshot };
        }
        let ended = self.monitor.surroundings.ended.iter();
        let ended = ended.map(|error| Told { code: "certificate_ended", error: error.clone() });
        let stalled = self.shared.sweeper_stalled();
        let mut problems: Vec<Told> =
            self.monitor.snapshot.problems.iter().map(|problem| told(problem, sees_all)).collect();
        problems.extend(ended.chain(stalled.map(stalling)));
        problems
    }
}

impl Told {
    fn json(&self) -> Value {
        json!({ "code": self.code, "error": self.error })
    }
}

fn told(problem: &Problem, sees_all: bool) -> Told {
    let (code, hidden) = match problem {
        Problem::TableUnreadable(..) => {
            ("table_unreadable", Some("a table can't be read: the log of rfw says why"))
        }
        Problem::LookFailed(_) => {
            ("look_failed", Some("tables and sets can't be looked after: the log of rfw says why"))
        }
        Problem::GuardMissing(..) => ("guard_missing", None),
        Problem::StateNotWritable(..) => ("state_not_writable", None),
    };
    let error = match hidden.filter(|_| !sees_all) {
        Some(hidden) => hidden.to_owned(),
        None => problem.to_string(),
    };
    Told { code, error }
}

fn stalling(time: Duration) -> Told {
    Told { code: "sweeper_stalled", error: stalled(time) }
}

/// That the background thread hangs, in a sentence.
pub(super) fn stalled(time: Duration) -> String {
    format!(
        "the background thread has been at one thing for {} seconds, as where a disk is stalled: what has ended, \
         and what others flush, waits for it",
        time.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::network::Family;

    #[test]
    fn a_problem_has_a_word_that_is_known_and_names_no_list_to_who_may_not_see_it() {
        let why = || "\"rfw4-hidden\" is no rule".to_owned();
        let golden = [
            (
                Problem::TableUnreadable(Family::V4, why()),
                "table_unreadable: the table of IPv4 can't be read: \"rfw4-hidden\" is no rule",
                "table_unreadable: a table can't be read: the log of rfw says why",
            ),
            (
                Problem::LookFailed(why()),
                "look_failed: what others do to tables and sets can't be looked after: \"rfw4-hidden\" is no rule",
                "look_failed: tables and sets can't be looked after: the log of rfw says why",
            ),
            (
                Problem::GuardMissing(Family::V6, 7393),
                "guard_missing: the rules that guard port 7393 on IPv6 are not as they should be, and can't be put back yet",
                "guard_missing: the rules that guard port 7393 on IPv6 are not as they should be, and can't be put back yet",
            ),
            (
                Problem::StateNotWritable("/var/lib/rfw/state".into(), "No space left on device".to_owned()),
                "state_not_writable: the state file /var/lib/rfw/state can't be written, so that a reboot would lose changes: No space left on device",
                "state_not_writable: the state file /var/lib/rfw/state can't be written, so that a reboot would lose changes: No space left on device",
            ),
        ];
        for (problem, all, own) in golden {
            for (sees_all, expected) in [(true, all), (false, own)] {
                let Told { code, error } = told(&problem, sees_all);
                assert_eq!(format!("{code}: {error}"), expected);
                assert!(CODES.contains(&code), "{code}");
            }
        }
        let Told { code, error } = stalling(Duration::from_secs(301));
        assert!(CODES.contains(&code) && error.contains(" 301 seconds"), "{code}: {error}");
    }
}
