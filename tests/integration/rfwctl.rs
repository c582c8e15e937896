//! rfwctl, the command that asks many servers at once: run by dash and by busybox, against real rfw
//! down to the kernel.

mod answers;
mod files;
mod hostile;
mod live;

use crate::golden::cases;
use crate::host::{Host, Rfw, SOON, Said, run, until};
use std::fs;
use std::process::{Child, Command, Stdio};

/// The shells; a busybox that runs a script takes its own awk, sed and all the others.
pub const SHELLS: [&[&str]; 2] = [&["dash"], &["busybox", "sh"]];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");

/// A command on a host, without what whoever runs the tests has in his home.
fn command(host: &Host, program: &str) -> Command {
    let mut command = host.command(program);
    command.env("HOME", &host.dir).env_remove("XDG_CONFIG_HOME").env("LC_ALL", "C.UTF-8");
    command
}

/// rfwctl, to its end.
pub fn ctl(host: &Host, shell: &[&str], arguments: &[&str]) -> Said {
    let mut command = command(host, shell[0]);
    let output = command.args(&shell[1..]).arg(SCRIPT).args(arguments).stdin(Stdio::null()).output().unwrap();
    Said {
        line: format!("{} rfwctl {}", shell.join(" "), arguments.join(" ")),
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// rfwctl that goes on, with its output in files of the host's folder.
pub struct Running<'a> {
    host: &'a Host,
    child: Child,
}

impl Running<'_> {
    pub fn start<'a>(host: &'a Host, shell: &[&str], arguments: &[&str]) -> Running<'a> {
        let mut command = command(host, shell[0]);
        command.args(&shell[1..]).arg(SCRIPT).args(arguments).stdin(Stdio::null());
        command.stdout(fs::File::create(host.dir.join("ctl.out")).unwrap());
        command.stderr(fs::File::create(host.dir.join("ctl.err")).unwrap());
        Running { host, child: command.spawn().unwrap() }
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.host.dir.join("ctl.out")).unwrap()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(self.host.dir.join("ctl.err")).unwrap()
    }

    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let mut status = None;
        until(SOON * 3, "rfwctl has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // It is in the middle of a sleep, perhaps, and removes its folder when it is asked to end.
        run("kill", &["-s", "TERM", &self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

/// A line of the file of servers for the rfw of a host.
const HERE: &str = "web1 https://127.0.0.1:7393 @web cacert=ca.crt user=me password=secret\n";

/// A second rfw, on a neighbour of the host, which is reached as port 7394 of this one.
struct Second(Child);

impl Second {
    fn start(host: &Host) -> Second {
        host.neighbour("n", &["10.0.0.1/24"], &["10.0.0.2/24"]);
        let conf = fs::read_to_string(host.dir.join("rfw.conf")).unwrap();
        let conf = conf.replace("white.list", "second.list").replace("local.server\n", "state.file =\n");
        host.write("second.conf", 0o600, &conf);
        host.write("second.list", 0o644, "10.0.0.1\n");
        host.write("second.curlrc", 0o600, "connect-to = \"127.0.0.1:7394:10.0.0.2:7393\"\n");
        let words =
            ["netns", "exec", "n", env!("CARGO_BIN_EXE_rfw"), "-f", "second.conf", "--logfile", "second.log"];
        let child = host.command("ip").args(words).stdin(Stdio::null()).spawn().unwrap();
        let log = host.dir.join("second.log");
        until(SOON, "the second rfw is ready", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("is ready"))
        });
        Second(child)
    }

    /// Its line of the file of servers.
    const LINE: &str = "web2 https://127.0.0.1:7394 @web @north cacert=ca.crt user=me password=secret curlrc=second.curlrc\n";
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The text without moments.
fn timeless(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([';', ',', '\n']);
        if bare.len() == 20 && bare.ends_with('Z') { word.replace(bare, "MOMENT") } else { word.to_owned() }
    };
    text.split_inclusive('\n').map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_change_is_in_the_kernel_of_each_server_and_who_failed_is_named() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    let _second = Second::start(&host);
    let wrong = "wrong https://127.0.0.1:7393 cacert=ca.crt user=me password=guess\n";
    let down = "down https://127.0.0.1:9 cacert=ca.crt user=me password=secret\n";
    host.write("servers", 0o600, &format!("{HERE}{wrong}{}{down}", Second::LINE));
    let drops = || {
        let second = host.run("ip", &["netns", "exec", "n", "iptables", "-S", "INPUT"]).ok();
        let of = |rules: &str| rules.lines().filter(|rule| rule.contains("66.66.66.66/32")).count();
        let six = host.run("ip", &["netns", "exec", "n", "ip6tables", "-S", "INPUT"]).ok();
        (
            of(&rfw.host.rules("iptables", "INPUT").join("\n")),
            of(&second),
            six.matches("2001:db8::/48").count(),
        )
    };
    for shell in SHELLS {
        let words = ["block", "66.66.66.66", "2001:db8::/48", "-f", "servers", "-t1h", "-l", "manual"];
        let said = ctl(&host, shell, &[&words[..], &["-r", "Grüße & 100%", "--retries", "0"]].concat());
        let line =
            |server, address| format!("{server}: {address} is blocked in the list manual until MOMENT\n");
        let all = ["66.66.66.66", "2001:db8::/48"].map(|a| line("web1", a) + &line("web2", a)).concat();
        assert_eq!(timeless(&said.out), all, "{said:#?}");
        let lines: Vec<&str> = said.err.lines().collect();
        assert_eq!(lines.len(), 5, "{said:#?}");
        assert_eq!(lines[0], "wrong: 66.66.66.66: wrong user name or password");
        assert!(
            lines[1].starts_with("down: 66.66.66.66: Failed to connect to 127.0.0.1 port 9"),
            "{said:#?}"
        );
        assert_eq!(lines[4], "rfwctl: failed on 2 of 4 servers: wrong down");
        assert_eq!(said.status, Some(1));
        assert_eq!(drops(), (1, 1, 1));
        assert_eq!(rfw.ok("GET", "/list?address=66.66.66.66")[0]["reason"], "Grüße & 100%");

        let said =
            ctl(&host, shell, &["block", "-f", "servers", "-s", "web1", "66.66.66.66", "-l", "manual"]);
        assert!(timeless(&said.out).ends_with(" until MOMENT, and was before\n"), "{said:#?}");

        // A network around it is told, from the server that has it.
        rfw.ok("PUT", "/drop/input/any/66.66.66.0/24?list=wide");
        let said = ctl(&host, shell, &["unblock", "-f", "servers", "-s", "@web", "66.66.66.66"]);
        assert_eq!(
            said.ok(),
            "web1: 66.66.66.66 is unblocked; still there: 66.66.66.0/24 in the list wide (drop input any)\n\
             web2: 66.66.66.66 is unblocked\n"
        );
        let said =
            ctl(&host, shell, &["unblock", "-f", "servers", "-s", "@north", "66.66.66.66", "2001:db8::/48"]);
        assert_eq!(said.ok(), "web2: 66.66.66.66 was not blocked\nweb2: 2001:db8::/48 is unblocked\n");
        assert_eq!(drops(), (0, 0, 0));
        rfw.ok("DELETE", "/list?list=*");
    }
}

#[test]
fn other_targets_and_places_are_asked_for_and_refusals_are_told_in_the_words_of_the_server() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    host.write("servers", 0o600, HERE);
    for shell in SHELLS {
        let ask = |words: &str| {
            ctl(&host, shell, &[&words.split(' ').collect::<Vec<_>>()[..], &["-f", "servers"]].concat())
        };
        let said = ask("block 1.2.3.4 -a reject -c output -i eth0 -t 0");
        assert_eq!(said.ok(), "web1: 1.2.3.4 is rejected for ever\n");
        let rules = rfw.host.rules("iptables", "OUTPUT").join("\n");
        assert!(rules.contains("-A OUTPUT -d 1.2.3.4/32 -o eth0 "), "{rules}");
        let said = ask("unblock 1.2.3.4 -a reject -c output -i eth0");
        assert_eq!(said.ok(), "web1: 1.2.3.4 is unblocked\n");
        assert_eq!(ask("block 127.0.0.1").fails_with(1), "web1: 127.0.0.1 is white-listed\n");
        let said = ask("block 1.2.3.4 -l Not");
        assert!(said.err.starts_with("web1: 1.2.3.4: ") && said.err.contains("\"Not\""), "{said:#?}");
        let said = ask("block 1.2.3.4 ::/0 --json");
        let answers: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            (answers[0]["server"].as_str(), answers[0]["answer"]["result"].as_str()),
            (Some("web1"), Some("inserted"))
        );
        assert_eq!(
            (answers[1]["address"].as_str(), answers[1]["status"].as_u64()),
            (Some("::/0"), Some(400))
        );
        assert!(answers[1]["error"].as_str().unwrap().contains("too wide"), "{answers:#}");
        assert_eq!(said.status, Some(1));
        rfw.ok("DELETE", "/list?list=*");
    }
}

