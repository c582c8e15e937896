//! The process: startup, signals, the single-instance lock, and the loop that serves.

mod bridged;
mod certificate;
pub(crate) mod check;
mod crowd;
mod ephemeral;
mod instance;
mod listener;
mod log_file;
mod neighbours;
mod reception;
mod server;
mod signals;
pub(crate) mod startup;
mod terminal;
mod uncovered;
mod white_list;
