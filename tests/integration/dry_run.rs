//! `dry=true`: what a change would do is told as the change tells it, is refused as the change is, and
//! nothing is changed, noted or logged.

use crate::host::{Host, Rfw, SOON, in_all_ways, until};
use crate::named_lists::kernel::Client;
use serde_json::{Value, json};

/// The same request, to tell what it would do.
pub fn dry(path: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}dry=true")
}

/// Whether an answer foretold another: all but what says so, and the end that each counts from its own moment.
pub fn foretold(told: &Value, done: &Value) -> bool {
    let but = |answer: &Value, keys: &[&str]| {
        let mut members = answer.as_object().unwrap().clone();
        keys.iter().for_each(|key| drop(members.remove(*key)));
        members
    };
    let is_same_end = told["expires"].is_null() == done["expires"].is_null();
    told["dry"] == true && is_same_end && but(told, &["dry", "expires"]) == but(done, &["expires"])
}

/// Asks what a request would do, then sends it, and gives its answer.
#[track_caller]
fn both(client: &mut Client, line: &str, body: &str) -> Value {
    let (method, path) = line.split_once(' ').unwrap();
    let told = client.ok(method, &dry(path), body);
    let done = client.ok(method, path, body);
    assert!(foretold(&told, &done), "{line}: {told} is not what was done: {done}");
    done
}

#[test]
fn what_a_change_would_do_is_told_and_not_done() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        let mut client = Client::new(&host);
        client.ok("PUT", "/drop/input/any/1.1.1.1?list=a", "");
        let log = || rfw.log().lines().filter(|line| line.contains(" INFO ")).count();
        let is_counted = |line: &&str| {
            ["rfw_transaction_duration_seconds_count", "rfw_changes_total", "rfw_list_updated"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let counted = |client: &mut Client| -> Vec<String> {
            client.send("GET", "/metrics", "").body.lines().filter(is_counted).map(str::to_owned).collect()
        };
        let lists = client.ok("GET", "/lists", "");
        let (before, lines, counts) = (host.everything(iptables), log(), counted(&mut client));
        assert_eq!(counts.len(), 3, "{counts:?}");
        for line in [
            "PUT /drop/input/any/2.2.2.2?list=b",
            "PUT /reject/output/eth0/2001:db8::1?reason=why",
            "PUT /accept/forward/any/3.3.3.3/any/4.4.4.4",
            "PUT /drop/input/any?list=a&replace=true&special=true",
            "PUT /drop/input/eth0?special=true",
            "DELETE /drop/input/any/1.1.1.1?list=a",
            "DELETE /drop/input/any?list=a",
            "DELETE /list?list=*",
            "DELETE /list?address=1.1.1.1",
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            // Of a list that makes a set with `auto`.
            let body: String = (0..150).map(|number| format!("5.5.5.{number}\n")).collect();
            let is_list = path.contains("special");
            let answer = client.ok(method, &dry(path), if is_list { &body } else { "" });
            assert_eq!(answer["dry"], true, "{line}: {answer}");
            assert_eq!(host.everything(iptables), before, "{line}");
        }
        assert_eq!((client.ok("GET", "/lists", ""), log()), (lists, lines), "{}", rfw.log());
        assert_eq!(counted(&mut client), counts);
    });
}

