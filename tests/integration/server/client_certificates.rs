//! Clients that show certificates, with the real curl: who gets as far as a request, and what is said of
//! the others.

use super::{IPTABLES, try_curl};
use crate::host::{Host, Rfw, SOON, until};

/// Keys of a CA with the server's, of clients, and of another CA; one client's are taken back, one has a
/// certificate that has ended.
const SCRIPT: &str = r#"set -e
rfwgen=$0
"$rfwgen" 127.0.0.1
cp server_127.0.0.1/server.* client/ca.crt .
for name in honeypot revoked; do "$rfwgen" client $name; done
"$rfwgen" revoke revoked
mkdir other && (cd other && "$rfwgen" client honeypot)
umask 077
echo extendedKeyUsage=clientAuth >ext
echo keyUsage=digitalSignature >any
request() { openssl req -new -key client_honeypot/client.key -subj /CN=honeypot; }
request | openssl x509 -req -CA ca.crt -CAkey offline/ca.key -set_serial 7 -days 30 -extfile any -out any.crt
request >csr
printf '[ca]\ndefault_ca=x\n[x]\ndatabase=db\nserial=s\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' >cnf
: >db && echo 77 >s
openssl ca -batch -notext -config cnf -keyfile offline/ca.key -cert ca.crt -in csr -out ended.crt -extfile ext \
    -startdate 20200101000000Z -enddate 20210101000000Z
"#;

/// rfw with these keys and one of the modes of `outward.server.clientcert`.
fn rfw<'a>(host: &'a Host, lines: &str) -> Rfw<'a> {
    let rfw = host.rfw(IPTABLES);
    let rfwgen = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");
    host.run("sh", &["-c", SCRIPT, rfwgen]).ok();
    rfw.configure(&lines.replace("{}", &host.dir.display().to_string()))
}

/// The client of the certificates, behind all other lines.
const SECTION: &str = "\n[client honeypot]\npassword = secret\n";

/// Its password in a request.
const REQUEST: &[u8] =
    b"GET /list HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic aG9uZXlwb3Q6c2VjcmV0\r\n\r\n";

/// Asks with a certificate, or without one, and gives the status of curl and of the answer.
fn ask(rfw: &Rfw<'_>, certificate: Option<(&str, &str)>, version: &str) -> (Option<i32>, String) {
    let mut arguments =
        vec!["-u", "honeypot:secret", "--tls-max", version, "-o", "/dev/null", "-w", "%{http_code}"];
    if let Some((crt, key)) = certificate {
        arguments.extend(["--cert", crt, "--key", key]);
    }
    arguments.push("https://127.0.0.1:7393/list");
    try_curl(rfw, &arguments)
}

const HONEYPOT: &str = "client_honeypot/client.key";

/// What a client shows, and whether a CRL takes it back; `None` is admitted, else why it is refused.
const SHOWN: [(&str, &str, Option<&str>); 7] = [
    ("client_honeypot/client.crt", HONEYPOT, None),
    ("client_revoked/client.crt", "client_revoked/client.key", Some("taken back by a list")),
    ("other/client_honeypot/client.crt", "other/client_honeypot/client.key", Some("is of no CA in")),
    ("server_127.0.0.1/server.crt", "server_127.0.0.1/server.key", Some("expected clientAuth")),
    ("any.crt", HONEYPOT, Some("expected clientAuth")),
    ("ended.crt", HONEYPOT, Some("expired")),
    ("", "", None),
];

