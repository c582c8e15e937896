//! The tools that stay between transactions: they end with rfw, start again when they
//! were killed, and what they complain of is told.

use super::all_end;
use crate::host::{Host, Rfw, SOON, in_all_ways, in_both_variants, of_ipv6, run, until};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn tools_stay_from_their_first_use_until_rfw_ends_however_it_does() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).reconfigure("outward.server\n", "").configure("ipset").start();
        let tools = |rfw: &Rfw<'_>| -> BTreeSet<String> {
            rfw.children()
                .iter()
                .map(|(_, line)| {
                    Path::new(line.split(' ').next().unwrap())
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned()
                })
                .collect()
        };
        let get = |method: &str, path: &str| {
            let reply = rfw.curl(&["-X", method, &format!("http://127.0.0.1:7390{path}")]);
            assert_eq!(reply.status, 200, "{reply:?}");
            reply
        };
        get("GET", "/list");
        assert_eq!(tools(&rfw), BTreeSet::new(), "before their first use");
        for round in 0..3 {
            get("PUT", &format!("/drop/input/any/1.0.0.{round}"));
            get("PUT", &format!("/drop/forward/any/1.0.0.{round}/any/2.0.0.1"));
        }
        let children = rfw.children();
        assert_eq!(tools(&rfw), BTreeSet::from([format!("{iptables}-restore")]), "{children:?}");
        get("PUT", "/drop/input/any/1.0.0.9");
        get("DELETE", "/drop/input/any/1.0.0.1");
        assert_eq!(rfw.children(), children, "they are the same");
        rfw.signal("KILL");
        rfw.end();
        all_end(&children);
        rfw.spawn();
        let reply = rfw.curl(&["-X", "PUT", "http://127.0.0.1:7390/drop/input/any/1.0.0.9"]);
        assert_eq!(reply.json()["result"], "refreshed");
        rfw.curl(&["-X", "PUT", "http://127.0.0.1:7390/drop/output/any/1.0.0.9"]);
        let children = rfw.children();
        assert!(!children.is_empty());
        rfw.stop();
        all_end(&children);
    });
}

#[test]
fn tools_that_were_killed_are_started_again() {
    in_all_ways(|iptables, option| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure(option).start();
        for (count, signal) in ["KILL", "TERM", "KILL"].into_iter().enumerate() {
            let path = |rest: &str| format!("/drop/{rest}/1.0.0.{count}");
            assert_eq!(rfw.ok("PUT", &path("input/any"))["result"], "inserted");
            assert_eq!(
                rfw.ok("PUT", "/drop/input/any/2001:db8::1?expire=0")["result"],
                ["inserted", "unchanged"][usize::from(count > 0)]
            );
            let children = rfw.children();
            assert!(!children.is_empty() || count > 0 && option == "ipset");
            for (pid, _) in &children {
                run("kill", &["-s", signal, &pid.to_string()]).ok();
            }
            all_end(&children);
            assert_eq!(rfw.ok("PUT", &path("input/any"))["result"], "refreshed");
            assert_eq!(rfw.ok("PUT", &path("output/eth0"))["result"], "inserted");
            assert_eq!(rfw.ok("DELETE", &path("output/eth0"))["result"], "deleted");
        }
        assert_eq!(host.kept(iptables).len(), 4);
    });
}

/// Puts scripts in place of the tools of that variant: each may do something first,
/// while a file of its name is there.
fn wrap_tools(host: &Host, iptables: &str) {
    let script = format!(
        "mkdir tools; for name in {iptables} {0}; do for tool in $name $name-save $name-restore; do \
           printf '#!/bin/sh\\nif [ -e %s/%s.sh ]; then . %s/%s.sh; fi\\nexec %s \"$@\"\\n' \
             $PWD $tool $PWD $tool $tool >tools/$tool; chmod 755 tools/$tool; done; done",
        of_ipv6(iptables)
    );
    host.run("sh", &["-c", &script]).ok();
}

