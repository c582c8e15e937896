//! The answer to `GET /metrics`: what is counted and measured, as text for Prometheus. No set is read for it, and no
//! table but for the counters of rules, once a second at most; where these can't be read, they are left out. Where
//! another thread keeps the firewall, what it holds is told as measured last.

use crate::api::Service;
use crate::api::counts::{Counts, Refused};
use crate::api::exposition::{Exposition, Kind, MEDIA_TYPE};
use crate::api::health::{CODES, Told};
use crate::api::monitor::{Monitor, Reading};
use crate::firewall::measures::Measures;
use crate::firewall::traffic::{Counting, Traffic};
use crate::http::answer::{Answer, Content};
use crate::kernel::Counters;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use crate::rule::network::Family;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two readings of the counters of rules, however many ask.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Time to wait for the firewall, which a program that hangs would keep for longer than a scrape may take.
const WAIT_TIME: Duration = Duration::from_millis(500);

/// All that is told.
struct Metrics<'a> {
    variant: &'a str,
    started: SystemTime,
    certificate_ends: Option<SystemTime>,
    state_saved: Option<SystemTime>,
    connections: usize,
    counts: &'a Counts,
    measures: &'a Measures,
    traffic: Option<&'a Traffic>,
    problems: &'a [Told],
}

impl Service {
    /// The answer to `GET /metrics`.
    pub(super) fn metrics(&mut self, now: SystemTime) -> Answer {
        let begun = Instant::now();
        self.read_counters(begun);
        let problems = self.problems(true, false, now);
        if let Some(measures) = self.shared.with_by(begun + WAIT_TIME, |firewall| firewall.measures(now)) {
            self.monitor.measures = measures;
        }
        let Monitor { started, variant, surroundings, snapshot, counts, reading, measures } = &self.monitor;
        let metrics = Metrics {
            variant,
            started: *started,
            certificate_ends: surroundings.certificate_ends,
            state_saved: snapshot.state_saved.map(Moment::time),
            connections: surroundings.connections,
            counts,
            measures,
            traffic: reading.as_ref().and_then(|reading| reading.traffic.as_ref()),
            problems: &problems,
        };
        let body = Content::Text(metrics.text());
        Answer { media_type: MEDIA_TYPE, ..Answer::json(200, body) }
    }

    /// Reads what the rules have counted, unless that was done a moment ago.
    fn read_counters(&mut self, now: Instant) {
        let is_fresh = |reading: &Reading| now.saturating_duration_since(reading.at) < READ_INTERVAL;
        if self.monitor.reading.as_ref().is_some_and(is_fresh) {
            return;
        }
        let read = self.shared.read_by(now + WAIT_TIME, |firewall| firewall.traffic());
        if let Err(error) = &read {
            log::debug!("the counters of rules are not told: {error}");
        }
        self.monitor.reading = Some(Reading { at: now, traffic: read.ok() });
    }
}

