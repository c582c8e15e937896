//! Named lists: bodies, single addresses, the start and the white list beside many entries, and what
//! all of it takes of memory and of packets.

use super::{Bench, LIST, MANY, address, clean, feed, list, median, memory_row, millis, output, row};
use super::{run, sets, timed};
use crate::client::Client;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The number of lists where there are many.
const LISTS: usize = 20;

/// The length of the list that is replaced beside others.
const SHORT: usize = 1_000;

/// The argument with which this program sends packets, see [`flood`].
pub(super) const FLOOD: &str = "--flood";

/// The port that packets are sent to.
const FLOODED: u16 = 9_999;

/// How long packets are sent at a time.
const FLOOD_TIME: Duration = Duration::from_millis(700);

/// What the log tells after a SIGHUP.
const READ_AGAIN: &str = "has been read again";

/// The namespace of the host that sends packets, and of one that has no firewall.
const NETNS_SENDER: &str = "--net=/run/netns/sender";
const NETNS_PLAIN: &str = "--net=/run/netns/plain";

/// The list that is replaced beside others.
const SHORT_LIST: &str = "short";

/// The place of each list: all are about the same packets.
const PLACE: &str = "/drop/input/any";

impl Bench {
    pub(super) fn lists(&self) {
        self.whole_lists();
        self.beside_lists();
        self.one_address();
        self.promotion();
        self.long_white_list();
        self.start_over_lists();
        self.packets();
    }

    /// A list of 100,000 that is new, and one that takes the place of another.
    fn whole_lists(&self) {
        let (old, new) = (list(LIST), changed(0, LIST));
        let script = bare_script(&old);
        let (mut restored, mut put, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            clean();
            restored.push(timed(|| feed("ipset", &["restore"], &script)));
            let rfw = self.rfw("ipset\n");
            let mut client = self.client();
            put.push(timed(|| replace(&mut client, "feed", &old, 0)));
            for (minutes, text) in [(1, &new), (2, &old)] {
                replaced.push(timed(|| replace(&mut client, "feed", text, minutes)));
                assert_eq!(field(&client, "removed"), LIST as u64 / 100);
            }
            drop(rfw);
        }
        let bare = median(restored.into_iter());
        row("100,000 into a new named list, against ipset restore", median(put.into_iter()), bare, 0.4);
        row("replace of 100,000, 1 % changed, against the same", median(replaced.into_iter()), bare, 0.4);
    }

    /// A list of 1,000 that is replaced where it is the only one, and beside nineteen of 300,000.
    fn beside_lists(&self) {
        let texts = [numbers(MANY, SHORT), changed(MANY, SHORT)];
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..3 {
            for (times, lists) in times.iter_mut().zip([0, LISTS - 1]) {
                let rfw = self.rfw("ipset\n");
                let mut client = self.client_with(lists);
                replace(&mut client, SHORT_LIST, &texts[0], 0);
                times.extend((1..4).map(|n| timed(|| replace(&mut client, SHORT_LIST, &texts[n % 2], n))));
                if lists > 0 && round == 2 {
                    memory_row("300,000 addresses in 20 lists, after changes", rfw.memory("VmRSS"), 30);
                    memory_row("peak of that", rfw.memory("VmHWM"), 30);
                    delete_beside(&mut client, lists);
                }
            }
        }
        let [alone, beside] = times.map(|times| median(times.into_iter()));
        row("replace of 1,000 beside 300,000 in lists, against alone", beside, alone, 1.35);
    }

    /// A client of rfw, which has so many lists with 300,000 addresses together.
    fn client_with(&self, lists: usize) -> Client {
        let mut client = self.client();
        client.put("99.99.99.99");
        for n in 0..lists {
            let length = MANY / lists;
            replace(&mut client, &format!("list-{n}"), &numbers(n * length, length), 0);
        }
        client
    }

    /// A PUT of one address into a named list, which is in two sets, against one into the unnamed list.
    fn one_address(&self) {
        let times = ["", "&list=tor"].map(|list| {
            let _rfw = self.rfw("ipset\n");
            let mut client = self.client();
            client.request("PUT", &format!("{PLACE}/99.99.99.99?expire=1h{list}"), "");
            median((0..800).map(|n| {
                let path = format!("{PLACE}/{}?expire=1h{list}", address(n));
                timed(|| client.request("PUT", &path, ""))
            }))
        });
        let [unnamed, named] = times;
        row("one PUT into a named list, against the unnamed", named, unnamed, 2.0);
    }

