//! Machines that README and tutorial speak of: namespaces in the one of a host, wired to one switch, each
//! with its own /etc, /root, /run, /usr/local and /var/log. What would need another network or an init
//! stands in for: scp, systemctl and its journal, apt-get, `make dist`, and the site of the published list.

use super::RFW;
use crate::host::{Host, Said};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TREE: &str = env!("CARGO_MANIFEST_DIR");

/// What a machine does before it can be used; `$1` is the folder that all share.
const SETUP: &str = r#"
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/etc
cp -a /etc/. /mnt/etc 2>/dev/null || true
rm -rf /mnt/etc/rfw /mnt/etc/resolv.conf
echo nameserver 9.9.9.9 >/mnt/etc/resolv.conf
mount --bind /mnt/etc /etc
for folder in /root /run /usr/local /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir /usr/local/sbin /var/lib/fail2ban
echo ready
exec sleep 600
"#;

/// Copies files between machines, as scp does: by `root@ADDRESS:PATH`, the last being a folder.
const SCP: &str = r#"#!/bin/sh -e
at() {
    if [ -z "$1" ]; then shift; "$@"; return; fi
    pid=$(cat "$STAGE/$1.pid")
    shift
    nsenter -t "$pid" -m -- "$@"
}
split() {
    case $1 in
        root@*:*) host=${1#root@} path=${1#*:} host=${host%%:*} ;;
        *) host='' path=$1 ;;
    esac
}
for last; do :; done
split "$last"
to=$host folder=${path:-/root}
while [ $# -gt 1 ]; do
    split "$1"
    at "$host" tar -C "$(dirname "$path")" -cf - "$(basename "$path")" |
        at "$to" tar -C "$folder" --no-same-owner -xf -
    shift
done
"#;

/// Starts what the unit says, and waits until it is ready.
const SYSTEMCTL: &str = r#"#!/bin/sh -e
pid=$STAGE/$MACHINE.rfw
stop() {
    if [ -e "$pid" ]; then
        kill "$(cat "$pid")"
        while kill -0 "$(cat "$pid")" 2>/dev/null; do sleep 0.1; done
        rm "$pid"
    fi
}
case $* in
    'enable --now rfw' | 'restart rfw')
        stop
        : >/var/log/journal
        command=$(sed -n 's/^ExecStart=//p' /usr/local/lib/systemd/system/rfw.service)
        JOURNAL_STREAM=$(stat -c %d:%i /var/log/journal) $command </dev/null >/dev/null 2>/var/log/journal &
        echo $! >"$pid"
        for try in $(seq 100); do
            ! grep -q 'is ready' /var/log/journal || exit 0
            sleep 0.1
        done
        exit 1 ;;
    'reload rfw')
        read_again() { grep -c 'has been read again' /var/log/journal || true; }
        before=$(read_again)
        kill -HUP "$(cat "$pid")"
        for try in $(seq 100); do
            [ "$(read_again)" = "$before" ] || exit 0
            sleep 0.1
        done
        exit 1 ;;
    'stop rfw') stop ;;
    'is-active rfw') kill -0 "$(cat "$pid")" && echo active ;;
    *) exit 1 ;;
esac
"#;

/// Shows the last line of the service, which has a priority before it.
const JOURNALCTL: &str = r#"#!/bin/sh -e
[ "$*" = '-t rfw -n 1 -o cat' ]
tail -n 1 /var/log/journal | sed 's/^<6>//'
"#;

/// Knows the packages that a server needs.
const APT_GET: &str = r#"#!/bin/sh
[ "$1" = install ] || exit 1
shift
for package; do
    case $package in make | iptables | openssl | openssh-client) ;; *) exit 1 ;; esac
done
"#;

