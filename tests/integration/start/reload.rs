//! SIGHUP: the whole configuration anew, or nothing of it; what needs a restart is named.

use super::{IPTABLES, kernel, sh};
use crate::host::fake::Fault;
use crate::host::{Host, Reply, Rfw, SOON, Talk, in_both_variants, until};
use std::fs;

/// `Authorization` of `me:secret` and of `a:x`.
const ME: &str = "Authorization: Basic bWU6c2VjcmV0\r\n";
const A: &str = "Authorization: Basic YTp4\r\n";

/// A client that may block single addresses in the list `a`.
const CLIENT: &str = "[client a]\npassword = x\nallow = drop input any\nlists = a\n";

/// What rfw says in its log of each SIGHUP, level and line.
fn said(rfw: &Rfw<'_>) -> Vec<String> {
    let log = rfw.log();
    let of_reload =
        |line: &&str| line.contains(" has been read again: ") || line.contains("the old configuration stays");
    let dir = format!("{}/", rfw.host.dir.display());
    let bare = |line: &str| line[line.find('[').unwrap()..].replace(&dir, "");
    log.lines().filter(of_reload).map(bare).collect()
}

/// Has it read all again, and gives what it says of that.
#[track_caller]
fn reload(rfw: &Rfw<'_>) -> String {
    let before = said(rfw).len();
    rfw.signal("HUP");
    until(SOON, "all is read again", || said(rfw).len() > before);
    said(rfw).pop().unwrap()
}

/// Has it read all again, of which this is changed.
#[track_caller]
fn changes(rfw: &Rfw<'_>, end: &str) {
    assert_eq!(reload(rfw), format!("[INFO] the configuration has been read again: 2 networks; {end}"));
}

/// Has it read all again, which is refused with that error.
#[track_caller]
fn is_refused(rfw: &Rfw<'_>, error: &str) {
    assert_eq!(
        reload(rfw),
        format!("[ERROR] the old configuration stays, since the new one is refused: {error}")
    );
}

fn conf(host: &Host) -> String {
    fs::read_to_string(host.dir.join("rfw.conf")).unwrap()
}

fn write_conf(host: &Host, text: &str) {
    host.write("rfw.conf", 0o600, text);
}

/// A certificate that it signs itself, for so many days, with a key of its own.
fn make_certificate(host: &Host, days: u32) {
    let script = format!(
        "umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout new.key \
         -subj /CN=rfw -days {days} -out new.crt -addext subjectAltName=IP:127.0.0.1 \
         -addext keyUsage=critical,digitalSignature,keyCertSign"
    );
    sh(host, &script);
}

