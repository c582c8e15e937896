//! Defects of the past, each with the test that would have found it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[allow(dead_code, unused_imports)]
#[path = "integration/host/mod.rs"]
mod host;

use host::fake::Fault;
use host::{Host, Rfw, SOON, Talk, in_both_variants, until};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Connections that said nothing held the next client for five seconds, each of them.
#[test]
fn each_of_many_silent_clients_makes_room_after_a_second() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    let silent: Vec<_> = (0..6).map(|_| host.connect(7393)).collect();
    let start = Instant::now();
    assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
    let waited = start.elapsed();
    assert!(waited.as_secs() < 15, "six silent clients, which could have taken 30 s, took {waited:?}");
    drop(silent);
}

/// SIGHUP tells nobody what came of it: the reload of a broken white list succeeded.
#[test]
fn a_reload_with_a_broken_white_list_fails_and_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let unit = include_str!("../etc/systemd/rfw.service");
    let words = [
        ("@sbindir@/rfw", env!("CARGO_BIN_EXE_rfw").to_owned()),
        ("@sysconfdir@/rfw/rfw.conf", "rfw.conf".to_owned()),
        ("$MAINPID", rfw.pid().to_string()),
    ];
    let commands: Vec<String> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ExecReload="))
        .map(|line| words.iter().fold(line.to_owned(), |line, (word, meant)| line.replace(word, meant)))
        .collect();
    // systemd runs one after the other, up to the first that fails.
    let reload = || host.run("sh", &["-c", &commands.join(" && ")]);
    host.write("white.list", 0o644, "127.0.0.1\n::1\nlaptop\n");
    let said = reload();
    assert!(said.status != Some(0) && said.err.contains("white.list:3: \"laptop\""), "{said:#?}");
    host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.1\n");
    reload().ok();
    until(SOON, "the white list is read again", || rfw.log().contains("has been read again"));
    assert!(!rfw.log().contains("laptop"), "{}", rfw.log());
}

/// The rest of a line that the disk had no room for came later, within other lines.
#[test]
fn a_disk_that_was_full_leaves_no_half_line_in_the_log() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft");
    let sh = |script: &str| host.run("sh", &["-c", script]);
    // A name from the root: the folder of a command is that of the machine.
    let small = host.dir.join("small").display().to_string();
    sh(&format!("mkdir {small} && mount -t tmpfs -o size=64k tmpfs {small}")).ok();
    let file = format!("{small}/rfw.log");
    let log = || host.run("cat", &[&file]).out;
    let arguments = ["-f", "rfw.conf", "--logfile", &file, "--loglevel", "DEBUG"];
    let _running = host.talk(env!("CARGO_BIN_EXE_rfw"), &arguments);
    until(SOON, "rfw is ready", || log().contains("is ready"));
    sh(&format!("head -c 64K /dev/zero >{small}/rest")).fails_with(1);
    (0..40).for_each(|n| drop(rfw.ok("PUT", &format!("/drop/input/any/1.2.3.{n}"))));
    let full = log();
    assert!(full.contains("1.2.3.0") && !full.contains("1.2.3.39"), "{full}");
    sh(&format!("rm {small}/rest")).ok();
    (0..3).for_each(|n| drop(rfw.ok("PUT", &format!("/drop/input/any/1.2.4.{n}"))));
    let all = log();
    for line in all.lines() {
        let (time, rest) = line.split_once(' ').unwrap_or_default();
        let levels = ["[DEBUG] ", "[INFO] ", "[WARN] ", "[ERROR] "];
        let levels: usize = levels.iter().map(|level| rest.matches(level).count()).sum();
        let whole = OffsetDateTime::parse(time, &Rfc3339).is_ok() && rest.starts_with('[') && levels == 1;
        assert!(whole, "{line:?} in\n{all}");
    }
    assert!(full.is_empty() || full.ends_with('\n'), "{full}");
    assert!(
        (0..3).all(|n| all.contains(&format!(
            " op=insert list=- target=drop chain=input interface=any address=1.2.4.{n} "
        ))),
        "{all}"
    );
}

/// They stayed in memory that had been given back, for a core dump or the swap to keep.
#[test]
fn neither_logins_nor_the_text_of_the_configuration_stay_in_memory() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").configure("local.server.authentication").start();
    let mut kept = host.connect(7390);
    for (login, status) in [("bWU6c2VjcmV0", 200), ("bWU6T3BlblNlc2FtZQ==", 401)] {
        kept.say(
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\n\r\n").as_bytes(),
        );
        assert_eq!(kept.reply().status, status);
    }
    let memory = String::from_utf8_lossy(&memory(rfw.pid())).into_owned();
    // What the server needs is there: this is its memory.
    assert!(memory.contains("white.list"));
    for secret in ["bWU6c2VjcmV0", "bWU6T3BlblNlc2FtZQ", "OpenSesame", "auth.password = secret"] {
        assert!(!memory.contains(secret), "{secret:?}");
    }
}

/// All that a process may write in its memory.
fn memory(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut part = vec![0; usize::try_from(end - start).unwrap()];
        if file.read_exact_at(&mut part, start).is_ok() {
            memory.extend(part);
        }
    }
    memory
}

/// `curl -d @list` sends the lines without their ends, which was told as an error of the first line.
#[test]
fn a_list_whose_lines_curl_has_glued_is_told_of_data_binary() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let send = |how: &str, list: &str| {
        host.write("feed", 0o644, list);
        let url = "https://127.0.0.1:7393/drop/input/any";
        rfw.curl(&["-u", "me:secret", "-X", "PUT", how, "@feed", url])
    };
    let long = addresses(3000);
    for list in ["1.2.3.4\n5.6.7.8\n", "# a feed\n1.2.3.4\n", "1.2.3.4\r\n5.6.7.0/24\r\n", &long] {
        let reply = send("-d", list);
        assert!(reply.status == 400 && reply.body.contains("--data-binary"), "{list:.80}: {reply:?}");
    }
    for list in ["1.2.3.4\n5.6.7\n", "# a feed\n", "1.2.3.4\nx"] {
        let reply = send("--data-binary", list);
        assert!(reply.status == 400 && !reply.body.contains("--data-binary"), "{list:?}: {reply:?}");
    }
    assert_eq!(send("-d", "1.2.3.4\n").json()["inserted"], 1);
    assert_eq!(send("--data-binary", "5.6.7.8\n1.2.3.5").json()["inserted"], 2);
}

