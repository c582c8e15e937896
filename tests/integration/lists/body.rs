//! How a list may come: framing, bounds, clients that wait, are slow or are cut off.

use super::{head, hosts, networks, set_of, start};
use crate::golden::cases;
use crate::host::{Host, Reply, SOON, Talk, in_all_ways, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[test]
fn a_body_may_come_in_every_way_that_curl_knows() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        let list = hosts(0..300);
        host.write("list", 0o644, &list);
        let expected: BTreeSet<String> = list.lines().map(|address| format!("{address}/32")).collect();
        let golden: [&[&str]; 8] = [
            &["-T", "list"],
            &["-T", "list", "-H", "Expect: 100-continue"],
            &["-T", "list", "-H", "Expect:"],
            &["-T", "list", "-H", "Transfer-Encoding: chunked"],
            &["-T", "list", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"],
            &["--data-binary", "@list"],
            &["-X", "PUT", "--data-binary", "@list", "-H", "Content-Type: text/plain"],
            &["-T", "list", "--http1.0"],
        ];
        for arguments in golden {
            for url in ["https://127.0.0.1:7393", "http://127.0.0.1:7390"] {
                let url = format!("{url}/drop/input/any");
                let reply = rfw.curl(&[&["-u", "me:secret", &url], arguments].concat());
                assert_eq!(
                    (reply.status, &reply.json()["inserted"]),
                    (200, &json!(300)),
                    "{arguments:?}: {reply:?}"
                );
                assert_eq!(networks(&host, iptables), expected, "{arguments:?}");
                assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", &list)["deleted"], 300);
            }
        }
        let piped = "curl -sS -u me:secret --cacert ca.crt -T - https://127.0.0.1:7393/drop/input/any";
        let answer = host.feed("sh", &["-c", piped], list.as_bytes()).ok();
        assert!(answer.contains("\"inserted\":300"), "{answer}");
        assert_eq!(networks(&host, iptables), expected);
    });
}

#[test]
fn a_client_that_waits_to_be_told_is_told_to_go_on_or_why_not() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option);
        let mut talk = host.connect(7390);
        for (framing, body) in [
            ("Content-Length: 8", "1.2.3.4\n"),
            ("Transfer-Encoding: chunked", "8\r\n1.2.3.5\n\r\n0\r\n\r\n"),
        ] {
            talk.say(&head("PUT", "/drop/input/any", &format!("Expect: 100-continue\r\n{framing}\r\n")));
            until(SOON, "the client is told to go on", || talk.heard().contains("\r\n\r\n"));
            assert_eq!(talk.heard(), "HTTP/1.1 100 Continue\r\n\r\n", "{framing}");
            talk.say(body.as_bytes());
            until(SOON, "there is an answer", || talk.heard().contains("inserted"));
            assert_eq!(talk.reply().status, 200);
            talk.forget_all();
        }
        assert_eq!(networks(&host, iptables), set_of("1.2.3.4/32 1.2.3.5/32"));
        // Refused without the body: nobody asks for it.
        let golden = [
            ("/drop/input/any", "Content-Length: 16777217", 413),
            ("/drop/input/any/9.9.9.9", "Content-Length: 8", 400),
            ("/drop/inputs/any", "Content-Length: 8", 400),
            ("/list", "Content-Length: 8", 405),
        ];
        for (path, framing, status) in golden {
            let mut talk = host.connect(7390);
            talk.say(&head("PUT", path, &format!("Expect: 100-continue\r\n{framing}\r\n")));
            let reply = talk.reply();
            assert_eq!(reply.status, status, "{path}: {reply:?}");
            until(SOON, "it is closed", || talk.is_over());
        }
        assert_eq!(networks(&host, iptables), set_of("1.2.3.4/32 1.2.3.5/32"));
    });
}

