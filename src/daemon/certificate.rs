//! Warns of certificates that end soon. They are read at the start and at SIGHUP, and refused from their
//! end on, so that a server which runs for months has to tell of it in good time, and again.

use crate::http::tls::Identity;
use std::time::{Duration, Instant, SystemTime};

/// A certificate whose remaining validity is shorter than this causes warnings.
const ENDS_SOON: Duration = Duration::from_secs(30 * DAY);

/// The same for a list of certificates that are taken back, of which many are made anew each month.
const LIST_ENDS_SOON: Duration = Duration::from_secs(7 * DAY);

/// Interval of the warnings while the server runs.
const INTERVAL: Duration = Duration::from_secs(DAY);

const DAY: u64 = 86_400;

/// Something that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    kind: Kind,
    ends: SystemTime,
}

/// What it is that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The certificate of the server.
    Server,
    /// The certificate of a CA for those of clients.
    Authority,
    /// A list of clients' certificates that are taken back.
    Revocation,
}

impl Expiry {
    /// All that ends of an identity.
    pub(super) fn of(identity: &Identity) -> Vec<Expiry> {
        let ends = [
            (Kind::Server, Some(identity.ends)),
            (Kind::Authority, identity.authorities_end()),
            (Kind::Revocation, identity.revoked_until()),
        ];
        ends.into_iter().filter_map(|(kind, ends)| Some(Expiry { kind, ends: ends? })).collect()
    }

    /// What there is to warn of at `now`.
    pub(super) fn warning(&self, now: SystemTime) -> Option<String> {
        let (what, soon, then) = match self.kind {
            Kind::Server => ("the certificate", ENDS_SOON, "clients will refuse it"),
            Kind::Authority => {
                ("a CA of outward.server.clientca", ENDS_SOON, "what it has signed for clients is refused")
            }
            Kind::Revocation => (
                "a list of outward.server.clientcrl",
                LIST_ENDS_SOON,
                "every certificate that its CA has signed for clients is refused",
            ),
        };
        let Ok(left) = self.ends.duration_since(now) else {
            return Some(format!("{what} has expired: {then}"));
        };
        match left.as_secs() / DAY {
            _ if left >= soon => None,
            0 => Some(format!("{what} expires within a day")),
            1 => Some(format!("{what} expires in 1 day")),
            days => Some(format!("{what} expires in {days} days")),
        }
    }
}

/// What of the server ends, and when to look at it again.
pub(super) struct CertificateWatch {
    expiries: Vec<Expiry>,
    next: Instant,
}

impl CertificateWatch {
    /// A watch over what ends; the first look is due at `start`.
    pub(super) fn new(expiries: Vec<Expiry>, start: Instant) -> CertificateWatch {
        CertificateWatch { expiries, next: start }
    }

    /// What has ended by `now`, in a sentence each.
    pub(super) fn ended(&self, now: SystemTime) -> Vec<String> {
        let ended = self.expiries.iter().filter(|expiry| expiry.ends < now);
        ended.filter_map(|expiry| expiry.warning(now)).collect()
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks, if that is due at `now`, which is `date` on the calendar. The interval is that of the
    /// monotonic clock: a date that is set neither repeats nor delays a warning.
    pub(super) fn look(&mut self, now: Instant, date: SystemTime) -> Vec<String> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + INTERVAL;
        self.expiries.iter().filter_map(|expiry| expiry.warning(date)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn warning(ends: SystemTime, now: SystemTime) -> Option<String> {
        Expiry { kind: Kind::Server, ends }.warning(now)
    }

    fn watch(ends: SystemTime, start: Instant) -> CertificateWatch {
        CertificateWatch::new(vec![Expiry { kind: Kind::Server, ends }], start)
    }

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
        let mut watch = watch(date + HOUR * (34 * 24 + 12), start);
        let hours = (0..40 * 24).map(|hour| HOUR * hour);
        let looks = hours.map(|passed| (passed, watch.look(start + passed, date + passed).pop()));
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
        let mut watch = watch(SystemTime::UNIX_EPOCH, start);
        assert_eq!(watch.next(), start);
        assert_eq!(watch.look(start, SystemTime::now()).len(), 1);
        assert_eq!(watch.next(), start + INTERVAL);
        assert_eq!(watch.look(start + INTERVAL - HOUR, SystemTime::now()), Vec::<String>::new());
    }

    #[test]
    fn what_clients_certificates_need_is_warned_of_by_its_option() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY);
        let golden = [
            (Kind::Authority, 30 * 24, None),
            (Kind::Authority, 30 * 24 - 1, Some("a CA of outward.server.clientca expires in 29 days")),
            (Kind::Revocation, 7 * 24, None),
            (Kind::Revocation, 7 * 24 - 1, Some("a list of outward.server.clientcrl expires in 6 days")),
        ];
        for (kind, hours, expected) in golden {
            let expiry = Expiry { kind, ends: end };
            assert_eq!(
                expiry.warning(end - HOUR * hours).as_deref(),
                expected,
                "{kind:?} {hours} hours before"
            );
            let ended = expiry.warning(end + HOUR).unwrap();
            assert!(ended.contains("has expired") && ended.ends_with("is refused"), "{ended}");
        }
    }
}
