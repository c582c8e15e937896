//! HTTP as bytes, and the help.

use super::{IPTABLES, LOGIN, connect_tls, local, rules};
use crate::golden::cases;
use crate::host::{Host, Reply, SOON, node_name, until};
use std::thread;
use std::time::Duration;

// ---- HTTP as bytes ----

#[test]
fn every_request_as_bytes_has_its_status() {
    let put = "PUT /drop/input/any/9.9.9.9";
    let long = "x".repeat(9000);
    let most = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let bounds = [
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), "431", "closed"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), "431", "closed"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{long}"), "431", "closed"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", most(200)), "431", "closed"),
        (format!("GET /list HTTP/1.1\r\nHost: localhost\r\n{}\r\n", most(30)), "200", "kept"),
        (format!("GET /list HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", &long[..4000]), "200", "kept"),
        (format!("GET /list{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "?".repeat(3000)), "400", "kept"),
        (format!("{put}{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "/32".repeat(500)), "400", "kept"),
    ];
    let bounds = bounds.map(|(request, status, then)| {
        let short: String = request.chars().take(60).collect();
        (short, [request, status.to_owned(), then.to_owned()])
    });

    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut wrong = Vec::new();
    for (at, [request, status, then]) in cases("http.txt").into_iter().chain(bounds) {
        let mut talk = host.connect(7390);
        talk.say(request.as_bytes());
        let reply = talk.reply();
        if reply.status.to_string() != status {
            wrong.push(format!("{at}: {} instead of {status}: {}", reply.status, reply.body));
            continue;
        }
        if reply.status >= 400 {
            assert!(reply.json()["error"].as_str().is_some_and(|text| text.len() > 4), "{at} {reply:#?}");
            assert!(reply.json()["code"].as_str().is_some_and(|code| code.len() > 2), "{at} {reply:#?}");
            assert_eq!(reply.json()["host"], node_name(), "{at}");
        }
        if reply.status == 405 {
            let allow = reply.header("Allow").unwrap_or_else(|| panic!("{at}: no Allow"));
            let method = request.split(' ').next().unwrap();
            let allowed = allow.split(", ").any(|word| word == method);
            assert!(!allow.is_empty() && !allowed, "{at}: {allow}");
        }
        assert_eq!(reply.header("Content-Type"), Some("application/json"), "{at}");
        match then.as_str() {
            "closed" => {
                assert_eq!(reply.header("Connection"), Some("close"), "{at} {reply:#?}");
                until(SOON, "the connection is closed", || talk.is_over());
                assert_eq!(talk.heard(), "", "{at}");
            }
            "kept" => {
                assert_eq!(reply.header("Connection"), None, "{at} {reply:#?}");
                talk.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                assert_eq!(talk.reply().status, 200, "after {at}");
            }
            _ => panic!("{at}: {then}"),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(rules(&host), Vec::<String>::new());
    rfw.ok("GET", "/");
}

#[test]
fn a_body_beyond_every_bound_is_413_before_it_is_sent() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    for length in ["10000000000", "18446744073709551615", "99999999999999999999999999"] {
        let head = format!(
            "PUT /drop/input/any/9.9.9.9 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        let reply = local(&host, &head);
        assert_eq!(reply.status, 413, "{length}: {reply:#?}");
    }
    assert_eq!(rules(&host), Vec::<String>::new());
}

#[test]
fn a_body_is_never_taken_for_the_next_request() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    let hidden = "PUT /drop/input/any/6.6.6.6 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let golden = [
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.0\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{hidden}"),
        format!("nonsense\r\n\r\n{hidden}"),
    ];
    for request in golden {
        let mut talk = host.connect(7390);
        talk.say(request.as_bytes());
        talk.reply();
        until(SOON, "the connection is closed", || talk.is_over());
        assert_eq!(rules(&host), Vec::<String>::new(), "{request}");
    }
}

#[test]
fn pipelined_requests_are_all_answered_in_their_order() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    let mut talk = host.connect(7390);
    let mut expected = Vec::new();
    let mut requests = String::new();
    for n in 1..=40 {
        requests += &format!("PUT /drop/input/any/1.2.3.{n} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        expected.push(format!("1.2.3.{n}"));
    }
    requests += "GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\nGET /list HTTP/1.1\r\nHost: localhost\r\n\r\n";
    talk.say(requests.as_bytes());
    for address in expected {
        let reply = talk.reply();
        assert_eq!((reply.status, reply.json()["rule"]["source"].as_str()), (200, Some(address.as_str())));
    }
    assert_eq!(talk.reply().status, 404);
    assert_eq!(talk.reply().json().as_array().map(Vec::len), Some(40));
    assert!(!talk.is_over());
    // Over TLS, where a record may hold more than one request.
    let mut talk = connect_tls(&host);
    let list = format!("GET /list HTTP/1.1\r\nHost: localhost\r\n{LOGIN}\r\n\r\n");
    talk.say(list.repeat(3).as_bytes());
    for _ in 0..3 {
        assert_eq!(talk.reply().json().as_array().map(Vec::len), Some(40));
    }
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    let mut talk = host.connect(7390);
    for byte in b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        talk.say(&[*byte]);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(talk.reply().body, "[]\n");
}

#[test]
fn head_is_get_without_the_body() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    let mut talk = host.connect(7390);
    for path in ["/", "/list", "/nope", "/drop/input/any/1.2.3.4"] {
        talk.say(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let get = talk.reply();
        talk.say(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let head = talk.reply_to_head();
        assert_eq!(head.status, get.status, "{path}");
        for header in ["Content-Length", "Transfer-Encoding", "Content-Type", "Allow"] {
            assert_eq!(head.header(header), get.header(header), "{path} {header}");
        }
        talk.say(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(talk.reply().body, "[]\n", "something came between after HEAD {path}");
    }
    assert_eq!(rules(&host), Vec::<String>::new());
}

#[test]
fn an_answer_is_in_the_version_of_the_request() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let old = Reply::parse(&rfw.raw(b"GET /list HTTP/1.0\r\n\r\n"));
    assert!(old.head.starts_with("HTTP/1.0 200 OK\r\n"), "{old:#?}");
    let new = local(&host, "GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(new.head.starts_with("HTTP/1.1 200 OK\r\n"), "{new:#?}");
    assert_eq!(new.header("Cache-Control"), Some("no-store"));
    assert!(new.header("Date").is_some_and(|date| date.ends_with(" GMT")), "{new:#?}");
}

/// A host may be given its name after rfw has started, as in a cloud.
#[test]
fn answers_have_the_name_that_the_host_has_now() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    assert!(rfw.try_spawn_through(&["unshare", "--uts"]).is_ok(), "{}", rfw.log());
    for name in ["early", "late"] {
        let rename = format!("printf {name} >/proc/sys/kernel/hostname");
        host.run("nsenter", &["-t", &rfw.pid().to_string(), "--uts", "sh", "-c", &rename]).ok();
        for path in ["/", "/health", "/changes"] {
            assert_eq!(rfw.ok("GET", path)["host"], name, "{path}");
        }
        assert_eq!(rfw.request("GET", "/nothing").json()["host"], name);
    }
}

// ---- what the configuration allows ----

#[test]
fn the_help_tells_version_addresses_default_expiry_and_grammar() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).reconfigure("= 1h", "= 90m").start();
    let help = rfw.ok("GET", "/");
    assert_eq!(help["version"], env!("CARGO_PKG_VERSION"));
    let text = help.to_string();
    for part in ["[::]:7393", "127.0.0.1:7390", "5400", "forward", "expire", "/drop/input/eth0/11.22.33.44"] {
        assert!(text.contains(part), "{part} is not in {help:#}");
    }
    // Every example is one that the server takes.
    for example in help["examples"].as_array().expect("examples") {
        let (method, path) = example.as_str().unwrap().split_once(' ').unwrap();
        rfw.ok(method, path);
    }
}
