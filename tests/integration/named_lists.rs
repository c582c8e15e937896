//! Named lists where addresses are rules: what one source does leaves the others' alone, the kernel
//! keeps list, author and reason, and an address is blocked while any list holds it.

mod auto;
mod forward;
pub mod kernel;
pub mod model;
mod packets;
mod promotion;
mod repair;
mod replace;
mod sets;

use crate::host::{Host, Rfw, SOON, in_both_variants, of_ipv6, until};
use serde_json::{Value, json};

/// The rules of a chain as `-S` prints them, only sources and comments: `1.2.3.4/32 permanent list a`.
#[track_caller]
fn commented(host: &Host, iptables: &str, chain: &str) -> Vec<String> {
    let rules = host.rules(iptables, chain);
    let words = rules.iter().map(|rule| {
        let source = rule.split(' ').nth(3).unwrap_or_default();
        let comment = rule.split("--comment \"rfw ").nth(1).and_then(|rest| rest.split("\" -j").next());
        format!("{source} {}", comment.unwrap_or("-"))
    });
    words.collect()
}

/// The same in order of their texts.
#[track_caller]
fn sorted(host: &Host, iptables: &str, chain: &str) -> Vec<String> {
    let mut all = commented(host, iptables, chain);
    all.sort();
    all
}

/// What a list of rows says of some keys, sorted.
fn column(rows: &Value, keys: &[&str]) -> Vec<String> {
    let text = |row: &Value, key: &&str| match &row[*key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows = rows.as_array().expect("an array").iter();
    let mut rows: Vec<String> =
        rows.map(|row| keys.iter().map(|key| text(row, key)).collect::<Vec<_>>().join(" ")).collect();
    rows.sort();
    rows
}

/// Puts rules into a table as somebody restores a saved one.
#[track_caller]
fn restore(host: &Host, iptables: &str, rules: &[&str]) {
    let script = format!("*filter\n{}\nCOMMIT\n", rules.join("\n"));
    host.feed(&format!("{iptables}-restore"), &["--noflush", "-w"], script.as_bytes()).ok();
}

#[test]
fn an_address_is_blocked_while_any_list_holds_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        const PATH: &str = "/drop/input/any/1.2.3.4";
        for (query, result) in [
            ("?list=tor&expire=0", "inserted"),
            ("?list=f2b&expire=0", "inserted"),
            ("?expire=0", "inserted"),
            ("?list=tor&expire=0", "unchanged"),
            ("?list=tor&expire=0&reason=exit", "unchanged"),
            ("?list=tor&expire=0&reason=exit", "unchanged"),
            ("?list=tor&expire=0", "unchanged"),
        ] {
            let answer = rfw.ok("PUT", &format!("{PATH}{query}"));
            assert_eq!(answer["result"], result, "{query}");
            assert_eq!(answer.get("overridden_by"), None);
        }
        let all = ["1.2.3.4/32 permanent", "1.2.3.4/32 permanent list f2b", "1.2.3.4/32 permanent list tor"];
        assert_eq!(sorted(&host, iptables, "INPUT"), all);
        assert_eq!(rfw.ok("DELETE", &format!("{PATH}?list=none"))["result"], "absent");
        assert_eq!(sorted(&host, iptables, "INPUT"), all);

        rfw.ok("PUT", "/reject/input/eth0/1.2.3.0/24?list=net&expire=0");
        rfw.ok("PUT", "/accept/input/any/1.2.3.4?list=office&expire=0");
        let answer = rfw.ok("DELETE", &format!("{PATH}?list=tor"));
        assert_eq!(answer["result"], "deleted");
        assert_eq!(
            column(&answer["still"], &["list", "target", "source", "inp", "expires"]),
            [" DROP 1.2.3.4 * null", "f2b DROP 1.2.3.4 * null", "net REJECT 1.2.3.0/24 eth0 null"]
        );
        assert_eq!(rfw.ok("DELETE", PATH)["result"], "deleted");
        let blocked = sorted(&host, iptables, "INPUT");
        assert!(blocked.contains(&"1.2.3.4/32 permanent list f2b".to_owned()), "{blocked:?}");
        assert_eq!(blocked.len(), 3, "{blocked:?}");
        rfw.ok("DELETE", "/reject/input/eth0/1.2.3.0/24?list=net");
        let answer = rfw.ok("DELETE", &format!("{PATH}?list=f2b"));
        assert_eq!((&answer["result"], &answer["still"]), (&json!("deleted"), &json!([])));
        assert_eq!(sorted(&host, iptables, "INPUT"), ["1.2.3.4/32 permanent list office"]);
    });
}

