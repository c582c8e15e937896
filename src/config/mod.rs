//! Configuration: `rfw.conf`, what changes where it is read again, the command line, and the
//! checks of owner and mode on the files that they name.

pub(crate) mod changes;
pub(crate) mod cli;
pub(crate) mod clients;
pub(crate) mod file;
pub(crate) mod trusted_file;
