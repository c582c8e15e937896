//! Other programs at the same work, each in its own normal way: a list of addresses is blocked. What
//! is not installed is told as missing.

use super::{Bench, address, clean, feed, list, millis, output, run, timed};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The lengths of lists; the first alone for those that take an address after the other.
const LENGTHS: [usize; 3] = [1_000, 10_000, 100_000];

/// How a peer blocks a list of a length: the time that it took, `None` if it failed.
type Work<'a> = &'a dyn Fn(usize) -> Option<Duration>;

/// The longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(240);

impl Bench {
    /// Prints how long each takes for lists of 1,000, 10,000 and 100,000.
    pub(super) fn peers(&self) {
        println!("{:<44} {:>11} {:>11} {:>11}", "a list blocked, in ms", "1,000", "10,000", "100,000");
        let peers: [(&str, &str, Work<'_>); 5] = [
            ("rfw, curl -T list (option ipset)", "curl", &|length| Some(self.curl(length))),
            ("ipset restore", "ipset", &|length| Some(ipset(length))),
            ("nft -f, a set with intervals and timeouts", "nft", &|length| Some(nft(length))),
            ("firewall-cmd --add-entries-from-file", "firewall-cmd", &|length| self.firewalld(length)),
            ("fail2ban-client banip, iptables-multiport", "fail2ban-client", &|length| {
                Some(self.fail2ban(length))
            }),
        ];
        for (what, program, work) in peers {
            if !Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
            {
                println!("{what:<44} {:>11}", "missing");
                continue;
            }
            print!("{what:<44}");
            // One address after the other takes minutes for more.
            let most = if program == "fail2ban-client" { LENGTHS[0] } else { LENGTHS[2] };
            for length in LENGTHS.into_iter().filter(|length| *length <= most) {
                clean();
                match work(length) {
                    Some(took) => print!(" {:>11.1}", millis(took)),
                    None => print!(" {:>11}", "fails"),
                }
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
            println!();
        }
    }

    fn curl(&self, length: usize) -> Duration {
        let _rfw = self.rfw("ipset\n");
        let file = self.dir.join("list");
        fs::write(&file, list(length)).unwrap();
        let (ca, file) = (self.dir.join("client/ca.crt"), file.display().to_string());
        let url = "https://127.0.0.1:7393/drop/input/any?expire=1h";
        let arguments = [
            "-sSf",
            "-o",
            "/dev/null",
            "-u",
            "me:secret",
            "--cacert",
            ca.to_str().unwrap(),
            "-T",
            &file,
            url,
        ];
        timed(|| run("curl", &arguments))
    }

    fn firewalld(&self, length: usize) -> Option<Duration> {
        let config = self.dir.join("firewalld");
        let _ = fs::remove_dir_all(&config);
        fs::create_dir_all(&config).unwrap();
        fs::create_dir_all("/run/dbus").unwrap();
        let mut bus = Daemon::start("dbus-daemon", &["--system", "--nofork", "--nopidfile"]);
        bus.wait_for(|| Path::new("/run/dbus/system_bus_socket").exists());
        let mut daemon =
            Daemon::start("firewalld", &["--nofork", "--nopid", "--system-config", config.to_str().unwrap()]);
        daemon.wait_for(|| succeeds("firewall-cmd", &["--state"]));
        let permanent = |arguments: &[&str]| {
            run("firewall-cmd", &[&["--permanent"], arguments].concat());
        };
        permanent(&["--new-ipset=blocked", "--type=hash:net", "--option=maxelem=1048576"]);
        permanent(&["--add-rich-rule=rule source ipset=blocked drop"]);
        run("firewall-cmd", &["--reload"]);
        let file = self.dir.join("list");
        fs::write(&file, list(length)).unwrap();
        let entries = format!("--add-entries-from-file={}", file.display());
        // With 100,000 it gives no answer over D-Bus in time.
        let (start, added) = (Instant::now(), succeeds("firewall-cmd", &["--ipset=blocked", &entries]));
        let took = Some(start.elapsed()).filter(|_| added);
        drop(daemon);
        drop(bus);
        let _ = fs::remove_file("/run/dbus/system_bus_socket");
        run("nft", &["flush", "ruleset"]);
        took
    }

    fn fail2ban(&self, length: usize) -> Duration {
        let config = self.dir.join("fail2ban");
        let _ = fs::remove_dir_all(&config);
        run("cp", &["-r", "/etc/fail2ban", config.to_str().unwrap()]);
        let dir = self.dir.display();
        let jails = format!(
            "[DEFAULT]\nbackend = polling\nlogpath = {dir}/watched\n[sshd]\nenabled = false\n\
             [peer]\nenabled = true\nfilter = sshd\nbanaction = iptables-multiport\nport = 22\nbantime = 1h\n"
        );
        let _ = fs::remove_dir_all(config.join("jail.d"));
        fs::write(config.join("jail.local"), jails).unwrap();
        fs::write(self.dir.join("watched"), "").unwrap();
        let (config, socket, pid) =
            (config.display().to_string(), format!("{dir}/f2b.sock"), format!("{dir}/f2b.pid"));
        let common = ["-c", &config, "-s", &socket, "-p", &pid];
        let log = format!("{dir}/f2b.log");
        let own = ["--logtarget", &log, "-f", "start"];
        let mut daemon = Daemon::start("fail2ban-server", &[&common[..], &own].concat());
        daemon.wait_for(|| succeeds("fail2ban-client", &[&common[..], &["status", "peer"]].concat()));
        let addresses: Vec<String> = (0..length).map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let start = Instant::now();
        run("fail2ban-client", &[&common[..], &["set", "peer", "banip"], &addresses].concat());
        daemon.wait_for(|| output("iptables", &["-S"]).matches("-j REJECT").count() >= length);
        let took = start.elapsed();
        drop(daemon);
        took
    }
}

fn ipset(length: usize) -> Duration {
    let mut script = "create bare hash:net family inet timeout 0 counters maxelem 1048576\n".to_owned();
    list(length).lines().for_each(|line| writeln!(script, "add bare {line} timeout 3600").unwrap());
    timed(|| feed("ipset", &["restore"], &script))
}

fn nft(length: usize) -> Duration {
    let elements: Vec<String> = list(length).lines().map(|line| format!("{line} timeout 1h")).collect();
    let script = format!(
        "table inet peer {{\nset blocked {{\ntype ipv4_addr\nflags interval, timeout\nelements = {{ {} }}\n}}\n\
         chain input {{\ntype filter hook input priority filter\nip saddr @blocked drop\n}}\n}}\n",
        elements.join(",\n")
    );
    let took = timed(|| feed("nft", &["-f", "-"], &script));
    run("nft", &["delete", "table", "inet", "peer"]);
    took
}

/// A program that runs until it is dropped.
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, arguments: &[&str]) -> Daemon {
        let mut command = Command::new(program);
        let command = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Daemon(command.spawn().expect(program))
    }

    #[track_caller]
    fn wait_for(&mut self, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(self.0.try_wait().unwrap().is_none(), "it has ended");
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}