#[test]
fn a_list_that_is_replaced_holds_exactly_the_body_in_its_scope() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for path in [
            "/drop/input/any/1.0.0.1?list=tor&expire=0",
            "/drop/input/any/1.0.0.2?list=tor&expire=0",
            "/drop/input/any/2001:4860::1?list=tor&expire=0",
            "/drop/input/any/1.0.0.2?expire=0",
            "/drop/input/any/1.0.0.2?list=f2b&expire=0",
            "/drop/input/eth0/1.0.0.2?list=tor&expire=0",
            "/drop/output/any/1.0.0.2?list=tor&expire=0",
        ] {
            rfw.ok("PUT", path);
        }
        let before = host.tables(iptables);
        let answer = rfw.send("PUT", "/drop/input/any?list=tor&replace=true", "# nothing\n");
        assert_eq!((answer.status, host.tables(iptables)), (400, before));

        let answer =
            rfw.send_ok("PUT", "/drop/input/any?list=tor&replace=true&expire=0", "1.0.0.1\n1.0.0.3\n");
        let counts = ["inserted", "refreshed", "removed", "skipped_total"].map(|key| answer[key].as_u64());
        assert_eq!(counts, [Some(1), Some(1), Some(2), Some(0)], "{answer}");
        assert_eq!(
            sorted(&host, iptables, "INPUT"),
            [
                "1.0.0.1/32 permanent list tor",
                "1.0.0.2/32 permanent",
                "1.0.0.2/32 permanent list f2b",
                "1.0.0.2/32 permanent list tor",
                "1.0.0.3/32 permanent list tor",
            ]
        );
        assert_eq!(host.rules(&of_ipv6(iptables), "INPUT"), Vec::<String>::new());
        assert_eq!(host.rules(iptables, "OUTPUT").len(), 1);
        assert_eq!(
            column(
                &rfw.ok("GET", "/lists"),
                &["list", "target", "chain", "inp", "v4", "v6", "expires", "by"]
            ),
            [
                " DROP INPUT * 1 0 null me",
                "f2b DROP INPUT * 1 0 null me",
                "tor DROP INPUT * 2 0 null me",
                "tor DROP INPUT eth0 1 0 null me",
                "tor DROP OUTPUT * 1 0 null me",
            ]
        );
        // Without a name it is the unnamed list alone.
        let answer = rfw.send_ok("PUT", "/drop/input/any?replace=true&expire=0", "1.0.0.9\n");
        assert_eq!((&answer["inserted"], &answer["removed"]), (&json!(1), &json!(1)));
        assert_eq!(sorted(&host, iptables, "INPUT").len(), 5);
    });
}

