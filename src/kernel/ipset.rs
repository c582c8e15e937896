//! The language of ipset(8): the sets that rfw keeps, one for each family and
//! place, and their entries as one text line each. Nothing here runs a program.

use crate::kernel::Counters;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::lease::{Interval, Lease, Moment};
use crate::rule::network::Family;
use std::fmt;
use std::time::{Duration, SystemTime};

/// The longest timeout of an entry, in seconds, that the kernel takes.
pub const TIMEOUT_MAX: u64 = crate::rule::lease::SET_LONGEST;

/// The line that makes a set under that name.
pub fn create(set: &SetKey, name: &str, maxelem: u32) -> String {
    let (kind, family) = (kind(set), family_name(set.family()));
    format!("create {name} {kind} family {family} timeout 0 counters maxelem {maxelem}")
}

fn kind(set: &SetKey) -> &'static str {
    if set.side() == Side::Both { "hash:net,net" } else { "hash:net" }
}

/// A family as ipset names it.
fn family_name(family: Family) -> &'static str {
    if family == Family::V4 { "inet" } else { "inet6" }
}

/// What `ipset list -terse` tells of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// The number of its entries.
    pub size: usize,
    /// The most that it may have.
    pub maxelem: u32,
    /// The type and the family, with the extensions that rfw gives its sets and no
    /// others; nothing for a set that rfw can't have made.
    kind: Option<(String, String)>,
}

impl Header {
    /// Reads the lines of one set, from its name to the number of its entries.
    pub fn parse(lines: &[&str]) -> Option<Header> {
        let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (name, kind) = (value("Name")?.to_owned(), value("Type")?.to_owned());
        let mut words = value("Header")?.split_whitespace();
        let (mut family, mut maxelem, mut timeout, mut counters, mut more) = (None, 0, None, false, false);
        while let Some(word) = words.next() {
            match word {
                "family" => family = words.next(),
                "maxelem" => maxelem = words.next()?.parse().ok()?,
                "timeout" => timeout = words.next(),
                "counters" => counters = true,
                "hashsize" | "bucketsize" | "initval" => drop(words.next()),
                _ => more = true,
            }
        }
        let ours = timeout == Some("0") && counters && !more;
        let kind = family.filter(|_| ours).map(|family| (kind, family.to_owned()));
        Some(Header { name, size: value("Number of entries")?.parse().ok()?, maxelem, kind })
    }

    /// Whether it is made as rfw makes the set, whatever its name is.
    pub fn is_like(&self, set: &SetKey) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|(kind, family)| kind == self::kind(set) && family == family_name(set.family()))
    }

    /// Whether it is made as rfw makes its sets.
    pub fn is_like_ours(&self) -> bool {
        self.kind.as_ref().is_some_and(|(kind, _)| kind == "hash:net" || kind == "hash:net,net")
    }
}

/// The name of the set in which a process of rfw prepares a new state, to be swapped
/// in whole. A tool that outlives its rfw can't work in the set of the next one.
pub fn work_name(process: u32) -> String {
    format!("rfw-work-{process}")
}

/// Whether it is the name of a set in which some process of rfw prepares, or prepared,
/// a new state.
pub fn is_work_name(name: &str) -> bool {
    let process = name.strip_prefix("rfw-work-").and_then(|process| process.parse().ok());
    process.is_some_and(|process| work_name(process) == name)
}

/// How long an entry stays, in seconds; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timeout(u32);

impl Timeout {
    /// A timeout that the kernel takes.
    pub fn new(seconds: u64) -> Option<Timeout> {
        u32::try_from(seconds).ok().filter(|_| seconds <= TIMEOUT_MAX).map(Timeout)
    }

    /// What is left of a lease at `now`: a whole second is begun, so that no entry ends
    /// before its lease; at most what the kernel takes.
    pub fn left(lease: Lease, now: SystemTime) -> Timeout {
        let Some(end) = lease.end() else { return Timeout(0) };
        let left = end.time().duration_since(now).unwrap_or(Duration::ZERO);
        let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
        Timeout::new(seconds.clamp(1, TIMEOUT_MAX)).unwrap_or_default()
    }

