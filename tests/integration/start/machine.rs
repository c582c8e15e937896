//! Machines that lack something, certificates that end soon, and files of the original.

use super::{IPTABLES, RFW, is_refused, sh, try_start, wrap_tools};
use crate::host::{Host, SOON, until};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

// ---- machines that lack something ----

#[test]
fn a_machine_without_ipv6_still_runs_with_one_warning() {
    let missing = "rm tools/ip6tables*";
    // As iptables-legacy says it where the kernel has no filter for IPv6.
    let words = "Table does not exist (do you need to insmod?)";
    let broken = format!("printf '#!/bin/sh\\necho \"{words}\" >&2\\nexit 3\\n' >tools/ip6tables-save");
    for (script, why) in [(missing, "no executable program"), (&broken, words)] {
        let host = Host::new();
        wrap_tools(&host, "");
        sh(&host, script);
        let rfw = host.rfw("tools/iptables").reconfigure("= ::\n", "= 0.0.0.0\n").start();
        let log = rfw.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN]")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains("IPv6 is not available: ") && warnings[0].contains(why), "{log}");
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.2.3.4")["result"], "inserted");
        assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
        let reply = rfw.request("PUT", "/drop/input/any/2001:db8::1");
        assert!((400..600).contains(&reply.status), "{reply:#?}");
        assert!(reply.json()["error"].as_str().is_some_and(|text| text.contains("IPv6")), "{reply:#?}");
        assert_eq!(host.rules(IPTABLES, "INPUT").len(), 1);
        assert_eq!(host.guards("ip6tables-nft"), Vec::<String>::new());
    }
}

#[test]
fn ip6tables_that_is_asked_for_has_to_work() {
    let host = Host::new();
    wrap_tools(&host, "");
    sh(&host, "rm tools/ip6tables");
    let rfw = host
        .rfw("tools/iptables")
        .reconfigure("= ::\n", "= 0.0.0.0\n")
        .configure("ip6tables.path = tools/ip6tables");
    is_refused(&rfw, "", 78, "rfw.conf:12: ip6tables.path: no executable program \"tools/ip6tables\"");
    // A server on IPv6 without a guard would be open to all.
    for ip in ["= ::\n", "= ::1\n"] {
        let rfw = host.rfw("tools/iptables").reconfigure("= ::\n", ip);
        let err = try_start(&rfw, &[]).fails_with(78);
        assert!(err.starts_with("rfw: rfw.conf: ip6tables.path: ") && err.contains("guard"), "{err}");
    }
    // Under another name it is fine.
    let rfw = host.rfw("tools/iptables").configure("ip6tables.path = ip6tables-nft").start();
    assert_eq!(rfw.ok("PUT", "/drop/input/any/2001:db8::1")["result"], "inserted");
    assert_eq!(host.rules("ip6tables-nft", "INPUT").len(), 1);
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let golden = [
        ("--days 10", Some("the certificate expires in 9 days")),
        ("--days 29", Some("in 28 days")),
        ("--days 40", None),
    ];
    let rfwgen = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/deploy/rfwgen");
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    for (days, warning) in golden {
        let script = format!(
            "{} --force {days} 127.0.0.1 && cp server_127.0.0.1/server.* . && cp client/ca.crt .",
            rfwgen.display()
        );
        sh(&host, &script);
        rfw.spawn();
        let log = rfw.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN]")).collect();
        match warning {
            Some(text) => assert!(warnings.len() == 1 && warnings[0].contains(text), "{days}: {log}"),
            None => assert_eq!(warnings.len(), 0, "{days}: {log}"),
        }
        rfw.ok("GET", "/list");
        rfw.stop();
    }
}

/// A clock that is ahead by the seconds in the file `ahead`, for a program that it is loaded into.
const CLOCK: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    char text[16] = "";
    int file = open("ahead", O_RDONLY);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
        close(file);
    }
    int result = syscall(SYS_clock_gettime, id, now);
    now->tv_sec += atol(text);
    return result;
}
"#;

/// Five seconds before a day is over a request has rfw look at the clock, and then nobody asks.
#[test]
fn a_server_that_runs_and_is_asked_nothing_warns_once_a_day() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let rfwgen = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/deploy/rfwgen");
    host.write("clock.c", 0o644, CLOCK);
    let script = "cc -shared -fPIC -o clock.so clock.c && \
         $0 --days 10 127.0.0.1 >/dev/null && cp server_127.0.0.1/server.* client/ca.crt .";
    host.run("sh", &["-c", script, rfwgen.to_str().unwrap()]).ok();
    let preload = format!("LD_PRELOAD={}/clock.so", host.dir.display());
    let _daemon = host.talk("env", &[&preload, RFW, "-f", "rfw.conf", "--logfile", "rfw.log"]);
    let warnings = || -> Vec<String> {
        let log = rfw.log();
        let lines = log.lines().filter(|line| line.contains("[WARN]"));
        lines.map(|line| line.split_once("[WARN] ").unwrap().1.to_owned()).collect()
    };
    until(SOON, "rfw is ready", || rfw.log().contains("is ready"));
    let golden = [(86_395, 8), (2 * 86_395, 7)];
    let mut expected = vec!["the certificate expires in 9 days".to_owned()];
    for (ahead, days) in golden {
        host.write("ahead", 0o644, &format!("{ahead}\n"));
        let asked = Instant::now();
        rfw.ok("GET", "/list");
        // On a machine that is too busy it may be over by now.
        if asked.elapsed() < Duration::from_secs(3) {
            assert_eq!(warnings(), expected, "before the day is over");
        }
        expected.push(format!("the certificate expires in {days} days"));
        until(SOON, "the next warning", || warnings() == expected);
    }
    host.write("ahead", 0o644, &format!("{}\n", 20 * 86_400));
    rfw.ok("GET", "/lists");
    let ended = "the certificate has expired: clients will refuse it".to_owned();
    until(SOON, "a warning of the end", || warnings().last() == Some(&ended));
}