#[test]
fn a_block_that_an_accept_makes_ineffective_says_so() {
    let host = Host::new();
    let _rfw = host.rfw("iptables").configure("ipset").start();
    host.write("servers", 0o600, HERE);
    for (shell, before) in SHELLS.into_iter().zip(["", ", and was before"]) {
        let accept = ["block", "1.2.3.0/24", "-a", "accept", "-l", "good", "-f", "servers"];
        ctl(&host, shell, &accept).ok();
        let said = timeless(&ctl(&host, shell, &["block", "1.2.3.4", "-f", "servers"]).ok());
        let accepted = "but it is accepted by 1.2.3.0/24 in the list good (accept input any)";
        assert_eq!(said, format!("web1: 1.2.3.4 is blocked until MOMENT{before}; {accepted}\n"));
    }
}

#[test]
fn lists_are_told_as_tables_as_csv_and_as_json() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    host.write("servers", 0o600, &HERE.replace("web1", "a-long-name"));
    rfw.ok("PUT", "/drop/input/eth/1.2.3.0/24?list=tor&expire=0&reason=%C3%BCber%2C%20o");
    rfw.ok("PUT", "/reject/output/any/2001:db8::1?expire=2h");
    for shell in SHELLS {
        let ask = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            timeless(&ctl(&host, shell, &[&words[..], &["-f", "servers"]].concat()).ok())
        };
        assert_eq!(
            ask("why 1.2.3.4 9.9.9.9"),
            "SERVER       LIST  ADDRESS     PLACE           UNTIL  PACKETS  BY  REASON\n\
             a-long-name  tor   1.2.3.0/24  drop input eth  ever   0        me  über, o\n\
             9.9.9.9 is in no list on a-long-name\n"
        );
        let row = "a-long-name,-,2001:db8::1,reject output any,";
        let csv = ask("list --csv");
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "server,list,address,place,until,packets,by,reason");
        assert_eq!(lines[1], "a-long-name,tor,1.2.3.0/24,drop input eth,ever,0,me,\"über, o\"");
        assert!(lines[2].starts_with(row) && lines[2].ends_with("Z,0,,"), "{csv}");
        assert_eq!(ask("list -a reject -c output").lines().count(), 2);
        assert_eq!(ask("list -l none"), "a-long-name: nothing is in the list none\n");
        let lists = ask("lists");
        assert!(lists.contains("\na-long-name  tor   drop input eth     1     0     ever"), "{lists}");
        assert_eq!(ask("lists -l tor").lines().count(), 2);

        let mut answered = rfw.ok("GET", "/list");
        for row in answered.as_array_mut().unwrap() {
            row["server"] = "a-long-name".into();
        }
        let json: serde_json::Value =
            serde_json::from_str(&ctl(&host, shell, &["list", "--json", "-f", "servers"]).ok()).unwrap();
        assert_eq!(json, answered);
    }
}

