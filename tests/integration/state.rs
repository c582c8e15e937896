//! The state file: what a reboot takes from the kernel comes back, and nothing else.
//!
//! A reboot is another network namespace with the same folder, and another number of the boot.

use crate::host::fake::Fault;
use crate::host::{self, Host, Rfw, SOON, in_both_variants, until};
use crate::named_lists::kernel::look;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The numbers of two boots.
const BOOTS: [&str; 2] = ["0a1b2c3d-0a1b-4c2d-8e3f-0123456789ab", "1a1b2c3d-0a1b-4c2d-8e3f-0123456789ab"];

/// A state file of another boot with these lines.
fn state(lines: &str) -> String {
    state_of(BOOTS[1], "2026-11-27T06:00:00Z", lines)
}

fn state_of(boot: &str, written: &str, lines: &str) -> String {
    let first = format!("rfw state 1 boot={boot} nonce=- written={written}");
    format!("{first:<127}\n{lines}")
}

/// rfw with a state file in the folder of its host, which goes on after a reboot.
fn rfw<'a>(host: &'a Host, iptables: &str, options: &str) -> Rfw<'a> {
    let _ = fs::create_dir(host.dir.join("lib"));
    host.rfw(iptables).configure(&format!("state.file = {}\n{options}", file(host).display()))
}

fn file(host: &Host) -> PathBuf {
    host.dir.join("lib/state")
}

fn folder(host: &Host) -> String {
    host.dir.join("lib").display().to_string()
}

fn text(host: &Host) -> String {
    fs::read_to_string(file(host)).unwrap_or_default()
}

/// The rows of a list without numbers and counters, in order; ends are whole minutes.
fn rows(rfw: &Rfw<'_>) -> Vec<String> {
    let list = rfw.ok("GET", "/list");
    let told = |row: &Value| {
        let words = ["chain", "target", "inp", "out", "source", "destination", "list", "reason", "by"]
            .map(|key| row[key].to_string());
        let end = row["expires"].as_str().map_or("never", |end| &end[..16]).to_owned();
        format!("{} {end}", words.join(" "))
    };
    let mut rows: Vec<String> = list.as_array().unwrap().iter().map(told).collect();
    rows.sort();
    rows
}

#[test]
fn all_is_back_after_a_reboot_and_a_restart_reads_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut before = rfw(&host, iptables, "ipset = auto").start();
        // Ends are compared by the minute: they are at the middle of one.
        let end = 3_600 + 90 - seconds_of_minute();
        before.ok("PUT", &format!("/drop/input/any/1.2.3.4?expire={end}&list=tor&reason=it%20scans"));
        before.ok("PUT", &format!("/drop/input/any/1.2.3.4?expire={}", end + 600));
        before.ok("PUT", "/accept/forward/ppp/1.2.3.0/24/eth0/5.6.7.8?expire=0");
        before.ok("PUT", "/reject/output/eth0/2001:db8::/48?expire=0&reason=why");
        before.ok("PUT", "/drop/input/any/9.9.9.9");
        before.ok("DELETE", "/drop/input/any/9.9.9.9");
        let feed: String = (0..150).map(|n| format!("20.0.0.{n}\n")).collect();
        before.send_ok("PUT", &format!("/drop/input/any?list=feed&expire={end}"), &feed);
        before.send_ok(
            "PUT",
            &format!("/drop/input/any?list=feed&replace=true&expire={end}"),
            feed.trim_end().rsplit_once('\n').unwrap().0,
        );
        let rows_before = rows(&before);
        assert!(rows_before.len() >= 150, "{rows_before:?}");
        before.stop();

        let again = host.again(Some(BOOTS[0]));
        assert!(again.kept(iptables).is_empty());
        let mut after = rfw(&again, iptables, "ipset = auto").start();
        assert_eq!(rows(&after), rows_before, "{}", text(&host));
        assert_eq!(again.sets().len(), 4, "{:?}", again.sets());
        assert!(after.log().contains("back from the state file"), "{}", after.log());
        assert!(text(&host).contains(BOOTS[0]));
        after.stop();

        // What somebody has deleted while rfw was stopped is not there again after a restart.
        again.admin(iptables, "-F FORWARD");
        after.spawn();
        assert_eq!(rows(&after).len(), rows_before.len() - 1);
        assert!(!after.log().contains("back from the state file"), "{}", after.log());
    });
}

/// The seconds of this minute, by the clock.
fn seconds_of_minute() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() % 60
}