/// A change that had been planned anew, since others had changed the table, was not tried once more.
#[test]
fn a_program_that_is_killed_in_the_middle_of_a_change_costs_one_retry_and_no_error() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let (path, _) = host.fake_programs(iptables);
        let rfw = host.rfw(&path).start();
        let target = "/drop/input/any/1.2.3.4";
        for others_change in [false, true] {
            for number in 1..=4 {
                rfw.ok("PUT", target);
                if others_change {
                    host.run(iptables, &["-w", "-F", "INPUT"]).ok();
                }
                host.fail_at(Fault::Dies, number);
                let reply = rfw.request("PUT", &format!("{target}?expire=2h"));
                host.heal();
                // A reading that breaks off is told.
                let is_of_reading = reply.body.contains("-save -c");
                assert!(reply.status == 200 || is_of_reading, "{others_change} {number}: {reply:?}");
                assert!(reply.status != 200 || host.kept(iptables).len() == 1, "{:?}", host.kept(iptables));
            }
        }
    });
}

/// Its guard stays while rfw is stopped, and cut off a connection of the host that got rfw's port.
#[test]
fn a_port_that_the_kernel_may_give_to_connections_is_told() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-nft");
    let ports = |name: &str, ports: &str| {
        host.run("sh", &["-c", &format!("echo '{ports}' >/proc/sys/net/ipv4/ip_local_{name}")]).ok();
    };
    let told = "may give the port 7393 to a connection";
    ports("port_range", "7390 7400");
    let check = |rfw: &Rfw<'_>| rfw.call(&["--check"]).err;
    assert!(check(&rfw).contains(told));
    rfw.spawn();
    assert!(rfw.log().contains(told), "{}", rfw.log());
    rfw.stop();
    ports("reserved_ports", "22,7391-7393");
    rfw.spawn();
    assert!(!rfw.log().contains(told), "{}", rfw.log());
    rfw.stop();
    ports("reserved_ports", "");
    ports("port_range", "7394 7400");
    assert!(!check(&rfw).contains("port"));
}

/// A kept connection was closed for another client though its next request had come.
#[test]
fn a_request_that_is_there_when_another_client_comes_is_answered() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let mut first = host.connect(7390);
    first.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(first.reply().body, "[]\n");
    // Both come while rfw can't look.
    rfw.signal("STOP");
    first.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut second = host.connect(7390);
    second.say(b"PUT /drop/input/any/1.2.3.5 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    rfw.signal("CONT");
    assert_eq!(second.reply().json()["result"], "inserted");
    until(SOON, "the first is answered or closed", || first.is_over() || !first.heard().is_empty());
    assert_eq!(first.reply().json()["result"], "inserted");
    assert_eq!(host.rules("iptables-nft", "INPUT").len(), 2);
}

/// The time of a new connection began before the work that came between its arrival and
/// accept(2), so that it was closed at once where that took five seconds.
#[test]
fn a_client_who_connects_while_rfw_works_has_its_whole_time() {
    let host = Host::new();
    let rfw = host.rfw("iptables-legacy").start();
    let mut first = host.connect(7390);
    first.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(first.reply().status, 200);
    let lock = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; exec cat"]);
    until(SOON, "the lock is held", || lock.heard() == "held\n");
    // Both come while rfw can't look, so that one poll(2) finds them.
    rfw.signal("STOP");
    first.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut second = host.connect(7390);
    second.say(b"GET / HTTP/1.1\r\nHost: local");
    rfw.signal("CONT");
    assert_eq!(first.reply().status, 503);
    second.say(b"host\r\n\r\n");
    assert_eq!(second.reply().status, 200, "{}", rfw.log());
}

/// Bytes that a client sent behind its last request, as a close_notify is, were left unread, so
/// that the end was a RST, which took along what the client had not yet read of the answer.
#[test]
fn a_long_answer_is_whole_though_the_client_has_said_more() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("ipset").start();
    // More than the buffers of two sockets hold.
    let list: String = (0..60_000).map(|n| format!("11.1.{}.{}\n", n >> 8, n & 255)).collect();
    assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &list)["inserted"], 60_000);
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390
        printf 'GET /list HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
        dd bs=1 count=12 status=none <&3 && printf '\\r\\n' >&3 && cat <&3 >long
        tail -c 10 long";
    let said = host.run("bash", &["-c", script]);
    assert!(said.err.is_empty() && said.out.ends_with("\n]\n\r\n0\r\n\r\n"), "{said:?}");
}

/// While rfw worked, 128 connections filled the queue of the kernel: who came then had to wait a
/// second, until TCP tried again.
#[test]
fn a_storm_of_connections_does_not_fill_the_queue_while_rfw_works() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    rfw.signal("STOP");
    let script = "for n in {1..500}; do exec {socket}<>/dev/tcp/127.0.0.1/7393; done";
    host.run("timeout", &["5", "bash", "-c", script]).ok();
    rfw.signal("CONT");
    rfw.ok("GET", "/");
}

/// Whoever shared the address of a client drove out its connections by silent ones, without a
/// password.
#[test]
fn a_stranger_at_the_same_address_does_not_drive_out_who_has_logged_in() {
    let host = Host::new();
    let _rfw = host.rfw("iptables").configure("local.server.authentication").start();
    let login = "Host: localhost\r\nAuthorization: Basic bWU6c2VjcmV0\r\n";
    let get = format!("GET / HTTP/1.1\r\n{login}\r\n");
    let (mut kept, mut sends) = (host.connect(7390), host.connect(7390));
    kept.say(get.as_bytes());
    assert_eq!(kept.reply().status, 200);
    let put =
        format!("PUT /drop/input/any HTTP/1.1\r\n{login}Expect: 100-continue\r\nContent-Length: 8\r\n\r\n");
    sends.say(put.as_bytes());
    until(SOON, "the list may come", || sends.heard().contains("100 Continue"));
    sends.forget_all();
    let script = "for n in {1..40}; do exec {socket}<>/dev/tcp/127.0.0.1/7390; done; echo open; exec cat";
    let strangers = host.talk("bash", &["-c", script]);
    until(SOON, "all have come", || strangers.heard().contains("open"));
    sends.say(b"1.2.3.4\n");
    assert_eq!(sends.reply().status, 200);
    kept.say(get.as_bytes());
    assert_eq!(kept.reply().status, 200);
}

/// A client that sent request after request had the server for itself.
#[test]
fn a_client_that_never_pauses_keeps_nobody_out() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let flood = flood(&host);
    let start = Instant::now();
    rfw.ok("GET", "/");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // It may stay: nobody has to make room.
    assert!(!flood.is_over());
}

