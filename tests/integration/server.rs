//! The server as its clients meet it: TLS, credentials, HTTP as bytes, connections
//! that are kept, slow and silent clients, and what of all this gets into the log.
//! The kernel matters little here, so most tests use one variant of iptables.

use crate::host::{Host, Reply, Rfw, SOON, Talk, until};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const IPTABLES: &str = "iptables-nft";

/// `me:secret` as HTTP Basic has it.
const LOGIN: &str = "Authorization: Basic bWU6c2VjcmV0";

/// A client that is slow or silent may cost another one at most this.
const SIX_SECONDS: Duration = Duration::from_secs(6);

/// All rules that rfw made for clients.
fn rules(host: &Host) -> Vec<String> {
    ["INPUT", "OUTPUT", "FORWARD"].iter().flat_map(|chain| host.rules(IPTABLES, chain)).collect()
}

/// Runs curl without any expectation and gives its exit status and what `-w` or the
/// server said.
fn try_curl(rfw: &Rfw<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let said =
        rfw.host.run("curl", &[&["-sS", "--max-time", "10", "--cacert", "ca.crt"], arguments].concat());
    (said.status, said.out + &said.err)
}

/// Sends one request to the local server and gives the response.
#[track_caller]
fn local(host: &Host, request: &str) -> Reply {
    let mut talk = host.connect(7390);
    talk.say(request.as_bytes());
    talk.reply()
}

/// Has a good request answered by HTTPS and tells how long it took.
#[track_caller]
fn time_of_a_request(rfw: &Rfw<'_>) -> Duration {
    let start = Instant::now();
    rfw.ok("GET", "/");
    start.elapsed()
}

/// Opens a TLS connection that stays open.
fn connect_tls(host: &Host) -> Talk {
    let arguments = ["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca.crt", "-connect"];
    host.talk("openssl", &[&arguments[..], &["127.0.0.1:7393"]].concat())
}

// ---- TLS ----

#[test]
fn tls_1_2_and_1_3_are_spoken_over_ipv4_and_ipv6() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let golden = [
        (vec!["--tlsv1.2", "--tls-max", "1.2"], "127.0.0.1"),
        (vec!["--tlsv1.3"], "127.0.0.1"),
        (vec!["--tlsv1.2", "--tls-max", "1.2"], "[::1]"),
        (vec!["--tlsv1.3"], "[::1]"),
    ];
    for (options, address) in golden {
        let url = format!("https://{address}:7393/list");
        let reply = rfw.curl(&[&options[..], &["-u", "me:secret", &url]].concat());
        assert_eq!((reply.status, reply.body.as_str()), (200, "[]\n"), "{options:?} {url}");
    }
}

#[test]
fn a_client_that_trusts_another_authority_does_not_go_on() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let other = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rfw CA", "-days", "9"];
    host.run("openssl", &[&other[..], &["-keyout", "other.key", "-out", "other.crt"]].concat()).ok();
    let url = "https://127.0.0.1:7393/drop/input/any/1.2.3.4";
    let said = host
        .run("curl", &["-sS", "--cacert", "other.crt", "-u", "me:secret", "-X", "PUT", url])
        .fails_with(60);
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(rules(&host), Vec::<String>::new());
    rfw.ok("GET", "/");
}

#[test]
fn tls_1_1_is_refused() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let arguments = ["10", "openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let said = host.run("timeout", &[&arguments[..], &["-connect", "127.0.0.1:7393"]].concat());
    assert_eq!(said.status, Some(1), "{said:#?}");
    assert!(said.err.contains("SSL alert number") && said.out.contains("New, (NONE)"), "{said:#?}");
    rfw.ok("GET", "/");
}

#[test]
fn the_wrong_protocol_on_either_port_ends_at_once() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    for url in ["http://127.0.0.1:7393/", "https://127.0.0.1:7390/"] {
        let start = Instant::now();
        let (status, said) = try_curl(&rfw, &[url]);
        assert!(status != Some(0) && status != Some(28), "{url}: {status:?} {said}");
        assert!(start.elapsed() < Duration::from_secs(3), "{url}: {:?}", start.elapsed());
    }
    rfw.ok("GET", "/");
}

