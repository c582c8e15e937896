//! Programs that fail, hang, die in the middle, print garbage, or print nothing and end
//! well: a client gets an error or a true 200, nothing is half done, nothing of rfw or
//! of others is lost, and the next request works.

use crate::host::fake::{Fault, QUICK};
use crate::host::{Host, Reply, Rfw, SOON, Talk, in_all_ways, of_ipv6, run, until};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any program is waited for.
const LONG: Duration = Duration::from_secs(20);

/// Shorter than any program is waited for that does not answer.
const SHORT: Duration = Duration::from_secs(5);

/// What is asked for, with a body or without, and what is asked before: so that there
/// is something to do each time.
struct Step {
    before: &'static [(&'static str, &'static str, &'static str)],
    request: (&'static str, &'static str, &'static str),
}

const INPUT: &str = "/drop/input/any";
const ONE: &str = "/drop/input/any/1.0.0.1";
const PAIR: &str = "/drop/forward/any/1.0.0.1/eth0/1.0.0.2";
const V6: &str = "/reject/output/any/2001:db8::1";
const FEW: &str = "1.0.1.1\n1.0.1.2\n1.0.1.0/24\n";

const STEPS: [Step; 10] = [
    Step { before: &[("DELETE", ONE, "")], request: ("PUT", ONE, "") },
    Step { before: &[("PUT", ONE, "")], request: ("PUT", "/drop/input/any/1.0.0.1?expire=2h", "") },
    Step { before: &[("PUT", ONE, "")], request: ("DELETE", ONE, "") },
    Step { before: &[("DELETE", PAIR, "")], request: ("PUT", PAIR, "") },
    Step { before: &[("DELETE", V6, "")], request: ("PUT", V6, "") },
    Step { before: &[("DELETE", INPUT, FEW)], request: ("PUT", INPUT, FEW) },
    Step { before: &[("PUT", INPUT, FEW)], request: ("DELETE", INPUT, FEW) },
    Step { before: &[("DELETE", INPUT, "@many")], request: ("PUT", INPUT, "@many") },
    Step { before: &[("PUT", INPUT, "@many")], request: ("DELETE", INPUT, "@many") },
    Step { before: &[], request: ("GET", "/list", "") },
];

/// More than goes to the kernel in one message.
fn many() -> String {
    (0..60).map(|n| format!("1.0.2.{n}\n")).collect()
}

/// One kept connection to the local server, opened again where rfw has closed it.
struct Client<'a> {
    host: &'a Host,
    talk: Option<Talk>,
}

impl Client<'_> {
    fn send(&mut self, request: (&str, &str, &str)) -> Reply {
        self.begin(request);
        self.end()
    }

    fn begin(&mut self, (method, path, body): (&str, &str, &str)) {
        let body = if body == "@many" { many() } else { body.to_owned() };
        let mut talk = match self.talk.take().filter(|talk| !talk.is_over()) {
            Some(talk) => talk,
            None => self.host.connect(7390),
        };
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        talk.say(format!("{head}{body}").as_bytes());
        self.talk = Some(talk);
    }

    fn end(&mut self) -> Reply {
        self.talk.as_mut().unwrap().reply()
    }

    /// Sends, and waits for the answer as long as a program may hang.
    fn send_and_wait(&mut self, request: (&str, &str, &str)) -> Reply {
        self.begin(request);
        let talk = self.talk.as_ref().unwrap();
        until(LONG, "there is an answer", || talk.heard().contains("\r\n\r\n") || talk.is_over());
        self.end()
    }

    #[track_caller]
    fn ok(&mut self, request: (&str, &str, &str)) -> Reply {
        let reply = self.send(request);
        assert_eq!(reply.status, 200, "{request:?}: {reply:?}");
        reply
    }
}

/// rfw on programs that may go wrong, beside rules and sets of somebody else.
fn start<'a>(host: &'a Host, iptables: &str, option: &str) -> Rfw<'a> {
    for command in [iptables.to_owned(), of_ipv6(iptables)] {
        host.admin(&command, "-A INPUT -p udp --dport 53 -m comment --comment 'rfw guard' -j ACCEPT");
    }
    host.run("ipset", &["create", "rfw4-mine", "hash:ip"]).ok();
    host.run("ipset", &["add", "rfw4-mine", "9.9.9.9"]).ok();
    let (path, lines) = host.fake_programs(iptables);
    let rfw = host.rfw(&path).configure(&format!("{lines}\n{option}")).start();
    let mut client = Client { host, talk: None };
    client.ok(("PUT", INPUT, "7.0.0.1\n7.0.0.0/24\n7.0.0.2\n"));
    client.ok(("PUT", "/accept/input/any/7.0.0.9", ""));
    rfw
}

