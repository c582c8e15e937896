//! A host of its own for a test: a network and mount namespace with the real
//! iptables, ip6tables and ipset of this machine, a folder, keys, and rfw on it.
//!
//! Nothing is ever run outside: every command enters the namespace first, and a
//! host whose network namespace is the machine's own is refused when it is made.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The two implementations of iptables, as `iptables.path` names them.
pub const VARIANTS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// How long anything may take to come true.
pub const SOON: Duration = Duration::from_secs(10);

/// A namespace and a folder; both go with it.
pub struct Host {
    holder: Child,
    as_user: bool,
    pub dir: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Only for who reads of a failure.
    #[allow(dead_code)]
    pub line: String,
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(line: String, output: &Output) -> Said {
        Said {
            line,
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its output, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self.out
    }

    /// What it complained of, if it ended with that status.
    #[track_caller]
    pub fn fails_with(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self.err
    }
}

impl Host {
    /// Makes a host whose loopback interface is up.
    #[track_caller]
    pub fn new() -> Host {
        for tool in
            ["unshare", "nsenter", "ip", "iptables-nft", "iptables-legacy", "ipset", "curl", "openssl"]
        {
            assert!(is_installed(tool), "{tool} is missing: run make deps");
        }
        let as_user = run("id", &["-u"]).out.trim() != "0";
        let unshare = if as_user { "-rnm" } else { "-nm" };
        let setup = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args([unshare, "sh", "-c", setup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux)");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line, "ready\n",
            "unshare {unshare} does not work here: namespaces are needed for this test"
        );
        let host = Host { holder, as_user, dir: new_folder() };
        let inside = host.run("readlink", &["/proc/self/ns/net"]).ok();
        let outside = run("readlink", &["/proc/self/ns/net"]).ok();
        assert_ne!(inside, outside, "this is the machine's own network namespace");
        host
    }

    /// A command that will run on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "-m"]);
        if self.as_user {
            command.args(["-U", "--preserve-credentials"]);
        }
        // Entering a mount namespace changes the folder to its root.
        command.arg(format!("--wd={}", self.dir.display())).arg("--").arg(program);
        command
    }

