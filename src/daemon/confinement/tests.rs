//! What a confined thread tries, and is refused; what it needs, and still can.

use super::ruleset::Landlock;
use super::*;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::process::{Pid, chroot, test_kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::thread::{Uid, set_thread_uid};
use std::fs::{self, OpenOptions};
use std::io::IsTerminal;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

/// A folder with what is granted and what is not, and others on this host.
struct World {
    dir: PathBuf,
    tcp: TcpListener,
    socket: UnixListener,
    other: Child,
    terminal: OwnedFd,
}

impl World {
    fn new(name: &str) -> World {
        let dir = env::temp_dir().join(format!("rfw-confine-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for folder in ["read", "state", "outside"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for file in ["read/key", "outside/secret", "outside/victim"] {
            fs::write(dir.join(file), "secret").unwrap();
        }
        fs::copy("/bin/true", dir.join("outside/program")).unwrap();
        fs::copy("/bin/true", dir.join("state/program")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UnixListener::bind_addr(&abstract_name(&dir)).unwrap();
        let other =
            Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&terminal).unwrap();
        World { dir, tcp, socket, other, terminal }
    }

    fn folders(&self) -> Folders {
        let mut folders = Folders::of_system();
        folders.add_file(&self.dir.join("read/key"));
        folders.add_written(&self.dir.join("state/state"));
        folders
    }

    /// Opens the terminal of somebody.
    fn terminal(&self, options: &mut OpenOptions) -> std::io::Result<fs::File> {
        let name = ptsname(&self.terminal, Vec::new())?;
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        options.custom_flags(flags).open(name.to_str().unwrap())
    }

    /// What works for a user who is not confined, each by its name and whether it does.
    fn attempts(&self) -> Vec<(&'static str, bool)> {
        let at = |name: &str| self.dir.join(name);
        let other = Pid::from_raw(i32::try_from(self.other.id()).unwrap()).unwrap();
        let append = |path: PathBuf| OpenOptions::new().append(true).open(path).is_ok();
        let starts = |name: &str| Command::new(at(name)).status().is_ok();
        let remade =
            || fs::remove_file(at("outside/victim")).and_then(|()| fs::write(at("outside/victim"), ""));
        vec![
            ("read a file", fs::read(at("outside/secret")).is_ok()),
            ("list a folder", fs::read_dir(at("outside")).is_ok()),
            ("write a file", append(at("outside/secret"))),
            ("write a file that may be read", append(at("read/key"))),
            ("make a file", fs::write(at("outside/new"), "").is_ok()),
            ("remove a file", remade().is_ok()),
            ("put a file elsewhere", fs::rename(at("outside/new"), at("state/new")).is_ok()),
            ("make a folder", fs::create_dir(at(&unique("state/folder"))).is_ok()),
            ("make a link", std::os::unix::fs::symlink("/", at(&unique("state/link"))).is_ok()),
            ("start a program", starts("outside/program")),
            ("start a program that it may write", starts("state/program")),
            ("read a terminal", self.terminal(OpenOptions::new().read(true)).is_ok()),
            ("connect", TcpStream::connect(self.tcp.local_addr().unwrap()).is_ok()),
            ("listen", TcpListener::bind("127.0.0.1:0").is_ok()),
            ("connect to an abstract socket", UnixStream::connect_addr(&abstract_name(&self.dir)).is_ok()),
            ("signal another process", test_kill_process(other).is_ok()),
            ("read another process", fs::read(format!("/proc/{}/environ", other.as_raw_nonzero())).is_ok()),
            ("read its memory", fs::File::open(format!("/proc/{}/mem", other.as_raw_nonzero())).is_ok()),
        ]
    }

    /// What root may do who is not confined, and nobody tries here before.
    fn attempts_of_root(&self) -> Vec<(&'static str, bool)> {
        let opens = |path: &str| OpenOptions::new().append(true).open(path).is_ok();
        let mode = Mode::from_raw_mode(0o600);
        let device =
            mknodat(CWD, self.dir.join("state/null"), FileType::CharacterDevice, mode, makedev(1, 3));
        vec![
            ("read /etc/shadow", fs::read("/etc/shadow").is_ok()),
            ("write to a file in /etc", opens("/etc/passwd")),
            ("list /root", fs::read_dir("/root").is_ok()),
            ("a setting of the kernel", opens("/proc/sys/kernel/core_pattern")),
            ("a device", device.is_ok()),
            ("another root", chroot("/").is_ok()),
            ("another user", set_thread_uid(Uid::from_raw(1)).is_ok()),
        ]
    }

    /// What rfw and its programs do.
    fn needs(&self) -> Vec<(&'static str, bool)> {
        let at = |name: &str| self.dir.join(name);
        let renewed = || {
            fs::write(at("state/new"), "new")?;
            fs::rename(at("state/new"), at("state/state"))?;
            fs::hard_link(at("state/state"), at("state/aside"))?;
            fs::remove_file(at("state/aside"))
        };
        vec![
            ("read a key", fs::read(at("read/key")).is_ok()),
            ("write the state", renewed().is_ok()),
            (
                "run a program",
                Command::new("true").stdin(Stdio::null()).status().is_ok_and(|status| status.success()),
            ),
            ("read of the kernel", fs::read_to_string("/proc/net/dev").is_ok()),
            (
                "write to a terminal",
                self.terminal(OpenOptions::new().write(true)).is_ok_and(|to| to.is_terminal()),
            ),
            ("write to nothing", OpenOptions::new().write(true).open("/dev/null").is_ok()),
        ]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.other.kill();
        let _ = self.other.wait();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = self.socket.set_nonblocking(true);
    }
}

fn abstract_name(dir: &Path) -> SocketAddr {
    SocketAddr::from_abstract_name(dir.display().to_string()).unwrap()
}

/// A name that was not there before.
fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}{}", COUNT.fetch_add(1, Ordering::SeqCst))
}