#[test]
fn a_body_that_is_too_large_is_413_and_nothing_changes() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        let before = host.everything(iptables);
        let comments = format!("1.2.3.4\n{}", format!("{}\n", "#".repeat(1000)).repeat(16_800));
        assert!(comments.len() > 16 << 20);
        host.write("large", 0o644, &comments);
        let url = "https://127.0.0.1:7393/drop/input/any";
        for header in ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"] {
            let reply = rfw.curl(&["-u", "me:secret", "-T", "large", "-H", header, url]);
            assert_eq!(reply.status, 413, "{header}: {reply:?}");
            assert!(reply.body.contains("expected at most 16777216 bytes"), "{}", reply.body);
        }
        // What is wrong in the first line reaches a client that sends all the rest.
        host.write("garbage", 0o644, &format!("<html>\n{}", &comments[..8 << 20]));
        for header in ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"] {
            let reply = rfw.curl(&["-u", "me:secret", "-T", "garbage", "-H", header, url]);
            assert_eq!(reply.status, 400, "{header}: {reply:?}");
            assert!(reply.body.contains("line 1: "), "{}", reply.body);
        }
        let mut talk = host.connect(7390);
        talk.say(&head("PUT", "/drop/input/any", "Transfer-Encoding: chunked\r\n"));
        talk.say(b"8\r\n1.2.3.4\n\r\n1000000\r\n");
        assert_eq!(talk.reply().status, 413);
        assert_eq!(host.everything(iptables), before);
        host.write("large", 0o644, &comments[..16 << 20]);
        for header in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
            let reply = rfw.curl(&["-u", "me:secret", "-T", "large", "-H", header, url]);
            assert_eq!(reply.status, 200, "{header}: {reply:?}");
        }
        assert_eq!(networks(&host, iptables), set_of("1.2.3.4/32 9.9.9.9/32"));
    });
}

/// Beginnings of requests whose body never ends.
const CUT_OFF: [(&str, &str); 7] = [
    ("Content-Length: 100\r\n", ""),
    ("Content-Length: 100\r\n", "1.2.3.4\n1.2.3.5\n"),
    ("Content-Length: 9\r\n", "1.2.3.4\n"),
    ("Transfer-Encoding: chunked\r\n", "8\r\n1.2.3.4\n\r\n"),
    ("Transfer-Encoding: chunked\r\n", "8\r\n1.2.3.4\n\r\n0\r\n"),
    ("Transfer-Encoding: chunked\r\n", "8\r\n1.2.3"),
    ("Transfer-Encoding: chunked\r\n", "8\r\n1.2.3.4\n\r\n8\r\n1.2"),
];

#[test]
fn a_body_that_is_cut_off_changes_nothing() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        let before = host.everything(iptables);
        for (method, secure) in [("PUT", false), ("DELETE", false), ("PUT", true)] {
            for (framing, part) in CUT_OFF {
                let login = "Authorization: Basic bWU6c2VjcmV0\r\n";
                let text = head(method, "/drop/input/any", &format!("{login}{framing}"));
                let mut talk = match secure {
                    true => host.talk("openssl", &["s_client", "-quiet", "-connect", "127.0.0.1:7393"]),
                    false => host.connect(7390),
                };
                talk.say(&text);
                talk.say(part.replace("1.2.3.4", "9.9.9.9").as_bytes());
                // That nothing is read of it yet would be the same to this test; but what it
                // has sent is there before the next one connects.
                drop(talk);
                assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 1, "{framing}{part:?}");
                assert_eq!(host.everything(iptables), before, "{framing}{part:?}");
            }
        }
    });
}

#[test]
fn a_body_that_stops_coming_is_408_after_five_seconds() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        let before = host.everything(iptables);
        let mut talk = host.connect(7390);
        talk.say(&head("PUT", "/drop/input/any", "Content-Length: 100\r\n"));
        talk.say(b"1.2.3.4\n");
        let start = Instant::now();
        let reply = talk.reply();
        assert_eq!(reply.status, 408, "{reply:?}");
        assert!((4.0..7.5).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        until(SOON, "it is closed", || talk.is_over());
        assert_eq!(host.everything(iptables), before);
        assert_eq!(rfw.send_ok("PUT", "/drop/input/any", "1.2.3.4\n")["inserted"], 1);
    });
}

#[test]
fn a_body_that_comes_slowly_and_steadily_is_taken() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option);
        let mut talk = host.connect(7390);
        talk.say(&head("PUT", "/drop/input/any", "Content-Length: 24\r\n"));
        let start = Instant::now();
        for (count, part) in ["1.2.3.4\n1.", "2.3.5\n1.2", ".3.6\n"].into_iter().enumerate() {
            // Longer in all than one read may take.
            let due = Duration::from_millis(2_000 * (count as u64 + 1));
            until(SOON, "it is time for a part", || start.elapsed() >= due);
            talk.say(part.as_bytes());
        }
        assert_eq!(talk.reply().json()["inserted"], 3);
        assert_eq!(networks(&host, iptables).len(), 3);
    });
}