#[test]
fn a_client_gets_as_far_as_its_certificate_allows() {
    let host = Host::new();
    let files = "outward.server.clientca = {}/ca.crt\noutward.server.clientcrl = {}/offline/ca.crl";
    let mut rfw = rfw(&host, &format!("{files}\noutward.server.clientcert = off{SECTION}"));
    let mut mode = "off";
    for next in ["off", "optional", "required"] {
        rfw = rfw.reconfigure(&format!("clientcert = {mode}"), &format!("clientcert = {next}"));
        mode = next;
        for (crt, key, refused) in SHOWN {
            let refused = match (mode, crt) {
                ("off", _) => None,
                ("required", "") => Some("expected a certificate of a client"),
                _ => refused,
            };
            // Started anew, since only one line a minute tells of handshakes.
            rfw.spawn();
            for version in ["1.2", "1.3"] {
                let shown = Some((crt, key)).filter(|(crt, _)| !crt.is_empty());
                let (status, said) = ask(&rfw, shown, version);
                match refused {
                    None => assert_eq!((status, said.as_str()), (Some(0), "200"), "{mode} {version} {crt}"),
                    // What curl says depends on which of the two is first to see the end.
                    Some(_) => {
                        assert!(status.is_some_and(|status| status != 0) && !said.contains("200"), "{said}")
                    }
                }
            }
            if let Some(why) = refused {
                until(SOON, "the log tells why", || rfw.log().contains("no TLS handshake"));
                let log = rfw.log();
                let lines: Vec<&str> = log.lines().filter(|line| line.contains("no TLS handshake")).collect();
                assert!(
                    lines.len() == 1 && lines[0].contains(why),
                    "{mode} {crt}: {lines:?}, expected {why}"
                );
            }
            let named = mode != "off" && crt == "client_honeypot/client.crt";
            assert_eq!(rfw.log().contains("127.0.0.1: certificate of honeypot\n"), named, "{mode} {crt}");
            rfw.stop();
        }
    }
}

#[test]
fn a_client_that_is_refused_is_told_by_an_alert() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcert = required";
    let rfw = rfw(&host, &format!("{lines}{SECTION}")).start();
    for version in ["-tls1_2", "-tls1_3"] {
        for (certificate, alert) in [
            (vec![], "alert certificate required"),
            (vec!["-cert", "ended.crt", "-key", HONEYPOT], "alert certificate expired"),
            (vec!["-cert", "any.crt", "-key", HONEYPOT], "alert unsupported certificate"),
        ] {
            let common = ["20", "openssl", "s_client", "-connect", "127.0.0.1:7393", "-ign_eof", version];
            let said = host.feed("timeout", &[&common[..], &certificate].concat(), b"");
            assert!(said.err.contains(alert), "{version} {certificate:?}: {said:#?}");
        }
    }
    assert_eq!(ask(&rfw, Some(("client_honeypot/client.crt", HONEYPOT)), "1.3"), (Some(0), "200".to_owned()));
}

/// rustls resumes a session without looking at its certificate, so that rfw does.
#[test]
fn a_session_is_resumed_with_its_certificate() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcert = required";
    let rfw = rfw(&host, &format!("{lines}{SECTION}")).start();
    for (version, number) in [("-tls1_2", 2), ("-tls1_3", 4)] {
        let connect = |arguments: &[&str]| {
            let common = ["s_client", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt", "-ign_eof", version];
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic aG9uZXlwb3Q6c2VjcmV0\r\nConnection: close\r\n\r\n";
            host.feed("openssl", &[&common[..], arguments].concat(), request).out
        };
        let certificate = ["-cert", "client_honeypot/client.crt", "-key", HONEYPOT, "-sess_out", "session"];
        let first = connect(&certificate);
        assert!(first.contains("New, TLSv1") && first.contains("200 OK"), "{version}: {first}");
        let second = connect(&["-sess_in", "session"]);
        assert!(second.contains("Reused, TLSv1") && second.contains("200 OK"), "{version}: {second}");
        let log = rfw.log();
        assert_eq!(log.matches("127.0.0.1: certificate of honeypot\n").count(), number, "{log}");
    }
}

