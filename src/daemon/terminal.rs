//! The log on the terminal (`-v`). A reader that does not read, such as a pager that waits or a
//! terminal that is held by Ctrl-S, loses lines: rfw never waits for it.

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use simplelog::{Config, SharedLogger, WriteLogger};
use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::os::fd::AsRawFd;

/// A write up to this size does not block where poll(2) tells of room: PIPE_BUF (pipe(7)).
const WRITE_MAX: usize = 4_096;

/// Logs to standard output, and errors to standard error.
pub(super) struct TerminalLogger {
    out: Box<WriteLogger<LineWriter<Terminal>>>,
    errors: Box<WriteLogger<LineWriter<Terminal>>>,
}

impl TerminalLogger {
    /// Logs lines up to that level.
    pub(super) fn new(level: LevelFilter, config: &Config) -> Box<TerminalLogger> {
        TerminalLogger::to(Terminal::of(&io::stdout()), level, config)
    }

    /// The same with all lines on standard error, where standard output has something else.
    pub(super) fn of_errors(level: LevelFilter, config: &Config) -> Box<TerminalLogger> {
        TerminalLogger::to(Terminal::of(&io::stderr()), level, config)
    }

    fn to(out: Terminal, level: LevelFilter, config: &Config) -> Box<TerminalLogger> {
        let logger = |terminal| {
            WriteLogger::new(level, config.clone(), LineWriter::with_capacity(WRITE_MAX, terminal))
        };
        Box::new(TerminalLogger { out: logger(out), errors: logger(Terminal::of(&io::stderr())) })
    }
}

impl Log for TerminalLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.out.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        match record.level() {
            Level::Error => self.errors.log(record),
            _ => self.out.log(record),
        }
    }

    fn flush(&self) {
        self.out.flush();
        self.errors.flush();
    }
}

impl SharedLogger for TerminalLogger {
    fn level(&self) -> LevelFilter {
        self.out.level()
    }

    fn config(&self) -> Option<&Config> {
        self.out.config()
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

/// Writes a line to standard error, if there is room for it.
pub(super) fn complain(line: &str) {
    // It never fails.
    let _ = Terminal::of(&io::stderr()).write_all(format!("{line}\n").as_bytes());
}

/// A standard stream whose writes never wait; `None` if it is closed.
pub(super) struct Terminal(Option<File>);

impl Terminal {
    /// Opens the stream anew without blocking, which leaves the description that other
    /// programs share as it is (open(2)); a socket can only be duplicated.
    pub(super) fn of(stream: &(impl AsFd + AsRawFd)) -> Terminal {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = open(format!("/proc/self/fd/{}", stream.as_raw_fd()), flags, Mode::empty());
        let opened = opened.or_else(|_| rustix::io::fcntl_dupfd_cloexec(stream, 3));
        Terminal(opened.ok().map(|stream: OwnedFd| File::from(stream)))
    }
}

impl Write for Terminal {
    /// Takes everything; what there is no room for is lost.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.0 else { return Ok(bytes.len()) };
        for part in bytes.chunks(WRITE_MAX) {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let room = poll(&mut [PollFd::new(&*stream, PollFlags::OUT)], Some(&now));
            if !room.is_ok_and(|ready| ready > 0) || stream.write(part).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let start = Instant::now();
        let (pipe, write) = io::pipe().unwrap();
        let (socket, stream) = UnixStream::pair().unwrap();
        let mut pipe_writer = Terminal::of(&write);
        let mut socket_writer = Terminal::of(&stream);
        for writer in [&mut pipe_writer, &mut socket_writer] {
            for _ in 0..1_000_000 / 10 {
                writer.write_all(b"0123456789").unwrap();
            }
            writer.write_all(&[b'x'; 100_000]).unwrap();
        }
        drop((write, stream, pipe_writer, socket_writer));
        for reader in [&mut { pipe } as &mut dyn Read, &mut { socket }] {
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard).unwrap();
            assert!(heard.starts_with(b"0123456789") && heard.len() >= 500, "{}", heard.len());
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