#[test]
fn what_was_appended_outlives_a_kill_and_comes_back_in_a_new_namespace() {
    let host = Host::new();
    let mut before = rfw(&host, "iptables-nft", "ipset").start();
    before.ok("PUT", "/drop/input/any/1.2.3.4?expire=0&reason=why");
    // The first file is written as a whole.
    until(Duration::from_secs(10), "there is one", || text(&host).contains("1.2.3.4"));
    before.ok("PUT", "/drop/input/any/1.2.3.5?expire=0");
    before.ok("DELETE", "/drop/input/any/1.2.3.5");
    until(Duration::from_secs(10), "it is written", || text(&host).contains("- drop input any 1.2.3.5\n"));
    before.signal("KILL");
    before.end();
    // The same boot: the nonce of the registry tells that the namespace is another.
    let again = host.again(None);
    let after = rfw(&again, "iptables-nft", "ipset").start();
    assert_eq!(again.kept("iptables-nft"), ["-A INPUT -s 1.2.3.4/32 -j DROP"]);
    assert_eq!(after.ok("GET", "/list")[0]["reason"], "why");
}

#[test]
fn in_the_same_boot_only_what_was_in_emptied_sets_comes_back() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = rfw(&host, iptables, "ipset = auto").start();
        let feed: String = (0..150).map(|n| format!("20.0.0.{n}\n")).collect();
        rfw.send_ok("PUT", "/drop/input/any?list=feed&expire=0", &feed);
        rfw.ok("PUT", "/drop/input/eth0/1.2.3.4?expire=0");
        until(Duration::from_secs(10), "it is written", || text(&host).contains("1.2.3.4"));
        // What says in which namespace the file was written is gone as well.
        host.run("ipset", &["flush"]).ok();
        rfw.ok("PUT", "/drop/input/eth0/7.7.7.7?expire=0");
        rfw.ok("DELETE", "/drop/input/eth0/1.2.3.4");
        rfw.signal("KILL");
        rfw.end();
        rfw.spawn();
        let kept = host.kept(iptables);
        let single = "-A INPUT -s 7.7.7.7/32 -i eth0 -j DROP".to_owned();
        assert!(kept.len() == 151 && kept.contains(&single), "{kept:?} {}", rfw.log());
        assert_eq!(host.entries().len(), 300, "{}", rfw.log());
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 151, "{}", rfw.log());
        rfw.stop();
        // A start that takes the registry away says so in the file before it takes requests.
        let mut rfw = rfw.reconfigure("ipset = auto", "ipset = off");
        rfw.spawn();
        assert!(text(&host).contains(" nonce=- "), "{}", text(&host));
        assert_eq!(rfw.ok("GET", "/list").as_array().unwrap().len(), 151, "{}", rfw.log());
    });
}

/// Restores this file on a host of its own. Gives what was said, what is there then, and the host.
fn restored(mode: u32, text: &str, options: &str) -> (String, Vec<String>, Host) {
    let host = Host::booted(BOOTS[0]);
    let said = {
        let rfw = rfw(&host, "iptables-nft", options);
        host.write("lib/state", mode, text);
        rfw.call(&["--restore"])
    };
    let kept = host.kept("iptables-nft");
    (said.ok(), kept, host)
}

#[test]
fn what_is_whole_of_a_damaged_file_is_used_and_the_file_is_set_aside() {
    let line = "drop input any 1.2.3.4 permanent\n";
    let whole = state(line);
    let cut = format!("{whole}drop input any 1.2.3.5 perm");
    let wrong = state(&format!("nonsense \u{1b}[31m\n{line}"));
    let open = format!("{whole}begin inet drop input any any src list -\ndrop input any 1.2.3.5 permanent\n");
    let older = whole.replace("rfw state 1", "rfw state 0");
    let one = 1;
    for (mode, text, count, words) in [
        (0o600, &*whole, one, "1 address restored"),
        (0o600, &cut, one, "its last line is cut off"),
        (0o600, &wrong, one, "line 2 is not used, \"nonsense \\u{1b}[31m\""),
        (0o600, &open, one, "it ends within a list"),
        (0o600, &older, 0, "it has the version \"0\": expected 1"),
        (0o600, "root:x:0:0:root:/root:/bin/bash\n", 0, "it is not rfw's, or damaged"),
        (0o600, "\0\0\0\0", 0, "it is not rfw's, or damaged"),
        (0o666, &whole, 0, "mode 0666 lets others write it"),
    ] {
        let (said, kept, host) = restored(mode, text, "ipset = auto");
        assert_eq!(kept.len(), count, "{text}: {said}");
        assert!(said.contains(words), "{text}: {said}");
        // Only the server writes.
        assert_eq!(fs::read_to_string(file(&host)).unwrap(), text);
        let mut rfw = rfw(&host, "iptables-nft", "ipset = auto").start();
        assert!(text == whole && mode == 0o600 || rfw.log().contains("it is set aside as"), "{}", rfw.log());
        rfw.stop();
        let aside = fs::read_to_string(host.dir.join("lib/state.bad")).ok();
        assert_eq!(aside.as_deref(), Some(text).filter(|_| text != whole || mode != 0o600), "{said}");
        let new = fs::read_to_string(file(&host)).unwrap();
        assert!(new.starts_with("rfw state 1") && new.contains(BOOTS[0]), "{new}");
        assert_eq!(new.matches(line).count(), count, "{new}");
    }
}

