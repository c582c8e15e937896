//! What an administrator says: `rfw.conf`, the command line, and which files may be
//! trusted.

pub mod cli;
pub mod file;
pub mod trusted_file;
