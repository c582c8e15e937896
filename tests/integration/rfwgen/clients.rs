//! Certificates of clients, and lists of those that are taken back.

use super::{Place, SERVER_CRT};
use std::fs;

const CRT: &str = "client_honeypot/client.crt";
const LIST: &str = "offline/ca.crl";

impl Place {
    /// A place where the script has made a CA, a server and the client honeypot.
    fn with_client() -> Place {
        let place = Place::with_server();
        place.rfwgen(&["client", "honeypot"]).exits(0);
        place
    }

    /// Whether a certificate is good for a client, by the list where there is one.
    fn is_good(&self, certificate: &str) -> bool {
        let list = ["-crl_check", "-CRLfile", LIST];
        let list = if self.path(LIST).exists() { &list[..] } else { &[] };
        let strict = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "client/ca.crt"];
        let run = self.try_openssl(&[&strict[..], list, &[certificate]].concat());
        run.output.status.success()
    }

    /// The numbers of the certificates in the list, which openssl sorts.
    fn taken_back(&self) -> Vec<String> {
        let text = self.openssl(&["crl", "-in", LIST, "-noout", "-text"]);
        text.lines()
            .filter_map(|line| Some(line.trim().strip_prefix("Serial Number: ")?.to_owned()))
            .collect()
    }

    fn serial(&self, certificate: &str) -> String {
        let serial = self.openssl(&["x509", "-in", certificate, "-noout", "-serial"]);
        serial.trim().strip_prefix("serial=").unwrap().to_owned()
    }
}