/// It kept signals unseen, too.
#[test]
fn a_client_that_never_pauses_does_not_keep_rfw_from_ending() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables-nft").start();
    let _flood = flood(&host);
    rfw.stop();
}

/// A client that sends request after request without a pause, and reads. The length
/// of a request is odd and they come in blocks of a length that is even (`tr` sees to
/// that): rarely does what rfw has received end with a request.
fn flood(host: &Host) -> Talk {
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390
        (head -c 100 && exec cat >/dev/null) <&3 &
        yes \"$(printf 'GET /list HTTP/1.1\\r\\nHost: localhost\\r\\n\\r')\" | tr _ _ >&3";
    let flood = host.talk("bash", &["-c", script]);
    until(SOON, "the flood is answered", || flood.heard().contains("200 OK"));
    flood
}

/// The connection was closed on a client that was still sending: it saw a reset and not
/// the reason.
#[test]
fn a_large_body_that_is_refused_does_not_take_the_answer_with_it() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let body = "x".repeat(600_000);
    host.write("body", 0o644, &body);
    let url = "https://127.0.0.1:7393/drop/input/any/9.9.9.9";
    for framing in ["Expect:", "Transfer-Encoding: chunked"] {
        let arguments = ["-u", "me:secret", "-X", "PUT", "-H", "Expect:", "-H", framing, "-T", "body", url];
        let reply = rfw.curl(&arguments);
        assert!([400, 413].contains(&reply.status), "{framing}: {reply:#?}");
        assert!(reply.json()["error"].is_string(), "{reply:#?}");
    }
    assert_eq!(host.rules("iptables-nft", "INPUT"), Vec::<String>::new());
}

/// curl --http1.0 names http/1.0 alone in its handshake, and was turned away.
#[test]
fn a_client_that_offers_http_1_0_alone_is_served() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let reply = rfw.curl(&["--http1.0", "-u", "me:secret", "https://127.0.0.1:7393/list"]);
    assert_eq!((reply.status, reply.body.as_str()), (200, "[]\n"), "{reply:#?}");
}

/// A browser sends a POST without a body wherever a page wants it to, with a login that
/// it remembers.
#[test]
fn a_web_page_can_have_nothing_changed() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("non.restful").start();
    let golden = [
        ("PUT", "/drop/input/any/1.2.3.4", "Origin: https://example.org"),
        ("POST", "/drop/input/any/1.2.3.4", "Origin: null"),
        ("GET", "/drop/input/any/1.2.3.4?modify=insert", "Sec-Fetch-Site: cross-site"),
        ("GET", "/drop/input/any?list=tor&modify=delete", "Sec-Fetch-Site: cross-site"),
        ("DELETE", "/list?list=*", "Origin: https://example.org"),
        ("DELETE", "/list?address=1.2.3.4", "Origin: https://example.org"),
    ];
    for (method, path, header) in golden {
        let url = format!("http://127.0.0.1:7390{path}");
        let reply = rfw.curl(&["-X", method, "-H", header, &url]);
        assert_eq!(reply.status, 400, "{reply:#?}");
        assert!(reply.body.contains("a web page may not change rules"), "{reply:#?}");
        assert_eq!(host.rules("iptables", "INPUT"), Vec::<String>::new(), "{method} {header}");
    }
    let typed = rfw.curl(&[
        "-H",
        "Sec-Fetch-Site: none",
        "http://127.0.0.1:7390/drop/input/any/1.2.3.4?modify=insert",
    ]);
    assert_eq!((typed.status, host.rules("iptables", "INPUT").len()), (200, 1), "{typed:#?}");
}

/// It was called a key that does not fit.
#[test]
fn a_certificate_without_extensions_is_refused_as_the_certificate_it_is() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft");
    let script = "openssl req -new -key server.key -subj /CN=127.0.0.1 -out old.csr && \
        openssl x509 -req -in old.csr -signkey server.key -days 90 -out server.crt";
    host.run("sh", &["-c", script]).ok();
    let err = rfw.call(&[]).fails_with(78);
    let start = format!("rfw: rfw.conf:4: outward.server.certfile: {}/server.crt: ", host.dir.display());
    assert!(err.starts_with(&start) && err.ends_with(": make a new one with rfwgen\n"), "{err}");
}

/// ipset prints whole seconds, rounded down: each list took up to one from every other
/// entry of its set.
#[test]
fn other_lists_do_not_eat_the_time_of_an_entry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        let start = Instant::now();
        rfw.ok("PUT", "/drop/input/any/9.9.9.9?expire=600");
        for number in 0..15 {
            rfw.send_ok("PUT", "/drop/input/any", &format!("1.2.3.{number}\n1.2.4.{number}\n"));
            rfw.send_ok("DELETE", "/drop/input/any", &format!("1.2.3.{number}\n"));
        }
        let entry = host.entries().into_iter().find(|entry| entry.element == "9.9.9.9").unwrap();
        let passed = start.elapsed().as_secs();
        assert!(600 - entry.timeout <= passed + 2, "{iptables}: {} s left after {passed} s", entry.timeout);
    });
}

/// ipset prints `::102:304` as `::1.2.3.4`, which was taken for another entry.
#[test]
fn a_permanent_entry_that_ipset_writes_with_dots_is_known_again() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        for result in ["inserted", "unchanged"] {
            assert_eq!(rfw.ok("PUT", "/drop/input/any/::102:304?expire=0")["result"], result, "{iptables}");
        }
    });
}

/// The set was to be made anew with less room than what was left of it needed: 507.
#[test]
fn a_delete_from_a_set_that_holds_more_than_is_allowed_now_works() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 20").start();
        let list = |count: usize| (0..count).map(|n| format!("10.1.0.{n}\n")).collect::<String>();
        assert_eq!(rfw.send_ok("PUT", "/drop/input/eth0", &list(13))["inserted"], 13);
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset.maxelem = 20", "ipset.maxelem = 5");
        rfw.spawn();
        assert_eq!(rfw.send("PUT", "/drop/input/eth0", "9.9.9.9\n").status, 507);
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/eth0", &list(2))["deleted"], 2);
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/eth0", &list(60))["deleted"], 11);
        assert_eq!(rfw.send_ok("PUT", "/drop/input/eth0", &list(5))["inserted"], 5);
    });
}