#[test]
fn keys_of_every_usual_kind_and_form_work() {
    let make = |host: &Host, line: &str| host.run("sh", &["-c", &format!("umask 077; openssl {line}")]).ok();
    let golden = [
        ("EC PRIVATE KEY", "ecparam -name prime256v1 -genkey -noout -out server.key"),
        ("EC PARAMETERS", "ecparam -name prime256v1 -genkey -out server.key"),
        ("EC PRIVATE KEY", "ecparam -name secp384r1 -genkey -noout -out server.key"),
        ("RSA PRIVATE KEY", "genrsa -traditional -out server.key 2048"),
        ("BEGIN PRIVATE KEY", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out server.key"),
        ("BEGIN PRIVATE KEY", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key"),
        ("BEGIN PRIVATE KEY", "genpkey -algorithm ED25519 -out server.key"),
    ];
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES);
    for (form, line) in golden {
        make(&host, line);
        let key = fs::read_to_string(host.dir.join("server.key")).unwrap();
        assert!(key.contains(form), "{line}: {key}");
        let request = "req -x509 -new -key server.key -subj /CN=rfw -days 90 -out server.crt \
                       -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,digitalSignature,keyCertSign";
        make(&host, request);
        fs::copy(host.dir.join("server.crt"), host.dir.join("ca.crt")).unwrap();
        rfw.spawn();
        let reply = rfw.request("GET", "/list");
        assert_eq!((reply.status, reply.body.as_str()), (200, "[]\n"), "{line}");
        rfw.stop();
    }
}

#[test]
fn a_chain_with_an_intermediate_authority_is_sent_whole() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES);
    let script = "set -e; umask 077
        ca='basicConstraints=critical,CA:TRUE'
        key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1; }
        key root.key; key middle.key; key server.key
        openssl req -x509 -new -key root.key -subj '/CN=root' -days 90 -out ca.crt -addext keyUsage=keyCertSign
        openssl req -new -key middle.key -subj '/CN=middle' -out middle.csr
        echo $ca >middle.ext
        openssl x509 -req -in middle.csr -CA ca.crt -CAkey root.key -set_serial 2 -days 90 -extfile middle.ext -out middle.crt
        openssl req -new -key server.key -subj '/CN=server' -out server.csr
        echo 'subjectAltName=IP:127.0.0.1' >server.ext
        openssl x509 -req -in server.csr -CA middle.crt -CAkey middle.key -set_serial 3 -days 90 -extfile server.ext -out leaf.crt
        cat leaf.crt middle.crt >server.crt";
    host.run("sh", &["-c", script]).ok();
    let mut rfw = rfw.start();
    assert_eq!(rfw.ok("GET", "/list"), serde_json::json!([]));
    rfw.stop();
    // The counter-check: the leaf alone does not reach the authority.
    fs::copy(host.dir.join("leaf.crt"), host.dir.join("server.crt")).unwrap();
    rfw.spawn();
    let (status, said) = try_curl(&rfw, &["-u", "me:secret", "https://127.0.0.1:7393/"]);
    assert_eq!(status, Some(60), "{said}");
}

// ---- credentials ----