/// A connection over TLS that is kept.
fn connect(host: &Host) -> Talk {
    let arguments = ["s_client", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt", "-verify_return_error"];
    host.talk("openssl", &[&arguments[..], &["-quiet", "-no_ign_eof"]].concat())
}

/// Asks on a kept connection.
#[track_caller]
fn ask(talk: &mut Talk, login: &str, request: &str) -> Reply {
    talk.say(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{login}\r\n").as_bytes());
    talk.reply()
}

/// The fingerprint of the certificate that a new connection is shown.
fn shown(host: &Host) -> String {
    sh(
        host,
        "openssl s_client -connect 127.0.0.1:7393 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint",
    )
}

fn fingerprint(host: &Host, file: &str) -> String {
    host.run("openssl", &["x509", "-noout", "-fingerprint", "-in", file]).ok()
}

// ---- the certificate ----

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut old = connect(&host);
    assert_eq!(ask(&mut old, ME, "GET /list").status, 200);
    let before = shown(&host);
    assert_eq!(before, fingerprint(&host, "server.crt"));
    make_certificate(&host, 20);
    sh(&host, "mv new.crt server.crt; mv new.key server.key; cp server.crt ca.crt");
    let line = reload(&rfw);
    let end = sh(
        &host,
        "date -u +%Y-%m-%dT%H:%M:%SZ -d \"$(openssl x509 -noout -enddate -in server.crt | cut -d= -f2)\"",
    );
    let expected =
        "[INFO] the configuration has been read again: 2 networks; changed: the certificate (until ";
    assert_eq!(line, format!("{expected}{})", end.trim()));
    // The end that is looked at is the new one.
    assert!(rfw.log().contains("[WARN] the certificate expires in 19 days"), "{}", rfw.log());
    assert_eq!(shown(&host), fingerprint(&host, "server.crt"));
    assert_ne!(shown(&host), before);
    rfw.ok("GET", "/list");
    assert_eq!(ask(&mut old, ME, "GET /list").status, 200);
    // The same one is neither told nor warned of again.
    changes(&rfw, "nothing has changed");
    assert_eq!(rfw.log().matches("the certificate expires").count(), 1);
}

#[test]
fn a_key_that_does_not_fit_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let before = shown(&host);
    make_certificate(&host, 90);
    sh(&host, "cp server.key old.key; cat new.key >server.key");
    write_conf(&host, &conf(&host).replace("default.expire = 1h", "default.expire = 0"));
    host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.0/8\n");
    let tables = kernel(&host);
    is_refused(
        &rfw,
        "rfw.conf:5: outward.server.keyfile: server.key: does not fit the certificate server.crt",
    );
    assert_eq!((shown(&host), kernel(&host)), (before, tables));
    assert_ne!(rfw.ok("PUT", "/drop/input/any/10.1.2.3")["expires"], serde_json::Value::Null);
    // Put right, all of it counts.
    sh(&host, "cat old.key >server.key");
    assert_eq!(
        reload(&rfw),
        "[INFO] the configuration has been read again: 3 networks; changed: default.expire, the white list"
    );
    rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400);
    assert_eq!(rfw.ok("PUT", "/drop/input/any/11.1.2.3")["expires"], serde_json::Value::Null);
}

/// A session can't be resumed beyond a reload, with whatever it was begun.
#[test]
fn a_reload_forgets_tls_sessions() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    for version in ["-tls1_2", "-tls1_3"] {
        let connect = |session: [&str; 2]| {
            let common = ["s_client", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt", "-ign_eof", version];
            let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{ME}Connection: close\r\n\r\n");
            host.feed("openssl", &[&common[..], &session].concat(), request.as_bytes()).out
        };
        assert!(connect(["-sess_out", "session"]).contains("200 OK"), "{version}");
        let again = connect(["-sess_in", "session"]);
        assert!(again.contains("Reused, TLSv1") && again.contains("200 OK"), "{version}: {again}");
        assert!(connect(["-sess_out", "session"]).contains("200 OK"), "{version}");
        changes(&rfw, "nothing has changed");
        let again = connect(["-sess_in", "session"]);
        assert!(again.contains("New, TLSv1") && again.contains("200 OK"), "{version}: {again}");
    }
}

// ---- clients ----

#[test]
fn clients_come_change_and_go_on_open_connections_too() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let base = conf(&host);
    let mut open = connect(&host);
    assert_eq!(ask(&mut open, A, "GET /").status, 401);
    write_conf(&host, &format!("{base}{CLIENT}"));
    changes(&rfw, "changed: client a (added)");
    assert_eq!(ask(&mut open, A, "PUT /drop/input/any/1.2.3.4?list=a").status, 200);
    write_conf(&host, &format!("{base}{}", CLIENT.replace("lists = a", "lists = b")));
    changes(&rfw, "changed: client a (lists)");
    let before = kernel(&host);
    assert_eq!(ask(&mut open, A, "PUT /drop/input/any/1.2.3.5?list=a").status, 403);
    assert_eq!(kernel(&host), before);
    assert_eq!(ask(&mut open, A, "PUT /drop/input/any/1.2.3.5?list=b").status, 200);
    write_conf(&host, &format!("{base}{}", CLIENT.replace("= x", "= Sesame")));
    changes(&rfw, "changed: client a (password, lists)");
    assert_eq!(ask(&mut open, A, "GET /").status, 401);
    write_conf(&host, &format!("{base}{CLIENT}"));
    changes(&rfw, "changed: client a (password)");
    assert_eq!(ask(&mut open, A, "GET /").status, 200);
    write_conf(&host, &base.replace("= secret", "= Sesame"));
    changes(&rfw, "changed: auth.password, client a (removed)");
    assert_eq!(ask(&mut open, A, "GET /").status, 401);
    rfw.refused("GET", "/", 401);
    assert!(!rfw.log().contains("Sesame"));
}

