//! Command-line options.

use getopts::Options;
use log::LevelFilter;
use std::path::{Path, PathBuf};

/// The action that the command line selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Print this text (`--help`, `--version`).
    Print(String),
    /// Check the configuration (`--check`).
    Check(Arguments),
    /// Remove every rule of rfw (`--flush`).
    Flush(Arguments),
    /// Put back what a reboot has taken (`--restore`).
    Restore(Arguments),
    /// Run the server.
    Serve(Arguments),
}

/// Option values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The configuration file (`-f`).
    pub config: PathBuf,
    /// Where the log goes (`--logfile`).
    pub log: LogTarget,
    /// The least severe level that is written to the log (`--loglevel`).
    pub log_level: LevelFilter,
    /// Whether all levels are logged to the terminal too (`-v`).
    pub verbose: bool,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// To that file.
    File(PathBuf),
    /// To standard error, which `-` stands for.
    StandardError,
}

const DEFAULT_CONFIG: &str = "/etc/rfw/rfw.conf";
const DEFAULT_LOG: &str = "/var/log/rfw.log";

/// Level names of the original rfw, which are those of Python's module `logging`.
const LEVELS: [(&str, LevelFilter); 5] = [
    ("DEBUG", LevelFilter::Debug),
    ("INFO", LevelFilter::Info),
    ("WARNING", LevelFilter::Warn),
    ("ERROR", LevelFilter::Error),
    ("CRITICAL", LevelFilter::Error),
];

/// Parses the arguments after the program name.
///
/// # Errors
/// A one-line message that refers to `--help`.
pub(crate) fn parse(arguments: &[String]) -> Result<Call, String> {
    let options = options();
    let fail = |why: String| format!("{why} (see rfw --help)");
    let given = options.parse(arguments).map_err(|error| fail(error.to_string()))?;
    if given.opt_present("h") {
        let brief = "rfw - remote firewall: blocks and allows addresses on request over HTTPS\n\nUsage: rfw [options]";
        return Ok(Call::Print(options.usage(brief)));
    }
    if given.opt_present("version") {
        return Ok(Call::Print(concat!("rfw ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    }
    if let Some(extra) = given.free.first() {
        return Err(fail(format!("unexpected argument \"{}\"", extra.escape_debug())));
    }
    let path =
        |name, default: &str| given.opt_str(name).map_or_else(|| PathBuf::from(default), PathBuf::from);
    let arguments = Arguments {
        config: path("f", DEFAULT_CONFIG),
        log: match path("logfile", DEFAULT_LOG) {
            path if path == Path::new("-") => LogTarget::StandardError,
            path => LogTarget::File(path),
        },
        log_level: level(given.opt_str("loglevel").as_deref().unwrap_or("INFO")).map_err(fail)?,
        verbose: given.opt_present("v"),
    };
    let mut calls = ["check", "flush", "restore"].into_iter().filter(|name| given.opt_present(name));
    match (calls.next(), calls.next()) {
        (Some(one), Some(other)) => Err(fail(format!("--{one} and --{other} do not go together"))),
        (Some("check"), None) => Ok(Call::Check(arguments)),
        (Some("flush"), None) => Ok(Call::Flush(arguments)),
        (Some(_), None) => Ok(Call::Restore(arguments)),
        (None, _) => Ok(Call::Serve(arguments)),
    }
}

fn options() -> Options {
    let mut options = Options::new();
    options
        .optopt("f", "", &format!("configuration file (default {DEFAULT_CONFIG})"), "FILE")
        .optopt("", "loglevel", "DEBUG, INFO, WARNING, ERROR or CRITICAL (default INFO)", "LEVEL")
        .optopt("", "logfile", &format!("log file, or - for standard error (default {DEFAULT_LOG})"), "FILE")
        .optflag("v", "", "log everything to the terminal too, kernel transactions included; with --check: print all options")
        .optflag("", "check", "check configuration, white list, keys and tools, say what is in force, then end")
        .optflag("", "flush", "remove every rule that rfw made, then end")
        .optflag("", "restore", "put back what a reboot has taken, then end")
        .optflag("h", "help", "print this help")
        .optflag("", "version", "print the version");
    options
}

fn level(name: &str) -> Result<LevelFilter, String> {
    let level = LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level);
    level.ok_or_else(|| {
        let name = name.escape_debug();
        format!("--loglevel: \"{name}\": expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let Ok(Call::Serve(arguments)) = read("") else { panic!() };
        assert_eq!(arguments.config, PathBuf::from("/etc/rfw/rfw.conf"));
        assert_eq!(arguments.log, LogTarget::File(PathBuf::from("/var/log/rfw.log")));
        assert_eq!((arguments.log_level, arguments.verbose), (LevelFilter::Info, false));
    }

    #[test]
    fn arguments_are_read() {
        let Ok(Call::Check(arguments)) = read("-f a --loglevel CRITICAL --logfile b -v --check") else {
            panic!()
        };
        assert_eq!(
            (arguments.config, arguments.log),
            (PathBuf::from("a"), LogTarget::File(PathBuf::from("b")))
        );
        assert_eq!((arguments.log_level, arguments.verbose), (LevelFilter::Error, true));
        assert!(matches!(read("--logfile -"), Ok(Call::Serve(it)) if it.log == LogTarget::StandardError));
        assert!(matches!(read("--flush"), Ok(Call::Flush(_))));
        assert!(matches!(read("--restore"), Ok(Call::Restore(_))));
        assert_eq!(read("--version"), Ok(Call::Print(format!("rfw {}\n", env!("CARGO_PKG_VERSION")))));
        assert!(matches!(read("-h"), Ok(Call::Print(text)) if text.contains("--loglevel LEVEL")));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let golden = [
            ("start", "unexpected argument \"start\" (see rfw --help)"),
            ("--chek", "Unrecognized option: 'chek' (see rfw --help)"),
            ("-f", "Argument to option 'f' missing (see rfw --help)"),
            ("-f a -f b", "Option 'f' given more than once (see rfw --help)"),
            (
                "--loglevel info",
                "--loglevel: \"info\": expected DEBUG, INFO, WARNING, ERROR or CRITICAL (see rfw --help)",
            ),
            ("--check --flush", "--check and --flush do not go together (see rfw --help)"),
            ("--restore --flush", "--flush and --restore do not go together (see rfw --help)"),
        ];
        for (line, message) in golden {
            assert_eq!(read(line).unwrap_err(), message, "{line}");
        }
    }
}
