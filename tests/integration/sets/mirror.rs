//! What rfw remembers of its sets is what the kernel has, through a long mixed run, and is found to
//! be wrong where others have changed a set.

use super::start;
use crate::host::{Host, Rfw, SOON, in_both_variants, until};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Numbers without end that look random and are the same each time (Numerical Recipes).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % bound
    }
}

fn address(number: u32) -> String {
    let host = Ipv4Addr::from(0x0a00_0000 + (number << 4));
    if number.is_multiple_of(3) { format!("{host}/28") } else { host.to_string() }
}

/// One request of a mixed run, or something that others do.
fn step(host: &Host, rfw: &Rfw<'_>, numbers: &mut Numbers, others: bool) {
    let one = address(numbers.below(300));
    let expire = ["0", "2", "100", "1h"][numbers.below(4) as usize];
    let list = |numbers: &mut Numbers, length: u32| -> String {
        (0..length).map(|_| address(numbers.below(300)) + "\n").collect()
    };
    match numbers.below(if others { 7 } else { 5 }) {
        0 | 1 => drop(rfw.ok("PUT", &format!("/drop/input/any/{one}?expire={expire}"))),
        2 => drop(rfw.ok("DELETE", &format!("/drop/input/any/{one}"))),
        3 => {
            let list = list(numbers, 30);
            drop(rfw.send_ok("PUT", &format!("/drop/input/any?expire={expire}"), &list));
        }
        4 => {
            let list = list(numbers, 10);
            drop(rfw.send_ok("DELETE", "/drop/input/any", &list));
        }
        5 => drop(host.run("ipset", &["-exist", "add", "rfw4-ids", &one, "timeout", "300"])),
        _ => drop(host.run("ipset", &["-exist", "del", "rfw4-ids", &one])),
    }
}

/// What rfw says of the set and its mirror when it has compared them.
#[track_caller]
fn compare(rfw: &Rfw<'_>) -> Option<String> {
    let before = rfw.log().len();
    rfw.signal("HUP");
    until(SOON, "the white list is read again", || {
        rfw.log()[before..].contains("the configuration has been read again")
    });
    let log = rfw.log()[before..].to_owned();
    log.lines().find(|line| line.contains("in the mirror")).map(str::to_owned)
}

fn is_same(line: &str) -> bool {
    line.contains(" 0 of them not so in the mirror, which has as many")
}

#[test]
fn the_mirror_is_what_the_kernel_has() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let mut numbers = Numbers(7);
        for _ in 0..60 {
            step(&host, &rfw, &mut numbers, false);
        }
        let line = compare(&rfw).expect("a set that rfw has made has a mirror from the begin");
        assert!(is_same(&line), "{line}");
        // A set that is large enough for many pieces, read by the next rfw while requests go on.
        let large: String = (1_000..100_000).map(|number| address(number) + "\n").collect();
        rfw.send_ok("PUT", "/drop/input/any?expire=1h", &large);
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        rfw.ok("PUT", "/drop/input/any/10.0.0.7?expire=0");
        for _ in 0..30 {
            step(&host, &rfw, &mut numbers, false);
        }
        until(SOON, "the mirror is full", || rfw.log().contains("entries are known"));
        let (first, full) = (rfw.log().find("INPUT -s 10.0.0.7 "), rfw.log().find("entries are known"));
        assert!(first < full, "the mirror was full before the first request: {}", rfw.log());
        let line = compare(&rfw).unwrap();
        assert!(is_same(&line), "{line}");
        // Others change the set: it is read anew for a new white list.
        for _ in 0..60 {
            step(&host, &rfw, &mut numbers, true);
        }
        host.run("ipset", &["-exist", "add", "rfw4-ids", "10.99.99.99"]).ok();
        until(Duration::from_secs(40), "the mirror is as the kernel again", || {
            std::thread::sleep(Duration::from_millis(200));
            compare(&rfw).is_some_and(|line| is_same(&line))
        });
        // What is said of a permanent entry comes from there.
        let path = "/drop/input/any/9.9.9.9?expire=0";
        for result in ["inserted", "unchanged", "unchanged"] {
            assert_eq!(rfw.ok("PUT", path)["result"], result);
        }
        host.run("ipset", &["del", "rfw4-ids", "9.9.9.9"]).ok();
        assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
        host.run("ipset", &["-exist", "add", "rfw4-ids", "9.9.9.9", "timeout", "1000"]).ok();
        rfw.ok("PUT", path);
        assert!(host.entries().iter().any(|entry| entry.element == "9.9.9.9" && entry.timeout == 0));
    });
}

#[test]
fn a_long_list_is_counted_right_though_others_have_emptied_the_set() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = start(&host, iptables);
        let list: String = (0..6_000).map(|number| address(number) + "\n").collect();
        // What others have emptied is put back first.
        for (inserted, flush) in [(6_000, false), (0, true), (0, false)] {
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &list)["inserted"], inserted);
            if flush {
                host.run("ipset", &["flush", "rfw4-ids"]).ok();
            }
        }
        let more = format!("{list}9.9.9.9\n9.9.9.8\n");
        let answer = rfw.send_ok("DELETE", "/drop/input/any", &more);
        assert_eq!((&answer["deleted"], &answer["absent"]), (&6_000.into(), &2.into()));
        let answer = rfw.send_ok("DELETE", "/drop/input/any", &more);
        assert_eq!((&answer["deleted"], &answer["absent"]), (&0.into(), &6_002.into()));
    });
}
