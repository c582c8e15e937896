//! A host of its own for a test: a network and mount namespace with the real
//! iptables, ip6tables and ipset of this machine, a folder, keys, and rfw on it.
//!
//! Nothing is ever run outside: every command enters the namespace first, and a
//! host whose network namespace is the machine's own is refused when it is made.

pub mod fake;
mod kernel;
mod rfw;
mod talk;

pub use kernel::Entry;
pub use rfw::Rfw;
pub use talk::{Reply, Talk};

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The two implementations of iptables, as `iptables.path` names them.
pub const VARIANTS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// The folder of the state file, where rfw.conf does not say otherwise.
pub const STATE_FOLDER: &str = "/var/lib/rfw";

/// What sed(1) takes the lines of rfw out of saved rules with, as README, manual and documents say.
pub const WITHOUT_RFW: &str = r#"/--comment ("rfw |rfw -j RFW$)/d"#;

/// How long anything may take to come true.
pub const SOON: Duration = Duration::from_secs(10);

/// The shortest and the longest pause between two looks at what is waited for.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A namespace and a folder; both go with it, but for a folder that was another host's before.
pub struct Host {
    holder: Child,
    has_own_users: bool,
    pub dir: PathBuf,
    owns_dir: bool,
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
    /// Makes a host whose loopback interface is up; for a plain user it is one
    /// [in a container](Host::in_container).
    #[track_caller]
    pub fn new() -> Host {
        Host::make(is_plain_user())
    }

    /// Makes a host that is root only in a user namespace of its own, as in a container
    /// without privileges.
    #[track_caller]
    pub fn in_container() -> Host {
        Host::make(true)
    }

    /// Makes a host on which the kernel tells that number of the boot.
    #[track_caller]
    pub fn booted(boot: &str) -> Host {
        Host::make_in(is_plain_user(), new_folder(), true, Some(boot))
    }

    /// This host after a reboot, as far as it is one: another namespace with the same folder, and perhaps
    /// another number of the boot.
    #[track_caller]
    pub fn again(&self, boot: Option<&str>) -> Host {
        Host::make_in(self.has_own_users, self.dir.clone(), false, boot)
    }

    #[track_caller]
    fn make(has_own_users: bool) -> Host {
        Host::make_in(has_own_users, new_folder(), true, None)
    }

    #[track_caller]
    fn make_in(has_own_users: bool, dir: PathBuf, owns_dir: bool, boot: Option<&str>) -> Host {
        for tool in
            ["unshare", "nsenter", "ip", "iptables-nft", "iptables-legacy", "ipset", "curl", "openssl"]
        {
            assert!(is_installed(tool), "{tool} is missing: run make deps");
        }
        // Files in /proc/net belong to whoever is root of the user namespace when the
        // network namespace is made: so somebody has to be by then.
        let unshare = if has_own_users { "-r unshare -nm" } else { "-nm" };
        // What rfw keeps across a reboot is in /var/lib. There are no name servers, whatever the machine has.
        let mount = boot.map_or(String::new(), |boot| {
            let file = dir.join("boot_id");
            fs::write(&file, format!("{boot}\n")).unwrap();
            format!("mount --bind {} /proc/sys/kernel/random/boot_id && ", file.display())
        });
        let setup = format!(
            "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && : >/run/resolv.conf && \
             {{ [ ! -e /etc/resolv.conf ] || mount --bind /run/resolv.conf /etc/resolv.conf; }} && \
             {mount}ip link set lo up && echo ready && exec cat"
        );
        let mut holder = Command::new("unshare")
            .args(unshare.split(' '))
            .args(["sh", "-c", &setup])
            .env("PATH", path())
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
        let host = Host { holder, has_own_users, dir, owns_dir };
        let inside = host.run("readlink", &["/proc/self/ns/net"]).ok();
        let outside = run("readlink", &["/proc/self/ns/net"]).ok();
        assert_ne!(inside, outside, "this is the machine's own network namespace");
        host
    }

    /// A command that will run on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "-m"]);
        if self.has_own_users {
            command.args(["-U", "--preserve-credentials"]);
        }
        // Entering a mount namespace changes the folder to its root.
        command.arg(format!("--wdns={}", self.dir.display())).arg("--").arg(program);
        command.env("PATH", path());
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

    /// Makes a folder in which programs that rfw runs may write, since it is below the folder of the
    /// state file; gives its path on this host. From outside it is `written` in the host's folder.
    #[track_caller]
    pub fn left_to_programs(&self, state_folder: &str) -> String {
        let (outside, inside) = (self.dir.join("written"), format!("{state_folder}/written"));
        fs::create_dir_all(&outside).unwrap();
        self.run("mkdir", &["-p", "-m", "700", &inside]).ok();
        self.run("mount", &["--bind", &outside.display().to_string(), &inside]).ok();
        inside
    }

    /// Writes a file below the host's folder.
    pub fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if self.owns_dir {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The name that the kernel has for this machine, which answers name.
pub fn node_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_owned()
}

/// Waits until something has come true. To look often takes the processor from other tests: the
/// pause is a tenth of what has been waited.
#[track_caller]
pub fn until(limit: Duration, what: &str, mut came: impl FnMut() -> bool) {
    let start = Instant::now();
    while !came() {
        let waited = start.elapsed();
        assert!(waited < limit, "not within {limit:?}: {what}");
        thread::sleep((waited / 10).clamp(PAUSE_MIN, PAUSE_MAX));
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
    let mut command = Command::new(program);
    let output = command.args(arguments).env("PATH", path()).stdin(Stdio::null()).output().expect(program);
    Said::of(format!("{program} {}", arguments.join(" ")), &output)
}

fn is_installed(tool: &str) -> bool {
    std::env::split_paths(&path()).any(|folder| folder.join(tool).is_file())
}

/// The folders of programs, with those of the system's tools, which a plain user's `PATH`
/// lacks.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

fn is_plain_user() -> bool {
    run("id", &["-u"]).out.trim() != "0"
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let name = format!("host-{}-{count}", std::process::id());
    // Not below a clone, whose folders may be writable by their group: rfw would refuse.
    let dir = std::env::temp_dir().join(format!("rfw-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