#[test]
fn a_local_server_asks_for_names_from_the_next_request_on() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let base = conf(&host);
    let mut open = host.connect(7390);
    assert_eq!(ask(&mut open, "", "GET /").status, 200);
    write_conf(&host, &format!("{base}local.server.authentication\n"));
    changes(&rfw, "changed: local.server.authentication");
    assert_eq!(ask(&mut open, "", "PUT /drop/input/any/1.2.3.4").status, 401);
    assert_eq!(ask(&mut host.connect(7390), "", "GET /").status, 401);
    assert_eq!(ask(&mut open, ME, "GET /").status, 200);
    assert!(!kernel(&host).contains("1.2.3.4"));
    write_conf(&host, &base);
    changes(&rfw, "changed: local.server.authentication");
    assert_eq!(ask(&mut open, "", "GET /").status, 200);
}

/// Lists whose head was accepted before all was read again.
#[test]
fn a_request_under_way_is_judged_by_what_is_in_force_when_it_is_executed() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let base = conf(&host);
    let limited = format!("{CLIENT}expire.max = 1h\n");
    let begin = || {
        let mut talk = host.connect(7390);
        let head = "PUT /drop/input/any?list=a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue";
        talk.say(format!("{head}\r\n{A}Content-Length: 8\r\n\r\n").as_bytes());
        until(SOON, "the head is accepted", || talk.heard().starts_with("HTTP/1.1 100 "));
        talk.forget_all();
        talk
    };
    let finish = |mut talk: Talk| {
        talk.say(b"1.2.3.4\n");
        talk.reply()
    };
    let login = "local.server.authentication\n";
    write_conf(&host, &format!("{base}{login}{limited}"));
    changes(&rfw, "changed: client a (added), local.server.authentication");
    // Nothing that concerns it: a comment, and another client.
    let talk = begin();
    write_conf(&host, &format!("# more\n{base}{login}[client b]\npassword = y\n{limited}"));
    changes(&rfw, "changed: client b (added)");
    assert_eq!(finish(talk).status, 200);
    // A time that it has not asked for, and may not have.
    let talk = begin();
    write_conf(&host, &format!("{}{login}{limited}", base.replace("= 1h", "= 2h")));
    changes(&rfw, "changed: client b (removed), default.expire");
    let before = kernel(&host);
    assert_eq!(finish(talk).status, 403);
    // It has gone.
    write_conf(&host, &format!("{base}{login}{limited}"));
    changes(&rfw, "changed: default.expire");
    let talk = begin();
    write_conf(&host, &format!("{base}{login}"));
    changes(&rfw, "changed: client a (removed)");
    assert_eq!(finish(talk).status, 503);
    assert_eq!(kernel(&host), before);
}

// ---- options ----

#[test]
fn options_that_can_change_do() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let (base, others) = (conf(&host), host.dir.join("others"));
        let url = "/drop/input/any/1.2.3.4?modify=insert";
        rfw.refused("GET", url, 405);
        host.write("others", 0o644, "127.0.0.1\n::1\n10.0.0.0/8\n");
        let lines = "non.restful\nrules.max = 2\nlists.max = 1\n";
        let text = base.replace("default.expire = 1h", &format!("default.expire = 0\n{lines}"));
        let text =
            text.replace(&host.dir.join("white.list").display().to_string(), &others.display().to_string());
        write_conf(&host, &text);
        let changed = "whitelist.file, default.expire, non.restful, rules.max, lists.max, the white list";
        let line = format!("[INFO] the configuration has been read again: 3 networks; changed: {changed}");
        assert_eq!(reload(&rfw), line);
        assert_eq!(rfw.ok("GET", url)["expires"], serde_json::Value::Null);
        rfw.refused("PUT", "/drop/input/any/10.1.2.3", 400);
        rfw.ok("PUT", "/drop/input/any/1.2.3.5?list=a");
        rfw.refused("PUT", "/drop/input/any/1.2.3.6?list=b", 400);
        rfw.refused("PUT", "/drop/input/any/1.2.3.6", 507);
        assert_eq!(host.rules(iptables, "INPUT").len(), 2);
        assert!(host.guards(iptables).iter().any(|guard| guard.contains("10.0.0.0/8")));
    });
}

