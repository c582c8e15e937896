//! Requests and the rules they make: every row of the grammar's table, sent with
//! curl and compared with what the kernel says, in both variants of iptables.

use crate::golden::cases;
use crate::host::{Host, Reply, Rfw, in_both_variants, of_ipv6};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// Spellings of one rule each.
const ALIKE: [[&str; 3]; 5] = [
    [
        "/drop/input/any/44.55.66.77/24",
        "/DROP/Input/any/44.55.66.0/24",
        "/drop/input/any/::ffff:44.55.66.1/120/",
    ],
    ["/drop/input/any/1.2.3.4", "/drop/input/any/1.2.3.4/32", "/drop/input/any/::ffff:102:304/128"],
    [
        "/drop/output/eth/2001:DB8::1",
        "/drop/output/eth/2001:db8:0:0::1/128",
        "/%64rop/output/e%74h/2001:db8::0:1",
    ],
    [
        "/accept/forward/a/1.2.3.4",
        "/accept/forward/a/1.2.3.4/any",
        "/accept/forward/a/1.2.3.4/32/any/0.0.0.0",
    ],
    [
        "/reject/forward/any/0.0.0.0/b/5.5.5.5",
        "/REJECT/FORWARD/any/0.0.0.0/b/5.5.5.5",
        "/reject/forward/any/::ffff:0.0.0.0/b/5.5.5.5/32",
    ],
];

/// A connection to the local server that is kept open, for many requests.
struct Line {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Line {
    fn to(rfw: &Rfw<'_>) -> Line {
        let script = "exec 3<>/dev/tcp/127.0.0.1/7390; cat <&0 >&3 & exec cat <&3";
        let mut bash = rfw.host.command("bash");
        let bash = bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Line { child, stdin, stdout: BufReader::new(stdout) }
    }

    #[track_caller]
    fn request(&mut self, method: &str, path: &str) -> Reply {
        write!(self.stdin, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stdout.read_line(&mut head).unwrap(), 0, "{method} {path}: {head}");
        }
        let mut reply = Reply::parse(&head);
        reply.body = match reply.header("Content-Length") {
            Some(length) => self.take(length.parse().unwrap()),
            None => self.take_chunks(),
        };
        reply
    }

    fn take(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.stdout.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn take_chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            let mut size = String::new();
            self.stdout.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
            body += &self.take(size);
            assert_eq!(self.take(2), "\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    /// The result of a change.
    #[track_caller]
    fn result(&mut self, method: &str, path: &str) -> String {
        let reply = self.request(method, path);
        assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
        reply.json()["result"].as_str().unwrap().to_owned()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's line without the comment that carries the lease.
fn without_comment(rule: &str) -> String {
    let (before, rest) = rule.split_once(" -m comment --comment \"").unwrap_or((rule, "\""));
    let (_, after) = rest.split_once('"').unwrap_or(("", ""));
    format!("{before}{after}")
}

/// Both tables, with comments left out.
fn bare_tables(host: &Host, iptables: &str) -> [Vec<String>; 2] {
    host.tables(iptables).map(|table| table.iter().map(|rule| without_comment(rule)).collect())
}

/// The tables with one more rule at the head of its chain.
fn with_head(tables: &[Vec<String>; 2], rule: &str) -> [Vec<String>; 2] {
    let rank = |line: &str| ["-A INPUT", "-A FORWARD", "-A OUTPUT"].iter().position(|c| line.starts_with(c));
    let mut tables = tables.clone();
    let table = &mut tables[usize::from(rule.contains("::"))];
    let at = table.iter().position(|line| rank(line) >= rank(rule)).unwrap_or(table.len());
    table.insert(at, rule.to_owned());
    tables
}

/// The command of the family that a path or rule is of.
fn command_for(iptables: &str, text: &str) -> String {
    if text.contains("2001:") { of_ipv6(iptables) } else { iptables.to_owned() }
}

/// The texts under a key, row by row.
pub fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn a_put_makes_its_one_rule_at_the_head_and_a_delete_takes_it_away() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\nfd00::1\n").start();
        let mut line = Line::to(&rfw);
        let before = bare_tables(&host, iptables);
        for (at, [method, path, rule]) in cases("rules.txt") {
            assert_eq!(line.result(&method, &path), "inserted", "{at}");
            assert_eq!(bare_tables(&host, iptables), with_head(&before, &rule), "{iptables}: {at}");
            let path = path.split('?').next().unwrap();
            assert_eq!(line.result("DELETE", path), "deleted", "{at}");
            assert_eq!(bare_tables(&host, iptables), before, "{iptables}: {at}");
        }
    });
}

#[test]
fn with_the_option_ipset_the_same_requests_keep_the_same() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\nfd00::1\n").configure("ipset").start();
        let mut line = Line::to(&rfw);
        for (at, [method, path, rule]) in cases("rules.txt") {
            if path.contains("36500d") {
                let error = line.request(&method, &path);
                assert!(error.status == 400 && error.body.contains("315360000 seconds"), "{at}: {error:?}");
                continue;
            }
            assert_eq!(line.result(&method, &path), "inserted", "{at}");
            assert_eq!(host.kept(iptables), [rule.as_str()], "{iptables}: {at}");
            let is_pair = rule.contains(" -s ") && rule.contains(" -d ");
            assert!(is_pair || host.entries().len() == 1, "{iptables}: {at}");
            let answer = line.request("GET", "/list");
            let list = answer.json();
            assert_eq!(list.as_array().unwrap().len(), 1, "{at}: {list}");
            assert_eq!(as_rule(&list[0]), rule, "{iptables}: {at}");
            let expected = if path.contains("expire=0") { "unchanged" } else { "refreshed" };
            assert_eq!(line.result("PUT", &permanent(&path)), expected, "{at}");
            assert_eq!(line.result("PUT", &permanent(&path)), "unchanged", "{at}");
            let path = path.split('?').next().unwrap();
            assert_eq!(line.result("DELETE", path), "deleted", "{at}");
            assert_eq!(line.result("DELETE", path), "absent", "{at}");
            assert_eq!(host.kept(iptables), Vec::<String>::new(), "{iptables}: {at}");
        }
    });
}