/// What the kernel holds, in no order: rules without the time of their comments, and
/// entries.
fn state(host: &Host, iptables: &str) -> Vec<String> {
    let (tables, sets, elements) = host.everything(iptables);
    let rules = tables.into_iter().map(|rule| match rule.split_once("\"rfw until ") {
        Some((start, rest)) => format!("{start}{}", rest.split_once('"').unwrap().1),
        None => rule,
    });
    // A set in which something was prepared is no one's loss; the next change takes it.
    let mine = |line: &String| !line.starts_with("rfw-work-");
    let mut state: Vec<String> = rules.chain(sets).chain(elements).filter(mine).collect();
    state.sort();
    state
}

/// Whether a set that rfw has just made and not yet used, or that has lost its last
/// entry, is all that two states differ by.
fn same(a: &[String], b: &[String]) -> bool {
    let counts = |state: &[String]| -> Vec<String> {
        let empty = |line: &&String| {
            let set =
                line.split_whitespace().find(|word| word.starts_with("rfw4-") || word.starts_with("rfw6-"));
            set.is_some_and(|set| !state.iter().any(|other| other.starts_with(&format!("{set} "))))
        };
        state.iter().filter(|line| !empty(line)).cloned().collect()
    };
    counts(a) == counts(b)
}

#[test]
fn whatever_program_goes_wrong_the_answer_is_true_and_nothing_is_half_done() {
    in_all_ways(|iptables, option| {
        thread::scope(|scope| {
            let faults = QUICK.map(|fault| scope.spawn(move || go_wrong(iptables, option, fault)));
            for (fault, thread) in QUICK.into_iter().zip(faults) {
                assert!(thread.join().is_ok(), "{fault:?}");
            }
        });
    });
}

fn go_wrong(iptables: &str, option: &str, fault: Fault) {
    let host = Host::new();
    let rfw = start(&host, iptables, option);
    let mut client = Client { host: &host, talk: None };
    for Step { before, request } in STEPS {
        // What was cut short is tried once more, and then need not show; entries of sets need
        // no program.
        let has_to_show = fault == Fault::Fails && option != "ipset";
        let (mut wrong, mut number, mut rounds) = (0, 1, 0);
        loop {
            before.iter().for_each(|request| drop(client.ok(*request)));
            let old = state(&host, iptables);
            host.fail_at(fault, number);
            let reply = client.send(request);
            let calls = host.heal();
            let new = state(&host, iptables);
            let why =
                format!("{iptables} {option} {fault:?} at {number}: {request:?}: {reply:?}\n{}", rfw.log());
            assert!([200, 500, 503].contains(&reply.status), "{why}");
            let answer = (request.0 == "GET").then(|| reply.body.clone());
            client.ok(request);
            let done = state(&host, iptables);
            assert!(
                same(&new, &done) || reply.status != 200 && same(&new, &old),
                "{why}\n{old:#?}\n{new:#?}\n{done:#?}"
            );
            let mut shown = reply.status != 200;
            if let Some(answer) = answer.filter(|_| reply.status == 200) {
                // A list that breaks off is no JSON.
                let whole = serde_json::from_str::<serde_json::Value>(&answer);
                shown = whole.is_err();
                assert!(shown || whole.unwrap().as_array().unwrap().len() >= 4, "{why}");
            }
            wrong += usize::from(shown);
            number += 1;
            if calls < number - 1 {
                // A look of the sweeper may have had the call that goes wrong: then all of them once more.
                (number, rounds) = (1, rounds + 1);
                if wrong > 0 || !has_to_show || rounds == 3 {
                    break;
                }
            }
        }
        assert!(wrong > 0 || !has_to_show, "{fault:?} never shows in {request:?}");
    }
}

#[test]
fn a_start_on_programs_that_go_wrong_loses_nothing() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let mut rfw = start(&host, iptables, option);
        rfw.stop();
        let before = state(&host, iptables);
        for fault in [Fault::Fails, Fault::Dies, Fault::Nothing] {
            for number in 1.. {
                host.fail_at(fault, number);
                let ended = rfw.try_spawn().err();
                let calls = host.heal();
                let after = state(&host, iptables);
                assert!(
                    same(&before, &after),
                    "{fault:?} at {number}: {ended:?}\n{before:#?}\n{after:#?}\n{}",
                    rfw.log()
                );
                if ended.is_none() {
                    rfw.stop();
                }
                if calls < number {
                    break;
                }
            }
        }
        rfw.spawn();
        assert!(same(&before, &state(&host, iptables)));
    });
}