    /// Runs a command on this host to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Said {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output().expect(program);
        Said::of(format!("{program} {}", arguments.join(" ")), &output)
    }

    /// Runs a command, fed with `input`.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect(program);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join();
        Said::of(format!("{program} {}", arguments.join(" ")), &output)
    }

    /// Opens a TCP connection to a port of 127.0.0.1 and keeps it open.
    #[track_caller]
    pub fn connect(&self, port: u16) -> Talk {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} || exit; echo open; cat <&3 & exec cat >&3");
        let mut talk = self.talk("bash", &["-c", &script]);
        until(SOON, "the connection is open", || talk.heard().starts_with("open\n") || talk.is_over());
        talk.forget("open\n".len());
        talk
    }

    /// Starts a program that carries bytes both ways until it is dropped.
    #[track_caller]
    pub fn talk(&self, program: &str, arguments: &[&str]) -> Talk {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect(program);
        let heard = Arc::new(Mutex::new((Vec::new(), false)));
        let (mut stdout, ear) = (child.stdout.take().unwrap(), Arc::clone(&heard));
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                ear.lock().unwrap().0.extend_from_slice(&part[..length]);
            }
            ear.lock().unwrap().1 = true;
        });
        Talk { mouth: child.stdin.take(), child, heard }
    }

    /// The rules of a chain as `iptables -S CHAIN` prints them, without those that
    /// guard rfw's port and without the policy.
    #[track_caller]
    pub fn rules(&self, iptables: &str, chain: &str) -> Vec<String> {
        let all = self.run(iptables, &["-w", "-S", chain]).ok();
        let rules = all.lines().filter(|line| line.starts_with("-A") && !line.contains("rfw guard"));
        rules.map(str::to_owned).collect()
    }

    /// Those that guard rfw's port, all chains.
    #[track_caller]
    pub fn guards(&self, iptables: &str) -> Vec<String> {
        let all = self.run(iptables, &["-w", "-S"]).ok();
        all.lines().filter(|line| line.contains("rfw guard")).map(str::to_owned).collect()
    }

    /// All rules of the filter tables as `-S` prints them, first IPv4, then IPv6.
    #[track_caller]
    pub fn tables(&self, iptables: &str) -> [Vec<String>; 2] {
        [iptables.to_owned(), of_ipv6(iptables)].map(|command| {
            let all = self.run(&command, &["-w", "-S"]).ok();
            all.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
        })
    }

    /// What rfw keeps, each address as the line of `-S` that it is, or that the entry
    /// of a set stands for, without its comment; first IPv4, then IPv6.
    #[track_caller]
    pub fn kept(&self, iptables: &str) -> Vec<String> {
        let entries = self.entries();
        let mut kept = Vec::new();
        for line in self.tables(iptables).concat() {
            let Some((place, rest)) = line.split_once(" -m comment --comment \"rfw ") else { continue };
            let (comment, target) = rest.split_once("\" -j ").unwrap();
            let Some((place, matched)) = place.split_once(" -m set --match-set ") else {
                if comment != "guard" {
                    kept.push(format!("{place} -j {target}"));
                }
                continue;
            };
            assert_eq!(comment, "set", "{line}");
            let (name, direction) = matched.split_once(' ').unwrap();
            let chain_end = place[3..].find(' ').map_or(place.len(), |at| at + 3);
            let (chain, interfaces) = place.split_at(chain_end);
            for entry in entries.iter().filter(|entry| entry.set == name) {
                let networks: String = direction
                    .split(',')
                    .zip(entry.element.split(','))
                    .map(|(side, network)| format!(" -{} {}", &side[..1], with_mask(network)))
                    .collect();
                kept.push(format!("{chain}{networks}{interfaces} -j {target}"));
            }
        }
        kept
    }

    /// The entries of all sets, as `ipset save` prints them.
    #[track_caller]
    pub fn entries(&self) -> Vec<Entry> {
        let saved = self.run("ipset", &["save"]).ok();
        saved.lines().filter_map(|line| line.strip_prefix("add ")).map(Entry::parse).collect()
    }

    /// The names of all sets, in order.
    #[track_caller]
    pub fn sets(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.run("ipset", &["list", "-n"]).ok().lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// All that rules and sets say, but for what passes by itself: counters and time.
    #[track_caller]
    pub fn everything(&self, iptables: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
        let elements = self.entries().into_iter().map(|entry| format!("{} {}", entry.set, entry.element));
        let mut elements: Vec<String> = elements.collect();
        elements.sort();
        (self.tables(iptables).concat(), self.sets(), elements)
    }

    /// Runs an iptables command with the words of a line, in the shell's quotes.
    #[track_caller]
    pub fn admin(&self, iptables: &str, line: &str) {
        self.run("sh", &["-c", &format!("{iptables} -w {line}")]).ok();
    }

    /// Wires a neighbour to this host: a namespace of that name behind the interface
    /// `wire0`. Both ends have networks, such as `10.0.0.1/24`; commands run there
    /// by `ip netns exec NAME`.
    #[track_caller]
    pub fn neighbour(&self, name: &str, ours: &[&str], theirs: &[&str]) {
        let ip = |line: &str| self.run("ip", &line.split(' ').collect::<Vec<_>>()).ok();
        ip(&format!("netns add {name}"));
        ip(&format!("link add wire0 type veth peer name eth0 netns {name}"));
        ours.iter().for_each(|address| drop(ip(&format!("addr add {address} dev wire0{}", nodad(address)))));
        for address in theirs {
            ip(&format!("-n {name} addr add {address} dev eth0{}", nodad(address)));
        }
        ip("link set wire0 up");
        ip(&format!("-n {name} link set eth0 up"));
    }

    /// Writes a file below the host's folder.
    pub fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Prepares rfw with keys, a white list of 127.0.0.1 and ::1 and both servers on;
    /// `iptables` is its `iptables.path`.
    pub fn rfw(&self, iptables: &str) -> Rfw<'_> {
        copy_keys(&self.dir);
        self.write("white.list", 0o644, "127.0.0.1\n::1\n");
        let conf = format!(
            "[config]\noutward.server\noutward.server.ip = ::\noutward.server.certfile = {0}/server.crt\n\
             outward.server.keyfile = {0}/server.key\nlocal.server\nauth.username = me\nauth.password = secret\n\
             default.expire = 1h\nwhitelist.file = {0}/white.list\niptables.path = {iptables}\n",
            self.dir.display()
        );
        self.write("rfw.conf", 0o600, &conf);
        Rfw { host: self, child: None }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An entry of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub set: String,
    pub element: String,
    /// In seconds; 0 is for ever.
    pub timeout: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Entry {
    /// Reads what follows `add` in a line of `ipset save`.
    #[track_caller]
    fn parse(line: &str) -> Entry {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            at.map_or(0, |at| words[at + 1].parse().unwrap())
        };
        let (timeout, packets, bytes) = (number("timeout"), number("packets"), number("bytes"));
        Entry { set: words[0].to_owned(), element: words[1].to_owned(), timeout, packets, bytes }
    }
}

