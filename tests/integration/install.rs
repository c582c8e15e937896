//! From a tree or a tarball to an installed rfw, and back: `make install`,
//! `make uninstall`, the systemd unit, `make dist`.

use crate::golden::cases;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const TREE: &str = env!("CARGO_MANIFEST_DIR");
const RFW: &str = env!("CARGO_BIN_EXE_rfw");

/// The files of it that uninstalling leaves.
const LEFT: [&str; 2] = ["etc/rfw/rfw.conf", "etc/rfw/white.list"];

/// The worst score that the unit may have with `systemd-analyze security`.
const EXPOSURE: f64 = 2.5;

/// A folder that goes with the test, unless the test fails.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// One that is not in this tree.
    pub fn elsewhere() -> Folder {
        Folder::below(&std::env::temp_dir())
    }

    fn below(folder: &Path) -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("rfw-install-{}-{count}", std::process::id());
        let dir = folder.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Folder(dir)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn write(&self, name: &str, mode: u32, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn list(&self) -> String {
        list(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// All that a first installation makes, by mode and place.
fn installed() -> String {
    cases("installed.txt").into_iter().map(|(_, [line])| line + "\n").collect()
}

/// The same from an archive, which lists the crates.
fn installed_with_crates() -> String {
    let mut lines: Vec<String> = installed().lines().map(|line| line.to_owned() + "\n").collect();
    lines.push("644 usr/local/share/doc/rfw/crates.txt\n".to_owned());
    lines.sort_by(|a, b| a[4..].cmp(&b[4..]));
    lines.concat()
}

/// Everything below a folder, in the same form.
fn list(folder: &Path) -> String {
    let mut lines = Vec::new();
    add_below(folder, folder, &mut lines);
    lines.sort_by(|a, b| a[4..].cmp(&b[4..]));
    lines.concat()
}

fn add_below(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        lines.push(format!("{mode:03o} {}\n", path.strip_prefix(root).unwrap().display()));
        if meta.is_dir() {
            add_below(root, &path, lines);
        }
    }
}

/// What a command printed, on standard output and on standard error, if it ended well
/// or not as expected.
#[track_caller]
pub fn run(command: &mut Command, succeeds: bool) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), succeeds, "{command:?}: {}\n{text}", output.status);
    text.into_owned()
}

/// make in a folder, in an empty environment.
pub fn make(folder: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.args(["-C", folder, "--no-print-directory"]).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// make in this tree, with the program that is being tested.
fn make_here(target: &str, arguments: &[&str]) -> Command {
    make(TREE, &[&[target, &format!("BINARY={RFW}")], arguments].concat())
}

#[track_caller]
fn install(dir: &Folder) -> String {
    run(&mut make_here("install", &[&format!("DESTDIR={}", dir.path(""))]), true)
}

#[track_caller]
fn uninstall(dir: &Folder) -> String {
    run(&mut make_here("uninstall", &[&format!("DESTDIR={}", dir.path(""))]), true)
}

#[test]
fn everything_is_installed_with_its_mode() {
    let dir = Folder::new();
    let script = "umask 077; exec make -C \"$1\" install BINARY=\"$2\" DESTDIR=\"$3\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", TREE, RFW, &dir.path("")]);
    let said = run(command.env_clear().env("PATH", "/usr/bin:/bin"), true);
    assert_eq!(dir.list(), installed());

    let unit = dir.read("usr/local/lib/systemd/system/rfw.service");
    assert!(unit.contains("\nExecStart=/usr/local/sbin/rfw -f /etc/rfw/rfw.conf --logfile -\n"), "{unit}");
    assert!(unit.contains("\nLimitCORE=0\n"), "{unit}");
    assert!(!unit.contains("@sbindir@") && !unit.contains("@sysconfdir@"), "{unit}");
    for (place, file) in [
        ("etc/rfw/rfw.conf", "etc/rfw.conf"),
        ("etc/rfw/white.list", "etc/white.list"),
        ("etc/rfw/deploy/rfwgen", "etc/deploy/rfwgen"),
        ("usr/local/bin/rfwctl", "etc/rfwctl/rfwctl"),
        ("usr/local/share/man/man8/rfw.8", "etc/man/rfw.8"),
    ] {
        let file = fs::read_to_string(Path::new(TREE).join(file)).unwrap();
        assert_eq!(dir.read(place), file, "{place}");
    }
    for line in [
        "     ./rfwgen ADDRESS\n",
        "     ${EDITOR:-vi} /etc/rfw/rfw.conf /etc/rfw/white.list\n",
        "     /usr/local/sbin/rfw --check\n",
        "     systemctl enable --now rfw\n",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
}

