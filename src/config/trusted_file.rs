//! Files whose owner and mode are checked before they are read. The check uses fstat(2) on the
//! open descriptor, so the file that is checked is the one that is read (no TOCTOU race). The
//! directories above are checked too: only root and the user of rfw may be able to replace
//! the file.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::geteuid;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use zeroize::Zeroizing;

/// Maximum size in bytes of a configuration, a white list, a certificate or a key.
const LARGEST: u64 = 4 << 20;

/// Room in bytes behind the text of a file, with which its end is seen without more.
const SPARE: usize = 1 << 10;

/// Maximum number of symbolic links in a path, as in the kernel (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// Reads a file that holds a secret: owned by root or the effective user, and without any
/// access for group and others. Its text is wiped when it is dropped.
///
/// # Errors
/// The file can't be read, or other users can read or replace it.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    read(path, 0o077, FileError::Readable)
}

/// Reads a file owned by root or the effective user, and not writable by group and others.
///
/// # Errors
/// The file can't be read, or other users can write or replace it.
pub(crate) fn read_trusted(path: &Path) -> Result<String, FileError> {
    read(path, 0o022, FileError::Writable).map(|mut text| std::mem::take(&mut *text))
}

/// Opens a file of any size that is owned by root or the effective user, and not writable by group
/// and others.
///
/// # Errors
/// The file can't be opened, or other users can write or replace it.
pub(crate) fn open_trusted(path: &Path, options: &mut OpenOptions) -> Result<File, FileError> {
    let file = open(options, path)?;
    check(&file, path, 0o022, FileError::Writable)?;
    Ok(file)
}

/// Whether the kernel refuses to open a file for reading.
pub(crate) fn is_denied(path: &Path) -> bool {
    let file = open(OpenOptions::new().read(true), path);
    matches!(file, Err(FileError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied)
}

/// Opens the log for appending, and creates it with mode 0640: a regular file, or a character
/// device such as /dev/null.
///
/// # Errors
/// It can't be opened, or is of another type, such as a FIFO, to which a write may block.
pub(crate) fn open_log(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    let file = open(&mut options, path)?;
    let kind = file.metadata().map_err(FileError::Io)?.file_type();
    // The standard streams are what their owner has made them, a pipe in a container.
    let stream = [Path::new("/dev/stdout"), Path::new("/dev/stderr")].contains(&path);
    if !kind.is_file() && !kind.is_char_device() && !stream {
        return Err(FileError::NotAFile);
    }
    Ok(file)
}

/// Opens a file with `O_NONBLOCK`, and clears that flag afterwards: open(2) of a FIFO would
/// otherwise block until its other end is opened (fifo(7)).
fn open(options: &mut OpenOptions, path: &Path) -> Result<File, FileError> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = options.custom_flags(flags).open(path).map_err(FileError::Io)?;
    let flags = fcntl_getfl(&file).map_err(|errno| FileError::Io(errno.into()))?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(|errno| FileError::Io(errno.into()))?;
    Ok(file)
}

/// Reads a file whose mode has none of the bits `forbidden`; `error` makes the error from the
/// mode otherwise.
fn read(path: &Path, forbidden: u32, error: fn(u32) -> FileError) -> Result<Zeroizing<String>, FileError> {
    let file = open(OpenOptions::new().read(true), path)?;
    let length = check(&file, path, forbidden, error)?;
    if length > LARGEST {
        return Err(FileError::TooLarge(length));
    }
    // With room to spare, since a string that grows leaves its text behind.
    let length = usize::try_from(length).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(length.saturating_add(SPARE)));
    file.take(LARGEST).read_to_string(&mut text).map_err(FileError::Io)?;
    Ok(text)
}

/// Checks that a file is regular, that its owner and its mode are as they should be, and that nobody
/// else can replace it. Gives its size in bytes.
fn check(file: &File, path: &Path, forbidden: u32, error: fn(u32) -> FileError) -> Result<u64, FileError> {
    let meta = file.metadata().map_err(FileError::Io)?;
    let mode = meta.permissions().mode() & 0o7777;
    match () {
        () if !meta.is_file() => return Err(FileError::NotAFile),
        () if !is_owned(&meta) => return Err(FileError::Owner(meta.uid())),
        () if mode & forbidden != 0 => return Err(error(mode)),
        () => check_folders(&std::path::absolute(path).map_err(FileError::Io)?, LINKS_MAX)?,
    }
    Ok(meta.len())
}

