//! Lists of rules: their keys and values, and what is asked of them.

use crate::golden::cases;
use crate::host::fake::Fault;
use crate::host::{Host, SOON, in_all_ways, in_both_variants, of_ipv6, until};
use crate::rules::strings;
use serde_json::Value;

/// What `iptables -nvxL --line-numbers` says of the rules with a comment that
/// begins with "rfw": chain, num, pkts, bytes, target, in, out, source,
/// destination and the rest.
fn listed_by_iptables(host: &Host, command: &str) -> Vec<[String; 10]> {
    let mut chain = String::new();
    let mut rows = Vec::new();
    for line in host.run(command, &["-w", "-nvxL", "--line-numbers"]).ok().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Chain", name, ..] => chain = (*name).to_owned(),
            [num, pkts, bytes, target, _, _, inp, out, source, destination, extra @ ..]
                if line.contains("/* rfw") && !line.contains("rfw guard") =>
            {
                let extra = extra.join(" ");
                let row =
                    [chain.as_str(), num, pkts, bytes, target, inp, out, source, destination, extra.as_str()];
                rows.push(row.map(str::to_owned));
            }
            _ => {}
        }
    }
    rows
}

/// The same of a list of rfw.
fn listed_by_rfw(list: &Value) -> Vec<[String; 10]> {
    let keys = ["chain", "num", "pkts", "bytes", "target", "inp", "out", "source", "destination", "extra"];
    let rows = list.as_array().unwrap().iter();
    rows.map(|row| keys.map(|key| row[key].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_list_has_the_keys_of_the_original_and_the_values_of_the_kernel() {
    in_both_variants(|iptables| {
        let host = Host::new();
        host.neighbour("peer", &["10.0.0.1/24", "fd00::1/64"], &["10.0.0.2/24", "fd00::2/64"]);
        let rfw = host.rfw(iptables).configure("stay.first = off").start();
        for path in [
            "/drop/input/wire0/10.0.0.2",
            "/accept/input/wire/fd00::2?expire=0",
            "/reject/output/any/192.0.2.0/24",
            "/reject/forward/ppp/2001:db8::/48/eth0/fd00::/64",
            "/accept/forward/any/0.0.0.0/any/5.5.5.5",
        ] {
            rfw.ok("PUT", path);
        }
        host.admin(iptables, "-I INPUT -s 10.9.9.9 -j ACCEPT");
        let ping = |address| {
            host.run("ip", &["netns", "exec", "peer", "ping", "-c3", "-i0.2", "-W1", "-s56", address])
        };
        ping("10.0.0.1").fails_with(1);
        ping("fd00::1").ok();

        // A neighbour solicitation may come in between; then all is read again.
        let read =
            || [iptables.to_owned(), of_ipv6(iptables)].map(|c| listed_by_iptables(&host, &c)).concat();
        let mut list = Value::Null;
        until(SOON, "the list is what the kernel holds", || {
            let before = read();
            list = rfw.ok("GET", "/list");
            let same = listed_by_rfw(&list) == before;
            assert!(same || before != read(), "{list:#}\n{before:#?}");
            same
        });
        let input = &list[0];
        let counted = ["num", "pkts", "bytes", "source"].map(|key| input[key].as_str().unwrap());
        assert_eq!(counted, ["2", "3", "252", "10.0.0.2"], "{list:#}");
        let passed = list.as_array().unwrap().iter().find(|row| row["source"] == "fd00::2").unwrap();
        assert!(passed["pkts"].as_str().unwrap().parse::<u64>().unwrap() >= 3, "{list:#}");

        let saved = host.run(&format!("{iptables}-save"), &["-c", "-t", "filter"]).ok();
        assert!(saved.contains("[3:252] -A INPUT -s 10.0.0.2/32 -i wire0 "), "{saved}");

        let mut keys = "chain num pkts bytes target prot opt inp out source destination extra expires list"
            .split(' ')
            .collect::<Vec<_>>();
        keys.sort_unstable();
        for row in list.as_array().unwrap() {
            let mut there: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
            there.sort_unstable();
            assert_eq!(there, keys);
            let strings = row.as_object().unwrap().iter().filter(|(key, _)| *key != "expires");
            assert!(strings.into_iter().all(|(_, value)| value.is_string()), "{row}");
            assert_eq!((&row["prot"], &row["opt"]), (&"all".into(), &"--".into()));
            let lease = match row["expires"].as_str() {
                Some(moment) => format!("/* rfw until {moment} */"),
                None => "/* rfw permanent */".to_owned(),
            };
            assert!(row["expires"].is_string() || row["expires"].is_null(), "{row}");
            assert!(row["extra"].as_str().unwrap().starts_with(&lease), "{row}");
        }
        assert_eq!(strings(&list, "target"), ["DROP", "ACCEPT", "REJECT", "ACCEPT", "REJECT"]);
        assert_eq!(list.as_array().unwrap().iter().filter(|row| row["expires"].is_null()).count(), 1);
    });
}

#[test]
fn a_list_is_of_the_chain_and_interface_asked_for() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for path in [
            "/drop/input/any/1.0.0.1",
            "/drop/input/eth0/1.0.0.2",
            "/drop/input/eth/1.0.0.3",
            "/drop/output/eth0/1.0.0.4",
            "/drop/forward/eth0/1.0.0.5",
            "/drop/forward/ppp0/1.0.0.6/eth0",
            "/drop/input/eth0/2001:db8::7",
        ] {
            rfw.ok("PUT", path);
        }
        for (at, [path, expected]) in cases("list-of-chain.txt") {
            let reply = rfw.request("GET", &path);
            let list = reply.json();
            let last = |row: &Value| {
                let address = ["source", "destination"].map(|key| row[key].as_str().unwrap());
                address.iter().find(|text| !text.ends_with("/0")).unwrap().chars().last().unwrap()
            };
            let there: Vec<String> =
                list.as_array().unwrap().iter().map(|row| last(row).to_string()).collect();
            assert_eq!(there.join(" "), expected, "{iptables}: {at}");
            let head = rfw.request("HEAD", &path);
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{at}");
            assert_eq!(head.header("Content-Type"), reply.header("Content-Type"), "{at}");
        }
    });
}

