//! How long a rule stays: intervals as clients write them, and the moment in UTC
//! that is written into the kernel.
//!
//! The clock is always an argument; nothing here asks what time it is.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time span in whole seconds; zero stands for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(u64);

/// The longest interval: 36,500 days, which keeps the year at four digits.
const LONGEST: u64 = 36_500 * 86_400;

/// The longest interval in seconds that an entry of a set can last: 2^31 - 1
/// milliseconds (`IPSET_MAX_TIMEOUT` of linux/netfilter/ipset/ip_set.h).
pub const SET_LONGEST: u64 = 2_147_483;

impl Interval {
    /// Reads seconds, or a number with the unit `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    /// Anything else, and more than 36500 days.
    pub fn parse(text: &str) -> Result<Interval, IntervalError> {
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

    /// So many seconds, at most 36500 days.
    pub fn of_seconds(seconds: u64) -> Interval {
        Interval(seconds.min(LONGEST))
    }

    /// Its length in seconds, 0 for ever.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// What begins at `now` and lasts this long.
    pub fn from(self, now: SystemTime) -> Lease {
        match self.0 {
            0 => Lease::Permanent,
            // The kernel can't hold an entry of a set any longer, not by the part of a
            // second that rounding up would add.
            SET_LONGEST => {
                let end = now + Duration::from_secs(SET_LONGEST);
                let end = end.checked_sub(Duration::from_nanos(999_999_999)).unwrap_or(end);
                Lease::Until(Moment::at_or_after(end))
            }
            seconds => Lease::Until(Moment::at_or_after(now + Duration::from_secs(seconds))),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A text that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is not a time span: expected seconds, or a number with s, m, h or d, up to 36500d",
    .0.escape_debug()
)]
pub struct IntervalError(String);

/// A whole second in UTC, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The first whole second that is not before `time`: a lease is never cut short.
    pub fn at_or_after(time: SystemTime) -> Moment {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let part = u64::from(since.subsec_nanos() > 0);
        Moment(since.as_secs().saturating_add(part))
    }

    /// The moment as a time.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).unwrap_or(UNIX_EPOCH)
    }

    /// The second before.
    pub fn second_before(self) -> Moment {
        Moment(self.0.saturating_sub(1))
    }

    /// Seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// Whether it has come at `now`.
    pub fn is_due(self, now: SystemTime) -> bool {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).is_some_and(|moment| moment <= now)
    }

    /// Reads what is printed, in just that form.
    pub fn parse(text: &str) -> Option<Moment> {
        let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
        let moment = Moment(u64::try_from(seconds).ok()?);
        Some(moment).filter(|moment| moment.to_string() == text)
    }
}

impl fmt::Display for Moment {
    /// As in RFC 3339, with `Z`: `2026-11-22T10:05:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        match moment.and_then(|moment| moment.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "@{}", self.0),
        }
    }
}

/// Until when a rule stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lease {
    /// Until it is due.
    Until(Moment),
    /// Until somebody deletes it.
    Permanent,
}

impl Lease {
    /// The moment it ends, if it does.
    pub fn end(self) -> Option<Moment> {
        match self {
            Lease::Until(moment) => Some(moment),
            Lease::Permanent => None,
        }
    }

    /// Whether it is over at `now`.
    pub fn is_due(self, now: SystemTime) -> bool {
        self.end().is_some_and(|moment| moment.is_due(now))
    }

    /// Reads the comment of a rule; any that rfw does not print is someone else's.
    pub fn from_comment(comment: &str) -> Option<Lease> {
        match comment.strip_prefix("rfw until ") {
            Some(moment) => Moment::parse(moment).map(Lease::Until),
            None => (comment == "rfw permanent").then_some(Lease::Permanent),
        }
    }
}

impl fmt::Display for Lease {
    /// The comment that the rule carries in the kernel.
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

    #[test]
    fn only_our_own_comments_are_read() {
        for (at, [comment, lease]) in cases("lease-comment.txt") {
            let lease = match lease.as_str() {
                "-" => None,
                "for ever" => Some(Lease::Permanent),
                seconds => Some(Lease::Until(Moment(seconds.parse().unwrap()))),
            };
            assert_eq!(Lease::from_comment(&comment), lease, "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_lease_printed_and_read_again_is_itself(seconds in 0u64..253_402_300_800) {
            let lease = Lease::Until(Moment(seconds));
            prop_assert_eq!(Lease::from_comment(&lease.to_string()), Some(lease));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Interval::parse(&text);
            let _ = Lease::from_comment(&text);
        }
    }
}