#[test]
fn a_client_gets_a_key_and_a_certificate_for_clients_only() {
    let place = Place::with_client();
    let listing = place.listing();
    for wanted in ["700 client_honeypot", "644 client_honeypot/client.crt", "600 client_honeypot/client.key"]
    {
        assert!(listing.contains(&wanted.to_owned()), "{listing:?}");
    }
    assert_eq!(listing.len(), super::FIRST_RUN.len() + 3);
    let client = |heading| place.extension(CRT, heading);
    assert_eq!(client("X509v3 Basic Constraints: critical"), "CA:FALSE");
    assert_eq!(client("X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(client("X509v3 Extended Key Usage:"), "TLS Web Client Authentication");
    assert!(place.is_good(CRT) && !place.is_good(SERVER_CRT));
    let as_server = place.verify(CRT, &[]);
    as_server.check(!as_server.output.status.success(), "wanted a refusal as a server");
    let [of_key, of_crt] = [
        place.openssl(&["pkey", "-in", "client_honeypot/client.key", "-pubout"]),
        place.openssl(&["x509", "-in", CRT, "-noout", "-pubkey"]),
    ];
    assert_eq!(of_key, of_crt);
    assert!(place.ends_within(CRT, 3650) && !place.ends_within(CRT, 3649));
}

#[test]
fn a_first_run_for_a_client_makes_the_ca() {
    let place = Place::new();
    place.rfwgen(&["--days=30", "client", "honeypot", "--rsa", "2048"]).exits(0);
    assert!(place.is_good(CRT) && place.ends_within(CRT, 30) && !place.ends_within(CRT, 29));
    assert!(place.certificate(CRT).iter().any(|line| line.contains("(2048 bit")));
    place.rfwgen(&["11.11.11.11"]).exits(0);
    place.verify(SERVER_CRT, &[]).exits(0);
}

#[test]
fn the_name_is_the_common_name_and_a_dns_name_where_it_can_be_one() {
    let place = Place::with_server();
    let long = "a".repeat(64);
    let names = [
        ("honeypot", Some("DNS:honeypot")),
        ("Fw-1.Example.org", Some("DNS:fw-1.example.org")),
        ("fail2ban_3", None),
        ("10.0.0.1", None),
        ("7", None),
        ("client", Some("DNS:client")),
        ("revoke", Some("DNS:revoke")),
        (&long, None),
    ];
    for (name, dns) in names {
        place.rfwgen(&["client", name]).exits(0);
        let crt = format!("client_{name}/client.crt");
        let subject = place.openssl(&["x509", "-in", &crt, "-noout", "-subject", "-nameopt", "RFC2253"]);
        assert_eq!(subject.trim(), format!("subject=CN={name}"));
        let lines = place.certificate(&crt);
        let found = lines.iter().find_map(|line| line.strip_prefix("DNS:"));
        assert_eq!(found.map(|name| format!("DNS:{name}")).as_deref(), dns, "{name}");
        assert!(place.is_good(&crt), "{name}");
    }
}

#[test]
fn the_certificate_of_a_client_is_replaced_on_demand_only() {
    let place = Place::with_client();
    let before = place.snapshot();
    place.rfwgen(&["client", "honeypot"]).refuses(1, &["client_honeypot", "--force"]);
    assert_eq!(place.snapshot(), before);
    place.rfwgen(&["client", "honeypot", "--force"]).exits(0);
    assert_ne!(place.snapshot(), before);
    assert!(place.is_good(CRT));
}

#[test]
fn what_is_taken_back_stays_so() {
    let place = Place::with_client();
    place.rfwgen(&["client", "monitor"]).exits(0);
    let first = place.serial(CRT);
    let run = place.rfwgen(&["revoke", "honeypot"]).exits(0);
    run.check(run.stdout().contains("outward.server.clientcrl = /etc/rfw/ssl/ca.crl"), "wanted the option");
    assert!(place.listing().contains(&format!("644 {LIST}")), "{:?}", place.listing());
    assert_eq!(place.taken_back(), [first.as_str()]);
    assert!(!place.is_good(CRT) && place.is_good("client_monitor/client.crt"));
    // Again is the same.
    place.rfwgen(&["revoke", "honeypot"]).exits(0);
    assert_eq!(place.taken_back(), [first.as_str()]);
    // A new certificate is another, and both can be taken back.
    place.rfwgen(&["client", "honeypot", "--force"]).exits(0);
    assert!(place.is_good(CRT));
    let second = place.serial(CRT);
    place.rfwgen(&["revoke", "honeypot"]).exits(0);
    place.rfwgen(&["revoke", "monitor"]).exits(0);
    let third = place.serial("client_monitor/client.crt");
    let mut all = [first, second, third];
    all.sort();
    assert_eq!(place.taken_back(), all);
    assert!(!place.is_good(CRT) && !place.is_good("client_monitor/client.crt"));
}

#[test]
fn a_list_lasts_as_long_as_the_ca() {
    let place = Place::with_client();
    place.rfwgen(&["revoke", "honeypot"]).exits(0);
    let text = place.openssl(&["crl", "-in", LIST, "-noout", "-text"]);
    assert!(text.contains("Version 2") && text.contains("X509v3 CRL Number"), "{text}");
    let year = |text: &str| {
        text.split_whitespace().find_map(|word| word.parse::<u16>().ok().filter(|year| *year > 2000))
    };
    let next = text.lines().find(|line| line.contains("Next Update")).and_then(year);
    let end = year(&place.openssl(&["x509", "-in", "client/ca.crt", "-noout", "-enddate"]));
    let (next, end) = (next.unwrap(), end.unwrap());
    assert!(next == end || next + 1 == end, "{next} {end}");
}

#[test]
fn what_can_not_be_taken_back_is_refused() {
    let place = Place::with_client();
    let other = Place::with_client();
    let refuses = |arguments: &[&str], words: &[&str]| {
        let before = place.snapshot();
        place.rfwgen(arguments).refuses(1, words);
        assert_eq!(place.snapshot(), before, "{arguments:?}");
    };
    refuses(&["revoke", "monitor"], &["client_monitor/client.crt is not here"]);
    fs::create_dir(place.path("client_other")).unwrap();
    fs::copy(other.path(CRT), place.path("client_other/client.crt")).unwrap();
    let run = place.rfwgen(&["revoke", "other"]).exits(1);
    run.check(run.stderr().contains("client_other/client.crt is not of this CA"), "wanted the reason");
    assert!(!place.path(LIST).exists());
    fs::rename(place.path("offline/ca.key"), place.path("key")).unwrap();
    refuses(&["revoke", "honeypot"], &["offline/ca.key is not", "Replace the CA"]);
}

#[test]
fn a_list_that_fails_leaves_the_old_one() {
    let place = Place::with_client();
    place.rfwgen(&["client", "monitor"]).exits(0);
    place.rfwgen(&["revoke", "honeypot"]).exits(0);
    let before = place.snapshot();
    for (moment, then) in
        [("ca -gencrl*", "exit 1"), ("ca -gencrl*", "kill -s TERM $PPID; exit 0"), ("crl*", "exit 1")]
    {
        let path = place.fake("openssl", &super::refusal::broken_openssl(moment, then));
        let mut command = place.command(super::SCRIPT);
        command.args(["revoke", "monitor"]).env("PATH", path);
        let run = place.run(command);
        run.check(!run.output.status.success(), "wanted a failure");
        assert_eq!(place.snapshot(), before, "{then} at {moment}");
        fs::remove_file(place.root.join("bin/openssl")).unwrap();
    }
    place.rfwgen(&["revoke", "monitor"]).exits(0);
    assert_eq!(place.taken_back().len(), 2);
}

#[test]
fn a_client_that_is_cut_short_leaves_no_half_made_file() {
    let place = Place::with_server();
    let before = place.snapshot();
    for moment in ["genpkey*client.key*", "x509 -req*", "verify*"] {
        let path =
            place.fake("openssl", &super::refusal::broken_openssl(moment, "kill -s TERM $PPID; exit 0"));
        let mut command = place.command(super::SCRIPT);
        command.args(["client", "honeypot"]).env("PATH", path);
        place.run(command).exits(143);
        assert_eq!(place.snapshot(), before, "{moment}");
        fs::remove_file(place.root.join("bin/openssl")).unwrap();
    }
}

#[test]
fn what_next_is_told_for_a_client() {
    let run = Place::with_server().rfwgen(&["client", "honeypot"]).exits(0);
    for word in [
        "curl --cacert ca.crt --cert client.crt --key client.key https://",
        "[client honeypot]",
        "outward.server.clientca = /etc/rfw/ssl/ca.crt",
        "offline/ca.key",
    ] {
        run.check(run.stdout().contains(word), &format!("wanted {word}"));
    }
}
