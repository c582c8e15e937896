//! The state file on its disk: read, appended to, written anew beside and put in its place.
//!
//! It has the mode 0600. What is appended is either there whole or taken back; a file that is written
//! anew is there whole or not at all (fsync, rename, fsync of the folder).

use super::format::{HEADER_LENGTH, Header};
use crate::config::trusted_file::{self, FileError};
use rustix::fs::{Access, access};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The size in bytes below which a file is not written anew, however often it has doubled.
const SMALL: u64 = 64 << 10;

/// The mode of a file.
const MODE: u32 = 0o600;

/// The most names that are tried for a file that can't be used as it is.
const ASIDE_MAX: usize = 4;

/// Opens a state file for reading; nothing if there is none.
///
/// # Errors
/// It can't be read, or others may write or replace it.
pub(crate) fn open(path: &Path) -> Result<Option<BufReader<File>>, FileError> {
    match trusted_file::open_trusted(path, OpenOptions::new().read(true)) {
        Ok(file) => Ok(Some(BufReader::with_capacity(64 << 10, file))),
        Err(FileError::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the first line of a file anew: in its place or, where an editor has changed its length, in a copy
/// that takes the place of the file.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write_header(path: &Path, header: &Header) -> Result<(), FileError> {
    let file = open_to_write(path, OpenOptions::new().read(true).write(true))?;
    let written = match has_room(&file) {
        Ok(true) => file.write_all_at(header.to_string().as_bytes(), 0).and_then(|()| file.sync_data()),
        Ok(false) => write_copy(path, file, header),
        Err(error) => Err(error),
    };
    written.map_err(FileError::Io)
}

/// Opens a file that others may have made readable, and makes its mode 0600.
fn open_to_write(path: &Path, options: &mut OpenOptions) -> Result<File, FileError> {
    let file = trusted_file::open_trusted(path, options)?;
    let mode = file.metadata().map_err(FileError::Io)?.mode() & 0o7777;
    if mode != MODE {
        file.set_permissions(Permissions::from_mode(MODE)).map_err(FileError::Io)?;
    }
    Ok(file)
}

/// Whether the first line has the length of the one that takes its place.
fn has_room(file: &File) -> io::Result<bool> {
    let mut first = [0; HEADER_LENGTH];
    match file.read_exact_at(&mut first, 0) {
        Ok(()) => Ok(first.iter().position(|byte| *byte == b'\n') == Some(HEADER_LENGTH - 1)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_copy(path: &Path, file: File, header: &Header) -> io::Result<()> {
    let mut rest = BufReader::new(file);
    rest.skip_until(b'\n')?;
    StateFile::new(path.to_owned()).rewrite(header, false, |to| io::copy(&mut rest, to).map(drop))
}

/// Takes a file away.
///
/// # Errors
/// It is still there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

/// Makes the folder of a file, with mode 0700, if it is missing.
///
/// # Errors
/// It can't be made.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Checks that a file can be made in its folder, or that folder.
///
/// # Errors
/// It can't.
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = if folder.exists() { folder } else { folder.parent().unwrap_or(Path::new("/")) };
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The place where a file is put that can't be used as it is: the first of some names that is no folder.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let others = (1..ASIDE_MAX).map(|number| beside(path, &format!(".bad.{number}")));
    let first = beside(path, ".bad");
    std::iter::once(first.clone()).chain(others).find(|name| !is_folder(name)).unwrap_or(first)
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The file that changes are appended to.
pub(crate) struct StateFile {
    path: PathBuf,
    open: Option<File>,
    /// The first line, as it was written last.
    header: Option<Header>,
    /// Its size when it was written anew, or opened, in bytes.
    base: u64,
    size: u64,
}

impl StateFile {
    /// A file of that name, which is not opened yet.
    pub(crate) fn new(path: PathBuf) -> StateFile {
        StateFile { path, open: None, header: None, base: 0, size: 0 }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on with the file that is there, which has this first line.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn go_on(&mut self, header: Header) -> Result<(), FileError> {
        let file = open_to_write(&self.path, OpenOptions::new().read(true).append(true))?;
        self.size = file.metadata().map_err(FileError::Io)?.len();
        let mut last = [0];
        file.read_exact_at(&mut last, self.size.saturating_sub(1)).map_err(FileError::Io)?;
        if last != *b"\n" || !has_room(&file).map_err(FileError::Io)? {
            // What is appended would not be a line of its own, or the first line is not to be overwritten.
            return Err(FileError::Io(ErrorKind::InvalidData.into()));
        }
        (self.base, self.open, self.header) = (self.size, Some(file), Some(header));
        Ok(())
    }

    /// Whether it has to be written anew: it is twice its size, or not there any more.
    pub(crate) fn is_worn(&self) -> bool {
        self.size > SMALL.max(self.base.saturating_mul(2)) || !self.is_there()
    }

    fn is_there(&self) -> bool {
        let same = |file: &File| {
            let (own, there) = (file.metadata().ok()?, fs::symlink_metadata(&self.path).ok()?);
            Some((own.dev(), own.ino()) == (there.dev(), there.ino()))
        };
        self.open.as_ref().and_then(same) == Some(true)
    }

    /// Appends lines, and writes the first one anew where it tells another nonce.
    ///
    /// # Errors
    /// The disk does not take them; then none of them is there.
    pub(crate) fn append(
        &mut self,
        header: &Header,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(file) = &mut self.open else { return Err(ErrorKind::NotFound.into()) };
        let mut to = BufWriter::new(&mut *file);
        let written = fill(&mut to).and_then(|()| to.flush());
        // What could not be written is not tried again when it is dropped.
        drop(to.into_parts());
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            // A part of a line would spoil the next one.
            if file.set_len(self.size).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        self.size = file.metadata()?.len();
        if !self.header.as_ref().is_some_and(|old| old.is_of_place(header)) {
            write_header(&self.path, header).map_err(FileError::into_io)?;
            self.header = Some(header.clone());
            if !self.is_there() {
                // A copy has taken its place.
                self.open = None;
            }
        }
        Ok(())
    }

    /// Writes the file anew: `fill` writes all lines after the first. With `set_aside`, what was there
    /// stays under another name.
    ///
    /// # Errors
    /// The disk does not take it, or `fill` fails; then the file is as it was.
    pub(crate) fn rewrite<E: From<io::Error>>(
        &mut self,
        header: &Header,
        set_aside: bool,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        make_folder(&self.path)?;
        let new = beside(&self.path, ".new");
        let written = write_new(&new, header, fill);
        let placed = written.and_then(|file| {
            if set_aside {
                self.set_aside()?;
            }
            fs::rename(&new, &self.path)?;
            sync_folder(&self.path)?;
            Ok(file)
        });
        let file = match placed {
            Ok(file) => file,
            Err(error) => {
                // Best effort: the next attempt begins with it.
                let _ = fs::remove_file(&new);
                return Err(error);
            }
        };
        self.size = file.metadata()?.len();
        (self.base, self.open, self.header) = (self.size, Some(file), Some(header.clone()));
        Ok(())
    }

    /// Gives the file that is there another name, in place of one that was set aside before.
    fn set_aside(&self) -> io::Result<()> {
        let aside = aside(&self.path);
        if is_folder(&aside) {
            log::warn!(
                "the state file that can't be used as it is is not kept, since {} is a folder",
                aside.display()
            );
            return Ok(());
        }
        drop(fs::remove_file(&aside));
        // By a link there is a file of that name at any time; not every file system has links.
        let kept = fs::hard_link(&self.path, &aside).or_else(|_| fs::rename(&self.path, &aside));
        match kept {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            kept => kept,
        }
    }
}

/// Writes a file that nobody reads yet.
fn write_new<E: From<io::Error>>(
    path: &Path,
    header: &Header,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<File, E> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = OpenOptions::new().append(true).create_new(true).mode(MODE).open(path)?;
    let mut writer = BufWriter::with_capacity(64 << 10, file);
    writer.write_all(header.to_string().as_bytes())?;
    fill(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(seconds: u64) -> Header {
        let line = format!(
            "rfw state 1 boot=0a1b2c3d-0a1b-4c2d-8e3f-0123456789ab nonce=- written=1970-01-01T00:00:0{seconds}Z"
        );
        Header::parse(&line).unwrap()
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("rfw-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_file_is_written_anew_and_appended_to_whole_or_not_at_all() {
        let path = folder("written").join("state");
        let mut file = StateFile::new(path.clone());
        let read = || fs::read_to_string(&path).unwrap();
        assert!(file.is_worn());
        assert!(file.append(&header(1), |to| to.write_all(b"one\n")).is_err());
        file.rewrite(&header(1), false, |to| to.write_all(b"one\n")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        file.append(&header(2), |to| to.write_all(b"two\n")).unwrap();
        assert!(!file.is_worn() && read() == format!("{}one\ntwo\n", header(1)));
        // One that fails leaves what is there.
        let failed = file.rewrite(&header(3), true, |_| Err(io::Error::from(ErrorKind::StorageFull)));
        assert!(failed.is_err() && read() == format!("{}one\ntwo\n", header(1)));
        assert!(!aside(&path).exists() && !beside(&path, ".new").exists());
        file.rewrite(&header(4), true, |to| to.write_all(b"three\n")).unwrap();
        assert_eq!(read(), format!("{}three\n", header(4)));
        assert_eq!(fs::read_to_string(aside(&path)).unwrap(), format!("{}one\ntwo\n", header(1)));
        // The first line is written in its place.
        write_header(&path, &header(5)).unwrap();
        assert_eq!(read(), format!("{}three\n", header(5)));
        let long = "x".repeat(usize::try_from(SMALL).unwrap());
        file.append(&header(4), |to| to.write_all(long.as_bytes())).unwrap();
        assert!(file.is_worn());
        let mut next = StateFile::new(path.clone());
        assert!(next.go_on(header(5)).is_err(), "it ends within a line");
        file.append(&header(4), |to| to.write_all(b"\n")).unwrap();
        next.go_on(header(5)).unwrap();
        assert!(!next.is_worn());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(next.is_worn() && open(&path).unwrap().is_none());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_first_line_of_another_length_is_not_overwritten() {
        let path = folder("short").join("state");
        make_folder(&path).unwrap();
        let first = header(1).to_string();
        for first in [first.trim_end(), &format!("{} ", first.trim_end_matches('\n')), "short"] {
            for rest in ["", "one\n", &"one\n".repeat(99)] {
                fs::write(&path, format!("{first}\n{rest}")).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
                assert!(StateFile::new(path.clone()).go_on(header(1)).is_err(), "{first}");
                write_header(&path, &header(2)).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}{rest}", header(2)));
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
            }
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_that_is_gone_on_with_is_not_readable_for_others() {
        let path = folder("mode").join("state");
        make_folder(&path).unwrap();
        for write in [
            |path: &Path| write_header(path, &header(2)),
            |path: &Path| StateFile::new(path.to_owned()).go_on(header(1)),
        ] {
            fs::write(&path, header(1).to_string()).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            write(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_folder_of_the_name_for_what_is_set_aside_does_not_stop_the_writing() {
        let path = folder("aside").join("state");
        make_folder(&path).unwrap();
        let mut file = StateFile::new(path.clone());
        for end in [".bad", ".bad.1", ".bad.2", ".bad.3", ""] {
            fs::write(&path, end).unwrap();
            file.rewrite(&header(1), true, |_| Ok::<(), io::Error>(())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), header(1).to_string());
            if !end.is_empty() {
                let aside = beside(&path, end);
                assert_eq!(fs::read_to_string(&aside).unwrap(), end);
                fs::remove_file(&aside).unwrap();
                fs::create_dir(&aside).unwrap();
            }
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