/// The golden table has command lines, and what is wrong with each.
#[test]
fn a_wrong_command_line_asks_nothing_and_is_quoted() {
    let host = Host::new();
    host.write("servers", 0o600, "web1 https://127.0.0.1:9 @web\n");
    for shell in SHELLS {
        for (place, [line, message]) in cases("rfwctl-refused.txt") {
            let words: Vec<&str> = line.split(' ').collect();
            let said = ctl(&host, shell, &[&["-f", "servers"], &words[..]].concat());
            let status = if words[0] == "status" { 3 } else { 2 };
            assert_eq!((said.status, said.out.as_str()), (Some(status), ""), "{place}: {said:#?}");
            assert_eq!(said.err, format!("rfwctl: {message}\n"), "{place}");
        }
    }
}

/// While a server says nothing, what runs can be looked at.
#[test]
fn no_secret_is_an_argument_of_a_program() {
    let host = Host::new();
    let rfw =
        host.rfw("iptables").reconfigure("auth.password = secret", "auth.password = kept\"from\\ps").start();
    host.write("servers", 0o600, &HERE.replace("=secret", "=kept\"from\\ps"));
    for shell in SHELLS {
        rfw.signal("STOP");
        let mut running = Running::start(&host, shell, &["block", "1.2.3.4", "-f", "servers"]);
        let lines = || {
            let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
                entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            });
            let text = |path: &std::path::Path, name| fs::read(path.join(name)).unwrap_or_default();
            let home = format!("HOME={}", host.dir.display());
            processes
                .map(|entry| entry.path())
                .filter(|path| String::from_utf8_lossy(&text(path, "environ")).contains(&home))
                .map(|path| String::from_utf8_lossy(&text(&path, "cmdline")).into_owned())
                .collect::<Vec<String>>()
        };
        until(SOON, "curl runs", || lines().iter().any(|line| line.starts_with("curl\0")));
        let lines = lines();
        assert!(!lines.iter().any(|line| line.contains("kept")), "{lines:#?}");
        rfw.signal("CONT");
        assert_eq!(running.end(), 0, "{}", running.err());
        assert!(running.out().starts_with("web1: 1.2.3.4 is blocked until "), "{}", running.out());
    }
}

