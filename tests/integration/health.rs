//! `GET /health`: what is wrong is really wrong, it is told in a word and a sentence, and it is told no more once it
//! is right again.

use crate::host::{Host, Rfw, SOON, until};
use serde_json::Value;
use std::fs;

/// What the local server, which asks for no credentials here, answers.
#[track_caller]
fn health(rfw: &Rfw<'_>) -> (u16, Value) {
    let reply = rfw.curl(&["http://127.0.0.1:7390/health"]);
    (reply.status, reply.json())
}

/// The words for what is wrong.
#[track_caller]
fn codes(rfw: &Rfw<'_>) -> Vec<String> {
    let (status, health) = health(rfw);
    let problems = health["problems"].as_array().expect("problems").iter();
    let codes: Vec<String> = problems.map(|problem| problem["code"].as_str().unwrap().to_owned()).collect();
    let expected = if codes.is_empty() { (200, "ok") } else { (503, "failing") };
    assert_eq!((status, health["status"].as_str().unwrap()), expected, "{health}");
    codes
}

#[test]
fn who_is_well_says_what_it_holds_to_who_may_see_all() {
    for iptables in crate::host::VARIANTS {
        let host = Host::new();
        let sections = "[client mine]\npassword = secret of mine\nallow = * * *\nlists = mine\n\
                        [client all]\npassword = secret of all\nread = all\n\
                        [client none]\npassword = secret of none\nread = none";
        let rfw = host.rfw(iptables).configure(sections).start();
        rfw.send_ok("PUT", "/drop/input/any?list=mine", "1.2.3.4\n2001:db8::1\n");
        rfw.ok("PUT", "/drop/input/any/1.2.3.5");
        let of = |client: &str| {
            let reply = rfw.curl(&["-u", client, "https://127.0.0.1:7393/health"]);
            assert_eq!(reply.status, 200, "{reply:#?}");
            reply.json()
        };
        let health = of("me:secret");
        assert_eq!((&health["status"], &health["problems"]), (&"ok".into(), &Value::Array(Vec::new())));
        assert_eq!((&health["lists"], &health["entries"]), (&2.into(), &3.into()));
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(health["variant"], iptables.trim_start_matches("iptables-"));
        for time in ["started", "now", "certificate_expires"] {
            let text = health[time].as_str().unwrap_or_default();
            assert!(text.starts_with("20") && text.ends_with('Z'), "{time}: {health}");
        }
        assert!(health["started"].as_str() <= health["now"].as_str(), "{health}");
        until(SOON, "the state file is written", || of("me:secret")["state_saved"].is_string());
        assert_eq!(of("all:secret of all")["entries"], 3);
        for client in ["mine:secret of mine", "none:secret of none"] {
            let health = of(client);
            assert_eq!((&health["lists"], &health["entries"]), (&Value::Null, &Value::Null), "{client}");
            assert_eq!(health["status"], "ok");
        }
        let head = rfw.request("HEAD", "/health");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert!(rfw.refused("PUT", "/health", 405).contains("GET, HEAD"));
        assert!(rfw.refused("GET", "/health/now", 400).contains("\"now\" is too much"));
        assert!(rfw.refused("GET", "/health?list=mine", 400).contains("unknown parameter \"list\""));
        assert_eq!(rfw.curl(&["https://127.0.0.1:7393/health"]).status, 401);
    }
}

/// iptables-restore fails, so that the guard that others have flushed can't come back.
#[test]
fn a_guard_that_can_not_be_put_back_is_told() {
    let host = Host::new();
    let (path, lines) = host.fake_programs("iptables-nft");
    let rfw = host.rfw(&path).configure(&lines).start();
    assert_eq!(codes(&rfw), [""; 0]);
    let program = host.dir.join("programs/iptables-nft-restore");
    let good = fs::read_to_string(&program).unwrap();
    host.write("programs/iptables-nft-restore", 0o755, "#!/bin/sh\necho broken >&2\nexit 1\n");
    for (pid, line) in rfw.children() {
        if line.contains("restore") {
            crate::host::run("kill", &["-s", "KILL", &pid.to_string()]).ok();
        }
    }
    host.run("iptables-nft", &["-F", "INPUT"]).ok();
    until(SOON, "it is told", || codes(&rfw).contains(&"guard_missing".to_owned()));
    let (_, told) = health(&rfw);
    let is_it = |problem: &Value| problem["error"].as_str().unwrap().contains("port 7393 on IPv4");
    assert!(told["problems"].as_array().unwrap().iter().any(is_it), "{told}");
    assert!(told["problems"].to_string().contains("look_failed"), "{told}");
    let reply = rfw.curl(&["http://127.0.0.1:7390/health"]);
    assert_eq!(reply.header("Retry-After"), Some("10"), "{reply:#?}");
    host.write("programs/iptables-nft-restore", 0o755, &good);
    until(2 * SOON, "it is there again", || codes(&rfw).is_empty());
    assert!(!host.guards("iptables-nft").is_empty());
}

