//! A limit for log lines that strangers cause: one a minute, and how many more
//! there were, so that nobody can fill the log.

use std::fmt;
use std::time::{Duration, Instant};

/// The time in which one line is logged.
const SPAN: Duration = Duration::from_secs(60);

/// When the last line was logged, and what has been left out since.
#[derive(Debug, Default)]
pub struct LogLimit {
    last: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Logs a line unless there was one in the last minute.
    pub fn log(&mut self, now: Instant, level: log::Level, line: fmt::Arguments<'_>) {
        match self.admit(now) {
            None => {}
            Some(0) => log::log!(level, "{line}"),
            Some(left_out) => log::log!(level, "{line} (and {left_out} more lines like this)"),
        }
    }

    /// How many lines were left out before this one; `None` leaves this one out too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < SPAN) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_is_logged_and_the_others_are_counted() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let golden =
            [(0, Some(0)), (1, None), (59, None), (60, Some(2)), (61, None), (200, Some(1)), (260, Some(0))];
        for (second, expected) in golden {
            assert_eq!(limit.admit(start + Duration::from_secs(second)), expected, "{second}");
        }
    }
}