#[test]
fn a_lookup_gives_what_holds_an_address() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        for path in [
            "/drop/input/any/1.2.3.4",
            "/drop/input/eth0/1.2.3.0/24",
            "/accept/input/any/1.2.0.0/16",
            "/reject/output/any/1.2.3.4",
            "/drop/forward/any/9.9.9.9/any/1.2.3.0/28",
            "/drop/forward/ppp/1.2.3.4/eth0/9.9.9.0/24",
            "/drop/input/any/1.2.3.5",
            "/drop/input/any/2001:db8::1",
            "/drop/input/any/2001:db8::/32",
            "/drop/output/eth0/2001:db9::/32",
        ] {
            rfw.ok("PUT", path);
        }
        for (at, [path, expected]) in cases("lookup.txt") {
            let list = rfw.ok("GET", &path);
            let mut found: Vec<&str> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    let (source, destination) =
                        (row["source"].as_str().unwrap(), row["destination"].as_str().unwrap());
                    match source.ends_with("/0") || source == "9.9.9.9" {
                        true => destination,
                        false => source,
                    }
                })
                .collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), expected, "{at}: {list:#}");
        }
        for query in [
            "address=",
            "address=x",
            "address=1.2.3",
            "address=1.2.3.4/33",
            "address=1.2.3.4&address=1.2.3.4",
            "address=1.2.3.4%2F33",
            "addresses=1.2.3.4",
            "address=1.2.3.4&expire=3",
            "address",
        ] {
            rfw.refused("GET", &format!("/list?{query}"), 400);
        }
        rfw.refused("GET", "/?address=1.2.3.4", 400);
        rfw.refused("PUT", "/drop/input/any/1.2.3.4?address=1.2.3.4", 400);
    });
}

/// A row of a list in CSV, by the columns that are documented.
fn table_row(row: &Value) -> String {
    let text = |column: &str| match row[column].as_str().unwrap_or_default() {
        text if text.contains(',') => format!("\"{text}\""),
        text => text.to_owned(),
    };
    let columns = "list chain target inp out source destination expires reason by pkts bytes";
    columns.split(' ').map(text).collect::<Vec<_>>().join(",")
}

