//! What rfw costs beside the bare tools, measured in one run: each row is the
//! median time of rfw over the median time of the tool that does the same.
//!
//! It runs in a network and mount namespace of its own, makes its lists itself, and
//! talks to rfw by TLS as a client does. `make bench` prints the table.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod client;
mod crowd;
mod fleet;
mod lists;
mod network;
mod peers;
mod server;
mod sets;

use client::Client;
use rustls::ClientConfig;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The program, unless `RFW_BENCH_PROGRAM` is another.
fn program() -> String {
    std::env::var("RFW_BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rfw").to_owned())
}

const LIST: usize = 100_000;
const MANY: usize = 300_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|argument| argument == lists::FLOOD) {
        return lists::flood(&arguments.next().unwrap());
    }
    if std::env::var_os("RFW_BENCH_OUTSIDE").is_none() {
        enter_namespace();
    }
    let outside = std::env::var("RFW_BENCH_OUTSIDE").unwrap();
    let inside = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(inside.to_string_lossy(), outside, "this is the machine's own network namespace");
    run("sh", &["-c", "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && ip link set lo up"]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = Bench::new();
    if std::env::args().any(|argument| argument == "--peers") {
        bench.peers();
        let _ = fs::remove_dir_all(&bench.dir);
        return;
    }
    println!("{:<52} {:>11} {:>11} {:>7} {:>7}", "", "rfw", "bare tool", "ratio", "reach");
    // An argument measures only that: kernel, lists, server, crowd or fleet.
    let is_wanted = |part: &str| {
        let mut wanted = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
        wanted.peek().is_none() || wanted.any(|argument| argument == part)
    };
    if is_wanted("kernel") {
        bench.kernel();
    }
    if is_wanted("lists") {
        bench.lists();
    }
    if is_wanted("server") {
        bench.server();
    }
    if is_wanted("crowd") {
        bench.crowd();
    }
    if is_wanted("fleet") {
        bench.fleet();
    }
    let _ = fs::remove_dir_all(&bench.dir);
}

/// Starts this program again in a namespace, as root or as a user.
fn enter_namespace() -> ! {
    let root = output("id", &["-u"]).trim() == "0";
    let error = Command::new("unshare")
        .arg(if root { "-nm" } else { "-rnm" })
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args().skip(1))
        .env("RFW_BENCH_OUTSIDE", fs::read_link("/proc/self/ns/net").unwrap())
        .exec();
    panic!("unshare (util-linux): {error}");
}

struct Bench {
    dir: PathBuf,
    tls: Arc<ClientConfig>,
    /// The same without resuming sessions.
    fresh_tls: Arc<ClientConfig>,
}

impl Bench {
    fn new() -> Bench {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let rfwgen = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");
        let made = Command::new(rfwgen).arg("127.0.0.1").current_dir(&dir).stdout(Stdio::null()).status();
        assert!(made.unwrap().success());
        let crowd: String = crowd::sources().map(|source| format!("{source}\n")).collect();
        fs::write(dir.join("white.list"), format!("127.0.0.1\n{crowd}")).unwrap();
        let fresh_tls = client::trust(&dir.join("client/ca.crt"));
        let mut tls = fresh_tls.clone();
        tls.resumption = rustls::client::Resumption::default();
        Bench { dir, tls: Arc::new(tls), fresh_tls: Arc::new(fresh_tls) }
    }

    fn kernel(&self) {
        self.one_put("");
        self.one_put("ipset\n");
        self.new_connection();
        self.list_into_sets();
        self.list_into_rules();
        self.expiry();
        self.changes_of_rules();
        self.beside_many_entries();
        self.listing_and_start();
        self.memory();
    }

    fn rfw(&self, options: &str) -> Rfw {
        clean();
        // What a run before has written is not to come back.
        let _ = fs::remove_file("/var/lib/rfw/state");
        self.start(options)
    }

    /// Starts rfw on whatever the kernel holds.
    fn start(&self, options: &str) -> Rfw {
        let dir = self.dir.display();
        let conf = format!(
            "[config]\noutward.server\noutward.server.ip = 127.0.0.1\n\
             outward.server.certfile = {dir}/server_127.0.0.1/server.crt\n\
             outward.server.keyfile = {dir}/server_127.0.0.1/server.key\n\
             auth.username = me\nauth.password = secret\nwhitelist.file = {dir}/white.list\n{options}"
        );
        let file = self.dir.join("rfw.conf");
        fs::write(&file, conf).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let log = self.dir.join("rfw.log");
        let _ = fs::remove_file(&log);
        let arguments = ["--loglevel", "DEBUG", "--logfile"];
        let child = Command::new(program()).arg("-f").arg(&file).args(arguments).arg(&log).spawn().unwrap();
        self.wait_for("is ready");
        Rfw { child }
    }

