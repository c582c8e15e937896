//! Long lists: exact, in little memory, and whole whatever is killed.

use super::{elements, start};
use crate::host::{Host, Rfw, in_both_variants};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// A feed of 100,000: addresses and networks of both families, in no order, with
/// comments between them.
fn feed() -> Vec<String> {
    let line = |number: u32| match number % 20 {
        0 => format!("2001:db8:{:x}::/48", number / 20 + 1),
        1 => format!("{}/24", Ipv4Addr::from(0x6400_0000 + ((number / 20) << 8))),
        2 => format!("{}/20", Ipv4Addr::from(0x7800_0000 + ((number / 20) << 12))),
        3 => format!("2001:db9::{:x}:{:x}", number / 20 + 1, number % 7 + 1),
        _ => Ipv4Addr::from(0x0b00_0000 + number.wrapping_mul(7_919) % 0x0100_0000).to_string(),
    };
    (0..100_000).map(line).collect()
}

fn of_family<'a>(feed: impl IntoIterator<Item = &'a String>, v6: bool) -> BTreeSet<String> {
    feed.into_iter().filter(|line| line.contains(':') == v6).cloned().collect()
}

/// The most memory in kB that rfw has held.
fn peak(rfw: &Rfw<'_>) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", rfw.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_feed_of_100_000_is_in_the_kernel_exactly_and_in_little_memory() {
    let host = Host::new();
    let rfw = start(&host, "iptables-nft");
    let feed = feed();
    let text = format!("# a feed\n{}\n; its end\n", feed.join("\r\n"));
    for counts in [[100_000, 0], [0, 100_000]] {
        let answer = rfw.send_ok("PUT", "/drop/input/any?expire=25h", &text);
        assert_eq!(["inserted", "refreshed"].map(|key| answer[key].as_u64().unwrap()), counts, "{answer}");
        let entries = host.entries();
        assert!(entries.iter().all(|entry| entry.timeout > 89_900 && entry.timeout <= 90_000));
        for (set, v6) in [("rfw4-ids", false), ("rfw6-ids", true)] {
            let there = entries.iter().filter(|entry| entry.set == set).map(|entry| entry.element.clone());
            assert!(there.collect::<BTreeSet<String>>() == of_family(&feed, v6), "{set} is not the feed");
        }
        assert_eq!(host.rules("iptables-nft", "INPUT").len(), 1);
    }
    for range in [0..20, 20..20_000] {
        let part = &feed[range];
        assert_eq!(rfw.send_ok("DELETE", "/drop/input/any", &part.join("\n"))["deleted"], part.len());
    }
    let left = &feed[20_000..];
    let list = rfw.request("GET", "/list").body;
    let rows = list.strip_prefix("[\n").unwrap().strip_suffix("\n]\n").unwrap().split(",\n");
    let rows: Vec<Value> = rows.map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), left.len());
    let listed = rows.iter().map(|row| row["source"].as_str().unwrap().to_owned());
    assert!(listed.collect::<BTreeSet<String>>() == left.iter().cloned().collect(), "it is not what is left");
    let peak = peak(&rfw);
    assert!(peak < 64 << 10, "{peak} kB");
}

#[test]
fn kill_9_in_the_middle_of_a_list_leaves_all_of_it_or_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = start(&host, iptables);
        let feed: Vec<String> = feed().into_iter().filter(|line| !line.contains(':')).take(24_000).collect();
        let all = of_family(&feed, false);
        let old: BTreeSet<String> = ["1.0.0.1", "1.0.0.0/24", "1.0.0.3"].map(str::to_owned).into();
        // Moments from before the upload has begun to after it is done.
        let moments = [0, 20, 40, 60, 80, 120, 160, 240].map(Duration::from_millis);
        let lists = [
            (&old, &feed[..]),
            // Long, and yet small beside the set that it goes into.
            (&all, &["10.9.9.9".to_owned()]),
        ];
        for (delay, (first, list)) in moments.into_iter().flat_map(|delay| lists.map(|list| (delay, list))) {
            let second = match list {
                [_] => (0..10_000).map(|number| Ipv4Addr::from(0x0a00_0000 + number).to_string()).collect(),
                _ => list.to_vec(),
            };
            rfw.ok("DELETE", "/list?list=*");
            let texts = first.iter().cloned().collect::<Vec<_>>().join("\n");
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &texts)["inserted"], first.len());
            host.write("list", 0o644, &second.join("\n"));
            let curl = [
                "-sS",
                "--cacert",
                "ca.crt",
                "-u",
                "me:secret",
                "-T",
                "list",
                "https://127.0.0.1:7393/drop/input/any?special=true",
            ];
            let mut client =
                host.command("curl").args(curl).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            thread::sleep(delay);
            rfw.signal("KILL");
            rfw.end();
            client.wait().unwrap();
            let both: BTreeSet<String> = first.iter().cloned().chain(second.iter().cloned()).collect();
            let there = elements(&host, "rfw4-ids");
            assert!(
                there == *first || there == both,
                "{iptables}: {} of {} to {}",
                there.len(),
                first.len(),
                both.len()
            );
            rfw.spawn();
            assert_eq!(host.sets(), ["rfw4-ids"], "{iptables}");
            assert_eq!(rfw.send_ok("PUT", "/drop/input/any", &second.join("\n"))["skipped_total"], 0);
            assert!(elements(&host, "rfw4-ids") == both, "{iptables}");
        }
    });
}
