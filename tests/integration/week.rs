//! A week of a host in half a minute: clients change ten lists at random, neighbours flush and reload the
//! tables, the disk is full for a day, rfw is killed and the host is started again. After each of these
//! the kernel, what rfw tells, and a model of the requests are the same, and packets of a blocked address
//! pass for no longer than a repair takes.
//!
//! `cargo test --test integration -- --ignored --nocapture week::` lives through longer ones, with a seed
//! that it prints. `RFW_WEEK_SEED` sets the seed, `RFW_WEEKS` the number of weeks.

use crate::host::{Host, SOON, Talk, in_both_variants, of_ipv6, until};
use crate::named_lists::kernel::{Client, held_or_twice, kill_and_spawn, look, same};
use crate::named_lists::model::{Model, Numbers, Run};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest time that packets of a blocked address may pass, on a machine that has much else to do. With
/// iptables-legacy, and for sets, nobody tells rfw of a flush.
const REPAIR: Duration = Duration::from_secs(40);

/// The seed of the week that each run of the tests has.
const SEED: u32 = 20;

/// Lists of three sources: what is blocked by hand, a log watcher, and feeds.
const LISTS: [&str; 10] = ["", "f2b", "tor", "drop", "edrop", "csf", "spam", "bots", "scanners", "crawlers"];

/// The list of the address that is blocked all the week, and of one that has never been.
const WATCHED: (&str, &str, &str) = ("watched", "10.0.0.2", "10.0.0.3");

/// What happens to the host beside requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A neighbour flushes the tables and appends its own rules, as a firewall does at a reload.
    Flush,
    /// Another puts a file in the place of the tables that it has saved before, with rules of rfw.
    Restore,
    /// A rule that accepts all packets of the peer comes in front of rfw's.
    Inserted,
    /// All sets are emptied, rfw's registry among them.
    FlushSets,
    /// Kill -9, and a start.
    Kill,
    /// A restart as of an upgrade.
    Restart,
    /// The disk of the state file has no room, until the next event.
    FullDisk,
    /// A reboot that stops rfw first.
    Reboot,
    /// A reboot without a warning, once what has changed is written.
    PowerCut,
}

use Event::{Flush, FlushSets, FullDisk, Inserted, Kill, PowerCut, Reboot, Restart, Restore};

/// What happens in a week, in an order that depends on the seed.
const EVENTS: [Event; 16] = [
    Flush, Flush, Restore, Restore, Inserted, FlushSets, FlushSets, Kill, Kill, Kill, Kill, Kill, Restart,
    FullDisk, Reboot, PowerCut,
];

/// How a week is lived.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Requests before each event, and between a flush and the look at what came of it.
    steps: (usize, usize),
    /// Whether rfw finds out by itself what it is not told of. It takes some ten seconds each time.
    waits: bool,
}

/// The host between two reboots.
struct Boot<'a> {
    host: &'a Host,
    iptables: &'a str,
    run: Run<'a>,
    /// The pings of the two addresses.
    blocked: Talk,
    free: Talk,
    pace: Pace,
    /// What the second neighbour has saved, of both families.
    saved: Option<[String; 2]>,
    /// How long packets of the blocked address have passed at most.
    passed: Duration,
}

/// What outlives a reboot.
struct Week {
    numbers: Numbers,
    model: Model,
    log: Vec<String>,
    passed: Duration,
}