/// Links of a document lead to where the others are installed, or to nothing of this machine.
#[test]
fn the_documents_are_installed_with_links_that_lead_somewhere() {
    let dir = Folder::new();
    install(&dir);
    let folder = "usr/local/share/doc/rfw";
    let pages = fs::read_dir(dir.0.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let pages: Vec<String> = pages.map(|name| name.into_string().unwrap()).collect();
    for page in pages.iter().filter(|name| name.ends_with(".md")) {
        let text = dir.read(&format!("{folder}/{page}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let target = match file.strip_prefix('/') {
                Some(path) => dir.0.join(path),
                None => dir.0.join(folder).join(file),
            };
            assert!(target.exists(), "{page}: {link}");
        }
    }
    assert!(dir.read(&format!("{folder}/README.md")).contains("](tutorial.md)"));
}

#[test]
fn a_second_installation_changes_nothing() {
    let dir = Folder::new();
    install(&dir);
    install(&dir);
    assert_eq!(dir.list(), installed());
}

#[test]
fn a_configuration_is_never_overwritten() {
    let dir = Folder::new();
    install(&dir);
    let [conf, list] = LEFT.map(|name| dir.read(name));
    dir.write("etc/rfw/rfw.conf", 0o400, "mine");
    dir.write("etc/logrotate.d/rfw", 0o644, "mine too");
    fs::rename(dir.path("etc/rfw/white.list"), dir.path("etc/rfw/elsewhere")).unwrap();
    symlink("nowhere", dir.path("etc/rfw/white.list")).unwrap();

    // What came with this rfw came with the last one too: there is nothing new to look at.
    let said = install(&dir);
    assert!(said.contains(&format!("kept       {}\n", dir.path("etc/rfw/rfw.conf"))), "{said}");
    assert!(!dir.list().contains("new"), "{}", dir.list());

    // Other files came with the last one, and then what is new stays, if nobody has looked at it.
    for name in ["rfw.conf", "white.list", "logrotate"] {
        dir.write(&format!("usr/local/share/doc/rfw/examples/{name}"), 0o644, "of before");
    }
    for is_new in [true, false] {
        let said = install(&dir);
        for (old, new) in [
            ("rfw/rfw.conf", "rfw/rfw.conf.new"),
            ("rfw/white.list", "rfw/white.list.new"),
            ("logrotate.d/rfw", "rfw/logrotate.new"),
        ] {
            let [old, new] = [old, new].map(|name| dir.path(&format!("etc/{name}")));
            let line = format!("kept       {old}: see what is new in {new}\n");
            assert_eq!(said.contains(&line), is_new, "{line:?} in {said}");
        }
        assert_eq!(dir.read("etc/rfw/rfw.conf"), "mine");
        assert_eq!(dir.read("etc/logrotate.d/rfw"), "mine too");
        assert_eq!(fs::read_link(dir.path("etc/rfw/white.list")).unwrap(), Path::new("nowhere"));
        assert_eq!(dir.read("etc/rfw/rfw.conf.new"), conf);
        assert_eq!(dir.read("etc/rfw/white.list.new"), list);
        let files = dir.list();
        for line in ["400 etc/rfw/rfw.conf\n", "600 etc/rfw/rfw.conf.new\n", "644 etc/rfw/logrotate.new\n"] {
            assert!(files.contains(line), "{line:?} is not in {files}");
        }
    }

    // Those who took the new ones over need no copies.
    for (old, new) in [("rfw/rfw.conf", "rfw/rfw.conf.new"), ("logrotate.d/rfw", "rfw/logrotate.new")] {
        fs::rename(dir.path(&format!("etc/{new}")), dir.path(&format!("etc/{old}"))).unwrap();
    }
    fs::copy(dir.path("etc/rfw/white.list.new"), dir.path("etc/rfw/nowhere")).unwrap();
    install(&dir);
    assert!(!dir.list().contains("new"), "{}", dir.list());
}

#[test]
fn uninstalling_keeps_configuration_and_keys() {
    let dir = Folder::new();
    install(&dir);
    for name in ["rfw.conf.new", "white.list.new", "logrotate.new"] {
        dir.write(&format!("etc/rfw/{name}"), 0o644, "of an upgrade");
    }
    dir.write("etc/rfw/ssl/server.key", 0o600, "key");
    dir.write("etc/rfw/deploy/offline/ca.key", 0o600, "key");
    let said = uninstall(&dir);
    let kept = [&LEFT[..], &["etc/rfw/deploy/offline/ca.key", "etc/rfw/ssl/server.key"]].concat();
    let files: Vec<String> = dir
        .list()
        .lines()
        .map(|line| line[4..].to_owned())
        .filter(|name| dir.0.join(name).is_file())
        .collect();
    let mut expected = kept;
    expected.sort_unstable();
    assert_eq!(files, expected);
    for line in [format!("     {RFW} --flush\n"), "     rm -r /etc/rfw\n".to_owned()] {
        assert!(said.contains(&line), "{line:?} is not in {said}");
    }
    uninstall(&dir);

    install(&dir);
    assert!(!dir.list().contains(".new"), "{}", dir.list());
}

/// The rules have to be removed while there is something to do that.
#[test]
fn what_runs_is_not_uninstalled() {
    let dir = Folder::new();
    let paths = [format!("PREFIX={}", dir.path("usr")), format!("SYSCONFDIR={}", dir.path("etc"))];
    let paths = [paths[0].as_str(), paths[1].as_str()];
    run(&mut make_here("install", &paths), true);
    let search = format!("{}:/usr/bin:/bin", dir.path("bin"));

    dir.write("bin/systemctl", 0o755, "#!/bin/sh\n[ \"$*\" = '--quiet is-enabled rfw' ]\n");
    let said = run(make_here("uninstall", &paths).env("PATH", &search), false);
    let flush = format!("  {} -f {} --flush\n", dir.path("usr/sbin/rfw"), dir.path("etc/rfw/rfw.conf"));
    assert!(said.contains(&format!("  systemctl disable --now rfw\n{flush}")), "{said}");
    assert!(dir.0.join("usr/sbin/rfw").exists());

    dir.write("bin/systemctl", 0o755, "#!/bin/sh\nexit 3\n");
    run(make_here("uninstall", &paths).env("PATH", &search), true);
    assert!(!dir.0.join("usr/sbin/rfw").exists());
}

#[test]
fn paths_that_would_not_work_are_refused() {
    for (argument, line) in [
        ("PREFIX=usr", "not an absolute path: 'usr/sbin'"),
        ("SYSCONFDIR=/etc|", "only A-Z a-z 0-9 / . _ + - may be in '/etc|'"),
        ("sbindir=/my programs", "only A-Z a-z 0-9 / . _ + - may be in '/my programs'"),
        ("BINARY=/no/rfw", "there is no program '/no/rfw'"),
    ] {
        let dir = Folder::new();
        let destdir = format!("DESTDIR={}", dir.path(""));
        let said = run(&mut make(TREE, &["install", &format!("BINARY={RFW}"), &destdir, argument]), false);
        assert!(said.contains(line), "{line:?} is not in {said}");
        assert_eq!(dir.list(), "");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = Folder::new();
    let paths = [format!("PREFIX={}", dir.path("usr")), format!("SYSCONFDIR={}", dir.path("etc"))];
    let said = run(&mut make_here("install", &[&paths[0], &paths[1]]), true);
    let conf = dir.path("etc/rfw/rfw.conf");
    assert!(said.contains(&format!("     {} -f {conf} --check\n", dir.path("usr/sbin/rfw"))), "{said}");
    assert!(!dir.read("etc/rfw/rfw.conf").replace(&dir.path("etc/rfw"), "").contains("/etc/rfw"));

    for name in ["rfw.service", "rfw-restore.service"] {
        let unit = dir.path(&format!("usr/lib/systemd/system/{name}"));
        let said = run(Command::new("systemd-analyze").args(["verify", "--man=no", &unit]), true);
        assert_eq!(said, "");
        let arguments = ["security", "--offline=true", "--no-pager", &unit];
        let said = run(Command::new("systemd-analyze").args(arguments), true);
        let (_, score) = said.split_once(&format!("Overall exposure level for {name}: ")).expect("a score");
        let score: f64 = score.split(' ').next().unwrap().parse().unwrap();
        assert!(score <= EXPOSURE, "{said}");
    }
}

/// A release without optimization, which is made in half the time.
fn make_dist(tree: &str, target_dir: &str) -> Command {
    let mut command = Command::new("make");
    command.args(["-C", tree, "dist"]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_str().unwrap_or_default();
        if name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("MAKE") || name == "MFLAGS" {
            command.env_remove(name);
        }
    }
    command
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}

/// What git says of this tree; nothing of one that is no clone.
fn git_status() -> String {
    match Path::new(TREE).join(".git").exists() {
        true => run(Command::new("git").args(["-C", TREE, "status", "--porcelain"]), true),
        false => String::new(),
    }
}

#[test]
fn the_tarballs_are_reproducible_build_offline_and_install() {
    let dir = Folder::new();
    let status = git_status();
    run(&mut make_dist(TREE, &dir.path("first")), true);
    assert_eq!(git_status(), status, "make dist has left files in the tree");

    let source = concat!("rfw-", env!("CARGO_PKG_VERSION"));
    let binary = format!("{source}-linux-{}", std::env::consts::ARCH);
    let names =
        [&binary, source].map(|name| [format!("{name}.tar.gz"), format!("{name}.tar.gz.sha256")]).concat();
    let made: Vec<String> =
        list(&dir.0.join("first/dist")).lines().map(|line| line[4..].to_owned()).collect();
    assert_eq!(made, names);
    for name in [&names[1], &names[3]] {
        run(Command::new("sha256sum").args(["-c", name]).current_dir(dir.0.join("first/dist")), true);
    }
    for name in [&names[0], &names[2]] {
        let archive = dir.path(&format!("first/dist/{name}"));
        let list = run(Command::new("tar").args(["--numeric-owner", "-tvf", &archive]), true);
        assert!(list.lines().all(|line| line.contains(" 0/0 ")), "{list}");
        run(Command::new("tar").args(["-C", &dir.path(""), "-xf", &archive]), true);
    }

    let crates = run(Command::new(format!("{TREE}/etc/crates.sh")).arg("list"), true);
    for folder in [&binary, source] {
        assert_eq!(dir.read(&format!("{folder}/crates.txt")), crates, "{folder}");
    }
    the_binary_tarball_installs(&dir, &binary);

    // A second time, elsewhere, from the tarball, with no crate but those in it.
    run(make_dist(&dir.path(source), &dir.path("second")).env("CARGO_HOME", dir.path("no")), true);
    for name in &names {
        let [first, second] =
            ["first", "second"].map(|run| fs::read(dir.path(&format!("{run}/dist/{name}"))).unwrap());
        assert!(first == second, "{name} is not the same a second time");
    }
}

/// With a cargo that must not be called, and a system that has nothing but rfw.
fn the_binary_tarball_installs(dir: &Folder, name: &str) {
    for tool in ["cargo", "rustc", "cc"] {
        let script = format!("#!/bin/sh\necho called > {}\nexit 1\n", dir.path("called"));
        dir.write(&format!("fake/{tool}"), 0o755, &script);
    }
    let root = Folder(dir.0.join("root"));
    let mut command = make(&dir.path(name), &["install", &format!("DESTDIR={}", root.path(""))]);
    run(command.env("PATH", format!("{}:/usr/bin:/bin", dir.path("fake"))), true);
    assert_eq!(root.list(), installed_with_crates());
    assert!(!dir.0.join("called").exists(), "make install has built something");

    let is_root = run(Command::new("id").arg("-u"), true).trim() == "0";
    let mut chroot = if is_root { Command::new("chroot") } else { Command::new("unshare") };
    if !is_root {
        chroot.args(["-r", "chroot"]);
    }
    let path = "/usr/bin:/bin:/usr/sbin:/sbin";
    let version = chroot.args([&root.path(""), "/usr/local/sbin/rfw", "--version"]).env("PATH", path);
    assert_eq!(run(version, true), concat!("rfw ", env!("CARGO_PKG_VERSION"), "\n"));

    let licences = Path::new(&dir.path(name)).join("licences");
    let list = fs::read_to_string(licences.join("README")).unwrap();
    assert!(list.contains("\nring v"), "{list}");
    for line in list.lines().filter(|line| line.contains(" v") && line.contains(": ")) {
        let (name, version) = line.split(':').next().unwrap().split_once(" v").unwrap();
        let texts = fs::read_dir(licences.join(format!("{name}-{version}"))).expect(line);
        assert!(texts.count() > 0, "{line}");
    }

    let said = run(&mut make(&dir.path(name), &["uninstall", &format!("DESTDIR={}", root.path(""))]), true);
    assert!(said.contains(&format!("     {}/rfw --flush\n", dir.path(name))), "{said}");
}