/// Another program has put into a table what iptables does not know.
#[test]
fn a_table_that_can_not_be_read_is_told_and_no_more_once_it_can() {
    let host = Host::new();
    let sections = "[client mine]\npassword = secret of mine\nlists = mine";
    let rfw = host.rfw("iptables-nft").configure(sections).start();
    host.run("nft", &["add", "rule", "ip", "filter", "OUTPUT", "meta mark set ct mark"]).ok();
    until(SOON, "it is told", || codes(&rfw).contains(&"table_unreadable".to_owned()));
    assert_eq!(codes(&rfw), ["table_unreadable"]);
    let told = health(&rfw).1["problems"][0]["error"].to_string();
    assert!(told.contains("the table of IPv4 can't be read: ") && told.contains("nft list table"), "{told}");
    let reply = rfw.curl(&["-u", "mine:secret of mine", "https://127.0.0.1:7393/health"]);
    let told = reply.json()["problems"][0]["error"].to_string();
    assert!(reply.status == 503 && told.contains("the log of rfw says why"), "{told}");
    host.run("nft", &["flush", "chain", "ip", "filter", "OUTPUT"]).ok();
    until(SOON, "it is read again", || codes(&rfw).is_empty());
}

#[test]
fn a_state_file_that_can_not_be_written_is_told() {
    let host = Host::new();
    host.run("mkdir", &["/var/lib/small"]).ok();
    host.run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", "/var/lib/small"]).ok();
    let rfw = host.rfw("iptables-nft").configure("state.file = /var/lib/small/state").start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4");
    until(SOON, "it is written", || health(&rfw).1["state_saved"].is_string());
    let saved = health(&rfw).1["state_saved"].clone();
    host.run("sh", &["-c", "head -c 100000 /dev/zero >/var/lib/small/much; true"]).ok();
    // More than the page that the file has already.
    let list: String = (1..255).map(|number| format!("1.2.4.{number}\n")).collect();
    rfw.send_ok("PUT", "/drop/input/any?expire=1h", &list);
    until(SOON, "it is told", || codes(&rfw) == ["state_not_writable"]);
    let (_, told) = health(&rfw);
    let error = told["problems"][0]["error"].as_str().unwrap();
    assert!(error.contains("/var/lib/small/state") && error.contains("No space left on device"), "{error}");
    assert_eq!(told["state_saved"], saved);
}

#[test]
fn a_certificate_that_has_ended_is_told_until_there_is_another() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft");
    let script = "set -e; umask 077; cp server.crt good.crt; cp server.key good.key
        printf '[ca]\ndefault_ca=x\n[x]\ndatabase=db\nserial=s\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' >cnf
        : >db && echo 77 >s
        openssl ecparam -name prime256v1 -genkey -noout -out root.key
        openssl req -x509 -new -key root.key -subj /CN=root -days 9 -out root.crt
        openssl req -new -key server.key -subj /CN=rfw -out csr
        echo subjectAltName=IP:127.0.0.1 >ext
        openssl ca -batch -notext -config cnf -keyfile root.key -cert root.crt -in csr -out server.crt -extfile ext \
            -startdate 20200101000000Z -enddate $(date -u -d '+3 seconds' +%Y%m%d%H%M%SZ)";
    host.run("sh", &["-c", script]).ok();
    let rfw = rfw.start();
    until(SOON, "it has ended", || codes(&rfw) == ["certificate_ended"]);
    let (_, told) = health(&rfw);
    assert!(told["certificate_expires"].as_str() < told["now"].as_str(), "{told}");
    assert_eq!(told["problems"][0]["error"], "the certificate has expired: clients will refuse it");
    host.run("cp", &["good.crt", "server.crt"]).ok();
    rfw.reload();
    assert_eq!(codes(&rfw), [""; 0]);
}
