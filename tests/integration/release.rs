//! What a release is built of and who has made it: `etc/crates.sh`, which `make lint` and
//! `make dist` call, `make release-key` and `make sign`.

use crate::install::{Folder, TREE, make, run};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

/// Answers as cargo does: with the crates in `tree`, and of advisories what `audit` says,
/// if that is there.
const CARGO: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.."
case "$1 $2" in
    'tree --locked') cat tree ;;
    'audit --version') [ -e audit ] ;;
    'audit --no-fetch') echo "audit $*"; exit "$(cat audit)" ;;
    *) exit 9 ;;
esac
"#;

/// What cargo tells of the crates of this tree, as `etc/crates.sh` asks for it.
fn crates_of_this_tree() -> String {
    let format = "{p}\t{l}";
    let arguments = ["--locked", "--edges", "normal,build,dev", "--prefix", "none", "--no-dedupe"];
    let mut cargo = Command::new("cargo");
    cargo.arg("tree").args(arguments).args(["--format", format]).current_dir(TREE);
    String::from_utf8(cargo.output().unwrap().stdout).unwrap()
}

/// A copy of what `etc/crates.sh` reads, with a cargo of its own.
fn copy(crates: &str) -> Folder {
    let dir = Folder::new();
    for name in ["etc/crates.sh", ".crates", "Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
        dir.write(name, mode, &fs::read_to_string(format!("{TREE}/{name}")).unwrap());
    }
    dir.write("bin/cargo", 0o755, CARGO);
    dir.write("tree", 0o644, crates);
    dir
}

fn check(dir: &Folder) -> Command {
    let mut command = Command::new(dir.path("etc/crates.sh"));
    command.arg("check").env("PATH", format!("{}:/usr/bin:/bin", dir.path("bin")));
    command.env("ADVISORY_DB", dir.path("advisories"));
    command
}

#[test]
fn the_crates_of_this_tree_are_those_that_it_may_have() {
    let dir = copy(&crates_of_this_tree());
    let line = format!(
        "crates.sh: advisories are not checked, for want of cargo-audit or of {}\n",
        dir.path("advisories")
    );
    assert_eq!(run(&mut check(&dir), true), line);
    let there =
        run(Command::new(format!("{TREE}/etc/crates.sh")).arg("check").env("ADVISORY_DB", "/no"), true);
    assert_eq!(there, line.replace(&dir.path("advisories"), "/no"));
}

