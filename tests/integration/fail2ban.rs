//! The fail2ban action (`etc/fail2ban/action.d/rfw.conf`) with the real fail2ban: what
//! it bans and unbans is seen in the kernel.

use crate::host::{Host, Rfw, SOON, run, until};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const ACTION: &str = include_str!("../../etc/fail2ban/action.d/rfw.conf");
const URL: &str = "https://127.0.0.1:7393";

/// The configuration of the distribution that fail2ban needs whatever is enabled.
/// What an administrator has added to it stays out.
const DISTRIBUTION: [&str; 5] =
    ["fail2ban.conf", "jail.conf", "paths-common.conf", "paths-debian.conf", "paths-opensuse.conf"];

/// fail2ban on a host, with a log that it watches.
pub struct Fail2ban<'a> {
    host: &'a Host,
    child: Child,
}

impl Fail2ban<'_> {
    /// Starts it with these jails, as `jail.local` has them.
    #[track_caller]
    pub fn start<'a>(host: &'a Host, jails: &str) -> Fail2ban<'a> {
        let version = host.run("fail2ban-server", &["-V"]);
        assert_eq!(version.status, Some(0), "fail2ban is missing: run make deps");
        for folder in ["f2b/action.d", "f2b/filter.d"] {
            fs::create_dir_all(host.dir.join(folder)).unwrap();
        }
        for name in DISTRIBUTION {
            if let Ok(text) = fs::read_to_string(format!("/etc/fail2ban/{name}")) {
                host.write(&format!("f2b/{name}"), 0o644, &text);
            }
        }
        for name in ["iptables.conf", "iptables-allports.conf"] {
            let text = fs::read_to_string(format!("/etc/fail2ban/action.d/{name}")).expect(name);
            host.write(&format!("f2b/action.d/{name}"), 0o644, &text);
        }
        host.write("f2b/action.d/rfw.conf", 0o644, ACTION);
        host.write("f2b/rfw.curl", 0o600, "user = \"me:secret\"\ncacert = \"ca.crt\"\n");
        let filter = "[Definition]\nfailregex = ^ bad <HOST>(?: .*)?$\ndatepattern = {EPOCH}\n";
        host.write("f2b/filter.d/app.conf", 0o644, filter);
        host.write("app.log", 0o644, "");
        // A path in the host's own /run is short enough for a socket.
        let local = "[Definition]\nlogtarget = f2b.log\nsocket = /run/f2b.sock\npidfile = /run/f2b.pid\n\
            dbfile = f2b.sqlite3\n";
        host.write("f2b/fail2ban.local", 0o644, local);
        host.write("f2b/jail.local", 0o644, jails);
        let child = host
            .command("fail2ban-server")
            .args(["-f", "-c", "f2b"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(host.dir.join("f2b.out")).unwrap())
            .stderr(fs::File::create(host.dir.join("f2b.err")).unwrap())
            .process_group(0)
            .spawn()
            .expect("fail2ban-server");
        let mut fail2ban = Fail2ban { host, child };
        until(SOON, "fail2ban is ready", || {
            assert!(fail2ban.child.try_wait().unwrap().is_none(), "fail2ban has ended\n{}", fail2ban.log());
            fail2ban.host.run("fail2ban-client", &["-c", "f2b", "ping"]).status == Some(0)
        });
        fail2ban
    }

    /// Tells it something.
    #[track_caller]
    pub fn tell(&self, words: &[&str]) {
        let said = self.host.run("fail2ban-client", &[&["-c", "f2b"], words].concat());
        assert_eq!(said.status, Some(0), "{said:#?}\n{}", self.log());
    }

    /// Writes a line to the log that it watches.
    fn sees(&self, address: &str) {
        self.sees_at(now(), address);
    }

    /// The same with a line of that time.
    fn sees_at(&self, time: u64, address: &str) {
        let mut log = fs::OpenOptions::new().append(true).open(self.host.dir.join("app.log")).unwrap();
        writeln!(log, "{time} bad {address}").unwrap();
    }

    /// Its log, and what it said on its standard output and error.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.host.dir.join(name)).unwrap_or_default();
        read("f2b.log") + &read("f2b.out") + &read("f2b.err")
    }

    /// Stops it as its service does.
    #[track_caller]
    pub fn stop(&mut self) {
        run("kill", &["-s", "TERM", &self.child.id().to_string()]).ok();
        until(SOON, "fail2ban has ended", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Fail2ban<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The comment of the rule that drops what comes from an address, if it is there.
#[track_caller]
fn ban(host: &Host, address: &str) -> Option<String> {
    let (command, mask) = if address.contains(':') { ("ip6tables", 128) } else { ("iptables", 32) };
    let start = format!("-A INPUT -s {address}/{mask} -m comment --comment \"");
    let rules = host.rules(command, "INPUT");
    let rule = rules.iter().find_map(|rule| rule.strip_prefix(&start))?;
    Some(rule.strip_suffix("\" -j DROP").expect("a drop").to_owned())
}

/// Jails that ban by rfw at these servers.
fn jail(name: &str, bantime: &str, urls: &str) -> String {
    jail_with(name, bantime, &format!("urls=\"{urls}\""))
}

/// The same with options of the action.
fn jail_with(name: &str, bantime: &str, options: &str) -> String {
    format!(
        "[{name}]\nenabled = true\nfilter = app\nlogpath = app.log\nbackend = polling\nusedns = no\n\
         maxretry = 1\nbantime = {bantime}\nbanaction = rfw[{options}, curlrc=f2b/rfw.curl]\n"
    )
}

/// The end of a ban in seconds since 1970, from its comment, which has to go on like this.
#[track_caller]
fn end_of(comment: &str, rest: &str) -> u64 {
    let end = comment.strip_prefix("rfw until ").expect("a ban that ends");
    let end = end.strip_suffix(rest).unwrap_or_else(|| panic!("{comment:?} is not … {rest:?}"));
    run("date", &["-u", "-d", end, "+%s"]).ok().trim().parse().unwrap()
}

fn started(host: &Host) -> Rfw<'_> {
    host.rfw("iptables").start()
}

#[test]
fn what_fail2ban_bans_is_in_the_kernel_until_it_unbans_it() {
    let host = Host::new();
    let rfw = started(&host);
    let mut fail2ban = Fail2ban::start(&host, &jail("app", "10m", URL));
    let before = now();
    fail2ban.sees("192.0.2.7");
    fail2ban.sees("2001:db8::7");
    for address in ["192.0.2.7", "2001:db8::7"] {
        until(SOON, "the address is banned", || ban(&host, address).is_some());
        let comment = ban(&host, address).unwrap();
        let end = end_of(&comment, " list app by me: fail2ban app: 1 failures");
        assert!((before + 600..=now() + 601).contains(&end), "{comment}, banned after {before}");
    }
    fail2ban.tell(&["set", "app", "unbanip", "192.0.2.7", "2001:db8::7"]);
    for address in ["192.0.2.7", "2001:db8::7"] {
        until(SOON, "the address is free", || ban(&host, address).is_none());
    }

    // What somebody else has banned stays so, whatever fail2ban does in the list of its jail.
    rfw.ok("PUT", "/drop/input/any/192.0.2.8?expire=0");
    fail2ban.tell(&["set", "app", "banip", "192.0.2.8", "192.0.2.9"]);
    until(SOON, "both are banned", || {
        let inserted = |address| {
            rfw.log().contains(&format!(" list=app target=drop chain=input interface=any address={address} "))
        };
        inserted("192.0.2.8") && inserted("192.0.2.9")
    });
    rfw.ok("DELETE", "/drop/input/any/192.0.2.9?list=app");
    fail2ban.stop();
    assert_eq!(host.rules("iptables", "INPUT").len(), 1, "fail2ban frees what it banned");
    assert_eq!(ban(&host, "192.0.2.8").as_deref(), Some("rfw permanent"));
    assert!(!fail2ban.log().contains("ERROR"), "{}", fail2ban.log());
}

#[test]
fn bans_without_an_end_have_none_and_failures_are_told() {
    let host = Host::new();
    let _rfw = started(&host);
    let away = "https://127.0.0.1:7399";
    let each = jail("Each-Jail-Of-Many", "10m", URL)
        + &format!("action = rfw[actname=away, urls=\"{away}\", curlrc=f2b/rfw.curl]\n")
        + &format!("         rfw[actname=here, urls=\"{URL}\", curlrc=f2b/rfw.curl]\n");
    let jails = jail("app", "-1", URL) + &jail("fleet", "10m", &format!("{away} {URL}")) + &each;
    let fail2ban = Fail2ban::start(&host, &jails);
    fail2ban.tell(&["set", "app", "banip", "192.0.2.7", "2001:db8::7"]);
    for address in ["192.0.2.7", "2001:db8::7"] {
        until(SOON, "the address is banned", || ban(&host, address).is_some());
        assert_eq!(ban(&host, address).unwrap(), "rfw permanent list app by me: fail2ban app: 0 failures");
    }

    fail2ban.tell(&["set", "app", "banip", "127.0.0.1"]);
    let line = format!(
        "rfw: PUT 127.0.0.1 at {URL}: {{\"code\":\"whitelisted\",\"error\":\"127.0.0.1 is white-listed\""
    );
    until(SOON, "fail2ban's log has the words of rfw", || fail2ban.log().contains(&line));

    // One server that is away keeps no other from banning.
    fail2ban.tell(&["set", "fleet", "banip", "192.0.2.8"]);
    until(SOON, "the address is banned", || ban(&host, "192.0.2.8").is_some());
    let line = "rfw: PUT 192.0.2.8 at https://127.0.0.1:7399: curl: (7) ";
    until(SOON, "fail2ban's log has the words of curl", || fail2ban.log().contains(line));

    // With an action for each, fail2ban also knows where to free it.
    fail2ban.tell(&["set", "Each-Jail-Of-Many", "banip", "192.0.2.9"]);
    until(SOON, "the address is banned", || ban(&host, "192.0.2.9").is_some());
    let comment = ban(&host, "192.0.2.9").unwrap();
    let sum = run("sh", &["-c", "printf each-jail-of-many | cksum"]).ok();
    let sum: u64 = sum.split(' ').next().unwrap().parse().unwrap();
    let rest = format!(" list each-jail-o-{:04} by me: fail2ban Each-Jail-Of-Many: 0 failures", sum % 10000);
    assert!(comment.ends_with(&rest), "{comment}");
    fail2ban.tell(&["set", "Each-Jail-Of-Many", "unbanip", "192.0.2.9"]);
    until(SOON, "the address is free", || ban(&host, "192.0.2.9").is_none());
    assert!(!fail2ban.log().contains("secret"), "{}", fail2ban.log());
}

#[test]
fn a_restart_of_fail2ban_bans_once_more_with_the_old_end() {
    let host = Host::new();
    let rfw = started(&host);
    let jails = jail("app", "10m", URL);
    let mut fail2ban = Fail2ban::start(&host, &jails);
    let seen = now() - 100;
    fail2ban.sees_at(seen, "192.0.2.7");
    until(SOON, "the address is banned", || ban(&host, "192.0.2.7").is_some());
    let end = || end_of(&ban(&host, "192.0.2.7").unwrap(), " list app by me: fail2ban app: 1 failures");
    let first = end();
    let database = || fs::read(host.dir.join("f2b.sqlite3")).unwrap();
    let is_kept = || database().windows(9).any(|bytes| bytes == b"192.0.2.7");
    until(SOON, "fail2ban has written down its ban", is_kept);

    // It lifts its bans when it is stopped, and bans them once more.
    fail2ban.stop();
    assert_eq!(ban(&host, "192.0.2.7"), None);
    let fail2ban = Fail2ban::start(&host, &jails);
    until(SOON, "the address is banned again", || ban(&host, "192.0.2.7").is_some());
    assert!(end().abs_diff(first) <= 2, "{} and {first}", end());

    // A crash lifts nothing: what is there is renewed, not doubled.
    drop(fail2ban);
    assert!(ban(&host, "192.0.2.7").is_some());
    host.run("rm", &["/run/f2b.sock"]).ok();
    let reason = "fail2ban%20app:%201%20failures";
    rfw.ok("PUT", &format!("/drop/input/any/192.0.2.7?list=app&reason={reason}&expire=2h"));
    let fail2ban = Fail2ban::start(&host, &jails);
    until(SOON, "the ban is renewed", || end().abs_diff(first) <= 2);
    assert_eq!(host.rules("iptables", "INPUT").len(), 1);
    fail2ban.tell(&["set", "app", "unbanip", "192.0.2.7"]);
    until(SOON, "the address is free", || ban(&host, "192.0.2.7").is_none());
    assert!(!fail2ban.log().contains("ERROR"), "{}", fail2ban.log());
}

#[test]
fn options_of_the_action_are_taken_as_they_are_meant() {
    let host = Host::new();
    let _rfw = started(&host);
    let options = "ipv6prefix=64, list=\"-Web 1/<name>\", reason=\"\u{e9}<name>, <failures> <matches>\"";
    let fail2ban = Fail2ban::start(&host, &jail_with("app", "10m", options));
    fail2ban.sees("2001:db8:1:2:3:4:5:6 \"$(id)\" `id` %41&list=x #+");
    let rule = || {
        let rules = host.rules("ip6tables", "INPUT");
        rules.into_iter().find(|rule| rule.contains("-s 2001:db8:1:2::/64 "))
    };
    until(SOON, "the network is banned", || rule().is_some());
    let rule_text = rule().unwrap();
    let start = " list web_1_app by me: app, 1 ";
    let (_, matches) = rule_text.split_once(start).unwrap_or_else(|| panic!("no {start:?}: {rule_text}"));
    assert!(
        matches.ends_with(" bad 2001:db8:1:2:3:4:5:6  $(id)  `id` %41&list=x #+\" -j DROP"),
        "{rule_text}"
    );
    fail2ban.tell(&["set", "app", "banip", "192.0.2.9"]);
    until(SOON, "the address is banned", || ban(&host, "192.0.2.9").is_some());
    fail2ban.tell(&["set", "app", "unbanip", "2001:db8:1:2:3:4:5:6"]);
    until(SOON, "the network is free", || rule().is_none());
    assert!(!fail2ban.log().contains("ERROR"), "{}", fail2ban.log());
}
