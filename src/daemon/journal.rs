//! The log as the journal takes it from standard error (systemd.exec(5), sd-daemon(3)): a line begins with
//! its priority, `<6>`, and has neither time nor level. As on a terminal, a journal that does not read loses
//! lines, and rfw does not wait.

use crate::daemon::terminal::Terminal;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::fstat;
use simplelog::{Config, SharedLogger, WriteLogger};
use std::io::{self, Write};

/// Whether standard error leads to the journal, as `JOURNAL_STREAM` in the environment says.
pub(super) fn is_standard_error() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let stream = fstat(io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    stream.is_some() && stream == named.to_str().and_then(device_and_inode)
}

/// Parses `JOURNAL_STREAM`: the numbers of a device and an inode, with a colon between them.
fn device_and_inode(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// The number of a level in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A line of that level, as the journal takes it.
pub(super) fn marked(level: Level, line: &str) -> String {
    format!("<{}>{line}", priority(level))
}

/// Logs to standard error, a logger for each level.
pub(super) struct JournalLogger {
    level: LevelFilter,
    loggers: Vec<(Level, Box<WriteLogger<Marked<Terminal>>>)>,
}

impl JournalLogger {
    /// Logs lines up to that level.
    pub(super) fn new(level: LevelFilter, config: &Config) -> Box<JournalLogger> {
        let logger = |of: Level| {
            let out = Marked { level: of, line: Vec::new(), out: Terminal::of(&io::stderr()) };
            (of, WriteLogger::new(level, config.clone(), out))
        };
        let levels = Level::iter().filter(|of| *of <= level);
        Box::new(JournalLogger { level, loggers: levels.map(logger).collect() })
    }
}

impl Log for JournalLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        let logger = self.loggers.iter().find(|(level, _)| *level == record.level());
        logger.iter().for_each(|(_, logger)| logger.log(record));
    }

    fn flush(&self) {}
}

impl SharedLogger for JournalLogger {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

/// Gathers lines, and writes each at once behind the priority of its level.
struct Marked<W> {
    level: Level,
    /// A line that has no end yet.
    line: Vec<u8>,
    out: W,
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.line.is_empty() {
            self.line.extend_from_slice(marked(self.level, "").as_bytes());
        }
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            self.out.write_all(&line)?;
        }
        Ok(bytes.len())
    }

    /// Does nothing: no line that has an end is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::logging::bare;

    #[test]
    fn a_stream_is_named_by_device_and_inode() {
        let golden = [
            ("8:1234", Some((8, 1234))),
            ("8:", None),
            ("8", None),
            ("", None),
            ("8:12:3", None),
            ("x:1", None),
        ];
        for (text, expected) in golden {
            assert_eq!(device_and_inode(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_have_the_priority_of_their_level() {
        let logger = |level, out| {
            let marked = Marked { level, line: Vec::new(), out };
            WriteLogger::new(LevelFilter::Debug, bare(), marked)
        };
        let (mut pipe, writer) = io::pipe().unwrap();
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
        for level in levels {
            let logger = logger(level, writer.try_clone().unwrap());
            for target in ["rfw::x", "other"] {
                let args = format_args!("a line of {target}");
                logger.log(&Record::builder().level(level).target(target).args(args).build());
            }
        }
        drop(writer);
        let mut text = String::new();
        io::Read::read_to_string(&mut pipe, &mut text).unwrap();
        assert_eq!(
            text,
            "<3>a line of rfw::x\n<4>a line of rfw::x\n<6>a line of rfw::x\n<7>a line of rfw::x\n"
        );
    }
}
