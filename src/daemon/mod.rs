//! The process: from its start to its end, and the loop that accepts connections.

mod instance;
mod server;
mod signals;
pub mod startup;