/// The path with a lease for ever.
fn permanent(path: &str) -> String {
    format!("{}?expire=0", path.split('?').next().unwrap())
}

/// A row of a list as the line of `iptables -S` that it stands for.
fn as_rule(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap();
    let masked = |address: &str| match address {
        _ if address.contains('/') => address.to_owned(),
        _ if address.contains(':') => format!("{address}/128"),
        _ => format!("{address}/32"),
    };
    let mut rule = format!("-A {}", text("chain"));
    for (flag, key) in [("-s", "source"), ("-d", "destination"), ("-i", "inp"), ("-o", "out")] {
        match text(key) {
            "*" | "0.0.0.0/0" | "::/0" => {}
            value if key.len() > 3 => rule += &format!(" {flag} {}", masked(value)),
            value => rule += &format!(" {flag} {value}"),
        }
    }
    let reject =
        text("extra").find("reject-with").map_or(String::new(), |at| format!(" --{}", &text("extra")[at..]));
    // The kernel's tools print an address of ::/96 with dots.
    let rule = rule.replace("::102:304/", "::1.2.3.4/");
    format!("{rule} -j {}{reject}", text("target"))
}

#[test]
fn a_refused_request_quotes_what_is_wrong_and_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/drop/input/any/2001:db8::1");
        let mut line = Line::to(&rfw);
        let before = host.tables(iptables);
        for (at, [status, method, path, part]) in cases("requests-refused.txt") {
            let reply = line.request(&method, &path);
            assert_eq!(reply.status.to_string(), status, "{at}: {reply:#?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(&part), "{at}: {error}");
        }
        for (method, path, allow) in [
            ("PUT", "/list", "GET, HEAD, DELETE"),
            ("DELETE", "/lists", "GET, HEAD"),
            ("GET", "/drop/input/any/1.2.3.4", "PUT, POST, DELETE"),
            ("PATCH", "/", "GET, HEAD"),
        ] {
            assert_eq!(rfw.request(method, path).header("Allow"), Some(allow), "{method} {path}");
        }
        assert_eq!(rfw.request("HEAD", "/drop/input/any/9.9.9.9").status, 405);
        assert_eq!(host.tables(iptables), before, "{iptables}");
    });
}