#[test]
fn rules_stay_first_from_the_moment_on_that_the_option_is_on() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("stay.first = off").start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        host.admin(iptables, "-I INPUT -s 1.2.3.0/24 -j ACCEPT");
        changes(&rfw, "nothing has changed");
        let is_first = || host.rules(iptables, "INPUT")[0].contains("-s 1.2.3.4/32");
        assert!(!is_first());
        write_conf(&host, &conf(&host).replace("stay.first = off", "stay.first = on"));
        changes(&rfw, "changed: stay.first");
        rfw.ok("PUT", "/drop/input/any/1.2.3.5");
        until(SOON, "the rules are moved", || {
            let rules = host.rules(iptables, "INPUT");
            rules.len() == 3 && rules[2].contains("-s 1.2.3.0/24")
        });
    });
}

#[test]
fn fewer_connections_are_kept_where_fewer_may_come() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let mut open: Vec<Talk> = (0..3).map(|_| host.connect(7390)).collect();
    open.iter_mut().for_each(|talk| assert_eq!(ask(talk, "", "GET /").status, 200));
    write_conf(&host, &format!("{}connections.max = 2\n", conf(&host)));
    changes(&rfw, "changed: connections.max");
    until(SOON, "the most silent one is closed", || open[0].is_over());
    open[1..].iter_mut().for_each(|talk| assert_eq!(ask(talk, "", "GET /").status, 200));
}

#[test]
fn what_needs_a_restart_is_named_each_time_and_goes_on_as_it_is() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).start();
        let base = conf(&host);
        let other = if iptables == IPTABLES { "iptables-legacy" } else { IPTABLES };
        let text = base.replace(&format!("iptables.path = {iptables}"), &format!("iptables.path = {other}"));
        // The files of a server that ends with the restart may be gone by then.
        let text = text.replace("outward.server\n", "").replace("= 1h", "= 0");
        let lines = "local.server.port = 7391\nipset = on\nstate.file =\n";
        write_conf(&host, &format!("{text}{lines}"));
        sh(&host, "mkdir kept; mv server.crt server.key kept");
        let waiting = "outward.server, local.server.port, state.file, ipset, iptables.path";
        for taken in ["changed: auth.username, auth.password, default.expire", "nothing has changed"] {
            let line = reload(&rfw);
            let (head, named) = line.split_once("; a restart is needed for: ").unwrap();
            let mut named: Vec<&str> = named.split(", ").collect();
            let mut expected: Vec<&str> = waiting.split(", ").collect();
            named.sort();
            expected.sort();
            assert_eq!(named, expected, "{line}");
            assert_eq!(head, format!("[WARN] the configuration has been read again: 2 networks; {taken}"));
        }
        // Nobody can log in at the server that is off, but it answers.
        rfw.refused("GET", "/", 401);
        assert_eq!(ask(&mut host.connect(7390), "", "PUT /drop/input/any/1.2.3.4").status, 200);
        assert!(
            host.rules(iptables, "INPUT")[0].contains("-s 1.2.3.4/32 -m comment --comment \"rfw permanent\"")
        );
        assert_eq!((host.rules(other, "INPUT").len(), host.sets()), (0, vec![]));
        // Put back, nothing waits any more.
        sh(&host, "mv kept/* .");
        write_conf(&host, &base);
        changes(&rfw, "changed: auth.username, auth.password, default.expire");
        rfw.ok("GET", "/");
        rfw.stop();
    });
}

