//! TLS: versions, keys and chains, and who is turned away by it.

use super::{IPTABLES, rules, try_curl};
use crate::host::Host;
use std::fs;
use std::time::{Duration, Instant};

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

#[test]
fn a_tls_session_is_resumed() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    for version in ["-tls1_2", "-tls1_3"] {
        let connect = |session: [&str; 2]| {
            let common = ["s_client", "-connect", "127.0.0.1:7393", "-CAfile", "ca.crt", "-ign_eof", version];
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic bWU6c2VjcmV0\r\nConnection: close\r\n\r\n";
            host.feed("openssl", &[&common[..], &session].concat(), request).out
        };
        let first = connect(["-sess_out", "session"]);
        assert!(first.contains("New, TLSv1") && first.contains("200 OK"), "{version}: {first}");
        let second = connect(["-sess_in", "session"]);
        assert!(second.contains("Reused, TLSv1") && second.contains("200 OK"), "{version}: {second}");
    }
    drop(rfw);
}
