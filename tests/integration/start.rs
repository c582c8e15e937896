//! Starts and ends: what is refused and how it is said, the command line, signals, reloads,
//! machines that lack something, and files of the original rfw.

mod check;
mod command_line;
mod machine;
mod notify;
mod refusal;
mod reload;
mod signals;
mod warnings;

use crate::host::{Host, Rfw, Said};
use std::fs;

const IPTABLES: &str = "iptables-nft";
const RFW: &str = env!("CARGO_BIN_EXE_rfw");

/// The filter tables of both variants and families, without times and counters, and
/// without what an untouched table has. (Which other tables there are, only root may
/// ask.)
fn kernel(host: &Host) -> String {
    let saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
    let untouched = ["*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", "COMMIT"];
    let saved = |save: &&str| {
        let all = host.run(save, &["-t", "filter"]).ok();
        let plain = all.lines().filter(|line| !line.starts_with('#'));
        let plain = plain.map(|line| line.split(" [").next().unwrap());
        plain
            .filter(|line| !untouched.contains(line))
            .map(|line| format!("{save}: {line}\n"))
            .collect::<String>()
    };
    saves.iter().map(saved).collect()
}

/// Rules of somebody else in both families, so that there is something to disturb.
fn add_foreign_rules(host: &Host) {
    for command in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
        host.run(command, &["-w", "-A", "INPUT", "-i", "dummy0", "-j", "DROP"]).ok();
    }
}

/// Starts rfw, which has to end by itself. `through` are words in front of it.
fn try_start(rfw: &Rfw<'_>, through: &[&str]) -> Said {
    let own = [RFW, "-f", "rfw.conf", "--logfile", "rfw.log"];
    rfw.host.run("timeout", &[&["10"], through, &own[..]].concat())
}

/// Has it refuse to start with that status and one line, with nothing touched.
#[track_caller]
fn is_refused(rfw: &Rfw<'_>, case: &str, status: i32, message: &str) {
    let before = kernel(rfw.host);
    let err = try_start(rfw, &[]).fails_with(status);
    let dir = format!("{}/", rfw.host.dir.display());
    assert_eq!(err.replace(&dir, ""), format!("rfw: {message}\n"), "{case}");
    assert_eq!(kernel(rfw.host), before, "{case}");
    let log = fs::read_to_string(rfw.host.dir.join("rfw.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or_default().replace(&dir, "");
    assert!(last.contains("[ERROR]") && last.ends_with(message), "{case}: {last:?}");
    let check = rfw.call(&["--check"]);
    if status == 78 {
        assert_eq!(check.status, Some(78), "{case}: {check:#?}");
        assert_eq!(check.err.replace(&dir, ""), format!("rfw: {message}\n"), "{case}");
    }
}

/// Has openssl or another program prepare files in the host's folder.
#[track_caller]
fn sh(host: &Host, script: &str) -> String {
    host.run("sh", &["-c", script]).ok()
}

// ---- what is refused ----

/// Puts a folder of tools named as iptables' own into the host's folder, each of
/// which runs `script` and then becomes the real one.
fn wrap_tools(host: &Host, script: &str) {
    fs::create_dir_all(host.dir.join("tools")).unwrap();
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            let text = format!("#!/bin/sh\n{script}\nexec {family}-nft{suffix} \"$@\"\n");
            host.write(&format!("tools/{family}{suffix}"), 0o755, &text);
        }
    }
}
