//! `GET /changes`: what each kind of change looks like there, from where on it is told, and to whom.

use super::{Ask, ask, ask_in_one, ok, refused, section, start};
use crate::host::{Host, VARIANTS, in_all_ways};
use serde_json::Value;

/// The rows of an answer, with these keys.
fn rows(answer: &Value, keys: &[&str]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows = answer["changes"].as_array().expect("an array").iter();
    rows.map(|row| keys.iter().map(|key| text(&row[*key])).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn each_kind_of_change_has_its_row_the_oldest_first() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = start(&host, iptables, option, "");
        let start = ok(&host, "me", "GET /changes", "");
        assert_eq!((&start["changes"], &start["missed"]), (&Value::Array(Vec::new()), &false.into()));
        for (line, body) in [
            ("PUT /drop/input/any/1.1.1.1?list=tor&expire=1h&reason=port%20scan", ""),
            ("PUT /drop/input/eth/1.1.1.2?expire=0", ""),
            ("PUT /drop/input/eth/1.1.1.2?expire=0", ""),
            ("PUT /drop/forward/eth0/1.1.1.1/eth1/1.1.2.0/24?list=tor", ""),
            ("PUT /drop/input/any?list=feed", "1.1.1.1\n1.1.1.3\n10.0.0.1\n"),
            ("PUT /drop/input/any?list=feed&replace=true", "1.1.1.3\n1.1.1.4\n2a00::1\n"),
            ("DELETE /drop/input/any?list=feed", "1.1.1.3\n1.1.1.9\n"),
            ("DELETE /drop/input/any/9.9.9.9", ""),
            ("DELETE /list?address=1.1.1.1", ""),
            ("DELETE /list?address=1.1.1.1", ""),
            ("DELETE /drop/input/any?list=feed", ""),
            ("DELETE /list?list=-", ""),
            ("DELETE /list?list=*", ""),
        ] {
            ok(&host, "me", line, body);
        }
        // What is refused, and what reads, is no change.
        ask(&host, "me", "PUT /drop/input/any/127.0.0.1", "");
        ok(&host, "me", "GET /list", "");
        let answer = ok(&host, "me", "GET /changes", "");
        let keys =
            ["op", "list", "target", "chain", "inp", "out", "address", "destination", "count", "outcome"];
        let mut told = rows(&answer, &keys);
        // The two rows of one address come in the order of the kernel's tables.
        told[8..10].sort();
        let expected = [
            "insert tor DROP INPUT * * 1.1.1.1 null 1 inserted",
            "insert  DROP INPUT eth+ * 1.1.1.2 null 1 inserted",
            "insert  DROP INPUT eth+ * 1.1.1.2 null 1 unchanged",
            "insert tor DROP FORWARD eth0 eth1 1.1.1.1 1.1.2.0/24 1 inserted",
            "insert feed DROP INPUT * * null null 2 2 inserted, 0 refreshed, 1 skipped",
            "replace feed DROP INPUT * * null null 3 2 inserted, 1 refreshed, 1 removed",
            "delete feed DROP INPUT * * null null 2 1 deleted, 1 absent",
            "delete  DROP INPUT * * 9.9.9.9 null 1 absent",
            "delete tor DROP FORWARD eth0 eth1 1.1.1.1 1.1.2.0/24 1 deleted",
            "delete tor DROP INPUT * * 1.1.1.1 null 1 deleted",
            "delete null null null null null 1.1.1.1 null 1 absent",
            "delete feed DROP INPUT * * null null 2 2 deleted",
            "delete  null null null null null null 1 1 deleted",
            "delete null null null null null null null 0 0 deleted",
        ];
        assert_eq!(told, expected, "{answer:#}");
        let first = &answer["changes"][0];
        assert_eq!(rows(&answer, &["client", "from", "reason"])[0], "me 127.0.0.1 port scan");
        let times = [&first["time"], &first["until"]].map(|time| time.as_str().unwrap().to_owned());
        assert!(times[0] < times[1] && times[1].ends_with('Z'), "{times:?}");
        assert_eq!(rows(&answer, &["until", "reason"])[1], "null null");
        // The log has the same.
        let log = rfw.log();
        for line in [
            "client=me from=127.0.0.1 op=insert list=tor target=drop chain=input interface=any address=1.1.1.1 until=",
            " reason=\"port scan\" outcome=inserted",
            "client=me from=127.0.0.1 op=replace list=feed target=drop chain=input interface=any count=3 until=",
            "client=me from=127.0.0.1 op=delete list=* count=0 outcome=\"0 deleted\"",
        ] {
            assert!(log.contains(line), "{line}\n{log}");
        }
    });
}