#[test]
fn whoever_does_not_log_in_is_told_how_and_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let golden = [
        "",
        "Authorization:",
        "Authorization: Basic",
        "Authorization: Basic ",
        "Authorization: Basic !!!!",
        "Authorization: Basic bWU=",
        "Authorization: Basic bWU6",
        "Authorization: Basic OnNlY3JldA==",
        "Authorization: Basic bWU6c2VjcmV",
        "Authorization: Basic bWU6c2VjcmV0IA==",
        "Authorization: Basic TUU6c2VjcmV0",
        "Authorization: Basic bWU6c2VjcmV0AA==",
        "Authorization: Basic /////w==",
        "Authorization: Bearer bWU6c2VjcmV0",
        "Authorization: Digest username=\"me\"",
        "Authorization: bWU6c2VjcmV0",
        "Authorization: me:secret",
        "Proxy-Authorization: Basic bWU6c2VjcmV0",
    ];
    for header in golden {
        for method in ["PUT", "GET"] {
            let url = "https://127.0.0.1:7393/drop/input/any/1.2.3.4";
            let reply = rfw.curl(&["-X", method, "-H", header, url]);
            assert_eq!(reply.status, 401, "{header}: {reply:#?}");
            let how = reply.header("WWW-Authenticate").unwrap_or_default();
            assert!(how.starts_with("Basic realm=\""), "{header}: {reply:#?}");
            assert!(reply.json()["error"].is_string(), "{header}: {reply:#?}");
        }
    }
    assert_eq!(rules(&host), Vec::<String>::new());
    let url = "https://127.0.0.1:7393/list";
    for header in [LOGIN, "authorization: basic bWU6c2VjcmV0", "AUTHORIZATION: BASIC  bWU6c2VjcmV0"] {
        assert_eq!(rfw.curl(&["-H", header, url]).status, 200, "{header}");
    }
    let twice = rfw.curl(&["-H", LOGIN, "-H", LOGIN, url]);
    assert_eq!(twice.status, 400, "{twice:#?}");
}

#[test]
fn a_password_may_have_a_colon_and_letters_of_any_language() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).reconfigure("= secret", "= pä:ss = wörd:").start();
    let status = |user: &str| rfw.curl(&["-u", user, "https://127.0.0.1:7393/list"]).status;
    assert_eq!(status("me:pä:ss = wörd:"), 200);
    for wrong in ["me:pä:ss = wörd", "me:pä", "me:", "me:pä:ss", "me:pa:ss = word:"] {
        assert_eq!(status(wrong), 401, "{wrong}");
    }
}

#[test]
fn no_password_is_ever_logged() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).reconfigure("= secret", "= OpenSesame");
    rfw.spawn_with(&["--loglevel", "DEBUG", "-v"]);
    let url = "https://127.0.0.1:7393/drop/input/any/1.2.3.4";
    let golden = [("me:OpenSesame", 200), ("me:Wr0ngSesame", 401), ("Wr0ngSesame:me", 401)];
    for (user, status) in golden {
        assert_eq!(rfw.curl(&["-u", user, "-X", "PUT", url]).status, status, "{user}");
    }
    rfw.stop();
    let logged = rfw.log() + &rfw.terminal();
    assert!(logged.contains("me: inserted"), "{logged}");
    // Base64 of "Sesame" at its three places in a group, and the names themselves.
    for secret in ["Sesame", "U2VzYW1l", "Nlc2FtZ", "TZXNhbW", "Basic "] {
        assert!(!logged.contains(secret), "{secret} is in {logged}");
    }
}

#[test]
fn failed_logins_do_not_fill_the_log() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let before = rfw.log().lines().count();
    let urls = "https://127.0.0.1:7393/list#[1-40]";
    let format = ["-o", "/dev/null", "-w", "%{http_code}\\n", "-u", "me:wrong", urls];
    let (status, said) = try_curl(&rfw, &format);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said, "401\n".repeat(40));
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("127.0.0.1: wrong user name or password"), "{lines:#?}");
}

