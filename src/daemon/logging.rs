//! Where the lines of the log go: to a file, to standard error, to the terminal beside it. Where standard
//! error is the journal's, it gets priorities in place of times and levels, which it keeps itself.

use crate::config::cli::{Arguments, LogTarget};
use crate::config::trusted_file;
use crate::daemon::failure::Failure;
use crate::daemon::journal::{self, JournalLogger};
use crate::daemon::log_file::LogFile;
use crate::daemon::terminal::TerminalLogger;
use crate::daemon::warning_count::WarningCount;
use simplelog::{CombinedLogger, Config, ConfigBuilder, LevelFilter, SharedLogger, WriteLogger};

/// Logs the server's lines to where the command line says, and with `-v` everything to the terminal too.
///
/// # Errors
/// The log file can't be opened.
pub(super) fn start(arguments: &Arguments) -> Result<(), Failure> {
    let level = if arguments.verbose { LevelFilter::Debug } else { arguments.log_level };
    let mut loggers: Vec<Box<dyn SharedLogger>> = Vec::new();
    match &arguments.log {
        LogTarget::StandardError => loggers.push(to_standard_error(level)),
        LogTarget::File(path) => {
            let file = trusted_file::open_log(path).map_err(|error| Failure::Log(path.clone(), error))?;
            loggers.push(WriteLogger::new(arguments.log_level, format(), LogFile::new(file)));
            if arguments.verbose {
                loggers.push(TerminalLogger::new(level, &format()));
            }
        }
    }
    // It fails only if a logger is already set, which happens nowhere else.
    let _ = CombinedLogger::init(loggers);
    Ok(())
}

/// Logs what a call without a log has to tell: warnings and errors, with `-v` everything.
pub(super) fn start_of_call(arguments: &Arguments) {
    let level = level_of_call(arguments);
    let logger: Box<dyn SharedLogger> = match journal::is_standard_error() {
        true => JournalLogger::new(level, &bare()),
        false => TerminalLogger::new(level, &format()),
    };
    let _ = CombinedLogger::init(vec![logger]);
}

/// The same on standard error alone; the warnings are counted.
pub(super) fn start_of_check(arguments: &Arguments, warnings: &WarningCount) {
    let logger = to_standard_error(level_of_call(arguments));
    let _ = CombinedLogger::init(vec![logger, Box::new(warnings.clone())]);
}

fn level_of_call(arguments: &Arguments) -> LevelFilter {
    if arguments.verbose { LevelFilter::Debug } else { LevelFilter::Warn }
}

fn to_standard_error(level: LevelFilter) -> Box<dyn SharedLogger> {
    match journal::is_standard_error() {
        true => JournalLogger::new(level, &bare()),
        false => TerminalLogger::of_errors(level, &format()),
    }
}

/// Lines of rfw itself, with a time and a level.
fn format() -> Config {
    lines().set_time_format_rfc3339().build()
}

/// Lines of rfw itself, without anything beside them.
pub(super) fn bare() -> Config {
    lines().set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off).build()
}

fn lines() -> ConfigBuilder {
    let mut lines = ConfigBuilder::new();
    lines
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("rfw");
    lines
}
