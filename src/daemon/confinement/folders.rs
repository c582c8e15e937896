//! The files that rfw and its programs need once it serves, by their folders: a file that is renewed is
//! most often another one of the same name.
//!
//! Folders directly below `/`, such as /etc, hold too much: of these a file is granted alone, as it is at
//! the start, and one that takes its place is out of reach.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Programs and their libraries, where distributions have them.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Where a program has its libraries and modules if it is in a folder `bin` or `sbin`: beside that.
const LIBRARIES: [&str; 3] = ["lib", "lib64", "libexec"];

/// What libraries and the programs of iptables read, beside the kernel's own files, and the lock of
/// iptables-legacy, which is locked as it is read.
const READ: [&str; 14] = [
    "/etc/ethertypes",
    "/etc/iproute2",
    "/etc/ld-musl-aarch64.path",
    "/etc/ld-musl-x86_64.path",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/xtables",
    "/dev/random",
    "/dev/urandom",
    "/proc",
    XTABLES_LOCK,
];

/// What is written to: nothing that stays.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/ptmx"];

/// Where the terminals are, those of others too: rfw and its programs only write to their own.
const TERMINALS: &str = "/dev/pts";

/// The lock of iptables-legacy.
pub(super) const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Folders that all programs of a host share, beside those directly below `/`.
const SHARED: [&str; 7] =
    ["/usr/local", "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/spool", "/var/tmp"];

/// What may be done with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Read.
    Read,
    /// Read and execute.
    Execute,
    /// Read, write, make and remove files.
    Write,
    /// Read, write and ioctl(2).
    Device,
    /// Write and ioctl(2).
    Terminal,
}

/// A folder with all that is below it, or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its path, without symbolic links.
    pub path: PathBuf,
    /// What may be done with it.
    pub right: Right,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Device and inode: a file is known by these alone.
    id: (u64, u64),
}

/// Places, each with what may be done there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Folders(Vec<Place>);

impl Folders {
    /// What the programs need on any host.
    pub(crate) fn of_system() -> Folders {
        let mut folders = Folders::default();
        for (paths, right) in
            [(&PROGRAMS[..], Right::Execute), (&READ[..], Right::Read), (&DEVICES[..], Right::Device)]
        {
            paths.iter().for_each(|path| folders.grant(Path::new(path), right));
        }
        folders.grant(Path::new(TERMINALS), Right::Terminal);
        folders
    }

    /// Adds a file that is read, or will be.
    pub(crate) fn add_file(&mut self, path: &Path) {
        self.grant_folders_of(path, Right::Read);
    }

    /// Adds a program, with what lies beside it, and its libraries.
    pub(crate) fn add_program(&mut self, path: &Path) {
        self.grant_folders_of(path, Right::Execute);
        let folders = folders_of(path).into_iter();
        let homes = folders.filter(|folder| folder.ends_with("bin") || folder.ends_with("sbin"));
        for home in homes.filter_map(|folder| folder.parent().map(Path::to_owned)) {
            LIBRARIES.iter().for_each(|name| self.grant(&home.join(name), Right::Execute));
        }
    }

    /// Adds the folder of a file that is written anew beside itself; one below `/` or that all programs share
    /// too, of which the log warns.
    pub(crate) fn add_written(&mut self, path: &Path) {
        for folder in folders_of(path) {
            if is_shared(&folder) {
                log::warn!(
                    "{}: rfw may write to all of {}: give it a folder of its own",
                    path.display(),
                    folder.display()
                );
            }
            self.grant(&folder, Right::Write);
        }
    }

    /// Whether a file is in one of the places, as far as it is to be read: links are followed.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        let Some(path) = resolved(path) else { return false };
        let id = fs::metadata(&path).ok().map(|meta| id(&meta));
        let readable = self.0.iter().filter(|place| place.right != Right::Terminal);
        readable.into_iter().any(|place| match place.is_folder {
            true => path.starts_with(&place.path),
            false => id == Some(place.id),
        })
    }

    /// All of them.
    pub(super) fn places(&self) -> &[Place] {
        &self.0
    }

    fn grant_folders_of(&mut self, path: &Path, right: Right) {
        for folder in folders_of(path) {
            match is_own(&folder) {
                true => self.grant(&folder, right),
                false => self.grant(path, right),
            }
        }
    }

    /// Grants what is there.
    fn grant(&mut self, path: &Path, right: Right) {
        let Ok(path) = fs::canonicalize(path) else { return };
        let Ok(meta) = fs::metadata(&path) else { return };
        let place = Place { path, right, is_folder: meta.is_dir(), id: id(&meta) };
        if !self.0.contains(&place) {
            self.0.push(place);
        }
    }
}