/// What verifies certificates of clients lies in folders of its own, and is replaced there.
#[test]
fn the_files_for_certificates_of_clients_are_read_again_wherever_they_are() {
    let host = Host::new();
    let lines = "outward.server.clientcert = optional\noutward.server.clientca = /run/ca/ca.crt\n[client a]\nallow = * * *";
    let rfw = host.rfw(IPTABLES).configure(lines);
    sh(&host, "mkdir /run/ca; cp ca.crt /run/ca/ca.crt");
    let rfw = rfw.start();
    changes(&rfw, "nothing has changed");
    make_certificate(&host, 90);
    sh(&host, "cp new.crt /run/ca/new.crt; mv /run/ca/new.crt /run/ca/ca.crt");
    changes(&rfw, "changed: what certificates of clients are verified with");
}

/// A link to a folder that leads elsewhere now, and a file in the place of another in a folder that holds too much.
#[test]
fn what_has_come_to_be_out_of_reach_is_refused_and_said_to_need_a_restart() {
    let host = Host::new();
    sh(&host, "mkdir -p /run/v1 /run/v2; ln -s v1 /run/now");
    let mut rfw = host.rfw(IPTABLES).reconfigure(
        &format!("whitelist.file = {}/white.list", host.dir.display()),
        "whitelist.file = /run/now/white.list",
    );
    sh(&host, "cp white.list /run/v1; cp white.list /run/v2");
    rfw.spawn();
    changes(&rfw, "nothing has changed");
    sh(&host, "ln -sfn v2 /run/now");
    let error = "/run/now/white.list: out of reach, since it is in none of the folders that rfw has kept since \
                 its start: a restart is needed";
    is_refused(&rfw, error);
    sh(&host, "ln -sfn v1 /run/now");
    changes(&rfw, "nothing has changed");
    // One that is not there at all is no matter of a restart.
    sh(&host, "rm /run/v1/white.list; mkfifo /run/v1/white.list");
    is_refused(&rfw, "rfw.conf:10: whitelist.file: /run/now/white.list: not a regular file");
    sh(&host, "rm /run/v1/white.list");
    let error = "rfw.conf:10: whitelist.file: /run/now/white.list: No such file or directory (os error 2)";
    is_refused(&rfw, error);
}

// ---- what is refused ----

#[test]
fn what_is_wrong_leaves_all_as_it_was() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let base = conf(&host);
    let golden = [
        ("[client a]\npassword = x\nallow = drop\n", "", "rfw.conf:14: client a: allow: "),
        ("nonsense = 1\n", "", "rfw.conf:12: unknown option \"nonsense\""),
        (CLIENT, "echo nonsense >>white.list", "white.list:4: \"nonsense\" is not an IPv4 or IPv6 address"),
        (CLIENT, "chmod 644 rfw.conf", "rfw.conf: mode 0644 "),
        (CLIENT, "chmod 644 server.key", "rfw.conf:5: outward.server.keyfile: server.key: mode 0644 "),
        (CLIENT, "chmod 666 white.list", "rfw.conf:10: whitelist.file: white.list: mode 0666 "),
        (CLIENT, "chmod 666 server.crt", "rfw.conf:4: outward.server.certfile: server.crt: mode 0666 "),
        (
            CLIENT,
            "rm server.crt",
            "rfw.conf:4: outward.server.certfile: server.crt: No such file or directory",
        ),
        (CLIENT, "rm rfw.conf", "rfw.conf: No such file or directory"),
    ];
    let before = (kernel(&host), shown(&host));
    for (lines, script, error) in golden {
        // The white list would be taken.
        host.write("white.list", 0o644, "127.0.0.1\n::1\n10.0.0.0/8\n");
        write_conf(&host, &format!("{}{lines}", base.replace("= secret", "= other")));
        sh(&host, &format!("cp -p server.key server.crt /run; {script}"));
        let line = reload(&rfw);
        let start = "[ERROR] the old configuration stays, since the new one is refused: ";
        assert!(line.starts_with(&format!("{start}{error}")), "{script}: {line}");
        assert_eq!((kernel(&host), shown(&host)), before, "{script}");
        let reply = rfw.curl(&["-u", "a:x", "https://127.0.0.1:7393/"]);
        assert_eq!(reply.status, 401, "{script}: {reply:#?}");
        rfw.ok("GET", "/");
        sh(&host, "cp -p /run/server.key /run/server.crt .");
    }
    host.write("white.list", 0o644, "127.0.0.1\n::1\n");
    write_conf(&host, &base);
    changes(&rfw, "nothing has changed");
}

