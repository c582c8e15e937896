//! What a client may not see is in no answer to it: neither in rows nor in what an answer tells beside, and
//! not in an error.

use super::{Ask, ask, ask_in_one, ok, refused, section, start};
use crate::host::{Host, Reply, VARIANTS, in_all_ways, in_both_variants, node_name};
use crate::named_lists::kernel::{assert_same, held, kill_and_spawn};
use serde_json::{Value, json};

/// Checks that an answer says nothing of the hidden lists, which all begin so.
#[track_caller]
fn assert_silent(reply: &Reply) {
    assert!(!format!("{reply:?}").contains("hidden"), "{reply:?}");
}

/// The lists that rows are of.
fn lists(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["list"].as_str().unwrap()).collect()
}

/// Rights to change the lists that begin with `mine`.
fn own(read: &str) -> String {
    format!("allow = * * *\nlists = mine*\nread = {read}")
}

/// A DELETE tells the first ten that hold the address still: of those that the client may see.
#[test]
fn what_else_holds_an_address_is_told_of_visible_lists_alone() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let sections =
            section("own", &own("own")) + &section("none", &own("none")) + &section("all", &own("all"));
        let _rfw = start(&host, iptables, option, &sections);
        for number in 0..11 {
            ok(&host, "me", &format!("PUT /drop/input/any/1.1.1.1?list=hidden{number}&reason=hidden"), "");
        }
        for line in ["mine-z", "mine"] {
            ok(&host, "me", &format!("PUT /drop/input/any/1.1.1.1?list={line}"), "");
        }
        let line = "DELETE /drop/input/any/1.1.1.1?list=mine";
        let reply = ask(&host, "own", line, "");
        assert_silent(&reply);
        assert_eq!(
            (&reply.json()["result"], lists(&reply.json()["still"])),
            (&json!("deleted"), vec!["mine-z"])
        );
        let reply = ask(&host, "none", line, "");
        assert_silent(&reply);
        assert_eq!(reply.json()["still"], json!([]));
        assert_eq!(ok(&host, "all", line, "")["still"].as_array().unwrap().len(), 10);
    });
}

/// A PUT tells of an accept that comes before the block: the latest that the client may see.
#[test]
fn an_accept_that_overrides_a_block_is_told_of_visible_lists_alone() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let sections = section("own", &own("own")) + &section("none", &own("none"));
        let _rfw = start(&host, iptables, "ipset", &sections);
        ok(&host, "me", "PUT /accept/input/any/1.1.0.0/16?list=hidden&expire=5h", "");
        let line = "PUT /drop/input/any/1.1.1.1?list=mine";
        assert_eq!(ok(&host, "own", line, "").get("overridden_by"), None);
        ok(&host, "me", "PUT /accept/input/any/1.1.1.0/24?list=mine&expire=1h", "");
        let reply = ask(&host, "own", line, "");
        assert_silent(&reply);
        assert_eq!(reply.json()["overridden_by"]["source"], "1.1.1.0/24");
        assert_eq!(ok(&host, "none", line, "").get("overridden_by"), None);
        assert_eq!(ok(&host, "me", line, "")["overridden_by"]["list"], "hidden");
    });
}

/// Rows of own lists, whatever set they stand in, and HEAD as long as GET.
#[test]
fn listings_have_the_rows_of_visible_lists_alone() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let sections = section("own", &own("own")) + &section("all", &format!("{}\nlists = -", "read = all"));
        let _rfw = start(&host, iptables, option, &sections);
        for list in ["hidden", "mine", "mine-b", "hidden-2"] {
            let line = format!("PUT /drop/input/any?list={list}&reason=of%20{list}");
            ok(&host, "me", &line, "1.1.1.1\n1.1.1.0/24\n2a00::1\n");
        }
        ok(&host, "me", "PUT /drop/forward/eth0/1.1.1.1/eth1/1.1.2.1?list=hidden", "");
        ok(&host, "me", "PUT /drop/input/any/1.1.1.1", "");
        let lines =
            ["/list", "/list?address=1.1.1.1", "/list/input/any", "/list/forward", "/list?list=mine-b"];
        for (line, count) in lines.into_iter().zip([6, 4, 6, 0, 3]) {
            let [get, head] = ["GET", "HEAD"].map(|method| format!("{method} {line}"));
            let replies = ask_in_one(&host, &[Ask::new("own", &get, ""), Ask::new("own", &head, "")]);
            replies.iter().for_each(assert_silent);
            let rows = replies[0].json();
            assert_eq!(rows.as_array().unwrap().len(), count, "{line}: {rows}");
            assert!(lists(&rows).iter().all(|list| list.starts_with("mine")), "{line}: {rows}");
            for extra in rows.as_array().unwrap().iter().map(|row| row["extra"].as_str().unwrap()) {
                assert!(extra.starts_with("/* rfw") || !extra.contains('/'), "{extra}");
            }
            assert_eq!(replies[0].header("Content-Length"), replies[1].header("Content-Length"), "{line}");
        }
        let summaries = ask(&host, "own", "GET /lists", "");
        assert_silent(&summaries);
        assert_eq!(lists(&summaries.json()), ["mine", "mine-b"]);
        assert!(lists(&ok(&host, "all", "GET /lists", "")).contains(&"hidden"));
    });
}

