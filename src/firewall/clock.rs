//! Steps of the wall clock, told by the clock that only goes on. What is due by a clock that has just been
//! set waits for a minute: a step that is taken back by then ends nothing. Pure.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The least difference that is a step: less is how a clock is kept right.
const STEP: i128 = 2_000_000_000;

/// Time after which a step counts.
const DOUBT: Duration = Duration::from_secs(60);

/// The wall clock as it has been so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    /// Nanoseconds from the epoch to `start`, by the wall clock that counts.
    offset: i128,
    /// When the clock was seen to differ.
    doubtful_since: Option<Instant>,
}

/// What a look at the clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It goes on as before.
    Steady,
    /// It was set, and may be set back: nothing is due but by both clocks.
    Doubtful {
        /// The earlier of both.
        earlier: SystemTime,
        /// When the new one counts.
        until: Instant,
    },
    /// It was set a minute ago: from now on that counts.
    Stepped,
}

impl Clock {
    /// The clock of a start.
    pub(super) fn new(time: SystemTime, at: Instant) -> Clock {
        Clock { start: at, offset: nanoseconds(time), doubtful_since: None }
    }

    /// Takes the time of both clocks.
    pub(super) fn read(&mut self, time: SystemTime, at: Instant) -> Reading {
        let run = nanoseconds_of(at.saturating_duration_since(self.start));
        let offset = nanoseconds(time).saturating_sub(run);
        if offset.saturating_sub(self.offset).abs() < STEP {
            (self.offset, self.doubtful_since) = (offset, None);
            return Reading::Steady;
        }
        let until = *self.doubtful_since.get_or_insert(at) + DOUBT;
        if until <= at {
            (self.offset, self.doubtful_since) = (offset, None);
            return Reading::Stepped;
        }
        Reading::Doubtful { earlier: time.min(moment(self.offset.saturating_add(run))), until }
    }
}

/// Nanoseconds since the epoch; before it none.
fn nanoseconds(time: SystemTime) -> i128 {
    nanoseconds_of(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds_of(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

fn moment(nanoseconds: i128) -> SystemTime {
    let nanoseconds = u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX);
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings at these seconds after the start, by both clocks; the wall clock starts at 1,000.
    fn readings(times: &[(u64, u64)]) -> Vec<(Reading, Option<u64>)> {
        let start = Instant::now();
        let wall = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut clock = Clock::new(wall(1_000), start);
        let mut read = |&(wall_seconds, seconds): &(u64, u64)| {
            let reading = clock.read(wall(wall_seconds), start + Duration::from_secs(seconds));
            let earlier = match reading {
                Reading::Doubtful { earlier, until } => {
                    assert!(until <= start + Duration::from_secs(seconds) + DOUBT);
                    Some(earlier.duration_since(UNIX_EPOCH).unwrap().as_secs())
                }
                _ => None,
            };
            (reading, earlier)
        };
        times.iter().map(&mut read).collect()
    }

    fn words(times: &[(u64, u64)]) -> String {
        let word = |(reading, earlier): (Reading, Option<u64>)| match (reading, earlier) {
            (Reading::Steady, _) => "steady".to_owned(),
            (Reading::Stepped, _) => "stepped".to_owned(),
            (Reading::Doubtful { .. }, earlier) => earlier.unwrap_or_default().to_string(),
        };
        readings(times).into_iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_step_counts_after_a_minute() {
        let golden: [(&[(u64, u64)], &str); 6] = [
            (&[(1_010, 10), (1_021, 20), (1_031, 30)], "steady steady steady"),
            // Forward by an hour: by the old clock it is 1,020 yet.
            (
                &[(1_010, 10), (4_620, 20), (4_679, 79), (4_680, 80), (4_690, 90)],
                "steady 1020 1079 stepped steady",
            ),
            // Taken back.
            (&[(4_620, 20), (1_050, 50), (1_100, 100)], "1020 steady steady"),
            // Backward: by the new clock it is earlier.
            (&[(520, 20), (530, 30), (580, 80), (590, 90)], "520 530 stepped steady"),
            // A second step within the minute.
            (&[(4_620, 20), (8_230, 30), (8_280, 80)], "1020 1030 stepped"),
            (&[(0, 20)], "0"),
        ];
        for (times, expected) in golden {
            assert_eq!(words(times), expected, "{times:?}");
        }
    }
}
