//! Configuration: `rfw.conf`, the command line, and the checks of owner and mode on the
//! files that they name.

pub mod cli;
pub mod file;
pub mod trusted_file;