/// `make dist` gives the archive that was made for the test; a release takes minutes. A key is made, and
/// used, where there is no terminal to ask for its passphrase.
const MAKE: &str = r#"#!/bin/sh -e
PATH=${PATH#*:}
folder=$PWD/target
case $1 in dist | sign | release-key) ;; *) exec make "$@" ;; esac
for target; do
    case $target in
        dist) mkdir -p "$folder/dist" && cp "$STAGE"/archive/* "$folder/dist/" ;;
        *) setsid -w make --no-print-directory -C "$STAGE/tree" "$target" TARGET_DIR="$folder" ;;
    esac
done
"#;

/// Types the password where curl would ask for it at a terminal, where it shows no meter, and is the
/// site of the published list.
const CURL: &str = r#"#!/bin/bash -e
PATH=${PATH#*:}
arguments=()
if [ "$*" = '-q -fsSL -K -' ]; then
    config=$(cat)
    case $config in *'"https://iplists.firehol.org/'*) cp "$STAGE/firehol" "$(sed -n 's/^output = "\(.*\)"/\1/p' <<<"$config")"; exit ;; esac
    exec curl "$@" <<<"$config"
fi
for argument; do
    case $argument in
        me) argument=me:$(nsenter -t "$(cat "$STAGE/11.11.11.11.pid")" -m sed -n 's/^auth.password = //p' /etc/rfw/rfw.conf) ;;
    esac
    arguments+=("$argument")
done
case " $* " in *' -u me '*) arguments+=(--no-progress-meter) ;; esac
exec curl "${arguments[@]}"
"#;

/// Makes in the folder `$1` an archive of the name `$2` with the program `$3`, as `make dist` does; and
/// beside it, in `tree`, what signs it.
const ARCHIVE: &str = r#"
set -e
mkdir -p "$1/../tree/etc"
cp Makefile Cargo.toml "$1/../tree/"
cp etc/sign.sh "$1/../tree/etc/"
mkdir -p "$1/$2"
cp -R Makefile LICENSE README.md etc "$1/$2/"
cp "$3" "$1/$2/rfw"
cd "$1"
tar --owner=0 --group=0 --numeric-owner -czf "$2.tar.gz" "$2"
sha256sum "$2.tar.gz" >"$2.tar.gz.sha256"
rm -r "$2"
"#;

pub struct Machine {
    name: &'static str,
    pid: u32,
}

pub struct Stage<'a> {
    host: &'a Host,
    machines: Vec<Machine>,
    holders: Vec<Child>,
}

impl Stage<'_> {
    /// Machines by name and address, each of which reaches the others.
    pub fn new<'a>(host: &'a Host, machines: &[(&'static str, &str)]) -> Stage<'a> {
        fs::create_dir_all(host.dir.join("bin")).unwrap();
        for (name, script) in [
            ("scp", SCP),
            ("systemctl", SYSTEMCTL),
            ("journalctl", JOURNALCTL),
            ("apt-get", APT_GET),
            ("make", MAKE),
            ("curl", CURL),
        ] {
            host.write(&format!("bin/{name}"), 0o755, script);
        }
        make_archive(&host.dir.join("archive"));
        let mut stage = Stage { host, machines: Vec::new(), holders: Vec::new() };
        stage.write_shared("firehol", &published_list());
        ip(host, "link add internet type bridge forward_delay 0");
        ip(host, "link set internet up");
        machines.iter().for_each(|(name, address)| stage.add(name, address));
        stage
    }

    fn add(&mut self, name: &'static str, address: &str) {
        ip(self.host, &format!("netns add {name}"));
        ip(self.host, &format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(self.host, &format!("link set {name} master internet up"));
        ip(self.host, &format!("-n {name} link set lo up"));
        ip(self.host, &format!("-n {name} addr add {address}/32 dev eth0"));
        ip(self.host, &format!("-n {name} link set eth0 up"));
        ip(self.host, &format!("-n {name} route add default dev eth0"));
        // Each of these becomes the next, so that the number of the process stays the same.
        let mut holder = self.host.command("ip");
        holder.args(["netns", "exec", name, "unshare", "-m", "sh", "-c", SETUP]);
        let mut holder = holder.stdout(Stdio::piped()).spawn().expect("ip");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name} can't be made");
        self.write_shared(&format!("{address}.pid"), &holder.id().to_string());
        self.write_shared(&format!("{name}.cwd"), "/root");
        self.machines.push(Machine { name, pid: holder.id() });
        self.holders.push(holder);
    }

    #[track_caller]
    pub fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("no machine {name:?}"))
    }

    /// Runs a command of bash, in the folder in which the last one has ended.
    pub fn run(&self, machine: &Machine, command: &str) -> Said {
        let cwd = format!("{}/{}.cwd", self.host.dir.display(), machine.name);
        let script = format!("cd \"$(cat {cwd})\"\n{command}\nstatus=$?; pwd >{cwd}; exit $status");
        let path = format!(
            "PATH={}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.host.dir.display()
        );
        let stage = format!("STAGE={}", self.host.dir.display());
        let (name, pid) = (format!("MACHINE={}", machine.name), machine.pid.to_string());
        let inside =
            ["-t", &pid, "-n", "-m", "--", "env", "-i", &path, &stage, &name, "HOME=/root", "LC_ALL=C"];
        self.host.run("nsenter", &[&inside[..], &["bash", "-c", &script]].concat())
    }

    /// Puts lines into a file: instead of those that set the same option, else at the end.
    pub fn write(&self, machine: &Machine, path: &str, text: &str) {
        let path = path.replace('~', "/root");
        let old = self.run(machine, &format!("cat {path} 2>/dev/null || true")).ok();
        let option = |line: &str| line.split_once(" =").map(|(name, _)| name.to_owned());
        let new: Vec<String> = text.lines().filter_map(option).collect();
        let kept = old.lines().filter(|line| option(line).is_none_or(|name| !new.contains(&name)));
        let kept: String = kept.map(|line| line.to_owned() + "\n").collect();
        self.write_shared("file", &(kept + text));
        self.run(machine, &format!("cat {}/file >{path}", self.host.dir.display())).ok();
    }

    /// Writes a file of the folder that all machines share.
    pub fn write_shared(&self, name: &str, text: &str) {
        self.host.write(name, 0o644, text);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for machine in &self.machines {
            if let Ok(pid) = fs::read_to_string(self.host.dir.join(format!("{}.rfw", machine.name))) {
                let _ = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
            }
        }
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn ip(host: &Host, line: &str) {
    host.run("ip", &line.split(' ').collect::<Vec<_>>()).ok();
}

fn make_archive(folder: &Path) {
    let name = format!("rfw-{}-linux-x86_64", env!("CARGO_PKG_VERSION"));
    let folder = folder.to_str().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", ARCHIVE, "sh", folder, &name, RFW]).current_dir(TREE);
    assert!(command.status().unwrap().success(), "the archive");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A list like firehol_level1: networks that nobody on the internet has, and others.
fn published_list() -> String {
    let special = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
         192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 240.0.0.0/4";
    let others = (0..4576).map(|n| format!("45.{}.{}.0/24\n", n / 256, n % 256));
    "# firehol_level1\n".to_owned() + &special.replace(' ', "\n") + "\n" + &others.collect::<String>()
}
