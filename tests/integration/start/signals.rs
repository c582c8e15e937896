//! Signals: the end, and the white list read again.

use super::{IPTABLES, kernel, wrap_tools};
use crate::host;
use crate::host::{Host, Rfw, SOON, STATE_FOLDER, VARIANTS, until};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn sigterm_and_sigint_end_rfw_and_its_rules_stay() {
    for iptables in VARIANTS {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        for signal in ["TERM", "INT"] {
            let before = kernel(&host);
            rfw.signal(signal);
            assert_eq!(rfw.end(), 0, "{}", rfw.log());
            assert_eq!(kernel(&host), before, "{iptables} {signal}");
            let log = rfw.log();
            assert!(log.lines().last().unwrap().ends_with("rfw ends, its rules stay"), "{log}");
            rfw.spawn();
            assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
        }
    }
}

#[test]
fn a_request_at_hand_is_finished_before_the_end() {
    for (signal, group) in [("TERM", false), ("INT", false)] {
        finish_request(signal, group);
    }
}

#[test]
fn a_request_at_hand_is_finished_when_ctrl_c_signals_the_whole_group() {
    finish_request("INT", true);
}

#[test]
fn a_list_at_hand_is_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        finish_list(signal, false);
    }
}

#[test]
fn a_list_at_hand_is_finished_when_ctrl_c_signals_the_whole_group() {
    finish_list("INT", true);
}

/// Sends a signal while rfw reads the tables, which takes 0.4 seconds: after a signal it may take one.
#[track_caller]
fn finish_list(signal: &str, group: bool) {
    let host = Host::new();
    let dir = host.left_to_programs(STATE_FOLDER);
    wrap_tools(
        &host,
        &format!("case $0 in *-save) [ -e {dir}/slow ] && touch {dir}/busy && sleep 0.4;; esac"),
    );
    let mut rfw = host.rfw("tools/iptables").start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    host.write("written/slow", 0o644, "");
    let mut client = host.connect(7390);
    client.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    until(SOON, "rfw is working", || host.dir.join("written/busy").exists());
    send(&rfw, signal, group);
    let reply = client.reply();
    let log = rfw.log();
    assert_eq!((reply.status, rfw.end()), (200, 0), "{signal}: {reply:#?} {log}");
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1), "{signal}: {reply:#?} {log}");
}

/// Sends a signal to rfw, or to its process group as a terminal does.
#[track_caller]
fn send(rfw: &Rfw<'_>, signal: &str, group: bool) {
    let process = rfw.pid().to_string();
    let target = if group { format!("-{process}") } else { process };
    host::run("kill", &["-s", signal, "--", &target]).ok();
}

/// Sends a signal to rfw, or to its process group as a terminal does, while it is
/// working on a request: another program holds the lock of the tables.
#[track_caller]
fn finish_request(signal: &str, group: bool) {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-legacy").start();
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard().contains("held"));
    let mut client = host.connect(7390);
    client.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    until(SOON, "rfw is working", || rfw.log().contains("-I INPUT -s 1.2.3.4 "));
    send(&rfw, signal, group);
    // Time for the signal to do harm, then the lock is free.
    thread::sleep(Duration::from_millis(300));
    assert!(!client.is_over() && client.heard().is_empty(), "{signal}: {}", client.heard());
    drop(lock);
    let reply = client.reply();
    assert_eq!((reply.status, rfw.end()), (200, 0), "{signal}: {reply:#?} {}", rfw.log());
    assert_eq!(reply.json()["result"], "inserted");
    assert_eq!(host.rules("iptables-legacy", "INPUT").len(), 1, "{signal}");
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    let mut idle = host.connect(7390);
    idle.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    idle.reply();
    let start = Instant::now();
    rfw.stop();
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    until(SOON, "the client sees the end", || idle.is_over());
    // One that has not yet said anything may have its five seconds.
    rfw.spawn();
    let silent = host.connect(7390);
    rfw.stop();
    until(SOON, "the client sees the end", || silent.is_over());
}

#[test]
fn sighup_reads_the_white_list_again() {
    for iptables in VARIANTS {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let ip6tables = iptables.replace("ip", "ip6");
        let guards = |part: &str| {
            let both = [host.guards(iptables), host.guards(&ip6tables)].concat();
            both.iter().filter(|line| line.contains(part)).count()
        };
        assert_eq!((guards(""), guards("10.0.0.0/8"), guards("-j DROP")), (8, 0, 4));
        rfw.ok("PUT", "/drop/input/any/10.1.2.3");
        rfw.ok("PUT", "/drop/input/any/11.1.2.3");
        let rfw = rfw.white_list("127.0.0.1\n::1\n10.0.0.0/8\n");
        rfw.signal("HUP");
        until(SOON, "the list is read", || {
            rfw.log().contains("the configuration has been read again: 3 networks")
        });
        assert_eq!((guards(""), guards("10.0.0.0/8"), guards("-j DROP")), (10, 2, 4), "{iptables}");
        assert_eq!(host.rules(iptables, "INPUT").len(), 1);
        assert!(rfw.log().contains("[WARN] removed, since it touches the white list: INPUT -s 10.1.2.3"));
        assert!(rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400).contains("10.0.0.0/8"));
        // A bad one is refused and the old one stays.
        for bad in ["127.0.0.1\nnonsense\n", "", "0.0.0.0/0\n"] {
            host.write("white.list", 0o644, bad);
            let before = (kernel(&host), rfw.log().matches("is refused").count());
            rfw.signal("HUP");
            until(SOON, "the list is refused", || rfw.log().matches("is refused").count() > before.1);
            assert_eq!(kernel(&host), before.0, "{bad:?}");
            rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400);
        }
        let line = "white.list:2: \"nonsense\" is not an IPv4 or IPv6 address";
        assert!(rfw.log().contains(line), "{}", rfw.log());
        let rfw = rfw.white_list("127.0.0.1\n");
        rfw.signal("HUP");
        until(SOON, "the list is read", || rfw.log().contains("again: 1 network"));
        assert_eq!((guards(""), guards("::1")), (6, 0), "{iptables}");
        rfw.ok("PUT", "/drop/input/any/10.1.2.3");
    }
}