#[test]
fn two_spellings_of_a_rule_are_one_rule() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for [first, second, third] in ALIKE {
            assert_eq!(rfw.ok("PUT", first)["result"], "inserted", "{first}");
            let after = bare_tables(&host, iptables);
            for path in [second, third] {
                assert_eq!(rfw.ok("PUT", path)["result"], "refreshed", "{path}");
                assert_eq!(bare_tables(&host, iptables), after, "{iptables}: {path}");
            }
            assert_eq!(rfw.ok("DELETE", third)["result"], "deleted", "{first}");
            assert_eq!(rfw.ok("DELETE", first)["result"], "absent", "{first}");
        }
        assert_eq!(rfw.ok("GET", "/list"), serde_json::json!([]));
    });
}

#[test]
fn a_get_changes_rules_only_where_non_restful_is_on() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("non.restful").start();
        let path = "/drop/input/eth0/11.22.33.44";
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=insert&expire=0"))["result"], "inserted");
        let rule = "-A INPUT -s 11.22.33.44/32 -i eth0 -m comment --comment \"rfw permanent\" -j DROP";
        assert_eq!(host.rules(iptables, "INPUT"), [rule]);
        let refused = [
            ("GET", "", "modify: \"\" is wrong: expected insert or delete"),
            ("GET", "?modify=remove", "modify: \"remove\" is wrong"),
            ("GET", "?modify=", "modify: \"\" is wrong"),
            ("PUT", "?modify=insert", "goes with GET only"),
            ("DELETE", "?modify=delete", "goes with GET only"),
            ("GET", "?modify=delete&modify=insert", "given twice"),
        ];
        for (method, query, part) in refused {
            let error = rfw.refused(method, &format!("{path}{query}"), 400);
            assert!(error.contains(part), "{method} {query}: {error}");
        }
        assert_eq!(host.rules(iptables, "INPUT"), [rule]);
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=delete"))["result"], "deleted");
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=delete"))["result"], "absent");
        assert_eq!(host.rules(iptables, "INPUT"), Vec::<String>::new());
    });
}

#[test]
fn an_answer_has_the_result_the_rule_and_its_expiry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let path = "/reject/forward/ppp/1.2.3.4/24/eth0/5.5.5.5";
        let rule = serde_json::json!({
            "chain": "FORWARD", "target": "REJECT", "inp": "ppp+", "out": "eth0",
            "source": "1.2.3.0/24", "destination": "5.5.5.5",
        });
        let put = rfw.ok("PUT", &format!("{path}?expire=10m"));
        assert_eq!((&put["result"], &put["rule"]), (&"inserted".into(), &rule));
        let comment = format!("--comment \"rfw until {}\"", put["expires"].as_str().unwrap());
        let lines = host.rules(iptables, "FORWARD");
        assert!(lines.len() == 1 && lines[0].contains(&comment), "{comment}: {lines:?}");
        for (method, query, result) in
            [("POST", "?expire=0", "refreshed"), ("DELETE", "", "deleted"), ("DELETE", "", "absent")]
        {
            let answer = rfw.told(method, &format!("{path}{query}"));
            let mut expected = serde_json::json!({ "result": result, "rule": rule, "expires": null });
            if method == "DELETE" {
                expected["still"] = serde_json::json!([]);
            }
            assert_eq!(answer, expected, "{method}");
        }
        let put = rfw.told("PUT", "/drop/output/any/2001:db8::1?expire=0");
        let rule = serde_json::json!({
            "chain": "OUTPUT", "target": "DROP", "inp": "*", "out": "*",
            "source": "::/0", "destination": "2001:db8::1",
        });
        assert_eq!(put, serde_json::json!({ "result": "inserted", "rule": rule, "expires": null }));
    });
}

