//! rfw on a host: its configuration, its process, and requests to it.

use super::{Host, Reply, SOON, Said, run, until};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

impl Host {
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
        Rfw { host: self, child: None, environment: Vec::new() }
    }
}

/// rfw on a host: prepared, and then perhaps running.
pub struct Rfw<'a> {
    pub host: &'a Host,
    child: Option<Child>,
    environment: Vec<(&'static str, String)>,
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

    /// Starts it with a variable in its environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
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
        if let Err(status) = self.launch(&[], arguments) {
            panic!("rfw has ended, {status}\n{}", self.log());
        }
    }

    /// Starts it again, or gives the exit status with which it has refused to.
    #[track_caller]
    pub fn try_spawn(&mut self) -> Result<(), ExitStatus> {
        self.launch(&[], &["--loglevel", "DEBUG"])
    }

    /// The same through a program that becomes rfw, which is given behind these words.
    #[track_caller]
    pub fn try_spawn_through(&mut self, through: &[&str]) -> Result<(), ExitStatus> {
        self.launch(through, &["--loglevel", "DEBUG"])
    }

    #[track_caller]
    fn launch(&mut self, through: &[&str], arguments: &[&str]) -> Result<(), ExitStatus> {
        let _ = fs::remove_file(self.host.dir.join("rfw.log"));
        let words = [through, &[env!("CARGO_BIN_EXE_rfw")]].concat();
        let mut child = self
            .host
            .command(words[0])
            .args(&words[1..])
            .args(["-f", "rfw.conf", "--logfile", "rfw.log"])
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.host.dir.join("rfw.out")).unwrap())
            .stderr(fs::File::create(self.host.dir.join("rfw.err")).unwrap())
            .process_group(0)
            .spawn()
            .expect("rfw");
        let mut ended = None;
        until(SOON, "rfw is ready", || {
            ended = child.try_wait().unwrap();
            ended.is_some() || self.log().contains("is ready") || self.terminal().contains("is ready")
        });
        self.child = Some(child).filter(|_| ended.is_none());
        ended.map_or(Ok(()), Err)
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

    /// Has it read its configuration again, which is a look at tables and sets too, and waits until it has.
    #[track_caller]
    pub fn reload(&self) {
        let reloads = || self.log().matches("the configuration has been read again").count();
        let before = reloads();
        self.signal("HUP");
        until(SOON, "the configuration is read again", || reloads() > before);
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

    /// Sends a request that has to succeed and gives its JSON, an object without the name of this host.
    #[track_caller]
    pub fn told(&self, method: &str, path: &str) -> serde_json::Value {
        let mut answer = self.ok(method, path);
        let host = answer.as_object_mut().and_then(|members| members.remove("host"));
        assert_eq!(host, Some(super::node_name().into()), "{method} {path}");
        answer
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

    /// Sends a list of addresses, among which those of private networks and of documentation count
    /// like others.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, list: &str) -> Reply {
        let is_put = ["PUT", "POST"].contains(&method);
        let is_of_list = path.split('?').next().unwrap_or_default().trim_matches('/').split('/').count() == 3;
        let special = match path.contains('?') {
            _ if !is_put || !is_of_list => "",
            true => "&special=true",
            false => "?special=true",
        };
        self.send_as_is(method, &format!("{path}{special}"), list)
    }

    /// Sends a list of addresses: PUT as `curl -T` does, others with `--data-binary`.
    #[track_caller]
    pub fn send_as_is(&self, method: &str, path: &str, list: &str) -> Reply {
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
