//! Files that rfw has to be able to trust: they are looked at through the open
//! handle, so what is checked is what is read.

use rustix::process::geteuid;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The largest file in bytes that is taken for a configuration, a list or a key.
const LARGEST: u64 = 4 << 20;

/// Reads a file that holds a secret: owned by root or the user that rfw runs as,
/// and closed to everybody else.
///
/// # Errors
/// It can't be read, or others could read it.
pub fn read_secret(path: &Path) -> Result<String, FileError> {
    read(path, 0o077)
}

/// Reads a file that no stranger may write.
///
/// # Errors
/// It can't be read, or others could write it.
pub fn read_trusted(path: &Path) -> Result<String, FileError> {
    read(path, 0o002)
}

fn read(path: &Path, forbidden: u32) -> Result<String, FileError> {
    let mut file = File::open(path).map_err(FileError::Io)?;
    let meta = file.metadata().map_err(FileError::Io)?;
    let owned = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
    let mode = meta.permissions().mode() & 0o7777;
    match () {
        () if !meta.is_file() => return Err(FileError::NotAFile),
        () if meta.len() > LARGEST => return Err(FileError::TooLarge(meta.len())),
        () if !owned => return Err(FileError::Owner(meta.uid())),
        () if mode & forbidden != 0 => return Err(FileError::Mode { mode, forbidden }),
        () => {}
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(FileError::Io)?;
    Ok(text)
}

/// Why a file is not read.
#[derive(Debug)]
pub enum FileError {
    /// The system's word.
    Io(io::Error),
    /// A folder, a device or the like.
    NotAFile,
    /// Its size in bytes.
    TooLarge(u64),
    /// The number of the user it belongs to.
    Owner(u32),
    /// Its mode, and the bits of it that must not be set.
    Mode {
        /// What it is.
        mode: u32,
        /// What it must not have.
        forbidden: u32,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => error.fmt(f),
            FileError::NotAFile => f.write_str("not a file"),
            FileError::TooLarge(size) => write!(f, "{size} bytes: expected at most {LARGEST}"),
            FileError::Owner(user) => write!(f, "belongs to user {user}: expected root (chown root)"),
            FileError::Mode { mode, forbidden: 0o077 } => {
                write!(f, "mode {mode:04o} lets others read it: expected 0600 (chmod 600)")
            }
            FileError::Mode { mode, .. } => {
                write!(f, "mode {mode:04o} lets others write it: expected 0644 (chmod 644)")
            }
        }
    }
}

impl std::error::Error for FileError {}
