//! Many clients at once, rude ones among them: nobody waits for another's slowness, nothing
//! grows, and bounds hold.

use super::{AT_ONCE, IPTABLES, connect_tls, rules, time_of_a_request, try_curl};
use crate::client::{self, Client, connect_from, head, secure};
use crate::crowd::{Crowd, Waits, sources};
use crate::host::{Host, Rfw, SOON, Talk, until};
use rustix::net::sockopt::set_socket_linger;
use rustls::ClientConfig;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

// ---- tasks that run on the host ----

/// Starts this program again on the host, for a task, and gives what it has said.
#[track_caller]
fn on_host(host: &Host, task: &str) -> String {
    let program = env::current_exe().unwrap();
    let output = host
        .command(program.to_str().unwrap())
        .args(["--exact", "server::crowd::task", "--ignored", "--nocapture", "--test-threads", "1"])
        .env("RFW_TASK", task)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{task}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
#[ignore = "is started by other tests, on their hosts"]
fn task() {
    let tls = Arc::new(client::trust(Path::new("ca.crt")));
    match env::var("RFW_TASK").as_deref() {
        Ok("crowd") => wait_in_a_crowd(&tls),
        Ok("storm") => (0..10).for_each(|_| storm(&tls)),
        Ok("close_notify") => hear_close_notify(&tls),
        Ok("turned out") => be_turned_out(&tls),
        other => panic!("{other:?}"),
    }
}

/// The number behind a word in what a task has said.
#[track_caller]
fn number(said: &str, word: &str) -> f64 {
    let mut words = said.split_whitespace().skip_while(|said| *said != word);
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {word} in {said}"))
}

fn listed_crowd() -> String {
    sources().map(|source| format!("{source}\n")).collect::<String>() + "127.0.0.1\n::1\n"
}

// ---- an honest client in a crowd ----

fn wait_in_a_crowd(tls: &Arc<ClientConfig>) {
    let quiet = Waits::measure(tls, Duration::from_secs(3)).summary();
    let tell = |name: &str, (kept, new, longest): (Duration, Duration, Duration)| {
        let [kept, new, longest] = [kept, new, longest].map(|time| time.as_secs_f64() * 1e3);
        println!("{name}-kept {kept} {name}-new {new} {name}-longest {longest}");
    };
    tell("\nquiet", quiet);
    for (name, again) in [("once", false), ("again", true)] {
        let crowd = Crowd::gather(tls, again);
        tell(name, Waits::measure(tls, Duration::from_secs(10)).summary());
        drop(crowd);
    }
}

#[test]
fn an_honest_client_does_not_notice_a_crowd() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list(&listed_crowd()).configure("ipset").start();
    rfw.send_ok("PUT", "/drop/output/any", &many(20_000));
    let said = on_host(&host, "crowd");
    // Coarse, since the machine has other things to do; the figures are those of the bench.
    for name in ["once", "again"] {
        let longest = number(&said, &format!("{name}-longest"));
        assert!(longest < 2_000.0, "{said}");
        for how in ["kept", "new"] {
            let (quiet, crowded) =
                (number(&said, &format!("quiet-{how}")), number(&said, &format!("{name}-{how}")));
            assert!(crowded < quiet * 4.0 + 50.0, "{said}");
        }
    }
    let log = rfw.log();
    let lines = log.lines().filter(|line| !line.contains("9.9.9.") && !line.contains("DEBUG")).count();
    assert!(lines < 600, "{lines} lines\n{log}");
}

