//! What single requests and lists cost beside a table or a set that is large already.

use super::{Bench, MANY, address, clean, feed, list, median, row, run, send_list, timed};
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// The number of rules beside which single rules are changed.
const RULES: usize = 1_000;

impl Bench {
    /// A PUT that renews and a DELETE among 1,000 rules, against `iptables -w -D` of one of 1,000.
    pub(super) fn changes_of_rules(&self) {
        for (variant, reach) in [("iptables-nft", 0.15), ("iptables-legacy", 0.6)] {
            clean();
            let some: Vec<String> = (0..RULES).step_by(37).map(address).collect();
            // The same rules, with such a comment.
            let comment = ["-m", "comment", "--comment", "rfw until 2030-01-01T00:00:00Z", "-j", "DROP"];
            let words = comment.map(|word| format!("\"{word}\"")).join(" ");
            let rules: String = (0..RULES).map(|n| format!("-I INPUT -s {} {words}\n", address(n))).collect();
            feed(&format!("{variant}-restore"), &["--noflush"], &format!("*filter\n{rules}COMMIT\n"));
            // The kernel frees a rule of nf_tables some 10 ms after it is deleted, and a rule with a
            // comment that comes meanwhile waits for that.
            let pause = || thread::sleep(Duration::from_millis(30));
            let bare = median(some.iter().map(|address| {
                pause();
                timed(|| run(variant, &[&["-w", "-D", "INPUT", "-s", address][..], &comment].concat()))
            }));
            run(variant, &["-w", "-F"]);
            let _rfw = self.rfw(&format!("iptables.path = {variant}\n"));
            let mut client = self.client();
            send_list(&mut client, &list(RULES));
            let ours = median(some.iter().map(|address| {
                pause();
                timed(|| client.put(address))
            }));
            row(&format!("PUT that renews, 1,000 rules, {variant} -w -D"), ours, bare, reach);
            let ours = median(some.iter().map(|address| {
                pause();
                timed(|| client.request("DELETE", &format!("/drop/input/any/{address}"), ""))
            }));
            row(&format!("DELETE, 1,000 rules, {variant} -w -D"), ours, bare, reach);
        }
    }

    /// Short lists, look-ups and repeated requests beside 300,000 entries.
    pub(super) fn beside_many_entries(&self) {
        let _rfw = self.rfw("ipset\n");
        let mut client = self.client();
        send_list(&mut client, &list(MANY));
        let mut script = "create bare hash:net family inet timeout 0 counters maxelem 1048576\n".to_owned();
        list(MANY).lines().for_each(|line| writeln!(script, "add bare {line} timeout 3600").unwrap());
        feed("ipset", &["restore"], &script);
        for length in [10, RULES] {
            let addresses: Vec<String> = (0..length).map(|n| address(MANY + n)).collect();
            let text = addresses.join("\n");
            let mut script = String::new();
            addresses.iter().for_each(|a| writeln!(script, "add bare {a} timeout 3600").unwrap());
            let bare = median((0..9).map(|_| timed(|| feed("ipset", &["restore", "-exist"], &script))));
            let ours = median((0..9).map(|_| timed(|| send_list(&mut client, &text))));
            let bare = bare + Duration::from_millis(2);
            row(&format!("list of {length} into 300,000, ipset restore + 2 ms"), ours, bare, 1.0);
        }
        client.request("PUT", "/drop/input/any/99.99.99.99?expire=0", "");
        let test = |address: &str| {
            let mut ipset = Command::new("ipset");
            let ipset = ipset.args(["test", "bare", address]).stderr(Stdio::null());
            let _ = ipset.status().unwrap();
        };
        let tested = median((0..99).map(|_| timed(|| test("99.99.99.98"))));
        let ours = median(
            (0..99).map(|_| timed(|| client.request("PUT", "/drop/input/any/99.99.99.99?expire=0", ""))),
        );
        row("permanent PUT repeated into 300,000, ipset test", ours, tested, 0.3);
        let ours = median((0..99).map(|_| timed(|| client.request("GET", "/list?address=99.99.99.98", ""))));
        row("GET /list?address= in 300,000, a miss, ipset test", ours, tested, 0.3);
        run("ipset", &["destroy", "bare"]);
        let saved = median((0..5).map(|_| timed(save)));
        let ours = median((0..5).map(|_| timed(|| client.request("GET", "/list?address=99.99.99.99", ""))));
        row("GET /list?address= in 300,000, a hit, ipset save", ours, saved, 0.6);
    }
}

/// Has `ipset save` print all sets.
pub(super) fn save() {
    let mut ipset = Command::new("ipset").arg("save").stdout(Stdio::piped()).spawn().unwrap();
    std::io::copy(ipset.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
    assert!(ipset.wait().unwrap().success());
}