/// The folder of a path and, where it is a link, that of the file: either may be what is replaced.
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let named = std::path::absolute(path).ok();
    let file = fs::canonicalize(path).ok();
    let mut folders: Vec<PathBuf> = [named, file]
        .iter()
        .flatten()
        .filter_map(|path| path.parent())
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .collect();
    folders.dedup();
    folders
}

/// A path without links; its file need not be there.
fn resolved(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().or_else(|| {
        let path = std::path::absolute(path).ok()?;
        Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
    })
}

/// Whether a file is granted alone, since the folder of its path holds too much.
pub(super) fn is_alone(file: &Path) -> bool {
    let path = std::path::absolute(file).ok();
    let folder = path.as_deref().and_then(Path::parent).and_then(|folder| fs::canonicalize(folder).ok());
    folder.is_some_and(|folder| !is_own(&folder))
}

/// Whether a folder has files of other programs.
fn is_shared(folder: &Path) -> bool {
    !is_own(folder) || SHARED.iter().any(|shared| folder == Path::new(shared))
}

/// Whether a folder is not directly below `/`, nor that itself.
fn is_own(folder: &Path) -> bool {
    folder.components().count() > 2
}

fn id(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A new folder.
    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rfw-folders-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for folder in ["live", "archive", "elsewhere"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::canonicalize(dir).unwrap()
    }

    #[test]
    fn a_folder_directly_below_the_root_holds_more_than_what_is_asked_for() {
        let golden =
            [("/", false), ("/etc", false), ("/root", false), ("/etc/rfw", true), ("/var/lib/rfw", true)];
        for (path, own) in golden {
            assert_eq!(is_own(Path::new(path)), own, "{path}");
            assert_eq!(is_shared(Path::new(path)), !own, "{path}");
        }
        assert!(is_shared(Path::new("/var/lib")) && is_own(Path::new("/var/lib")));
        let mut folders = Folders::default();
        folders.add_file(Path::new("/etc/passwd"));
        assert!(folders.covers(Path::new("/etc/passwd")));
        assert!(!folders.covers(Path::new("/etc/shadow")) && !folders.covers(Path::new("/etc")));
    }

    #[test]
    fn a_file_is_covered_by_its_folder_and_by_that_which_a_link_leads_to() {
        let dir = folder("links");
        let at = |name: &str| dir.join(name);
        for file in ["archive/key1", "archive/key2", "elsewhere/key"] {
            fs::write(at(file), "").unwrap();
        }
        symlink("../archive/key1", at("live/key")).unwrap();
        let mut folders = Folders::default();
        folders.add_file(&at("live/key"));
        let covers = |name: &str| folders.covers(&at(name));
        assert!(covers("live/key") && covers("archive/key1"));
        // Renewed: another file, or a link to another.
        assert!(covers("archive/key2") && covers("live/new") && covers("archive/new"));
        assert!(!covers("elsewhere/key") && !covers("elsewhere") && !covers("live/../elsewhere/key"));
        assert!(!covers("missing/key"));
        fs::remove_file(at("live/key")).unwrap();
        symlink("../elsewhere/key", at("live/key")).unwrap();
        assert!(!covers("live/key"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_granted_alone_is_not_covered_once_it_is_another() {
        let dir = folder("alone");
        let (file, new) = (dir.join("live/file"), dir.join("live/new"));
        fs::write(&file, "").unwrap();
        let mut folders = Folders::default();
        folders.grant(&file, Right::Read);
        assert!(folders.covers(&file) && !folders.covers(&new));
        fs::write(&new, "").unwrap();
        fs::rename(&new, &file).unwrap();
        assert!(!folders.covers(&file));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_program_is_granted_with_its_libraries() {
        let dir = folder("program");
        for folder in ["sbin", "lib/xtables", "etc"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("sbin/iptables"), "").unwrap();
        let mut folders = Folders::default();
        folders.add_program(&dir.join("sbin/iptables"));
        let right = |name: &str| {
            let place = folders.places().iter().find(|place| place.path == dir.join(name));
            place.map(|place| place.right)
        };
        assert_eq!((right("sbin"), right("lib")), (Some(Right::Execute), Some(Right::Execute)));
        assert_eq!((right("etc"), right("")), (None, None));
        assert!(folders.covers(&dir.join("lib/xtables")) && !folders.covers(&dir.join("etc")));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_granted() {
        let mut folders = Folders::default();
        folders.add_file(Path::new("/no-such-folder/file"));
        folders.add_program(Path::new("/no-such-folder/program"));
        folders.add_written(Path::new("/no-such-folder/state"));
        assert_eq!(folders, Folders::default());
    }
}