#[test]
fn restore_replaces_what_others_have_brought_and_keeps_to_the_white_list() {
    in_both_variants(|iptables| {
        let host = Host::booted(BOOTS[0]);
        let rfw = rfw(&host, iptables, "ipset = auto").white_list("127.0.0.1\n1.2.3.0/30\nnever 8.8.8.8\n");
        // What has ended by this clock stays in the file, since that may be wrong.
        let ended = "drop input any 6.6.6.6 until 2020-01-01T00:00:00Z\n";
        let lines = format!(
            "drop input any 1.2.3.1 permanent\naccept input any 8.8.8.8 permanent\n\
             drop input any 5.6.7.8 until 2066-01-01T00:00:00Z list tor\n\
             accept input eth0 5.6.7.9 permanent\ndrop input eth0 5.6.7.0/24 permanent\n{ended}"
        );
        host.write("lib/state", 0o600, &state(&lines));
        // An old file of iptables-save: one that is not in the state, one with another end.
        for (address, end) in [("7.7.7.7", "permanent"), ("5.6.7.8", "until 2065-01-01T00:00:00Z list tor")] {
            host.admin(iptables, &format!("-A INPUT -s {address} -m comment --comment 'rfw {end}' -j DROP"));
        }
        let said = rfw.call(&["--restore"]).ok();
        for rule in ["INPUT -s 1.2.3.1 -j DROP", "INPUT -s 8.8.8.8 -j ACCEPT"] {
            assert!(said.contains(&format!("touches the white list: {rule}")), "{said}");
        }
        assert!(said.ends_with("\n3 addresses restored\n"), "{said}");
        let rules = host.rules(iptables, "INPUT").join("\n");
        assert_eq!(rules.lines().count(), 3, "{rules}");
        assert!(rules.contains("until 2066-01-01T00:00:00Z list tor") && !rules.contains("2065"), "{rules}");
        // The exception comes first.
        assert!(rules.lines().next().unwrap().contains("-j ACCEPT"), "{rules}");
        assert_eq!(text(&host), state(&lines));
        // Until the server starts, others may flush what is back.
        host.admin(iptables, "-F INPUT");
        let mut rfw = rfw.start();
        assert_eq!(host.rules(iptables, "INPUT").join("\n"), rules);
        rfw.stop();
        assert!(text(&host).contains(ended) && text(&host).contains(BOOTS[0]), "{}", text(&host));
        assert_eq!(rfw.call(&["--restore"]).ok(), "nothing to restore\n");
        // It is final to take all away.
        assert_eq!(rfw.call(&["--flush"]).ok(), "11 rules removed\n");
        assert!(!file(&host).exists());
        let rebooted = host.again(Some(BOOTS[1]));
        assert_eq!(self::rfw(&rebooted, iptables, "").call(&["--restore"]).ok(), "nothing to restore\n");
    });
}

/// In a container iptables-nft sends a transaction only if it fits into the default buffer: some 400
/// changes.
#[test]
fn what_is_too_long_for_one_transaction_comes_back_in_parts() {
    for option in ["", "ipset"] {
        let host = Host::in_container();
        let rfw = rfw(&host, "iptables-nft", option);
        // No set holds addresses that long.
        let line = |target: &str, number: u32| {
            format!("{target} input eth0 1.0.{}.{} until 2099-01-01T00:00:00Z\n", number / 200, number % 200)
        };
        let accepts: String = (0..500).map(|number| line("accept", number)).collect();
        let drops: String = (500..1_000).map(|number| line("drop", number)).collect();
        host.write("lib/state", 0o600, &state(&format!("{accepts}{drops}")));
        // What another program has restored goes.
        host.admin("iptables-nft", "-A INPUT -s 9.0.0.1 -m comment --comment 'rfw permanent' -j DROP");
        assert_eq!(rfw.call(&["--restore"]).ok(), "1000 addresses restored\n");
        let kept = host.kept("iptables-nft");
        let address = |rule: &String| rule.split(' ').nth(3).unwrap().to_owned();
        let (first, last) = (address(&kept[0]), address(&kept[999]));
        // Exceptions come first or, without sets, what was put in last.
        let (highest, lowest) =
            if option.is_empty() { ("1.0.4.199/32", "1.0.0.0/32") } else { ("1.0.2.99/32", "1.0.2.100/32") };
        assert_eq!((kept.len(), &*first, &*last), (1_000, highest, lowest), "{option}");
        assert_eq!(kept.iter().filter(|rule| rule.ends_with("ACCEPT")).count(), 500);
    }
}