/// A set that is in use cannot be destroyed, which was taken for a failure.
#[test]
fn a_rule_of_an_admin_that_uses_a_set_of_rfw_stops_neither_a_start_nor_a_flush() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        host.admin(iptables, "-A FORWARD -m set --match-set rfw4-ids src -j DROP");
        rfw.ok("DELETE", "/drop/input/any/1.2.3.4");
        rfw.stop();
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        let list = rfw.ok("GET", "/list");
        assert!(list.as_array().unwrap().len() == 1 && list[0]["source"] == "1.2.3.4", "{list}");
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.kept(iptables), Vec::<String>::new());
        // The other rule keeps its set, without what rfw has put into it.
        assert_eq!((host.entries(), host.sets()), (vec![], vec!["rfw4-ids".to_owned()]));
        assert_eq!(host.rules(iptables, "FORWARD").len(), 1);
    });
}

/// Rules came into the kernel in the order in which they stood, a block before its
/// exception.
#[test]
fn a_switch_puts_every_exception_before_every_block() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        // As rules the last is in front.
        let accepts = ["/accept/forward/any/1.2.3.4/any/5.6.7.8", "/accept/forward/any/1.2.3.9"];
        let blocks = [
            "/drop/forward/any/1.2.3.4/any/5.6.7.0/24",
            "/reject/forward/any/1.2.3.0/24",
            "/drop/forward/eth0/1.2.3.0/24",
        ];
        for path in accepts.iter().chain(&blocks) {
            rfw.ok("PUT", path);
        }
        let is_ordered = |what: &str| {
            let rules = host.rules(iptables, "FORWARD");
            let first_block = rules.iter().position(|rule| !rule.ends_with("-j ACCEPT")).unwrap();
            assert!(
                rules[first_block..].iter().all(|rule| !rule.ends_with("-j ACCEPT")),
                "{iptables}: {what}: {rules:#?}"
            );
        };
        rfw.stop();
        rfw = rfw.configure("ipset");
        rfw.spawn();
        is_ordered("on");
        for path in blocks.iter().chain(&accepts) {
            assert_eq!(rfw.ok("PUT", path)["result"], "refreshed", "{path}");
        }
        is_ordered("renewed");
        rfw.stop();
        rfw = rfw.reconfigure("\nipset\n", "\n");
        rfw.spawn();
        is_ordered("off");
    });
}

/// Its new place was counted before its old copy was gone: one too far, or beyond the
/// end of the chain, which failed.
#[test]
fn a_block_is_renewed_behind_an_exception_that_an_admin_moved() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        let block = "/drop/forward/any/1.2.3.0/24/any/5.6.7.8";
        rfw.ok("PUT", block);
        host.admin(
            iptables,
            "-A FORWARD -s 1.2.3.4 -d 5.6.7.8 -m comment --comment 'rfw permanent' -j ACCEPT",
        );
        let ends = || {
            host.rules(iptables, "FORWARD")
                .iter()
                .map(|rule| rule[rule.len() - 4..].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(), ["DROP", "CEPT"]);
        assert_eq!(rfw.ok("PUT", block)["result"], "refreshed");
        assert_eq!(ends(), ["CEPT", "DROP"]);
    });
}

/// As many addresses, one a line.
fn addresses(count: usize) -> String {
    (0..count).map(|n| format!("1.0.0.{n}\n")).collect()
}

#[test]
fn what_a_flushed_set_holds_does_not_escape_a_new_white_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.send_ok("PUT", "/drop/input/any", "10.9.8.7\n10.9.8.8\n");
        rfw.ok("PUT", "/drop/output/any/10.9.8.7");
        host.admin(iptables, "-F");
        host.write("white.list", 0o644, "127.0.0.1\n::1\n10.9.8.7\n");
        rfw.signal("HUP");
        until(SOON, "it is read", || rfw.log().contains("has been read again"));
        rfw.ok("PUT", "/drop/input/any/1.1.1.1");
        rfw.ok("PUT", "/drop/output/any/1.1.1.1");
        let held: Vec<String> = host.entries().into_iter().map(|entry| entry.element).collect();
        assert!(held.len() == 3 && !held.contains(&"10.9.8.7".to_owned()), "{held:?}");
    });
}

#[test]
fn a_set_that_others_have_swapped_in_is_neither_filled_nor_destroyed() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/10.9.8.7");
        for line in [
            "create mine hash:net timeout 0 counters skbinfo",
            "add mine 5.5.5.5",
            "swap mine rfw4-ids",
            "destroy mine",
        ] {
            host.run("ipset", &line.split(' ').collect::<Vec<_>>()).ok();
        }
        let single = "/drop/input/any/5.5.5.5";
        for (method, path, list) in [
            ("PUT", "/drop/input/any", addresses(60)),
            ("DELETE", "/drop/input/any", "5.5.5.5\n".to_owned()),
            ("PUT", single, String::new()),
            ("DELETE", single, String::new()),
        ] {
            let reply = match list.is_empty() {
                true => rfw.request(method, path),
                false => rfw.send(method, path, &list),
            };
            assert!(reply.status == 500 && reply.body.contains("rfw has not made"), "{method}: {reply:?}");
        }
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset\n", "");
        rfw.spawn();
        let held: Vec<String> = host.entries().into_iter().map(|entry| entry.element).collect();
        assert_eq!(held, ["5.5.5.5"]);
        assert_eq!(host.kept(iptables), Vec::<String>::new());
    });
}

#[test]
fn addresses_that_are_rules_and_entries_after_a_kill_are_counted_once() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("rules.max = 100\nipset").start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses(60));
        rfw.stop();
        let mut rfw = rfw.reconfigure("\nipset\n", "\n");
        // As a start leaves it that is killed between its two steps.
        let rule = "-m comment --comment \"rfw until 2099-01-01T00:00:00Z\" -j DROP\n";
        let rules: String = (0..60).map(|n| format!("-A INPUT -s 1.0.0.{n}/32 {rule}")).collect();
        let script = format!("*filter\n{rules}COMMIT\n");
        host.feed(&format!("{iptables}-restore"), &["--noflush"], script.as_bytes()).ok();
        rfw.spawn();
        assert_eq!((host.kept(iptables).len(), host.sets()), (60, vec![]));
    });
}

#[test]
fn rules_that_others_have_deleted_take_no_room() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("rules.max = 3").start();
        // One alone is somebody's decision, and does not come back.
        for _ in 0..3 {
            rfw.send_ok("PUT", "/drop/input/any", &addresses(3));
            host.admin(iptables, "-D INPUT 1");
        }
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.9.9.9")["result"], "inserted");
        // Copies that others have made are no addresses of their own.
        for _ in 0..2 {
            host.admin(iptables, "-A INPUT -s 9.9.9.9 -m comment --comment 'rfw permanent' -j DROP");
        }
        assert_eq!(rfw.send("PUT", "/drop/input/any", "9.9.9.9\n1.0.0.1\n1.0.0.2\n1.0.0.3\n").status, 507);
    });
}

