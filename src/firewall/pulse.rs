//! Whether the sweeper goes on: since when it has been at one thing.

use std::time::{Duration, Instant};

/// Time after which a sweeper that is at one thing counts as hanging: a stalled disk, if not a defect. It is
/// told, and no reason to end rfw: the disk would be as stalled after that.
const STALLED_TIME: Duration = Duration::from_secs(300);

/// Since when it has been at one thing; `None` while it sleeps.
#[derive(Debug, Default)]
pub(super) struct Pulse(Option<Instant>);

impl Pulse {
    /// Takes down that it begins with another thing.
    pub(super) fn works(&mut self, now: Instant) {
        self.0 = Some(now);
    }

    /// Takes down that it sleeps until there is something to do.
    pub(super) fn sleeps(&mut self) {
        self.0 = None;
    }

    /// For how long it has been at one thing, if that is longer than anything takes.
    pub(super) fn stalled(&self, now: Instant) -> Option<Duration> {
        let time = self.0.map(|since| now.saturating_duration_since(since));
        time.filter(|time| *time >= STALLED_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweeper_hangs_that_is_at_one_thing_for_minutes_and_not_one_that_sleeps() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let mut pulse = Pulse::default();
        assert_eq!(pulse.stalled(at(10_000)), None);
        pulse.works(at(10));
        assert_eq!(pulse.stalled(at(309)), None);
        assert_eq!(pulse.stalled(at(310)), Some(Duration::from_secs(300)));
        pulse.works(at(311));
        assert_eq!((pulse.stalled(at(600)), pulse.stalled(now)), (None, None));
        pulse.sleeps();
        assert_eq!(pulse.stalled(at(10_000)), None);
    }
}