impl<'a> Boot<'a> {
    /// Starts the host, as the units do: what was blocked comes back first, then there is a network, then
    /// the server starts.
    #[track_caller]
    fn start(host: &'a Host, iptables: &'a str, pace: Pace, week: Week) -> Boot<'a> {
        let lib = lib(host);
        let disk = format!("mkdir -p {lib} {lib}.disk && mount -t tmpfs -o size=1M,mode=700 tmpfs {lib}");
        host.run("sh", &["-c", &format!("{disk} && cp -a {lib}.disk/. {lib}/")]).ok();
        let rfw = host.rfw(iptables).configure(&format!("ipset = auto\nstate.file = {lib}/state\n"));
        if !week.model.0.is_empty() {
            rfw.call(&["--restore"]).ok();
        }
        let network = ["10.0.0.2/24", "10.0.0.3/24"];
        host.neighbour("peer", &["10.0.0.1/24"], &network);
        let [blocked, free] = [WATCHED.1, WATCHED.2].map(|from| {
            host.talk("ip", &["netns", "exec", "peer", "ping", "-n", "-i0.02", "-I", from, "10.0.0.1"])
        });
        let rfw = rfw.start();
        let client = Client::new(host);
        let Week { numbers, model, log, passed } = week;
        let run = Run {
            client,
            rfw,
            numbers,
            model,
            log,
            lists: &LISTS,
            is_disturbed: false,
            kills: false,
            foretells: None,
        };
        let mut boot = Boot { host, iptables, run, blocked, free, pace, saved: None, passed };
        if boot.run.model.0.is_empty() {
            boot.watch();
        }
        boot.save();
        boot.quiet();
        boot
    }

    /// Blocks the address that is watched.
    #[track_caller]
    fn watch(&mut self) {
        let (list, address, _) = WATCHED;
        self.run.send("PUT", &format!("/drop/input/any/{address}?expire=0&list={list}"), "");
        self.run.model.0.insert((list, 0, address.to_owned()), None);
        let free = &self.free;
        until(SOON, "the other address passes", || answers(free) > 0);
        self.blocked.forget_all();
    }

    /// Ends this boot, with rfw stopped before or in the middle of whatever it does.
    #[track_caller]
    fn end(mut self, stops: bool) -> Week {
        self.empty_disk();
        match stops {
            true => self.run.rfw.stop(),
            false => {
                self.write_all();
                self.run.rfw.signal("KILL");
                self.run.rfw.end();
            }
        }
        let lib = lib(self.host);
        self.host.run("sh", &["-c", &format!("rm -rf {lib}.disk && cp -a {lib} {lib}.disk")]).ok();
        let Run { numbers, model, log, .. } = self.run;
        Week { numbers, model, log, passed: self.passed }
    }

    /// Waits until what has changed is written.
    #[track_caller]
    fn write_all(&mut self) {
        let mark = format!("192.0.2.{}", self.run.numbers.below(250));
        self.run.send("PUT", &format!("/drop/input/any/{mark}?expire=0&list={}", WATCHED.0), "");
        self.run.model.0.insert((WATCHED.0, 0, mark.clone()), None);
        let (host, state) = (self.host, lib(self.host) + "/state");
        until(2 * SOON, "all is written", || host.run("cat", &[&state]).out.contains(&format!(" {mark} ")));
    }

    #[track_caller]
    fn live(&mut self, event: Event) {
        for _ in 0..self.pace.steps.0 {
            self.run.step(self.host);
        }
        self.quiet();
        self.run.log.push(format!("{event:?}"));
        match event {
            Flush | Restore | Inserted | FlushSets => self.disturb(event),
            Kill => kill_and_spawn(&mut self.run.rfw),
            Restart => {
                self.run.rfw.stop();
                self.run.rfw.spawn();
            }
            FullDisk => {
                let fill = format!("head -c 2M /dev/zero >{}/much", lib(self.host));
                self.host.run("sh", &["-c", &fill]).fails_with(1);
            }
            Reboot | PowerCut => unreachable!("of the week"),
        }
        if [Kill, Restart].contains(&event) {
            self.run.client = Client::new(self.host);
            // What rfw has deleted is known until it ends: an older file would bring that back.
            self.saved = None;
        }
        self.run.compare(self.host, self.iptables);
        self.quiet();
        assert!(!self.run.rfw.log().contains("[ERROR]"), "{}", self.run.rfw.log());
        if self.saved.is_none() {
            self.save();
        }
        if event != FullDisk {
            self.empty_disk();
        }
    }

    fn empty_disk(&self) {
        self.host.run("rm", &["-f", &format!("{}/much", lib(self.host))]).ok();
    }

    /// Has a neighbour do what it does, goes on with requests, and waits until all is as it was.
    #[track_caller]
    fn disturb(&mut self, event: Event) {
        let begun = Instant::now();
        match event {
            Flush => {
                for command in self.commands() {
                    self.host.admin(&command, "-F");
                    self.host.admin(&command, "-A INPUT -p udp --dport 53 -j ACCEPT");
                }
            }
            Restore => {
                if let Some(saved) = self.saved.clone() {
                    for (command, text) in self.commands().iter().zip(saved) {
                        // It fails where it names a set that is gone, and changes nothing then.
                        self.host.feed(&format!("{command}-restore"), &[], text.as_bytes());
                    }
                }
            }
            Inserted => self.host.admin(self.iptables, "-I INPUT -s 10.0.0.0/24 -j ACCEPT"),
            _ => drop(self.host.run("ipset", &["flush"]).ok()),
        }
        // A request finds out, too: often there is none.
        self.run.is_disturbed = true;
        for _ in 0..self.run.numbers.below(self.pace.steps.1 + 1) {
            self.run.step(self.host);
        }
        self.run.is_disturbed = false;
        let is_told = self.iptables.contains("nft") && event != FlushSets;
        if !self.pace.waits && !is_told {
            look(&self.run.rfw);
        }
        self.repaired(event, begun);
        if event == Flush {
            let own = |lines: &Vec<String>| lines.iter().filter(|line| line.contains("--dport 53 ")).count();
            assert_eq!(self.host.tables(self.iptables).each_ref().map(own), [1, 1]);
        }
        if event == Inserted {
            self.host.admin(self.iptables, "-D INPUT -s 10.0.0.0/24 -j ACCEPT");
        }
    }

    /// Waits until no packet of the blocked address passes any more, and all is in the kernel.
    #[track_caller]
    fn repaired(&mut self, event: Event, begun: Instant) {
        let wanted = self.run.model.held();
        let (end, mut passed) = (Instant::now() + REPAIR, Duration::ZERO);
        let why = loop {
            let passes = self.passes();
            let found = held_or_twice(self.host, self.iptables).and_then(|held| same(&held, &wanted));
            let why = match (passes, found) {
                (false, Ok(())) => break None,
                (true, _) => "packets pass".to_owned(),
                (false, Err(difference)) => difference,
            };
            if passes {
                passed = begun.elapsed();
            }
            if Instant::now() > end {
                break Some(why);
            }
        };
        let (history, log) = (self.run.history(), self.run.rfw.log());
        assert!(why.is_none(), "{} after {history}\n{log}\nafter {event:?}", why.unwrap_or_default());
        self.passed = self.passed.max(passed);
    }

    /// Whether packets of the blocked address pass, for as long as it takes some of the other to do so.
    #[track_caller]
    fn passes(&mut self) -> bool {
        let (blocked, free) = (&mut self.blocked, &mut self.free);
        blocked.forget_all();
        free.forget_all();
        until(SOON, "the other address passes", || answers(free) > 5);
        let passes = answers(blocked) > 0;
        blocked.forget_all();
        passes
    }

    /// Checks that since the last look no packet of the blocked address has passed, and others have.
    #[track_caller]
    fn quiet(&mut self) {
        let (blocked, free) = (&mut self.blocked, &mut self.free);
        free.forget_all();
        until(SOON, "the other address passes", || answers(free) > 1);
        assert_eq!(answers(blocked), 0, "{}: {}", self.run.history(), self.run.rfw.log());
        blocked.forget_all();
    }

    fn commands(&self) -> [String; 2] {
        [self.iptables.to_owned(), of_ipv6(self.iptables)]
    }

    /// Saves the tables with rules that a client takes back then: by these rfw knows the file again.
    #[track_caller]
    fn save(&mut self) {
        let marks = ["/drop/output/any/192.0.2.251", "/drop/output/any/2001:db8::251"];
        marks.iter().for_each(|mark| drop(self.run.send("PUT", mark, "")));
        let saved = |command: String| self.host.run(&format!("{command}-save"), &[]).ok();
        self.saved = Some(self.commands().map(saved));
        marks.iter().for_each(|mark| drop(self.run.send("DELETE", mark, "")));
    }
}