#[test]
fn waiting_for_the_lock_makes_no_entry_end_late() {
    let host = Host::new();
    let rfw = host.rfw("iptables-legacy").configure("ipset").start();
    rfw.ok("PUT", "/drop/input/any/1.0.0.1");
    let holder = host.talk("flock", &["/run/xtables.lock", "sh", "-c", "echo held; sleep 3.5"]);
    until(SOON, "the lock is held", || holder.heard().contains("held"));
    let told = rfw.ok("PUT", "/drop/input/any/1.0.0.2?expire=100");
    let told: SystemTime = OffsetDateTime::parse(told["expires"].as_str().unwrap(), &Rfc3339).unwrap().into();
    let entries = host.entries();
    let left = entries.iter().find(|entry| entry.element == "1.0.0.2").unwrap().timeout;
    let end = SystemTime::now() + Duration::from_secs(left);
    assert!(end <= told + Duration::from_secs(2), "{end:?} {told:?}");
}

#[test]
fn those_who_ask_for_the_mark_of_an_instance_do_not_wear_it_out() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    // AF_UNIX and SOCK_STREAM are 1; O_NONBLOCK is 2048.
    let ask = r#"use Fcntl; for (1..6000) { socket(my $s, 1, 1, 0); fcntl($s, F_SETFL, 2048); connect($s, pack("S a*", 1, "\0rfw")) }"#;
    host.run("perl", &["-e", ask]).ok();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    let error = rfw.call(&["--flush"]).fails_with(1);
    assert!(error.contains("another rfw is running"), "{error}");
    assert_eq!(host.kept("iptables-nft").len(), 1);
}

#[test]
fn quotes_in_names_of_interfaces_hide_no_rules() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for name in ["a\"b", "c\"d"] {
            host.run(iptables, &["-w", "-A", "INPUT", "-i", name, "-j", "ACCEPT"]).ok();
            host.admin(iptables, "-A INPUT -s 1.0.0.1 -m comment --comment 'rfw permanent' -j DROP");
        }
        let list = rfw.ok("GET", "/list");
        assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    });
}

#[test]
fn a_set_that_keeps_a_smaller_room_refuses_a_list_before_anything_is_changed() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 4").start();
        rfw.ok("PUT", "/drop/input/any/10.9.8.7");
        // What others put there keeps the set from being built anew.
        host.run("ipset", &["add", "rfw4-ids", "9.9.9.0/24", "nomatch"]).ok();
        rfw.stop();
        let mut rfw = rfw.reconfigure("ipset.maxelem = 4", "");
        rfw.spawn();
        let before = host.entries();
        let reply = rfw.send("PUT", "/drop/input/any", &addresses(3));
        assert!(reply.status == 507 && reply.body.contains("at most 4 entries"), "{reply:?}");
        assert_eq!(host.entries().len(), before.len());
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &addresses(2))["inserted"], 2);
    });
}

#[test]
fn nothing_is_removed_from_a_set_that_others_swap_in_before_it_is_read() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\n::1\n9.9.9.9\n").configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        // That is noticed, and the set is to be read anew.
        host.run("ipset", &["add", "rfw4-ids", "1.2.3.5"]).ok();
        rfw.ok("PUT", "/drop/input/any/1.2.3.5");
        host.run("ipset", &["create", "mine", "hash:net", "timeout", "0", "comment"]).ok();
        host.run("ipset", &["add", "mine", "9.9.9.9", "comment", "mine"]).ok();
        host.run("ipset", &["swap", "mine", "rfw4-ids"]).ok();
        let looks = || rfw.log().matches("the configuration has been read again").count();
        for count in 1..=2 {
            rfw.signal("HUP");
            until(Duration::from_secs(40), "the set is looked at", || looks() == count);
        }
        let set = host.run("ipset", &["list", "rfw4-ids"]).ok();
        assert!(set.contains("9.9.9.9 timeout 0 comment \"mine\""), "{set}");
    });
}

#[test]
fn a_list_that_has_no_room_beside_what_others_have_added_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 6000").start();
        let hosts = |net: &str, count: usize| -> Vec<String> {
            (0..count).map(|n| format!("{net}.{}.{}\n", n / 250, n % 250)).collect()
        };
        for (interface, set, many) in [("any", "rfw4-ids", 3), ("eth0", "rfw4-ids-eth0", 4_600)] {
            let path = format!("/drop/input/{interface}");
            rfw.send_ok("PUT", &path, &hosts("1.0", many).concat());
            let others = hosts("2.0", 5_999 - many).into_iter().map(|host| format!("add {set} {host}"));
            host.feed("ipset", &["restore"], others.collect::<String>().as_bytes()).ok();
            let before = host.entries().len();
            let reply = rfw.send("PUT", &path, &hosts("3.0", 2).concat());
            assert!(reply.status == 507 && reply.body.contains("at most 6000 entries"), "{reply:?}");
            assert_eq!(host.entries().len(), before);
        }
    });
}

/// It was missed each minute, with two lines in the log.
#[test]
fn a_set_that_others_destroy_is_not_missed_in_the_registry_for_ever() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/drop/input/eth0/1.2.3.4");
        destroy_set(&host, iptables, "INPUT", "rfw4-ids");
        (0..2).for_each(|_| rfw.reload());
        assert!(!rfw.log().contains("the registry of sets"), "{}", rfw.log());
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let members = host.registry().unwrap();
        assert_eq!(members.len(), 3, "{members:?}");
    });
}

#[test]
fn a_list_of_others_in_the_place_of_the_registry_gets_no_members() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        let words =
            ["destroy rfw", "create mine hash:ip", "create rfw list:set comment", "add rfw mine comment x"];
        for words in words {
            host.run("ipset", &words.split(' ').collect::<Vec<_>>()).ok();
        }
        rfw.ok("PUT", "/drop/input/eth0/1.2.3.4");
        assert_eq!(host.registry().unwrap(), ["mine comment \"x\""]);
    });
}

#[test]
fn the_registry_is_made_once_a_set_in_its_place_is_gone() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.run("ipset", &["create", "rfw", "hash:ip"]).ok();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        host.run("ipset", &["destroy", "rfw"]).ok();
        rfw.signal("HUP");
        until(SOON, "the registry is made", || host.registry().is_some_and(|members| members.len() == 2));
        assert_eq!(rfw.ok("PUT", "/drop/input/eth0/1.2.3.4")["result"], "inserted");
        assert_eq!(host.registry().unwrap().len(), 3);
    });
}

