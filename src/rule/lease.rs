//! The lifetime of a rule: intervals as requests state them, and the end in UTC that
//! is stored in the kernel, in the comment of the rule.
//!
//! The current time is always an argument; nothing here reads the clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time span in whole seconds; zero means without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interval(u64);

/// The longest interval, in seconds: 36,500 days, so that the year of its end has four
/// digits, as RFC 3339 requires.
const LONGEST: u64 = 36_500 * 86_400;

/// The longest interval in a set, in seconds: 3,650 days.
pub(crate) const SET_LONGEST: u64 = 3_650 * 86_400;

impl Interval {
    /// Parses a number of seconds, or a number with the unit `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    /// Anything else, and more than 36500 days.
    pub(crate) fn parse(text: &str) -> Result<Interval, IntervalError> {
        let error = || IntervalError(text.to_owned());
        let (digits, unit) = match text.as_bytes().last() {
            Some(b's') => (text.strip_suffix('s'), 1),
            Some(b'm') => (text.strip_suffix('m'), 60),
            Some(b'h') => (text.strip_suffix('h'), 3_600),
            Some(b'd') => (text.strip_suffix('d'), 86_400),
            _ => (Some(text), 1),
        };
        let digits = digits.filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        let number: u64 = digits.ok_or_else(error)?.parse().map_err(|_| error())?;
        let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= LONGEST);
        seconds.map(Interval).ok_or_else(error)
    }

    /// An interval of that many seconds, capped at 36500 days.
    pub(crate) fn of_seconds(seconds: u64) -> Interval {
        Interval(seconds.min(LONGEST))
    }

    /// Its length in seconds; 0 means without end.
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }

    /// The lease that begins at `now` and lasts this long.
    pub(crate) fn from(self, now: SystemTime) -> Lease {
        match self.0 {
            0 => Lease::Permanent,
            seconds => Lease::Until(Moment::at_or_after(now + Duration::from_secs(seconds))),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A string that is not an interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is not a time span: expected seconds, or a number with s, m, h or d, up to 36500d",
    .0.escape_debug()
)]
pub(crate) struct IntervalError(String);

/// A whole second in UTC, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// `time` rounded up to a whole second, so that a lease never ends early.
    #[inline(always)]
    pub(crate) fn at_or_after(time: SystemTime) -> Moment {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let part = u64::from(since.subsec_nanos() > 0);
        Moment(since.as_secs().saturating_add(part))
    }

    /// The moment as a `SystemTime`.
    pub(crate) fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).unwrap_or(UNIX_EPOCH)
    }

    /// The moment one second earlier.
    pub(crate) fn second_before(self) -> Moment {
        Moment(self.0.saturating_sub(1))
    }

    /// Seconds since the epoch.
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }

    /// Whether it is at or before `now`.
    pub(crate) fn is_due(self, now: SystemTime) -> bool {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).is_some_and(|moment| moment <= now)
    }

    /// Parses exactly what `Display` prints; any other RFC 3339 spelling is `None`.
    pub(crate) fn parse(text: &str) -> Option<Moment> {
        let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
        let moment = Moment(u64::try_from(seconds).ok()?);
        Some(moment).filter(|moment| moment.to_string() == text)
    }
}

impl fmt::Display for Moment {
    /// RFC 3339 with `Z`: `2026-11-22T10:05:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        match moment.and_then(|moment| moment.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "@{}", self.0),
        }
    }
}

/// When a rule expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lease {
    /// At that moment.
    Until(Moment),
    /// Never; it stays until it is deleted.
    Permanent,
}

impl Lease {
    /// The moment at which it ends; `None` if permanent.
    pub(crate) fn end(self) -> Option<Moment> {
        match self {
            Lease::Until(moment) => Some(moment),
            Lease::Permanent => None,
        }
    }

    /// Whether it has expired at `now`.
    pub(crate) fn is_due(self, now: SystemTime) -> bool {
        self.end().is_some_and(|moment| moment.is_due(now))
    }
}

impl fmt::Display for Lease {
    /// What the comment of a rule begins with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lease::Until(moment) => write!(f, "rfw until {moment}"),
            Lease::Permanent => f.write_str("rfw permanent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    #[test]
    fn intervals_are_read_as_the_original_reads_them() {
        for (at, [text, seconds]) in cases("interval.txt") {
            let read =
                Interval::parse(&text).map_or("-".to_owned(), |interval| interval.seconds().to_string());
            assert_eq!(read, seconds, "{at}");
        }
    }

    #[test]
    fn a_lease_is_never_cut_short_and_due_to_the_second() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let Lease::Until(moment) = Interval::parse("10").unwrap().from(at(1_001)) else { panic!() };
        assert_eq!(moment, Moment(12));
        assert!(!moment.is_due(at(11_999)));
        assert!(moment.is_due(at(12_000)));
        assert_eq!(Interval::parse("10").unwrap().from(at(1_000)), Lease::Until(Moment(11)));
        assert_eq!(Interval::parse("0").unwrap().from(at(1_000)), Lease::Permanent);
        assert!(!Lease::Permanent.is_due(at(u64::MAX / 1_000_000)));
    }

    #[test]
    fn a_clock_before_1970_does_no_harm() {
        let early = UNIX_EPOCH - Duration::from_secs(1_000);
        assert_eq!(Interval::parse("10").unwrap().from(early), Lease::Until(Moment(0)));
        assert!(!Moment(0).is_due(early));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Interval::parse(&text);
        }
    }
}