/// The number of pings that were answered, of what was heard.
fn answers(ping: &Talk) -> usize {
    ping.heard().matches("bytes from").count()
}

/// The folder of the state file, on a small disk of its own.
fn lib(host: &Host) -> String {
    host.dir.join("lib").display().to_string()
}

/// All events of a week in a random order.
fn events(numbers: &mut Numbers) -> Vec<Event> {
    let mut events = EVENTS.to_vec();
    (1..events.len()).rev().for_each(|at| events.swap(at, numbers.below(at + 1)));
    events
}

fn live(iptables: &str, seed: u32, weeks: usize, pace: Pace) -> Duration {
    let home = Host::new();
    let mut numbers = Numbers(seed);
    let events: Vec<Event> = (0..weeks).flat_map(|_| events(&mut numbers)).collect();
    let mut week = Week { numbers, model: Model::default(), log: Vec::new(), passed: Duration::ZERO };
    // What ends a boot is the last of its events.
    for (number, events) in events.split_inclusive(|event| [Reboot, PowerCut].contains(event)).enumerate() {
        let host = home.again(Some(&format!("0a1b2c3d-0a1b-4c2d-8e3f-{number:012}")));
        let mut boot = Boot::start(&host, iptables, pace, week);
        boot.run.compare(&host, iptables);
        let (last, before) = events.split_last().unwrap();
        before.iter().for_each(|event| boot.live(*event));
        if ![Reboot, PowerCut].contains(last) {
            boot.live(*last);
        }
        week = boot.end(*last != PowerCut);
    }
    week.passed
}

#[test]
fn a_week_of_a_host_takes_nothing_away() {
    let pace = Pace { steps: (3, 1), waits: false };
    in_both_variants(|iptables| assert!(live(iptables, SEED, 1, pace) < REPAIR));
}

/// A number that the environment has.
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

#[test]
#[ignore = "takes some minutes a week"]
fn weeks_of_a_host_take_nothing_away() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("RFW_WEEK_SEED").unwrap_or(now.subsec_nanos());
    let weeks = number("RFW_WEEKS").map_or(1, |weeks| weeks as usize);
    println!("RFW_WEEK_SEED={seed} RFW_WEEKS={weeks}");
    let pace = Pace { steps: (30, 3), waits: true };
    in_both_variants(|iptables| {
        let passed = live(iptables, seed, weeks, pace);
        println!("{iptables}: packets of a blocked address passed for {passed:?} at most");
    });
}