/// rfw on such tools.
fn wrapped<'a>(host: &'a Host, iptables: &str) -> Rfw<'a> {
    wrap_tools(host, iptables);
    let dir = host.dir.display();
    host.rfw(&format!("{dir}/tools/{iptables}")).configure("ipset")
}

fn kill_children(rfw: &Rfw<'_>) {
    let children = rfw.children();
    for (pid, _) in &children {
        run("kill", &["-s", "KILL", &pid.to_string()]).ok();
    }
    all_end(&children);
}

#[test]
fn a_tool_that_hangs_is_answered_for_with_503_and_the_next_request_works() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = wrapped(&host, iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        for (tool, path) in [
            (format!("{iptables}-restore"), "/drop/forward/any/1.0.0.1/any/1.0.0.2"),
            (format!("{iptables}-restore"), "/drop/output/eth0/1.0.0.2"),
        ] {
            // A resident one hangs from its next start on.
            kill_children(&rfw);
            let resident = "case \"$*\" in -|*--verbose*) exec sleep 60; esac\n";
            host.write(&format!("{tool}.sh"), 0o644, resident);
            let start = Instant::now();
            let error = rfw.refused("PUT", path, 503);
            assert!(error.contains(&tool) && error.contains("no answer in 6 s"), "{tool}: {error}");
            assert!((5.0..7.5).contains(&start.elapsed().as_secs_f64()), "{tool}: {:?}", start.elapsed());
            fs::remove_file(host.dir.join(format!("{tool}.sh"))).unwrap();
            assert!(!rfw.children().iter().any(|(_, line)| line.contains("sleep")), "{:?}", rfw.children());
            // Others are refused at once for two seconds.
            until(SOON, "the next request works", || rfw.request("PUT", path).status == 200);
        }
        assert_eq!(host.kept(iptables).len(), 3);
    });
}

#[test]
fn what_a_tool_complains_of_reaches_the_client() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = wrapped(&host, iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.0.0.1");
        let before = host.everything(iptables);
        let (restore, save) = (format!("{iptables}-restore"), format!("{iptables}-save"));
        let golden = [
            (restore.as_str(), "PUT", "/drop/forward/any/1.0.0.1/any/1.0.0.2", None),
            (restore.as_str(), "PUT", "/drop/output/any", Some("1.0.0.1\n1.0.0.2\n")),
            (save.as_str(), "GET", "/list", None),
        ];
        for (tool, method, path, list) in golden {
            let script =
                host.write(&format!("{tool}.sh"), 0o644, "echo 'the kernel is on holiday' >&2; exit 3\n");
            kill_children(&rfw);
            let reply = match list {
                Some(list) => rfw.send(method, path, list),
                None => rfw.request(method, path),
            };
            assert_eq!(reply.status, 500, "{tool} {method} {path}: {reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("the kernel is on holiday") && error.contains(tool), "{path}: {error}");
            fs::remove_file(script).unwrap();
            let now = host.everything(iptables);
            assert!(now.0 == before.0 && now.2 == before.2, "{tool} {method} {path}: {now:?}");
        }
        for (_, method, path, list) in golden {
            match list {
                Some(list) => drop(rfw.send_ok(method, path, list)),
                None => drop(rfw.ok(method, path)),
            }
        }
    });
}

#[test]
fn a_reading_that_hangs_does_not_delay_the_end() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = wrapped(&host, iptables).start();
        host.write(&format!("{iptables}-save.sh"), 0o644, "sleep 60\n");
        let list = ["-sS", "--cacert", "ca.crt", "-u", "me:secret", "https://127.0.0.1:7393/list"];
        let mut client = host.command("curl");
        let client = client.args(list).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        until(SOON, "the table is being read", || {
            rfw.children().iter().any(|(_, line)| line.contains("-save"))
        });
        let start = Instant::now();
        rfw.signal("TERM");
        assert_eq!(rfw.end(), 0, "{}", rfw.log());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        client.wait().unwrap();
    });
}