#[test]
fn what_can_not_be_used_is_refused_at_the_start() {
    let host = Host::new();
    let mut rfw = rfw(&host, "outward.server.clientcert = required\noutward.server.clientca = {}/ca.crt");
    let crl = "outward.server.clientcrl = {}/ca.crl".replace("{}", &host.dir.display().to_string());
    rfw.call(&["--check"]).ok();
    rfw = rfw.configure(&crl);
    let said = rfw.call(&["--check"]).fails_with(78);
    assert!(
        said.contains("rfw.conf:14: outward.server.clientcrl: ") && said.contains("No such file"),
        "{said}"
    );
    host.run("cp", &["offline/ca.crl", "ca.crl"]).ok();
    rfw.call(&["--check"]).ok();
    for (spoil, message) in [
        ("chmod 666 ca.crl", "outward.server.clientcrl: {}/ca.crl: mode 0666 lets others write it"),
        ("cp ca.crt ca.crl", "outward.server.clientcrl: {}/ca.crl: expected certificate revocation lists"),
        ("chmod 666 ca.crt", "outward.server.clientca: {}/ca.crt: mode 0666 lets others write it"),
        ("cp server.crt ca.crt", "outward.server.clientca: {}/ca.crt: \"CN=127.0.0.1\" is no CA"),
        ("rm ca.crt", "outward.server.clientca: {}/ca.crt: No such file"),
    ] {
        host.run("sh", &["-c", &format!("rm -f ca.crl && cp offline/ca.crl . && {spoil}")]).ok();
        let said = rfw.call(&["--check"]).fails_with(78);
        let expected = message.replace("{}", &host.dir.display().to_string());
        assert!(said.contains(&expected), "{said}, expected {expected}");
        host.run("cp", &["--remove-destination", "client/ca.crt", "ca.crt"]).ok();
    }
}

/// A connection stays open as long as requests come, which is longer than a certificate may last.
#[test]
fn a_certificate_that_ends_on_an_open_connection_is_refused() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcert = required";
    let rfw = rfw(&host, &format!("{lines}{SECTION}")).start();
    let script = ": >db && openssl ca -batch -notext -config cnf -keyfile offline/ca.key -cert ca.crt -in csr -out short.crt \
        -extfile ext -startdate 20200101000000Z -enddate $(date -u -d '+12 seconds' +%Y%m%d%H%M%SZ)";
    host.run("sh", &["-c", script]).ok();
    let arguments =
        ["s_client", "-quiet", "-CAfile", "ca.crt", "-cert", "short.crt", "-key", HONEYPOT, "-connect"];
    let mut talk = host.talk("openssl", &[&arguments[..], &["127.0.0.1:7393"]].concat());
    let mut ask = || {
        talk.say(REQUEST);
        talk.reply()
    };
    assert_eq!(ask().status, 200);
    let mut last = None;
    until(2 * SOON, "the certificate has ended", || {
        let reply = ask();
        let ended = reply.status != 200;
        last = Some(reply);
        ended
    });
    let last = last.unwrap();
    assert_eq!(last.status, 401, "{last:#?}");
    assert!(last.json()["error"].as_str().unwrap().contains("your certificate has expired"), "{last:#?}");
    // Other connections stay where the white list is read again, this one does not.
    let arguments =
        ["s_client", "-quiet", "-CAfile", "ca.crt", "-cert", "client_honeypot/client.crt", "-key", HONEYPOT];
    let mut other = host.talk("openssl", &[&arguments[..], &["-connect", "127.0.0.1:7393"]].concat());
    other.say(REQUEST);
    assert_eq!(other.reply().status, 200);
    let waiting = host.connect(7393);
    rfw.signal("HUP");
    until(SOON, "the connection is closed", || talk.is_over());
    assert!(rfw.log().contains("127.0.0.1: connection closed: "), "{}", rfw.log());
    other.say(REQUEST);
    assert_eq!(other.reply().status, 200);
    assert!(!waiting.is_over());
}

/// A list that has ended lets nobody in, and the log says so.
#[test]
fn a_list_that_ends_is_warned_of() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcrl = {}/short.crl\noutward.server.clientcert = optional";
    let mut rfw = rfw(&host, &format!("{lines}{SECTION}"));
    let make = |how: &str| {
        let script = "printf '[y]\nauthorityKeyIdentifier=keyid\n' >>cnf; sed -i 's/^database/crlnumber=number\\n&/' cnf; echo 01 >number
            openssl ca -gencrl -config cnf -keyfile offline/ca.key -cert ca.crt -crlexts y -out short.crl";
        host.run("sh", &["-c", &format!("{script} {how}")]).ok();
    };
    make("-crldays 3");
    let said = rfw.call(&["--check"]);
    assert!(said.err.contains("a list of outward.server.clientcrl expires in 2 days"), "{said:#?}");
    make("-crlsec 1");
    until(SOON, "the list has ended", || rfw.call(&["--check"]).err.contains("clientcrl has expired"));
    rfw.spawn();
    let warning = "a list of outward.server.clientcrl has expired: every certificate that its CA has signed for clients is refused";
    assert!(rfw.log().contains(warning), "{}", rfw.log());
    let (status, said) = ask(&rfw, Some(("client_honeypot/client.crt", HONEYPOT)), "1.3");
    assert!(status != Some(0) && said != "200", "{said}");
    assert_eq!(ask(&rfw, None, "1.3"), (Some(0), "200".to_owned()));
}