/// A rule or a list of others that refers to the registry, or to its nonce, kept rfw from starting
/// once it had no sets.
#[test]
fn a_registry_that_others_use_keeps_rfw_from_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        for line in ["-A FORWARD -m set --match-set rfw src -j DROP", "-F FORWARD"] {
            rfw.ok("PUT", "/drop/input/any/1.2.3.4");
            host.admin(iptables, line);
            let names = host.run("ipset", &["list", "-n"]).ok();
            let nonce = names.lines().find(|name| name.starts_with("rfw-nonce-")).unwrap();
            host.run("ipset", &["-exist", "create", "others", "list:set"]).ok();
            host.run("ipset", &["-exist", "add", "others", nonce]).ok();
            rfw.ok("DELETE", "/drop/input/any/1.2.3.4");
            rfw.stop();
            rfw.spawn();
        }
        rfw.stop();
        host.run("ipset", &["destroy", "others"]).ok();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "");
    });
}

/// The emptied list and its nonce stayed, another nonce with each start; and what is a member of a
/// registry without its nonce could not be destroyed.
#[test]
fn a_flush_leaves_nothing_of_a_registry_that_others_have_spoilt() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        for words in [["flush", "rfw"], ["destroy", "rfw"], ["del", "rfw"]] {
            rfw.ok("PUT", "/drop/input/any/1.2.3.4");
            rfw.ok("PUT", "/drop/input/eth0/1.2.3.4");
            rfw.stop();
            let names = host.run("ipset", &["list", "-n"]).ok();
            let nonces: Vec<_> = names.lines().filter(|name| name.starts_with("rfw-nonce-")).collect();
            assert_eq!(nonces.len(), 1, "{nonces:?}");
            let words: Vec<&str> =
                if words[0] == "del" { [&words[..], &nonces].concat() } else { words.to_vec() };
            host.run("ipset", &words).ok();
            if words[0] != "del" {
                rfw.spawn();
            }
        }
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "");
        assert_eq!(host.kept(iptables), Vec::<String>::new());
    });
}

/// Somebody who looked at `ipset save | less` kept rfw from starting, where the room had changed.
#[test]
fn a_set_that_is_listed_by_others_keeps_its_room_at_the_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 90000").start();
        let list: String = (0..40_000).map(|n| format!("1.{}.{}.1\n", n / 250, n % 250)).collect();
        rfw.send_ok("PUT", "/drop/input/any", &list);
        rfw.stop();
        let script = "ipset save rfw4-ids | (read line; echo held; sleep 60)";
        let listing = host.talk("bash", &["-c", script]);
        until(SOON, "the set is listed", || listing.heard().contains("held"));
        let mut rfw = rfw.reconfigure("ipset.maxelem = 90000", "ipset.maxelem = 99000");
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        assert_eq!(host.sets(), ["rfw4-ids"]);
    });
}

/// The mirror did not know of it, since it had as many entries as the set.
#[test]
fn an_entry_that_others_have_put_in_the_place_of_another_does_not_escape_a_new_white_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset");
        rfw.spawn_with(&["--loglevel", "INFO"]);
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        host.run("ipset", &["del", "rfw4-ids", "1.2.3.4"]).ok();
        host.run("ipset", &["add", "rfw4-ids", "9.9.9.9"]).ok();
        let rfw = rfw.white_list("127.0.0.1\n::1\n9.9.9.9\n");
        rfw.signal("HUP");
        until(SOON, "the entry is gone", || host.entries().is_empty());
    });
}

/// Each PUT that found the set full had it read anew ten seconds later, and the next one yet later.
#[test]
fn a_set_that_is_full_is_not_read_anew_for_each_entry_that_it_refuses() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 3").start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses(3));
        assert_eq!(rfw.request("PUT", "/drop/input/any/1.2.3.4").status, 507);
        rfw.signal("HUP");
        let compared = || rfw.log().contains("rfw4-ids: 3 entries in the kernel, 0 of them not so");
        until(SOON, "the mirror is there still", compared);
    });
}

#[test]
fn a_set_that_others_have_made_anew_is_read_once_it_has_its_rule_again() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
        host.run(iptables, &["-w", "-F", "INPUT"]).ok();
        for words in ["del rfw rfw4-ids", "destroy rfw4-ids", "create rfw4-ids hash:net timeout 0 counters"] {
            host.run("ipset", &words.split(' ').collect::<Vec<_>>()).ok();
        }
        host.run("ipset", &["add", "rfw4-ids", "1.2.3.5"]).ok();
        rfw.ok("PUT", "/drop/input/any/1.2.3.6?expire=0");
        until(SOON, "it is read", || rfw.log().contains("rfw4-ids: 2 entries are known"));
    });
}

#[test]
fn a_set_whose_entries_have_become_rules_is_not_said_to_be_left() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("rules.max = 100\nipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.stop();
        let mut rfw = rfw.reconfigure("\nipset\n", "\n");
        rfw.spawn();
        assert_eq!(host.sets(), Vec::<String>::new());
        assert!(!rfw.log().contains("WARN"), "{}", rfw.log());
    });
}

#[test]
fn a_set_that_others_swap_in_is_not_changed_be_it_before_a_start_or_after_another_change() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        for restart in [true, false] {
            rfw.ok("PUT", "/drop/input/any/1.2.3.4");
            if restart {
                rfw.stop();
            } else {
                until(SOON, "its mirror is full", || rfw.log().contains("entries are known"));
                host.run("ipset", &["add", "rfw4-ids", "1.2.3.5"]).ok();
                rfw.ok("PUT", "/drop/input/any/1.2.3.5");
            }
            host.run("ipset", &["create", "mine", "hash:net", "timeout", "0"]).ok();
            host.run("ipset", &["add", "mine", "9.9.9.9"]).ok();
            host.run("ipset", &["swap", "mine", "rfw4-ids"]).ok();
            if restart {
                rfw.spawn();
            }
            for (method, address) in [("PUT", "1.2.3.6"), ("DELETE", "9.9.9.9")] {
                let error = rfw.refused(method, &format!("/drop/input/any/{address}"), 500);
                assert!(error.contains("that rfw has not made"), "{error}");
            }
            assert_eq!(rfw.send("PUT", "/drop/input/any", "1.2.3.6\n").status, 500);
            let set = host.run("ipset", &["save", "rfw4-ids"]).ok();
            assert!(set.ends_with("add rfw4-ids 9.9.9.9 timeout 0\n") && set.lines().count() == 2, "{set}");
            host.run("ipset", &["swap", "mine", "rfw4-ids"]).ok();
            host.run("ipset", &["destroy", "mine"]).ok();
        }
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "refreshed");
    });
}