#[test]
fn a_body_framed_in_two_ways_or_not_expected_is_refused() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option);
        rfw.ok("PUT", "/drop/input/any/9.9.9.9");
        let before = host.everything(iptables);
        for (at, [path, headers, body, status, part]) in cases("framing.txt") {
            let mut talk = host.connect(7390);
            talk.say(&head("PUT", &path, &headers));
            talk.say(body.as_bytes());
            let reply = talk.reply();
            assert_eq!(reply.status.to_string(), status, "{at}: {reply:?}");
            assert!(reply.body.contains(&part), "{at}: {}", reply.body);
            until(SOON, "it is closed", || talk.is_over());
            assert_eq!(talk.heard(), "", "{at}: a second answer");
            assert_eq!(host.everything(iptables), before, "{at}");
        }
        let reply = rfw.send("PUT", "/drop/input/any/1.2.3.4", "5.6.7.8\n");
        assert_eq!(reply.status, 400);
        assert_eq!(host.everything(iptables), before);
    });
}

/// Sends a list with its length on a connection that is open.
fn say_list(talk: &mut Talk, method: &str, list: &str) -> Reply {
    talk.say(&head(method, "/drop/input/any", &format!("Content-Length: {}\r\n", list.len())));
    talk.say(list.as_bytes());
    talk.reply()
}

#[test]
fn a_connection_stays_for_further_requests_after_a_list() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option);
        let mut talk = host.connect(7390);
        assert_eq!(say_list(&mut talk, "PUT", "1.2.3.4\n").json()["inserted"], 1);
        assert_eq!(say_list(&mut talk, "PUT", "1.2.3.4\n1.2.3.5").json()["refreshed"], 1);
        talk.say(&head("PUT", "/drop/input/any", "Transfer-Encoding: chunked\r\n"));
        talk.say(b"4\r\n1.2.\r\n4;x=y\r\n3.6\n\r\n0\r\nTrailer: x\r\n\r\n");
        assert_eq!(talk.reply().json()["inserted"], 1);
        // Two at once, the second of which is not part of the first one's body.
        let mut both = head("DELETE", "/drop/input/any", "Content-Length: 7\r\n");
        both.extend_from_slice(b"1.2.3.5");
        both.extend(head("GET", "/list", ""));
        talk.say(&both);
        assert_eq!(talk.reply().json()["deleted"], 1);
        assert_eq!(talk.reply().json().as_array().unwrap().len(), 2);
        // One whose body has been read to its end keeps the connection though it is refused.
        assert_eq!(say_list(&mut talk, "PUT", "# none\n").status, 400);
        assert_eq!(say_list(&mut talk, "PUT", "1.2.3.4\n").json()["refreshed"], 1);
        assert_eq!(networks(&host, iptables), set_of("1.2.3.4/32 1.2.3.6/32"));
    });
}

#[test]
fn a_white_list_that_changes_while_a_list_comes_is_not_walked_around() {
    let host = Host::new();
    let rfw = start(&host, "iptables-nft", "");
    let list = "10.1.2.3\n11.1.2.3\n";
    let (first, rest) = list.split_at(12);
    let put = |talk: &mut Talk| {
        talk.say(&head("PUT", "/drop/input/any", &format!("Content-Length: {}\r\n", list.len())));
        talk.say(first.as_bytes());
    };
    let mut talk = host.connect(7390);
    put(&mut talk);
    // Another request sees to it that this part has been read.
    rfw.ok("GET", "/");
    host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.0/8\n");
    rfw.signal("HUP");
    until(SOON, "the list is read", || rfw.log().contains("again: 3 networks"));
    talk.say(rest.as_bytes());
    let reply = talk.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("2")), "{reply:?}");
    assert_eq!(networks(&host, "iptables-nft").len(), 0);
    put(&mut talk);
    talk.say(rest.as_bytes());
    let answer = talk.reply().json();
    assert_eq!((&answer["inserted"], &answer["skipped_total"]), (&json!(1), &json!(1)), "{answer}");
}
