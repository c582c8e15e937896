//! What the answers to `GET /health` and `GET /metrics` are made of, beside what the firewall tells when it is asked.

use crate::api::Service;
use crate::api::counts::Counts;
use crate::firewall::Firewall;
use crate::firewall::health::Problem;
use crate::firewall::measures::Measures;
use crate::firewall::tally::Tally;
use crate::firewall::traffic::Traffic;
use crate::rule::lease::Moment;
use std::time::{Instant, SystemTime};

/// What is known of rfw.
#[derive(Debug)]
pub(super) struct Monitor {
    /// When it was started.
    pub started: SystemTime,
    /// The variant of iptables.
    pub variant: &'static str,
    /// What only the server knows.
    pub surroundings: Surroundings,
    /// What the firewall told of itself last.
    pub snapshot: Snapshot,
    /// What was counted of requests.
    pub counts: Counts,
    /// What rules have counted, as last read.
    pub reading: Option<Reading>,
    /// What was measured of the firewall last.
    pub measures: Measures,
}

/// What only the server knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// When the certificate of the HTTPS server ends, if there is one.
    pub certificate_ends: Option<SystemTime>,
    /// What of certificates and their lists has ended, in a sentence each.
    pub ended: Vec<String>,
    /// The number of connections.
    pub connections: usize,
}

/// What the firewall tells of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How much it holds.
    pub tally: Option<Tally>,
    /// When the state file was written last.
    pub state_saved: Option<Moment>,
}

impl Monitor {
    /// Nothing is counted yet.
    pub(super) fn new(variant: &'static str, now: SystemTime) -> Monitor {
        Monitor {
            started: now,
            variant,
            surroundings: Surroundings::default(),
            snapshot: Snapshot::default(),
            counts: Counts::default(),
            reading: None,
            measures: Measures::default(),
        }
    }
}

impl Snapshot {
    /// Looks at a firewall. To count what it holds takes longest, and is done where it is `wanted`.
    pub(super) fn at(firewall: &Firewall, wanted: bool, now: SystemTime) -> Snapshot {
        Snapshot {
            problems: firewall.problems(),
            tally: wanted.then(|| firewall.tally(now)),
            state_saved: firewall.state_saved(),
        }
    }
}

impl Service {
    /// Takes down what the server knows.
    pub(crate) fn set_surroundings(&mut self, surroundings: Surroundings) {
        self.monitor.surroundings = surroundings;
    }
}

/// What the rules have counted, as last read; `None` where that failed.
#[derive(Debug)]
pub(super) struct Reading {
    /// When.
    pub at: Instant,
    /// Of each chain and target.
    pub traffic: Option<Traffic>,
}