#[test]
fn a_crate_from_elsewhere_or_in_two_versions_is_refused_and_so_is_a_list_that_is_too_long() {
    let crates = crates_of_this_tree();
    let log = crates.lines().find_map(|line| line.strip_prefix("log v")).unwrap().split('\t').next().unwrap();
    let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let elsewhere = "comes from elsewhere than .crates has it: ";
    for (file, old, new, expected) in [
        (
            "Cargo.lock",
            source,
            "source = \"git+https://example.org/a#1\"",
            &*format!("{elsewhere}git+https://example.org/a#1"),
        ),
        (
            "Cargo.lock",
            source,
            "source = \"registry+https://example.org/index\"",
            &format!("{elsewhere}registry+https://example.org/index"),
        ),
        ("Cargo.lock", source, "", &format!("{elsewhere}none")),
        ("tests/fuzz/Cargo.lock", source, "", &format!("{elsewhere}none")),
        (
            "tree",
            "log v",
            "log v0.3.9\tMIT\nlog v",
            &format!("log is there more than once, and not in .crates: 0.3.9 {log}"),
        ),
        (".crates", "twice syn", "twice cc\ntwice syn", ".crates: nothing needs the line twice cc"),
        (
            ".crates",
            "licence MIT",
            "licence MIT\nlicence EUPL-1.2",
            ".crates: nothing needs the line licence EUPL-1.2",
        ),
        (
            ".crates",
            "licence MIT",
            "licence MIT\nlicense MIT",
            ".crates: license is none of source, licence, twice",
        ),
        ("tree", &crates, "", "cargo tree names no crate"),
    ] {
        let dir = copy(&crates);
        let text = dir.read(file);
        assert!(text.contains(old), "{file}: {old:?}");
        dir.write(file, 0o644, &text.replacen(old, new, 1));
        let said = run(&mut check(&dir), false);
        assert!(
            said.lines().all(|line| line.starts_with("crates.sh: ")) && said.contains(expected),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{file}: {new:?}: {said}");
    }
    let dir = copy(&crates);
    dir.write("bin/cargo", 0o755, "#!/bin/sh\nexit 101\n");
    run(&mut check(&dir), false);
}

/// Of what is named besides, MIT, ISC and Apache-2.0 are in the list.
#[test]
fn a_licence_has_to_be_in_the_list() {
    let crates = crates_of_this_tree();
    for (licence, is_free) in [
        ("MIT", true),
        ("MIT/EUPL-1.2", true),
        ("EUPL-1.2 OR MIT", true),
        ("(MIT OR EUPL-1.2) AND ISC", true),
        ("EUPL-1.2 AND ISC OR MIT", true),
        ("", false),
        ("EUPL-1.2", false),
        ("MIT AND EUPL-1.2", false),
        ("(MIT OR ISC) AND EUPL-1.2", false),
        ("EUPL-1.2 OR MIT AND EUPL-1.2", false),
        ("MIT EUPL-1.2", false),
        ("(MIT", false),
        ("MIT-0", false),
        ("Apache-2.0 WITH other", false),
    ] {
        let dir = copy(&format!("{crates}new v1.0.0 (proc-macro)\t{licence}\n"));
        let said = run(&mut check(&dir), is_free);
        let line = format!("crates.sh: new 1.0.0 has a licence that .crates has not: \"{licence}\"\n");
        assert_eq!(said == line, !is_free, "{licence:?}: {said}");
    }
}

#[test]
fn advisories_are_checked_where_their_database_is_at_hand() {
    let dir = copy(&crates_of_this_tree());
    fs::create_dir(dir.path("advisories")).unwrap();
    assert!(run(&mut check(&dir), true).contains("advisories are not checked"));
    for (status, succeeds) in [("0", true), ("1", false)] {
        dir.write("audit", 0o644, status);
        let said = run(&mut check(&dir), succeeds);
        let line =
            format!("audit audit --no-fetch --stale --db {} --file Cargo.lock\n", dir.path("advisories"));
        assert_eq!(said, line);
    }
}

#[test]
fn the_list_of_crates_has_versions_licences_and_sources_and_nothing_of_tests() {
    let list = run(Command::new(format!("{TREE}/etc/crates.sh")).arg("list"), true);
    let lock = fs::read_to_string(format!("{TREE}/Cargo.lock")).unwrap();
    for line in list.lines() {
        let [name, version, licence, source] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n");
        assert!(lock.contains(&locked) && !licence.is_empty(), "{line:?}");
    }
    assert!(list.lines().is_sorted());
    let has = |name: &str| list.lines().any(|line| line.starts_with(&format!("{name}\t")));
    assert!(has("ring") && has("cc") && !has("rfw") && !has("proptest") && !has("windows-sys"), "{list}");
}

/// A folder with two archives, and with room for keys.
fn archives() -> (Folder, [String; 2]) {
    let dir = Folder::elsewhere();
    let source = concat!("rfw-", env!("CARGO_PKG_VERSION"), ".tar.gz");
    let binary = concat!("rfw-", env!("CARGO_PKG_VERSION"), "-linux-x86_64.tar.gz");
    let names = [source, binary].map(str::to_owned);
    names.iter().for_each(|name| dir.write(&format!("dist/{name}"), 0o644, &format!("the bytes of {name}")));
    (dir, names)
}

/// make with a key, and where it has no terminal that ssh-keygen could ask at.
fn make_with(dir: &Folder, target: &str, key: &str) -> Command {
    let [key, folder] = [format!("RELEASE_KEY={key}"), format!("TARGET_DIR={}", dir.path(""))];
    let inner = make(TREE, &[target, &key, &folder]);
    let mut command = Command::new("setsid");
    command.arg("-w").arg(inner.get_program()).args(inner.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// What the documents say to verify an archive with.
fn verify(dir: &Folder, name: &str, succeeds: bool) -> String {
    let script = r#"ssh-keygen -Y verify -f allowed_signers -I rfw -n rfw-release -s "$1.sig" <"$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", name]).current_dir(dir.path("dist"));
    run(&mut command, succeeds)
}

#[test]
fn a_signature_holds_for_the_bytes_and_for_the_key() {
    let (dir, names) = archives();
    let [mine, theirs] = ["keys/mine", "keys/theirs"].map(|name| dir.path(name));
    for key in [&mine, &theirs] {
        run(&mut make_with(&dir, "release-key", key), true);
    }
    let before = dir.read("keys/mine");
    let said = run(&mut make_with(&dir, "release-key", &mine), true);
    assert_eq!(said, format!("there is a key already: {mine}\n"));
    assert_eq!(dir.read("keys/mine"), before);

    run(&mut make_with(&dir, "sign", &mine), true);
    for name in &names {
        let said = verify(&dir, name, true);
        assert!(said.starts_with("Good \"rfw-release\" signature for rfw with ED25519 key "), "{said}");
    }
    let file = OpenOptions::new().append(true).open(dir.path(&format!("dist/{}", names[0])));
    file.unwrap().write_all(b"!").unwrap();
    verify(&dir, &names[0], false);
    verify(&dir, &names[1], true);

    // Signed anew it holds; by somebody else it does not, for those who know the first key.
    run(&mut make_with(&dir, "sign", &mine), true);
    verify(&dir, &names[0], true);
    let known = dir.read("dist/allowed_signers");
    run(&mut make_with(&dir, "sign", &theirs), true);
    dir.write("dist/allowed_signers", 0o644, &known);
    names.iter().for_each(|name| drop(verify(&dir, name, false)));
}

#[test]
fn no_key_in_the_tree_and_no_signature_without_a_key_or_an_archive() {
    let (dir, names) = archives();
    let key = dir.path("key");
    let inside = format!("{TREE}/release-key");
    for target in ["release-key", "sign"] {
        let said = run(&mut make_with(&dir, target, &inside), false);
        assert!(said.contains(&format!("sign.sh: the key may not be in this tree: {inside}\n")), "{said}");
    }
    let said = run(&mut make_with(&dir, "sign", &key), false);
    assert!(said.contains(&format!("sign.sh: there is no key {key} ")), "{said}");

    run(&mut make_with(&dir, "release-key", &key), true);
    names.iter().for_each(|name| fs::remove_file(dir.path(&format!("dist/{name}"))).unwrap());
    let said = run(&mut make_with(&dir, "sign", &key), false);
    assert!(said.contains("sign.sh: there is nothing to sign: make dist\n"), "{said}");
}