    /// Waits until the log has that text.
    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        let log = || fs::read_to_string(self.dir.join("rfw.log")).unwrap_or_default();
        while !log().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(10), "no \"{text}\" in {}", log());
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.tls)
    }

    /// `iptables -w -I` of 400 rules by fork and exec, the median of one.
    fn bare_inserts(&self) -> Duration {
        clean();
        median(
            (0..400)
                .map(|n| timed(|| run("iptables", &["-w", "-I", "INPUT", "-s", &address(n), "-j", "DROP"]))),
        )
    }

    fn one_put(&self, options: &str) {
        let bare = self.bare_inserts();
        let _rfw = self.rfw(options);
        let mut client = self.client();
        client.put(&address(LIST));
        let ours = median((0..400).map(|n| timed(|| client.put(&address(n)))));
        let (what, reach) = if options.is_empty() { ("rules", 0.25) } else { ("sets", 0.08) };
        row(&format!("one PUT, {what} (0 to 400), against iptables -w -I"), ours, bare, reach);
    }

    fn new_connection(&self) {
        let bare = self.bare_inserts();
        let _rfw = self.rfw("");
        let ours = median((0..400).map(|n| timed(|| Client::new(&self.fresh_tls).put(&address(n)))));
        row("one PUT on a new TLS connection, the same", ours, bare, 1.8);
    }

    fn list_into_sets(&self) {
        let list = list(LIST);
        let mut script = "create bare hash:net family inet timeout 0 counters maxelem 1048576\n".to_owned();
        list.lines().for_each(|line| writeln!(script, "add bare {line} timeout 3600").unwrap());
        let bare = median((0..5).map(|_| {
            clean();
            timed(|| feed("ipset", &["restore"], &script))
        }));
        let ours = median((0..5).map(|_| {
            let _rfw = self.rfw("ipset\n");
            let mut client = self.client();
            timed(|| send_list(&mut client, &list))
        }));
        row("100,000 addresses into a set, against ipset restore", ours, bare, 0.25);
    }

    fn list_into_rules(&self) {
        let list = list(1_000);
        let comment = "-m comment --comment \"rfw until 2030-01-01T00:00:00Z\"";
        let script = |flag: &str, addresses: &[&str]| {
            let rules: String =
                addresses.iter().map(|a| format!("{flag} INPUT -s {a} {comment} -j DROP\n")).collect();
            format!("*filter\n{rules}COMMIT\n")
        };
        let addresses: Vec<&str> = list.lines().collect();
        let bare = median((0..15).map(|_| {
            clean();
            timed(|| feed("iptables-restore", &["--noflush", "-w"], &script("-I", &addresses)))
        }));
        let ours = median((0..15).map(|_| {
            let _rfw = self.rfw("");
            let mut client = self.client();
            client.put("99.99.99.99");
            timed(|| send_list(&mut client, &list))
        }));
        row("1,000 addresses into rules, against iptables-restore", ours, bare, 1.5);
    }

    /// 1,000 rules that end in the same second, against one transaction that deletes
    /// them from the head of the table on, which is the fastest order there is.
    fn expiry(&self) {
        let list = list(1_000);
        let comment = "-m comment --comment \"rfw until 2030-01-01T00:00:00Z\"";
        let script = |flag: &str, addresses: &mut dyn Iterator<Item = &str>| {
            let rules: String =
                addresses.map(|a| format!("{flag} INPUT -s {a} {comment} -j DROP\n")).collect();
            format!("*filter\n{rules}COMMIT\n")
        };
        let bare = median((0..7).map(|_| {
            clean();
            feed("iptables-nft-restore", &["--noflush"], &script("-I", &mut list.lines()));
            let delete = script("-D", &mut list.lines().rev());
            timed(|| feed("iptables-nft-restore", &["--noflush"], &delete))
        }));
        let mut slowest = Duration::ZERO;
        let ours = median((0..7).map(|_| {
            let _rfw = self.rfw("iptables.path = iptables-nft\n");
            let mut client = self.client();
            client.request("PUT", "/drop/input/any?expire=1", &list);
            let due = expiry(&client);
            while std::time::SystemTime::now() < due {
                thread::sleep(Duration::from_micros(100));
            }
            let start = Instant::now();
            while output("iptables-nft", &["-S", "INPUT"]).contains("rfw until") {
                slowest = slowest.max(timed(|| client.request("GET", "/", "")));
            }
            start.elapsed()
        }));
        row("1,000 rules end together, against one delete (nft)", ours, bare, 1.5);
        println!("{:<52} {:>8.1} ms", "  a client meanwhile waits at most", millis(slowest));
    }

    fn listing_and_start(&self) {
        let rfw = self.rfw("ipset\n");
        let mut client = self.client();
        send_list(&mut client, &list(MANY));
        let bare = median((0..5).map(|_| timed(sets::save)));
        let ours = median((0..5).map(|_| {
            timed(|| {
                let length = client.request("GET", "/list", "");
                assert!(length > MANY * 100, "{length} bytes");
            })
        }));
        row("GET /list of 300,000 entries, against ipset save", ours, bare, 0.8);
        drop(rfw);
        let mut filled = Duration::ZERO;
        let ours = median((0..5).map(|_| {
            let start = Instant::now();
            let rfw = self.start("ipset\n");
            let ready = start.elapsed();
            self.wait_for("300000 entries are known");
            filled = filled.max(start.elapsed());
            drop(rfw);
            ready
        }));
        row("start over 300,000 entries, against ipset save", ours, bare, 0.15);
        println!("{:<52} {:>8.3} ms", "  until the mirror is full, at most (2,000 ms)", millis(filled));
    }

    fn memory(&self) {
        let rfw = self.rfw("ipset\n");
        let mut client = self.client();
        client.put("1.1.1.1");
        memory_row("idle", rfw.memory("VmRSS"), 6);
        send_list(&mut client, &list(MANY));
        memory_row("peak, 300,000 addresses in one request", rfw.memory("VmHWM"), 40);
        drop(rfw);
        let rfw = self.start("ipset\n");
        self.wait_for("entries are known");
        memory_row("300,000 addresses held", rfw.memory("VmRSS"), 20);
        self.client().request("GET", "/list", "");
        memory_row("peak, a list of 300,000 entries", rfw.memory("VmHWM"), 30);
    }
}

