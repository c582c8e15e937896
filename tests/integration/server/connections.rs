//! Connections: kept ones, slow, silent and deaf clients, and those that never pause.

use super::{AT_ONCE, IPTABLES, LOGIN, SIX_SECONDS, connect_tls, rules, time_of_a_request, try_curl};
use crate::host::{Host, Rfw, SOON, until};
use std::time::{Duration, Instant};
use std::{fs, thread};

// ---- connections ----

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    for url in ["https://127.0.0.1:7393/list#[1-5]", "http://127.0.0.1:7390/list#[1-5]"] {
        let format = ["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n", "-u", "me:secret", url];
        let (status, said) = try_curl(&rfw, &format);
        assert_eq!((status, said.as_str()), (Some(0), "200 1\n200 0\n200 0\n200 0\n200 0\n"), "{url}");
    }
}

#[test]
fn a_kept_connection_stays_while_others_are_served() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let request = format!("GET /list HTTP/1.1\r\nHost: localhost\r\n{LOGIN}\r\n\r\n");
    for tls in [false, true] {
        let mut first = if tls { connect_tls(&host) } else { host.connect(7390) };
        for _ in 0..3 {
            first.say(request.as_bytes());
            assert_eq!(first.reply().body, "[]\n");
            let took = time_of_a_request(&rfw);
            assert!(took < AT_ONCE, "{took:?}");
        }
        assert!(!first.is_over());
    }
}

#[test]
fn a_client_that_says_nothing_holds_nobody_and_is_let_go() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut silent = host.connect(7390);
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(silent.reply().status, 408);
    until(SOON, "the silent client is let go", || silent.is_over());
}

#[test]
fn a_client_that_sends_a_byte_a_second_gets_408_and_the_next_is_answered() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut slow = host.connect(7390);
    slow.say(b"GET /list HTTP/1.1\r\nX: ");
    let slow = thread::spawn(move || {
        while !slow.is_over() && !slow.heard().contains("\r\n\r\n") {
            slow.say(b"x");
            thread::sleep(Duration::from_secs(1));
        }
        slow.reply()
    });
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    let reply = slow.join().unwrap();
    assert_eq!(reply.status, 408, "{reply:#?}");
    assert_eq!(reply.header("Connection"), Some("close"));
}

#[test]
fn a_slow_client_within_tls_gets_408_too() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut slow = connect_tls(&host);
    let start = Instant::now();
    slow.say(b"GET /li");
    until(SOON, "there is an answer", || slow.is_over() || slow.heard().contains("\r\n\r\n"));
    assert_eq!(slow.reply().status, 408);
    assert!(start.elapsed() < SIX_SECONDS, "{:?}", start.elapsed());
    rfw.ok("GET", "/");
}

#[test]
fn a_kept_connection_that_becomes_slow_is_bounded_too() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut slow = host.connect(7390);
    slow.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(slow.reply().status, 200);
    slow.say(b"GET /list HTTP/1.1\r\n");
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    until(SOON, "it is let go", || slow.is_over());
}

#[test]
fn half_a_tls_handshake_holds_nobody_and_is_let_go() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut half = host.connect(7393);
    // The header of a record and the beginning of a ClientHello.
    half.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    until(SOON, "it is let go", || half.is_over());
    let log = rfw.log();
    assert!(log.contains("127.0.0.1: no TLS handshake: "), "{log}");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_let_go() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390 && echo open
        yes \"$(printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r')\" >&3";
    let deaf = host.talk("bash", &["-c", script]);
    until(SOON, "the connection is open", || deaf.heard().contains("open"));
    // What waits to be sent no longer changes: the kernel's buffers are full.
    let waiting = || host.run("ss", &["-Htn", "sport", "=", ":7390"]).ok();
    until(SOON, "the buffers are full", || {
        let before = waiting();
        thread::sleep(Duration::from_millis(200));
        before.contains("ESTAB") && waiting() == before
    });
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    until(SOON, "the deaf client is let go", || !waiting().contains("ESTAB"));
}

