//! What a client leaves in the log.

use super::{IPTABLES, LOGIN};
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
        "127.0.0.1 me: inserted: INPUT -s 1.2.3.4 -i eth0 -j DROP, rfw permanent",
        "127.0.0.1 me: unchanged: INPUT -s 1.2.3.4 -i eth0 -j DROP, rfw permanent",
        "127.0.0.1 me: refreshed: INPUT -s 1.2.3.4 -i eth0 -j DROP, rfw until 20",
        "127.0.0.1 me: deleted: INPUT -s 1.2.3.4 -i eth0 -j DROP",
        "127.0.0.1 me: absent: INPUT -s 1.2.3.4 -i eth0 -j DROP",
        "::1 me: inserted: OUTPUT -d 2001:db8::7 -j ACCEPT, rfw permanent",
    ];
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), golden.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(golden) {
        assert!(line.contains("Z [INFO] ") && line.contains(expected), "{line}: {expected}");
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
    let golden: Vec<Vec<u8>> = [
        format!("GET /%1b[31m{forged} HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("PUT /drop/input/%1b%07{forged}/1.2.3.4 HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("PUT /drop/input/any/1.2.3.4{forged} HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("PUT /drop/input/any/1.2.3.4?expire=1{forged} HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("PUT /drop/input/any/1.2.3.4?%1b{forged}=1 HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("GET /%c2%9b31m%e2%80%ae{forged} HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("GET /\u{9b}31m\u{202e} HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        format!("GET /\u{1b}[31m HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n"),
        "G\u{1b}T / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        // The user names "\x1b[31m\nforged" and "\u{9b}".
        "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic G1szMW0KZm9yZ2VkOng=\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic wps6eA==\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{9b}31m\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: \u{9b}31m\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()])
    .collect();
    for request in golden {
        let mut talk = host.connect(7390);
        talk.say(&request);
        let reply = talk.reply();
        assert!(reply.status >= 400, "{:?}", String::from_utf8_lossy(&request));
        assert!(!reply.body.trim_end().contains(char::is_control), "{reply:#?}");
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