#[test]
fn whole_lists_and_an_address_in_all_lists_are_taken_away() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let put = || {
            for path in [
                "/drop/input/any/1.0.0.1?list=tor",
                "/drop/input/any/1.0.0.2?list=tor",
                "/drop/input/eth0/1.0.0.1?list=tor",
                "/drop/input/any/1.0.0.1?list=f2b",
                "/accept/output/any/1.0.0.1",
                "/drop/input/any/1.0.0.0/24",
                "/drop/forward/any/1.0.0.1/any/9.9.9.9?list=tor",
                "/drop/forward/any/1.0.0.3?list=tor",
                "/drop/input/any/2001:4860::1?list=tor",
            ] {
                rfw.ok("PUT", path);
            }
        };
        let left =
            || host.tables(iptables).concat().iter().filter(|rule| !rule.contains("rfw guard")).count();
        put();
        assert_eq!(left(), 9);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any?list=tor")["deleted"], 3);
        assert_eq!(left(), 6);
        // In a forward scope it is the source side.
        assert_eq!(rfw.ok("DELETE", "/drop/forward/any?list=tor")["deleted"], 1);
        assert_eq!(left(), 5);
        put();
        assert_eq!(rfw.ok("DELETE", "/list?list=tor")["deleted"], 6);
        assert_eq!(column(&rfw.ok("GET", "/list"), &["list"]), ["", "", "f2b"]);
        assert_eq!(rfw.ok("DELETE", "/list?list=none")["deleted"], 0);
        put();
        let answer = rfw.ok("DELETE", "/list?address=1.0.0.1");
        assert_eq!(answer["deleted"], 5);
        assert_eq!(
            column(&answer["rows"], &["list", "target", "chain", "inp", "source", "destination"]),
            [
                " ACCEPT OUTPUT * 0.0.0.0/0 1.0.0.1",
                "f2b DROP INPUT * 1.0.0.1 0.0.0.0/0",
                "tor DROP FORWARD * 1.0.0.1 9.9.9.9",
                "tor DROP INPUT * 1.0.0.1 0.0.0.0/0",
                "tor DROP INPUT eth0 1.0.0.1 0.0.0.0/0",
            ]
        );
        put();
        assert_eq!(rfw.ok("DELETE", "/list?address=1.0.0.1&list=f2b")["deleted"], 1);
        assert_eq!(rfw.ok("DELETE", "/list?list=*")["deleted"], 8);
        assert_eq!(left(), 0);
        assert_eq!(rfw.ok("GET", "/lists"), json!([]));
    });
}

#[test]
fn a_reason_stays_as_it_was_given_over_kill_9() {
    // Of full length together with the longest names, and with all that iptables escapes.
    let author = "ä".repeat(32);
    let reasons = [
        r"back\slash, quote ', käse \\ ;#$`*?{}%&+=".to_owned(),
        format!("{}\\", "ö'".repeat(39)),
        "x".repeat(120),
        "'".to_owned(),
        "\\".to_owned(),
    ];
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host
            .rfw(iptables)
            .reconfigure("auth.username = me", &format!("auth.username = {author}"))
            .start();
        let request = |rfw: &Rfw<'_>, method: &str, path: &str| {
            let url = format!("https://127.0.0.1:7393{path}");
            let reply = rfw.curl(&["-X", method, "-u", &format!("{author}:secret"), &url]);
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
            reply.json()
        };
        const LIST: &str = "abcdefghijklmnop";
        for (number, reason) in reasons.iter().enumerate() {
            let query = format!("list={LIST}&expire=1h&reason={}", encoded(reason));
            request(&rfw, "PUT", &format!("/reject/input/eth/1.0.0.{number}?{query}"));
        }
        let mut expected: Vec<String> =
            reasons.iter().map(|reason| format!("{LIST} {author} {reason}")).collect();
        expected.sort();
        assert_eq!(column(&request(&rfw, "GET", "/list"), &["list", "by", "reason"]), expected);
        let tables = host.tables(iptables);
        rfw.signal("KILL");
        assert_eq!(rfw.end(), -1);
        rfw.spawn();
        assert_eq!(host.rules(iptables, "INPUT").len(), reasons.len());
        assert_eq!(column(&request(&rfw, "GET", "/list"), &["list", "by", "reason"]), expected);
        assert_eq!(host.tables(iptables)[0].len(), tables[0].len());
        for (number, reason) in reasons.iter().enumerate() {
            let path = format!("/reject/input/eth/1.0.0.{number}?list={LIST}");
            let query = format!("&expire=2h&reason={}", encoded(reason));
            assert_eq!(request(&rfw, "PUT", &format!("{path}{query}"))["result"], "refreshed", "{reason}");
            assert_eq!(request(&rfw, "DELETE", &path)["result"], "deleted", "{reason}");
        }
        assert_eq!(host.rules(iptables, "INPUT"), Vec::<String>::new());
    });
}