/// Addresses, a line each.
fn many(count: usize) -> String {
    (0..count).map(|n| format!("11.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255)).collect()
}

#[test]
fn clients_of_the_local_server_take_part_as_equals() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    // Six clients never pause over HTTPS.
    let script = "for n in 1 2 3 4 5 6; do (while :; do curl -sS --cacert ca.crt -u me:secret \
                  'https://127.0.0.1:7393/#[1-1000]' -o /dev/null || exit; done) & done; echo busy; wait";
    let busy = host.talk("bash", &["-c", script]);
    until(SOON, "they are busy", || busy.heard().contains("busy"));
    for _ in 0..20 {
        let start = Instant::now();
        let mut local = host.connect(7390);
        local.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(local.reply().status, 200);
        assert!(start.elapsed() < 2 * AT_ONCE, "{:?}", start.elapsed());
    }
    assert!(!busy.is_over());
    drop(rfw);
}

// ---- nothing is left behind ----

/// A thousand connections that end in every way in every state.
fn storm(tls: &Arc<ClientConfig>) {
    let source = Ipv4Addr::LOCALHOST;
    for n in 0..950 {
        let port = if n % 2 == 0 { client::PORT } else { 7390 };
        let socket = connect_from(source, port).unwrap();
        if n % 5 == 0 {
            set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        }
    }
    let list = head("GET", "/list", 0);
    let body = head("PUT", "/drop/input/any", 100) + "1.2.3.4\n";
    let chunked = body.replace("Content-Length: 100", "Transfer-Encoding: chunked");
    let hello = "\x16\x03\x01\x02\x00\x01";
    let texts = ["GET /li", &list, &body, &chunked, "nonsense\r\n\r\n", hello];
    for (n, text) in texts.iter().flat_map(|text| [text; 3]).enumerate() {
        for local in [true, false] {
            let socket = connect_from(source, if local { 7390 } else { client::PORT }).unwrap();
            end_after(socket, tls, local, text.as_bytes(), n % 3);
        }
    }
}

/// Sends bytes, within TLS unless the server is the local one, and closes, resets, or closes
/// one half.
fn end_after(mut socket: TcpStream, tls: &Arc<ClientConfig>, local: bool, bytes: &[u8], how: usize) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    if local {
        let _ = socket.write_all(bytes);
    } else {
        let mut stream = secure(tls, socket);
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        socket = stream.sock;
    }
    match how {
        0 => {}
        1 => set_socket_linger(&socket, Some(Duration::ZERO)).unwrap(),
        _ => {
            let _ = socket.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            let ended = socket.read_to_end(&mut rest);
            assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "never closed");
        }
    }
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let host = Host::new();
    // Which is opened some seconds after a change.
    let rfw = host.rfw(IPTABLES).configure("state.file =").start();
    rfw.ok("PUT", "/drop/input/any/9.9.9.9");
    let tls = |host: &Host| on_host(host, "storm");
    tls(&host);
    let fds = || fs::read_dir(format!("/proc/{}/fd", rfw.pid())).unwrap().count();
    until(SOON, "all are closed", || open_connections(&host) == 0);
    let before = (fds(), resident(&rfw));
    tls(&host);
    until(SOON, "all are closed", || open_connections(&host) == 0);
    assert_eq!(fds(), before.0);
    let grown = resident(&rfw).saturating_sub(before.1);
    assert!(grown < 1 << 10, "{grown} kB more than {} kB", before.1);
    assert_eq!(rules(&host).len(), 1);
    rfw.ok("GET", "/list");
}

/// How many connections rfw has.
fn open_connections(host: &Host) -> usize {
    let ports = "( sport = :7393 or sport = :7390 )";
    host.run("ss", &["-Htn", "state", "established", "state", "close-wait", ports]).ok().lines().count()
}

/// The resident memory now, in kB.
fn resident(rfw: &Rfw<'_>) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn few_descriptors_are_no_end() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    host.run("prlimit", &["--pid", &rfw.pid().to_string(), "--nofile=32:32"]).ok();
    let script = "for n in {1..60}; do exec {fd}<>/dev/tcp/127.0.0.1/7390; done; echo open; read -r";
    let crowd = host.talk("bash", &["-c", script]);
    until(SOON, "60 connections are open", || crowd.heard().contains("open"));
    // Those that say nothing go for those that do, once they are there.
    until(SOON, "all are accepted", || {
        let listener = host.run("ss", &["-Hltn", "( sport = :7390 )"]).ok();
        listener.split_whitespace().nth(1) == Some("0")
    });
    let start = Instant::now();
    rfw.ok("GET", "/");
    assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    drop(crowd);
    until(SOON, "rules are changed again", || rfw.request("PUT", "/drop/input/any/1.2.3.5").status == 200);
    assert!(rfw.log().matches("no connection can be accepted for now").count() <= 1, "{}", rfw.log());
    assert_eq!(rules(&host).len(), 2);
}

