//! Configuration: `rfw.conf`, the command line, and the checks of owner and mode on the
//! files that they name.

pub(crate) mod cli;
pub(crate) mod clients;
pub(crate) mod file;
pub(crate) mod trusted_file;