/// They could not destroy it, since it was a member of the registry, even after a flush.
#[test]
fn a_set_of_others_in_the_place_of_a_member_is_let_go() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/drop/input/eth0/1.2.3.4");
        host.run(iptables, &["-w", "-F", "INPUT"]).ok();
        for words in ["del rfw rfw4-ids", "destroy rfw4-ids", "create rfw4-ids hash:ip,port"] {
            host.run("ipset", &words.split(' ').collect::<Vec<_>>()).ok();
        }
        // This one takes the other's place as a member, too.
        host.run("ipset", &["create", "rfw4-mine", "hash:net"]).ok();
        host.run("ipset", &["swap", "rfw4-mine", "rfw4-ids-eth0"]).ok();
        rfw.signal("HUP");
        until(SOON, "the white list is read again", || {
            rfw.log().contains("the configuration has been read again")
        });
        assert_eq!(host.registry().unwrap().len(), 2, "{:?}", host.registry());
        host.run("ipset", &["destroy", "rfw4-ids"]).ok();
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        host.run("ipset", &["destroy", "rfw4-ids-eth0"]).ok();
        assert_eq!(host.sets(), ["rfw4-mine"]);
        assert_eq!(host.registry(), None);
    });
}

#[test]
fn an_empty_list_of_others_in_the_place_of_the_registry_stays_empty() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.run("ipset", &["create", "rfw", "list:set", "comment", "timeout", "5"]).ok();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        assert_eq!(host.registry().unwrap(), Vec::<String>::new());
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.run("ipset", &["list", "-n"]).ok(), "rfw\n");
    });
}

/// Each request put the look off that rfw takes at the tables each minute: for a client that asked
/// once a minute or more often it was never taken.
#[test]
fn who_keeps_asking_does_not_keep_rfw_from_looking_at_the_tables() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        // What is due by then is done.
        std::thread::sleep(Duration::from_secs(2));
        host.run(iptables, &["-w", "-F", "INPUT"]).ok();
        until(Duration::from_secs(90), "the rules are back", || {
            rfw.ok("GET", "/list/output");
            !host.guards(iptables).is_empty() && !host.kept(iptables).is_empty()
        });
    });
}

#[test]
fn more_rules_than_a_set_may_hold_end_a_start_before_anything_is_changed() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses(60));
        rfw.stop();
        let before = host.everything(iptables);
        let mut rfw = rfw.configure("ipset\nipset.maxelem = 50");
        let status = rfw.try_spawn().unwrap_err();
        assert_eq!(status.code(), Some(78), "{}", rfw.log());
        assert!(
            rfw.log().contains("a set has at most 50 entries (ipset.maxelem in rfw.conf)"),
            "{}",
            rfw.log()
        );
        assert_eq!(host.everything(iptables), before);
    });
}

/// Rules that can't become entries, since they are due or end too late, were counted all the same: rfw
/// tried to make a set of them without end, with the firewall locked.
#[test]
fn rules_that_can_not_become_entries_do_not_keep_rfw_from_working() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        rfw.send_ok("PUT", "/drop/input/any?expire=4000d", &addresses(150));
        rfw.send_ok("PUT", "/drop/output/any?expire=2", &addresses(150));
        rfw.stop();
        std::thread::sleep(Duration::from_secs(3));
        let mut rfw = rfw.configure("ipset = auto");
        rfw.spawn();
        assert_eq!(rfw.ok("PUT", "/drop/input/any/9.9.9.9")["result"], "inserted");
        assert_eq!(host.sets(), Vec::<String>::new());
        until(SOON, "those that are due are gone", || host.kept(iptables).len() == 151);
    });
}

/// Where others had changed the set of a list, a replacement found its mirror wrong and took nothing
/// out, and a deletion of the list left what they had added.
#[test]
fn what_others_have_put_into_a_list_goes_with_the_rest() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        for (list, set) in [("list=tor&", "rfw4-ids/tor"), ("", "rfw4-odd")] {
            let chain = if list.is_empty() { "output" } else { "input" };
            let path = format!("/drop/{chain}/any?{list}replace=true");
            rfw.send_ok("PUT", &path, "1.2.3.1\n1.2.3.2\n1.2.3.3\n");
            host.run("ipset", &["add", set, "9.9.9.9", "timeout", "100"]).ok();
            assert_eq!(rfw.send_ok("PUT", &path, "1.2.3.1\n1.2.3.7\n")["removed"], 3);
            let rows = rfw.ok("GET", &format!("/list/{chain}"));
            assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
            // What rfw has taken out would go again.
            host.run("ipset", &["add", set, "9.9.9.8", "timeout", "100"]).ok();
            let all = if list.is_empty() { "list=-" } else { "list=tor" };
            assert_eq!(rfw.ok("DELETE", &format!("/list?{all}"))["deleted"], 3);
            assert_eq!(rfw.ok("GET", &format!("/list/{chain}")), serde_json::json!([]));
        }
    });
}

/// With a named list in the scope, an address that was there could not be renewed in a full set.
#[test]
fn an_address_of_a_full_set_is_renewed_in_each_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 5").start();
        rfw.send_ok("PUT", "/drop/input/any?list=tor", &addresses(5));
        for (query, result) in
            [("list=tor", "refreshed"), ("list=f2b", "inserted"), ("list=f2b", "refreshed")]
        {
            let answer = rfw.ok("PUT", &format!("/drop/input/any/1.0.0.1?{query}&expire=2h"));
            assert_eq!(answer["result"], result, "{query}");
        }
        let error = rfw.refused("PUT", "/drop/input/any/1.0.0.9?list=f2b", 507);
        assert!(error.contains("at most 5 entries"), "{error}");
    });
}

/// While the mirror of a list was missing, a body taken out of another list went out of the union,
/// though that list held it.
#[test]
fn what_goes_out_of_a_list_stays_blocked_by_one_that_others_have_changed() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        for list in ["a", "b"] {
            rfw.send_ok("PUT", &format!("/drop/input/any?list={list}"), &addresses(3));
        }
        host.run("ipset", &["add", "rfw4-ids/b", "9.9.9.9", "timeout", "100"]).ok();
        rfw.ok("PUT", "/drop/input/any/9.9.9.9?list=b");
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any?list=a", &addresses(2))["deleted"], 2);
        for number in 0..3 {
            host.run("ipset", &["test", "rfw4-ids", &format!("1.0.0.{number}")]).ok();
        }
    });
}

