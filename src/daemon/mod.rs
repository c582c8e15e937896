//! The process: startup, signals, the single-instance lock and the accept loop.

mod instance;
mod server;
mod signals;
pub(crate) mod startup;
