//! Files that are read, and those that are refused.

use super::*;
use crate::rule::rights::Rights;
use proptest::prelude::*;

use crate::golden::cases;

const BASE: &str = "[config]\noutward.server\nauth.username = me\nauth.password = secret\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("rfw.conf"), text).map_err(|error| error.to_string())
}

#[test]
fn options_have_the_defaults_of_the_original() {
    let config = parse(BASE).unwrap();
    let outward = config.outward.unwrap();
    assert_eq!(outward.address, "0.0.0.0:7393".parse().unwrap());
    assert_eq!(outward.certfile.value, Path::new("/etc/rfw/ssl/server.crt"));
    assert_eq!(outward.keyfile.value, Path::new("/etc/rfw/ssl/server.key"));
    assert_eq!(outward.client_auth, ClientAuth::Off);
    assert_eq!(config.local, None);
    assert!(!config.non_restful);
    assert_eq!(config.default_expire.seconds(), 86_400);
    assert_eq!(config.whitelist_file.value, Path::new("/etc/rfw/white.list"));
    assert_eq!(config.iptables.value, Path::new("iptables"));
    assert_eq!(config.ip6tables.value, Path::new("ip6tables"));
    assert_eq!((config.use_sets.value, config.lists_max), (SetUse::Off, 64));
    assert_eq!((config.layout, config.stay_first), (Layout::default(), true));
    assert_eq!(config.state_file.value.as_deref(), Some(Path::new("/var/lib/rfw/state")));
    assert_eq!((config.ipset.value.as_path(), config.maxelem), (Path::new("ipset"), 1_048_576));
    let local = parse("[config]\nlocal.server\n").unwrap().local.unwrap();
    assert_eq!((local.address, local.authentication), ("127.0.0.1:7390".parse().unwrap(), false));
}

#[test]
fn a_file_of_the_original_works_as_it_is() {
    let text = "#####\n# rfw\n\n[config]\noutward.server\noutward.server.port = 7393\noutward.server.ip = 0.0.0.0\n\
        outward.server.certfile = /etc/rfw/ssl/server.crt\noutward.server.keyfile = /etc/rfw/ssl/server.key\n\
        local.server\nlocal.server.port = 7390\nnon.restful\n# local.server.authentication\n\
        auth.username = mietek\nauth.password: pass=wd ; a comment\ndefault.expire = 24h\n\
        whitelist.file = /etc/rfw/white.list\niptables.path = iptables\n";
    let config = parse(text).unwrap();
    assert!(config.non_restful);
    assert_eq!(
        config.local,
        Some(Local { address: "127.0.0.1:7390".parse().unwrap(), authentication: false })
    );
    let clients = config.clients;
    assert_eq!(clients.by_password("mietek", "pass=wd").unwrap().rights, Rights::all());
    assert!(!format!("{clients:?}").contains("pass=wd"));
}

#[test]
fn a_tab_before_a_semicolon_begins_a_comment_as_a_space_does() {
    let golden =
        [("a\t; b ; c", "a"), ("a ; b\t; c", "a"), ("a;b", "a;b"), ("a;b\t;c", "a;b"), ("a\tb", "a\tb")];
    for (value, expected) in golden {
        let config = parse(&BASE.replace("secret", value)).unwrap();
        assert!(config.clients.by_password("me", expected).is_some(), "{value:?}");
    }
    assert!(parse(&BASE.replace("outward.server\n", "outward.server\t; a flag\n")).is_ok());
}

#[test]
fn ip6tables_is_the_companion_of_iptables() {
    let golden = [
        ("iptables.path = iptables-legacy", "ip6tables-legacy"),
        ("iptables.path = /usr/sbin/iptables-nft", "/usr/sbin/ip6tables-nft"),
        ("ip6tables.path = /opt/six", "/opt/six"),
    ];
    for (line, expected) in golden {
        assert_eq!(parse(&format!("{BASE}{line}")).unwrap().ip6tables.value, Path::new(expected), "{line}");
    }
}

