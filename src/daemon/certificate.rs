//! Warns of a certificate that ends soon. It is read once, at start, and clients refuse it from its
//! end on, so that a server which runs for months has to tell of it in good time, and again.

use std::time::{Duration, Instant, SystemTime};

/// A certificate whose remaining validity is shorter than this causes warnings.
const ENDS_SOON: Duration = Duration::from_secs(30 * DAY);

/// Interval of the warnings while the server runs.
const INTERVAL: Duration = Duration::from_secs(DAY);

const DAY: u64 = 86_400;

/// What there is to warn of at `now`, of a certificate that ends at `ends`.
pub(super) fn warning(ends: SystemTime, now: SystemTime) -> Option<String> {
    let Ok(left) = ends.duration_since(now) else {
        return Some("the certificate has expired: clients will refuse it".to_owned());
    };
    match left.as_secs() / DAY {
        _ if left >= ENDS_SOON => None,
        0 => Some("the certificate expires within a day".to_owned()),
        1 => Some("the certificate expires in 1 day".to_owned()),
        days => Some(format!("the certificate expires in {days} days")),
    }
}

/// The end of the certificate that the server uses, and when to look at it again.
pub(super) struct CertificateWatch {
    ends: SystemTime,
    next: Instant,
}

impl CertificateWatch {
    /// A watch over a certificate that ends at `ends`; the first look is due at `start`.
    pub(super) fn new(ends: SystemTime, start: Instant) -> CertificateWatch {
        CertificateWatch { ends, next: start }
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks, if that is due at `now`, which is `date` on the calendar. The interval is that of the
    /// monotonic clock: a date that is set neither repeats nor delays a warning.
    pub(super) fn look(&mut self, now: Instant, date: SystemTime) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        warning(self.ends, date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_warning_tells_the_days_that_are_left() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY);
        let golden = [
            (30 * 24, None),
            (30 * 24 - 1, Some("the certificate expires in 29 days")),
            (48, Some("the certificate expires in 2 days")),
            (47, Some("the certificate expires in 1 day")),
            (23, Some("the certificate expires within a day")),
            (0, Some("the certificate expires within a day")),
        ];
        for (hours, expected) in golden {
            assert_eq!(warning(end, end - HOUR * hours).as_deref(), expected, "{hours} hours before");
        }
        let expired = Some("the certificate has expired: clients will refuse it");
        assert_eq!(warning(end, end + Duration::from_secs(1)).as_deref(), expired);
    }

    /// Forty days with a look each hour, the certificate ending in the middle of the 35th.
    #[test]
    fn a_server_that_runs_warns_once_a_day_and_after_the_end_too() {
        let (start, date) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY));
        let mut watch = CertificateWatch::new(date + HOUR * (34 * 24 + 12), start);
        let hours = (0..40 * 24).map(|hour| HOUR * hour);
        let looks = hours.map(|passed| (passed, watch.look(start + passed, date + passed)));
        let warned: Vec<(u64, String)> =
            looks.filter_map(|(passed, text)| Some((passed.as_secs() / DAY, text?))).collect();
        assert_eq!(warned.iter().map(|(day, _)| *day).collect::<Vec<_>>(), (5..40).collect::<Vec<_>>());
        assert_eq!(warned[0].1, "the certificate expires in 29 days");
        let ended: Vec<u64> =
            warned.iter().filter(|(_, text)| text.contains("has expired")).map(|(day, _)| *day).collect();
        assert_eq!(ended, (35..40).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_look_is_a_day_after_the_last() {
        let start = Instant::now();
        let mut watch = CertificateWatch::new(SystemTime::UNIX_EPOCH, start);
        assert_eq!(watch.next(), start);
        assert!(watch.look(start, SystemTime::now()).is_some());
        assert_eq!(watch.next(), start + INTERVAL);
        assert_eq!(watch.look(start + INTERVAL - HOUR, SystemTime::now()), None);
    }
}
