//! The log file: a line goes to it whole, or not at all.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::mem;

/// A file that is open for appending, to which each line goes by one write(2), so that lines of
/// concurrent writers do not interleave. A line for which a disk has no room is lost as a whole.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// A line that has no end yet.
    line: Vec<u8>,
    /// Whether a part of a line stands at the end of the file.
    is_torn: bool,
}

impl LogFile {
    /// Takes a file that is open for appending.
    pub(super) fn new(file: File) -> LogFile {
        LogFile { file, line: Vec::new(), is_torn: false }
    }

    /// Writes a line; what the file has taken of one that fails is taken back.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        while !rest.is_empty() {
            let failure = match self.file.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let written = u64::try_from(line.len().saturating_sub(rest.len())).unwrap_or(u64::MAX);
            self.is_torn |= written > 0 && !self.take_back(written).unwrap_or(false);
            return Err(failure);
        }
        self.is_torn = false;
        Ok(())
    }

    /// Cuts off what was written last, unless others have written behind it or it is no file that can
    /// be cut; tells whether it did.
    fn take_back(&mut self, length: u64) -> io::Result<bool> {
        // The position of a file that is appended to is behind what was written last.
        let end = self.file.stream_position()?;
        let start =
            end.checked_sub(length).filter(|_| self.file.metadata().is_ok_and(|file| file.len() == end));
        start.map(|start| self.file.set_len(start)).transpose().map(|cut| cut.is_some())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.line.is_empty() && self.is_torn {
            self.line.push(b'\n');
        }
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let line = mem::take(&mut self.line);
            self.write_line(&line)?;
        }
        Ok(bytes.len())
    }

    /// Does nothing: no line that has an end is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