#[test]
fn clients_are_asked_for_certificates_where_it_is_said() {
    let client_auth = |text: &str| parse(&format!("{BASE}{text}\n")).unwrap().outward.unwrap().client_auth;
    let files = "outward.server.clientca = /ca.crt\noutward.server.clientcrl = /ca.crl";
    assert_eq!(client_auth(files), ClientAuth::Off);
    assert_eq!(client_auth(&format!("outward.server.clientcert = off\n{files}")), ClientAuth::Off);
    let setting = |option, line, path: &str| Setting { option, line: Some(line), value: PathBuf::from(path) };
    for (word, is_required) in [("optional", false), ("required", true)] {
        let text = format!("outward.server.clientcert = {word}\n{files}");
        let ca = setting("outward.server.clientca", 6, "/ca.crt");
        let crl = Some(setting("outward.server.clientcrl", 7, "/ca.crl"));
        assert_eq!(client_auth(&text), ClientAuth::On { required: is_required, ca, crl });
    }
    let text = "outward.server.clientca = ca.crt\noutward.server.clientcert: required";
    let ca = setting("outward.server.clientca", 5, "ca.crt");
    assert_eq!(client_auth(text), ClientAuth::On { required: true, ca, crl: None });
}

#[test]
fn sets_are_used_as_ipset_says() {
    let golden = [
        ("", None, SetUse::Off),
        ("ipset", Some(5), SetUse::On),
        ("ipset = on", Some(5), SetUse::On),
        ("ipset = auto", Some(5), SetUse::Auto),
        ("IPSET: off ; a comment", Some(5), SetUse::Off),
        ("default.expire = 30d\nipset = off", Some(6), SetUse::Off),
    ];
    for (text, line, value) in golden {
        let sets = parse(&format!("{BASE}{text}\n")).unwrap().use_sets;
        assert_eq!(sets, Setting { option: "ipset", line, value }, "{text}");
    }
}

#[test]
fn a_host_with_neighbours_has_options_of_its_own() {
    let text = "input.table = raw\nforward.chain = DOCKER-USER\nstay.first = off\nstate.file =\n";
    let config = parse(&format!("{BASE}{text}")).unwrap();
    assert_eq!(config.layout.input, InputTable::Raw);
    assert_eq!(config.layout.forward.as_str(), "DOCKER-USER");
    assert!(!config.stay_first && config.state_file.value.is_none());
}

#[test]
fn wrong_lines_are_named() {
    for (at, [line, message]) in cases("config-refused.txt") {
        let error = parse(&format!("{BASE}{line}\n")).unwrap_err();
        assert_eq!(error, format!("rfw.conf:{message}"), "{at}");
    }
    let golden = [
        (
            "outward.server\n",
            "1: \"outward.server\": expected a section before all options, [config] once or [client NAME]",
        ),
        ("[config]\n", " neither outward.server nor local.server is on"),
        ("", " neither outward.server nor local.server is on"),
        (
            "[config]\noutward.server\nauth.username = a\n",
            " auth.password: not set: expected a value, since clients have to log in",
        ),
        (
            "[config]\nlocal.server\nlocal.server.authentication\nauth.username =\n",
            "4: auth.username: not set: expected a value, since clients have to log in",
        ),
        (
            "[config]\noutward.server\nauth.username = a:b\nauth.password = c\n",
            "3: auth.username: \"a:b\": expected a name without a colon",
        ),
    ];
    for (text, message) in golden {
        assert_eq!(parse(text).unwrap_err(), format!("rfw.conf:{message}"), "{text}");
    }
}

#[test]
fn a_local_server_without_authentication_needs_no_credentials() {
    let config = parse("[config]\nlocal.server\nauth.username = \nauth.password =\n").unwrap();
    assert_eq!(config.clients.iter().count(), 0);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", tail in "[a-z. =:;\n0-9]*") {
        let _ = parse(&text);
        let _ = parse(&format!("{BASE}{tail}"));
    }
}