    /// The PUT with which a hundred rules become a set.
    fn promotion(&self) {
        let took = median((0..9).map(|_| {
            let _rfw = self.rfw("ipset = auto\n");
            let mut client = self.client();
            let rules = || output("iptables", &["-S", "INPUT"]).matches("rfw until").count();
            (0..100).for_each(|n| client.put(&address(n)));
            assert_eq!(rules(), 100);
            let took = timed(|| client.put(&address(100)));
            assert_eq!(rules(), 0);
            took
        }));
        time_row("PUT that makes a set of 100 rules (ipset = auto)", took, 20.0);
    }

    /// SIGHUP with a white list of 10,000 ranges, against their networks by ipset.
    fn long_white_list(&self) {
        let file = self.dir.join("white.list");
        let usual = fs::read_to_string(&file).unwrap();
        let ranges = |from: usize| -> String {
            let range = |n: usize| {
                let (net, first) = (format!("203.{}.{}", n / 2_048, n / 8 % 256), n % 8 * 32 + 1);
                format!("{net}.{first}-{net}.{}\n", first + 20)
            };
            (from..from + 10_000).map(range).collect()
        };
        // Each of the ranges is five networks.
        let script = bare_script(&list(50_000));
        let bare = median((0..5).map(|_| {
            clean();
            timed(|| feed("ipset", &["restore"], &script))
        }));
        let rfw = self.rfw("ipset\n");
        let ours = median((0..5).map(|n| {
            fs::write(&file, usual.clone() + &ranges(n * 10)).unwrap();
            // Readings follow each other half a second apart.
            thread::sleep(Duration::from_millis(600));
            let before = self.count_in_log(READ_AGAIN);
            timed(|| {
                run("kill", &["-HUP", &rfw.child.id().to_string()]);
                while self.count_in_log(READ_AGAIN) == before {
                    thread::sleep(Duration::from_millis(1));
                }
            })
        }));
        drop(rfw);
        fs::write(&file, usual).unwrap();
        row("SIGHUP with 10,000 ranges, against ipset restore", ours, bare, 1.0);
    }

    /// The start where twenty lists hold 300,000 addresses, and the first request after it.
    fn start_over_lists(&self) {
        let rfw = self.rfw("ipset\n");
        drop(self.client_with(LISTS));
        let saved = median((0..3).map(|_| timed(sets::save)));
        drop(rfw);
        let (mut ready, mut first, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let (start, rfw) = (Instant::now(), self.start("ipset\n"));
            ready.push(start.elapsed());
            self.client().request("PUT", &format!("{PLACE}/99.99.99.98?list=list-3"), "");
            first.push(start.elapsed());
            self.wait_for_mirrors();
            whole.push(start.elapsed());
            drop(rfw);
        }
        row("start over 20 lists of 300,000, against ipset save", median(ready.into_iter()), saved, 0.15);
        row("  until a PUT into one of them is answered", median(first.into_iter()), saved, 1.5);
        row("  until all mirrors are full", median(whole.into_iter()), saved, 2.0);
        let rfw = self.start("ipset\n");
        self.wait_for_mirrors();
        memory_row("300,000 addresses in 20 lists, held", rfw.memory("VmRSS"), 30);
        memory_row("peak of the start", rfw.memory("VmHWM"), 30);
    }

    /// Waits until the sets of all lists, of the unnamed list and of their union have been read.
    fn wait_for_mirrors(&self) {
        let start = Instant::now();
        while self.count_in_log("entries are known") < LISTS + 2 {
            assert!(start.elapsed() < Duration::from_secs(20), "the mirrors are not full");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn count_in_log(&self, text: &str) -> usize {
        fs::read_to_string(self.dir.join("rfw.log")).unwrap_or_default().matches(text).count()
    }

    /// Packets a second that a host receives from a stranger, with twenty lists of 5,000 networks of 16
    /// prefix lengths, against a host without any rule.
    fn packets(&self) {
        let _rfw = self.rfw("ipset\n");
        let mut client = self.client();
        client.put("99.99.99.99");
        for n in 0..LISTS {
            let text: String = (0..5_000).map(|i| mixed_network(n * 5_000 + i) + "\n").collect();
            replace(&mut client, &format!("mixed-{n}"), &text, 0);
        }
        let (here, plain) = connect_hosts();
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            ours.push(here.packets_a_second());
            bare.push(plain.packets_a_second());
        }
        let (ours, bare) = (median_rate(ours), median_rate(bare));
        let ratio = ours / bare;
        let mark = if ratio >= 0.75 { "" } else { "  missed" };
        let what = "packets, 20 lists of 5,000 mixed, against no rule";
        println!("{what:<52} {ours:>8.0} /s {bare:>8.0} /s {ratio:>7.2} {:>7.2}{mark}", 0.75);
    }
}

/// A host that is sent packets.
struct Host {
    /// Its address.
    address: &'static str,
    /// What runs a program there: nothing, if it is this host.
    enter: Option<&'static str>,
}

/// Connects this host, and one that has no firewall, to one that sends.
fn connect_hosts() -> (Host, Host) {
    let script = "ip netns add sender && ip netns add plain\n\
        ip link add listed type veth peer name to-listed netns sender\n\
        ip -n plain link add plain type veth peer name to-plain netns sender\n\
        ip addr add 10.9.1.1/24 dev listed && ip link set listed up\n\
        ip -n plain addr add 10.9.2.1/24 dev plain && ip -n plain link set plain up\n\
        ip -n sender addr add 10.9.1.2/24 dev to-listed && ip -n sender link set to-listed up\n\
        ip -n sender addr add 10.9.2.2/24 dev to-plain && ip -n sender link set to-plain up\n";
    run("sh", &["-ec", script]);
    (Host { address: "10.9.1.1", enter: None }, Host { address: "10.9.2.1", enter: Some(NETNS_PLAIN) })
}

impl Host {
    fn packets_a_second(&self) -> f64 {
        let before = self.received();
        let program = std::env::current_exe().unwrap();
        let sent = timed(|| run("nsenter", &[NETNS_SENDER, program.to_str().unwrap(), FLOOD, self.address]));
        let received = self.received() - before;
        assert!(sent < FLOOD_TIME * 2, "{sent:?}");
        received as f64 / FLOOD_TIME.as_secs_f64()
    }

