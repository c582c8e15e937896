//! The white list, as its file has it.

use crate::config::file::{Config, LocatedError};
use crate::config::trusted_file;
use crate::rule::whitelist::WhiteList;

/// Reads the white list that a configuration names.
///
/// # Errors
/// The file can't be read, is writable by others, or has an invalid line.
pub(super) fn load(config: &Config) -> Result<WhiteList, LocatedError> {
    let setting = &config.whitelist_file;
    let file = &setting.value;
    let text = trusted_file::read_trusted(file)
        .map_err(|error| setting.error(&config.file, format!("{}: {error}", file.display())))?;
    WhiteList::parse(&text).map_err(|error| LocatedError {
        file: file.clone(),
        line: error.line(),
        why: error.to_string(),
    })
}
