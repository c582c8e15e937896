use super::*;
use crate::golden::cases;
use std::collections::HashMap;

fn source(number: u32) -> Source {
    let address = Ipv4Addr::from_bits(0x0a00_0000 | number).into();
    Source::of(&Peer { address, authentication: true, local: false, certificate: None, logged_in: None })
}

/// What happens to one or more addresses, and its clock.
struct Story {
    start: Instant,
    now: Instant,
    attempts: Attempts,
    waiting: HashMap<Source, Vec<Place>>,
    told: Vec<String>,
}

impl Story {
    fn new() -> Story {
        let start = Instant::now();
        let (attempts, waiting, told) = Default::default();
        Story { start, now: start, attempts, waiting, told }
    }

    fn happen(&mut self, event: &str) {
        if let Ok(second) = event.parse() {
            self.now = self.start + Duration::from_secs_f64(second);
            return;
        }
        let (event, name) = event.split_once(':').unwrap_or((event, "me"));
        let (address, what) = event.split_at(1);
        let source = source(u32::from(address.as_bytes()[0]));
        let waiting = self.waiting.entry(source).or_default();
        match what {
            "?" => self.ask(source, None),
            "=" => {
                let place = waiting.remove(0);
                self.ask(source, Some(place));
            }
            "!" => drop(waiting.remove(0)),
            "+" => self.attempts.right(source, name),
            wrong => {
                let count = wrong.strip_prefix('-').unwrap().parse().unwrap_or(1);
                let told = (0..count).filter_map(|_| self.attempts.wrong(source, name, self.now));
                self.told.extend(told.map(|number| format!("({number})")));
            }
        }
    }

    fn ask(&mut self, source: Source, place: Option<Place>) {
        let seconds = |until: Instant| (until - self.now).as_millis() as f64 / 1000.0;
        let told = match self.attempts.turn(source, place, self.now) {
            Turn::Now => "now".to_owned(),
            Turn::Later { until, place } => {
                self.waiting.entry(source).or_default().push(place);
                seconds(until).to_string()
            }
            Turn::Full { until, .. } => format!("full{}", seconds(until)),
        };
        self.told.push(told);
    }
}

#[test]
fn after_ten_wrong_passwords_each_further_try_waits_for_its_second() {
    for (at, [events, expected]) in cases("attempts.txt") {
        let mut story = Story::new();
        events.split_whitespace().for_each(|event| story.happen(event));
        assert_eq!(story.told.join(" "), expected, "{at}");
    }
}

#[test]
fn so_many_addresses_are_known_and_the_most_silent_one_goes_for_another() {
    let (mut attempts, now) = (Attempts::default(), Instant::now());
    let later = |number: u32| now + Duration::from_millis(number.into());
    let count = u32::try_from(SOURCES_MAX).unwrap();
    for number in 0..count {
        for _ in 0..FREE {
            attempts.wrong(source(number), "me", later(number));
        }
    }
    let waits =
        |attempts: &Attempts, number| !matches!(attempts.turn(source(number), None, later(count)), Turn::Now);
    assert!(waits(&attempts, 100) && waits(&attempts, 101));
    // The first ones have been silent for more than a second: they are known all the same.
    attempts.wrong(source(0), "me", later(count));
    assert!(waits(&attempts, 0));
    attempts.wrong(source(count), "me", later(count));
    assert_eq!(attempts.sources.len(), SOURCES_MAX);
    assert!(waits(&attempts, 0) && waits(&attempts, 2 + 100) && !waits(&attempts, count));
    assert!(!attempts.sources.contains_key(&source(1)) && attempts.sources.contains_key(&source(2)));
}

#[test]
fn loopback_is_one_address_on_each_server() {
    let of = |address: &str, local| {
        Source::of(&Peer {
            address: address.parse().unwrap(),
            authentication: true,
            local,
            certificate: None,
            logged_in: None,
        })
    };
    assert_eq!(of("127.0.0.1", true), of("127.9.9.9", true));
    assert_eq!(of("127.0.0.1", true), of("::1", true));
    assert_ne!(of("127.0.0.1", true), of("127.0.0.1", false));
    assert_ne!(of("10.0.0.1", false), of("10.0.0.2", false));
}