    /// How many datagrams have passed the firewall so far; nobody listens to them.
    fn received(&self) -> u64 {
        const SNMP: &str = "/proc/self/net/snmp";
        let text = match self.enter {
            Some(host) => output("nsenter", &[host, "cat", SNMP]),
            None => fs::read_to_string(SNMP).unwrap(),
        };
        let mut udp = text.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_whitespace);
        let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
        names.zip(values).find(|(name, _)| *name == "NoPorts").unwrap().1.parse().unwrap()
    }
}

/// Sends datagrams to an address for a while.
pub(super) fn flood(address: &str) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((address, FLOODED)).unwrap();
    let start = Instant::now();
    while start.elapsed() < FLOOD_TIME {
        for _ in 0..64 {
            // That nobody listens is told as an error.
            let _ = socket.send(&[0; 22]);
        }
    }
}

/// The n-th of networks of 17 to 32 bits that are not the sender's.
fn mixed_network(n: usize) -> String {
    let prefix = u32::try_from(17 + n % 16).unwrap();
    let first = u32::from(Ipv4Addr::new(11, 0, 0, 0)) + u32::try_from(n).unwrap() * 14_000;
    format!("{}/{prefix}", Ipv4Addr::from(first & u32::MAX << (32 - prefix)))
}

fn median_rate(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A DELETE of one address of a list, against `ipset del` in a set of as many.
fn delete_beside(client: &mut Client, lists: usize) {
    feed("ipset", &["restore"], &bare_script(&list(MANY)));
    let some = (0..99).map(|n| n * 3_001);
    let bare = median(some.clone().map(|n| timed(|| run("ipset", &["del", "bare", &address(n)]))));
    let ours = median(some.map(|n| {
        let path = format!("{PLACE}/{}?list=list-{}", address(n), n / (MANY / lists));
        let took = timed(|| client.request("DELETE", &path, ""));
        let answer = String::from_utf8_lossy(&client.body);
        assert!(answer.contains("\"deleted\""), "{answer}");
        took
    }));
    row("DELETE of one of 300,000 in lists, against ipset del", ours, bare, 0.3);
    run("ipset", &["destroy", "bare"]);
}

/// Makes a list what a text has, for an hour and so many minutes.
fn replace(client: &mut Client, list: &str, text: &str, minutes: usize) {
    let expire = 60 + minutes;
    client.request("PUT", &format!("{PLACE}?list={list}&replace=true&expire={expire}m"), text);
}

/// A number of the last answer.
fn field(client: &Client, name: &str) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&client.body).unwrap();
    body[name].as_u64().unwrap()
}

/// A list of so many addresses.
fn numbers(from: usize, length: usize) -> String {
    (from..from + length).map(|n| address(n) + "\n").collect()
}

/// The same with one of a hundred in the place of another.
fn changed(from: usize, length: usize) -> String {
    numbers(from + length / 100, length - length / 100) + &numbers(from + 2 * MANY, length / 100)
}

/// What `ipset restore` makes a set of these addresses of.
fn bare_script(list: &str) -> String {
    let mut script = "create bare hash:net family inet timeout 0 counters maxelem 1048576\n".to_owned();
    list.lines().for_each(|line| writeln!(script, "add bare {line} timeout 3600").unwrap());
    script
}

fn time_row(what: &str, took: Duration, reach: f64) {
    let mark = if millis(took) <= reach { "" } else { "  missed" };
    println!("{what:<52} {:>8.3} ms {:>11} {:>7} {reach:>7.2}{mark}", millis(took), "", "");
}