#[test]
fn a_start_with_few_descriptors_has_a_lower_bound() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let command = format!(
        "ulimit -n 48; exec {} -f rfw.conf --logfile rfw.log --loglevel DEBUG",
        env!("CARGO_BIN_EXE_rfw")
    );
    let _running = host.talk("bash", &["-c", &command]);
    until(SOON, "rfw is ready", || rfw.log().contains("is ready"));
    assert!(
        rfw.log().contains("the limit of open files leaves room for 8 connections only"),
        "{}",
        rfw.log()
    );
    let silent: Vec<Talk> = (0..20).map(|_| host.connect(7390)).collect();
    for n in 1..5 {
        rfw.ok("PUT", &format!("/drop/input/any/1.2.3.{n}"));
        assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(n));
    }
    assert!(!rfw.log().contains("no connection can be accepted"), "{}", rfw.log());
    drop(silent);
}

// ---- bounds ----

#[test]
fn the_most_silent_connection_goes_at_the_bound() {
    let host = Host::new();
    let ask = b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for option in ["connections.max = 4", "connections.max.source = 4"] {
        let mut rfw = host.rfw(IPTABLES).configure(option).start();
        let mut clients: Vec<Talk> = (0..4).map(|_| host.connect(7390)).collect();
        // The first is the one that has spoken last.
        for client in clients.iter_mut().rev() {
            client.say(ask);
            assert_eq!(client.reply().status, 200);
        }
        let mut fifth = host.connect(7390);
        fifth.say(ask);
        assert_eq!(fifth.reply().status, 200, "{option}");
        until(SOON, "the most silent one is closed", || clients[3].is_over());
        for client in &mut clients[..3] {
            client.say(ask);
            assert_eq!(client.reply().status, 200, "{option}");
        }
        let line = "127.0.0.1: too many connections, the most silent one is closed";
        assert_eq!(rfw.log().matches(line).count(), 1, "{}", rfw.log());
        rfw.stop();
    }
}

#[test]
fn a_source_with_many_connections_drives_out_none_with_few() {
    let host = Host::new();
    let option = "connections.max = 6\nconnections.max.source = 5";
    let rfw = host.rfw(IPTABLES).configure(option).start();
    let mut kept = connect_tls(&host);
    let list = head("GET", "/list", 0);
    kept.say(list.as_bytes());
    assert_eq!(kept.reply().status, 200);
    let crowd: Vec<Talk> = (0..12).map(|_| host.connect(7390)).collect();
    until(SOON, "the bound holds", || open_connections(&host) <= 6);
    kept.say(list.as_bytes());
    assert_eq!(kept.reply().status, 200, "{}", rfw.log());
    drop(crowd);
}

#[test]
fn bodies_are_bounded_all_together_and_small_ones_do_not_wait() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure("ipset").start();
    let before = resident(&rfw);
    // Comments, so that what is held is not what the list is made of.
    host.write("part", 0o644, &format!("# {}\n", "x".repeat(500)).repeat(24_000));
    let script = "for n in 1 2 3 4 5 6; do (exec 3<>/dev/tcp/127.0.0.1/7390
        printf 'PUT /drop/input/any HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 16000000\\r\\n\\r\\n' >&3
        cat part >&3; sleep 20) & done; echo begun; wait";
    let large = host.talk("bash", &["-c", script]);
    until(SOON, "they are sending", || large.heard().contains("begun"));
    for n in 0..20 {
        let start = Instant::now();
        rfw.send_ok("PUT", "/drop/input/any", &many(100 + n));
        assert!(start.elapsed() < 2 * AT_ONCE, "{:?}", start.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    let grown = resident(&rfw).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} kB");
}