#[test]
fn requests_without_a_list_leave_named_lists_alone() {
    in_both_variants(|iptables| {
        let host = Host::new();
        restore(
            &host,
            iptables,
            &[
                "-A INPUT -s 1.0.0.1 -m comment --comment \"rfw permanent list tor by me: it's \\\\ käse\" -j DROP",
                "-A INPUT -s 1.0.0.1 -m comment --comment \"rfw permanent\" -j DROP",
                "-A INPUT -s 1.0.0.2 -m comment --comment \"rfw permanent list Tor\" -j DROP",
            ],
        );
        let mut rfw = host.rfw(iptables).start();
        assert_eq!(column(&rfw.ok("GET", "/list"), &["source"]), ["1.0.0.1", "1.0.0.1"]);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=1h")["result"], "refreshed");
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "deleted");
        let named = "1.0.0.1/32 permanent list tor by me: it\\'s \\\\ käse";
        assert_eq!(sorted(&host, iptables, "INPUT"), [named, "1.0.0.2/32 permanent list Tor"]);
        assert_eq!(rfw.ok("DELETE", "/drop/input/any/1.0.0.1")["result"], "absent");
        let answer = rfw.send_ok("DELETE", "/drop/input/any", "1.0.0.1\n1.0.0.2\n");
        assert_eq!((&answer["deleted"], &answer["absent"]), (&json!(0), &json!(2)));
        assert_eq!(sorted(&host, iptables, "INPUT").len(), 2);
        // A white list and a flush take the rules of all lists.
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        rfw.host.write("white.list", 0o644, "127.0.0.1\n::1\n1.0.0.1\n");
        rfw.signal("HUP");
        until(SOON, "they are gone", || host.rules(iptables, "INPUT").len() == 1);
        rfw.stop();
        restore(
            &host,
            iptables,
            &["-A OUTPUT -d 1.0.0.3 -m comment --comment \"rfw permanent list tor by me: '\" -j DROP"],
        );
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.rules(iptables, "OUTPUT"), Vec::<String>::new());
        assert_eq!(sorted(&host, iptables, "INPUT"), ["1.0.0.2/32 permanent list Tor"]);
    });
}

#[test]
fn each_list_has_its_own_end_and_the_log_names_it() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?expire=0");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=tor&expire=1&reason=why");
        rfw.ok("PUT", "/drop/input/any/1.0.0.2?expire=1");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=f2b&expire=1h");
        until(SOON, "two are gone", || host.rules(iptables, "INPUT").len() == 2);
        until(SOON, "the log tells", || rfw.log().contains("expired: INPUT -s 1.0.0.1 -j DROP in tor\n"));
        assert!(rfw.log().contains("expired: INPUT -s 1.0.0.2 -j DROP\n"), "{}", rfw.log());
        assert_eq!(column(&rfw.ok("GET", "/list"), &["source", "list"]), ["1.0.0.1 ", "1.0.0.1 f2b"]);
    });
}

#[test]
fn rules_max_counts_an_address_once_for_each_list() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("rules.max = 3").start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=a");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=b");
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        rfw.refused("PUT", "/drop/input/any/1.0.0.1?list=c", 507);
        assert_eq!(rfw.ok("PUT", "/drop/input/any/1.0.0.1?list=a")["result"], "refreshed");
        let before = host.tables(iptables);
        let mixed = "2001:4860::1\n1.0.0.1\n1.0.0.2\n";
        assert_eq!(rfw.send("PUT", "/drop/input/any?list=a", mixed).status, 507);
        assert_eq!(rfw.send("PUT", "/drop/input/any?list=a&replace=true", mixed).status, 507);
        assert_eq!(host.tables(iptables), before);
        let answer = rfw.send_ok("PUT", "/drop/input/any?list=a&replace=true", "1.0.0.2\n");
        assert_eq!((&answer["inserted"], &answer["removed"]), (&json!(1), &json!(1)));
    });
}
