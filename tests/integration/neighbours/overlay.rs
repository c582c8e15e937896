//! Lays a program that `make neighbours` has fetched over a host.

use crate::host::{Host, SOON, of_ipv6, until};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where the programs are, each in a folder that holds its `usr` and `etc`.
const PROGRAMS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../neighbours");

/// Lays a program over a host, where a plain `iptables` is then of that variant too, and logs are the
/// host's own.
#[track_caller]
pub fn lay_over(host: &Host, iptables: &str, program: &str) {
    let folder = Path::new(PROGRAMS).join(program);
    assert!(folder.join("usr").is_dir(), "{} is missing: run make neighbours", folder.display());
    let folder = folder.canonicalize().unwrap();
    let etc = own_etc(host, iptables);
    copy(host, &folder.join("etc"), &etc);
    mount(host, &format!("-t overlay overlay -o lowerdir={}/usr:/usr /usr", folder.display()));
    mount_etc(host, &etc);
}

/// The same without a program: only the variant of `iptables` is chosen.
#[track_caller]
pub fn choose_variant(host: &Host, iptables: &str) {
    let etc = own_etc(host, iptables);
    mount_etc(host, &etc);
}

/// The upper layer of `/etc`. It holds whole files and nothing that hides one below, which a plain user
/// could not copy up.
#[track_caller]
fn own_etc(host: &Host, iptables: &str) -> PathBuf {
    mount(host, "-t tmpfs tmpfs /var/log");
    let etc = PathBuf::from("/run/neighbour/etc");
    let links: String = [iptables.to_owned(), of_ipv6(iptables)]
        .iter()
        .flat_map(|command| ["", "-save", "-restore"].map(|part| (command, part)))
        .map(|(command, part)| {
            let plain = command.split('-').next().unwrap();
            format!("ln -s /usr/sbin/{command}{part} alternatives/{plain}{part}\n")
        })
        .collect();
    let script = format!("mkdir -p {0}/alternatives /run/neighbour/work\ncd {0}\n{links}", etc.display());
    host.run("sh", &["-ec", &script]).ok();
    etc
}

#[track_caller]
fn copy(host: &Host, from: &Path, to: &Path) {
    if from.is_dir() {
        host.run("cp", &["-R", &format!("{}/.", from.display()), to.to_str().unwrap()]).ok();
    }
}

#[track_caller]
fn mount_etc(host: &Host, etc: &Path) {
    let layers = format!("lowerdir=/etc,upperdir={},workdir=/run/neighbour/work", etc.display());
    mount(host, &format!("-t overlay overlay -o {layers} /etc"));
}

#[track_caller]
fn mount(host: &Host, words: &str) {
    host.run("mount", &words.split(' ').collect::<Vec<_>>()).ok();
}

/// A program that runs on a host until it is dropped.
pub struct Daemon(Child);

impl Daemon {
    /// Starts it; what it says is in `NAME.out` of the host's folder.
    #[track_caller]
    pub fn start(host: &Host, name: &str, program: &str, arguments: &[&str]) -> Daemon {
        let said = fs::File::create(host.dir.join(format!("{name}.out"))).unwrap();
        let mut command: Command = host.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        Daemon(command.process_group(0).spawn().expect(program))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Stops it as its service does.
    #[track_caller]
    pub fn stop(mut self) {
        crate::host::run("kill", &["-s", "TERM", &self.0.id().to_string()]).ok();
        until(SOON, "it has ended", || !self.runs());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
