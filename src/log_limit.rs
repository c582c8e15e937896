//! A rate limit for log lines that unauthenticated peers can cause: one a minute, with the
//! number of suppressed lines, so that a peer can't fill the log.

use crate::logfmt::Line;
use std::fmt;
use std::time::{Duration, Instant};

/// Minimum time between two logged lines.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// The rate limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// The time of the last logged line.
    last: Option<Instant>,
    /// The number of lines suppressed since.
    suppressed: u64,
}

impl LogLimit {
    /// Logs a line, with the number suppressed before it, unless one was logged in the last
    /// minute.
    pub(crate) fn log(&mut self, now: Instant, level: log::Level, line: fmt::Arguments<'_>) {
        match self.admit(now) {
            None => {}
            Some(0) => log::log!(level, "{line}"),
            Some(suppressed) => log::log!(level, "{line} (and {suppressed} more lines like this)"),
        }
    }

    /// The same with a line of pairs, in which the number is one of them.
    pub(crate) fn log_pairs(&mut self, now: Instant, level: log::Level, line: Line) {
        if let Some(suppressed) = self.admit(now) {
            log::log!(level, "{}", line.with_some("suppressed", Some(suppressed).filter(|count| *count > 0)));
        }
    }

    /// The number of lines suppressed before this one; `None` if this one is suppressed too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
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