// ---- long listings ----

#[test]
fn a_long_listing_waits_for_its_reader_alone_and_a_third_is_told_to_come_again() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure("ipset").start();
    rfw.send_ok("PUT", "/drop/input/any", &many(60_000));
    let deaf = |version: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/7390
             printf 'GET /list HTTP/{version}\\r\\nHost: localhost\\r\\n\\r\\n' >&3; echo asked
             read -r; cat <&3"
        );
        let talk = host.talk("bash", &["-c", &script]);
        until(SOON, "it has asked", || talk.heard().contains("asked"));
        talk
    };
    let mut readers = [deaf("1.1"), deaf("1.0")];
    let mut third = None;
    until(SOON, "both places are taken", || {
        let took = time_of_a_request(&rfw);
        assert!(took < AT_ONCE, "{took:?}");
        let reply = rfw.request("HEAD", "/list");
        let taken = reply.status == 503;
        third = Some(reply);
        taken
    });
    assert_eq!(third.unwrap().header("Retry-After"), Some("2"));
    // Short ones are no matter, and neither are changes.
    assert_eq!(rfw.ok("GET", "/list?address=11.0.0.7").as_array().map(Vec::len), Some(1));
    assert_eq!(rfw.ok("DELETE", "/drop/input/any/11.0.0.7")["result"], "deleted");
    // Whoever reads after all gets what was there when it was read, the deleted one or not.
    for reader in &mut readers {
        reader.say(b"\n");
    }
    for reader in &readers {
        until(SOON, "all has come", || reader.heard().contains("\n]\n"));
        let heard = reader.heard();
        assert!((59_999..=60_000).contains(&heard.matches("\"source\":\"11.").count()));
    }
    assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(59_999));
}

// ---- signals ----

#[test]
fn a_crowd_does_not_delay_the_end() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).configure("ipset").start();
    rfw.send_ok("PUT", "/drop/input/any", &many(30_000));
    let mut talks: Vec<Talk> = (0..4).map(|n| host.connect(if n % 2 == 0 { 7390 } else { 7393 })).collect();
    for text in ["GET /li", "PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1"] {
        let mut talk = host.connect(7390);
        talk.say(text.as_bytes());
        talks.push(talk);
    }
    let script =
        "exec 3<>/dev/tcp/127.0.0.1/7390; printf 'GET /list HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' >&3
                  echo asked; read -r";
    let deaf = host.talk("bash", &["-c", script]);
    until(SOON, "it has asked", || deaf.heard().contains("asked"));
    rfw.ok("GET", "/");
    let start = Instant::now();
    rfw.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    until(SOON, "the clients see the end", || talks.iter().all(Talk::is_over));
}

fn hear_close_notify(tls: &Arc<ClientConfig>) {
    let mut stream = secure(tls, connect_from(Ipv4Addr::LOCALHOST, client::PORT).unwrap());
    stream.write_all(head("GET", "/list", 0).as_bytes()).unwrap();
    let mut heard = String::new();
    while !heard.ends_with("0\r\n\r\n") {
        let mut part = [0; 1000];
        let length = stream.read(&mut part).unwrap();
        heard += &String::from_utf8_lossy(&part[..length]);
    }
    fs::write("idle", "").unwrap();
    // Without close_notify this is an error.
    assert_eq!(stream.read(&mut [0; 1000]).map_err(|error| error.kind()), Ok(0));
}

#[test]
fn an_idle_client_is_told_of_the_end_by_close_notify() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    thread::scope(|scope| {
        let client = scope.spawn(|| on_host(&host, "close_notify"));
        until(SOON, "the client is idle", || host.dir.join("idle").exists() || client.is_finished());
        rfw.stop();
        client.join().unwrap();
    });
}

