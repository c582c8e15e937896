//! The package of `make deb`, as the real dpkg installs, upgrades, removes and purges it on a host
//! whose `/usr` and `/etc` lie over those of the machine. systemd is played by a script.

use crate::host::{Host, Rfw, Said, until};
use crate::install::{Folder, TREE, make, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const RFW: &str = env!("CARGO_BIN_EXE_rfw");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const IPTABLES: &str = "iptables-nft";

/// How long a start of rfw with sets may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// Starts, stops and asks for the service as systemd would, and notes what it was called with.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/calls
pid=$(cat /run/pid 2>/dev/null) || pid=0
# That of a process that has ended, and that nobody has waited for, can't be read.
runs() { readlink "/proc/$pid/exe" >/dev/null; }
case " $* " in
    *' --quiet is-enabled '*) [ -e /run/enabled ]; exit ;;
    *' is-enabled '*) [ -e /run/enabled ] && echo enabled; exit ;;
    *' is-active '*) runs; exit ;;
    *' stop '*rfw.service* | *' restart '*rfw.service*) [ "$pid" = 0 ] || kill "$pid"; while runs; do sleep 0.05; done ;;
esac
case " $* " in
    *' start '*rfw.service* | *' restart '*rfw.service*)
        mkdir -p -m 700 /var/lib/rfw
        /usr/sbin/rfw --logfile /var/log/rfw.log </dev/null >/run/said 2>&1 &
        echo $! >/run/pid ;;
esac
true
"#;

/// Lays `/usr` and `/etc` of the host over those of the machine, with folders of the package that are
/// there already, which a plain user could not copy up. dpkg knows of one package that is needed.
const SETUP: &str = r#"
mkdir -p /run/up/usr/bin /run/up/usr/sbin /run/up/etc /run/work/usr /run/work/etc /run/systemd/system
dpkg-deb --fsys-tarfile "$1" | tar -tf - | sed -n 's|^\./\(.*\)/$|\1|p' | while read -r folder; do
    [ ! -d "/$folder" ] || mkdir -p "/run/up/$(cd "/$folder" && pwd -P)"
done
mv systemctl /run/up/usr/bin/systemctl
printf '#!/bin/sh\nexit 0\n' >/run/up/usr/sbin/policy-rc.d
chmod 755 /run/up/usr/sbin/policy-rc.d
for top in usr etc; do
    mount -t overlay overlay -o "lowerdir=/$top,upperdir=/run/up/$top,workdir=/run/work/$top" "/$top"
done
mount -t tmpfs tmpfs /var/log
mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers
printf 'Package: iptables\nStatus: install ok installed\nVersion: 1.8.9-2\nArchitecture: %s\nMaintainer: m\nDescription: d\n' \
    "$(dpkg --print-architecture)" >/var/lib/dpkg/status
"#;

/// A host with dpkg and what goes for systemd there.
struct Machine<'a> {
    host: &'a Host,
    /// Only for requests, and with the keys that go with them.
    rfw: Rfw<'a>,
}

impl Machine<'_> {
    /// A host like that, for a package.
    fn new<'a>(host: &'a Host, package: &str) -> Machine<'a> {
        let rfw = host.rfw(IPTABLES);
        host.write("systemctl", 0o755, SYSTEMCTL);
        host.run("sh", &["-ec", SETUP, "sh", package]).ok();
        Machine { host, rfw }
    }

    fn shell(&self, script: &str) -> Said {
        self.host.run("sh", &["-ec", script])
    }

    /// What dpkg and the scripts of the package say, on standard output and on standard error.
    #[track_caller]
    fn dpkg(&self, arguments: &str) -> String {
        let said = self.shell(&format!("exec dpkg --force-confdef --force-confold {arguments} 2>&1"));
        let log = self.shell("cat /run/calls /run/said /var/log/rfw.log 2>/dev/null || true").out;
        assert_eq!(said.status, Some(0), "{said:#?}\n{log}");
        said.out
    }

    /// What systemctl has been called with since the last time, but for questions.
    fn calls(&self) -> String {
        let calls = self.shell("cat /run/calls 2>/dev/null || true; : >/run/calls").out;
        let calls = calls.lines().filter(|line| !line.contains(" is-") && !line.contains("daemon-reload"));
        calls.map(|line| line.replace("--quiet ", "").replace("--system ", "") + "\n").collect()
    }

    fn pid(&self) -> String {
        self.shell("cat /run/pid").ok()
    }

    /// Waits until rfw answers.
    #[track_caller]
    fn serves(&self) {
        let curl = "curl -fs --cacert ca.crt -u me:secret https://127.0.0.1:7393/lists";
        until(START, "rfw answers", || self.shell(curl).status == Some(0));
    }

    fn is_there(&self, path: &str) -> bool {
        self.host.run("test", &["-e", path]).status == Some(0)
    }

    fn read(&self, path: &str) -> String {
        self.host.run("cat", &[path]).ok()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.shell("kill -9 \"$(cat /run/pid)\" || true");
    }
}

