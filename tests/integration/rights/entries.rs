//! `entries.max`: all lists of a client count, in both families and every scope, as rules and in sets, and
//! nothing that has ended.

use super::{ask, ok, refused, section, start};
use crate::host::{Host, Rfw, SOON, VARIANTS, in_all_ways, in_both_variants, until};
use crate::named_lists::kernel::{assert_same, held, kill_and_spawn};
use serde_json::json;

/// The client whose lists may have five entries, and one that may have many.
fn sections() -> String {
    section("five", "allow = * * *\nlists = mine-*,-\nentries.max = 5")
        + &section("other", "allow = * * *\nlists = mine-a,other")
}

/// Puts five entries in: two families, three lists, three scopes.
fn fill(host: &Host) {
    ok(host, "five", "PUT /drop/input/any?list=mine-a", "1.1.1.1\n1.1.1.2\n1.1.1.1\n");
    ok(host, "five", "PUT /drop/input/any/2a00::1", "");
    ok(host, "five", "PUT /accept/output/eth0/1.1.2.0/24?list=mine-b", "");
    ok(host, "five", "PUT /drop/forward/eth0/1.1.3.1/eth1/1.1.4.1", "");
}

/// Checks that there is no room for one more, of whatever kind.
#[track_caller]
fn assert_full(host: &Host) {
    let all = [
        ("PUT /drop/input/any/1.9.9.9?list=mine-a", ""),
        ("PUT /drop/input/any/1.9.9.9?list=mine-new", ""),
        ("PUT /drop/input/any/2a00::9", ""),
        ("PUT /reject/input/any?list=mine-a", "1.9.9.9"),
        // What is there is none more, what is not is one.
        ("PUT /drop/input/any?list=mine-a", "1.1.1.1\n1.9.9.9\n1.1.1.2"),
        // The same address in another list, or scope, is one more.
        ("PUT /drop/input/any/1.1.1.1", ""),
        ("PUT /drop/output/any/1.1.1.1?list=mine-a", ""),
        ("PUT /drop/input/any?list=mine-a&replace=true", "1.8.0.1\n1.8.0.2\n1.8.0.3"),
        ("PUT /reject/input/any?list=mine-a&replace=true", "1.8.0.1"),
    ];
    for (line, body) in all {
        let error = refused(host, "five", line, body, "entries.max");
        assert_eq!(error, "no right to more than 5 entries in all its lists (entries.max)", "{line}");
    }
}

#[test]
fn all_entries_of_a_client_are_counted_and_no_others() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option, &sections());
        ok(
            &host,
            "other",
            "PUT /drop/input/any?list=other",
            "1.7.0.1\n1.7.0.2\n1.7.0.3\n1.7.0.4\n1.7.0.5\n1.7.0.6",
        );
        ok(&host, "other", "PUT /drop/input/any/1.1.1.1?list=other", "");
        let six = "1.8.0.1\n1.8.0.2\n1.8.0.3\n1.8.0.4\n1.8.0.5\n2a00::5";
        refused(&host, "five", "PUT /drop/input/any?list=mine-a", six, "entries.max");
        fill(&host);
        let before = held(&host, iptables);
        assert_full(&host);
        assert_same(&held(&host, iptables), &before, "refused");
        // Renewing is free, by whatever request.
        assert_eq!(
            ok(&host, "five", "PUT /drop/input/any/1.1.1.1?list=mine-a&expire=2h", "")["result"],
            "refreshed"
        );
        let same = "1.1.1.2\n1.1.1.1\n1.1.1.2\n10.0.0.1\n";
        let answer = ok(&host, "five", "PUT /drop/input/any?list=mine-a", same);
        assert_eq!((&answer["refreshed"], &answer["skipped_total"]), (&json!(2), &json!(1)));
        let answer = ok(&host, "five", "PUT /drop/input/any?list=mine-a&replace=true", "1.1.1.2\n1.8.0.2\n");
        assert_eq!([&answer["inserted"], &answer["removed"]], [1, 1]);
        assert_full_but_for_one_after_less(&host);
        // A client whose lists are the same ones is bound by none.
        ok(&host, "other", "PUT /drop/output/any?list=mine-a", six);
        refused(&host, "five", "PUT /drop/input/any?list=mine-a&replace=true", "1.8.0.1", "entries.max");
        assert_eq!(ok(&host, "five", "DELETE /list?list=mine-a", "")["deleted"], 8);
        ok(&host, "five", "PUT /drop/input/any?list=mine-a", "1.8.0.1\n1.8.0.2\n");
    });
}

/// A list that shrinks, by a body that replaces it or by a DELETE, makes room for as many.
#[track_caller]
fn assert_full_but_for_one_after_less(host: &Host) {
    for line in ["PUT /drop/input/any?list=mine-a&replace=true", "DELETE /drop/input/any?list=mine-a"] {
        ok(host, "five", line, "1.8.0.2");
        ok(host, "five", "PUT /drop/input/eth0/1.6.0.1?list=mine-c", "");
        refused(host, "five", "PUT /drop/input/eth0/1.6.0.2?list=mine-c", "", "entries.max");
        ok(host, "five", "DELETE /drop/input/eth0/1.6.0.1?list=mine-c", "");
        ok(host, "five", "PUT /drop/input/any?list=mine-a&replace=true", "1.8.0.2\n1.1.1.2\n");
        refused(host, "five", "PUT /drop/input/eth0/1.6.0.2?list=mine-c", "", "entries.max");
    }
}