#[test]
fn work_for_another_is_not_to_the_cost_of_a_deadline() {
    let host = Host::new();
    let _rfw = host.rfw("iptables-legacy").start();
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard().contains("held"));
    let mut waiting = host.connect(7390);
    waiting.say(b"GET / HTTP/1.1\r\nHost: loc");
    let mut first = host.connect(7390);
    first.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // Longer than a head may take.
    let start = Instant::now();
    assert_eq!(first.reply().status, 503);
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
    waiting.say(b"alhost\r\n\r\n");
    assert_eq!(waiting.reply().status, 200);
}

#[test]
fn a_client_that_closes_in_mid_request_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let whole = "PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for end in [1, 20, 28, 40, whole.len() - 1] {
        let mut talk = host.connect(7390);
        talk.say(&whole.as_bytes()[..end]);
        drop(talk);
        assert!(time_of_a_request(&rfw) < Duration::from_secs(2), "{end}");
        assert_eq!(rules(&host), Vec::<String>::new(), "{end}");
    }
    // In mid-handshake, and between handshake and request.
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x00\x05hello"] {
        let mut talk = host.connect(7393);
        talk.say(bytes);
        drop(talk);
        assert!(time_of_a_request(&rfw) < Duration::from_secs(2), "{bytes:?}");
    }
}

#[test]
fn many_connections_leave_nothing_behind() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    // But for the state file, which is opened when it is written, perhaps meanwhile.
    let fds = || {
        let all = fs::read_dir(format!("/proc/{}/fd", rfw.pid())).unwrap();
        let files = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        files.filter(|file| !file.ends_with("rfw/state")).count()
    };
    let threads = || fs::read_dir(format!("/proc/{}/task", rfw.pid())).unwrap().count();
    let before = fds();
    for port in [7393, 7390] {
        let script = format!(
            "for n in {{1..50}}; do exec {{fd}}<>/dev/tcp/127.0.0.1/{port}; done; echo open; read -r"
        );
        let crowd = host.talk("bash", &["-c", &script]);
        until(SOON, "50 connections are open", || crowd.heard().contains("open"));
        drop(crowd);
        let took = time_of_a_request(&rfw);
        assert!(took < AT_ONCE, "{took:?}");
    }
    let urls = "https://127.0.0.1:7393/#[1-200]";
    let format = ["-H", "Connection: close", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n"];
    let arguments = [&format[..], &["--max-time", "60", "-u", "me:secret", urls]].concat();
    let (status, said) = try_curl(&rfw, &arguments);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said, "200 1\n".repeat(200));
    until(SOON, "the descriptors are back", || fds() <= before);
    assert_eq!(threads(), 2);
    assert_resident_is_bounded(&rfw);
}

#[test]
fn a_client_that_never_pauses_does_not_make_rfw_grow() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    // 60,000 requests of four lines, which are 8 MB, all answered.
    let head = format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r", "x".repeat(97));
    host.write("head", 0o644, &head);
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390
        (yes \"$(cat head)\" | head -n 240000; printf 'GET /nope HTTP/1.0\\r\\n\\r\\n') >&3 &
        tail -n 1 <&3; echo; echo end";
    let client = host.talk("bash", &["-c", script]);
    until(4 * SOON, "all are answered", || client.heard().contains("end"));
    assert!(client.heard().contains("\"nope"), "{}", client.heard());
    assert_resident_is_bounded(&rfw);
}

/// The most it ever had. Of the 8 MB that are promised for a release some 3 are pages of the program, which
/// is larger in a debug build: those are not counted.
#[track_caller]
fn assert_resident_is_bounded(rfw: &Rfw<'_>) {
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let read = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (peak, pages) = (read("VmHWM:"), read("RssFile:"));
    println!("{peak} kB resident, {pages} kB of the program");
    assert!(peak - pages < 4 << 10, "{peak} kB, {pages} kB of the program");
    assert!(cfg!(debug_assertions) || peak < 8 << 10, "{peak} kB");
}

// ---- the log ----
