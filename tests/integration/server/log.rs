//! What a client leaves in the log.

use super::{IPTABLES, LOGIN};
use crate::golden::cases;
use crate::host::{Host, SOON, until};

#[test]
fn every_change_has_one_line_in_the_log() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    rfw.spawn_with(&["--loglevel", "INFO"]);
    let before = rfw.log().lines().count();
    let path = "/drop/input/eth0/1.2.3.4";
    rfw.ok("PUT", &format!("{path}?expire=0"));
    rfw.ok("PUT", &format!("{path}?expire=0"));
    rfw.ok("PUT", path);
    rfw.ok("DELETE", path);
    rfw.ok("DELETE", path);
    let url = "https://[::1]:7393/accept/output/any/2001:db8::7?expire=0";
    rfw.curl(&["-X", "PUT", "-u", "me:secret", url]);
    let golden = [
        "insert list=- target=drop chain=input interface=eth0 address=1.2.3.4 until=never outcome=inserted",
        "insert list=- target=drop chain=input interface=eth0 address=1.2.3.4 until=never outcome=unchanged",
        "insert list=- target=drop chain=input interface=eth0 address=1.2.3.4 until=20… outcome=refreshed",
        "delete list=- target=drop chain=input interface=eth0 address=1.2.3.4 outcome=deleted",
        "delete list=- target=drop chain=input interface=eth0 address=1.2.3.4 outcome=absent",
        "insert list=- target=accept chain=output interface=any address=2001:db8::7 until=never outcome=inserted",
    ];
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), golden.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(golden) {
        let from = if expected.contains("2001:db8::7") { "::1" } else { "127.0.0.1" };
        let expected = format!("Z [INFO] client=me from={from} op={expected}");
        let (start, end) = expected.split_once('…').unwrap_or((&expected, ""));
        assert!(line.contains(start) && line.ends_with(end), "{line}: {expected}");
    }
    // Reading leaves no line.
    rfw.ok("GET", "/list");
    rfw.ok("GET", "/");
    assert_eq!(rfw.log().lines().count(), before + golden.len());
    // A refusal does, with its reason.
    rfw.refused("PUT", "/drop/input/eth0/127.0.0.1", 400);
    let log = rfw.log();
    let line = log.lines().last().unwrap();
    let expected = "Z [INFO] client=me from=127.0.0.1 method=PUT url=/drop/input/eth0/127.0.0.1 status=400 \
                    code=whitelisted error=\"127.0.0.1 is white-listed\"";
    assert!(line.ends_with(expected), "{line}");
}

/// Starts rfw with its log on standard error, which is the file `journal`, and stops it after a change.
fn log_on_standard_error(host: &Host, environment: &str) -> String {
    let rfw = host.rfw(IPTABLES);
    let script = format!(
        ": >journal; {environment} exec {} -f rfw.conf --logfile - 2>journal",
        env!("CARGO_BIN_EXE_rfw")
    );
    let daemon = host.talk("bash", &["-c", &script]);
    let log = || std::fs::read_to_string(host.dir.join("journal")).unwrap_or_default();
    until(SOON, "rfw is ready", || log().contains("is ready") || daemon.is_over());
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0&reason=port%20scan");
    assert_eq!(rfw.call(&[]).status, Some(1), "another rfw is running");
    drop(daemon);
    rfw.host.write("rfw.conf", 0o600, "[config]\nnonsense\n");
    let said =
        host.run("bash", &["-c", &script.replace(": >journal; ", "").replace("2>journal", "2>>journal")]);
    assert_eq!(said.status, Some(78), "{said:?}");
    log()
}

#[test]
fn standard_error_gets_priorities_where_it_is_the_journal_and_times_where_it_is_not() {
    let change = "client=me from=127.0.0.1 op=insert list=- target=drop chain=input interface=any \
                  address=1.2.3.4 until=never reason=\"port scan\" outcome=inserted";
    let error = "rfw: rfw.conf:2: unknown option \"nonsense\"";
    let host = Host::new();
    let log = log_on_standard_error(&host, "JOURNAL_STREAM=$(stat -c %d:%i journal)");
    assert!(log.lines().all(|line| line.starts_with('<') && line.chars().nth(2) == Some('>')), "{log}");
    assert!(log.contains(&format!("\n<6>{change}\n")), "{log}");
    assert!(log.lines().last().unwrap().starts_with(&format!("<3>{error}")), "{log}");
    assert!(log.starts_with("<6>") || log.starts_with("<4>"), "{log}");
    // Another stream than this is the journal's.
    let host = Host::new();
    let log = log_on_standard_error(&host, "JOURNAL_STREAM=1:2");
    assert!(log.contains(&format!("Z [INFO] {change}\n")) && !log.contains("<6>"), "{log}");
    assert!(log.lines().last().unwrap().starts_with(error), "{log}");
}

#[test]
fn a_start_tells_what_it_has_come_to() {
    for option in ["", "ipset"] {
        let host = Host::new();
        let mut rfw = host.rfw(IPTABLES).configure(option).start();
        let ready = |rfw: &crate::host::Rfw<'_>| {
            let log = rfw.log();
            let line =
                log.lines().find_map(|line| line.split_once("is ready: ")).expect("a line").1.to_owned();
            line.split_once(", certificate until 20").expect("a certificate").0.to_owned()
        };
        let servers = "https on [::]:7393, http on 127.0.0.1:7390, iptables-nft";
        assert_eq!(ready(&rfw), format!("{servers}, 0 lists with 0 entries found"));
        rfw.send_ok("PUT", "/drop/input/any?list=tor", "1.2.3.4\n1.2.3.5\n2001:db8::1\n");
        rfw.ok("PUT", "/drop/input/eth0/1.2.3.4");
        rfw.stop();
        rfw.spawn();
        assert_eq!(ready(&rfw), format!("{servers}, 2 lists with 4 entries found"), "{option}");
    }
}

#[test]
fn nothing_from_outside_reaches_the_log_raw() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).configure("local.server.authentication");
    rfw.spawn_with(&["--loglevel", "DEBUG", "-v"]);
    let forged = "%0a1999-01-01T00:00:00Z%20[INFO]%20forged";
    let requests = cases("log-raw.txt").into_iter().map(|(at, [request])| {
        let request = request.replace("{login}", LOGIN).replace("{forged}", forged);
        (at, request.into_bytes())
    });
    let no_text = ("no text".to_owned(), b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
    for (at, request) in requests.chain([no_text]) {
        let mut talk = host.connect(7390);
        talk.say(&request);
        let reply = talk.reply();
        assert!(reply.status >= 400, "{at}: {reply:#?}");
        assert!(!reply.body.trim_end().contains(char::is_control), "{at}: {reply:#?}");
    }
    rfw.stop();
    for log in [rfw.log(), rfw.terminal()] {
        assert!(log.contains("client=me from=127.0.0.1 method=GET url=\"/"), "{log}");
        for line in log.lines() {
            let strange = line.chars().find(|c| c.is_control() || *c == '\u{202e}' || *c == '\u{fffd}');
            assert_eq!(strange, None, "{line:?}");
            let time = line.split(" [").next().unwrap();
            assert!(time.ends_with('Z') && time.starts_with("20"), "a forged line: {line:?}");
        }
    }
}