#[test]
fn a_clock_that_has_lost_its_time_ends_nothing() {
    // By the file it is 2066 already: the ends are further away than a set holds addresses else.
    let text =
        state_of(BOOTS[1], "2066-01-01T00:00:00Z", "drop input any 1.2.3.4 until 2066-01-02T00:00:00Z\n");
    let (said, kept, host) = restored(0o600, &text, "ipset");
    assert!(said.contains("1 address restored"), "{said}");
    assert_eq!(kept, ["-A INPUT -s 1.2.3.4/32 -j DROP"]);
    let entry = &host.entries()[0];
    assert_eq!((&*entry.set, &*entry.comment), ("rfw4-ids", "until 2066-01-02T00:00:00Z"));
    // What is further than that even by the clock of the file is a rule.
    let text = text.replace("until 2066", "until 2099");
    let (_, kept, again) = restored(0o600, &text, "ipset");
    assert_eq!((kept.len(), again.entries().len()), (1, 0));
}

#[test]
fn a_full_disk_is_told_once_and_rfw_goes_on() {
    let host = Host::new();
    let mut rfw =
        rfw(&host, "iptables-nft", "").reconfigure(&format!("{}/lib", host.dir.display()), "/var/lib/full");
    host.run("mkdir", &["/var/lib/full"]).ok();
    host.run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", "/var/lib/full"]).ok();
    host.run("sh", &["-c", "head -c 100000 /dev/zero >/var/lib/full/much; true"]).ok();
    rfw.spawn();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
    until(Duration::from_secs(10), "it is told", || rfw.log().contains("can't be written"));
    rfw.ok("PUT", "/drop/input/any/1.2.3.5?expire=0");
    host.run("rm", &["/var/lib/full/much"]).ok();
    rfw.stop();
    let log = rfw.log();
    assert_eq!(log.matches("can't be written").count(), 1, "{log}");
    assert!(log.contains("is written again"), "{log}");
    let state = host.run("cat", &["/var/lib/full/state"]).ok();
    assert!(state.contains("1.2.3.4 permanent\n") && state.contains("1.2.3.5 permanent\n"), "{state}");
    assert_eq!(host.run("stat", &["-c", "%a", "/var/lib/full/state"]).ok(), "600\n");
}

#[test]
fn what_others_change_in_a_set_is_written_down_and_that_they_have_emptied_it_is_not() {
    let host = Host::new();
    let mut rfw = rfw(&host, "iptables-nft", "ipset").start();
    rfw.send_ok("PUT", "/drop/input/any?expire=0", "1.0.0.1\n1.0.0.2\n1.0.0.3\n1.0.0.4\n");
    until(SOON, "it is written", || text(&host).contains("1.0.0.4"));
    let ipset = |commands: &[&str]| {
        commands.iter().for_each(|words| drop(host.run("ipset", &words.split(' ').collect::<Vec<_>>()).ok()));
    };
    // Others than before, so that the set is read before a look tells it.
    ipset(&["del rfw4-ids 1.0.0.1", "del rfw4-ids 1.0.0.2", "add rfw4-ids 7.7.7.7"]);
    look(&rfw);
    rfw.ok("GET", "/lists");
    rfw.stop();
    let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<BTreeSet<String>>();
    let left = ["1.0.0.3", "1.0.0.4", "7.7.7.7"].map(|address| format!("drop input any {address} permanent"));
    assert_eq!(lines(&text(&host)), BTreeSet::from(left.clone()));

    rfw.spawn();
    ipset(&["add rfw4-ids 7.7.7.8"]);
    look(&rfw);
    // It is to be read, when they empty it.
    ipset(&["flush rfw4-ids"]);
    rfw.stop();
    assert!(lines(&text(&host)).is_superset(&BTreeSet::from(left)), "{}", text(&host));
}