/// The first renewal came before it was known which entries need one, the next a day later.
#[test]
fn an_entry_that_ends_later_than_the_kernel_counts_is_renewed_soon_after_a_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=30d");
        rfw.stop();
        let set = host.run("ipset", &["save", "rfw4-ids"]).ok();
        let comment = set.split('"').nth(1).unwrap().to_owned();
        let entry = ["-exist", "add", "rfw4-ids", "1.2.3.4", "timeout", "1000", "comment", &comment];
        host.run("ipset", &entry).ok();
        rfw.spawn();
        until(SOON, "it is renewed", || {
            // The look at the sets that comes each minute comes with this too.
            rfw.signal("HUP");
            host.run("ipset", &["save", "rfw4-ids"]).ok().contains("timeout 21474")
        });
    });
}

/// A replacement did not know what it takes out while the list was not read, and took no room from that.
#[test]
fn a_full_list_that_others_have_touched_is_replaced() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset\nipset.maxelem = 200").start();
        let body = |net: u8| (0..200).map(|host| format!("11.{net}.0.{host}\n")).collect::<String>();
        rfw.send_ok("PUT", "/drop/input/any?replace=true", &body(1));
        for line in
            ["add rfw4-ids 9.9.9.9", "del rfw4-ids 11.1.0.7", "del rfw4-ids 11.1.0.8", "add rfw4-ids 9.9.9.9"]
        {
            host.run("ipset", &line.split(' ').collect::<Vec<_>>());
        }
        // The kernel contradicts what is remembered: it is forgotten.
        rfw.ok("PUT", "/drop/input/any/11.1.0.7");
        let answer = rfw.send_ok("PUT", "/drop/input/any?replace=true", &body(2));
        assert_eq!((&answer["inserted"], &answer["removed"]), (&200.into(), &200.into()), "{answer}");
        assert_eq!(host.entries().len(), 200);
    });
}

/// Destroys a set of rfw as an admin does, after the rules of its chain and its place in the registry. A set is
/// in use for a moment after its rule is gone, in which rfw may have put that back.
#[track_caller]
fn destroy_set(host: &Host, iptables: &str, chain: &str, set: &str) {
    until(SOON, "the set is destroyed", || {
        host.admin(iptables, &format!("-F {chain}"));
        host.run("ipset", &["del", "rfw", set]);
        host.run("ipset", &["destroy", set]).status == Some(0)
    });
}

/// A union that others had destroyed was made again with nothing but the next address, and stayed so.
#[test]
fn a_union_that_others_destroy_comes_back_with_what_its_lists_hold() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset").start();
        for asked in [true, false] {
            rfw.send_ok("PUT", "/drop/input/any?list=tor", &addresses(3));
            rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=tor");
            destroy_set(&host, iptables, "INPUT", "rfw4-ids");
            if asked {
                rfw.ok("PUT", "/drop/input/any/9.9.9.9?list=tor");
            } else {
                rfw.signal("HUP");
            }
            until(SOON, "all are blocked", || {
                (0..3).all(|n| {
                    host.run("ipset", &["test", "rfw4-ids", &format!("1.0.0.{n}")]).status == Some(0)
                })
            });
        }
    });
}

/// A start after others had emptied the registry took all for the unnamed list, and the scope took no
/// named list any more.
#[test]
fn lists_outlive_a_registry_that_others_empty_before_a_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        let words: [&[&str]; 2] = [&["flush", "rfw"], &["del", "rfw", "rfw4-ids/a"]];
        for words in words {
            rfw.send_ok("PUT", "/drop/input/any?list=a", &addresses(3));
            rfw.ok("PUT", "/drop/input/any/9.9.9.9");
            let sizes = |rfw: &Rfw<'_>| {
                let rows = rfw.ok("GET", "/lists");
                let rows = rows.as_array().unwrap().iter();
                rows.map(|row| format!("{} {}", row["list"], row["v4"])).collect::<Vec<String>>()
            };
            let before = sizes(&rfw);
            rfw.signal("KILL");
            rfw.end();
            host.run("ipset", words).ok();
            rfw.spawn();
            assert_eq!(sizes(&rfw), before);
            rfw.ok("PUT", "/drop/input/any/9.9.9.9?list=b");
            assert_eq!(host.registry().unwrap().len(), 5, "{:?}", host.registry());
            rfw.ok("DELETE", "/list?list=*");
        }
    });
}

/// A set of others in the place of a union ended a start where the rule of that was gone or, with
/// `ipset = auto`, where a scope had many rules.
#[test]
fn a_set_of_others_in_the_place_of_a_union_does_not_end_a_start() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset = auto").start();
        rfw.send_ok("PUT", "/drop/input/any", &addresses(90));
        rfw.send_ok("PUT", "/drop/output/any?list=tor", &addresses(150));
        destroy_set(&host, iptables, "OUTPUT", "rfw4-odd");
        for name in ["rfw4-ids", "rfw4-odd"] {
            host.run("ipset", &["create", name, "hash:ip"]).ok();
        }
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &addresses(120))["inserted"], 30);
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        assert_eq!(host.kept(iptables).len(), 120);
        assert!(rfw.log().contains("there is a set rfw4-odd that rfw has not made"), "{}", rfw.log());
        // Once they are gone, all is as it should be.
        host.run("ipset", &["destroy", "rfw4-ids"]).ok();
        host.run("ipset", &["destroy", "rfw4-odd"]).ok();
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        assert_eq!(host.run("ipset", &["test", "rfw4-ids", "9.9.9.9"]).status, Some(0));
        assert_eq!(rfw.ok("PUT", "/drop/output/any/9.9.9.9?list=tor")["result"], "inserted");
    });
}

/// A drop was inserted at the number that a reading had told, behind which another program had inserted
/// one more by then: it stood before the accept, for good.
#[test]
fn an_accept_stands_before_a_drop_while_others_edit_the_chain() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("ipset = auto").start();
        let edit = format!(
            "while test ! -e stop; do {iptables} -w -I INPUT -s 9.9.9.9 -j ACCEPT; \
             {iptables} -w -D INPUT -s 9.9.9.9 -j ACCEPT; done"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| host.run("sh", &["-c", &edit]).ok());
            let wrong = (1..=30).find(|number| {
                rfw.ok("PUT", &format!("/accept/input/any/11.0.0.{number}"));
                rfw.ok("PUT", &format!("/drop/input/any/12.0.0.{number}"));
                let rules = host.rules(iptables, "INPUT").join("\n");
                let first_drop = rules.find(" -s 12.0.0.").unwrap();
                rules.rfind(" -s 11.0.0.").unwrap() > first_drop
            });
            host.write("stop", 0o644, "");
            assert_eq!(wrong, None);
        });
    });
}