/// A network as iptables prints it: with its mask, a host too.
fn with_mask(network: &str) -> String {
    match network {
        _ if network.contains('/') => network.to_owned(),
        _ if network.contains(':') => format!("{network}/128"),
        _ => format!("{network}/32"),
    }
}

/// rfw on a host: prepared, and then perhaps running.
pub struct Rfw<'a> {
    pub host: &'a Host,
    child: Option<Child>,
}

impl Rfw<'_> {
    /// Adds lines to rfw.conf.
    pub fn configure(self, lines: &str) -> Self {
        let conf = fs::read_to_string(self.host.dir.join("rfw.conf")).unwrap();
        self.host.write("rfw.conf", 0o600, &format!("{conf}{lines}\n"));
        self
    }

    /// Replaces text in rfw.conf.
    #[track_caller]
    pub fn reconfigure(self, from: &str, to: &str) -> Self {
        let conf = fs::read_to_string(self.host.dir.join("rfw.conf")).unwrap();
        assert!(conf.contains(from), "{from:?} is not in {conf}");
        self.host.write("rfw.conf", 0o600, &conf.replace(from, to));
        self
    }

    /// Replaces the white list.
    pub fn white_list(self, text: &str) -> Self {
        self.host.write("white.list", 0o644, text);
        self
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(mut self) -> Self {
        self.spawn();
        self
    }

    /// Starts it again with the same configuration.
    #[track_caller]
    pub fn spawn(&mut self) {
        self.spawn_with(&["--loglevel", "DEBUG"]);
    }

    /// Starts it with these arguments behind those that name its files. It leads a
    /// process group, as a shell's job does.
    #[track_caller]
    pub fn spawn_with(&mut self, arguments: &[&str]) {
        let _ = fs::remove_file(self.host.dir.join("rfw.log"));
        let child = self
            .host
            .command(env!("CARGO_BIN_EXE_rfw"))
            .args(["-f", "rfw.conf", "--logfile", "rfw.log"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.host.dir.join("rfw.out")).unwrap())
            .stderr(fs::File::create(self.host.dir.join("rfw.err")).unwrap())
            .process_group(0)
            .spawn()
            .expect("rfw");
        self.child = Some(child);
        until(SOON, "rfw is ready", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("rfw has ended, {status}\n{}", self.log());
            }
            self.log().contains("is ready") || self.terminal().contains("is ready")
        });
    }

    /// Calls it with `arguments` behind the configuration file, to its end.
    pub fn call(&self, arguments: &[&str]) -> Said {
        let arguments = [&["-f", "rfw.conf", "--logfile", "rfw.log"], arguments].concat();
        self.host.run(env!("CARGO_BIN_EXE_rfw"), &arguments)
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        // nsenter without a fork becomes the program itself.
        self.child.as_ref().expect("rfw runs").id()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        run("kill", &["-s", name, &self.pid().to_string()]).ok();
    }

    /// Waits until it has ended and gives its exit status, -1 for a signal.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let mut child = self.child.take().expect("rfw runs");
        let mut status = None;
        until(SOON, "rfw has ended", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }

    /// Stops it as an administrator does.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.end(), 0, "{}", self.log());
    }

    /// What it has logged since its start, and what it said on standard error.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.host.dir.join(name)).unwrap_or_default();
        read("rfw.log") + &read("rfw.err")
    }

    /// What it has printed to its standard output since its start.
    pub fn terminal(&self) -> String {
        fs::read_to_string(self.host.dir.join("rfw.out")).unwrap_or_default()
    }

    /// Sends a request with curl, by HTTPS and with credentials.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> Reply {
        self.curl(&["-X", method, "-u", "me:secret", &format!("https://127.0.0.1:7393{path}")])
    }

    /// Runs curl with the CA file.
    #[track_caller]
    pub fn curl(&self, arguments: &[&str]) -> Reply {
        let common = ["-sS", "--max-time", "20", "--path-as-is", "-i", "--cacert", "ca.crt"];
        let method = arguments.windows(2).find(|pair| pair[0] == "-X" && pair[1] == "HEAD");
        let head = if method.is_some() { vec!["-I"] } else { vec![] };
        let said = self.host.run("curl", &[&common[..], &head, arguments].concat());
        let log = self.log();
        assert_eq!(said.status, Some(0), "{said:#?}\n{log}");
        Reply::parse(&said.out)
    }

    /// Sends a request that has to succeed and gives its JSON.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str) -> serde_json::Value {
        let reply = self.request(method, path);
        assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}\n{}", self.log());
        reply.json()
    }

    /// Sends a request that has to be refused with that status and gives the error.
    #[track_caller]
    pub fn refused(&self, method: &str, path: &str, status: u16) -> String {
        let reply = self.request(method, path);
        assert_eq!(reply.status, status, "{method} {path}: {reply:#?}\n{}", self.log());
        reply.json()["error"].as_str().expect("an error").to_owned()
    }

    /// Sends a list of addresses: PUT as `curl -T` does, others with `--data-binary`.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, list: &str) -> Reply {
        self.host.write("list", 0o644, list);
        let how = if method == "PUT" { ["-T", "list"] } else { ["--data-binary", "@list"] };
        let url = format!("https://127.0.0.1:7393{path}");
        self.curl(&[&["-X", method, "-u", "me:secret"], &how[..], &[&url]].concat())
    }

    /// Sends a list that has to be taken and gives the answer.
    #[track_caller]
    pub fn send_ok(&self, method: &str, path: &str, list: &str) -> serde_json::Value {
        let reply = self.send(method, path, list);
        assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}\n{}", self.log());
        reply.json()
    }

    /// The processes that rfw has started and that run: number and command line.
    pub fn children(&self) -> Vec<(u32, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let lists = tasks.flatten().flat_map(|task| fs::read_to_string(task.path().join("children")));
        let pids: Vec<u32> = lists
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
            .collect();
        let line = |pid: &u32| {
            let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
        };
        pids.iter().map(|pid| (*pid, line(pid))).filter(|(_, line)| !line.is_empty()).collect()
    }

    /// Sends raw bytes to the local HTTP server and gives what comes until it closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let script = "exec 3<>/dev/tcp/127.0.0.1/7390; cat <&0 >&3 & cat <&3; kill $! 2>/dev/null; true";
        self.host.feed("timeout", &["20", "bash", "-c", script], bytes).out
    }
}