/// Those of which that is true.
fn which<'a>(attempts: &[(&'a str, bool)], came_true: bool) -> Vec<&'a str> {
    attempts.iter().filter(|(_, is)| *is == came_true).map(|(name, _)| *name).collect()
}

/// A line of this thread's status, as a number of 64 bits.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t"))).unwrap();
    u64::from_str_radix(line, 16).unwrap()
}

#[test]
fn a_confined_thread_can_do_what_it_needs_and_nothing_else() {
    let world = World::new("tries");
    assert_eq!(which(&world.attempts(), false), Vec::<&str>::new(), "before");
    let confined = thread::scope(|scope| {
        let work = || {
            let grant = confine_thread(&world.folders()).unwrap();
            (grant, world.attempts(), world.attempts_of_root(), world.needs())
        };
        scope.spawn(work).join().unwrap()
    });
    let (grant, attempts, attempts_of_root, needs) = confined;
    assert_eq!(grant, Grant { landlock: Landlock::available(), ..grant.clone() });
    if grant.landlock != Landlock::Full {
        eprintln!("{} here: what it refuses is not tried", grant.landlock);
        return;
    }
    assert_eq!(which(&attempts, true), Vec::<&str>::new());
    assert_eq!(which(&attempts_of_root, true), Vec::<&str>::new());
    assert_eq!(which(&needs, false), Vec::<&str>::new());
    // It was the thread alone.
    assert_eq!(which(&world.attempts(), false), Vec::<&str>::new(), "after");
}

#[test]
fn a_confined_thread_keeps_two_capabilities_and_gets_no_others() {
    let (grant, left) = thread::spawn(|| {
        let had_setpcap = status("CapEff") & CapabilitySet::SETPCAP.bits() != 0;
        let grant = confine_thread(&Folders::of_system()).unwrap();
        let left = ["CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs"].map(status);
        // Without CAP_SETPCAP the bounding set stays, and no_new_privs makes it void.
        let bound = if had_setpcap { status("CapBnd") } else { capabilities::USED.bits() };
        (grant, (left, bound))
    })
    .join()
    .unwrap();
    let (used, both) = (grant.capabilities.bits(), capabilities::USED.bits());
    assert_eq!(left, ([used, used, 0, 0, 1], both));
    assert_eq!(used & !both, 0);
}

#[test]
fn a_file_that_is_renewed_can_be_read() {
    let world = World::new("renewed");
    let (key, new) = (world.dir.join("read/key"), world.dir.join("read/new"));
    let (confined, is_confined) = std::sync::mpsc::channel();
    let (renewed, is_renewed) = std::sync::mpsc::channel();
    let folders = world.folders();
    let path = key.clone();
    let reader = thread::spawn(move || {
        confine_thread(&folders).unwrap();
        confined.send(()).unwrap();
        let _: () = is_renewed.recv().unwrap();
        fs::read_to_string(path).ok()
    });
    is_confined.recv().unwrap();
    fs::write(&new, "another").unwrap();
    fs::rename(&new, &key).unwrap();
    renewed.send(()).unwrap();
    assert_eq!(reader.join().unwrap().as_deref(), Some("another"));
}

#[test]
fn what_is_granted_is_told_in_words() {
    let grant = |capabilities, landlock| Grant { capabilities, no_new_privs: true, landlock };
    let golden = [
        (
            grant(capabilities::USED, Landlock::Full),
            "capabilities CAP_NET_ADMIN and CAP_NET_RAW, no new privileges, all of Landlock",
        ),
        (
            grant(CapabilitySet::NET_ADMIN, Landlock::Partial(landlock::ABI::V3)),
            "capabilities CAP_NET_ADMIN, no new privileges, version 3 of Landlock, not all of it",
        ),
        (
            grant(CapabilitySet::empty(), Landlock::Absent),
            "capabilities none, no new privileges, no Landlock",
        ),
    ];
    for (grant, words) in golden {
        assert_eq!(grant.to_string(), words);
    }
}
