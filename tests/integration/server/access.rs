//! Who may do what: credentials, strangers, web pages, and what the configuration
//! allows.

use super::{IPTABLES, LOGIN, local, rules, try_curl};
use crate::golden::cases;
use crate::host::{Host, SOON, until};
use std::time::{Duration, Instant};

// ---- credentials ----

#[test]
fn whoever_does_not_log_in_is_told_how_and_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let none = ("no header".to_owned(), [String::new()]);
    for (at, [header]) in cases("login-refused.txt").into_iter().chain([none]) {
        for method in ["PUT", "GET"] {
            let url = "https://127.0.0.1:7393/drop/input/any/1.2.3.4";
            let reply = rfw.curl(&["-X", method, "-H", &header, url]);
            assert_eq!(reply.status, 401, "{at}: {reply:#?}");
            let how = reply.header("WWW-Authenticate").unwrap_or_default();
            assert!(how.starts_with("Basic realm=\""), "{at}: {reply:#?}");
            assert!(reply.json()["error"].is_string(), "{at}: {reply:#?}");
        }
        // Wrong passwords are not to get so many that they have to wait.
        assert_eq!(rfw.request("GET", "/").status, 200);
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
    let mut talk = host.connect(7390);
    talk.say(b"GET http://me:Wr0ngSesame@127.0.0.1:7390/list HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(talk.reply().status, 400);
    rfw.stop();
    let logged = rfw.log() + &rfw.terminal();
    assert!(logged.contains("client=me "), "{logged}");
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
    let urls = "https://127.0.0.1:7393/list#[1-9]";
    let format = ["-o", "/dev/null", "-w", "%{http_code}\\n", "-u", "me:wrong", urls];
    // A browser that has not been told the password yet, or a monitor, hides none that is wrong.
    for _ in 0..3 {
        assert_eq!(rfw.curl(&["https://127.0.0.1:7393/health"]).status, 401);
    }
    for _ in 0..4 {
        let (status, said) = try_curl(&rfw, &format);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(said, "401\n".repeat(9));
        // More in a row would have to wait.
        rfw.ok("GET", "/");
    }
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, expected) in lines.iter().zip([
        "code=not_logged_in error=\"log in with HTTP Basic authentication\"",
        "code=wrong_credentials error=\"wrong user name or password\"",
    ]) {
        assert!(line.ends_with(&format!("[WARN] from=127.0.0.1 status=401 {expected}")), "{lines:#?}");
    }
}

#[test]
fn the_local_server_asks_for_credentials_only_where_it_is_told_to() {
    let request = |header: &str| {
        format!(
            "PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
        )
    };
    let with_login = request(&format!("{LOGIN}\r\n"));
    let wrong = request("Authorization: Basic bWU6d3Jvbmc=\r\n");
    let host = Host::new();
    let mut rfw = host.rfw(IPTABLES).start();
    for good in [&request(""), &with_login, &wrong] {
        assert_eq!(local(&host, good).status, 200, "{good}");
    }
    assert!(rfw.log().contains("client=local from=127.0.0.1 op=insert "), "{}", rfw.log());
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
    assert!(rfw.log().contains("client=me from=127.0.0.1 op=insert "), "{}", rfw.log());
}

// ---- strangers ----

#[test]
fn a_stranger_is_turned_away_before_the_handshake() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure("stay.first = off").start();
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

// ---- the log ----