#[test]
fn a_storm_of_sighup_is_folded() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let pid = rfw.pid();
    let script = format!("for n in {{1..2000}}; do kill -HUP {pid}; done; echo over");
    let start = Instant::now();
    let storm = host.talk("bash", &["-c", &script]);
    until(SOON, "the storm is over", || storm.heard().contains("over"));
    let took = time_of_a_request(&rfw);
    assert!(took < AT_ONCE, "{took:?}");
    let read = || rfw.log().matches("the configuration has been read again").count();
    until(SOON, "it is read", || read() > 0);
    thread::sleep(Duration::from_secs(1));
    let most = 2 + usize::try_from(start.elapsed().as_millis() / 500).unwrap();
    assert!((1..=most).contains(&read()), "{} of {most}", read());
    // The last one counts: what is in the list then is in force.
    let rfw = rfw.white_list("127.0.0.1\n::1\n10.0.0.0/8\n");
    rfw.signal("HUP");
    until(SOON, "the list is in force", || rfw.request("PUT", "/drop/input/any/10.1.2.3").status == 400);
}

fn be_turned_out(tls: &Arc<ClientConfig>) {
    let source = sources().next().unwrap();
    let mut stream = secure(tls, connect_from(source, client::PORT).unwrap());
    let mut ask = || -> std::io::Result<usize> {
        stream.write_all(head("GET", "/", 0).as_bytes())?;
        stream.read(&mut [0; 10_000])
    };
    assert!(ask().unwrap() > 0);
    fs::write("connected", "").unwrap();
    let start = Instant::now();
    // The guard drops its packets, or it sees the end; either way nothing is answered.
    while !Path::new("reloaded").exists() {
        assert!(start.elapsed() < SOON);
        thread::sleep(Duration::from_millis(20));
    }
    stream.sock.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let more = stream.read(&mut [0; 10_000]);
    assert!(!matches!(more, Ok(1..)), "{more:?}");
    let mut kept = Client::new(tls);
    kept.put("1.2.3.4");
}

#[test]
fn who_is_no_longer_listed_is_turned_out() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list(&listed_crowd()).start();
    thread::scope(|scope| {
        let client = scope.spawn(|| on_host(&host, "turned out"));
        until(SOON, "the client is connected", || {
            host.dir.join("connected").exists() || client.is_finished()
        });
        assert_eq!(open_connections(&host), 1);
        host.write("white.list", 0o644, "127.0.0.1\n::1\n");
        rfw.signal("HUP");
        until(SOON, "the list is read", || rfw.log().contains("again: 2 networks"));
        // Neither is anything left of the connection here.
        until(SOON, "the connection is closed", || {
            let there = host.run("ss", &["-Htnp", "state", "established", "( sport = :7393 )"]).ok();
            !there.contains("rfw")
        });
        host.write("reloaded", 0o644, "");
        client.join().unwrap();
    });
}

// ---- the terminal ----

#[test]
fn a_terminal_that_nobody_reads_stalls_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    host.run("mkfifo", &["terminal"]).ok();
    let reader = host.talk("bash", &["-c", "exec 3<>terminal; echo open; read -r; exec timeout 2 cat <&3"]);
    until(SOON, "the pipe is open", || reader.heard().contains("open"));
    let command = format!(
        "exec {} -f rfw.conf --logfile rfw.log --loglevel DEBUG -v >terminal 2>&1",
        env!("CARGO_BIN_EXE_rfw")
    );
    let running = host.talk("bash", &["-c", &command]);
    until(SOON, "rfw is ready", || rfw.log().contains("is ready"));
    // Each is told in a line of 100 bytes or more; a pipe holds 64 KiB.
    let urls = "https://127.0.0.1:7393/nonsense#[1-1500]";
    let format = ["-o", "/dev/null", "-w", "%{http_code}\\n", "-u", "me:secret", "--max-time", "60", urls];
    let (status, said) = try_curl(&rfw, &format);
    assert_eq!((status, said.matches("404\n").count()), (Some(0), 1500));
    assert_eq!(rfw.log().matches("/nonsense").count(), 1500);
    assert!(time_of_a_request(&rfw) < AT_ONCE);
    drop((running, reader));
}