/// Two packages of the program that is tested: that of `make deb`, and one of before.
fn packages(folder: &Folder) -> [String; 2] {
    run(Command::new("strip").args([RFW, "-o", &folder.path("rfw")]), true);
    let new = package(folder, "new");
    let [unpacked, old] = ["unpacked", "rfw-old.deb"].map(|name| folder.path(name));
    run(Command::new("dpkg-deb").args(["-R", &new, &unpacked]), true);
    for (name, from, to) in [
        ("DEBIAN/control", format!("Version: {VERSION}-1"), "Version: 0.0.1-1"),
        ("etc/rfw/rfw.conf", "[config]".to_owned(), "# of before\n[config]"),
    ] {
        let name = format!("unpacked/{name}");
        let text = folder.read(&name);
        assert!(text.contains(&from), "{text}");
        fs::write(folder.path(&name), text.replacen(&from, to, 1)).unwrap();
    }
    run(Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "-b", &unpacked, &old]), true);
    [old, new]
}

/// The package that `make deb` makes in a folder of that name.
fn package(folder: &Folder, name: &str) -> String {
    let [binary, dir] = [format!("BINARY={}", folder.path("rfw")), format!("DEB_DIR={}", folder.path(name))];
    run(&mut make(TREE, &["deb", &binary, &dir]), true);
    let files = fs::read_dir(folder.path(name)).unwrap().map(|file| file.unwrap().path());
    let packages: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    let [package] = &packages[..] else { panic!("{packages:?}") };
    package.to_str().unwrap().to_owned()
}

#[test]
fn a_package_is_reproducible_and_belongs_to_root() {
    let folder = Folder::new();
    run(Command::new("strip").args([RFW, "-o", &folder.path("rfw")]), true);
    let first = package(&folder, "first");
    fs::set_permissions(folder.path("rfw"), fs::Permissions::from_mode(0o700)).unwrap();
    let second = package(&folder, "second");
    assert!(fs::read(&first).unwrap() == fs::read(second).unwrap(), "not the same a second time");
    run(
        Command::new("sha256sum").args(["-c", &format!("{first}.sha256")]).current_dir(folder.path("first")),
        true,
    );
    let list = run(Command::new("dpkg-deb").args(["-c", &first]), true);
    assert!(list.lines().all(|line| line.contains(" root/root ")), "{list}");
    for line in [
        "-rwxr-xr-x usr/sbin/rfw",
        "-rwxr-xr-x usr/bin/rfwctl",
        "-rw------- etc/rfw/rfw.conf",
        "drwx------ etc/rfw/ssl/",
    ] {
        let (mode, name) = line.split_once(' ').unwrap();
        let has = |line: &str| line.starts_with(mode) && line.ends_with(&format!(" ./{name}"));
        assert!(list.lines().any(has), "{line} is not in {list}");
    }
}