#[test]
fn a_put_goes_before_the_rules_of_others() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for (chain, path) in [
            ("INPUT", "/accept/input/any/1.2.3.4"),
            ("OUTPUT", "/accept/output/any/1.2.3.4"),
            ("FORWARD", "/accept/forward/any/1.2.3.4"),
            ("INPUT", "/accept/input/any/2001:db8::4"),
            ("FORWARD", "/accept/forward/any/2001:db8::4"),
        ] {
            let command = command_for(iptables, path);
            host.admin(&command, &format!("-I {chain} -p udp -j DROP"));
            host.admin(&command, &format!("-A {chain} -p icmp -j DROP"));
            let chain_of = || host.run(&command, &["-w", "-S", chain]).ok();
            let before = chain_of();
            // The first is put in, the second renews what is no longer first.
            for result in ["inserted", "refreshed"] {
                assert_eq!(rfw.ok("PUT", path)["result"], result, "{path}");
                let after = chain_of();
                let rules: Vec<&str> = after.lines().filter(|line| line.starts_with("-A")).collect();
                assert!(rules[0].contains("rfw until") && rules[0].ends_with("-j ACCEPT"), "{after}");
                let others: Vec<&str> = after.lines().filter(|line| !line.contains("rfw until")).collect();
                assert_eq!(others, before.lines().collect::<Vec<_>>(), "{iptables}: {path}");
                host.admin(&command, &format!("-I {chain} -p tcp -j DROP"));
                host.admin(&command, &format!("-D {chain} -p tcp -j DROP"));
            }
        }
    });
}

#[test]
fn a_put_of_what_is_there_renews_it_and_makes_no_second_copy() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for path in ["/drop/input/eth/1.2.3.0/24", "/reject/forward/any/2001:db8::1/any/2001:db8::2"] {
            let command = command_for(iptables, path);
            let chain = if path.contains("input") { "INPUT" } else { "FORWARD" };
            let golden = [
                ("?expire=600", "inserted"),
                ("?expire=600", "refreshed"),
                ("?expire=300", "refreshed"),
                ("?expire=900", "refreshed"),
                ("", "refreshed"),
                ("?expire=0", "refreshed"),
                ("?expire=0", "unchanged"),
                ("?expire=0h&wait=true", "unchanged"),
                ("?expire=600", "refreshed"),
            ];
            for (query, result) in golden {
                let answer = rfw.ok("PUT", &format!("{path}{query}"));
                assert_eq!(answer["result"], result, "{path}{query}");
                let comment = match answer["expires"].as_str() {
                    Some(moment) => format!("\"rfw until {moment}\""),
                    None => "\"rfw permanent\"".to_owned(),
                };
                let rules = host.rules(&command, chain);
                assert!(rules.len() == 1 && rules[0].contains(&comment), "{path}{query}: {rules:?}");
                let list = rfw.ok("GET", &format!("/list/{chain}"));
                let rows: Vec<&Value> = list.as_array().unwrap().iter().collect();
                assert!(rows.len() == 1 && rows[0]["expires"] == answer["expires"], "{list}");
            }
            rfw.ok("DELETE", path);
        }
    });
}

/// Makes the rules of others and gives the tables as they then are.
fn make_foreign(host: &Host, iptables: &str) -> [Vec<String>; 2] {
    host.admin(iptables, "-N OTHERS");
    cases("rules-of-others.txt").iter().for_each(|(_, [line])| host.admin(iptables, line));
    host.tables(iptables)
}

#[test]
fn rules_of_others_that_look_alike_are_left_alone() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let foreign = make_foreign(&host, iptables);
        assert_eq!(foreign[0].len(), cases::<1>("rules-of-others.txt").len());
        // What is not theirs and does not guard the port is ours.
        let split = || {
            let [table, _] = host.tables(iptables);
            let (theirs, ours): (Vec<_>, Vec<_>) = table.into_iter().partition(|l| foreign[0].contains(l));
            assert_eq!(theirs, foreign[0], "{iptables}");
            ours.into_iter().filter(|line| !line.contains("\"rfw guard\"")).collect::<Vec<_>>()
        };
        let mut rfw = host.rfw(iptables).start();
        assert_eq!(split(), Vec::<String>::new());
        assert_eq!(rfw.ok("GET", "/list"), serde_json::json!([]));
        let path = "/drop/input/any/1.2.3.4";
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        for (query, result) in [("?expire=60", "inserted"), ("", "refreshed"), ("?expire=0", "refreshed")] {
            assert_eq!(rfw.ok("PUT", &format!("{path}{query}"))["result"], result);
            assert_eq!(split().len(), 1, "{query}");
            assert_eq!(strings(&rfw.ok("GET", "/list"), "num"), ["1"]);
        }
        assert_eq!(rfw.ok("DELETE", path)["result"], "deleted");
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(split(), Vec::<String>::new());
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.tables(iptables), foreign, "{iptables}: after --flush");
    });
}