/// `DELETE /list?address=`: all that the client sees, or nothing; what it does not see stays.
#[test]
fn an_address_in_several_lists_goes_out_of_all_that_a_client_sees_or_of_none() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let narrow = |read: &str| format!("allow = drop input,forward *\nlists = mine*\nread = {read}");
        let sections = section("own", &narrow("own"))
            + &section("none", &narrow("none"))
            + &section("all", &own("all"))
            + &section("wide", &own("own"));
        let mut rfw = start(&host, iptables, option, &sections);
        let put = || {
            for (address, other) in
                [("1.1.1.1", "9.9.9.9"), ("2a00:1::/64", "2a00:9::1"), ("1.2.3.0/24", "9.9.9.9")]
            {
                for list in ["hidden", "mine", "mine-b"] {
                    ok(&host, "me", &format!("PUT /drop/input/any/{address}?list={list}&expire=2h"), "");
                }
                ok(&host, "me", &format!("PUT /drop/output/any/{address}?list=mine&expire=2h"), "");
                ok(
                    &host,
                    "me",
                    &format!("PUT /drop/forward/any/{other}/any/{address}?list=mine&expire=2h"),
                    "",
                );
            }
        };
        for address in ["1.1.1.1", "2a00:1::/64", "1.2.3.0/24"] {
            put();
            let before = held(&host, iptables);
            let line = format!("DELETE /list?address={address}");
            // As soon as rfw is up nothing may be read yet: that is not nothing.
            kill_and_spawn(&mut rfw);
            let error = refused(&host, "own", &line, "", "allow");
            assert!(error.contains("OUTPUT") && !error.contains("hidden"), "{error}");
            refused(&host, "all", &line, "", "lists");
            let error = refused(&host, "none", "DELETE /list?list=mine", "", "allow");
            assert_eq!(error, "no right to change all of the list mine (allow)");
            assert!(refused(&host, "own", "DELETE /list?list=mine", "", "allow").contains("OUTPUT"));
            assert_same(&held(&host, iptables), &before, address);
            // Who sees none of them deletes what it may, and is shown nothing.
            let reply = ask(&host, "none", &line, "");
            assert_silent(&reply);
            assert_eq!(reply.json(), json!({ "deleted": 3, "host": node_name(), "rows": [] }), "{address}");
            let reply = ask(&host, "wide", &line, "");
            assert_silent(&reply);
            assert_eq!((&reply.json()["deleted"], lists(&reply.json()["rows"])), (&json!(1), vec!["mine"]));
            let left = held(&host, iptables);
            let left: Vec<&String> = left.keys().filter(|key| key.contains(address)).collect();
            assert_eq!(left, [&format!("hidden DROP INPUT * * {address} any")]);
        }
    });
}

/// Who may change every list and see none is not told which there are.
#[test]
fn a_list_that_can_not_go_with_all_others_is_not_named_to_who_does_not_see_it() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let all = |read: &str| format!("allow = drop input *\nlists = *\nread = {read}");
        let _rfw =
            start(&host, iptables, option, &(section("none", &all("none")) + &section("all", &all("all"))));
        ok(&host, "me", "PUT /drop/output/any/1.1.1.1?list=hidden", "");
        let before = held(&host, iptables);
        let line = "DELETE /list?list=*";
        let error = refused(&host, "none", line, "", "allow");
        assert_eq!(error, "no right to change all of every list (allow)");
        assert!(refused(&host, "all", line, "", "allow").contains("OUTPUT"));
        assert_same(&held(&host, iptables), &before, line);
    });
}