impl Drop for Rfw<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A connection that stays open, through a program that carries the bytes.
pub struct Talk {
    child: Child,
    mouth: Option<ChildStdin>,
    heard: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Talk {
    /// Sends bytes; whether anybody listens shows in what comes back.
    pub fn say(&mut self, bytes: &[u8]) {
        let mouth = self.mouth.as_mut().unwrap();
        let _ = mouth.write_all(bytes).and_then(|()| mouth.flush());
    }

    /// What has come and not been taken.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap().0).into_owned()
    }

    /// Whether the other side has closed.
    pub fn is_over(&self) -> bool {
        self.heard.lock().unwrap().1
    }

    /// Takes the next response.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.take(|heard, over| {
            let (head, rest) = heard.split_once("\r\n\r\n")?;
            let mut reply = Reply::parse(heard);
            let chunked = reply.header("Transfer-Encoding") == Some("chunked");
            let (body, framed) = match reply.header("Content-Length") {
                Some(length) => (rest.get(..length.parse().unwrap())?.to_owned(), length.parse().unwrap()),
                None if chunked => decode_chunks(rest)?,
                None if over => (rest.to_owned(), rest.len()),
                None => return None,
            };
            reply.body = body;
            Some((reply, head.len() + 4 + framed))
        })
    }

    /// Takes the next response as that to HEAD, which has no body.
    #[track_caller]
    pub fn reply_to_head(&mut self) -> Reply {
        self.take(|heard, _| {
            let end = heard.find("\r\n\r\n")? + 4;
            Some((Reply::parse(&heard[..end]), end))
        })
    }

    /// Waits until a response can be read from what has come, and takes its bytes.
    #[track_caller]
    fn take(&mut self, read: impl Fn(&str, bool) -> Option<(Reply, usize)>) -> Reply {
        let mut taken = None;
        until(SOON, "there is a response", || {
            let (over, heard) = (self.is_over(), self.heard());
            taken = read(&heard, over);
            assert!(taken.is_some() || !over, "closed without a response: {heard:?}");
            taken.is_some()
        });
        let (reply, length) = taken.unwrap();
        self.forget(length);
        reply
    }

    /// Takes all that has come.
    pub fn forget_all(&mut self) {
        self.heard.lock().unwrap().0.clear();
    }

    fn forget(&mut self, length: usize) {
        let mut heard = self.heard.lock().unwrap();
        assert!(heard.0.len() >= length, "not open: {:?}", heard.0);
        heard.0.drain(..length);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.mouth.take());
        run("kill", &["-s", "KILL", "--", &format!("-{}", self.child.id())]);
        let _ = self.child.wait();
    }
}