impl Metrics<'_> {
    fn text(&self) -> String {
        let mut to = Exposition::default();
        self.tell_process(&mut to);
        self.tell_requests(&mut to);
        self.tell_lists(&mut to);
        self.tell_rules(&mut to);
        to.into_text()
    }

    fn tell_process(&self, to: &mut Exposition) {
        let build = vec![("version", env!("CARGO_PKG_VERSION")), ("variant", self.variant)];
        to.family(("rfw_build_info", Kind::Gauge, "Version and variant of iptables."), [(build, 1)]);
        to.single(("rfw_start_time_seconds", Kind::Gauge, "When rfw started."), seconds(self.started));
        let problems = CODES.map(|code| {
            let is_there = self.problems.iter().any(|problem| problem.code == code);
            (vec![("code", code)], u8::from(is_there))
        });
        to.family(("rfw_problem", Kind::Gauge, "Whether GET /health tells of this problem."), problems);
        let ends = self.certificate_ends.map(|ends| (Vec::new(), seconds(ends)));
        let help = "When the certificate of the HTTPS server ends.";
        to.family(("rfw_certificate_expiry_timestamp_seconds", Kind::Gauge, help), ends);
        let saved = self.state_saved.map(|saved| (Vec::new(), seconds(saved)));
        let help = "When the state file was written last.";
        to.family(("rfw_state_saved_timestamp_seconds", Kind::Gauge, help), saved);
    }

    fn tell_requests(&self, to: &mut Exposition) {
        to.single(("rfw_connections", Kind::Gauge, "Connections that are open."), self.connections);
        let requests: Vec<_> =
            self.counts.requests().map(|(m, s, count)| (m, s.to_string(), count)).collect();
        let requests = requests
            .iter()
            .map(|(method, status, count)| (vec![("method", *method), ("status", status.as_str())], *count));
        to.family(
            ("rfw_requests_total", Kind::Counter, "Requests that were answered, by method and status."),
            requests,
        );
        let help = "Time from a request that has come whole, its body too, to its answer.";
        to.histogram("rfw_request_duration_seconds", help, self.counts.durations());
        let never = Refused::ALL.map(Refused::word).into_iter();
        let never = never.filter(|word| self.counts.causes().all(|(cause, _)| cause != *word));
        let causes = self.counts.causes().chain(never.map(|word| (word, 0)));
        let help =
            "Connections (unlisted, crowded, tls) and requests that were refused, by the code of the error.";
        let causes = causes.map(|(cause, count)| (vec![("cause", cause)], count));
        to.family(("rfw_refused_total", Kind::Counter, help), causes);
    }

    fn tell_lists(&self, to: &mut Exposition) {
        let changes = self.counts.changes().map(|((list, target), count)| {
            let list = list.map_or("*".to_owned(), word);
            (list, target.map_or("*", |target| target.name()), count)
        });
        let changes: Vec<(String, &str, u64)> = changes.collect();
        let changes = changes
            .iter()
            .map(|(list, target, count)| (vec![("list", list.as_str()), ("target", *target)], *count));
        let help = "Changes by clients that had an effect, by list (- is the unnamed one, * more than one) and target.";
        to.family(("rfw_changes_total", Kind::Counter, help), changes);
        let Measures { entries, is_whole, updated, .. } = self.measures;
        let entries: Vec<_> = entries
            .iter()
            .map(|((list, family), count)| (word(*list), family_word(*family), *count))
            .collect();
        let entries = entries
            .iter()
            .map(|(list, family, count)| (vec![("list", list.as_str()), ("family", *family)], *count));
        let help = "Addresses and networks of each list; one counts once for each scope.";
        to.family(("rfw_entries", Kind::Gauge, help), entries);
        let help = "Whether rfw_entries has all: after a start some sets are yet to be read.";
        to.single(("rfw_entries_complete", Kind::Gauge, help), u8::from(*is_whole));
        let updated: Vec<(String, u64)> =
            updated.iter().map(|(list, moment)| (word(*list), moment.seconds())).collect();
        let updated = updated.iter().map(|(list, seconds)| (vec![("list", list.as_str())], *seconds));
        let help = "When a client changed the list last, if that was since the start.";
        to.family(("rfw_list_updated_timestamp_seconds", Kind::Gauge, help), updated);
    }

    fn tell_rules(&self, to: &mut Exposition) {
        let meter = &self.measures.meter;
        let help = "Rules whose time has ended; entries of sets are ended by the kernel and not counted.";
        to.single(("rfw_expired_total", Kind::Counter, help), meter.expired);
        let help = "How often tables, sets or the guard were put back after others had changed them.";
        to.single(("rfw_repairs_total", Kind::Counter, help), meter.repairs);
        let help = "How long changes of clients took in the firewall, with the programs in it.";
        to.histogram("rfw_transaction_duration_seconds", help, &meter.transactions);
        let help = "Whether the counters of rules could be read.";
        to.single(("rfw_counters_up", Kind::Gauge, help), u8::from(self.traffic.is_some()));
        let Some(traffic) = self.traffic else { return };
        let of_rules = |number: fn(&Counters) -> u64| {
            traffic.iter().filter_map(move |(of, counters)| match of {
                Counting::Rules(chain, target) => {
                    Some((vec![("chain", chain.name()), ("target", target.name())], number(counters)))
                }
                Counting::Guard => None,
            })
        };
        let help = "Packets that met a rule or a set of rfw.";
        to.family(("rfw_packets_total", Kind::Counter, help), of_rules(|counters| counters.packets));
        let help = "Bytes of these packets.";
        to.family(("rfw_bytes_total", Kind::Counter, help), of_rules(|counters| counters.bytes));
        let guard = traffic.get(&Counting::Guard).copied().unwrap_or_default();
        let help = "Packets to and from rfw's own port that its guard dropped.";
        to.single(("rfw_guard_packets_total", Kind::Counter, help), guard.packets);
        to.single(("rfw_guard_bytes_total", Kind::Counter, "Bytes of these packets."), guard.bytes);
    }
}

/// The name of a list, as the parameter `list` has it.
fn word(list: ListName) -> String {
    list.word().to_owned()
}

fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Whole seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