/// What goes wrong in the kernel is told in names of sets and words of tools: to those alone who see all.
#[test]
fn an_error_of_the_kernel_is_told_in_full_to_those_who_see_all() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let sections =
            section("own", &own("own")) + &section("none", &own("none")) + &section("all", &own("all"));
        let _rfw = start(&host, iptables, "ipset", &sections);
        ok(&host, "me", "PUT /drop/input/any?list=mine", "1.1.1.1\n");
        ok(&host, "me", "PUT /drop/input/any?list=hidden", "1.1.1.2\n");
        for line in
            ["del rfw rfw4-ids/mine", "destroy rfw4-ids/mine", "create rfw4-ids/mine hash:net family inet6"]
        {
            host.run("ipset", &line.split(' ').collect::<Vec<_>>()).ok();
        }
        let error = |client| {
            let reply = ask(&host, client, "PUT /drop/input/any/1.1.1.3?list=mine", "");
            assert_eq!(reply.status, 500, "{client}: {reply:?}");
            reply.json()["error"].as_str().unwrap().to_owned()
        };
        for client in ["own", "none"] {
            assert_eq!(
                error(client),
                "the packet filter can't be read or changed now: the log of rfw says why"
            );
        }
        assert!(["all", "me"].map(error).iter().all(|error| error.contains("rfw4-ids/mine")));
    });
}

/// While a scope has no named list, its set is the unnamed list; with the first named one it holds all.
#[test]
fn a_listing_that_goes_on_while_a_scope_gets_its_first_list_shows_nothing_of_that() {
    let host = Host::new();
    let sections = section("unnamed", "read = own");
    let _rfw = start(&host, VARIANTS[0], "ipset", &sections);
    let hosts = |first: u8, count: u32| {
        (0..count).map(|n| format!("{first}.{}.{}.1\n", n >> 8, n & 255)).collect::<String>()
    };
    for interface in ["eth0", "eth1"] {
        ok(&host, "me", &format!("PUT /drop/input/{interface}"), &hosts(11, 20_000));
        let list = format!("GET /list/input/{interface}");
        let mut talk = host.connect(7390);
        let mut other = host.connect(7390);
        talk.say(Ask::new("unnamed", &list, "").text().as_bytes());
        let line = format!("PUT /drop/input/{interface}?list=hidden");
        other.say(Ask::new("me", &line, &hosts(66, 20_000)).text().as_bytes());
        let (reply, put) = (talk.reply(), other.reply());
        assert_eq!(put.status, 200, "{put:?}");
        assert!(!reply.body.contains("\"66."), "{interface}");
        // It may have been over before the list came.
        match reply.status {
            200 => assert_eq!(reply.body.matches("\"11.").count(), 20_000),
            _ => assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("2"))),
        }
    }
}

/// Whether an address is new, was there or is absent is told of the client's list, whatever others have.
#[test]
fn what_a_hidden_list_has_shows_in_no_count_and_no_result() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option, &section("own", &own("own")));
        let all = "1.1.1.1\n1.1.1.2\n1.1.1.0/24\n2a00::1\n";
        // The unnamed list alone, and then another beside it.
        for list in ["", "?list=hidden"] {
            ok(&host, "me", &format!("PUT /drop/input/any{list}"), all);
            let change = |method: &str, query: &str, body: &str| {
                let reply = ask(&host, "own", &format!("{method} /drop/input/any{query}"), body);
                assert_silent(&reply);
                reply.json()
            };
            let counts = |answer: &Value, keys: [&str; 2]| keys.map(|key| answer[key].as_u64().unwrap());
            assert_eq!(change("DELETE", "/1.1.1.1?list=mine", "")["result"], "absent");
            assert_eq!(counts(&change("DELETE", "?list=mine", all), ["deleted", "absent"]), [0, 4]);
            assert_eq!(change("DELETE", "?list=mine", "")["deleted"], 0);
            assert_eq!(change("PUT", "/1.1.1.1?list=mine", "")["result"], "inserted");
            assert_eq!(change("PUT", "/1.1.1.1?list=mine", "")["result"], "refreshed");
            assert_eq!(counts(&change("PUT", "?list=mine", all), ["inserted", "refreshed"]), [3, 1]);
            let answer = change("PUT", "?list=mine&replace=true", "1.1.1.2\n1.1.1.3\n");
            assert_eq!(counts(&answer, ["inserted", "removed"]), [1, 3]);
            let line = "DELETE /list?address=1.1.1.2";
            assert_eq!(lists(&ok(&host, "own", line, "")["rows"]), ["mine"]);
            assert_eq!(ok(&host, "own", line, ""), json!({ "deleted": 0, "host": node_name(), "rows": [] }));
            assert_eq!(change("DELETE", "?list=mine", "")["deleted"], 1);
        }
        assert_eq!(held(&host, iptables).len(), 8);
    });
}
