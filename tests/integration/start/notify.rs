//! What the service manager hears: that rfw is ready, reloads and ends, signs of life, and what it holds.

use super::{IPTABLES, wrap_tools};
use crate::host::{Host, Rfw, SOON, in_all_ways, until};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

/// A service manager, which keeps what it is told.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// One whose socket is in the folder of a host, and rfw that is to tell it.
    fn new<'a>(host: &'a Host, iptables: &str) -> (Manager, Rfw<'a>) {
        let path = host.dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let rfw = host.rfw(iptables).environment("NOTIFY_SOCKET", path.to_str().unwrap());
        (Manager { socket, heard: Vec::new() }, rfw)
    }

    /// All that it has heard.
    fn heard(&mut self) -> &[String] {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.heard.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
        }
        &self.heard
    }

    fn count(&mut self, message: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == message).count()
    }

    /// What it has heard, without what is asked for before the start is over, signs of life and times.
    fn states(&mut self) -> Vec<String> {
        let heard = self.heard().iter().filter(|heard| *heard != "WATCHDOG=1" && !heard.starts_with("EXT"));
        heard.map(|heard| heard.split("_USEC=").next().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn hears(&mut self, message: &str) {
        until(SOON, message, || self.count(message) > 0);
    }

    /// The last line of what rfw holds, with the time of the change taken out.
    fn status(&mut self) -> String {
        let last = self.heard().iter().rev().find_map(|heard| heard.strip_prefix("STATUS="));
        let last = last.unwrap_or_default().to_owned();
        match last.split_once(" change 20") {
            Some((before, rest)) => format!("{before} change {}", &rest["26-11-27T10:00:00Z ".len()..]),
            None => last,
        }
    }

    #[track_caller]
    fn says(&mut self, status: &str) {
        until(SOON, status, || self.status() == status);
    }
}

#[test]
fn a_service_manager_that_makes_its_socket_anew_goes_on_hearing() {
    let host = Host::new();
    let (mut manager, mut rfw) = Manager::new(&host, IPTABLES);
    rfw.spawn();
    manager.hears("READY=1");
    let path = host.dir.join("notify");
    fs::remove_file(&path).unwrap();
    drop(manager);
    rfw.signal("HUP");
    until(SOON, "nobody hears", || rfw.log().contains("the service manager can't be told anything"));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut manager = Manager { socket, heard: Vec::new() };
    rfw.signal("HUP");
    manager.hears("READY=1");
    rfw.stop();
    manager.hears("STOPPING=1");
}

#[test]
fn the_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let host = Host::new();
    let (mut manager, mut rfw) = Manager::new(&host, IPTABLES);
    rfw.spawn();
    manager.hears("READY=1");
    let heard = manager.heard();
    assert!(heard[0].starts_with("EXTEND_TIMEOUT_USEC="), "{heard:?}");
    manager.says("0 lists, 0 entries; no change since the start");
    rfw.signal("HUP");
    until(SOON, "rfw is ready again", || manager.count("READY=1") == 2);
    rfw.stop();
    let expected = [
        "READY=1",
        "STATUS=0 lists, 0 entries; no change since the start",
        "RELOADING=1\nMONOTONIC",
        "READY=1",
        "STOPPING=1",
    ];
    assert_eq!(manager.states(), expected);
    // There was no watchdog to be fed.
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn the_status_tells_what_is_held_and_what_was_changed_last() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let (mut manager, rfw) = Manager::new(&host, iptables);
        let rfw = rfw.configure(option).start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?list=tor");
        manager.says("1 list, 1 entry; last change by me: 1 inserted in tor");
        rfw.send_ok("PUT", "/drop/input/any", "1.2.3.4\n1.2.3.5\n2001:db8::1\n");
        manager.says("2 lists, 4 entries; last change by me: 3 inserted, 0 refreshed");
        rfw.send_ok("PUT", "/drop/input/any?list=tor&replace=true", "5.6.7.8\n5.6.7.9\n");
        manager.says("2 lists, 5 entries; last change by me: 2 inserted, 0 refreshed, 1 removed in tor");
        // What changes nothing is not told.
        rfw.ok("DELETE", "/drop/input/any/9.9.9.9");
        rfw.ok("DELETE", "/list?list=tor");
        manager.says("1 list, 3 entries; last change by me: 2 deleted in tor");
    });
}

#[test]
fn signs_of_life_come_while_rfw_is_idle_or_works_and_not_while_it_hangs() {
    let host = Host::new();
    wrap_tools(&host, "case $0 in *-save) sleep 0.3;; esac");
    let (mut manager, rfw) = Manager::new(&host, "tools/iptables");
    let rfw = rfw.environment("WATCHDOG_USEC", "400000").start();
    let next = |manager: &mut Manager, what: &str| {
        let before = manager.count("WATCHDOG=1");
        until(SOON, what, || manager.count("WATCHDOG=1") >= before + 3);
    };
    next(&mut manager, "rfw lives while it is idle");
    // A body that is on its way.
    let mut slow = host.connect(7390);
    slow.say(b"PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n1.2");
    next(&mut manager, "rfw lives while a body comes");
    slow.say(b".3.4\n");
    assert_eq!(slow.reply().status, 200);
    // Requests that take longer than half of its time, one after the other.
    let mut busy = host.connect(7390);
    let before = manager.count("WATCHDOG=1");
    for _ in 0..3 {
        busy.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(busy.reply().status, 200);
    }
    assert!(manager.count("WATCHDOG=1") >= before + 3);
    rfw.signal("STOP");
    let stat = format!("/proc/{}/stat", rfw.pid());
    until(SOON, "rfw hangs", || fs::read_to_string(&stat).unwrap().contains(") T "));
    let before = manager.heard().len();
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(manager.heard().len(), before, "{:?}", manager.heard);
    rfw.signal("CONT");
    next(&mut manager, "rfw lives again");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let host = Host::new();
    let (mut manager, rfw) = Manager::new(&host, IPTABLES);
    let _rfw = rfw.environment("WATCHDOG_USEC", "200000").environment("WATCHDOG_PID", "1").start();
    manager.hears("READY=1");
    manager.says("0 lists, 0 entries; no change since the start");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn a_service_manager_that_does_not_listen_delays_nobody() {
    let host = Host::new();
    let (mut manager, rfw) = Manager::new(&host, IPTABLES);
    let mut rfw = rfw.environment("WATCHDOG_USEC", "20000").start();
    // The kernel keeps ten messages or some hundred (net.unix.max_dgram_qlen).
    thread::sleep(Duration::from_secs(2));
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let before = manager.count("WATCHDOG=1");
    assert!(before > 2);
    until(SOON, "it hears again", || manager.count("WATCHDOG=1") > before);
    manager.says("1 list, 1 entry; last change by me: 1 inserted");
    rfw.stop();
    manager.hears("STOPPING=1");
}