#[test]
fn the_local_server_asks_for_credentials_only_where_it_is_told_to() {
    let request = |header: &str| {
        format!("PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")
    };
    let with_login = request(&format!("{LOGIN}\r\n"));
    let wrong = request("Authorization: Basic bWU6d3Jvbmc=\r\n");
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    for good in [&request(""), &with_login, &wrong] {
        assert_eq!(local(&host, good).status, 200, "{good}");
    }
    assert!(rfw.log().contains("127.0.0.1 -: inserted: "), "{}", rfw.log());
    rfw.ok("DELETE", "/drop/input/any/1.2.3.4");
    rfw.stop();
    let rfw = rfw.configure("local.server.authentication").start();
    for bad in [&request(""), &wrong] {
        let reply = local(&host, bad);
        assert_eq!(reply.status, 401, "{bad}");
        assert!(reply.header("WWW-Authenticate").is_some(), "{reply:#?}");
    }
    assert_eq!(rules(&host), Vec::<String>::new());
    assert_eq!(local(&host, &with_login).status, 200);
    assert_eq!(rules(&host).len(), 1);
    assert!(rfw.log().contains("127.0.0.1 me: inserted: "), "{}", rfw.log());
}

// ---- HTTP as bytes ----

/// What follows a response.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Then {
    Kept,
    Closed,
}
use Then::{Closed, Kept};

