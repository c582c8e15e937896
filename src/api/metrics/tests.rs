//! The whole text, as Prometheus gets it.

use super::*;
use crate::firewall::measures::Meter;
use crate::rule::{Chain, Target};
use std::collections::BTreeMap;

/// What `tests/golden/metrics.txt` has, with the version of this rfw.
fn golden() -> String {
    include_str!("../../../tests/golden/metrics.txt").replace("@version@", env!("CARGO_PKG_VERSION"))
}

fn told(counts: &Counts, measures: &Measures, traffic: Option<&Traffic>, problems: &[Told]) -> String {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let metrics = Metrics {
        variant: "nft",
        started: at(1_795_773_600),
        certificate_ends: Some(at(1_803_549_600)),
        state_saved: Some(at(1_795_773_700)),
        connections: 3,
        counts,
        measures,
        traffic,
        problems,
    };
    metrics.text()
}

#[test]
fn all_that_is_known_is_told() {
    let tor: ListName = "tor".parse().unwrap();
    let counts = Counts::sample(tor);
    let mut meter = Meter { expired: 7, repairs: 2, ..Meter::default() };
    meter.transactions.note(Duration::from_micros(180));
    let moment = Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(1_795_773_650));
    let measures = Measures {
        entries: BTreeMap::from([((ListName::UNNAMED, Family::V4), 2), ((tor, Family::V6), 300_000)]),
        is_whole: true,
        updated: BTreeMap::from([(tor, moment)]),
        meter,
    };
    let traffic = Traffic::from([
        (Counting::Rules(Chain::Input, Target::Drop), Counters { packets: 12, bytes: 1_440 }),
        (Counting::Rules(Chain::Forward, Target::Accept), Counters { packets: 1, bytes: u64::MAX }),
        (Counting::Guard, Counters { packets: 5, bytes: 300 }),
    ]);
    let problems = [Told { code: "guard_missing", error: "\"x\"".to_owned() }];
    let text = told(&counts, &measures, Some(&traffic), &problems);
    assert_eq!(text, golden(), "{text}");
    // Without the counters the rest is told.
    let text = told(&counts, &measures, None, &problems);
    assert!(text.contains("\nrfw_counters_up 0\n") && text.contains("\nrfw_entries{"), "{text}");
    assert!(!text.contains("rfw_packets_total") && !text.contains("rfw_guard_packets_total"), "{text}");
}
