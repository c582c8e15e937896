//! Sections that are read, those that are refused, and who is who.

use super::*;
use crate::config::file::Config;
use crate::golden::cases;
use std::path::Path;

const BASE: &str = "[config]\noutward.server\nauth.username = me\nauth.password = secret\n";

fn parse(text: &str) -> Result<Clients, String> {
    Config::parse(Path::new("rfw.conf"), text).map(|config| config.clients).map_err(|error| error.to_string())
}

#[test]
fn a_section_has_its_rights_and_no_others() {
    let text = format!(
        "{BASE}[client honeypot]   \npassword = 5d0c1a ; or so\nfrom = 33.33.33.33 198.51.100.0/28\t# of the white list\n\
         allow = drop input any          # targets, chains, interfaces\nALLOW: reject output eth0\nlists = honeypot\n\
         expire.max = 7d\nmask.min = 24 48\nentries.max = 50000\nread = own\n[client\tmonitor]\n\
         password.sha256 = 2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B\nread = all\n\
         [client bare]\npassword=x\n"
    );
    let clients = parse(&text).unwrap();
    let told: Vec<String> = clients
        .iter()
        .map(|Client { name, from, rights, .. }| {
            let from = match from {
                From::Listed => "listed".to_owned(),
                From::Any => "any".to_owned(),
                From::Of(networks) => networks.iter().map(Network::to_string).collect::<Vec<_>>().join(" "),
            };
            let grants: Vec<String> = rights.allow.iter().map(Grant::to_string).collect();
            let time = rights.expire_max.map(Interval::seconds);
            let mask = rights.mask_min.map(|mask| mask.to_string());
            let (grants, read) = (grants.join("; "), rights.read.word());
            format!(
                "{name}: {from}: {grants}: {}: {time:?} {mask:?} {:?} {read}",
                rights.lists, rights.entries_max
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "me: listed: * * *: *: None None None all",
            "honeypot: 33.33.33.33 198.51.100.0/28: drop input any; reject output eth0: honeypot: \
             Some(604800) Some(\"24 48\") Some(50000) own",
            "monitor: listed: : -: None None None all",
            "bare: listed: : -: None None None own",
        ]
    );
    assert!(!format!("{clients:?}").contains("5d0c1a"));
}

#[test]
fn wrong_sections_are_named() {
    for (at, [lines, expected]) in cases("clients-refused.txt") {
        assert_eq!(parse(&format!("{BASE}{lines}")).unwrap_err(), format!("rfw.conf:{expected}"), "{at}");
    }
}

#[test]
fn who_logs_in_is_told_by_name_and_password_together() {
    let text = format!(
        "{BASE}[client a]\npassword = x\n[client b]\npassword.sha256 = {}\n",
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    );
    let clients = parse(&text).unwrap();
    let long = "x".repeat(70_000);
    let golden = [
        ("me", "secret", Some("me")),
        ("me", "secre", None),
        ("me", "secret\0", None),
        ("me", "x", None),
        ("a", "x", Some("a")),
        // The SHA-256 of "x" is not its password.
        ("b", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", None),
        ("b", "x", Some("b")),
        ("Me", "secret", None),
        ("", "", None),
        ("local", "", None),
        (long.as_str(), "secret", None),
        ("me", long.as_str(), None),
    ];
    for (name, password, expected) in golden {
        let found = clients.by_password(name, password).map(|client| client.name.as_str());
        assert_eq!(found, expected, "{name:.9} {password:.9}");
    }
}

#[test]
fn a_certificate_names_exactly_one_client() {
    let clients = parse(&format!("{BASE}[client a]\npassword = x\n[client b]\npassword = y\n")).unwrap();
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        clients.by_names(&names).map(|client| client.name.clone()).map_err(|error| error.to_string())
    };
    assert_eq!(named(&["x", "a"]).as_deref(), Ok("a"));
    let none = Err("the certificate names no client of rfw.conf".to_owned());
    assert_eq!((named(&[]), named(&["A", "c"])), (none.clone(), none));
    assert_eq!(named(&["b", "a"]), Err("the certificate names several clients of rfw.conf".to_owned()));
}

#[test]
fn the_local_server_has_a_client_too() {
    let local = |text: &str| parse(text).map(|clients| clients.local().rights.clone());
    assert_eq!(local("[config]\nlocal.server\n"), Ok(Rights::all()));
    let limited = Rights { read: Read::All, ..Rights::none() };
    assert_eq!(local("[config]\nlocal.server\n[client local]\nread = all\n"), Ok(limited));
    let error = "rfw.conf:4: client local: can't log in: expected password or password.sha256 in its section, or outward.server.clientcert";
    let text = "[config]\nlocal.server\nlocal.server.authentication\n[client local]\nread = all\n";
    assert_eq!(local(text), Err(error.to_owned()));
}

#[test]
fn where_sections_are_the_client_of_config_may_be_missing() {
    let clients = parse("[client a]\npassword = x\n[config]\noutward.server\n").unwrap();
    assert_eq!(clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(parse("[client a]\npassword = x\n[config]\noutward.server\nauth.username = b\n").is_err());
}

#[test]
fn a_client_comes_from_where_it_may() {
    let of = |from| Client { from, ..Client::with_all_rights("a".to_owned(), None) };
    let (near, far): (IpAddr, IpAddr) = ("10.0.0.5".parse().unwrap(), "10.0.1.5".parse().unwrap());
    let networks = || From::Of(Network::parse_all("10.0.0.4-10.0.0.6").unwrap());
    let golden = [
        (From::Listed, near, true, true),
        (From::Listed, near, false, false),
        (networks(), near, true, true),
        (networks(), near, false, false),
        (networks(), far, true, false),
        (From::Any, far, false, true),
    ];
    for (from, address, listed, expected) in golden {
        assert_eq!(of(from.clone()).may_come_from(address, listed), expected, "{from:?} {address} {listed}");
    }
}
