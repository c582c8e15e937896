//! The process: startup, signals, the single-instance lock, and the loop that serves.

mod bridged;
mod certificate;
pub(crate) mod check;
mod clients;
mod confinement;
mod crowd;
mod ephemeral;
pub(crate) mod failure;
mod instance;
mod journal;
mod listener;
mod load;
mod log_file;
mod logging;
mod neighbours;
mod notify;
mod reception;
mod server;
mod signals;
pub(crate) mod startup;
mod terminal;
mod uncovered;
mod warning_count;
