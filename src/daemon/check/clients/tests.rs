//! The table as text.

use super::*;
use std::path::Path;

fn config(text: &str) -> Config {
    Config::parse(Path::new("rfw.conf"), &format!("[config]\n{text}")).unwrap()
}

const SECTIONS: &str = "outward.server\nauth.username = m\u{1b}e\nauth.password = secret\n\
    [client honeypot]\npassword = secret\nfrom = 33.33.33.33 198.51.100.0/28\nallow = drop input any\n\
    allow = accept,reject forward eth0,ppp\nlists = honeypot,feed-*\nexpire.max = 7d\nmask.min = 24 48\n\
    entries.max = 50000\n[client monitor]\npassword = x\nread = all\n";

const TABLE: &str = r"
NAME      LOGIN     FROM             ALLOW                           LISTS            EXPIRE   MASK   ENTRIES  READ
m\u{1b}e  password  white list       * * *                           *                -        -      -        all
honeypot  password  33.33.33.33      drop input any                  honeypot,feed-*  604800s  24 48  50000    own
                    198.51.100.0/28  accept,reject forward eth0,ppp
monitor   password  white list       -                               -                -        -      -        all
";

#[test]
fn the_rights_of_clients_are_a_table() {
    assert_eq!(lines(&config(SECTIONS)).join("\n"), TABLE.trim());
}

#[test]
fn who_needs_no_login_is_a_client_too() {
    let golden = [
        ("local.server\n", "local LOGIN local server"),
        ("local.server\n[client local]\nread = all\n", "local LOGIN local server"),
        ("local.server\n[client local]\npassword = x\n", "local LOGIN password,local server"),
        ("outward.server\n[client a]\npassword = x\n", "a LOGIN password"),
        ("local.server\nlocal.server.authentication\n[client a]\npassword = x\n", "a LOGIN password"),
        (
            "local.server\noutward.server\n[client a]\npassword = x\n",
            "a LOGIN password; local LOGIN local server",
        ),
    ];
    for (text, expected) in golden {
        let config = config(text);
        let told = all(&config)
            .into_iter()
            .map(|client| format!("{} LOGIN {}", client.name, logins(client, &config).join(",")));
        assert_eq!(told.collect::<Vec<_>>().join("; "), expected, "{text}");
    }
}

#[test]
fn of_many_networks_some_are_named() {
    let config = config(
        "outward.server\n[client a]\npassword = x\nfrom = 1.0.0.1 1.0.0.3 1.0.0.5 1.0.0.7 1.0.0.9 1.0.0.11\n",
    );
    assert_eq!(from(all(&config)[0]), ["1.0.0.1", "1.0.0.3", "1.0.0.5", "1.0.0.7", "and 2 more"]);
}

#[test]
fn the_client_of_a_local_server_comes_from_this_host() {
    let table = lines(&config("local.server\nauth.username = me\nauth.password = x\n"));
    assert_eq!(
        table,
        [
            "NAME   LOGIN         FROM       ALLOW  LISTS  EXPIRE  MASK  ENTRIES  READ",
            "local  local server  this host  * * *  *      -       -     -        all",
        ]
    );
}
