//! What servers answer, right or not: a program in the place of rfw gives answers that no rfw would.

use super::{Running, SHELLS, ctl};
use crate::host::{Host, SOON, until};
use std::fs;
use std::process::{Child, Stdio};

/// Gives the files PORT.1, PORT.2 ... one after the other, and the last one again and again; what it was
/// asked is in PORT.asked. @N@ in an answer is the moment that is N seconds from now.
const SERVER: &str = r#"
use IO::Socket::INET;
my ($port, $number) = ($ARGV[0], 0);
sub moment {
    my ($second, $minute, $hour, $day, $month, $year) = gmtime(time + $_[0]);
    return sprintf('%d-%02d-%02dT%02d:%02d:%02dZ', $year + 1900, $month + 1, $day, $hour, $minute, $second);
}
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 20, ReuseAddr => 1) or die $!;
open(my $asked, '>>', "$port.asked") or die $!;
$asked->autoflush(1);
while (my $client = $listener->accept) {
    my $request = <$client>;
    while (my $line = <$client>) { last if $line eq "\r\n" }
    $number++ if -e "$port." . ($number + 1);
    open(my $file, '<', "$port.$number") or die $!;
    print $client (map { s/@(-?\d+)@/moment($1)/ger } <$file>);
    close $client;
    print $asked $request;
}
"#;

pub(super) struct Server<'a> {
    host: &'a Host,
    port: u16,
    child: Child,
}

impl Server<'_> {
    /// Starts one with answers, each a status, further headers, and a body.
    pub(super) fn start<'a>(host: &'a Host, port: u16, answers: &[(u16, &str, &str)]) -> Server<'a> {
        for (number, (status, headers, body)) in (1..).zip(answers) {
            let text = format!("HTTP/1.1 {status} Word\r\nConnection: close\r\n{headers}\r\n{body}");
            host.write(&format!("{port}.{number}"), 0o644, &text);
        }
        let _ = fs::remove_file(host.dir.join(format!("{port}.asked")));
        let arguments = ["-e", SERVER, &port.to_string()];
        let child = host.command("perl").args(arguments).stdin(Stdio::null()).spawn().expect("perl");
        let server = Server { host, port, child };
        until(SOON, "it listens", || fs::exists(host.dir.join(format!("{port}.asked"))).unwrap());
        server
    }

    pub(super) fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.host.dir.join(format!("{}.asked", self.port))).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for number in 1..4 {
            let _ = fs::remove_file(self.host.dir.join(format!("{}.{number}", self.port)));
        }
    }
}

const INSERTED: &str =
    "{\"expires\":null,\"host\":\"a\",\"result\":\"inserted\",\"rule\":{\"source\":\"1.2.3.4\"}}\n";

pub(super) fn with_server(ports: &[u16]) -> Host {
    let host = Host::new();
    let line = |port: &u16| format!("s{port} http://127.0.0.1:{port}\n");
    host.write("servers", 0o600, &ports.iter().map(line).collect::<String>());
    host
}

#[test]
fn a_server_that_is_busy_is_asked_again_after_the_time_that_it_says() {
    let host = with_server(&[8001]);
    let busy = "{\"code\":\"busy\",\"error\":\"another program has the lock\",\"host\":\"a\"}\n";
    for (shell, again) in SHELLS.into_iter().zip([429, 408]) {
        let answers = [(503, "Retry-After: 1\r\n", busy), (again, "", busy), (200, "", INSERTED)];
        let server = Server::start(&host, 8001, &answers);
        let said = ctl(&host, shell, &["block", "1.2.3.4", "-f", "servers"]);
        assert_eq!((said.out.as_str(), said.err.as_str()), ("s8001: 1.2.3.4 is blocked for ever\n", ""));
        assert_eq!(server.asked(), ["PUT /drop/input/any/1.2.3.4 HTTP/1.1"; 3]);
        drop(server);
        let server = Server::start(&host, 8001, &answers);
        let said = ctl(&host, shell, &["block", "1.2.3.4", "-f", "servers", "--retries", "0"]);
        assert_eq!(said.fails_with(1), "s8001: 1.2.3.4: another program has the lock\n");
        assert_eq!(server.asked().len(), 1);
    }
}