#[test]
fn what_has_ended_counts_no_more() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option, &sections());
        ok(&host, "five", "PUT /drop/input/any?list=mine-a", "1.1.1.1\n1.1.1.2\n1.1.1.3\n2a00::1\n");
        ok(&host, "five", "PUT /drop/input/any/1.1.1.4?list=mine-a&expire=4", "");
        let next = |number: u8| format!("PUT /drop/input/any/1.2.0.{number}?list=mine-b");
        refused(&host, "five", &next(1), "", "entries.max");
        until(SOON, "there is room", || ask(&host, "five", &next(1), "").status == 200);
        refused(&host, "five", &next(2), "", "entries.max");
    });
}

/// Entries that rfw has not read yet, since it starts, are not none.
#[test]
fn a_restart_and_a_reboot_make_no_room() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        std::fs::create_dir(host.dir.join("lib")).unwrap();
        let option = format!("state.file = {}\n{option}", host.dir.join("lib/state").display());
        let mut rfw = start(&host, iptables, &option, &sections());
        fill(&host);
        kill_and_spawn(&mut rfw);
        assert_full(&host);
        rfw.stop();
        let next = host.again(Some("1a1b2c3d-0a1b-4c2d-8e3f-0123456789ab"));
        let _rfw: Rfw<'_> = start(&next, iptables, &option, &sections());
        assert_eq!(held(&next, iptables).len(), 5);
        assert_full(&next);
    });
}

/// A long list, of which nothing is read when the first request comes after a start.
#[test]
fn a_long_list_counts_before_it_is_read() {
    let host = Host::new();
    let sections = section("many", "allow = drop input any\nlists = mine\nentries.max = 30000");
    let mut rfw = start(&host, VARIANTS[0], "ipset", &sections);
    let hosts: String = (0..30_000).map(|n: u32| format!("11.{}.{}.1\n", n >> 8, n & 255)).collect();
    ok(&host, "many", "PUT /drop/input/any?list=mine", &hosts);
    ok(&host, "me", "PUT /drop/output/any/11.0.0.1?list=mine", "");
    let asks = [
        ("PUT /drop/input/any/1.1.1.1?list=mine", "", "entries.max"),
        ("PUT /drop/input/any?list=mine", "1.1.1.1", "entries.max"),
        ("DELETE /list?list=mine", "", "allow"),
        ("DELETE /list?address=11.0.0.1", "", "allow"),
    ];
    for (line, body, right) in asks {
        kill_and_spawn(&mut rfw);
        refused(&host, "many", line, body, right);
    }
    assert_eq!(host.entries().iter().filter(|entry| entry.set.ends_with("/mine")).count(), 30_001);
}

/// Where another program flushes what a client has, that comes back: it makes no room meanwhile.
#[test]
fn a_flush_by_another_program_makes_no_room() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = start(&host, iptables, option, &sections());
        ok(&host, "five", "PUT /drop/input/any?list=mine-a", "1.1.1.1\n1.1.1.2\n1.1.1.3\n1.1.1.4\n1.1.1.5\n");
        for round in 1..4 {
            match option {
                "ipset" => host.admin("true", "; ipset flush rfw4-ids; ipset flush rfw4-ids/mine-a"),
                _ => host.admin(iptables, "-F INPUT"),
            }
            let line = format!("PUT /drop/input/any/1.9.9.{round}?list=mine-a");
            let reply = ask(&host, "five", &line, "");
            assert!([403, 503].contains(&reply.status), "{reply:?}");
            until(SOON, "all is back", || held(&host, iptables).len() == 5);
        }
    });
}

#[test]
fn addresses_that_become_a_set_are_counted_once() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let sections = section("many", "allow = * * *\nlists = mine\nentries.max = 120");
        let _rfw = start(&host, iptables, "ipset = auto", &sections);
        let hosts = |range: std::ops::Range<u8>| range.map(|n| format!("1.1.0.{n}\n")).collect::<String>();
        ok(&host, "many", "PUT /drop/input/any?list=mine", &hosts(0..100));
        assert!(host.sets().is_empty());
        for number in 100..120 {
            ok(&host, "many", &format!("PUT /drop/input/any/1.1.0.{number}?list=mine"), "");
        }
        assert!(!host.sets().is_empty());
        refused(&host, "many", "PUT /drop/input/any/1.1.0.120?list=mine", "", "entries.max");
        refused(&host, "many", "PUT /drop/input/eth0/1.1.0.1?list=mine", "", "entries.max");
        let answer = ok(&host, "many", "PUT /drop/input/any?list=mine&replace=true", &hosts(50..170));
        assert_eq!([&answer["refreshed"], &answer["inserted"], &answer["removed"]], [70, 50, 50]);
        let too_many = hosts(50..171);
        refused(&host, "many", "PUT /drop/input/any?list=mine&replace=true", &too_many, "entries.max");
        assert_eq!(held(&host, iptables).len(), 120);
    });
}