/// What is blocked stays through upgrades, and goes when nobody is left to end it; what an admin has
/// written stays until it is purged, and keys longer.
#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    let (folder, host) = (Folder::elsewhere(), Host::new());
    let [old, new] = packages(&folder);
    let machine = Machine::new(&host, &new);
    installed_and_configured(&machine, &old);

    machine.shell("touch /run/enabled; systemctl start rfw.service").ok();
    machine.serves();
    machine.rfw.ok("PUT", "/drop/input/any/192.0.2.1?expire=1h");
    let list: String = (0..150).map(|n| format!("9.9.9.{n}\n")).collect();
    machine.rfw.send_ok("PUT", "/drop/input/any?list=tor&expire=1h", &list);
    let blocked = (host.kept(IPTABLES), host.sets());
    assert!(blocked.0.len() == 151 && !blocked.1.is_empty());
    machine.calls();
    upgraded(&machine, &new);
    assert!((host.kept(IPTABLES), host.sets()) == blocked, "{}", host.run("ipset", &["save"]).out);
    upgraded_to_what_it_refuses(&machine, &old);
    assert!((host.kept(IPTABLES), host.sets()) == blocked, "{}", host.run("ipset", &["save"]).out);

    let said = machine.dpkg("-r rfw");
    assert!(said.contains("rfw: what was blocked is not any more: "), "{said}");
    assert_eq!(machine.calls(), "stop rfw.service rfw-restore.service\n");
    assert_eq!(host.everything(IPTABLES), (vec![], vec![], vec![]));
    assert!(!machine.is_there("/usr/sbin/rfw") && !machine.is_there("/var/lib/rfw/state"));

    // It is enabled still, so it comes back.
    machine.dpkg(&format!("-i {new}"));
    assert_eq!(machine.calls(), "restart rfw.service\n");
    machine.serves();
    machine.dpkg("-P rfw");
    for gone in ["/etc/rfw/rfw.conf", "/etc/logrotate.d/rfw", "/var/lib/rfw", "/var/log/rfw.log"] {
        assert!(!machine.is_there(gone), "{gone}");
    }
    assert!(machine.is_there("/etc/rfw/ssl/server.key"));
    assert_eq!(host.guards(IPTABLES), Vec::<String>::new());
}

/// Nothing starts by itself; with keys, a name and a password it could.
fn installed_and_configured(machine: &Machine, package: &str) {
    let said = machine.dpkg(&format!("-i {package}"));
    assert!(said.contains("rfw is not started: it needs keys"), "{said}");
    assert_eq!((machine.calls(), machine.shell("dpkg -V rfw").ok()), (String::new(), String::new()));
    let unit = machine.read("/lib/systemd/system/rfw.service");
    assert!(unit.contains("\nExecStart=/usr/sbin/rfw -f /etc/rfw/rfw.conf --logfile -\n"), "{unit}");
    assert!(machine.is_there("/etc/fail2ban/action.d/rfw.conf"));
    machine.shell("gzip -dc /usr/share/man/man8/rfw.8.gz | grep -q '^.Nm rfw'").ok();

    // It can go again at once, with nothing that it had to flush.
    machine.dpkg("-r rfw");
    machine.dpkg("-P rfw");
    machine.dpkg(&format!("-i {package}"));
    let conf = "s/^auth.username =/& me/; s/^auth.password =/& secret/";
    let script = format!(
        "cp server.crt server.key /etc/rfw/ssl; sed -i '{conf}' /etc/rfw/rfw.conf
         echo 'iptables.path = {IPTABLES}' >>/etc/rfw/rfw.conf
         echo 127.0.0.1 >>/etc/rfw/white.list; rfw --check"
    );
    machine.shell(&script).ok();
    machine.calls();
}

/// The new program runs, with the configuration of before, and the shipped one lies beside it.
fn upgraded(machine: &Machine, package: &str) {
    let conf = machine.read("/etc/rfw/rfw.conf");
    let pid = machine.pid();
    let said = machine.dpkg(&format!("-i {package}"));
    assert_eq!(machine.calls(), "restart rfw.service\n", "{said}");
    assert_ne!(machine.pid(), pid);
    machine.serves();
    assert_eq!(machine.read("/etc/rfw/rfw.conf"), conf);
    assert!(conf.contains("# of before\n") && conf.contains("auth.password = secret\n"), "{conf}");
    assert!(!machine.read("/etc/rfw/rfw.conf.dpkg-dist").contains("# of before"));
    let version = machine.shell("dpkg-query -W -f '${Status} ${Version}' rfw").ok();
    assert_eq!(version, format!("install ok installed {VERSION}-1"));
}

/// The program of before goes on.
fn upgraded_to_what_it_refuses(machine: &Machine, package: &str) {
    machine.shell("cp -p /etc/rfw/rfw.conf /run/kept; echo 'no.such.option' >>/etc/rfw/rfw.conf").ok();
    let pid = machine.pid();
    let said = machine.dpkg(&format!("-i {package}"));
    for part in ["no.such.option", "rfw: this version does not take the configuration"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!((machine.calls(), machine.pid()), (String::new(), pid));
    machine.serves();
    machine.shell("cat /run/kept >/etc/rfw/rfw.conf").ok();
}