struct Rfw {
    child: Child,
}

impl Rfw {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of /proc/PID/status, in MB.
    fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Rfw {
    fn drop(&mut self) {
        run("kill", &[&self.child.id().to_string()]);
        self.child.wait().unwrap();
    }
}

fn send_list(client: &mut Client, list: &str) {
    client.request("PUT", "/drop/input/any?expire=1h", list);
}

/// The moment of which an answer says that it is the end.
fn expiry(client: &Client) -> std::time::SystemTime {
    let body: serde_json::Value = serde_json::from_slice(&client.body).unwrap();
    let date = output("date", &["-d", body["expires"].as_str().unwrap(), "+%s"]);
    std::time::UNIX_EPOCH + Duration::from_secs(date.trim().parse().unwrap())
}

fn address(n: usize) -> String {
    format!("{}.{}.{}.{}", 11 + (n >> 16), n >> 8 & 255, n & 255, 7)
}

fn list(length: usize) -> String {
    (0..length).map(|n| address(n) + "\n").collect()
}

/// Empties tables and sets.
fn clean() {
    for tool in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
        run(tool, &["-w", "-F"]);
    }
    // The registry keeps its members from being destroyed.
    let _ = Command::new("ipset").args(["destroy", "rfw"]).stderr(Stdio::null()).status();
    while !Command::new("ipset").arg("destroy").stderr(Stdio::null()).status().unwrap().success() {
        thread::sleep(Duration::from_millis(5));
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn row(what: &str, ours: Duration, bare: Duration, reach: f64) {
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    let mark = if ratio <= reach { "" } else { "  missed" };
    println!("{what:<52} {:>8.3} ms {:>8.3} ms {ratio:>7.2} {reach:>7.2}{mark}", millis(ours), millis(bare));
}

fn memory_row(what: &str, megabytes: f64, reach: u32) {
    let mark = if megabytes <= f64::from(reach) { "" } else { "  missed" };
    println!("{:<52} {megabytes:>8.1} MB {:>11} {:>7} {reach:>7}{mark}", format!("memory: {what}"), "", "");
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).status().expect(program);
    assert!(done.success(), "{program} {arguments:?}");
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect(program);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}
