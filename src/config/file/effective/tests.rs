//! What is printed says the same, has every option and no secret.

use super::super::syntax::{FLAGS, SWITCHES, VALUES};
use super::*;

const FULL: &str = "[config]\noutward.server\noutward.server.ip = ::\noutward.server.certfile =;odd\n\
    outward.server.clientcert = optional\noutward.server.clientca = /etc/rfw/ssl/ca.crt\n\
    outward.server.clientcrl = /etc/rfw/ssl/ca.crl\nlocal.server\nlocal.server.authentication\nauth.username = me\nauth.password = secret one\nnon.restful\ndefault.expire = 7d\n\
    ipset = auto\ninput.table = raw\nforward.chain = DOCKER-USER\nstay.first = off\nstate.file =\n\
    iptables.path = /usr/sbin/iptables-legacy\n[client honeypot]\npassword = secret two\n\
    from = 33.33.33.33 198.51.100.4-198.51.100.6\nallow = drop,reject input any\nallow = * output eth0,ppp\n\
    lists = honeypot,feed-*,-\nexpire.max = 2h\nmask.min = 24 48\nentries.max = 50000\nread = own\n\
    [client monitor]\npassword.sha256 = 2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B\nread = all\n";

const PRINTED: &str = "[config]
auth.username = me
auth.password = ; not shown
outward.server
outward.server.port = 7393
outward.server.ip = ::
outward.server.certfile =;odd
outward.server.keyfile = /etc/rfw/ssl/server.key
outward.server.clientcert = optional
outward.server.clientca = /etc/rfw/ssl/ca.crt
outward.server.clientcrl = /etc/rfw/ssl/ca.crl
local.server
local.server.port = 7390
local.server.authentication
connections.max = 256
connections.max.source = 32
whitelist.file = /etc/rfw/white.list
default.expire = 604800s
non.restful
ipset = auto
ipset.maxelem = 1048576
rules.max = 5000
lists.max = 64
input.table = raw
forward.chain = DOCKER-USER
stay.first = off
state.file =
iptables.path = /usr/sbin/iptables-legacy
#ip6tables.path = /usr/sbin/ip6tables-legacy

[client honeypot]
password = ; not shown
from = 33.33.33.33 198.51.100.4/31 198.51.100.6
allow = drop,reject input any
allow = * output eth0,ppp
lists = honeypot,feed-*,-
expire.max = 7200s
mask.min = 24 48
entries.max = 50000
read = own

[client monitor]
password = ; not shown
lists = -
read = all
";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("rfw.conf"), text).map_err(|error| error.to_string())
}

/// A configuration without what depends on lines and secrets.
fn told(config: &Config) -> String {
    let config = format!("{config:?}");
    let mut parts = config.split("line: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        let end = part.find([',', '}']).unwrap_or_default();
        told + &part[end..]
    })
}

#[test]
fn what_is_printed_says_the_same_and_no_secret() {
    let config = parse(FULL).unwrap();
    assert_eq!(text(&config), PRINTED);
    let again = parse(&PRINTED.replace(NOT_SHOWN, "x")).unwrap();
    assert_eq!(told(&again), told(&config));
    assert_eq!(again.ip6tables.line, None, "a host may still be without IPv6");
}

#[test]
fn a_file_without_its_secrets_is_refused() {
    let error = parse(PRINTED).unwrap_err();
    assert_eq!(error, "rfw.conf:3: auth.password: not set: expected a value, since clients have to log in");
    let error = parse(&PRINTED.replacen(NOT_SHOWN, "x", 1)).unwrap_err();
    assert_eq!(error, "rfw.conf:32: client honeypot: password: has no value");
}

#[test]
fn every_option_is_printed() {
    let printed = text(&parse(FULL).unwrap());
    let names: Vec<&str> = printed
        .lines()
        .map(|line| line.trim_start_matches('#').split(" =").next().unwrap_or_default())
        .collect();
    for option in FLAGS.iter().chain(&SWITCHES).chain(&VALUES).filter(|option| **option != "ipset.path") {
        assert!(names.contains(option), "{option} is missing in {printed}");
    }
}

#[test]
fn what_is_off_and_what_harms_a_terminal_is_told_so() {
    let config = parse("[config]\nlocal.server\nwhitelist.file = /a\u{1b}[31m\\b\u{e9}\u{202e}\n").unwrap();
    let printed = text(&config);
    for line in ["#outward.server", "#local.server.authentication", "#non.restful", "ipset = off"] {
        assert!(printed.lines().any(|other| other == line), "{line}: {printed}");
    }
    assert!(printed.contains("whitelist.file = /a\\u{1b}[31m\\b\u{e9}\\u{202e}\n"), "{printed}");
    assert!(!printed.contains("auth."), "nobody logs in: {printed}");
}