/// Whether the owner is root or the effective user.
fn is_owned(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == geteuid().as_raw()
}

/// Checks each directory of an absolute path, symbolic links followed. A directory with the
/// sticky bit, such as /tmp, may be writable: only the owner of a file in it can replace that
/// file (inode(7)).
fn check_folders(path: &Path, links_left: u32) -> Result<(), FileError> {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            _ => resolved.push(component),
        }
        let meta = fs::symlink_metadata(&resolved).map_err(FileError::Io)?;
        if meta.is_symlink() {
            // In a folder with the sticky bit its owner may replace it at any time.
            if !is_owned(&meta) && !is_unmapped(meta.uid()) {
                return Err(FileError::LinkOwner(resolved, meta.uid()));
            }
            let left = links_left.checked_sub(1).ok_or(FileError::Links)?;
            let target = fs::read_link(&resolved).map_err(FileError::Io)?;
            let target = resolved.parent().unwrap_or(Path::new("/")).join(target);
            check_folders(&target, left)?;
            resolved = fs::canonicalize(&target).map_err(FileError::Io)?;
        } else if meta.is_dir() {
            check_folder(&resolved, &meta)?;
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

/// Whether a user ID is the overflow ID of a user without a mapping in this user namespace
/// (user_namespaces(7)); no process in the namespace can have that user's ID. The initial
/// namespace maps all IDs, so there the overflow ID is an ordinary user.
fn is_unmapped(user: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse() == Ok(user);
    overflow && !is_mapped(&read("/proc/self/uid_map"), user)
}

/// Whether a user ID is in a map of lines "first ID inside, first outside, count".
fn is_mapped(map: &str, user: u32) -> bool {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(first..first.saturating_add(count))
    });
    ranges.into_iter().any(|range| range.contains(&u64::from(user)))
}

/// Error in opening or reading a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A system call fails.
    #[error(transparent)]
    Io(io::Error),
    /// A directory, a FIFO or another type.
    #[error("not a regular file")]
    NotAFile,
    /// The mode of a directory above the file.
    #[error(
        "mode {1:04o} of the folder {path} lets others replace it: expected 0755 (chmod go-w {path})",
        path = .0.display()
    )]
    Folder(PathBuf, u32),
    /// The owner (user ID) of a directory above the file.
    #[error("the folder {path} belongs to user {1}: expected root (chown root {path})", path = .0.display())]
    FolderOwner(PathBuf, u32),
    /// A symbolic link on the way, and the number of the user it belongs to.
    #[error("the link {path} belongs to user {1}: expected root (chown -h root {path})", path = .0.display())]
    LinkOwner(PathBuf, u32),
    /// More symbolic links than the kernel follows.
    #[error("too many levels of symbolic links")]
    Links,
    /// The size in bytes exceeds the maximum.
    #[error("{0} bytes: expected at most {LARGEST}")]
    TooLarge(u64),
    /// The owner (user ID) of the file.
    #[error("belongs to user {0}: expected root (chown root)")]
    Owner(u32),
    /// The mode of a file that holds a secret.
    #[error("mode {0:04o} lets others read it: expected 0600 (chmod 600)")]
    Readable(u32),
    /// The mode of a file that others must not write.
    #[error("mode {0:04o} lets others write it: expected 0644 (chmod 644)")]
    Writable(u32),
}

impl FileError {
    /// The same as an error of a system call.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            FileError::Io(error) => error,
            error => io::Error::other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_in_a_map_or_not() {
        let golden = [
            ("         0          0 4294967295\n", 65_534, true),
            ("         0       1000          1\n", 65_534, false),
            ("0 1000 1\n1 100000 65536\n", 65_534, true),
            ("0 1000 1\n1 100000 65536\n", 65_537, false),
            ("", 0, false),
            ("x\n", 0, false),
        ];
        for (map, user, expected) in golden {
            assert_eq!(is_mapped(map, user), expected, "{map} {user}");
        }
    }
}