#[test]
fn what_was_told_is_what_is_done() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = host.rfw(iptables).configure(option).start();
        let client = &mut Client::new(&host);
        let some = "1.0.0.1\n1.0.0.0/28\n2001:4860::1\n10.0.0.1\n";
        let many: String = (0..250).map(|number| format!("1.0.{}.1\n", number)).collect();
        let golden = [
            ("PUT /drop/input/any/1.0.0.1?list=a&expire=0", "", "result", json!("inserted")),
            ("PUT /drop/input/any/1.0.0.1?list=a&expire=0", "", "result", json!("unchanged")),
            ("PUT /drop/input/any/1.0.0.1?list=a&expire=5m", "", "result", json!("refreshed")),
            ("PUT /accept/input/any/1.0.0.0/24?list=b", "", "result", json!("inserted")),
            ("PUT /drop/input/any/1.0.0.1?list=c", "", "result", json!("inserted")),
            ("PUT /drop/input/any/1.0.0.1", "", "result", json!("inserted")),
            ("PUT /drop/forward/eth0/1.0.0.1/eth1/2.0.0.1", "", "result", json!("inserted")),
            ("PUT /drop/input/any?list=a", some, "inserted", json!(2)),
            ("PUT /drop/input/any?list=a", some, "refreshed", json!(3)),
            ("PUT /drop/input/any?list=a&replace=true", many.as_str(), "removed", json!(2)),
            ("PUT /drop/input/eth0", many.as_str(), "inserted", json!(250)),
            ("PUT /drop/input/eth0/1.0.3.1", "", "result", json!("refreshed")),
            ("DELETE /drop/input/eth0", some, "deleted", json!(1)),
            ("DELETE /drop/input/any/1.0.0.1?list=a", "", "result", json!("deleted")),
            ("DELETE /drop/input/any/1.0.0.1?list=a", "", "result", json!("absent")),
            ("DELETE /drop/input/any?list=a", "1.0.1.1\n1.0.2.1\n9.9.9.9\n", "absent", json!(1)),
            ("DELETE /list?address=1.0.0.1", "", "deleted", json!(3)),
            ("DELETE /drop/input/any?list=a", "", "deleted", json!(247)),
            ("DELETE /list?list=b", "", "deleted", json!(1)),
            ("DELETE /list?list=*", "", "deleted", json!(249)),
        ];
        for (line, body, key, expected) in golden {
            let answer = both(client, line, body);
            assert_eq!(answer[key], expected, "{option}: {line}: {answer}");
        }
        assert_eq!(host.kept(iptables), [""; 0]);
    });
}

#[test]
fn what_has_ended_is_not_told_to_be_there() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let _rfw = host.rfw(iptables).configure(option).start();
        let mut client = Client::new(&host);
        client.ok("PUT", "/drop/input/any/1.0.0.0/24?list=a", "");
        client.ok("PUT", "/drop/input/any/1.0.0.1?list=a&expire=1s", "");
        let path = "/drop/input/any/1.0.0.1?list=a";
        until(SOON, "it has ended", || {
            // As soon as the kernel has let it go, and not before.
            let is_there = || host.kept(iptables).iter().any(|line| line.contains("-s 1.0.0.1/32"));
            let before = is_there();
            let told = client.ok("DELETE", &dry(path), "")["result"] == "deleted";
            let after = is_there();
            assert!(before != after || told == after, "{option}: {told} {after}");
            !after
        });
        assert_eq!(client.ok("PUT", &dry(path), "")["result"], "inserted");
    });
}

/// Checks that a request and what it would do are refused in the same words.
#[track_caller]
fn assert_refused(rfw: &Rfw<'_>, line: &str, body: &str, status: u16, part: &str) {
    let (method, path) = line.split_once(' ').unwrap();
    let mut client = Client::new(rfw.host);
    let told = client.send(method, &dry(path), body);
    let done = Client::new(rfw.host).send(method, path, body);
    assert_eq!((told.status, done.status), (status, status), "{line}: {told:?} {done:?}");
    assert_eq!(told.json(), done.json(), "{line}");
    assert!(told.body.contains(part), "{line}: {told:?}");
}

#[test]
fn what_would_be_refused_is_refused() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let limits = "rules.max = 3\nipset.maxelem = 3\nlists.max = 1";
        let rfw = host.rfw(iptables).configure(&format!("{option}\n{limits}")).start();
        let four = "1.0.0.1\n1.0.0.2\n1.0.0.3\n1.0.0.4\n";
        rfw.send_ok("PUT", "/drop/input/any?list=a", "1.0.0.1\n1.0.0.2\n1.0.0.3\n");
        for (line, body, status, part) in [
            ("PUT /drop/input/any/1.0.0.4?list=a", "", 507, "no room"),
            ("PUT /drop/input/any?list=a", four, 507, "no room"),
            ("PUT /drop/input/any?list=a&replace=true", four, 507, "no room"),
            ("PUT /drop/input/any/1.0.0.4?list=b", "", 400, "at most 1 named lists"),
            ("PUT /drop/input/any/127.0.0.1", "", 400, "white-listed"),
            ("PUT /drop/input/any", "x", 400, "line 1"),
            ("DELETE /drop/input/any", "", 400, "no address"),
        ] {
            assert_refused(&rfw, line, body, status, part);
        }
        // A list that is empty makes room for another.
        rfw.ok("DELETE", "/list?list=a");
        let before = host.everything(iptables);
        assert_eq!(rfw.ok("PUT", &dry("/drop/input/any/1.0.0.4?list=b"))["result"], "inserted");
        assert_eq!(host.everything(iptables), before);
    });
}