/// With the port open for all, a stranger with many addresses took the places of clients who had logged in.
#[test]
fn strangers_drive_out_no_client_that_has_logged_in() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcert = required\nconnections.max = 8\n\
        [client honeypot]\nfrom = any\n";
    let rfw = rfw(&host, lines).start();
    let common =
        ["s_client", "-quiet", "-CAfile", "ca.crt", "-cert", "client_honeypot/client.crt", "-key", HONEYPOT];
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bind in ["127.0.0.1:0", "127.0.8.1:0"] {
        let client =
            || host.talk("openssl", &[&common[..], &["-bind", bind, "-connect", "127.0.0.1:7393"]].concat());
        let mut clients = [client(), client(), client()];
        let mut ask_all = || {
            for client in &mut clients {
                client.say(request);
                assert_eq!(client.reply().status, 200, "{}", rfw.log());
            }
        };
        ask_all();
        let strangers: Vec<_> = (1..=12)
            .map(|number| {
                // It waits for a greeting and says nothing.
                let from = format!("127.0.7.{number}:0");
                host.talk(
                    "openssl",
                    &["s_client", "-starttls", "smtp", "-bind", &from, "-connect", "127.0.0.1:7393"],
                )
            })
            .collect();
        until(SOON, "some had to go", || strangers.iter().filter(|stranger| stranger.is_over()).count() >= 7);
        ask_all();
    }
}

/// The guard came to the head of its chains at each start, and where it was open for all it let blocked ones through.
#[test]
fn who_is_blocked_does_not_get_through_a_guard_that_is_open_for_all() {
    let host = Host::new();
    let lines = "outward.server.clientca = {}/ca.crt\noutward.server.clientcert = required\nipset = off\n\
        [client honeypot]\nfrom = any\n";
    let mut rfw = rfw(&host, lines).start();
    let put = |rfw: &Rfw<'_>, address: &str| {
        let url = format!("http://localhost:7390/drop/input/any/{address}");
        assert_eq!(rfw.curl(&["-X", "PUT", &url]).status, 200);
    };
    put(&rfw, "127.0.7.1");
    put(&rfw, "2001:db8::7");
    let kind = |rule: &str| if rule.contains("rfw guard") { "guard" } else { "block" };
    let chains = || {
        [IPTABLES, "ip6tables-nft"].map(|iptables| {
            let rules = host.run(iptables, &["-S", "INPUT"]).ok();
            rules.lines().filter(|rule| rule.starts_with("-A")).map(kind).collect::<Vec<_>>()
        })
    };
    let mut mode = "off";
    for next in ["off", "on", "on"] {
        rfw.stop();
        rfw = rfw.reconfigure(&format!("ipset = {mode}\n"), &format!("ipset = {next}\n"));
        mode = next;
        rfw.spawn();
        until(2 * SOON, "the guard is behind", || chains() == [["block", "guard", "guard"]; 2]);
        assert!(!rfw.log().contains("others have put a rule"), "{}", rfw.log());
        let (status, _) = {
            let arguments = ["--interface", "127.0.7.1", "--connect-timeout", "1", "https://127.0.0.1:7393/"];
            try_curl(&rfw, &arguments)
        };
        assert_eq!(status, Some(28));
        let common = ["-ksS", "--cert", "client_honeypot/client.crt", "--key", HONEYPOT, "-o", "/dev/null"];
        let from = ["--interface", "127.0.7.2", "https://127.0.0.1:7393/"];
        host.run("curl", &[&common[..], &from].concat()).ok();
    }
    // Where it is closed again it comes first.
    let rfw = rfw.reconfigure("from = any", "from = 127.0.0.1");
    rfw.signal("HUP");
    until(SOON, "the guard is before", || chains() == [["guard", "guard", "block"]; 2]);
}