#[test]
fn a_list_is_a_table_or_bare_addresses_which_another_rfw_takes() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        let body = "1.2.3.4 # a, b\n1.2.4.0/24\n2001:db8::1 # c\n";
        rfw.send_ok("PUT", "/drop/input/any?list=a&reasons=true&expire=0", body);
        rfw.ok("PUT", "/accept/output/any/5.6.7.8?list=a&expire=0");
        rfw.ok("PUT", "/reject/forward/eth0/9.9.9.9/any/1.2.3.0/28?expire=0");
        let ask = |accept: &str, path: &str| {
            let url = format!("https://127.0.0.1:7393{path}");
            let reply = rfw.curl(&["-u", "me:secret", "-H", accept, &url]);
            assert_eq!(reply.status, 200, "{reply:?}");
            let media =
                reply.header("Content-Type").unwrap_or_default().split(';').next().unwrap().to_owned();
            (media, reply.body)
        };
        // The counters stay, since no packet comes, and so does what has no end.
        let rows = rfw.ok("GET", "/list");
        let header = "list,chain,target,inp,out,source,destination,expires,reason,by,packets,bytes\n";
        let table: String = rows.as_array().unwrap().iter().map(|row| table_row(row) + "\n").collect();
        let csv = ("text/csv".to_owned(), format!("{header}{table}"));
        assert_eq!(rows.as_array().map(Vec::len), Some(5));
        assert!(table.contains(",\"a, b\",me,0,0\n"), "{table}");
        let json = ask("Accept: */*", "/list");
        assert_eq!(
            (json.0.as_str(), serde_json::from_str::<Value>(&json.1).unwrap()),
            ("application/json", rows)
        );
        for (accept, path) in [
            ("Accept: text/csv", "/list"),
            ("Accept:", "/list?format=csv"),
            ("Accept: application/json", "/list?format=csv"),
        ] {
            assert_eq!(ask(accept, path), csv, "{accept} {path}");
        }
        assert_eq!(ask("Accept: image/png", "/list"), json);
        assert_eq!(ask("Accept: text/csv", "/list?format=json"), json);
        // Of the addresses alone, those of two sides are none.
        let plain = |path: &str| {
            let (media, text) = ask("Accept: text/plain", path);
            assert_eq!(media, "text/plain");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(plain("/list"), ["1.2.3.4", "1.2.4.0/24", "2001:db8::1", "5.6.7.8"]);
        let blocked = plain("/list?list=a&target=drop");
        assert_eq!(blocked, ["1.2.3.4", "1.2.4.0/24", "2001:db8::1"]);
        rfw.send_ok("PUT", "/drop/input/any?list=b&replace=true", &(blocked.join("\n") + "\n"));
        assert_eq!(plain("/list?list=b"), blocked);
        let (media, lists) = ask("Accept: text/csv", "/lists?list=a");
        assert_eq!(media, "text/csv");
        let words: Vec<Vec<&str>> = lists.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(words[0].join(","), "list,chain,target,inp,out,v4,v6,expires,updated,by");
        assert!(words.iter().any(|row| row[..7] == ["a", "INPUT", "DROP", "*", "*", "2", "1"]), "{lists}");
        rfw.refused("GET", "/list?format=xml", 400);
        rfw.refused("GET", "/lists?format=plain", 400);
    });
}

#[test]
fn a_list_that_breaks_off_is_an_error_and_no_broken_json() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let (path, lines) = host.fake_programs(iptables);
        let rfw = host.rfw(&path).configure(&lines).start();
        // Longer than what is sent at a time.
        // No more at once than a container without privileges may send.
        for part in 0..4 {
            let list: String = (0..100).map(|n| format!("1.2.{part}.{n}\n")).collect();
            rfw.send_ok("PUT", "/drop/input/any", &list);
        }
        let mut refused = 0;
        for number in 1..=4 {
            host.fail_at(Fault::Dies, number);
            let reply = rfw.request("GET", "/list");
            host.heal();
            match reply.status {
                200 => assert_eq!(reply.json().as_array().map(Vec::len), Some(400), "{iptables} {number}"),
                status => {
                    assert!(status >= 500 && reply.json()["error"].is_string(), "{iptables}: {reply:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{iptables}");
        assert_eq!(rfw.ok("GET", "/list").as_array().map(Vec::len), Some(400));
    });
}