/// Nothing of an answer moves a terminal's cursor, and no answer is taken for another.
#[test]
fn what_a_server_answers_can_not_disturb_a_terminal() {
    let host = with_server(&[8001, 8002, 8003]);
    let error = "{\"error\":\"red \\u001b[31m, raw \x1b[2J, C1 \u{9b}2J, \\\"turned\\\" \u{202e}txt\\\\\"}";
    let rows = "[\n{\"by\":\"m\\u0007e\",\"chain\":\"INPUT\",\"destination\":\"0.0.0.0/0\",\"expires\":null,\"inp\":\"*\",\
        \"list\":\"tor\",\"out\":\"*\",\"pkts\":\"3\",\"reason\":\"},{\\\"\u{1b}]0;x\u{7} gr\u{fc}n\",\"source\":\"1.2.3.4\",\"target\":\"DROP\"}\n]\n";
    let _servers =
        [(8001, (400, "", error)), (8002, (200, "", "<html>\x1b[2Jhello</html>")), (8003, (200, "", rows))]
            .map(|(port, answer)| Server::start(&host, port, &[answer]));
    for shell in SHELLS {
        for (format, at) in [("--csv", 0), ("--json", 1), ("--retries=0", 2)] {
            let said = ctl(&host, shell, &["why", "1.2.3.4", "-f", "servers", format]);
            let all = said.out.clone() + &said.err;
            assert!(!all.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{said:#?}");
            assert_eq!(said.status, Some(1));
            match at {
                0 => assert!(
                    said.out.contains(
                        "\ns8003,tor,1.2.3.4,drop input any,ever,3,m?e,\"},{\"\"?]0;x? gr\u{fc}n\"\n"
                    ),
                    "{said:#?}"
                ),
                1 => drop(serde_json::from_str::<serde_json::Value>(&said.out).expect(&said.out)),
                _ => {
                    assert!(said.out.contains("  m?e  },{\"?]0;x? gr\u{fc}n\n"), "{said:#?}");
                    assert!(
                        said.err.contains("s8001: 1.2.3.4: red ?[31m, raw ?[2J, C1 ?2J, \"turned\" ?txt\\\n"),
                        "{said:#?}"
                    );
                    assert!(
                        said.err.contains("s8002: 1.2.3.4: answers 200, and is perhaps no rfw\n"),
                        "{said:#?}"
                    );
                    assert!(said.err.ends_with("failed on 2 of 3 servers: s8001 s8002\n"), "{said:#?}");
                }
            }
        }
    }
}

const DAY: i64 = 86_400;

/// An answer to /health, with a clock and an end of the certificate that many seconds from now.
fn health(now: i64, ends: i64, problems: &str) -> String {
    let status = if problems.is_empty() { "ok" } else { "failing" };
    format!(
        "{{\"certificate_expires\":\"@{ends}@\",\"entries\":1204,\"host\":\"a\",\"lists\":null,\"now\":\"@{now}@\",\
         \"problems\":[{problems}],\"started\":\"2026-11-27T10:00:00Z\",\"state_saved\":null,\"status\":\"{status}\",\
         \"variant\":\"nft\",\"version\":\"0.7.0\"}}\n"
    )
}

#[test]
fn the_status_of_servers_is_that_of_a_nagios_plug_in() {
    let host = with_server(&[8001, 8002, 8003, 8004]);
    let problems = "{\"code\":\"guard_missing\",\"error\":\"the guard is missing\"},{\"code\":\"x\",\"error\":\"and \\\"more\\\"\"}";
    for (shell, clock, words) in [(SHELLS[0], -90, " s late\n"), (SHELLS[1], 90, " s ahead\n")] {
        let well = health(0, 400 * DAY + 3600, "");
        let ends = health(0, 12 * DAY + 3600, "");
        let off = health(clock, 400 * DAY, "");
        let ill = health(0, 400 * DAY, problems);
        let _servers = [(8001, 200, &well), (8002, 200, &ends), (8003, 200, &off), (8004, 503, &ill)]
            .map(|(port, status, body)| Server::start(&host, port, &[(status, "", body)]));
        let status = |words: &[&str]| ctl(&host, shell, &[&["status", "-f", "servers"], words].concat());
        let said = status(&["-s", "s8001"]);
        assert_eq!(said.status, Some(0), "{said:#?}");
        assert_eq!(
            said.out,
            "RFW OK: 1 server is well\n\
             SERVER  STATE  VERSION  LISTS  ENTRIES  CERTIFICATE  CLOCK  MESSAGE\n\
             s8001   OK     0.7.0           1204     400 d        0 s    up since 2026-11-27T10:00:00Z\n"
        );
        let said = status(&["-s", "s8001,s8002"]);
        assert_eq!(said.status, Some(1), "{said:#?}");
        assert!(
            said.out.starts_with("RFW WARNING: 1 of 2 servers: s8002: the certificate ends at "),
            "{said:#?}"
        );
        assert_eq!(status(&["-s", "s8002", "--warn", "12"]).status, Some(0));
        assert_eq!(status(&["-s", "s8002", "--crit", "13"]).status, Some(2));
        let said = status(&["-s", "s8003"]);
        assert_eq!(said.status, Some(1), "{said:#?}");
        assert!(said.out.contains(": the clock is ") && said.out.contains(words), "{said:#?}");
        let said = status(&[]);
        assert_eq!((said.status, said.err.as_str()), (Some(2), ""), "{said:#?}");
        assert!(said.out.starts_with("RFW CRITICAL: 3 of 4 servers: s8002, s8003, s8004\n"), "{said:#?}");
        assert!(said.out.ends_with("  the guard is missing; and \"more\"\n"), "{said:#?}");
        let json: serde_json::Value = serde_json::from_str(&status(&["--json"]).out).unwrap();
        assert_eq!(
            (json[0]["state"].as_str(), json[3]["answer"]["status"].as_str()),
            (Some("OK"), Some("failing"))
        );
    }
    // None answers any more, and one that is before 0.7 does not know the path.
    let _old = Server::start(&host, 8001, &[(404, "", "{\"error\":\"no such path\"}\n")]);
    assert_eq!(ctl(&host, SHELLS[0], &["status", "-f", "servers", "-s", "s8001"]).status, Some(3));
    let said = ctl(&host, SHELLS[0], &["status", "-f", "servers", "-s", "s8002"]);
    assert_eq!(said.status, Some(2));
    assert!(said.out.starts_with("RFW CRITICAL: 1 of 1 servers: s8002: Failed to connect"), "{said:#?}");
}

#[test]
fn changes_are_told_as_they_come_and_none_twice() {
    let host = with_server(&[8001]);
    let change = |address: &str, reason: &str| {
        format!(
            "{{\"address\":{address},\"chain\":\"INPUT\",\"client\":\"pot\",\"count\":3,\"from\":\"10.0.0.5\",\"inp\":\"*\",\
             \"list\":\"tor\",\"op\":\"insert\",\"out\":\"*\",\"outcome\":\"inserted\",\"reason\":{reason},\"target\":\"DROP\",\
             \"time\":\"2026-11-27T10:00:00Z\",\"until\":null}}"
        )
    };
    let (one, many) = (change("\"1.2.3.4\"", "\"},{ \\\"a\\\\\""), change("null", "null"));
    let first = format!("{{\"changes\":[{one},{many}],\"host\":\"a\",\"missed\":false,\"next\":\"c1\"}}\n");
    let then = "{\"changes\":[],\"host\":\"a\",\"missed\":true,\"next\":\"c2\"}\n";
    for shell in SHELLS {
        let server = Server::start(
            &host,
            8001,
            &[(200, "", &first), (200, "", then), (403, "", "{\"error\":\"no right\"}\n")],
        );
        let words = ["watch", "-f", "servers", "--interval", "1", "--since", "2026-11-27T09:00:00Z"];
        let running = Running::start(&host, shell, &words);
        until(SOON * 2, "it asks four times", || server.asked().len() > 3);
        let asked: Vec<String> = server.asked().into_iter().take(3).collect();
        let paths =
            ["2026-11-27T09:00:00Z", "c1", "c2"].map(|since| format!("GET /changes?since={since} HTTP/1.1"));
        assert_eq!(asked, paths);
        assert_eq!(
            running.out(),
            "2026-11-27T10:00:00Z  s8001  tor: 1.2.3.4 inserted, drop input any for ever, by pot: },{ \"a\\\n\
             2026-11-27T10:00:00Z  s8001  tor: insert of 3: inserted, drop input any for ever, by pot\n"
        );
        let told = "rfwctl: s8001: some changes were missed\nrfwctl: s8001: no right\n";
        until(SOON, "it tells of the failure once", || running.err() == told);
    }
}

/// A curl before 7.75 tells on standard error alone why a transfer failed.
#[test]
fn an_older_curl_tells_too_why_a_server_failed() {
    let host = with_server(&[8001, 8002]);
    let _server = Server::start(&host, 8001, &[(200, "", INSERTED)]);
    fs::create_dir(host.dir.join("bin")).unwrap();
    let curl = "#!/bin/sh\nPATH=${PATH#*:}\ncat >config\n\
        grep -q '%{errormsg}' config && echo \"curl: unknown --write-out variable: 'errormsg'\" >&2\n\
        sed -i 's/%{exitcode}\\\\t%{errormsg}/\\\\t/' config\nexec curl \"$@\" <config\n";
    host.write("bin/curl", 0o755, curl);
    let path = format!("{}/bin:/usr/bin:/bin", host.dir.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");
    let words = [
        "-i",
        &format!("PATH={path}"),
        "dash",
        script,
        "block",
        "1.2.3.4",
        "-f",
        "servers",
        "--retries",
        "1",
    ];
    let said = host.run("env", &words);
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(1), "s8001: 1.2.3.4 is blocked for ever\n"),
        "{said:#?}"
    );
    assert!(said.err.starts_with("s8002: 1.2.3.4: Failed to connect to 127.0.0.1 port 8002"), "{said:#?}");
}

#[test]
fn the_version_is_that_of_rfw() {
    let host = Host::new();
    for shell in SHELLS {
        let version = format!("rfwctl {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(ctl(&host, shell, &["--version"]).ok(), version);
        assert!(ctl(&host, shell, &["help"]).ok().starts_with("usage: rfwctl "));
    }
}