#[test]
fn every_request_as_bytes_has_its_status() {
    let put = "PUT /drop/input/any/9.9.9.9";
    let long = "x".repeat(9000);
    let most = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let golden: Vec<(String, u16, Then)> = [
        // Good ones.
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("GET /list HTTP/1.1\r\nhOST:x\r\n\r\n", 200, Kept),
        ("GET /list/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", 200, Kept),
        ("\r\nGET /list HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("GET /list HTTP/1.1\r\nHost:\r\n\r\n", 200, Kept),
        ("GET http://127.0.0.1:7390/list HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("GET http://127.0.0.1:7390 HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("GET HTTP://127.0.0.1:7390/list HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("GET /list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200, Closed),
        ("GET /list HTTP/1.1\r\nHost: x\r\nConnection: CLOSE\r\n\r\n", 200, Closed),
        ("GET /list HTTP/1.1\r\nHost: x\r\nConnection: a, close\r\n\r\n", 200, Closed),
        ("GET /list HTTP/1.1\r\nHost: x\r\nConnection: a\r\nConnection: close\r\n\r\n", 200, Closed),
        ("GET /list HTTP/1.0\r\n\r\n", 200, Closed),
        ("GET /list HTTP/1.0\r\nHost: x\r\n\r\n", 200, Closed),
        ("DELETE /drop/input/any/9.9.9.9 HTTP/1.1\r\nHost: x\r\n\r\n", 200, Kept),
        ("DELETE /drop/input/any/9.9.9.9 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200, Kept),
        // Not a path, or not one of ours: the connection is in order.
        ("GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET //list HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET /list/../list HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET list HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET /list?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        ("GET ftp://127.0.0.1/list HTTP/1.1\r\nHost: x\r\n\r\n", 400, Kept),
        // Methods.
        ("PATCH /list HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("BREW /list HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("get /list HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("PUT /list HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        ("GET /drop/input/any/9.9.9.9 HTTP/1.1\r\nHost: x\r\n\r\n", 405, Kept),
        // Not HTTP.
        ("hello\r\n\r\n", 400, Closed),
        ("GET /\r\n\r\n", 400, Closed),
        ("GET  HTTP/1.1\r\nHost: x\r\n\r\n", 400, Closed),
        ("G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, Closed),
        ("GET /\u{0} HTTP/1.1\r\nHost: x\r\n\r\n", 400, Closed),
        ("GET /\u{1b}[31m HTTP/1.1\r\nHost: x\r\n\r\n", 400, Closed),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", 400, Closed),
        // Versions.
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, Closed),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, Closed),
        ("GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505, Closed),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Closed),
        // Headers.
        ("GET / HTTP/1.1\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\tfolded\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: \u{0}\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400, Closed),
        ("GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400, Closed),
        // Framing.
        (
            "DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            Closed,
        ),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0x0\r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", 400, Closed),
        ("DELETE /nope HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", 400, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400, Closed),
        (
            "PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            400,
            Closed,
        ),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 501, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501, Closed),
        ("PUT /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n", 400, Closed),
    ]
    .into_iter()
    .map(|(request, status, then)| (request.to_owned(), status, then))
    .chain([
        // Bounds.
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 431, Closed),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), 431, Closed),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{long}"), 431, Closed),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", most(200)), 431, Closed),
        (format!("GET /list HTTP/1.1\r\nHost: x\r\n{}\r\n", most(30)), 200, Kept),
        (format!("GET /list HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", &long[..4000]), 200, Kept),
        (format!("GET /list{} HTTP/1.1\r\nHost: x\r\n\r\n", "?".repeat(3000)), 400, Kept),
        (format!("{put}{} HTTP/1.1\r\nHost: x\r\n\r\n", "/32".repeat(500)), 400, Kept),
    ])
    .collect();

    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut wrong = Vec::new();
    for (request, status, then) in &golden {
        let mut talk = host.connect(7390);
        talk.say(request.as_bytes());
        let reply = talk.reply();
        let short: String = request.chars().take(90).collect();
        if reply.status != *status {
            wrong.push(format!("{short:?}: {} instead of {status}: {}", reply.status, reply.body));
            continue;
        }
        if status >= &400 {
            assert!(
                reply.json()["error"].as_str().is_some_and(|text| text.len() > 4),
                "{short:?} {reply:#?}"
            );
        }
        if status == &405 {
            let allow = reply.header("Allow").unwrap_or_else(|| panic!("{short:?}: no Allow"));
            let method = request.split(' ').next().unwrap();
            let allowed = allow.split(", ").any(|word| word == method);
            assert!(!allow.is_empty() && !allowed, "{short:?}: {allow}");
        }
        assert_eq!(reply.header("Content-Type"), Some("application/json"), "{short:?}");
        match then {
            Closed => {
                assert_eq!(reply.header("Connection"), Some("close"), "{short:?} {reply:#?}");
                until(SOON, "the connection is closed", || talk.is_over());
                assert_eq!(talk.heard(), "", "{short:?}");
            }
            Kept => {
                assert_eq!(reply.header("Connection"), None, "{short:?} {reply:#?}");
                talk.say(b"GET /list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                assert_eq!(talk.reply().status, 200, "after {short:?}");
            }
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
        let head =
            format!("PUT /drop/input/any/9.9.9.9 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let reply = local(&host, &head);
        assert_eq!(reply.status, 413, "{length}: {reply:#?}");
    }
    assert_eq!(rules(&host), Vec::<String>::new());
}

#[test]
fn a_large_body_that_is_refused_does_not_take_the_answer_with_it() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let body = "x".repeat(600_000);
    host.write("body", 0o644, &body);
    let url = "https://127.0.0.1:7393/drop/input/any/9.9.9.9";
    for framing in ["Expect:", "Transfer-Encoding: chunked"] {
        let arguments = ["-u", "me:secret", "-X", "PUT", "-H", "Expect:", "-H", framing, "-T", "body", url];
        let reply = rfw.curl(&arguments);
        assert!([400, 413].contains(&reply.status), "{framing}: {reply:#?}");
        assert!(reply.json()["error"].is_string(), "{reply:#?}");
    }
    assert_eq!(rules(&host), Vec::<String>::new());
}

#[test]
fn a_body_is_never_taken_for_the_next_request() {
    let host = Host::new();
    let _rfw = host.rfw(IPTABLES).start();
    let hidden = "PUT /drop/input/any/6.6.6.6 HTTP/1.1\r\nHost: x\r\n\r\n";
    let golden = [
        format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.0\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{hidden}"),
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
        requests += &format!("PUT /drop/input/any/1.2.3.{n} HTTP/1.1\r\nHost: x\r\n\r\n");
        expected.push(format!("1.2.3.{n}"));
    }
    requests += "GET /nope HTTP/1.1\r\nHost: x\r\n\r\nGET /list HTTP/1.1\r\nHost: x\r\n\r\n";
    talk.say(requests.as_bytes());
    for address in expected {
        let reply = talk.reply();
        assert_eq!((reply.status, reply.json()["rule"]["source"].as_str()), (200, Some(address.as_str())));
    }
    assert_eq!(talk.reply().status, 400);
    assert_eq!(talk.reply().json().as_array().map(Vec::len), Some(40));
    assert!(!talk.is_over());
    // Over TLS, where a record may hold more than one request.
    let mut talk = connect_tls(&host);
    let list = format!("GET /list HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n");
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
    for byte in b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n" {
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
        talk.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let get = talk.reply();
        talk.say(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let head = talk.reply_to_head();
        assert_eq!(head.status, get.status, "{path}");
        for header in ["Content-Length", "Transfer-Encoding", "Content-Type", "Allow"] {
            assert_eq!(head.header(header), get.header(header), "{path} {header}");
        }
        talk.say(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
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
    let new = local(&host, "GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(new.head.starts_with("HTTP/1.1 200 OK\r\n"), "{new:#?}");
    assert_eq!(new.header("Cache-Control"), Some("no-store"));
    assert!(new.header("Date").is_some_and(|date| date.ends_with(" GMT")), "{new:#?}");
}

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
fn a_kept_connection_yields_at_once_to_another_client() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let request = format!("GET /list HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n");
    for tls in [false, true] {
        let connect = || if tls { connect_tls(&host) } else { host.connect(7390) };
        let mut first = connect();
        first.say(request.as_bytes());
        assert_eq!(first.reply().body, "[]\n");
        assert!(!first.is_over());
        let took = time_of_a_request(&rfw);
        assert!(took < Duration::from_secs(1), "{took:?}");
        until(SOON, "the first client sees the end", || first.is_over());
        assert_eq!(first.heard(), "");
        let mut again = connect();
        again.say(request.as_bytes());
        assert_eq!(again.reply().body, "[]\n");
    }
}

#[test]
fn a_request_that_is_there_when_another_client_comes_is_answered() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut first = host.connect(7390);
    first.say(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(first.reply().body, "[]\n");
    // Both come while rfw can't look.
    rfw.signal("STOP");
    first.say(b"PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut second = host.connect(7390);
    second.say(b"PUT /drop/input/any/1.2.3.5 HTTP/1.1\r\nHost: x\r\n\r\n");
    rfw.signal("CONT");
    assert_eq!(second.reply().json()["result"], "inserted");
    until(SOON, "the first is answered or closed", || first.is_over() || !first.heard().is_empty());
    assert_eq!(first.reply().json()["result"], "inserted");
    assert_eq!(rules(&host).len(), 2);
}

#[test]
fn a_client_that_says_nothing_holds_the_next_for_less_than_six_seconds() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut silent = host.connect(7390);
    let took = time_of_a_request(&rfw);
    assert!(took < SIX_SECONDS, "{took:?}");
    assert_eq!(silent.reply().status, 408);
    until(SOON, "the silent client is let go", || silent.is_over());
    assert!(time_of_a_request(&rfw) < Duration::from_secs(1));
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
    assert!(took < SIX_SECONDS, "{took:?}");
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
    slow.say(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(slow.reply().status, 200);
    slow.say(b"GET /list HTTP/1.1\r\n");
    let took = time_of_a_request(&rfw);
    assert!(took < SIX_SECONDS, "{took:?}");
    until(SOON, "it is let go", || slow.is_over());
}

#[test]
fn half_a_tls_handshake_holds_the_next_for_less_than_six_seconds() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut half = host.connect(7393);
    // The header of a record and the beginning of a ClientHello.
    half.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let took = time_of_a_request(&rfw);
    assert!(took < SIX_SECONDS, "{took:?}");
    until(SOON, "it is let go", || half.is_over());
    let log = rfw.log();
    assert!(log.contains("127.0.0.1: no TLS handshake: "), "{log}");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_let_go() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390 && echo open
        yes \"$(printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r')\" >&3";
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
    assert!(took < Duration::from_secs(11), "{took:?}");
    assert!(time_of_a_request(&rfw) < SIX_SECONDS);
}

#[test]
fn a_client_that_closes_in_mid_request_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let whole = "PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: x\r\n\r\n";
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
    let fds = || fs::read_dir(format!("/proc/{}/fd", rfw.pid())).unwrap().count();
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
        assert!(took < SIX_SECONDS, "{took:?}");
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
fn a_client_that_never_pauses_keeps_nobody_out() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let flood = flood(&host);
    let took = time_of_a_request(&rfw);
    assert!(took < Duration::from_secs(2), "{took:?}");
    until(SOON, "the flood is let go", || flood.is_over());
}

#[test]
fn a_client_that_never_pauses_does_not_keep_rfw_from_ending() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    let _flood = flood(&host);
    rfw.stop();
}

#[test]
fn a_client_that_never_pauses_does_not_make_rfw_grow() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    // 60,000 requests of four lines, which are 8 MB, all answered.
    let head = format!("OPTIONS * HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r", "x".repeat(97));
    host.write("head", 0o644, &head);
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390
        (yes \"$(cat head)\" | head -n 240000; printf 'GET /nope HTTP/1.0\\r\\n\\r\\n') >&3 &
        tail -n 1 <&3; echo; echo end";
    let client = host.talk("bash", &["-c", script]);
    until(4 * SOON, "all are answered", || client.heard().contains("end"));
    assert!(client.heard().contains("\"nope"), "{}", client.heard());
    assert_resident_is_bounded(&rfw);
}

/// The most it ever had: 8 MB are promised for a release; a debug build is larger.
#[track_caller]
fn assert_resident_is_bounded(rfw: &Rfw<'_>) {
    let limit = if cfg!(debug_assertions) { 12 << 10 } else { 8 << 10 };
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{resident} kB resident");
    assert!(resident < limit, "{resident} kB");
}

/// A client that sends request after request without a pause, and reads. The length
/// of a request is odd and they come in blocks of a length that is even (`tr` sees to
/// that): rarely does what rfw has received end with a request.
fn flood(host: &Host) -> Talk {
    let script = "exec 3<>/dev/tcp/127.0.0.1/7390
        (head -c 100 && exec cat >/dev/null) <&3 &
        yes \"$(printf 'GET /list HTTP/1.1\\r\\nHost: x\\r\\n\\r')\" | tr _ _ >&3";
    let flood = host.talk("bash", &["-c", script]);
    until(SOON, "the flood is answered", || flood.heard().contains("200 OK"));
    flood
}

// ---- strangers ----

#[test]
fn a_stranger_is_turned_away_before_the_handshake() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    host.run("ip", &["address", "add", "10.9.9.9/32", "dev", "lo"]).ok();
    let stranger = |more: &[&str]| {
        let arguments = [&["--interface", "10.9.9.9", "--max-time", "1"], more].concat();
        try_curl(&rfw, &arguments)
    };
    // The guard rules drop his packets.
    let (status, said) = stranger(&["-u", "me:secret", "https://127.0.0.1:7393/"]);
    assert_eq!(status, Some(28), "{said}");
    // Where they don't, rfw closes, whatever he sends, even if he sends nothing.
    for chain in ["INPUT", "OUTPUT"] {
        host.run(IPTABLES, &["-w", "-I", chain, "-j", "ACCEPT"]).ok();
    }
    let before = rfw.log().lines().count();
    for url in ["https://127.0.0.1:7393/", "http://127.0.0.1:7393/", "telnet://127.0.0.1:7393"] {
        let start = Instant::now();
        let (status, said) = stranger(&["-u", "me:secret", url]);
        let telnet = url.starts_with("telnet");
        assert!(status != Some(28) && (telnet || status != Some(0)), "{url}: {status:?} {said}");
        assert!(!said.contains("HTTP/"), "{url}: {said}");
        assert!(start.elapsed() < Duration::from_secs(1), "{url}");
    }
    let arguments = ["5", "openssl", "s_client", "-bind", "10.9.9.9:0", "-connect", "127.0.0.1:7393"];
    let said = host.run("timeout", &arguments);
    assert!(said.out.contains("read 0 bytes"), "{said:#?}");
    for _ in 0..20 {
        stranger(&["https://127.0.0.1:7393/"]);
    }
    rfw.ok("GET", "/list");
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("10.9.9.9: not in the white list"), "{lines:#?}");
}

#[test]
fn silent_strangers_do_not_delay_a_client() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list("10.7.7.7\n::1\n").start();
    host.run("ip", &["address", "add", "10.7.7.7/32", "dev", "lo"]).ok();
    for chain in ["INPUT", "OUTPUT"] {
        host.run(IPTABLES, &["-w", "-I", chain, "-j", "ACCEPT"]).ok();
    }
    let script = "for n in {1..100}; do exec {fd}<>/dev/tcp/127.0.0.1/7393; done; echo open; read -r";
    let crowd = host.talk("bash", &["-c", script]);
    until(SOON, "100 strangers are there", || crowd.heard().contains("open"));
    let start = Instant::now();
    let url = "https://127.0.0.1:7393/";
    assert_eq!(rfw.curl(&["--interface", "10.7.7.7", "-u", "me:secret", url]).status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!crowd.is_over());
}

// ---- what the configuration allows ----

#[test]
fn a_get_changes_rules_only_where_non_restful_is_on() {
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    let path = "/drop/input/any/1.2.3.4";
    for query in ["", "?modify=insert", "?modify=delete", "?modify=insert&expire=60"] {
        rfw.refused("GET", &format!("{path}{query}"), 405);
    }
    let error = rfw.refused("PUT", &format!("{path}?modify=insert"), 400);
    assert!(error.contains("modify"), "{error}");
    assert_eq!(rules(&host), Vec::<String>::new());
    rfw.stop();
    let rfw = rfw.configure("non.restful").start();
    assert_eq!(rfw.ok("GET", &format!("{path}?modify=insert&expire=60"))["result"], "inserted");
    assert_eq!(rules(&host).len(), 1);
    for (query, status) in [("", 400), ("?modify=", 400), ("?modify=renew", 400), ("?Modify=insert", 400)] {
        rfw.refused("GET", &format!("{path}{query}"), status);
    }
    assert_eq!(rules(&host).len(), 1);
    assert_eq!(rfw.ok("GET", &format!("{path}?modify=delete"))["result"], "deleted");
    assert_eq!(rules(&host), Vec::<String>::new());
    assert_eq!(rfw.ok("PUT", path)["result"], "inserted");
    assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(1));
}

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

// ---- the log ----

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

#[test]
fn a_web_page_can_have_nothing_changed() {
    let host = Host::new();
    let rfw = host.rfw("iptables").configure("non.restful").start();
    let golden = [
        ("PUT", "/drop/input/any/1.2.3.4", "Origin: https://example.org"),
        ("POST", "/drop/input/any/1.2.3.4", "Origin: null"),
        ("GET", "/drop/input/any/1.2.3.4?modify=insert", "Sec-Fetch-Site: cross-site"),
    ];
    for (method, path, header) in golden {
        let url = format!("http://127.0.0.1:7390{path}");
        let reply = rfw.curl(&["-X", method, "-H", header, &url]);
        assert_eq!(reply.status, 400, "{reply:#?}");
        assert_eq!(host.rules("iptables", "INPUT"), Vec::<String>::new(), "{method} {header}");
    }
    let typed = rfw.curl(&[
        "-H",
        "Sec-Fetch-Site: none",
        "http://127.0.0.1:7390/drop/input/any/1.2.3.4?modify=insert",
    ]);
    assert_eq!((typed.status, host.rules("iptables", "INPUT").len()), (200, 1), "{typed:#?}");
}

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