#[test]
fn a_start_without_standard_streams_or_with_a_closed_terminal_is_fine() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES);
    let script = format!("exec {RFW} -f rfw.conf --logfile rfw.log -v <&- >&- 2>&-");
    let daemon = host.talk("sh", &["-c", &script]);
    let log = || fs::read_to_string(host.dir.join("rfw.log")).unwrap_or_default();
    until(SOON, "rfw is ready", || log().contains("is ready"));
    let mut client = host.connect(7390);
    client.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.reply().json()["result"], "inserted");
    assert_eq!(host.rules(IPTABLES, "INPUT").len(), 1);
    drop(daemon);
}

// ---- files of the original ----

#[test]
fn a_configuration_of_the_original_works_as_it_is() {
    let original = "\
#######################################################
# /etc/rfw/rfw.conf
# Configuration file for rfw
#######################################################

[config]

# HTTPS server for remote requests; it always asks for credentials.
outward.server

# The port. Without outward.server this has no meaning.
outward.server.port = 7393

# 0.0.0.0 is all interfaces.
outward.server.ip = 0.0.0.0

outward.server.certfile = /etc/rfw/ssl/server.crt
outward.server.keyfile = /etc/rfw/ssl/server.key


# HTTP server on localhost
local.server
local.server.port = 7390

# GET instead of PUT and DELETE
non.restful


# Not enabled by default.
# local.server.authentication


#TODO more than one user
auth.username = mietek
auth.password = passwd


# <number>, or with s, m, h, d
default.expire = 24h

whitelist.file = /etc/rfw/white.list

# The full path, or a name.
iptables.path = iptables


";
    let white_list = "# IP addresses that rfw leaves alone.\n#TODO allow IP ranges\n\n127.0.0.1\n# a network\n10.0.0.0/8\n\n";
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list(white_list);
    let etc = format!("{}/etc", host.dir.display());
    sh(&host, "mkdir -p etc/ssl && mv server.crt server.key etc/ssl && mv white.list etc");
    host.write("rfw.conf", 0o600, &original.replace("/etc/rfw", &etc));
    let rfw = rfw.start();
    let url = "https://127.0.0.1:7393/drop/input/eth0/1.2.3.4";
    let reply = rfw.curl(&["-u", "mietek:passwd", "-X", "PUT", url]);
    assert_eq!(reply.json()["result"], "inserted");
    let ends = reply.json()["expires"].as_str().expect("a moment").to_owned();
    let left = sh(&host, &format!("echo $(($(date -d {ends} +%s) - $(date +%s)))"));
    let left: i64 = left.trim().parse().unwrap();
    assert!((86_300..=86_401).contains(&left), "{left}");
    let reply = rfw.curl(&["http://127.0.0.1:7390/drop/input/eth0/1.2.3.4?modify=delete"]);
    assert_eq!(reply.json()["result"], "deleted");
    assert_eq!(rfw.curl(&["-u", "mietek:wrong", url]).status, 401);
    let reply = rfw.curl(&["-X", "PUT", "http://127.0.0.1:7390/drop/input/any/10.200.0.0/24"]);
    assert_eq!(reply.status, 400, "{reply:#?}");
}

#[test]
fn a_configuration_in_the_forms_that_the_original_understood_works() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let conf = fs::read_to_string(host.dir.join("rfw.conf")).unwrap();
    let conf = conf
        .replace("= secret", ":  se=cr:et  ; not more")
        .replace("local.server\n", "; a comment\r\nLOCAL.SERVER\r\n");
    host.write("rfw.conf", 0o600, &conf);
    let rfw = rfw.start();
    let url = "https://127.0.0.1:7393/list";
    assert_eq!(rfw.curl(&["-u", "me:se=cr:et", url]).status, 200);
    assert_eq!(rfw.curl(&["http://127.0.0.1:7390/list"]).status, 200);
}

#[test]
fn only_one_of_the_servers_runs_where_only_one_is_on() {
    let host = Host::new();
    let listening = || sh(&host, "ss -Htln | awk '{print $4}'");
    let mut rfw = host.rfw(IPTABLES).reconfigure("local.server\n", "#\n").start();
    assert_eq!(listening().trim(), "*:7393");
    assert_eq!(host.guards(IPTABLES).len(), 4);
    rfw.stop();
    // Without the outward server no keys and no credentials are needed, and the port
    // needs no guard.
    let rfw = host.rfw(IPTABLES).reconfigure("outward.server\n", "#\n").reconfigure("= secret", "=");
    sh(&host, "rm server.key server.crt");
    let _rfw = rfw.start();
    assert_eq!(listening().trim(), "127.0.0.1:7390");
    assert_eq!(host.guards(IPTABLES), Vec::<String>::new());
    let mut client = host.connect(7390);
    client.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.reply().json()["listening"], serde_json::json!(["http://127.0.0.1:7390"]));
}
