//! Who a client is, from where it may come, and what the log tells of one that is refused.

use super::{Ask, ask, ask_in_one, ok, refused, section, start};
use crate::host::{Host, SOON, VARIANTS, node_name, until};
use serde_json::json;

const IPTABLES: &str = VARIANTS[0];

/// Asks by HTTPS from an address of this host.
fn from(rfw: &crate::host::Rfw<'_>, source: &str, user: &str, path: &str) -> (u16, String) {
    let server = if source.contains(':') { "[::1]" } else { "127.0.0.1" };
    let url = format!("https://{server}:7393{path}");
    let reply = rfw.curl(&["-X", "PUT", "--interface", source, "-u", user, &url]);
    (reply.status, reply.body)
}

#[test]
fn a_client_comes_from_its_own_addresses_of_the_white_list() {
    let host = Host::new();
    let near = "allow = * * *\nfrom = 127.0.0.2 127.0.1.0-127.0.1.9 ::ffff:127.0.3.3 10.9.9.9";
    let sections = section("near", near) + &section("six", "allow = * * *\nfrom = ::1");
    let rfw = host.rfw(IPTABLES).configure(&sections).white_list("127.0.0.0/16\n::1\n").start();
    host.run("ip", &["address", "add", "10.9.9.9/32", "dev", "lo"]).ok();
    let path = "/drop/input/any/1.1.1.1";
    for source in ["127.0.0.2", "127.0.1.5", "127.0.3.3"] {
        assert_eq!(from(&rfw, source, "near:secret of near", path).0, 200, "{source}");
    }
    assert_eq!(from(&rfw, "::1", "six:secret of six", path).0, 200);
    let golden = [("127.0.0.1", "near"), ("::1", "near"), ("127.0.1.10", "near"), ("127.0.0.2", "six")];
    for (source, name) in golden {
        let (status, body) = from(&rfw, source, &format!("{name}:secret of {name}"), path);
        let error = format!("no right to be {name} from {source} (from)");
        assert_eq!(
            (status, body),
            (403, format!("{{\"code\":\"no_right\",\"error\":\"{error}\",\"host\":\"{}\"}}\n", node_name()))
        );
        let line = format!(
            "client={name} from={source} method=PUT url={path} status=403 code=no_right error=\"{error}\"\n"
        );
        until(SOON, "it is logged", || rfw.log().contains(&line));
    }
    // Each of them has a line; a wrong password tells nothing of the place.
    assert_eq!(rfw.log().matches("(from)\"\n").count(), golden.len(), "{}", rfw.log());
    assert_eq!(from(&rfw, "127.0.0.1", "near:wrong", path).0, 401);
    assert_eq!(host.kept(IPTABLES).len(), 1);
}

#[test]
fn the_client_of_the_local_server_has_the_rights_of_its_section() {
    let host = Host::new();
    let sections = "[client local]\nallow = drop input any\nlists = mine\nmask.min = 24 64";
    let mut rfw = host.rfw(IPTABLES).configure(sections).start();
    ok(&host, "anybody", "PUT /drop/input/any/1.1.1.1?list=mine", "");
    refused(&host, "anybody", "PUT /drop/input/any/1.1.1.1", "", "lists");
    refused(&host, "anybody", "PUT /drop/output/any/1.1.1.1?list=mine", "", "allow");
    refused(&host, "me", "PUT /drop/input/any/1.1.0.0/16?list=mine", "", "mask.min");
    let line = "client=local from=127.0.0.1 method=PUT url=/drop/input/any/1.1.1.1 status=403 code=no_right \
                error=\"no right to change the list - (lists)\"";
    assert!(rfw.log().contains(line), "{}", rfw.log());
    assert_eq!(host.kept(IPTABLES).len(), 1);
    rfw.stop();
    let rfw = rfw.configure("from = 10.0.0.1").start();
    let error = refused(&host, "anybody", "PUT /drop/input/any/1.1.1.2?list=mine", "", "from");
    assert_eq!(error, "no right to be local from 127.0.0.1 (from)");
    assert_eq!(host.kept(IPTABLES).len(), 1);
    drop(rfw);
}