    /// The last whole second in which an entry may end that is printed with this
    /// timeout at `now`: ipset leaves out what there is of a second.
    pub fn latest_end(self, now: SystemTime) -> Lease {
        Interval::of_seconds(self.seconds()).from(now)
    }

    /// The last whole second at which such an entry is sure to be there. Less than a
    /// second is printed as one.
    pub fn sure_end(self, now: SystemTime) -> Lease {
        let left = if self.seconds() == 1 { 0 } else { self.seconds() };
        match self.latest_end(now) {
            Lease::Until(_) if left == 0 => Lease::Until(Moment::at_or_after(now).second_before()),
            Lease::Until(end) if end.time() > now + Duration::from_secs(left) => {
                Lease::Until(end.second_before())
            }
            lease => lease,
        }
    }

    /// One second more, which is at least what is left of an entry that is printed so.
    pub fn rounded_up(self) -> Timeout {
        match self.seconds() {
            0 => self,
            seconds => Timeout::new(seconds.saturating_add(1)).unwrap_or(self),
        }
    }

    /// Its length in seconds, 0 for ever.
    pub fn seconds(self) -> u64 {
        u64::from(self.0)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry as `ipset save` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The address, network, or pair of them.
    pub element: &'a str,
    /// What is left of its time.
    pub timeout: Timeout,
    /// What it has matched.
    pub counters: Counters,
}

impl<'a> Entry<'a> {
    /// Reads `add NAME ELEMENT timeout N packets N bytes N`; other lines are none.
    pub fn parse(line: &'a str) -> Option<Entry<'a>> {
        let mut words = line.split(' ');
        let element = words.next().filter(|word| *word == "add").and_then(|_| words.nth(1))?;
        let mut entry = Entry { element, timeout: Timeout(0), counters: Counters::default() };
        while let Some(name) = words.next() {
            let number: u64 = words.next()?.parse().ok()?;
            match name {
                "timeout" => entry.timeout = Timeout::new(number)?,
                "packets" => entry.counters.packets = number,
                "bytes" => entry.counters.bytes = number,
                _ => return None,
            }
        }
        Some(entry)
    }

    /// The line that puts it, counters included, into the set `name`.
    pub fn line(&self, name: &str) -> String {
        let Entry { element, timeout, counters: Counters { packets, bytes } } = self;
        format!("add {name} {element} timeout {timeout} packets {packets} bytes {bytes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::rule_of;
    use proptest::prelude::*;

    #[test]
    fn a_set_of_work_has_the_number_of_a_process() {
        for (name, expected) in
            [("rfw-work-1", true), ("rfw-work-01", false), ("rfw-work-foo", false), ("rfw-work-", false)]
        {
            assert_eq!(is_work_name(name), expected, "{name}");
        }
    }

    #[test]
    fn headers_of_sets_are_read() {
        let header = |kind: &str, options: &str| {
            let header = format!("Header: {options}");
            let kind = format!("Type: {kind}");
            let lines =
                ["Name: rfw4-ids", &kind, "Revision: 7", &header, "References: 1", "Number of entries: 3"];
            Header::parse(&lines).unwrap()
        };
        let set = SetKey::named("rfw4-ids").unwrap();
        let usual = "hashsize 1024 maxelem 99 timeout 0 counters bucketsize 12 initval 0x4ad8b6a3";
        let golden = [
            ("hash:net", format!("family inet {usual}"), true),
            ("hash:net", format!("family inet6 {usual}"), false),
            ("hash:ip", format!("family inet {usual}"), false),
            ("hash:net", format!("family inet {usual} comment"), false),
            ("hash:net", format!("family inet {usual} skbinfo"), false),
            ("hash:net", "family inet maxelem 99 timeout 0".to_owned(), false),
            ("hash:net", "family inet maxelem 99 counters".to_owned(), false),
            ("hash:net", "family inet maxelem 99 timeout 600 counters".to_owned(), false),
        ];
        for (kind, options, expected) in golden {
            let header = header(kind, &options);
            assert_eq!((header.size, header.maxelem), (3, 99), "{options}");
            assert_eq!(header.is_like(&set), expected, "{kind} {options}");
        }
        assert_eq!(Header::parse(&["Name: x", "Type: hash:net", "Header: family inet maxelem 9"]), None);
        assert_eq!(Header::parse(&[]), None);
    }

    #[test]
    fn entries_of_ipset_save_are_read() {
        let entry = |element, timeout, packets, bytes| {
            Some(Entry { element, timeout: Timeout(timeout), counters: Counters { packets, bytes } })
        };
        let golden = [
            ("add rfw4-ids 1.2.3.4 timeout 99 packets 7 bytes 420", entry("1.2.3.4", 99, 7, 420)),
            ("add rfw4-ids 1.2.3.0/24 timeout 0 packets 0 bytes 0", entry("1.2.3.0/24", 0, 0, 0)),
            ("add rfw4-fdb 1.2.3.4,5.6.7.0/24 timeout 5", entry("1.2.3.4,5.6.7.0/24", 5, 0, 0)),
            ("create rfw4-ids hash:net family inet hashsize 1024 maxelem 10 timeout 0 counters", None),
            ("add rfw4-ids 1.2.3.4 nomatch", None),
            ("add rfw4-ids 1.2.3.4 timeout", None),
            ("add rfw4-ids 1.2.3.4 timeout 2147484", None),
            ("add rfw4-ids", None),
            ("", None),
        ];
        for (line, expected) in golden {
            assert_eq!(Entry::parse(line), expected, "{line}");
        }
        let line = "add x 1.2.3.4 timeout 99 packets 7 bytes 420";
        assert_eq!(Entry::parse(line).map(|entry| entry.line("x")).as_deref(), Some(line));
    }

    #[test]
    fn what_is_no_element_of_a_set_is_no_rule() {
        let set = SetKey::of(&rule_of("/drop/input/any/1.2.3.4"));
        for text in ["::1", "1.2.3.4,5.6.7.8", "x", "", "0.0.0.0/0"] {
            assert_eq!(set.rule(text), None, "{text}");
        }
        assert!(Timeout::new(TIMEOUT_MAX).is_some() && Timeout::new(TIMEOUT_MAX + 1).is_none());
    }

    #[test]
    fn an_entry_never_ends_before_its_lease_and_at_most_a_second_after() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let golden =
            [(10, 0, 10), (10, 1, 10), (10, 999, 10), (10, 1_000, 9), (10, 9_999, 1), (10, 12_000, 1)];
        for (end, now, left) in golden {
            let lease = Interval::of_seconds(end).from(at(0));
            assert_eq!(Timeout::left(lease, at(now)).seconds(), left, "{end} {now}");
        }
        assert_eq!(Timeout::left(Lease::Permanent, at(0)).seconds(), 0);
        // What an interval of the longest timeout ends at is within it.
        for now in [0, 1, 500, 999] {
            let lease = Interval::of_seconds(TIMEOUT_MAX).from(at(now));
            assert!(Timeout::left(lease, at(now)).seconds() <= TIMEOUT_MAX);
            assert!(lease.end().unwrap().time() <= at(now) + Duration::from_secs(TIMEOUT_MAX));
        }
        // Printed at 1.5 s with 8 s left, it ends at 9.5 s or later, but before 10.5 s.
        let end = |lease: Lease| lease.end().unwrap().seconds();
        assert_eq!((end(Timeout(8).sure_end(at(1_500))), end(Timeout(8).latest_end(at(1_500)))), (9, 10));
        assert_eq!((end(Timeout(8).sure_end(at(1_000))), end(Timeout(8).latest_end(at(1_000)))), (9, 9));
        assert_eq!(end(Timeout(1).sure_end(at(1_500))), 1);
        assert_eq!(Timeout(0).sure_end(at(0)), Lease::Permanent);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*", tail in "[a-z0-9 .,/]*") {
            let _ = Entry::parse(&line);
            let _ = Entry::parse(&format!("add rfw4-ids {tail}"));
        }
    }
}
