//! Files that rfw has to be able to trust: they are looked at through the open
//! handle, so what is checked is what is read. Nobody but root and the user of rfw may
//! be able to put another file in their place, so the folders above are looked at too.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::geteuid;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The largest file in bytes that is taken for a configuration, a list or a key.
const LARGEST: u64 = 4 << 20;

/// The most symbolic links on the way to a file, as the kernel has it (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// Reads a file that holds a secret: owned by root or the user that rfw runs as,
/// and closed to everybody else.
///
/// # Errors
/// It can't be read, or others could read or replace it.
pub fn read_secret(path: &Path) -> Result<String, FileError> {
    read(path, 0o077, FileError::Readable)
}

/// Reads a file that no stranger may write.
///
/// # Errors
/// It can't be read, or others could write or replace it.
pub fn read_trusted(path: &Path) -> Result<String, FileError> {
    read(path, 0o022, FileError::Writable)
}

/// Opens the log to write behind what it has: a file, or a device such as /dev/null.
///
/// # Errors
/// It can't be opened, or is something that may make a writer wait.
pub fn open_log(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    let file = open(&mut options, path)?;
    let kind = file.metadata().map_err(FileError::Io)?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(FileError::NotAFile);
    }
    Ok(file)
}

/// Opens a file without waiting: opening a FIFO would wait for its other end.
fn open(options: &mut OpenOptions, path: &Path) -> Result<File, FileError> {
    let waits_not = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = options.custom_flags(waits_not).open(path).map_err(FileError::Io)?;
    let flags = fcntl_getfl(&file).map_err(|errno| FileError::Io(errno.into()))?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(|errno| FileError::Io(errno.into()))?;
    Ok(file)
}

/// Reads a file whose mode has none of the bits that are forbidden, which `error` is of.
fn read(path: &Path, forbidden: u32, error: fn(u32) -> FileError) -> Result<String, FileError> {
    let file = open(OpenOptions::new().read(true), path)?;
    let meta = file.metadata().map_err(FileError::Io)?;
    let mode = meta.permissions().mode() & 0o7777;
    match () {
        () if !meta.is_file() => return Err(FileError::NotAFile),
        () if meta.len() > LARGEST => return Err(FileError::TooLarge(meta.len())),
        () if !is_owned(&meta) => return Err(FileError::Owner(meta.uid())),
        () if mode & forbidden != 0 => return Err(error(mode)),
        () => check_folders(&std::path::absolute(path).map_err(FileError::Io)?, LINKS_MAX)?,
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(FileError::Io)?;
    Ok(text)
}

/// Whether it belongs to root or the user that rfw runs as.
fn is_owned(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == geteuid().as_raw()
}

/// Sees that nobody else may change a folder on the way to a file, links followed. In
/// one with the sticky bit, such as /tmp, only the owner of a file may replace it.
fn check_folders(path: &Path, links_left: u32) -> Result<(), FileError> {
    let mut way = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(way.pop()),
            _ => way.push(component),
        }
        let meta = fs::symlink_metadata(&way).map_err(FileError::Io)?;
        if meta.is_symlink() {
            let left = links_left.checked_sub(1).ok_or(FileError::NotAFile)?;
            let target = fs::read_link(&way).map_err(FileError::Io)?;
            let target = way.parent().unwrap_or(Path::new("/")).join(target);
            check_folders(&target, left)?;
            way = fs::canonicalize(&target).map_err(FileError::Io)?;
        } else if meta.is_dir() {
            check_folder(&way, &meta)?;
        }
    }
    Ok(())
}

fn check_folder(path: &Path, meta: &Metadata) -> Result<(), FileError> {
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(FileError::Folder(path.to_owned(), mode));
    }
    match is_owned(meta) || is_unmapped(meta.uid()) {
        true => Ok(()),
        false => Err(FileError::FolderOwner(path.to_owned(), meta.uid())),
    }
}

/// Whether a user is one that this user namespace does not know (user_namespaces(7)):
/// nobody in it can become that user. In the first namespace there is none.
fn is_unmapped(user: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse() == Ok(user);
    let map = read("/proc/self/uid_map");
    overflow && !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's word.
    #[error(transparent)]
    Io(io::Error),
    /// A folder, a device or the like.
    #[error("not a regular file")]
    NotAFile,
    /// A folder above it, and its mode.
    #[error(
        "mode {1:04o} of the folder {path} lets others replace it: expected 0755 (chmod go-w {path})",
        path = .0.display()
    )]
    Folder(PathBuf, u32),
    /// A folder above it, and the number of the user it belongs to.
    #[error("the folder {path} belongs to user {1}: expected root (chown root {path})", path = .0.display())]
    FolderOwner(PathBuf, u32),
    /// Its size in bytes.
    #[error("{0} bytes: expected at most {LARGEST}")]
    TooLarge(u64),
    /// The number of the user it belongs to.
    #[error("belongs to user {0}: expected root (chown root)")]
    Owner(u32),
    /// Its mode, of a file that holds a secret.
    #[error("mode {0:04o} lets others read it: expected 0600 (chmod 600)")]
    Readable(u32),
    /// Its mode.
    #[error("mode {0:04o} lets others write it: expected 0644 (chmod 644)")]
    Writable(u32),
}