/// A body in chunks and the length of their bytes, if all have come.
fn decode_chunks(text: &str) -> Option<(String, usize)> {
    let (mut body, mut rest) = (String::new(), text);
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        body += after.get(..size)?;
        rest = after.get(size..)?.strip_prefix("\r\n")?;
        if size == 0 {
            return Some((body, text.len() - rest.len()));
        }
    }
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Reads what `curl -i` prints, or a raw response.
    #[track_caller]
    pub fn parse(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        if head.starts_with("HTTP/1.1 100") {
            return Reply::parse(body);
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {text:?}"));
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Waits until something has come true.
#[track_caller]
pub fn until(limit: Duration, what: &str, mut came: impl FnMut() -> bool) {
    let start = Instant::now();
    while !came() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a test with each variant of iptables, both at the same time.
pub fn in_both_variants(test: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        let threads = VARIANTS.map(|iptables| (iptables, scope.spawn(|| test(iptables))));
        for (iptables, thread) in threads {
            assert!(thread.join().is_ok(), "with {iptables}");
        }
    });
}

/// Runs a test with each variant of iptables, with addresses kept in rules and in
/// sets, all at the same time; the second is what rfw.conf has for it.
pub fn in_all_ways(test: impl Fn(&str, &str) + Sync) {
    in_both_variants(|iptables| {
        thread::scope(|scope| {
            let threads = ["", "ipset"].map(|option| (option, scope.spawn(|| test(iptables, option))));
            for (option, thread) in threads {
                assert!(thread.join().is_ok(), "with \"{option}\"");
            }
        });
    });
}

/// The IPv6 command that goes with an iptables command.
pub fn of_ipv6(iptables: &str) -> String {
    iptables.replace("iptables", "ip6tables")
}

/// The word that lets an IPv6 address be used at once.
fn nodad(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// Runs a command of this machine that changes nothing on it.
pub fn run(program: &str, arguments: &[&str]) -> Said {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect(program);
    Said::of(format!("{program} {}", arguments.join(" ")), &output)
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(tool).is_file())
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let name = format!("host-{}-{count}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Copies keys that rfwgen makes once for each run of a test program.
fn copy_keys(dir: &Path) {
    static KEYS: OnceLock<PathBuf> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{}", std::process::id()));
        let _ = fs::remove_dir_all(&made);
        fs::create_dir_all(&made).unwrap();
        let rfwgen = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");
        let output =
            Command::new(rfwgen).args(["127.0.0.1", "::1"]).stdin(Stdio::null()).current_dir(&made).output();
        Said::of(rfwgen.to_owned(), &output.expect(rfwgen)).ok();
        made
    });
    for file in ["server_127.0.0.1/server.crt", "server_127.0.0.1/server.key", "client/ca.crt"] {
        let name = Path::new(file).file_name().unwrap();
        fs::copy(keys.join(file), dir.join(name)).unwrap();
    }
}
