//! The commands of one family, and the rules of a table as `iptables-save` prints them.

use crate::firewall::rule_cache::CacheReader;
use crate::kernel::generation::Ruleset;
use crate::kernel::iptables::{Line, Reading};
use crate::kernel::program::{Lines, Program, ProgramError};
use crate::kernel::save_reader::{End, SaveReader};
use crate::rule::layout::TableName;
use crate::rule::network::Family;
use crate::stop_signal::StopSignal;
use std::fs;
use std::io;
use std::path::Path;

/// The commands of one family: `iptables-save` and `iptables-restore`, or those of
/// a variant such as `iptables-legacy`.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    save: Program,
    pub restore: Program,
    pub nft: bool,
    /// The iptables command with its version, for people.
    pub told: String,
}

impl Commands {
    /// Finds the `-save` and `-restore` programs that belong to an iptables command.
    ///
    /// # Errors
    /// One of the three does not exist or fails.
    pub(super) fn find(command: &Path, stop: &StopSignal) -> Result<Commands, ProgramError> {
        let program = Program::find(command, stop)?;
        let companion = |suffix: &str| {
            let mut name = command.as_os_str().to_owned();
            name.push(suffix);
            Program::find(Path::new(&name), stop)
        };
        let (save, restore) = (companion("-save")?, companion("-restore")?);
        let version = restore.run(&["--version"])?;
        let nft = version.iter().any(|line| line.contains("nf_tables"));
        let told = program_with_version(&program, &version, nft);
        Ok(Commands { save, restore, nft, told })
    }

    /// Starts `iptables-save` and returns the rules of a table, with counters.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn read(&self, family: Family, reading: Reading) -> Result<Rules, ProgramError> {
        let lines = self.save.lines(&["-c", "-t", reading.table.name()])?;
        Ok(Rules { lines, reader: SaveReader::new(family, reading), family, nft: self.nft })
    }

    /// Whether there may be a table `raw`. It is asked for where nothing is to be put there, since
    /// iptables-legacy makes a table by reading it.
    pub(super) fn may_have_raw(&self, family: Family) -> bool {
        if self.nft {
            return Ruleset::default().has_table(family, TableName::Raw) != Some(false);
        }
        let names = match family {
            Family::V4 => "/proc/net/ip_tables_names",
            Family::V6 => "/proc/net/ip6_tables_names",
        };
        match fs::read_to_string(names) {
            Ok(names) => names.lines().any(|name| name == TableName::Raw.name()),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// The rules of a table, read from a running `iptables-save`.
pub(crate) struct Rules {
    lines: Lines,
    reader: SaveReader,
    family: Family,
    nft: bool,
}

impl Rules {
    /// The next rule; `None` after the last, if the output was complete.
    ///
    /// # Errors
    /// The program failed, or its output is incomplete.
    pub(crate) fn next_rule(&mut self) -> Result<Option<Line>, ProgramError> {
        loop {
            let read = match self.lines.next_line() {
                Ok(Some(line)) => self.reader.line(&line),
                Ok(None) => match self.reader.end() {
                    Ok(End::Whole) => return Ok(None),
                    Ok(End::Empty) if self.is_absent() => return Ok(None),
                    Ok(End::Empty) => Err("it printed nothing".to_owned()),
                    Err(why) => Err(why),
                },
                // A failure within the table leaves it incomplete; standard error has the cause.
                Err(ProgramError::Failed(_, status, words)) if self.reader.has_begun() => {
                    let status = status.map(|status| format!("{status}: ")).unwrap_or_default();
                    Err(format!("{status}{words}"))
                }
                Err(error) => return Err(error),
            };
            match read {
                Ok(None) => {}
                Ok(rule) => return Ok(rule),
                Err(why) => return Err(self.unreadable(why)),
            }
        }
    }

    /// Whether the kernel confirms that the table does not exist. With iptables-legacy it
    /// always exists, as reading creates it.
    fn is_absent(&self) -> bool {
        self.nft && Ruleset::default().has_table(self.family, self.table()) == Some(false)
    }

    /// The table that is read.
    fn table(&self) -> TableName {
        self.reader.table()
    }

    fn unreadable(&self, why: String) -> ProgramError {
        let remedy = match (self.nft, self.family) {
            (false, _) => "run it by hand to see what is wrong".to_owned(),
            (true, family) => {
                let family = if family == Family::V4 { "ip" } else { "ip6" };
                let table = self.table().name();
                format!(
                    "see \"nft list table {family} {table}\" for what iptables does not know, \
                     and move that to a table of its own"
                )
            }
        };
        ProgramError::Unreadable(self.lines.command_line(), why, remedy)
    }
}

/// Reads a whole table.
pub(super) fn read_into(reader: &mut CacheReader, mut rules: Rules) -> Result<(), ProgramError> {
    let table = rules.table();
    while let Some(line) = rules.next_rule()? {
        reader.line(table, line);
    }
    reader.chains(table, rules.reader.chains());
    Ok(())
}

/// A program with its version, as in `/usr/sbin/iptables v1.8.9 (nf_tables)`; `output` is what it says of
/// its version.
fn program_with_version(program: &Program, output: &[String], nft: bool) -> String {
    let is_version = |word: &&str| {
        let digits = word.strip_prefix('v').unwrap_or_default();
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
    };
    let version = output.iter().flat_map(|line| line.split(' ')).find(is_version);
    let version = version.map(|version| format!("{version} ")).unwrap_or_default();
    format!("{program} {version}({})", if nft { "nf_tables" } else { "legacy" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_with_its_version() {
        let golden = [
            ("iptables-restore v1.8.9 (nf_tables)", true, "/bin/sh v1.8.9 (nf_tables)"),
            ("iptables-restore v1.8.9 (legacy)", false, "/bin/sh v1.8.9 (legacy)"),
            ("iptables v1.6.0", false, "/bin/sh v1.6.0 (legacy)"),
            ("garbage v\u{1b}[31m v1\u{1b} version", false, "/bin/sh (legacy)"),
            ("", true, "/bin/sh (nf_tables)"),
        ];
        let sh = Program::find(Path::new("/bin/sh"), &StopSignal::default()).unwrap();
        for (output, nft, expected) in golden {
            assert_eq!(program_with_version(&sh, &[output.to_owned()], nft), expected, "{output:?}");
        }
    }
}