#[test]
fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let host = Host::new();
    let mut rfw = host.rfw("iptables");
    host.write("servers", 0o600, HERE);
    let mut running =
        Running::start(&host, SHELLS[0], &["block", "1.2.3.4", "-f", "servers", "--retries", "4"]);
    rfw.spawn();
    assert_eq!(running.end(), 0, "{}", running.err());
    assert_eq!(drops_of(&rfw, "1.2.3.4"), 1);
}

fn drops_of(rfw: &Rfw<'_>, address: &str) -> usize {
    rfw.host.rules("iptables", "INPUT").iter().filter(|rule| rule.contains(&format!("{address}/32"))).count()
}

#[test]
fn the_rfw_of_the_host_needs_no_file_of_servers() {
    let host = Host::new();
    let rfw = host.rfw("iptables").start();
    for shell in SHELLS {
        // By the local server, and by HTTPS with the server's own certificate.
        for conf in ["local.server", "#local.server"] {
            let text = fs::read_to_string(host.dir.join("rfw.conf"))
                .unwrap()
                .replace("\nlocal.server", &format!("\n{conf}"));
            // A comment is no option, whatever it looks like.
            let comments = "[config]\n#local.server.port=1\n; outward.server.port=1\n; auth.password=x\n";
            let ports = "local.server.port = 7390\noutward.server.port = 7393\n";
            let text = text.replace("[config]\n", &format!("{comments}{ports}"));
            host.write("other.conf", 0o600, &(text + "[client x]\nlocal.server.port = 1\n"));
            let said = ctl(&host, shell, &["block", "1.2.3.4", "-f", "other.conf"]);
            assert!(said.ok().starts_with("local: 1.2.3.4 is blocked until "), "{conf}");
            assert_eq!(drops_of(&rfw, "1.2.3.4"), 1);
            rfw.ok("DELETE", "/list?address=1.2.3.4");
        }
        host.write("other.conf", 0o644, "[config]\nlocal.server\n");
        let said = ctl(&host, shell, &["block", "1.2.3.4", "-f", "other.conf"]);
        assert_eq!(
            said.fails_with(2),
            "rfwctl: other.conf holds a secret, and others can read it: chmod 600 it\n"
        );
    }
}