#[test]
fn changes_are_asked_for_from_a_cursor_or_a_time_on() {
    let host = Host::new();
    let mut rfw = start(&host, VARIANTS[0], "", "");
    let since =
        |since: &Value| ok(&host, "me", &format!("GET /changes?since={}", since.as_str().unwrap()), "");
    ok(&host, "me", "PUT /drop/input/any/1.1.1.1", "");
    let first = ok(&host, "me", "GET /changes", "");
    assert_eq!(rows(&since(&first["next"]), &["address"]), [""; 0]);
    ok(&host, "me", "PUT /drop/input/any/1.1.1.2", "");
    let second = since(&first["next"]);
    assert_eq!((rows(&second, &["address"]), &second["missed"]), (vec!["1.1.1.2".to_owned()], &false.into()));
    assert_eq!(rows(&since(&first["changes"][0]["time"]), &["address"]), ["1.1.1.1", "1.1.1.2"]);
    let early = ok(&host, "me", "GET /changes?since=2020-01-01T00:00:00Z", "");
    assert_eq!((rows(&early, &["op"]).len(), &early["missed"]), (2, &true.into()));
    assert_eq!(rows(&ok(&host, "me", "GET /changes?since=2100-01-01T00:00:00Z", ""), &["op"]).len(), 0);
    assert_eq!(ask(&host, "me", "GET /changes?since=yesterday", "").status, 400);
    let head = ask(&host, "me", "HEAD /changes", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    // A thousand are kept.
    let delete = Ask::new("me", "DELETE /drop/input/any/9.9.9.9", "");
    assert!(ask_in_one(&host, &[delete; 1_000]).iter().all(|reply| reply.status == 200));
    let all = ok(&host, "me", "GET /changes", "");
    assert_eq!(rows(&all, &["outcome"]), ["absent"; 1_000]);
    assert_eq!(
        (&since(&first["next"])["missed"], &since(&all["next"])["missed"]),
        (&true.into(), &false.into())
    );
    // A restart forgets them, and says so.
    rfw.stop();
    rfw.spawn();
    ok(&host, "me", "PUT /drop/input/any/1.1.1.3", "");
    let after = since(&all["next"]);
    assert_eq!((rows(&after, &["address"]), &after["missed"]), (vec!["1.1.1.3".to_owned()], &true.into()));
}

#[test]
fn a_client_is_told_of_changes_of_the_lists_that_it_sees() {
    let host = Host::new();
    let sections = section("own", "allow = * * *\nlists = mine*\nread = own")
        + &section("none", "allow = * * *\nlists = mine*\nread = none")
        + &section("all", "read = all");
    let _rfw = start(&host, VARIANTS[0], "", &sections);
    for line in ["mine", "hidden", "mine-b"] {
        ok(&host, "me", &format!("PUT /drop/input/any/1.1.1.1?list={line}&reason={line}"), "");
    }
    ok(&host, "none", "PUT /drop/input/any/1.1.1.2?list=mine", "");
    // The admin takes the address out of all lists, and then looks for it where it is not.
    ok(&host, "me", "DELETE /list?address=1.1.1.1", "");
    ok(&host, "me", "DELETE /list?address=1.1.1.1", "");
    ok(&host, "me", "DELETE /list?list=*", "");
    let told = |client: &str| {
        let reply = ask(&host, client, "GET /changes", "");
        assert!(client == "all" || !reply.body.contains("hidden"), "{reply:?}");
        let mut rows = rows(&reply.json(), &["client", "op", "list", "count", "outcome"]);
        rows.sort();
        rows
    };
    let own = [
        "me delete mine 1 deleted",
        "me delete mine-b 1 deleted",
        "me delete null null deleted",
        "me insert mine 1 inserted",
        "me insert mine-b 1 inserted",
        "none insert mine 1 inserted",
    ];
    assert_eq!(told("own"), own);
    let all = told("all");
    assert_eq!(all.len(), 9);
    for row in ["me delete hidden 1 deleted", "me delete null 1 1 deleted", "me delete null 1 absent"] {
        assert!(all.contains(&row.to_owned()), "{all:#?}");
    }
    refused(&host, "none", "GET /changes", "", "read");
}