#[test]
fn a_client_is_told_its_own_rights() {
    let host = Host::new();
    let limited = "allow = drop,reject input any,eth0\nallow = accept output *\nlists = mine,feed-*,-\nexpire.max = 7d\n\
        mask.min = 24 48\nentries.max = 9\nread = none\nfrom = 127.0.0.0/8";
    let _rfw = start(&host, IPTABLES, "", &(section("limited", limited) + &section("bare", "")));
    let told = |client: &str| {
        let help = ok(&host, client, "GET /", "");
        assert_eq!(help["client"], client);
        help["rights"].clone()
    };
    let none = |lists: &str, read: &str, allow: &[&str]| json!({ "allow": allow, "lists": lists, "read": read, "expire.max": null, "mask.min": null, "entries.max": null });
    assert_eq!(told("me"), none("*", "all", &["* * *"]));
    assert_eq!(told("bare"), none("-", "own", &[]));
    let expected = json!({
        "allow": ["drop,reject input any,eth0", "accept output *"], "lists": "mine,feed-*,-", "read": "none",
        "expire.max": "604800s", "mask.min": "24 48", "entries.max": 9,
    });
    assert_eq!(told("limited"), expected);
}

#[test]
fn names_have_their_case_and_a_digest_is_no_password() {
    let host = Host::new();
    // That of "secret of b".
    let said = host.feed("sha256sum", &[], b"secret of b").ok();
    let digest = said.split(' ').next().unwrap();
    let sections =
        section("Bee", "read = all") + &format!("[client b]\npassword.sha256 = {digest}\nread = all\n");
    let _rfw = start(&host, IPTABLES, "", &sections);
    let status = |client: &str| ask(&host, client, "GET /list", "").status;
    assert_eq!(
        ["Bee", "b", "me", "bee", "BEE", "B", "local"].map(status),
        [200, 200, 200, 401, 401, 401, 401]
    );
    let rfw_with = format!("b:{digest}");
    let reply = _rfw.curl(&["-u", &rfw_with, "https://127.0.0.1:7393/list"]);
    assert_eq!(reply.status, 401);
}

#[test]
fn clients_that_share_a_connection_have_each_their_own_rights() {
    let host = Host::new();
    let sections = section("a", "allow = drop input any\nlists = a")
        + &section("b", "allow = drop input any\nlists = b");
    let _rfw = start(&host, IPTABLES, "", &sections);
    let asks: Vec<Ask<'_>> = [
        ("a", "PUT /drop/input/any/1.1.1.1?list=a"),
        ("b", "PUT /drop/input/any/1.1.1.1?list=a"),
        ("a", "PUT /drop/input/any/1.1.1.2?list=a"),
        ("b", "GET /lists"),
        ("nobody", "GET /list"),
        ("a", "PUT /drop/input/any/1.1.1.3?list=b"),
        ("me", "GET /lists"),
    ]
    .map(|(client, line)| Ask::new(client, line, ""))
    .to_vec();
    let replies = ask_in_one(&host, &asks);
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 403, 200, 200, 401, 403, 200]);
    assert_eq!(replies[3].body, "[]\n");
    assert_eq!(replies[6].json()[0]["by"], "a");
    assert_eq!(host.kept(IPTABLES).len(), 2);
}

/// A browser adds the password of any client to what a page asks for.
#[test]
fn a_web_page_changes_nothing_whatever_the_client_may() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).configure(&section("a", "allow = * * *\nlists = *")).start();
    let url = "https://127.0.0.1:7393/drop/input/any/1.1.1.1";
    let reply = rfw.curl(&["-X", "PUT", "-u", "a:secret of a", "-H", "Origin: https://example.org", url]);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(host.kept(IPTABLES), Vec::<String>::new());
}

/// Each refusal is one line, with nothing that a terminal would take for more than text.
#[test]
fn a_refusal_is_one_line_of_plain_text() {
    let host = Host::new();
    let rfw = start(&host, IPTABLES, "", &section("a", "lists = a\nread = none"));
    let before = rfw.log().lines().count();
    let lines = [
        "GET /list?list=a%0a",
        "PUT /drop/input/any/1.1.1.1?reason=%1b[31m",
        "PUT /drop/input/any/1.1.1.1?reason=\u{9b}31m",
        "GET /list/input?address=1.1.1.1",
    ];
    let statuses = lines.map(|line| ask(&host, "a", line, "").status);
    assert_eq!(statuses[3], 403);
    assert!(statuses.iter().all(|status| [400, 403].contains(status)), "{statuses:?}");
    let log = rfw.log();
    let told: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(told.len(), lines.len(), "{told:#?}");
    assert!(
        told.iter().all(|line| line.contains("127.0.0.1") && !line.contains(char::is_control)),
        "{told:#?}"
    );
    let expected = "client=a from=127.0.0.1 method=GET url=\"/list/input?address=1.1.1.1\" status=403 code=no_right \
                    error=\"no right to see lists (read)\"";
    assert!(told[3].ends_with(expected), "{told:#?}");
}