/// The one step that may fail when all is read: the first call that it needs goes wrong, then the second, and
/// so on.
#[test]
fn where_the_white_list_can_not_be_put_into_force_nothing_else_is() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let (path, lines) = host.fake_programs(iptables);
        let rfw = host.rfw(&path).configure(&lines).start();
        make_certificate(&host, 90);
        sh(&host, "cp -p server.crt old.crt; cp -p server.key old.key");
        let base = conf(&host);
        let prepare = |files: &str, list: &str, text: &str| {
            sh(&host, &format!("cp -p {files}.crt server.crt; cp -p {files}.key server.key"));
            host.write("white.list", 0o644, list);
            write_conf(&host, text);
        };
        let (before, certificate) = (kernel(&host), shown(&host));
        let after = format!("{}rules.max = 1\n{CLIENT}", base.replace("= 1h", "= 0"));
        let (mut refused, mut number) = (0, 0);
        loop {
            number += 1;
            prepare("new", "127.0.0.1\n::1\n10.0.0.0/8\n", &after);
            host.fail_at(Fault::Fails, number);
            let line = reload(&rfw);
            let calls = host.heal();
            let asked = rfw.curl(&["-u", "a:x", "https://127.0.0.1:7393/", "--insecure"]);
            if line.starts_with("[ERROR] the old configuration stays") {
                refused += 1;
                assert_eq!(
                    (kernel(&host), shown(&host)),
                    (before.clone(), certificate.clone()),
                    "{iptables}"
                );
                assert_eq!(asked.status, 401, "{iptables} {number}");
            } else {
                assert_ne!(
                    (kernel(&host), shown(&host)),
                    (before.clone(), certificate.clone()),
                    "{iptables}"
                );
                assert_eq!(asked.status, 200, "{iptables} {number}");
            }
            prepare("old", "127.0.0.1\n::1\n", &base);
            reload(&rfw);
            if calls < number {
                break;
            }
        }
        assert!(refused > 0, "no call went wrong");
        assert_eq!((kernel(&host), shown(&host)), (before, certificate), "{iptables}");
        // Both are more than the limit, and with an end, which the refused one had not.
        for address in ["10.1.2.3", "10.1.2.4"] {
            let expires = rfw.ok("PUT", &format!("/drop/input/any/{address}"))["expires"].clone();
            assert_ne!(expires, serde_json::Value::Null);
        }
    });
}

// ---- several signals ----

#[test]
fn of_two_signals_in_a_row_the_last_counts() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).start();
    let base = conf(&host);
    for round in 1..4 {
        write_conf(&host, &format!("{base}{CLIENT}"));
        rfw.signal("HUP");
        rfw.signal("HUP");
        until(SOON, "the client is there", || {
            rfw.curl(&["-u", "a:x", "https://127.0.0.1:7393/"]).status == 200
        });
        write_conf(&host, &base);
        rfw.signal("HUP");
        until(SOON, "the client has gone", || {
            rfw.curl(&["-u", "a:x", "https://127.0.0.1:7393/"]).status == 401
        });
        let count = |end: &str| said(&rfw).iter().filter(|line| line.ends_with(end)).count();
        assert_eq!((count("client a (added)"), count("client a (removed)")), (round, round));
    }
}