/// Whether a process is there and has not ended.
fn runs(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Whether what hangs is the harness' part of a program that has ended by itself, as iptables-legacy-restore may
/// just before its time is over: then neither rfw nor a program is there that has started it.
fn is_left(pid: u32) -> bool {
    let read =
        |pid: &str, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read(&pid.to_string(), "status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim();
    let name = read(parent, "comm");
    !name.is_empty() && name.trim() != "rfw" && !name.contains("tables")
}

/// A program that hangs, at the call of that number of a request; or of the sweeper, which may look at
/// the tables just then.
fn hang(iptables: &str, option: &str, step: &Step, number: usize) {
    let host = Host::new();
    let mut rfw = start(&host, iptables, option);
    let mut client = Client { host: &host, talk: None };
    step.before.iter().for_each(|request| drop(client.ok(*request)));
    let old = state(&host, iptables);
    host.fail_at(Fault::Hangs, number);
    let reply = client.send_and_wait(step.request);
    host.heal();
    let Some(hanging) = host.hanging() else {
        assert_eq!(reply.status, 200, "{reply:?}");
        return;
    };
    let new = state(&host, iptables);
    match reply.status {
        503 => {
            assert!(reply.body.contains("no answer in"), "{reply:?}");
            assert_eq!(reply.header("Retry-After"), Some("2"), "{reply:?}");
            assert!(same(&old, &new), "{old:#?}\n{new:#?}");
        }
        // What breaks off in the middle of a list can be told in the list only.
        200 if step.request.0 == "GET" && reply.body.contains("no answer in") => {}
        200 => {
            // iptables-legacy-restore ends before its time is over, and is tried again; what hangs is the
            // harness' part of it, in front of a program that has ended. Everything else that hangs and is
            // not told to the client is the sweeper's, which has it for its time.
            let ended = iptables.contains("legacy") && step.request.0 != "GET";
            let told = || rfw.log().contains("no answer in");
            until(LONG, "what hangs is killed and told", || ended || told() && !runs(hanging));
            // Who asks meanwhile waits for the sweeper, or is refused for a moment.
            until(LONG, "the request works", || client.send_and_wait(step.request).status == 200);
            assert!(same(&new, &state(&host, iptables)));
            run("kill", &["-s", "KILL", &hanging.to_string()]);
            return;
        }
        _ => panic!("{reply:?}\n{}", rfw.log()),
    }
    until(SOON, "what hangs is killed", || !runs(hanging) || iptables.contains("legacy") && is_left(hanging));
    run("kill", &["-s", "KILL", &hanging.to_string()]);
    // Who comes next need not wait for another of its kind.
    let start = Instant::now();
    let next = client.send(("PUT", "/drop/input/any/1.0.0.7", ""));
    assert!(start.elapsed() < SHORT && [200, 503].contains(&next.status), "{next:?}");
    until(SOON, "the next request works", || client.send(step.request).status == 200);
    // Whatever hangs, the end is near.
    step.before.iter().for_each(|request| drop(client.ok(*request)));
    host.fail_at(Fault::Hangs, number);
    client.begin(step.request);
    until(SOON, "it hangs, or is done", || {
        host.hanging().is_some() || client.talk.as_ref().unwrap().heard().contains("HTTP/1.1 200")
    });
    let start = Instant::now();
    rfw.signal("TERM");
    assert_eq!(rfw.end(), 0);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let stays = host.hanging().filter(|_| iptables.contains("nft"));
    until(SOON, "no program stays", || !stays.is_some_and(runs));
}

#[test]
fn a_program_that_hangs_is_killed_and_told_and_delays_no_end() {
    in_all_ways(|iptables, option| {
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for step in [&STEPS[0], &STEPS[2], &STEPS[7], &STEPS[9]] {
                threads
                    .extend([1, 2].map(|number| scope.spawn(move || hang(iptables, option, step, number))));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    });
}

/// The kernel tells of a change of others, and the sweeper, which looks at the tables then, gets the program
/// that hangs: it has the firewall until the program is killed.
#[test]
fn a_program_of_the_sweeper_that_hangs_is_killed_and_told_and_what_waits_for_it_is_done() {
    let host = Host::new();
    let rfw = start(&host, "iptables-nft", "");
    let mut client = Client { host: &host, talk: None };
    host.fail_at(Fault::Hangs, 1);
    host.admin("iptables-nft", "-A INPUT -p udp --dport 54 -j ACCEPT");
    until(SOON, "it hangs", || host.hanging().is_some());
    host.heal();
    assert!(!rfw.log().contains("no answer in"), "{}", rfw.log());
    assert_eq!(client.send_and_wait(("PUT", ONE, "")).status, 200, "{}", rfw.log());
    until(SOON, "it is told", || rfw.log().contains("no answer in"));
    assert!(!host.hanging().is_some_and(runs), "{}", rfw.log());
    until(SOON, "the next request works", || client.send_and_wait(("DELETE", ONE, "")).status == 200);
}
