//! What a client leaves in the log.

use super::{IPTABLES, LOGIN};
use crate::golden::cases;
use crate::host::Host;

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
    let expected = "127.0.0.1 me: PUT /drop/input/eth0/127.0.0.1: 127.0.0.1 is white-listed";
    assert!(line.contains(expected), "{line}");
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
        assert!(log.contains("127.0.0.1 me: GET "), "{log}");
        for line in log.lines() {
            let strange = line.chars().find(|c| c.is_control() || *c == '\u{202e}' || *c == '\u{fffd}');
            assert_eq!(strange, None, "{line:?}");
            let time = line.split(" [").next().unwrap();
            assert!(time.ends_with('Z') && time.starts_with("20"), "a forged line: {line:?}");
        }
    }
}