#[test]
fn what_was_done_of_a_change_that_fails_is_written_down() {
    let host = Host::new();
    let (path, lines) = host.fake_programs_beside("iptables-legacy", &folder(&host));
    let mut rfw = rfw(&host, &path, &lines).start();
    rfw.ok("PUT", "/drop/input/any/1.2.3.4?expire=0");
    until(SOON, "it is written", || text(&host).contains("1.2.3.4"));
    // That of IPv6 can't be read any more once that of IPv4 is changed.
    host.fail_at(Fault::Fails, 3);
    rfw.refused("DELETE", "/list?address=1.2.3.4", 500);
    host.heal();
    assert!(host.kept("iptables-legacy").is_empty());
    rfw.stop();
    let again = host.again(Some(BOOTS[0]));
    assert_eq!(self::rfw(&again, "iptables-legacy", "").call(&["--restore"]).ok(), "0 addresses restored\n");
}

#[test]
fn a_check_says_what_is_wrong_and_changes_nothing() {
    let host = Host::new();
    let rfw = rfw(&host, "iptables-nft", "");
    host.write("lib/state", 0o600, "what\n");
    let said = rfw.call(&["--check"]);
    assert!(said.err.contains("lib/state would not be used: its first line is not"), "{said:?}");
    assert!(said.ok().contains("lib/state: would not be used\n"));
    assert_eq!(text(&host), "what\n");
    let rfw = rfw.reconfigure("lib/state", "lib/none/below/state");
    assert!(rfw.call(&["--check"]).err.contains("could not be written"));
    // Off.
    let rfw = rfw.reconfigure(&format!("{}/lib/none/below/state", host.dir.display()), "");
    let said = rfw.call(&["--check"]);
    assert!(said.err.is_empty() && said.ok().contains("\nstate       off: a reboot loses what is blocked\n"));
}

/// A library that has a program see a clock which is as many seconds ahead as a file says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    FILE *file = clock == CLOCK_REALTIME ? fopen(getenv("AHEAD"), "r") : NULL;
    long ahead = 0;
    if (file) {
        if (fscanf(file, "%ld", &ahead) != 1) ahead = 0;
        fclose(file);
    }
    time->tv_sec += ahead;
    return result;
}
"#;

#[test]
fn what_a_wrong_clock_has_ended_is_back_once_it_is_set_right() {
    let host = Host::booted(BOOTS[0]);
    let (path, lines) = host.fake_programs_beside("iptables-nft", &folder(&host));
    let rfw = rfw(&host, &path, &lines);
    let end = host.run("date", &["-u", "-d", "+1 hour", "+%Y-%m-%dT%H:%M:%SZ"]).ok();
    let line = format!("drop input any 1.2.3.4 until {}\n", end.trim_end());
    host.write("lib/state", 0o600, &state(&line));
    host.write("clock.c", 0o644, CLOCK);
    let ahead = host.write("ahead", 0o644, "31536000");
    host.run("cc", &["-shared", "-fPIC", "-o", "clock.so", "clock.c"]).ok();
    let child = host
        .command("timeout")
        .args(["60", env!("CARGO_BIN_EXE_rfw"), "-f", "rfw.conf", "--logfile", "rfw.log"])
        .env("LD_PRELOAD", host.dir.join("clock.so"))
        .env("AHEAD", ahead)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _child = KillOnDrop(child);
    until(Duration::from_secs(10), "rfw is ready", || rfw.log().contains("is ready"));
    let kept = host.kept("iptables-nft");
    assert!(kept.is_empty() && text(&host).contains(&line) && text(&host).contains(BOOTS[0]), "{kept:?}");
    // The first attempt fails.
    host.fail_at(Fault::Fails, 1);
    host.write("ahead", 0o644, "0");
    // A change of the table has rfw look, and see the clock.
    host.admin("iptables-nft", "-A INPUT -s 9.9.9.9 -j DROP");
    let is_told = || rfw.log().contains("addresses that had ended by it and are back: 1");
    until(Duration::from_secs(15), "it is back", is_told);
    let failed = "what had ended before the clock was set back can't be put back";
    assert_eq!(rfw.log().matches(failed).count(), 1, "{}", rfw.log());
    assert_eq!(host.kept("iptables-nft"), ["-A INPUT -s 1.2.3.4/32 -j DROP"]);
}

/// A program that ends with the test; `timeout` hands the signal on.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        host::run("kill", &[&self.0.id().to_string()]);
        let _ = self.0.wait();
    }
}
