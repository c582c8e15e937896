//! Options, and what is printed.

use super::{FIRST_RUN, Place, SERVER_CRT};
use crate::golden::cases;

// ---- options ----

#[test]
fn keys_are_ecdsa_p_256_or_rsa() {
    let cases: [(&[&str], &str); 5] = [
        (&[], "ASN1 OID: prime256v1"),
        (&["--rsa"], "(3072 bit"),
        (&["--rsa=3072"], "(3072 bit"),
        (&["--rsa", "2048"], "(2048 bit"),
        (&["--rsa=2048"], "(2048 bit"),
    ];
    for (options, wanted) in cases {
        let place = Place::new();
        place.rfwgen(&[options, &["11.11.11.11"]].concat()).exits(0);
        assert_eq!(place.listing(), FIRST_RUN);
        for crt in ["client/ca.crt", SERVER_CRT] {
            let lines = place.certificate(crt);
            assert!(lines.iter().any(|line| line.contains(wanted)), "{options:?} {crt}: {lines:#?}");
        }
        place.verify(SERVER_CRT, &["-verify_ip", "11.11.11.11"]).exits(0);
    }
}

#[test]
fn an_rsa_server_can_have_an_ecdsa_ca() {
    let place = Place::with_server();
    place.rfwgen(&["22.22.22.22", "--rsa", "2048"]).exits(0);
    place.verify("server_22.22.22.22/server.crt", &[]).exits(0);
}

#[test]
fn a_certificate_lasts_ten_years_or_as_many_days_as_wanted() {
    let cases: [(&[&str], u32); 4] =
        [(&[], 3650), (&["--days", "1"], 1), (&["--days=30"], 30), (&["--days", "7300"], 7300)];
    for (options, days) in cases {
        let place = Place::new();
        let run = place.rfwgen(&[&["11.11.11.11"], options].concat()).exits(0);
        run.check(run.stderr().is_empty(), "wanted nothing on stderr");
        assert!(place.ends_within(SERVER_CRT, days), "{options:?}");
        assert!(!place.ends_within(SERVER_CRT, days - 1), "{options:?}");
        assert!(!place.ends_within("client/ca.crt", 7300), "{options:?}");
    }
}

#[test]
fn every_address_and_name_is_in_the_certificate_once() {
    let place = Place::new();
    let arguments = ["--dns", "Fw.Example.ORG", "11.11.11.11", "2001:db8::1", "--dns=fw", "10.0.0.1"];
    place.rfwgen(&[&arguments[..], &["11.11.11.11", "--dns", "fw.example.org"]].concat()).exits(0);

    assert_eq!(place.listing(), FIRST_RUN);
    assert_eq!(
        place.extension(SERVER_CRT, "X509v3 Subject Alternative Name:"),
        "DNS:fw.example.org, IP Address:11.11.11.11, IP Address:2001:DB8:0:0:0:0:0:1, \
         DNS:fw, IP Address:10.0.0.1"
    );
    for address in ["11.11.11.11", "2001:db8::1", "10.0.0.1"] {
        place.verify(SERVER_CRT, &["-verify_ip", address]).exits(0);
    }
    for name in ["fw.example.org", "fw"] {
        place.verify(SERVER_CRT, &["-verify_hostname", name]).exits(0);
    }
}

#[test]
fn the_folder_is_named_after_the_server_in_one_way_only() {
    let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(56));
    let mut folders = cases("rfwgen-folder.txt");
    folders.push(("the longest name".to_owned(), [format!("--dns {longest}"), longest]));
    for (at, [arguments, name]) in folders {
        let place = Place::new();
        place.rfwgen(&arguments.split(' ').collect::<Vec<_>>()).exits(0);
        let crt = format!("server_{name}/server.crt");
        assert!(place.path(&crt).is_file(), "{at}: {:?}", place.listing());
        place.verify(&crt, &[]).exits(0);
    }
}

#[test]
fn another_spelling_of_an_address_is_the_same_server() {
    let place = Place::new();
    place.rfwgen(&["2001:db8::1"]).exits(0);
    place.rfwgen(&["2001:0db8:0000::0001"]).refuses(1, &["server_2001-db8--1"]);
}

// ---- what is printed ----

#[test]
fn the_last_line_copies_the_files_to_the_server() {
    let cases: [(&[&str], &str, &str); 3] = [
        (&["11.11.11.11", "10.0.0.1"], "server_11.11.11.11", "root@11.11.11.11:/etc/rfw/ssl/"),
        (&["2001:DB8::1"], "server_2001-db8--1", "'root@[2001:db8::1]:/etc/rfw/ssl/'"),
        (&["--dns", "fw.example.org"], "server_fw.example.org", "root@fw.example.org:/etc/rfw/ssl/"),
    ];
    for (arguments, folder, target) in cases {
        let run = Place::new().rfwgen(arguments).exits(0);
        let wanted = format!("scp {folder}/server.key {folder}/server.crt {target}");
        run.check(run.stdout().lines().last() == Some(&wanted), &format!("wanted {wanted}"));
        for word in ["offline/ca.key", "client/ca.crt", "curl --cacert ca.crt"] {
            run.check(run.stdout().contains(word), &format!("wanted {word}"));
        }
    }
}

#[test]
fn help_is_printed_on_demand_and_the_usage_when_nothing_is_given() {
    for option in ["-h", "--help"] {
        let place = Place::new();
        let run = place.rfwgen(&[option]).exits(0);
        run.check(run.stdout().starts_with("usage: rfwgen"), "wanted the usage");
        run.check(run.stderr().is_empty(), "wanted nothing on stderr");
        assert!(place.listing().is_empty());
    }
    let place = Place::new();
    let run = place.rfwgen(&[]).exits(2);
    run.check(run.stderr().starts_with("usage: rfwgen"), "wanted the usage");
    run.check(run.stdout().is_empty(), "wanted nothing on stdout");
    assert!(place.listing().is_empty());
}
